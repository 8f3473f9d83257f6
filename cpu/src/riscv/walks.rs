//! Results of page-table walks, kept so that a TLB table that misses need not walk again: translations are
//! the same for every privilege mode, and global ones for every address space, while TLB tables are not.
//!
//! What is kept here is kept as long as in the TLB, and dropped by the same fences.

use crate::bus::{PAGE_MASK, PAGE_SIZE};
use crate::tlb::LargeMappings;

/// Entries; a power of two.
const ENTRIES: usize = 4096;

/// A leaf entry as it was when it was walked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    /// The lowest eight bits of the page-table entry: D, A, G, U, X, W, R, V.
    pub(super) bits: u8,
    /// Guest physical address of the 4 KiB page.
    pub(super) page: u64,
    /// Bytes the mapping covers.
    pub(super) span: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    va: u64,
    satp: u64,
    page: u64,
    generation: u32,
    bits: u8,
    span_log2: u8,
}

const GLOBAL: u8 = 1 << 5;

/// The cache of a hart.
#[derive(Debug)]
pub(super) struct WalkCache {
    entries: Box<[Entry]>,
    /// Entries of other generations are stale.
    generation: u32,
    large: LargeMappings,
}

fn index(va: u64) -> usize {
    let page = va / PAGE_SIZE;
    (page ^ page >> 12) as usize % ENTRIES
}

impl WalkCache {
    pub(super) fn new() -> Self {
        WalkCache {
            entries: vec![Entry::default(); ENTRIES].into_boxed_slice(),
            generation: 1,
            large: LargeMappings::default(),
        }
    }

    /// The walk for `va` in the address space of `satp`.
    #[inline]
    pub(super) fn lookup(&self, va: u64, satp: u64) -> Option<Walk> {
        let entry = &self.entries[index(va)];
        let same_space =
            entry.satp == satp || entry.bits & GLOBAL != 0 && entry.satp >> 60 == satp >> 60;
        (entry.va == va & !PAGE_MASK && same_space && entry.generation == self.generation)
            .then(|| Walk { bits: entry.bits, page: entry.page, span: 1 << entry.span_log2 })
    }

    pub(super) fn insert(&mut self, va: u64, satp: u64, walk: Walk) {
        self.large.add(va, walk.span);
        self.entries[index(va)] = Entry {
            va: va & !PAGE_MASK,
            satp,
            page: walk.page,
            generation: self.generation,
            bits: walk.bits,
            span_log2: walk.span.trailing_zeros() as u8,
        };
    }

    /// Forgets everything.
    pub(super) fn flush(&mut self) {
        self.large = LargeMappings::default();
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            // After 2^32 flushes old entries would look fresh.
            self.entries.fill(Entry::default());
            self.generation = 1;
        }
    }

    /// Forgets the walks of one address space identifier, or of all; of one page, or of all.
    pub(super) fn flush_matching(&mut self, asid: Option<u16>, va: Option<u64>) {
        match (asid, va) {
            (_, Some(va)) if self.large.may_hold(va) => self.flush(),
            (_, Some(va)) => {
                let entry = &mut self.entries[index(va)];
                if entry.va == va & !PAGE_MASK {
                    *entry = Entry::default();
                }
            }
            (None, None) => self.flush(),
            (Some(asid), None) => {
                for entry in &mut self.entries {
                    if (entry.satp >> 44) as u16 == asid && entry.bits & GLOBAL == 0 {
                        entry.generation = 0;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = 8 << 60 | 1 << 44 | 0x80000;
    const B: u64 = 8 << 60 | 2 << 44 | 0x90000;

    fn walk(page: u64, bits: u8) -> Walk {
        Walk { bits, page, span: 4096 }
    }

    #[test]
    fn only_global_walks_serve_other_address_spaces() {
        let mut walks = WalkCache::new();
        walks.insert(0x5123, A, walk(0x8000_0000, 0xcf));
        assert_eq!(walks.lookup(0x5fff, A), Some(walk(0x8000_0000, 0xcf)));
        assert_eq!(walks.lookup(0x5fff, B), None);
        walks.insert(0x6000, A, walk(0x8000_1000, 0xef));
        assert_eq!(walks.lookup(0x6000, B), Some(walk(0x8000_1000, 0xef)));
        assert_eq!(walks.lookup(0x6000, 9 << 60), None, "another number of levels");
    }

    #[test]
    fn fences_reach_what_they_name() {
        let mut walks = WalkCache::new();
        let fill = |walks: &mut WalkCache| {
            walks.insert(0x5000, A, walk(1 << 12, 0xcf));
            walks.insert(0x6000, B, walk(2 << 12, 0xcf));
            walks.insert(0x7000, A, walk(3 << 12, 0xef));
        };
        let known = |walks: &WalkCache| {
            [(0x5000, A), (0x6000, B), (0x7000, A)]
                .map(|(va, satp)| walks.lookup(va, satp).is_some())
        };
        fill(&mut walks);
        walks.flush_matching(Some(1), None);
        assert_eq!(known(&walks), [false, true, true], "global ones stay");
        fill(&mut walks);
        walks.flush_matching(None, Some(0x6abc));
        assert_eq!(known(&walks), [true, false, true]);
        walks.flush_matching(None, None);
        assert_eq!(known(&walks), [false; 3]);
        fill(&mut walks);
        walks.insert(0x40_5000, A, Walk { span: 0x20_0000, ..walk(4 << 12, 0xcf) });
        walks.flush_matching(None, Some(0x5f_f000));
        assert_eq!(walks.lookup(0x40_5000, A), None, "a fence inside a large mapping");
    }
}
