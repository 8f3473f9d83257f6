//! Between vector and general registers: moves, conversions, comparisons that set flags, masks of signs.

use std::arch::asm;
use std::arch::x86_64::*;

use iced_x86::Mnemonic::*;

use super::mxcsr::{masked, raised, slowly, usual};
use super::{MEMORY, is_vex, last_xmm, set_xmm, xmm, ymm};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::Stop;
use crate::x86::flags::{Lazy, bit};
use crate::x86::insn::{CodeCache, Int, step, unit};
use crate::x86::simd::{Kind, Mxcsr, SimdOp};

/// Between vector and general registers: moves, conversions, comparisons that set flags, masks of signs.
#[target_feature(enable = "avx2,fma")]
pub(super) fn lookup(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    let vex = is_vex(ins);
    let memory = entry.b.kind == Kind::Memory;
    let gpr = |kind| matches!(kind, Kind::Gpr32 | Kind::Gpr64);
    /// By the encoding.
    macro_rules! encoded {
        ($f:ident $(, $t:tt)*) => {
            if vex { Some($f::<true $(, $t)*>) } else { Some($f::<false $(, $t)*>) }
        };
    }
    /// To a general register: what of.
    macro_rules! to_gpr {
        (|$a:ident| $x:expr) => {
            if vex {
                handler!(|c, o, d| move_to_gpr::<true>(c, o, d, |$a| $x))
            } else {
                handler!(|c, o, d| move_to_gpr::<false>(c, o, d, |$a| $x))
            }
        };
    }
    /// A comparison, by its bytes.
    macro_rules! compare {
        ($bytes:literal, $insn:literal) => {
            match (vex, memory) {
                (false, false) => compare!(@ false, 2, $bytes, $insn),
                (false, true) => compare!(@ false, MEMORY, $bytes, $insn),
                (true, false) => compare!(@ true, 2, $bytes, $insn),
                (true, true) => compare!(@ true, MEMORY, $bytes, $insn),
            }
        };
        (@ $vex:literal, $from:expr, $bytes:literal, $insn:literal) => {
            handler!(|c, o, d| compare::<$vex, { $from }, $bytes>(c, o, d, |m, a, b| {
                let (mut mxcsr, flags): (u32, u64);
                mxcsr = m;
                // SAFETY: the instruction touches registers alone, and MXCSR is the default one again behind it.
                unsafe {
                    asm!(
                        "ldmxcsr [{mxcsr}]",
                        concat!($insn, " {a}, {b}"),
                        "lahf",
                        "stmxcsr [{mxcsr}]",
                        "ldmxcsr [{default}]",
                        a = in(xmm_reg) a,
                        b = in(xmm_reg) b,
                        mxcsr = in(reg) &raw mut mxcsr,
                        default = in(reg) &Mxcsr::RESET,
                        out("rax") flags,
                        options(nostack),
                    );
                }
                (flags >> 8, mxcsr)
            }))
        };
    }
    /// A conversion to an integer, by its bytes and what is done quickly: `None` for what is out of range, whose result is
    /// the largest negative number.
    macro_rules! to_int {
        ($bytes:literal, $insn:literal, $narrow:expr, $wide:expr) => {
            match (vex, memory) {
                (false, false) => to_int!(@ false, 2, $bytes, $insn, $narrow, $wide),
                (false, true) => to_int!(@ false, MEMORY, $bytes, $insn, $narrow, $wide),
                (true, false) => to_int!(@ true, 2, $bytes, $insn, $narrow, $wide),
                (true, true) => to_int!(@ true, MEMORY, $bytes, $insn, $narrow, $wide),
            }
        };
        (@ $vex:literal, $from:expr, $bytes:literal, $insn:literal, $narrow:expr, $wide:expr) => {
            match entry.dst.kind {
                Kind::Gpr32 => to_int!(@@ $vex, $from, $bytes, concat!($insn, " {r:e}, {b}"), |b| {
                    let to: i32 = $narrow(b);
                    (to != i32::MIN).then_some(to as u32 as u64)
                }),
                Kind::Gpr64 => to_int!(@@ $vex, $from, $bytes, concat!($insn, " {r}, {b}"), |b| {
                    let to: i64 = $wide(b);
                    (to != i64::MIN).then_some(to as u64)
                }),
                _ => None,
            }
        };
        (@@ $vex:literal, $from:expr, $bytes:literal, $insn:expr, $quick:expr) => {
            handler!(|c, o, d| to_int::<$vex, { $from }, $bytes>(c, o, d, $quick, |m, b| {
                let (mut mxcsr, result): (u32, u64);
                mxcsr = m;
                // SAFETY: the instruction touches registers alone, and MXCSR is the default one again behind it.
                unsafe {
                    asm!(
                        "ldmxcsr [{mxcsr}]",
                        $insn,
                        "stmxcsr [{mxcsr}]",
                        "ldmxcsr [{default}]",
                        r = out(reg) result,
                        b = in(xmm_reg) b,
                        mxcsr = in(reg) &raw mut mxcsr,
                        default = in(reg) &Mxcsr::RESET,
                        options(nostack),
                    );
                }
                (result, mxcsr)
            }))
        };
    }
    match ins.mnemonic() {
        Comiss | Vcomiss => compare!(4, "vcomiss"),
        Comisd | Vcomisd => compare!(8, "vcomisd"),
        Ucomiss | Vucomiss => compare!(4, "vucomiss"),
        Ucomisd | Vucomisd => compare!(8, "vucomisd"),
        Cvtss2si | Vcvtss2si => {
            to_int!(4, "vcvtss2si", |b| _mm_cvtss_si32(_mm_castsi128_ps(b)), |b| _mm_cvtss_si64(
                _mm_castsi128_ps(b)
            ))
        }
        Cvtsd2si | Vcvtsd2si => {
            to_int!(8, "vcvtsd2si", |b| _mm_cvtsd_si32(_mm_castsi128_pd(b)), |b| _mm_cvtsd_si64(
                _mm_castsi128_pd(b)
            ))
        }
        Cvttss2si | Vcvttss2si => {
            to_int!(4, "vcvttss2si", |b| _mm_cvttss_si32(_mm_castsi128_ps(b)), |b| _mm_cvttss_si64(
                _mm_castsi128_ps(b)
            ))
        }
        Cvttsd2si | Vcvttsd2si => {
            to_int!(8, "vcvttsd2si", |b| _mm_cvttsd_si32(_mm_castsi128_pd(b)), |b| _mm_cvttsd_si64(
                _mm_castsi128_pd(b)
            ))
        }
        Cvtsi2sd | Vcvtsi2sd if !memory && entry.b.kind == Kind::Gpr32 => {
            encoded!(exact_from_gpr)
        }
        _ if memory => None,
        Movd | Vmovd if gpr(entry.dst.kind) => to_gpr!(|a| _mm_cvtsi128_si32(a) as u32 as u64),
        Movq | Vmovq if gpr(entry.dst.kind) => to_gpr!(|a| _mm_cvtsi128_si64(a) as u64),
        Pmovmskb | Vpmovmskb if entry.width == 16 => {
            to_gpr!(|a| _mm_movemask_epi8(a) as u32 as u64)
        }
        Vpmovmskb => handler!(|core, ops, code| {
            step(core, ops, code, false, |core, op| {
                core.need(unit::AVX)?;
                let mask = _mm256_movemask_epi8(ymm(core, op.r2)) as u32;
                u32::put(core, op.r1, mask);
                Ok(())
            })
        }),
        Movmskps | Vmovmskps if entry.width == 16 => {
            to_gpr!(|a| _mm_movemask_ps(_mm_castsi128_ps(a)) as u32 as u64)
        }
        Movmskpd | Vmovmskpd if entry.width == 16 => {
            to_gpr!(|a| _mm_movemask_pd(_mm_castsi128_pd(a)) as u32 as u64)
        }
        Movd | Vmovd if gpr(entry.b.kind) => encoded!(move_from_gpr, 4),
        Movq | Vmovq if gpr(entry.b.kind) => encoded!(move_from_gpr, 8),
        _ => None,
    }
}

