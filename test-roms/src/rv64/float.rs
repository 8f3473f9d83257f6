//! Reference results for floating-point instructions: IEEE 754 by the `rustc_apfloat` crate (LLVM's
//! APFloat) and by exact integer arithmetic for square roots and conversions to integers, with the
//! rules RISC-V adds (canonical NaN, NaN boxing, saturation, minimum and maximum). Source:
//! Unprivileged ISA, "F", "D", "Zfa", "Zfh".

use rustc_apfloat::ieee::{Double, Half, Single};
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};

/// Flags of `fcsr`.
pub(super) const NX: u64 = 1;
pub(super) const UF: u64 = 2;
pub(super) const OF: u64 = 4;
pub(super) const DZ: u64 = 8;
pub(super) const NV: u64 = 16;

/// Rounding modes in the order of their encodings.
pub(super) const ROUND: [Round; 5] = [
    Round::NearestTiesToEven,
    Round::TowardZero,
    Round::TowardNegative,
    Round::TowardPositive,
    Round::NearestTiesToAway,
];

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    S,
    D,
    H,
}

use Format::{D, H, S};

/// A result and its flags.
pub(super) type Flagged = (u64, u64);

impl Format {
    /// Bits in all and bits of the fraction.
    pub(super) fn widths(self) -> (u32, u32) {
        match self {
            H => (16, 10),
            S => (32, 23),
            D => (64, 52),
        }
    }

    /// Its number in the instruction's fmt field.
    pub(super) fn code(self) -> u32 {
        match self {
            S => 0,
            D => 1,
            H => 2,
        }
    }

    fn mask(self) -> u64 {
        u64::MAX >> (64 - self.widths().0)
    }

    /// A register that holds this value.
    pub(super) fn boxed(self, bits: u64) -> u64 {
        !self.mask() | bits
    }

    /// The value a register holds; the canonical NaN unless it is boxed.
    pub(super) fn unboxed(self, register: u64) -> u64 {
        if register | self.mask() == u64::MAX || self == D {
            register & self.mask()
        } else {
            self.nan()
        }
    }

    pub(super) fn sign(self) -> u64 {
        1 << (self.widths().0 - 1)
    }

    pub(super) fn infinity(self) -> u64 {
        let (all, fraction) = self.widths();
        ((1 << (all - 1 - fraction)) - 1) << fraction
    }

    /// The canonical NaN.
    pub(super) fn nan(self) -> u64 {
        self.infinity() | 1 << (self.widths().1 - 1)
    }

    pub(super) fn is_nan(self, v: u64) -> bool {
        v & !self.sign() > self.infinity()
    }

    pub(super) fn is_signaling(self, v: u64) -> bool {
        self.is_nan(v) && v >> (self.widths().1 - 1) & 1 == 0
    }

    pub(super) fn min_normal(self) -> u64 {
        1 << self.widths().1
    }

    /// Magnitude as `m * 2^e` of a finite value.
    fn parts(self, v: u64) -> (u128, i32) {
        let (all, fraction) = self.widths();
        let exponent = (v & self.infinity()) >> fraction;
        let m = v & (self.min_normal() - 1);
        let bias = (1i32 << (all - 2 - fraction)) - 1 + fraction as i32;
        if exponent == 0 {
            (m.into(), 1 - bias)
        } else {
            ((m | self.min_normal()).into(), exponent as i32 - bias)
        }
    }

    /// The order of non-NaN values as an integer; zeros are one apart, negative first.
    fn rank(self, v: u64) -> i64 {
        if v & self.sign() != 0 { -((v & !self.sign()) as i64) - 1 } else { v as i64 }
    }
}

fn flags(status: Status) -> u64 {
    let pairs = [
        (Status::INVALID_OP, NV),
        (Status::DIV_BY_ZERO, DZ),
        (Status::OVERFLOW, OF),
        (Status::UNDERFLOW, UF),
        (Status::INEXACT, NX),
    ];
    pairs.iter().filter(|(s, _)| status.intersects(*s)).map(|(_, f)| f).sum()
}

