//! Storms of software interrupts and timers. Source: Privileged ISA, "Machine Timer (mtime and
//! mtimecmp)", "Wait for Interrupt"; the CLINT's registers as in SiFive's manuals.

use super::{
    MSIP, SHARED, barrier, count, end, handler, own_line, random, repeat, rounds, start,
    use_handler,
};
use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Suite, rv};

/// Messages that a hart sends in a round.
const WORK: u64 = 32;
/// A line for each sender, a doubleword for each receiver: messages sent.
const SENT: u64 = SHARED;
/// From there, in the same form: messages received.
const RECEIVED: i32 = 0x100;
/// A line for each hart: timer interrupts taken, and when the next is due.
const TIMERS: u64 = SHARED + 0x200;
const LAST_TIME: u64 = SHARED + 0x300;
const MTIMECMP: u64 = MSIP + 0x4000;
const MTIME: u64 = MSIP + 0xbff8;

/// Arms the hart's timer for 5 to 105 us from now. Clobbers t0 to t2, t5.
fn arm(s: &mut Suite) {
    random(s);
    own_line(s, T0, TIMERS);
    s.li(T2, MTIMECMP);
    rv!(s; slli t1, s0, 3; add t2, t2, t1; andi t1, s9, 1023; addi t1, t1, 50);
    s.li(T5, MTIME);
    rv!(s; ld t5, [t5]; add t1, t1, t5; sd t1, [t0, 8]; sd t1, [t2]);
}

fn serve(s: &mut Suite, harts: u64) {
    let (timer, served) = (s.label(), s.label());
    rv!(s; slli t5, t5, 1; srli t5, t5, 1; li.12 t0, 7; beq t5, t0, =>timer);
    s.li(T0, MSIP);
    rv!(s; slli t1, s0, 2; add t0, t0, t1; sw zero, [t0]; fence iorw, iorw);
    for hart in 0..harts {
        // What is new is received and answered; an answer is only a wake-up.
        let old = s.label();
        s.li(T0, SENT + 64 * hart);
        rv!(s; slli t1, s0, 3; add t0, t0, t1; ld t2, [t0]; ld t3, [t0, RECEIVED]; beq t2, t3, =>old);
        rv!(s; sd t2, [t0, RECEIVED]; fence rw, rw; fence w, o);
        s.li(T0, MSIP + 4 * hart);
        rv!(s; li.12 t1, 1; sw t1, [t0]; =>old);
    }
    rv!(s; j =>served; =>timer);
    own_line(s, T0, TIMERS);
    rv!(s; ld t1, [t0]; addi t1, t1, 1; sd t1, [t0]; ld t1, [t0, 8]);
    s.li(T2, MTIME);
    // An interrupt before its time: the line may fall late after a write to mtimecmp, but not for long.
    rv!(s; ld t2, [t2]; bgeu t2, t1, >due);
    count(s, 2);
    rv!(s; due:);
    count(s, 1);
    arm(s);
    rv!(s; =>served);
}

/// Waits until the message to hart s2 is received: a1 points to its number, a2 is that. By `wfi` if s3 is
/// odd. Interrupts are off where it decides to sleep, so that no wake-up can be missed.
fn wait(s: &mut Suite) {
    let (again, spin, done) = (s.label(), s.label(), s.label());
    rv!(s; =>again; csrci mstatus, 8; ld a0, [a1, RECEIVED]; beq a0, a2, =>done; andi t0, s3, 1; beqz t0, =>spin);
    s.word(raw::WFI);
    rv!(s; =>spin; csrsi mstatus, 8; pause; j =>again; =>done; csrsi mstatus, 8);
}

pub(in crate::rv64) fn define<const HARTS: u64>(s: &mut Suite) {
    start(s, HARTS);
    let entry = handler(s, |s| serve(s, HARTS));
    use_handler(s, entry);
    s.li(T0, MTIMECMP);
    rv!(s; slli t1, s0, 3; add t0, t0, t1; li.12 t1, -1; sd t1, [t0]);
    barrier(s, HARTS);
    s.li(T0, 0x88);
    rv!(s; csrw mie, t0; csrsi mstatus, 8);
    rounds(s, HARTS, |s| {
        // Timers run in every second round: in the others nothing covers up a lost wake-up.
        s.case("no timer fires that is not armed");
        own_line(s, T0, TIMERS);
        let (storm, armed) = (s.label(), s.label());
        rv!(s; ld s4, [t0]; andi t0, s10, 1; beqz t0, =>storm; csrci mstatus, 8);
        arm(s);
        rv!(s; csrsi mstatus, 8; =>storm);
        s.case("software interrupts are neither lost nor late for ever");
        repeat(s, S6, WORK, |s| {
            // Any hart but this one.
            rv!(s; csrci mstatus, 8);
            random(s);
            rv!(s; csrsi mstatus, 8; srli s2, s9, 7; li.12 t0, HARTS as i32 - 1; remu s2, s2, t0);
            rv!(s; addi s2, s2, 1; add s2, s2, s0; andi s2, s2, HARTS as i32 - 1; srli s3, s9, 20);
            s.li(A1, SENT);
            rv!(s; slli t0, s0, 6; add a1, a1, t0; slli t0, s2, 3; add a1, a1, t0; ld a2, [a1]);
            rv!(s; addi a2, a2, 1; sd a2, [a1]; fence rw, rw; fence w, o);
            s.li(T0, MSIP);
            rv!(s; slli t1, s2, 2; add t0, t0, t1; li.12 t1, 1; sw t1, [t0]);
            wait(s);
        });
        s.case("mtime never goes back between harts");
        s.li(A1, LAST_TIME);
        s.li(A2, MTIME);
        rv!(s; ld a0, [a1]; fence rw, ir; rdtime a3; ld a4, [a2]; bleu a0, a3, >right);
        s.fail();
        rv!(s; right:; bleu a0, a4, >right);
        s.fail();
        rv!(s; right:; amomaxu.d x0, a3, [a1]);
        s.case("the timer fires again and again");
        own_line(s, A1, TIMERS);
        let (idle, tick, asleep) = (s.label(), s.label(), s.label());
        rv!(s; andi t0, s10, 1; beqz t0, =>idle; addi s4, s4, 3);
        rv!(s; =>tick; csrci mstatus, 8; ld a0, [a1]; bgeu a0, s4, =>asleep);
        s.word(raw::WFI);
        rv!(s; csrsi mstatus, 8; j =>tick; =>asleep);
        // Off again, and nothing pending that could fire in the next round.
        s.li(T0, MTIMECMP);
        rv!(s; slli t1, s0, 3; add t0, t0, t1; li.12 t1, -1; sd t1, [t0]; gone:; csrr t1, mip);
        rv!(s; andi t1, t1, 0x80; bnez t1, <gone; csrsi mstatus, 8; j =>armed; =>idle);
        s.case("no timer fires that is not armed");
        rv!(s; ld a0, [a1]);
        s.check_eq(A0, S4);
        rv!(s; =>armed);
    });
    rv!(s; csrci mstatus, 8);
    end(s);
}
