//! Fences asked of other harts by software interrupts and acknowledged, as operating systems do it: after
//! the acknowledgements nobody may use the old translation or the old code any more; before, old and
//! new are right, and nothing else. Source: Privileged ISA, "Supervisor Memory-Management Fence
//! Instruction"; Unprivileged ISA, "Zifencei".
//!
//! Every hart changes things of its own and uses those of all others at the same time. A change is a
//! *generation*, announced in [`BEGUN`] before it and in [`ASKED`] after it; [`SEEN`] is the last one a
//! hart has acknowledged.

use super::{MSIP, SHARED, barrier, end, handler, random, repeat, rounds, start, use_handler};
use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Mode, Suite, rv};

/// Changes by each hart in a round.
const WORK: u64 = 8;
/// A line for each hart.
const BEGUN: u64 = SHARED;
const ASKED: u64 = SHARED + 0x100;
/// A line for each hart, in it a doubleword for each hart that answers.
const SEEN: u64 = SHARED + 0x200;

/// Serves requests with `fence`: t6 points to the save area.
fn serve(s: &mut Suite, harts: u64, fence: impl FnOnce(&mut Suite)) {
    s.li(T0, MSIP);
    rv!(s; csrr t1, mhartid; slli t2, t1, 2; add t0, t0, t2; sw zero, [t0]; fence iorw, iorw);
    for hart in 0..harts {
        s.li(T0, ASKED + 64 * hart);
        rv!(s; ld t2, [t0]; sd t2, [t6, 192 + 8 * hart as i32]);
    }
    fence(s);
    rv!(s; fence rw, rw; slli t1, t1, 3);
    for hart in 0..harts {
        s.li(T0, SEEN + 64 * hart);
        rv!(s; add t0, t0, t1; ld t2, [t6, 192 + 8 * hart as i32]; sd t2, [t0]);
    }
}

/// a2 = the generation that begins now.
fn begin(s: &mut Suite) {
    s.li(A1, BEGUN);
    rv!(s; slli t0, s0, 6; add a1, a1, t0; ld a2, [a1]; addi a2, a2, 1; sd a2, [a1]; fence rw, rw);
}

/// Asks all others for fences on behalf of generation a2 and waits for the acknowledgements.
fn ask(s: &mut Suite, harts: u64) {
    s.li(A1, ASKED);
    rv!(s; slli t0, s0, 6; add a1, a1, t0; fence rw, rw; sd a2, [a1]; fence rw, rw; fence w, o);
    let waiting = s.label();
    s.li(A1, MSIP);
    rv!(s; li.12 a0, 1; li.12 t1, 0; li.12 t2, harts as i32);
    rv!(s; next:; beq t1, s0, >me; sw a0, [a1]; me:; addi a1, a1, 4; addi t1, t1, 1; bne t1, t2, <next);
    s.li(A1, SEEN);
    rv!(s; add a1, a1, t0; li.12 t1, 0; =>waiting; beq t1, s0, >seen; wait:; pause; ld a0, [a1]);
    rv!(s; bne a0, a2, <wait; seen:; addi a1, a1, 8; addi t1, t1, 1; bne t1, t2, =>waiting);
    rv!(s; fence rw, rw);
}

/// s3 = the generation of hart s2 that this hart has acknowledged.
fn acknowledged(s: &mut Suite) {
    s.li(A1, SEEN);
    rv!(s; slli t0, s2, 6; add a1, a1, t0; slli t0, s0, 3; add a1, a1, t0; ld s3, [a1]);
}

/// s4 = the generation of hart s2 that has begun.
fn begun(s: &mut Suite) {
    s.li(A1, BEGUN);
    rv!(s; fence rw, rw; slli t0, s2, 6; add a1, a1, t0; ld s4, [a1]; sub s5, s4, s3);
}

/// `body` with s2 = every other hart.
fn others(s: &mut Suite, harts: u64, body: impl FnOnce(&mut Suite)) {
    let (again, skip, done) = (s.label(), s.label(), s.label());
    rv!(s; li.12 s2, 0; =>again; bne s2, s0, >other; j =>skip; other:);
    body(s);
    rv!(s; =>skip; addi s2, s2, 1; li.12 t0, harts as i32; beq s2, t0, =>done; j =>again; =>done);
}

// ---- code ----

/// Two pages of code for each hart.
const CODE: u64 = SHARED + 0x1_0000;
const CODE_BYTES: u64 = 0x2000;

