//! F, D, Zfa and Zfhmin. Every row of a table runs with the dynamic rounding mode, and again with
//! the static one; result, NaN box and flags are compared. Expected values: `float.rs`.

use super::float::{self, Arith, Flagged, Format, NV, NX, UF};
use super::operands::{EDGES, Random};
use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Mode, SCRATCH, Suite, record, rv};

use Format::{D, H, S};

/// Register numbers of destination and sources, in both files.
const RD: u8 = 10;
const RS1: u8 = 11;
const RS2: u8 = 12;
const RS3: u8 = 13;
const OP_FP: u32 = 0x53;

/// An instruction under test.
#[derive(Clone, Copy)]
struct Op {
    funct7: u32,
    /// Register, or the number that tells unary operations apart.
    rs2: u8,
    /// Operation number in funct3, or none where funct3 is the rounding mode.
    funct3: Option<u32>,
    opcode: u32,
    /// Whether the destination is an x register.
    to_x: bool,
}

impl Op {
    fn word(self, rm: u32) -> u32 {
        let funct3 = self.funct3.unwrap_or(rm);
        raw::R { funct7: self.funct7, rs2: self.rs2, rs1: RS1, funct3, rd: RD, opcode: self.opcode }
            .word()
    }
}

/// Two operands, rounding.
fn two(funct7: u32, f: Format) -> Op {
    Op { funct7: funct7 | f.code(), rs2: RS2, funct3: None, opcode: OP_FP, to_x: false }
}

/// A row: operands, result, rounding mode, flags.
struct Row {
    operands: [u64; 3],
    want: u64,
    rm: usize,
    flags: u64,
}

/// Runs rows (sorted by rounding mode) through an instruction.
fn run(s: &mut Suite, name: &str, op: Op, rows: &[Row]) {
    let flat: Vec<u64> = rows
        .iter()
        .flat_map(|r| {
            let [a, b, c] = r.operands;
            [a, b, c, r.want, (r.rm as u64) << 5, r.flags]
        })
        .collect();
    let table = s.table(&flat);
    let pass = |s: &mut Suite, what: String, first: usize, count: usize, rm: Option<u32>| {
        if count == 0 {
            return;
        }
        s.cases(&what, count as u32);
        s.rows(table + first as u64 * 48, count as u32, 6, |s| {
            rv!(s
                ; ld a1, [s2, 0]
                ; ld a2, [s2, 8]
                ; ld a3, [s2, 16]
                ; fmv.d.x f11, a1
                ; fmv.d.x f12, a2
                ; fmv.d.x f13, a3
                ; ld s4, [s2, 24]
                ; ld s5, [s2, 32]
                ; ld s6, [s2, 40]
            );
            if let Some(rm) = rm {
                // Another dynamic mode, so that a static one that is ignored shows.
                s.li(S5, u64::from((rm + 1) % 5) << 5);
            }
            rv!(s; csrw fcsr, s5);
            s.word(op.word(rm.unwrap_or(7)));
            rv!(s; csrr s7, fflags);
            if !op.to_x {
                rv!(s; fmv.x.d a0, f10);
            }
            s.check_eq(A0, S4);
            s.check_eq(S7, S6);
        });
    };
    pass(s, format!("{name}, dynamic rounding"), 0, rows.len(), None);
    if op.funct3.is_none() {
        for rm in 0..5 {
            let first = rows.iter().position(|r| r.rm == rm).unwrap_or(0);
            let count = rows.iter().filter(|r| r.rm == rm).count();
            pass(s, format!("{name}, rm = {rm}"), first, count, Some(rm as u32));
        }
    }
}

/// Values at every edge of a format, as registers hold them.
fn edges(f: Format) -> Vec<u64> {
    let (all, fraction) = f.widths();
    let one = f.infinity() >> 1 & !(f.min_normal() - 1);
    let ulp = f.min_normal();
    let mut v = vec![
        0,
        1,
        ulp - 1,
        ulp,
        ulp + 1,
        one - 1,
        one,
        one + 1,
        one + ulp / 2,
        one + ulp,
        one - ulp,
        one + 3 * ulp / 2 + 1,
        one + u64::from(fraction) * ulp + 1,
        one + u64::from(all) * ulp,
        f.infinity() - 1,
        f.infinity() - ulp,
        f.infinity(),
    ];
    v.extend(v.clone().iter().filter(|v| **v != ulp + 1).map(|v| v | f.sign()));
    v.extend([f.nan(), f.nan() | f.sign() | 5, f.infinity() + 1]);
    let mut v: Vec<u64> = v.into_iter().map(|v| f.boxed(v)).collect();
    if f != D {
        // Not boxed: read as the canonical NaN.
        v.push(one);
        v.push(!0 << all & !(1 << 63) | one);
    }
    v
}

