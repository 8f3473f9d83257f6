//! Guest CPUs: state, decoding, instruction semantics, address translation, traps and the
//! interpreter.
//!
//! The crate knows nothing of devices. All that a CPU sees of the world is [`bus::CpuBus`]; all that
//! the world can do to a running CPU goes through [`signals::Signals`]. Data flows one way:
//!
//! ```text
//! fetch -> decoded instruction -> performed on the hart's state
//!                                   -> memory access -> soft TLB -> RAM page, or the bus
//! ```
//!
//! * [`riscv`]: the RV64 hart. Every instruction is written once, generic over [`riscv::sem::Sem`].
//! * [`x86`]: the x86-64 processor, by interpretation.
//! * [`softfloat`]: IEEE 754 arithmetic in integers, shared by all guest CPUs.
//! * [`tlb`]: the soft TLB, shared by all guest CPUs.
//! * [`frame`]: what translated code sees of a hart.
//! * [`debug`]: where a debugger wants a hart to stop.
//! * [`ram`]: the only place that touches guest RAM.

pub mod bus;
pub mod debug;
pub mod frame;
pub mod ram;
pub mod riscv;
pub mod run;
pub mod signals;
pub mod softfloat;
pub mod tlb;
pub mod x86;
