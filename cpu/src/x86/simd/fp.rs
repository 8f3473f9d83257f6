//! One floating-point operation by x86's rules: the softfloat with MXCSR's environment and the denormal flag, and the
//! host's arithmetic where that is provably the same.
//!
//! The host's arithmetic gives the same result and flags when the operands are normal numbers or zeros, the result is
//! a normal number above the smallest (or an exact zero), the direction is "to nearest", which is the host's while Rust
//! runs, and the one exception that can then arise, PE, is masked and either recorded already or shown not to arise.

use std::cmp::Ordering;
use std::ops::{Add, BitOr, Div, Mul, Sub};

use bytemuck::Pod;

use super::mxcsr::{Exceptions, Mxcsr};
use super::vector::Vector;
use crate::softfloat::{self as sf, Env, F32, F64, Flags, Format, Integer, Quietness, Rounding};

/// A floating-point lane: `f32` or `f64`, which hold bits and are computed with only where the host is exact.
pub(super) trait Float:
    Pod + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// The softfloat's format.
    type Format: Format;
    /// Positive zero.
    const ZERO: Self;
    /// All bits of the same width, as a lane to accumulate in.
    type Bits: Pod + Default + PartialEq + BitOr<Output = Self::Bits>;
    fn raw(self) -> u64;
    fn of(raw: u64) -> Self;
    fn root(self) -> Self;
    fn fused(self, b: Self, c: Self) -> Self;

    /// Zero if the host's `r` from `x`, `y` and, but for FMA, `z = x` has left no trace but PE: no operand is denormal, and the
    /// result is finite, above the smallest normal number or an exact zero, which it is if `zero_is_exact` or if `x` or `y` is
    /// zero. A NaN or infinity among the operands makes such a result of them, or an exact zero.
    fn flaw(x: Self, y: Self, z: Self, r: Self, zero_is_exact: bool) -> Self::Bits;

    /// Zero if this is neither denormal nor a NaN.
    fn incomparable(self) -> Self::Bits;

    /// This value, a number, rounded to an integral one on the host, whose sum with 2^(fraction's width) has no place for
    /// more.
    fn integral(self, rounding: Rounding) -> Self;

    /// Whether this is a normal number or a zero.
    fn is_plain(self) -> bool;

    /// Whether `r`, rounded from `x + y`, is exact: the rest of the sum is zero (Knuth, TAOCP volume 2, 4.2.2, theorem B).
    #[inline(always)]
    fn is_sum(x: Self, y: Self, r: Self) -> bool {
        let of_y = r - x;
        (x - (r - of_y)) + (y - of_y) == Self::ZERO
    }

    /// Whether a product that is a normal number is exact because both significands have half of their bits at most. Others
    /// may be, too.
    #[inline(always)]
    fn have_product(x: Self, y: Self) -> bool {
        let half = (1u64 << (Self::Format::FRAC_BITS + 1).div_ceil(2)) - 1;
        (x.raw() | y.raw()) & half == 0
    }

    #[inline(always)]
    fn is_denormal(self) -> bool {
        sf::format::is_subnormal::<Self::Format>(self.raw())
    }

    #[inline(always)]
    fn is_nan(self) -> bool {
        self.raw() & Self::Format::MAGNITUDE > Self::Format::INFINITY
    }
}

