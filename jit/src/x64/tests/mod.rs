//! Emitted code is run and compared with what the operations mean, written down independently in `reference`.

mod blocks;
mod fp;
mod machine;
mod ops;
mod pinned;

mod reference;
mod regions;
mod testfloat;

/// Xorshift numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 32) as usize % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Values around the edges more often than not.
    fn value(&mut self) -> u64 {
        let any = self.next();
        match self.below(8) {
            0 => self.pick(&EDGES),
            1 => any,
            2 => any >> self.below(64),
            3 => (any as i64 >> self.below(64)) as u64,
            4 => any as i32 as u64,
            5 => u64::from(any as u32),
            6 => 1 << self.below(64),
            _ => self.pick(&EDGES).wrapping_add(any % 5).wrapping_sub(2),
        }
    }
}

const EDGES: [u64; 18] = [
    0,
    1,
    2,
    31,
    32,
    63,
    64,
    65,
    0x7f,
    0x80,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0xffff_ffff_8000_0000,
    i64::MAX as u64,
    i64::MIN as u64,
    u64::MAX,
];
