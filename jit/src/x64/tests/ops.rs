//! Every operation on every kind of operand.

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::insn::At;
use mimic_cpu::riscv::sem::{Amo, Atomic, Bin, Un};

use super::machine::{MEMORY, Machine, PAGE_VA};
use super::{EDGES, Random, reference};
use crate::ir::eval::Memory;
use crate::ir::{Block, Insn, Op, Slot, Val};
use crate::x64::{Exit, Place, supports};

/// A block of one instruction that goes on at offset 0x104.
pub(super) fn block(ops: &[Op]) -> Block {
    let mut ops = ops.to_vec();
    if !matches!(ops.last(), Some(Op::Jump(_) | Op::Goto(_))) {
        ops.push(Op::Goto(0x104));
    }
    let insns = vec![Insn { at: At::new(0x100, 4), word: 0, first: 0 }];
    Block { start: 0x100, insns, ops }
}

/// Where an operand comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A guest register: homes and frame.
    Slot(Slot),
    Const,
    /// Computed just before, so that it is in a scratch register.
    Scratch,
}

const KINDS: [Kind; 7] = [
    Kind::Slot(10),
    Kind::Slot(2),
    Kind::Slot(5),
    Kind::Slot(20),
    Kind::Slot(74),
    Kind::Const,
    Kind::Scratch,
];

/// Destinations: the operands' own, another with a home, another in the frame, one in an xmm register.
const TO: [Slot; 6] = [10, 2, 5, 20, 11, 70];

struct Maker {
    ops: Vec<Op>,
    regs: [u64; 256],
}

impl Maker {
    fn new(random: &mut Random) -> Self {
        let mut regs = [0; 256];
        for (slot, reg) in regs.iter_mut().enumerate() {
            if matches!(slot, 1..32 | 64..96) {
                *reg = random.next();
            }
        }
        Maker { ops: Vec::new(), regs }
    }

    fn push(&mut self, op: Op) -> Val {
        self.ops.push(op);
        Val(self.ops.len() as u32 - 1)
    }

    fn operand(&mut self, kind: Kind, scratch_slot: Slot, value: u64) -> Val {
        match kind {
            Kind::Slot(slot) => {
                self.regs[slot as usize] = value;
                self.push(Op::Get(slot))
            }
            Kind::Const => self.push(Op::Const(value)),
            Kind::Scratch => {
                self.regs[scratch_slot as usize] = !value;
                let a = self.push(Op::Get(scratch_slot));
                let ones = self.push(Op::Const(u64::MAX));
                self.push(Op::Bin(Bin::Xor, a, ones))
            }
        }
    }
}

/// Runs `op` on operands of all kinds into all kinds of destinations.
fn each_kind(
    machine: &mut Machine,
    random: &mut Random,
    op: impl Fn(Val, Val) -> Op,
    mut values: impl FnMut(&mut Random) -> (u64, u64),
) {
    for ka in KINDS {
        for kb in KINDS {
            for to in TO {
                for used_again in [false, true] {
                    let (x, mut y) = values(random);
                    if ka == kb && matches!(ka, Kind::Slot(_)) {
                        y = x;
                    }
                    let mut maker = Maker::new(random);
                    let a = maker.operand(ka, 6, x);
                    let b = maker.operand(kb, 7, y);
                    let v = maker.push(op(a, b));
                    maker.push(Op::Set(to, v));
                    if used_again {
                        for (slot, v) in [(12, a), (21, b), (71, v)] {
                            maker.push(Op::Set(slot, v));
                        }
                    }
                    machine.compare(&block(&maker.ops), &maker.regs);
                }
            }
        }
    }
}

#[test]
fn two_operand_operations() {
    let (mut machine, mut plain) = (Machine::new(), Machine::plain());
    let mut random = Random(1);
    for &op in Bin::ALL {
        assert!(supports(&Op::Bin(op, Val(0), Val(1))), "{op:?}");
        for round in 0..6 {
            let machine = if round == 0 { &mut plain } else { &mut machine };
            each_kind(machine, &mut random, |a, b| Op::Bin(op, a, b), |r| (r.value(), r.value()));
        }
        for a in EDGES {
            for b in EDGES {
                let mut maker = Maker::new(&mut random);
                let x = maker.operand(Kind::Slot(10), 6, a);
                let y = maker.operand(Kind::Slot(11), 7, b);
                let v = maker.push(Op::Bin(op, x, y));
                maker.push(Op::Set(12, v));
                machine.compare(&block(&maker.ops), &maker.regs);
                let (is, should) = (machine.frame.regs[12], reference::bin(op, a, b));
                assert_eq!(is, should, "{op:?} {a:#x} {b:#x}");
            }
        }
    }
}

