//! What happens between instructions: interrupts, requests of others, exceptions, single steps.

use crate::bus::line;
use crate::run::Exit;

use super::super::core::StepTrap;
use super::super::fault::{Fault, Stop, vector};
use super::super::flags::bit;
use super::super::gate::{Source, doubles};
use super::super::state::{Activity, Segment, Shadow, sreg};
use super::{Interp, TRAP_LOOP};

/// DR6: a single step.
const DR6_BS: u64 = 1 << 14;

impl Interp {
    /// Looks at everything that may have happened since the last block.
    #[cold]
    pub(super) fn attend(&mut self) -> Option<Exit> {
        self.core.poll = false;
        if self.core.step_trap == StepTrap::ByNewFlags {
            self.core.step_trap = StepTrap::Usual;
            if self.core.has_flag(bit::TF) {
                self.debug_trap(DR6_BS);
            }
        }
        if self.core.signals.needs_attention() {
            self.core.signals.take_attention();
            self.core.apply_requests();
            // Code that others have written counts once they have called for attention.
            self.core.stale_code = true;
            if self.core.signals.take_kick() {
                self.core.poll = true;
                return Some(Exit::Budget);
            }
        }
        self.follow_fetch_flush();
        if self.core.stale_code {
            self.drop_stale_code();
        }
        self.take_edges();
        match self.core.cpu.activity {
            Activity::Shutdown => return Some(Exit::Dead(self.core.epitaph.clone())),
            Activity::WaitForStartup => {
                self.core.poll = true;
                return Some(Exit::Halted);
            }
            Activity::Running | Activity::Halted => {}
        }
        // Who steps through a program wants to see that program: interrupts wait, and a HLT is over at once.
        let stepping = self.core.points.step;
        if self.core.cpu.shadow == Shadow::None && !stepping {
            self.take_interrupts();
        }
        if self.core.virtual_interrupt_is_due() && self.core.cpu.activity == Activity::Running {
            self.take_exception(Fault::with(vector::GP, 0));
        }
        if stepping {
            self.core.cpu.activity = Activity::Running;
        }
        if self.core.cpu.activity == Activity::Halted {
            self.core.poll = true;
            return Some(Exit::Halted);
        }
        if self.barren_traps.0 > TRAP_LOOP {
            return Some(Exit::Dead(format!(
                "processor {}: an exception handler faults itself, forever: vector {} at rip {:#x}",
                self.core.cpu.id, self.core.fault.vector, self.core.next_rip
            )));
        }
        self.slow = self.core.cpu.shadow != Shadow::None
            || self.core.has_flag(bit::TF | bit::RF)
            || self.core.breakpoints.any();
        None
    }

    /// INIT, start-up and NMI: they are noticed once.
    fn take_edges(&mut self) {
        let lines = self.core.signals.lines();
        let edges = lines & (line::NMI | line::INIT | line::STARTUP);
        if edges == 0 {
            return;
        }
        self.core.signals.set_lines(edges, false);
        if edges & line::INIT != 0 {
            let mut cpu = self.core.export();
            cpu.init();
            // The bootstrap processor begins at the reset vector, the others wait (SDM vol. 3, 10.4).
            if cpu.id != 0 {
                cpu.activity = Activity::WaitForStartup;
            }
            self.core.import(cpu);
        }
        if edges & line::STARTUP != 0 && self.core.cpu.activity == Activity::WaitForStartup {
            let page = u16::from(self.core.bus.startup_vector(self.core.cpu.id as usize));
            self.core.cpu.activity = Activity::Running;
            self.core.set_segment(sreg::CS, Segment::real(page << 8, true));
            self.core.next_rip = 0;
        }
        self.core.cpu.nmi_pending |= edges & line::NMI != 0;
        self.core.poll = true;
    }

    fn take_interrupts(&mut self) {
        if self.core.cpu.nmi_pending && !self.core.cpu.nmi_blocked {
            self.core.cpu.nmi_pending = false;
            self.core.cpu.nmi_blocked = true;
            self.inject(vector::NMI, Source::External, None);
            return;
        }
        if self.core.has_flag(bit::IF) && self.core.signals.lines() & line::INTR != 0 {
            let acknowledged = self.core.bus.acknowledge_interrupt(self.core.cpu.id as usize);
            if let Some(vector) = acknowledged {
                self.inject(vector, Source::External, None);
            }
        }
    }

