//! The framework in which guests are written: numbered cases, checks, traps, modes, tables.
//!
//! Memory of a guest:
//!
//! | address | contents |
//! | --- | --- |
//! | [`TEXT`] | code: entry, report routines, trap handlers, then the cases in order |
//! | [`DATA`] | `tohost`, `fromhost`, the trap record, then operand tables |
//! | [`SCRATCH`] | zeroed RAM for the cases (stores, page tables, patched code) |
//!
//! Registers of a guest: `gp` = number of the running case; `t5`, `t6` are temporaries of the
//! framework, clobbered by every check and every trap; `a7` = [`FAIL_CALL`] asks for the failure
//! report. All others belong to the cases.
//!
//! A trap goes to M-mode, is recorded, and continues in M-mode at the label armed for it; an
//! unarmed trap is a failure of the running case. A trap delegated to S-mode is recorded there and
//! followed by an `ecall`, so it also arrives at the armed label, with `mcause` 9.

use dynasmrt::riscv::RiscvRelocation;
use dynasmrt::{DynamicLabel, DynasmApi, VecAssembler};

use crate::elf::{self, Segment};
use crate::raw;

/// Start of code and entry point.
pub(crate) const TEXT: u64 = 0x8000_0000;
/// Start of initialised data.
pub(crate) const DATA: u64 = 0x8020_0000;
/// Start of zeroed RAM.
pub(crate) const SCRATCH: u64 = 0x8060_0000;
/// Bytes of zeroed RAM.
pub(crate) const SCRATCH_SIZE: u64 = 0x00a0_0000;

const TOHOST: u64 = DATA;
const FROMHOST: u64 = DATA + 0x40;
/// The trap record; `mscratch` and `sscratch` point here.
pub(crate) const RECORD: u64 = DATA + 0x100;
/// Offsets in the trap record.
pub(crate) mod record {
    pub(crate) const RESUME: i32 = 0;
    pub(crate) const MCAUSE: i32 = 8;
    pub(crate) const MEPC: i32 = 16;
    pub(crate) const MTVAL: i32 = 24;
    pub(crate) const MSTATUS: i32 = 32;
    pub(crate) const SCAUSE: i32 = 64;
    pub(crate) const SEPC: i32 = 72;
    pub(crate) const STVAL: i32 = 80;
    pub(crate) const SSTATUS: i32 = 88;
    /// Where parked harts go.
    pub(crate) const RELEASE: i32 = 128;
}
/// How long a stress guest goes on, in ticks of `mtime` (10 MHz): symbol `duration`.
pub(crate) const DURATION: u64 = DATA + 0x1a0;
/// Counts that a stress guest leaves for the curious: the signature.
pub(crate) const COUNTS: u64 = DATA + 0x1b0;
const TABLES: u64 = DATA + 0x200;

/// SiFive test finisher of the `virt` board.
const FINISHER: u64 = 0x10_0000;
/// The CLINT's `msip` of hart 0.
const MSIP: u64 = 0x0200_0000;
/// Harts of a guest for several.
pub(crate) const HARTS: u64 = 4;
/// `a7` of the `ecall` that reports a failure.
pub(crate) const FAIL_CALL: i32 = 0x7a1;

/// How far back dynasm's `jal` relocation reaches (half of the instruction's own range).
const JAL_REACH: u64 = 0x7_f000;

/// The assembler all guests are written with.
pub(crate) type Asm = VecAssembler<RiscvRelocation>;

/// Emits RV64 instructions into a [`Suite`].
macro_rules! rv {
    ($s:expr; $($t:tt)*) => {{
        #[allow(unused_imports)]
        use dynasmrt::{DynasmApi as _, DynasmLabelApi as _};
        dynasmrt::dynasm!($s.ops
            ; .arch riscv64
            ; .feature i,m,a,f,d,c,zicsr,zifencei,zicntr,zba,zbb,zbc,zbs,zcb,zicond,zicbom,zicboz,zicbop,zawrs,zfa,zfhmin,zihintpause
            ; $($t)*)
    }};
}
pub(crate) use rv;

