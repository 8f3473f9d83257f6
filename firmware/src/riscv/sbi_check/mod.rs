//! An S-mode guest that checks an SBI implementation from below: it makes every call, compares
//! errors, values and preserved registers with what the SBI specification 2.0 says, and provokes
//! the traps that firmware has to pass on.
//!
//! It prints one line for each check that fails and a summary, over DBCN, and ends through SRST:
//! shutdown without a reason if every check held, else with the reason "system failure".
//!
//! Nothing here knows our own implementation but [`SbiCheckConfig::implementation`], so the same
//! guest runs on OpenSBI, which is how the expectations themselves are tested
//! (`tests/qemu.rs`). OpenSBI 1.6 differs in three points where the specification's text decides:
//! it ignores harts of a mask that do not exist (the specification: invalid parameter), it
//! answers "failed" to a console buffer whose upper address is not 0 (invalid parameter), and
//! its legacy clear_ipi does not say whether an interrupt was pending.
//!
//! It wants harts without the hypervisor extension, with Zicntr's `time` readable in S-mode, and
//! memory that firmware denies to S-mode.

mod calls;
mod harts;
mod traps;

use super::privileged::SRET;
use super::{Asm, rv};
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi};

/// Where and on what the check runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SbiCheckConfig {
    /// Load address, which is the entry too; 4 KiB aligned. [`MEMORY`] bytes are used.
    pub base: u64,
    /// Number of harts, 1 to 64, with ids `0..harts`; hart 0 is the one started.
    pub harts: u32,
    /// An address in memory that the firmware denies to S-mode.
    pub firmware: u64,
    /// A physical address where neither memory nor device answers.
    pub nowhere: u64,
    /// `mtime`'s frequency in Hz.
    pub timebase: u64,
    /// The implementation id to expect, if it matters; also asks for what only an implementation
    /// survives which expects the worst of its guest.
    pub implementation: Option<u32>,
}

/// Bytes of memory from `base` that the check uses.
pub const MEMORY: u64 = 0x1_0000;

/// Code and tables come first, then the variables.
const CODE_SIZE: usize = 0x8000;

/// Variables, by their offset from `->vars`, which stays in `s11`.
mod var {
    /// Checks made.
    pub(super) const CHECKS: i32 = 0;
    /// Checks failed.
    pub(super) const FAILED: i32 = 8;
    /// What the last trap left: count, scause, sepc, stval, sstatus.
    pub(super) const TRAPS: i32 = 16;
    pub(super) const SCAUSE: i32 = 24;
    pub(super) const SEPC: i32 = 32;
    pub(super) const STVAL: i32 = 40;
    pub(super) const SSTATUS: i32 = 48;
    /// Where an exception resumes.
    pub(super) const RESUME: i32 = 56;
    /// The row being run, and its results.
    pub(super) const ROW: i32 = 64;
    pub(super) const ERROR: i32 = 72;
    pub(super) const VALUE: i32 = 80;
    /// Stack pointer kept over a row.
    pub(super) const SP: i32 = 88;
    /// Register saved by the trap handler.
    pub(super) const SAVED_T1: i32 = 96;
    /// A hart mask in memory, for legacy calls.
    pub(super) const MASK: i32 = 104;
    /// 64 bytes for a console read.
    pub(super) const BUFFER: i32 = 128;
    /// What other harts are told, and counters they add to.
    pub(super) const COMMAND: i32 = 192;
    pub(super) const ARRIVED: i32 = 200;
    /// What hart 1 found at its start: a0, a1, satp, sstatus.
    pub(super) const FOUND: i32 = 208;
    /// The stack of hart 0 ends here; the others need none.
    pub(super) const STACK_END: i32 = 2032;
}

