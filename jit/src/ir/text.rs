//! A block as text, for people and for tests: the operations of each instruction, values named by their
//! positions, registers by the guest's names (`x1`, `f1`), offsets in the page in hexadecimal.
//!
//! ```text
//! 010: 00150513
//!   v0 = x10
//!   v1 = 1
//!   v2 = Add v0 v1
//!   x10 = v2
//!   goto 014
//! ```

use std::fmt::{Display, Formatter, Result};

use mimic_cpu::riscv::sem::Atomic;

use super::{Block, Op, Slot, Val};

impl Display for Val {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "v{}", self.0)
    }
}

/// A register's name.
struct Register(Slot);

impl Display for Register {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            x @ 0..=31 => write!(f, "x{x}"),
            fp @ 64..=95 => write!(f, "f{}", fp - 64),
            other => write!(f, "slot{other}"),
        }
    }
}

/// A number that is read as decimal while it is small.
struct Number(i64);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            small @ -4096..=4096 => write!(f, "{small}"),
            large => write!(f, "{large:#x}"),
        }
    }
}

/// An offset in or beside the page.
struct Offset(i64);

impl Display for Offset {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{:03x}", self.0.unsigned_abs())
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match *self {
            Op::Const(value) => write!(f, "{}", Number(value as i64)),
            Op::Get(slot) => write!(f, "{}", Register(slot)),
            Op::Pc(offset) => write!(f, "page {}", Offset(offset)),
            Op::Bin(op, a, b) => write!(f, "{op:?} {a} {b}"),
            Op::Un(op, a) => write!(f, "{op:?} {a}"),
            Op::Select(cond, a, b) => write!(f, "Select {cond} {a} {b}"),
            Op::Load { addr, width } => write!(f, "Load {width:?} [{addr}]"),
            Op::Unbox(a) => write!(f, "Unbox {a}"),
            Op::Box(a) => write!(f, "Box {a}"),
            Op::Fp2(op, fmt, a, b) => write!(f, "F{op:?}.{fmt:?} {a} {b}"),
            Op::Fp1(op, fmt, round, a) => write!(f, "F{op:?}.{fmt:?}.{round:?} {a}"),
            Op::Fma(fmt, a, b, c) => write!(f, "Fma.{fmt:?} {a} {b} {c}"),
            Op::Set(slot, a) => write!(f, "{} = {a}", Register(slot)),
            Op::Store { addr, width, value } => write!(f, "Store {width:?} [{addr}] {value}"),
            Op::Atomic { op: Atomic::LoadReserved, addr, width, .. } => {
                write!(f, "LoadReserved {width:?} [{addr}]")
            }
            Op::Atomic { op: Atomic::StoreConditional, addr, width, value } => {
                write!(f, "StoreConditional {width:?} [{addr}] {value}")
            }
            Op::Atomic { op: Atomic::ZeroBlock, addr, value, .. } => {
                write!(f, "ZeroBlock [{addr}] {value}")
            }
            Op::Atomic { op: Atomic::Amo(amo), addr, width, value } => {
                write!(f, "Amo{amo:?} {width:?} [{addr}] {value}")
            }
            Op::Word(word) => write!(f, "{word:?}"),
            Op::SetWord(word, a) => write!(f, "{word:?} = {a}"),
            Op::PerformIf(cond) => write!(f, "if {cond} perform"),
            Op::Attend(offset) => write!(f, "if interrupt goto {}", Offset(offset)),
            Op::Fence => f.write_str("fence"),
            Op::FpDirty => f.write_str("fp dirty"),
            Op::Perform => f.write_str("perform"),
            Op::Branch(cond, offset) => write!(f, "if {cond} goto {}", Offset(offset)),
            Op::Jump(target) => write!(f, "jump {target}"),
            Op::Goto(offset) => write!(f, "goto {}", Offset(offset)),
        }
    }
}

impl Display for Block {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let ends = self.insns.iter().skip(1).map(|insn| insn.first as usize);
        let mut first = 0;
        for (insn, end) in self.insns.iter().zip(ends.chain([self.ops.len()])) {
            let digits = 2 * insn.at.bytes() as usize;
            writeln!(f, "{:03x}: {:0digits$x}", insn.at.offset(), insn.word)?;
            for (at, op) in (first..).zip(&self.ops[first..end]) {
                match op.makes_value() {
                    true => writeln!(f, "  {} = {op}", Val(at as u32))?,
                    false => writeln!(f, "  {op}")?,
                }
            }
            first = end;
        }
        Ok(())
    }
}
