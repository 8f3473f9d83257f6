//! A deterministic machine that its owner runs, round by round and on the owner's thread: no event loop, no waiting
//! for the host's time, nothing that the guest could not repeat.

use std::io;
use std::sync::{Arc, Mutex};

use mimic_cpu::bus::{PAGE_SIZE, Width};
use mimic_cpu::riscv::hart::Hart;
use mimic_devices::memory::{VisibilityObserver, WriteObserver};
use mimic_devices::pflash::PFlash;
use mimic_jit::riscv::engine::Translation;

use super::event_loop::ConsoleInput;
use super::harts::Deterministic;
use super::plan::Plan;
use super::snapshot::{MachineState, SnapshotError};
use super::spec::{End, EngineSpec};
use super::{Machine, MachineError, Shared};
use crate::engine::HartEngine;
use crate::engine::kvm::KvmGuest;
use crate::loader::Isa;

/// A machine between two instructions of a deterministic run.
pub struct Stepped {
    all: Deterministic,
    shared: Arc<Shared>,
    console: Arc<ConsoleInput>,
    _flash: Vec<Arc<Mutex<PFlash>>>,
    _visibility: Arc<dyn VisibilityObserver>,
    _observers: Vec<Arc<dyn WriteObserver>>,
}

/// Why a machine stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// So many rounds have passed.
    Rounds,
    /// So many instructions have retired.
    Insns,
    /// Every hart waits, and no deadline will wake one: only input can.
    Asleep,
    /// The guest has ended.
    Ended(End),
}

/// The harts after every round, and after an incomplete last one.
#[derive(Debug, Default)]
pub struct Trail {
    /// Guest time, for each entry.
    pub times: Vec<u64>,
    /// The harts, for each entry all of them.
    pub harts: Vec<Hart>,
}

impl Trail {
    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.times.clear();
        self.harts.clear();
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The harts of an entry.
    #[must_use]
    pub fn at(&self, index: usize) -> &[Hart] {
        let harts = self.harts.len() / self.len().max(1);
        &self.harts[index * harts..(index + 1) * harts]
    }
}

impl Stepped {
    /// Takes a machine that is deterministic and has not run, and gives its harts to these engines.
    ///
    /// # Errors
    /// [`MachineError`] if the machine is not deterministic, or the host's.
    pub fn new(machine: Machine, spec: &EngineSpec) -> Result<Stepped, MachineError> {
        let Machine { harts, shared, timers, console, flash, _visibility, _observers, .. } =
            machine;
        if !shared.clock.is_deterministic() {
            let why = "this machine is not deterministic, so it does not run the same way twice";
            return Err(MachineError::Placement(why.into()));
        }
        if shared.config.cpu.isa() != Isa::Riscv64 {
            let why = "x86 machines are not run in steps yet: there is one engine alone for them";
            return Err(MachineError::Placement(why.into()));
        }
        let mut spec = spec.clone();
        spec.jit.background = false;
        let guest = Arc::new(KvmGuest::new(Arc::clone(&shared.memory)));
        let attach = |(engine, signals): super::harts::Loaded| {
            let (bus, pins, hart) = (Arc::clone(&shared.bus), Arc::clone(&signals), engine.store());
            let guest = Arc::clone(&guest);
            Ok((HartEngine::new(spec.clone(), hart, bus, pins, guest)?, signals))
        };
        let harts = harts.into_iter().map(attach).collect::<Result<_, MachineError>>()?;
        let left_turn = Arc::clone(&shared.turn);
        let turn = left_turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let all = Deterministic {
            harts,
            control: Arc::clone(&shared.control),
            clock: shared.clock.clone(),
            timers,
            insns: None,
            plan: Arc::new(Plan::new(&spec, Isa::Riscv64)),
            turn,
            left_turn,
            wake: None,
        };
        Ok(Stepped { all, shared, console, _flash: flash, _visibility, _observers })
    }

    /// Runs for at most so many instructions of all harts and so many rounds, and appends what the harts are after
    /// each.
    pub fn run(&mut self, insns: u64, rounds: usize, trail: &mut Trail) -> Stop {
        self.console.drain();
        self.all.insns = Some(insns);
        let end = trail.len() + rounds;
        loop {
            if let Some(end) = self.shared.control.take_end() {
                if !self.all.round_is_over() {
                    self.note(trail);
                }
                return Stop::Ended(end);
            }
            if trail.len() >= end {
                return Stop::Rounds;
            }
            if self.all.insns == Some(0) {
                if !self.all.round_is_over() {
                    self.note(trail);
                }
                return Stop::Insns;
            }
            if self.all.round_is_over() {
                if !self.all.end_round_at_once() {
                    return Stop::Asleep;
                }
                self.all.begin_round();
            }
            self.all.run_window();
            if self.all.round_is_over() {
                self.note(trail);
            }
        }
    }

