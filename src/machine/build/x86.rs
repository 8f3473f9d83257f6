//! What the boards with x86 processors share: memory, processors, interrupt controllers, the ports by which guests tell
//! how they are.

use std::sync::{Arc, Mutex, PoisonError};

use mimic_cpu::x86::model::{Model, feature};
use mimic_cpu::x86::state::{Activity, Cpu};
use mimic_devices::bus::{AddressSpace, MapError, SharedDevice, Width};
use mimic_devices::debug_ports::{DebugConsole, DebugExit, PostPort};
use mimic_devices::fw_cfg::{self, FwCfg, FwCfgItems};
use mimic_devices::ioapic::{self, IoApic};
use mimic_devices::irq::{IrqLine, OrGate, Splitter};
use mimic_devices::lapic::{Config, EoiSink, ExtIntSource, LapicDevice, Lapics};
use mimic_devices::memory::RegionSpec;
use mimic_devices::msi;
use mimic_devices::pci::piix::PirqRouter;
use mimic_devices::pic::{self, Pic};
use mimic_devices::ports::PortSpace;
use mimic_devices::serial::{SerialInput, SerialOutput};
use mimic_devices::uart16550::{self, Uart16550};
use mimic_firmware::x86::SerialPort;

use super::{Ground, placement};
use crate::board::pc;
use crate::engine::CpuState;
use crate::machine::MachineError;
use crate::machine::bus::{Attention, PcSide, TimeStamps};
use crate::machine::payload::{Start, bootstrap};
use crate::machine::sleep::Firmware;
use crate::machine::spec::{End, MachineSpec};

/// Memory of a board with so much RAM, and ROM of so many bytes.
pub(super) fn regions(memory: u64, rom: u64) -> Vec<RegionSpec> {
    let ram = |base, end: u64| RegionSpec::ram(base, end - base);
    let mib = 1 << 20;
    let low = pc::low_memory(memory);
    let mut regions = vec![ram(0, pc::LOW_RAM_END)];
    if rom == 0 {
        regions.push(ram(pc::SHADOW, low));
    } else {
        let alias = mib - pc::rom_alias(rom);
        regions.push(ram(pc::SHADOW, alias));
        regions.push(RegionSpec::rom(alias, mib - alias));
        regions.push(ram(mib, low));
        regions.push(RegionSpec::rom(pc::HIGH_RAM - rom, rom));
    }
    if memory > low {
        regions.push(RegionSpec::ram(pc::HIGH_RAM, memory - low));
    }
    regions
}

/// Processors after reset; the first starts as `start` says, the others wait for it. Their time-stamp counters start at
/// `tsc`.
pub(super) fn processors(model: &Model, count: usize, start: Start, tsc: u64) -> Vec<CpuState> {
    let others = (1..count).map(|id| {
        let mut cpu = Cpu::new(id as u32, model.clone());
        cpu.activity = Activity::WaitForStartup;
        cpu
    });
    let all = std::iter::once(bootstrap(model.clone(), start)).chain(others);
    all.map(|mut cpu| {
        cpu.msr.tsc_offset = tsc;
        CpuState::from(cpu)
    })
    .collect()
}

/// What the board's machine is besides its devices.
pub(super) struct Wired {
    pub(super) sides: Vec<PcSide>,
    pub(super) ports: Arc<PortSpace>,
    /// What the board's firmware does when the machine wakes, if it may sleep.
    pub(super) firmware: Option<Firmware>,
}

/// The interrupt controllers and the lines that lead to them.
pub(super) struct Interrupts {
    pub(super) lapics: Arc<Lapics>,
    pic: Arc<Mutex<Pic>>,
    ioapic: Arc<Mutex<IoApic>>,
    /// Each IRQ of the ISA bus: a device's at input 0, pc-testdev's at input 1, the PCI bus's at input 2.
    isa: Vec<Arc<OrGate>>,
}

/// IRQs of the ISA bus.
const ISA_IRQS: u32 = 16;

