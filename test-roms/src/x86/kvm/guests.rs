//! The 64-bit guests.

use iced_x86::code_asm::*;

use super::long::{APIC, COUNT, DATA, Long, SELF, TIMER};
use super::{Done, TICKS};

pub(super) fn long(a: &mut CodeAssembler) -> Done {
    let mut g = Long::begin(a)?;
    g.print("long\n")?;
    // SDM vol. 3, table 11-1: the version register; 0x14 is an APIC in the processor.
    g.a.mov(ecx, (APIC + 0x30) as u32)?;
    g.a.movzx(eax, byte_ptr(rcx))?;
    g.is(rax, 0x14)?;
    // Software enable with spurious vector 0xff; the timer once, by 1, after 100 us (1 GHz).
    g.apic(0xf0, 0x1ff)?;
    g.apic(0x3e0, 0xb)?;
    g.apic(0x320, TIMER)?;
    g.apic(0x380, 100_000)?;
    g.wait_for(1)?;
    // Periodic.
    g.apic(0x320, TIMER | 1 << 17)?;
    g.apic(0x380, 200_000)?;
    g.wait_for(TICKS)?;
    // No more: masked, stopped, and what has come meanwhile taken. A software KVM may not look for interrupts where they
    // are on for a few instructions alone; an access to a port leaves the guest in any case.
    g.apic(0x320, 1 << 16)?;
    g.apic(0x380, 0)?;
    g.a.sti()?;
    g.a.nop()?;
    g.a.in_(al, 0x80)?;
    g.a.nop()?;
    g.a.cli()?;
    g.a.mov(qword_ptr(COUNT), 0)?;
    // A message to itself (shorthand 1) is held back by the task priority, and comes once that falls.
    g.a.mov(eax, 5)?;
    g.a.mov(cr8, rax)?;
    g.apic(0x300, 1 << 18 | SELF)?;
    g.a.sti()?;
    g.a.nop()?;
    g.a.nop()?;
    g.a.cmp(qword_ptr(COUNT), 0)?;
    g.equal()?;
    g.a.mov(ecx, (APIC + 0x80) as u32)?;
    g.a.mov(eax, dword_ptr(rcx))?;
    g.is(rax, 0x50)?;
    g.a.mov(eax, 4)?;
    g.a.mov(cr8, rax)?;
    // A KVM that emulates MOV to CR8 tells nobody.
    g.a.in_(al, 0x80)?;
    g.a.nop()?;
    g.a.cli()?;
    g.a.cmp(qword_ptr(COUNT), 1)?;
    g.equal()?;
    g.a.mov(rax, cr8)?;
    g.is(rax, 4)?;
    g.a.xor(eax, eax)?;
    g.a.mov(cr8, rax)?;
    g.a.mov(qword_ptr(COUNT), 0)?;
    // x2APIC mode: the same by MSRs, and the id in 32 bits.
    g.a.mov(ecx, 0x1b)?;
    g.a.rdmsr()?;
    g.a.or(eax, 1 << 10)?;
    g.a.wrmsr()?;
    g.a.mov(ecx, 0x802)?;
    g.a.rdmsr()?;
    g.a.mov(eax, eax)?;
    g.is(rax, 0)?;
    g.wrmsr(0x80f, 0x1ff)?;
    g.wrmsr(0x83f, u64::from(SELF))?;
    g.wait_for(1)?;
    g.wrmsr(0x83e, 0xb)?;
    g.wrmsr(0x832, u64::from(TIMER))?;
    g.wrmsr(0x838, 100_000)?;
    g.wait_for(1)?;
    // By TSC deadline: half a million ticks from now.
    g.wrmsr(0x832, u64::from(TIMER) | 2 << 17)?;
    g.a.rdtsc()?;
    g.a.shl(rdx, 32)?;
    g.a.or(rax, rdx)?;
    g.a.add(rax, 500_000)?;
    g.a.mov(rdx, rax)?;
    g.a.shr(rdx, 32)?;
    g.a.mov(ecx, 0x6e0)?;
    g.a.wrmsr()?;
    g.wait_for(1)?;
    g.a.mov(ecx, 0x6e0)?;
    g.a.rdmsr()?;
    g.a.mov(eax, eax)?;
    g.is(rax, 0)?;
    g.pass()
}

