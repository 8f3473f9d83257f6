//! Division and square root (IEEE 754-2019, 5.4.1).

use super::env::{Env, Flags};
use super::format::{
    Format, exp, infinity, is_infinite, is_nan, is_normal_exp, is_zero, normal_sig, normalized,
    operand, sign, zero,
};
use super::nan;
use super::round::round_pack;

/// `a / b`.
#[inline]
pub fn div<F: Format>(env: &mut Env, a: u64, b: u64) -> u64 {
    let a = operand::<F>(env, a);
    let b = operand::<F>(env, b);
    let negative = sign::<F>(a ^ b);
    let (mut ea, mut eb) = (exp::<F>(a), exp::<F>(b));
    let (mut sa, mut sb) = (normal_sig::<F>(a), normal_sig::<F>(b));
    if !is_normal_exp::<F>(ea) || !is_normal_exp::<F>(eb) {
        if let Some(result) = div_special::<F>(env, a, b) {
            return result;
        }
        (ea, sa) = normalized::<F>(a);
        (eb, sb) = normalized::<F>(b);
    }
    let exp = ea - eb + F::BIAS;
    // A quotient of significands lies between 1/2 and 2; `sig` gets its leading bit at 61 or 62.
    let sig = if F::ROUND_BITS >= 32 {
        // sa * 2^30 / sb in one division: the significands have at most 31 bits.
        let (n, d) = (sa, sb >> 31);
        let (q, r) = (n / d, n % d);
        // Leading bit at 30 or 31.
        (q << 31) | u64::from(r != 0)
    } else {
        // Leading bit at 62 or 63; halved with the sticky bit kept.
        let (q, r) = divide_2_64(sa, sb << 1);
        (q >> 1) | u64::from(q & 1 != 0 || r != 0)
    };
    let low = u32::from(sig >> 62 == 0);
    round_pack::<F>(env, negative, exp - low as i32, sig << low)
}

/// Quotient and remainder of `n * 2^64 / d`, where `n < d`.
#[inline(always)]
pub(super) fn divide_2_64(n: u64, d: u64) -> (u64, u64) {
    let q = ((u128::from(n) << 64) / u128::from(d)) as u64;
    (q, 0u64.wrapping_sub(q.wrapping_mul(d)))
}

/// The quotient when an operand is a NaN, infinite or zero.
#[cold]
#[inline(never)]
fn div_special<F: Format>(env: &mut Env, a: u64, b: u64) -> Option<u64> {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        return Some(nan::propagate::<F>(env, &[a, b]));
    }
    let negative = sign::<F>(a ^ b);
    match (is_infinite::<F>(a), is_infinite::<F>(b)) {
        (true, true) => return Some(nan::invalid::<F>(env)),
        (true, false) => return Some(infinity::<F>(negative)),
        (false, true) => return Some(zero::<F>(negative)),
        (false, false) => {}
    }
    match (is_zero::<F>(a), is_zero::<F>(b)) {
        (true, true) => Some(nan::invalid::<F>(env)),
        (true, false) => Some(zero::<F>(negative)),
        (false, true) => {
            env.raise(Flags::DIV_BY_ZERO);
            Some(infinity::<F>(negative))
        }
        (false, false) => None,
    }
}

/// The square root of `a`.
#[inline]
pub fn sqrt<F: Format>(env: &mut Env, a: u64) -> u64 {
    let a = operand::<F>(env, a);
    let (mut e, mut s) = (exp::<F>(a), normal_sig::<F>(a));
    if !is_normal_exp::<F>(e) || sign::<F>(a) {
        if let Some(result) = sqrt_special::<F>(env, a) {
            return result;
        }
        (e, s) = normalized::<F>(a);
    }
    // a = s * 2^(unbiased - 62). An odd exponent gives one factor of two to the significand, so that halving is exact.
    let unbiased = e - F::BIAS;
    let odd = (unbiased & 1) as u32;
    let exp = (unbiased >> 1) + F::BIAS;
    let sig = if F::ROUND_BITS >= 36 {
        // 62 or 63 bits of radicand give a root of 31 or 32: room for 24 bits, a guard and the sticky bit.
        let n = s << odd;
        let root = n.isqrt();
        (root << 31) | u64::from(root * root != n)
    } else {
        sqrt_wide(s, odd)
    };
    round_pack::<F>(env, false, exp, sig)
}

/// The root of `s * 2^odd`, leading bit at 62, jammed; `s` has its leading bit at 62 and at most 53 significant bits.
///
/// A 112-bit radicand is rooted in two halves (P. Zimmermann, "Karatsuba Square Root", INRIA RR-3805): the upper 56 bits,
/// which hold all of `s`, give the upper 28 bits of the root; its remainder divided by twice that the lower 28.
#[inline(always)]
fn sqrt_wide(s: u64, odd: u32) -> u64 {
    let n = s >> (8 - odd);
    let upper = n.isqrt();
    let rest = (n - upper * upper) << 28;
    let (q, u) = (rest / (2 * upper), rest % (2 * upper));
    let mut root = (upper << 28) + q;
    // Remainder of the whole, one root too many when negative.
    let rest = (u << 28) as i64 - (q * q) as i64;
    if rest < 0 {
        root -= 1;
    }
    (root << 7) | u64::from(rest != 0)
}

/// The root when the operand is a NaN, infinite, zero or negative.
#[cold]
#[inline(never)]
fn sqrt_special<F: Format>(env: &mut Env, a: u64) -> Option<u64> {
    if is_nan::<F>(a) {
        Some(nan::propagate::<F>(env, &[a]))
    } else if is_zero::<F>(a) {
        Some(a)
    } else if sign::<F>(a) {
        Some(nan::invalid::<F>(env))
    } else {
        is_infinite::<F>(a).then_some(a)
    }
}
