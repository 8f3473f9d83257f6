//! The functions on the host's own x87.
#![allow(unsafe_code)]

use std::arch::asm;

use super::{Function, Outcome};
use crate::softfloat::Flags;
use crate::softfloat::extended::F80;
use crate::x86::x87::control::INITIAL;
use crate::x86::x87::{C1, C2};

/// An 80-bit value where FLD and FSTP find it.
#[repr(C, align(16))]
struct Tenbyte([u8; 10]);

/// Runs one instruction with ST(0) = `a`, ST(1) = `b` and the given control word; the two topmost registers afterwards, from the
/// top, and the status word.
macro_rules! run {
    ($insn:literal, $control:expr, $a:expr, $b:expr) => {{
        let (mut a, mut b) = (Tenbyte($a.to_bytes()), Tenbyte($b.to_bytes()));
        let status: u16;
        // SAFETY: only x87 registers, AX and the locals pointed to change. The unit is empty with its default control word on
        // entry, as the ABI has it, and again in the end. Between the instruction, which may leave an unmasked exception
        // pending, and FNCLEX, which forgets it, nothing waits, so no exception is delivered.
        unsafe {
            asm!(
                "fldcw word ptr [{control}]",
                "fld tbyte ptr [{b}]",
                "fld tbyte ptr [{a}]",
                $insn,
                "fnstsw ax",
                "fnclex",
                "fldcw word ptr [{initial}]",
                "fstp tbyte ptr [{a}]",
                "fstp tbyte ptr [{b}]",
                "fninit",
                control = in(reg) &$control,
                initial = in(reg) &INITIAL,
                a = in(reg) &mut a,
                b = in(reg) &mut b,
                out("ax") status,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack),
            );
        }
        ([F80::from_bytes(a.0), F80::from_bytes(b.0)], status)
    }};
}

/// What the host makes of the operands under the control word.
pub(super) fn evaluate(function: Function, control: u16, a: F80, b: F80) -> Outcome {
    let (mut results, status) = match function {
        Function::F2xm1 => run!("f2xm1", control, a, b),
        Function::Fyl2x => run!("fyl2x", control, a, b),
        Function::Fyl2xp1 => run!("fyl2xp1", control, a, b),
        Function::Fpatan => run!("fpatan", control, a, b),
        Function::Fptan => run!("fptan", control, a, b),
        Function::Fsin => run!("fsin", control, a, b),
        Function::Fcos => run!("fcos", control, a, b),
        Function::Fsincos => run!("fsincos", control, a, b),
    };
    if matches!(function, Function::Fptan | Function::Fsincos) {
        results.reverse();
    }
    let mut flags = Flags::from_x86(status as u8);
    flags.set(Flags::ROUNDED_UP, status & C1 != 0);
    let ranged =
        matches!(function, Function::Fptan | Function::Fsin | Function::Fcos | Function::Fsincos);
    Outcome { results, flags, out_of_range: ranged && status & C2 != 0 }
}
