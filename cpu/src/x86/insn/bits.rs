//! Bit and byte instructions (SDM vol. 1, 5.1.6), BMI1 and BMI2.

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::{
    Dst, FamilyR, Int, Locked, Mem, R1, R2, Segmented, Src, address_mask, effective, forms_r,
    sized_word, step,
};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::Stop;
use crate::x86::flags::{Lazy, bit};

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    match ins.mnemonic() {
        M::Bt => tests::<TEST>(ins),
        M::Bts => tests::<SET>(ins),
        M::Btr => tests::<RESET>(ins),
        M::Btc => tests::<COMPLEMENT>(ins),
        M::Bsf => forms_r::<Scan<false>>(ins),
        M::Bsr => forms_r::<Scan<true>>(ins),
        M::Tzcnt => forms_r::<Count<TRAILING>>(ins),
        M::Lzcnt => forms_r::<Count<LEADING>>(ins),
        M::Popcnt => forms_r::<Count<ONES>>(ins),
        M::Andn => vex3::<Andn>(ins),
        M::Pdep => vex3::<Pdep>(ins),
        M::Pext => vex3::<Pext>(ins),
        M::Bextr => control3::<Bextr>(ins),
        M::Bzhi => control3::<Bzhi>(ins),
        M::Blsi => lowest::<Blsi>(ins),
        M::Blsr => lowest::<Blsr>(ins),
        M::Blsmsk => lowest::<Blsmsk>(ins),
        _ => None,
    }
}

const TEST: u8 = 0;
const SET: u8 = 1;
const RESET: u8 = 2;
const COMPLEMENT: u8 = 3;

fn tests<const WHAT: u8>(ins: &Ins) -> Option<Handler> {
    sized_word!(
        ins.bytes(0),
        T,
        Some(match (ins.is_mem(0), ins.is_imm(1), ins.locked()) {
            (false, true, _) => bit_test::<WHAT, T, R1, true>,
            (false, false, _) => bit_test::<WHAT, T, R1, false>,
            (true, true, false) => bit_test::<WHAT, T, Mem<Segmented>, true>,
            (true, true, true) => bit_test::<WHAT, T, Locked, true>,
            (true, false, false) => bit_string::<WHAT, T, false>,
            (true, false, true) => bit_string::<WHAT, T, true>,
        })
    )
}

#[inline(always)]
fn changed<const WHAT: u8>(value: u64, bit: u64) -> u64 {
    match WHAT {
        SET => value | bit,
        RESET => value & !bit,
        COMPLEMENT => value ^ bit,
        _ => value,
    }
}

/// The bit is inside the operand.
fn bit_test<const WHAT: u8, T: Int, D: Dst<T>, const IMM: bool>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, D::MEMORY, |core, op| {
        let index = if IMM { op.imm } else { T::get(core, op.r2).widen() } & u64::from(T::BITS - 1);
        let bit = 1 << index;
        let old = if WHAT == TEST {
            D::get(core, op)?
        } else {
            D::update(core, op, move |old| T::narrow(changed::<WHAT>(old.widen(), bit)))?
        };
        core.flags = core.flags.with_carry(old.widen() & bit != 0);
        Ok(())
    })
}

/// The operand is the beginning of a string of bits, which goes on in both directions.
fn bit_string<const WHAT: u8, T: Int, const LOCKED: bool>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, true, |core, op| {
        let index = T::get(core, op.r2).sext() as i64;
        let units = index >> T::BITS.trailing_zeros();
        let at = effective(core, op).wrapping_add((units as u64).wrapping_mul(T::BYTES));
        let lin = core.linear(op.seg, at & address_mask(op), T::BYTES, WHAT != TEST)?;
        let bit = 1u64 << (index as u64 & u64::from(T::BITS - 1));
        let change = |old: T| T::narrow(changed::<WHAT>(old.widen(), bit));
        let old: T = match (WHAT, LOCKED) {
            (TEST, _) => core.load(lin)?,
            (_, false) => core.update(lin, change)?,
            (_, true) => core.update_locked(lin, change)?,
        };
        core.flags = core.flags.with_carry(old.widen() & bit != 0);
        Ok(())
    })
}

struct Scan<const REVERSE: bool>;

impl<const REVERSE: bool> FamilyR for Scan<REVERSE> {
    fn handler<T: Int, S: Src<T>>() -> Handler {
        scan::<REVERSE, T, S>
    }
}

fn scan<const REVERSE: bool, T: Int, S: Src<T>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let value = S::get(core, op)?.widen();
        if value != 0 {
            let index = if REVERSE { value.ilog2() } else { value.trailing_zeros() };
            T::put(core, op.r1, T::narrow(u64::from(index)));
        }
        // With a source of zero processors leave the destination alone, even its upper half. The other flags are
        // undefined; they stay.
        core.flags.replace(bit::ZF, if value == 0 { bit::ZF } else { 0 });
        Ok(())
    })
}

const TRAILING: u8 = 0;
const LEADING: u8 = 1;
const ONES: u8 = 2;

