//! What instructions do, by the SDM's groups.
//!
//! Each instruction is a function, generic over operand size and form, that performs the first of some [`Op`]s and
//! those after it by a tail call. The `lookup` of each group says which function performs a decoded instruction;
//! [`lookup`] asks all of them. To add an instruction: its function and its row in the group's `lookup`.

mod alu;
mod atomic;
mod bcd;
mod bits;
mod branch;
mod calls;
mod flags;
mod io;
mod liveness;
mod mov;
mod muldiv;
mod shift;
mod stack;
mod string;
mod system;
mod tables;
mod units;
mod vector;
mod x87;
mod xsave;

use crate::frame::NO_PAGE;
use crate::ram::Cell;

use super::core::{Core, IP_PAGE};
use super::decode::{Handler, Ins, Op};
use super::fault::Stop;
use super::interp::CodeCache;
use crate::bus::PAGE_MASK;

/// The function that performs an instruction, if there is one.
pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    alu::lookup(ins)
        .or_else(|| mov::lookup(ins))
        .or_else(|| branch::lookup(ins))
        .or_else(|| stack::lookup(ins))
        .or_else(|| shift::lookup(ins))
        .or_else(|| muldiv::lookup(ins))
        .or_else(|| bits::lookup(ins))
        .or_else(|| string::lookup(ins))
        .or_else(|| flags::lookup(ins))
        .or_else(|| atomic::lookup(ins))
        .or_else(|| bcd::lookup(ins))
        .or_else(|| io::lookup(ins))
        .or_else(|| system::lookup(ins))
        .or_else(|| tables::lookup(ins))
        .or_else(|| calls::lookup(ins))
        .or_else(|| x87::lookup(ins))
        .or_else(|| vector::lookup(ins))
        .or_else(|| xsave::lookup(ins))
}

pub(super) use liveness::{Usage, usage};
pub(super) use system::ends_block;
use units::unit;

/// What is performed where there is no instruction.
pub(super) fn undefined(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| Err(core.ud()))
}

/// What is performed for more bytes than an instruction can have.
pub(super) fn too_long(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| Err(core.gp(0)))
}

/// Performs the first of `ops` by `f` and, by a tail call, those after it. Returns how many of `ops` have not been
/// completed: zero at the end of the block; after a jump, those behind it; after a [`Stop`] (which sets
/// [`Core::stopped`]), the instruction itself and those behind it. `memory` says whether `f` accesses memory, so
/// that it may have to be the last instruction before the run loop looks at what it caused.
#[inline(always)]
fn step(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    memory: bool,
    f: impl Fn(&mut Core, &Op) -> Result<(), Stop>,
) -> usize {
    let [op, rest @ ..] = ops else { return 0 };
    if f(core, op).is_err() {
        core.stopped = true;
        return ops.len();
    }
    if memory && core.leave {
        return leave(core, op, rest);
    }
    go_on(core, rest, code)
}

/// Performs the ops behind one that is complete.
#[inline(always)]
fn go_on(core: &mut Core, rest: &[Op], code: &CodeCache) -> usize {
    match rest {
        [next, ..] => (next.handler)(core, rest, code),
        [] => 0,
    }
}

/// [`step`] by a short way: `usual` does the whole of an instruction and says so, or does nothing. Then `complete` is
/// asked. It is called in this function's place: nothing has to be kept over a call.
#[inline(always)]
fn usually(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    usual: impl Fn(&mut Core, &Op) -> Option<()>,
    complete: Handler,
) -> usize {
    let [op, rest @ ..] = ops else { return 0 };
    match usual(core, op) {
        Some(()) => go_on(core, rest, code),
        None => complete(core, ops, code),
    }
}

#[cold]
fn leave(core: &mut Core, op: &Op, rest: &[Op]) -> usize {
    core.leave = false;
    core.next_rip = core.rip_after(op);
    rest.len()
}

/// [`step`] for instructions that leave the block: a jump, or something that the run loop must look at. `f` finds
/// [`Core::next_rip`] behind the instruction.
#[inline(always)]
fn ends(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    f: impl Fn(&mut Core, &Op) -> Result<(), Stop>,
) -> usize {
    let _ = code;
    let [op, rest @ ..] = ops else { return 0 };
    let before = core.next_rip;
    core.next_rip = core.rip_after(op);
    if f(core, op).is_err() {
        core.next_rip = before;
        core.stopped = true;
        return ops.len();
    }
    core.leave = false;
    rest.len()
}

