//! Zicsr on a CSR without side effects, access rules, and the WARL fields of the machine-level and
//! supervisor-level CSRs. Source: Unprivileged ISA, "Zicsr"; Privileged ISA, chapters 2, 3 and 12.

use super::operands::EDGES;
use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Mode, Suite, rv};

const MSCRATCH: u32 = 0x340;
const SSCRATCH: u32 = 0x140;
/// `mtimecmp` of hart 0 in the CLINT.
const CLINT_MTIMECMP: u64 = 0x0200_4000;

pub(super) fn define(s: &mut Suite) {
    instructions(s);
    privilege(s);
    read_only(s);
    warl(s);
    views(s);
}

/// Reads a CSR.
fn read(s: &mut Suite, rd: u8, csr: u32) {
    s.word(raw::csr(2, rd, csr, 0));
}

/// Writes a constant to a CSR.
fn write(s: &mut Suite, csr: u32, value: u64) {
    s.li(T5, value);
    s.word(raw::csr(1, 0, csr, T5));
}

fn instructions(s: &mut Suite) {
    for (i, &old) in EDGES.iter().enumerate() {
        let new = EDGES[(i * 7 + 3) % EDGES.len()];
        for (funct3, name, want) in
            [(1, "csrrw", new), (2, "csrrs", old | new), (3, "csrrc", old & !new)]
        {
            for (rd, rs, what) in [(A0, A1, ""), (A1, A1, " rd=rs1"), (0, A1, " rd=x0")] {
                s.case(&format!("{name}{what} {old:#x}, {new:#x}"));
                write(s, SSCRATCH, old);
                s.li(rs, new);
                s.word(raw::csr(funct3, rd, SSCRATCH, rs));
                if rd != 0 {
                    s.check(rd, old);
                }
                read(s, A2, SSCRATCH);
                s.check(A2, want);
            }
        }
        for imm in [0u8, 1, 0x15, 0x1f] {
            let new = u64::from(imm);
            for (funct3, name, want) in
                [(5, "csrrwi", new), (6, "csrrsi", old | new), (7, "csrrci", old & !new)]
            {
                s.case(&format!("{name} {old:#x}, {imm}"));
                write(s, SSCRATCH, old);
                s.word(raw::csr(funct3, A0, SSCRATCH, imm));
                s.check(A0, old);
                read(s, A2, SSCRATCH);
                s.check(A2, want);
            }
        }
    }
    s.case("csrrw from x0 writes zero");
    write(s, SSCRATCH, 5);
    s.word(raw::csr(1, A0, SSCRATCH, 0));
    s.check(A0, 5);
    read(s, A0, SSCRATCH);
    s.check(A0, 0);
}

/// CSRs of M-mode, none of which lower modes may touch.
const MACHINE: [(u32, &str); 24] = [
    (0x300, "mstatus"),
    (0x301, "misa"),
    (0x302, "medeleg"),
    (0x303, "mideleg"),
    (0x304, "mie"),
    (0x305, "mtvec"),
    (0x306, "mcounteren"),
    (0x30a, "menvcfg"),
    (0x320, "mcountinhibit"),
    (0x323, "mhpmevent3"),
    (MSCRATCH, "mscratch"),
    (0x341, "mepc"),
    (0x342, "mcause"),
    (0x343, "mtval"),
    (0x344, "mip"),
    (0x3a0, "pmpcfg0"),
    (0x3b0, "pmpaddr0"),
    (0xb00, "mcycle"),
    (0xb02, "minstret"),
    (0xb03, "mhpmcounter3"),
    (0xf11, "mvendorid"),
    (0xf12, "marchid"),
    (0xf13, "mimpid"),
    (0xf14, "mhartid"),
];

/// CSRs of S-mode.
const SUPERVISOR: [(u32, &str); 12] = [
    (0x100, "sstatus"),
    (0x104, "sie"),
    (0x105, "stvec"),
    (0x106, "scounteren"),
    (0x10a, "senvcfg"),
    (SSCRATCH, "sscratch"),
    (0x141, "sepc"),
    (0x142, "scause"),
    (0x143, "stval"),
    (0x144, "sip"),
    (0x180, "satp"),
    (0x14d, "stimecmp"),
];

