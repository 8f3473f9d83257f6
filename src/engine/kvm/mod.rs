//! KVM as an engine of x86-64 guests: the host's processor executes the guest's code as it is.
//!
//! ```text
//! vm.rs     /dev/kvm, one virtual machine for all processors of a machine, memory, filtered MSRs
//! cpuid.rs  what CPUID says
//! vcpu.rs   one vCPU: KVM_RUN, why it was left, transfer of state     state.rs  the structures of that transfer
//! kick.rs   how a vCPU is called back
//! mod.rs    the engine: what is done about every exit
//! probe.rs  what kind of KVM this is
//! ```
//!
//! # Who owns what
//!
//! All devices stay ours, local APICs included: there is no interrupt controller in the kernel. So ports, memory-mapped
//! registers, MSRs of the local APIC, timers and interrupts go through the same bus as the interpreter's, a hart's
//! state is the processor's alone, a snapshot knows nothing of KVM, a machine that stands still has no timers running
//! elsewhere, and harts may run on different engines for a while. With the local APICs in the kernel (split irqchip,
//! which costs fewer exits where the hardware virtualises them) none of this holds: vCPUs that run would have to be
//! moved all at once, and messages between processors would have to cross from the kernel's APICs to ours meanwhile.
//! That is a later step, for speed.
//!
//! The engine holds an interpreter. It performs what KVM cannot (instructions that KVM's emulator does not know, INIT
//! and start-up messages, the debugger's points, the delivery of an event that KVM holds when the guest is left), and
//! owns what KVM need not know: MTRRs, the count of instructions, a processor that waits for its start-up message. The
//! state is at one of the two places ([`Home`]).
//!
//! # What differs from the other engines
//!
//! Instructions are not counted. A budget is time: a nanosecond for each instruction, [`LEAST`] at the least.
//!
//! Stores are not reported, so code that other engines have decoded is stale once the guest has run here: they drop all
//! of it when they are entered. While harts change engines one after the other, one that is still interpreted does not
//! see the code that a KVM hart writes for it; it does from its own change on.

mod cpuid;
mod kick;
pub mod probe;
mod state;
mod vcpu;
mod vm;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mimic_cpu::bus::{CpuBus, Width, line};
use mimic_cpu::debug::DebugPoints;
use mimic_cpu::run::{Budget, Exit};
use mimic_cpu::signals::Signals;
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::interp::Interp;
use mimic_cpu::x86::model::Model;
use mimic_cpu::x86::state::{Activity, Cpu, cr0, cr4, efer};

use super::{CpuState, Engine};
use crate::machine::spec::{HartView, KvmStats, Stats};

use kick::{Alarm, Caller, Running};
use vcpu::{Left, Vcpu};

pub use vm::KvmGuest;

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// `/dev/kvm` cannot be opened.
    #[error("/dev/kvm: {0}{advice}", advice = advice(.0))]
    Open(io::Error),
    /// The kernel's KVM lacks something.
    #[error(
        "this kernel's KVM is too old: it lacks {0}; Linux 5.10 has it, --engine interp does without"
    )]
    TooOld(&'static str),
    /// The machine's processors are not what KVM can be.
    #[error(
        "KVM here has processors {0}: a machine that shall run on KVM must be made for it, \
         with --engine kvm or --switch-at ...,kvm, and can then change to the interpreter and back"
    )]
    Model(String),
    /// The kernel refuses.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The answer.
        source: io::Error,
    },
}

/// What the user can do.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; is virtualisation switched on in this computer's firmware (VT-x, AMD-V), and the module kvm_intel or \
             kvm_amd loaded? --engine interp runs everywhere"
        }
        io::ErrorKind::PermissionDenied => {
            "; add yourself to its group (`sudo usermod -aG kvm $USER`) and log in anew; --engine interp needs no \
             permission"
        }
        _ => "; --engine interp does without",
    }
}

/// Makes `model` one that KVM here can be. The names of the features that it loses.
///
/// # Errors
/// There is no KVM, or it refuses.
pub fn limit(model: &mut Model) -> Result<String, KvmError> {
    vm::limit(model)
}

