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
use mimic_cpu::x86::decode::{CodeSize, performs};
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::interp::Interp;
use mimic_cpu::x86::model::Model;
use mimic_cpu::x86::state::{Cpu, cr0, cr4, gpr, rights, sreg};

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
fn upper_entries_are_marked_accessed_only_when_the_translation_succeeds() {
    // The 80386 leaves A of the directory's entry alone when a page fault comes of it, as Bochs does, and test386 asks
    // for it; SDM vol. 3, 5.8 lets A be set "whenever" an entry is used.
    for (entry, fault) in [(DATA | 7, None), (DATA | 6, Some(14)), (DATA | 5, Some(14))] {
        let mut pc = Pc::new(Start::Protected32);
        pc.cpu.cr0 |= cr0::PG | cr0::WP;
        pc.cpu.cr3 = 0x8000;
        pc.bus.store(0x8000, Width::Word, 0x83);
        pc.cpu.cr4 |= cr4::PSE;
        // The code is at 0; the data is seen 4 MiB higher.
        pc.bus.store(0x8004, Width::Word, 0x9003);
        pc.bus.store(0x9000 + 4 * (DATA >> 12), Width::Word, entry);
        pc.put(32, &|a| {
            a.mov(byte_ptr(0x40_0000 + DATA as u32), al)?;
            a.hlt()
        });
        let (met, _) = pc.run();
        assert_eq!(met, fault);
        let accessed = pc.bus.load(0x8004, Width::Word) & 0x20 != 0;
        assert_eq!(accessed, fault.is_none(), "page-table entry {entry:#x}");
    }
}

/// Runs a program of level 0 in long mode with the page of [`DATA`] mapped by `entry`.
fn with_data_page(
    entry: u64,
    set: impl Fn(&mut Cpu),
    program: &Program<'_>,
) -> (Option<u64>, Cpu, u64) {
    let mut pc = Pc::new(Start::Long);
    // The first GiB by 2 MiB pages, its first by 4 KiB pages.
    const PD: u64 = 0x8000;
    const PT: u64 = 0x9000;
    pc.bus.store(common::TABLES + 0x1000, Width::Double, PD | 7);
    pc.bus.store(PD, Width::Double, PT | 7);
    for page in 0..512 {
        pc.bus.store(PT + 8 * page, Width::Double, page << 12 | 3);
    }
    pc.bus.store(PT + 8 * (DATA >> 12), Width::Double, entry);
    set(&mut pc.cpu);
    pc.put(64, program);
    let (fault, cpu) = pc.run();
    let error = if fault == Some(14) { pc.stack(&cpu, 0, Width::Double) } else { u64::MAX };
    (fault, cpu, error)
}

