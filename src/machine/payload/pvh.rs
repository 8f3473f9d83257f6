//! What a kernel is told that is entered by PVH: the `hvm_start_info` structure.
//!
//! Source: Xen, `docs/misc/pvh.pandoc` and `xen/include/public/arch-x86/hvm/start_info.h` (version 1).

use super::Piece;
use super::linux::{cmdline, place_initrd};
use super::pc::{PAGE, free};
use crate::board::pc;
use crate::machine::MachineError;
use crate::machine::spec::MachineSpec;

/// Where structure, module list, memory map and command line lie, unless the image does.
const BLOCK: u64 = 0x1_0000;
const BLOCK_SIZE: u64 = 2 * PAGE;
const MODULES: u64 = 0x40;
const MAP: u64 = 0x80;
const CMDLINE: u64 = PAGE;

/// "xEn3" with the highest bit of its E set.
const MAGIC: u32 = 0x336e_c578;

/// Places all that the kernel is told; the address of the structure.
pub(super) fn lay_out(
    spec: &MachineSpec,
    end: u64,
    rsdp: u64,
    pieces: &mut Vec<Piece>,
) -> Result<u32, MachineError> {
    let initrd = place_initrd(spec, end, pc::RAM_HOLE, pieces)?;
    let base = free(&spec.image, BLOCK, BLOCK_SIZE, end);
    let map = pc::memory_map(spec.memory);
    let words =
        |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();

    let mut block = vec![0; BLOCK_SIZE as usize];
    let mut put = |at: u64, bytes: &[u8]| {
        block[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &MAGIC.to_le_bytes());
    put(4, &1u32.to_le_bytes());
    if let Some((address, len)) = initrd {
        put(12, &1u32.to_le_bytes());
        put(16, &(base + MODULES).to_le_bytes());
        put(MODULES, &words(&[address, len, 0, 0]));
    }
    put(24, &words(&[base + CMDLINE, rsdp, base + MAP]));
    put(48, &(map.len() as u32).to_le_bytes());
    let entries = map.iter().flat_map(|range| words(&[range.base, range.size, range.kind.into()]));
    put(MAP, &entries.collect::<Vec<u8>>());
    put(CMDLINE, &cmdline(spec, PAGE - 1)?);
    pieces.push(Piece { addr: base, bytes: block });
    Ok(base as u32)
}
