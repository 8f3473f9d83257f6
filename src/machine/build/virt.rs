//! The devices of the board `virt`, and its harts.

use std::sync::{Arc, Mutex};

use mimic_cpu::riscv::csr::fields::irq;
use mimic_cpu::riscv::hart::Hart;
use mimic_cpu::riscv::model::CpuModel;
use mimic_cpu::signals::Signals;
use mimic_devices::aclint::{Aclint, HartLines, Mtime};
use mimic_devices::bus::{AddressSpace, SharedDevice};
use mimic_devices::finisher::Finisher;
use mimic_devices::fw_cfg::{self, FwCfg, FwCfgItems};
use mimic_devices::goldfish_rtc::GoldfishRtc;
use mimic_devices::irq::{IrqLine, IrqSink, OrGate};
use mimic_devices::memory::RegionSpec;
use mimic_devices::pci::bus::{IoPorts, PciBus, devfn};
use mimic_devices::pci::ecam::Ecam;
use mimic_devices::pflash::{FlashContents, FlashFile, PFlash};
use mimic_devices::plic::{self, Plic};
use mimic_devices::power::PowerSink;
use mimic_devices::uart16550::{self, Uart16550};
use mimic_devices::virtio::VirtioDevice;
use mimic_devices::virtio::mmio::{Interface, VirtioMmio};
use mimic_devices::virtio::pci::VirtioPci;

use super::{Ground, Made, placement};
use crate::board::virt::{self, Part, Placement};
use crate::engine::CpuState;
use crate::machine::MachineError;
use crate::machine::bus::RiscvSide;
use crate::machine::control::Control;
use crate::machine::spec::{ConsoleKind, DiskSpec, FlashSpec, MachineSpec, VirtioBus};

/// Memory of a board with so much RAM.
pub(super) fn regions(memory: u64, flash: bool) -> Vec<RegionSpec> {
    let mut regions = vec![
        RegionSpec::rom(virt::BOOT_ROM.base, virt::BOOT_ROM.size),
        RegionSpec::ram(virt::RAM_BASE, memory),
    ];
    if flash {
        regions.extend(virt::FLASH.map(|bank| RegionSpec::rom(bank.base, bank.size)));
    }
    regions
}

/// Harts after reset.
pub(super) fn harts(model: CpuModel, count: usize) -> Vec<CpuState> {
    let hart = |id| Hart::of_model(model, id as u64, virt::BOOT_ROM.base).into();
    (0..count).map(hart).collect()
}

/// Interrupt lines of one hart, as an IRQ sink: the input number is the bit of `mip`.
struct HartPins(Arc<Signals>);

impl IrqSink for HartPins {
    fn set_level(&self, input: u32, level: bool) {
        self.0.set_lines(1 << input, level);
    }
}

/// What the devices of the board are made from.
struct Wiring<'a> {
    ground: &'a Ground,
    mtime: Mtime,
    pins: Vec<Arc<dyn IrqSink>>,
    plic: Arc<Mutex<Plic>>,
    disks: &'a [DiskSpec],
    flash: Option<&'a FlashSpec>,
    virtio: VirtioBus,
}

/// Makes the board's devices and places them in `space`.
pub(super) fn wire(
    ground: &Ground,
    space: &Arc<AddressSpace>,
    spec: &MachineSpec,
    made: &mut Made,
) -> Result<RiscvSide, MachineError> {
    let Ground { clock, timers, signals, .. } = ground;
    let mtime = Mtime::new(clock.clone());
    let pins: Vec<Arc<dyn IrqSink>> = signals
        .iter()
        .map(|signals| Arc::new(HartPins(Arc::clone(signals))) as Arc<dyn IrqSink>)
        .collect();
    // Contexts: M and S of hart 0, M and S of hart 1, ...
    let contexts = pins
        .iter()
        .flat_map(|pin| {
            [irq::MEI, irq::SEI].map(|bit| IrqLine::new(Arc::clone(pin), bit.trailing_zeros()))
        })
        .collect();
    let plic = Plic::new(virt::PLIC_SOURCES, contexts, clock.clone(), timers);
    let MachineSpec { disks, flash, virtio, .. } = spec;
    let (flash, virtio) = (flash.as_ref(), *virtio);
    let wiring = Wiring { ground, mtime: mtime.clone(), pins, plic, disks, flash, virtio };
    for place in &virt::PLACEMENTS {
        if let Some(device) = wiring.device(place, made)? {
            space.map(place.base, place.size, device).map_err(placement)?;
        }
    }
    if virtio == VirtioBus::Pci {
        let ecam = wiring.pci(space, made);
        space.map(virt::ECAM.0, virt::ECAM.1, ecam).map_err(placement)?;
    }
    let hart_timers = signals
        .iter()
        .map(|signals| {
            let signals = Arc::clone(signals);
            timers.register(Arc::new(move |_| signals.call_attention()))
        })
        .collect();
    let moved = signals.clone();
    mtime.on_change(move || moved.iter().for_each(|signals| signals.call_attention()));
    Ok(RiscvSide { mtime, hart_timers })
}

