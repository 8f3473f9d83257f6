//! Control and status registers: who may access them, what they read and what a write keeps (WARL).

pub mod fields;
pub mod num;

use bitflags::bitflags;

use super::hart::{Hart, Mode};
use fields::{MCOUNTINHIBIT, MEDELEG, MISA, envcfg, irq, mstatus};

bitflags! {
    /// What a CSR write changed besides the register, for the engine's caches.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Effects: u8 {
        /// Interrupts may have become pending or enabled.
        const INTERRUPTS = 1;
        /// Permissions of loads and stores changed.
        const TRANSLATION = 2;
        /// Cached translations are no longer right (PMP, environment configuration).
        const FLUSH = 4;
        /// The supervisor timer was set, or switched on or off.
        const TIMER = 8;
        /// The address space changed.
        const ADDRESS_SPACE = 16;
    }
}

/// The access raises an illegal-instruction exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal;

/// What CSRs show of the world outside the hart's state.
pub trait Outside {
    /// The `time` counter, in ticks of [`super::TIMEBASE_HZ`].
    fn time(&self) -> u64;
    /// Levels of the interrupt lines, as bits of `mip`.
    fn lines(&self) -> u64;
}

/// How a CSR instruction changes the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsrOp {
    /// CSRRW: write the operand.
    Write,
    /// CSRRS: set the operand's bits.
    Set,
    /// CSRRC: clear the operand's bits.
    Clear,
}

impl Hart {
    /// `mip` as software sees it: its own bits, the lines and the supervisor timer.
    #[must_use]
    pub fn mip(&self, outside: &dyn Outside) -> u64 {
        let mut mip = self.mip | outside.lines();
        if self.menvcfg & envcfg::STCE != 0 {
            mip &= !irq::STI;
            if self.stimecmp != u64::MAX && outside.time() >= self.stimecmp {
                mip |= irq::STI;
            }
        }
        mip
    }

    /// Performs a CSR instruction on register `csr`. `operand` is `None` where the instruction only
    /// reads (CSRRS and CSRRC with x0 or zero). Returns the old value.
    ///
    /// # Errors
    /// [`Illegal`] if the register does not exist, the mode may not access it, or it is read-only
    /// (privileged, 2.1).
    pub fn csr(
        &mut self,
        op: CsrOp,
        csr: u16,
        operand: Option<u64>,
        outside: &dyn Outside,
    ) -> Result<(u64, Effects), Illegal> {
        if u64::from(csr >> 8 & 3) > self.mode as u64 || operand.is_some() && csr >> 10 == 3 {
            return Err(Illegal);
        }
        let old = self.csr_read(csr, outside)?;
        let Some(operand) = operand else { return Ok((old, Effects::empty())) };
        // Set and clear work on the bits software has written, not on the lines shown with them.
        let base = match csr {
            num::MIP => self.mip,
            num::SIP => self.mip & self.mideleg,
            _ => old,
        };
        let new = match op {
            CsrOp::Write => operand,
            CsrOp::Set => base | operand,
            CsrOp::Clear => base & !operand,
        };
        Ok((old, self.csr_write(csr, new)))
    }

    fn counter_allowed(&self, bit: u32) -> bool {
        let by_m = self.mcounteren >> bit & 1 != 0;
        let by_s = self.scounteren >> bit & 1 != 0;
        match self.mode {
            Mode::M => true,
            Mode::S => by_m,
            Mode::U => by_m && by_s,
        }
    }

    fn stimecmp_allowed(&self) -> bool {
        let to_s = self.menvcfg & envcfg::STCE != 0 && self.mcounteren >> 1 & 1 != 0;
        self.model.sstc && (self.mode == Mode::M || to_s)
    }

    fn legal(condition: bool) -> Result<(), Illegal> {
        if condition { Ok(()) } else { Err(Illegal) }
    }

