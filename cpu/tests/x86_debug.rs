//! Debug exceptions: single steps and the guest's own breakpoints, in the company of everything that comes in between.
//! Expected values are from the SDM, volume 3, sections 18.2 and 18.3.

#[path = "x86_common/mod.rs"]
mod common;

use common::pc::{CODE, CODE0, DATA, DATA3, IDT, Pc, Program, STACK, assemble, register};
use common::{Start, interp, run};
use iced_x86::code_asm::*;
use mimic_cpu::bus::Width;
use mimic_cpu::run::Exit;
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::state::{gpr, sreg};

/// The handler of #DB writes its RIP and DR6 behind the last ones, whose place is told here, and clears TF.
const LOG: u64 = DATA + 0x800;
const LOGGER: u64 = CODE + 0x800;
/// A handler that returns.
const RETURN: u64 = CODE + 0xc00;

/// DR6 when nothing is told, a single step, a general detect.
const NONE: u64 = 0xffff_0ff0;
const BS: u64 = 0x4000 | NONE;

fn gate(pc: &Pc, vector: u64, handler: u64, dpl: u64) {
    let offset = handler & 0xffff | handler >> 16 << 48;
    let low = offset | u64::from(CODE0) << 16 | (0x8e00 | dpl << 13) << 32;
    pc.bus.store(IDT + 16 * vector, Width::Double, low);
}

/// A PC in 64-bit mode whose handler of #DB logs; the others halt, that of INT 0x20 returns.
fn logging(once: bool) -> Pc {
    let pc = Pc::new(Start::Long);
    let logger = assemble(64, LOGGER, &|a| {
        a.push(rax)?;
        a.push(rbx)?;
        a.mov(rbx, qword_ptr(LOG))?;
        a.mov(rax, qword_ptr(rsp + 16))?;
        a.mov(qword_ptr(rbx), rax)?;
        a.mov(rax, dr6)?;
        a.mov(qword_ptr(rbx + 8), rax)?;
        a.add(qword_ptr(LOG), 16)?;
        if once {
            a.and(qword_ptr(rsp + 32), !0x100)?;
        }
        a.pop(rbx)?;
        a.pop(rax)?;
        a.iretq()
    });
    pc.bus.put(LOGGER, &logger);
    pc.bus.put(RETURN, &[0x48, 0xcf]);
    pc.bus.store(LOG, Width::Double, LOG + 16);
    gate(&pc, 1, LOGGER, 0);
    gate(&pc, 0x20, RETURN, 3);
    pc
}

/// What was logged: RIP relative to the code, and DR6.
fn log(pc: &Pc) -> Vec<(u64, u64)> {
    let end = pc.bus.load(LOG, Width::Double);
    (LOG + 16..end)
        .step_by(16)
        .map(|at| (pc.bus.load(at, Width::Double) - CODE, pc.bus.load(at + 8, Width::Double)))
        .collect()
}

/// Runs `program` with TF set before its first instruction, as by POPF: the first trap comes behind it.
fn stepped(once: bool, program: &Program<'_>) -> Vec<(u64, u64)> {
    let mut pc = logging(once);
    pc.cpu.rflags |= bit::TF;
    pc.put(64, program);
    let (fault, cpu) = pc.run();
    assert_eq!(fault, None, "at {:#x}", cpu.rip);
    log(&pc)
}

#[test]
fn a_software_interrupt_ends_stepping_until_it_has_returned() {
    // INT (2 bytes), whose handler is not stepped through and whose IRET sets TF, NOP.
    let log = stepped(true, &|a| {
        a.int(0x20)?;
        a.nop()?;
        a.nop()?;
        a.hlt()
    });
    assert_eq!(log, [(3, BS)]);
}

#[test]
fn int1_is_no_single_step() {
    let log = stepped(false, &|a| {
        a.db(&[0xf1])?;
        a.nop()?;
        a.pushfq()?;
        a.and(qword_ptr(rsp), !0x100)?;
        a.popfq()?;
        a.cli()?;
        a.hlt()
    });
    // PUSHFQ, AND (8 bytes), POPFQ: the last one is still stepped.
    assert_eq!(log, [(1, NONE), (2, BS), (3, BS), (11, BS), (12, BS)]);
}

#[test]
fn a_single_step_ends_hlt() {
    let log = stepped(true, &|a| {
        a.hlt()?;
        a.nop()?;
        a.hlt()
    });
    assert_eq!(log, [(1, BS)]);
}

#[test]
fn each_element_of_a_repeated_string_is_a_step() {
    let mut pc = logging(false);
    pc.cpu.rflags |= bit::TF;
    pc.cpu.gpr[usize::from(gpr::RCX)] = 3;
    pc.cpu.gpr[usize::from(gpr::RDI)] = DATA;
    pc.put(64, &|a| {
        a.rep().stosb()?;
        a.hlt()
    });
    // HLT is ended by its own step; the code behind it is ADD.
    let (mut interp, _) = interp(pc.cpu.clone(), &pc.bus);
    assert_eq!(run(&mut interp, 60), Exit::Budget);
    assert_eq!(log(&pc)[..4], [(0, BS), (0, BS), (2, BS), (3, BS)]);
}

