//! Operands: registers by size, immediates, memory by the way its address becomes linear.

use super::super::core::Core;
use super::super::decode::Op;
use super::super::fault::Stop;
use crate::ram::Cell;

/// The operand sizes.
pub(in crate::x86) trait Int: Cell + 'static {
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
pub(in crate::x86) const HIGH_BYTE: u8 = 0x80;

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
pub(in crate::x86) trait Addr: 'static {
    /// The linear address of the operand of `len` bytes.
    fn lin(core: &mut Core, op: &Op, len: u64, write: bool) -> Result<u64, Stop>;
    /// The same, or nothing where [`lin`](Self::lin) must look more closely.
    fn usual_lin(core: &Core, op: &Op, len: u64, write: bool) -> Option<u64>;
}

/// 64-bit mode, 64-bit addresses, a segment without a base, no alignment check.
pub(in crate::x86) enum Flat {}
/// Anything.
pub(in crate::x86) enum Segmented {}

/// The offset that the operand's registers and displacement add up to.
#[inline(always)]
pub(super) fn sum(core: &Core, op: &Op) -> u64 {
    let base = core.regs[usize::from(op.base & 31)];
    let index = core.regs[usize::from(op.index & 31)] << (op.scale & 3);
    base.wrapping_add(index).wrapping_add(op.disp)
}

/// The effective address of the operand.
#[inline(always)]
pub(in crate::x86) fn effective(core: &Core, op: &Op) -> u64 {
    sum(core, op) & address_mask(op)
}

/// Bits of an effective address.
#[inline(always)]
pub(in crate::x86) fn address_mask(op: &Op) -> u64 {
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
pub(in crate::x86) trait Src<T: Int>: 'static {
    const MEMORY: bool = false;
    fn get(core: &mut Core, op: &Op) -> Result<T, Stop>;
}

/// Where a result goes to.
pub(in crate::x86) trait Dst<T: Int>: Src<T> {
    fn put(core: &mut Core, op: &Op, value: T) -> Result<(), Stop>;
    /// Replaces the operand by `f(old)` and returns the old one.
    fn update(core: &mut Core, op: &Op, f: impl Fn(T) -> T) -> Result<T, Stop>;
}

/// The first register operand.
pub(in crate::x86) enum R1 {}
/// The second.
pub(in crate::x86) enum R2 {}
/// The third.
pub(in crate::x86) enum R3 {}
/// The immediate.
pub(in crate::x86) enum Imm {}
/// The memory operand.
pub(in crate::x86) struct Mem<A>(std::marker::PhantomData<A>);
/// The memory operand, with LOCK.
pub(in crate::x86) enum Locked {}

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
