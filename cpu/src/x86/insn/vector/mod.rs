//! MMX, SSE and AVX (SDM vol. 1, 5.4 to 5.16): where operands of [`crate::x86::simd`]'s operations come from and go
//! to, #UD, #NM, #MF and #XM.
//!
//! Operations on vector registers, of which the last source can be memory, have functions of their own (`fast`,
//! `store`); the others are performed by `general`, as the table's entry says.

mod elements;
#[cfg(target_arch = "x86_64")]
mod host;

use iced_x86::{EncodingKind, Mnemonic as M};

use super::CodeCache;
use super::{Addr, Dst, Flat, Int, Mem, R1, R2, R3, Segmented, Src, sized_word, step, unit};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::Stop;
use crate::x86::flags::Lazy;
use crate::x86::simd::{
    self, Kind, Lengths, Mxcsr, Operand, Run, SimdOp, V256, crc32, pcmpstri, pcmpstrm,
};
use crate::x86::state::gpr;

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    Some(match ins.mnemonic() {
        M::Emms => emms,
        M::Ldmxcsr => load_mxcsr::<{ unit::SSE }>,
        M::Vldmxcsr => load_mxcsr::<{ unit::AVX }>,
        M::Stmxcsr => store_mxcsr::<{ unit::SSE }>,
        M::Vstmxcsr => store_mxcsr::<{ unit::AVX }>,
        M::Vzeroall => zero::<true>,
        M::Vzeroupper => zero::<false>,
        M::Movnti => return sized_word!(ins.bytes(0), T, Some(store_around::<T>)),
        _ => {
            let entry = simd::lookup(ins.code(), ins.has_memory())?;
            return by_host(ins, entry)
                .or_else(|| fast_load(ins, entry))
                .or_else(|| fast_store(ins, entry))
                .or_else(|| by_need(ins, entry));
        }
    })
}

/// The function by which the host performs an instruction.
#[cfg(target_arch = "x86_64")]
fn by_host(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    host::lookup(ins, entry)
}

#[cfg(not(target_arch = "x86_64"))]
fn by_host(_: &Ins, _: &SimdOp) -> Option<Handler> {
    None
}

fn is_vex(ins: &Ins) -> bool {
    ins.code().op_code().encoding() == EncodingKind::VEX
}

fn emms(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        core.need(unit::MMX)?;
        core.cpu.x87.emms();
        Ok(())
    })
}

fn load_mxcsr<const NEED: u8>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        core.need(NEED)?;
        let bits = <Mem<Segmented> as Src<u32>>::get(core, op)?;
        match Mxcsr::from_bits(bits) {
            Some(mxcsr) => core.cpu.mxcsr = mxcsr,
            None => return Err(core.gp(0)),
        }
        Ok(())
    })
}

fn store_mxcsr<const NEED: u8>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        core.need(NEED)?;
        <Mem<Segmented> as Dst<u32>>::put(core, op, core.cpu.mxcsr.bits())
    })
}

/// VZEROALL and VZEROUPPER: of the registers that the mode has.
fn zero<const ALL: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        core.need(unit::AVX)?;
        let count = if core.wide() { 16 } else { 8 };
        for register in &mut core.cpu.ymm[..count] {
            if ALL {
                *register = V256::default();
            } else {
                register.zero_upper();
            }
        }
        Ok(())
    })
}

/// MOVNTI.
fn store_around<T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let value = <R2 as Src<T>>::get(core, op)?;
        <Mem<Segmented> as Dst<T>>::put(core, op, value)
    })
}

/// #GP(0) unless `lin` is aligned.
#[inline(always)]
fn aligned(core: &mut Core, lin: u64, align: u8) -> Result<u64, Stop> {
    if lin & u64::from(align).wrapping_sub(1) == 0 { Ok(lin) } else { Err(core.gp(0)) }
}

/// Where the last source of a fast operation comes from.
trait Source: 'static {
    const MEMORY: bool;
    fn get(core: &mut Core, op: &Op, align: u8) -> Result<V256, Stop>;
}

/// No source.
enum Nothing {}
/// Memory of some bytes.
struct Memory<A, const BYTES: u64>(std::marker::PhantomData<A>);

impl Source for Nothing {
    const MEMORY: bool = false;
    #[inline(always)]
    fn get(_: &mut Core, _: &Op, _: u8) -> Result<V256, Stop> {
        Ok(V256::default())
    }
}

macro_rules! register_source {
    ($name:ident, $field:ident) => {
        impl Source for $name {
            const MEMORY: bool = false;
            #[inline(always)]
            fn get(core: &mut Core, op: &Op, _: u8) -> Result<V256, Stop> {
                Ok(vector(core, op.$field))
            }
        }
    };
}
register_source!(R1, r1);
register_source!(R2, r2);
register_source!(R3, r3);