struct Count<const WHAT: u8>;

impl<const WHAT: u8> FamilyR for Count<WHAT> {
    fn handler<T: Int, S: Src<T>>() -> Handler {
        count::<WHAT, T, S>
    }
}

fn count<const WHAT: u8, T: Int, S: Src<T>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let value = S::get(core, op)?.widen();
        let result = match WHAT {
            TRAILING => value.trailing_zeros().min(T::BITS),
            LEADING => value.leading_zeros() - (64 - T::BITS),
            _ => value.count_ones(),
        };
        T::put(core, op.r1, T::narrow(u64::from(result)));
        if WHAT == ONES {
            core.flags = Lazy::from_bits(if value == 0 { bit::ZF } else { 0 });
        } else {
            let zero = if result == 0 { bit::ZF } else { 0 };
            let carry = if value == 0 { bit::CF } else { 0 };
            core.flags.replace(bit::ZF | bit::CF, zero | carry);
        }
        Ok(())
    })
}

/// `apply(a, b)`: the result and, if the instruction sets any, its flags.
trait Function: 'static {
    fn apply<T: Int>(a: u64, b: u64) -> (u64, Option<bool>);
}

/// A function of the second and third operand: the result and CF, if the instruction sets flags.
fn vex3<F: Function>(ins: &Ins) -> Option<Handler> {
    sized_word!(
        ins.bytes(0),
        T,
        Some(if ins.is_mem(2) {
            function::<F, T, R2, Mem<Segmented>>
        } else {
            function::<F, T, R2, super::R3>
        })
    )
}

/// The same where memory is the second operand.
fn control3<F: Function>(ins: &Ins) -> Option<Handler> {
    sized_word!(
        ins.bytes(0),
        T,
        Some(if ins.is_mem(1) {
            function::<F, T, Mem<Segmented>, super::R3>
        } else {
            function::<F, T, R2, super::R3>
        })
    )
}

fn function<F: Function, T: Int, A: Src<T>, B: Src<T>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, A::MEMORY || B::MEMORY, |core, op| {
        let (a, b) = (A::get(core, op)?.widen(), B::get(core, op)?.widen());
        finish::<F, T>(core, op.r1, a, b)
    })
}

/// The source is the second operand.
fn lowest<F: Function>(ins: &Ins) -> Option<Handler> {
    sized_word!(
        ins.bytes(0),
        T,
        Some(if ins.is_mem(1) {
            lowest_bit::<F, T, Mem<Segmented>>
        } else {
            lowest_bit::<F, T, R2>
        })
    )
}

fn lowest_bit<F: Function, T: Int, S: Src<T>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let value = S::get(core, op)?.widen();
        finish::<F, T>(core, op.r1, value, 0)
    })
}

fn finish<F: Function, T: Int>(core: &mut Core, to: u8, a: u64, b: u64) -> Result<(), Stop> {
    let (result, cf) = F::apply::<T>(a, b);
    let result = T::narrow(result);
    T::put(core, to, result);
    if let Some(cf) = cf {
        core.flags = Lazy::result(result.sext(), cf, false);
    }
    Ok(())
}

macro_rules! function {
    ($name:ident<$t:ident>, |$a:ident, $b:ident| $body:expr) => {
        enum $name {}
        impl Function for $name {
            #[inline(always)]
            fn apply<$t: Int>($a: u64, $b: u64) -> (u64, Option<bool>) {
                $body
            }
        }
    };
}
function!(Andn<T>, |a, b| (!a & b, Some(false)));
function!(Blsi<T>, |a, _b| (a & a.wrapping_neg(), Some(a != 0)));
function!(Blsr<T>, |a, _b| (a & a.wrapping_sub(1), Some(a == 0)));
function!(Blsmsk<T>, |a, _b| (a ^ a.wrapping_sub(1), Some(a == 0)));
function!(Bextr<T>, |a, b| {
    let (start, len) = (b as u8, (b >> 8) as u8);
    let moved = if start < 64 { a >> start } else { 0 };
    (if len < 64 { moved & ((1 << len) - 1) } else { moved }, Some(false))
});
function!(Bzhi<T>, |a, b| {
    let index = u32::from(b as u8);
    let kept = if index < T::BITS { a & ((1 << index) - 1) } else { a };
    (kept, Some(index >= T::BITS))
});
function!(Pdep<T>, |a, b| {
    let (mut mask, mut source, mut result) = (b, a, 0);
    while mask != 0 {
        let bit = mask & mask.wrapping_neg();
        if source & 1 != 0 {
            result |= bit;
        }
        source >>= 1;
        mask ^= bit;
    }
    (result, None)
});
function!(Pext<T>, |a, b| {
    let (mut mask, mut result, mut place) = (b, 0, 0);
    while mask != 0 {
        let bit = mask & mask.wrapping_neg();
        if a & bit != 0 {
            result |= 1 << place;
        }
        place += 1;
        mask ^= bit;
    }
    (result, None)
});
