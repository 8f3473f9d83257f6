//! Random blocks: of operations, and lifted from random guest code.

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::csr::num;
use mimic_cpu::riscv::hart::Mode;
use mimic_cpu::riscv::insn::{self, At, Format};
use mimic_cpu::riscv::interp::host::Word;
use mimic_cpu::riscv::sem::{Amo, Atomic, Bin, Fmt, Fp1, Fp2, Un};

use super::Random;
use super::fp;
use super::machine::{MEMORY, Machine};
use crate::ir::eval::State;
use crate::ir::opt::Passes;
use crate::ir::{Block, Insn, Op, Round, Slot, Val};
use crate::riscv::lift::{Lifter, ModeKey};
use crate::x64::supports;

const SLOTS: [Slot; 17] = [1, 2, 5, 6, 8, 10, 10, 11, 12, 16, 20, 31, 64, 70, 74, 75, 84];
/// Those that conditions are made of.
const COMPARES: [Bin; 3] = [Bin::Slt, Bin::Sltu, Bin::Eq];
const TO_INTEGERS: [Fp1; 4] = [Fp1::ToI32, Fp1::ToU32, Fp1::ToI64, Fp1::ToU64];
const FP1S: [Fp1; 13] = [
    Fp1::Sqrt,
    Fp1::Round,
    Fp1::Roundnx,
    Fp1::ToI32,
    Fp1::ToU32,
    Fp1::ToI64,
    Fp1::ToU64,
    Fp1::FromI32,
    Fp1::FromU32,
    Fp1::FromI64,
    Fp1::FromU64,
    Fp1::From(Fmt::S),
    Fp1::From(Fmt::D),
];
const ATOMICS: [Atomic; 5] = [
    Atomic::LoadReserved,
    Atomic::StoreConditional,
    Atomic::Amo(Amo::Swap),
    Atomic::Amo(Amo::Add),
    Atomic::Amo(Amo::Max),
];
/// Registers that hold addresses.
const POINTERS: [Slot; 3] = [9, 13, 21];

struct Maker<'a> {
    random: &'a mut Random,
    /// Where branches lead.
    targets: &'a [i64],
    ops: Vec<Op>,
    values: Vec<Val>,
}

