//! The rules by which operations are replaced by simpler ones.

use mimic_cpu::bus::PAGE_MASK;
use mimic_cpu::riscv::alu;
use mimic_cpu::riscv::sem::{Bin, Un};

use super::facts::BOX;
use super::{Builder, Fact, Op, Passes, Slot, SlotFact, Val};

/// The canonical NaN of single precision.
const NAN: u64 = 0x7fc0_0000;

fn commutes(op: Bin) -> bool {
    matches!(
        op,
        Bin::Add
            | Bin::And
            | Bin::Or
            | Bin::Xor
            | Bin::Eq
            | Bin::Mul
            | Bin::Mulh
            | Bin::Mulhu
            | Bin::Min
            | Bin::Minu
            | Bin::Max
            | Bin::Maxu
            | Bin::Clmul
            | Bin::Clmulh
            | Bin::Clmulr
    )
}

fn is_short(value: u64) -> bool {
    i32::try_from(value as i64).is_ok()
}

/// Bits that an extension keeps, and whether it repeats the sign.
fn extension(op: Un) -> Option<(u8, bool)> {
    match op {
        Un::SextB => Some((8, true)),
        Un::SextH => Some((16, true)),
        Un::SextW => Some((32, true)),
        Un::ZextB => Some((8, false)),
        Un::ZextH => Some((16, false)),
        Un::ZextW => Some((32, false)),
        _ => None,
    }
}

/// The extension of `bits` bits.
fn extend(bits: u64, signed: bool) -> Option<Un> {
    match (bits, signed) {
        (8, true) => Some(Un::SextB),
        (16, true) => Some(Un::SextH),
        (32, true) => Some(Un::SextW),
        (8, false) => Some(Un::ZextB),
        (16, false) => Some(Un::ZextH),
        (32, false) => Some(Un::ZextW),
        _ => None,
    }
}

impl Builder {
    /// A simpler value for `op(a, b)`.
    pub(super) fn fold_bin(&mut self, op: Bin, a: Val, b: Val) -> Option<Val> {
        match (self.constant(a), self.constant(b)) {
            (Some(x), Some(y)) => {
                let v = self.imm(alu::bin(op, x, y));
                if op == Bin::Add {
                    self.note_sum(v, a, b);
                }
                return Some(v);
            }
            (Some(_), None) if commutes(op) => return Some(self.bin(op, b, a)),
            (None, Some(c)) => {
                if let Some(v) = self.fold_with_constant(op, a, b, c) {
                    return Some(v);
                }
            }
            _ => {}
        }
        match (op, self.op(a), self.op(b)) {
            (Bin::Sub | Bin::Xor | Bin::Slt | Bin::Sltu, ..) if a == b => Some(self.imm(0)),
            (Bin::Eq, ..) if a == b => Some(self.imm(1)),
            (Bin::And | Bin::Or, ..) if a == b => Some(a),
            (Bin::Sub, Op::Pc(a), Op::Pc(b)) => Some(self.imm(a.wrapping_sub(b) as u64)),
            (Bin::Or, ..) => self.join(a, b),
            // x ^ (x & m), FSGNJX with equal operands: an absolute value.
            (Bin::Xor, from, Op::Bin(Bin::And, x, m)) if x == a || from == Op::Un(Un::ZextW, x) => {
                let m = self.constant(m)?;
                let rest = self.imm(!m);
                Some(self.bin(Bin::And, a, rest))
            }
            _ => None,
        }
    }

    /// `a` is known of a register: remembers how `sum` came about.
    fn note_sum(&mut self, sum: Val, a: Val, b: Val) {
        if let Some(&(slot, _)) = self.now.reads.iter().flatten().find(|read| read.1 == a) {
            self.now.sum = Some((sum, slot, b));
        }
    }

