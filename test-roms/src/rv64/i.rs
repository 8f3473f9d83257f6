//! RV64I. Expected values: Unprivileged ISA, RV32I and RV64I chapters, in wide host arithmetic.

use super::operands::{EDGES, pairs, sext32, singles};
use crate::raw;
use crate::suite::reg::*;
use crate::suite::{SCRATCH, Suite, rv};

/// 12-bit immediates at and inside both ends.
const IMMEDIATES: [i32; 11] = [0, 1, -1, 2047, -2048, 2046, -2047, 0x555, -0x556, 64, 8];

pub(super) fn define(s: &mut Suite) {
    register_register(s);
    register_immediate(s);
    upper_immediates(s);
    branches(s);
    jumps(s);
    loads(s);
    stores(s);
    registers(s);
    fences_and_hints(s);
}

fn register_register(s: &mut Suite) {
    macro_rules! op {
        ($i:ident, $f:expr) => {
            s.binary(stringify!($i), |s, d, a, b| rv!(s; $i X(d), X(a), X(b)), &pairs($f));
        };
    }
    let wide = |v: u64| i128::from(v as i64);
    op!(add, |a, b| (wide(a) + wide(b)) as u64);
    op!(sub, |a, b| (wide(a) - wide(b)) as u64);
    op!(slt, |a, b| u64::from(wide(a) < wide(b)));
    op!(sltu, |a, b| u64::from(i128::from(a) < i128::from(b)));
    op!(xor, |a, b| (a | b) - (a & b));
    op!(or, |a, b| !(!a & !b));
    op!(and, |a, b| !(!a | !b));
    op!(sll, |a, b| (u128::from(a) * (1 << (b % 64))) as u64);
    op!(srl, |a, b| (u128::from(a) / (1 << (b % 64))) as u64);
    op!(sra, |a, b| wide(a).div_euclid(1 << (b % 64)) as u64);
    op!(addw, |a, b| sext32((wide(a) + wide(b)) as u64));
    op!(subw, |a, b| sext32((wide(a) - wide(b)) as u64));
    op!(sllw, |a, b| sext32((u128::from(a) * (1 << (b % 32))) as u64));
    op!(srlw, |a, b| sext32(u64::from(a as u32) / (1 << (b % 32))));
    op!(sraw, |a, b| i64::from(a as u32 as i32).div_euclid(1 << (b % 32)) as u64);
}

fn register_immediate(s: &mut Suite) {
    macro_rules! op {
        ($i:ident, $f:expr) => {
            for imm in IMMEDIATES {
                let f = |a: u64| -> u64 { $f(a, imm as i64) };
                let name = format!("{} {imm}", stringify!($i));
                s.unary(&name, |s, d, a| rv!(s; $i X(d), X(a), imm), &singles(f));
            }
        };
    }
    let wide = |v: u64| i128::from(v as i64);
    op!(addi, |a: u64, i: i64| (wide(a) + i128::from(i)) as u64);
    op!(slti, |a: u64, i: i64| u64::from(wide(a) < i128::from(i)));
    op!(sltiu, |a: u64, i: i64| u64::from(i128::from(a) < i128::from(i as u64)));
    op!(xori, |a: u64, i: i64| (a | i as u64) - (a & i as u64));
    op!(ori, |a: u64, i: i64| !(!a & !(i as u64)));
    op!(andi, |a: u64, i: i64| !(!a | !(i as u64)));
    op!(addiw, |a: u64, i: i64| sext32((wide(a) + i128::from(i)) as u64));

    macro_rules! shift {
        ($i:ident, $bits:expr, $f:expr) => {
            for shamt in (0..$bits).step_by(7).chain([1, 8, 15, 16, 31, $bits - 1]) {
                let f = |a: u64| -> u64 { $f(a, 1i128 << shamt) };
                let name = format!("{} {shamt}", stringify!($i));
                s.unary(&name, |s, d, a| rv!(s; $i X(d), X(a), shamt), &singles(f));
            }
        };
    }
    shift!(slli, 64u32, |a: u64, p| (i128::from(a) * p) as u64);
    shift!(srli, 64u32, |a: u64, p| (i128::from(a) / p) as u64);
    shift!(srai, 64u32, |a: u64, p| wide(a).div_euclid(p) as u64);
    shift!(slliw, 32u32, |a: u64, p| sext32((i128::from(a) * p) as u64));
    shift!(srliw, 32u32, |a: u64, p| sext32((i128::from(a as u32) / p) as u64));
    shift!(sraiw, 32u32, |a: u64, p| i128::from(a as u32 as i32).div_euclid(p) as u64);
}

