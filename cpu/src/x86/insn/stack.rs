//! The stack: PUSH, POP and their relatives (SDM vol. 1, 6.2).

use iced_x86::{Code, Mnemonic as M, Register};

use super::CodeCache;
use super::{Dst, Flat, Imm, Int, Mem, R1, Segmented, Src, ends, sized_word, step};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::{Stop, vector};
use crate::x86::flags::bit;
use crate::x86::state::{Shadow, cr4, gpr, sreg};

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    let raw = ins.raw();
    let moved = usize::try_from(raw.stack_pointer_increment().unsigned_abs()).ok()?;
    match ins.mnemonic() {
        M::Push => sized_word!(
            moved,
            T,
            Some(if ins.is_imm(0) {
                push::<T, Imm>
            } else if ins.is_mem(0) {
                if ins.flat { push::<T, Mem<Flat>> } else { push::<T, Mem<Segmented>> }
            } else if raw.op_register(0).is_segment_register() {
                push_segment::<T>
            } else {
                push::<T, R1>
            })
        ),
        M::Pop => sized_word!(
            moved,
            T,
            Some(if ins.is_mem(0) {
                pop::<T, Mem<Segmented>>
            } else if raw.op_register(0).is_segment_register() {
                if raw.op_register(0) == Register::CS {
                    return None;
                }
                pop_segment::<T>
            } else {
                pop::<T, R1>
            })
        ),
        M::Pusha | M::Pushad => sized_word!(moved / 8, T, Some(pusha::<T>)),
        M::Popa | M::Popad => sized_word!(moved / 8, T, Some(popa::<T>)),
        M::Pushf | M::Pushfd | M::Pushfq => sized_word!(moved, T, Some(pushf::<T>)),
        M::Popf | M::Popfd | M::Popfq => sized_word!(moved, T, Some(popf::<T>)),
        M::Enter => match ins.code() {
            Code::Enterw_imm16_imm8 => Some(enter::<u16>),
            Code::Enterd_imm16_imm8 => Some(enter::<u32>),
            _ => Some(enter::<u64>),
        },
        M::Leave => match ins.code() {
            Code::Leavew => Some(leave::<u16>),
            Code::Leaved => Some(leave::<u32>),
            _ => Some(leave::<u64>),
        },
        _ => None,
    }
}

impl Core {
    /// Whether linear addresses have 64 bits: 64-bit mode.
    #[inline(always)]
    #[must_use]
    pub fn wide(&self) -> bool {
        self.lin_mask == u64::MAX
    }

    /// The linear address of `len` bytes at an offset into the stack segment.
    #[inline]
    fn stack_linear(&mut self, offset: u64, len: u64, write: bool) -> Result<u64, Stop> {
        let mask = self.stack_mask();
        match self.linear(sreg::SS, offset & mask, len, write) {
            Ok(lin) => Ok(lin),
            Err(Stop) => Err(self.stack_fault()),
        }
    }

    /// Makes the #GP of an address outside its segment the #SS of the stack segment.
    #[cold]
    pub(in crate::x86) fn stack_fault(&mut self) -> Stop {
        if std::mem::take(&mut self.by_segment) {
            self.fault.vector = vector::SS;
        }
        Stop
    }

    /// Pushes a value onto the stack.
    ///
    /// # Errors
    /// #SS, #PF, #AC; the stack pointer has not moved then.
    #[inline(always)]
    pub(in crate::x86) fn push<T: Int>(&mut self, value: T) -> Result<(), Stop> {
        let sp = self.gpr(gpr::RSP).wrapping_sub(T::BYTES);
        if self.wide() && self.tlb.store_any(sp, value) && !self.aligned {
            self.set_gpr(gpr::RSP, sp);
            return Ok(());
        }
        self.push_slow(sp, value)
    }

    #[inline(never)]
    fn push_slow<T: Int>(&mut self, sp: u64, value: T) -> Result<(), Stop> {
        let lin = self.stack_linear(sp, T::BYTES, true)?;
        if self.store(lin, value).is_err() {
            return Err(self.stack_fault());
        }
        self.set_sp(sp);
        Ok(())
    }

    /// The value at an offset from the stack pointer.
    ///
    /// # Errors
    /// #SS, #PF, #AC.
    #[inline(always)]
    pub(in crate::x86) fn peek<T: Int>(&mut self, offset: u64) -> Result<T, Stop> {
        let sp = self.gpr(gpr::RSP).wrapping_add(offset);
        if self.wide()
            && !self.aligned
            && let Some(value) = self.tlb.load_any(sp)
        {
            return Ok(value);
        }
        self.peek_slow(sp)
    }

    #[inline(never)]
    fn peek_slow<T: Int>(&mut self, sp: u64) -> Result<T, Stop> {
        let lin = self.stack_linear(sp, T::BYTES, false)?;
        match self.load(lin) {
            Ok(value) => Ok(value),
            Err(Stop) => Err(self.stack_fault()),
        }
    }

    /// Moves the stack pointer up.
    #[inline(always)]
    pub(in crate::x86) fn release(&mut self, bytes: u64) {
        let sp = self.gpr(gpr::RSP).wrapping_add(bytes);
        if self.wide() {
            self.set_gpr(gpr::RSP, sp);
        } else {
            self.set_sp(sp);
        }
    }

    /// I/O privilege level.
    #[inline]
    #[must_use]
    pub fn iopl(&self) -> u8 {
        (self.cpu.rflags >> 12 & 3) as u8
    }
}

fn push<T: Int, S: Src<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let value = S::get(core, op)?;
        core.push(value)
    })
}

