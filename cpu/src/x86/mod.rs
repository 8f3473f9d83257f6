//! The x86-64 processor, by interpretation.
//!
//! Manual: *Intel 64 and IA-32 Architectures Software Developer's Manual* (SDM, order number 325462); AMD's
//! *Architecture Programmer's Manual* where the two differ and AMD's is meant.
//!
//! Data flows one way:
//!
//! ```text
//! linear address -> page of code -> bytes -> iced-x86 -> Op {handler, operands} -> block of Ops
//!   -> handler -> registers, lazy flags
//!              -> memory operand -> segment -> linear address -> soft TLB -> RAM, or paging, or the bus
//!   -> fault or interrupt -> gate -> handler of the guest
//! ```
//!
//! Code that is written takes effect at the next instruction (SDM vol. 3, 9.1.3 and 13.6): a store into a page that
//! was decoded goes the slow way and ends the block. Stores of other processors and of devices reach the bus's code log;
//! the bus of an x86 machine calls every processor's attention when the log grows.
//!
//! In reading order:
//!
//! * [`state`]: the canonical state, plain data. [`flags`]: the arithmetic flags, evaluated late. [`fault`]: what an
//!   instruction may raise. [`model`]: what the processor offers, and what CPUID says of it.
//! * [`decode`]: bytes -> [`decode::Op`], by mnemonic and kinds of operands. [`insn`]: one type per instruction and
//!   operand form, each a function from operands to effects, by the SDM's groups.
//! * [`core`]: the processor while it runs. [`mem`]: accesses to linear addresses; [`paging`]: linear -> physical.
//! * [`seg`]: segment registers and descriptors; `transfer`: far transfers; `task`: task switches; [`gate`]: delivery of exceptions and interrupts;
//!   [`control`]: control registers; [`msr`]: model-specific registers.
//! * `breakpoints`: the guest's own breakpoints. `peek`: what a debugger sees.
//! * [`x87`]: the floating-point unit; [`simd`]: vector operations. Neither knows anything of all this.
//! * [`interp`]: the engine: finds blocks, performs them, looks at interrupts in between.

mod breakpoints;
pub mod control;
pub mod core;
pub mod decode;
pub mod fault;
pub mod flags;
pub mod gate;
mod insn;
pub mod interp;
pub mod mem;
pub mod model;
pub mod msr;
pub mod paging;
mod peek;
pub mod seg;
pub mod simd;
pub mod state;
mod task;
mod transfer;
pub mod x87;
