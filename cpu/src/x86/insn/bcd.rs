//! Decimal arithmetic (SDM vol. 1, 5.1.3).

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::{Int, step};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::{Fault, vector};
use crate::x86::flags::{Lazy, bit};
use crate::x86::state::gpr;

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    Some(match ins.mnemonic() {
        M::Daa => packed::<false>,
        M::Das => packed::<true>,
        M::Aaa => unpacked::<false>,
        M::Aas => unpacked::<true>,
        M::Aam => aam,
        M::Aad => aad,
        _ => return None,
    })
}

fn set_flags(core: &mut Core, al: u8, cf: bool, af: bool) {
    core.flags = Lazy::result(al.sext(), cf, false);
    core.flags.replace(bit::AF, if af { bit::AF } else { 0 });
}

/// DAA and DAS.
fn packed<const SUBTRACT: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        let old = u8::get(core, gpr::RAX);
        let (cf, af) = (core.flags.cf(), core.flags.af());
        let adjust = |value: u8, by: u8| {
            if SUBTRACT { value.overflowing_sub(by) } else { value.overflowing_add(by) }
        };
        let (mut al, mut carry) = (old, false);
        let low = old & 0xf > 9 || af;
        if low {
            let (value, over) = adjust(al, 6);
            al = value;
            carry = cf || over;
        }
        let high = old > 0x99 || cf;
        if high {
            al = adjust(al, 0x60).0;
            carry = true;
        } else if !SUBTRACT {
            carry = false;
        }
        u8::put(core, gpr::RAX, al);
        set_flags(core, al, carry, low);
        Ok(())
    })
}

/// AAA and AAS.
fn unpacked<const SUBTRACT: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        let mut ax = u16::get(core, gpr::RAX);
        let adjust = ax & 0xf > 9 || core.flags.af();
        if adjust {
            ax = if SUBTRACT { ax.wrapping_sub(0x106) } else { ax.wrapping_add(0x106) };
        }
        ax &= 0xff0f;
        u16::put(core, gpr::RAX, ax);
        set_flags(core, ax as u8, adjust, adjust);
        Ok(())
    })
}

fn aam(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        let base = op.imm as u8;
        let al = u8::get(core, gpr::RAX);
        let (Some(high), Some(low)) = (al.checked_div(base), al.checked_rem(base)) else {
            return Err(core.raise(Fault::new(vector::DE)));
        };
        u16::put(core, gpr::RAX, u16::from(high) << 8 | u16::from(low));
        set_flags(core, low, false, false);
        Ok(())
    })
}

fn aad(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        let ax = u16::get(core, gpr::RAX);
        let al = (ax as u8).wrapping_add(((ax >> 8) as u8).wrapping_mul(op.imm as u8));
        u16::put(core, gpr::RAX, u16::from(al));
        set_flags(core, al, false, false);
        Ok(())
    })
}