    /// Reads a register for an instruction of the current mode.
    fn csr_read(&self, csr: u16, outside: &dyn Outside) -> Result<u64, Illegal> {
        // The instruction that reads is itself counted already when it executes.
        let retired = self.retired.wrapping_sub(1);
        Ok(match csr {
            num::FFLAGS | num::FRM | num::FCSR => {
                Self::legal(self.mstatus & mstatus::FS != 0)?;
                match csr {
                    num::FFLAGS => u64::from(self.fflags),
                    num::FRM => u64::from(self.frm),
                    _ => u64::from(self.frm) << 5 | u64::from(self.fflags),
                }
            }
            num::CYCLE | num::TIME | num::INSTRET => {
                Self::legal(self.counter_allowed(u32::from(csr & 0x1f)))?;
                match csr {
                    num::CYCLE => self.mcycle.value(retired),
                    num::TIME => outside.time(),
                    _ => self.minstret.value(retired),
                }
            }
            num::HPMCOUNTER3..=num::HPMCOUNTER31 => {
                Self::legal(self.counter_allowed(u32::from(csr & 0x1f)))?;
                0
            }

            num::SSTATUS => self.read_mstatus() & (mstatus::SSTATUS | mstatus::SD),
            num::SIE => self.mie & self.mideleg,
            num::STVEC => self.stvec,
            num::SCOUNTEREN => self.scounteren,
            num::SENVCFG => self.senvcfg,
            num::SSCRATCH => self.sscratch,
            num::SEPC => self.sepc,
            num::SCAUSE => self.scause,
            num::STVAL => self.stval,
            num::SIP => self.mip(outside) & self.mideleg,
            num::STIMECMP => {
                Self::legal(self.stimecmp_allowed())?;
                self.stimecmp
            }
            num::SATP => {
                Self::legal(self.mode == Mode::M || self.mstatus & mstatus::TVM == 0)?;
                self.satp
            }

            num::MVENDORID | num::MARCHID | num::MIMPID | num::MCONFIGPTR => 0,
            num::MHARTID => self.hartid,
            num::MSTATUS => self.read_mstatus(),
            num::MISA => MISA,
            num::MEDELEG => self.medeleg,
            num::MIDELEG => self.mideleg,
            num::MIE => self.mie,
            num::MTVEC => self.mtvec,
            num::MCOUNTEREN => self.mcounteren,
            num::MENVCFG => self.menvcfg,
            num::MCOUNTINHIBIT => self.mcountinhibit,
            num::MHPMEVENT3..=num::MHPMEVENT31 => 0,
            num::MSCRATCH => self.mscratch,
            num::MEPC => self.mepc,
            num::MCAUSE => self.mcause,
            num::MTVAL => self.mtval,
            num::MIP => self.mip(outside),
            num::PMPCFG0..=num::PMPCFG15 if csr & 1 == 0 => {
                self.pmp.read_cfg(usize::from(csr - num::PMPCFG0))
            }
            num::PMPADDR0..=num::PMPADDR63 => self.pmp.read_addr(usize::from(csr - num::PMPADDR0)),
            num::MCYCLE => self.mcycle.value(retired),
            num::MINSTRET => self.minstret.value(retired),
            num::MHPMCOUNTER3..=num::MHPMCOUNTER31 => 0,
            // No triggers: every tdata1 reads as type 0 (debug 1.0, 5.7.2).
            num::TSELECT..=num::TDATA3 => 0,
            num::TINFO => 1,
            _ => return Err(Illegal),
        })
    }

    fn read_mstatus(&self) -> u64 {
        let dirty = self.mstatus & mstatus::FS == mstatus::FS;
        self.mstatus | if dirty { mstatus::SD } else { 0 }
    }

    fn write_mstatus(&mut self, value: u64, mask: u64) -> Effects {
        let mut new = self.mstatus & !mask | value & mask;
        if new >> mstatus::MPP_SHIFT & 3 == 2 {
            new = new & !mstatus::MPP | self.mstatus & mstatus::MPP;
        }
        self.mstatus = new;
        Effects::INTERRUPTS | Effects::TRANSLATION
    }