fn privilege(s: &mut Suite) {
    for (csr, name) in MACHINE {
        s.case(&format!("{name} is readable in M-mode"));
        read(s, A0, csr);
        for mode in [Mode::S, Mode::U] {
            s.illegal_in(mode, &format!("{name} read in {mode:?}"), raw::csr(2, A0, csr, 0));
            s.illegal_in(mode, &format!("{name} written in {mode:?}"), raw::csr(1, A0, csr, A1));
            s.illegal_in(mode, &format!("{name} cleared in {mode:?}"), raw::csr(7, 0, csr, 1));
        }
    }
    for (csr, name) in SUPERVISOR {
        s.case(&format!("{name} is readable in M-mode"));
        read(s, A0, csr);
        if name != "stimecmp" {
            s.case(&format!("{name} is readable in S-mode"));
            s.in_mode(Mode::S, |s| read(s, A0, csr));
        }
        s.illegal_in(Mode::U, &format!("{name} read in U"), raw::csr(2, A0, csr, 0));
        s.illegal_in(Mode::U, &format!("{name} written in U"), raw::csr(1, A0, csr, A1));
    }
    // Numbers no standard assigns, one per quarter of the CSR space.
    for csr in [0x0c0, 0x1c0, 0x2c0, 0x3f0, 0x4c0, 0x6ff, 0x7f0, 0xbff, 0xdf0, 0xeff, 0xfff] {
        s.illegal_in(Mode::M, &format!("no CSR {csr:#x}"), raw::csr(2, A0, csr, 0));
        s.illegal_in(Mode::U, &format!("no CSR {csr:#x} in U"), raw::csr(2, A0, csr, 0));
    }
    s.illegal_in(Mode::M, "debug-mode CSR dcsr", raw::csr(2, A0, 0x7b0, 0));
    for funct3 in [0, 4] {
        let word = raw::I { imm: MSCRATCH, rs1: 0, funct3, rd: A0, opcode: raw::SYSTEM }.word();
        s.illegal_in(Mode::M, &format!("SYSTEM funct3 {funct3} is not a CSR access"), word);
    }
}

fn read_only(s: &mut Suite) {
    for (csr, name) in [
        (0xf11, "mvendorid"),
        (0xf12, "marchid"),
        (0xf13, "mimpid"),
        (0xf14, "mhartid"),
        (0xf15, "mconfigptr"),
        (0xc00, "cycle"),
        (0xc01, "time"),
        (0xc02, "instret"),
        (0xc03, "hpmcounter3"),
    ] {
        s.case(&format!("{name}: csrrs and csrrc from x0, csrrsi and csrrci 0 only read"));
        for funct3 in [2, 3, 6, 7] {
            s.word(raw::csr(funct3, A0, csr, 0));
        }
        for (funct3, source, what) in [
            (1, 0, "csrrw from x0"),
            (1, A1, "csrrw"),
            (2, A1, "csrrs"),
            (3, A1, "csrrc"),
            (5, 0, "csrrwi 0"),
            (6, 1, "csrrsi"),
            (7, 1, "csrrci"),
        ] {
            s.illegal_in(
                Mode::M,
                &format!("{name} is read-only: {what}"),
                raw::csr(funct3, A0, csr, source),
            );
        }
    }
    s.case("csrrs with a source register that holds zero still writes");
    s.li(A1, 0);
    let resume = s.arm();
    s.word(raw::csr(2, A0, 0xf14, A1));
    s.fail();
    rv!(s; =>resume);
    s.case("mhartid of the first hart is 0");
    read(s, A0, 0xf14);
    s.check(A0, 0);
}

/// Writes `value`, reads back, checks `read & mask == want`, restores.
fn field(s: &mut Suite, name: &str, csr: u32, value: u64, mask: u64, want: u64) {
    s.case(name);
    read(s, A3, csr);
    write(s, csr, value);
    read(s, A0, csr);
    s.word(raw::csr(1, 0, csr, A3));
    s.check_masked(A0, mask, want);
}

