//! What depends on MXCSR: quickly as long as that says usual things and nothing is raised that it does not say, exactly under
//! the guest's MXCSR otherwise.

use std::arch::x86_64::*;

use super::{MEMORY, entry, last_xmm, last_ymm, perform, set_xmm, set_ymm, xmm, ymm};
use crate::x86::core::Core;
use crate::x86::decode::Op;
use crate::x86::fault::Stop;
use crate::x86::insn::{CodeCache, step, unit};
use crate::x86::simd::{Exceptions, Mxcsr};

/// `quick` of the operands gives the result and whether it is all there is to know, provided that MXCSR says
/// [`usual`] things; `f` of MXCSR and the operands gives the result and MXCSR behind it. That is a function of its own:
/// what it has on the stack would keep this one from going on by a tail call.
#[inline(always)]
pub(super) fn fp_xmm<const VEX: bool, const REGISTER: u8, const BYTES: u64, const ALIGNED: bool>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    quick: impl Fn(__m128i, __m128i) -> (__m128i, bool),
    f: impl Fn(u32, __m128i, __m128i) -> (__m128i, u32) + Copy,
) -> usize {
    step(core, ops, code, REGISTER == MEMORY, |core, op| {
        core.need(if VEX { unit::AVX } else { unit::SSE })?;
        if usual(core.cpu.mxcsr.bits()) {
            let b = last_xmm::<REGISTER, BYTES, ALIGNED>(core, op)?;
            let a = xmm(core, if VEX { op.r2 } else { op.r1 });
            if let (result, true) = quick(a, b) {
                set_xmm::<VEX>(core, op.r1, result);
                return Ok(());
            }
        }
        exact_xmm::<VEX, REGISTER, BYTES, ALIGNED>(core, op, f)
    })
}

#[cold]
#[inline(never)]
fn exact_xmm<const VEX: bool, const REGISTER: u8, const BYTES: u64, const ALIGNED: bool>(
    core: &mut Core,
    op: &Op,
    f: impl Fn(u32, __m128i, __m128i) -> (__m128i, u32),
) -> Result<(), Stop> {
    let Some(mxcsr) = masked(core) else { return slowly::<VEX>(core, op) };
    let b = last_xmm::<REGISTER, BYTES, ALIGNED>(core, op)?;
    let a = xmm(core, if VEX { op.r2 } else { op.r1 });
    let (result, mxcsr) = f(mxcsr, a, b);
    raised(core, mxcsr);
    set_xmm::<VEX>(core, op.r1, result);
    Ok(())
}

#[inline(always)]
pub(super) fn fp_ymm<const REGISTER: u8, const ALIGNED: bool>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    quick: impl Fn(__m256i, __m256i) -> (__m256i, bool),
    f: impl Fn(u32, __m256i, __m256i) -> (__m256i, u32) + Copy,
) -> usize {
    step(core, ops, code, REGISTER == MEMORY, |core, op| {
        core.need(unit::AVX)?;
        if usual(core.cpu.mxcsr.bits()) {
            let b = last_ymm::<REGISTER, ALIGNED>(core, op)?;
            let a = ymm(core, op.r2);
            if let (result, true) = quick(a, b) {
                set_ymm(core, op.r1, result);
                return Ok(());
            }
        }
        exact_ymm::<REGISTER, ALIGNED>(core, op, f)
    })
}

#[cold]
#[inline(never)]
fn exact_ymm<const REGISTER: u8, const ALIGNED: bool>(
    core: &mut Core,
    op: &Op,
    f: impl Fn(u32, __m256i, __m256i) -> (__m256i, u32),
) -> Result<(), Stop> {
    let Some(mxcsr) = masked(core) else { return slowly::<true>(core, op) };
    let b = last_ymm::<REGISTER, ALIGNED>(core, op)?;
    let a = ymm(core, op.r2);
    let (result, mxcsr) = f(mxcsr, a, b);
    raised(core, mxcsr);
    set_ymm(core, op.r1, result);
    Ok(())
}

