//! Every instruction form of 64-bit mode that can be run natively without harm.

use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, Encoder, FlowControl, Instruction, MemoryOperand,
    Mnemonic, OpCodeOperandKind as K, OpKind, Register,
};

/// One way to encode an instruction.
#[derive(Clone)]
pub(crate) struct Form {
    pub(crate) insn: Instruction,
    pub(crate) bytes: Vec<u8>,
    /// It is repeated RCX times.
    pub(crate) repeated: bool,
    /// It is one of x87's or MMX's.
    pub(crate) x87: bool,
}

/// Why a code has no form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It transfers control.
    Flow,
    /// It is privileged, or reveals or changes what the host's system owns.
    Sensitive,
    /// An operand that is a segment, control or debug register.
    Operand,
    /// The host lacks it.
    Host,
    /// The model does not offer it.
    Model,
    /// Processors of different makers disagree.
    Maker,
    /// The encoder or decoder makes another code of it.
    Alias,
}

/// The forms of `code` for an instruction at `ip`, with memory operands relative to RIP at `data`.
pub(crate) fn forms(code: Code, ip: u64, data: u64) -> Result<Vec<Form>, Reason> {
    let info = code.op_code();
    let mut probe = Instruction::default();
    probe.set_code(code);
    if info.flow_control_is_not_next(&probe) {
        return Err(Reason::Flow);
    }
    if info.is_privileged() || is_sensitive(info.mnemonic()) {
        return Err(Reason::Sensitive);
    }
    if info.mnemonic() == Mnemonic::Reservednop {
        return Err(Reason::Maker);
    }
    if !probe.cpuid_features().iter().all(|feature| host_has(*feature)) {
        return Err(Reason::Host);
    }
    let mut forms = Vec::new();
    for variant in 0..6 {
        let Some(insn) = build(code, info.op_kinds(), variant, data) else {
            return Err(Reason::Operand);
        };
        let mut candidates = vec![insn];
        if info.can_use_lock_prefix() && insn.op0_kind() == OpKind::Memory {
            let mut locked = insn;
            locked.set_has_lock_prefix(true);
            candidates.push(locked);
        }
        if insn.is_string_instruction() {
            for repne in [false, true] {
                let mut repeated = insn;
                repeated.set_has_rep_prefix(!repne);
                repeated.set_has_repne_prefix(repne);
                candidates.push(repeated);
            }
        }
        for insn in candidates {
            let Some(form) = encode(&insn, ip) else { continue };
            if !forms.iter().any(|known: &Form| known.bytes == form.bytes) {
                forms.push(form);
            }
        }
    }
    if forms.is_empty() { Err(Reason::Alias) } else { Ok(forms) }
}

trait FlowOf {
    fn flow_control_is_not_next(&self, insn: &Instruction) -> bool;
}

impl FlowOf for iced_x86::OpCodeInfo {
    fn flow_control_is_not_next(&self, insn: &Instruction) -> bool {
        insn.flow_control() != FlowControl::Next
    }
}

fn encode(insn: &Instruction, ip: u64) -> Option<Form> {
    let mut encoder = Encoder::new(64);
    encoder.encode(insn, ip).ok()?;
    let bytes = encoder.take_buffer();
    let decoded = Decoder::with_ip(64, &bytes, ip, DecoderOptions::NONE).decode();
    let repeated = insn.has_rep_prefix() || insn.has_repne_prefix();
    (decoded.code() == insn.code() && decoded.len() == bytes.len()).then_some(Form {
        insn: decoded,
        x87: insn.cpuid_features().iter().any(|feature| is_x87(*feature)),
        bytes,
        repeated,
    })
}

fn is_x87(feature: CpuidFeature) -> bool {
    use CpuidFeature as C;
    matches!(feature, C::FPU | C::FPU287 | C::FPU387 | C::MMX)
}

/// Unprivileged instructions that show or change what is not the program's own.
fn is_sensitive(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Cpuid
            | M::Rdtsc
            | M::Rdtscp
            | M::Rdpid
            | M::Rdpmc
            | M::Rdrand
            | M::Rdseed
            | M::Sgdt
            | M::Sidt
            | M::Sldt
            | M::Smsw
            | M::Str
            | M::Lar
            | M::Lsl
            | M::Verr
            | M::Verw
            | M::Pushf
            | M::Pushfd
            | M::Pushfq
            | M::Popf
            | M::Popfd
            | M::Popfq
            | M::Rdfsbase
            | M::Rdgsbase
            | M::Wrfsbase
            | M::Wrgsbase
            | M::Lfs
            | M::Lgs
            | M::Lss
            | M::In
            | M::Out
            | M::Insb
            | M::Insw
            | M::Insd
            | M::Outsb
            | M::Outsw
            | M::Outsd
            | M::Cli
            | M::Sti
            | M::Monitor
            | M::Mwait
            | M::Xgetbv
            // They store where the last x87 instruction was, which some processors keep only for exceptions.
            | M::Fnstenv
            | M::Fnsave
            | M::Fxsave
            | M::Fxsave64
            | M::Xsave
            | M::Xsave64
            | M::Xsavec
            | M::Xsavec64
            | M::Xsaveopt
            | M::Xsaveopt64
            // Few values are valid.
            | M::Ldmxcsr
            | M::Vldmxcsr
            | M::Fxrstor
            | M::Fxrstor64
            | M::Xrstor
            | M::Xrstor64
            | M::Enqcmd
            | M::Serialize
    )
}

