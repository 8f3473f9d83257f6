//! Task switches. Expected values are from the SDM, volume 3, chapter "Task management".

#[path = "x86_common/mod.rs"]
mod common;

use common::Start;
use common::pc::{
    CODE, CODE0, DATA, DATA0, GDT, HANDLERS, IDT, Pc, STACK, TSS, assemble, register,
};
use iced_x86::code_asm::*;
use mimic_cpu::bus::Width;
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::state::{cr0, gpr};

/// Selectors of TSSs: the first task's, the second one's, the one's that handles exceptions.
const FIRST: u16 = 40;
const SECOND: u16 = 48;
const HANDLER: u16 = 56;
/// A task gate to the second one.
const GATE: u16 = 64;
/// An LDT, code that is not present, and data that is not present.
const LDT: u16 = 72;
const ABSENT_CODE: u16 = 80;
const ABSENT_DATA: u16 = 88;
const TSS2: u64 = TSS + 0x200;
const TSS3: u64 = TSS + 0x400;
/// Where the second task and the handler begin.
const SECOND_CODE: u64 = CODE + 0x800;
const HANDLER_CODE: u64 = CODE + 0xc00;
/// The second task's stack, and the handler's.
const SECOND_STACK: u64 = STACK + 0x2000;
const HANDLER_STACK: u64 = STACK + 0x3000;
const SLOT: u64 = 8;

const AVAILABLE: u64 = 0x89;
const BUSY: u64 = 0x8b;

fn tss(base: u64, rights: u64, limit: u64) -> u64 {
    limit | base << 16 | rights << 40
}

/// A PC in protected mode whose first task is running; the exceptions that switches raise have a task of their own.
fn tasks() -> Pc {
    let pc = Pc::new(Start::Protected32);
    let descriptor = |selector: u16, value| {
        pc.bus.store(GDT + u64::from(selector), Width::Double, value);
    };
    descriptor(FIRST, tss(TSS, BUSY, 103));
    descriptor(SECOND, tss(TSS2, AVAILABLE, 103));
    descriptor(HANDLER, tss(TSS3, AVAILABLE, 103));
    descriptor(GATE, u64::from(SECOND) << 16 | 0x85 << 40);
    descriptor(LDT, tss(DATA, 0x82, 15));
    descriptor(ABSENT_CODE, 0x00cf_1b00_0000_ffff);
    descriptor(ABSENT_DATA, 0x00cf_1300_0000_ffff);
    for vector in [10, 11, 12, 13] {
        pc.bus.store(IDT + SLOT * vector, Width::Double, u64::from(HANDLER) << 16 | 0x85 << 40);
    }
    for (at, start, stack) in
        [(TSS2, SECOND_CODE, SECOND_STACK), (TSS3, HANDLER_CODE, HANDLER_STACK)]
    {
        let field = |offset, value| pc.bus.store(at + offset, Width::Word, value);
        field(32, start);
        field(36, 2);
        field(40, 0x1111_2222);
        field(56, stack);
        for segment in [72, 80, 84] {
            field(segment, DATA0.into());
        }
        field(76, CODE0.into());
    }
    pc.bus.put(SECOND_CODE, &[0xf4]);
    pc.bus.put(HANDLER_CODE, &[0xf4]);
    pc
}

/// The type byte of a descriptor.
fn rights(pc: &Pc, selector: u16) -> u64 {
    pc.bus.load(GDT + u64::from(selector) + 5, Width::Byte)
}

fn far_jump(a: &mut CodeAssembler, selector: u16) -> Result<(), iced_x86::IcedError> {
    a.mov(word_ptr(DATA as u32 + 4), u32::from(selector))?;
    a.db(&[0xff, 0x2d])?; // JMP FAR [disp32]
    a.db(&(DATA as u32).to_le_bytes())
}

fn far_call(a: &mut CodeAssembler, selector: u16) -> Result<(), iced_x86::IcedError> {
    a.mov(word_ptr(DATA as u32 + 4), u32::from(selector))?;
    a.db(&[0xff, 0x1d])?; // CALL FAR [disp32]
    a.db(&(DATA as u32).to_le_bytes())
}

