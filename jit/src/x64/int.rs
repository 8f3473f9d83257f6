//! Integer operations (multiplications and divisions: `muldiv`; comparisons and what uses them: `cond`).
//!
//! Results are those of the RISC-V manual; host instructions: Intel SDM volume 2. Every function here
//! reads its operands before it writes the destination, or knows that they differ: the destination may be
//! the home of a register that is read.

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::sem::{Bin, Un};

use super::Emitter;
use super::abi::PAGE_VA;
use super::alloc::{Loc, Src, fits};
use super::asm::{Alu, Cond, Group3, Mem, Opcode, RAX, RBP, RCX, Reg, Rm, Shift, Size, opcode};
use super::cond::{pick, set_if};
use super::homes::{Home, in_frame, is_discarded};
use super::muldiv::{carry_less, copy_to_xmm, divide, mul, mul_high};
use super::plan::is_word_shift;
use crate::ir::{Op, Val};

const SHLX: Opcode = opcode(1, 2, 0xf7);
const SHRX: Opcode = opcode(3, 2, 0xf7);
const SARX: Opcode = opcode(2, 2, 0xf7);
const RORX: Opcode = opcode(3, 3, 0xf0);
const ANDN: Opcode = opcode(0, 2, 0xf2);
const LZCNT: Opcode = opcode(2, 1, 0xbd);
const TZCNT: Opcode = opcode(2, 1, 0xbc);
const POPCNT: Opcode = opcode(2, 1, 0xb8);
const PXOR: Opcode = opcode(1, 1, 0xef);
const PCMPEQB: Opcode = opcode(1, 1, 0x74);
const XCHG: Opcode = opcode(0, 0, 0x87);

/// `op dst, src`.
pub(super) fn alu_src(e: &mut Emitter, op: Alu, size: Size, dst: Reg, src: Src) {
    match src {
        Src::Imm(imm) => e.code.alu_imm(op, size, Rm::Reg(dst), imm),
        _ => {
            let rm = e.rm_of(src);
            e.code.alu(op, size, dst, rm);
        }
    }
}

/// An operation of the two-operand group.
fn alu(e: &mut Emitter, i: u32, op: Alu, a: Val, b: Val) {
    let (mut a, mut b) = (a, b);
    if op != Alu::Sub && matches!(e.alloc.value(a).loc, Loc::Const(_)) {
        (a, b) = (b, a);
    }
    if in_place(e, i, op, a, b) {
        return;
    }
    let (mut sa, mut sb) = (e.src(a), e.src(b));
    let size = size_of(e, i);
    let dst = e.dst_over_either(i, sa, sb);
    if op != Alu::Sub && sb == Src::Reg(dst) && sa != sb {
        (sa, sb) = (sb, sa);
    }
    if op == Alu::Add && sa != Src::Reg(dst) {
        let sum = match (sa, sb) {
            (Src::Reg(a), Src::Imm(imm)) => Some(Mem::new(a, imm)),
            (Src::Reg(a), Src::Reg(b)) => Some(Mem::indexed(a, b, 0, 0)),
            _ => None,
        };
        if let Some(sum) = sum {
            e.code.lea(size, dst, sum);
            return e.define(i, dst);
        }
    }
    match sb {
        _ if sb == Src::Reg(dst) && sa != sb => {
            // dst = sa - dst.
            e.code.group3(Group3::Neg, size, Rm::Reg(dst));
            alu_src(e, Alu::Add, size, dst, sa);
        }
        Src::Imm(-1) if op == Alu::Xor => {
            e.copy(dst, sa);
            e.code.group3(Group3::Not, size, Rm::Reg(dst));
        }
        Src::Imm(0xff) if op == Alu::And => {
            let rm = e.rm_of(sa);
            e.code.extend(Width::Byte, false, dst, rm);
        }
        Src::Imm(mask) if op == Alu::And && mask >= 0 => {
            e.copy(dst, sa);
            e.code.alu_imm(op, Size::L, Rm::Reg(dst), mask);
        }
        Src::Imm(0) if op == Alu::Add => e.copy(dst, sa),
        _ => {
            e.copy(dst, sa);
            alu_src(e, op, size, dst, sb);
        }
    }
    e.define(i, dst);
}

/// 32 bits if only the low half of the result is used.
pub(super) fn size_of(e: &Emitter, i: u32) -> Size {
    match e.alloc.only_user(i).map(|user| e.ops[user as usize]) {
        Some(Op::Un(Un::SextW | Un::ZextW, _)) => Size::L,
        _ => Size::Q,
    }
}

