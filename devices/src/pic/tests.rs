//! Expected values: the 8259A's data sheet, sections as named.

use super::*;

struct Rig {
    pic: Arc<Mutex<Pic>>,
    intr: IrqLine,
}

impl Rig {
    fn write(&self, offset: u64, value: u64) {
        lock(&self.pic).write(offset, Width::Byte, value).unwrap();
    }
    fn read(&self, offset: u64) -> u64 {
        lock(&self.pic).read(offset, Width::Byte).unwrap()
    }
    fn set(&self, irq: u32, level: bool) {
        self.pic.set_level(irq, level);
    }
    /// The vector, if INTR is high.
    fn take(&self) -> Option<u8> {
        self.intr.level().then(|| ExtIntSource::acknowledge(&*self.pic))
    }
    fn init(&self, chip: u64, base: u64, icw4: u64) {
        self.write(chip, 0x11);
        self.write(chip + 1, base);
        self.write(chip + 1, if chip == 0 { 4 } else { 2 });
        self.write(chip + 1, icw4);
    }
}

/// As a PC's BIOS sets it up: vectors 8 and 0x70, nothing masked.
fn rig() -> Rig {
    let intr = IrqLine::unconnected();
    let rig = Rig { pic: Pic::new(intr.clone()), intr };
    rig.init(FIRST, 0x08, 1);
    rig.init(SECOND, 0x70, 1);
    rig
}

#[test]
fn fully_nested_priorities() {
    let rig = rig();
    rig.set(4, true);
    assert_eq!(rig.take(), Some(0x0c));
    rig.set(5, true);
    assert_eq!(rig.take(), None, "below the one in service");
    rig.set(1, true);
    assert_eq!(rig.take(), Some(0x09));
    rig.write(FIRST, 0x20);
    assert_eq!(rig.take(), None, "4 is still in service");
    rig.write(FIRST, 0x20);
    assert_eq!(rig.take(), Some(0x0d));
    rig.write(FIRST, 0x0b);
    assert_eq!(rig.read(FIRST), 1 << 5, "ISR");
    rig.write(FIRST, 0x65);
    assert_eq!(rig.read(FIRST), 0, "specific EOI");
    rig.write(FIRST, 0x0a);
    assert_eq!(rig.read(FIRST), 0, "edges that were taken are no requests, though high");
}

#[test]
fn the_second_chip_is_nested_in_the_first() {
    let rig = rig();
    rig.set(12, true);
    assert_eq!(rig.take(), Some(0x74));
    rig.set(3, true);
    assert_eq!(rig.take(), None, "IR2 of the first chip is in service");
    rig.set(9, true);
    assert_eq!(rig.take(), None, "not without special fully nested mode");
    rig.write(SECOND, 0x20);
    rig.write(FIRST, 0x20);
    assert_eq!(rig.take(), Some(0x71));
    rig.write(SECOND, 0x20);
    rig.write(FIRST, 0x20);
    assert_eq!(rig.take(), Some(0x0b));
    // Section "Special fully nested mode".
    rig.init(FIRST, 0x08, 0x11);
    rig.init(SECOND, 0x70, 1);
    rig.set(12, false);
    rig.set(12, true);
    assert_eq!(rig.take(), Some(0x74));
    rig.set(9, false);
    rig.set(9, true);
    assert_eq!(rig.take(), Some(0x71));
}

#[test]
fn edges_need_a_rise_and_levels_a_level() {
    let rig = rig();
    rig.write(ELCR, 0xff);
    rig.write(ELCR + 1, 0xff);
    assert_eq!((rig.read(ELCR), rig.read(ELCR + 1)), (0xf8, 0xde));
    for (irq, vector, again) in [(1, 0x09, None), (10, 0x72, Some(0x72)), (5, 0x0d, Some(0x0d))] {
        rig.set(irq, true);
        assert_eq!(rig.take(), Some(vector));
        rig.write(SECOND, 0x20);
        rig.write(FIRST, 0x20);
        assert_eq!(rig.take(), again, "IRQ {irq} after its end");
        rig.write(SECOND, 0x20);
        rig.write(FIRST, 0x20);
        rig.set(irq, false);
        assert_eq!(rig.take(), None);
    }
}

#[test]
fn a_request_that_went_away_is_spurious() {
    let rig = rig();
    rig.set(4, true);
    rig.set(4, false);
    assert!(!rig.intr.level());
    assert_eq!(ExtIntSource::acknowledge(&*rig.pic), 0x0f);
    rig.write(FIRST, 0x0b);
    assert_eq!(rig.read(FIRST), 0, "nothing is in service");
    // On the second chip: the first one's IR2 is in service. There a CPU's acknowledge has
    // begun when the request goes away.
    rig.set(10, true);
    lock(&rig.pic).chips[1].set_line(2, false);
    assert_eq!(ExtIntSource::acknowledge(&*rig.pic), 0x77);
    assert_eq!(rig.read(FIRST), 1 << 2);
}