fn upper_immediates(s: &mut Suite) {
    for imm20 in [0u32, 1, 0x7ffff, 0x80000, 0xfffff, 0x12345, 0xedcba] {
        let value = sext32(u64::from(imm20) << 12);
        s.case(&format!("lui {imm20:#x}"));
        s.word(imm20 << 12 | u32::from(A0) << 7 | 0x37);
        s.check(A0, value);
        s.case(&format!("auipc {imm20:#x}"));
        let pc = s.here();
        s.word(imm20 << 12 | u32::from(A0) << 7 | 0x17);
        s.check(A0, pc.wrapping_add(value));
    }
}

fn branches(s: &mut Suite) {
    macro_rules! op {
        ($i:ident, $f:expr) => {
            let rows: Vec<u64> =
                pairs(|a, b| u64::from($f(a, b))).as_flattened().to_vec();
            let count = rows.len() as u32 / 3;
            let table = s.table(&rows);
            s.cases(concat!(stringify!($i), " forward"), count);
            s.rows(table, count, 3, |s| {
                let taken = s.label();
                rv!(s
                    ; ld a0, [s2, 0]
                    ; ld a1, [s2, 8]
                    ; ld s4, [s2, 16]
                    ; li.12 a2, 1
                    ; $i a0, a1, =>taken
                    ; li.12 a2, 0
                    ; =>taken
                );
                s.check_eq(A2, S4);
            });
            s.cases(concat!(stringify!($i), " backward"), count);
            s.rows(table, count, 3, |s| {
                let (taken, test, done) = (s.label(), s.label(), s.label());
                rv!(s
                    ; ld a0, [s2, 0]
                    ; ld a1, [s2, 8]
                    ; ld s4, [s2, 16]
                    ; j =>test
                    ; =>taken
                    ; li.12 a2, 1
                    ; j =>done
                    ; =>test
                    ; $i a0, a1, =>taken
                    ; li.12 a2, 0
                    ; =>done
                );
                s.check_eq(A2, S4);
            });
            for same in [0, EDGES[3]] {
                s.case(concat!(stringify!($i), " rs1=rs2"));
                s.li(A1, same);
                let taken = s.label();
                rv!(s; li.12 a0, 1; $i a1, a1, =>taken; li.12 a0, 0; =>taken);
                s.check(A0, u64::from($f(same, same)));
            }
        };
    }
    op!(beq, |a: u64, b: u64| a == b);
    op!(bne, |a: u64, b: u64| a != b);
    op!(blt, |a: u64, b: u64| (a as i64) < b as i64);
    op!(bge, |a: u64, b: u64| a as i64 >= b as i64);
    op!(bltu, |a: u64, b: u64| a < b);
    op!(bgeu, |a: u64, b: u64| a >= b);

    s.case("branches of the longest reach, +4094 and -4096");
    let done = s.label();
    rv!(s; li.12 a0, 3);
    let first = s.here();
    s.word(raw::branch(0, 0, 0, 4094));
    rv!(s; j =>done);
    while s.here() < first + 4094 {
        s.half(0); // illegal if reached
    }
    rv!(s; c.addi a0, 4; c.nop; c.nop);
    s.word(raw::branch(5, 0, 0, -4096));
    s.fail();
    rv!(s; =>done);
    s.check(A0, 7);
    s.align(4);
}