#[test]
fn page_faults_tell_what_was_wrong() {
    // SDM vol. 3, 5.7: P, W/R, U/S, RSVD, I/D.
    let read: &Program<'_> = &|a| {
        a.mov(rax, qword_ptr(DATA + 8))?;
        a.hlt()
    };
    let write: &Program<'_> = &|a| {
        a.mov(qword_ptr(DATA + 8), rax)?;
        a.hlt()
    };
    let fetch: &Program<'_> = &|a| {
        a.mov(rax, DATA + 8)?;
        a.jmp(rax)
    };
    const NX: u64 = 1 << 63;
    let plain = |_: &mut Cpu| {};
    let smep = |cpu: &mut Cpu| cpu.cr4 |= cr4::SMEP;
    let smap = |cpu: &mut Cpu| cpu.cr4 |= cr4::SMAP;
    type Set<'a> = &'a dyn Fn(&mut Cpu);
    let cases: [(&str, u64, Set, &Program<'_>, Option<u64>); 12] = [
        ("present", DATA | 3, &plain, read, None),
        ("absent", DATA | 2, &plain, read, Some(0)),
        ("absent, written", DATA | 2, &plain, write, Some(2)),
        ("read-only with WP", DATA | 1, &plain, write, Some(3)),
        ("read-only without WP", DATA | 1, &|cpu| cpu.cr0 &= !(1 << 16), write, None),
        ("reserved bit", DATA | 3 | 1 << 51, &plain, read, Some(9)),
        ("NX", DATA | 3 | NX, &plain, fetch, Some(0x11)),
        ("NX when disabled", DATA | 3 | NX, &|cpu| cpu.efer &= !(1 << 11), read, Some(9)),
        ("user page, fetched under SMEP", DATA | 7, &smep, fetch, Some(0x11)),
        ("user page, read under SMAP", DATA | 7, &smap, read, Some(1)),
        (
            "user page, read under SMAP with AC",
            DATA | 7,
            &|cpu| {
                cpu.cr4 |= cr4::SMAP;
                cpu.rflags |= bit::AC;
            },
            read,
            None,
        ),
        ("user page, read", DATA | 7, &plain, read, None),
    ];
    for (name, entry, set, program, expected) in cases {
        // With 2 MiB of user rights above, only the last entry decides.
        let (fault, cpu, error) = with_data_page(entry, set, program);
        match expected {
            None => assert_eq!(fault, None, "{name}"),
            Some(code) => {
                assert_eq!((fault, error), (Some(14), code), "{name}");
                assert_eq!(cpu.cr2, DATA + 8, "{name}");
            }
        }
    }
}

