//! x87, SSE and AVX.

use iced_x86::code_asm::*;

use super::{BUFFER, CONSTANTS as AT, SPACE, TARGET, enable_avx};
use crate::x86::Assembled;

/// What loops load, in words of 32 bits; each begins a line.
pub(super) const CONSTANTS: &[&[u32]] = &[
    // 1.5, 2.5, -0.75, 0.125
    &[0x3fc0_0000, 0x4020_0000, 0xbf40_0000, 0x3e00_0000],
    // 0.5, 0.25, 0.75, -0.5
    &[0x3f00_0000, 0x3e80_0000, 0x3f40_0000, 0xbf00_0000],
    // 0.5, 0.25, 1.75, 2.5, twice
    &[
        0x3f00_0000,
        0x3e80_0000,
        0x3fe0_0000,
        0x4020_0000,
        0x3f00_0000,
        0x3e80_0000,
        0x3fe0_0000,
        0x4020_0000,
    ],
    // doubles: 0.5, four times
    &[0, 0x3fe0_0000, 0, 0x3fe0_0000, 0, 0x3fe0_0000, 0, 0x3fe0_0000],
    // doubles: 3.25; 1e-9
    &[0, 0x400a_0000, 0xe826_d695, 0x3e11_2e0b],
];
const MIXED: u64 = AT;
const SMALL: u64 = AT + 0x40;
const EIGHT: u64 = AT + 0x80;
const HALF: u64 = AT + 0xc0;
const START: u64 = AT + 0x100;
const TINY: u64 = AT + 0x108;
/// 0.25 of single precision.
const QUARTER: u64 = SMALL + 4;

/// Folds `words` of the results at [`SPACE`] into the checksum, adding and exclusive-oring in turn.
fn fold(a: &mut CodeAssembler, words: u64) -> Assembled {
    a.xor(eax, eax)?;
    for (i, at) in (SPACE..).step_by(4).take(words as usize).enumerate() {
        match i % 3 {
            0 => a.xor(eax, dword_ptr(at))?,
            1 => a.xor(edx, dword_ptr(at))?,
            _ => a.add(edx, dword_ptr(at))?,
        }
    }
    Ok(())
}

/// Loads, stores, sums, products, quotients, roots, comparisons and integers in 80 bits.
pub(in crate::x86) fn x87(a: &mut CodeAssembler) -> Assembled {
    let (mut again, mut below) = (a.create_label(), a.create_label());
    // From the top: c, b, a.
    a.fld1()?;
    a.fld1()?;
    a.fld1()?;
    a.set_label(&mut again)?;
    // a = (a + 3.25) / 2
    a.fld(qword_ptr(START))?;
    a.fadd_2(st0, st3)?;
    a.fmul(qword_ptr(HALF))?;
    a.fst(qword_ptr(SPACE))?;
    a.fxch(st0, st3)?;
    // b = sqrt(b + |change of a|)
    a.fsubr_2(st0, st3)?;
    a.fabs()?;
    a.fadd_2(st0, st2)?;
    a.fsqrt()?;
    a.fstp(st2)?;
    // c = c / b + 0.25
    a.fld(st1)?;
    a.fdivr_2(st0, st1)?;
    a.fadd(dword_ptr(QUARTER))?;
    a.fstp(st1)?;
    // a = a + round * 1e-9
    a.mov(dword_ptr(SPACE + 8), ecx)?;
    a.fild(dword_ptr(SPACE + 8))?;
    a.fmul(qword_ptr(TINY))?;
    a.faddp(st3, st0)?;
    a.fcomi(st0, st1)?;
    a.jbe(below)?;
    a.inc(edx)?;
    a.set_label(&mut below)?;
    a.dec(ecx)?;
    a.jne(again)?;
    for at in [SPACE, SPACE + 8, SPACE + 16] {
        a.fstp(qword_ptr(at))?;
    }
    fold(a, 6)
}

/// Doubles by themselves, and four singles at once.
pub(in crate::x86) fn sse(a: &mut CodeAssembler) -> Assembled {
    let (mut again, mut below) = (a.create_label(), a.create_label());
    a.movsd_2(xmm0, qword_ptr(START))?;
    a.movsd_2(xmm1, qword_ptr(HALF))?;
    a.movsd_2(xmm2, qword_ptr(START))?;
    a.movaps(xmm4, xmmword_ptr(MIXED))?;
    a.movaps(xmm5, xmmword_ptr(SMALL))?;
    a.movaps(xmm6, xmm4)?;
    a.set_label(&mut again)?;
    a.addsd(xmm0, xmm2)?;
    a.mulsd(xmm0, xmm1)?;
    a.cvtsi2sd(xmm3, ecx)?;
    a.mulsd(xmm3, qword_ptr(TINY))?;
    a.addsd(xmm0, xmm3)?;
    a.movapd(xmm7, xmm0)?;
    a.sqrtsd(xmm7, xmm7)?;
    a.divsd(xmm2, xmm7)?;
    a.addsd(xmm2, xmm1)?;
    a.comisd(xmm0, xmm2)?;
    a.jbe(below)?;
    a.inc(edx)?;
    a.set_label(&mut below)?;
    a.mulps(xmm4, xmm5)?;
    a.addps(xmm4, xmm6)?;
    a.movaps(xmm3, xmm4)?;
    a.shufps(xmm3, xmm3, 0x39)?;
    a.subps(xmm3, xmm4)?;
    a.maxps(xmm3, xmm5)?;
    a.movups(xmmword_ptr(SPACE + 4), xmm3)?;
    a.addps(xmm6, xmm3)?;
    a.minps(xmm6, xmmword_ptr(MIXED))?;
    a.cvttsd2si(eax, xmm2)?;
    a.add(edx, eax)?;
    a.dec(ecx)?;
    a.jne(again)?;
    a.movsd_2(qword_ptr(SPACE), xmm0)?;
    a.movsd_2(qword_ptr(SPACE + 8), xmm2)?;
    a.movups(xmmword_ptr(SPACE + 16), xmm4)?;
    fold(a, 8)
}

