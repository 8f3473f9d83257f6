//! Benchmarks of single costs: what a system call, a page fault, a patched instruction and the like take.
//! Each does one operation over and over, and the manifest says how often, so that the time of a run divided by
//! that number is the cost of one (loop and checks included).
//!
//! The work is done in U-mode under Sv39, with a small kernel in S-mode: what a process of an operating
//! system does.

use dynasmrt::DynamicLabel;

use super::page::{ALL, U, leaf};
use super::process::{ECALL, USER_SCRATCH, process, run};
use crate::raw;
use crate::suite::reg::*;
use crate::suite::{SCRATCH, Suite, rv};

/// Where pages come and go, or are different in each address space.
const PAGES_VA: u64 = 0x20_0000_0000;
/// The frames behind them; the first doubleword of each holds its own address.
const FRAMES: u64 = SCRATCH + 0x1_0000;
/// `scause` of a load page fault.
const LOAD_PAGE_FAULT: u64 = 13;
/// `ret`.
const RET: u64 = 0x0000_8067;

/// `addi a0, a0, imm`.
fn addi(imm: u32) -> u64 {
    u64::from(raw::I { imm, rs1: A0, funct3: 0, rd: A0, opcode: 0x13 }.word())
}

/// Writes the first doubleword of `count` frames.
fn mark_frames(s: &mut Suite, count: u64) {
    s.li(T0, FRAMES);
    s.li(T1, FRAMES + count * 4096);
    s.li(T2, 4096);
    rv!(s; mark:; sd t0, [t0]; add t0, t0, t2; bltu t0, t1, <mark);
}

/// Rounds of [`ecall`].
pub(super) const ECALLS: u64 = 2_000_000;
/// Result of [`ecall`].
pub(super) const ECALL_SUM: u64 = ECALLS * ECALL;

/// A system call: `ecall`, a kernel that changes stacks, saves what it uses and adds up `scause`, `sret`.
pub(super) fn ecall(s: &mut Suite) {
    s.case("sum of causes");
    let space = process(s);
    s.li(T0, SCRATCH + 0x8000);
    rv!(s; csrw sscratch, t0; li.12 a1, 0);
    s.li(A2, ECALLS);
    let kernel = |s: &mut Suite, done| {
        rv!(s
            ; beqz a2, =>done
            ; csrrw sp, sscratch, sp
            ; sd t0, [sp, -8]
            ; sd t1, [sp, -16]
            ; csrr t0, scause
            ; csrr t1, sepc
            ; add a1, a1, t0
            ; addi t1, t1, 4
            ; csrw sepc, t1
            ; ld t0, [sp, -8]
            ; ld t1, [sp, -16]
            ; csrrw sp, sscratch, sp
        );
        s.word(raw::SRET);
    };
    run(s, space, &[ECALL], kernel, |s| {
        rv!(s; again:; ecall; addi a2, a2, -1; bnez a2, <again);
    });
    s.check(A1, ECALL_SUM);
}

/// Rounds of [`fault`], and the pages it goes around in.
pub(super) const FAULTS: u64 = 512_000;
const FAULT_PAGES: u64 = 64;
/// Result of [`fault`].
pub(super) const FAULT_SUM: u64 = frames_sum(FAULTS, FAULT_PAGES);

/// What `rounds` loads add up to that go around in the first doublewords of `pages` frames, every one as often.
const fn frames_sum(rounds: u64, pages: u64) -> u64 {
    assert!(rounds.is_multiple_of(pages));
    rounds * FRAMES + rounds * (pages - 1) / 2 * 4096
}

/// A page fault: a load from a page that is not there; the kernel takes away the page that it mapped before,
/// maps this one, fences both, and returns to the load.
pub(super) fn fault(s: &mut Suite) {
    s.case("sum of what is on the pages");
    let space = process(s);
    let entries = space.entry(s, PAGES_VA, 0);
    mark_frames(s, FAULT_PAGES);
    // s2: first entry; s3: leaf of the first frame; s4, s5: entry and address of the page mapped last.
    s.li(S2, entries);
    s.li(S3, leaf(FRAMES, ALL | U));
    s.li(S4, entries);
    s.li(S5, PAGES_VA);
    s.li(S6, PAGES_VA);
    s.li(S7, FAULT_PAGES - 1);
    s.li(S8, LOAD_PAGE_FAULT);
    s.li(A2, FAULTS);
    rv!(s; li.12 a1, 0; li.12 a4, 0);
    let kernel = |s: &mut Suite, done| {
        rv!(s; csrr t0, scause; bne t0, s8, =>done; sd zero, [s4]);
        s.word(raw::sfence_vma(S5, 0));
        rv!(s
            ; csrr s5, stval
            ; srli t0, s5, 12
            ; and t0, t0, s7
            ; slli t1, t0, 10
            ; add t1, t1, s3
            ; sh3add s4, t0, s2
            ; sd t1, [s4]
        );
        s.word(raw::sfence_vma(S5, 0));
        s.word(raw::SRET);
    };
    run(s, space, &[ECALL, LOAD_PAGE_FAULT], kernel, |s| {
        rv!(s
            ; again:
            ; and t3, a4, s7
            ; slli t3, t3, 12
            ; add t3, t3, s6
            ; ld t4, [t3]
            ; add a1, a1, t4
            ; addi a4, a4, 1
            ; bne a4, a2, <again
        );
    });
    s.check(A1, FAULT_SUM);
}

/// Writes doublewords from the guest's code, in M-mode, and makes them code.
fn write_code(s: &mut Suite, at: u64, words: &[u64]) {
    s.li(S0, at);
    for (i, &word) in words.iter().enumerate() {
        s.li(T0, word);
        rv!(s; sw t0, [s0, 4 * i as i32]);
    }
    rv!(s; fence.i);
}

