//! Comparison (Intel SDM volume 2: FCOM, FUCOM, FCOMI, FTST).

use std::cmp::Ordering;

use super::{Class, Env, F80, Flags};
use crate::softfloat::Quietness;

/// The relation of `a` to `b`; `None` when unordered. An unsupported encoding is invalid whatever the quietness.
#[inline]
pub fn compare(env: &mut Env, a: F80, b: F80, quietness: Quietness) -> Option<Ordering> {
    if !a.is_normal() || !b.is_normal() {
        let has = |class| a.class() == class || b.class() == class;
        if has(Class::Unsupported) {
            env.raise(Flags::INVALID);
            return None;
        }
        if has(Class::Nan) {
            if quietness == Quietness::Signalling || a.is_signalling() || b.is_signalling() {
                env.raise(Flags::INVALID);
            }
            return None;
        }
        if has(Class::Denormal) {
            env.raise(Flags::DENORMAL);
        }
    }
    Some(key(a).cmp(&key(b)))
}

/// The order of a number among the format's, -0 and +0 being equal.
#[inline(always)]
pub(super) fn key(a: F80) -> i128 {
    // A pseudo-denormal equals the normal number of exponent 1 and the same significand.
    let exp = if a.exp() == 0 && a.sig >> 63 != 0 { 1 } else { a.exp() };
    let magnitude = i128::from(exp) << 64 | i128::from(a.sig);
    if a.is_negative() { -magnitude } else { magnitude }
}
