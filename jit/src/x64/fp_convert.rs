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
    Signed(Signed),
    Unsigned {
        taken: Fix,
        back: u32,
        convert: ToInt,
        size: Size,
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

/// A conversion to a signed integer that gave the most negative number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed {
    taken: Fix,
    /// Where the result is valid.
    valid: u32,
    back: u32,
    convert: ToInt,
    size: Size,
}

/// A conversion to an integer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToInt {
    fmt: Fmt,
    round: Round,
    from: Reg,
    /// For what is rounded before it is converted.
    tmp: Reg,
    dst: Reg,
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
    round_by(e, fmt, dst, ra, if quiet { QUIET } else { 0 });
    canonical(e, fmt, dst, a);
    aim.finish(e, single, dst);
}

/// Bit of ROUNDSD's immediate that keeps it from raising inexact. The lowest are the rounding, as in MXCSR.
const QUIET: u8 = 8;
const DOWN: u8 = 1;
const UP: u8 = 2;

fn round_by(e: &mut Emitter, fmt: Fmt, dst: Reg, from: Reg, how: u8) {
    let op = opcode(1, 3, if is_single(fmt) { 0x0a } else { 0x0b });
    e.code.vex_imm8(op, Size::L, dst, from, Rm::Reg(from), how);
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

impl ToInt {
    fn new(e: &mut Emitter, fmt: Fmt, round: Round, a: Val) -> ToInt {
        let from = fp::reg(e, fmt, a);
        let tmp = match round {
            Round::Nearest | Round::Zero => from,
            Round::Down | Round::Up => e.take_xmm(),
        };
        ToInt { fmt, round, from, tmp, dst: e.dst() }
    }

    /// Rounds to an integral value, if the conversion itself does not; `with` may be [`QUIET`].
    fn round(self, e: &mut Emitter, with: u8) {
        match self.round {
            Round::Nearest | Round::Zero => {}
            Round::Down => round_by(e, self.fmt, self.tmp, self.from, DOWN | with),
            Round::Up => round_by(e, self.fmt, self.tmp, self.from, UP | with),
        }
    }

    /// Converts what is rounded.
    fn convert(self, e: &mut Emitter, size: Size) {
        let code = if self.round == Round::Nearest { TO_INT } else { TO_INT_TRUNCATED };
        e.code.vex(scalar(self.fmt, code), size, self.dst, 0, Rm::Reg(self.tmp));
    }

    /// Compares with a constant; may raise invalid for a signalling NaN only.
    fn compare(self, e: &mut Emitter, double: Const, single: Const) {
        let with = constant(e, if is_single(self.fmt) { single } else { double });
        e.code.vex(ucomis(self.fmt), Size::L, self.from, 0, with);
    }
}

fn to_signed(e: &mut Emitter, i: u32, fmt: Fmt, round: Round, size: Size, a: Val) {
    let convert = ToInt::new(e, fmt, round, a);
    let dst = convert.dst;
    convert.round(e, QUIET);
    convert.convert(e, size);
    // Overflows for the most negative number alone.
    e.code.alu_imm(Alu::Cmp, size, Rm::Reg(dst), 1);
    let taken = e.code.jcc(Cond::O);
    let valid = e.code.here();
    // What does not fit is not inexact.
    convert.round(e, 0);
    let back = e.code.here();
    let signed = Signed { taken, valid, back, convert, size };
    e.stubs.push(Stub::Fp(Slow::Convert(Special::Signed(signed))));
    if size == Size::L {
        e.code.extend(Width::Word, true, dst, Rm::Reg(dst));
    }
    e.define(i, dst);
}

fn to_unsigned(e: &mut Emitter, i: u32, fmt: Fmt, round: Round, size: Size, a: Val) {
    let convert = ToInt::new(e, fmt, round, a);
    let ToInt { from, dst, .. } = convert;
    // As an integer, a number with its sign set is greater than all others.
    if is_single(fmt) {
        let limit = if size == Size::L { (1u64 << 32) as f32 } else { (1u64 << 63) as f32 };
        e.code.movd_from_xmm(Rm::Reg(dst), from);
        e.code.alu_imm(Alu::Cmp, Size::L, Rm::Reg(dst), limit.to_bits() as i32);
    } else {
        let limit = match (size, round) {
            (Size::Q, _) => Const::Two63D,
            (Size::L, Round::Zero | Round::Down) => Const::Two32D,
            (Size::L, Round::Nearest) => Const::Half32D,
            (Size::L, Round::Up) => Const::Above32D,
        };
        let limit = constant(e, limit);
        e.code.movq_from_xmm(Rm::Reg(dst), from);
        e.code.alu(Alu::Cmp, Size::Q, dst, limit);
    }
    let taken = e.code.jcc(Cond::AE);
    convert.round(e, 0);
    convert.convert(e, Size::Q);
    let back = e.code.here();
    let unsigned = Special::Unsigned { taken, back, convert, size };
    e.stubs.push(Stub::Fp(Slow::Convert(unsigned)));
    if size == Size::L {
        e.code.extend(Width::Word, true, dst, Rm::Reg(dst));
    }
    e.define(i, dst);
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
            Special::Signed(signed) => signed.emit(e),
            Special::Unsigned { taken, back, convert, size } => {
                e.code.bind(taken);
                to_unsigned_special(e, back, convert, size);
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

impl Signed {
    fn emit(self, e: &mut Emitter) {
        let Signed { taken, valid, back, convert, size } = self;
        e.code.bind(taken);
        convert.compare(e, Const::Zero, Const::Zero);
        let nan = e.code.jcc(Cond::P);
        let positive = e.code.jcc(Cond::A);
        // Negative: right as it is. If it was rounded before and fits, inexact is still to be raised.
        if valid != back && size == Size::L {
            let min = constant(e, if is_single(convert.fmt) { Const::MinS } else { Const::MinD });
            e.code.vex(ucomis(convert.fmt), Size::L, convert.tmp, 0, min);
            let fits = e.code.jcc(Cond::E);
            e.code.bind_to(fits, valid);
        }
        fp::return_to(e, back);
        e.code.bind(nan);
        e.code.bind(positive);
        // The most negative number becomes the greatest.
        e.code.group3(Group3::Not, size, Rm::Reg(convert.dst));
        fp::return_to(e, back);
    }
}

/// The number is negative (or -0), or too great for the instruction inline, or a NaN.
fn to_unsigned_special(e: &mut Emitter, back: u32, convert: ToInt, size: Size) {
    let ToInt { fmt, round, from, dst, .. } = convert;
    convert.compare(e, Const::Zero, Const::Zero);
    let nan = e.code.jcc(Cond::P);
    let positive = e.code.jcc(Cond::A);
    let rounds_below_zero = match round {
        Round::Zero | Round::Up => {
            convert.compare(e, Const::MinusOneD, Const::MinusOneS);
            e.code.jcc(Cond::BE)
        }
        Round::Nearest => {
            convert.compare(e, Const::MinusHalfD, Const::MinusHalfS);
            e.code.jcc(Cond::B)
        }
        Round::Down => e.code.jcc(Cond::B),
    };
    convert.round(e, 0);
    convert.convert(e, Size::Q);
    fp::return_to(e, back);

    e.code.bind(rounds_below_zero);
    raise_invalid(e, dst);
    e.code.mov_imm(dst, 0);
    fp::return_to(e, back);

    e.code.bind(positive);
    if size == Size::Q {
        // From 2^63 on numbers are integers: the significand, shifted up.
        convert.compare(e, Const::Two64D, Const::Two64S);
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
