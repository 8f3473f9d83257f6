//! Addition and subtraction (IEEE 754-2019, 5.4.1).

use super::env::Env;
use super::format::{Format, exp, infinity, is_infinite, is_nan, operand, sign, zero};
use super::nan;
use super::round::{round_pack, shift_right_jam, zero_sum};

/// `a + b`.
#[inline]
pub fn add<F: Format>(env: &mut Env, a: u64, b: u64) -> u64 {
    add_signed::<F>(env, a, b, 0)
}

/// `a - b`.
#[inline]
pub fn sub<F: Format>(env: &mut Env, a: u64, b: u64) -> u64 {
    add_signed::<F>(env, a, b, F::SIGN)
}

/// `a` plus `b` with the bits `flip` of `b` inverted: 0 or the sign, which a NaN keeps.
#[inline(always)]
fn add_signed<F: Format>(env: &mut Env, a: u64, b: u64, flip: u64) -> u64 {
    let a = operand::<F>(env, a);
    let b = operand::<F>(env, b);
    // x has the larger magnitude, so it is the one that can be special, and the sum takes its sign.
    let (x, y) = if a & F::MAGNITUDE >= b & F::MAGNITUDE { (a, b ^ flip) } else { (b ^ flip, a) };
    let ex = exp::<F>(x);
    if ex == F::EXP_MAX {
        return add_special::<F>(env, a, b, flip);
    }
    let ey = exp::<F>(y);
    let sig =
        |v: u64, e: i32| ((v & F::FRAC) | (u64::from(e != 0) << F::FRAC_BITS)) << F::ROUND_BITS;
    let sx = sig(x, ex);
    // Subnormals lie on the grid of exponent 1.
    let ex = ex.max(1);
    let sy = shift_right_jam(sig(y, ey), (ex - ey.max(1)) as u32);
    let negative = sign::<F>(x);
    if (x ^ y) & F::SIGN == 0 {
        let sum = sx + sy;
        if sum >> 63 != 0 {
            return round_pack::<F>(env, negative, ex + 1, (sum >> 1) | (sum & 1));
        }
        if sum >> 62 != 0 {
            return round_pack::<F>(env, negative, ex, sum);
        }
        if sum == 0 {
            return zero::<F>(negative);
        }
        let shift = sum.leading_zeros() as i32 - 1;
        round_pack::<F>(env, negative, ex - shift, sum << shift)
    } else {
        let difference = sx - sy;
        if difference == 0 {
            return zero_sum::<F>(env);
        }
        let shift = difference.leading_zeros() as i32 - 1;
        round_pack::<F>(env, negative, ex - shift, difference << shift)
    }
}

/// [`add_signed`] when an operand is infinite or a NaN.
#[cold]
#[inline(never)]
fn add_special<F: Format>(env: &mut Env, a: u64, b: u64, flip: u64) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        return nan::propagate::<F>(env, &[a, b]);
    }
    let b = b ^ flip;
    match (is_infinite::<F>(a), is_infinite::<F>(b)) {
        (true, true) if sign::<F>(a) != sign::<F>(b) => nan::invalid::<F>(env),
        (true, _) => infinity::<F>(sign::<F>(a)),
        _ => infinity::<F>(sign::<F>(b)),
    }
}
