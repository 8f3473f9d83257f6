//! Physical memory protection. Source: Privileged ISA, "Physical Memory Protection". Entry 15
//! grants everything, so that entries 0 and 1 decide; locks come last, since only reset undoes
//! them. 16 entries, granularity 4 bytes.

use super::page::{Access, Outcome, access, access_again};
use crate::suite::reg::*;
use crate::suite::{Mode, SCRATCH, Suite, record, rv};

const R: u64 = 1;
const W: u64 = 2;
const X: u64 = 4;
const TOR: u64 = 1 << 3;
const NA4: u64 = 2 << 3;
const NAPOT: u64 = 3 << 3;
const L: u64 = 1 << 7;
/// The region under test.
const AT: u64 = SCRATCH + 0x1_0000;

/// `pmpaddr` of a naturally aligned power-of-two region of at least 8 bytes.
fn napot(base: u64, size: u64) -> u64 {
    (base | (size / 2 - 1)) >> 2
}

/// Sets entries 0..=2.
fn entries(s: &mut Suite, config: [(u64, u64); 3]) {
    for (n, (addr, _)) in config.iter().enumerate() {
        s.li(T5, *addr);
        match n {
            0 => rv!(s; csrw pmpaddr0, t5),
            1 => rv!(s; csrw pmpaddr1, t5),
            _ => rv!(s; csrw pmpaddr2, t5),
        }
    }
    s.li(T5, config[0].1 | config[1].1 << 8 | config[2].1 << 16);
    rv!(s; csrw pmpcfg0, t5);
    s.word(crate::raw::sfence_vma(0, 0));
}

const OFF: (u64, u64) = (0, 0);

pub(super) fn define(s: &mut Suite) {
    // Entry 15 grants everything before entry 0 stops doing so.
    rv!(s; li.12 t5, -1; csrw pmpaddr15, t5);
    s.li(T5, (NAPOT | R | W | X) << 56);
    rv!(s; csrw pmpcfg2, t5; csrw pmpcfg0, zero);
    // Every fetch target is an ecall.
    s.li(A0, AT - 0x2000);
    s.li(A1, AT + 0x4000);
    rv!(s; li.12 a2, 0x73; fill:; sw a2, [a0]; addi a0, a0, 4; bltu a0, a1, <fill; fence.i);
    permissions(s);
    shapes(s);
    priority(s);
    partial(s);
    machine(s);
    translated(s);
    locks(s);
}

/// R, W, X of a NAPOT region, from U, S and M. R = 0 with W = 1 is reserved.
fn permissions(s: &mut Suite) {
    for rights in [0, R, R | W, X, R | X, R | W | X] {
        entries(s, [(napot(AT, 4096), NAPOT | rights), OFF, OFF]);
        for mode in [Mode::U, Mode::S, Mode::M] {
            for kind in Access::EACH {
                let bit = [R, W, X][kind as usize];
                let ok = mode == Mode::M || rights & bit != 0;
                let outcome = if ok { Outcome::Ok } else { Outcome::Trap(kind.access_fault()) };
                access(s, &format!("rights {rights:#b}"), kind, mode, AT + 0x100, outcome);
                // The store overwrote an ecall.
                s.li(A0, AT + 0x100);
                rv!(s; li.12 a2, 0x73; sw a2, [a0]; fence.i);
            }
        }
    }
}

