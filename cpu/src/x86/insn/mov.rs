//! Data transfer and conversion (SDM vol. 1, 5.1.1), SETcc, LEA, XLAT.

use iced_x86::{Mnemonic as M, Register};

use super::CodeCache;
use super::branch::condition;
use super::{
    Addr, Dst, Family1, Family2, FamilyR, Flat, Int, Mem, Segmented, Src, address_mask,
    each_condition, effective, ends, forms_r, forms1, forms2, sized, sized_word, step,
};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::state::{Shadow, gpr, sreg};

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    let m = ins.mnemonic();
    match m {
        M::Mov => mov_lookup(ins),
        M::Movzx => extend_lookup::<Zero>(ins),
        M::Movsx | M::Movsxd => extend_lookup::<Sign>(ins),
        M::Lea => {
            sized_word!(ins.bytes(0), T, Some(if ins.flat { lea_flat::<T> } else { lea::<T> }))
        }
        M::Xchg => sized!(
            ins.bytes(0),
            T,
            Some(match (ins.is_mem(0), ins.is_mem(1)) {
                (false, false) => exchange::<T>,
                // One of the two is memory: always locked (SDM vol. 3, 10.1.2.1).
                (true, _) => exchange_memory::<T, false>,
                (false, true) => exchange_memory::<T, true>,
            })
        ),
        M::Bswap => sized_word!(ins.bytes(0), T, Some(bswap::<T>)),
        M::Movbe => sized_word!(
            ins.bytes(0),
            T,
            Some(if ins.is_mem(0) { movbe_store::<T> } else { movbe_load::<T> })
        ),
        M::Cbw => Some(widen::<u8, u16>),
        M::Cwde => Some(widen::<u16, u32>),
        M::Cdqe => Some(widen::<u32, u64>),
        M::Cwd => Some(spread::<u16>),
        M::Cdq => Some(spread::<u32>),
        M::Cqo => Some(spread::<u64>),
        M::Xlatb => Some(xlat),
        // Not a move: nothing is done, not even with the operand.
        M::Nop
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchw
        | M::Prefetch
        | M::Reservednop
        | M::Rdsspd
        | M::Rdsspq
        | M::Endbr64
        | M::Endbr32 => Some(nothing),
        _ => {
            let name = format_condition(ins)?;
            if is_cmov(m) {
                each_condition!(name, C, forms_r::<Cmov<C>>(ins))
            } else if is_set(m) {
                each_condition!(name, C, forms1::<Set<C>>(ins))
            } else {
                None
            }
        }
    }
}

/// The condition in an instruction's opcode, 0 to 15.
fn format_condition(ins: &Ins) -> Option<u8> {
    (ins.raw().condition_code() as u8).checked_sub(1)
}

fn is_cmov(m: M) -> bool {
    matches!(
        m,
        M::Cmovo
            | M::Cmovno
            | M::Cmovb
            | M::Cmovae
            | M::Cmove
            | M::Cmovne
            | M::Cmovbe
            | M::Cmova
            | M::Cmovs
            | M::Cmovns
            | M::Cmovp
            | M::Cmovnp
            | M::Cmovl
            | M::Cmovge
            | M::Cmovle
            | M::Cmovg
    )
}

fn is_set(m: M) -> bool {
    matches!(
        m,
        M::Seto
            | M::Setno
            | M::Setb
            | M::Setae
            | M::Sete
            | M::Setne
            | M::Setbe
            | M::Seta
            | M::Sets
            | M::Setns
            | M::Setp
            | M::Setnp
            | M::Setl
            | M::Setge
            | M::Setle
            | M::Setg
    )
}

fn nothing(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |_, _| Ok(()))
}

fn mov_lookup(ins: &Ins) -> Option<Handler> {
    let register = |operand| {
        if ins.is_reg(operand) { ins.raw().op_register(operand) } else { Register::None }
    };
    let (to, from) = (register(0), register(1));
    if to.is_segment_register() {
        return match (to, ins.is_mem(1)) {
            (Register::CS, _) => None,
            (_, true) => Some(load_segment::<Mem<Segmented>>),
            (_, false) => Some(load_segment::<super::R2>),
        };
    }
    if from.is_segment_register() {
        // Memory takes 16 bits whatever the operand size.
        return if ins.is_mem(0) {
            Some(store_segment::<u16, Mem<Segmented>>)
        } else {
            sized_word!(ins.bytes(0), T, Some(store_segment::<T, super::R1>))
        };
    }
    if to.is_cr() || from.is_cr() || to.is_dr() || from.is_dr() || to.is_tr() || from.is_tr() {
        return None;
    }
    forms2::<Mov>(ins)
}

struct Mov;

impl Family2 for Mov {
    fn handler<T: Int, D: Dst<T>, S: Src<T>>() -> Handler {
        mov::<T, D, S>
    }
}

fn mov<T: Int, D: Dst<T>, S: Src<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, D::MEMORY || S::MEMORY, |core, op| {
        let value = S::get(core, op)?;
        D::put(core, op, value)
    })
}