/// [`ends`] for jumps, which need no look of the run loop: they go on with the block at their target.
#[inline(always)]
fn jumps(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    f: impl Fn(&mut Core, &Op) -> Result<(), Stop>,
) -> usize {
    let [op, rest @ ..] = ops else { return 0 };
    let before = core.next_rip;
    core.next_rip = core.rip_after(op);
    if f(core, op).is_err() {
        core.next_rip = before;
        core.stopped = true;
        return ops.len();
    }
    if core.leave {
        core.leave = false;
        return rest.len();
    }
    let offset = core.next_rip.wrapping_sub(core.gpr(IP_PAGE));
    chain(core, code, offset, rest.len())
}

/// Goes on with the block at `offset` from the beginning of the present page, which is where [`Core::next_rip`] leads,
/// after `undone` ops of the present block were jumped over. What is not at hand, or not to be done without a look at
/// other things, is left to the run loop.
#[inline(always)]
fn chain(core: &mut Core, code: &CodeCache, offset: u64, undone: usize) -> usize {
    if offset > PAGE_MASK {
        return chain_away(core, code, undone);
    }
    chain_here(core, code, offset, undone)
}

/// [`chain`] to another page.
#[inline(never)]
fn chain_away(core: &mut Core, code: &CodeCache, undone: usize) -> usize {
    let lin = core.code_linear(core.next_rip);
    // Translations may have been flushed, or the mode may be another one.
    if (core.cpu.retired > core.window) | core.poll | (core.page_lin == NO_PAGE) {
        return undone;
    }
    let Some(page) = code.known_page(lin, core.fetch_class) else { return undone };
    core.now_in_page(lin, page);
    let offset = lin & PAGE_MASK;
    core.set_gpr(IP_PAGE, core.next_rip.wrapping_sub(offset));
    chain_here(core, code, offset, undone)
}

/// [`chain`] to the present page.
#[inline(always)]
fn chain_here(core: &mut Core, code: &CodeCache, offset: u64, undone: usize) -> usize {
    let block = code.at(core.code_page + offset as usize);
    let ops = code.ops(block);
    let retired = core.cpu.retired - undone as u64 + ops.len() as u64;
    let behind = core.next_rip.wrapping_add(block.bytes());
    let Some(first) = ops.first() else { return undone };
    if (retired > core.window) | core.poll | (behind.wrapping_sub(1) > core.code_limit) {
        return undone;
    }
    core.cpu.retired = retired;
    core.block = block;
    core.next_rip = behind & core.lin_mask;
    (first.handler)(core, ops, code)
}

/// [`ends`] for instructions that serialise (SDM vol. 3, 9.3).
#[inline(always)]
fn serializes(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    f: impl Fn(&mut Core, &Op) -> Result<(), Stop>,
) -> usize {
    ends(core, ops, code, |core, op| {
        core.serialize();
        f(core, op)
    })
}

/// The operand sizes.
pub(super) trait Int: Cell + 'static {
    const BITS: u32 = Self::WIDTH.bits();
    const BYTES: u64 = Self::WIDTH.bytes();
    /// The register with the number that [`Op`]s hold.
    fn get(core: &Core, number: u8) -> Self;
    /// Writes a register: 32 bits clear the upper half, fewer leave the rest alone.
    fn put(core: &mut Core, number: u8, value: Self);
    /// Sign-extends to 64 bits.
    fn sext(self) -> u64;
}

/// The bit that marks AH, CH, DH and BH in a register's number.
pub(super) const HIGH_BYTE: u8 = 0x80;

impl Int for u8 {
    #[inline(always)]
    fn get(core: &Core, number: u8) -> u8 {
        (core.regs[usize::from(number & 31)] >> (number >> 7 << 3)) as u8
    }
    #[inline(always)]
    fn put(core: &mut Core, number: u8, value: u8) {
        let shift = number >> 7 << 3;
        let register = &mut core.regs[usize::from(number & 31)];
        *register = *register & !(0xff << shift) | u64::from(value) << shift;
    }
    #[inline(always)]
    fn sext(self) -> u64 {
        self as i8 as u64
    }
}