/// A register in the frame is changed by an operation on itself: done there, if so.
fn in_place(e: &mut Emitter, i: u32, op: Alu, a: Val, b: Val) -> bool {
    let Some(&Op::Set(slot, set)) = e.ops.get(i as usize + 1) else { return false };
    if set.0 != i
        || e.homes.of(slot) != Home::Frame
        || is_discarded(slot)
        || e.alloc.value(set).uses != 1
    {
        return false;
    }
    let b = match (e.alloc.value(a).loc, e.alloc.value(b).loc) {
        (Loc::Slot(s), _) if s == slot => b,
        (_, Loc::Slot(s)) if s == slot && op != Alu::Sub => a,
        _ => return false,
    };
    e.free_slot(slot, i);
    match e.src(b) {
        Src::Imm(imm) => e.code.alu_imm(op, Size::Q, Rm::Mem(in_frame(slot)), imm),
        src => {
            let b = e.reg_of(src);
            e.code.alu_to_mem(op, Size::Q, in_frame(slot), b);
        }
    }
    e.next += 1;
    true
}

/// `base + (index << 1, 2 or 3)`, if one operand is such a shift that was left to its user.
fn scaled_add(e: &mut Emitter, i: u32, a: Val, b: Val) -> bool {
    let deferred = |e: &Emitter, v: Val| match e.ops[v.0 as usize] {
        Op::Bin(Bin::Sll, index, amount) if e.alloc.is_deferred(v) => Some((index, amount)),
        _ => None,
    };
    let ((index, amount), base) = match (deferred(e, a), deferred(e, b)) {
        (Some(shift), _) => (shift, b),
        (None, Some(shift)) => (shift, a),
        (None, None) => return false,
    };
    let Op::Const(amount) = e.ops[amount.0 as usize] else { return false };
    let index = e.gpr(index);
    let base = e.gpr(base);
    let dst = e.dst_over(i, Src::Reg(index));
    e.code.lea(Size::Q, dst, Mem::indexed(base, index, amount as u8, 0));
    e.define(i, dst);
    true
}

/// `a & !b`, if `b`'s complement was left to its user.
fn and_not(e: &mut Emitter, i: u32, a: Val, b: Val) -> bool {
    let complement = |e: &Emitter, v: Val| match e.ops[v.0 as usize] {
        Op::Bin(Bin::Xor, of, _) if e.alloc.is_deferred(v) => Some(of),
        _ => None,
    };
    let (of, other) = match (complement(e, a), complement(e, b)) {
        (Some(of), _) => (of, b),
        (None, Some(of)) => (of, a),
        (None, None) => return false,
    };
    let of = e.gpr(of);
    let other = e.rm(other);
    let dst = e.dst_over(i, Src::Reg(of));
    e.code.vex(ANDN, Size::Q, dst, of, other);
    e.define(i, dst);
    true
}

/// A shift by any amount.
fn shift(e: &mut Emitter, i: u32, op: Shift, a: Val, b: Val) {
    if let Loc::Const(amount) = e.alloc.value(b).loc {
        let amount = amount as u8 & 63;
        let dst = shifted_from(e, i, a);
        if amount != 0 {
            e.code.shift_imm(op, Size::Q, dst, amount);
        }
        return e.define(i, dst);
    }
    if op == Shift::Sar && is_word_shift(&e.ops, Val(i)) {
        return word_shift(e, i, op, a, b);
    }
    shift_by(e, i, op, Size::Q, a, b);
}

/// The destination of a shift by a constant, with the value, extended if that was left to the shift.
fn shifted_from(e: &mut Emitter, i: u32, a: Val) -> Reg {
    if let Op::Un(extension @ (Un::ZextW | Un::SextW), of) = e.ops[a.0 as usize]
        && e.alloc.is_deferred(a)
    {
        let from = e.src(of);
        let dst = e.dst_over(i, from);
        let rm = e.rm_of(from);
        e.code.extend(Width::Word, extension == Un::SextW, dst, rm);
        return dst;
    }
    let sa = e.src(a);
    let dst = e.dst_over(i, sa);
    e.copy(dst, sa);
    dst
}

/// A shift by a variable amount.
fn shift_by(e: &mut Emitter, i: u32, op: Shift, size: Size, a: Val, b: Val) {
    if !e.features.bmi2 {
        return by_cl(e, i, op, size, a, b);
    }
    let amount = e.gpr(b);
    let a = e.rm(a);
    let dst = e.dst_over(i, Src::Reg(amount));
    let op = match op {
        Shift::Shl => SHLX,
        Shift::Shr => SHRX,
        _ => SARX,
    };
    e.code.vex(op, size, dst, amount, a);
    sign_extend_word(e, size, dst);
    e.define(i, dst);
}

