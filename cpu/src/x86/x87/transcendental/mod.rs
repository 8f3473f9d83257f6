//! Transcendental functions (Intel SDM volume 2: F2XM1, FYL2X, FYL2XP1, FPATAN, FPTAN, FSIN, FCOS, FSINCOS).
//!
//! Their last bits are each processor's own. So on an x86-64 host they run on its x87 (`host`), and a guest sees what it
//! would see without the emulator; elsewhere [`portable`] computes them to within one unit in the last place.

#[cfg(target_arch = "x86_64")]
mod host;
pub mod portable;
mod wide;

use super::{C2, State};
use crate::softfloat::Flags;
use crate::softfloat::extended::F80;

/// A function of ST(0), or of ST(0) and ST(1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// 2^ST(0) - 1
    F2xm1,
    /// ST(1) * log2(ST(0))
    Fyl2x,
    /// ST(1) * log2(ST(0) + 1)
    Fyl2xp1,
    /// The angle of the point (ST(0), ST(1))
    Fpatan,
    /// Tangent of ST(0), and 1
    Fptan,
    /// Sine of ST(0)
    Fsin,
    /// Cosine of ST(0)
    Fcos,
    /// Sine and cosine of ST(0)
    Fsincos,
}

/// What a function comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The result; for the functions that push, what replaces ST(0) and what is pushed. Of no meaning when an unmasked
    /// exception forbids it, or when the operand is out of range.
    pub results: [F80; 2],
    /// Exceptions found.
    pub flags: Flags,
    /// The operand's magnitude is 2^63 or more: nothing was computed (C2).
    pub out_of_range: bool,
}

impl State {
    /// The function with the control word in force.
    fn evaluate(&self, function: Function) -> Outcome {
        let (a, b) = (self.st(0), self.st(1));
        #[cfg(target_arch = "x86_64")]
        return host::evaluate(function, self.control_word(), a, b);
        #[cfg(not(target_arch = "x86_64"))]
        portable::evaluate(function, self.env(), a, b)
    }

    /// F2XM1, FSIN, FCOS.
    fn replace_top(&mut self, function: Function) {
        if function != Function::F2xm1 {
            self.status &= !C2;
        }
        if self.is_empty(0) {
            if self.underflow() {
                self.put(0, F80::INDEFINITE);
            }
            return;
        }
        let outcome = self.evaluate(function);
        if self.settle_range(&outcome) {
            self.put(0, outcome.results[0]);
        }
    }

    /// FYL2X, FYL2XP1, FPATAN: the result replaces ST(1), and ST(0) is popped.
    fn replace_two(&mut self, function: Function) {
        if self.is_empty(0) || self.is_empty(1) {
            if self.underflow() {
                self.put(1, F80::INDEFINITE);
                self.pop();
            }
            return;
        }
        let outcome = self.evaluate(function);
        if self.settle(outcome.flags) {
            self.put(1, outcome.results[0]);
            self.pop();
        }
    }

    /// FPTAN, FSINCOS: the second result is pushed.
    fn replace_and_push(&mut self, function: Function) {
        self.status &= !C2;
        if self.is_empty(0) || !self.is_empty(7) {
            let stored = if self.is_empty(0) { self.underflow() } else { self.overflow() };
            if stored {
                self.put(0, F80::INDEFINITE);
                self.push(F80::INDEFINITE);
            }
            return;
        }
        let outcome = self.evaluate(function);
        if self.settle_range(&outcome) {
            self.put(0, outcome.results[0]);
            self.push(outcome.results[1]);
        }
    }

    /// As [`State::settle`]; C2, clear so far, tells that the operand is out of range.
    fn settle_range(&mut self, outcome: &Outcome) -> bool {
        if outcome.out_of_range {
            self.status |= C2;
        }
        self.settle(outcome.flags) && !outcome.out_of_range
    }

    /// F2XM1.
    pub fn f2xm1(&mut self) {
        self.replace_top(Function::F2xm1);
    }

    /// FSIN.
    pub fn fsin(&mut self) {
        self.replace_top(Function::Fsin);
    }

    /// FCOS.
    pub fn fcos(&mut self) {
        self.replace_top(Function::Fcos);
    }

    /// FYL2X.
    pub fn fyl2x(&mut self) {
        self.replace_two(Function::Fyl2x);
    }

    /// FYL2XP1.
    pub fn fyl2xp1(&mut self) {
        self.replace_two(Function::Fyl2xp1);
    }

    /// FPATAN.
    pub fn fpatan(&mut self) {
        self.replace_two(Function::Fpatan);
    }

    /// FPTAN: the tangent replaces ST(0), 1 is pushed.
    pub fn fptan(&mut self) {
        self.replace_and_push(Function::Fptan);
    }

    /// FSINCOS: the sine replaces ST(0), the cosine is pushed.
    pub fn fsincos(&mut self) {
        self.replace_and_push(Function::Fsincos);
    }
}
