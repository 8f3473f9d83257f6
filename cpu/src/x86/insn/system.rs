//! System instructions (SDM vol. 1, 5.20), I/O (5.1.9), and what software learns of the processor.

use iced_x86::{Code, Mnemonic as M};

use super::branch::far_pointer;
use super::{Dst, Int, Mem, R1, R2, Segmented, Src, ends, sized, sized_word, step};
use crate::bus::Width;
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::{Fault, Stop, vector};
use crate::x86::flags::{Lazy, bit};
use crate::x86::model::Live;
use crate::x86::seg::{is_null, system};
use crate::x86::state::{Activity, Segment, TableRegister, cr0, cr4, efer, gpr, rights, sreg};

/// Whether nothing behind an instruction of this group belongs to its block, although it is no jump.
pub(in crate::x86) fn ends_block(ins: &Ins) -> bool {
    use crate::x86::insn as group;
    matches!(ins.mnemonic(), M::Sti | M::Popf | M::Popfd | M::Popfq)
        || group::system::lookup(ins).is_some()
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
        M::Wait => wait,
        M::Pause => pause,
        M::Mfence | M::Lfence | M::Sfence => fence,
        M::Wbinvd | M::Invd => wbinvd,
        M::Clflush | M::Clflushopt => clflush,
        M::Cpuid => cpuid,
        M::Rdtsc => rdtsc::<false>,
        M::Rdtscp => rdtsc::<true>,
        M::Rdpid => rdpid,
        M::Rdmsr => rdmsr,
        M::Wrmsr => wrmsr,
        M::Rdrand | M::Rdseed => return sized_word!(ins.bytes(0), T, Some(random::<T>)),
        M::In => {
            return sized!(
                ins.bytes(0),
                T,
                Some(if ins.is_imm(1) { input::<T, true> } else { input::<T, false> })
            );
        }
        M::Out => {
            return sized!(
                ins.bytes(1),
                T,
                Some(if ins.is_imm(0) { output::<T, true> } else { output::<T, false> })
            );
        }
        M::Mov if raw.op0_register().is_cr() => mov_to_cr,
        M::Mov if raw.op1_register().is_cr() => mov_from_cr,
        M::Mov if raw.op0_register().is_dr() => mov_to_dr,
        M::Mov if raw.op1_register().is_dr() => mov_from_dr,
        M::Clts => clts,
        M::Lmsw => return selector_source!(lmsw),
        M::Smsw => return selector_target!(smsw),
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
        M::Invlpg => invlpg,
        M::Invpcid => invpcid,
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
        M::Clac => access_check::<false>,
        M::Stac => access_check::<true>,
        M::Monitor => monitor,
        M::Mwait => mwait,
        M::Lds => return far_load::<{ sreg::DS }>(ins),
        M::Les => return far_load::<{ sreg::ES }>(ins),
        M::Lss => return far_load::<{ sreg::SS }>(ins),
        M::Lfs => return far_load::<{ sreg::FS }>(ins),
        M::Lgs => return far_load::<{ sreg::GS }>(ins),
        _ => return None,
    })
}

fn hlt(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
        core.need_cpl0()?;
        core.cpu.activity = Activity::Halted;
        core.poll = true;
        Ok(())
    })
}

/// WAIT: #NM while the x87 belongs to another task.
fn wait(core: &mut Core, ops: &[Op]) -> usize {
    step(core, ops, false, |core, _| {
        const OTHERS: u64 = cr0::MP | cr0::TS;
        if core.cpu.cr0 & OTHERS == OTHERS {
            return Err(core.raise(Fault::new(vector::NM)));
        }
        Ok(())
    })
}

fn pause(core: &mut Core, ops: &[Op]) -> usize {
    step(core, ops, false, |core, _| {
        core.bus.relax();
        Ok(())
    })
}

fn fence(core: &mut Core, ops: &[Op]) -> usize {
    step(core, ops, false, |_, _| {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Ok(())
    })
}

