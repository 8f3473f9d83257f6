//! The soft TLB: guest virtual page -> host memory.
//!
//! One [`Tlb`] holds a table per address space and access class (privilege and whatever else selects
//! permissions), so that changing either selects another table and flushes nothing. A table grows while
//! it misses. Nothing here knows an ISA: the key of a table is the caller's.
//!
//! A hit is proven by one comparison: the tag of an entry is a page-aligned virtual address, and the
//! address looked up keeps its low bits below the access size, so that a misaligned access misses.
#![allow(unsafe_code)] // A hit turns an entry into a host access; see `Tlb::load`.

use crate::bus::{PAGE_MASK, PAGE_SIZE};
use crate::ram::{self, Cell, HostPage};

/// A tag no address can match, because tags are compared with page-aligned addresses.
const NO_TAG: u64 = PAGE_MASK;
/// Most tables kept; the least recently used goes first.
const MAX_TABLES: usize = 16;
const MIN_ENTRIES: usize = 256;
const MAX_ENTRIES: usize = 8192;
const MAX_FILLED: usize = 128;

/// Which tables a flush reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableKey {
    /// The address space, as the ISA names it (RISC-V: `satp`).
    pub space: u64,
    /// What a flush by address space identifier compares (RISC-V: the ASID).
    pub asid: u16,
    /// Access class: privilege and permission modifiers.
    pub class: u8,
}

/// An entry. Translated code knows its layout: 32 bytes, the fields in this order.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
struct Entry {
    read: u64,
    write: u64,
    /// Host address minus guest virtual address.
    addend: usize,
    /// Guest physical page.
    gpa: u64,
}

const EMPTY: Entry = Entry { read: NO_TAG, write: NO_TAG, addend: 0, gpa: 0 };

/// The offset of an entry in its table is its virtual address shifted right by this, under a mask.
pub const TLB_SHIFT: u32 = PAGE_SIZE.trailing_zeros() - size_of::<Entry>().trailing_zeros();

impl Entry {
    fn protect(&mut self, gpa: u64) {
        if self.gpa == gpa {
            self.write = NO_TAG;
        }
    }

    /// The host page and guest physical page of the entry, one of whose tags is `tag`.
    fn place(&self, tag: u64) -> (HostPage, u64) {
        let host = std::ptr::with_exposed_provenance_mut(self.addend.wrapping_add(tag as usize));
        // SAFETY: a tag and the addend of a filled entry make up the address of the HostPage it was filled with.
        (unsafe { HostPage::new(std::ptr::NonNull::new_unchecked(host)) }, self.gpa)
    }
}

/// The smallest naturally aligned region that holds every mapping larger than a page. Entries are for single
/// pages, so a flush of one page inside such a mapping must reach all of its entries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LargeMappings(Option<Region>);

#[derive(Clone, Copy, Debug)]
struct Region {
    base: u64,
    mask: u64,
}

impl LargeMappings {
    /// Takes in the mapping of `span` bytes around `va`; one page needs no taking in.
    pub(crate) fn add(&mut self, va: u64, span: u64) {
        if span <= PAGE_SIZE {
            return;
        }
        let mut mask = !(span - 1);
        if let Some(old) = self.0 {
            mask &= old.mask;
            while (old.base ^ va) & mask != 0 {
                mask <<= 1;
            }
        }
        self.0 = Some(Region { base: va & mask, mask });
    }

    /// Whether `va` may lie in one of the mappings.
    pub(crate) fn may_hold(self, va: u64) -> bool {
        self.0.is_some_and(|region| va & region.mask == region.base)
    }
}

#[derive(Debug)]
struct Table {
    key: TableKey,
    entries: Box<[Entry]>,
    /// Entries that were thrown out by another page since the table last grew or was emptied.
    conflicts: usize,
    /// Indices of the entries filled since the table was emptied, up to [`MAX_FILLED`] of them: a flush of a
    /// table that was hardly used must not cost its whole size.
    filled: Vec<u32>,
    large: LargeMappings,
    last_use: u64,
}

