//! Where the values of a block are while it is emitted.
//!
//! A value is a constant, a guest register's contents that nobody has overwritten yet, or in a scratch
//! register, or spilled to the host stack; or it is deferred: not computed, because its only user folds it
//! into an instruction of its own (a comparison into a branch, an address into a memory operand). Guest registers
//! themselves never move: that is what makes faults precise and blocks linkable.
//!
//! While an operation is emitted, the registers it reads are locked, so that taking another cannot move them.

use super::abi::SPILLS;
use super::asm::{Mem, RAX, RCX, RDX, RSP, Reg, Rm, Size};
use super::homes::{Home, home, in_frame, is_discarded};
use super::{Emitter, fp, int};
use crate::ir::{Block, Op, Slot, Val};
use mimic_cpu::bus::Width;
use mimic_cpu::riscv::sem::{Bin, Un};

/// General-purpose scratch registers.
pub(super) const SCRATCH: [Reg; 3] = [RAX, RCX, RDX];
/// Number of xmm scratch registers (from 0 on).
pub(super) const XMM_SCRATCH: usize = 4;
/// No value, no operation.
pub(super) const NONE: u32 = u32::MAX;
/// No guest register.
const NO_SLOT: Slot = Slot::MAX;

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loc {
    /// Not made yet, or dead.
    Nowhere,
    Const(u64),
    /// The guest register holds it.
    Slot(Slot),
    /// Scratch register.
    Gpr(Reg),
    /// Scratch xmm register, low half.
    Xmm(Reg),
    /// Word on the host stack.
    Spill(u8),
    /// Computed by its user.
    Deferred,
}

/// What is known of a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    pub(super) loc: Loc,
    /// Guest register in the frame that holds it too, or [`NO_SLOT`].
    backup: Slot,
    deferred: bool,
    pub(super) uses: u32,
    /// The last operation that reads it (itself if none does).
    pub(super) last: u32,
    /// The first operation that reads it.
    user: u32,
    /// Operations with effects before it.
    effects: u32,
}

const FRESH: Value = Value {
    loc: Loc::Nowhere,
    backup: NO_SLOT,
    deferred: false,
    uses: 0,
    last: 0,
    user: NONE,
    effects: 0,
};

/// A value as an instruction's operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Src {
    Reg(Reg),
    Mem(Mem),
    /// Constant that fits a sign-extended 32-bit immediate.
    Imm(i32),
    /// Any other constant.
    Wide(u64),
    Xmm(Reg),
}

/// The allocator's state.
#[derive(Debug, Default)]
pub(super) struct Alloc {
    pub(super) values: Vec<Value>,
    /// Values that guest registers hold, possibly dead ones.
    aliases: Vec<(Slot, u32)>,
    /// The values in the scratch registers (indexed by register).
    owner: [u32; 3],
    locked: [bool; 3],
    xmm_owner: [u32; XMM_SCRATCH],
    xmm_locked: [bool; XMM_SCRATCH],
    /// Words of the host stack in use.
    spills: u64,
    /// Something did not fit: the block must be given up.
    pub(super) failed: bool,
}

const _: () = assert!(SPILLS == 64, "one bit each");

fn stack(word: u8) -> Mem {
    Mem::new(RSP, 8 * i32::from(word))
}