/// Privilege modes by their encoding in `mstatus.MPP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// User.
    U = 0,
    /// Supervisor.
    S = 1,
    /// Machine.
    M = 3,
}

/// A contiguous range of case numbers with one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cases {
    /// Number of the first case, at least 1.
    pub first: u32,
    /// How many numbers the range holds.
    pub count: u32,
    /// What the range checks, for instance `addw rd!=rs1!=rs2`.
    pub name: String,
}

/// A guest under construction.
pub(crate) struct Suite {
    pub(crate) ops: Asm,
    data: Vec<u8>,
    cases: Vec<Cases>,
    next: u32,
    fail: DynamicLabel,
    m_handler: DynamicLabel,
    s_handler: DynamicLabel,
    /// Default of [`DURATION`], for guests that have one.
    duration: Option<u64>,
}

impl Suite {
    /// A guest whose entry code sets up traps, floating point and a PMP entry that grants all.
    pub(crate) fn new() -> Self {
        let mut ops = Asm::new(TEXT as usize);
        let fail = ops.new_dynamic_label();
        let m_handler = ops.new_dynamic_label();
        let s_handler = ops.new_dynamic_label();
        let mut s = Self {
            ops,
            data: Vec::new(),
            cases: Vec::new(),
            next: 1,
            fail,
            m_handler,
            s_handler,
            duration: None,
        };
        s.prologue();
        s
    }

    fn prologue(&mut self) {
        let start = self.label();
        let report_fail = self.label();
        rv!(self; j =>start);
        self.align(64);

        // Reached by a branch in any mode.
        let fail = self.fail;
        rv!(self; =>fail; li.12 a7, FAIL_CALL; ecall; j =>fail);

        self.align(64);
        let m_handler = self.m_handler;
        rv!(self
            ; =>m_handler
            ; li.12 t5, FAIL_CALL
            ; beq a7, t5, =>report_fail
            ; csrr t6, mscratch
            ; csrr t5, mcause
            ; sd t5, [t6, record::MCAUSE]
            ; csrr t5, mepc
            ; sd t5, [t6, record::MEPC]
            ; csrr t5, mtval
            ; sd t5, [t6, record::MTVAL]
            ; csrr t5, mstatus
            ; sd t5, [t6, record::MSTATUS]
            ; ld t5, [t6, record::RESUME]
            ; sd zero, [t6, record::RESUME]
            ; beqz t5, =>report_fail
            ; jr t5
        );
        self.align(64);
        let s_handler = self.s_handler;
        rv!(self
            ; =>s_handler
            ; csrr t6, sscratch
            ; csrr t5, scause
            ; sd t5, [t6, record::SCAUSE]
            ; csrr t5, sepc
            ; sd t5, [t6, record::SEPC]
            ; csrr t5, stval
            ; sd t5, [t6, record::STVAL]
            ; csrr t5, sstatus
            ; sd t5, [t6, record::SSTATUS]
            ; ecall
        );
        self.align(64);
        rv!(self; =>report_fail);
        // Loads and stores below must not be translated, whatever mode the failure came from.
        self.li(T5, 1 << 17);
        rv!(self; csrc mstatus, t5; slli t5, gp, 1; ori t5, t5, 1);
        self.report(|s| {
            // An exit status keeps eight bits: never let a failure look like zero.
            let low = s.label();
            rv!(s; andi t5, gp, 0xff; bnez t5, =>low; li.12 gp, 0xff; =>low; slli t6, gp, 16);
            s.li(T5, 0x3333);
            rv!(s; or t5, t5, t6);
        });

        rv!(self; =>start);
        let park = self.label();
        rv!(self; csrr t5, mhartid; bnez t5, =>park);
        self.reset_environment();
        let go = self.label();
        rv!(self; j =>go; =>park);
        // Other harts sleep until a software interrupt finds an address to go to.
        self.li(T6, RECORD);
        rv!(self; csrw mscratch, t6; la t5, =>m_handler; csrw mtvec, t5; csrwi mie, 8; sleep:);
        self.word(raw::WFI);
        rv!(self
            ; csrr t5, mip
            ; andi t5, t5, 8
            ; beqz t5, <sleep
            ; ld t5, [t6, record::RELEASE]
            ; beqz t5, <sleep
            ; jr t5
            ; =>go
        );
    }

