//! Descriptor tables, and what software learns of descriptors (SDM vol. 1, 5.20); loads of far pointers.

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::branch::far_pointer;
use super::system::not_prevented;
use super::{
    Dst, Int, Mem, R1, R2, Segmented, Src, address_mask, effective, ends, serializes, sized_word,
};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::{Stop, vector};
use crate::x86::flags::bit;
use crate::x86::seg::{Descriptor, is_null, system};
use crate::x86::state::{Segment, TableRegister, rights, sreg};

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    let word = |ins: &Ins| if ins.is_mem(0) { 2 } else { ins.bytes(0) };
    macro_rules! selector_source {
        ($f:ident) => {
            Some(if ins.is_mem(0) { $f::<Mem<Segmented>> } else { $f::<R1> })
        };
    }
    macro_rules! selector_target {
        ($f:ident) => {
            sized_word!(
                word(ins),
                T,
                Some(if ins.is_mem(0) { $f::<T, Mem<Segmented>> } else { $f::<T, R1> })
            )
        };
    }
    Some(match ins.mnemonic() {
        M::Lgdt => load_table::<false>,
        M::Lidt => load_table::<true>,
        M::Sgdt => store_table::<false>,
        M::Sidt => store_table::<true>,
        M::Lldt => return selector_source!(lldt),
        M::Ltr => return selector_source!(ltr),
        M::Sldt => return selector_target!(sldt),
        M::Str => return selector_target!(str),
        M::Verr => return selector_source!(verr),
        M::Verw => return selector_source!(verw),
        M::Lar => {
            return sized_word!(
                ins.bytes(0),
                T,
                Some(if ins.is_mem(1) { lar::<T, Mem<Segmented>> } else { lar::<T, R2> })
            );
        }
        M::Lsl => {
            return sized_word!(
                ins.bytes(0),
                T,
                Some(if ins.is_mem(1) { lsl::<T, Mem<Segmented>> } else { lsl::<T, R2> })
            );
        }
        M::Arpl => return selector_source!(arpl),
        M::Lds => return far_load::<{ sreg::DS }>(ins),
        M::Les => return far_load::<{ sreg::ES }>(ins),
        M::Lss => return far_load::<{ sreg::SS }>(ins),
        M::Lfs => return far_load::<{ sreg::FS }>(ins),
        M::Lgs => return far_load::<{ sreg::GS }>(ins),
        _ => return None,
    })
}

/// The limit and base of LGDT, LIDT, SGDT, SIDT lie one behind the other.
fn table_operand(core: &mut Core, op: &Op, write: bool) -> Result<(u64, u64), Stop> {
    let len = if core.wide() { 8 } else { 4 };
    let at = effective(core, op);
    let limit = core.linear(op.seg, at, 2, write)?;
    let base = core.linear(op.seg, at.wrapping_add(2) & address_mask(op), len, write)?;
    Ok((limit, base))
}

fn load_table<const IDT: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    serializes(core, ops, code, |core, op| {
        core.need_cpl0()?;
        let (at_limit, at_base) = table_operand(core, op, false)?;
        let limit: u16 = core.load(at_limit)?;
        let base = if core.wide() {
            core.load::<u64>(at_base)?
        } else {
            // With 16-bit operands the base has 24 bits; iced tells by the operand's size of five bytes.
            let base: u32 = core.load(at_base)?;
            u64::from(if op.size == 5 { base & 0xff_ffff } else { base })
        };
        if core.wide() && !core.is_canonical_base(base) {
            return Err(core.gp(0));
        }
        let register = TableRegister { base, limit };
        if IDT {
            core.cpu.idtr = register;
        } else {
            core.cpu.gdtr = register;
        }
        Ok(())
    })
}

fn store_table<const IDT: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        not_prevented(core)?;
        let register = if IDT { core.cpu.idtr } else { core.cpu.gdtr };
        let (at_limit, at_base) = table_operand(core, op, true)?;
        core.probe_write(at_base, if core.wide() { 8 } else { 4 })?;
        core.store(at_limit, register.limit)?;
        if core.wide() {
            core.store(at_base, register.base)
        } else {
            core.store(at_base, register.base as u32)
        }
    })
}

/// #UD in real and virtual-8086 mode.
fn need_protected(core: &mut Core) -> Result<(), Stop> {
    if core.paragraphs() { Err(core.ud()) } else { Ok(()) }
}

fn lldt<S: Src<u16>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    serializes(core, ops, code, |core, op| {
        need_protected(core)?;
        core.need_cpl0()?;
        let selector = S::get(core, op)?;
        if is_null(selector) {
            core.cpu.ldtr = Segment::null(selector);
            return Ok(());
        }
        core.cpu.ldtr = system_segment(core, selector, &[system::LDT])?;
        Ok(())
    })
}

