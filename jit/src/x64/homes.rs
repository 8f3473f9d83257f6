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

/// The home of a guest register.
#[inline]
pub(super) const fn home(slot: Slot) -> Home {
    HOMES[slot as usize]
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