/// The operations that APFloat computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arith {
    Add,
    Sub,
    Mul,
    Div,
    /// a * b + c with the signs of the product and of c changed or not.
    Fma {
        negate_product: bool,
        negate_addend: bool,
    },
}

fn compute<F: Float>(op: Arith, v: [u64; 3], round: Round) -> StatusAnd<F> {
    let v = v.map(|v| F::from_bits(v.into()));
    let mut r = perform(op, v, round);
    // APFloat calls a directed rounding to the largest number inexact only. It is an overflow too
    // when the exact result is beyond the number after that: compare half of everything.
    let magnitude = if r.value.is_negative() { -r.value } else { r.value };
    if r.status == Status::INEXACT && magnitude == F::largest() {
        let [a, b, c] = v;
        let half = |v: F| v.scalbn(-1);
        let halves = match op {
            Arith::Add | Arith::Sub => [half(a), half(b), c],
            Arith::Mul | Arith::Div => [half(a), b, c],
            Arith::Fma { .. } => [half(a), b, half(c)],
        };
        let h = perform(op, halves, Round::TowardZero).value;
        let magnitude = if h.is_negative() { -h } else { h };
        if magnitude > half(F::largest()) {
            r.status |= Status::OVERFLOW;
        }
    }
    r
}

fn perform<F: Float>(op: Arith, [a, b, c]: [F; 3], round: Round) -> StatusAnd<F> {
    match op {
        Arith::Add => a.add_r(b, round),
        Arith::Sub => a.sub_r(b, round),
        Arith::Mul => a.mul_r(b, round),
        Arith::Div => a.div_r(b, round),
        Arith::Fma { negate_product, negate_addend } => {
            let a = if negate_product { -a } else { a };
            let c = if negate_addend { -c } else { c };
            a.mul_add_r(b, c, round)
        }
    }
}

/// Result of an arithmetic instruction; none where APFloat's notion of underflow (the rounded
/// result is subnormal) may differ from RISC-V's (tininess after rounding).
pub(super) fn arith(f: Format, op: Arith, v: [u64; 3], rm: usize) -> Option<Flagged> {
    let used = match op {
        Arith::Fma { .. } => 3,
        _ => 2,
    };
    if v[..used].iter().any(|v| f.is_nan(*v)) {
        let zero_times_infinity = used == 3 && {
            let m = [v[0], v[1]].map(|v| v & !f.sign());
            m == [0, f.infinity()] || m == [f.infinity(), 0]
        };
        let invalid = zero_times_infinity || v[..used].iter().any(|v| f.is_signaling(*v));
        return Some((f.nan(), if invalid { NV } else { 0 }));
    }
    let (bits, status) = match f {
        S => {
            let r = compute::<Single>(op, v, ROUND[rm]);
            (r.value.to_bits() as u64, r.status)
        }
        _ => {
            let r = compute::<Double>(op, v, ROUND[rm]);
            (r.value.to_bits() as u64, r.status)
        }
    };
    let bits = if f.is_nan(bits) { f.nan() } else { bits };
    let flags = flags(status);
    let border = bits & !f.sign() == f.min_normal() && flags & NX != 0;
    (!border).then_some((bits, flags))
}

/// Rounds `m * 2^e` (plus something below when `sticky`) to an integer; the flag says inexact.
/// None: beyond 2^100.
fn round_integer(negative: bool, m: u128, e: i32, sticky: bool, rm: usize) -> Option<(u128, bool)> {
    if m == 0 || e >= 0 {
        return (m == 0 || e < 47).then(|| (if m == 0 { 0 } else { m << e }, sticky));
    }
    let shift = e.unsigned_abs();
    let (whole, rest, half) = if shift > 120 {
        (0, 1u128, 2u128)
    } else {
        (m >> shift, m & ((1 << shift) - 1), 1 << (shift - 1))
    };
    let inexact = rest != 0 || sticky;
    let up = match rm {
        0 => rest > half || rest == half && (sticky || whole & 1 == 1),
        1 => false,
        2 => negative && inexact,
        3 => !negative && inexact,
        _ => rest >= half,
    };
    Some((whole + u128::from(up), inexact))
}

