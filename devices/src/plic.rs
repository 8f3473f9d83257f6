//! Platform-level interrupt controller.
//!
//! Source: RISC-V PLIC specification 1.0.0. Every source has a level-triggered gateway: a request
//! that it passed on stays pending although the level drops, and the next one is passed on only
//! after completion (section "Interrupt Gateways").
//!
//! When that next one comes is the gateway's affair. A driver that never makes its device lower the line
//! (xv6's of 2022 does not read the UART's IIR) would spend every hart's time in its handler, so a source
//! that stays high through [`STORM`] completions is then passed on once in [`STORM_DELAY`] only, as the
//! IOAPICs of KVM and QEMU do with level-triggered inputs.

use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check, lock, word_only};
use crate::clock::{Clock, Timer, TimerQueue};
use crate::irq::{IrqLine, IrqSink};

/// Bytes that the device takes on the bus with room for every context of the specification.
pub const SIZE: u64 = 0x400_0000;
/// The highest priority; 0 is "never".
pub const MAX_PRIORITY: u32 = 7;
/// The highest source number that the specification allows.
pub const MAX_SOURCES: u32 = 1023;

const PENDING: u64 = 0x1000;
const ENABLE: u64 = 0x2000;
const ENABLE_STRIDE: u64 = 0x80;
const CONTEXT: u64 = 0x20_0000;
const CONTEXT_STRIDE: u64 = 0x1000;
const THRESHOLD: u64 = 0;
const CLAIM: u64 = 4;

/// Completions in a row, the level high all the time, after which a source is slowed down.
pub const STORM: u32 = 1000;
/// Time between completion and the next request of such a source, in nanoseconds of guest time.
pub const STORM_DELAY: u64 = 5_000_000;

const VERSION: u32 = 2;

/// The device. As an [`IrqSink`] its inputs are the source numbers.
pub struct Plic {
    // What the board attached: one line per context.
    lines: Vec<IrqLine>,
    clock: Clock,
    timer: Timer,

