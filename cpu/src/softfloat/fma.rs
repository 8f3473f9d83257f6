//! Fused multiply-add (IEEE 754-2019, 5.4.1): one rounding.

use super::env::{Env, Flags, NanRule};
use super::format::{
    Format, exp, infinity, is_infinite, is_nan, is_normal_exp, is_zero, normal_sig, normalized,
    operand, sign, zero,
};
use super::nan;
use super::round::{round_pack, shift_right_jam_128, zero_sum};

/// `a * b + c`. The negated forms invert signs of operands: `fnmadd` is `fma(-a, b, -c)`, `fnmsub` is `fma(-a, b, c)`.
#[inline]
pub fn fma<F: Format>(env: &mut Env, a: u64, b: u64, c: u64) -> u64 {
    let a = operand::<F>(env, a);
    let b = operand::<F>(env, b);
    let c = operand::<F>(env, c);
    let (mut ea, mut eb, mut ec) = (exp::<F>(a), exp::<F>(b), exp::<F>(c));
    let (mut sa, mut sb) = (normal_sig::<F>(a), normal_sig::<F>(b));
    let mut sc = normal_sig::<F>(c);
    if !is_normal_exp::<F>(ea) || !is_normal_exp::<F>(eb) || !is_normal_exp::<F>(ec) {
        if let Some(result) = fma_special::<F>(env, a, b, c) {
            return result;
        }
        (ea, sa) = normalized::<F>(a);
        (eb, sb) = normalized::<F>(b);
        (ec, sc) = if is_zero::<F>(c) {
            // Below anything the product can be, and nothing is shifted out of it.
            (-4 * F::EXP_MAX, 0)
        } else {
            normalized::<F>(c)
        };
    }
    let product_negative = sign::<F>(a ^ b);
    let c_negative = sign::<F>(c);

    // The exact product has its leading bit at 124 or 125, the addend is put at 124; at least 20 zeros lie below each, so
    // that whenever subtraction cancels more than one bit nothing was shifted out.
    let mut product = u128::from(sa) * u128::from(sb);
    let mut addend = u128::from(sc) << 62;
    let product_exp = ea + eb - F::BIAS;
    let exp = product_exp.max(ec);
    if product_exp >= ec {
        addend = shift_right_jam_128(addend, (product_exp - ec) as u32);
    } else {
        product = shift_right_jam_128(product, (ec - product_exp) as u32);
    }
    let (sum, negative) = if product_negative == c_negative {
        (product + addend, product_negative)
    } else if product > addend {
        (product - addend, product_negative)
    } else if product < addend {
        (addend - product, c_negative)
    } else {
        return zero_sum::<F>(env);
    };
    // Leading bit to 126, that is to 62 of the upper half.
    let zeros = sum.leading_zeros();
    let sum = sum << (zeros - 1);
    let sig = (sum >> 64) as u64 | u64::from(sum as u64 != 0);
    round_pack::<F>(env, negative, exp + 3 - zeros as i32, sig)
}

/// The result when an operand is a NaN or infinite, or when the product is zero.
#[cold]
#[inline(never)]
fn fma_special<F: Format>(env: &mut Env, a: u64, b: u64, c: u64) -> Option<u64> {
    let product_infinite = is_infinite::<F>(a) || is_infinite::<F>(b);
    let product_zero = is_zero::<F>(a) || is_zero::<F>(b);
    if is_nan::<F>(a) || is_nan::<F>(b) || is_nan::<F>(c) {
        if product_infinite && product_zero && env.nan == NanRule::Canonical {
            env.raise(Flags::INVALID);
        }
        return Some(nan::propagate::<F>(env, &[a, b, c]));
    }
    let product_negative = sign::<F>(a ^ b);
    let c_negative = sign::<F>(c);
    if product_infinite {
        let opposite = is_infinite::<F>(c) && product_negative != c_negative;
        return Some(if product_zero || opposite {
            nan::invalid::<F>(env)
        } else {
            infinity::<F>(product_negative)
        });
    }
    if is_infinite::<F>(c) {
        return Some(c);
    }
    if !product_zero {
        return None;
    }
    Some(if !is_zero::<F>(c) {
        // Exact, but a subnormal is still subject to FTZ.
        let (exp, sig) = normalized::<F>(c);
        round_pack::<F>(env, c_negative, exp, sig)
    } else if product_negative == c_negative {
        zero::<F>(c_negative)
    } else {
        zero_sum::<F>(env)
    })
}
