//! Frequent operations by the host's own instructions, where it has AVX2 and FMA.
//!
//! They do what the table's operations do, in less time. What depends on MXCSR is one instruction of the host under
//! the guest's MXCSR, which then holds what it raised: as long as every exception is masked, nothing else can come of
//! it. If one is not, the table's operation is performed.
#![allow(unsafe_code)] // Instructions of the host, some of them under the guest's MXCSR.

use std::arch::asm;
use std::arch::x86_64::*;

use iced_x86::Mnemonic::*;

use super::{entry, is_vex, needs, perform};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::Stop;
use crate::x86::flags::{Lazy, bit};
use crate::x86::insn::{Addr, CodeCache, Int, Segmented, step, sum, unit};
use crate::x86::simd::{Exceptions, Kind, Mxcsr, Operand, SimdOp};
use crate::x86::state::sreg;

/// The function that performs an instruction, if it is one of those that the host performs.
pub(super) fn lookup(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
        return None;
    }
    if needs(ins, entry) & unit::MMX != 0 {
        return None;
    }
    // SAFETY: the processor has AVX2 and FMA.
    unsafe {
        integer(ins, entry)
            .or_else(|| moves(ins, entry))
            .or_else(|| arithmetic(ins, entry))
            .or_else(|| fused_multiply(ins, entry))
            .or_else(|| conversions(ins, entry))
    }
}

/// Where the operands of an instruction on vector registers are, the last source being in a register or in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    vex: bool,
    ymm: bool,
    /// The first source counts.
    a: bool,
    memory: bool,
    /// There is no last source but the immediate.
    alone: bool,
}

fn shape(ins: &Ins, entry: &SimdOp) -> Option<Shape> {
    let vex = is_vex(ins);
    let register = |number| Operand { kind: Kind::Vector, number };
    let a = match entry.a {
        Operand { kind: Kind::None, .. } => false,
        a if a == register(u8::from(vex)) => true,
        _ => return None,
    };
    let (memory, alone) = match entry.b {
        Operand { kind: Kind::Memory, .. } => (true, false),
        Operand { kind: Kind::None, .. } => (false, true),
        b if b == register(if vex && a { 2 } else { 1 }) => (false, false),
        _ => return None,
    };
    let plain = entry.dst == register(0) && entry.c.kind == Kind::None && entry.width >= 16;
    plain.then_some(Shape { vex, ymm: entry.width == 32, a, memory, alone })
}

/// A 128-bit register, or the lower half of one.
#[inline(always)]
fn xmm(core: &Core, number: u8) -> __m128i {
    let [low, high, ..] = core.cpu.ymm[usize::from(number & 15)].0;
    bytemuck::cast([low, high])
}

#[inline(always)]
fn set_xmm<const VEX: bool>(core: &mut Core, number: u8, value: __m128i) {
    let [low, high]: [u64; 2] = bytemuck::cast(value);
    let register = &mut core.cpu.ymm[usize::from(number & 15)].0;
    register[0] = low;
    register[1] = high;
    if VEX {
        register[2] = 0;
        register[3] = 0;
    }
}

/// A 256-bit register, read in halves: it may have been written so.
#[inline(always)]
fn ymm(core: &Core, number: u8) -> __m256i {
    bytemuck::cast(core.cpu.ymm[usize::from(number & 15)].0)
}

#[inline(always)]
fn set_ymm(core: &mut Core, number: u8, value: __m256i) {
    core.cpu.ymm[usize::from(number & 15)].0 = bytemuck::cast(value);
}

/// The linear address of a memory operand of `len` bytes, which must be aligned if `aligned`.
#[inline(always)]
fn address(core: &mut Core, op: &Op, len: u64, aligned: bool, write: bool) -> Result<u64, Stop> {
    let based = op.seg == sreg::FS || op.seg == sreg::GS;
    let lin = if core.wide() && op.ashift == 0 && !based && !core.aligned {
        sum(core, op)
    } else {
        Segmented::lin(core, op, len, write)?
    };
    if aligned && lin & (len - 1) != 0 {
        return Err(core.gp(0));
    }
    Ok(lin)
}

/// The last source: in a register, or `BYTES` bytes of memory.
#[inline(always)]
fn last_xmm<const REGISTER: u8, const BYTES: u64, const ALIGNED: bool>(
    core: &mut Core,
    op: &Op,
) -> Result<__m128i, Stop> {
    Ok(match REGISTER {
        0 => bytemuck::cast([0u64; 2]),
        2 => xmm(core, op.r2),
        3 => xmm(core, op.r3),
        _ => {
            let lin = address(core, op, BYTES, ALIGNED, false)?;
            match BYTES {
                4 => bytemuck::cast([u64::from(core.load::<u32>(lin)?), 0]),
                8 => bytemuck::cast([core.load::<u64>(lin)?, 0]),
                _ => bytemuck::cast(core.load_16(lin)?),
            }
        }
    })
}

#[inline(always)]
fn last_ymm<const REGISTER: u8, const ALIGNED: bool>(
    core: &mut Core,
    op: &Op,
) -> Result<__m256i, Stop> {
    Ok(match REGISTER {
        0 => bytemuck::cast([0u64; 4]),
        2 => ymm(core, op.r2),
        3 => ymm(core, op.r3),
        _ => {
            let lin = address(core, op, 32, ALIGNED, false)?;
            bytemuck::cast(core.load_32(lin)?)
        }
    })
}