fn host_has(feature: CpuidFeature) -> bool {
    use CpuidFeature as C;
    match feature {
        C::INTEL8086
        | C::INTEL8086_ONLY
        | C::INTEL186
        | C::INTEL286
        | C::INTEL386
        | C::INTEL486
        | C::X64
        | C::MULTIBYTENOP
        | C::PAUSE
        | C::CMOV
        | C::CX8
        | C::CLFSH
        | C::FPU
        | C::FPU287
        | C::FPU387
        | C::MMX
        | C::SSE
        | C::SSE2 => true,
        C::SSE3 => is_x86_feature_detected!("sse3"),
        C::SSSE3 => is_x86_feature_detected!("ssse3"),
        C::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        C::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        C::AES => is_x86_feature_detected!("aes"),
        C::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        C::SHA => is_x86_feature_detected!("sha"),
        C::AVX => is_x86_feature_detected!("avx"),
        C::AVX2 => is_x86_feature_detected!("avx2"),
        C::F16C => is_x86_feature_detected!("f16c"),
        C::FMA => is_x86_feature_detected!("fma"),
        C::CMPXCHG16B => is_x86_feature_detected!("cmpxchg16b"),
        C::MOVBE => is_x86_feature_detected!("movbe"),
        C::POPCNT => is_x86_feature_detected!("popcnt"),
        C::LZCNT => is_x86_feature_detected!("lzcnt"),
        C::BMI1 => is_x86_feature_detected!("bmi1"),
        C::BMI2 => is_x86_feature_detected!("bmi2"),
        C::ADX => is_x86_feature_detected!("adx"),
        _ => false,
    }
}

/// Registers for operands, by number: RAX, RCX, RDX, RDI, R8, R15 and some more.
const PICK: [[usize; 4]; 6] =
    [[0, 1, 2, 7], [9, 10, 8, 15], [2, 2, 1, 1], [7, 0, 14, 3], [3, 6, 0, 2], [15, 7, 11, 10]];

fn register(class: usize, variant: usize, operand: usize) -> Register {
    let number = PICK[variant][operand];
    let base = match class {
        1 => {
            // AH, CH, DH, BH, too.
            if variant == 3 || variant == 4 && operand == 1 {
                return [Register::AH, Register::CH, Register::DH, Register::BH][number % 4];
            }
            return [
                Register::AL,
                Register::CL,
                Register::DL,
                Register::BL,
                Register::SPL,
                Register::BPL,
                Register::SIL,
                Register::DIL,
                Register::R8L,
                Register::R9L,
                Register::R10L,
                Register::R11L,
                Register::R12L,
                Register::R13L,
                Register::R14L,
                Register::R15L,
            ][number];
        }
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    };
    base + number as u32
}

/// [RBX + 8], [R13 + R12 * 4 - 64], or relative to RIP.
fn memory(variant: usize, data: u64) -> MemoryOperand {
    match variant {
        1 => MemoryOperand::new(Register::R13, Register::R12, 4, -64, 4, false, Register::None),
        2 => MemoryOperand::with_base_displ(Register::RIP, data as i64 + 0x820),
        5 => MemoryOperand::with_base_displ(Register::RBP, -16),
        _ => MemoryOperand::with_base_displ(Register::RBX, 8),
    }
}

