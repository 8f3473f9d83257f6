//! Packed and scalar floating-point arithmetic: add to square root, minimum, comparison, rounding, horizontal sums, dot
//! products, reciprocals (Intel SDM volume 2, by mnemonic without its suffix).

use std::cmp::Ordering;

use super::approximation;
use super::fp::{Float, Fp, Two};
use super::vector::{V128, Vector};
use super::{CF, PF, ZF};
use crate::softfloat::{Format, Quietness};

macro_rules! arithmetic {
    ($(
        $packed:ident, $scalar:ident: $native:expr, soft $soft:expr, zero exact $zero:literal, exact if $exact:expr;
    )*) => {$(
        #[inline(always)]
        pub(super) fn $packed<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V) -> V {
            Two { native: $native, exact: $exact, soft: $soft, zero_is_exact: $zero }
                .packed::<V, T>(fp, a, b)
        }

        #[inline(always)]
        pub(super) fn $scalar<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V) -> V {
            Two { native: $native, exact: $exact, soft: $soft, zero_is_exact: $zero }
                .scalar::<V, T>(fp, a, b)
        }
    )*};
}
// A sum of normal numbers that is zero is exact; a product or quotient may have underflowed.
arithmetic! {
    add, add_scalar: |x: T, y: T| x + y, soft Fp::add::<T>, zero exact true, exact if T::is_sum;
    sub, sub_scalar: |x: T, y: T| x - y, soft Fp::sub::<T>, zero exact true,
        exact if |x, y: T, r| T::is_sum(x, T::ZERO - y, r);
    mul, mul_scalar: |x: T, y: T| x * y, soft Fp::mul::<T>, zero exact false,
        exact if |x, y, _| T::have_product(x, y);
    div, div_scalar: |x: T, y: T| x / y, soft Fp::div::<T>, zero exact false,
        exact if |x, y, r| T::have_product(r, y) && r * y == x;
    sqrt_of_second, sqrt_of_second_scalar: |_, y: T| y.root(), soft |fp: &mut Fp, _, y: T| fp.sqrt(y),
        zero exact false, exact if |_, y, r| T::have_product(r, r) && r * r == y;
}

#[inline(always)]
pub(super) fn sqrt<T: Float, V: Vector>(fp: &mut Fp, b: V) -> V {
    sqrt_of_second::<T, V>(fp, b, b)
}

#[inline(always)]
pub(super) fn sqrt_scalar<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V) -> V {
    a.with(0, sqrt_of_second_scalar::<T, V>(fp, b, b).lane::<T>(0))
}

/// Whether no lane is denormal or a NaN.
#[inline(always)]
fn comparable<T: Float, V: Vector>(a: V, b: V) -> bool {
    let (a, b) = (a.lanes::<T>(), b.lanes::<T>());
    let mut flaws = T::Bits::default();
    for (a, b) in a.iter().zip(b) {
        flaws = flaws | a.incomparable() | b.incomparable();
    }
    flaws == T::Bits::default()
}

/// MIN and MAX: `a` if it is `wanted` than `b`; `b` also when they are equal or unordered.
#[inline(always)]
fn select<T: Float>(fp: &mut Fp, a: T, b: T, wanted: Ordering) -> T {
    let order = fp.compare(a, b, Quietness::Signalling);
    fp.operand(if order == Some(wanted) { a } else { b })
}

#[inline(always)]
pub(super) fn min<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V) -> V {
    if comparable::<T, V>(a, b) {
        return a.zip(b, |a: T, b| if a < b { a } else { b });
    }
    a.zip_with(b, |a: T, b| select(fp, a, b, Ordering::Less))
}

#[inline(always)]
pub(super) fn min_scalar<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V) -> V {
    a.with(0, select(fp, a.lane::<T>(0), b.lane(0), Ordering::Less))
}

#[inline(always)]
pub(super) fn max<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V) -> V {
    if comparable::<T, V>(a, b) {
        return a.zip(b, |a: T, b| if a > b { a } else { b });
    }
    a.zip_with(b, |a: T, b| select(fp, a, b, Ordering::Greater))
}

