//! The devices of the board `pc`.

use std::sync::{Arc, Mutex};

use mimic_cpu::x86::model::Model;
use mimic_devices::bus::{AddressSpace, Width, lock};
use mimic_devices::debug_ports::Port92;
use mimic_devices::hpet::{self, Hpet, LegacyRoute};
use mimic_devices::i8042::{self, I8042};
use mimic_devices::irq::{IrqLine, OrGate, Splitter};
use mimic_devices::pc_testdev::{self, PcTestdev};
use mimic_devices::pci::bus::{IoPorts, PciBus, devfn};
use mimic_devices::pci::i440fx::HostBridge;
use mimic_devices::pci::mechanism1::{self, Mechanism1};
use mimic_devices::pci::piix::{self, IsaBridge, PirqRouter, PmFunction};
use mimic_devices::pit::{self, Pit};
use mimic_devices::pm::{self, Pm};
use mimic_devices::ports::PortSpace;
use mimic_devices::power::PowerSink;
use mimic_devices::rtc::{self, Rtc};
use mimic_devices::serial::SerialOutput;
use mimic_devices::virtio::VirtioDevice;
use mimic_devices::virtio::pci::VirtioPci;
use mimic_firmware::x86::PcConfig;
use mimic_firmware::x86::pci::{self as pci_firmware, ConfigurationSpace};

use super::x86::{self, Interrupts, PortRow, Wired};
use super::{Ground, Made, placement};
use crate::board::pc;
use crate::machine::MachineError;
use crate::machine::control::Control;
use crate::machine::payload::Start;
use crate::machine::sleep::Firmware;
use crate::machine::spec::{ConsoleKind, MachineSpec};

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

/// Where the second serial port leads to.
struct Discarded;

impl SerialOutput for Discarded {
    fn write(&mut self, _bytes: &[u8]) {}
}

/// Makes the board's devices and places them.
pub(super) fn wire(
    ground: &Ground,
    space: &Arc<AddressSpace>,
    (model, start, rom): (&Model, Start, u64),
    spec: &MachineSpec,
    made: &mut Made,
) -> Result<Wired, MachineError> {
    let Ground { clock, timers, signals, control, output, .. } = ground;
    let interrupts = Interrupts::new(ground, model);
    let power: Arc<dyn PowerSink> = Arc::<Control>::clone(control);

    let [first, second] = pc::UARTS;
    let (uart, input) = x86::uart(ground, &interrupts, first, Box::new(output.clone()));
    let (second_uart, _) = x86::uart(ground, &interrupts, second, Box::new(Discarded));
    made.consoles.push((ConsoleKind::Uart, input));
    let legacy = LegacyRoute::new(interrupts.irq(0), interrupts.irq(8));
    let replaced = |input| IrqLine::new(Arc::<LegacyRoute>::clone(&legacy), input);
    let pit = Pit::new(clock.clone(), timers, replaced(0));
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
    let button = Arc::clone(&pm);
    // A saved clock is restored before power management, which then knows best whether the alarm was seen.
    let alarm = Splitter::line(vec![replaced(1), pm::alarm(&pm)]);
    let rtc = Rtc::new(clock.clone(), timers, alarm, ground.wall_base);
    // A20 is always open: nothing that runs here needs addresses to wrap at 1 MiB.
    let a20 = OrGate::new(IrqLine::unconnected());
    let i8042 = I8042::new(interrupts.irq(1), interrupts.irq(12), a20.input(0), Arc::clone(&power));
    let port_92 = Arc::new(Mutex::new(Port92::new(a20.input(1), Arc::clone(&power))));
    let testdev = Arc::new(Mutex::new(PcTestdev::new(interrupts.testdev_lines())));

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
    let rows: [PortRow; 13] = [
        ("pit", 0x40, 4, pit.clone(), pit::COUNTERS),
        ("i8042", 0x60, 1, i8042.clone(), i8042::DATA),
        ("pit", 0x61, 1, pit, pit::PORT_61),
        ("i8042", 0x64, 1, i8042, i8042::COMMAND),
        ("rtc", 0x70, 2, rtc, rtc::INDEX),
        ("port-92", 0x92, 1, port_92, 0),
        ("pm", 0xb2, 2, pm, pm::APM),
        // The debug console lies in the midst of it.
        ("pc-testdev", 0xe0, 9, testdev.clone(), pc_testdev::REGISTER),
        ("pc-testdev", 0xea, 2, testdev.clone(), pc_testdev::REGISTER + 10),
        ("uart16550", second.port, 8, second_uart, 0),
        ("uart16550", first.port, 8, uart, 0),
        ("pci-config", 0xcf8, mechanism1::PORTS, mechanism1, 0),
        ("pc-testdev", 0x2000, pc_testdev::LINE_PORTS, testdev.clone(), pc_testdev::LINES),
    ];
    let wired = x86::place(ground, &interrupts, rows, (space, Arc::clone(&ports)), spec)?;
    space.map(pc::HPET, hpet::SIZE, hpet).map_err(placement)?;
    let (at, size) = (pc_testdev::MEMORY, pc_testdev::MEMORY_SIZE);
    space.map_part("pc-testdev", pc::TESTDEV, size, testdev, at).map_err(placement)?;
    let cpus = signals.len();
    let set_up = move || {
        // Timer, keyboard, second controller and clock are open.
        interrupts.set_up(&ports, [0xf8, 0xfe]);
        set_up_pci(&ports, &pc::config(cpus));
    };
    if start != Start::Reset {
        set_up();
    }
    let model = model.clone();
    let firmware = Firmware {
        facs: (rom == 0).then(|| pc::tables(cpus, spec.memory).facs),
        tables: pc::WAKE_TABLES,
        set_up: Box::new(set_up),
        power_button: Box::new(move || lock(&button).press_power_button()),
        processors: Box::new(move |start, tsc| x86::processors(&model, cpus, start, tsc)),
    };
    Ok(Wired { firmware: Some(firmware), ..wired })
}
