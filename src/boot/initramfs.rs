//! A small initramfs: busybox and an `/init` of ours, as a gzip-compressed `newc` cpio archive.
//!
//! Source: Linux documentation, `driver-api/early-userspace/buffer-format.rst`.

use std::io::{self, Write};

use cpio::newc::{Builder, trailer};

use crate::loader::Isa;

/// The first process of the guest.
const INIT: &str = include_str!("init.sh");
/// What the guest's names stand for in it.
const GUEST_NAME: &str = "@GUEST@";
const ISA_NAME: &str = "@ISA@";
const HART_NAME: &str = "@HART@";

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// `/dev/console` (Linux documentation, `admin-guide/devices.txt`): the kernel opens it for `/init`
/// before anything can mount `/dev`.
const CONSOLE: (u32, u32) = (5, 1);

const FOLDERS: &[&str] = &[
    "bin",
    "dev",
    "etc",
    "lib",
    "lib/modules",
    "mnt",
    "proc",
    "root",
    "sbin",
    "sys",
    "tmp",
    "usr",
];

/// Files of `/etc` that busybox looks for.
const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root::0:0:root:/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\ntty:x:5:\n"),
    ("etc/profile", "PS1='\\u@\\h:\\w# '\ncd\n"),
];

/// The first process of the guest `name`.
fn init(name: &str, isa: Isa) -> String {
    let (isa, hart) = match isa {
        Isa::Riscv64 => ("RISC-V", "hart"),
        Isa::X86_64 => ("x86-64", "CPU"),
    };
    INIT.replace(GUEST_NAME, name).replace(ISA_NAME, isa).replace(HART_NAME, hart)
}

/// Builds the initramfs of the guest `name` around a statically linked busybox.
///
/// # Errors
/// Only what writing to memory and compressing can give.
/// `modules` are kernel modules, compressed by xz, in the order in which `/init` loads them.
pub(super) fn build(
    (name, isa): (&str, Isa),
    busybox: &[u8],
    modules: &[(&str, Vec<u8>)],
) -> io::Result<Vec<u8>> {
    let out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = Archive::new(out);
    for folder in FOLDERS {
        archive.folder(folder)?;
    }
    archive.console()?;
    archive.program("bin/busybox", busybox)?;
    archive.program("init", init(name, isa).as_bytes())?;
    for (name, text) in FILES {
        archive.file(name, text.as_bytes())?;
    }
    let mut order = String::new();
    for (name, packed) in modules {
        let name = name.trim_end_matches(".xz");
        let mut module = Vec::new();
        lzma_rs::xz_decompress(&mut packed.as_slice(), &mut module)
            .map_err(|error| io::Error::other(format!("{name}: {error:?}")))?;
        archive.file(&format!("lib/modules/{name}"), &module)?;
        order.push_str(name);
        order.push('\n');
    }
    archive.file("lib/modules/order", order.as_bytes())?;
    archive.finish()?.finish()
}

/// A `newc` archive in the making. A folder comes before what is in it.
pub(super) struct Archive<W: Write> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Archive { out, inode: 0 }
    }

    pub(super) fn folder(&mut self, name: &str) -> io::Result<()> {
        self.add(name, DIRECTORY | 0o755, (0, 0), b"")
    }

    pub(super) fn file(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.add(name, FILE | 0o644, (0, 0), contents)
    }

    /// A file that can be run.
    pub(super) fn program(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.add(name, FILE | 0o755, (0, 0), contents)
    }

    pub(super) fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.add(name, LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// The console that the kernel opens for `/init`.
    pub(super) fn console(&mut self) -> io::Result<()> {
        self.add("dev/console", CHARACTER_DEVICE | 0o600, CONSOLE, b"")
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> io::Result<W> {
        trailer(self.out)
    }

    fn add(&mut self, name: &str, mode: u32, rdev: (u32, u32), contents: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let entry = Builder::new(name)
            .ino(self.inode)
            .mode(mode)
            .nlink(1)
            .rdev_major(rdev.0)
            .rdev_minor(rdev.1);
        let size = u32::try_from(contents.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "file too large for cpio"))?;
        let mut writer = entry.write(&mut self.out, size);
        writer.write_all(contents)?;
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_archive_holds_what_the_kernel_and_init_need() {
        let packed = build(("debian-amd64", Isa::X86_64), b"BUSYBOX", &[]).unwrap();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
        assert!(plain.starts_with(b"070701"), "newc magic");
        let mut found = Vec::new();
        let mut rest = &plain[..];
        loop {
            let mut reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut contents = Vec::new();
            reader.read_to_end(&mut contents).unwrap();
            let entry = reader.entry();
            found.push((
                entry.name().to_owned(),
                entry.mode(),
                (entry.rdev_major(), entry.rdev_minor()),
                contents,
            ));
            rest = reader.finish().unwrap();
        }
        let get = |name: &str| found.iter().find(|f| f.0 == name).expect(name);
        assert_eq!(get("dev/console").1, 0o020_600);
        assert_eq!(get("dev/console").2, (5, 1));
        assert_eq!(get("bin/busybox").3, b"BUSYBOX");
        assert_eq!(get("init").1, 0o100_755);
        let init = std::str::from_utf8(&get("init").3).unwrap();
        assert!(init.starts_with("#!/bin/busybox sh\n"));
        assert!(init.contains("`mimic boot debian-amd64`") && init.contains("on x86-64, with"));
        assert!(!init.contains('@'), "{init}");
    }
}
