//! Linux kernels for x86 in the form that boot loaders know: `bzImage`.
//!
//! Source: Linux documentation, `arch/x86/boot.rst`, "The Real-Mode Kernel Header" and "64-bit Boot Protocol".

use super::{ImageKind, Isa, LoadError, LoadedImage, MAX_IMAGE, Segment};

/// Offsets of fields of the setup header.
pub mod field {
    /// The first field; what a boot loader copies begins here.
    pub const SETUP_SECTS: usize = 0x1f1;
    /// 0xaa55.
    pub const BOOT_FLAG: usize = 0x1fe;
    /// A short jump over the header, whose length says where the header ends.
    pub const JUMP: usize = 0x200;
    /// "HdrS".
    pub const HEADER: usize = 0x202;
    /// Version of the protocol.
    pub const VERSION: usize = 0x206;
    /// Who loads.
    pub const TYPE_OF_LOADER: usize = 0x210;
    /// Options of the protocol.
    pub const LOADFLAGS: usize = 0x211;
    /// Where the 32-bit code lies.
    pub const CODE32_START: usize = 0x214;
    /// Where the initial RAM disk lies.
    pub const RAMDISK_IMAGE: usize = 0x218;
    /// Its bytes.
    pub const RAMDISK_SIZE: usize = 0x21c;
    /// Where the command line lies.
    pub const CMD_LINE_PTR: usize = 0x228;
    /// The last address that the initial RAM disk may cover.
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    /// 64-bit entry and others.
    pub const XLOADFLAGS: usize = 0x236;
    /// Most bytes of the command line, without the 0 at its end.
    pub const CMDLINE_SIZE: usize = 0x238;
    /// Where the kernel likes to lie.
    pub const PREF_ADDRESS: usize = 0x258;
    /// Bytes of memory that it needs from there.
    pub const INIT_SIZE: usize = 0x260;
    /// The header ends before this, whatever it says.
    pub const END: usize = 0x290;
}
use field::*;

const SECTOR: usize = 512;
/// Sectors of the real-mode part if the header says 0.
const DEFAULT_SETUP_SECTS: usize = 4;
/// The first version that has all that is needed here: Linux 3.8.
const LEAST_VERSION: u16 = 0x20c;
/// XLOADFLAGS: there is a 64-bit entry, so far from the beginning.
const KERNEL_64: u16 = 1;
const ENTRY_64: u64 = 0x200;

fn malformed(detail: impl Into<String>) -> LoadError {
    LoadError::Malformed { what: "Linux bzImage", detail: detail.into() }
}

/// What a boot loader must know of a Linux kernel for x86.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupHeader {
    /// The header's bytes, from [`field::SETUP_SECTS`] on.
    pub bytes: Vec<u8>,
}

impl SetupHeader {
    /// The header of a kernel that comes without one, as an ELF file: the protocol's version is all it says.
    #[must_use]
    pub fn made_up() -> Self {
        let mut header = SetupHeader { bytes: vec![0; END - SETUP_SECTS] };
        header.set(BOOT_FLAG, &0xaa55u16.to_le_bytes());
        header.set(HEADER, b"HdrS");
        header.set(VERSION, &0x020fu16.to_le_bytes());
        header.set(INITRD_ADDR_MAX, &0x7fff_ffffu32.to_le_bytes());
        header.set(CMDLINE_SIZE, &2047u32.to_le_bytes());
        header
    }

    /// A field of 4 bytes; 0 where the header has ended.
    #[must_use]
    pub fn u32(&self, offset: usize) -> u32 {
        let at = offset - SETUP_SECTS;
        let bytes = self.bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    }

    /// Sets a field, if the header has it.
    pub fn set(&mut self, offset: usize, value: &[u8]) {
        let at = offset - SETUP_SECTS;
        if let Some(bytes) = self.bytes.get_mut(at..at + value.len()) {
            bytes.copy_from_slice(value);
        }
    }
}

