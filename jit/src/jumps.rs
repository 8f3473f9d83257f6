//! Jump caches: virtual address -> translated code, one cache for each context (whatever decides where a
//! fetch leads). A hit is proof that the address leads to that code in this context, so translated code looks
//! here by itself.

use std::collections::HashSet;

use mimic_cpu::bus::PAGE_SIZE;

use crate::memory::CodePtr;

/// Entries of a cache: translated code has this built in.
const ENTRIES: usize = crate::x64::JUMPS_LEN;
/// Most contexts kept; the least recently used goes first.
const MAX_CACHES: usize = 24;
/// A virtual address no instruction has.
const NONE: u64 = 1;
/// Entries remembered one by one, so that a cache that was hardly used is emptied quickly.
const MAX_FILLED: usize = 128;
/// Words of [`Cache::page_bits`].
const PAGE_WORDS: usize = 32;

/// An entry. Translated code knows its layout.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Entry {
    va: u64,
    code: usize,
}

const EMPTY: Entry = Entry { va: NONE, code: 0 };

#[derive(Debug)]
struct Cache<K> {
    key: K,
    entries: Box<[Entry]>,
    /// Indices of the entries filled, up to [`MAX_FILLED`].
    filled: Vec<u16>,
    /// Pages that may have entries; and one bit for each hash of one, which tells most others apart at once.
    pages: HashSet<u64>,
    page_bits: Box<[u64; PAGE_WORDS]>,
    /// What [`JumpCaches::epoch`] was when the cache was last emptied.
    epoch: u64,
    last_use: u64,
}

fn page_bit(va: u64) -> (usize, u64) {
    let page = va / PAGE_SIZE;
    (page as usize / 64 % PAGE_WORDS, 1 << (page % 64))
}

fn index(va: u64) -> usize {
    (va / 2) as usize % ENTRIES
}

impl<K> Cache<K> {
    fn new(key: K, epoch: u64) -> Self {
        Cache {
            key,
            entries: vec![EMPTY; ENTRIES].into_boxed_slice(),
            filled: Vec::with_capacity(MAX_FILLED),
            pages: HashSet::new(),
            page_bits: Box::new([0; PAGE_WORDS]),
            epoch,
            last_use: 0,
        }
    }

    fn may_hold(&self, va: u64) -> bool {
        let (word, bit) = page_bit(va);
        self.page_bits[word] & bit != 0
    }

    fn drop_page(&mut self, va: u64) {
        let page = va / PAGE_SIZE;
        if self.pages.remove(&page) {
            let first = index(page * PAGE_SIZE);
            let slots = ENTRIES.min(PAGE_SIZE as usize / 2);
            for entry in &mut self.entries[first..first + slots] {
                if entry.va / PAGE_SIZE == page {
                    *entry = EMPTY;
                }
            }
        }
    }

    fn clear(&mut self) {
        if self.filled.len() < MAX_FILLED {
            for &index in &self.filled {
                self.entries[usize::from(index)] = EMPTY;
            }
        } else {
            self.entries.fill(EMPTY);
        }
        self.filled.clear();
        self.pages.clear();
        self.page_bits.fill(0);
    }
}

/// The jump caches of a hart, one of them current.
#[derive(Debug)]
pub struct JumpCaches<K> {
    current: Cache<K>,
    others: Vec<Cache<K>>,
    /// Goes up when every cache must be emptied; others than the current follow when they are selected.
    epoch: u64,
    clock: u64,
}

impl<K: PartialEq> JumpCaches<K> {
    /// Makes an empty cache for `key`.
    #[must_use]
    pub fn new(key: K) -> Self {
        JumpCaches { current: Cache::new(key, 0), others: Vec::new(), epoch: 0, clock: 0 }
    }

    /// Makes `key`'s cache current. Whether it was not.
    #[inline]
    pub fn select(&mut self, key: K) -> bool {
        if self.current.key == key {
            return false;
        }
        self.switch(key);
        true
    }

