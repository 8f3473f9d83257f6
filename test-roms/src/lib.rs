//! Conformance and benchmark guests ("ROMs") for the RV64 machine and the PC, assembled in Rust.
//!
//! An RV64 ROM is an ELF64 executable at 0x80000000, entered in M-mode. It reports through HTIF's
//! `tohost` (1 = pass, `(n << 1) | 1` = case n failed) and, where that does not end the run,
//! through the SiFive test finisher at 0x100000 (0x5555 = pass, `(n << 16) | 0x3333` = case n
//! failed, of n only 16 bits; a low byte of zero becomes 255 there, so that an exit status never
//! hides a failure).
//! So the same bytes run on Spike (HTIF), on QEMU's `virt` (finisher) and on Mimic (either).
//!
//! An x86 ROM is a multiboot kernel (ELF32 at 1 MiB). It reports by a word to isa-debug-exit at port 0xf4 (0 = pass,
//! n = case n failed), and prints on the debug console at port 0xe9; so QEMU's PC runs it, too.
//!
//! # Where expected results come from
//!
//! Never from Mimic. Integer results are computed in Rust from the manual's definitions in a form
//! that differs from an emulator's (`i128` products, bit-by-bit loops); floating-point results come
//! from LLVM's APFloat (the crate `rustc_apfloat`) and exact integer arithmetic; traps, CSRs and
//! paging are written down from the Privileged ISA; and every ROM that claims so in
//! [`Rom::verified`] has run on these simulators (`cargo test -p mimic-test-roms -- --ignored`
//! repeats it). A ROM named `...-strict` holds what the manual demands and QEMU 10.0.2 does
//! otherwise; it has passed on Spike alone.
//!
//! # The hart the ROMs describe
//!
//! Where the manuals leave a choice the ROMs accept every legal one, or demand these: misaligned
//! loads and stores work, misaligned LR/SC/AMO raise address-misaligned exceptions, `mtval` holds
//! the faulting address or the bits of the illegal instruction, 16 PMP entries with a granularity
//! of 4 bytes, vectored traps, 16 bits of ASID, hpmcounters 3..31 read-only zero.
//!
//! # How to add a ROM
//!
//! A file in `rv64/` with `pub(super) fn define(s: &mut Suite)`, and a row in `rv64/mod.rs`; likewise in `x86/`.

// Macro output of dynasm converts register numbers that already have the type.
#![allow(clippy::useless_conversion, clippy::unnecessary_cast)]
// Tables of operations read best as formulas.
#![allow(clippy::redundant_closure_for_method_calls)]

pub mod demo;
mod elf;
mod raw;
mod rv64;
mod suite;
pub mod x86;

use std::sync::LazyLock;

pub use suite::Cases;

/// What a ROM is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Checks behaviour, case by case.
    Conformance,
    /// Runs a long, fixed piece of work and checks its result.
    Benchmark,
}

/// A simulator that is not ours, on which a ROM passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oracle {
    /// The RISC-V ISA simulator, version 1.1.1-dev (commit 55b4658d).
    Spike,
    /// `qemu-system-riscv64 -M virt` or `qemu-system-x86_64`, version 10.0.2.
    Qemu,
}

/// How a ROM ends on a correct machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Every case passes.
    Pass,
    /// The work's checksum has this value; the guest compares it itself and then passes.
    Checksum(u64),
}

/// What writes a ROM.
#[derive(Clone, Copy)]
enum Define {
    Rv64(fn(&mut suite::Suite)),
    X86(fn(&mut x86::Suite) -> x86::Assembled),
    X86Loop(x86::Loop),
    X86Table(fn() -> x86::tables::Table),
}

/// One guest.
#[derive(Clone, Copy)]
pub struct Rom {
    /// Unique name, for instance `rv64/zbb`.
    pub name: &'static str,
    /// One line on what it does.
    pub title: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// Harts the machine needs; further ones are parked.
    pub harts: u32,
    /// The processor that it needs if that is not the usual one, as `--cpu` names it.
    pub cpu: Option<&'static str>,
    /// How it ends on a correct machine.
    pub expected: Expected,
    /// How often it does what it measures, if that is a single cost: what one takes is the time divided by this.
    pub operations: Option<u64>,
    /// About how many instructions it retires.
    pub insns_estimate: u64,
    /// Simulators on which it passed as it stands.
    pub verified: &'static [Oracle],
    define: Define,
}

impl Rom {
    /// Assembles the ROM: an ELF executable.
    pub fn build(&self) -> Vec<u8> {
        self.assemble(None).0
    }

    /// [`Self::build`] with the time that a stress ROM shall last, in milliseconds of guest time (`mtime` at 10 MHz; the
    /// TSC). Others are built as always. (RV64: the word that this changes is the ELF symbol `duration`, in ticks.)
    pub fn build_for(&self, milliseconds: u64) -> Vec<u8> {
        self.assemble(Some(milliseconds)).0
    }

    /// Names of the case numbers a failure reports.
    pub fn cases(&self) -> Vec<Cases> {
        self.assemble(None).1
    }

    /// The name of case `n` as reported through `tohost`, with the row inside a table of operands.
    pub fn case_name(&self, n: u32) -> Option<String> {
        let cases = self.cases();
        let c = cases.iter().find(|c| (c.first..c.first + c.count).contains(&n))?;
        let row = if c.count > 1 { format!(" [row {}]", n - c.first) } else { String::new() };
        Some(format!("{}{row}", c.name))
    }

    fn assemble(&self, milliseconds: Option<u64>) -> (Vec<u8>, Vec<Cases>) {
        match self.define {
            Define::Rv64(define) => {
                let mut s = suite::Suite::new();
                define(&mut s);
                if let Some(milliseconds) = milliseconds {
                    s.change_duration(milliseconds.saturating_mul(10_000));
                }
                s.finish()
            }
            Define::X86(define) => x86::Suite::assemble(milliseconds, define),
            Define::X86Loop(define) => define.assemble(),
            Define::X86Table(define) => define().assemble(),
        }
    }

    /// The expected outcomes that a table's listing makes, as the text that they are kept as, with a comment.
    ///
    /// # Errors
    /// This is no table, or the listing is not whole.
    pub fn expectations(&self, listing: &str, comment: &str) -> Result<String, String> {
        self.table()?.expectations(listing, comment)
    }

    /// Where a table's listing differs from what is expected: cell, what is listed, what is expected.
    ///
    /// # Errors
    /// As [`expectations`](Self::expectations).
    pub fn differences(&self, listing: &str) -> Result<Vec<(String, String, String)>, String> {
        self.table()?.differences(listing)
    }

    /// Whether the ROM is a table, whose outcomes can be listed.
    pub fn is_table(&self) -> bool {
        matches!(self.define, Define::X86Table(_))
    }

    fn table(&self) -> Result<x86::tables::Table, String> {
        match self.define {
            Define::X86Table(define) => Ok(define()),
            Define::Rv64(_) | Define::X86(_) | Define::X86Loop(_) => {
                Err(format!("{} is no table", self.name))
            }
        }
    }
}

/// All ROMs, those of an instruction set together, conformance first.
pub fn roms() -> &'static [Rom] {
    static ALL: LazyLock<Vec<Rom>> =
        LazyLock::new(|| [rv64::ROMS, x86::ROMS, x86::tables::ROMS].concat());
    &ALL
}

/// The ROM of that name.
pub fn find(name: &str) -> Option<&'static Rom> {
    roms().iter().find(|r| r.name == name)
}
