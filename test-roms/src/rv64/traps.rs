//! Exceptions, delegation, returns. Source: Privileged ISA, sections on `mcause`, `medeleg`,
//! `mtvec`, `mstatus`, "Trap-Return Instructions", "Wait for Interrupt".

use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Mode, SCRATCH, Suite, record, rv};

/// An address where no board has a device.
const NOWHERE: u64 = 0x0800_0000;

pub(super) fn define(s: &mut Suite) {
    illegal(s);
    breakpoints_and_calls(s);
    access_faults(s);
    state(s);
    returns(s);
    delegation(s);
    vectors(s);
    virtualisation(s);
}

fn illegal(s: &mut Suite) {
    for (name, word) in [
        ("all ones", 0xffff_ffffu32),
        ("OP with funct7 0x7f", 0xfe00_0033),
        ("OP-IMM slli with funct6 0x3f", 0xfc00_1013),
        ("slliw with shamt[5]", 0x0205_151b),
        ("OP-32 funct3 2", 0x0000_203b),
        ("LOAD funct3 7", 0x0000_7003),
        ("STORE funct3 4", 0x0000_4023),
        ("BRANCH funct3 2", 0x0000_2063),
        ("BRANCH funct3 3", 0x0000_3063),
        ("JALR funct3 1", 0x0000_1067),
        ("opcode 0x6b", 0x0000_006b),
        ("48-bit prefix", 0x0000_001f),
        ("64-bit prefix", 0x0000_003f),
        ("SYSTEM ecall with rd", 0x0000_00f3),
        ("SYSTEM ebreak with rs1", 0x0010_80f3),
        ("mret with rd", raw::MRET | 0x80),
        ("wfi with rs1", raw::WFI | 1 << 15),
        ("uret is gone", 0x0020_0073),
        ("hypervisor load without H", 0x6000_4073),
        ("vector without V", 0x0000_0057),
        ("csrrw x0, cycle, x0", 0xc000_1073),
        ("unimp", 0xc000_1073),
    ] {
        for mode in [Mode::M, Mode::S, Mode::U] {
            s.illegal_in(mode, &format!("illegal: {name} in {mode:?}"), word);
        }
    }
    for (name, half) in [
        ("all zeros", 0x0000u16),
        ("c.addi4spn with 0", 0x0004),
        ("quadrant 0 funct3 4, bit 12", 0x9000),
        ("c.addiw to x0", 0x2005),
        ("c.addi16sp 0", 0x6101),
        ("c.lui 0", 0x6201),
        ("reserved arithmetic 0x9c65 group", 0x9c79),
        ("c.lwsp to x0", 0x4002),
        ("c.ldsp to x0", 0x6002),
        ("c.jr x0", 0x8002),
    ] {
        s.traps(&format!("illegal: {name}"), 2, Some(half.into()), |s| {
            s.half(half);
            s.half(0x0001);
        });
    }
}

fn breakpoints_and_calls(s: &mut Suite) {
    for mode in [Mode::M, Mode::S, Mode::U] {
        // mtval is the address of the instruction or zero; ours is the address, as Spike's and
        // QEMU's.
        s.case(&format!("ebreak in {mode:?}"));
        let resume = s.arm();
        if mode != Mode::M {
            s.enter(mode);
        }
        let at = s.here();
        rv!(s; ebreak);
        s.fail();
        rv!(s; =>resume);
        s.check_record(record::MCAUSE, 3);
        s.check_record(record::MEPC, at);
        s.check_record(record::MTVAL, at);
        s.traps_in(mode, "ecall", 8 + mode as u64, Some(0), |_| (), |s| rv!(s; ecall));
    }
    s.case("c.ebreak");
    let resume = s.arm();
    let at = s.here();
    rv!(s; c.ebreak; c.nop);
    s.fail();
    rv!(s; =>resume);
    s.check_record(record::MCAUSE, 3);
    s.check_record(record::MEPC, at);
}

