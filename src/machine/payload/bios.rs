//! What a BIOS leaves in memory for programs in real mode: interrupt vectors, and handlers that do the least.
//!
//! The places are those that every compatible BIOS has them at (IBM, *Personal Computer AT Technical Reference*, "BIOS").

use super::Piece;

/// Bytes of the table at address 0.
pub(super) const VECTORS_SIZE: u64 = 0x400;
const SEGMENT: u32 = 0xf000;
/// Ends interrupts of the first and of the second controller.
const END_FIRST: u16 = 0xfe80;
const END_SECOND: u16 = 0xfe90;
/// Does nothing.
const NOTHING: u16 = 0xff53;

/// The table, and the handlers.
pub(super) fn pieces() -> Vec<Piece> {
    let handler = |vector| match vector {
        0x08..=0x0f => END_FIRST,
        0x70..=0x77 => END_SECOND,
        _ => NOTHING,
    };
    let entry = |vector| (SEGMENT << 16 | u32::from(handler(vector))).to_le_bytes();
    let code = |offset: u16, bytes: &[u8]| Piece {
        addr: u64::from(SEGMENT) * 16 + u64::from(offset),
        bytes: bytes.to_vec(),
    };
    vec![
        Piece { addr: 0, bytes: (0..=0xff).flat_map(entry).collect() },
        // PUSH AX; MOV AL, 20h; OUT 20h, AL; POP AX; IRET.
        code(END_FIRST, &[0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf]),
        // The same with OUT 0A0h, AL before it.
        code(END_SECOND, &[0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf]),
        code(NOTHING, &[0xcf]),
    ]
}
