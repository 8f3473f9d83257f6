//! The I/O ports of a PC: an [`AddressSpace`] of 64 KiB with the ISA bus's rules.
//!
//! Most devices have 8-bit registers and refuse wider accesses ([`BusError::Width`]); the bus splits
//! those into bytes, lowest port first, as it does where an access reaches beyond a device. A refusal
//! of the width has no effect in the device, so trying is safe. Where nothing answers, all bits are
//! read as 1.

use crate::bus::{AddressSpace, BusError, MapError, SharedDevice, Width};

/// Ports there are.
pub const PORTS: u64 = 0x1_0000;

/// The ports.
#[derive(Debug, Default)]
pub struct PortSpace {
    space: AddressSpace,
}

impl PortSpace {
    /// A space without devices.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `device` answer at `count` ports from `port` on: its offsets from `first` on. Takes no
    /// device's lock.
    pub fn map(
        &self,
        name: &'static str,
        port: u16,
        count: u64,
        device: SharedDevice,
        first: u64,
    ) -> Result<(), MapError> {
        check_range(name, port, count)?;
        self.space.map_part(name, port.into(), count, device, first)
    }

    /// [`PortSpace::map`] for a device behind another bus ([`AddressSpace::map_window`]).
    pub fn map_window(
        &self,
        name: &'static str,
        port: u16,
        count: u64,
        device: SharedDevice,
        first: u64,
    ) -> Result<(), MapError> {
        check_range(name, port, count)?;
        self.space.map_window(name, port.into(), count, device, first)
    }

    /// The devices, and the accesses that met none.
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// IN of 1, 2 or 4 bytes.
    pub fn read(&self, port: u16, width: Width) -> u64 {
        match self.space.read(port.into(), width) {
            Ok(value) => value,
            Err(BusError::Width) if width != Width::Byte => (0..width.bytes())
                .map(|at| {
                    let byte = self.space.read(u64::from(port) + at, Width::Byte);
                    byte.unwrap_or(0xff) << (8 * at)
                })
                .fold(0, |value, byte| value | byte),
            Err(_) => width.mask(),
        }
    }

    /// OUT of the low 1, 2 or 4 bytes of `value`.
    pub fn write(&self, port: u16, width: Width, value: u64) {
        if self.space.write(port.into(), width, value) == Err(BusError::Width)
            && width != Width::Byte
        {
            for at in 0..width.bytes() {
                // What nobody takes is lost; the space counts it.
                let _ = self.space.write(u64::from(port) + at, Width::Byte, value >> (8 * at));
            }
        }
    }
}

fn check_range(name: &'static str, port: u16, count: u64) -> Result<(), MapError> {
    let fits = u64::from(port) + count <= PORTS;
    if fits { Ok(()) } else { Err(MapError::Range { name, base: port.into(), size: count }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Device, RestoreError, SavedDevice, byte_only};
    use std::sync::{Arc, Mutex};

    /// Four 8-bit registers.
    struct Bytes([u8; 4]);

    impl Device for Bytes {
        fn name(&self) -> &'static str {
            "bytes"
        }
        fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
            byte_only(width)?;
            Ok(self.0[offset as usize].into())
        }
        fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
            byte_only(width)?;
            self.0[offset as usize] = value as u8;
            Ok(())
        }
        fn reset(&mut self) {}
        fn save(&self) -> SavedDevice {
            SavedDevice::encode(1, &())
        }
        fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
            saved.decode(1)
        }
    }

    #[test]
    fn wide_accesses_are_split_and_holes_read_as_ones() {
        let ports = PortSpace::new();
        ports.map("bytes", 0x60, 2, Arc::new(Mutex::new(Bytes([1, 2, 3, 4]))), 1).unwrap();
        assert_eq!(ports.read(0x60, Width::Half), 0x0302);
        assert_eq!(ports.read(0x61, Width::Half), 0xff03, "beyond the device");
        assert_eq!(ports.read(0x60, Width::Word), 0xffff_0302);
        assert_eq!(ports.read(0x70, Width::Word), 0xffff_ffff);
        ports.write(0x60, Width::Word, 0x4433_2211);
        assert_eq!(ports.read(0x60, Width::Half), 0x2211);
        assert_eq!(ports.read(0xffff, Width::Half), 0xffff);
        let late = ports.map("late", 0xffff, 2, Arc::new(Mutex::new(Bytes([0; 4]))), 0);
        assert!(matches!(late, Err(MapError::Range { .. })));
    }
}