impl Maker<'_> {
    fn push(&mut self, op: Op) -> Val {
        self.ops.push(op);
        Val(self.ops.len() as u32 - 1)
    }

    fn make(&mut self, op: Op) -> Val {
        let v = self.push(op);
        self.values.push(v);
        v
    }

    /// A value made lately, or a new one.
    fn value(&mut self) -> Val {
        let lately = self.values.len().min(12);
        match self.random.below(8) {
            0 => {
                let constant = self.random.value();
                self.make(Op::Const(constant))
            }
            1..4 => {
                let slot = self.random.pick(&SLOTS);
                self.make(Op::Get(slot))
            }
            _ if lately == 0 => self.make(Op::Pc(0x123)),
            _ => self.values[self.values.len() - 1 - self.random.below(lately)],
        }
    }

    fn address(&mut self) -> Val {
        let slot = self.random.pick(&POINTERS);
        let base = self.push(Op::Get(slot));
        let offset = self.random.pick(&[0, 1, 8, 16, 2040, -2048i64]);
        let offset = self.push(Op::Const(offset as u64));
        self.push(Op::Bin(Bin::Add, base, offset))
    }

    /// A floating-point operation, boxed and moved to a register as instructions do it, or not.
    fn fp_op(&mut self) {
        let fmt = self.random.pick(&[Fmt::S, Fmt::D]);
        let mut values = [self.value(), self.value(), self.value()];
        if fmt == Fmt::S {
            for v in &mut values {
                if self.random.below(4) != 0 {
                    *v = self.make(Op::Unbox(*v));
                }
            }
        }
        let [mut a, b, mut c] = values;
        for v in [&mut a, &mut c] {
            if self.random.below(4) == 0 {
                let sign = self.random.pick(&[1 << 31, 1 << 63, i32::MIN as u64]);
                let sign = self.push(Op::Const(sign));
                *v = self.make(Op::Bin(Bin::Xor, *v, sign));
            }
        }
        let op = match self.random.below(3) {
            0 => Op::Fma(fmt, a, b, c),
            1 => Op::Fp2(self.random.pick(Fp2::ALL), fmt, a, b),
            _ => {
                let round = match self.random.below(2) {
                    0 => {
                        let rounds = [Round::Zero, Round::Down, Round::Up];
                        (self.random.pick(&TO_INTEGERS), self.random.pick(&rounds))
                    }
                    _ => (self.random.pick(&FP1S), Round::Nearest),
                };
                Op::Fp1(round.0, fmt, round.1, a)
            }
        };
        if !supports(&op) {
            return;
        }
        let mut v = self.make(op);
        if self.random.below(2) == 0 {
            v = self.make(Op::Box(v));
        }
        if self.random.below(4) == 0 {
            self.push(Op::FpDirty);
        }
        if self.random.below(4) != 0 {
            let slot = self.random.pick(&SLOTS);
            self.push(Op::Set(slot, v));
        }
    }

    fn op(&mut self) {
        let width = self.random.pick(&[
            Width::Byte,
            Width::Half,
            Width::Word,
            Width::Double,
            Width::Double,
        ]);
        match self.random.below(21) {
            20 => {
                let (value, addr) = (self.value(), self.address());
                let width = self.random.pick(&[Width::Word, Width::Double]);
                let op = self.random.pick(&ATOMICS);
                let v = self.make(Op::Atomic { op, addr, width, value });
                if self.random.below(3) != 0 {
                    let slot = self.random.pick(&SLOTS);
                    self.push(Op::Set(slot, v));
                }
            }
            16.. => self.fp_op(),
            0..5 => {
                let (a, b, op) = (self.value(), self.value(), self.random.pick(Bin::ALL));
                self.make(Op::Bin(op, a, b));
            }
            5 => {
                let (a, op) = (self.value(), self.random.pick(Un::ALL));
                self.make(Op::Un(op, a));
            }
            6 => {
                let (a, b, op) = (self.value(), self.value(), self.random.pick(&COMPARES));
                let cond = self.make(Op::Bin(op, a, b));
                let (a, b) = (self.value(), self.value());
                self.make(Op::Select(cond, a, b));
            }
            7 => {
                let (c, a, b) = (self.value(), self.value(), self.value());
                self.make(Op::Select(c, a, b));
            }
            8..13 => {
                let (slot, v) = (self.random.pick(&SLOTS), self.value());
                self.push(Op::Set(slot, v));
            }
            13 => {
                let addr = self.address();
                let v = self.make(Op::Load { addr, width });
                let (slot, op) = (self.random.pick(&SLOTS), self.random.pick(Un::ALL));
                match self.random.below(3) {
                    0 => {
                        self.push(Op::Set(slot, v));
                    }
                    1 => {
                        let v = self.make(Op::Un(op, v));
                        self.push(Op::Set(slot, v));
                    }
                    _ => {}
                }
            }
            14 => {
                let value = self.value();
                let addr = self.address();
                self.push(Op::Store { addr, width, value });
            }
            _ => {
                let (a, b, op) = (self.value(), self.value(), self.random.pick(&COMPARES));
                let mut cond = self.make(Op::Bin(op, a, b));
                if self.random.below(2) == 0 {
                    let zero = self.push(Op::Const(0));
                    cond = self.push(Op::Bin(Bin::Eq, cond, zero));
                }
                // Not often, so that blocks are usually long.
                let always = self.push(Op::Get(3));
                let cond = self.push(Op::Bin(Bin::And, cond, always));
                let target = self.random.pick(self.targets);
                self.push(Op::Branch(cond, target));
            }
        }
    }
}

fn block(random: &mut Random) -> Block {
    let most = random.pick(&[3, 24]);
    let (targets, ends) = (&[0x200, 0x400, -4, 0x1000, 0x12_3456], &[0, 0xffe, 0x1000, -0x2000]);
    block_at(random, 0x400, most, targets, ends)
}

