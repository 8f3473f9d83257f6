//! Conversions: between formats, to and from integers, to integral values (IEEE 754-2019, 5.4.1, 5.4.2, 5.8, 5.9).

use super::env::{Env, Flags, InvalidInt, Rounding};
use super::format::{
    F64, Format, exp, infinity, is_infinite, is_nan, is_normal_exp, is_zero, normal_sig,
    normalized, operand, sign, zero,
};
use super::nan;
use super::round::{round_pack, rounds_up};

mod sealed {
    pub trait Sealed {}
}

/// An integer type a conversion can have on its other side.
pub trait Integer: sealed::Sealed + Copy + 'static {
    /// The smallest value.
    const MIN: Self;
    /// The largest value.
    const MAX: Self;
    /// What x86 returns for an invalid conversion.
    const INDEFINITE: Self;
    /// Magnitude of the smallest value.
    const MIN_MAGNITUDE: u64;
    /// Magnitude of the largest value.
    const MAX_MAGNITUDE: u64;
    /// Whether the value is negative, and its magnitude.
    fn sign_magnitude(self) -> (bool, u64);
    /// The value with the given sign and a magnitude within the type's range.
    fn from_sign_magnitude(negative: bool, magnitude: u64) -> Self;
}

macro_rules! integer {
    ($($type:ty, $indefinite:ident, $negative:expr;)*) => {$(
        impl sealed::Sealed for $type {}
        impl Integer for $type {
            const MIN: Self = <$type>::MIN;
            const MAX: Self = <$type>::MAX;
            const INDEFINITE: Self = <$type>::$indefinite;
            const MIN_MAGNITUDE: u64 = if $negative { <$type>::MAX as u64 + 1 } else { 0 };
            const MAX_MAGNITUDE: u64 = <$type>::MAX as u64;
            #[inline(always)]
            fn sign_magnitude(self) -> (bool, u64) {
                let negative = $negative && (self as i64) < 0;
                let wide = self as u64;
                (negative, if negative { wide.wrapping_neg() } else { wide })
            }
            #[inline(always)]
            fn from_sign_magnitude(negative: bool, magnitude: u64) -> Self {
                (if negative { magnitude.wrapping_neg() } else { magnitude }) as $type
            }
        }
    )*};
}
integer! {
    i16, MIN, true;
    i32, MIN, true;
    u32, MAX, false;
    i64, MIN, true;
    u64, MAX, false;
}

/// Converts between formats.
#[inline]
pub fn convert<F: Format, G: Format>(env: &mut Env, a: u64) -> u64 {
    let a = operand::<F>(env, a);
    let negative = sign::<F>(a);
    let (mut e, mut sig) = (exp::<F>(a), normal_sig::<F>(a));
    if !is_normal_exp::<F>(e) {
        if is_nan::<F>(a) {
            return nan::convert::<F, G>(env, a);
        }
        if is_infinite::<F>(a) {
            return infinity::<G>(negative);
        }
        if is_zero::<F>(a) {
            return zero::<G>(negative);
        }
        (e, sig) = normalized::<F>(a);
    }
    round_pack::<G>(env, negative, e - F::BIAS + G::BIAS, sig)
}

/// Converts an integer to the format.
#[inline]
pub fn from_int<F: Format, I: Integer>(env: &mut Env, a: I) -> u64 {
    let (negative, magnitude) = a.sign_magnitude();
    if magnitude == 0 {
        return 0;
    }
    let zeros = magnitude.leading_zeros();
    let top = magnitude << zeros;
    let sig = (top >> 1) | (top & 1);
    round_pack::<F>(env, negative, F::BIAS + 63 - zeros as i32, sig)
}

/// Magnitude of a finite number truncated to an integer, and the rest as a fraction of 2^64 (jammed); `None` from 2^64 on.
#[inline(always)]
fn split<F: Format>(a: u64) -> Option<(u64, u64)> {
    let e = exp::<F>(a) - F::BIAS;
    let sig = normal_sig::<F>(a) << 1;
    match e {
        64.. => None,
        63 => Some((sig, 0)),
        0..63 => Some((sig >> (63 - e), sig << (e + 1))),
        -1 => Some((0, sig)),
        _ => Some((0, u64::from(!is_zero::<F>(a)))),
    }
}

