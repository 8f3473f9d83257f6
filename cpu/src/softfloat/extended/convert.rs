//! Conversions: from and to the interchange formats and integers, to integral values (Intel SDM volume 2: FLD, FST, FILD,
//! FIST, FRNDINT).

use super::super::convert::Integer;
use super::super::format::{self, Format};
use super::super::round::{round_pack as round_pack_format, rounds_up};
use super::round::rounded_flags;
use super::specials::unusable;
use super::{BIAS, Class, EXP_MAX, Env, F80, Flags, quiet_nan};
use crate::softfloat::Rounding;

/// The encoding of a smaller format as one of 80 bits: exact, raises nothing, and a signalling NaN stays one.
#[inline(always)]
pub fn from_format<F: Format>(a: u64) -> F80 {
    let negative = format::sign::<F>(a);
    let e = format::exp::<F>(a);
    if format::is_normal_exp::<F>(e) {
        return F80::new(negative, e - F::BIAS + BIAS, format::normal_sig::<F>(a) << 1);
    }
    if e == F::EXP_MAX {
        return F80::new(negative, EXP_MAX, format::normal_sig::<F>(a) << 1);
    }
    if format::is_zero::<F>(a) {
        return F80::zero(negative);
    }
    let (e, sig) = format::normalized::<F>(a);
    F80::new(negative, e - F::BIAS + BIAS, sig << 1)
}

/// Converts to a smaller format. A denormal operand is not noted: it underflows.
#[inline]
pub fn to_format<F: Format>(env: &mut Env, a: F80) -> u64 {
    let negative = a.is_negative();
    match a.class() {
        Class::Normal | Class::Denormal => {}
        Class::Zero => return format::zero::<F>(negative),
        Class::Infinity => return format::infinity::<F>(negative),
        Class::Unsupported | Class::Nan => {
            let nan = unusable(env, [a]).map_or(F80::INDEFINITE, quiet_nan);
            let payload = (nan.sig << 1 >> 2) >> F::ROUND_BITS;
            return format::infinity::<F>(nan.is_negative()) | payload;
        }
    }
    let (e, sig) = a.normalized();
    let exp = e - BIAS + F::BIAS;
    let result = round_pack_format::<F>(env, negative, exp, sig >> 1 | sig & 1);
    if env.flags.contains(Flags::INEXACT) {
        let magnitude = from_format::<F>(result).abs();
        let up = magnitude.sig != 0 && (magnitude.exp(), magnitude.sig) > (e, sig);
        env.flags.set(Flags::ROUNDED_UP, up);
    }
    result
}

/// Converts an integer; exact, whatever the precision in force.
#[inline(always)]
pub fn from_int<I: Integer>(a: I) -> F80 {
    let (negative, magnitude) = a.sign_magnitude();
    if magnitude == 0 {
        return F80::ZERO;
    }
    let zeros = magnitude.leading_zeros();
    F80::new(negative, BIAS + 63 - zeros as i32, magnitude << zeros)
}

/// Magnitude of a finite number truncated to an integer, and the rest as a fraction of 2^64 (jammed); `None` from 2^64 on.
#[inline(always)]
fn split(a: F80) -> Option<(u64, u64)> {
    match a.exp() - BIAS {
        64.. => None,
        63 => Some((a.sig, 0)),
        e @ 0..63 => Some((a.sig >> (63 - e), a.sig << (e + 1))),
        -1 => Some((0, a.sig)),
        _ => Some((0, u64::from(a.sig != 0))),
    }
}

/// Magnitude of a finite number rounded to an integer, and whether that is the larger one and inexact;
/// `None` from 2^64 on.
#[inline(always)]
pub(super) fn integral(rounding: Rounding, a: F80) -> Option<(u64, Flags)> {
    let (truncated, rest) = split(a)?;
    // A rest leaves the significand's bits below 2^63: no carry out.
    let up = rounds_up(rounding, a.is_negative(), truncated & 1 != 0, rest);
    Some((truncated + u64::from(up), rounded_flags(rest != 0, up)))
}

/// Converts to an integer, rounding by the environment; `None`, and invalid, for what the type does not hold.
#[inline]
pub fn to_int<I: Integer>(env: &mut Env, a: F80) -> Option<I> {
    let negative = a.is_negative();
    let limit = if negative { I::MIN_MAGNITUDE } else { I::MAX_MAGNITUDE };
    if !matches!(a.class(), Class::Unsupported)
        && let Some((magnitude, flags)) = integral(env.rounding, a)
        && magnitude <= limit
    {
        env.raise(flags);
        return Some(I::from_sign_magnitude(negative, magnitude));
    }
    env.raise(Flags::INVALID);
    None
}

/// Rounds to an integral value, raising inexact if that changes it; precision control has no part in it.
#[inline]
pub fn round_to_integral(env: &mut Env, a: F80) -> F80 {
    if !a.is_normal() {
        if let Some(result) = unusable(env, [a]) {
            return result;
        }
        if a.class() != Class::Denormal {
            return a;
        }
    }
    if a.exp() - BIAS >= 63 {
        return a;
    }
    let Some((magnitude, flags)) = integral(env.rounding, a) else { return a };
    env.raise(flags);
    if magnitude == 0 {
        return F80::zero(a.is_negative());
    }
    let zeros = magnitude.leading_zeros();
    F80::new(a.is_negative(), BIAS + 63 - zeros as i32, magnitude << zeros)
}
