//! Address translation. Source: Privileged ISA, "Supervisor-Level ISA" and the chapters on Svnapot,
//! Svpbmt, Svinval, Svade and Svadu.

use super::page::*;
use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Mode, SCRATCH, Suite, record, rv};

/// Physical pages with a marker in their first doubleword: their own address.
const PAGES: u64 = SCRATCH;
const PAGE_COUNT: u64 = 256;
/// A page whose first instruction is `ecall`, and the one behind it.
const CODE: u64 = SCRATCH + PAGE_COUNT * 4096;
/// A physical address where nothing is.
const NOWHERE: u64 = 0x0800_0000;
/// A virtual address far from the identity mapping, valid in every mode.
const VA: u64 = 0x10_0000_0000;

const ADUE: u64 = 1 << 61;
const PBMTE: u64 = 1 << 62;

pub(super) fn define(s: &mut Suite) {
    prepare(s);
    for levels in 3..=5 {
        geometry(s, levels);
        canonical(s, levels);
    }
    for adue in [false, true] {
        permissions(s, adue);
    }
    menvcfg(s, 0);
    malformed(s);
    pbmt(s, &[0, 1, 2]);
    napot(s);
    crossing(s);
    atomics(s);
    fences(s);
    address_spaces(s);
    modes(s);
    pages_in_nothing(s);
}

/// What QEMU 10.0.2 does otherwise than the manual says.
pub(super) fn define_strict(s: &mut Suite) {
    prepare(s);
    pbmt(s, &[3]);
    walks_into_nothing(s);
}

fn menvcfg(s: &mut Suite, value: u64) {
    s.li(T5, value);
    rv!(s; csrw menvcfg, t5);
}

/// Markers, code, and hardware A/D update off.
fn prepare(s: &mut Suite) {
    s.li(A0, PAGES);
    s.li(A1, PAGES + PAGE_COUNT * 4096);
    s.li(A2, 4096);
    rv!(s; again:; sd a0, [a0]; add a0, a0, a2; bltu a0, a1, <again);
    s.li(A0, CODE);
    rv!(s; li.12 a1, 0x73; sd a1, [a0]; fence.i);
    menvcfg(s, 0);
}

fn name(levels: u32) -> &'static str {
    ["Sv39", "Sv48", "Sv57"][levels as usize - 3]
}

/// Leaves on every level, aligned and not, in both halves of the address space.
fn geometry(s: &mut Suite, levels: u32) {
    let top = 1u64 << (9 * levels + 11);
    for half in [0, u64::MAX - (top - 1)] {
        for level in 0..levels {
            let space = Space::new(s, levels);
            let mask = (1u64 << (12 + 9 * level)) - 1;
            // A slot of the root that the identity mapping does not use.
            let base = half + (top / 256) * 129;
            let base = base & !mask;
            let pa = PAGES & !mask;
            let entry = space.map(s, base, level, leaf(pa, ALL));
            space.enable(s, 0);
            let what = format!("{} level {level} leaf", name(levels));
            for target in [PAGES, PAGES + 0x7000] {
                if target & !mask != pa {
                    continue;
                }
                let va = base | target & mask;
                access(s, &what, Access::Load, Mode::S, va, Outcome::Reads(target));
                access(s, &what, Access::Store, Mode::S, va + 16, Outcome::Ok);
                s.check_mem(target + 16, va + 16);
            }
            if CODE & !mask == pa {
                access(s, &what, Access::Fetch, Mode::S, base | CODE & mask, Outcome::Ok);
            }
            for bit in 0..9 * level {
                set_entry(s, entry, leaf(pa | 4096 << bit, ALL));
                let what = format!("{what}, misaligned in bit {bit}");
                for kind in Access::EACH {
                    let trap = Outcome::Trap(kind.page_fault());
                    access(s, &what, kind, Mode::S, base, trap);
                    if bit % 4 != 0 {
                        break;
                    }
                }
            }
            rv!(s; csrw satp, zero);
        }
    }
}

