//! Small programs in 16-, 32- and 64-bit mode. Expected values are from the SDM, whose section each test names.

#[path = "x86_common/mod.rs"]
mod common;

use std::sync::Arc;

use common::pc::{
    CODE, CODE0, CODE3, DATA, DATA0, DATA3, HANDLERS, IDT, Pc, Program, STACK, assemble, register,
};
use common::{PcBus, Start, cpu, interp, run};
use iced_x86::code_asm::*;
use mimic_cpu::bus::{Width, line};
use mimic_cpu::run::Exit;
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::interp::Interp;
use mimic_cpu::x86::model::Model;
use mimic_cpu::x86::state::{gpr, rights, sreg};

/// Without CET a look at the shadow stack's pointer changes nothing (SDM vol. 2, RDSSP), and what changes it is no
/// instruction.
#[test]
fn there_is_no_shadow_stack() {
    let bus = PcBus::new(64);
    let program = assemble(16, 0x7c00, &|a| {
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.mov(ss, ax)?;
        a.mov(sp, 0x7000)?;
        // #UD goes to 0x0800:0x0000.
        a.mov(dword_ptr(0x18), 0x0800_0000)?;
        a.mov(esi, 1)?;
        a.rdsspd(esi)?;
        a.incsspd(esi)?;
        a.hlt()
    });
    bus.put(0x7c00, &program);
    let handler = assemble(16, 0, &|a| {
        a.mov(bx, 0x55aa)?;
        a.hlt()
    });
    bus.put(0x8000, &handler);
    let (mut interp, _) = interp(cpu(&bus, Start::Real, 0x7c00, Model::v3()), &bus);
    assert_eq!(run(&mut interp, 1000), Exit::Halted);
    let cpu = interp.cpu();
    assert_eq!((register(&cpu, gpr::RSI), register(&cpu, gpr::RBX)), (1, 0x55aa));
}

#[test]
fn real_mode_calls_strings_and_interrupts() {
    let bus = PcBus::new(64);
    let program = assemble(16, 0x7c00, &|a| {
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.mov(ss, ax)?;
        a.mov(sp, 0x7000)?;
        // INT 0x21 goes to 0x0800:0x0000.
        a.mov(word_ptr(0x84), 0)?;
        a.mov(word_ptr(0x86), 0x0800)?;
        a.mov(ax, 0x2000)?;
        a.mov(es, ax)?;
        a.mov(di, 0xfffe)?;
        a.mov(cx, 4)?;
        a.mov(ax, 0x1234)?;
        a.cld()?;
        // DI wraps round at 64 KiB.
        a.rep().stosw()?;
        a.int(0x21)?;
        a.hlt()
    });
    bus.put(0x7c00, &program);
    let handler = assemble(16, 0, &|a| {
        a.mov(bx, 0x55aa)?;
        a.pushf()?;
        a.pop(dx)?;
        a.iret()
    });
    bus.put(0x8000, &handler);
    let mut start = cpu(&bus, Start::Real, 0x7c00, Model::v3());
    start.rflags |= bit::IF;
    let (mut interp, _) = interp(start, &bus);
    assert_eq!(run(&mut interp, 1000), Exit::Halted);
    let cpu = interp.cpu();
    assert_eq!(register(&cpu, gpr::RBX), 0x55aa);
    assert_eq!(
        register(&cpu, gpr::RDX) & bit::IF,
        0,
        "interrupts are off in a handler (SDM 21.1.4)"
    );
    assert_eq!(cpu.rflags & bit::IF, bit::IF, "and on again behind IRET");
    assert_eq!(register(&cpu, gpr::RSP), 0x7000);
    assert_eq!(register(&cpu, gpr::RDI), 6);
    assert_eq!(bus.load(0x2_fffe, Width::Half), 0x1234);
    assert_eq!(bus.load(0x2_0000, Width::Half), 0x1234);
    assert_eq!(bus.load(0x2_0004, Width::Half), 0x1234);
    // INT, three in the handler, IRET and the rest: 12 + REP counted once + INT + HLT + 4.
    assert_eq!(interp.retired(), 19);
}

