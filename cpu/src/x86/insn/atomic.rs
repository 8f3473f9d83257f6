//! Exchange-and-add, compare-and-exchange (SDM vol. 1, 5.1.1).

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::alu::{Add, Operation, Sub};
use super::{Addr, Dst, Family2, Int, Segmented, Src, forms2, step};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::flags::bit;
use crate::x86::state::gpr;

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    match ins.mnemonic() {
        M::Xadd => forms2::<Xadd>(ins),
        M::Cmpxchg => forms2::<CmpXchg>(ins),
        M::Cmpxchg8b => Some(cmpxchg8b),
        M::Cmpxchg16b => Some(cmpxchg16b),
        _ => None,
    }
}

struct Xadd;

impl Family2 for Xadd {
    fn handler<T: Int, D: Dst<T>, S: Src<T>>() -> Handler {
        xadd::<T, D>
    }
}

fn xadd<T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, D::MEMORY, |core, op| {
        let b = T::get(core, op.r2).widen();
        let sum = |a: T| T::narrow(a.widen().wrapping_add(b));
        if D::MEMORY {
            let a = D::update(core, op, sum)?;
            T::put(core, op.r2, a);
            core.flags = Add::flags(a.widen(), b, sum(a).sext(), T::BITS);
        } else {
            // The sum wins if both operands are one register.
            let a = T::get(core, op.r1);
            T::put(core, op.r2, a);
            T::put(core, op.r1, sum(a));
            core.flags = Add::flags(a.widen(), b, sum(a).sext(), T::BITS);
        }
        Ok(())
    })
}

struct CmpXchg;

impl Family2 for CmpXchg {
    fn handler<T: Int, D: Dst<T>, S: Src<T>>() -> Handler {
        cmpxchg::<T, D>
    }
}

fn cmpxchg<T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, D::MEMORY, |core, op| {
        let expected = T::get(core, gpr::RAX);
        let new = T::get(core, op.r2);
        let equal = |found: T| found.widen() == expected.widen();
        // Memory is written in any case (SDM vol. 2). A 32-bit register that is not equal keeps its upper half.
        let found = if D::MEMORY {
            D::update(core, op, |found| if equal(found) { new } else { found })?
        } else {
            let found = D::get(core, op)?;
            if equal(found) {
                D::put(core, op, new)?;
            }
            found
        };
        if !equal(found) {
            T::put(core, gpr::RAX, found);
        }
        let (a, b) = (expected.widen(), found.widen());
        core.flags = Sub::flags(a, b, T::narrow(a.wrapping_sub(b)).sext(), T::BITS);
        Ok(())
    })
}

fn cmpxchg8b(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let pair = |core: &Core, high, low| core.gpr(high) << 32 | core.gpr(low) & 0xffff_ffff;
        let expected = pair(core, gpr::RDX, gpr::RAX);
        let new = pair(core, gpr::RCX, gpr::RBX);
        let lin = Segmented::lin(core, op, 8, true)?;
        // Without LOCK one step does no harm.
        let found =
            core.update_locked::<u64>(lin, |found| if found == expected { new } else { found })?;
        if found != expected {
            core.set_gpr(gpr::RAX, found & 0xffff_ffff);
            core.set_gpr(gpr::RDX, found >> 32);
        }
        core.flags.replace(bit::ZF, if found == expected { bit::ZF } else { 0 });
        Ok(())
    })
}

fn cmpxchg16b(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let pair =
            |core: &Core, high, low| u128::from(core.gpr(high)) << 64 | u128::from(core.gpr(low));
        let expected = pair(core, gpr::RDX, gpr::RAX);
        let new = pair(core, gpr::RCX, gpr::RBX);
        let lin = core.linear(op.seg, super::effective(core, op), 16, true)?;
        if lin & 15 != 0 {
            return Err(core.gp(0));
        }
        let found = core.compare_exchange_16(lin, expected, new)?;
        if found != expected {
            core.set_gpr(gpr::RAX, found as u64);
            core.set_gpr(gpr::RDX, (found >> 64) as u64);
        }
        core.flags.replace(bit::ZF, if found == expected { bit::ZF } else { 0 });
        Ok(())
    })
}