/// Random values whose exponents lie close together, so that operations interact.
fn near(f: Format, random: &mut Random, n: usize) -> Vec<[u64; 3]> {
    let (_, fraction) = f.widths();
    let one = f.infinity() >> 1 & !(f.min_normal() - 1);
    let mut value = || {
        let r = random.next();
        let exponent = ((r >> 56) % 9) << fraction;
        let sign = if r >> 55 & 1 == 1 { f.sign() } else { 0 };
        f.boxed(one - (4 << fraction) + exponent + (random.next() & (f.min_normal() - 1)) | sign)
    };
    (0..n).map(|_| [value(), value(), value()]).collect()
}

/// Operand tuples for instructions with `n` sources.
fn operands(f: Format, n: usize) -> Vec<[u64; 3]> {
    let e = edges(f);
    let mut random = Random(0x5eed_0000_0000_0001 + n as u64);
    let mut v: Vec<[u64; 3]> = match n {
        1 => e.iter().map(|a| [*a, 0, 0]).collect(),
        2 => e.iter().flat_map(|a| e.iter().map(|b| [*a, *b, 0])).collect(),
        _ => {
            let mut pick = || e[(random.next() >> 32) as usize % e.len()];
            (0..500).map(|_| [pick(), pick(), pick()]).collect()
        }
    };
    v.extend(near(f, &mut random, if n == 1 { 100 } else { 150 }));
    v
}

/// Rows for every rounding mode.
fn rounded(operands: &[[u64; 3]], result: impl Fn([u64; 3], usize) -> Option<Flagged>) -> Vec<Row> {
    (0..5)
        .flat_map(|rm| operands.iter().map(move |o| (*o, rm)))
        .filter_map(|(operands, rm)| {
            let (want, flags) = result(operands, rm)?;
            Some(Row { operands, want, rm, flags })
        })
        .collect()
}

/// Rows of instructions that do not round.
fn plain(operands: &[[u64; 3]], result: impl Fn([u64; 3]) -> Flagged) -> Vec<Row> {
    operands
        .iter()
        .map(|o| {
            let (want, flags) = result(*o);
            Row { operands: *o, want, rm: 0, flags }
        })
        .collect()
}

