//! Interrupts. Source: Privileged ISA, "Machine Interrupt (mip and mie) Registers", "Supervisor
//! Timer (stimecmp) Register", "Wait for Interrupt"; addresses of the CLINT as on every `virt`.

use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Mode, Suite, record, rv};

const MSIP: u64 = 0x0200_0000;
const MTIMECMP: u64 = 0x0200_4000;
const MTIME: u64 = 0x0200_bff8;
const STCE: u64 = 1 << 63;
/// `stimecmp`.
const STIMECMP: u32 = 0x14d;
const INTERRUPT: u64 = 1 << 63;

const SSI: u64 = 1;
const MSI: u64 = 3;
const STI: u64 = 5;
const MTI: u64 = 7;
const SEI: u64 = 9;

pub(super) fn define(s: &mut Suite) {
    quiet(s);
    pending(s);
    taken(s);
    masks(s);
    priority(s, false);
    vectored(s);
    sstc(s);
    waiting(s);
}

/// The sets of interrupts whose order QEMU 10.0.2 gets wrong: it takes the lowest number.
pub(super) fn define_strict(s: &mut Suite) {
    priority(s, true);
}

/// No source is active, nothing is enabled.
fn quiet(s: &mut Suite) {
    s.reset_environment();
    s.li(T5, MSIP);
    rv!(s; sw zero, [t5]);
    s.li(T5, MTIMECMP);
    rv!(s; li.12 t6, -1; sd t6, [t5]; csrw mip, zero; csrw menvcfg, zero);
}

/// Makes an interrupt pending: by the CLINT, or by the bit in mip that M-mode may write.
fn raise(s: &mut Suite, code: u64) {
    match code {
        MSI => {
            s.li(T5, MSIP);
            rv!(s; li.12 t6, 1; sw t6, [t5]);
        }
        MTI => {
            s.li(T5, MTIMECMP);
            rv!(s; sd zero, [t5]);
        }
        _ => {
            s.li(T5, 1 << code);
            rv!(s; csrs mip, t5);
        }
    }
}

/// Waits, for a while, until a bit of mip has a value.
fn await_pending(s: &mut Suite, code: u64, value: bool) {
    let (again, seen) = (s.label(), s.label());
    s.li(T5, 50_000_000);
    rv!(s; =>again; csrr t6, mip; srli t6, t6, code as u32; andi t6, t6, 1);
    if value {
        rv!(s; bnez t6, =>seen);
    } else {
        rv!(s; beqz t6, =>seen);
    }
    rv!(s; addi t5, t5, -1; bnez t5, =>again);
    s.fail();
    rv!(s; =>seen);
}

/// Spins for a while; the interrupt expected comes in it, at no particular instruction.
fn spin(s: &mut Suite) {
    let again = s.label();
    s.li(T0, 50_000_000);
    rv!(s; =>again; addi t0, t0, -1; bnez t0, =>again);
    s.fail();
}

fn pending(s: &mut Suite) {
    s.case("msip sets and clears MSIP");
    raise(s, MSI);
    await_pending(s, MSI, true);
    s.li(T5, MSIP);
    rv!(s; lw a0, [t5]; sw zero, [t5]);
    s.check(A0, 1);
    await_pending(s, MSI, false);
    s.case("only bit 0 of msip exists");
    s.li(T5, MSIP);
    rv!(s; li.12 t6, -2; sw t6, [t5]; lw a0, [t5]);
    s.check(A0, 0);
    s.case("mtimecmp below mtime sets MTIP, above it clears MTIP");
    raise(s, MTI);
    await_pending(s, MTI, true);
    s.li(T5, MTIMECMP);
    rv!(s; li.12 t6, -1; sd t6, [t5]; ld a0, [t5]);
    s.check(A0, u64::MAX);
    await_pending(s, MTI, false);
    s.case("mtime runs and is what the time CSR shows");
    s.li(T5, MTIME);
    let again = s.label();
    rv!(s; ld a0, [t5]; =>again; ld a1, [t5]; beq a0, a1, =>again; csrr a2, time; ld a3, [t5]);
    rv!(s; sltu a4, a0, a1; sltu a5, a2, a1; sltu a0, a3, a2);
    s.check(A4, 1);
    s.check(A5, 0);
    s.check(A0, 0);
    s.case("MTIP comes when mtime reaches mtimecmp");
    s.li(T5, MTIME);
    s.li(A1, MTIMECMP);
    rv!(s; ld a0, [t5]; addi a0, a0, 1000; sd a0, [a1]);
    await_pending(s, MTI, true);
    s.li(T5, MTIME);
    rv!(s; ld a1, [t5]; sltu a1, a1, a0);
    s.check(A1, 0);
    quiet(s);
}

