//! RV64I, the base integer instruction set (unprivileged, chapters 2 and 4), and Zicond (chapter 12).

use super::table;
use crate::bus::Width::{Byte, Double, Half, Word};
use crate::riscv::sem::{Bin, Sem, SemExt, Un};

/// `op(rs1, rs2)` into `rd`.
#[inline(always)]
pub(super) fn reg<S: Sem>(s: &mut S, i: super::R, op: Bin) {
    let (a, b) = (s.x(i.rs1()), s.x(i.rs2()));
    let v = s.bin(op, a, b);
    s.set_x(i.rd(), v);
}

/// `op(rs1, imm)` into `rd`.
#[inline(always)]
fn imm<S: Sem>(s: &mut S, i: super::I, op: Bin) {
    let (a, b) = (s.x(i.rs1()), s.imm(i.imm()));
    let v = s.bin(op, a, b);
    s.set_x(i.rd(), v);
}

/// `op(rs1, shamt)` into `rd`; the upper bits of the immediate belong to the encoding.
#[inline(always)]
pub(super) fn shift<S: Sem>(s: &mut S, i: super::I, op: Bin) {
    let (a, b) = (s.x(i.rs1()), s.imm(i.imm() & 0x3f));
    let v = s.bin(op, a, b);
    s.set_x(i.rd(), v);
}

/// The low 32 bits of `v`, sign-extended, into `rd`.
#[inline(always)]
pub(super) fn set_word<S: Sem>(s: &mut S, rd: u8, v: S::V) {
    let v = s.un(Un::SextW, v);
    s.set_x(rd, v);
}

/// Branch if `op(rs1, rs2)` equals `wanted`.
#[inline(always)]
fn branch<S: Sem>(s: &mut S, i: super::B, op: Bin, wanted: bool) {
    let (a, b) = (s.x(i.rs1()), s.x(i.rs2()));
    let mut cond = s.bin(op, a, b);
    if !wanted {
        let zero = s.imm(0);
        cond = s.eq(cond, zero);
    }
    s.branch(cond, i.at(), i.imm());
}

#[inline(always)]
fn load<S: Sem>(
    s: &mut S,
    i: super::I,
    width: crate::bus::Width,
    extend: Option<Un>,
) -> Result<(), S::Stop> {
    let (base, offset) = (s.x(i.rs1()), s.imm(i.imm()));
    let addr = s.add(base, offset);
    let mut v = s.load(addr, width)?;
    if let Some(extend) = extend {
        v = s.un(extend, v);
    }
    s.set_x(i.rd(), v);
    Ok(())
}

#[inline(always)]
fn store<S: Sem>(s: &mut S, i: super::S, width: crate::bus::Width) -> Result<(), S::Stop> {
    let (base, offset, v) = (s.x(i.rs1()), s.imm(i.imm()), s.x(i.rs2()));
    let addr = s.add(base, offset);
    s.store(addr, width, v)
}

/// `rs1` if `rs2` is (not) zero, else 0 — the other way round, as the mnemonics name what gives zero.
#[inline(always)]
fn czero<S: Sem>(s: &mut S, i: super::R, zero_if_zero: bool) {
    let (v, cond, zero) = (s.x(i.rs1()), s.x(i.rs2()), s.imm(0));
    let v = if zero_if_zero { s.select(cond, v, zero) } else { s.select(cond, zero, v) };
    s.set_x(i.rd(), v);
}

