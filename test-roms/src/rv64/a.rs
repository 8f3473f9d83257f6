//! A extension. Expected values: Unprivileged ISA, "A" Extension.

use super::operands::{pairs, sext32};
use crate::suite::reg::*;
use crate::suite::{Mode, SCRATCH, Suite, rv};

/// Sign-extended low word as a number.
fn w(v: u64) -> i64 {
    i64::from(v as u32 as i32)
}

/// Every AMO on doublewords and words. `$f` maps (memory, register) to the new memory value.
macro_rules! amo {
    ($s:expr, $d:ident, $w:ident, $f:expr, $fw:expr) => {{
        let s: &mut Suite = $s;
        amo_d(s, stringify!($d), |s, d, v, a| rv!(s; $d.d X(d), X(v), [X(a)]), $f);
        amo_d(s, concat!(stringify!($d), ".aqrl"), |s, d, v, a| rv!(s; $d.d.aqrl X(d), X(v), [X(a)]), $f);
        amo_w(s, stringify!($w), |s, d, v, a| rv!(s; $w.w X(d), X(v), [X(a)]), $fw);
        amo_w(s, concat!(stringify!($w), ".aq"), |s, d, v, a| rv!(s; $w.w.aq X(d), X(v), [X(a)]), $fw);
    }};
}

fn amo_d(
    s: &mut Suite,
    name: &str,
    emit: impl Fn(&mut Suite, u8, u8, u8),
    f: impl Fn(u64, u64) -> u64,
) {
    let rows = pairs(f);
    let count = rows.len() as u32;
    let table = s.table(rows.as_flattened());
    for (rd, rs2, rs1) in [(A0, A2, A1), (A2, A2, A1), (A1, A2, A1)] {
        s.cases(&format!("{name}.d rd x{rd} rs2 x{rs2} rs1 x{rs1}"), count);
        s.rows(table, count, 3, |s| {
            s.li(A1, SCRATCH + 64);
            rv!(s
                ; ld s5, [s2, 0]
                ; ld X(rs2), [s2, 8]
                ; ld s4, [s2, 16]
                ; sd s5, [a1]
                ; sd s5, [a1, 8]
                ; mv s6, a1
            );
            emit(s, rd, rs2, rs1);
            s.check_eq(rd, S5);
            rv!(s; ld a3, [s6]; ld a4, [s6, 8]);
            s.check_eq(A3, S4);
            s.check_eq(A4, S5);
        });
    }
}

fn amo_w(
    s: &mut Suite,
    name: &str,
    emit: impl Fn(&mut Suite, u8, u8, u8),
    f: impl Fn(u64, u64) -> u64,
) {
    // The memory word lies in either half of a doubleword whose other half must survive.
    let rows: Vec<[u64; 3]> = pairs(|m, r| u64::from(f(m, r) as u32));
    let count = rows.len() as u32;
    let table = s.table(rows.as_flattened());
    for (rd, half) in [(A0, 0), (A2, 4), (0, 4)] {
        s.cases(&format!("{name}.w rd x{rd} at +{half}"), count);
        s.rows(table, count, 3, |s| {
            s.li(A1, SCRATCH + 64 + half);
            s.li(S7, 0x5a5a_5a5a);
            rv!(s
                ; lw s5, [s2, 0]
                ; ld a2, [s2, 8]
                ; ld s4, [s2, 16]
                ; sw s5, [a1]
                ; xori a3, a1, 4
                ; sw s7, [a3]
            );
            emit(s, rd, A2, A1);
            if rd != 0 {
                s.check_eq(rd, S5);
            }
            rv!(s; lwu a5, [a1]; lwu a4, [a3]);
            s.check_eq(A5, S4);
            s.check_eq(A4, S7);
        });
    }
}

pub(super) fn define(s: &mut Suite) {
    amo!(s, amoswap, amoswap, |_, r| r, |_, r| sext32(r));
    amo!(s, amoadd, amoadd, |m, r| m.wrapping_add(r), |m, r| m.wrapping_add(r));
    amo!(s, amoand, amoand, |m, r| m & r, |m, r| m & r);
    amo!(s, amoor, amoor, |m, r| m | r, |m, r| m | r);
    amo!(s, amoxor, amoxor, |m, r| m ^ r, |m, r| m ^ r);
    amo!(s, amomax, amomax, |m, r| (m as i64).max(r as i64) as u64, |m, r| w(m).max(w(r)) as u64);
    amo!(s, amomin, amomin, |m, r| (m as i64).min(r as i64) as u64, |m, r| w(m).min(w(r)) as u64);
    amo!(s, amomaxu, amomaxu, |m, r| m.max(r), |m, r| u64::from((m as u32).max(r as u32)));
    amo!(s, amominu, amominu, |m, r| m.min(r), |m, r| u64::from((m as u32).min(r as u32)));
    reservations(s);
}