/// Bits above the top one must equal it.
fn canonical(s: &mut Suite, levels: u32) {
    let top = 9 * levels + 11;
    let space = Space::new(s, levels);
    space.enable(s, 0);
    for bit in top + 1..64 {
        for va in [0x8000_0000 ^ 1 << bit, (u64::MAX << top | PAGES & ((1 << top) - 1)) ^ 1 << bit]
        {
            for kind in Access::EACH {
                let trap = Outcome::Trap(kind.page_fault());
                access(s, &format!("{} non-canonical", name(levels)), kind, Mode::S, va, trap);
                if bit != top + 1 && bit != 63 {
                    break;
                }
            }
        }
    }
    let what = format!("{} sign bit without its extension", name(levels));
    access(s, &what, Access::Load, Mode::S, 1 << top, Outcome::Trap(13));
    rv!(s; csrw satp, zero);
}

/// Whether an access with these rights is allowed by a leaf, A and D aside.
fn allowed(pte: u64, mode: Mode, sum: bool, mxr: bool, kind: Access) -> bool {
    if pte & V == 0 || pte & (R | W) == W || pte & (R | X) == 0 {
        return false;
    }
    let user = pte & U != 0;
    match kind {
        Access::Fetch => pte & X != 0 && user == (mode == Mode::U),
        _ if mode == Mode::U && !user => false,
        _ if mode == Mode::S && user && !sum => false,
        Access::Load => pte & R != 0 || mxr && pte & X != 0,
        Access::Store => pte & W != 0,
    }
}

/// Every combination of V R W X U A D, mode, SUM, MXR and kind of access, in one loop of rows
/// `[pte, mstatus bits, kind, cause, pte afterwards]`.
fn permissions(s: &mut Suite, adue: bool) {
    menvcfg(s, if adue { ADUE } else { 0 });
    let mut rows = Vec::new();
    for flags in 0..256u64 {
        if flags & G != 0 || flags & V == 0 && flags & (A | D) != 0 {
            continue;
        }
        for mode in [Mode::S, Mode::U] {
            for (sum, mxr) in [(false, false), (false, true), (true, false), (true, true)] {
                for kind in Access::EACH {
                    let pte = leaf(CODE, flags);
                    let mut ok = allowed(flags, mode, sum, mxr, kind);
                    let mut after = pte;
                    let needed = if kind == Access::Store { A | D } else { A };
                    if ok && adue {
                        after |= needed;
                    } else if pte & needed != needed {
                        ok = false;
                    }
                    let cause = match kind {
                        _ if !ok => kind.page_fault(),
                        Access::Fetch => 8 + mode as u64,
                        _ => 0,
                    };
                    let status = (mode as u64) << 11 | u64::from(sum) << 18 | u64::from(mxr) << 19;
                    rows.push([pte, status, kind as u64, cause, after]);
                }
            }
        }
    }
    let space = Space::new(s, 3);
    let entry = space.map(s, VA, 0, 0);
    space.enable(s, 0);
    let table = s.table(rows.as_flattened());
    let count = rows.len() as u32;
    s.cases(&format!("permissions, ADUE = {adue}: see paging.rs for the order of rows"), count);
    s.li(S5, entry);
    s.li(S6, VA);
    s.li(S7, 1 << 17 | 1 << 18 | 1 << 19 | 3 << 11);
    s.li(S8, 1 << 17);
    s.rows(table, count, 5, |s| {
        let (store, fetch, done, checked) = (s.label(), s.label(), s.label(), s.label());
        rv!(s; ld a0, [s2, 0]; sd a0, [s5]);
        s.word(raw::sfence_vma(S6, 0));
        rv!(s; ld a1, [s2, 8]; ld a2, [s2, 16]; csrc mstatus, s7; csrs mstatus, a1);
        s.li(T6, crate::suite::RECORD);
        rv!(s; sd zero, [t6, record::MCAUSE]);
        let resume = s.arm();
        rv!(s
            ; li.12 a3, 1
            ; li.12 a4, 0x73
            ; beq a2, a3, =>store
            ; bltu a3, a2, =>fetch
            ; csrs mstatus, s8
            ; ld a4, [s6]
            ; csrc mstatus, s8
            ; j =>done
            ; =>store
            ; csrs mstatus, s8
            ; sd a4, [s6] // the ecall again
            ; csrc mstatus, s8
            ; j =>done
            ; =>fetch
            ; csrw mepc, s6
        );
        s.word(raw::MRET);
        rv!(s; =>resume; =>done; csrc mstatus, s7);
        s.disarm();
        rv!(s; ld a0, [t6, record::MCAUSE]; ld a1, [t6, record::MTVAL]; ld s4, [s2, 24]);
        s.check_eq(A0, S4);
        // mtval of a page fault is the address.
        rv!(s; li.12 a2, 12; bltu a0, a2, =>checked);
        s.check_eq(A1, S6);
        rv!(s; =>checked; ld a0, [s5]; ld s4, [s2, 32]);
        s.check_eq(A0, S4);
    });
    rv!(s; csrw satp, zero);
    s.reset_environment();

    // The same update in a superpage, and by LR and AMO.
    let space = Space::new(s, 4);
    let entry = space.map(s, VA, 1, leaf(PAGES, V | R | W));
    space.enable(s, 0);
    let trap = |k: Access| if adue { Outcome::Ok } else { Outcome::Trap(k.page_fault()) };
    access(s, "A in a superpage", Access::Load, Mode::S, VA, trap(Access::Load));
    s.check_mem(entry, leaf(PAGES, V | R | W | if adue { A } else { 0 }));
    access(s, "D in a superpage", Access::Store, Mode::S, VA + 64, trap(Access::Store));
    s.check_mem(entry, leaf(PAGES, V | R | W | if adue { A | D } else { 0 }));
    rv!(s; csrw satp, zero);
}