/// One instruction of a hart's code that changes, `write`n from generation a2 to the address in a1; it
/// leaves the low `bits` of the generation in a0.
struct Site {
    name: &'static str,
    offset: u64,
    /// What stands there in generation 0, and what follows.
    bytes: &'static [u8],
    bits: u32,
    write: fn(&mut Suite),
}

/// `addi a0, zero, 0`.
const ADDI: u32 = 0x0000_0513;
/// `ret` in four bytes.
const RET: u32 = 0x0000_8067;
/// `jal zero, distance`.
const fn jump(distance: u32) -> u32 {
    (distance & 0x7fe) << 20 | 0x6f
}

static SITES: [Site; 4] = [
    Site {
        name: "a word",
        offset: 0x100,
        bytes: &[0x13, 5, 0, 0, 0x67, 0x80, 0, 0],
        bits: 11,
        write: |s| {
            s.li(T1, u64::from(ADDI));
            rv!(s; andi t0, a2, 0x7ff; slli t0, t0, 20; or t0, t0, t1; sw t0, [a1]);
        },
    },
    Site {
        name: "the half of a word beyond the end of a page",
        offset: 0xffe,
        bytes: &[0x13, 5, 0, 0, 0x67, 0x80, 0, 0],
        bits: 11,
        write: |s| rv!(s; andi t0, a2, 0x7ff; slli t0, t0, 4; sh t0, [a1, 2]),
    },
    Site {
        name: "a compressed instruction",
        offset: 0x202,
        // c.li a0, 0; c.jr ra
        bytes: &[0x01, 0x45, 0x82, 0x80],
        bits: 4,
        write: |s| {
            s.li(T1, 0x4501);
            rv!(s; andi t0, a2, 15; slli t0, t0, 2; or t0, t0, t1; sh t0, [a1]);
        },
    },
    Site {
        name: "a jump",
        offset: 0x300,
        bytes: &[],
        bits: 1,
        write: |s| {
            s.li(T0, u64::from(jump(0x80)));
            s.li(T1, u64::from(jump(0x100)));
            rv!(s; andi t2, a2, 1; beqz t2, >even; mv t0, t1; even:; sw t0, [a1]);
        },
    },
];
const JUMP_SITE: u64 = 0x300;

/// a1 = the code of the hart in `hart`.
fn code_of(s: &mut Suite, hart: u8) {
    s.li(A1, CODE);
    s.li(T0, CODE_BYTES);
    rv!(s; mul t0, t0, X(hart); add a1, a1, t0);
}

/// Calls a site of hart `hart`; a0 = what it leaves.
fn call(s: &mut Suite, hart: u8, site: &Site) {
    code_of(s, hart);
    s.li(T0, site.offset);
    rv!(s; add a1, a1, t0; li.12 a0, -1; jalr ra, a1, 0);
}

fn place(s: &mut Suite, offset: u64, bytes: &[u8]) {
    for (i, half) in bytes.chunks(2).enumerate() {
        code_of(s, S0);
        s.li(T0, offset + 2 * i as u64);
        rv!(s; add a1, a1, t0);
        s.li(T0, u64::from(u16::from_le_bytes([half[0], half[1]])));
        rv!(s; sh t0, [a1]);
    }
}

pub(in crate::rv64) fn fence_i<const HARTS: u64>(s: &mut Suite) {
    start(s, HARTS);
    let entry = handler(s, |s| serve(s, HARTS, |s| rv!(s; fence.i)));
    use_handler(s, entry);
    for site in &SITES {
        place(s, site.offset, site.bytes);
    }
    place(s, JUMP_SITE, &jump(0x80).to_le_bytes());
    for value in 0..2u32 {
        let code = [ADDI | value << 20, RET].map(u32::to_le_bytes);
        place(s, JUMP_SITE + 0x80 * (1 + u64::from(value)), code.as_flattened());
    }
    barrier(s, HARTS);
    rv!(s; fence.i; csrwi mie, 8; csrsi mstatus, 8);
    rounds(s, HARTS, |s| {
        repeat(s, S6, WORK, |s| {
            s.case("a hart's own new code after its own fence.i");
            begin(s);
            for site in &SITES {
                code_of(s, S0);
                s.li(T0, site.offset);
                rv!(s; add a1, a1, t0);
                (site.write)(s);
            }
            rv!(s; fence.i);
            for site in &SITES {
                call(s, S0, site);
                rv!(s; slli t0, a2, 64 - site.bits; srli t0, t0, 64 - site.bits);
                s.check_eq(A0, T0);
            }
            s.case("acknowledgements of remote fence.i");
            ask(s, HARTS);
            random(s);
            rv!(s; andi s7, s9, 3; addi s7, s7, 1);
            let again = s.label();
            rv!(s; =>again);
            others(s, HARTS, |s| {
                for site in &SITES {
                    s.case(&format!("{} patched by another hart is old or new", site.name));
                    acknowledged(s);
                    call(s, S2, site);
                    begun(s);
                    // Between the generation acknowledged before and the one begun by now.
                    let rest = 64 - site.bits;
                    rv!(s; sub t0, a0, s3; slli t0, t0, rest; srli t0, t0, rest; bleu t0, s5, >good);
                    s.fail();
                    rv!(s; good:; slli t1, a0, rest; srli t1, t1, rest; beq t1, a0, >whole);
                    s.fail();
                    rv!(s; whole:);
                }
            });
            rv!(s; addi s7, s7, -1; beqz s7, >done; j =>again; done:);
        });
    });
    rv!(s; csrci mstatus, 8);
    end(s);
}

