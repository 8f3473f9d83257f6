//! Power management of a PC: ACPI's PM1 registers, timer and general-purpose events, as PIIX4 has
//! them, and the two APM ports.
//!
//! Source: Intel, "82371AB PCI-TO-ISA / IDE Xcelerator (PIIX4)", order number 290562-001, "Power
//! management I/O space registers"; ACPI specification, "Fixed hardware". There is no SMM: what would
//! raise an SMI does nothing, but that a write to port 0xb2 switches to ACPI and back as QEMU's and
//! SeaBIOS' values for it do.
//!
//! Of sleep states there are S3 and S5. The reset on the way out of S3 leaves in the status why: the
//! power button, or the clock's alarm if it is enabled.

use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check, lock};
use crate::clock::{Clock, NEVER, Timer, TimerQueue};
use crate::irq::{IrqLine, IrqSink};
use crate::power::{PowerEvent, PowerSink};
use crate::ticks::Rate;

/// Offset of the registers that lie at PMBASE.
pub const REGISTERS: u64 = 0;
/// Ports there.
pub const REGISTER_PORTS: u64 = 0x40;
/// Offset of the APM control and status ports: the PC's 0xb2 and 0xb3.
pub const APM: u64 = 0x40;

/// Registers at PMBASE; each has 16 bits but for the timer's 32.
pub const PM1_STATUS: u64 = 0x00;
/// PM1 enable.
pub const PM1_ENABLE: u64 = 0x02;
/// PM1 control.
pub const PM1_CONTROL: u64 = 0x04;
/// The timer.
pub const PM_TIMER: u64 = 0x08;
/// General-purpose status; the enable register follows it.
pub const GPE_STATUS: u64 = 0x0c;

/// Written to [`APM`] to switch to ACPI (the FADT's ACPI_ENABLE).
pub const ACPI_ENABLE: u8 = 0xf1;
/// Written to [`APM`] to switch back (the FADT's ACPI_DISABLE).
pub const ACPI_DISABLE: u8 = 0xf0;
/// SLP_TYP of S5, soft off.
pub const S5: u8 = 0;
/// SLP_TYP of S3, suspend to RAM.
pub const S3: u8 = 1;

/// PM1 status and enable.
const TIMER_OVERFLOW: u16 = 1 << 0;
const POWER_BUTTON: u16 = 1 << 8;
const RTC: u16 = 1 << 10;
const WAKE: u16 = 1 << 15;
/// Bits that software can clear and, but for bus master and wake, enable.
const STATUS_BITS: u16 = 0x8d31;
const ENABLE_BITS: u16 = 0x0521;
/// PM1 control: SCI enable, bus master reload, sleep type; sleep enable is write-only.
const SCI_EN: u16 = 1;
const CONTROL_BITS: u16 = 0x1c03;
const SLEEP_TYPE_SHIFT: u32 = 10;
const SLEEP_ENABLE: u16 = 1 << 13;

/// The timer has 24 bits; a change of the highest is an overflow.
const TIMER_MASK: u64 = 0xff_ffff;
const OVERFLOW_TICKS: u64 = 1 << 23;

const VERSION: u32 = 2;

/// The device.
pub struct Pm {
    // What the board attached.
    clock: Clock,
    timer: Timer,
    sci: IrqLine,
    power: Arc<dyn PowerSink>,
    acpi: bool,

