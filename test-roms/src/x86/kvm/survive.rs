//! The guest that looks over and over whether its state is what it was.

use iced_x86::code_asm::*;

use super::Done;
use super::long::{COUNT, DATA, Long, TIMER};

/// What it keeps of its TSC.
const LAST_TSC: u64 = DATA + 0x818;
const ROUNDS: u64 = DATA + 0x820;
/// How often it compares its state.
const SURVIVE_ROUNDS: u32 = 3_000;

pub(super) fn survive(a: &mut CodeAssembler) -> Done {
    let mut g = Long::begin(a)?;
    g.print("survive\n")?;
    // What lies in no general-purpose register: MSRs, debug registers, the local APIC and its timer, CR2.
    let msrs: [(u32, u64); 8] = [
        (0xc000_0081, 0x0013_0008_0000_0000), // STAR
        (0xc000_0082, 0xffff_8000_1234_5678), // LSTAR
        (0xc000_0084, 0x0000_0000_0004_7700), // FMASK
        (0xc000_0102, 0x0000_7fff_1111_2222), // KERNEL_GS_BASE
        (0xc000_0100, 0x0000_1111_2222_3333), // FS_BASE
        (0x0000_0174, 0x0000_0000_0000_0008), // SYSENTER_CS
        (0x0000_0176, 0xffff_8000_0bad_cafe), // SYSENTER_EIP
        (0x0000_0277, 0x0007_0406_0007_0106), // PAT
    ];
    for (msr, value) in msrs {
        g.wrmsr(msr, value)?;
    }
    g.a.mov(rax, 0x0012_3450u64)?;
    g.a.mov(dr0, rax)?;
    g.a.mov(eax, 0x77)?;
    g.a.mov(cr2, rax)?;
    g.apic(0xf0, 0x1ff)?;
    g.apic(0x3e0, 0xb)?;
    g.apic(0x320, TIMER | 1 << 17)?;
    g.apic(0x380, 300_000)?;
    g.a.mov(qword_ptr(LAST_TSC), 0)?;
    g.a.mov(qword_ptr(ROUNDS), 0)?;
    g.a.mov(rax, 0x1122_3344_5566_7788u64)?;
    g.a.movq(xmm9, rax)?;
    g.a.mov(dword_ptr(DATA), 0x3f80)?;
    g.a.ldmxcsr(dword_ptr(DATA))?;
    g.a.fninit()?;
    g.a.fldpi()?;
    let mut next = g.a.create_label();
    g.a.set_label(&mut next)?;
    g.a.sti()?;
    // User code: all general-purpose registers, flags, XMM and x87 go through a loop unharmed.
    g.user(|a| {
        let mut spin = a.create_label();
        for (number, register) in
            [rbx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14].iter().enumerate()
        {
            a.mov(*register, 0x0101_0101_0101_0101u64 * (number as u64 + 1))?;
        }
        a.mov(ecx, 20_000)?;
        a.xor(eax, eax)?;
        a.set_label(&mut spin)?;
        a.add(rax, rbx)?;
        a.xor(rax, r14)?;
        a.dec(ecx)?;
        a.jne(spin)?;
        a.stc()?;
        a.movq(r15, xmm9)?;
        a.int3()
    })?;
    g.ended_by(3)?;
    // 0x0c0c...: the twelfth register; an even number of additions of rbx and exclusive ors with r14 is checked below.
    g.is(r14, 0x0c0c_0c0c_0c0c_0c0c)?;
    g.is(rbx, 0x0101_0101_0101_0101)?;
    g.is(rbp, 0x0505_0505_0505_0505)?;
    let mut sum = 0u64;
    for _ in 0..20_000 {
        sum = sum.wrapping_add(0x0101_0101_0101_0101) ^ 0x0c0c_0c0c_0c0c_0c0c;
    }
    g.is(rax, sum)?;
    g.a.movq(rax, xmm9)?;
    g.is(rax, 0x1122_3344_5566_7788)?;
    g.a.stmxcsr(dword_ptr(DATA))?;
    g.a.mov(eax, dword_ptr(DATA))?;
    g.is(rax, 0x3f80)?;
    g.a.fld(st0)?;
    g.a.fstp(tbyte_ptr(DATA))?;
    g.a.mov(rax, qword_ptr(DATA))?;
    // Pi, rounded to 64 bits of significand (SDM vol. 1, 8.3.8).
    g.is(rax, 0xc90f_daa2_2168_c235)?;
    for (msr, value) in msrs {
        g.a.mov(ecx, msr)?;
        g.a.rdmsr()?;
        g.a.shl(rdx, 32)?;
        g.a.or(rax, rdx)?;
        g.is(rax, value)?;
    }
    g.a.mov(rax, dr0)?;
    g.is(rax, 0x0012_3450)?;
    g.a.mov(rax, cr2)?;
    g.is(rax, 0x77)?;
    // Time does not go back.
    g.a.rdtsc()?;
    g.a.shl(rdx, 32)?;
    g.a.or(rax, rdx)?;
    g.a.cmp(rax, qword_ptr(LAST_TSC))?;
    g.a.mov(qword_ptr(LAST_TSC), rax)?;
    g.a.setae(al)?;
    g.a.cmp(al, 1)?;
    g.equal()?;
    g.a.inc(qword_ptr(ROUNDS))?;
    g.a.cmp(qword_ptr(ROUNDS), SURVIVE_ROUNDS as i32)?;
    g.a.jb(next)?;
    // Interrupts came meanwhile: the timer's, every 0.3 ms.
    g.a.cli()?;
    g.a.cmp(qword_ptr(COUNT), 10)?;
    g.a.setae(al)?;
    g.a.cmp(al, 1)?;
    g.equal()?;
    g.pass()
}