/// F (`f` = S) or D.
fn arithmetic(s: &mut Suite, f: Format) {
    let pairs = operands(f, 2);
    let boxed = |r: Flagged| (f.boxed(r.0), r.1);
    let open = |o: [u64; 3]| o.map(|v| f.unboxed(v));
    for (name, funct7, op) in [
        ("fadd", 0x00, Arith::Add),
        ("fsub", 0x04, Arith::Sub),
        ("fmul", 0x08, Arith::Mul),
        ("fdiv", 0x0c, Arith::Div),
    ] {
        let rows = rounded(&pairs, |o, rm| float::arith(f, op, open(o), rm).map(boxed));
        run(s, name, two(funct7, f), &rows);
    }
    // Tininess is detected after rounding: (1 - ulp/2) * min_normal rounds to min_normal, but with
    // an unbounded exponent it stays below.
    let one = f.infinity() >> 1 & !(f.min_normal() - 1);
    let border = [Row {
        operands: [f.boxed(one - 1), f.boxed(f.min_normal()), 0],
        want: f.boxed(f.min_normal()),
        rm: 0,
        flags: UF | NX,
    }];
    run(s, "fmul on the border of underflow", two(0x08, f), &border);

    let singles = operands(f, 1);
    let rows = rounded(&singles, |o, rm| Some(boxed(float::sqrt(f, f.unboxed(o[0]), rm))));
    run(s, "fsqrt", Op { rs2: 0, ..two(0x2c, f) }, &rows);

    let triples = operands(f, 3);
    for (name, opcode, negate_product, negate_addend) in [
        ("fmadd", 0x43, false, false),
        ("fmsub", 0x47, false, true),
        ("fnmsub", 0x4b, true, false),
        ("fnmadd", 0x4f, true, true),
    ] {
        let op = Arith::Fma { negate_product, negate_addend };
        let rows = rounded(&triples, |o, rm| float::arith(f, op, open(o), rm).map(boxed));
        let word = Op { funct7: u32::from(RS3) << 2 | f.code(), opcode, ..two(0, f) };
        run(s, name, word, &rows);
    }

    for (funct3, name) in [(0, "fsgnj"), (1, "fsgnjn"), (2, "fsgnjx")] {
        let rows = plain(&pairs, |o| {
            let [a, b, _] = open(o);
            let sign = match funct3 {
                0 => b,
                1 => !b,
                _ => a ^ b,
            };
            (f.boxed(a & !f.sign() | sign & f.sign()), 0)
        });
        run(s, name, Op { funct3: Some(funct3), ..two(0x10, f) }, &rows);
    }
    for (funct3, name) in [(0, "fmin"), (1, "fmax")] {
        let rows = plain(&pairs, |o| {
            let [a, b, _] = open(o);
            boxed(float::min_max(f, a, b, funct3 == 1, false))
        });
        run(s, name, Op { funct3: Some(funct3), ..two(0x14, f) }, &rows);
    }
    for (funct3, name) in [(2, "feq"), (1, "flt"), (0, "fle")] {
        let rows = plain(&pairs, |o| {
            let [a, b, _] = open(o);
            float::compare(f, a, b, name)
        });
        run(s, name, Op { funct3: Some(funct3), to_x: true, ..two(0x50, f) }, &rows);
    }
    let rows = plain(&singles, |o| (float::class(f, f.unboxed(o[0])), 0));
    run(s, "fclass", Op { rs2: 0, funct3: Some(1), to_x: true, ..two(0x70, f) }, &rows);
    conversions(s, f);
    moves(s, f);
}

/// Values around the limits of the integer types.
fn integer_edges(f: Format) -> Vec<[u64; 3]> {
    let mut v = operands(f, 1);
    for power in [0u32, 1, 7, 15, 30, 31, 32, 33, 52, 53, 62, 63, 64, 65] {
        let value = float::from_integer(f, 1 << power, 0).0;
        for delta in [-1i64, 0, 1, 2] {
            let near = value.wrapping_add(delta as u64);
            v.extend([near, near | f.sign()].map(|v| [f.boxed(v), 0, 0]));
        }
    }
    for halves in [1i128, 3, 5, 7, 9, (1 << 32) - 1, (1 << 32) + 1, (1 << 33) - 1] {
        // halves / 2: exact, since the last bit of the exponent is free.
        let twice = float::from_integer(f, halves, 0).0;
        let half = twice - f.min_normal();
        v.extend([half, half | f.sign()].map(|v| [f.boxed(v), 0, 0]));
    }
    v
}

fn conversions(s: &mut Suite, f: Format) {
    let values = integer_edges(f);
    for (rs2, kind, bits, signed) in
        [(0, "w", 32, true), (1, "wu", 32, false), (2, "l", 64, true), (3, "lu", 64, false)]
    {
        let rows =
            rounded(&values, |o, rm| Some(float::to_integer(f, f.unboxed(o[0]), bits, signed, rm)));
        let op = Op { rs2, to_x: true, ..two(0x60, f) };
        run(s, &format!("fcvt.{kind} from float"), op, &rows);

        let mut random = Random(77);
        let mut integers: Vec<[u64; 3]> = EDGES.iter().map(|v| [*v, 0, 0]).collect();
        integers.extend((0..64).map(|i| [random.next() >> (i % 40), 0, 0]));
        integers.extend((20..64).flat_map(|i| [[(1 << i) + 1, 0, 0], [(3 << i) - 1, 0, 0]]));
        let rows = rounded(&integers, |o, rm| {
            let v = match (bits, signed) {
                (32, true) => (o[0] as i32).into(),
                (32, false) => (o[0] as u32).into(),
                (_, true) => (o[0] as i64).into(),
                _ => o[0].into(),
            };
            let (v, flags) = float::from_integer(f, v, rm);
            Some((f.boxed(v), flags))
        });
        let op = Op { rs2, ..two(0x68, f) };
        run(s, &format!("fcvt to float from {kind}"), op, &rows);
    }
}