fn warl(s: &mut Suite) {
    let all = u64::MAX;
    s.case("misa: RV64 with A, C, D, F, I, M, S, U");
    read(s, A0, 0x301);
    let letters = "ACDFIMSU".bytes().fold(0u64, |v, l| v | 1 << (l - b'A'));
    s.check_masked(A0, 3 << 62 | letters, 2 << 62 | letters);

    field(s, "mscratch holds 64 bits", MSCRATCH, 0x8123_4567_89ab_cdef, all, 0x8123_4567_89ab_cdef);
    for (csr, name) in [(0x341, "mepc"), (0x141, "sepc")] {
        field(s, &format!("{name} holds an address"), csr, 0x8765_4322, all, 0x8765_4322);
    }
    for (csr, name) in [(0x305, "mtvec"), (0x105, "stvec")] {
        field(s, &format!("{name} direct"), csr, 0x8000_0100, all, 0x8000_0100);
        field(s, &format!("{name} vectored"), csr, 0x8000_0101, all, 0x8000_0101);
        field(s, &format!("{name} reserved MODE does not stick"), csr, 0x8000_0102, 2, 0);
    }
    field(s, "mstatus.MPP = U", 0x300, 0, 0x1800, 0);
    field(s, "mstatus.MPP = S", 0x300, 0x800, 0x1800, 0x800);
    field(s, "mstatus.MPP = M", 0x300, 0x1800, 0x1800, 0x1800);
    s.case("mstatus.MPP = 2 does not stick");
    for before in [0u64, 0x1800] {
        s.li(A1, 0x1800);
        s.li(A2, before);
        rv!(s; csrc mstatus, a1; csrs mstatus, a2);
        s.li(A3, before ^ 0x1000);
        s.li(A4, 0x800);
        // From 0: set bit 12. From 3: clear bit 11.
        if before == 0 {
            s.li(A5, 0x1000);
            rv!(s; csrs mstatus, a5);
        } else {
            rv!(s; csrc mstatus, a4);
        }
        let fine = s.label();
        rv!(s; csrr a0, mstatus; and a0, a0, a1);
        s.li(A2, 0x1000);
        rv!(s; bne a0, a2, =>fine);
        s.fail();
        rv!(s; =>fine);
    }
    field(s, "mstatus: UXL and SXL are 2", 0x300, 0, 0xf << 32, 0xa << 32);
    for fs in 0..4u64 {
        let sd = u64::from(fs == 3) << 63;
        let name = format!("mstatus.FS = {fs}, SD follows");
        field(s, &name, 0x300, fs << 13, 1 << 63 | 3 << 13, sd | fs << 13);
    }
    let bits: u64 = 1 << 1 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 18 | 1 << 19 | 7 << 20;
    field(s, "mstatus: SIE SPIE MPIE SPP SUM MXR TVM TW TSR hold ones", 0x300, bits, bits, bits);
    field(s, "mstatus: the same hold zeros", 0x300, 0, bits | 1 << 17 | 1 << 3, 0);
    field(s, "mstatus.MPRV holds one while MPP = M", 0x300, 1 << 17 | 3 << 11, 1 << 17, 1 << 17);
    field(s, "mstatus: reserved bits 0, 2, 4 are zero", 0x300, 0x15, 0x15, 0);

    field(s, "medeleg: delegable causes hold ones", 0x302, all, 0xb1ff & !0x1, 0xb1ff & !0x1);
    field(s, "medeleg: zero", 0x302, 0, all, 0);
    field(s, "mideleg: SSI, STI, SEI hold ones", 0x303, all, 0x222, 0x222);
    field(s, "mideleg: machine interrupts are not delegable", 0x303, all, 0x888, 0);
    field(s, "mie: the six standard interrupts", 0x304, all, 0xfff, 0xaaa);
    s.li(A0, CLINT_MTIMECMP);
    rv!(s; li.12 a1, -1; sd a1, [a0]); // MTIP off
    field(s, "mip: machine bits are read-only", 0x344, 0x88, 0x88, 0);
    field(s, "mip: SSIP, STIP, SEIP are writable in M-mode", 0x344, 0x222, 0x222, 0x222);
    field(s, "mcause: interrupt bit and code", 0x342, 1 << 63 | 7, all, 1 << 63 | 7);
    field(s, "scause: code", 0x142, 15, all, 15);
    field(s, "mcounteren holds CY, TM, IR", 0x306, 7, 7, 7);
    field(s, "scounteren holds CY, TM, IR", 0x106, 7, 7, 7);
    field(s, "mcountinhibit: bit 1 is zero, CY and IR hold", 0x320, 7, 7, 5);

    field(
        s,
        "satp: Sv39, 16 bits of ASID, PPN",
        0x180,
        8 << 60 | 0xffff << 44 | 0x8_0123,
        all,
        8 << 60 | 0xffff << 44 | 0x8_0123,
    );
    field(s, "satp: Sv48", 0x180, 9 << 60 | 0x8_0123, all, 9 << 60 | 0x8_0123);
    field(s, "satp: Sv57", 0x180, 10 << 60 | 0x8_0123, all, 10 << 60 | 0x8_0123);
    for mode in [1u64, 7, 11, 15] {
        s.case(&format!("satp: a write with unsupported MODE {mode} changes nothing"));
        write(s, 0x180, 9 << 60 | 0x5 << 44 | 0x8_0456);
        write(s, 0x180, mode << 60 | 0x7 << 44 | 0x8_0789);
        read(s, A0, 0x180);
        rv!(s; csrw satp, zero);
        s.check(A0, 9 << 60 | 0x5 << 44 | 0x8_0456);
    }

    // FIOM may be read-only where it has no effect, as on Spike.
    let envcfg = 0xf0u64;
    let machine = envcfg | 7 << 61;
    field(
        s,
        "menvcfg: CBIE, CBCFE, CBZE, ADUE, PBMTE, STCE hold ones",
        0x30a,
        machine,
        machine,
        machine,
    );
    field(s, "menvcfg: zero", 0x30a, 0, machine, 0);
    field(s, "senvcfg: CBIE, CBCFE, CBZE hold ones", 0x10a, envcfg, envcfg, envcfg);
    field(s, "senvcfg: has no ADUE, PBMTE, STCE", 0x10a, all & !0x20, 7 << 61, 0);

    for n in 0..16u32 {
        let name = format!("pmpaddr{n} holds 54 bits");
        field(s, &name, 0x3b0 + n, all >> 10, all, all >> 10);
    }
    field(
        s,
        "pmpcfg2 holds A, X, W, R of eight entries",
        0x3a2,
        0x0f0b_0901_1f1b_1911,
        all,
        0x0f0b_0901_1f1b_1911,
    );
    s.illegal_in(Mode::M, "pmpcfg1 does not exist in RV64", raw::csr(2, A0, 0x3a1, 0));
    s.illegal_in(Mode::M, "pmpcfg3 does not exist in RV64", raw::csr(2, A0, 0x3a3, 0));
    s.illegal_in(Mode::M, "mstatush does not exist in RV64", raw::csr(2, A0, 0x310, 0));
    s.illegal_in(Mode::M, "cycleh does not exist in RV64", raw::csr(2, A0, 0xc80, 0));
    s.illegal_in(Mode::M, "stimecmph does not exist in RV64", raw::csr(2, A0, 0x15d, 0));
}

