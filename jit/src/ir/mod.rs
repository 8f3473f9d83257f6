//! The intermediate representation: a block of guest code as operations on 64-bit values.
//!
//! A [`Block`] is a straight line of guest instructions inside one page with side exits where branches
//! leave it. Every operation that makes a value is assigned once and named by its position ([`Val`]).
//! Guest registers are [`Slot`]s: they are read by [`Op::Get`] and written by [`Op::Set`], in program
//! order, so that they are right whenever an operation leaves the block early (a fault, a side exit).
//!
//! Position independence: a block does not know its virtual address, only its place in its page;
//! [`Op::Pc`] gives addresses when it runs.

pub mod build;
pub mod eval;
pub mod opt;
pub mod region;
mod text;

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::insn::At;
use mimic_cpu::riscv::interp::host::Word;
use mimic_cpu::riscv::sem::{Atomic, Bin, Fmt, Fp1, Fp2, Un};

/// A value: the position of the operation that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Val(pub u32);

/// A guest register: its index in the frame's registers.
pub type Slot = u8;

/// Rounding of a floating-point operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// To nearest, ties to even: the mode that translated code runs in.
    Nearest,
    /// Towards zero; like the following, only conversions to integers are translated with it.
    Zero,
    /// Towards negative infinity.
    Down,
    /// Towards positive infinity.
    Up,
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A constant.
    Const(u64),
    /// The guest register's contents here.
    Get(Slot),
    /// Virtual address of the page, plus an offset (any).
    Pc(i64),
    /// Integer operation on two values.
    Bin(Bin, Val, Val),
    /// Integer operation on one value.
    Un(Un, Val),
    /// The second if the first is not zero, else the third.
    Select(Val, Val, Val),
    /// A word of the hart's state.
    Word(Word),
    /// Loads, zero-extended. May leave the block by a fault.
    Load {
        /// Virtual address.
        addr: Val,
        /// Bytes.
        width: Width,
    },
    /// The single-precision number in a 64-bit register value: its low half if the upper is all ones,
    /// else the canonical NaN; zero-extended.
    Unbox(Val),
    /// A single-precision number (low half) with the upper half all ones.
    Box(Val),
    /// Floating-point operation on two unboxed values.
    Fp2(Fp2, Fmt, Val, Val),
    /// Floating-point operation on one unboxed (or integer) value.
    Fp1(Fp1, Fmt, Round, Val),
    /// `a * b + c`, rounded once.
    Fma(Fmt, Val, Val, Val),

    /// Writes a guest register.
    Set(Slot, Val),
    /// Stores the low bits of `value`. May leave the block by a fault, or after the instruction.
    Store {
        /// Virtual address.
        addr: Val,
        /// Bytes.
        width: Width,
        /// What is stored.
        value: Val,
    },
    /// An atomic operation on memory; its result is sign-extended. May leave the block by a fault. What a store causes
    /// is looked at where the block ends.
    Atomic {
        /// Which one.
        op: Atomic,
        /// Virtual address.
        addr: Val,
        /// Word or double word.
        width: Width,
        /// The other operand; of no meaning to LR.
        value: Val,
    },
    /// Writes a word of the hart's state.
    SetWord(Word, Val),
    /// A full memory fence.
    Fence,
    /// Marks the floating-point state dirty.
    FpDirty,
    /// The interpreter performs the instruction on the registers in the frame; afterwards any register may
    /// have changed. May leave the block.
    Perform,
    /// If the value is not zero, the interpreter performs the instruction, which has done nothing yet, and the block is
    /// left for the next one.
    PerformIf(Val),
    /// Leaves the block for an offset relative to its page, the next instruction's, if an interrupt of S-mode may be
    /// pending and enabled.
    Attend(i64),

    /// If the value is not zero, leaves the block for an offset relative to its page.
    Branch(Val, i64),
    /// Leaves the block for an address (whose lowest bit is clear).
    Jump(Val),
    /// Leaves the block for an offset relative to its page.
    Goto(i64),
}

/// A guest instruction of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Where it lies in its page.
    pub at: At,
    /// Its bits (a compressed instruction's in the lower half).
    pub word: u32,
    /// Its first operation in [`Block::ops`]. Its last is before the next instruction's first; there may be none.
    pub first: u32,
}

/// A block: what is translated as a whole.
///
/// The last operation is [`Op::Jump`] or [`Op::Goto`], and nowhere else is either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Offset of the first instruction in its page.
    pub start: u64,
    /// The guest instructions, in order. At least one.
    pub insns: Vec<Insn>,
    /// The operations, in order.
    pub ops: Vec<Op>,
}

impl Op {
    /// The values it takes.
    #[inline]
    pub fn operands(&self) -> impl Iterator<Item = Val> {
        let mut copy = *self;
        copy.places().map(|place| place.map(|v| *v)).into_iter().flatten()
    }

    /// The same operation on other values.
    #[must_use]
    pub fn with_operands(&self, mut to: impl FnMut(Val) -> Val) -> Op {
        let mut copy = *self;
        for v in copy.places().into_iter().flatten() {
            *v = to(*v);
        }
        copy
    }

    /// Where the values that it takes stand.
    #[inline]
    fn places(&mut self) -> [Option<&mut Val>; 3] {
        match self {
            Op::Const(_)
            | Op::Get(_)
            | Op::Pc(_)
            | Op::Fence
            | Op::FpDirty
            | Op::Perform
            | Op::Word(_)
            | Op::Attend(_)
            | Op::Goto(_) => [None, None, None],
            Op::Un(_, a)
            | Op::Unbox(a)
            | Op::Box(a)
            | Op::Fp1(_, _, _, a)
            | Op::Set(_, a)
            | Op::Branch(a, _)
            | Op::SetWord(_, a)
            | Op::PerformIf(a)
            | Op::Jump(a)
            | Op::Load { addr: a, .. } => [Some(a), None, None],
            Op::Bin(_, a, b)
            | Op::Fp2(_, _, a, b)
            | Op::Store { addr: a, value: b, .. }
            | Op::Atomic { addr: a, value: b, .. } => [Some(a), Some(b), None],
            Op::Select(a, b, c) | Op::Fma(_, a, b, c) => [Some(a), Some(b), Some(c)],
        }
    }

    /// Whether it makes a value and does nothing else, so that it may be dropped if nobody takes it.
    /// Floating-point operations raise flags.
    #[must_use]
    pub fn is_pure(&self) -> bool {
        matches!(
            self,
            Op::Const(_)
                | Op::Get(_)
                | Op::Pc(_)
                | Op::Word(_)
                | Op::Bin(..)
                | Op::Un(..)
                | Op::Select(..)
                | Op::Unbox(_)
                | Op::Box(_)
        )
    }

    /// Whether it makes a value.
    #[must_use]
    pub fn makes_value(&self) -> bool {
        let others = matches!(
            self,
            Op::Load { .. } | Op::Atomic { .. } | Op::Fp2(..) | Op::Fp1(..) | Op::Fma(..)
        );
        self.is_pure() || others
    }

    /// Whether the block may be left here, so that somebody sees the registers.
    #[must_use]
    pub fn may_leave(&self) -> bool {
        matches!(
            self,
            Op::Load { .. }
                | Op::Store { .. }
                | Op::Atomic { .. }
                | Op::Perform
                | Op::PerformIf(_)
                | Op::Attend(_)
                | Op::Branch(..)
                | Op::Jump(_)
                | Op::Goto(_)
        )
    }
}
