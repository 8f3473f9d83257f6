//! Control transfer (SDM vol. 1, 5.1.7): jumps, calls, returns, loops; software interrupts.

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::{
    Addr, Flat, Int, Mem, R1, Segmented, Src, address_mask, chain, each_condition, ends, go_on,
    jumps, serializes, sized_word, step,
};
use crate::x86::core::{Core, IP_PAGE};
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::{Fault, Stop, vector};
use crate::x86::flags::Lazy;
use crate::x86::gate::Source;
use crate::x86::state::gpr;

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    let raw = ins.raw();
    if raw.is_jcc_short_or_near() {
        let condition = (raw.condition_code() as u8).checked_sub(1)?;
        return each_condition!(
            condition,
            C,
            Some(if ins.bits64() { jcc::<C, true> } else { jcc::<C, false> })
        );
    }
    Some(match ins.mnemonic() {
        M::Jmp if raw.is_jmp_short_or_near() => {
            if ins.bits64() {
                jmp::<true>
            } else {
                jmp::<false>
            }
        }
        M::Jmp if raw.is_jmp_near_indirect() => return indirect::<false>(ins),
        M::Call if raw.is_call_near_indirect() => return indirect::<true>(ins),
        M::Call if raw.is_call_near() => match raw.op_kind(0) {
            iced_x86::OpKind::NearBranch16 => call::<u16>,
            iced_x86::OpKind::NearBranch32 => call::<u32>,
            _ => call::<u64>,
        },
        M::Jmp if raw.is_jmp_far() => far::<false>,
        M::Call if raw.is_call_far() => far::<true>,
        M::Jmp if raw.is_jmp_far_indirect() => return far_lookup::<false>(ins),
        M::Call if raw.is_call_far_indirect() => return far_lookup::<true>(ins),
        M::Ret => return sized_word!(raw.stack_pointer_increment_of_ret(), T, Some(ret::<T>)),
        M::Retf => {
            return sized_word!(raw.stack_pointer_increment_of_ret() / 2, T, Some(retf::<T>));
        }
        M::Loop => loop_while::<ANY>,
        M::Loope => loop_while::<EQUAL>,
        M::Loopne => loop_while::<NOT_EQUAL>,
        M::Jcxz | M::Jecxz | M::Jrcxz => jcxz,
        M::Int => int,
        M::Int3 => trap::<{ vector::BP }>,
        M::Into => into,
        M::Int1 => trap::<{ vector::DB }>,
        M::Iret => iret::<u16>,
        M::Iretd => iret::<u32>,
        M::Iretq => iret::<u64>,
        M::Bound => return sized_word!(ins.bytes(0), T, Some(bound::<T>)),
        M::Ud0 | M::Ud1 | M::Ud2 => super::undefined,
        _ => return None,
    })
}

/// Bytes that a return takes off the stack, besides its immediate.
trait ReturnSize {
    fn stack_pointer_increment_of_ret(&self) -> i32;
}

impl ReturnSize for iced_x86::Instruction {
    fn stack_pointer_increment_of_ret(&self) -> i32 {
        let released = if self.op_count() == 1 { i32::from(self.immediate16()) } else { 0 };
        self.stack_pointer_increment() - released
    }
}

/// Whether condition `C` (the low four bits of Jcc's opcode) holds.
#[inline(always)]
pub(super) fn condition<const C: u8>(flags: Lazy) -> bool {
    let holds = match C >> 1 {
        0 => flags.of(),
        1 => flags.cf(),
        2 => flags.zf(),
        3 => flags.cf() || flags.zf(),
        4 => flags.sf(),
        5 => flags.pf(),
        6 => flags.sf() != flags.of(),
        _ => flags.zf() || flags.sf() != flags.of(),
    };
    holds != (C & 1 != 0)
}

/// A relative branch: taken if `holds`. `WIDE`: in 64-bit mode.
#[inline(always)]
fn branch<const WIDE: bool>(core: &mut Core, ops: &[Op], code: &CodeCache, holds: bool) -> usize {
    let [op, rest @ ..] = ops else { return 0 };
    if !holds {
        return go_on(core, rest, code);
    }
    let page = core.gpr(IP_PAGE);
    if WIDE {
        core.next_rip = page.wrapping_add(op.imm);
        return chain(core, code, op.imm, rest.len());
    }
    if core.jump_near(target(core, op)).is_err() {
        core.stopped = true;
        return ops.len();
    }
    chain(core, code, core.next_rip.wrapping_sub(page), rest.len())
}

/// [`branch`] in any mode, for functions that are not made for one.
#[inline(always)]
pub(super) fn branch_if(core: &mut Core, ops: &[Op], code: &CodeCache, holds: bool) -> usize {
    if core.wide() {
        branch::<true>(core, ops, code, holds)
    } else {
        branch::<false>(core, ops, code, holds)
    }
}

/// Where a relative branch leads outside 64-bit mode.
#[inline(always)]
fn target(core: &Core, op: &Op) -> u64 {
    operand_mask(op) & core.gpr(IP_PAGE).wrapping_add(op.imm)
}

