//! C and Zcb: every compressed form against the instruction it stands for. Source: Unprivileged
//! ISA, "C" Extension and "Zc*"; expected values by host arithmetic.

use super::operands::{EDGES, sext32};
use crate::suite::reg::*;
use crate::suite::{SCRATCH, Suite, rv};

const VALUE: u64 = 0x8899_aabb_ccdd_eeff;

pub(super) fn define(s: &mut Suite) {
    arithmetic(s);
    immediates(s);
    memory(s);
    floating(s);
    jumps(s);
    placement(s);
}

/// A case that leaves a result in `reg`.
fn result(s: &mut Suite, name: &str, reg: u8, want: u64, body: impl FnOnce(&mut Suite)) {
    s.case(name);
    body(s);
    s.align(4);
    s.check(reg, want);
}

fn arithmetic(s: &mut Suite) {
    for &a in &EDGES {
        for &b in &[0u64, 1, u64::MAX, 0x8000_0000, VALUE, 0x7fff_ffff_ffff_ffff] {
            macro_rules! op {
                ($($i:ident).+, $rd:ident = $d:expr, $rs:ident = $r:expr, $want:expr) => {
                    result(s, &format!("{} {a:#x}, {b:#x}", stringify!($($i).+)), $d, $want, |s| {
                        s.li($d, a);
                        s.li($r, b);
                        rv!(s; $($i).+ $rd, $rs);
                    });
                };
            }
            op!(c.add, s2 = S2, t0 = T0, a.wrapping_add(b));
            op!(c.mv, s2 = S2, t0 = T0, b);
            op!(c.sub, s0 = S0, a5 = A5, a.wrapping_sub(b));
            op!(c.xor, s1 = S1, a4 = A4, a ^ b);
            op!(c.or, a0 = A0, a3 = A3, a | b);
            op!(c.and, a1 = A1, a2 = A2, a & b);
            op!(c.subw, a2 = A2, a1 = A1, sext32(a.wrapping_sub(b)));
            op!(c.addw, a3 = A3, a0 = A0, sext32(a.wrapping_add(b)));
        }
    }
}

fn immediates(s: &mut Suite) {
    for imm in [-32i32, -17, -1, 1, 5, 16, 31] {
        let wide = i64::from(imm) as u64;
        result(s, &format!("c.li {imm}"), T1, wide, |s| rv!(s; c.li t1, imm));
        for a in [0, VALUE, 0x7fff_ffff, u64::MAX] {
            result(s, &format!("c.addi {imm} to {a:#x}"), T1, a.wrapping_add(wide), |s| {
                s.li(T1, a);
                rv!(s; c.addi t1, imm);
            });
            result(s, &format!("c.addiw {imm} to {a:#x}"), S7, sext32(a.wrapping_add(wide)), |s| {
                s.li(S7, a);
                rv!(s; c.addiw s7, imm);
            });
            result(s, &format!("c.andi {imm} of {a:#x}"), A5, a & wide, |s| {
                s.li(A5, a);
                rv!(s; c.andi a5, imm);
            });
        }
        result(s, &format!("c.lui {imm}"), S4, (wide << 12) as i64 as u64, |s| {
            rv!(s; c.lui s4, imm << 12);
        });
    }
    result(s, "c.addiw 0 is sext.w", S7, 0xffff_ffff_ccdd_eeff, |s| {
        s.li(S7, VALUE);
        rv!(s; c.addiw s7, 0);
    });
    for shamt in [1u32, 5, 31, 32, 63] {
        result(s, &format!("c.slli {shamt}"), S11, VALUE << shamt, |s| {
            s.li(S11, VALUE);
            rv!(s; c.slli s11, shamt);
        });
        result(s, &format!("c.srli {shamt}"), A0, VALUE >> shamt, |s| {
            s.li(A0, VALUE);
            rv!(s; c.srli a0, shamt);
        });
        result(s, &format!("c.srai {shamt}"), A1, (VALUE as i64 >> shamt) as u64, |s| {
            s.li(A1, VALUE);
            rv!(s; c.srai a1, shamt);
        });
    }
    for imm in [-512i32, -256, -16, 16, 32, 64, 128, 256, 496] {
        let want = SCRATCH.wrapping_add(i64::from(imm) as u64);
        result(s, &format!("c.addi16sp {imm}"), SP, want, |s| {
            s.li(SP, SCRATCH);
            rv!(s; c.addi16sp sp, imm);
        });
    }
    for imm in [4u32, 8, 16, 32, 64, 128, 256, 512, 1020] {
        result(s, &format!("c.addi4spn {imm}"), A4, SCRATCH + u64::from(imm), |s| {
            s.li(SP, SCRATCH);
            rv!(s; c.addi4spn a4, sp, imm);
        });
    }
    result(s, "c.nop and its HINTs", A0, 7, |s| {
        rv!(s; li.12 a0, 7; c.nop);
        s.half(0x0005); // c.nop 1
        s.half(0x4005); // c.li x0, 1
        s.half(0x6005); // c.lui x0, 1
        s.half(0x0506 & !0x0f80 | 0x0002); // c.slli x0, 1
        s.half(0x802a); // c.mv x0, a0
        s.half(0x902a); // c.add x0, a0
        s.align(4);
        s.check(0, 0);
    });
}

