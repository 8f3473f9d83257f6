//! Comparisons, and what uses them.

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::sem::Bin;

use super::Emitter;
use super::alloc::{Loc, Src};
use super::asm::{Alu, Cond, Reg, Rm, Size};
use super::homes::Home;
use super::int::alu_src;
use crate::ir::{Op, Val};

/// Compares two values; what holds if `a op b`.
fn compare_values(e: &mut Emitter, op: Bin, a: Val, b: Val) -> Cond {
    let cond = match op {
        Bin::Slt => Cond::L,
        Bin::Sltu => Cond::B,
        _ => Cond::E,
    };
    let (sa, sb) = (e.src(a), e.src(b));
    let (cond, sa, sb) = match sa {
        Src::Imm(_) | Src::Wide(_) => (cond.swapped(), sb, sa),
        _ => (cond, sa, sb),
    };
    match (sa, sb) {
        (Src::Reg(a), Src::Imm(0)) => e.code.test(Size::Q, Rm::Reg(a), a),
        (Src::Reg(_) | Src::Mem(_), Src::Imm(imm)) => {
            let a = e.rm_of(sa);
            e.code.alu_imm(Alu::Cmp, Size::Q, a, imm);
        }
        (Src::Mem(a), Src::Reg(b)) => e.code.alu_to_mem(Alu::Cmp, Size::Q, a, b),
        _ => {
            let a = e.reg_of(sa);
            alu_src(e, Alu::Cmp, Size::Q, a, sb);
        }
    }
    cond
}

/// Sets the flags for a condition; what holds if it does.
fn compare_op(e: &mut Emitter, op: Op) -> Option<Cond> {
    match op {
        Op::Bin(Bin::Eq, a, b) if matches!(e.alloc.value(b).loc, Loc::Const(0)) => {
            Some(condition(e, a).not())
        }
        Op::Bin(op @ (Bin::Slt | Bin::Sltu | Bin::Eq), a, b) => Some(compare_values(e, op, a, b)),
        Op::Bin(Bin::And, a, b) => {
            let (sa, sb) = (e.src(a), e.src(b));
            let (sa, sb) = match sa {
                Src::Imm(_) | Src::Wide(_) => (sb, sa),
                _ => (sa, sb),
            };
            match (sa, sb) {
                (Src::Reg(_) | Src::Mem(_), Src::Imm(imm)) => {
                    let a = e.rm_of(sa);
                    e.code.test_imm(if imm >= 0 { Size::L } else { Size::Q }, a, imm);
                }
                _ => {
                    let b = e.reg_of(sb);
                    let a = e.rm_of(sa);
                    e.code.test(Size::Q, a, b);
                }
            }
            Some(Cond::NE)
        }
        _ => None,
    }
}

/// Sets the flags for "the value is not zero"; what holds if so.
pub(super) fn condition(e: &mut Emitter, v: Val) -> Cond {
    if e.alloc.is_deferred(v)
        && let Some(cond) = compare_op(e, e.ops[v.0 as usize])
    {
        return cond;
    }
    match e.src(v) {
        Src::Mem(mem) => e.code.alu_imm(Alu::Cmp, Size::Q, Rm::Mem(mem), 0),
        src => {
            let r = e.reg_of(src);
            e.code.test(Size::Q, Rm::Reg(r), r);
        }
    }
    Cond::NE
}

/// Whether the register is read by a comparison.
fn comparison_reads(e: &Emitter, op: Op, r: Reg) -> bool {
    op.operands().any(|v| {
        if e.alloc.is_deferred(v) {
            return comparison_reads(e, e.ops[v.0 as usize], r);
        }
        match e.alloc.value(v).loc {
            Loc::Slot(slot) => e.homes.of(slot) == Home::Gpr(r),
            Loc::Gpr(of) => of == r,
            _ => false,
        }
    })
}

/// A comparison's result as 1 or 0.
pub(super) fn set_if(e: &mut Emitter, i: u32, op: Bin, a: Val, b: Val) {
    let op = Op::Bin(op, a, b);
    let direct = e.target.is_none_or(|(_, r)| !comparison_reads(e, op, r));
    if direct {
        let dst = e.dst();
        e.code.mov_imm(dst, 0);
        if let Some(cond) = compare_op(e, op) {
            e.code.setcc(cond, dst);
        }
        return e.define(i, dst);
    }
    if let Some(cond) = compare_op(e, op) {
        let dst = e.dst();
        e.code.setcc(cond, dst);
        e.code.extend(Width::Byte, false, dst, Rm::Reg(dst));
        e.define(i, dst);
    }
}

/// Minimum or maximum: the one for which the condition holds.
pub(super) fn pick(e: &mut Emitter, i: u32, cond: Cond, a: Val, b: Val) {
    let (mut a, mut b) = (a, b);
    if matches!(e.alloc.value(a).loc, Loc::Const(_)) {
        (a, b) = (b, a);
    }
    let (mut sa, sb) = (e.src(a), e.src(b));
    let mut rb = Src::Reg(e.reg_of(sb));
    let dst = e.dst_over(i, sa);
    if rb == Src::Reg(dst) {
        (sa, rb) = (rb, sa);
    }
    e.copy(dst, sa);
    let rm = e.rm_of(rb);
    e.code.alu(Alu::Cmp, Size::Q, dst, rm);
    e.code.cmov(cond.not(), dst, rm);
    e.define(i, dst);
}

/// [`Op::Select`].
pub(super) fn select(e: &mut Emitter, i: u32, cond: Val, a: Val, b: Val) {
    let holds = condition(e, cond);
    // From here to the conditional move nothing may touch the flags.
    e.alloc.unlock();
    let (sa, sb) = (e.src(a), e.src(b));
    let dst = e.dst();
    if sa == Src::Reg(dst) {
        let b = e.rm_of(sb);
        e.code.cmov(holds.not(), dst, b);
    } else {
        e.copy_keeping_flags(dst, sb);
        let a = e.rm_of(sa);
        e.code.cmov(holds, dst, a);
    }
    e.define(i, dst);
}
