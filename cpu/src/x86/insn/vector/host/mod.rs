//! Frequent operations by the host's own instructions, where it has AVX2 and FMA.
//!
//! They do what the table's operations do, in less time. What depends on MXCSR is one instruction of the host under
//! the guest's MXCSR, which then holds what it raised: as long as every exception is masked, nothing else can come of
//! it. If one is not, the table's operation is performed.
//!
//! This file has the forms of operands, and the moves between them and the host's registers; the others have the
//! instructions.
#![allow(unsafe_code)] // Instructions of the host, some of them under the guest's MXCSR.

use std::arch::x86_64::*;

use super::{entry, is_vex, needs, perform};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::Stop;
use crate::x86::insn::{Addr, CodeCache, Segmented, step, sum, unit};
use crate::x86::simd::{Kind, Operand, SimdOp};
use crate::x86::state::sreg;

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

#[macro_use]
mod mxcsr;
mod arithmetic;
mod conversions;
mod integer;
mod moves;

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
        integer::lookup(ins, entry)
            .or_else(|| moves::lookup(ins, entry))
            .or_else(|| arithmetic::lookup(ins, entry))
            .or_else(|| arithmetic::fused_multiply(ins, entry))
            .or_else(|| conversions::lookup(ins, entry))
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

/// The last source is in memory, in the place of a register's number.
const MEMORY: u8 = 9;