    /// Sends the other ones of `harts` harts to a label, in M-mode, their `msip` set.
    pub(crate) fn release(&mut self, to: DynamicLabel, harts: u64) {
        self.li(T6, RECORD);
        rv!(self; la t5, =>to; sd t5, [t6, record::RELEASE]; fence);
        for hart in 1..harts {
            self.li(T5, MSIP + 4 * hart);
            rv!(self; li.12 t6, 1; sw t6, [t5]);
        }
    }

    /// Puts the machine state that cases change back to what every case may expect: M-mode traps
    /// to the framework, nothing delegated, no translation, all memory granted, FP on.
    pub(crate) fn reset_environment(&mut self) {
        self.li(T6, RECORD);
        let (m, s) = (self.m_handler, self.s_handler);
        rv!(self
            ; sd zero, [t6, record::RESUME]
            ; csrw mscratch, t6
            ; csrw sscratch, t6
            ; la t5, =>m
            ; csrw mtvec, t5
            ; la t5, =>s
            ; csrw stvec, t5
            ; csrw mie, zero
            ; csrw medeleg, zero
            ; csrw mideleg, zero
            ; csrw satp, zero
            ; li.12 t5, -1
            ; csrw pmpaddr0, t5
            ; li.12 t5, 0x1f
            ; csrw pmpcfg0, t5
        );
        self.li(T5, 0x2000); // mstatus.FS = Initial
        rv!(self; csrw mstatus, t5; csrw fcsr, zero);
    }

    /// Writes t5 to `tohost`; if that did not end the run, `finisher` leaves a value in t5 for the
    /// test finisher. Where no finisher exists the store traps and the hart spins.
    fn report(&mut self, finisher: impl FnOnce(&mut Self)) {
        let spin = self.label();
        rv!(self; la t6, =>spin; csrw mtvec, t6);
        self.li(T6, TOHOST);
        rv!(self; sd t5, [t6]);
        finisher(self);
        self.li(T6, FINISHER);
        rv!(self; sw t5, [t6]);
        self.align(4);
        rv!(self; =>spin; j =>spin);
    }

