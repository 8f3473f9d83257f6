//! What instructions do, by the SDM's groups.
//!
//! Each instruction is a function, generic over operand size and form, that performs the first of some [`Op`]s and
//! those after it by a tail call. The `lookup` of each group says which function performs a decoded instruction;
//! [`lookup`] asks all of them. To add an instruction: its function and its row in the group's `lookup`.

mod alu;
mod atomic;
mod bcd;
mod bits;
mod branch;
mod calls;
mod flags;
mod flow;
mod io;
mod liveness;
mod mov;
mod muldiv;
mod operand;
mod shift;
mod stack;
mod string;
mod system;
mod tables;
mod units;
mod vector;
mod x87;
mod xsave;

use super::core::Core;
use super::decode::{Handler, Ins, Op};
use super::interp::CodeCache;

/// The function that performs an instruction, if there is one.
pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    alu::lookup(ins)
        .or_else(|| mov::lookup(ins))
        .or_else(|| branch::lookup(ins))
        .or_else(|| stack::lookup(ins))
        .or_else(|| shift::lookup(ins))
        .or_else(|| muldiv::lookup(ins))
        .or_else(|| bits::lookup(ins))
        .or_else(|| string::lookup(ins))
        .or_else(|| flags::lookup(ins))
        .or_else(|| atomic::lookup(ins))
        .or_else(|| bcd::lookup(ins))
        .or_else(|| io::lookup(ins))
        .or_else(|| system::lookup(ins))
        .or_else(|| tables::lookup(ins))
        .or_else(|| calls::lookup(ins))
        .or_else(|| x87::lookup(ins))
        .or_else(|| vector::lookup(ins))
        .or_else(|| xsave::lookup(ins))
}

use flow::{chain, ends, go_on, jumps, serializes, step, usually};
pub(super) use liveness::{Usage, usage};
use operand::{
    Addr, Dst, Flat, Imm, Locked, Mem, R1, R2, R3, Segmented, Src, address_mask, effective, sum,
};
pub(super) use operand::{HIGH_BYTE, Int};
pub(super) use system::ends_block;
use units::unit;

/// What is performed where there is no instruction.
pub(super) fn undefined(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| Err(core.ud()))
}

/// What is performed for more bytes than an instruction can have.
pub(super) fn too_long(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| Err(core.gp(0)))
}

/// Instructions `dst, src`: the function for each size and form.
trait Family2 {
    fn handler<T: Int, D: Dst<T>, S: Src<T>>() -> Handler;
}

/// Instructions with one operand `dst`.
trait Family1 {
    fn handler<T: Int, D: Dst<T>>() -> Handler;
}

/// Instructions `register, src`.
trait FamilyR {
    fn handler<T: Int, S: Src<T>>() -> Handler;
}

/// `$body` with `$t` the operand type of `$bytes` bytes.
macro_rules! sized {
    ($bytes:expr, $t:ident, $body:expr) => {
        match $bytes {
            1 => {
                type $t = u8;
                $body
            }
            2 => {
                type $t = u16;
                $body
            }
            4 => {
                type $t = u32;
                $body
            }
            8 => {
                type $t = u64;
                $body
            }
            _ => None,
        }
    };
}
/// The same without bytes.
macro_rules! sized_word {
    ($bytes:expr, $t:ident, $body:expr) => {
        match $bytes {
            2 => {
                type $t = u16;
                $body
            }
            4 => {
                type $t = u32;
                $body
            }
            8 => {
                type $t = u64;
                $body
            }
            _ => None,
        }
    };
}
/// `$body` with `$c` a constant from 0 to 15.
macro_rules! each_condition {
    ($condition:expr, $c:ident, $body:expr) => {
        each_condition!(@ $condition, $c, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $condition:expr, $c:ident, $body:expr, $($n:literal)*) => {
        match $condition {
            $($n => {
                const $c: u8 = $n;
                $body
            })*
            _ => None,
        }
    };
}
use {each_condition, sized, sized_word};

/// The function of a family for the form `dst, src` of an instruction.
fn forms2<F: Family2>(ins: &Ins) -> Option<Handler> {
    fn of<F: Family2, T: Int>(ins: &Ins) -> Option<Handler> {
        Some(if ins.locked() {
            if ins.is_imm(1) {
                F::handler::<T, Locked, Imm>()
            } else {
                F::handler::<T, Locked, R2>()
            }
        } else if ins.is_mem(0) {
            match (ins.is_imm(1), ins.flat) {
                (true, true) => F::handler::<T, Mem<Flat>, Imm>(),
                (true, false) => F::handler::<T, Mem<Segmented>, Imm>(),
                (false, true) => F::handler::<T, Mem<Flat>, R2>(),
                (false, false) => F::handler::<T, Mem<Segmented>, R2>(),
            }
        } else if ins.is_mem(1) {
            if ins.flat {
                F::handler::<T, R1, Mem<Flat>>()
            } else {
                F::handler::<T, R1, Mem<Segmented>>()
            }
        } else if ins.is_imm(1) {
            F::handler::<T, R1, Imm>()
        } else {
            F::handler::<T, R1, R2>()
        })
    }
    sized!(ins.bytes(0), T, of::<F, T>(ins))
}

/// The function of a family for the one operand of an instruction.
fn forms1<F: Family1>(ins: &Ins) -> Option<Handler> {
    sized!(
        ins.bytes(0),
        T,
        Some(if ins.locked() {
            F::handler::<T, Locked>()
        } else if !ins.is_mem(0) {
            F::handler::<T, R1>()
        } else if ins.flat {
            F::handler::<T, Mem<Flat>>()
        } else {
            F::handler::<T, Mem<Segmented>>()
        })
    )
}

/// The function of a family for the form `register, src` of an instruction, not of bytes.
fn forms_r<F: FamilyR>(ins: &Ins) -> Option<Handler> {
    sized_word!(
        ins.bytes(0),
        T,
        Some(if !ins.is_mem(1) {
            F::handler::<T, R2>()
        } else if ins.flat {
            F::handler::<T, Mem<Flat>>()
        } else {
            F::handler::<T, Mem<Segmented>>()
        })
    )
}