#[test]
fn decimal_arithmetic_follows_the_manuals_examples() {
    // SDM vol. 2, "DAA" and "DAS": ADD AL=79H, BL=35H; SUB AL=35H, BL=47H.
    let pc = Pc::new(Start::Protected32);
    pc.put(32, &|a| {
        a.mov(al, 0x79)?;
        a.mov(bl, 0x35)?;
        a.add(al, bl)?;
        a.daa()?;
        a.pushfd()?;
        a.pop(esi)?;
        a.mov(cl, al)?;
        a.mov(al, 0x35)?;
        a.mov(bl, 0x47)?;
        a.sub(al, bl)?;
        a.das()?;
        a.pushfd()?;
        a.pop(edi)?;
        a.hlt()
    });
    let (fault, cpu) = pc.run();
    assert_eq!(fault, None);
    let defined = bit::CF | bit::PF | bit::AF | bit::ZF | bit::SF;
    assert_eq!(register(&cpu, gpr::RCX) & 0xff, 0x14);
    assert_eq!(register(&cpu, gpr::RSI) & defined, bit::CF | bit::PF | bit::AF);
    assert_eq!(register(&cpu, gpr::RAX) & 0xff, 0x88);
    assert_eq!(register(&cpu, gpr::RDI) & defined, bit::CF | bit::PF | bit::AF | bit::SF);
}

#[test]
fn a_segment_limit_holds_and_tells_the_stack_from_the_rest() {
    // SDM vol. 3, 6.3: #GP(0) beyond the limit, #SS(0) in the stack segment.
    for (number, expected) in [(sreg::DS, 13), (sreg::SS, 12)] {
        let mut pc = Pc::new(Start::Protected32);
        pc.cpu.seg[usize::from(number)].limit = DATA as u32 + 2;
        pc.cpu.gpr[usize::from(gpr::RSP)] = DATA - 16;
        pc.cpu.gpr[usize::from(gpr::RBP)] = DATA;
        pc.put(32, &|a| {
            if number == sreg::SS {
                a.mov(ax, word_ptr(ebp))?;
                a.mov(eax, dword_ptr(ebp))?;
            } else {
                a.mov(ax, word_ptr(DATA as u32))?;
                a.mov(eax, dword_ptr(DATA as u32))?;
            }
            a.hlt()
        });
        let (fault, cpu) = pc.run();
        assert_eq!(fault, Some(expected));
        assert_eq!(pc.stack(&cpu, 0, Width::Word), 0, "the error code");
    }
}

#[test]
fn level_3_enters_level_0_through_a_gate_and_comes_back() {
    // SDM vol. 3, 7.12.1: the stack of the TSS holds SS, ESP, EFLAGS, CS, EIP.
    let pc = Pc::new(Start::Protected32);
    let handler = CODE + 0x800;
    let gate = handler >> 16 << 48 | 0xee00 << 32 | u64::from(CODE0) << 16 | handler & 0xffff;
    pc.bus.store(IDT + 8 * 0x30, Width::Double, gate);
    pc.put(32, &|a| {
        a.push(u32::from(DATA3))?;
        a.push(DATA as u32)?;
        a.push(0x202)?;
        a.push(u32::from(CODE3))?;
        a.push(CODE as u32 + 0x400)?;
        a.iretd()
    });
    pc.bus.put(
        CODE + 0x400,
        &assemble(32, CODE + 0x400, &|a| {
            a.mov(eax, cs)?;
            a.int(0x30)?;
            a.inc(ebx)?;
            // Privileged: #GP(0).
            a.cli()
        }),
    );
    pc.bus.put(
        CODE + 0x800,
        &assemble(32, CODE + 0x800, &|a| {
            a.mov(ecx, cs)?;
            a.mov(edx, ss)?;
            a.mov(esi, esp)?;
            a.mov(ebx, 41)?;
            a.iretd()
        }),
    );
    let (fault, cpu) = pc.run();
    assert_eq!(fault, Some(13));
    assert_eq!(register(&cpu, gpr::RAX), u64::from(CODE3));
    assert_eq!(register(&cpu, gpr::RCX), u64::from(CODE0));
    assert_eq!(register(&cpu, gpr::RDX), u64::from(DATA0));
    assert_eq!(register(&cpu, gpr::RBX), 42);
    assert_eq!(register(&cpu, gpr::RSI), STACK + 0x1000 - 20);
    let frame: Vec<u64> = (0..6).map(|i| pc.stack(&cpu, i, Width::Word)).collect();
    let rip = CODE + 0x400 + 2 + 2 + 1;
    assert_eq!(frame[..3], [0, rip, u64::from(CODE3)]);
    assert_eq!(frame[4..], [DATA, u64::from(DATA3)]);
}

