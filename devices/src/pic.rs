//! The pair of 8259A interrupt controllers of a PC.
//!
//! Source: Intel, "8259A Programmable Interrupt Controller", order number 231468-003; ELCR: Intel
//! 82371AB PIIX4 datasheet. Not there: the modes of the MCS-80/85 and buffered mode,
//! which have no meaning on a PC, and LTIM, in whose place the PC has ELCR.
//!
//! The INT output of the second chip is the input IR2 of the first. An edge-triggered request is
//! lost if its line falls before it is acknowledged; the CPU then gets IR7 of that chip (section
//! "Edge and level triggered modes").

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, byte_only, check, lock};
use crate::irq::{IrqLine, IrqSink};
use crate::lapic::ExtIntSource;

/// Offset of the first chip's two registers: the PC's ports 0x20 and 0x21.
pub const FIRST: u64 = 0;
/// Offset of the second chip's two registers: the PC's ports 0xa0 and 0xa1.
pub const SECOND: u64 = 2;
/// Offset of the two edge/level control registers: the PC's ports 0x4d0 and 0x4d1.
pub const ELCR: u64 = 4;

/// Bits of ELCR that can be set: not the timer, the keyboard, the cascade, the clock and the
/// coprocessor.
const ELCR_BITS: [u8; 2] = [0xf8, 0xde];
/// The first chip's input that the second one drives.
const CASCADE: u8 = 2;
/// What an interrupt without a request is taken for.
const SPURIOUS: u8 = 7;

const VERSION: u32 = 1;

/// Which initialization command word comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Expected {
    /// None: operation command words.
    Ocw,
    Icw2,
    Icw3,
    Icw4,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Chip {
    /// Levels of the inputs.
    lines: u8,
    /// Edge-triggered requests that are latched; level-triggered ones are the lines themselves.
    edges: u8,
    imr: u8,
    isr: u8,
    /// Level-triggered inputs.
    elcr: u8,
    /// Vector of IR0.
    base: u8,
    expected: Expected,
    /// ICW1: no ICW3 comes.
    single: bool,
    /// ICW1: ICW4 comes.
    icw4: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_fully_nested: bool,
    special_mask: bool,
    /// A read of the command port shows ISR instead of IRR.
    read_isr: bool,
    /// The next read is a poll.
    poll: bool,
    /// The input of the lowest priority.
    lowest: u8,
}

impl Chip {
    fn new() -> Self {
        Self {
            lines: 0,
            edges: 0,
            imr: 0,
            isr: 0,
            elcr: 0,
            base: 0,
            expected: Expected::Ocw,
            single: false,
            icw4: false,
            auto_eoi: false,
            rotate_on_auto_eoi: false,
            special_fully_nested: false,
            special_mask: false,
            read_isr: false,
            poll: false,
            lowest: 7,
        }
    }

    fn set_line(&mut self, input: u8, level: bool) {
        let bit = 1 << input;
        if level {
            self.edges |= bit & !self.lines;
            self.lines |= bit;
        } else {
            self.edges &= !bit;
            self.lines &= !bit;
        }
    }

    fn irr(&self) -> u8 {
        self.edges & !self.elcr | self.lines & self.elcr
    }

