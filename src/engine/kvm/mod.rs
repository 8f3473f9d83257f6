//! KVM as an engine of x86-64 guests: the host's processor executes the guest's code as it is.
//!
//! ```text
//! vm.rs        /dev/kvm, one virtual machine for all processors of a machine, memory, filtered MSRs
//! cpuid.rs     what CPUID says
//! vcpu.rs      one vCPU: KVM_RUN, why it was left, transfer of state
//! state.rs     the structures of that transfer
//! kick.rs      how a vCPU is called back
//! mod.rs       the engine: its run
//! exits.rs     what is done about every exit
//! handover.rs  the state's way from the interpreter to the vCPU and back
//! probe.rs     what kind of KVM this is
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
//! of it when they are entered, and harts that are still interpreted while others are here already drop theirs whenever
//! they would look what has changed.

mod cpuid;
mod exits;
mod handover;
mod kick;
pub mod probe;
mod state;
mod vcpu;
mod vm;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mimic_cpu::bus::{CpuBus, line};
use mimic_cpu::debug::DebugPoints;
use mimic_cpu::run::{Budget, Exit};
use mimic_cpu::signals::Signals;
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::interp::Interp;
use mimic_cpu::x86::model::Model;
use mimic_cpu::x86::state::{Activity, Cpu};

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

/// What processors have lost, or have, to run on KVM here.
pub struct Fit {
    /// The names of the features that they lose.
    pub lost: String,
    /// What their time-stamp counters show at the start, where KVM cannot set them: the host's value. Zero elsewhere.
    pub tsc: u64,
}

/// Makes `model` one that KVM here can be.
///
/// # Errors
/// There is no KVM, or it refuses.
pub fn fit(model: &mut Model) -> Result<Fit, KvmError> {
    vm::fit(model)
}

/// Least time for which the guest runs.
const LEAST: Duration = Duration::from_micros(100);
/// A difference between guest time and host time that only a pause makes.
const PAUSE: Duration = Duration::from_millis(1);

fn host(what: &'static str) -> impl FnOnce(io::Error) -> KvmError {
    move |source| KvmError::Host { what, source }
}

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

    /// Runs for the budget's time on this thread.
    fn run_timed(&mut self, time: Option<Duration>) -> Result<Exit, KvmError> {
        let _running = Running::enter(self.vcpu.immediate_exit(), &self.caller)
            .map_err(host("a signal for KVM"))?;
        if time.is_some() {
            self.alarm()?.set(time);
        }
        let result = self.run_guest(time.map(|time| Instant::now() + time));
        if time.is_some() {
            self.alarm()?.set(None);
        }
        let mut exit = result?;
        if let Some(dead) = self.release_traps()? {
            exit = dead;
        }
        self.settle().map(|()| exit)
    }

    /// The timer that calls this thread back from the guest.
    fn alarm(&mut self) -> Result<&Alarm, KvmError> {
        let alarm = match self.alarm.take() {
            Some(alarm) if alarm.is_of_this_thread() => alarm,
            _ => Alarm::new().map_err(host("a timer for KVM"))?,
        };
        Ok(self.alarm.insert(alarm))
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
        self.move_home();
        self.tsc_unknown = true;
    }

    fn leave(&mut self) {
        self.move_home();
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
