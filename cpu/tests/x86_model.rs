//! What a processor is without a feature, of another maker, and its model-specific registers. Expected values are from
//! the SDM, volumes 3 and 4, and AMD's *Architecture Programmer's Manual* (APM), as each test names them.

#[path = "x86_common/mod.rs"]
mod common;

use common::Start;
use common::pc::{CODE, DATA, Pc, Program, register};
use iced_x86::code_asm::*;
use mimic_cpu::bus::Width;
use mimic_cpu::x86::state::{efer, gpr, rights, sreg};

/// The exception that `program` raises on a model in 64-bit mode.
fn outcome(model: &str, program: &Program<'_>) -> Option<u64> {
    let mut pc = Pc::new(Start::Long);
    pc.cpu.model = model.parse().unwrap();
    pc.put(64, &|a| {
        program(a)?;
        a.hlt()
    });
    pc.run().0
}

fn write(msr: u32, value: u64) -> impl Fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError> {
    move |a| {
        a.mov(ecx, msr)?;
        a.mov(eax, value as u32)?;
        a.mov(edx, (value >> 32) as u32)?;
        a.wrmsr()
    }
}

fn read(msr: u32) -> impl Fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError> {
    move |a| {
        a.mov(ecx, msr)?;
        a.rdmsr()
    }
}

const GP: Option<u64> = Some(13);

/// SDM vol. 1, 3.3.7.1: registers with addresses take what the processor can translate, whether CR4.LA57 is set or not.
#[test]
fn bases_are_canonical_by_what_the_processor_supports() {
    let (wide, narrow) = ("x86-64-v3", "x86-64-v3,la57=off");
    let (in48, in57, neither) =
        (0xffff_8000_0000_0000u64, 0xff00_0000_0000_0000, 0x8000_0000_0000_0000);
    for (model, value, expected) in [
        (narrow, in48, None),
        (narrow, in57, GP),
        (wide, in48, None),
        (wide, in57, None),
        (wide, neither, GP),
    ] {
        // IA32_LSTAR, IA32_KERNEL_GS_BASE, IA32_SYSENTER_EIP.
        for msr in [0xc000_0082, 0xc000_0102, 0x176] {
            assert_eq!(outcome(model, &write(msr, value)), expected, "{model} {msr:#x} {value:#x}");
        }
        let table = |a: &mut CodeAssembler| {
            a.mov(rax, value)?;
            a.mov(qword_ptr(DATA + 2), rax)?;
            a.lidt(ptr(DATA))
        };
        assert_eq!(outcome(model, &table), expected, "{model} LIDT {value:#x}");
    }
}

/// SDM vol. 3, 16.3.1 and 16.3.2: as many banks as IA32_MCG_CAP says, none here. Vol. 4, table 2-2: bits 7, 11 and 12 of
/// IA32_MISC_ENABLE are read-only.
#[test]
fn registers_that_say_what_there_is_not() {
    let pc = Pc::new(Start::Long);
    pc.put(64, &|a| {
        read(0x179)(a)?;
        a.mov(rbx, rax)?;
        write(0x1a0, 0x1881)(a)?;
        read(0x1a0)(a)?;
        a.hlt()
    });
    let (fault, cpu) = pc.run();
    assert_eq!(fault, None);
    assert_eq!(register(&cpu, gpr::RBX) & 0xff, 0);
    assert_eq!(register(&cpu, gpr::RAX), 0x1801);
    // IA32_MC0_CTL.
    assert_eq!(outcome("x86-64-v3", &read(0x400)), GP);
    // IA32_TSC_ADJUST.
    assert_eq!(outcome("x86-64-v3", &read(0x3b)), None);
    assert_eq!(outcome("x86-64-v3,tsc-adjust=off", &read(0x3b)), GP);
    // PerfEvtSel0 (APM vol. 2, appendix A).
    assert_eq!(outcome("x86-64-v3", &write(0xc001_0000, 0)), GP);
    assert_eq!(outcome("x86-64-v3,vendor=amd", &write(0xc001_0000, 0)), None);
    // RDPMC (vol. 2): #GP(0) for a counter that there is not.
    for (model, counter, expected) in
        [("x86-64-v3", 0, GP), ("x86-64-v3,vendor=amd", 3, None), ("x86-64-v3,vendor=amd", 4, GP)]
    {
        let program = |a: &mut CodeAssembler| {
            a.mov(ecx, counter)?;
            a.rdpmc()
        };
        assert_eq!(outcome(model, &program), expected, "{model} {counter}");
    }
}

/// APM vol. 3, "SYSCALL": in compatibility mode it goes to CSTAR; Intel's processors have it in 64-bit mode alone (SDM
/// vol. 2). "SYSENTER": not in long mode there, here everywhere.
#[test]
fn makers_differ_in_fast_calls() {
    let target = CODE + 0x200;
    let run = |model: &str, program: &Program<'_>| {
        let mut pc = Pc::new(Start::Long);
        pc.cpu.model = model.parse().unwrap();
        let code = &mut pc.cpu.seg[usize::from(sreg::CS)];
        code.rights = code.rights & !rights::L | rights::DB;
        pc.cpu.efer |= efer::SCE;
        pc.cpu.msr.star = 8 << 32;
        pc.cpu.msr.cstar = target;
        pc.cpu.msr.sysenter_cs = 8;
        pc.cpu.msr.sysenter_eip = target;
        pc.put(32, program);
        pc.bus.put(target, &[0xf4]);
        let (fault, cpu) = pc.run();
        (fault, cpu.rip, cpu.seg[usize::from(sreg::CS)].has(rights::L))
    };
    let ud = |(fault, ..): (Option<u64>, u64, bool)| fault == Some(6);
    let (intel, amd) = ("x86-64-v3", "x86-64-v3,vendor=amd");
    let there = (None, target + 1, true);
    assert_eq!(run(amd, &|a| a.syscall()), there);
    assert!(ud(run(intel, &|a| a.syscall())));
    assert!(ud(run(amd, &|a| a.sysenter())));
    assert_eq!(run(intel, &|a| a.sysenter()), there);
}

/// SDM vol. 3, table 5-4 and 5.4.1: bits of an address beyond MAXPHYADDR are reserved.
#[test]
fn address_bits_decide_what_is_reserved() {
    for (bits, expected) in [(36, Some(14)), (37, None)] {
        let mut pc = Pc::new(Start::Long);
        assert!(pc.cpu.model.set_phys_bits(bits));
        // The second GiB is mapped beyond 64 GiB, where nothing answers.
        pc.bus.store(common::TABLES + 0x1008, Width::Double, 1 << 36 | 0x87);
        pc.put(64, &|a| {
            a.mov(eax, dword_ptr(0x4000_0000u64))?;
            a.hlt()
        });
        let (fault, cpu) = pc.run();
        assert_eq!(fault, expected, "{bits} bits");
        if fault.is_some() {
            assert_eq!(pc.stack(&cpu, 0, Width::Double), 0b1001, "present, reserved");
        }
    }
}
