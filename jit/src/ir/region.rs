//! Regions: several blocks of a page that are translated as one.

use super::{Block, Insn};

/// A block of a region: what leaves it for the start of another part stays in the region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The block. Its instructions may lie anywhere in the page.
    pub block: Block,
    /// How often it was executed, as far as that was observed.
    pub times: u32,
    /// The region can be entered here.
    pub entry: bool,
}

/// A region: parts that begin at different places, one of them an entry at least.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// The parts, in the order of their code.
    pub parts: Vec<Part>,
    /// How often it was entered or left meanwhile.
    pub crossings: u32,
}

impl Region {
    /// Guest instructions of all parts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.block.insns.len()).sum()
    }

    /// The guest instruction of this number, all parts' counted in order.
    #[must_use]
    pub fn insn(&self, number: u32) -> Option<&Insn> {
        self.parts.iter().flat_map(|part| &part.block.insns).nth(number as usize)
    }

    /// Whether there is no instruction.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}
