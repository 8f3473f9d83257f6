//! Model-specific registers (SDM vol. 4, chapter 2).

use super::core::Core;
use super::fault::Stop;
use super::model::{Feature, Vendor, feature};
use super::state::{cr0, efer, sreg};

/// Numbers of MSRs.
mod num {
    pub(super) const PLATFORM_ID: u32 = 0x17;
    pub(super) const TSC: u32 = 0x10;
    pub(super) const APIC_BASE: u32 = 0x1b;
    pub(super) const FEATURE_CONTROL: u32 = 0x3a;
    pub(super) const TSC_ADJUST: u32 = 0x3b;
    pub(super) const SPEC_CTRL: u32 = 0x48;
    pub(super) const PRED_CMD: u32 = 0x49;
    pub(super) const UCODE_REV: u32 = 0x8b;
    pub(super) const ARCH_CAPABILITIES: u32 = 0x10a;
    pub(super) const MTRRCAP: u32 = 0xfe;
    pub(super) const SYSENTER_CS: u32 = 0x174;
    pub(super) const SYSENTER_ESP: u32 = 0x175;
    pub(super) const SYSENTER_EIP: u32 = 0x176;
    pub(super) const MCG_CAP: u32 = 0x179;
    pub(super) const MCG_STATUS: u32 = 0x17a;
    pub(super) const MISC_ENABLE: u32 = 0x1a0;
    pub(super) const DEBUGCTL: u32 = 0x1d9;
    pub(super) const MTRR_VAR: u32 = 0x200;
    pub(super) const MTRR_VAR_END: u32 = 0x20f;
    pub(super) const PAT: u32 = 0x277;
    pub(super) const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub(super) const TSC_DEADLINE: u32 = 0x6e0;
    pub(super) const PKRS: u32 = 0x6e1;
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
    pub(super) const PERF_EVT_SEL: u32 = 0xc001_0000;
    pub(super) const PERF_CTR_END: u32 = 0xc001_0007;
}

/// IA32_MISC_ENABLE (SDM vol. 4, table 2-2).
pub(super) mod misc_enable {
    /// Fast strings.
    const FAST_STRINGS: u64 = 1;
    /// Performance monitoring is there: read-only.
    const PERFORMANCE: u64 = 1 << 7;
    /// There is no branch trace store: read-only.
    const NO_BTS: u64 = 1 << 11;
    /// There is no event-based sampling: read-only.
    const NO_PEBS: u64 = 1 << 12;
    /// What software cannot change.
    pub(in crate::x86) const FIXED: u64 = PERFORMANCE | NO_BTS | NO_PEBS;
    /// After reset.
    pub(in crate::x86) const RESET: u64 = FAST_STRINGS | NO_BTS | NO_PEBS;
}

/// IA32_ARCH_CAPABILITIES (SDM vol. 4, table 2-2): nothing here is executed on speculation, so none of the faults
/// that come of it is there, and kernels need no detours around them. RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO,
/// MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
const ARCH_CAPABILITIES: u64 = 1 << 62
    | 1 << 27
    | 1 << 26
    | 1 << 24
    | 1 << 20
    | 7 << 13
    | 1 << 8
    | 1 << 6
    | 1 << 5
    | 1 << 4
    | 1 << 3
    | 1 << 1
    | 1;