/// A shift of 32-bit words, sign-extended; its operands' masks and extensions have no effect on it.
fn word_shift(e: &mut Emitter, i: u32, op: Shift, a: Val, b: Val) {
    let (a, b) = (e.alloc.inner(&e.ops, a), e.alloc.inner(&e.ops, b));
    if let Loc::Const(amount) = e.alloc.value(b).loc {
        let sa = e.src(a);
        let dst = e.dst_over(i, sa);
        e.copy(dst, sa);
        if amount != 0 {
            e.code.shift_imm(op, Size::L, dst, amount as u8);
        }
        sign_extend_word(e, Size::L, dst);
        return e.define(i, dst);
    }
    shift_by(e, i, op, Size::L, a, b);
}

/// A rotation; those of 32 bits are sign-extended.
fn rotate(e: &mut Emitter, i: u32, op: Shift, size: Size, a: Val, b: Val) {
    let bits = if size == Size::Q { 64 } else { 32 };
    if let Loc::Const(amount) = e.alloc.value(b).loc {
        let right = match op {
            Shift::Rol => (bits - amount % bits) % bits,
            _ => amount % bits,
        };
        let sa = e.src(a);
        let dst = if e.features.bmi2 {
            let rm = e.rm_of(sa);
            let dst = e.dst_over(i, sa);
            e.code.vex_imm8(RORX, size, dst, 0, rm, right as u8);
            dst
        } else {
            let dst = e.dst_over(i, sa);
            e.copy(dst, sa);
            e.code.shift_imm(Shift::Ror, size, dst, right as u8);
            dst
        };
        sign_extend_word(e, size, dst);
        return e.define(i, dst);
    }
    by_cl(e, i, op, size, a, b);
}

/// A shift or rotation by CL; one of 32 bits is sign-extended.
fn by_cl(e: &mut Emitter, i: u32, op: Shift, size: Size, a: Val, b: Val) {
    fixed(e, i, RAX, a, b);
    e.code.shift_cl(op, size, RAX);
    finish(e, i, size, RAX);
}

/// Puts `a` into `to` (RAX or RDX) and `b` into RCX. All scratch registers belong to the operation then.
pub(super) fn fixed(e: &mut Emitter, i: u32, to: Reg, a: Val, b: Val) {
    let (sa, sb) = e.own_scratch(i, a, b);
    match (sa, sb) {
        (Src::Reg(RCX), Src::Reg(r)) if r == to => {
            e.code.op(XCHG, Size::Q, to, Rm::Reg(RCX));
        }
        (_, Src::Reg(r)) if r == to => {
            e.copy(RCX, sb);
            e.copy(to, sa);
        }
        _ => {
            e.copy(to, sa);
            e.copy(RCX, sb);
        }
    }
}

fn sign_extend_word(e: &mut Emitter, size: Size, r: Reg) {
    if size == Size::L {
        e.code.extend(Width::Word, true, r, Rm::Reg(r));
    }
}

/// The result of operation `i` is in a scratch register; one of 32 bits is sign-extended.
pub(super) fn finish(e: &mut Emitter, i: u32, size: Size, result: Reg) {
    let dst = e.dst_over(i, Src::Reg(result));
    match size {
        Size::L => e.code.extend(Width::Word, true, dst, Rm::Reg(result)),
        Size::Q => e.copy(dst, Src::Reg(result)),
    }
    e.define(i, dst);
}

/// [`Op::Bin`].
pub(super) fn bin(e: &mut Emitter, i: u32, op: Bin, a: Val, b: Val) {
    match op {
        Bin::Add if scaled_add(e, i, a, b) => {}
        Bin::Add => alu(e, i, Alu::Add, a, b),
        Bin::Sub => match e.alloc.value(b).loc {
            Loc::Const(c) if fits(c.wrapping_neg()) => add_const(e, i, a, c.wrapping_neg()),
            _ => alu(e, i, Alu::Sub, a, b),
        },
        Bin::And if e.features.bmi1 && and_not(e, i, a, b) => {}
        Bin::And => alu(e, i, Alu::And, a, b),
        Bin::Or => alu(e, i, Alu::Or, a, b),
        Bin::Xor => alu(e, i, Alu::Xor, a, b),
        Bin::Sll => shift(e, i, Shift::Shl, a, b),
        Bin::Srl => shift(e, i, Shift::Shr, a, b),
        Bin::Sra => shift(e, i, Shift::Sar, a, b),
        Bin::Rol => rotate(e, i, Shift::Rol, Size::Q, a, b),
        Bin::Ror => rotate(e, i, Shift::Ror, Size::Q, a, b),
        Bin::Rolw => rotate(e, i, Shift::Rol, Size::L, a, b),
        Bin::Rorw => rotate(e, i, Shift::Ror, Size::L, a, b),
        Bin::Slt | Bin::Sltu | Bin::Eq => set_if(e, i, op, a, b),
        Bin::Mul => mul(e, i, a, b),
        Bin::Mulh | Bin::Mulhu | Bin::Mulhsu => mul_high(e, i, op, a, b),
        Bin::Div
        | Bin::Divu
        | Bin::Rem
        | Bin::Remu
        | Bin::Divw
        | Bin::Divuw
        | Bin::Remw
        | Bin::Remuw => divide(e, i, op, a, b),
        Bin::Min => pick(e, i, Cond::L, a, b),
        Bin::Minu => pick(e, i, Cond::B, a, b),
        Bin::Max => pick(e, i, Cond::G, a, b),
        Bin::Maxu => pick(e, i, Cond::A, a, b),
        Bin::Clmul | Bin::Clmulh | Bin::Clmulr => carry_less(e, i, op, a, b),
    }
}