/// Instructions that the interpreter performs where KVM cannot go on: often more than one in a row are of such a kind,
/// and moving the state costs as much as interpreting thousands.
const FALLBACK: u64 = 16;
/// IA32_TSC_DEADLINE.
const TSC_DEADLINE: u32 = 0x6e0;
/// Least time for which the guest runs.
const LEAST: Duration = Duration::from_micros(100);
/// A difference between guest time and host time that only a pause makes.
const PAUSE: Duration = Duration::from_millis(1);

/// Where the state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Vcpu,
    Interp,
}

/// The engine of one processor.
pub(super) struct Kvm {
    vcpu: Vcpu,
    interp: Interp,
    home: Home,
    /// The vCPU has executed HLT.
    halted: bool,
    /// The guest was left in the midst of an instruction.
    unfinished: bool,
    /// The time-stamp counter of the vCPU must be looked at.
    tsc_unknown: bool,
    hart: usize,
    bus: Arc<dyn CpuBus>,
    signals: Arc<Signals>,
    caller: Arc<Caller>,
    alarm: Option<Alarm>,
    points: DebugPoints,
    /// Host and guest time when `run` ended.
    left: Option<(Instant, u64)>,
    /// What budgets count.
    passed: u64,
    counters: KvmStats,
    device_accesses: u64,
}

impl Kvm {
    pub(super) fn new(
        guest: &KvmGuest,
        cpu: Cpu,
        bus: Arc<dyn CpuBus>,
        signals: Arc<Signals>,
    ) -> Result<Self, KvmError> {
        let vcpu = Vcpu::new(guest.vm()?, &cpu)?;
        let caller = Arc::<Caller>::default();
        signals.set_interrupter(Some(Arc::<Caller>::clone(&caller)));
        Ok(Kvm {
            vcpu,
            hart: cpu.id as usize,
            interp: Interp::new(cpu, Arc::clone(&bus), Arc::clone(&signals)),
            home: Home::Interp,
            halted: false,
            unfinished: false,
            tsc_unknown: true,
            bus,
            signals,
            caller,
            alarm: None,
            points: DebugPoints::default(),
            left: None,
            passed: 0,
            counters: KvmStats::default(),
            device_accesses: 0,
        })
    }

    // Where the state is.

    /// The state as it is in the vCPU.
    fn export(&self) -> Result<Cpu, KvmError> {
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

    fn move_to_interp(&mut self) -> Result<(), KvmError> {
        if self.home == Home::Vcpu {
            let cpu = self.export()?;
            self.interp.load(cpu);
            self.home = Home::Interp;
        }
        Ok(())
    }

    fn move_to_vcpu(&mut self) -> Result<(), KvmError> {
        if self.home == Home::Vcpu {
            return Ok(());
        }
        let cpu = self.interp.cpu();
        self.vcpu.import(&cpu, self.apic_base(), self.bus.task_priority(self.hart))?;
        self.halted = cpu.activity == Activity::Halted;
        self.home = Home::Vcpu;
        if std::mem::take(&mut self.tsc_unknown) {
            self.follow_clock()?;
        }
        Ok(())
    }

    fn apic_base(&self) -> u64 {
        self.bus.interrupt_msr(self.hart, 0x1b).unwrap_or(0)
    }

    /// Sets the vCPU's time-stamp counter to what the canonical state says, unless it is that already.
    fn follow_clock(&self) -> Result<(), KvmError> {
        let wanted = self.interp.core().tsc();
        let ahead = self.vcpu.tsc()?.wrapping_sub(wanted) as i64;
        let millisecond = self.interp.core().cpu.model.tsc_hz as i64 / 1000;
        if !(0..millisecond).contains(&ahead) {
            self.vcpu.set_tsc(self.interp.core().tsc())?;
        }
        Ok(())
    }

    // The run.

    fn run_guest(&mut self, until: Option<Instant>) -> Result<Exit, KvmError> {
        let stood_still = self.left.is_some_and(|(host, guest)| {
            let guest = Duration::from_nanos(self.bus.now().saturating_sub(guest));
            host.elapsed().saturating_sub(guest) > PAUSE
        });
        self.tsc_unknown |= stood_still;
        if self.home == Home::Vcpu && std::mem::take(&mut self.tsc_unknown) {
            self.follow_clock()?;
        }
        loop {
            if let Some(exit) = self.attend()? {
                return Ok(exit);
            }
            self.move_to_vcpu()?;
            self.offer_interrupt()?;
            self.vcpu.set_immediate_exit(false);
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(Exit::Budget);
            }
            if !self.signals.go_away() {
                continue;
            }
            let left = self.enter();
            self.signals.come_back();
            if let Some(exit) = self.serve(left)? {
                return Ok(exit);
            }
        }
    }

