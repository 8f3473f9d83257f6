//! Conversions: between formats, to and from integers, to integral values.
//!
//! To an integer, the host gives the most negative number (and raises invalid alone) for whatever does not fit; RISC-V
//! gives the nearest, and the greatest for a NaN (unprivileged, 21.7). The host has no conversions of unsigned 64-bit
//! integers, and those of 32 bits made of its 64-bit ones would raise inexact where invalid alone is right: what is negative or too great is
//! found before it is converted.

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::sem::{Fmt, Fp1};

use super::asm::{Alu, Cond, Fix, Group3, Opcode, Reg, Rm, Shift, Size, opcode};
use super::fp::{
    self, Const, Slow, aim, canonical, constant, is_single, make_canonical, scalar, ucomis,
};
use super::fp::{PCMPEQD, XORPS};
use super::{Emitter, Stub};
use crate::ir::{Round, Val};

const FROM_INT: u8 = 0x2a;
const TO_INT_TRUNCATED: u8 = 0x2c;
const TO_INT: u8 = 0x2d;
const TO_OTHER_FORMAT: u8 = 0x5a;
const ADD: u8 = 0x58;
/// BT and its like with an immediate; 5 is BTS.
const BIT_TEST: Opcode = opcode(0, 1, 0xba);
const BTS: u8 = 5;

/// Conversions that the instruction inline does not do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Special {
    Signed {
        taken: Fix,
        back: u32,
        fmt: Fmt,
        from: Reg,
        dst: Reg,
        size: Size,
    },
    Unsigned {
        taken: Fix,
        back: u32,
        fmt: Fmt,
        from: Reg,
        dst: Reg,
        size: Size,
        round: Round,
    },
    /// From an unsigned integer of 64 bits whose highest is set.
    Large {
        taken: Fix,
        back: u32,
        fmt: Fmt,
        from: Reg,
        tmp: Reg,
        dst: Reg,
    },
}

/// [`Op::Fp1`](crate::ir::Op::Fp1).
pub(super) fn convert(e: &mut Emitter, i: u32, op: Fp1, fmt: Fmt, round: Round, a: Val) {
    match op {
        Fp1::Round => round_to_integral(e, i, fmt, a, true),
        Fp1::Roundnx => round_to_integral(e, i, fmt, a, false),
        Fp1::From(_) => to_format(e, i, fmt, a),
        Fp1::FromI32 => from_int(e, i, fmt, Size::L, a),
        Fp1::FromI64 => from_int(e, i, fmt, Size::Q, a),
        Fp1::FromU32 => from_u32(e, i, fmt, a),
        Fp1::FromU64 => from_u64(e, i, fmt, a),
        Fp1::ToI32 => to_signed(e, i, fmt, round, Size::L, a),
        Fp1::ToI64 => to_signed(e, i, fmt, round, Size::Q, a),
        Fp1::ToU32 => to_unsigned(e, i, fmt, round, Size::L, a),
        Fp1::ToU64 => to_unsigned(e, i, fmt, round, Size::Q, a),
        Fp1::Sqrt | Fp1::Class | Fp1::ToI32Mod => e.alloc.failed = true,
    }
}

/// To nearest; `quiet` without the inexact flag.
fn round_to_integral(e: &mut Emitter, i: u32, fmt: Fmt, a: Val, quiet: bool) {
    let single = is_single(fmt);
    let aim = aim(e, i, single);
    let ra = fp::reg(e, fmt, a);
    let dst = aim.dst_over(e, i, ra);
    let op = opcode(1, 3, if single { 0x0a } else { 0x0b });
    e.code.vex_imm8(op, Size::L, dst, ra, Rm::Reg(ra), u8::from(quiet) << 3);
    canonical(e, fmt, dst, a);
    aim.finish(e, single, dst);
}

/// What a conversion writes over: zeros, or ones above a single. Depends on nothing before.
fn prepare(e: &mut Emitter, fmt: Fmt, dst: Reg) {
    let op = if is_single(fmt) { PCMPEQD } else { XORPS };
    e.code.vex(op, Size::L, dst, dst, Rm::Reg(dst));
}

