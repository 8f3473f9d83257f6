//! Exponent and significand apart and together (Intel SDM volume 2: FSCALE, FXTRACT).

use super::super::env::Precision;
use super::convert::from_int;
use super::round::{Exact, round_pack};
use super::specials::{divided_by_zero, invalid, unusable};
use super::{BIAS, Class, Env, F80};

/// `a * 2^n`, `n` being `b` truncated to an integer.
pub fn scale(env: &mut Env, a: F80, b: F80) -> F80 {
    if let Some(result) = unusable(env, [a, b]) {
        return result;
    }
    let negative = a.is_negative();
    match (a.class(), b.class()) {
        (Class::Zero, Class::Infinity) if !b.is_negative() => return invalid(env),
        (Class::Infinity, Class::Infinity) if b.is_negative() => return invalid(env),
        (_, Class::Infinity) if b.is_negative() => return F80::zero(negative),
        (_, Class::Infinity) => return F80::infinity(negative),
        (Class::Zero | Class::Infinity, _) => return a,
        _ => {}
    }
    // Beyond 2^16 every result over- or underflows as far as it can.
    let magnitude = match b.exp() - BIAS {
        ..0 => 0,
        e @ 0..16 => (b.sig >> (63 - e)) as i32,
        _ => 1 << 16,
    };
    let n = if b.is_negative() { -magnitude } else { magnitude };
    let (exp, sig) = a.normalized();
    let precision = std::mem::replace(&mut env.precision, Precision::Extended);
    let result = round_pack(env, Exact { negative, exp: exp + n, sig, rest: 0 });
    env.precision = precision;
    result
}

/// The unbiased exponent as a number, and the significand with the sign of `a` in [1, 2).
pub fn extract(env: &mut Env, a: F80) -> (F80, F80) {
    if let Some(nan) = unusable(env, [a]) {
        return (nan, nan);
    }
    match a.class() {
        Class::Zero => (divided_by_zero(env, true), a),
        Class::Infinity => (F80::infinity(false), a),
        _ => {
            let (exp, sig) = a.normalized();
            (from_int(exp - BIAS), F80::new(a.is_negative(), BIAS, sig))
        }
    }
}
