//! Moving lanes: unpacking, packing, shuffling, blending, inserting, extracting, broadcasting, permuting, extending
//! (Intel SDM volume 2, by mnemonic). What mixes lanes of a block of 64 or
//! 128 bits knows that block only; the table makes operations on 256 bits of it.

use bytemuck::Pod;

use super::vector::{V64, V128, V256, Vector};

/// A copy: the moves.
#[inline(always)]
pub(super) fn mov<V: Vector>(b: V) -> V {
    b
}

/// MOVSS, MOVSD: lane 0 of `b` in `a`.
#[inline(always)]
pub(super) fn merge<T: Pod>(a: V128, b: V128) -> V128 {
    a.with(0, b.lane::<T>(0))
}

#[inline(always)]
pub(super) fn movhlps(a: V128, b: V128) -> V128 {
    V128([b.0[1], a.0[1]])
}

/// MOVLHPS, and MOVHPS and MOVHPD from memory.
#[inline(always)]
pub(super) fn movlhps(a: V128, b: V128) -> V128 {
    V128([a.0[0], b.0[0]])
}

/// MOVHPS and MOVHPD to memory.
#[inline(always)]
pub(super) fn high_half(b: V128) -> V128 {
    V128([b.0[1], 0])
}

/// MOVSHDUP, MOVSLDUP, MOVDDUP: of each pair of lanes the one at `place`, twice.
#[inline(always)]
pub(super) fn duplicate<V: Vector, T: Pod>(b: V, place: usize) -> V {
    let b = b.lanes::<T>();
    V::build::<T>(|i| b[i & !1 | place])
}

/// PUNPCKL, UNPCKL: the lower halves, interleaved.
#[inline(always)]
pub(super) fn unpack_low<V: Vector, T: Pod>(a: V, b: V) -> V {
    interleave::<V, T>(a, b, 0)
}

/// PUNPCKH, UNPCKH: the upper halves, interleaved.
#[inline(always)]
pub(super) fn unpack_high<V: Vector, T: Pod>(a: V, b: V) -> V {
    interleave::<V, T>(a, b, V::BYTES / size_of::<T>() / 2)
}

#[inline(always)]
fn interleave<V: Vector, T: Pod>(a: V, b: V, half: usize) -> V {
    let (a, b) = (a.lanes::<T>(), b.lanes::<T>());
    V::build::<T>(|i| if i.is_multiple_of(2) { a[half + i / 2] } else { b[half + i / 2] })
}

#[inline(always)]
fn pack<V: Vector, S: Pod, D: Pod>(a: V, b: V, f: impl Fn(S) -> D) -> V {
    let (a, b) = (a.lanes::<S>(), b.lanes::<S>());
    V::build::<D>(|i| f(if i < a.len() { a[i] } else { b[i - a.len()] }))
}

#[inline(always)]
pub(super) fn packsswb<V: Vector>(a: V, b: V) -> V {
    pack(a, b, |x: i16| x.clamp(-0x80, 0x7f) as i8)
}

#[inline(always)]
pub(super) fn packssdw<V: Vector>(a: V, b: V) -> V {
    pack(a, b, |x: i32| x.clamp(-0x8000, 0x7fff) as i16)
}

#[inline(always)]
pub(super) fn packuswb<V: Vector>(a: V, b: V) -> V {
    pack(a, b, |x: i16| x.clamp(0, 0xff) as u8)
}

#[inline(always)]
pub(super) fn packusdw<V: Vector>(a: V, b: V) -> V {
    pack(a, b, |x: i32| x.clamp(0, 0xffff) as u16)
}

/// Two bits of the immediate: the choice for place `i` modulo 4.
#[inline(always)]
fn choice(imm: u8, i: usize) -> usize {
    usize::from(imm >> (2 * (i & 3)) & 3)
}

/// PSHUFD, PSHUFW, VPERMILPS by immediate: each four lanes chosen among themselves.
#[inline(always)]
pub(super) fn shuffle4<V: Vector, T: Pod>(b: V, imm: u8) -> V {
    let b = b.lanes::<T>();
    V::build::<T>(|i| b[i & !3 | choice(imm, i)])
}

#[inline(always)]
pub(super) fn pshuflw<V: Vector>(b: V, imm: u8) -> V {
    let b = b.lanes::<u16>();
    V::build::<u16>(|i| if i & 4 == 0 { b[i & !3 | choice(imm, i)] } else { b[i] })
}

#[inline(always)]
pub(super) fn pshufhw<V: Vector>(b: V, imm: u8) -> V {
    let b = b.lanes::<u16>();
    V::build::<u16>(|i| if i & 4 != 0 { b[i & !3 | choice(imm, i)] } else { b[i] })
}

