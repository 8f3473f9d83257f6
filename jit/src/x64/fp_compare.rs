//! Comparisons of floating-point numbers, minimum and maximum.

use mimic_cpu::riscv::sem::{Fmt, Fp2};

use super::asm::{Alu, Cond, Fix, Opcode, Reg, Rm, Size, opcode};
use super::fp::{self, ANDPS, ORPS, Slow, aim, box_result, is_single, scalar, ucomis};
use super::{Emitter, Stub};
use crate::ir::Val;

const MIN: u8 = 0x5d;
const MAX: u8 = 0x5f;
const CMP: u8 = 0xc2;
/// Predicate of CMPSD: equal, quiet.
const EQ_OQ: u8 = 0;

/// `comis`: raises invalid for every NaN.
const fn comis(fmt: Fmt) -> Opcode {
    opcode(if is_single(fmt) { 0 } else { 1 }, 1, 0x2f)
}

/// FEQ and its like: 1 or 0.
pub(super) fn compare(e: &mut Emitter, i: u32, op: Fp2, fmt: Fmt, a: Val, b: Val) {
    if op == Fp2::Eq {
        let (ra, rb) = (fp::reg(e, fmt, a), fp::rm(e, fmt, b));
        let mask = e.take_xmm();
        e.code.vex_imm8(scalar(fmt, CMP), Size::L, mask, ra, rb, EQ_OQ);
        let dst = e.dst();
        e.code.movd_from_xmm(Rm::Reg(dst), mask);
        e.code.alu_imm(Alu::And, Size::L, Rm::Reg(dst), 1);
        return e.define(i, dst);
    }
    let compare = if matches!(op, Fp2::Lt | Fp2::Le) { comis(fmt) } else { ucomis(fmt) };
    // b > a, b >= a: what does not hold if one is a NaN.
    let holds = if matches!(op, Fp2::Lt | Fp2::Ltq) { Cond::A } else { Cond::AE };
    let (rb, ra) = (fp::reg(e, fmt, b), fp::rm(e, fmt, a));
    let dst = e.dst();
    e.code.mov_imm(dst, 0);
    e.code.vex(compare, Size::L, rb, 0, ra);
    e.code.setcc(holds, dst);
    e.define(i, dst);
}

/// Minimum or maximum of two numbers of which one is a NaN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unordered {
    taken: Fix,
    back: u32,
    fmt: Fmt,
    dst: Reg,
    a: Reg,
    b: Reg,
    /// The other operand is the result, not a NaN.
    number: bool,
}

/// FMIN, FMAX, FMINM, FMAXM.
pub(super) fn pick(e: &mut Emitter, i: u32, op: Fp2, fmt: Fmt, a: Val, b: Val) {
    let single = is_single(fmt);
    let aim = aim(e, i, single);
    let (ra, rb) = (fp::reg(e, fmt, a), fp::reg(e, fmt, b));
    let tmp = e.take_xmm();
    let dst = aim.dst_over(e, i, rb);
    e.code.vex(ucomis(fmt), Size::L, ra, 0, Rm::Reg(rb));
    let taken = e.code.jcc(Cond::P);
    // The host gives the second of two zeros: both ways, and their signs joined.
    let (code, join) = if matches!(op, Fp2::Min | Fp2::Minm) { (MIN, ORPS) } else { (MAX, ANDPS) };
    e.code.vex(scalar(fmt, code), Size::L, tmp, ra, Rm::Reg(rb));
    e.code.vex(scalar(fmt, code), Size::L, dst, rb, Rm::Reg(ra));
    e.code.vex(join, Size::L, dst, dst, Rm::Reg(tmp));
    let back = e.code.here();
    let other = if fp::is_boxed(e, a) { b } else { a };
    box_result(e, fmt, dst, other);
    let number = matches!(op, Fp2::Min | Fp2::Max);
    let unordered = Unordered { taken, back, fmt, dst, a: ra, b: rb, number };
    e.stubs.push(Stub::Fp(Slow::Pick(unordered)));
    aim.finish(e, single, dst);
}

impl Unordered {
    /// Emits the choice of the number, and the way back.
    pub(super) fn emit(self, e: &mut Emitter) {
        let Unordered { taken, back, fmt, dst, a, b, number } = self;
        e.code.bind(taken);
        if number {
            // If neither is left as a NaN, invalid has been raised for it before.
            e.code.vex(ucomis(fmt), Size::L, a, 0, Rm::Reg(a));
            let a_is_nan = e.code.jcc(Cond::P);
            e.code.mov_xmm(dst, a);
            fp::return_to(e, back);
            e.code.bind(a_is_nan);
            e.code.mov_xmm(dst, b);
            e.code.vex(ucomis(fmt), Size::L, dst, 0, Rm::Reg(dst));
            let b_is_number = e.code.jcc(Cond::NP);
            e.code.bind_to(b_is_number, back);
        }
        fp::load_nan(e, fmt, dst);
        fp::return_to(e, back);
    }
}