    /// Enters the guest, and follows the task priority.
    fn enter(&mut self) -> Left {
        let before = self.bus.task_priority(self.hart);
        let left = self.vcpu.enter(before);
        self.counters.entries += 1;
        let after = self.vcpu.cr8();
        if after != before {
            self.bus.set_task_priority(self.hart, after);
        }
        self.unfinished = matches!(left, Left::Port { .. } | Left::Mmio { .. } | Left::Msr { .. });
        left
    }

    /// Looks at what others want.
    fn attend(&mut self) -> Result<Option<Exit>, KvmError> {
        if self.signals.needs_attention() {
            self.signals.take_attention();
            // Nothing is cached here that others may ask to drop.
            self.bus.take_requests(self.hart);
            self.bus.requests_done(self.hart);
            if self.signals.take_kick() {
                return Ok(Some(Exit::Budget));
            }
        }
        let lines = self.signals.lines();
        let activity = self.interp.core().cpu.activity;
        let waits = self.home == Home::Interp
            && matches!(activity, Activity::WaitForStartup | Activity::Shutdown);
        if waits || lines & (line::INIT | line::STARTUP) != 0 {
            self.settle()?;
            self.move_to_interp()?;
            // It may have taken a kick.
            return Ok(Some(self.interp.run(Budget { insns: Some(0) })));
        }
        if lines & line::NMI != 0 {
            self.signals.set_lines(line::NMI, false);
            self.move_to_vcpu()?;
            self.vcpu.nmi()?;
            self.halted = false;
        }
        let halted = match self.home {
            Home::Vcpu => self.halted,
            Home::Interp => self.interp.core().cpu.activity == Activity::Halted,
        };
        if halted {
            self.move_to_vcpu()?;
            let wakes = self.signals.lines() & line::INTR != 0 && self.vcpu.mode().0 & bit::IF != 0;
            if !wakes {
                return Ok(Some(Exit::Halted));
            }
            self.halted = false;
        }
        Ok(None)
    }

    /// Gives the guest the interrupt that is pending, or has it say when it can take one.
    fn offer_interrupt(&mut self) -> Result<(), KvmError> {
        let pending = self.signals.lines() & line::INTR != 0;
        if pending && self.vcpu.takes_interrupts() {
            if let Some(vector) = self.bus.acknowledge_interrupt(self.hart) {
                self.vcpu.interrupt(vector)?;
            }
            self.vcpu.ask_for_window(self.signals.lines() & line::INTR != 0);
        } else {
            self.vcpu.ask_for_window(pending);
        }
        Ok(())
    }

    /// Does what the guest was left for.
    fn serve(&mut self, left: Left) -> Result<Option<Exit>, KvmError> {
        match left {
            Left::Called | Left::Look => {}
            Left::Port { out, port, size, count } => {
                self.device_accesses += 1;
                let width = match size {
                    1 => Width::Byte,
                    2 => Width::Half,
                    _ => Width::Word,
                };
                for index in 0..count {
                    if out {
                        let value = self.vcpu.port_value(index);
                        self.bus.port_out(self.hart, port, width, value.into());
                    } else {
                        let value = self.bus.port_in(self.hart, port, width);
                        self.vcpu.set_port_value(index, value as u32);
                    }
                }
            }
            Left::Mmio { gpa, len, write } => {
                self.device_accesses += 1;
                self.memory_access(gpa, len, write);
            }
            Left::Msr { index, write } => self.msr_access(index, write)?,
            Left::Halt => self.halted = true,
            Left::Shutdown => {
                let (rip, base) = self.vcpu.place();
                return Ok(Some(Exit::Dead(format!(
                    "processor {}: triple fault on KVM, which does not say of what; rip was {rip:#x}, CS's base \
                     {base:#x}; --engine interp tells more",
                    self.hart
                ))));
            }
            Left::Emulation => return self.fall_back().map(Some),
            Left::Refused(why) => {
                let (rip, base) = self.vcpu.place();
                return Ok(Some(Exit::Dead(format!(
                    "processor {}: KVM gives up at {:#x}: {why}",
                    self.hart,
                    base.wrapping_add(rip)
                ))));
            }
        }
        Ok(None)
    }