    /// Performs one instruction where each must be looked at.
    pub(super) fn step_slowly(&mut self, limit: u64) {
        let shadow = std::mem::take(&mut self.core.cpu.shadow);
        self.core.step_trap = StepTrap::Usual;
        self.core.iterated = false;
        let traps = self.traps;
        let stepped = self.core.has_flag(bit::TF);
        let resumed = self.core.has_flag(bit::RF);
        let before = self.core.cpu.retired;
        if !resumed && shadow != Shadow::MovSs {
            let met = self.core.meets_code(self.core.code_linear(self.core.next_rip));
            if met != 0 {
                // A fault, and the only one that leaves RF as it is on the stack (SDM vol. 3, 18.3.1.1).
                self.debug_trap(met.into());
                return;
            }
        }
        self.run_block(limit.min(before + 1));
        self.core.poll = true;
        if self.core.cpu.retired == before {
            if self.traps != traps {
                self.core.met = 0;
                return;
            }
            if !self.core.iterated {
                // Nothing but a look-up.
                self.core.cpu.shadow = shadow;
                return;
            }
        }
        if self.core.iterated {
            // The rest of a repeated instruction meets no breakpoint on itself.
            self.core.cpu.rflags |= bit::RF;
        } else if resumed {
            self.core.cpu.rflags &= !bit::RF;
        }
        if self.core.cpu.shadow == Shadow::MovSs {
            return;
        }
        let met = std::mem::take(&mut self.core.met);
        // What the instruction's own flags say is looked at before the next one.
        let stepped = stepped && self.core.step_trap == StepTrap::Usual;
        if stepped || met != 0 {
            self.debug_trap(if stepped { DR6_BS } else { 0 } | u64::from(met));
        }
    }

    /// Raises #DB for causes that DR6 tells.
    fn debug_trap(&mut self, causes: u64) {
        self.core.set_debug_status(causes);
        self.inject(vector::DB, Source::Exception, None);
    }

    /// Takes an exception raised by the instruction at the present RIP.
    #[cold]
    pub(super) fn take_exception(&mut self, fault: Fault) {
        let retired = self.core.cpu.retired;
        self.barren_traps = if self.barren_traps.1 == retired {
            (self.barren_traps.0 + 1, retired)
        } else {
            (0, retired)
        };
        if self.barren_traps.0 > TRAP_LOOP {
            self.core.poll = true;
        }
        if fault.vector == vector::PF {
            self.core.cpu.cr2 = fault.cr2;
        }
        // What faults leave on the stack keeps their restart from meeting a breakpoint again (SDM vol. 3, 18.3.1.1).
        self.core.cpu.rflags |= bit::RF;
        self.inject(fault.vector, Source::Exception, fault.error);
    }

    /// Delivers an interrupt that another engine has acknowledged and not delivered.
    pub fn interrupt(&mut self, vector: u8) {
        self.core.cpu.activity = Activity::Running;
        self.inject(vector, Source::External, None);
    }

    /// Delivers an exception that another engine has found and not delivered.
    pub fn exception(&mut self, vector: u8, error: Option<u32>) {
        self.inject(vector, Source::Exception, error);
    }

    /// Delivers an event at the present RIP, and what its delivery raises (SDM vol. 3, 7.15).
    fn inject(&mut self, vector: u8, source: Source, error: Option<u32>) {
        self.traps += 1;
        self.core.cpu.shadow = Shadow::None;
        // A debug exception ends HLT, too (SDM vol. 2, "HLT").
        self.core.cpu.activity = Activity::Running;
        let mut back = self.core.next_rip;
        let (mut vector, mut source, mut error) = (vector, source, error);
        while let Err(Stop) = self.core.deliver(vector, source, error, back) {
            back = self.core.fault_rip.take().unwrap_or(back);
            self.core.next_rip = back;
            let mut second = self.core.fault;
            if std::mem::take(&mut self.core.by_segment) {
                second = Fault::with(vector::SS, 0);
            }
            if vector == vector::DF {
                self.shut_down(second);
                break;
            }
            if second.vector == vector::PF {
                self.core.cpu.cr2 = second.cr2;
            }
            (vector, error) = if source == Source::Exception && doubles(vector, second.vector) {
                (vector::DF, Some(0))
            } else {
                (second.vector, second.error)
            };
            source = Source::Exception;
            // It is a fault, of the program that was to be entered if a task was switched to.
            self.core.cpu.rflags |= bit::RF;
        }
        self.core.leave = false;
        self.core.poll = true;
    }

    fn shut_down(&mut self, last: Fault) {
        let cpu = &mut self.core.cpu;
        cpu.activity = Activity::Shutdown;
        self.core.epitaph = format!(
            "processor {}: triple fault at {:#x}:{:#x}: the double fault's handler could not be entered (vector {}, \
             error code {:#x}, cr2 {:#x})",
            cpu.id,
            cpu.seg[usize::from(sreg::CS)].selector,
            self.core.next_rip,
            last.vector,
            last.error.unwrap_or(0),
            cpu.cr2,
        );
    }
}
