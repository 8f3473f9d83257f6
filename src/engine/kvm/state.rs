//! A processor's canonical state in KVM's structures, and back. No system calls here.
//!
//! What lies elsewhere: MTRRs and other MSRs that KVM leaves to us never leave the canonical state; the local APIC is a
//! device of ours. The page-directory-pointer entries of PAE paging are read from memory, as KVM does when it is given
//! CR3: a guest that changes them without loading CR3 anew sees that change one load early.

use kvm_bindings::{
    KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, KVM_X86_SHADOW_INT_MOV_SS,
    KVM_X86_SHADOW_INT_STI, kvm_debugregs, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs,
    kvm_vcpu_events, kvm_xsave,
};
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::simd::{Mxcsr, V256};
use mimic_cpu::x86::state::{Cpu, Segment, Shadow, TableRegister, cr0, efer, rights, sreg, xcr0};
use mimic_cpu::x86::x87;

/// A busy 64-bit TSS, and a busy 16-bit one (SDM vol. 3, table 3-2).
const TSS64_BUSY: u8 = 11;
const TSS16_BUSY: u8 = 3;

pub(super) fn regs(cpu: &Cpu) -> kvm_regs {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = cpu.gpr;
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip: cpu.rip,
        rflags: cpu.rflags,
    }
}

pub(super) fn take_regs(cpu: &mut Cpu, regs: &kvm_regs) {
    let r = regs;
    cpu.gpr = [
        r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12,
        r.r13, r.r14, r.r15,
    ];
    cpu.rip = r.rip;
    cpu.rflags = r.rflags | bit::FIXED;
}

fn segment(from: &Segment) -> kvm_segment {
    let flag = |bits: u32| u8::from(from.has(bits));
    kvm_segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        type_: (from.rights & rights::TYPE) as u8,
        present: flag(rights::P),
        dpl: from.dpl(),
        db: flag(rights::DB),
        s: flag(rights::S),
        l: flag(rights::L),
        g: flag(rights::G),
        avl: flag(rights::AVL),
        unusable: flag(rights::UNUSABLE),
        padding: 0,
    }
}

fn take_segment(from: &kvm_segment) -> Segment {
    if from.unusable != 0 {
        return Segment { base: from.base, ..Segment::null(from.selector) };
    }
    let flag = |is: u8, bits: u32| if is != 0 { bits } else { 0 };
    Segment {
        selector: from.selector,
        base: from.base,
        limit: from.limit,
        rights: u32::from(from.type_) & rights::TYPE
            | flag(from.s, rights::S)
            | u32::from(from.dpl & 3) << rights::DPL_SHIFT
            | flag(from.present, rights::P)
            | flag(from.avl, rights::AVL)
            | flag(from.l, rights::L)
            | flag(from.db, rights::DB)
            | flag(from.g, rights::G),
    }
}

fn table(from: &TableRegister) -> kvm_dtable {
    kvm_dtable { base: from.base, limit: from.limit, padding: [0; 3] }
}

fn take_table(from: &kvm_dtable) -> TableRegister {
    TableRegister { base: from.base, limit: from.limit }
}

/// `apic_base` and `cr8` are the local APIC's.
pub(super) fn sregs(cpu: &Cpu, apic_base: u64, cr8: u64) -> kvm_sregs {
    let of = |number: u8| segment(&cpu.seg[usize::from(number)]);
    let mut tr = segment(&cpu.tr);
    if cpu.efer & efer::LMA != 0 && tr.type_ == TSS16_BUSY {
        // After reset TR holds a 16-bit TSS, with which no processor is let into a guest in IA-32e mode (SDM vol. 3,
        // 28.3.1.2).
        tr.type_ = TSS64_BUSY;
    }
    kvm_sregs {
        cs: of(sreg::CS),
        ds: of(sreg::DS),
        es: of(sreg::ES),
        fs: of(sreg::FS),
        gs: of(sreg::GS),
        // Its DPL is the CPL.
        ss: kvm_segment { dpl: cpu.cpl, ..of(sreg::SS) },
        tr,
        ldt: segment(&cpu.ldtr),
        gdt: table(&cpu.gdtr),
        idt: table(&cpu.idtr),
        cr0: cpu.cr0,
        cr2: cpu.cr2,
        cr3: cpu.cr3,
        cr4: cpu.cr4,
        cr8,
        efer: cpu.efer,
        apic_base,
        interrupt_bitmap: [0; 4],
    }
}

