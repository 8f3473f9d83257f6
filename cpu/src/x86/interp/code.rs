//! Decoded blocks, kept by guest physical page and mode, and the fetch TLB that leads to them.

use std::collections::HashMap;

use crate::bus::{PAGE_MASK, PAGE_SIZE, Width};
use crate::ram::HostPage;
use crate::tlb::LargeMappings;

use super::super::decode::{self, Decoded, MAX_LEN, Mode, Op};
use super::super::insn::Usage;
use super::super::model::Model;

/// Decoded instructions kept before everything is dropped (40 bytes each).
const MAX_OPS: usize = 2 << 20;
/// Pages kept before everything is dropped (36 KiB each).
const MAX_PAGES: usize = 8 << 10;
/// Most instructions in a block.
const MAX_BLOCK: usize = 64;
/// Numbers that [`Mode::key`] gives.
const MODES: u64 = 8;

/// A block as the slot of its first byte names it: where its ops begin, how many, and the bytes they span.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::x86) struct Block(u64);

impl Block {
    /// Nothing has been decoded here.
    pub(in crate::x86) const NONE: Block = Block(0);
    /// The first instruction crosses into the next page, whose frame is another address space's business: it
    /// cannot be kept.
    pub(super) const CROSSING: Block = Block(1);

    fn new(start: usize, len: usize, bytes: usize) -> Self {
        Block((start as u64) << 32 | (len as u64) << 16 | bytes as u64)
    }

    #[inline(always)]
    fn start(self) -> usize {
        (self.0 >> 32) as usize
    }

    #[inline(always)]
    fn len(self) -> usize {
        usize::from((self.0 >> 16) as u16)
    }

    /// Bytes of code.
    #[inline(always)]
    pub(in crate::x86) fn bytes(self) -> u64 {
        u64::from(self.0 as u16)
    }
}

const SIZE: usize = PAGE_SIZE as usize;
/// Bytes of a page that are compared as one: there is a bit for each.
const PIECE: usize = SIZE / 64;
/// How often a page is kept that is written to: whoever still executes it makes it known again, while a page that has
/// become data is not looked at any more.
const MAX_KEPT: u32 = 64;

/// A page of guest memory with the blocks made from it. They are made from a copy, so that what has been written to
/// the page can be told from what it was when they were made.
struct CodePage {
    gpa: u64,
    host: HostPage,
    mode: Mode,
    copy: Box<[u8; SIZE]>,
    /// The pieces of the copy from which something was made.
    used: u64,
    /// Length of the code log when the pieces that are not used were copied last.
    copied_at: Option<u64>,
    /// How often the page was written to and kept.
    kept: u32,
}

impl CodePage {
    fn now(&self, piece: usize) -> [u8; PIECE] {
        let mut bytes = [0; PIECE];
        for (word, at) in bytes.chunks_exact_mut(8).zip((piece * PIECE..).step_by(8)) {
            word.copy_from_slice(&self.host.load(at as u64, Width::Double).to_le_bytes());
        }
        bytes
    }

    fn refresh(&mut self) {
        for piece in (0..64).filter(|piece| self.used >> piece & 1 == 0) {
            let bytes = self.now(piece);
            self.copy[piece * PIECE..][..PIECE].copy_from_slice(&bytes);
        }
    }

    fn is_as_used(&self) -> bool {
        (0..64)
            .filter(|piece| self.used >> piece & 1 != 0)
            .all(|piece| self.copy[piece * PIECE..][..PIECE] == self.now(piece))
    }

    /// Marks the pieces that hold `len` bytes at `offset`.
    fn mark(&mut self, offset: usize, len: usize) {
        self.used |= 1 << (offset / PIECE) | 1 << ((offset + len - 1).min(SIZE - 1) / PIECE);
    }
}

/// Instructions by themselves that are kept.
const ALONE: usize = 256;

/// An instruction by itself.
#[derive(Clone, Copy)]
struct Alone {
    place: usize,
    /// The page's version.
    version: u32,
    op: Option<Op>,
}

/// All decoded code of a processor.
pub struct CodeCache {
    ops: Vec<Op>,
    pages: Vec<CodePage>,
    /// The block that starts at each offset of each page.
    slots: Vec<Block>,
    by_gpa: HashMap<u64, u32>,
    free: Vec<u32>,
    /// How often each page's number has been given up.
    versions: Vec<u32>,
    pub(super) fetch: FetchTlb,
    /// Instructions by themselves, by a hash of their place.
    alone: Box<[Alone; ALONE]>,
    pub(super) blocks_decoded: u64,
}

impl CodeCache {
    pub(super) fn new() -> Self {
        CodeCache {
            ops: Vec::new(),
            pages: Vec::new(),
            slots: Vec::new(),
            by_gpa: HashMap::new(),
            free: Vec::new(),
            versions: Vec::new(),
            fetch: FetchTlb::new(),
            alone: Box::new([const { Alone { place: usize::MAX, version: 0, op: None } }; ALONE]),
            blocks_decoded: 0,
        }
    }

