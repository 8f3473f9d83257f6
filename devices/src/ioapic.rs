//! I/O APIC with 24 inputs.
//!
//! Source: Intel, "82093AA I/O Advanced Programmable Interrupt Controller", order number 290566-001;
//! the EOI register of version 20H: Intel 82801 (ICH) datasheets, "APIC". Section numbers are the
//! 82093AA's. What it sends are messages as of an MSI: to the LAPICs.
//!
//! An [`crate::irq::IrqLine`] is high when its device asserts the interrupt, so the polarity bit of a
//! redirection entry is kept and means nothing.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check, lock};
use crate::irq::IrqSink;
use crate::lapic::EoiSink;
use crate::msi::{self, Msi, MsiSink};

/// Bytes that the device takes on the bus.
pub const SIZE: u64 = 0x1000;
/// Inputs.
pub const PINS: usize = 24;

/// Offsets, section 3.1; EOI is of version 20H.
const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const EOI: u64 = 0x40;

/// Registers behind IOREGSEL, section 3.2.
const ID: u8 = 0;
const VERSION_REGISTER: u8 = 1;
const ARBITRATION: u8 = 2;
const REDIRECTION: u8 = 0x10;

/// Version 20H, the highest entry is 23.
const VERSION_VALUE: u32 = (PINS as u32 - 1) << 16 | 0x20;

/// Redirection entry, section 3.2.4.
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Bits that can be written: all but delivery status (12), remote IRR and the reserved ones.
const WRITABLE: u64 = 0xff00_0000_0001_afff;
/// Delivery mode 7: the vector comes from the PIC.
const EXT_INT: u64 = 7;

const VERSION: u32 = 1;

/// The device. As an [`IrqSink`] its inputs are the pins.
pub struct IoApic {
    // What the board attached.
    messages: Arc<dyn MsiSink>,

    // What the guest can tell.
    state: IoApicState,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct IoApicState {
    select: u8,
    /// Bits 27 to 24 of the ID register.
    id: u32,
    /// Levels of the pins.
    lines: u32,
    entries: [u64; PINS],
}

impl IoApicState {
    fn new(lines: u32) -> Self {
        Self { select: 0, id: 0, lines, entries: [MASKED; PINS] }
    }
}

impl IoApic {
    /// An IOAPIC that sends to `messages`.
    pub fn new(messages: Arc<dyn MsiSink>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { messages, state: IoApicState::new(0) }))
    }

    fn set_pin(&mut self, pin: usize, level: bool) {
        let bit = 1 << pin;
        let rose = level && self.state.lines & bit == 0;
        self.state.lines = if level { self.state.lines | bit } else { self.state.lines & !bit };
        let entry = self.state.entries[pin];
        if entry & LEVEL != 0 {
            self.service_level(pin);
        } else if rose && entry & MASKED == 0 {
            // Section 3.2.4, bit 16: an edge at a masked pin is neither delivered nor held.
            self.send(entry);
        }
    }

    /// Delivers a level-triggered interrupt that is asserted and not in service.
    fn service_level(&mut self, pin: usize) {
        let entry = self.state.entries[pin];
        let ready = entry & (LEVEL | MASKED | REMOTE_IRR) == LEVEL;
        if ready && self.state.lines >> pin & 1 != 0 {
            // The PIC's interrupts have no EOI here.
            if entry >> 8 & 7 != EXT_INT {
                self.state.entries[pin] |= REMOTE_IRR;
            }
            self.send(entry);
        }
    }

    fn send(&self, entry: u64) {
        let (destination, logical) = (entry >> 56, entry >> 11 & 1);
        let address = u64::from(msi::ADDRESS) | destination << 12 | logical << 2;
        let level = entry & LEVEL;
        // Vector and delivery mode lie as in the message; an asserted level sets bit 14, too.
        let data = entry & 0x7ff | level | level >> 1;
        self.messages.send(Msi { address, data: data as u32 });
    }

    /// Whether a device's interrupt can become an NMI or INIT here.
    #[must_use]
    pub fn has_unmaskable(&self) -> bool {
        self.state
            .entries
            .iter()
            .any(|entry| entry & MASKED == 0 && matches!(entry >> 8 & 7, 4 | 5))
    }

    fn end_of_interrupt(&mut self, vector: u8) {
        for pin in 0..PINS {
            let entry = &mut self.state.entries[pin];
            if *entry & REMOTE_IRR != 0 && *entry as u8 == vector {
                *entry &= !REMOTE_IRR;
                self.service_level(pin);
            }
        }
    }

    /// The entry and the lowest bit of it that a register number shows.
    fn entry(select: u8) -> Option<(usize, u32)> {
        let index = select.checked_sub(REDIRECTION)?;
        let pin = usize::from(index / 2);
        (pin < PINS).then_some((pin, u32::from(index % 2) * 32))
    }

    fn read_window(&self) -> u32 {
        match self.state.select {
            ID | ARBITRATION => self.state.id,
            VERSION_REGISTER => VERSION_VALUE,
            select => Self::entry(select)
                .map_or(0, |(pin, shift)| (self.state.entries[pin] >> shift) as u32),
        }
    }

    fn write_window(&mut self, value: u32) {
        if self.state.select == ID {
            self.state.id = value & 0x0f00_0000;
            return;
        }
        let Some((pin, shift)) = Self::entry(self.state.select) else { return };
        let writable = WRITABLE & 0xffff_ffff << shift;
        let entry = &mut self.state.entries[pin];
        *entry = *entry & !writable | u64::from(value) << shift & writable;
        if *entry & LEVEL == 0 {
            // Remote IRR means nothing for an edge; software clears it by a change to edge and back.
            *entry &= !REMOTE_IRR;
        }
        self.service_level(pin);
    }
}