    /// Ends the guest with "pass" and links it. Returns the ELF and the case names.
    ///
    /// # Panics
    /// When the guest was assembled wrongly (a label out of reach, code beyond its region): a bug
    /// in the guest's source, which every build of it shows.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Vec<Cases>) {
        rv!(self; li.12 t5, 1);
        self.report(|s| s.li(T5, 0x5555));
        let text = self.ops.finalize().expect("every label is defined and in reach");
        assert!(text.len() as u64 <= DATA - TEXT, "code overruns its region");
        assert!(TABLES - DATA + self.data.len() as u64 <= SCRATCH - DATA, "tables overrun");
        let mut data = vec![0u8; (TABLES - DATA) as usize];
        let mut symbols = vec![("_start", TEXT), ("tohost", TOHOST), ("fromhost", FROMHOST)];
        if let Some(ticks) = self.duration {
            let at = (DURATION - DATA) as usize;
            data[at..at + 8].copy_from_slice(&ticks.to_le_bytes());
            symbols.push(("duration", DURATION));
            symbols.push(("begin_signature", COUNTS));
            symbols.push(("end_signature", TABLES));
        }
        data.extend(&self.data);
        let segments = [
            Segment { addr: TEXT, mem_size: text.len() as u64, bytes: text, flags: 5 },
            Segment { addr: DATA, mem_size: data.len() as u64, bytes: data, flags: 6 },
            Segment { addr: SCRATCH, mem_size: SCRATCH_SIZE, bytes: Vec::new(), flags: 6 },
        ];
        (elf::write(TEXT, &segments, &symbols), self.cases)
    }

    // ---- assembling ----

    /// A label to be placed later by `; =>label`.
    pub(crate) fn label(&mut self) -> DynamicLabel {
        self.ops.new_dynamic_label()
    }

    /// Gives the guest the word [`DURATION`], with this default, and the signature [`COUNTS`].
    pub(crate) fn lasts(&mut self, ticks: u64) {
        self.duration = Some(ticks);
    }

    /// Changes [`DURATION`], if the guest has one.
    pub(crate) fn change_duration(&mut self, ticks: u64) {
        self.duration = self.duration.map(|_| ticks);
    }

    /// The M-mode trap handler, for guests that put their own before it.
    pub(crate) fn m_handler(&self) -> DynamicLabel {
        self.m_handler
    }

    /// Address of the next instruction.
    pub(crate) fn here(&self) -> u64 {
        TEXT + self.ops.offset().0 as u64
    }

    /// Emits one 32-bit word.
    pub(crate) fn word(&mut self, word: u32) {
        self.ops.push_u32(word);
    }

    /// Emits one 16-bit parcel.
    pub(crate) fn half(&mut self, half: u16) {
        self.ops.push_u16(half);
    }

    /// Pads code with `nop`s (and one `c.nop` where needed) to a multiple of `to` bytes.
    pub(crate) fn align(&mut self, to: usize) {
        if !self.ops.offset().0.is_multiple_of(4) {
            self.half(0x0001);
        }
        while !self.ops.offset().0.is_multiple_of(to) {
            rv!(self; nop);
        }
    }

    /// Loads a constant by `lui`/`addi(w)`/`slli`, at most eight instructions.
    pub(crate) fn li(&mut self, rd: u8, value: u64) {
        let v = value as i64;
        let low = (v << 52) >> 52;
        if low == v {
            rv!(self; addi X(rd), zero, v as i32);
        } else if v as i32 as i64 == v {
            let high = ((v as u32).wrapping_add(0x800)) >> 12;
            self.word(high << 12 | u32::from(rd) << 7 | 0x37);
            if low != 0 {
                rv!(self; addiw X(rd), X(rd), low as i32);
            }
        } else {
            let rest = v.wrapping_sub(low) >> 12;
            let zeros = rest.trailing_zeros();
            self.li(rd, (rest >> zeros) as u64);
            rv!(self; slli X(rd), X(rd), 12 + zeros);
            if low != 0 {
                rv!(self; addi X(rd), X(rd), low as i32);
            }
        }
    }

    /// Jumps to the failure report, from any mode.
    pub(crate) fn fail(&mut self) {
        let fail = self.fail;
        if self.here() - TEXT < JAL_REACH {
            rv!(self; j =>fail);
        } else {
            rv!(self; la t5, =>fail; jr t5);
        }
    }

    // ---- data ----

    /// Places bytes in the data region at a multiple of `align`; returns their address.
    pub(crate) fn bytes(&mut self, align: usize, bytes: &[u8]) -> u64 {
        while !(TABLES as usize + self.data.len()).is_multiple_of(align) {
            self.data.push(0);
        }
        let at = TABLES + self.data.len() as u64;
        self.data.extend_from_slice(bytes);
        at
    }

    /// Places doublewords in the data region; returns their address.
    pub(crate) fn table(&mut self, values: &[u64]) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(8, &bytes)
    }

    /// A doubleword placed earlier.
    pub(crate) fn peek(&self, addr: u64) -> u64 {
        let at = (addr - TABLES) as usize;
        self.data[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
    }

    /// Changes a doubleword placed earlier.
    pub(crate) fn poke(&mut self, addr: u64, value: u64) {
        let at = (addr - TABLES) as usize;
        self.data[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    // ---- cases ----

    /// Starts `count` cases under one name; loads the first number into `gp`.
    pub(crate) fn cases(&mut self, name: &str, count: u32) {
        let first = self.next;
        self.next += count;
        self.cases.push(Cases { first, count, name: name.to_owned() });
        self.li(GP, u64::from(first));
    }

    /// Starts one case.
    pub(crate) fn case(&mut self, name: &str) {
        self.cases(name, 1);
    }

    /// Fails the case unless two registers are equal.
    pub(crate) fn check_eq(&mut self, a: u8, b: u8) {
        let ok = self.label();
        rv!(self; beq X(a), X(b), =>ok);
        self.fail();
        rv!(self; =>ok);
    }

    /// Fails the case unless `reg` holds `want`. `reg` is not t6.
    pub(crate) fn check(&mut self, reg: u8, want: u64) {
        self.li(T6, want);
        self.check_eq(reg, T6);
    }

    /// Fails the case unless `reg & mask == want`. `reg` is not t6.
    pub(crate) fn check_masked(&mut self, reg: u8, mask: u64, want: u64) {
        self.li(T6, mask);
        rv!(self; and t5, X(reg), t6);
        self.check(T5, want);
    }

    /// Fails the case unless the doubleword at `addr` is `want`.
    pub(crate) fn check_mem(&mut self, addr: u64, want: u64) {
        self.li(T5, addr);
        rv!(self; ld t5, [t5]);
        self.check(T5, want);
    }

    // ---- traps and modes ----

    /// Arms the trap handler: the next trap continues, in M-mode, at the label returned.
    pub(crate) fn arm(&mut self) -> DynamicLabel {
        let resume = self.label();
        rv!(self; la t5, =>resume);
        self.li(T6, RECORD);
        rv!(self; sd t5, [t6, record::RESUME]);
        resume
    }

    /// Enters a mode at the next instruction. From M-mode only; keeps other `mstatus` bits.
    pub(crate) fn enter(&mut self, mode: Mode) {
        let there = self.label();
        self.li(T5, 3 << 11);
        self.li(T6, (mode as u64) << 11);
        rv!(self
            ; csrc mstatus, t5
            ; csrs mstatus, t6
            ; la t5, =>there
            ; csrw mepc, t5
        );
        self.word(raw::MRET);
        rv!(self; =>there);
    }

    /// Runs `body` in a mode and returns to M-mode by an `ecall`, whose cause is checked.
    pub(crate) fn in_mode(&mut self, mode: Mode, body: impl FnOnce(&mut Self)) {
        let back = self.arm();
        self.enter(mode);
        body(self);
        rv!(self; ecall; =>back);
        self.check_record(record::MCAUSE, 8 + mode as u64);
    }

    /// Withdraws [`Self::arm`] after code that was allowed to trap and did not.
    pub(crate) fn disarm(&mut self) {
        self.li(T6, RECORD);
        rv!(self; sd zero, [t6, record::RESUME]);
    }

    /// [`Self::in_mode`], or just the body for M-mode.
    pub(crate) fn in_mode_or_machine(&mut self, mode: Mode, body: impl FnOnce(&mut Self)) {
        if mode == Mode::M {
            body(self);
        } else {
            self.in_mode(mode, body);
        }
    }

    /// Fails the case unless the field of the trap record holds `want`.
    pub(crate) fn check_record(&mut self, field: i32, want: u64) {
        self.li(T6, RECORD);
        rv!(self; ld t5, [t6, field]);
        self.check(T5, want);
    }

    /// One case: `setup` runs in `mode`, then the first instruction of `body` must trap to M-mode
    /// with `cause`, `mepc` its address, and `mtval` as given (`None`: anything).
    pub(crate) fn traps_in(
        &mut self,
        mode: Mode,
        name: &str,
        cause: u64,
        tval: Option<u64>,
        setup: impl FnOnce(&mut Self),
        body: impl FnOnce(&mut Self),
    ) {
        self.traps_one_of(mode, name, &[cause], tval, setup, body);
    }

    /// [`Self::traps_in`] where the manual allows several causes.
    pub(crate) fn traps_one_of(
        &mut self,
        mode: Mode,
        name: &str,
        causes: &[u64],
        tval: Option<u64>,
        setup: impl FnOnce(&mut Self),
        body: impl FnOnce(&mut Self),
    ) {
        self.case(name);
        let resume = self.arm();
        if mode != Mode::M {
            self.enter(mode);
        }
        setup(self);
        let epc = self.here();
        body(self);
        self.fail();
        rv!(self; =>resume);
        let known = self.label();
        let (last, others) = causes.split_last().expect("a trap has a cause");
        for &cause in others {
            self.li(T6, RECORD);
            rv!(self; ld t5, [t6, record::MCAUSE]);
            self.li(T6, cause);
            rv!(self; beq t5, t6, =>known);
        }
        self.check_record(record::MCAUSE, *last);
        rv!(self; =>known);
        self.check_record(record::MEPC, epc);
        if let Some(tval) = tval {
            self.check_record(record::MTVAL, tval);
        }
    }

    /// [`Self::traps_in`] M-mode without setup.
    pub(crate) fn traps(
        &mut self,
        name: &str,
        cause: u64,
        tval: Option<u64>,
        body: impl FnOnce(&mut Self),
    ) {
        self.traps_in(Mode::M, name, cause, tval, |_| (), body);
    }

    /// One case: the 32-bit word is an illegal instruction in `mode`, `mtval` holds its bits.
    pub(crate) fn illegal_in(&mut self, mode: Mode, name: &str, word: u32) {
        self.traps_in(mode, name, 2, Some(u64::from(word)), |_| (), |s| s.word(word));
    }

    /// One case: the 32-bit word is an illegal instruction in `mode`; `mtval` is not looked at.
    pub(crate) fn refused_in(&mut self, mode: Mode, name: &str, word: u32) {
        self.traps_in(mode, name, 2, None, |_| (), |s| s.word(word));
    }

    // ---- tables of operands ----

    /// Cases for `rd = f(rs1, rs2)`: every row with four register assignments in a loop, and the
    /// first rows once more as straight-line code with constants.
    ///
    /// `rows` hold `[a, b, result]`; for a three-operand use of `rd` (as `amoswap` has no) see the
    /// callers. Register numbers given to `emit`: rd, rs1, rs2.
    pub(crate) fn binary(
        &mut self,
        name: &str,
        emit: impl Fn(&mut Self, u8, u8, u8),
        rows: &[[u64; 3]],
    ) {
        let count = rows.len() as u32;
        let table = self.table(rows.as_flattened());
        for (rd, rs1, rs2, what) in
            [(A0, A1, A2, "rd"), (A1, A1, A2, "rd=rs1"), (A2, A1, A2, "rd=rs2"), (S11, T0, RA, "")]
        {
            self.cases(&format!("{name} {what}"), count);
            self.rows(table, count, 3, |s| {
                rv!(s; ld X(rs1), [s2, 0]; ld X(rs2), [s2, 8]; ld s4, [s2, 16]);
                emit(s, rd, rs1, rs2);
                s.check_eq(rd, S4);
            });
        }
        for row in rows.iter().step_by(rows.len().div_ceil(12).max(1)) {
            self.case(&format!("{name} {:#x}, {:#x}", row[0], row[1]));
            self.li(S5, row[0]);
            self.li(T2, row[1]);
            emit(self, T4, S5, T2);
            self.check(T4, row[2]);
        }
        let same: Vec<u64> = rows.iter().filter(|r| r[0] == r[1]).flatten().copied().collect();
        if !same.is_empty() {
            let count = same.len() as u32 / 3;
            let table = self.table(&same);
            self.cases(&format!("{name} rs1=rs2"), count);
            self.rows(table, count, 3, |s| {
                rv!(s; ld s6, [s2, 0]; ld s4, [s2, 16]);
                emit(s, S7, S6, S6);
                s.check_eq(S7, S4);
            });
            self.cases(&format!("{name} rd=rs1=rs2"), count);
            self.rows(table, count, 3, |s| {
                rv!(s; ld s6, [s2, 0]; ld s4, [s2, 16]);
                emit(s, S6, S6, S6);
                s.check_eq(S6, S4);
            });
        }
        self.case(&format!("{name} rd=x0"));
        self.li(A1, rows[rows.len() / 2][0]);
        self.li(A2, rows[rows.len() / 2][1]);
        emit(self, 0, A1, A2);
        self.check(0, 0);
    }

    /// Cases for `rd = f(rs1)`, rows `[a, result]`.
    pub(crate) fn unary(
        &mut self,
        name: &str,
        emit: impl Fn(&mut Self, u8, u8),
        rows: &[[u64; 2]],
    ) {
        let count = rows.len() as u32;
        let table = self.table(rows.as_flattened());
        for (rd, rs, what) in [(A0, A1, "rd"), (A2, A2, "rd=rs1")] {
            self.cases(&format!("{name} {what}"), count);
            self.rows(table, count, 2, |s| {
                rv!(s; ld X(rs), [s2, 0]; ld s4, [s2, 8]);
                emit(s, rd, rs);
                s.check_eq(rd, S4);
            });
        }
        let row = rows[rows.len() / 2];
        self.case(&format!("{name} {:#x}", row[0]));
        self.li(T0, row[0]);
        emit(self, S8, T0);
        self.check(S8, row[1]);
        self.case(&format!("{name} rd=x0"));
        emit(self, 0, T0);
        self.check(0, 0);
    }

    /// A guest loop over `count` table rows of `width` doublewords: s2 points to the row, s3 is
    /// the end, `gp` counts up. The body keeps s2 and s3.
    pub(crate) fn rows(
        &mut self,
        table: u64,
        count: u32,
        width: u32,
        body: impl FnOnce(&mut Self),
    ) {
        let step = 8 * width as i32;
        self.li(S2, table);
        self.li(S3, table + u64::from(count) * step as u64);
        let (again, done) = (self.label(), self.label());
        rv!(self; =>again);
        body(self);
        rv!(self
            ; addi gp, gp, 1
            ; addi s2, s2, step
            ; beq s2, s3, =>done
            ; j =>again
            ; =>done
        );
    }
}

/// Register numbers by ABI name, for code that chooses registers at assembly time.
pub(crate) mod reg {
    pub(crate) const RA: u8 = 1;
    pub(crate) const SP: u8 = 2;
    pub(crate) const GP: u8 = 3;
    pub(crate) const T0: u8 = 5;
    pub(crate) const T1: u8 = 6;
    pub(crate) const T2: u8 = 7;
    pub(crate) const S0: u8 = 8;
    pub(crate) const S1: u8 = 9;
    pub(crate) const A0: u8 = 10;
    pub(crate) const A1: u8 = 11;
    pub(crate) const A2: u8 = 12;
    pub(crate) const A3: u8 = 13;
    pub(crate) const A4: u8 = 14;
    pub(crate) const A5: u8 = 15;
    pub(crate) const A6: u8 = 16;
    pub(crate) const S2: u8 = 18;
    pub(crate) const S3: u8 = 19;
    pub(crate) const S4: u8 = 20;
    pub(crate) const S5: u8 = 21;
    pub(crate) const S6: u8 = 22;
    pub(crate) const S7: u8 = 23;
    pub(crate) const S8: u8 = 24;
    pub(crate) const S9: u8 = 25;
    pub(crate) const S11: u8 = 27;
    pub(crate) const T3: u8 = 28;
    pub(crate) const T4: u8 = 29;
    pub(crate) const T5: u8 = 30;
    pub(crate) const T6: u8 = 31;
}
use reg::*;
