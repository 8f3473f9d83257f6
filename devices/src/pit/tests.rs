//! Expected values: the 8254's data sheet, the waveforms of the six modes and the sections named.

use super::*;
use crate::irq::IrqSink;
use crate::irq::tests::Recorder;

struct Rig {
    pit: Arc<Mutex<Pit>>,
    clock: Clock,
    timers: TimerQueue,
    edges: Arc<Recorder>,
}

fn rig() -> Rig {
    let (clock, timers) = (Clock::deterministic(), TimerQueue::new());
    let edges = Arc::new(Recorder::default());
    let sink: Arc<dyn IrqSink> = edges.clone();
    let pit = Pit::new(clock.clone(), &timers, IrqLine::new(sink, 0));
    edges.take();
    Rig { pit, clock, timers, edges }
}

impl Rig {
    fn write(&self, offset: u64, value: u64) {
        lock(&self.pit).write(offset, Width::Byte, value).unwrap();
    }
    fn read(&self, offset: u64) -> u64 {
        lock(&self.pit).read(offset, Width::Byte).unwrap()
    }
    fn tick(&self) -> u64 {
        Rate::PIT.ticks(self.clock.now())
    }
    fn pass(&self, ticks: u64) {
        let until = Rate::PIT.time(self.tick() + ticks);
        while let Some(next) = self.timers.next_deadline().filter(|&next| next <= until) {
            self.clock.advance_to(next);
            self.timers.fire_due(next);
        }
        self.clock.advance_to(until);
    }
    fn gate(&self, level: u64) {
        self.write(PORT_61, level);
    }
    fn out(&self) -> bool {
        self.read(PORT_61) & 0x20 != 0
    }
    /// (low byte of counter 2, OUT) after each of so many clock pulses.
    fn trace(&self, pulses: usize) -> Vec<(u64, bool)> {
        (0..pulses)
            .map(|_| {
                self.pass(1);
                self.write(3, 0x80);
                (self.read(2), self.out())
            })
            .collect()
    }
    /// Rising edges of IRQ 0 so far.
    fn rises(&self) -> usize {
        self.edges.take().iter().filter(|&&(_, level)| level).count()
    }
}

const L: bool = false;
const H: bool = true;

#[test]
fn mode_0_interrupts_on_terminal_count() {
    let rig = rig();
    rig.gate(1);
    rig.write(3, 0x90);
    assert!(!rig.out());
    rig.write(2, 4);
    let expected = [(4, L), (3, L), (2, L), (1, L), (0, H), (0xff, H), (0xfe, H)];
    assert_eq!(rig.trace(7), expected);
    // GATE holds the count.
    rig.write(2, 3);
    assert_eq!(rig.trace(2), [(3, L), (2, L)]);
    rig.gate(0);
    assert_eq!(rig.trace(2), [(2, L), (2, L)]);
    rig.gate(1);
    assert_eq!(rig.trace(2), [(1, L), (0, H)]);
    // Written while GATE is low, the count is loaded all the same.
    rig.gate(0);
    rig.write(2, 2);
    assert_eq!(rig.trace(3), [(2, L), (2, L), (2, L)]);
    rig.gate(1);
    assert_eq!(rig.trace(2), [(1, L), (0, H)]);
}

#[test]
fn mode_0_stops_between_two_bytes() {
    let rig = rig();
    rig.gate(1);
    rig.write(3, 0xb0);
    rig.write(2, 2);
    rig.write(2, 0);
    rig.pass(3);
    assert!(rig.out());
    rig.write(2, 5);
    assert!(!rig.out(), "OUT is low immediately");
    rig.pass(100);
    assert!(!rig.out());
    rig.write(2, 0);
    rig.pass(5);
    assert!(!rig.out());
    rig.pass(1);
    assert!(rig.out(), "N + 1 pulses after the write");
}

#[test]
fn mode_1_is_a_retriggerable_one_shot() {
    let rig = rig();
    rig.write(3, 0x92);
    rig.write(2, 3);
    rig.pass(10);
    assert!(rig.out());
    rig.gate(1);
    assert_eq!(rig.trace(5), [(3, L), (2, L), (1, L), (0, H), (0xff, H)]);
    rig.gate(0);
    rig.gate(1);
    assert_eq!(rig.trace(2), [(3, L), (2, L)]);
    rig.gate(0);
    rig.write(2, 2);
    rig.gate(1);
    assert_eq!(rig.trace(3), [(2, L), (1, L), (0, H)], "the new count with the trigger");
}

