//! Shifts and rotates (SDM vol. 1, 5.1.5), the BMI2 ones too.
//!
//! Flags the manual leaves undefined are as Intel's processors have them: AF is clear after shifts; OF after a
//! shift by more than one is what the last step would have made it.

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::{Dst, Flat, Int, Mem, R1, R2, Segmented, Src, sized, sized_word, step};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::flags::Lazy;
use crate::x86::state::gpr;

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    match ins.mnemonic() {
        M::Shl | M::Sal => shifts::<Shl>(ins),
        M::Shr => shifts::<Shr>(ins),
        M::Sar => shifts::<Sar>(ins),
        M::Rol => shifts::<Rol>(ins),
        M::Ror => shifts::<Ror>(ins),
        M::Rcl => shifts::<Rcl>(ins),
        M::Rcr => shifts::<Rcr>(ins),
        M::Shld => doubles::<true>(ins),
        M::Shrd => doubles::<false>(ins),
        M::Shlx => flagless::<Shl>(ins),
        M::Shrx => flagless::<Shr>(ins),
        M::Sarx => flagless::<Sar>(ins),
        M::Rorx => sized_word!(
            ins.bytes(0),
            T,
            Some(if ins.is_mem(1) { rorx::<T, Mem<Segmented>> } else { rorx::<T, R2> })
        ),
        _ => None,
    }
}

/// A shift by `count`, which is below the bits it is taken modulo and not zero.
trait Shift: 'static {
    fn apply<T: Int>(value: T, count: u32, cf: bool) -> T;
    /// The flags after it.
    fn flags<T: Int>(before: Lazy, old: T, new: T, count: u32) -> Lazy;
}

fn top<T: Int>(value: T) -> bool {
    value.widen() >> (T::BITS - 1) != 0
}

/// Bit `index` of `value`, zero beyond.
#[inline(always)]
fn bit_at(value: u64, index: u32) -> bool {
    index < 64 && value >> index & 1 != 0
}

enum Shl {}
impl Shift for Shl {
    #[inline(always)]
    fn apply<T: Int>(value: T, count: u32, _: bool) -> T {
        T::narrow(value.widen() << count)
    }
    #[inline(always)]
    fn flags<T: Int>(_: Lazy, old: T, new: T, count: u32) -> Lazy {
        let cf = count <= T::BITS && bit_at(old.widen(), T::BITS - count);
        Lazy::result(new.sext(), cf, cf != top(new))
    }
}

enum Shr {}
impl Shift for Shr {
    #[inline(always)]
    fn apply<T: Int>(value: T, count: u32, _: bool) -> T {
        T::narrow(value.widen() >> count)
    }
    #[inline(always)]
    fn flags<T: Int>(_: Lazy, old: T, new: T, count: u32) -> Lazy {
        let cf = bit_at(old.widen(), count - 1);
        // The sign before the last step, which the step has moved down.
        let of = bit_at(new.widen() << 1, T::BITS - 1) || count == 1 && top(old);
        Lazy::result(new.sext(), cf, of)
    }
}

enum Sar {}
impl Shift for Sar {
    #[inline(always)]
    fn apply<T: Int>(value: T, count: u32, _: bool) -> T {
        T::narrow((value.sext() as i64 >> count) as u64)
    }
    #[inline(always)]
    fn flags<T: Int>(_: Lazy, old: T, new: T, count: u32) -> Lazy {
        let cf = old.sext() as i64 >> (count - 1) & 1 != 0;
        Lazy::result(new.sext(), cf, false)
    }
}

/// CF and OF replaced, the others as before.
fn carry_overflow(before: Lazy, cf: bool, of: bool) -> Lazy {
    before.with_carry_overflow(cf, of)
}

enum Rol {}
impl Shift for Rol {
    #[inline(always)]
    fn apply<T: Int>(value: T, count: u32, _: bool) -> T {
        let count = count % T::BITS;
        let value = value.widen();
        if count == 0 {
            T::narrow(value)
        } else {
            T::narrow(value << count | value >> (T::BITS - count))
        }
    }
    fn flags<T: Int>(before: Lazy, _: T, new: T, _: u32) -> Lazy {
        let cf = new.widen() & 1 != 0;
        carry_overflow(before, cf, cf != top(new))
    }
}

