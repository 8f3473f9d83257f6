//! Loads and stores that are one step. Source: SDM vol. 3, 9.1.1: up to 8 bytes inside a cache line; 16 aligned bytes by
//! MOVAPS, MOVAPD and MOVDQA where there is AVX.
//!
//! All processors store values whose halves (or bytes) tell if they belong together, and look at what they find.

use iced_x86::code_asm::*;

use super::{Assembled, SHARED, Suite};

const WORK: u64 = 32;
/// Two pages of variables. In the second one there is code, which runs in between: stores there are looked at.
const PLAIN: u64 = SHARED;
const BESIDE_CODE: u64 = SHARED + 0x1000;
/// A RET at its end.
const CODE: u64 = BESIDE_CODE + 0xff0;

fn store(s: &mut Suite, bytes: u64) -> Assembled {
    match bytes {
        2 => s.a.mov(word_ptr(rdi), ax),
        4 => s.a.mov(dword_ptr(rdi), eax),
        _ => s.a.mov(qword_ptr(rdi), rax),
    }
}

fn load(s: &mut Suite, bytes: u64) -> Assembled {
    match bytes {
        2 => s.a.movzx(eax, word_ptr(rdi)),
        4 => s.a.mov(eax, dword_ptr(rdi)),
        _ => s.a.mov(rax, qword_ptr(rdi)),
    }
}

/// Stores a random byte, repeated, and looks at the variable.
fn repeated(s: &mut Suite, bytes: u64) -> Assembled {
    s.random()?;
    s.a.movzx(eax, al)?;
    s.a.mov(rcx, 0x0101_0101_0101_0101u64)?;
    s.a.imul_2(rax, rcx)?;
    store(s, bytes)?;
    s.repeat(rsi, 4, |s| {
        load(s, bytes)?;
        s.a.movzx(ebx, al)?;
        s.a.mov(rcx, 0x0101_0101_0101_0101u64 >> (64 - 8 * bytes))?;
        s.a.imul_2(rbx, rcx)?;
        s.check_eq(rax, rbx)
    })
}

/// How 16 bytes are moved.
type Move = (&'static str, fn(&mut Suite) -> Assembled, fn(&mut Suite) -> Assembled);

static MOVES: [Move; 4] = [
    ("MOVDQA", |s| s.a.movdqa(xmmword_ptr(rdi), xmm0), |s| s.a.movdqa(xmm1, xmmword_ptr(rdi))),
    ("MOVAPS", |s| s.a.movaps(xmmword_ptr(rdi), xmm0), |s| s.a.movaps(xmm1, xmmword_ptr(rdi))),
    ("MOVAPD", |s| s.a.movapd(xmmword_ptr(rdi), xmm0), |s| s.a.movapd(xmm1, xmmword_ptr(rdi))),
    ("VMOVDQA", |s| s.a.vmovdqa(xmmword_ptr(rdi), xmm0), |s| s.a.vmovdqa(xmm1, xmmword_ptr(rdi))),
];

/// Stores a random doubleword twice, and looks at the variable.
fn twice(s: &mut Suite, (_, put, get): &Move) -> Assembled {
    s.random()?;
    s.a.movq(xmm0, rax)?;
    s.a.punpcklqdq(xmm0, xmm0)?;
    put(s)?;
    s.repeat(rsi, 4, |s| {
        get(s)?;
        s.a.movq(rax, xmm1)?;
        s.a.psrldq(xmm1, 8)?;
        s.a.movq(rbx, xmm1)?;
        s.check_eq(rax, rbx)
    })
}

/// Jumps unless the processor has AVX, which the framework has enabled then.
fn without_avx(s: &mut Suite, to: CodeLabel) -> Assembled {
    s.a.mov(rax, cr4)?;
    s.a.test(eax, 1 << 18)?;
    s.a.je(to)
}

pub(in crate::x86) fn define<const HARTS: u64>(s: &mut Suite) -> Assembled {
    s.start(HARTS, &[])?;
    s.first(HARTS, |s| s.a.mov(byte_ptr(CODE), 0xc3))?;
    s.rounds(HARTS, |s| {
        for (base, place) in [(PLAIN, ""), (BESIDE_CODE, " beside code")] {
            let call = |s: &mut Suite| {
                if base == PLAIN {
                    return Ok(());
                }
                s.a.mov(eax, CODE as u32)?;
                s.a.call(rax)
            };
            for (index, bytes) in [2u64, 4, 8].into_iter().enumerate() {
                for (shift, kind) in [(0, "aligned"), (5, "unaligned")] {
                    s.case(&format!("{bytes} bytes {kind}{place}"))?;
                    s.a.mov(edi, (base + 128 * index as u64 + 64 * (shift & 1) + shift) as u32)?;
                    s.repeat(r8, WORK, |s| {
                        repeated(s, bytes)?;
                        call(s)
                    })?;
                }
            }
            let mut over = s.label();
            without_avx(s, over)?;
            for (index, how) in MOVES.iter().enumerate() {
                s.case(&format!("16 bytes by {}{place}", how.0))?;
                s.a.mov(edi, (base + 0x400 + 64 * index as u64 + 16) as u32)?;
                s.repeat(r8, WORK, |s| {
                    twice(s, how)?;
                    call(s)
                })?;
            }
            s.place(&mut over)?;
        }
        Ok(())
    })?;
    s.end()
}
