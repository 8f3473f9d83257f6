//! Multiplications and divisions.

use mimic_cpu::riscv::sem::Bin;

use super::alloc::{Loc, Src, is_scratch};
use super::asm::{
    Alu, Code, Cond, Group3, Mem, Opcode, RAX, RCX, RDX, Reg, Rm, Shift, Size, opcode,
};
use super::int::{finish, fixed, size_of};
use super::{Emitter, Stub};
use crate::ir::Val;

const MULX: Opcode = opcode(3, 2, 0xf6);
const IMUL: Opcode = opcode(0, 1, 0xaf);
const PCLMULQDQ: Opcode = opcode(1, 3, 0x44);
const PEXTRQ: Opcode = opcode(1, 3, 0x16);
const SHLD: Opcode = opcode(0, 1, 0xa4);

/// A division whose divisor is 0 (or -1, when signed): dividend in RAX, divisor in RCX, quotient to RAX, remainder
/// to RDX.
#[derive(Clone, Copy, Debug)]
pub(super) struct Division {
    size: Size,
    signed: bool,
    remainder: bool,
}

/// The same, but `b` stays where it is if that is no scratch register and no constant.
fn half_fixed(e: &mut Emitter, i: u32, to: Reg, a: Val, b: Val) -> Rm {
    let (sa, sb) = (e.src(a), e.src(b));
    let rm = match sb {
        Src::Reg(r) if !is_scratch(r) => Rm::Reg(r),
        Src::Mem(mem) => Rm::Mem(mem),
        _ => {
            fixed(e, i, to, a, b);
            return Rm::Reg(RCX);
        }
    };
    e.own_scratch(i, a, b);
    e.copy(to, sa);
    rm
}

pub(super) fn mul(e: &mut Emitter, i: u32, a: Val, b: Val) {
    let (mut a, mut b) = (a, b);
    if matches!(e.alloc.value(a).loc, Loc::Const(_)) {
        (a, b) = (b, a);
    }
    let (mut sa, mut sb) = (e.src(a), e.src(b));
    let size = size_of(e, i);
    if let Src::Imm(imm) = sb {
        let rm = e.rm_of(sa);
        let dst = e.dst_over(i, sa);
        e.code.imul_imm(size, dst, rm, imm);
        return e.define(i, dst);
    }
    let dst = e.dst_over(i, sa);
    if sb == Src::Reg(dst) {
        (sa, sb) = (sb, sa);
    }
    e.copy(dst, sa);
    let rm = e.rm_of(sb);
    e.code.op(IMUL, size, dst, rm);
    e.define(i, dst);
}

/// High half of the product.
pub(super) fn mul_high(e: &mut Emitter, i: u32, op: Bin, a: Val, b: Val) {
    match op {
        Bin::Mulh | Bin::Mulhu => {
            let b = half_fixed(e, i, RAX, a, b);
            let op = if op == Bin::Mulh { Group3::Imul } else { Group3::Mul };
            e.code.group3(op, Size::Q, b);
            finish(e, i, Size::Q, RDX);
        }
        _ => {
            // As unsigned, less b if a is negative.
            let b = half_fixed(e, i, RDX, a, b);
            e.code.vex(MULX, Size::Q, RAX, RAX, b);
            e.code.shift_imm(Shift::Sar, Size::Q, RDX, 63);
            e.code.alu(Alu::And, Size::Q, RDX, b);
            e.code.alu(Alu::Sub, Size::Q, RAX, Rm::Reg(RDX));
            finish(e, i, Size::Q, RAX);
        }
    }
}

pub(super) fn divide(e: &mut Emitter, i: u32, op: Bin, a: Val, b: Val) {
    let size = match op {
        Bin::Div | Bin::Divu | Bin::Rem | Bin::Remu => Size::Q,
        _ => Size::L,
    };
    let signed = matches!(op, Bin::Div | Bin::Rem | Bin::Divw | Bin::Remw);
    let remainder = matches!(op, Bin::Rem | Bin::Remu | Bin::Remw | Bin::Remuw);
    fixed(e, i, RAX, a, b);
    let special = if signed {
        // Divisors -1 and 0 become 0 and 1.
        e.code.lea(size, RDX, Mem::new(RCX, 1));
        e.code.alu_imm(Alu::Cmp, size, Rm::Reg(RDX), 1);
        e.code.jcc(Cond::BE)
    } else {
        e.code.test(size, Rm::Reg(RCX), RCX);
        e.code.jcc(Cond::E)
    };
    if signed {
        e.code.cqo(size);
        e.code.group3(Group3::Idiv, size, Rm::Reg(RCX));
    } else {
        e.code.mov_imm(RDX, 0);
        e.code.group3(Group3::Div, size, Rm::Reg(RCX));
    }
    let back = e.code.here();
    let division = Division { size, signed, remainder };
    e.stubs.push(Stub::Division { special, back, division });
    finish(e, i, size, if remainder { RDX } else { RAX });
}

impl Division {
    /// The results that no division instruction gives; back to where the result is taken.
    /// RISC-V unprivileged manual, "M" extension, table "Semantics for division by zero and division overflow".
    pub(super) fn special(self, code: &mut Code) {
        let Division { size, signed, remainder } = self;
        match (signed, remainder) {
            (false, false) => code.mov_imm(RAX, u64::MAX),
            (false, true) => code.mov(size, RDX, Rm::Reg(RAX)),
            (true, false) => {
                // By -1: the negative. By 0: -1.
                code.group3(Group3::Neg, size, Rm::Reg(RAX));
                code.test(size, Rm::Reg(RCX), RCX);
                code.mov_imm_keeping_flags(RDX, u64::MAX);
                code.cmov(Cond::E, RAX, Rm::Reg(RDX));
            }
            (true, true) => {
                // By -1: 0. By 0: the dividend.
                code.test(size, Rm::Reg(RCX), RCX);
                code.mov_imm_keeping_flags(RDX, 0);
                code.cmov(Cond::E, RDX, Rm::Reg(RAX));
            }
        }
    }
}

pub(super) fn copy_to_xmm(e: &mut Emitter, to: Reg, from: Src) {
    match from {
        Src::Xmm(from) => e.code.mov_xmm(to, from),
        _ => {
            let from = e.rm_of(from);
            e.code.movq_to_xmm(to, from);
        }
    }
}

pub(super) fn carry_less(e: &mut Emitter, i: u32, op: Bin, a: Val, b: Val) {
    let a = e.src(a);
    let x = e.take_xmm();
    copy_to_xmm(e, x, a);
    let y = e.xmm(b);
    e.code.op_imm8(PCLMULQDQ, Size::L, x, Rm::Reg(y), 0);
    e.alloc.unlock();
    let dst = e.dst();
    match op {
        Bin::Clmul => e.code.movq_from_xmm(Rm::Reg(dst), x),
        Bin::Clmulh => e.code.op_imm8(PEXTRQ, Size::Q, x, Rm::Reg(dst), 1),
        _ => {
            let low = e.take();
            e.code.movq_from_xmm(Rm::Reg(low), x);
            e.code.op_imm8(PEXTRQ, Size::Q, x, Rm::Reg(dst), 1);
            e.code.op_imm8(SHLD, Size::Q, low, Rm::Reg(dst), 1);
        }
    }
    e.define(i, dst);
}
