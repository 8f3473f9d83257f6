//! MMX, SSE to SSE4.2, AES, PCLMULQDQ, SHA, F16C, FMA, AVX and AVX2 as pure operations on vectors.
//!
//! The module knows nothing of memory, decoding or the rest of the processor. [`lookup`] maps an instruction code of
//! iced-x86 to a [`SimdOp`]: the operation as a function pointer, and where its operands come from and go to.
//!
//! ```text
//! Code, memory form? -> lookup -> SimdOp { run, dst, a, b, c, memory, align, zero_upper }
//! operands gathered into V256 -> run -> result in `a`, flags raised -> Mxcsr::accrue -> #XM, or the result written
//! ```
//!
//! # How an instruction is performed
//!
//! One form of operation serves two-operand (legacy SSE, MMX) and three-operand (VEX) encodings: `a` is the first source on
//! entry and the result on return, `b` and `c` are further sources. Every operand is a [`V256`] whose low bits count: a
//! general register or a memory operand is put there with zeros above, and taken from there if it is the destination. So
//! the caller
//!
//! 1. reads `op.a`, `op.b`, `op.c` (those not [`Kind::None`]) into registers of its own; a memory operand has `op.memory`
//!    bytes and must be aligned to `op.align`, else #GP;
//! 2. calls the function of `op.run` with them and, if `op.immediate`, the immediate byte;
//! 3. for a floating-point operation passes what was raised to [`Mxcsr::accrue`], and stops with #XM if that says so;
//! 4. writes `op.dst`: an MMX register takes 64 bits, a vector register `op.width` bytes, after which bits 255:128 are
//!    cleared if `op.zero_upper`; a general register 32 (zero-extended) or 64 bits; memory `op.memory` bytes.
//!
//! A [`Run::Int`] whose `dst` and `a` are the same register may work on it in place. A floating-point operation may not: when
//! it traps, its `a` holds rubbish.
//!
//! # Files
//!
//! - [`V64`], [`V128`], [`V256`], [`Vector`] (`vector`), [`Mxcsr`], [`Exceptions`] (`mxcsr`): the data.
//! - `integer`, `shift`, `shuffle`, `aes`, `sha`, `string`: what does not depend on MXCSR.
//! - `fp`: one operation of floating point by x86's rules; `approximation`: the two that are approximate; `float`, `fma`,
//!   `convert`: the instructions made of them.
//! - `table`: the operation of each mnemonic, in the terms of `family`. `op`: operand shapes of each code, derived from iced-x86's tables.

mod aes;
mod approximation;
mod convert;
#[macro_use]
mod family;
mod float;
mod fma;
mod fp;
mod integer;
mod mxcsr;
mod op;
mod sha;
mod shift;
mod shuffle;
mod string;
mod table;
mod vector;

pub use mxcsr::{Exceptions, Mxcsr};
pub use op::{
    FlagsFn, Fp3Fn, FpFn, Int3Fn, IntFn, Kind, Lengths, Operand, Run, SimdOp, gather_index, lookup,
    place, table,
};
pub use string::{crc32, pcmpstri, pcmpstrm};
pub use vector::{V64, V128, V256, Vector};

/// RFLAGS.CF, as the comparisons return it.
pub const CF: u32 = 1 << 0;
/// RFLAGS.PF.
pub const PF: u32 = 1 << 2;
/// RFLAGS.ZF.
pub const ZF: u32 = 1 << 6;
/// RFLAGS.SF.
pub const SF: u32 = 1 << 7;
/// RFLAGS.OF.
pub const OF: u32 = 1 << 11;