/// Square root, by an integer square root with at least two bits more than the result.
pub(super) fn sqrt(f: Format, v: u64, rm: usize) -> Flagged {
    if f.is_nan(v) {
        return (f.nan(), if f.is_signaling(v) { NV } else { 0 });
    }
    if v & !f.sign() == 0 || v == f.infinity() {
        return (v, 0);
    }
    if v & f.sign() != 0 {
        return (f.nan(), NV);
    }
    let (mut m, mut e) = f.parts(v);
    let want = 2 * (f.widths().1 + 4);
    while 128 - m.leading_zeros() < want || e % 2 != 0 {
        m <<= 1;
        e -= 1;
    }
    let root = m.isqrt();
    let sticky = root * root != m;
    // root * 2^(e/2): bring it to fraction + 1 bits.
    let extra = (128 - root.leading_zeros() - (f.widths().1 + 1)) as i32;
    let (rounded, inexact) = round_integer(false, root, -extra, sticky, rm).unwrap_or((0, false));
    let scale = e / 2 + extra;
    let value = match f {
        S => Single::from_u128_r(rounded, Round::TowardZero).value.scalbn(scale).to_bits(),
        _ => Double::from_u128_r(rounded, Round::TowardZero).value.scalbn(scale).to_bits(),
    };
    (value as u64, if inexact { NX } else { 0 })
}

