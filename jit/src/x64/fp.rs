//! Floating-point operations: what all have in common, and arithmetic.
//!
//! The host's operations give the results and flags that RISC-V asks for (IEEE 754 in round to nearest, tininess found
//! after rounding; Intel SDM volume 1, chapter 11.5), except that a NaN is made canonical: where a result is a NaN, which
//! the host's `ucomis` of it with itself tells, code out of line replaces it. The flags stay in MXCSR.
//!
//! A register that holds a single has ones above it. Scalar instructions leave what is above the single as it is in their first
//! operand, so that results are boxed without doing anything. A single that is not (yet) boxed for the IR is kept like
//! this too while it is in an xmm register: [`Loc::Single`].

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::sem::{Bin, Fmt, Fp1, Fp2};

use super::abi::FP_DIRTY;
use super::alloc::{Loc, Src, XMM_SCRATCH};
use super::asm::{Alu, Cond, Fix, Mem, Opcode, RAX, RBP, RSP, Reg, Rm, Size, opcode};
use super::homes::Home;
use super::{Emitter, HostFeatures, Stub, fp_bits, fp_compare, fp_convert};
use crate::ir::{Op, Slot, Val};

/// A constant in memory: its number in [`CONSTANTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Const {
    /// What is above a boxed single.
    Box,
    NanD,
    NanS,
    SignD,
    MagnitudeD,
    SignS,
    MagnitudeS,
    Zero,
    MinusOneD,
    MinusOneS,
    MinusHalfD,
    MinusHalfS,
    /// 2 to the power of 64.
    Two64D,
    Two64S,
    /// 2 to the power of 63.
    Two63D,
    /// 2 to the power of 32.
    Two32D,
    /// The least number that is rounded to 2 to the power of 32.
    Half32D,
    /// The least that is rounded up to it.
    Above32D,
    /// -2 to the power of 31.
    MinD,
    MinS,
    /// MXCSR in which no flag is raised.
    Mxcsr,
}

/// The constants of floating-point code, by [`Const`]; 16 bytes each, of which the upper half is zero.
/// Patterns of singles have ones above them, so that they keep what is boxed boxed.
pub(super) const CONSTANTS: [u64; 21] = [
    0xffff_ffff_0000_0000,
    0x7ff8_0000_0000_0000,
    0xffff_ffff_7fc0_0000,
    1 << 63,
    !(1 << 63),
    0x8000_0000,
    0xffff_ffff_7fff_ffff,
    0,
    (-1.0f64).to_bits(),
    (-1.0f32).to_bits() as u64,
    (-0.5f64).to_bits(),
    (-0.5f32).to_bits() as u64,
    18_446_744_073_709_551_616.0f64.to_bits(),
    18_446_744_073_709_551_616.0f32.to_bits() as u64,
    9_223_372_036_854_775_808.0f64.to_bits(),
    4_294_967_296.0f64.to_bits(),
    4_294_967_295.5f64.to_bits(),
    4_294_967_295.0f64.to_bits() + 1,
    (i32::MIN as f64).to_bits(),
    (i32::MIN as f32).to_bits() as u64,
    MXCSR_PLAIN as u64,
];

/// Plain rounding, every exception masked, no flag raised: the guest's state of MXCSR and the host's.
pub(crate) const MXCSR_PLAIN: u32 = 0x1f80;
/// The sticky flags of MXCSR (SDM volume 1, 10.2.3).
pub(super) const STICKY: u32 = 0x3f;

pub(super) fn store_mxcsr(e: &mut Emitter, mem: Mem) {
    e.code.op(opcode(0, 1, 0xae), Size::L, 3, Rm::Mem(mem));
}

pub(super) fn load_mxcsr(e: &mut Emitter, from: Rm) {
    e.code.op(opcode(0, 1, 0xae), Size::L, 2, from);
}

/// `fflags` for MXCSR.
pub(crate) const fn fflags(mxcsr: u32) -> u8 {
    // IE -> NV, ZE -> DZ, OE -> OF, UE -> UF, PE -> NX; DE means nothing to RISC-V.
    let [nv, dz, of, uf, nx] = [mxcsr << 4, mxcsr << 1, mxcsr >> 1, mxcsr >> 3, mxcsr >> 5];
    (nv & 16 | dz & 8 | of & 4 | uf & 2 | nx & 1) as u8
}