fn wbinvd(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| core.need_cpl0())
}

/// There are no caches; but the address is checked as that of a load of one byte.
fn clflush(core: &mut Core, ops: &[Op]) -> usize {
    step(core, ops, true, |core, op| <Mem<Segmented> as Src<u8>>::get(core, op).map(drop))
}

fn cpuid(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
        let apic_base = core.bus.interrupt_msr(core.cpu.id as usize, 0x1b);
        let live = Live {
            osxsave: core.cpu.cr4 & cr4::OSXSAVE != 0,
            apic: apic_base.is_ok_and(|base| base >> 11 & 1 != 0),
            apic_id: core.cpu.id,
        };
        let (leaf, subleaf) = (core.gpr(gpr::RAX) as u32, core.gpr(gpr::RCX) as u32);
        let answer = core.cpu.model.cpuid(leaf, subleaf, live);
        for (register, value) in [gpr::RAX, gpr::RBX, gpr::RCX, gpr::RDX].into_iter().zip(answer) {
            core.set_gpr(register, u64::from(value));
        }
        // Serialising: code that others have written counts from now on.
        core.stale_code = true;
        core.poll = true;
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

fn rdtsc<const AUX: bool>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
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

fn rdpid(core: &mut Core, ops: &[Op]) -> usize {
    step(core, ops, false, |core, op| {
        core.set_gpr(op.r1, core.cpu.msr.tsc_aux);
        Ok(())
    })
}

fn rdmsr(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
        core.need_cpl0()?;
        let value = core.read_msr(core.gpr(gpr::RCX) as u32)?;
        put_pair(core, value);
        Ok(())
    })
}

fn wrmsr(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
        core.need_cpl0()?;
        core.write_msr(core.gpr(gpr::RCX) as u32, pair(core))
    })
}

/// RDRAND and RDSEED. The numbers come from the guest's own time and state, so that a deterministic run repeats them.
fn random<T: Int>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        // SplitMix64's finaliser (Steele, Lea, Flood 2014).
        let mut x = core.bus.now() ^ core.cpu.retired.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        T::put(core, op.r1, T::narrow(x ^ x >> 31));
        core.flags = Lazy::from_bits(bit::CF);
        Ok(())
    })
}

impl Core {
    /// Reads an I/O port.
    pub fn port_in(&mut self, port: u16, width: Width) -> u64 {
        self.device_accesses += 1;
        let value = self.bus.port_in(self.cpu.id as usize, port, width);
        self.leave |= self.signals.needs_attention();
        width.zero_extend(value)
    }

    /// Writes an I/O port.
    pub fn port_out(&mut self, port: u16, width: Width, value: u64) {
        self.device_accesses += 1;
        self.bus.port_out(self.cpu.id as usize, port, width, value);
        self.leave |= self.signals.needs_attention();
    }
}

fn input<T: Int, const IMM: bool>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        let port = if IMM { op.imm as u8 as u16 } else { core.gpr(gpr::RDX) as u16 };
        core.check_port(port, T::WIDTH)?;
        let value = core.port_in(port, T::WIDTH);
        T::put(core, gpr::RAX, T::narrow(value));
        Ok(())
    })
}

fn output<T: Int, const IMM: bool>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        let port = if IMM { op.imm as u8 as u16 } else { core.gpr(gpr::RDX) as u16 };
        core.check_port(port, T::WIDTH)?;
        core.port_out(port, T::WIDTH, T::get(core, gpr::RAX).widen());
        Ok(())
    })
}

fn mov_from_cr(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        core.need_cpl0()?;
        let value = core.read_cr(op.r2)?;
        core.set_gpr(op.r1, if core.wide() { value } else { value & 0xffff_ffff });
        Ok(())
    })
}

fn mov_to_cr(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
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
        core.cpu.dr[6] |= GENERAL_DETECT;
        core.cpu.dr[7] &= !GENERAL_DETECT;
        return Err(core.raise(Fault::new(vector::DB)));
    }
    Ok(usize::from(number))
}