/// An instruction with operands of the given kinds; `variant` chooses registers, and memory where both are possible.
fn build(code: Code, kinds: &[K], variant: usize, data: u64) -> Option<Instruction> {
    let mut insn = Instruction::default();
    insn.set_code(code);
    const IMMEDIATES: [u64; 6] = [1, 0x7f, 0x80, 0xff, 33, 0x8000_0000_1234_5678];
    let imm = IMMEDIATES[variant];
    for (operand, kind) in kinds.iter().enumerate() {
        let n = operand as u32;
        let put_memory = |insn: &mut Instruction| {
            let memory = memory(variant, data);
            insn.set_op_kind(n, OpKind::Memory);
            insn.set_memory_base(memory.base);
            insn.set_memory_index(memory.index);
            insn.set_memory_index_scale(memory.scale);
            insn.set_memory_displacement64(memory.displacement as u64);
            insn.set_memory_displ_size(8);
        };
        let class = match kind {
            K::r8_or_mem | K::r8_reg | K::r8_opcode | K::al | K::cl => 1,
            K::r16_or_mem
            | K::r16_reg
            | K::r16_reg_mem
            | K::r16_rm
            | K::r16_opcode
            | K::ax
            | K::dx => 2,
            K::r32_or_mem
            | K::r32_or_mem_mpx
            | K::r32_reg
            | K::r32_reg_mem
            | K::r32_rm
            | K::r32_opcode
            | K::r32_vvvv
            | K::eax => 4,
            _ => 8,
        };
        match kind {
            K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::mm_or_mem
            | K::xmm_or_mem
            | K::ymm_or_mem => {
                // Registers in three variants, memory in three.
                if variant % 2 == 1 || variant == 2 {
                    put_memory(&mut insn);
                } else {
                    insn.set_op_kind(n, OpKind::Register);
                    let register = vector(kind, variant, operand)
                        .unwrap_or_else(|| register(class, variant, operand));
                    insn.set_op_register(n, register);
                }
            }
            K::mem_vsib32x | K::mem_vsib32y | K::mem_vsib64x | K::mem_vsib64y => {
                put_memory(&mut insn);
                let ymm = matches!(kind, K::mem_vsib32y | K::mem_vsib64y);
                let base = if ymm { Register::YMM0 } else { Register::XMM0 };
                insn.set_memory_base(Register::RBX);
                insn.set_memory_index(base + PICK[variant][3] as u32);
                insn.set_memory_index_scale(1 << (variant % 4));
            }
            K::st0 => insn.set_op_register(n, Register::ST0),
            K::sti_opcode => {
                let number = PICK[variant][operand] as u32 & 7;
                insn.set_op_register(n, Register::ST0 + number);
            }
            K::seg_rDI => insn.set_op_kind(n, OpKind::MemorySegRDI),
            K::mem => put_memory(&mut insn),
            K::al | K::ax | K::eax | K::rax => {
                insn.set_op_kind(n, OpKind::Register);
                let named = [Register::AL, Register::AX, Register::EAX, Register::RAX];
                insn.set_op_register(n, named[class.ilog2() as usize]);
            }
            K::cl => insn.set_op_register(n, Register::CL),
            K::r8_reg
            | K::r8_opcode
            | K::r16_reg
            | K::r16_rm
            | K::r16_opcode
            | K::r32_reg
            | K::r32_rm
            | K::r32_opcode
            | K::r32_vvvv
            | K::r64_reg
            | K::r64_rm
            | K::r64_opcode
            | K::r64_vvvv => {
                insn.set_op_kind(n, OpKind::Register);
                insn.set_op_register(n, register(class, variant, operand));
            }
            K::imm8 => {
                let second = operand > 0
                    && insn.op_kind(n - 1) != OpKind::Register
                    && matches!(kinds[operand - 1], K::imm16);
                insn.set_op_kind(
                    n,
                    if second { OpKind::Immediate8_2nd } else { OpKind::Immediate8 },
                );
                if second {
                    insn.set_immediate8_2nd(variant as u8);
                } else {
                    insn.set_immediate8(imm as u8);
                }
            }
            K::imm8_const_1 => {
                insn.set_op_kind(n, OpKind::Immediate8);
                insn.set_immediate8(1);
            }
            K::imm8sex16 => {
                insn.set_op_kind(n, OpKind::Immediate8to16);
                insn.set_immediate8to16(imm as i8 as i16);
            }
            K::imm8sex32 => {
                insn.set_op_kind(n, OpKind::Immediate8to32);
                insn.set_immediate8to32(imm as i8 as i32);
            }
            K::imm8sex64 => {
                insn.set_op_kind(n, OpKind::Immediate8to64);
                insn.set_immediate8to64(imm as i8 as i64);
            }
            K::imm16 => {
                insn.set_op_kind(n, OpKind::Immediate16);
                insn.set_immediate16(if code.mnemonic() == Mnemonic::Enter {
                    32
                } else {
                    imm as u16
                });
            }
            K::imm32 => {
                insn.set_op_kind(n, OpKind::Immediate32);
                insn.set_immediate32(imm as u32);
            }
            K::imm32sex64 => {
                insn.set_op_kind(n, OpKind::Immediate32to64);
                insn.set_immediate32to64(i64::from(imm as i32));
            }
            K::imm64 => {
                insn.set_op_kind(n, OpKind::Immediate64);
                insn.set_immediate64(imm);
            }
            K::seg_rSI => {
                insn.set_op_kind(n, OpKind::MemorySegRSI);
            }
            K::es_rDI => insn.set_op_kind(n, OpKind::MemoryESRDI),
            K::seg_rBX_al => {
                insn.set_op_kind(n, OpKind::Memory);
                insn.set_memory_base(Register::RBX);
                insn.set_memory_index(Register::AL);
            }
            K::mem_offs => {
                insn.set_op_kind(n, OpKind::Memory);
                insn.set_memory_displacement64(data + 0x810);
                insn.set_memory_displ_size(8);
            }
            _ => insn.set_op_register(n, vector(kind, variant, operand)?),
        }
    }
    Some(insn)
}

/// An MMX, XMM or YMM register.
fn vector(kind: &K, variant: usize, operand: usize) -> Option<Register> {
    let number = PICK[variant][operand] as u32;
    Some(match kind {
        K::mm_or_mem | K::mm_reg | K::mm_rm => Register::MM0 + (number & 7),
        K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 => {
            Register::XMM0 + number
        }
        K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 => {
            Register::YMM0 + number
        }
        _ => return None,
    })
}