fn push_segment<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let selector = core.segment(op.r1).selector;
        if T::BITS == 32 {
            // Processors write the selector alone and leave the bytes above it as they are.
            let sp = core.gpr(gpr::RSP).wrapping_sub(4);
            let lin = core.stack_linear(sp, 4, true)?;
            core.store(lin, selector)?;
            core.set_sp(sp);
            return Ok(());
        }
        core.push(T::narrow(u64::from(selector)))
    })
}

fn pop<T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let value = core.peek::<T>(0)?;
        // The address of the destination is computed with the new stack pointer; and what is popped into the
        // stack pointer stays there.
        let old = core.gpr(gpr::RSP);
        core.release(T::BYTES);
        if D::put(core, op, value).is_err() {
            core.set_gpr(gpr::RSP, old);
            return Err(Stop);
        }
        Ok(())
    })
}

fn pop_segment<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        let selector = core.peek::<u16>(0)?;
        // The stack pointer moves as the old stack segment says.
        let (old, mask) = (core.gpr(gpr::RSP), core.stack_mask());
        core.load_segment(op.r1, selector)?;
        let sp = old.wrapping_add(T::BYTES);
        core.set_gpr(gpr::RSP, if mask == 0xffff { old & !mask | sp & mask } else { sp & mask });
        if op.r1 == sreg::SS {
            core.cpu.shadow = Shadow::MovSs;
            core.poll = true;
        }
        Ok(())
    })
}

fn pusha<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, _| {
        let old = core.gpr(gpr::RSP);
        // All or nothing.
        let bottom = old.wrapping_sub(8 * T::BYTES) & core.stack_mask();
        for register in 0..8 {
            let lin =
                core.stack_linear(bottom.wrapping_add(register * T::BYTES), T::BYTES, true)?;
            core.probe_write(lin, T::BYTES)?;
        }
        for register in 0..8 {
            let value = if register == gpr::RSP { T::narrow(old) } else { T::get(core, register) };
            core.push(value)?;
        }
        Ok(())
    })
}

fn popa<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, _| {
        let mut values = [T::narrow(0); 8];
        for (value, slot) in values.iter_mut().rev().zip(0..) {
            *value = core.peek(slot * T::BYTES)?;
        }
        core.release(8 * T::BYTES);
        for (register, value) in (0..).zip(values) {
            if register != gpr::RSP {
                T::put(core, register, value);
            }
        }
        Ok(())
    })
}

/// Whether virtual-8086 mode extensions turn PUSHF, POPF into instructions on VIF.
fn virtual_flags(core: &Core) -> bool {
    core.v86() && core.iopl() < 3
}

fn pushf<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, _| {
        let mut flags = core.rflags() & !(bit::RF | bit::VM);
        if virtual_flags(core) {
            if T::BITS != 16 || core.cpu.cr4 & cr4::VME == 0 {
                return Err(core.gp(0));
            }
            flags = core.virtual_flags();
        }
        core.push(T::narrow(flags))
    })
}

fn popf<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        let popped = core.peek::<T>(0)?.widen();
        let old = core.rflags();
        if virtual_flags(core) {
            if T::BITS != 16 {
                return Err(core.gp(0));
            }
            core.set_virtual_flags(popped)?;
        } else {
            let mut mask = bit::ARITH | bit::TF | bit::DF | bit::NT;
            if T::BITS > 16 {
                mask |= bit::AC | bit::ID;
            }
            if core.cpu.cpl == 0 {
                mask |= bit::IOPL;
            }
            if core.cpu.cpl <= core.iopl() {
                mask |= bit::IF;
            }
            core.set_rflags((old & !mask | popped & mask) & !bit::RF);
        }
        core.release(T::BYTES);
        Ok(())
    })
}

fn enter<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let (space, levels) = (op.imm & 0xffff, op.disp & 31);
        let (rsp, rbp) = (core.gpr(gpr::RSP), core.gpr(gpr::RBP));
        let result = enter_frame::<T>(core, space, levels);
        if result.is_err() {
            core.set_gpr(gpr::RSP, rsp);
            core.set_gpr(gpr::RBP, rbp);
        }
        result
    })
}

fn enter_frame<T: Int>(core: &mut Core, space: u64, levels: u64) -> Result<(), Stop> {
    let old = T::get(core, gpr::RBP);
    core.push(old)?;
    let frame = core.gpr(gpr::RSP);
    if levels > 0 {
        let mut from = core.gpr(gpr::RBP);
        for _ in 1..levels {
            from = from.wrapping_sub(T::BYTES);
            let lin = core.stack_linear(from, T::BYTES, false)?;
            let Ok(link) = core.load::<T>(lin) else { return Err(core.stack_fault()) };
            core.push(link)?;
        }
        core.push(T::narrow(frame))?;
    }
    let sp = core.gpr(gpr::RSP).wrapping_sub(space);
    // The new top of the stack must be writable (SDM vol. 2, ENTER).
    let lin = core.stack_linear(sp, T::BYTES, true)?;
    core.probe_write(lin, T::BYTES)?;
    core.set_sp(sp);
    T::put(core, gpr::RBP, T::narrow(frame));
    Ok(())
}

fn leave<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, _| {
        let old = core.gpr(gpr::RSP);
        let frame = core.gpr(gpr::RBP);
        if core.wide() {
            core.set_gpr(gpr::RSP, frame);
        } else {
            core.set_sp(frame);
        }
        match core.peek::<T>(0) {
            Ok(value) => {
                core.release(T::BYTES);
                T::put(core, gpr::RBP, value);
                Ok(())
            }
            Err(Stop) => {
                core.set_gpr(gpr::RSP, old);
                Err(Stop)
            }
        }
    })
}
