//! Addition, subtraction, multiplication, division, square root (Intel SDM volume 2: FADD, FSUB, FMUL, FDIV, FSQRT).

use super::super::div_sqrt::divide_2_64;
use super::super::round::shift_right_jam;
use super::round::{Exact, round_pack};
use super::specials::{divided_by_zero, invalid, unusable};
use super::{BIAS, Class, Env, F80, INTEGER_BIT};
use crate::softfloat::Rounding;

/// `a + b`.
#[inline(always)]
pub fn add(env: &mut Env, a: F80, b: F80) -> F80 {
    add_signed(env, a, b, false)
}

/// `a - b`.
#[inline(always)]
pub fn sub(env: &mut Env, a: F80, b: F80) -> F80 {
    add_signed(env, a, b, true)
}

/// `a` plus `b` with its sign inverted if `flip`; a NaN keeps its sign.
#[inline(always)]
fn add_signed(env: &mut Env, a: F80, b: F80, flip: bool) -> F80 {
    if (!a.is_normal() || !b.is_normal())
        && let Some(result) = add_special(env, a, b, flip)
    {
        return result;
    }
    match sum(a, b, flip) {
        Some(sum) => round_pack(env, sum),
        None => F80::zero(env.rounding == Rounding::Down),
    }
}

/// The sum of two finite numbers other than zero, the sign of `b` inverted if `flip`; `None` if it is zero.
#[inline(always)]
pub(super) fn sum(a: F80, b: F80, flip: bool) -> Option<Exact> {
    let (na, nb) = (a.is_negative(), b.is_negative() ^ flip);
    let (pa, pb) = (a.normalized(), b.normalized());
    // x has the larger magnitude: the sum takes its sign.
    let (negative, (ex, sx), (ey, sy)) = if pa >= pb { (na, pa, pb) } else { (nb, pb, pa) };
    // Beyond 2^-64 of x, sticky: 63 bits and more lie between the last place kept and what is jammed.
    let (y, rest) = match (ex - ey) as u32 {
        by @ 0..64 => (sy >> by, sy << 1 << (63 - by)),
        64 => (0, sy),
        by => (0, shift_right_jam(sy >> 1 | sy & 1, by - 65)),
    };
    if na == nb {
        return Some(match sx.overflowing_add(y) {
            (sum, false) => Exact { negative, exp: ex, sig: sum, rest },
            (sum, true) => {
                let rest = sum << 63 | rest >> 1 | rest & 1;
                Exact { negative, exp: ex + 1, sig: sum >> 1 | INTEGER_BIT, rest }
            }
        });
    }
    let (rest, borrow) = 0u64.overflowing_sub(rest);
    let difference = sx - y - u64::from(borrow);
    if difference >> 63 != 0 {
        return Some(Exact { negative, exp: ex, sig: difference, rest });
    }
    let difference = u128::from(difference) << 64 | u128::from(rest);
    if difference == 0 {
        return None;
    }
    let shift = difference.leading_zeros();
    let difference = difference << shift;
    let (sig, rest) = ((difference >> 64) as u64, difference as u64);
    Some(Exact { negative, exp: ex - shift as i32, sig, rest })
}

/// [`add_signed`] when an operand is no normal number; `None` when both are finite and non-zero.
#[cold]
#[inline(never)]
fn add_special(env: &mut Env, a: F80, b: F80, flip: bool) -> Option<F80> {
    if let Some(result) = unusable(env, [a, b]) {
        return Some(result);
    }
    let b = if flip { b.negate() } else { b };
    match (a.class(), b.class()) {
        (Class::Infinity, Class::Infinity) if a != b => Some(invalid(env)),
        (Class::Infinity, _) => Some(a),
        (_, Class::Infinity) => Some(b),
        (Class::Zero, Class::Zero) if a == b => Some(a),
        (Class::Zero, Class::Zero) => Some(F80::zero(env.rounding == Rounding::Down)),
        (Class::Zero, _) => Some(rounded(env, b)),
        (_, Class::Zero) => Some(rounded(env, a)),
        _ => None,
    }
}

/// A finite non-zero number rounded to the precision in force.
fn rounded(env: &mut Env, a: F80) -> F80 {
    let (exp, sig) = a.normalized();
    round_pack(env, Exact { negative: a.is_negative(), exp, sig, rest: 0 })
}

/// `a * b`.
#[inline(always)]
pub fn mul(env: &mut Env, a: F80, b: F80) -> F80 {
    if (!a.is_normal() || !b.is_normal())
        && let Some(result) = mul_special(env, a, b)
    {
        return result;
    }
    round_pack(env, product(a, b))
}

/// The product of two finite numbers other than zero.
#[inline(always)]
pub(super) fn product(a: F80, b: F80) -> Exact {
    let ((ea, sa), (eb, sb)) = (a.normalized(), b.normalized());
    // The leading bit is 126 or 127.
    let product = u128::from(sa) * u128::from(sb);
    let low = u32::from(product >> 127 == 0);
    let product = product << low;
    Exact {
        negative: a.is_negative() != b.is_negative(),
        exp: ea + eb - BIAS + 1 - low as i32,
        sig: (product >> 64) as u64,
        rest: product as u64,
    }
}