impl Table {
    fn new(key: TableKey) -> Self {
        Table {
            key,
            entries: vec![EMPTY; MIN_ENTRIES].into_boxed_slice(),
            conflicts: 0,
            filled: Vec::with_capacity(MAX_FILLED),
            large: LargeMappings::default(),
            last_use: 0,
        }
    }

    fn flush(&mut self) {
        if self.filled.len() < MAX_FILLED {
            for &index in &self.filled {
                self.entries[index as usize] = EMPTY;
            }
        } else {
            self.entries.fill(EMPTY);
        }
        self.filled.clear();
        self.conflicts = 0;
        self.large = LargeMappings::default();
    }

    fn set(&mut self, va: u64, entry: Entry) {
        let index = self.index(va);
        if self.filled.len() < MAX_FILLED {
            self.filled.push(index as u32);
        }
        self.entries[index] = entry;
    }

    fn flush_page(&mut self, va: u64) {
        if self.large.may_hold(va) {
            self.flush();
            return;
        }
        let page = va & !PAGE_MASK;
        let index = self.index(va);
        let entry = &mut self.entries[index];
        if entry.read == page || entry.write == page {
            *entry = EMPTY;
        }
    }

    #[inline(always)]
    fn index(&self, va: u64) -> usize {
        (va / PAGE_SIZE) as usize & (self.entries.len() - 1)
    }

    fn grow(&mut self) {
        let size = self.entries.len() * 4;
        let old = std::mem::replace(&mut self.entries, vec![EMPTY; size].into_boxed_slice());
        self.conflicts = 0;
        self.filled.clear();
        for entry in old.iter().filter(|entry| entry.read != NO_TAG || entry.write != NO_TAG) {
            let va = if entry.read == NO_TAG { entry.write } else { entry.read };
            self.set(va, *entry);
        }
    }
}

/// A translation to be entered.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// Virtual address, anywhere in the page.
    pub va: u64,
    /// Guest physical address of the page.
    pub gpa: u64,
    /// The host page.
    pub host: HostPage,
    /// Loads are allowed.
    pub read: bool,
    /// Stores are allowed, and nobody watches them. Nothing can be stored where nothing can be loaded: translated code
    /// takes a right to write for a right to read.
    pub write: bool,
    /// Bytes the mapping covers: at least a page, a power of two.
    pub span: u64,
}

/// All soft-TLB tables of one hart, one of them current.
#[derive(Debug)]
pub struct Tlb {
    /// The current table, kept here so that a look-up has one indirection less.
    current: Table,
    others: Vec<Table>,
    clock: u64,
    /// Pages that were write-protected, by a hash of their address: when they are again, and code pages that are
    /// written to are again and again, there is no need to look through every table.
    guards: Box<[Guard; GUARDS]>,
}

const GUARDS: usize = 64;

/// What has become of a guest physical page since its write entries were dropped.
#[derive(Clone, Copy, Debug)]
struct Guard {
    gpa: u64,
    writers: Writers,
}

/// Write entries for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writers {
    None,
    /// In this table, for this virtual page.
    One(TableKey, u64),
    Many,
}

impl Guard {
    fn index(gpa: u64) -> usize {
        (gpa / PAGE_SIZE) as usize % GUARDS
    }
}

impl Tlb {
    /// Makes an empty TLB whose current table is `key`'s.
    #[must_use]
    pub fn new(key: TableKey) -> Self {
        let no_page = Guard { gpa: NO_TAG, writers: Writers::Many };
        let guards = Box::new([no_page; GUARDS]);
        Tlb { current: Table::new(key), others: Vec::new(), clock: 0, guards }
    }

    /// Makes `key`'s table current.
    #[inline]
    pub fn select(&mut self, key: TableKey) {
        if self.current.key != key {
            self.switch(key);
        }
    }