/// A block of at most `most` instructions, whose branches lead to `targets` and which ends in one of `ends`.
pub(super) fn block_at(
    random: &mut Random,
    start: u64,
    most: usize,
    targets: &[i64],
    ends: &[i64],
) -> Block {
    let mut maker = Maker { random, targets, ops: Vec::new(), values: Vec::new() };
    let mut insns = Vec::new();
    let count = 1 + maker.random.below(most);
    for k in 0..count {
        let at = At::new(start + 4 * k as u64, 4);
        let word = maker.random.next() as u32;
        insns.push(Insn { at, word, first: maker.ops.len() as u32 });
        if maker.random.below(30) == 0 {
            maker.push(Op::Perform);
            continue;
        }
        for _ in 0..1 + maker.random.below(4) {
            maker.op();
        }
    }
    if maker.random.below(3) == 0 {
        let target = maker.value();
        let mask = maker.push(Op::Const(!1));
        let target = maker.push(Op::Bin(Bin::And, target, mask));
        maker.push(Op::Jump(target));
    } else {
        let target = maker.random.pick(ends);
        maker.push(Op::Goto(target));
    }
    Block { start, insns, ops: maker.ops }
}

pub(super) fn regs(random: &mut Random) -> [u64; 256] {
    let mut regs = [0; 256];
    for (slot, reg) in regs.iter_mut().enumerate() {
        if matches!(slot, 1..32 | 64..96) {
            *reg = match random.below(4) {
                0 => fp::register(random, Fmt::S),
                1 => fp::register(random, Fmt::D),
                _ => random.value(),
            };
        }
    }
    // Branches follow it seldom.
    regs[3] = u64::from(random.below(4) == 0);
    for slot in POINTERS {
        regs[slot as usize] = MEMORY + random.below(3 * 4096 + 100) as u64;
    }
    regs
}

#[test]
fn of_random_operations() {
    let mut machine = Machine::new();
    let mut random = Random(0x1234_5678);
    for _ in 0..20_000 {
        let block = block(&mut random);
        for cold in [false, true] {
            machine.cold = cold;
            machine.engine.sticky = random.next() as u32 & 0x3f;
            machine.compare(&block, &regs(&mut random));
        }
    }
}

#[test]
fn of_random_guest_code() {
    let (mut machine, mut plain) = (Machine::new(), Machine::plain());
    let mut random = Random(0x8765_4321);
    let rows = insn::tables::<Lifter>();
    for k in 0..30_000 {
        let passes = if k % 4 == 0 { Passes::empty() } else { Passes::all() };
        let mut lifter = Lifter::new(passes, supports);
        let mut code = Vec::new();
        for _ in 0..1 + random.below(20) {
            let row = &rows[random.below(rows.len())];
            let mut word = row.pattern.value | random.next() as u32 & !row.pattern.mask;
            if matches!(row.format, Format::I | Format::If | Format::S) && random.below(2) == 0 {
                // A base register that points into memory, most likely.
                word = word & !(0x1f << 15) | u32::from(random.pick(&POINTERS)) << 15;
            }
            if row.format == Format::Csr && random.below(4) != 0 {
                let csrs = [num::SSTATUS, num::SEPC, num::MSCRATCH];
                let fcsrs = [num::FFLAGS, num::FRM, num::FCSR];
                let csr = random.pick(if k % 2 == 0 { &csrs } else { &fcsrs });
                word = word & 0xf_ffff | u32::from(csr) << 20;
            }
            if row.format == Format::Rf && random.below(4) != 0 {
                // Rounding as in `frm`.
                word |= 7 << 12 & !row.pattern.mask;
            }
            if row.pattern.matches(word) {
                code.push(word);
            }
        }
        let read = |at: u64| {
            let at = (at as usize - 0x400) / 2;
            code.get(at / 2).map_or(0, |word| (word >> (16 * (at % 2))) as u16)
        };
        let mode = random.pick(&[Mode::U, Mode::S, Mode::M]);
        let mode = ModeKey { fp: random.below(4) != 0, mode };
        let block = lifter.lift_block(read, 0x400, mode).unwrap();
        machine.cold = k % 3 == 0;
        for machine in [&mut machine, &mut plain] {
            machine.engine.sticky = random.pick(&[0, 0x20, 0x3f]);
            machine.engine.state = std::array::from_fn(|_| random.value());
            let fflags = random.next() & 0x1f;
            machine.engine.set_word(Word::Fflags, fflags);
            machine.engine.lines = random.value() & random.value();
            machine.compare(block, &regs(&mut random));
        }
    }
}
