//! FMA: fused multiply-add in its forms (Intel SDM volume 1, 14.5; volume 2, VFMADD132PS and so on). A NaN is chosen in the
//! order of the formula (volume 1, 14.5.2).
#![allow(unsafe_code)] // The host's FMA is called after asking for it.

use super::fp::{Float, Fp};
use super::vector::Vector;
use crate::softfloat::Format;

/// The signs of a form: whether the product, the addend of even lanes and that of odd lanes are negated.
#[derive(Clone, Copy)]
pub(super) struct Form {
    product: bool,
    even: bool,
    odd: bool,
}

impl Form {
    pub(super) const FMADD: Self = Self { product: false, even: false, odd: false };
    pub(super) const FMSUB: Self = Self { product: false, even: true, odd: true };
    pub(super) const FNMADD: Self = Self { product: true, even: false, odd: false };
    pub(super) const FNMSUB: Self = Self { product: true, even: true, odd: true };
    pub(super) const FMADDSUB: Self = Self { product: false, even: true, odd: false };
    pub(super) const FMSUBADD: Self = Self { product: false, even: false, odd: true };
}

impl Form {
    /// Product and addend with the form's signs; a NaN keeps its own.
    #[inline(always)]
    fn signed<T: Float, V: Vector>(self, x: V, z: V) -> (V, V) {
        let signed = |v: T, negate: bool| {
            let sign = if negate & !v.is_nan() { T::Format::SIGN } else { 0 };
            T::of(v.raw() ^ sign)
        };
        let (x, z) = (x.lanes::<T>(), z.lanes::<T>());
        (
            V::build::<T>(|i| signed(x[i], self.product)),
            V::build::<T>(|i| signed(z[i], if i.is_multiple_of(2) { self.even } else { self.odd })),
        )
    }
}

/// The first `lanes` lanes of `x * y + z` by the host; `None` when that is not exact in result and flags.
#[inline(always)]
fn native<T: Float, V: Vector>(x: V, y: V, z: V, lanes: usize) -> Option<V> {
    let (x, y, z) = (x.lanes::<T>(), y.lanes::<T>(), z.lanes::<T>());
    let mut flaws = T::Bits::default();
    let result = V::build::<T>(|i| {
        if i >= lanes {
            return T::ZERO;
        }
        let r = x[i].fused(y[i], z[i]);
        flaws = flaws | T::flaw(x[i], y[i], z[i], r, false);
        r
    });
    (flaws == T::Bits::default()).then_some(result)
}

/// [`native`] where the processor has the instruction: without, each lane is a call of the C library.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,fma")]
fn native_fma<T: Float, V: Vector>(x: V, y: V, z: V, lanes: usize) -> Option<V> {
    native::<T, V>(x, y, z, lanes)
}

#[inline(always)]
fn host<T: Float, V: Vector>(x: V, y: V, z: V, lanes: usize) -> Option<V> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("fma") {
        // SAFETY: the processor has FMA, and AVX, on which it is built.
        return unsafe { native_fma::<T, V>(x, y, z, lanes) };
    }
    native::<T, V>(x, y, z, lanes)
}

/// Which of the operands `a`, `b`, `c` are factors and which is the addend: the digits of the mnemonic.
#[derive(Clone, Copy)]
pub(super) enum Order {
    F132,
    F213,
    F231,
}

impl Order {
    /// `x`, `y` and `z` of `x * y + z`.
    #[inline(always)]
    fn formula<V>(self, [a, b, c]: [V; 3]) -> [V; 3] {
        match self {
            Self::F132 => [a, c, b],
            Self::F213 => [b, a, c],
            Self::F231 => [b, c, a],
        }
    }
}

/// The form in each lane.
#[inline(always)]
pub(super) fn packed<T: Float, V: Vector>(fp: &mut Fp, form: Form, order: Order, abc: [V; 3]) -> V {
    let [x, y, z] = order.formula(abc);
    let (x, z) = form.signed::<T, V>(x, z);
    if fp.recorded
        && let Some(result) = host::<T, V>(x, y, z, V::BYTES / size_of::<T>())
    {
        return result;
    }
    let (x, y, z) = (x.lanes::<T>(), y.lanes::<T>(), z.lanes::<T>());
    V::build::<T>(|i| fp.fma(x[i], y[i], z[i]))
}

/// The form in lane 0; the others are those of `a`.
#[inline(always)]
pub(super) fn scalar<T: Float, V: Vector>(fp: &mut Fp, form: Form, order: Order, abc: [V; 3]) -> V {
    let a = abc[0];
    let [x, y, z] = order.formula(abc);
    let (x, z) = form.signed::<T, V>(x, z);
    let result = match if fp.recorded { host::<T, V>(x, y, z, 1) } else { None } {
        Some(result) => result.lane::<T>(0),
        None => fp.fma(x.lane::<T>(0), y.lane(0), z.lane(0)),
    };
    a.with(0, result)
}
