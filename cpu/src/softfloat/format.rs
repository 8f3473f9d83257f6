//! The binary interchange formats (IEEE 754-2019, 3.4) as types, and the classification of values.

use super::env::Env;

mod sealed {
    pub trait Sealed {}
}

/// A binary interchange format. Encodings are held in the low [`Format::WIDTH`] bits of a `u64`.
pub trait Format: sealed::Sealed + Copy + 'static {
    /// Width of the exponent field.
    const EXP_BITS: u32;
    /// Width of the trailing significand field.
    const FRAC_BITS: u32;
    /// Whether DAZ and FTZ apply to the format.
    const FLUSHES: bool = true;

    /// Width of the encoding.
    const WIDTH: u32 = 1 + Self::EXP_BITS + Self::FRAC_BITS;
    /// Exponent bias.
    const BIAS: i32 = (1 << (Self::EXP_BITS - 1)) - 1;
    /// Exponent field of infinities and NaNs.
    const EXP_MAX: i32 = (1 << Self::EXP_BITS) - 1;
    /// All bits of the encoding.
    const MASK: u64 = u64::MAX >> (64 - Self::WIDTH);
    /// The sign bit.
    const SIGN: u64 = 1 << (Self::WIDTH - 1);
    /// The bits beside the sign.
    const MAGNITUDE: u64 = Self::MASK ^ Self::SIGN;
    /// The trailing significand field.
    const FRAC: u64 = (1 << Self::FRAC_BITS) - 1;
    /// The leading significand bit, not encoded: just above the fraction.
    const IMPLICIT: u64 = 1 << Self::FRAC_BITS;
    /// The bit that tells quiet from signalling NaNs.
    const QUIET: u64 = 1 << (Self::FRAC_BITS - 1);
    /// Positive infinity.
    const INFINITY: u64 = (Self::EXP_MAX as u64) << Self::FRAC_BITS;
    /// The canonical NaN: positive, quiet, payload zero.
    const CANONICAL_NAN: u64 = Self::INFINITY | Self::QUIET;
    /// How many low bits of a working significand (leading bit at 62) rounding removes.
    const ROUND_BITS: u32 = 62 - Self::FRAC_BITS;
}

/// binary16, half precision.
#[derive(Clone, Copy, Debug)]
pub struct F16;
/// binary32, single precision.
#[derive(Clone, Copy, Debug)]
pub struct F32;
/// binary64, double precision.
#[derive(Clone, Copy, Debug)]
pub struct F64;

impl sealed::Sealed for F16 {}
impl Format for F16 {
    const EXP_BITS: u32 = 5;
    const FRAC_BITS: u32 = 10;
    const FLUSHES: bool = false;
}

impl sealed::Sealed for F32 {}
impl Format for F32 {
    const EXP_BITS: u32 = 8;
    const FRAC_BITS: u32 = 23;
}

impl sealed::Sealed for F64 {}
impl Format for F64 {
    const EXP_BITS: u32 = 11;
    const FRAC_BITS: u32 = 52;
}

/// An operand as the operation sees it: without bits above the format, subnormals zero under DAZ.
#[inline(always)]
pub(super) fn operand<F: Format>(env: &Env, a: u64) -> u64 {
    let a = a & F::MASK;
    if F::FLUSHES && env.daz && exp::<F>(a) == 0 { a & F::SIGN } else { a }
}

/// The biased exponent field.
#[inline(always)]
pub(super) fn exp<F: Format>(a: u64) -> i32 {
    ((a & F::MAGNITUDE) >> F::FRAC_BITS) as i32
}

/// Whether a biased exponent field is that of a normal number.
#[inline(always)]
pub(super) fn is_normal_exp<F: Format>(exp: i32) -> bool {
    (exp as u32).wrapping_sub(1) < (F::EXP_MAX - 1) as u32
}

#[inline(always)]
pub(super) fn sign<F: Format>(a: u64) -> bool {
    a & F::SIGN != 0
}

/// A zero with the given sign.
#[inline(always)]
pub(super) fn zero<F: Format>(sign: bool) -> u64 {
    if sign { F::SIGN } else { 0 }
}

/// An infinity with the given sign.
#[inline(always)]
pub(super) fn infinity<F: Format>(sign: bool) -> u64 {
    zero::<F>(sign) | F::INFINITY
}

#[inline(always)]
pub(super) fn is_nan<F: Format>(a: u64) -> bool {
    a & F::MAGNITUDE > F::INFINITY
}

/// Whether the value is a NaN that raises invalid.
#[inline(always)]
pub fn is_signalling<F: Format>(a: u64) -> bool {
    is_nan::<F>(a) && a & F::QUIET == 0
}

/// Whether the value is subnormal: x86's denormal operand.
#[inline(always)]
pub fn is_subnormal<F: Format>(a: u64) -> bool {
    exp::<F>(a) == 0 && !is_zero::<F>(a)
}

#[inline(always)]
pub(super) fn is_infinite<F: Format>(a: u64) -> bool {
    a & F::MAGNITUDE == F::INFINITY
}

#[inline(always)]
pub(super) fn is_zero<F: Format>(a: u64) -> bool {
    a & F::MAGNITUDE == 0
}

/// Working significand of a normal number: leading bit at 62.
#[inline(always)]
pub(super) fn normal_sig<F: Format>(a: u64) -> u64 {
    ((a & F::FRAC) | F::IMPLICIT) << F::ROUND_BITS
}

/// Exponent and working significand (leading bit at 62) of a finite non-zero number; a subnormal's exponent is what its field
/// would be if the range went on downwards.
#[inline]
pub(super) fn normalized<F: Format>(a: u64) -> (i32, u64) {
    let e = exp::<F>(a);
    if e != 0 {
        return (e, normal_sig::<F>(a));
    }
    let sig = (a & F::FRAC) << F::ROUND_BITS;
    let shift = sig.leading_zeros() as i32 - 1;
    (1 - shift, sig << shift)
}

/// The class of a value as RISC-V's FCLASS mask (RISC-V ISA manual volume I, "Floating-point classify instruction"): bit 0
/// negative infinity, 1 negative normal, 2 negative subnormal, 3 -0, 4 +0, 5 positive subnormal, 6 positive normal,
/// 7 positive infinity, 8 signalling NaN, 9 quiet NaN.
#[inline]
pub fn classify<F: Format>(a: u64) -> u64 {
    if is_nan::<F>(a) {
        return if is_signalling::<F>(a) { 1 << 8 } else { 1 << 9 };
    }
    // Distance from the pair of zeros, which sit in the middle of bits 0 to 7.
    let distance = if is_zero::<F>(a) {
        0
    } else if is_infinite::<F>(a) {
        3
    } else if exp::<F>(a) == 0 {
        1
    } else {
        2
    };
    if sign::<F>(a) { 1 << (3 - distance) } else { 1 << (4 + distance) }
}