/// Parses a bzImage. `None`: the bytes are something else.
///
/// # Errors
/// [`LoadError`] for a damaged kernel, and for one without a 64-bit entry.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<LoadedImage>, LoadError> {
    let has = |offset: usize, magic: &[u8]| {
        bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic))
    };
    if !has(HEADER, b"HdrS") || !has(BOOT_FLAG, &[0x55, 0xaa]) {
        return Ok(None);
    }
    let end = HEADER + usize::from(*bytes.get(JUMP + 1).unwrap_or(&0));
    let header = bytes.get(SETUP_SECTS..end.min(END)).ok_or_else(|| malformed("it is cut off"))?;
    let header = SetupHeader { bytes: header.to_vec() };
    let u16 = |offset| header.u32(offset) as u16;
    let (version, flags) = (u16(VERSION), u16(XLOADFLAGS));
    if version < LEAST_VERSION || flags & KERNEL_64 == 0 {
        return Err(LoadError::Unsupported {
            what: "a 32-bit or very old Linux kernel",
            hint: "give a 64-bit kernel of Linux 3.8 or later",
        });
    }
    let sectors = match usize::from(header.bytes[0]) {
        0 => DEFAULT_SETUP_SECTS,
        sectors => sectors,
    };
    let code = bytes
        .get((sectors + 1) * SECTOR..)
        .filter(|code| code.len() as u64 > ENTRY_64)
        .ok_or_else(|| malformed("its protected-mode part is missing"))?;
    let base = u64::from(header.u32(PREF_ADDRESS)) | u64::from(header.u32(PREF_ADDRESS + 4)) << 32;
    let size = u64::from(header.u32(INIT_SIZE)).max(code.len() as u64);
    if size > MAX_IMAGE || base.checked_add(size).is_none() {
        return Err(malformed(format!("it wants {size:#x} bytes at {base:#x}")));
    }
    Ok(Some(LoadedImage {
        isa: Isa::X86_64,
        kind: ImageKind::LinuxX86,
        segments: vec![Segment { addr: base, bytes: code.to_vec(), size }],
        setup: Some(header),
        ..LoadedImage::nothing(base + ENTRY_64)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::{LoadOptions, parse};

    /// A bzImage of one setup sector, with this version and these XLOADFLAGS.
    fn kernel(version: u16, flags: u16) -> Vec<u8> {
        let mut bytes = vec![0; 0x1000];
        let mut set = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        set(SETUP_SECTS, &[1]);
        set(BOOT_FLAG, &[0x55, 0xaa, 0xeb, 0x6a]);
        set(HEADER, b"HdrS");
        set(VERSION, &version.to_le_bytes());
        set(XLOADFLAGS, &flags.to_le_bytes());
        set(PREF_ADDRESS, &0x100_0000u64.to_le_bytes());
        set(INIT_SIZE, &0x20_0000u32.to_le_bytes());
        set(2 * SECTOR, b"code");
        bytes
    }

    #[test]
    fn a_kernel_lies_where_it_likes_and_claims_its_memory() {
        let image = parse(&kernel(0x20f, 1), &LoadOptions::default()).unwrap();
        assert_eq!((image.isa, image.kind), (Isa::X86_64, ImageKind::LinuxX86));
        assert_eq!(image.entry, 0x100_0200);
        let segment = &image.segments[0];
        assert_eq!(
            (segment.addr, segment.bytes.len(), segment.size),
            (0x100_0000, 0xc00, 0x20_0000)
        );
        assert!(segment.bytes.starts_with(b"code"));
        let header = image.setup.unwrap();
        assert_eq!(header.bytes.len(), 0x26c - 0x1f1);
        assert_eq!(header.u32(INIT_SIZE), 0x20_0000);
    }

    #[test]
    fn what_cannot_be_entered_is_refused() {
        let refused = |bytes: &[u8]| parse(bytes, &LoadOptions::default()).unwrap_err().to_string();
        assert!(refused(&kernel(0x20f, 0)).contains("32-bit"));
        assert!(refused(&kernel(0x204, 1)).contains("very old"));
        assert!(refused(&kernel(0x20f, 1)[..0x400]).contains("protected-mode part is missing"));
        assert!(refused(&kernel(0x20f, 1)[..0x210]).contains("cut off"));
        let mut huge = kernel(0x20f, 1);
        huge[PREF_ADDRESS + 7] = 0xff;
        huge[INIT_SIZE + 3] = 0xff;
        assert!(refused(&huge).contains("wants"));
    }
}
