//! Every floating-point operation on every kind of operand: results and flags against the evaluator, which has them of the
//! softfloat.

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::interp::host::Word;
use mimic_cpu::riscv::sem::{Atomic, Bin, Fmt, Fp1, Fp2};

use super::Random;
use super::machine::{Machine, PAGE_VA};
use super::ops::block;
use crate::ir::eval::{Evaluation, Left, Memory, State};
use crate::ir::{Block, Op, Round, Slot, Val};
use crate::x64::supports;

const FORMATS: [Fmt; 2] = [Fmt::S, Fmt::D];
const D_SIGN: u64 = 1 << 63;
const S_SIGN: u64 = 1 << 31;
const BOX: u64 = !0xffff_ffff;
/// Operand sets for each operation.
const SETS: usize = 100_000;

/// Numbers around which results, flags or conversions change.
const SPECIAL: [f64; 33] = [
    0.0,
    0.25,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    2.5,
    3.0,
    3.5,
    1e-3,
    1e10,
    2_147_483_647.0,
    2_147_483_647.5,
    2_147_483_648.0,
    2_147_483_648.5,
    2_147_483_649.0,
    4_294_967_294.5,
    4_294_967_295.0,
    4_294_967_295.5,
    4_294_967_296.0,
    4_503_599_627_370_496.0,
    9_007_199_254_740_992.0,
    9_223_372_036_854_774_784.0,
    9_223_372_036_854_775_808.0,
    18_446_744_073_709_549_568.0,
    18_446_744_073_709_551_616.0,
    f32::MAX as f64,
    f32::MIN_POSITIVE as f64,
    1e-45,
    1e40,
    1e-42,
    f64::INFINITY,
];

/// Patterns of doubles: greatest and smallest of each class, NaNs.
const DOUBLES: [u64; 12] = [
    1,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0001,
    0x7ff7_ffff_ffff_ffff,
    0x7ff8_0000_0000_0000,
    0x7ff8_0000_0000_0123,
    0x7fff_ffff_ffff_ffff,
    0x3ff0_0000_0000_0001,
    0x36a0_0000_0000_0000,
    0x47ef_ffff_f000_0000,
];

/// Patterns of singles, likewise.
const SINGLES: [u64; 11] = [
    1,
    0x007f_ffff,
    0x0080_0000,
    0x7f7f_ffff,
    0x7f80_0001,
    0x7fbf_ffff,
    0x7fc0_0000,
    0x7fc0_0123,
    0x7fff_ffff,
    0x3f80_0001,
    0x4eff_ffff,
];

/// The bits of a number of that format: special, near to one, or any.
pub(super) fn number(random: &mut Random, fmt: Fmt) -> u64 {
    let single = fmt == Fmt::S;
    let special = random.pick(&SPECIAL);
    let special = if single { u64::from((special as f32).to_bits()) } else { special.to_bits() };
    let any = random.next();
    let bits = match random.below(8) {
        0..2 => special,
        2 => special.wrapping_add(any % 7).wrapping_sub(3),
        3..5 if single => random.pick(&SINGLES),
        3..5 => random.pick(&DOUBLES),
        // Of common size.
        5 if single => 0x3f00_0000 + any % 0x100_0000,
        5 => 0x3fe0_0000_0000_0000 + any % 0x20_0000_0000_0000,
        6 if single => 0x4700_0000 + any % 0x1a00_0000,
        6 => 0x40e0_0000_0000_0000 + any % 0x340_0000_0000_0000,
        _ => any,
    };
    let sign = random.below(2) as u64;
    if single { (bits ^ sign << 31) & !BOX } else { bits ^ sign << 63 }
}

/// What a register holds that is read as a number of that format: singles are not boxed now and then.
pub(super) fn register(random: &mut Random, fmt: Fmt) -> u64 {
    let bits = number(random, fmt);
    match fmt {
        Fmt::S if random.below(16) == 0 => bits | random.next() << 32,
        Fmt::S => bits | BOX,
        _ => bits,
    }
}

/// What an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A single or double.
    Number(Fmt),
    Integer,
}

