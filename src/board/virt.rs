//! `virt`, the RISC-V board: QEMU's memory map, so that images made for it run unchanged.

use mimic_cpu::riscv::model::CpuModel;
use mimic_cpu::riscv::{CACHE_BLOCK, TIMEBASE_HZ};
use mimic_firmware::fdt::{
    Chosen, CpuNode, DeviceTree, FdtError, Mmu, Node, PciHost, ReservedMemory,
};

use super::{BoardInfo, MapLine};

/// Where RAM begins.
pub const RAM_BASE: u64 = 0x8000_0000;
/// Most harts.
pub const MAX_HARTS: usize = 8;
/// Sources of the PLIC, without the absent source 0.
pub const PLIC_SOURCES: u32 = 95;
/// Input clock of the UART in Hz.
pub const UART_CLOCK: u32 = 3_686_400;
/// virtio-mmio slots.
pub const VIRTIO_SLOTS: u32 = 8;

/// What is placed somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The reset vector.
    BootRom,
    /// SiFive test finisher.
    Finisher,
    /// Goldfish real-time clock.
    Rtc,
    /// Core-local interruptor.
    Aclint,
    /// Platform-level interrupt controller.
    Plic,
    /// Serial port.
    Uart,
    /// virtio-mmio slot.
    Virtio(u32),
    /// Firmware configuration device.
    FwCfg,
    /// Bank of flash memory.
    Flash(u32),
}

/// The virtio slots that hold disks, as far as there are any: from slot 0 on, where programs written for
/// QEMU look.
pub const DISK_SLOTS: std::ops::Range<u32> = 0..6;
/// The virtio slot that holds the entropy device.
pub const ENTROPY_SLOT: u32 = 6;
/// The virtio slot that holds the console.
pub const CONSOLE_SLOT: u32 = 7;

/// A part, its addresses and its interrupt.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// The part.
    pub part: Part,
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// PLIC source.
    pub irq: Option<u32>,
}

const fn place(part: Part, base: u64, size: u64, irq: Option<u32>) -> Placement {
    Placement { part, base, size, irq }
}

const fn virtio(slot: u32) -> Placement {
    place(Part::Virtio(slot), 0x1000_1000 + slot as u64 * 0x1000, 0x1000, Some(1 + slot))
}

/// The boot ROM, where every hart starts.
pub const BOOT_ROM: Placement = place(Part::BootRom, 0x1000, 0xf000, None);
/// The test finisher.
pub const FINISHER: Placement = place(Part::Finisher, 0x10_0000, 0x1000, None);
/// The core-local interruptor.
pub const ACLINT: Placement = place(Part::Aclint, 0x200_0000, 0x1_0000, None);
/// The interrupt controller.
pub const PLIC: Placement = place(Part::Plic, 0xc00_0000, 0x60_0000, None);
/// The serial port.
pub const UART: Placement = place(Part::Uart, 0x1000_0000, 0x100, Some(10));

/// Banks of flash: code, then variables.
pub const FLASH: [Placement; 2] = [
    place(Part::Flash(0), 0x2000_0000, 0x200_0000, None),
    place(Part::Flash(1), 0x2200_0000, 0x200_0000, None),
];

/// The PCI bus's configuration space, where the bus is wanted: first address and bytes.
pub const ECAM: (u64, u64) = (0x3000_0000, 0x1000_0000);
/// The bus's I/O ports, and how many.
pub const PCI_IO: (u64, u64) = (0x300_0000, 0x1_0000);
/// The bus's memory below 4 GiB.
const PCI_MEMORY: (u64, u64) = (0x4000_0000, 0x4000_0000);
/// Its memory above, at a multiple of its size that lies beyond RAM.
const PCI_MEMORY64: u64 = 0x4_0000_0000;
/// Sources of the bus's lines A to D of the device 0.
pub const PCI_IRQS: [u32; 4] = [32, 33, 34, 35];
/// The entropy device's number on the bus.
pub const PCI_ENTROPY: u8 = 1;
/// The virtio console's.
pub const PCI_CONSOLE: u8 = 2;
/// Those of disks.
pub const PCI_DISKS: std::ops::Range<u8> = 3..9;

/// The PCI bus of a board with so much RAM.
fn pci_host(memory: u64) -> PciHost {
    let high = (RAM_BASE + memory).next_multiple_of(PCI_MEMORY64);
    PciHost {
        ecam: ECAM,
        io: PCI_IO,
        mmio32: PCI_MEMORY,
        mmio64: (high, PCI_MEMORY64),
        irqs: PCI_IRQS,
    }
}

/// The memory map, by address.
pub const PLACEMENTS: [Placement; 17] = [
    BOOT_ROM,
    FINISHER,
    place(Part::Rtc, 0x10_1000, 0x1000, Some(11)),
    ACLINT,
    PLIC,
    UART,
    virtio(0),
    virtio(1),
    virtio(2),
    virtio(3),
    virtio(4),
    virtio(5),
    virtio(6),
    virtio(7),
    place(Part::FwCfg, 0x1010_0000, 0x18, None),
    FLASH[0],
    FLASH[1],
];