/// The same for all sticky flags. It lies behind the [`CONSTANTS`].
pub(super) const FFLAGS: [u8; STICKY as usize + 1] = {
    let mut table = [0; STICKY as usize + 1];
    let mut mxcsr = 0;
    while mxcsr <= STICKY {
        table[mxcsr as usize] = fflags(mxcsr);
        mxcsr += 1;
    }
    table
};
/// Where it lies, from the first constant on.
pub(super) const FFLAGS_AT: usize = 16 * CONSTANTS.len();

pub(super) const ANDPS: Opcode = opcode(0, 1, 0x54);
pub(super) const ORPS: Opcode = opcode(0, 1, 0x56);
pub(super) const XORPS: Opcode = opcode(0, 1, 0x57);
pub(super) const PCMPEQD: Opcode = opcode(1, 1, 0x76);
pub(super) const PTEST: Opcode = opcode(1, 2, 0x17);
const ADD: u8 = 0x58;
const MUL: u8 = 0x59;
const SUB: u8 = 0x5c;
const DIV: u8 = 0x5e;
const SQRT: u8 = 0x51;

/// A scalar instruction of opcode map 0F.
pub(super) const fn scalar(fmt: Fmt, code: u8) -> Opcode {
    opcode(if is_single(fmt) { 2 } else { 3 }, 1, code)
}

/// `ucomis`: raises invalid for signalling NaNs only.
pub(super) const fn ucomis(fmt: Fmt) -> Opcode {
    opcode(if is_single(fmt) { 0 } else { 1 }, 1, 0x2e)
}

pub(super) const fn is_single(fmt: Fmt) -> bool {
    matches!(fmt, Fmt::S)
}

/// Whether `bits` flip the sign of a number, whose format has no other bits that count.
pub(super) fn is_sign(fmt: Fmt, bits: u64) -> bool {
    match fmt {
        Fmt::H => false,
        Fmt::S => bits as u32 == 1 << 31,
        Fmt::D => bits == 1 << 63,
    }
}

/// Whether [`compute`] emits the operation.
pub(super) fn supports(op: &Op, features: HostFeatures) -> bool {
    features.avx
        && match *op {
            Op::Unbox(_) | Op::Box(_) => true,
            Op::Fp2(_, fmt, ..) => fmt != Fmt::H,
            Op::Fp1(Fp1::Class | Fp1::ToI32Mod, ..) => false,
            Op::Fp1(Fp1::From(from), fmt, ..) => {
                matches!((from, fmt), (Fmt::S, Fmt::D) | (Fmt::D, Fmt::S))
            }
            Op::Fp1(_, fmt, ..) => fmt != Fmt::H,
            Op::Fma(fmt, ..) => features.fma && fmt != Fmt::H,
            _ => false,
        }
}

/// Emits a floating-point operation; the block is given up if there is no code for it.
pub(super) fn compute(e: &mut Emitter, i: u32, op: Op) {
    match op {
        Op::Unbox(a) => fp_bits::unbox(e, i, a),
        Op::Box(a) => fp_bits::make_boxed(e, i, a),
        Op::Fma(fmt, a, b, c) => fused(e, i, fmt, a, b, c),
        Op::Fp2(op, fmt, a, b) => match op {
            Fp2::Add => arithmetic(e, i, ADD, fmt, a, b),
            Fp2::Sub => arithmetic(e, i, SUB, fmt, a, b),
            Fp2::Mul => arithmetic(e, i, MUL, fmt, a, b),
            Fp2::Div => arithmetic(e, i, DIV, fmt, a, b),
            Fp2::Min | Fp2::Max | Fp2::Minm | Fp2::Maxm => fp_compare::pick(e, i, op, fmt, a, b),
            Fp2::Eq | Fp2::Lt | Fp2::Le | Fp2::Ltq | Fp2::Leq => {
                fp_compare::compare(e, i, op, fmt, a, b);
            }
        },
        Op::Fp1(op, fmt, round, a) => match op {
            Fp1::Sqrt => square_root(e, i, fmt, a),
            _ => fp_convert::convert(e, i, op, fmt, round, a),
        },
        _ => e.alloc.failed = true,
    }
}

