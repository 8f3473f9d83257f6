//! The devices of the board `pc`, and its processors.

use std::sync::{Arc, Mutex, PoisonError};

use mimic_cpu::x86::model::{Model, feature};
use mimic_cpu::x86::state::{Activity, Cpu};
use mimic_devices::bus::{AddressSpace, MapError, SharedDevice, Width, lock};
use mimic_devices::debug_ports::{DebugConsole, DebugExit, Port92, PostPort};
use mimic_devices::fw_cfg::{self, FwCfg, FwCfgItems};
use mimic_devices::hpet::{self, Hpet, LegacyRoute};
use mimic_devices::i8042::{self, I8042};
use mimic_devices::ioapic::{self, IoApic};
use mimic_devices::irq::{IrqLine, OrGate, Splitter};
use mimic_devices::lapic::{Config, EoiSink, ExtIntSource, LapicDevice, Lapics};
use mimic_devices::memory::RegionSpec;
use mimic_devices::msi;
use mimic_devices::pc_testdev::{self, PcTestdev};
use mimic_devices::pci::bus::{IoPorts, PciBus, devfn};
use mimic_devices::pci::i440fx::HostBridge;
use mimic_devices::pci::mechanism1::{self, Mechanism1};
use mimic_devices::pci::piix::{self, IsaBridge, PirqRouter, PmFunction};
use mimic_devices::pic::{self, Pic};
use mimic_devices::pit::{self, Pit};
use mimic_devices::pm::{self, Pm};
use mimic_devices::ports::PortSpace;
use mimic_devices::power::PowerSink;
use mimic_devices::rtc::{self, Rtc};
use mimic_devices::serial::SerialOutput;
use mimic_devices::uart16550::{self, Uart16550};
use mimic_devices::virtio::VirtioDevice;
use mimic_devices::virtio::pci::VirtioPci;
use mimic_firmware::x86::PcConfig;
use mimic_firmware::x86::pci::{self as pci_firmware, ConfigurationSpace};

use super::{Ground, Made, placement};
use crate::board::pc;
use crate::engine::CpuState;
use crate::machine::MachineError;
use crate::machine::bus::{Attention, PcSide, TimeStamps};
use crate::machine::control::Control;
use crate::machine::payload::{Start, bootstrap};
use crate::machine::spec::{ConsoleKind, End, MachineSpec};

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
}

/// The interrupt controllers and the lines that lead to them.
struct Interrupts {
    lapics: Arc<Lapics>,
    pic: Arc<Mutex<Pic>>,
    ioapic: Arc<Mutex<IoApic>>,
    /// Each IRQ of the ISA bus: a device's at input 0, pc-testdev's at input 1, the PCI bus's at input 2.
    isa: Vec<Arc<OrGate>>,
}

/// IRQs of the ISA bus.
const ISA_IRQS: u32 = 16;

impl Interrupts {
    fn new(ground: &Ground, model: &Model) -> Self {
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
    fn irq(&self, irq: u32) -> IrqLine {
        self.isa[irq as usize].input(0)
    }

    /// What leads the PCI bus's interrupts to those of the ISA bus.
    fn pirq_router(&self) -> Arc<PirqRouter> {
        PirqRouter::new(self.isa.iter().map(|gate| gate.input(2)).collect())
    }

    /// The I/O APIC's inputs, for the HPET, which has those alone that no other device has.
    fn pins(&self) -> Vec<IrqLine> {
        let pin = |pin| IrqLine::new(ioapic::inputs(&self.ioapic), pin);
        (0..ioapic::PINS as u32).map(pin).collect()
    }

    /// The lines of pc-testdev: the ISA bus's, then those that only the I/O APIC has.
    fn testdev_lines(&self) -> Vec<IrqLine> {
        let beyond = |pin| IrqLine::new(ioapic::inputs(&self.ioapic), pin);
        (0..ioapic::PINS as u32)
            .map(|line| match self.isa.get(line as usize) {
                Some(gate) => gate.input(1),
                None => beyond(line),
            })
            .collect()
    }

    /// What firmware leaves behind: all local APICs on, the PIC's interrupts and NMIs at the first one's pins, the PIC
    /// at the vectors 8 and 0x70 with timer, keyboard, second controller and clock open, the timer at 18.2 Hz.
    fn set_up(&self, ports: &PortSpace, config: &PcConfig) {
        self.lapics.set_virtual_wire();
        set_up_pci(ports, config);
        for (port, words) in [(0x20, [0x11, 0x08, 4, 1, 0xf8]), (0xa0, [0x11, 0x70, 2, 1, 0xfe])] {
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
}

/// What firmware leaves behind on the PCI bus: the interrupts' routes, level-triggered, the place of power management, and
/// the functions set up.
fn set_up_pci(ports: &PortSpace, config: &PcConfig) {
    let mut bus = Mechanism1Access(ports);
    let isa_bridge = (pc::ISA_BRIDGE, 0);
    bus.write(isa_bridge, piix::PIRQ_ROUTES, u32::from_le_bytes(config.pci_irqs));
    let level = config.pci_irqs.iter().chain([&config.sci]).fold(0u16, |set, irq| set | 1 << irq);
    ports.write(0x4d0, Width::Half, level.into());
    bus.write(config.pm_function, piix::PM_BASE, config.pm.into());
    bus.write(config.pm_function, piix::PM_MISC, 1);
    pci_firmware::set_up(config, &mut bus);
}

/// The PCI bus as programs reach it: configuration mechanism #1.
struct Mechanism1Access<'a>(&'a PortSpace);

impl Mechanism1Access<'_> {
    fn select(&self, (device, function): pci_firmware::Function, register: u8) {
        let address = 1 << 31 | u32::from(devfn(device, function)) << 8 | u32::from(register);
        self.0.write(0xcf8, Width::Word, address.into());
    }
}

impl ConfigurationSpace for Mechanism1Access<'_> {
    fn read(&mut self, function: pci_firmware::Function, register: u8) -> u32 {
        self.select(function, register);
        self.0.read(0xcfc, Width::Word) as u32
    }