    fn key(gpa: u64, mode: u8) -> u64 {
        gpa & !PAGE_MASK | u64::from(mode)
    }

    /// Index of the page at `gpa` in `mode`; made if it is not known.
    pub(super) fn page(&mut self, gpa: u64, host: HostPage, mode: Mode) -> u32 {
        let key = Self::key(gpa, mode.key());
        if let Some(index) = self.by_gpa.get(&key) {
            return *index;
        }
        let copy = Box::new([0; SIZE]);
        let gpa = gpa & !PAGE_MASK;
        let page = CodePage { gpa, host, mode, copy, used: 0, copied_at: None, kept: 0 };
        let index = match self.free.pop() {
            Some(index) => {
                self.pages[index as usize] = page;
                index
            }
            None => {
                self.pages.push(page);
                self.slots.resize(self.pages.len() * SIZE, Block::NONE);
                if self.versions.len() < self.pages.len() {
                    self.versions.push(0);
                }
                self.pages.len() as u32 - 1
            }
        };
        self.by_gpa.insert(key, index);
        index
    }

    /// Indices of the pages at `gpa`, in all modes.
    pub(super) fn pages_at(&self, gpa: u64) -> impl Iterator<Item = u32> + use<'_> {
        (0..MODES).filter_map(move |mode| self.by_gpa.get(&Self::key(gpa, mode as u8)).copied())
    }

    /// Copies what nothing was made from yet of page `page`, which is watched, if the log of writes to code pages has
    /// grown since: it has `log` entries.
    pub(super) fn refresh(&mut self, page: u32, log: u64) {
        let page = &mut self.pages[page as usize];
        if page.copied_at != Some(log) {
            page.refresh();
            page.copied_at = Some(log);
        }
    }

    /// Whether page `page`, which was written to, may be kept if what was made of it has not changed.
    pub(super) fn may_keep(&mut self, page: u32) -> bool {
        let page = &mut self.pages[page as usize];
        page.kept += 1;
        // What is not used may have changed while the page was not watched.
        page.copied_at = None;
        page.kept <= MAX_KEPT
    }

    /// Whether what is used of page `page` is in memory as it was.
    pub(super) fn is_as_used(&self, page: u32) -> bool {
        self.pages[page as usize].is_as_used()
    }

    /// Forgets page `page`.
    pub(super) fn remove(&mut self, page: u32) {
        let CodePage { gpa, mode, .. } = self.pages[page as usize];
        self.by_gpa.remove(&Self::key(gpa, mode.key()));
        let first = page as usize * SIZE;
        self.slots[first..first + SIZE].fill(Block::NONE);
        self.free.push(page);
        self.versions[page as usize] += 1;
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.versions.iter_mut().for_each(|version| *version += 1);
        self.ops.clear();
        self.pages.clear();
        self.slots.clear();
        self.by_gpa.clear();
        self.free.clear();
    }

    /// Whether so much is kept that the cache should be cleared before more is decoded.
    pub(super) fn is_full(&self) -> bool {
        self.ops.len() > MAX_OPS || self.pages.len() > MAX_PAGES
    }

    /// What begins at a place, the number of a page times its bytes plus an offset into it, as far as it has been decoded.
    #[inline(always)]
    pub(in crate::x86) fn at(&self, place: usize) -> Block {
        self.slots.get(place).copied().unwrap_or(Block::NONE)
    }

    /// The ops of a block; none if it is none.
    #[inline(always)]
    pub(in crate::x86) fn ops(&self, block: Block) -> &[Op] {
        self.ops.get(block.start()..block.start() + block.len()).unwrap_or(&[])
    }

    /// Number of the page at `lin` in context `class`, as far as it is known.
    #[inline]
    pub(in crate::x86) fn known_page(&self, lin: u64, class: u8) -> Option<u32> {
        let (page, version) = self.fetch.lookup(lin, class)?;
        (version == self.version(page)).then_some(page)
    }

    /// How often number `page` has been given up by a page.
    pub(super) fn version(&self, page: u32) -> u32 {
        self.versions[page as usize]
    }

    /// Guest physical address of page `page`.
    pub(super) fn gpa(&self, page: u32) -> u64 {
        self.pages[page as usize].gpa
    }

    /// The instruction at a place, as far as it has been decoded by itself and is still at hand.
    pub(super) fn alone(&self, place: usize) -> Option<Op> {
        let kept = &self.alone[place % ALONE];
        (kept.place == place && kept.version == self.version((place / SIZE) as u32))
            .then_some(kept.op)?
    }

    /// Decodes the instruction at `offset` in page `page`; `None` if it crosses into the next page.
    pub(super) fn decode_alone(&mut self, page: u32, offset: u64, model: &Model) -> Option<Op> {
        let at = (offset & PAGE_MASK) as usize;
        let source = &mut self.pages[page as usize];
        let bytes = &source.copy[at..(at + MAX_LEN).min(SIZE)];
        let Decoded::Op(op, ..) = decode::decode(bytes, at as u16, source.mode, model) else {
            source.mark(at, SIZE - at);
            return None;
        };
        source.mark(at, usize::from(op.len));
        let (place, version) = (page as usize * SIZE + at, self.version(page));
        self.alone[place % ALONE] = Alone { place, version, op: Some(op) };
        Some(op)
    }

    /// Decodes the block at `offset` in page `page`.
    pub(super) fn decode(&mut self, page: u32, offset: u64, model: &Model) {
        let first = (offset & PAGE_MASK) as usize;
        let start = self.ops.len();
        let source = &mut self.pages[page as usize];
        let mut usages = [Usage::ALL; MAX_BLOCK];
        let mut at = first;
        while at < SIZE && self.ops.len() - start < MAX_BLOCK {
            let bytes = &source.copy[at..(at + MAX_LEN).min(SIZE)];
            let decoded = decode::decode(bytes, at as u16, source.mode, model);
            let Decoded::Op(op, usage, ends) = decoded else { break };
            let len = usize::from(op.len);
            source.mark(at, len);
            usages[self.ops.len() - start] = usage;
            self.ops.push(op);
            at += len;
            if ends {
                break;
            }
        }
        let len = self.ops.len() - start;
        let slot = if len == 0 {
            source.mark(first, SIZE - first);
            Block::CROSSING
        } else {
            join(&mut self.ops[start..], &usages[..len]);
            Block::new(start, len, at - first)
        };
        self.slots[page as usize * SIZE + first] = slot;
        self.blocks_decoded += 1;
    }
}

