//! A bank of parallel NOR flash: two 16-bit chips side by side with Intel's command set.
//!
//! The bank's bytes are a ROM region of [`GuestMemory`]. While the chips show their array, CPUs
//! read and execute the region as any other memory and only stores come here; in every other mode
//! the region is hidden from CPUs, so that loads come here too.
//!
//! ```text
//! store -> command -> mode -> array: region visible | else: region hidden, loads read
//!                  |                                  status, identifier or query table
//!                  -> program, erase -> file (first, it may fail) -> region
//! ```
//!
//! Source: JEDEC JESD68.01 (query) and Intel "3 Volt StrataFlash Memory" 28F128J3 (commands),
//! sections "Command Definitions" and "Status Register"; geometry and reactions to unusual orders
//! as of QEMU's pflash_cfi01. Both chips always get the same command, of which the low byte counts.
//! Operations take no time. Programming only clears bits, as in hardware.

mod cfi;
mod file;
mod state;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use file::FlashFile;
use state::{Block, FlashState, Mode};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check};
use crate::memory::{GuestMemory, Region, RegionKind};

/// Bytes in an erase block of the bank (128 KiB in each chip).
pub const SECTOR: u64 = 0x4_0000;
/// Chips side by side, each 2 bytes wide.
const CHIPS: u64 = 2;
/// Bytes of the bank's write buffer.
const BUFFER: u64 = 0x1000;

const READ_ARRAY: u8 = 0xff;
const READ_IDENTIFIER: u8 = 0x90;
const READ_QUERY: u8 = 0x98;
const READ_STATUS: u8 = 0x70;
const CLEAR_STATUS: u8 = 0x50;
const PROGRAM: u8 = 0x40;
const PROGRAM_ALTERNATE: u8 = 0x10;
const WRITE_TO_BUFFER: u8 = 0xe8;
const ERASE: u8 = 0x20;
const LOCK_SETUP: u8 = 0x60;
const CONFIRM: u8 = 0xd0;
const LOCK: u8 = 0x01;
const LOCK_DOWN: u8 = 0x2f;

const READY: u8 = 0x80;
const ERASE_ERROR: u8 = 0x20;
const PROGRAM_ERROR: u8 = 0x10;
const SEQUENCE_ERROR: u8 = ERASE_ERROR | PROGRAM_ERROR;

const VERSION: u32 = 1;

/// Why a bank could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    /// The board's memory map is at fault.
    #[error("no ROM region for flash at {0:#x}, of 512 KiB to 16 GiB and a power of two")]
    Region(u64),
    /// A file must have exactly the bank's size, other contents at most.
    #[error("{what} has {found} bytes, but the flash bank has {bank}")]
    Size {
        /// The file, or what the contents are.
        what: String,
        /// Its size in bytes.
        found: u64,
        /// The bank's size in bytes.
        bank: u64,
    },
    /// Another program has the file locked.
    #[error("{} is in use by another program", .0.display())]
    InUse(PathBuf),
    /// The host refused.
    #[error("cannot use {} as flash: {source}", path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