macro_rules! float {
    ($($type:ident, $bits:ident, $format:ident;)*) => {$(
        impl Float for $type {
            type Format = $format;
            type Bits = $bits;
            const ZERO: Self = 0.0;

            #[inline(always)]
            fn raw(self) -> u64 {
                u64::from(self.to_bits())
            }

            #[inline(always)]
            fn of(raw: u64) -> Self {
                Self::from_bits(raw as $bits)
            }

            #[inline(always)]
            fn root(self) -> Self {
                self.sqrt()
            }

            #[inline(always)]
            fn fused(self, b: Self, c: Self) -> Self {
                self.mul_add(b, c)
            }

            #[inline(always)]
            fn flaw(x: Self, y: Self, z: Self, r: Self, zero_is_exact: bool) -> $bits {
                // Comparisons of integers, without branches, so that lanes are done at once.
                const FRACTION: $bits = $format::FRAC as $bits;
                const TINY: $bits = $format::IMPLICIT as $bits;
                const INNER: $bits = $format::INFINITY as $bits - TINY - 1;
                let magnitude = |v: Self| v.to_bits() & $format::MAGNITUDE as $bits;
                let denormal = |v: Self| magnitude(v).wrapping_sub(1) < FRACTION;
                let zero = |v: Self| magnitude(v) == 0;
                let inner = magnitude(r).wrapping_sub(TINY + 1) < INNER;
                let exact = zero(r) & (zero_is_exact | zero(x) | zero(y));
                $bits::from(denormal(x) | denormal(y) | denormal(z) | !(inner | exact))
            }

            #[inline(always)]
            fn incomparable(self) -> $bits {
                const FRACTION: $bits = $format::FRAC as $bits;
                let magnitude = self.to_bits() & $format::MAGNITUDE as $bits;
                let nan = magnitude > $format::INFINITY as $bits;
                $bits::from((magnitude.wrapping_sub(1) < FRACTION) | nan)
            }

            #[inline(always)]
            fn integral(self, rounding: Rounding) -> Self {
                const LIMIT: $type = $format::IMPLICIT as $type;
                let magnitude = self.abs();
                let nearest = (magnitude + LIMIT) - LIMIT;
                let down = if nearest > magnitude { nearest - 1.0 } else { nearest };
                let up = if nearest < magnitude { nearest + 1.0 } else { nearest };
                let rounded = match rounding {
                    Rounding::Down if self.is_sign_negative() => up,
                    Rounding::Up if !self.is_sign_negative() => up,
                    Rounding::Down | Rounding::Up | Rounding::TowardZero => down,
                    // x86 has no direction but these four.
                    Rounding::NearestEven | Rounding::NearestMaxMagnitude => nearest,
                };
                if magnitude < LIMIT { rounded.copysign(self) } else { self }
            }

            #[inline(always)]
            fn is_plain(self) -> bool {
                let exponent = self.to_bits() & $format::INFINITY as $bits;
                (exponent != 0) & (exponent != $format::INFINITY as $bits) | (self == 0.0)
            }
        }
    )*};
}
float! {
    f32, u32, F32;
    f64, u64, F64;
}

/// The environment of an instruction's floating-point operations, and what they raised. PE may be missing when it is
/// recorded in MXCSR already.
pub(super) struct Fp {
    pub(super) mxcsr: Mxcsr,
    /// Whether the host may compute what is exact.
    pub(super) quick: bool,
    /// Whether it may compute what is inexact, too: PE is recorded.
    pub(super) recorded: bool,
    /// What the step under way raised.
    pub(super) raised: Exceptions,
    /// What the steps before raised.
    settled: Exceptions,
}

impl Fp {
    #[inline(always)]
    pub(super) fn new(mxcsr: Mxcsr) -> Self {
        Self {
            mxcsr,
            quick: mxcsr.is_usual(),
            recorded: mxcsr.is_usual() && mxcsr.flags().contains(Exceptions::PE),
            raised: Exceptions::empty(),
            settled: Exceptions::empty(),
        }
    }

    /// Ends a step of the instruction: an unmasked exception found before anything was computed keeps the others of the step
    /// from arising (SDM volume 1, 11.5.2). Returns whether an unmasked one was raised, which makes the step the last.
    #[inline(always)]
    pub(super) fn step(&mut self) -> bool {
        let before = self.raised.intersection(Exceptions::BEFORE);
        self.settled |= if self.mxcsr.unmasked(before) { before } else { self.raised };
        self.raised = Exceptions::empty();
        self.mxcsr.unmasked(self.settled)
    }

    /// Ends the instruction: what it raised.
    #[inline(always)]
    pub(super) fn finish(mut self) -> Exceptions {
        if self.raised.is_empty() {
            return self.settled;
        }
        self.step();
        self.settled
    }

    /// The softfloat's environment.
    pub(super) fn env(&self) -> Env {
        Env {
            daz: self.mxcsr.daz(),
            ftz: self.mxcsr.ftz(),
            unmasked: Flags::from_x86(self.mxcsr.masks().complement().bits()),
            ..Env::x86(self.mxcsr.rounding())
        }
    }

