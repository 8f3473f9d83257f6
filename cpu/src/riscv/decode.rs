//! Finding the row of an instruction.

use super::insn::{Args, At, Format, Pattern, Row, c, tables};
use super::sem::Sem;

/// A decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Index into the decoder's rows.
    pub row: u16,
    /// Operands.
    pub args: Args,
}

struct Candidate {
    pattern: Pattern,
    format: Format,
    row: u16,
}

/// Decoder of 32-bit and compressed instructions, with the rows for one [`Sem`].
pub struct Decoder<S: Sem> {
    rows: Vec<Row<S>>,
    /// Rows by opcode (bits 6:2) and funct3 (bits 14:12).
    buckets: Vec<Vec<Candidate>>,
    /// Compressed rows by quadrant (bits 1:0) and funct3 (bits 15:13).
    compressed: Vec<Vec<&'static c::Compressed>>,
}

/// Longest block, in instructions. Every engine cuts code into blocks alike: they end here, at the end of the page
/// and after an instruction that [ends](super::insn::Flow::End) them, so that interrupts are looked at in the
/// same places.
pub const MAX_BLOCK: usize = 64;

/// Length in bytes of the instruction whose lowest 16 bits are `low`.
#[inline]
#[must_use]
pub const fn insn_len(low: u32) -> u64 {
    if low & 3 == 3 { 4 } else { 2 }
}

impl<S: Sem> Default for Decoder<S> {
    fn default() -> Self {
        let rows = tables::<S>();
        let buckets = (0..256u32)
            .map(|key| {
                let (probe, known) = ((key >> 3) << 2 | 3 | (key & 7) << 12, 0x707f);
                let fits = |pattern: Pattern| (pattern.value ^ probe) & pattern.mask & known == 0;
                rows.iter()
                    .enumerate()
                    .filter(|(_, row)| fits(row.pattern))
                    .map(|(index, row)| Candidate {
                        pattern: row.pattern,
                        format: row.format,
                        row: index as u16,
                    })
                    .collect()
            })
            .collect();
        let compressed = (0..32u32)
            .map(|key| {
                let (probe, known) = (key >> 3 | (key & 7) << 13, 0xe003);
                c::ROWS
                    .iter()
                    .filter(|row| (row.pattern.value ^ probe) & row.pattern.mask & known == 0)
                    .collect()
            })
            .collect();
        Decoder { rows, buckets, compressed }
    }
}

impl<S: Sem> Decoder<S> {
    /// The rows that [`Insn::row`] indexes.
    #[must_use]
    pub fn rows(&self) -> &[Row<S>] {
        &self.rows
    }

    /// The 32-bit instruction that the compressed `word` stands for.
    #[must_use]
    pub fn expand(&self, word: u32) -> Option<u32> {
        let bucket = &self.compressed[((word & 3) << 3 | word >> 13 & 7) as usize];
        let row = bucket.iter().find(|row| row.pattern.matches(word & 0xffff))?;
        (row.expand)(word & 0xffff)
    }

    /// Decodes the instruction `word` (its low half if compressed) that lies at `offset` in its page.
    /// `None` if there is no such instruction.
    #[must_use]
    pub fn decode(&self, word: u32, offset: u64) -> Option<Insn> {
        let len = insn_len(word);
        let word = if len == 2 { self.expand(word)? } else { word };
        let bucket = &self.buckets[((word >> 2 & 0x1f) << 3 | word >> 12 & 7) as usize];
        let found = bucket.iter().find(|candidate| candidate.pattern.matches(word))?;
        Some(Insn { row: found.row, args: found.format.operands(word, At::new(offset, len)) })
    }
}
