//! ACPI tables.
//!
//! Source: ACPI specification 6.5, chapters 5 (tables), 6 (device objects) and 19 (resources). AML and the tables
//! that it has are made by the crate `acpi_tables`.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Name, PackageBuilder,
    Path, ResourceTemplate, Scope,
};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as GasSpace, GAS};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use super::{PcConfig, SerialPort};

pub(super) const OEM: [u8; 6] = *b"MIMIC ";
pub(super) const OEM_TABLE: [u8; 8] = *b"MIMICPC ";
pub(super) const OEM_REVISION: u32 = 1;
/// Bytes of a table's header.
const HEADER: u32 = 36;

/// Bytes of the root pointer.
pub const RSDP_SIZE: usize = 36;

/// Reset register, as PIIX3 has it, and the value that resets.
const RESET_PORT: u64 = 0xcf9;
const RESET_VALUE: u8 = 6;
/// The CMOS byte of the century.
const CENTURY: u8 = 0x32;
/// A state of idleness with this latency does not exist.
const NO_C2: u16 = 0xfff;
const NO_C3: u16 = 0xfff;
/// IA-PC boot architecture flags: devices of the ISA bus; no VGA.
const LEGACY_DEVICES: u16 = 1;
const NO_VGA: u16 = 4;

/// FACS, section 5.2.10: the version that has flags for waking in 64-bit mode, which can be had.
const FACS_VERSION: u8 = 2;
const WAKE_64: u32 = 2;

/// MADT: there is a PIC, too.
const PCAT_COMPAT: u32 = 1;
/// MPS INTI flags: as the bus has it; active high and level-triggered.
const CONFORMING: u16 = 0;
const LEVEL_HIGH: u16 = 0xd;
/// The IRQ of the PIT, and the I/O APIC's input that it leads to.
const TIMER: (u8, u32) = (0, 2);
/// All processors.
const EVERY: u8 = 0xff;

/// The tables, in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Bytes, to be placed at the address that they were made for.
    pub bytes: Vec<u8>,
    /// Address of the root pointer, which comes first.
    pub rsdp: u64,
    /// Address of the FACS, which tells where a system that sleeps wants to be woken.
    pub facs: u64,
}

/// Makes the tables of a PC for `base`, a multiple of 64 below 4 GiB.
#[must_use]
pub fn tables(config: &PcConfig, base: u32) -> Tables {
    lay_out(base, dsdt(config).as_slice(), |facs, dsdt| {
        let level = level_irqs(config);
        vec![
            encode(&fadt(config, facs, dsdt)),
            madt(config.cpus, config.lapic, config.ioapic, &level).as_slice().to_vec(),
            hpet(config).as_slice().to_vec(),
        ]
    })
}

/// Places a FACS, the DSDT and the tables that `tables` makes for the addresses of these two, and what leads to them.
pub(super) fn lay_out(
    base: u32,
    dsdt: &[u8],
    tables: impl FnOnce(u32, u32) -> Vec<Vec<u8>>,
) -> Tables {
    // The root pointer is put in front of the rest when that is known.
    let mut bytes = vec![0; 64];
    let mut place = |table: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(64), 0);
        let at = base + bytes.len() as u32;
        bytes.extend_from_slice(table);
        at
    };
    let mut facs = FACS::new();
    facs.flags = WAKE_64.into();
    facs.version = FACS_VERSION;
    let facs = place(&encode(&facs));
    let dsdt = place(dsdt);
    let entries: Vec<u32> = tables(facs, dsdt).iter().map(|table| place(table)).collect();
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    entries.iter().for_each(|entry| xsdt.add_entry(u64::from(*entry)));
    let xsdt = place(&encode(&xsdt));
    let pointers: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    let rsdt = place(table(b"RSDT", 1, &pointers).as_slice());
    bytes[..RSDP_SIZE].copy_from_slice(&root(rsdt, xsdt));
    Tables { bytes, rsdp: base.into(), facs: facs.into() }
}

/// The root pointer, section 5.2.5.3.
fn root(rsdt: u32, xsdt: u32) -> [u8; RSDP_SIZE] {
    // The crate's own has no RSDT, which is all that those know who know ACPI 1.0.
    let mut rsdp = [0; RSDP_SIZE];
    rsdp.copy_from_slice(&encode(&Rsdp::new(OEM, xsdt.into())));
    rsdp[16..20].copy_from_slice(&rsdt.to_le_bytes());
    for (checksum, covered) in [(8, 20), (32, RSDP_SIZE)] {
        rsdp[checksum] = 0;
        let sum = rsdp[..covered].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        rsdp[checksum] = sum.wrapping_neg();
    }
    rsdp
}