/// Assembles the check: the bytes to load at `config.base`.
pub fn sbi_check(config: &SbiCheckConfig) -> Vec<u8> {
    let mut check = Check { asm: Asm::new(config.base as usize), names: Vec::new(), config };
    check.start();
    check.entry_state();
    check.calls();
    check.traps();
    check.timer();
    check.suspend();
    if config.harts > 1 {
        check.other_harts();
    }
    check.finish();
    check.trap_handler();
    check.emit_row_runner();
    check.emit_other_hart();
    check.emit_report();
    check.emit_rows();
    check.emit_names();
    let mut asm = check.asm;
    rv!(asm ; .align CODE_SIZE ; ->vars:);
    let bytes = asm.finalize().expect("the labels are the same for every configuration");
    assert_eq!(bytes.len(), CODE_SIZE, "CODE_SIZE is too small for the code");
    bytes
}

struct Check<'a> {
    asm: Asm,
    names: Vec<(DynamicLabel, String)>,
    config: &'a SbiCheckConfig,
}

impl Check<'_> {
    fn start(&mut self) {
        let asm = &mut self.asm;
        rv!(asm
            ; la s11, ->vars
            ; mv t0, s11
            ; li.32 t1, (MEMORY - CODE_SIZE as u64) as i32
            ; add t1, t0, t1
            ; clear:
            ; sd zero, [t0]
            ; addi t0, t0, 8
            ; bltu t0, t1, <clear
            ; li.12 t0, var::STACK_END
            ; add sp, s11, t0
            ; la t0, ->trap
            ; csrw stvec, t0
        );
    }

    /// SBI 2.0, table "HSM Hart Start Register State", which boot firmware follows too.
    fn entry_state(&mut self) {
        rv!(self.asm ; mv s0, a0 ; csrr s1, satp ; csrr s2, sstatus ; andi s2, s2, 2);
        self.expect_s0("hart id at the entry", 0);
        rv!(self.asm ; mv s0, s1);
        self.expect_s0("satp at the entry", 0);
        rv!(self.asm ; mv s0, s2);
        self.expect_s0("sstatus.SIE at the entry", 0);
    }

    /// Compares `s0` with a constant.
    fn expect_s0(&mut self, name: &str, expected: u64) {
        let name = self.name(name);
        let asm = &mut self.asm;
        rv!(asm
            ; mv a1, s0
            ; li a2, expected as i64
            ; la a0, =>name
            ; jal ra, ->compare
        );
    }

    /// Loads the call's registers from constants and makes it: a0, a1 = error, value.
    fn call(&mut self, eid: i32, fid: i32, args: &[u64]) {
        for (i, &arg) in (0u8..).zip(args) {
            rv!(self.asm ; li X(10 + i), arg as i64);
        }
        rv!(self.asm ; li.12 a6, fid ; li.32 a7, eid ; ecall);
    }

    /// Makes a call and compares its error.
    fn expect_call(&mut self, name: &str, eid: i32, fid: i32, args: &[u64], error: i64) {
        self.call(eid, fid, args);
        rv!(self.asm ; mv s0, a0);
        self.expect_s0(name, error as u64);
    }

    fn name(&mut self, name: &str) -> DynamicLabel {
        let label = self.asm.new_dynamic_label();
        self.names.push((label, name.to_owned()));
        label
    }

    fn address_of_var(&self, var: i32) -> u64 {
        self.config.base + CODE_SIZE as u64 + var as u64
    }

    /// Prints the summary and ends the machine.
    fn finish(&mut self) {
        let (checks, failed) = (self.name("sbi-check: checks "), self.name(", failed "));
        let asm = &mut self.asm;
        rv!(asm
            ; la a0, =>checks
            ; jal ra, ->print
            ; ld a1, [s11, var::CHECKS]
            ; jal ra, ->print_hex
            ; la a0, =>failed
            ; jal ra, ->print
            ; ld a1, [s11, var::FAILED]
            ; jal ra, ->print_hex
            ; jal ra, ->print_newline
            ; ld t0, [s11, var::FAILED]
            ; snez a1, t0 // reason
            ; li.12 a0, 0 // shutdown
            ; li.12 a6, 0
            ; li.32 a7, calls::SRST
            ; ecall
            ; never:
            ; j <never
        );
    }

    /// An exception is noted and resumes at `RESUME`; an interrupt is noted and disabled.
    fn trap_handler(&mut self) {
        let asm = &mut self.asm;
        rv!(asm
            ; .align 4
            ; ->trap:
            ; csrw sscratch, t0
            ; la t0, ->vars
            ; sd t1, [t0, var::SAVED_T1]
            ; csrr t1, sstatus
            ; sd t1, [t0, var::SSTATUS]
            ; csrr t1, sepc
            ; sd t1, [t0, var::SEPC]
            ; csrr t1, stval
            ; sd t1, [t0, var::STVAL]
            ; ld t1, [t0, var::TRAPS]
            ; addi t1, t1, 1
            ; sd t1, [t0, var::TRAPS]
            ; csrr t1, scause
            ; sd t1, [t0, var::SCAUSE]
            ; bltz t1, >interrupt
            ; ld t1, [t0, var::RESUME]
            ; csrw sepc, t1
            ; j >done
            ; interrupt:
            ; csrw sie, zero
            ; done:
            ; ld t1, [t0, var::SAVED_T1]
            ; csrr t0, sscratch
            ; .u32 SRET
        );
    }

    /// `->compare` (a0 = name, a1 = found, a2 = expected), `->failure`, `->print` (a0 = text up to
    /// a 0), `->print_hex` (a1), `->print_newline`. They change a0-a7, t0-t6, s8, s9.
    fn emit_report(&mut self) {
        let (fail, found, expected) =
            (self.name("FAIL "), self.name(": found "), self.name(", expected "));
        let asm = &mut self.asm;
        rv!(asm
            ; ->compare:
            ; ld t0, [s11, var::CHECKS]
            ; addi t0, t0, 1
            ; sd t0, [s11, var::CHECKS]
            ; bne a1, a2, ->failure
            ; ret

            ; ->failure:
            ; addi sp, sp, -32
            ; sd ra, [sp]
            ; sd a0, [sp, 8]
            ; sd a1, [sp, 16]
            ; sd a2, [sp, 24]
            ; ld t0, [s11, var::FAILED]
            ; addi t0, t0, 1
            ; sd t0, [s11, var::FAILED]
            ; la a0, =>fail
            ; jal ra, ->print
            ; ld a0, [sp, 8]
            ; jal ra, ->print
            ; la a0, =>found
            ; jal ra, ->print
            ; ld a1, [sp, 16]
            ; jal ra, ->print_hex
            ; la a0, =>expected
            ; jal ra, ->print
            ; ld a1, [sp, 24]
            ; jal ra, ->print_hex
            ; jal ra, ->print_newline
            ; ld ra, [sp]
            ; addi sp, sp, 32
            ; ret

            ; ->print:
            ; mv s8, a0
            ; li.12 a6, 2
            ; li.32 a7, calls::DBCN
            ; text:
            ; lbu a0, [s8]
            ; addi s8, s8, 1
            ; beqz a0, >end
            ; ecall
            ; j <text
            ; end:
            ; ret

            ; ->print_hex:
            ; mv s8, a1
            ; li.12 s9, 60
            ; li.12 a6, 2
            ; li.32 a7, calls::DBCN
            ; digit:
            ; srl t0, s8, s9
            ; bnez t0, >significant
            ; bnez s9, >next
            ; significant:
            ; andi a0, t0, 15
            ; addi a0, a0, i32::from(b'0')
            ; li.12 t0, i32::from(b'9')
            ; ble a0, t0, >decimal
            ; addi a0, a0, i32::from(b'a' - b'9' - 1)
            ; decimal:
            ; ecall
            ; next:
            ; addi s9, s9, -4
            ; bgez s9, <digit
            ; ret

            ; ->print_newline:
            ; li.12 a0, i32::from(b'\n')
            ; li.12 a6, 2
            ; li.32 a7, calls::DBCN
            ; ecall
            ; ret
        );
    }

    fn emit_names(&mut self) {
        let asm = &mut self.asm;
        for (label, text) in self.names.drain(..) {
            rv!(asm ; =>label ; .bytes text.as_bytes() ; .u8 0);
        }
    }
}