/// The product when an operand is a NaN, unsupported, infinite or zero.
#[cold]
#[inline(never)]
fn mul_special(env: &mut Env, a: F80, b: F80) -> Option<F80> {
    if let Some(result) = unusable(env, [a, b]) {
        return Some(result);
    }
    let negative = a.is_negative() != b.is_negative();
    match (a.class(), b.class()) {
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => Some(invalid(env)),
        (Class::Infinity, _) | (_, Class::Infinity) => Some(F80::infinity(negative)),
        (Class::Zero, _) | (_, Class::Zero) => Some(F80::zero(negative)),
        _ => None,
    }
}

/// `a / b`.
#[inline(always)]
pub fn div(env: &mut Env, a: F80, b: F80) -> F80 {
    if (!a.is_normal() || !b.is_normal())
        && let Some(result) = div_special(env, a, b)
    {
        return result;
    }
    round_pack(env, quotient(a, b))
}

/// The quotient of two finite numbers other than zero.
#[inline(always)]
pub(super) fn quotient(a: F80, b: F80) -> Exact {
    let ((ea, sa), (eb, sb)) = (a.normalized(), b.normalized());
    // The quotient's first 64 bits, its next one and what remains of the divisor.
    let (low, q, next, rest) = if sa < sb {
        let (q, r) = divide_2_64(sa, sb);
        // 2 * r may need 65 bits.
        let half = r >= sb - r;
        (1, q, half, if half { r - (sb - r) } else { r })
    } else {
        let (q, r) = divide_2_64(sa - sb, sb);
        (0, 1 << 63 | q >> 1, q & 1 != 0, r)
    };
    Exact {
        negative: a.is_negative() != b.is_negative(),
        exp: ea - eb + BIAS - low,
        sig: q,
        rest: u64::from(next) << 63 | u64::from(rest != 0),
    }
}

/// The quotient when an operand is a NaN, unsupported, infinite or zero.
#[cold]
#[inline(never)]
fn div_special(env: &mut Env, a: F80, b: F80) -> Option<F80> {
    if let Some(result) = unusable(env, [a, b]) {
        return Some(result);
    }
    let negative = a.is_negative() != b.is_negative();
    match (a.class(), b.class()) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => Some(invalid(env)),
        (Class::Infinity, _) => Some(F80::infinity(negative)),
        (_, Class::Infinity) | (Class::Zero, _) => Some(F80::zero(negative)),
        (_, Class::Zero) => Some(divided_by_zero(env, negative)),
        _ => None,
    }
}

/// The square root of `a`.
#[inline]
pub fn sqrt(env: &mut Env, a: F80) -> F80 {
    if (!a.is_normal() || a.is_negative())
        && let Some(result) = sqrt_special(env, a)
    {
        return result;
    }
    let (e, s) = a.normalized();
    // a = s * 2^(unbiased - 63). An odd exponent gives one factor of two to the significand, so that halving is exact.
    let unbiased = e - BIAS;
    let n = u128::from(s) << (63 + (unbiased & 1));
    // 127 or 128 bits give a root of 64.
    let (root, remainder) = root(n);
    // (root + 1/2)^2 = root^2 + root + 1/4: the root's fraction is above 1/2 if the remainder exceeds the root, never 1/2.
    let rest = match remainder {
        0 => 0,
        _ if remainder > u128::from(root) => 1 << 63 | 1,
        _ => 1,
    };
    round_pack(env, Exact { negative: false, exp: (unbiased >> 1) + BIAS, sig: root, rest })
}

/// The square root of a number of 127 or 128 bits, truncated, and what remains: one step from the root of the upper half to that
/// of the whole (Zimmermann, "Karatsuba Square Root", INRIA RR-3805, 1999).
#[inline(always)]
fn root(n: u128) -> (u64, u128) {
    let (high, middle, low) = ((n >> 64) as u64, u64::from((n >> 32) as u32), n as u32);
    let upper = high.isqrt();
    let rest = high - upper * upper;
    // (rest * 2^32 + middle) / (2 * upper), both halved to fit.
    let dividend = rest << 31 | middle >> 1;
    let (q, r) = (dividend / upper, (dividend % upper) << 1 | middle & 1);
    let mut root = (u128::from(upper) << 32) + u128::from(q);
    let mut rest = (i128::from(r) << 32 | i128::from(low)) - i128::from(q) * i128::from(q);
    if rest < 0 {
        rest += 2 * root as i128 - 1;
        root -= 1;
    }
    (root as u64, rest as u128)
}

/// The root when the operand is a NaN, unsupported, infinite, zero or negative.
#[cold]
#[inline(never)]
fn sqrt_special(env: &mut Env, a: F80) -> Option<F80> {
    if let Some(result) = unusable(env, [a]) {
        return Some(result);
    }
    match a.class() {
        Class::Zero => Some(a),
        _ if a.is_negative() => Some(invalid(env)),
        Class::Infinity => Some(a),
        _ => None,
    }
}
