//! Packed integer arithmetic, comparison and logic (Intel SDM volume 2, by mnemonic).

use bytemuck::Pod;

use super::vector::{V128, Vector};

/// Operations on each lane and its counterpart.
macro_rules! lanes {
    ($($name:ident: $type:ty = $f:expr;)*) => {$(
        #[inline(always)]
        pub(super) fn $name<V: Vector>(a: V, b: V) -> V {
            a.zip::<$type>(b, $f)
        }
    )*};
}

/// All ones for true, as the comparisons give it.
macro_rules! truth {
    ($type:ty, $f:expr) => {
        |a, b| if $f(&a, &b) { !(0 as $type) } else { 0 }
    };
}

lanes! {
    paddb: u8 = u8::wrapping_add;
    paddw: u16 = u16::wrapping_add;
    paddd: u32 = u32::wrapping_add;
    paddq: u64 = u64::wrapping_add;
    paddsb: i8 = i8::saturating_add;
    paddsw: i16 = i16::saturating_add;
    paddusb: u8 = u8::saturating_add;
    paddusw: u16 = u16::saturating_add;
    psubb: u8 = u8::wrapping_sub;
    psubw: u16 = u16::wrapping_sub;
    psubd: u32 = u32::wrapping_sub;
    psubq: u64 = u64::wrapping_sub;
    psubsb: i8 = i8::saturating_sub;
    psubsw: i16 = i16::saturating_sub;
    psubusb: u8 = u8::saturating_sub;
    psubusw: u16 = u16::saturating_sub;
    pmullw: i16 = i16::wrapping_mul;
    pmulld: i32 = i32::wrapping_mul;
    pmulhw: i16 = |a, b| ((i32::from(a) * i32::from(b)) >> 16) as i16;
    pmulhuw: u16 = |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16;
    pmulhrsw: i16 = |a, b| ((((i32::from(a) * i32::from(b)) >> 14) + 1) >> 1) as i16;
    pmuludq: u64 = |a, b| (a & 0xffff_ffff) * (b & 0xffff_ffff);
    pmuldq: i64 = |a, b| i64::from(a as i32) * i64::from(b as i32);
    pavgb: u8 = |a, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8;
    pavgw: u16 = |a, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16;
    pminsb: i8 = Ord::min;
    pminsw: i16 = Ord::min;
    pminsd: i32 = Ord::min;
    pminub: u8 = Ord::min;
    pminuw: u16 = Ord::min;
    pminud: u32 = Ord::min;
    pmaxsb: i8 = Ord::max;
    pmaxsw: i16 = Ord::max;
    pmaxsd: i32 = Ord::max;
    pmaxub: u8 = Ord::max;
    pmaxuw: u16 = Ord::max;
    pmaxud: u32 = Ord::max;
    pcmpeqb: u8 = truth!(u8, u8::eq);
    pcmpeqw: u16 = truth!(u16, u16::eq);
    pcmpeqd: u32 = truth!(u32, u32::eq);
    pcmpeqq: u64 = truth!(u64, u64::eq);
    pcmpgtb: i8 = truth!(i8, i8::gt);
    pcmpgtw: i16 = truth!(i16, i16::gt);
    pcmpgtd: i32 = truth!(i32, i32::gt);
    pcmpgtq: i64 = truth!(i64, i64::gt);
    psignb: i8 = |a, b| a.wrapping_mul(b.signum());
    psignw: i16 = |a, b| a.wrapping_mul(b.signum());
    psignd: i32 = |a, b| a.wrapping_mul(b.signum());
    pand: u64 = |a, b| a & b;
    pandn: u64 = |a, b| !a & b;
    por: u64 = |a, b| a | b;
    pxor: u64 = |a, b| a ^ b;
}

#[inline(always)]
pub(super) fn pabsb<V: Vector>(b: V) -> V {
    b.map(i8::wrapping_abs)
}

#[inline(always)]
pub(super) fn pabsw<V: Vector>(b: V) -> V {
    b.map(i16::wrapping_abs)
}

#[inline(always)]
pub(super) fn pabsd<V: Vector>(b: V) -> V {
    b.map(i32::wrapping_abs)
}

#[inline(always)]
pub(super) fn pmaddwd<V: Vector>(a: V, b: V) -> V {
    let (a, b) = (a.lanes::<i16>(), b.lanes::<i16>());
    let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
    V::build::<i32>(|i| product(2 * i).wrapping_add(product(2 * i + 1)))
}

/// Unsigned bytes of `a` by signed bytes of `b`.
#[inline(always)]
pub(super) fn pmaddubsw<V: Vector>(a: V, b: V) -> V {
    let (a, b) = (a.lanes::<u8>(), b.lanes::<i8>());
    // A product fits: its magnitude is at most 255 * 128.
    let product = |i: usize| i16::from(a[i]) * i16::from(b[i]);
    V::build::<i16>(|i| product(2 * i).saturating_add(product(2 * i + 1)))
}

#[inline(always)]
pub(super) fn psadbw<V: Vector>(a: V, b: V) -> V {
    let (a, b) = (a.lanes::<u8>(), b.lanes::<u8>());
    V::build::<u64>(|i| (8 * i..8 * i + 8).map(|j| u64::from(a[j].abs_diff(b[j]))).sum())
}

/// Sums of absolute differences of four bytes of `b` against eight places in `a`; bits 2:0 of the immediate choose the
/// places in the lower block, bits 5:3 in the upper one.
#[inline(always)]
pub(super) fn mpsadbw<V: Vector>(a: V, b: V, imm: u8) -> V {
    let (a, b) = (a.lanes::<u8>(), b.lanes::<u8>());
    V::build::<u16>(|i| {
        let (block, place) = (i / 8, i % 8);
        let control = usize::from(imm >> (3 * block));
        let from_a = block * 16 + (control >> 2 & 1) * 4 + place;
        let from_b = block * 16 + (control & 3) * 4;
        (0..4).map(|j| u16::from(a[from_a + j].abs_diff(b[from_b + j]))).sum()
    })
}

/// The smallest unsigned word, and above it the lowest place where it stands.
pub(super) fn phminposuw(b: V128) -> V128 {
    let words = b.lanes::<u16>();
    let (place, least) =
        (0..8).map(|i| (i, words[i])).min_by_key(|&(_, word)| word).unwrap_or_default();
    V128([u64::from(least) | (place as u64) << 16, 0])
}

/// `f` of neighbouring lanes: those of `a` fill the lower half, those of `b` the upper one.
#[inline(always)]
pub(super) fn horizontal<V: Vector, T: Pod>(a: V, b: V, f: impl Fn(T, T) -> T) -> V {
    let half = V::BYTES / size_of::<T>() / 2;
    let (a, b) = (a.lanes::<T>(), b.lanes::<T>());
    V::build::<T>(|i| {
        let (from, place) = if i < half { (a, 2 * i) } else { (b, 2 * (i - half)) };
        f(from[place], from[place + 1])
    })
}

macro_rules! horizontals {
    ($($name:ident: $type:ty = $f:expr;)*) => {$(
        #[inline(always)]
        pub(super) fn $name<V: Vector>(a: V, b: V) -> V {
            horizontal::<V, $type>(a, b, $f)
        }
    )*};
}
horizontals! {
    phaddw: u16 = u16::wrapping_add;
    phaddd: u32 = u32::wrapping_add;
    phaddsw: i16 = i16::saturating_add;
    phsubw: u16 = u16::wrapping_sub;
    phsubd: u32 = u32::wrapping_sub;
    phsubsw: i16 = i16::saturating_sub;
}
