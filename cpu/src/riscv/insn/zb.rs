//! Bit manipulation: Zba, Zbb, Zbc, Zbs (unprivileged, chapter 30).

use super::i::{reg, shift};
use super::table;
use crate::riscv::sem::{Bin, Sem, SemExt, Un};

/// `rs2 + (rs1 << amount)`, with `rs1` cut to 32 bits in the `.uw` forms.
#[inline(always)]
fn shadd<S: Sem>(s: &mut S, i: super::R, amount: i64, word: bool) {
    let (mut a, b, amount) = (s.x(i.rs1()), s.x(i.rs2()), s.imm(amount));
    if word {
        a = s.un(Un::ZextW, a);
    }
    let a = s.sll(a, amount);
    let v = s.add(a, b);
    s.set_x(i.rd(), v);
}

/// `op(rs1, !rs2)`.
#[inline(always)]
fn with_not<S: Sem>(s: &mut S, i: super::R, op: Bin) {
    let (a, b, ones) = (s.x(i.rs1()), s.x(i.rs2()), s.imm(-1));
    let b = s.xor(b, ones);
    let v = s.bin(op, a, b);
    s.set_x(i.rd(), v);
}

#[inline(always)]
fn unary<S: Sem>(s: &mut S, i: super::R, op: Un) {
    let a = s.x(i.rs1());
    let v = s.un(op, a);
    s.set_x(i.rd(), v);
}

/// What the single-bit instructions do with bit `n`.
#[derive(Clone, Copy)]
enum Bit {
    Clear,
    Extract,
    Invert,
    Set,
}

#[inline(always)]
fn single_bit<S: Sem>(s: &mut S, rd: u8, a: S::V, n: S::V, op: Bit) {
    let one = s.imm(1);
    let v = if let Bit::Extract = op {
        let v = s.srl(a, n);
        s.and(v, one)
    } else {
        let bit = s.sll(one, n);
        match op {
            Bit::Set => s.or(a, bit),
            Bit::Invert => s.xor(a, bit),
            Bit::Clear | Bit::Extract => {
                let ones = s.imm(-1);
                let mask = s.xor(bit, ones);
                s.and(a, mask)
            }
        }
    };
    s.set_x(rd, v);
}

#[inline(always)]
fn bit_reg<S: Sem>(s: &mut S, i: super::R, op: Bit) {
    let (a, n) = (s.x(i.rs1()), s.x(i.rs2()));
    single_bit(s, i.rd(), a, n, op);
}

#[inline(always)]
fn bit_imm<S: Sem>(s: &mut S, i: super::I, op: Bit) {
    let (a, n) = (s.x(i.rs1()), s.imm(i.imm() & 0x3f));
    single_bit(s, i.rd(), a, n, op);
}

