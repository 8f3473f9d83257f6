//! One counter of the 8254, as a function of time in ticks.
//!
//! Nothing runs between accesses: a counter keeps when its count was loaded, and value and output
//! follow from that. A count that is written is loaded by the next clock pulse, one tick later.

use serde::{Deserialize, Serialize};

use crate::bus::{RestoreError, check};

/// Ticks lie within this, so that sums do not overflow.
const FAR: i64 = 1 << 60;

/// How bytes are read and written: RW1 and RW0 of the control word.
const LOW: u8 = 1;
const HIGH: u8 = 2;

/// A count on its way to 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    /// Tick at which the counting element was loaded with `count`; may lie a tick ahead.
    start: i64,
    /// 1 to 65536 (10000 in BCD).
    count: u32,
    /// OUT before `start`.
    before: bool,
    /// Since when GATE holds the count (modes 0 and 4).
    paused: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counter {
    /// The control word's low six bits, as the status shows them.
    control: u8,
    gate: bool,
    /// The count register, once both its bytes are written.
    reload: Option<u32>,
    /// What was written has not been sent to the counting element.
    null: bool,
    /// First byte of a count of two bytes.
    first_byte: Option<u8>,
    run: Option<Run>,
    /// The value while nothing runs.
    stopped_at: u16,
    /// Modes 2 and 3: what is loaded at the end of the (half) cycle, a tick.
    next: Option<(u32, i64)>,
    latched: Option<u16>,
    status: Option<u8>,
    /// The next byte read is the high one of two.
    high_next: bool,
}

impl Counter {
    /// Before the first control word, which decides everything.
    pub(super) fn new(gate: bool) -> Self {
        Self {
            control: 3 << 4 | 3 << 1,
            gate,
            reload: None,
            null: true,
            first_byte: None,
            run: None,
            stopped_at: 0,
            next: None,
            latched: None,
            status: None,
            high_next: false,
        }
    }

    /// 0 to 5; the bit M2 is of no consequence for 2 and 3.
    fn mode(&self) -> u8 {
        let mode = self.control >> 1 & 7;
        if mode >= 6 { mode & 3 } else { mode }
    }

    fn modulus(&self) -> u32 {
        if self.control & 1 != 0 { 10_000 } else { 0x1_0000 }
    }

    fn access(&self) -> u8 {
        self.control >> 4 & 3
    }

    // Counting.

    /// Ticks since the load, 0 before it.
    fn elapsed(run: &Run, now: i64) -> i64 {
        (run.paused.map_or(now, |paused| paused.min(now)) - run.start).max(0)
    }

    /// Ticks of OUT high in a cycle of mode 3.
    fn high_half(count: u32) -> i64 {
        count.div_ceil(2).into()
    }

    /// Loads what was to be loaded by now.
    pub(super) fn settle(&mut self, now: i64) {
        if let Some((count, at)) = self.next
            && at <= now
        {
            self.run = Some(self.successor(count, at));
            self.next = None;
            self.null = false;
        }
    }

    /// The run that follows at `at`, the end of a cycle or half cycle of the present one.
    fn successor(&self, count: u32, at: i64) -> Run {
        let mut start = at;
        if self.mode() == 3
            && let Some(run) = &self.run
            && (at - run.start).rem_euclid(run.count.into()) != 0
        {
            // The high half has ended: the new count goes on with its low half.
            start = at - Self::high_half(count);
        }
        Run { start, count, before: true, paused: None }
    }

    fn value(&self, now: i64) -> u32 {
        let Some(run) = &self.run else { return self.stopped_at.into() };
        let (count, elapsed) = (i64::from(run.count), Self::elapsed(run, now));
        let modulus = i64::from(self.modulus());
        let value = match self.mode() {
            2 => count - elapsed % count,
            3 => {
                // Steps of two, from an even number; an odd count has a longer high half.
                let (cycle, high) = (elapsed % count, Self::high_half(run.count));
                let half = if cycle < high { cycle } else { cycle - high };
                (count & !1) - 2 * half
            }
            _ => count - elapsed,
        };
        value.rem_euclid(modulus) as u32
    }

    pub(super) fn out(&self, now: i64) -> bool {
        let Some(run) = &self.run else { return self.mode() != 0 };
        if now < run.start {
            return run.before;
        }
        let (count, elapsed) = (i64::from(run.count), Self::elapsed(run, now));
        match self.mode() {
            0 | 1 => elapsed >= count,
            2 => elapsed % count != count - 1,
            3 => elapsed % count < Self::high_half(run.count),
            _ => elapsed != count,
        }
    }

    /// The first tick after `now` at which OUT goes high by counting.
    pub(super) fn next_rise(&self, now: i64) -> Option<i64> {
        let rise = self.rise_of(self.run.as_ref()?, now);
        match (self.next, rise) {
            (Some((count, at)), Some(rise)) if at < rise => {
                self.rise_of(&self.successor(count, at), at)
            }
            (_, rise) => rise,
        }
    }

    /// Ticks from one rise of OUT to the next, in the modes that repeat.
    pub(super) fn period(&self) -> Option<u32> {
        matches!(self.mode(), 2 | 3).then_some(self.run?.count)
    }

    fn rise_of(&self, run: &Run, now: i64) -> Option<i64> {
        let count = i64::from(run.count);
        let rise = match self.mode() {
            0 | 1 => run.start + count,
            2 | 3 if count == 1 => return None,
            2 | 3 => run.start + ((now - run.start).max(0) / count + 1) * count,
            _ => run.start + count + 1,
        };
        (rise > now && run.paused.is_none()).then_some(rise)
    }

