//! Conversions between floating-point formats and integers (Intel SDM volume 2, CVTx2y; volume 1, 4.8.4, table 11-1).
//! Results narrower than their source fill the low half and leave zeros above.

use bytemuck::Pod;

use super::fp::{Float, Fp};
use super::mxcsr::Exceptions;
use super::vector::{V64, V128, V256, Vector};
use crate::softfloat::{self as sf, F16, F32, Flags, Integer, Rounding};

/// A lane that a conversion to integers gives.
pub(super) trait Whole: Pod + Integer {
    /// Magnitudes below this fit.
    const LIMIT: f64;
    /// An integral value that fits.
    fn of(value: f64) -> Self;
}

macro_rules! whole {
    ($($type:ty, $limit:expr;)*) => {$(
        impl Whole for $type {
            const LIMIT: f64 = $limit;
            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $type
            }
        }
    )*};
}
whole! {
    i32, 2147483648.0;
    i64, 9223372036854775808.0;
}

/// One number to an integer, rounded as MXCSR says (CVT) or truncated (CVTT).
#[inline(always)]
pub(super) fn to_int<T: Float + Into<f64>, I: Whole>(fp: &mut Fp, a: T, truncate: bool) -> I {
    let rounding = if truncate { Rounding::TowardZero } else { fp.mxcsr.rounding() };
    if a.is_plain() {
        let rounded = a.integral(rounding);
        let value: f64 = rounded.into();
        if value.abs() < I::LIMIT {
            if rounded != a {
                fp.raised |= Exceptions::PE;
            }
            return I::of(value);
        }
    }
    fp.round_to_int(a, rounding)
}

/// CVTSS2SI, CVTSD2SI, CVTTSS2SI, CVTTSD2SI.
#[inline(always)]
pub(super) fn scalar_to_int<T: Float + Into<f64>, I: Whole>(
    fp: &mut Fp,
    b: V128,
    truncate: bool,
) -> V128 {
    V128::default().with(0, to_int::<T, I>(fp, b.lane(0), truncate))
}

/// CVTPS2DQ, CVTTPS2DQ, CVTPS2PI, CVTTPS2PI: as many lanes as the source has.
#[inline(always)]
pub(super) fn ps2dq<V: Vector>(fp: &mut Fp, b: V, truncate: bool) -> V {
    let b = b.lanes::<f32>();
    V::build::<i32>(|i| to_int(fp, b[i], truncate))
}

/// CVTPD2DQ, CVTTPD2DQ, CVTPD2PI, CVTTPD2PI.
#[inline(always)]
pub(super) fn pd2dq<V: Vector>(fp: &mut Fp, b: V, truncate: bool) -> V {
    let b = b.lanes::<f64>();
    V::build::<i32>(|i| if i < b.len() { to_int(fp, b[i], truncate) } else { 0 })
}

/// One integer to single precision.
#[inline(always)]
fn single(fp: &mut Fp, a: i32) -> f32 {
    if fp.recorded || a.unsigned_abs() < 1 << 24 { a as f32 } else { fp.convert_int(a) }
}

/// CVTDQ2PS.
#[inline(always)]
pub(super) fn dq2ps<V: Vector>(fp: &mut Fp, b: V) -> V {
    let b = b.lanes::<i32>();
    V::build::<f32>(|i| single(fp, b[i]))
}

/// CVTPI2PS: the low half of `a`.
pub(super) fn pi2ps(fp: &mut Fp, a: V128, b: V128) -> V128 {
    V128([dq2ps(fp, V64([b.0[0]])).0[0], a.0[1]])
}

/// CVTDQ2PD, CVTPI2PD: the low lanes of `b`, always exact.
#[inline(always)]
pub(super) fn dq2pd<V: Vector>(b: V) -> V {
    let b = b.lanes::<i32>();
    V::build::<f64>(|i| f64::from(b[i]))
}

/// CVTSI2SS from 32 bits.
#[inline(always)]
pub(super) fn si2ss(fp: &mut Fp, a: V128, b: V128) -> V128 {
    a.with(0, single(fp, b.lane(0)))
}

/// CVTSI2SS from 64 bits.
#[inline(always)]
pub(super) fn si2ss64(fp: &mut Fp, a: V128, b: V128) -> V128 {
    let b = b.lane::<i64>(0);
    a.with(0, if fp.recorded || b.unsigned_abs() < 1 << 24 { b as f32 } else { fp.convert_int(b) })
}

/// CVTSI2SD from 32 bits, always exact.
#[inline(always)]
pub(super) fn si2sd(a: V128, b: V128) -> V128 {
    a.with(0, f64::from(b.lane::<i32>(0)))
}

/// CVTSI2SD from 64 bits.
#[inline(always)]
pub(super) fn si2sd64(fp: &mut Fp, a: V128, b: V128) -> V128 {
    let b = b.lane::<i64>(0);
    a.with(0, if fp.recorded || b.unsigned_abs() < 1 << 53 { b as f64 } else { fp.convert_int(b) })
}

/// CVTPS2PD: the low lanes of `b`.
#[inline(always)]
pub(super) fn ps2pd<V: Vector>(fp: &mut Fp, b: V) -> V {
    let b = b.lanes::<f32>();
    V::build::<f64>(|i| fp.widen(b[i]))
}

/// CVTPD2PS.
#[inline(always)]
pub(super) fn pd2ps<V: Vector>(fp: &mut Fp, b: V) -> V {
    let b = b.lanes::<f64>();
    V::build::<f32>(|i| if i < b.len() { fp.narrow(b[i]) } else { 0.0 })
}

/// CVTSS2SD.
#[inline(always)]
pub(super) fn ss2sd(fp: &mut Fp, a: V128, b: V128) -> V128 {
    a.with(0, fp.widen(b.lane(0)))
}

/// CVTSD2SS.
#[inline(always)]
pub(super) fn sd2ss(fp: &mut Fp, a: V128, b: V128) -> V128 {
    a.with(0, fp.narrow(b.lane(0)))
}

/// VCVTPH2PS: the low lanes of `b`. DAZ does not apply, nor is a denormal an exception (SDM volume 1, 14.4.1).
pub(super) fn ph2ps<V: Vector>(fp: &mut Fp, b: V) -> V {
    let b = b.lanes::<u16>();
    V::build::<u32>(|i| {
        let mut env = fp.env();
        let result = sf::convert::<F16, F32>(&mut env, u64::from(b[i]));
        fp.take(env.flags);
        result as u32
    })
}

/// VCVTPS2PH: bits 1:0 of the immediate are the direction, which bit 2 takes from MXCSR. FTZ does not apply.
pub(super) fn ps2ph(fp: &mut Fp, b: V256, imm: u8, lanes: usize) -> V256 {
    let b = b.lanes::<f32>();
    V256::build::<u16>(|i| {
        if i >= lanes {
            return 0;
        }
        let mut env = fp.env();
        if imm & 4 == 0 {
            env.rounding = Rounding::from_rc(imm.into());
        }
        let result = sf::convert::<F32, F16>(&mut env, b[i].raw());
        fp.take(env.flags);
        fp.denormals(&[b[i]], env.flags & Flags::INVALID);
        result as u16
    })
}