#[test]
fn one_operand_operations() {
    let mut machine = Machine::new();
    let mut random = Random(2);
    for &op in Un::ALL {
        assert!(supports(&Op::Un(op, Val(0))), "{op:?}");
        for _ in 0..4 {
            each_kind(&mut machine, &mut random, |a, _| Op::Un(op, a), |r| (r.value(), r.value()));
        }
        for _ in 0..200 {
            let a = random.value();
            let mut maker = Maker::new(&mut random);
            let x = maker.operand(Kind::Slot(10), 6, a);
            let v = maker.push(Op::Un(op, x));
            maker.push(Op::Set(12, v));
            machine.compare(&block(&maker.ops), &maker.regs);
            let (is, should) = (machine.frame.regs[12], reference::un(op, a));
            assert_eq!(is, should, "{op:?} {a:#x}");
        }
    }
}

/// Comparisons by their user: select and branch, straight and negated.
#[test]
fn conditions() {
    let mut machine = Machine::new();
    let mut random = Random(3);
    for compare in [Bin::Eq, Bin::Slt, Bin::Sltu, Bin::And, Bin::Add] {
        for negated in [false, true] {
            for branches in [false, true] {
                for ka in KINDS {
                    for kb in KINDS {
                        for to in TO {
                            let (x, y) = if random.below(3) == 0 {
                                let x = random.value();
                                (x, x)
                            } else {
                                (random.value(), random.value())
                            };
                            let mut maker = Maker::new(&mut random);
                            let a = maker.operand(ka, 6, x);
                            let b = maker.operand(kb, 7, y);
                            let (c, d) = if random.below(2) == 0 {
                                (a, b)
                            } else {
                                (maker.operand(Kind::Slot(12), 6, 5), maker.push(Op::Const(0)))
                            };
                            let mut cond = maker.push(Op::Bin(compare, a, b));
                            if negated {
                                let zero = maker.push(Op::Const(0));
                                cond = maker.push(Op::Bin(Bin::Eq, cond, zero));
                            }
                            if branches {
                                maker.push(Op::Branch(cond, 0x200));
                            } else {
                                let v = maker.push(Op::Select(cond, c, d));
                                maker.push(Op::Set(to, v));
                            }
                            machine.compare(&block(&maker.ops), &maker.regs);
                        }
                    }
                }
            }
        }
    }
}

const WIDTHS: [Width; 4] = [Width::Byte, Width::Half, Width::Word, Width::Double];

/// Addresses in pages that the TLB knows and does not, across their borders, and faulting.
#[test]
fn loads_and_stores() {
    let mut machine = Machine::new();
    let mut random = Random(4);
    for byte in &mut machine.engine.memory {
        *byte = random.next() as u8;
    }
    let extensions = [None, Some(Un::SextB), Some(Un::SextH), Some(Un::SextW), Some(Un::ZextH)];
    for _ in 0..8 {
        for width in WIDTHS {
            for kind in KINDS {
                for to in TO {
                    for extension in extensions {
                        let page = [0, 0, 0, 1, 2, 3][random.below(6)];
                        let near = random.pick(&[0, 8, 16, 100, 2047, 4080, 4088, 4090, 4095]);
                        let va = MEMORY + page * 4096 + near + random.next() % 8;
                        let offset = random.pick(&[0, 0, 1, -8, 2047, -2048, 1 << 30]);
                        let mut maker = Maker::new(&mut random);
                        let base = maker.operand(kind, 6, va.wrapping_sub(offset as u64));
                        let offset = maker.push(Op::Const(offset as u64));
                        let addr = maker.push(Op::Bin(Bin::Add, base, offset));
                        let loads = random.below(2) == 0;
                        if loads {
                            let mut v = maker.push(Op::Load { addr, width });
                            if let Some(extension) = extension {
                                v = maker.push(Op::Un(extension, v));
                            }
                            maker.push(Op::Set(to, v));
                        } else {
                            let stored = random.pick(&KINDS);
                            let value = random.value();
                            let value = maker.operand(stored, 7, value);
                            if stored == kind && matches!(kind, Kind::Slot(_)) {
                                let Op::Get(slot) = maker.ops[base.0 as usize] else { continue };
                                let Op::Const(o) = maker.ops[offset.0 as usize] else { continue };
                                maker.regs[slot as usize] = va.wrapping_sub(o);
                            }
                            maker.push(Op::Store { addr, width, value });
                            if random.below(2) == 0 {
                                maker.push(Op::Set(12, value));
                            }
                        }
                        machine.engine.sites.clear();
                        machine.compare(&block(&maker.ops), &maker.regs);
                        let last = va - MEMORY + width.bytes() - 1;
                        let hits = match last / 4096 {
                            page if page != (va - MEMORY) / 4096 => false,
                            0 => true,
                            1 => loads,
                            _ => false,
                        };
                        assert_eq!(machine.engine.sites.is_empty(), hits, "{va:#x} {width:?}");
                    }
                }
            }
        }
    }
}

