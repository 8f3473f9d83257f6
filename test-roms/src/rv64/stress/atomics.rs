//! Counters and locks. Source: Unprivileged ISA, "A" Extension: AMOs and LR/SC pairs are atomic; "RVWMO":
//! acquire and release order what they protect.

use super::{SHARED, barrier, end, hart_zero, own_line, random, repeat, rounds, start};
use crate::suite::reg::*;
use crate::suite::{Suite, rv};

/// Operations of each kind that a hart does in a round.
const WORK: u64 = 64;
/// The variables, each in a line of its own.
const VAR: u64 = SHARED;
/// What each hart contributed: a line for each hart, 0x100 for each variable.
const PART: u64 = SHARED + 0x4000;

/// What the harts feed to an AMO.
#[derive(Clone, Copy)]
enum Operand {
    Any,
    OneBit,
    AllButOneBit,
}

/// An AMO `a0 = op(a2, [a1])`, and the instruction that does the same to s2 and a2, which gives the
/// result whatever the order was.
struct Op {
    name: &'static str,
    initial: u64,
    operand: Operand,
    amo: fn(&mut Suite),
    fold: fn(&mut Suite, u8, u8),
}

macro_rules! op {
    ($name:literal, $initial:expr, $operand:ident, $fold:ident; $($amo:tt)*) => {
        Op {
            name: $name,
            initial: $initial,
            operand: Operand::$operand,
            amo: |s| rv!(s; $($amo)*),
            fold: |s, rd, rs| rv!(s; $fold X(rd), X(rd), X(rs)),
        }
    };
}

/// Doublewords first, words from index 9 on.
static OPS: [Op; 16] = [
    op!("amoadd.d", 0, Any, add; amoadd.d a0, a2, [a1]),
    op!("amoxor.d", 0, Any, xor; amoxor.d.aq a0, a2, [a1]),
    op!("amoor.d", 0, OneBit, or; amoor.d.rl a0, a2, [a1]),
    op!("amoand.d", u64::MAX, AllButOneBit, and; amoand.d a0, a2, [a1]),
    op!("amomin.d", 0, Any, min; amomin.d a0, a2, [a1]),
    op!("amomax.d", 0, Any, max; amomax.d.aqrl a0, a2, [a1]),
    op!("amominu.d", u64::MAX, Any, minu; amominu.d a0, a2, [a1]),
    op!("amomaxu.d", 0, Any, maxu; amomaxu.d a0, a2, [a1]),
    op!("amoadd.w", 0, Any, add; amoadd.w.aqrl a0, a2, [a1]),
    op!("amoxor.w", 0, Any, xor; amoxor.w a0, a2, [a1]),
    op!("amoor.w", 0, OneBit, or; amoor.w a0, a2, [a1]),
    op!("amoand.w", u64::MAX, AllButOneBit, and; amoand.w.rl a0, a2, [a1]),
    op!("amomin.w", 0, Any, min; amomin.w a0, a2, [a1]),
    op!("amomax.w", 0, Any, max; amomax.w a0, a2, [a1]),
    op!("amominu.w", u64::MAX, Any, minu; amominu.w.aq a0, a2, [a1]),
    op!("amomaxu.w", 0, Any, maxu; amomaxu.w a0, a2, [a1]),
];
const FIRST_WORD: usize = 8;

/// Variable of an AMO. The words share doublewords: `amoadd.w` and `amoxor.w` one, and so on.
fn var(index: usize) -> u64 {
    if index < FIRST_WORD {
        VAR + 64 * index as u64
    } else {
        let word = (index - FIRST_WORD) as u64;
        VAR + 64 * (FIRST_WORD as u64 + word / 2) + 4 * (word % 2)
    }
}

const COUNTER: u64 = VAR + 0x800;
const WORD_COUNTER: u64 = VAR + 0x840;
const HALVES: u64 = VAR + 0x880;
const TICKETS: u64 = VAR + 0x8c0;
const SWAPPED: u64 = VAR + 0x900;
const SWAPPED_WORD: u64 = VAR + 0x940;
const PARTS_OF_TICKETS: u64 = PART + 0x1000;
const PARTS_OF_SWAPS: u64 = PART + 0x1100;
const PARTS_OF_WORD_SWAPS: u64 = PART + 0x1200;

/// Leaves s2 as the hart's part of a sum.
fn publish(s: &mut Suite, base: u64) {
    own_line(s, A1, base);
    rv!(s; sd s2, [a1]);
}

/// Folds the parts of all harts into s2.
fn fold_parts(s: &mut Suite, harts: u64, base: u64, fold: fn(&mut Suite, u8, u8)) {
    for hart in 0..harts {
        s.li(A1, base + 64 * hart);
        rv!(s; ld a0, [a1]);
        fold(s, S2, A0);
    }
}