    fn switch(&mut self, key: K) {
        self.clock += 1;
        self.current.last_use = self.clock;
        if let Some(cache) = self.others.iter_mut().find(|cache| cache.key == key) {
            std::mem::swap(&mut self.current, cache);
        } else if self.others.len() + 1 < MAX_CACHES {
            let fresh = Cache::new(key, self.epoch);
            self.others.push(std::mem::replace(&mut self.current, fresh));
        } else if let Some(oldest) = self.others.iter_mut().min_by_key(|cache| cache.last_use) {
            oldest.clear();
            oldest.key = key;
            oldest.epoch = self.epoch;
            std::mem::swap(&mut self.current, oldest);
        }
        if self.current.epoch != self.epoch {
            self.current.clear();
            self.current.epoch = self.epoch;
        }
    }

    /// Address of the current cache's entries, for translated code.
    #[must_use]
    pub fn address(&self) -> usize {
        self.current.entries.as_ptr().expose_provenance()
    }

    /// The code at `va` in the current context, if it is known.
    #[inline]
    #[must_use]
    pub fn lookup(&self, va: u64) -> Option<CodePtr> {
        let entry = &self.current.entries[index(va)];
        (entry.va == va).then_some(CodePtr(entry.code))
    }

    /// Enters the code at `va` in the current context.
    pub fn insert(&mut self, va: u64, code: CodePtr) {
        let cache = &mut self.current;
        let index = index(va);
        if cache.filled.len() < MAX_FILLED {
            cache.filled.push(index as u16);
        }
        let (word, bit) = page_bit(va);
        cache.page_bits[word] |= bit;
        cache.pages.insert(va / PAGE_SIZE);
        cache.entries[index] = Entry { va, code: code.0 };
    }

    /// Forgets everything.
    pub fn drop_all(&mut self) {
        self.epoch += 1;
        self.current.epoch = self.epoch;
        self.current.clear();
    }

    /// Forgets one page or all of them, in the contexts that `which` names.
    pub fn drop_matching(&mut self, va: Option<u64>, which: impl Fn(&K) -> bool) {
        for cache in std::iter::once(&mut self.current).chain(&mut self.others) {
            match va {
                Some(va) if !cache.may_hold(va) => {}
                _ if !which(&cache.key) => {}
                Some(va) => cache.drop_page(va),
                None => cache.clear(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_do_not_see_each_other_and_drops_reach_what_they_name() {
        let (a, b) = (CodePtr(0x10), CodePtr(0x20));
        let mut jumps = JumpCaches::new(1);
        jumps.insert(0x5002, a);
        assert_eq!(jumps.lookup(0x5002), Some(a));
        assert_eq!(jumps.lookup(0x6002), None, "another page with the same index");
        assert!(jumps.select(2));
        assert_eq!(jumps.lookup(0x5002), None);
        jumps.insert(0x5002, b);
        jumps.insert(0x9004, b);
        assert!(jumps.select(1) && !jumps.select(1));
        assert_eq!(jumps.lookup(0x5002), Some(a));
        jumps.drop_matching(None, |&key| key == 2);
        assert_eq!(jumps.lookup(0x5002), Some(a), "another context is meant");
        jumps.select(2);
        assert_eq!(jumps.lookup(0x5002), None);
        jumps.insert(0x9004, b);
        jumps.select(1);
        jumps.drop_matching(Some(0x9000), |_| true);
        assert_eq!(jumps.lookup(0x5002), Some(a));
        jumps.select(2);
        assert_eq!(jumps.lookup(0x9004), None);
        jumps.insert(0x5002, b);
        jumps.drop_all();
        assert_eq!(jumps.lookup(0x5002), None);
        jumps.select(1);
        assert_eq!(jumps.lookup(0x5002), None, "an old cache is emptied when it is used again");
    }

    #[test]
    fn a_recycled_cache_is_empty() {
        let mut jumps = JumpCaches::new(0);
        for key in 0..3 * MAX_CACHES {
            jumps.select(key);
            assert_eq!(jumps.lookup(0x1000), None);
            for i in 0..200 {
                jumps.insert(0x1000 + 2 * i, CodePtr(1));
            }
        }
        assert!(jumps.others.len() < MAX_CACHES);
    }
}