/// The first and last address of regions of each mode and size are inside, their neighbours not.
fn shapes(s: &mut Suite) {
    let edges = |s: &mut Suite, what: &str, base: u64, size: u64| {
        for (va, inside) in
            [(base - 4, false), (base, true), (base + size - 4, true), (base + size, false)]
        {
            s.case(&format!("{what}: {va:#x} is inside: {inside}"));
            let resume = s.arm();
            s.li(A1, va);
            s.li(A3, 1 << 17 | 3 << 11);
            s.li(A2, 1 << 17);
            rv!(s; csrc mstatus, a3; csrs mstatus, a2; lw a0, [a1]; csrc mstatus, a3);
            if inside {
                s.fail();
                rv!(s; =>resume);
                s.check_record(record::MCAUSE, 5);
                s.check_record(record::MTVAL, va);
            } else {
                let over = s.label();
                rv!(s; j =>over; =>resume);
                s.fail();
                rv!(s; =>over);
                s.disarm();
            }
        }
    };
    entries(s, [(AT >> 2, NA4), OFF, OFF]);
    edges(s, "NA4", AT, 4);
    for log in 3..13 {
        entries(s, [(napot(AT, 1 << log), NAPOT), OFF, OFF]);
        edges(s, &format!("NAPOT of 2^{log}"), AT, 1 << log);
    }
    for (base, end) in [(AT, AT + 4), (AT + 4, AT + 0x1004), (AT - 0x1000, AT + 0x20)] {
        entries(s, [(base >> 2, 0), (end >> 2, TOR), OFF]);
        edges(s, "TOR above an entry that is off", base, end - base);
        entries(s, [(napot(AT + 0x3000, 8), NAPOT | R | W | X), ((base >> 2), 0), (end >> 2, TOR)]);
        edges(s, "TOR of entry 2", base, end - base);
    }
    entries(s, [(AT >> 2, TOR | R | W | X), (AT + 0x100 >> 2, TOR), OFF]);
    edges(s, "TOR above TOR", AT, 0x100);
    s.case("TOR with its top below its bottom matches nothing");
    entries(s, [((AT + 0x100) >> 2, 0), (AT >> 2, TOR), OFF]);
    access_again(s, Access::Load, Mode::U, AT, Outcome::Ok);
    access_again(s, Access::Load, Mode::U, AT + 0x80, Outcome::Ok);
}

/// The lowest-numbered matching entry decides.
fn priority(s: &mut Suite) {
    let region = napot(AT, 4096);
    let part = napot(AT + 64, 64);
    entries(s, [(part, NAPOT | R), (region, NAPOT), OFF]);
    access(s, "part granted, whole denied", Access::Load, Mode::S, AT + 64, Outcome::Ok);
    access(s, "part granted, whole denied", Access::Store, Mode::S, AT + 64, Outcome::Trap(7));
    access(s, "part granted, whole denied", Access::Load, Mode::S, AT, Outcome::Trap(5));
    entries(s, [(part, NAPOT), (region, NAPOT | R | W), OFF]);
    access(s, "part denied, whole granted", Access::Load, Mode::S, AT + 64, Outcome::Trap(5));
    access(s, "part denied, whole granted", Access::Load, Mode::S, AT, Outcome::Ok);
    entries(s, [(region, NAPOT | R | W), (part, NAPOT), OFF]);
    access(s, "whole before part", Access::Load, Mode::S, AT + 64, Outcome::Ok);
    s.case("nothing matches: S and U fail, M succeeds");
    rv!(s; csrr s5, pmpcfg2; csrw pmpcfg2, zero);
    entries(s, [OFF, OFF, OFF]);
    access_again(s, Access::Load, Mode::S, AT, Outcome::Trap(5));
    access_again(s, Access::Store, Mode::U, AT, Outcome::Trap(7));
    access_again(s, Access::Fetch, Mode::S, AT, Outcome::Trap(1));
    access_again(s, Access::Load, Mode::M, AT, Outcome::Ok);
    rv!(s; csrw pmpcfg2, s5);
}

/// An access that an entry matches only in part fails, whatever the rights.
fn partial(s: &mut Suite) {
    for (base, size, rights) in [(AT, 4, R | W | X), (AT + 4, 4, R | W | X), (AT, 4, 0)] {
        entries(s, [(base >> 2, NA4 | rights), OFF, OFF]);
        let what = format!("doubleword over {size} bytes at {base:#x}");
        access(s, &what, Access::Load, Mode::S, AT, Outcome::Trap(5));
        access(s, &what, Access::Store, Mode::S, AT, Outcome::Trap(7));
        access(s, &what, Access::Load, Mode::S, AT + 8, Outcome::Ok);
        access(s, &what, Access::Load, Mode::S, AT - 8, Outcome::Ok);
    }
}