/// Code out of line.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slow {
    /// The register becomes the canonical NaN.
    Nan {
        taken: Fix,
        back: u32,
        fmt: Fmt,
        dst: Reg,
    },
    /// The same for `a * b + c`.
    FusedNan {
        taken: Fix,
        back: u32,
        fmt: Fmt,
        dst: Reg,
        a: Reg,
        b: Rm,
    },
    Pick(fp_compare::Unordered),
    Convert(fp_convert::Special),
}

impl Slow {
    /// Emits it.
    pub(super) fn emit(self, e: &mut Emitter) {
        match self {
            Slow::Nan { taken, back, fmt, dst } => {
                e.code.bind(taken);
                load_nan(e, fmt, dst);
                return_to(e, back);
            }
            Slow::FusedNan { taken, back, fmt, dst, a, b } => {
                e.code.bind(taken);
                check_product(e, fmt, dst, a, b);
                load_nan(e, fmt, dst);
                return_to(e, back);
            }
            Slow::Pick(unordered) => unordered.emit(e),
            Slow::Convert(special) => special.emit(e),
        }
    }
}

/// Ends code out of line.
pub(super) fn return_to(e: &mut Emitter, back: u32) {
    let jump = e.code.jmp();
    e.code.bind_to(jump, back);
}

/// A constant as an operand.
pub(super) fn constant(e: &Emitter, which: Const) -> Rm {
    Rm::Far(e.constants + 16 * which as usize)
}

/// Loads the canonical NaN (of singles, boxed).
pub(super) fn load_nan(e: &mut Emitter, fmt: Fmt, dst: Reg) {
    let nan = constant(e, if is_single(fmt) { Const::NanS } else { Const::NanD });
    e.code.movq_to_xmm(dst, nan);
}

/// Where a value that is computed into an xmm register goes: the operations behind it are done with it if they only box
/// it and move it to a guest register that has a home.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    /// The value that will be in the register.
    value: u32,
    boxed: bool,
    target: Option<(Slot, Reg)>,
    /// The floating-point state is marked dirty in between.
    dirty: bool,
    /// The operation to go on with, if it is not the next one.
    next: Option<u32>,
}

/// Finds where value `v` goes, and makes that free to be written. `single` says that the value will have ones above it.
pub(super) fn aim(e: &mut Emitter, v: u32, single: bool) -> Aim {
    e.target = None;
    let mut aim = Aim { value: v, boxed: false, target: None, dirty: false, next: None };
    // An operation that is computed for its user is not followed by it.
    if e.next != v + 1 {
        return aim;
    }
    let op = |at: u32| e.ops.get(at as usize).copied();
    let mut next = v + 1;
    if single
        && op(next) == Some(Op::Box(Val(v)))
        && e.alloc.value(Val(v)).uses == 1
        && e.alloc.value(Val(next)).uses != 0
    {
        next += 1;
        aim = Aim { value: v + 1, boxed: true, next: Some(next), ..aim };
    }
    let dirty = op(next) == Some(Op::FpDirty);
    next += u32::from(dirty);
    if let Some(Op::Set(slot, Val(set))) = op(next)
        && set == aim.value
        && single == aim.boxed
        && let Home::Xmm(reg) = e.homes.of(slot)
    {
        e.free_slot(slot, aim.value);
        aim = Aim { target: Some((slot, reg)), dirty, next: Some(next + 1), ..aim };
    }
    aim
}

impl Aim {
    /// The register to compute into.
    pub(super) fn dst(&self, e: &mut Emitter) -> Reg {
        match self.target {
            Some((_, reg)) => reg,
            None => e.take_xmm(),
        }
    }

    /// The same, preferably that of an operand that is not needed after operation `i`.
    pub(super) fn dst_over(&self, e: &mut Emitter, i: u32, operand: Reg) -> Reg {
        let scratch = usize::from(operand) < XMM_SCRATCH;
        if self.target.is_none() && scratch && e.alloc.is_xmm_free_after(operand, i) {
            return operand;
        }
        self.dst(e)
    }

    /// The value is in the register that was given; a single has ones above it.
    pub(super) fn finish(&self, e: &mut Emitter, single: bool, reg: Reg) {
        match self.target {
            Some((slot, _)) => e.set_alias(self.value, slot),
            None if single && !self.boxed => e.set_single(self.value, reg),
            None => e.set_xmm(self.value, reg),
        }
        if self.dirty {
            e.code.store_imm(Width::Byte, Mem::new(RBP, FP_DIRTY), 1);
        }
        if let Some(next) = self.next {
            e.next = next;
        }
    }
}