#[test]
fn syscall_and_sysret_change_levels() {
    // SDM vol. 2, "SYSCALL", "SYSRET".
    let mut pc = Pc::new(Start::Long);
    pc.cpu.msr.star = u64::from(CODE0) << 32 | u64::from(DATA0 | 3) << 48;
    pc.cpu.msr.lstar = CODE + 0x800;
    pc.cpu.msr.sfmask = bit::IF;
    pc.put(64, &|a| {
        a.mov(rcx, CODE + 0x400)?;
        a.mov(r11, 0x202u64)?;
        a.sysretq()
    });
    pc.bus.put(
        CODE + 0x400,
        &assemble(64, CODE + 0x400, &|a| {
            a.mov(rax, cs)?;
            a.mov(rbx, ss)?;
            a.syscall()
        }),
    );
    pc.bus.put(
        CODE + 0x800,
        &assemble(64, CODE + 0x800, &|a| {
            a.mov(rdx, cs)?;
            a.pushfq()?;
            a.pop(rsi)?;
            a.hlt()
        }),
    );
    let (fault, cpu) = pc.run();
    assert_eq!(fault, None);
    assert_eq!(register(&cpu, gpr::RAX), u64::from(CODE3));
    assert_eq!(register(&cpu, gpr::RBX), u64::from(DATA3));
    assert_eq!(register(&cpu, gpr::RDX), u64::from(CODE0));
    assert_eq!(register(&cpu, gpr::RSI) & bit::IF, 0);
    assert_eq!(register(&cpu, gpr::R11), 0x202);
    assert_eq!(register(&cpu, gpr::RCX), CODE + 0x400 + 3 + 3 + 2);
}

#[test]
fn code_that_is_written_counts_at_the_next_instruction() {
    // SDM vol. 3, 9.1.3.
    let pc = Pc::new(Start::Long);
    // Stores into the immediate of the instruction behind the next one.
    let program = |at: u64| {
        assemble(64, CODE, &|a| {
            a.mov(byte_ptr(CODE + at), 0x40)?;
            a.inc(rcx)?;
            a.mov(al, 1)?;
            a.mov(ah, 2)?;
            a.hlt()
        })
    };
    let code = program(0);
    let at = code.iter().rposition(|byte| *byte == 1).unwrap() as u64;
    let patched = program(at);
    assert_eq!(patched.len(), code.len());
    pc.bus.put(CODE, &patched);
    let (fault, cpu) = pc.run();
    assert_eq!(fault, None);
    assert_eq!(register(&cpu, gpr::RAX) & 0xffff, 0x0240);
}

#[test]
fn code_that_is_written_counts_when_instructions_are_performed_one_by_one() {
    let mut pc = Pc::new(Start::Long);
    // Adds the number of the round, which it stores into the immediate of the addition, across a jump to another page.
    let far = CODE + 0x1000;
    let immediate = far + 2;
    pc.bus.put(
        CODE,
        &assemble(64, CODE, &|a| {
            a.mov(byte_ptr(immediate), cl)?;
            a.jmp(far)
        }),
    );
    pc.bus.put(
        far,
        &assemble(64, far, &|a| {
            a.add(ebx, 1)?;
            a.dec(ecx)?;
            a.jne(CODE)?;
            a.hlt()
        }),
    );
    pc.cpu.rip = CODE;
    pc.cpu.gpr[usize::from(gpr::RCX)] = 100;
    pc.cpu.gpr[usize::from(gpr::RBX)] = 0;
    for at_once in [1, 2, 3, u64::MAX] {
        let (mut interp, _) = interp(pc.cpu.clone(), &pc.bus);
        while run(&mut interp, at_once) != Exit::Halted {}
        assert_eq!(register(&interp.cpu(), gpr::RBX), 5050, "{at_once} at once");
        assert_eq!(interp.retired(), 501);
    }
}