impl<A: Addr, const BYTES: u64> Source for Memory<A, BYTES> {
    const MEMORY: bool = true;
    #[inline(always)]
    fn get(core: &mut Core, op: &Op, align: u8) -> Result<V256, Stop> {
        let lin = A::lin(core, op, BYTES, false)?;
        let lin = aligned(core, lin, align)?;
        load::<BYTES>(core, lin)
    }
}

#[inline(always)]
fn load<const BYTES: u64>(core: &mut Core, lin: u64) -> Result<V256, Stop> {
    Ok(match BYTES {
        4 => V256::from_u64(core.load::<u32>(lin)?.into()),
        8 => V256::from_u64(core.load(lin)?),
        16 => {
            let [a, b] = core.load_words(lin)?;
            V256([a, b, 0, 0])
        }
        _ => V256(core.load_words(lin)?),
    })
}

#[inline(always)]
fn vector(core: &Core, number: u8) -> V256 {
    core.cpu.ymm[usize::from(number & 15)]
}

/// The table's entry of an instruction.
#[inline(always)]
fn entry(core: &mut Core, op: &Op) -> Result<&'static SimdOp, Stop> {
    match core.vector_ops.get(usize::from(op.simd)) {
        Some(entry) => Ok(entry),
        None => Err(core.ud()),
    }
}

/// An operation on vector registers, by MXCSR (`FP`) or not. `A`: its first source is the destination or, with `VEX`,
/// the second operand.
fn fast<const FP: bool, const VEX: bool, const YMM: bool, const A: bool, B: Source>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, B::MEMORY, |core, op| {
        core.need(if VEX { unit::AVX } else { unit::SSE })?;
        let entry = entry(core, op)?;
        let b = B::get(core, op, entry.align)?;
        let imm = op.imm as u8;
        let to = usize::from(op.r1 & 15);
        let mut a = match (VEX, A) {
            (true, true) => vector(core, op.r2),
            (true, false) => V256::default(),
            (false, _) => vector(core, op.r1),
        };
        match entry.run {
            Run::Int(f) if !FP => f(&mut a, &b, imm),
            Run::Fp(f) if FP => {
                let raised = f(core.cpu.mxcsr, &mut a, &b, imm);
                core.accrue(raised)?;
            }
            _ => return Err(core.ud()),
        }
        if VEX && !YMM {
            a.zero_upper();
        }
        core.cpu.ymm[to] = a;
        Ok(())
    })
}

/// The function of an operation on vector registers.
fn fast_load(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    fn of<const FP: bool, const VEX: bool, const YMM: bool, const A: bool>(
        ins: &Ins,
        entry: &SimdOp,
    ) -> Option<Handler> {
        macro_rules! memory {
            ($bytes:literal) => {
                if ins.flat {
                    fast::<FP, VEX, YMM, A, Memory<Flat, $bytes>>
                } else {
                    fast::<FP, VEX, YMM, A, Memory<Segmented, $bytes>>
                }
            };
        }
        Some(match (entry.b.kind, entry.b.number, entry.memory) {
            (Kind::None, ..) => fast::<FP, VEX, YMM, A, Nothing>,
            (Kind::Vector, 0, _) => fast::<FP, VEX, YMM, A, R1>,
            (Kind::Vector, 1, _) => fast::<FP, VEX, YMM, A, R2>,
            (Kind::Vector, 2, _) => fast::<FP, VEX, YMM, A, R3>,
            (Kind::Memory, _, 4) => memory!(4),
            (Kind::Memory, _, 8) => memory!(8),
            (Kind::Memory, _, 16) => memory!(16),
            (Kind::Memory, _, 32) => memory!(32),
            _ => return None,
        })
    }
    fn by_a<const FP: bool, const VEX: bool, const YMM: bool>(
        ins: &Ins,
        entry: &SimdOp,
    ) -> Option<Handler> {
        match (entry.a.kind, entry.a.number) {
            (Kind::None, _) => of::<FP, VEX, YMM, false>(ins, entry),
            (Kind::Vector, number) if number == u8::from(VEX) => {
                of::<FP, VEX, YMM, true>(ins, entry)
            }
            _ => None,
        }
    }
    fn by_form<const FP: bool>(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
        match (is_vex(ins), entry.width) {
            (false, 16) => by_a::<FP, false, false>(ins, entry),
            (true, 16) => by_a::<FP, true, false>(ins, entry),
            (true, 32) => by_a::<FP, true, true>(ins, entry),
            _ => None,
        }
    }
    let plain = entry.dst.kind == Kind::Vector
        && entry.dst.number == 0
        && entry.c.kind == Kind::None
        && needs(ins, entry) & unit::MMX == 0;
    match entry.run {
        Run::Int(_) if plain => by_form::<false>(ins, entry),
        Run::Fp(_) if plain => by_form::<true>(ins, entry),
        _ => None,
    }
}

