//! Groups of memory accesses that are checked together.
//!
//! Accesses relative to the same address (fields of a structure, a function's frame) share one look-up of the TLB: the
//! first of them, the leader, checks that the bytes from the lowest to the highest of the whole group lie in one page
//! that allows what the group does. What it found, the addend, is a value like others until the last member has used it.
//!
//! It stays right that long because translated code is left before anything that it relies on is taken back: requests of
//! others are followed between blocks, and a call out that drops a translation or a right does not come back. Instructions
//! that are performed by a call out may select other translations, and atomic ones come back: no group extends beyond one.
//!
//! A leader whose check fails does its own access by a call out. If the group still does not fit, the block is left for
//! the one that begins at the next instruction; so a leader is an access after which nothing of its instruction is left to
//! do.

use mimic_cpu::bus::{PAGE_SIZE, Width};
use mimic_cpu::riscv::sem::{Bin, Un};

use super::alloc::Value;
use crate::ir::{Block, Op, Slot, Val};

/// Registers whose contents are followed: the x registers.
const FOLLOWED: usize = 32;
/// Names of what registers hold at the beginning start here; those of values are their positions.
const FIRST_UNKNOWN: u32 = 1 << 31;
/// The name of the page's address.
const PAGE: u32 = u32::MAX;
/// Most accesses whose groups may still grow.
const MAX_OPEN: usize = 8;

/// No group.
pub(super) const NO_GROUP: u16 = u16::MAX;

/// Accesses that are checked together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// The first access.
    pub(super) leader: u32,
    /// The last one.
    pub(super) last: u32,
    /// Bytes from the lowest of the group to the leader's address.
    pub(super) below: i32,
    /// Bytes from the lowest to the highest.
    pub(super) len: i32,
    /// A member stores.
    pub(super) writes: bool,
    base: Place,
    members: u32,
    /// Branches before the leader.
    branches: u32,
}

/// An address or other value: a named one plus a constant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    name: u32,
    offset: i32,
}

/// Finds groups; keeps its buffers from one block to the next.
#[derive(Debug, Default)]
pub(super) struct Grouping {
    pub(super) groups: Vec<Group>,
    places: Vec<Place>,
    open: Vec<u16>,
    /// There shall be none.
    pub(super) is_off: bool,
}

/// Whether an extension is done by the load of `width` itself; if so, whether it repeats the sign.
pub(super) fn extends_load(extension: Un, width: Width) -> Option<bool> {
    match (extension, width) {
        (Un::SextB, Width::Byte) | (Un::SextH, Width::Half) | (Un::SextW, Width::Word) => {
            Some(true)
        }
        (Un::ZextB, Width::Byte)
        | (Un::ZextH, Width::Byte | Width::Half)
        | (Un::ZextW, Width::Byte | Width::Half | Width::Word) => Some(false),
        _ => None,
    }
}

/// Whether nothing is left of an instruction after its access, the first of `ops`, but to put what was loaded into a
/// register.
fn ends_instruction(ops: &[Op], at: u32, uses: u32) -> bool {
    match *ops {
        [Op::Store { .. }] => true,
        [Op::Load { .. }, Op::Set(_, Val(of))] => of == at,
        [Op::Load { .. }, Op::FpDirty, Op::Set(_, Val(of))] => of == at,
        [Op::Load { width: Width::Word, .. }, Op::Box(Val(loaded)), Op::Set(_, Val(of))]
        | [
            Op::Load { width: Width::Word, .. },
            Op::Box(Val(loaded)),
            Op::FpDirty,
            Op::Set(_, Val(of)),
        ] => loaded == at && of == at + 1 && uses == 1,
        [Op::Load { width, .. }, Op::Un(extension, Val(loaded)), Op::Set(_, Val(of))] => {
            let fused = uses == 1 && extends_load(extension, width).is_some();
            loaded == at && of == at + 1 && fused
        }
        _ => false,
    }
}

