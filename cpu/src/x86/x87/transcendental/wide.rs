//! Numbers with 128 bits of significand: room for a result of 64 to come out right after dozens of truncated steps.

use std::cmp::Ordering;

use crate::softfloat::extended::{BIAS, F80};

/// `sig * 2^(exp - 127)`, bit 127 of `sig` being set, or zero. Operations truncate to 128 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wide {
    pub(super) negative: bool,
    pub(super) exp: i32,
    pub(super) sig: u128,
}

/// How much smaller than a sum, in powers of two, a term is that no longer counts.
const NEGLIGIBLE: i32 = 110;

impl Wide {
    pub(super) const ZERO: Self = Self { negative: false, exp: 0, sig: 0 };
    pub(super) const ONE: Self = Self { negative: false, exp: 0, sig: 1 << 127 };
    pub(super) const PI: Self =
        Self { negative: false, exp: 1, sig: 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1 };
    pub(super) const LN_2: Self =
        Self { negative: false, exp: -1, sig: 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af };
    pub(super) const LOG2_E: Self =
        Self { negative: false, exp: 0, sig: 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88 };

    /// `n * 2^scale`.
    pub(super) fn new(n: i128, scale: i32) -> Self {
        let magnitude = n.unsigned_abs();
        if magnitude == 0 {
            return Self::ZERO;
        }
        let zeros = magnitude.leading_zeros();
        Self { negative: n < 0, exp: scale + 127 - zeros as i32, sig: magnitude << zeros }
    }

    /// A finite number of a supported encoding.
    pub(super) fn from_extended(a: F80) -> Self {
        if a.sig == 0 {
            return Self::ZERO;
        }
        let (exp, sig) = a.normalized();
        let negative = a.is_negative();
        Self { negative, exp: exp - BIAS, sig: u128::from(sig) << 64 }
    }

    pub(super) fn negate(self) -> Self {
        Self { negative: !self.negative, ..self }
    }

    /// `self * 2^n`.
    pub(super) fn scale(self, n: i32) -> Self {
        Self { exp: self.exp + n, ..self }
    }

    /// Whether x - x^3/6 differs from x too little for a series, though it matters to directed rounding.
    pub(super) fn is_tiny(self) -> bool {
        self.exp < -NEGLIGIBLE / 2
    }

    /// A number a little nearer to zero.
    pub(super) fn below(self) -> Self {
        let sig = self.sig - 1;
        if sig >> 127 != 0 {
            return Self { sig, ..self };
        }
        Self { sig: u128::MAX, exp: self.exp - 1, ..self }
    }

    pub(super) fn add(self, other: Self) -> Self {
        let (x, y) = if self.cmp_magnitude(other).is_ge() { (self, other) } else { (other, self) };
        let by = (x.exp - y.exp) as u32;
        if y.sig == 0 || by > 127 {
            return x;
        }
        let y_sig = y.sig >> by;
        if x.negative != y.negative {
            let difference = x.sig - y_sig;
            if difference == 0 {
                return Self::ZERO;
            }
            let zeros = difference.leading_zeros();
            return Self { exp: x.exp - zeros as i32, sig: difference << zeros, ..x };
        }
        match x.sig.overflowing_add(y_sig) {
            (sig, false) => Self { sig, ..x },
            (sig, true) => Self { exp: x.exp + 1, sig: sig >> 1 | 1 << 127, ..x },
        }
    }

    pub(super) fn sub(self, other: Self) -> Self {
        self.add(other.negate())
    }

    pub(super) fn mul(self, other: Self) -> Self {
        if self.sig == 0 || other.sig == 0 {
            return Self::ZERO;
        }
        let halves = |n: u128| (n >> 64, n & u128::from(u64::MAX));
        let ((a1, a0), (b1, b0)) = (halves(self.sig), halves(other.sig));
        let low = (a0 * b0) >> 64;
        let (m1, m0) = halves(a1 * b0);
        let (n1, n0) = halves(a0 * b1);
        let sig = a1 * b1 + m1 + n1 + ((m0 + n0 + low) >> 64);
        let zeros = sig.leading_zeros();
        Self {
            negative: self.negative != other.negative,
            exp: self.exp + other.exp + 1 - zeros as i32,
            sig: sig << zeros,
        }
    }