    /// How many priorities lie above `input`'s.
    fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.lowest).wrapping_sub(1) & 7
    }

    /// The input of the highest priority in a set.
    fn highest(&self, set: u8) -> Option<u8> {
        (0..8).filter(|input| set >> input & 1 != 0).min_by_key(|&input| self.rank(input))
    }

    /// The request that the chip would pass on.
    fn request(&self) -> Option<u8> {
        let mut blocking = self.isr;
        if self.special_mask {
            blocking &= !self.imr;
        }
        let request = self.highest(self.irr() & !self.imr)?;
        let service = self.highest(blocking);
        let passes = service.is_none_or(|service| {
            let (request_rank, service_rank) = (self.rank(request), self.rank(service));
            // Special fully nested: the other chip's further requests pass its own in service.
            request_rank < service_rank
                || self.special_fully_nested && request == CASCADE && service == CASCADE
        });
        passes.then_some(request)
    }

    /// The acknowledge cycle's end for `input`.
    fn accept(&mut self, input: u8) {
        let bit = 1 << input;
        self.edges &= !bit;
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.lowest = input;
        }
    }

    fn icw1(&mut self, value: u8) {
        // Section "Initialization command words 1 and 2": the edge sense is reset, so that inputs
        // must rise again, and the mask cleared.
        let Self { lines, elcr, base, .. } = *self;
        *self = Self { lines, elcr, base, ..Self::new() };
        self.single = value & 2 != 0;
        self.icw4 = value & 1 != 0;
        self.expected = Expected::Icw2;
    }

    fn write_data(&mut self, value: u8) {
        let last = if self.icw4 { Expected::Icw4 } else { Expected::Ocw };
        self.expected = match self.expected {
            Expected::Ocw => {
                self.imr = value;
                Expected::Ocw
            }
            Expected::Icw2 => {
                self.base = value & 0xf8;
                if self.single { last } else { Expected::Icw3 }
            }
            // The wiring of the PC is what it is, whatever ICW3 says.
            Expected::Icw3 => last,
            Expected::Icw4 => {
                self.auto_eoi = value & 2 != 0;
                self.special_fully_nested = value & 0x10 != 0;
                Expected::Ocw
            }
        };
    }

    /// OCW2.
    fn end_or_rotate(&mut self, value: u8) {
        let level = value & 7;
        match value >> 5 {
            0b000 => self.rotate_on_auto_eoi = false,
            0b100 => self.rotate_on_auto_eoi = true,
            0b001 => drop(self.end()),
            0b101 => {
                if let Some(ended) = self.end() {
                    self.lowest = ended;
                }
            }
            0b011 => self.isr &= !(1 << level),
            0b111 => {
                self.isr &= !(1 << level);
                self.lowest = level;
            }
            0b110 => self.lowest = level,
            _ => {} // no operation
        }
    }

    /// Non-specific EOI: of the highest priority in service, but for masked ones in special mask
    /// mode.
    fn end(&mut self) -> Option<u8> {
        let masked = if self.special_mask { self.imr } else { 0 };
        let ended = self.highest(self.isr & !masked)?;
        self.isr &= !(1 << ended);
        Some(ended)
    }

    fn ocw3(&mut self, value: u8) {
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
        if value & 2 != 0 {
            self.read_isr = value & 1 != 0;
        }
        self.poll = value & 4 != 0;
    }

    fn write_command(&mut self, value: u8) {
        match value >> 3 & 3 {
            0 => self.end_or_rotate(value),
            1 => self.ocw3(value),
            _ => self.icw1(value),
        }
    }

    fn check(&self, index: usize) -> Result<(), RestoreError> {
        check(self.edges & !self.lines == 0, "request without a line")?;
        check(self.elcr & !ELCR_BITS[index] == 0, "ELCR")?;
        check(self.base & 7 == 0, "vector base")?;
        check(self.lowest < 8, "lowest priority")
    }
}

/// The device. As an [`IrqSink`] its inputs are IRQ 0 to 15; IRQ 2 is the cascade.
pub struct Pic {
    // What the board attached.
    intr: IrqLine,

    // What the guest can tell.
    chips: [Chip; 2],
}

