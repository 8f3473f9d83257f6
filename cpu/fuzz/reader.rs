//! A fuzzer's input as a program: opcode bytes and their operands, of which missing ones are 0.

/// The operands still to be read.
pub(crate) struct Program<'a>(pub(crate) &'a [u8]);

#[allow(dead_code, reason = "each fuzzer uses a part of it")]
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

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// So many bytes as the first one says.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let len = usize::from(self.u8());
        (0..len).map(|_| self.u8()).collect()
    }
}
