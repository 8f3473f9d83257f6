//! Where the image and its tables go in a PC's memory, and how its first processor starts.

use mimic_cpu::x86::model::Model;
use mimic_cpu::x86::state::{Cpu, Segment, TableRegister, cr0, cr4, efer, gpr, rights, sreg};
use mimic_firmware::x86::acpi;

use super::{Layout, MIB, Piece, bios, linux, multiboot, multiboot2, pvh};
use crate::board::microvm;
use crate::board::pc::{self, LOW_RAM_END, RAM_HOLE};
use crate::loader::{Bits, ImageKind, LoadedImage};
use crate::machine::MachineError;
use crate::machine::spec::{BoardKind, MachineSpec};

/// Where the stack of an image begins that is started without firmware: below where a BIOS puts boot sectors.
const STACK: u64 = 0x7c00;
/// Where the page tables of a 64-bit start lie, unless the image does.
const TABLES: u64 = 0x7_0000;
/// Bytes of them: one PML4, one PDPT, four page directories.
const TABLES_SIZE: u64 = 6 * PAGE;
/// Bytes of a page.
pub(super) const PAGE: u64 = 0x1000;
/// Entries of page tables: present, writable; large page.
const PRESENT_WRITABLE: u64 = 3;
const LARGE: u64 = 0x80;

/// Where the first processor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::machine) enum Start {
    /// At the reset vector.
    Reset,
    /// In real mode, here.
    Real { segment: u16, offset: u16 },
    /// In 32-bit protected mode with flat segments, EAX and EBX as given.
    Protected { entry: u32, eax: u32, ebx: u32 },
    /// In 64-bit mode, the lowest 4 GiB mapped as they are.
    Long { entry: u64, tables: u64 },
    /// The same by Linux' protocol: RSI leads to the zero page, and there are segment descriptors.
    Linux { entry: u64, tables: u64, zero_page: u64, gdt: (u64, u16) },
}

/// A start in real mode at an address below 1 MiB: in segment 0 if it can be, as a BIOS starts boot sectors.
fn real(entry: u32) -> Start {
    let segment = if entry <= 0xffff { 0 } else { (entry >> 4) as u16 & 0xf000 };
    Start::Real { segment, offset: (entry - (u32::from(segment) << 4)) as u16 }
}

/// The first processor as `start` says.
pub(in crate::machine) fn bootstrap(model: Model, start: Start) -> Cpu {
    let mut cpu = Cpu::new(0, model);
    let flat = |selector, kind, size| Segment {
        selector,
        base: 0,
        limit: u32::MAX,
        rights: kind
            | size
            | rights::ACCESSED
            | rights::WRITABLE
            | rights::S
            | rights::P
            | rights::G,
    };
    let protect = |cpu: &mut Cpu, code, size| {
        cpu.cr0 = cr0::PE | cr0::ET | cr0::NE;
        cpu.seg = [flat(code + 8, 0, rights::DB); 6];
        cpu.seg[usize::from(sreg::CS)] = flat(code, rights::CODE, size);
        cpu.gdtr = TableRegister { base: 0, limit: 0 };
        cpu.idtr = TableRegister { base: 0, limit: 0 };
    };
    let long = |cpu: &mut Cpu, entry, tables, code| {
        protect(cpu, code, rights::L);
        cpu.cr0 |= cr0::PG;
        cpu.cr3 = tables;
        cpu.cr4 = cr4::PAE;
        cpu.efer = efer::LME | efer::LMA;
        cpu.rip = entry;
    };
    if start != Start::Reset {
        // Caches are on when firmware is done.
        cpu.cr0 = cr0::ET;
        cpu.gpr[usize::from(gpr::RSP)] = STACK;
    }
    match start {
        Start::Reset => {}
        Start::Real { segment, offset } => {
            cpu.seg = [Segment::real(0, false); 6];
            cpu.seg[usize::from(sreg::CS)] = Segment::real(segment, true);
            cpu.rip = offset.into();
        }
        Start::Protected { entry, eax, ebx } => {
            protect(&mut cpu, 8, rights::DB);
            cpu.rip = entry.into();
            cpu.gpr[usize::from(gpr::RAX)] = eax.into();
            cpu.gpr[usize::from(gpr::RBX)] = ebx.into();
        }
        Start::Long { entry, tables } => long(&mut cpu, entry, tables, 8),
        Start::Linux { entry, tables, zero_page, gdt: (base, limit) } => {
            long(&mut cpu, entry, tables, 0x10);
            cpu.gdtr = TableRegister { base, limit };
            cpu.gpr[usize::from(gpr::RSI)] = zero_page;
        }
    }
    cpu
}