fn jumps(s: &mut Suite) {
    s.case("jal links and skips");
    let target = s.label();
    let at = s.here();
    rv!(s; jal ra, =>target);
    s.fail();
    rv!(s; =>target);
    s.check(RA, at + 4);

    s.case("jal backward, other link register");
    let (over, target, done) = (s.label(), s.label(), s.label());
    rv!(s; j =>over; =>target; j =>done; =>over);
    let at = s.here();
    rv!(s; jal a3, =>target);
    s.fail();
    rv!(s; =>done);
    s.check(A3, at + 4);

    for (offset, rd, name) in [
        (0, RA, "jalr"),
        (2047, RA, "jalr +2047, bit 0 of the sum is cleared"),
        (-2048, RA, "jalr -2048"),
        (1, RA, "jalr +1, bit 0 of the sum is cleared"),
        (4, A0, "jalr rd=rs1"),
    ] {
        s.case(name);
        let target = s.label();
        rv!(s; la a0, =>target);
        s.li(T0, (-i64::from(offset & !1)) as u64);
        rv!(s; add a0, a0, t0);
        let at = s.here();
        rv!(s; jalr X(rd), a0, offset);
        s.fail();
        rv!(s; =>target);
        s.check(rd, at + 4);
    }

    s.case("jalr through every register");
    for rd in (5..30).filter(|r| *r != 17) {
        let target = s.label();
        rv!(s; la X(rd), =>target; jalr X(rd), X(rd), 0);
        s.fail();
        rv!(s; =>target);
        rv!(s; la t5, =>target; addi t5, t5, -4);
        // The link is the address after the jalr: where the unconditional failure stands.
        s.check_eq(rd, T5);
    }

    s.case("call and return, nested");
    let (f, g, over) = (s.label(), s.label(), s.label());
    rv!(s
        ; j =>over
        ; =>f ; mv s0, ra ; jal ra, =>g ; addi a0, a0, 1 ; jr s0
        ; =>g ; slli a0, a0, 4 ; ret
        ; =>over
        ; li.12 a0, 5
        ; jal ra, =>f
    );
    s.check(A0, 81);
}

/// Bytes of the memory that loads read: both signs, all different from their neighbours.
fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i as u8).wrapping_mul(0x9d).wrapping_add(0x81)).collect()
}

fn loads(s: &mut Suite) {
    let bytes = pattern(0x3000);
    let base = s.bytes(4096, &bytes);
    // Around the middle of a page, around a page end, and the region's ends.
    let places = (0x800..0x810u64).chain(0xff8..0x1001).chain([0, 0x1ff9, 0x1ffc, 0x1fff]);
    let places: Vec<u64> = places.collect();
    macro_rules! op {
        ($i:ident, $size:expr, $signed:expr) => {
            for &at in &places {
                let raw = &bytes[at as usize..][..$size];
                let mut value =
                    raw.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
                if $signed {
                    let unused = 64 - 8 * $size;
                    value = ((value << unused) as i64 >> unused) as u64;
                }
                s.case(&format!("{} at page offset {:#x}", stringify!($i), at));
                for offset in [0, 2047, -2048, 5] {
                    s.li(A1, (base + at).wrapping_sub(offset as u64));
                    rv!(s; $i a0, [a1, offset as i32]);
                    s.check(A0, value);
                }
                s.li(A1, base + at);
                rv!(s; $i a1, [a1]);
                s.check(A1, value);
            }
        };
    }
    op!(lb, 1, true);
    op!(lbu, 1, false);
    op!(lh, 2, true);
    op!(lhu, 2, false);
    op!(lw, 4, true);
    op!(lwu, 4, false);
    op!(ld, 8, true);
}