const AMOS: [Amo; 9] =
    [Amo::Swap, Amo::Add, Amo::Xor, Amo::And, Amo::Or, Amo::Min, Amo::Max, Amo::Minu, Amo::Maxu];

/// Atomic operations wherever loads and stores go, aligned or not, their results wanted or not.
#[test]
fn atomics() {
    let (mut machine, mut plain) = (Machine::new(), Machine::plain());
    let mut random = Random(7);
    let amos = AMOS.map(Atomic::Amo);
    for round in 0..6 {
        let others = [Atomic::LoadReserved, Atomic::StoreConditional, Atomic::ZeroBlock];
        for op in amos.into_iter().chain(others) {
            let machine = if round == 0 { &mut plain } else { &mut machine };
            for (width, ka) in [Width::Word, Width::Double].into_iter().zip([KINDS, KINDS]) {
                for (ka, kb) in ka.into_iter().flat_map(|ka| KINDS.map(|kb| (ka, kb))) {
                    for to in [None, Some(10), Some(2), Some(5), Some(70)] {
                        let page = [0, 0, 0, 0, 1, 2, 3][random.below(7)];
                        let near = random.pick(&[0, 8, 16, 2048, 4080, 4088]);
                        let off = if random.below(6) == 0 { random.next() % 8 } else { 0 };
                        let va = MEMORY + page * 4096 + near + off;
                        let mut maker = Maker::new(&mut random);
                        let addr = maker.operand(ka, 6, va);
                        let value = random.value();
                        let value = match kb {
                            Kind::Slot(_) if ka == kb => addr,
                            _ => maker.operand(kb, 7, value),
                        };
                        let near_value = Memory::load(&mut *machine.engine, va, width);
                        if random.below(2) == 0
                            && let (Kind::Slot(slot), Ok(near_value)) = (kb, near_value)
                            && ka != kb
                        {
                            // Values that are near each other, for comparisons.
                            maker.regs[slot as usize] = near_value.wrapping_add(random.next() % 3);
                        }
                        let zeroes = op == Atomic::ZeroBlock;
                        let v = maker.push(Op::Atomic { op, addr, width, value });
                        if let Some(to) = to.filter(|_| !zeroes) {
                            maker.push(Op::Set(to, v));
                            if random.below(2) == 0 {
                                maker.push(Op::Set(12, v));
                                maker.push(Op::Set(21, value));
                                maker.push(Op::Set(71, addr));
                            }
                        }
                        if op == Atomic::StoreConditional && random.below(4) != 0 {
                            let width = random.pick(&[Width::Word, width, width]);
                            let va = va ^ random.pick(&[0, 0, 0, 0, 8, 4096]);
                            let _ = Memory::atomic(
                                &mut *machine.engine,
                                Atomic::LoadReserved,
                                va,
                                width,
                                0,
                            );
                            machine.engine.reserved[1] ^= random.pick(&[0, 0, 0, 1]);
                        }
                        machine.cold = random.below(8) == 0;
                        machine.engine.sites.clear();
                        machine.compare(&block(&maker.ops), &maker.regs);
                        machine.engine.reserved =
                            [machine.frame.reserved, machine.frame.reserved_value];
                        let stores = op != Atomic::LoadReserved;
                        let aligned = va.is_multiple_of(width.bytes()) || zeroes;
                        let allowed = page == 0 || page == 1 && !stores;
                        let hits = aligned && allowed && !machine.cold;
                        if !zeroes || hits == machine.engine.sites.is_empty() {
                            assert_eq!(machine.engine.sites.is_empty(), hits, "{op:?} {va:#x}");
                        } else {
                            // Not allowed.
                            assert_eq!(machine.frame.leave, machine.thunks.left);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn fences_and_marks() {
    let mut machine = Machine::new();
    machine.compare(&block(&[Op::Fence, Op::FpDirty]), &[0; 256]);
}

#[test]
fn a_counter_that_has_run_out_leads_past_links() {
    let mut machine = Machine::new();
    let add = Op::Bin(Bin::Add, Val(0), Val(1));
    let block = block(&[Op::Get(10), Op::Const(1), add, Op::Set(10, Val(2))]);
    machine.frame.counter = 5;
    assert_eq!(machine.run(&block), Exit::Link(100));
    assert_eq!((machine.frame.counter, machine.frame.regs[10]), (4, 1));
    machine.patch_link();
    assert_eq!(machine.again(), Exit::Link(100));
    assert_eq!((machine.frame.counter, machine.frame.regs[10]), (-1, 6));
}

/// A block that branches back to its beginning goes round until its counter is used up.
#[test]
fn loops_stay_inside() {
    let mut machine = Machine::new();
    let block = block(&[
        Op::Get(10),
        Op::Const(1),
        Op::Bin(Bin::Add, Val(0), Val(1)),
        Op::Set(10, Val(2)),
        Op::Goto(0x100),
    ]);
    machine.frame.counter = 12345;
    assert_eq!(machine.run(&block), Exit::Budget(0x100));
    assert_eq!((machine.frame.counter, machine.frame.regs[10]), (-1, 12346));
}

#[test]
fn jumps_through_the_cache() {
    let mut machine = Machine::new();
    let target = 0x3_0000_0ffe;
    let block = block(&[Op::Get(10), Op::Jump(Val(0))]);
    machine.know(target);
    machine.frame.regs[10] = target;
    machine.frame.counter = 5;
    // What the cache leads to returns the low half of RAX as a block's offset: the page.
    assert_eq!(machine.run(&block), Exit::Budget(target as u32 & !0xfff));
    assert_eq!(machine.frame.page_va, target & !0xfff);
    machine.frame.counter = 0;
    assert_eq!(machine.again(), Exit::Lookup, "the counter has run out");
    assert_eq!((machine.frame.next_pc, machine.frame.page_va), (target, PAGE_VA));
    machine.frame.counter = 5;
    machine.frame.regs[10] = target + 4096;
    assert_eq!(machine.again(), Exit::Lookup);
    assert_eq!((machine.frame.next_pc, machine.frame.page_va), (target + 4096, PAGE_VA));
    machine.frame.regs[10] = target - 2;
    assert_eq!(machine.again(), Exit::Lookup);
}

/// Offsets from the page of any size, as values and as targets.
#[test]
fn places_relative_to_the_page() {
    let mut machine = Machine::new();
    for offset in [0, 1, -1, 4094, 4096, -4096, 0x7fff_ffff, 0x8000_0000, -0x8000_0000, 1 << 40] {
        for slot in [10, 20, 74] {
            let even = offset & !1;
            machine.compare(&block(&[Op::Pc(offset), Op::Set(slot, Val(0))]), &[0; 256]);
            machine.compare(&block(&[Op::Goto(even)]), &[0; 256]);
            machine.compare(&block(&[Op::Pc(even), Op::Jump(Val(0))]), &[0; 256]);
            for taken in [0, 1] {
                let branch = [Op::Get(slot), Op::Branch(Val(0), even)];
                machine.compare(&block(&branch), &[taken; 256]);
                let branch = [Op::Const(taken), Op::Branch(Val(0), even)];
                machine.compare(&block(&branch), &[0; 256]);
            }
        }
    }
}

/// Values that live across an instruction that is performed are kept; more of them than there is room for are refused.
#[test]
fn many_values() {
    let mut machine = Machine::new();
    let sums = |count: u32| {
        let mut ops = vec![Op::Get(10), Op::Get(2)];
        for v in 1..=count {
            ops.push(Op::Bin(Bin::Add, Val(0), Val(v)));
        }
        ops.push(Op::Perform);
        for v in 0..count + 2 {
            ops.push(Op::Set([10, 2, 21, 74][v as usize % 4], Val(v)));
            ops.push(Op::Get(7));
            let next = Val(ops.len() as u32 - 1);
            ops.push(Op::Bin(Bin::Xor, next, Val(v)));
            ops.push(Op::Set(7, Val(next.0 + 1)));
        }
        block(&ops)
    };
    let mut random = Random(9);
    for count in [1, 3, 4, 20, 62] {
        let regs = Maker::new(&mut random).regs;
        machine.compare(&sums(count), &regs);
    }
    let place = Place { at: 0, first_link: 0, first_perform: 0 };
    for (refused, block) in [(false, sums(62)), (true, sums(63))] {
        assert_eq!(machine.emitter.emit(&block, place, &machine.thunks).is_err(), refused);
    }
}
