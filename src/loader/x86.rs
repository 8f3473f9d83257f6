//! x86 images: multiboot kernels, and ROMs that begin at the reset vector.
//!
//! Source: Multiboot Specification version 0.6.96, section 3.1; for its version 2, see [`multiboot2`].

use super::{Bits, ImageKind, Isa, LoadError, LoadedImage, Segment, multiboot2};

/// Where the header must end.
const SEARCH: usize = 8192;
const MAGIC: u32 = 0x1bad_b002;
/// Flags that a loader must understand: modules on page boundaries, memory information, video mode; addresses.
const PAGE_ALIGN: u32 = 1;
const MEMORY: u32 = 2;
const VIDEO: u32 = 4;
const ADDRESSES: u32 = 1 << 16;
/// Flags that must be understood.
const MANDATORY: u32 = 0xffff;

/// Sizes of ROMs.
const LEAST_ROM: usize = 64 << 10;
const MOST_ROM: usize = 16 << 20;
/// From the end of a ROM, where the processor begins.
const RESET_VECTOR: usize = 16;

fn malformed(detail: impl Into<String>) -> LoadError {
    LoadError::Malformed { what: "multiboot kernel", detail: detail.into() }
}

/// The offset of a multiboot header, and its flags.
fn header(bytes: &[u8]) -> Option<(usize, u32)> {
    let field = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    (0..bytes.len().min(SEARCH)).step_by(4).find_map(|at| {
        let (magic, flags, checksum) = (field(at)?, field(at + 4)?, field(at + 8)?);
        let sum = magic.wrapping_add(flags).wrapping_add(checksum);
        (magic == MAGIC && sum == 0 && at + 12 <= SEARCH).then_some((at, flags))
    })
}

/// Makes a multiboot kernel of a file that has a header of version 2 or 1. If it has both, version 2 tells it more;
/// version 1 helps where the other asks for what is not there. `None`: there is no header.
///
/// # Errors
/// [`LoadError`] if the header asks for what is not there, or for the impossible.
pub(super) fn multiboot(
    bytes: &[u8],
    elf: Option<&LoadedImage>,
) -> Result<Option<LoadedImage>, LoadError> {
    match multiboot2::parse(bytes, elf) {
        Ok(None) => multiboot1(bytes, elf),
        Err(error) => match multiboot1(bytes, elf) {
            Ok(Some(image)) => Ok(Some(image)),
            _ => Err(error),
        },
        image => image,
    }
}

/// Makes a multiboot kernel of an ELF file that has a header of version 1, or of any file whose header has addresses.
fn multiboot1(bytes: &[u8], elf: Option<&LoadedImage>) -> Result<Option<LoadedImage>, LoadError> {
    let Some((at, flags)) = header(bytes) else { return Ok(None) };
    if flags & MANDATORY & !(PAGE_ALIGN | MEMORY | VIDEO) != 0 {
        return Err(malformed(format!("it asks for unknown features ({flags:#x})")));
    }
    if flags & ADDRESSES == 0 {
        return match elf {
            Some(elf) if elf.bits == Bits::B32 => {
                Ok(Some(LoadedImage { kind: ImageKind::Multiboot, ..elf.clone() }))
            }
            // A 64-bit ELF is entered by its own rules; a stray match in other files means nothing.
            _ => Ok(None),
        };
    }
    let field = |index: usize| {
        let from = at + 12 + 4 * index;
        let field = bytes.get(from..from + 4).and_then(|bytes| bytes.try_into().ok());
        field.map(u32::from_le_bytes).ok_or_else(|| malformed("its header is cut off"))
    };
    let addresses =
        Addresses { header: field(0)?, load: field(1)?, load_end: field(2)?, bss_end: field(3)? };
    let entry = field(4)?;
    let segment = by_addresses(bytes, at, addresses, malformed)?;
    if !(segment.addr..segment.addr + segment.size).contains(&entry.into()) {
        return Err(malformed(format!("its entry {entry:#x} lies outside of it")));
    }
    let symbols = elf.map(|elf| elf.symbols.clone()).unwrap_or_default();
    Ok(Some(LoadedImage {
        isa: Isa::X86_64,
        kind: ImageKind::Multiboot,
        bits: Bits::B32,
        segments: vec![segment],
        symbols,
        ..LoadedImage::nothing(entry.into())
    }))
}

/// The addresses in a multiboot header, of either version.
#[derive(Clone, Copy)]
pub(super) struct Addresses {
    /// Of the header itself.
    pub(super) header: u32,
    /// Of what is loaded.
    pub(super) load: u32,
    /// The end of what is in the file; 0: the file's end.
    pub(super) load_end: u32,
    /// The end of the zeros behind it; 0: there are none.
    pub(super) bss_end: u32,
}

