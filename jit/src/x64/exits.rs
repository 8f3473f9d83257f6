//! How a block is left.
//!
//! Instructions are counted where a block is left: the counter says how many may still be done before the longest block
//! might not fit any more.

use mimic_cpu::bus::{PAGE_MASK, PAGE_SIZE};

use super::abi::{COUNTER, JUMPS, JUMPS_LEN, PAGE_VA};
use super::alloc::Loc;
use super::asm::{Alu, Cond, Fix, Mem, RAX, RBP, RCX, RDX, Rm, Size, opcode};
use super::{Emitter, LinkSite, Stub, Thunks, cond, int, mem, region};
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

/// Leaves for the part that begins at `start`, because the counter has run out.
pub(super) fn budget(e: &mut Emitter, out: Fix, start: u64, thunks: &Thunks) {
    e.code.bind(out);
    region::to_usual_homes(e);
    e.code.mov_imm(RAX, start);
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

/// Leaves for an offset relative to the page after `done` instructions: to a part of the same code, or by a jump to be
/// patched when the target is known, or through the jump cache.
fn leave_for(e: &mut Emitter, target: i64, done: u32, thunks: &Thunks) {
    if !is_inside(target) {
        int::page_plus(e, RAX, target);
        count(e, done);
        region::to_usual_homes(e);
        return through_cache(e, thunks);
    }
    count(e, done);
    if let Some(part) = region::part_at(e, target) {
        let again = e.code.jcc(Cond::S.not());
        region::lead_to(e, again, part);
        let out = e.code.jmp();
        e.stubs.push(Stub::Budget { out, start: target as u64 });
        return;
    }
    region::to_usual_homes(e);
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
            if region::part_at(e, target).is_some_and(|part| part <= e.part) {
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

/// A place to go on at after some of a part's instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resume {
    target: i64,
    done: u32,
}

/// What comes after the current instruction, unless that jumps.
pub(super) fn after_this(e: &Emitter) -> Resume {
    let at = e.insns[e.insn as usize].at;
    Resume { target: (at.offset() + at.bytes()) as i64, done: e.insn + 1 }
}

impl Resume {
    /// Leaves for it.
    pub(super) fn emit(self, e: &mut Emitter, thunks: &Thunks) {
        leave_for(e, self.target, self.done, thunks);
    }
}

/// [`Op::Goto`](crate::ir::Op::Goto).
pub(super) fn goto(e: &mut Emitter, target: i64, thunks: &Thunks) {
    if region::part_at(e, target) == Some(e.part + 1) {
        // It follows.
        count(e, e.count);
        let out = e.code.jcc(Cond::S);
        e.stubs.push(Stub::Budget { out, start: target as u64 });
        return;
    }
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
    region::to_usual_homes(e);
    through_cache(e, thunks);
}

/// [`Op::Perform`](crate::ir::Op::Perform).
pub(super) fn perform(e: &mut Emitter, i: u32, thunks: &Thunks) {
    e.save_values(i);
    performing(e).call(e, thunks);
}

/// An instruction that is performed by a call out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Performing {
    insn: u32,
    site: u32,
}

/// The current instruction.
pub(super) fn performing(e: &Emitter) -> Performing {
    Performing { insn: e.before + e.insn, site: e.site(Width::Byte) }
}

impl Performing {
    /// Calls out. Scratch registers are lost.
    pub(super) fn call(self, e: &mut Emitter, thunks: &Thunks) {
        let index = e.first_perform + e.performs.len() as u32;
        e.performs.push(self.insn);
        region::to_usual_homes(e);
        e.code.mov_imm(RAX, u64::from(index));
        e.code.mov_imm(RCX, u64::from(self.site));
        e.code.call_far(thunks.perform);
        region::to_own_homes(e);
    }
}

/// [`Op::Fence`](crate::ir::Op::Fence): a locked instruction orders everything (Intel SDM volume 3, section 9.2)
/// and is faster than `mfence`.
pub(super) fn fence(e: &mut Emitter) {
    // lock or dword [rsp - 64], 0: a word that nobody uses.
    e.code.raw(&[0xf0, 0x83, 0x4c, 0x24, 0xc0, 0x00]);
}
