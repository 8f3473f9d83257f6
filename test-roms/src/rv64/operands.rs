//! Operand values that sit on the edges of integer instructions.

/// Values around every boundary of 8, 16, 32 and 64 bits, patterns, and small shift amounts.
pub(super) const EDGES: [u64; 22] = [
    0,
    1,
    2,
    u64::MAX,
    u64::MAX - 1,
    0x7f,
    0x80,
    0x7fff,
    0x8000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0xffff_ffff_8000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0x5555_5555_5555_5555,
    0xaaaa_aaaa_aaaa_aaaa,
    0x0123_4567_89ab_cdef,
    0xfedc_ba98_7654_3210,
    31,
    63,
];

/// Rows `[a, b, f(a, b)]` over all pairs of [`EDGES`].
pub(super) fn pairs(f: impl Fn(u64, u64) -> u64) -> Vec<[u64; 3]> {
    EDGES
        .iter()
        .flat_map(|&a| EDGES.iter().map(move |&b| (a, b)))
        .map(|(a, b)| [a, b, f(a, b)])
        .collect()
}

/// Rows `[a, f(a)]` over [`EDGES`] and every single bit.
pub(super) fn singles(f: impl Fn(u64) -> u64) -> Vec<[u64; 2]> {
    EDGES.iter().copied().chain((0..64).map(|i| 1 << i)).map(|a| [a, f(a)]).collect()
}

/// Sign-extends the low 32 bits.
pub(super) fn sext32(v: u64) -> u64 {
    v as u32 as i32 as u64
}

/// Pseudo-random doublewords (xorshift64*), the same on every host.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// The next value.
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