    /// Adds the softfloat's flags to what was raised.
    pub(super) fn take(&mut self, flags: Flags) {
        self.raised |= Exceptions::from_bits_truncate(flags.to_x86());
    }

    /// Raises DE for denormal operands. Invalid operations, NaNs and divisions by zero come before (SDM volume 1,
    /// 4.9.2).
    #[inline]
    pub(super) fn denormals<T: Float>(&mut self, operands: &[T], flags: Flags) {
        if !self.mxcsr.daz()
            && !flags.intersects(Flags::INVALID | Flags::DIV_BY_ZERO)
            && operands.iter().any(|x| x.is_denormal())
            && !operands.iter().any(|x| x.is_nan())
        {
            self.raised |= Exceptions::DE;
        }
    }

    /// One operation of the softfloat.
    #[inline(never)]
    fn soft<T: Float, const N: usize>(
        &mut self,
        operands: [T; N],
        operation: impl FnOnce(&mut Env, [u64; N]) -> u64,
    ) -> T {
        let mut env = self.env();
        let result = operation(&mut env, operands.map(T::raw));
        self.take(env.flags);
        self.denormals(&operands, env.flags);
        T::of(result)
    }

    pub(super) fn add<T: Float>(&mut self, a: T, b: T) -> T {
        self.soft([a, b], |env, [a, b]| sf::add::<T::Format>(env, a, b))
    }

    pub(super) fn sub<T: Float>(&mut self, a: T, b: T) -> T {
        self.soft([a, b], |env, [a, b]| sf::sub::<T::Format>(env, a, b))
    }

    pub(super) fn mul<T: Float>(&mut self, a: T, b: T) -> T {
        self.soft([a, b], |env, [a, b]| sf::mul::<T::Format>(env, a, b))
    }

    pub(super) fn div<T: Float>(&mut self, a: T, b: T) -> T {
        self.soft([a, b], |env, [a, b]| sf::div::<T::Format>(env, a, b))
    }

    pub(super) fn sqrt<T: Float>(&mut self, a: T) -> T {
        self.soft([a], |env, [a]| sf::sqrt::<T::Format>(env, a))
    }

    /// `a * b + c`.
    pub(super) fn fma<T: Float>(&mut self, a: T, b: T, c: T) -> T {
        self.soft([a, b, c], |env, [a, b, c]| sf::fma::<T::Format>(env, a, b, c))
    }

    /// The relation of `a` to `b`; `None` when unordered.
    #[inline(always)]
    pub(super) fn compare<T: Float>(
        &mut self,
        a: T,
        b: T,
        quietness: Quietness,
    ) -> Option<Ordering> {
        if a.incomparable() | b.incomparable() == T::Bits::default() {
            return a.partial_cmp(&b);
        }
        self.compare_special(a, b, quietness)
    }

    #[inline(never)]
    fn compare_special<T: Float>(&mut self, a: T, b: T, quietness: Quietness) -> Option<Ordering> {
        let mut env = self.env();
        let order = sf::compare::<T::Format>(&mut env, a.raw(), b.raw(), quietness);
        self.take(env.flags);
        self.denormals(&[a, b], env.flags);
        order
    }

    /// An operand that is returned as it is, but for DAZ.
    #[inline]
    pub(super) fn operand<T: Float>(&self, a: T) -> T {
        if self.mxcsr.daz() && a.is_denormal() { T::of(a.raw() & T::Format::SIGN) } else { a }
    }

    /// Single to double precision, which is exact.
    #[inline(always)]
    pub(super) fn widen(&mut self, a: f32) -> f64 {
        if a.is_plain() { f64::from(a) } else { self.convert(a) }
    }

    /// Double to single precision.
    #[inline(always)]
    pub(super) fn narrow(&mut self, a: f64) -> f32 {
        if self.quick & a.is_plain() {
            let r = a as f32;
            // A normal number that now is none has over- or underflowed, or may have.
            let flaw = f32::flaw(1.0, 1.0, 1.0, r, a == 0.0) != 0;
            if !flaw & (self.recorded | (f64::from(r) == a)) {
                return r;
            }
        }
        self.convert(a)
    }

