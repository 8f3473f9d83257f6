//! Decoded blocks, kept by guest physical page, and the fetch TLB that leads to them.

use std::cell::Cell;
use std::collections::HashMap;

use crate::bus::{PAGE_MASK, PAGE_SIZE, Width};
use crate::ram::HostPage;
use crate::riscv::decode::{Decoder, MAX_BLOCK, insn_len};
use crate::riscv::hart::Mode;
use crate::riscv::insn::{Args, At, Flow, Format, Instruction};
use crate::riscv::mmu::Translation;
use crate::riscv::sem::Sem;
use crate::tlb::LargeMappings;

use super::core::Core;

/// A decoded instruction, ready to be performed.
#[derive(Clone, Copy)]
pub struct Op {
    pub(super) handler: Handler,
    pub(super) args: Args,
}

/// Performs the first of some ops and those after it; see [`super::core`].
pub(super) type Handler = fn(&mut Core, &[Op]) -> usize;

/// Decoded instructions kept before everything is dropped (16 bytes each).
const MAX_OPS: usize = 4 << 20;

/// A block as a slot of its page names it: where its ops begin, how many, and the bytes they span.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Block(u64);

impl Block {
    const NONE: Block = Block(0);
    /// The first instruction crosses into the next page, whose frame is another address space's
    /// business: it cannot be kept.
    pub(super) const CROSSING: Block = Block(1);

    fn new(start: usize, len: usize, bytes: u64) -> Self {
        Block((start as u64) << 24 | (len as u64) << 12 | bytes)
    }

    #[inline(always)]
    pub(super) fn len(self) -> usize {
        (self.0 >> 12 & 0xfff) as usize
    }

    #[inline(always)]
    pub(super) fn bytes(self) -> u64 {
        self.0 & 0xfff
    }

    #[inline(always)]
    fn start(self) -> usize {
        (self.0 >> 24) as usize
    }
}

/// A page of guest memory with the blocks made from it. They are made from a copy, so that what has been written
/// to the page can be told from what it was when they were made.
struct CodePage {
    gpa: u64,
    host: HostPage,
    copy: Box<[u64; PAGE_SIZE as usize / 8]>,
    /// The pieces ([`PIECE`]) of the copy from which something was made.
    used: Cell<u64>,
    /// Length of the code log when the pieces that are not used were copied last.
    copied_at: Option<u64>,
    /// How often the page was written to and kept.
    kept: u32,
}

/// Bytes of a page that are compared as one: there is a bit for each.
const PIECE: u64 = PAGE_SIZE / 64;

/// How often a page is kept that is written to: whoever still executes it makes it known again, while a page that
/// has become data is not looked at any more.
const MAX_KEPT: u32 = 64;

impl CodePage {
    fn new(gpa: u64, host: HostPage) -> Self {
        let copy = Box::new([0; PAGE_SIZE as usize / 8]);
        CodePage { gpa, host, copy, used: Cell::new(0), copied_at: None, kept: 0 }
    }

    fn words(piece: u64) -> std::ops::Range<usize> {
        let words = (PIECE / 8) as usize;
        piece as usize * words..(piece as usize + 1) * words
    }

    fn now(&self, word: usize) -> u64 {
        self.host.load(word as u64 * 8, Width::Double)
    }

    fn refresh(&mut self) {
        for piece in (0..64).filter(|piece| self.used.get() >> piece & 1 == 0) {
            for word in Self::words(piece) {
                self.copy[word] = self.now(word);
            }
        }
    }

    fn is_as_used(&self) -> bool {
        (0..64)
            .filter(|piece| self.used.get() >> piece & 1 != 0)
            .flat_map(Self::words)
            .all(|word| self.copy[word] == self.now(word))
    }

    fn half(&self, offset: u64) -> u16 {
        (self.copy[offset as usize / 8] >> (offset % 8 * 8)) as u16
    }
}

/// Even offsets in a page.
const SLOTS: usize = PAGE_SIZE as usize / 2;

/// All decoded code of a hart.
pub(super) struct CodeCache {
    decoder: Decoder<Core>,
    ops: Vec<Op>,
    pages: Vec<CodePage>,
    /// The block that starts at each even offset of each page.
    slots: Vec<Block>,
    by_gpa: HashMap<u64, u32>,
    free: Vec<u32>,
    /// How often each page's number has been given up.
    versions: Vec<u32>,
    pub(super) blocks_decoded: u64,
}

