//! Fast calls of the system and back, SWAPGS, and the bases of FS and GS (SDM vol. 3, 6.8.7 and 6.8.8; AMD's *Architecture
//! Programmer's Manual* vol. 3, "SYSCALL", "SYSRET", for AMD's models).

use iced_x86::{Code, Mnemonic as M};

use super::CodeCache;
use super::{Int, ends, sized_word, step};
use crate::x86::core::{Core, StepTrap};
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::Stop;
use crate::x86::flags::bit;
use crate::x86::model::Vendor;
use crate::x86::seg::is_null;
use crate::x86::state::{Segment, cr4, efer, gpr, rights, sreg};

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    Some(match ins.mnemonic() {
        M::Swapgs => swapgs,
        M::Syscall => syscall,
        M::Sysret | M::Sysretq => {
            if ins.code() == Code::Sysretq {
                sysret::<true>
            } else {
                sysret::<false>
            }
        }
        M::Sysenter => sysenter,
        M::Sysexit | M::Sysexitq => {
            if ins.code() == Code::Sysexitq {
                sysexit::<true>
            } else {
                sysexit::<false>
            }
        }
        M::Rdfsbase => return sized_word!(ins.bytes(0), T, Some(read_base::<T, { sreg::FS }>)),
        M::Rdgsbase => return sized_word!(ins.bytes(0), T, Some(read_base::<T, { sreg::GS }>)),
        M::Wrfsbase => return sized_word!(ins.bytes(0), T, Some(write_base::<T, { sreg::FS }>)),
        M::Wrgsbase => return sized_word!(ins.bytes(0), T, Some(write_base::<T, { sreg::GS }>)),
        _ => return None,
    })
}

fn need_mode64(core: &mut Core) -> Result<(), Stop> {
    if core.wide() { Ok(()) } else { Err(core.ud()) }
}

fn swapgs(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        need_mode64(core)?;
        core.need_cpl0()?;
        let old = core.segment(sreg::GS).base;
        let new = std::mem::replace(&mut core.cpu.msr.kernel_gs_base, old);
        core.set_base(sreg::GS, new);
        Ok(())
    })
}

/// The flat segments that SYSCALL and its relatives load.
fn flat_code(selector: u16, cpl: u8, long: bool) -> Segment {
    let size = if long { rights::L } else { rights::DB };
    flat(selector, cpl, rights::CODE | size)
}

fn flat_data(selector: u16, cpl: u8) -> Segment {
    flat(selector, cpl, rights::DB)
}

fn flat(selector: u16, cpl: u8, more: u32) -> Segment {
    let rights = rights::ACCESSED | rights::WRITABLE | rights::S | rights::P | rights::G;
    Segment {
        selector: selector & !3 | u16::from(cpl),
        base: 0,
        limit: u32::MAX,
        rights: rights | u32::from(cpl) << rights::DPL_SHIFT | more,
    }
}

/// Loads CS and SS for level `cpl` without looking at descriptors.
fn enter_flat(core: &mut Core, cs: Segment, ss: Segment, cpl: u8) {
    core.cpu.cpl = cpl;
    core.set_segment(sreg::SS, ss);
    core.set_segment(sreg::CS, cs);
    core.poll = true;
}

/// Whether SYSCALL and SYSRET exist here: on Intel's processors in 64-bit mode alone, on AMD's in all of protected mode.
fn need_syscall(core: &mut Core) -> Result<(), Stop> {
    let mode = match core.cpu.model.vendor {
        Vendor::Intel => core.wide(),
        Vendor::Amd => core.protected() && !core.v86(),
    };
    if mode && core.cpu.efer & efer::SCE != 0 { Ok(()) } else { Err(core.ud()) }
}

fn syscall(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        need_syscall(core)?;
        let flags = core.rflags();
        let msr = &core.cpu.msr;
        let (selector, long) = ((msr.star >> 32) as u16, core.long_mode());
        let (target, masked) = match (long, core.wide()) {
            (true, true) => (msr.lstar, msr.sfmask),
            (true, false) => (msr.cstar, msr.sfmask),
            (false, _) => (msr.star & 0xffff_ffff, bit::VM | bit::IF),
        };
        core.set_gpr(gpr::RCX, core.next_rip);
        if long {
            core.set_gpr(gpr::R11, flags & !bit::RF);
        }
        core.next_rip = target;
        core.set_rflags(flags & !masked & !bit::RF);
        core.step_trap = StepTrap::ByNewFlags;
        let ss = flat_data(selector.wrapping_add(8), 0);
        enter_flat(core, flat_code(selector, 0, long), ss, 0);
        Ok(())
    })
}

