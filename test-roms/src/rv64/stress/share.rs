//! Code and data in the same pages, which every hart writes all the time: stores to pages that hold code
//! must not be lost, torn or slow for ever, and each hart's new code counts after its own `fence.i`.
//! Source: Unprivileged ISA, "Zifencei" and "A" Extension.

use super::{SHARED, barrier, end, random, repeat, rounds, start};
use crate::suite::reg::*;
use crate::suite::{Suite, rv};

/// Times that each page is used in a round.
const WORK: u64 = 8;
/// Pages with everything in them.
const PAGES: u64 = SHARED + 0x1_0000;
const COUNT: u64 = 2;
/// Offsets: code of each hart (128 bytes each; the page begins with data that the one before ends with),
/// code of all, data of each hart (a line each), counters of all.
const OWN_CODE: i32 = 0x40;
const COMMON: i32 = 0x200;
const DATA: i32 = 0x400;
/// A doubleword across the lines of a hart's data, never aligned.
const MISALIGNED: i32 = 0x503;
const ADDED: i32 = 0x640;
const RESERVED: i32 = 0x680;

/// `addi a0, zero, 0` and `addi a0, a0, 1`; `ret`.
const SET: u64 = 0x0000_0513;
const INCREMENT: u64 = 0x0015_0513;
const RET: u64 = 0x0000_8067;

/// a1 = page s2, a6 = this hart's code in it, a5 = its data.
fn page(s: &mut Suite) {
    s.li(A1, PAGES);
    rv!(s
        ; slli t0, s2, 12
        ; add a1, a1, t0
        ; slli t0, s0, 7
        ; add a6, a1, t0
        ; addi a6, a6, OWN_CODE
        ; slli t0, s0, 6
        ; add a5, a1, t0
    );
}

pub(in crate::rv64) fn define<const HARTS: u64>(s: &mut Suite) {
    start(s, HARTS);
    // s3 = uses of each page by this hart so far.
    rv!(s; li.12 s3, 0);
    for index in 0..COUNT {
        rv!(s; li.12 s2, index as i32);
        page(s);
        s.li(T1, RET);
        s.li(T2, INCREMENT);
        rv!(s; sw t1, [a6, 4]; sw t2, [a1, COMMON]; sw t1, [a1, COMMON + 4]);
    }
    barrier(s, HARTS);
    rv!(s; fence.i);
    rounds(s, HARTS, |s| {
        repeat(s, S6, WORK, |s| {
            for index in 0..COUNT {
                rv!(s; li.12 s2, index as i32);
                use_page(s, index);
            }
            rv!(s; addi s3, s3, 1);
        });
        barrier(s, HARTS);
        rv!(s; li.12 t0, HARTS as i32; mul s4, s3, t0);
        for index in 0..COUNT {
            s.case("atomic counters beside code lose nothing");
            rv!(s; li.12 s2, index as i32);
            page(s);
            for offset in [ADDED, RESERVED] {
                rv!(s; ld a0, [a1, offset]);
                s.check_eq(A0, S4);
            }
        }
    });
    end(s);
}

fn use_page(s: &mut Suite, index: u64) {
    page(s);
    s.case(&format!("code of page {index} that its hart has just written"));
    random(s);
    s.li(T0, SET);
    rv!(s; andi s5, s9, 0x7ff; slli t1, s5, 20; or t0, t0, t1; sw t0, [a6]; fence.i; jalr ra, a6, 0);
    s.check_eq(A0, S5);
    s.case(&format!("code of page {index} beside data that others write"));
    rv!(s; addi a0, s5, 0; addi t0, a1, COMMON; jalr ra, t0, 0; addi t1, s5, 1);
    s.check_eq(A0, T1);
    s.case(&format!("data of page {index} beside code"));
    rv!(s; ld a0, [a5, DATA]; addi t0, a0, 1; sd t0, [a5, DATA]);
    s.check_eq(A0, S3);
    s.li(A2, MISALIGNED as u64);
    rv!(s; add a2, a2, a5; ld a0, [a2]; addi t0, a0, 1; sd t0, [a2]);
    s.check_eq(A0, S3);
    s.li(A2, ADDED as u64);
    s.li(A3, RESERVED as u64);
    rv!(s
        ; add a2, a2, a1
        ; add a3, a3, a1
        ; li.12 a4, 1
        ; amoadd.d x0, a4, [a2]
        ; again:
        ; lr.d a0, [a3]
        ; addi a0, a0, 1
        ; sc.d a4, a0, [a3]
        ; bnez a4, <again
    );
    // Data of this hart across the end of the page: written in two parts.
    if index == 0 {
        let others = s.label();
        rv!(s; bnez s0, =>others);
        s.li(A2, 0xffd);
        rv!(s; add a2, a2, a1; ld a0, [a2]; addi t0, a0, 1; sd t0, [a2]);
        s.check_eq(A0, S3);
        rv!(s; =>others);
    }
}