/// Each interrupt in each mode, delegated or not: taken where, or not at all.
fn taken(s: &mut Suite) {
    for code in [MSI, MTI, SEI, SSI, STI] {
        let supervisor = matches!(code, SEI | SSI | STI);
        for mode in [Mode::M, Mode::S, Mode::U] {
            for delegated in [false, true] {
                if delegated && !supervisor {
                    continue;
                }
                // MIE and SIE of the mode that would take it.
                for enabled in [false, true] {
                    interrupt_case(s, code, mode, delegated, enabled);
                }
            }
        }
    }
}

fn interrupt_case(s: &mut Suite, code: u64, mode: Mode, delegated: bool, enabled: bool) {
    let target = if delegated { Mode::S } else { Mode::M };
    let takes = match (mode, target) {
        (Mode::M, Mode::S) => false,
        (a, b) if a == b => enabled,
        _ => true,
    };
    s.case(&format!(
        "interrupt {code} in {mode:?}, delegated: {delegated}, xIE: {enabled}, taken: {takes}"
    ));
    quiet(s);
    s.li(A0, if delegated { 1 << code } else { 0 });
    s.li(A1, 1 << code);
    rv!(s; csrw mideleg, a0; csrw mie, a1);
    raise(s, code);
    await_pending(s, code, true);
    let resume = s.arm();
    let done = s.label();
    if mode == Mode::M {
        // MIE, or SIE to show that M-mode ignores it.
        s.li(A2, if target == Mode::M { 8 } else { 2 });
        if enabled {
            rv!(s; csrs mstatus, a2);
        }
    } else {
        s.li(A2, 1 << 7 | 1 << 1 | 1 << 5);
        rv!(s; csrc mstatus, a2);
        if enabled {
            s.li(A2, if target == Mode::M { 1 << 7 } else { 1 << 1 });
            rv!(s; csrs mstatus, a2);
        }
        s.enter(mode);
    }
    if takes {
        spin(s);
        rv!(s; =>resume; csrci mstatus, 8);
        if target == Mode::M {
            s.check_record(record::MCAUSE, INTERRUPT | code);
            s.check_record(record::MTVAL, 0);
        } else {
            s.check_record(record::MCAUSE, 9);
            s.check_record(record::SCAUSE, INTERRUPT | code);
            s.check_record(record::STVAL, 0);
        }
    } else {
        // Long enough that a wrong one would come; then the ecall is what traps.
        s.li(T0, 2000);
        rv!(s; wait:; addi t0, t0, -1; bnez t0, <wait; ecall; j =>done; =>resume; csrci mstatus, 8);
        s.check_record(record::MCAUSE, 8 + mode as u64);
        rv!(s; =>done);
    }
    quiet(s);
}

/// mie masks, and sie/sip show only what is delegated.
fn masks(s: &mut Suite) {
    s.case("pending, globally enabled, but not in mie: nothing comes");
    quiet(s);
    raise(s, MSI);
    raise(s, SSI);
    await_pending(s, MSI, true);
    let resume = s.arm();
    s.li(A1, 1 << MTI | 1 << SEI | 1 << STI);
    s.li(T0, 2000);
    rv!(s; csrw mie, a1; csrsi mstatus, 8; wait:; addi t0, t0, -1; bnez t0, <wait; ecall);
    rv!(s; =>resume; csrci mstatus, 8);
    s.check_record(record::MCAUSE, 11);
    quiet(s);
    s.case("S-mode raises SSIP through sip and takes it");
    rv!(s; csrwi mideleg, 2; csrwi mie, 2);
    let resume = s.arm();
    s.li(A2, 2);
    rv!(s; csrs mstatus, a2);
    s.enter(Mode::S);
    rv!(s; csrsi sip, 2);
    spin(s);
    rv!(s; =>resume);
    s.check_record(record::SCAUSE, INTERRUPT | SSI);
    quiet(s);
}

