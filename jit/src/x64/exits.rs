//! How a block is left.
//!
//! Instructions are counted where a block is left: the counter says how many may still be done before the longest block
//! might not fit any more.

use mimic_cpu::bus::{PAGE_MASK, PAGE_SIZE};

use super::abi::{COUNTER, JUMPS, JUMPS_LEN, PAGE_VA};
use super::alloc::Loc;
use super::asm::{Alu, Cond, Fix, Mem, RAX, RBP, RCX, RDX, Rm, Size, opcode};
use super::{Emitter, LinkSite, Stub, Thunks, cond, int, mem};
use crate::ir::Val;
use mimic_cpu::bus::Width;

const COUNTER_WORD: Mem = Mem::new(RBP, COUNTER);

/// A side exit's code out of line.
#[derive(Clone, Copy, Debug)]
pub(super) struct SideExit {
    taken: Fix,
    /// Instructions of the block up to and with the branch.
    done: u32,
    target: i64,
}

/// Whether an offset relative to the page lies in it.
fn is_inside(target: i64) -> bool {
    (0..PAGE_SIZE as i64).contains(&target)
}

/// Counts instructions that have been done. The sign flag says whether translated code must be left.
pub(super) fn count(e: &mut Emitter, done: u32) {
    e.code.alu_imm(Alu::Sub, Size::Q, Rm::Mem(COUNTER_WORD), done as i32);
}

/// Leaves for the block itself, because the counter has run out.
pub(super) fn budget(e: &mut Emitter, out: Fix, thunks: &Thunks) {
    e.code.bind(out);
    e.code.mov_imm(RAX, e.start);
    e.code.jmp_far(thunks.budget);
}

/// An unpatched link, or one that is not followed because the counter has run out: asks the engine.
pub(super) fn link(e: &mut Emitter, jumps: [Fix; 2], id: u32, thunks: &Thunks) {
    for jump in jumps {
        e.code.bind(jump);
    }
    e.code.mov_imm(RAX, u64::from(id));
    e.code.jmp_far(thunks.link);
}

/// Goes on at the virtual address in RAX, if the jump cache knows it and the counter has not run out.
fn through_cache(e: &mut Emitter, thunks: &Thunks) {
    // An entry is 16 bytes: 8 times the address's bits from 1 on.
    let index = (JUMPS_LEN as i32 - 1) << 1;
    let entry = |offset| Mem::indexed(RCX, RDX, 3, offset);
    let code = &mut e.code;
    code.jcc_far(Cond::S, thunks.lookup);
    code.mov(Size::Q, RCX, Rm::Mem(Mem::new(RBP, JUMPS)));
    code.mov(Size::L, RDX, Rm::Reg(RAX));
    code.alu_imm(Alu::And, Size::L, Rm::Reg(RDX), index);
    code.alu(Alu::Cmp, Size::Q, RAX, Rm::Mem(entry(0)));
    code.jcc_far(Cond::NE, thunks.lookup);
    code.alu_imm(Alu::And, Size::Q, Rm::Reg(RAX), !(PAGE_MASK as i32));
    code.store(Width::Double, Mem::new(RBP, PAGE_VA), RAX);
    // jmp [entry].
    code.op(opcode(0, 0, 0xff), Size::L, 4, Rm::Mem(entry(8)));
}

/// Leaves for an offset relative to the page after `done` instructions: to this block, or by a jump to be patched when
/// the target is known, or through the jump cache.
pub(super) fn leave_for(e: &mut Emitter, target: i64, done: u32, thunks: &Thunks) {
    if !is_inside(target) {
        int::page_plus(e, RAX, target);
        count(e, done);
        return through_cache(e, thunks);
    }
    count(e, done);
    if target == e.start as i64 {
        let again = e.code.jcc(Cond::S.not());
        e.code.bind_to(again, 0);
        let out = e.code.jmp();
        e.stubs.push(Stub::Budget(out));
        return;
    }
    let out = e.code.jcc(Cond::S);
    let jump = e.code.jmp();
    let id = e.first_link + e.links.len() as u32;
    e.links.push(LinkSite { rel32_offset: jump.0, target });
    e.stubs.push(Stub::Link { jumps: [out, jump], id });
}

/// [`Op::Branch`](crate::ir::Op::Branch).
pub(super) fn branch(e: &mut Emitter, cond: Val, target: i64, thunks: &Thunks) {
    let done = e.insn + 1;
    let taken = match e.alloc.value(cond).loc {
        Loc::Const(0) => return,
        Loc::Const(_) => e.code.jmp(),
        _ => {
            let holds = cond::condition(e, cond);
            if target == e.start as i64 {
                // A loop: what is taken most of the time stays in line.
                let over = e.code.jcc(holds.not());
                leave_for(e, target, done, thunks);
                return e.code.bind(over);
            }
            e.code.jcc(holds)
        }
    };
    e.stubs.push(Stub::Exit(SideExit { taken, done, target }));
}

impl SideExit {
    /// Emits it.
    pub(super) fn emit(self, e: &mut Emitter, thunks: &Thunks) {
        e.code.bind(self.taken);
        leave_for(e, self.target, self.done, thunks);
    }
}

/// Leaves for the block that begins at the instruction `next` of this one.
pub(super) fn go_on_at(e: &mut Emitter, next: u32, thunks: &Thunks) {
    let at = e.insns[next as usize].at;
    leave_for(e, at.offset() as i64, next, thunks);
}

/// [`Op::Goto`](crate::ir::Op::Goto).
pub(super) fn goto(e: &mut Emitter, target: i64, thunks: &Thunks) {
    leave_for(e, target, e.count, thunks);
}

/// [`Op::Jump`](crate::ir::Op::Jump).
pub(super) fn jump(e: &mut Emitter, target: Val, thunks: &Thunks) {
    let (base, disp) = mem::address(e, target);
    if disp != 0 {
        e.code.lea(Size::Q, RAX, Mem::new(base, disp));
    } else if base != RAX {
        e.code.mov(Size::Q, RAX, Rm::Reg(base));
    }
    count(e, e.count);
    through_cache(e, thunks);
}

/// [`Op::Perform`](crate::ir::Op::Perform).
pub(super) fn perform(e: &mut Emitter, i: u32, thunks: &Thunks) {
    e.save_values(i);
    call_perform(e, thunks);
}

/// Calls out for the current instruction. Scratch registers are lost.
pub(super) fn call_perform(e: &mut Emitter, thunks: &Thunks) {
    let index = e.first_perform + e.performs.len() as u32;
    e.performs.push(e.insn);
    e.code.mov_imm(RAX, u64::from(index));
    let site = e.site(Width::Byte);
    e.code.mov_imm(RCX, u64::from(site));
    e.code.call_far(thunks.perform);
}

/// [`Op::Fence`](crate::ir::Op::Fence): a locked instruction orders everything (Intel SDM volume 3, section 9.2)
/// and is faster than `mfence`.
pub(super) fn fence(e: &mut Emitter) {
    // lock or dword [rsp - 64], 0: a word that nobody uses.
    e.code.raw(&[0xf0, 0x83, 0x4c, 0x24, 0xc0, 0x00]);
}
