//! Where a difference comes from: the way back to a moment from which it can be shown in one go, and from there to the
//! first instruction after which the machines differ.
//!
//! Deterministic runs need no checkpoints: the first machine is run once more from the start and saved wherever a
//! nearer beginning may do. A snapshot begins with nothing translated, so a difference that hangs on what the
//! translator did before does not show from every one; the start itself is the last resort.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mimic_cpu::riscv::hart::Hart;
use mimic_cpu::riscv::insn::At;
use mimic_jit::riscv::engine::Translation;

use super::side::{Difference, Pair, Position, Side, Source, Typed, Variant, What};
use super::{Listener, Make, Options, VerifyError, report};
use crate::machine::stepped::Stop;

/// How far back beginnings are tried, in rounds.
const BACK: [u64; 4] = [0, 16, 1_000, 30_000];
/// Longest stretch of instructions that comes from one entry of translated code when blocks are isolated.
const REACH: u64 = mimic_cpu::riscv::decode::MAX_BLOCK as u64;

/// How long the round is searched for a moment at which the difference shows.
const PATIENCE: Duration = Duration::from_secs(60);

/// An instruction that the first machine executed.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its address.
    pub pc: u64,
    /// Its bits, if they can be read.
    pub word: Option<u32>,
}

/// A difference, and where it comes from.
#[derive(Debug)]
pub struct Mismatch {
    /// What was found first.
    pub found: Difference,
    /// What differs at [`at`](Self::at).
    pub what: What,
    /// The machines are equal after so many instructions, ...
    pub equal: u64,
    /// ... and differ after so many.
    pub at: u64,
    /// The difference shows when every block is translated alone: the block is named below for certain.
    pub isolated: bool,
    /// It does not show from a snapshot right before the round, only from an earlier one: what the translator did
    /// in between matters.
    pub history: bool,
    /// The hart that runs there.
    pub hart: usize,
    /// What it executed, up to [`at`](Self::at).
    pub steps: Vec<Step>,
    /// The name of the first step's place.
    pub symbol: Option<String>,
    /// What the translator makes of the block.
    pub translation: Option<Translation>,
    /// All harts of both machines at [`at`](Self::at).
    pub harts: [Vec<Hart>; 2],
    /// The snapshot from which the difference shows.
    pub snapshot: Option<PathBuf>,
    /// Arguments of `mimic verify` that show it from there, besides `--snapshot FILE` and how the translator works.
    pub replay: Vec<String>,
    /// All of this as text.
    pub text: String,
}

/// Where a difference shows, and how.
struct Shown<'a> {
    source: Source<'a>,
    variant: Variant,
    difference: Difference,
}

struct Hunt<'a> {
    make: &'a Make<'a>,
    options: &'a Options,
    typed: &'a [Typed],
    folder: &'a Path,
}