#[test]
fn accessed_and_dirty_bits_are_set_when_used() {
    // SDM vol. 3, 5.8.
    let pc = |program: &Program| with_data_page(DATA | 3, |_| {}, program);
    let entry = |program: &Program<'_>| {
        let mut pc2 = Pc::new(Start::Long);
        pc2.bus.store(common::TABLES + 0x1000, Width::Double, 0x8000 | 7);
        pc2.bus.store(0x8000, Width::Double, 0x9000 | 7);
        for page in 0..512 {
            pc2.bus.store(0x9000 + 8 * page, Width::Double, page << 12 | 3);
        }
        pc2.cpu.rflags |= 0;
        pc2.put(64, program);
        assert_eq!(pc2.run().0, None);
        pc2.bus.load(0x9000 + 8 * (DATA >> 12), Width::Double) & 0x60
    };
    assert_eq!(pc(&|a| a.hlt()).0, None);
    assert_eq!(entry(&|a| a.hlt()), 0);
    assert_eq!(
        entry(&|a| {
            a.mov(rax, qword_ptr(DATA))?;
            a.hlt()
        }),
        0x20
    );
    assert_eq!(
        entry(&|a| {
            a.mov(qword_ptr(DATA), rax)?;
            a.hlt()
        }),
        0x60
    );
    // A read first, then a write through what the TLB holds.
    assert_eq!(
        entry(&|a| {
            a.mov(rax, qword_ptr(DATA))?;
            a.mov(qword_ptr(DATA), rax)?;
            a.hlt()
        }),
        0x60
    );
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
fn what_is_not_performed_is_listed() {
    // Whatever CPUID promises must be there: an integer instruction of the model without a function is an error.
    let model = Model::v3();
    let mut missing = Vec::new();
    for code in iced_x86::Code::values() {
        let info = code.op_code();
        // Those with a WAIT of their own exist for assemblers: it is an instruction.
        if !info.is_instruction() || info.fwait() {
            continue;
        }
        for memory in [false, true] {
            let mut raw = iced_x86::Instruction::default();
            raw.set_code(code);
            if !raw.cpuid_features().iter().all(|feature| model.offers(*feature)) {
                continue;
            }
            for (operand, kind) in (0..).zip(info.op_kinds()) {
                give_operand(&mut raw, operand, *kind, memory);
            }
            for (size, there) in [
                (CodeSize::Bits16, info.mode16()),
                (CodeSize::Bits32, info.mode32()),
                (CodeSize::Bits64, info.mode64()),
            ] {
                if there && !performs(&raw, size, &model) {
                    missing.push((code, size));
                }
            }
        }
    }
    println!("not performed: {missing:?}");
    let codes: std::collections::BTreeSet<_> =
        missing.iter().map(|(code, _)| format!("{code:?}")).collect();
    // No processor of this model performs these: they belong to others, or are undefined on purpose.
    let known = ["Popw_CS", "Frstpm"];
    let unexpected: Vec<_> = codes.iter().filter(|code| !known.contains(&code.as_str())).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

/// An operand of the given kind.
fn give_operand(
    raw: &mut iced_x86::Instruction,
    operand: u32,
    kind: iced_x86::OpCodeOperandKind,
    memory: bool,
) {
    use iced_x86::{OpCodeOperandKind as K, OpKind, Register as R};
    let register = match kind {
        K::mm_or_mem
        | K::xmm_or_mem
        | K::ymm_or_mem
        | K::r8_or_mem
        | K::r16_or_mem
        | K::r32_or_mem
        | K::r64_or_mem
            if memory =>
        {
            R::None
        }
        K::mm_or_mem | K::mm_reg | K::mm_rm => R::MM1,
        K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 => R::XMM1,
        K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 => R::YMM1,
        K::st0 => R::ST0,
        K::sti_opcode => R::ST1,
        K::r8_or_mem | K::r8_reg | K::r8_opcode | K::al => R::AL,
        K::cl => R::CL,
        K::r16_or_mem | K::r16_reg | K::r16_reg_mem | K::r16_rm | K::r16_opcode | K::ax => R::AX,
        K::dx => R::DX,
        K::r32_or_mem
        | K::r32_reg
        | K::r32_reg_mem
        | K::r32_rm
        | K::r32_opcode
        | K::r32_vvvv
        | K::eax => R::EAX,
        K::r64_or_mem
        | K::r64_reg
        | K::r64_reg_mem
        | K::r64_rm
        | K::r64_opcode
        | K::r64_vvvv
        | K::rax => R::RAX,
        K::seg_reg => R::DS,
        K::es => R::ES,
        K::cs => R::CS,
        K::ss => R::SS,
        K::ds => R::DS,
        K::fs => R::FS,
        K::gs => R::GS,
        K::cr_reg => R::CR0,
        K::dr_reg => R::DR0,
        K::tr_reg => R::TR3,
        _ => R::None,
    };
    if register != R::None {
        raw.set_op_kind(operand, OpKind::Register);
        raw.set_op_register(operand, register);
        return;
    }
    raw.set_op_kind(
        operand,
        match kind {
            K::imm8 if operand == 1 && raw.op_kind(0) == OpKind::Immediate16 => {
                OpKind::Immediate8_2nd
            }
            K::imm8 | K::imm8_const_1 => OpKind::Immediate8,
            K::imm8sex16 => OpKind::Immediate8to16,
            K::imm8sex32 => OpKind::Immediate8to32,
            K::imm8sex64 => OpKind::Immediate8to64,
            K::imm16 => OpKind::Immediate16,
            K::imm32 => OpKind::Immediate32,
            K::imm32sex64 => OpKind::Immediate32to64,
            K::imm64 => OpKind::Immediate64,
            K::br16_1 | K::br16_2 => OpKind::NearBranch16,
            K::br32_1 | K::br32_4 => OpKind::NearBranch32,
            K::br64_1 | K::br64_4 => OpKind::NearBranch64,
            K::farbr2_2 => OpKind::FarBranch16,
            K::farbr4_2 => OpKind::FarBranch32,
            K::seg_rSI => OpKind::MemorySegRSI,
            K::seg_rDI => OpKind::MemorySegRDI,
            K::es_rDI => OpKind::MemoryESRDI,
            _ => OpKind::Memory,
        },
    );
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