/// To `fmt` from the other format.
fn to_format(e: &mut Emitter, i: u32, fmt: Fmt, a: Val) {
    let single = is_single(fmt);
    let aim = aim(e, i, single);
    let from = if single { Fmt::D } else { Fmt::S };
    let ra = fp::reg(e, from, a);
    let (dst, over);
    if single {
        dst = aim.dst(e);
        over = if dst == ra { e.take_xmm() } else { dst };
        prepare(e, fmt, over);
    } else {
        dst = aim.dst_over(e, i, ra);
        over = ra;
    }
    e.code.vex(scalar(from, TO_OTHER_FORMAT), Size::L, dst, over, Rm::Reg(ra));
    make_canonical(e, fmt, dst);
    aim.finish(e, single, dst);
}

fn from_int(e: &mut Emitter, i: u32, fmt: Fmt, size: Size, a: Val) {
    let from = e.rm(a);
    convert_int(e, i, fmt, size, from);
}

fn from_u32(e: &mut Emitter, i: u32, fmt: Fmt, a: Val) {
    let from = e.rm(a);
    let tmp = e.take();
    e.code.mov(Size::L, tmp, from);
    convert_int(e, i, fmt, Size::Q, Rm::Reg(tmp));
}

fn convert_int(e: &mut Emitter, i: u32, fmt: Fmt, size: Size, from: Rm) {
    let single = is_single(fmt);
    let aim = aim(e, i, single);
    let dst = aim.dst(e);
    prepare(e, fmt, dst);
    e.code.vex(scalar(fmt, FROM_INT), size, dst, dst, from);
    aim.finish(e, single, dst);
}

fn from_u64(e: &mut Emitter, i: u32, fmt: Fmt, a: Val) {
    let single = is_single(fmt);
    let aim = aim(e, i, single);
    let from = e.gpr(a);
    let tmp = e.take();
    let dst = aim.dst(e);
    prepare(e, fmt, dst);
    e.code.test(Size::Q, Rm::Reg(from), from);
    let taken = e.code.jcc(Cond::S);
    e.code.vex(scalar(fmt, FROM_INT), Size::Q, dst, dst, Rm::Reg(from));
    let back = e.code.here();
    let large = Special::Large { taken, back, fmt, from, tmp, dst };
    e.stubs.push(Stub::Fp(Slow::Convert(large)));
    aim.finish(e, single, dst);
}

fn to_int(e: &mut Emitter, fmt: Fmt, round: Round, size: Size, dst: Reg, from: Reg) {
    let code = if round == Round::Zero { TO_INT_TRUNCATED } else { TO_INT };
    e.code.vex(scalar(fmt, code), size, dst, 0, Rm::Reg(from));
}

fn to_signed(e: &mut Emitter, i: u32, fmt: Fmt, round: Round, size: Size, a: Val) {
    let from = fp::reg(e, fmt, a);
    let dst = e.dst();
    to_int(e, fmt, round, size, dst, from);
    // Overflows for the most negative number alone.
    e.code.alu_imm(Alu::Cmp, size, Rm::Reg(dst), 1);
    let taken = e.code.jcc(Cond::O);
    let back = e.code.here();
    let signed = Special::Signed { taken, back, fmt, from, dst, size };
    e.stubs.push(Stub::Fp(Slow::Convert(signed)));
    if size == Size::L {
        e.code.extend(Width::Word, true, dst, Rm::Reg(dst));
    }
    e.define(i, dst);
}

fn to_unsigned(e: &mut Emitter, i: u32, fmt: Fmt, round: Round, size: Size, a: Val) {
    let from = fp::reg(e, fmt, a);
    let dst = e.dst();
    // As an integer, a number with its sign set is greater than all others.
    if is_single(fmt) {
        let limit = if size == Size::L { (1u64 << 32) as f32 } else { (1u64 << 63) as f32 };
        e.code.movd_from_xmm(Rm::Reg(dst), from);
        e.code.alu_imm(Alu::Cmp, Size::L, Rm::Reg(dst), limit.to_bits() as i32);
    } else {
        let limit = match (size, round) {
            (Size::Q, _) => Const::Two63D,
            (Size::L, Round::Zero) => Const::Two32D,
            (Size::L, Round::Nearest) => Const::Half32D,
        };
        let limit = constant(e, limit);
        e.code.movq_from_xmm(Rm::Reg(dst), from);
        e.code.alu(Alu::Cmp, Size::Q, dst, limit);
    }
    let taken = e.code.jcc(Cond::AE);
    to_int(e, fmt, round, Size::Q, dst, from);
    let back = e.code.here();
    let unsigned = Special::Unsigned { taken, back, fmt, from, dst, size, round };
    e.stubs.push(Stub::Fp(Slow::Convert(unsigned)));
    if size == Size::L {
        e.code.extend(Width::Word, true, dst, Rm::Reg(dst));
    }
    e.define(i, dst);
}

