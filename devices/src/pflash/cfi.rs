//! What the chips say of themselves: the CFI query table and the identifier codes.
//!
//! Source: JEDEC JESD68.01, "Common Flash Interface (CFI)"; the values are those of QEMU's `virt`
//! boards (hw/block/pflash_cfi01.c), with which firmware was tried.

use super::{BUFFER, CHIPS, SECTOR};

/// Identifier codes (command 0x90): Intel, 28F128J3 (16 MiB).
const MANUFACTURER: u16 = 0x89;
const DEVICE: u16 = 0x18;

/// One chip's answer to a query (command 0x98) at word `index`, in a bank of `size` bytes.
pub(super) fn query(index: u64, size: u64) -> u16 {
    let blocks = (size / SECTOR - 1).to_le_bytes();
    let block_size = (SECTOR / CHIPS / 256).to_le_bytes();
    let byte = match index {
        0x10 => b'Q',
        0x11 => b'R',
        0x12 => b'Y',
        0x13 => 1,        // primary command set: 0x0001, Intel/Sharp extended
        0x15 => 0x31,     // its table's place
        0x1b => 0x45,     // Vcc from 4.5 V ...
        0x1c => 0x55,     // ... to 5.5 V; no Vpp
        0x1f => 7,        // typical time of a word program: 2^7 us,
        0x20 => 7,        // of a buffer program: 2^7 us,
        0x21 => 10,       // of a block erase: 2^10 ms
        0x23..=0x25 => 4, // at most 2^4 times as long
        0x27 => (size / CHIPS).ilog2() as u8,
        0x28 => 2,                              // interface: x8 and x16
        0x2a => (BUFFER / CHIPS).ilog2() as u8, // write buffer
        0x2c => 1,                              // one erase region: all blocks have the same size
        0x2d => blocks[0],
        0x2e => blocks[1],
        0x2f => block_size[0],
        0x30 => block_size[1],
        // Extended table, version 1.0, no optional features, one protection register field.
        0x31 => b'P',
        0x32 => b'R',
        0x33 => b'I',
        0x34 => b'1',
        0x35 => b'0',
        0x3f => 1,
        _ => 0,
    };
    byte.into()
}

/// One chip's answer to an identifier read (command 0x90) at word `index`. Word 2 of each block is
/// its lock status: no block is locked.
pub(super) fn identifier(index: u64) -> u16 {
    match index & 0xff {
        0 => MANUFACTURER,
        1 => DEVICE,
        _ => 0,
    }
}
