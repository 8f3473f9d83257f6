//! The RV64 hart.
//!
//! Manuals: *The RISC-V Instruction Set Manual*, Volume I (unprivileged, 20240411) and Volume II
//! (privileged, 20240411).
//!
//! In reading order: [`hart`] holds the canonical state, [`csr`] its control and status registers;
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
pub mod pmp;
mod saved;
pub mod sem;
pub mod trap;

/// Frequency of the `time` CSR and of `mtime`: the board's 10 MHz.
pub const TIMEBASE_HZ: u64 = 10_000_000;
/// Nanoseconds in a tick of `time`.
pub const NS_PER_TICK: u64 = 1_000_000_000 / TIMEBASE_HZ;
/// Bytes a cache-block operation works on (Zicbom, Zicboz).
pub const CACHE_BLOCK: u64 = 64;

/// The ISA string of the hart, as the device tree's `riscv,isa` wants it.
pub const ISA_STRING: &str = "rv64imafdc_zicbom_zicbop_zicboz_zicntr_zicond_zicsr_zifencei_zihpm_zawrs_zfa_zfhmin_zca_zcb_zcd_zba_zbb_zbc_zbs_sstc_svadu_svinval_svnapot_svpbmt";

/// The hart's extensions, single letters first, as `riscv,isa-extensions` lists them.
pub const ISA_EXTENSIONS: &[&str] = &[
    "i", "m", "a", "f", "d", "c", "zicbom", "zicbop", "zicboz", "zicntr", "zicond", "zicsr",
    "zifencei", "zihpm", "zawrs", "zfa", "zfhmin", "zca", "zcb", "zcd", "zba", "zbb", "zbc", "zbs",
    "sstc", "svadu", "svinval", "svnapot", "svpbmt",
];
