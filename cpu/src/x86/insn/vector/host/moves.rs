//! Moves between registers and memory.

use iced_x86::Mnemonic::*;

use super::{MEMORY, address, is_vex, run_xmm, run_ymm, shape};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::insn::{CodeCache, step, unit};
use crate::x86::simd::{Kind, Operand, SimdOp};

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

/// Whole registers to and from memory or another register; scalars to and from memory.
#[target_feature(enable = "avx2,fma")]
pub(super) fn lookup(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
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