/// Where an operand comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// A register: with a home in an xmm register or a general-purpose one, or in the frame.
    Slot(Slot),
    /// The same, boxed by the block before.
    Boxed(Slot),
    /// Computed just before, so that it is in a scratch register.
    Scratch,
    /// The same, in a general-purpose register.
    ScratchInteger,
}

const FROM: [From; 7] = [
    From::Slot(74),
    From::Slot(64),
    From::Slot(84),
    From::Slot(11),
    From::Boxed(75),
    From::Scratch,
    From::ScratchInteger,
];

struct Maker {
    ops: Vec<Op>,
    /// Registers that hold operands.
    inputs: Vec<(Slot, Kind)>,
}

impl Maker {
    fn push(&mut self, op: Op) -> Val {
        self.ops.push(op);
        Val(self.ops.len() as u32 - 1)
    }

    fn get(&mut self, slot: Slot, kind: Kind) -> Val {
        self.inputs.push((slot, kind));
        self.push(Op::Get(slot))
    }

    fn operand(&mut self, kind: Kind, from: From, place: u8, unboxed: bool) -> Val {
        let v = match from {
            From::Slot(slot) => self.get(slot, kind),
            From::Boxed(slot) if kind == Kind::Number(Fmt::S) => {
                let v = self.get(slot, kind);
                let v = self.push(Op::Box(v));
                self.push(Op::Set(slot, v));
                return self.push(Op::Get(slot));
            }
            From::Boxed(slot) => self.get(slot, kind),
            From::Scratch => {
                let v = self.get(66 + place, kind);
                let sign = self.push(Op::Const(D_SIGN));
                let v = self.push(Op::Bin(Bin::Xor, v, sign));
                self.push(Op::Bin(Bin::Xor, v, sign))
            }
            From::ScratchInteger => {
                let v = self.get(5 + place, kind);
                let ones = self.push(Op::Const(u64::MAX));
                let v = self.push(Op::Bin(Bin::Xor, v, ones));
                self.push(Op::Bin(Bin::Xor, v, ones))
            }
        };
        if unboxed && kind == Kind::Number(Fmt::S) { self.push(Op::Unbox(v)) } else { v }
    }
}

struct NoMemory;

impl Memory for NoMemory {
    type Fault = ();

    fn load(&mut self, _: u64, _: Width) -> Result<u64, ()> {
        Err(())
    }
    fn store(&mut self, _: u64, _: Width, _: u64) -> Result<(), ()> {
        Err(())
    }
    fn atomic(&mut self, _: Atomic, _: u64, _: Width, _: u64) -> Result<u64, ()> {
        Err(())
    }
}

impl State for NoMemory {
    fn word(&mut self, _: Word) -> u64 {
        0
    }
    fn set_word(&mut self, _: Word, _: u64) {}
    fn may_be_interrupted(&mut self) -> bool {
        false
    }
}

/// Runs a block that has run before on `regs`, and compares with its evaluation.
fn compare(machine: &mut Machine, block: &Block, regs: &[u64; 256]) {
    let mut expected = *regs;
    let mut evaluation = Evaluation::default();
    let left = evaluation.run(block, &mut expected, PAGE_VA, &mut NoMemory);
    assert!(matches!(left, Left::To(_)));
    machine.frame.regs = *regs;
    machine.frame.counter = 100;
    machine.again();
    let is = &machine.frame.regs;
    if *is != expected || !machine.raised(evaluation.flags) {
        for slot in (0..256).filter(|&slot| is[slot] != expected[slot]) {
            println!("slot {slot}: {:#x}, not {:#x}", is[slot], expected[slot]);
        }
        for op in &block.ops {
            if let Op::Get(slot) = op {
                println!("slot {slot} was {:#x}", regs[*slot as usize]);
            }
        }
        panic!(
            "{:?}, MXCSR {:#x} after {:#x}: {block:?}",
            evaluation.flags, machine.frame.mxcsr, machine.engine.sticky
        );
    }
}