    fn switch(&mut self, key: TableKey) {
        self.clock += 1;
        self.current.last_use = self.clock;
        if let Some(table) = self.others.iter_mut().find(|table| table.key == key) {
            std::mem::swap(&mut self.current, table);
        } else if self.others.len() + 1 < MAX_TABLES {
            let old = std::mem::replace(&mut self.current, Table::new(key));
            self.others.push(old);
        } else if let Some(oldest) = self.others.iter_mut().min_by_key(|table| table.last_use) {
            oldest.flush();
            oldest.key = key;
            std::mem::swap(&mut self.current, oldest);
        }
    }

    /// Loads from `va` if the current table allows it; misses on any misalignment.
    #[inline(always)]
    #[must_use]
    pub fn load<T: Cell>(&self, va: u64) -> Option<T> {
        let entry = &self.current.entries[self.current.index(va)];
        let probe = va & !(PAGE_MASK & !(T::WIDTH.bytes() - 1));
        if entry.read != probe {
            return None;
        }
        // SAFETY: the tag proves that `va` is aligned and lies in the page whose HostPage made the
        // addend in `fill`; pages outlive the CPU (HostPage::new).
        Some(unsafe { T::load(entry.addend.wrapping_add(va as usize)) })
    }

    /// Stores to `va` if the current table allows it; misses on any misalignment. Whether it hit.
    #[inline(always)]
    #[must_use]
    pub fn store<T: Cell>(&self, va: u64, value: T) -> bool {
        let entry = &self.current.entries[self.current.index(va)];
        let probe = va & !(PAGE_MASK & !(T::WIDTH.bytes() - 1));
        if entry.write != probe {
            return false;
        }
        // SAFETY: as in `load`; the write tag is only set for writable pages.
        unsafe { value.store(entry.addend.wrapping_add(va as usize)) };
        true
    }

    /// Loads from `va`, of any alignment inside a page, if the current table allows it.
    #[inline(always)]
    #[must_use]
    pub fn load_any<T: Cell>(&self, va: u64) -> Option<T> {
        let entry = &self.current.entries[self.current.index(va)];
        // The page of the last byte: a neighbour's tag never stands at this index.
        if entry.read != va.wrapping_add(T::WIDTH.bytes() - 1) & !PAGE_MASK {
            return None;
        }
        // SAFETY: as in `load`, for all bytes.
        Some(unsafe { T::load_any(entry.addend.wrapping_add(va as usize)) })
    }

    /// Stores to `va`, of any alignment inside a page, if the current table allows it. Whether it hit.
    #[inline(always)]
    #[must_use]
    pub fn store_any<T: Cell>(&self, va: u64, value: T) -> bool {
        let entry = &self.current.entries[self.current.index(va)];
        if entry.write != va.wrapping_add(T::WIDTH.bytes() - 1) & !PAGE_MASK {
            return false;
        }
        // SAFETY: as in `store`, for all bytes.
        unsafe { value.store_any(entry.addend.wrapping_add(va as usize)) };
        true
    }

    /// Loads `N` times 16 bytes from `va`, of any alignment inside a page, if the current table allows it.
    #[inline(always)]
    #[must_use]
    pub fn load_pairs<const N: usize>(&self, va: u64) -> Option<[[u64; 2]; N]> {
        let entry = &self.current.entries[self.current.index(va)];
        if entry.read != va.wrapping_add(16 * N as u64 - 1) & !PAGE_MASK {
            return None;
        }
        let host = entry.addend.wrapping_add(va as usize);
        let mut pairs = [[0; 2]; N];
        for (i, pair) in pairs.iter_mut().enumerate() {
            // SAFETY: as in `load_any`, for all of them.
            *pair = unsafe { ram::load_pair(host.wrapping_add(16 * i)) };
        }
        Some(pairs)
    }

