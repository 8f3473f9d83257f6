//! Choosing a region: what of a page was executed together, found by traces of the interpreter's blocks.

use mimic_cpu::bus::{PAGE_MASK, PAGE_SIZE};
use mimic_cpu::riscv::decode::MAX_BLOCK;

use super::lift::{Lifter, ModeKey};
use crate::ir::region::{Part, Region};
use crate::ir::{Block, Op};

/// Most parts.
const MAX_PARTS: usize = 40;
/// Most guest instructions.
const MAX_INSNS: usize = 800;
/// What is executed less than once in so many instructions is no part.
const SELDOM: usize = 400;
/// Instructions of a trace.
const TRACE_INSNS: u64 = 600;
/// Blocks of a trace.
const TRACE_BLOCKS: usize = 120;

/// What was executed, beginning with a place that is executed much.
#[derive(Debug, Default)]
pub struct Trace {
    /// Virtual address of the page that matters.
    page_va: u64,
    /// Instructions recorded since the last begin.
    insns: u64,
    blocks: usize,
    /// Blocks by their offsets, and how many instructions of them were executed; others than the page's as
    /// [`OUTSIDE`].
    steps: Vec<(u16, u16)>,
}

/// No offset in a page.
const OUTSIDE: u16 = 1;

impl Trace {
    /// Begins or continues at `pc`.
    pub fn begin(&mut self, pc: u64) {
        self.page_va = pc & !PAGE_MASK;
        (self.insns, self.blocks) = (0, 0);
        self.steps.push((OUTSIDE, 0));
    }

    /// `insns` instructions were executed from `pc` on. Whether that is enough.
    pub fn add(&mut self, pc: u64, insns: u64) -> bool {
        let inside = pc & !PAGE_MASK == self.page_va;
        let offset = if inside { (pc & PAGE_MASK) as u16 } else { OUTSIDE };
        self.steps.push((offset, insns.min(MAX_BLOCK as u64) as u16));
        self.insns += insns;
        self.blocks += 1;
        self.insns >= TRACE_INSNS || self.blocks >= TRACE_BLOCKS
    }
}

/// A line of instructions from a place to go to up to the next one, or to where it ends.
#[derive(Debug)]
struct Line {
    start: u64,
    /// Where its instructions lie.
    insns: Vec<u64>,
    /// Where its branches lead, by the number of instructions up to and with them.
    branches: Vec<(usize, i64)>,
    /// Where it leads in the end, if that is known.
    end: Option<i64>,
    /// Another line's start ended it.
    is_cut: bool,
    /// Its instructions that were executed.
    executed: usize,
    /// Lines and the outside that lead to it.
    from: usize,
    /// It is the end of another line.
    is_merged: bool,
}

impl Line {
    fn of(block: &Block) -> Line {
        let mut branches = Vec::new();
        let mut insn = 0;
        for (i, op) in (0..).zip(&block.ops) {
            while block.insns.get(insn).is_some_and(|next| next.first <= i) {
                insn += 1;
            }
            if let Op::Branch(_, target) = *op {
                branches.push((insn, target));
            }
        }
        let end = match block.ops.last() {
            Some(&Op::Goto(target)) => Some(target),
            _ => None,
        };
        Line {
            start: block.start,
            insns: block.insns.iter().map(|insn| insn.at.offset()).collect(),
            branches,
            end,
            is_cut: false,
            executed: 0,
            from: 0,
            is_merged: false,
        }
    }

    /// Ends it before the first of the other lines' starts.
    fn cut(&mut self, starts: &[u64]) {
        let at = (1..self.insns.len()).find(|&k| starts.contains(&self.insns[k]));
        if let Some(at) = at {
            self.end = Some(self.insns[at] as i64);
            self.insns.truncate(at);
            self.branches.retain(|&(insns, _)| insns <= at);
            self.is_cut = true;
        }
    }

    fn targets(&self) -> impl Iterator<Item = i64> {
        self.branches.iter().map(|&(_, target)| target).chain(self.end)
    }

    /// How often it was executed.
    fn times(&self) -> u32 {
        self.executed.div_ceil(self.insns.len().max(1)) as u32
    }
}

fn line_at(lines: &[Line], offset: i64) -> Option<usize> {
    lines.iter().position(|line| line.start as i64 == offset)
}

/// What a region consists of.
#[derive(Clone, Debug)]
pub struct Shape {
    lines: Vec<Outline>,
    crossings: u32,
}

/// A line of a [`Shape`].
#[derive(Clone, Copy, Debug)]
struct Outline {
    start: u64,
    times: u32,
    entry: bool,
    is_merged: bool,
}

impl Shape {
    /// Whether the region is entered at an offset in its page.
    #[must_use]
    pub fn is_entered_at(&self, offset: u64) -> bool {
        self.lines.iter().any(|line| line.start == offset && line.entry && !line.is_merged)
    }

