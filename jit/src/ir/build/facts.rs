//! What is known of values before the code runs.

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::sem::{Bin, Fmt, Fp1, Fp2, Un};

/// The upper half of a register that holds a boxed single (unprivileged, 21.2).
pub(super) const BOX: u64 = !0xffff_ffff;

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    /// It is below 2 to this power.
    pub(super) zero: u8,
    /// It is the sign extension of this many of its low bits (1 to 64).
    pub(super) sign: u8,
    /// Its upper half is all ones.
    pub(super) boxed: bool,
}

impl Fact {
    /// Nothing is known.
    pub(super) const ANY: Fact = Fact { zero: 64, sign: 64, boxed: false };

    /// Below `2^bits`.
    pub(super) fn zero(bits: u32) -> Fact {
        let bits = bits.min(64) as u8;
        Fact { zero: bits, sign: (bits + 1).min(64), boxed: false }
    }

    /// The sign extension of `bits` bits.
    pub(super) fn sign(bits: u32) -> Fact {
        Fact { zero: 64, sign: bits.min(64) as u8, boxed: false }
    }

    /// A boxed single.
    pub(super) fn boxed() -> Fact {
        Fact { zero: 64, sign: 33, boxed: true }
    }

    /// A constant.
    pub(super) fn of(value: u64) -> Fact {
        let ones = (value ^ (value as i64 >> 63) as u64).leading_zeros();
        Fact {
            zero: (64 - value.leading_zeros()) as u8,
            sign: (65 - ones).min(64) as u8,
            boxed: value & BOX == BOX,
        }
    }

    /// A loaded value.
    pub(super) fn loaded(width: Width) -> Fact {
        Fact::zero(width.bits())
    }

    /// All bits that the value may have.
    pub(super) fn mask(self) -> u64 {
        if self.zero == 0 { 0 } else { u64::MAX >> (64 - self.zero) }
    }

    /// Either of two values.
    pub(super) fn either(self, other: Fact) -> Fact {
        Fact {
            zero: self.zero.max(other.zero),
            sign: self.sign.max(other.sign),
            boxed: self.boxed && other.boxed,
        }
    }

    fn with_zero(self, bits: u32) -> Fact {
        let other = Fact::zero(bits);
        Fact { zero: other.zero, sign: self.sign.min(other.sign), boxed: false }
    }
}

/// The result of an operation on values of which `a` and `b` are known; `amount` is the second if it is
/// constant.
pub(super) fn bin(op: Bin, a: Fact, b: Fact, constant: Option<u64>) -> Fact {
    let (za, zb, sa, sb) =
        (u32::from(a.zero), u32::from(b.zero), u32::from(a.sign), u32::from(b.sign));
    let amount = constant.map(|c| (c & 63) as u32);
    match op {
        Bin::Slt | Bin::Sltu | Bin::Eq => Fact::zero(1),
        Bin::And => Fact::sign(sa.max(sb)).with_zero(za.min(zb)),
        Bin::Or | Bin::Xor => Fact::sign(sa.max(sb)).with_zero(za.max(zb)),
        Bin::Add => Fact::sign(sa.max(sb) + 1).with_zero(za.max(zb) + 1),
        Bin::Sub => Fact::sign(sa.max(sb) + 1),
        Bin::Mul => Fact::sign(sa + sb).with_zero(za + zb),
        Bin::Sll => match amount {
            Some(n) => Fact::sign(sa + n).with_zero(za + n),
            None => Fact::ANY,
        },
        Bin::Srl => match amount {
            Some(0) => a,
            Some(n) => Fact::zero(za.saturating_sub(n)),
            None => Fact::zero(za),
        },
        Bin::Sra => match amount {
            Some(n) => Fact::sign(sa.saturating_sub(n).max(1)),
            None => Fact::sign(sa).with_zero(za),
        },
        Bin::Divu if constant.is_some_and(|c| c != 0) => Fact::zero(za),
        Bin::Remu => Fact::zero(za),
        Bin::Min | Bin::Minu | Bin::Max | Bin::Maxu => Fact { boxed: false, ..a.either(b) },
        Bin::Divw | Bin::Divuw | Bin::Remw | Bin::Remuw | Bin::Rolw | Bin::Rorw => Fact::sign(32),
        Bin::Mulh
        | Bin::Mulhu
        | Bin::Mulhsu
        | Bin::Div
        | Bin::Divu
        | Bin::Rem
        | Bin::Rol
        | Bin::Ror
        | Bin::Clmul
        | Bin::Clmulh
        | Bin::Clmulr => Fact::ANY,
    }
}