/// Runs an operation on operands of all kinds into registers of all kinds. `single` says that its result is one.
fn each(operands: &[Kind], result: Kind, op: impl Fn(&mut Maker, &[Val]) -> Val) {
    let mut machine = Machine::new();
    let mut random = Random(0x5eed ^ operands.len() as u64);
    let to: &[Slot] =
        if result == Kind::Integer { &[10, 11, 5, 74] } else { &[74, 64, 76, 84, 11] };
    let arity = operands.len() as u32;
    let shapes = FROM.len().pow(arity) * to.len() * 4;
    let each = SETS.div_ceil(shapes).max(4);
    for mut number in 0..FROM.len().pow(arity) {
        let from: Vec<From> = operands
            .iter()
            .map(|_| {
                let from = FROM[number % FROM.len()];
                number /= FROM.len();
                from
            })
            .collect();
        for &to in to {
            for shape in 0..4 {
                let (used_again, unboxed) = (shape & 1 != 0, shape & 2 != 0);
                let mut maker = Maker { ops: Vec::new(), inputs: Vec::new() };
                let values: Vec<Val> = (0..operands.len())
                    .map(|k| maker.operand(operands[k], from[k], k as u8, unboxed))
                    .collect();
                let mut v = op(&mut maker, &values);
                assert!(supports(&maker.ops[v.0 as usize]), "{:?}", maker.ops[v.0 as usize]);
                let plain = v;
                if result == Kind::Number(Fmt::S) {
                    v = maker.push(Op::Box(v));
                }
                maker.push(Op::Set(to, v));
                if used_again {
                    for (k, &v) in values.iter().enumerate() {
                        maker.push(Op::Set([12, 70, 90][k], v));
                    }
                    maker.push(Op::Set(13, v));
                    maker.push(Op::Set(71, plain));
                }
                let block = block(&maker.ops);
                machine.frame.counter = 100;
                machine.run(&block);
                for _ in 0..each {
                    let mut regs = [0; 256];
                    let mut last = 0;
                    for &(slot, kind) in &maker.inputs {
                        last = match kind {
                            // Now and then the same again, or its opposite.
                            Kind::Number(Fmt::D) if random.below(16) == 0 => last ^ D_SIGN,
                            Kind::Number(Fmt::S) if random.below(16) == 0 => last ^ S_SIGN,
                            _ if random.below(16) == 0 => last,
                            Kind::Number(fmt) => register(&mut random, fmt),
                            Kind::Integer => random.value(),
                        };
                        regs[slot as usize] = last;
                    }
                    machine.engine.sticky =
                        if random.below(4) == 0 { random.next() as u32 & 0x3f } else { 0 };
                    compare(&mut machine, &block, &regs);
                }
            }
        }
    }
}

fn two(op: Fp2, fmt: Fmt) {
    let number = Kind::Number(fmt);
    let compares = matches!(op, Fp2::Eq | Fp2::Lt | Fp2::Le | Fp2::Ltq | Fp2::Leq);
    let result = if compares { Kind::Integer } else { number };
    each(&[number; 2], result, |maker, v| maker.push(Op::Fp2(op, fmt, v[0], v[1])));
}

fn one(op: Fp1, fmt: Fmt, round: Round) {
    let (from, to) = match op {
        Fp1::From(from) => (Kind::Number(from), Kind::Number(fmt)),
        Fp1::FromI32 | Fp1::FromU32 | Fp1::FromI64 | Fp1::FromU64 => {
            (Kind::Integer, Kind::Number(fmt))
        }
        Fp1::ToI32 | Fp1::ToU32 | Fp1::ToI64 | Fp1::ToU64 => (Kind::Number(fmt), Kind::Integer),
        _ => (Kind::Number(fmt), Kind::Number(fmt)),
    };
    each(&[from], to, |maker, v| maker.push(Op::Fp1(op, fmt, round, v[0])));
}

#[test]
fn arithmetic() {
    for fmt in FORMATS {
        for op in [Fp2::Add, Fp2::Sub, Fp2::Mul, Fp2::Div] {
            two(op, fmt);
        }
        one(Fp1::Sqrt, fmt, Round::Nearest);
    }
}

#[test]
fn comparisons() {
    for fmt in FORMATS {
        for op in [Fp2::Eq, Fp2::Lt, Fp2::Le, Fp2::Ltq, Fp2::Leq] {
            two(op, fmt);
        }
    }
}

