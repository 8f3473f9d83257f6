//! How fast the x86-64 interpreter is: `cargo run --release -p mimic-cpu --example x86_mips`.

#[path = "../tests/x86_common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{PcBus, Start, cpu, interp, run};
use iced_x86::code_asm::*;
use mimic_cpu::run::Exit;
use mimic_cpu::x86::model::Model;
use mimic_cpu::x86::state::{cr4, xcr0};
use mimic_cpu::x86::x87::State;

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x10_0000;

type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// A hash over registers: adds, xors, shifts, a multiplication.
fn integer(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rcx, 4_000_000u64)?;
    a.mov(rax, 1u64)?;
    a.mov(rbx, 7u64)?;
    let mut top = a.create_label();
    a.set_label(&mut top)?;
    a.add(rax, rcx)?;
    a.imul_2(rax, rbx)?;
    a.mov(rdx, rax)?;
    a.shr(rdx, 13)?;
    a.xor(rax, rdx)?;
    a.lea(rsi, qword_ptr(rax + rdx * 4 + 5))?;
    a.and(esi, 0xff)?;
    a.add(rdi, rsi)?;
    a.dec(rcx)?;
    a.jne(top)?;
    a.hlt()
}

/// The sieve of Eratosthenes over bytes.
fn sieve(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let n = 1_000_000;
    a.mov(rbp, 4u64)?;
    let mut round = a.create_label();
    a.set_label(&mut round)?;
    a.mov(rdi, DATA)?;
    a.mov(ecx, n)?;
    a.xor(eax, eax)?;
    a.rep().stosb()?;
    a.mov(rbx, DATA)?;
    a.mov(esi, 2)?;
    let (mut next, mut mark, mut skip) = (a.create_label(), a.create_label(), a.create_label());
    a.set_label(&mut next)?;
    a.cmp(byte_ptr(rbx + rsi), 0)?;
    a.jne(skip)?;
    a.mov(rdx, rsi)?;
    a.imul_2(rdx, rsi)?;
    a.cmp(rdx, n)?;
    a.jge(skip)?;
    a.set_label(&mut mark)?;
    a.mov(byte_ptr(rbx + rdx), 1)?;
    a.add(rdx, rsi)?;
    a.cmp(rdx, n)?;
    a.jl(mark)?;
    a.set_label(&mut skip)?;
    a.inc(esi)?;
    a.cmp(esi, n)?;
    a.jl(next)?;
    a.dec(rbp)?;
    a.jne(round)?;
    a.hlt()
}

/// Recursive Fibonacci numbers: calls, pushes, branches.
fn calls(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut fib, mut small) = (a.create_label(), a.create_label());
    a.mov(rsp, DATA)?;
    a.mov(edi, 29)?;
    a.call(fib)?;
    a.hlt()?;
    a.set_label(&mut fib)?;
    a.cmp(edi, 2)?;
    a.jb(small)?;
    a.push(rbx)?;
    a.push(rdi)?;
    a.dec(edi)?;
    a.call(fib)?;
    a.mov(ebx, eax)?;
    a.pop(rdi)?;
    a.sub(edi, 2)?;
    a.call(fib)?;
    a.add(eax, ebx)?;
    a.pop(rbx)?;
    a.ret()?;
    a.set_label(&mut small)?;
    a.mov(eax, edi)?;
    a.ret()
}

/// A loop over bytes that are compared and counted.
fn bytes(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rbp, 8u64)?;
    let (mut round, mut next, mut other) = (a.create_label(), a.create_label(), a.create_label());
    a.set_label(&mut round)?;
    a.mov(rsi, DATA)?;
    a.mov(ecx, 1_000_000)?;
    a.set_label(&mut next)?;
    a.movzx(eax, byte_ptr(rsi))?;
    a.inc(rsi)?;
    a.cmp(al, 32)?;
    a.je(other)?;
    a.add(edx, eax)?;
    a.set_label(&mut other)?;
    a.sub(ecx, 1)?;
    a.jne(next)?;
    a.dec(rbp)?;
    a.jne(round)?;
    a.hlt()
}

/// Copies of 64 KiB.
fn copies(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rbp, 20_000u64)?;
    let mut round = a.create_label();
    a.set_label(&mut round)?;
    a.mov(rsi, DATA)?;
    a.mov(rdi, DATA + 0x2_0000)?;
    a.mov(ecx, 8192)?;
    a.rep().movsq()?;
    a.dec(rbp)?;
    a.jne(round)?;
    a.hlt()
}

/// Comparisons and scans of 1000 elements, and copies of a few bytes.
fn strings(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rbp, 200_000u64)?;
    let mut round = a.create_label();
    a.set_label(&mut round)?;
    a.mov(rdi, DATA)?;
    a.mov(eax, 1)?;
    a.mov(ecx, 1000)?;
    a.repne().scasb()?;
    a.mov(rsi, DATA)?;
    a.mov(rdi, DATA + 0x1000)?;
    a.mov(ecx, 1000)?;
    a.repe().cmpsb()?;
    for bytes in [3, 9, 14] {
        a.mov(rsi, DATA)?;
        a.mov(rdi, DATA + 0x1000)?;
        a.mov(ecx, bytes)?;
        a.rep().movsb()?;
    }
    a.dec(rbp)?;
    a.jne(round)?;
    a.hlt()
}