/// A store of a vector register.
fn store<const NEED: u8, A: Addr, const BYTES: u64>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, true, |core, op| {
        core.need(NEED)?;
        let entry = entry(core, op)?;
        let lin = A::lin(core, op, BYTES, true)?;
        let lin = aligned(core, lin, entry.align)?;
        let Run::Int(f) = entry.run else { return Err(core.ud()) };
        let mut a = V256::default();
        f(&mut a, &vector(core, op.r2), op.imm as u8);
        write_memory(core, lin, &a, BYTES as u8)
    })
}

/// The function of a store.
fn fast_store(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    fn of<const NEED: u8, const BYTES: u64>(ins: &Ins) -> Handler {
        if ins.flat { store::<NEED, Flat, BYTES> } else { store::<NEED, Segmented, BYTES> }
    }
    let plain = entry.dst == Operand { kind: Kind::Memory, number: 0 }
        && entry.a.kind == Kind::None
        && entry.b == Operand { kind: Kind::Vector, number: 1 };
    let Run::Int(_) = entry.run else { return None };
    Some(match (is_vex(ins), entry.memory) {
        _ if !plain => return None,
        (false, 4) => of::<{ unit::SSE }, 4>(ins),
        (false, 8) => of::<{ unit::SSE }, 8>(ins),
        (false, 16) => of::<{ unit::SSE }, 16>(ins),
        (true, 4) => of::<{ unit::AVX }, 4>(ins),
        (true, 8) => of::<{ unit::AVX }, 8>(ins),
        (true, 16) => of::<{ unit::AVX }, 16>(ins),
        (true, 32) => of::<{ unit::AVX }, 32>(ins),
        _ => return None,
    })
}

const MMX_AND_SSE: u8 = unit::MMX | unit::SSE;

/// Which of [`unit`] an instruction needs.
fn needs(ins: &Ins, entry: &SimdOp) -> u8 {
    let any = |kind| [entry.dst, entry.a, entry.b, entry.c].iter().any(|o| o.kind == kind);
    // CVTPI2PD from memory has nothing to do with MMX (SDM vol. 2); CVTPI2PS, where the manual says otherwise, neither
    // on AMD's processors.
    let mmx = any(Kind::Mm);
    match entry.run {
        Run::Crc32(_) => 0,
        _ if is_vex(ins) => unit::AVX,
        _ if mmx && any(Kind::Vector) => MMX_AND_SSE,
        _ if mmx => unit::MMX,
        _ => unit::SSE,
    }
}

/// The general function for what an instruction needs.
fn by_need(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    Some(match needs(ins, entry) {
        0 => general::<0>,
        unit::AVX => general::<{ unit::AVX }>,
        unit::SSE => general::<{ unit::SSE }>,
        unit::MMX => general::<{ unit::MMX }>,
        MMX_AND_SSE => general::<MMX_AND_SSE>,
        _ => return None,
    })
}

/// Any operation.
fn general<const NEED: u8>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        core.need(NEED)?;
        let entry = entry(core, op)?;
        perform(core, op, entry, NEED & unit::AVX != 0)?;
        if NEED & unit::MMX != 0 {
            core.cpu.x87.mmx_enter();
        }
        Ok(())
    })
}

fn perform(core: &mut Core, op: &Op, entry: &SimdOp, vex: bool) -> Result<(), Stop> {
    let imm = op.imm as u8;
    match entry.run {
        Run::MaskedLoad(size) => return elements::masked_load(core, op, entry, size),
        Run::MaskedStore(size) => return elements::masked_store(core, op, entry, size),
        Run::Gather { element, index, count } => {
            return elements::gather(core, op, entry, elements::Elements { element, index, count });
        }
        _ => {}
    }
    let mut a = read(core, op, entry, entry.a)?;
    let b = read(core, op, entry, entry.b)?;
    match entry.run {
        Run::Int(f) => f(&mut a, &b, imm),
        Run::Int3(f) => f(&mut a, &b, &read(core, op, entry, entry.c)?),
        Run::Fp(f) => {
            let raised = f(core.cpu.mxcsr, &mut a, &b, imm);
            core.accrue(raised)?;
        }
        Run::Fp3(f) => {
            let c = read(core, op, entry, entry.c)?;
            let raised = f(core.cpu.mxcsr, &mut a, &b, &c);
            core.accrue(raised)?;
        }
        Run::Flags(f) => {
            let (flags, raised) = f(core.cpu.mxcsr, &a, &b);
            core.accrue(raised)?;
            core.flags = Lazy::from_bits(flags.into());
            return Ok(());
        }
        Run::StringIndex(lengths) => {
            let (index, flags) = pcmpstri(&a, &b, imm, explicit(core, lengths));
            core.set_gpr(gpr::RCX, index.into());
            core.flags = Lazy::from_bits(flags.into());
            return Ok(());
        }
        Run::StringMask(lengths) => {
            let (mask, flags) = pcmpstrm(&a, &b, imm, explicit(core, lengths));
            let xmm0 = &mut core.cpu.ymm[0].0;
            xmm0[..2].copy_from_slice(&mask.0[..2]);
            if vex {
                core.cpu.ymm[0].zero_upper();
            }
            core.flags = Lazy::from_bits(flags.into());
            return Ok(());
        }
        Run::Crc32(bytes) => {
            a = V256::from_u64(crc32(a.0[0] as u32, b.0[0], bytes).into());
        }
        Run::MaskedLoad(_) | Run::MaskedStore(_) | Run::Gather { .. } => return Err(core.ud()),
    }
    write(core, op, entry, &a)
}

