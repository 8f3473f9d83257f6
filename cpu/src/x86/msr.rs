//! Model-specific registers (SDM vol. 4, chapter 2).

use super::core::Core;
use super::fault::Stop;
use super::model::{Feature, feature};
use super::state::{cr0, efer, sreg};

/// Numbers of MSRs.
mod num {
    pub(super) const PLATFORM_ID: u32 = 0x17;
    pub(super) const TSC: u32 = 0x10;
    pub(super) const APIC_BASE: u32 = 0x1b;
    pub(super) const FEATURE_CONTROL: u32 = 0x3a;
    pub(super) const TSC_ADJUST: u32 = 0x3b;
    pub(super) const UCODE_REV: u32 = 0x8b;
    pub(super) const MTRRCAP: u32 = 0xfe;
    pub(super) const SYSENTER_CS: u32 = 0x174;
    pub(super) const SYSENTER_ESP: u32 = 0x175;
    pub(super) const SYSENTER_EIP: u32 = 0x176;
    pub(super) const MISC_ENABLE: u32 = 0x1a0;
    pub(super) const DEBUGCTL: u32 = 0x1d9;
    pub(super) const MTRR_VAR: u32 = 0x200;
    pub(super) const MTRR_VAR_END: u32 = 0x20f;
    pub(super) const PAT: u32 = 0x277;
    pub(super) const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub(super) const TSC_DEADLINE: u32 = 0x6e0;
    pub(super) const X2APIC: u32 = 0x800;
    pub(super) const X2APIC_END: u32 = 0x8ff;
    pub(super) const EFER: u32 = 0xc000_0080;
    pub(super) const STAR: u32 = 0xc000_0081;
    pub(super) const LSTAR: u32 = 0xc000_0082;
    pub(super) const CSTAR: u32 = 0xc000_0083;
    pub(super) const FMASK: u32 = 0xc000_0084;
    pub(super) const FS_BASE: u32 = 0xc000_0100;
    pub(super) const GS_BASE: u32 = 0xc000_0101;
    pub(super) const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub(super) const TSC_AUX: u32 = 0xc000_0103;
}

/// The index of a fixed-range MTRR.
fn fixed_mtrr(msr: u32) -> Option<usize> {
    match msr {
        0x250 => Some(0),
        0x258 => Some(1),
        0x259 => Some(2),
        0x268..=0x26f => Some(msr as usize - 0x268 + 3),
        _ => None,
    }
}

/// Whether a memory type of the PAT or an MTRR exists (SDM vol. 3, tables 13-2 and 13-10).
fn is_memory_type(kind: u8, in_pat: bool) -> bool {
    matches!(kind, 0 | 1 | 4 | 5 | 6) || in_pat && kind == 7
}

impl Core {
    /// The time-stamp counter.
    #[must_use]
    pub fn tsc(&self) -> u64 {
        let ticks = u128::from(self.bus.now()) * u128::from(self.cpu.model.tsc_hz) / 1_000_000_000;
        (ticks as u64).wrapping_add(self.cpu.msr.tsc_offset)
    }

    fn has(&self, feature: Feature) -> bool {
        self.cpu.model.has(feature)
    }

    /// RDMSR.
    ///
    /// # Errors
    /// #GP(0) if there is no such register.
    pub fn read_msr(&mut self, msr: u32) -> Result<u64, Stop> {
        let state = &self.cpu.msr;
        Ok(match msr {
            num::TSC => self.tsc(),
            num::TSC_ADJUST => state.tsc_offset,
            num::PLATFORM_ID | num::UCODE_REV => 0,
            // Locked, with nothing in it.
            num::FEATURE_CONTROL => 1,
            num::MTRRCAP if self.has(feature::MTRR) => 0x508,
            num::SYSENTER_CS => state.sysenter_cs,
            num::SYSENTER_ESP => state.sysenter_esp,
            num::SYSENTER_EIP => state.sysenter_eip,
            num::MISC_ENABLE => state.misc_enable,
            num::DEBUGCTL => state.debugctl,
            num::MTRR_VAR..=num::MTRR_VAR_END => state.mtrr_var[(msr - num::MTRR_VAR) as usize],
            num::PAT => state.pat,
            num::MTRR_DEF_TYPE => state.mtrr_def_type,
            num::EFER => self.cpu.efer,
            num::STAR => state.star,
            num::LSTAR => state.lstar,
            num::CSTAR => state.cstar,
            num::FMASK => state.sfmask,
            num::FS_BASE => self.segment(sreg::FS).base,
            num::GS_BASE => self.segment(sreg::GS).base,
            num::KERNEL_GS_BASE => state.kernel_gs_base,
            num::TSC_AUX => state.tsc_aux,
            num::APIC_BASE | num::TSC_DEADLINE | num::X2APIC..=num::X2APIC_END => {
                match self.bus.interrupt_msr(self.cpu.id as usize, msr) {
                    // The machine's counter is what the local APIC compares with; zero is no deadline.
                    Ok(value) if msr == num::TSC_DEADLINE && value != 0 => {
                        value.wrapping_add(state.tsc_offset)
                    }
                    Ok(value) => value,
                    Err(_) => return Err(self.no_msr(msr)),
                }
            }
            _ => match fixed_mtrr(msr) {
                Some(index) => state.mtrr_fixed[index],
                None => return Err(self.no_msr(msr)),
            },
        })
    }