/// Sets an entry at run time and fences its address.
fn set_entry(s: &mut Suite, entry: u64, pte: u64) {
    s.li(T5, entry);
    s.li(T6, pte);
    rv!(s; sd t6, [t5]);
    s.word(raw::sfence_vma(0, 0));
}

fn malformed(s: &mut Suite) {
    let space = Space::new(s, 3);
    let entry = space.map(s, VA, 0, leaf(PAGES, ALL));
    let pointer = space.entry(s, VA, 1);
    let top = space.entry(s, VA, 2);
    let (good, next, above) = (leaf(PAGES, ALL), s.peek(pointer), s.peek(top));
    space.enable(s, 0);
    access(s, "well formed", Access::Load, Mode::S, VA, Outcome::Reads(PAGES));
    for bit in 54..61 {
        for (at, value, what) in
            [(entry, good, "leaf"), (pointer, next, "pointer"), (top, above, "top pointer")]
        {
            set_entry(s, at, value | 1 << bit);
            let what = format!("reserved bit {bit} in a {what}");
            access(s, &what, Access::Load, Mode::S, VA, Outcome::Trap(13));
            set_entry(s, at, value);
        }
    }
    for (bit, what) in [(4, "U"), (6, "A"), (7, "D"), (61, "PBMT"), (62, "PBMT"), (63, "N")] {
        set_entry(s, pointer, next | 1 << bit);
        access(s, &format!("{what} in a pointer"), Access::Load, Mode::S, VA, Outcome::Trap(13));
        set_entry(s, pointer, next);
    }
    for rsw in [1u64, 2, 3] {
        set_entry(s, entry, good | rsw << 8);
        access(s, "RSW is software's", Access::Load, Mode::S, VA, Outcome::Reads(PAGES));
        set_entry(s, pointer, next | rsw << 8);
        access(s, "RSW in a pointer", Access::Load, Mode::S, VA, Outcome::Reads(PAGES));
        set_entry(s, pointer, next);
    }
    for (at, what) in [(entry, "leaf"), (pointer, "pointer"), (top, "top pointer")] {
        let old = s.peek(at);
        set_entry(s, at, old & !V);
        for kind in Access::EACH {
            let trap = Outcome::Trap(kind.page_fault());
            access(s, &format!("invalid {what}"), kind, Mode::S, VA, trap);
        }
        set_entry(s, at, old);
    }
    set_entry(s, entry, next & !(R | W | X) | V);
    access(s, "pointer on the last level", Access::Load, Mode::S, VA, Outcome::Trap(13));
    set_entry(s, entry, good | G);
    access(s, "global leaf", Access::Load, Mode::S, VA, Outcome::Reads(PAGES));
    set_entry(s, pointer, next | G);
    access(s, "global pointer", Access::Load, Mode::S, VA, Outcome::Reads(PAGES));
    rv!(s; csrw satp, zero);
}

