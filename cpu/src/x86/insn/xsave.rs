//! FXSAVE and XSAVE, and what they save at all (SDM vol. 1, 10.5 and chapter 13).

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::{address_mask, effective, step, unit};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::{Fault, Stop, vector};
use crate::x86::model::{feature, xsave, xsave_len};
use crate::x86::simd::{Mxcsr, V256};
use crate::x86::state::{cr0, cr4, gpr, xcr0};
use crate::x86::x87;

/// The legacy region: x87 and SSE.
const LEGACY: usize = 512;
/// The unit's part of it.
const X87: usize = 160;
const MXCSR: usize = 24;
/// Where the XMM registers are.
const XMM: usize = 160;
/// The header, which tells what is there.
const HEADER: usize = 512;
/// Where the upper halves of the YMM registers are, in the standard format and in the compacted one.
const AVX: usize = xsave::AVX;
/// Bytes of all that.
const AREA: usize = AVX + 256;
/// XCOMP_BV: the area is in the compacted format.
const COMPACTED: u64 = 1 << 63;

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    Some(match ins.mnemonic() {
        M::Fxsave => fxsave::<false>,
        M::Fxsave64 => fxsave::<true>,
        M::Fxrstor => fxrstor::<false>,
        M::Fxrstor64 => fxrstor::<true>,
        M::Xsave => save::<PLAIN, false>,
        M::Xsave64 => save::<PLAIN, true>,
        M::Xsaveopt => save::<OPTIMISED, false>,
        M::Xsaveopt64 => save::<OPTIMISED, true>,
        M::Xsavec => save::<COMPACT, false>,
        M::Xsavec64 => save::<COMPACT, true>,
        M::Xrstor => restore::<false>,
        M::Xrstor64 => restore::<true>,
        M::Xgetbv => xgetbv,
        M::Xsetbv => xsetbv,
        _ => return None,
    })
}

/// The linear address of an area, aligned.
fn area(core: &mut Core, op: &Op, len: usize, align: u64, write: bool) -> Result<u64, Stop> {
    let offset = effective(core, op);
    let lin = core.linear_unaligned(op.seg, offset, len as u64, write)?;
    if lin & (align - 1) == 0 { Ok(lin) } else { Err(core.gp(0)) }
}

/// XMM and YMM registers that the mode has.
fn registers(core: &Core) -> usize {
    if core.wide() { 16 } else { 8 }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn put_x87(x87: &x87::State, wide: bool, bytes: &mut [u8]) {
    let mut image = [0; X87];
    x87.fxsave(wide, &mut image);
    bytes[..MXCSR].copy_from_slice(&image[..MXCSR]);
    bytes[MXCSR + 8..X87].copy_from_slice(&image[MXCSR + 8..]);
}

fn get_x87(x87: &mut x87::State, wide: bool, bytes: &[u8]) {
    let mut image = [0; X87];
    image.copy_from_slice(&bytes[..X87]);
    x87.fxrstor(wide, &image);
}

fn put_mxcsr(mxcsr: Mxcsr, bytes: &mut [u8]) {
    bytes[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.bits().to_le_bytes());
    bytes[MXCSR + 4..MXCSR + 8].copy_from_slice(&Mxcsr::MASK.to_le_bytes());
}

/// MXCSR in an area; #GP(0) for reserved bits.
fn mxcsr(core: &mut Core, bytes: &[u8]) -> Result<Mxcsr, Stop> {
    Mxcsr::from_bits(word(bytes, MXCSR) as u32).ok_or_else(|| core.gp(0))
}

/// Copies halves of the registers to an area: the lower ones (0) or the upper ones (2).
fn put_halves(ymm: &[V256], half: usize, bytes: &mut [u8]) {
    for (register, to) in ymm.iter().zip(bytes.chunks_exact_mut(16)) {
        to.copy_from_slice(&register.bytes()[8 * half..8 * half + 16]);
    }
}

fn get_halves(ymm: &mut [V256], half: usize, bytes: &[u8]) {
    for (register, from) in ymm.iter_mut().zip(bytes.chunks_exact(16)) {
        register.bytes_mut()[8 * half..8 * half + 16].copy_from_slice(from);
    }
}

fn fxsave<const WIDE: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        core.need(unit::X87)?;
        let lin = area(core, op, LEGACY, 16, true)?;
        let count = registers(core);
        let mut bytes = [0; LEGACY];
        put_x87(&core.cpu.x87, WIDE, &mut bytes);
        put_mxcsr(core.cpu.mxcsr, &mut bytes);
        put_halves(&core.cpu.ymm[..count], 0, &mut bytes[XMM..]);
        core.store_bytes(lin, &bytes[..XMM + 16 * count])
    })
}