    fn memory_access(&mut self, gpa: u64, len: u32, write: Option<[u8; 8]>) {
        if write.is_some() && self.bus.ram_page(gpa).is_some() {
            // ROM.
            return;
        }
        let whole = match len {
            1 => Some(Width::Byte),
            2 => Some(Width::Half),
            4 => Some(Width::Word),
            8 => Some(Width::Double),
            _ => None,
        };
        // Parts of what crosses a page come as they are.
        let (width, step) = whole.map_or((Width::Byte, 1), |width| (width, len));
        let mut bytes = write.unwrap_or_default();
        for at in (0..len).step_by(step as usize) {
            let shift = 8 * at;
            let (here, mask) = (gpa + u64::from(at), width.zero_extend(u64::MAX));
            let value = u64::from_le_bytes(bytes);
            // What nothing answers reads as ones.
            if write.is_some() {
                let _ = self.bus.write(here, width, value >> shift & mask);
            } else {
                let read = self.bus.read(here, width).unwrap_or(mask);
                bytes = (value & !(mask << shift) | (read & mask) << shift).to_le_bytes();
            }
        }
        if write.is_none() {
            self.vcpu.set_mmio(bytes);
        }
    }

    /// RDMSR and WRMSR of what KVM does not know, or need not: they are the interpreter's.
    fn msr_access(&mut self, index: u32, write: Option<u64>) -> Result<(), KvmError> {
        // The guest reads another counter than the one that the canonical state tells of: they drift.
        let ahead = match index {
            TSC_DEADLINE => self.vcpu.tsc()?.wrapping_sub(self.interp.core().tsc()),
            _ => 0,
        };
        let shift = |value: u64, by: u64| if value == 0 { 0 } else { value.wrapping_add(by) };
        let core = self.interp.core_mut();
        let answer = match write {
            Some(value) => {
                core.write_msr(index, shift(value, ahead.wrapping_neg())).map(|()| value)
            }
            None => core.read_msr(index).map(|value| shift(value, ahead)),
        };
        self.vcpu.set_msr_answer(answer.ok());
        if write.is_some() {
            // The guest may have moved or disabled its local APIC, or have something to take now.
            let base = self.apic_base();
            self.vcpu.set_apic_base(base);
            self.signals.call_attention();
        }
        Ok(())
    }

    /// Has the interpreter perform some instructions.
    fn fall_back(&mut self) -> Result<Exit, KvmError> {
        self.settle()?;
        self.move_to_interp()?;
        let before = self.interp.retired();
        let offset = self.interp.core().cpu.msr.tsc_offset;
        let exit = self.interp.run(Budget { insns: Some(FALLBACK) });
        let retired = self.interp.retired() - before;
        self.counters.fallbacks += 1;
        self.counters.interpreted += retired;
        self.tsc_unknown |= self.interp.core().cpu.msr.tsc_offset != offset;
        // It may have taken a kick, so this is for whoever runs the hart.
        Ok(exit)
    }

    /// Completes what the guest was left in the midst of, so that the vCPU's state is between two instructions: the
    /// rest of an access, and an event that KVM has taken but not delivered.
    fn settle(&mut self) -> Result<(), KvmError> {
        if self.home == Home::Interp {
            return Ok(());
        }
        while self.unfinished {
            self.vcpu.set_immediate_exit(true);
            let left = self.enter();
            if left != Left::Called {
                self.serve_rest(left)?;
            }
        }
        let events = self.vcpu.events()?;
        let (exception, interrupt) = (events.exception, events.interrupt);
        if exception.injected | exception.pending | interrupt.injected != 0 {
            let (rip, _) = self.vcpu.place();
            log::debug!(target: "kvm", "left at {rip:#x} with {exception:?}, {interrupt:?}");
        }
        if exception.injected != 0 && !self.comes_again(exception.nr) {
            self.move_to_interp()?;
            let error = (exception.has_error_code != 0).then_some(exception.error_code);
            log::debug!(target: "kvm", "exception {} is delivered for KVM", exception.nr);
            self.interp.exception(exception.nr, error);
        // That of an INT instruction may come again with it.
        } else if interrupt.injected != 0
            && (interrupt.soft == 0 || !matches!(self.opcode_ahead(), Some(0xcc..=0xce)))
        {
            log::debug!(target: "kvm", "interrupt {} (soft: {})", interrupt.nr, interrupt.soft);
            self.move_to_interp()?;
            self.interp.interrupt(interrupt.nr);
        }
        Ok(())
    }