/// Converts to an integer, rounding by the environment. A NaN, infinity or rounded value out of range is invalid and yields what
/// [`Env::invalid_int`] says; invalid excludes inexact.
#[inline]
pub fn to_int<F: Format, I: Integer>(env: &mut Env, a: u64) -> I {
    let a = operand::<F>(env, a);
    let negative = sign::<F>(a);
    if exp::<F>(a) != F::EXP_MAX
        && let Some((truncated, rest)) = split::<F>(a)
    {
        // A rest leaves the significand's bits below 2^63: no carry out.
        let magnitude =
            truncated + u64::from(rounds_up(env.rounding, negative, truncated & 1 != 0, rest));
        let limit = if negative { I::MIN_MAGNITUDE } else { I::MAX_MAGNITUDE };
        if magnitude <= limit {
            if rest != 0 {
                env.raise(Flags::INEXACT);
            }
            return I::from_sign_magnitude(negative, magnitude);
        }
    }
    env.raise(Flags::INVALID);
    match env.invalid_int {
        InvalidInt::Indefinite => I::INDEFINITE,
        InvalidInt::Saturate if negative && !is_nan::<F>(a) => I::MIN,
        InvalidInt::Saturate => I::MAX,
    }
}

/// RISC-V Zfa FCVTMOD.W.D: the value truncated to an integer, modulo 2^32, as a signed number; zero for NaNs and infinities.
/// The flags are those of a truncating conversion to `i32`.
#[inline]
pub fn modular_i32_from_f64(env: &mut Env, a: u64) -> i32 {
    let rounding = std::mem::replace(&mut env.rounding, Rounding::TowardZero);
    let value = to_int::<F64, i32>(env, a);
    env.rounding = rounding;
    let a = operand::<F64>(env, a);
    let e = exp::<F64>(a);
    let magnitude = match e - F64::BIAS {
        ..31 => return value,
        31..64 => split::<F64>(a).map_or(0, |(integer, _)| integer),
        // The significand's low bits reach 2^(e - 52), so from 2^84 on all 32 bits are zeros.
        e @ 64..84 => ((a & F64::FRAC) | F64::IMPLICIT) << (e - F64::FRAC_BITS as i32),
        _ => 0,
    };
    i32::from_sign_magnitude(sign::<F64>(a), magnitude)
}

/// Rounds to an integral value of the same format without raising inexact (RISC-V Zfa FROUND).
#[inline]
pub fn round_to_integral<F: Format>(env: &mut Env, a: u64) -> u64 {
    integral::<F>(env, a)
}

/// Rounds to an integral value of the same format, raising inexact if that changes it (RISC-V Zfa FROUNDNX).
#[inline]
pub fn round_to_integral_exact<F: Format>(env: &mut Env, a: u64) -> u64 {
    let result = integral::<F>(env, a);
    if result != operand::<F>(env, a) && !is_nan::<F>(a) {
        env.raise(Flags::INEXACT);
    }
    result
}

#[inline(always)]
fn integral<F: Format>(env: &mut Env, a: u64) -> u64 {
    let a = operand::<F>(env, a);
    let e = exp::<F>(a) - F::BIAS;
    if e >= F::FRAC_BITS as i32 {
        return if is_nan::<F>(a) { nan::propagate::<F>(env, &[a]) } else { a };
    }
    let negative = sign::<F>(a);
    if e < 0 {
        let rest = match e {
            -1 => normal_sig::<F>(a) << 1,
            _ => u64::from(!is_zero::<F>(a)),
        };
        let one = (F::BIAS as u64) << F::FRAC_BITS;
        let up = rounds_up(env.rounding, negative, false, rest);
        return zero::<F>(negative) | if up { one } else { 0 };
    }
    // The fraction's place in the encoding; a carry runs on into the exponent, as it should.
    let places = F::FRAC_BITS - e as u32;
    let unit = 1u64 << places;
    let rest = (a & (unit - 1)) << (64 - places);
    // At exponent zero the unit is the exponent's lowest bit, which is set: the bias is odd, as is the integer 1.
    let up = rounds_up(env.rounding, negative, a & unit != 0, rest);
    (a & !(unit - 1)) + if up { unit } else { 0 }
}
