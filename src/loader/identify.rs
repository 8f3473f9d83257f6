//! Files that are no image of ours, recognised so that the message can say what they are.

use super::LoadError;

/// A signature at a place in the file.
struct Magic {
    offset: usize,
    bytes: &'static [u8],
    what: &'static str,
    hint: &'static str,
}

const UNCOMPRESS: &str = "decompress it first and give the result (gzip alone is unpacked here)";
const DISK: &str =
    "disks are not supported yet; give a kernel with --kernel and an initramfs with --initrd";

/// Ordered: containers whose signature is weak come last.
const MAGICS: &[Magic] = &[
    Magic { offset: 0, bytes: b"\xfd7zXZ\0", what: "an xz-compressed file", hint: UNCOMPRESS },
    Magic {
        offset: 0,
        bytes: b"\x28\xb5\x2f\xfd",
        what: "a zstd-compressed file",
        hint: UNCOMPRESS,
    },
    Magic { offset: 0, bytes: b"BZh", what: "a bzip2-compressed file", hint: UNCOMPRESS },
    Magic {
        offset: 0,
        bytes: b"\x04\x22\x4d\x18",
        what: "an lz4-compressed file",
        hint: UNCOMPRESS,
    },
    Magic {
        offset: 0,
        bytes: b"\x02\x21\x4c\x18",
        what: "an lz4-compressed file",
        hint: UNCOMPRESS,
    },
    Magic {
        offset: 0,
        bytes: b"PK\x03\x04",
        what: "a zip archive",
        hint: "unpack it and give a file in it",
    },
    Magic {
        offset: 257,
        bytes: b"ustar",
        what: "a tar archive",
        hint: "unpack it and give a file in it",
    },
    Magic {
        offset: 0,
        bytes: b"!<arch>\ndebian-binary",
        what: "a Debian package",
        hint: "unpack it with `dpkg-deb -x` and give the kernel in it",
    },
    Magic {
        offset: 0,
        bytes: b"!<arch>\n",
        what: "a library archive",
        hint: "link it into an executable first",
    },
    Magic {
        offset: 0,
        bytes: b"070701",
        what: "an initramfs",
        hint: "give it with --initrd, and a kernel with --kernel",
    },
    Magic {
        offset: 0,
        bytes: b"\xd0\x0d\xfe\xed",
        what: "a device tree (or FIT image)",
        hint: "the board makes its own device tree; give the kernel `Image`",
    },
    Magic {
        offset: 0,
        bytes: b"\x27\x05\x19\x56",
        what: "a U-Boot legacy image",
        hint: "give the kernel `Image` it was made from",
    },
    Magic { offset: 0x8001, bytes: b"CD001", what: "an ISO 9660 disc", hint: DISK },
    Magic { offset: 0, bytes: b"QFI\xfb", what: "a qcow2 disk image", hint: DISK },
    Magic { offset: 0, bytes: b"KDMV", what: "a VMDK disk image", hint: DISK },
    Magic { offset: 0, bytes: b"vhdxfile", what: "a VHDX disk image", hint: DISK },
    Magic { offset: 0x40, bytes: b"\x7f\x10\xda\xbe", what: "a VDI disk image", hint: DISK },
    Magic { offset: 0, bytes: b"hsqs", what: "a squashfs file system", hint: DISK },
    Magic { offset: 512, bytes: b"EFI PART", what: "a disk image with a GPT", hint: DISK },
    Magic { offset: 0x438, bytes: b"\x53\xef", what: "an ext2/3/4 file system", hint: DISK },
    Magic { offset: 0, bytes: b"#!", what: "a script", hint: "give an ELF file or a Linux Image" },
];

/// Machines of PE files (UEFI specification 2.10, section 2.1.1).
const PE_MACHINES: &[(u16, &str)] = &[
    (0x014c, "i386"),
    (0x8664, "x86-64"),
    (0x01c0, "ARM"),
    (0x01c2, "ARM"),
    (0xaa64, "AArch64"),
    (0x6264, "LoongArch64"),
    (0x5032, "RV32"),
    (0x5128, "RV128"),
];

/// The reason why these bytes cannot be started, when they are something known.
pub(super) fn foreign(bytes: &[u8]) -> Option<LoadError> {
    let has = |offset: usize, magic: &[u8]| {
        bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic))
    };
    // Linux documentation, arch/arm64/booting.rst, field `magic`.
    if has(0x38, b"ARM\x64") {
        return Some(LoadError::WrongArch {
            what: "a Linux Image",
            arch: "AArch64".into(),
            hint: "give a kernel for RV64",
        });
    }
    if has(0, b"MZ") {
        return Some(portable_executable(bytes));
    }
    if let Some(magic) = MAGICS.iter().find(|m| has(m.offset, m.bytes)) {
        return Some(LoadError::Unsupported { what: magic.what, hint: magic.hint });
    }
    if has(510, b"\x55\xaa") {
        return Some(if bytes.len() == 512 {
            x86("a boot sector")
        } else if partitioned(bytes) {
            LoadError::Unsupported { what: "a disk image with an MBR", hint: DISK }
        } else {
            x86("a boot sector or floppy image")
        });
    }
    None
}

fn x86(what: &'static str) -> LoadError {
    LoadError::WrongArch {
        what,
        arch: "x86".into(),
        hint: "this board starts Linux and multiboot kernels, flat binaries (--load-addr 0x7c00 --bits 16) and ROMs; it has no BIOS yet",
    }
}

fn portable_executable(bytes: &[u8]) -> LoadError {
    let uefi = LoadError::Unsupported {
        what: "a UEFI application",
        hint: "there is no UEFI firmware yet; give the Linux Image it would start",
    };
    let header = bytes.get(0x3c..0x40).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let machine =
        header.and_then(|h| bytes.get(h as usize..)).filter(|pe| pe.starts_with(b"PE\0\0"));
    let Some(&[low, high]) = machine.and_then(|pe| pe.get(4..6)) else { return uefi };
    let machine = u16::from_le_bytes([low, high]);
    match PE_MACHINES.iter().find(|(number, _)| *number == machine) {
        Some((_, arch)) => LoadError::WrongArch {
            what: "a UEFI application or Windows program",
            arch: (*arch).into(),
            hint: "give an RV64 file",
        },
        None => uefi,
    }
}

/// True when the four entries of a master boot record look like a partition table.
fn partitioned(bytes: &[u8]) -> bool {
    let Some(table) = bytes.get(446..510) else { return false };
    table.chunks_exact(16).all(|entry| entry[0] & 0x7f == 0)
        && table.chunks_exact(16).any(|entry| entry[4] != 0)
}