/// Memory types; the reserved type 3 is apart, since QEMU 10.0.2 takes it.
fn pbmt(s: &mut Suite, types: &[u64]) {
    for on in [true, false] {
        menvcfg(s, if on { PBMTE } else { 0 });
        for (level, target) in [(0, PAGES), (1, PAGES)] {
            let space = Space::new(s, 3);
            let entry = space.map(s, VA, level, leaf(target, ALL));
            space.enable(s, 0);
            for &pbmt in types {
                set_entry(s, entry, leaf(target, ALL) | pbmt << 61);
                let fine = pbmt == 0 || on && pbmt != 3;
                let what = format!("PBMT {pbmt}, PBMTE {on}, level {level}");
                let outcome = if fine { Outcome::Reads(target) } else { Outcome::Trap(13) };
                access(s, &what, Access::Load, Mode::S, VA, outcome);
                let outcome = if fine { Outcome::Ok } else { Outcome::Trap(15) };
                access(s, &what, Access::Store, Mode::S, VA + 8, outcome);
            }
        }
    }
    menvcfg(s, 0);
    rv!(s; csrw satp, zero);
}

fn napot(s: &mut Suite) {
    let space = Space::new(s, 3);
    let mut entries = Vec::new();
    for page in 0..16 {
        let pte = leaf(PAGES + 0x8000, ALL) | N;
        entries.push(space.map(s, VA + page * 4096, 0, pte));
    }
    let big = VA + (1 << 21);
    let superpage = space.map(s, big, 1, leaf(PAGES, ALL));
    space.enable(s, 0);
    for page in [0u64, 1, 7, 8, 9, 15] {
        let va = VA + page * 4096;
        let reads = Outcome::Reads(PAGES + page * 4096);
        access(s, "64 KiB page", Access::Load, Mode::S, va, reads);
        access(s, "64 KiB page", Access::Store, Mode::S, va + 24, Outcome::Ok);
        s.check_mem(PAGES + page * 4096 + 24, va + 24);
    }
    for low in (0..16u64).filter(|l| *l != 8) {
        set_entry(s, entries[0], leaf(PAGES + low * 4096, ALL) | N);
        let what = format!("N with ppn[3:0] = {low} is reserved");
        access(s, &what, Access::Load, Mode::S, VA, Outcome::Trap(13));
    }
    set_entry(s, superpage, leaf(PAGES, ALL) | N);
    access(s, "N in a superpage is reserved", Access::Load, Mode::S, big, Outcome::Trap(13));
    rv!(s; csrw satp, zero);
}