#[inline(always)]
pub(super) fn max_scalar<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V) -> V {
    a.with(0, select(fp, a.lane::<T>(0), b.lane(0), Ordering::Greater))
}

const LESS: u8 = 1;
const EQUAL: u8 = 2;
const GREATER: u8 = 4;
const UNORDERED: u8 = 8;
/// EQ LT LE UNORD NEQ NLT NLE ORD, EQ_UQ NGE NGT FALSE NEQ_OQ GE GT TRUE.
const RELATIONS: [u8; 16] = [
    EQUAL,
    LESS,
    LESS | EQUAL,
    UNORDERED,
    LESS | GREATER | UNORDERED,
    EQUAL | GREATER | UNORDERED,
    GREATER | UNORDERED,
    LESS | EQUAL | GREATER,
    EQUAL | UNORDERED,
    LESS | UNORDERED,
    LESS | EQUAL | UNORDERED,
    0,
    LESS | GREATER,
    GREATER | EQUAL,
    GREATER,
    LESS | EQUAL | GREATER | UNORDERED,
];

/// Whether `a` and `b` stand in the relation that bits 4:0 of the immediate name (SDM volume 2, CMPPD, table "Comparison
/// predicate for CMPPD and CMPPS instructions"): bits 3:0 name it, bit 4 inverts whether a quiet NaN is invalid.
#[inline(always)]
fn holds<T: Float>(fp: &mut Fp, a: T, b: T, predicate: u8) -> bool {
    // The relations of order: LT LE NLT NLE, NGE NGT GE GT.
    let of_order = matches!(predicate & 7, 1 | 2 | 5 | 6);
    let quietness =
        if of_order != (predicate & 0x10 != 0) { Quietness::Signalling } else { Quietness::Quiet };
    let relation = match fp.compare(a, b, quietness) {
        Some(Ordering::Less) => LESS,
        Some(Ordering::Equal) => EQUAL,
        Some(Ordering::Greater) => GREATER,
        None => UNORDERED,
    };
    RELATIONS[usize::from(predicate & 0xf)] & relation != 0
}

#[inline(always)]
fn truth<T: Float>(truth: bool) -> T {
    T::of(if truth { u64::MAX } else { 0 })
}

/// CMPPS, CMPPD, VCMPPS, VCMPPD.
#[inline(always)]
pub(super) fn cmp<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V, predicate: u8) -> V {
    if comparable::<T, V>(a, b) {
        let relation = RELATIONS[usize::from(predicate & 0xf)];
        let [less, equal, greater] = [LESS, EQUAL, GREATER].map(|of| relation & of != 0);
        return a.zip(b, |a: T, b| truth((a < b) & less | (a == b) & equal | (a > b) & greater));
    }
    a.zip_with(b, |a: T, b| truth(holds(fp, a, b, predicate)))
}

/// CMPSS, CMPSD, VCMPSS, VCMPSD.
#[inline(always)]
pub(super) fn cmp_scalar<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V, predicate: u8) -> V {
    a.with(0, truth::<T>(holds::<T>(fp, a.lane(0), b.lane(0), predicate)))
}

/// COMISS and COMISD (signalling), UCOMISS and UCOMISD (quiet): ZF, PF and CF.
#[inline(always)]
pub(super) fn comis<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V, quietness: Quietness) -> u32 {
    match fp.compare::<T>(a.lane(0), b.lane(0), quietness) {
        None => ZF | PF | CF,
        Some(Ordering::Less) => CF,
        Some(Ordering::Equal) => ZF,
        Some(Ordering::Greater) => 0,
    }
}

/// ROUNDPS, ROUNDPD.
#[inline(always)]
pub(super) fn round<T: Float, V: Vector>(fp: &mut Fp, b: V, imm: u8) -> V {
    b.zip_with(b, |_, b: T| fp.round(b, imm))
}