#[inline(always)]
pub(super) fn pshufb<V: Vector>(a: V, b: V) -> V {
    let (a, b) = (a.lanes::<u8>(), b.lanes::<u8>());
    V::build::<u8>(|i| if b[i] & 0x80 != 0 { 0 } else { a[usize::from(b[i]) % V::BYTES] })
}

#[inline(always)]
pub(super) fn shufps<V: Vector>(a: V, b: V, imm: u8) -> V {
    let (a, b) = (a.lanes::<u32>(), b.lanes::<u32>());
    V::build::<u32>(|i| {
        let from = i & !3 | choice(imm, i);
        if i & 2 == 0 { a[from] } else { b[from] }
    })
}

#[inline(always)]
pub(super) fn shufpd<V: Vector>(a: V, b: V, imm: u8) -> V {
    let (a, b) = (a.words(), b.words());
    V::build::<u64>(|i| {
        let from = i & !1 | usize::from(imm >> i & 1);
        if i & 1 == 0 { a[from] } else { b[from] }
    })
}

/// The bytes of `a` above those of `b`, moved right by `imm` bytes.
#[inline(always)]
pub(super) fn palignr<V: Vector>(a: V, b: V, imm: u8) -> V {
    let mut bytes = [0; 3 * 16];
    bytes[..V::BYTES].copy_from_slice(b.lanes());
    bytes[V::BYTES..2 * V::BYTES].copy_from_slice(a.lanes());
    let from = usize::from(imm).min(2 * V::BYTES);
    let from = &bytes[from..from + V::BYTES];
    V::build::<u8>(|i| from[i])
}

/// BLENDPS, BLENDPD, PBLENDW, VPBLENDD: lane `i` of `b` where bit `i` of the immediate is set, which counts anew from
/// the ninth lane on.
#[inline(always)]
pub(super) fn blend<V: Vector, T: Pod>(a: V, b: V, imm: u8) -> V {
    let (a, b) = (a.lanes::<T>(), b.lanes::<T>());
    V::build::<T>(|i| if imm >> (i & 7) & 1 != 0 { b[i] } else { a[i] })
}

macro_rules! blendv {
    ($($name:ident: $type:ty;)*) => {$(
        /// Lanes of `b` where the sign of the mask's lane is set.
        #[inline(always)]
        pub(super) fn $name<V: Vector>(a: V, b: V, mask: V) -> V {
            let (a, b, mask) = (a.lanes::<$type>(), b.lanes::<$type>(), mask.lanes::<$type>());
            V::build::<$type>(|i| if mask[i] < 0 { b[i] } else { a[i] })
        }
    )*};
}
blendv! {
    pblendvb: i8;
    blendvps: i32;
    blendvpd: i64;
}

/// INSERTPS: `source` at the place in bits 5:4 of the immediate; then zeros where bits 3:0 say so.
#[inline(always)]
fn insert_single(a: V128, source: u32, imm: u8) -> V128 {
    let a = a.with(usize::from(imm >> 4 & 3), source);
    let a = a.lanes::<u32>();
    V128::build::<u32>(|i| if imm >> i & 1 != 0 { 0 } else { a[i] })
}

/// INSERTPS from a register, whose lane bits 7:6 choose.
#[inline(always)]
pub(super) fn insertps(a: V128, b: V128, imm: u8) -> V128 {
    insert_single(a, b.lane(usize::from(imm >> 6)), imm)
}

/// INSERTPS from memory, where there is one number only.
#[inline(always)]
pub(super) fn insertps_memory(a: V128, b: V128, imm: u8) -> V128 {
    insert_single(a, b.lane(0), imm)
}

/// PINSRB, PINSRW, PINSRD, PINSRQ: lane 0 of `b` at the place the immediate says.
#[inline(always)]
pub(super) fn insert<V: Vector, T: Pod>(a: V, b: V, imm: u8) -> V {
    a.with(usize::from(imm) % (V::BYTES / size_of::<T>()), b.lane::<T>(0))
}

/// PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS: the lane the immediate says, with zeros above.
#[inline(always)]
pub(super) fn extract<V: Vector, T: Pod>(b: V, imm: u8) -> V {
    V::default().with(0, b.lane::<T>(usize::from(imm) % (V::BYTES / size_of::<T>())))
}