#[test]
fn an_instruction_may_cross_pages_and_budgets_are_exact() {
    let mut pc = Pc::new(Start::Long);
    let program: &Program<'_> = &|a| {
        a.mov(rax, 0x1122_3344_5566_7788u64)?;
        a.inc(rbx)?;
        a.inc(rbx)?;
        a.hlt()
    };
    let at = CODE + 0xffb;
    pc.bus.put(at, &assemble(64, at, program));
    pc.cpu.rip = at;
    let (mut interp, _) = interp(pc.cpu.clone(), &pc.bus);
    let mut after = |insns| {
        assert_eq!(run(&mut interp, insns), Exit::Budget);
        (interp.retired(), interp.cpu().rip, register(&interp.cpu(), gpr::RBX))
    };
    assert_eq!(after(1), (1, at + 10, 0));
    assert_eq!(after(1), (2, at + 13, 1));
    assert_eq!(after(1), (3, at + 16, 2));
    assert_eq!(register(&interp.cpu(), gpr::RAX), 0x1122_3344_5566_7788);
}

fn interrupted(program: &Program<'_>) -> (Interp, Arc<mimic_cpu::signals::Signals>, Arc<PcBus>) {
    let pc = Pc::new(Start::Long);
    pc.bus.put(HANDLERS + 16 * 0x20, &[0x48, 0xff, 0xc3, 0x48, 0xcf]); // INC RBX; IRETQ
    pc.put(64, program);
    let (interp, signals) = interp(pc.cpu.clone(), &pc.bus);
    *pc.bus.vector.lock().unwrap() = Some(0x20);
    signals.set_lines(line::INTR, true);
    (interp, signals, pc.bus)
}

#[test]
fn sti_holds_interrupts_off_for_one_instruction() {
    // SDM vol. 2, "STI": STI; CLI lets none in.
    let (mut interp, _, bus) = interrupted(&|a| {
        a.sti()?;
        a.cli()?;
        a.inc(rcx)?;
        a.hlt()
    });
    assert_eq!(run(&mut interp, 100), Exit::Halted);
    assert_eq!(register(&interp.cpu(), gpr::RBX), 0);
    assert!(bus.vector.lock().unwrap().is_some());
    // STI; HLT waits, and the interrupt ends the wait behind HLT.
    let (mut interp, signals, bus) = interrupted(&|a| {
        a.sti()?;
        a.hlt()?;
        a.mov(rcx, 5u64)?;
        a.cli()?;
        a.hlt()
    });
    assert_eq!(run(&mut interp, 1), Exit::Budget);
    assert!(bus.vector.lock().unwrap().is_some(), "not before HLT");
    assert_eq!(run(&mut interp, 2), Exit::Budget);
    signals.set_lines(line::INTR, false);
    assert_eq!(run(&mut interp, 100), Exit::Halted);
    assert_eq!(register(&interp.cpu(), gpr::RBX), 1);
    assert_eq!(register(&interp.cpu(), gpr::RCX), 5);
    assert!(bus.vector.lock().unwrap().is_none());
}

#[test]
fn a_single_step_traps_behind_the_instruction() {
    // SDM vol. 3, 18.3.1.4: DR6.BS.
    let pc = Pc::new(Start::Long);
    pc.put(64, &|a| {
        a.pushfq()?;
        a.or(qword_ptr(rsp), 0x100)?;
        a.popfq()?;
        a.inc(rbx)?;
        a.inc(rbx)?;
        a.hlt()
    });
    let (fault, cpu) = pc.run();
    assert_eq!(fault, Some(1));
    assert_eq!(register(&cpu, gpr::RBX), 1);
    assert_eq!(cpu.dr[6] & 1 << 14, 1 << 14);
}

#[test]
fn alignment_is_checked_at_level_3_when_asked_for() {
    // SDM vol. 3, 7.15, interrupt 17.
    let mut pc = Pc::new(Start::Long);
    pc.cpu.cpl = 3;
    pc.cpu.seg[usize::from(sreg::CS)].selector = CODE3;
    pc.cpu.seg[usize::from(sreg::SS)].selector = DATA3;
    pc.cpu.seg[usize::from(sreg::SS)].rights |= 3 << rights::DPL_SHIFT;
    pc.cpu.cr0 |= 1 << 18;
    pc.cpu.rflags |= bit::AC;
    pc.put(64, &|a| {
        a.mov(rcx, qword_ptr(DATA))?;
        a.mov(cx, word_ptr(DATA + 2))?;
        a.mov(ecx, dword_ptr(DATA + 2))?;
        a.hlt()
    });
    let (fault, cpu) = pc.run();
    assert_eq!(fault, Some(17));
    assert_eq!(pc.stack(&cpu, 0, Width::Double), 0, "the error code");
    assert_eq!(pc.stack(&cpu, 1, Width::Double), CODE + 8 + 8);
    assert_ne!(pc.stack(&cpu, 3, Width::Double) & bit::RF, 0, "a fault (SDM vol. 3, 18.3.1.1)");
    assert_eq!(cpu.rflags & bit::RF, 0, "but not in its handler");
}

