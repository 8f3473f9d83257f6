//! Linux `Image` files, and the wrappers around them.
//!
//! Source: Linux documentation, `arch/riscv/boot-image-header.rst` (header version 0.2) and, for the
//! compressed EFI wrapper, `drivers/firmware/efi/libstub/zboot-header.S`.

use std::io::Read;

use super::{ImageKind, LoadError, LoadedImage, MAX_IMAGE, Segment};

const HEADER: usize = 64;
const TEXT_OFFSET: usize = 8;
const IMAGE_SIZE: usize = 16;
const FLAGS: usize = 24;
const MAGIC2: usize = 56;
/// `flags` bit 0: the kernel is big endian.
const FLAG_BIG_ENDIAN: u64 = 1;
/// Alignment of the load address of a 64-bit kernel (PMD_SIZE).
const ALIGNMENT: u64 = 2 << 20;

/// Takes a wrapper off: gzip, or the EFI "zboot" wrapper around gzip. `None`: there is none.
///
/// # Errors
/// [`LoadError`] for damaged data, other compressors and bombs.
pub(super) fn unpack(bytes: &[u8]) -> Result<Option<Vec<u8>>, LoadError> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return gunzip(bytes).map(Some);
    }
    if !(bytes.starts_with(b"MZ") && bytes.get(4..8) == Some(b"zimg")) {
        return Ok(None);
    }
    let damaged =
        |detail: &str| LoadError::Malformed { what: "EFI zboot kernel", detail: detail.into() };
    let (Some(offset), Some(size), Some(kind)) =
        (u32_at(bytes, 8), u32_at(bytes, 12), bytes.get(24..30))
    else {
        return Err(damaged("its header is cut off"));
    };
    if !kind.starts_with(b"gzip\0") {
        return Err(LoadError::Unsupported {
            what: "an EFI zboot kernel that is not compressed by gzip",
            hint: "give the uncompressed `Image` (arch/riscv/boot/Image) instead",
        });
    }
    let payload = (offset as usize)
        .checked_add(size as usize)
        .and_then(|end| bytes.get(offset as usize..end))
        .ok_or_else(|| damaged("its payload reaches beyond the end of the file"))?;
    gunzip(payload).map(Some)
}

/// Parses an uncompressed `Image`, with or without the EFI stub's PE header around it (the two share
/// their first 64 bytes). `None`: the bytes are something else.
///
/// # Errors
/// [`LoadError`] for a damaged or a big-endian kernel.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<LoadedImage>, LoadError> {
    if bytes.len() < HEADER || &bytes[MAGIC2..MAGIC2 + 4] != b"RSC\x05" {
        return Ok(None);
    }
    let field = |offset| u64_at(bytes, offset).unwrap_or(0);
    if field(FLAGS) & FLAG_BIG_ENDIAN != 0 {
        return Err(LoadError::WrongArch {
            what: "a Linux kernel",
            arch: "big-endian RISC-V".into(),
            hint: "give a little-endian RV64 kernel",
        });
    }
    let text_offset = field(TEXT_OFFSET);
    if !text_offset.is_multiple_of(4096) || text_offset > ALIGNMENT {
        return Err(LoadError::Malformed {
            what: "Linux Image",
            detail: format!("its text offset is {text_offset:#x}"),
        });
    }
    let claimed = field(IMAGE_SIZE);
    if claimed > MAX_IMAGE {
        return Err(LoadError::Malformed {
            what: "Linux Image",
            detail: format!("it claims {claimed} bytes of memory"),
        });
    }
    let size = bytes.len() as u64;
    Ok(Some(LoadedImage {
        kind: ImageKind::LinuxImage,
        segments: vec![Segment { addr: 0, bytes: bytes.to_vec(), size }],
        // The claim covers .bss, which the file does not hold.
        image_size: claimed.max(size),
        text_offset,
        ..LoadedImage::nothing(0)
    }))
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let mut unpacked = Vec::new();
    // The first member alone: signed kernels carry bytes behind it.
    flate2::read::GzDecoder::new(bytes)
        .take(MAX_IMAGE + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| LoadError::Malformed { what: "gzip file", detail: error.to_string() })?;
    if unpacked.len() as u64 > MAX_IMAGE {
        return Err(LoadError::TooLarge);
    }
    Ok(unpacked)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}
