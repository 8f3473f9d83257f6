//! Ready guests: what `mimic boot NAME` starts, and how its files come to be.
//!
//! Reading order: `catalog` (which guests there are), this file (how their files are had), `apt`
//! (packages), `cache` (where files are kept), `initramfs` (the small system around busybox), `bench`
//! (the workloads of `mimic compare`).

pub mod apt;
mod bench;
mod cache;
mod catalog;
mod initramfs;

use std::fs;
use std::path::{Path, PathBuf};

pub use cache::Cache;
use catalog::{BENCH_PROGRAMS, Initrd, Package, Source};
pub use catalog::{GUESTS, Guest};

use crate::loader::Isa;

/// Why a guest's files are not to be had, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// No guest has this name.
    #[error("there is no guest `{name}`{}; `mimic boot` lists them", similar.map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    Unknown {
        /// What was asked for.
        name: String,
        /// The most similar name.
        similar: Option<&'static str>,
    },
    /// There is no place for the cache.
    #[error(
        "neither XDG_CACHE_HOME nor HOME is set to an absolute path; set XDG_CACHE_HOME to a folder for guests"
    )]
    NoCache,
    /// The cache folder cannot be written.
    #[error("the cache folder {} cannot be used: {source}; set XDG_CACHE_HOME to a folder that can be written", path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program is missing.
    #[error("`{program}` is not installed (Debian's package `{package}`)")]
    Tool {
        /// The program.
        program: &'static str,
        /// Its package.
        package: &'static str,
    },
    /// Debian's keys are missing.
    #[error(
        "Debian's archive keys are not installed (package `debian-archive-keyring`), so nothing could be verified"
    )]
    Keyring,
    /// The host is configured for no Debian mirror.
    #[error("apt is configured for no Debian archive; name one with --mirror URL")]
    NoMirror,
    /// Not a URL.
    #[error("`{0}` is no mirror; give a URL like http://HOST/debian/")]
    Mirror(String),
    /// apt failed.
    #[error("`{what}` failed: {detail}")]
    Apt {
        /// The command.
        what: String,
        /// What it said.
        detail: String,
    },
    /// A package is not what it should be.
    #[error("{}: {detail}", path.display())]
    Package {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The folder of `--from` lacks something.
    #[error("{} holds neither {missing}", folder.display())]
    From {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// Files could not be fetched; how to provide them otherwise.
    #[error(
        "{source}\nTo go on without apt or network, provide these files and start again:\n{needed}"
    )]
    Fetch {
        /// What failed.
        source: Box<BootError>,
        /// Files and places.
        needed: String,
    },
    /// The host failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Who is told how far a fetch is.
pub trait Progress {
    /// A step begins.
    fn step(&self, text: &str);
    /// The current step is done to this percentage.
    fn percent(&self, percent: f64);
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _text: &str) {}
    fn percent(&self, _percent: f64) {}
}

/// How to fetch.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// A Debian mirror instead of the host's own.
    pub mirror: Option<String>,
    /// A folder with the packages or the files, instead of apt.
    pub from: Option<PathBuf>,
    /// Fetch even what is cached.
    pub refresh: bool,
    /// The guest shall find its disks, or virtio devices that are not on PCI: its initial RAM disk brings the kernel
    /// modules for them.
    pub modules: bool,
}

/// The files of a guest, ready to be loaded.
pub struct Files {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk, if there is one.
    pub initrd: Option<Vec<u8>>,
}

/// Finds a guest by name.
///
/// # Errors
/// [`BootError::Unknown`], with the most similar name.
pub fn find(name: &str) -> Result<&'static Guest, BootError> {
    GUESTS.iter().find(|guest| guest.name == name).ok_or_else(|| {
        let similar = GUESTS
            .iter()
            .map(|guest| (strsim::jaro_winkler(name, guest.name), guest.name))
            .filter(|(score, _)| *score > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| name);
        BootError::Unknown { name: name.to_owned(), similar }
    })
}

impl Guest {
    /// True when it is part of this program.
    pub fn embedded(&self) -> bool {
        self.source.is_none()
    }

    /// True when nothing needs to be fetched.
    pub fn ready(&self, cache: &Cache) -> bool {
        self.source.is_none_or(|source| cache.holds(self.name, &source.files()))
            && self.base().is_none_or(|base| base.ready(cache))
    }

    /// Approximate size of the download in MB; 0 for an embedded guest.
    pub fn download(&self) -> u32 {
        self.source.map_or(0, |source| source.download) + self.base().map_or(0, Self::download)
    }

