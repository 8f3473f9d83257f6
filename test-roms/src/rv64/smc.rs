//! Code that writes code. Source: Unprivileged ISA, "Zifencei": after `fence.i` a hart fetches what
//! it stored before.

use super::page::{ALL, Space, leaf};
use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Mode, SCRATCH, Suite, rv};

const AT: u64 = SCRATCH + 0x2000;

/// `addi a0, a0, imm`.
fn addi(imm: u32) -> u32 {
    raw::I { imm, rs1: A0, funct3: 0, rd: A0, opcode: 0x13 }.word()
}

/// `ret`.
const RET: u32 = 0x0000_8067;

/// Stores words from a guest's code.
fn store(s: &mut Suite, at: u64, words: &[u32]) {
    s.li(S0, at);
    for (i, word) in words.iter().enumerate() {
        s.li(T0, u64::from(*word));
        rv!(s; sw t0, [s0, 4 * i as i32]);
    }
}

fn call(s: &mut Suite, at: u64) {
    s.li(T1, at);
    rv!(s; jalr ra, t1, 0);
}

pub(super) fn define(s: &mut Suite) {
    s.case("code written once");
    store(s, AT, &[addi(1), RET]);
    rv!(s; fence.i; li.12 a0, 0);
    call(s, AT);
    s.check(A0, 1);

    s.case("code written over, many times, one instruction of it");
    rv!(s; li.12 a0, 0; li.12 s1, 100);
    s.li(S0, AT);
    s.li(S4, u64::from(addi(1)));
    s.li(S5, 1 << 20);
    rv!(s
        ; again:
        ; sw s4, [s0]
        ; fence.i
        ; jalr ra, s0, 0
        ; add s4, s4, s5
        ; addi s1, s1, -1
        ; bnez s1, <again
    );
    s.check(A0, 5050);

    s.case("data on the page of the code, written between calls, without fence.i");
    store(s, AT, &[addi(2), RET]);
    rv!(s; fence.i; li.12 a0, 0; li.12 s1, 50);
    s.li(S0, AT);
    s.li(T1, AT);
    rv!(s
        ; again:
        ; sd s1, [s0, 64]
        ; sw s1, [s0, -8]
        ; jalr ra, t1, 0
        ; ld a1, [s0, 64]
        ; bne a1, s1, >bad
        ; addi s1, s1, -1
        ; bnez s1, <again
        ; j >good
        ; bad:
    );
    s.fail();
    rv!(s; good:);
    s.check(A0, 100);

    s.case("every width of store changes code");
    store(s, AT, &[addi(0), addi(0), addi(0), addi(0), RET]);
    rv!(s; fence.i; li.12 a0, 0);
    call(s, AT);
    s.li(S0, AT);
    // addi's immediate is bits 31..20: byte 3 = imm >> 4, halfword 1 = imm << 4 | rs1 part.
    rv!(s; li.12 t0, 1; sb t0, [s0, 3]);
    s.li(T0, u64::from(addi(32) >> 16));
    rv!(s; sh t0, [s0, 6]);
    s.li(T0, u64::from(addi(64)) | u64::from(addi(128)) << 32);
    rv!(s; sd t0, [s0, 8]; fence.i);
    call(s, AT);
    s.check(A0, 16 + 32 + 64 + 128);

    s.case("an AMO and an SC change code");
    store(s, AT, &[addi(1), addi(1), RET]);
    rv!(s; fence.i; li.12 a0, 0);
    call(s, AT);
    s.li(S0, AT);
    s.li(T0, 4 << 20);
    rv!(s; amoadd.w t1, t0, [s0]; addi s0, s0, 4);
    s.li(T0, u64::from(addi(7)));
    rv!(s; retry:; lr.w t1, [s0]; sc.w t2, t0, [s0]; bnez t2, <retry; fence.i);
    call(s, AT);
    s.check(A0, 2 + 5 + 7);

    s.case("code that overwrites what follows it");
    // sw a1, 8(a2) ; fence.i ; addi a0, a0, 1 -> addi a0, a0, 9 ; ret
    let sw = 0x00b6_2423;
    let fence_i = 0x0000_100f;
    store(s, AT, &[sw, fence_i, addi(1), RET]);
    s.li(A1, u64::from(addi(9)));
    s.li(A2, AT);
    rv!(s; fence.i; li.12 a0, 0);
    call(s, AT);
    call(s, AT);
    s.check(A0, 18);

    s.case("code over a page end, its second page written");
    let at = AT + 4096 - 8;
    store(s, at, &[addi(1), addi(2), addi(3), RET]);
    rv!(s; fence.i; li.12 a0, 0);
    call(s, at);
    store(s, at + 8, &[addi(30)]);
    rv!(s; fence.i);
    call(s, at);
    s.check(A0, 6 + 33);

    s.case("code written through one virtual address, executed through another");
    let space = Space::new(s, 3);
    let (va, alias) = (0x10_0000_0000u64, 0x10_0020_0000u64);
    space.map(s, va, 0, leaf(AT & !0xfff, ALL));
    space.map(s, alias, 0, leaf(AT & !0xfff, ALL));
    store(s, AT & !0xfff, &[addi(1), RET]);
    rv!(s; li.12 a0, 0; fence.i);
    space.enable(s, 0);
    s.in_mode(Mode::S, |s| {
        call(s, va);
        store(s, alias, &[addi(10)]);
        rv!(s; fence.i);
        call(s, va);
        call(s, alias);
    });
    s.check(A0, 21);

    s.case("one virtual address, another page of code behind it after sfence.vma");
    let entry = space.entry(s, va, 0);
    store(s, AT + 0x4000 & !0xfff, &[addi(100), RET]);
    rv!(s; li.12 a0, 0; fence.i);
    s.in_mode(Mode::S, |s| {
        call(s, va);
        s.li(T0, leaf(AT + 0x4000 & !0xfff, ALL));
        s.li(T1, entry);
        rv!(s; sd t0, [t1]);
        s.word(raw::sfence_vma(0, 0));
        call(s, va);
    });
    s.check(A0, 110);
    rv!(s; csrw satp, zero);
}
