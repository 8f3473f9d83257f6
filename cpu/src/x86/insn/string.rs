//! String instructions with their repeat prefixes (SDM vol. 1, 5.1.8 and 7.3.9).
//!
//! A repeated instruction does at most what lies in the current pages of its operands and is then performed again,
//! so that interrupts fall in between; it is counted when it is over.

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::alu::{Operation, Sub};
use super::{Int, address_mask, sized, step};
use crate::bus::{PAGE_MASK, PAGE_SIZE};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op, REP, REPNE};
use crate::x86::fault::Stop;
use crate::x86::flags::bit;
use crate::x86::state::{gpr, sreg};

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    let bytes = ins.raw().memory_size().size();
    // MOVSD and CMPSD are also names of vector operations.
    if !ins.raw().is_string_instruction() {
        return None;
    }
    match ins.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => sized!(bytes, T, Some(string::<Movs, T>)),
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => sized!(bytes, T, Some(string::<Stos, T>)),
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => sized!(bytes, T, Some(string::<Lods, T>)),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => sized!(bytes, T, Some(string::<Cmps, T>)),
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => sized!(bytes, T, Some(string::<Scas, T>)),
        M::Insb | M::Insw | M::Insd => sized!(bytes, T, Some(string::<Ins_, T>)),
        M::Outsb | M::Outsw | M::Outsd => sized!(bytes, T, Some(string::<Outs, T>)),
        _ => None,
    }
}

/// One string instruction.
trait StringOp: 'static {
    /// It reads at SI.
    const SOURCE: bool;
    /// It uses DI, and writes there.
    const DESTINATION: Option<bool>;
    /// It sets flags, by which REPE and REPNE end.
    const COMPARES: bool = false;

    /// Checks what is checked before the first element.
    fn begin<T: Int>(core: &mut Core) -> Result<(), Stop> {
        let _ = core;
        Ok(())
    }

    /// Does one element at linear addresses `source` and `destination`.
    fn element<T: Int>(core: &mut Core, source: u64, destination: u64) -> Result<(), Stop>;

    /// How many of `count` elements upwards inside the pages at `source` and `destination` certainly do not end a
    /// comparison that ends when elements are equal (`until_equal`), or differ.
    fn passed<T: Int>(
        core: &Core,
        source: u64,
        destination: u64,
        count: u64,
        until_equal: bool,
    ) -> u64 {
        let _ = (core, source, destination, count, until_equal);
        0
    }

    /// Does `count` elements upwards inside the pages at `source` and `destination`, if that can be done at once.
    fn bulk<T: Int>(core: &mut Core, source: u64, destination: u64, count: u64) -> bool {
        let _ = (core, source, destination, count);
        false
    }
}

enum Movs {}
impl StringOp for Movs {
    const SOURCE: bool = true;
    const DESTINATION: Option<bool> = Some(true);

    #[inline(always)]
    fn element<T: Int>(core: &mut Core, source: u64, destination: u64) -> Result<(), Stop> {
        let value: T = core.load(source)?;
        core.store(destination, value)
    }

    fn bulk<T: Int>(core: &mut Core, source: u64, destination: u64, count: u64) -> bool {
        let (Some((from, _)), Some((to, _))) =
            (core.tlb.readable(source), core.tlb.writable(destination))
        else {
            return false;
        };
        from.copy_to(source, to, destination, count * T::BYTES, T::WIDTH);
        true
    }
}

/// Eight bytes of elements that are all the same: every width divides eight bytes.
#[inline(always)]
fn pattern<T: Int>(value: T) -> u64 {
    value.widen().wrapping_mul(u64::MAX / (u64::MAX >> (64 - T::BITS)))
}

enum Stos {}
impl StringOp for Stos {
    const SOURCE: bool = false;
    const DESTINATION: Option<bool> = Some(true);

    #[inline(always)]
    fn element<T: Int>(core: &mut Core, _: u64, destination: u64) -> Result<(), Stop> {
        let value = T::get(core, gpr::RAX);
        core.store(destination, value)
    }

    fn bulk<T: Int>(core: &mut Core, _: u64, destination: u64, count: u64) -> bool {
        let Some((to, _)) = core.tlb.writable(destination) else { return false };
        to.fill(destination, count * T::BYTES, pattern(T::get(core, gpr::RAX)));
        true
    }
}

enum Lods {}
impl StringOp for Lods {
    const SOURCE: bool = true;
    const DESTINATION: Option<bool> = None;

    #[inline(always)]
    fn element<T: Int>(core: &mut Core, source: u64, _: u64) -> Result<(), Stop> {
        let value: T = core.load(source)?;
        T::put(core, gpr::RAX, value);
        Ok(())
    }
}