/// Heron's square roots beside FSQRT, in 80 bits.
fn x87(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(ecx, 1_000_000)?;
    let mut round = a.create_label();
    a.set_label(&mut round)?;
    a.mov(qword_ptr(DATA), rcx)?;
    a.fild(qword_ptr(DATA))?;
    a.fld(st0)?;
    a.fsqrt()?;
    a.fld(st1)?;
    a.fdiv_2(st0, st1)?;
    a.faddp(st1, st0)?;
    a.fmulp(st1, st0)?;
    a.fld1()?;
    a.fcomip(st0, st1)?;
    a.fstp(qword_ptr(DATA + 8))?;
    a.dec(ecx)?;
    a.jne(round)?;
    a.hlt()
}

/// Scalar doubles and packed singles.
fn sse(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(ecx, 2_000_000)?;
    a.cvtsi2sd(xmm1, ecx)?;
    a.cvtdq2ps(xmm4, xmm1)?;
    let mut round = a.create_label();
    a.set_label(&mut round)?;
    a.cvtsi2sd(xmm0, ecx)?;
    a.divsd(xmm0, xmm1)?;
    a.sqrtsd(xmm0, xmm0)?;
    a.addsd(xmm2, xmm0)?;
    a.comisd(xmm2, xmm0)?;
    a.cvtsd2ss(xmm3, xmm2)?;
    a.shufps(xmm3, xmm3, 0)?;
    a.movaps(xmm5, xmm3)?;
    a.mulps(xmm5, xmm3)?;
    a.subps(xmm5, xmm3)?;
    a.maxps(xmm5, xmm3)?;
    a.movups(xmmword_ptr(DATA), xmm5)?;
    a.dec(ecx)?;
    a.jne(round)?;
    a.hlt()
}

/// A hash of packed integers.
fn sse_integer(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(ecx, 2_000_000)?;
    let mut round = a.create_label();
    a.set_label(&mut round)?;
    a.movd(xmm0, ecx)?;
    a.pshufd(xmm0, xmm0, 0)?;
    a.paddd(xmm1, xmm0)?;
    a.pmuludq(xmm0, xmm1)?;
    a.movdqa(xmm2, xmm0)?;
    a.psrld(xmm2, 15)?;
    a.pxor(xmm1, xmm2)?;
    a.punpcklbw(xmm2, xmm0)?;
    a.pcmpeqb(xmm2, xmm1)?;
    a.pmovmskb(eax, xmm2)?;
    a.add(edx, eax)?;
    a.movdqu(xmmword_ptr(DATA + 1), xmm1)?;
    a.dec(ecx)?;
    a.jne(round)?;
    a.hlt()
}

/// 256 bits: a fused polynomial, integers and shuffles.
fn avx(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(ecx, 2_000_000)?;
    a.vpcmpeqd(ymm7, ymm7, ymm7)?;
    a.vpsrld(ymm7, ymm7, 25)?;
    a.vpslld(ymm7, ymm7, 23)?;
    a.vmovaps(ymm1, ymm7)?;
    let mut round = a.create_label();
    a.set_label(&mut round)?;
    a.vsqrtps(ymm1, ymm1)?;
    a.vfmadd213ps(ymm1, ymm7, ymm7)?;
    a.vmulps(ymm2, ymm1, ymm7)?;
    a.vpaddd(ymm3, ymm3, ymm7)?;
    a.vpmulld(ymm4, ymm3, ymm3)?;
    a.vpshufb(ymm4, ymm4, ymm3)?;
    a.vpxor(ymm3, ymm3, ymm4)?;
    a.vpermq(ymm3, ymm3, 0x39)?;
    a.vmovdqu(ymmword_ptr(DATA), ymm3)?;
    a.dec(ecx)?;
    a.jne(round)?;
    a.hlt()
}

/// Processor time that this process has used, which others on the host do not lengthen; else the time since `start`.
fn used(start: Instant) -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").ok();
    let ns = stat.and_then(|text| text.split(' ').next()?.parse().ok());
    ns.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

fn main() {
    let began = Instant::now();
    let programs: [(&str, Program); 10] = [
        ("integer", integer),
        ("sieve", sieve),
        ("calls", calls),
        ("bytes", bytes),
        ("copies", copies),
        ("strings", strings),
        ("x87", x87),
        ("sse", sse),
        ("sse integer", sse_integer),
        ("avx", avx),
    ];
    for (name, program) in programs {
        let mut a = CodeAssembler::new(64).expect("64 bits are a mode");
        program(&mut a).expect("the program is right");
        let bus = PcBus::new(2048);
        bus.put(CODE, &a.assemble(CODE).expect("the program can be encoded"));
        let mut start = cpu(&bus, Start::Long, CODE, Model::v3());
        start.cr4 |= cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
        start.xcr0 = xcr0::X87 | xcr0::SSE | xcr0::AVX;
        start.x87 = State::default();
        let (mut interp, _) = interp(start, &bus);
        let before = used(began);
        let exit = run(&mut interp, u64::MAX);
        let seconds = (used(began) - before).as_secs_f64();
        assert_eq!(exit, Exit::Halted, "{name}");
        let insns = interp.retired();
        println!("{name}: {:.0} MIPS ({insns} in {seconds:.3} s)", insns as f64 / seconds / 1e6);
    }
}
