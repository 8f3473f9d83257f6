//! Multiplication and division (SDM vol. 1, 5.1.2).
//!
//! After multiplications SF, ZF, AF and PF are undefined: they are of the low half here, as on Intel's processors, with
//! ZF and AF clear. After divisions all flags are undefined: they stay.

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::{Int, Mem, R1, R2, Segmented, Src, sized, sized_word, step};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::{Fault, Stop, vector};
use crate::x86::flags::Lazy;
use crate::x86::state::gpr;

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    macro_rules! one {
        ($f:ident) => {
            sized!(
                ins.bytes(0),
                T,
                Some(if ins.is_mem(0) { $f::<T, Mem<Segmented>> } else { $f::<T, R1> })
            )
        };
    }
    match ins.mnemonic() {
        M::Mul => one!(mul),
        M::Imul if ins.raw().op_count() == 1 => one!(imul_wide),
        M::Imul => {
            // With two operands the first is a source, with three the immediate is.
            let by_imm = ins.raw().op_count() == 3;
            sized_word!(
                ins.bytes(0),
                T,
                Some(match (ins.is_mem(1), by_imm) {
                    (true, true) => imul::<T, Mem<Segmented>, true>,
                    (true, false) => imul::<T, Mem<Segmented>, false>,
                    (false, true) => imul::<T, R2, true>,
                    (false, false) => imul::<T, R2, false>,
                })
            )
        }
        M::Div => one!(div),
        M::Idiv => one!(idiv),
        M::Mulx => sized_word!(
            ins.bytes(0),
            T,
            Some(if ins.is_mem(2) { mulx::<T, Mem<Segmented>> } else { mulx::<T, super::R3> })
        ),
        _ => None,
    }
}

/// Flags of a product: CF and OF say that the high half matters.
fn product_flags(low: u64, wide: bool) -> Lazy {
    Lazy::product(low, wide, wide)
}

/// Puts a double-width result into AX, or the A and D registers.
#[inline(always)]
fn put_wide<T: Int>(core: &mut Core, low: T, high: T) {
    if T::BITS == 8 {
        u16::put(core, gpr::RAX, (low.widen() | high.widen() << 8) as u16);
    } else {
        T::put(core, gpr::RAX, low);
        T::put(core, gpr::RDX, high);
    }
}

/// The double-width dividend.
#[inline(always)]
fn dividend<T: Int>(core: &Core) -> u128 {
    if T::BITS == 8 {
        return u128::from(u16::get(core, gpr::RAX));
    }
    let (low, high) = (T::get(core, gpr::RAX), T::get(core, gpr::RDX));
    u128::from(high.widen()) << T::BITS | u128::from(low.widen())
}

fn mul<T: Int, S: Src<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let a = u128::from(S::get(core, op)?.widen());
        let product = a * u128::from(T::get(core, gpr::RAX).widen());
        let (low, high) = (T::narrow(product as u64), T::narrow((product >> T::BITS) as u64));
        put_wide(core, low, high);
        core.flags = product_flags(low.sext(), high.widen() != 0);
        Ok(())
    })
}

fn imul_wide<T: Int, S: Src<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let a = i128::from(S::get(core, op)?.sext() as i64);
        let product = a * i128::from(T::get(core, gpr::RAX).sext() as i64);
        let (low, high) = (T::narrow(product as u64), T::narrow((product >> T::BITS) as u64));
        put_wide(core, low, high);
        core.flags = product_flags(low.sext(), i128::from(low.sext() as i64) != product);
        Ok(())
    })
}

/// The function that performs IMUL of registers without setting flags.
pub(super) fn quiet(ins: &Ins) -> Option<Handler> {
    let by_imm = ins.raw().op_count() == 3;
    sized_word!(
        ins.bytes(0),
        T,
        Some(if by_imm { quiet_imul::<T, true> } else { quiet_imul::<T, false> })
    )
}

fn quiet_imul<T: Int, const IMM: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        let a = T::get(core, op.r2).widen();
        let b = if IMM { op.imm } else { T::get(core, op.r1).widen() };
        T::put(core, op.r1, T::narrow(a.wrapping_mul(b)));
        Ok(())
    })
}

fn imul<T: Int, S: Src<T>, const IMM: bool>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let a = S::get(core, op)?.sext() as i64;
        let b = if IMM { T::narrow(op.imm) } else { T::get(core, op.r1) };
        let b = b.sext() as i64;
        let (low, wide) = if T::BITS == 64 {
            a.overflowing_mul(b)
        } else {
            let product = a.wrapping_mul(b);
            (product, T::narrow(product as u64).sext() as i64 != product)
        };
        let low = T::narrow(low as u64);
        T::put(core, op.r1, low);
        core.flags = product_flags(low.sext(), wide);
        Ok(())
    })
}

#[cold]
fn divide_error(core: &mut Core) -> Stop {
    core.raise(Fault::new(vector::DE))
}

fn div<T: Int, S: Src<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let divisor = S::get(core, op)?.widen();
        if divisor == 0 {
            return Err(divide_error(core));
        }
        let dividend = dividend::<T>(core);
        // Division of 128 bits is slow, and the upper half is nearly always zero.
        let (quotient, rest) = match u64::try_from(dividend) {
            Ok(dividend) => (u128::from(dividend / divisor), dividend % divisor),
            Err(_) => {
                let divisor = u128::from(divisor);
                (dividend / divisor, (dividend % divisor) as u64)
            }
        };
        if quotient >> T::BITS != 0 {
            return Err(divide_error(core));
        }
        put_wide(core, T::narrow(quotient as u64), T::narrow(rest));
        Ok(())
    })
}

fn idiv<T: Int, S: Src<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let divisor = i128::from(S::get(core, op)?.sext() as i64);
        if divisor == 0 {
            return Err(divide_error(core));
        }
        let shift = 128 - 2 * T::BITS;
        let dividend = (dividend::<T>(core) << shift) as i128 >> shift;
        let small = i64::try_from(dividend).ok().zip(i64::try_from(divisor).ok());
        let (quotient, rest) = match small.and_then(|(a, b)| a.checked_div(b).zip(a.checked_rem(b)))
        {
            Some((quotient, rest)) => (i128::from(quotient), rest as u64),
            // Only -2^127 / -1 does not fit: an error as well.
            None => match dividend.checked_div(divisor) {
                Some(quotient) => (quotient, (dividend % divisor) as u64),
                None => return Err(divide_error(core)),
            },
        };
        let narrow = T::narrow(quotient as u64);
        if i128::from(narrow.sext() as i64) != quotient {
            return Err(divide_error(core));
        }
        put_wide(core, narrow, T::narrow(rest));
        Ok(())
    })
}

fn mulx<T: Int, S: Src<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let a = u128::from(S::get(core, op)?.widen());
        let product = a * u128::from(T::get(core, gpr::RDX).widen());
        // The high half wins if both go to one register.
        T::put(core, op.r2, T::narrow(product as u64));
        T::put(core, op.r1, T::narrow((product >> T::BITS) as u64));
        Ok(())
    })
}
