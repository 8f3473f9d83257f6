//! Real-time clock and CMOS memory of a PC (MC146818).
//!
//! Source: Motorola, "MC146818 Real-Time Clock plus RAM", ADI856R2; the century in byte 0x32 is a
//! custom of PCs. Three liberties: the update takes no time, and only "update in progress" announces
//! it; the time base is 32768 Hz whatever DV says, but for its reset; daylight saving (DSE) is kept and
//! means nothing.
//!
//! Nothing runs between accesses: the registers follow from the time. A timer is armed only for an
//! interrupt that is enabled.

mod calendar;

use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, byte_only, check, lock};
use crate::clock::{Clock, NEVER, Timer, TimerQueue};
use crate::irq::IrqLine;
use crate::ticks::Rate;
use calendar::{DAY, Date, Format};

/// Offset of the index port: the PC's 0x70.
pub const INDEX: u64 = 0;
/// Offset of the data port: the PC's 0x71.
pub const DATA: u64 = 1;
/// Bytes of the clock and its memory.
pub const BYTES: usize = 128;

const SECONDS: usize = 0;
const SECONDS_ALARM: usize = 1;
const MINUTES: usize = 2;
const MINUTES_ALARM: usize = 3;
const HOURS: usize = 4;
const HOURS_ALARM: usize = 5;
const WEEKDAY: usize = 6;
const DAY_OF_MONTH: usize = 7;
const MONTH: usize = 8;
const YEAR: usize = 9;
const A: usize = 0xa;
const B: usize = 0xb;
const C: usize = 0xc;
const D: usize = 0xd;
const CENTURY: usize = 0x32;

/// Register A: update in progress.
const UIP: u8 = 0x80;
/// Register B.
const SET: u8 = 0x80;
const PIE: u8 = 0x40;
const AIE: u8 = 0x20;
const UIE: u8 = 0x10;
const SQWE: u8 = 0x08;
const DM: u8 = 0x04;
const HOURS_24: u8 = 0x02;
/// Register C; the flags lie where register B has their enables.
const IRQF: u8 = 0x80;
const FLAGS: u8 = PIE | AIE | UIE;
/// Register D: the battery is good.
const VRT: u8 = 0x80;

/// An alarm byte with both high bits set matches everything.
const ANY: u8 = 0xc0;

const SECOND: u64 = 1_000_000_000;
/// UIP is set so long before the update.
const UIP_TIME: u64 = 244_000;
/// The time base: 32768 Hz.
const BASE_RATE: Rate = Rate::new(32_768, SECOND);

const VERSION: u32 = 1;

/// The device.
pub struct Rtc {
    // What the board attached.
    clock: Clock,
    timer: Timer,
    irq: IrqLine,

    // What the guest can tell.
    state: RtcState,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct RtcState {
    index: u8,
    /// All bytes; those of the time count only while it stands still, bits of C while they are set.
    bytes: Vec<u8>,
    /// Seconds since 1970 at guest time 0, less the chain's.
    base: i64,
    /// Nanoseconds that the divider chain was ahead at guest time 0; less than a second.
    chain: u64,
    /// What is added to the weekday of the date.
    weekday: i64,
    /// Guest time up to which the flags have been set.
    seen: u64,
}

impl RtcState {
    fn format(&self) -> Format {
        let b = self.bytes[B];
        Format { binary: b & DM != 0, hours_24: b & HOURS_24 != 0 }
    }

    /// DV is 11x: the divider chain is held in reset.
    fn in_reset(&self) -> bool {
        self.bytes[A] & 0x60 == 0x60
    }

    /// The time stands still: it is being set, or the chain is reset.
    fn stands_still(&self) -> bool {
        self.bytes[B] & SET != 0 || self.in_reset()
    }

    /// Time of the divider chain.
    fn chain_time(&self, now: u64) -> u64 {
        self.chain.saturating_add(now)
    }

    /// Updates so far.
    fn updates(&self, now: u64) -> u64 {
        self.chain_time(now) / SECOND
    }

    fn time(&self, now: u64) -> i64 {
        self.base + self.updates(now) as i64
    }

    /// Writes the time into its bytes.
    fn show(&mut self, now: u64) {
        let (time, format) = (self.time(now), self.format());
        let (days, second) = (time.div_euclid(DAY), time.rem_euclid(DAY));
        let date = Date::from_days(days);
        let bytes = &mut self.bytes;
        bytes[SECONDS] = format.encode((second % 60) as u8);
        bytes[MINUTES] = format.encode((second / 60 % 60) as u8);
        bytes[HOURS] = format.encode_hour((second / 3600) as u8);
        // 1970-01-01 was a Thursday, 5 with Sunday as 1.
        bytes[WEEKDAY] = format.encode(((days + 4 + self.weekday).rem_euclid(7) + 1) as u8);
        bytes[DAY_OF_MONTH] = format.encode(date.day as u8);
        bytes[MONTH] = format.encode(date.month as u8);
        bytes[YEAR] = format.encode(date.year.rem_euclid(100) as u8);
        bytes[CENTURY] = format.encode(date.year.div_euclid(100).rem_euclid(100) as u8);
    }

