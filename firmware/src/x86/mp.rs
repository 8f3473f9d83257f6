//! The MP table, for kernels that do not read ACPI.
//!
//! Source: Intel, "MultiProcessor Specification", version 1.4, chapter 4.

use super::{PcConfig, checksum};

/// Bytes of the floating pointer structure.
const POINTER: usize = 16;
/// Bytes of the configuration table's header.
const HEADER: usize = 44;

/// Buses by number.
const PCI: u8 = 0;
const ISA: u8 = 1;
/// The I/O APIC's number, and version 20H, as the device has it.
const IOAPIC: u8 = 0;
const IOAPIC_VERSION: u8 = 0x20;
const LAPIC_VERSION: u8 = 0x14;
/// CPU signature (family 6, model 60, stepping 3) and features: FPU, APIC.
const SIGNATURE: u32 = 0x0003_06c3;
const FEATURES: u32 = 1 << 9 | 1;

/// Types of interrupts.
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
/// Flags: as the bus has it; active high, level-triggered.
const CONFORMING: u8 = 0;
const LEVEL_HIGH: u8 = 0xd;
/// The I/O APIC's input of IRQ 0, which no IRQ 2 can have.
const TIMER_INPUT: u8 = 2;
/// All local APICs.
const EVERY: u8 = 0xff;

/// The floating pointer with the configuration table behind it, to be placed at `base`, a multiple of 16 in the last
/// 64 KiB below 1 MiB.
#[must_use]
pub fn table(config: &PcConfig, base: u32) -> Vec<u8> {
    let mut entries: Vec<Vec<u8>> = Vec::new();
    for cpu in 0..config.cpus {
        // Enabled; the first is the bootstrap processor.
        let mut entry = vec![0, cpu, LAPIC_VERSION, 1 | u8::from(cpu == 0) << 1];
        entry.extend(SIGNATURE.to_le_bytes());
        entry.extend(FEATURES.to_le_bytes());
        entry.extend([0; 8]);
        entries.push(entry);
    }
    for (bus, name) in [(PCI, b"PCI   "), (ISA, b"ISA   ")] {
        entries.push([&[1, bus][..], name].concat());
    }
    let mut ioapic = vec![2, IOAPIC, IOAPIC_VERSION, 1];
    ioapic.extend(config.ioapic.to_le_bytes());
    entries.push(ioapic);
    let level = |irq: u8| irq == config.sci || config.pci_irqs.contains(&irq);
    for irq in (0..16).filter(|irq| *irq != TIMER_INPUT) {
        let flags = if level(irq) { LEVEL_HIGH } else { CONFORMING };
        let input = if irq == 0 { TIMER_INPUT } else { irq };
        entries.push(vec![3, INT, flags, 0, ISA, irq, IOAPIC, input]);
    }
    for device in 1..32 {
        // Bits 6 to 2: the device; bits 1 and 0: INTA#.
        let irq = config.pci_irq(device, 0);
        entries.push(vec![3, INT, LEVEL_HIGH, 0, PCI, device << 2, IOAPIC, irq]);
    }
    entries.push(vec![4, EXT_INT, CONFORMING, 0, ISA, 0, 0, 0]);
    entries.push(vec![4, NMI, CONFORMING, 0, ISA, 0, EVERY, 1]);

    let mut table = b"PCMP".to_vec();
    let len = HEADER + entries.iter().map(Vec::len).sum::<usize>();
    table.extend((len as u16).to_le_bytes());
    table.extend([4, 0]);
    table.extend(b"MIMIC   MIMIC PC    ");
    table.extend([0; 6]);
    table.extend((entries.len() as u16).to_le_bytes());
    table.extend(config.lapic.to_le_bytes());
    table.extend([0; 4]);
    table.extend(entries.concat());
    table[7] = checksum(&table);

    let mut bytes = b"_MP_".to_vec();
    bytes.extend((base + POINTER as u32).to_le_bytes());
    // Paragraphs, version 1.4, checksum; there is a table; PICs are connected to the local APIC (virtual wire).
    bytes.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    bytes[10] = checksum(&bytes);
    bytes.extend(table);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86::tests::config;

    #[test]
    fn the_pointer_leads_to_a_table_that_adds_up() {
        let bytes = table(&config(), 0xf_0000);
        assert_eq!(&bytes[..10], b"_MP_\x10\x00\x0f\x00\x01\x04");
        assert_eq!(checksum(&bytes[..16]), 0);
        let table = &bytes[16..];
        assert_eq!((&table[..4], checksum(table)), (&b"PCMP"[..], 0));
        assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
        // Section 4.3: entries of 20 bytes for processors, of 8 for all else.
        let (mut rest, mut kinds) = (&table[44..], [0; 5]);
        while let Some(&kind) = rest.first() {
            kinds[usize::from(kind)] += 1;
            rest = &rest[if kind == 0 { 20 } else { 8 }..];
        }
        assert_eq!(kinds, [2, 2, 1, 15 + 31, 2]);
        assert_eq!(kinds.iter().sum::<u16>(), u16::from_le_bytes([table[34], table[35]]));
        let has = |entry: &[u8]| table.windows(8).any(|window| window == entry);
        assert!(has(&[3, 0, 0, 0, 1, 0, 0, 2]), "IRQ 0 is input 2");
        assert!(has(&[3, 0, 0xd, 0, 0, 3 << 2, 0, 11]), "INTA# of the device 3");
    }
}
