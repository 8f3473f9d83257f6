//! Comparison and classification (Intel SDM volume 2: FCOM, FUCOM, FICOM, FCOMI, FUCOMI, FTST, FXAM).

use std::cmp::Ordering;

use super::arith::note_denormal;
use super::{C0, C1, C2, C3, State};
use crate::softfloat::extended::{self, Class, F80};
use crate::softfloat::format::is_subnormal;
use crate::softfloat::{F32, F64, Flags, Integer, Quietness};

/// All condition codes.
const CODES: u16 = C0 | C1 | C2 | C3;

/// The condition codes that tell a relation of ST(0) to the other operand.
pub(super) fn codes(order: Option<Ordering>) -> u16 {
    match order {
        None => C3 | C2 | C0,
        Some(Ordering::Less) => C0,
        Some(Ordering::Equal) => C3,
        Some(Ordering::Greater) => 0,
    }
}

/// What a comparison found, and whether an unmasked exception stops the instruction short of popping. Even then the relation is
/// told, which is "unordered" for an invalid operation.
struct Relation {
    order: Option<Ordering>,
    completed: bool,
}

impl State {
    /// Compares ST(0), which is not empty, with `b`; the exceptions are noted.
    #[inline(always)]
    fn relation(&mut self, b: F80, denormal: bool, quiet: Quietness) -> Relation {
        let mut env = self.env();
        let a = self.st(0);
        let order = extended::compare(&mut env, a, b, quiet);
        if denormal {
            note_denormal(&mut env, a);
        }
        Relation { order, completed: self.settle(env.flags) }
    }

    /// The outcome of a comparison that read an empty register.
    #[cold]
    fn no_relation(&mut self) -> Relation {
        Relation { order: None, completed: self.underflow() }
    }

    #[inline(always)]
    fn set_codes(&mut self, relation: Relation, pops: u8) {
        self.status = self.status & !(C0 | C2 | C3) | codes(relation.order);
        if relation.completed {
            for _ in 0..pops {
                self.pop();
            }
        }
    }

    /// FCOM ST(i), FCOMP, FCOMPP (`Signalling`), FUCOM, FUCOMP, FUCOMPP (`Quiet`), popping 0, 1, 2 times.
    #[inline(never)]
    pub fn fcom(&mut self, i: u8, quiet: Quietness, pops: u8) {
        let relation = if self.is_empty(0) || self.is_empty(i) {
            self.no_relation()
        } else {
            self.relation(self.st(i), false, quiet)
        };
        self.set_codes(relation, pops);
    }

    /// FCOM(P) m32fp.
    #[inline(never)]
    pub fn fcom_m32(&mut self, bits: u32, pop: bool) {
        let bits = bits.into();
        self.fcom_memory(extended::from_format::<F32>(bits), is_subnormal::<F32>(bits), pop);
    }

    /// FCOM(P) m64fp.
    #[inline(never)]
    pub fn fcom_m64(&mut self, bits: u64, pop: bool) {
        self.fcom_memory(extended::from_format::<F64>(bits), is_subnormal::<F64>(bits), pop);
    }

    /// FICOM(P) m16int, m32int.
    #[inline]
    pub fn ficom<I: Integer>(&mut self, value: I, pop: bool) {
        self.fcom_memory(extended::from_int(value), false, pop);
    }

    /// FTST.
    #[inline]
    pub fn ftst(&mut self) {
        self.fcom_memory(F80::ZERO, false, false);
    }

    #[inline(always)]
    fn fcom_memory(&mut self, b: F80, denormal: bool, pop: bool) {
        let relation = if self.is_empty(0) {
            self.no_relation()
        } else {
            self.relation(b, denormal, Quietness::Signalling)
        };
        self.set_codes(relation, u8::from(pop));
    }

    /// FCOMI(P) (`Signalling`), FUCOMI(P) (`Quiet`): the new EFLAGS.ZF, PF, CF in bits 6, 2, 0; OF, SF, AF become zero.
    #[inline(never)]
    pub fn fcomi(&mut self, i: u8, quiet: Quietness, pop: bool) -> u8 {
        let relation = if self.is_empty(0) || self.is_empty(i) {
            self.no_relation()
        } else {
            // Only a stack fault touches C1.
            let c1 = self.status & C1;
            let relation = self.relation(self.st(i), false, quiet);
            self.status |= c1;
            relation
        };
        if pop && relation.completed {
            self.pop();
        }
        match relation.order {
            None => 0x45,
            Some(Ordering::Less) => 0x01,
            Some(Ordering::Equal) => 0x40,
            Some(Ordering::Greater) => 0,
        }
    }

    /// FXAM.
    pub fn fxam(&mut self) {
        let a = self.st(0);
        let class = match a.class() {
            _ if self.is_empty(0) => C3 | C0,
            Class::Unsupported => 0,
            Class::Nan => C0,
            Class::Normal => C2,
            Class::Infinity => C2 | C0,
            Class::Zero => C3,
            Class::Denormal => C3 | C2,
        };
        let sign = if a.is_negative() { C1 } else { 0 };
        self.settle(Flags::empty());
        self.status = self.status & !CODES | class | sign;
    }
}
