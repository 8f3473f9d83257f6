//! The file in which a flash bank lives on after the run.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::FlashError;

/// A file with a bank's bytes, written only where the guest changes them.
#[derive(Debug)]
pub struct FlashFile {
    file: File,
    path: PathBuf,
    writable: bool,
    /// A failure was reported; one line is enough.
    reported: bool,
    unsynced: bool,
}

impl FlashFile {
    /// Opens a file and locks it against other emulators. One that may not be written is opened
    /// for reading and the user told; the guest's writes will fail.
    pub fn open(path: &Path) -> Result<Self, FlashError> {
        let host = |source| FlashError::Host { path: path.to_owned(), source };
        let (file, writable) = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => (file, true),
            Err(error) => match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    let file = File::open(path).map_err(host)?;
                    log::warn!(
                        target: "pflash",
                        "{} is read-only: the guest's changes to its flash will fail",
                        path.display()
                    );
                    (file, false)
                }
                _ => return Err(host(error)),
            },
        };
        let locked = if writable { file.try_lock() } else { file.try_lock_shared() };
        match locked {
            Ok(()) => Ok(Self::new(file, path, writable)),
            Err(TryLockError::WouldBlock) => Err(FlashError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(host(error)),
        }
    }

    pub(super) fn new(file: File, path: &Path, writable: bool) -> Self {
        let path = path.to_owned();
        Self { file, path, writable, reported: false, unsynced: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn writable(&self) -> bool {
        self.writable
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Writes bytes; the user is told of the first failure.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.unsynced = true;
        self.file.write_all_at(bytes, offset).inspect_err(|error| {
            if !self.reported {
                self.reported = true;
                let path = self.path.display();
                log::error!(
                    target: "pflash",
                    "cannot write {path}: {error}; the guest's change to its flash failed"
                );
            }
        })
    }

    /// Waits until the host's disk has what was written.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }
}
