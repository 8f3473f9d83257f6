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
use super::groups::{Grouping, NO_GROUP};
use super::homes::{Home, in_frame, is_discarded};
use super::{Emitter, cond, csr, fp, fp_bits, int};
use crate::ir::{Block, Op, Slot, Val};
use mimic_cpu::bus::Width;
use mimic_cpu::riscv::sem::Bin;

/// General-purpose scratch registers.
pub(super) const SCRATCH: [Reg; 3] = [RAX, RCX, RDX];
/// Number of xmm scratch registers (from 0 on).
pub(super) const XMM_SCRATCH: usize = 4;
/// No value, no operation.
pub(super) const NONE: u32 = u32::MAX;
/// No guest register.
const NO_SLOT: Slot = Slot::MAX;
/// No word on the host stack.
const NO_WORD: u8 = u8::MAX;

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
    /// Scratch xmm register that holds, above the single that the value is, ones instead of zeros.
    Single(Reg),
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
    pub(super) backup: Slot,
    /// Word on the host stack that holds it too, or [`NO_WORD`].
    pub(super) word: u8,
    /// The group of accesses that it belongs to.
    pub(super) group: u16,
    pub(super) deferred: bool,
    /// Its upper half is all ones.
    pub(super) boxed: bool,
    pub(super) uses: u32,
    /// The last operation that reads it (itself if none does).
    pub(super) last: u32,
    /// The first operation that reads it.
    pub(super) user: u32,
    /// Operations with effects before it.
    pub(super) effects: u32,
}

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
    /// The low half of the register, zero-extended; there, ones are above it.
    Single(Reg),
}

/// The allocator's state.
#[derive(Debug, Default)]
pub(super) struct Alloc {
    /// Those of operations, then the addends of groups of accesses.
    pub(super) values: Vec<Value>,
    pub(super) grouping: Grouping,
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

/// Chooses among scratch registers that are not locked, and locks it: one that holds nothing, or else the one
/// whose value is read last.
fn choose<const N: usize>(
    values: &[Value],
    owner: &[u32; N],
    locked: &mut [bool; N],
) -> Option<Reg> {
    let until = |r: &usize| match owner[*r] {
        NONE => NONE,
        owner => values[owner as usize].last,
    };
    let r = (0..N).filter(|&r| !locked[r]).rev().max_by_key(until)?;
    locked[r] = true;
    Some(r as Reg)
}

/// Whether a constant fits a sign-extended 32-bit immediate.
pub(super) fn fits(value: u64) -> bool {
    i32::try_from(value as i64).is_ok()
}

impl Value {
    pub(super) const FRESH: Value = Value {
        loc: Loc::Nowhere,
        backup: NO_SLOT,
        word: NO_WORD,
        group: NO_GROUP,
        deferred: false,
        boxed: false,
        uses: 0,
        last: 0,
        user: NONE,
        effects: 0,
    };

    /// Whether it is left to its user to compute.
    pub(super) fn is_deferred(&self) -> bool {
        self.deferred
    }
}

impl Alloc {
    /// Prepares for a block.
    pub(super) fn start(&mut self, block: &Block) {
        self.aliases.clear();
        self.owner = [NONE; 3];
        self.xmm_owner = [NONE; XMM_SCRATCH];
        self.spills = 0;
        self.failed = false;
        self.unlock();
        self.plan(block);
        self.grouping.plan(block, &mut self.values);
        let addends = self.grouping.groups.iter();
        self.values.extend(addends.map(|group| Value { last: group.last, ..Value::FRESH }));
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

    /// Keeps a scratch register from being taken.
    pub(super) fn lock(&mut self, r: Reg) {
        self.locked[r as usize] = true;
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
                Loc::Xmm(r) | Loc::Single(r) => assert_eq!(self.xmm_owner[r as usize], v),
                Loc::Slot(slot) => assert!(self.aliases.contains(&(slot, v))),
                Loc::Spill(word) => {
                    assert_eq!(words >> word & 1, 0, "two values in one word");
                    assert_eq!(self.spills >> word & 1, 1);
                    words |= 1 << word;
                }
            }
            if value.word != NO_WORD && !matches!(value.loc, Loc::Spill(_)) {
                assert_eq!(words >> value.word & 1, 0, "two values in one word");
                assert_eq!(self.spills >> value.word & 1, 1);
                words |= 1 << value.word;
            }
            if value.backup != NO_SLOT {
                assert!(self.aliases.contains(&(value.backup, v)));
            }
        }
    }

    /// Frees the stack word of a value if operation `i` is its last reader.
    pub(super) fn release_spill(&mut self, v: Val, i: u32) {
        let value = &mut self.values[v.0 as usize];
        if value.last > i {
            return;
        }
        if let Loc::Spill(word) = value.loc {
            self.spills &= !(1 << word);
            value.loc = Loc::Nowhere;
        } else if value.word != NO_WORD {
            self.spills &= !(1 << value.word);
        }
        value.word = NO_WORD;
    }

