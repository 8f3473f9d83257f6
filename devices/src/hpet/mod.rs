//! High precision event timers: a 64-bit counter at 100 MHz and three timers, all of them periodic
//! and able to send messages.
//!
//! Source: Intel, "IA-PC HPET (High Precision Event Timers) Specification", revision 1.0a;
//! registers are named as there.

mod legacy;

use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};

pub use legacy::LegacyRoute;

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check, lock};
use crate::clock::{Clock, NEVER, Timer, TimerQueue};
use crate::irq::IrqLine;
use crate::msi::{Msi, MsiSink};
use crate::ticks;

/// Bytes that the device takes on the bus.
pub const SIZE: u64 = 0x400;
/// Timers.
pub const TIMERS: usize = 3;
/// Nanoseconds for one step of the counter.
pub const NS_PER_TICK: u64 = 10;

/// Registers; those of timer n lie at TIMER + n * STRIDE.
const CAPABILITIES: u64 = 0x00;
const CONFIGURATION: u64 = 0x10;
const STATUS: u64 = 0x20;
const COUNTER: u64 = 0xf0;
const TIMER: u64 = 0x100;
const TIMER_STRIDE: u64 = 0x20;
const TIMERS_END: u64 = TIMER + TIMERS as u64 * TIMER_STRIDE;
const COMPARATOR: u64 = 8;
const FSB_ROUTE: u64 = 16;

/// What ACPI's table says of the block: the low half of the capabilities.
pub const ID: u32 = CAPABILITIES_VALUE as u32;

/// General capabilities: period in femtoseconds, Intel's vendor number, legacy replacement, 64 bits, the
/// last timer's number, revision 1.
const CAPABILITIES_VALUE: u64 =
    NS_PER_TICK * 1_000_000 << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | (TIMERS as u64 - 1) << 8 | 1;

/// General configuration.
const ENABLE: u64 = 1;
const LEGACY: u64 = 2;

/// Timer configuration.
const LEVEL: u64 = 1 << 1;
const INTERRUPT: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const SET_ACCUMULATOR: u64 = 1 << 6;
const BITS_32: u64 = 1 << 8;
const ROUTE_SHIFT: u32 = 9;
const FSB: u64 = 1 << 14;
const TIMER_WRITABLE: u64 =
    LEVEL | INTERRUPT | PERIODIC | SET_ACCUMULATOR | BITS_32 | 0x1f << ROUTE_SHIFT | FSB;
/// Periodic, 64 bits, FSB delivery.
const TIMER_CAPABILITIES: u64 = 1 << 4 | 1 << 5 | 1 << 15;

const VERSION: u32 = 1;

/// What the board connects.
pub struct Wiring {
    /// IRQ 0 and IRQ 8.
    pub legacy: Arc<LegacyRoute>,
    /// Inputs of the IOAPIC by number.
    pub pins: Vec<IrqLine>,
    /// Which of the inputs the timers may be routed to, a bit each.
    pub routes: u32,
    /// Where messages go.
    pub messages: Arc<dyn MsiSink>,
}

/// The device.
pub struct Hpet {
    // What the board attached.
    clock: Clock,
    timer: Timer,
    wiring: Wiring,

