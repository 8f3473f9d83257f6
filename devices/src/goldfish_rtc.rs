//! Goldfish real-time clock: nanoseconds since 1970 and one alarm.
//!
//! Source: Android emulator, "GOLDFISH-VIRTUAL-HARDWARE", section IX, with the 64-bit alarm and
//! status registers that Linux's `rtc-goldfish` uses.

use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, lock, word_only};
use crate::clock::{Clock, Timer, TimerQueue};
use crate::irq::IrqLine;

/// Bytes that the device takes on the bus.
pub const SIZE: u64 = 0x1000;

const TIME_LOW: u64 = 0x00;
const TIME_HIGH: u64 = 0x04;
const ALARM_LOW: u64 = 0x08;
const ALARM_HIGH: u64 = 0x0c;
const IRQ_ENABLED: u64 = 0x10;
const CLEAR_ALARM: u64 = 0x14;
const ALARM_STATUS: u64 = 0x18;
const CLEAR_INTERRUPT: u64 = 0x1c;

const VERSION: u32 = 1;

/// The device.
pub struct GoldfishRtc {
    // What the board attached.
    clock: Clock,
    timer: Timer,
    irq: IrqLine,

    // What the guest can tell.
    state: RtcState,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct RtcState {
    /// Wall-clock nanoseconds at guest time 0; the board's until the guest sets the time.
    base: u64,
    /// High half of the time at the last read of TIME_LOW.
    latched_high: u32,
    alarm: u64,
    alarm_running: bool,
    irq_pending: bool,
    irq_enabled: bool,
}

impl RtcState {
    fn new(base: u64) -> Self {
        Self {
            base,
            latched_high: 0,
            alarm: 0,
            alarm_running: false,
            irq_pending: false,
            irq_enabled: false,
        }
    }
}

impl GoldfishRtc {
    /// A clock that shows `wall_base` (nanoseconds since 1970) at guest time 0.
    pub fn new(
        clock: Clock,
        timers: &TimerQueue,
        irq: IrqLine,
        wall_base: u64,
    ) -> Arc<Mutex<Self>> {
        Arc::new_cyclic(|device: &Weak<Mutex<Self>>| {
            let device = device.clone();
            let timer = timers.register(Arc::new(move |_| {
                if let Some(device) = device.upgrade() {
                    lock(&device).check_alarm();
                }
            }));
            Mutex::new(Self { clock, timer, irq, state: RtcState::new(wall_base) })
        })
    }

    fn time(&self) -> u64 {
        self.state.base.wrapping_add(self.clock.now())
    }

    fn set_time(&mut self, time: u64) {
        self.state.base = time.wrapping_sub(self.clock.now());
        self.check_alarm();
    }

    /// Fires the alarm if it is due, arms the timer if it is not, and drives the line.
    fn check_alarm(&mut self) {
        let (now, time) = (self.clock.now(), self.time());
        let state = &mut self.state;
        if state.alarm_running && state.alarm <= time {
            state.alarm_running = false;
            state.irq_pending = true;
        }
        if state.alarm_running {
            self.timer.arm(now.saturating_add(state.alarm - time));
        } else {
            self.timer.cancel();
        }
        self.irq.set(state.irq_pending && state.irq_enabled);
    }
}

impl Device for GoldfishRtc {
    fn name(&self) -> &'static str {
        "goldfish-rtc"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        word_only(offset, width)?;
        Ok(match offset {
            TIME_LOW => {
                let time = self.time();
                self.state.latched_high = (time >> 32) as u32;
                time & 0xffff_ffff
            }
            TIME_HIGH => self.state.latched_high.into(),
            ALARM_LOW => self.state.alarm & 0xffff_ffff,
            ALARM_HIGH => self.state.alarm >> 32,
            IRQ_ENABLED => self.state.irq_enabled.into(),
            ALARM_STATUS => self.state.alarm_running.into(),
            _ => 0,
        })
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        word_only(offset, width)?;
        match offset {
            TIME_LOW => self.set_time(self.time() & !0xffff_ffff | value),
            TIME_HIGH => self.set_time(self.time() & 0xffff_ffff | value << 32),
            ALARM_LOW => {
                self.state.alarm = self.state.alarm & !0xffff_ffff | value;
                self.state.alarm_running = true;
            }
            ALARM_HIGH => self.state.alarm = self.state.alarm & 0xffff_ffff | value << 32,
            IRQ_ENABLED => self.state.irq_enabled = value & 1 != 0,
            CLEAR_ALARM => self.state.alarm_running = false,
            CLEAR_INTERRUPT => self.state.irq_pending = false,
            _ => return Ok(()),
        }
        self.check_alarm();
        Ok(())
    }