impl Hunt<'_> {
    fn pair(&self, source: &Source<'_>, variant: Variant) -> Result<Pair, VerifyError> {
        Pair::new(source, &self.options.engines, variant, self.typed)
    }

    /// Runs both machines to the end of round `to`, comparing all of them every `step` rounds from `from` on.
    fn hunt(
        &self,
        source: &Source<'_>,
        variant: Variant,
        (from, to, step): (u64, u64, u64),
    ) -> Result<Option<Difference>, VerifyError> {
        let mut pair = self.pair(source, variant)?;
        let mut difference = pair.run_to(from, self.typed)?;
        let (mut round, mut equal) = (from, pair.position());
        while difference.is_none() && round < to {
            round = (round + step).min(to);
            difference = pair.run_to(round, self.typed)?;
            if difference.is_none() {
                difference = pair.compare_all(equal)?;
                equal = pair.position();
            }
        }
        Ok(difference)
    }

    /// Saves the first machine at the ends of these rounds (ascending).
    fn snapshots(&self, rounds: &[u64]) -> Result<Vec<Source<'static>>, VerifyError> {
        let engine = &self.options.engines[0];
        let mut side = Side::new(&Source::Start(self.make), engine, Variant::AsGiven, self.typed)?;
        let mut made = Vec::new();
        for &round in rounds {
            if side.run_to(round, self.typed) != Stop::Rounds {
                break;
            }
            let path = self.folder.join(format!("round-{round}"));
            side.machine.save(&path)?;
            made.push(Source::Snapshot { path, position: side.position() });
        }
        Ok(made)
    }

    /// The variants that say something, the more telling first.
    fn variants(&self) -> &'static [Variant] {
        if self.options.isolate {
            &[Variant::Isolated]
        } else {
            &[Variant::Isolated, Variant::AsGiven]
        }
    }

    /// Tries sources and variants until one shows a difference by the end of round `to`.
    fn show<'a>(
        &self,
        sources: Vec<Source<'a>>,
        to: u64,
    ) -> Result<Option<Shown<'a>>, VerifyError> {
        for source in sources {
            let from = source.round();
            for &variant in self.variants() {
                if let Some(difference) =
                    self.hunt(&source, variant, (from, to, (to - from).max(1)))?
                {
                    return Ok(Some(Shown { source, variant, difference }));
                }
            }
        }
        Ok(None)
    }

    /// Narrows the difference down to one round.
    fn narrow(&self, shown: &mut Shown<'_>) -> Result<(), VerifyError> {
        loop {
            let (from, to) = (shown.difference.equal.round, shown.difference.different.round);
            if to - from <= 1 {
                return Ok(());
            }
            let range = (from, to, (to - from).div_ceil(16));
            match self.hunt(&shown.source, shown.variant, range)? {
                Some(difference) => shown.difference = difference,
                None => return Ok(()),
            }
        }
    }

    /// Both machines after round `round` and on to `insns` instructions in all.
    fn pair_at(
        &self,
        shown: &Shown<'_>,
        insns: u64,
    ) -> Result<(Pair, Option<Difference>), VerifyError> {
        let mut pair = self.pair(&shown.source, shown.variant)?;
        let mut difference = pair.run_to(shown.difference.equal.round, self.typed)?;
        if difference.is_none() {
            pair.type_in(self.typed, u64::MAX);
            let equal = pair.position();
            difference = pair.run(insns.saturating_sub(pair.insns()), usize::MAX >> 1)?.1;
            if difference.is_none() {
                difference = pair.compare_all(equal)?;
            }
        }
        Ok((pair, difference))
    }

    /// A number of instructions after which the machines differ although they do not after one less, if there is one
    /// in the round. A run that is stopped somewhere interprets what comes before, so a difference that soon goes away
    /// again does not show from everywhere.
    fn bisect(&self, shown: &Shown<'_>) -> Result<Option<u64>, VerifyError> {
        let (mut low, end) = (shown.difference.equal.insns, shown.difference.different.insns);
        let started = Instant::now();
        let coarse = (low + 1..=end).rev().step_by(REACH as usize / 2);
        let mut tries = coarse.chain((low + 1..=end).rev());
        let mut high = loop {
            let Some(insns) = tries.next() else { return Ok(None) };
            if self.pair_at(shown, insns)?.1.is_some() {
                break insns;
            }
            if started.elapsed() > PATIENCE {
                return Ok(None);
            }
        };
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.pair_at(shown, middle)?.1 {
                Some(_) => high = middle,
                None => low = middle,
            }
        }
        Ok(Some(high))
    }

    /// What the first machine executes from `from` to `to` instructions.
    fn steps(
        &self,
        shown: &Shown<'_>,
        from: u64,
        to: u64,
    ) -> Result<(usize, Vec<Step>, Option<String>), VerifyError> {
        let engine = &self.options.engines[0];
        let mut side = Side::new(&shown.source, engine, shown.variant, self.typed)?;
        side.run_to(shown.difference.equal.round, self.typed);
        side.type_in(self.typed, u64::MAX);
        side.run_insns(from.saturating_sub(side.machine.retired()));
        let (mut hart, mut steps) = (side.machine.current(), Vec::new());
        while side.machine.retired() < to {
            let machine = &mut side.machine;
            let before: Vec<_> = machine.all_harts();
            let words: Vec<_> = (0..before.len()).map(|hart| machine.code(hart)).collect();
            if side.run_insns(1) != Stop::Insns {
                break;
            }
            let after = side.machine.all_harts();
            let ran = (0..before.len()).find(|&i| before[i].retired != after[i].retired);
            hart = ran.unwrap_or(hart);
            steps.push(Step { pc: before[hart].pc, word: words[hart] });
        }
        let symbol = steps.first().and_then(|step| side.machine.symbolize(step.pc));
        Ok((hart, steps, symbol))
    }

    /// What a translator makes of the code after `insns` instructions.
    fn translation(
        &self,
        shown: &Shown<'_>,
        hart: usize,
        insns: u64,
    ) -> Result<Option<Translation>, VerifyError> {
        for engine in self.options.engines.iter().rev() {
            let mut side = Side::new(&shown.source, engine, shown.variant, self.typed)?;
            side.run_to(shown.difference.equal.round, self.typed);
            side.type_in(self.typed, u64::MAX);
            side.run_insns(insns.saturating_sub(side.machine.retired()));
            let translation = side.machine.translation(hart);
            if translation.is_some() {
                return Ok(translation);
            }
        }
        Ok(None)
    }
}

/// Index of the first step of the block in which the last one lies.
fn block_start(steps: &[Step]) -> usize {
    let follows = |pair: &[Step]| {
        let len = pair[0].word.map_or(0, mimic_cpu::riscv::decode::insn_len);
        pair[0].pc.wrapping_add(len) == pair[1].pc
    };
    steps.windows(2).rposition(|pair| !follows(pair)).map_or(0, |at| at + 1)
}

