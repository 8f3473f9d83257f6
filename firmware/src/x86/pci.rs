//! What a PC's firmware does on the PCI bus before a kernel starts: places for the functions' BARs, and the interrupts
//! that they have.
//!
//! Source: PCI Local Bus Specification 3.0, section 6.2; "PCI IRQ Routing Table Specification", Microsoft, version 1.0.

use super::{PcConfig, checksum};

/// The way to the functions' configuration spaces.
pub trait ConfigurationSpace {
    /// The 32 bits of a function at `register`, a multiple of 4; all ones where there is no function.
    fn read(&mut self, function: Function, register: u8) -> u32;

    /// Writes them.
    fn write(&mut self, function: Function, register: u8, value: u32);
}

/// Device and function number on the only bus.
pub type Function = (u8, u8);

/// Registers.
const COMMAND: u8 = 0x04;
const HEADER: u8 = 0x0c;
const FIRST_BAR: u8 = 0x10;
const END_OF_BARS: u8 = 0x28;
const INTERRUPT: u8 = 0x3c;

/// Bits of COMMAND: the function answers in I/O space, and in memory.
const DECODE_IO: u32 = 1;
const DECODE_MEMORY: u32 = 2;
/// Bits of a BAR.
const BAR_IO: u32 = 1;
const BAR_64: u32 = 4;
/// Where the BARs in I/O space go: behind what the board itself has there.
const IO: std::ops::Range<u32> = 0xc000..0x1_0000;

/// A BAR that wants a place.
struct Request {
    function: Function,
    register: u8,
    size: u32,
    decode: u32,
}

/// Gives every BAR a place, the largest first, lets the functions answer there, and tells each which IRQ its interrupt
/// pin leads to. A BAR for which there is no room is left closed.
pub fn set_up(config: &PcConfig, space: &mut impl ConfigurationSpace) {
    let functions = functions(space);
    let mut requests = Vec::new();
    for &function in &functions {
        requests.extend(bars(space, function));
        let interrupt = space.read(function, INTERRUPT);
        if let pin @ 1..=4 = (interrupt >> 8) as u8 {
            let irq = if function == config.pm_function {
                config.sci
            } else {
                config.pci_irq(function.0, pin - 1)
            };
            space.write(function, INTERRUPT, interrupt & !0xff | u32::from(irq));
        }
    }
    requests.sort_by_key(|request| std::cmp::Reverse(request.size));
    let mut memory = Room { next: config.pci_memory.0, last: config.pci_memory.1 };
    let mut io = Room { next: IO.start, last: IO.end - 1 };
    for Request { function, register, size, decode } in requests {
        let room = if decode == DECODE_IO { &mut io } else { &mut memory };
        let Some(base) = room.take(size) else { continue };
        space.write(function, register, base);
        let command = space.read(function, COMMAND);
        // The upper half is status: ones would clear it.
        space.write(function, COMMAND, command & 0xffff | decode);
    }
}

/// The functions with an ordinary header.
fn functions(space: &mut impl ConfigurationSpace) -> Vec<Function> {
    let mut found = Vec::new();
    for device in 0..32 {
        if space.read((device, 0), 0) == u32::MAX {
            continue;
        }
        let header = (space.read((device, 0), HEADER) >> 16) as u8;
        let count = if header & 0x80 != 0 { 8 } else { 1 };
        for function in (0..count).map(|function| (device, function)) {
            let there = space.read(function, 0) != u32::MAX;
            if there && space.read(function, HEADER) >> 16 & 0x7f == 0 {
                found.push(function);
            }
        }
    }
    found
}

/// The BARs of a function, and how large they are: the bits that can be written tell.
fn bars(space: &mut impl ConfigurationSpace, function: Function) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut register = FIRST_BAR;
    while register < END_OF_BARS {
        let before = space.read(function, register);
        space.write(function, register, u32::MAX);
        let mask = space.read(function, register);
        space.write(function, register, before);
        let (decode, bits) = if mask & BAR_IO != 0 {
            // The upper half may read 0.
            (DECODE_IO, mask & !3 | 0xffff_0000)
        } else {
            (DECODE_MEMORY, mask & !0xf)
        };
        if mask != 0 {
            requests.push(Request { function, register, size: bits.wrapping_neg(), decode });
        }
        // What lies beyond 4 GiB stays 0: the upper half of a 64-bit BAR is no BAR of its own.
        let wide = decode == DECODE_MEMORY && mask & BAR_64 != 0;
        register += if wide { 8 } else { 4 };
    }
    requests.retain(|request| request.size != 0);
    requests
}

/// Addresses that are still free.
struct Room {
    next: u32,
    last: u32,
}

impl Room {
    /// Takes `size` bytes, a power of two, at a multiple of it.
    fn take(&mut self, size: u32) -> Option<u32> {
        let base = self.next.checked_next_multiple_of(size)?;
        let next = base.checked_add(size)?;
        (next - 1 <= self.last).then(|| {
            self.next = next;
            base
        })
    }
}

/// IRQs that the router of the ISA bridge can lead a line to: 3 to 7, 9 to 12, 14, 15 (PIIX3's data sheet, section
/// 2.2.9).
const ROUTABLE: u16 = 0xdef8;
/// The router's register of the first line, which names the line in the table.
const FIRST_LINE: u8 = 0x60;
/// The router by vendor and device: PIIX, as what all later ones are compatible with.
const ROUTER: u32 = 0x122e_8086;