/// Whether `user` folds `op` into its own instructions if it is its only user.
fn folds(ops: &[Op], op: Op, value: Val, user: Op) -> bool {
    let constant = |v: Val| match ops[v.0 as usize] {
        Op::Const(c) => Some(c),
        _ => None,
    };
    match (op, user) {
        (Op::Bin(Bin::Slt | Bin::Sltu | Bin::Eq | Bin::And, ..), Op::Branch(..)) => true,
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

/// Whether a constant fits a sign-extended 32-bit immediate.
pub(super) fn fits(value: u64) -> bool {
    i32::try_from(value as i64).is_ok()
}

impl Value {
    /// Whether it is left to its user to compute.
    pub(super) fn is_deferred(&self) -> bool {
        self.deferred
    }
}

impl Alloc {
    /// Prepares for a block: counts uses, finds last uses and what is deferred.
    pub(super) fn start(&mut self, block: &Block) {
        let ops = &block.ops;
        self.values.clear();
        self.aliases.clear();
        self.owner = [NONE; 3];
        self.xmm_owner = [NONE; XMM_SCRATCH];
        self.spills = 0;
        self.failed = false;
        self.unlock();
        let mut effects = 0;
        for (i, op) in ops.iter().enumerate() {
            self.values.push(Value { last: i as u32, effects, ..FRESH });
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

    pub(super) fn value(&self, v: Val) -> &Value {
        &self.values[v.0 as usize]
    }

    /// Whether the value will be computed by its user.
    pub(super) fn is_deferred(&self, v: Val) -> bool {
        self.value(v).deferred
    }

    /// The operation that alone reads the value.
    pub(super) fn only_user(&self, v: u32) -> Option<u32> {
        let value = &self.values[v as usize];
        (value.uses == 1).then_some(value.user)
    }

    /// What a deferred extension or mask is of; the value itself if it is none.
    pub(super) fn inner(&self, ops: &[Op], v: Val) -> Val {
        match ops[v.0 as usize] {
            Op::Un(_, of) | Op::Bin(Bin::And, of, _) if self.is_deferred(v) => of,
            _ => v,
        }
    }

    /// Lets every register be taken again.
    pub(super) fn unlock(&mut self) {
        self.locked = [false; 3];
        self.xmm_locked = [false; XMM_SCRATCH];
    }

    /// Frees what holds values that nobody reads after operation `i`.
    pub(super) fn end_op(&mut self, i: u32) {
        self.unlock();
        for r in 0..3 {
            let owner = self.owner[r];
            if owner != NONE && self.values[owner as usize].last <= i {
                self.owner[r] = NONE;
            }
        }
        for r in 0..XMM_SCRATCH {
            let owner = self.xmm_owner[r];
            if owner != NONE && self.values[owner as usize].last <= i {
                self.xmm_owner[r] = NONE;
            }
        }
    }

    /// Whether every value that is read after operation `i` is where it is said to be.
    #[cfg(debug_assertions)]
    pub(super) fn check(&self, i: u32) {
        let mut words = 0u64;
        for (v, value) in self.values.iter().enumerate().filter(|(_, value)| value.last > i) {
            let v = v as u32;
            match value.loc {
                Loc::Nowhere | Loc::Const(_) | Loc::Deferred => {}
                Loc::Gpr(r) => assert_eq!(self.owner[r as usize], v),
                Loc::Xmm(r) => assert_eq!(self.xmm_owner[r as usize], v),
                Loc::Slot(slot) => assert!(self.aliases.contains(&(slot, v))),
                Loc::Spill(word) => {
                    assert_eq!(words >> word & 1, 0, "two values in one word");
                    assert_eq!(self.spills >> word & 1, 1);
                    words |= 1 << word;
                }
            }
            if value.backup != NO_SLOT {
                assert!(self.aliases.contains(&(value.backup, v)));
            }
        }
    }

    /// Frees the stack word of a value if operation `i` is its last reader.
    pub(super) fn release_spill(&mut self, v: Val, i: u32) {
        let value = &mut self.values[v.0 as usize];
        if let Loc::Spill(word) = value.loc
            && value.last <= i
        {
            self.spills &= !(1 << word);
            value.loc = Loc::Nowhere;
        }
    }

    fn take_spill(&mut self) -> u8 {
        let word = self.spills.trailing_ones() as u8;
        if word as usize >= SPILLS {
            self.failed = true;
            return 0;
        }
        self.spills |= 1 << word;
        word
    }

    /// Whether a scratch register holds nothing that is read after operation `i`.
    fn is_free_after(&self, r: Reg, i: u32) -> bool {
        let owner = self.owner[r as usize];
        owner == NONE || self.values[owner as usize].last <= i
    }
}

/// Whether `r` is a general-purpose scratch register.
pub(super) const fn is_scratch(r: Reg) -> bool {
    r <= RDX
}

impl Emitter {
    /// Records where the value of operation `v` is.
    pub(super) fn set_loc(&mut self, v: u32, loc: Loc) {
        self.alloc.values[v as usize].loc = loc;
    }

    /// Whether a scratch register holds the value.
    pub(super) fn is_in(&self, v: Val, r: Reg) -> bool {
        self.alloc.value(v).loc == Loc::Gpr(r)
    }

    /// Records that a guest register holds the value (as its only place).
    pub(super) fn set_alias(&mut self, v: u32, slot: Slot) {
        self.set_loc(v, Loc::Slot(slot));
        self.alloc.aliases.push((slot, v));
    }

    /// Records that a value has been computed into a scratch register.
    pub(super) fn set_gpr(&mut self, v: u32, r: Reg) {
        self.alloc.owner[r as usize] = v;
        self.set_loc(v, Loc::Gpr(r));
    }

    /// Records that a value has been computed into a scratch xmm register.
    pub(super) fn set_xmm(&mut self, v: u32, r: Reg) {
        self.alloc.xmm_owner[r as usize] = v;
        self.set_loc(v, Loc::Xmm(r));
    }

    /// Moves the value out of a scratch register, if that holds one. Touches no flags; the register
    /// keeps its contents.
    pub(super) fn evict(&mut self, r: Reg) {
        let owner = std::mem::replace(&mut self.alloc.owner[r as usize], NONE);
        if owner == NONE {
            return;
        }
        let value = self.alloc.values[owner as usize];
        if value.backup != NO_SLOT {
            return self.set_loc(owner, Loc::Slot(value.backup));
        }
        let word = self.alloc.take_spill();
        self.code.store(Width::Double, stack(word), r);
        self.set_loc(owner, Loc::Spill(word));
    }

    /// The same for an xmm register.
    pub(super) fn evict_xmm(&mut self, r: Reg) {
        let owner = std::mem::replace(&mut self.alloc.xmm_owner[r as usize], NONE);
        if owner == NONE {
            return;
        }
        let value = self.alloc.values[owner as usize];
        if value.backup != NO_SLOT {
            return self.set_loc(owner, Loc::Slot(value.backup));
        }
        let word = self.alloc.take_spill();
        self.code.movq_from_xmm(Rm::Mem(stack(word)), r);
        self.set_loc(owner, Loc::Spill(word));
    }

    /// Moves what is read after operation `i` out of a scratch register, and forgets the rest.
    pub(super) fn clear(&mut self, r: Reg, i: u32) {
        if self.alloc.is_free_after(r, i) {
            self.alloc.owner[r as usize] = NONE;
        } else {
            self.evict(r);
        }
    }

    /// Takes a scratch register, evicting the value that is read last if all hold one. Touches no flags.
    pub(super) fn take(&mut self) -> Reg {
        let mut best = (NONE, 0);
        for r in SCRATCH {
            if self.alloc.locked[r as usize] {
                continue;
            }
            let owner = self.alloc.owner[r as usize];
            if owner == NONE {
                self.alloc.locked[r as usize] = true;
                return r;
            }
            let last = self.alloc.values[owner as usize].last;
            if best.0 == NONE || last > best.1 {
                best = (u32::from(r), last);
            }
        }
        if best.0 == NONE {
            self.alloc.failed = true;
            return RAX;
        }
        let r = best.0 as Reg;
        self.evict(r);
        self.alloc.locked[r as usize] = true;
        r
    }

    /// Takes a scratch xmm register.
    pub(super) fn take_xmm(&mut self) -> Reg {
        let mut best = (NONE, 0);
        for r in 0..XMM_SCRATCH as Reg {
            if self.alloc.xmm_locked[r as usize] {
                continue;
            }
            let owner = self.alloc.xmm_owner[r as usize];
            if owner == NONE {
                self.alloc.xmm_locked[r as usize] = true;
                return r;
            }
            let last = self.alloc.values[owner as usize].last;
            if best.0 == NONE || last > best.1 {
                best = (u32::from(r), last);
            }
        }
        if best.0 == NONE {
            self.alloc.failed = true;
            return 0;
        }
        let r = best.0 as Reg;
        self.evict_xmm(r);
        self.alloc.xmm_locked[r as usize] = true;
        r
    }

    /// A value as an operand. Locks the register it is in. A deferred value is computed now.
    pub(super) fn src(&mut self, v: Val) -> Src {
        if self.alloc.value(v).loc == Loc::Deferred {
            self.alloc.values[v.0 as usize].deferred = false;
            let target = self.target.take();
            let locked = (self.alloc.locked, self.alloc.xmm_locked);
            self.compute(v.0);
            (self.alloc.locked, self.alloc.xmm_locked) = locked;
            self.target = target;
        }
        match self.alloc.value(v).loc {
            Loc::Const(c) if fits(c) => Src::Imm(c as i32),
            Loc::Const(c) => Src::Wide(c),
            Loc::Slot(slot) => match home(slot) {
                Home::Gpr(r) => Src::Reg(r),
                Home::Xmm(r) => Src::Xmm(r),
                Home::Frame => Src::Mem(in_frame(slot)),
            },
            Loc::Gpr(r) => {
                self.alloc.locked[r as usize] = true;
                Src::Reg(r)
            }
            Loc::Xmm(r) => {
                self.alloc.xmm_locked[r as usize] = true;
                Src::Xmm(r)
            }
            Loc::Spill(word) => Src::Mem(stack(word)),
            Loc::Nowhere | Loc::Deferred => {
                self.alloc.failed = true;
                Src::Imm(0)
            }
        }
    }

    /// Copies an operand into a register without touching the flags.
    pub(super) fn copy_keeping_flags(&mut self, dst: Reg, src: Src) {
        match src {
            Src::Reg(r) if r == dst => {}
            Src::Reg(r) => self.code.mov(Size::Q, dst, Rm::Reg(r)),
            Src::Mem(mem) => self.code.mov(Size::Q, dst, Rm::Mem(mem)),
            Src::Imm(imm) => self.code.mov_imm_keeping_flags(dst, imm as u64),
            Src::Wide(value) => self.code.mov_imm_keeping_flags(dst, value),
            Src::Xmm(r) => self.code.movq_from_xmm(Rm::Reg(dst), r),
        }
    }

    /// Copies an operand into a register.
    pub(super) fn copy(&mut self, dst: Reg, src: Src) {
        if src == Src::Imm(0) {
            self.code.mov_imm(dst, 0);
        } else {
            self.copy_keeping_flags(dst, src);
        }
    }

    /// An operand in a register; a scratch register is taken if it is not in one. Touches no flags.
    pub(super) fn reg_of(&mut self, src: Src) -> Reg {
        if let Src::Reg(r) = src {
            return r;
        }
        let r = self.take();
        self.copy_keeping_flags(r, src);
        r
    }

    /// A value in a register.
    pub(super) fn gpr(&mut self, v: Val) -> Reg {
        let src = self.src(v);
        self.reg_of(src)
    }

    /// An operand in a register or memory. Touches no flags.
    pub(super) fn rm_of(&mut self, src: Src) -> Rm {
        match src {
            Src::Mem(mem) => Rm::Mem(mem),
            _ => Rm::Reg(self.reg_of(src)),
        }
    }

    /// A value in a register or memory.
    pub(super) fn rm(&mut self, v: Val) -> Rm {
        let src = self.src(v);
        self.rm_of(src)
    }

    /// A value in an xmm register, low half: its home, or a scratch register.
    pub(super) fn xmm(&mut self, v: Val) -> Reg {
        match self.src(v) {
            Src::Xmm(r) => r,
            Src::Mem(mem) => {
                let r = self.take_xmm();
                self.code.movq_to_xmm(r, Rm::Mem(mem));
                r
            }
            src => {
                let from = self.reg_of(src);
                let r = self.take_xmm();
                self.code.movq_to_xmm(r, Rm::Reg(from));
                r
            }
        }
    }

    /// Where operation `i` shall put its result: the home of the guest register that it is for, or a scratch
    /// register.
    pub(super) fn dst(&mut self) -> Reg {
        match self.target {
            Some((_, r)) => r,
            None => self.take(),
        }
    }

    /// The same, preferably the register of an operand that is not needed any more.
    pub(super) fn dst_over(&mut self, i: u32, operand: Src) -> Reg {
        match (self.target, operand) {
            (None, Src::Reg(r)) if is_scratch(r) && self.alloc.is_free_after(r, i) => r,
            _ => self.dst(),
        }
    }

    /// The same, with two candidates.
    pub(super) fn dst_over_either(&mut self, i: u32, a: Src, b: Src) -> Reg {
        match a {
            Src::Reg(r) if is_scratch(r) && self.alloc.is_free_after(r, i) => self.dst_over(i, a),
            _ => self.dst_over(i, b),
        }
    }

    /// Two operands, after what scratch registers hold and is read after operation `i` went elsewhere: all
    /// scratch registers can be written, but until then still hold the operands that they held.
    pub(super) fn own_scratch(&mut self, i: u32, a: Val, b: Val) -> (Src, Src) {
        let operands = (self.src(a), self.src(b));
        for r in SCRATCH {
            self.clear(r, i);
            self.alloc.locked[r as usize] = true;
        }
        operands
    }

    /// Operation `i` has put its result into `r`, which [`dst`](Self::dst) gave.
    pub(super) fn define(&mut self, i: u32, r: Reg) {
        match self.target.take() {
            Some((slot, _)) => {
                self.set_alias(i, slot);
                self.next += 1;
            }
            None => self.set_gpr(i, r),
        }
    }

    /// If the operation after the one that makes value `v` moves it to a guest register with a
    /// general-purpose home, that becomes the target of the computation.
    pub(super) fn aim(&mut self, v: u32, i: u32) {
        self.target = None;
        if let Some(&Op::Set(slot, value)) = self.ops.get(v as usize + 1)
            && value.0 == v
            && !is_discarded(slot)
            && let Home::Gpr(r) = home(slot)
        {
            self.free_slot(slot, i);
            self.target = Some((slot, r));
        }
    }

    /// A guest register is about to change: values that it holds and that are read after operation `i` are copied.
    /// Touches no flags.
    pub(super) fn free_slot(&mut self, slot: Slot, i: u32) {
        let mut k = 0;
        while k < self.alloc.aliases.len() {
            let (aliased, v) = self.alloc.aliases[k];
            let value = self.alloc.values[v as usize];
            if aliased != slot && value.last > i {
                k += 1;
                continue;
            }
            self.alloc.aliases.swap_remove(k);
            if aliased != slot {
                continue;
            }
            if value.backup == slot {
                self.alloc.values[v as usize].backup = NO_SLOT;
            }
            if value.last > i && value.loc == Loc::Slot(slot) {
                self.copy_out(v, slot);
            }
        }
    }

    /// Copies the value that a guest register holds to a place of its own.
    fn copy_out(&mut self, v: u32, slot: Slot) {
        if let Home::Xmm(from) = home(slot) {
            let r = self.take_xmm();
            self.alloc.xmm_locked[r as usize] = false;
            self.code.movq_xmm(r, from);
            self.set_xmm(v, r);
        } else {
            let r = self.take();
            self.alloc.locked[r as usize] = false;
            self.copy_keeping_flags(r, self.slot_src(slot));
            self.set_gpr(v, r);
        }
    }

    fn slot_src(&self, slot: Slot) -> Src {
        match home(slot) {
            Home::Gpr(r) => Src::Reg(r),
            Home::Xmm(r) => Src::Xmm(r),
            Home::Frame => Src::Mem(in_frame(slot)),
        }
    }

    /// Everything is about to change: all values that are read after operation `i` go to the stack.
    pub(super) fn save_values(&mut self, i: u32) {
        for r in SCRATCH {
            self.clear(r, i);
        }
        while let Some((slot, v)) = self.alloc.aliases.pop() {
            let value = self.alloc.values[v as usize];
            self.alloc.values[v as usize].backup = NO_SLOT;
            if value.last <= i || value.loc != Loc::Slot(slot) {
                continue;
            }
            self.copy_out(v, slot);
            for r in SCRATCH {
                self.evict(r);
            }
        }
        for r in 0..XMM_SCRATCH as Reg {
            let owner = self.alloc.xmm_owner[r as usize];
            if owner != NONE && self.alloc.values[owner as usize].last <= i {
                self.alloc.xmm_owner[r as usize] = NONE;
            } else {
                self.evict_xmm(r);
            }
        }
    }

    /// [`Op::Set`].
    pub(super) fn set(&mut self, i: u32, slot: Slot, v: Val) {
        if is_discarded(slot) || self.alloc.value(v).loc == Loc::Slot(slot) {
            return;
        }
        self.free_slot(slot, i);
        if let (Op::Pc(offset), Home::Gpr(r)) = (self.ops[v.0 as usize], home(slot))
            && self.alloc.is_deferred(v)
        {
            return int::page_plus(self, r, offset);
        }
        let src = self.src(v);
        match home(slot) {
            Home::Gpr(r) => self.copy(r, src),
            Home::Xmm(r) => match src {
                Src::Xmm(from) => self.code.movq_xmm(r, from),
                Src::Mem(mem) => self.code.movq_to_xmm(r, Rm::Mem(mem)),
                _ => {
                    let from = self.reg_of(src);
                    self.code.movq_to_xmm(r, Rm::Reg(from));
                }
            },
            Home::Frame => match src {
                Src::Imm(imm) => self.code.store_imm(Width::Double, in_frame(slot), imm),
                Src::Xmm(from) => self.code.movq_from_xmm(Rm::Mem(in_frame(slot)), from),
                _ => {
                    let from = self.reg_of(src);
                    self.code.store(Width::Double, in_frame(slot), from);
                }
            },
        }
        if self.alloc.value(v).last <= i {
            return;
        }
        // What is read later is read from its register if that is a host register, else from where it was.
        match (self.alloc.value(v).loc, home(slot)) {
            (Loc::Gpr(_) | Loc::Xmm(_), Home::Frame) => {
                self.alloc.values[v.0 as usize].backup = slot;
                self.alloc.aliases.push((slot, v.0));
            }
            (Loc::Gpr(r), Home::Gpr(_)) => {
                self.alloc.owner[r as usize] = NONE;
                self.set_alias(v.0, slot);
            }
            (Loc::Xmm(r), Home::Xmm(_)) => {
                self.alloc.xmm_owner[r as usize] = NONE;
                self.set_alias(v.0, slot);
            }
            (Loc::Spill(word), _) => {
                self.alloc.spills &= !(1 << word);
                self.set_alias(v.0, slot);
            }
            _ => {}
        }
    }

    /// Computes the value of a pure operation (or a floating-point one) into `target` or a scratch register.
    pub(super) fn compute(&mut self, i: u32) {
        match self.ops[i as usize] {
            Op::Bin(op, a, b) => int::bin(self, i, op, a, b),
            Op::Un(op, a) => int::un(self, i, op, a),
            Op::Select(cond, a, b) => int::select(self, i, cond, a, b),
            Op::Pc(offset) => int::pc(self, i, offset),
            op => fp::compute(self, i, op),
        }
    }
}