/// `destination = f(a, b, immediate)`.
#[inline(always)]
fn run_xmm<const VEX: bool, const REGISTER: u8, const BYTES: u64, const ALIGNED: bool>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    f: impl Fn(__m128i, __m128i, u8) -> __m128i,
) -> usize {
    step(core, ops, code, REGISTER == MEMORY, |core, op| {
        core.need(if VEX { unit::AVX } else { unit::SSE })?;
        let b = last_xmm::<REGISTER, BYTES, ALIGNED>(core, op)?;
        let a = xmm(core, if VEX { op.r2 } else { op.r1 });
        set_xmm::<VEX>(core, op.r1, f(a, b, op.imm as u8));
        Ok(())
    })
}

#[inline(always)]
fn run_ymm<const REGISTER: u8, const ALIGNED: bool>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    f: impl Fn(__m256i, __m256i, u8) -> __m256i,
) -> usize {
    step(core, ops, code, REGISTER == MEMORY, |core, op| {
        core.need(unit::AVX)?;
        let b = last_ymm::<REGISTER, ALIGNED>(core, op)?;
        let a = ymm(core, op.r2);
        set_ymm(core, op.r1, f(a, b, op.imm as u8));
        Ok(())
    })
}

/// `quick` of the operands gives the result and whether it is all there is to know, provided that MXCSR says
/// [`usual`] things; `f` of MXCSR and the operands gives the result and MXCSR behind it. That is a function of its own:
/// what it has on the stack would keep this one from going on by a tail call.
#[inline(always)]
fn fp_xmm<const VEX: bool, const REGISTER: u8, const BYTES: u64, const ALIGNED: bool>(
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
fn fp_ymm<const REGISTER: u8, const ALIGNED: bool>(
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
fn fma_xmm<const REGISTER: u8, const BYTES: u64, const ORDER: u8>(
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
fn fma_ymm<const REGISTER: u8, const ORDER: u8>(
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
fn masked(core: &Core) -> Option<u32> {
    let bits = core.cpu.mxcsr.bits();
    (!bits & Mxcsr::RESET == 0).then_some(bits)
}

/// Whether MXCSR says what it says while Rust runs, and that a result was inexact before. What raises nothing else
/// leaves MXCSR as it is then.
#[inline(always)]
fn usual(mxcsr: u32) -> bool {
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
        fn $abs(a: $type) -> $type {
            $and(a, $set($float::from_bits($magnitude)))
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn $name(least: $type, result: $type, lanes: i32) -> bool {
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
fn raised(core: &mut Core, mxcsr: u32) {
    core.cpu.mxcsr = Mxcsr::from_bits(mxcsr).unwrap_or_default();
}

/// Performs the table's operation.
#[cold]
#[inline(never)]
fn slowly<const VEX: bool>(core: &mut Core, op: &Op) -> Result<(), Stop> {
    let entry = entry(core, op)?;
    perform(core, op, entry, VEX)
}

/// The last source is in memory, in the place of a register's number.
const MEMORY: u8 = 9;

/// The moves of whole registers.
macro_rules! whole {
    () => {
        Movaps
            | Vmovaps
            | Movapd
            | Vmovapd
            | Movups
            | Vmovups
            | Movupd
            | Vmovupd
            | Movdqa
            | Vmovdqa
            | Movdqu
            | Vmovdqu
            | Lddqu
            | Vlddqu
            | Movntps
            | Vmovntps
            | Movntpd
            | Vmovntpd
            | Movntdq
            | Vmovntdq
            | Movntdqa
            | Vmovntdqa
    };
}

/// A closure as a handler.
macro_rules! handler {
    ($run:expr) => {
        Some(|core: &mut Core, ops: &[Op], code: &CodeCache| $run(core, ops, code))
    };
}

/// The handlers of an operation of two sources by its forms: closures for 128 and for 256 bits.
macro_rules! ab {
    ($shape:ident, $x:expr, $y:expr) => {
        match ($shape.vex, $shape.ymm, $shape.memory) {
            _ if !$shape.a || $shape.alone => None,
            (false, _, false) => handler!(|c, o, d| run_xmm::<false, 2, 16, false>(c, o, d, $x)),
            (false, _, true) => {
                handler!(|c, o, d| run_xmm::<false, MEMORY, 16, true>(c, o, d, $x))
            }
            (true, false, false) => handler!(|c, o, d| run_xmm::<true, 3, 16, false>(c, o, d, $x)),
            (true, false, true) => {
                handler!(|c, o, d| run_xmm::<true, MEMORY, 16, false>(c, o, d, $x))
            }
            (true, true, false) => handler!(|c, o, d| run_ymm::<3, false>(c, o, d, $y)),
            (true, true, true) => handler!(|c, o, d| run_ymm::<MEMORY, false>(c, o, d, $y)),
        }
    };
}

/// The same for one source and an immediate.
macro_rules! b {
    ($shape:ident, $x:expr, $y:expr) => {
        match ($shape.vex, $shape.ymm, $shape.memory) {
            _ if $shape.vex && $shape.a || $shape.alone => None,
            (false, _, false) => handler!(|c, o, d| run_xmm::<false, 2, 16, false>(c, o, d, $x)),
            (false, _, true) => {
                handler!(|c, o, d| run_xmm::<false, MEMORY, 16, true>(c, o, d, $x))
            }
            (true, false, false) => handler!(|c, o, d| run_xmm::<true, 2, 16, false>(c, o, d, $x)),
            (true, false, true) => {
                handler!(|c, o, d| run_xmm::<true, MEMORY, 16, false>(c, o, d, $x))
            }
            (true, true, false) => handler!(|c, o, d| run_ymm::<2, false>(c, o, d, $y)),
            (true, true, true) => handler!(|c, o, d| run_ymm::<MEMORY, false>(c, o, d, $y)),
        }
    };
}

/// The same for a shift by an immediate.
macro_rules! alone {
    ($shape:ident, $x:expr, $y:expr) => {
        match ($shape.vex, $shape.ymm) {
            _ if !$shape.a || !$shape.alone => None,
            (false, _) => handler!(|c, o, d| run_xmm::<false, 0, 16, false>(c, o, d, $x)),
            (true, false) => handler!(|c, o, d| run_xmm::<true, 0, 16, false>(c, o, d, $x)),
            (true, true) => handler!(|c, o, d| run_ymm::<0, false>(c, o, d, $y)),
        }
    };
}

/// Two intrinsics of two operands.
macro_rules! pair {
    ($shape:ident, $x:ident, $y:ident) => {
        ab!($shape, |a, b, _| $x(a, b), |a, b, _| $y(a, b))
    };
}

/// A shift of lanes by an immediate, or by a vector's low half.
macro_rules! shift {
    ($shape:ident, $x:ident, $y:ident) => {
        alone!($shape, |a, _, i| $x(a, _mm_cvtsi32_si128(i.into())), |a, _, i| $y(
            a,
            _mm_cvtsi32_si128(i.into())
        ))
    };
}

/// The choices of an immediate, two bits for each of four lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn choices(imm: u8) -> __m128i {
    _mm_srlv_epi32(_mm_set1_epi32(imm.into()), _mm_setr_epi32(0, 2, 4, 6))
}

#[inline]
#[target_feature(enable = "avx2")]
fn choices_256(imm: u8) -> __m256i {
    _mm256_broadcastsi128_si256(choices(imm))
}

#[inline]
#[target_feature(enable = "avx2")]
fn shuffle4(b: __m128i, imm: u8) -> __m128i {
    _mm_castps_si128(_mm_permutevar_ps(_mm_castsi128_ps(b), choices(imm)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn shuffle4_256(b: __m256i, imm: u8) -> __m256i {
    _mm256_castps_si256(_mm256_permutevar_ps(_mm256_castsi256_ps(b), choices_256(imm)))
}

/// VPERMQ.
#[inline]
#[target_feature(enable = "avx2")]
fn permute_words(b: __m256i, imm: u8) -> __m256i {
    let shifts = _mm256_setr_epi32(0, 0, 2, 2, 4, 4, 6, 6);
    let chosen = _mm256_srlv_epi32(_mm256_set1_epi32(imm.into()), shifts);
    let chosen = _mm256_and_si256(chosen, _mm256_set1_epi32(3));
    let halves = _mm256_setr_epi32(0, 1, 0, 1, 0, 1, 0, 1);
    _mm256_permutevar8x32_epi32(b, _mm256_add_epi32(_mm256_add_epi32(chosen, chosen), halves))
}

#[target_feature(enable = "avx2,fma")]
fn integer(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    let shape = shape(ins, entry)?;
    match ins.mnemonic() {
        Paddb | Vpaddb => pair!(shape, _mm_add_epi8, _mm256_add_epi8),
        Paddw | Vpaddw => pair!(shape, _mm_add_epi16, _mm256_add_epi16),
        Paddd | Vpaddd => pair!(shape, _mm_add_epi32, _mm256_add_epi32),
        Paddq | Vpaddq => pair!(shape, _mm_add_epi64, _mm256_add_epi64),
        Psubb | Vpsubb => pair!(shape, _mm_sub_epi8, _mm256_sub_epi8),
        Psubw | Vpsubw => pair!(shape, _mm_sub_epi16, _mm256_sub_epi16),
        Psubd | Vpsubd => pair!(shape, _mm_sub_epi32, _mm256_sub_epi32),
        Psubq | Vpsubq => pair!(shape, _mm_sub_epi64, _mm256_sub_epi64),
        Paddusb | Vpaddusb => pair!(shape, _mm_adds_epu8, _mm256_adds_epu8),
        Psubusb | Vpsubusb => pair!(shape, _mm_subs_epu8, _mm256_subs_epu8),
        Pmullw | Vpmullw => pair!(shape, _mm_mullo_epi16, _mm256_mullo_epi16),
        Pmulld | Vpmulld => pair!(shape, _mm_mullo_epi32, _mm256_mullo_epi32),
        Pmulhw | Vpmulhw => pair!(shape, _mm_mulhi_epi16, _mm256_mulhi_epi16),
        Pmulhuw | Vpmulhuw => pair!(shape, _mm_mulhi_epu16, _mm256_mulhi_epu16),
        Pmuludq | Vpmuludq => pair!(shape, _mm_mul_epu32, _mm256_mul_epu32),
        Pmaddwd | Vpmaddwd => pair!(shape, _mm_madd_epi16, _mm256_madd_epi16),
        Pmaddubsw | Vpmaddubsw => pair!(shape, _mm_maddubs_epi16, _mm256_maddubs_epi16),
        Psadbw | Vpsadbw => pair!(shape, _mm_sad_epu8, _mm256_sad_epu8),
        Pavgb | Vpavgb => pair!(shape, _mm_avg_epu8, _mm256_avg_epu8),
        Pminub | Vpminub => pair!(shape, _mm_min_epu8, _mm256_min_epu8),
        Pmaxub | Vpmaxub => pair!(shape, _mm_max_epu8, _mm256_max_epu8),
        Pminsw | Vpminsw => pair!(shape, _mm_min_epi16, _mm256_min_epi16),
        Pmaxsw | Vpmaxsw => pair!(shape, _mm_max_epi16, _mm256_max_epi16),
        Pminsd | Vpminsd => pair!(shape, _mm_min_epi32, _mm256_min_epi32),
        Pmaxsd | Vpmaxsd => pair!(shape, _mm_max_epi32, _mm256_max_epi32),
        Pminud | Vpminud => pair!(shape, _mm_min_epu32, _mm256_min_epu32),
        Pmaxud | Vpmaxud => pair!(shape, _mm_max_epu32, _mm256_max_epu32),
        Pcmpeqb | Vpcmpeqb => pair!(shape, _mm_cmpeq_epi8, _mm256_cmpeq_epi8),
        Pcmpeqw | Vpcmpeqw => pair!(shape, _mm_cmpeq_epi16, _mm256_cmpeq_epi16),
        Pcmpeqd | Vpcmpeqd => pair!(shape, _mm_cmpeq_epi32, _mm256_cmpeq_epi32),
        Pcmpeqq | Vpcmpeqq => pair!(shape, _mm_cmpeq_epi64, _mm256_cmpeq_epi64),
        Pcmpgtb | Vpcmpgtb => pair!(shape, _mm_cmpgt_epi8, _mm256_cmpgt_epi8),
        Pcmpgtw | Vpcmpgtw => pair!(shape, _mm_cmpgt_epi16, _mm256_cmpgt_epi16),
        Pcmpgtd | Vpcmpgtd => pair!(shape, _mm_cmpgt_epi32, _mm256_cmpgt_epi32),
        Pand | Vpand | Andps | Vandps | Andpd | Vandpd => {
            pair!(shape, _mm_and_si128, _mm256_and_si256)
        }
        Pandn | Vpandn | Andnps | Vandnps | Andnpd | Vandnpd => {
            pair!(shape, _mm_andnot_si128, _mm256_andnot_si256)
        }
        Por | Vpor | Orps | Vorps | Orpd | Vorpd => pair!(shape, _mm_or_si128, _mm256_or_si256),
        Pxor | Vpxor | Xorps | Vxorps | Xorpd | Vxorpd => {
            pair!(shape, _mm_xor_si128, _mm256_xor_si256)
        }
        Punpcklbw | Vpunpcklbw => pair!(shape, _mm_unpacklo_epi8, _mm256_unpacklo_epi8),
        Punpcklwd | Vpunpcklwd => pair!(shape, _mm_unpacklo_epi16, _mm256_unpacklo_epi16),
        Punpckldq | Vpunpckldq | Unpcklps | Vunpcklps => {
            pair!(shape, _mm_unpacklo_epi32, _mm256_unpacklo_epi32)
        }
        Punpcklqdq | Vpunpcklqdq | Unpcklpd | Vunpcklpd => {
            pair!(shape, _mm_unpacklo_epi64, _mm256_unpacklo_epi64)
        }
        Punpckhbw | Vpunpckhbw => pair!(shape, _mm_unpackhi_epi8, _mm256_unpackhi_epi8),
        Punpckhwd | Vpunpckhwd => pair!(shape, _mm_unpackhi_epi16, _mm256_unpackhi_epi16),
        Punpckhdq | Vpunpckhdq | Unpckhps | Vunpckhps => {
            pair!(shape, _mm_unpackhi_epi32, _mm256_unpackhi_epi32)
        }
        Punpckhqdq | Vpunpckhqdq | Unpckhpd | Vunpckhpd => {
            pair!(shape, _mm_unpackhi_epi64, _mm256_unpackhi_epi64)
        }
        Packsswb | Vpacksswb => pair!(shape, _mm_packs_epi16, _mm256_packs_epi16),
        Packssdw | Vpackssdw => pair!(shape, _mm_packs_epi32, _mm256_packs_epi32),
        Packuswb | Vpackuswb => pair!(shape, _mm_packus_epi16, _mm256_packus_epi16),
        Pshufb | Vpshufb => pair!(shape, _mm_shuffle_epi8, _mm256_shuffle_epi8),
        Psllw | Vpsllw => shift!(shape, _mm_sll_epi16, _mm256_sll_epi16),
        Pslld | Vpslld => shift!(shape, _mm_sll_epi32, _mm256_sll_epi32),
        Psllq | Vpsllq => shift!(shape, _mm_sll_epi64, _mm256_sll_epi64),
        Psrlw | Vpsrlw => shift!(shape, _mm_srl_epi16, _mm256_srl_epi16),
        Psrld | Vpsrld => shift!(shape, _mm_srl_epi32, _mm256_srl_epi32),
        Psrlq | Vpsrlq => shift!(shape, _mm_srl_epi64, _mm256_srl_epi64),
        Psraw | Vpsraw => shift!(shape, _mm_sra_epi16, _mm256_sra_epi16),
        Psrad | Vpsrad => shift!(shape, _mm_sra_epi32, _mm256_sra_epi32),
        Pshufd | Vpshufd => b!(shape, |_, b, i| shuffle4(b, i), |_, b, i| shuffle4_256(b, i)),
        Shufps | Vshufps => ab!(
            shape,
            |a, b, i| _mm_blend_epi32::<0b1100>(shuffle4(a, i), shuffle4(b, i)),
            |a, b, i| _mm256_blend_epi32::<0b1100_1100>(shuffle4_256(a, i), shuffle4_256(b, i))
        ),
        Vpermq | Vpermpd if shape.ymm => {
            b!(shape, |_, b, _| b, |_, b, i| permute_words(b, i))
        }
        _ => None,
    }
}

/// Whole registers to and from memory or another register; scalars to and from memory.
#[target_feature(enable = "avx2,fma")]
fn moves(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    let aligned = entry.align > 1;
    if entry.dst.kind == Kind::Memory {
        let plain = entry.b == Operand { kind: Kind::Vector, number: 1 };
        return match (ins.mnemonic(), is_vex(ins), entry.memory, aligned) {
            _ if !plain => None,
            (Movss | Movd, false, 4, _) => Some(store::<false, 4, false>),
            (Movsd | Movq | Movlps | Movlpd, false, 8, _) => Some(store::<false, 8, false>),
            (Vmovss | Vmovd, true, 4, _) => Some(store::<true, 4, false>),
            (Vmovsd | Vmovq | Vmovlps | Vmovlpd, true, 8, _) => Some(store::<true, 8, false>),
            (whole!(), false, 16, false) => Some(store::<false, 16, false>),
            (whole!(), false, 16, true) => Some(store::<false, 16, true>),
            (whole!(), true, 16, false) => Some(store::<true, 16, false>),
            (whole!(), true, 16, true) => Some(store::<true, 16, true>),
            (whole!(), true, 32, false) => Some(store::<true, 32, false>),
            (whole!(), true, 32, true) => Some(store::<true, 32, true>),
            _ => None,
        };
    }
    let shape = shape(ins, entry)?;
    if shape.vex && shape.a || shape.alone {
        return None;
    }
    match (ins.mnemonic(), shape.vex, shape.ymm, shape.memory, aligned) {
        (whole!(), false, _, false, _) => {
            handler!(|c, o, d| run_xmm::<false, 2, 16, false>(c, o, d, |_, b, _| b))
        }
        (whole!(), true, false, false, _) => {
            handler!(|c, o, d| run_xmm::<true, 2, 16, false>(c, o, d, |_, b, _| b))
        }
        (whole!(), true, true, false, _) => {
            handler!(|c, o, d| run_ymm::<2, false>(c, o, d, |_, b, _| b))
        }
        (whole!(), false, _, true, false) => {
            handler!(|c, o, d| run_xmm::<false, MEMORY, 16, false>(c, o, d, |_, b, _| b))
        }
        (whole!(), false, _, true, true) => {
            handler!(|c, o, d| run_xmm::<false, MEMORY, 16, true>(c, o, d, |_, b, _| b))
        }
        (whole!(), true, false, true, false) => {
            handler!(|c, o, d| run_xmm::<true, MEMORY, 16, false>(c, o, d, |_, b, _| b))
        }
        (whole!(), true, false, true, true) => {
            handler!(|c, o, d| run_xmm::<true, MEMORY, 16, true>(c, o, d, |_, b, _| b))
        }
        (whole!(), true, true, true, false) => {
            handler!(|c, o, d| run_ymm::<MEMORY, false>(c, o, d, |_, b, _| b))
        }
        (whole!(), true, true, true, true) => {
            handler!(|c, o, d| run_ymm::<MEMORY, true>(c, o, d, |_, b, _| b))
        }
        (Movss | Movd, _, _, true, _) => {
            handler!(|c, o, d| run_xmm::<false, MEMORY, 4, false>(c, o, d, |_, b, _| b))
        }
        (Movsd | Movq, _, _, true, _) => {
            handler!(|c, o, d| run_xmm::<false, MEMORY, 8, false>(c, o, d, |_, b, _| b))
        }
        (Vmovss | Vmovd, _, _, true, _) => {
            handler!(|c, o, d| run_xmm::<true, MEMORY, 4, false>(c, o, d, |_, b, _| b))
        }
        (Vmovsd | Vmovq, _, _, true, _) => {
            handler!(|c, o, d| run_xmm::<true, MEMORY, 8, false>(c, o, d, |_, b, _| b))
        }
        _ => None,
    }
}

fn store<const VEX: bool, const BYTES: u64, const ALIGNED: bool>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, true, |core, op| {
        core.need(if VEX { unit::AVX } else { unit::SSE })?;
        let lin = address(core, op, BYTES, ALIGNED, true)?;
        let [a, b, c, d] = core.cpu.ymm[usize::from(op.r2 & 15)].0;
        match BYTES {
            4 => core.store(lin, a as u32),
            8 => core.store(lin, a),
            16 => core.store_16(lin, [a, b]),
            _ => core.store_32(lin, [a, b, c, d]),
        }
    })
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

#[target_feature(enable = "avx2,fma")]
fn arithmetic(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    let shape = shape(ins, entry)?;
    /// Whether there is a first source, bytes of a memory operand and whether they are aligned, then what is done quickly
    /// and exactly with 128 and with 256 bits.
    macro_rules! forms {
        ($a:literal, $bytes:literal, $aligned:literal, $qx:expr, $x:expr, $qy:expr, $y:expr) => {
            match (shape.vex, shape.ymm, shape.memory) {
                _ if shape.vex && shape.a != $a || shape.alone => None,
                (false, _, false) => {
                    handler!(|c, o, d| fp_xmm::<false, 2, 16, false>(c, o, d, $qx, $x))
                }
                (false, _, true) => {
                    handler!(|c, o, d| fp_xmm::<false, MEMORY, $bytes, $aligned>(c, o, d, $qx, $x))
                }
                (true, false, false) => {
                    handler!(|c, o, d| {
                        fp_xmm::<true, { if $a { 3 } else { 2 } }, 16, false>(c, o, d, $qx, $x)
                    })
                }
                (true, false, true) => {
                    handler!(|c, o, d| fp_xmm::<true, MEMORY, $bytes, false>(c, o, d, $qx, $x))
                }
                (true, true, false) => {
                    handler!(|c, o, d| {
                        fp_ymm::<{ if $a { 3 } else { 2 } }, false>(c, o, d, $qy, $y)
                    })
                }
                (true, true, true) => {
                    handler!(|c, o, d| fp_ymm::<MEMORY, false>(c, o, d, $qy, $y))
                }
            }
        };
    }
    /// A packed operation: by name, type and intrinsics.
    macro_rules! packed {
        ($insn:literal, ps, $x:ident, $y:ident) => {
            packed!(@ $insn, $x, $y, _mm_castsi128_ps, _mm_castps_si128, _mm_min_ps, abs_ps, sound_ps, 0xf,
                _mm256_castsi256_ps, _mm256_castps_si256, _mm256_min_ps, abs_ps_256, sound_ps_256, 0xff)
        };
        ($insn:literal, pd, $x:ident, $y:ident) => {
            packed!(@ $insn, $x, $y, _mm_castsi128_pd, _mm_castpd_si128, _mm_min_pd, abs_pd, sound_pd, 3,
                _mm256_castsi256_pd, _mm256_castpd_si256, _mm256_min_pd, abs_pd_256, sound_pd_256, 0xf)
        };
        (@ $insn:literal, $x:ident, $y:ident, $from:ident, $to:ident, $min:ident, $abs:ident, $sound:ident, $lanes:literal,
            $from_256:ident, $to_256:ident, $min_256:ident, $abs_256:ident, $sound_256:ident, $lanes_256:literal) => {
            forms!(
                true,
                16,
                true,
                |a, b| {
                    let (a, b) = ($from(a), $from(b));
                    let r = $x(a, b);
                    ($to(r), $sound($min($abs(b), $abs(a)), r, $lanes))
                },
                |m, a, b| under_mxcsr!(concat!($insn, " {a}, {a}, {b}"), xmm_reg, |m, a, b|),
                |a, b| {
                    let (a, b) = ($from_256(a), $from_256(b));
                    let r = $y(a, b);
                    ($to_256(r), $sound_256($min_256($abs_256(b), $abs_256(a)), r, $lanes_256))
                },
                |m, a, b| under_mxcsr!(concat!($insn, " {a:y}, {a:y}, {b:y}"), ymm_reg, |m, a, b|)
            )
        };
        (of $insn:literal) => {
            forms!(
                false,
                16,
                true,
                |_, b| (b, false),
                |m, a, b| under_mxcsr!(concat!($insn, " {a}, {b}"), xmm_reg, |m, a, b|),
                |_, b| (b, false),
                |m, a, b| under_mxcsr!(concat!($insn, " {a:y}, {b:y}"), ymm_reg, |m, a, b|)
            )
        };
    }
    /// A scalar operation.
    macro_rules! scalar {
        ($insn:literal, ss, $x:ident) => {
            scalar!(4, $insn, |a, b| {
                let (a, b) = (_mm_castsi128_ps(a), _mm_castsi128_ps(b));
                let r = $x(a, b);
                (_mm_castps_si128(r), sound_ps(_mm_min_ps(abs_ps(b), abs_ps(a)), r, 1))
            })
        };
        ($insn:literal, sd, $x:ident) => {
            scalar!(8, $insn, |a, b| {
                let (a, b) = (_mm_castsi128_pd(a), _mm_castsi128_pd(b));
                let r = $x(a, b);
                (_mm_castpd_si128(r), sound_pd(_mm_min_pd(abs_pd(b), abs_pd(a)), r, 1))
            })
        };
        ($bytes:literal, $insn:literal, $quick:expr) => {
            forms!(
                true,
                $bytes,
                false,
                $quick,
                |m, a, b| under_mxcsr!(concat!($insn, " {a}, {a}, {b}"), xmm_reg, |m, a, b|),
                |a, _| (a, true),
                |m, a, _| (a, m)
            )
        };
    }
    match ins.mnemonic() {
        Addps | Vaddps => packed!("vaddps", ps, _mm_add_ps, _mm256_add_ps),
        Addpd | Vaddpd => packed!("vaddpd", pd, _mm_add_pd, _mm256_add_pd),
        Addss | Vaddss => scalar!("vaddss", ss, _mm_add_ss),
        Addsd | Vaddsd => scalar!("vaddsd", sd, _mm_add_sd),
        Subps | Vsubps => packed!("vsubps", ps, _mm_sub_ps, _mm256_sub_ps),
        Subpd | Vsubpd => packed!("vsubpd", pd, _mm_sub_pd, _mm256_sub_pd),
        Subss | Vsubss => scalar!("vsubss", ss, _mm_sub_ss),
        Subsd | Vsubsd => scalar!("vsubsd", sd, _mm_sub_sd),
        Mulps | Vmulps => packed!("vmulps", ps, _mm_mul_ps, _mm256_mul_ps),
        Mulpd | Vmulpd => packed!("vmulpd", pd, _mm_mul_pd, _mm256_mul_pd),
        Mulss | Vmulss => scalar!("vmulss", ss, _mm_mul_ss),
        Mulsd | Vmulsd => scalar!("vmulsd", sd, _mm_mul_sd),
        Divps | Vdivps => packed!("vdivps", ps, _mm_div_ps, _mm256_div_ps),
        Divpd | Vdivpd => packed!("vdivpd", pd, _mm_div_pd, _mm256_div_pd),
        Divss | Vdivss => scalar!("vdivss", ss, _mm_div_ss),
        Divsd | Vdivsd => scalar!("vdivsd", sd, _mm_div_sd),
        Minps | Vminps => packed!("vminps", ps, _mm_min_ps, _mm256_min_ps),
        Minpd | Vminpd => packed!("vminpd", pd, _mm_min_pd, _mm256_min_pd),
        Minss | Vminss => scalar!("vminss", ss, _mm_min_ss),
        Minsd | Vminsd => scalar!("vminsd", sd, _mm_min_sd),
        Maxps | Vmaxps => packed!("vmaxps", ps, _mm_max_ps, _mm256_max_ps),
        Maxpd | Vmaxpd => packed!("vmaxpd", pd, _mm_max_pd, _mm256_max_pd),
        Maxss | Vmaxss => scalar!("vmaxss", ss, _mm_max_ss),
        Maxsd | Vmaxsd => scalar!("vmaxsd", sd, _mm_max_sd),
        Sqrtss | Vsqrtss => scalar!(4, "vsqrtss", |a, b| {
            let (a, b) = (_mm_castsi128_ps(a), _mm_castsi128_ps(b));
            let r = _mm_move_ss(a, _mm_sqrt_ss(b));
            (_mm_castps_si128(r), sound_ps(b, r, 1))
        }),
        Sqrtsd | Vsqrtsd => scalar!(8, "vsqrtsd", |a, b| {
            let (a, b) = (_mm_castsi128_pd(a), _mm_castsi128_pd(b));
            let r = _mm_sqrt_sd(a, b);
            (_mm_castpd_si128(r), sound_pd(b, r, 1))
        }),
        Cvtss2sd | Vcvtss2sd => scalar!(4, "vcvtss2sd", |a, b| {
            let b = _mm_castsi128_ps(b);
            (_mm_castpd_si128(_mm_cvtss_sd(_mm_castsi128_pd(a), b)), sound_ps(abs_ps(b), b, 1))
        }),
        Cvtsd2ss | Vcvtsd2ss => scalar!(8, "vcvtsd2ss", |a, b| {
            let r = _mm_cvtsd_ss(_mm_castsi128_ps(a), _mm_castsi128_pd(b));
            // A number above the smallest of the narrower format is normal in the wider one.
            (_mm_castps_si128(r), sound_ps(abs_ps(r), r, 1))
        }),
        Sqrtps | Vsqrtps => packed!(of "vsqrtps"),
        Sqrtpd | Vsqrtpd => packed!(of "vsqrtpd"),
        Cvtdq2ps | Vcvtdq2ps => packed!(of "vcvtdq2ps"),
        Cvtps2dq | Vcvtps2dq => packed!(of "vcvtps2dq"),
        Cvttps2dq | Vcvttps2dq => packed!(of "vcvttps2dq"),
        _ => None,
    }
}

#[target_feature(enable = "avx2,fma")]
fn fused_multiply(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    let register = |number| Operand { kind: Kind::Vector, number };
    if entry.dst != register(0) || entry.a != register(0) || entry.b != register(1) {
        return None;
    }
    let memory = entry.c.kind == Kind::Memory;
    macro_rules! of {
        // Packed: by name, order of the operands, type and intrinsics.
        ($insn:literal, $order:literal, ps, $x:ident, $y:ident) => {
            of!(@ $insn, $order, $x, $y, _mm_castsi128_ps, _mm_castps_si128, _mm_min_ps, abs_ps, sound_ps, 0xf,
                _mm256_castsi256_ps, _mm256_castps_si256, _mm256_min_ps, abs_ps_256, sound_ps_256, 0xff)
        };
        ($insn:literal, $order:literal, pd, $x:ident, $y:ident) => {
            of!(@ $insn, $order, $x, $y, _mm_castsi128_pd, _mm_castpd_si128, _mm_min_pd, abs_pd, sound_pd, 3,
                _mm256_castsi256_pd, _mm256_castpd_si256, _mm256_min_pd, abs_pd_256, sound_pd_256, 0xf)
        };
        (@ $insn:literal, $order:literal, $x:ident, $y:ident, $from:ident, $to:ident, $min:ident, $abs:ident,
            $sound:ident, $lanes:literal, $from_256:ident, $to_256:ident, $min_256:ident, $abs_256:ident,
            $sound_256:ident, $lanes_256:literal) => {
            match (entry.width, memory) {
                (16, false) => of!(^ fma_xmm::<3, 16, $order>, xmm_reg, concat!($insn, " {a}, {b}, {z}"), $x, $from, $to,
                    $min, $abs, $sound, $lanes),
                (16, true) => of!(^ fma_xmm::<MEMORY, 16, $order>, xmm_reg, concat!($insn, " {a}, {b}, {z}"), $x, $from,
                    $to, $min, $abs, $sound, $lanes),
                (_, false) => of!(^ fma_ymm::<3, $order>, ymm_reg, concat!($insn, " {a:y}, {b:y}, {z:y}"), $y, $from_256,
                    $to_256, $min_256, $abs_256, $sound_256, $lanes_256),
                (_, true) => of!(^ fma_ymm::<MEMORY, $order>, ymm_reg, concat!($insn, " {a:y}, {b:y}, {z:y}"), $y,
                    $from_256, $to_256, $min_256, $abs_256, $sound_256, $lanes_256),
            }
        };
        (^ $run:expr, $class:ident, $insn:expr, $x:ident, $from:ident, $to:ident, $min:ident, $abs:ident, $sound:ident,
            $lanes:literal) => {
            handler!(|c, o, d| $run(
                c,
                o,
                d,
                |x, y, z| {
                    let (x, y, z) = ($from(x), $from(y), $from(z));
                    let r = $x(x, y, z);
                    ($to(r), $sound($min($min($abs(x), $abs(y)), $abs(z)), r, $lanes))
                },
                |m, a, b, z| under_mxcsr!($insn, $class, |m, a, b, z|)
            ))
        };
        // Scalar: by name and bytes.
        ($insn:literal, $bytes:literal) => {
            if memory {
                handler!(|c, o, d| fma_xmm::<MEMORY, $bytes, 0>(c, o, d, |x, _, _| (x, false), |m, a, b, z| {
                    under_mxcsr!(concat!($insn, " {a}, {b}, {z}"), xmm_reg, |m, a, b, z|)
                }))
            } else {
                handler!(|c, o, d| fma_xmm::<3, 16, 0>(c, o, d, |x, _, _| (x, false), |m, a, b, z| {
                    under_mxcsr!(concat!($insn, " {a}, {b}, {z}"), xmm_reg, |m, a, b, z|)
                }))
            }
        };
    }
    match ins.mnemonic() {
        Vfmadd132ps => of!("vfmadd132ps", 132, ps, _mm_fmadd_ps, _mm256_fmadd_ps),
        Vfmadd213ps => of!("vfmadd213ps", 213, ps, _mm_fmadd_ps, _mm256_fmadd_ps),
        Vfmadd231ps => of!("vfmadd231ps", 231, ps, _mm_fmadd_ps, _mm256_fmadd_ps),
        Vfmadd132pd => of!("vfmadd132pd", 132, pd, _mm_fmadd_pd, _mm256_fmadd_pd),
        Vfmadd213pd => of!("vfmadd213pd", 213, pd, _mm_fmadd_pd, _mm256_fmadd_pd),
        Vfmadd231pd => of!("vfmadd231pd", 231, pd, _mm_fmadd_pd, _mm256_fmadd_pd),
        Vfmadd132ss => of!("vfmadd132ss", 4),
        Vfmadd213ss => of!("vfmadd213ss", 4),
        Vfmadd231ss => of!("vfmadd231ss", 4),
        Vfmadd132sd => of!("vfmadd132sd", 8),
        Vfmadd213sd => of!("vfmadd213sd", 8),
        Vfmadd231sd => of!("vfmadd231sd", 8),
        Vfmsub132ps => of!("vfmsub132ps", 132, ps, _mm_fmsub_ps, _mm256_fmsub_ps),
        Vfmsub213ps => of!("vfmsub213ps", 213, ps, _mm_fmsub_ps, _mm256_fmsub_ps),
        Vfmsub231ps => of!("vfmsub231ps", 231, ps, _mm_fmsub_ps, _mm256_fmsub_ps),
        Vfmsub132pd => of!("vfmsub132pd", 132, pd, _mm_fmsub_pd, _mm256_fmsub_pd),
        Vfmsub213pd => of!("vfmsub213pd", 213, pd, _mm_fmsub_pd, _mm256_fmsub_pd),
        Vfmsub231pd => of!("vfmsub231pd", 231, pd, _mm_fmsub_pd, _mm256_fmsub_pd),
        Vfmsub132ss => of!("vfmsub132ss", 4),
        Vfmsub213ss => of!("vfmsub213ss", 4),
        Vfmsub231ss => of!("vfmsub231ss", 4),
        Vfmsub132sd => of!("vfmsub132sd", 8),
        Vfmsub213sd => of!("vfmsub213sd", 8),
        Vfmsub231sd => of!("vfmsub231sd", 8),
        Vfnmadd132ps => of!("vfnmadd132ps", 132, ps, _mm_fnmadd_ps, _mm256_fnmadd_ps),
        Vfnmadd213ps => of!("vfnmadd213ps", 213, ps, _mm_fnmadd_ps, _mm256_fnmadd_ps),
        Vfnmadd231ps => of!("vfnmadd231ps", 231, ps, _mm_fnmadd_ps, _mm256_fnmadd_ps),
        Vfnmadd132pd => of!("vfnmadd132pd", 132, pd, _mm_fnmadd_pd, _mm256_fnmadd_pd),
        Vfnmadd213pd => of!("vfnmadd213pd", 213, pd, _mm_fnmadd_pd, _mm256_fnmadd_pd),
        Vfnmadd231pd => of!("vfnmadd231pd", 231, pd, _mm_fnmadd_pd, _mm256_fnmadd_pd),
        Vfnmadd132ss => of!("vfnmadd132ss", 4),
        Vfnmadd213ss => of!("vfnmadd213ss", 4),
        Vfnmadd231ss => of!("vfnmadd231ss", 4),
        Vfnmadd132sd => of!("vfnmadd132sd", 8),
        Vfnmadd213sd => of!("vfnmadd213sd", 8),
        Vfnmadd231sd => of!("vfnmadd231sd", 8),
        Vfnmsub132ps => of!("vfnmsub132ps", 132, ps, _mm_fnmsub_ps, _mm256_fnmsub_ps),
        Vfnmsub213ps => of!("vfnmsub213ps", 213, ps, _mm_fnmsub_ps, _mm256_fnmsub_ps),
        Vfnmsub231ps => of!("vfnmsub231ps", 231, ps, _mm_fnmsub_ps, _mm256_fnmsub_ps),
        Vfnmsub132pd => of!("vfnmsub132pd", 132, pd, _mm_fnmsub_pd, _mm256_fnmsub_pd),
        Vfnmsub213pd => of!("vfnmsub213pd", 213, pd, _mm_fnmsub_pd, _mm256_fnmsub_pd),
        Vfnmsub231pd => of!("vfnmsub231pd", 231, pd, _mm_fnmsub_pd, _mm256_fnmsub_pd),
        Vfnmsub132ss => of!("vfnmsub132ss", 4),
        Vfnmsub213ss => of!("vfnmsub213ss", 4),
        Vfnmsub231ss => of!("vfnmsub231ss", 4),
        Vfnmsub132sd => of!("vfnmsub132sd", 8),
        Vfnmsub213sd => of!("vfnmsub213sd", 8),
        Vfnmsub231sd => of!("vfnmsub231sd", 8),
        _ => None,
    }
}

/// Between vector and general registers: moves, conversions, comparisons that set flags, masks of signs.
#[target_feature(enable = "avx2,fma")]
fn conversions(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
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
