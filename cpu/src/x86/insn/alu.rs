//! Binary arithmetic and logic (SDM vol. 1, 5.1.2 and 5.1.4).

use iced_x86::Mnemonic as M;
use std::marker::PhantomData;

use super::CodeCache;
use super::branch::{branch_if, condition};
use super::liveness::Fused;
use super::{
    Dst, Family1, Family2, FamilyR, Imm, Int, R2, Src, each_condition, forms_r, forms1, forms2,
    sized_word, step,
};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::flags::{Lazy, bit};

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    match ins.mnemonic() {
        M::Add => forms2::<Binary<Add>>(ins),
        M::Or => forms2::<Binary<Or>>(ins),
        M::Adc => forms2::<Binary<Adc>>(ins),
        M::Sbb => forms2::<Binary<Sbb>>(ins),
        M::And => forms2::<Binary<And>>(ins),
        M::Sub => forms2::<Binary<Sub>>(ins),
        M::Xor => forms2::<Binary<Xor>>(ins),
        M::Cmp => forms2::<Compare<Sub>>(ins),
        M::Test => forms2::<Compare<And>>(ins),
        M::Inc => forms1::<Increment<Add>>(ins),
        M::Dec => forms1::<Increment<Sub>>(ins),
        M::Neg => forms1::<Neg>(ins),
        M::Not => forms1::<Not>(ins),
        M::Adcx => forms_r::<AddWith<{ bit::CF }>>(ins),
        M::Adox => forms_r::<AddWith<{ bit::OF }>>(ins),
        _ => None,
    }
}

/// An operation on two operands and CF, and the flags it sets.
pub(super) trait Operation: 'static {
    const CARRY_IN: bool = false;
    fn apply(a: u64, b: u64, carry: u64) -> u64;
    /// `result` is sign-extended, the operands are zero-extended.
    fn flags(a: u64, b: u64, result: u64, bits: u32) -> Lazy;
}

/// Carries out of each bit of a sum.
#[inline(always)]
fn carries(a: u64, b: u64, sum: u64) -> u64 {
    a & b | (a | b) & !sum
}

/// Borrows out of each bit of a difference.
#[inline(always)]
fn borrows(a: u64, b: u64, difference: u64) -> u64 {
    !a & b | (!a | b) & difference
}

macro_rules! operation {
    ($name:ident, $carry:literal, |$a:ident, $b:ident, $c:ident| $apply:expr, $flags:expr) => {
        pub(super) enum $name {}
        impl Operation for $name {
            const CARRY_IN: bool = $carry;
            #[inline(always)]
            fn apply($a: u64, $b: u64, $c: u64) -> u64 {
                $apply
            }
            #[inline(always)]
            fn flags(a: u64, b: u64, result: u64, bits: u32) -> Lazy {
                let flags: fn(u64, u64, u64, u32) -> Lazy = $flags;
                flags(a, b, result, bits)
            }
        }
    };
}
operation!(Add, false, |a, b, _c| a.wrapping_add(b), |a, b, r, bits| {
    Lazy::carries(r, carries(a, b, r), bits)
});
operation!(Adc, true, |a, b, c| a.wrapping_add(b).wrapping_add(c), |a, b, r, bits| {
    Lazy::carries(r, carries(a, b, r), bits)
});
operation!(Sub, false, |a, b, _c| a.wrapping_sub(b), |a, b, r, bits| {
    Lazy::carries(r, borrows(a, b, r), bits)
});
operation!(Sbb, true, |a, b, c| a.wrapping_sub(b).wrapping_sub(c), |a, b, r, bits| {
    Lazy::carries(r, borrows(a, b, r), bits)
});
operation!(And, false, |a, b, _c| a & b, |_, _, r, _| Lazy::logic(r));
operation!(Or, false, |a, b, _c| a | b, |_, _, r, _| Lazy::logic(r));
operation!(Xor, false, |a, b, _c| a ^ b, |_, _, r, _| Lazy::logic(r));