    fn reset(&mut self) {
        // The time of day survives, as with a battery.
        self.state = RtcState::new(self.state.base);
        self.check_alarm();
    }

    fn save(&self) -> SavedDevice {
        let Self { clock: _, timer: _, irq: _, state } = self;
        SavedDevice::encode(VERSION, state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        // Every value of every field is possible in a running device.
        self.state = saved.decode(VERSION)?;
        self.check_alarm();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x1700_0000_ffff_ff00;

    fn rtc() -> (Arc<Mutex<GoldfishRtc>>, Clock, TimerQueue, IrqLine) {
        let (clock, timers) = (Clock::deterministic(), TimerQueue::new());
        let irq = IrqLine::unconnected();
        (GoldfishRtc::new(clock.clone(), &timers, irq.clone(), BASE), clock, timers, irq)
    }

    fn read(rtc: &Mutex<GoldfishRtc>, offset: u64) -> u64 {
        lock(rtc).read(offset, Width::Word).unwrap()
    }

    fn write(rtc: &Mutex<GoldfishRtc>, offset: u64, value: u64) {
        lock(rtc).write(offset, Width::Word, value).unwrap();
    }

    #[test]
    fn the_high_half_belongs_to_the_low_half_read_before() {
        let (rtc, clock, ..) = rtc();
        assert_eq!(read(&rtc, TIME_LOW), 0xffff_ff00);
        clock.advance_to(0x100);
        assert_eq!(read(&rtc, TIME_HIGH), 0x1700_0000);
        assert_eq!(read(&rtc, TIME_LOW), 0);
        assert_eq!(read(&rtc, TIME_HIGH), 0x1700_0001);
    }

    #[test]
    fn the_time_can_be_set_as_linux_does() {
        let (rtc, clock, ..) = rtc();
        clock.advance_to(5000);
        write(&rtc, TIME_HIGH, 0x10);
        write(&rtc, TIME_LOW, 0x20);
        clock.advance_to(5001);
        assert_eq!((read(&rtc, TIME_LOW), read(&rtc, TIME_HIGH)), (0x21, 0x10));
    }

    #[test]
    fn the_alarm_rings_at_its_time_until_cleared() {
        let (rtc, clock, timers, irq) = rtc();
        let alarm = BASE + 1000;
        write(&rtc, ALARM_HIGH, alarm >> 32);
        write(&rtc, ALARM_LOW, alarm & 0xffff_ffff);
        write(&rtc, IRQ_ENABLED, 1);
        assert_eq!(read(&rtc, ALARM_STATUS), 1);
        assert_eq!(read(&rtc, ALARM_LOW), alarm & 0xffff_ffff);
        assert_eq!(timers.next_deadline(), Some(1000));
        clock.advance_to(999);
        timers.fire_due(999);
        assert!(!irq.level());
        clock.advance_to(1000);
        timers.fire_due(1000);
        assert!(irq.level());
        assert_eq!(read(&rtc, ALARM_STATUS), 0);
        write(&rtc, CLEAR_INTERRUPT, 1);
        assert!(!irq.level());
    }

    #[test]
    fn alarms_can_be_late_masked_or_cleared() {
        let (rtc, _, timers, irq) = rtc();
        write(&rtc, ALARM_HIGH, 0);
        write(&rtc, ALARM_LOW, 1);
        assert!(!irq.level(), "not enabled");
        write(&rtc, IRQ_ENABLED, 1);
        assert!(irq.level(), "an alarm in the past rings at once");
        write(&rtc, IRQ_ENABLED, 0);
        assert!(!irq.level());
        write(&rtc, ALARM_HIGH, 0xffff_ffff);
        write(&rtc, ALARM_LOW, 0);
        write(&rtc, CLEAR_ALARM, 1);
        assert_eq!((read(&rtc, ALARM_STATUS), timers.next_deadline()), (0, None));
    }

    #[test]
    fn a_saved_clock_rings_after_restoring() {
        let (first, ..) = rtc();
        write(&first, ALARM_HIGH, BASE >> 32);
        write(&first, ALARM_LOW, 0xffff_ff80);
        write(&first, IRQ_ENABLED, 1);
        let saved = lock(&first).save();
        let (second, clock, timers, irq) = rtc();
        lock(&second).restore(&saved).unwrap();
        assert_eq!(timers.next_deadline(), Some(0x80));
        clock.advance_to(0x80);
        timers.fire_due(0x80);
        assert!(irq.level());
        lock(&second).reset();
        assert!(!irq.level());
    }

    #[test]
    fn only_words_are_served() {
        let (rtc, ..) = rtc();
        assert_eq!(lock(&rtc).read(0, Width::Double), Err(BusError::Width));
        assert_eq!(lock(&rtc).write(2, Width::Word, 0), Err(BusError::Width));
    }
}
