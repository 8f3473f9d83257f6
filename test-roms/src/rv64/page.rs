//! Page tables written by Rust into a guest's data, and accesses with another mode's rights.
//!
//! Source: Privileged ISA, "Supervisor-Level ISA", sections on `satp`, Sv39, Sv48, Sv57.

use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Mode, Suite, record, rv};

/// PTE bits.
pub(super) const V: u64 = 1;
pub(super) const R: u64 = 2;
pub(super) const W: u64 = 4;
pub(super) const X: u64 = 8;
pub(super) const U: u64 = 16;
pub(super) const G: u64 = 32;
pub(super) const A: u64 = 64;
pub(super) const D: u64 = 128;
/// Svnapot's N.
pub(super) const N: u64 = 1 << 63;
/// A supervisor page with all rights, accessed and dirty.
pub(super) const ALL: u64 = V | R | W | X | A | D;

/// A page-table tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    /// Address of the root page.
    pub(super) root: u64,
    /// 3 for Sv39, 4 for Sv48, 5 for Sv57.
    pub(super) levels: u32,
}

impl Space {
    /// An empty tree that maps the guest itself (1 GiB at 0x80000000, supervisor, all rights).
    pub(super) fn new(s: &mut Suite, levels: u32) -> Self {
        let root = s.bytes(4096, &[0; 4096]);
        let space = Self { root, levels };
        space.map(s, 0x8000_0000, 2, leaf(0x8000_0000, ALL));
        space
    }

    /// Value of `satp`.
    pub(super) fn satp(self, asid: u64) -> u64 {
        u64::from(self.levels + 5) << 60 | asid << 44 | self.root >> 12
    }

    /// Address of the entry that maps `va` at `level` (0 = 4 KiB), making tables above it.
    pub(super) fn entry(self, s: &mut Suite, va: u64, level: u32) -> u64 {
        let mut table = self.root;
        let mut at = self.levels - 1;
        loop {
            let entry = table + (va >> (12 + 9 * at) & 0x1ff) * 8;
            if at == level {
                return entry;
            }
            if s.peek(entry) == 0 {
                let next = s.bytes(4096, &[0; 4096]);
                s.poke(entry, next >> 2 | V);
            }
            table = s.peek(entry) >> 10 << 12;
            at -= 1;
        }
    }

    /// Puts an entry into the tree; returns its address.
    pub(super) fn map(self, s: &mut Suite, va: u64, level: u32, pte: u64) -> u64 {
        let entry = self.entry(s, va, level);
        s.poke(entry, pte);
        entry
    }

    /// Switches translation to this tree (seen by S and U, and by M with MPRV) and fences.
    pub(super) fn enable(self, s: &mut Suite, asid: u64) {
        s.li(T5, self.satp(asid));
        rv!(s; csrw satp, t5);
        s.word(raw::sfence_vma(0, 0));
    }
}

/// A leaf for physical address `pa`.
pub(super) fn leaf(pa: u64, flags: u64) -> u64 {
    pa >> 2 | flags
}

/// Kinds of access, numbered as tables of rows use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// `ld`
    Load = 0,
    /// `sd`
    Store = 1,
    /// A jump to an `ecall`.
    Fetch = 2,
}

impl Access {
    /// Every kind.
    pub(super) const EACH: [Self; 3] = [Self::Load, Self::Store, Self::Fetch];

    /// Its page-fault cause.
    pub(super) fn page_fault(self) -> u64 {
        [13, 15, 12][self as usize]
    }

    /// Its access-fault cause.
    pub(super) fn access_fault(self) -> u64 {
        [5, 7, 1][self as usize]
    }
}

/// What an access must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Succeed.
    Ok,
    /// Succeed, a load reading this value.
    Reads(u64),
    /// Raise this cause, `mtval` = address.
    Trap(u64),
}

/// One case: an access to `va` with the rights of `mode` (loads and stores by MPRV).
pub(super) fn access(
    s: &mut Suite,
    name: &str,
    kind: Access,
    mode: Mode,
    va: u64,
    outcome: Outcome,
) {
    s.case(&format!("{name}: {kind:?} in {mode:?} at {va:#x}"));
    access_again(s, kind, mode, va, outcome);
}

/// [`access`] within the running case.
pub(super) fn access_again(s: &mut Suite, kind: Access, mode: Mode, va: u64, outcome: Outcome) {
    let resume = s.arm();
    let over = s.label();
    s.li(A1, va);
    s.li(A3, 1 << 17 | 3 << 11);
    s.li(A2, 1 << 17 | (mode as u64) << 11);
    rv!(s; csrc mstatus, a3);
    match kind {
        Access::Load => rv!(s; csrs mstatus, a2; ld a0, [a1]; csrc mstatus, a3),
        Access::Store => rv!(s; csrs mstatus, a2; sd a1, [a1]; csrc mstatus, a3),
        Access::Fetch => {
            s.li(A2, (mode as u64) << 11);
            rv!(s; csrs mstatus, a2; csrw mepc, a1);
            s.word(raw::MRET);
        }
    }
    match (outcome, kind) {
        (Outcome::Trap(cause), _) => {
            s.fail();
            rv!(s; =>resume; csrc mstatus, a3);
            s.check_record(record::MCAUSE, cause);
            s.check_record(record::MTVAL, va);
        }
        (_, Access::Fetch) => {
            rv!(s; =>resume);
            s.check_record(record::MCAUSE, 8 + mode as u64);
            s.check_record(record::MEPC, va);
        }
        (outcome, _) => {
            rv!(s; j =>over; =>resume);
            s.fail();
            rv!(s; =>over);
            s.disarm();
            if let (Outcome::Reads(value), Access::Load) = (outcome, kind) {
                s.check(A0, value);
            }
        }
    }
}
