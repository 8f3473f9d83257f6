//! The forms under test: every code in register and memory form for which there is an operation.

use iced_x86::{
    Code, CpuidFeature, EncodingKind, Instruction, OpCodeOperandKind, OpKind, Register,
};
use mimic_cpu::x86::simd::{SimdOp, lookup};

/// Where the operand of that number of an instruction is.
pub(crate) const GPR8: [Register; 3] = [Register::BL, Register::CL, Register::DL];
const GPR16: [Register; 3] = [Register::BX, Register::CX, Register::DX];
const GPR32: [Register; 3] = [Register::EBX, Register::ECX, Register::EDX];
const GPR64: [Register; 3] = [Register::RBX, Register::RCX, Register::RDX];
/// The register with a gather's indices.
pub(crate) const INDICES: usize = 5;

/// One encoding of an instruction.
pub(crate) struct Form {
    pub code: Code,
    pub memory: bool,
    pub op: &'static SimdOp,
}

/// Every form that the table claims.
pub(crate) fn all() -> impl Iterator<Item = Form> {
    Code::values().flat_map(|code| {
        [false, true]
            .into_iter()
            .filter_map(move |memory| Some(Form { code, memory, op: lookup(code, memory)? }))
    })
}

/// Every code of the extensions that the module is for.
pub(crate) fn of_extensions() -> impl Iterator<Item = Code> {
    use CpuidFeature::*;
    Code::values().filter(|code| {
        matches!(code.op_code().encoding(), EncodingKind::Legacy | EncodingKind::VEX)
            && code.cpuid_features().iter().all(|feature| {
                matches!(
                    feature,
                    MMX | SSE
                        | SSE2
                        | SSE3
                        | SSSE3
                        | SSE4_1
                        | SSE4_2
                        | AES
                        | PCLMULQDQ
                        | SHA
                        | AVX
                        | AVX2
                        | FMA
                        | F16C
                )
            })
    })
}

impl Form {
    pub(crate) fn vex(&self) -> bool {
        self.code.op_code().encoding() == EncodingKind::VEX
    }

    /// A feature the form needs and the host lacks.
    pub(crate) fn missing_feature(&self) -> Option<String> {
        self.code.cpuid_features().iter().find(|feature| !has(**feature)).map(|f| format!("{f:?}"))
    }

    /// The instruction with the given immediate: operand `n` is register `n + 1` of its class (for general registers see
    /// `GPR64`), memory is at RSI (at RDI for MASKMOVDQU).
    pub(crate) fn instruction(&self, imm: u8) -> Instruction {
        use OpCodeOperandKind as K;
        let mut insn = Instruction::new();
        insn.set_code(self.code);
        for (n, &kind) in self.code.op_code().op_kinds().iter().enumerate() {
            let number = n as u32;
            let register = match kind {
                K::mem
                | K::mem_vsib32x
                | K::mem_vsib32y
                | K::mem_vsib64x
                | K::mem_vsib64y
                | K::mm_or_mem
                | K::xmm_or_mem
                | K::ymm_or_mem
                | K::r8_or_mem
                | K::r16_or_mem
                | K::r32_or_mem
                | K::r64_or_mem
                    if self.memory =>
                {
                    insn.set_op_kind(number, OpKind::Memory);
                    insn.set_memory_base(Register::RSI);
                    match kind {
                        K::mem_vsib32x | K::mem_vsib64x => {
                            insn.set_memory_index(Register::XMM0 + INDICES as u32);
                        }
                        K::mem_vsib32y | K::mem_vsib64y => {
                            insn.set_memory_index(Register::YMM0 + INDICES as u32);
                        }
                        _ => continue,
                    }
                    insn.set_memory_index_scale(4);
                    continue;
                }
                K::seg_rDI => {
                    insn.set_op_kind(number, OpKind::MemorySegRDI);
                    continue;
                }
                K::imm8 => {
                    insn.set_op_kind(number, OpKind::Immediate8);
                    insn.set_immediate8(imm);
                    continue;
                }
                K::mm_reg | K::mm_rm | K::mm_or_mem => Register::MM1 + number,
                K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 | K::xmm_or_mem => {
                    Register::XMM1 + number
                }
                K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 | K::ymm_or_mem => {
                    Register::YMM1 + number
                }
                K::r8_or_mem => GPR8[n],
                K::r16_or_mem => GPR16[n],
                K::r32_reg | K::r32_or_mem => GPR32[n],
                K::r64_reg | K::r64_or_mem => GPR64[n],
                other => panic!("{:?} has an operand {other:?}", self.code),
            };
            insn.set_op_kind(number, OpKind::Register);
            insn.set_op_register(number, register);
        }
        insn
    }
}

fn has(feature: CpuidFeature) -> bool {
    match feature {
        CpuidFeature::MMX | CpuidFeature::SSE | CpuidFeature::SSE2 => true,
        CpuidFeature::SSE3 => is_x86_feature_detected!("sse3"),
        CpuidFeature::SSSE3 => is_x86_feature_detected!("ssse3"),
        CpuidFeature::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        CpuidFeature::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        CpuidFeature::AVX => is_x86_feature_detected!("avx"),
        CpuidFeature::AVX2 => is_x86_feature_detected!("avx2"),
        CpuidFeature::FMA => is_x86_feature_detected!("fma"),
        CpuidFeature::F16C => is_x86_feature_detected!("f16c"),
        CpuidFeature::AES => is_x86_feature_detected!("aes"),
        CpuidFeature::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        CpuidFeature::SHA => is_x86_feature_detected!("sha"),
        _ => false,
    }
}
