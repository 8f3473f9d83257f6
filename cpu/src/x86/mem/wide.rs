//! Accesses of more than eight bytes.

use super::Place;
use crate::bus::{PAGE_MASK, PAGE_SIZE, PageAccess};
use crate::x86::core::Core;
use crate::x86::fault::Stop;
use crate::x86::paging::Access;

impl Core {
    /// Loads bytes, which may cross pages.
    ///
    /// # Errors
    /// As [`load`](Self::load); nothing was loaded.
    pub fn load_bytes(&mut self, lin: u64, bytes: &mut [u8]) -> Result<(), Stop> {
        let mut at = 0;
        while at < bytes.len() {
            let lin = lin.wrapping_add(at as u64) & self.lin_mask;
            if bytes.len() - at >= 8 {
                bytes[at..at + 8].copy_from_slice(&self.load::<u64>(lin)?.to_le_bytes());
                at += 8;
            } else {
                bytes[at] = self.load(lin)?;
                at += 1;
            }
        }
        Ok(())
    }

    /// Loads 16 bytes.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[inline(always)]
    pub fn load_16(&mut self, lin: u64) -> Result<[u64; 2], Stop> {
        match self.tlb.load_pairs(lin) {
            Some([pair]) => Ok(pair),
            None => {
                self.load_wide_slow::<2>(lin)?;
                let [a, b, ..] = self.wide;
                Ok([a, b])
            }
        }
    }

    /// Loads 32 bytes.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[inline(always)]
    pub fn load_32(&mut self, lin: u64) -> Result<[u64; 4], Stop> {
        match self.tlb.load_pairs(lin) {
            Some([[a, b], [c, d]]) => Ok([a, b, c, d]),
            None => {
                self.load_wide_slow::<4>(lin)?;
                Ok(self.wide)
            }
        }
    }

    /// Stores 16 bytes, all of them or none.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[inline(always)]
    pub fn store_16(&mut self, lin: u64, words: [u64; 2]) -> Result<(), Stop> {
        if self.tlb.store_pairs(lin, [words]) {
            return Ok(());
        }
        self.wide = [words[0], words[1], 0, 0];
        self.store_wide_slow::<2>(lin)
    }

    /// Stores 32 bytes, all of them or none.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[inline(always)]
    pub fn store_32(&mut self, lin: u64, words: [u64; 4]) -> Result<(), Stop> {
        let [a, b, c, d] = words;
        if self.tlb.store_pairs(lin, [[a, b], [c, d]]) {
            return Ok(());
        }
        self.wide = words;
        self.store_wide_slow::<4>(lin)
    }

    /// Loads words into [`Core::wide`]: nothing that these functions need may lie on the stack of a caller that goes on by
    /// a tail call.
    #[cold]
    #[inline(never)]
    fn load_wide_slow<const N: usize>(&mut self, lin: u64) -> Result<(), Stop> {
        let words: [u64; N] = self.load_words(lin)?;
        self.wide[..N].copy_from_slice(&words);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn store_wide_slow<const N: usize>(&mut self, lin: u64) -> Result<(), Stop> {
        let words = self.wide;
        self.store_words(lin, &words[..N])
    }

    /// Loads words of eight bytes, which may cross pages; two at an aligned address in one step (SDM vol. 3, 9.1.1).
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[inline(always)]
    pub fn load_words<const N: usize>(&mut self, lin: u64) -> Result<[u64; N], Stop> {
        let mut words = [0; N];
        if N == 2 && lin & 15 == 0 {
            let pair = match self.tlb.load_16(lin) {
                Some(pair) => pair,
                None => self.load_16_slow(lin)?,
            };
            words.copy_from_slice(&pair);
            return Ok(words);
        }
        for (i, word) in words.iter_mut().enumerate() {
            *word = self.load(lin.wrapping_add(8 * i as u64) & self.lin_mask)?;
        }
        Ok(words)
    }

    /// Stores words of eight bytes, which may cross pages: all of them or none; two at an aligned address in one step.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[inline(always)]
    pub fn store_words(&mut self, lin: u64, words: &[u64]) -> Result<(), Stop> {
        if let [low, high] = *words
            && lin & 15 == 0
        {
            if self.tlb.store_16(lin, [low, high]) {
                return Ok(());
            }
            return self.store_16_slow(lin, [low, high]);
        }
        let len = 8 * words.len() as u64;
        if (lin & PAGE_MASK) + len > PAGE_SIZE || self.tlb.writable(lin).is_none() {
            self.probe_write(lin, len)?;
        }
        for (i, word) in words.iter().enumerate() {
            self.store(lin.wrapping_add(8 * i as u64) & self.lin_mask, *word)?;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn load_16_slow(&mut self, lin: u64) -> Result<[u64; 2], Stop> {
        let place = self.locate(lin, 16, Access::Read, self.own_rights())?;
        Ok(match place {
            Place::Ram(page, gpa) | Place::Rom(page, gpa) => page.host.load_16(gpa),
            Place::Device(_) => [0, 8].map(|at| self.read_place(place.plus(at), 8)),
        })
    }

    #[cold]
    #[inline(never)]
    fn store_16_slow(&mut self, lin: u64, words: [u64; 2]) -> Result<(), Stop> {
        let place = self.locate(lin, 16, Access::Write, self.own_rights())?;
        if let Place::Ram(page, gpa) = place {
            page.host.store_16(gpa, words);
            if page.access == PageAccess::Watched {
                self.stored(gpa, 16);
            }
        } else {
            self.write_place(place, 8, words[0]);
            self.write_place(place.plus(8), 8, words[1]);
        }
        Ok(())
    }

    /// Stores bytes, which may cross pages: all of them or none.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn store_bytes(&mut self, lin: u64, bytes: &[u8]) -> Result<(), Stop> {
        let len = bytes.len() as u64;
        if (lin & PAGE_MASK) + len > PAGE_SIZE || self.tlb.writable(lin).is_none() {
            self.probe_write(lin, len)?;
        }
        let mut at = lin;
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let value = chunk.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            self.store::<u64>(at, value)?;
            at = at.wrapping_add(8) & self.lin_mask;
        }
        for byte in chunks.remainder() {
            self.store(at, *byte)?;
            at = at.wrapping_add(1) & self.lin_mask;
        }
        Ok(())
    }
}