impl Device for IoApic {
    fn name(&self) -> &'static str {
        "ioapic"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        match (offset, width) {
            (IOREGSEL, _) => Ok(self.state.select.into()),
            (IOWIN, Width::Word) => Ok(self.read_window().into()),
            (_, Width::Word) => Ok(0),
            _ => Err(BusError::Width),
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        match (offset, width) {
            (IOREGSEL, _) => self.state.select = value as u8,
            (IOWIN, Width::Word) => self.write_window(value as u32),
            (EOI, Width::Word | Width::Byte) => self.end_of_interrupt(value as u8),
            (_, Width::Word) => {}
            _ => return Err(BusError::Width),
        }
        Ok(())
    }

    fn reset(&mut self) {
        // The wires keep their levels; devices lower them in their own reset.
        self.state = IoApicState::new(self.state.lines);
    }

    fn save(&self) -> SavedDevice {
        let Self { messages: _, state } = self;
        SavedDevice::encode(VERSION, state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: IoApicState = saved.decode(VERSION)?;
        check(state.id & !0x0f00_0000 == 0, "IOAPIC id")?;
        check(state.lines >> PINS == 0, "IOAPIC pins")?;
        for entry in state.entries {
            let possible = if entry & LEVEL != 0 { WRITABLE | REMOTE_IRR } else { WRITABLE };
            check(entry & !possible == 0, "redirection entry")?;
        }
        self.state = state;
        Ok(())
    }
}

impl IrqSink for Mutex<IoApic> {
    fn set_level(&self, input: u32, level: bool) {
        if (input as usize) < PINS {
            lock(self).set_pin(input as usize, level);
        }
    }
}

impl EoiSink for Mutex<IoApic> {
    fn end_of_interrupt(&self, vector: u8) {
        lock(self).end_of_interrupt(vector);
    }
}

/// The IOAPIC's pins for [`crate::irq::IrqLine::new`].
pub fn inputs(ioapic: &Arc<Mutex<IoApic>>) -> Arc<dyn IrqSink> {
    Arc::clone(ioapic) as Arc<dyn IrqSink>
}

#[cfg(test)]
mod tests {
    //! Expected values: the 82093AA's data sheet, sections as named.
    use super::*;
    use crate::msi::tests::Messages;

    struct Rig {
        ioapic: Arc<Mutex<IoApic>>,
        messages: Arc<Messages>,
    }

    fn rig() -> Rig {
        let messages = Arc::new(Messages::default());
        Rig { ioapic: IoApic::new(messages.clone()), messages }
    }

    impl Rig {
        fn read(&self, register: u64) -> u64 {
            let mut ioapic = lock(&self.ioapic);
            ioapic.write(IOREGSEL, Width::Word, register).unwrap();
            ioapic.read(IOWIN, Width::Word).unwrap()
        }
        fn write(&self, register: u64, value: u64) {
            let mut ioapic = lock(&self.ioapic);
            ioapic.write(IOREGSEL, Width::Word, register).unwrap();
            ioapic.write(IOWIN, Width::Word, value).unwrap();
        }
        fn entry(&self, pin: u64, value: u64) {
            self.write(0x11 + 2 * pin, value >> 32);
            self.write(0x10 + 2 * pin, value & 0xffff_ffff);
        }
        fn set(&self, pin: u32, level: bool) {
            self.ioapic.set_level(pin, level);
        }
        fn eoi(&self, vector: u8) {
            EoiSink::end_of_interrupt(&*self.ioapic, vector);
        }
        fn sent(&self) -> Vec<Msi> {
            self.messages.take()
        }
    }

    fn message(address: u64, data: u32) -> Msi {
        Msi { address, data }
    }

