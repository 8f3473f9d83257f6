//! x87's double extended format and the operations on it (Intel SDM volume 1, 4.2.2 and chapter 8).
//!
//! Only x87 computes in this format, so its rules hold throughout: which NaN is propagated (table 4-7), that encodings
//! without their integer bit are invalid operands (8.2.2), the denormal-operand exception, rounding to
//! [`Precision`](super::Precision), the exponent-adjusted result of an unmasked over- or underflow. What else varies comes in
//! [`Env`].
//!
//! ```text
//! F80 -> special operands (specials.rs) -> sign, exponent, significand with bit 63 set
//!                                            -> exact significand of 128 bits, jammed -> round.rs -> F80, flags in Env
//! ```
//!
//! An operation finds [`Env::flags`] empty and leaves in it just its own exceptions, among them
//! [`Flags::ROUNDED_UP`]; the caller decides what an unmasked one of [`PRECOMPUTATION`] stops.

mod arith;
mod bcd;
mod compare;
mod convert;
mod parts;
mod rem;
mod round;
mod specials;
pub mod usual;

pub use arith::{add, div, mul, sqrt, sub};
pub use bcd::{BCD_INDEFINITE, from_bcd, to_bcd};
pub use compare::compare;
pub use convert::{from_format, from_int, round_to_integral, to_format, to_int};
pub use parts::{extract, scale};
pub use rem::{Quotient, Remainder, remainder};
pub(crate) use round::round_wide;
pub use specials::quiet_nan;
pub(crate) use specials::{divided_by_zero, invalid, unusable};

use super::env::{Env, Flags};

/// The exceptions found before anything is computed: unmasked, they leave the destination as it is.
pub const PRECOMPUTATION: Flags = Flags::INVALID.union(Flags::DENORMAL).union(Flags::DIV_BY_ZERO);

/// Exponent bias.
pub(crate) const BIAS: i32 = 0x3fff;
/// Exponent field of infinities and NaNs.
pub(super) const EXP_MAX: i32 = 0x7fff;
/// The explicit integer bit.
const INTEGER_BIT: u64 = 1 << 63;
/// The bit that tells quiet from signalling NaNs.
const QUIET: u64 = 1 << 62;

/// An encoding of 80 bits. On a little-endian host, the first ten bytes are those of x87.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(C)]
pub struct F80 {
    /// The significand with its explicit integer bit, bit 63.
    pub sig: u64,
    /// Sign in bit 15, biased exponent below.
    pub sign_exp: u16,
}

/// What FXAM tells of a value (Intel SDM volume 2, FXAM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Non-zero exponent without the integer bit: unnormal, pseudo-infinity, pseudo-NaN.
    Unsupported,
    /// Quiet or signalling NaN.
    Nan,
    /// A normal number.
    Normal,
    /// Infinity.
    Infinity,
    /// Zero.
    Zero,
    /// Denormal or pseudo-denormal.
    Denormal,
}

impl F80 {
    /// +0.
    pub const ZERO: Self = Self::new(false, 0, 0);
    /// +1.
    pub const ONE: Self = Self::new(false, BIAS, INTEGER_BIT);
    /// "QNaN floating-point indefinite", the answer to an invalid operation.
    pub const INDEFINITE: Self = Self::new(true, EXP_MAX, INTEGER_BIT | QUIET);

    /// The encoding with the given biased exponent, 0 to 0x7fff.
    #[inline(always)]
    pub(super) const fn new(negative: bool, exp: i32, sig: u64) -> Self {
        Self { sig, sign_exp: (negative as u16) << 15 | exp as u16 }
    }

    /// Infinity with the given sign.
    #[inline]
    pub const fn infinity(negative: bool) -> Self {
        Self::new(negative, EXP_MAX, INTEGER_BIT)
    }

    /// Zero with the given sign.
    #[inline]
    pub const fn zero(negative: bool) -> Self {
        Self::new(negative, 0, 0)
    }

    /// The encoding in memory: 10 bytes, little-endian.
    #[inline]
    pub fn from_bytes(bytes: [u8; 10]) -> Self {
        let [sig @ .., e0, e1] = bytes;
        Self { sig: u64::from_le_bytes(sig), sign_exp: u16::from_le_bytes([e0, e1]) }
    }

    /// As [`F80::from_bytes`] reads it.
    #[inline]
    pub fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.sig.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sign_exp.to_le_bytes());
        bytes
    }

    /// Whether the sign bit is set.
    #[inline(always)]
    pub const fn is_negative(self) -> bool {
        self.sign_exp >> 15 != 0
    }

    /// The value with its sign inverted, NaNs included.
    #[inline(always)]
    pub const fn negate(self) -> Self {
        Self { sign_exp: self.sign_exp ^ 0x8000, ..self }
    }

    /// The value with its sign cleared, NaNs included.
    #[inline(always)]
    pub const fn abs(self) -> Self {
        Self { sign_exp: self.sign_exp & 0x7fff, ..self }
    }

    /// The biased exponent field.
    #[inline(always)]
    pub(super) const fn exp(self) -> i32 {
        (self.sign_exp & 0x7fff) as i32
    }

    /// What kind of value this is.
    #[inline]
    pub const fn class(self) -> Class {
        match (self.exp(), self.sig) {
            (0, 0) => Class::Zero,
            (0, _) => Class::Denormal,
            (_, ..INTEGER_BIT) => Class::Unsupported,
            (EXP_MAX, INTEGER_BIT) => Class::Infinity,
            (EXP_MAX, _) => Class::Nan,
            _ => Class::Normal,
        }
    }

    #[inline(always)]
    pub(super) const fn is_normal(self) -> bool {
        (self.exp() as u32).wrapping_sub(1) < (EXP_MAX - 1) as u32 && self.sig >> 63 != 0
    }

    /// Whether this is a NaN that raises invalid.
    #[inline]
    pub const fn is_signalling(self) -> bool {
        matches!(self.class(), Class::Nan) && self.sig & QUIET == 0
    }

    /// Biased exponent and significand (bit 63 set) of a finite non-zero number of a supported encoding; a denormal's exponent
    /// is what its field would be if the range went on downwards.
    #[inline(always)]
    pub(crate) const fn normalized(self) -> (i32, u64) {
        let e = self.exp();
        if e != 0 {
            return (e, self.sig);
        }
        let shift = self.sig.leading_zeros();
        (1 - shift as i32, self.sig << (shift & 63))
    }
}