impl Int for u16 {
    #[inline(always)]
    fn get(core: &Core, number: u8) -> u16 {
        core.regs[usize::from(number & 31)] as u16
    }
    #[inline(always)]
    fn put(core: &mut Core, number: u8, value: u16) {
        let register = &mut core.regs[usize::from(number & 31)];
        *register = *register & !0xffff | u64::from(value);
    }
    #[inline(always)]
    fn sext(self) -> u64 {
        self as i16 as u64
    }
}

impl Int for u32 {
    #[inline(always)]
    fn get(core: &Core, number: u8) -> u32 {
        core.regs[usize::from(number & 31)] as u32
    }
    #[inline(always)]
    fn put(core: &mut Core, number: u8, value: u32) {
        core.regs[usize::from(number & 31)] = u64::from(value);
    }
    #[inline(always)]
    fn sext(self) -> u64 {
        self as i32 as u64
    }
}

impl Int for u64 {
    #[inline(always)]
    fn get(core: &Core, number: u8) -> u64 {
        core.regs[usize::from(number & 31)]
    }
    #[inline(always)]
    fn put(core: &mut Core, number: u8, value: u64) {
        core.regs[usize::from(number & 31)] = value;
    }
    #[inline(always)]
    fn sext(self) -> u64 {
        self
    }
}

/// How a memory operand's address becomes linear.
pub(super) trait Addr: 'static {
    /// The linear address of the operand of `len` bytes.
    fn lin(core: &mut Core, op: &Op, len: u64, write: bool) -> Result<u64, Stop>;
    /// The same, or nothing where [`lin`](Self::lin) must look more closely.
    fn usual_lin(core: &Core, op: &Op, len: u64, write: bool) -> Option<u64>;
}

/// 64-bit mode, 64-bit addresses, a segment without a base, no alignment check.
pub(super) enum Flat {}
/// Anything.
pub(super) enum Segmented {}

/// The offset that the operand's registers and displacement add up to.
#[inline(always)]
fn sum(core: &Core, op: &Op) -> u64 {
    let base = core.regs[usize::from(op.base & 31)];
    let index = core.regs[usize::from(op.index & 31)] << (op.scale & 3);
    base.wrapping_add(index).wrapping_add(op.disp)
}

/// The effective address of the operand.
#[inline(always)]
pub(super) fn effective(core: &Core, op: &Op) -> u64 {
    sum(core, op) & address_mask(op)
}

/// Bits of an effective address.
#[inline(always)]
pub(super) fn address_mask(op: &Op) -> u64 {
    u64::MAX >> (op.ashift & 63)
}

impl Addr for Flat {
    #[inline(always)]
    fn lin(core: &mut Core, op: &Op, _: u64, _: bool) -> Result<u64, Stop> {
        Ok(sum(core, op))
    }
    #[inline(always)]
    fn usual_lin(core: &Core, op: &Op, _: u64, _: bool) -> Option<u64> {
        Some(sum(core, op))
    }
}

impl Addr for Segmented {
    #[inline(always)]
    fn lin(core: &mut Core, op: &Op, len: u64, write: bool) -> Result<u64, Stop> {
        core.linear(op.seg, effective(core, op), len, write)
    }
    #[inline(always)]
    fn usual_lin(core: &Core, op: &Op, len: u64, write: bool) -> Option<u64> {
        if core.aligned { None } else { core.within(op.seg, effective(core, op), len, write) }
    }
}

impl Core {
    /// The linear address of `len` bytes at an offset into a segment.
    ///
    /// # Errors
    /// [`Stop`] if they are not all inside, or not aligned where alignment is checked.
    #[inline(always)]
    pub fn linear(&mut self, seg: u8, offset: u64, len: u64, write: bool) -> Result<u64, Stop> {
        let lin = self.linear_unaligned(seg, offset, len, write)?;
        // Longer operands are checked by the instructions that want them aligned, or not at all.
        if len <= 8 && len.is_power_of_two() && lin & (len - 1) != 0 {
            self.check_alignment(lin, len)?;
        }
        Ok(lin)
    }

