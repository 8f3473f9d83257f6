//! The table of calls that answer at once, and what runs it.

use super::{Check, DynasmApi, DynasmLabelApi, rv, var};

pub(super) const BASE: i32 = 0x10;
pub(super) const TIME: i32 = 0x5449_4d45;
pub(super) const IPI: i32 = 0x0073_5049;
pub(super) const RFENCE: i32 = 0x5246_4e43;
pub(super) const HSM: i32 = 0x0048_534d;
pub(super) const SRST: i32 = 0x5352_5354;
pub(super) const DBCN: i32 = 0x4442_434e;
/// Not assigned by the specification: top of the range of experimental extensions.
const UNKNOWN: i32 = 0x08ff_ffff;

pub(super) const NOT_SUPPORTED: i64 = -2;
pub(super) const INVALID_PARAM: i64 = -3;
pub(super) const INVALID_ADDRESS: i64 = -5;
pub(super) const ALREADY_AVAILABLE: i64 = -6;

/// All harts, as `hart_mask_base`.
pub(super) const ALL: u64 = u64::MAX;

/// What to compare besides the error.
#[derive(Clone, Copy)]
enum Expect {
    /// `a1` equals this.
    Value(u64),
    /// `a1` is not 0.
    NonZero,
    /// Nothing.
    Any,
    /// A legacy call: `a1` keeps its argument.
    Kept,
    /// A legacy call whose answer is not known: `a1` keeps its argument, `a0` is not compared.
    KeptAnyAnswer,
}

impl Expect {
    /// (mode, value) as [`Check::emit_row_runner`] reads them.
    fn encode(self) -> (u64, u64) {
        match self {
            Expect::Value(value) => (0, value),
            Expect::NonZero => (1, 0),
            Expect::Any => (2, 0),
            Expect::Kept => (3, 0),
            Expect::KeptAnyAnswer => (4, 0),
        }
    }
}

struct Row {
    name: String,
    eid: i32,
    fid: u64,
    args: [u64; 5],
    error: i64,
    expect: Expect,
}

fn row(name: &str, eid: i32, fid: u64, args: &[u64], error: i64, expect: Expect) -> Row {
    let mut all = [0x1111, 0x2222, 0x3333, 0x4444, 0x5555];
    all[..args.len()].copy_from_slice(args);
    Row { name: name.into(), eid, fid, args: all, error, expect }
}