fn access_faults(s: &mut Suite) {
    for mode in [Mode::M, Mode::S, Mode::U] {
        let set = |s: &mut Suite| s.li(A1, NOWHERE + 8);
        macro_rules! each {
            ($cause:expr; $($i:ident)*) => {$(
                let name = format!("{} where nothing is, in {mode:?}", stringify!($i));
                s.traps_in(mode, &name, $cause, Some(NOWHERE), set, |s| rv!(s; $i a0, [a1, -8]));
            )*};
        }
        each!(5; lb lbu lh lhu lw lwu ld);
        each!(7; sb sh sw sd);
        s.traps_in(mode, "lr where nothing is", 5, Some(NOWHERE + 8), set, |s| {
            rv!(s; lr.w a0, [a1]);
        });
        s.traps_in(mode, "amoadd where nothing is", 7, Some(NOWHERE + 8), set, |s| {
            rv!(s; amoadd.d a0, a0, [a1]);
        });
        s.case("jump where nothing is");
        let resume = s.arm();
        if mode != Mode::M {
            s.enter(mode);
        }
        s.li(A1, NOWHERE + 2);
        rv!(s; jalr a0, a1, 0);
        let link = s.here();
        s.fail();
        rv!(s; =>resume);
        s.check_record(record::MCAUSE, 1);
        s.check_record(record::MEPC, NOWHERE + 2);
        s.check_record(record::MTVAL, NOWHERE + 2);
        s.check(A0, link);
    }
    s.case("a load that faults leaves rd alone");
    s.li(A0, 1234);
    s.li(A1, NOWHERE);
    let resume = s.arm();
    rv!(s; ld a0, [a1]; =>resume);
    s.check(A0, 1234);
    s.case("rd = rs1 of a load that faults survives");
    let resume = s.arm();
    rv!(s; ld a1, [a1]; =>resume);
    s.check(A1, NOWHERE);
    s.case("a load to x0 faults all the same");
    let resume = s.arm();
    rv!(s; lw x0, [a1]);
    s.fail();
    rv!(s; =>resume);
    s.check_record(record::MCAUSE, 5);
}

/// What a trap does to mstatus.
fn state(s: &mut Suite) {
    let bits = 1u64 << 3 | 1 << 7 | 3 << 11;
    for mode in [Mode::M, Mode::S, Mode::U] {
        for mie in [0u64, 1] {
            s.case(&format!("trap from {mode:?} with MIE = {mie}"));
            let resume = s.arm();
            if mode == Mode::M {
                s.li(A0, mie << 3);
                rv!(s; csrci mstatus, 8; csrs mstatus, a0; ecall);
            } else {
                // mret makes MIE = MPIE.
                s.li(A0, mie << 7);
                s.li(A1, 1 << 7);
                rv!(s; csrc mstatus, a1; csrs mstatus, a0);
                s.enter(mode);
                rv!(s; ecall);
            }
            rv!(s; =>resume; csrci mstatus, 8);
            s.li(T6, crate::suite::RECORD);
            rv!(s; ld a0, [t6, record::MSTATUS]);
            s.check_masked(A0, bits, mie << 7 | (mode as u64) << 11);
        }
    }
    s.case("a trap into M-mode keeps SPP, SPIE, SIE, SUM, MXR");
    let keep = 1u64 << 1 | 1 << 5 | 1 << 8 | 1 << 18 | 1 << 19;
    s.li(A0, keep);
    rv!(s; csrs mstatus, a0);
    let resume = s.arm();
    rv!(s; ecall; =>resume; csrr a1, mstatus; csrc mstatus, a0);
    s.check_masked(A1, keep, keep);
}

