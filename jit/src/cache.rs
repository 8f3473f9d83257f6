//! What has been translated: code by page number, mode and offset, and the links between blocks.
//!
//! Pages are numbered by whoever fetches; a number that passes to another page changes its version, and
//! with it everything that is known here of the old page is forgotten. Links lead from a block to another one of
//! the same page and mode only, so nothing leads to the code of a page that is not found any more. When room is made,
//! the oldest segment's blocks are forgotten one by one, and the links of others to them lead nowhere again.

use std::io;

use mimic_cpu::bus::PAGE_MASK;

use crate::memory::{CodeMemory, CodePtr, Room, SEGMENTS};

/// Even offsets in a page.
const SLOTS: usize = 2048;
/// Modes that code of one page may be translated for.
pub const MODES: usize = 8;

/// Most code of a block or a region.
pub const MAX_BLOCK_BYTES: usize = 48 << 10;

/// The number of samples of a place that is not counted any more.
const SETTLED: u8 = u8::MAX;

/// Where a block begins: a page by its number and version, the mode it is translated for, and the offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The page's number.
    pub page: u32,
    /// The page's version.
    pub version: u32,
    /// The mode, below [`MODES`].
    pub mode: u8,
    /// The offset in the page.
    pub offset: u16,
}

/// What is known of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Translated.
    Code(CodePtr),
    /// Not translated; looked for so many times, this one included.
    Cold(u32),
    /// Cannot be translated.
    Never,
}

/// A slot: the code's position behind [`Slot::CODE`], or a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(u32);

impl Slot {
    const CODE: u32 = 1 << 31;
    const NEVER: Slot = Slot(Slot::CODE - 1);

    fn position(self) -> usize {
        (self.0 & !Slot::CODE) as usize
    }
}

#[derive(Debug, Default)]
struct Page {
    version: u32,
    /// Virtual addresses under which jump caches lead to its code.
    seen_at: Vec<u64>,
    slots: [Option<Box<[Slot; SLOTS]>>; MODES],
    /// How often the clock found code executing that begins here; [`SETTLED`] if that does not matter any more.
    samples: [Option<Box<[u8; SLOTS]>>; MODES],
}

impl Page {
    fn slot(&mut self, mode: u8, offset: u16) -> &mut Slot {
        let slots = &mut self.slots[usize::from(mode)];
        let slots = slots.get_or_insert_with(|| Box::new([Slot(0); SLOTS]));
        &mut slots[usize::from(offset / 2)]
    }

    fn samples(&mut self, mode: u8, offset: u16) -> &mut u8 {
        let samples = &mut self.samples[usize::from(mode)];
        let samples = samples.get_or_insert_with(|| Box::new([0; SLOTS]));
        &mut samples[usize::from(offset / 2)]
    }
}

/// An exit of a block to an offset of the same page.
#[derive(Clone, Copy, Debug)]
struct Link {
    to: Place,
    /// The displacement of the jump.
    at: CodePtr,
    /// Where the jump leads: the block, or before that the code which asks for it.
    leads_to: CodePtr,
    asks: CodePtr,
}

/// What else belongs to the code in a segment of code memory.
#[derive(Debug)]
struct Segment<P> {
    /// The blocks in it.
    blocks: Vec<Place>,
    links: Vec<Link>,
    /// What blocks hand to calls out of them.
    payloads: Vec<P>,
}

/// Counters of a code cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounters {
    /// Blocks entered.
    pub blocks: u64,
    /// Bytes of their code.
    pub bytes: u64,
    /// Links patched.
    pub links: u64,
    /// Segments emptied to make room.
    pub recycled: u64,
}

/// The translated code of a hart. `P` is what blocks hand to calls out of them.
pub struct CodeCache<P> {
    memory: CodeMemory,
    pages: Vec<Page>,
    segments: [Segment<P>; SEGMENTS],
    counters: CacheCounters,
}

/// A name for a link or a payload: segment and index.
const INDEX_BITS: u32 = 28;

