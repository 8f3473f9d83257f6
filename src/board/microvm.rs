//! `microvm`: QEMU's board of that name with one I/O APIC (`ioapic2=off`) and ACPI: serial port, clock, virtio devices at
//! fixed addresses, no PCI. Where RAM lies, and what is not named here, is as on [`pc`](super::pc).

use mimic_devices::acpi_sleep;
use mimic_firmware::x86::microvm::{self, MicrovmConfig, Slot};

use super::pc::{self, HIGH_RAM, IOAPIC, LOW_RAM_END, SHADOW, Tables, UARTS};
use super::{BoardInfo, MapLine};

/// virtio-mmio slots: the first, and bytes of each.
const VIRTIO: u64 = 0xfeb0_0000;
/// Bytes of a slot.
pub const VIRTIO_SIZE: u64 = 0x200;
/// How many slots.
pub const VIRTIO_SLOTS: u32 = 8;
/// The I/O APIC's input of the first slot; the others follow.
const VIRTIO_INPUT: u32 = 16;
/// Slots that hold disks, as far as there are any.
pub const DISK_SLOTS: std::ops::Range<u32> = 0..6;
/// The slot of the entropy device.
pub const ENTROPY_SLOT: u32 = 6;
/// The slot of the console.
pub const CONSOLE_SLOT: u32 = 7;
/// Sleep and reset registers: those of QEMU's generic event device.
pub const SLEEP: u64 = 0xfea0_0200;

/// Address of a slot, and the I/O APIC's input that it interrupts by.
#[must_use]
pub fn slot(number: u32) -> (u64, u32) {
    (VIRTIO + u64::from(number) * VIRTIO_SIZE, VIRTIO_INPUT + number)
}

/// The tables that a firmware leaves in the memory of a board with so many processors.
#[must_use]
pub fn tables(cpus: usize) -> Tables {
    let slot = |number| {
        let (base, input) = slot(number);
        Slot { base: base as u32, size: VIRTIO_SIZE as u32, interrupt: input }
    };
    let config = MicrovmConfig {
        cpus: cpus as u8,
        lapic: mimic_devices::lapic::DEFAULT_BASE as u32,
        ioapic: IOAPIC as u32,
        serial: UARTS[0],
        sleep_control: SLEEP + acpi_sleep::CONTROL,
        sleep_status: SLEEP + acpi_sleep::STATUS,
        s5: acpi_sleep::S5,
        reset: (SLEEP + acpi_sleep::RESET, acpi_sleep::RESET_VALUE),
        virtio: (0..VIRTIO_SLOTS).map(slot).collect(),
    };
    let acpi = microvm::tables(&config, pc::ACPI as u32);
    Tables { rsdp: acpi.rsdp, facs: acpi.facs, pieces: vec![(pc::ACPI, acpi.bytes)] }
}

/// The board for `mimic machines`.
#[must_use]
pub fn describe() -> BoardInfo {
    let line = |name: &str, base, size, irq| MapLine { name: name.into(), base, size, irq };
    let virtio = |number| {
        let (base, input) = slot(number);
        let name = match number {
            ENTROPY_SLOT => "virtio-mmio: entropy".into(),
            CONSOLE_SLOT => "virtio-mmio: console".into(),
            disk => format!("virtio-mmio: disk {disk} (--disk)"),
        };
        line(&name, base, VIRTIO_SIZE, Some(input))
    };
    let mut map = vec![
        line("RAM (--mem), up to 640 KiB", 0, LOW_RAM_END, None),
        line("RAM, up to 3 GiB", SHADOW, 0, None),
        line("ACPI: sleep, reset", SLEEP, acpi_sleep::SIZE, None),
    ];
    map.extend((0..VIRTIO_SLOTS).map(virtio));
    map.extend([
        line("IOAPIC", IOAPIC, mimic_devices::ioapic::SIZE, None),
        line("local APICs", mimic_devices::lapic::DEFAULT_BASE, 0x1000, None),
        line("RAM, the rest", HIGH_RAM, 0, None),
    ]);
    BoardInfo {
        name: "microvm",
        title: "x86-64 board (as QEMU's) without PCI and firmware: Linux, multiboot and PVH kernels, flat binaries",
        map,
        ports: vec![
            line("PIC", 0x20, 2, None),
            line("PIT", 0x40, 4, Some(0)),
            line("PIT: gate and speaker", 0x61, 1, None),
            line("RTC and CMOS memory", 0x70, 2, Some(8)),
            line("POST codes", 0x80, 1, None),
            line("A20, reset", 0x92, 1, None),
            line("PIC", 0xa0, 2, None),
            line("debug console", 0xe9, 1, None),
            line("isa-debug-exit", u64::from(pc::DEBUG_EXIT), 4, None),
            line("POST codes", 0x190, 1, None),
            line("UART 16550A", UARTS[0].port.into(), 8, Some(UARTS[0].irq.into())),
            line("debug console", 0x402, 1, None),
            line("PIC: edge or level", 0x4d0, 2, None),
            line("fw_cfg", 0x510, 12, None),
        ],
    }
}
