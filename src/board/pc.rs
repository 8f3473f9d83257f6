//! `pc`: i440FX and PIIX, with what bare-metal programs, test suites and kernels that are started directly need. There is
//! no firmware: what one would leave behind is made here.

use mimic_devices::{hpet, pm};
use mimic_firmware::x86::{PcConfig, SerialPort, acpi, mp, pci, smbios};

use super::{BoardInfo, MapLine};

/// Most processors.
pub const MAX_CPUS: usize = 8;
/// Least RAM.
pub const MIN_MEMORY: u64 = 2 << 20;

/// End of the RAM below 1 MiB; a display adapter's memory would follow.
pub const LOW_RAM_END: u64 = 0xa_0000;
/// The BIOS's own data at the end of that RAM.
pub const EBDA: u64 = 0x9_fc00;
/// Where RAM goes on that firmware copies ROMs to.
pub const SHADOW: u64 = 0xc_0000;
/// Where the hole in RAM begins that devices below 4 GiB lie in.
pub const RAM_HOLE: u64 = 0xc000_0000;
/// Where RAM goes on.
pub const HIGH_RAM: u64 = 1 << 32;
/// Most of a ROM that is seen below 1 MiB.
const ROM_ALIAS: u64 = 128 << 10;

/// The I/O APIC.
pub const IOAPIC: u64 = 0xfec0_0000;
/// Memory of pc-testdev.
pub const TESTDEV: u64 = 0xff00_0000;
/// The HPET.
pub const HPET: u64 = 0xfed0_0000;
/// Inputs of the I/O APIC that the HPET's timers may lead to: those that the ISA bus does not have.
pub const HPET_ROUTES: u32 = 0x00ff_0000;
/// Input clock of the serial ports: 115200 baud times 16.
pub const UART_CLOCK: u64 = 1_843_200;
/// The serial ports; the first is the console.
pub const UARTS: [SerialPort; 2] =
    [SerialPort { port: 0x3f8, irq: 4 }, SerialPort { port: 0x2f8, irq: 3 }];
/// Where firmware puts the registers of power management.
pub const PM: u16 = 0x600;
/// The interrupt of power management.
pub const SCI: u32 = 9;
/// IRQs that firmware leads the PCI bus's lines A to D to.
pub const PCI_IRQS: [u8; 4] = [10, 10, 11, 11];
/// Numbers of devices on the PCI bus: the host bridge.
pub const HOST_BRIDGE: u8 = 0;
/// The ISA bridge.
pub const ISA_BRIDGE: u8 = 1;
/// Power management, a function of the ISA bridge's device.
pub const PM_FUNCTION: u8 = 3;
/// The entropy device.
pub const ENTROPY: u8 = 2;
/// The virtio console.
pub const CONSOLE: u8 = 3;
/// Disks, as far as there are any.
pub const DISKS: std::ops::Range<u8> = 4..20;
/// Where PCI functions may have memory below 4 GiB.
pub const PCI_MEMORY: (u64, u64) = (RAM_HOLE, IOAPIC - 1);
/// Where firmware puts page tables for a system that it wakes in 64-bit mode.
pub const WAKE_TABLES: u64 = 0xd_0000;
/// Where firmware puts ACPI's tables, and where the others: kernels search the last 64 KiB below 1 MiB.
pub(super) const ACPI: u64 = 0xe_0000;
const MP_TABLE: u64 = 0xf_0000;
const PCI_ROUTES: u64 = 0xf_0800;
const SMBIOS: u64 = 0xf_1000;
/// isa-debug-exit.
pub const DEBUG_EXIT: u16 = 0xf4;

/// Bytes of a ROM of `len` bytes that are seen below 1 MiB.
#[must_use]
pub fn rom_alias(len: u64) -> u64 {
    len.min(ROM_ALIAS)
}

/// RAM below 4 GiB: where it ends.
#[must_use]
pub fn low_memory(memory: u64) -> u64 {
    memory.min(RAM_HOLE)
}

/// A range of addresses as the BIOS's E820 function names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Its kind: 1 is RAM, 2 reserved.
    pub kind: u32,
}

impl Range {
    /// The range as E820 has it: 20 bytes.
    #[must_use]
    pub fn e820(&self) -> Vec<u8> {
        let mut entry = self.base.to_le_bytes().to_vec();
        entry.extend(self.size.to_le_bytes());
        entry.extend(self.kind.to_le_bytes());
        entry
    }
}

/// Kinds of ranges.
const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// What guests are told of memory.
#[must_use]
pub fn memory_map(memory: u64) -> Vec<Range> {
    let range = |base, end: u64, kind| Range { base, size: end - base, kind };
    let mut map = vec![
        range(0, EBDA, RAM),
        range(EBDA, LOW_RAM_END, RESERVED),
        range(SHADOW, 1 << 20, RESERVED),
        range(1 << 20, low_memory(memory), RAM),
    ];
    if memory > RAM_HOLE {
        map.push(range(HIGH_RAM, HIGH_RAM + (memory - RAM_HOLE), RAM));
    }
    map
}