fn memory(s: &mut Suite) {
    s.li(SP, SCRATCH);
    s.li(A0, SCRATCH);
    for offset in [0u32, 4, 8, 16, 32, 64, 124] {
        let at = SCRATCH + u64::from(offset);
        s.case(&format!("c.sw and c.lw at {offset}"));
        s.li(A2, VALUE);
        s.li(A3, at);
        rv!(s; sd zero, [a3]; c.sw a2, [a0, offset]; c.lw a4, [a0, offset]; ld a5, [a3]);
        s.check(A4, 0xffff_ffff_ccdd_eeff);
        s.check(A5, 0xccdd_eeff);
    }
    for offset in [0u32, 4, 8, 16, 32, 64, 128, 252] {
        let at = SCRATCH + u64::from(offset);
        s.case(&format!("c.swsp and c.lwsp at {offset}"));
        s.li(S4, VALUE);
        s.li(A3, at);
        rv!(s; sd zero, [a3]; c.swsp s4, [sp, offset]; c.lwsp s5, [sp, offset]; ld a5, [a3]);
        s.check(S5, 0xffff_ffff_ccdd_eeff);
        s.check(A5, 0xccdd_eeff);
    }
    for offset in [0u32, 8, 16, 32, 64, 128, 248] {
        let at = SCRATCH + u64::from(offset);
        s.case(&format!("c.sd and c.ld at {offset}"));
        s.li(A2, VALUE);
        s.li(A3, at);
        rv!(s; sd zero, [a3]; c.sd a2, [a0, offset]; c.ld s1, [a0, offset]; ld a5, [a3]);
        s.check(S1, VALUE);
        s.check(A5, VALUE);
    }
    for offset in [0u32, 8, 16, 32, 64, 128, 256, 504] {
        let at = SCRATCH + u64::from(offset);
        s.case(&format!("c.sdsp and c.ldsp at {offset}"));
        s.li(S4, VALUE);
        s.li(A3, at);
        rv!(s; sd zero, [a3]; c.sdsp s4, [sp, offset]; c.ldsp s5, [sp, offset]; ld a5, [a3]);
        s.check(S5, VALUE);
        s.check(A5, VALUE);
    }
}

fn floating(s: &mut Suite) {
    s.li(SP, SCRATCH);
    s.li(A0, SCRATCH);
    for offset in [0u32, 8, 16, 32, 64, 128, 248] {
        s.case(&format!("c.fsd, c.fld, c.fsdsp, c.fldsp at {offset}"));
        s.li(A2, VALUE ^ u64::from(offset));
        s.li(A3, SCRATCH + u64::from(offset));
        rv!(s
            ; fmv.d.x f9, a2
            ; sd zero, [a3]
            ; c.fsd f9, [a0, offset]
            ; ld a4, [a3]
            ; c.fld f15, [a0, offset]
            ; fmv.x.d a5, f15
            ; sd zero, [a3]
            ; c.fsdsp f9, [sp, offset]
            ; ld s4, [a3]
            ; c.fldsp f31, [sp, offset]
            ; fmv.x.d s5, f31
        );
        for reg in [A4, A5, S4, S5] {
            s.check(reg, VALUE ^ u64::from(offset));
        }
    }
}

