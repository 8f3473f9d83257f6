//! Rounding a significand of 128 bits to the format: the one place where results are rounded, over- and underflow.

use super::super::env::{Precision, Rounding};
use super::super::round::rounds_up;
use super::{BIAS, EXP_MAX, Env, F80, Flags, INTEGER_BIT};

/// What is added to the exponent of an unmasked underflow and taken from that of an unmasked overflow
/// (Intel SDM volume 1, 8.5.4 and 8.5.5).
const ADJUSTMENT: i32 = 24576;

/// How many low bits of a significand precision control drops.
#[inline(always)]
const fn dropped(precision: Precision) -> u32 {
    match precision {
        Precision::Single => 40,
        Precision::Double => 11,
        Precision::Extended => 0,
    }
}

/// The exact result of an operation, `sig * 2^(exp - BIAS - 63)`: bit 63 of `sig` is set, and `rest` is a fraction of 2^64 of its
/// last bit, jammed. The exponent may be beyond what the format holds.
#[derive(Clone, Copy)]
pub(super) struct Exact {
    pub negative: bool,
    pub exp: i32,
    pub sig: u64,
    pub rest: u64,
}

/// A rounded significand.
struct Rounded {
    /// Bit 63 is set, unless it was not before rounding.
    sig: u64,
    /// 1 when rounding carried into the next binade, else 0.
    carry: i32,
    inexact: bool,
}

/// Rounds `sig` and the fraction `rest` of 2^64 to the environment's precision.
#[inline(always)]
fn round(env: &mut Env, negative: bool, sig: u64, rest: u64) -> Rounded {
    let drop = dropped(env.precision);
    let (kept, rest) = if drop == 0 {
        (sig, rest)
    } else {
        (sig >> drop << drop, sig << (64 - drop) | u64::from(rest != 0))
    };
    if rest == 0 {
        return Rounded { sig: kept, carry: 0, inexact: false };
    }
    env.raise(Flags::INEXACT);
    if !rounds_up(env.rounding, negative, kept >> drop & 1 != 0, rest) {
        return Rounded { sig: kept, carry: 0, inexact: true };
    }
    env.raise(Flags::ROUNDED_UP);
    match kept.overflowing_add(1 << drop) {
        (sig, false) => Rounded { sig, carry: 0, inexact: true },
        (_, true) => Rounded { sig: INTEGER_BIT, carry: 1, inexact: true },
    }
}

/// Rounds an exact result and raises what that entails.
#[inline(always)]
pub(super) fn round_pack(env: &mut Env, exact: Exact) -> F80 {
    let Exact { negative, exp, sig, rest } = exact;
    // The largest finite exponent may still carry into infinity, so it takes the careful path too.
    if !is_inner(exp) {
        return round_pack_edge(env, negative, exp, sig, rest);
    }
    let rounded = round(env, negative, sig, rest);
    F80::new(negative, exp + rounded.carry, rounded.sig)
}

/// Whether a result of this exponent neither over- nor underflows, however it is rounded.
#[inline(always)]
fn is_inner(exp: i32) -> bool {
    (exp as u32).wrapping_sub(1) < (EXP_MAX - 2) as u32
}

/// Rounds an exact result to the nearest number of 64 bits, and what is to be told of that; `None` if it may over- or underflow.
#[inline(always)]
pub(super) fn nearest(exact: Exact) -> Option<(F80, Flags)> {
    let Exact { negative, exp, sig, rest } = exact;
    if !is_inner(exp) {
        return None;
    }
    let up = rounds_up(Rounding::NearestEven, negative, sig & 1 != 0, rest);
    let (sum, carry) = sig.overflowing_add(u64::from(up));
    let sig = sum | u64::from(carry) << 63;
    Some((F80::new(negative, exp + i32::from(carry), sig), rounded_flags(rest != 0, up)))
}

/// The flags of a result that is inexact or not, and was rounded up or not.
#[inline(always)]
pub(super) fn rounded_flags(inexact: bool, up: bool) -> Flags {
    const UP: u32 = Flags::ROUNDED_UP.bits().trailing_zeros();
    Flags::from_bits_retain(u8::from(inexact) | u8::from(up) << UP)
}

/// Rounds `sig * 2^(exp - 127)`, bit 127 of `sig` being set.
pub(crate) fn round_wide(env: &mut Env, negative: bool, exp: i32, sig: u128) -> F80 {
    let exact = Exact { negative, exp: exp + BIAS, sig: (sig >> 64) as u64, rest: sig as u64 };
    round_pack(env, exact)
}

/// [`round_pack`] for exponents at and beyond the ends of the format's range.
#[cold]
#[inline(never)]
fn round_pack_edge(env: &mut Env, negative: bool, exp: i32, sig: u64, rest: u64) -> F80 {
    let before = *env;
    let rounded = round(env, negative, sig, rest);
    let unbounded = exp + rounded.carry;
    if unbounded >= EXP_MAX {
        env.raise(Flags::OVERFLOW);
        let adjusted = unbounded - ADJUSTMENT;
        if !env.traps(Flags::OVERFLOW) {
            return overflow(env, negative);
        }
        if adjusted < EXP_MAX {
            return F80::new(negative, adjusted, rounded.sig);
        }
        // FSCALE can exceed what the adjustment makes up for (Intel SDM volume 2, FSCALE).
        env.raise(Flags::INEXACT | Flags::ROUNDED_UP);
        return F80::infinity(negative);
    }
    if unbounded > 0 && exp > 0 {
        return F80::new(negative, unbounded, rounded.sig);
    }
    let tiny = unbounded <= 0;
    if tiny && env.traps(Flags::UNDERFLOW) {
        env.raise(Flags::UNDERFLOW);
        let adjusted = unbounded + ADJUSTMENT;
        if adjusted > 0 {
            return F80::new(negative, adjusted, rounded.sig);
        }
        // The other end of FSCALE.
        env.flags.remove(Flags::ROUNDED_UP);
        env.raise(Flags::INEXACT);
        return F80::zero(negative);
    }
    // Subnormals lie on the grid of exponent 1.
    *env = before;
    let by = (1 - exp) as u32;
    let (sig, rest) = match by {
        1..64 => (sig >> by, sig << (64 - by) | u64::from(rest != 0)),
        64 => (0, sig | u64::from(rest != 0)),
        _ => (0, 1),
    };
    let rounded = round(env, negative, sig, rest);
    if tiny && rounded.inexact {
        env.raise(Flags::UNDERFLOW);
    }
    // A carry to the integer bit makes the smallest normal number.
    F80::new(negative, (rounded.sig >> 63) as i32, rounded.sig)
}

/// The result of a masked overflow (IEEE 754-2019, 7.4); the largest finite number is that of the precision in force.
fn overflow(env: &mut Env, negative: bool) -> F80 {
    env.raise(Flags::INEXACT);
    let to_infinity = match env.rounding {
        Rounding::NearestEven | Rounding::NearestMaxMagnitude => true,
        Rounding::TowardZero => false,
        Rounding::Down => negative,
        Rounding::Up => !negative,
    };
    env.flags.set(Flags::ROUNDED_UP, to_infinity);
    if to_infinity {
        return F80::infinity(negative);
    }
    F80::new(negative, EXP_MAX - 1, u64::MAX << dropped(env.precision))
}
