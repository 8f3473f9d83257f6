//! Atomic memory operations: locked instructions where the TLB allows stores, a call out where it does not.
//!
//! A locked instruction orders everything around it (Intel SDM volume 3, section 9.2.3.9), so every one of them is
//! sequentially consistent. What is misaligned misses, as does what lies where nobody may store, or in a page that is
//! watched.
//!
//! The reservation of LR is two words of the frame: what was reserved, and the value that was there.

use mimic_cpu::bus::{PAGE_MASK, Width};
use mimic_cpu::frame::reservation_tag;
use mimic_cpu::riscv::CACHE_BLOCK;
use mimic_cpu::riscv::sem::{Amo, Atomic};

use super::abi::{
    ADDEND, AtomicSite, CallSite, GPA, READ_TAG, RESERVED, RESERVED_VALUE, WRITE_TAG,
};
use super::alloc::{Loc, SCRATCH, Src};
use super::asm::{Alu, Cond, Fix, Mem, Opcode, RAX, RBP, RCX, RDX, Reg, Rm, Size, opcode};
use super::mem::{self, Place, Span};
use super::{Emitter, Stub, Thunks, cond, region};
use crate::ir::Val;

const XADD: Opcode = opcode(0, 1, 0xc1);
const CMPXCHG: Opcode = opcode(0, 1, 0xb1);
const XCHG: Opcode = opcode(0, 0, 0x87);
const LOCK: &[u8] = &[0xf0];

const RESERVED_WORD: Mem = Mem::new(RBP, RESERVED);
const RESERVED_VALUE_WORD: Mem = Mem::new(RBP, RESERVED_VALUE);

/// An operation that missed the TLB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slow {
    miss: Fix,
    back: u32,
    place: Place,
    site: u64,
    value: Src,
    dst: Reg,
}

fn size(width: Width) -> Size {
    if width == Width::Double { Size::Q } else { Size::L }
}

/// [`Op::Atomic`](crate::ir::Op::Atomic).
pub(super) fn atomic(e: &mut Emitter, i: u32, op: Atomic, addr: Val, width: Width, value: Val) {
    if op == Atomic::ZeroBlock {
        return zero_block(e, i, addr, value);
    }
    e.aim(i, i);
    let place = mem::address(e, addr);
    for r in SCRATCH {
        if e.is_in(value, r) {
            e.evict(r);
        } else {
            e.clear(r, i);
        }
    }
    let src = if op == Atomic::LoadReserved { Src::Imm(0) } else { e.src(value) };
    let place = mem::settle_address(e, place);
    let dst = e.target.map_or(RAX, |(_, reg)| reg);
    let wanted = e.alloc.value(Val(i)).uses != 0;
    let tag = if op == Atomic::LoadReserved { READ_TAG } else { WRITE_TAG };
    // Bits that no page's address has remain where the access is misaligned.
    let low = width.bytes() as i32 - 1;
    let miss = mem::find(e, place, Span { below: 0, len: 1 }, low, tag);
    match op {
        Atomic::LoadReserved => load_reserved(e, place, width, dst),
        Atomic::StoreConditional => store_conditional(e, place, width, src, dst),
        Atomic::Amo(amo) => {
            e.code.mov(Size::Q, RCX, Rm::Mem(Mem::new(RCX, ADDEND)));
            update(e, amo, place, width, src, wanted.then_some(dst));
        }
        Atomic::ZeroBlock => {}
    }
    call_if(e, miss, op, place, width, src, dst);
    if wanted {
        e.define(i, dst);
    }
}

/// What happens out of line goes on here.
fn call_if(
    e: &mut Emitter,
    miss: Fix,
    op: Atomic,
    place: Place,
    width: Width,
    value: Src,
    dst: Reg,
) {
    let at = e.insns[e.insn as usize].at;
    let site = AtomicSite { op, site: CallSite { at, width, done: e.insn } }.encode();
    let back = e.code.here();
    e.stubs.push(Stub::Atomic(Slow { miss, back, place, site, value, dst }));
}

/// [`Atomic::ZeroBlock`].
fn zero_block(e: &mut Emitter, i: u32, addr: Val, allowed: Val) {
    let place = mem::address(e, addr);
    for r in SCRATCH {
        if e.is_in(allowed, r) {
            e.evict(r);
        } else {
            e.clear(r, i);
        }
    }
    let place = mem::settle_address(e, place);
    e.alloc.lock(RAX);
    let denied = match e.alloc.value(allowed).loc {
        Loc::Const(0) => Some(e.code.jmp()),
        Loc::Const(_) => None,
        _ => {
            let holds = cond::condition(e, allowed);
            Some(e.code.jcc(holds.not()))
        }
    };
    let miss = mem::find(e, place, Span { below: 0, len: 1 }, 0, WRITE_TAG);
    e.code.mov(Size::Q, RCX, Rm::Mem(Mem::new(RCX, ADDEND)));
    e.address_into(RDX, place, 0);
    e.code.alu_imm(Alu::And, Size::Q, Rm::Reg(RDX), -(CACHE_BLOCK as i32));
    for offset in (0..CACHE_BLOCK as i32).step_by(8) {
        e.code.store_imm(Width::Double, Mem::indexed(RDX, RCX, 0, offset), 0);
    }
    for (miss, allowed) in [(Some(miss), 1), (denied, 0)] {
        if let Some(miss) = miss {
            let allowed = Src::Imm(allowed);
            call_if(e, miss, Atomic::ZeroBlock, place, Width::Double, allowed, RAX);
        }
    }
}

