//! The bus, the two ways to it, and the bridges.

use std::sync::{Arc, Mutex};

use super::bus::{IoPorts, PciBus, devfn};
use super::config::{BarKind, Config, ConfigState, Identity};
use super::ecam::Ecam;
use super::i440fx::HostBridge;
use super::mechanism1::Mechanism1;
use super::piix::{IsaBridge, PIRQ_ROUTES, PM_BASE, PM_MISC, PirqRouter, PmFunction};
use super::{PciFunction, Space};
use crate::bus::{AddressSpace, BusError, Device, RestoreError, SavedDevice, Width, lock};
use crate::clock::{Clock, TimerQueue};
use crate::irq::{IrqLine, IrqSink};
use crate::pm::Pm;
use crate::ports::PortSpace;
use crate::power::PowerEvent;
use crate::power::tests::Events;

/// A function with a BAR of each kind, whose contents are their own offsets.
struct Echo(Config);

impl Echo {
    fn new() -> Self {
        let mut config = Config::new(Identity {
            vendor: 0x1234,
            device: 0x5678,
            revision: 1,
            class: 0xff_0000,
            subsystem: (1, 2),
            multifunction: false,
            pin: 0,
        });
        config.add_bar(0, BarKind::Io, 0x20, 0);
        config.add_bar(1, BarKind::Memory32, 0x1000, 0x1_0000);
        config.add_bar(2, BarKind::Memory64, 1 << 33, 0x2_0000_0000);
        Echo(config)
    }
}

impl PciFunction for Echo {
    fn config(&self) -> &Config {
        &self.0
    }
    fn config_mut(&mut self) -> &mut Config {
        &mut self.0
    }
}

impl Device for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }
    fn read(&mut self, offset: u64, _width: Width) -> Result<u64, BusError> {
        Ok(offset)
    }
    fn write(&mut self, _offset: u64, _width: Width, _value: u64) -> Result<(), BusError> {
        Ok(())
    }
    fn reset(&mut self) {
        self.0.reset();
    }
    fn save(&self) -> SavedDevice {
        SavedDevice::encode(1, &self.0.save())
    }
    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: ConfigState = saved.decode(1)?;
        self.0.check_saved(&state)?;
        self.0.restore(&state);
        Ok(())
    }
}

struct Pc {
    ports: Arc<PortSpace>,
    space: Arc<AddressSpace>,
    events: Arc<Events>,
    irqs: Vec<IrqLine>,
    router: Arc<PirqRouter>,
}

/// Host bridge, ISA bridge, power management and an echo at device 5, behind the ports of a PC.
fn pc() -> Pc {
    let (ports, space) = (Arc::new(PortSpace::new()), Arc::new(AddressSpace::new()));
    let events = Arc::<Events>::default();
    let irqs: Vec<_> = (0..16).map(|_| IrqLine::unconnected()).collect();
    let router = PirqRouter::new(irqs.clone());
    let (clock, timers) = (Clock::deterministic(), TimerQueue::new());
    let pm = Pm::new(clock, &timers, IrqLine::unconnected(), events.clone(), true);
    let mut bus = PciBus::new(space.clone(), IoPorts::Ports(ports.clone()));
    bus.insert(devfn(0, 0), Arc::new(Mutex::new(HostBridge::new())));
    bus.insert(devfn(1, 0), Arc::new(Mutex::new(IsaBridge::new(router.clone()))));
    bus.insert(devfn(1, 3), Arc::new(Mutex::new(PmFunction::new(pm))));
    bus.insert(devfn(5, 0), Arc::new(Mutex::new(Echo::new())));
    let mechanism = Mechanism1::new(Arc::new(Mutex::new(bus)), events.clone());
    ports.map("pci-config", 0xcf8, 8, Arc::new(Mutex::new(mechanism)), 0).unwrap();
    Pc { ports, space, events, irqs, router }
}

impl Pc {
    fn select(&self, number: u8, register: u8) {
        let address = 1 << 31 | u64::from(number) << 8 | u64::from(register & !3);
        self.ports.write(0xcf8, Width::Word, address);
    }

    fn read(&self, number: u8, register: u8, width: Width) -> u64 {
        self.select(number, register);
        self.ports.read(0xcfc + u16::from(register & 3), width)
    }

    fn write(&self, number: u8, register: u8, width: Width, value: u64) {
        self.select(number, register);
        self.ports.write(0xcfc + u16::from(register & 3), width, value);
    }
}