#[test]
fn a_jump_leaves_one_task_for_another() {
    for selector in [SECOND, GATE] {
        let pc = tasks();
        pc.put(32, &|a| {
            a.mov(ebx, 0x1234_5678)?;
            far_jump(a, selector)?;
            a.hlt()
        });
        let (fault, cpu) = pc.run();
        assert_eq!(fault, None);
        assert_eq!(cpu.rip, SECOND_CODE + 1);
        assert_eq!(register(&cpu, gpr::RAX), 0x1111_2222);
        assert_eq!(register(&cpu, gpr::RSP), SECOND_STACK);
        assert_eq!(cpu.tr.selector, SECOND);
        assert_ne!(cpu.cr0 & cr0::TS, 0);
        assert_eq!(cpu.rflags & bit::NT, 0);
        assert_eq!([rights(&pc, FIRST), rights(&pc, SECOND)], [AVAILABLE, BUSY]);
        let load = |at| pc.bus.load(TSS + at, Width::Word);
        assert_eq!(pc.bus.load(load(32), Width::Byte), 0xf4, "behind the jump");
        assert_eq!(load(52), 0x1234_5678, "EBX");
        assert_eq!(load(76), u64::from(CODE0));
    }
}

#[test]
fn a_call_nests_and_iret_returns() {
    let pc = tasks();
    pc.put(32, &|a| {
        far_call(a, SECOND)?;
        a.mov(ecx, 7)?;
        a.pushfd()?;
        a.pop(edx)?;
        a.hlt()
    });
    let second = assemble(32, SECOND_CODE, &|a| {
        a.pushfd()?;
        a.pop(ebx)?;
        a.mov(dword_ptr(DATA as u32 + 16), ebx)?;
        a.iretd()?;
        a.hlt()
    });
    pc.bus.put(SECOND_CODE, &second);
    let (fault, cpu) = pc.run();
    assert_eq!(fault, None);
    assert_eq!(register(&cpu, gpr::RCX), 7);
    assert_ne!(pc.bus.load(DATA + 16, Width::Word) & bit::NT, 0, "NT in the called task");
    assert_eq!(register(&cpu, gpr::RDX) & bit::NT, 0);
    assert_eq!(cpu.tr.selector, FIRST);
    assert_eq!([rights(&pc, FIRST), rights(&pc, SECOND)], [BUSY, AVAILABLE]);
    assert_eq!(pc.bus.load(TSS2, Width::Half), u64::from(FIRST), "the back link");
    assert_eq!(pc.bus.load(TSS2 + 36, Width::Word) & bit::NT, 0, "IRET saves NT clear");
}

#[test]
fn an_exception_through_a_task_gate_brings_its_error_code() {
    let pc = tasks();
    pc.put(32, &|a| {
        a.mov(eax, 0x1234)?;
        a.mov(ds, eax)?; // An entry of zeros.
        a.hlt()
    });
    let (_, cpu) = pc.run();
    assert_eq!(cpu.tr.selector, HANDLER);
    assert_eq!(register(&cpu, gpr::RSP), HANDLER_STACK - 4);
    assert_eq!(pc.stack(&cpu, 0, Width::Word), 0x1234);
    assert_eq!(pc.bus.load(TSS3, Width::Half), u64::from(FIRST));
    assert_eq!(pc.bus.load(TSS + 32, Width::Word), CODE + 5, "the faulting instruction");
    assert_ne!(cpu.rflags & bit::NT, 0);
    assert_eq!([rights(&pc, FIRST), rights(&pc, HANDLER)], [BUSY, BUSY]);
}

#[test]
fn a_16_bit_task_has_registers_of_16_bits() {
    let pc = tasks();
    pc.bus.store(GDT + u64::from(SECOND), Width::Double, tss(TSS2, 0x81, 43));
    pc.bus.put(TSS2, &[0; 104]);
    let fields = [(14, 0x800), (16, 2), (18, 0x4321), (26, 0x700)];
    let segments = [(34, DATA0), (36, CODE0), (38, DATA0), (40, DATA0)];
    for (at, value) in fields.into_iter().chain(segments.map(|(at, s)| (at, s.into()))) {
        pc.bus.store(TSS2 + at, Width::Half, value);
    }
    pc.bus.put(0x800, &[0xf4]);
    pc.put(32, &|a| far_jump(a, SECOND));
    let (_, cpu) = pc.run();
    assert_eq!(cpu.rip, 0x801);
    assert_eq!(register(&cpu, gpr::RAX) & 0xffff, 0x4321);
    assert_eq!(register(&cpu, gpr::RSP) & 0xffff, 0x700);
    assert_eq!(rights(&pc, SECOND), 0x83);
    assert_eq!([cpu.seg[4].selector, cpu.seg[5].selector], [0, 0]);
}

