//! What is settled before a block is emitted: how often and how far values are used, and which are left to their
//! only user to compute.

use mimic_cpu::riscv::sem::{Bin, Un};

use super::alloc::{Alloc, Value, fits};
use super::fp;
use crate::ir::{Block, Op, Slot, Val};

/// Whether `user` folds `op` into its own instructions if it is its only user.
fn folds(ops: &[Op], op: Op, value: Val, user: Op) -> bool {
    let constant = |v: Val| match ops[v.0 as usize] {
        Op::Const(c) => Some(c),
        _ => None,
    };
    match (op, user) {
        (
            Op::Bin(Bin::Slt | Bin::Sltu | Bin::Eq | Bin::And, ..),
            Op::Branch(..) | Op::PerformIf(_),
        ) => true,
        (Op::Bin(Bin::Slt | Bin::Sltu | Bin::Eq | Bin::And, ..), Op::Select(cond, a, b)) => {
            cond == value && a != value && b != value
        }
        (Op::Bin(Bin::Slt | Bin::Sltu | Bin::Eq | Bin::And, ..), Op::Bin(Bin::Eq, a, zero)) => {
            a == value && constant(zero) == Some(0)
        }
        (Op::Bin(Bin::Add, _, offset), Op::Load { addr, .. } | Op::Jump(addr)) => {
            addr == value && constant(offset).is_some_and(fits)
        }
        (Op::Bin(Bin::Add, _, offset), Op::Store { addr, value: stored, .. }) => {
            addr == value && stored != value && constant(offset).is_some_and(fits)
        }
        (Op::Bin(Bin::Sll, _, amount), Op::Bin(Bin::Add, a, b)) => {
            a != b && constant(amount).is_some_and(|n| (1..=3).contains(&n))
        }
        (Op::Pc(_), Op::Set(..)) => true,
        (Op::Bin(Bin::Xor, _, sign), Op::Fma(fmt, a, b, c)) => {
            (a == value || c == value)
                && b != value
                && constant(sign).is_some_and(|sign| fp::is_sign(fmt, sign))
        }
        (Op::Bin(Bin::Xor, _, ones), Op::Bin(Bin::And, a, b)) => {
            a != b && constant(ones) == Some(u64::MAX)
        }
        // Shifts of words: the host's take the amount modulo 32, and need no extension before.
        (Op::Bin(op, ..), Op::Un(Un::SextW, _)) => is_word_shift(ops, value) && op != Bin::Sra,
        (Op::Un(Un::ZextW | Un::SextW, _), Op::Bin(Bin::Sll | Bin::Srl | Bin::Sra, a, amount)) => {
            a == value && a != amount && constant(amount).is_some()
        }
        _ => false,
    }
}

/// What masks the amount of a shift of words.
const WORD_AMOUNT: u64 = 31;

/// Whether a value is a shift whose low half is that of a shift of 32-bit words: of a low half by an amount modulo
/// 32, or to the left by a constant.
pub(super) fn is_word_shift(ops: &[Op], value: Val) -> bool {
    let op = |v: Val| ops[v.0 as usize];
    let Op::Bin(shift, a, amount) = op(value) else { return false };
    match op(amount) {
        Op::Const(amount) => shift == Bin::Sll && amount <= WORD_AMOUNT,
        Op::Bin(Bin::And, _, mask) if op(mask) == Op::Const(WORD_AMOUNT) => match shift {
            Bin::Sll => true,
            Bin::Srl => matches!(op(a), Op::Un(Un::ZextW, _)),
            Bin::Sra => matches!(op(a), Op::Un(Un::SextW, _)),
            _ => false,
        },
        _ => false,
    }
}

impl Alloc {
    /// Prepares for a block's values: counts uses, finds last uses and what is deferred.
    pub(super) fn plan(&mut self, block: &Block) {
        let ops = &block.ops;
        self.values.clear();
        let mut effects = 0;
        // Registers that are known to hold boxed singles.
        let mut boxed_slots = 0u128;
        let bit = |slot: Slot| 1u128.checked_shl(slot.into()).unwrap_or(0);
        for (i, op) in ops.iter().enumerate() {
            let boxed = match *op {
                Op::Box(_) => true,
                Op::Get(slot) => boxed_slots & bit(slot) != 0,
                _ => false,
            };
            match *op {
                Op::Set(slot, v) => {
                    boxed_slots &= !bit(slot);
                    if self.value(v).boxed {
                        boxed_slots |= bit(slot);
                    }
                }
                Op::Perform => boxed_slots = 0,
                _ => {}
            }
            self.values.push(Value { last: i as u32, effects, boxed, ..Value::FRESH });
            effects += u32::from(!op.is_pure());
        }
        for (i, op) in ops.iter().enumerate().rev() {
            let value = self.values[i];
            let mut end = i as u32;
            if op.is_pure() {
                if value.uses == 0 {
                    continue;
                }
                if value.uses == 1 && !matches!(op, Op::Const(_) | Op::Get(_)) {
                    let user = value.user as usize;
                    let adjacent = self.values[user].effects == value.effects;
                    let v = Val(i as u32);
                    // Chains end at conditions: else one operation would need more registers than there are.
                    let folded = if self.values[user].deferred
                        && !matches!(op, Op::Bin(Bin::Slt | Bin::Sltu | Bin::Eq | Bin::And, ..))
                    {
                        false
                    } else {
                        folds(ops, *op, v, ops[user])
                    };
                    if adjacent && (folded || self.folds_into_word_shift(ops, v, user)) {
                        self.values[i].deferred = true;
                        end = value.last;
                    }
                }
            }
            for operand in op.operands() {
                let operand = &mut self.values[operand.0 as usize];
                operand.uses += 1;
                operand.user = i as u32;
                operand.last = operand.last.max(end);
            }
        }
    }

    /// Whether a value is an operand of a shift of words that it does not change: that reads through it.
    fn folds_into_word_shift(&self, ops: &[Op], v: Val, user: usize) -> bool {
        let shift = Val(user as u32);
        let Op::Bin(op, a, amount) = ops[user] else { return false };
        let whole = op == Bin::Sra || self.values[user].deferred;
        whole
            && is_word_shift(ops, shift)
            && a != amount
            && match ops[v.0 as usize] {
                Op::Bin(Bin::And, ..) => v == amount,
                Op::Un(Un::ZextW | Un::SextW, _) => v == a,
                _ => false,
            }
    }
}