    // What the guest can tell.
    state: PmState,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PmState {
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: u16,
    gpe_enable: u16,
    apm: [u8; 2],
    /// Overflows of the timer that are in the status.
    overflows: u64,
    /// The machine sleeps.
    asleep: bool,
    /// What has ended its sleep, until the reset that follows.
    woken_by: u16,
}

impl PmState {
    fn new(acpi: bool, overflows: u64) -> Self {
        Self {
            status: 0,
            enable: 0,
            control: if acpi { SCI_EN } else { 0 },
            gpe_status: 0,
            gpe_enable: 0,
            apm: [0; 2],
            overflows,
            asleep: false,
            woken_by: 0,
        }
    }
}

fn overflows(now: u64) -> u64 {
    Rate::PM_TIMER.ticks(now) / OVERFLOW_TICKS
}

impl Pm {
    /// Power management that interrupts by `sci` and powers off through `power`. With `acpi` the
    /// machine is in ACPI mode from the start, for a FADT without SMI_CMD.
    pub fn new(
        clock: Clock,
        timers: &TimerQueue,
        sci: IrqLine,
        power: Arc<dyn PowerSink>,
        acpi: bool,
    ) -> Arc<Mutex<Self>> {
        Arc::new_cyclic(|device: &Weak<Mutex<Self>>| {
            let device = device.clone();
            let timer = timers.register(Arc::new(move |_| {
                if let Some(device) = device.upgrade() {
                    lock(&device).update();
                }
            }));
            let state = PmState::new(acpi, overflows(clock.now()));
            Mutex::new(Self { clock, timer, sci, power, acpi, state })
        })
    }

    /// The host's power button, which a guest's operating system takes for a wish to be shut down.
    pub fn press_power_button(&mut self) {
        self.state.status |= POWER_BUTTON;
        self.update();
    }

    /// A general-purpose event happens: bit `event`, of 16.
    pub fn raise_event(&mut self, event: u32) {
        self.state.gpe_status |= 1 << (event % 16);
        self.update();
    }

    /// Tells the machine to wake, if it sleeps and there is a reason.
    fn look_for_wake(&mut self) {
        let state = &mut self.state;
        // The button needs no enable.
        let woken_by = state.status & (state.enable & RTC | POWER_BUTTON);
        if state.asleep && woken_by != 0 {
            state.asleep = false;
            state.woken_by = woken_by;
            self.power.power(PowerEvent::Wake);
        }
    }

    /// Notes an overflow of the timer, drives the interrupt, and sets the alarm for the next overflow.
    fn update(&mut self) {
        let now = overflows(self.clock.now());
        let state = &mut self.state;
        if now != state.overflows {
            state.overflows = now;
            state.status |= TIMER_OVERFLOW;
        }
        let causes = state.status & state.enable | state.gpe_status & state.gpe_enable;
        self.sci.set(state.control & SCI_EN != 0 && causes != 0);
        let waits = state.enable & !state.status & TIMER_OVERFLOW != 0;
        let next = Rate::PM_TIMER.time((now + 1) * OVERFLOW_TICKS);
        self.timer.arm(if waits { next } else { NEVER });
        self.look_for_wake();
    }

    /// The registers as bytes.
    fn image(&self) -> [u8; 16] {
        let state = &self.state;
        let timer = Rate::PM_TIMER.ticks(self.clock.now()) & TIMER_MASK;
        let words = [
            u64::from(state.status)
                | u64::from(state.enable) << 16
                | u64::from(state.control) << 32,
            timer | u64::from(state.gpe_status) << 32 | u64::from(state.gpe_enable) << 48,
        ];
        (u128::from(words[0]) | u128::from(words[1]) << 64).to_le_bytes()
    }

    /// Writes one byte of the register at an even offset.
    fn write_byte(&mut self, offset: u64, byte: u8) {
        let shift = 8 * (offset % 2) as u32;
        let (value, mask) = (u16::from(byte) << shift, 0xff << shift);
        let merge = |old: u16, bits: u16| old & !(mask & bits) | value & mask & bits;
        let state = &mut self.state;
        match offset & !1 {
            PM1_STATUS => state.status &= !(value & STATUS_BITS),
            PM1_ENABLE => state.enable = merge(state.enable, ENABLE_BITS),
            PM1_CONTROL => {
                state.control = merge(state.control, CONTROL_BITS);
                if self.acpi {
                    state.control |= SCI_EN;
                }
                if value & SLEEP_ENABLE != 0 {
                    self.sleep();
                }
            }
            GPE_STATUS => state.gpe_status &= !value,
            0x0e => state.gpe_enable = merge(state.gpe_enable, u16::MAX),
            _ => log::debug!(target: "pm", "{byte:#x} to {offset:#x} does nothing"),
        }
    }

