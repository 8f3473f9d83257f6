//! The workloads of `mimic compare`: programs of Debian packages in an initramfs, run phase by phase.
//!
//! Two archives make the initramfs, one behind the other, as the kernel allows. The first holds the
//! programs and the libraries they load; it is made once, when the guest is fetched. The second holds
//! [`init.sh`](INIT) and the scripts of the phases, and is made at every start.
//!
//! Nothing is compressed: unpacking would be a phase of its own, in every boot.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use goblin::elf::Elf;
use walkdir::WalkDir;

use super::initramfs::Archive;
use super::{BootError, matching};

/// The first process of the guest, and the phases.
const INIT: &str = include_str!("init.sh");

/// What the phases run.
const SCRIPTS: &[(&str, &str)] = &[
    ("bench/phases.sh", include_str!("phases.sh")),
    ("bench/work.py", include_str!("work.py")),
    ("bench/work.lua", include_str!("work.lua")),
    ("bench/work.pl", include_str!("work.pl")),
    ("bench/work.sql", include_str!("work.sql")),
];

/// Packages whose programs the phases run; apt finds what they depend on.
pub(super) const PACKAGES: &[&str] = &[
    "7zip",
    "dash",
    "gzip",
    "lua5.4",
    "openssl",
    "perl-base",
    "libpython3-stdlib",
    "python3-minimal",
    "sqlite3",
    "stress-ng",
    "sysbench",
];

/// Beginnings of the names of packages that come as dependencies, are large, and hold nothing that is loaded.
pub(super) const WITHOUT: &[&str] = &[
    "debconf",
    "dpkg",
    "libegl-mesa",
    "libllvm",
    "libx11-data",
    "libz3",
    "mesa-",
    "tar",
    "tzdata",
];

/// What is kept of the packages besides the libraries that these files are linked with: files, and whole folders
/// (with `/` at the end). Patterns as in [`matching`]; all that they match is kept.
const KEEP: &[&str] = &[
    "usr/lib/7zip/7za",
    "usr/bin/dash",
    "usr/bin/gzip",
    "usr/bin/lua5.4",
    "usr/bin/openssl",
    "usr/bin/perl",
    "usr/bin/python3.*",
    "usr/bin/sqlite3",
    "usr/bin/stress-ng",
    "usr/bin/sysbench",
    "usr/lib/*-linux-gnu/libgcc_s.so.1",
    "usr/lib/*-linux-gnu/perl-base/",
    "usr/lib/python3.*/*.py",
    "usr/lib/python3.*/collections/",
    "usr/lib/python3.*/encodings/",
    "usr/lib/python3.*/importlib/",
    "usr/lib/python3.*/json/",
    "usr/lib/python3.*/re/",
];

/// Links of the top level into `usr` (Debian Policy: merged `/usr`).
const MERGED: &[&str] = &["bin", "lib", "lib64", "sbin"];

/// Makes the archive of programs from a tree of unpacked packages.
pub(super) fn programs(tree: &Path) -> Result<Vec<u8>, BootError> {
    let mut selection = Selection { tree, paths: BTreeSet::new() };
    for pattern in KEEP {
        selection.keep(pattern)?;
    }
    let mut archive = Archive::new(Vec::new());
    let mut folders = BTreeSet::new();
    for name in MERGED {
        archive.link(name, &format!("usr/{name}"))?;
        folders.insert(PathBuf::from("usr").join(name));
    }
    for path in &selection.paths {
        folders.extend(path.ancestors().skip(1).map(Path::to_path_buf));
    }
    // A folder sorts before what is in it.
    for folder in folders.iter().filter(|folder| !folder.as_os_str().is_empty()) {
        archive.folder(&folder.to_string_lossy())?;
    }
    for path in &selection.paths {
        let (name, place) = (path.to_string_lossy(), tree.join(path));
        match fs::read_link(&place) {
            Ok(target) => archive.link(&name, &target.to_string_lossy())?,
            Err(_) => archive.program(&name, &fs::read(&place)?)?,
        }
    }
    Ok(archive.finish()?)
}