/// Compares with a constant; may raise invalid for a signalling NaN only.
fn compare(e: &mut Emitter, fmt: Fmt, from: Reg, double: Const, single: Const) {
    let with = constant(e, if is_single(fmt) { single } else { double });
    e.code.vex(ucomis(fmt), Size::L, from, 0, with);
}

/// Raises invalid.
fn raise_invalid(e: &mut Emitter, tmp: Reg) {
    let nan = constant(e, Const::NanD);
    e.code.vex(scalar(Fmt::D, TO_INT_TRUNCATED), Size::L, tmp, 0, nan);
}

impl Special {
    /// Emits it.
    pub(super) fn emit(self, e: &mut Emitter) {
        match self {
            Special::Signed { taken, back, fmt, from, dst, size } => {
                e.code.bind(taken);
                compare(e, fmt, from, Const::Zero, Const::Zero);
                let nan = e.code.jcc(Cond::P);
                // Negative: right as it is.
                let negative = e.code.jcc(Cond::BE);
                e.code.bind_to(negative, back);
                e.code.bind(nan);
                // The most negative number becomes the greatest.
                e.code.group3(Group3::Not, size, Rm::Reg(dst));
                fp::return_to(e, back);
            }
            Special::Unsigned { taken, back, fmt, from, dst, size, round } => {
                e.code.bind(taken);
                to_unsigned_special(e, back, fmt, from, dst, size, round);
            }
            Special::Large { taken, back, fmt, from, tmp, dst } => {
                e.code.bind(taken);
                // Half of it, with the lowest bit for all that are lost: rounded like the whole, and doubled.
                e.code.mov(Size::Q, tmp, Rm::Reg(from));
                e.code.shift_imm(Shift::Shr, Size::Q, tmp, 1);
                let even = e.code.jcc(Cond::AE);
                e.code.alu_imm(Alu::Or, Size::Q, Rm::Reg(tmp), 1);
                e.code.bind(even);
                e.code.vex(scalar(fmt, FROM_INT), Size::Q, dst, dst, Rm::Reg(tmp));
                e.code.vex(scalar(fmt, ADD), Size::L, dst, dst, Rm::Reg(dst));
                fp::return_to(e, back);
            }
        }
    }
}

/// The number is negative (or -0), or too great for the instruction inline, or a NaN.
fn to_unsigned_special(
    e: &mut Emitter,
    back: u32,
    fmt: Fmt,
    from: Reg,
    dst: Reg,
    size: Size,
    round: Round,
) {
    compare(e, fmt, from, Const::Zero, Const::Zero);
    let nan = e.code.jcc(Cond::P);
    let positive = e.code.jcc(Cond::A);
    let rounds_below_zero = match round {
        Round::Zero => {
            compare(e, fmt, from, Const::MinusOneD, Const::MinusOneS);
            e.code.jcc(Cond::BE)
        }
        Round::Nearest => {
            compare(e, fmt, from, Const::MinusHalfD, Const::MinusHalfS);
            e.code.jcc(Cond::B)
        }
    };
    to_int(e, fmt, round, Size::Q, dst, from);
    fp::return_to(e, back);

    e.code.bind(rounds_below_zero);
    raise_invalid(e, dst);
    e.code.mov_imm(dst, 0);
    fp::return_to(e, back);

    e.code.bind(positive);
    if size == Size::Q {
        // From 2^63 on numbers are integers: the significand, shifted up.
        compare(e, fmt, from, Const::Two64D, Const::Two64S);
        let too_great = e.code.jcc(Cond::AE);
        if is_single(fmt) {
            e.code.movd_from_xmm(Rm::Reg(dst), from);
            e.code.shift_imm(Shift::Shl, Size::Q, dst, 40);
        } else {
            e.code.movq_from_xmm(Rm::Reg(dst), from);
            e.code.shift_imm(Shift::Shl, Size::Q, dst, 11);
        }
        e.code.op_imm8(BIT_TEST, Size::Q, BTS, Rm::Reg(dst), 63);
        fp::return_to(e, back);
        e.code.bind(too_great);
    }
    e.code.bind(nan);
    raise_invalid(e, dst);
    e.code.mov_imm(dst, u64::MAX);
    fp::return_to(e, back);
}
