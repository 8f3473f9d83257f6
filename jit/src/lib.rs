//! The translator: guest code becomes host code.
//!
//! ```text
//! guest instructions -> lift (riscv::lift) -> IR (ir) -> emission (x64) -> code memory -> run
//! ```
//!
//! * [`ir`]: what a block of guest code does, in single-assignment form; its text and its evaluation.
//! * [`riscv`]: what knows RISC-V: lifting its instructions into blocks.
//! * [`x64`]: host code for a block.
//! * [`options`]: what can be switched off; [`perf`]: names of host code for a profiler.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

pub mod cache;
pub mod ir;
pub mod jumps;
pub mod memory;
pub mod options;
pub mod perf;
pub mod riscv;
pub mod x64;