impl Placement {
    fn name(&self) -> String {
        match self.part {
            Part::BootRom => "boot ROM".into(),
            Part::Finisher => "test finisher".into(),
            Part::Rtc => "goldfish RTC".into(),
            Part::Aclint => "ACLINT".into(),
            Part::Plic => "PLIC".into(),
            Part::Uart => "UART 16550A".into(),
            Part::Virtio(ENTROPY_SLOT) => "virtio-mmio: entropy".into(),
            Part::Virtio(CONSOLE_SLOT) => "virtio-mmio: console".into(),
            Part::Virtio(slot) => format!("virtio-mmio: disk {slot} (--disk)"),
            Part::FwCfg => "fw_cfg".into(),
            Part::Flash(0) => "flash: code (--flash)".into(),
            Part::Flash(_) => "flash: variables (--flash-vars)".into(),
        }
    }

    /// The part's node in the device tree.
    fn node(&self, harts: u32) -> Option<Node> {
        let irq = self.irq.unwrap_or(0);
        Some(match self.part {
            // Below the root: see `device_tree`.
            Part::BootRom | Part::FwCfg | Part::Flash(_) => return None,
            Part::Finisher => Node::test_finisher(self.base, self.size),
            Part::Rtc => Node::goldfish_rtc(self.base, self.size, irq),
            Part::Aclint => Node::clint(self.base, self.size, harts),
            Part::Plic => Node::plic(self.base, self.size, PLIC_SOURCES, harts),
            Part::Uart => Node::uart16550(self.base, self.size, irq, UART_CLOCK),
            Part::Virtio(_) => Node::virtio_mmio(self.base, self.size, irq),
        })
    }
}

/// The board for `mimic machines`.
#[must_use]
pub fn describe() -> BoardInfo {
    let mut map: Vec<MapLine> = PLACEMENTS
        .iter()
        .map(|place| MapLine {
            name: place.name(),
            base: place.base,
            size: place.size,
            irq: place.irq,
        })
        .collect();
    let line = |name: &str, (base, size)| MapLine { name: name.into(), base, size, irq: None };
    map.push(line("PCI configuration (--virtio pci)", ECAM));
    map.push(line("PCI I/O ports", PCI_IO));
    map.push(line("PCI memory", PCI_MEMORY));
    map.sort_by_key(|line| line.base);
    map.push(MapLine { name: "RAM (--mem)".into(), base: RAM_BASE, size: 0, irq: None });
    let title = "RISC-V board with QEMU's memory map";
    BoardInfo { name: "virt", title, map, ports: Vec::new() }
}

/// What the device tree says besides the placement list.
#[derive(Clone, Debug, Default)]
pub struct TreeOptions {
    /// What the harts offer.
    pub cpu: CpuModel,
    /// Number of harts.
    pub harts: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// There is flash.
    pub flash: bool,
    /// There is a PCI bus.
    pub pci: bool,
    /// Memory of the firmware: base and size.
    pub firmware: Option<(u64, u64)>,
    /// Kernel command line.
    pub cmdline: String,
    /// Initial RAM disk: first byte and the byte after the last.
    pub initrd: Option<(u64, u64)>,
    /// Entropy for the guest.
    pub rng_seed: Option<[u8; 32]>,
}

/// The device tree of the board.
///
/// # Errors
/// [`FdtError`] if a text holds a NUL, for instance.
pub fn device_tree(options: &TreeOptions) -> Result<Vec<u8>, FdtError> {
    // Values the finisher takes from the syscon drivers (SiFive test finisher).
    const POWER_OFF: u32 = 0x5555;
    const RESET: u32 = 0x7777;
    let cpu = |hart_id| CpuNode {
        hart_id,
        isa: options.cpu.isa_string(),
        extensions: options.cpu.extensions().into_iter().map(str::to_owned).collect(),
        mmu: Mmu::Sv57,
        cbom_block_size: Some(CACHE_BLOCK as u32),
        cbop_block_size: Some(CACHE_BLOCK as u32),
        cboz_block_size: Some(CACHE_BLOCK as u32),
    };
    let console = format!("/soc/serial@{:x}", UART.base);
    let mut nodes = vec![Node::syscon_poweroff(POWER_OFF), Node::syscon_reboot(RESET)];
    if let Some(place) = PLACEMENTS.iter().find(|place| place.part == Part::FwCfg) {
        nodes.push(Node::fw_cfg(place.base, place.size));
    }
    if options.flash {
        nodes.push(Node::cfi_flash(&FLASH.map(|bank| (bank.base, bank.size)), 4));
    }
    DeviceTree {
        model: "mimic,virt".into(),
        compatible: vec!["riscv-virtio".into()],
        cpus: (0..options.harts).map(cpu).collect(),
        timebase_frequency: TIMEBASE_HZ as u32,
        memory: vec![(RAM_BASE, options.memory)],
        reserved: options
            .firmware
            .map(|(base, size)| ReservedMemory {
                name: "mmode_resv".into(),
                base,
                size,
                no_map: true,
            })
            .into_iter()
            .collect(),
        chosen: Chosen {
            bootargs: (!options.cmdline.is_empty()).then(|| options.cmdline.clone()),
            initrd: options.initrd,
            stdout_path: Some(console.clone()),
            rng_seed: options.rng_seed,
            kaslr_seed: None,
        },
        aliases: vec![("serial0".into(), console)],
        nodes,
        soc: PLACEMENTS
            .iter()
            .filter_map(|place| place.node(options.harts))
            .chain(options.pci.then(|| Node::pci_host(&pci_host(options.memory))))
            .collect(),
    }
    .flatten()
}