fn compare<T: Int>(core: &mut Core, a: T, b: T) {
    let (a, b) = (a.widen(), b.widen());
    core.flags = Sub::flags(a, b, T::narrow(a.wrapping_sub(b)).sext(), T::BITS);
}

enum Cmps {}
impl StringOp for Cmps {
    const SOURCE: bool = true;
    const DESTINATION: Option<bool> = Some(false);
    const COMPARES: bool = true;

    #[inline(always)]
    fn element<T: Int>(core: &mut Core, source: u64, destination: u64) -> Result<(), Stop> {
        let a: T = core.load(source)?;
        let b: T = core.load(destination)?;
        compare(core, a, b);
        Ok(())
    }

    fn passed<T: Int>(
        core: &Core,
        source: u64,
        destination: u64,
        count: u64,
        until_equal: bool,
    ) -> u64 {
        let (Some((a, _)), Some((b, _))) =
            (core.tlb.readable(source), core.tlb.readable(destination))
        else {
            return 0;
        };
        let len = count * T::BYTES;
        a.passed(source, |at| b.load_any(destination + at), len, T::WIDTH, until_equal) / T::BYTES
    }
}

enum Scas {}
impl StringOp for Scas {
    const SOURCE: bool = false;
    const DESTINATION: Option<bool> = Some(false);
    const COMPARES: bool = true;

    #[inline(always)]
    fn element<T: Int>(core: &mut Core, _: u64, destination: u64) -> Result<(), Stop> {
        let b: T = core.load(destination)?;
        compare(core, T::get(core, gpr::RAX), b);
        Ok(())
    }

    fn passed<T: Int>(core: &Core, _: u64, destination: u64, count: u64, until_equal: bool) -> u64 {
        let Some((page, _)) = core.tlb.readable(destination) else { return 0 };
        let wanted = pattern(T::get(core, gpr::RAX));
        page.passed(destination, |_| wanted, count * T::BYTES, T::WIDTH, until_equal) / T::BYTES
    }
}

/// INS.
enum Ins_ {}
impl StringOp for Ins_ {
    const SOURCE: bool = false;
    const DESTINATION: Option<bool> = Some(true);

    fn begin<T: Int>(core: &mut Core) -> Result<(), Stop> {
        core.check_port(core.gpr(gpr::RDX) as u16, T::WIDTH)
    }

    fn element<T: Int>(core: &mut Core, _: u64, destination: u64) -> Result<(), Stop> {
        // The port is read only if its value can be stored.
        core.probe_write(destination, T::BYTES)?;
        let value = core.port_in(core.gpr(gpr::RDX) as u16, T::WIDTH);
        core.store(destination, T::narrow(value))
    }
}

enum Outs {}
impl StringOp for Outs {
    const SOURCE: bool = true;
    const DESTINATION: Option<bool> = None;

    fn begin<T: Int>(core: &mut Core) -> Result<(), Stop> {
        core.check_port(core.gpr(gpr::RDX) as u16, T::WIDTH)
    }

    fn element<T: Int>(core: &mut Core, source: u64, _: u64) -> Result<(), Stop> {
        let value: T = core.load(source)?;
        core.port_out(core.gpr(gpr::RDX) as u16, T::WIDTH, value.widen());
        Ok(())
    }
}

/// A register as an offset of the instruction's address size.
#[inline(always)]
fn offset(core: &Core, register: u8, op: &Op) -> u64 {
    core.gpr(register) & address_mask(op)
}

#[inline(always)]
fn set_offset(core: &mut Core, register: u8, op: &Op, value: u64) {
    let mask = address_mask(op);
    let kept = if mask == 0xffff { core.gpr(register) & !mask } else { 0 };
    core.set_gpr(register, kept | value & mask);
}

/// Elements of `bytes` bytes from `offset` on that lie inside its page, in the direction of the string.
#[inline(always)]
fn in_page(offset: u64, bytes: u64, down: bool) -> u64 {
    let at = offset & PAGE_MASK;
    let room = PAGE_SIZE - at;
    if down { if room < bytes { 0 } else { at / bytes + 1 } } else { room / bytes }
}

fn string<K: StringOp, T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, true, |core, op| {
        let repeated = op.prefix & (REP | REPNE) != 0;
        if !repeated {
            K::begin::<T>(core)?;
            return elements::<K, T>(core, op, 1).map(drop);
        }
        let count = offset(core, gpr::RCX, op);
        if count == 0 {
            return Ok(());
        }
        K::begin::<T>(core)?;
        let over = elements::<K, T>(core, op, count)?;
        if over {
            return Ok(());
        }
        // Performed again, after a look at interrupts.
        core.unfinished = true;
        core.iterated = true;
        Err(Stop)
    })
}