pub(super) fn user(a: &mut CodeAssembler) -> Done {
    let mut g = Long::begin(a)?;
    g.print("user\n")?;
    // The sum of 1 to a million.
    g.user(|a| {
        let mut next = a.create_label();
        a.xor(ebx, ebx)?;
        a.mov(ecx, 1_000_000)?;
        a.set_label(&mut next)?;
        a.add(rbx, rcx)?;
        a.dec(rcx)?;
        a.jne(next)?;
        a.int3()
    })?;
    g.ended_by(3)?;
    g.is(rbx, 500_000_500_000)?;
    // 1.5 squared ten times over, in SSE: 1.5^1024 overflows, 1.5^512 does not.
    g.user(|a| {
        a.mov(rax, 1.5f64.to_bits())?;
        a.movq(xmm3, rax)?;
        for _ in 0..4 {
            a.mulsd(xmm3, xmm3)?;
        }
        a.movq(rbx, xmm3)?;
        a.int3()
    })?;
    g.ended_by(3)?;
    // 1.5^16 = 43046721 / 65536, exact in a double.
    g.is(rbx, (43_046_721.0f64 / 65_536.0).to_bits())?;
    // Privileged instructions, a supervisor's page, an undefined instruction.
    g.user(CodeAssembler::cli)?;
    g.ended_by(13)?;
    g.user(CodeAssembler::hlt)?;
    g.ended_by(13)?;
    g.user(|a| {
        a.mov(ebx, 0x0200_0000)?;
        a.mov(rax, qword_ptr(rbx))
    })?;
    g.ended_by(14)?;
    g.a.mov(rbx, cr2)?;
    g.is(rbx, 0x0200_0000)?;
    g.user(CodeAssembler::ud2)?;
    g.ended_by(6)?;
    g.user(|a| {
        a.xor(ecx, ecx)?;
        a.mov(eax, 1)?;
        a.xor(edx, edx)?;
        a.div(ecx)
    })?;
    g.ended_by(0)?;
    // Code that writes code.
    g.user(|a| {
        let mut patched = a.create_label();
        a.lea(rdi, ptr(patched))?;
        a.mov(dword_ptr(rdi + 1), 0x1234)?;
        a.set_label(&mut patched)?;
        a.mov(ebx, 0x5678)?;
        a.int3()
    })?;
    g.ended_by(3)?;
    g.is(rbx, 0x1234)?;
    g.pass()
}

pub(super) fn privileged(a: &mut CodeAssembler) -> Done {
    let mut g = Long::begin(a)?;
    g.print("privileged\n")?;
    // SSE: 3 + 4, and a shuffle.
    g.a.mov(rax, 0x0000_0004_0000_0003u64)?;
    g.a.movq(xmm1, rax)?;
    g.a.pshufd(xmm2, xmm1, 0b0001)?;
    g.a.paddd(xmm1, xmm2)?;
    g.a.movq(rax, xmm1)?;
    g.is(rax, 0x0000_0007_0000_0007)?;
    g.a.cvtsi2sd(xmm0, rax)?;
    g.a.mov(eax, 10)?;
    g.a.cvtsi2sd(xmm0, eax)?;
    g.a.mov(eax, 4)?;
    g.a.cvtsi2sd(xmm4, eax)?;
    g.a.divsd(xmm0, xmm4)?;
    g.a.movq(rax, xmm0)?;
    g.is(rax, 2.5f64.to_bits())?;
    // x87: the square root of 9, and its control word.
    g.a.fninit()?;
    g.a.mov(dword_ptr(DATA), 9)?;
    g.a.fild(dword_ptr(DATA))?;
    g.a.fsqrt()?;
    g.a.fistp(dword_ptr(DATA))?;
    g.a.mov(eax, dword_ptr(DATA))?;
    g.is(rax, 3)?;
    g.a.fnstcw(word_ptr(DATA))?;
    g.a.movzx(eax, word_ptr(DATA))?;
    g.is(rax, 0x37f)?;
    // CMPXCHG16B that finds what it expects.
    for (at, value) in [(DATA, 1u64), (DATA + 8, 2)] {
        g.a.mov(rax, value)?;
        g.a.mov(qword_ptr(at), rax)?;
    }
    g.a.mov(eax, 1)?;
    g.a.mov(edx, 2)?;
    g.a.mov(ebx, 3)?;
    g.a.mov(ecx, 4)?;
    g.a.lock().cmpxchg16b(xmmword_ptr(DATA))?;
    g.equal()?;
    g.a.mov(rax, qword_ptr(DATA + 8))?;
    g.is(rax, 4)?;
    // INT n to a handler that counts and ends an interrupt, of which there is none.
    g.apic(0xf0, 0x1ff)?;
    g.a.int(SELF as i32)?;
    g.a.int(SELF as i32)?;
    g.a.cmp(qword_ptr(COUNT), 2)?;
    g.equal()?;
    g.pass()
}

