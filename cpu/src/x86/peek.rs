//! What a debugger sees of a processor that stands still.

use crate::bus::{CpuBus, Width};

use super::state::{Cpu, cr0, cr4, efer, rights, sreg};

impl Cpu {
    /// Whether code runs in 64-bit mode.
    #[must_use]
    pub fn runs_64_bit_code(&self) -> bool {
        self.efer & efer::LMA != 0 && self.seg[usize::from(sreg::CS)].has(rights::L)
    }

    /// Linear address of offset zero of CS.
    #[must_use]
    pub fn code_base(&self) -> u64 {
        if self.runs_64_bit_code() { 0 } else { self.seg[usize::from(sreg::CS)].base }
    }

    /// Linear address of the next instruction.
    #[must_use]
    pub fn linear_rip(&self) -> u64 {
        let linear = self.code_base().wrapping_add(self.rip);
        if self.runs_64_bit_code() { linear } else { linear & 0xffff_ffff }
    }

    /// Where `lin` leads as the page tables are now (SDM vol. 3, chapter 5), whatever the rights, and without a trace.
    #[must_use]
    pub fn peek(&self, bus: &dyn CpuBus, lin: u64) -> Option<u64> {
        const P: u64 = 1;
        const PS: u64 = 1 << 7;
        const ADDRESS: u64 = (1 << 52) - (1 << 12);
        let long = self.efer & efer::LMA != 0;
        let lin = if long { lin } else { lin & 0xffff_ffff };
        if self.cr0 & cr0::PG == 0 {
            return Some(lin);
        }
        let load = |at: u64, width| Some(bus.ram_page(at)?.host.load(at, width));
        if self.cr4 & cr4::PAE == 0 {
            let pde = load((self.cr3 & 0xffff_f000) + (lin >> 22 & 0x3ff) * 4, Width::Word)?;
            if pde & P == 0 {
                return None;
            }
            if pde & PS != 0 && self.cr4 & cr4::PSE != 0 {
                return Some(pde & 0xffc0_0000 | (pde >> 13 & 0xff) << 32 | lin & 0x3f_ffff);
            }
            let pte = load((pde & 0xffff_f000) + (lin >> 12 & 0x3ff) * 4, Width::Word)?;
            return (pte & P != 0).then_some(pte & 0xffff_f000 | lin & 0xfff);
        }
        let (levels, mut table) = match (long, self.cr4 & cr4::LA57 != 0) {
            (true, true) => (5, self.cr3),
            (true, false) => (4, self.cr3),
            (false, _) => (2, self.pdpte[(lin >> 30 & 3) as usize]),
        };
        let unused = 64 - (12 + 9 * levels);
        let canonical = ((lin << unused) as i64 >> unused) as u64 == lin;
        if long && !canonical || !long && table & P == 0 {
            return None;
        }
        for level in (0..levels).rev() {
            let shift = 12 + 9 * level;
            let entry = load((table & ADDRESS) + (lin >> shift & 0x1ff) * 8, Width::Double)?;
            if entry & P == 0 {
                return None;
            }
            if level == 0 || entry & PS != 0 {
                let span = 1u64 << shift;
                return Some(entry & ADDRESS & !(span - 1) | lin & (span - 1));
            }
            table = entry;
        }
        None
    }
}
