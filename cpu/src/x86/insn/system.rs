//! System instructions (SDM vol. 1, 5.20), and what software learns of the processor.

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::{Dst, Int, Mem, R1, Segmented, Src, ends, serializes, sized_word, step};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::{Fault, Stop, vector};
use crate::x86::flags::{Lazy, bit};
use crate::x86::model::{Live, Vendor};
use crate::x86::state::{Activity, cr0, cr4, gpr};

/// Whether nothing behind an instruction of this group belongs to its block, although it is no jump.
pub(in crate::x86) fn ends_block(ins: &Ins) -> bool {
    use crate::x86::insn as group;
    matches!(ins.mnemonic(), M::Sti | M::Popf | M::Popfd | M::Popfq)
        || [group::system::lookup, group::tables::lookup, group::calls::lookup, group::io::lookup]
            .iter()
            .any(|lookup| lookup(ins).is_some())
        || ins.raw().op_count() > 0
            && ins.is_reg(0)
            && ins.raw().op0_register().is_segment_register()
}

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
    let raw = ins.raw();
    Some(match ins.mnemonic() {
        M::Hlt => hlt,
        M::Pause => pause,
        M::Mfence | M::Lfence | M::Sfence => fence,
        M::Wbinvd | M::Invd => wbinvd,
        M::Clflush | M::Clflushopt | M::Clwb => clflush,
        M::Cpuid => cpuid,
        M::Rdtsc => rdtsc::<false>,
        M::Rdtscp => rdtsc::<true>,
        M::Rdpid => rdpid,
        M::Rdpmc => rdpmc,
        M::Rdpkru => rdpkru,
        M::Wrpkru => wrpkru,
        M::Rdmsr => rdmsr,
        M::Wrmsr => wrmsr,
        M::Rdrand | M::Rdseed => return sized_word!(ins.bytes(0), T, Some(random::<T>)),
        M::Mov if raw.op0_register().is_cr() => mov_to_cr,
        M::Mov if raw.op1_register().is_cr() => mov_from_cr,
        M::Mov if raw.op0_register().is_dr() => mov_to_dr,
        M::Mov if raw.op1_register().is_dr() => mov_from_dr,
        M::Clts => clts,
        M::Lmsw => return selector_source!(lmsw),
        M::Smsw => return selector_target!(smsw),
        M::Invlpg => invlpg,
        M::Invpcid => invpcid,
        M::Clac => access_check::<false>,
        M::Stac => access_check::<true>,
        M::Monitor => monitor,
        M::Mwait => mwait,
        _ => return None,
    })
}

fn hlt(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        core.need_cpl0()?;
        core.cpu.activity = Activity::Halted;
        core.poll = true;
        Ok(())
    })
}

fn pause(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        core.bus.relax();
        Ok(())
    })
}

fn fence(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |_, _| {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Ok(())
    })
}

fn wbinvd(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    serializes(core, ops, code, |core, _| core.need_cpl0())
}

/// There are no caches; but the address is checked as that of a load of one byte.
fn clflush(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| <Mem<Segmented> as Src<u8>>::get(core, op).map(drop))
}

fn cpuid(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    serializes(core, ops, code, |core, _| {
        let apic_base = core.bus.interrupt_msr(core.cpu.id as usize, 0x1b);
        let live = Live {
            osxsave: core.cpu.cr4 & cr4::OSXSAVE != 0,
            ospke: core.cpu.cr4 & cr4::PKE != 0,
            apic: apic_base.is_ok_and(|base| base >> 11 & 1 != 0),
            apic_id: core.cpu.id,
            xcr0: core.cpu.xcr0,
        };
        let (leaf, subleaf) = (core.gpr(gpr::RAX) as u32, core.gpr(gpr::RCX) as u32);
        let answer = core.cpu.model.cpuid(leaf, subleaf, live);
        for (register, value) in [gpr::RAX, gpr::RBX, gpr::RCX, gpr::RDX].into_iter().zip(answer) {
            core.set_gpr(register, u64::from(value));
        }
        Ok(())
    })
}