#[test]
fn a_debugger_stops_at_breakpoints_watchpoints_and_steps() {
    use mimic_cpu::debug::{DebugEvent, DebugPoints, WatchKind, Watchpoint};
    let pc = Pc::new(Start::Long);
    pc.put(64, &|a| {
        a.inc(rbx)?; // 3 bytes
        a.inc(rbx)?;
        a.mov(qword_ptr(DATA), rbx)?; // 8 bytes
        a.inc(rbx)?;
        a.hlt()
    });
    let (mut interp, _) = interp(pc.cpu.clone(), &pc.bus);
    let point = Watchpoint { addr: DATA + 7, len: 1, kind: WatchKind::Write };
    let breakpoints = vec![CODE + 3];
    interp.set_debug(DebugPoints { breakpoints, watchpoints: vec![point], step: false });
    assert_eq!(run(&mut interp, 100), Exit::Debug(DebugEvent::Breakpoint));
    assert_eq!(interp.cpu().rip, CODE + 3);
    interp.set_debug(DebugPoints { step: true, ..DebugPoints::default() });
    assert_eq!(run(&mut interp, 100), Exit::Debug(DebugEvent::Step));
    assert_eq!(interp.cpu().rip, CODE + 6);
    interp.set_debug(DebugPoints { watchpoints: vec![point], ..DebugPoints::default() });
    assert_eq!(run(&mut interp, 100), Exit::Debug(DebugEvent::Watch { addr: DATA, point }));
    assert_eq!(interp.cpu().rip, CODE + 14);
    interp.set_debug(DebugPoints::default());
    assert_eq!(run(&mut interp, 100), Exit::Halted);
    assert_eq!(interp.retired(), 5);
}

#[test]
fn debug_registers_stop_the_guest_itself() {
    // SDM vol. 3, 18.2.4 (DR7), 18.3.1.1 (instruction breakpoints are faults), 18.3.1.2 (data breakpoints are traps).
    let program: &Program<'_> = &|a| {
        a.inc(rbx)?; // 3 bytes
        a.mov(rcx, qword_ptr(DATA))?; // 8 bytes
        a.mov(qword_ptr(DATA), rbx)?; // 8 bytes
        a.inc(rbx)?;
        a.hlt()
    };
    // DR7, DR0, where #DB is raised, if at all.
    let cases = [
        (0x401, CODE + 3, Some(CODE + 3)), // An instruction, local.
        (0x402, CODE + 4, None),           // Inside one, global.
        (0x401 | 1 << 16, DATA + 7, Some(CODE + 19)), // A write of one byte.
        (0x401 | 3 << 16, DATA + 7, Some(CODE + 11)), // A read or write.
        (0x401 | 0xd << 16, DATA + 8, None), // A write of four bytes further on.
        (0x401 | 0x9 << 16, DATA, Some(CODE + 19)), // A write of eight bytes.
        (0x400 | 1 << 16, DATA, None),     // Not enabled.
    ];
    for (control, at, expected) in cases {
        let mut pc = Pc::new(Start::Long);
        pc.cpu.dr[0] = at;
        pc.cpu.dr[7] = control;
        pc.put(64, program);
        let (fault, cpu) = pc.run();
        assert_eq!(fault, expected.map(|_| 1), "{control:#x} {at:#x}");
        if let Some(rip) = expected {
            assert_eq!(pc.stack(&cpu, 0, Width::Double), rip, "{control:#x} {at:#x}");
            assert_eq!(cpu.dr[6] & 0xf, 1);
        }
    }
    // RF in the image that IRET loads lets the instruction pass.
    let mut pc = Pc::new(Start::Long);
    pc.cpu.dr[0] = CODE;
    pc.cpu.dr[7] = 0x401;
    pc.cpu.rflags |= bit::RF;
    pc.put(64, program);
    assert_eq!(pc.run().0, None);
}
