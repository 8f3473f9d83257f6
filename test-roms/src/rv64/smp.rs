//! Several harts on one memory. Source: Unprivileged ISA, "A" Extension and "RVWMO": AMOs and
//! LR/SC pairs are atomic, an acquire-release lock protects plain data, full fences order stores
//! before loads; CLINT software interrupts reach the hart they name.

use crate::raw;
use crate::suite::reg::*;
use crate::suite::{HARTS, SCRATCH, Suite, rv};

const ROUNDS: u64 = 2_000;
/// Variables, each in a 64-byte line of its own.
const BARRIER: u64 = SCRATCH;
const COUNTER: u64 = SCRATCH + 64;
const WORD: u64 = SCRATCH + 128;
const LOCK: u64 = SCRATCH + 192;
const DATA: u64 = SCRATCH + 256;
/// One line per hart.
const FLAGS: u64 = SCRATCH + 512;
const SEEN: u64 = SCRATCH + 1024;
const RING: u64 = SCRATCH + 2048;
const MSIP: u64 = 0x0200_0000;

/// All harts wait for each other. s1 counts arrivals so far.
fn barrier(s: &mut Suite) {
    s.li(T5, BARRIER);
    rv!(s
        ; li.12 t6, 1
        ; amoadd.d.aqrl x0, t6, [t5]
        ; addi s1, s1, HARTS as i32
        ; wait:
        ; pause
        ; ld t6, [t5]
        ; bltu t6, s1, <wait
        ; fence
    );
}

pub(super) fn define(s: &mut Suite) {
    let all = s.label();
    s.case("the other harts start");
    s.release(all, HARTS);
    rv!(s; =>all; csrr s0, mhartid; li.12 s1, 0);
    // Harts beyond those needed stay out of the way.
    s.li(T5, HARTS);
    let takes_part = s.label();
    rv!(s; bltu s0, t5, =>takes_part; stay:);
    s.word(raw::WFI);
    rv!(s; j <stay; =>takes_part);
    barrier(s);

    s.case("amoadd.d and amoadd.w lose nothing");
    s.li(A1, COUNTER);
    s.li(A2, WORD);
    s.li(A3, ROUNDS);
    rv!(s; li.12 a4, 1; add:; amoadd.d a0, a4, [a1]; amoadd.w a0, a4, [a2]; addi a3, a3, -1);
    rv!(s; bnez a3, <add);
    barrier(s);
    s.check_mem(COUNTER, HARTS * ROUNDS);
    s.check_mem(WORD, HARTS * ROUNDS);
    barrier(s);

    s.case("lr/sc lose nothing");
    s.li(A1, COUNTER);
    s.li(A2, WORD + 4);
    s.li(A3, ROUNDS);
    rv!(s
        ; round:
        ; lr.d a0, [a1]
        ; addi a0, a0, 1
        ; sc.d a4, a0, [a1]
        ; bnez a4, <round
        ; half:
        ; lr.w a0, [a2]
        ; addi a0, a0, 1
        ; sc.w a4, a0, [a2]
        ; bnez a4, <half
        ; addi a3, a3, -1
        ; bnez a3, <round
    );
    barrier(s);
    s.check_mem(COUNTER, 2 * HARTS * ROUNDS);
    s.check_mem(WORD, HARTS * ROUNDS << 32 | HARTS * ROUNDS);
    barrier(s);

    s.case("a lock of amoswap.w.aq and amoswap.w.rl protects plain loads and stores");
    s.li(A1, LOCK);
    s.li(A2, DATA);
    s.li(A3, ROUNDS);
    rv!(s
        ; li.12 a4, 1
        ; next:
        ; amoswap.w.aq a0, a4, [a1]
        ; bnez a0, <next
        ; ld t0, [a2]
        ; ld t1, [a2, 24]
        ; bne t0, t1, >torn
        ; addi t0, t0, 1
        ; sd t0, [a2]
        ; sd t0, [a2, 24]
        ; amoswap.w.rl x0, x0, [a1]
        ; addi a3, a3, -1
        ; bnez a3, <next
        ; j >whole
        ; torn:
    );
    s.fail();
    rv!(s; whole:);
    barrier(s);
    s.check_mem(DATA, HARTS * ROUNDS);
    barrier(s);

    // Harts 0 and 1: each stores its flag, fences, reads the other's. Both reading 0 is forbidden.
    s.case("store buffering with full fences");
    let (watch, done) = (s.label(), s.label());
    s.li(A3, 100);
    s.li(A1, FLAGS);
    s.li(A2, SEEN);
    rv!(s
        ; slli t0, s0, 6
        ; add s4, a1, t0
        ; add s5, a2, t0
        ; xori t0, s0, 1
        ; slli t0, t0, 6
        ; add s6, a1, t0
        ; add s7, a2, t0
        ; li.12 a4, 1
        ; round:
        ; sd zero, [s4]
    );
    barrier(s);
    rv!(s; sd a4, [s4]; fence rw, rw; ld a0, [s6]; sd a0, [s5]);
    barrier(s);
    rv!(s; li.12 t0, 2; bgeu s0, t0, =>watch; ld t1, [s7]; or t1, t1, a0; bnez t1, =>watch);
    s.fail();
    rv!(s; =>watch);
    barrier(s);
    rv!(s; addi a3, a3, -1; beqz a3, =>done; j <round; =>done);

    // A token goes round by msip: each hart waits for its own and passes it on.
    s.case("software interrupts go to the hart they name");
    s.li(A1, MSIP);
    s.li(A2, RING);
    s.li(A3, 40);
    let (first, turn, last) = (s.label(), s.label(), s.label());
    rv!(s
        ; slli t0, s0, 2
        ; add s4, a1, t0
        ; sw zero, [s4]
        ; addi t0, s0, 1
        ; andi t0, t0, HARTS as i32 - 1
        ; slli t0, t0, 2
        ; add s5, a1, t0
        ; li.12 a4, 1
    );
    // Every msip is clear before the first token.
    barrier(s);
    rv!(s
        ; beqz s0, =>first
        ; =>turn
        ; csrr t0, mip
        ; andi t0, t0, 8
        ; beqz t0, =>turn
        ; sw zero, [s4]
        ; clear:
        ; csrr t0, mip
        ; andi t0, t0, 8
        ; bnez t0, <clear
        ; =>first
        ; ld t0, [a2]
        ; addi t0, t0, 1
        ; sd t0, [a2]
        ; fence
        ; addi a3, a3, -1
        ; sw a4, [s5]
        ; bnez a3, =>turn
        ; =>last
    );
    barrier(s);
    s.check_mem(RING, HARTS * 40);
    barrier(s);
    let hart_zero = s.label();
    rv!(s; beqz s0, =>hart_zero; stay:);
    s.word(raw::WFI);
    rv!(s; j <stay; =>hart_zero);
}