// ---- translations ----

/// The page that a hart remaps, the code page it remaps along with it, and so on for each hart.
const WINDOW: u64 = 0x4000_0000;
/// Frames: for each hart two of data and two of code.
const FRAMES: u64 = SHARED + 0x2_0000;
const ROOT: u64 = SHARED + 0x4_0000;
const MIDDLE: u64 = ROOT + 0x1000;
const LEAVES: u64 = ROOT + 0x2000;
/// Permissions of an entry: valid, accessed, dirty, and 2 read, 4 write, 8 execute.
const fn entry(gpa: u64, rwx: u64) -> u64 {
    gpa >> 12 << 10 | 0xc1 | rwx
}
/// Where a frame holds its generation, twice, and where others write: a line for each hart.
const GENERATION: [i32; 2] = [0, 0x600];
const WRITTEN: i32 = 0x400;

/// a1 = the data frame of generation a2 of this hart, a5 = its code frame.
fn frames(s: &mut Suite) {
    s.li(A1, FRAMES);
    rv!(s; slli t0, s0, 14; add a1, a1, t0; andi t0, a2, 1; slli t0, t0, 12; add a1, a1, t0);
    s.li(T0, 0x2000);
    rv!(s; add a5, a1, t0);
}

/// Puts -1 where a frame of data is looked at.
fn poison(s: &mut Suite, harts: u64) {
    rv!(s; li.12 t0, -1);
    for offset in marks(harts) {
        rv!(s; sd t0, [a1, offset]);
    }
}

fn marks(harts: u64) -> impl Iterator<Item = i32> {
    GENERATION.into_iter().chain((0..harts as i32).map(|hart| WRITTEN + 64 * hart))
}

/// Maps the hart's window to the frames of generation a2.
fn map(s: &mut Suite) {
    frames(s);
    s.li(T1, LEAVES);
    rv!(s; slli t0, s0, 4; add t1, t1, t0);
    for (frame, rwx, slot) in [(A1, 6, 0), (A5, 10, 8)] {
        rv!(s; srli t0, X(frame), 12; slli t0, t0, 10; ori t0, t0, entry(0, rwx) as i32; sd t0, [t1, slot]);
    }
}

/// a1 = the window of the hart in `hart`.
fn window_of(s: &mut Suite, hart: u8) {
    s.li(A1, WINDOW);
    rv!(s; slli t0, X(hart), 13; add a1, a1, t0);
}

/// Fences for everything, for one address space, or for the windows' pages, in turn.
fn fence_in_turn(s: &mut Suite, harts: u64) {
    rv!(s; ld t2, [t6, 184]; addi t2, t2, 1; sd t2, [t6, 184]; andi t2, t2, 3);
    let (pages, space, done) = (s.label(), s.label(), s.label());
    rv!(s; beqz t2, =>pages; addi t2, t2, -1; beqz t2, =>space);
    s.word(raw::sfence_vma(0, 0));
    rv!(s; j =>done; =>space; li.12 t2, 1);
    s.word(raw::sfence_vma(0, 7));
    rv!(s; j =>done; =>pages);
    s.li(T2, WINDOW);
    s.li(T3, 0x1000);
    for _ in 0..2 * harts {
        s.word(raw::sfence_vma(7, 0));
        rv!(s; add t2, t2, t3);
    }
    rv!(s; =>done);
}

/// `satp` for these tables: Sv39, ASID 1.
const SATP: u64 = 8 << 60 | 1 << 44 | ROOT >> 12;