fn jumps(s: &mut Suite) {
    s.case("c.j forward and backward");
    let (a, b, c) = (s.label(), s.label(), s.label());
    rv!(s; c.j =>a; =>b; c.j =>c; =>a; c.j =>b; =>c);
    s.align(4);
    s.case("c.jr and c.jalr; the link is 2 behind");
    let (there, next) = (s.label(), s.label());
    rv!(s; la t0, =>there; c.jr t0);
    s.fail();
    rv!(s; =>there; la t1, =>next);
    let link = s.here() + 2;
    rv!(s; c.jalr t1);
    s.fail();
    rv!(s; =>next);
    s.align(4);
    s.check(RA, link);
    s.case("c.jalr ra: target read before the link is written");
    let next = s.label();
    rv!(s; la ra, =>next);
    let link = s.here() + 2;
    rv!(s; c.jalr ra);
    s.fail();
    rv!(s; =>next);
    s.align(4);
    s.check(RA, link);
    for value in [0u64, 1, 1 << 63, 1 << 32] {
        s.case(&format!("c.beqz and c.bnez of {value:#x}"));
        s.li(A5, value);
        let (one, two) = (s.label(), s.label());
        rv!(s; li.12 a0, 1; li.12 a1, 1; c.beqz a5, =>one; c.li a0, 0; =>one);
        rv!(s; c.bnez a5, =>two; c.li a1, 0; =>two);
        s.align(4);
        s.check(A0, u64::from(value == 0));
        s.check(A1, u64::from(value != 0));
    }
    s.case("c.beqz and c.j over longer distances");
    let (far, back, done) = (s.label(), s.label(), s.label());
    rv!(s; li.12 a0, 0; li.12 a5, 0; c.beqz a5, =>far; =>back; c.addi a0, 1; j =>done);
    for _ in 0..56 {
        s.half(0); // illegal if reached
    }
    rv!(s; =>far; c.addi a0, 2; c.beqz a5, =>back; =>done);
    s.align(4);
    s.check(A0, 3);
}

/// Four-byte instructions at every two-byte place, over line and page ends.
fn placement(s: &mut Suite) {
    for behind in [2u64, 4, 6] {
        s.case(&format!("a run of mixed lengths that crosses a page end, shifted by {behind}"));
        rv!(s; li.12 a0, 0; j >start);
        while s.here() % 4096 != 4096 - 32 - behind {
            s.half(0x0001);
        }
        rv!(s; start:);
        for _ in 0..16 {
            rv!(s; addi a0, a0, 1; c.addi a0, 2; addi a0, a0, 3);
        }
        s.align(4);
        s.check(A0, 96);
    }
}

/// Zcb.
pub(super) fn zcb(s: &mut Suite) {
    s.li(A0, SCRATCH);
    for offset in 0..4u32 {
        s.case(&format!("c.lbu and c.sb at {offset}"));
        s.li(A2, VALUE);
        s.li(A3, 0x0102_0304_0506_0708);
        rv!(s; sd a3, [a0]; c.lbu a4, [a0, offset]; c.sb a2, [a0, offset]; ld a5, [a0]);
        s.check(A4, 8 - u64::from(offset));
        let mut bytes = 0x0102_0304_0506_0708u64.to_le_bytes();
        bytes[offset as usize] = 0xff;
        s.check(A5, u64::from_le_bytes(bytes));
    }
    for offset in [0u32, 2] {
        s.case(&format!("c.lh, c.lhu and c.sh at {offset}"));
        s.li(A2, VALUE);
        s.li(A3, 0x8182_8384_8586_8788);
        let half = 0x8182_8384_8586_8788u64 >> (8 * offset) & 0xffff;
        rv!(s; sd a3, [a0]; c.lh a4, [a0, offset]; c.lhu a5, [a0, offset]; c.sh a2, [a0, offset]);
        rv!(s; ld s0, [a0]);
        s.check(A4, half | 0xffff_ffff_ffff_0000);
        s.check(A5, half);
        let mut bytes = 0x8182_8384_8586_8788u64.to_le_bytes();
        bytes[offset as usize..][..2].copy_from_slice(&[0xff, 0xee]);
        s.check(S0, u64::from_le_bytes(bytes));
    }
    for &a in &EDGES {
        macro_rules! op {
            ($($i:ident).+, $want:expr) => {
                result(s, &format!("{} {a:#x}", stringify!($($i).+)), A4, $want, |s| {
                    s.li(A4, a);
                    rv!(s; $($i).+ a4);
                });
            };
        }
        op!(c.zext.b, a % 0x100);
        op!(c.sext.b, a as i8 as u64);
        op!(c.zext.h, a % 0x1_0000);
        op!(c.sext.h, a as i16 as u64);
        op!(c.zext.w, a % 0x1_0000_0000);
        op!(c.not, u64::MAX - a);
        for b in [0u64, 3, u64::MAX, VALUE] {
            let want = (i128::from(a as i64).wrapping_mul(i128::from(b as i64))) as u64;
            result(s, &format!("c.mul {a:#x}, {b:#x}"), S0, want, |s| {
                s.li(S0, a);
                s.li(A3, b);
                rv!(s; c.mul s0, a3);
            });
        }
    }
}