fn mov_from_dr(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        let number = debug_register(core, op.r2)?;
        let value = core.cpu.dr[number];
        core.set_gpr(op.r1, if core.wide() { value } else { value & 0xffff_ffff });
        Ok(())
    })
}

fn mov_to_dr(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
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
        core.poll = true;
        Ok(())
    })
}

fn clts(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
        core.need_cpl0()?;
        core.cpu.cr0 &= !cr0::TS;
        Ok(())
    })
}

fn lmsw<S: Src<u16>>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        core.need_cpl0()?;
        let value = u64::from(S::get(core, op)?) & 0xf;
        // PE can be set, but not cleared.
        let old = core.cpu.cr0;
        core.write_cr0(old & !0xe | value | old & cr0::PE)
    })
}

/// #GP(0) where user-mode instruction prevention hides what the instruction reveals.
fn not_prevented(core: &mut Core) -> Result<(), Stop> {
    if core.cpu.cr4 & cr4::UMIP != 0 && core.cpu.cpl > 0 { Err(core.gp(0)) } else { Ok(()) }
}

fn smsw<T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        not_prevented(core)?;
        D::put(core, op, T::narrow(core.cpu.cr0))
    })
}

/// The limit and base of LGDT, LIDT, SGDT, SIDT lie one behind the other.
fn table_operand(core: &mut Core, op: &Op, write: bool) -> Result<(u64, u64), Stop> {
    let len = if core.wide() { 8 } else { 4 };
    let at = super::effective(core, op);
    let limit = core.linear(op.seg, at, 2, write)?;
    let base = core.linear(op.seg, at.wrapping_add(2) & super::address_mask(op), len, write)?;
    Ok((limit, base))
}

fn load_table<const IDT: bool>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
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
        if core.wide() && !core.is_canonical(base) {
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

fn store_table<const IDT: bool>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
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

fn lldt<S: Src<u16>>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
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
        if !core.is_canonical(segment.base) {
            return Err(core.selector_fault(vector::GP, selector));
        }
    }
    Ok(segment)
}

fn ltr<S: Src<u16>>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
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
            core.store_system(lin.wrapping_add(5), segment.rights as u8)?;
        }
        core.cpu.tr = segment;
        Ok(())
    })
}

fn sldt<T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        need_protected(core)?;
        not_prevented(core)?;
        D::put(core, op, T::narrow(u64::from(core.cpu.ldtr.selector)))
    })
}

fn str<T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        need_protected(core)?;
        not_prevented(core)?;
        D::put(core, op, T::narrow(u64::from(core.cpu.tr.selector)))
    })
}

/// The descriptor that LAR, LSL, VERR or VERW looks at, if it may.
fn visible(
    core: &mut Core,
    selector: u16,
    kinds: &[u32],
) -> Result<Option<crate::x86::seg::Descriptor>, Stop> {
    if is_null(selector) {
        return Ok(None);
    }
    let Some(lin) = core.descriptor_address(selector, 8) else { return Ok(None) };
    let descriptor = crate::x86::seg::Descriptor(core.load_system(lin)?);
    let privileged =
        descriptor.is_conforming() || descriptor.dpl() >= core.cpu.cpl.max(selector as u8 & 3);
    let known = descriptor.system().is_none_or(|kind| kinds.contains(&kind));
    Ok((privileged && known).then_some(descriptor))
}

fn set_zf(core: &mut Core, zf: bool) {
    core.flags.replace(bit::ZF, if zf { bit::ZF } else { 0 });
}

fn lar<T: Int, S: Src<u16>>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
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

fn lsl<T: Int, S: Src<u16>>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
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

fn verr<S: Src<u16>>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        need_protected(core)?;
        let selector = S::get(core, op)?;
        let found = visible(core, selector, &[])?;
        let readable =
            found.is_some_and(|d| d.has(rights::S) && (!d.is_code() || d.has(rights::WRITABLE)));
        set_zf(core, readable);
        Ok(())
    })
}