/// IA32_SPEC_CTRL: IBRS. IA32_PRED_CMD: IBPB.
const IBRS: u64 = 1;
const IBPB: u64 = 1;

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

    /// The local APIC knows the machine's counter alone: the value of that for a deadline of the processor's own, zero for
    /// none.
    fn machine_deadline(&self, deadline: u64) -> u64 {
        if deadline == 0 {
            return 0;
        }
        // The offset has a sign; what lies before the machine's beginning is over.
        let machine = i128::from(deadline) - i128::from(self.cpu.msr.tsc_offset as i64);
        u64::try_from(machine.max(1)).unwrap_or(u64::MAX)
    }

    /// Moves the time-stamp counter. A deadline stays the same value of it, so that it comes sooner or later.
    fn set_tsc_offset(&mut self, offset: u64) {
        let hart = self.cpu.id as usize;
        let armed = self.bus.interrupt_msr(hart, num::TSC_DEADLINE).unwrap_or(0);
        let deadline = armed.wrapping_add(self.cpu.msr.tsc_offset);
        self.cpu.msr.tsc_offset = offset;
        if armed != 0 {
            let machine = self.machine_deadline(deadline);
            let _armed = self.bus.set_interrupt_msr(hart, num::TSC_DEADLINE, machine);
            self.poll = true;
        }
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
            num::TSC_ADJUST if self.has(feature::TSC_ADJUST) => state.tsc_offset,
            num::PLATFORM_ID | num::UCODE_REV => 0,
            // Locked, with nothing in it.
            num::FEATURE_CONTROL => 1,
            num::ARCH_CAPABILITIES if self.has(feature::ARCH_CAPABILITIES) => ARCH_CAPABILITIES,
            num::SPEC_CTRL if self.has(feature::SPEC_CTRL) => state.spec_ctrl,
            num::MTRRCAP if self.has(feature::MTRR) => 0x508,
            num::SYSENTER_CS => state.sysenter_cs,
            num::SYSENTER_ESP => state.sysenter_esp,
            num::SYSENTER_EIP => state.sysenter_eip,
            // No bank reports anything, so nothing has ever happened.
            num::MCG_CAP | num::MCG_STATUS if self.has(feature::MCA) => 0,
            // AMD's four counters, of no events.
            num::PERF_EVT_SEL..=num::PERF_CTR_END if self.cpu.model.vendor == Vendor::Amd => 0,
            num::MISC_ENABLE => state.misc_enable,
            num::DEBUGCTL => state.debugctl,
            num::MTRR_VAR..=num::MTRR_VAR_END => state.mtrr_var[(msr - num::MTRR_VAR) as usize],
            num::PAT => state.pat,
            num::PKRS if self.has(feature::PKS) => state.pkrs.into(),
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
            num::TSC_DEADLINE => match self.bus.interrupt_msr(self.cpu.id as usize, msr) {
                Ok(0) => 0,
                Ok(deadline) => deadline.wrapping_add(state.tsc_offset),
                Err(_) => return Err(self.no_msr(msr)),
            },
            num::APIC_BASE | num::X2APIC..=num::X2APIC_END => {
                match self.bus.interrupt_msr(self.cpu.id as usize, msr) {
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
        if self.is_canonical_base(value) { Ok(value) } else { Err(self.gp(0)) }
    }

    /// WRMSR.
    ///
    /// # Errors
    /// #GP(0) if there is no such register, or not that value.
    pub fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), Stop> {
        match msr {
            num::TSC => {
                let change = value.wrapping_sub(self.tsc());
                self.set_tsc_offset(self.cpu.msr.tsc_offset.wrapping_add(change));
            }
            num::TSC_ADJUST if self.has(feature::TSC_ADJUST) => self.set_tsc_offset(value),
            // A microcode update is not needed and succeeds.
            num::UCODE_REV => {}
            num::SPEC_CTRL if self.has(feature::SPEC_CTRL) && value & !IBRS == 0 => {
                self.cpu.msr.spec_ctrl = value;
            }
            // There are no predictions to forget.
            num::PRED_CMD if self.has(feature::SPEC_CTRL) && value & !IBPB == 0 => {}
            num::SYSENTER_CS => self.cpu.msr.sysenter_cs = value & 0xffff_ffff,
            num::SYSENTER_ESP => self.cpu.msr.sysenter_esp = self.canonical(value)?,
            num::SYSENTER_EIP => self.cpu.msr.sysenter_eip = self.canonical(value)?,
            num::MCG_STATUS if self.has(feature::MCA) && value == 0 => {}
            num::PERF_EVT_SEL..=num::PERF_CTR_END
                if self.cpu.model.vendor == Vendor::Amd && value == 0 => {}
            num::MISC_ENABLE => {
                let fixed = misc_enable::FIXED;
                let old = self.cpu.msr.misc_enable;
                self.cpu.msr.misc_enable = value & !fixed | old & fixed;
            }
            num::DEBUGCTL => self.cpu.msr.debugctl = value & 3,
            num::MTRR_VAR..=num::MTRR_VAR_END => {
                // A base with its type, or a mask with a valid bit (SDM vol. 3, 13.11.2.3).
                let reserved = if msr & 1 == 0 { 0xf00 } else { 0x7ff };
                let known = msr & 1 != 0 || is_memory_type(value as u8, false);
                if !known || value & reserved != 0 || value >> self.cpu.model.phys_bits() != 0 {
                    return Err(self.gp(0));
                }
                self.cpu.msr.mtrr_var[(msr - num::MTRR_VAR) as usize] = value;
            }
            num::PAT => {
                if !value.to_le_bytes().iter().all(|kind| is_memory_type(*kind, true)) {
                    return Err(self.gp(0));
                }
                self.cpu.msr.pat = value;
            }
            num::PKRS if self.has(feature::PKS) && value >> 32 == 0 => {
                self.cpu.msr.pkrs = value as u32;
                self.keys_changed();
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
            num::TSC_DEADLINE => {
                let value = self.machine_deadline(value);
                if self.bus.set_interrupt_msr(self.cpu.id as usize, msr, value).is_err() {
                    return Err(self.no_msr(msr));
                }
                self.poll = true;
            }
            num::APIC_BASE | num::X2APIC..=num::X2APIC_END => {
                let hart = self.cpu.id as usize;
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
