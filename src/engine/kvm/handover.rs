//! The state of a processor: where it is, its way from the interpreter to the vCPU and back, and what must be done before
//! the vCPU's state is complete.

use std::io;
use std::time::Duration;

use mimic_cpu::bus::Width;
use mimic_cpu::run::Exit;
use mimic_cpu::x86::state::{Activity, Cpu, cr0, cr4, efer};

use super::vcpu::Left;
use super::{Home, Kvm, KvmError};

/// How long the guest goes on to have a trap delivered: at first, and how often for twice as long, since a host that is
/// busy may call it back before it has begun.
const MOMENT: Duration = Duration::from_micros(50);
const MOMENTS: u32 = 7;

impl Kvm {
    /// The state as it is in the vCPU.
    pub(super) fn export(&self) -> Result<Cpu, KvmError> {
        let mut cpu = self.interp.cpu();
        self.vcpu.export(&mut cpu)?;
        if cpu.cr0 & cr0::PG != 0 && cpu.cr4 & cr4::PAE != 0 && cpu.efer & efer::LMA == 0 {
            for (index, entry) in cpu.pdpte.iter_mut().enumerate() {
                let gpa = (cpu.cr3 & 0xffff_ffe0) + 8 * index as u64;
                let page = self.bus.ram_page(gpa);
                *entry = page.map_or(0, |page| page.host.load(gpa, Width::Double));
            }
        }
        cpu.activity = if self.halted { Activity::Halted } else { Activity::Running };
        cpu.msr.tsc_offset = cpu.msr.tsc_offset.wrapping_add(self.tsc_moved(self.vcpu.tsc()?));
        Ok(cpu)
    }

    /// How far the guest has moved its time-stamp counter from where the canonical state has it, when it is `now`. The
    /// counter never goes back by a change of engines; that it is a little behind is the time which the look took.
    fn tsc_moved(&self, now: u64) -> u64 {
        let moved = now.wrapping_sub(self.interp.core().tsc());
        let tenth = self.interp.core().cpu.model.tsc_hz as i64 / 10;
        if (-tenth..=0).contains(&(moved as i64)) { 0 } else { moved }
    }

    pub(super) fn move_to_interp(&mut self) -> Result<(), KvmError> {
        if self.home == Home::Vcpu {
            let cpu = self.export()?;
            self.interp.load(cpu);
            self.move_home();
        }
        Ok(())
    }

    /// The state is in the interpreter, or somebody else has it.
    pub(super) fn move_home(&mut self) {
        if self.home == Home::Vcpu {
            self.home = Home::Interp;
            self.bus.stores_unheard(false);
        }
    }

    pub(super) fn move_to_vcpu(&mut self) -> Result<(), KvmError> {
        if self.home == Home::Vcpu {
            return Ok(());
        }
        let cpu = self.interp.cpu();
        self.vcpu.import(&cpu, self.apic_base(), self.bus.task_priority(self.hart))?;
        self.halted = cpu.activity == Activity::Halted;
        self.home = Home::Vcpu;
        self.bus.stores_unheard(true);
        if std::mem::take(&mut self.tsc_unknown) {
            self.follow_clock()?;
        }
        Ok(())
    }

    pub(super) fn apic_base(&self) -> u64 {
        self.bus.interrupt_msr(self.hart, 0x1b).unwrap_or(0)
    }

    /// Sets the vCPU's time-stamp counter to what the canonical state says, unless it is that already.
    pub(super) fn follow_clock(&self) -> Result<(), KvmError> {
        let wanted = self.interp.core().tsc();
        let ahead = self.vcpu.tsc()?.wrapping_sub(wanted) as i64;
        let millisecond = self.interp.core().cpu.model.tsc_hz as i64 / 1000;
        if !(0..millisecond).contains(&ahead) {
            self.vcpu.set_tsc(self.interp.core().tsc())?;
        }
        Ok(())
    }