/// Tables and first frames; then the hart goes on in S-mode.
fn enter_translated(s: &mut Suite, harts: u64) {
    let tables: [(u64, u64); 4] = [
        (ROOT, entry(0, 6)),
        (ROOT + 8, MIDDLE >> 12 << 10 | 1),
        (ROOT + 16, entry(0x8000_0000, 14)),
        (MIDDLE, LEAVES >> 12 << 10 | 1),
    ];
    for (at, value) in tables {
        s.li(T0, at);
        s.li(T1, value);
        rv!(s; sd t1, [t0]);
    }
    for generation in 0..2 {
        rv!(s; li.12 a2, generation);
        frames(s);
        s.li(T0, u64::from(ADDI | (generation as u32) << 20));
        s.li(T1, u64::from(RET));
        rv!(s; sw t0, [a5]; sw t1, [a5, 4]);
    }
    poison(s, harts);
    rv!(s; li.12 a2, 0);
    map(s);
    barrier(s, harts);
    s.li(T0, SATP);
    rv!(s; csrw satp, t0; fence.i; csrwi mie, 8; li.12 t0, 2; csrw mcounteren, t0);
    s.word(raw::sfence_vma(0, 0));
    s.enter(Mode::S);
}

/// Back to M-mode by an `ecall`, which the hart's own trap record expects.
fn leave_translated(s: &mut Suite) {
    let back = s.label();
    s.li(T6, super::SAVED);
    rv!(s; slli t5, s0, 8; add t6, t6, t5; la t5, =>back; sd t5, [t6]; li.12 a7, 0; ecall; =>back);
}

pub(in crate::rv64) fn sfence<const HARTS: u64>(s: &mut Suite) {
    start(s, HARTS);
    let serving = handler(s, |s| serve(s, HARTS, |s| fence_in_turn(s, HARTS)));
    use_handler(s, serving);
    enter_translated(s, HARTS);
    rounds(s, HARTS, |s| {
        repeat(s, S6, WORK, |s| {
            s.case("nobody wrote through a translation whose end was acknowledged");
            begin(s);
            frames(s);
            for offset in marks(HARTS) {
                rv!(s; ld t0, [a1, offset]);
                s.check(T0, u64::MAX);
                rv!(s; sd zero, [a1, offset]);
            }
            for offset in GENERATION {
                rv!(s; sd a2, [a1, offset]);
            }
            s.case("a hart's own new translation after its own sfence.vma");
            rv!(s; fence rw, rw);
            map(s);
            s.word(raw::sfence_vma(0, 0));
            window_of(s, S0);
            for offset in GENERATION {
                rv!(s; ld t0, [a1, offset]);
                s.check_eq(T0, A2);
            }
            s.li(T0, 0x1000);
            rv!(s; add a1, a1, t0; jalr ra, a1, 0; andi t0, a2, 1);
            s.check_eq(A0, T0);
            s.case("acknowledgements of remote sfence.vma");
            ask(s, HARTS);
            rv!(s; addi a2, a2, -1);
            frames(s);
            poison(s, HARTS);
            random(s);
            rv!(s; andi s7, s9, 3; addi s7, s7, 1);
            let again = s.label();
            rv!(s; =>again);
            others(s, HARTS, use_window);
            rv!(s; addi s7, s7, -1; beqz s7, >done; j =>again; done:);
        });
    });
    leave_translated(s);
    end(s);
}

/// Reads, writes and executes through the window of hart s2.
fn use_window(s: &mut Suite) {
    s.case("a page that another hart remaps is the old one or the new one");
    acknowledged(s);
    window_of(s, S2);
    let [first, second] = GENERATION;
    rv!(s
        ; ld a4, [a1, first]
        ; slli t0, s0, 6
        ; add a6, a1, t0
        ; addi a6, a6, WRITTEN
        ; sd s9, [a6]
        ; amoadd.d x0, s1, [a6]
        ; ld a5, [a1, second]
    );
    s.li(T0, 0x1000);
    rv!(s; add a1, a1, t0; li.12 a0, -1; jalr ra, a1, 0);
    begun(s);
    for seen in [A4, A5] {
        rv!(s; sub t0, X(seen), s3; bleu t0, s5, >good);
        s.fail();
        rv!(s; good:);
    }
    s.case("code in a page that another hart remaps is the old one or the new one");
    rv!(s; bnez s5, >changing; andi t0, s3, 1; beq t0, a0, >good);
    s.fail();
    rv!(s; changing:; li.12 t0, 1; bleu a0, t0, >good);
    s.fail();
    rv!(s; good:);
}