    /// Stores `N` times 16 bytes to `va`, of any alignment inside a page, if the current table allows it. Whether it hit.
    #[inline(always)]
    #[must_use]
    pub fn store_pairs<const N: usize>(&self, va: u64, pairs: [[u64; 2]; N]) -> bool {
        let entry = &self.current.entries[self.current.index(va)];
        if entry.write != va.wrapping_add(16 * N as u64 - 1) & !PAGE_MASK {
            return false;
        }
        let host = entry.addend.wrapping_add(va as usize);
        for (i, pair) in pairs.into_iter().enumerate() {
            // SAFETY: as in `store_any`, for all of them.
            unsafe { ram::store_pair(host.wrapping_add(16 * i), pair) };
        }
        true
    }

    /// Loads the 16 bytes at `va`, in one step where the host can, if they are aligned and the current table allows
    /// it.
    #[inline(always)]
    #[must_use]
    pub fn load_16(&self, va: u64) -> Option<[u64; 2]> {
        let entry = &self.current.entries[self.current.index(va)];
        if entry.read != va & !(PAGE_MASK - 15) {
            return None;
        }
        // SAFETY: the tag fits, so the page is live, and the address is aligned as the tag is.
        Some(unsafe { ram::load_16(entry.addend.wrapping_add(va as usize)) })
    }

    /// Stores 16 bytes to `va`, in one step where the host can, if they are aligned and the current table allows it.
    /// Whether it hit.
    #[inline(always)]
    #[must_use]
    pub fn store_16(&self, va: u64, value: [u64; 2]) -> bool {
        let entry = &self.current.entries[self.current.index(va)];
        if entry.write != va & !(PAGE_MASK - 15) {
            return false;
        }
        // SAFETY: as in `load_16`; the write tag is only set for writable pages.
        unsafe { ram::store_16(entry.addend.wrapping_add(va as usize), value) };
        true
    }

    /// Replaces the value at `va` by `f(old)`, not atomically, if the current table allows stores there. What was
    /// there before.
    #[inline(always)]
    #[must_use]
    pub fn update_any<T: Cell>(&self, va: u64, f: impl FnOnce(T) -> T) -> Option<T> {
        let entry = &self.current.entries[self.current.index(va)];
        if entry.write != va.wrapping_add(T::WIDTH.bytes() - 1) & !PAGE_MASK {
            return None;
        }
        let host = entry.addend.wrapping_add(va as usize);
        // SAFETY: as in `load_any`; what can be stored to can be loaded from (`fill`).
        let old = unsafe { T::load_any(host) };
        // SAFETY: as in `store_any`.
        unsafe { f(old).store_any(host) };
        Some(old)
    }

    /// The host page and guest physical page of `va`, if the current table allows loads there.
    #[inline]
    #[must_use]
    pub fn readable(&self, va: u64) -> Option<(HostPage, u64)> {
        let entry = &self.current.entries[self.current.index(va)];
        (entry.read == va & !PAGE_MASK).then(|| entry.place(entry.read))
    }

    /// The host page and guest physical page of `va`, if the current table allows stores there.
    #[inline]
    #[must_use]
    pub fn writable(&self, va: u64) -> Option<(HostPage, u64)> {
        let entry = &self.current.entries[self.current.index(va)];
        (entry.write == va & !PAGE_MASK).then(|| entry.place(entry.write))
    }

    /// Enters a translation into the current table.
    pub fn fill(&mut self, fill: Fill) {
        let page = fill.va & !PAGE_MASK;
        let table = &mut self.current;
        let index = table.index(page);
        let entry = table.entries[index];
        let taken = |tag: u64| tag != NO_TAG && tag != page;
        if taken(entry.read) || taken(entry.write) {
            table.conflicts += 1;
            if table.conflicts > table.entries.len() && table.entries.len() < MAX_ENTRIES {
                table.grow();
            }
        }
        table.large.add(page, fill.span);
        let entry = Entry {
            read: if fill.read { page } else { NO_TAG },
            write: if fill.write && fill.read { page } else { NO_TAG },
            addend: fill.host.addr().wrapping_sub(page as usize),
            gpa: fill.gpa & !PAGE_MASK,
        };
        table.set(page, entry);
        let guard = &mut self.guards[Guard::index(entry.gpa)];
        if fill.write && guard.gpa == entry.gpa {
            let writer = Writers::One(table.key, page);
            guard.writers = match guard.writers {
                Writers::None => writer,
                same if same == writer => writer,
                _ => Writers::Many,
            };
        }
    }

