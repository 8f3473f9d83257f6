//! Evaluation of a block: what its operations mean, and the measure of every translation.

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::interp::host::Word;
use mimic_cpu::riscv::sem::Atomic;
use mimic_cpu::riscv::{alu, fpu};
use mimic_cpu::softfloat::{Flags, Rounding};

use super::{Block, Op, Round, Val};

/// The guest's memory, by virtual addresses.
pub trait Memory {
    /// Why an access failed.
    type Fault;

    /// Loads, zero-extended.
    ///
    /// # Errors
    /// If the load traps.
    fn load(&mut self, addr: u64, width: Width) -> Result<u64, Self::Fault>;

    /// Stores the low bits of `value`.
    ///
    /// # Errors
    /// If the store traps; nothing has been stored then.
    fn store(&mut self, addr: u64, width: Width, value: u64) -> Result<(), Self::Fault>;

    /// Performs an atomic operation. What it yields, sign-extended.
    ///
    /// # Errors
    /// If it traps; nothing has been stored then.
    fn atomic(
        &mut self,
        op: Atomic,
        addr: u64,
        width: Width,
        value: u64,
    ) -> Result<u64, Self::Fault>;
}

/// The words of a hart's state.
pub trait State: Memory {
    /// Reads one.
    fn word(&mut self, word: Word) -> u64;

    /// Writes one.
    fn set_word(&mut self, word: Word, value: u64);

    /// Whether an interrupt may be pending.
    fn may_be_interrupted(&mut self) -> bool;
}

/// Why an evaluation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left<F> {
    /// The block was left for this virtual address, after the instruction.
    To(u64),
    /// The instruction faulted.
    Fault(F),
    /// The instruction must be performed by the caller; [`Evaluation::run`] goes on after it.
    Perform,
    /// The instruction must be performed by the caller, and the block was left for the next one.
    Instead,
}

/// An evaluation in progress.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    values: Vec<u64>,
    /// Floating-point flags raised that [`Word::Fflags`] does not hold.
    pub flags: Flags,
    /// Whether the floating-point state was marked dirty.
    pub fp_dirty: bool,
    /// Index of the instruction that was reached.
    pub insn: usize,
}

impl Evaluation {
    /// Evaluates `block` on `regs` (indexed by slot) from where the last call stopped until it is left, and says
    /// how it was left; [`insn`](Self::insn) is then the instruction that did it. `page_va` is the virtual
    /// address of the block's page.
    pub fn run<M: State>(
        &mut self,
        block: &Block,
        regs: &mut [u64; 256],
        page_va: u64,
        memory: &mut M,
    ) -> Left<M::Fault> {
        let address = |offset: i64| page_va.wrapping_add(offset as u64);
        loop {
            let at = self.values.len();
            while block.insns.get(self.insn + 1).is_some_and(|next| next.first as usize <= at) {
                self.insn += 1;
            }
            let value = match block.ops[at] {
                Op::Const(value) => value,
                Op::Get(slot) => regs[usize::from(slot)],
                Op::Pc(offset) => address(offset),
                Op::Bin(op, a, b) => alu::bin(op, self.value(a), self.value(b)),
                Op::Un(op, a) => alu::un(op, self.value(a)),
                Op::Select(cond, a, b) => self.value(if self.value(cond) != 0 { a } else { b }),
                Op::Load { addr, width } => match memory.load(self.value(addr), width) {
                    Ok(value) => value,
                    Err(fault) => return Left::Fault(fault),
                },
                Op::Atomic { op, addr, width, value } => {
                    match memory.atomic(op, self.value(addr), width, self.value(value)) {
                        Ok(value) => value,
                        Err(fault) => return Left::Fault(fault),
                    }
                }
                Op::Word(Word::Fflags) => memory.word(Word::Fflags) | u64::from(self.flags.bits()),
                Op::Word(word) => memory.word(word),
                Op::SetWord(Word::Fflags, a) => {
                    memory.set_word(Word::Fflags, self.value(a));
                    self.flags = Flags::empty();
                    0
                }
                Op::SetWord(word, a) => {
                    memory.set_word(word, self.value(a));
                    0
                }
                Op::PerformIf(cond) => {
                    if self.value(cond) != 0 {
                        return Left::Instead;
                    }
                    0
                }
                Op::Attend(offset) => {
                    if memory.may_be_interrupted() {
                        return Left::To(address(offset));
                    }
                    0
                }
                Op::Unbox(a) => match self.value(a) {
                    a if a >> 32 == 0xffff_ffff => a & 0xffff_ffff,
                    _ => 0x7fc0_0000,
                },
                Op::Box(a) => self.value(a) | !0xffff_ffff,
                Op::Fp2(op, fmt, a, b) => {
                    let (a, b) = (self.value(a), self.value(b));
                    self.raise(fpu::fp2(op, fmt, Rounding::NearestEven, a, b))
                }
                Op::Fp1(op, fmt, round, a) => {
                    let rounding = match round {
                        Round::Nearest => Rounding::NearestEven,
                        Round::Zero => Rounding::TowardZero,
                        Round::Down => Rounding::Down,
                        Round::Up => Rounding::Up,
                    };
                    self.raise(fpu::fp1(op, fmt, rounding, self.value(a)))
                }
                Op::Fma(fmt, a, b, c) => {
                    let (a, b, c) = (self.value(a), self.value(b), self.value(c));
                    self.raise(fpu::fma(fmt, Rounding::NearestEven, a, b, c))
                }
                Op::Set(slot, a) => {
                    regs[usize::from(slot)] = self.value(a);
                    0
                }
                Op::Store { addr, width, value } => {
                    match memory.store(self.value(addr), width, self.value(value)) {
                        Ok(()) => 0,
                        Err(fault) => return Left::Fault(fault),
                    }
                }
                Op::Fence => 0,
                Op::FpDirty => {
                    self.fp_dirty = true;
                    0
                }
                Op::Perform => {
                    self.values.push(0);
                    return Left::Perform;
                }
                Op::Branch(cond, offset) => {
                    if self.value(cond) != 0 {
                        return Left::To(address(offset));
                    }
                    0
                }
                Op::Jump(target) => return Left::To(self.value(target)),
                Op::Goto(offset) => return Left::To(address(offset)),
            };
            self.values.push(value);
        }
    }

    /// Whether the last operation was reached.
    #[must_use]
    pub fn has_ended(&self, block: &Block) -> bool {
        self.values.len() + 1 == block.ops.len()
    }

    fn value(&self, Val(at): Val) -> u64 {
        self.values[at as usize]
    }

    fn raise(&mut self, (value, flags): (u64, Flags)) -> u64 {
        self.flags |= flags;
        value
    }
}