/// What the tables tell of a board with so many processors.
#[must_use]
pub fn config(cpus: usize) -> PcConfig {
    PcConfig {
        cpus: cpus as u8,
        lapic: mimic_devices::lapic::DEFAULT_BASE as u32,
        ioapic: IOAPIC as u32,
        hpet: HPET as u32,
        hpet_id: hpet::ID,
        pm: PM,
        sci: SCI as u8,
        s3: pm::S3,
        s5: pm::S5,
        serial: UARTS.to_vec(),
        pci_memory: (PCI_MEMORY.0 as u32, PCI_MEMORY.1 as u32),
        pci_irqs: PCI_IRQS,
        isa_bridge: ISA_BRIDGE,
        pm_function: (ISA_BRIDGE, PM_FUNCTION),
    }
}

/// The tables of a firmware.
pub struct Tables {
    /// Where ACPI's begin.
    pub rsdp: u64,
    /// Where ACPI's FACS is.
    pub facs: u64,
    /// Addresses and bytes.
    pub pieces: Vec<(u64, Vec<u8>)>,
}

/// The tables that a firmware leaves in the memory of a board with so many processors and so much RAM.
#[must_use]
pub fn tables(cpus: usize, memory: u64) -> Tables {
    let config = config(cpus);
    let ram: Vec<_> = memory_map(memory)
        .iter()
        .filter(|range| range.kind == RAM)
        .map(|range| (range.base, range.size))
        .collect();
    let acpi = acpi::tables(&config, ACPI as u32);
    Tables {
        rsdp: acpi.rsdp,
        facs: acpi.facs,
        pieces: vec![
            (ACPI, acpi.bytes),
            (MP_TABLE, mp::table(&config, MP_TABLE as u32)),
            (PCI_ROUTES, pci::routing_table(&config)),
            (SMBIOS, smbios::tables(&config, &ram, SMBIOS as u32)),
        ],
    }
}

/// The board for `mimic machines`.
#[must_use]
pub fn describe() -> BoardInfo {
    let line = |name: &str, base, size, irq| MapLine { name: name.into(), base, size, irq };
    BoardInfo {
        name: "pc",
        title: "x86-64 board (i440FX, PIIX) without firmware: Linux, multiboot and PVH kernels, flat binaries, ROMs",
        map: vec![
            line("RAM (--mem), up to 640 KiB", 0, LOW_RAM_END, None),
            line("RAM, or the end of the ROM", SHADOW, (1 << 20) - SHADOW, None),
            line("RAM, up to 3 GiB", 1 << 20, 0, None),
            line("IOAPIC", IOAPIC, mimic_devices::ioapic::SIZE, None),
            line("HPET", HPET, hpet::SIZE, None),
            line("local APICs", mimic_devices::lapic::DEFAULT_BASE, 0x1000, None),
            line("pc-testdev: memory", TESTDEV, mimic_devices::pc_testdev::MEMORY_SIZE, None),
            line("RAM, the rest", HIGH_RAM, 0, None),
        ],
        ports: vec![
            line("PIC", 0x20, 2, None),
            line("PIT", 0x40, 4, Some(0)),
            line("i8042", 0x60, 1, Some(1)),
            line("PIT: gate and speaker", 0x61, 1, None),
            line("i8042", 0x64, 1, None),
            line("RTC and CMOS memory", 0x70, 2, Some(8)),
            line("POST codes", 0x80, 1, None),
            line("A20, reset", 0x92, 1, None),
            line("PIC", 0xa0, 2, None),
            line("APM", 0xb2, 2, None),
            line("pc-testdev: register", 0xe0, 9, None),
            line("debug console", 0xe9, 1, None),
            line("pc-testdev: register", 0xea, 2, None),
            line("isa-debug-exit", u64::from(DEBUG_EXIT), 4, None),
            line("POST codes", 0x190, 1, None),
            line("second UART 16550A", UARTS[1].port.into(), 8, Some(UARTS[1].irq.into())),
            line("UART 16550A", UARTS[0].port.into(), 8, Some(UARTS[0].irq.into())),
            line("debug console", 0x402, 1, None),
            line("PIC: edge or level", 0x4d0, 2, None),
            line("fw_cfg", 0x510, 12, None),
            line(
                "power management, when firmware has put it there",
                PM.into(),
                pm::REGISTER_PORTS,
                Some(SCI),
            ),
            line("PCI configuration, reset", 0xcf8, 8, None),
            line("pc-testdev: interrupts", 0x2000, 24, None),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_above_three_gibibytes_lies_above_four() {
        let map = memory_map(4 << 30);
        assert_eq!(map[3], Range { base: 0x10_0000, size: 0xbff0_0000, kind: 1 });
        assert_eq!(map[4], Range { base: 1 << 32, size: 1 << 30, kind: 1 });
        assert_eq!(memory_map(16 << 20).len(), 4);
    }
}
