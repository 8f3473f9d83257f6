//! Comparison (IEEE 754-2019, 5.11), minimum and maximum (9.6).

use std::cmp::Ordering;

use super::env::{Env, Flags};
use super::format::{Format, is_nan, is_signalling, is_zero, operand, sign};
use super::nan;

/// Whether a comparison with a quiet NaN raises invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quietness {
    /// Only a signalling NaN raises invalid (x86 UCOMISD).
    Quiet,
    /// Any NaN raises invalid (x86 COMISD).
    Signalling,
}

/// The order of a number among its format's, -0 and +0 being equal.
#[inline(always)]
fn key<F: Format>(a: u64) -> i64 {
    let magnitude = (a & F::MAGNITUDE) as i64;
    if sign::<F>(a) { -magnitude } else { magnitude }
}

/// The relation of `a` to `b`; `None` when unordered.
#[inline]
pub fn compare<F: Format>(env: &mut Env, a: u64, b: u64, quietness: Quietness) -> Option<Ordering> {
    let a = operand::<F>(env, a);
    let b = operand::<F>(env, b);
    if is_nan::<F>(a) || is_nan::<F>(b) {
        if quietness == Quietness::Signalling || is_signalling::<F>(a) || is_signalling::<F>(b) {
            env.raise(Flags::INVALID);
        }
        return None;
    }
    Some(key::<F>(a).cmp(&key::<F>(b)))
}

/// `a == b`, quiet (RISC-V FEQ).
#[inline]
pub fn eq<F: Format>(env: &mut Env, a: u64, b: u64) -> bool {
    compare::<F>(env, a, b, Quietness::Quiet) == Some(Ordering::Equal)
}

/// `a < b`, signalling (RISC-V FLT).
#[inline]
pub fn lt<F: Format>(env: &mut Env, a: u64, b: u64) -> bool {
    compare::<F>(env, a, b, Quietness::Signalling) == Some(Ordering::Less)
}

/// `a <= b`, signalling (RISC-V FLE).
#[inline]
pub fn le<F: Format>(env: &mut Env, a: u64, b: u64) -> bool {
    compare::<F>(env, a, b, Quietness::Signalling).is_some_and(Ordering::is_le)
}

/// `a < b`, quiet (RISC-V Zfa FLTQ).
#[inline]
pub fn lt_quiet<F: Format>(env: &mut Env, a: u64, b: u64) -> bool {
    compare::<F>(env, a, b, Quietness::Quiet) == Some(Ordering::Less)
}

/// `a <= b`, quiet (RISC-V Zfa FLEQ).
#[inline]
pub fn le_quiet<F: Format>(env: &mut Env, a: u64, b: u64) -> bool {
    compare::<F>(env, a, b, Quietness::Quiet).is_some_and(Ordering::is_le)
}

/// minimumNumber: a NaN yields to a number; -0 is below +0 (RISC-V FMIN since version 2.2 of the F extension).
#[inline]
pub fn min_num<F: Format>(env: &mut Env, a: u64, b: u64) -> u64 {
    select_number::<F>(env, a, b, Ordering::Less)
}

/// maximumNumber: a NaN yields to a number; +0 is above -0 (RISC-V FMAX since version 2.2 of the F extension).
#[inline]
pub fn max_num<F: Format>(env: &mut Env, a: u64, b: u64) -> u64 {
    select_number::<F>(env, a, b, Ordering::Greater)
}

/// minimum: a NaN operand makes the result a NaN; -0 is below +0 (RISC-V Zfa FMINM).
#[inline]
pub fn min<F: Format>(env: &mut Env, a: u64, b: u64) -> u64 {
    select::<F>(env, a, b, Ordering::Less)
}

/// maximum: a NaN operand makes the result a NaN; +0 is above -0 (RISC-V Zfa FMAXM).
#[inline]
pub fn max<F: Format>(env: &mut Env, a: u64, b: u64) -> u64 {
    select::<F>(env, a, b, Ordering::Greater)
}

#[inline(always)]
fn select_number<F: Format>(env: &mut Env, a: u64, b: u64, wanted: Ordering) -> u64 {
    let (x, y) = (operand::<F>(env, a), operand::<F>(env, b));
    match (is_nan::<F>(x), is_nan::<F>(y)) {
        (false, false) => ordered::<F>(x, y, wanted),
        (true, true) => nan::propagate::<F>(env, &[x, y]),
        (a_nan, _) => {
            let (nan, number) = if a_nan { (x, y) } else { (y, x) };
            if is_signalling::<F>(nan) {
                env.raise(Flags::INVALID);
            }
            number
        }
    }
}

#[inline(always)]
fn select<F: Format>(env: &mut Env, a: u64, b: u64, wanted: Ordering) -> u64 {
    let (x, y) = (operand::<F>(env, a), operand::<F>(env, b));
    if is_nan::<F>(x) || is_nan::<F>(y) {
        return nan::propagate::<F>(env, &[x, y]);
    }
    ordered::<F>(x, y, wanted)
}

/// Of two numbers the one that stands in the `wanted` relation to the other.
#[inline(always)]
fn ordered<F: Format>(x: u64, y: u64, wanted: Ordering) -> u64 {
    let order = if is_zero::<F>(x) && is_zero::<F>(y) {
        sign::<F>(y).cmp(&sign::<F>(x))
    } else {
        key::<F>(x).cmp(&key::<F>(y))
    };
    if order == wanted { x } else { y }
}
