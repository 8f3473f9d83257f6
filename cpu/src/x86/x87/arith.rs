//! Basic arithmetic (Intel SDM volume 2: FADD, FSUB, FSUBR, FMUL, FDIV, FDIVR, FSQRT, FPREM, FPREM1, FRNDINT, FSCALE,
//! FXTRACT, FABS, FCHS).

use super::{C0, C1, C2, C3, State};
use crate::softfloat::extended::{self, Class, F80, Quotient, Remainder};
use crate::softfloat::format::is_subnormal;
use crate::softfloat::{Env, F32, F64, Flags, Integer};

/// An operation of two operands, destination and source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arith {
    /// destination + source
    Add,
    /// destination * source
    Mul,
    /// destination - source
    Sub,
    /// source - destination
    Subr,
    /// destination / source
    Div,
    /// source / destination
    Divr,
}

/// Calls a method with the function of an operation, so that there is one for each.
macro_rules! each {
    ($op:expr, $self:ident.$method:ident($($argument:expr),*)) => {
        match $op {
            Arith::Add => $self.$method(extended::add, $($argument),*),
            Arith::Mul => $self.$method(extended::mul, $($argument),*),
            Arith::Sub => $self.$method(extended::sub, $($argument),*),
            Arith::Subr => $self.$method(|env, a, b| extended::sub(env, b, a), $($argument),*),
            Arith::Div => $self.$method(extended::div, $($argument),*),
            Arith::Divr => $self.$method(|env, a, b| extended::div(env, b, a), $($argument),*),
        }
    };
}

impl State {
    /// FADD(P) and the others between registers, one of which is ST(0).
    #[inline(always)]
    pub fn arith(&mut self, op: Arith, destination: u8, source: u8, pop: bool) {
        each!(op, self.between(destination, source, pop));
    }

    /// An operation between registers. Not inlined: the environment on the stack would keep the caller from tail calls.
    #[inline(never)]
    fn between(
        &mut self,
        operation: impl Fn(&mut Env, F80, F80) -> F80,
        destination: u8,
        source: u8,
        pop: bool,
    ) {
        if self.is_empty(destination) || self.is_empty(source) {
            if !self.underflow() {
                return;
            }
            self.put(destination, F80::INDEFINITE);
        } else {
            let mut env = self.env();
            let result = operation(&mut env, self.st(destination), self.st(source));
            if !self.settle(env.flags) {
                return;
            }
            self.put(destination, result);
        }
        if pop {
            self.pop();
        }
    }

    /// FADD and the others, m32fp.
    #[inline(always)]
    pub fn arith_m32(&mut self, op: Arith, bits: u32) {
        let bits = bits.into();
        each!(op, self.with_memory(extended::from_format::<F32>(bits), is_subnormal::<F32>(bits)));
    }

    /// FADD and the others, m64fp.
    #[inline(always)]
    pub fn arith_m64(&mut self, op: Arith, bits: u64) {
        each!(op, self.with_memory(extended::from_format::<F64>(bits), is_subnormal::<F64>(bits)));
    }

    /// FIADD and the others, m16int or m32int.
    #[inline(always)]
    pub fn arith_int<I: Integer>(&mut self, op: Arith, value: I) {
        each!(op, self.with_memory(extended::from_int(value), false));
    }

    /// ST(0) and a source from memory, which may have been denormal in its own format.
    #[inline(never)]
    fn with_memory(
        &mut self,
        operation: impl Fn(&mut Env, F80, F80) -> F80,
        source: F80,
        denormal: bool,
    ) {
        if self.is_empty(0) {
            if self.underflow() {
                self.put(0, F80::INDEFINITE);
            }
            return;
        }
        let mut env = self.env();
        let a = self.st(0);
        let result = operation(&mut env, a, source);
        if denormal {
            note_denormal(&mut env, a);
        }
        if self.settle(env.flags) {
            self.put(0, result);
        }
    }

    /// Replaces ST(0) by a function of it.
    #[inline(always)]
    fn unary(&mut self, f: impl FnOnce(&mut Env, F80) -> F80) {
        if self.is_empty(0) {
            if self.underflow() {
                self.put(0, F80::INDEFINITE);
            }
            return;
        }
        let mut env = self.env();
        let result = f(&mut env, self.st(0));
        if self.settle(env.flags) {
            self.put(0, result);
        }
    }

    /// FABS.
    #[inline(always)]
    pub fn fabs(&mut self) {
        self.unary(|_, a| a.abs());
    }

    /// FCHS.
    #[inline(always)]
    pub fn fchs(&mut self) {
        self.unary(|_, a| a.negate());
    }

    /// FSQRT.
    #[inline(never)]
    pub fn fsqrt(&mut self) {
        self.unary(extended::sqrt);
    }

    /// FRNDINT.
    #[inline]
    pub fn frndint(&mut self) {
        self.unary(extended::round_to_integral);
    }

    /// FSCALE.
    pub fn fscale(&mut self) {
        if self.is_empty(0) || self.is_empty(1) {
            if self.underflow() {
                self.put(0, F80::INDEFINITE);
            }
            return;
        }
        let scale = self.st(1);
        self.unary(|env, a| extended::scale(env, a, scale));
    }

    /// FXTRACT: the exponent replaces ST(0), the significand is pushed.
    pub fn fxtract(&mut self) {
        if self.is_empty(0) || !self.is_empty(7) {
            let stored = if self.is_empty(0) { self.underflow() } else { self.overflow() };
            if stored {
                self.put(0, F80::INDEFINITE);
                self.push(F80::INDEFINITE);
            }
            return;
        }
        let mut env = self.env();
        let (exponent, significand) = extended::extract(&mut env, self.st(0));
        if self.settle(env.flags) {
            self.put(0, exponent);
            self.push(significand);
        }
    }

    /// FPREM (`Truncated`), FPREM1 (`Nearest`): C2 tells that the remainder is partial, C0, C3, C1 are the quotient's bits
    /// 2, 1, 0.
    pub fn fprem(&mut self, quotient: Quotient) {
        self.status &= !C2;
        if self.is_empty(0) || self.is_empty(1) {
            if self.underflow() {
                self.put(0, F80::INDEFINITE);
            }
            return;
        }
        let mut env = self.env();
        let remainder = extended::remainder(&mut env, self.st(0), self.st(1), quotient);
        if !self.settle(env.flags) {
            return;
        }
        let (rest, codes) = match remainder {
            Remainder::Nan(nan) => (nan, self.status & (C0 | C3)),
            Remainder::Partial(rest) => (rest, C2),
            Remainder::Complete(rest, q) => {
                let code = |bit, code| if q & bit != 0 { code } else { 0 };
                (rest, code(1, C1) | code(2, C3) | code(4, C0))
            }
        };
        self.status = self.status & !(C0 | C3) | codes;
        self.put(0, rest);
    }
}

/// Notes that a source was denormal before it was widened, unless something that precedes that was found: an invalid operation,
/// a NaN, division by zero (Intel SDM volume 1, 4.9.2).
#[cold]
pub(super) fn note_denormal(env: &mut Env, other: F80) {
    if other.class() != Class::Nan && !env.flags.intersects(Flags::INVALID | Flags::DIV_BY_ZERO) {
        env.raise(Flags::DENORMAL);
    }
}