/// The PCI interrupt routing table, for kernels without ACPI and without I/O APIC. It is to lie at a multiple of 16 in
/// the last 64 KiB below 1 MiB.
#[must_use]
pub fn routing_table(config: &PcConfig) -> Vec<u8> {
    let entry = |device: u8| {
        let mut entry = vec![0, device << 3];
        for pin in 0..4 {
            entry.push(FIRST_LINE + PcConfig::pci_line(device, pin));
            entry.extend(ROUTABLE.to_le_bytes());
        }
        // Not a slot, but soldered in.
        entry.extend([0, 0]);
        entry
    };
    let entries: Vec<u8> = (1..32).flat_map(entry).collect();
    let mut table = b"$PIR".to_vec();
    table.extend(0x0100_u16.to_le_bytes());
    table.extend((32 + entries.len() as u16).to_le_bytes());
    table.extend([0, config.isa_bridge << 3]);
    // IRQs that only PCI has.
    let own = config.pci_irqs.iter().fold(0u16, |set, irq| set | 1 << irq);
    table.extend(own.to_le_bytes());
    table.extend(ROUTER.to_le_bytes());
    table.resize(32, 0);
    table.extend(entries);
    table[31] = checksum(&table);
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::x86::tests::config;

    /// Functions by the bits of their registers that can be written.
    #[derive(Default)]
    struct Board(BTreeMap<(Function, u8), (u32, u32)>);

    impl Board {
        fn put(&mut self, function: Function, register: u8, value: u32, writable: u32) {
            self.0.insert((function, register), (value, writable));
        }

        fn value(&self, function: Function, register: u8) -> u32 {
            self.0[&(function, register)].0
        }
    }

    impl ConfigurationSpace for Board {
        fn read(&mut self, function: Function, register: u8) -> u32 {
            if !self.0.contains_key(&(function, 0)) {
                return u32::MAX;
            }
            self.0.get(&(function, register)).map_or(0, |(value, _)| *value)
        }

        fn write(&mut self, function: Function, register: u8, value: u32) {
            if let Some((now, writable)) = self.0.get_mut(&(function, register)) {
                *now = *now & !*writable | value & *writable;
            }
        }
    }

    /// A device with a BAR of 4 KiB, one of 16 KiB in 64 bits and one of 32 ports, at INTB#.
    fn board() -> Board {
        let mut board = Board::default();
        board.put((3, 0), 0, 0x1044_1af4, 0);
        board.put((3, 0), COMMAND, 0x10_0000, 0xffff);
        board.put((3, 0), 0x10, 0, 0xffff_f000);
        board.put((3, 0), 0x14, 0xc, 0xffff_c000);
        board.put((3, 0), 0x18, 0, 0xffff_ffff);
        board.put((3, 0), 0x1c, 1, 0xffe0);
        board.put((3, 0), INTERRUPT, 0x200, 0xff);
        board
    }

    #[test]
    fn every_bar_gets_an_aligned_place_of_its_own() {
        let mut board = board();
        set_up(&config(), &mut board);
        assert_eq!(board.value((3, 0), 0x14), 0xc000_000c, "the largest first");
        assert_eq!(board.value((3, 0), 0x18), 0, "below 4 GiB");
        assert_eq!(board.value((3, 0), 0x10), 0xc000_4000);
        assert_eq!(board.value((3, 0), 0x1c), 0xc001);
        assert_eq!(board.value((3, 0), COMMAND) & 0xffff, 3);
        // Device 3, INTB#: two lines after device 1's INTA#, and one more.
        assert_eq!(board.value((3, 0), INTERRUPT), 0x20b);
    }

    #[test]
    fn a_bar_without_room_stays_closed() {
        let mut board = board();
        let config = PcConfig { pci_memory: (0xfebf_e000, 0xfebf_ffff), ..config() };
        set_up(&config, &mut board);
        assert_eq!(board.value((3, 0), 0x14), 0xc);
        assert_eq!(board.value((3, 0), 0x10), 0xfebf_e000);
    }

    #[test]
    fn the_other_functions_of_a_device_are_found() {
        let mut board = Board::default();
        board.put((1, 0), 0, 0x7000_8086, 0);
        board.put((1, 0), HEADER, 0x80_0000, 0);
        board.put((1, 3), 0, 0x7113_8086, 0);
        board.put((1, 3), INTERRUPT, 0x100, 0xff);
        set_up(&config(), &mut board);
        assert_eq!(board.value((1, 3), INTERRUPT), 0x109, "power management has its own IRQ");
    }

    /// SeaBIOS's table for the same bridge (QEMU 10, `pc`) names the lines 60h to 63h and the router so.
    #[test]
    fn the_routing_table_names_each_devices_lines() {
        let table = routing_table(&config());
        assert_eq!(&table[..10], b"$PIR\0\x01\x10\x02\0\x08");
        assert_eq!(checksum(&table), 0);
        assert_eq!(table.len(), 32 + 31 * 16);
        let second = &table[32 + 16..32 + 32];
        let line = |line: u8| [line, 0xf8, 0xde];
        let pins = [line(0x61), line(0x62), line(0x63), line(0x60)].concat();
        assert_eq!(second, [&[0, 2 << 3][..], &pins, &[0, 0]].concat());
    }
}
