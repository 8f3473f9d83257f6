//! How a block begins and how it is left.

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
    /// Instructions of the block after the branch: counted at its entry, but not done.
    give_back: u32,
    target: i64,
}

/// Whether an offset relative to the page lies in it.
fn is_inside(target: i64) -> bool {
    (0..PAGE_SIZE as i64).contains(&target)
}

/// Counts the block's instructions; leaves if the counter runs out.
pub(super) fn prologue(e: &mut Emitter) {
    e.code.alu_imm(Alu::Sub, Size::Q, Rm::Mem(COUNTER_WORD), e.count as i32);
    let out = e.code.jcc(Cond::S);
    e.stubs.push(Stub::Budget(out));
}

/// The block's instructions are not counted after all.
pub(super) fn budget(e: &mut Emitter, out: Fix, thunks: &Thunks) {
    e.code.bind(out);
    e.code.alu_imm(Alu::Add, Size::Q, Rm::Mem(COUNTER_WORD), e.count as i32);
    e.code.mov_imm(RAX, e.start);
    e.code.jmp_far(thunks.budget);
}

/// Makes a jump to an offset in this page: to this block, or to be patched when the target is known.
fn lead_to(e: &mut Emitter, jump: Fix, target: i64) {
    if target == e.start as i64 {
        e.code.bind_to(jump, 0);
        return;
    }
    let id = e.first_link + e.links.len() as u32;
    e.links.push(LinkSite { rel32_offset: jump.0, target });
    e.stubs.push(Stub::Link { jump, id });
}

/// An unpatched link: asks the engine.
pub(super) fn link(e: &mut Emitter, jump: Fix, id: u32, thunks: &Thunks) {
    e.code.bind(jump);
    e.code.mov_imm(RAX, u64::from(id));
    e.code.jmp_far(thunks.link);
}

/// Goes on at the virtual address in RAX, if the jump cache knows it.
fn through_cache(e: &mut Emitter, thunks: &Thunks) {
    // An entry is 16 bytes: 8 times the address's bits from 1 on.
    let index = (JUMPS_LEN as i32 - 1) << 1;
    let entry = |offset| Mem::indexed(RCX, RDX, 3, offset);
    let code = &mut e.code;
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

/// Leaves for an offset relative to the page; everything has been counted.
fn leave_for(e: &mut Emitter, target: i64, thunks: &Thunks) {
    if is_inside(target) {
        let jump = e.code.jmp();
        lead_to(e, jump, target);
    } else {
        int::page_plus(e, RAX, target);
        through_cache(e, thunks);
    }
}

/// [`Op::Branch`](crate::ir::Op::Branch).
pub(super) fn branch(e: &mut Emitter, cond: Val, target: i64) {
    let give_back = e.count - e.insn - 1;
    let taken = match e.alloc.value(cond).loc {
        Loc::Const(0) => return,
        Loc::Const(_) => e.code.jmp(),
        _ => {
            let holds = cond::condition(e, cond);
            e.code.jcc(holds)
        }
    };
    if give_back == 0 && is_inside(target) {
        lead_to(e, taken, target);
    } else {
        e.stubs.push(Stub::Exit(SideExit { taken, give_back, target }));
    }
}

impl SideExit {
    /// Emits it.
    pub(super) fn emit(self, e: &mut Emitter, thunks: &Thunks) {
        e.code.bind(self.taken);
        if self.give_back != 0 {
            let back = self.give_back as i32;
            e.code.alu_imm(Alu::Add, Size::Q, Rm::Mem(COUNTER_WORD), back);
        }
        leave_for(e, self.target, thunks);
    }
}

/// Leaves for the block that begins at the instruction `next` of this one: those from there on, which have been counted,
/// are not done here.
pub(super) fn go_on_at(e: &mut Emitter, next: u32, thunks: &Thunks) {
    let back = (e.count - next) as i32;
    e.code.alu_imm(Alu::Add, Size::Q, Rm::Mem(COUNTER_WORD), back);
    let at = e.insns[next as usize].at;
    leave_for(e, at.offset() as i64, thunks);
}

/// [`Op::Goto`](crate::ir::Op::Goto).
pub(super) fn goto(e: &mut Emitter, target: i64, thunks: &Thunks) {
    leave_for(e, target, thunks);
}

/// [`Op::Jump`](crate::ir::Op::Jump).
pub(super) fn jump(e: &mut Emitter, target: Val, thunks: &Thunks) {
    let (base, disp) = mem::address(e, target);
    if disp != 0 {
        e.code.lea(Size::Q, RAX, Mem::new(base, disp));
    } else if base != RAX {
        e.code.mov(Size::Q, RAX, Rm::Reg(base));
    }
    through_cache(e, thunks);
}

/// [`Op::Perform`](crate::ir::Op::Perform).
pub(super) fn perform(e: &mut Emitter, i: u32, thunks: &Thunks) {
    e.save_values(i);
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