/// Accesses over a page end whose pages lie apart, or of which one is missing.
fn crossing(s: &mut Suite) {
    let space = Space::new(s, 3);
    let (first, second) = (PAGES + 0x5000, PAGES + 0x2000);
    space.map(s, VA, 0, leaf(first, ALL));
    let entry = space.map(s, VA + 4096, 0, leaf(second, ALL));
    space.enable(s, 0);
    s.case("misaligned accesses over pages that lie apart");
    s.li(A0, first + 4088);
    s.li(A1, 0x1122_3344_5566_7788);
    s.li(A2, second);
    s.li(A3, 0x99aa_bbcc_ddee_ff00);
    rv!(s; sd a1, [a0]; sd a3, [a2]);
    access_again(
        s,
        Access::Load,
        Mode::S,
        VA + 4091,
        Outcome::Reads(0xee_ff00_1122_3344 << 8 | 0x55),
    );
    access_again(s, Access::Store, Mode::S, VA + 4092, Outcome::Ok);
    s.check_mem(first + 4088, (VA + 4092) << 32 | 0x5566_7788);
    s.check_mem(second, 0x99aa_bbcc_0000_0010);
    // 0x00550513 = addi a0, a0, 5, its halves in two pages, and an ecall behind it.
    s.case("an instruction over pages that lie apart");
    s.li(A0, first + 4094);
    s.li(A1, 0x0513);
    s.li(A2, second);
    s.li(A3, 0x0073_0055);
    rv!(s; sh a1, [a0]; sd a3, [a2]; li.12 a0, 1; fence.i);
    let resume = s.arm();
    s.li(T0, VA + 4094);
    s.li(T1, 3 << 11);
    s.li(T2, 1 << 11);
    rv!(s; csrc mstatus, t1; csrs mstatus, t2; csrw mepc, t0);
    s.word(raw::MRET);
    rv!(s; =>resume);
    s.check_record(record::MCAUSE, 9);
    s.check_record(record::MEPC, VA + 4098);
    s.check(A0, 6);

    set_entry(s, entry, 0);
    for (kind, back) in [(Access::Load, 4), (Access::Store, 1), (Access::Load, 7)] {
        s.case(&format!("{kind:?} {back} bytes before a missing page: mtval is that page"));
        let resume = s.arm();
        s.li(A1, VA + 4096 - back);
        s.li(A3, 1 << 17 | 3 << 11);
        s.li(A2, 1 << 17 | 1 << 11);
        rv!(s; csrc mstatus, a3; csrs mstatus, a2);
        if kind == Access::Load {
            rv!(s; ld a0, [a1]);
        } else {
            rv!(s; sd a0, [a1]);
        }
        rv!(s; csrc mstatus, a3);
        s.fail();
        rv!(s; =>resume);
        s.check_record(record::MCAUSE, kind.page_fault());
        s.check_record(record::MTVAL, VA + 4096);
    }
    s.case("an instruction whose second half is missing: mepc its start, mtval the page");
    let resume = s.arm();
    s.li(T0, VA + 4094);
    rv!(s; csrc mstatus, t1; csrs mstatus, t2; csrw mepc, t0);
    s.word(raw::MRET);
    rv!(s; =>resume);
    s.check_record(record::MCAUSE, 12);
    s.check_record(record::MEPC, VA + 4094);
    s.check_record(record::MTVAL, VA + 4096);
    rv!(s; csrw satp, zero);
    prepare(s);
}

