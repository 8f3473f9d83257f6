//! Whether x87, MMX, SSE and AVX may be used (SDM vol. 3, 2.5, 13.1; vol. 2, 2.4 and tables 2-20 to 2-27).

use crate::x86::core::Core;
use crate::x86::fault::{Fault, Stop, vector};
use crate::x86::simd::Exceptions;
use crate::x86::state::{cr0, cr4, xcr0};

/// What an instruction needs, as bits of `Core::units`.
pub(super) mod unit {
    /// x87: CR0.EM and CR0.TS are clear.
    pub(in crate::x86::insn) const X87: u8 = 1;
    /// MMX: the same, and no x87 exception is pending.
    pub(in crate::x86::insn) const MMX: u8 = 1 << 1;
    /// SSE: CR0.EM and CR0.TS are clear, CR4.OSFXSR is set.
    pub(in crate::x86::insn) const SSE: u8 = 1 << 2;
    /// AVX: CR0.TS is clear, CR4.OSXSAVE and XCR0's bits are set, in protected mode.
    pub(in crate::x86::insn) const AVX: u8 = 1 << 3;
}

impl Core {
    /// Follows a change of what [`Core::units`] depends on.
    pub fn units_changed(&mut self) {
        let (cr0, cr4) = (self.cpu.cr0, self.cpu.cr4);
        let mut units = 0;
        if cr0 & cr0::TS == 0 {
            if cr0 & cr0::EM == 0 {
                units |= unit::X87 | unit::MMX;
                if cr4 & cr4::OSFXSR != 0 {
                    units |= unit::SSE;
                }
            }
            if self.avx_enabled() {
                units |= unit::AVX;
            }
        }
        self.units = units;
    }

    fn avx_enabled(&self) -> bool {
        const STATE: u64 = xcr0::SSE | xcr0::AVX;
        self.cpu.cr4 & cr4::OSXSAVE != 0 && self.cpu.xcr0 & STATE == STATE && !self.paragraphs()
    }

    /// #UD, #NM or #MF unless all of some [`unit`]s may be used.
    #[inline(always)]
    pub(super) fn need(&mut self, units: u8) -> Result<(), Stop> {
        let pending = units & unit::MMX != 0 && self.cpu.x87.pending();
        if self.units & units == units && !pending { Ok(()) } else { self.refuse(units) }
    }

    #[cold]
    fn refuse(&mut self, units: u8) -> Result<(), Stop> {
        let (emulated, switched) = (self.cpu.cr0 & cr0::EM != 0, self.cpu.cr0 & cr0::TS != 0);
        let undefined = units & (unit::MMX | unit::SSE) != 0 && emulated
            || units & unit::SSE != 0 && self.cpu.cr4 & cr4::OSFXSR == 0
            || units & unit::AVX != 0 && !self.avx_enabled();
        if undefined {
            Err(self.ud())
        } else if switched || units & unit::X87 != 0 && emulated {
            Err(self.raise(Fault::new(vector::NM)))
        } else if units & unit::MMX != 0 {
            self.no_pending()
        } else {
            Ok(())
        }
    }

    /// #MF if an x87 exception is pending. Without CR0.NE the exception is reported to an external interrupt controller
    /// instead; there is none, as if IGNNE# were asserted: execution goes on (SDM vol. 3, 2.5, "CR0.NE").
    #[inline(always)]
    pub(super) fn no_pending(&mut self) -> Result<(), Stop> {
        if self.cpu.x87.pending() && self.cpu.cr0 & cr0::NE != 0 {
            return Err(self.raise(Fault::new(vector::MF)));
        }
        Ok(())
    }

    /// Records what a vector operation raised. #XM for what is not masked, #UD if CR4.OSXMMEXCPT is clear.
    #[inline(always)]
    pub(super) fn accrue(&mut self, raised: Exceptions) -> Result<(), Stop> {
        if self.cpu.mxcsr.accrue(raised) { Err(self.unmasked()) } else { Ok(()) }
    }

    #[cold]
    fn unmasked(&mut self) -> Stop {
        if self.cpu.cr4 & cr4::OSXMMEXCPT != 0 {
            self.raise(Fault::new(vector::XM))
        } else {
            self.ud()
        }
    }
}
