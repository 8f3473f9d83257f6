//! PCI: functions with a configuration space, the bus that they are on, and the two ways to that bus.
//!
//! ```text
//! ports 0xcf8, 0xcfc (mechanism1) or a window of memory (ecam)
//!   -> PciBus: by device and function number
//!     -> PciFunction: Config (registers, BARs, capabilities)
//! a BAR that decodes -> AddressSpace, PortSpace -> the same function as a Device
//! ```
//!
//! A function knows neither its number nor where its interrupt pin leads to. Its BARs are windows into the offsets
//! that it has as a [`Device`]; after every write to its configuration space the bus moves the windows to where the
//! function now wants them.
//!
//! Source: PCI Local Bus Specification 3.0; PCI Express Base Specification 3.0 for the memory-mapped configuration
//! space. There is one bus and no bridge to another.

pub mod bus;
pub mod config;
pub mod ecam;
pub mod i440fx;
pub mod mechanism1;
pub mod msix;
pub mod piix;

use crate::bus::{Device, Width};
use config::Config;

/// A space that a window lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Memory.
    Memory,
    /// I/O ports.
    Io,
}

/// Where a function answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The space.
    pub space: Space,
    /// First address in it.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// The function's own offset of the first byte.
    pub first: u64,
}

/// A function on a PCI bus. As a [`Device`] it answers at its windows.
pub trait PciFunction: Device {
    /// Its configuration space.
    fn config(&self) -> &Config;

    /// The same, to be changed.
    fn config_mut(&mut self) -> &mut Config;

    /// Reads `width` bytes at `register` of the configuration space, below 256 and not across a word's end.
    fn read_config(&mut self, register: u8, width: Width) -> u32 {
        self.config().read(register, width)
    }

    /// Writes there.
    fn write_config(&mut self, register: u8, width: Width, value: u32) {
        self.config_mut().write(register, width, value);
    }

    /// Where the function answers now.
    fn windows(&self) -> Vec<Window> {
        self.config().windows()
    }
}

#[cfg(test)]
mod tests;
