//! Expected values: the IA-PC HPET specification 1.0a.

use super::*;
use crate::irq::IrqSink;
use crate::irq::tests::Recorder;
use crate::msi::tests::Messages;

struct Rig {
    hpet: Arc<Mutex<Hpet>>,
    clock: Clock,
    timers: TimerQueue,
    /// Inputs of the IOAPIC; IRQ 0 is 100, IRQ 8 is 108.
    changes: Arc<Recorder>,
    pit: IrqLine,
    messages: Arc<Messages>,
}

fn rig() -> Rig {
    let (clock, timers) = (Clock::deterministic(), TimerQueue::new());
    let (changes, messages) = (Arc::new(Recorder::default()), Arc::new(Messages::default()));
    let line = |input| IrqLine::new(changes.clone() as Arc<dyn IrqSink>, input);
    let legacy = LegacyRoute::new(line(100), line(108));
    let wiring = Wiring {
        legacy: legacy.clone(),
        pins: (0..24).map(line).collect(),
        routes: 0x00f0_0004,
        messages: messages.clone(),
    };
    let hpet = Hpet::new(clock.clone(), &timers, wiring);
    Rig { hpet, clock, timers, changes, pit: IrqLine::new(legacy, 0), messages }
}

impl Rig {
    fn read(&self, offset: u64) -> u64 {
        lock(&self.hpet).read(offset, Width::Double).unwrap()
    }
    fn write(&self, offset: u64, value: u64) {
        lock(&self.hpet).write(offset, Width::Double, value).unwrap();
    }
    /// To so many ticks of guest time.
    fn pass_to(&self, tick: u64) {
        let ns = tick * NS_PER_TICK;
        while let Some(next) = self.timers.next_deadline().filter(|&next| next <= ns) {
            self.clock.advance_to(next);
            self.timers.fire_due(next);
        }
        self.clock.advance_to(ns);
    }
    /// Inputs that went high.
    fn rises(&self) -> Vec<u32> {
        let changes = self.changes.take();
        changes.iter().filter(|change| change.1).map(|change| change.0).collect()
    }
}

#[test]
fn capabilities_and_the_counter() {
    let rig = rig();
    // 10 ns are 0x989680 fs.
    assert_eq!(rig.read(0), 0x0098_9680_8086_a201);
    assert_eq!(rig.read(0x100), 0x00f0_0004_0000_8030);
    assert_eq!(rig.read(0x108), u64::MAX);
    rig.pass_to(100);
    assert_eq!(rig.read(COUNTER), 0, "halted");
    rig.write(COUNTER, 0xffff_fff0);
    rig.write(CONFIGURATION, ENABLE);
    rig.pass_to(132);
    assert_eq!(rig.read(COUNTER), 0x1_0000_0010);
    rig.write(CONFIGURATION, 0);
    rig.pass_to(200);
    assert_eq!(rig.read(COUNTER), 0x1_0000_0010);
    let mut hpet = lock(&rig.hpet);
    assert_eq!(hpet.read(COUNTER + 4, Width::Word), Ok(1));
    hpet.write(COUNTER + 4, Width::Word, 7).unwrap();
    assert_eq!(hpet.read(COUNTER, Width::Double), Ok(0x7_0000_0010));
    assert_eq!(hpet.read(COUNTER, Width::Half), Err(BusError::Width));
    assert_eq!(hpet.read(COUNTER + 4, Width::Double), Err(BusError::Width));
}

#[test]
fn a_one_shot_matches_once() {
    let rig = rig();
    rig.write(0x140, INTERRUPT | 20 << ROUTE_SHIFT);
    rig.write(0x148, 1000);
    rig.write(CONFIGURATION, ENABLE);
    rig.pass_to(999);
    assert_eq!(rig.rises(), []);
    rig.pass_to(1000);
    assert_eq!(rig.rises(), [20]);
    rig.pass_to(1_000_000);
    assert_eq!((rig.rises(), rig.timers.next_deadline()), (vec![], None));
    rig.write(0x148, 999_999); // already past: only after the counter has wrapped
    rig.pass_to(2_000_000);
    assert_eq!(rig.rises(), []);
}

#[test]
fn routes_that_are_not_offered_lead_nowhere() {
    let rig = rig();
    rig.write(0x100, INTERRUPT | 5 << ROUTE_SHIFT);
    rig.write(0x108, 10);
    rig.write(CONFIGURATION, ENABLE);
    rig.pass_to(20);
    assert_eq!(rig.rises(), []);
}

#[test]
fn a_timer_of_32_bits_matches_at_each_wrap() {
    let rig = rig();
    rig.write(0x100, INTERRUPT | BITS_32 | 2 << ROUTE_SHIFT);
    rig.write(0x108, 0x1_0000_0064);
    assert_eq!(rig.read(0x108), 100);
    rig.write(CONFIGURATION, ENABLE);
    rig.pass_to(100);
    assert_eq!(rig.rises(), [2]);
    rig.pass_to(0x1_0000_0063);
    assert_eq!(rig.rises(), []);
    rig.pass_to(0x1_0000_0064);
    assert_eq!(rig.rises(), [2]);
}