table! {
    /// RV64I and Zicond.
    rows, s, i;
    lui   U ["..... ..... ..... ..... ..... 0110111"] { let v = s.imm(i.imm()); s.set_x(i.rd(), v) };
    auipc U ["..... ..... ..... ..... ..... 0010111"] { let v = s.pc(i.at(), i.imm()); s.set_x(i.rd(), v) };

    jal  J ends ["..... ..... ..... ..... ..... 1101111"] {
        let link = s.pc(i.at(), i.at().bytes() as i64);
        s.jump_by(i.at(), i.imm());
        s.set_x(i.rd(), link);
    };
    jalr I ends ["............ ..... 000 ..... 1100111"] {
        let (base, offset) = (s.x(i.rs1()), s.imm(i.imm()));
        let target = s.add(base, offset);
        let link = s.pc(i.at(), i.at().bytes() as i64);
        s.jump(target);
        s.set_x(i.rd(), link);
    };
    beq  B branch ["....... ..... ..... 000 ..... 1100011"] branch(s, i, Bin::Eq, true);
    bne  B branch ["....... ..... ..... 001 ..... 1100011"] branch(s, i, Bin::Eq, false);
    blt  B branch ["....... ..... ..... 100 ..... 1100011"] branch(s, i, Bin::Slt, true);
    bge  B branch ["....... ..... ..... 101 ..... 1100011"] branch(s, i, Bin::Slt, false);
    bltu B branch ["....... ..... ..... 110 ..... 1100011"] branch(s, i, Bin::Sltu, true);
    bgeu B branch ["....... ..... ..... 111 ..... 1100011"] branch(s, i, Bin::Sltu, false);

    lb  I ["............ ..... 000 ..... 0000011"] load(s, i, Byte, Some(Un::SextB))?;
    lh  I ["............ ..... 001 ..... 0000011"] load(s, i, Half, Some(Un::SextH))?;
    lw  I ["............ ..... 010 ..... 0000011"] load(s, i, Word, Some(Un::SextW))?;
    ld  I ["............ ..... 011 ..... 0000011"] load(s, i, Double, None)?;
    lbu I ["............ ..... 100 ..... 0000011"] load(s, i, Byte, None)?;
    lhu I ["............ ..... 101 ..... 0000011"] load(s, i, Half, None)?;
    lwu I ["............ ..... 110 ..... 0000011"] load(s, i, Word, None)?;
    sb  S ["....... ..... ..... 000 ..... 0100011"] store(s, i, Byte)?;
    sh  S ["....... ..... ..... 001 ..... 0100011"] store(s, i, Half)?;
    sw  S ["....... ..... ..... 010 ..... 0100011"] store(s, i, Word)?;
    sd  S ["....... ..... ..... 011 ..... 0100011"] store(s, i, Double)?;

    addi  I ["............ ..... 000 ..... 0010011"] imm(s, i, Bin::Add);
    slti  I ["............ ..... 010 ..... 0010011"] imm(s, i, Bin::Slt);
    sltiu I ["............ ..... 011 ..... 0010011"] imm(s, i, Bin::Sltu);
    xori  I ["............ ..... 100 ..... 0010011"] imm(s, i, Bin::Xor);
    ori   I ["............ ..... 110 ..... 0010011"] imm(s, i, Bin::Or);
    andi  I ["............ ..... 111 ..... 0010011"] imm(s, i, Bin::And);
    slli  I ["000000 ...... ..... 001 ..... 0010011"] shift(s, i, Bin::Sll);
    srli  I ["000000 ...... ..... 101 ..... 0010011"] shift(s, i, Bin::Srl);
    srai  I ["010000 ...... ..... 101 ..... 0010011"] shift(s, i, Bin::Sra);
    add   R ["0000000 ..... ..... 000 ..... 0110011"] reg(s, i, Bin::Add);
    sub   R ["0100000 ..... ..... 000 ..... 0110011"] reg(s, i, Bin::Sub);
    sll   R ["0000000 ..... ..... 001 ..... 0110011"] reg(s, i, Bin::Sll);
    slt   R ["0000000 ..... ..... 010 ..... 0110011"] reg(s, i, Bin::Slt);
    sltu  R ["0000000 ..... ..... 011 ..... 0110011"] reg(s, i, Bin::Sltu);
    xor   R ["0000000 ..... ..... 100 ..... 0110011"] reg(s, i, Bin::Xor);
    srl   R ["0000000 ..... ..... 101 ..... 0110011"] reg(s, i, Bin::Srl);
    sra   R ["0100000 ..... ..... 101 ..... 0110011"] reg(s, i, Bin::Sra);
    or    R ["0000000 ..... ..... 110 ..... 0110011"] reg(s, i, Bin::Or);
    and   R ["0000000 ..... ..... 111 ..... 0110011"] reg(s, i, Bin::And);

    addiw I ["............ ..... 000 ..... 0011011"] {
        let (a, b) = (s.x(i.rs1()), s.imm(i.imm()));
        let v = s.add(a, b);
        set_word(s, i.rd(), v);
    };
    slliw I ["0000000 ..... ..... 001 ..... 0011011"] {
        let (a, b) = (s.x(i.rs1()), s.imm(i.imm() & 0x1f));
        let v = s.sll(a, b);
        set_word(s, i.rd(), v);
    };
    srliw I ["0000000 ..... ..... 101 ..... 0011011"] {
        let (a, b) = (s.x(i.rs1()), s.imm(i.imm() & 0x1f));
        let a = s.un(Un::ZextW, a);
        let v = s.srl(a, b);
        set_word(s, i.rd(), v);
    };
    sraiw I ["0100000 ..... ..... 101 ..... 0011011"] {
        let (a, b) = (s.x(i.rs1()), s.imm(i.imm() & 0x1f));
        let a = s.un(Un::SextW, a);
        let v = s.sra(a, b);
        s.set_x(i.rd(), v);
    };
    addw R ["0000000 ..... ..... 000 ..... 0111011"] {
        let (a, b) = (s.x(i.rs1()), s.x(i.rs2()));
        let v = s.add(a, b);
        set_word(s, i.rd(), v);
    };
    subw R ["0100000 ..... ..... 000 ..... 0111011"] {
        let (a, b) = (s.x(i.rs1()), s.x(i.rs2()));
        let v = s.sub(a, b);
        set_word(s, i.rd(), v);
    };
    sllw R ["0000000 ..... ..... 001 ..... 0111011"] {
        let (a, b, mask) = (s.x(i.rs1()), s.x(i.rs2()), s.imm(0x1f));
        let b = s.and(b, mask);
        let v = s.sll(a, b);
        set_word(s, i.rd(), v);
    };
    srlw R ["0000000 ..... ..... 101 ..... 0111011"] {
        let (a, b, mask) = (s.x(i.rs1()), s.x(i.rs2()), s.imm(0x1f));
        let (a, b) = (s.un(Un::ZextW, a), s.and(b, mask));
        let v = s.srl(a, b);
        set_word(s, i.rd(), v);
    };
    sraw R ["0100000 ..... ..... 101 ..... 0111011"] {
        let (a, b, mask) = (s.x(i.rs1()), s.x(i.rs2()), s.imm(0x1f));
        let (a, b) = (s.un(Un::SextW, a), s.and(b, mask));
        let v = s.sra(a, b);
        s.set_x(i.rd(), v);
    };

    fence   I ["............ ..... 000 ..... 0001111"] {
        s.fence((i.imm() >> 4) as u8 & 0xf, i.imm() as u8 & 0xf);
    };
    fence_i I ends ["............ ..... 001 ..... 0001111"] s.fence_i();

    czero_eqz R ["0000111 ..... ..... 101 ..... 0110011"] czero(s, i, true);
    czero_nez R ["0000111 ..... ..... 111 ..... 0110011"] czero(s, i, false);
}
