//! 8254 interval timer of a PC, with port 0x61 that belongs to its counter 2.
//!
//! Source: Intel, "8254 Programmable Interval Timer", order number 231164-005; port 0x61: Intel
//! 82371AB PIIX4 datasheet, "NMI status and control register". The clock is the crystal's 14.31818
//! MHz divided by 12.
//!
//! OUT of counter 0 is IRQ 0. Its line rises when OUT does; it falls when OUT does at an access, and
//! otherwise just before it rises again, since a timer for each fall would tell nobody anything.

mod counter;

use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, byte_only, check, lock};
use crate::clock::{Clock, NEVER, Timer, TimerQueue};
use crate::irq::IrqLine;
use crate::ticks::{self, Rate};
use counter::Counter;

/// Offset of the counters and the control word: the PC's ports 0x40 to 0x43.
pub const COUNTERS: u64 = 0;
/// Offset of the PC's port 0x61.
pub const PORT_61: u64 = 4;

const CONTROL: u64 = 3;

/// Port 0x61: GATE of counter 2.
const GATE_2: u8 = 1;
/// Port 0x61: what can be written (gate, speaker, enables of parity and I/O checks).
const WRITABLE: u8 = 0xf;
/// Port 0x61, bit 4 toggles with each refresh of memory: 18 ticks, as counter 1 is set up for.
const REFRESH: i64 = 18;

const VERSION: u32 = 1;

/// The device.
pub struct Pit {
    // What the board attached.
    clock: Clock,
    timer: Timer,
    irq: IrqLine,

    // What the guest can tell.
    state: PitState,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PitState {
    counters: [Counter; 3],
    /// Port 0x61, the bits that can be written.
    port_61: u8,
    /// Tick up to which counter 0 has been looked at.
    seen: i64,
}

impl PitState {
    fn new(seen: i64) -> Self {
        let counters = [Counter::new(true), Counter::new(true), Counter::new(false)];
        Self { counters, port_61: 0, seen }
    }
}

impl Pit {
    /// A timer that drives `irq` by counter 0.
    pub fn new(clock: Clock, timers: &TimerQueue, irq: IrqLine) -> Arc<Mutex<Self>> {
        Arc::new_cyclic(|device: &Weak<Mutex<Self>>| {
            let device = device.clone();
            let timer = timers.register(Arc::new(move |_| {
                if let Some(device) = device.upgrade() {
                    lock(&device).update();
                }
            }));
            let state = PitState::new(Rate::PIT.ticks(clock.now()) as i64);
            Mutex::new(Self { clock, timer, irq, state })
        })
    }

    fn now(&self) -> i64 {
        // 2^64 nanoseconds are fewer than 2^55 ticks.
        Rate::PIT.ticks(self.clock.now()) as i64
    }

    /// Drives the line by what counter 0 did since the last look. To be called before and after a
    /// change of the counter.
    fn update(&mut self) {
        let now = self.now();
        let counter = &self.state.counters[0];
        if counter.next_rise(self.state.seen).is_some_and(|rise| rise <= now) {
            self.irq.lower();
            self.irq.raise();
        }
        self.state.seen = now;
        self.state.counters[0].settle(now);
        let counter = &self.state.counters[0];
        self.irq.set(counter.out(now));
        let next = counter.next_rise(now).and_then(|tick| u64::try_from(tick).ok());
        let period = counter.period().map(|ticks| Rate::PIT.time(ticks.into()));
        self.timer.arm(
            next.map_or(NEVER, |tick| ticks::alarm(Rate::PIT.time(tick), period, self.clock.now())),
        );
    }

    fn write_control(&mut self, word: u8, now: i64) {
        let counters = &mut self.state.counters;
        match (usize::from(word >> 6), word >> 4 & 3) {
            (3, _) => {
                for (index, counter) in counters.iter_mut().enumerate() {
                    if word >> (index + 1) & 1 == 0 {
                        continue;
                    }
                    if word & 0x20 == 0 {
                        counter.latch_count(now);
                    }
                    if word & 0x10 == 0 {
                        counter.latch_status(now);
                    }
                }
            }
            (index, 0) => counters[index].latch_count(now),
            (index, _) => counters[index].set_control(word, now),
        }
    }

    fn read_port_61(&self, now: i64) -> u8 {
        let refresh = u8::from(now / REFRESH % 2 != 0);
        let out = u8::from(self.state.counters[2].out(now));
        self.state.port_61 | refresh << 4 | out << 5
    }
}

impl Device for Pit {
    fn name(&self) -> &'static str {
        "pit"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        byte_only(width)?;
        let now = self.now();
        self.update();
        let value = match offset {
            0..CONTROL => self.state.counters[offset as usize].read(now),
            CONTROL => return Err(BusError::Refused), // write-only
            PORT_61 => self.read_port_61(now),
            _ => return Err(BusError::Refused),
        };
        Ok(value.into())
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        byte_only(width)?;
        let (now, value) = (self.now(), value as u8);
        self.update();
        match offset {
            0..CONTROL => self.state.counters[offset as usize].write(value, now),
            CONTROL => self.write_control(value, now),
            PORT_61 => {
                self.state.port_61 = value & WRITABLE;
                self.state.counters[2].set_gate(value & GATE_2 != 0, now);
            }
            _ => return Err(BusError::Refused),
        }
        self.update();
        Ok(())
    }

    fn reset(&mut self) {
        self.state = PitState::new(self.now());
        self.update();
    }

    fn save(&self) -> SavedDevice {
        let Self { clock: _, timer: _, irq: _, state } = self;
        let (mut state, now) = (state.clone(), self.now());
        // As a look now would leave it: what is saved must not tell when somebody looked last. An edge that is due is
        // left to the timer.
        if state.counters[0].next_rise(state.seen).is_none_or(|rise| rise > now) {
            state.seen = now;
            state.counters[0].settle(now);
        }
        SavedDevice::encode(VERSION, &state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: PitState = saved.decode(VERSION)?;
        state.counters.iter().try_for_each(Counter::check)?;
        check(state.port_61 & !WRITABLE == 0, "port 0x61")?;
        check((0..1 << 60).contains(&state.seen), "PIT time")?;
        self.state = state;
        self.update();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