fn put_pair(core: &mut Core, value: u64) {
    core.set_gpr(gpr::RAX, value & 0xffff_ffff);
    core.set_gpr(gpr::RDX, value >> 32);
}

fn pair(core: &Core) -> u64 {
    core.gpr(gpr::RDX) << 32 | core.gpr(gpr::RAX) & 0xffff_ffff
}

fn rdtsc<const AUX: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        if core.cpu.cr4 & cr4::TSD != 0 && core.cpu.cpl != 0 {
            return Err(core.gp(0));
        }
        let tsc = core.tsc();
        put_pair(core, tsc);
        if AUX {
            core.set_gpr(gpr::RCX, core.cpu.msr.tsc_aux & 0xffff_ffff);
        }
        Ok(())
    })
}

fn rdpid(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        core.set_gpr(op.r1, core.cpu.msr.tsc_aux);
        Ok(())
    })
}

/// There are no counters to read but AMD's four, of no events.
fn rdpmc(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        if core.cpu.cr4 & cr4::PCE == 0 && core.cpu.cpl != 0 {
            return Err(core.gp(0));
        }
        if core.cpu.model.vendor != Vendor::Amd || core.gpr(gpr::RCX) as u32 > 3 {
            return Err(core.gp(0));
        }
        put_pair(core, 0);
        Ok(())
    })
}

/// RDPKRU and WRPKRU exist once CR4.PKE is set, and want ECX to be 0.
fn need_pkru(core: &mut Core) -> Result<(), Stop> {
    if core.cpu.cr4 & cr4::PKE == 0 {
        return Err(core.ud());
    }
    if core.gpr(gpr::RCX) as u32 == 0 { Ok(()) } else { Err(core.gp(0)) }
}

fn rdpkru(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        need_pkru(core)?;
        put_pair(core, core.cpu.pkru.into());
        Ok(())
    })
}

fn wrpkru(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        need_pkru(core)?;
        if core.gpr(gpr::RDX) as u32 != 0 {
            return Err(core.gp(0));
        }
        core.set_pkru(core.gpr(gpr::RAX) as u32);
        Ok(())
    })
}

fn rdmsr(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        core.need_cpl0()?;
        let value = core.read_msr(core.gpr(gpr::RCX) as u32)?;
        put_pair(core, value);
        Ok(())
    })
}

fn wrmsr(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    serializes(core, ops, code, |core, _| {
        core.need_cpl0()?;
        core.write_msr(core.gpr(gpr::RCX) as u32, pair(core))
    })
}

/// RDRAND and RDSEED. The numbers come from the guest's own time and state, so that a deterministic run repeats them.
fn random<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        // SplitMix64's finaliser (Steele, Lea, Flood 2014).
        let mut x = core.bus.now() ^ core.cpu.retired.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        T::put(core, op.r1, T::narrow(x ^ x >> 31));
        core.flags = Lazy::from_bits(bit::CF);
        Ok(())
    })
}

fn mov_from_cr(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        core.need_cpl0()?;
        let value = core.read_cr(op.r2)?;
        core.set_gpr(op.r1, if core.wide() { value } else { value & 0xffff_ffff });
        Ok(())
    })
}

fn mov_to_cr(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    serializes(core, ops, code, |core, op| {
        core.need_cpl0()?;
        let value = core.gpr(op.r2);
        let value = if core.wide() { value } else { value & 0xffff_ffff };
        core.write_cr(op.r1, value)
    })
}

/// The debug register that a number means: 4 and 5 are others' names unless CR4.DE is set.
fn debug_register(core: &mut Core, number: u8) -> Result<usize, Stop> {
    const GENERAL_DETECT: u64 = 1 << 13;
    let number = match number & 7 {
        4 | 5 if core.cpu.cr4 & cr4::DE != 0 => return Err(core.ud()),
        n @ (4 | 5) => n + 2,
        n => n,
    };
    core.need_cpl0()?;
    if core.cpu.dr[7] & GENERAL_DETECT != 0 {
        core.set_debug_status(GENERAL_DETECT);
        core.cpu.dr[7] &= !GENERAL_DETECT;
        return Err(core.raise(Fault::new(vector::DB)));
    }
    Ok(usize::from(number))
}

