//! Multiboot 2 kernels: what their header asks of a loader.
//!
//! Source: Multiboot2 Specification version 2.0, section 3.1. Where it leaves room, this does as GRUB 2 does.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::Header;
use goblin::elf::section_header::{SHT_NOBITS, SectionHeader};

use super::x86::{self, Addresses};
use super::{Bits, ImageKind, Isa, LoadError, LoadedImage, is_elf};

/// Where the header must end, and at multiples of what it may begin.
const SEARCH: usize = 32768;
const ALIGNMENT: usize = 8;
const MAGIC: u32 = 0xe852_50d6;
/// Architectures: 32-bit protected mode of i386, 32-bit MIPS.
const I386: u32 = 0;
const MIPS: u32 = 4;

/// A tag's flag: a loader may leave it out of account.
const OPTIONAL: u16 = 1;
/// Types of tags of the header.
mod tag {
    pub(super) const END: u16 = 0;
    pub(super) const INFORMATION_REQUEST: u16 = 1;
    pub(super) const ADDRESS: u16 = 2;
    pub(super) const ENTRY: u16 = 3;
    pub(super) const CONSOLE: u16 = 4;
    pub(super) const FRAMEBUFFER: u16 = 5;
    pub(super) const MODULE_ALIGNMENT: u16 = 6;
    pub(super) const EFI_BOOT_SERVICES: u16 = 7;
    pub(super) const EFI_I386_ENTRY: u16 = 8;
    pub(super) const EFI_AMD64_ENTRY: u16 = 9;
    pub(super) const RELOCATABLE: u16 = 10;
}
/// Console flags: a console that the kernel knows must be there.
const CONSOLE_REQUIRED: u32 = 1;
/// What the boot information may hold, by the types of its tags: all that there are, and those that only EFI has.
const KNOWN_INFORMATION: std::ops::RangeInclusive<u32> = 0..=21;
const EFI_INFORMATION: [u32; 6] = [11, 12, 17, 18, 19, 20];

/// What a kernel wants beside its image and its entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Multiboot2 {
    /// Where it may lie, if not only where it is linked.
    pub relocation: Option<Relocation>,
    /// The sections of its ELF file.
    pub sections: Option<Sections>,
}

/// Where an image may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The lowest and the highest address that it may cover.
    pub range: (u32, u32),
    /// Its first address is a multiple of this, which is not 0.
    pub alignment: u32,
    /// Of all such places, which.
    pub preference: Preference,
}

/// Which place is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// Any.
    None,
    /// The lowest.
    Lowest,
    /// The highest.
    Highest,
}

/// The section headers of an ELF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sections {
    /// How many.
    pub count: u32,
    /// Bytes of each.
    pub entry_size: u32,
    /// The one with the sections' names.
    pub names: u32,
    /// The headers.
    pub headers: Vec<u8>,
    /// Sections that have no address, so that the loader finds them one.
    pub unplaced: Vec<Unplaced>,
}

/// A section without an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// Where in [`Sections::headers`] its address belongs, in as many bytes.
    pub address: std::ops::Range<usize>,
    /// The address is a multiple of this, a power of two.
    pub alignment: u64,
    /// Contents.
    pub bytes: Vec<u8>,
}