fn fxrstor<const WIDE: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        core.need(unit::X87)?;
        let lin = area(core, op, LEGACY, 16, false)?;
        let count = registers(core);
        let mut bytes = [0; LEGACY];
        core.load_bytes(lin, &mut bytes)?;
        core.cpu.mxcsr = mxcsr(core, &bytes)?;
        get_x87(&mut core.cpu.x87, WIDE, &bytes);
        get_halves(&mut core.cpu.ymm[..count], 0, &bytes[XMM..]);
        Ok(())
    })
}

/// XSAVE.
const PLAIN: u8 = 0;
/// XSAVEOPT: components in their initial configuration are not written.
const OPTIMISED: u8 = 1;
/// XSAVEC: the same, in the compacted format.
const COMPACT: u8 = 2;

/// #UD unless CR4.OSXSAVE is set.
fn need_osxsave(core: &mut Core) -> Result<(), Stop> {
    if core.cpu.cr4 & cr4::OSXSAVE != 0 { Ok(()) } else { Err(core.ud()) }
}

/// What XSAVE and XRSTOR check first. The components that they are asked for.
fn requested(core: &mut Core) -> Result<u64, Stop> {
    need_osxsave(core)?;
    if core.cpu.cr0 & cr0::TS != 0 {
        return Err(core.raise(Fault::new(vector::NM)));
    }
    let mask = core.gpr(gpr::RDX) << 32 | core.gpr(gpr::RAX) & 0xffff_ffff;
    Ok(mask & core.cpu.xcr0)
}

/// XINUSE: the components that are not in their initial configuration.
fn in_use(core: &Core) -> u64 {
    let ymm = &core.cpu.ymm[..registers(core)];
    let any = |half: usize| ymm.iter().any(|register| register.0[half..half + 2] != [0, 0]);
    let bit = |set, bit| if set { bit } else { 0 };
    bit(!core.cpu.x87.is_initial(), xcr0::X87)
        | bit(any(0), xcr0::SSE)
        | bit(any(2), xcr0::AVX)
        | bit(core.cpu.pkru != 0, xcr0::PKRU)
}

/// Bytes of an area for components, without PKRU, which has its own place.
fn area_len(components: u64) -> usize {
    xsave_len(components & !xcr0::PKRU, false)
}

/// The linear address of PKRU in the area of `op`, whose format has `components`.
fn pkru_place(core: &mut Core, op: &Op, components: u64, compacted: bool) -> Result<u64, Stop> {
    let at = xsave_len(components | xcr0::PKRU, compacted) as u64 - 8;
    let offset = effective(core, op).wrapping_add(at) & address_mask(op);
    core.linear_unaligned(op.seg, offset, 8, false)
}

fn save<const KIND: u8, const WIDE: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let asked = requested(core)?;
        let lin = area(core, op, area_len(asked), 64, true)?;
        core.probe_write(lin, area_len(asked) as u64)?;
        if asked & xcr0::PKRU != 0 {
            let place = pkru_place(core, op, asked, KIND == COMPACT)?;
            core.probe_write(place, 8)?;
        }
        let mut used = in_use(core);
        if KIND == COMPACT && core.cpu.mxcsr.bits() != Mxcsr::RESET {
            used |= xcr0::SSE;
        }
        let saved = if KIND == PLAIN { asked } else { asked & used };
        let with_mxcsr = match KIND {
            COMPACT => saved & xcr0::SSE != 0,
            _ => asked & (xcr0::SSE | xcr0::AVX) != 0,
        };
        let mut bytes = [0; AREA];
        let count = registers(core);
        put_x87(&core.cpu.x87, WIDE, &mut bytes);
        put_mxcsr(core.cpu.mxcsr, &mut bytes);
        put_halves(&core.cpu.ymm[..count], 0, &mut bytes[XMM..]);
        put_halves(&core.cpu.ymm[..count], 2, &mut bytes[AVX..]);
        let mut put =
            |at: usize, end: usize| core.store_bytes(lin.wrapping_add(at as u64), &bytes[at..end]);
        if saved & xcr0::X87 != 0 {
            put(0, MXCSR)?;
            put(MXCSR + 8, X87)?;
        }
        if with_mxcsr {
            put(MXCSR, MXCSR + 8)?;
        }
        if saved & xcr0::SSE != 0 {
            put(XMM, XMM + 16 * count)?;
        }
        if saved & xcr0::AVX != 0 {
            put(AVX, AVX + 16 * count)?;
        }
        if saved & xcr0::PKRU != 0 {
            let place = pkru_place(core, op, asked, KIND == COMPACT)?;
            core.store(place, u64::from(core.cpu.pkru))?;
        }
        let header = lin.wrapping_add(HEADER as u64);
        if KIND == COMPACT {
            core.store(header, saved)?;
            core.store(header.wrapping_add(8), asked | COMPACTED)
        } else {
            let old: u64 = core.load(header)?;
            core.store(header, old & !asked | used & asked)
        }
    })
}

