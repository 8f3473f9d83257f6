//! QEMU's firmware configuration device: named and numbered items that firmware reads.
//!
//! Source: QEMU, docs/specs/fw_cfg.rst; item numbers from Linux, include/uapi/linux/qemu_fw_cfg.h.

mod items;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use items::{FwCfgItems, ItemError, key};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check};
use crate::memory::GuestMemory;

/// What the DMA register reads as.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";
/// Zeroes past an item's end are written in pieces of this many bytes.
const ZEROES: [u8; 4096] = [0; 4096];

const VERSION: u32 = 1;

bitflags::bitflags! {
    /// `FWCfgDmaAccess.control`, whose upper 16 bits are an item's number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Control: u32 {
        const ERROR = 1;
        const READ = 2;
        const SKIP = 4;
        const SELECT = 8;
        const WRITE = 16;
    }
}

/// Where the registers lie, and the byte order of the selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Data at 0, selector (big-endian) at 8, DMA address at 16.
    Mmio,
    /// Selector (little-endian) at 0, data at 1, DMA address at 4: the PC's ports from 0x510 on.
    Ports,
}

/// What an access meets.
enum Register {
    Data,
    Selector,
    /// Byte of the DMA address register.
    Dma(u64),
}

impl Layout {
    /// Bytes that the device takes on the bus.
    pub const fn size(self) -> u64 {
        match self {
            Layout::Mmio => 0x18,
            Layout::Ports => 0xc,
        }
    }

    fn register(self, offset: u64, width: Width) -> Result<Register, BusError> {
        let dma = match self {
            Layout::Mmio => 0x10,
            Layout::Ports => 4,
        };
        match (self, offset, width) {
            (Layout::Mmio, 0, _) | (Layout::Ports, 1, Width::Byte) => Ok(Register::Data),
            (Layout::Mmio, 8, Width::Half) | (Layout::Ports, 0, Width::Half) => {
                Ok(Register::Selector)
            }
            _ if offset >= dma && offset + width.bytes() <= dma + 8 => {
                Ok(Register::Dma(offset - dma))
            }
            _ => Err(BusError::Width),
        }
    }
}

/// The device.
pub struct FwCfg {
    // What the board attached.
    memory: Arc<GuestMemory>,
    layout: Layout,
    items: FwCfgItems,

    // What the guest can tell.
    state: FwCfgState,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct FwCfgState {
    /// Number of the selected item.
    selected: u16,
    /// Next byte of it; at most its length.
    offset: u32,
    /// Upper half of the DMA address, written before the lower one.
    dma_high: u32,
}

impl FwCfg {
    /// A device that shows `items`; its DMA goes to `memory`.
    pub fn new(memory: Arc<GuestMemory>, layout: Layout, items: FwCfgItems) -> Self {
        Self { memory, layout, items, state: FwCfgState::default() }
    }

    fn select(&mut self, key: u16) {
        self.state.selected = key;
        self.state.offset = 0;
    }

    /// Takes up to `len` bytes from the selected item; fewer at its end.
    fn take(&mut self, len: u32) -> &[u8] {
        let item = self.items.get(self.state.selected);
        let start = self.state.offset as usize;
        // The offset never passes the end, nor is an item longer than 32 bits can say.
        let end = item.len().min(start.saturating_add(len as usize));
        self.state.offset = end as u32;
        item.get(start..end).unwrap_or(&[])
    }

    /// Performs the `FWCfgDmaAccess` at `gpa`: control, length (4 bytes each), address (8 bytes),
    /// all big-endian.
    fn dma(&mut self, gpa: u64) {
        let mut access = [0; 16];
        if self.memory.read_into(gpa, &mut access).is_err() {
            log::debug!(target: "fw_cfg", "no memory for a DMA access at {gpa:#x}");
            return;
        }
        let access = u128::from_be_bytes(access);
        let control = (access >> 96) as u32;
        let (length, address) = ((access >> 64) as u32, access as u64);
        let result = match self.transfer(control, length, address) {
            Ok(()) => Control::empty(),
            Err(DmaError) => Control::ERROR,
        };
        // Where it cannot be written there is nobody to tell.
        let _ = self.memory.store(gpa, result.bits().to_be());
    }

    fn transfer(&mut self, control: u32, length: u32, address: u64) -> Result<(), DmaError> {
        let operation = Control::from_bits_truncate(control);
        if operation.contains(Control::SELECT) {
            self.select((control >> 16) as u16);
        }
        if length == 0 {
            return Ok(());
        }
        if operation.contains(Control::READ) {
            // The whole target is RAM, or nothing is transferred.
            if !self.memory.is_ram(address, length.into()) {
                return Err(DmaError);
            }
            let memory = Arc::clone(&self.memory);
            let bytes = self.take(length);
            memory.write_from(address, bytes).map_err(|_| DmaError)?;
            let end = address + u64::from(length);
            let mut at = address + bytes.len() as u64;
            while at < end {
                let len = (end - at).min(ZEROES.len() as u64);
                memory.write_from(at, &ZEROES[..len as usize]).map_err(|_| DmaError)?;
                at += len;
            }
        } else if operation.contains(Control::WRITE) {
            return Err(DmaError); // no item is writable
        } else if operation.contains(Control::SKIP) {
            self.take(length);
        }
        Ok(())
    }
}

/// The guest learns of it by the error bit.
struct DmaError;

impl Device for FwCfg {
    fn name(&self) -> &'static str {
        "fw_cfg"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        let len = width.bytes() as usize;
        let mut bytes = [0; 8];
        match self.layout.register(offset, width)? {
            // The bytes keep their order in memory, whatever the width.
            Register::Data => {
                let next = self.take(len as u32);
                bytes[..next.len()].copy_from_slice(next);
            }
            Register::Selector => return Err(BusError::Refused), // write-only
            Register::Dma(at) => {
                let at = at as usize;
                bytes[..len].copy_from_slice(&DMA_SIGNATURE[at..at + len]);
            }
        }
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        match (self.layout.register(offset, width)?, width) {
            // Ignored since QEMU 2.4: data is written by DMA alone.
            (Register::Data, _) => {}
            (Register::Selector, _) => {
                let key = value as u16;
                self.select(if self.layout == Layout::Mmio { key.swap_bytes() } else { key });
            }
            // A write that holds the least significant byte starts the operation.
            (Register::Dma(0), Width::Double) => {
                self.state.dma_high = 0;
                self.dma(value.swap_bytes());
            }
            (Register::Dma(0), Width::Word) => self.state.dma_high = (value as u32).swap_bytes(),
            (Register::Dma(4), Width::Word) => {
                let high = std::mem::take(&mut self.state.dma_high);
                self.dma(u64::from(high) << 32 | u64::from((value as u32).swap_bytes()));
            }
            (Register::Dma(_), _) => return Err(BusError::Width),
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.state = FwCfgState::default();
    }

    fn save(&self) -> SavedDevice {
        let Self { memory: _, layout: _, items: _, state } = self;
        SavedDevice::encode(VERSION, state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: FwCfgState = saved.decode(VERSION)?;
        let len = self.items.get(state.selected).len();
        check(state.offset as usize <= len, "fw_cfg offset")?;
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