fn atomics(s: &mut Suite) {
    let space = Space::new(s, 3);
    let read_only = VA;
    let none = VA + 4096;
    let clean = VA + 2 * 4096;
    space.map(s, read_only, 0, leaf(PAGES, V | R | A | D));
    space.map(s, clean, 0, leaf(PAGES, V | R | W | A));
    space.map(s, none, 0, leaf(PAGES, V | X | A | D));
    space.enable(s, 0);
    macro_rules! expect {
        ($name:expr, $va:expr, $cause:expr, $($code:tt)*) => {
            s.case($name);
            let resume = s.arm();
            s.li(A1, $va);
            s.li(A3, 1 << 17 | 3 << 11);
            s.li(A2, 1 << 17 | 1 << 11);
            rv!(s; csrc mstatus, a3; csrs mstatus, a2; $($code)*; csrc mstatus, a3);
            s.fail();
            rv!(s; =>resume);
            s.check_record(record::MCAUSE, $cause);
            s.check_record(record::MTVAL, $va);
        };
    }
    expect!("AMO on a read-only page is a store fault", read_only, 15, amoadd.d a0, a0, [a1]);
    expect!("AMO on an execute-only page is a store fault", none, 15, amoswap.w a0, a0, [a1]);
    expect!("AMO on a clean page is a store fault", clean, 15, amoor.d x0, x0, [a1]);
    expect!("LR on an execute-only page is a load fault", none, 13, lr.d a0, [a1]);
    expect!("LR and SC on a read-only page: SC is a store fault", read_only, 15, lr.d a0, [a1]; sc.d a0, a0, [a1]);
    rv!(s; csrw satp, zero);
}

fn fences(s: &mut Suite) {
    let space = Space::new(s, 4);
    let entry = space.map(s, VA, 0, leaf(PAGES, ALL));
    let other = space.map(s, VA + 4096, 0, leaf(PAGES + 0x1000, ALL | G));
    space.enable(s, 5);
    let fence = |s: &mut Suite, which: u32| {
        s.li(A4, VA);
        s.li(A5, 5);
        s.li(S0, VA + 4096);
        match which {
            0 => s.word(raw::sfence_vma(0, 0)),
            1 => {
                s.word(raw::sfence_vma(A4, 0));
                s.word(raw::sfence_vma(S0, 0));
            }
            2 => {
                s.word(raw::sfence_vma(0, A5));
                s.word(raw::sfence_vma(S0, 0));
            }
            3 => {
                s.word(raw::sfence_vma(A4, A5));
                s.word(raw::sfence_vma(S0, 0));
            }
            4 => {
                s.word(raw::SFENCE_W_INVAL);
                s.word(raw::sinval_vma(A4, 0));
                s.word(raw::sinval_vma(S0, 0));
                s.word(raw::SFENCE_INVAL_IR);
            }
            _ => {
                s.word(raw::SFENCE_W_INVAL);
                s.word(raw::sinval_vma(0, 0));
                s.word(raw::SFENCE_INVAL_IR);
            }
        }
    };
    let store = |s: &mut Suite, entry: u64, pte: u64| {
        s.li(T5, entry);
        s.li(T6, pte);
        rv!(s; sd t6, [t5]);
    };
    for which in 0..6 {
        let what = format!("fence kind {which}");
        access(s, &what, Access::Load, Mode::S, VA, Outcome::Reads(PAGES));
        access(s, &what, Access::Load, Mode::S, VA + 4096, Outcome::Reads(PAGES + 0x1000));
        store(s, entry, leaf(PAGES + 0x3000, ALL));
        store(s, other, leaf(PAGES + 0x4000, ALL | G));
        fence(s, which);
        access(s, &what, Access::Load, Mode::S, VA, Outcome::Reads(PAGES + 0x3000));
        access(s, &what, Access::Load, Mode::S, VA + 4096, Outcome::Reads(PAGES + 0x4000));
        access(s, &what, Access::Store, Mode::S, VA + 8, Outcome::Ok);
        // Rights shrink.
        store(s, entry, leaf(PAGES, V | R | A));
        fence(s, which);
        access(s, &what, Access::Store, Mode::S, VA + 8, Outcome::Trap(15));
        access(s, &what, Access::Fetch, Mode::S, VA, Outcome::Trap(12));
        store(s, entry, 0);
        fence(s, which);
        access(s, &what, Access::Load, Mode::S, VA, Outcome::Trap(13));
        store(s, entry, leaf(PAGES, ALL));
        store(s, other, leaf(PAGES + 0x1000, ALL | G));
        fence(s, which);
    }
    // The address of a fence is any within the page; a table above changes.
    let pointer = space.entry(s, VA, 1);
    let old = s.peek(pointer);
    access(s, "before the table goes", Access::Load, Mode::S, VA, Outcome::Reads(PAGES));
    store(s, pointer, 0);
    s.li(A4, VA + 0xabc);
    s.word(raw::sfence_vma(A4, 0));
    access(s, "after the table went", Access::Load, Mode::S, VA, Outcome::Trap(13));
    store(s, pointer, old);
    s.word(raw::sfence_vma(0, 0));
    rv!(s; csrw satp, zero);
}

