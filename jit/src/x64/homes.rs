//! Where guest registers live while translated code runs.
//!
//! The registers that compiled RISC-V code uses most (arguments, stack pointer, return address, the first
//! saved ones) have fixed homes in host registers, in all blocks alike, so that nothing moves between blocks.
//! The others are read and written in the frame.

use mimic_cpu::frame::F;
use mimic_cpu::riscv::insn::SINK;

use super::asm::{Mem, RBP, Reg};
use crate::ir::Slot;

/// A guest register's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    Gpr(Reg),
    Xmm(Reg),
    Frame,
}

/// x registers in general-purpose registers: (x register, host register). The first six are those that a
/// called function of the System V ABI may change.
pub(super) const GPRS: [(Slot, Reg); 11] = [
    (10, 7),
    (11, 6),
    (12, 8),
    (13, 9),
    (14, 10),
    (15, 11),
    (2, 3),
    (8, 12),
    (9, 13),
    (1, 14),
    (16, 15),
];
/// How many of [`GPRS`] a called function may change.
pub(super) const VOLATILE_GPRS: usize = 6;

/// f registers in xmm registers: (slot, host register). A called function may change all of them.
pub(super) const XMMS: [(Slot, Reg); 12] = {
    let f = F as Slot;
    [
        (f + 10, 4),
        (f + 11, 5),
        (f + 12, 6),
        (f + 13, 7),
        (f + 14, 8),
        (f + 15, 9),
        (f, 10),
        (f + 1, 11),
        (f + 2, 12),
        (f + 3, 13),
        (f + 4, 14),
        (f + 5, 15),
    ]
};

const HOMES: [Home; 256] = {
    let mut homes = [Home::Frame; 256];
    let mut i = 0;
    while i < GPRS.len() {
        homes[GPRS[i].0 as usize] = Home::Gpr(GPRS[i].1);
        i += 1;
    }
    i = 0;
    while i < XMMS.len() {
        homes[XMMS[i].0 as usize] = Home::Xmm(XMMS[i].1);
        i += 1;
    }
    homes
};

/// Most registers that a region gives to others than usual: bounds what its entries and exits cost.
const MAX_SWAPS: usize = 16;
/// What it costs to give a host register to another guest register, in uses of a guest register in the frame.
const MOVES: u64 = 2;
/// What it costs to call the code that does it.
const CALL: u64 = 4;
/// Less than this, or than one in so many instructions, is not worth it.
const LEAST_GAIN: u64 = 64;
const LEAST_SHARE: u64 = 8;

/// A host register that holds another guest register than usual while a region runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swap {
    /// The host register.
    pub(super) home: Home,
    /// The guest register that it holds outside.
    pub(super) usual: Slot,
    /// The one that it holds inside.
    pub(super) own: Slot,
    /// The region writes the latter.
    pub(super) writes: bool,
}

/// How a region uses guest registers, by slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uses {
    /// How often.
    pub(super) weights: [u32; 128],
    /// Which it writes.
    pub(super) written: u128,
    /// How often the homes change.
    pub(super) crossings: u32,
    /// Instructions executed meanwhile.
    pub(super) executed: u64,
}

/// The homes of guest registers in a unit of code: the usual ones, or a region's own.
#[derive(Debug)]
pub(super) struct Homes {
    table: [Home; 256],
    swaps: Vec<Swap>,
}

impl Default for Homes {
    fn default() -> Self {
        Homes { table: HOMES, swaps: Vec::new() }
    }
}

impl Homes {
    /// The home of a guest register.
    #[inline]
    pub(super) fn of(&self, slot: Slot) -> Home {
        self.table[slot as usize]
    }

    /// What is not at its usual place.
    pub(super) fn swaps(&self) -> &[Swap] {
        &self.swaps
    }

    /// Every guest register gets its usual home.
    pub(super) fn reset(&mut self) {
        for swap in self.swaps.drain(..) {
            self.table[swap.usual as usize] = swap.home;
            self.table[swap.own as usize] = Home::Frame;
        }
    }

    /// Gives the homes of registers that are used little to those that are used more, as far as that is worth moving
    /// them where the region is entered and left.
    pub(super) fn choose(&mut self, uses: &Uses) {
        self.reset();
        let x = GPRS.map(|(slot, reg)| (slot, Home::Gpr(reg)));
        let f = XMMS.map(|(slot, reg)| (slot, Home::Xmm(reg)));
        let gain =
            self.choose_of(uses, &x, 1..32) + self.choose_of(uses, &f, F as Slot..F as Slot + 32);
        let least = (uses.executed / LEAST_SHARE).max(LEAST_GAIN);
        if gain < CALL * u64::from(uses.crossings) + least {
            self.reset();
        }
    }

    fn choose_of(
        &mut self,
        uses: &Uses,
        usual: &[(Slot, Home)],
        slots: std::ops::Range<Slot>,
    ) -> u64 {
        let weight = |slot: Slot| u64::from(uses.weights[slot as usize]);
        let mut given: Vec<_> = usual.to_vec();
        given.sort_by_key(|&(slot, _)| weight(slot));
        let mut wanted: Vec<_> =
            slots.filter(|&slot| HOMES[slot as usize] == Home::Frame).collect();
        wanted.sort_by_key(|&slot| std::cmp::Reverse(weight(slot)));
        let mut gain = 0;
        for ((usual, home), own) in given.into_iter().zip(wanted) {
            let costs = weight(usual) + MOVES * u64::from(uses.crossings);
            if weight(own) <= costs + costs / 4 || self.swaps.len() == MAX_SWAPS {
                break;
            }
            gain += weight(own) - costs;
            let writes = uses.written >> own & 1 != 0;
            self.swap(Swap { home, usual, own, writes });
        }
        gain
    }

    /// Gives a register's home to another, which has none.
    pub(super) fn swap(&mut self, swap: Swap) {
        self.table[swap.usual as usize] = Home::Frame;
        self.table[swap.own as usize] = swap.home;
        self.swaps.push(swap);
    }
}

/// A guest register's place in the frame.
#[inline]
pub(super) const fn in_frame(slot: Slot) -> Mem {
    Mem::new(RBP, 8 * slot as i32)
}

/// Whether what is written to the register is never read.
#[inline]
pub(super) const fn is_discarded(slot: Slot) -> bool {
    slot == 0 || slot == SINK
}
