//! Litmus tests of the memory model. Source: Unprivileged ISA, "RVWMO" and appendix "RVWMO Explanatory
//! Material"; names of the tests as there and in the literature (MP, SB, LB, CoRR, IRIW).
//!
//! Each hart walks through arrays of variables, so that a round is many tests without anything in
//! between. An outcome that the model forbids fails; one that it allows is only counted.

use super::{SHARED, barrier, count, end, random, rounds, start};
use crate::suite::reg::*;
use crate::suite::{Suite, rv};

/// Tests in a round.
const SLOTS: u64 = 128;
/// Variables x of a group of harts, a line each; y behind them; then the registers of each hart.
const X: u64 = SHARED;
const Y: u64 = X + 64 * SLOTS;
const RESULTS: u64 = Y + 64 * SLOTS;
const GROUP: u64 = 0x8000;

/// One hart's part: a1 = x, a2 = y, a4 = 1, results in a0 and a5.
type Part = fn(&mut Suite);
/// Registers of the checker that hold a0 and a5 of each hart.
const SEEN: [[u8; 2]; 4] = [[S2, S3], [S4, S5], [S6, S7], [S8, T4]];

struct Litmus {
    name: &'static str,
    parts: &'static [Part],
    /// Results (hart, 0 for a0 and 1 for a5, value) of the outcome in question.
    outcome: &'static [(usize, usize, u64)],
    /// Where the outcome is counted; forbidden without.
    counted: Option<u64>,
}

macro_rules! part {
    ($($t:tt)*) => { |s: &mut Suite| rv!(s; $($t)*) };
}

const MP: &[(usize, usize, u64)] = &[(1, 0, 1), (1, 1, 0)];
const SB: &[(usize, usize, u64)] = &[(0, 0, 0), (1, 0, 0)];
const LB: &[(usize, usize, u64)] = &[(0, 0, 1), (1, 0, 1)];
const IRIW: &[(usize, usize, u64)] = &[(2, 0, 1), (2, 1, 0), (3, 0, 1), (3, 1, 0)];
const STORE_X: Part = part!(sd a4, [a1]);
const STORE_Y: Part = part!(sd a4, [a2]);

static TESTS: &[Litmus] = &[
    Litmus {
        name: "MP",
        parts: &[part!(sd a4, [a1]; sd a4, [a2]), part!(ld a0, [a2]; ld a5, [a1])],
        outcome: MP,
        counted: Some(1),
    },
    Litmus {
        name: "MP with fences",
        parts: &[
            part!(sd a4, [a1]; fence w, w; sd a4, [a2]),
            part!(ld a0, [a2]; fence r, r; ld a5, [a1]),
        ],
        outcome: MP,
        counted: None,
    },
    Litmus {
        name: "MP with fence.tso",
        // fence.tso is fm=8, pred=succ=rw.
        parts: &[
            |s| {
                rv!(s; sd a4, [a1]);
                s.word(0x8330_000f);
                rv!(s; sd a4, [a2]);
            },
            |s| {
                rv!(s; ld a0, [a2]);
                s.word(0x8330_000f);
                rv!(s; ld a5, [a1]);
            },
        ],
        outcome: MP,
        counted: None,
    },
    Litmus {
        name: "MP with release and acquire",
        parts: &[
            part!(sd a4, [a1]; amoswap.d.rl x0, a4, [a2]),
            part!(lr.d.aq a0, [a2]; ld a5, [a1]),
        ],
        outcome: MP,
        counted: None,
    },
    Litmus {
        name: "MP with a fence and an address dependency",
        parts: &[
            part!(sd a4, [a1]; fence w, w; sd a4, [a2]),
            part!(ld a0, [a2]; xor t0, a0, a0; add t0, t0, a1; ld a5, [t0]),
        ],
        outcome: MP,
        counted: None,
    },
    Litmus {
        name: "SB",
        parts: &[part!(sd a4, [a1]; ld a0, [a2]), part!(sd a4, [a2]; ld a0, [a1])],
        outcome: SB,
        counted: Some(2),
    },
    Litmus {
        name: "SB with fences",
        parts: &[
            part!(sd a4, [a1]; fence rw, rw; ld a0, [a2]),
            part!(sd a4, [a2]; fence w, r; ld a0, [a1]),
        ],
        outcome: SB,
        counted: None,
    },
    Litmus {
        name: "SB with amoswap.aqrl and amoor.aqrl",
        parts: &[
            part!(amoswap.d.aqrl x0, a4, [a1]; amoor.d.aqrl a0, x0, [a2]),
            part!(amoswap.d.aqrl x0, a4, [a2]; amoor.d.aqrl a0, x0, [a1]),
        ],
        outcome: SB,
        counted: None,
    },
    Litmus {
        name: "LB",
        parts: &[part!(ld a0, [a1]; sd a4, [a2]), part!(ld a0, [a2]; sd a4, [a1])],
        outcome: LB,
        counted: Some(3),
    },
    Litmus {
        name: "LB with fences",
        parts: &[
            part!(ld a0, [a1]; fence r, w; sd a4, [a2]),
            part!(ld a0, [a2]; fence r, w; sd a4, [a1]),
        ],
        outcome: LB,
        counted: None,
    },
    Litmus {
        name: "LB with data dependencies",
        parts: &[
            part!(ld a0, [a1]; xor t0, a0, a0; addi t0, t0, 1; sd t0, [a2]),
            part!(ld a0, [a2]; xor t0, a0, a0; addi t0, t0, 1; sd t0, [a1]),
        ],
        outcome: LB,
        counted: None,
    },
    Litmus {
        name: "CoRR",
        parts: &[STORE_X, part!(ld a0, [a1]; ld a5, [a1])],
        outcome: MP,
        counted: None,
    },
    Litmus {
        name: "IRIW",
        parts: &[
            STORE_X,
            STORE_Y,
            part!(ld a0, [a1]; ld a5, [a2]),
            part!(ld a0, [a2]; ld a5, [a1]),
        ],
        outcome: IRIW,
        counted: Some(4),
    },
    Litmus {
        name: "IRIW with fences",
        parts: &[
            STORE_X,
            STORE_Y,
            part!(ld a0, [a1]; fence r, r; ld a5, [a2]),
            part!(ld a0, [a2]; fence r, r; ld a5, [a1]),
        ],
        outcome: IRIW,
        counted: None,
    },
];

