//! A disk whose writes go to a temporary file: the disk beneath stays as it is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FallocateFlags, fallocate};

use super::{Disk, DiskError, SECTOR_SIZE, check_range};

/// Sectors whose bits share an allocation: 8 KiB of bits for 32 MiB of disk.
const PART_SECTORS: u64 = 1 << 16;

/// A temporary disk over another one. It has a name for nobody and goes with the program, however
/// that ends.
///
/// Sectors are kept at their own offsets in a sparse file, and a bit per sector says that it is
/// there. A bit per sector, since a write then never has to copy what surrounds it, which two
/// threads could not do at once.
pub struct Overlay {
    base: Arc<dyn Disk>,
    file: File,
    map: SectorMap,
}

impl Overlay {
    /// An overlay of `base`, in the folder for temporary files (`TMPDIR`, or `/tmp`).
    pub fn new(base: Arc<dyn Disk>) -> io::Result<Self> {
        let file = tempfile::tempfile()?;
        // Sparse, and as long as the disk: what is punched out reads as 0.
        file.set_len(base.sectors() * SECTOR_SIZE)?;
        let map = SectorMap::new(base.sectors());
        Ok(Self { base, file, map })
    }

    fn check(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        check_range(self.base.sectors(), offset, len)
    }
}

impl Disk for Overlay {
    fn name(&self) -> &str {
        self.base.name()
    }

    fn sectors(&self) -> u64 {
        self.base.sectors()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.check(offset, bytes.len() as u64)?;
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let left = (bytes.len() - done) as u64 / SECTOR_SIZE;
            let (written, count) = self.map.run(at / SECTOR_SIZE, left);
            let piece = &mut bytes[done..][..(count * SECTOR_SIZE) as usize];
            if written {
                self.file.read_exact_at(piece, at)?;
            } else {
                self.base.read_at(at, piece)?;
            }
            done += piece.len();
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check(offset, bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset)?;
        self.map.set(offset / SECTOR_SIZE, bytes.len() as u64 / SECTOR_SIZE);
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        // Nothing here outlives the program, so there is nothing to make durable.
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.write_zeroes(offset, len, true)
    }

    fn write_zeroes(&self, offset: u64, len: u64, _may_unmap: bool) -> Result<(), DiskError> {
        self.check(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        // Every file system that can hold unnamed files punches holes.
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, mode, offset, len).map_err(io::Error::from)?;
        self.map.set(offset / SECTOR_SIZE, len / SECTOR_SIZE);
        Ok(())
    }
}

/// One bit per sector, never cleared; parts that no bit was set in take no room.
struct SectorMap(Vec<OnceLock<Box<[AtomicU64]>>>);

impl SectorMap {
    fn new(sectors: u64) -> Self {
        let parts = sectors.div_ceil(PART_SECTORS) as usize;
        Self((0..parts).map(|_| OnceLock::new()).collect())
    }

    /// Sets `count` bits from `sector` on.
    fn set(&self, sector: u64, count: u64) {
        let end = sector + count;
        let mut at = sector;
        while at < end {
            let part = self.0[(at / PART_SECTORS) as usize]
                .get_or_init(|| (0..PART_SECTORS / 64).map(|_| AtomicU64::new(0)).collect());
            let (bit, left) = (at % 64, (end - at).min(64 - at % 64));
            let bits = u64::MAX >> (64 - left) << bit;
            // After the data is in the file, for a reader that sees the bit.
            part[(at % PART_SECTORS / 64) as usize].fetch_or(bits, Ordering::Release);
            at += left;
        }
    }

    /// Whether `sector` is set, and how many from there on, of `count` at most, are like it.
    fn run(&self, sector: u64, count: u64) -> (bool, u64) {
        let (set, mut len) = self.run_in_word(sector, count);
        while len < count {
            let (next, more) = self.run_in_word(sector + len, count - len);
            if next != set {
                break;
            }
            len += more;
        }
        (set, len)
    }

    /// [`SectorMap::run`] as far as one word of bits goes.
    fn run_in_word(&self, sector: u64, count: u64) -> (bool, u64) {
        let word = self.0[(sector / PART_SECTORS) as usize]
            .get()
            .map_or(0, |part| part[(sector % PART_SECTORS / 64) as usize].load(Ordering::Acquire));
        let bit = sector % 64;
        let set = word >> bit & 1 != 0;
        let unlike = if set { !word } else { word } >> bit;
        let len = u64::from(unlike.trailing_zeros()).min(64 - bit);
        (set, len.min(count))
    }
}

#[cfg(test)]
#[path = "overlay_tests.rs"]
mod tests;
