//! QEMU's pc-testdev, which kvm-unit-tests use: a register with access by every width, interrupt
//! lines at the guest's command, and memory that is a device.
//!
//! Source: QEMU, hw/misc/pc-testdev.c.

use serde::{Deserialize, Serialize};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check};
use crate::irq::IrqLine;

/// Offset of the ports 0xe0 to 0xeb: the register at 0 and 8, flushing of a page at 4.
pub const REGISTER: u64 = 0;
/// Ports there.
pub const REGISTER_PORTS: u64 = 12;
/// Offset of the ports 0x2000 to 0x2017: a byte written is the level of that interrupt.
pub const LINES: u64 = 0x2000;
/// Ports there.
pub const LINE_PORTS: u64 = 24;
/// Offset of the memory, at address 0xff000000.
pub const MEMORY: u64 = 0x1_0000;
/// Bytes of the memory.
pub const MEMORY_SIZE: u64 = 0x1_0000;

const FLUSH: u64 = 4;
const LINES_END: u64 = LINES + LINE_PORTS;
const MEMORY_END: u64 = MEMORY + MEMORY_SIZE;

const VERSION: u32 = 1;

/// The device.
pub struct PcTestdev {
    // What the board attached.
    lines: Vec<IrqLine>,

    // What the guest can tell.
    state: TestdevState,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct TestdevState {
    register: u32,
    levels: Vec<bool>,
    memory: Vec<u8>,
}

impl TestdevState {
    fn new(lines: usize) -> Self {
        Self { register: 0, levels: vec![false; lines], memory: vec![0; MEMORY_SIZE as usize] }
    }
}

impl PcTestdev {
    /// A device that drives `lines`, in the order of their numbers.
    pub fn new(lines: Vec<IrqLine>) -> Self {
        let state = TestdevState::new(lines.len());
        Self { lines, state }
    }

    fn drive(&self) {
        for (line, &level) in self.lines.iter().zip(&self.state.levels) {
            line.set(level);
        }
    }

    /// Where an access lies in the register: its shift and mask.
    fn register_part(offset: u64, width: Width) -> Result<(u64, u32), BusError> {
        let byte = offset % 4;
        if byte + width.bytes() > 4 {
            return Err(BusError::Width);
        }
        Ok((8 * byte, (width.mask() << (8 * byte)) as u32))
    }

    fn memory_part(&mut self, offset: u64, width: Width) -> Result<&mut [u8], BusError> {
        let start = (offset - MEMORY) as usize;
        let end = start + width.bytes() as usize;
        self.state.memory.get_mut(start..end).ok_or(BusError::Width)
    }
}

impl Device for PcTestdev {
    fn name(&self) -> &'static str {
        "pc-testdev"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        match offset {
            0..FLUSH | 8..REGISTER_PORTS => {
                let (shift, mask) = Self::register_part(offset, width)?;
                Ok(u64::from(self.state.register & mask) >> shift)
            }
            MEMORY..MEMORY_END => {
                let mut bytes = [0; 8];
                let part = self.memory_part(offset, width)?;
                bytes[..part.len()].copy_from_slice(part);
                Ok(u64::from_le_bytes(bytes))
            }
            _ => Err(BusError::Refused), // write-only
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        match offset {
            0..FLUSH | 8..REGISTER_PORTS => {
                let (shift, mask) = Self::register_part(offset, width)?;
                self.state.register = self.state.register & !mask | (value << shift) as u32 & mask;
            }
            // The page is made inaccessible to the host and accessible again, for hypervisors whose
            // tables that must reach; a guest sees nothing of it.
            FLUSH..8 => {}
            LINES..LINES_END => {
                if width != Width::Byte {
                    return Err(BusError::Width);
                }
                if let Some(level) = self.state.levels.get_mut((offset - LINES) as usize) {
                    *level = value != 0;
                }
                self.drive();
            }
            MEMORY..MEMORY_END => {
                let part = self.memory_part(offset, width)?;
                part.copy_from_slice(&value.to_le_bytes()[..part.len()]);
            }
            _ => return Err(BusError::Refused),
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.state = TestdevState::new(self.lines.len());
        self.drive();
    }

    fn save(&self) -> SavedDevice {
        let Self { lines: _, state } = self;
        SavedDevice::encode(VERSION, state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: TestdevState = saved.decode(VERSION)?;
        check(state.levels.len() == self.lines.len(), "number of lines")?;
        check(state.memory.len() as u64 == MEMORY_SIZE, "size of the memory")?;
        self.state = state;
        self.drive();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn testdev() -> (PcTestdev, Vec<IrqLine>) {
        let lines: Vec<IrqLine> = (0..24).map(|_| IrqLine::unconnected()).collect();
        (PcTestdev::new(lines.clone()), lines)
    }

    #[test]
    fn the_register_by_every_width() {
        let (mut dev, _) = testdev();
        dev.write(0, Width::Word, 0x1234_5678).unwrap();
        dev.write(1, Width::Byte, 0xab).unwrap();
        dev.write(10, Width::Half, 0xbeef).unwrap();
        assert_eq!(dev.read(8, Width::Word), Ok(0xbeef_ab78));
        assert_eq!(dev.read(3, Width::Byte), Ok(0xbe));
        assert_eq!(dev.read(1, Width::Half), Ok(0xefab));
        assert_eq!(dev.read(3, Width::Half), Err(BusError::Width));
        assert_eq!(dev.write(4, Width::Word, 0x1000), Ok(()));
    }

    #[test]
    fn lines_follow_the_bytes_written() {
        let (mut dev, lines) = testdev();
        dev.write(LINES + 0x0e, Width::Byte, 1).unwrap();
        dev.write(LINES + 0x17, Width::Byte, 0x80).unwrap();
        let high = |lines: &[IrqLine]| -> Vec<usize> {
            (0..24).filter(|&index| lines[index].level()).collect()
        };
        assert_eq!(high(&lines), [0x0e, 0x17]);
        dev.write(LINES + 0x0e, Width::Byte, 0).unwrap();
        assert_eq!(high(&lines), [0x17]);
        let saved = dev.save();
        dev.reset();
        assert_eq!(high(&lines), []);
        dev.restore(&saved).unwrap();
        assert_eq!(high(&lines), [0x17]);
        let mut short = PcTestdev::new(Vec::new());
        assert_eq!(short.restore(&saved), Err(RestoreError::Invalid("number of lines")));
        assert_eq!(short.write(LINES, Width::Byte, 1), Ok(()));
    }

    #[test]
    fn memory_that_is_a_device() {
        let (mut dev, _) = testdev();
        dev.write(MEMORY + 5, Width::Double, 0x1122_3344_5566_7788).unwrap();
        assert_eq!(dev.read(MEMORY + 8, Width::Word), Ok(0x2233_4455));
        assert_eq!(dev.read(MEMORY + 0xffff, Width::Byte), Ok(0));
        assert_eq!(dev.read(MEMORY + 0xffff, Width::Half), Err(BusError::Width));
    }
}