fn returns(s: &mut Suite) {
    let bits = 1u64 << 3 | 1 << 7 | 3 << 11 | 1 << 17;
    for (mpp, mpie, mprv) in [(3u64, 0u64, 1u64), (3, 1, 1), (3, 1, 0), (3, 0, 0)] {
        s.case(&format!("mret to M: MPIE = {mpie}, MPRV = {mprv}"));
        s.li(A0, bits);
        s.li(A1, mpp << 11 | mpie << 7 | mprv << 17);
        let there = s.label();
        rv!(s; csrc mstatus, a0; csrs mstatus, a1; la t0, =>there; csrw mepc, t0);
        s.word(raw::MRET);
        s.fail();
        rv!(s; =>there; csrr a2, mstatus; csrc mstatus, a0);
        s.check_masked(A2, bits, mpie << 3 | 1 << 7 | mprv << 17);
    }
    for mode in [Mode::S, Mode::U] {
        s.case(&format!("mret to {mode:?} clears MPRV and sets MPP to U"));
        s.li(A0, 1 << 17);
        rv!(s; csrs mstatus, a0);
        let resume = s.arm();
        s.enter(mode);
        rv!(s; ecall; =>resume; csrr a1, mstatus);
        s.check_masked(A1, 1 << 17 | 3 << 11, (mode as u64) << 11);
    }
    for (from, spp, spie) in [
        (Mode::S, 0u64, 0u64),
        (Mode::S, 0, 1),
        (Mode::S, 1, 0),
        (Mode::S, 1, 1),
        (Mode::M, 0, 1),
        (Mode::M, 1, 0),
    ] {
        s.case(&format!("sret from {from:?} with SPP = {spp}, SPIE = {spie}"));
        let sbits = 1u64 << 1 | 1 << 5 | 1 << 8;
        let (there, back) = (s.label(), s.arm());
        s.li(A0, sbits);
        s.li(A1, spp << 8 | spie << 5);
        s.li(A2, 1 << 17);
        if from == Mode::M {
            rv!(s; csrs mstatus, a2);
        } else {
            s.enter(from);
        }
        rv!(s; csrc sstatus, a0; csrs sstatus, a1; la t0, =>there; csrw sepc, t0);
        s.word(raw::SRET);
        s.fail();
        rv!(s; =>there; ecall; =>back);
        s.check_record(record::MCAUSE, 8 + spp);
        rv!(s; csrr a3, mstatus);
        // SIE = SPIE, SPIE = 1, SPP = U, and MPRV = 0.
        s.check_masked(A3, sbits | 1 << 17, spie << 1 | 1 << 5);
        rv!(s; csrc mstatus, a0);
    }
    s.refused_in(Mode::S, "mret in S", raw::MRET);
    s.refused_in(Mode::U, "mret in U", raw::MRET);
    s.refused_in(Mode::U, "sret in U", raw::SRET);
}

/// What QEMU 10.0.2 does otherwise than the manual says: `mtval` of privileged instructions that a
/// mode may not execute (a stale value there), fences of Svinval in U-mode, read-only bits.
pub(super) fn define_strict(s: &mut Suite) {
    s.li(A0, 7 << 20);
    rv!(s; csrs mstatus, a0);
    for (name, word) in [
        ("mret", raw::MRET),
        ("sret, TSR set", raw::SRET),
        ("wfi, TW set", raw::WFI),
        ("sfence.vma, TVM set", raw::sfence_vma(A0, A1)),
        ("sinval.vma, TVM set", raw::sinval_vma(A0, A1)),
    ] {
        s.illegal_in(Mode::S, &format!("{name}, in S"), word);
        s.illegal_in(Mode::U, &format!("{name}, in U"), word);
    }
    s.reset_environment();
    s.illegal_in(Mode::U, "sfence.w.inval in U", raw::SFENCE_W_INVAL);
    s.illegal_in(Mode::U, "sfence.inval.ir in U", raw::SFENCE_INVAL_IR);
    s.case("medeleg: ecall from M is zero");
    rv!(s; li.12 a0, -1; csrw medeleg, a0; csrr a0, medeleg; csrw medeleg, zero);
    s.check_masked(A0, 1 << 11, 0);
    s.case("pmpaddr1: bits 63..54 are zero");
    rv!(s; li.12 a0, -1; csrw pmpaddr1, a0; csrr a0, pmpaddr1; csrw pmpaddr1, zero);
    s.check(A0, (1 << 54) - 1);
    s.case("pmpcfg2: reserved bits 5 and 6 are zero");
    rv!(s; li.12 a0, 0x60; csrw pmpcfg2, a0; csrr a0, pmpcfg2);
    s.check(A0, 0);
    for (csr, name) in [(0x341, "mepc"), (0x141, "sepc")] {
        s.case(&format!("{name} bit 0 is zero"));
        s.li(A1, 0x8000_0003);
        s.word(raw::csr(1, 0, csr, A1));
        s.word(raw::csr(2, A0, csr, 0));
        s.check(A0, 0x8000_0002);
    }
}