/// ROUNDSS, ROUNDSD.
#[inline(always)]
pub(super) fn round_scalar<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V, imm: u8) -> V {
    a.with(0, fp.round(b.lane::<T>(0), imm))
}

/// Of each pair of lanes the one at `place`: those of `a` in the lower half of a 128-bit block, those of `b` in the upper.
#[inline(always)]
fn of_pairs<T: Float, V: Vector>(a: V, b: V, place: usize) -> V {
    let half = 8 / size_of::<T>();
    let (a, b) = (a.lanes::<T>(), b.lanes::<T>());
    V::build::<T>(|i| {
        let (block, i) = (i / (2 * half) * (2 * half), i % (2 * half));
        if i < half { a[block + 2 * i + place] } else { b[block + 2 * (i - half) + place] }
    })
}

/// HADDPS, HADDPD.
#[inline(always)]
pub(super) fn hadd<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V) -> V {
    add::<T, V>(fp, of_pairs::<T, V>(a, b, 0), of_pairs::<T, V>(a, b, 1))
}

/// HSUBPS, HSUBPD.
#[inline(always)]
pub(super) fn hsub<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V) -> V {
    sub::<T, V>(fp, of_pairs::<T, V>(a, b, 0), of_pairs::<T, V>(a, b, 1))
}

/// ADDSUBPS, ADDSUBPD: differences in even lanes, sums in odd ones. A difference is a sum with the sign inverted, which a
/// NaN keeps.
#[inline(always)]
pub(super) fn addsub<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V) -> V {
    let y = b.lanes::<T>();
    let b = V::build::<T>(|i| {
        let negate = i.is_multiple_of(2) & !y[i].is_nan();
        T::of(y[i].raw() ^ if negate { T::Format::SIGN } else { 0 })
    });
    add::<T, V>(fp, a, b)
}

/// DPPS, DPPD: bits 7:4 of the immediate choose the products that are summed, bits 3:0 where the sum goes. Each step
/// whose exception is unmasked is the last. Lanes that do not take part are zeros, whose sums and products raise nothing.
#[inline(always)]
pub(super) fn dp<T: Float, V: Vector>(fp: &mut Fp, a: V, b: V, imm: u8) -> V {
    let block = 16 / size_of::<T>();
    let chosen = |v: V| {
        let v = v.lanes::<T>();
        V::build::<T>(|i| if imm >> (4 + i % block) & 1 != 0 { v[i] } else { T::ZERO })
    };
    // Sums of lanes that are `apart`, in the lower one of the two.
    let halved = |fp: &mut Fp, v: V, apart: usize| {
        let v = v.lanes::<T>();
        let lower = |i: usize| i.is_multiple_of(2 * apart);
        let x = V::build::<T>(|i| if lower(i) { v[i] } else { T::ZERO });
        let y = V::build::<T>(|i| if lower(i) { v[i + apart] } else { T::ZERO });
        add::<T, V>(fp, x, y)
    };
    let products = mul::<T, V>(fp, chosen(a), chosen(b));
    if fp.step() {
        return a;
    }
    let mut sums = halved(fp, products, 1);
    if block == 4 {
        if fp.step() {
            return a;
        }
        sums = halved(fp, sums, 2);
    }
    let sums = sums.lanes::<T>();
    V::build::<T>(|i| if imm >> (i % block) & 1 != 0 { sums[i / block * block] } else { T::ZERO })
}

#[inline(always)]
pub(super) fn rcpps<V: Vector>(b: V) -> V {
    b.map(approximation::reciprocal)
}

#[inline(always)]
pub(super) fn rcpss(a: V128, b: V128) -> V128 {
    a.with(0, approximation::reciprocal(b.lane(0)))
}

#[inline(always)]
pub(super) fn rsqrtps<V: Vector>(b: V) -> V {
    b.map(approximation::reciprocal_root)
}

#[inline(always)]
pub(super) fn rsqrtss(a: V128, b: V128) -> V128 {
    a.with(0, approximation::reciprocal_root(b.lane(0)))
}