/// `base` of the hart's group.
fn group(s: &mut Suite, rd: u8, base: u64, size: usize) {
    s.li(rd, base);
    rv!(s; srli t5, s0, size.trailing_zeros());
    s.li(T6, GROUP);
    rv!(s; mul t5, t5, t6; add X(rd), X(rd), t5);
}

fn test(s: &mut Suite, harts: u64, litmus: &Litmus) {
    let size = litmus.parts.len();
    s.case(litmus.name);
    // Clear what the last test left; the first hart of a group x, the second y.
    group(s, A1, X, size);
    rv!(s; andi t0, s0, size as i32 - 1; li.12 t1, 2; bgeu t0, t1, >clean);
    s.li(T1, 64 * SLOTS);
    rv!(s; mul t0, t0, t1; add a1, a1, t0; add t1, t1, a1);
    rv!(s; clear:; sd zero, [a1]; addi a1, a1, 64; bltu a1, t1, <clear; clean:);
    barrier(s, harts);
    // Nobody starts at quite the same time.
    random(s);
    rv!(s; andi t0, s9, 63; late:; addi t0, t0, -1; bgez t0, <late; li.12 a4, 1);
    group(s, A1, X, size);
    group(s, A2, Y, size);
    group(s, A6, RESULTS, size);
    rv!(s; andi t0, s0, size as i32 - 1; slli t1, t0, 11; add a6, a6, t1);
    let done = s.label();
    for (role, part) in litmus.parts.iter().enumerate() {
        let next = s.label();
        rv!(s; li.12 t1, role as i32; bne t0, t1, =>next);
        s.li(A3, SLOTS);
        rv!(s; slot:; li.12 a0, 0; li.12 a5, 0);
        part(s);
        rv!(s
            ; sd a0, [a6]
            ; sd a5, [a6, 8]
            ; addi a1, a1, 64
            ; addi a2, a2, 64
            ; addi a6, a6, 16
            ; addi a3, a3, -1
            ; beqz a3, =>done
            ; j <slot
            ; =>next
        );
        // `t0` survives only on the harts that go on looking for their part.
    }
    rv!(s; =>done);
    barrier(s, harts);
    // The first hart of the group checks.
    let checked = s.label();
    rv!(s; andi t0, s0, size as i32 - 1; beqz t0, >first; j =>checked; first:);
    group(s, A1, RESULTS, size);
    s.li(A3, SLOTS);
    let (slot, weak, next) = (s.label(), s.label(), s.label());
    rv!(s; =>slot; li.12 t0, 0; mv a2, a1);
    s.li(T1, 2048);
    for seen in SEEN.iter().take(size) {
        let [first, second] = *seen;
        rv!(s
            ; ld X(first), [a2]
            ; ld X(second), [a2, 8]
            ; or t0, t0, X(first)
            ; or t0, t0, X(second)
            ; add a2, a2, t1
        );
    }
    rv!(s; li.12 t1, 1; bleu t0, t1, >sane);
    s.fail();
    rv!(s; sane:);
    for &(hart, which, value) in litmus.outcome {
        rv!(s; li.12 t1, value as i32; bne X(SEEN[hart][which]), t1, =>next);
    }
    rv!(s; =>weak);
    match litmus.counted {
        Some(index) => count(s, index),
        None => s.fail(),
    }
    rv!(s; =>next; addi a1, a1, 16; addi a3, a3, -1; beqz a3, =>checked; j =>slot; =>checked);
    barrier(s, harts);
}

pub(in crate::rv64) fn define<const HARTS: u64>(s: &mut Suite) {
    start(s, HARTS);
    rounds(s, HARTS, |s| {
        for litmus in TESTS.iter().filter(|litmus| litmus.parts.len() as u64 <= HARTS) {
            test(s, HARTS, litmus);
        }
    });
    end(s);
}