/// MEI, MSI, MTI, SEI, SSI, STI is the order among those for one mode; M-mode's come first. The
/// sets where the first is not the lowest number are apart.
fn priority(s: &mut Suite, apart: bool) {
    let order = [MSI, MTI, SEI, SSI, STI];
    for set in 1u64..32 {
        for delegate in [0u64, 0x222, 1 << SEI] {
            let raised: Vec<u64> = (0..5).filter(|i| set >> i & 1 == 1).map(|i| order[i]).collect();
            let delegated = |code: &u64| delegate >> code & 1 == 1;
            let first_m = raised.iter().find(|c| !delegated(c));
            let first_s = raised.iter().find(|c| delegated(c));
            let deciding = raised.iter().filter(|c| first_m.is_none() || !delegated(c));
            let lowest = deciding.min();
            if (first_m.or(first_s) != lowest) != apart {
                continue;
            }
            s.case(&format!("of {raised:?}, delegated {delegate:#x}, in U"));
            quiet(s);
            let all = raised.iter().fold(0, |v, c| v | 1u64 << c);
            s.li(A0, delegate);
            s.li(A1, all);
            rv!(s; csrw mideleg, a0; csrw mie, a1);
            for &code in &raised {
                raise(s, code);
                await_pending(s, code, true);
            }
            let resume = s.arm();
            s.enter(Mode::U);
            spin(s);
            rv!(s; =>resume);
            match (first_m, first_s) {
                (Some(code), _) => s.check_record(record::MCAUSE, INTERRUPT | code),
                (None, Some(code)) => {
                    s.check_record(record::MCAUSE, 9);
                    s.check_record(record::SCAUSE, INTERRUPT | code);
                }
                (None, None) => {}
            }
        }
    }
    quiet(s);
}

/// Vectored mode: base + 4 x cause.
fn vectored(s: &mut Suite) {
    for code in [MSI, MTI, SEI, SSI, STI] {
        s.case(&format!("mtvec vectored, interrupt {code}"));
        quiet(s);
        let (base, over, taken) = (s.label(), s.label(), s.label());
        rv!(s; j =>over);
        s.align(256);
        rv!(s; =>base);
        for n in 0..12 {
            if n == code {
                rv!(s; j =>taken);
            } else {
                s.fail();
            }
        }
        rv!(s; =>over; la t0, =>base; ori t0, t0, 1; csrw mtvec, t0);
        s.li(A1, 1 << code);
        rv!(s; csrw mie, a1);
        raise(s, code);
        rv!(s; csrsi mstatus, 8);
        s.li(T0, 50_000_000);
        rv!(s; wait:; addi t0, t0, -1; bnez t0, <wait);
        s.reset_environment();
        s.fail();
        rv!(s; =>taken; csrr a0, mcause);
        s.reset_environment();
        s.check(A0, INTERRUPT | code);
    }
    for code in [SEI, SSI, STI] {
        s.case(&format!("stvec vectored, interrupt {code}"));
        quiet(s);
        let (base, over, resume) = (s.label(), s.label(), s.arm());
        rv!(s; j =>over);
        s.align(256);
        rv!(s; =>base);
        for n in 0..12 {
            if n == code {
                rv!(s; ecall);
            } else {
                s.word(0xffff_ffff);
            }
        }
        rv!(s; =>over; la t0, =>base; ori t0, t0, 1; csrw stvec, t0);
        s.li(A1, 1 << code);
        rv!(s; csrw mie, a1; csrw mideleg, a1);
        raise(s, code);
        s.enter(Mode::U);
        spin(s);
        rv!(s; =>resume; csrr a0, scause);
        s.check_record(record::MCAUSE, 9);
        s.check(A0, INTERRUPT | code);
    }
    quiet(s);
}

