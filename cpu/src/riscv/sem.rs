//! What an instruction body may ask for.
//!
//! A body is written once, generic over [`Sem`]. The interpreter implements it on values (`V = u64`);
//! a translator implements it on nodes of its IR. So a body must not look at a value: conditions on
//! values go through [`Sem::select`], [`Sem::branch`] and friends, while operands of the instruction
//! itself (register numbers, immediates) are plain data and may be used freely.

use super::csr::CsrOp;
use super::insn::{At, Instruction};
use crate::bus::Width;

/// An enum of operations, which can be gone through.
macro_rules! operations {
    ($(#[$attr:meta])* pub enum $name:ident { $($(#[$doc:meta])* $op:ident,)* }) => {
        $(#[$attr])*
        pub enum $name {
            $($(#[$doc])* $op,)*
        }

        impl $name {
            /// All of them, as they are declared.
            pub const ALL: &[Self] = &[$(Self::$op),*];
        }
    };
}

operations! {
    /// Integer operations on two 64-bit values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[allow(missing_docs)] // Named after the instructions that need them.
    pub enum Bin {
        Add,
        Sub,
        And,
        Or,
        Xor,
        /// Shifts take the amount modulo 64.
        Sll,
        Srl,
        Sra,
        /// 1 if less (signed), else 0.
        Slt,
        Sltu,
        /// 1 if equal, else 0.
        Eq,
        Mul,
        Mulh,
        Mulhu,
        Mulhsu,
        /// Division as RISC-V defines it for zero divisors and overflow.
        Div,
        Divu,
        Rem,
        Remu,
        /// 32-bit rotations; the result is sign-extended.
        Rolw,
        Rorw,
        Rol,
        Ror,
        Min,
        Minu,
        Max,
        Maxu,
        /// Carry-less product: low half, high half, reversed.
        Clmul,
        Clmulh,
        Clmulr,
        /// 32-bit division; operands are taken from the low halves, the result is sign-extended.
        Divw,
        Divuw,
        Remw,
        Remuw,
    }
}

operations! {
    /// Integer operations on one 64-bit value.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[allow(missing_docs)]
    pub enum Un {
        Clz,
        Ctz,
        Cpop,
        Clzw,
        Ctzw,
        Cpopw,
        /// OR-combine each byte: 0xff where any bit is set.
        OrcB,
        /// Byte reversal.
        Rev8,
        SextB,
        SextH,
        SextW,
        ZextB,
        ZextH,
        ZextW,
    }
}

/// Read-modify-write operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Amo {
    Swap,
    Add,
    Xor,
    And,
    Or,
    Min,
    Max,
    Minu,
    Maxu,
}

/// What instructions do to memory besides loads and stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atomic {
    /// LR: reserves what it loads.
    LoadReserved,
    /// SC: stores if the reservation still holds; 0 on success, 1 on failure.
    StoreConditional,
    /// Reads, modifies and writes.
    Amo(Amo),
    /// CBO.ZERO: zeroes the cache block that holds the address, by single stores. It may do so if the operand is not 0;
    /// else it is the interpreter that decides.
    ZeroBlock,
}

/// Floating-point formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fmt {
    /// Half precision.
    H,
    /// Single precision.
    S,
    /// Double precision.
    D,
}

operations! {
    /// Floating-point operations on two operands.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[allow(missing_docs)]
    pub enum Fp2 {
        Add,
        Sub,
        Mul,
        Div,
        Min,
        Max,
        /// IEEE minimum and maximum, which propagate NaN (Zfa).
        Minm,
        Maxm,
        /// Comparisons: 1 or 0.
        Eq,
        Lt,
        Le,
        /// Comparisons that do not signal on quiet NaNs (Zfa).
        Ltq,
        Leq,
    }
}

/// Floating-point operations on one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fp1 {
    Sqrt,
    Class,
    /// To an integral value, without and with the inexact flag (Zfa).
    Round,
    Roundnx,
    /// To integers; results are sign-extended to 64 bits.
    ToI32,
    ToU32,
    ToI64,
    ToU64,
    /// FCVTMOD.W.D.
    ToI32Mod,
    /// From integers, taken from an x register.
    FromI32,
    FromU32,
    FromI64,
    FromU64,
    /// From another floating-point format.
    From(Fmt),
}

/// Cache-block operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Cbo {
    Clean,
    Flush,
    Inval,
    Zero,
}

/// The sets of a FENCE that is Zihintpause's PAUSE.
pub const PAUSE: (u8, u8) = (1, 0);

/// The world of an instruction body.
///
/// `Err(Stop)` means that the instruction ends here (an exception, usually); bodies pass it on by `?`
/// before they change any state.
pub trait Sem: Sized {
    /// A 64-bit value.
    type V: Copy;
    /// The instruction did not complete.
    type Stop;
    /// What is kept per instruction to perform it.
    type Handler: Copy;

    /// Makes the handler of an instruction.
    fn handler<I: Instruction<Self>>() -> Self::Handler;