/// CPUID's leaf 1, ECX: XSAVE and AVX. Leaf 7, EBX: BMI2.
const XSAVE_AVX: u32 = 1 << 26 | 1 << 28;
const BMI2: u32 = 1 << 8;

pub(super) fn vector(a: &mut CodeAssembler) -> Done {
    let mut g = Long::begin(a)?;
    g.print("vector\n")?;
    let (mut without_avx, mut without_bmi2) = (g.a.create_label(), g.a.create_label());
    g.a.mov(eax, 1)?;
    g.a.cpuid()?;
    g.a.and(ecx, XSAVE_AVX as i32)?;
    g.a.cmp(ecx, XSAVE_AVX as i32)?;
    g.a.jne(without_avx)?;
    // CR4.OSXSAVE; XCR0: x87, SSE, AVX.
    g.a.mov(rax, cr4)?;
    g.a.bts(eax, 18)?;
    g.a.mov(cr4, rax)?;
    g.a.xor(ecx, ecx)?;
    g.a.xor(edx, edx)?;
    g.a.mov(eax, 7)?;
    g.a.xsetbv()?;
    g.a.xgetbv()?;
    g.is(rax, 7)?;
    for (lane, value) in [1.5f64, 2.5, 3.5, 4.5].into_iter().enumerate() {
        g.a.mov(rax, value.to_bits())?;
        g.a.mov(qword_ptr(DATA + 8 * lane as u64), rax)?;
    }
    g.a.vmovupd(ymm1, ymmword_ptr(DATA))?;
    g.a.vaddpd(ymm12, ymm1, ymm1)?;
    g.user(|a| {
        a.vmulpd(ymm3, ymm12, ymm12)?;
        a.vextractf128(xmm4, ymm3, 1)?;
        a.vmovq(rbx, xmm4)?;
        a.int3()
    })?;
    g.ended_by(3)?;
    g.is(rbx, 49.0f64.to_bits())?;
    for (register, lane) in [(ymm3, 81.0f64), (ymm12, 9.0)] {
        g.a.vmovupd(ymmword_ptr(DATA), register)?;
        g.a.mov(rax, qword_ptr(DATA + 24))?;
        g.is(rax, lane.to_bits())?;
    }
    // An instruction for the label of the check above.
    g.a.nop()?;
    g.a.set_label(&mut without_avx)?;
    g.a.mov(eax, 7)?;
    g.a.xor(ecx, ecx)?;
    g.a.cpuid()?;
    g.a.test(ebx, BMI2)?;
    g.a.je(without_bmi2)?;
    g.a.mov(eax, 3)?;
    g.a.mov(ecx, 5)?;
    g.a.shlx(rbx, rax, rcx)?;
    g.is(rbx, 96)?;
    g.user(|a| {
        a.shlx(rbx, rbx, rcx)?;
        a.int3()
    })?;
    g.ended_by(3)?;
    g.is(rbx, 3072)?;
    g.a.nop()?;
    g.a.set_label(&mut without_bmi2)?;
    g.pass()
}
