//! Partial remainders (Intel SDM volume 2: FPREM, FPREM1).

use super::super::env::Precision;
use super::round::{Exact, round_pack};
use super::specials::{invalid, unusable};
use super::{Class, Env, F80};

/// Which quotient a remainder belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotient {
    /// Truncated (FPREM).
    Truncated,
    /// To nearest, ties to even (FPREM1: IEEE 754-2019, 5.3.1).
    Nearest,
}

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remainder {
    /// The remainder, and the low three bits of the quotient's magnitude.
    Complete(F80, u8),
    /// No quotient: the NaN that an invalid operation or an operand makes the result.
    Nan(F80),
    /// The exponents lie too far apart: a smaller dividend with the same remainder.
    Partial(F80),
}

/// One step towards the remainder of `a` by `b`, exact. A step reduces the exponent by 63 at most; how far it goes when that is
/// too little is left open by the manual ("a number between 32 and 63"): processors leave a difference divisible by 32.
pub fn remainder(env: &mut Env, a: F80, b: F80, quotient: Quotient) -> Remainder {
    if let Some(result) = unusable(env, [a, b]) {
        return Remainder::Nan(result);
    }
    match (a.class(), b.class()) {
        (Class::Infinity, _) | (_, Class::Zero) => return Remainder::Nan(invalid(env)),
        (Class::Zero, _) => return Remainder::Complete(a, 0),
        _ => {}
    }
    let negative = a.is_negative();
    let ((ea, sa), (eb, sb)) = (a.normalized(), b.normalized());
    if b.class() == Class::Infinity {
        return Remainder::Complete(exact(env, negative, ea, sa), 0);
    }
    let distance = ea - eb;
    if distance >= 64 {
        let step = 32 + distance % 32;
        let (_, rest) = divide(sa, step as u32, sb);
        return Remainder::Partial(exact(env, negative, ea - step, rest));
    }
    // The remainder in units of the last place of `b`, or for a smaller `a` of `a`.
    let (mut q, mut rest, exp) = match distance {
        0.. => {
            let (q, rest) = divide(sa, distance as u32, sb);
            (q, rest, eb)
        }
        _ => (0, sa, ea),
    };
    let mut negative = negative;
    // Twice the remainder against the divisor, both in the same units; a smaller `a` can be above half of `b` only if its
    // exponent is one less.
    let above_half = match distance {
        0.. => (2 * u128::from(rest)).cmp(&u128::from(sb)),
        -1 => sa.cmp(&sb),
        _ => std::cmp::Ordering::Less,
    };
    if quotient == Quotient::Nearest && (above_half.is_gt() || (above_half.is_eq() && q & 1 != 0)) {
        // At distance -1: b - a = (2 * sb - sa) units of a, below 2^64 as sa > sb.
        rest = if distance >= 0 { sb - rest } else { sb.wrapping_sub(sa).wrapping_add(sb) };
        q += 1;
        negative = !negative;
    }
    Remainder::Complete(exact(env, negative, exp, rest), (q & 7) as u8)
}

/// Quotient and remainder of `n * 2^shift` by `d`; `shift` is below 64.
fn divide(n: u64, shift: u32, d: u64) -> (u128, u64) {
    let (n, d) = (u128::from(n) << shift, u128::from(d));
    (n / d, (n % d) as u64)
}

/// `sig * 2^(exp - BIAS - 63)`, which the format holds unless it underflows; precision control has no part in it.
fn exact(env: &mut Env, negative: bool, exp: i32, sig: u64) -> F80 {
    if sig == 0 {
        return F80::zero(negative);
    }
    let shift = sig.leading_zeros();
    let precision = std::mem::replace(&mut env.precision, Precision::Extended);
    let result =
        round_pack(env, Exact { negative, exp: exp - shift as i32, sig: sig << shift, rest: 0 });
    env.precision = precision;
    result
}
