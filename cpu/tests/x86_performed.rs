//! Which instructions of the decoder's are performed: those that are not are listed here.

use mimic_cpu::x86::decode::{CodeSize, performs};
use mimic_cpu::x86::model::Model;

#[test]
fn what_is_not_performed_is_listed() {
    // Whatever CPUID promises must be there: an integer instruction of the model without a function is an error.
    let model = Model::v3();
    let mut missing = Vec::new();
    for code in iced_x86::Code::values() {
        let info = code.op_code();
        // Those with a WAIT of their own exist for assemblers: it is an instruction.
        if !info.is_instruction() || info.fwait() {
            continue;
        }
        for memory in [false, true] {
            let mut raw = iced_x86::Instruction::default();
            raw.set_code(code);
            if !raw.cpuid_features().iter().all(|feature| model.offers(*feature)) {
                continue;
            }
            for (operand, kind) in (0..).zip(info.op_kinds()) {
                give_operand(&mut raw, operand, *kind, memory);
            }
            for (size, there) in [
                (CodeSize::Bits16, info.mode16()),
                (CodeSize::Bits32, info.mode32()),
                (CodeSize::Bits64, info.mode64()),
            ] {
                if there && !performs(&raw, size, &model) {
                    missing.push((code, size));
                }
            }
        }
    }
    println!("not performed: {missing:?}");
    let codes: std::collections::BTreeSet<_> =
        missing.iter().map(|(code, _)| format!("{code:?}")).collect();
    // No processor of this model performs these: they belong to others, or are undefined on purpose.
    let known = ["Popw_CS", "Frstpm"];
    let unexpected: Vec<_> = codes.iter().filter(|code| !known.contains(&code.as_str())).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

/// An operand of the given kind.
fn give_operand(
    raw: &mut iced_x86::Instruction,
    operand: u32,
    kind: iced_x86::OpCodeOperandKind,
    memory: bool,
) {
    use iced_x86::{OpCodeOperandKind as K, OpKind, Register as R};
    let register = match kind {
        K::mm_or_mem
        | K::xmm_or_mem
        | K::ymm_or_mem
        | K::r8_or_mem
        | K::r16_or_mem
        | K::r32_or_mem
        | K::r64_or_mem
            if memory =>
        {
            R::None
        }
        K::mm_or_mem | K::mm_reg | K::mm_rm => R::MM1,
        K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 => R::XMM1,
        K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 => R::YMM1,
        K::st0 => R::ST0,
        K::sti_opcode => R::ST1,
        K::r8_or_mem | K::r8_reg | K::r8_opcode | K::al => R::AL,
        K::cl => R::CL,
        K::r16_or_mem | K::r16_reg | K::r16_reg_mem | K::r16_rm | K::r16_opcode | K::ax => R::AX,
        K::dx => R::DX,
        K::r32_or_mem
        | K::r32_reg
        | K::r32_reg_mem
        | K::r32_rm
        | K::r32_opcode
        | K::r32_vvvv
        | K::eax => R::EAX,
        K::r64_or_mem
        | K::r64_reg
        | K::r64_reg_mem
        | K::r64_rm
        | K::r64_opcode
        | K::r64_vvvv
        | K::rax => R::RAX,
        K::seg_reg => R::DS,
        K::es => R::ES,
        K::cs => R::CS,
        K::ss => R::SS,
        K::ds => R::DS,
        K::fs => R::FS,
        K::gs => R::GS,
        K::cr_reg => R::CR0,
        K::dr_reg => R::DR0,
        K::tr_reg => R::TR3,
        _ => R::None,
    };
    if register != R::None {
        raw.set_op_kind(operand, OpKind::Register);
        raw.set_op_register(operand, register);
        return;
    }
    raw.set_op_kind(
        operand,
        match kind {
            K::imm8 if operand == 1 && raw.op_kind(0) == OpKind::Immediate16 => {
                OpKind::Immediate8_2nd
            }
            K::imm8 | K::imm8_const_1 => OpKind::Immediate8,
            K::imm8sex16 => OpKind::Immediate8to16,
            K::imm8sex32 => OpKind::Immediate8to32,
            K::imm8sex64 => OpKind::Immediate8to64,
            K::imm16 => OpKind::Immediate16,
            K::imm32 => OpKind::Immediate32,
            K::imm32sex64 => OpKind::Immediate32to64,
            K::imm64 => OpKind::Immediate64,
            K::br16_1 | K::br16_2 => OpKind::NearBranch16,
            K::br32_1 | K::br32_4 => OpKind::NearBranch32,
            K::br64_1 | K::br64_4 => OpKind::NearBranch64,
            K::farbr2_2 => OpKind::FarBranch16,
            K::farbr4_2 => OpKind::FarBranch32,
            K::seg_rSI => OpKind::MemorySegRSI,
            K::seg_rDI => OpKind::MemorySegRDI,
            K::es_rDI => OpKind::MemoryESRDI,
            _ => OpKind::Memory,
        },
    );
}