/// What is performed where there is no instruction.
enum Undefined {}

impl<S: Sem> Instruction<S> for Undefined {
    const FLOW: Flow = Flow::End;

    fn perform(s: &mut S, _: Args) -> Result<(), S::Stop> {
        Err(s.illegal())
    }
}

impl CodeCache {
    pub(super) fn new() -> Self {
        CodeCache {
            decoder: Decoder::default(),
            ops: Vec::new(),
            pages: Vec::new(),
            slots: Vec::new(),
            by_gpa: HashMap::new(),
            free: Vec::new(),
            versions: Vec::new(),
            blocks_decoded: 0,
        }
    }

    /// Index of the page at `gpa`, if it is known.
    pub(super) fn find(&self, gpa: u64) -> Option<u32> {
        self.by_gpa.get(&(gpa & !PAGE_MASK)).copied()
    }

    /// Enters the page at `gpa` and returns its index.
    pub(super) fn insert(&mut self, gpa: u64, host: HostPage) -> u32 {
        let gpa = gpa & !PAGE_MASK;
        let page = CodePage::new(gpa, host);
        let index = match self.free.pop() {
            Some(index) => {
                self.pages[index as usize] = page;
                index
            }
            None => {
                self.pages.push(page);
                self.slots.resize(self.pages.len() * SLOTS, Block::NONE);
                if self.versions.len() < self.pages.len() {
                    self.versions.push(0);
                }
                self.pages.len() as u32 - 1
            }
        };
        self.by_gpa.insert(gpa, index);
        index
    }

    /// Copies what nothing was made from yet of page `page`, which is watched, if the log of writes to code pages
    /// has grown since: it has `log` entries.
    pub(super) fn refresh(&mut self, page: u32, log: u64) {
        let page = &mut self.pages[page as usize];
        if page.copied_at != Some(log) {
            page.refresh();
            page.copied_at = Some(log);
        }
    }

    /// Whether page `page`, which was written to, may be kept if what was made of it has not
    /// changed.
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

    /// The halfword at `offset` of page `page`, from which something is made.
    pub(super) fn half(&self, page: u32, offset: u64) -> u16 {
        let page = &self.pages[page as usize];
        page.used.set(page.used.get() | 1 << (offset / PIECE));
        page.half(offset)
    }

    /// The halfword at `offset` of page `page`.
    pub(super) fn peek_half(&self, page: u32, offset: u64) -> u16 {
        self.pages[page as usize].half(offset)
    }

    /// The halfword at `offset` of page `page` as it is in memory.
    pub(super) fn half_now(&self, page: u32, offset: u64) -> u32 {
        self.pages[page as usize].host.load(offset, Width::Half) as u32
    }

    /// Forgets the page at `gpa`, if it is known.
    pub(super) fn remove(&mut self, gpa: u64) {
        let Some(index) = self.by_gpa.remove(&(gpa & !PAGE_MASK)) else { return };
        let first = Self::slot(index, 0);
        self.slots[first..first + SLOTS].fill(Block::NONE);
        self.free.push(index);
        self.versions[index as usize] += 1;
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
        self.ops.len() > MAX_OPS
    }

    #[inline(always)]
    fn slot(page: u32, offset: u64) -> usize {
        page as usize * SLOTS + offset as usize / 2
    }

    /// The block at `offset` in page `page`, if it has been decoded.
    #[inline(always)]
    pub(super) fn block(&self, page: u32, offset: u64) -> Option<Block> {
        let block = self.slots[Self::slot(page, offset)];
        (block != Block::NONE).then_some(block)
    }

    /// The ops of a block.
    #[inline(always)]
    pub(super) fn ops(&self, block: Block) -> &[Op] {
        &self.ops[block.start()..block.start() + block.len()]
    }

    /// How often number `page` has been given up by a page.
    pub(super) fn version(&self, page: u32) -> u32 {
        self.versions[page as usize]
    }

    /// Guest physical address of page `page`.
    pub(super) fn gpa(&self, page: u32) -> u64 {
        self.pages[page as usize].gpa
    }