fn reservations(s: &mut Suite) {
    let at = SCRATCH + 128;
    let value = 0x8877_6655_f433_2211u64;
    s.li(S0, at);

    s.case("lr.d/sc.d succeed");
    s.li(A1, value);
    rv!(s; sd a1, [s0]; lr.d a0, [s0]; addi a2, a0, 1; sc.d a3, a2, [s0]; ld a4, [s0]);
    s.check(A0, value);
    s.check(A3, 0);
    s.check(A4, value + 1);

    s.case("sc.d after sc.d fails and stores nothing");
    rv!(s; sc.d a3, zero, [s0]; ld a4, [s0]; snez a3, a3);
    s.check(A3, 1);
    s.check(A4, value + 1);

    s.case("lr.w sign-extends, sc.w keeps the other word");
    rv!(s; sd a1, [s0]; lr.w a0, [s0]; li.12 a2, 0x123; sc.w a3, a2, [s0]; ld a4, [s0]);
    s.check(A0, 0xffff_ffff_f433_2211);
    s.check(A3, 0);
    s.check(A4, 0x8877_6655_0000_0123);

    s.case("lr.w/sc.w on the upper word");
    rv!(s; addi s1, s0, 4; sd a1, [s0]; lr.w a0, [s1]; sc.w a3, a2, [s1]; ld a4, [s0]);
    s.check(A0, 0xffff_ffff_8877_6655);
    s.check(A3, 0);
    s.check(A4, 0x0000_0123_f433_2211);

    s.case("sc without reservation fails");
    rv!(s; sd a1, [s0]; lr.d a0, [s0]; sc.d a3, a0, [s0]; sc.w a3, a2, [s0]; snez a3, a3; ld a4, [s0]);
    s.check(A3, 1);
    s.check(A4, value);

    s.case("sc to an address 4 KiB from the reservation fails");
    rv!(s; lui t0, 0x1000; add t0, s0, t0; sd a1, [t0]; lr.d a0, [s0]);
    rv!(s; sc.d a3, zero, [t0]; snez a3, a3; ld a4, [t0]);
    s.check(A3, 1);
    s.check(A4, value);

    s.case("a failed sc to another address also ends the reservation");
    rv!(s; sc.d a3, zero, [s0]; snez a3, a3; ld a4, [s0]);
    s.check(A3, 1);
    s.check(A4, value);

    s.case("a second lr moves the reservation");
    rv!(s; lr.d a0, [s0]; lr.d a0, [t0]; sc.d a3, zero, [s0]; snez a3, a3; ld a4, [s0]);
    s.check(A3, 1);
    s.check(A4, value);

    s.case("constrained loop makes progress, .aq and .rl");
    rv!(s
        ; sd zero, [s0]
        ; li.12 a5, 100
        ; again:
        ; lr.d.aq a0, [s0]
        ; addi a0, a0, 3
        ; sc.d.rl a3, a0, [s0]
        ; bnez a3, <again
        ; addi a5, a5, -1
        ; bnez a5, <again
        ; ld a4, [s0]
    );
    s.check(A4, 300);
    s.case("lr.w.aqrl, sc.w.aqrl, rd = rs1 and rd = rs2");
    rv!(s; sd a1, [s0]; mv a0, s0; lr.w.aqrl a0, [a0]; addi a0, a0, 1; mv a3, s0);
    rv!(s; sc.w.aqrl a3, a0, [a3]; lw a4, [s0]; sd a1, [s0]);
    s.check(A3, 0);
    s.check(A4, 0xffff_ffff_f433_2212);
    rv!(s; lr.d a0, [s0]; mv a3, a0; sc.d a3, a3, [s0]);
    s.check(A3, 0);
    s.case("lr and sc with rd = x0");
    rv!(s; lr.d x0, [s0]; sc.d x0, a2, [s0]; ld a4, [s0]);
    s.check(0, 0);
    s.check(A4, 0x123);

    let funct5 = |v: u32| v << 27;
    let amo = 0x2f | 3 << 12 | u32::from(A0) << 7 | u32::from(A1) << 15;
    for (name, word) in [
        ("lr.d with rs2 = 1", amo | funct5(2) | 1 << 20),
        ("unused funct5 0x1f", amo | funct5(0x1f)),
        ("unused funct5 0x06", amo | funct5(6)),
        ("128-bit AMO", amo & !0x7000 | 4 << 12),
        ("width 6", amo & !0x7000 | 6 << 12),
    ] {
        s.illegal_in(Mode::M, name, word);
    }
}

/// Misaligned atomics raise store/AMO (LR: load) address-misaligned or access-fault exceptions
/// (Unprivileged ISA, "Atomic Memory Operations": the choice is the platform's). QEMU reports
/// AMOs as loads, so this is a ROM of its own.
pub(super) fn define_misaligned(s: &mut Suite) {
    for size in [4u64, 8] {
        for misalign in 1..size {
            let at = SCRATCH + 64 + misalign;
            macro_rules! each {
                ($($i:ident)*) => {$(
                    let name = format!("{} of {size} misaligned by {misalign}", stringify!($i));
                    s.traps_one_of(Mode::M, &name, &[6, 7], Some(at), |s| s.li(A1, at), |s| {
                        if size == 4 {
                            rv!(s; $i.w a0, a2, [a1]);
                        } else {
                            rv!(s; $i.d a0, a2, [a1]);
                        }
                    });
                )*};
            }
            each!(amoswap amoadd amoand amoor amoxor amomax amomin amomaxu amominu);
            let name = format!("lr of {size} misaligned by {misalign}");
            s.traps_one_of(
                Mode::M,
                &name,
                &[4, 5],
                Some(at),
                |s| s.li(A1, at),
                |s| {
                    if size == 4 {
                        rv!(s; lr.w a0, [a1]);
                    } else {
                        rv!(s; lr.d a0, [a1]);
                    }
                },
            );
            let name = format!("sc of {size} misaligned by {misalign}");
            s.traps_one_of(
                Mode::M,
                &name,
                &[6, 7],
                Some(at),
                |s| {
                    s.li(A1, at);
                    s.li(A3, at & !7);
                    rv!(s; lr.d a0, [a3]);
                },
                |s| {
                    if size == 4 {
                        rv!(s; sc.w a0, a2, [a1]);
                    } else {
                        rv!(s; sc.d a0, a2, [a1]);
                    }
                },
            );
        }
    }
}