impl Interrupts {
    pub(super) fn new(ground: &Ground, model: &Model) -> Self {
        let Ground { clock, timers, signals, .. } = ground;
        let stamps = TimeStamps::new(clock.clone(), model.tsc_hz.max(1));
        let config = Config {
            ids: (0..signals.len() as u32).collect(),
            physical_bits: model.phys_bits(),
            x2apic: model.has(feature::X2APIC),
            tsc: model.has(feature::TSC_DEADLINE).then(|| Arc::new(stamps) as Arc<_>),
        };
        let attention = Arc::new(Attention(signals.clone()));
        let lapics = Lapics::new(config, clock.clone(), timers, attention);
        let pic = Pic::new(IrqLine::new(lapics.clone(), 0));
        let ioapic = IoApic::new(lapics.clone());
        let source: Arc<dyn ExtIntSource> = pic.clone();
        lapics.connect_pic(Arc::downgrade(&source));
        let ends: Arc<dyn EoiSink> = ioapic.clone();
        lapics.connect_ioapic(Arc::downgrade(&ends));
        let pin = |pin| IrqLine::new(ioapic::inputs(&ioapic), pin);
        // IRQ n is input n of both controllers, but for IRQ 0: the I/O APIC has it at input 2, where the other one has
        // its second half.
        let isa = |irq: u32| match irq {
            2 => OrGate::new(IrqLine::unconnected()),
            _ => OrGate::new(Splitter::line(vec![
                IrqLine::new(pic::inputs(&pic), irq),
                pin(if irq == 0 { 2 } else { irq }),
            ])),
        };
        let isa = (0..ISA_IRQS).map(isa).collect();
        Interrupts { lapics, pic, ioapic, isa }
    }

    /// The line of a device.
    pub(super) fn irq(&self, irq: u32) -> IrqLine {
        self.isa[irq as usize].input(0)
    }

    /// What leads the PCI bus's interrupts to those of the ISA bus.
    pub(super) fn pirq_router(&self) -> Arc<PirqRouter> {
        PirqRouter::new(self.isa.iter().map(|gate| gate.input(2)).collect())
    }

    /// An input of the I/O APIC that the ISA bus does not have.
    pub(super) fn pin(&self, pin: u32) -> IrqLine {
        IrqLine::new(ioapic::inputs(&self.ioapic), pin)
    }

    /// The I/O APIC's inputs, for the HPET, which has those alone that no other device has.
    pub(super) fn pins(&self) -> Vec<IrqLine> {
        (0..ioapic::PINS as u32).map(|pin| self.pin(pin)).collect()
    }

    /// The lines of pc-testdev: the ISA bus's, then those that only the I/O APIC has.
    pub(super) fn testdev_lines(&self) -> Vec<IrqLine> {
        (0..ioapic::PINS as u32)
            .map(|line| match self.isa.get(line as usize) {
                Some(gate) => gate.input(1),
                None => self.pin(line),
            })
            .collect()
    }

    /// What firmware leaves behind: all local APICs on, the PIC's interrupts and NMIs at the first one's pins, the PIC
    /// at the vectors 8 and 0x70 with these IRQs masked, the timer at 18.2 Hz.
    pub(super) fn set_up(&self, ports: &PortSpace, masks: [u64; 2]) {
        self.lapics.set_virtual_wire();
        let [first, second] = masks;
        for (port, words) in [(0x20, [0x11, 0x08, 4, 1, first]), (0xa0, [0x11, 0x70, 2, 1, second])]
        {
            ports.write(port, Width::Byte, words[0]);
            for word in &words[1..] {
                ports.write(port + 1, Width::Byte, *word);
            }
        }
        // Counter 0 in mode 2; a count of 0 means 65536.
        for (port, byte) in [(0x43, 0x34), (0x40, 0), (0x40, 0)] {
            ports.write(port, Width::Byte, byte);
        }
    }

    /// Places the controllers.
    fn place(&self, ports: &PortSpace, space: &AddressSpace) -> Result<(), MapError> {
        for (port, first) in [(0x20, pic::FIRST), (0xa0, pic::SECOND), (0x4d0, pic::ELCR)] {
            ports.map("pic", port, 2, self.pic.clone(), first)?;
        }
        let lapic = Arc::new(Mutex::new(LapicDevice(Arc::clone(&self.lapics))));
        space.map(msi::ADDRESS.into(), msi::SIZE, lapic)?;
        space.map(pc::IOAPIC, ioapic::SIZE, self.ioapic.clone())
    }
}