/// PMOVMSKB, MOVMSKPS, MOVMSKPD: the sign of each lane.
#[inline(always)]
pub(super) fn signs<V: Vector, T: Pod + PartialOrd + Default>(b: V) -> V {
    let mut mask = 0u64;
    for (i, lane) in b.lanes::<T>().iter().enumerate() {
        mask |= u64::from(*lane < T::default()) << i;
    }
    V::default().with(0, mask)
}

/// PMOVSX, PMOVZX: the low lanes of `b`, made wider.
#[inline(always)]
pub(super) fn extend<V: Vector, S: Pod, D: Pod + From<S>>(b: V) -> V {
    let b = b.lanes::<S>();
    V::build::<D>(|i| D::from(b[i]))
}

/// VBROADCASTSS and the like, VPBROADCAST: lane 0 of `b` everywhere.
#[inline(always)]
pub(super) fn broadcast<V: Vector, T: Pod>(b: V) -> V {
    let lane = b.lane::<T>(0);
    V::build::<T>(|_| lane)
}

/// VBROADCASTF128, VBROADCASTI128.
#[inline(always)]
pub(super) fn broadcast128(b: V256) -> V256 {
    V256([b.0[0], b.0[1], b.0[0], b.0[1]])
}

/// VINSERTF128, VINSERTI128.
#[inline(always)]
pub(super) fn insert128(a: V256, b: V256, imm: u8) -> V256 {
    if imm & 1 == 0 {
        V256([b.0[0], b.0[1], a.0[2], a.0[3]])
    } else {
        V256([a.0[0], a.0[1], b.0[0], b.0[1]])
    }
}

/// VEXTRACTF128, VEXTRACTI128.
#[inline(always)]
pub(super) fn extract128(b: V256, imm: u8) -> V256 {
    let from = usize::from(imm & 1) * 2;
    V256([b.0[from], b.0[from + 1], 0, 0])
}

/// VPERM2F128, VPERM2I128: four bits of the immediate for each half, bit 3 of which clears it.
#[inline(always)]
pub(super) fn vperm2f128(a: V256, b: V256, imm: u8) -> V256 {
    V256::build::<u64>(|i| {
        let control = imm >> (i / 2 * 4) & 0xf;
        let from = if control & 2 == 0 { a } else { b };
        if control & 8 != 0 { 0 } else { from.0[usize::from(control & 1) * 2 + i % 2] }
    })
}

/// VPERMILPS by lanes of `b`.
#[inline(always)]
pub(super) fn vpermilps<V: Vector>(a: V, b: V) -> V {
    let (a, b) = (a.lanes::<u32>(), b.lanes::<u32>());
    V::build::<u32>(|i| a[i & !3 | (b[i] & 3) as usize])
}

/// VPERMILPD by lanes of `b`, whose bit 1 counts.
#[inline(always)]
pub(super) fn vpermilpd<V: Vector>(a: V, b: V) -> V {
    let (a, b) = (a.words(), b.words());
    V::build::<u64>(|i| a[i & !1 | (b[i] >> 1 & 1) as usize])
}

/// VPERMILPD by immediate.
#[inline(always)]
pub(super) fn vpermilpd_imm<V: Vector>(b: V, imm: u8) -> V {
    let b = b.words();
    V::build::<u64>(|i| b[i & !1 | usize::from(imm >> i & 1)])
}

/// VPERMD, VPERMPS: lanes of `b` at the places that `a` says.
#[inline(always)]
pub(super) fn vpermd(a: V256, b: V256) -> V256 {
    let (a, b) = (a.lanes::<u32>(), b.lanes::<u32>());
    V256::build::<u32>(|i| b[(a[i] & 7) as usize])
}

/// PCLMULQDQ: the product of polynomials over GF(2) of one word of each operand, four bits at a time.
pub(super) fn pclmulqdq(a: V128, b: V128, imm: u8) -> V128 {
    let x = a.0[usize::from(imm & 1)];
    let y = u128::from(b.0[usize::from(imm >> 4 & 1)]);
    let mut multiples = [0; 16];
    for i in 1..16 {
        multiples[i] = multiples[i >> 1] << 1 ^ if i & 1 != 0 { y } else { 0 };
    }
    V128::from_u128(
        (0..16).rev().fold(0, |product, i| product << 4 ^ multiples[(x >> (4 * i) & 0xf) as usize]),
    )
}

/// MOVQ2DQ, MOVDQ2Q, MOVQ: the low 64 bits, with zeros above.
#[inline(always)]
pub(super) fn low_half<V: Vector>(b: V) -> V {
    V64([b.words()[0]]).widened()
}

impl V64 {
    #[inline(always)]
    fn widened<V: Vector>(self) -> V {
        V::default().with(0, self.0[0])
    }
}