/// satp switches between address spaces with distinct ASIDs need no fence.
fn address_spaces(s: &mut Suite) {
    let (one, two) = (Space::new(s, 3), Space::new(s, 3));
    let third = Space::new(s, 5);
    one.map(s, VA, 0, leaf(PAGES + 0x1000, ALL));
    two.map(s, VA, 0, leaf(PAGES + 0x2000, ALL));
    third.map(s, VA, 0, leaf(PAGES + 0x3000, ALL));
    s.word(raw::sfence_vma(0, 0));
    for round in 0..3 {
        for (space, asid, offset) in
            [(one, 1u64, 0x1000), (two, 2, 0x2000), (third, 0xffff, 0x3000), (two, 2, 0x2000)]
        {
            s.li(T5, space.satp(asid));
            rv!(s; csrw satp, t5);
            let what = format!("ASID {asid}, round {round}");
            access(s, &what, Access::Load, Mode::S, VA, Outcome::Reads(PAGES + offset));
        }
        rv!(s; csrw satp, zero);
        access(s, "bare again", Access::Load, Mode::S, PAGES, Outcome::Reads(PAGES));
    }
    // One ASID keeps its translations over a fence of another.
    s.case("a fence by ASID reaches that address space");
    s.li(T5, one.satp(1));
    rv!(s; csrw satp, t5);
    access_again(s, Access::Load, Mode::S, VA, Outcome::Reads(PAGES + 0x1000));
    let entry = one.entry(s, VA, 0);
    s.li(T5, entry);
    s.li(T6, leaf(PAGES + 0x6000, ALL));
    rv!(s; sd t6, [t5]);
    s.li(T5, two.satp(2));
    rv!(s; csrw satp, t5; li.12 a0, 1);
    s.word(raw::sfence_vma(0, A0));
    s.li(T5, one.satp(1));
    rv!(s; csrw satp, t5);
    access_again(s, Access::Load, Mode::S, VA, Outcome::Reads(PAGES + 0x6000));
    rv!(s; csrw satp, zero);
}

