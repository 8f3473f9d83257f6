//! The life of the harts: one thread each, or all of them in turn on one thread when the run shall be
//! deterministic.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mimic_cpu::run::{Budget, Exit};
use mimic_cpu::signals::Signals;
use mimic_devices::clock::{Clock, TimerQueue};
use rustix::time::ClockId;
use serde::{Deserialize, Serialize};

use crate::engine::HartEngine;

use super::control::{Control, Sample, Standing};
use super::cpu_time;
use super::plan::Plan;
use super::rendezvous::Rendezvous;
use super::sleep::{self, Wake};
use super::spec::{End, EngineKind, Stats};

/// A hart's engine and its signals.
pub(super) type Loaded = (HartEngine, Arc<Signals>);

/// What a hart leaves for others.
fn sample(engine: &HartEngine, hart_time: Duration) -> Sample {
    let mut stats = Stats { hart_time, ..Stats::default() };
    engine.count(&mut stats);
    Sample { view: engine.view(), stats, hart: engine.store() }
}

/// The one hart of a thread.
struct Single {
    index: usize,
    engine: HartEngine,
}

impl Standing for Single {
    fn harts(&self) -> Range<usize> {
        self.index..self.index + 1
    }

    fn samples(&self) -> Vec<(usize, Sample)> {
        vec![(self.index, sample(&self.engine, cpu_time(ClockId::ThreadCPUTime)))]
    }

    fn engine(&mut self, _hart: usize) -> &mut HartEngine {
        &mut self.engine
    }
}

/// Instructions that all harts together may still retire, handed out in portions.
pub(super) struct Allowance(Option<AtomicU64>);

impl Allowance {
    /// Small enough that no hart starves while another holds the rest.
    const PORTION: u64 = 1_000_000;

    pub(super) fn new(insns: Option<u64>) -> Self {
        Allowance(insns.map(AtomicU64::new))
    }

    /// A portion, `None` without a limit; `Some(0)` when all is used up.
    fn take(&self) -> Option<u64> {
        let left = self.0.as_ref()?;
        let mut portion = 0;
        let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            portion = left.min(Self::PORTION);
            Some(left - portion)
        });
        Some(portion)
    }

    /// Gives back what was not used of a portion.
    fn give_back(&self, insns: u64) {
        if let Some(left) = &self.0 {
            left.fetch_add(insns, Ordering::Relaxed);
        }
    }
}

/// Whether so many harts, each on a thread of its own, outnumber the host's cores.
pub(super) fn crowded(harts: usize) -> bool {
    harts > std::thread::available_parallelism().map_or(1, usize::from)
}

/// Instructions after which a hart gives way to others where harts outnumber the host's cores.
const TURN: u64 = 50_000;

/// The life of a hart's thread.
pub(super) fn run_hart(
    index: usize,
    (engine, signals): Loaded,
    control: &Control,
    rendezvous: &Rendezvous,
    allowance: &Allowance,
    plan: &Plan,
    crowded: bool,
) {
    let mut hart = Single { index, engine };
    let guard = PanicGuard { control, harts: index..index + 1 };
    while !control.ended() {
        control.safepoint(&mut hart);
        let engine = &mut hart.engine;
        let mut insns = allowance.take();
        if insns == Some(0) {
            control.end(End::InsnLimit);
            break;
        }
        // On KVM turns are the host's business.
        let mut most = if crowded && engine.kind() != EngineKind::Kvm { TURN } else { u64::MAX };
        if !plan.is_empty() {
            let (kind, left) = plan.next();
            follow(engine, kind, control);
            most = if engine.kind() == EngineKind::Kvm { left } else { most.min(left) };
        }
        if most != u64::MAX {
            let turn = insns.map_or(most, |insns| insns.min(most));
            allowance.give_back(insns.map_or(0, |insns| insns - turn));
            insns = Some(turn);
        }
        let before = engine.passed();
        control.hears(index);
        rendezvous.set_running(index, true);
        let exit = engine.run(Budget { insns });
        rendezvous.set_running(index, false);
        let passed = engine.passed() - before;
        if let Some(insns) = insns {
            // Time is not kept to the nanosecond.
            allowance.give_back(insns.saturating_sub(passed));
        }
        if !plan.is_empty() {
            plan.advance(passed);
        }
        match exit {
            // The hart may be spinning for another one that has no core.
            Exit::Budget if crowded => std::thread::yield_now(),
            Exit::Budget => {}
            Exit::Halted => {
                if hart.engine.is_deaf() {
                    control.is_deaf(index);
                }
                signals.park(None);
            }
            Exit::Debug(event) => control.debug_event(index, event),
            Exit::Dead(why) => control.end(End::Died(why)),
        }
    }
    std::mem::forget(guard);
    for (index, sample) in hart.samples() {
        control.leave(index, sample);
    }
}

