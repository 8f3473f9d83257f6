//! What the floating-point chapters share: NaN boxing and the shapes of their instructions.

use super::{If, R, Rf, S as St};
use crate::bus::Width;
use crate::riscv::sem::{Fmt, Fp1, Fp2, Sem, SemExt, Un};

/// Upper bits that mark a boxed value, the width of the value, and the canonical NaN.
const fn layout(fmt: Fmt) -> (i64, i64) {
    match fmt {
        Fmt::H => (!0xffff, 0x7e00),
        Fmt::S => (!0xffff_ffff, 0x7fc0_0000),
        Fmt::D => (0, 0x7ff8_0000_0000_0000),
    }
}

/// The bits of format `fmt` above the sign, and the sign bit.
const fn sign(fmt: Fmt) -> i64 {
    match fmt {
        Fmt::H => 1 << 15,
        Fmt::S => 1 << 31,
        Fmt::D => i64::MIN,
    }
}

/// Register `r` as a value of `fmt`, zero-extended: an improperly boxed one counts as the canonical NaN
/// (unprivileged, 21.2).
#[inline(always)]
pub(super) fn get<S: Sem>(s: &mut S, fmt: Fmt, r: u8) -> S::V {
    let v = s.f(r);
    if fmt == Fmt::D {
        return v;
    }
    let (upper, nan) = layout(fmt);
    let (upper, nan, low) = (s.imm(upper), s.imm(nan), s.imm(!upper));
    let tag = s.and(v, upper);
    let boxed = s.eq(tag, upper);
    let bits = s.and(v, low);
    s.select(boxed, bits, nan)
}

/// Sets register `rd` to a value of `fmt`, boxed.
#[inline(always)]
pub(super) fn put<S: Sem>(s: &mut S, fmt: Fmt, rd: u8, v: S::V) {
    if fmt == Fmt::D {
        s.set_f(rd, v);
        return;
    }
    let (upper, _) = layout(fmt);
    let (upper, low) = (s.imm(upper), s.imm(!upper));
    let v = s.and(v, low);
    let v = s.or(v, upper);
    s.set_f(rd, v);
}

/// FADD and its like.
#[inline(always)]
pub(super) fn arith<S: Sem>(s: &mut S, i: Rf, fmt: Fmt, op: Fp2) -> Result<(), S::Stop> {
    s.need_fp()?;
    s.rounding(i.rm())?;
    let (a, b) = (get(s, fmt, i.rs1()), get(s, fmt, i.rs2()));
    let v = s.fp2(op, fmt, a, b);
    put(s, fmt, i.rd(), v);
    Ok(())
}

/// FMIN and its like, which do not round.
#[inline(always)]
pub(super) fn pick<S: Sem>(s: &mut S, i: Rf, fmt: Fmt, op: Fp2) -> Result<(), S::Stop> {
    s.need_fp()?;
    let (a, b) = (get(s, fmt, i.rs1()), get(s, fmt, i.rs2()));
    let v = s.fp2(op, fmt, a, b);
    put(s, fmt, i.rd(), v);
    Ok(())
}

/// FEQ and its like.
#[inline(always)]
pub(super) fn compare<S: Sem>(s: &mut S, i: R, fmt: Fmt, op: Fp2) -> Result<(), S::Stop> {
    s.need_fp()?;
    let (a, b) = (get(s, fmt, i.rs1()), get(s, fmt, i.rs2()));
    let v = s.fp2(op, fmt, a, b);
    s.set_x(i.rd(), v);
    Ok(())
}

/// FMADD and its like: `±(a * b) ± c`.
#[inline(always)]
pub(super) fn fused<S: Sem>(
    s: &mut S,
    i: Rf,
    fmt: Fmt,
    negate_product: bool,
    negate_addend: bool,
) -> Result<(), S::Stop> {
    s.need_fp()?;
    s.rounding(i.rm())?;
    let (mut a, b, mut c) = (get(s, fmt, i.rs1()), get(s, fmt, i.rs2()), get(s, fmt, i.rs3()));
    let sign = s.imm(sign(fmt));
    if negate_product {
        a = s.xor(a, sign);
    }
    if negate_addend {
        c = s.xor(c, sign);
    }
    let v = s.fma(fmt, a, b, c);
    put(s, fmt, i.rd(), v);
    Ok(())
}

/// What the sign of FSGNJ's result is made of.
#[derive(Clone, Copy)]
pub(super) enum Sign {
    Copy,
    Negate,
    Xor,
}