#[test]
fn the_mask_holds_back_and_keeps() {
    let rig = rig();
    rig.write(FIRST + 1, 0x12);
    assert_eq!(rig.read(FIRST + 1), 0x12);
    rig.set(1, true);
    assert_eq!((rig.take(), rig.read(FIRST)), (None, 2));
    rig.write(FIRST + 1, 0);
    assert_eq!(rig.take(), Some(9));
}

#[test]
fn special_mask_mode_lets_lower_ones_through() {
    let rig = rig();
    rig.set(1, true);
    assert_eq!(rig.take(), Some(9));
    rig.set(6, true);
    rig.write(FIRST, 0x68); // set special mask mode
    assert_eq!(rig.take(), None, "1 is not masked");
    rig.write(FIRST + 1, 2);
    assert_eq!(rig.take(), Some(0x0e));
    rig.write(FIRST, 0x20);
    rig.write(FIRST, 0x0b);
    assert_eq!(rig.read(FIRST), 2, "the masked one is not ended");
    rig.write(FIRST, 0x48); // reset special mask mode
    rig.write(FIRST, 0x20);
    assert_eq!(rig.read(FIRST), 0);
}

#[test]
fn automatic_ends_and_rotation() {
    let rig = rig();
    rig.init(FIRST, 0x20, 3);
    rig.init(SECOND, 0x28, 3);
    rig.set(8, true);
    rig.set(9, true);
    assert_eq!((rig.take(), rig.take(), rig.take()), (Some(0x28), Some(0x29), None));
    // Rotate in automatic EOI mode: who was served is last.
    rig.write(FIRST, 0x80);
    for irq in [0, 3, 5] {
        rig.set(irq, true);
    }
    assert_eq!(rig.take(), Some(0x20));
    rig.set(0, false);
    rig.set(0, true);
    assert_eq!((rig.take(), rig.take(), rig.take()), (Some(0x23), Some(0x25), Some(0x20)));
    rig.write(FIRST, 0x00);
    rig.write(FIRST, 0xc3); // priority command: 3 is the lowest, 4 the highest
    for irq in [3, 4] {
        rig.set(irq, false);
        rig.set(irq, true);
    }
    assert_eq!((rig.take(), rig.take()), (Some(0x24), Some(0x23)));
}

#[test]
fn rotation_with_ends() {
    let rig = rig();
    rig.set(4, true);
    assert_eq!(rig.take(), Some(0x0c));
    rig.write(FIRST, 0xa0);
    rig.set(5, true);
    rig.set(3, true);
    assert_eq!(rig.take(), Some(0x0d), "5 is the highest now");
    rig.write(FIRST, 0xe5);
    rig.set(6, true);
    assert_eq!(rig.take(), Some(0x0e), "rotate on specific EOI");
}

#[test]
fn polls_acknowledge() {
    let rig = rig();
    rig.set(6, true);
    rig.write(FIRST, 0x0c);
    assert_eq!(rig.read(FIRST), 0x86);
    assert!(!rig.intr.level());
    rig.write(FIRST, 0x0c);
    assert_eq!(rig.read(FIRST), 0);
    rig.write(FIRST, 0x0b);
    assert_eq!(rig.read(FIRST), 1 << 6);
    rig.set(15, true);
    rig.write(SECOND, 0x0c);
    assert_eq!(rig.read(SECOND + 1), 0x87);
    assert!(!rig.intr.level());
}

#[test]
fn initialization_forgets_edges_and_masks() {
    let rig = rig();
    rig.write(FIRST + 1, 0xff);
    rig.set(5, true);
    rig.write(FIRST, 0x13); // single, with ICW4: no ICW3
    rig.write(FIRST + 1, 0x47);
    rig.write(FIRST + 1, 0x01);
    assert_eq!((rig.read(FIRST + 1), rig.read(FIRST)), (0, 0));
    assert_eq!(rig.take(), None);
    rig.write(FIRST + 1, 0x0f);
    assert_eq!(rig.read(FIRST + 1), 0x0f, "OCW1 follows");
    rig.set(5, false);
    rig.set(5, true);
    assert_eq!(rig.take(), Some(0x45));
}

#[test]
fn a_saved_pair_goes_on() {
    let first = rig();
    first.set(14, true);
    first.set(3, true);
    let saved = lock(&first.pic).save();
    let intr = IrqLine::unconnected();
    let second = Rig { pic: Pic::new(intr.clone()), intr };
    lock(&second.pic).restore(&saved).unwrap();
    assert_eq!(second.take(), Some(0x76));
    let mut chips: [Chip; 2] = saved.decode(VERSION).unwrap();
    chips[1].lowest = 8;
    let bad = SavedDevice::encode(VERSION, &chips);
    let error = lock(&second.pic).restore(&bad);
    assert_eq!(error, Err(RestoreError::Invalid("lowest priority")));
    lock(&second.pic).reset();
    assert_eq!(second.take(), None, "edges must come again after a reset");
    assert_eq!(lock(&second.pic).read(0, Width::Half), Err(BusError::Width));
}