/// Puts the archive of the first process and the phases behind that of the programs.
pub(super) fn initramfs(mut programs: Vec<u8>, busybox: &[u8]) -> io::Result<Vec<u8>> {
    // An archive begins at a multiple of four bytes (buffer-format.rst).
    programs.resize(programs.len().next_multiple_of(4), 0);
    let mut archive = Archive::new(programs);
    for folder in ["bench", "dev", "etc", "proc", "sys", "tmp"] {
        archive.folder(folder)?;
    }
    archive.console()?;
    archive.program("init", INIT.as_bytes())?;
    archive.program("usr/bin/busybox", busybox)?;
    for (name, text) in SCRIPTS {
        archive.file(name, text.as_bytes())?;
    }
    archive.finish()
}

/// Files of a tree that are kept.
struct Selection<'a> {
    tree: &'a Path,
    /// Relative to the tree, links not followed.
    paths: BTreeSet<PathBuf>,
}

impl Selection<'_> {
    /// Keeps what a pattern means, and the libraries that it loads.
    fn keep(&mut self, pattern: &str) -> Result<(), BootError> {
        let missing = || BootError::Package {
            path: self.tree.to_path_buf(),
            detail: format!("no package holds {pattern}"),
        };
        let found = matching(self.tree, pattern.trim_end_matches('/'))?;
        if found.is_empty() {
            return Err(missing());
        }
        for entry in found.iter().flat_map(WalkDir::new) {
            let entry = entry.map_err(io::Error::other)?;
            if !entry.file_type().is_dir() {
                self.add(entry.path())?;
            }
        }
        Ok(())
    }

    /// Keeps a file, links on the way to it, and the libraries that it loads. A link that leads nowhere (to
    /// configuration that only an installation makes) is kept as it is.
    fn add(&mut self, file: &Path) -> Result<(), BootError> {
        let mut file = file.to_path_buf();
        loop {
            let relative = file.strip_prefix(self.tree).unwrap_or(&file).to_path_buf();
            if !self.paths.insert(relative) {
                return Ok(());
            }
            let Ok(target) = fs::read_link(&file) else { break };
            file = self.follow(&file, &target);
            if fs::symlink_metadata(&file).is_err() {
                return Ok(());
            }
        }
        let bytes = fs::read(&file)?;
        if !crate::loader::is_elf(&bytes) {
            return Ok(());
        }
        let elf = Elf::parse(&bytes).map_err(|error| BootError::Package {
            path: file.clone(),
            detail: error.to_string(),
        })?;
        for library in &elf.libraries {
            self.keep_library(library, &file)?;
        }
        match elf.interpreter {
            // `/lib` and `/lib64` are links into `usr`.
            Some(path) => self.add(&self.tree.join("usr").join(path.trim_start_matches('/'))),
            None => Ok(()),
        }
    }

    /// Keeps a library, found by name where Debian's dynamic linker looks.
    fn keep_library(&mut self, name: &str, user: &Path) -> Result<(), BootError> {
        for folder in ["usr/lib/*-linux-gnu", "usr/lib", "usr/lib64"] {
            for folder in matching(self.tree, folder)? {
                let path = folder.join(name);
                if path.is_file() {
                    return self.add(&path);
                }
            }
        }
        Err(BootError::Package {
            path: user.to_path_buf(),
            detail: format!("the library {name} is in no package"),
        })
    }

    /// The file in the tree that a link means.
    fn follow(&self, link: &Path, target: &Path) -> PathBuf {
        let mut path = match link.parent() {
            Some(parent) if target.is_relative() => parent.to_path_buf(),
            _ => self.tree.to_path_buf(),
        };
        for component in target.components() {
            match component {
                Component::ParentDir => {
                    path.pop();
                }
                Component::Normal(name) => path.push(name),
                _ => {}
            }
        }
        path
    }
}
