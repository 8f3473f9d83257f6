//! The fuzzers' input as a program: opcodes and operands, and the memory that they speak of.

pub(crate) const ROM: u64 = 0x1000;
pub(crate) const RAM: u64 = 0x8000_0000;
/// Small, so that many wild addresses hit and long chains stay cheap.
pub(crate) const RAM_SIZE: u64 = 0x4000;

/// What is still to be read.
pub(crate) struct Program<'a>(pub(crate) &'a [u8]);

impl Program<'_> {
    pub(crate) fn u8(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    /// Mostly inside RAM, sometimes at its end, in ROM or anywhere.
    pub(crate) fn address(&mut self) -> u64 {
        let at = u64::from(self.u16());
        match self.u8() % 8 {
            0 => RAM + RAM_SIZE - at % 32,
            1 => ROM + at % 0x1000,
            2 => u64::from(self.u32()) << 32 | u64::from(self.u32()),
            _ => RAM + at % RAM_SIZE,
        }
    }
}