/// M-mode is free of entries without L, except through MPRV.
fn machine(s: &mut Suite) {
    entries(s, [(napot(AT, 4096), NAPOT), OFF, OFF]);
    access(s, "M-mode over a denying entry", Access::Load, Mode::M, AT, Outcome::Ok);
    access(s, "M-mode over a denying entry", Access::Store, Mode::M, AT + 8, Outcome::Ok);
    access(s, "M-mode with the rights of S", Access::Load, Mode::S, AT, Outcome::Trap(5));
    entries(s, [OFF, OFF, OFF]);
    access(s, "the entry is gone", Access::Load, Mode::S, AT, Outcome::Ok);
}

/// Page tables in a denied region: the access faults with its own access-fault cause.
fn translated(s: &mut Suite) {
    use super::page::{ALL, Space, leaf};
    let va = 0x10_0000_0000;
    let space = Space::new(s, 3);
    space.map(s, va, 0, leaf(AT & !0xfff, ALL));
    let table = space.entry(s, va, 0) & !0xfff;
    entries(s, [(napot(AT & !0xfff, 4096), NAPOT | R), OFF, OFF]);
    space.enable(s, 0);
    access(s, "translated, readable", Access::Load, Mode::S, va, Outcome::Ok);
    access(s, "translated, not writable", Access::Store, Mode::S, va, Outcome::Trap(7));
    access(s, "translated, not executable", Access::Fetch, Mode::S, va, Outcome::Trap(1));
    entries(s, [(napot(table, 4096), NAPOT), OFF, OFF]);
    for kind in Access::EACH {
        let trap = Outcome::Trap(kind.access_fault());
        access(s, "the page table is denied", kind, Mode::S, va, trap);
    }
    rv!(s; csrw satp, zero);
    entries(s, [OFF, OFF, OFF]);
}

/// Locked entries bind M-mode and cannot be written.
fn locks(s: &mut Suite) {
    let at = AT + 0x2000;
    s.li(T5, napot(at, 64));
    rv!(s; csrw pmpaddr5, t5);
    // A locked TOR entry locks the address below it too.
    s.li(T5, (at - 0x1000) >> 2);
    rv!(s; csrw pmpaddr6, t5);
    s.li(T5, (at - 0x0ff0) >> 2);
    rv!(s; csrw pmpaddr7, t5);
    s.li(T5, (L | NAPOT | R) << 40 | (L | TOR) << 56);
    rv!(s; csrw pmpcfg0, t5);
    s.word(crate::raw::sfence_vma(0, 0));
    for mode in [Mode::M, Mode::S] {
        access(s, "locked, read only", Access::Load, mode, at + 8, Outcome::Ok);
        access(s, "locked, read only", Access::Store, mode, at + 8, Outcome::Trap(7));
        access(s, "locked, read only", Access::Fetch, mode, at + 8, Outcome::Trap(1));
        access(s, "locked TOR", Access::Load, mode, at - 0x1000, Outcome::Trap(5));
        access(s, "beside the locked entries", Access::Load, mode, at + 64, Outcome::Ok);
    }
    s.case("writes to locked entries are ignored");
    rv!(s; csrr s5, pmpcfg0; csrw pmpcfg0, zero; csrr s6, pmpcfg0);
    s.check_eq(S5, S6);
    for read in [true, false] {
        if read {
            rv!(s; csrr s5, pmpaddr5; csrr s6, pmpaddr6; csrr s7, pmpaddr7);
            rv!(s; csrw pmpaddr5, zero; csrw pmpaddr6, zero; csrw pmpaddr7, zero);
        } else {
            rv!(s; csrr a0, pmpaddr5; csrr a1, pmpaddr6; csrr a2, pmpaddr7);
        }
    }
    s.check_eq(A0, S5);
    s.check_eq(A1, S6);
    s.check_eq(A2, S7);
    s.case("neighbours in the same pmpcfg still change");
    entries(s, [(napot(AT, 64), NAPOT), OFF, OFF]);
    access_again(s, Access::Load, Mode::U, AT, Outcome::Trap(5));
}