/// Moves, loads and stores carry bits as they are.
fn moves(s: &mut Suite, f: Format) {
    let values: Vec<u64> = edges(f).into_iter().chain(EDGES).collect();
    for raw in values {
        let low = if f == D { raw } else { u64::from(raw as u32) };
        let extended = if f == D { raw } else { raw as i32 as u64 };
        s.case(&format!("moves, loads, stores of {raw:#x}"));
        s.li(A0, raw);
        s.li(A1, SCRATCH + 0x100);
        rv!(s; li.12 a2, -1; sd a2, [a1]; sd a0, [a1, 8]; fmv.d.x f1, a0);
        if f == D {
            rv!(s; fmv.x.d a3, f1; fsd f1, [a1]; fld f2, [a1, 8]; fmv.x.d a4, f2; fmv.d.x f3, a0);
        } else {
            rv!(s; fmv.x.w a3, f1; fsw f1, [a1]; flw f2, [a1, 8]; fmv.x.d a4, f2; fmv.w.x f3, a0);
        }
        rv!(s; ld a5, [a1]; fmv.x.d s0, f3; csrr s1, fflags);
        s.check(A3, extended);
        s.check(A4, f.boxed(low));
        s.check(S0, f.boxed(low));
        s.check(A5, if f == D { raw } else { f.boxed(low) });
    }
    for misalign in 1..8u64 {
        s.case(&format!("misaligned by {misalign} loads and stores"));
        s.li(A0, 0x0123_4567_89ab_cdef);
        s.li(A1, SCRATCH + 4096 + misalign - 4);
        rv!(s; fmv.d.x f1, a0);
        if f == D {
            rv!(s; fsd f1, [a1]; ld a2, [a1]; fld f2, [a1]; fmv.x.d a3, f2);
            s.check(A2, 0x0123_4567_89ab_cdef);
            s.check(A3, 0x0123_4567_89ab_cdef);
        } else {
            rv!(s; fsw f1, [a1]; lwu a2, [a1]; flw f2, [a1]; fmv.x.d a3, f2);
            s.check(A2, 0x89ab_cdef);
            s.check(A3, 0xffff_ffff_89ab_cdef);
        }
    }
}

pub(super) fn f(s: &mut Suite) {
    arithmetic(s, S);
    control(s);
}

pub(super) fn d(s: &mut Suite) {
    arithmetic(s, D);
    let open = |from: Format, to: Format| {
        move |o: [u64; 3], rm: usize| {
            let (v, flags) = float::convert(from, to, from.unboxed(o[0]), rm)?;
            Some((to.boxed(v), flags))
        }
    };
    let widen = rounded(&operands(S, 1), open(S, D));
    run(s, "fcvt.d.s", Op { rs2: 0, ..two(0x20, D) }, &widen);
    let mut values = operands(D, 1);
    values.extend(narrowing(S));
    let narrow = rounded(&values, open(D, S));
    run(s, "fcvt.s.d", Op { rs2: 1, ..two(0x20, S) }, &narrow);
}

/// Doubles on and around the values of a narrower format and half-way between them.
fn narrowing(to: Format) -> Vec<[u64; 3]> {
    let mut v = Vec::new();
    for edge in edges(to) {
        let narrow = to.unboxed(edge);
        if to.is_nan(narrow) {
            continue;
        }
        if let Some((wide, 0)) = float::convert(to, D, narrow, 0) {
            let half = 1u64 << (51 - to.widths().1);
            for delta in [half, half + 1, half - 1, 1, u64::MAX, 2 * half, 3 * half] {
                v.push([wide.wrapping_add(delta), 0, 0]);
            }
        }
    }
    v
}

