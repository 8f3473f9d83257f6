//! Rounding a working significand to a format: the one place where results are rounded, over- and underflow.

use super::env::{Env, Flags, Rounding, Tininess};
use super::format::{Format, infinity, zero};

/// Shifts right; anything non-zero shifted out sets bit 0. `sig` has bit 63 clear.
#[inline(always)]
pub(super) fn shift_right_jam(sig: u64, by: u32) -> u64 {
    let by = by.min(63);
    (sig >> by) | u64::from(sig & ((1 << by) - 1) != 0)
}

/// As [`shift_right_jam`], for 128 bits with bit 127 clear.
#[inline(always)]
pub(super) fn shift_right_jam_128(sig: u128, by: u32) -> u128 {
    let by = by.min(127);
    (sig >> by) | u128::from(sig & ((1 << by) - 1) != 0)
}

/// The sign of an exact zero sum of non-zero, oppositely signed terms (IEEE 754-2019, 6.3).
#[inline]
pub(super) fn zero_sum<F: Format>(env: &Env) -> u64 {
    zero::<F>(env.rounding == Rounding::Down)
}

/// Whether a magnitude with the given last bit and rest (a fraction of 2^64) is rounded up to the next integer.
#[inline(always)]
pub(super) fn rounds_up(rounding: Rounding, negative: bool, odd: bool, rest: u64) -> bool {
    const HALF: u64 = 1 << 63;
    match rounding {
        Rounding::NearestEven => rest > HALF || (rest == HALF && odd),
        Rounding::NearestMaxMagnitude => rest >= HALF,
        Rounding::TowardZero => false,
        Rounding::Down => negative && rest != 0,
        Rounding::Up => !negative && rest != 0,
    }
}

/// What to add to `sig` before dropping its low `ROUND_BITS` bits.
#[inline(always)]
pub(super) fn increment<F: Format>(rounding: Rounding, sign: bool, sig: u64) -> u64 {
    let half = 1u64 << (F::ROUND_BITS - 1);
    let all = (half << 1) - 1;
    match rounding {
        // A tie carries exactly when the last place kept is odd.
        Rounding::NearestEven => half - 1 + ((sig >> F::ROUND_BITS) & 1),
        Rounding::NearestMaxMagnitude => half,
        Rounding::TowardZero => 0,
        Rounding::Down if sign => all,
        Rounding::Up if !sign => all,
        Rounding::Down | Rounding::Up => 0,
    }
}

/// Rounds `sig * 2^(exp - BIAS - 62)`, bit 62 of `sig` being its leading bit, to the format and raises what that entails.
#[inline(always)]
pub(super) fn round_pack<F: Format>(env: &mut Env, sign: bool, exp: i32, sig: u64) -> u64 {
    // The largest finite exponent may still carry into infinity, so it takes the careful path too.
    if (exp as u32).wrapping_sub(1) >= (F::EXP_MAX - 2) as u32 {
        return round_pack_edge::<F>(env, sign, exp, sig);
    }
    let low = sig & ((1 << F::ROUND_BITS) - 1);
    if low != 0 {
        env.raise(Flags::INEXACT);
    }
    let rounded = (sig + increment::<F>(env.rounding, sign, sig)) >> F::ROUND_BITS;
    // The leading bit adds one to the exponent field; so does a carry out of the significand, leaving a fraction of zero.
    zero::<F>(sign) + ((exp as u64 - 1) << F::FRAC_BITS) + rounded
}

/// [`round_pack`] for exponents at and beyond the ends of the format's range.
#[cold]
#[inline(never)]
fn round_pack_edge<F: Format>(env: &mut Env, sign: bool, exp: i32, sig: u64) -> u64 {
    let carries = sig + increment::<F>(env.rounding, sign, sig) >= 1 << 63;
    let low = sig & ((1 << F::ROUND_BITS) - 1);
    if exp > 0 {
        return if exp >= F::EXP_MAX || (exp == F::EXP_MAX - 1 && carries) {
            overflow::<F>(env, sign, low != 0)
        } else {
            if low != 0 {
                env.raise(Flags::INEXACT);
            }
            let rounded = (sig + increment::<F>(env.rounding, sign, sig)) >> F::ROUND_BITS;
            zero::<F>(sign) + ((exp as u64 - 1) << F::FRAC_BITS) + rounded
        };
    }
    let tiny = match env.tininess {
        Tininess::BeforeRounding => true,
        Tininess::AfterRounding => exp < 0 || !carries,
    };
    if tiny && env.ftz && F::FLUSHES {
        env.raise(Flags::UNDERFLOW | Flags::INEXACT);
        return zero::<F>(sign);
    }
    if tiny && env.traps(Flags::UNDERFLOW) {
        env.raise(Flags::UNDERFLOW);
    }
    let sig = shift_right_jam(sig, exp.abs_diff(1));
    if sig & ((1 << F::ROUND_BITS) - 1) != 0 {
        if low != 0 || !tiny || !env.traps(Flags::UNDERFLOW) {
            env.raise(Flags::INEXACT);
        }
        if tiny {
            env.raise(Flags::UNDERFLOW);
        }
    }
    // Exponent field zero; a carry to the leading bit makes the smallest normal number.
    zero::<F>(sign) + ((sig + increment::<F>(env.rounding, sign, sig)) >> F::ROUND_BITS)
}

/// The result of an overflow (IEEE 754-2019, 7.4); `cut` if the significand is inexact.
fn overflow<F: Format>(env: &mut Env, sign: bool, cut: bool) -> u64 {
    env.raise(Flags::OVERFLOW);
    if cut || !env.traps(Flags::OVERFLOW) {
        env.raise(Flags::INEXACT);
    }
    let to_infinity = match env.rounding {
        Rounding::NearestEven | Rounding::NearestMaxMagnitude => true,
        Rounding::TowardZero => false,
        Rounding::Down => sign,
        Rounding::Up => !sign,
    };
    // The largest finite number is the encoding just below infinity.
    infinity::<F>(sign) - u64::from(!to_infinity)
}