/// What a bank holds at first, and what becomes of changes. Contents shorter than the bank are
/// followed by erased bytes (0xff).
#[derive(Debug)]
pub enum FlashContents<'a> {
    /// Write-protected: every program and erase fails.
    ReadOnly(&'a [u8]),
    /// Changes last as long as the machine.
    Volatile(&'a [u8]),
    /// Changes go to the file at once.
    File(FlashFile),
}

/// One bank.
pub struct PFlash {
    // What the board attached.
    memory: Arc<GuestMemory>,
    base: u64,
    size: u64,
    backing: Backing,

    // What the guest can tell, besides the region's bytes.
    state: FlashState,
}

enum Backing {
    Protected,
    Volatile,
    File {
        file: FlashFile,
        /// The file may differ from the region: a state was restored, or a write failed midway.
        /// Repaired by the next write.
        stale: bool,
    },
}

/// The file could not be written; the guest sees an error bit.
struct WriteFailed;

impl PFlash {
    /// Fills the ROM region that begins at `base` with `contents` and makes the bank's device,
    /// which the board maps over the region.
    pub fn new(
        memory: Arc<GuestMemory>,
        base: u64,
        contents: FlashContents<'_>,
    ) -> Result<Self, FlashError> {
        let size = memory
            .regions()
            .iter()
            .find(|region| region.base() == base && region.kind() == RegionKind::Rom)
            .map(Region::size)
            .filter(|size| size.is_power_of_two() && (2 * SECTOR..=SECTOR << 16).contains(size))
            .ok_or(FlashError::Region(base))?;
        let mut bank =
            Self { memory, base, size, backing: Backing::Protected, state: FlashState::RESET };
        match contents {
            FlashContents::ReadOnly(image) => bank.load_image(image)?,
            FlashContents::Volatile(image) => {
                bank.load_image(image)?;
                bank.backing = Backing::Volatile;
            }
            FlashContents::File(file) => {
                bank.load_file(&file)?;
                if file.writable() {
                    bank.backing = Backing::File { file, stale: false };
                }
            }
        }
        Ok(bank)
    }

    /// Bytes that the bank takes on the bus.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Waits until the host's disk has all changes. Call it at the end of a run.
    pub fn sync(&mut self) -> io::Result<()> {
        match &mut self.backing {
            Backing::File { file, .. } => file.sync(),
            Backing::Protected | Backing::Volatile => Ok(()),
        }
    }

    fn load_image(&self, image: &[u8]) -> Result<(), FlashError> {
        let found = image.len() as u64;
        if found > self.size {
            let what = "flash image".to_owned();
            return Err(FlashError::Size { what, found, bank: self.size });
        }
        self.fill(0, image);
        let erased = vec![0xff; SECTOR as usize];
        let mut offset = found;
        while offset < self.size {
            let len = (self.size - offset).min(SECTOR);
            self.fill(offset, &erased[..len as usize]);
            offset += len;
        }
        Ok(())
    }

    fn load_file(&self, file: &FlashFile) -> Result<(), FlashError> {
        let host = |source| FlashError::Host { path: file.path().to_owned(), source };
        let found = file.len().map_err(host)?;
        if found != self.size {
            let what = file.path().display().to_string();
            return Err(FlashError::Size { what, found, bank: self.size });
        }
        let mut bytes = vec![0; SECTOR as usize];
        for offset in self.sectors() {
            file.read(offset, &mut bytes).map_err(host)?;
            self.fill(offset, &bytes);
        }
        Ok(())
    }

    fn sectors(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.size).step_by(SECTOR as usize)
    }

    /// Changes the region; the range lies inside, since offsets were checked.
    fn fill(&self, offset: u64, bytes: &[u8]) {
        let filled = self.memory.fill(self.base + offset, bytes);
        debug_assert!(filled.is_ok());
    }

    fn array(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = self.memory.read_into(self.base + offset, &mut bytes);
        debug_assert!(read.is_ok());
        bytes
    }

    fn set_mode(&mut self, mode: Mode) {
        self.memory.set_visible(self.base, mode == Mode::Array);
        self.state.mode = mode;
    }

    /// Ends an operation: the status says what became of it.
    fn finish(&mut self, result: Result<(), WriteFailed>, error: u8) {
        if result.is_err() {
            self.state.status |= error;
        }
        self.set_mode(Mode::Status);
    }

    /// Clears the bits that are 0 in `bytes`.
    fn program(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        let old = self.array(offset, bytes.len());
        let new: Vec<u8> = old.iter().zip(bytes).map(|(old, new)| old & new).collect();
        self.change(offset, &old, &new)
    }

    fn erase(&mut self, sector: u64) -> Result<(), WriteFailed> {
        let old = self.array(sector, SECTOR as usize);
        self.change(sector, &old, &vec![0xff; SECTOR as usize])
    }

    /// Puts `new` in place of `old`, from the first to the last byte that differs, in the file
    /// first: what the guest reads as done has been written.
    fn change(&mut self, offset: u64, old: &[u8], new: &[u8]) -> Result<(), WriteFailed> {
        if matches!(self.backing, Backing::Protected) {
            return Err(WriteFailed);
        }
        self.refresh_file()?;
        let Some(first) = old.iter().zip(new).position(|(old, new)| old != new) else {
            return Ok(());
        };
        let same = old.iter().zip(new).rev().take_while(|(old, new)| old == new).count();
        let new = &new[first..new.len() - same];
        let offset = offset + first as u64;
        if let Backing::File { file, stale } = &mut self.backing
            && file.write(offset, new).is_err()
        {
            *stale = true; // it may have been written in part
            return Err(WriteFailed);
        }
        self.fill(offset, new);
        Ok(())
    }

    /// Makes a file that may differ from the region equal to it, sector by sector.
    fn refresh_file(&mut self) -> Result<(), WriteFailed> {
        if !matches!(self.backing, Backing::File { stale: true, .. }) {
            return Ok(());
        }
        let mut on_disk = vec![0; SECTOR as usize];
        for offset in self.sectors() {
            let bytes = self.array(offset, SECTOR as usize);
            if let Backing::File { file, .. } = &mut self.backing {
                let equal = file.read(offset, &mut on_disk).is_ok() && on_disk == bytes;
                if !equal {
                    file.write(offset, &bytes).map_err(|_| WriteFailed)?;
                }
            }
        }
        if let Backing::File { stale, .. } = &mut self.backing {
            *stale = false;
        }
        Ok(())
    }

    /// A store of at most 4 bytes.
    fn store(&mut self, offset: u64, width: Width, value: u32) {
        let bytes = value.to_le_bytes();
        let data = &bytes[..width.bytes() as usize];
        let command = bytes[0];
        match std::mem::replace(&mut self.state.mode, Mode::Status) {
            Mode::Array | Mode::Identifier | Mode::Query | Mode::Status => {
                self.command(offset, command);
            }
            Mode::Program => {
                let result = self.program(offset, data);
                self.finish(result, PROGRAM_ERROR);
            }
            Mode::Erase(sector) => match command {
                CONFIRM => {
                    let result = self.erase(sector);
                    self.finish(result, ERASE_ERROR);
                }
                READ_ARRAY => self.set_mode(Mode::Array),
                _ => self.finish(Err(WriteFailed), SEQUENCE_ERROR),
            },
            Mode::Lock => match command {
                CONFIRM | LOCK | LOCK_DOWN => self.finish(Ok(()), 0), // blocks have no locks
                READ_ARRAY => self.set_mode(Mode::Array),
                _ => self.finish(Err(WriteFailed), SEQUENCE_ERROR),
            },
            Mode::BufferCount => {
                // What a chip gets is 16 bits wide.
                let words = (value & 0xffff) + 1;
                self.set_mode(Mode::BufferData(words, None));
            }
            Mode::BufferData(left, block) => {
                let mut block = block.unwrap_or_else(|| Block::new(offset & !(BUFFER - 1)));
                block.put(offset, data);
                self.set_mode(match left {
                    0 | 1 => Mode::BufferConfirm(block),
                    _ => Mode::BufferData(left - 1, Some(block)),
                });
            }
            Mode::BufferConfirm(block) => match command {
                CONFIRM if block.missed => self.finish(Err(WriteFailed), PROGRAM_ERROR),
                CONFIRM => {
                    let result = self.program(block.start, &block.bytes);
                    self.finish(result, PROGRAM_ERROR);
                }
                _ => self.finish(Err(WriteFailed), SEQUENCE_ERROR),
            },
        }
    }

    /// The first store of a sequence.
    fn command(&mut self, offset: u64, command: u8) {
        let mode = match command {
            READ_IDENTIFIER => Mode::Identifier,
            READ_QUERY => Mode::Query,
            READ_STATUS => Mode::Status,
            PROGRAM | PROGRAM_ALTERNATE => Mode::Program,
            WRITE_TO_BUFFER => Mode::BufferCount,
            ERASE => Mode::Erase(offset & !(SECTOR - 1)),
            LOCK_SETUP => Mode::Lock,
            CLEAR_STATUS => {
                self.state.status = READY;
                Mode::Array // QEMU's; EDK2's driver relies on it
            }
            // READ_ARRAY, and what the chips do not know, such as the reset of AMD's command set.
            _ => Mode::Array,
        };
        self.set_mode(mode);
    }

    /// What both chips answer together to a load at `offset`, a multiple of 4, unless they show
    /// their array.
    fn answer(&self, offset: u64) -> u32 {
        let word = match self.state.mode {
            Mode::Identifier => cfi::identifier(offset / 4),
            Mode::Query => cfi::query(offset / 4, self.size),
            _ => self.state.status.into(),
        };
        u32::from(word) << 16 | u32::from(word)
    }

    fn check_range(&self, offset: u64, width: Width) -> Result<(), BusError> {
        let inside = offset.checked_add(width.bytes()).is_some_and(|end| end <= self.size);
        if inside { Ok(()) } else { Err(BusError::Width) }
    }
}