/// Gives ops functions that suit their neighbours in the block: those that compute no flags where nobody sees them, and
/// those that perform a conditional branch, too.
fn join(ops: &mut [Op], usages: &[Usage]) {
    // Flags that are seen behind an op: all behind the block.
    let mut seen = Usage::ALL.reads;
    for (op, usage) in ops.iter_mut().zip(usages).rev() {
        if usage.writes & seen == 0
            && let Some(quiet) = usage.quiet
        {
            op.handler = quiet;
        }
        seen = seen & !usage.writes | usage.reads;
    }
    for (op, pair) in ops.iter_mut().zip(usages.windows(2)) {
        if let [Usage { fused: Some(fused), .. }, Usage { jumps_if: Some(condition), .. }] = pair
            && let Some(both) = fused(*condition)
        {
            op.handler = both;
        }
    }
}

/// Linear page, privilege and mode -> decoded page.
pub(super) struct FetchTlb {
    entries: Box<[FetchEntry; FETCH_ENTRIES]>,
    /// Entries of other generations are stale.
    generation: u32,
    large: LargeMappings,
}

const FETCH_ENTRIES: usize = 1024;

#[derive(Clone, Copy)]
struct FetchEntry {
    /// Linear page, with privilege and mode in the low bits.
    tag: u64,
    generation: u32,
    page: u32,
    /// The page's version: another one has the number now if it does not fit.
    version: u32,
}

impl FetchTlb {
    pub(super) fn new() -> Self {
        let empty = FetchEntry { tag: 0, generation: 0, page: 0, version: 0 };
        FetchTlb {
            entries: Box::new([empty; FETCH_ENTRIES]),
            generation: 1,
            large: LargeMappings::default(),
        }
    }

    fn index(lin: u64) -> usize {
        (lin / PAGE_SIZE) as usize % FETCH_ENTRIES
    }

    /// The page at `lin` in context `class`, whose number and version must still fit.
    #[inline]
    pub(super) fn lookup(&self, lin: u64, class: u8) -> Option<(u32, u32)> {
        let entry = &self.entries[Self::index(lin)];
        (entry.tag == lin & !PAGE_MASK | u64::from(class) && entry.generation == self.generation)
            .then_some((entry.page, entry.version))
    }

    pub(super) fn fill(&mut self, lin: u64, class: u8, span: u64, (page, version): (u32, u32)) {
        self.large.add(lin, span);
        self.entries[Self::index(lin)] = FetchEntry {
            tag: lin & !PAGE_MASK | u64::from(class),
            generation: self.generation,
            page,
            version,
        };
    }

    pub(super) fn flush(&mut self) {
        self.large = LargeMappings::default();
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            // After 2^32 flushes old entries would look fresh.
            self.entries.iter_mut().for_each(|entry| entry.generation = 0);
            self.generation = 1;
        }
    }

    /// Drops the translation of the page at `lin`.
    pub(super) fn flush_page(&mut self, lin: u64) {
        if self.large.may_hold(lin) {
            self.flush();
        } else {
            self.entries[Self::index(lin)].generation = self.generation.wrapping_sub(1);
        }
    }
}