pub(in crate::rv64) fn amo<const HARTS: u64>(s: &mut Suite) {
    start(s, HARTS);
    rounds(s, HARTS, |s| {
        hart_zero(s, HARTS, |s| {
            for (index, op) in OPS.iter().enumerate() {
                s.li(A1, var(index));
                s.li(A0, op.initial);
                if index < FIRST_WORD {
                    rv!(s; sd a0, [a1]);
                } else {
                    rv!(s; sw a0, [a1]);
                }
            }
            for at in [TICKETS, SWAPPED, SWAPPED_WORD] {
                s.li(A1, at);
                rv!(s; sd zero, [a1]);
            }
        });
        for (index, op) in OPS.iter().enumerate() {
            s.li(A1, var(index));
            s.li(S2, op.initial);
            repeat(s, A3, WORK, |s| {
                random(s);
                match op.operand {
                    Operand::Any => rv!(s; mv a2, s9),
                    Operand::OneBit => rv!(s; li.12 a2, 1; sll a2, a2, s9),
                    Operand::AllButOneBit => rv!(s; li.12 a2, 1; sll a2, a2, s9; not a2, a2),
                }
                if index >= FIRST_WORD {
                    rv!(s; sext.w a2, a2);
                }
                (op.amo)(s);
                (op.fold)(s, S2, A2);
            });
            publish(s, PART + 0x100 * index as u64);
        }
        tickets_and_swaps(s);
        barrier(s, HARTS);
        for (index, op) in OPS.iter().enumerate() {
            s.case(&format!("{} loses nothing", op.name));
            s.li(S2, op.initial);
            fold_parts(s, HARTS, PART + 0x100 * index as u64, op.fold);
            s.li(A1, var(index));
            if index < FIRST_WORD {
                rv!(s; ld a2, [a1]);
            } else {
                rv!(s; sext.w s2, s2; lw a2, [a1]);
            }
            s.check_eq(A2, S2);
        }
        s.case("amoadd.d returns every value once");
        let all = HARTS * WORK;
        s.check_mem(TICKETS, all);
        rv!(s; li.12 s2, 0);
        fold_parts(s, HARTS, PARTS_OF_TICKETS, |s, rd, rs| rv!(s; add X(rd), X(rd), X(rs)));
        s.check(S2, all * (all - 1) / 2);
        for (name, at, parts) in [
            ("amoswap.d", SWAPPED, PARTS_OF_SWAPS),
            ("amoswap.w", SWAPPED_WORD, PARTS_OF_WORD_SWAPS),
        ] {
            s.case(&format!("{name} returns every value once but the last"));
            rv!(s; li.12 s2, 0);
            fold_parts(s, HARTS, parts, |s, rd, rs| rv!(s; add X(rd), X(rd), X(rs)));
            s.li(A1, at);
            if at == SWAPPED {
                rv!(s; ld a0, [a1]);
            } else {
                rv!(s; lw a0, [a1]; sext.w s2, s2);
            }
            s.check_eq(A0, S2);
        }
    });
    end(s);
}

/// Operations whose results say more than what they leave in memory.
fn tickets_and_swaps(s: &mut Suite) {
    s.li(A1, TICKETS);
    rv!(s; li.12 s2, 0; li.12 a2, 1);
    repeat(s, A3, WORK, |s| rv!(s; amoadd.d a0, a2, [a1]; add s2, s2, a0));
    publish(s, PARTS_OF_TICKETS);
    // Into the sum what went in, out of it what came out: what remains is the last value.
    for (at, parts) in [(SWAPPED, PARTS_OF_SWAPS), (SWAPPED_WORD, PARTS_OF_WORD_SWAPS)] {
        s.li(A1, at);
        rv!(s; li.12 s2, 0);
        repeat(s, A3, WORK, |s| {
            random(s);
            if at == SWAPPED {
                rv!(s; mv a2, s9; amoswap.d a0, a2, [a1]);
            } else {
                rv!(s; sext.w a2, s9; amoswap.w a0, a2, [a1]);
            }
            rv!(s; add s2, s2, a2; sub s2, s2, a0);
        });
        publish(s, parts);
    }
}