    /// A simpler value for `op(a, b)` where `b` is the constant `c`.
    fn fold_with_constant(&mut self, op: Bin, a: Val, b: Val, c: u64) -> Option<Val> {
        match op {
            Bin::Add | Bin::Sub | Bin::Or | Bin::Xor if c == 0 => Some(a),
            Bin::Add => match self.op(a) {
                Op::Pc(offset) => {
                    let v = self.pc(offset.wrapping_add(c as i64));
                    self.note_sum(v, a, b);
                    Some(v)
                }
                _ => None,
            },
            Bin::Sub => {
                let negated = self.imm(c.wrapping_neg());
                Some(self.bin(Bin::Add, a, negated))
            }
            Bin::And => self.fold_mask(a, c),
            Bin::Or if c == u64::MAX => Some(b),
            Bin::Or if c == BOX => Some(self.boxed(a)),
            Bin::Sll | Bin::Srl | Bin::Sra | Bin::Rol | Bin::Ror => match c & 63 {
                0 => Some(a),
                n if n != c => {
                    let n = self.imm(n);
                    Some(self.bin(op, a, n))
                }
                _ => None,
            },
            Bin::Sltu if c == 0 => Some(b),
            Bin::Sltu if c == 1 => {
                let zero = self.imm(0);
                Some(self.bin(Bin::Eq, a, zero))
            }
            Bin::Eq if c & !self.fact(a).mask() != 0 => Some(self.imm(0)),
            Bin::Mul if c == 0 => Some(b),
            Bin::Mul | Bin::Divu if c.is_power_of_two() => {
                let shift = self.imm(u64::from(c.trailing_zeros()));
                Some(self.bin(if op == Bin::Mul { Bin::Sll } else { Bin::Srl }, a, shift))
            }
            Bin::Remu if c.is_power_of_two() => {
                let mask = self.imm(c - 1);
                Some(self.bin(Bin::And, a, mask))
            }
            _ => None,
        }
    }

    /// A simpler value for `a & c`.
    fn fold_mask(&mut self, a: Val, c: u64) -> Option<Val> {
        let fact = self.fact(a);
        let mask = fact.mask();
        if mask & !c == 0 {
            return Some(a);
        }
        if mask & c == 0 {
            return Some(self.imm(0));
        }
        if fact.boxed && c == BOX {
            return Some(self.imm(BOX));
        }
        // The same bits of something simpler.
        let (inner, inner_c) = match self.op(a) {
            Op::Pc(offset) if c | PAGE_MASK == u64::MAX => {
                return Some(self.pc(offset & c as i64));
            }
            Op::Bin(Bin::And, x, m) => (x, c & self.constant(m)?),
            Op::Bin(Bin::Xor, x, m) => {
                let flip = self.constant(m)? & c;
                let mask = self.imm(c);
                let (kept, flip) = (self.bin(Bin::And, x, mask), self.imm(flip));
                return Some(self.bin(Bin::Xor, kept, flip));
            }
            Op::Un(op, x) => match extension(op) {
                Some((bits, false)) => (x, c & (u64::MAX >> (64 - bits))),
                _ => (a, c),
            },
            _ => (a, c),
        };
        if inner != a {
            let inner_c = self.imm(inner_c);
            return Some(self.bin(Bin::And, inner, inner_c));
        }
        if let Some(op) = extend(u64::from(c.trailing_ones()), false)
            && c.count_ones() == c.trailing_ones()
        {
            return Some(self.un(op, a));
        }
        let needed = c & mask;
        if needed != c && (is_short(needed) || !is_short(c)) {
            let needed = self.imm(needed);
            return Some(self.bin(Bin::And, a, needed));
        }
        None
    }

    /// `value`, as the bits of something that are kept, and which of them are flipped.
    fn masked(&self, value: Val) -> Option<(Val, u64, u64)> {
        match self.op(value) {
            Op::Bin(Bin::And, x, m) => Some((x, self.constant(m)?, 0)),
            Op::Bin(Bin::Xor, x, flip) => match self.op(x) {
                Op::Bin(Bin::And, x, m) => Some((x, self.constant(m)?, self.constant(flip)?)),
                _ => None,
            },
            _ => None,
        }
    }

    /// `a | b` where both are different bits of the same: FSGNJ and FSGNJN with equal operands.
    fn join(&mut self, a: Val, b: Val) -> Option<Val> {
        let ((x, m, flip), (y, n, other_flip)) = (self.masked(a)?, self.masked(b)?);
        if x != y || m & n != 0 {
            return None;
        }
        let (mask, flip) = (self.imm(m | n), self.imm(flip | other_flip));
        let v = self.bin(Bin::And, x, mask);
        Some(self.bin(Bin::Xor, v, flip))
    }

    /// A simpler value for `op(a)`.
    pub(super) fn fold_un(&mut self, op: Un, a: Val) -> Option<Val> {
        if let Some(c) = self.constant(a) {
            return Some(self.imm(alu::un(op, c)));
        }
        let (bits, signed) = extension(op)?;
        let fact = self.fact(a);
        let extended = if signed { fact.sign } else { fact.zero };
        if extended <= bits {
            return Some(a);
        }
        match self.op(a) {
            Op::Un(inner, x) if extension(inner).is_some_and(|(kept, _)| bits <= kept) => {
                Some(self.un(op, x))
            }
            _ => None,
        }
    }