/// Factors and addend among the operands, as the digits of a mnemonic say.
#[inline(always)]
fn formula<const ORDER: u8, V>(a: V, b: V, c: V) -> (V, V, V) {
    match ORDER {
        132 => (a, c, b),
        213 => (b, a, c),
        _ => (b, c, a),
    }
}

/// The destination, too, is a source. `quick` gets factors and addend.
#[inline(always)]
pub(super) fn fma_xmm<const REGISTER: u8, const BYTES: u64, const ORDER: u8>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    quick: impl Fn(__m128i, __m128i, __m128i) -> (__m128i, bool),
    f: impl Fn(u32, __m128i, __m128i, __m128i) -> (__m128i, u32) + Copy,
) -> usize {
    step(core, ops, code, REGISTER == MEMORY, |core, op| {
        core.need(unit::AVX)?;
        if usual(core.cpu.mxcsr.bits()) {
            let c = last_xmm::<REGISTER, BYTES, false>(core, op)?;
            let (x, y, z) = formula::<ORDER, _>(xmm(core, op.r1), xmm(core, op.r2), c);
            if let (result, true) = quick(x, y, z) {
                set_xmm::<true>(core, op.r1, result);
                return Ok(());
            }
        }
        exact_fma_xmm::<REGISTER, BYTES>(core, op, f)
    })
}

#[cold]
#[inline(never)]
fn exact_fma_xmm<const REGISTER: u8, const BYTES: u64>(
    core: &mut Core,
    op: &Op,
    f: impl Fn(u32, __m128i, __m128i, __m128i) -> (__m128i, u32),
) -> Result<(), Stop> {
    let Some(mxcsr) = masked(core) else { return slowly::<true>(core, op) };
    let c = last_xmm::<REGISTER, BYTES, false>(core, op)?;
    let (result, mxcsr) = f(mxcsr, xmm(core, op.r1), xmm(core, op.r2), c);
    raised(core, mxcsr);
    set_xmm::<true>(core, op.r1, result);
    Ok(())
}

#[inline(always)]
pub(super) fn fma_ymm<const REGISTER: u8, const ORDER: u8>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    quick: impl Fn(__m256i, __m256i, __m256i) -> (__m256i, bool),
    f: impl Fn(u32, __m256i, __m256i, __m256i) -> (__m256i, u32) + Copy,
) -> usize {
    step(core, ops, code, REGISTER == MEMORY, |core, op| {
        core.need(unit::AVX)?;
        if usual(core.cpu.mxcsr.bits()) {
            let c = last_ymm::<REGISTER, false>(core, op)?;
            let (x, y, z) = formula::<ORDER, _>(ymm(core, op.r1), ymm(core, op.r2), c);
            if let (result, true) = quick(x, y, z) {
                set_ymm(core, op.r1, result);
                return Ok(());
            }
        }
        exact_fma_ymm::<REGISTER>(core, op, f)
    })
}

#[cold]
#[inline(never)]
fn exact_fma_ymm<const REGISTER: u8>(
    core: &mut Core,
    op: &Op,
    f: impl Fn(u32, __m256i, __m256i, __m256i) -> (__m256i, u32),
) -> Result<(), Stop> {
    let Some(mxcsr) = masked(core) else { return slowly::<true>(core, op) };
    let c = last_ymm::<REGISTER, false>(core, op)?;
    let (result, mxcsr) = f(mxcsr, ymm(core, op.r1), ymm(core, op.r2), c);
    raised(core, mxcsr);
    set_ymm(core, op.r1, result);
    Ok(())
}

/// MXCSR, if all exceptions are masked.
#[inline(always)]
pub(super) fn masked(core: &Core) -> Option<u32> {
    let bits = core.cpu.mxcsr.bits();
    (!bits & Mxcsr::RESET == 0).then_some(bits)
}