/// fcsr and its parts, reserved rounding modes, mstatus.FS.
fn control(s: &mut Suite) {
    s.case("fcsr, frm and fflags are views of one register");
    s.li(A0, 0xff);
    rv!(s; csrw fcsr, a0; csrr a1, fflags; csrr a2, frm; csrr a3, fcsr);
    s.check(A1, 0x1f);
    s.check(A2, 7);
    s.check(A3, 0xff);
    rv!(s; csrwi frm, 3; csrwi fflags, 9; csrr a3, fcsr);
    s.check(A3, 0x69);
    rv!(s; li.12 a0, -1; csrw frm, a0; csrr a1, fcsr; csrw fflags, a0; csrr a2, fcsr);
    s.check(A1, 0xe9);
    s.check(A2, 0xff);
    rv!(s; csrw fcsr, a0; csrr a1, fcsr; csrw fcsr, zero);
    s.check(A1, 0xff);
    s.case("flags accumulate");
    s.li(A0, 0x3f80_0000);
    s.li(A1, 0x4040_0000);
    rv!(s; fmv.w.x f1, a0; fmv.w.x f2, a1; fmv.w.x f3, zero);
    rv!(s; fdiv.s f4, f1, f2; csrr a2, fflags; fdiv.s f4, f1, f3; csrr a3, fflags);
    rv!(s; fdiv.s f4, f3, f3; csrr a4, fflags; fadd.s f4, f1, f1; csrr a5, fflags);
    s.check(A2, NX);
    s.check(A3, NX | float::DZ);
    s.check(A4, NX | float::DZ | NV);
    s.check(A5, NX | float::DZ | NV);

    let add = |rm: u32| two(0, S).word(rm);
    for rm in [5, 6] {
        s.illegal_in(Mode::M, &format!("static rounding mode {rm}"), add(rm));
    }
    for frm in [5u64, 6, 7] {
        s.li(A0, frm);
        rv!(s; csrw frm, a0);
        s.illegal_in(Mode::M, &format!("fadd with frm = {frm}"), add(7));
        s.illegal_in(
            Mode::M,
            &format!("fsqrt.d with frm = {frm}"),
            Op { rs2: 0, ..two(0x2c, D) }.word(7),
        );
        s.illegal_in(
            Mode::M,
            &format!("fcvt.w.s with frm = {frm}"),
            Op { rs2: 0, ..two(0x60, S) }.word(7),
        );
        s.case(&format!("instructions that do not round run with frm = {frm}"));
        rv!(s; fadd.s f4, f1, f2, rne; fsgnj.s f4, f1, f2; feq.s a0, f1, f1; fmin.s f5, f1, f2);
        s.check(A0, 1);
    }
    rv!(s; csrw fcsr, zero);

    // FS off: everything that touches floating-point state is illegal.
    s.li(A0, 3 << 13);
    s.li(A1, SCRATCH);
    let words: [(&str, u32); 10] = [
        ("fadd.s", add(0)),
        ("fmadd.d", 0x6ac5_f543 & !0x7000),
        ("flw", raw::I { imm: 0, rs1: A1, funct3: 2, rd: RD, opcode: 7 }.word()),
        ("fld", raw::I { imm: 0, rs1: A1, funct3: 3, rd: RD, opcode: 7 }.word()),
        ("fsd", 0x00a5_b027),
        ("fmv.x.d", Op { rs2: 0, funct3: Some(0), to_x: true, ..two(0x70, D) }.word(0)),
        ("fmv.d.x", Op { rs2: 0, funct3: Some(0), ..two(0x78, D) }.word(0)),
        ("csrr fcsr", raw::csr(2, A0, 3, 0)),
        ("csrr fflags", raw::csr(2, A0, 1, 0)),
        ("csrw frm", raw::csr(1, 0, 2, A0)),
    ];
    rv!(s; csrc mstatus, a0);
    for (name, word) in words {
        s.illegal_in(Mode::M, &format!("FS off: {name}"), word);
    }
    s.traps("FS off: c.fld", 2, Some(0x2188), |s| {
        s.half(0x2188);
        s.half(0x0001);
    });
    rv!(s; csrs mstatus, a0);

    // FS becomes Dirty by writes of registers and of fcsr. Whether reads and stores leave it
    // alone is the implementation's; ours is precise, and so are both oracles for these.
    for (fs, name) in [(1u64, "Initial"), (2, "Clean")] {
        for (what, index, dirty) in [
            ("fadd.s", 0usize, true),
            ("flw", 2, true),
            ("fld", 3, true),
            ("fmv.d.x", 6, true),
            ("csrw frm", 9, true),
            ("fsd", 4, false),
            ("fmv.x.d", 5, false),
            ("csrr fcsr", 7, false),
        ] {
            s.case(&format!("FS {name} and {what}: dirty {dirty}"));
            s.li(T0, 3 << 13);
            s.li(T1, fs << 13);
            rv!(s; li.12 a0, 0; csrc mstatus, t0; csrs mstatus, t1);
            s.word(words[index].1);
            rv!(s; csrr a2, mstatus; csrs mstatus, t0);
            let state = if dirty { 3 } else { fs };
            s.check_masked(A2, 3 << 13 | 1 << 63, state << 13 | u64::from(dirty) << 63);
        }
    }
    s.case("sstatus shows FS and SD");
    rv!(s; csrr a0, sstatus);
    s.check_masked(A0, 3 << 13 | 1 << 63, 3 << 13 | 1 << 63);
    s.case("floating point in U-mode");
    s.in_mode(Mode::U, |s| rv!(s; fadd.s f4, f1, f1; fmv.x.w a0, f4; csrr a1, fcsr));
    s.check(A0, 0x4000_0000);
    s.check_record(record::MCAUSE, 8);
}