    /// Completes what the guest was left in the midst of, so that the vCPU's state is between two instructions: the
    /// rest of an access, and an event that KVM has taken but not delivered.
    pub(super) fn settle(&mut self) -> Result<(), KvmError> {
        if self.home == Home::Interp {
            return Ok(());
        }
        self.complete_access()?;
        let events = self.vcpu.events()?;
        let (exception, interrupt) = (events.exception, events.interrupt);
        let (rip, _) = self.vcpu.place();
        // A fault is found once more when the guest goes on, since its instruction is still to be executed; #DB, #DF and
        // #MC are not.
        if exception.injected != 0 && matches!(exception.nr, 1 | 8 | 18) {
            log::debug!(target: "kvm", "exception {} is delivered for KVM at {rip:#x}", exception.nr);
            self.move_to_interp()?;
            let error = (exception.has_error_code != 0).then_some(exception.error_code);
            self.interp.exception(exception.nr, error);
        } else if interrupt.injected != 0 {
            log::debug!(target: "kvm", "interrupt {} is delivered for KVM at {rip:#x}", interrupt.nr);
            self.move_to_interp()?;
            self.interp.interrupt(interrupt.nr);
        }
        Ok(())
    }

    fn complete_access(&mut self) -> Result<(), KvmError> {
        while self.home == Home::Vcpu && self.unfinished {
            self.vcpu.set_immediate_exit(true);
            let left = self.enter();
            if left != Left::Called {
                self.serve_rest(left)?;
            }
        }
        Ok(())
    }

    /// Serves the next part of an access while its completion is all that is wanted.
    fn serve_rest(&mut self, left: Left) -> Result<(), KvmError> {
        match left {
            Left::Port { .. } | Left::Mmio { .. } | Left::Msr { .. } => self.serve(left).map(drop),
            Left::Refused(why) => {
                let source = io::Error::other(why);
                Err(KvmError::Host { what: "completing an access", source })
            }
            _ => Ok(()),
        }
    }

    /// Has KVM deliver #BP and #OF that it may hold: it does not tell of them, since it expects that their INT3 and INTO
    /// are executed once more (Linux, arch/x86/kvm/x86.c, kvm_vcpu_ioctl_x86_get_vcpu_events). With VMX and SVM they are,
    /// but other KVMs have gone past them by then: whoever takes over the state there, takes over a program that has
    /// never met its breakpoint. So where one could be held the guest goes on for a moment. Where none is, as after
    /// the return from a breakpoint's handler, that does no harm. `Some` says why it cannot go on.
    pub(super) fn release_traps(&mut self) -> Result<Option<Exit>, KvmError> {
        for round in 0..MOMENTS {
            self.complete_access()?;
            if self.home == Home::Interp || !self.may_hold_trap()? {
                return Ok(None);
            }
            self.vcpu.ask_for_window(false);
            self.vcpu.set_immediate_exit(false);
            self.alarm()?.set(Some(MOMENT * (1 << round)));
            let left = self.enter();
            self.alarm()?.set(None);
            log::debug!(target: "kvm", "a trap may be held, {round}: {left:?}");
            if let Some(exit @ Exit::Dead(_)) = self.serve(left)? {
                return Ok(Some(exit));
            }
        }
        // By now it would have been delivered: the guest stays behind an INT3.
        Ok(None)
    }

    /// Whether the guest is behind an INT3 or INTO, and the last exception that KVM knows is theirs.
    fn may_hold_trap(&self) -> Result<bool, KvmError> {
        const BP: u8 = 3;
        const OF: u8 = 4;
        Ok(match self.byte_before() {
            Some(0xcc) => self.vcpu.events()?.exception.nr == BP,
            Some(0xce) => self.vcpu.events()?.exception.nr == OF,
            _ => false,
        })
    }

    /// The byte before RIP.
    fn byte_before(&self) -> Option<u64> {
        let (rip, base) = self.vcpu.place();
        let gpa = self.vcpu.physical(base.wrapping_add(rip).wrapping_sub(1))?;
        Some(self.bus.ram_page(gpa)?.host.load(gpa, Width::Byte))
    }
}
