//! The smallest ELF32 file that multiboot loaders take: a header, and segments.
//!
//! Sources: Tool Interface Standard ELF 1.2; Multiboot Specification 0.6.96, section 3.1.

const EHDR: usize = 52;
const PHDR: usize = 32;
/// Segments begin here in the file: the multiboot header must lie in its first 8 KiB.
const CONTENTS: usize = 0x1000;

/// Bytes of [`multiboot_header`].
pub(super) const HEADER: u64 = 12;

/// The header that a multiboot kernel begins with.
pub(super) fn multiboot_header() -> Vec<u8> {
    let (magic, flags) = (0x1bad_b002u32, 0u32);
    let checksum = magic.wrapping_add(flags).wrapping_neg();
    [magic, flags, checksum].into_iter().flat_map(u32::to_le_bytes).collect()
}

/// A file of one segment that is loaded at `addr`.
pub(super) fn write(entry: u32, addr: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend(2u16.to_le_bytes()); // ET_EXEC
    out.extend(3u16.to_le_bytes()); // EM_386
    for v in [1, entry, EHDR as u32, 0, 0] {
        out.extend(v.to_le_bytes());
    }
    for v in [EHDR, PHDR, 1, 0, 0, 0] {
        out.extend((v as u16).to_le_bytes());
    }
    let size = bytes.len() as u32;
    // PT_LOAD; readable, writable, executable.
    for v in [1, CONTENTS as u32, addr, addr, size, size, 7, 0x1000] {
        out.extend(v.to_le_bytes());
    }
    out.resize(CONTENTS, 0);
    out.extend_from_slice(bytes);
    out
}
