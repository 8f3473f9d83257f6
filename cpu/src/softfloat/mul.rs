//! Multiplication (IEEE 754-2019, 5.4.1).

use super::env::Env;
use super::format::{
    Format, exp, infinity, is_infinite, is_nan, is_normal_exp, is_zero, normal_sig, normalized,
    operand, sign, zero,
};
use super::nan;
use super::round::round_pack;

/// `a * b`.
#[inline]
pub fn mul<F: Format>(env: &mut Env, a: u64, b: u64) -> u64 {
    let a = operand::<F>(env, a);
    let b = operand::<F>(env, b);
    let negative = sign::<F>(a ^ b);
    let (mut ea, mut eb) = (exp::<F>(a), exp::<F>(b));
    let (mut sa, mut sb) = (normal_sig::<F>(a), normal_sig::<F>(b));
    if !is_normal_exp::<F>(ea) || !is_normal_exp::<F>(eb) {
        if let Some(result) = mul_special::<F>(env, a, b) {
            return result;
        }
        (ea, sa) = normalized::<F>(a);
        (eb, sb) = normalized::<F>(b);
    }
    // Leading bits at 62 and 63 give one at 125 or 126, that is at 61 or 62 of the upper half.
    let product = u128::from(sa) * u128::from(sb << 1);
    let sig = (product >> 64) as u64 | u64::from(product as u64 != 0);
    let low = u32::from(sig >> 62 == 0);
    round_pack::<F>(env, negative, ea + eb - F::BIAS + 1 - low as i32, sig << low)
}

/// The product when an operand is a NaN, infinite or zero.
#[cold]
#[inline(never)]
fn mul_special<F: Format>(env: &mut Env, a: u64, b: u64) -> Option<u64> {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        return Some(nan::propagate::<F>(env, &[a, b]));
    }
    let negative = sign::<F>(a ^ b);
    let zeros = is_zero::<F>(a) || is_zero::<F>(b);
    if is_infinite::<F>(a) || is_infinite::<F>(b) {
        return Some(if zeros { nan::invalid::<F>(env) } else { infinity::<F>(negative) });
    }
    zeros.then(|| zero::<F>(negative))
}
