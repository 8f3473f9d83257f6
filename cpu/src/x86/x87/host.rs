//! What the host's own x87 does better than integer arithmetic.
#![allow(unsafe_code)] // One instruction of the host.

use std::arch::asm;

use crate::softfloat::F80;

/// Replaces a normal number above zero by its square root, rounded to nearest, 64 bits: a normal number, too.
#[inline(always)]
pub(super) fn sqrt(a: &mut F80) {
    // SAFETY: F80 begins with the ten bytes of the encoding, and nothing but them is read and written. The unit is empty, with
    // its default control word, as the ABI has it: every exception masked, to nearest, 64 bits.
    unsafe {
        asm!(
            "fld tbyte ptr [{a}]",
            "fsqrt",
            "fstp tbyte ptr [{a}]",
            a = in(reg) a,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            options(nostack),
        );
    }
}