    fn stop(&mut self, now: i64) {
        self.stopped_at = self.value(now) as u16;
        self.run = None;
        self.next = None;
    }

    /// The next clock pulse loads the count register.
    fn load(&mut self, now: i64) {
        if let Some(count) = self.reload {
            let before = self.out(now);
            self.next = None;
            self.null = false;
            self.run = Some(Run { start: now + 1, count, before, paused: None });
        }
    }

    /// GATE.
    pub(super) fn set_gate(&mut self, gate: bool, now: i64) {
        self.settle(now);
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        match (self.mode(), gate) {
            (0 | 4, _) => self.pause(!gate, now),
            (1 | 5, true) => self.load(now),
            (1 | 5, false) => {}
            (_, true) => self.load(now),
            // OUT goes high at once; the count begins anew when GATE rises.
            (_, false) => self.stop(now),
        }
    }

    fn pause(&mut self, pause: bool, now: i64) {
        let Some(run) = &mut self.run else { return };
        match (pause, run.paused) {
            (true, None) => run.paused = Some(now),
            (false, Some(since)) => {
                run.start += (now - since.max(run.start)).max(0);
                run.paused = None;
            }
            _ => {}
        }
    }

    // Writing.

    /// A control word for this counter that is no command to latch.
    pub(super) fn set_control(&mut self, word: u8, now: i64) {
        self.settle(now);
        self.stop(now);
        self.control = word & 0x3f;
        self.reload = None;
        self.null = true;
        self.first_byte = None;
        self.latched = None;
        self.status = None;
        self.high_next = false;
    }

    pub(super) fn write(&mut self, byte: u8, now: i64) {
        self.settle(now);
        match (self.access(), self.first_byte.take()) {
            (LOW, _) => self.set_count(byte.into(), now),
            (HIGH, _) => self.set_count(u16::from(byte) << 8, now),
            (_, Some(low)) => self.set_count(u16::from_le_bytes([low, byte]), now),
            (_, None) => {
                self.first_byte = Some(byte);
                // Mode 0: the first byte stops the count and OUT goes low.
                if self.mode() == 0 {
                    self.stop(now);
                }
            }
        }
    }

    fn set_count(&mut self, written: u16, now: i64) {
        let count = if self.control & 1 != 0 { from_bcd(written) } else { written.into() };
        let count = if count == 0 { self.modulus() } else { count };
        self.reload = Some(count);
        self.null = true;
        match (self.mode(), &self.run) {
            (1 | 5, _) => {} // loaded by the next trigger
            (0, _) => {
                self.stop(now);
                self.load(now);
                self.pause(!self.gate, now);
            }
            (4, _) => {
                self.load(now);
                self.pause(!self.gate, now);
            }
            (_, None) if self.gate => self.load(now),
            (_, None) => {} // loaded when GATE rises
            (mode, Some(run)) => {
                let cycle = i64::from(run.count);
                let at = (now - run.start).max(0);
                let (into, high) = (at % cycle, Self::high_half(run.count));
                let end = if mode == 3 && into < high { high } else { cycle };
                let end = run.start + at - into + end;
                self.next = Some((count, end));
            }
        }
    }

    // Reading.

    fn shown(&self, now: i64) -> u16 {
        let value = self.value(now);
        if self.control & 1 != 0 { to_bcd(value) } else { value as u16 }
    }

    pub(super) fn latch_count(&mut self, now: i64) {
        self.settle(now);
        if self.latched.is_none() {
            self.latched = Some(self.shown(now));
        }
    }

    /// Section "Read-back command": OUT, null count, and the control word.
    pub(super) fn latch_status(&mut self, now: i64) {
        self.settle(now);
        let null = self.null || self.run.is_some_and(|run| now < run.start);
        if self.status.is_none() {
            let status = u8::from(self.out(now)) << 7 | u8::from(null) << 6 | self.control;
            self.status = Some(status);
        }
    }

    pub(super) fn read(&mut self, now: i64) -> u8 {
        self.settle(now);
        if let Some(status) = self.status.take() {
            return status;
        }
        let value = self.latched.unwrap_or_else(|| self.shown(now));
        let [low, high] = value.to_le_bytes();
        match (self.access(), self.high_next) {
            (LOW, _) => {
                self.latched = None;
                low
            }
            (HIGH, _) | (_, true) => {
                self.latched = None;
                self.high_next = false;
                high
            }
            (_, false) => {
                self.high_next = true;
                low
            }
        }
    }

    /// Whether a running counter can have this state.
    pub(super) fn check(&self) -> Result<(), RestoreError> {
        let counts = 1..=self.modulus();
        let near = |tick: i64| (-FAR..FAR).contains(&tick);
        check(self.control < 0x40 && self.access() != 0, "PIT control word")?;
        check(self.reload.is_none_or(|count| counts.contains(&count)), "PIT count register")?;
        if let Some(run) = &self.run {
            check(counts.contains(&run.count), "PIT count")?;
            check(near(run.start) && run.paused.is_none_or(near), "PIT start of the count")?;
        }
        let sound = |(count, at)| counts.contains(&count) && near(at) && self.run.is_some();
        check(self.next.is_none_or(sound), "PIT next count")
    }
}

fn from_bcd(value: u16) -> u32 {
    let digit = |index: u32| u32::from(value >> (4 * index) & 0xf) * 10_u32.pow(index);
    (0..4).map(digit).sum::<u32>() % 10_000
}

fn to_bcd(value: u32) -> u16 {
    (0..4).map(|index| ((value / 10_u32.pow(index) % 10) as u16) << (4 * index)).sum()
}
