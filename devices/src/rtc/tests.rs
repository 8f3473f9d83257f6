//! Expected values: the MC146818's data sheet, sections as named.

use super::*;

struct Rig {
    rtc: Arc<Mutex<Rtc>>,
    clock: Clock,
    timers: TimerQueue,
    irq: IrqLine,
}

/// 1999-12-31 23:59:58, a Friday.
const START: u64 = 946_684_798 * SECOND;

fn rig_at(wall_base: u64) -> Rig {
    let (clock, timers) = (Clock::deterministic(), TimerQueue::new());
    let irq = IrqLine::unconnected();
    let rtc = Rtc::new(clock.clone(), &timers, irq.clone(), wall_base);
    Rig { rtc, clock, timers, irq }
}

fn rig() -> Rig {
    rig_at(START)
}

impl Rig {
    fn read(&self, index: usize) -> u8 {
        let mut rtc = lock(&self.rtc);
        rtc.write(INDEX, Width::Byte, index as u64).unwrap();
        rtc.read(DATA, Width::Byte).unwrap() as u8
    }
    fn write(&self, index: usize, value: u8) {
        let mut rtc = lock(&self.rtc);
        rtc.write(INDEX, Width::Byte, index as u64 | 0x80).unwrap();
        rtc.write(DATA, Width::Byte, value.into()).unwrap();
    }
    fn pass_to(&self, ns: u64) {
        while let Some(next) = self.timers.next_deadline().filter(|&next| next <= ns) {
            self.clock.advance_to(next);
            self.timers.fire_due(next);
        }
        self.clock.advance_to(ns);
    }
    fn date(&self) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DAY_OF_MONTH, WEEKDAY, HOURS, MINUTES, SECONDS].map(|i| self.read(i))
    }
}

#[test]
fn the_time_passes_midnight_and_century() {
    let rig = rig();
    assert_eq!(rig.date(), [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x58]);
    rig.pass_to(2 * SECOND - 1);
    assert_eq!(rig.read(SECONDS), 0x59);
    rig.pass_to(2 * SECOND);
    assert_eq!(rig.date(), [0x20, 0x00, 0x01, 0x01, 7, 0, 0, 0]);
    assert_eq!((rig.read(A), rig.read(B), rig.read(D)), (0x26, 0x02, 0x80));
}

#[test]
fn binary_and_12_hours() {
    let rig = rig();
    rig.write(B, DM);
    assert_eq!(rig.date(), [19, 99, 12, 31, 6, 0x8b, 59, 58]);
    rig.write(B, 0);
    assert_eq!(rig.read(HOURS), 0x91);
}

#[test]
fn the_time_is_set_under_set() {
    let rig = rig();
    rig.pass_to(SECOND / 4);
    rig.write(B, SET | HOURS_24);
    for (index, value) in [(CENTURY, 0x20), (YEAR, 0x24), (MONTH, 2), (DAY_OF_MONTH, 0x28)] {
        rig.write(index, value);
    }
    for (index, value) in [(WEEKDAY, 4), (HOURS, 0x23), (MINUTES, 0x59), (SECONDS, 0x59)] {
        rig.write(index, value);
    }
    rig.pass_to(10 * SECOND);
    assert_eq!(rig.read(SECONDS), 0x59, "no update while it is being set");
    rig.write(B, HOURS_24);
    rig.pass_to(11 * SECOND);
    assert_eq!(rig.date(), [0x20, 0x24, 2, 0x29, 5, 0, 0, 0], "a leap year");
}

#[test]
fn a_reset_chain_updates_half_a_second_after_its_release() {
    let rig = rig();
    rig.write(A, 0x76);
    rig.pass_to(5 * SECOND + 123);
    assert_eq!(rig.read(SECONDS), 0x58);
    rig.write(A, 0x26);
    rig.pass_to(5 * SECOND + 123 + SECOND / 2 - 1);
    assert_eq!(rig.read(SECONDS), 0x58);
    rig.pass_to(5 * SECOND + 123 + SECOND / 2);
    assert_eq!(rig.read(SECONDS), 0x59);
}

#[test]
fn update_in_progress_announces_the_update() {
    // Register A, UIP: 244 microseconds before it.
    let rig = rig_at(START + SECOND / 2);
    rig.pass_to(SECOND / 2 - 244_001);
    assert_eq!(rig.read(A) & UIP, 0);
    rig.pass_to(SECOND / 2 - 244_000);
    assert_eq!(rig.read(A) & UIP, UIP);
    rig.write(B, SET | HOURS_24);
    assert_eq!(rig.read(A) & UIP, 0);
    rig.write(B, HOURS_24);
    rig.pass_to(SECOND / 2);
    assert_eq!((rig.read(A) & UIP, rig.read(SECONDS)), (0, 0x59));
}