fn explicit(core: &Core, lengths: Lengths) -> Option<[i64; 2]> {
    let both = [core.gpr(gpr::RAX), core.gpr(gpr::RDX)];
    match lengths {
        Lengths::Implicit => None,
        Lengths::Explicit32 => Some(both.map(|length| i64::from(length as i32))),
        Lengths::Explicit64 => Some(both.map(|length| length as i64)),
    }
}

/// The register that is an operand.
#[inline(always)]
fn number(op: &Op, operand: Operand) -> u8 {
    match operand.number {
        0 => op.r1,
        1 => op.r2,
        2 => op.r3,
        _ => op.r4,
    }
}

/// The linear address of a memory operand.
fn address(core: &mut Core, op: &Op, entry: &SimdOp, write: bool) -> Result<u64, Stop> {
    let lin = Segmented::lin(core, op, entry.memory.into(), write)?;
    aligned(core, lin, entry.align)
}

#[inline(always)]
fn read(core: &mut Core, op: &Op, entry: &SimdOp, operand: Operand) -> Result<V256, Stop> {
    let n = number(op, operand);
    Ok(match operand.kind {
        Kind::None => V256::default(),
        Kind::Mm => V256::from_u64(core.cpu.x87.mm(n)),
        Kind::Vector => vector(core, n),
        Kind::Xmm0 => vector(core, 0),
        Kind::Gpr8 => V256::from_u64(u8::get(core, n).into()),
        Kind::Gpr16 => V256::from_u64(u16::get(core, n).into()),
        Kind::Gpr32 => V256::from_u64(u32::get(core, n).into()),
        Kind::Gpr64 => V256::from_u64(core.gpr(n)),
        Kind::Memory => {
            let lin = address(core, op, entry, false)?;
            match entry.memory {
                1 => V256::from_u64(core.load::<u8>(lin)?.into()),
                2 => V256::from_u64(core.load::<u16>(lin)?.into()),
                4 => load::<4>(core, lin)?,
                8 => load::<8>(core, lin)?,
                16 => load::<16>(core, lin)?,
                _ => load::<32>(core, lin)?,
            }
        }
    })
}

fn write(core: &mut Core, op: &Op, entry: &SimdOp, value: &V256) -> Result<(), Stop> {
    let n = number(op, entry.dst);
    match entry.dst.kind {
        Kind::None => {}
        Kind::Mm => core.cpu.x87.set_mm(n, value.0[0]),
        Kind::Vector | Kind::Xmm0 => {
            let to = &mut core.cpu.ymm[usize::from(n & 15)];
            let words = usize::from(entry.width / 8);
            to.0[..words].copy_from_slice(&value.0[..words]);
            if entry.zero_upper {
                to.zero_upper();
            }
        }
        Kind::Gpr8 => u8::put(core, n, value.0[0] as u8),
        Kind::Gpr16 => u16::put(core, n, value.0[0] as u16),
        Kind::Gpr32 => u32::put(core, n, value.0[0] as u32),
        Kind::Gpr64 => core.set_gpr(n, value.0[0]),
        Kind::Memory => {
            let lin = address(core, op, entry, true)?;
            return write_memory(core, lin, value, entry.memory);
        }
    }
    Ok(())
}

#[inline(always)]
fn write_memory(core: &mut Core, lin: u64, value: &V256, bytes: u8) -> Result<(), Stop> {
    let low = value.0[0];
    match bytes {
        1 => core.store(lin, low as u8),
        2 => core.store(lin, low as u16),
        4 => core.store(lin, low as u32),
        8 => core.store(lin, low),
        16 => core.store_words(lin, &value.0[..2]),
        _ => core.store_words(lin, &value.0),
    }
}
