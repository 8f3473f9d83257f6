//! Operands that are no numbers, and NaN results.

use super::{Class, Env, F80, Flags, QUIET};

/// The result of an invalid operation none of whose operands is a NaN. It precedes a denormal operand (Intel SDM volume 1,
/// 4.9.2).
#[cold]
pub(crate) fn invalid(env: &mut Env) -> F80 {
    env.flags.remove(Flags::DENORMAL);
    env.raise(Flags::INVALID);
    F80::INDEFINITE
}

/// The result of dividing a finite number by zero, which precedes a denormal operand, too.
#[cold]
pub(crate) fn divided_by_zero(env: &mut Env, negative: bool) -> F80 {
    env.flags.remove(Flags::DENORMAL);
    env.raise(Flags::DIV_BY_ZERO);
    F80::infinity(negative)
}

/// A NaN made quiet.
#[inline]
pub const fn quiet_nan(a: F80) -> F80 {
    F80 { sig: a.sig | QUIET, ..a }
}

/// The result, when an operand is of an unsupported encoding or a NaN; otherwise notes denormal operands.
pub(crate) fn unusable<const N: usize>(env: &mut Env, operands: [F80; N]) -> Option<F80> {
    let has = |class| operands.iter().any(|a| a.class() == class);
    if has(Class::Unsupported) {
        return Some(invalid(env));
    }
    if has(Class::Nan) {
        return Some(propagate(env, operands));
    }
    if has(Class::Denormal) {
        env.raise(Flags::DENORMAL);
    }
    None
}

/// The NaN resulting from operands of which at least one is a NaN (Intel SDM volume 1, table 4-7): a quiet one before a
/// signalling one, else the one with the larger significand; of equal significands the positive one.
fn propagate<const N: usize>(env: &mut Env, operands: [F80; N]) -> F80 {
    if operands.iter().any(|a| a.is_signalling()) {
        env.raise(Flags::INVALID);
    }
    operands
        .into_iter()
        .filter(|a| a.class() == Class::Nan)
        .max_by_key(|a| (!a.is_signalling(), a.sig, !a.is_negative()))
        .map_or(F80::INDEFINITE, quiet_nan)
}