#[test]
fn mode_2_divides() {
    let rig = rig();
    rig.gate(1);
    rig.write(3, 0x94);
    assert!(rig.out());
    rig.write(2, 3);
    let expected = [(3, H), (2, H), (1, L), (3, H), (2, H), (1, L), (3, H)];
    assert_eq!(rig.trace(7), expected);
    rig.gate(0);
    assert!(rig.out());
    assert_eq!(rig.trace(2), [(3, H), (3, H)]);
    rig.gate(1);
    assert_eq!(rig.trace(3), [(3, H), (2, H), (1, L)]);
    // A new count is loaded at the end of the cycle.
    assert_eq!(rig.trace(1), [(3, H)]);
    rig.write(2, 4);
    assert_eq!(rig.trace(6), [(2, H), (1, L), (4, H), (3, H), (2, H), (1, L)]);
}

#[test]
fn mode_3_is_a_square_wave() {
    let rig = rig();
    rig.gate(1);
    rig.write(3, 0x96);
    rig.write(2, 4);
    assert_eq!(rig.trace(5), [(4, H), (2, H), (4, L), (2, L), (4, H)]);
    rig.write(2, 5); // at the end of the half cycle, which is the low half's beginning
    assert_eq!(rig.trace(3), [(2, H), (4, L), (2, L)]);
    let odd = [(4, H), (2, H), (0, H), (4, L), (2, L)];
    assert_eq!(rig.trace(5), odd);
    assert_eq!(rig.trace(5), odd);
    rig.gate(0);
    assert!(rig.out());
}

#[test]
fn mode_4_strobes_once() {
    let rig = rig();
    rig.gate(1);
    rig.write(3, 0x98);
    rig.write(2, 3);
    assert_eq!(rig.trace(6), [(3, H), (2, H), (1, H), (0, L), (0xff, H), (0xfe, H)]);
    rig.write(2, 2);
    assert_eq!(rig.trace(2), [(2, H), (1, H)]);
    rig.gate(0);
    assert_eq!(rig.trace(2), [(1, H), (1, H)]);
    rig.gate(1);
    assert_eq!(rig.trace(2), [(0, L), (0xff, H)]);
}

#[test]
fn mode_5_strobes_after_a_trigger() {
    let rig = rig();
    rig.write(3, 0x9a);
    rig.write(2, 3);
    rig.pass(10);
    assert!(rig.out());
    rig.gate(1);
    assert_eq!(rig.trace(5), [(3, H), (2, H), (1, H), (0, L), (0xff, H)]);
}

#[test]
fn bcd_counts_in_decades() {
    let rig = rig();
    rig.gate(1);
    rig.write(3, 0x95); // mode 2, BCD
    rig.write(2, 0x21);
    rig.pass(2);
    assert_eq!(rig.trace(3), [(0x19, H), (0x18, H), (0x17, H)]);
    rig.write(3, 0xb1); // mode 0, BCD, two bytes: 0 is 10000
    rig.write(2, 0);
    rig.write(2, 0);
    rig.pass(2);
    assert_eq!((rig.read(2), rig.read(2)), (0x99, 0x99));
    rig.pass(9_999);
    assert!(rig.out());
}

#[test]
fn a_latched_count_stays_until_read() {
    let rig = rig();
    rig.gate(1);
    rig.write(3, 0xb4);
    rig.write(2, 0x34);
    rig.write(2, 0x12);
    rig.pass(1);
    rig.write(3, 0x80);
    rig.pass(50);
    rig.write(3, 0x80); // ignored: the first latch has not been read
    assert_eq!((rig.read(2), rig.read(2)), (0x34, 0x12));
    assert_eq!((rig.read(2), rig.read(2)), (0x34 - 50, 0x12), "live again");
}