    /// A constant.
    fn imm(&mut self, value: i64) -> Self::V;
    /// Integer register `r`.
    fn x(&mut self, r: u8) -> Self::V;
    /// Sets integer register `r` ([`super::insn::SINK`] discards).
    fn set_x(&mut self, r: u8, v: Self::V);
    /// Address of the instruction, plus `offset`.
    fn pc(&mut self, at: At, offset: i64) -> Self::V;
    /// Two-operand integer operation.
    fn bin(&mut self, op: Bin, a: Self::V, b: Self::V) -> Self::V;
    /// One-operand integer operation.
    fn un(&mut self, op: Un, a: Self::V) -> Self::V;
    /// `a` if `cond` is not zero, else `b`.
    fn select(&mut self, cond: Self::V, a: Self::V, b: Self::V) -> Self::V;

    /// Jumps to `target`, whose lowest bit is ignored.
    fn jump(&mut self, target: Self::V);
    /// Jumps to the instruction's address plus `offset`.
    fn jump_by(&mut self, at: At, offset: i64);
    /// Jumps to the instruction's address plus `offset` if `cond` is not zero.
    fn branch(&mut self, cond: Self::V, at: At, offset: i64);

    /// Loads, zero-extended.
    fn load(&mut self, addr: Self::V, width: Width) -> Result<Self::V, Self::Stop>;
    /// Stores the low bits of `value`.
    fn store(&mut self, addr: Self::V, width: Width, value: Self::V) -> Result<(), Self::Stop>;
    /// Load-reserved, sign-extended.
    fn load_reserved(&mut self, addr: Self::V, width: Width) -> Result<Self::V, Self::Stop>;
    /// Store-conditional: 0 on success, 1 on failure.
    fn store_conditional(
        &mut self,
        addr: Self::V,
        width: Width,
        value: Self::V,
    ) -> Result<Self::V, Self::Stop>;
    /// Atomic read-modify-write; the old value, sign-extended.
    fn amo(
        &mut self,
        op: Amo,
        addr: Self::V,
        width: Width,
        value: Self::V,
    ) -> Result<Self::V, Self::Stop>;
    /// Cache-block operation on the block that holds `addr`.
    fn cbo(&mut self, op: Cbo, addr: Self::V) -> Result<(), Self::Stop>;
    /// Memory fence; the operands are the manual's 4-bit sets (I, O, R, W).
    fn fence(&mut self, pred: u8, succ: u8);
    /// Instruction fence.
    fn fence_i(&mut self);

    /// Illegal-instruction exception.
    fn illegal(&mut self) -> Self::Stop;
    /// Raises illegal instruction unless floating point is enabled (`mstatus.FS`).
    fn need_fp(&mut self) -> Result<(), Self::Stop>;
    /// Sets the rounding mode for the following operation from the instruction's `rm` field; illegal
    /// instruction if it, or the dynamic mode it selects, is reserved.
    fn rounding(&mut self, rm: u8) -> Result<(), Self::Stop>;
    /// Floating-point register `r`, all 64 bits.
    fn f(&mut self, r: u8) -> Self::V;
    /// Sets floating-point register `r` and marks the state dirty.
    fn set_f(&mut self, r: u8, v: Self::V);
    /// Two-operand floating-point operation on unboxed values.
    fn fp2(&mut self, op: Fp2, fmt: Fmt, a: Self::V, b: Self::V) -> Self::V;
    /// One-operand floating-point operation on an unboxed (or integer) value.
    fn fp1(&mut self, op: Fp1, fmt: Fmt, a: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(&mut self, fmt: Fmt, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// CSR instruction; `operand` is `None` when it only reads. The old value.
    fn csr(&mut self, op: CsrOp, csr: u16, operand: Option<Self::V>)
    -> Result<Self::V, Self::Stop>;
    /// ECALL.
    fn ecall(&mut self) -> Self::Stop;
    /// EBREAK.
    fn ebreak(&mut self, at: At) -> Self::Stop;
    /// MRET.
    fn mret(&mut self) -> Result<(), Self::Stop>;
    /// SRET.
    fn sret(&mut self) -> Result<(), Self::Stop>;
    /// WFI.
    fn wfi(&mut self) -> Result<(), Self::Stop>;
    /// WRS.NTO and WRS.STO: waits on the reservation; `timeout` for the short form.
    fn wrs(&mut self, timeout: bool) -> Result<(), Self::Stop>;
    /// SFENCE.VMA and SINVAL.VMA; `None` stands for x0: all addresses, all address spaces.
    fn sfence_vma(&mut self, va: Option<Self::V>, asid: Option<Self::V>) -> Result<(), Self::Stop>;
    /// SFENCE.W.INVAL and SFENCE.INVAL.IR: ordering alone, but privileged.
    fn sfence_order(&mut self) -> Result<(), Self::Stop>;
}

/// Shorthands over the primitives, for readable bodies.
macro_rules! shorthands {
    ($($name:ident $op:ident),* $(,)?) => {
        /// Named two-operand operations.
        pub trait SemExt: Sem {
            $(
                #[doc = concat!("[`Bin::", stringify!($op), "`]")]
                #[inline(always)]
                fn $name(&mut self, a: Self::V, b: Self::V) -> Self::V {
                    self.bin(Bin::$op, a, b)
                }
            )*
        }
        impl<S: Sem> SemExt for S {}
    };
}
shorthands! {
    add Add, sub Sub, and And, or Or, xor Xor, sll Sll, srl Srl, sra Sra, slt Slt, sltu Sltu, eq Eq,
    mul Mul, mulh Mulh, mulhu Mulhu, mulhsu Mulhsu, div Div, divu Divu, rem Rem, remu Remu,
}
