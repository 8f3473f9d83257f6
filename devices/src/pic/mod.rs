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
mod tests;