#[test]
fn the_read_back_command() {
    // Section "Read-back command", the status byte: bit 7 OUT, bit 6 null count, then the control word.
    let rig = rig();
    rig.gate(1);
    rig.write(3, 0xb4);
    rig.write(3, 0xe8);
    assert_eq!(rig.read(2), 0xf4, "no count yet");
    rig.write(2, 0x00);
    rig.write(2, 0x10);
    rig.write(3, 0xe8);
    assert_eq!(rig.read(2), 0xf4, "loaded by the next pulse");
    rig.pass(1);
    rig.write(3, 0xc8); // status and count
    assert_eq!((rig.read(2), rig.read(2), rig.read(2)), (0xb4, 0x00, 0x10));
    rig.write(2, 0x00);
    rig.write(2, 0x20);
    rig.write(3, 0xe8);
    assert_eq!(rig.read(2), 0xf4, "the new count waits for the end of the cycle");
    rig.pass(0x1000);
    rig.write(3, 0xe8);
    assert_eq!(rig.read(2), 0xb4);
    rig.write(3, 0x34);
    rig.write(3, 0xea); // status of counters 0 and 2
    assert_eq!((rig.read(0), rig.read(2)), (0xf4, 0xb4));
}

#[test]
fn irq_0_comes_at_the_rate_programmed() {
    let rig = rig();
    rig.write(3, 0x34);
    rig.write(0, 0x9c); // 1180 ticks, about 989 microseconds
    rig.write(0, 0x04);
    rig.rises();
    rig.pass(1180 * 1000 + 10);
    assert_eq!(rig.rises(), 1000);
    // One second, to the tick, whatever the host's jitter was.
    let second = rig.tick();
    rig.clock.advance_to(rig.clock.now() + 7_777);
    rig.timers.fire_due(rig.clock.now());
    let start = second - 1180 * 1000 - 10;
    let next = rig.timers.next_deadline().unwrap();
    assert_eq!((Rate::PIT.ticks(next) - start) % 1180, 1);
}

#[test]
fn late_callbacks_are_one_edge() {
    let rig = rig();
    rig.write(3, 0x16);
    rig.write(0, 100);
    rig.rises();
    rig.clock.advance_to(Rate::PIT.time(1001));
    rig.timers.fire_due(rig.clock.now());
    assert_eq!(rig.rises(), 1);
    assert_eq!(rig.timers.next_deadline(), Some(Rate::PIT.time(1101)));
}

#[test]
fn a_one_shot_rings_once() {
    let rig = rig();
    rig.write(3, 0x30);
    rig.write(0, 10);
    rig.write(0, 0);
    rig.rises();
    rig.pass(10);
    assert_eq!(rig.rises(), 0);
    rig.pass(1);
    assert_eq!(rig.rises(), 1);
    assert_eq!(rig.timers.next_deadline(), None);
    rig.write(3, 0x34); // OUT of mode 2 is high at once
    assert_eq!(rig.rises(), 0);
}

#[test]
fn port_61_shows_the_refresh_and_keeps_its_bits() {
    let rig = rig();
    rig.write(PORT_61, 0xff);
    assert_eq!(rig.read(PORT_61) & 0xcf, 0x0f);
    let before = rig.read(PORT_61) & 0x10;
    rig.pass(18);
    assert_ne!(rig.read(PORT_61) & 0x10, before);
}

#[test]
fn a_saved_timer_goes_on() {
    let first = rig();
    first.write(3, 0x34);
    first.write(0, 0);
    first.write(0, 1);
    first.pass(100);
    let saved = lock(&first.pit).save();
    let second = rig();
    second.clock.advance_to(first.clock.now());
    lock(&second.pit).restore(&saved).unwrap();
    assert_eq!(second.timers.next_deadline(), first.timers.next_deadline());
    assert_eq!(second.read(0), first.read(0));
    let mut state: PitState = saved.decode(VERSION).unwrap();
    state.port_61 = 0x80;
    let bad = SavedDevice::encode(VERSION, &state);
    assert_eq!(lock(&second.pit).restore(&bad), Err(RestoreError::Invalid("port 0x61")));
    lock(&second.pit).reset();
    assert_eq!(second.timers.next_deadline(), None);
    assert_eq!(lock(&second.pit).read(3, Width::Byte), Err(BusError::Refused));
    assert_eq!(lock(&second.pit).read(0, Width::Half), Err(BusError::Width));
}