impl Check<'_> {
    /// Expectations by the chapter of each extension in the SBI specification 2.0.
    fn rows(&self) -> Vec<Row> {
        use Expect::{Any, Kept, KeptAnyAnswer, NonZero, Value};
        let firmware = self.config.firmware;
        let harts = u64::from(self.config.harts);
        let buffer = self.address_of_var(var::BUFFER);
        let mut rows = vec![
            row("spec version", BASE, 0, &[], 0, Value(0x0200_0000)),
            row("implementation version", BASE, 2, &[], 0, Any),
            row("mvendorid", BASE, 4, &[], 0, Any),
            row("marchid", BASE, 5, &[], 0, Any),
            row("mimpid", BASE, 6, &[], 0, Any),
            row("probe unknown", BASE, 3, &[UNKNOWN as u64], 0, Value(0)),
            row("base: unknown function", BASE, 7, &[], NOT_SUPPORTED, Any),
            row("unknown extension", UNKNOWN, 0, &[], NOT_SUPPORTED, Any),
            row("time: unknown function", TIME, 1, &[], NOT_SUPPORTED, Any),
            row("set_timer(-1)", TIME, 0, &[u64::MAX], 0, Any),
            row("ipi: unknown function", IPI, 1, &[], NOT_SUPPORTED, Any),
            row("ipi: no such hart", IPI, 0, &[1, harts], INVALID_PARAM, Any),
            row("ipi: some hart beyond the last", IPI, 0, &[3, harts - 1], INVALID_PARAM, Any),
            row("ipi: empty mask", IPI, 0, &[0, 0], 0, Any),
            row("fence.i: all", RFENCE, 0, &[0, ALL], 0, Any),
            row("fence.i: this hart", RFENCE, 0, &[1, 0], 0, Any),
            row("fence.i: no such hart", RFENCE, 0, &[1, harts], INVALID_PARAM, Any),
            row("sfence.vma: all of all", RFENCE, 1, &[0, ALL, 0, 0], 0, Any),
            row("sfence.vma: size -1", RFENCE, 1, &[1, 0, 0, u64::MAX], 0, Any),
            row("sfence.vma: pages", RFENCE, 1, &[1, 0, 0x8000_0123, 0x3000], 0, Any),
            row("sfence.vma: wraps round", RFENCE, 1, &[1, 0, !0xfff, 0x2000], 0, Any),
            row("sfence.vma: no such hart", RFENCE, 1, &[1, harts, 0, 0], INVALID_PARAM, Any),
            row("sfence.vma.asid: all", RFENCE, 2, &[0, ALL, 0, 0, 1], 0, Any),
            row("sfence.vma.asid: pages", RFENCE, 2, &[1, 0, 0x1000, 0x2000, 7], 0, Any),
            row("rfence: unknown function", RFENCE, 7, &[0, ALL], NOT_SUPPORTED, Any),
            row("hart_status: this hart", HSM, 2, &[0], 0, Value(0)),
            row("hart_status: no such hart", HSM, 2, &[harts], INVALID_PARAM, Any),
            row("hart_start: no such hart", HSM, 0, &[harts, buffer, 0], INVALID_PARAM, Any),
            row("hart_start: runs already", HSM, 0, &[0, buffer, 0], ALREADY_AVAILABLE, Any),
            row("hart_suspend: reserved type", HSM, 3, &[1, 0, 0], INVALID_PARAM, Any),
            row("hart_suspend: reserved type, top bit", HSM, 3, &[0x8000_0001], INVALID_PARAM, Any),
            row(
                "hart_suspend: resume inside the firmware",
                HSM,
                3,
                &[0x8000_0000, firmware, 0],
                INVALID_ADDRESS,
                Any,
            ),
            row("hsm: unknown function", HSM, 4, &[], NOT_SUPPORTED, Any),
            row("system_reset: reserved type", SRST, 0, &[3, 0], INVALID_PARAM, Any),
            row("system_reset: reserved reason", SRST, 0, &[0, 2], INVALID_PARAM, Any),
            row("srst: unknown function", SRST, 1, &[0, 0], NOT_SUPPORTED, Any),
            row("console_write: nothing", DBCN, 0, &[0, buffer, 0], 0, Value(0)),
            row("console_write: upper address", DBCN, 0, &[1, buffer, 1], INVALID_PARAM, Any),
            row("console_write: firmware", DBCN, 0, &[1, firmware, 0], INVALID_PARAM, Any),
            row("console_read: nothing", DBCN, 1, &[0, buffer, 0], 0, Value(0)),
            row("console_read: what there is", DBCN, 1, &[64, buffer, 0], 0, Any),
            row("console_read: upper address", DBCN, 1, &[1, buffer, 1], INVALID_PARAM, Any),
            row("console_read: firmware", DBCN, 1, &[1, firmware, 0], INVALID_PARAM, Any),
            row("console_write_byte", DBCN, 2, &[u64::from(b'.')], 0, Value(0)),
            row("dbcn: unknown function", DBCN, 3, &[], NOT_SUPPORTED, Any),
            row("legacy set_timer", 0, 0, &[u64::MAX], 0, Kept),
            row("legacy putchar", 1, 0, &[u64::from(b'.')], 0, Kept),
            row("legacy getchar", 2, 0, &[], 0, KeptAnyAnswer),
            row("legacy clear_ipi", 3, 0, &[], 0, Kept),
            row("legacy remote fence.i: all", 5, 0, &[0], 0, Kept),
            row("legacy remote sfence.vma", 6, 0, &[0, 0x1000, 0x1000], 0, Kept),
            row("legacy remote sfence.vma.asid", 7, 0, &[0, 0, 0, 3], 0, Kept),
        ];
        let hfences = (3..=6).map(|fid| {
            let name = format!("hfence without hypervisor: function {fid}");
            row(&name, RFENCE, fid, &[0, ALL, 0, 0], NOT_SUPPORTED, Any)
        });
        rows.extend(hfences);
        let extensions = (0..=8).chain([BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN]);
        rows.extend(
            extensions
                .map(|eid| row(&format!("probe {eid:#x}"), BASE, 3, &[eid as u64], 0, NonZero)),
        );
        if let Some(id) = self.config.implementation {
            rows.push(row("implementation id", BASE, 1, &[], 0, Value(u64::from(id))));
            // OpenSBI takes the fault for its own and stops.
            let nowhere = [1, self.config.nowhere, 0];
            rows.push(row("console_write: nowhere", DBCN, 0, &nowhere, INVALID_PARAM, Any));
            rows.push(row("console_write: wraps round", DBCN, 0, &[9, !0, 0], INVALID_PARAM, Any));
        }
        rows
    }

    /// Greets by console_write, then runs the table.
    pub(super) fn calls(&mut self) {
        let greeting = b"sbi-check\n";
        let text = self.name(std::str::from_utf8(greeting).expect("ASCII"));
        let asm = &mut self.asm;
        rv!(asm
            ; li.12 a0, greeting.len() as i32
            ; la a1, =>text
            ; li.12 a2, 0
            ; li.12 a6, 0
            ; li.32 a7, DBCN
            ; ecall
            ; mv s1, a1
            ; mv s0, a0
        );
        self.expect_s0("console_write: error", 0);
        rv!(self.asm ; mv s0, s1);
        self.expect_s0("console_write: bytes", greeting.len() as u64);

        let asm = &mut self.asm;
        rv!(asm
            ; la t0, ->rows
            ; run:
            ; sd t0, [s11, var::ROW]
            ; ld t1, [t0, ROW_NAME]
            ; beqz t1, >done
            ; jal ra, ->run_row
            ; ld t0, [s11, var::ROW]
            ; addi t0, t0, ROW_SIZE
            ; j <run
            ; done:
        );
    }

    /// `->rows`, ended by a row without a name.
    pub(super) fn emit_rows(&mut self) {
        rv!(self.asm ; .align 8 ; ->rows:);
        for Row { name, eid, fid, args, error, expect } in self.rows() {
            let name = self.name(&name);
            let (mode, value) = expect.encode();
            let asm = &mut self.asm;
            for arg in args {
                rv!(asm ; .u64 arg);
            }
            rv!(asm
                ; .u64 0x6666, fid, eid as u64, error as u64, value, mode
                ; .abs64 =>name
            );
        }
        rv!(self.asm ; .bytes [0u8; ROW_SIZE as usize]);
    }

    /// `->run_row`: makes the call of the row at `ROW` with a known value in every register and
    /// checks that only `a0` and `a1` change (SBI 2.0, "Binary Encoding").
    pub(super) fn emit_row_runner(&mut self) {
        let clobbered = self.name("registers are preserved");
        let others = || (1..32u8).filter(|x| !(10..=17).contains(x));
        let mark = |x: u8| 0x5a5a_0000 + i32::from(x);
        let asm = &mut self.asm;
        rv!(asm
            ; ->run_row:
            ; addi sp, sp, -16
            ; sd ra, [sp]
            ; sd sp, [s11, var::SP]
            ; ld t0, [s11, var::ROW]
        );
        for x in 10..=17u8 {
            rv!(asm ; ld X(x), [t0, 8 * (i32::from(x) - 10)]);
        }
        for x in others() {
            rv!(asm ; li.32 X(x), mark(x));
        }
        rv!(asm
            ; ecall
            ; csrw sscratch, a0
            ; la a0, ->vars
            ; sd a1, [a0, var::VALUE]
            ; csrr a1, sscratch
            ; sd a1, [a0, var::ERROR]
        );
        for x in others() {
            rv!(asm ; li.32 a1, mark(x) ; bne X(x), a1, >clobbered);
        }
        rv!(asm ; la s11, ->vars ; ld sp, [s11, var::SP] ; ld t0, [s11, var::ROW]);
        for x in 12..=17u8 {
            rv!(asm ; ld t1, [t0, 8 * (i32::from(x) - 10)] ; bne X(x), t1, >clobbered);
        }
        rv!(asm
            ; j >kept
            ; clobbered:
            ; la s11, ->vars
            ; ld sp, [s11, var::SP]
            ; la a0, =>clobbered
            ; li.12 a1, 0
            ; li.12 a2, 1
            ; jal ra, ->compare
            ; kept:

            ; ld s0, [s11, var::ROW]
            ; ld s1, [s0, ROW_MODE]
            ; ld a0, [s0, ROW_NAME]
            ; ld a1, [s11, var::ERROR]
            ; ld a2, [s0, ROW_ERROR]
            ; li.12 t0, 4
            ; beq s1, t0, >skip_error
            ; jal ra, ->compare
            ; skip_error:
            ; ld a0, [s0, ROW_NAME]
            ; ld a1, [s11, var::VALUE]
            ; ld a2, [s0, ROW_VALUE]
            ; beqz s1, >value
            ; ld a2, [s0, ROW_A1]
            ; li.12 t0, 3
            ; bgeu s1, t0, >value
            ; li.12 t0, 1
            ; bne s1, t0, >out
            ; snez a1, a1
            ; li.12 a2, 1
            ; value:
            ; jal ra, ->compare
            ; out:
            ; ld ra, [sp]
            ; addi sp, sp, 16
            ; ret
        );
    }
}

/// A row in memory: a0 to a7, error, value, mode, address of the name.
const ROW_A1: i32 = 8;
const ROW_ERROR: i32 = 64;
const ROW_VALUE: i32 = 72;
const ROW_MODE: i32 = 80;
const ROW_NAME: i32 = 88;
const ROW_SIZE: i32 = 96;