    /// Address of the current table's first entry, and the mask for [`TLB_SHIFT`]. Good until the TLB is
    /// filled, flushed or made to select another table.
    #[must_use]
    pub fn table(&self) -> (usize, u64) {
        let entries = &self.current.entries;
        (entries.as_ptr().expose_provenance(), ((entries.len() - 1) * size_of::<Entry>()) as u64)
    }

    fn tables(&mut self) -> impl Iterator<Item = &mut Table> {
        std::iter::once(&mut self.current).chain(&mut self.others)
    }

    /// Drops every translation.
    pub fn flush(&mut self) {
        self.tables().for_each(Table::flush);
    }

    /// Drops the translations of one address space identifier, or of all; of one page, or of all.
    pub fn flush_matching(&mut self, asid: Option<u16>, va: Option<u64>) {
        for table in self.tables().filter(|table| asid.is_none_or(|asid| table.key.asid == asid)) {
            match va {
                Some(va) => table.flush_page(va),
                None => table.flush(),
            }
        }
    }

    /// Drops the right to write the guest physical page at `gpa`, in every table.
    pub fn write_protect(&mut self, gpa: u64) {
        let gpa = gpa & !PAGE_MASK;
        let fresh = Guard { gpa, writers: Writers::None };
        let guard = std::mem::replace(&mut self.guards[Guard::index(gpa)], fresh);
        match guard.writers {
            Writers::None if guard.gpa == gpa => {}
            Writers::One(key, va) if guard.gpa == gpa => {
                for table in self.tables().filter(|table| table.key == key) {
                    let index = table.index(va);
                    table.entries[index].protect(gpa);
                }
            }
            _ => {
                for table in self.tables().filter(|table| !table.filled.is_empty()) {
                    table.entries.iter_mut().for_each(|entry| entry.protect(gpa));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::NonNull;

    #[repr(align(4096))]
    #[expect(dead_code, reason = "read through the host address alone")]
    struct Page([u8; 4096]);

    fn host_page(bytes: [u8; 4096]) -> HostPage {
        let page = Box::leak(Box::new(Page(bytes)));
        // SAFETY: leaked, page-aligned by its type, not referenced otherwise.
        unsafe { HostPage::new(NonNull::from(page).cast()) }
    }

    fn key(space: u64, asid: u16) -> TableKey {
        TableKey { space, asid, class: 0 }
    }

    fn fill(va: u64, host: HostPage, write: bool, span: u64) -> Fill {
        Fill { va, gpa: 0x8000_0000, host, read: true, write, span }
    }

    #[test]
    fn hits_need_the_right_page_alignment_and_permission() {
        let mut bytes = [0; 4096];
        bytes[8] = 0x2a;
        let host = host_page(bytes);
        let mut tlb = Tlb::new(key(0, 0));
        assert_eq!(tlb.load::<u64>(0x5008), None);
        tlb.fill(fill(0x5123, host, false, 4096));
        assert_eq!(tlb.load::<u64>(0x5008), Some(0x2a));
        assert_eq!(tlb.load::<u8>(0x5008), Some(0x2a));
        assert_eq!(tlb.load::<u32>(0x500a), None, "misaligned accesses miss");
        assert_eq!(tlb.load::<u64>(0x105008), None, "same index, other page");
        assert!(!tlb.store(0x5008, 1u8), "read-only");
        tlb.fill(fill(0x5000, host, true, 4096));
        assert!(tlb.store(0x5008, 0x1234u16));
        assert_eq!(tlb.load::<u32>(0x5008), Some(0x1234));
    }

    #[test]
    fn tables_survive_a_switch_and_flushes_reach_what_they_name() {
        let host = host_page([7; 4096]);
        let mut tlb = Tlb::new(key(1, 1));
        tlb.fill(fill(0x5000, host, true, 4096));
        tlb.fill(fill(0x6000, host, true, 4096));
        tlb.select(key(2, 2));
        assert_eq!(tlb.load::<u8>(0x5000), None);
        tlb.fill(fill(0x5000, host, true, 4096));
        tlb.flush_matching(Some(1), Some(0x5abc));
        assert_eq!(tlb.load::<u8>(0x5000), Some(7), "another ASID is not touched");
        tlb.select(key(1, 1));
        assert_eq!(tlb.load::<u8>(0x5000), None);
        assert_eq!(tlb.load::<u8>(0x6000), Some(7));
        tlb.flush();
        assert_eq!(tlb.load::<u8>(0x6000), None);
    }

    #[test]
    fn a_flush_inside_a_large_mapping_drops_all_of_it() {
        let host = host_page([7; 4096]);
        let mut tlb = Tlb::new(key(1, 1));
        tlb.fill(fill(0x20_5000, host, true, 0x20_0000));
        tlb.fill(fill(0x20_6000, host, true, 0x20_0000));
        tlb.flush_matching(None, Some(0x40_0000));
        assert_eq!(tlb.load::<u8>(0x20_5000), Some(7));
        tlb.flush_matching(None, Some(0x3f_f000));
        assert_eq!(tlb.load::<u8>(0x20_5000), None);
        assert_eq!(tlb.load::<u8>(0x20_6000), None);
    }

    #[test]
    fn a_table_grows_when_pages_collide_and_old_tables_make_room() {
        let host = host_page([7; 4096]);
        let mut tlb = Tlb::new(key(0, 0));
        for round in 0..4 {
            for page in 0..1024u64 {
                tlb.fill(fill(page << 12, host, true, 4096));
                assert_eq!(tlb.load::<u8>(page << 12), Some(7), "round {round}");
            }
        }
        assert!((0..1024u64).all(|page| tlb.load::<u8>(page << 12) == Some(7)));
        for space in 1..40 {
            tlb.select(key(space, 0));
            assert_eq!(tlb.load::<u8>(0x5000), None, "a recycled table is empty");
            tlb.fill(fill(0x5000, host, true, 4096));
        }
        assert_eq!(tlb.others.len() + 1, MAX_TABLES);
    }

    #[test]
    fn write_protection_is_by_physical_page() {
        let host = host_page([7; 4096]);
        let mut tlb = Tlb::new(key(0, 0));
        tlb.fill(fill(0x5000, host, true, 4096));
        tlb.select(key(1, 0));
        tlb.fill(fill(0x9000, host, true, 4096));
        tlb.write_protect(0x8000_0123);
        assert!(!tlb.store(0x9000, 1u8));
        tlb.select(key(0, 0));
        assert!(!tlb.store(0x5000, 1u8));
        assert_eq!(tlb.load::<u8>(0x5000), Some(7), "reads stay");
        // Again, with entries made since then: none, one, the same in another table, and two.
        tlb.write_protect(0x8000_0000);
        for entries in
            [&[(0, 0x5000)][..], &[(1, 0x5000)], &[(0, 0x5000), (0, 0x9000)], &[(1, 0x7000)]]
        {
            for &(space, va) in entries {
                tlb.select(key(space, 0));
                tlb.fill(fill(va, host, true, 4096));
                assert!(tlb.store(va, 1u8));
            }
            tlb.select(key(2, 0));
            tlb.write_protect(0x8000_0000);
            for &(space, va) in entries {
                tlb.select(key(space, 0));
                assert!(!tlb.store(va, 1u8), "{space} {va:#x}");
                assert_eq!(tlb.load::<u8>(va), Some(1));
            }
        }
    }
}
