//! Two machines side by side.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use mimic_cpu::riscv::hart::Hart;
use mimic_devices::serial::SerialOutput;
use mimic_jit::options::JitOptions;

use super::{BATCH, Make, VerifyError};
use crate::machine::snapshot::{MachineState, Snapshot};
use crate::machine::spec::{EngineSpec, Limits, Resumption};
use crate::machine::stepped::{Stepped, Stop, Trail};
use crate::machine::{ConsoleIo, Machine};

/// Something typed at a moment that every run meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// After this round.
    pub round: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// A moment of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Rounds since the run began.
    pub round: u64,
    /// Instructions that all harts have retired.
    pub insns: u64,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The harts.
    Harts,
    /// Guest time.
    Time,
    /// Why the machines stand.
    Stop(Stop, Stop),
    /// The console's output.
    Output(Vec<u8>, Vec<u8>),
    /// Devices, by name, or where in the round the machines are.
    Devices(Vec<String>),
    /// Words of memory: address, contents on either side.
    Memory(Vec<(u64, u64, u64)>),
}

/// Two machines that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What, as far as it was looked at.
    pub what: What,
    /// The last moment at which they were found equal.
    pub equal: Position,
    /// The first at which they were not.
    pub different: Position,
}

/// Where a run begins.
pub(super) enum Source<'a> {
    /// Where the user's begins.
    Start(&'a Make<'a>),
    /// At a snapshot.
    Snapshot {
        /// Its file.
        path: PathBuf,
        /// Its moment.
        position: Position,
    },
}

impl Source<'_> {
    pub(super) fn round(&self) -> u64 {
        match self {
            Source::Start(_) => 0,
            Source::Snapshot { position, .. } => position.round,
        }
    }

    fn machine(&self, io: ConsoleIo) -> Result<Machine, VerifyError> {
        match self {
            Source::Start(make) => Ok(make(io)?),
            Source::Snapshot { path, .. } => {
                let (engine, limits) = (EngineSpec::default(), Limits::default());
                let how = Resumption { engine, limits, disks: Vec::new() };
                Ok(Machine::resume(Snapshot::open(path)?, &how, io)?)
            }
        }
    }
}

/// How translators work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// As the user said.
    AsGiven,
    /// Each block alone, and at first sight, so that what is run depends on nothing that was before.
    Isolated,
}

impl Variant {
    fn spec(self, given: &EngineSpec) -> EngineSpec {
        let mut spec = given.clone();
        if self == Variant::Isolated {
            spec.jit = JitOptions { threshold: 0, links: false, jumps: false, ..spec.jit };
        }
        spec
    }
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SerialOutput for Capture {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }
}

/// One machine.
pub(super) struct Side {
    pub(super) machine: Stepped,
    output: Capture,
    trail: Trail,
    rounds: u64,
    /// What of the typed has been typed, or lies before the beginning.
    typed: usize,
}

impl Side {
    pub(super) fn new(
        source: &Source<'_>,
        engine: &EngineSpec,
        variant: Variant,
        typed: &[Typed],
    ) -> Result<Side, VerifyError> {
        let output = Capture::default();
        let io = ConsoleIo { output: Box::new(output.clone()), input: None };
        let machine = source.machine(io)?;
        let machine = Stepped::new(machine, &variant.spec(engine))?;
        let rounds = source.round();
        let typed = typed.partition_point(|typed| typed.round < rounds);
        Ok(Side { machine, output, trail: Trail::default(), rounds, typed })
    }

    pub(super) fn position(&self) -> Position {
        Position { round: self.rounds, insns: self.machine.retired() }
    }

    fn run(&mut self, insns: u64, rounds: usize) -> Stop {
        self.trail.clear();
        let stop = self.machine.run(insns, rounds, &mut self.trail);
        // An incomplete round is none yet.
        self.rounds += self.trail.len() as u64;
        if matches!(stop, Stop::Insns) && self.machine.in_round() {
            self.rounds -= 1;
        }
        stop
    }

    /// Types what is to be typed now, and says how many rounds there are to `round` or the next such moment.
    pub(super) fn type_in(&mut self, typed: &[Typed], round: u64) -> usize {
        while let Some(now) = typed.get(self.typed).filter(|typed| typed.round <= self.rounds) {
            self.machine.input(&now.bytes);
            self.typed += 1;
        }
        let next = typed.get(self.typed).map_or(u64::MAX, |typed| typed.round);
        (next.min(round) - self.rounds).min(BATCH as u64) as usize
    }

    /// Runs to the end of round `round`, typing what is to be typed before it ends.
    pub(super) fn run_to(&mut self, round: u64, typed: &[Typed]) -> Stop {
        while self.rounds < round {
            let rounds = self.type_in(typed, round);
            match self.run(u64::MAX, rounds) {
                Stop::Rounds => {}
                stop => return stop,
            }
        }
        Stop::Rounds
    }

