//! Floating-point registers' bits: boxing of singles, and changes of sign.

use mimic_cpu::riscv::sem::{Bin, Fmt};

use super::alloc::{Loc, Src};
use super::asm::{Alu, Cond, Rm, Size};
use super::fp::{
    ANDPS, Const, ORPS, PTEST, Slow, XORPS, add_box, aim, constant, is_boxed, load_nan, reg, rm,
};
use super::homes::Home;
use super::{Emitter, Stub};
use crate::ir::{Op, Val};

/// [`Op::Unbox`].
pub(super) fn unbox(e: &mut Emitter, i: u32, a: Val) {
    let aim = aim(e, i, true);
    let from = rm(e, Fmt::S, a);
    if matches!(e.alloc.value(a).loc, Loc::Single(_)) {
        // Zeros are above it.
        let dst = aim.dst(e);
        load_nan(e, Fmt::S, dst);
        return aim.finish(e, true, dst);
    }
    let known = e.alloc.value(a).boxed;
    let dst = match from {
        Rm::Reg(r) => {
            let dst = aim.dst_over(e, i, r);
            e.code.mov_xmm(dst, r);
            dst
        }
        _ => {
            let dst = aim.dst(e);
            e.code.movq_to_xmm(dst, from);
            dst
        }
    };
    if !known {
        let taken = match from {
            Rm::Mem(mem) => {
                e.code.alu_imm(Alu::Cmp, Size::L, Rm::Mem(mem.plus(4)), -1);
                e.code.jcc(Cond::NE)
            }
            _ => {
                // CF: the register has all bits of the mask.
                let ones = constant(e, Const::Box);
                e.code.vex(PTEST, Size::L, dst, 0, ones);
                e.code.jcc(Cond::AE)
            }
        };
        let back = e.code.here();
        e.stubs.push(Stub::Fp(Slow::Nan { taken, back, fmt: Fmt::S, dst }));
    }
    aim.finish(e, true, dst);
}

/// [`Op::Box`].
pub(super) fn make_boxed(e: &mut Emitter, i: u32, a: Val) {
    let aim = aim(e, i, false);
    let known = is_boxed(e, a);
    let dst = match e.src(a) {
        Src::Single(r) | Src::Xmm(r) => {
            let dst = aim.dst_over(e, i, r);
            if known || is_boxed(e, a) {
                e.code.mov_xmm(dst, r);
            } else {
                add_box(e, dst, r);
            }
            dst
        }
        Src::Mem(mem) => {
            let dst = aim.dst(e);
            e.code.movd_to_xmm(dst, Rm::Mem(mem));
            add_box(e, dst, dst);
            dst
        }
        src => {
            let from = e.reg_of(src);
            let dst = aim.dst(e);
            e.code.movd_to_xmm(dst, Rm::Reg(from));
            add_box(e, dst, dst);
            dst
        }
    };
    aim.finish(e, false, dst);
}

/// Whether nobody sees the upper half of value `i`.
fn hides_upper_half(e: &Emitter, i: u32) -> bool {
    matches!(
        e.alloc.only_user(i).map(|user| e.ops[user as usize]),
        Some(Op::Box(_) | Op::Fp2(_, Fmt::S, ..) | Op::Fma(Fmt::S, ..))
    )
}

/// AND, OR, XOR of values in xmm registers: changes of sign. Whether it was that.
pub(super) fn logic(e: &mut Emitter, i: u32, op: Bin, a: Val, b: Val) -> bool {
    let code = match op {
        Bin::And => ANDPS,
        Bin::Or => ORPS,
        Bin::Xor => XORPS,
        _ => return false,
    };
    if e.target.is_some() || e.alloc.is_deferred(a) || e.alloc.is_deferred(b) {
        return false;
    }
    let in_register = |v: Val| match e.alloc.value(v).loc {
        Loc::Xmm(_) | Loc::Single(_) => true,
        Loc::Slot(slot) => matches!(e.homes.of(slot), Home::Xmm(_)),
        _ => false,
    };
    if !in_register(a) {
        return false;
    }
    let is_single = |v: Val| matches!(e.alloc.value(v).loc, Loc::Single(_));
    let Loc::Const(bits) = e.alloc.value(b).loc else {
        if !in_register(b) || is_single(a) || is_single(b) {
            return false;
        }
        let aim = aim(e, i, false);
        let (ra, rb) = (reg(e, Fmt::D, a), rm(e, Fmt::D, b));
        let dst = aim.dst_over(e, i, ra);
        e.code.vex(code, Size::L, dst, ra, rb);
        aim.finish(e, false, dst);
        return true;
    };
    let hidden = hides_upper_half(e, i);
    let single = is_single(a) || e.alloc.value(a).boxed && hidden;
    // Ones that stay above a single must not be those of its value.
    if single && !hidden && op != Bin::And && bits >> 32 != 0 {
        return false;
    }
    let with = match (op, single) {
        (Bin::Xor, false) if bits == 1 << 63 => Const::SignD,
        (Bin::And, false) if bits == 1 << 63 => Const::SignD,
        (Bin::And, false) if bits == !(1 << 63) => Const::MagnitudeD,
        (Bin::Xor, true) if bits as u32 == 1 << 31 => Const::SignS,
        (Bin::And, true) if bits as u32 == !(1 << 31) => Const::MagnitudeS,
        _ => return false,
    };
    let aim = aim(e, i, single);
    let ra = reg(e, if single { Fmt::S } else { Fmt::D }, a);
    let dst = aim.dst_over(e, i, ra);
    let with = constant(e, with);
    e.code.vex(code, Size::L, dst, ra, with);
    aim.finish(e, single, dst);
    true
}