fn delegation(s: &mut Suite) {
    let causes: [(u64, &str); 6] = [
        (1, "fetch access"),
        (2, "illegal instruction"),
        (3, "ebreak"),
        (5, "load access"),
        (7, "store access"),
        (8, "ecall from U"),
    ];
    for (cause, name) in causes {
        for (mode, deleg) in [(Mode::U, true), (Mode::S, true), (Mode::U, false), (Mode::M, true)] {
            // An ecall from S or M has another cause.
            if cause == 8 && mode != Mode::U {
                continue;
            }
            s.case(&format!("{name} in {mode:?}, delegated: {deleg}"));
            let mask = if deleg { 1u64 << cause } else { 0xb1ff & !(1 << cause) & !(1 << 9) };
            s.li(A0, mask);
            s.li(A2, 1 << 5 | 1 << 8 | 1 << 1);
            rv!(s; csrw medeleg, a0; csrc mstatus, a2; csrsi mstatus, 2; csrwi scause, 0);
            let resume = s.arm();
            if mode != Mode::M {
                s.enter(mode);
            }
            s.li(A1, NOWHERE);
            let mut epc = s.here();
            match cause {
                1 => {
                    epc = NOWHERE;
                    rv!(s; jr a1);
                }
                2 => s.word(0xffff_ffff),
                3 => rv!(s; ebreak),
                5 => rv!(s; ld a0, [a1]),
                7 => rv!(s; sd a0, [a1]),
                _ => rv!(s; ecall),
            }
            s.fail();
            rv!(s; =>resume; csrr s5, sstatus; csrw medeleg, zero; csrci mstatus, 2);
            let tval = match cause {
                2 => 0xffff_ffff,
                3 => epc,
                8 => 0,
                _ => NOWHERE,
            };
            if deleg && mode != Mode::M {
                s.check_record(record::MCAUSE, 9);
                s.check_record(record::SCAUSE, cause);
                s.check_record(record::SEPC, epc);
                s.check_record(record::STVAL, tval);
                // SPP = mode, SPIE = former SIE, SIE = 0.
                s.check_masked(S5, 1 << 8 | 1 << 5 | 1 << 1, (mode as u64) << 8 | 1 << 5);
            } else {
                s.check_record(record::MCAUSE, cause);
                s.check_record(record::MEPC, epc);
                s.check_record(record::MTVAL, tval);
                rv!(s; csrr a0, scause);
                s.check(A0, 0);
            }
        }
    }
    s.case("ecall from S delegated to S");
    // The S handler ends with an ecall, which must not be delegated: undo it there.
    let (handler, over, resume) = (s.label(), s.label(), s.arm());
    rv!(s; j =>over);
    s.align(4);
    rv!(s; =>handler; csrr a0, scause; csrr a1, sepc; csrr a2, sstatus);
    s.word(0xffff_ffff);
    rv!(s; =>over; la t0, =>handler; csrw stvec, t0);
    s.li(A0, 1 << 9);
    rv!(s; csrw medeleg, a0);
    s.enter(Mode::S);
    let epc = s.here();
    rv!(s; ecall);
    s.fail();
    rv!(s; =>resume);
    s.reset_environment();
    s.check(A0, 9);
    s.check(A1, epc);
    s.check_masked(A2, 1 << 8, 1 << 8);
}

