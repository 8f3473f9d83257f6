//! C, Zca, Zcd and Zcb, compressed instructions (unprivileged, chapters 27 and 29): each is another
//! spelling of one 32-bit instruction, so a row gives the expansion.

use super::{Pattern, bits};

/// A row of the table of compressed instructions.
pub struct Compressed {
    /// Mnemonic, with `_` for `.`.
    pub name: &'static str,
    /// Encoding, 16 bits.
    pub pattern: Pattern,
    /// The 32-bit instruction it stands for; `None` where the encoding is reserved.
    pub expand: fn(u32) -> Option<u32>,
}

// 32-bit encodings.
const OP_IMM: u32 = 0x13;
const OP_IMM_32: u32 = 0x1b;
const OP: u32 = 0x33;
const OP_32: u32 = 0x3b;
const LOAD: u32 = 0x03;
const STORE: u32 = 0x23;
const LOAD_FP: u32 = 0x07;
const STORE_FP: u32 = 0x27;
const LUI: u32 = 0x37;
const BRANCH: u32 = 0x63;
const JALR: u32 = 0x67;
const JAL: u32 = 0x6f;
const EBREAK: u32 = 0x0010_0073;
const SP: u32 = 2;
const RA: u32 = 1;

const fn r_type(op: u32, f3: u32, f7: u32, rd: u32, rs1: u32, rs2: u32) -> u32 {
    f7 << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | rd << 7 | op
}
const fn i_type(op: u32, f3: u32, rd: u32, rs1: u32, imm: u32) -> u32 {
    (imm & 0xfff) << 20 | rs1 << 15 | f3 << 12 | rd << 7 | op
}
const fn s_type(op: u32, f3: u32, rs1: u32, rs2: u32, imm: u32) -> u32 {
    (imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | (imm & 0x1f) << 7 | op
}
const fn branch(f3: u32, rs1: u32, imm: u32) -> u32 {
    bits(imm, 12, 12) << 31
        | bits(imm, 10, 5) << 25
        | rs1 << 15
        | f3 << 12
        | bits(imm, 4, 1) << 8
        | bits(imm, 11, 11) << 7
        | BRANCH
}
const fn jal(rd: u32, imm: u32) -> u32 {
    bits(imm, 20, 20) << 31
        | bits(imm, 10, 1) << 21
        | bits(imm, 11, 11) << 20
        | bits(imm, 19, 12) << 12
        | rd << 7
        | JAL
}

// Fields of 16-bit encodings (table 35).
const fn rd(w: u32) -> u32 {
    bits(w, 11, 7)
}
const fn rs2(w: u32) -> u32 {
    bits(w, 6, 2)
}
/// `rd'`/`rs1'` in bits 9:7.
const fn high_reg(w: u32) -> u32 {
    8 + bits(w, 9, 7)
}
/// `rd'`/`rs2'` in bits 4:2.
const fn low_reg(w: u32) -> u32 {
    8 + bits(w, 4, 2)
}
const fn sext(value: u32, sign_bit: u32) -> u32 {
    let shift = 31 - sign_bit;
    ((value << shift) as i32 >> shift) as u32
}
/// The 6-bit signed immediate of CI formats.
const fn imm6(w: u32) -> u32 {
    sext(bits(w, 12, 12) << 5 | bits(w, 6, 2), 5)
}
const fn shamt(w: u32) -> u32 {
    bits(w, 12, 12) << 5 | bits(w, 6, 2)
}
/// Offset of word accesses: uimm[5:3|2|6].
const fn word_offset(w: u32) -> u32 {
    bits(w, 12, 10) << 3 | bits(w, 6, 6) << 2 | bits(w, 5, 5) << 6
}
/// Offset of double-word accesses: uimm[5:3|7:6].
const fn double_offset(w: u32) -> u32 {
    bits(w, 12, 10) << 3 | bits(w, 6, 5) << 6
}
/// Offset of SP-relative word loads: uimm[5|4:2|7:6].
const fn word_sp(w: u32) -> u32 {
    bits(w, 12, 12) << 5 | bits(w, 6, 4) << 2 | bits(w, 3, 2) << 6
}
/// Offset of SP-relative double-word loads: uimm[5|4:3|8:6].
const fn double_sp(w: u32) -> u32 {
    bits(w, 12, 12) << 5 | bits(w, 6, 5) << 3 | bits(w, 4, 2) << 6
}
/// Offset of SP-relative word stores: uimm[5:2|7:6].
const fn word_sp_store(w: u32) -> u32 {
    bits(w, 12, 9) << 2 | bits(w, 8, 7) << 6
}
/// Offset of SP-relative double-word stores: uimm[5:3|8:6].
const fn double_sp_store(w: u32) -> u32 {
    bits(w, 12, 10) << 3 | bits(w, 9, 7) << 6
}
/// Jump offset: imm[11|4|9:8|10|6|7|3:1|5].
const fn jump_offset(w: u32) -> u32 {
    sext(
        bits(w, 12, 12) << 11
            | bits(w, 11, 11) << 4
            | bits(w, 10, 9) << 8
            | bits(w, 8, 8) << 10
            | bits(w, 7, 7) << 6
            | bits(w, 6, 6) << 7
            | bits(w, 5, 3) << 1
            | bits(w, 2, 2) << 5,
        11,
    )
}
/// Branch offset: imm[8|4:3|7:6|2:1|5].
const fn branch_offset(w: u32) -> u32 {
    sext(
        bits(w, 12, 12) << 8
            | bits(w, 11, 10) << 3
            | bits(w, 6, 5) << 6
            | bits(w, 4, 3) << 1
            | bits(w, 2, 2) << 5,
        8,
    )
}
/// Byte offset of Zcb: uimm[0|1].
const fn byte_offset(w: u32) -> u32 {
    bits(w, 6, 6) | bits(w, 5, 5) << 1
}

const fn some_if(legal: bool, word: u32) -> Option<u32> {
    if legal { Some(word) } else { None }
}
/// `op rd', rd', rs2'`.
const fn two(op: u32, f3: u32, f7: u32, w: u32) -> Option<u32> {
    Some(r_type(op, f3, f7, high_reg(w), high_reg(w), low_reg(w)))
}
/// `op rd', rd', imm`.
const fn one(op: u32, f3: u32, imm: u32, w: u32) -> Option<u32> {
    Some(i_type(op, f3, high_reg(w), high_reg(w), imm))
}

macro_rules! compressed {
    ($($name:ident [$pattern:literal] |$w:ident| $expand:expr;)*) => {
        /// Compressed instructions; the first row that matches is meant.
        pub const ROWS: &[Compressed] = &[$(Compressed {
            name: stringify!($name),
            pattern: Pattern::parse($pattern),
            expand: |$w| $expand,
        }),*];
    };
}

compressed! {
    c_addi4spn ["000 ........ ... 00"] |w| {
        let imm = bits(w, 12, 11) << 4 | bits(w, 10, 7) << 6 | bits(w, 6, 6) << 2 | bits(w, 5, 5) << 3;
        some_if(imm != 0, i_type(OP_IMM, 0, low_reg(w), SP, imm))
    };
    c_fld ["001 ... ... .. ... 00"] |w| Some(i_type(LOAD_FP, 3, low_reg(w), high_reg(w), double_offset(w)));
    c_lw  ["010 ... ... .. ... 00"] |w| Some(i_type(LOAD, 2, low_reg(w), high_reg(w), word_offset(w)));
    c_ld  ["011 ... ... .. ... 00"] |w| Some(i_type(LOAD, 3, low_reg(w), high_reg(w), double_offset(w)));
    c_fsd ["101 ... ... .. ... 00"] |w| Some(s_type(STORE_FP, 3, high_reg(w), low_reg(w), double_offset(w)));
    c_sw  ["110 ... ... .. ... 00"] |w| Some(s_type(STORE, 2, high_reg(w), low_reg(w), word_offset(w)));
    c_sd  ["111 ... ... .. ... 00"] |w| Some(s_type(STORE, 3, high_reg(w), low_reg(w), double_offset(w)));
    c_lbu ["100 000 ... .. ... 00"] |w| Some(i_type(LOAD, 4, low_reg(w), high_reg(w), byte_offset(w)));
    c_lhu ["100 001 ... 0. ... 00"] |w| Some(i_type(LOAD, 5, low_reg(w), high_reg(w), bits(w, 5, 5) << 1));
    c_lh  ["100 001 ... 1. ... 00"] |w| Some(i_type(LOAD, 1, low_reg(w), high_reg(w), bits(w, 5, 5) << 1));
    c_sb  ["100 010 ... .. ... 00"] |w| Some(s_type(STORE, 0, high_reg(w), low_reg(w), byte_offset(w)));
    c_sh  ["100 011 ... 0. ... 00"] |w| Some(s_type(STORE, 1, high_reg(w), low_reg(w), bits(w, 5, 5) << 1));

    c_addi  ["000 . ..... ..... 01"] |w| Some(i_type(OP_IMM, 0, rd(w), rd(w), imm6(w)));
    c_addiw ["001 . ..... ..... 01"] |w| some_if(rd(w) != 0, i_type(OP_IMM_32, 0, rd(w), rd(w), imm6(w)));
    c_li    ["010 . ..... ..... 01"] |w| Some(i_type(OP_IMM, 0, rd(w), 0, imm6(w)));
    c_addi16sp ["011 . 00010 ..... 01"] |w| {
        let imm = sext(
            bits(w, 12, 12) << 9
                | bits(w, 6, 6) << 4
                | bits(w, 5, 5) << 6
                | bits(w, 4, 3) << 7
                | bits(w, 2, 2) << 5,
            9,
        );
        some_if(imm != 0, i_type(OP_IMM, 0, SP, SP, imm))
    };
    c_lui   ["011 . ..... ..... 01"] |w| some_if(imm6(w) != 0, imm6(w) << 12 | rd(w) << 7 | LUI);
    c_srli  ["100 . 00 ... ..... 01"] |w| one(OP_IMM, 5, shamt(w), w);
    c_srai  ["100 . 01 ... ..... 01"] |w| one(OP_IMM, 5, 0x400 | shamt(w), w);
    c_andi  ["100 . 10 ... ..... 01"] |w| one(OP_IMM, 7, imm6(w), w);
    c_sub   ["100 0 11 ... 00 ... 01"] |w| two(OP, 0, 0x20, w);
    c_xor   ["100 0 11 ... 01 ... 01"] |w| two(OP, 4, 0, w);
    c_or    ["100 0 11 ... 10 ... 01"] |w| two(OP, 6, 0, w);
    c_and   ["100 0 11 ... 11 ... 01"] |w| two(OP, 7, 0, w);
    c_subw  ["100 1 11 ... 00 ... 01"] |w| two(OP_32, 0, 0x20, w);
    c_addw  ["100 1 11 ... 01 ... 01"] |w| two(OP_32, 0, 0, w);
    c_mul   ["100 1 11 ... 10 ... 01"] |w| two(OP, 0, 1, w);
    c_zext_b ["100 1 11 ... 11 000 01"] |w| one(OP_IMM, 7, 0xff, w);
    c_sext_b ["100 1 11 ... 11 001 01"] |w| one(OP_IMM, 1, 0x604, w);
    c_zext_h ["100 1 11 ... 11 010 01"] |w| Some(r_type(OP_32, 4, 4, high_reg(w), high_reg(w), 0));
    c_sext_h ["100 1 11 ... 11 011 01"] |w| one(OP_IMM, 1, 0x605, w);
    c_zext_w ["100 1 11 ... 11 100 01"] |w| Some(r_type(OP_32, 0, 4, high_reg(w), high_reg(w), 0));
    c_not    ["100 1 11 ... 11 101 01"] |w| one(OP_IMM, 4, 0xfff, w);
    c_j     ["101 ........... 01"] |w| Some(jal(0, jump_offset(w)));
    c_beqz  ["110 ... ... ..... 01"] |w| Some(branch(0, high_reg(w), branch_offset(w)));
    c_bnez  ["111 ... ... ..... 01"] |w| Some(branch(1, high_reg(w), branch_offset(w)));

    c_slli  ["000 . ..... ..... 10"] |w| Some(i_type(OP_IMM, 1, rd(w), rd(w), shamt(w)));
    c_fldsp ["001 . ..... ..... 10"] |w| Some(i_type(LOAD_FP, 3, rd(w), SP, double_sp(w)));
    c_lwsp  ["010 . ..... ..... 10"] |w| some_if(rd(w) != 0, i_type(LOAD, 2, rd(w), SP, word_sp(w)));
    c_ldsp  ["011 . ..... ..... 10"] |w| some_if(rd(w) != 0, i_type(LOAD, 3, rd(w), SP, double_sp(w)));
    c_jr    ["100 0 ..... 00000 10"] |w| some_if(rd(w) != 0, i_type(JALR, 0, 0, rd(w), 0));
    c_mv    ["100 0 ..... ..... 10"] |w| Some(r_type(OP, 0, 0, rd(w), 0, rs2(w)));
    c_ebreak ["100 1 00000 00000 10"] |_w| Some(EBREAK);
    c_jalr  ["100 1 ..... 00000 10"] |w| Some(i_type(JALR, 0, RA, rd(w), 0));
    c_add   ["100 1 ..... ..... 10"] |w| Some(r_type(OP, 0, 0, rd(w), rd(w), rs2(w)));
    c_fsdsp ["101 ...... ..... 10"] |w| Some(s_type(STORE_FP, 3, SP, rs2(w), double_sp_store(w)));
    c_swsp  ["110 ...... ..... 10"] |w| Some(s_type(STORE, 2, SP, rs2(w), word_sp_store(w)));
    c_sdsp  ["111 ...... ..... 10"] |w| Some(s_type(STORE, 3, SP, rs2(w), double_sp_store(w)));
}