enum Ror {}
impl Shift for Ror {
    #[inline(always)]
    fn apply<T: Int>(value: T, count: u32, _: bool) -> T {
        let count = count % T::BITS;
        let value = value.widen();
        if count == 0 {
            T::narrow(value)
        } else {
            T::narrow(value >> count | value << (T::BITS - count))
        }
    }
    fn flags<T: Int>(before: Lazy, _: T, new: T, _: u32) -> Lazy {
        carry_overflow(before, top(new), top(new) != bit_at(new.widen(), T::BITS - 2))
    }
}

/// Rotates `value` with `cf` above it to the left.
fn through_carry<T: Int>(value: T, count: u32, cf: bool) -> u128 {
    let width = T::BITS + 1;
    let count = count % width;
    let wide = u128::from(value.widen()) | u128::from(cf) << T::BITS;
    let mask = (1u128 << width) - 1;
    if count == 0 { wide } else { (wide << count | wide >> (width - count)) & mask }
}

enum Rcl {}
impl Shift for Rcl {
    fn apply<T: Int>(value: T, count: u32, cf: bool) -> T {
        T::narrow(through_carry(value, count, cf) as u64)
    }
    fn flags<T: Int>(before: Lazy, old: T, new: T, count: u32) -> Lazy {
        let cf = through_carry(old, count, before.cf()) >> T::BITS != 0;
        carry_overflow(before, cf, cf != top(new))
    }
}

enum Rcr {}
impl Rcr {
    fn rotated<T: Int>(value: T, count: u32, cf: bool) -> u128 {
        let width = T::BITS + 1;
        through_carry(value, width - count % width, cf)
    }
}
impl Shift for Rcr {
    fn apply<T: Int>(value: T, count: u32, cf: bool) -> T {
        T::narrow(Self::rotated(value, count, cf) as u64)
    }
    fn flags<T: Int>(before: Lazy, old: T, new: T, count: u32) -> Lazy {
        let cf = Self::rotated(old, count, before.cf()) >> T::BITS != 0;
        carry_overflow(before, cf, top(new) != bit_at(new.widen(), T::BITS - 2))
    }
}

/// Where a count comes from.
trait Count: 'static {
    fn get(core: &Core, op: &Op) -> u64;
}
/// CL.
enum Cl {}
/// The immediate.
enum ByImm {}
impl Count for Cl {
    #[inline(always)]
    fn get(core: &Core, _: &Op) -> u64 {
        core.gpr(gpr::RCX)
    }
}
impl Count for ByImm {
    #[inline(always)]
    fn get(_: &Core, op: &Op) -> u64 {
        op.imm
    }
}

fn shifts<K: Shift>(ins: &Ins) -> Option<Handler> {
    fn of<K: Shift, T: Int, C: Count>(ins: &Ins) -> Option<Handler> {
        Some(if !ins.is_mem(0) {
            shift::<K, T, C, R1>
        } else if ins.flat {
            shift::<K, T, C, Mem<Flat>>
        } else {
            shift::<K, T, C, Mem<Segmented>>
        })
    }
    if ins.is_imm(1) {
        sized!(ins.bytes(0), T, of::<K, T, ByImm>(ins))
    } else {
        sized!(ins.bytes(0), T, of::<K, T, Cl>(ins))
    }
}

/// The count that the instruction uses.
#[inline(always)]
fn masked<T: Int>(count: u64) -> u32 {
    (count & if T::BITS == 64 { 63 } else { 31 }) as u32
}

fn shift<K: Shift, T: Int, C: Count, D: Dst<T>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, D::MEMORY, |core, op| {
        let count = masked::<T>(C::get(core, op));
        if count == 0 {
            // Nothing changes; but memory must be writable, and the upper half of a 32-bit register is cleared.
            return D::update(core, op, move |old| old).map(drop);
        }
        let before = core.flags;
        let cf = before.cf();
        let old = D::update(core, op, move |old| K::apply(old, count, cf))?;
        core.flags = K::flags(before, old, K::apply(old, count, cf), count);
        Ok(())
    })
}