/// Finds out where `found` comes from.
pub(super) fn locate(
    make: &Make<'_>,
    options: &Options,
    typed: &[Typed],
    found: Difference,
    given: Variant,
    listener: &mut dyn Listener,
) -> Result<Mismatch, VerifyError> {
    let folder = tempfile::tempdir()?;
    let hunt = Hunt { make, options, typed, folder: folder.path() };
    listener.step(&format!(
        "a difference between {} and {} instructions; going back",
        found.equal.insns, found.different.insns
    ));
    let (equal, to) = (found.equal.round, found.different.round.max(found.equal.round + 1));
    let mut rounds = BACK.map(|back| equal.saturating_sub(back)).to_vec();
    rounds.sort_unstable();
    rounds.dedup();
    let mut sources = hunt.snapshots(&rounds)?;
    sources.reverse();
    let shown = match hunt.show(sources, to) {
        Ok(shown) => shown,
        // A machine with disks cannot go on from a snapshot alone.
        Err(VerifyError::Machine(error)) => {
            listener.step(&format!("no snapshot will do: {error}"));
            None
        }
        Err(error) => return Err(error),
    };
    let mut shown = match shown {
        Some(shown) => shown,
        None => {
            listener.step("it does not show from any snapshot; from the start, then");
            let source = Source::Start(make);
            let difference = hunt.hunt(&source, given, (0, to, to))?;
            let again = difference.is_some();
            if !again {
                listener.step("it does not show again: a run is not like the one before");
            }
            let difference = difference.unwrap_or_else(|| found.clone());
            let shown = Shown { source, variant: given, difference };
            if !again {
                return finish(&hunt, shown, found, None, listener);
            }
            shown
        }
    };
    listener.step("narrowing it down");
    hunt.narrow(&mut shown)?;
    let round = shown.difference.equal.round;
    if round > shown.source.round() || matches!(shown.source, Source::Start(_)) {
        let nearer = hunt.snapshots(&[round])?;
        if let Ok(Some(nearer)) = hunt.show(nearer, shown.difference.different.round) {
            shown = nearer;
        }
    }
    let at = hunt.bisect(&shown)?;
    finish(&hunt, shown, found, at, listener)
}

/// Gathers what there is to tell.
fn finish(
    hunt: &Hunt<'_>,
    shown: Shown<'_>,
    found: Difference,
    at: Option<u64>,
    listener: &mut dyn Listener,
) -> Result<Mismatch, VerifyError> {
    let isolated = shown.variant == Variant::Isolated;
    let Position { insns: first, round } = shown.difference.equal;
    let end = at.unwrap_or(shown.difference.different.insns);
    let (pair, difference) = hunt.pair_at(&shown, end)?;
    let harts = [0, 1].map(|side: usize| pair.sides[side].machine.all_harts());
    drop(pair);
    let from = end.saturating_sub(REACH).max(first);
    let (hart, mut steps, mut symbol) = hunt.steps(&shown, from, end)?;
    let mut block = from;
    if !isolated && at.is_some() {
        let start = block_start(&steps);
        block = from + start as u64;
        let (_, tail, name) = hunt.steps(&shown, block, end)?;
        (steps, symbol) = (tail, name);
    }
    let translation = match at {
        Some(_) => hunt.translation(&shown, hart, block)?,
        None => None,
    };
    let snapshot = match (&shown.source, &hunt.options.reproducer) {
        (Source::Snapshot { path, .. }, Some(folder)) => {
            std::fs::create_dir_all(folder)?;
            let kept = folder.join("snapshot");
            std::fs::copy(path, &kept)?;
            Some(kept)
        }
        _ => None,
    };
    let begun = shown.source.round();
    // By rounds, because a limit of instructions would have the end interpreted.
    let until = shown.difference.different.round.max(round + 1);
    let replay = report::replay(hunt.options, isolated, (begun, until), hunt.typed);
    let mut mismatch = Mismatch {
        what: difference
            .map_or_else(|| shown.difference.what.clone(), |difference| difference.what),
        found,
        equal: at.map_or(first, |at| at - 1),
        at: end,
        isolated,
        history: round > begun,
        hart,
        steps,
        symbol,
        translation,
        harts,
        snapshot,
        replay,
        text: String::new(),
    };
    mismatch.text = report::text(&mismatch, hunt.options);
    if let Some(folder) = &hunt.options.reproducer {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("report.txt"), &mismatch.text)?;
        listener.step(&format!("the reproducer is in {}", folder.display()));
    }
    Ok(mismatch)
}

/// Where the instructions of a translation lie, virtually.
pub(super) fn addresses(mismatch: &Mismatch, insns: &[(At, u32)]) -> Vec<u64> {
    let page = mismatch.steps.first().map_or(0, |step| step.pc & !0xfff);
    insns.iter().map(|(at, _)| page | at.offset()).collect()
}