/// The system segment of one of some types that a selector in the GDT names.
fn system_segment(core: &mut Core, selector: u16, kinds: &[u32]) -> Result<Segment, Stop> {
    if selector & 4 != 0 {
        return Err(core.selector_fault(vector::GP, selector));
    }
    let descriptor = core.read_descriptor(selector, vector::GP)?;
    if !descriptor.system().is_some_and(|kind| kinds.contains(&kind)) {
        return Err(core.selector_fault(vector::GP, selector));
    }
    if !descriptor.has(rights::P) {
        return Err(core.selector_fault(vector::NP, selector));
    }
    let mut segment = descriptor.segment(selector);
    if core.long_mode() {
        let upper = core.read_upper(selector, vector::GP)?;
        if upper >> 40 & 0x1f != 0 {
            return Err(core.selector_fault(vector::GP, selector));
        }
        segment.base |= upper << 32;
        if !core.is_canonical_base(segment.base) {
            return Err(core.selector_fault(vector::GP, selector));
        }
    }
    Ok(segment)
}

fn ltr<S: Src<u16>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    serializes(core, ops, code, |core, op| {
        need_protected(core)?;
        core.need_cpl0()?;
        let selector = S::get(core, op)?;
        if is_null(selector) {
            return Err(core.gp(0));
        }
        let kinds: &[u32] =
            if core.long_mode() { &[system::TSS] } else { &[system::TSS16, system::TSS] };
        let mut segment = system_segment(core, selector, kinds)?;
        // Busy from now on, in memory, too.
        segment.rights |= 2;
        if let Some(lin) = core.descriptor_address(selector, 8) {
            let found = core.update_system::<u8>(lin.wrapping_add(5), |rights| rights | 2)?;
            if found & 2 != 0 {
                // Another processor was faster (SDM vol. 3, 9.1.2.1).
                return Err(core.selector_fault(vector::GP, selector));
            }
        }
        core.cpu.tr = segment;
        Ok(())
    })
}

fn sldt<T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        need_protected(core)?;
        not_prevented(core)?;
        D::put(core, op, T::narrow(u64::from(core.cpu.ldtr.selector)))
    })
}

fn str<T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        need_protected(core)?;
        not_prevented(core)?;
        D::put(core, op, T::narrow(u64::from(core.cpu.tr.selector)))
    })
}

/// The descriptor that LAR, LSL, VERR or VERW looks at, if it may.
fn visible(core: &mut Core, selector: u16, kinds: &[u32]) -> Result<Option<Descriptor>, Stop> {
    if is_null(selector) {
        return Ok(None);
    }
    let Some(lin) = core.descriptor_address(selector, 8) else { return Ok(None) };
    let descriptor = Descriptor(core.load_system(lin)?);
    let privileged =
        descriptor.is_conforming() || descriptor.dpl() >= core.cpu.cpl.max(selector as u8 & 3);
    let known = descriptor.system().is_none_or(|kind| kinds.contains(&kind));
    Ok((privileged && known).then_some(descriptor))
}

fn set_zf(core: &mut Core, zf: bool) {
    core.flags.replace(bit::ZF, if zf { bit::ZF } else { 0 });
}

fn lar<T: Int, S: Src<u16>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        need_protected(core)?;
        let selector = S::get(core, op)?;
        let kinds: &[u32] =
            if core.long_mode() { &[2, 9, 11, 12] } else { &[1, 2, 3, 4, 5, 9, 11, 12] };
        let found = visible(core, selector, kinds)?;
        if let Some(descriptor) = found {
            T::put(core, op.r1, T::narrow(descriptor.0 >> 32 & 0x00f0_ff00));
        }
        set_zf(core, found.is_some());
        Ok(())
    })
}

fn lsl<T: Int, S: Src<u16>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        need_protected(core)?;
        let selector = S::get(core, op)?;
        let kinds: &[u32] = if core.long_mode() { &[2, 9, 11] } else { &[1, 2, 3, 9, 11] };
        let found = visible(core, selector, kinds)?;
        if let Some(descriptor) = found {
            T::put(core, op.r1, T::narrow(u64::from(descriptor.limit())));
        }
        set_zf(core, found.is_some());
        Ok(())
    })
}

fn verr<S: Src<u16>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        need_protected(core)?;
        let selector = S::get(core, op)?;
        let found = visible(core, selector, &[])?;
        let readable =
            found.is_some_and(|d| d.has(rights::S) && (!d.is_code() || d.has(rights::WRITABLE)));
        set_zf(core, readable);
        Ok(())
    })
}

fn verw<S: Src<u16>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        need_protected(core)?;
        let selector = S::get(core, op)?;
        let found = visible(core, selector, &[])?;
        let writable = found.is_some_and(|d| d.has(rights::S | rights::WRITABLE) && !d.is_code());
        set_zf(core, writable);
        Ok(())
    })
}

fn arpl<D: Dst<u16>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        need_protected(core)?;
        let rpl = u16::get(core, op.r2) & 3;
        let old = D::get(core, op)?;
        let lower = old & 3 < rpl;
        if lower {
            D::put(core, op, old & !3 | rpl)?;
        }
        set_zf(core, lower);
        Ok(())
    })
}

/// LDS and its relatives: a segment register and a general one.
fn far_load<const SEGMENT: u8>(ins: &Ins) -> Option<Handler> {
    sized_word!(ins.bytes(0), T, Some(load_far::<T, SEGMENT>))
}

fn load_far<T: Int, const SEGMENT: u8>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        let (offset, selector) = far_pointer::<T>(core, op)?;
        core.load_segment(SEGMENT, selector)?;
        T::put(core, op.r1, T::narrow(offset));
        Ok(())
    })
}