#[test]
fn the_update_ended_interrupt() {
    let rig = rig();
    rig.write(B, UIE | HOURS_24);
    rig.pass_to(SECOND - 1);
    assert!(!rig.irq.level());
    rig.pass_to(SECOND);
    assert!(rig.irq.level());
    assert_eq!(rig.read(C), 0xd0, "IRQF, UF and, by the rate of 1024 Hz, PF");
    assert!(!rig.irq.level());
    assert_eq!(rig.read(C), 0);
    rig.pass_to(2 * SECOND);
    assert!(rig.irq.level());
    rig.write(B, SET | UIE | HOURS_24);
    assert_eq!(rig.read(B) & UIE, 0, "SET clears UIE");
    assert!(!rig.irq.level());
}

#[test]
fn the_alarm_and_its_dont_cares() {
    let rig = rig();
    for (index, value) in [(HOURS_ALARM, 0x00), (MINUTES_ALARM, 0x01), (SECONDS_ALARM, 0x05)] {
        rig.write(index, value);
    }
    rig.write(B, AIE | HOURS_24);
    assert_eq!(rig.timers.next_deadline(), Some(67 * SECOND));
    rig.pass_to(67 * SECOND);
    assert!(rig.irq.level());
    assert_eq!(rig.read(C) & (IRQF | AIE), IRQF | AIE);
    assert_eq!(rig.timers.next_deadline(), Some((67 + 86_400) * SECOND));
    rig.write(HOURS_ALARM, 0xc0);
    assert_eq!(rig.timers.next_deadline(), Some((67 + 3600) * SECOND));
    rig.write(MINUTES_ALARM, 0xff);
    assert_eq!(rig.timers.next_deadline(), Some((67 + 60) * SECOND));
    rig.write(SECONDS_ALARM, 0xff);
    assert_eq!(rig.timers.next_deadline(), Some(68 * SECOND));
    rig.write(SECONDS_ALARM, 0x77); // never
    assert_eq!(rig.timers.next_deadline(), None);
    // Without its enable the flag is set all the same.
    rig.write(B, HOURS_24);
    rig.write(SECONDS_ALARM, 0x30);
    rig.pass_to(200 * SECOND);
    assert_eq!((rig.read(C), rig.irq.level()), (PIE | AIE | UIE, false));
}

#[test]
fn the_periodic_rates() {
    // In Hz, of a time base of 32768 Hz.
    let rates = [256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2];
    for (rate, hertz) in (1..).zip(rates) {
        let rig = rig();
        rig.write(A, 0x20 | rate);
        rig.write(B, PIE | HOURS_24);
        let mut count = 0;
        while let Some(next) = rig.timers.next_deadline().filter(|&next| next <= SECOND) {
            rig.pass_to(next);
            assert_eq!(rig.read(C) & (IRQF | PIE), IRQF | PIE);
            count += 1;
        }
        assert_eq!(count, hertz, "RS {rate}");
    }
    let rig = rig();
    rig.write(A, 0x20);
    rig.write(B, PIE | HOURS_24);
    assert_eq!(rig.timers.next_deadline(), None);
}

#[test]
fn memory_keeps_and_the_board_fills_it() {
    let rig = rig();
    lock(&rig.rtc).set_byte(0x0f, 0x5a);
    lock(&rig.rtc).set_byte(0x7f, 0xa5);
    lock(&rig.rtc).set_byte(B, 0xff);
    lock(&rig.rtc).set_byte(0x80, 0xff);
    assert_eq!((rig.read(0x0f), rig.read(0x7f), rig.read(B)), (0x5a, 0xa5, 0x02));
    rig.write(0x40, 0x12);
    rig.write(C, 0xff);
    rig.write(D, 0);
    assert_eq!((rig.read(0x40), rig.read(C), rig.read(D)), (0x12, 0, 0x80));
    rig.write(B, PIE | AIE | UIE | SQWE | DM | HOURS_24);
    lock(&rig.rtc).reset();
    assert_eq!((rig.read(B), rig.read(0x40)), (DM | HOURS_24, 0x12));
    assert_eq!(lock(&rig.rtc).read(INDEX, Width::Byte), Err(BusError::Refused));
}

#[test]
fn a_saved_clock_goes_on() {
    let first = rig();
    first.write(SECONDS, 0x10);
    first.write(B, UIE | HOURS_24);
    let saved = lock(&first.rtc).save();
    let second = rig_at(0);
    lock(&second.rtc).restore(&saved).unwrap();
    assert_eq!(second.date(), [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x10]);
    second.pass_to(SECOND);
    assert!(second.irq.level());
    let mut state: RtcState = saved.decode(VERSION).unwrap();
    state.bytes.pop();
    let bad = SavedDevice::encode(VERSION, &state);
    let error = lock(&second.rtc).restore(&bad);
    assert_eq!(error, Err(RestoreError::Invalid("size of the CMOS memory")));
}
