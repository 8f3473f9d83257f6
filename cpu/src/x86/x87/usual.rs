//! The usual case of the frequent instructions: full registers, normal numbers, every exception masked, results rounded to
//! nearest, 64 bits.
//!
//! Each method does what the complete one of the same instruction would, in less time, or says `false` (or `None`) where
//! something is not usual: then nothing has changed, and the complete one is to be called. The core has seen to it that no
//! exception is pending.

use std::cmp::Ordering;

use super::{Arith, C0, C1, C2, C3, EXCEPTIONS, State, Store, control, noted};
use crate::softfloat::extended::usual;
use crate::softfloat::extended::{F80, from_int};
use crate::softfloat::{Flags, Format, Integer, Rounding};

impl State {
    /// Whether the control word is the initial one.
    #[inline(always)]
    fn is_usual(&self) -> bool {
        self.control == control::INITIAL
    }

    #[inline(always)]
    fn note(&mut self, flags: Flags) {
        self.status = self.status & !C1 | noted(flags);
    }

    /// Writes ST(i), which is not empty.
    #[inline(always)]
    fn replace(&mut self, i: u8, value: F80) {
        let index = self.index(i);
        self.regs[index] = value;
    }

    /// FADD(P) and the others between registers, one of which is ST(0).
    #[inline(always)]
    pub fn usual_arith(&mut self, op: Arith, destination: u8, source: u8, pop: bool) -> bool {
        if !self.is_usual() || self.is_empty(destination) || self.is_empty(source) {
            return false;
        }
        let result = compute(op, self.st(destination), self.st(source));
        let Some((value, flags)) = result else { return false };
        self.note(flags);
        self.replace(destination, value);
        if pop {
            self.pop();
        }
        true
    }

    /// FADD and the others, m32fp and m64fp.
    #[inline(always)]
    pub fn usual_arith_memory<F: Format>(&mut self, op: Arith, bits: u64) -> bool {
        usual::from_format::<F>(bits).is_some_and(|source| self.usual_arith_value(op, source))
    }

    /// FIADD and the others, m16int or m32int.
    #[inline(always)]
    pub fn usual_arith_int<I: Integer>(&mut self, op: Arith, value: I) -> bool {
        self.usual_arith_value(op, from_int(value))
    }

    #[inline(always)]
    fn usual_arith_value(&mut self, op: Arith, source: F80) -> bool {
        if !self.is_usual() || self.is_empty(0) {
            return false;
        }
        let Some((value, flags)) = compute(op, self.st(0), source) else { return false };
        self.note(flags);
        self.replace(0, value);
        true
    }

    /// FSQRT, where the host has one.
    #[inline(always)]
    pub fn usual_sqrt(&mut self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self.is_usual()
            && !self.is_empty(0)
            && let Some(radicand) = usual::radicand(self.st(0))
        {
            let root = &mut self.regs[usize::from(self.top & 7)];
            super::host::sqrt(root);
            let root = *root;
            self.note(usual::rooted(radicand, root));
            return true;
        }
        false
    }

    /// FABS and FCHS: replaces the sign of ST(0).
    #[inline(always)]
    pub fn usual_sign(&mut self, f: impl Fn(F80) -> F80) -> bool {
        if self.is_empty(0) {
            return false;
        }
        self.note(Flags::empty());
        self.replace(0, f(self.st(0)));
        true
    }

    #[inline(always)]
    fn usual_push(&mut self, value: F80) -> bool {
        if !self.is_empty(7) {
            return false;
        }
        self.note(Flags::empty());
        self.push(value);
        true
    }

    /// FLD m32fp and m64fp.
    #[inline(always)]
    pub fn usual_fld_memory<F: Format>(&mut self, bits: u64) -> bool {
        usual::from_format::<F>(bits).is_some_and(|value| self.usual_push(value))
    }

    /// FILD m16int, m32int, m64int.
    #[inline(always)]
    pub fn usual_fild<I: Integer>(&mut self, value: I) -> bool {
        self.usual_push(from_int(value))
    }

    /// FLD ST(i).
    #[inline(always)]
    pub fn usual_fld(&mut self, i: u8) -> bool {
        !self.is_empty(i) && self.usual_push(self.st(i))
    }

    /// FLD1 and FLDZ.
    #[inline(always)]
    pub fn usual_fld_constant(&mut self, constant: F80) -> bool {
        self.usual_push(constant)
    }

    /// FST(P) ST(i).
    #[inline(always)]
    pub fn usual_fst(&mut self, i: u8, pop: bool) -> bool {
        if self.is_empty(0) {
            return false;
        }
        self.note(Flags::empty());
        self.put(i, self.st(0));
        if pop {
            self.pop();
        }
        true
    }

    /// FXCH ST(i).
    #[inline(always)]
    pub fn usual_fxch(&mut self, i: u8) -> bool {
        if self.is_empty(0) || self.is_empty(i) {
            return false;
        }
        self.note(Flags::empty());
        let (a, b) = (self.st(0), self.st(i));
        self.replace(0, b);
        self.replace(i, a);
        true
    }

    /// FST(P) m32fp and m64fp.
    #[inline(always)]
    pub fn usual_fst_memory<F: Format>(&self) -> Option<Store<u64>> {
        if !self.is_usual() || self.is_empty(0) {
            return None;
        }
        let (value, flags) = usual::to_format::<F>(self.st(0))?;
        Some(self.usual_store(value, flags))
    }

    /// FIST(P) m16int, m32int, m64int, in any direction of rounding.
    #[inline(always)]
    pub fn usual_fist<I: Integer>(&self) -> Option<Store<I>> {
        if self.control & EXCEPTIONS != EXCEPTIONS || self.is_empty(0) {
            return None;
        }
        let direction = Rounding::from_rc(u32::from(self.control >> 10));
        let (value, flags) = usual::to_int(direction, self.st(0))?;
        Some(self.usual_store(value, flags))
    }

    #[inline(always)]
    fn usual_store<T>(&self, value: T, flags: Flags) -> Store<T> {
        Store { value: Some(value), status: self.status & !C1 | noted(flags) }
    }

    #[inline(always)]
    fn usual_relation(&self, i: u8) -> Option<Ordering> {
        if self.is_empty(0) || self.is_empty(i) {
            return None;
        }
        usual::compare(self.st(0), self.st(i))
    }

    /// FCOM ST(i), FUCOM ST(i) and those that pop.
    #[inline(always)]
    pub fn usual_fcom(&mut self, i: u8, pops: u8) -> bool {
        let Some(order) = self.usual_relation(i) else { return false };
        let codes = super::compare::codes(Some(order));
        self.status = self.status & !(C0 | C1 | C2 | C3) | codes;
        for _ in 0..pops {
            self.pop();
        }
        true
    }

    /// FCOMI(P) and FUCOMI(P): the new EFLAGS.ZF and CF in bits 6 and 0; the other arithmetic flags become zero.
    #[inline(always)]
    pub fn usual_fcomi(&mut self, i: u8, pop: bool) -> Option<u8> {
        let order = self.usual_relation(i)?;
        if pop {
            self.pop();
        }
        Some(u8::from(order.is_lt()) | u8::from(order.is_eq()) << 6)
    }
}

#[inline(always)]
fn compute(op: Arith, a: F80, b: F80) -> Option<(F80, Flags)> {
    match op {
        Arith::Add => usual::add(a, b),
        Arith::Mul => usual::mul(a, b),
        Arith::Sub => usual::sub(a, b),
        Arith::Subr => usual::sub(b, a),
        Arith::Div => usual::div(a, b),
        Arith::Divr => usual::div(b, a),
    }
}