pub(super) fn encode(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// A table of these contents.
pub(super) fn table(signature: &[u8; 4], revision: u8, contents: &[u8]) -> Sdt {
    let mut table = Sdt::new(*signature, HEADER, revision, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(contents);
    table
}

/// Fixed hardware, section 5.2.9. ACPI is on from the start, so there is no SMI command.
fn fadt(config: &PcConfig, facs: u32, dsdt: u32) -> acpi_tables::fadt::FADT {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .firmware_ctrl_32(facs)
        .dsdt_32(dsdt)
        .gpe_info(u32::from(config.pm) + 0xc, 0, 4, 0, 0)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup);
    fadt.sci_int = u16::from(config.sci).into();
    fadt.pm1a_evt_blk = u32::from(config.pm).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = (u32::from(config.pm) + 4).into();
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = (u32::from(config.pm) + 8).into();
    fadt.pm_tmr_len = 4;
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = CENTURY;
    fadt.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA).into();
    fadt.reset_reg = GAS::new(GasSpace::SystemIo, 8, 0, AccessSize::ByteAccess, RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    fadt.finalize()
}

/// IRQs of the ISA bus that are level-triggered.
fn level_irqs(config: &PcConfig) -> Vec<u8> {
    let mut level: Vec<u8> = config.pci_irqs.to_vec();
    level.push(config.sci);
    level.sort_unstable();
    level.dedup();
    level
}

/// Interrupt controllers, section 5.2.12, and the IRQs of the ISA bus that are level-triggered.
pub(super) fn madt(cpus: u8, lapic: u32, ioapic: u32, level: &[u8]) -> Sdt {
    let mut bytes = lapic.to_le_bytes().to_vec();
    bytes.extend(PCAT_COMPAT.to_le_bytes());
    for cpu in 0..cpus {
        // Processor local APIC: UID, ID, enabled.
        bytes.extend([0, 8, cpu, cpu, 1, 0, 0, 0]);
    }
    // I/O APIC 0, whose inputs are the global system interrupts from 0 on.
    bytes.extend([1, 12, 0, 0]);
    bytes.extend(ioapic.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    let mut source = |irq: u8, input: u32, flags: u16| {
        // Interrupt source override of bus 0, ISA.
        bytes.extend([2, 10, 0, irq]);
        bytes.extend(input.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
    };
    source(TIMER.0, TIMER.1, CONFORMING);
    level.iter().for_each(|irq| source(*irq, (*irq).into(), LEVEL_HIGH));
    // Local APIC NMI: LINT1 of all.
    bytes.extend([4, 6, EVERY, 0, 0, 1]);
    table(b"APIC", 3, &bytes)
}

/// The HPET (IA-PC HPET specification 1.0a, section 3.2.4).
fn hpet(config: &PcConfig) -> Sdt {
    let mut bytes = config.hpet_id.to_le_bytes().to_vec();
    bytes.extend(encode(&GAS::new(
        GasSpace::SystemMemory,
        64,
        0,
        AccessSize::Undefined,
        config.hpet.into(),
    )));
    // Number 0, the least period of its interrupts, no page protection.
    bytes.push(0);
    bytes.extend(0x80u16.to_le_bytes());
    bytes.push(0);
    table(b"HPET", 1, &bytes)
}

/// A port range of the ISA bus.
fn ports(first: u16, count: u8) -> IO {
    IO::new(first, first, 1, count)
}

/// An edge-triggered interrupt of the ISA bus.
fn isa_irq(irq: u8) -> Interrupt {
    Interrupt::new(true, true, false, false, irq.into())
}

/// What is not found by looking.
fn dsdt(config: &PcConfig) -> Sdt {
    let mut aml = sleep("_S3_", config.s3);
    aml.extend(sleep("_S5_", config.s5));
    Scope::new("_SB_".into(), vec![&host_bridge(config)]).to_aml_bytes(&mut aml);
    aml.extend(processors(config.cpus));
    table(b"DSDT", 2, &aml)
}

/// The sleep type of a state, section 7.4.2.
pub(super) fn sleep(state: &str, kind: u8) -> Vec<u8> {
    let mut package = PackageBuilder::new();
    [kind, 0, 0, 0].iter().for_each(|value| package.add_element(value));
    encode(&Name::new(state.into(), &package))
}

/// The processors' devices.
pub(super) fn processors(cpus: u8) -> Vec<u8> {
    let mut aml = Vec::new();
    for cpu in 0..cpus {
        let device = Device::new(
            Path::new(&format!("C{cpu:03X}")),
            vec![&Name::new("_HID".into(), &"ACPI0007"), &Name::new("_UID".into(), &cpu)],
        )
        .encoded();
        Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(&mut aml);
    }
    aml
}

/// AML that has been made already.
pub(super) struct Encoded(Vec<u8>);

impl Aml for Encoded {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

pub(super) trait Encode: Aml {
    /// Its bytes, free of what they were made from.
    fn encoded(&self) -> Encoded
    where
        Self: Sized,
    {
        Encoded(encode(self))
    }
}

impl<T: Aml> Encode for T {}

/// The PCI bus: what it decodes, and where its interrupts lead to.
fn host_bridge(config: &PcConfig) -> Encoded {
    let (first, last) = config.pci_memory;
    let resources = Name::new(
        "_CRS".into(),
        &ResourceTemplate::new(vec![
            &AddressSpace::new_bus_number(0u16, 0xff),
            &ports(0xcf8, 8),
            &AddressSpace::new_io(0u16, 0xcf7, None),
            &AddressSpace::new_io(0xd00u16, 0xffff, None),
            &AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None),
        ]),
    )
    .encoded();
    let mut routes = PackageBuilder::new();
    for device in 0..32u8 {
        for pin in 0..4u8 {
            let mut route = PackageBuilder::new();
            let address = u32::from(device) << 16 | 0xffff;
            route.add_element(&address);
            route.add_element(&pin);
            // No link: a global system interrupt.
            route.add_element(&0u8);
            route.add_element(&config.pci_irq(device, pin));
            routes.add_element(&route);
        }
    }
    Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_ADR".into(), &0u8),
            &Name::new("_UID".into(), &0u8),
            &resources,
            &Name::new("_PRT".into(), &routes),
            &isa_bridge(config),
        ],
    )
    .encoded()
}

/// The clock.
pub(super) fn clock() -> Encoded {
    Device::new(
        "RTC_".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports(0x70, 8), &isa_irq(8)])),
        ],
    )
    .encoded()
}

