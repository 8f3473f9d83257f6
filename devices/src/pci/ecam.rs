//! The configuration space as memory (ECAM): 4 KiB for each function.
//!
//! Source: PCI Express Base Specification 3.0, section 7.2.2. The functions here are those of a conventional bus:
//! the registers from 256 on read as 0, which ends the list of extended capabilities.

use std::sync::{Arc, Mutex};

use super::bus::{BusState, PciBus};
use super::config;
use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, lock};

/// Bytes of the space of one bus.
pub const BUS_SIZE: u64 = 1 << 20;

const VERSION: u32 = 1;

/// The window. It saves and restores the bus behind it.
pub struct Ecam {
    bus: Arc<Mutex<PciBus>>,
}

impl Ecam {
    /// The window of `bus`, which is bus 0; the space of other buses holds nothing.
    #[must_use]
    pub fn new(bus: Arc<Mutex<PciBus>>) -> Self {
        Ecam { bus }
    }
}

/// The function that an offset means on bus 0, and its register.
fn target(offset: u64) -> Option<(u8, u64)> {
    (offset < BUS_SIZE).then_some(((offset >> 12) as u8, offset & 0xfff))
}

fn check_access(offset: u64, width: Width) -> Result<(), BusError> {
    if width.is_aligned(offset) && width != Width::Double { Ok(()) } else { Err(BusError::Width) }
}

impl Device for Ecam {
    fn name(&self) -> &'static str {
        "pci-ecam"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        check_access(offset, width)?;
        let Some((number, register)) = target(offset) else { return Ok(width.mask()) };
        let bus = lock(&self.bus);
        Ok(match u8::try_from(register) {
            Ok(register) => bus.read(number, register, width).into(),
            Err(_) if bus.read(number, 0, Width::Half) == 0xffff => width.mask(),
            Err(_) => 0,
        })
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        check_access(offset, width)?;
        if let Some((number, register)) = target(offset)
            && register < config::SIZE as u64
        {
            lock(&self.bus).write(number, register as u8, width, value as u32);
        }
        Ok(())
    }

    fn reset(&mut self) {
        lock(&self.bus).reset();
    }

    fn save(&self) -> SavedDevice {
        SavedDevice::encode(VERSION, &lock(&self.bus).save())
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: BusState = saved.decode(VERSION)?;
        lock(&self.bus).restore(&state)
    }
}