fn stores(s: &mut Suite) {
    let value = 0x8899_aabb_ccdd_eeffu64;
    let fill = 0x1122_3344_5566_7788u64;
    let places = (0x800..0x808u64).chain(0xff8..0x1001).chain([0x1ff9, 0x1ffc, 0x1fff]);
    let places: Vec<u64> = places.collect();
    macro_rules! op {
        ($i:ident, $size:expr) => {
            for &at in &places {
                s.case(&format!("{} at page offset {:#x}", stringify!($i), at));
                let window = SCRATCH + (at & !7) - 8;
                let mut memory: Vec<u8> = [fill; 4].iter().flat_map(|v| v.to_le_bytes()).collect();
                let start = (SCRATCH + at - window) as usize;
                memory[start..start + $size].copy_from_slice(&value.to_le_bytes()[..$size]);
                for offset in [0i64, 2047, -2048] {
                    s.li(A1, window);
                    s.li(A2, fill);
                    rv!(s; sd a2, [a1]; sd a2, [a1, 8]; sd a2, [a1, 16]; sd a2, [a1, 24]);
                    s.li(A0, value);
                    s.li(A3, (SCRATCH + at).wrapping_sub(offset as u64));
                    rv!(s; $i a0, [a3, offset as i32]);
                    for (i, want) in memory.as_chunks::<8>().0.iter().enumerate() {
                        rv!(s; ld a4, [a1, 8 * i as i32]);
                        s.check(A4, u64::from_le_bytes(*want));
                    }
                }
            }
        };
    }
    op!(sb, 1);
    op!(sh, 2);
    op!(sw, 4);
    op!(sd, 8);

    s.case("store then narrower and wider loads");
    s.li(A1, SCRATCH);
    s.li(A0, value);
    rv!(s; sd a0, [a1]; lbu a2, [a1, 7]; lh a3, [a1, 3]; lw a4, [a1, 1]);
    s.check(A2, 0x88);
    s.check(A3, 0xffff_ffff_ffff_bbcc);
    s.check(A4, 0xffff_ffff_bbcc_ddee);
    rv!(s; sb zero, [a1, 6]; sh a0, [a1, 1]; ld a2, [a1]);
    s.check(A2, 0x8800_aabb_ccee_ffff);
    s.case("store of x0");
    rv!(s; sd zero, [a1]; ld a2, [a1]);
    s.check(A2, 0);
}

fn registers(s: &mut Suite) {
    s.case("every register holds its own value");
    let all: Vec<u8> = (1..30).filter(|r| *r != GP && *r != 17).collect();
    for &r in &all {
        s.li(r, 0x0101_0101_0101_0101 * u64::from(r));
    }
    for &r in &all {
        s.check(r, 0x0101_0101_0101_0101 * u64::from(r));
    }
    s.case("every register as source and destination");
    for (&a, &b) in all.iter().zip(all.iter().rev()) {
        s.li(a, u64::from(a) << 40);
        rv!(s; addi X(b), X(a), 1; xor X(a), X(a), X(b));
        s.check(b, if a == b { 0 } else { (u64::from(a) << 40) + 1 });
        s.check(a, if a == b { 0 } else { 1 });
    }
    s.case("x0 stays zero");
    s.li(A0, 77);
    rv!(s
        ; add x0, a0, a0
        ; lui x0, 0x7000
        ; addi x0, a0, 1
        ; auipc x0, 0x1000
    );
    s.check(0, 0);
    s.li(A1, SCRATCH);
    rv!(s; sd a0, [a1]; ld x0, [a1]);
    s.check(0, 0);
    s.case("jal and jalr with rd = x0");
    let (one, two) = (s.label(), s.label());
    rv!(s; jal x0, =>one; =>one; la a0, =>two; jalr x0, a0, 0; =>two);
    s.check(0, 0);
}

fn fences_and_hints(s: &mut Suite) {
    s.case("fences retire");
    s.li(A0, 42);
    rv!(s; fence; fence.tso; fence rw, w; fence.i);
    // Unprivileged ISA, "Memory Ordering Instructions": reserved fm, rd and rs1 are ignored.
    s.word(0x8330_000f);
    s.word(0x0ff5_058f);
    s.word(0x0100_000f); // pause
    s.check(A0, 42);
    s.case("HINT encodings retire without effect");
    for word in [
        0x0000_0037u32, // lui x0
        0x0005_0013,    // addi x0, a0, 0
        0x00b5_0033,    // add x0, a0, a1
        0x4015_5013,    // srai x0, a0, 1
        0x4010_5013,    // srai x0, x0, 1 (semihosting marker without its ebreak)
        0x00b5_003b,    // addw x0, a0, a1
    ] {
        s.word(word);
    }
    s.check(A0, 42);
    s.check(0, 0);
}