/// What a header at `at` wants to be loaded from the file.
pub(super) fn by_addresses(
    bytes: &[u8],
    at: usize,
    Addresses { header, load, load_end, bss_end }: Addresses,
    malformed: fn(&'static str) -> LoadError,
) -> Result<Segment, LoadError> {
    let first = (at as u64 + u64::from(load))
        .checked_sub(header.into())
        .filter(|_| load <= header)
        .and_then(|first| usize::try_from(first).ok())
        .ok_or_else(|| malformed("it is loaded from before its beginning"))?;
    let last = match load_end {
        0 => bytes.len(),
        end => end
            .checked_sub(load)
            .map(|len| first + len as usize)
            .ok_or_else(|| malformed("it ends before its beginning"))?,
    };
    let contents = bytes.get(first..last).ok_or_else(|| malformed("it is cut off"))?.to_vec();
    let len = contents.len() as u64;
    let size = match bss_end {
        0 => len,
        end => u64::from(end.saturating_sub(load)).max(len),
    };
    Ok(Segment { addr: load.into(), bytes: contents, size })
}

/// Takes a file of a ROM's size that has a jump where a processor begins for a ROM.
pub(super) fn rom(bytes: &[u8]) -> Option<LoadedImage> {
    let len = bytes.len();
    let sized = (LEAST_ROM..=MOST_ROM).contains(&len) && len.is_multiple_of(LEAST_ROM);
    // Near jump, far jump, short jump.
    let jumps = |at: usize| matches!(bytes.get(at), Some(0xe9..=0xeb));
    if !sized || !jumps(len - RESET_VECTOR) {
        return None;
    }
    let segment = Segment { addr: (1 << 32) - len as u64, bytes: bytes.to_vec(), size: len as u64 };
    Some(LoadedImage {
        isa: Isa::X86_64,
        kind: ImageKind::Rom,
        bits: Bits::B16,
        segments: vec![segment],
        ..LoadedImage::nothing(0xffff_fff0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::{LoadOptions, parse};

    /// A file with a header at 8 that has these fields behind its checksum.
    fn file(flags: u32, fields: &[u32], len: usize) -> Vec<u8> {
        let mut bytes = vec![0x90; len];
        let mut words = vec![MAGIC, flags, MAGIC.wrapping_add(flags).wrapping_neg()];
        words.extend(fields);
        for (index, word) in words.iter().enumerate() {
            bytes[8 + 4 * index..12 + 4 * index].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn load(bytes: &[u8]) -> Result<LoadedImage, LoadError> {
        parse(bytes, &LoadOptions::default())
    }

    #[test]
    fn a_flat_kernel_lies_where_its_header_says() {
        let image = load(&file(ADDRESSES, &[0x10_0008, 0x10_0000, 0, 0x10_2000, 0x10_0040], 0x100))
            .unwrap();
        assert_eq!(
            (image.isa, image.kind, image.entry),
            (Isa::X86_64, ImageKind::Multiboot, 0x10_0040)
        );
        let segment = &image.segments[0];
        assert_eq!((segment.addr, segment.bytes.len(), segment.size), (0x10_0000, 0x100, 0x2000));
        // Loaded from the header on, and not up to the end.
        let image = load(&file(ADDRESSES, &[0x10_0000, 0x10_0000, 0x10_0080, 0, 0x10_0040], 0x100))
            .unwrap();
        assert_eq!((image.segments[0].bytes.len(), image.segments[0].size), (0x80, 0x80));
    }

    #[test]
    fn impossible_headers_are_refused() {
        for (flags, fields, what) in [
            (ADDRESSES, [0x10_0000, 0x10_0008, 0, 0, 0x10_0040], "before"),
            (ADDRESSES, [0x10_0040, 0x10_0000, 0, 0, 0x10_0040], "before"),
            (ADDRESSES, [0x10_0008, 0x10_0000, 0x10_1000, 0, 0x10_0040], "cut off"),
            (ADDRESSES, [0x10_0008, 0x10_0000, 0xf_0000, 0, 0x10_0040], "ends before"),
            (ADDRESSES, [0x10_0008, 0x10_0000, 0, 0, 0x20_0000], "entry"),
            (ADDRESSES | 8, [0x10_0008, 0x10_0000, 0, 0, 0x10_0040], "unknown"),
        ] {
            let error = load(&file(flags, &fields, 0x100)).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        assert!(matches!(load(&file(0, &[], 0x100)), Err(LoadError::Unknown)));
    }

    #[test]
    fn a_rom_has_a_jump_at_the_reset_vector() {
        let mut bytes = vec![0xff; 128 << 10];
        assert!(matches!(load(&bytes), Err(LoadError::Unknown)));
        bytes[(128 << 10) - 16] = 0xea;
        let image = load(&bytes).unwrap();
        assert_eq!((image.isa, image.kind), (Isa::X86_64, ImageKind::Rom));
        assert_eq!(image.segments[0].addr, 0xfffe_0000);
        bytes.push(0);
        assert!(matches!(load(&bytes), Err(LoadError::Unknown)));
    }
}