    /// Lifts the region. `None` if one of its lines cannot be.
    pub fn lift(
        &self,
        lifter: &mut Lifter,
        read: impl Fn(u64) -> u16,
        mode: ModeKey,
    ) -> Option<Region> {
        let starts = |at: u64, is_merged| {
            self.lines.iter().any(|line| line.start == at && line.is_merged == is_merged)
        };
        let (stops, follows) = (|at: u64| starts(at, false), |at: u64| starts(at, true));
        let mut region = Region { parts: Vec::new(), crossings: self.crossings };
        for line in self.lines.iter().filter(|line| !line.is_merged) {
            let block = lifter.lift_line(&read, line.start, mode, stops, follows)?;
            let part = Part { block: block.clone(), times: line.times, entry: line.entry };
            region.parts.push(part);
        }
        Some(region)
    }
}

/// The region of what `trace` has found around `head` in a page, whose 16 bits at an offset `read` gives; where the
/// page `is_known` to be entered, so is the region.
pub fn choose(
    lifter: &mut Lifter,
    read: impl Fn(u64) -> u16,
    head: u64,
    mode: ModeKey,
    trace: &Trace,
    is_known: impl Fn(u64) -> bool,
) -> Shape {
    let mut lines = find(lifter, &read, head, mode, trace);
    weigh(&mut lines, trace);
    let executed: usize = lines.iter().map(|line| line.executed).sum();
    lines.retain(|line| line.executed * SELDOM > executed || line.start == head);
    lines.iter_mut().for_each(|line| line.executed = 0);
    let crossings = weigh(&mut lines, trace);
    connect(&mut lines);
    merge(&mut lines, head);
    let lines = lines.iter().map(|line| Outline {
        start: line.start,
        times: line.times(),
        entry: line.start == head || is_known(line.start),
        is_merged: line.is_merged,
    });
    Shape { lines: lines.collect(), crossings }
}

/// The lines that begin where blocks of the trace do, each cut where the next begins, in the page's order.
fn find(
    lifter: &mut Lifter,
    read: impl Fn(u64) -> u16,
    head: u64,
    mode: ModeKey,
    trace: &Trace,
) -> Vec<Line> {
    let mut starts = vec![head];
    for &(offset, _) in trace.steps.iter().filter(|step| step.0 != OUTSIDE) {
        if !starts.contains(&offset.into()) && starts.len() < MAX_PARTS {
            starts.push(offset.into());
        }
    }
    let mut lines: Vec<Line> = Vec::new();
    let mut insns = 0;
    for &start in &starts {
        let Some(block) = lifter.lift_block(&read, start, mode) else { continue };
        let mut line = Line::of(block);
        line.cut(&starts);
        insns += line.insns.len();
        if insns > MAX_INSNS {
            break;
        }
        lines.push(line);
    }
    lines.sort_by_key(|line| line.start);
    lines
}

/// Counts what was executed of each line, and how often lines were entered and left.
fn weigh(lines: &mut [Line], trace: &Trace) -> u32 {
    let mut crossings = 0;
    let mut inside = false;
    for &(offset, insns) in &trace.steps {
        let mut insns = usize::from(insns);
        let mut next = line_at(lines, offset.into());
        crossings += u32::from(inside != next.is_some());
        inside = next.is_some();
        while let Some(k) = next.filter(|_| insns > 0) {
            let line = &mut lines[k];
            let executed = insns.min(line.insns.len());
            line.executed += executed;
            insns -= executed;
            next = line.end.filter(|_| line.is_cut).and_then(|end| line_at(lines, end));
        }
    }
    crossings
}

/// Counts from where each line is reached.
fn connect(lines: &mut [Line]) {
    for k in 0..lines.len() {
        let targets: Vec<_> = lines[k].targets().collect();
        for target in targets {
            if let Some(next) = line_at(lines, target) {
                lines[next].from += 1;
            }
        }
    }
}

/// Puts lines that are reached by one jump alone at the end of the line that ends by it.
fn merge(lines: &mut [Line], head: u64) {
    let mut lens: Vec<_> = lines.iter().map(|line| line.insns.len()).collect();
    let mut ends: Vec<_> = (0..lines.len()).collect();
    for k in 0..lines.len() {
        while !lines[k].is_merged {
            let end = &lines[ends[k]];
            let next = end.end.filter(|&at| !end.is_cut && (0..PAGE_SIZE as i64).contains(&at));
            let Some(next) = next.and_then(|at| line_at(lines, at)) else { break };
            let line = &mut lines[next];
            let alone = line.from == 1 && line.start != head && next != k && !line.is_merged;
            if !alone || lens[k] + lens[next] > MAX_BLOCK {
                break;
            }
            line.is_merged = true;
            lens[k] += lens[next];
            ends[k] = ends[next];
        }
    }
}