/// Packed integers: sums, products, shuffles, comparisons, shifts, loads and stores.
pub(in crate::x86) fn sse_integer(a: &mut CodeAssembler) -> Assembled {
    packed(
        a,
        |a| a.movdqu(xmm5, xmmword_ptr(edi + (BUFFER + 1))),
        |a| a.movdqa(xmmword_ptr(edi + TARGET), xmm1),
    )
}

/// The same with addresses of 64 bits.
pub(in crate::x86) fn sse_integer_wide(a: &mut CodeAssembler) -> Assembled {
    packed(
        a,
        |a| a.movdqu(xmm5, xmmword_ptr(rdi + (BUFFER + 1))),
        |a| a.movdqa(xmmword_ptr(rdi + TARGET), xmm1),
    )
}

fn packed(
    a: &mut CodeAssembler,
    load: fn(&mut CodeAssembler) -> Assembled,
    store: fn(&mut CodeAssembler) -> Assembled,
) -> Assembled {
    let mut again = a.create_label();
    a.movdqa(xmm0, xmmword_ptr(MIXED))?;
    a.movdqa(xmm1, xmmword_ptr(SMALL))?;
    a.movdqu(xmm2, xmmword_ptr(BUFFER + 4))?;
    a.set_label(&mut again)?;
    a.paddd(xmm0, xmm2)?;
    a.pmuludq(xmm1, xmm0)?;
    a.pshufd(xmm3, xmm1, 0x1b)?;
    a.pxor(xmm2, xmm3)?;
    a.movdqa(xmm4, xmm2)?;
    a.psrld(xmm4, 13)?;
    a.pslld(xmm2, 19)?;
    a.por(xmm2, xmm4)?;
    a.punpcklbw(xmm4, xmm0)?;
    a.pcmpgtb(xmm4, xmm2)?;
    a.pmovmskb(eax, xmm4)?;
    a.add(edx, eax)?;
    a.mov(edi, ecx)?;
    a.and(edi, 0xff0)?;
    load(a)?;
    a.paddq(xmm1, xmm5)?;
    store(a)?;
    a.psadbw(xmm5, xmm2)?;
    a.movd(esi, xmm5)?;
    a.xor(edx, esi)?;
    a.dec(ecx)?;
    a.jne(again)?;
    a.movd(eax, xmm0)
}

/// 256 bits: fused multiply-add, sums, products, shuffles.
pub(in crate::x86) fn avx(a: &mut CodeAssembler) -> Assembled {
    let mut again = a.create_label();
    enable_avx(a)?;
    a.vbroadcastss(ymm0, dword_ptr(MIXED))?;
    a.vbroadcastss(ymm1, dword_ptr(SMALL))?;
    a.vbroadcastsd(ymm2, qword_ptr(START))?;
    a.vmovdqu(ymm5, ymmword_ptr(BUFFER))?;
    a.set_label(&mut again)?;
    a.vfmadd213ps(ymm0, ymm1, ymmword_ptr(EIGHT))?;
    a.vaddpd(ymm3, ymm2, ymmword_ptr(EIGHT))?;
    a.vmulpd(ymm2, ymm3, ymmword_ptr(HALF))?;
    a.vpaddd(ymm5, ymm5, ymmword_ptr(BUFFER + 64))?;
    a.vpmulld(ymm6, ymm5, ymm5)?;
    a.vpshufb(ymm6, ymm6, ymm5)?;
    a.vpxor(ymm5, ymm5, ymm6)?;
    a.vpermq(ymm5, ymm5, 0x39)?;
    a.vpmovmskb(eax, ymm6)?;
    a.add(edx, eax)?;
    a.vmovups(ymmword_ptr(TARGET), ymm0)?;
    a.dec(ecx)?;
    a.jne(again)?;
    a.vmovd(eax, xmm0)?;
    a.vmovd(esi, xmm2)?;
    a.xor(eax, esi)?;
    a.vmovd(esi, xmm5)?;
    a.xor(edx, esi)?;
    a.vzeroupper()
}