    /// Runs on for so many instructions.
    pub(super) fn run_insns(&mut self, insns: u64) -> Stop {
        self.run(insns, usize::MAX >> 1)
    }
}

/// Two machines, the first taken for right.
pub(super) struct Pair {
    pub(super) sides: [Side; 2],
}

impl Pair {
    pub(super) fn new(
        source: &Source<'_>,
        engines: &[EngineSpec; 2],
        variant: Variant,
        typed: &[Typed],
    ) -> Result<Pair, VerifyError> {
        let [a, b] = engines;
        let side = |engine| Side::new(source, engine, variant, typed);
        Ok(Pair { sides: [side(a)?, side(b)?] })
    }

    pub(super) fn rounds(&self) -> u64 {
        self.sides[0].rounds
    }

    pub(super) fn insns(&self) -> u64 {
        self.sides[0].machine.retired()
    }

    pub(super) fn position(&self) -> Position {
        self.sides[0].position()
    }

    /// Types what is to be typed now, and says how many rounds may pass before `round` and the next such moment.
    pub(super) fn type_in(&mut self, typed: &[Typed], round: u64) -> usize {
        let [a, b] = &mut self.sides;
        b.type_in(typed, round);
        a.type_in(typed, round)
    }

    /// What the first machine has printed since the last call.
    pub(super) fn take_output(&mut self) -> Vec<u8> {
        self.sides[1].output.take();
        self.sides[0].output.take()
    }

    /// Runs both, at the same time, for so many instructions or rounds, and compares the harts after every round and
    /// the output at the end.
    pub(super) fn run(
        &mut self,
        insns: u64,
        rounds: usize,
    ) -> Result<(Stop, Option<Difference>), VerifyError> {
        let before = self.position();
        let [a, b] = &mut self.sides;
        let (here, there) = std::thread::scope(|scope| {
            let other = scope.spawn(|| b.run(insns, rounds));
            (a.run(insns, rounds), other.join())
        });
        let there = there.map_err(|_| VerifyError::Panicked)?;
        let difference = self.compare_trails(before, &here, &there);
        Ok((here, difference))
    }

    fn compare_trails(&self, before: Position, here: &Stop, there: &Stop) -> Option<Difference> {
        let [a, b] = &self.sides;
        let insns = |harts: &[Hart]| harts.iter().map(|hart| hart.retired).sum();
        let mut equal = before;
        for entry in 0..a.trail.len().min(b.trail.len()) {
            let harts = a.trail.at(entry);
            let different = Position { round: equal.round + 1, insns: insns(harts) };
            let what = if harts != b.trail.at(entry) {
                What::Harts
            } else if a.trail.times[entry] != b.trail.times[entry] {
                What::Time
            } else {
                equal = different;
                continue;
            };
            return Some(Difference { what, equal, different });
        }
        let different = self.position();
        let what = {
            let outputs = [a, b]
                .map(|side| side.output.0.lock().unwrap_or_else(PoisonError::into_inner).clone());
            let [x, y] = outputs;
            if here != there || a.trail.len() != b.trail.len() {
                What::Stop(here.clone(), there.clone())
            } else if x != y {
                // The devices' states are not in the trail, so any round may have been the one.
                equal = before;
                What::Output(x, y)
            } else {
                return None;
            }
        };
        Some(Difference { what, equal, different })
    }

    /// Runs both to the end of round `round`, comparing the harts from their position on.
    pub(super) fn run_to(
        &mut self,
        round: u64,
        typed: &[Typed],
    ) -> Result<Option<Difference>, VerifyError> {
        while self.rounds() < round {
            let rounds = self.type_in(typed, round);
            let (stop, difference) = self.run(u64::MAX, rounds)?;
            if difference.is_some() || stop != Stop::Rounds {
                return Ok(difference);
            }
        }
        Ok(None)
    }

    /// Compares all of both machines; they were equal at `equal`.
    pub(super) fn compare_all(&self, equal: Position) -> Result<Option<Difference>, VerifyError> {
        let [a, b] = &self.sides;
        let (x, y) = (a.machine.state()?, b.machine.state()?);
        let what = if x == y {
            let words = a.machine.memory_differences(&b.machine, 16)?;
            if words.is_empty() {
                return Ok(None);
            }
            What::Memory(words)
        } else if x.harts != y.harts {
            What::Harts
        } else if x.time != y.time {
            What::Time
        } else {
            What::Devices(differing(&x, &y))
        };
        Ok(Some(Difference { what, equal, different: self.position() }))
    }
}

fn differing(x: &MachineState, y: &MachineState) -> Vec<String> {
    let pairs = x.devices.iter().zip(&y.devices);
    let names: Vec<String> = pairs
        .filter(|(a, b)| a != b)
        .map(|(a, _)| format!("{} at {:#x}", a.name, a.base))
        .collect();
    if names.is_empty() { vec!["the turn in the round".into()] } else { names }
}
