//! What Linux for x86 is told when it is started directly: the zero page with the setup header, the memory map, the
//! command line and the initial RAM disk.
//!
//! Source: Linux documentation, `arch/x86/boot.rst`, "64-bit Boot Protocol", and `arch/x86/zero-page.rst`.

use super::pc::{PAGE, free};
use super::{MIB, Piece};
use crate::board::pc;
use crate::loader::bzimage::{SetupHeader, field};
use crate::machine::MachineError;
use crate::machine::spec::MachineSpec;

/// Where zero page, segment descriptors and command line lie, in this order, unless the image does.
const BLOCK: u64 = 0x1_0000;
const GDT_OFFSET: u64 = PAGE;
const CMDLINE_OFFSET: u64 = 2 * PAGE;
/// Bytes of the command line with its end; no kernel takes more (COMMAND_LINE_SIZE).
const CMDLINE_MAX: u64 = PAGE;
const BLOCK_SIZE: u64 = CMDLINE_OFFSET + CMDLINE_MAX;

/// Fields of the zero page that are not in the setup header.
const ACPI_RSDP_ADDR: usize = 0x70;
const E820_ENTRIES: usize = 0x1e8;
const E820_TABLE: usize = 0x2d0;

/// A loader without a number of its own.
const LOADER: u8 = 0xff;
/// LOADFLAGS: the kernel lies where it likes, not below 1 MiB.
const LOADED_HIGH: u8 = 1;

/// Segment descriptors of the protocol: `__BOOT_CS` is 0x10, `__BOOT_DS` 0x18.
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// What the kernel is entered with.
pub(super) struct Told {
    /// Address of the zero page.
    pub(super) zero_page: u64,
    /// Address and last byte of the segment descriptors.
    pub(super) gdt: (u64, u16),
}

/// Places the initial RAM disk as high as it may lie below `top`; where it begins.
pub(super) fn place_initrd(
    spec: &MachineSpec,
    end: u64,
    top: u64,
    pieces: &mut Vec<Piece>,
) -> Result<Option<(u64, u64)>, MachineError> {
    let top = top.min(pc::low_memory(spec.memory));
    let too_little = |needed: u64| MachineError::TooLittleMemory {
        what: "this kernel with its initrd".into(),
        needed: needed.div_ceil(MIB).next_power_of_two(),
        given: spec.memory / MIB,
    };
    if end > top {
        return Err(too_little(end));
    }
    let Some(initrd) = &spec.initrd else { return Ok(None) };
    let len = initrd.len() as u64;
    let base = top.saturating_sub(len) & !(PAGE - 1);
    if base < end {
        return Err(too_little(end + len + PAGE));
    }
    pieces.push(Piece { addr: base, bytes: initrd.clone() });
    Ok(Some((base, len)))
}

/// The command line with the 0 at its end, if the kernel takes so much.
pub(super) fn cmdline(spec: &MachineSpec, most: u64) -> Result<Vec<u8>, MachineError> {
    let mut bytes = spec.cmdline.as_bytes().to_vec();
    if bytes.len() as u64 > most.min(CMDLINE_MAX - 1) {
        return Err(MachineError::Placement(format!(
            "the command line has {} bytes, this kernel takes {most}",
            bytes.len()
        )));
    }
    bytes.push(0);
    Ok(bytes)
}

/// Places all that the kernel is told; `end` is the first address above it, `rsdp` that of ACPI's first table.
pub(super) fn lay_out(
    spec: &MachineSpec,
    end: u64,
    rsdp: u64,
    pieces: &mut Vec<Piece>,
) -> Result<Told, MachineError> {
    let mut header = spec.image.setup.clone().unwrap_or_else(SetupHeader::made_up);
    let top = u64::from(header.u32(field::INITRD_ADDR_MAX)) + 1;
    let initrd = place_initrd(spec, end, top, pieces)?;
    let base = free(&spec.image, BLOCK, BLOCK_SIZE, end);
    let text = cmdline(spec, header.u32(field::CMDLINE_SIZE).into())?;

    let flags = header.u32(field::LOADFLAGS) as u8 | LOADED_HIGH;
    header.set(field::TYPE_OF_LOADER, &[LOADER]);
    header.set(field::LOADFLAGS, &[flags]);
    header.set(field::CODE32_START, &(spec.image.entry as u32 & !0xfff).to_le_bytes());
    header.set(field::CMD_LINE_PTR, &((base + CMDLINE_OFFSET) as u32).to_le_bytes());
    if let Some((base, len)) = initrd {
        // Both lie below 4 GiB, as INITRD_ADDR_MAX does.
        header.set(field::RAMDISK_IMAGE, &(base as u32).to_le_bytes());
        header.set(field::RAMDISK_SIZE, &(len as u32).to_le_bytes());
    }

    let mut block = vec![0; BLOCK_SIZE as usize];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(field::SETUP_SECTS, &header.bytes);
    put(ACPI_RSDP_ADDR, &rsdp.to_le_bytes());
    let map = pc::memory_map(spec.memory);
    put(E820_ENTRIES, &[map.len() as u8]);
    put(E820_TABLE, &map.iter().flat_map(pc::Range::e820).collect::<Vec<u8>>());
    let descriptors: Vec<u8> = DESCRIPTORS.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    put(GDT_OFFSET as usize, &descriptors);
    put(CMDLINE_OFFSET as usize, &text);
    pieces.push(Piece { addr: base, bytes: block });
    Ok(Told { zero_page: base, gdt: (base + GDT_OFFSET, descriptors.len() as u16 - 1) })
}