    /// [`linear`](Self::linear) without the check of alignment.
    ///
    /// # Errors
    /// [`Stop`] if they are not all inside.
    #[inline(always)]
    pub fn linear_unaligned(
        &mut self,
        seg: u8,
        offset: u64,
        len: u64,
        write: bool,
    ) -> Result<u64, Stop> {
        match self.within(seg, offset, len, write) {
            Some(lin) => Ok(lin),
            None => Err(self.out_of_segment()),
        }
    }

    /// The linear address of `len` bytes at an offset into a segment if they are all inside.
    #[inline(always)]
    fn within(&self, seg: u8, offset: u64, len: u64, write: bool) -> Option<u64> {
        let reach = &self.reach[usize::from(seg & 7)];
        let span = if write { reach.write } else { reach.read };
        let at = offset.wrapping_sub(reach.first);
        // Segments of 64-bit mode have no end: what goes beyond the last address begins anew.
        if (at >= span || span - at < len) && !self.wide() {
            return None;
        }
        Some(offset.wrapping_add(reach.base) & self.lin_mask)
    }
}

/// Where an operand comes from.
pub(super) trait Src<T: Int>: 'static {
    const MEMORY: bool = false;
    fn get(core: &mut Core, op: &Op) -> Result<T, Stop>;
}

/// Where a result goes to.
pub(super) trait Dst<T: Int>: Src<T> {
    fn put(core: &mut Core, op: &Op, value: T) -> Result<(), Stop>;
    /// Replaces the operand by `f(old)` and returns the old one.
    fn update(core: &mut Core, op: &Op, f: impl Fn(T) -> T) -> Result<T, Stop>;
}

/// The first register operand.
pub(super) enum R1 {}
/// The second.
pub(super) enum R2 {}
/// The third.
pub(super) enum R3 {}
/// The immediate.
pub(super) enum Imm {}
/// The memory operand.
pub(super) struct Mem<A>(std::marker::PhantomData<A>);
/// The memory operand, with LOCK.
pub(super) enum Locked {}

macro_rules! register {
    ($name:ident, $field:ident) => {
        impl<T: Int> Src<T> for $name {
            #[inline(always)]
            fn get(core: &mut Core, op: &Op) -> Result<T, Stop> {
                Ok(T::get(core, op.$field))
            }
        }
        impl<T: Int> Dst<T> for $name {
            #[inline(always)]
            fn put(core: &mut Core, op: &Op, value: T) -> Result<(), Stop> {
                T::put(core, op.$field, value);
                Ok(())
            }
            #[inline(always)]
            fn update(core: &mut Core, op: &Op, f: impl Fn(T) -> T) -> Result<T, Stop> {
                let old = T::get(core, op.$field);
                T::put(core, op.$field, f(old));
                Ok(old)
            }
        }
    };
}
register!(R1, r1);
register!(R2, r2);
register!(R3, r3);

impl<T: Int> Src<T> for Imm {
    #[inline(always)]
    fn get(_: &mut Core, op: &Op) -> Result<T, Stop> {
        Ok(T::narrow(op.imm))
    }
}

impl<T: Int, A: Addr> Src<T> for Mem<A> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn get(core: &mut Core, op: &Op) -> Result<T, Stop> {
        let lin = A::lin(core, op, T::BYTES, false)?;
        core.load(lin)
    }
}

impl<T: Int, A: Addr> Dst<T> for Mem<A> {
    #[inline(always)]
    fn put(core: &mut Core, op: &Op, value: T) -> Result<(), Stop> {
        let lin = A::lin(core, op, T::BYTES, true)?;
        core.store(lin, value)
    }
    #[inline(always)]
    fn update(core: &mut Core, op: &Op, f: impl Fn(T) -> T) -> Result<T, Stop> {
        let lin = A::lin(core, op, T::BYTES, true)?;
        core.update(lin, f)
    }
}

impl<T: Int> Src<T> for Locked {
    const MEMORY: bool = true;
    #[inline(always)]
    fn get(core: &mut Core, op: &Op) -> Result<T, Stop> {
        Mem::<Segmented>::get(core, op)
    }
}