fn store_segment<T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, D::MEMORY, |core, op| {
        let selector = core.segment(op.r2).selector;
        D::put(core, op, T::narrow(u64::from(selector)))
    })
}

fn load_segment<S: Src<u16>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        let selector = S::get(core, op)?;
        core.load_segment(op.r1, selector)?;
        if op.r1 == sreg::SS {
            core.cpu.shadow = Shadow::MovSs;
            core.poll = true;
        }
        Ok(())
    })
}

/// How a smaller value becomes a larger one.
trait Extension: 'static {
    fn extend<T: Int>(value: T) -> u64;
}
enum Zero {}
enum Sign {}
impl Extension for Zero {
    #[inline(always)]
    fn extend<T: Int>(value: T) -> u64 {
        value.widen()
    }
}
impl Extension for Sign {
    #[inline(always)]
    fn extend<T: Int>(value: T) -> u64 {
        value.sext()
    }
}

fn extend_lookup<E: Extension>(ins: &Ins) -> Option<Handler> {
    fn of<E: Extension, F: Int, T: Int>(ins: &Ins) -> Option<Handler> {
        Some(if !ins.is_mem(1) {
            extend::<E, F, T, super::R2>
        } else if ins.flat {
            extend::<E, F, T, Mem<Flat>>
        } else {
            extend::<E, F, T, Mem<Segmented>>
        })
    }
    match ins.bytes(1) {
        1 => sized_word!(ins.bytes(0), T, of::<E, u8, T>(ins)),
        2 => sized_word!(ins.bytes(0), T, of::<E, u16, T>(ins)),
        4 => sized_word!(ins.bytes(0), T, of::<E, u32, T>(ins)),
        _ => None,
    }
}

fn extend<E: Extension, F: Int, T: Int, S: Src<F>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let value = E::extend(S::get(core, op)?);
        T::put(core, op.r1, T::narrow(value));
        Ok(())
    })
}

fn lea_flat<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        // Flat: the effective address is the linear one.
        let address = Flat::lin(core, op, 0, false)?;
        T::put(core, op.r1, T::narrow(address));
        Ok(())
    })
}

fn lea<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        T::put(core, op.r1, T::narrow(effective(core, op)));
        Ok(())
    })
}

fn exchange<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        let (a, b) = (T::get(core, op.r1), T::get(core, op.r2));
        T::put(core, op.r1, b);
        T::put(core, op.r2, a);
        Ok(())
    })
}

fn exchange_memory<T: Int, const FIRST: bool>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, true, |core, op| {
        let register = if FIRST { op.r1 } else { op.r2 };
        let new = T::get(core, register);
        let lin = Segmented::lin(core, op, T::BYTES, true)?;
        let old = core.update_locked(lin, |_| new)?;
        T::put(core, register, old);
        Ok(())
    })
}

fn swapped<T: Int>(value: T) -> T {
    T::narrow(value.widen().swap_bytes() >> (64 - T::BITS))
}

fn bswap<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        // Of 16 bits it is undefined; processors clear them.
        let value = if T::BITS == 16 { T::narrow(0) } else { swapped(T::get(core, op.r1)) };
        T::put(core, op.r1, value);
        Ok(())
    })
}

fn movbe_load<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let value = <Mem<Segmented> as Src<T>>::get(core, op)?;
        T::put(core, op.r1, swapped(value));
        Ok(())
    })
}

fn movbe_store<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let value = swapped(T::get(core, op.r2));
        <Mem<Segmented> as Dst<T>>::put(core, op, value)
    })
}

fn widen<F: Int, T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        let value = F::get(core, gpr::RAX).sext();
        T::put(core, gpr::RAX, T::narrow(value));
        Ok(())
    })
}

fn spread<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        let sign = (T::get(core, gpr::RAX).sext() as i64 >> 63) as u64;
        T::put(core, gpr::RDX, T::narrow(sign));
        Ok(())
    })
}

fn xlat(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let at = core.gpr(gpr::RBX).wrapping_add(core.gpr(gpr::RAX) & 0xff) & address_mask(op);
        let lin = core.linear(op.seg, at, 1, false)?;
        let value: u8 = core.load(lin)?;
        u8::put(core, gpr::RAX, value);
        Ok(())
    })
}

struct Cmov<const C: u8>;

impl<const C: u8> FamilyR for Cmov<C> {
    fn handler<T: Int, S: Src<T>>() -> Handler {
        cmov::<C, T, S>
    }
}

fn cmov<const C: u8, T: Int, S: Src<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        // The source is read, and 32 bits clear the upper half, whatever the condition.
        let new = S::get(core, op)?;
        let value = if condition::<C>(core.flags) { new } else { T::get(core, op.r1) };
        T::put(core, op.r1, value);
        Ok(())
    })
}

struct Set<const C: u8>;

impl<const C: u8> Family1 for Set<C> {
    fn handler<T: Int, D: Dst<T>>() -> Handler {
        set::<C, T, D>
    }
}

fn set<const C: u8, T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, D::MEMORY, |core, op| {
        let value = u64::from(condition::<C>(core.flags));
        D::put(core, op, T::narrow(value))
    })
}