    /// A simpler value for a selection.
    pub(super) fn fold_select(&mut self, cond: Val, a: Val, b: Val) -> Option<Val> {
        if let Some(cond) = self.constant(cond) {
            return Some(if cond != 0 { a } else { b });
        }
        if a == b {
            return Some(a);
        }
        // How bodies take a single from its register.
        let Op::Bin(Bin::Eq, tag, ones) = self.op(cond) else { return None };
        let (Op::Bin(Bin::And, v, mask), Op::Un(Un::ZextW, low)) = (self.op(tag), self.op(a))
        else {
            return None;
        };
        let is = |v, value| self.constant(v) == Some(value);
        (low == v && is(ones, BOX) && is(mask, BOX) && is(b, NAN))
            .then(|| self.pure(Op::Unbox(v), Fact::zero(32)))
    }

    /// The low half of `v`, boxed.
    fn boxed(&mut self, v: Val) -> Val {
        let low = self.low_half(v);
        if self.fact(low).boxed {
            return low;
        }
        match self.constant(low) {
            Some(value) => self.imm(value | BOX),
            None => {
                let low = self.operand(low);
                self.pure(Op::Box(low), Fact::boxed())
            }
        }
    }

    /// Something with the same low half as `v`.
    pub(super) fn low_half(&mut self, v: Val) -> Val {
        if !self.folds() {
            return v;
        }
        match self.op(v) {
            Op::Un(Un::ZextW | Un::SextW, inner) => self.low_half(inner),
            Op::Bin(op @ (Bin::And | Bin::Xor), a, b) => {
                let Some(c) = self.constant(b) else { return v };
                let (low, c) = (self.low_half(a), self.imm(c as i32 as u64));
                self.bin(op, low, c)
            }
            _ => v,
        }
    }

    /// Something that is zero when `cond` is.
    pub(super) fn condition(&self, mut cond: Val) -> Val {
        let is_zero = |v| self.constant(v) == Some(0);
        while self.folds() {
            cond = match self.op(cond) {
                Op::Bin(Bin::Eq, inner, zero) if is_zero(zero) => match self.op(inner) {
                    Op::Bin(Bin::Eq, v, zero) if is_zero(zero) => v,
                    _ => break,
                },
                Op::Bin(Bin::Sltu, zero, v) if is_zero(zero) => v,
                _ => break,
            };
        }
        cond
    }

    /// A shift to the left and then to the right by two neighbouring instructions, of which `v` is the second and
    /// about to be written to `slot`: an extension, maybe shifted.
    pub(super) fn fuse(&mut self, slot: Slot, v: Val) -> Val {
        self.fused(slot, v).unwrap_or(v)
    }

    fn fused(&mut self, slot: Slot, v: Val) -> Option<Val> {
        // Without the removal of dead writes, what the first shift has read would have to be kept beside its
        // result.
        if !self.passes.contains(Passes::FOLD | Passes::FACTS | Passes::DCE) {
            return None;
        }
        let Op::Bin(second @ (Bin::Srl | Bin::Sra), shifted, right) = self.op(v) else {
            return None;
        };
        let Op::Get(between) = self.op(shifted) else { return None };
        if self.known >> between & 1 == 0 {
            return None;
        }
        let SlotFact { value, set, .. } = self.slots[usize::from(between)];
        let Op::Bin(Bin::Sll, x, left) = value else { return None };
        let (left, right) = (self.constant(left)?, self.constant(right)?);
        let Op::Get(from) = self.op(x) else { return None };
        let [.., previous, _] = *self.block.insns else { return None };
        if set < previous.first {
            return None;
        }
        let x = match from == between {
            true if slot == between => x,
            true => return None,
            false => self.get(from),
        };
        let signed = second == Bin::Sra;
        let Some(op) = extend(64 - left, signed) else {
            let mask = u64::MAX >> left;
            if left != right || signed || !is_short(mask) {
                return None;
            }
            let mask = self.imm(mask);
            return Some(self.bin(Bin::And, x, mask));
        };
        let v = self.un(op, x);
        let (op, amount) =
            if right < left { (Bin::Sll, left - right) } else { (second, right - left) };
        let amount = self.imm(amount);
        Some(self.bin(op, v, amount))
    }
}
