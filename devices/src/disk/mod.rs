//! Disks: what a disk device reads and writes.
//!
//! ```text
//! device -> Workers (requests on threads) -> Disk: DiskImage, a raw file or a block device
//!                                                  Overlay, a temporary file over another disk
//! ```
//!
//! A disk is a row of 512-byte sectors that many threads use at once. Two requests that touch the
//! same sector at the same time take effect in either order, as on a real disk; the device's driver
//! waits for the first before it sends the second if the order matters to it.

mod failures;
mod image;
mod overlay;
mod workers;

use std::io;

pub use failures::Failures;
pub use image::{Access, DiskImage, OpenError};
pub use overlay::Overlay;
pub use workers::{Drain, Workers};

/// Bytes in a sector, the unit of every disk here.
pub const SECTOR_SIZE: u64 = 512;

/// Why a disk did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Not whole sectors of this disk.
    #[error("the sectors are not on the disk")]
    Range,
    /// The disk was opened read-only.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The host has no room for more data: file system full, quota, or limit on the file's size.
    #[error("no room on the host ({0})")]
    Full(io::Error),
    /// Another failure of the host.
    #[error("{0}")]
    Host(io::Error),
}

impl From<io::Error> for DiskError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => DiskError::Full(error),
            _ => DiskError::Host(error),
        }
    }
}

/// A row of sectors. Offsets and lengths are bytes, multiples of [`SECTOR_SIZE`] and inside the
/// disk; other values are answered with [`DiskError::Range`].
pub trait Disk: Send + Sync {
    /// What to call the disk in messages, usually a path.
    fn name(&self) -> &str;

    /// The size in sectors.
    fn sectors(&self) -> u64;

    /// Whether everything that changes the disk fails.
    fn is_read_only(&self) -> bool;

    /// Fills `bytes` from `offset` on.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError>;

    /// Writes `bytes` from `offset` on. They may be in a volatile cache until [`Disk::flush`].
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Returns once all that was written before is on stable storage.
    fn flush(&self) -> Result<(), DiskError>;

    /// Says that the contents of `len` bytes do not matter any more.
    fn discard(&self, offset: u64, len: u64) -> Result<(), DiskError>;

    /// Makes `len` bytes 0; with `may_unmap` their room may be given back to the host.
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), DiskError>;
}

/// Whether `[offset, offset + len)` is whole sectors of a disk of that many.
pub fn in_range(sectors: u64, offset: u64, len: u64) -> bool {
    let (first, count) = (offset / SECTOR_SIZE, len / SECTOR_SIZE);
    offset.is_multiple_of(SECTOR_SIZE)
        && len.is_multiple_of(SECTOR_SIZE)
        && first <= sectors
        && count <= sectors - first
}

/// [`DiskError::Range`] unless the range is on the disk.
fn check_range(sectors: u64, offset: u64, len: u64) -> Result<(), DiskError> {
    if in_range(sectors, offset, len) { Ok(()) } else { Err(DiskError::Range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_whole_sectors_on_the_disk() {
        for (offset, len) in [(0, 0), (0, 4096), (3584, 512), (4096, 0)] {
            assert!(in_range(8, offset, len), "{offset}+{len}");
        }
        let wrong = [(0, 4608), (1, 512), (0, 511), (4096, 512), (u64::MAX - 511, 1024)];
        for (offset, len) in wrong {
            assert!(!in_range(8, offset, len), "{offset}+{len}");
        }
        assert!(!in_range(u64::MAX, u64::MAX - 511, 1));
    }

    #[test]
    fn a_full_host_is_told_from_a_broken_one() {
        // Linux: ENOSPC 28, EDQUOT 122, EFBIG 27; EIO 5.
        for code in [28, 122, 27] {
            let error = DiskError::from(io::Error::from_raw_os_error(code));
            assert!(matches!(error, DiskError::Full(_)), "{code}");
        }
        let error = DiskError::from(io::Error::from_raw_os_error(5));
        assert!(matches!(error, DiskError::Host(_)));
    }
}