/// What a board's port space takes: name, first port, number of ports, device, its offset at the first port.
pub(super) type PortRow = (&'static str, u16, u64, SharedDevice, u64);

/// A serial port that prints to `output`, and its input.
pub(super) fn uart(
    ground: &Ground,
    interrupts: &Interrupts,
    serial: SerialPort,
    output: Box<dyn SerialOutput>,
) -> (SharedDevice, SerialInput) {
    let config = uart16550::Config { clock_hz: pc::UART_CLOCK, ..uart16550::Config::default() };
    let line = interrupts.irq(serial.irq.into());
    let (uart, input) = Uart16550::new(config, ground.clock.clone(), &ground.timers, line, output);
    (uart, input)
}

/// The ports by which guests tell how they are: POST codes, debug consoles, isa-debug-exit; and fw_cfg.
fn debug_ports(ground: &Ground, spec: &MachineSpec) -> Result<[PortRow; 6], MachineError> {
    let Ground { control, output, .. } = ground;
    let exit = {
        let (control, pass_exit) = (Arc::clone(control), spec.pass_exit);
        DebugExit::new(Box::new(move |value| {
            control.end(if pass_exit == Some(value) { End::Pass } else { End::Exit(value) });
        }))
    };
    let console = || Arc::new(Mutex::new(DebugConsole::new(Box::new(output.clone()))));
    let post = |port: u16| {
        let control = Arc::clone(control);
        Arc::new(Mutex::new(PostPort::new(Box::new(move |code| {
            log::debug!(target: "post", "code {code:#04x} at port {port:#x}");
            control.post(code);
        }))))
    };
    let items = items(ground.signals.len() as u16, spec.memory)?;
    let fw_cfg = FwCfg::new(Arc::clone(&ground.memory), fw_cfg::Layout::Ports, items);
    Ok([
        ("post-port", 0x80, 1, post(0x80), 0),
        ("debug-console", 0xe9, 1, console(), 0),
        ("isa-debug-exit", pc::DEBUG_EXIT, DebugExit::PORTS, Arc::new(Mutex::new(exit)), 0),
        ("post-port", 0x190, 1, post(0x190), 0),
        ("debug-console", 0x402, 1, console(), 0),
        ("fw_cfg", 0x510, fw_cfg::Layout::Ports.size(), Arc::new(Mutex::new(fw_cfg)), 0),
    ])
}

/// Places what every board has, and `rows` of its own; the processors' sides.
pub(super) fn place(
    ground: &Ground,
    interrupts: &Interrupts,
    rows: impl IntoIterator<Item = PortRow>,
    (space, ports): (&AddressSpace, Arc<PortSpace>),
    spec: &MachineSpec,
) -> Result<Wired, MachineError> {
    interrupts.place(&ports, space).map_err(placement)?;
    for (name, port, count, device, first) in debug_ports(ground, spec)?.into_iter().chain(rows) {
        ports.map(name, port, count, device, first).map_err(placement)?;
    }
    let (lapics, ioapic) = (Arc::clone(&interrupts.lapics), Arc::clone(&interrupts.ioapic));
    ground.control.set_unmaskable(move || {
        lapics.has_unmaskable()
            || ioapic.lock().unwrap_or_else(PoisonError::into_inner).has_unmaskable()
    });
    let side = |(cpu, signals): (usize, &Arc<_>)| {
        let (lapics, clock) = (Arc::clone(&interrupts.lapics), ground.clock.clone());
        PcSide::new(cpu, lapics, Arc::clone(&ports), clock, Arc::clone(signals))
    };
    let sides = ground.signals.iter().enumerate().map(side).collect();
    Ok(Wired { sides, ports, firmware: None })
}

/// What fw_cfg tells.
fn items(cpus: u16, memory: u64) -> Result<FwCfgItems, MachineError> {
    let mut items = FwCfgItems::new();
    items.set_u16(fw_cfg::key::CPUS, cpus).map_err(placement)?;
    items.set_u16(fw_cfg::key::MAX_CPUS, cpus).map_err(placement)?;
    items.set(fw_cfg::key::RAM_SIZE, memory.to_le_bytes().to_vec()).map_err(placement)?;
    items.set_u16(fw_cfg::key::NO_GRAPHIC, 1).map_err(placement)?;
    let map: Vec<u8> = pc::memory_map(memory).iter().flat_map(pc::Range::e820).collect();
    items.add_file("etc/e820", map).map_err(placement)?;
    Ok(items)
}