    fn sleep(&mut self) {
        match (self.state.control >> SLEEP_TYPE_SHIFT & 7) as u8 {
            S5 => self.power.power(PowerEvent::PowerOff),
            S3 => {
                self.state.asleep = true;
                self.power.power(PowerEvent::Suspend);
            }
            other => log::debug!(target: "pm", "no sleep of type {other}"),
        }
    }

    fn write_apm(&mut self, index: usize, value: u8) {
        self.state.apm[index] = value;
        match (index, value) {
            (0, ACPI_ENABLE) => self.state.control |= SCI_EN,
            (0, ACPI_DISABLE) if !self.acpi => self.state.control &= !SCI_EN,
            _ => {}
        }
    }
}

/// The line of the real-time clock's interrupt, whose rise is the alarm: the registers' RTC_STS.
pub fn alarm(pm: &Arc<Mutex<Pm>>) -> IrqLine {
    IrqLine::new(Arc::<Mutex<Pm>>::clone(pm), 0)
}

impl IrqSink for Mutex<Pm> {
    fn set_level(&self, _input: u32, level: bool) {
        if level {
            let mut pm = lock(self);
            pm.state.status |= RTC;
            pm.update();
        }
    }
}

impl Device for Pm {
    fn name(&self) -> &'static str {
        "pm"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        self.update();
        let byte_of = |bytes: &[u8], at: u64| -> u64 {
            usize::try_from(at).ok().and_then(|at| bytes.get(at)).copied().unwrap_or(0).into()
        };
        match offset {
            APM.. if width != Width::Byte => Err(BusError::Width),
            APM.. => Ok(byte_of(&self.state.apm, offset - APM)),
            _ => {
                // One look at the timer, however wide.
                let image = self.image();
                let bytes = (0..width.bytes()).map(|at| byte_of(&image, offset + at) << (8 * at));
                Ok(bytes.fold(0, |value, byte| value | byte))
            }
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        self.update();
        match offset {
            APM.. if width != Width::Byte => return Err(BusError::Width),
            APM | 0x41 => self.write_apm((offset - APM) as usize, value as u8),
            APM.. => return Err(BusError::Refused),
            _ => {
                let bytes = value.to_le_bytes();
                for (at, &byte) in (offset..).zip(&bytes[..width.bytes() as usize]) {
                    self.write_byte(at, byte);
                }
            }
        }
        self.update();
        Ok(())
    }

    fn reset(&mut self) {
        let woken_by = self.state.woken_by;
        self.state = PmState::new(self.acpi, overflows(self.clock.now()));
        if woken_by != 0 {
            self.state.status = WAKE | woken_by;
        }
        self.update();
    }