/// "SYSCALL", "SYSRET" (vol. 2): the mask clears TF at the entry; a program that is stepped sees the call as one
/// instruction, so the trap comes before the first one behind it.
#[test]
fn syscall_masks_the_step_and_sysret_makes_it() {
    let target = CODE + 0x400;
    let run = |mask: u64| {
        let mut pc = logging(true);
        pc.cpu.rflags |= bit::TF;
        pc.cpu.msr.lstar = target;
        pc.cpu.msr.sfmask = mask;
        // CS and SS: for SYSCALL 8 and 16; for SYSRET 35 and 27.
        pc.cpu.msr.star = 8 << 32 | u64::from(DATA3 - 8) << 48;
        pc.put(64, &|a| {
            a.syscall()?;
            a.nop()?;
            a.int(0x20)
        });
        let kernel = assemble(64, target, &|a| {
            a.nop()?;
            a.sysretq()
        });
        pc.bus.put(target, &kernel);
        // The program ends at level 3.
        gate(&pc, 0x20, common::pc::HANDLERS + 16 * 0x20, 3);
        let (fault, cpu) = pc.run();
        assert_eq!(fault, Some(0x20), "at {:#x}", cpu.rip);
        log(&pc)
    };
    assert_eq!(run(bit::TF), [(2, BS)], "behind SYSCALL, at level 3");
    // Not masked: at the entry already, and R11 has TF for SYSRET.
    assert_eq!(run(0), [(0x400, BS), (2, BS)]);
}

#[test]
fn dr6_keeps_what_software_must_clear() {
    // DR7: DR2 enabled, execution.
    let mut pc = logging(false);
    pc.cpu.dr[2] = CODE + 1;
    pc.cpu.dr[6] = BS | 0b10;
    pc.cpu.dr[7] = 0x420;
    pc.put(64, &|a| {
        a.nop()?;
        a.hlt()
    });
    // The handler leaves RF alone, so the instruction is met again.
    let (mut interp, _) = interp(pc.cpu.clone(), &pc.bus);
    assert_eq!(run(&mut interp, 11), Exit::Budget);
    assert_eq!(log(&pc)[0], (1, BS | 0b100));
}

/// Table 18-2 and 18.3.1.1: RF is set in the image on the stack for every fault but that of an instruction breakpoint.
#[test]
fn resume_flags_of_debug_faults() {
    for (control, rip, rf) in [(0x402, 1, 0), (0x2400, 1, bit::RF)] {
        let mut pc = Pc::new(Start::Long);
        pc.cpu.dr[0] = CODE + 1;
        pc.cpu.dr[7] = control;
        pc.put(64, &|a| {
            a.nop()?;
            a.mov(rax, dr6)?;
            a.hlt()
        });
        let (fault, cpu) = pc.run();
        assert_eq!(fault, Some(1));
        assert_eq!(pc.stack(&cpu, 0, Width::Double), CODE + rip);
        assert_eq!(pc.stack(&cpu, 2, Width::Double) & bit::RF, rf, "DR7 {control:#x}");
    }
}

/// 7.8.3: a load of SS holds debug exceptions off until the next instruction is over; those of its own data access are
/// told then: with INT1's own, and after the entry of other handlers.
#[test]
fn a_watched_load_of_ss_is_told_behind_the_next_instruction() {
    // DR1: reads and writes of 4 bytes.
    let run = |program: &Program<'_>| {
        let mut pc = logging(false);
        pc.bus.store(DATA, Width::Half, 16);
        pc.cpu.gpr[usize::from(gpr::RBX)] = DATA;
        pc.cpu.dr[1] = DATA;
        pc.cpu.dr[7] = 0xf0_040a;
        pc.put(64, &|a| {
            a.mov(ss, word_ptr(rbx))?;
            program(a)?;
            a.hlt()
        });
        let (fault, cpu) = pc.run();
        assert_eq!(fault, None, "at {:#x}", cpu.rip);
        log(&pc)
    };
    assert_eq!(run(&|a| a.nop()), [(3, NONE | 0b10)]);
    assert_eq!(run(&|a| a.db(&[0xf1])), [(3, NONE | 0b10)]);
    assert_eq!(run(&|a| a.int(0x20)), [(RETURN - CODE, NONE | 0b10)]);
}

/// "IRET" (vol. 2): a segment that the outer level must not see becomes null; 64-bit mode uses FS's and GS's bases all
/// the same.
#[test]
fn a_segment_made_null_by_iret_keeps_its_base() {
    let mut pc = Pc::new(Start::Long);
    pc.cpu.seg[usize::from(sreg::GS)].base = DATA;
    pc.bus.store(DATA + 8, Width::Double, 0x1234_5678);
    pc.put(64, &|a| {
        a.push(i32::from(DATA3))?;
        a.push(STACK as i32)?;
        a.push(2)?;
        a.push(i32::from(common::pc::CODE3))?;
        a.push((CODE + 0x40) as i32)?;
        a.iretq()
    });
    let user = assemble(64, CODE + 0x40, &|a| {
        a.mov(rax, qword_ptr(8).gs())?;
        a.hlt()
    });
    pc.bus.put(CODE + 0x40, &user);
    let (fault, cpu) = pc.run();
    assert_eq!(fault, Some(13), "HLT at level 3");
    assert_eq!(cpu.seg[usize::from(sreg::GS)].selector, 0);
    assert_eq!(register(&cpu, gpr::RAX), 0x1234_5678);
}
