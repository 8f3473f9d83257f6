//! Engines: what makes a machine's harts go. Every engine of an instruction set runs the same canonical state, so a
//! hart can leave one and enter another.

mod hart;
pub mod kvm;
mod state;
mod x86;

use std::sync::Arc;

use mimic_cpu::bus::CpuBus;
use mimic_cpu::debug::DebugPoints;
use mimic_cpu::riscv::hart::{Hart, Mode};
use mimic_cpu::riscv::interp::Interp;
use mimic_cpu::run::{Budget, Exit};
use mimic_cpu::signals::Signals;

use mimic_jit::riscv::engine::{ExitCause, Jit, JitError, Translation};

use crate::machine::spec::{EngineKind, EngineSpec, HartView, JitStats, Stats};

use kvm::{KvmError, KvmGuest};

pub use hart::HartEngine;
pub use state::CpuState;

/// Why an engine cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The host refuses the translator what it needs.
    #[error("the translator cannot run: {0}{advice}", advice = advice(.0))]
    Jit(#[from] JitError),
    /// The translator does not know the guest's instruction set.
    #[error("there is no translator for x86-64 guests yet: run them with --engine interp or kvm")]
    NoTranslator,
    /// The host's KVM cannot be used.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The host's processor executes x86 code alone.
    #[error("KVM runs x86-64 guests alone: run RISC-V with --engine jit or interp")]
    KvmRiscv,
    /// KVM does not count instructions.
    #[error("a deterministic machine counts instructions, and KVM does not")]
    KvmDeterministic,
}

/// What the user can do.
fn advice(error: &JitError) -> &'static str {
    match error {
        JitError::CodeMemory { .. } => {
            "; --engine interp does without, and less may be granted (--jit-cache 1M)"
        }
        JitError::PerfMap(_) => "; leave --perf-map away",
    }
}

/// An engine with one hart loaded. The `Kick` handle of every engine is the hart's [`Signals`].
pub trait Engine: Send {
    /// Runs the hart until the budget is used up, it waits, it is beyond help, a debug point is reached, or it is kicked.
    fn run(&mut self, budget: Budget) -> Exit;
    /// The hart's canonical state.
    fn store(&self) -> CpuState;
    /// Continues from a state made outside, of the same instruction set.
    fn load(&mut self, state: CpuState);
    /// Its hart goes on on another engine, from the state that was stored.
    fn leave(&mut self) {}
    /// Sets where `run` shall end for a debugger; code that was written from outside counts from now on.
    fn set_debug(&mut self, points: DebugPoints);
    /// Instructions the hart has retired.
    fn retired(&self) -> u64;
    /// What budgets count, since the engine was made: instructions retired, or nanoseconds where instructions are not
    /// counted.
    fn passed(&self) -> u64 {
        self.retired()
    }
    /// Where the hart is.
    fn view(&self) -> HartView;
    /// Whether the hart waits where no interrupt that can be masked will ever be taken.
    fn is_deaf(&self) -> bool {
        false
    }
    /// Adds this engine's counters to `stats`, but not the hart's instructions.
    fn count(&self, stats: &mut Stats);
    /// What the engine makes of the code at the program counter, if it translates. It may have stepped on where that
    /// cannot be said.
    fn translation(&mut self) -> Option<Translation> {
        None
    }
}

/// Makes an engine of the given kind and loads `state` into it.
fn attach(
    kind: EngineKind,
    spec: &EngineSpec,
    state: CpuState,
    bus: Arc<dyn CpuBus>,
    signals: Arc<Signals>,
    guest: &KvmGuest,
) -> Result<Box<dyn Engine>, EngineError> {
    Ok(match (kind, state) {
        (EngineKind::Interp, CpuState::Riscv(hart)) => Box::new(Interp::new(*hart, bus, signals)),
        (EngineKind::Jit, CpuState::Riscv(hart)) => {
            Box::new(Jit::new(*hart, bus, signals, spec.jit.clone())?)
        }
        (EngineKind::Interp, CpuState::X86(cpu)) => {
            Box::new(mimic_cpu::x86::interp::Interp::new(*cpu, bus, signals))
        }
        (EngineKind::Jit, CpuState::X86(_)) => return Err(EngineError::NoTranslator),
        // That is what deterministic machines are.
        (EngineKind::Kvm, CpuState::X86(_)) if bus.coherent() => {
            return Err(EngineError::KvmDeterministic);
        }
        (EngineKind::Kvm, CpuState::X86(cpu)) => {
            Box::new(kvm::Kvm::new(guest, *cpu, bus, signals)?)
        }
        (EngineKind::Kvm, CpuState::Riscv(_)) => return Err(EngineError::KvmRiscv),
    })
}

/// The hart in `state`, for the engines that run RISC-V alone.
fn riscv(state: CpuState) -> Hart {
    match state {
        CpuState::Riscv(hart) => *hart,
        CpuState::X86(_) => unreachable!("a machine's harts are of one instruction set"),
    }
}

fn view((pc, mode, waiting): (u64, Mode, bool)) -> HartView {
    HartView { pc, mode: mode.name(), waiting }
}

fn count(interp: &Interp, stats: &mut Stats) {
    let counters = interp.counters();
    stats.tlb_misses += counters.tlb_misses + counters.fetch_misses;
    stats.blocks_decoded += counters.blocks_decoded;
    stats.device_accesses += counters.device_accesses;
}

impl Engine for Interp {
    fn run(&mut self, budget: Budget) -> Exit {
        Interp::run(self, budget)
    }

    fn store(&self) -> CpuState {
        self.hart().into()
    }

    fn load(&mut self, state: CpuState) {
        Interp::load(self, riscv(state));
    }

    fn set_debug(&mut self, points: DebugPoints) {
        Interp::set_debug(self, points);
    }

    fn retired(&self) -> u64 {
        Interp::retired(self)
    }

    fn view(&self) -> HartView {
        view(self.position())
    }

    fn count(&self, stats: &mut Stats) {
        count(self, stats);
    }
}

impl Engine for Jit {
    fn run(&mut self, budget: Budget) -> Exit {
        Jit::run(self, budget)
    }

    fn store(&self) -> CpuState {
        self.hart().into()
    }

    fn load(&mut self, state: CpuState) {
        Jit::load(self, riscv(state));
    }

    fn set_debug(&mut self, points: DebugPoints) {
        Jit::set_debug(self, points);
    }

    fn retired(&self) -> u64 {
        self.interp().retired()
    }

    fn view(&self) -> HartView {
        view(self.interp().position())
    }

    fn count(&self, stats: &mut Stats) {
        count(self.interp(), stats);
        let counters = self.counters();
        let exits = |cause: ExitCause| counters.exits[cause as usize];
        stats.jit.get_or_insert_default().add(&JitStats {
            blocks: counters.blocks,
            host_bytes: counters.bytes,
            held_bytes: counters.held,
            insns: counters.insns,
            regions: counters.regions,
            region_insns: counters.region_insns,
            samples: counters.samples,
            background: counters.background,
            time: counters.time,
            recycled: counters.recycled,
            links: counters.links,
            exits_event: exits(ExitCause::Event),
            exits_link: exits(ExitCause::Link),
            exits_lookup: exits(ExitCause::Lookup),
            exits_slice: exits(ExitCause::Slice),
            performed: counters.performed,
            interpreted: counters.interpreted,
        });
    }

    fn translation(&mut self) -> Option<Translation> {
        Jit::translation(self)
    }
}