/// The function that performs an instruction on registers without setting flags.
pub(super) fn quiet(ins: &Ins) -> Option<Handler> {
    macro_rules! binary {
        ($kind:ident) => {
            sized_word!(
                ins.bytes(0),
                T,
                Some(if ins.is_imm(1) {
                    quiet_binary::<$kind, T, Imm>
                } else {
                    quiet_binary::<$kind, T, R2>
                })
            )
        };
    }
    match ins.mnemonic() {
        M::Add => binary!(Add),
        M::Or => binary!(Or),
        M::And => binary!(And),
        M::Sub => binary!(Sub),
        M::Xor => binary!(Xor),
        M::Inc => sized_word!(ins.bytes(0), T, Some(quiet_unary::<T, 1>)),
        M::Dec => sized_word!(ins.bytes(0), T, Some(quiet_unary::<T, -1>)),
        M::Neg => sized_word!(ins.bytes(0), T, Some(quiet_unary::<T, 0>)),
        _ => None,
    }
}

fn quiet_binary<K: Operation, T: Int, S: Src<T>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, false, |core, op| {
        let b = S::get(core, op)?.widen();
        let a = T::get(core, op.r1).widen();
        T::put(core, op.r1, T::narrow(K::apply(a, b, 0)));
        Ok(())
    })
}

/// INC and DEC by what they add, NEG by 0.
fn quiet_unary<T: Int, const WHAT: i64>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        let a = T::get(core, op.r1).widen();
        let result = if WHAT == 0 { a.wrapping_neg() } else { a.wrapping_add_signed(WHAT) };
        T::put(core, op.r1, T::narrow(result));
        Ok(())
    })
}

/// How an instruction on registers and a conditional branch behind it are performed by one function.
pub(super) fn fused(ins: &Ins) -> Option<Fused> {
    if !ins.is_reg(0) || ins.is_mem(1) {
        return None;
    }
    /// By size and source.
    macro_rules! fused {
        ($f:ident, $kind:ident, $($bytes:literal $t:ty),*) => {
            match (ins.bytes(0), ins.is_imm(1)) {
                $(
                    ($bytes, true) => |c| each_condition!(c, C, Some($f::<$kind, $t, Imm, C>)),
                    ($bytes, false) => |c| each_condition!(c, C, Some($f::<$kind, $t, R2, C>)),
                )*
                _ => return None,
            }
        };
    }
    Some(match ins.mnemonic() {
        M::Cmp => fused!(compare_branch, Sub, 1 u8, 4 u32, 8 u64),
        M::Test => fused!(compare_branch, And, 1 u8, 4 u32, 8 u64),
        M::Sub => fused!(binary_branch, Sub, 4 u32, 8 u64),
        M::Add => fused!(binary_branch, Add, 4 u32, 8 u64),
        M::And => fused!(binary_branch, And, 4 u32, 8 u64),
        M::Dec => match ins.bytes(0) {
            4 => |c| each_condition!(c, C, Some(increment_branch::<Sub, u32, C>)),
            8 => |c| each_condition!(c, C, Some(increment_branch::<Sub, u64, C>)),
            _ => return None,
        },
        M::Inc => match ins.bytes(0) {
            4 => |c| each_condition!(c, C, Some(increment_branch::<Add, u32, C>)),
            8 => |c| each_condition!(c, C, Some(increment_branch::<Add, u64, C>)),
            _ => return None,
        },
        _ => return None,
    })
}

/// Flags of `a op b` of registers, then Jcc.
fn compare_branch<K: Operation, T: Int, S: Src<T>, const C: u8>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    let [op, rest @ ..] = ops else { return 0 };
    let Ok(b) = S::get(core, op).map(T::widen) else { return ops.len() };
    let a = T::get(core, op.r1).widen();
    core.flags = K::flags(a, b, T::narrow(K::apply(a, b, 0)).sext(), T::BITS);
    branch_if(core, rest, code, condition::<C>(core.flags))
}

/// `a = a op b` of registers, then Jcc.
fn binary_branch<K: Operation, T: Int, S: Src<T>, const C: u8>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    let [op, rest @ ..] = ops else { return 0 };
    let Ok(b) = S::get(core, op).map(T::widen) else { return ops.len() };
    let a = T::get(core, op.r1).widen();
    let result = T::narrow(K::apply(a, b, 0));
    T::put(core, op.r1, result);
    core.flags = K::flags(a, b, result.sext(), T::BITS);
    branch_if(core, rest, code, condition::<C>(core.flags))
}