/// Whether the first number is below the second, and whether they are equal, if neither is a NaN or denormal.
#[inline(always)]
fn ordered<const BYTES: u64>(a: __m128i, b: __m128i) -> Option<(bool, bool)> {
    let ([a, _], [b, _]): ([u64; 2], [u64; 2]) = (bytemuck::cast(a), bytemuck::cast(b));
    if BYTES == 4 {
        let (a, b) = (f32::from_bits(a as u32), f32::from_bits(b as u32));
        let usable = |x: f32| x == 0.0 || x.abs() >= f32::MIN_POSITIVE;
        (usable(a) && usable(b)).then_some((a < b, a == b))
    } else {
        let (a, b) = (f64::from_bits(a), f64::from_bits(b));
        let usable = |x: f64| x == 0.0 || x.abs() >= f64::MIN_POSITIVE;
        (usable(a) && usable(b)).then_some((a < b, a == b))
    }
}

/// The arithmetic flags and MXCSR of a comparison.
#[inline(always)]
fn compare<const VEX: bool, const REGISTER: u8, const BYTES: u64>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    f: impl Fn(u32, __m128i, __m128i) -> (u64, u32) + Copy,
) -> usize {
    step(core, ops, code, REGISTER == MEMORY, |core, op| {
        core.need(if VEX { unit::AVX } else { unit::SSE })?;
        let b = last_xmm::<REGISTER, BYTES, false>(core, op)?;
        if let Some((below, equal)) = ordered::<BYTES>(xmm(core, op.r1), b) {
            core.flags = Lazy::from_bits(u64::from(below) * bit::CF | u64::from(equal) * bit::ZF);
            return Ok(());
        }
        exact_compare::<VEX, REGISTER, BYTES>(core, op, f)
    })
}

