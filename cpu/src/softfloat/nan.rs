//! NaN results (IEEE 754-2019, 6.2), by the environment's [`NanRule`].

use super::env::{Env, Flags, NanRule};
use super::format::{Format, is_nan, is_signalling};

/// The result of an invalid operation none of whose operands is a NaN.
#[cold]
pub(super) fn invalid<F: Format>(env: &mut Env) -> u64 {
    env.raise(Flags::INVALID);
    default_nan::<F>(env)
}

/// The NaN returned when no operand supplies one.
pub(super) fn default_nan<F: Format>(env: &Env) -> u64 {
    match env.nan {
        NanRule::Canonical => F::CANONICAL_NAN,
        NanRule::PropagateFirst => F::CANONICAL_NAN | F::SIGN,
    }
}

/// The NaN resulting from operands of which at least one is a NaN. A signalling one raises invalid.
#[cold]
pub(super) fn propagate<F: Format>(env: &mut Env, operands: &[u64]) -> u64 {
    if operands.iter().any(|&a| is_signalling::<F>(a)) {
        env.raise(Flags::INVALID);
    }
    match env.nan {
        NanRule::Canonical => F::CANONICAL_NAN,
        NanRule::PropagateFirst => operands
            .iter()
            .find(|&&a| is_nan::<F>(a))
            .map_or(default_nan::<F>(env), |&a| a | F::QUIET),
    }
}

/// A NaN of format `F` as one of format `G`: quiet, its payload aligned at the top.
#[cold]
pub(super) fn convert<F: Format, G: Format>(env: &mut Env, a: u64) -> u64 {
    let quiet = propagate::<F>(env, &[a]);
    let payload = (quiet & F::FRAC) << F::ROUND_BITS >> G::ROUND_BITS;
    let sign = if quiet & F::SIGN != 0 { G::SIGN } else { 0 };
    sign | G::INFINITY | payload
}