    /// Writes a register that [`csr_read`](Self::csr_read) has accepted.
    fn csr_write(&mut self, csr: u16, value: u64) -> Effects {
        // What is written is what the next instruction reads: this one does not count.
        let retired = self.retired;
        match csr {
            num::FFLAGS | num::FRM | num::FCSR => {
                match csr {
                    num::FFLAGS => self.fflags = value as u8 & 0x1f,
                    num::FRM => self.frm = value as u8 & 7,
                    _ => {
                        self.fflags = value as u8 & 0x1f;
                        self.frm = (value >> 5) as u8 & 7;
                    }
                }
                self.mstatus |= mstatus::FS;
                Effects::empty()
            }

            num::SSTATUS => self.write_mstatus(value, mstatus::SSTATUS_WRITABLE),
            num::SIE => {
                self.mie = self.mie & !self.mideleg | value & self.mideleg;
                Effects::INTERRUPTS
            }
            num::STVEC => set(&mut self.stvec, value & !2),
            num::SCOUNTEREN => set(&mut self.scounteren, value & 0xffff_ffff),
            num::SENVCFG => set(&mut self.senvcfg, legal_envcfg(value, envcfg::SENVCFG)),
            num::SSCRATCH => set(&mut self.sscratch, value),
            num::SEPC => set(&mut self.sepc, value & !1),
            num::SCAUSE => set(&mut self.scause, value),
            num::STVAL => set(&mut self.stval, value),
            num::SIP => {
                let mask = self.mideleg & irq::SSI;
                self.mip = self.mip & !mask | value & mask;
                Effects::INTERRUPTS
            }
            num::STIMECMP => {
                self.stimecmp = value;
                Effects::INTERRUPTS | Effects::TIMER
            }
            num::SATP => {
                if matches!(value >> 60, 0 | 8 | 9 | 10) {
                    self.satp = value;
                }
                Effects::ADDRESS_SPACE
            }

            num::MSTATUS => self.write_mstatus(value, mstatus::WRITABLE),
            num::MEDELEG => set(&mut self.medeleg, value & MEDELEG),
            num::MIDELEG => {
                self.mideleg = value & irq::SUPERVISOR;
                Effects::INTERRUPTS
            }
            num::MIE => {
                self.mie = value & irq::ALL;
                Effects::INTERRUPTS
            }
            num::MTVEC => set(&mut self.mtvec, value & !2),
            num::MCOUNTEREN => set(&mut self.mcounteren, value & 0xffff_ffff),
            num::MENVCFG => {
                self.menvcfg = legal_envcfg(value, self.model.menvcfg_writable());
                // ADUE and PBMTE change what page-table entries mean, STCE where STIP comes from.
                Effects::INTERRUPTS | Effects::FLUSH | Effects::TIMER
            }
            num::MCOUNTINHIBIT => {
                self.mcountinhibit = value & MCOUNTINHIBIT;
                self.mcycle.inhibit(retired, value & 1 != 0);
                self.minstret.inhibit(retired, value & 4 != 0);
                Effects::empty()
            }
            num::MSCRATCH => set(&mut self.mscratch, value),
            num::MEPC => set(&mut self.mepc, value & !1),
            num::MCAUSE => set(&mut self.mcause, value),
            num::MTVAL => set(&mut self.mtval, value),
            num::MIP => {
                // With Sstc the supervisor timer bit shows the comparison and cannot be written.
                let sti = if self.menvcfg & envcfg::STCE != 0 { 0 } else { irq::STI };
                let mask = irq::SSI | irq::SEI | sti;
                self.mip = self.mip & !mask | value & mask;
                Effects::INTERRUPTS
            }
            num::PMPCFG0..=num::PMPCFG15 => {
                self.pmp.write_cfg(usize::from(csr - num::PMPCFG0), value);
                Effects::FLUSH
            }
            num::PMPADDR0..=num::PMPADDR63 => {
                self.pmp.write_addr(usize::from(csr - num::PMPADDR0), value);
                Effects::FLUSH
            }
            num::MCYCLE => {
                self.mcycle.set(retired, value);
                Effects::empty()
            }
            num::MINSTRET => {
                self.minstret.set(retired, value);
                Effects::empty()
            }
            // Everything else reads as a constant.
            _ => Effects::empty(),
        }
    }
}

fn set(register: &mut u64, value: u64) -> Effects {
    *register = value;
    Effects::empty()
}

/// Keeps the legal bits; CBIE = 2 is reserved and becomes 0.
fn legal_envcfg(value: u64, mask: u64) -> u64 {
    let value = value & mask;
    if value & envcfg::CBIE == 2 << envcfg::CBIE_SHIFT { value & !envcfg::CBIE } else { value }
}
