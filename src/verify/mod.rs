//! Lockstep: the same guest on two engines, compared as it runs, and the first block after which they differ.
//!
//! Both machines are deterministic and separate, and are typed the same. After every round of the deterministic
//! schedule (1000 instructions of each hart, or fewer) the whole state of every hart is compared; every so many
//! instructions, and at the end, the devices and all of memory are, too; console output always is. `locate` finds
//! out where a difference comes from, `report` tells it.

mod locate;
mod report;
mod side;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::machine::snapshot::SnapshotError;
use crate::machine::spec::{EngineKind, EngineSpec};
use crate::machine::stepped::Stop;
use crate::machine::{ConsoleIo, Machine, MachineError};

pub use locate::{Mismatch, Step};
pub use side::{Difference, Position, Typed, What};
use side::{Pair, Source, Variant};

/// Rounds that each machine runs before they are compared.
const BATCH: usize = 2_000;
/// Bytes that may follow a prompt: shells ask the terminal where the cursor is.
const PROMPT_REACH: usize = 16;

/// What to verify, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engines; the first one is taken for right.
    pub engines: [EngineSpec; 2],
    /// Stop after this many instructions of all harts.
    pub max_insns: Option<u64>,
    /// Stop after this many rounds.
    pub max_rounds: Option<u64>,
    /// Compare devices and memory every so many instructions.
    pub every: u64,
    /// Lines that are typed one after the other, each when the guest has printed `prompt` and then falls silent.
    pub script: Vec<Vec<u8>>,
    /// What the guest prints when it waits for a line.
    pub prompt: Vec<u8>,
    /// What is typed at certain moments, as a reproducer's command line has it.
    pub typed: Vec<Typed>,
    /// Translate each block when it is first met, and come back to the engine after each.
    pub isolate: bool,
    /// Folder for the reproducer of a mismatch, made when needed.
    pub reproducer: Option<PathBuf>,
}

impl Options {
    /// The interpreter against the translator, without limit.
    #[must_use]
    pub fn new() -> Self {
        Options {
            engines: [EngineKind::Interp.into(), EngineKind::Jit.into()],
            max_insns: None,
            max_rounds: None,
            every: 50_000_000,
            script: Vec::new(),
            prompt: b"# ".to_vec(),
            typed: Vec::new(),
            isolate: false,
            reproducer: None,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A machine cannot be made.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A snapshot cannot be written or read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The host failed.
    #[error("{0}")]
    Host(#[from] std::io::Error),
    /// An engine's thread panicked.
    #[error("an engine panicked: its message stands above")]
    Panicked,
}

/// What was compared.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Instructions of all harts that both machines have retired alike.
    pub insns: u64,
    /// Rounds after which the harts were compared.
    pub rounds: u64,
    /// How often devices and memory were.
    pub full_checks: u64,
    /// Why it ended.
    pub stop: Stop,
    /// Time that it took.
    pub time: Duration,
}

/// The result.
#[derive(Debug)]
pub enum Outcome {
    /// No difference to the end.
    Equal(Summary),
    /// They differ.
    Different(Summary, Box<Mismatch>),
}

/// What the verification says while it runs.
pub trait Listener {
    /// The guest printed this, on both machines.
    fn output(&mut self, _bytes: &[u8]) {}
    /// So far.
    fn progress(&mut self, _insns: u64, _time: Duration) {}
    /// A step in finding out where a difference comes from.
    fn step(&mut self, _text: &str) {}
}

/// Nobody listens.
#[derive(Debug)]
pub struct Silent;

impl Listener for Silent {}

/// Makes the machine to be verified: deterministic, and the same every time.
pub type Make<'a> = dyn Fn(ConsoleIo) -> Result<Machine, MachineError> + Sync + 'a;

/// Runs a guest on both engines until they differ or end.
///
/// # Errors
/// [`VerifyError`] if that cannot be said.
pub fn verify(
    make: &Make<'_>,
    options: &Options,
    listener: &mut dyn Listener,
) -> Result<Outcome, VerifyError> {
    let started = Instant::now();
    let variant = if options.isolate { Variant::Isolated } else { Variant::AsGiven };
    let source = Source::Start(make);
    let mut typed = options.typed.clone();
    let mut script = options.script.iter();
    let mut pair = Pair::new(&source, &options.engines, variant, &typed)?;
    let first = pair.insns();
    let limit = options.max_insns.map_or(u64::MAX, |insns| first.saturating_add(insns));
    let last = options.max_rounds.unwrap_or(u64::MAX);
    let mut checked = pair.position();
    let mut full_checks = 0;
    let mut tail: Vec<u8> = Vec::new();
    let (stop, difference) = loop {
        let rounds = pair.type_in(&typed, last);
        let (stop, difference) = pair.run(limit - pair.insns(), rounds)?;
        let output = pair.take_output();
        listener.output(&output);
        tail.extend(&output);
        tail.drain(..tail.len().saturating_sub(options.prompt.len() + PROMPT_REACH));
        listener.progress(pair.insns() - first, started.elapsed());
        if difference.is_some() {
            break (stop, difference);
        }
        let over = matches!(stop, Stop::Insns | Stop::Ended(_)) || pair.rounds() >= last;
        let prompt = &options.prompt;
        let prompted =
            output.is_empty() && tail.windows(prompt.len().max(1)).any(|at| at == prompt);
        let waits = stop == Stop::Asleep || prompted;
        let line = if waits && !over { script.next() } else { None };
        let over = over || stop == Stop::Asleep && line.is_none();
        if over || pair.insns() - checked.insns >= options.every {
            if let Some(difference) = pair.compare_all(checked)? {
                break (stop, Some(difference));
            }
            checked = pair.position();
            full_checks += 1;
        }
        if over {
            break (stop, None);
        }
        if let Some(line) = line {
            tail.clear();
            typed.push(Typed { round: pair.rounds(), bytes: line.clone() });
        }
    };
    let insns = difference.as_ref().map_or(pair.insns(), |found| found.equal.insns);
    let rounds = difference.as_ref().map_or(pair.rounds(), |found| found.equal.round);
    drop(pair);
    let summary =
        Summary { insns: insns - first, rounds, full_checks, stop, time: started.elapsed() };
    let Some(difference) = difference else { return Ok(Outcome::Equal(summary)) };
    let mismatch = locate::locate(make, options, &typed, difference, variant, listener)?;
    Ok(Outcome::Different(summary, Box::new(mismatch)))
}
