//! Configuration mechanism #1: an address port and a data port, and between them the reset control register of PIIX3.
//!
//! Source: PCI Local Bus Specification 3.0, section 3.2.2.3.2; Intel, "82371FB (PIIX) and 82371SB (PIIX3) PCI
//! ISA IDE Xcelerator", order number 290550-002, section 2.5.5 (RC).

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::bus::{BusState, PciBus};
use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check, lock};
use crate::power::{PowerEvent, PowerSink};

/// Ports that the device takes, from 0xcf8 on.
pub const PORTS: u64 = 8;
const ADDRESS: u64 = 0;
const RESET: u64 = 1;
const DATA: u64 = 4;

/// Address: the configuration space is meant; bits that are kept.
const ENABLE: u32 = 1 << 31;
const ADDRESS_BITS: u32 = 0x80ff_fffc;
/// Reset control: reset the processor when it is set; a hard reset is meant. Bits that are kept.
const RESET_CPU: u8 = 1 << 2;
const RESET_BITS: u8 = 0x02;

const VERSION: u32 = 1;

/// The two ports. It saves and restores the bus behind them.
pub struct Mechanism1 {
    // What the board attached.
    bus: Arc<Mutex<PciBus>>,
    power: Arc<dyn PowerSink>,

    // What the guest can tell.
    address: u32,
    reset_control: u8,
}

#[derive(Serialize, Deserialize)]
struct State {
    address: u32,
    reset_control: u8,
    bus: BusState,
}

impl Mechanism1 {
    /// The ports of `bus`; resets go to `power`.
    #[must_use]
    pub fn new(bus: Arc<Mutex<PciBus>>, power: Arc<dyn PowerSink>) -> Self {
        Mechanism1 { bus, power, address: 0, reset_control: 0 }
    }

    /// Function and register that the data port means at `offset`; `None`: the bus is not asked, or is not there.
    fn target(&self, offset: u64) -> Option<(u8, u8)> {
        let bus = self.address >> 16 & 0xff;
        let register = self.address as u8 & 0xfc | (offset - DATA) as u8;
        (self.address & ENABLE != 0 && bus == 0).then_some(((self.address >> 8) as u8, register))
    }
}

/// Refuses what crosses the data port's end.
fn check_data(offset: u64, width: Width) -> Result<(), BusError> {
    if width.is_aligned(offset) && width != Width::Double { Ok(()) } else { Err(BusError::Width) }
}

impl Device for Mechanism1 {
    fn name(&self) -> &'static str {
        "pci-config"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        match (offset, width) {
            (ADDRESS, Width::Word) => Ok(self.address.into()),
            (RESET, Width::Byte) => Ok(self.reset_control.into()),
            (DATA.., _) => {
                check_data(offset, width)?;
                let read = |(number, register)| lock(&self.bus).read(number, register, width);
                Ok(self.target(offset).map_or(width.mask(), |target| read(target).into()))
            }
            _ => Err(BusError::Refused),
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        match (offset, width) {
            (ADDRESS, Width::Word) => self.address = value as u32 & ADDRESS_BITS,
            (RESET, Width::Byte) => {
                self.reset_control = value as u8 & RESET_BITS;
                if value as u8 & RESET_CPU != 0 {
                    self.power.power(PowerEvent::Reset);
                }
            }
            (DATA.., _) => {
                check_data(offset, width)?;
                if let Some((number, register)) = self.target(offset) {
                    lock(&self.bus).write(number, register, width, value as u32);
                }
            }
            // Other accesses to the address go to the ISA bus, where nothing is.
            _ => {}
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.address = 0;
        self.reset_control = 0;
        lock(&self.bus).reset();
    }

    fn save(&self) -> SavedDevice {
        let Self { bus, power: _, address, reset_control } = self;
        let (address, reset_control) = (*address, *reset_control);
        let state = State { address, reset_control, bus: lock(bus).save() };
        SavedDevice::encode(VERSION, &state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let State { address, reset_control, bus } = saved.decode(VERSION)?;
        check(address & !ADDRESS_BITS == 0, "PCI configuration address")?;
        check(reset_control & !RESET_BITS == 0, "reset control")?;
        lock(&self.bus).restore(&bus)?;
        self.address = address;
        self.reset_control = reset_control;
        Ok(())
    }
}
