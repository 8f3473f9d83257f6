//! The RV64 hart.
//!
//! Manuals: *The RISC-V Instruction Set Manual*, Volume I (unprivileged, 20240411) and Volume II
//! (privileged, 20240411).
//!
//! In reading order: [`hart`] holds the canonical state, [`model`] what it offers, [`csr`] its control and
//! status registers;
//! [`insn`] has one row per instruction, whose body is generic over [`sem::Sem`]; [`decode`] finds the
//! row; [`alu`] and [`fpu`] compute on values; [`mmu`] and [`pmp`] translate and protect; [`trap`]
//! enters and leaves handlers; [`interp`] is the engine that performs the bodies.

pub mod alu;
pub mod csr;
pub mod decode;
pub mod fpu;
pub mod hart;
pub mod insn;
pub mod interp;
pub mod mmu;
pub mod model;
pub mod pmp;
mod saved;
pub mod sem;
pub mod trap;
mod walks;

/// Frequency of the `time` CSR and of `mtime`: the board's 10 MHz.
pub const TIMEBASE_HZ: u64 = 10_000_000;
/// Nanoseconds in a tick of `time`.
pub const NS_PER_TICK: u64 = 1_000_000_000 / TIMEBASE_HZ;
/// Bytes a cache-block operation works on (Zicbom, Zicboz).
pub const CACHE_BLOCK: u64 = 64;
