//! Building a block: operations are simplified while they are made.
//!
//! What the lifter asks for passes the rules of [`fold`], which see the operations of the same instruction and what is
//! known of registers ([`facts`]): constants, addresses, how far values are extended. An instruction reads its
//! registers anew by [`Op::Get`], so that code for a machine whose registers hold the guest's has nothing to
//! keep: no value is taken by another instruction than its own, except that of an [`Op::Get`], by the next
//! instruction; and none of an [`Op::Get`] after the register has been written.

mod facts;
mod fold;

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::insn::At;
use mimic_cpu::riscv::interp::host::Word;
use mimic_cpu::riscv::sem::{Atomic, Bin, Fmt, Fp1, Fp2, Un};

use super::opt::{Dce, Passes};
use super::{Block, Insn, Op, Round, Slot, Val};
use facts::Fact;

/// Registers of which anything can be known.
const SLOTS: usize = 128;

/// What is known of a register.
#[derive(Clone, Copy, Debug)]
struct SlotFact {
    /// [`Op::Const`] or [`Op::Pc`] if its contents are one, else whatever was written.
    value: Op,
    fact: Fact,
    /// The last [`Op::Set`], by its position.
    set: u32,
}

/// Builds blocks; keeps its buffers from one to the next.
///
/// Instructions are built between [`begin`](Self::begin) and [`end`](Self::end) or
/// [`perform`](Self::perform).
pub struct Builder {
    block: Block,
    /// What is known of each operation's value.
    facts: Vec<Fact>,
    slots: [SlotFact; SLOTS],
    /// The registers of which anything is known, as a bit set.
    known: u128,
    passes: Passes,
    supports: fn(&Op) -> bool,
    dce: Dce,
    /// The floating-point state was marked dirty.
    fp_dirty: bool,
    now: Now,
}

/// What concerns the current instruction alone.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// Its first operation.
    first: usize,
    /// Registers whose contents were known when they were read, and the values that stand for them.
    reads: [Option<(Slot, Val)>; 3],
    /// The last sum of such a register and a constant: sum, register, constant.
    sum: Option<(Val, Slot, Val)>,
    /// An operation was made that cannot be emitted.
    unsupported: bool,
}

impl Now {
    const fn new(first: usize) -> Self {
        Now { first, reads: [None; 3], sum: None, unsupported: false }
    }
}

impl Builder {
    /// A builder of blocks for an emitter that takes what `supports` accepts.
    #[must_use]
    pub fn new(passes: Passes, supports: fn(&Op) -> bool) -> Self {
        let nothing = SlotFact { value: Op::Get(0), fact: Fact::ANY, set: 0 };
        Builder {
            block: Block::default(),
            facts: Vec::new(),
            slots: [nothing; SLOTS],
            known: 0,
            passes,
            supports,
            dce: Dce::default(),
            fp_dirty: false,
            now: Now::new(0),
        }
    }

    /// Begins a block at offset `start` of its page.
    pub fn start(&mut self, start: u64) {
        self.block.start = start;
        self.block.insns.clear();
        self.block.ops.clear();
        self.facts.clear();
        self.known = 0;
        self.fp_dirty = false;
    }