    fn save(&self) -> SavedDevice {
        let Self { clock: _, timer: _, sci: _, power: _, acpi: _, state } = self;
        SavedDevice::encode(VERSION, state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: PmState = saved.decode(VERSION)?;
        check(state.status & !STATUS_BITS == 0, "PM1 status")?;
        check(state.enable & !ENABLE_BITS == 0, "PM1 enable")?;
        check(state.control & !CONTROL_BITS == 0, "PM1 control")?;
        check(state.woken_by & !(RTC | POWER_BUTTON) == 0, "cause of waking")?;
        check(!(state.asleep && state.woken_by != 0), "sleep")?;
        self.state = state;
        if self.state.asleep || self.state.woken_by != 0 {
            self.power.power(PowerEvent::Suspend);
        }
        if self.state.woken_by != 0 {
            self.power.power(PowerEvent::Wake);
        }
        self.update();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Expected values: the PIIX4's data sheet, "Power management I/O space registers".
    use super::*;
    use crate::power::tests::Events;

    struct Rig {
        pm: Arc<Mutex<Pm>>,
        clock: Clock,
        timers: TimerQueue,
        sci: IrqLine,
        events: Arc<Events>,
    }

    fn rig(acpi: bool) -> Rig {
        let (clock, timers) = (Clock::deterministic(), TimerQueue::new());
        let (sci, events) = (IrqLine::unconnected(), Arc::new(Events::default()));
        let pm = Pm::new(clock.clone(), &timers, sci.clone(), events.clone(), acpi);
        Rig { pm, clock, timers, sci, events }
    }

    impl Rig {
        fn read(&self, offset: u64, width: Width) -> u64 {
            lock(&self.pm).read(offset, width).unwrap()
        }
        fn write(&self, offset: u64, width: Width, value: u64) {
            lock(&self.pm).write(offset, width, value).unwrap();
        }
        fn pass_to(&self, ns: u64) {
            self.clock.advance_to(ns);
            self.timers.fire_due(ns);
        }
    }

    #[test]
    fn the_timer_has_24_bits_at_3_579545_mhz() {
        let rig = rig(true);
        rig.pass_to(1_000_000_000);
        assert_eq!(rig.read(PM_TIMER, Width::Word), 3_579_545);
        rig.pass_to(10_000_000_000);
        assert_eq!(rig.read(PM_TIMER, Width::Word), 35_795_454 - 2 * 0x100_0000);
        assert_eq!(rig.read(PM_TIMER + 2, Width::Byte), (35_795_454 >> 16) & 0xff);
    }

    #[test]
    fn a_change_of_the_highest_bit_interrupts() {
        let rig = rig(true);
        rig.write(PM1_ENABLE, Width::Half, 1);
        let half = rig.timers.next_deadline().unwrap();
        assert_eq!(half / 1_000_000, 2_343, "2^23 ticks");
        rig.pass_to(half);
        assert!(rig.sci.level());
        assert_eq!(rig.read(PM1_STATUS, Width::Half), 1);
        assert_eq!(rig.timers.next_deadline(), None);
        rig.write(PM1_STATUS, Width::Half, 1);
        assert!(!rig.sci.level());
        rig.pass_to(rig.timers.next_deadline().unwrap());
        assert!(rig.sci.level(), "back to 0 is an overflow, too");
        // Without its enable it is noted all the same.
        rig.write(PM1_ENABLE, Width::Half, 0);
        rig.write(PM1_STATUS, Width::Half, 0xffff);
        rig.pass_to(3 * half + 10);
        assert_eq!((rig.read(PM1_STATUS, Width::Half), rig.sci.level()), (1, false));
    }

    #[test]
    fn soft_off() {
        let rig = rig(true);
        rig.write(PM1_CONTROL, Width::Half, 0x3c01); // a type that is none here
        assert_eq!(rig.events.take(), []);
        assert_eq!(rig.read(PM1_CONTROL, Width::Half), 0x1c01, "sleep enable is write-only");
        rig.write(PM1_CONTROL, Width::Half, 0x2001);
        assert_eq!(rig.events.take(), [PowerEvent::PowerOff]);
    }

    /// ACPI specification 4.8.2.2 and 4.8.3.1: the alarm wakes if it is enabled, the button always, and the status tells.
    #[test]
    fn the_alarm_and_the_button_wake_from_suspend() {
        let rig = rig(true);
        let alarm = alarm(&rig.pm);
        let ring = || {
            alarm.set(true);
            alarm.set(false);
        };
        let suspend = || rig.write(PM1_CONTROL, Width::Half, 0x2400);
        ring();
        assert_eq!(rig.read(PM1_STATUS, Width::Half), 0x400, "without sleep, too");
        rig.write(PM1_STATUS, Width::Half, 0x400);
        suspend();
        assert_eq!(rig.events.take(), [PowerEvent::Suspend]);
        ring();
        assert_eq!(rig.events.take(), [], "not enabled");
        lock(&rig.pm).press_power_button();
        assert_eq!(rig.events.take(), [PowerEvent::Wake]);
        lock(&rig.pm).reset();
        assert_eq!(rig.read(PM1_STATUS, Width::Half), 0x8100);
        rig.write(PM1_STATUS, Width::Word, 0x0400_ffff);
        suspend();
        // Saved asleep, it sleeps on and is woken.
        let saved = lock(&rig.pm).save();
        let second = self::rig(true);
        lock(&second.pm).restore(&saved).unwrap();
        assert_eq!(second.events.take(), [PowerEvent::Suspend]);
        self::alarm(&second.pm).set(true);
        let woken = lock(&second.pm).save();
        lock(&second.pm).reset();
        assert_eq!(second.read(PM1_STATUS, Width::Half), 0x8400);
        assert_eq!(second.events.take(), [PowerEvent::Wake]);
        // Saved before that reset, it wakes again.
        lock(&second.pm).restore(&woken).unwrap();
        assert_eq!(second.events.take(), [PowerEvent::Suspend, PowerEvent::Wake]);
        // A reason that is there already ends the sleep at once.
        lock(&second.pm).reset();
        second.write(PM1_STATUS, Width::Word, 0x0400_ffff);
        self::alarm(&second.pm).set(true);
        second.write(PM1_CONTROL, Width::Half, 0x2400);
        assert_eq!(second.events.take(), [PowerEvent::Suspend, PowerEvent::Wake]);
    }

    #[test]
    fn the_power_button_and_events_need_acpi_mode() {
        let rig = rig(false);
        rig.write(PM1_STATUS, Width::Word, 0x0100_0000);
        lock(&rig.pm).press_power_button();
        assert_eq!((rig.read(PM1_STATUS, Width::Word), rig.sci.level()), (0x0100_0100, false));
        rig.write(APM, Width::Byte, ACPI_ENABLE.into());
        assert_eq!((rig.read(PM1_CONTROL, Width::Byte), rig.sci.level()), (1, true));
        rig.write(PM1_STATUS + 1, Width::Byte, 1);
        assert!(!rig.sci.level());
        rig.write(GPE_STATUS + 2, Width::Half, 4);
        lock(&rig.pm).raise_event(2);
        assert!(rig.sci.level());
        rig.write(APM, Width::Byte, ACPI_DISABLE.into());
        assert!(!rig.sci.level());
        rig.write(APM, Width::Byte, ACPI_ENABLE.into());
        rig.write(GPE_STATUS, Width::Half, 4);
        assert_eq!((rig.read(GPE_STATUS, Width::Word), rig.sci.level()), (4 << 16, false));
        rig.write(APM + 1, Width::Byte, 0x5a);
        assert_eq!((rig.read(APM, Width::Byte), rig.read(APM + 1, Width::Byte)), (0xf1, 0x5a));
    }

    #[test]
    fn registers_have_their_bits() {
        let rig = rig(true);
        rig.write(PM1_STATUS, Width::Word, 0xffff_ffff);
        assert_eq!(rig.read(PM1_STATUS, Width::Word), 0x0521_0000);
        rig.write(PM1_CONTROL, Width::Half, 0xdffe);
        assert_eq!(rig.read(PM1_CONTROL, Width::Half), 0x1c03, "SCI_EN cannot be cleared here");
        rig.write(0x20, Width::Word, 0xffff_ffff);
        assert_eq!(rig.read(0x20, Width::Word), 0);
        assert_eq!(lock(&rig.pm).read(APM, Width::Half), Err(BusError::Width));
    }

    #[test]
    fn saved_power_management_goes_on() {
        let first = rig(true);
        first.write(PM1_ENABLE, Width::Half, 0x101);
        lock(&first.pm).press_power_button();
        let saved = lock(&first.pm).save();
        let second = rig(true);
        lock(&second.pm).restore(&saved).unwrap();
        assert!(second.sci.level());
        assert_eq!(second.timers.next_deadline(), first.timers.next_deadline());
        let mut state: PmState = saved.decode(VERSION).unwrap();
        state.control = SLEEP_ENABLE;
        let bad = SavedDevice::encode(VERSION, &state);
        let error = lock(&second.pm).restore(&bad);
        assert_eq!(error, Err(RestoreError::Invalid("PM1 control")));
        lock(&second.pm).reset();
        assert!(!second.sci.level());
    }
}
