//! A process in U-mode under Sv39 with a small kernel in S-mode.

use dynasmrt::DynamicLabel;

use super::page::{ALL, G, Space, U, leaf};
use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Mode, SCRATCH, Suite, TEXT, rv};

/// Where U-mode sees [`TEXT`], and [`SCRATCH`] at the same distance from it.
const USER: u64 = 0x10_0000_0000;
/// Where U-mode sees [`SCRATCH`].
pub(super) const USER_SCRATCH: u64 = USER + (SCRATCH - TEXT);
/// `scause` of an `ecall` from U-mode.
pub(super) const ECALL: u64 = 8;
/// `sstatus.SPP`.
const SPP: u64 = 1 << 8;

/// A tree with a kernel that is in every address space and the user's view of code and memory.
pub(super) fn process(s: &mut Suite) -> Space {
    let space = Space::new(s, 3);
    space.map(s, 0x8000_0000, 2, leaf(0x8000_0000, ALL | G));
    space.map(s, USER, 1, leaf(TEXT, ALL | U));
    space.map(s, USER_SCRATCH, 1, leaf(SCRATCH, ALL | U));
    space
}

/// Runs `user` in U-mode until `kernel`, which gets the exceptions of these causes in S-mode, goes to the label
/// it is given. That must be because of an `ecall`.
pub(super) fn run(
    s: &mut Suite,
    space: Space,
    causes: &[u64],
    kernel: impl FnOnce(&mut Suite, DynamicLabel),
    user: impl FnOnce(&mut Suite),
) {
    s.li(T5, causes.iter().map(|cause| 1 << cause).sum());
    rv!(s; csrw medeleg, t5);
    space.enable(s, 1);
    s.in_mode(Mode::S, |s| {
        let (go, handler, start, done) = (s.label(), s.label(), s.label(), s.label());
        rv!(s; j =>go);
        s.align(64);
        rv!(s; =>handler);
        kernel(s, done);
        s.align(64);
        rv!(s; =>start);
        user(s);
        rv!(s; ecall; =>go; la t0, =>handler; csrw stvec, t0; la t0, =>start);
        s.li(T1, USER - TEXT);
        rv!(s; add t0, t0, t1; csrw sepc, t0);
        s.li(T1, SPP);
        rv!(s; csrc sstatus, t1);
        s.word(raw::SRET);
        rv!(s; =>done; csrr a3, scause);
        s.check(A3, ECALL);
    });
    s.reset_environment();
}