table! {
    /// Zba, Zbb, Zbc, Zbs.
    rows, s, i;
    add_uw    R ["0000100 ..... ..... 000 ..... 0111011"] shadd(s, i, 0, true);
    sh1add    R ["0010000 ..... ..... 010 ..... 0110011"] shadd(s, i, 1, false);
    sh2add    R ["0010000 ..... ..... 100 ..... 0110011"] shadd(s, i, 2, false);
    sh3add    R ["0010000 ..... ..... 110 ..... 0110011"] shadd(s, i, 3, false);
    sh1add_uw R ["0010000 ..... ..... 010 ..... 0111011"] shadd(s, i, 1, true);
    sh2add_uw R ["0010000 ..... ..... 100 ..... 0111011"] shadd(s, i, 2, true);
    sh3add_uw R ["0010000 ..... ..... 110 ..... 0111011"] shadd(s, i, 3, true);
    slli_uw   I ["000010 ...... ..... 001 ..... 0011011"] {
        let (a, n) = (s.x(i.rs1()), s.imm(i.imm() & 0x3f));
        let a = s.un(Un::ZextW, a);
        let v = s.sll(a, n);
        s.set_x(i.rd(), v);
    };

    andn   R ["0100000 ..... ..... 111 ..... 0110011"] with_not(s, i, Bin::And);
    orn    R ["0100000 ..... ..... 110 ..... 0110011"] with_not(s, i, Bin::Or);
    xnor   R ["0100000 ..... ..... 100 ..... 0110011"] with_not(s, i, Bin::Xor);
    clz    R ["0110000 00000 ..... 001 ..... 0010011"] unary(s, i, Un::Clz);
    ctz    R ["0110000 00001 ..... 001 ..... 0010011"] unary(s, i, Un::Ctz);
    cpop   R ["0110000 00010 ..... 001 ..... 0010011"] unary(s, i, Un::Cpop);
    clzw   R ["0110000 00000 ..... 001 ..... 0011011"] unary(s, i, Un::Clzw);
    ctzw   R ["0110000 00001 ..... 001 ..... 0011011"] unary(s, i, Un::Ctzw);
    cpopw  R ["0110000 00010 ..... 001 ..... 0011011"] unary(s, i, Un::Cpopw);
    sext_b R ["0110000 00100 ..... 001 ..... 0010011"] unary(s, i, Un::SextB);
    sext_h R ["0110000 00101 ..... 001 ..... 0010011"] unary(s, i, Un::SextH);
    zext_h R ["0000100 00000 ..... 100 ..... 0111011"] unary(s, i, Un::ZextH);
    max    R ["0000101 ..... ..... 110 ..... 0110011"] reg(s, i, Bin::Max);
    maxu   R ["0000101 ..... ..... 111 ..... 0110011"] reg(s, i, Bin::Maxu);
    min    R ["0000101 ..... ..... 100 ..... 0110011"] reg(s, i, Bin::Min);
    minu   R ["0000101 ..... ..... 101 ..... 0110011"] reg(s, i, Bin::Minu);
    rol    R ["0110000 ..... ..... 001 ..... 0110011"] reg(s, i, Bin::Rol);
    ror    R ["0110000 ..... ..... 101 ..... 0110011"] reg(s, i, Bin::Ror);
    rori   I ["011000 ...... ..... 101 ..... 0010011"] shift(s, i, Bin::Ror);
    rolw   R ["0110000 ..... ..... 001 ..... 0111011"] reg(s, i, Bin::Rolw);
    rorw   R ["0110000 ..... ..... 101 ..... 0111011"] reg(s, i, Bin::Rorw);
    roriw  I ["0110000 ..... ..... 101 ..... 0011011"] shift(s, i, Bin::Rorw);
    orc_b  R ["0010100 00111 ..... 101 ..... 0010011"] unary(s, i, Un::OrcB);
    rev8   R ["0110101 11000 ..... 101 ..... 0010011"] unary(s, i, Un::Rev8);

    clmul  R ["0000101 ..... ..... 001 ..... 0110011"] reg(s, i, Bin::Clmul);
    clmulr R ["0000101 ..... ..... 010 ..... 0110011"] reg(s, i, Bin::Clmulr);
    clmulh R ["0000101 ..... ..... 011 ..... 0110011"] reg(s, i, Bin::Clmulh);

    bclr  R ["0100100 ..... ..... 001 ..... 0110011"] bit_reg(s, i, Bit::Clear);
    bclri I ["010010 ...... ..... 001 ..... 0010011"] bit_imm(s, i, Bit::Clear);
    bext  R ["0100100 ..... ..... 101 ..... 0110011"] bit_reg(s, i, Bit::Extract);
    bexti I ["010010 ...... ..... 101 ..... 0010011"] bit_imm(s, i, Bit::Extract);
    binv  R ["0110100 ..... ..... 001 ..... 0110011"] bit_reg(s, i, Bit::Invert);
    binvi I ["011010 ...... ..... 001 ..... 0010011"] bit_imm(s, i, Bit::Invert);
    bset  R ["0010100 ..... ..... 001 ..... 0110011"] bit_reg(s, i, Bit::Set);
    bseti I ["001010 ...... ..... 001 ..... 0010011"] bit_imm(s, i, Bit::Set);
}