fn operand_mask(op: &Op) -> u64 {
    match op.size {
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

impl Core {
    /// Goes on at `target`, which must be inside CS, or canonical in 64-bit mode.
    ///
    /// # Errors
    /// #GP(0).
    #[inline]
    pub fn jump_near(&mut self, target: u64) -> Result<(), Stop> {
        let inside = if self.wide() {
            self.is_canonical(target)
        } else {
            target <= u64::from(self.segment(crate::x86::state::sreg::CS).limit)
        };
        if !inside {
            return Err(self.gp(0));
        }
        self.next_rip = target;
        Ok(())
    }
}

fn jcc<const C: u8, const WIDE: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    branch::<WIDE>(core, ops, code, condition::<C>(core.flags))
}

fn jmp<const WIDE: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    branch::<WIDE>(core, ops, code, true)
}

fn jcxz(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    let [op, ..] = ops else { return 0 };
    let holds = core.gpr(gpr::RCX) & address_mask(op) == 0;
    branch::<false>(core, ops, code, holds)
}

const ANY: u8 = 0;
const EQUAL: u8 = 1;
const NOT_EQUAL: u8 = 2;

fn loop_while<const WHAT: u8>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    let [op, rest @ ..] = ops else { return 0 };
    let mask = address_mask(op);
    let old = core.gpr(gpr::RCX);
    let count = old.wrapping_sub(1) & mask;
    let goes_on = match WHAT {
        EQUAL => core.flags.zf(),
        NOT_EQUAL => !core.flags.zf(),
        _ => true,
    };
    let taken = count != 0 && goes_on;
    if taken && core.jump_near(target(core, op)).is_err() {
        core.stopped = true;
        return ops.len();
    }
    let kept = if mask == 0xffff { old & !mask } else { 0 };
    core.set_gpr(gpr::RCX, kept | count);
    if taken {
        chain(core, code, core.next_rip.wrapping_sub(core.gpr(IP_PAGE)), rest.len())
    } else {
        go_on(core, rest, code)
    }
}

/// Near jumps and calls to an address in a register or in memory.
fn indirect<const CALL: bool>(ins: &Ins) -> Option<Handler> {
    sized_word!(
        ins.bytes(0),
        T,
        Some(if !ins.is_mem(0) {
            jmp_to::<T, R1, CALL>
        } else if ins.flat {
            jmp_to::<T, Mem<Flat>, CALL>
        } else {
            jmp_to::<T, Mem<Segmented>, CALL>
        })
    )
}

fn jmp_to<T: Int, S: Src<T>, const CALL: bool>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    jumps(core, ops, code, |core, op| {
        let target = S::get(core, op)?.widen();
        let back = core.next_rip;
        core.jump_near(target)?;
        if CALL { core.push(T::narrow(back)) } else { Ok(()) }
    })
}

fn call<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    jumps(core, ops, code, |core, op| {
        let back = core.next_rip;
        let page = core.gpr(IP_PAGE);
        core.jump_near(T::narrow(page.wrapping_add(op.imm)).widen())?;
        core.push(T::narrow(back))
    })
}

fn ret<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    jumps(core, ops, code, |core, op| {
        let target = core.peek::<T>(0)?.widen();
        core.jump_near(target)?;
        core.release(T::BYTES + op.imm);
        Ok(())
    })
}

fn far<const CALL: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| core.far_transfer(op.disp as u16, op.imm, op.size, CALL))
}

fn far_lookup<const CALL: bool>(ins: &Ins) -> Option<Handler> {
    sized_word!(ins.bytes(0).wrapping_sub(2), T, Some(far_indirect::<T, CALL>))
}

fn far_indirect<T: Int, const CALL: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        let (offset, selector) = far_pointer::<T>(core, op)?;
        core.far_transfer(selector, offset, T::BYTES as u8, CALL)
    })
}

/// The far pointer in memory: offset, then selector.
pub(super) fn far_pointer<T: Int>(core: &mut Core, op: &Op) -> Result<(u64, u16), Stop> {
    let at = super::effective(core, op);
    let lin = core.linear(op.seg, at, T::BYTES, false)?;
    let offset: T = core.load(lin)?;
    let behind = at.wrapping_add(T::BYTES) & address_mask(op);
    let lin = core.linear(op.seg, behind, 2, false)?;
    Ok((offset.widen(), core.load(lin)?))
}

fn retf<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| core.far_return::<T>(op.imm))
}

fn iret<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    serializes(core, ops, code, |core, _| core.interrupt_return::<T>())
}

fn int(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        let back = core.next_rip;
        core.software_interrupt(op.imm as u8, Source::Int, back)
    })
}

/// INT3 and INT1.
fn trap<const VECTOR: u8>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        let back = core.next_rip;
        let source = if VECTOR == vector::DB {
            // Breakpoints met by a load of SS before are told by the same exception.
            let met = std::mem::take(&mut core.met);
            if met != 0 {
                core.set_debug_status(met.into());
            }
            Source::Exception
        } else {
            Source::Trap
        };
        core.software_interrupt(VECTOR, source, back)
    })
}

fn into(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        if !core.flags.of() {
            return Ok(());
        }
        let back = core.next_rip;
        core.software_interrupt(vector::OF, Source::Trap, back)
    })
}

fn bound<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let index = T::get(core, op.r1).sext() as i64;
        let lin = Segmented::lin(core, op, 2 * T::BYTES, false)?;
        let low = core.load::<T>(lin)?.sext() as i64;
        let high = core.load::<T>(lin.wrapping_add(T::BYTES))?.sext() as i64;
        if index < low || index > high {
            return Err(core.raise(Fault::new(vector::BR)));
        }
        Ok(())
    })
}
