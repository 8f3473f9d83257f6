//! The workloads of `mimic compare`: programs of Debian packages in an initramfs, run phase by phase.
//!
//! Two archives make the initramfs, one behind the other, as the kernel allows. The first holds the
//! programs and the libraries they load; it is made once, when the guest is fetched. The second holds
//! [`init.sh`](INIT) and the scripts of the phases and of the soak, and is made at every start.
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
    ("bench/soak.sh", include_str!("soak.sh")),
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A file that is linked with `library`: ELF-64 with a dynamic section (System V ABI, "Dynamic Linking").
    fn linked_with(library: &str) -> Vec<u8> {
        const DYNAMIC: u64 = 64 + 2 * 56;
        const STRINGS: u64 = DYNAMIC + 4 * 16;
        let strings = format!("\0{library}\0");
        let size = STRINGS + strings.len() as u64;
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        elf.extend([3u16, 243].map(u16::to_le_bytes).concat()); // shared object, RISC-V
        elf.extend(1u32.to_le_bytes());
        elf.extend([0u64, 64, 0].map(u64::to_le_bytes).concat());
        elf.extend(0u32.to_le_bytes());
        elf.extend([64u16, 56, 2, 64, 0, 0].map(u16::to_le_bytes).concat());
        for (kind, offset, length) in [(1u32, 0, size), (2, DYNAMIC, 4 * 16)] {
            elf.extend([kind, 4].map(u32::to_le_bytes).concat()); // PT_LOAD, PT_DYNAMIC; readable
            elf.extend([offset, offset, offset, length, length, 8].map(u64::to_le_bytes).concat());
        }
        // DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_NULL
        let entries = [1, 1, 5, STRINGS, 10, strings.len() as u64, 0, 0];
        elf.extend(entries.map(u64::to_le_bytes).concat());
        elf.extend(strings.as_bytes());
        elf
    }

    #[test]
    fn programs_bring_their_libraries_and_links() {
        let tree = tempfile::tempdir().unwrap();
        let place = |path: &str, bytes: &[u8]| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        place("usr/bin/tool-1.2", &linked_with("liba.so.1"));
        place("usr/lib/some-linux-gnu/liba.so.1.0", &linked_with("libb.so"));
        place("usr/lib/some-linux-gnu/unused.so", b"");
        place("usr/lib/some/data/x", b"text");
        symlink("liba.so.1.0", tree.path().join("usr/lib/some-linux-gnu/liba.so.1")).unwrap();
        symlink("/etc/nowhere", tree.path().join("usr/lib/some/data/config")).unwrap();

        let mut selection = Selection { tree: tree.path(), paths: BTreeSet::new() };
        let error = selection.keep("usr/bin/tool-*").unwrap_err().to_string();
        assert!(error.contains("libb.so") && error.contains("liba.so.1.0"), "{error}");
        place("usr/lib/libb.so", b"no ELF");
        let mut selection = Selection { tree: tree.path(), paths: BTreeSet::new() };
        selection.keep("usr/bin/tool-*").unwrap();
        selection.keep("usr/lib/some/data/").unwrap();
        let kept: Vec<_> = selection.paths.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            kept,
            [
                "usr/bin/tool-1.2",
                "usr/lib/libb.so",
                "usr/lib/some/data/config",
                "usr/lib/some/data/x",
                "usr/lib/some-linux-gnu/liba.so.1",
                "usr/lib/some-linux-gnu/liba.so.1.0",
            ]
        );
        let error = selection.keep("usr/bin/other").unwrap_err().to_string();
        assert!(error.contains("usr/bin/other"), "{error}");
    }

    #[test]
    fn the_second_archive_begins_at_a_multiple_of_four() {
        let initramfs = initramfs(b"12345".to_vec(), b"BUSYBOX").unwrap();
        assert_eq!(&initramfs[..8], b"12345\0\0\0");
        let mut names = Vec::new();
        let mut rest = &initramfs[8..];
        loop {
            let reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push(reader.entry().name().to_owned());
            rest = reader.finish().unwrap();
        }
        for name in ["init", "dev/console", "usr/bin/busybox", "bench/phases.sh", "bench/work.py"] {
            assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
        }
    }
}