    #[test]
    fn registers_after_reset_and_their_bits() {
        // Section 3.2.
        let rig = rig();
        assert_eq!((rig.read(0), rig.read(1), rig.read(2)), (0, 0x0017_0020, 0));
        assert_eq!((rig.read(0x10), rig.read(0x11)), (0x1_0000, 0));
        assert_eq!((rig.read(0x3e), rig.read(0x40), rig.read(0xff)), (0x1_0000, 0, 0));
        rig.write(0, 0xffff_ffff);
        rig.write(1, 0);
        assert_eq!((rig.read(0), rig.read(2)), (0x0f00_0000, 0x0f00_0000));
        rig.write(0x3f, 0xffff_ffff);
        rig.write(0x3e, 0xffff_ffff);
        assert_eq!((rig.read(0x3e), rig.read(0x3f)), (0x1_afff, 0xff00_0000));
        assert_eq!(lock(&rig.ioapic).read(IOWIN, Width::Byte), Err(BusError::Width));
        assert_eq!(lock(&rig.ioapic).write(IOWIN, Width::Half, 0), Err(BusError::Width));
    }

    #[test]
    fn an_edge_is_one_message() {
        let rig = rig();
        rig.entry(4, 0x0300_0000_0000_0934); // logical destination 3, lowest priority, vector 34
        rig.set(4, true);
        assert_eq!(rig.sent(), [message(0xfee0_3004, 0x134)]);
        rig.set(4, false);
        rig.set(4, true);
        assert_eq!(rig.sent().len(), 1);
        // Section 3.2.4, bit 16: masked, it is lost.
        rig.set(4, false);
        rig.entry(4, 0x1_0034);
        rig.set(4, true);
        rig.entry(4, 0x34);
        assert_eq!(rig.sent(), []);
    }

    #[test]
    fn a_level_comes_again_after_its_end() {
        let rig = rig();
        rig.entry(10, 0x0100_0000_0000_8041);
        rig.set(10, true);
        assert_eq!(rig.sent(), [message(0xfee0_1000, 0xc041)]);
        assert_eq!(rig.read(0x24), 0xc041, "remote IRR");
        rig.set(10, false);
        rig.set(10, true);
        assert_eq!(rig.sent(), [], "not before its end");
        rig.eoi(0x42);
        assert_eq!(rig.sent(), [], "another vector");
        rig.eoi(0x41);
        assert_eq!(rig.sent().len(), 1);
        rig.set(10, false);
        rig.eoi(0x41);
        assert_eq!((rig.sent().len(), rig.read(0x24)), (0, 0x8041));
    }

    #[test]
    fn a_masked_level_waits() {
        let rig = rig();
        rig.entry(10, 0x1_8041);
        rig.set(10, true);
        assert_eq!(rig.sent(), []);
        rig.entry(10, 0x8041);
        assert_eq!(rig.sent().len(), 1);
        // Masked while in service, ended, and unmasked.
        rig.entry(10, 0x1_8041);
        rig.eoi(0x41);
        assert_eq!((rig.sent().len(), rig.read(0x24)), (0, 0x1_8041));
        rig.entry(10, 0x8041);
        assert_eq!(rig.sent().len(), 1);
        // Software ends it by a change to edge and back.
        rig.write(0x24, 0x1_0041);
        rig.write(0x24, 0x8041);
        assert_eq!(rig.sent().len(), 1);
    }

    #[test]
    fn the_eoi_register_of_version_20h() {
        let rig = rig();
        rig.entry(9, 0x8051);
        rig.entry(11, 0x8051);
        rig.set(9, true);
        rig.set(11, true);
        assert_eq!(rig.sent().len(), 2);
        rig.set(11, false);
        lock(&rig.ioapic).write(EOI, Width::Word, 0x51).unwrap();
        assert_eq!((rig.sent().len(), rig.read(0x26)), (1, 0x8051), "all entries of the vector");
    }

    #[test]
    fn other_delivery_modes_are_passed_on() {
        let rig = rig();
        for (mode, data) in [(2, 0x200), (4, 0x400), (5, 0x500), (7, 0x700)] {
            rig.entry(0, mode << 8);
            rig.set(0, true);
            rig.set(0, false);
            assert_eq!(rig.sent(), [message(0xfee0_0000, data)]);
        }
    }

    #[test]
    fn a_saved_ioapic_goes_on() {
        let first = rig();
        first.entry(10, 0x8041);
        first.set(10, true);
        let saved = lock(&first.ioapic).save();
        let second = rig();
        lock(&second.ioapic).restore(&saved).unwrap();
        assert_eq!(second.sent(), [], "what was sent is in the LAPIC's state");
        second.eoi(0x41);
        assert_eq!(second.sent().len(), 1);
        let mut state: IoApicState = saved.decode(VERSION).unwrap();
        state.entries[3] = REMOTE_IRR;
        let bad = SavedDevice::encode(VERSION, &state);
        let error = lock(&second.ioapic).restore(&bad);
        assert_eq!(error, Err(RestoreError::Invalid("redirection entry")));
        lock(&second.ioapic).reset();
        assert_eq!(second.read(0x24), 0x1_0000);
    }
}
