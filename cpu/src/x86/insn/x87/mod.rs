//! x87 (SDM vol. 1, 5.2): where operands of [`crate::x86::x87`]'s operations come from and go to, #NM and #MF.
//!
//! This file has what instructions have in common; the others have their groups.

use super::CodeCache;
use super::{Addr, Flat, Int, Segmented, effective, step, unit, usually};
use crate::x86::core::{Core, ZERO};
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::Stop;
use crate::x86::state::sreg;
use crate::x86::x87::{State, Store};

/// A handler from what it does.
macro_rules! handler {
    ($f:expr) => {
        Some(|core: &mut Core, ops: &[Op], code: &CodeCache| step(core, ops, code, true, $f))
    };
}
/// A handler from what it does, and from a short way to that: [`usually`].
macro_rules! usual_handler {
    ($usual:expr, $f:expr) => {{
        #[cold]
        fn complete(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
            step(core, ops, code, true, $f)
        }
        Some(|core: &mut Core, ops: &[Op], code: &CodeCache| {
            usually(core, ops, code, $usual, complete)
        })
    }};
}
/// A handler of an operation on registers.
macro_rules! registers {
    ($f:expr) => {
        handler!(|core, op| on_registers(core, op, $f))
    };
    ($usual:expr, $f:expr) => {
        usual_handler!(
            |core, op| {
                usual_begin(core)?;
                let f: fn(&mut State, &Op) -> bool = $usual;
                f(&mut core.cpu.x87, op).then(|| note(core, op))
            },
            |core, op| on_registers(core, op, $f)
        )
    };
}
/// A handler of an operation that reads an operand of a type.
macro_rules! load {
    ($t:ty, $f:expr) => {
        handler!(|core, op| on_loaded::<$t>(core, op, $f))
    };
    ($ins:ident, $t:ty, $usual:expr, $f:expr) => {
        if $ins.flat { load!(usual Flat, $t, $usual, $f) } else { load!(usual Segmented, $t, $usual, $f) }
    };
    (usual $addr:ident, $t:ty, $usual:expr, $f:expr) => {
        usual_handler!(
            |core, op| {
                usual_begin(core)?;
                let lin = $addr::usual_lin(core, op, <$t as Int>::BYTES, false)?;
                let value: $t = core.tlb.load_any(lin)?;
                let f: fn(&mut State, $t) -> bool = $usual;
                f(&mut core.cpu.x87, value).then(|| {
                    note(core, op);
                    note_memory(core, op);
                })
            },
            |core, op| on_loaded::<$t>(core, op, $f)
        )
    };
}
/// A handler of an operation that writes an operand of a type, and pops or not.
macro_rules! store {
    ($t:ty, $pop:literal, $f:expr) => {
        handler!(store!(complete $t, $pop, $f))
    };
    ($ins:ident, $t:ty, $pop:literal, $usual:expr, $f:expr) => {
        if $ins.flat {
            store!(usual Flat, $t, $pop, $usual, $f)
        } else {
            store!(usual Segmented, $t, $pop, $usual, $f)
        }
    };
    (complete $t:ty, $pop:literal, $f:expr) => {
        |core, op| {
            begin(core)?;
            let lin = Segmented::lin(core, op, <$t as Int>::BYTES, true)?;
            let f: fn(&State) -> Store<_> = $f;
            let result = f(&core.cpu.x87);
            if let Some(value) = result.value {
                core.store::<$t>(lin, value as $t)?;
            }
            note(core, op);
            note_memory(core, op);
            core.cpu.x87.complete(&result, $pop);
            Ok(())
        }
    };
    (usual $addr:ident, $t:ty, $pop:literal, $usual:expr, $f:expr) => {
        usual_handler!(
            |core, op| {
                usual_begin(core)?;
                let lin = $addr::usual_lin(core, op, <$t as Int>::BYTES, true)?;
                let f: fn(&State) -> Option<Store<_>> = $usual;
                let result = f(&core.cpu.x87)?;
                if !core.tlb.store_any(lin, result.value? as $t) {
                    return None;
                }
                note(core, op);
                note_memory(core, op);
                core.cpu.x87.complete(&result, $pop);
                Some(())
            },
            store!(complete $t, $pop, $f)
        )
    };
}

mod arithmetic;
mod control;
mod transfers;

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    transfers::lookup(ins).or_else(|| arithmetic::lookup(ins)).or_else(|| control::lookup(ins))
}

/// Bytes of the memory operand; 0 without one.
fn memory_bytes(ins: &Ins) -> usize {
    if ins.is_mem(0) { ins.bytes(0) } else { 0 }
}

/// The register of instructions with ST(i), or with ST(0) and ST(i).
#[inline(always)]
fn last(op: &Op) -> u8 {
    if op.r2 == ZERO { op.r1 } else { op.r2 }
}

/// Performs an operation on registers.
#[inline(always)]
fn on_registers(core: &mut Core, op: &Op, f: fn(&mut State, &Op)) -> Result<(), Stop> {
    begin(core)?;
    note(core, op);
    f(&mut core.cpu.x87, op);
    Ok(())
}

/// Performs an operation that reads an operand of a type.
#[inline(always)]
fn on_loaded<T: Int>(core: &mut Core, op: &Op, f: fn(&mut State, T)) -> Result<(), Stop> {
    begin(core)?;
    let lin = Segmented::lin(core, op, T::BYTES, false)?;
    let value = core.load(lin)?;
    note(core, op);
    note_memory(core, op);
    f(&mut core.cpu.x87, value);
    Ok(())
}

/// What every waiting instruction does first.
#[inline(always)]
fn begin(core: &mut Core) -> Result<(), Stop> {
    core.need(unit::X87)?;
    core.no_pending()
}

/// [`begin`] where nothing stands in the way.
#[inline(always)]
fn usual_begin(core: &Core) -> Option<()> {
    (core.units & unit::X87 != 0 && !core.cpu.x87.pending()).then_some(())
}

/// Notes where the instruction is.
#[inline(always)]
fn note(core: &mut Core, op: &Op) {
    let (cs, ip) = (core.segment(sreg::CS).selector, core.rip(op));
    let pointers = &mut core.cpu.x87.pointers;
    pointers.opcode = op.imm as u16;
    pointers.cs = cs;
    pointers.ip = ip;
}

/// Notes what memory it named.
#[inline(always)]
fn note_memory(core: &mut Core, op: &Op) {
    let (ds, dp) = (core.segment(op.seg).selector, effective(core, op));
    let pointers = &mut core.cpu.x87.pointers;
    pointers.ds = ds;
    pointers.dp = dp;
}
