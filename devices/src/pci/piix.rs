//! The south bridge: the ISA bridge of PIIX3, which leads the PCI bus's interrupts to IRQs of the ISA bus, and the
//! power management of PIIX4, which says where its registers lie.
//!
//! Source: Intel, "82371FB (PIIX) and 82371SB (PIIX3) PCI ISA IDE Xcelerator", order number 290550-002, section 2.2;
//! "82371AB PCI-TO-ISA / IDE Xcelerator (PIIX4)", order number 290562-001, section 7.

use std::sync::{Arc, Mutex};

use super::config::{BUS_MASTER, Config, DECODE_IO, DECODE_MEMORY, Identity, register};
use super::{PciFunction, Space, Window};
use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, lock};
use crate::irq::{IrqLine, IrqSink};
use crate::pm::{self, Pm};

/// PIRQRCA to PIRQRCD: which IRQ a line of the PCI bus leads to.
pub const PIRQ_ROUTES: u8 = 0x60;
/// They lead nowhere.
const ROUTE_OFF: u8 = 0x80;
/// Lines of the bus.
pub const LINES: usize = 4;
/// IRQs of the ISA bus that such a line may lead to: 3 to 7, 9 to 12, 14, 15.
const ROUTABLE: u16 = 0xdef8;

/// PMBASE, bits 15 to 6 of the first port; bit 0 says that it is a port.
pub const PM_BASE: u8 = 0x40;
/// PMREGMISC: bit 0 opens the ports.
pub const PM_MISC: u8 = 0x80;
/// Device activity B: writes to the APM ports do something.
const DEVACTB: u8 = 0x58;
const APMC_EN: u32 = 1 << 25;

const VERSION: u32 = 1;

/// Leads the PCI bus's lines to IRQs. As an [`IrqSink`] its inputs are INTA# to INTD# of the device 1.
pub struct PirqRouter {
    /// IRQ 0 to 15.
    outputs: Vec<IrqLine>,
    state: Mutex<Routes>,
}

#[derive(Clone, Copy)]
struct Routes {
    levels: [bool; LINES],
    routes: [u8; LINES],
}

impl PirqRouter {
    /// A router that drives these IRQs, from 0 on.
    #[must_use]
    pub fn new(outputs: Vec<IrqLine>) -> Arc<Self> {
        let state = Routes { levels: [false; LINES], routes: [ROUTE_OFF; LINES] };
        Arc::new(PirqRouter { outputs, state: Mutex::new(state) })
    }

    fn drive(&self, state: &Routes) {
        let asserted = state.levels.iter().zip(state.routes).fold(0u16, |set, (level, route)| {
            let leads = *level && route & ROUTE_OFF == 0;
            set | if leads { 1 << (route & 0xf) } else { 0 }
        });
        for (irq, output) in self.outputs.iter().enumerate() {
            output.set(asserted & ROUTABLE & 1 << irq != 0);
        }
    }

    fn set_routes(&self, routes: [u8; LINES]) {
        let mut state = lock(&self.state);
        state.routes = routes;
        self.drive(&state);
    }
}

impl IrqSink for PirqRouter {
    fn set_level(&self, input: u32, level: bool) {
        let mut state = lock(&self.state);
        state.levels[input as usize % LINES] = level;
        self.drive(&state);
    }
}

fn identity(device: u16, revision: u8, class: u32, multifunction: bool, pin: u8) -> Identity {
    Identity { vendor: 0x8086, device, revision, class, subsystem: (0, 0), multifunction, pin }
}

/// The ISA bridge.
pub struct IsaBridge {
    config: Config,
    router: Arc<PirqRouter>,
}

impl IsaBridge {
    /// The bridge after reset.
    #[must_use]
    pub fn new(router: Arc<PirqRouter>) -> Self {
        let mut config = Config::new(identity(0x7000, 0, 0x06_0100, true, 0));
        let always = DECODE_IO | DECODE_MEMORY | BUS_MASTER;
        config.fix(register::COMMAND, &always.to_le_bytes());
        config.allow(register::COMMAND, &[0, 0]);
        config.fix(PIRQ_ROUTES, &[ROUTE_OFF; LINES]);
        config.allow(PIRQ_ROUTES, &[0x8f; LINES]);
        IsaBridge { config, router }
    }

    fn route(&self) {
        let routes = self.config.read(PIRQ_ROUTES, Width::Word);
        self.router.set_routes(routes.to_le_bytes());
    }
}

impl PciFunction for IsaBridge {
    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn write_config(&mut self, register: u8, width: Width, value: u32) {
        self.config.write(register, width, value);
        self.route();
    }
}

impl Device for IsaBridge {
    fn name(&self) -> &'static str {
        "piix3-isa"
    }

    fn read(&mut self, _offset: u64, _width: Width) -> Result<u64, BusError> {
        Err(BusError::Refused)
    }

    fn write(&mut self, _offset: u64, _width: Width, _value: u64) -> Result<(), BusError> {
        Err(BusError::Refused)
    }

    fn reset(&mut self) {
        self.config.reset();
        self.route();
    }

    fn save(&self) -> SavedDevice {
        let Self { config, router: _ } = self;
        SavedDevice::encode(VERSION, &config.save())
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        self.config.restore_whole(saved, VERSION)?;
        self.route();
        Ok(())
    }
}

/// The power management function. The APM ports are the board's to place: they are ISA's, and the registers are saved
/// and reset with them.
pub struct PmFunction {
    config: Config,
    pm: Arc<Mutex<Pm>>,
}

impl PmFunction {
    /// The function after reset: its registers are nowhere.
    #[must_use]
    pub fn new(pm: Arc<Mutex<Pm>>) -> Self {
        let mut config = Config::new(identity(0x7113, 3, 0x06_8000, false, 1));
        config.fix(PM_BASE, &[1]);
        config.allow(PM_BASE, &[0xc0, 0xff]);
        config.allow(PM_MISC, &[1]);
        // There is no SMM: nothing is left for firmware to set up.
        config.fix(DEVACTB, &APMC_EN.to_le_bytes());
        PmFunction { config, pm }
    }
}

impl PciFunction for PmFunction {
    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn windows(&self) -> Vec<Window> {
        let base = u64::from(self.config.read(PM_BASE, Width::Half) & 0xffc0);
        let open = base != 0 && self.config.read(PM_MISC, Width::Byte) & 1 != 0;
        let window =
            Window { space: Space::Io, base, size: pm::REGISTER_PORTS, first: pm::REGISTERS };
        if open { vec![window] } else { Vec::new() }
    }
}

impl Device for PmFunction {
    fn name(&self) -> &'static str {
        "piix4-pm"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        lock(&self.pm).read(offset, width)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        lock(&self.pm).write(offset, width, value)
    }

    fn reset(&mut self) {
        self.config.reset();
    }

    fn save(&self) -> SavedDevice {
        let Self { config, pm: _ } = self;
        SavedDevice::encode(VERSION, &config.save())
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        self.config.restore_whole(saved, VERSION)
    }
}