/// FSGNJ and its like.
#[inline(always)]
pub(super) fn inject_sign<S: Sem>(s: &mut S, i: Rf, fmt: Fmt, how: Sign) -> Result<(), S::Stop> {
    s.need_fp()?;
    let (a, mut b) = (get(s, fmt, i.rs1()), get(s, fmt, i.rs2()));
    let (mask, rest) = (s.imm(sign(fmt)), s.imm(!sign(fmt)));
    let v = if let Sign::Xor = how {
        b = s.and(b, mask);
        s.xor(a, b)
    } else {
        if let Sign::Negate = how {
            b = s.xor(b, mask);
        }
        let (magnitude, sign) = (s.and(a, rest), s.and(b, mask));
        s.or(magnitude, sign)
    };
    put(s, fmt, i.rd(), v);
    Ok(())
}

/// FSQRT, FROUND: one operand, rounded.
#[inline(always)]
pub(super) fn unary<S: Sem>(s: &mut S, i: Rf, fmt: Fmt, op: Fp1) -> Result<(), S::Stop> {
    s.need_fp()?;
    s.rounding(i.rm())?;
    let a = get(s, fmt, i.rs1());
    let v = s.fp1(op, fmt, a);
    put(s, fmt, i.rd(), v);
    Ok(())
}

/// FCVT between floating-point formats.
#[inline(always)]
pub(super) fn convert<S: Sem>(s: &mut S, i: Rf, to: Fmt, from: Fmt) -> Result<(), S::Stop> {
    s.need_fp()?;
    s.rounding(i.rm())?;
    let a = get(s, from, i.rs1());
    let v = s.fp1(Fp1::From(from), to, a);
    put(s, to, i.rd(), v);
    Ok(())
}

/// FCVT to an integer.
#[inline(always)]
pub(super) fn to_int<S: Sem>(s: &mut S, i: R, fmt: Fmt, op: Fp1) -> Result<(), S::Stop> {
    s.need_fp()?;
    s.rounding(i.rm())?;
    let a = get(s, fmt, i.rs1());
    let v = s.fp1(op, fmt, a);
    s.set_x(i.rd(), v);
    Ok(())
}

/// FCVT from an integer.
#[inline(always)]
pub(super) fn from_int<S: Sem>(s: &mut S, i: Rf, fmt: Fmt, op: Fp1) -> Result<(), S::Stop> {
    s.need_fp()?;
    s.rounding(i.rm())?;
    let a = s.x(i.rs1());
    let v = s.fp1(op, fmt, a);
    put(s, fmt, i.rd(), v);
    Ok(())
}

/// FCLASS.
#[inline(always)]
pub(super) fn classify<S: Sem>(s: &mut S, i: R, fmt: Fmt) -> Result<(), S::Stop> {
    s.need_fp()?;
    let a = get(s, fmt, i.rs1());
    let v = s.fp1(Fp1::Class, fmt, a);
    s.set_x(i.rd(), v);
    Ok(())
}

/// FMV to an x register: the raw bits, sign-extended.
#[inline(always)]
pub(super) fn move_to_x<S: Sem>(s: &mut S, i: R, extend: Option<Un>) -> Result<(), S::Stop> {
    s.need_fp()?;
    let mut v = s.f(i.rs1());
    if let Some(extend) = extend {
        v = s.un(extend, v);
    }
    s.set_x(i.rd(), v);
    Ok(())
}

/// FMV from an x register.
#[inline(always)]
pub(super) fn move_from_x<S: Sem>(s: &mut S, i: Rf, fmt: Fmt) -> Result<(), S::Stop> {
    s.need_fp()?;
    let v = s.x(i.rs1());
    put(s, fmt, i.rd(), v);
    Ok(())
}

const fn width(fmt: Fmt) -> Width {
    match fmt {
        Fmt::H => Width::Half,
        Fmt::S => Width::Word,
        Fmt::D => Width::Double,
    }
}

/// FLW and its like.
#[inline(always)]
pub(super) fn load<S: Sem>(s: &mut S, i: If, fmt: Fmt) -> Result<(), S::Stop> {
    s.need_fp()?;
    let (base, offset) = (s.x(i.rs1()), s.imm(i.imm()));
    let addr = s.add(base, offset);
    let v = s.load(addr, width(fmt))?;
    put(s, fmt, i.rd(), v);
    Ok(())
}

/// FSW and its like: the raw low bits.
#[inline(always)]
pub(super) fn store<S: Sem>(s: &mut S, i: St, fmt: Fmt) -> Result<(), S::Stop> {
    s.need_fp()?;
    let (base, offset, v) = (s.x(i.rs1()), s.imm(i.imm()), s.f(i.rs2()));
    let addr = s.add(base, offset);
    s.store(addr, width(fmt), v)
}