#[test]
fn switches_check_what_they_load() {
    // SDM vol. 3, "Exception conditions checked during a task switch" (table 9-1 in chapter 9): vector and error code,
    // and whether it is raised in the new task.
    type Change<'a> = &'a dyn Fn(&Pc);
    let field = |at, value| move |pc: &Pc| pc.bus.store(TSS2 + at, Width::Half, value);
    let descriptor =
        |value| move |pc: &Pc| pc.bus.store(GDT + u64::from(SECOND), Width::Double, value);
    let second = u64::from(SECOND);
    let cases: [(&str, Change<'_>, u64, u64, bool); 15] = [
        ("busy", &descriptor(tss(TSS2, BUSY, 103)), 13, second, false),
        ("absent", &descriptor(tss(TSS2, 0x09, 103)), 11, second, false),
        ("short", &descriptor(tss(TSS2, AVAILABLE, 102)), 10, second, false),
        ("LDT is none", &field(96, DATA0.into()), 10, DATA0.into(), true),
        ("LDT in an LDT", &field(96, 4), 10, 4, true),
        ("CS null", &field(76, 0), 10, 0, true),
        ("CS data", &field(76, DATA0.into()), 10, DATA0.into(), true),
        ("CS RPL", &field(76, u64::from(CODE0) + 1), 10, CODE0.into(), true),
        ("CS absent", &field(76, ABSENT_CODE.into()), 11, ABSENT_CODE.into(), true),
        ("SS null", &field(80, 0), 10, 0, true),
        ("SS RPL", &field(80, u64::from(DATA0) + 3), 10, DATA0.into(), true),
        ("SS absent", &field(80, ABSENT_DATA.into()), 12, ABSENT_DATA.into(), true),
        ("DS system", &field(84, LDT.into()), 10, LDT.into(), true),
        ("DS absent", &field(84, ABSENT_DATA.into()), 11, ABSENT_DATA.into(), true),
        ("LDT", &field(96, LDT.into()), 99, 0, true),
    ];
    for (name, change, vector, error, new) in cases {
        let pc = tasks();
        for number in [10, 11, 12, 13] {
            // The only gate that is there tells the vector.
            if number != vector {
                pc.bus.store(IDT + SLOT * number, Width::Double, 0);
            }
        }
        change(&pc);
        pc.put(32, &|a| far_jump(a, SECOND));
        let (_, cpu) = pc.run();
        if vector == 99 {
            assert_eq!(cpu.rip, SECOND_CODE + 1, "{name}");
            assert_eq!(cpu.ldtr.base, DATA);
            continue;
        }
        assert_eq!(cpu.tr.selector, HANDLER, "{name}");
        assert_eq!(pc.stack(&cpu, 0, Width::Word), error, "{name}");
        let link = if new { SECOND } else { FIRST };
        assert_eq!(pc.bus.load(TSS3, Width::Half), u64::from(link), "{name}");
        if new {
            assert_eq!(pc.bus.load(TSS2 + 32, Width::Word), SECOND_CODE, "{name}");
        }
    }
}

#[test]
fn the_t_flag_traps_behind_the_switch() {
    let mut pc = tasks();
    pc.cpu.dr[7] |= 0x355;
    pc.bus.store(TSS2 + 100, Width::Half, 1);
    pc.put(32, &|a| far_jump(a, SECOND));
    let (fault, cpu) = pc.run();
    assert_eq!(fault, Some(1));
    assert_eq!(pc.stack(&cpu, 0, Width::Word), SECOND_CODE);
    assert_ne!(cpu.dr[6] & 1 << 15, 0, "BT");
    assert_eq!(cpu.dr[7] & 0x355, 0x200, "local breakpoints end with the task");
    assert_eq!(cpu.rip, HANDLERS + 16 + 1);
}

#[test]
fn iret_needs_a_busy_task_to_return_to() {
    let mut pc = tasks();
    pc.cpu.rflags |= bit::NT;
    pc.bus.store(TSS, Width::Half, SECOND.into());
    pc.put(32, &|a| a.iretd());
    let (_, cpu) = pc.run();
    assert_eq!(cpu.tr.selector, HANDLER);
    assert_eq!(pc.stack(&cpu, 0, Width::Word), u64::from(SECOND));
}