    /// `self / other`; `other` is not zero.
    pub(super) fn div(self, other: Self) -> Self {
        if self.sig == 0 {
            return Self::ZERO;
        }
        let negative = self.negative != other.negative;
        let (mut rest, mut exp) = (self.sig, self.exp - other.exp);
        // One bit at a time, `rest` having its 129th bit in `carry`.
        let mut carry = false;
        if rest < other.sig {
            (carry, rest) = (true, rest << 1);
            exp -= 1;
        }
        let mut quotient = 0;
        for _ in 0..128 {
            quotient <<= 1;
            if carry || rest >= other.sig {
                rest = rest.wrapping_sub(other.sig);
                quotient |= 1;
            }
            carry = rest >> 127 != 0;
            rest <<= 1;
        }
        Self { negative, exp, sig: quotient }
    }

    /// `self / n` for a small `n` other than zero.
    fn div_small(self, n: u32) -> Self {
        let n = u128::from(n);
        let (quotient, rest) = (self.sig / n, self.sig % n);
        let zeros = quotient.leading_zeros() & 127;
        let sig = quotient << zeros | (rest << zeros) / n;
        Self { exp: self.exp - zeros as i32, sig, ..self }
    }

    pub(super) fn cmp_magnitude(self, other: Self) -> Ordering {
        let key = |a: Self| (a.sig != 0, a.exp, a.sig);
        key(self).cmp(&key(other))
    }

    /// The sum of a series whose first term is `self` and whose n-th, from 1 on, is `next(term, n)`; its terms decrease.
    fn series(self, next: impl Fn(Self, u32) -> Self) -> Self {
        let (mut sum, mut term) = (self, self);
        for n in 1.. {
            term = next(term, n);
            sum = sum.add(term);
            if term.sig == 0 || term.exp < sum.exp - NEGLIGIBLE {
                break;
            }
        }
        sum
    }

    /// e^x - 1, for magnitudes below 1.
    pub(super) fn exp_m1(self) -> Self {
        self.series(|term, n| term.mul(self).div_small(n + 1))
    }

    /// Sine and cosine, for magnitudes below 1.
    pub(super) fn sin_cos(self) -> (Self, Self) {
        if self.is_tiny() {
            return (self.below(), Self::ONE.below());
        }
        let square = self.mul(self).negate();
        let sin = self.series(|term, n| term.mul(square).div_small(2 * n * (2 * n + 1)));
        let cos = Self::ONE.series(|term, n| term.mul(square).div_small(2 * n * (2 * n - 1)));
        (sin, cos)
    }

    /// ln((1 + z) / (1 - z)) = 2 artanh(z), for small magnitudes.
    pub(super) fn log_ratio(self) -> Self {
        let square = self.mul(self);
        // The sum's terms are powers over odd numbers; the power is carried on, so divide when adding.
        let (mut sum, mut power) = (self, self);
        for n in 1.. {
            power = power.mul(square);
            sum = sum.add(power.div_small(2 * n + 1));
            if power.sig == 0 || power.exp < sum.exp - NEGLIGIBLE {
                break;
            }
        }
        sum.scale(1)
    }

    /// The arc tangent, for 0 to 1, by Euler's series: the n-th term is the one before times 2n / (2n + 1) * x^2 / (1 + x^2).
    pub(super) fn atan(self) -> Self {
        if self.is_tiny() {
            return self.below();
        }
        let square = self.mul(self);
        let one_more = square.add(Self::ONE);
        let ratio = square.div(one_more);
        let first = self.div(one_more);
        first.series(|term, n| {
            term.mul(ratio).mul(Self::new((2 * n).into(), 0)).div_small(2 * n + 1)
        })
    }
}