pub(super) fn take_sregs(cpu: &mut Cpu, sregs: &kvm_sregs) {
    let numbered = [&sregs.es, &sregs.cs, &sregs.ss, &sregs.ds, &sregs.fs, &sregs.gs];
    cpu.seg = numbered.map(take_segment);
    cpu.ldtr = take_segment(&sregs.ldt);
    cpu.tr = take_segment(&sregs.tr);
    cpu.gdtr = take_table(&sregs.gdt);
    cpu.idtr = take_table(&sregs.idt);
    cpu.cr0 = sregs.cr0;
    cpu.cr2 = sregs.cr2;
    cpu.cr3 = sregs.cr3;
    cpu.cr4 = sregs.cr4;
    cpu.efer = sregs.efer;
    cpu.cpl = if cpu.cr0 & cr0::PE == 0 {
        0
    } else if cpu.rflags & bit::VM != 0 {
        3
    } else {
        sregs.ss.dpl & 3
    };
}

/// What waits to be delivered is not in the canonical state but for an NMI: there is none of it between runs.
pub(super) fn events(cpu: &Cpu) -> kvm_vcpu_events {
    let mut events = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        ..kvm_vcpu_events::default()
    };
    events.interrupt.shadow = match cpu.shadow {
        Shadow::None => 0,
        Shadow::Sti => KVM_X86_SHADOW_INT_STI as u8,
        Shadow::MovSs => KVM_X86_SHADOW_INT_MOV_SS as u8,
    };
    events.nmi.pending = cpu.nmi_pending.into();
    events.nmi.masked = cpu.nmi_blocked.into();
    events
}

pub(super) fn take_events(cpu: &mut Cpu, events: &kvm_vcpu_events) {
    let shadow = u32::from(events.interrupt.shadow);
    cpu.shadow = if shadow & KVM_X86_SHADOW_INT_MOV_SS != 0 {
        Shadow::MovSs
    } else if shadow & KVM_X86_SHADOW_INT_STI != 0 {
        Shadow::Sti
    } else {
        Shadow::None
    };
    cpu.nmi_pending = events.nmi.pending != 0 || events.nmi.injected != 0;
    cpu.nmi_blocked = events.nmi.masked != 0 && events.nmi.injected == 0;
}

pub(super) fn debug_registers(cpu: &Cpu) -> kvm_debugregs {
    let [d0, d1, d2, d3, _, _, dr6, dr7] = cpu.dr;
    kvm_debugregs { db: [d0, d1, d2, d3], dr6, dr7, flags: 0, reserved: [0; 9] }
}

pub(super) fn take_debug_registers(cpu: &mut Cpu, regs: &kvm_debugregs) {
    let [d0, d1, d2, d3] = regs.db;
    cpu.dr = [d0, d1, d2, d3, 0, 0, regs.dr6, regs.dr7];
}

// The standard form of the XSAVE area (SDM vol. 1, 13.4): offsets in bytes.
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const XMM: usize = 160;
const XSTATE_BV: usize = 512;
const YMM_HIGH: usize = 576;
/// As all Intel's processors have it: `cpuid::missing` asks for that.
const PKRU: usize = 2688;
/// Bytes of x87's part.
const X87_END: usize = 160;

