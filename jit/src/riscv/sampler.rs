//! The clock that finds what is executed much: after so many instructions translated code is left, and where it would
//! have gone on is a sample.

use mimic_cpu::riscv::decode::MAX_BLOCK;

/// Instructions after which translated code looks whether somebody calls for attention.
pub(super) const SLICE: u64 = 16_384;
/// The least that makes an entry worth it.
const LEAST: u64 = 2 * MAX_BLOCK as u64;
/// Instructions between samples: at least, and how much they differ so that no loop is always met at the same place.
const PERIOD: u64 = 60_000;
const SPREAD: u64 = 8192;

/// When samples are taken.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    /// The next one, by instructions retired.
    next: u64,
    random: u64,
    /// Translated code was left because it has used up its instructions.
    pub(super) ran_out: bool,
    /// Samples are taken as often as possible.
    is_hasty: bool,
}

impl Sampler {
    pub(super) fn new(is_hasty: bool) -> Self {
        Sampler { is_hasty, ..Sampler::default() }
    }

    /// How many instructions may be executed from `retired` on.
    #[inline]
    pub(super) fn slice(&self, retired: u64) -> u64 {
        self.next.saturating_sub(retired).clamp(LEAST, SLICE)
    }

    /// Whether what is executed next is a sample.
    #[inline]
    pub(super) fn is_due(&mut self, retired: u64) -> bool {
        let due = std::mem::take(&mut self.ran_out) && retired + LEAST >= self.next;
        if due {
            // Knuth's multiplier (The Art of Computer Programming, volume 2, 3.3.4).
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if !self.is_hasty {
                self.next = retired + PERIOD + (self.random >> 32) % SPREAD;
            }
        }
        due
    }
}