#[test]
fn periodic_without_drift() {
    // As Linux sets it up: accumulator first, then the period.
    let rig = rig();
    rig.write(CONFIGURATION, ENABLE);
    rig.write(0x100, INTERRUPT | PERIODIC | SET_ACCUMULATOR | 2 << ROUTE_SHIFT);
    rig.write(0x108, 5_000);
    assert_eq!(rig.read(0x100) & SET_ACCUMULATOR, 0);
    rig.write(0x108, 100_000);
    assert_eq!(rig.read(0x108), 5_000);
    rig.pass_to(5_000);
    assert_eq!((rig.rises(), rig.read(0x108)), (vec![2], 105_000));
    rig.clock.advance_to((305_000 + 77) * NS_PER_TICK); // late
    rig.timers.fire_due(rig.clock.now());
    assert_eq!((rig.rises(), rig.read(0x108)), (vec![2], 405_000));
    rig.pass_to(1_405_000);
    assert_eq!(rig.rises().len(), 11);
}

#[test]
fn one_write_sets_accumulator_and_period() {
    let rig = rig();
    rig.write(0x120, INTERRUPT | PERIODIC | SET_ACCUMULATOR | 21 << ROUTE_SHIFT);
    rig.write(0x128, 2_000);
    rig.write(CONFIGURATION, ENABLE);
    rig.pass_to(6_000);
    assert_eq!(rig.rises(), [21, 21, 21]);
    // A period of one tick is looked at once in ten microseconds.
    rig.write(CONFIGURATION, 0);
    rig.write(COUNTER, 0);
    rig.write(0x120, INTERRUPT | PERIODIC | SET_ACCUMULATOR | 21 << ROUTE_SHIFT);
    rig.write(0x128, 1);
    rig.write(CONFIGURATION, ENABLE);
    assert_eq!(rig.timers.next_deadline(), Some(60_000 + 10_000));
    rig.pass_to(7_000);
    assert_eq!((rig.rises(), rig.timers.next_deadline()), (vec![21], Some(80_000)));
    assert_eq!(rig.read(0x128), 1_001);
}

#[test]
fn a_level_stays_until_acknowledged() {
    let rig = rig();
    rig.write(0x100, INTERRUPT | LEVEL | 20 << ROUTE_SHIFT);
    rig.write(0x108, 10);
    rig.write(CONFIGURATION, ENABLE);
    rig.pass_to(10);
    assert_eq!((rig.changes.take(), rig.read(STATUS)), (vec![(20, true)], 1));
    rig.write(STATUS, 6);
    assert_eq!(rig.changes.take(), []);
    rig.write(STATUS, 1);
    assert_eq!((rig.changes.take(), rig.read(STATUS)), (vec![(20, false)], 0));
}

#[test]
fn messages_instead_of_lines() {
    let rig = rig();
    rig.write(0x100, INTERRUPT | FSB);
    rig.write(0x110, 0xfee0_1000_0000_4055);
    rig.write(0x108, 10);
    rig.write(CONFIGURATION, ENABLE);
    rig.pass_to(10);
    assert_eq!(rig.messages.take(), [Msi { address: 0xfee0_1000, data: 0x4055 }]);
    assert_eq!(rig.rises(), []);
}

#[test]
fn legacy_replacement_takes_irq_0_and_8() {
    let rig = rig();
    rig.pit.raise();
    assert_eq!(rig.changes.take(), [(100, true)]);
    rig.write(CONFIGURATION, ENABLE | LEGACY);
    assert_eq!(rig.changes.take(), [(100, false)]);
    rig.pit.lower();
    rig.pit.raise();
    assert_eq!(rig.changes.take(), [], "the PIT is cut off");
    rig.write(0x100, INTERRUPT | 20 << ROUTE_SHIFT);
    rig.write(0x120, INTERRUPT | 20 << ROUTE_SHIFT);
    rig.write(0x108, 100);
    rig.write(0x128, 200);
    rig.pass_to(300);
    assert_eq!(rig.rises(), [100, 108], "whatever their route says");
    rig.write(0x108, 400);
    rig.pass_to(400);
    assert_eq!(rig.changes.take(), [(100, false), (100, true)], "an edge for PIC and IOAPIC");
    rig.write(CONFIGURATION, ENABLE);
    assert_eq!(rig.changes.take(), [(108, false)], "the PIT's level is back, which is high");
}

#[test]
fn a_saved_block_goes_on() {
    let first = rig();
    first.write(0x100, INTERRUPT | LEVEL);
    first.write(0x108, 50);
    first.write(0x140, INTERRUPT | 20 << ROUTE_SHIFT);
    first.write(0x148, 100);
    first.write(CONFIGURATION, ENABLE | LEGACY);
    first.pass_to(60);
    let saved = lock(&first.hpet).save();
    let second = rig();
    second.pass_to(60);
    lock(&second.hpet).restore(&saved).unwrap();
    assert_eq!(second.changes.take(), [(100, true)]);
    second.pass_to(100);
    assert_eq!((second.rises(), second.read(COUNTER)), (vec![20], 100));
    let mut state: HpetState = saved.decode(VERSION).unwrap();
    state.timers[1].configuration = 1;
    let bad = SavedDevice::encode(VERSION, &state);
    let error = lock(&second.hpet).restore(&bad);
    assert_eq!(error, Err(RestoreError::Invalid("HPET timer configuration")));
    lock(&second.hpet).reset();
    assert_eq!(second.changes.take(), [(100, false)]);
    assert_eq!((second.read(COUNTER), second.timers.next_deadline()), (0, None));
}