    #[inline(never)]
    fn convert<T: Float, U: Float>(&mut self, a: T) -> U {
        let mut env = self.env();
        let result = sf::convert::<T::Format, U::Format>(&mut env, a.raw());
        self.take(env.flags);
        self.denormals(&[a], env.flags);
        U::of(result)
    }

    /// To an integer.
    #[inline(never)]
    pub(super) fn round_to_int<T: Float, I: Integer>(&mut self, a: T, rounding: Rounding) -> I {
        let mut env = Env { rounding, ..self.env() };
        let result = sf::to_int::<T::Format, I>(&mut env, a.raw());
        self.take(env.flags);
        result
    }

    /// From an integer.
    pub(super) fn convert_int<T: Float, I: Integer>(&mut self, a: I) -> T {
        let mut env = self.env();
        let result = sf::from_int::<T::Format, I>(&mut env, a);
        self.take(env.flags);
        T::of(result)
    }

    /// To an integral value by ROUNDPS's immediate: bits 1:0 are the direction, which bit 2 takes from MXCSR; bit 3
    /// suppresses PE.
    #[inline(always)]
    pub(super) fn round<T: Float>(&mut self, a: T, imm: u8) -> T {
        let rounding =
            if imm & 4 == 0 { Rounding::from_rc(imm.into()) } else { self.mxcsr.rounding() };
        if a.is_plain() {
            let result = a.integral(rounding);
            if result != a && imm & 8 == 0 {
                self.raised |= Exceptions::PE;
            }
            return result;
        }
        self.round_special(a, rounding, imm)
    }

    #[inline(never)]
    fn round_special<T: Float>(&mut self, a: T, rounding: Rounding, imm: u8) -> T {
        let mut env = Env { rounding, ..self.env() };
        let result = sf::round_to_integral_exact::<T::Format>(&mut env, a.raw());
        if imm & 8 != 0 {
            env.flags -= Flags::INEXACT;
        }
        self.take(env.flags);
        T::of(result)
    }
}

/// What an operation does per lane: on the host where that leaves no other trace, else by the softfloat.
pub(super) struct Two<N, E, S> {
    pub(super) native: N,
    /// Whether the host's result, a normal number, is shown to be exact.
    pub(super) exact: E,
    pub(super) soft: S,
    /// Whether a zero result of normal operands is always exact.
    pub(super) zero_is_exact: bool,
}

impl<N, E, S> Two<N, E, S> {
    /// The operation on each lane.
    #[inline(always)]
    pub(super) fn packed<V: Vector, T: Float>(&self, fp: &mut Fp, a: V, b: V) -> V
    where
        N: Fn(T, T) -> T,
        E: Fn(T, T, T) -> bool,
        S: Fn(&mut Fp, T, T) -> T,
    {
        let (x, y) = (a.lanes::<T>(), b.lanes::<T>());
        if fp.quick {
            let mut flaws = T::Bits::default();
            let result = V::build::<T>(|i| {
                let r = (self.native)(x[i], y[i]);
                flaws = flaws | T::flaw(x[i], y[i], x[i], r, self.zero_is_exact);
                r
            });
            if flaws == T::Bits::default() {
                let mut lanes = x.iter().zip(y).zip(result.lanes::<T>());
                if fp.recorded || lanes.all(|((&x, &y), &r)| (self.exact)(x, y, r)) {
                    return result;
                }
            }
        }
        V::build::<T>(|i| (self.soft)(fp, x[i], y[i]))
    }

    /// The operation on lane 0; the others are those of `a`.
    #[inline(always)]
    pub(super) fn scalar<V: Vector, T: Float>(&self, fp: &mut Fp, a: V, b: V) -> V
    where
        N: Fn(T, T) -> T,
        E: Fn(T, T, T) -> bool,
        S: Fn(&mut Fp, T, T) -> T,
    {
        let (x, y) = (a.lane::<T>(0), b.lane::<T>(0));
        if fp.quick {
            let r = (self.native)(x, y);
            if T::flaw(x, y, x, r, self.zero_is_exact) == T::Bits::default()
                && (fp.recorded || (self.exact)(x, y, r))
            {
                return a.with(0, r);
            }
        }
        a.with(0, (self.soft)(fp, x, y))
    }
}