fn vectors(s: &mut Suite) {
    s.case("vectored mtvec: exceptions go to the base");
    let (base, over, resume) = (s.label(), s.label(), s.label());
    rv!(s; j =>over);
    s.align(256);
    rv!(s; =>base; j =>resume);
    for _ in 1..16 {
        rv!(s; li.12 a0, -1; jr a0);
    }
    rv!(s; =>over; la t0, =>base; ori t0, t0, 1; csrw mtvec, t0; ecall);
    s.fail();
    rv!(s; =>resume; csrr a1, mcause);
    s.reset_environment();
    s.check(A1, 11);
    s.case("vectored stvec: exceptions go to the base");
    let (base, over, resume) = (s.label(), s.label(), s.arm());
    rv!(s; j =>over);
    s.align(256);
    rv!(s; =>base; ecall);
    for _ in 1..16 {
        s.word(0xffff_ffff);
    }
    rv!(s; =>over; la t0, =>base; ori t0, t0, 1; csrw stvec, t0);
    s.li(A0, 1 << 8);
    rv!(s; csrw medeleg, a0);
    s.enter(Mode::U);
    rv!(s; ecall; =>resume; csrr a1, scause);
    s.reset_environment();
    s.check_record(record::MCAUSE, 9);
    s.check(A1, 8);
}

fn virtualisation(s: &mut Suite) {
    let set = |s: &mut Suite, bit: u32| {
        s.li(A0, 1 << bit);
        rv!(s; csrs mstatus, a0);
    };
    set(s, 20);
    s.refused_in(Mode::S, "TVM: satp read", raw::csr(2, A0, 0x180, 0));
    s.refused_in(Mode::S, "TVM: satp written", raw::csr(1, A0, 0x180, A1));
    s.refused_in(Mode::S, "TVM: sfence.vma", raw::sfence_vma(0, 0));
    s.refused_in(Mode::S, "TVM: sinval.vma", raw::sinval_vma(0, 0));
    s.case("TVM does not concern M-mode, nor sfence.w.inval and sfence.inval.ir");
    rv!(s; csrr a0, satp);
    s.word(raw::sfence_vma(0, 0));
    s.in_mode(Mode::S, |s| {
        s.word(raw::SFENCE_W_INVAL);
        s.word(raw::SFENCE_INVAL_IR);
    });
    s.reset_environment();
    s.case("without TVM S-mode reaches satp and fences");
    s.in_mode(Mode::S, |s| {
        rv!(s; csrr a0, satp);
        s.word(raw::sfence_vma(0, 0));
        s.word(raw::sinval_vma(A0, A1));
    });
    for (name, word) in
        [("sfence.vma", raw::sfence_vma(0, 0)), ("sinval.vma", raw::sinval_vma(0, 0))]
    {
        s.refused_in(Mode::U, &format!("{name} in U"), word);
    }
    set(s, 21);
    s.refused_in(Mode::S, "TW: wfi in S", raw::WFI);
    s.refused_in(Mode::U, "TW: wfi in U", raw::WFI);
    s.reset_environment();
    s.refused_in(Mode::U, "wfi in U", raw::WFI);
    set(s, 22);
    s.refused_in(Mode::S, "TSR: sret in S", raw::SRET);
    s.case("TSR does not concern M-mode");
    let there = s.label();
    let resume = s.arm();
    rv!(s; la t0, =>there; csrw sepc, t0);
    s.word(raw::SRET);
    rv!(s; =>there; ecall; =>resume);
    s.reset_environment();
    s.case("stores before a trap are visible, later ones are not made");
    s.li(A1, SCRATCH);
    s.li(A2, 0x1111);
    let resume = s.arm();
    rv!(s; sd zero, [a1, 8]; sd a2, [a1]; ebreak; sd a2, [a1, 8]; =>resume; ld a3, [a1]; ld a4, [a1, 8]);
    s.check(A3, 0x1111);
    s.check(A4, 0);
}