/// Lays out RAM and ROM for `spec`.
pub(super) fn lay_out(spec: &MachineSpec) -> Result<Layout, MachineError> {
    if spec.memory < pc::MIN_MEMORY {
        return Err(MachineError::TooLittleMemory {
            what: "this board".into(),
            needed: pc::MIN_MEMORY / MIB,
            given: spec.memory / MIB,
        });
    }
    if spec.image.kind == ImageKind::Rom && spec.board == BoardKind::Microvm {
        return Err(MachineError::Placement(
            "the board microvm starts kernels directly, it has no ROM: leave --machine away".into(),
        ));
    }
    if spec.image.kind == ImageKind::Rom {
        return Ok(rom(&spec.image));
    }
    let image = &multiboot2::placed(spec)?;
    let end = check_segments(image, spec.memory)?;
    let mut pieces: Vec<Piece> = image
        .segments
        .iter()
        .map(|segment| Piece { addr: segment.addr, bytes: segment.bytes.clone() })
        .collect();
    if image.segments.iter().all(|segment| segment.addr >= bios::DATA_END) {
        // Before the image, which may lie where the handlers do.
        pieces.splice(0..0, bios::pieces());
    }
    let pc::Tables { rsdp, pieces: tables, .. } = match spec.board {
        BoardKind::Microvm => microvm::tables(spec.cpus),
        _ => pc::tables(spec.cpus, spec.memory),
    };
    let root = tables[0].1[..acpi::RSDP_SIZE].to_vec();
    pieces.extend(tables.into_iter().map(|(addr, bytes)| Piece { addr, bytes }));
    let start = match (image.kind, image.bits) {
        (ImageKind::Multiboot, _) => {
            let info = multiboot::lay_out(spec, end, &mut pieces)?;
            Start::Protected { entry: image.entry as u32, eax: multiboot::EAX, ebx: info }
        }
        (ImageKind::Multiboot2, _) => {
            let info = multiboot2::lay_out(spec, image, end, &root, &mut pieces)?;
            Start::Protected { entry: image.entry as u32, eax: multiboot2::EAX, ebx: info }
        }
        (ImageKind::Pvh, _) => {
            let info = pvh::lay_out(spec, end, rsdp, &mut pieces)?;
            Start::Protected { entry: image.entry as u32, eax: 0, ebx: info }
        }
        (_, Bits::B16) => real(image.entry as u32),
        (_, Bits::B32) => Start::Protected { entry: image.entry as u32, eax: 0, ebx: 0 },
        (kind, Bits::B64) => {
            let tables = free(image, TABLES, TABLES_SIZE, end);
            let end = end.max(tables + TABLES_SIZE);
            pieces.push(Piece { addr: tables, bytes: identity(tables) });
            if kind == ImageKind::LinuxX86 {
                let linux::Told { zero_page, gdt } = linux::lay_out(spec, end, rsdp, &mut pieces)?;
                Start::Linux { entry: image.entry, tables, zero_page, gdt }
            } else {
                Start::Long { entry: image.entry, tables }
            }
        }
    };
    let told = !matches!(image.kind, ImageKind::Elf | ImageKind::Flat);
    if !told && (spec.initrd.is_some() || !spec.cmdline.is_empty()) {
        log::warn!(
            "an initrd and a command line are told to Linux, PVH and multiboot kernels alone"
        );
    }
    Ok(Layout { pieces, own_firmware: false, rom: 0, start })
}

/// A ROM ends at 4 GiB, and its end is seen below 1 MiB, too.
fn rom(image: &LoadedImage) -> Layout {
    let bytes: Vec<u8> = image.segments.iter().flat_map(|segment| segment.bytes.clone()).collect();
    let len = bytes.len() as u64;
    let alias = pc::rom_alias(len);
    let end = bytes[(len - alias) as usize..].to_vec();
    let pieces =
        vec![Piece { addr: (1 << 32) - len, bytes }, Piece { addr: MIB - alias, bytes: end }];
    Layout { pieces, own_firmware: false, rom: len, start: Start::Reset }
}

/// Checks that all segments lie in RAM; the first address above them.
fn check_segments(image: &LoadedImage, memory: u64) -> Result<u64, MachineError> {
    let Some((_, high)) = image.span() else {
        return Err(MachineError::Placement("this image has nothing to load".into()));
    };
    for segment in &image.segments {
        let (low, high) = (segment.addr, segment.addr + segment.size);
        if low < LOW_RAM_END && high > LOW_RAM_END
            || (LOW_RAM_END..pc::SHADOW).contains(&low)
            || high > RAM_HOLE
        {
            return Err(MachineError::Placement(format!(
                "this image wants to lie at {low:#x} to {high:#x}, where there is no RAM: link it at 0x100000"
            )));
        }
        if high > memory {
            return Err(MachineError::TooLittleMemory {
                what: "this image".into(),
                needed: high.div_ceil(MIB).next_power_of_two(),
                given: memory / MIB,
            });
        }
    }
    Ok(high)
}

/// Where `size` bytes fit: at `wanted` if the image does not lie there, else above the image.
pub(super) fn free(image: &LoadedImage, wanted: u64, size: u64, end: u64) -> u64 {
    let taken = |segment: &crate::loader::Segment| {
        segment.addr < wanted + size && segment.addr + segment.size > wanted
    };
    if image.segments.iter().any(taken) { end.next_multiple_of(PAGE) } else { wanted }
}

/// Page tables at `base` that map the lowest 4 GiB as they are.
pub(in crate::machine) fn identity(base: u64) -> Vec<u8> {
    let mut entries = vec![0u64; (TABLES_SIZE / 8) as usize];
    let per_page = (PAGE / 8) as usize;
    entries[0] = (base + PAGE) | PRESENT_WRITABLE;
    for directory in 0..4 {
        entries[per_page + directory] = (base + (2 + directory as u64) * PAGE) | PRESENT_WRITABLE;
        for index in 0..per_page {
            let page = (directory * per_page + index) as u64 * 2 * MIB;
            entries[(2 + directory) * per_page + index] = page | LARGE | PRESENT_WRITABLE;
        }
    }
    entries.into_iter().flat_map(u64::to_le_bytes).collect()
}