/// Zfa for single and double.
pub(super) fn zfa(s: &mut Suite) {
    for f in [S, D] {
        let pairs = operands(f, 2);
        let open = |o: [u64; 3]| o.map(|v| f.unboxed(v));
        let boxed = |r: Flagged| (f.boxed(r.0), r.1);
        for (funct3, name) in [(2, "fminm"), (3, "fmaxm")] {
            let rows = plain(&pairs, |o| {
                let [a, b, _] = open(o);
                boxed(float::min_max(f, a, b, funct3 == 3, true))
            });
            run(s, &format!("{name} {f:?}"), Op { funct3: Some(funct3), ..two(0x14, f) }, &rows);
        }
        for (funct3, name) in [(4, "fleq"), (5, "fltq")] {
            let rows = plain(&pairs, |o| {
                let [a, b, _] = open(o);
                float::compare(f, a, b, name)
            });
            let op = Op { funct3: Some(funct3), to_x: true, ..two(0x50, f) };
            run(s, &format!("{name} {f:?}"), op, &rows);
        }
        for (rs2, name) in [(4, "fround"), (5, "froundnx")] {
            let rows = rounded(&integer_edges(f), |o, rm| {
                Some(boxed(float::round(f, f.unboxed(o[0]), rs2 == 5, rm)))
            });
            run(s, &format!("{name} {f:?}"), Op { rs2, ..two(0x20, f) }, &rows);
        }
        constants(s, f);
    }
    let mut values = integer_edges(D);
    let mut random = Random(4242);
    for power in 20..120u64 {
        values.push([(1023 + power) << 52 | random.next() >> 12, 0, 0]);
        values.push([1 << 63 | (1023 + power) << 52 | random.next() >> 12, 0, 0]);
    }
    let rows = plain(&values, |o| float::to_integer_modular(o[0]));
    run(s, "fcvtmod.w.d", Op { rs2: 8, funct3: Some(1), to_x: true, ..two(0x60, D) }, &rows);
    for rm in [0, 2, 7] {
        let word = Op { rs2: 8, funct3: Some(rm), to_x: true, ..two(0x60, D) }.word(rm);
        s.illegal_in(Mode::M, &format!("fcvtmod.w.d with rm = {rm}"), word);
    }
}

