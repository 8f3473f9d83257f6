//! The environment of an operation: rounding direction, the choices IEEE 754 leaves to the ISA, accrued exceptions.

use bitflags::bitflags;

bitflags! {
    /// Accrued exceptions, in the bit positions of RISC-V's `fflags` (RISC-V ISA manual volume I, "F" extension,
    /// "Accrued exception flag encoding").
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u8 {
        /// NX: the rounded result differs from the exact one.
        const INEXACT = 1 << 0;
        /// UF: the result is tiny (see [`Tininess`]) and inexact.
        const UNDERFLOW = 1 << 1;
        /// OF: the result exceeds the largest finite number of the format.
        const OVERFLOW = 1 << 2;
        /// DZ: a finite non-zero number was divided by zero.
        const DIV_BY_ZERO = 1 << 3;
        /// NV: no usefully definable result, or a signalling NaN operand.
        const INVALID = 1 << 4;
    }
}

/// Rounding direction (IEEE 754-2019, 4.3). The discriminants are RISC-V's `frm` encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Rounding {
    /// RNE: to nearest, ties to even.
    #[default]
    NearestEven = 0,
    /// RTZ: towards zero.
    TowardZero = 1,
    /// RDN: towards negative infinity.
    Down = 2,
    /// RUP: towards positive infinity.
    Up = 3,
    /// RMM: to nearest, ties away from zero (to the larger magnitude).
    NearestMaxMagnitude = 4,
}

impl Rounding {
    /// Decodes RISC-V's `frm` encoding, 0 to 4; `None` for the reserved values and 7 (dynamic).
    #[inline]
    pub const fn from_frm(frm: u8) -> Option<Self> {
        match frm {
            0 => Some(Self::NearestEven),
            1 => Some(Self::TowardZero),
            2 => Some(Self::Down),
            3 => Some(Self::Up),
            4 => Some(Self::NearestMaxMagnitude),
            _ => None,
        }
    }
}

/// When a non-zero result counts as tiny (IEEE 754-2019, 7.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tininess {
    /// When the result, rounded as though the exponent range were unbounded, lies below the smallest normal number
    /// (RISC-V, x86).
    #[default]
    AfterRounding,
    /// When the exact result lies below the smallest normal number (Arm).
    BeforeRounding,
}

/// Which NaN an operation returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NanRule {
    /// Always the canonical quiet NaN, positive with an otherwise empty payload; `fma(inf, 0, qNaN)` is invalid
    /// (RISC-V ISA manual volume I, "NaN generation and propagation").
    #[default]
    Canonical,
    /// The first NaN operand, quieted (for FMA in the order of `x * y + z`); where no operand is a NaN the negative "QNaN
    /// floating-point indefinite"; `fma(inf, 0, qNaN)` is quiet (x86 SSE: Intel SDM volume 1, table 4-7, 4.8.3.7,
    /// 14.5.2).
    PropagateFirst,
}

/// What an invalid conversion to integer returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InvalidInt {
    /// The nearest representable integer; for a NaN the largest (RISC-V ISA manual volume I, "Domains of float-to-integer
    /// conversions").
    #[default]
    Saturate,
    /// "Integer indefinite": the most negative signed integer, the largest unsigned one (Intel SDM volume 1,
    /// table 11-1; volume 2, VCVTSD2USI).
    Indefinite,
}

/// Everything an operation depends on beside its operands, and the flags it accrues.
///
/// [`Env::default`] is RISC-V's environment with round-to-nearest-even and no flag set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Env {
    /// Rounding direction.
    pub rounding: Rounding,
    /// Accrued exceptions; operations set flags and never clear one.
    pub flags: Flags,
    /// When a result counts as tiny.
    pub tininess: Tininess,
    /// Which NaN is returned.
    pub nan: NanRule,
    /// What an invalid conversion to integer returns.
    pub invalid_int: InvalidInt,
    /// Denormals are zeros: a subnormal operand counts as the zero of its sign (MXCSR.DAZ; Intel SDM volume 1, 10.2.3.4).
    /// Half precision is exempt, as F16C's conversions are.
    pub daz: bool,
    /// Flush to zero: a tiny result becomes the zero of its sign, with underflow and inexact (MXCSR.FTZ; Intel SDM
    /// volume 1, 10.2.3.3). Half precision is exempt.
    pub ftz: bool,
}

impl Env {
    /// RISC-V's environment with the given rounding direction and no flag set.
    #[inline]
    pub const fn riscv(rounding: Rounding) -> Self {
        Self {
            rounding,
            flags: Flags::empty(),
            tininess: Tininess::AfterRounding,
            nan: NanRule::Canonical,
            invalid_int: InvalidInt::Saturate,
            daz: false,
            ftz: false,
        }
    }

    /// Accrues `flags`.
    #[inline]
    pub fn raise(&mut self, flags: Flags) {
        self.flags = self.flags.union(flags);
    }
}