/// A kernel for what needs none.
fn no_kernel(s: &mut Suite, done: DynamicLabel) {
    rv!(s; j =>done);
}

/// Offset in [`SCRATCH`] of the page with code that is written to.
const CODE: u64 = 0x2000;
/// Offset of a second function on that page.
const OTHER: u64 = 0x100;

/// Rounds of [`rewrite`].
pub(super) const REWRITES: u64 = 100_000;
/// Result of [`rewrite`].
pub(super) const REWRITE_SUM: u64 = {
    let (mut sum, mut round) = (0, 1);
    while round <= REWRITES {
        sum += 1 + round % 2048 + 3 + 16;
        round += 1;
    }
    sum
};

/// Code that is rewritten: one instruction in the middle of a function, `fence.i`, a call of the function and of
/// another one on the same page.
pub(super) fn rewrite(s: &mut Suite) {
    s.case("sum of what the functions add");
    let space = process(s);
    write_code(s, SCRATCH + CODE, &[addi(1), addi(0), addi(3), RET]);
    write_code(s, SCRATCH + CODE + OTHER, &[addi(16), RET]);
    s.li(S0, USER_SCRATCH + CODE);
    s.li(S1, USER_SCRATCH + CODE + OTHER);
    s.li(S4, addi(0));
    s.li(S5, 2047);
    s.li(A2, REWRITES);
    rv!(s; li.12 a0, 0; li.12 a1, 1);
    run(s, space, &[ECALL], no_kernel, |s| {
        rv!(s
            ; again:
            ; and t0, a1, s5
            ; slli t0, t0, 20
            ; add t0, t0, s4
            ; sw t0, [s0, 4]
            ; fence.i
            ; jalr ra, s0, 0
            ; jalr ra, s1, 0
            ; addi a1, a1, 1
            ; bgeu a2, a1, <again
        );
    });
    s.check(A0, REWRITE_SUM);
}

/// Rounds of [`beside`] and [`beside_fenced`].
pub(super) const BESIDE: u64 = 10_000_000;
pub(super) const BESIDE_FENCED: u64 = 200_000;

/// Data stores into a page whose code is executed in between.
pub(super) fn beside(s: &mut Suite) {
    stores_beside_code(s, BESIDE, false);
}

/// [`beside`] with a `fence.i` after each store: for those who make code and keep data beside it.
pub(super) fn beside_fenced(s: &mut Suite) {
    stores_beside_code(s, BESIDE_FENCED, true);
}

/// Result of [`beside`] for so many rounds: what was stored is added, and the function adds 5.
pub(super) const fn beside_sum(rounds: u64) -> u64 {
    rounds * (rounds + 1) / 2 + 5 * rounds
}

fn stores_beside_code(s: &mut Suite, rounds: u64, fenced: bool) {
    s.case("sum of what was stored and of what the function adds");
    let space = process(s);
    write_code(s, SCRATCH + CODE, &[addi(5), RET]);
    s.li(S0, USER_SCRATCH + CODE);
    s.li(A2, rounds);
    rv!(s; li.12 a0, 0; li.12 a1, 1);
    run(s, space, &[ECALL], no_kernel, |s| {
        rv!(s; again:; sd a1, [s0, 512]);
        if fenced {
            rv!(s; fence.i);
        }
        rv!(s
            ; jalr ra, s0, 0
            ; ld t0, [s0, 512]
            ; add a0, a0, t0
            ; addi a1, a1, 1
            ; bgeu a2, a1, <again
        );
    });
    s.check(A0, beside_sum(rounds));
}

/// Rounds of [`switch`], and the pages touched after each change.
pub(super) const SWITCHES: u64 = 1_000_000;
const SWITCH_PAGES: u64 = 8;
/// Result of [`switch`].
pub(super) const SWITCH_SUM: u64 = frames_sum(SWITCHES * SWITCH_PAGES, 2 * SWITCH_PAGES);

/// Two address spaces in turn, each with pages of its own at the same addresses: `ecall`, `csrw satp` with the
/// other ASID and no fence, `sret`, a load from each page.
pub(super) fn switch(s: &mut Suite) {
    s.case("sum of what is on the pages");
    let spaces = [process(s), process(s)];
    for (space, number) in spaces.into_iter().zip(0..) {
        for page in 0..SWITCH_PAGES {
            let frame = FRAMES + (number * SWITCH_PAGES + page) * 4096;
            space.map(s, PAGES_VA + page * 4096, 0, leaf(frame, ALL | U));
        }
    }
    mark_frames(s, 2 * SWITCH_PAGES);
    s.li(S2, spaces[0].satp(1));
    s.li(S3, spaces[0].satp(1) ^ spaces[1].satp(2));
    s.li(S4, PAGES_VA + SWITCH_PAGES * 4096);
    s.li(S5, PAGES_VA);
    s.li(S6, 4096);
    s.li(A2, SWITCHES);
    rv!(s; li.12 a1, 0);
    let kernel = |s: &mut Suite, done| {
        rv!(s
            ; beqz a2, =>done
            ; xor s2, s2, s3
            ; csrw satp, s2
            ; csrr t1, sepc
            ; addi t1, t1, 4
            ; csrw sepc, t1
        );
        s.word(raw::SRET);
    };
    run(s, spaces[0], &[ECALL], kernel, |s| {
        rv!(s
            ; again:
            ; mv t3, s5
            ; page:
            ; ld t4, [t3]
            ; add a1, a1, t4
            ; add t3, t3, s6
            ; bne t3, s4, <page
            ; addi a2, a2, -1
            ; ecall
            ; bnez a2, <again
        );
    });
    s.check(A1, SWITCH_SUM);
}