impl Wiring<'_> {
    fn line(&self, place: &Placement) -> IrqLine {
        place
            .irq
            .map_or_else(IrqLine::unconnected, |irq| IrqLine::new(plic::inputs(&self.plic), irq))
    }

    fn pin(&self, hart: usize, bit: u64) -> IrqLine {
        IrqLine::new(Arc::clone(&self.pins[hart]), bit.trailing_zeros())
    }

    fn virtio(&self, device: Box<dyn VirtioDevice>, line: IrqLine) -> SharedDevice {
        VirtioMmio::new(Interface::Modern, device, Arc::clone(&self.ground.memory), line)
    }

    /// The PCI bus with the virtio devices on it.
    fn pci(&self, space: &Arc<AddressSpace>, made: &mut Made) -> SharedDevice {
        let ports = IoPorts::Memory { base: virt::PCI_IO.0, count: virt::PCI_IO.1 };
        let mut bus = PciBus::new(Arc::clone(space), ports);
        let lines = virt::PCI_IRQS
            .map(|source| OrGate::new(IrqLine::new(plic::inputs(&self.plic), source)));
        let mut insert = |device: u8, virtio: Box<dyn VirtioDevice>| {
            // INTA# of a device is the line of its number.
            let line = lines[usize::from(device) % lines.len()].input(device.into());
            let memory = Arc::clone(&self.ground.memory);
            bus.insert(devfn(device, 0), VirtioPci::new(virtio, memory, line, None));
        };
        insert(virt::PCI_ENTROPY, self.ground.entropy_device());
        insert(virt::PCI_CONSOLE, self.ground.console(made));
        for (device, disk) in virt::PCI_DISKS.zip(self.disks) {
            insert(device, self.ground.block(disk, made));
        }
        Arc::new(Mutex::new(Ecam::new(Arc::new(Mutex::new(bus)))))
    }

    /// Makes the device of a placement, if there shall be one.
    fn device(
        &self,
        place: &Placement,
        made: &mut Made,
    ) -> Result<Option<SharedDevice>, MachineError> {
        let line = self.line(place);
        let device: SharedDevice = match place.part {
            Part::BootRom => return Ok(None),
            Part::Virtio(_) if self.virtio == VirtioBus::Pci => {
                VirtioMmio::empty(Interface::Modern)
            }
            Part::Virtio(virt::ENTROPY_SLOT) => self.virtio(self.ground.entropy_device(), line),
            Part::Virtio(virt::CONSOLE_SLOT) => self.virtio(self.ground.console(made), line),
            Part::Virtio(slot) => match self.disks.get(slot as usize) {
                Some(disk) => self.virtio(self.ground.block(disk, made), line),
                None => VirtioMmio::empty(Interface::Modern),
            },
            Part::FwCfg => {
                let mut items = FwCfgItems::new();
                let cpus = self.pins.len() as u16;
                items.set_u16(fw_cfg::key::CPUS, cpus).map_err(placement)?;
                items.set_u16(fw_cfg::key::MAX_CPUS, cpus).map_err(placement)?;
                let memory = Arc::clone(&self.ground.memory);
                Arc::new(Mutex::new(FwCfg::new(memory, fw_cfg::Layout::Mmio, items)))
            }
            Part::Flash(bank) => {
                let Some(flash) = self.flash else { return Ok(None) };
                let contents = match (bank, &flash.variables) {
                    (0, _) => FlashContents::ReadOnly(&flash.code),
                    (_, Some(path)) => {
                        FlashContents::File(FlashFile::open(path).map_err(placement)?)
                    }
                    (_, None) => FlashContents::Volatile(&[]),
                };
                let flash = PFlash::new(Arc::clone(&self.ground.memory), place.base, contents);
                let flash = Arc::new(Mutex::new(flash.map_err(placement)?));
                made.flash.push(Arc::clone(&flash));
                flash
            }
            Part::Finisher => {
                let power: Arc<dyn PowerSink> = Arc::<Control>::clone(&self.ground.control);
                Arc::new(Mutex::new(Finisher::new(power)))
            }
            Part::Rtc => GoldfishRtc::new(
                self.ground.clock.clone(),
                &self.ground.timers,
                line,
                self.ground.wall_base,
            ),
            Part::Aclint => {
                let lines = (0..self.pins.len())
                    .map(|hart| HartLines {
                        msip: self.pin(hart, irq::MSI),
                        mtip: self.pin(hart, irq::MTI),
                    })
                    .collect();
                Aclint::new(self.mtime.clone(), &self.ground.timers, lines)
            }
            Part::Plic => Arc::<Mutex<Plic>>::clone(&self.plic),
            Part::Uart => {
                let config = uart16550::Config {
                    clock_hz: u64::from(virt::UART_CLOCK),
                    ..uart16550::Config::default()
                };
                let output = Box::new(self.ground.output.clone());
                let (uart, input) = Uart16550::new(
                    config,
                    self.ground.clock.clone(),
                    &self.ground.timers,
                    line,
                    output,
                );
                made.consoles.push((ConsoleKind::Uart, input));
                uart
            }
        };
        Ok(Some(device))
    }
}
