//! What a kernel is told by the Multiboot Specification, version 0.6.96, section 3.3.

use super::Piece;
use super::pc::{PAGE, free};
use crate::board::pc;
use crate::machine::MachineError;
use crate::machine::spec::MachineSpec;

/// What EAX holds at the entry.
pub(super) const EAX: u32 = 0x2bad_b002;
/// Where the information lies, unless the image does; with its texts it ends below [`INFO_END`].
pub(super) const INFO: u64 = 0x9000;
pub(super) const INFO_END: u64 = 0x7_0000;
/// Bytes of the structure up to the name of the loader.
const STRUCTURE: usize = 88;
/// What the loader and its one module are called.
pub(super) const LOADER: &str = "mimic";
pub(super) const MODULE: &str = "initrd";

/// Fields that are valid: memory, command line, modules, memory map, name of the loader.
const FLAGS: u32 = 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;

/// Places the initial RAM disk as a module above `end` and 1 MiB, on a page boundary: its first address and the one above
/// it, and the first address above all.
pub(super) fn place_module(
    spec: &MachineSpec,
    end: u64,
    pieces: &mut Vec<Piece>,
) -> (Option<[u32; 2]>, u64) {
    let end = end.max(1 << 20);
    let Some(bytes) = &spec.initrd else { return (None, end) };
    let start = end.next_multiple_of(PAGE);
    let end = start + bytes.len() as u64;
    pieces.push(Piece { addr: start, bytes: bytes.clone() });
    (Some([start as u32, end as u32]), end)
}

/// Checks that all up to `end` lies in RAM.
pub(super) fn check_fit(spec: &MachineSpec, end: u64) -> Result<(), MachineError> {
    if end <= pc::low_memory(spec.memory) {
        return Ok(());
    }
    Err(MachineError::TooLittleMemory {
        what: "this image with its module".into(),
        needed: end.div_ceil(1 << 20).next_power_of_two(),
        given: spec.memory >> 20,
    })
}

/// KiB of RAM from 0 on, and from 1 MiB on.
pub(super) fn basic_memory(spec: &MachineSpec) -> [u32; 2] {
    [(pc::EBDA >> 10) as u32, ((pc::low_memory(spec.memory) - (1 << 20)) >> 10) as u32]
}

/// Numbers, and texts that pointers among them lead to.
struct Info {
    base: u64,
    bytes: Vec<u8>,
}

impl Info {
    fn set(&mut self, offset: usize, value: u32) {
        self.bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Appends something; its address.
    fn append(&mut self, bytes: &[u8]) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        at as u32
    }

    fn append_text(&mut self, text: &str) -> u32 {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.append(&bytes)
    }
}

/// Places the module and the information structure, whose address is returned.
pub(super) fn lay_out(
    spec: &MachineSpec,
    end: u64,
    pieces: &mut Vec<Piece>,
) -> Result<u32, MachineError> {
    let image = &spec.image;
    let (module, end) = place_module(spec, end, pieces);
    check_fit(spec, end)?;
    let base = free(image, INFO, INFO_END - INFO, end);
    let mut info = Info { base, bytes: vec![0; STRUCTURE] };
    info.set(0, FLAGS);
    let [lower, upper] = basic_memory(spec);
    info.set(4, lower);
    info.set(8, upper);
    // The program's own name comes first, as other loaders have it.
    let text = format!("{} {}", image.name, spec.cmdline);
    let cmdline = info.append_text(text.trim_end());
    info.set(16, cmdline);
    if let Some([start, end]) = module {
        let name = info.append_text(MODULE);
        let entry: Vec<u8> = [start, end, name, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
        let list = info.append(&entry);
        info.set(20, 1);
        info.set(24, list);
    }
    let map: Vec<u8> = pc::memory_map(spec.memory).into_iter().flat_map(map_entry).collect();
    let len = map.len() as u32;
    let map = info.append(&map);
    info.set(44, len);
    info.set(48, map);
    let loader = info.append_text(LOADER);
    info.set(64, loader);
    if base == INFO && base + info.bytes.len() as u64 > INFO_END {
        return Err(MachineError::Placement("the command line is too long".into()));
    }
    pieces.push(Piece { addr: base, bytes: info.bytes });
    Ok(base as u32)
}

/// The size of the rest, base, length, type.
fn map_entry(range: pc::Range) -> Vec<u8> {
    let mut entry = 20u32.to_le_bytes().to_vec();
    entry.extend(range.e820());
    entry
}