    fn write(&mut self, function: pci_firmware::Function, register: u8, value: u32) {
        self.select(function, register);
        self.0.write(0xcfc, Width::Word, value.into());
    }
}

/// What the board's port space takes: name, first port, number of ports, device, its offset at the first port.
type PortRow = (&'static str, u16, u64, SharedDevice, u64);

/// Where the second serial port leads to.
struct Discarded;

impl SerialOutput for Discarded {
    fn write(&mut self, _bytes: &[u8]) {}
}

/// Makes the board's devices and places them.
pub(super) fn wire(
    ground: &Ground,
    space: &Arc<AddressSpace>,
    (model, memory, start): (&Model, u64, Start),
    spec: &MachineSpec,
    made: &mut Made,
) -> Result<Wired, MachineError> {
    let Ground { clock, timers, signals, control, output, .. } = ground;
    let interrupts = Interrupts::new(ground, model);
    let power: Arc<dyn PowerSink> = Arc::<Control>::clone(control);

    let [(uart, input), (second_uart, _)] = pc::UARTS.map(|serial| {
        let first = serial == pc::UARTS[0];
        let output: Box<dyn SerialOutput> =
            if first { Box::new(output.clone()) } else { Box::new(Discarded) };
        Uart16550::new(
            uart16550::Config { clock_hz: pc::UART_CLOCK, ..uart16550::Config::default() },
            clock.clone(),
            timers,
            interrupts.irq(serial.irq.into()),
            output,
        )
    });
    made.consoles.push((ConsoleKind::Uart, input));
    let legacy = LegacyRoute::new(interrupts.irq(0), interrupts.irq(8));
    let replaced = |input| IrqLine::new(Arc::<LegacyRoute>::clone(&legacy), input);
    let pit = Pit::new(clock.clone(), timers, replaced(0));
    let rtc = Rtc::new(clock.clone(), timers, replaced(1), ground.wall_base);
    let hpet = Hpet::new(
        clock.clone(),
        timers,
        hpet::Wiring {
            legacy: Arc::clone(&legacy),
            pins: interrupts.pins(),
            routes: pc::HPET_ROUTES,
            messages: interrupts.lapics.clone(),
        },
    );
    let pm = Pm::new(clock.clone(), timers, interrupts.irq(pc::SCI), Arc::clone(&power), true);
    // A20 is always open: nothing that runs here needs addresses to wrap at 1 MiB.
    let a20 = OrGate::new(IrqLine::unconnected());
    let i8042 = I8042::new(interrupts.irq(1), interrupts.irq(12), a20.input(0), Arc::clone(&power));
    let port_92 = Arc::new(Mutex::new(Port92::new(a20.input(1), Arc::clone(&power))));
    let testdev = Arc::new(Mutex::new(PcTestdev::new(interrupts.testdev_lines())));
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
    let fw_cfg = Arc::new(Mutex::new(FwCfg::new(
        Arc::clone(&ground.memory),
        fw_cfg::Layout::Ports,
        items(signals.len() as u16, memory)?,
    )));

    let ports = Arc::new(PortSpace::new());
    let pci = PciBus::new(Arc::clone(space), IoPorts::Ports(Arc::clone(&ports)));
    let pci = Arc::new(Mutex::new(pci));
    {
        let mut bus = lock(&pci);
        let router = interrupts.pirq_router();
        let (host, isa) = (HostBridge::new(), IsaBridge::new(Arc::clone(&router)));
        bus.insert(devfn(pc::HOST_BRIDGE, 0), Arc::new(Mutex::new(host)));
        bus.insert(devfn(pc::ISA_BRIDGE, 0), Arc::new(Mutex::new(isa)));
        let function = PmFunction::new(Arc::clone(&pm));
        bus.insert(devfn(pc::ISA_BRIDGE, pc::PM_FUNCTION), Arc::new(Mutex::new(function)));
        // INTA# of the devices, each at its line of the bus.
        let lines: Vec<_> = (0..piix::LINES as u32)
            .map(|line| OrGate::new(IrqLine::new(Arc::<PirqRouter>::clone(&router), line)))
            .collect();
        let mut insert = |device: u8, virtio: Box<dyn VirtioDevice>| {
            let line = lines[usize::from(PcConfig::pci_line(device, 0))].input(device.into());
            let messages = interrupts.lapics.clone();
            let memory = Arc::clone(&ground.memory);
            bus.insert(devfn(device, 0), VirtioPci::new(virtio, memory, line, Some(messages)));
        };
        insert(pc::ENTROPY, ground.entropy_device());
        insert(pc::CONSOLE, ground.console(made));
        for (device, disk) in pc::DISKS.zip(&spec.disks) {
            insert(device, ground.block(disk, made));
        }
    }
    let mechanism1 = Arc::new(Mutex::new(Mechanism1::new(pci, power)));
    let rows: [PortRow; 22] = [
        ("pic", 0x20, 2, interrupts.pic.clone(), pic::FIRST),
        ("pit", 0x40, 4, pit.clone(), pit::COUNTERS),
        ("i8042", 0x60, 1, i8042.clone(), i8042::DATA),
        ("pit", 0x61, 1, pit, pit::PORT_61),
        ("i8042", 0x64, 1, i8042, i8042::COMMAND),
        ("rtc", 0x70, 2, rtc, rtc::INDEX),
        ("post-port", 0x80, 1, post(0x80), 0),
        ("port-92", 0x92, 1, port_92, 0),
        ("pic", 0xa0, 2, interrupts.pic.clone(), pic::SECOND),
        ("pm", 0xb2, 2, pm, pm::APM),
        // The debug console lies in the midst of it.
        ("pc-testdev", 0xe0, 9, testdev.clone(), pc_testdev::REGISTER),
        ("debug-console", 0xe9, 1, console(), 0),
        ("pc-testdev", 0xea, 2, testdev.clone(), pc_testdev::REGISTER + 10),
        ("isa-debug-exit", pc::DEBUG_EXIT, DebugExit::PORTS, Arc::new(Mutex::new(exit)), 0),
        ("post-port", 0x190, 1, post(0x190), 0),
        ("uart16550", pc::UARTS[1].port, 8, second_uart, 0),
        ("uart16550", pc::UARTS[0].port, 8, uart, 0),
        ("debug-console", 0x402, 1, console(), 0),
        ("pic", 0x4d0, 2, interrupts.pic.clone(), pic::ELCR),
        ("fw_cfg", 0x510, fw_cfg::Layout::Ports.size(), fw_cfg, 0),
        ("pci-config", 0xcf8, mechanism1::PORTS, mechanism1, 0),
        ("pc-testdev", 0x2000, pc_testdev::LINE_PORTS, testdev.clone(), pc_testdev::LINES),
    ];
    let place = || -> Result<(), MapError> {
        for (name, port, count, device, first) in rows {
            ports.map(name, port, count, device, first)?;
        }
        let lapic = Arc::new(Mutex::new(LapicDevice(Arc::clone(&interrupts.lapics))));
        space.map(msi::ADDRESS.into(), msi::SIZE, lapic)?;
        space.map(pc::IOAPIC, ioapic::SIZE, interrupts.ioapic.clone())?;
        space.map(pc::HPET, hpet::SIZE, hpet)?;
        let (first, size) = (pc_testdev::MEMORY, pc_testdev::MEMORY_SIZE);
        space.map_part("pc-testdev", pc::TESTDEV, size, testdev.clone(), first)
    };
    place().map_err(placement)?;
    let (lapics, ioapic) = (Arc::clone(&interrupts.lapics), Arc::clone(&interrupts.ioapic));
    control.set_unmaskable(move || {
        lapics.has_unmaskable()
            || ioapic.lock().unwrap_or_else(PoisonError::into_inner).has_unmaskable()
    });
    if start != Start::Reset {
        interrupts.set_up(&ports, &pc::config(signals.len()));
    }
    let side = |(cpu, signals): (usize, &Arc<_>)| {
        let lapics = Arc::clone(&interrupts.lapics);
        PcSide::new(cpu, lapics, Arc::clone(&ports), clock.clone(), Arc::clone(signals))
    };
    let sides = signals.iter().enumerate().map(side).collect();
    Ok(Wired { sides, ports })
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