    /// Decodes the block at `offset` in page `page`.
    pub(super) fn decode(&mut self, page: u32, offset: u64) -> Block {
        let start = self.ops.len();
        let mut at = offset;
        while at < PAGE_SIZE && self.ops.len() - start < MAX_BLOCK {
            let low = u32::from(self.half(page, at));
            let len = insn_len(low);
            if at + len > PAGE_SIZE {
                break;
            }
            let word = if len == 4 { low | u32::from(self.half(page, at + 2)) << 16 } else { low };
            let (op, ends) = self.decode_op(word, at);
            self.ops.push(op);
            at += len;
            if ends {
                break;
            }
        }
        let len = self.ops.len() - start;
        let block = if len == 0 { Block::CROSSING } else { Block::new(start, len, at - offset) };
        self.slots[Self::slot(page, offset)] = block;
        self.blocks_decoded += 1;
        block
    }

    /// Decodes one instruction that lies at `offset` in its page, and whether it ends a block.
    pub(super) fn decode_op(&self, word: u32, offset: u64) -> (Op, bool) {
        match self.decoder.decode(word, offset) {
            Some(insn) => {
                let row = &self.decoder.rows()[usize::from(insn.row)];
                (Op { handler: row.handler, args: insn.args }, row.flow == Flow::End)
            }
            None => {
                let at = At::new(offset, insn_len(word));
                (
                    Op { handler: Core::handler::<Undefined>(), args: Format::R.operands(0, at) },
                    true,
                )
            }
        }
    }
}

/// Virtual page and privilege -> decoded page.
pub(super) struct FetchTlb {
    entries: Box<[FetchEntry; FETCH_ENTRIES]>,
    /// Entries of other generations are stale.
    generation: u32,
    large: LargeMappings,
}

const FETCH_ENTRIES: usize = 1024;

#[derive(Clone, Copy)]
struct FetchEntry {
    /// Virtual page, with the privilege in the low bits.
    tag: u64,
    /// `satp`.
    space: u64,
    generation: u32,
    page: u32,
    /// The page's version: another one has the number now if it does not fit.
    version: u32,
    global: bool,
}

impl FetchTlb {
    pub(super) fn new() -> Self {
        let empty =
            FetchEntry { tag: 0, space: 0, generation: 0, page: 0, version: 0, global: false };
        FetchTlb {
            entries: Box::new([empty; FETCH_ENTRIES]),
            generation: 1,
            large: LargeMappings::default(),
        }
    }

    fn index(va: u64) -> usize {
        (va / PAGE_SIZE) as usize % FETCH_ENTRIES
    }

    fn tag(va: u64, mode: Mode) -> u64 {
        va & !PAGE_MASK | mode as u64
    }

    /// The page at `va`, whose number and version must still fit.
    #[inline]
    pub(super) fn lookup(&self, va: u64, mode: Mode, space: u64) -> Option<(u32, u32)> {
        let entry = &self.entries[Self::index(va)];
        (entry.tag == Self::tag(va, mode)
            && entry.space == space
            && entry.generation == self.generation)
            .then_some((entry.page, entry.version))
    }

    pub(super) fn fill(
        &mut self,
        va: u64,
        mode: Mode,
        space: u64,
        to: &Translation,
        (page, version): (u32, u32),
    ) {
        self.large.add(va, to.span);
        self.entries[Self::index(va)] = FetchEntry {
            tag: Self::tag(va, mode),
            space,
            generation: self.generation,
            page,
            version,
            global: to.is_global(),
        };
    }

    /// Whether the translation of `va`, which [`lookup`](Self::lookup) has just found, holds in every address
    /// space.
    pub(super) fn is_global(&self, va: u64) -> bool {
        self.entries[Self::index(va)].global
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

    /// Drops the translations of one address space identifier, or of all; of one page, or of all.
    pub(super) fn flush_matching(&mut self, asid: Option<u16>, va: Option<u64>) {
        let stale = self.generation.wrapping_sub(1);
        match (asid, va) {
            (_, Some(va)) if !self.large.may_hold(va) => {
                self.entries[Self::index(va)].generation = stale;
            }
            (Some(asid), None) => {
                for entry in self.entries.iter_mut().filter(|e| (e.space >> 44) as u16 == asid) {
                    entry.generation = stale;
                }
            }
            _ => self.flush(),
        }
    }
}
