//! Zicntr and Zihpm. Source: Unprivileged ISA, "Zicntr and Zihpm"; Privileged ISA, `mcounteren`,
//! `scounteren`, `mcountinhibit`, "Hardware Performance Monitor".

use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Mode, Suite, rv};

pub(super) fn define(s: &mut Suite) {
    gates(s);
    running(s);
    hpm(s);
}

/// mcounteren rules S and U, scounteren rules U as well.
fn gates(s: &mut Suite) {
    for (bit, name) in [(0u32, "cycle"), (1, "time"), (2, "instret")] {
        let read = raw::csr(2, A0, 0xc00 + bit, 0);
        for (m, u) in [(0u64, 0u64), (1, 0), (0, 1), (1, 1)] {
            for mode in [Mode::M, Mode::S, Mode::U] {
                let ok = match mode {
                    Mode::M => true,
                    Mode::S => m == 1,
                    Mode::U => m == 1 && u == 1,
                };
                let what = format!("{name} in {mode:?}, mcounteren {m}, scounteren {u}: {ok}");
                // The other bits are set where this one is clear, and the reverse.
                s.li(T5, if m == 1 { 1 << bit } else { 7 & !(1 << bit) });
                s.li(T6, if u == 1 { 1 << bit } else { 7 & !(1 << bit) });
                rv!(s; csrw mcounteren, t5; csrw scounteren, t6);
                if ok {
                    s.case(&what);
                    s.in_mode_or_machine(mode, |s| s.word(read));
                } else {
                    s.illegal_in(mode, &what, read);
                }
            }
        }
    }
    rv!(s; csrwi mcounteren, 7; csrwi scounteren, 7);
}

/// Exact instret. QEMU 10.0.2 counts host time there unless it runs with `-icount`, and has 16 of the
/// 29 further counters.
pub(super) fn define_exact(s: &mut Suite) {
    s.case("instret counts instructions: the difference of two reads is their distance");
    rv!(s; csrr a0, instret; csrr a1, instret; sub a1, a1, a0);
    s.check(A1, 1);
    rv!(s; csrr a0, minstret; nop; nop; nop; c.nop; c.nop; csrr a1, minstret; sub a1, a1, a0);
    s.check(A1, 6);
    s.case("instret over a loop");
    rv!(s; li.12 a2, 100; csrr a0, instret; again:; addi a2, a2, -1; bnez a2, <again);
    rv!(s; csrr a1, instret; sub a1, a1, a0);
    s.check(A1, 201);
    s.case("a write to minstret is seen by the next instruction");
    rv!(s; li.12 a0, 1000; csrw minstret, a0; csrr a1, minstret; nop; csrr a2, minstret);
    s.check(A1, 1000);
    s.check(A2, 1002);
    s.case("a trapping instruction does not retire");
    let resume = s.arm();
    rv!(s; csrr a0, minstret);
    s.word(0xffff_ffff);
    rv!(s; =>resume; csrr a1, minstret; sub a1, a1, a0);
    let resume = s.arm();
    rv!(s; csrr a0, minstret; nop);
    s.word(0xffff_ffff);
    rv!(s; =>resume; csrr a2, minstret; sub a2, a2, a0; sub a2, a2, a1);
    s.check(A2, 1);
    s.case("the read itself and 15 instructions of the handler retire up to the label");
    s.check(A1, 16);
    s.case("minstret wraps");
    rv!(s; li.12 a0, -1; csrw minstret, a0; nop; csrr a1, minstret);
    s.check(A1, 0);
    rv!(s; csrw mcounteren, zero);
    hpm_range(s, 16..32);
}

fn running(s: &mut Suite) {
    s.case("mcountinhibit.IR stops minstret, and mcycle is stopped by CY");
    rv!(s
        ; csrwi mcountinhibit, 5
        ; csrr a0, minstret
        ; csrr a2, mcycle
        ; nop
        ; nop
        ; csrr a1, minstret
        ; csrr a3, mcycle
        ; csrwi mcountinhibit, 0
        ; sub a1, a1, a0
        ; sub a3, a3, a2
    );
    s.check(A1, 0);
    s.check(A3, 0);
    s.case("cycle advances");
    rv!(s; csrr a0, cycle; nop; nop; csrr a1, cycle; sltu a1, a0, a1);
    s.check(A1, 1);
    s.case("mcycle is writable, 64 bits");
    s.li(A0, 0x1234_5678_0000_0000);
    rv!(s; csrw mcycle, a0; csrr a1, mcycle; srli a1, a1, 32);
    s.check(A1, 0x1234_5678);
    s.case("time does not run backwards");
    rv!(s; li.12 a2, 100; csrr a0, time; again:; csrr a1, time; bltu a1, a0, >bad; mv a0, a1);
    rv!(s; addi a2, a2, -1; bnez a2, <again; j >good; bad:);
    s.fail();
    rv!(s; good:);
}

/// Counters and events that no event drives: read-only zero, or holding what software writes.
fn hpm(s: &mut Suite) {
    rv!(s; csrw mcounteren, zero);
    hpm_range(s, 3..16);
}

fn hpm_range(s: &mut Suite, range: std::ops::Range<u32>) {
    for n in range {
        s.case(&format!("mhpmcounter{n} and mhpmevent{n} exist"));
        s.word(raw::csr(1, 0, 0xb00 + n, 0));
        s.word(raw::csr(1, 0, 0x320 + n, 0));
        s.word(raw::csr(2, A0, 0x320 + n, 0));
        s.check(A0, 0);
        s.word(raw::csr(2, A0, 0xb00 + n, 0));
        s.check(A0, 0);
        s.illegal_in(Mode::S, "hpmcounter without mcounteren", raw::csr(2, A0, 0xc00 + n, 0));
        s.illegal_in(Mode::M, "hpmcounter is read-only", raw::csr(1, 0, 0xc00 + n, A0));
    }
}