/// The function that performs a shift of a register by an immediate without setting flags; none for a shift by zero.
pub(super) fn quiet(ins: &Ins) -> Option<Handler> {
    macro_rules! quiet {
        ($kind:ident) => {
            sized_word!(ins.bytes(0), T, {
                let by = if ins.is_imm(1) { ins.raw().immediate(1) } else { 0 };
                (masked::<T>(by) != 0).then_some(quiet_shift::<$kind, T>)
            })
        };
    }
    match ins.mnemonic() {
        M::Shl | M::Sal => quiet!(Shl),
        M::Shr => quiet!(Shr),
        M::Sar => quiet!(Sar),
        M::Rol => quiet!(Rol),
        M::Ror => quiet!(Ror),
        _ => None,
    }
}

fn quiet_shift<K: Shift, T: Int>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, op| {
        let value = T::get(core, op.r1);
        T::put(core, op.r1, K::apply(value, masked::<T>(op.imm), false));
        Ok(())
    })
}

fn doubles<const LEFT: bool>(ins: &Ins) -> Option<Handler> {
    fn of<const LEFT: bool, T: Int, C: Count>(ins: &Ins) -> Option<Handler> {
        Some(if ins.is_mem(0) {
            double::<LEFT, T, C, Mem<Segmented>>
        } else {
            double::<LEFT, T, C, R1>
        })
    }
    if ins.is_imm(2) {
        sized_word!(ins.bytes(0), T, of::<LEFT, T, ByImm>(ins))
    } else {
        sized_word!(ins.bytes(0), T, of::<LEFT, T, Cl>(ins))
    }
}

/// SHLD, SHRD: bits are shifted in from `fill`. The result and the last bit shifted out.
fn double_shift<const LEFT: bool, T: Int>(value: T, fill: T, count: u32) -> (T, bool) {
    let bits = T::BITS;
    let (value, fill) = (u128::from(value.widen()), u128::from(fill.widen()));
    // More than 16 for 16 bits is undefined; processors go on with the first operand behind the second.
    let again = if bits == 64 { 0 } else { value };
    if LEFT {
        let (wide, width) = if bits == 64 {
            (value << 64 | fill, 128)
        } else {
            (value << (2 * bits) | fill << bits | again, 3 * bits)
        };
        let result = wide << count >> (width - bits);
        (T::narrow(result as u64), wide >> (width - count) & 1 != 0)
    } else {
        let wide = if bits == 64 { 0 } else { again << (2 * bits) } | fill << bits | value;
        (T::narrow((wide >> count) as u64), wide >> (count - 1) & 1 != 0)
    }
}

fn double<const LEFT: bool, T: Int, C: Count, D: Dst<T>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, D::MEMORY, |core, op| {
        let count = masked::<T>(C::get(core, op));
        if count == 0 {
            return D::update(core, op, move |old| old).map(drop);
        }
        let fill = T::get(core, op.r2);
        let old = D::update(core, op, move |old| double_shift::<LEFT, T>(old, fill, count).0)?;
        let (new, cf) = double_shift::<LEFT, T>(old, fill, count);
        core.flags = Lazy::result(new.sext(), cf, top(old) != top(new));
        Ok(())
    })
}

fn flagless<K: Shift>(ins: &Ins) -> Option<Handler> {
    sized_word!(
        ins.bytes(0),
        T,
        Some(if ins.is_mem(1) {
            shift_plain::<K, T, Mem<Segmented>>
        } else {
            shift_plain::<K, T, R2>
        })
    )
}

/// SHLX, SHRX, SARX: no flags, the count is the third operand.
fn shift_plain<K: Shift, T: Int, S: Src<T>>(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let value = S::get(core, op)?;
        let count = masked::<T>(T::get(core, op.r3).widen());
        T::put(core, op.r1, K::apply(value, count, false));
        Ok(())
    })
}

fn rorx<T: Int, S: Src<T>>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, S::MEMORY, |core, op| {
        let value = S::get(core, op)?;
        T::put(core, op.r1, Ror::apply(value, masked::<T>(op.imm), false));
        Ok(())
    })
}
