//! Vector registers as plain data, and the lanes operations are made of.

use bytemuck::Pod;
use serde::{Deserialize, Serialize};

// Lanes are views of little-endian memory, as they are in the guest's.
const _: () = assert!(cfg!(target_endian = "little"), "vector lanes need a little-endian host");

mod sealed {
    pub trait Sealed {}
}

/// A vector of 64, 128 or 256 bits, lane 0 being the least significant.
pub trait Vector: sealed::Sealed + Copy + Default {
    /// Width in bytes.
    const BYTES: usize;

    /// The vector as words of 64 bits, least significant first.
    fn words(&self) -> &[u64];

    /// As [`Vector::words`], to be changed.
    fn words_mut(&mut self) -> &mut [u64];

    /// All lanes of type `T`.
    #[inline(always)]
    fn lanes<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(self.words())
    }

    /// As [`Vector::lanes`], to be changed.
    #[inline(always)]
    fn lanes_mut<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.words_mut())
    }

    /// Lane `i` of type `T`; `i` is below the number of lanes.
    #[inline(always)]
    fn lane<T: Pod>(&self, i: usize) -> T {
        self.lanes::<T>()[i]
    }

    /// This vector with lane `i` replaced.
    #[inline(always)]
    fn with<T: Pod>(self, i: usize, value: T) -> Self {
        let lanes = self.lanes::<T>();
        Self::build(|j| if j == i { value } else { lanes[j] })
    }

    /// A vector whose lane `i` is `f(i)`.
    #[inline(always)]
    fn build<T: Pod>(mut f: impl FnMut(usize) -> T) -> Self {
        let mut result = Self::default();
        for (i, lane) in result.lanes_mut::<T>().iter_mut().enumerate() {
            *lane = f(i);
        }
        result
    }

    /// `f` of each lane.
    #[inline(always)]
    fn map<T: Pod>(mut self, f: impl Fn(T) -> T) -> Self {
        for lane in self.lanes_mut::<T>() {
            *lane = f(*lane);
        }
        self
    }

    /// `f` of each lane and its counterpart in `other`.
    #[inline(always)]
    fn zip<T: Pod>(mut self, other: Self, f: impl Fn(T, T) -> T) -> Self {
        for (lane, &other) in self.lanes_mut::<T>().iter_mut().zip(other.lanes::<T>()) {
            *lane = f(*lane, other);
        }
        self
    }

    /// As [`Vector::zip`], for an `f` that changes its surroundings.
    #[inline(always)]
    fn zip_with<T: Pod>(self, other: Self, mut f: impl FnMut(T, T) -> T) -> Self {
        let (a, b) = (self.lanes::<T>(), other.lanes::<T>());
        Self::build(|i| f(a[i], b[i]))
    }

    /// The low bits of a register.
    #[inline(always)]
    fn low(register: &V256) -> Self {
        let mut result = Self::default();
        let words = result.words_mut();
        words.copy_from_slice(&register.0[..words.len()]);
        result
    }

    /// Replaces the low bits of a register.
    #[inline(always)]
    fn put(self, register: &mut V256) {
        let words = self.words();
        register.0[..words.len()].copy_from_slice(words);
    }
}

macro_rules! vector {
    ($($(#[$doc:meta])* $name:ident: $words:literal words;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[repr(C)]
        pub struct $name(
            /// The words, least significant first.
            pub [u64; $words],
        );

        impl sealed::Sealed for $name {}
        impl Vector for $name {
            const BYTES: usize = $words * 8;
            #[inline(always)]
            fn words(&self) -> &[u64] {
                &self.0
            }
            #[inline(always)]
            fn words_mut(&mut self) -> &mut [u64] {
                &mut self.0
            }
        }
    )*};
}
vector! {
    /// 64 bits: an MMX register.
    V64: 1 words;
    /// 128 bits: an XMM register.
    V128: 2 words;
    /// 256 bits: a YMM register. Every operation of the table takes and gives registers of this type; it reads and
    /// replaces the low bits of its own width only.
    V256: 4 words;
}

impl V128 {
    /// The vector as one number.
    #[inline(always)]
    pub fn to_u128(self) -> u128 {
        u128::from(self.0[0]) | u128::from(self.0[1]) << 64
    }

    /// The vector holding a number.
    #[inline(always)]
    pub fn from_u128(value: u128) -> Self {
        Self([value as u64, (value >> 64) as u64])
    }
}

impl V256 {
    /// `f` of each 128-bit block of both vectors: what AVX makes of most operations whose lanes mix.
    #[inline(always)]
    pub(super) fn blocks(self, other: Self, f: impl Fn(V128, V128) -> V128) -> Self {
        let ([a, b, c, d], [e, g, h, i]) = (self.0, other.0);
        let (low, high) = (f(V128([a, b]), V128([e, g])), f(V128([c, d]), V128([h, i])));
        Self([low.0[0], low.0[1], high.0[0], high.0[1]])
    }

    /// A register with `value` in its low bits and zeros above.
    #[inline(always)]
    pub fn from_u64(value: u64) -> Self {
        Self([value, 0, 0, 0])
    }

    /// Clears bits 255:128, as VEX-encoded 128-bit operations do.
    #[inline(always)]
    pub fn zero_upper(&mut self) {
        self.0[2] = 0;
        self.0[3] = 0;
    }

    /// The register's bytes as they lie in memory.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        self.lanes()
    }

    /// As [`V256::bytes`], to be changed.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.lanes_mut()
    }

    /// Element `i` of `size` bytes (1, 2, 4 or 8), zero-extended. The place is taken modulo the register's size.
    #[inline]
    pub fn element(&self, i: usize, size: u8) -> u64 {
        let bit = i * usize::from(size) * 8;
        let word = self.0[bit / 64 % 4] >> (bit % 64);
        if size >= 8 { word } else { word & ((1 << (size * 8)) - 1) }
    }

    /// Replaces element `i` of `size` bytes (1, 2, 4 or 8) by the low bits of `value`.
    #[inline]
    pub fn set_element(&mut self, i: usize, size: u8, value: u64) {
        let bit = i * usize::from(size) * 8;
        let mask = if size >= 8 { u64::MAX } else { (1 << (size * 8)) - 1 };
        let word = &mut self.0[bit / 64 % 4];
        *word = *word & !(mask << (bit % 64)) | (value & mask) << (bit % 64);
    }

    /// The sign bit of each element of `size` bytes in the low `bytes` bytes, element 0 in bit 0: what masked moves and
    /// gathers take as their mask.
    #[inline]
    pub fn signs(&self, size: u8, bytes: u8) -> u32 {
        (0..usize::from(bytes / size))
            .map(|i| ((self.element(i, size) >> (size * 8 - 1)) as u32 & 1) << i)
            .sum()
    }
}
