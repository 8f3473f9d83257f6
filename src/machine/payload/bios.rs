//! What a BIOS leaves in memory for programs in real mode: interrupt vectors, handlers that do the least, and its
//! variables, by which kernels find the end of the memory that is theirs.
//!
//! The places are those that every compatible BIOS has them at (IBM, *Personal Computer AT Technical Reference*, "BIOS").

use super::Piece;
use crate::board::pc;

/// Where the table at address 0 and the BIOS's variables end.
pub(super) const DATA_END: u64 = 0x500;
/// The variables: ports of the serial interfaces; segment of the extended variables, whose first byte is their size in
/// KiB; KiB of memory below them.
const VARIABLES: u64 = 0x400;
const EXTENDED_SEGMENT: usize = 0x0e;
const MEMORY_SIZE: usize = 0x13;
const SEGMENT: u32 = 0xf000;
/// Ends interrupts of the first and of the second controller.
const END_FIRST: u16 = 0xfe80;
const END_SECOND: u16 = 0xfe90;
/// Does nothing.
const NOTHING: u16 = 0xff53;
/// Starts the machine anew: where systems jump to that know no other way.
const RESET: u16 = 0xfff0;

/// The table, the handlers and the variables.
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
    let mut variables = vec![0; (DATA_END - VARIABLES) as usize];
    let mut put = |at: usize, value: u16| {
        variables[at..at + 2].copy_from_slice(&value.to_le_bytes());
    };
    for (index, serial) in pc::UARTS.iter().enumerate() {
        put(2 * index, serial.port);
    }
    put(EXTENDED_SEGMENT, (pc::EBDA >> 4) as u16);
    put(MEMORY_SIZE, (pc::EBDA >> 10) as u16);
    let extended = ((pc::LOW_RAM_END - pc::EBDA) >> 10) as u8;
    vec![
        Piece { addr: VARIABLES, bytes: variables },
        Piece { addr: pc::EBDA, bytes: vec![extended] },
        Piece { addr: 0, bytes: (0..=0xff).flat_map(entry).collect() },
        // PUSH AX; MOV AL, 20h; OUT 20h, AL; POP AX; IRET.
        code(END_FIRST, &[0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf]),
        // The same with OUT 0A0h, AL before it.
        code(END_SECOND, &[0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf]),
        code(NOTHING, &[0xcf]),
        // MOV AL, 1; OUT 92h, AL; HLT.
        code(RESET, &[0xb0, 0x01, 0xe6, 0x92, 0xf4]),
    ]
}