/// Changes to the planned engine. Without it the run cannot be what was asked for, and ends.
fn follow(engine: &mut HartEngine, kind: EngineKind, control: &Control) {
    if let Err(error) = engine.switch(kind) {
        control.end(End::Host(error.to_string()));
    }
}

/// Ends the machine when a hart's thread panics: nobody shall wait for its harts.
struct PanicGuard<'a> {
    control: &'a Control,
    harts: Range<usize>,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        self.control.end(End::Host("a thread of the emulator panicked".into()));
        for _ in self.harts.clone() {
            self.control.leave_without_sample();
        }
    }
}

/// Guest time that a retired instruction takes in a deterministic run, in nanoseconds.
const NS_PER_INSN: u64 = 1;
/// Instructions that each hart runs in turn. Guest time stands still inside a window, so that what a hart
/// sees does not depend on how an engine cuts its work into blocks.
const WINDOW: u64 = 1_000;

/// Where a deterministic run is between two instructions: it goes on from here exactly as if it had never
/// stopped. A round gives each hart a window in turn, then guest time moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turn {
    /// Whose turn it is; the number of harts at the end of a round.
    hart: usize,
    /// Instructions of the round's windows.
    window: u64,
    /// Instructions that are left of this hart's window.
    left: u64,
    /// Harts that were found waiting for an interrupt.
    halted: Vec<bool>,
}

impl Turn {
    /// Before the first round.
    pub(super) fn new(harts: usize) -> Self {
        Turn { hart: harts, window: 0, left: 0, halted: vec![false; harts] }
    }

    /// Whether this can be a turn of a machine with so many harts.
    pub(super) fn is_legal(&self, harts: usize) -> bool {
        let Turn { hart, window, left, halted } = self;
        *hart <= harts && left <= window && *window <= WINDOW && halted.len() == harts
    }
}

/// Runs all harts on the calling thread: the same guest with the same input does the same every time.
pub(super) struct Deterministic {
    pub(super) harts: Vec<Loaded>,
    pub(super) control: Arc<Control>,
    pub(super) clock: Clock,
    pub(super) timers: TimerQueue,
    /// Instructions that all harts together may retire.
    pub(super) insns: Option<u64>,
    pub(super) plan: Arc<Plan>,
    pub(super) turn: Turn,
    /// Where the turn is left for others, with the harts' samples.
    pub(super) left_turn: Arc<Mutex<Turn>>,
    /// How the machine wakes, if it may sleep.
    pub(super) wake: Option<Arc<Wake>>,
}

impl Deterministic {
    pub(super) fn run(mut self) {
        let started = Instant::now();
        let first = self.clock.now();
        let control = Arc::clone(&self.control);
        let guard = PanicGuard { control: &control, harts: 0..self.harts.len() };
        while !self.control.ended() {
            Arc::clone(&control).safepoint(&mut self);
            if self.insns == Some(0) {
                self.control.end(End::InsnLimit);
                break;
            }
            if self.control.is_asleep() {
                self.sleep(started, first);
            } else if !self.round_is_over() {
                self.run_window();
            } else {
                self.end_round(started, first);
                self.begin_round();
            }
        }
        std::mem::forget(guard);
        for (index, sample) in self.samples() {
            self.control.leave(index, sample);
        }
    }

    /// The guest has suspended the machine: time jumps from deadline to deadline, until one wakes it.
    fn sleep(&mut self, started: Instant, first: u64) {
        // Nobody else takes these calls, and who sleeps would be woken by them for ever.
        self.harts.iter().for_each(|(_, signals)| signals.take_attention());
        self.timers.fire_due(self.clock.now());
        if !self.control.is_woken() {
            self.idle(started, first);
            return;
        }
        if let Some(wake) = &self.wake {
            let Some(states) = wake.reset(&self.control) else {
                return self.control.end(End::Reset);
            };
            for ((engine, signals), state) in self.harts.iter_mut().zip(states) {
                sleep::load(engine, state);
                signals.call_attention();
            }
        }
        self.turn = Turn::new(self.harts.len());
        self.control.end_sleep();
    }

    /// Whether every hart has had its window: [`end_round`](Self::end_round) comes next.
    pub(super) fn round_is_over(&self) -> bool {
        self.turn.hart == self.harts.len()
    }

    /// The hart whose turn it is, or was last.
    pub(super) fn current(&self) -> usize {
        self.turn.hart.min(self.harts.len() - 1)
    }

    /// Ends a round without waiting for anything: if all harts wait, guest time jumps to the next deadline. False
    /// if there is none.
    pub(super) fn end_round_at_once(&mut self) -> bool {
        if !self.turn.halted.iter().all(|&halted| halted) {
            self.clock.advance_to(self.clock.now() + self.turn.window * NS_PER_INSN);
            return true;
        }
        if self.harts.iter().any(|(_, signals)| signals.needs_attention()) {
            return true;
        }
        let Some(next) = self.timers.next_deadline() else { return false };
        self.clock.advance_to(next);
        true
    }