fn sysret<const WIDE: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        need_syscall(core)?;
        core.need_cpl0()?;
        let target = core.gpr(gpr::RCX);
        // AMD's processors find it out when they fetch from there, at level 3.
        let checked = core.cpu.model.vendor == Vendor::Intel;
        if WIDE && checked && !core.is_canonical(target) {
            return Err(core.gp(0));
        }
        let selector = (core.cpu.msr.star >> 48) as u16;
        if core.wide() {
            core.set_rflags(core.gpr(gpr::R11) & 0x3c_7fd7 | bit::FIXED);
        } else {
            core.set_rflags(core.rflags() | bit::IF);
        }
        core.step_trap = StepTrap::ByNewFlags;
        core.next_rip = if WIDE { target } else { target & 0xffff_ffff };
        let cs = selector.wrapping_add(if WIDE { 16 } else { 0 });
        let ss = flat_data(selector.wrapping_add(8), 3);
        enter_flat(core, flat_code(cs, 3, WIDE), ss, 3);
        Ok(())
    })
}

/// SYSENTER and SYSEXIT: AMD's processors do not have them in IA-32e mode.
fn need_sysenter(core: &mut Core) -> Result<(), Stop> {
    if core.cpu.model.vendor == Vendor::Amd && core.long_mode() {
        return Err(core.ud());
    }
    Ok(())
}

fn sysenter(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        need_sysenter(core)?;
        let selector = core.cpu.msr.sysenter_cs as u16;
        if !core.protected() || is_null(selector) {
            return Err(core.gp(0));
        }
        let long = core.long_mode();
        let (rip, rsp) = (core.cpu.msr.sysenter_eip, core.cpu.msr.sysenter_esp);
        let mask = if long { u64::MAX } else { 0xffff_ffff };
        core.set_rflags(core.rflags() & !(bit::VM | bit::IF | bit::RF));
        core.next_rip = rip & mask;
        core.set_gpr(gpr::RSP, rsp & mask);
        let ss = flat_data(selector.wrapping_add(8), 0);
        enter_flat(core, flat_code(selector, 0, long), ss, 0);
        Ok(())
    })
}

fn sysexit<const WIDE: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        need_sysenter(core)?;
        let selector = core.cpu.msr.sysenter_cs as u16;
        if !core.protected() || is_null(selector) || core.cpu.cpl != 0 {
            return Err(core.gp(0));
        }
        let (rip, rsp) = (core.gpr(gpr::RDX), core.gpr(gpr::RCX));
        if WIDE && !(core.is_canonical(rip) && core.is_canonical(rsp)) {
            return Err(core.gp(0));
        }
        let mask = if WIDE { u64::MAX } else { 0xffff_ffff };
        core.next_rip = rip & mask;
        core.set_gpr(gpr::RSP, rsp & mask);
        let cs = selector.wrapping_add(if WIDE { 32 } else { 16 });
        enter_flat(core, flat_code(cs, 3, WIDE), flat_data(cs.wrapping_add(8), 3), 3);
        Ok(())
    })
}

fn need_fsgsbase(core: &mut Core) -> Result<(), Stop> {
    if core.wide() && core.cpu.cr4 & cr4::FSGSBASE != 0 { Ok(()) } else { Err(core.ud()) }
}

fn read_base<T: Int, const SEGMENT: u8>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        need_fsgsbase(core)?;
        T::put(core, op.r1, T::narrow(core.segment(SEGMENT).base));
        Ok(())
    })
}

fn write_base<T: Int, const SEGMENT: u8>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        need_fsgsbase(core)?;
        let base = T::get(core, op.r1).widen();
        if !core.is_canonical_base(base) {
            return Err(core.gp(0));
        }
        core.set_base(SEGMENT, base);
        Ok(())
    })
}