impl Grouping {
    /// Finds a block's groups and marks their members.
    pub(super) fn plan(&mut self, block: &Block, values: &mut [Value]) {
        self.groups.clear();
        self.open.clear();
        self.places.clear();
        let accesses = |op: &&Op| matches!(op, Op::Load { .. } | Op::Store { .. });
        if self.is_off || block.ops.iter().filter(accesses).count() < 2 {
            return;
        }
        let mut registers = [Place::default(); FOLLOWED];
        for (name, register) in (FIRST_UNKNOWN..).zip(&mut registers) {
            *register = Place { name, offset: 0 };
        }
        let (mut insn, mut branches) = (0, 0);
        for (i, op) in (0..).zip(&block.ops) {
            while block.insns.get(insn + 1).is_some_and(|next| next.first <= i) {
                insn += 1;
            }
            let place = self.place(i, op, block, &registers);
            self.places.push(place);
            match *op {
                Op::Set(slot, v) => {
                    if let Some(register) = registers.get_mut(usize::from(slot)) {
                        *register = self.places[v.0 as usize];
                    }
                }
                Op::Perform | Op::Atomic { .. } => self.open.clear(),
                Op::Branch(..) => branches += 1,
                Op::Load { addr, width } | Op::Store { addr, width, .. } => {
                    let base = self.places[addr.0 as usize];
                    let stores = matches!(op, Op::Store { .. });
                    let joined = self.join(i, base, width, stores, branches).or_else(|| {
                        let next = block.insns.get(insn + 1)?;
                        let uses = values[i as usize].uses;
                        ends_instruction(&block.ops[i as usize..next.first as usize], i, uses)
                            .then(|| self.open(i, base, width, stores, branches))
                    });
                    values[i as usize].group = joined.unwrap_or(NO_GROUP);
                }
                _ => {}
            }
        }
        for group in self.groups.iter().filter(|group| group.members == 1) {
            values[group.leader as usize].group = NO_GROUP;
        }
    }

    /// What is known of an operation's value.
    fn place(&self, i: u32, op: &Op, block: &Block, registers: &[Place; FOLLOWED]) -> Place {
        let itself = Place { name: i, offset: 0 };
        match *op {
            Op::Get(slot) => self.register(slot, registers).unwrap_or(itself),
            Op::Pc(offset) => match i32::try_from(offset) {
                Ok(offset) => Place { name: PAGE, offset },
                Err(_) => itself,
            },
            Op::Bin(Bin::Add, a, b) => {
                let Op::Const(c) = block.ops[b.0 as usize] else { return itself };
                let Place { name, offset } = self.places[a.0 as usize];
                match i64::from(offset).checked_add(c as i64).map(i32::try_from) {
                    Some(Ok(offset)) => Place { name, offset },
                    _ => itself,
                }
            }
            _ => itself,
        }
    }

    fn register(&self, slot: Slot, registers: &[Place; FOLLOWED]) -> Option<Place> {
        registers.get(usize::from(slot)).copied()
    }

    /// The group that an access has become a member of.
    fn join(
        &mut self,
        i: u32,
        base: Place,
        width: Width,
        stores: bool,
        branches: u32,
    ) -> Option<u16> {
        let at =
            self.open.iter().position(|&id| self.groups[usize::from(id)].base.name == base.name)?;
        let id = self.open[at];
        let group = &mut self.groups[usize::from(id)];
        // Relative to the lowest byte so far.
        let offset = i64::from(base.offset) - i64::from(group.base.offset) + i64::from(group.below);
        let down = (-offset).max(0);
        let len = (offset + width.bytes() as i64).max(i64::from(group.len)) + down;
        // A store behind a branch may never be reached: it is no reason to ask for more than loads need.
        let asks_too_much = stores && !group.writes && group.branches != branches;
        if len > PAGE_SIZE as i64 / 2 || asks_too_much {
            self.open.swap_remove(at);
            return None;
        }
        group.below += down as i32;
        group.len = len as i32;
        group.writes |= stores;
        group.members += 1;
        group.last = i;
        Some(id)
    }

    /// Begins a group.
    fn open(&mut self, i: u32, base: Place, width: Width, writes: bool, branches: u32) -> u16 {
        let id = self.groups.len() as u16;
        self.groups.push(Group {
            leader: i,
            last: i,
            below: 0,
            len: width.bytes() as i32,
            writes,
            base,
            members: 1,
            branches,
        });
        if self.open.len() == MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push(id);
        id
    }
}