/// A serial port, by its number from 1 on.
pub(super) fn serial(number: u8, serial: SerialPort) -> Encoded {
    let resources =
        ResourceTemplate::new(vec![&ports(serial.port, 8), &isa_irq(serial.irq)]).encoded();
    Device::new(
        Path::new(&format!("COM{number}")),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &number),
            &Name::new("_STA".into(), &0xfu8),
            &Name::new("_CRS".into(), &resources),
        ],
    )
    .encoded()
}

/// The ISA bridge, device 1, with what lies behind it.
fn isa_bridge(config: &PcConfig) -> Encoded {
    let clock = clock();
    let serial: Vec<Encoded> =
        (1u8..).zip(&config.serial).map(|(number, port)| serial(number, *port)).collect();
    let address = Name::new("_ADR".into(), &0x1_0000u32).encoded();
    let mut children: Vec<&dyn Aml> = vec![&address, &clock];
    children.extend(serial.iter().map(|device| device as &dyn Aml));
    Device::new("ISA_".into(), children).encoded()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86::tests::config;

    const BASE: u32 = 0xe_0000;

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// The table at an address, whose bytes add up to 0 (section 5.2.6).
    fn at(tables: &Tables, address: u32) -> &[u8] {
        let table = &tables.bytes[(address - BASE) as usize..];
        let table = &table[..u32_at(table, 4) as usize];
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert!(table.starts_with(b"FACS") || sum(table) == 0, "{:?}", &table[..4]);
        table
    }

    /// The table of a signature, found as an operating system finds it (section 5.2.5).
    fn find<'a>(tables: &'a Tables, signature: &[u8; 4]) -> &'a [u8] {
        assert_eq!((tables.rsdp, &tables.bytes[..8]), (BASE.into(), &b"RSD PTR "[..]));
        let xsdt = at(tables, u32_at(&tables.bytes, 24));
        let entries = xsdt[36..].chunks_exact(8).map(|entry| at(tables, u32_at(entry, 0)));
        entries.into_iter().find(|table| table.starts_with(signature)).unwrap()
    }

    #[test]
    fn every_table_is_found_and_adds_up() {
        let tables = tables(&config(), BASE);
        for signature in [b"FACP", b"APIC", b"HPET"] {
            find(&tables, signature);
        }
        // The same by the older table, whose entries have 32 bits; both parts of the root pointer add up.
        let rsdt = at(&tables, u32_at(&tables.bytes, 16));
        let xsdt = at(&tables, u32_at(&tables.bytes, 24));
        assert_eq!((&rsdt[..4], rsdt.len() - 36), (&b"RSDT"[..], (xsdt.len() - 36) / 2));
        let entries = rsdt[36..].chunks_exact(4).zip(xsdt[36..].chunks_exact(8));
        entries.for_each(|(old, new)| assert_eq!([old, &[0; 4]].concat(), new));
        for covered in [20, 36] {
            assert_eq!(
                tables.bytes[..covered].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)),
                0
            );
        }
        let fadt = find(&tables, b"FACP");
        let facs = u32_at(fadt, 36);
        assert_eq!((&at(&tables, facs)[..4], facs % 64), (&b"FACS"[..], 0));
        assert!(at(&tables, u32_at(fadt, 40)).starts_with(b"DSDT"));
        // PM1a event and control block, PM timer, GPE0 (table 5.9: offsets 56, 64, 76, 80).
        let blocks = [56, 64, 76, 80].map(|offset| u32_at(fadt, offset));
        assert_eq!(blocks, [0x600, 0x604, 0x608, 0x60c]);
        // The reset register: 8 bits at port 0xcf9, value 6 (offsets 116 and 128).
        assert_eq!(fadt[116..128], [1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0]);
        assert_eq!((fadt[128], u32_at(fadt, 112) >> 10 & 1), (6, 1));
    }

    #[test]
    fn interrupts_lead_where_the_board_leads_them() {
        let tables = tables(&config(), BASE);
        let mut entries = &find(&tables, b"APIC")[44..];
        let mut found = Vec::new();
        while let Some(&len) = entries.get(1) {
            let (entry, rest) = entries.split_at(len.into());
            found.push(entry);
            entries = rest;
        }
        // Tables 5.21 to 5.26.
        assert_eq!(found[0], [0, 8, 0, 0, 1, 0, 0, 0]);
        assert_eq!(found[1], [0, 8, 1, 1, 1, 0, 0, 0]);
        assert_eq!(found[2], [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        assert_eq!(found[3], [2, 10, 0, 0, 2, 0, 0, 0, 0, 0], "IRQ 0 is input 2");
        assert_eq!(found[4], [2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0], "SCI");
        assert_eq!(
            found[5..7],
            [[2, 10, 0, 10, 10, 0, 0, 0, 0xd, 0], [2, 10, 0, 11, 11, 0, 0, 0, 0xd, 0]]
        );
        assert_eq!(found[7..], [[4, 6, 0xff, 0, 0, 1]]);
    }

    #[test]
    fn the_description_has_the_sleep_type_and_the_routes() {
        let dsdt = dsdt(&config());
        let aml = dsdt.as_slice();
        let has = |bytes: &[u8]| aml.windows(bytes.len()).any(|window| window == bytes);
        // Section 20.2: NameOp "_S5_" PackageOp, length, 4 elements: byte 5, zero, zero, zero.
        assert!(has(b"\x08_S5_\x12\x07\x04\x0a\x05\x00\x00\x00"));
        assert!(has(b"\x08_S3_\x12\x06\x04\x01\x00\x00\x00"));
        // Package: 0x0001ffff, pin 0, no link, 10; 0x0003ffff, pin 0: two lines further.
        assert!(has(&[0x12, 0x0b, 0x04, 0x0c, 0xff, 0xff, 1, 0, 0, 0, 0x0a, 10]));
        assert!(has(&[0x12, 0x0b, 0x04, 0x0c, 0xff, 0xff, 3, 0, 0, 0, 0x0a, 11]));
        for name in [&b"PCI0"[..], b"COM1", b"COM2", b"RTC_", b"C000", b"C001"] {
            assert!(has(name));
        }
    }

    #[test]
    fn interrupt_pins_take_turns() {
        // As QEMU's pc: pci_slot_get_pirq.
        let config = PcConfig { pci_irqs: [1, 2, 3, 4], ..config() };
        let irqs = [(1, 0), (1, 3), (2, 0), (4, 0), (5, 0)]
            .map(|(device, pin)| config.pci_irq(device, pin));
        assert_eq!(irqs, [1, 4, 2, 4, 1]);
        assert_eq!(config.pci_irq(0, 0), 4);
    }
}