    /// Whether an exception that waits is found once more when the guest goes on: a fault, since its instruction is
    /// still to be executed. So it is with INT3 and INTO on processors with VMX; other KVMs have gone past them.
    fn comes_again(&self, vector: u8) -> bool {
        let opcode = match vector {
            // #DB, #DF and #MC.
            1 | 8 | 18 => return false,
            3 => 0xcc,
            4 => 0xce,
            _ => return true,
        };
        self.opcode_ahead() == Some(opcode)
    }

    /// The byte at RIP.
    fn opcode_ahead(&self) -> Option<u64> {
        let (rip, base) = self.vcpu.place();
        let gpa = self.vcpu.physical(base.wrapping_add(rip))?;
        Some(self.bus.ram_page(gpa)?.host.load(gpa, Width::Byte))
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

    /// Runs for the budget's time on this thread.
    fn run_timed(&mut self, time: Option<Duration>) -> Result<Exit, KvmError> {
        let host = |what| move |source| KvmError::Host { what, source };
        let _running = Running::enter(self.vcpu.immediate_exit(), &self.caller)
            .map_err(host("a signal for KVM"))?;
        if let Some(time) = time {
            if !self.alarm.as_ref().is_some_and(Alarm::is_of_this_thread) {
                self.alarm = Some(Alarm::new().map_err(host("a timer for KVM"))?);
            }
            if let Some(alarm) = &self.alarm {
                alarm.set(Some(time));
            }
        }
        let result = self.run_guest(time.map(|time| Instant::now() + time));
        if let (Some(_), Some(alarm)) = (time, &self.alarm) {
            alarm.set(None);
        }
        let settled = self.settle();
        let exit = result?;
        settled.map(|()| exit)
    }
}

impl Engine for Kvm {
    fn run(&mut self, budget: Budget) -> Exit {
        let started = Instant::now();
        // Whoever wants to stop at instructions has them interpreted.
        let exit = if self.points.is_empty() {
            let time = budget.insns.map(|insns| Duration::from_nanos(insns).max(LEAST));
            self.run_timed(time)
        } else {
            self.move_to_interp().map(|()| self.interp.run(budget))
        };
        self.passed += started.elapsed().as_nanos() as u64;
        self.left = Some((Instant::now(), self.bus.now()));
        exit.unwrap_or_else(|error| Exit::Dead(format!("processor {}: {error}", self.hart)))
    }

    fn store(&self) -> CpuState {
        if self.home == Home::Interp {
            return self.interp.cpu().into();
        }
        match self.export() {
            Ok(cpu) => cpu.into(),
            Err(error) => {
                log::error!(target: "kvm", "the state of processor {} is lost: {error}", self.hart);
                self.interp.cpu().into()
            }
        }
    }

    fn load(&mut self, state: CpuState) {
        match state {
            CpuState::X86(cpu) => self.interp.load(*cpu),
            CpuState::Riscv(_) => unreachable!("a machine's harts are of one instruction set"),
        }
        self.home = Home::Interp;
        self.tsc_unknown = true;
    }

    fn set_debug(&mut self, points: DebugPoints) {
        self.interp.set_debug(points.clone());
        self.points = points;
    }

    fn retired(&self) -> u64 {
        self.interp.retired()
    }

    fn passed(&self) -> u64 {
        self.passed
    }

    fn view(&self) -> HartView {
        if self.home == Home::Interp {
            return Engine::view(&self.interp);
        }
        let (rip, base) = self.vcpu.place();
        let (rflags, control, dpl) = self.vcpu.mode();
        let mode = super::state::mode_x86(control, rflags, dpl);
        HartView { pc: base.wrapping_add(rip), mode, waiting: self.halted }
    }

    fn count(&self, stats: &mut Stats) {
        Engine::count(&self.interp, stats);
        stats.device_accesses += self.device_accesses;
        stats.kvm.get_or_insert_default().add(&self.counters);
    }
}
