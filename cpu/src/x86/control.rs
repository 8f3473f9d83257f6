//! Control registers, and entering and leaving IA-32e mode with them (SDM vol. 3, 2.5 and 10.8.5; vol. 2, "MOV to
//! control registers").

use super::core::Core;
use super::fault::Stop;
use super::model::feature;
use super::state::{cr0, cr4, efer, rights, sreg};

impl Core {
    /// Reads a control register.
    ///
    /// # Errors
    /// #UD if there is no such register.
    pub fn read_cr(&mut self, number: u8) -> Result<u64, Stop> {
        Ok(match number {
            0 => self.cpu.cr0,
            2 => self.cpu.cr2,
            3 => self.cpu.cr3,
            4 => self.cpu.cr4,
            8 => u64::from(self.bus.task_priority(self.cpu.id as usize)),
            _ => return Err(self.ud()),
        })
    }

    /// Writes a control register.
    ///
    /// # Errors
    /// #UD if there is no such register, #GP(0) if not that value.
    pub fn write_cr(&mut self, number: u8, value: u64) -> Result<(), Stop> {
        match number {
            0 => self.write_cr0(value),
            2 => {
                self.cpu.cr2 = value;
                Ok(())
            }
            3 => self.write_cr3(value),
            4 => self.write_cr4(value),
            8 => {
                if value > 15 {
                    return Err(self.gp(0));
                }
                self.bus.set_task_priority(self.cpu.id as usize, value as u8);
                self.poll = true;
                Ok(())
            }
            _ => Err(self.ud()),
        }
    }

    /// Writes CR0.
    ///
    /// # Errors
    /// #GP(0).
    pub fn write_cr0(&mut self, value: u64) -> Result<(), Stop> {
        const KNOWN: u64 = cr0::PE
            | cr0::MP
            | cr0::EM
            | cr0::TS
            | cr0::ET
            | cr0::NE
            | cr0::WP
            | cr0::AM
            | cr0::NW
            | cr0::CD
            | cr0::PG;
        let old = self.cpu.cr0;
        if value >> 32 != 0
            || value & cr0::PG != 0 && value & cr0::PE == 0
            || value & cr0::NW != 0 && value & cr0::CD == 0
        {
            return Err(self.gp(0));
        }
        let new = value & KNOWN | cr0::ET;
        let changed = old ^ new;
        let mut lma = self.cpu.efer & efer::LMA;
        if changed & cr0::PG != 0 {
            if new & cr0::PG != 0 {
                if self.cpu.efer & efer::LME != 0 {
                    if self.cpu.cr4 & cr4::PAE == 0 || self.segment(sreg::CS).has(rights::L) {
                        return Err(self.gp(0));
                    }
                    lma = efer::LMA;
                } else if self.cpu.cr4 & cr4::PAE != 0 {
                    self.load_pdptes(self.cpu.cr3)?;
                }
            } else {
                if self.mode64() || self.cpu.cr4 & cr4::PCIDE != 0 {
                    return Err(self.gp(0));
                }
                lma = 0;
            }
        }
        self.cpu.cr0 = new;
        self.cpu.efer = self.cpu.efer & !efer::LMA | lma;
        if changed & (cr0::PG | cr0::PE) != 0 {
            self.flush_tlb();
        }
        self.stale_code = true;
        self.mode_changed();
        Ok(())
    }

    pub(super) fn write_cr3(&mut self, value: u64) -> Result<(), Stop> {
        let pcide = self.cpu.cr4 & cr4::PCIDE != 0;
        let keep = pcide && value >> 63 != 0;
        let value = if pcide { value & !(1 << 63) } else { value };
        if self.long_mode() {
            if value >> self.cpu.model.phys_bits() != 0 {
                return Err(self.gp(0));
            }
        } else if self.cpu.cr4 & cr4::PAE != 0 && self.cpu.cr0 & cr0::PG != 0 {
            self.load_pdptes(value)?;
        }
        self.cpu.cr3 = value;
        if keep {
            // Fetch translations are not kept by identifier.
            self.fetch_flush.all = true;
            self.poll = true;
        } else {
            self.flush_pcid(self.pcid());
        }
        self.privilege_changed();
        Ok(())
    }

    fn known_cr4(&self) -> u64 {
        let model = &self.cpu.model;
        let mut known = cr4::TSD
            | cr4::PSE
            | cr4::PAE
            | cr4::MCE
            | cr4::PGE
            | cr4::PCE
            | cr4::OSFXSR
            | cr4::OSXMMEXCPT;
        for (bit, feature) in [
            (cr4::VME | cr4::PVI, feature::VME),
            (cr4::DE, feature::DE),
            (cr4::UMIP, feature::UMIP),
            (cr4::LA57, feature::LA57),
            (cr4::FSGSBASE, feature::FSGSBASE),
            (cr4::PCIDE, feature::PCID),
            (cr4::SMEP, feature::SMEP),
            (cr4::SMAP, feature::SMAP),
            (cr4::OSXSAVE, feature::XSAVE),
            (cr4::PKE, feature::PKU),
            (cr4::PKS, feature::PKS),
        ] {
            if model.has(feature) {
                known |= bit;
            }
        }
        known
    }

    fn write_cr4(&mut self, value: u64) -> Result<(), Stop> {
        let old = self.cpu.cr4;
        let changed = old ^ value;
        let long = self.long_mode();
        let bad = value & !self.known_cr4() != 0
            || long && changed & (cr4::PAE | cr4::LA57) != 0
            || value & !old & cr4::PCIDE != 0 && (!long || self.cpu.cr3 & 0xfff != 0);
        if bad {
            return Err(self.gp(0));
        }
        const PAGING: u64 = cr4::PSE
            | cr4::PAE
            | cr4::PGE
            | cr4::PCIDE
            | cr4::SMEP
            | cr4::LA57
            | cr4::PKE
            | cr4::PKS;
        let reload = changed & (cr4::PSE | cr4::PAE | cr4::PGE | cr4::SMEP) != 0
            && value & cr4::PAE != 0
            && self.cpu.cr0 & cr0::PG != 0
            && !long;
        if reload {
            self.load_pdptes(self.cpu.cr3)?;
        }
        self.cpu.cr4 = value;
        if changed & cr4::DE != 0 {
            self.breakpoints_changed();
        }
        if changed & PAGING != 0 {
            self.flush_tlb();
        }
        self.privilege_changed();
        Ok(())
    }
}