/// sstatus, sie and sip are restricted views of mstatus, mie and mip.
fn views(s: &mut Suite) {
    // SIE SPIE SPP FS SUM MXR
    let sbits: u64 = 1 << 1 | 1 << 5 | 1 << 8 | 3 << 13 | 1 << 18 | 1 << 19;
    s.case("sstatus shows the supervisor fields of mstatus");
    s.li(A0, sbits);
    rv!(s; csrs mstatus, a0; csrr a1, sstatus);
    s.check_masked(A1, sbits | 3 << 32 | 1 << 63, sbits | 2 << 32 | 1 << 63);
    s.case("sstatus hides the machine fields");
    let mbits: u64 = 1 << 7 | 3 << 11 | 1 << 17 | 7 << 20;
    s.li(A0, mbits);
    rv!(s; csrs mstatus, a0; csrr a1, sstatus; csrc mstatus, a0);
    s.check_masked(A1, mbits | 1 << 3 | 3 << 34, 0);
    s.case("writing sstatus leaves the machine fields alone");
    rv!(s; csrs mstatus, a0; csrw sstatus, zero; csrr a1, mstatus; csrc mstatus, a0);
    s.check_masked(A1, mbits | sbits, mbits);
    s.li(A2, !(1 << 1));
    rv!(s; csrc mstatus, a0; csrw sstatus, a2; csrr a1, mstatus);
    s.check_masked(A1, mbits | sbits, sbits & !2);
    s.reset_environment();

    for (delegated, name) in [(0u64, "nothing"), (0x222, "everything"), (0x200, "SEI")] {
        s.case(&format!("sie and sip when {name} is delegated"));
        s.li(A0, delegated);
        s.li(A1, 0xaaa);
        s.li(A2, 0x222);
        rv!(s
            ; csrw mideleg, a0
            ; csrw mie, a1
            ; csrr a3, sie
            ; csrw mip, a2
            ; csrr a4, sip
            ; csrw sie, zero
            ; csrr a5, mie
            ; csrw mip, zero
        );
        s.check_masked(A3, 0xaaa, delegated);
        s.check_masked(A4, 0xaaa, delegated);
        s.check_masked(A5, 0xaaa, 0xaaa & !delegated);
    }
    s.case("sip: only SSIP is writable through it");
    s.li(A0, 0x222);
    rv!(s; csrw mideleg, a0; csrw mip, zero; csrw sip, a0; csrr a1, mip; csrw mip, zero);
    s.check_masked(A1, 0x222, 2);
    s.reset_environment();
}