fn verw<S: Src<u16>>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        need_protected(core)?;
        let selector = S::get(core, op)?;
        let found = visible(core, selector, &[])?;
        let writable = found.is_some_and(|d| d.has(rights::S | rights::WRITABLE) && !d.is_code());
        set_zf(core, writable);
        Ok(())
    })
}

fn arpl<D: Dst<u16>>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
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

fn invlpg(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        core.need_cpl0()?;
        let base = core.reach[usize::from(op.seg & 7)].base;
        let lin = super::effective(core, op).wrapping_add(base) & core.lin_mask;
        core.flush_page(lin);
        Ok(())
    })
}

fn invpcid(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
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
            || kind == 0 && !core.is_canonical(address);
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

fn need_mode64(core: &mut Core) -> Result<(), Stop> {
    if core.wide() { Ok(()) } else { Err(core.ud()) }
}

fn swapgs(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
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

fn syscall(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
        if !core.wide() || core.cpu.efer & efer::SCE == 0 {
            return Err(core.ud());
        }
        let flags = core.rflags();
        core.set_gpr(gpr::RCX, core.next_rip);
        core.set_gpr(gpr::R11, flags & !bit::RF);
        let selector = (core.cpu.msr.star >> 32) as u16;
        core.next_rip = core.cpu.msr.lstar;
        core.set_rflags(flags & !core.cpu.msr.sfmask & !bit::RF);
        let ss = flat_data(selector.wrapping_add(8), 0);
        enter_flat(core, flat_code(selector, 0, true), ss, 0);
        Ok(())
    })
}

fn sysret<const WIDE: bool>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
        if !core.wide() || core.cpu.efer & efer::SCE == 0 {
            return Err(core.ud());
        }
        core.need_cpl0()?;
        let target = core.gpr(gpr::RCX);
        if WIDE && !core.is_canonical(target) {
            return Err(core.gp(0));
        }
        let selector = (core.cpu.msr.star >> 48) as u16;
        core.set_rflags(core.gpr(gpr::R11) & 0x3c_7fd7 | bit::FIXED);
        core.next_rip = if WIDE { target } else { target & 0xffff_ffff };
        let cs = selector.wrapping_add(if WIDE { 16 } else { 0 });
        let ss = flat_data(selector.wrapping_add(8), 3);
        enter_flat(core, flat_code(cs, 3, WIDE), ss, 3);
        Ok(())
    })
}

fn sysenter(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
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

fn sysexit<const WIDE: bool>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
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

fn read_base<T: Int, const SEGMENT: u8>(core: &mut Core, ops: &[Op]) -> usize {
    step(core, ops, false, |core, op| {
        need_fsgsbase(core)?;
        T::put(core, op.r1, T::narrow(core.segment(SEGMENT).base));
        Ok(())
    })
}

fn write_base<T: Int, const SEGMENT: u8>(core: &mut Core, ops: &[Op]) -> usize {
    step(core, ops, false, |core, op| {
        need_fsgsbase(core)?;
        let base = T::get(core, op.r1).widen();
        if !core.is_canonical(base) {
            return Err(core.gp(0));
        }
        core.set_base(SEGMENT, base);
        Ok(())
    })
}

/// CLAC and STAC.
fn access_check<const SET: bool>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
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

fn monitor(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
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
fn mwait(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, _| {
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

/// LDS and its relatives: a segment register and a general one.
fn far_load<const SEGMENT: u8>(ins: &Ins) -> Option<Handler> {
    sized_word!(ins.bytes(0), T, Some(load_far::<T, SEGMENT>))
}

fn load_far<T: Int, const SEGMENT: u8>(core: &mut Core, ops: &[Op]) -> usize {
    ends(core, ops, |core, op| {
        let (offset, selector) = far_pointer::<T>(core, op)?;
        core.load_segment(SEGMENT, selector)?;
        T::put(core, op.r1, T::narrow(offset));
        Ok(())
    })
}