/// Does at most `count` elements, as far as they lie in the present pages. Whether the instruction is over.
fn elements<K: StringOp, T: Int>(core: &mut Core, op: &Op, count: u64) -> Result<bool, Stop> {
    let down = core.has_flag(bit::DF);
    let repeated = op.prefix & (REP | REPNE) != 0;
    let (si, di) = (offset(core, gpr::RSI, op), offset(core, gpr::RDI, op));
    let mut chunk = count;
    if K::SOURCE {
        let base = core.reach[usize::from(op.seg & 7)].base;
        chunk = chunk.min(in_page(base.wrapping_add(si), T::BYTES, down));
    }
    if K::DESTINATION.is_some() {
        let base = core.reach[usize::from(sreg::ES)].base;
        chunk = chunk.min(in_page(base.wrapping_add(di), T::BYTES, down));
    }
    // An element that crosses pages is done alone; and each, where single steps and breakpoints come in between.
    let chunk = if core.watches_elements() { 1 } else { chunk.max(1) };
    let mut done = 0;
    if !down
        && chunk > 1
        && let Some((source, destination)) = spans::<K, T>(core, op, si, di, chunk)
    {
        if K::COMPARES {
            // The last one is left, for its flags.
            let until_equal = op.prefix & REP == 0;
            done = K::passed::<T>(core, source, destination, chunk, until_equal).min(chunk - 1);
        } else if K::bulk::<T>(core, source, destination, chunk) {
            done = chunk;
        }
        let bytes = done * T::BYTES;
        if K::SOURCE {
            set_offset(core, gpr::RSI, op, si.wrapping_add(bytes));
        }
        if K::DESTINATION.is_some() {
            set_offset(core, gpr::RDI, op, di.wrapping_add(bytes));
        }
        set_offset(core, gpr::RCX, op, count - done);
    }
    let delta = if down { T::BYTES.wrapping_neg() } else { T::BYTES };
    let mut left = count - done;
    for _ in done..chunk {
        one::<K, T>(core, op)?;
        if K::SOURCE {
            let next = offset(core, gpr::RSI, op).wrapping_add(delta);
            set_offset(core, gpr::RSI, op, next);
        }
        if K::DESTINATION.is_some() {
            let next = offset(core, gpr::RDI, op).wrapping_add(delta);
            set_offset(core, gpr::RDI, op, next);
        }
        if !repeated {
            return Ok(true);
        }
        left -= 1;
        set_offset(core, gpr::RCX, op, left);
        if K::COMPARES && core.flags.zf() != (op.prefix & REP != 0) {
            return Ok(true);
        }
        if core.leave {
            break;
        }
    }
    Ok(left == 0)
}

/// Does the element at SI and DI.
#[inline(always)]
fn one<K: StringOp, T: Int>(core: &mut Core, op: &Op) -> Result<(), Stop> {
    let source = if K::SOURCE {
        core.linear(op.seg, offset(core, gpr::RSI, op), T::BYTES, false)?
    } else {
        0
    };
    let destination = match K::DESTINATION {
        Some(write) => {
            let at = offset(core, gpr::RDI, op);
            let Ok(lin) = core.linear(sreg::ES, at, T::BYTES, write) else {
                // ES it was, whatever the source's segment is.
                core.by_segment = false;
                return Err(Stop);
            };
            lin
        }
        None => 0,
    };
    K::element::<T>(core, source, destination)
}

/// The linear addresses of `count` elements upwards at SI and DI, if they are inside their segments and need no look each.
#[inline(always)]
fn spans<K: StringOp, T: Int>(
    core: &Core,
    op: &Op,
    si: u64,
    di: u64,
    count: u64,
) -> Option<(u64, u64)> {
    let bytes = count * T::BYTES;
    // An offset that wraps round, or leaves its segment, is met element by element.
    let fits = |at: u64| at.checked_add(bytes - 1).is_some_and(|last| last <= address_mask(op));
    let lin = |seg: u8, at: u64, write: bool| {
        let reach = &core.reach[usize::from(seg & 7)];
        let span = if write { reach.write } else { reach.read };
        let from = at.wrapping_sub(reach.first);
        let inside = fits(at) && from < span && span - from >= bytes;
        inside.then_some(at.wrapping_add(reach.base) & core.lin_mask)
    };
    let source = if K::SOURCE { lin(op.seg, si, false)? } else { 0 };
    let destination = match K::DESTINATION {
        Some(write) => lin(sreg::ES, di, write)?,
        None => 0,
    };
    let misaligned = core.aligned && (source | destination) & (T::BYTES - 1) != 0;
    (!misaligned).then_some((source, destination))
}