/// RDX becomes what the frame holds where this access is reserved. RCX is the address of the TLB's entry.
fn tag_of(e: &mut Emitter, place: Place, width: Width) {
    e.address_into(RDX, place, 0);
    e.code.alu_imm(Alu::And, Size::L, Rm::Reg(RDX), PAGE_MASK as i32);
    e.code.alu(Alu::Or, Size::Q, RDX, Rm::Mem(Mem::new(RCX, GPA)));
    e.code.alu_imm(Alu::Or, Size::Q, Rm::Reg(RDX), reservation_tag(0, width) as i32);
}

fn load_reserved(e: &mut Emitter, place: Place, width: Width, dst: Reg) {
    tag_of(e, place, width);
    let code = &mut e.code;
    code.mov(Size::Q, RCX, Rm::Mem(Mem::new(RCX, ADDEND)));
    code.store(Width::Double, RESERVED_WORD, RDX);
    code.mov(size(width), RAX, Rm::Mem(place.with(RCX)));
    code.store(Width::Double, RESERVED_VALUE_WORD, RAX);
    extend(e, width, dst, RAX);
}

fn store_conditional(e: &mut Emitter, place: Place, width: Width, src: Src, dst: Reg) {
    tag_of(e, place, width);
    e.code.mov(Size::Q, RCX, Rm::Mem(Mem::new(RCX, ADDEND)));
    e.code.alu(Alu::Cmp, Size::Q, RDX, Rm::Mem(RESERVED_WORD));
    e.code.store_imm(Width::Double, RESERVED_WORD, 0);
    let other = e.code.jcc(Cond::NE);
    e.code.lea(Size::Q, RCX, place.with(RCX));
    e.copy(RDX, src);
    e.code.mov(Size::Q, RAX, Rm::Mem(RESERVED_VALUE_WORD));
    e.code.raw(LOCK);
    e.code.op(CMPXCHG, size(width), RDX, Rm::Mem(Mem::new(RCX, 0)));
    e.code.bind(other);
    e.code.setcc(Cond::NE, RAX);
    e.code.extend(Width::Byte, false, dst, Rm::Reg(RAX));
}

/// Updates memory; RCX is the page's addend. The old value goes to `dst`, if it is wanted.
fn update(e: &mut Emitter, op: Amo, place: Place, width: Width, src: Src, dst: Option<Reg>) {
    let size = size(width);
    let direct = match op {
        Amo::Add => Some(Alu::Add),
        Amo::And => Some(Alu::And),
        Amo::Or => Some(Alu::Or),
        Amo::Xor => Some(Alu::Xor),
        Amo::Swap | Amo::Min | Amo::Max | Amo::Minu | Amo::Maxu => None,
    };
    let to = place.with(RCX);
    match (op, direct, dst) {
        (Amo::Swap, ..) => {
            e.copy(RDX, src);
            // Locked without being told so.
            e.code.op(XCHG, size, RDX, Rm::Mem(to));
        }
        (_, Some(alu), None) => {
            e.copy(RDX, src);
            e.code.raw(LOCK);
            e.code.alu_to_mem(alu, size, to, RDX);
        }
        (Amo::Add, ..) => {
            e.copy(RDX, src);
            e.code.raw(LOCK);
            e.code.op(XADD, size, RDX, Rm::Mem(to));
        }
        _ => {
            e.code.lea(Size::Q, RCX, to);
            let to = Mem::new(RCX, 0);
            e.code.mov(size, RAX, Rm::Mem(to));
            let again = e.code.here();
            e.copy(RDX, src);
            match direct {
                Some(alu) => e.code.alu(alu, size, RDX, Rm::Reg(RAX)),
                None => {
                    e.code.alu(Alu::Cmp, size, RAX, Rm::Reg(RDX));
                    let old_stays = match op {
                        Amo::Min => Cond::L,
                        Amo::Max => Cond::G,
                        Amo::Minu => Cond::B,
                        _ => Cond::A,
                    };
                    e.code.cmov(old_stays, RDX, Rm::Reg(RAX));
                }
            }
            e.code.raw(LOCK);
            e.code.op(CMPXCHG, size, RDX, Rm::Mem(to));
            let changed = e.code.jcc(Cond::NE);
            e.code.bind_to(changed, again);
            if let Some(dst) = dst {
                extend(e, width, dst, RAX);
            }
            return;
        }
    }
    if let Some(dst) = dst {
        extend(e, width, dst, RDX);
    }
}

fn extend(e: &mut Emitter, width: Width, dst: Reg, from: Reg) {
    if width != Width::Double || dst != from {
        e.code.extend(width, true, dst, Rm::Reg(from));
    }
}

impl Slow {
    /// Emits the call out and the way back.
    pub(super) fn emit(self, e: &mut Emitter, thunks: &Thunks) {
        e.code.bind(self.miss);
        e.copy(RDX, self.value);
        e.address_into(RAX, self.place, 0);
        e.code.mov_imm(RCX, self.site);
        region::to_usual_homes(e);
        e.code.call_far(thunks.atomic);
        region::to_own_homes(e);
        if self.dst != RAX {
            e.code.mov(Size::Q, self.dst, Rm::Reg(RAX));
        }
        let jump = e.code.jmp();
        e.code.bind_to(jump, self.back);
    }
}