    /// The same for a scratch xmm register.
    pub(super) fn is_xmm_free_after(&self, r: Reg, i: u32) -> bool {
        let owner = self.xmm_owner[r as usize];
        owner == NONE || self.values[owner as usize].last <= i
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
    pub(super) fn is_free_after(&self, r: Reg, i: u32) -> bool {
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

    /// The same for a single that has ones above it there.
    pub(super) fn set_single(&mut self, v: u32, r: Reg) {
        self.alloc.xmm_owner[r as usize] = v;
        self.set_loc(v, Loc::Single(r));
    }

    /// Gives a value (or [`NONE`]) that loses its register another place. If that does not hold it yet: where it was,
    /// and the word on the host stack to store it to.
    fn displace(&mut self, v: u32) -> Option<(Loc, Mem)> {
        if v == NONE {
            return None;
        }
        let value = self.alloc.values[v as usize];
        if value.backup != NO_SLOT {
            self.set_loc(v, Loc::Slot(value.backup));
            return None;
        }
        if value.word != NO_WORD {
            self.set_loc(v, Loc::Spill(value.word));
            return None;
        }
        let word = self.alloc.take_spill();
        self.set_loc(v, Loc::Spill(word));
        Some((value.loc, stack(word)))
    }

    /// Moves the value out of a scratch register, if that holds one. Touches no flags; the register
    /// keeps its contents.
    pub(super) fn evict(&mut self, r: Reg) {
        let owner = std::mem::replace(&mut self.alloc.owner[r as usize], NONE);
        if let Some((_, word)) = self.displace(owner) {
            self.code.store(Width::Double, word, r);
        }
    }

    /// The addend of a group of accesses, in a scratch register, which is locked.
    pub(super) fn addend(&mut self, v: u32) -> Reg {
        match self.alloc.values[v as usize].loc {
            Loc::Gpr(r) => {
                self.alloc.lock(r);
                r
            }
            Loc::Spill(word) => {
                let r = self.take();
                self.code.mov(Size::Q, r, Rm::Mem(stack(word)));
                self.alloc.values[v as usize].word = word;
                self.set_gpr(v, r);
                r
            }
            _ => {
                self.alloc.failed = true;
                RAX
            }
        }
    }

    /// The same for an xmm register.
    pub(super) fn evict_xmm(&mut self, r: Reg) {
        let owner = std::mem::replace(&mut self.alloc.xmm_owner[r as usize], NONE);
        match self.displace(owner) {
            None => {}
            Some((Loc::Single(_), word)) => {
                self.code.movd_from_xmm(Rm::Mem(word), r);
                self.code.store_imm(Width::Word, word.plus(4), 0);
            }
            Some((_, word)) => self.code.movq_from_xmm(Rm::Mem(word), r),
        }
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
        let Alloc { values, owner, locked, .. } = &mut self.alloc;
        let Some(r) = choose(values, owner, locked) else {
            self.alloc.failed = true;
            return RAX;
        };
        self.evict(r);
        r
    }

    /// Takes a scratch xmm register.
    pub(super) fn take_xmm(&mut self) -> Reg {
        let Alloc { values, xmm_owner, xmm_locked, .. } = &mut self.alloc;
        let Some(r) = choose(values, xmm_owner, xmm_locked) else {
            self.alloc.failed = true;
            return 0;
        };
        self.evict_xmm(r);
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
            Loc::Slot(slot) => match self.homes.of(slot) {
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
            Loc::Single(r) => {
                self.alloc.xmm_locked[r as usize] = true;
                Src::Single(r)
            }
            Loc::Spill(word) => Src::Mem(stack(word)),
            Loc::Nowhere | Loc::Deferred => {
                self.alloc.failed = true;
                Src::Imm(0)
            }
        }
    }

    /// If the operation after the one that makes value `v` moves it to a guest register with a
    /// general-purpose home, that becomes the target of the computation.
    pub(super) fn aim(&mut self, v: u32, i: u32) {
        self.target = None;
        if let Some(&Op::Set(slot, value)) = self.ops.get(v as usize + 1)
            && value.0 == v
            && !is_discarded(slot)
            && let Home::Gpr(r) = self.homes.of(slot)
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
        if let Home::Xmm(from) = self.homes.of(slot) {
            let r = self.take_xmm();
            self.alloc.xmm_locked[r as usize] = false;
            self.code.mov_xmm(r, from);
            self.set_xmm(v, r);
        } else {
            let r = self.take();
            self.alloc.locked[r as usize] = false;
            self.copy_keeping_flags(r, self.slot_src(slot));
            self.set_gpr(v, r);
        }
    }

    fn slot_src(&self, slot: Slot) -> Src {
        match self.homes.of(slot) {
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
        if let (Op::Pc(offset), Home::Gpr(r)) = (self.ops[v.0 as usize], self.homes.of(slot))
            && self.alloc.is_deferred(v)
        {
            return int::page_plus(self, r, offset);
        }
        let src = self.src(v);
        match self.homes.of(slot) {
            Home::Gpr(r) => self.copy(r, src),
            Home::Xmm(r) => match src {
                Src::Xmm(from) => self.code.mov_xmm(r, from),
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
        match (self.alloc.value(v).loc, self.homes.of(slot)) {
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
        let op = self.ops[i as usize];
        match op {
            Op::Bin(op, a, b) if fp_bits::logic(self, i, op, a, b) => {}
            Op::Bin(op, a, b) => int::bin(self, i, op, a, b),
            Op::Un(op, a) => int::un(self, i, op, a),
            Op::Select(cond, a, b) => cond::select(self, i, cond, a, b),
            Op::Pc(offset) => int::pc(self, i, offset),
            Op::Word(word) => csr::read(self, i, word),
            op => fp::compute(self, i, op),
        }
    }
}