/// `fli`: Unprivileged ISA, table "Immediate values loaded by the FLI instructions".
fn constants(s: &mut Suite, f: Format) {
    let p = |e: i32| 2f64.powi(e);
    let values = [
        -1.0,
        f64::NAN, // the smallest positive normal number, below
        p(-16),
        p(-15),
        p(-8),
        p(-7),
        0.0625,
        0.125,
        0.25,
        0.3125,
        0.375,
        0.4375,
        0.5,
        0.625,
        0.75,
        0.875,
        1.0,
        1.25,
        1.5,
        1.75,
        2.0,
        2.5,
        3.0,
        4.0,
        8.0,
        16.0,
        128.0,
        256.0,
        32768.0,
        65536.0,
        f64::INFINITY,
        f64::NAN,
    ];
    for (i, value) in values.into_iter().enumerate() {
        let bits = match (i, f) {
            (1, _) => f.min_normal(),
            (31, _) => f.nan(),
            (_, D) => value.to_bits(),
            _ => u64::from((value as f32).to_bits()),
        };
        s.case(&format!("fli {i} {f:?}"));
        let word = raw::R {
            funct7: 0x78 | f.code(),
            rs2: 1,
            rs1: i as u8,
            funct3: 0,
            rd: RD,
            opcode: OP_FP,
        };
        rv!(s; csrw fcsr, zero; fmv.d.x f10, zero);
        s.word(word.word());
        rv!(s; fmv.x.d a0, f10; csrr a1, fcsr);
        s.check(A0, f.boxed(bits));
        s.check(A1, 0);
    }
}

/// Zfhmin: conversions, moves, loads and stores of half precision.
pub(super) fn zfhmin(s: &mut Suite) {
    let convert = |from: Format, to: Format| {
        move |o: [u64; 3], rm: usize| {
            let (v, flags) = float::convert(from, to, from.unboxed(o[0]), rm)?;
            Some((to.boxed(v), flags))
        }
    };
    let mut halves: Vec<[u64; 3]> = edges(H).iter().map(|v| [*v, 0, 0]).collect();
    halves.extend((0..0x1_0000).step_by(97).map(|v| [H.boxed(v), 0, 0]));
    run(s, "fcvt.s.h", Op { rs2: 2, ..two(0x20, S) }, &rounded(&halves, convert(H, S)));
    run(s, "fcvt.d.h", Op { rs2: 2, ..two(0x20, D) }, &rounded(&halves, convert(H, D)));
    let mut doubles = operands(D, 1);
    doubles.extend(narrowing(H));
    run(s, "fcvt.h.d", Op { rs2: 1, ..two(0x20, H) }, &rounded(&doubles, convert(D, H)));
    let mut singles = operands(S, 1);
    for edge in edges(H) {
        if let Some((v, 0)) = float::convert(H, S, H.unboxed(edge), 0) {
            for delta in [0u32, 1, 0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000] {
                singles.push([S.boxed((v as u32).wrapping_add(delta).into()), 0, 0]);
            }
        }
    }
    run(s, "fcvt.h.s", Op { rs2: 0, ..two(0x20, H) }, &rounded(&singles, convert(S, H)));
    for raw in [0u64, 1, 0x7c00, 0x8000, 0xffff, 0x3c00, 0xffff_ffff_ffff_1234, 0xabcd] {
        s.case(&format!("fmv.x.h, fmv.h.x, flh, fsh of {raw:#x}"));
        s.li(A0, raw);
        s.li(A1, SCRATCH + 1);
        rv!(s; li.12 a2, -1; sd a2, [a1]; fmv.d.x f11, a0);
        s.word(Op { rs2: 0, funct3: Some(0), to_x: true, ..two(0x70, H) }.word(0));
        s.check(A0, raw as i16 as u64);
        s.li(A0, raw);
        rv!(s; mv a3, a1; mv a1, a0);
        s.word(Op { rs2: 0, funct3: Some(0), ..two(0x78, H) }.word(0));
        rv!(s; mv a1, a3; fmv.x.d a4, f10; sh a0, [a1, 8]);
        s.check(A4, H.boxed(raw & 0xffff));
        // fsh f11, 0(a1); flh f10, 8(a1)
        s.word(0x00b5_9027);
        s.word(raw::I { imm: 8, rs1: A1, funct3: 1, rd: RD, opcode: 7 }.word());
        rv!(s; ld a4, [a1]; fmv.x.d a5, f10);
        s.check(A4, H.boxed(raw & 0xffff));
        s.check(A5, H.boxed(raw & 0xffff));
    }
    for (name, op) in [("fadd.h", two(0, H)), ("fsqrt.h", Op { rs2: 0, ..two(0x2c, H) })] {
        s.illegal_in(Mode::M, &format!("{name} needs Zfh"), op.word(0));
    }
}
