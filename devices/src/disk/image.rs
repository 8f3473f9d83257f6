//! A raw disk image: a file, or a block device of the host, whose bytes are the disk's.
//!
//! An image in use is locked as a whole with an open file description lock (fcntl(2)): exclusively
//! by who writes it, shared by who only reads it. QEMU locks single bytes of its images with the
//! same kind, so neither program writes an image that the other one writes.
#![allow(unsafe_code)] // the lock, which no safe wrapper offers

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{Disk, DiskError, SECTOR_SIZE, check_range};

/// How an image is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and written, by nobody else.
    ReadWrite,
    /// Read; others may read it too.
    ReadOnly,
}

/// Why an image could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The host refused.
    #[error("cannot open disk image {path} {how}: {source}")]
    Host {
        /// The image.
        path: PathBuf,
        /// "for reading" or "for writing".
        how: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// A folder, a terminal, a pipe.
    #[error("{0} is neither a file nor a block device, so it cannot be a disk image")]
    Kind(PathBuf),
    /// There is no sector in it.
    #[error("disk image {0} is empty; `truncate -s 4G FILE` makes a blank disk of 4 GiB")]
    Empty(PathBuf),
    /// The last sector is not whole.
    #[error(
        "disk image {path} has {bytes} bytes, which is no multiple of 512: it is cut off or not a \
         raw image; `truncate -s %512 FILE` fills its last sector with zeros"
    )]
    Size {
        /// The image.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Somebody else writes it.
    #[error(
        "disk image {0} is being written by another program, perhaps a running guest: stop that \
         one first, or give this guest its own copy"
    )]
    Written(PathBuf),
    /// Somebody else reads it, so it must not be written.
    #[error(
        "disk image {0} is being read by another program, perhaps a running guest, so it must not \
         be written: stop that one first, open the image read-only too (--ephemeral keeps a \
         guest's writes apart), or give this guest its own copy"
    )]
    Read(PathBuf),
}

/// An open image. The lock ends with it.
#[derive(Debug)]
pub struct DiskImage {
    name: String,
    file: File,
    sectors: u64,
    read_only: bool,
}

impl DiskImage {
    /// Opens and locks the image at `path`.
    pub fn open(path: &Path, access: Access) -> Result<Self, OpenError> {
        let read_only = access == Access::ReadOnly;
        let how = if read_only { "for reading" } else { "for writing" };
        let host = |source| OpenError::Host { path: path.into(), how, source };
        // Before it is opened: opening a pipe waits for its other end.
        let kind = fs::metadata(path).map_err(host)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::Kind(path.into()));
        }
        let file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(host)?;
        Self::lock(&file, path, read_only).map_err(|refused| match refused {
            Refused::Written => OpenError::Written(path.into()),
            Refused::Read => OpenError::Read(path.into()),
            Refused::Host(source) => host(source),
        })?;
        // A block device has no length of its own, but an end.
        let bytes = (&file).seek(SeekFrom::End(0)).map_err(host)?;
        if bytes == 0 {
            return Err(OpenError::Empty(path.into()));
        }
        if !bytes.is_multiple_of(SECTOR_SIZE) {
            return Err(OpenError::Size { path: path.into(), bytes });
        }
        let name = path.display().to_string();
        Ok(Self { name, file, sectors: bytes / SECTOR_SIZE, read_only })
    }

    fn lock(file: &File, path: &Path, read_only: bool) -> Result<(), Refused> {
        let wanted = if read_only { libc::F_RDLCK } else { libc::F_WRLCK };
        match try_lock(file, wanted) {
            Ok(()) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => {
                    // What others hold shows in whether reading would be allowed; the lock got
                    // here ends with the file.
                    let readable = !read_only && try_lock(file, libc::F_RDLCK).is_ok();
                    Err(if readable { Refused::Read } else { Refused::Written })
                }
                // Some network and user-space file systems have no locks.
                Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => {
                    log::warn!(
                        target: "disk",
                        "{}: its file system has no locks; make sure that nobody else uses it",
                        path.display()
                    );
                    Ok(())
                }
                _ => Err(Refused::Host(error)),
            },
        }
    }

    fn check(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        check_range(self.sectors, offset, len)
    }

    fn check_writable(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.check(offset, len)?;
        if self.read_only { Err(DiskError::ReadOnly) } else { Ok(()) }
    }

    /// `fallocate`; false when the file system has no such operation.
    fn allocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> Result<bool, DiskError> {
        loop {
            match fallocate(&self.file, mode | FallocateFlags::KEEP_SIZE, offset, len) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                // A block device whose hardware lacks it may say EINVAL.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(false),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}

impl Disk for DiskImage {
    fn name(&self) -> &str {
        &self.name
    }

    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.check(offset, bytes.len() as u64)?;
        Ok(self.file.read_exact_at(bytes, offset)?)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check_writable(offset, bytes.len() as u64)?;
        Ok(self.file.write_all_at(bytes, offset)?)
    }

    fn flush(&self) -> Result<(), DiskError> {
        // fdatasync: the size never changes, and the block map counts as needed to read the data.
        if self.read_only { Ok(()) } else { Ok(self.file.sync_data()?) }
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.check_writable(offset, len)?;
        if len > 0 {
            // Only a hint: a host that cannot do it leaves the data.
            self.allocate(FallocateFlags::PUNCH_HOLE, offset, len)?;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), DiskError> {
        self.check_writable(offset, len)?;
        if len == 0
            || may_unmap && self.allocate(FallocateFlags::PUNCH_HOLE, offset, len)?
            || self.allocate(FallocateFlags::ZERO_RANGE, offset, len)?
        {
            return Ok(());
        }
        let zeros = [0; 64 << 10];
        let mut done = 0;
        while done < len {
            let now = (len - done).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..now as usize], offset + done)?;
            done += now;
        }
        Ok(())
    }
}

/// Why there is no lock.
enum Refused {
    Written,
    Read,
    Host(io::Error),
}

/// Locks the whole file, whatever its length becomes.
fn try_lock(file: &File, kind: libc::c_int) -> io::Result<()> {
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: an open descriptor, and a structure that lives through the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &whole) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
