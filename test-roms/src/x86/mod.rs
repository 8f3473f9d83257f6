//! The x86 guests and their manifest.

mod image;
pub mod kvm;
mod stress;
pub(crate) mod tables;

use crate::Oracle::Qemu;
use crate::{Define, Expected, Kind, Rom};

pub(crate) use stress::{Assembled, Suite};

/// One that QEMU 10.0.2 does not always pass: there CPUID does not order loads behind stores, and of code that one
/// processor changes while others execute it the old form may stay.
const fn strict(
    name: &'static str,
    title: &'static str,
    harts: u32,
    define: fn(&mut Suite) -> Assembled,
) -> Rom {
    Rom { verified: &[], ..stress(name, title, harts, define) }
}

/// A conformance ROM for several processors that lasts as long as it is told to.
const fn stress(
    name: &'static str,
    title: &'static str,
    harts: u32,
    define: fn(&mut Suite) -> Assembled,
) -> Rom {
    Rom {
        name,
        title,
        kind: Kind::Conformance,
        harts,
        cpu: None,
        expected: Expected::Pass,
        operations: None,
        insns_estimate: 1_000_000,
        verified: &[Qemu],
        define: Define::X86(define),
    }
}

/// The x86 ROMs but for [`tables`].
#[rustfmt::skip] // one row per ROM
pub(crate) static ROMS: &[Rom] = &[
    stress("x86/stress-lock-2", "two processors: every LOCKable form, aligned, in a line, across lines and pages, on a device", 2, stress::forms::define::<2>),
    stress("x86/stress-lock-4", "four processors: every LOCKable form, aligned, in a line, across lines and pages, on a device", 4, stress::forms::define::<4>),
    stress("x86/stress-locks-2", "two processors: ticket, XCHG, BTS and CMPXCHG locks, a stack by CMPXCHG16B", 2, stress::locks::define::<2>),
    stress("x86/stress-locks-4", "four processors: ticket, XCHG, BTS and CMPXCHG locks, a stack by CMPXCHG16B", 4, stress::locks::define::<4>),
    stress("x86/stress-tear-2", "two processors: loads and stores of 2 to 16 bytes are whole", 2, stress::tear::define::<2>),
    stress("x86/stress-tear-4", "four processors: loads and stores of 2 to 16 bytes are whole", 4, stress::tear::define::<4>),
    strict("x86/stress-litmus-2", "two processors: MP, SB, LB, 2+2W, CoRR, with and without fences", 2, stress::litmus::define::<2>),
    strict("x86/stress-litmus-4", "four processors: MP, SB, LB, 2+2W, CoRR, IRIW, with and without fences", 4, stress::litmus::define::<4>),
    stress("x86/stress-shootdown-2", "two processors: pages remapped while in use; INVLPG, CR3, INVPCID by IPI", 2, stress::remote::shootdown::<2>),
    stress("x86/stress-shootdown-4", "four processors: pages remapped while in use; INVLPG, CR3, INVPCID by IPI", 4, stress::remote::shootdown::<4>),
    strict("x86/stress-code-2", "two processors: code patched while in use; IPI, CPUID", 2, stress::remote::code::<2>),
    strict("x86/stress-code-4", "four processors: code patched while in use; IPI, CPUID", 4, stress::remote::code::<4>),
    stress("x86/stress-ipi-2", "two processors: fixed, lowest priority, broadcast IPIs, NMIs, HLT, INIT and start-up", 2, stress::ipi::define::<2>),
    stress("x86/stress-ipi-4", "four processors: fixed, lowest priority, broadcast IPIs, NMIs, HLT, INIT and start-up", 4, stress::ipi::define::<4>),
];