/// Whether MXCSR says what it says while Rust runs, and that a result was inexact before. What raises nothing else
/// leaves MXCSR as it is then.
#[inline(always)]
pub(super) fn usual(mxcsr: u32) -> bool {
    mxcsr & !u32::from((Exceptions::all() - Exceptions::PE).bits())
        == Mxcsr::RESET | u32::from(Exceptions::PE.bits())
}

/// For a type of vector, whether a result can have raised nothing but PE, in the lanes that `lanes` selects: it is above
/// the smallest normal number and finite, and so are the operands, `least` being the least of their magnitudes. A NaN
/// among them makes the result one, but for the first operand of MIN and MAX, which must be the last in `least`.
macro_rules! sound {
    ($($name:ident, $abs:ident: $type:ty, $set:ident, $and:ident, $min:ident, $cmp:ident,
        $mask:ident, $float:ident, $magnitude:literal;)*) => {$(
        #[inline]
        #[target_feature(enable = "avx2")]
        pub(super) fn $abs(a: $type) -> $type {
            $and(a, $set($float::from_bits($magnitude)))
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        pub(super) fn $name(least: $type, result: $type, lanes: i32) -> bool {
            let result = $abs(result);
            // The minimum with a NaN is the second of the two: in `least`, it stays and is not above anything.
            let above = $cmp::<_CMP_GT_OQ>($min(result, least), $set($float::MIN_POSITIVE));
            let finite = $cmp::<_CMP_LT_OQ>(result, $set($float::INFINITY));
            $mask($and(above, finite)) & lanes == lanes
        }
    )*};
}
sound! {
    sound_ps, abs_ps: __m128, _mm_set1_ps, _mm_and_ps, _mm_min_ps, _mm_cmp_ps, _mm_movemask_ps, f32, 0x7fff_ffff;
    sound_pd, abs_pd: __m128d, _mm_set1_pd, _mm_and_pd, _mm_min_pd, _mm_cmp_pd, _mm_movemask_pd, f64, 0x7fff_ffff_ffff_ffff;
    sound_ps_256, abs_ps_256: __m256, _mm256_set1_ps, _mm256_and_ps, _mm256_min_ps, _mm256_cmp_ps,
        _mm256_movemask_ps, f32, 0x7fff_ffff;
    sound_pd_256, abs_pd_256: __m256d, _mm256_set1_pd, _mm256_and_pd, _mm256_min_pd, _mm256_cmp_pd,
        _mm256_movemask_pd, f64, 0x7fff_ffff_ffff_ffff;
}

/// Keeps MXCSR as an instruction has left it.
#[inline(always)]
pub(super) fn raised(core: &mut Core, mxcsr: u32) {
    core.cpu.mxcsr = Mxcsr::from_bits(mxcsr).unwrap_or_default();
}

/// Performs the table's operation.
#[cold]
#[inline(never)]
pub(super) fn slowly<const VEX: bool>(core: &mut Core, op: &Op) -> Result<(), Stop> {
    let entry = entry(core, op)?;
    perform(core, op, entry, VEX)
}

/// One instruction of the host under the guest's MXCSR: `a = a op b`.
macro_rules! under_mxcsr {
    ($insn:expr, $class:ident, |$mxcsr:ident, $a:ident $(, $b:ident)*|) => {{
        let (mut a, mut mxcsr) = ($a, $mxcsr);
        // SAFETY: the instruction touches registers alone, and MXCSR is the default one again behind it.
        unsafe {
            asm!(
                "ldmxcsr [{mxcsr}]",
                $insn,
                "stmxcsr [{mxcsr}]",
                "ldmxcsr [{default}]",
                a = inout($class) a,
                $($b = in($class) $b,)*
                mxcsr = in(reg) &raw mut mxcsr,
                default = in(reg) &Mxcsr::RESET,
                options(nostack),
            );
        }
        (a, mxcsr)
    }};
}