fn mov_from_dr(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        let number = debug_register(core, op.r2)?;
        let value = core.cpu.dr[number];
        core.set_gpr(op.r1, if core.wide() { value } else { value & 0xffff_ffff });
        Ok(())
    })
}

fn mov_to_dr(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    serializes(core, ops, code, |core, op| {
        let number = debug_register(core, op.r1)?;
        let value = core.gpr(op.r2);
        let value = if core.wide() { value } else { value & 0xffff_ffff };
        if number >= 6 && value >> 32 != 0 {
            return Err(core.gp(0));
        }
        core.cpu.dr[number] = match number {
            6 => value & 0xe00f | 0xffff_0ff0,
            7 => value & !0xd000 | 0x400,
            _ => value,
        };
        core.breakpoints_changed();
        core.poll = true;
        Ok(())
    })
}

fn clts(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        core.need_cpl0()?;
        core.cpu.cr0 &= !cr0::TS;
        core.units_changed();
        Ok(())
    })
}

fn lmsw<S: Src<u16>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        core.need_cpl0()?;
        let value = u64::from(S::get(core, op)?) & 0xf;
        // PE can be set, but not cleared.
        let old = core.cpu.cr0;
        core.write_cr0(old & !0xe | value | old & cr0::PE)
    })
}

/// #GP(0) where user-mode instruction prevention hides what the instruction reveals.
pub(super) fn not_prevented(core: &mut Core) -> Result<(), Stop> {
    if core.cpu.cr4 & cr4::UMIP != 0 && core.cpu.cpl > 0 { Err(core.gp(0)) } else { Ok(()) }
}

fn smsw<T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        not_prevented(core)?;
        D::put(core, op, T::narrow(core.cpu.cr0))
    })
}

fn invlpg(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    serializes(core, ops, code, |core, op| {
        core.need_cpl0()?;
        let base = core.reach[usize::from(op.seg & 7)].base;
        let lin = super::effective(core, op).wrapping_add(base) & core.lin_mask;
        core.flush_page(lin);
        Ok(())
    })
}

fn invpcid(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    serializes(core, ops, code, |core, op| {
        core.need_cpl0()?;
        let kind = core.gpr(op.r1);
        let kind = if core.wide() { kind } else { kind & 0xffff_ffff };
        let at = super::effective(core, op);
        let lin = core.linear(op.seg, at, 16, false)?;
        let pcid: u64 = core.load(lin)?;
        let address: u64 = core.load(lin.wrapping_add(8))?;
        let enabled = core.cpu.cr4 & cr4::PCIDE != 0;
        let bad = kind > 3
            || kind < 2 && (pcid >> 12 != 0 || !enabled && pcid != 0)
            || kind == 0 && !core.is_canonical_base(address);
        if bad {
            return Err(core.gp(0));
        }
        match kind {
            0 => core.flush_page(address),
            1 => core.flush_pcid(pcid as u16),
            _ => core.flush_tlb(),
        }
        Ok(())
    })
}

/// CLAC and STAC.
fn access_check<const SET: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        if core.cpu.cpl != 0 {
            return Err(core.ud());
        }
        core.cpu.rflags = core.cpu.rflags & !bit::AC | if SET { bit::AC } else { 0 };
        // Only accesses to data depend on it: the page of code stays.
        let page = core.page_lin;
        core.privilege_changed();
        core.page_lin = page;
        Ok(())
    })
}

fn monitor(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        if core.cpu.cpl != 0 {
            return Err(core.ud());
        }
        if core.gpr(gpr::RCX) as u32 != 0 {
            return Err(core.gp(0));
        }
        let at = core.gpr(gpr::RAX) & super::address_mask(op);
        let lin = core.linear(op.seg, at, 1, false)?;
        core.load::<u8>(lin).map(drop)
    })
}

/// Waits no longer than a moment: stores to the monitored address are not noticed, and an early end is allowed.
fn mwait(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        if core.cpu.cpl != 0 {
            return Err(core.ud());
        }
        if core.gpr(gpr::RCX) as u32 & !1 != 0 {
            return Err(core.gp(0));
        }
        core.bus.relax();
        Ok(())
    })
}