fn split(name: u32) -> (usize, usize) {
    ((name >> INDEX_BITS) as usize, (name & ((1 << INDEX_BITS) - 1)) as usize)
}

impl<P> CodeCache<P> {
    /// A cache of `bytes` bytes of code, with the code that `fixed` makes for its address at the beginning.
    ///
    /// # Errors
    /// The host's, if it refuses executable memory.
    pub fn new(bytes: usize, fixed: impl FnOnce(CodePtr) -> Vec<u8>) -> io::Result<Self> {
        let mut memory = CodeMemory::new(bytes)?;
        let code = fixed(memory.fixed_base());
        memory.set_fixed(&code);
        Ok(CodeCache {
            memory,
            pages: Vec::new(),
            segments: std::array::from_fn(|_| Segment {
                blocks: Vec::new(),
                links: Vec::new(),
                payloads: Vec::new(),
            }),
            counters: CacheCounters::default(),
        })
    }

    fn page(&mut self, index: u32, version: u32) -> &mut Page {
        let index = index as usize;
        if self.pages.len() <= index {
            self.pages.resize_with(index + 1, Page::default);
        }
        let page = &mut self.pages[index];
        if page.version != version {
            *page = Page { version, ..Page::default() };
        }
        page
    }

    /// What is known of `place`. Looking for code that is not there is counted.
    pub fn find(&mut self, place: Place) -> Known {
        let base = self.memory.fixed_base().0;
        let slot = self.page(place.page, place.version).slot(place.mode, place.offset);
        if slot.0 & Slot::CODE != 0 {
            return Known::Code(CodePtr(base + slot.position()));
        }
        if *slot == Slot::NEVER {
            return Known::Never;
        }
        slot.0 += 1;
        Known::Cold(slot.0)
    }

    /// Whether `place` is translated.
    #[must_use]
    pub fn is_code(&self, place: Place) -> bool {
        self.pages
            .get(place.page as usize)
            .filter(|page| page.version == place.version)
            .and_then(|page| page.slots[usize::from(place.mode)].as_ref())
            .is_some_and(|slots| slots[usize::from(place.offset / 2)].0 & Slot::CODE != 0)
    }

    /// The clock found `place` executing: how often, unless it was [settled](Self::settle).
    pub fn sample(&mut self, place: Place) -> Option<u8> {
        let samples = self.page(place.page, place.version).samples(place.mode, place.offset);
        if *samples == SETTLED {
            return None;
        }
        *samples = (*samples + 1).min(SETTLED - 1);
        Some(*samples)
    }

    /// How often `place` is executing does not matter any more.
    pub fn settle(&mut self, place: Place) {
        *self.page(place.page, place.version).samples(place.mode, place.offset) = SETTLED;
    }

    /// Jump caches lead to code of the page by the virtual page at `va`.
    pub fn note_address(&mut self, page: u32, version: u32, va: u64) {
        let seen_at = &mut self.page(page, version).seen_at;
        let va = va & !PAGE_MASK;
        if !seen_at.contains(&va) {
            seen_at.push(va);
        }
    }

    /// Forgets the page with this number, and gives the virtual addresses under which it was known.
    pub fn forget(&mut self, page: u32) -> Vec<u64> {
        match self.pages.get_mut(page as usize) {
            Some(page) => {
                std::mem::replace(page, Page { version: page.version, ..Page::default() }).seen_at
            }
            None => Vec::new(),
        }
    }

    /// `place` cannot be translated.
    pub fn give_up(&mut self, place: Place) {
        *self.page(place.page, place.version).slot(place.mode, place.offset) = Slot::NEVER;
    }