/// The register to load value `v` into, if an xmm register is where it goes.
pub(super) fn aim_load(e: &mut Emitter, v: u32, width: Width) -> Option<(Aim, Reg)> {
    let boxed = e.ops.get(v as usize + 1) == Some(&Op::Box(Val(v)));
    let aim = match width {
        Width::Word | Width::Double if e.features.avx => aim(e, v, boxed && width == Width::Word),
        _ => return None,
    };
    (aim.target.is_some() || aim.boxed).then(|| {
        let reg = aim.dst(e);
        (aim, reg)
    })
}

/// The register holds what was loaded, with zeros above it.
pub(super) fn loaded(e: &mut Emitter, aim: &Aim, reg: Reg) {
    if aim.boxed {
        add_box(e, reg, reg);
    }
    aim.finish(e, aim.boxed, reg);
}

/// Puts ones above a single that has above it what is above `first`.
pub(super) fn box_result(e: &mut Emitter, fmt: Fmt, dst: Reg, first: Val) {
    if is_single(fmt) && !is_boxed(e, first) {
        add_box(e, dst, dst);
    }
}

/// A copy with ones above the low half.
pub(super) fn add_box(e: &mut Emitter, dst: Reg, src: Reg) {
    let ones = constant(e, Const::Box);
    e.code.vex(ORPS, Size::L, dst, src, ones);
}

/// An operand in an xmm register or in memory, where what is above a single may be anything.
pub(super) fn rm(e: &mut Emitter, fmt: Fmt, v: Val) -> Rm {
    // No instruction takes a single for a double, but an operation may: with zeros above it, as it is on the stack.
    if let Loc::Single(r) = e.alloc.value(v).loc
        && !is_single(fmt)
    {
        e.evict_xmm(r);
    }
    match e.src(v) {
        Src::Xmm(r) | Src::Single(r) => Rm::Reg(r),
        Src::Mem(mem) => Rm::Mem(mem),
        src => Rm::Reg(to_xmm(e, src)),
    }
}

/// An operand in an xmm register, where what is above a single may be anything.
pub(super) fn reg(e: &mut Emitter, fmt: Fmt, v: Val) -> Reg {
    let rm = rm(e, fmt, v);
    reg_of(e, rm)
}

/// An operand brought into an xmm register.
pub(super) fn reg_of(e: &mut Emitter, rm: Rm) -> Reg {
    match rm {
        Rm::Reg(r) => r,
        _ => {
            let r = e.take_xmm();
            e.code.movq_to_xmm(r, rm);
            r
        }
    }
}

fn to_xmm(e: &mut Emitter, src: Src) -> Reg {
    let r = e.take_xmm();
    if src == Src::Imm(0) {
        e.code.vex(XORPS, Size::L, r, r, Rm::Reg(r));
    } else {
        let from = e.reg_of(src);
        e.code.movq_to_xmm(r, Rm::Reg(from));
    }
    r
}

/// Whether what [`reg`] gives has ones above the single.
pub(super) fn is_boxed(e: &Emitter, v: Val) -> bool {
    e.alloc.value(v).boxed || matches!(e.alloc.value(v).loc, Loc::Single(_))
}

/// Ends an operation whose result has above it what is above `first`: boxes a single, and makes a NaN the canonical one.
pub(super) fn canonical(e: &mut Emitter, fmt: Fmt, dst: Reg, first: Val) {
    box_result(e, fmt, dst, first);
    make_canonical(e, fmt, dst);
}

/// Makes a number that is a NaN the canonical one.
pub(super) fn make_canonical(e: &mut Emitter, fmt: Fmt, dst: Reg) {
    let taken = if_nan(e, fmt, dst);
    let back = e.code.here();
    e.stubs.push(Stub::Fp(Slow::Nan { taken, back, fmt, dst }));
}

fn if_nan(e: &mut Emitter, fmt: Fmt, r: Reg) -> Fix {
    e.code.vex(ucomis(fmt), Size::L, r, 0, Rm::Reg(r));
    e.code.jcc(Cond::P)
}

