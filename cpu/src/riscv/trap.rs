//! Traps: causes, entry and return (privileged, 3.1.6, 3.1.8, 3.1.15, 10.1).

use super::csr::fields::{irq, mstatus};
use super::hart::{Hart, Mode};

/// Exception codes of `mcause` and `scause` (privileged, table 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the manual's.
pub enum Cause {
    InstructionMisaligned = 0,
    InstructionAccess = 1,
    IllegalInstruction = 2,
    Breakpoint = 3,
    LoadMisaligned = 4,
    LoadAccess = 5,
    StoreMisaligned = 6,
    StoreAccess = 7,
    EcallFromU = 8,
    EcallFromS = 9,
    EcallFromM = 11,
    InstructionPageFault = 12,
    LoadPageFault = 13,
    StorePageFault = 15,
}

impl Cause {
    /// The cause in words, for messages.
    #[must_use]
    pub fn describe(code: u64) -> &'static str {
        match code {
            0 => "instruction address misaligned",
            1 => "instruction access fault",
            2 => "illegal instruction",
            3 => "breakpoint",
            4 => "load address misaligned",
            5 => "load access fault",
            6 => "store/AMO address misaligned",
            7 => "store/AMO access fault",
            8 => "environment call from U-mode",
            9 => "environment call from S-mode",
            11 => "environment call from M-mode",
            12 => "instruction page fault",
            13 => "load page fault",
            15 => "store/AMO page fault",
            _ => "unknown cause",
        }
    }
}

/// A synchronous exception about to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Why.
    pub cause: Cause,
    /// What goes to `mtval` or `stval`: the faulting address, the instruction's bits, or zero.
    pub tval: u64,
}

/// The interrupt bit of `mcause` and `scause`.
pub const INTERRUPT: u64 = 1 << 63;

impl Hart {
    /// Takes a synchronous exception raised by the instruction at `self.pc`.
    pub fn take_exception(&mut self, trap: Trap) {
        let code = trap.cause as u64;
        let target = self.trap_mode(self.medeleg >> code & 1 != 0);
        self.enter_handler(target, code, trap.tval);
    }

    /// Takes the interrupt with the given code; `self.pc` is the instruction it interrupts.
    pub fn take_interrupt(&mut self, code: u64) {
        let target = self.trap_mode(self.mideleg >> code & 1 != 0);
        self.enter_handler(target, INTERRUPT | code, 0);
    }

    fn trap_mode(&self, delegated: bool) -> Mode {
        if delegated && self.mode <= Mode::S { Mode::S } else { Mode::M }
    }

    fn enter_handler(&mut self, target: Mode, cause: u64, tval: u64) {
        self.reservation = None;
        let from = self.mode;
        let tvec = if target == Mode::M {
            self.mepc = self.pc;
            self.mcause = cause;
            self.mtval = tval;
            let mie = self.mstatus >> 3 & 1;
            self.mstatus &= !(mstatus::MPP | mstatus::MPIE | mstatus::MIE);
            self.mstatus |= (from as u64) << mstatus::MPP_SHIFT | mie * mstatus::MPIE;
            self.mtvec
        } else {
            self.sepc = self.pc;
            self.scause = cause;
            self.stval = tval;
            let sie = self.mstatus >> 1 & 1;
            self.mstatus &= !(mstatus::SPP | mstatus::SPIE | mstatus::SIE);
            self.mstatus |= (from as u64 & 1) * mstatus::SPP | sie * mstatus::SPIE;
            self.stvec
        };
        self.mode = target;
        let vectored = tvec & 1 != 0 && cause & INTERRUPT != 0;
        self.pc = (tvec & !3).wrapping_add(if vectored { 4 * (cause & !INTERRUPT) } else { 0 });
    }

    /// MRET: back to the mode and address saved by the last trap into M-mode.
    pub fn mret(&mut self) {
        self.reservation = None;
        let mode = Mode::from_bits(self.mstatus >> mstatus::MPP_SHIFT & 3).unwrap_or(Mode::U);
        let mpie = self.mstatus >> 7 & 1;
        self.mstatus &= !(mstatus::MPP | mstatus::MIE);
        self.mstatus |= mstatus::MPIE | mpie * mstatus::MIE;
        if mode != Mode::M {
            self.mstatus &= !mstatus::MPRV;
        }
        self.mode = mode;
        self.pc = self.mepc;
    }

    /// SRET: back to the mode and address saved by the last trap into S-mode.
    pub fn sret(&mut self) {
        self.reservation = None;
        let mode = if self.mstatus & mstatus::SPP != 0 { Mode::S } else { Mode::U };
        let spie = self.mstatus >> 5 & 1;
        self.mstatus &= !(mstatus::SPP | mstatus::SIE | mstatus::MPRV);
        self.mstatus |= mstatus::SPIE | spie * mstatus::SIE;
        self.mode = mode;
        self.pc = self.sepc;
    }

    /// The interrupt to take now, given the full `mip`: its code, by the manual's priority
    /// (privileged, 3.1.9).
    #[must_use]
    pub fn pending_interrupt(&self, mip: u64) -> Option<u64> {
        let pending = mip & self.mie;
        if pending == 0 {
            return None;
        }
        let m_enabled = self.mode < Mode::M || self.mstatus & mstatus::MIE != 0;
        let s_enabled =
            self.mode < Mode::S || self.mode == Mode::S && self.mstatus & mstatus::SIE != 0;
        let for_m = if m_enabled { pending & !self.mideleg } else { 0 };
        let for_s = if s_enabled { pending & self.mideleg } else { 0 };
        let candidates = if for_m != 0 { for_m } else { for_s };
        irq::BY_PRIORITY.into_iter().find(|&code| candidates >> code & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_come_in_the_order_of_the_manual() {
        let mut hart = Hart::new(0, 0);
        hart.mie = 0xaaa;
        hart.mode = Mode::U;
        let mut mip = 0xaaa;
        for code in [11, 3, 7, 9, 1, 5] {
            assert_eq!(hart.pending_interrupt(mip), Some(code));
            mip &= !(1 << code);
        }
        assert_eq!(hart.pending_interrupt(mip), None);
        hart.mideleg = 0x222;
        assert_eq!(hart.pending_interrupt(0xa0), Some(7), "M-mode's come before delegated ones");
        hart.mode = Mode::M;
        assert_eq!(hart.pending_interrupt(0xaaa), None, "M-mode with MIE clear");
    }

    #[test]
    fn a_delegated_exception_goes_to_s_mode_and_sret_returns() {
        let mut hart = Hart::new(0, 0x1000);
        hart.medeleg = 1 << 8;
        hart.stvec = 0x2001;
        hart.mstatus |= mstatus::SIE;
        hart.mode = Mode::U;
        hart.take_exception(Trap { cause: Cause::EcallFromU, tval: 0 });
        assert_eq!((hart.mode, hart.pc, hart.sepc, hart.scause), (Mode::S, 0x2000, 0x1000, 8));
        assert_eq!(hart.mstatus & (mstatus::SIE | mstatus::SPIE | mstatus::SPP), mstatus::SPIE);
        hart.sret();
        assert_eq!((hart.mode, hart.pc), (Mode::U, 0x1000));
        assert_ne!(hart.mstatus & mstatus::SIE, 0);
        hart.mode = Mode::M;
        hart.take_exception(Trap { cause: Cause::IllegalInstruction, tval: 7 });
        assert_eq!((hart.mode, hart.mcause, hart.mtval), (Mode::M, 2, 7), "never to a lower mode");
    }
}
