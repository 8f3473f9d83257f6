//! MXCSR (Intel SDM volume 1, 10.2.3) and the SIMD floating-point exceptions it masks and records (11.5).

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::softfloat::Rounding;

bitflags! {
    /// SIMD floating-point exceptions, at the places of MXCSR's flags.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Exceptions: u8 {
        /// Invalid operation.
        const IE = 1 << 0;
        /// Denormal operand.
        const DE = 1 << 1;
        /// Division by zero.
        const ZE = 1 << 2;
        /// Overflow.
        const OE = 1 << 3;
        /// Underflow.
        const UE = 1 << 4;
        /// Precision: an inexact result.
        const PE = 1 << 5;
    }
}

impl Exceptions {
    /// The exceptions found before anything is computed (SDM volume 1, 11.5.2).
    pub(super) const BEFORE: Self = Self::IE.union(Self::DE).union(Self::ZE);
}

/// The control and status register of SSE and AVX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mxcsr(u32);

impl Default for Mxcsr {
    fn default() -> Self {
        Self(Self::RESET)
    }
}

impl Mxcsr {
    /// The value after power-up and reset: every exception masked.
    pub const RESET: u32 = 0x1f80;
    /// MXCSR_MASK, the bits that can be set; loading another is #GP.
    pub const MASK: u32 = 0xffff;
    /// DAZ: denormals are zeros.
    pub const DAZ: u32 = 1 << 6;
    /// FTZ: flush to zero.
    pub const FTZ: u32 = 1 << 15;
    /// The lowest of the six mask bits.
    const MASK_SHIFT: u32 = 7;
    /// The lowest bit of RC.
    const ROUNDING_SHIFT: u32 = 13;
    const ROUNDING: u32 = 3 << Self::ROUNDING_SHIFT;

    /// The register with the given bits; `None` when a reserved one is set (#GP of LDMXCSR, FXRSTOR, XRSTOR).
    #[inline]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits & !Self::MASK == 0 { Some(Self(bits)) } else { None }
    }

    /// All bits.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The recorded exceptions.
    #[inline]
    pub const fn flags(self) -> Exceptions {
        Exceptions::from_bits_truncate(self.0 as u8)
    }

    /// The masked exceptions.
    #[inline]
    pub const fn masks(self) -> Exceptions {
        Exceptions::from_bits_truncate((self.0 >> Self::MASK_SHIFT) as u8)
    }

    /// Whether denormal operands count as zeros.
    #[inline]
    pub const fn daz(self) -> bool {
        self.0 & Self::DAZ != 0
    }

    /// Whether tiny results become zeros: FTZ, which an unmasked underflow overrides (SDM volume 1, 10.2.3.3).
    #[inline]
    pub const fn ftz(self) -> bool {
        self.0 & Self::FTZ != 0 && self.masks().contains(Exceptions::UE)
    }

    /// RC: the rounding direction.
    #[inline]
    pub const fn rounding(self) -> Rounding {
        Rounding::from_rc(self.0 >> Self::ROUNDING_SHIFT)
    }

    /// Whether results are rounded to nearest and an inexact one traps not.
    #[inline]
    pub(super) const fn is_usual(self) -> bool {
        self.0 & Self::ROUNDING == 0 && self.masks().contains(Exceptions::PE)
    }

    /// Whether one of `raised` is unmasked.
    #[inline]
    pub const fn unmasked(self, raised: Exceptions) -> bool {
        !raised.difference(self.masks()).is_empty()
    }

    /// Records what an instruction raised. `true` when an unmasked exception is among it: #XM is due (#UD if
    /// CR4.OSXMMEXCPT is clear) and the instruction's result must not be written.
    #[inline]
    #[must_use]
    pub const fn accrue(&mut self, raised: Exceptions) -> bool {
        self.0 |= raised.bits() as u32;
        self.unmasked(raised)
    }
}