fn restore<const WIDE: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let asked = requested(core)?;
        let lin = area(core, op, area_len(asked), 64, false)?;
        let mut bytes = [0; AREA];
        core.load_bytes(lin, &mut bytes[..area_len(asked)])?;
        let (present, layout) = (word(&bytes, HEADER), word(&bytes, HEADER + 8));
        let compacted = layout & COMPACTED != 0 && core.cpu.model.has(feature::XSAVEC);
        let components = if compacted { layout & !COMPACTED } else { core.cpu.xcr0 };
        // Standard format: bytes 8 to 23 of the header are zero; compacted: 16 to 63.
        let reserved = if compacted { HEADER + 16..AVX } else { HEADER + 8..HEADER + 24 };
        let bad = components & !core.cpu.xcr0 != 0
            || present & !components != 0
            || bytes[reserved].iter().any(|byte| *byte != 0);
        if bad {
            return Err(core.gp(0));
        }
        let pkru = if asked & present & xcr0::PKRU != 0 {
            let place = pkru_place(core, op, components, compacted)?;
            core.load::<u64>(place)? as u32
        } else {
            0
        };
        let loads_mxcsr = if compacted {
            asked & present & xcr0::SSE != 0
        } else {
            asked & (xcr0::SSE | xcr0::AVX) != 0
        };
        if loads_mxcsr {
            core.cpu.mxcsr = mxcsr(core, &bytes)?;
        } else if compacted && asked & xcr0::SSE != 0 {
            core.cpu.mxcsr = Mxcsr::default();
        }
        let count = registers(core);
        let ymm = &mut core.cpu.ymm[..count];
        let from = |component: u64, at: usize| {
            if present & component != 0 { &bytes[at..] } else { &[0; 16 * 16][..] }
        };
        if asked & xcr0::SSE != 0 {
            get_halves(ymm, 0, from(xcr0::SSE, XMM));
        }
        if asked & xcr0::AVX != 0 {
            get_halves(ymm, 2, from(xcr0::AVX, AVX));
        }
        if asked & present & xcr0::X87 != 0 {
            get_x87(&mut core.cpu.x87, WIDE, &bytes);
        } else if asked & xcr0::X87 != 0 {
            core.cpu.x87 = x87::State::default();
        }
        if asked & xcr0::PKRU != 0 {
            core.set_pkru(pkru);
        }
        Ok(())
    })
}

fn xgetbv(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        need_osxsave(core)?;
        let value = match core.gpr(gpr::RCX) as u32 {
            0 => core.cpu.xcr0,
            1 if core.cpu.model.has(feature::XGETBV1) => core.cpu.xcr0 & in_use(core),
            _ => return Err(core.gp(0)),
        };
        core.set_gpr(gpr::RAX, value & 0xffff_ffff);
        core.set_gpr(gpr::RDX, value >> 32);
        Ok(())
    })
}

fn xsetbv(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        need_osxsave(core)?;
        core.need_cpl0()?;
        let value = core.gpr(gpr::RDX) << 32 | core.gpr(gpr::RAX) & 0xffff_ffff;
        let known = core.cpu.model.components();
        let bad = core.gpr(gpr::RCX) as u32 != 0
            || value & !known != 0
            || value & xcr0::X87 == 0
            || value & (xcr0::SSE | xcr0::AVX) == xcr0::AVX;
        if bad {
            return Err(core.gp(0));
        }
        core.cpu.xcr0 = value;
        core.units_changed();
        Ok(())
    })
}
