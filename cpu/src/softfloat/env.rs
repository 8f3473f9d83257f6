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
        /// x86's denormal-operand exception. Only the operations on [`F80`](super::F80) raise it.
        const DENORMAL = 1 << 5;
        /// No exception: the last rounding went away from zero, which x87 tells in C1. Only the operations on
        /// [`F80`](super::F80) raise it.
        const ROUNDED_UP = 1 << 6;
    }
}

impl Flags {
    /// The exceptions as x86 has them in MXCSR and in x87's status word: IE, DE, ZE, OE, UE, PE from bit 0 up (Intel SDM
    /// volume 1, 8.1.3 and 10.2.3).
    #[inline]
    pub const fn to_x86(self) -> u8 {
        let b = self.bits();
        b >> 4 & 0x03 | b >> 1 & 0x04 | b << 1 & 0x08 | b << 3 & 0x10 | b << 5 & 0x20
    }

    /// The exceptions of x86's order (see [`Flags::to_x86`]); bits 6 and 7 are ignored.
    #[inline]
    pub const fn from_x86(b: u8) -> Self {
        Self::from_bits_truncate(
            b << 4 & 0x30 | b << 1 & 0x08 | b >> 1 & 0x04 | b >> 3 & 0x02 | b >> 5 & 0x01,
        )
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

    /// Decodes the rounding-control field of MXCSR and of x87's control word (Intel SDM volume 1, table 4-8) from the low two
    /// bits.
    #[inline]
    pub const fn from_rc(rc: u32) -> Self {
        match rc & 3 {
            0 => Self::NearestEven,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::TowardZero,
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

/// x87's precision control: to how many bits the significand of an 80-bit result is rounded (Intel SDM volume 1, 8.1.5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 24 bits.
    Single,
    /// 53 bits.
    Double,
    /// 64 bits.
    #[default]
    Extended,
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
    /// Exceptions whose handler is enabled. An unmasked underflow is raised for tiny results that are exact, too (IEEE
    /// 754-2019, 7.5), and unmasked over- and underflow are inexact only if the significand is; over- and underflow of [`F80`](super::F80) then yield a result with its exponent adjusted (Intel SDM
    /// volume 1, 8.5.4 and 8.5.5). RISC-V has no such handlers.
    pub unmasked: Flags,
    /// What results of [`F80`](super::F80) are rounded to.
    pub precision: Precision,
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
            unmasked: Flags::empty(),
            precision: Precision::Extended,
        }
    }

    /// x86's environment with everything masked, no flag set, DAZ and FTZ off, 64 bits of precision.
    #[inline]
    pub const fn x86(rounding: Rounding) -> Self {
        Self {
            nan: NanRule::PropagateFirst,
            invalid_int: InvalidInt::Indefinite,
            ..Self::riscv(rounding)
        }
    }

    /// Whether any of the exceptions has its handler enabled.
    #[inline]
    pub const fn traps(&self, flags: Flags) -> bool {
        self.unmasked.intersects(flags)
    }

    /// Accrues `flags`.
    #[inline]
    pub fn raise(&mut self, flags: Flags) {
        self.flags = self.flags.union(flags);
    }
}