impl<T: Int> Dst<T> for Locked {
    #[inline(always)]
    fn put(core: &mut Core, op: &Op, value: T) -> Result<(), Stop> {
        Mem::<Segmented>::put(core, op, value)
    }
    #[inline(always)]
    fn update(core: &mut Core, op: &Op, f: impl Fn(T) -> T) -> Result<T, Stop> {
        let lin = Segmented::lin(core, op, T::BYTES, true)?;
        core.update_locked(lin, f)
    }
}

/// Instructions `dst, src`: the function for each size and form.
trait Family2 {
    fn handler<T: Int, D: Dst<T>, S: Src<T>>() -> Handler;
}

/// Instructions with one operand `dst`.
trait Family1 {
    fn handler<T: Int, D: Dst<T>>() -> Handler;
}

/// Instructions `register, src`.
trait FamilyR {
    fn handler<T: Int, S: Src<T>>() -> Handler;
}

/// `$body` with `$t` the operand type of `$bytes` bytes.
macro_rules! sized {
    ($bytes:expr, $t:ident, $body:expr) => {
        match $bytes {
            1 => {
                type $t = u8;
                $body
            }
            2 => {
                type $t = u16;
                $body
            }
            4 => {
                type $t = u32;
                $body
            }
            8 => {
                type $t = u64;
                $body
            }
            _ => None,
        }
    };
}
/// The same without bytes.
macro_rules! sized_word {
    ($bytes:expr, $t:ident, $body:expr) => {
        match $bytes {
            2 => {
                type $t = u16;
                $body
            }
            4 => {
                type $t = u32;
                $body
            }
            8 => {
                type $t = u64;
                $body
            }
            _ => None,
        }
    };
}
/// `$body` with `$c` a constant from 0 to 15.
macro_rules! each_condition {
    ($condition:expr, $c:ident, $body:expr) => {
        each_condition!(@ $condition, $c, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $condition:expr, $c:ident, $body:expr, $($n:literal)*) => {
        match $condition {
            $($n => {
                const $c: u8 = $n;
                $body
            })*
            _ => None,
        }
    };
}
use {each_condition, sized, sized_word};

/// The function of a family for the form `dst, src` of an instruction.
fn forms2<F: Family2>(ins: &Ins) -> Option<Handler> {
    fn of<F: Family2, T: Int>(ins: &Ins) -> Option<Handler> {
        Some(if ins.locked() {
            if ins.is_imm(1) {
                F::handler::<T, Locked, Imm>()
            } else {
                F::handler::<T, Locked, R2>()
            }
        } else if ins.is_mem(0) {
            match (ins.is_imm(1), ins.flat) {
                (true, true) => F::handler::<T, Mem<Flat>, Imm>(),
                (true, false) => F::handler::<T, Mem<Segmented>, Imm>(),
                (false, true) => F::handler::<T, Mem<Flat>, R2>(),
                (false, false) => F::handler::<T, Mem<Segmented>, R2>(),
            }
        } else if ins.is_mem(1) {
            if ins.flat {
                F::handler::<T, R1, Mem<Flat>>()
            } else {
                F::handler::<T, R1, Mem<Segmented>>()
            }
        } else if ins.is_imm(1) {
            F::handler::<T, R1, Imm>()
        } else {
            F::handler::<T, R1, R2>()
        })
    }
    sized!(ins.bytes(0), T, of::<F, T>(ins))
}

/// The function of a family for the one operand of an instruction.
fn forms1<F: Family1>(ins: &Ins) -> Option<Handler> {
    sized!(
        ins.bytes(0),
        T,
        Some(if ins.locked() {
            F::handler::<T, Locked>()
        } else if !ins.is_mem(0) {
            F::handler::<T, R1>()
        } else if ins.flat {
            F::handler::<T, Mem<Flat>>()
        } else {
            F::handler::<T, Mem<Segmented>>()
        })
    )
}

/// The function of a family for the form `register, src` of an instruction, not of bytes.
fn forms_r<F: FamilyR>(ins: &Ins) -> Option<Handler> {
    sized_word!(
        ins.bytes(0),
        T,
        Some(if !ins.is_mem(1) {
            F::handler::<T, R2>()
        } else if ins.flat {
            F::handler::<T, Mem<Flat>>()
        } else {
            F::handler::<T, Mem<Segmented>>()
        })
    )
}
