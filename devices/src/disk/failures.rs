//! Failures of the host: one line to the user per disk, then a count.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::DiskError;

/// What went wrong with one disk on the host's side.
#[derive(Debug, Default)]
pub struct Failures {
    first: OnceLock<String>,
    count: AtomicU64,
}

impl Failures {
    /// Counts a failed request of the disk called `name`; the first one is logged as an error.
    pub fn report(&self, name: &str, error: &DiskError) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.first.set(format!("{name}: {error}")).is_ok() {
            log::error!(target: "disk", "{name}: {error}; the guest is told of I/O errors");
        } else {
            log::debug!(target: "disk", "{name}: {error}");
        }
    }

    /// The first failure as text, if there was any.
    pub fn first(&self) -> Option<&str> {
        self.first.get().map(String::as_str)
    }

    /// How many requests failed.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}