impl Pic {
    /// A pair whose INT output is `intr`: LINT0 of the first CPU.
    pub fn new(intr: IrqLine) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { intr, chips: [Chip::new(), Chip::new()] }))
    }

    fn set_input(&mut self, input: u32, level: bool) {
        let (index, input) = ((input / 8) as usize, (input % 8) as u8);
        if let Some(chip) = self.chips.get_mut(index)
            && (index, input) != (0, CASCADE)
        {
            chip.set_line(input, level);
            self.update();
        }
    }

    /// Drives the cascade and the output.
    fn update(&mut self) {
        let [first, second] = &mut self.chips;
        first.set_line(CASCADE, second.request().is_some());
        self.intr.set(first.request().is_some());
    }

    /// The two INTA cycles: the vector for the CPU.
    fn acknowledge(&mut self) -> u8 {
        let [first, second] = &mut self.chips;
        let vector = match first.request() {
            None => first.base | SPURIOUS,
            Some(CASCADE) => {
                first.accept(CASCADE);
                // INT falls with the acknowledge, so that a further request is an edge again.
                first.set_line(CASCADE, false);
                let input = second.request();
                if let Some(input) = input {
                    second.accept(input);
                }
                second.base | input.unwrap_or(SPURIOUS)
            }
            Some(input) => {
                first.accept(input);
                first.base | input
            }
        };
        self.update();
        vector
    }

    /// Section "Poll command": the read acts as the acknowledge.
    fn poll(&mut self, index: usize) -> u8 {
        let chip = &mut self.chips[index];
        chip.poll = false;
        let request = chip.request();
        if let Some(input) = request {
            chip.accept(input);
            if index == 1 {
                self.chips[0].set_line(CASCADE, false);
            }
        }
        self.update();
        request.map_or(0, |input| 0x80 | input)
    }
}

impl Device for Pic {
    fn name(&self) -> &'static str {
        "pic"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        byte_only(width)?;
        let index = (offset / 2 % 2) as usize;
        let value = match offset {
            0..ELCR if self.chips[index].poll => self.poll(index),
            0..ELCR => {
                let chip = &self.chips[index];
                match (offset % 2, chip.read_isr) {
                    (1, _) => chip.imr,
                    (_, true) => chip.isr,
                    (_, false) => chip.irr(),
                }
            }
            ELCR | 5 => self.chips[(offset - ELCR) as usize].elcr,
            _ => return Err(BusError::Refused),
        };
        Ok(value.into())
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        byte_only(width)?;
        let (index, value) = ((offset / 2 % 2) as usize, value as u8);
        match offset {
            FIRST | SECOND => self.chips[index].write_command(value),
            0..ELCR => self.chips[index].write_data(value),
            ELCR | 5 => {
                let index = (offset - ELCR) as usize;
                self.chips[index].elcr = value & ELCR_BITS[index];
            }
            _ => return Err(BusError::Refused),
        }
        self.update();
        Ok(())
    }

    fn reset(&mut self) {
        for chip in &mut self.chips {
            // The wires keep their levels; devices lower them in their own reset.
            let lines = chip.lines;
            *chip = Chip { lines, ..Chip::new() };
        }
        self.update();
    }

    fn save(&self) -> SavedDevice {
        let Self { intr: _, chips } = self;
        SavedDevice::encode(VERSION, chips)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let chips: [Chip; 2] = saved.decode(VERSION)?;
        for (index, chip) in chips.iter().enumerate() {
            chip.check(index)?;
        }
        self.chips = chips;
        self.update();
        Ok(())
    }
}

impl IrqSink for Mutex<Pic> {
    fn set_level(&self, input: u32, level: bool) {
        lock(self).set_input(input, level);
    }
}

impl ExtIntSource for Mutex<Pic> {
    fn acknowledge(&self) -> u8 {
        lock(self).acknowledge()
    }
}

/// The PIC's inputs for [`IrqLine::new`].
pub fn inputs(pic: &Arc<Mutex<Pic>>) -> Arc<dyn IrqSink> {
    Arc::clone(pic) as Arc<dyn IrqSink>
}

#[cfg(test)]
mod tests {
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
        for (irq, vector, again) in [(1, 0x09, None), (10, 0x72, Some(0x72)), (5, 0x0d, Some(0x0d))]
        {
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
}