    /// Instructions so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.block.insns.len()
    }

    /// Whether there is no instruction yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.block.insns.is_empty()
    }

    /// Begins an instruction.
    pub fn begin(&mut self, at: At, word: u32) {
        let first = self.block.ops.len();
        self.block.insns.push(Insn { at, word, first: first as u32 });
        self.now = Now::new(first);
    }

    /// Whether the current instruction may stay as it is: all its operations can be emitted.
    #[must_use]
    pub fn end(&self) -> bool {
        !self.now.unsupported
    }

    /// Gives up the current instruction as it is: the interpreter performs it.
    pub fn perform(&mut self) {
        self.block.ops.truncate(self.now.first);
        self.facts.truncate(self.now.first);
        self.push(Op::Perform, Fact::ANY);
        // Nothing is known any more, not even whether the floating-point state is still dirty.
        self.known = 0;
        self.fp_dirty = false;
    }

    /// Ends the block by [`Op::Jump`] or [`Op::Goto`].
    pub fn finish(&mut self, end: Op) -> &Block {
        self.push(end, Fact::ANY);
        if self.passes.contains(Passes::DCE) {
            self.dce.run(&mut self.block);
        }
        &self.block
    }

    fn op(&self, Val(at): Val) -> Op {
        self.block.ops[at as usize]
    }

    fn fact(&self, Val(at): Val) -> Fact {
        self.facts[at as usize]
    }

    fn constant(&self, v: Val) -> Option<u64> {
        match self.op(v) {
            Op::Const(value) => Some(value),
            _ => None,
        }
    }

    fn folds(&self) -> bool {
        self.passes.contains(Passes::FOLD)
    }

    fn push(&mut self, op: Op, fact: Fact) -> Val {
        self.now.unsupported |= !(self.supports)(&op);
        self.block.ops.push(op);
        self.facts.push(fact);
        Val(self.block.ops.len() as u32 - 1)
    }

    /// The value of a pure operation; one that the instruction has made already will do.
    fn pure(&mut self, op: Op, fact: Fact) -> Val {
        if self.folds() {
            let mine = &self.block.ops[self.now.first..];
            if let Some(found) = mine.iter().position(|&other| other == op) {
                return Val((self.now.first + found) as u32);
            }
        }
        self.push(op, fact)
    }

    /// A constant.
    pub fn imm(&mut self, value: u64) -> Val {
        self.pure(Op::Const(value), Fact::of(value))
    }

    /// Address of the page, plus `offset`.
    pub fn pc(&mut self, offset: i64) -> Val {
        self.pure(Op::Pc(offset), Fact::ANY)
    }

    /// Contents of a register.
    pub fn get(&mut self, slot: Slot) -> Val {
        if self.known >> slot & 1 == 0 {
            return self.pure(Op::Get(slot), Fact::ANY);
        }
        let SlotFact { value, fact, .. } = self.slots[usize::from(slot)];
        if !matches!(value, Op::Const(_) | Op::Pc(_)) {
            return self.pure(Op::Get(slot), fact);
        }
        let v = self.pure(value, fact);
        if let Some(free) = self.now.reads.iter_mut().find(|read| read.is_none()) {
            *free = Some((slot, v));
        }
        v
    }

    /// Writes a register.
    pub fn set(&mut self, slot: Slot, v: Val) {
        let v = self.fuse(slot, v);
        let (value, fact) = (self.op(v), self.fact(v));
        // What an earlier instruction has read may have been overwritten.
        let read_now = v.0 as usize >= self.now.first;
        if self.folds() && value == Op::Get(slot) && read_now {
            return;
        }
        let known = self.known >> slot & 1 != 0;
        let before = self.slots[usize::from(slot)];
        if known && before.value == value && matches!(value, Op::Const(_) | Op::Pc(_)) {
            return;
        }
        let v = self.operand(v);
        let Val(set) = self.push(Op::Set(slot, v), Fact::ANY);
        if self.passes.contains(Passes::FACTS) {
            self.slots[usize::from(slot)] = SlotFact { value, fact, set };
            self.known |= 1 << slot;
        }
    }

    /// `v` as an operand of what stays: a constant too long for a host instruction, or an address, is better
    /// taken from the register that holds it.
    fn operand(&mut self, v: Val) -> Val {
        let long = match self.op(v) {
            Op::Const(value) => i32::try_from(value as i64).is_err(),
            op => matches!(op, Op::Pc(_)),
        };
        match self.now.reads.iter().flatten().find(|read| long && read.1 == v) {
            Some(&(slot, _)) => self.pure(Op::Get(slot), self.fact(v)),
            None => v,
        }
    }

    /// `v` as an address: a register plus a constant rather than what they are known to be.
    fn address(&mut self, v: Val) -> Val {
        let short = self.constant(v).is_some_and(|value| i32::try_from(value as i64).is_ok());
        match self.now.sum {
            Some((sum, slot, offset)) if sum == v && !short => {
                let fact = self.slots[usize::from(slot)].fact;
                let base = self.pure(Op::Get(slot), fact);
                self.pure(Op::Bin(Bin::Add, base, offset), self.fact(v))
            }
            _ => self.operand(v),
        }
    }

    /// A two-operand operation.
    pub fn bin(&mut self, op: Bin, a: Val, b: Val) -> Val {
        if self.folds()
            && let Some(v) = self.fold_bin(op, a, b)
        {
            return v;
        }
        let (a, b) = (self.operand(a), self.operand(b));
        let fact = facts::bin(op, self.fact(a), self.fact(b), self.constant(b));
        self.pure(Op::Bin(op, a, b), fact)
    }

    /// A one-operand operation.
    pub fn un(&mut self, op: Un, a: Val) -> Val {
        if self.folds()
            && let Some(v) = self.fold_un(op, a)
        {
            return v;
        }
        let a = self.operand(a);
        self.pure(Op::Un(op, a), facts::un(op, self.fact(a)))
    }

    /// `a` if `cond` is not zero, else `b`.
    pub fn select(&mut self, cond: Val, a: Val, b: Val) -> Val {
        let cond = self.condition(cond);
        if self.folds()
            && let Some(v) = self.fold_select(cond, a, b)
        {
            return v;
        }
        let (a, b) = (self.operand(a), self.operand(b));
        let fact = self.fact(a).either(self.fact(b));
        self.pure(Op::Select(cond, a, b), fact)
    }

    /// Loads, zero-extended.
    pub fn load(&mut self, addr: Val, width: Width) -> Val {
        let addr = self.address(addr);
        self.push(Op::Load { addr, width }, Fact::loaded(width))
    }

    /// Stores the low bits of `value`.
    pub fn store(&mut self, addr: Val, width: Width, value: Val) {
        let (addr, value) = (self.address(addr), self.operand(value));
        self.push(Op::Store { addr, width, value }, Fact::ANY);
    }

    /// An atomic operation.
    pub fn atomic(&mut self, op: Atomic, addr: Val, width: Width, value: Val) -> Val {
        self.now.unsupported |= !self.passes.contains(Passes::ATOMICS);
        let (addr, value) = (self.operand(addr), self.operand(value));
        let fact = match op {
            Atomic::StoreConditional | Atomic::ZeroBlock => Fact::zero(1),
            _ => Fact::sign(width.bits()),
        };
        self.push(Op::Atomic { op, addr, width, value }, fact)
    }

    /// Whether instructions on control and status registers become operations.
    #[must_use]
    pub fn has_csrs(&self) -> bool {
        self.passes.contains(Passes::CSRS)
    }

    /// A word of the hart's state.
    pub fn word(&mut self, word: Word) -> Val {
        let fact = if word == Word::Fflags { Fact::zero(5) } else { Fact::ANY };
        self.pure(Op::Word(word), fact)
    }

    /// Writes a word of the hart's state, after all that the instruction reads of it.
    pub fn set_word(&mut self, word: Word, v: Val) {
        let v = self.operand(v);
        self.push(Op::SetWord(word, v), Fact::ANY);
    }

    /// The interpreter performs the instruction and the block is left, if `cond` is not zero.
    pub fn perform_if(&mut self, cond: Val) {
        if self.constant(cond) != Some(0) {
            self.push(Op::PerformIf(cond), Fact::ANY);
        }
    }

    /// Leaves the block for the next instruction, at `next`, if an interrupt may be pending.
    pub fn attend(&mut self, next: i64) {
        self.push(Op::Attend(next), Fact::ANY);
    }

    /// A full fence.
    pub fn fence(&mut self) {
        self.push(Op::Fence, Fact::ANY);
    }

    /// Marks the floating-point state dirty, once.
    pub fn mark_fp_dirty(&mut self) {
        if !self.fp_dirty {
            self.fp_dirty = true;
            self.push(Op::FpDirty, Fact::ANY);
        }
    }

    /// An operand of a floating-point operation of which only the bits of `fmt` count.
    fn fp_operand(&mut self, fmt: Fmt, v: Val) -> Val {
        let v = if fmt == Fmt::S { self.low_half(v) } else { v };
        self.operand(v)
    }

    /// A floating-point operation on two operands.
    pub fn fp2(&mut self, op: Fp2, fmt: Fmt, a: Val, b: Val) -> Val {
        let (a, b) = (self.fp_operand(fmt, a), self.fp_operand(fmt, b));
        self.push(Op::Fp2(op, fmt, a, b), facts::fp2(op, fmt))
    }

    /// A floating-point operation on one operand.
    pub fn fp1(&mut self, op: Fp1, fmt: Fmt, round: Round, a: Val) -> Val {
        let taken = match op {
            Fp1::From(from) => from,
            // The low half of an integer.
            Fp1::FromI32 | Fp1::FromU32 => Fmt::S,
            Fp1::FromI64 | Fp1::FromU64 => Fmt::D,
            _ => fmt,
        };
        let a = self.fp_operand(taken, a);
        self.push(Op::Fp1(op, fmt, round, a), facts::fp1(op, fmt))
    }

    /// `a * b + c`.
    pub fn fma(&mut self, fmt: Fmt, a: Val, b: Val, c: Val) -> Val {
        let (a, b) = (self.fp_operand(fmt, a), self.fp_operand(fmt, b));
        let c = self.fp_operand(fmt, c);
        self.push(Op::Fma(fmt, a, b, c), facts::fma(fmt))
    }

    /// Leaves the block for `offset` if `cond` is not zero.
    pub fn branch(&mut self, cond: Val, offset: i64) {
        let cond = self.condition(cond);
        if self.constant(cond) != Some(0) {
            self.push(Op::Branch(cond, offset), Fact::ANY);
        }
    }

    /// How a block ends that jumps to `target`, whose lowest bit is ignored.
    pub fn jump(&mut self, target: Val) -> Op {
        let mask = self.imm(!1);
        let target = self.bin(Bin::And, target, mask);
        match self.op(target) {
            Op::Pc(offset) => Op::Goto(offset),
            _ => Op::Jump(target),
        }
    }
}
