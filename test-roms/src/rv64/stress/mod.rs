//! Several harts against each other, round after round until the time given by the word `duration` is
//! over ([`crate::Rom::build_for`]).
//!
//! A round is work without any synchronisation but that under test, a barrier, and checks by every
//! hart. A hang is a failure too; it is for the runner to notice.
//!
//! Registers of a stress guest beside those of the framework: `s0` hart, `s1` arrivals at barriers so
//! far, `s9` random numbers, `s10` number of the round, `s11` when to end.

pub(super) mod atomics;
pub(super) mod ipi;
pub(super) mod litmus;
pub(super) mod remote;
pub(super) mod share;

use dynasmrt::DynamicLabel;

use crate::raw;
use crate::suite::reg::*;
use crate::suite::{COUNTS, DURATION, SCRATCH, Suite, rv};

/// Default duration in ticks of 100 ns: short, since every run of all ROMs runs these too.
const TICKS: u64 = 50_000;
/// Shared variables of the framework, each in a 64-byte line of its own.
const BARRIER: u64 = SCRATCH;
const GO_ON: u64 = SCRATCH + 64;
/// Where the variables of the guests begin.
const SHARED: u64 = SCRATCH + 0x1000;
/// The CLINT's `msip` of hart 0.
const MSIP: u64 = 0x0200_0000;

/// Releases the harts and lets each begin with an environment of its own.
fn start(s: &mut Suite, harts: u64) {
    let all = s.label();
    s.case("the harts start");
    s.lasts(TICKS);
    s.release(all, harts);
    rv!(s; =>all);
    s.reset_environment();
    rv!(s; csrr s0, mhartid; li.12 s1, 0; li.12 s10, 0; slli t5, s0, 2);
    s.li(T6, MSIP);
    rv!(s; add t5, t5, t6; sw zero, [t5]);
    s.li(S9, 0x9e37_79b9_7f4a_7c15);
    rv!(s; addi t5, s0, 1; mul s9, s9, t5);
    s.li(T5, DURATION);
    rv!(s; ld t5, [t5]; rdtime s11; add s11, s11, t5);
    barrier(s, harts);
}

/// All harts wait for each other.
fn barrier(s: &mut Suite, harts: u64) {
    s.li(T5, BARRIER);
    rv!(s
        ; li.12 t6, 1
        ; fence rw, rw
        ; amoadd.d.aqrl x0, t6, [t5]
        ; addi s1, s1, harts as i32
        ; wait:
        ; pause
        ; ld t6, [t5]
        ; bltu t6, s1, <wait
        ; fence rw, rw
    );
}

/// Runs rounds until hart 0 finds that the time is over.
fn rounds(s: &mut Suite, harts: u64, body: impl FnOnce(&mut Suite)) {
    let (again, decided, over) = (s.label(), s.label(), s.label());
    rv!(s; =>again);
    body(s);
    barrier(s, harts);
    s.li(T6, GO_ON);
    rv!(s; bnez s0, =>decided; rdtime t5; sltu t5, t5, s11; sd t5, [t6]; =>decided);
    barrier(s, harts);
    s.li(T6, GO_ON);
    rv!(s; addi s10, s10, 1; ld t5, [t6]; beqz t5, =>over; j =>again; =>over);
}

/// Hart 0 goes on to report, the others rest. In M-mode.
fn end(s: &mut Suite) {
    let hart_zero = s.label();
    s.li(T6, COUNTS);
    rv!(s; csrw mie, zero; bnez s0, >rest; sd s10, [t6]; j =>hart_zero; rest:; stay:);
    s.word(raw::WFI);
    rv!(s; j <stay; =>hart_zero);
}

/// The next random number (xorshift64, G. Marsaglia 2003) into s9.
fn random(s: &mut Suite) {
    rv!(s
        ; slli t5, s9, 13
        ; xor s9, s9, t5
        ; srli t5, s9, 7
        ; xor s9, s9, t5
        ; slli t5, s9, 17
        ; xor s9, s9, t5
    );
}

/// The hart's own line of an array of 64-byte lines.
fn own_line(s: &mut Suite, rd: u8, base: u64) {
    s.li(rd, base);
    rv!(s; slli t5, s0, 6; add X(rd), X(rd), t5);
}

/// `body` for every value of `counter` from `n` down to 1.
fn repeat(s: &mut Suite, counter: u8, n: u64, body: impl FnOnce(&mut Suite)) {
    s.li(counter, n);
    let (again, done) = (s.label(), s.label());
    rv!(s; =>again);
    body(s);
    rv!(s; addi X(counter), X(counter), -1; beqz X(counter), =>done; j =>again; =>done);
}

/// `body` on hart 0 alone, and a barrier.
fn hart_zero(s: &mut Suite, harts: u64, body: impl FnOnce(&mut Suite)) {
    let (zero, others) = (s.label(), s.label());
    rv!(s; beqz s0, =>zero; j =>others; =>zero);
    body(s);
    rv!(s; =>others);
    barrier(s, harts);
}

/// Adds 1 to one of the counts of the signature; count 0 is the number of rounds. Clobbers t5, t6.
fn count(s: &mut Suite, index: u64) {
    s.li(T5, COUNTS + 8 * index);
    rv!(s; li.12 t6, 1; amoadd.d x0, t6, [t5]);
}

/// A trap handler in M-mode that serves interrupts by `serve`, with `t0` to `t6` saved and `t6` pointing to
/// the hart's save area, and hands exceptions to the framework. Call before the harts need it; returns
/// the label for [`use_handler`].
fn handler(s: &mut Suite, serve: impl FnOnce(&mut Suite)) -> DynamicLabel {
    let (entry, past, exception) = (s.label(), s.label(), s.label());
    rv!(s; j =>past);
    s.align(64);
    rv!(s
        ; =>entry
        ; csrrw t6, mscratch, t6
        ; sd t5, [t6, 128]
        ; csrr t5, mscratch
        ; sd t5, [t6, 136]
        ; csrw mscratch, t6
        ; csrr t5, mcause
        ; bgez t5, =>exception
        ; sd t0, [t6, 144]
        ; sd t1, [t6, 152]
        ; sd t2, [t6, 160]
        ; sd t3, [t6, 168]
        ; sd t4, [t6, 176]
    );
    serve(s);
    rv!(s
        ; csrr t6, mscratch
        ; ld t0, [t6, 144]
        ; ld t1, [t6, 152]
        ; ld t2, [t6, 160]
        ; ld t3, [t6, 168]
        ; ld t4, [t6, 176]
        ; ld t5, [t6, 128]
        ; ld t6, [t6, 136]
    );
    s.word(raw::MRET);
    let framework = s.m_handler();
    rv!(s; =>exception; la t5, =>framework; jr t5; =>past);
    entry
}

/// The save areas of [`handler`], 256 bytes for each hart. The framework's trap record lies at the
/// beginning of each: its zero says that no exception is expected.
const SAVED: u64 = SCRATCH + 0x100;

/// Lets traps go to a [`handler`].
fn use_handler(s: &mut Suite, entry: DynamicLabel) {
    s.li(T6, SAVED);
    rv!(s; slli t5, s0, 8; add t6, t6, t5; csrw mscratch, t6; la t5, =>entry; csrw mtvec, t5);
}
