//! What a kernel is told by the Multiboot2 Specification, version 2.0, section 3.6.
//!
//! There is nothing to tell of a boot device, a display, APM, EFI and networks.

use super::Piece;
use super::multiboot::{self, INFO, INFO_END, LOADER, MODULE};
use super::pc::{PAGE, free};
use crate::board::pc;
use crate::loader::LoadedImage;
use crate::loader::multiboot2::{Preference, Relocation, Sections};
use crate::machine::MachineError;
use crate::machine::spec::MachineSpec;

/// What EAX holds at the entry.
pub(super) const EAX: u32 = 0x36d7_6289;

/// Types of tags.
const END: u32 = 0;
const COMMAND_LINE: u32 = 1;
const LOADER_NAME: u32 = 2;
const MODULES: u32 = 3;
const BASIC_MEMORY: u32 = 4;
const MEMORY_MAP: u32 = 6;
const ELF_SECTIONS: u32 = 9;
const ACPI_OLD: u32 = 14;
const ACPI_NEW: u32 = 15;
const LOAD_BASE: u32 = 21;

/// Bytes of an entry of the memory map.
const MAP_ENTRY: u32 = 24;
/// Bytes of ACPI's root pointer, in its first version and since.
const OLD_RSDP: usize = 20;

/// The image as it lies in memory: where it is linked, or where its header allows.
///
/// # Errors
/// [`MachineError`] if it allows no place where RAM is.
pub(super) fn placed(spec: &MachineSpec) -> Result<LoadedImage, MachineError> {
    let mut image = spec.image.clone();
    let relocation = image.multiboot2.as_ref().and_then(|wishes| wishes.relocation);
    if let (Some(relocation), Some((low, high))) = (relocation, image.span()) {
        let place = relocated(relocation, low, high - low, pc::low_memory(spec.memory));
        let place = place.ok_or_else(|| {
            let Relocation { range: (least, most), alignment, .. } = relocation;
            MachineError::Placement(format!(
                "this kernel wants to lie between {least:#x} and {most:#x}, at a multiple of {alignment:#x}: there are \
                 no {:#x} bytes of RAM there, above 1 MiB; try --mem",
                high - low
            ))
        })?;
        if place != low {
            image.move_by(place.wrapping_sub(low));
        }
    }
    Ok(image)
}

/// Where `size` bytes of an image go that is linked at `linked`, below `top`.
fn relocated(relocation: Relocation, linked: u64, size: u64, top: u64) -> Option<u64> {
    let Relocation { range: (least, most), alignment, preference } = relocation;
    let alignment = u64::from(alignment);
    let lowest = u64::from(least).max(1 << 20).next_multiple_of(alignment);
    let last = top.min(u64::from(most) + 1).checked_sub(size)?;
    let highest = last - last % alignment;
    if lowest > highest {
        return None;
    }
    let fits = (lowest..=highest).contains(&linked) && linked.is_multiple_of(alignment);
    Some(match preference {
        Preference::None if fits => linked,
        Preference::None | Preference::Lowest => lowest,
        Preference::Highest => highest,
    })
}

/// Tags in the making.
struct Tags(Vec<u8>);

impl Tags {
    /// Adds a tag of these pieces.
    fn add(&mut self, kind: u32, contents: &[&[u8]]) {
        let len: usize = contents.iter().map(|piece| piece.len()).sum();
        self.0.extend(kind.to_le_bytes());
        self.0.extend((8 + len as u32).to_le_bytes());
        contents.iter().for_each(|piece| self.0.extend_from_slice(piece));
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn text(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

/// Places the module, the sections that have no address, and the information, whose address is returned. `image` is
/// where it lies, `end` the first address above it, `rsdp` ACPI's root pointer.
pub(super) fn lay_out(
    spec: &MachineSpec,
    image: &LoadedImage,
    end: u64,
    rsdp: &[u8],
    pieces: &mut Vec<Piece>,
) -> Result<u32, MachineError> {
    let (module, mut end) = multiboot::place_module(spec, end, pieces);
    let mut tags = Tags(vec![0; 8]);
    // The command line is without the program's name, as GRUB has it.
    tags.add(COMMAND_LINE, &[&text(&spec.cmdline)]);
    tags.add(LOADER_NAME, &[&text(LOADER)]);
    if let Some(range) = module {
        tags.add(MODULES, &[&words(&range), &text(MODULE)]);
    }
    tags.add(BASIC_MEMORY, &[&words(&multiboot::basic_memory(spec))]);
    let map: Vec<u8> = pc::memory_map(spec.memory)
        .iter()
        .flat_map(|range| range.e820().into_iter().chain([0; 4]))
        .collect();
    tags.add(MEMORY_MAP, &[&words(&[MAP_ENTRY, 0]), &map]);
    let wishes = image.multiboot2.clone().unwrap_or_default();
    if let Some(sections) = wishes.sections {
        let Sections { count, entry_size, names, mut headers, unplaced } = sections;
        for section in unplaced {
            let base = end.next_multiple_of(section.alignment);
            end = base + section.bytes.len() as u64;
            // All of memory's addresses below the hole have 32 bits.
            let width = section.address.len();
            headers[section.address].copy_from_slice(&base.to_le_bytes()[..width]);
            pieces.push(Piece { addr: base, bytes: section.bytes });
        }
        tags.add(ELF_SECTIONS, &[&words(&[count, entry_size, names]), &headers]);
    }
    tags.add(ACPI_OLD, &[&rsdp[..OLD_RSDP]]);
    tags.add(ACPI_NEW, &[rsdp]);
    if let (Some(_), Some((base, _))) = (wishes.relocation, image.span()) {
        tags.add(LOAD_BASE, &[&words(&[base as u32])]);
    }
    tags.add(END, &[]);

    let Tags(mut bytes) = tags;
    let size = bytes.len() as u32;
    bytes[..4].copy_from_slice(&size.to_le_bytes());
    let base = match bytes.len() as u64 {
        len if len <= INFO_END - INFO => free(image, INFO, INFO_END - INFO, end),
        _ => end.next_multiple_of(PAGE),
    };
    end = end.max(base + u64::from(size));
    multiboot::check_fit(spec, end)?;
    pieces.push(Piece { addr: base, bytes });
    Ok(base as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_goes_where_its_header_likes_it() {
        let wish = |range, alignment, preference| Relocation { range, alignment, preference };
        let place = |wish| relocated(wish, 0x20_0000, 0x1_8000, 16 << 20);
        let all = (0, u32::MAX);
        assert_eq!(place(wish(all, 0x1000, Preference::None)), Some(0x20_0000));
        assert_eq!(place(wish(all, 0x1000, Preference::Lowest)), Some(0x10_0000));
        assert_eq!(place(wish(all, 0x10_0000, Preference::Highest)), Some(0xf0_0000));
        assert_eq!(place(wish((0x30_0001, u32::MAX), 0x1000, Preference::None)), Some(0x30_1000));
        // The last byte lies at the limit.
        assert_eq!(place(wish((0, 0x41_7fff), 1, Preference::Highest)), Some(0x40_0000));
        assert_eq!(place(wish((0x10_0001, 0x11_8000), 1, Preference::None)), Some(0x10_0001));
        assert_eq!(place(wish((0x10_0001, 0x11_7fff), 1, Preference::None)), None);
        assert_eq!(place(wish((0x100_0000, u32::MAX), 1, Preference::None)), None);
        assert_eq!(place(wish(all, 0x8000_0000, Preference::Lowest)), None);
    }
}