#[test]
fn the_ports_are_found_and_lead_to_the_bridges() {
    let pc = pc();
    // What Linux does to find mechanism #1 (arch/x86/pci/direct.c).
    pc.ports.write(0xcfb, Width::Byte, 1);
    pc.ports.write(0xcf8, Width::Word, 0x8000_0000);
    assert_eq!(pc.ports.read(0xcf8, Width::Word), 0x8000_0000);
    assert_eq!(pc.read(devfn(0, 0), 0, Width::Word), 0x1237_8086);
    assert_eq!(pc.read(devfn(1, 0), 0, Width::Word), 0x7000_8086);
    assert_eq!(pc.read(devfn(1, 0), 0x0e, Width::Byte), 0x80, "it has more functions");
    assert_eq!(pc.read(devfn(1, 3), 2, Width::Half), 0x7113);
    // boards.md: SeaBIOS does not set up SMM if APMC_EN is set.
    assert_eq!(pc.read(devfn(1, 3), 0x58, Width::Word) >> 25 & 1, 1);
    assert_eq!(pc.read(devfn(2, 0), 0, Width::Word), 0xffff_ffff, "nothing there");
    pc.ports.write(0xcf8, Width::Word, 0x8001_0000);
    assert_eq!(pc.ports.read(0xcfc, Width::Half), 0xffff, "no bus 1");
    pc.ports.write(0xcf8, Width::Word, 0);
    assert_eq!(pc.ports.read(0xcfc, Width::Word), 0xffff_ffff, "not enabled");
    // PAM registers can be written.
    pc.write(devfn(0, 0), 0x59, Width::Byte, 0xff);
    assert_eq!(pc.read(devfn(0, 0), 0x59, Width::Byte), 0x30);
}

#[test]
fn bars_of_every_kind_tell_their_size_and_open() {
    let pc = pc();
    let number = devfn(5, 0);
    for register in [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30] {
        pc.write(number, register, Width::Word, 0xffff_ffff);
    }
    let bars = [0x10, 0x14, 0x18, 0x1c, 0x20].map(|bar| pc.read(number, bar, Width::Word));
    assert_eq!(bars, [0xffff_ffe1, 0xffff_f000, 0xc, 0xffff_fffe, 0]);
    for (register, value) in [(0x10, 0xc041), (0x14, 0xc000_0000), (0x18, 0), (0x1c, 0x12)] {
        pc.write(number, register, Width::Word, value);
    }
    assert_eq!(pc.ports.read(0xc044, Width::Word), 0xffff_ffff, "not decoded yet");
    pc.write(number, 4, Width::Half, 3);
    assert_eq!(pc.ports.read(0xc044, Width::Word), 4);
    assert_eq!(pc.space.read(0xc000_0008, Width::Word), Ok(0x1_0008));
    assert_eq!(pc.space.read(0x12_0000_0010, Width::Double), Ok(0x2_0000_0010));
    // On top of the configuration ports, which keep answering.
    pc.write(number, 0x10, Width::Word, 0xce1);
    assert_eq!(pc.read(number, 0, Width::Word), 0x5678_1234);
    pc.write(number, 4, Width::Half, 0);
    assert_eq!(pc.space.read(0xc000_0008, Width::Word), Err(BusError::Unmapped));
}

#[test]
fn the_isa_bridge_routes_interrupts() {
    let pc = pc();
    pc.router.set_level(1, true);
    assert!(pc.irqs.iter().all(|irq| !irq.level()), "routes are off after reset");
    pc.write(devfn(1, 0), PIRQ_ROUTES, Width::Word, 0x0b0b_0a0a);
    assert!(pc.irqs[10].level());
    pc.write(devfn(1, 0), PIRQ_ROUTES + 1, Width::Byte, 11);
    assert!(pc.irqs[11].level() && !pc.irqs[10].level());
    pc.router.set_level(2, true);
    pc.router.set_level(1, false);
    assert!(pc.irqs[11].level(), "two lines share it");
    pc.router.set_level(2, false);
    assert!(!pc.irqs[11].level());
    // IRQ 0 to 2, 8 and 13 are not to be had.
    pc.router.set_level(0, true);
    for irq in [0, 1, 2, 8, 13] {
        pc.write(devfn(1, 0), PIRQ_ROUTES, Width::Byte, irq);
        assert!(pc.irqs.iter().all(|irq| !irq.level()), "{irq}");
    }
}