/// INC or DEC of a register, then Jcc.
fn increment_branch<K: Operation, T: Int, const C: u8>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    let [op, rest @ ..] = ops else { return 0 };
    let a = T::get(core, op.r1).widen();
    let result = T::narrow(K::apply(a, 1, 0));
    T::put(core, op.r1, result);
    core.flags = K::flags(a, 1, result.sext(), T::BITS).with_carry(core.flags.cf());
    branch_if(core, rest, code, condition::<C>(core.flags))
}

/// `dst = dst op src`.
struct Binary<K>(PhantomData<K>);

impl<K: Operation> Family2 for Binary<K> {
    fn handler<T: Int, D: Dst<T>, S: Src<T>>() -> Handler {
        binary::<K, T, D, S>
    }
}

fn binary<K: Operation, T: Int, D: Dst<T>, S: Src<T>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, D::MEMORY || S::MEMORY, |core, op| {
        let b = S::get(core, op)?.widen();
        let carry = if K::CARRY_IN { u64::from(core.flags.cf()) } else { 0 };
        let apply = move |a: T| T::narrow(K::apply(a.widen(), b, carry));
        let a = D::update(core, op, apply)?;
        core.flags = K::flags(a.widen(), b, apply(a).sext(), T::BITS);
        Ok(())
    })
}

/// Flags of `dst op src`.
struct Compare<K>(PhantomData<K>);

impl<K: Operation> Family2 for Compare<K> {
    fn handler<T: Int, D: Dst<T>, S: Src<T>>() -> Handler {
        compare::<K, T, D, S>
    }
}

fn compare<K: Operation, T: Int, D: Dst<T>, S: Src<T>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, D::MEMORY || S::MEMORY, |core, op| {
        let a = D::get(core, op)?.widen();
        let b = S::get(core, op)?.widen();
        core.flags = K::flags(a, b, T::narrow(K::apply(a, b, 0)).sext(), T::BITS);
        Ok(())
    })
}

/// INC and DEC: CF stays.
struct Increment<K>(PhantomData<K>);

impl<K: Operation> Family1 for Increment<K> {
    fn handler<T: Int, D: Dst<T>>() -> Handler {
        increment::<K, T, D>
    }
}

fn increment<K: Operation, T: Int, D: Dst<T>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, D::MEMORY, |core, op| {
        let apply = move |a: T| T::narrow(K::apply(a.widen(), 1, 0));
        let a = D::update(core, op, apply)?;
        let cf = core.flags.cf();
        core.flags = K::flags(a.widen(), 1, apply(a).sext(), T::BITS).with_carry(cf);
        Ok(())
    })
}

struct Neg;

impl Family1 for Neg {
    fn handler<T: Int, D: Dst<T>>() -> Handler {
        neg::<T, D>
    }
}

fn neg<T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, D::MEMORY, |core, op| {
        let apply = move |a: T| T::narrow(a.widen().wrapping_neg());
        let a = D::update(core, op, apply)?;
        core.flags = Sub::flags(0, a.widen(), apply(a).sext(), T::BITS);
        Ok(())
    })
}

struct Not;

impl Family1 for Not {
    fn handler<T: Int, D: Dst<T>>() -> Handler {
        not::<T, D>
    }
}

fn not<T: Int, D: Dst<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, D::MEMORY, |core, op| {
        D::update(core, op, move |a| T::narrow(!a.widen())).map(drop)
    })
}

/// ADCX and ADOX: an addition whose carry goes through one flag and leaves the others alone.
struct AddWith<const FLAG: u64>;

impl<const FLAG: u64> FamilyR for AddWith<FLAG> {
    fn handler<T: Int, S: Src<T>>() -> Handler {
        add_with::<FLAG, T, S>
    }
}

fn add_with<const FLAG: u64, T: Int, S: Src<T>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let b = S::get(core, op)?.widen();
        let a = T::get(core, op.r1).widen();
        let carry = u64::from(core.flags.bits() & FLAG != 0);
        let sum = T::narrow(a.wrapping_add(b).wrapping_add(carry));
        T::put(core, op.r1, sum);
        let out = carries(a, b, sum.widen()) >> (T::BITS - 1) & 1;
        core.flags.replace(FLAG, if out != 0 { FLAG } else { 0 });
        Ok(())
    })
}