#[test]
fn minimum_and_maximum() {
    for fmt in FORMATS {
        for op in [Fp2::Min, Fp2::Max, Fp2::Minm, Fp2::Maxm] {
            two(op, fmt);
        }
    }
}

#[test]
fn fused() {
    for fmt in FORMATS {
        // What flips the sign: of singles, also with ones above it.
        let signs: &[u64] = if fmt == Fmt::S { &[S_SIGN, S_SIGN as i32 as u64] } else { &[D_SIGN] };
        for shape in 0..4 {
            each(&[Kind::Number(fmt); 3], Kind::Number(fmt), |maker, v| {
                let mut negated = |v: Val, negate: bool| {
                    if !negate {
                        return v;
                    }
                    let sign = maker.push(Op::Const(signs[v.0 as usize % signs.len()]));
                    maker.push(Op::Bin(Bin::Xor, v, sign))
                };
                let (a, c) = (negated(v[0], shape & 1 != 0), negated(v[2], shape & 2 != 0));
                maker.push(Op::Fma(fmt, a, v[1], c))
            });
        }
    }
}

#[test]
fn to_integers() {
    for fmt in FORMATS {
        for op in [Fp1::ToI32, Fp1::ToU32, Fp1::ToI64, Fp1::ToU64] {
            for round in [Round::Nearest, Round::Zero, Round::Down, Round::Up] {
                one(op, fmt, round);
            }
        }
    }
}

#[test]
fn from_integers() {
    for fmt in FORMATS {
        for op in [Fp1::FromI32, Fp1::FromU32, Fp1::FromI64, Fp1::FromU64] {
            one(op, fmt, Round::Nearest);
        }
    }
}

#[test]
fn other_conversions() {
    one(Fp1::From(Fmt::S), Fmt::D, Round::Nearest);
    one(Fp1::From(Fmt::D), Fmt::S, Round::Nearest);
    for fmt in FORMATS {
        for op in [Fp1::Round, Fp1::Roundnx] {
            one(op, fmt, Round::Nearest);
        }
    }
}

/// FSGNJ and its like, as they are and as they are folded.
#[test]
fn signs() {
    let changes: [(Fmt, Bin, u64); 9] = [
        (Fmt::D, Bin::Xor, D_SIGN),
        (Fmt::D, Bin::And, !D_SIGN),
        (Fmt::D, Bin::And, D_SIGN),
        (Fmt::S, Bin::Xor, S_SIGN),
        (Fmt::S, Bin::Xor, S_SIGN as i32 as u64),
        (Fmt::S, Bin::And, S_SIGN - 1),
        (Fmt::S, Bin::And, S_SIGN),
        (Fmt::S, Bin::Or, S_SIGN as i32 as u64),
        (Fmt::D, Bin::Or, D_SIGN),
    ];
    for (fmt, op, bits) in changes {
        let number = Kind::Number(fmt);
        each(&[number], number, |maker, v| {
            let bits = maker.push(Op::Const(bits));
            maker.push(Op::Bin(op, v[0], bits))
        });
    }
    for (fmt, sign) in [(Fmt::S, S_SIGN), (Fmt::D, D_SIGN)] {
        let number = Kind::Number(fmt);
        each(&[number; 2], number, |maker, v| {
            let sign = maker.push(Op::Const(sign));
            let sign = maker.push(Op::Bin(Bin::And, v[1], sign));
            maker.push(Op::Bin(Bin::Xor, v[0], sign))
        });
        each(&[number; 2], number, |maker, v| {
            let (rest, sign) = (maker.push(Op::Const(!sign)), maker.push(Op::Const(sign)));
            let magnitude = maker.push(Op::Bin(Bin::And, v[0], rest));
            let sign = maker.push(Op::Bin(Bin::And, v[1], sign));
            maker.push(Op::Bin(Bin::Or, magnitude, sign))
        });
    }
}

#[test]
fn boxes() {
    let single = Kind::Number(Fmt::S);
    each(&[single], single, |maker, v| maker.push(Op::Unbox(v[0])));
    each(&[single], Kind::Number(Fmt::D), |maker, v| maker.push(Op::Unbox(v[0])));
    each(&[single], Kind::Number(Fmt::D), |maker, v| maker.push(Op::Box(v[0])));
}
