//! Address spaces that share a page of code whose jumps, and whose last instruction, lead to different frames.
//!
//! Source: Privileged ISA, "Supervisor-Level ISA", `satp`: address spaces of different ASIDs need no fence between
//! them. So nothing that an implementation remembers of where a page of code leads may outlive a change of `satp`.

use dynasmrt::DynasmApi;

use super::page::{ALL, Space, U, leaf};
use super::process::{ECALL, process, run};
use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Asm, Mode, Suite, rv};

/// The shared page; the one behind it has a frame of its own in each space.
const CODE_VA: u64 = 0x20_0000_0000;
/// Rounds through the code in each case.
const ROUNDS: u64 = 3000;
/// What a round adds in each space: at the ends of a call by `jal`, of one by `jalr` and of a branch, and in an
/// instruction that begins on the shared page and ends on the other.
const ADDS: [[i32; 4]; 2] = [[1, 16, 3, 0x55], [2, 1000, -7, -0x200]];
/// Every so many rounds the space changes.
const PERIODS: [u64; 4] = [1, 2, 7, 500];

pub(super) fn define(s: &mut Suite) {
    for period in PERIODS {
        s.case(&format!("U-mode, other space every {period} rounds"));
        in_user_mode(s, period);
    }
    for asids in [[1, 2], [0, 0x7fff]] {
        for period in PERIODS {
            s.case(&format!("S-mode, ASIDs {asids:?}, other space every {period} rounds"));
            in_supervisor_mode(s, asids, period);
        }
    }
}

/// What all rounds add.
fn sum(period: u64) -> u64 {
    let sum: i64 = (0..ROUNDS)
        .map(|round| {
            ADDS[(round / period % 2) as usize].iter().copied().map(i64::from).sum::<i64>()
        })
        .sum();
    sum as u64
}

/// The two pages of the program in one space, with what changes the space and what ends it.
///
/// a1: sum; a2: rounds to go; a3: rounds until the space changes; s6: `CODE_VA`; s7: the period.
fn pages(adds: [i32; 4], change: fn(&mut Program), end: fn(&mut Program)) -> Vec<u8> {
    let mut ops = Asm::new(CODE_VA as usize);
    let labels = [(); 5].map(|()| ops.new_dynamic_label());
    let mut s = Program { ops };
    let [start, called, branched, back, last] = labels;
    let [by_jal, by_jalr, by_branch, across] = adds;
    rv!(s
        ; j =>start
        ; =>back
        ; jal ra, =>last
        ; addi a2, a2, -1
        ; addi a3, a3, -1
        ; bnez a3, >same
        ; mv a3, s7
    );
    change(&mut s);
    rv!(s; same:; beqz a2, >over; j =>start; over:);
    end(&mut s);
    s.fill(PAGE - 64);
    rv!(s
        ; =>start
        ; jal ra, =>called
        ; li.12 t0, 1
        ; slli t0, t0, 12
        ; add t0, t0, s6
        ; jalr ra, t0, INDIRECT
        ; bnez a2, =>branched
    );
    s.fill(PAGE - 6);
    // The nop lets nothing but the page's end precede the instruction across it.
    rv!(s; =>last; addi zero, zero, 0);
    s.ops.extend(
        raw::I { imm: across as u32 & 0xfff, rs1: A1, funct3: 0, rd: A1, opcode: 0x13 }
            .word()
            .to_le_bytes(),
    );
    rv!(s; ret);
    s.fill(PAGE + 16);
    rv!(s; =>called; addi a1, a1, by_jal; ret);
    s.fill(PAGE + INDIRECT as usize);
    rv!(s; addi a1, a1, by_jalr; ret);
    rv!(s; =>branched; addi a1, a1, by_branch; j =>back);
    s.fill(2 * PAGE);
    s.ops.finalize().expect("every label is bound and in reach")
}

const PAGE: usize = 4096;
/// Offset in the second page of what is called through a register.
const INDIRECT: i32 = 64;

/// Code for the two pages.
struct Program {
    ops: Asm,
}

impl Program {
    /// Zeros, which are illegal instructions, up to an offset.
    fn fill(&mut self, to: usize) {
        assert!(self.ops.offset().0 <= to, "the code is longer than planned");
        while self.ops.offset().0 < to {
            self.ops.push(0);
        }
    }
}

/// Maps the program in both spaces: the first page's frame is the same.
fn map(
    s: &mut Suite,
    spaces: [Space; 2],
    flags: u64,
    change: fn(&mut Program),
    end: fn(&mut Program),
) {
    let programs = ADDS.map(|adds| pages(adds, change, end));
    assert_eq!(programs[0][..PAGE], programs[1][..PAGE], "the first page is shared");
    let shared = s.bytes(PAGE, &programs[0][..PAGE]);
    for (space, program) in spaces.into_iter().zip(programs) {
        let own = s.bytes(PAGE, &program[PAGE..]);
        space.map(s, CODE_VA, 0, leaf(shared, flags));
        space.map(s, CODE_VA + PAGE as u64, 0, leaf(own, flags));
    }
}

/// Sets the program's registers up.
fn prepare(s: &mut Suite, spaces: [Space; 2], asids: [u64; 2], period: u64) {
    s.li(S2, spaces[0].satp(asids[0]));
    s.li(S3, spaces[0].satp(asids[0]) ^ spaces[1].satp(asids[1]));
    s.li(S6, CODE_VA);
    s.li(S7, period);
    s.li(A2, ROUNDS);
    rv!(s; mv a3, s7; li.12 a1, 0);
}

fn in_user_mode(s: &mut Suite, period: u64) {
    let spaces = [process(s), process(s)];
    let ecall: fn(&mut Program) = |s| rv!(s; ecall);
    map(s, spaces, ALL | U, ecall, ecall);
    prepare(s, spaces, [1, 2], period);
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
    run(s, spaces[0], &[ECALL], kernel, |s| rv!(s; jr s6));
    s.check(A1, sum(period));
}

fn in_supervisor_mode(s: &mut Suite, asids: [u64; 2], period: u64) {
    let spaces = [Space::new(s, 3), Space::new(s, 3)];
    map(s, spaces, ALL, |s| rv!(s; xor s2, s2, s3; csrw satp, s2), |s| rv!(s; jr s5));
    prepare(s, spaces, asids, period);
    spaces[0].enable(s, asids[0]);
    s.in_mode(Mode::S, |s| rv!(s; jalr s5, s6, 0));
    s.reset_environment();
    s.check(A1, sum(period));
}