    /// Makes room for `bytes` of code, at most [`MAX_BLOCK_BYTES`]. Whether old code has been dropped for it: then
    /// jump caches lead nowhere, and the next block lies elsewhere and has other names.
    pub fn make_room(&mut self, bytes: usize) -> bool {
        let Room::Recycled(recycled) = self.memory.reserve(bytes) else { return false };
        let segment = &mut self.segments[recycled];
        segment.links.clear();
        segment.payloads.clear();
        let blocks = std::mem::take(&mut segment.blocks);
        if blocks.is_empty() {
            return true;
        }
        self.counters.recycled += 1;
        let gone = self.memory.range(recycled);
        let base = self.memory.fixed_base().0;
        for block in blocks {
            let page = &mut self.pages[block.page as usize];
            if page.version != block.version {
                continue;
            }
            let slot = page.slot(block.mode, block.offset);
            // The place may have been translated once more since.
            if slot.0 & Slot::CODE != 0 && gone.contains(&(base + slot.position())) {
                *slot = Slot(0);
            }
        }
        for link in self.segments.iter_mut().flat_map(|segment| &mut segment.links) {
            if gone.contains(&link.leads_to.0) {
                link.leads_to = link.asks;
                self.memory.patch_jump(link.at, link.asks);
            }
        }
        true
    }

    /// Where the next block's code will lie.
    #[must_use]
    pub fn next(&self) -> CodePtr {
        self.memory.next()
    }

    /// The name of the first link of the next block; the others follow.
    #[must_use]
    pub fn next_link(&self) -> u32 {
        let segment = self.memory.segment();
        (segment as u32) << INDEX_BITS | self.segments[segment].links.len() as u32
    }

    /// The name of the first payload of the next block; the others follow.
    #[must_use]
    pub fn next_payload(&self) -> u32 {
        let segment = self.memory.segment();
        (segment as u32) << INDEX_BITS | self.segments[segment].payloads.len() as u32
    }

    /// Enters a block or a region, made for [`next`](Self::next), [`next_link`](Self::next_link) and
    /// [`next_payload`](Self::next_payload). `entries` are the offsets in the page where it is entered, and their
    /// positions in `code`; code that is known there leads to it from now on. `links` are the positions of the jumps'
    /// displacements in `code`, and the offsets in the page that they shall lead to. Where `place` is entered, which
    /// is one of `entries`.
    pub fn insert(
        &mut self,
        place: Place,
        code: &[u8],
        entries: impl Iterator<Item = (u16, usize)>,
        links: impl Iterator<Item = (usize, u16)>,
        payloads: impl Iterator<Item = P>,
    ) -> CodePtr {
        let at = self.memory.push(code);
        let base = self.memory.fixed_base().0;
        let mut entered = at;
        for (offset, position) in entries {
            let to = Place { offset, ..place };
            let code = CodePtr(at.0 + position);
            if to == place {
                entered = code;
            }
            let slot = self.page(to.page, to.version).slot(to.mode, to.offset);
            let before = std::mem::replace(slot, Slot(Slot::CODE | (code.0 - base) as u32));
            if before.0 & Slot::CODE != 0 {
                // It was made earlier, so it makes room earlier, too.
                self.memory.redirect(CodePtr(base + before.position()), code);
            }
            self.segments[self.memory.segment()].blocks.push(to);
        }
        let segment = &mut self.segments[self.memory.segment()];
        segment.links.extend(links.map(|(position, offset)| {
            let jump = CodePtr(at.0 + position);
            let asks = self.memory.jump_target(jump);
            Link { to: Place { offset, ..place }, at: jump, leads_to: asks, asks }
        }));
        segment.payloads.extend(payloads);
        self.counters.blocks += 1;
        self.counters.bytes += code.len() as u64;
        entered
    }

    /// The offset in its page that link `name` leads to.
    #[must_use]
    pub fn link_target(&self, name: u32) -> u16 {
        let (segment, index) = split(name);
        self.segments[segment].links[index].to.offset
    }

    /// Lets link `name` lead to `code`, which must lie where it points.
    pub fn patch(&mut self, name: u32, code: CodePtr) {
        let (segment, index) = split(name);
        let link = &mut self.segments[segment].links[index];
        link.leads_to = code;
        self.memory.patch_jump(link.at, code);
        self.counters.links += 1;
    }