fn malformed(detail: impl Into<String>) -> LoadError {
    LoadError::Malformed { what: "multiboot 2 kernel", detail: detail.into() }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The offset of the header.
///
/// # Errors
/// What looks like a header is for another architecture, or damaged.
fn find(bytes: &[u8]) -> Result<Option<usize>, LoadError> {
    let mut damaged = false;
    for at in (0..bytes.len().min(SEARCH)).step_by(ALIGNMENT) {
        let field = |index: usize| u32_at(bytes, at + 4 * index);
        let (Some(MAGIC), Some(architecture @ (I386 | MIPS)), Some(length), Some(checksum)) =
            (field(0), field(1), field(2), field(3))
        else {
            continue;
        };
        let sum = [MAGIC, architecture, length, checksum].into_iter().fold(0, u32::wrapping_add);
        match (sum, architecture) {
            (0, I386) => return Ok(Some(at)),
            (0, _) => {
                return Err(LoadError::WrongArch {
                    what: "a multiboot 2 kernel",
                    arch: "MIPS".into(),
                    hint: "give one for i386 or x86-64",
                });
            }
            _ => damaged = true,
        }
    }
    if damaged {
        return Err(malformed("magic, architecture, length and checksum do not add up to 0"));
    }
    Ok(None)
}

/// What a header asks for.
#[derive(Default)]
struct Wishes {
    /// Where in the file the header is.
    at: usize,
    addresses: Option<Addresses>,
    entry: Option<u32>,
    efi_entry: bool,
    relocation: Option<Relocation>,
}

impl Wishes {
    /// Reads the tags behind the header at `at`.
    fn read(bytes: &[u8], at: usize) -> Result<Self, LoadError> {
        let bytes = &bytes[..bytes.len().min(SEARCH)];
        let mut wishes = Wishes { at, ..Wishes::default() };
        let mut from = at + 16;
        loop {
            let (Some(word), Some(size)) = (u32_at(bytes, from), u32_at(bytes, from + 4)) else {
                return Err(malformed("there is no end of its header's tags"));
            };
            let (kind, flags) = (word as u16, (word >> 16) as u16);
            if kind == tag::END {
                return Ok(wishes);
            }
            let cut = || malformed(format!("tag {kind} of its header is cut off ({size} bytes)"));
            let end = from.checked_add(size as usize).filter(|_| size >= 8).ok_or_else(cut)?;
            let contents = bytes.get(from + 8..end).ok_or_else(cut)?;
            wishes.take(kind, flags & OPTIONAL != 0, contents)?.ok_or_else(cut)?;
            from = end.next_multiple_of(ALIGNMENT);
        }
    }

    /// Takes a tag. `None`: it is too short.
    fn take(
        &mut self,
        kind: u16,
        optional: bool,
        contents: &[u8],
    ) -> Result<Option<()>, LoadError> {
        let field = |index: usize| u32_at(contents, 4 * index);
        match kind {
            tag::INFORMATION_REQUEST if !optional => {
                for index in 0..contents.len() / 4 {
                    information(field(index).unwrap_or_default())?;
                }
            }
            tag::ADDRESS => {
                let (Some(header), Some(load), Some(load_end), Some(bss_end)) =
                    (field(0), field(1), field(2), field(3))
                else {
                    return Ok(None);
                };
                // All ones: the file is loaded from its beginning.
                let load =
                    if load == u32::MAX { header.wrapping_sub(self.at as u32) } else { load };
                self.addresses = Some(Addresses { header, load, load_end, bss_end });
            }
            tag::ENTRY => match field(0) {
                Some(entry) => self.entry = Some(entry),
                None => return Ok(None),
            },
            tag::CONSOLE => match field(0) {
                Some(flags) if flags & CONSOLE_REQUIRED != 0 && !optional => {
                    return Err(needs("a display"));
                }
                Some(_) => {}
                None => return Ok(None),
            },
            tag::RELOCATABLE => {
                let (Some(least), Some(most), Some(alignment), Some(preference)) =
                    (field(0), field(1), field(2), field(3))
                else {
                    return Ok(None);
                };
                let preference = match preference {
                    1 => Preference::Lowest,
                    2 => Preference::Highest,
                    _ => Preference::None,
                };
                let (range, alignment) = ((least, most), alignment.max(1));
                self.relocation = Some(Relocation { range, alignment, preference });
            }
            // Without EFI these count for nothing.
            tag::EFI_I386_ENTRY | tag::EFI_AMD64_ENTRY => self.efi_entry = true,
            tag::EFI_BOOT_SERVICES => {}
            // A mode of the display is but recommended; modules are always on page boundaries.
            tag::INFORMATION_REQUEST | tag::FRAMEBUFFER | tag::MODULE_ALIGNMENT => {}
            _ if optional => {}
            _ => return Err(malformed(format!("its header has the unknown tag {kind}"))),
        }
        Ok(Some(()))
    }
}

fn needs(what: &'static str) -> LoadError {
    LoadError::Needs { what: "multiboot 2 kernel", needs: what }
}

/// Whether a piece of boot information that a kernel cannot do without may be had.
fn information(kind: u32) -> Result<(), LoadError> {
    if EFI_INFORMATION.contains(&kind) {
        return Err(needs("UEFI"));
    }
    if !KNOWN_INFORMATION.contains(&kind) {
        return Err(malformed(format!("it asks for unknown boot information ({kind})")));
    }
    Ok(())
}

/// Makes a kernel of a file that has a header. `None`: there is none.
///
/// # Errors
/// [`LoadError`] if the header asks for what is not there, or for the impossible.
pub(super) fn parse(
    bytes: &[u8],
    elf: Option<&LoadedImage>,
) -> Result<Option<LoadedImage>, LoadError> {
    let Some(at) = find(bytes)? else { return Ok(None) };
    let wishes = Wishes::read(bytes, at)?;
    let segments = match (wishes.addresses, elf) {
        (Some(addresses), _) => {
            vec![x86::by_addresses(bytes, at, addresses, malformed)?]
        }
        (None, Some(elf)) => elf.segments.clone(),
        (None, None) => {
            return Err(malformed("it is no ELF file, and its header has no addresses"));
        }
    };
    let entry = match (wishes.entry, elf) {
        (Some(entry), _) => u64::from(entry),
        (None, Some(elf)) if wishes.addresses.is_none() => elf.entry,
        _ if wishes.efi_entry => return Err(needs("UEFI")),
        _ => return Err(malformed("its header has addresses, but no entry")),
    };
    if !segments.iter().any(|segment| (segment.addr..segment.addr + segment.size).contains(&entry))
    {
        return Err(malformed(format!("its entry {entry:#x} lies outside of it")));
    }
    let sections = if wishes.addresses.is_none() { sections(bytes) } else { None };
    Ok(Some(LoadedImage {
        isa: Isa::X86_64,
        kind: ImageKind::Multiboot2,
        bits: Bits::B32,
        segments,
        symbols: elf.map(|elf| elf.symbols.clone()).unwrap_or_default(),
        multiboot2: Some(Multiboot2 { relocation: wishes.relocation, sections }),
        ..LoadedImage::nothing(entry)
    }))
}

/// The sections of an ELF file, if it has any that can be read.
fn sections(bytes: &[u8]) -> Option<Sections> {
    if !is_elf(bytes) {
        return None;
    }
    let header: Header = goblin::elf::Elf::parse_header(bytes).ok()?;
    let container = header.container().ok()?;
    let ctx = Ctx::new(container, Endian::Little);
    let (from, count) = (usize::try_from(header.e_shoff).ok()?, usize::from(header.e_shnum));
    let entry_size = SectionHeader::size(ctx);
    if count == 0 || usize::from(header.e_shentsize) != entry_size {
        return None;
    }
    let table = bytes.get(from..from.checked_add(count * entry_size)?)?;
    let parsed = SectionHeader::parse(bytes, from, count, ctx).ok()?;
    // Where sh_addr lies (ELF-32 and ELF-64 object file formats, "Sections").
    let (address, width) = if container == Container::Big { (16, 8) } else { (12, 4) };
    // Sections of a real file share no bytes; a hostile one repeats them to make us allocate.
    let mut left = bytes.len();
    let mut unplaced = Vec::new();
    for (index, section) in parsed.iter().enumerate() {
        if section.sh_addr != 0 || section.sh_size == 0 || section.sh_type == SHT_NOBITS {
            continue;
        }
        let Some(contents) = section.file_range().and_then(|range| bytes.get(range)) else {
            continue;
        };
        left = left.checked_sub(contents.len())?;
        let at = index * entry_size + address;
        let alignment = section.sh_addralign.clamp(1, 0x1000).next_power_of_two();
        unplaced.push(Unplaced { address: at..at + width, alignment, bytes: contents.to_vec() });
    }
    Some(Sections {
        count: count as u32,
        entry_size: entry_size as u32,
        names: header.e_shstrndx.into(),
        headers: table.to_vec(),
        unplaced,
    })
}