    /// Takes the time from its bytes.
    fn set(&mut self, now: u64) {
        let (bytes, format) = (&self.bytes, self.format());
        let get = |index: usize| format.decode(bytes[index]);
        let date = Date {
            year: get(CENTURY) * 100 + get(YEAR),
            month: get(MONTH),
            day: get(DAY_OF_MONTH),
        };
        let hour = format.decode_hour(bytes[HOURS]);
        let second = (hour * 60 + get(MINUTES)) * 60 + get(SECONDS);
        let time = date.days() * DAY + second;
        self.weekday = (get(WEEKDAY) - 1 - time.div_euclid(DAY) - 4).rem_euclid(7);
        self.base = time - self.updates(now) as i64;
    }

    /// Ticks of the time base from one periodic interrupt to the next ("Rate selection bits").
    fn period(&self) -> Option<u64> {
        match self.bytes[A] & 0xf {
            _ if self.in_reset() => None,
            0 => None,
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn periods(&self, now: u64) -> u64 {
        let ticks = BASE_RATE.ticks(self.chain_time(now));
        self.period().map_or(0, |period| ticks / period)
    }

    /// Seconds from `time` to the next one, later than it, at which the alarm goes off.
    fn to_alarm(&self, time: i64) -> Option<i64> {
        let format = self.format();
        let matches = |index: usize, shown: u8| {
            let alarm = self.bytes[index];
            alarm >= ANY || alarm == shown
        };
        let mut ahead = 1;
        while ahead <= DAY {
            let second = (time + ahead).rem_euclid(DAY);
            if !matches(HOURS_ALARM, format.encode_hour((second / 3600) as u8)) {
                ahead += 3600 - second % 3600;
            } else if !matches(MINUTES_ALARM, format.encode((second / 60 % 60) as u8)) {
                ahead += 60 - second % 60;
            } else if !matches(SECONDS_ALARM, format.encode((second % 60) as u8)) {
                ahead += 1;
            } else {
                return Some(ahead);
            }
        }
        None
    }

    /// Sets the flags of what has happened up to `now`.
    fn advance(&mut self, now: u64) {
        let seen = std::mem::replace(&mut self.seen, now);
        if now <= seen {
            return;
        }
        if self.periods(now) != self.periods(seen) {
            self.bytes[C] |= PIE;
        }
        let updates = self.updates(now) - self.updates(seen);
        if updates != 0 && !self.stands_still() {
            self.bytes[C] |= UIE;
            if self.bytes[C] & AIE == 0
                && self.to_alarm(self.time(seen)).is_some_and(|ahead| ahead as u64 <= updates)
            {
                self.bytes[C] |= AIE;
            }
        }
    }

    fn interrupts(&self) -> bool {
        self.bytes[C] & self.bytes[B] & FLAGS != 0
    }

    /// When the next enabled interrupt comes.
    fn next(&self, now: u64) -> u64 {
        let enabled = self.bytes[B];
        let mut next = NEVER;
        let mut at = |chain_time: u64| next = next.min(chain_time.saturating_sub(self.chain));
        if enabled & PIE != 0
            && let Some(period) = self.period()
        {
            at(BASE_RATE.time((self.periods(now) + 1) * period));
        }
        if !self.stands_still() {
            if enabled & UIE != 0 {
                at((self.updates(now) + 1).saturating_mul(SECOND));
            }
            if enabled & AIE != 0
                && let Some(ahead) = self.to_alarm(self.time(now))
            {
                at((self.updates(now) + ahead as u64).saturating_mul(SECOND));
            }
        }
        next
    }

    fn update_in_progress(&self, now: u64) -> bool {
        !self.stands_still() && self.chain_time(now) % SECOND >= SECOND - UIP_TIME
    }
}

fn is_time(index: usize) -> bool {
    matches!(index, SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY)
}

impl Rtc {
    /// A clock that shows `wall_base` (nanoseconds since 1970) at guest time 0, in 24-hour BCD form.
    /// The rest of the memory is 0 until the board sets it.
    pub fn new(
        clock: Clock,
        timers: &TimerQueue,
        irq: IrqLine,
        wall_base: u64,
    ) -> Arc<Mutex<Self>> {
        let mut bytes = vec![0; BYTES];
        // 32768 Hz, 1024 interrupts a second as BIOSes set it.
        bytes[A] = 0x26;
        bytes[B] = HOURS_24;
        let state = RtcState {
            index: 0,
            bytes,
            base: (wall_base / SECOND) as i64,
            chain: wall_base % SECOND,
            weekday: 0,
            seen: clock.now(),
        };
        Arc::new_cyclic(|device: &Weak<Mutex<Self>>| {
            let device = device.clone();
            let timer = timers.register(Arc::new(move |_| {
                if let Some(device) = device.upgrade() {
                    lock(&device).update();
                }
            }));
            Mutex::new(Self { clock, timer, irq, state })
        })
    }

    /// Sets a byte of the memory, as a BIOS leaves it; those of the clock cannot be set so.
    pub fn set_byte(&mut self, index: usize, value: u8) {
        if index > D
            && index != CENTURY
            && let Some(byte) = self.state.bytes.get_mut(index)
        {
            *byte = value;
        }
    }

    /// Sets flags up to now, drives the line and arms the timer.
    fn update(&mut self) -> u64 {
        let now = self.clock.now();
        self.state.advance(now);
        let interrupts = self.state.interrupts();
        self.irq.set(interrupts);
        // While the line is high nothing new can be told; flags are set when they are read.
        self.timer.arm(if interrupts { NEVER } else { self.state.next(now) });
        now
    }

    fn read_byte(&mut self, now: u64) -> u8 {
        let state = &mut self.state;
        let index = usize::from(state.index);
        match index {
            A => {
                let uip = if state.update_in_progress(now) { UIP } else { 0 };
                state.bytes[A] | uip
            }
            C => {
                let irqf = if state.interrupts() { IRQF } else { 0 };
                std::mem::take(&mut state.bytes[C]) | irqf
            }
            D => VRT,
            _ => {
                if is_time(index) && !state.stands_still() {
                    state.show(now);
                }
                state.bytes[index]
            }
        }
    }

    fn write_byte(&mut self, value: u8, now: u64) {
        let state = &mut self.state;
        let index = usize::from(state.index);
        let (stood, was_reset) = (state.stands_still(), state.in_reset());
        if !stood {
            state.show(now);
        }
        match index {
            A => state.bytes[A] = value & !UIP,
            // SET going high clears UIE.
            B if value & SET != 0 && state.bytes[B] & SET == 0 => state.bytes[B] = value & !UIE,
            B => state.bytes[B] = value,
            C | D => {}
            _ => state.bytes[index] = value,
        }
        if was_reset && !state.in_reset() {
            // The first update comes half a second after the chain's release.
            let phase = now % SECOND;
            state.chain = (SECOND + SECOND / 2 - phase) % SECOND;
        }
        let starts = stood && !state.stands_still();
        if starts || !stood && is_time(index) {
            state.set(now);
        }
    }
}

impl Device for Rtc {
    fn name(&self) -> &'static str {
        "rtc"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        byte_only(width)?;
        if offset != DATA {
            return Err(BusError::Refused); // the index is write-only
        }
        let now = self.update();
        let value = self.read_byte(now);
        self.update();
        Ok(value.into())
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        byte_only(width)?;
        match offset {
            // Bit 7 masks NMIs, which nothing here raises.
            INDEX => self.state.index = value as u8 & 0x7f,
            DATA => {
                let now = self.update();
                self.write_byte(value as u8, now);
                self.update();
            }
            _ => return Err(BusError::Refused),
        }
        Ok(())
    }

    fn reset(&mut self) {
        // Section "RESET": time and memory survive by the battery.
        let state = &mut self.state;
        state.bytes[B] &= !(PIE | AIE | UIE | SQWE);
        state.bytes[C] = 0;
        state.index = 0;
        self.update();
    }

    fn save(&self) -> SavedDevice {
        let Self { clock, timer: _, irq: _, state } = self;
        // As a look now would leave it: what is saved must not tell when somebody looked last.
        let mut state = state.clone();
        state.advance(clock.now());
        SavedDevice::encode(VERSION, &state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        const FAR: i64 = 1 << 50;
        let state: RtcState = saved.decode(VERSION)?;
        check(state.bytes.len() == BYTES, "size of the CMOS memory")?;
        check(usize::from(state.index) < BYTES, "CMOS index")?;
        check(state.chain < SECOND && (0..7).contains(&state.weekday), "time base")?;
        check((-FAR..FAR).contains(&state.base), "time")?;
        check(state.bytes[C] & !FLAGS == 0 && state.bytes[A] & UIP == 0, "RTC registers")?;
        self.state = state;
        self.update();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