fn sstc(s: &mut Suite) {
    let read = raw::csr(2, A0, STIMECMP, 0);
    let write = raw::csr(1, 0, STIMECMP, A1);
    quiet(s);
    s.li(T5, STCE);
    rv!(s; csrw menvcfg, t5; csrwi mcounteren, 7; li.12 a1, -1);
    s.word(write);
    s.case("stimecmp holds 64 bits");
    s.li(A1, 0xfedc_ba98_7654_3210);
    s.word(write);
    s.word(read);
    s.check(A0, 0xfedc_ba98_7654_3210);
    s.case("S-mode reads and writes stimecmp with STCE and mcounteren.TM");
    s.in_mode(Mode::S, |s| {
        s.word(write);
        s.word(read);
    });
    s.check(A0, 0xfedc_ba98_7654_3210);
    s.illegal_in(Mode::U, "stimecmp in U", read);
    rv!(s; csrwi mcounteren, 5);
    s.illegal_in(Mode::S, "stimecmp in S without mcounteren.TM", read);
    s.illegal_in(Mode::S, "stimecmp written in S without mcounteren.TM", write);
    rv!(s; csrwi mcounteren, 7; csrw menvcfg, zero);
    s.illegal_in(Mode::S, "stimecmp in S without STCE", read);
    s.case("M-mode reads stimecmp without STCE");
    s.word(read);
    s.li(T5, STCE);
    rv!(s; csrw menvcfg, t5);

    s.case("stimecmp in the past sets STIP, in the future clears it; mip does not");
    s.li(A1, 0);
    s.word(write);
    await_pending(s, STI, true);
    rv!(s; csrw mip, zero; csrr a2, mip; li.12 a1, -1);
    s.check_masked(A2, 1 << STI, 1 << STI);
    s.word(write);
    await_pending(s, STI, false);
    s.li(A2, 1 << STI);
    rv!(s; csrs mip, a2; csrr a2, mip);
    s.check_masked(A2, 1 << STI, 0);

    for mode in [Mode::S, Mode::U] {
        s.case(&format!("a timer of S-mode fires in {mode:?}"));
        s.li(A2, 1 << STI);
        s.li(A3, 1 << 1);
        rv!(s; csrw mideleg, a2; csrw mie, a2; csrs mstatus, a3);
        s.li(T5, MTIME);
        rv!(s; ld a1, [t5]; addi a1, a1, 500);
        s.word(write);
        let resume = s.arm();
        s.enter(mode);
        spin(s);
        rv!(s; =>resume; csrr a0, time; sltu a0, a0, a1; li.12 a1, -1);
        s.word(write);
        s.check_record(record::MCAUSE, 9);
        s.check_record(record::SCAUSE, INTERRUPT | STI);
        s.check(A0, 0);
    }
    quiet(s);
}

/// wfi goes on when an enabled interrupt is pending, taken or not.
fn waiting(s: &mut Suite) {
    s.case("wfi with the interrupt already pending, MIE = 0");
    s.li(A1, 1 << MSI);
    rv!(s; csrw mie, a1);
    raise(s, MSI);
    await_pending(s, MSI, true);
    rv!(s; li.12 a0, 1);
    s.word(raw::WFI);
    rv!(s; addi a0, a0, 1);
    s.check(A0, 2);
    quiet(s);

    s.case("wfi until the timer, MIE = 0: execution goes on behind it");
    s.li(A1, 1 << MTI);
    s.li(A2, MTIME);
    s.li(A3, MTIMECMP);
    rv!(s; csrw mie, a1; ld a0, [a2]; addi a0, a0, 2000; sd a0, [a3]; again:);
    s.word(raw::WFI);
    // wfi may return early.
    rv!(s; ld a4, [a2]; bltu a4, a0, <again);
    await_pending(s, MTI, true);
    quiet(s);

    s.case("wfi until the timer, MIE = 1: the trap's mepc is behind the wfi");
    s.li(A1, 1 << MTI);
    s.li(A2, MTIME);
    s.li(A3, MTIMECMP);
    rv!(s; csrw mie, a1);
    let resume = s.arm();
    rv!(s; ld a0, [a2]; addi a0, a0, 2000; csrsi mstatus, 8; sd a0, [a3]; again:);
    let first = s.here();
    s.word(raw::WFI);
    rv!(s; j <again; =>resume; csrci mstatus, 8);
    s.check_record(record::MCAUSE, INTERRUPT | MTI);
    s.li(T6, crate::suite::RECORD);
    rv!(s; ld a0, [t6, record::MEPC]);
    s.li(A1, first);
    rv!(s; sub a0, a0, a1; sltiu a0, a0, 8);
    s.check(A0, 1);
    quiet(s);

    s.case("wfi in S-mode wakes for a delegated interrupt with SIE = 0");
    s.li(A1, 1 << SSI);
    rv!(s; csrw mie, a1; csrw mideleg, a1; csrw mip, a1; li.12 a0, 1);
    s.in_mode(Mode::S, |s| {
        s.word(raw::WFI);
        rv!(s; addi a0, a0, 1);
    });
    s.check(A0, 2);
    quiet(s);
}
