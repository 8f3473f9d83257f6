//! The usual case of the operations: normal numbers, every exception masked, results rounded to nearest, 64 bits.
//!
//! Each gives what the complete operation would, in less time, or `None` where something is not usual: then that is asked.
//! What a result entails is [`Flags::INEXACT`] and [`Flags::ROUNDED_UP`] at most.

use std::cmp::Ordering;

use super::super::convert::Integer;
use super::super::format::{self, Format};
use super::super::round::increment;
use super::arith::{product, quotient, sum};
use super::compare::key;
use super::convert::integral;
use super::round::{nearest, rounded_flags};
use super::{BIAS, F80, Flags};
use crate::softfloat::Rounding;

/// `a + b`.
#[inline(always)]
pub fn add(a: F80, b: F80) -> Option<(F80, Flags)> {
    normal(a, b)?;
    nearest(sum(a, b, false)?)
}

/// `a - b`.
#[inline(always)]
pub fn sub(a: F80, b: F80) -> Option<(F80, Flags)> {
    normal(a, b)?;
    nearest(sum(a, b, true)?)
}

/// `a * b`.
#[inline(always)]
pub fn mul(a: F80, b: F80) -> Option<(F80, Flags)> {
    normal(a, b)?;
    nearest(product(a, b))
}

/// `a / b`.
#[inline(always)]
pub fn div(a: F80, b: F80) -> Option<(F80, Flags)> {
    normal(a, b)?;
    nearest(quotient(a, b))
}

/// The relation of `a` to `b`.
#[inline(always)]
pub fn compare(a: F80, b: F80) -> Option<Ordering> {
    normal(a, b)?;
    Some(key(a).cmp(&key(b)))
}

/// A normal number of a smaller format, or zero.
#[inline(always)]
pub fn from_format<F: Format>(a: u64) -> Option<F80> {
    let negative = format::sign::<F>(a);
    let e = format::exp::<F>(a);
    if format::is_normal_exp::<F>(e) {
        return Some(F80::new(negative, e - F::BIAS + BIAS, format::normal_sig::<F>(a) << 1));
    }
    format::is_zero::<F>(a).then_some(F80::zero(negative))
}

/// Converts to a smaller format.
#[inline(always)]
pub fn to_format<F: Format>(a: F80) -> Option<(u64, Flags)> {
    let exp = a.exp() - BIAS + F::BIAS;
    // Neither below the format's range nor, however it is rounded, above it. Such an exponent is that of a number.
    if (exp as u32).wrapping_sub(1) >= (F::EXP_MAX - 2) as u32 || a.sig >> 63 == 0 {
        return None;
    }
    let negative = a.is_negative();
    let sig = a.sig >> 1 | a.sig & 1;
    let rounded = (sig + increment::<F>(Rounding::NearestEven, negative, sig)) >> F::ROUND_BITS;
    let inexact = sig & ((1 << F::ROUND_BITS) - 1) != 0;
    let up = rounded << F::ROUND_BITS > sig;
    // As in `round_pack` of the interchange formats.
    let value = format::zero::<F>(negative) + ((exp as u64 - 1) << F::FRAC_BITS) + rounded;
    Some((value, rounded_flags(inexact, up)))
}

/// Converts to an integer, rounding as asked.
#[inline(always)]
pub fn to_int<I: Integer>(direction: Rounding, a: F80) -> Option<(I, Flags)> {
    let negative = a.is_negative();
    let limit = if negative { I::MIN_MAGNITUDE } else { I::MAX_MAGNITUDE };
    let (magnitude, flags) = integral(direction, a)?;
    (a.is_normal() && magnitude <= limit)
        .then(|| (I::from_sign_magnitude(negative, magnitude), flags))
}

/// `a` if it is normal and above zero.
#[inline(always)]
pub fn radicand(a: F80) -> Option<F80> {
    (a.is_normal() && !a.is_negative()).then_some(a)
}

/// What the square root of a [`radicand`] entails, given the root rounded to nearest.
#[inline(always)]
pub fn rooted(a: F80, root: F80) -> Flags {
    // An odd exponent gives one factor of two to the significand.
    let odd = (a.exp() - BIAS) & 1;
    let square = u128::from(root.sig) * u128::from(root.sig);
    let exact = u128::from(a.sig) << (63 + odd);
    rounded_flags(square != exact, square > exact)
}

#[inline(always)]
fn normal(a: F80, b: F80) -> Option<()> {
    (a.is_normal() && b.is_normal()).then_some(())
}