#[test]
fn power_management_lies_where_firmware_puts_it() {
    let pc = pc();
    assert_eq!(pc.ports.read(0x604, Width::Half), 0xffff);
    pc.write(devfn(1, 3), PM_BASE, Width::Word, 0x601);
    assert_eq!(pc.read(devfn(1, 3), PM_BASE, Width::Word), 0x601);
    pc.write(devfn(1, 3), PM_MISC, Width::Byte, 1);
    assert_eq!(pc.ports.read(0x604, Width::Half), 1, "SCI_EN");
    pc.ports.write(0x604, Width::Half, 0x2001);
    assert_eq!(pc.events.take(), [PowerEvent::PowerOff]);
    pc.write(devfn(1, 3), PM_BASE, Width::Word, 0xb001);
    assert_eq!(
        (pc.ports.read(0x604, Width::Half), pc.ports.read(0xb004, Width::Half)),
        (0xffff, 1)
    );
}

#[test]
fn reset_control_resets() {
    let pc = pc();
    pc.ports.write(0xcf9, Width::Byte, 2);
    assert_eq!((pc.events.take(), pc.ports.read(0xcf9, Width::Byte)), (vec![], 2));
    pc.ports.write(0xcf9, Width::Byte, 6);
    assert_eq!(pc.events.take(), [PowerEvent::Reset]);
}

#[test]
fn a_restored_bus_has_its_windows_and_routes() {
    let (first, second) = (pc(), pc());
    let number = devfn(5, 0);
    first.write(number, 0x14, Width::Word, 0xc000_0000);
    first.write(number, 4, Width::Half, 2);
    first.write(devfn(1, 0), PIRQ_ROUTES, Width::Byte, 5);
    second.write(number, 0x14, Width::Word, 0xd000_0000);
    second.write(number, 4, Width::Half, 2);
    let ways = |pc: &Pc| pc.ports.space().devices()[0].2.clone();
    let saved = lock(&ways(&first)).save();
    lock(&ways(&second)).restore(&saved).unwrap();
    assert_eq!(second.space.read(0xc000_0000, Width::Word), Ok(0x1_0000));
    assert_eq!(second.space.read(0xd000_0000, Width::Word), Err(BusError::Unmapped));
    second.router.set_level(0, true);
    assert!(second.irqs[5].level());
    assert_eq!(lock(&ways(&second)).save(), saved);
    lock(&ways(&second)).reset();
    assert!(!second.irqs[5].level());
    assert_eq!(second.space.read(0xc000_0000, Width::Word), Err(BusError::Unmapped));
}

#[test]
fn memory_mapped_configuration_has_a_page_for_each_function() {
    let space = Arc::new(AddressSpace::new());
    let ports = IoPorts::Memory { base: 0x300_0000, count: 0x1_0000 };
    let mut bus = PciBus::new(space.clone(), ports);
    bus.insert(devfn(3, 0), Arc::new(Mutex::new(Echo::new())));
    let mut ecam = Ecam::new(Arc::new(Mutex::new(bus)));
    let here = 3 << 15;
    assert_eq!(ecam.read(here, Width::Word), Ok(0x5678_1234));
    assert_eq!(ecam.read(here + 2, Width::Half), Ok(0x5678));
    assert_eq!(ecam.read(here + 0x100, Width::Word), Ok(0), "no extended capabilities");
    assert_eq!(ecam.read(0, Width::Word), Ok(0xffff_ffff));
    assert_eq!(ecam.read(0x100, Width::Word), Ok(0xffff_ffff));
    assert_eq!(ecam.read((1 << 20) | here, Width::Word), Ok(0xffff_ffff), "bus 1");
    assert_eq!(ecam.read(here + 1, Width::Half), Err(BusError::Width));
    ecam.write(here + 0x10, Width::Word, 0x100).unwrap();
    ecam.write(here + 4, Width::Half, 1).unwrap();
    assert_eq!(space.read(0x300_0104, Width::Word), Ok(4));
    ecam.write(here + 0x10, Width::Word, 0x1_0000).unwrap();
    assert_eq!(space.read(0x301_0000, Width::Word), Err(BusError::Unmapped), "beyond the window");
}

#[test]
fn a_saved_space_of_another_function_is_refused() {
    let mut echo = Echo::new();
    let host = HostBridge::new();
    assert_eq!(
        echo.0.check_saved(&host.config().save()),
        Err(RestoreError::Invalid("configuration space"))
    );
    echo.write_config(0, Width::Word, 0);
    assert_eq!(echo.read_config(0, Width::Word), 0x5678_1234);
    echo.write_config(4, Width::Half, 0xffff);
    assert_eq!(echo.read_config(4, Width::Half), 0x0507);
    assert_eq!(echo.windows().len(), 0, "no BAR has an address");
    echo.write_config(0x14, Width::Byte, 0xff);
    echo.write_config(0x15, Width::Byte, 0x10);
    let window = echo.windows()[0];
    assert_eq!((window.space, window.base, window.size), (Space::Memory, 0x1000, 0x1000));
}
