//! Optimisations of a block, and their names.

use bitflags::bitflags;

use super::{Block, Op, Val};

bitflags! {
    /// Optimisations that may be switched off one by one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Passes: u32 {
        /// Operations are replaced by simpler ones while a block is built.
        const FOLD = 1 << 0;
        /// What is known of registers is carried from one instruction to the next.
        const FACTS = 1 << 1;
        /// Values that nobody takes and writes to registers that nobody sees are dropped.
        const DCE = 1 << 2;
        /// Atomic instructions and CBO.ZERO become operations.
        const ATOMICS = 1 << 3;
        /// Instructions on control and status registers become operations.
        const CSRS = 1 << 4;
    }
}

/// Drops what has no effect; keeps its buffers from one block to the next.
#[derive(Debug, Default)]
pub struct Dce {
    /// For each operation, whether it stays; later its new position.
    place: Vec<u32>,
}

const DEAD: u32 = u32::MAX;

impl Dce {
    /// Drops pure operations whose values nobody takes, and writes to registers that are written again before
    /// anybody can see them. An instruction may be left without operations.
    pub fn run(&mut self, block: &mut Block) {
        self.mark(&block.ops);
        self.compact(block);
    }

    /// Backwards: finds what stays.
    fn mark(&mut self, ops: &[Op]) {
        let place = &mut self.place;
        place.clear();
        place.resize(ops.len(), DEAD);
        // Registers that are written again before they are read or the block may be left.
        let mut overwritten = Slots::default();
        for (at, op) in ops.iter().enumerate().rev() {
            if op.may_leave() {
                overwritten = Slots::default();
            }
            match *op {
                Op::Set(slot, _) => {
                    if overwritten.contains(slot) {
                        continue;
                    }
                    overwritten.insert(slot);
                }
                _ if op.is_pure() && place[at] == DEAD => continue,
                Op::Get(slot) => overwritten.remove(slot),
                _ => {}
            }
            place[at] = 0;
            for Val(operand) in op.operands() {
                place[operand as usize] = 0;
            }
        }
    }

    /// Forwards: closes the gaps.
    fn compact(&mut self, block: &mut Block) {
        let place = &mut self.place;
        let (mut kept, mut insn) = (0, 0);
        for at in 0..block.ops.len() {
            while insn < block.insns.len() && block.insns[insn].first as usize <= at {
                block.insns[insn].first = kept;
                insn += 1;
            }
            if place[at] == DEAD {
                continue;
            }
            place[at] = kept;
            block.ops[kept as usize] =
                block.ops[at].with_operands(|Val(operand)| Val(place[operand as usize]));
            kept += 1;
        }
        for insn in &mut block.insns[insn..] {
            insn.first = kept;
        }
        block.ops.truncate(kept as usize);
    }
}

/// A set of registers.
#[derive(Clone, Copy, Debug, Default)]
struct Slots([u64; 4]);

impl Slots {
    fn bit(slot: u8) -> (usize, u64) {
        (usize::from(slot >> 6), 1 << (slot & 63))
    }
    fn contains(&self, slot: u8) -> bool {
        let (word, bit) = Self::bit(slot);
        self.0[word] & bit != 0
    }
    fn insert(&mut self, slot: u8) {
        let (word, bit) = Self::bit(slot);
        self.0[word] |= bit;
    }
    fn remove(&mut self, slot: u8) {
        let (word, bit) = Self::bit(slot);
        self.0[word] &= !bit;
    }
}