/// The registers of x87, SSE and AVX as an XSAVE area.
pub(super) fn xsave(cpu: &Cpu) -> kvm_xsave {
    let mut area = kvm_xsave::default();
    let mut bytes = vec![0u8; size_of_val(&area.region)];
    let mut image = [0; X87_END];
    cpu.x87.fxsave(true, &mut image);
    bytes[..X87_END].copy_from_slice(&image);
    bytes[MXCSR..MXCSR + 4].copy_from_slice(&cpu.mxcsr.bits().to_le_bytes());
    bytes[MXCSR_MASK..MXCSR_MASK + 4].copy_from_slice(&Mxcsr::MASK.to_le_bytes());
    let components = cpu.model.components();
    bytes[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&components.to_le_bytes());
    for (number, register) in cpu.ymm.iter().enumerate() {
        for (lane, value) in register.0.iter().enumerate() {
            let at = if lane < 2 { XMM } else { YMM_HIGH } + 16 * number + 8 * (lane % 2);
            if lane < 2 || components & xcr0::AVX != 0 {
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    if components & xcr0::PKRU != 0 {
        bytes[PKRU..PKRU + 4].copy_from_slice(&cpu.pkru.to_le_bytes());
    }
    for (word, bytes) in area.region.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    area
}

/// Takes them; components that are in their initial configuration may not be in the area.
pub(super) fn take_xsave(cpu: &mut Cpu, area: &kvm_xsave) {
    let bytes: Vec<u8> = area.region.iter().flat_map(|word| word.to_le_bytes()).collect();
    let quad = |at: usize| {
        bytes[at..at + 8].iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let present = quad(XSTATE_BV);
    cpu.x87 = x87::State::default();
    if present & xcr0::X87 != 0 {
        let mut image = [0; X87_END];
        image.copy_from_slice(&bytes[..X87_END]);
        cpu.x87.fxrstor(true, &image);
    }
    cpu.mxcsr = Mxcsr::default();
    if present & (xcr0::SSE | xcr0::AVX) != 0 {
        cpu.mxcsr = Mxcsr::from_bits(quad(MXCSR) as u32 & Mxcsr::MASK).unwrap_or_default();
    }
    cpu.pkru = if present & xcr0::PKRU != 0 { quad(PKRU) as u32 } else { 0 };
    for (number, register) in cpu.ymm.iter_mut().enumerate() {
        let pair = |there: u64, base: usize| {
            let at = base + 16 * number;
            if present & there != 0 { [quad(at), quad(at + 8)] } else { [0; 2] }
        };
        let ([a, b], [c, d]) = (pair(xcr0::SSE, XMM), pair(xcr0::AVX, YMM_HIGH));
        *register = V256([a, b, c, d]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mimic_cpu::x86::state::gpr;

    fn cpu() -> Cpu {
        let mut cpu = Cpu::new(0, "x86-64-v3,pku=on".parse().unwrap());
        cpu.pkru = 0x5554;
        cpu.gpr = std::array::from_fn(|number| 0x1111 * (number as u64 + 1));
        (cpu.rip, cpu.cpl) = (0x40_1000, 3);
        (cpu.cr0, cpu.cr3, cpu.cr4) = (cr0::PE | cr0::PG | cr0::ET, 0x7000, 0x20);
        cpu.efer = efer::LME | efer::LMA;
        let code = rights::CODE | rights::WRITABLE | rights::ACCESSED | rights::S | rights::P;
        let user = 3 << rights::DPL_SHIFT;
        let limit = u32::MAX;
        cpu.seg[1] = Segment { selector: 0x33, base: 0, limit, rights: code | user | rights::L };
        let data = rights::WRITABLE | rights::ACCESSED | rights::S | rights::P | rights::G;
        cpu.seg[2] = Segment { selector: 0x2b, base: 0, limit, rights: data | user | rights::DB };
        cpu.seg[3] = Segment::null(0);
        (cpu.tr.selector, cpu.tr.rights) = (0x40, 11 | rights::P);
        cpu.ymm = std::array::from_fn(|n| V256(std::array::from_fn(|lane| (n * 4 + lane) as u64)));
        cpu.mxcsr = Mxcsr::from_bits(0x9fc0).unwrap();
        cpu.shadow = Shadow::Sti;
        cpu.nmi_blocked = true;
        cpu.dr[0] = 0x1234;
        cpu
    }

    #[test]
    fn a_state_comes_back_as_it_went() {
        let cpu = cpu();
        let mut back = Cpu { retired: 7, ..Cpu::new(0, cpu.model.clone()) };
        take_regs(&mut back, &regs(&cpu));
        take_sregs(&mut back, &sregs(&cpu, 0, 0));
        take_events(&mut back, &events(&cpu));
        take_debug_registers(&mut back, &debug_registers(&cpu));
        take_xsave(&mut back, &xsave(&cpu));
        back.retired = cpu.retired;
        assert_eq!(back, cpu);
        assert_eq!(regs(&cpu).rdi, 0x8888, "RDI is register 7 in the manual's order");
        assert_eq!(cpu.gpr[usize::from(gpr::RDI)], 0x8888);
    }

    #[test]
    fn the_xsave_area_is_laid_out_as_the_manual_says() {
        // SDM vol. 1, table 10-2 and 13.4.3.
        let area = xsave(&cpu());
        assert_eq!(area.region[6], 0x9fc0, "MXCSR at 24");
        assert_eq!(area.region[512 / 4], 0x207, "x87, SSE, AVX and PKRU");
        assert_eq!(area.region[(160 + 16 * 3) / 4], 12, "XMM3 at 208");
        assert_eq!(area.region[(576 + 16 * 3) / 4], 14, "the upper half of YMM3 at 624");
    }

    #[test]
    fn components_that_are_not_there_are_initial() {
        let mut area = xsave(&cpu());
        area.region[512 / 4] = 0;
        let mut back = cpu();
        take_xsave(&mut back, &area);
        assert_eq!((back.ymm, back.mxcsr), ([V256([0; 4]); 16], Mxcsr::default()));
        assert_eq!(back.pkru, 0);
    }

    #[test]
    fn a_processor_after_reset_may_enter_ia_32e_mode() {
        let mut cpu = cpu();
        cpu.tr.rights = 3 | rights::P;
        assert_eq!(sregs(&cpu, 0, 0).tr.type_, TSS64_BUSY);
        cpu.efer = 0;
        assert_eq!(sregs(&cpu, 0, 0).tr.type_, TSS16_BUSY);
    }
}