#[cold]
#[inline(never)]
fn exact_compare<const VEX: bool, const REGISTER: u8, const BYTES: u64>(
    core: &mut Core,
    op: &Op,
    f: impl Fn(u32, __m128i, __m128i) -> (u64, u32),
) -> Result<(), Stop> {
    let Some(mxcsr) = masked(core) else { return slowly::<VEX>(core, op) };
    let b = last_xmm::<REGISTER, BYTES, false>(core, op)?;
    let (flags, mxcsr) = f(mxcsr, xmm(core, op.r1), b);
    raised(core, mxcsr);
    // The others are clear.
    core.flags = Lazy::from_bits(flags & (bit::ZF | bit::PF | bit::CF));
    Ok(())
}

/// A conversion to an integer.
#[inline(always)]
fn to_int<const VEX: bool, const REGISTER: u8, const BYTES: u64>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    quick: impl Fn(__m128i) -> Option<u64>,
    f: impl Fn(u32, __m128i) -> (u64, u32) + Copy,
) -> usize {
    step(core, ops, code, REGISTER == MEMORY, |core, op| {
        core.need(if VEX { unit::AVX } else { unit::SSE })?;
        if usual(core.cpu.mxcsr.bits()) {
            let b = last_xmm::<REGISTER, BYTES, false>(core, op)?;
            if let Some(result) = quick(b) {
                core.set_gpr(op.r1, result);
                return Ok(());
            }
        }
        exact_to_int::<VEX, REGISTER, BYTES>(core, op, f)
    })
}

#[cold]
#[inline(never)]
fn exact_to_int<const VEX: bool, const REGISTER: u8, const BYTES: u64>(
    core: &mut Core,
    op: &Op,
    f: impl Fn(u32, __m128i) -> (u64, u32),
) -> Result<(), Stop> {
    let Some(mxcsr) = masked(core) else { return slowly::<VEX>(core, op) };
    let b = last_xmm::<REGISTER, BYTES, false>(core, op)?;
    let (result, mxcsr) = f(mxcsr, b);
    raised(core, mxcsr);
    core.set_gpr(op.r1, result);
    Ok(())
}

/// CVTSI2SD from 32 bits, always exact.
fn exact_from_gpr<const VEX: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        core.need(if VEX { unit::AVX } else { unit::SSE })?;
        let (kept, from) = if VEX { (op.r2, op.r3) } else { (op.r1, op.r2) };
        let [_, high]: [u64; 2] = bytemuck::cast(xmm(core, kept));
        let low = f64::from(core.gpr(from) as i32).to_bits();
        set_xmm::<VEX>(core, op.r1, bytemuck::cast([low, high]));
        Ok(())
    })
}

fn move_from_gpr<const VEX: bool, const BYTES: u8>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, false, |core, op| {
        core.need(if VEX { unit::AVX } else { unit::SSE })?;
        let value = core.gpr(op.r2) & if BYTES == 4 { 0xffff_ffff } else { u64::MAX };
        set_xmm::<VEX>(core, op.r1, bytemuck::cast([value, 0]));
        Ok(())
    })
}

#[inline(always)]
fn move_to_gpr<const VEX: bool>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    f: impl Fn(__m128i) -> u64,
) -> usize {
    step(core, ops, code, false, |core, op| {
        core.need(if VEX { unit::AVX } else { unit::SSE })?;
        core.set_gpr(op.r1, f(xmm(core, op.r2)));
        Ok(())
    })
}
