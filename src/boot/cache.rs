//! The folder where fetched guests are kept.
//!
//! A guest's folder appears complete or not at all: it is filled under a temporary name beside its
//! place and renamed. One lock file serves concurrent runs.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::{BootError, Progress};

/// The cache folder of Mimic.
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$XDG_CACHE_HOME/mimic`, or `~/.cache/mimic` (XDG base directory specification 0.8).
    ///
    /// # Errors
    /// [`BootError::NoCache`] when neither variable is an absolute path.
    pub fn of_user() -> Result<Self, BootError> {
        let folder =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let root = folder("XDG_CACHE_HOME")
            .or_else(|| folder("HOME").map(|home| home.join(".cache")))
            .ok_or(BootError::NoCache)?
            .join("mimic");
        Ok(Cache { root })
    }

    /// The cache folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the files of a guest are, or will be.
    pub fn guest(&self, name: &str) -> PathBuf {
        self.root.join("guests").join(name)
    }

    /// True when every one of `files` is there.
    pub fn holds(&self, name: &str, files: &[&str]) -> bool {
        files.iter().all(|file| self.guest(name).join(file).is_file())
    }

    /// Where apt keeps its own lists of an architecture.
    pub(super) fn apt(&self, architecture: &str) -> PathBuf {
        self.root.join("apt").join(architecture)
    }

    /// Waits until no other run changes the cache; the lock is held until the file is dropped.
    pub(super) fn lock(&self, progress: &dyn Progress) -> Result<File, BootError> {
        fs::create_dir_all(self.root.join("guests")).map_err(|source| self.unusable(source))?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.root.join("lock"))
            .map_err(|source| self.unusable(source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.step("waiting for another mimic that is fetching");
                file.lock()?;
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        Ok(file)
    }

    /// Makes a guest's folder appear at once with what `fill` puts into it. The caller holds the lock.
    pub(super) fn publish(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> Result<(), BootError>,
    ) -> Result<(), BootError> {
        let place = self.guest(name);
        let guests = self.root.join("guests");
        let temporary = tempfile::Builder::new().prefix(".new-").tempdir_in(&guests)?;
        let files = temporary.path().join("files");
        fs::create_dir(&files)?;
        fill(&files)?;
        if place.exists() {
            // Renaming it away first keeps the time without a folder short.
            fs::rename(&place, temporary.path().join("old"))?;
        }
        fs::rename(&files, &place)?;
        Ok(())
    }

    fn unusable(&self, source: std::io::Error) -> BootError {
        BootError::Cache { path: self.root.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Silent;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { root: folder.path().join("mimic") };
        (folder, cache)
    }

    #[test]
    fn a_failed_fill_leaves_nothing_and_a_good_one_replaces() {
        let (_folder, cache) = cache();
        let _lock = cache.lock(&Silent).unwrap();
        let failed = cache.publish("g", |files| {
            fs::write(files.join("a"), "half")?;
            Err(BootError::Keyring)
        });
        assert!(failed.is_err());
        assert!(!cache.holds("g", &["a"]));
        for text in ["one", "two"] {
            cache.publish("g", |files| Ok(fs::write(files.join("a"), text)?)).unwrap();
            assert_eq!(fs::read_to_string(cache.guest("g").join("a")).unwrap(), text);
        }
        assert!(!cache.holds("g", &["a", "b"]));
        let left = fs::read_dir(cache.root().join("guests")).unwrap().count();
        assert_eq!(left, 1, "temporary folders are removed");
    }

    #[test]
    fn the_lock_excludes_a_second_run() {
        let (_folder, cache) = cache();
        let lock = cache.lock(&Silent).unwrap();
        let other = File::options().write(true).open(cache.root().join("lock")).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(lock);
        other.try_lock().unwrap();
    }
}