    // What the guest can tell.
    state: HpetState,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct HpetState {
    configuration: u64,
    /// A bit for each timer whose level-triggered interrupt is active.
    status: u64,
    /// The counter less the ticks of guest time; while halted the counter itself.
    counter: u64,
    /// The counter up to which the comparators have been looked at.
    seen: u64,
    timers: [TimerState; TIMERS],
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct TimerState {
    configuration: u64,
    comparator: u64,
    /// The value written last, which is added to the comparator at each match.
    period: u64,
    /// Value in the low half, address in the high half.
    fsb: u64,
}

impl HpetState {
    fn new() -> Self {
        let timer = TimerState { comparator: u64::MAX, ..TimerState::default() };
        Self {
            configuration: 0,
            status: 0,
            counter: 0,
            seen: 0,
            timers: [timer.clone(), timer.clone(), timer],
        }
    }

    fn runs(&self) -> bool {
        self.configuration & ENABLE != 0
    }

    fn counter(&self, now: u64) -> u64 {
        if self.runs() { self.counter.wrapping_add(now / NS_PER_TICK) } else { self.counter }
    }

    fn set_counter(&mut self, value: u64, now: u64) {
        let ticks = if self.runs() { now / NS_PER_TICK } else { 0 };
        self.counter = value.wrapping_sub(ticks);
        self.seen = value;
    }

    fn configure(&mut self, value: u64, now: u64) {
        let counter = self.counter(now);
        self.configuration = value & (ENABLE | LEGACY);
        self.set_counter(counter, now);
    }
}

impl TimerState {
    /// All bits of the counter that the timer compares.
    fn mask(&self) -> u64 {
        if self.configuration & BITS_32 != 0 { u32::MAX.into() } else { u64::MAX }
    }

    fn is(&self, bits: u64) -> bool {
        self.configuration & bits != 0
    }

    /// Ticks from `counter` to the next match, at least 1.
    fn distance(&self, counter: u64) -> u64 {
        let mask = self.mask();
        let distance = self.comparator.wrapping_sub(counter) & mask;
        if distance == 0 { mask.saturating_add(1) } else { distance }
    }

    /// The comparator after a match `late` ticks ago.
    fn advance(&mut self, late: u64) {
        let period = self.period & self.mask();
        if self.is(PERIODIC) && period != 0 {
            let periods = late / period + 1;
            let sum = self.comparator.wrapping_add(period.wrapping_mul(periods));
            self.comparator = sum & self.mask();
        }
    }

    /// In periodic mode the period, and the comparator where software says so.
    fn write_comparator(&mut self, value: u64, mask: u64) {
        let merge = |old: u64| old & !mask | value & mask;
        if !self.is(PERIODIC) || self.is(SET_ACCUMULATOR) {
            self.comparator = merge(self.comparator) & self.mask();
        }
        if self.is(PERIODIC) {
            self.period = merge(self.period) & self.mask();
        }
        self.configuration &= !SET_ACCUMULATOR;
    }
}

impl Hpet {
    /// A block of timers after reset: halted at 0.
    pub fn new(clock: Clock, timers: &TimerQueue, wiring: Wiring) -> Arc<Mutex<Self>> {
        Arc::new_cyclic(|device: &Weak<Mutex<Self>>| {
            let device = device.clone();
            let timer = timers.register(Arc::new(move |_| {
                if let Some(device) = device.upgrade() {
                    lock(&device).update();
                }
            }));
            Mutex::new(Self { clock, timer, wiring, state: HpetState::new() })
        })
    }

    /// Looks at the comparators, and sets the alarm for the next match. To be called before and after
    /// a change.
    fn update(&mut self) -> u64 {
        let now = self.clock.now();
        let counter = self.state.counter(now);
        let passed = counter.wrapping_sub(self.state.seen);
        let seen = std::mem::replace(&mut self.state.seen, counter);
        if self.state.runs() {
            for index in 0..TIMERS {
                let timer = &mut self.state.timers[index];
                let distance = timer.distance(seen);
                if distance <= passed {
                    timer.advance(passed - distance);
                    self.fire(index);
                }
            }
        }
        self.timer.arm(self.next(counter, now));
        now
    }

    fn next(&self, counter: u64, now: u64) -> u64 {
        if !self.state.runs() {
            return NEVER;
        }
        let enabled = self.state.timers.iter().filter(|timer| timer.is(INTERRUPT));
        let deadlines = enabled.map(|timer| {
            let deadline = (now / NS_PER_TICK).saturating_add(timer.distance(counter));
            let period = timer.is(PERIODIC).then(|| timer.period.saturating_mul(NS_PER_TICK));
            ticks::alarm(deadline.saturating_mul(NS_PER_TICK), period, now)
        });
        deadlines.min().unwrap_or(NEVER)
    }

    /// Whether the timer drives IRQ 0 or IRQ 8.
    fn is_legacy(&self, index: usize) -> bool {
        self.state.configuration & LEGACY != 0 && index < 2
    }

    /// A match: a message, a level that software ends, or an edge.
    fn fire(&mut self, index: usize) {
        let timer = &self.state.timers[index];
        if !timer.is(INTERRUPT) {
            return;
        }
        let level = timer.is(LEVEL);
        if timer.is(FSB) {
            let (address, data) = (timer.fsb >> 32, timer.fsb as u32);
            self.wiring.messages.send(Msi { address, data });
        } else if level {
            self.state.status |= 1 << index;
            self.drive(index);
        } else if self.is_legacy(index) {
            self.wiring.legacy.edge(index);
        } else if let Some(pin) = self.pin(index) {
            pin.pulse();
        }
    }

    fn pin(&self, index: usize) -> Option<&IrqLine> {
        let route = self.state.timers[index].configuration >> ROUTE_SHIFT & 0x1f;
        let allowed = self.wiring.routes >> route & 1 != 0;
        self.wiring.pins.get(route as usize).filter(|_| allowed)
    }

    /// Drives the line of a level-triggered timer by its status.
    fn drive(&self, index: usize) {
        let active = self.state.status >> index & 1 != 0;
        if self.is_legacy(index) {
            self.wiring.legacy.set(index, active);
        } else if let Some(pin) = self.pin(index) {
            pin.set(active);
        }
    }

    /// Takes back the level-triggered interrupts of a set of timers.
    fn acknowledge(&mut self, set: u64) {
        let ended = self.state.status & set;
        self.state.status &= !set;
        (0..TIMERS).filter(|index| ended >> index & 1 != 0).for_each(|index| self.drive(index));
    }

    fn register(&self, offset: u64, now: u64) -> u64 {
        let state = &self.state;
        match offset {
            CAPABILITIES => CAPABILITIES_VALUE,
            CONFIGURATION => state.configuration,
            STATUS => state.status,
            COUNTER => state.counter(now),
            TIMER..TIMERS_END => {
                let timer = &state.timers[((offset - TIMER) / TIMER_STRIDE) as usize];
                match (offset - TIMER) % TIMER_STRIDE {
                    0 => {
                        let routes = u64::from(self.wiring.routes) << 32;
                        timer.configuration | TIMER_CAPABILITIES | routes
                    }
                    COMPARATOR => timer.comparator,
                    FSB_ROUTE => timer.fsb,
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    /// Writes the bits of `mask` of a register.
    fn write_register(&mut self, offset: u64, value: u64, mask: u64, now: u64) {
        let merged = self.register(offset, now) & !mask | value & mask;
        match offset {
            CONFIGURATION => {
                let legacy = self.state.configuration & LEGACY;
                if (merged ^ legacy) & LEGACY != 0 {
                    self.acknowledge(u64::MAX);
                    self.wiring.legacy.replace(merged & LEGACY != 0);
                }
                self.state.configure(merged, now);
            }
            STATUS => self.acknowledge(value & mask),
            COUNTER => self.state.set_counter(merged, now),
            TIMER..TIMERS_END => {
                let index = ((offset - TIMER) / TIMER_STRIDE) as usize;
                match (offset - TIMER) % TIMER_STRIDE {
                    0 => {
                        // A line is let go before it becomes another.
                        self.acknowledge(1 << index);
                        let timer = &mut self.state.timers[index];
                        timer.configuration = merged & TIMER_WRITABLE;
                        timer.comparator &= timer.mask();
                        timer.period &= timer.mask();
                    }
                    COMPARATOR => self.state.timers[index].write_comparator(value, mask),
                    FSB_ROUTE => self.state.timers[index].fsb = merged,
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

/// Registers are accessed by 32 or 64 bits, aligned.
fn check_access(offset: u64, width: Width) -> Result<(), BusError> {
    let wide = matches!(width, Width::Word | Width::Double);
    if wide && width.is_aligned(offset) { Ok(()) } else { Err(BusError::Width) }
}

impl Device for Hpet {
    fn name(&self) -> &'static str {
        "hpet"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        check_access(offset, width)?;
        let now = self.update();
        Ok(self.register(offset & !7, now) >> (8 * (offset & 7)) & width.mask())
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        check_access(offset, width)?;
        let now = self.update();
        let shift = 8 * (offset & 7);
        self.write_register(offset & !7, value << shift, width.mask() << shift, now);
        self.update();
        Ok(())
    }

    fn reset(&mut self) {
        self.acknowledge(u64::MAX);
        self.state = HpetState::new();
        self.wiring.legacy.replace(false);
        self.update();
    }

    fn save(&self) -> SavedDevice {
        let Self { clock: _, timer: _, wiring: _, state } = self;
        SavedDevice::encode(VERSION, state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: HpetState = saved.decode(VERSION)?;
        check(state.configuration & !(ENABLE | LEGACY) == 0, "HPET configuration")?;
        check(state.status >> TIMERS == 0, "HPET status")?;
        for timer in &state.timers {
            check(timer.configuration & !TIMER_WRITABLE == 0, "HPET timer configuration")?;
            let high = (timer.comparator | timer.period) & !timer.mask();
            check(high == 0, "HPET comparator")?;
        }
        self.acknowledge(u64::MAX);
        self.state = state;
        self.wiring.legacy.replace(self.state.configuration & LEGACY != 0);
        (0..TIMERS).filter(|index| self.state.status >> index & 1 != 0).for_each(|i| self.drive(i));
        self.update();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