impl Device for PFlash {
    fn name(&self) -> &'static str {
        "pflash"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        self.check_range(offset, width)?;
        if self.state.mode == Mode::Array {
            // Seldom: a CPU found the region hidden, and then another changed the mode.
            let mut bytes = [0; 8];
            let len = width.bytes() as usize;
            bytes[..len].copy_from_slice(&self.array(offset, len));
            return Ok(u64::from_le_bytes(bytes));
        }
        if !width.is_aligned(offset) {
            return Err(BusError::Width);
        }
        let word = offset & !3;
        Ok(match width {
            // The bank is 4 bytes wide, so these are two accesses.
            Width::Double => u64::from(self.answer(word + 4)) << 32 | u64::from(self.answer(word)),
            _ => u64::from(self.answer(word) >> (8 * (offset & 3))) & width.mask(),
        })
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        self.check_range(offset, width)?;
        if !width.is_aligned(offset) {
            return Err(BusError::Width);
        }
        if width == Width::Double {
            self.store(offset, Width::Word, value as u32);
            self.store(offset + 4, Width::Word, (value >> 32) as u32);
        } else {
            self.store(offset, width, value as u32);
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.state.status = READY;
        self.set_mode(Mode::Array);
    }

    fn save(&self) -> SavedDevice {
        // The region's bytes are saved with guest memory.
        let Self { memory: _, base: _, size: _, backing: _, state } = self;
        SavedDevice::encode(VERSION, state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let FlashState { mode, status } = saved.decode(VERSION)?;
        mode.check(self.size)?;
        check(status & !SEQUENCE_ERROR == READY, "flash status")?;
        self.state.status = status;
        self.set_mode(mode);
        if let Backing::File { stale, .. } = &mut self.backing {
            *stale = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