    #[cold]
    fn no_msr(&mut self, msr: u32) -> Stop {
        log::debug!("no such MSR: {msr:#x}");
        self.gp(0)
    }

    /// #GP(0) unless `value` is a canonical address.
    fn canonical(&mut self, value: u64) -> Result<u64, Stop> {
        if self.is_canonical(value) { Ok(value) } else { Err(self.gp(0)) }
    }

    /// WRMSR.
    ///
    /// # Errors
    /// #GP(0) if there is no such register, or not that value.
    pub fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), Stop> {
        match msr {
            num::TSC => {
                let now = self.tsc();
                let offset = &mut self.cpu.msr.tsc_offset;
                *offset = offset.wrapping_add(value.wrapping_sub(now));
            }
            num::TSC_ADJUST => self.cpu.msr.tsc_offset = value,
            // A microcode update is not needed and succeeds.
            num::UCODE_REV => {}
            num::SYSENTER_CS => self.cpu.msr.sysenter_cs = value & 0xffff_ffff,
            num::SYSENTER_ESP => self.cpu.msr.sysenter_esp = self.canonical(value)?,
            num::SYSENTER_EIP => self.cpu.msr.sysenter_eip = self.canonical(value)?,
            num::MISC_ENABLE => self.cpu.msr.misc_enable = value,
            num::DEBUGCTL => self.cpu.msr.debugctl = value & 3,
            num::MTRR_VAR..=num::MTRR_VAR_END => {
                self.cpu.msr.mtrr_var[(msr - num::MTRR_VAR) as usize] = value;
            }
            num::PAT => {
                if !value.to_le_bytes().iter().all(|kind| is_memory_type(*kind, true)) {
                    return Err(self.gp(0));
                }
                self.cpu.msr.pat = value;
            }
            num::MTRR_DEF_TYPE => {
                if value & !0xcff != 0 || !is_memory_type(value as u8, false) {
                    return Err(self.gp(0));
                }
                self.cpu.msr.mtrr_def_type = value;
            }
            num::EFER => return self.write_efer(value),
            num::STAR => self.cpu.msr.star = value,
            num::LSTAR => self.cpu.msr.lstar = self.canonical(value)?,
            num::CSTAR => self.cpu.msr.cstar = self.canonical(value)?,
            num::FMASK => self.cpu.msr.sfmask = value & 0xffff_ffff,
            num::FS_BASE => {
                let base = self.canonical(value)?;
                self.set_base(sreg::FS, base);
            }
            num::GS_BASE => {
                let base = self.canonical(value)?;
                self.set_base(sreg::GS, base);
            }
            num::KERNEL_GS_BASE => self.cpu.msr.kernel_gs_base = self.canonical(value)?,
            num::TSC_AUX if value >> 32 == 0 => self.cpu.msr.tsc_aux = value,
            num::APIC_BASE | num::TSC_DEADLINE | num::X2APIC..=num::X2APIC_END => {
                let hart = self.cpu.id as usize;
                let deadline = msr == num::TSC_DEADLINE && value != 0;
                let moved = if deadline { self.cpu.msr.tsc_offset } else { 0 };
                // A deadline of zero is none.
                let value = value.wrapping_sub(moved).max(deadline.into());
                if self.bus.set_interrupt_msr(hart, msr, value).is_err() {
                    return Err(self.no_msr(msr));
                }
                self.poll = true;
            }
            _ => match fixed_mtrr(msr) {
                Some(index) => {
                    if !value.to_le_bytes().iter().all(|kind| is_memory_type(*kind, false)) {
                        return Err(self.gp(0));
                    }
                    self.cpu.msr.mtrr_fixed[index] = value;
                }
                None => return Err(self.no_msr(msr)),
            },
        }
        Ok(())
    }

    /// Sets the base of FS or GS.
    pub fn set_base(&mut self, number: u8, base: u64) {
        self.cpu.seg[usize::from(number % 6)].base = base;
        self.prepare_segment(number);
    }

    fn write_efer(&mut self, value: u64) -> Result<(), Stop> {
        let mut known = efer::SCE | efer::LME | efer::LMA;
        if self.has(feature::NX) {
            known |= efer::NXE;
        }
        // LME cannot change while paging is on.
        let changed = value ^ self.cpu.efer;
        if value & !known != 0 || changed & efer::LME != 0 && self.cpu.cr0 & cr0::PG != 0 {
            return Err(self.gp(0));
        }
        // LMA is read-only.
        self.cpu.efer = value & !efer::LMA | self.cpu.efer & efer::LMA;
        if changed & efer::NXE != 0 {
            self.flush_tlb();
        }
        Ok(())
    }
}
