//! Values as operands and destinations of instructions.

use super::Emitter;
use super::alloc::{SCRATCH, Src, is_scratch};
use super::asm::{Reg, Rm, Size};
use crate::ir::Val;

impl Emitter {
    /// Copies an operand into a register without touching the flags.
    pub(super) fn copy_keeping_flags(&mut self, dst: Reg, src: Src) {
        match src {
            Src::Reg(r) if r == dst => {}
            Src::Reg(r) => self.code.mov(Size::Q, dst, Rm::Reg(r)),
            Src::Mem(mem) => self.code.mov(Size::Q, dst, Rm::Mem(mem)),
            Src::Imm(imm) => self.code.mov_imm_keeping_flags(dst, imm as u64),
            Src::Wide(value) => self.code.mov_imm_keeping_flags(dst, value),
            Src::Xmm(r) => self.code.movq_from_xmm(Rm::Reg(dst), r),
            Src::Single(r) => self.code.movd_from_xmm(Rm::Reg(dst), r),
        }
    }

    /// Copies an operand into a register.
    pub(super) fn copy(&mut self, dst: Reg, src: Src) {
        if src == Src::Imm(0) {
            self.code.mov_imm(dst, 0);
        } else {
            self.copy_keeping_flags(dst, src);
        }
    }

    /// An operand in a register; a scratch register is taken if it is not in one. Touches no flags.
    pub(super) fn reg_of(&mut self, src: Src) -> Reg {
        if let Src::Reg(r) = src {
            return r;
        }
        let r = self.take();
        self.copy_keeping_flags(r, src);
        r
    }

    /// A value in a register.
    pub(super) fn gpr(&mut self, v: Val) -> Reg {
        let src = self.src(v);
        self.reg_of(src)
    }

    /// An operand in a register or memory. Touches no flags.
    pub(super) fn rm_of(&mut self, src: Src) -> Rm {
        match src {
            Src::Mem(mem) => Rm::Mem(mem),
            _ => Rm::Reg(self.reg_of(src)),
        }
    }

    /// A value in a register or memory.
    pub(super) fn rm(&mut self, v: Val) -> Rm {
        let src = self.src(v);
        self.rm_of(src)
    }

    /// A value in an xmm register, low half: its home, or a scratch register.
    pub(super) fn xmm(&mut self, v: Val) -> Reg {
        match self.src(v) {
            Src::Xmm(r) => r,
            Src::Mem(mem) => {
                let r = self.take_xmm();
                self.code.movq_to_xmm(r, Rm::Mem(mem));
                r
            }
            src => {
                let from = self.reg_of(src);
                let r = self.take_xmm();
                self.code.movq_to_xmm(r, Rm::Reg(from));
                r
            }
        }
    }

    /// Where operation `i` shall put its result: the home of the guest register that it is for, or a scratch
    /// register.
    pub(super) fn dst(&mut self) -> Reg {
        match self.target {
            Some((_, r)) => r,
            None => self.take(),
        }
    }

    /// The same, preferably the register of an operand that is not needed any more.
    pub(super) fn dst_over(&mut self, i: u32, operand: Src) -> Reg {
        match (self.target, operand) {
            (None, Src::Reg(r)) if is_scratch(r) && self.alloc.is_free_after(r, i) => r,
            _ => self.dst(),
        }
    }

    /// The same, with two candidates.
    pub(super) fn dst_over_either(&mut self, i: u32, a: Src, b: Src) -> Reg {
        match a {
            Src::Reg(r) if is_scratch(r) && self.alloc.is_free_after(r, i) => self.dst_over(i, a),
            _ => self.dst_over(i, b),
        }
    }

    /// Two operands, after what scratch registers hold and is read after operation `i` went elsewhere: all
    /// scratch registers can be written, but until then still hold the operands that they held.
    pub(super) fn own_scratch(&mut self, i: u32, a: Val, b: Val) -> (Src, Src) {
        let operands = (self.src(a), self.src(b));
        for r in SCRATCH {
            self.clear(r, i);
            self.alloc.lock(r);
        }
        operands
    }

    /// Operation `i` has put its result into `r`, which [`dst`](Self::dst) gave.
    pub(super) fn define(&mut self, i: u32, r: Reg) {
        match self.target.take() {
            Some((slot, _)) => {
                self.set_alias(i, slot);
                self.next += 1;
            }
            None => self.set_gpr(i, r),
        }
    }
}