    // What the guest can tell, and the levels at the gateways.
    state: PlicState,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PlicState {
    /// By source number; entry 0 is never used.
    priority: Vec<u32>,
    /// Bit sets by source number, 32 to a word as in the registers.
    level: Vec<u32>,
    pending: Vec<u32>,
    /// The gateway passed a request on and has not seen its completion.
    in_service: Vec<u32>,
    /// By source number: completions since the level was low.
    repeats: Vec<u32>,
    /// Completed, the level high, and not passed on before `held_until`.
    held: Vec<u32>,
    held_until: Option<u64>,
    contexts: Vec<ContextState>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ContextState {
    enable: Vec<u32>,
    threshold: u32,
}

impl PlicState {
    fn new(sources: u32, contexts: usize) -> Self {
        let words = || vec![0; sources as usize / 32 + 1];
        let context = || ContextState { enable: words(), threshold: 0 };
        Self {
            priority: vec![0; sources as usize + 1],
            level: words(),
            pending: words(),
            in_service: words(),
            repeats: vec![0; sources as usize + 1],
            held: words(),
            held_until: None,
            contexts: (0..contexts).map(|_| context()).collect(),
        }
    }
}

fn bit(set: &[u32], source: u32) -> bool {
    set.get(source as usize / 32).is_some_and(|word| word >> (source % 32) & 1 != 0)
}

fn set_bit(set: &mut [u32], source: u32, value: bool) {
    if let Some(word) = set.get_mut(source as usize / 32) {
        let mask = 1 << (source % 32);
        *word = if value { *word | mask } else { *word & !mask };
    }
}

impl Plic {
    /// A PLIC with the sources 1 to `sources` (the device tree's `riscv,ndev`, at most
    /// [`MAX_SOURCES`]) and one context per line, numbered in the order given.
    pub fn new(
        sources: u32,
        contexts: Vec<IrqLine>,
        clock: Clock,
        timers: &TimerQueue,
    ) -> Arc<Mutex<Self>> {
        Arc::new_cyclic(|plic: &Weak<Mutex<Self>>| {
            let plic = plic.clone();
            let timer = timers.register(Arc::new(move |now| {
                if let Some(plic) = plic.upgrade() {
                    lock(&plic).end_delay(now);
                }
            }));
            let state = PlicState::new(sources.min(MAX_SOURCES), contexts.len());
            Mutex::new(Self { lines: contexts, clock, timer, state })
        })
    }

    /// The highest source number.
    pub fn sources(&self) -> u32 {
        self.state.priority.len() as u32 - 1
    }

    /// The bits of word `index` that stand for sources.
    fn valid(&self, index: usize) -> u32 {
        let first = index as u32 * 32;
        (0..32).filter(|i| (1..=self.sources()).contains(&(first + i))).fold(0, |m, i| m | 1 << i)
    }

    fn set_source(&mut self, source: u32, level: bool) {
        if source == 0 || source > self.sources() {
            return;
        }
        set_bit(&mut self.state.level, source, level);
        if level {
            self.forward(source);
            self.update();
        } else {
            self.state.repeats[source as usize] = 0;
            set_bit(&mut self.state.held, source, false);
        }
    }

    /// The gateway passes a request on if the level is high and none is in service.
    fn forward(&mut self, source: u32) {
        let state = &mut self.state;
        if bit(&state.level, source) && !bit(&state.in_service, source) {
            set_bit(&mut state.in_service, source, true);
            set_bit(&mut state.pending, source, true);
        }
    }

    /// The pending, enabled source of the highest priority, the lowest number among equals, as
    /// (priority, source); (0, 0) when there is none.
    fn best(&self, context: &ContextState) -> (u32, u32) {
        let mut best = (0, 0);
        for (index, (pending, enable)) in self.state.pending.iter().zip(&context.enable).enumerate()
        {
            let mut ready = pending & enable;
            while ready != 0 {
                let source = index as u32 * 32 + ready.trailing_zeros();
                ready &= ready - 1;
                let priority = self.state.priority[source as usize];
                if priority > best.0 {
                    best = (priority, source);
                }
            }
        }
        best
    }

    fn update(&self) {
        for (line, context) in self.lines.iter().zip(&self.state.contexts) {
            line.set(self.best(context).0 > context.threshold);
        }
    }

    fn claim(&mut self, context: usize) -> u32 {
        // Section "Interrupt Claim Process": not affected by the threshold.
        let (_, source) = self.best(&self.state.contexts[context]);
        if source != 0 {
            set_bit(&mut self.state.pending, source, false);
            self.update();
        }
        source
    }

    fn complete(&mut self, context: usize, source: u32) {
        // Section "Interrupt Completion": ignored unless enabled for the context. A request that
        // is still pending has not been claimed, so there is nothing to complete.
        let state = &mut self.state;
        if source <= MAX_SOURCES
            && bit(&state.contexts[context].enable, source)
            && !bit(&state.pending, source)
        {
            set_bit(&mut state.in_service, source, false);
            if bit(&state.level, source) {
                self.repeat(source);
            }
        }
    }

    /// Passes on another request of a source whose level has stayed high, at once or later.
    fn repeat(&mut self, source: u32) {
        let state = &mut self.state;
        let repeats = &mut state.repeats[source as usize];
        if *repeats < STORM {
            *repeats += 1;
            self.forward(source);
            self.update();
        } else {
            set_bit(&mut state.held, source, true);
            if state.held_until.is_none() {
                state.held_until = Some(self.clock.now().saturating_add(STORM_DELAY));
                self.arm();
            }
        }
    }

    fn end_delay(&mut self, now: u64) {
        if self.state.held_until.is_none_or(|until| now < until) {
            return;
        }
        self.state.held_until = None;
        let held = self.state.held.clone();
        self.state.held.fill(0);
        (1..=self.sources()).filter(|&source| bit(&held, source)).for_each(|s| self.forward(s));
        self.update();
    }

    /// Drives the timer from the state.
    fn arm(&self) {
        match self.state.held_until {
            Some(until) => self.timer.arm(until),
            None => self.timer.cancel(),
        }
    }
}

/// What is at an offset.
enum Register {
    Priority(usize),
    Pending(usize),
    /// Context, word.
    Enable(usize, usize),
    /// Context, offset.
    Context(usize, u64),
}

fn register(offset: u64) -> Register {
    match offset {
        0..PENDING => Register::Priority((offset / 4) as usize),
        PENDING..ENABLE => Register::Pending(((offset - PENDING) / 4) as usize),
        ENABLE..CONTEXT => {
            let offset = offset - ENABLE;
            let word = offset % ENABLE_STRIDE / 4;
            Register::Enable((offset / ENABLE_STRIDE) as usize, word as usize)
        }
        _ => {
            let offset = offset - CONTEXT;
            Register::Context((offset / CONTEXT_STRIDE) as usize, offset % CONTEXT_STRIDE)
        }
    }
}

impl Device for Plic {
    fn name(&self) -> &'static str {
        "plic"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        word_only(offset, width)?;
        let state = &self.state;
        let value = match register(offset) {
            Register::Priority(source) => state.priority.get(source).copied(),
            Register::Pending(word) => state.pending.get(word).copied(),
            Register::Enable(context, word) => {
                state.contexts.get(context).and_then(|context| context.enable.get(word)).copied()
            }
            Register::Context(context, THRESHOLD) => {
                state.contexts.get(context).map(|context| context.threshold)
            }
            Register::Context(context, CLAIM) if context < state.contexts.len() => {
                Some(self.claim(context))
            }
            Register::Context(..) => None,
        };
        Ok(value.unwrap_or(0).into())
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        word_only(offset, width)?;
        let value = value as u32;
        match register(offset) {
            Register::Priority(source) => {
                if let Some(priority) = self.state.priority.get_mut(source)
                    && source != 0
                {
                    *priority = value & MAX_PRIORITY;
                }
            }
            Register::Enable(context, word) => {
                let valid = self.valid(word);
                if let Some(enable) = self
                    .state
                    .contexts
                    .get_mut(context)
                    .and_then(|context| context.enable.get_mut(word))
                {
                    *enable = value & valid;
                }
            }
            Register::Context(context, THRESHOLD) => {
                if let Some(context) = self.state.contexts.get_mut(context) {
                    context.threshold = value & MAX_PRIORITY;
                }
            }
            Register::Context(context, CLAIM) if context < self.state.contexts.len() => {
                self.complete(context, value);
                return Ok(());
            }
            // Pending bits are read-only; the rest is reserved.
            Register::Pending(_) | Register::Context(..) => return Ok(()),
        }
        self.update();
        Ok(())
    }

    fn reset(&mut self) {
        let mut state = PlicState::new(self.sources(), self.lines.len());
        // The wires keep their levels; devices lower them in their own reset.
        state.level = std::mem::take(&mut self.state.level);
        self.state = state;
        self.arm();
        (1..=self.sources()).for_each(|source| self.forward(source));
        self.update();
    }

    fn save(&self) -> SavedDevice {
        let Self { lines: _, clock: _, timer: _, state } = self;
        SavedDevice::encode(VERSION, state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: PlicState = saved.decode(VERSION)?;
        let (sources, words) = (self.state.priority.len(), self.state.pending.len());
        check(state.priority.len() == sources, "number of sources")?;
        check(state.contexts.len() == self.lines.len(), "number of contexts")?;
        check(state.priority[0] == 0, "priority of source 0")?;
        check(state.priority.iter().all(|&p| p <= MAX_PRIORITY), "priority")?;
        let sound = |set: &Vec<u32>| {
            set.len() == words && set.iter().enumerate().all(|(i, w)| w & !self.valid(i) == 0)
        };
        let sets = [&state.level, &state.pending, &state.in_service, &state.held];
        check(sets.into_iter().all(sound), "sources")?;
        check(state.repeats.len() == sources, "repeats")?;
        let unforwarded = state.pending.iter().zip(&state.in_service).any(|(p, s)| p & !s != 0);
        check(!unforwarded, "pending without a request")?;
        for context in &state.contexts {
            check(sound(&context.enable), "enabled sources")?;
            check(context.threshold <= MAX_PRIORITY, "threshold")?;
        }
        self.state = state;
        self.arm();
        self.update();
        Ok(())
    }
}

impl IrqSink for Mutex<Plic> {
    fn set_level(&self, input: u32, level: bool) {
        lock(self).set_source(input, level);
    }
}

/// The PLIC's inputs for [`IrqLine::new`].
pub fn inputs(plic: &Arc<Mutex<Plic>>) -> Arc<dyn IrqSink> {
    Arc::clone(plic) as Arc<dyn IrqSink>
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two contexts, 95 sources as on `virt`.
    fn plic() -> (Arc<Mutex<Plic>>, [IrqLine; 2]) {
        timed_plic(&Clock::deterministic(), &TimerQueue::new())
    }

    fn timed_plic(clock: &Clock, timers: &TimerQueue) -> (Arc<Mutex<Plic>>, [IrqLine; 2]) {
        let lines = [IrqLine::unconnected(), IrqLine::unconnected()];
        (Plic::new(95, lines.to_vec(), clock.clone(), timers), lines)
    }

    fn read(plic: &Mutex<Plic>, offset: u64) -> u64 {
        lock(plic).read(offset, Width::Word).unwrap()
    }

    fn write(plic: &Mutex<Plic>, offset: u64, value: u64) {
        lock(plic).write(offset, Width::Word, value).unwrap();
    }

    const CLAIM0: u64 = 0x20_0004;
    const CLAIM1: u64 = 0x20_1004;

    #[test]
    fn claim_takes_the_highest_priority_then_the_lowest_number() {
        let (plic, lines) = plic();
        let wires = [10, 33, 95].map(|source| IrqLine::new(inputs(&plic), source));
        write(&plic, 4 * 10, 3);
        write(&plic, 4 * 33, 5);
        write(&plic, 4 * 95, 5);
        for word in 0..3 {
            write(&plic, 0x2000 + 4 * word, 0xffff_ffff);
        }
        wires.iter().for_each(IrqLine::raise);
        assert!(lines[0].level() && !lines[1].level());
        assert_eq!(read(&plic, 0x1000), 1 << 10);
        assert_eq!((read(&plic, 0x1004), read(&plic, 0x1008)), (2, 1 << 31));
        let claims: Vec<_> = (0..4).map(|_| read(&plic, CLAIM0)).collect();
        assert_eq!(claims, [33, 95, 10, 0]);
        assert!(!lines[0].level());
    }

    #[test]
    fn a_source_waits_for_completion() {
        let (plic, lines) = plic();
        let wire = IrqLine::new(inputs(&plic), 7);
        write(&plic, 4 * 7, 1);
        write(&plic, 0x2000, 1 << 7);
        wire.raise();
        assert_eq!(read(&plic, CLAIM0), 7);
        wire.lower();
        wire.raise();
        assert!(!lines[0].level(), "pending again before completion");
        write(&plic, CLAIM0, 7);
        assert!(lines[0].level(), "still high at completion");
        assert_eq!(read(&plic, CLAIM0), 7);
        wire.lower();
        write(&plic, CLAIM0, 7);
        assert!(!lines[0].level());
    }

    #[test]
    fn a_storm_is_slowed_down_and_loses_nothing() {
        let (clock, timers) = (Clock::deterministic(), TimerQueue::new());
        let (plic, lines) = timed_plic(&clock, &timers);
        let wire = IrqLine::new(inputs(&plic), 7);
        write(&plic, 4 * 7, 1);
        write(&plic, 0x2000, 1 << 7);
        let serve = || {
            assert!(lines[0].level());
            assert_eq!(read(&plic, CLAIM0), 7);
            write(&plic, CLAIM0, 7);
        };
        wire.raise();
        (0..=STORM).for_each(|_| serve());
        assert!(!lines[0].level(), "the level is still high, but time must pass");
        timers.fire_due(STORM_DELAY - 1);
        assert!(!lines[0].level());
        let saved = lock(&plic).save();
        timers.fire_due(STORM_DELAY);
        serve();
        assert!(!lines[0].level(), "once in a while only");
        // A restored one knows how long to wait.
        lock(&plic).restore(&saved).unwrap();
        assert_eq!(timers.next_deadline(), Some(STORM_DELAY));
        timers.fire_due(STORM_DELAY);
        serve();
        // A line that falls has been served: the next request comes at once.
        wire.lower();
        wire.raise();
        serve();
        assert!(lines[0].level());
    }

    #[test]
    fn a_request_outlives_its_level() {
        let (plic, lines) = plic();
        write(&plic, 4, 1);
        write(&plic, 0x2000, 2);
        IrqLine::new(inputs(&plic), 1).pulse();
        assert!(lines[0].level());
        write(&plic, CLAIM0, 1);
        assert!(lines[0].level(), "completed before it was claimed");
        assert_eq!(read(&plic, CLAIM0), 1);
    }

    #[test]
    fn threshold_masks_the_line_but_not_the_claim() {
        let (plic, lines) = plic();
        write(&plic, 4 * 3, 4);
        write(&plic, 0x2080, 1 << 3);
        write(&plic, 0x20_1000, 4);
        IrqLine::new(inputs(&plic), 3).raise();
        assert!(!lines[1].level());
        write(&plic, 0x20_1000, 3);
        assert!(lines[1].level() && !lines[0].level());
        write(&plic, 0x20_1000, 7);
        assert_eq!((read(&plic, CLAIM0), read(&plic, CLAIM1)), (0, 3));
    }

    #[test]
    fn completion_from_a_context_without_the_source_is_ignored() {
        let (plic, lines) = plic();
        let wire = IrqLine::new(inputs(&plic), 3);
        write(&plic, 4 * 3, 1);
        write(&plic, 0x2000, 1 << 3);
        wire.raise();
        assert_eq!(read(&plic, CLAIM0), 3);
        write(&plic, CLAIM1, 3);
        write(&plic, CLAIM0, 4);
        write(&plic, CLAIM0, 0xffff_ffff);
        assert!(!lines[0].level());
        write(&plic, CLAIM0, 3);
        assert!(lines[0].level());
    }

    #[test]
    fn fields_are_warl_and_source_0_is_absent() {
        let (plic, _) = plic();
        for (offset, kept) in [
            (0, 0),
            (4, 7),
            (4 * 95, 7),
            (4 * 96, 0),
            (0x1000, 0),
            (0x2000, 0xffff_fffe),
            (0x2008, 0xffff_ffff),
            (0x200c, 0),
            (0x2100, 0),
            (0x20_0000, 7),
            (0x20_2000, 0),
            (0x3ff_fffc, 0),
        ] {
            write(&plic, offset, 0xffff_ffff);
            assert_eq!(read(&plic, offset), kept, "{offset:#x}");
        }
        for source in [0, 96, 1024, u32::MAX] {
            plic.set_level(source, true);
        }
        assert_eq!((read(&plic, 0x1000), read(&plic, 0x100c)), (0, 0));
        assert_eq!(lock(&plic).read(0, Width::Double), Err(BusError::Width));
        assert_eq!(lock(&plic).read(1, Width::Byte), Err(BusError::Width));
    }

    #[test]
    fn saved_state_comes_back_and_impossible_ones_are_refused() {
        let (first, _) = plic();
        write(&first, 4 * 3, 1);
        write(&first, 0x2000, 1 << 3);
        first.set_level(3, true);
        let saved = lock(&first).save();
        let (second, lines) = plic();
        lock(&second).restore(&saved).unwrap();
        assert!(lines[0].level());
        assert_eq!(lock(&second).save(), saved);
        let refuse = |change: fn(&mut PlicState)| {
            let mut state: PlicState = saved.decode(VERSION).unwrap();
            change(&mut state);
            let saved = SavedDevice::encode(VERSION, &state);
            assert!(matches!(lock(&second).restore(&saved), Err(RestoreError::Invalid(_))));
        };
        refuse(|state| state.priority[1] = 8);
        refuse(|state| state.pending[0] |= 1);
        refuse(|state| state.pending[0] |= 2);
        refuse(|state| state.level.push(0));
        refuse(|state| state.held[0] |= 1);
        refuse(|state| state.repeats.clear());
        refuse(|state| state.contexts[1].enable.clear());
        refuse(|state| state.contexts.truncate(1));
        refuse(|state| state.contexts[0].threshold = 9);
        lock(&second).reset();
        assert_eq!(read(&second, 0x1000), 1 << 3, "the wire is still high");
        assert!(!lines[0].level());
    }
}