/// A sum with a constant that fits an immediate.
fn add_const(e: &mut Emitter, i: u32, a: Val, c: u64) {
    let sa = e.src(a);
    let dst = e.dst_over(i, sa);
    match sa {
        Src::Reg(a) if a != dst => e.code.lea(Size::Q, dst, Mem::new(a, c as i32)),
        _ => {
            e.copy(dst, sa);
            e.code.alu_imm(Alu::Add, Size::Q, Rm::Reg(dst), c as i32);
        }
    }
    e.define(i, dst);
}

/// [`Op::Un`].
pub(super) fn un(e: &mut Emitter, i: u32, op: Un, a: Val) {
    if let Op::Bin(shift @ (Bin::Sll | Bin::Srl), x, amount) = e.ops[a.0 as usize]
        && e.alloc.is_deferred(a)
    {
        let shift = if shift == Bin::Sll { Shift::Shl } else { Shift::Shr };
        return word_shift(e, i, shift, x, amount);
    }
    let sa = e.src(a);
    if op == Un::Rev8 {
        let dst = e.dst_over(i, sa);
        e.copy(dst, sa);
        e.code.bswap(dst);
        return e.define(i, dst);
    }
    if op == Un::OrcB {
        let (x, zero) = (e.take_xmm(), e.take_xmm());
        copy_to_xmm(e, x, sa);
        e.code.op(PXOR, Size::L, zero, Rm::Reg(zero));
        e.code.op(PCMPEQB, Size::L, x, Rm::Reg(zero));
        let dst = e.dst_over(i, sa);
        e.code.movq_from_xmm(Rm::Reg(dst), x);
        e.code.group3(Group3::Not, Size::Q, Rm::Reg(dst));
        return e.define(i, dst);
    }
    let rm = e.rm_of(sa);
    let dst = match rm {
        Rm::Reg(r) => e.dst_over(i, Src::Reg(r)),
        Rm::Mem(_) | Rm::Far(_) => e.dst(),
    };
    match op {
        Un::Clz => e.code.op(LZCNT, Size::Q, dst, rm),
        Un::Ctz => e.code.op(TZCNT, Size::Q, dst, rm),
        Un::Cpop => e.code.op(POPCNT, Size::Q, dst, rm),
        Un::Clzw => e.code.op(LZCNT, Size::L, dst, rm),
        Un::Ctzw => e.code.op(TZCNT, Size::L, dst, rm),
        Un::Cpopw => e.code.op(POPCNT, Size::L, dst, rm),
        Un::SextB => e.code.extend(Width::Byte, true, dst, rm),
        Un::SextH => e.code.extend(Width::Half, true, dst, rm),
        Un::SextW => e.code.extend(Width::Word, true, dst, rm),
        Un::ZextB => e.code.extend(Width::Byte, false, dst, rm),
        Un::ZextH => e.code.extend(Width::Half, false, dst, rm),
        Un::ZextW => e.code.extend(Width::Word, false, dst, rm),
        Un::OrcB | Un::Rev8 => {}
    }
    e.define(i, dst);
}

/// [`Op::Pc`].
pub(super) fn pc(e: &mut Emitter, i: u32, offset: i64) {
    let dst = e.dst();
    page_plus(e, dst, offset);
    e.define(i, dst);
}

/// The current page's virtual address plus an offset.
pub(super) fn page_plus(e: &mut Emitter, dst: Reg, offset: i64) {
    let page = Rm::Mem(Mem::new(RBP, PAGE_VA));
    match i32::try_from(offset) {
        Ok(0) => e.code.mov(Size::Q, dst, page),
        Ok(offset) => {
            e.code.mov(Size::Q, dst, page);
            e.code.alu_imm(Alu::Add, Size::Q, Rm::Reg(dst), offset);
        }
        Err(_) => {
            e.code.mov_imm(dst, offset as u64);
            e.code.alu(Alu::Add, Size::Q, dst, page);
        }
    }
}