    /// The guest whose kernel this one runs.
    fn base(&self) -> Option<&'static Guest> {
        match self.source?.initrd {
            Initrd::Bench { base, .. } => find(base).ok(),
            _ => None,
        }
    }

    /// Fetches what is missing and returns the files; `None` for an embedded guest.
    ///
    /// # Errors
    /// [`BootError`]; [`BootError::Fetch`] says what to provide by hand.
    pub fn fetch(
        &self,
        cache: &Cache,
        options: &FetchOptions,
        progress: &dyn Progress,
    ) -> Result<Option<Files>, BootError> {
        let Some(source) = self.source else { return Ok(None) };
        if let Some(base) = self.base()
            && (options.refresh || !base.ready(cache))
        {
            base.fetch(cache, options, progress)?;
        }
        let files = source.files();
        if options.refresh || options.from.is_some() || !cache.holds(self.name, &files) {
            let _lock = cache.lock(progress)?;
            // Another run may have fetched it while this one waited.
            if options.refresh || options.from.is_some() || !cache.holds(self.name, &files) {
                let publish = cache.publish(self.name, |folder| match &options.from {
                    Some(from) => source.take_from(from, folder),
                    None => {
                        source.fetch(self.isa, cache, folder, options.mirror.as_deref(), progress)
                    }
                });
                publish.map_err(|error| BootError::Fetch {
                    source: Box::new(error),
                    needed: source.needed(&cache.guest(self.name), self),
                })?;
            }
        }
        let mut folder = cache.guest(self.name);
        let initrd = match source.initrd {
            Initrd::Absent => None,
            Initrd::File(name) => Some(fs::read(folder.join(name))?),
            Initrd::Bench { base, busybox } => {
                let programs = fs::read(folder.join(BENCH_PROGRAMS))?;
                folder = cache.guest(base);
                Some(bench::initramfs(programs, &fs::read(folder.join(busybox))?)?)
            }
            Initrd::Busybox { busybox, disk_modules } => {
                let mut modules = Vec::new();
                for name in disk_modules.iter().filter(|_| options.modules) {
                    modules.push((*name, fs::read(folder.join(name))?));
                }
                let busybox = fs::read(folder.join(busybox))?;
                Some(initramfs::build((self.name, self.isa), &busybox, &modules)?)
            }
        };
        Ok(Some(Files { kernel: folder.join(source.kernel), initrd }))
    }
}

impl Source {
    /// Names in the cache.
    fn files(&self) -> Vec<&'static str> {
        let programs = matches!(self.initrd, Initrd::Bench { .. }).then_some(BENCH_PROGRAMS);
        let members = self.packages.iter().flat_map(|package| package.files);
        members.map(|(_, name)| *name).chain(programs).collect()
    }

    fn fetch(
        &self,
        isa: Isa,
        cache: &Cache,
        folder: &Path,
        mirror: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<(), BootError> {
        let apt_root = cache.apt(apt::architecture(isa));
        let apt = apt::Apt::open(&apt_root, isa, mirror, progress)?;
        let downloads = tempfile::tempdir_in(&apt_root)?;
        for package in self.packages {
            let name = match (package.metapackage, package.name.split_once('*')) {
                (Some(metapackage), Some((prefix, _))) => apt.dependency(metapackage, prefix)?,
                _ => package.name.to_owned(),
            };
            let file = apt.download(&name, downloads.path(), progress)?;
            progress.step(&format!("unpacking {name}"));
            package.unpack(&file, folder)?;
        }
        if let Initrd::Bench { .. } = self.initrd {
            let mut names = apt.with_dependencies(bench::PACKAGES)?;
            names.retain(|name| !bench::WITHOUT.iter().any(|start| name.starts_with(start)));
            apt.download_all(&names, downloads.path(), progress)?;
            progress.step("unpacking them");
            bench_programs(downloads.path(), folder)?;
        }
        Ok(())
    }

    /// Takes packages, or the files themselves, from a folder of the user.
    fn take_from(&self, from: &Path, folder: &Path) -> Result<(), BootError> {
        for package in self.packages {
            if let Some(file) = apt::find_package(from, package.name)? {
                package.unpack(&file, folder)?;
                continue;
            }
            for (_, name) in package.files {
                if !from.join(name).is_file() {
                    return Err(BootError::From {
                        folder: from.to_path_buf(),
                        missing: format!("a package {}_*.deb nor a file `{name}`", package.name),
                    });
                }
                fs::copy(from.join(name), folder.join(name))?;
            }
        }
        match self.initrd {
            Initrd::Bench { .. } => bench_programs(from, folder),
            _ => Ok(()),
        }
    }

    /// What to provide by hand, and where.
    fn needed(&self, place: &Path, guest: &Guest) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for package in self.packages {
            for (pattern, name) in package.files {
                let member = pattern.trim_start_matches("./");
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "  {} = {member} of Debian {}'s package {}",
                    place.join(name).display(),
                    apt::SUITE,
                    package.name
                );
            }
        }
        if let Initrd::Bench { .. } = self.initrd {
            let _ = writeln!(
                text,
                "  the packages {} and those they depend on",
                bench::PACKAGES.join(", ")
            );
        }
        let _ = write!(
            text,
            "or put the packages (for {}) into a folder DIR: mimic boot {} --from DIR",
            apt::architecture(guest.isa),
            guest.name
        );
        text
    }
}