    fn note(&self, trail: &mut Trail) {
        trail.times.push(self.shared.clock.now());
        trail.harts.extend(self.all_harts());
    }

    /// Types on the console.
    pub fn input(&self, bytes: &[u8]) {
        self.console.push(bytes);
    }

    /// Instructions that all harts have retired since they were made.
    #[must_use]
    pub fn retired(&self) -> u64 {
        self.all.harts.iter().map(|(engine, _)| engine.retired()).sum()
    }

    /// Whether the harts stand in the midst of a round.
    #[must_use]
    pub fn in_round(&self) -> bool {
        !self.all.round_is_over()
    }

    /// The hart whose turn it is.
    #[must_use]
    pub fn current(&self) -> usize {
        self.all.current()
    }

    /// The states of all harts.
    #[must_use]
    pub fn all_harts(&self) -> Vec<Hart> {
        self.all.harts.iter().map(|(engine, _)| hart(engine)).collect()
    }

    /// A hart's state.
    #[must_use]
    pub fn hart(&self, hart: usize) -> Hart {
        self::hart(&self.all.harts[hart].0)
    }

    /// Changes a hart's state.
    pub fn change_hart(&mut self, hart: usize, change: impl FnOnce(&mut Hart)) {
        let engine = &mut self.all.harts[hart].0;
        let mut state = self::hart(engine);
        change(&mut state);
        engine.load(state.into());
    }

    /// What the engine of a hart makes of the code where the hart is. The machine may have stepped on where that
    /// cannot be said, so it is of no more use.
    #[must_use]
    pub fn translation(mut self, hart: usize) -> Option<Translation> {
        self.all.harts[hart].0.translation()
    }

    /// The guest instruction at a hart's program counter (the low half alone of a compressed one), if it lies in
    /// memory.
    #[must_use]
    pub fn code(&self, hart: usize) -> Option<u32> {
        let hart = self.hart(hart);
        let half = |va: u64| {
            let gpa = hart.peek(&*self.shared.bus, va)?;
            let page = self.shared.bus.ram_page(gpa & !(PAGE_SIZE - 1))?;
            Some(page.host.load(gpa, Width::Half) as u32)
        };
        let low = half(hart.pc)?;
        if mimic_cpu::riscv::decode::insn_len(low) == 2 {
            return Some(low);
        }
        Some(low | half(hart.pc.wrapping_add(2))? << 16)
    }

    /// The name of the place `pc` in the image, if it has symbols there.
    #[must_use]
    pub fn symbolize(&self, pc: u64) -> Option<String> {
        self.shared.symbols.describe(pc)
    }

    /// Everything but the contents of memory.
    ///
    /// # Errors
    /// None in practice: [`SnapshotError`] is what saving shares.
    pub fn state(&self) -> Result<MachineState, SnapshotError> {
        use super::control::Standing;
        let samples: Vec<_> =
            self.all.samples().into_iter().map(|(_, sample)| Some(sample)).collect();
        MachineState::capture(&self.shared, &samples)
    }

    /// Saves the machine.
    ///
    /// # Errors
    /// [`SnapshotError`]; a file that was there is then unchanged.
    pub fn save(&self, path: &std::path::Path) -> Result<(), SnapshotError> {
        self.state()?.write(path, &self.shared.memory)
    }

    /// The first words (address, contents here, contents there) of memory in which two machines differ, at most
    /// `most`.
    ///
    /// # Errors
    /// The host's.
    pub fn memory_differences(
        &self,
        other: &Stepped,
        most: usize,
    ) -> io::Result<Vec<(u64, u64, u64)>> {
        super::snapshot::pages_differ(&self.shared.memory, &other.shared.memory, most)
    }
}

/// The hart on an engine of such a machine.
fn hart(engine: &HartEngine) -> Hart {
    match engine.store().riscv() {
        Some(hart) => hart,
        None => unreachable!("Stepped::new takes RISC-V machines alone"),
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        // Handles may outlive the machine; its devices, and the files they hold, must not.
        self.shared.unplug();
    }
}