fn arithmetic(e: &mut Emitter, i: u32, code: u8, fmt: Fmt, a: Val, b: Val) {
    let single = is_single(fmt);
    let aim = aim(e, i, single);
    let (mut ra, mut rb) = (rm(e, fmt, a), rm(e, fmt, b));
    let (mut first, second) = (a, b);
    if matches!(code, ADD | MUL) {
        let worse =
            |e: &Emitter, rm: Rm, v: Val| (single && !is_boxed(e, v), !matches!(rm, Rm::Reg(_)));
        if worse(e, ra, a) > worse(e, rb, b) {
            (ra, rb, first) = (rb, ra, second);
        }
    }
    let ra = reg_of(e, ra);
    let dst = aim.dst_over(e, i, ra);
    e.code.vex(scalar(fmt, code), Size::L, dst, ra, rb);
    canonical(e, fmt, dst, first);
    aim.finish(e, single, dst);
}

fn square_root(e: &mut Emitter, i: u32, fmt: Fmt, a: Val) {
    let single = is_single(fmt);
    let aim = aim(e, i, single);
    let ra = reg(e, fmt, a);
    let dst = aim.dst_over(e, i, ra);
    e.code.vex(scalar(fmt, SQRT), Size::L, dst, ra, Rm::Reg(ra));
    canonical(e, fmt, dst, a);
    aim.finish(e, single, dst);
}

/// What a change of sign that was left to its user is of; the value itself if it is none.
fn without_sign(e: &Emitter, v: Val) -> (Val, bool) {
    match e.ops[v.0 as usize] {
        Op::Bin(Bin::Xor, of, _) if e.alloc.is_deferred(v) => (of, true),
        _ => (v, false),
    }
}

/// `a * b + c`, each sign as it is.
fn fused(e: &mut Emitter, i: u32, fmt: Fmt, a: Val, b: Val, c: Val) {
    let single = is_single(fmt);
    let aim = aim(e, i, single);
    let (a, negate_product) = without_sign(e, a);
    let (c, negate_addend) = without_sign(e, c);
    let (ra, rb, rc) = (rm(e, fmt, a), rm(e, fmt, b), rm(e, fmt, c));
    let (ra, rb) = if matches!(ra, Rm::Reg(_)) { (ra, rb) } else { (rb, ra) };
    let ra = reg_of(e, ra);
    let dst = match rc {
        Rm::Reg(r) => aim.dst_over(e, i, r),
        _ => aim.dst(e),
    };
    // The factors are needed once more if the result is a NaN.
    let work = if dst == ra || Rm::Reg(dst) == rb { e.take_xmm() } else { dst };
    match rc {
        Rm::Reg(r) => e.code.mov_xmm(work, r),
        _ => e.code.movq_to_xmm(work, rc),
    }
    // VFMADD231, VFMSUB231, VFNMADD231, VFNMSUB231.
    let code = 0xb9 + 2 * u8::from(negate_addend) + 4 * u8::from(negate_product);
    let size = if single { Size::L } else { Size::Q };
    e.code.vex(opcode(1, 2, code), size, work, ra, rb);
    box_result(e, fmt, work, c);
    let taken = if_nan(e, fmt, work);
    let back = e.code.here();
    e.stubs.push(Stub::Fp(Slow::FusedNan { taken, back, fmt, dst: work, a: ra, b: rb }));
    e.code.mov_xmm(dst, work);
    aim.finish(e, single, dst);
}

/// Infinity times zero is invalid whatever is added (unprivileged, 21.6), but not for the host if that is a quiet NaN: raises
/// invalid if the product does. Its other flags are not wanted.
fn check_product(e: &mut Emitter, fmt: Fmt, tmp: Reg, a: Reg, b: Rm) {
    let below = |bytes: i32| Mem::new(RSP, -bytes);
    let (saved, before, after) = (below(24), below(8), below(16));
    e.code.store(Width::Double, saved, RAX);
    store_mxcsr(e, before);
    e.code.vex(scalar(fmt, MUL), Size::L, tmp, a, b);
    store_mxcsr(e, after);
    e.code.mov(Size::L, RAX, Rm::Mem(after));
    e.code.alu_imm(Alu::And, Size::L, Rm::Reg(RAX), 1);
    e.code.alu_to_mem(Alu::Or, Size::L, before, RAX);
    load_mxcsr(e, Rm::Mem(before));
    e.code.mov(Size::Q, RAX, Rm::Mem(saved));
}
