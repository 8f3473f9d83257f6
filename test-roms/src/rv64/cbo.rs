//! Zicbom, Zicboz, Zicbop, Zawrs. Source: Unprivileged ISA, "CMO" and "Zawrs"; Privileged ISA,
//! `menvcfg` and `senvcfg`. Blocks are 64 bytes.

use crate::suite::reg::*;
use crate::suite::{Mode, SCRATCH, Suite, rv};

const BLOCK: u64 = SCRATCH + 0x1000;
/// envcfg fields.
const CBIE_FLUSH: u64 = 1 << 4;
const CBIE_INVAL: u64 = 3 << 4;
const CBCFE: u64 = 1 << 6;
const CBZE: u64 = 1 << 7;

/// A block operation: name, word with rs1 = a1, field of envcfg that enables it.
fn operations() -> [(&'static str, u32, u64); 4] {
    let word = |op: u32| op << 20 | u32::from(A1) << 15 | 2 << 12 | 0x0f;
    [
        ("cbo.inval", word(0), CBIE_INVAL),
        ("cbo.clean", word(1), CBCFE),
        ("cbo.flush", word(2), CBCFE),
        ("cbo.zero", word(4), CBZE),
    ]
}

fn envcfg(s: &mut Suite, machine: u64, supervisor: u64) {
    s.li(T5, machine);
    s.li(T6, supervisor);
    rv!(s; csrw menvcfg, t5; csrw senvcfg, t6);
}

pub(super) fn define(s: &mut Suite) {
    gates(s, Suite::refused_in);
    zero(s);
    memory_stays(s);
    faults(s);
    prefetch(s);
    waiting(s);
}

/// `mtval` of block operations that are not enabled; QEMU 10.0.2 leaves a stale value.
pub(super) fn define_strict(s: &mut Suite) {
    gates(s, Suite::illegal_in);
}

/// menvcfg rules S and U, senvcfg rules U as well.
fn gates(s: &mut Suite, refused: fn(&mut Suite, Mode, &str, u32)) {
    for (name, word, field) in operations() {
        for (m, u) in [(0, 0), (field, 0), (0, field), (field, field)] {
            for mode in [Mode::M, Mode::S, Mode::U] {
                let ok = match mode {
                    Mode::M => true,
                    Mode::S => m != 0,
                    Mode::U => m != 0 && u != 0,
                };
                let what = format!("{name} in {mode:?}, menvcfg {m:#x}, senvcfg {u:#x}: {ok}");
                envcfg(s, m, u);
                s.li(A1, BLOCK);
                if ok && mode == Mode::M {
                    s.case(&what);
                    s.word(word);
                } else if ok {
                    s.case(&what);
                    s.in_mode(mode, |s| s.word(word));
                } else {
                    refused(s, mode, &what, word);
                }
            }
        }
    }
    for (m, u) in [(CBIE_FLUSH, CBIE_FLUSH), (CBIE_FLUSH, CBIE_INVAL), (CBIE_INVAL, CBIE_FLUSH)] {
        s.case(&format!("cbo.inval as flush, menvcfg {m:#x}, senvcfg {u:#x}: data survives"));
        envcfg(s, m, u);
        s.li(A1, BLOCK);
        s.li(A2, 0x5a5a);
        rv!(s; sd a2, [a1]);
        s.in_mode(Mode::U, |s| s.word(operations()[0].1));
        rv!(s; ld a3, [a1]);
        s.check(A3, 0x5a5a);
    }
    envcfg(s, 0, 0);
    for op in [3u32, 5, 0xfff] {
        let word = op << 20 | u32::from(A1) << 15 | 2 << 12 | 0x0f;
        s.illegal_in(Mode::M, &format!("no block operation {op}"), word);
    }
}

/// cbo.zero clears exactly the block that holds the address.
fn zero(s: &mut Suite) {
    for offset in [0u64, 1, 8, 33, 63] {
        s.case(&format!("cbo.zero at offset {offset} of a block"));
        s.li(A0, BLOCK - 64);
        s.li(A1, BLOCK + 128);
        rv!(s; li.12 a2, -1; mv t0, a0; fill:; sd a2, [t0]; addi t0, t0, 8; bltu t0, a1, <fill);
        s.li(A1, BLOCK + offset);
        rv!(s; cbo.zero [a1]; li.12 t1, 0; mv t0, a0; li.12 t2, 24);
        // Doublewords 8..16 of the 24 are zero.
        rv!(s
            ; check:
            ; ld a3, [t0]
            ; seqz a3, a3
            ; add t1, t1, t1
            ; or t1, t1, a3
            ; addi t0, t0, 8
            ; addi t2, t2, -1
            ; bnez t2, <check
        );
        s.check(T1, 0x00ff00);
    }
}

/// Clean and flush (and invalidate without caches to lose) leave what memory holds.
fn memory_stays(s: &mut Suite) {
    for (name, word, _) in &operations()[1..3] {
        s.case(&format!("{name} keeps memory"));
        s.li(A1, BLOCK + 8);
        s.li(A2, 0x1234_5678_9abc);
        rv!(s; sd a2, [a1]);
        s.word(*word);
        rv!(s; ld a3, [a1]);
        s.check(A3, 0x1234_5678_9abc);
    }
}

/// Faults are store faults; cbo.zero needs write rights, the others read rights suffice.
fn faults(s: &mut Suite) {
    use super::page::{A, ALL, D, R, Space, V, W, X, leaf};
    let va = 0x10_0000_0000;
    let space = Space::new(s, 3);
    let flags = [(0, 0), (1, V | R | A | D), (2, ALL & !X), (3, V | X | A | D), (4, V | R | W | A)];
    for (page, flags) in flags {
        space.map(s, va + page * 4096, 0, leaf(BLOCK, flags));
    }
    space.enable(s, 0);
    envcfg(s, CBIE_INVAL | CBCFE | CBZE, 0);
    for (name, word, _) in operations() {
        for (page, what) in [(0u64, "missing"), (1, "read-only"), (2, "writable")] {
            let ok = page == 2 || page == 1 && name != "cbo.zero";
            s.case(&format!("{name} of a {what} page"));
            s.li(A1, va + page * 4096 + 64);
            let resume = s.arm();
            s.enter(Mode::S);
            s.word(word);
            rv!(s; ecall; =>resume);
            s.check_record(crate::suite::record::MCAUSE, if ok { 9 } else { 15 });
            if !ok {
                s.check_record(crate::suite::record::MTVAL, va + page * 4096 + 64);
            }
        }
    }
    rv!(s; csrw satp, zero);
    envcfg(s, 0, 0);
}

/// Prefetches never trap and change nothing.
fn prefetch(s: &mut Suite) {
    s.case("prefetches of memory, of nothing, of nonsense");
    for at in [BLOCK, 0x0800_0000, 0, u64::MAX - 63, 1 << 63] {
        s.li(A1, at);
        rv!(s; prefetch.i [a1, 0]; prefetch.r [a1, 32]; prefetch.w [a1, -2048]; prefetch.w [a1, 2016]);
        s.check(A1, at);
    }
    s.case("prefetches in U-mode");
    s.in_mode(Mode::U, |s| rv!(s; prefetch.i [a1, 0]; prefetch.r [a1, 0]; prefetch.w [a1, 0]));
}

/// Zawrs: both may return at once; without a reservation they must.
fn waiting(s: &mut Suite) {
    s.case("wrs.nto and wrs.sto without a reservation");
    s.li(A1, BLOCK);
    rv!(s; lr.d a0, [a1]; sc.d a2, a0, [a1]; wrs.sto; wrs.nto; li.12 a0, 3);
    s.check(A0, 3);
    s.case("wrs.sto with a reservation ends in time");
    rv!(s; lr.d a0, [a1]; wrs.sto; li.12 a0, 4);
    s.check(A0, 4);
    s.case("wrs.nto with an enabled interrupt pending");
    rv!(s; csrwi mie, 2; csrwi mip, 2; lr.d a0, [a1]; wrs.nto; li.12 a0, 5; csrw mip, zero);
    s.check(A0, 5);
    s.reset_environment();
    s.case("wrs.sto in U-mode");
    s.in_mode(Mode::U, |s| rv!(s; wrs.sto));
}