/// The result of an operation on a value of which `a` is known.
pub(super) fn un(op: Un, a: Fact) -> Fact {
    let zero = u32::from(a.zero);
    match op {
        Un::Clz | Un::Ctz | Un::Cpop => Fact::zero(7),
        Un::Clzw | Un::Ctzw | Un::Cpopw => Fact::zero(6),
        Un::OrcB => Fact::zero(zero.next_multiple_of(8)),
        Un::Rev8 => Fact::ANY,
        Un::SextB => Fact::sign(8),
        Un::SextH => Fact::sign(16),
        Un::SextW => Fact::sign(32),
        Un::ZextB => Fact::zero(zero.min(8)),
        Un::ZextH => Fact::zero(zero.min(16)),
        Un::ZextW => Fact::zero(zero.min(32)),
    }
}

fn of_format(fmt: Fmt) -> Fact {
    match fmt {
        Fmt::H => Fact::zero(16),
        Fmt::S => Fact::zero(32),
        Fmt::D => Fact::ANY,
    }
}

/// The result of a floating-point operation.
pub(super) fn fp2(op: Fp2, fmt: Fmt) -> Fact {
    match op {
        Fp2::Eq | Fp2::Lt | Fp2::Le | Fp2::Ltq | Fp2::Leq => Fact::zero(1),
        Fp2::Add | Fp2::Sub | Fp2::Mul | Fp2::Div | Fp2::Min | Fp2::Max | Fp2::Minm | Fp2::Maxm => {
            of_format(fmt)
        }
    }
}

/// The result of a floating-point operation.
pub(super) fn fp1(op: Fp1, fmt: Fmt) -> Fact {
    match op {
        Fp1::Class => Fact::zero(10),
        Fp1::ToI32 | Fp1::ToU32 | Fp1::ToI32Mod => Fact::sign(32),
        Fp1::ToI64 | Fp1::ToU64 => Fact::ANY,
        Fp1::Sqrt
        | Fp1::Round
        | Fp1::Roundnx
        | Fp1::FromI32
        | Fp1::FromU32
        | Fp1::FromI64
        | Fp1::FromU64
        | Fp1::From(_) => of_format(fmt),
    }
}

/// The result of a fused multiplication and addition.
pub(super) fn fma(fmt: Fmt) -> Fact {
    of_format(fmt)
}

#[cfg(test)]
mod tests {
    use mimic_cpu::riscv::alu;

    use super::*;

    /// Whether `fact` is true of `value`, by the words of its definition.
    fn holds(fact: Fact, value: u64) -> bool {
        assert!(fact.zero <= 64 && (1..=64).contains(&fact.sign));
        let below = u128::from(value) < 1 << fact.zero;
        let half = 1i128 << (fact.sign - 1);
        let extended = (-half..half).contains(&i128::from(value as i64));
        below && extended && (!fact.boxed || value >> 32 == 0xffff_ffff)
    }

    /// Values at the edges of every number of bits.
    fn values() -> Vec<u64> {
        let powers = (0..64).step_by(3).chain([7, 8, 15, 16, 31, 32, 63]).map(|n| 1u64 << n);
        powers.flat_map(|p| [p, p - 1, p.wrapping_neg(), !p]).chain([u64::MAX]).collect()
    }

    /// Facts that are true of a value: the tightest, and those that say less.
    fn true_facts(value: u64) -> [Fact; 4] {
        let tight = Fact::of(value);
        assert!(holds(tight, value), "{value:#x}: {tight:?}");
        let loose =
            Fact { zero: (tight.zero + 5).min(64), sign: (tight.sign + 5).min(64), boxed: false };
        [tight, loose, Fact { zero: 64, ..tight }, Fact { sign: 64, ..tight }]
    }

    #[test]
    fn what_is_known_of_results_is_true() {
        for a in values() {
            for fact in true_facts(a) {
                for &op in Un::ALL {
                    let (found, result) = (un(op, fact), alu::un(op, a));
                    assert!(holds(found, result), "{op:?} {a:#x} {fact:?}: {result:#x} {found:?}");
                }
            }
            for b in values() {
                for (x, y) in true_facts(a).into_iter().zip(true_facts(b)) {
                    for &op in Bin::ALL {
                        let result = alu::bin(op, a, b);
                        for constant in [None, Some(b)] {
                            let found = bin(op, x, y, constant);
                            assert!(
                                holds(found, result),
                                "{op:?} {a:#x} {x:?} {b:#x} {y:?}: {result:#x} {found:?}",
                            );
                        }
                    }
                    assert!(holds(x.either(y), a) && holds(x.either(y), b));
                }
            }
        }
    }
}