/// Conversion to an integer of 32 or 64 bits; 32-bit results are sign-extended.
pub(super) fn to_integer(f: Format, v: u64, bits: u32, signed: bool, rm: usize) -> Flagged {
    let (low, high) = if signed {
        (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
    } else {
        (0, (1i128 << bits) - 1)
    };
    let negative = v & f.sign() != 0;
    let extend = |v: i128| if bits == 32 { v as i32 as u64 } else { v as u64 };
    let out = |toward_low: bool| (extend(if toward_low { low } else { high }), NV);
    if f.is_nan(v) {
        return out(false);
    }
    if v & !f.sign() == f.infinity() {
        return out(negative);
    }
    let (m, e) = f.parts(v);
    match round_integer(negative, m, e, false, rm) {
        None => out(negative),
        Some((magnitude, inexact)) => {
            let value = if negative { -(magnitude as i128) } else { magnitude as i128 };
            if value < low || value > high {
                out(negative)
            } else {
                (extend(value), if inexact { NX } else { 0 })
            }
        }
    }
}

/// Conversion from an integer.
pub(super) fn from_integer(f: Format, v: i128, rm: usize) -> Flagged {
    match f {
        S => {
            let r = Single::from_i128_r(v, ROUND[rm]);
            (r.value.to_bits() as u64, flags(r.status))
        }
        _ => {
            let r = Double::from_i128_r(v, ROUND[rm]);
            (r.value.to_bits() as u64, flags(r.status))
        }
    }
}

/// Conversion between formats; none on the border of underflow, as in [`arith`].
pub(super) fn convert(from: Format, to: Format, v: u64, rm: usize) -> Option<Flagged> {
    fn go<A: FloatConvert<B>, B: Float>(v: u64, round: Round) -> (u64, Status) {
        let r: StatusAnd<B> = A::from_bits(v.into()).convert_r(round, &mut false);
        (r.value.to_bits() as u64, r.status)
    }
    if from.is_nan(v) {
        return Some((to.nan(), if from.is_signaling(v) { NV } else { 0 }));
    }
    let round = ROUND[rm];
    let (bits, status) = match (from, to) {
        (S, D) => go::<Single, Double>(v, round),
        (D, S) => go::<Double, Single>(v, round),
        (H, S) => go::<Half, Single>(v, round),
        (S, H) => go::<Single, Half>(v, round),
        (H, D) => go::<Half, Double>(v, round),
        (D, H) => go::<Double, Half>(v, round),
        _ => (v, Status::OK),
    };
    let mut flags = flags(status);
    // As in `compute`: beyond the power of two above the largest number it is an overflow.
    let (to_all, to_fraction) = to.widths();
    let (all, fraction) = from.widths();
    let bias = |all: u32, fraction: u32| (1u64 << (all - 2 - fraction)) - 1;
    let limit = (bias(all, fraction) + bias(to_all, to_fraction) + 1) << fraction;
    if to_all < all && flags & NX != 0 && v & !from.sign() >= limit {
        flags |= OF;
    }
    let border = bits & !to.sign() == to.min_normal() && flags & NX != 0;
    (!border).then_some((bits, flags))
}

/// `fround` and (`exact`) `froundnx`.
pub(super) fn round(f: Format, v: u64, report: bool, rm: usize) -> Flagged {
    if f.is_nan(v) {
        return (f.nan(), if f.is_signaling(v) { NV } else { 0 });
    }
    let (m, e) = f.parts(v);
    if v & f.infinity() == f.infinity() || e >= 0 {
        return (v, 0);
    }
    let negative = v & f.sign() != 0;
    let (whole, inexact) = round_integer(negative, m, e, false, rm).unwrap_or((0, false));
    let magnitude = from_integer(f, whole as i128, 1).0;
    (magnitude | v & f.sign(), if inexact && report { NX } else { 0 })
}

/// `fcvtmod.w.d`: the low 32 bits of the truncated value.
pub(super) fn to_integer_modular(v: u64) -> Flagged {
    if D.is_nan(v) || v & !D.sign() == D.infinity() {
        return (0, NV);
    }
    let negative = v & D.sign() != 0;
    let (m, e) = D.parts(v);
    let (low, inexact) = if e >= 0 {
        (if e >= 32 { 0 } else { m << e }, false)
    } else {
        round_integer(false, m, e, false, 1).unwrap_or((0, false))
    };
    let value = if negative { (low as u32).wrapping_neg() } else { low as u32 };
    let outside = to_integer(D, v, 32, true, 1).1 & NV != 0;
    let flag = if outside {
        NV
    } else if inexact {
        NX
    } else {
        0
    };
    (value as i32 as u64, flag)
}

/// `fmin`, `fmax`, and Zfa's `fminm`, `fmaxm`.
pub(super) fn min_max(f: Format, a: u64, b: u64, max: bool, zfa: bool) -> Flagged {
    let flag = if f.is_signaling(a) || f.is_signaling(b) { NV } else { 0 };
    let value = match (f.is_nan(a), f.is_nan(b)) {
        (false, false) => {
            if (f.rank(a) > f.rank(b)) == max {
                a
            } else {
                b
            }
        }
        _ if zfa => f.nan(),
        (true, true) => f.nan(),
        (true, false) => b,
        (false, true) => a,
    };
    (value, flag)
}

/// `feq`, `flt`, `fle` and the quiet forms of the latter.
pub(super) fn compare(f: Format, a: u64, b: u64, relation: &str) -> Flagged {
    let signaling = f.is_signaling(a) || f.is_signaling(b);
    if f.is_nan(a) || f.is_nan(b) {
        let loud = matches!(relation, "flt" | "fle");
        return (0, if loud || signaling { NV } else { 0 });
    }
    let zeros = (a | b) & !f.sign() == 0;
    let (a, b) = if zeros { (0, 0) } else { (f.rank(a), f.rank(b)) };
    let holds = match relation {
        "feq" => a == b,
        "flt" | "fltq" => a < b,
        _ => a <= b,
    };
    (u64::from(holds), 0)
}

/// `fclass`.
pub(super) fn class(f: Format, v: u64) -> u64 {
    let negative = v & f.sign() != 0;
    let m = v & !f.sign();
    let bit = if f.is_nan(v) {
        if f.is_signaling(v) { 8 } else { 9 }
    } else {
        // From minus infinity, normal, subnormal, zero outward.
        let kind = if m == f.infinity() {
            0
        } else if m >= f.min_normal() {
            1
        } else if m != 0 {
            2
        } else {
            3
        };
        if negative { kind } else { 7 - kind }
    };
    1 << bit
}