pub(in crate::rv64) fn lrsc<const HARTS: u64>(s: &mut Suite) {
    start(s, HARTS);
    rounds(s, HARTS, |s| {
        hart_zero(s, HARTS, |s| {
            for at in [COUNTER, WORD_COUNTER, HALVES] {
                s.li(A1, at);
                rv!(s; sd zero, [a1]);
            }
        });
        s.li(A1, COUNTER);
        s.li(A2, WORD_COUNTER);
        s.li(A5, HALVES);
        rv!(s; li.12 a6, 1);
        repeat(s, A3, 4 * WORK, |s| {
            rv!(s
                ; again:
                ; lr.d.aq a0, [a1]
                ; addi a0, a0, 1
                ; sc.d.rl a4, a0, [a1]
                ; bnez a4, <again
                ; again:
                ; lr.w a0, [a2]
                ; addi a0, a0, 1
                ; sc.w a4, a0, [a2]
                ; bnez a4, <again
                // The same word by an AMO; the word beside another that has LR/SC on it.
                ; amoadd.w x0, a6, [a2]
                ; amoadd.w x0, a6, [a5]
                ; addi t0, a5, 4
                ; again:
                ; lr.w a0, [t0]
                ; addi a0, a0, 1
                ; sc.w a4, a0, [t0]
                ; bnez a4, <again
            );
        });
        barrier(s, HARTS);
        let all = 4 * HARTS * WORK;
        s.case("lr.d and sc.d lose nothing");
        s.check_mem(COUNTER, all);
        s.case("lr.w, sc.w and amoadd.w on the same word lose nothing");
        s.check_mem(WORD_COUNTER, 2 * all);
        s.case("lr.w and sc.w beside amoadd.w on the other half lose nothing");
        s.check_mem(HALVES, all << 32 | all);
    });
    end(s);
}

/// What a lock protects: doublewords in this line, the next one, and another page.
const GUARDED: [i32; 3] = [0, 64, 0x700];

/// A critical section: plain loads and stores to the data at a2.
fn critical(s: &mut Suite) {
    let [first, second, third] = GUARDED;
    rv!(s
        ; ld t0, [a2, first]
        ; ld t1, [a2, second]
        ; ld t2, [a2, third]
        ; bne t0, t1, >torn
        ; bne t0, t2, >torn
        ; addi t0, t0, 1
        ; sd t0, [a2, third]
        ; sd t0, [a2, second]
        ; sd t0, [a2, first]
        ; j >whole
        ; torn:
    );
    s.fail();
    rv!(s; whole:);
}

pub(in crate::rv64) fn locks<const HARTS: u64>(s: &mut Suite) {
    const LOCK: u64 = VAR;
    const DATA: u64 = VAR + 0xc00;
    /// Acquires or releases the lock at a1.
    type Half = fn(&mut Suite);
    const KINDS: [(&str, Half, Half); 4] = [
        (
            "amoswap.w.aq and amoswap.w.rl",
            |s| {
                rv!(s; li.12 a4, 1; again:; amoswap.w.aq a0, a4, [a1]; beqz a0, >got; pause);
                rv!(s; j <again; got:);
            },
            |s| rv!(s; amoswap.w.rl x0, x0, [a1]),
        ),
        (
            "amoswap.d and fences",
            |s| {
                rv!(s; li.12 a4, 1; again:; amoswap.d a0, a4, [a1]; beqz a0, >got; pause);
                rv!(s; j <again; got:; fence r, rw);
            },
            |s| rv!(s; fence rw, w; sd zero, [a1]),
        ),
        (
            "lr.w.aq, sc.w and a fence",
            |s| {
                rv!(s; li.12 a4, 1; again:; lr.w.aq a0, [a1]; bnez a0, >busy; sc.w a0, a4, [a1]);
                rv!(s; beqz a0, >got; busy:; pause; j <again; got:);
            },
            |s| rv!(s; fence rw, w; sw zero, [a1]),
        ),
        (
            "tickets of amoadd.w",
            |s| {
                rv!(s; li.12 a4, 1; addi t0, a1, 4; amoadd.w a0, a4, [a1]; again:; lw t1, [t0]);
                rv!(s; beq t1, a0, >turn; pause; j <again; turn:; fence r, rw);
            },
            |s| rv!(s; fence rw, w; addi a0, a0, 1; sw a0, [a1, 4]),
        ),
    ];
    start(s, HARTS);
    rv!(s; li.12 s2, 0);
    rounds(s, HARTS, |s| {
        rv!(s; addi s2, s2, (HARTS * WORK) as i32);
        for (index, (name, acquire, release)) in KINDS.into_iter().enumerate() {
            s.case(&format!("a lock of {name}"));
            let (lock, data) = (LOCK + 64 * index as u64, DATA + 0x1000 * index as u64);
            s.li(A1, lock);
            s.li(A2, data);
            repeat(s, A3, WORK, |s| {
                acquire(s);
                critical(s);
                release(s);
            });
            barrier(s, HARTS);
            s.li(A1, data);
            for offset in GUARDED {
                rv!(s; ld t0, [a1, offset]);
                s.check_eq(T0, S2);
            }
        }
    });
    end(s);
}