    pub(super) fn begin_round(&mut self) {
        let now = self.clock.now();
        self.timers.fire_due(now);
        let window = self.timers.next_deadline().map_or(WINDOW, |deadline| {
            WINDOW.min(deadline.saturating_sub(now).div_ceil(NS_PER_INSN)).max(1)
        });
        self.turn.window = window;
        self.turn.left = window;
        self.turn.hart = 0;
    }

    fn end_round(&mut self, started: Instant, first: u64) {
        if self.turn.halted.iter().all(|&halted| halted) {
            if self
                .harts
                .iter()
                .all(|(engine, signals)| engine.is_deaf() && !signals.needs_attention())
            {
                self.control.end_if_nothing_wakes();
            }
            self.idle(started, first);
        } else {
            self.clock.advance_to(self.clock.now() + self.turn.window * NS_PER_INSN);
        }
    }

    /// Runs the hart whose turn it is, and passes the turn on when its window is used up.
    pub(super) fn run_window(&mut self) {
        let control = Arc::clone(&self.control);
        let hart = self.turn.hart;
        if control.is_frozen(hart) {
            self.turn.halted[hart] = true;
        } else if !self.turn.halted[hart] || self.harts[hart].1.needs_attention() {
            self.turn.halted[hart] = false;
            let planned = if self.plan.is_empty() { u64::MAX } else { self.plan.next().1 };
            let insns = self.turn.left.min(planned).min(self.insns.unwrap_or(u64::MAX));
            let target = self.harts[hart].0.retired() + insns;
            // A kick (a look from outside) and the debugger interrupt the window but do not end it.
            let left = loop {
                let engine = &mut self.harts[hart].0;
                let left = target.saturating_sub(engine.retired()).min(insns);
                let stopped = control.ended() || control.is_frozen(hart) || control.is_asleep();
                if left == 0 || stopped {
                    break left;
                }
                match engine.run(Budget { insns: Some(left) }) {
                    Exit::Budget => {}
                    Exit::Debug(event) => {
                        control.debug_event(hart, event);
                        control.safepoint(self);
                    }
                    Exit::Halted => {
                        self.turn.halted[hart] = true;
                        break target.saturating_sub(self.harts[hart].0.retired()).min(insns);
                    }
                    Exit::Dead(why) => control.end(End::Died(why)),
                }
            };
            self.turn.left -= insns - left;
            if let Some(limit) = &mut self.insns {
                *limit -= insns - left;
            }
            if !self.plan.is_empty() {
                self.plan.advance(insns - left);
                let (kind, _) = self.plan.next();
                self.harts.iter_mut().for_each(|(engine, _)| follow(engine, kind, &control));
            }
        }
        if self.turn.halted[hart] || self.turn.left == 0 {
            self.turn.hart += 1;
            self.turn.left = self.turn.window;
        }
    }

    /// Every hart waits: guest time jumps to the next deadline. The host sleeps if guest time is ahead of
    /// it, until then or until something happens.
    fn idle(&self, started: Instant, first: u64) {
        // The harts may have armed timers before they went to sleep.
        let next = self.timers.next_deadline().map(|next| next.max(self.clock.now()));
        let ahead = |next: u64| {
            let real = started.elapsed().as_nanos() as u64;
            Duration::from_nanos((next - first).saturating_sub(real))
        };
        // Only one hart's signals can be slept on; a short sleep finds what the others were told.
        let nap = if self.harts.len() > 1 { Duration::from_millis(10) } else { Duration::MAX };
        match next.map(ahead) {
            Some(Duration::ZERO) => {}
            Some(ahead) => self.harts[0].1.park(Some(ahead.min(nap))),
            None => self.harts[0].1.park(Some(nap)),
        }
        let woken = self.harts.iter().any(|(_, signals)| signals.needs_attention());
        if let Some(next) = next
            && !woken
            && !self.control.ended()
            && ahead(next) == Duration::ZERO
        {
            self.clock.advance_to(next);
        }
    }
}

impl Standing for Deterministic {
    fn harts(&self) -> Range<usize> {
        0..self.harts.len()
    }

    fn engine(&mut self, hart: usize) -> &mut HartEngine {
        &mut self.harts[hart].0
    }

    fn makes_time(&self) -> bool {
        true
    }

    /// Leaves the turn, too. The one thread's time is booked on hart 0.
    fn samples(&self) -> Vec<(usize, Sample)> {
        *self.left_turn.lock().unwrap_or_else(PoisonError::into_inner) = self.turn.clone();
        let time = cpu_time(ClockId::ThreadCPUTime);
        let share = |index| if index == 0 { time } else { Duration::ZERO };
        let harts = self.harts.iter().enumerate();
        harts.map(|(index, (engine, _))| (index, sample(engine, share(index)))).collect()
    }
}