impl Package {
    /// Keeps the wanted members of a package file.
    fn unpack(&self, file: &Path, folder: &Path) -> Result<(), BootError> {
        let patterns: Vec<&str> = self.files.iter().map(|(pattern, _)| *pattern).collect();
        let tree = tempfile::tempdir_in(folder.parent().unwrap_or(folder))?;
        apt::extract(file, &patterns, tree.path())?;
        for (pattern, name) in self.files {
            let found = member(tree.path(), pattern)?.ok_or_else(|| BootError::Package {
                path: file.to_path_buf(),
                detail: format!("there is no {pattern} in it"),
            })?;
            fs::rename(found, folder.join(name))?;
        }
        Ok(())
    }
}

/// Makes the archive of the workloads' programs of the packages (all but kernels) in `packages`.
fn bench_programs(packages: &Path, folder: &Path) -> Result<(), BootError> {
    let tree = tempfile::tempdir_in(folder.parent().unwrap_or(folder))?;
    for entry in fs::read_dir(packages)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".deb") && !name.starts_with("linux-image-") {
            apt::extract_all(&path, tree.path())?;
        }
    }
    Ok(fs::write(folder.join(BENCH_PROGRAMS), bench::programs(tree.path())?)?)
}

/// The file of an unpacked tree that a pattern means; a component of it may hold one `*`. Of several files the
/// last by name is meant.
fn member(tree: &Path, pattern: &str) -> std::io::Result<Option<PathBuf>> {
    Ok(matching(tree, pattern)?.into_iter().rfind(|path| path.is_file()))
}

/// The paths of a tree that a pattern means, by name; a component of it may hold one `*`.
fn matching(tree: &Path, pattern: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut found = vec![tree.to_path_buf()];
    for component in pattern.trim_start_matches("./").split('/') {
        let Some((start, end)) = component.split_once('*') else {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        };
        let matches = |name: &str| {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        };
        let mut next = Vec::new();
        for folder in found.iter().filter(|path| path.is_dir()) {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_name().to_str().is_some_and(matches) {
                    next.push(entry.path());
                }
            }
        }
        found = next;
    }
    found.retain(|path| path.exists());
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_corrected() {
        assert_eq!(find("demo").unwrap().name, "demo");
        let message = |name| find(name).err().unwrap().to_string();
        assert!(message("debian-riscv").contains("did you mean `debian-riscv64`?"));
        assert!(message("zzz").ends_with("`mimic boot` lists them"));
    }

    #[test]
    fn files_given_by_hand_are_taken_and_missing_ones_named() {
        let (given, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let guest = find("debian-riscv64").unwrap();
        let source = guest.source.unwrap();
        fs::write(given.path().join("linux"), "kernel").unwrap();
        for name in source.files().iter().filter(|name| name.ends_with(".ko.xz")) {
            fs::write(given.path().join(name), "module").unwrap();
        }
        let error = source.take_from(given.path(), place.path()).unwrap_err().to_string();
        assert!(error.contains("busybox-static_*.deb nor a file `busybox`"), "{error}");
        fs::write(given.path().join("busybox"), "shell").unwrap();
        source.take_from(given.path(), place.path()).unwrap();
        assert_eq!(fs::read_to_string(place.path().join("linux")).unwrap(), "kernel");
        let needed = source.needed(Path::new("/cache/x"), guest);
        assert!(needed.contains("/cache/x/linux = boot/vmlinux-*"), "{needed}");
    }
}