    /// What the block handed to the call out of it.
    #[must_use]
    pub fn payload(&self, name: u32) -> &P {
        let (segment, index) = split(name);
        &self.segments[segment].payloads[index]
    }

    /// Counters since the cache was made.
    #[must_use]
    pub fn counters(&self) -> CacheCounters {
        self.counters
    }

    /// Bytes of code held now.
    #[must_use]
    pub fn bytes_used(&self) -> usize {
        self.memory.bytes_used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(page: u32, version: u32, offset: u16) -> Place {
        Place { page, version, mode: 1, offset }
    }

    fn cache() -> CodeCache<u32> {
        CodeCache::new(0, |_| vec![0xc3]).unwrap()
    }

    fn insert(cache: &mut CodeCache<u32>, at: Place, bytes: usize) -> CodePtr {
        let entry = [(at.offset, 0)].into_iter();
        cache.insert(at, &vec![0xcc; bytes], entry, [(1, 6)].into_iter(), [7].into_iter())
    }

    #[test]
    fn code_is_found_by_place_until_the_page_changes() {
        let mut cache = cache();
        assert_eq!(cache.find(place(3, 0, 4)), Known::Cold(1));
        assert_eq!(cache.find(place(3, 0, 4)), Known::Cold(2));
        assert!(!cache.make_room(64));
        let (link, payload) = (cache.next_link(), cache.next_payload());
        let code = insert(&mut cache, place(3, 0, 4), 64);
        assert_eq!(cache.find(place(3, 0, 4)), Known::Code(code));
        assert_eq!(cache.find(Place { mode: 0, ..place(3, 0, 4) }), Known::Cold(1));
        assert_eq!((cache.link_target(link), *cache.payload(payload)), (6, 7));
        cache.give_up(place(3, 0, 8));
        assert_eq!(cache.find(place(3, 0, 8)), Known::Never);
        assert_eq!(cache.find(place(3, 1, 4)), Known::Cold(1), "another page has the number");
        assert_eq!(cache.find(place(3, 1, 8)), Known::Cold(1));
    }

    #[test]
    fn old_code_makes_room() {
        let mut cache = cache();
        let mut recycled = 0;
        for i in 0..200u32 {
            recycled += u32::from(cache.make_room(20_000));
            insert(&mut cache, place(i, 0, 0), 20_000);
        }
        assert!(recycled > 50);
        assert!(cache.bytes_used() <= crate::memory::MIN_BYTES);
        assert!(matches!(cache.find(place(199, 0, 0)), Known::Code(_)));
        assert_eq!(cache.find(place(0, 0, 0)), Known::Cold(1));
        // The first lap finds empty segments.
        assert_eq!(u64::from(recycled) - 7, cache.counters().recycled);
    }

    #[test]
    fn a_link_to_code_that_is_dropped_asks_again() {
        let mut cache = cache();
        let fill = |cache: &mut CodeCache<u32>, page: u32| {
            let recycled = cache.make_room(20_000);
            insert(cache, place(page, 0, 0), 20_000);
            recycled
        };
        cache.make_room(64);
        let target = insert(&mut cache, place(1, 0, 6), 64);
        // Of the same page, but in the second segment.
        while !fill(&mut cache, 2) {}
        cache.make_room(64);
        let link = cache.next_link();
        insert(&mut cache, place(1, 0, 0), 64);
        let (segment, index) = split(link);
        let at = cache.segments[segment].links[index].at;
        let asks = cache.memory.jump_target(at);
        cache.patch(link, target);
        assert_eq!(cache.memory.jump_target(at), target);
        // Until the first segment's turn has come again, and no further.
        while cache.counters().recycled == 0 {
            assert_eq!(cache.memory.jump_target(at), target);
            fill(&mut cache, 3);
        }
        assert_eq!(cache.memory.jump_target(at), asks);
        assert_eq!(cache.find(place(1, 0, 6)), Known::Cold(1));
        assert!(
            matches!(cache.find(place(1, 0, 0)), Known::Code(_)),
            "its page's other code stays"
        );
    }
}