/// Code that really runs in S and U, M-mode and MPRV, faults delegated to S.
fn modes(s: &mut Suite) {
    let space = Space::new(s, 4);
    space.map(s, VA, 0, leaf(PAGES + 0x9000, V | R | W | U | A | D));
    space.map(s, VA + 4096, 0, leaf(PAGES + 0xa000, V | R | W | A | D));
    // User code: ld a0, (a1); ecall.
    let code = s.bytes(4096, &[0; 4096]);
    s.poke(code, 0x0000_0073_0005_b503);
    space.map(s, VA + 8192, 0, leaf(code, V | R | X | U | A));
    space.enable(s, 0);

    s.case("S-mode code runs translated");
    s.li(A1, VA + 4096);
    s.li(A2, 0x1234);
    s.in_mode(Mode::S, |s| rv!(s; ld a0, [a1]; sd a2, [a1, 8]; ld a3, [a1, 8]));
    s.check(A0, PAGES + 0xa000);
    s.check(A3, 0x1234);
    s.check_mem(PAGES + 0xa008, 0x1234);

    s.case("M-mode is not translated, whatever MPP says, without MPRV");
    s.li(A1, PAGES);
    s.li(A2, 3 << 11);
    rv!(s; csrc mstatus, a2; ld a0, [a1]);
    s.check(A0, PAGES);
    s.case("MPRV with MPP = M is not translated");
    s.li(A3, 1 << 17 | 3 << 11);
    rv!(s; csrs mstatus, a3; ld a0, [a1]; csrc mstatus, a3);
    s.check(A0, PAGES);

    for (target, cause) in [(VA, 8u64), (VA + 4096, 13), (PAGES, 13)] {
        for delegated in [false, true] {
            s.case(&format!("U-mode code loads {target:#x}, delegated: {delegated}"));
            s.li(A0, if delegated { 1 << 13 } else { 0 });
            rv!(s; csrw medeleg, a0);
            let resume = s.arm();
            s.li(A1, target);
            s.li(T0, VA + 8192);
            s.li(T1, 3 << 11);
            rv!(s; csrc mstatus, t1; csrw mepc, t0);
            s.word(raw::MRET);
            rv!(s; =>resume; csrw medeleg, zero);
            if delegated && cause == 13 {
                s.check_record(record::MCAUSE, 9);
                s.check_record(record::SCAUSE, 13);
                s.check_record(record::STVAL, target);
                s.check_record(record::SEPC, VA + 8192);
            } else {
                s.check_record(record::MCAUSE, cause);
                s.check_record(record::MEPC, VA + 8192 + if cause == 8 { 4 } else { 0 });
                s.check_record(record::MTVAL, if cause == 8 { 0 } else { target });
            }
            if cause == 8 {
                s.check(A0, PAGES + 0x9000);
            }
        }
    }
    s.case("SUM in real S-mode");
    s.li(A1, VA);
    let resume = s.arm();
    s.enter(Mode::S);
    let epc = s.here();
    rv!(s; ld a0, [a1]);
    s.fail();
    rv!(s; =>resume);
    s.check_record(record::MCAUSE, 13);
    s.check_record(record::MEPC, epc);
    s.li(A2, 1 << 18);
    rv!(s; csrs mstatus, a2);
    s.in_mode(Mode::S, |s| rv!(s; ld a0, [a1]));
    s.check(A0, PAGES + 0x9000);
    rv!(s; csrc mstatus, a2);
    s.case("U-mode cannot fetch supervisor code");
    let resume = s.arm();
    s.enter(Mode::U);
    let epc = s.here();
    rv!(s; nop; ecall; =>resume);
    s.check_record(record::MCAUSE, 12);
    s.check_record(record::MEPC, epc);
    s.check_record(record::MTVAL, epc);
    rv!(s; csrw satp, zero);
}

/// A page where no memory is raises access faults.
fn pages_in_nothing(s: &mut Suite) {
    let space = Space::new(s, 3);
    space.map(s, VA, 0, leaf(NOWHERE, ALL));
    space.enable(s, 0);
    for kind in Access::EACH {
        let trap = Outcome::Trap(kind.access_fault());
        access(s, "page where nothing is", kind, Mode::S, VA, trap);
    }
    rv!(s; csrw satp, zero);
}

/// A table where no memory is raises access faults of the original access.
fn walks_into_nothing(s: &mut Suite) {
    let space = Space::new(s, 3);
    space.map(s, VA, 1, leaf(NOWHERE, V));
    space.enable(s, 0);
    for kind in Access::EACH {
        let trap = Outcome::Trap(kind.access_fault());
        access(s, "table where nothing is", kind, Mode::S, VA + 0x123450, trap);
    }
    rv!(s; csrw satp, zero);
    s.case("satp points where nothing is");
    // The guest's own code runs in M-mode, so nothing else is translated.
    s.li(T5, 8 << 60 | NOWHERE >> 12);
    rv!(s; csrw satp, t5);
    s.word(raw::sfence_vma(0, 0));
    access_again(s, Access::Load, Mode::S, VA, Outcome::Trap(5));
    rv!(s; csrw satp, zero);
}
