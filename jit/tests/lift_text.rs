//! What becomes of short sequences of instructions: blocks as text, written down from what the instructions mean.

#[path = "../../cpu/tests/common/asm.rs"]
mod asm;

use asm::assemble;
use mimic_cpu::bus::PAGE_SIZE;
use mimic_cpu::riscv::hart::Mode;
use mimic_jit::ir::Op;
use mimic_jit::ir::opt::Passes;
use mimic_jit::riscv::lift::{Lifter, ModeKey};

const START: u64 = 0x10;
const FP: ModeKey = ModeKey { fp: true, mode: Mode::S };

fn lift(code: &[u8], start: u64, mode: ModeKey, supports: fn(&Op) -> bool) -> Option<String> {
    let mut page = [0; PAGE_SIZE as usize];
    page[start as usize..start as usize + code.len()].copy_from_slice(code);
    let read = |at: u64| u16::from_le_bytes([page[at as usize], page[at as usize + 1]]);
    let mut lifter = Lifter::new(Passes::all(), supports);
    let text = lifter.lift_block(read, start, mode)?.to_string();
    // Instructions by their place, operations with one space between words.
    let line = |line: &str| match line.split_once(':') {
        Some((place, _)) => format!("{place}:"),
        None => line.trim().to_string(),
    };
    Some(text.lines().map(line).collect::<Vec<_>>().join("\n"))
}

fn lines(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Checks what `code`, followed by a jump to itself, becomes.
fn check(mut code: Vec<u8>, expected: &str) {
    let end = START as usize + code.len();
    code.extend(assemble!(; here: ; j <here));
    let expected = format!("{expected}\n{end:03x}:\ngoto {end:03x}");
    assert_eq!(lift(&code, START, FP, |_| true).as_deref(), Some(&*lines(&expected)));
}

#[test]
fn constants_are_computed_at_once() {
    check(
        assemble!(; lui a0, 0x12345000 ; addiw a0, a0, 0x678),
        "010:
        014:
          v0 = 0x12345678
          x10 = v0",
    );
    // Both registers are wanted: the second does not need the first.
    check(
        assemble!(; addi a0, zero, 5 ; slli a1, a0, 3),
        "010:
          v0 = 5
          x10 = v0
        014:
          v2 = 40
          x11 = v2",
    );
}

#[test]
fn long_constants_stay_in_their_registers() {
    check(
        assemble!(; lui a5, 0x12345000 ; slli a5, a5, 20 ; and a0, a0, a5),
        "010:
        014:
          v0 = 0x1234500000000
          x15 = v0
        018:
          v2 = x10
          v3 = x15
          v4 = And v2 v3
          x10 = v4",
    );
}

#[test]
fn addresses_are_relative_to_the_page() {
    check(
        assemble!(; auipc a5, 0x1000 ; addi a5, a5, -8),
        "010:
        014:
          v0 = page 1008
          x15 = v0",
    );
    // A load may fault, so the base register is needed, and may serve.
    check(
        assemble!(; auipc a5, 0x1000 ; ld a0, [a5, 8]),
        "010:
          v0 = page 1010
          x15 = v0
        014:
          v2 = 8
          v3 = x15
          v4 = Add v3 v2
          v5 = Load Double [v4]
          x10 = v5",
    );
}

#[test]
fn far_calls_have_a_known_target() {
    let code = assemble!(; auipc ra, 0x1000 ; jalr ra, ra, 0x21);
    let expected = "010:
        014:
          v0 = page 018
          x1 = v0
          goto 1030";
    assert_eq!(lift(&code, START, FP, |_| true), Some(lines(expected)));
}

#[test]
fn returns_clear_the_lowest_bit() {
    let code = assemble!(; jalr zero, ra, 0);
    let expected = "010:
          v0 = x1
          v1 = -2
          v2 = And v0 v1
          jump v2";
    assert_eq!(lift(&code, START, FP, |_| true), Some(lines(expected)));
}

#[test]
fn shifts_to_and_fro_are_extensions() {
    check(
        assemble!(; slli a0, a0, 32 ; srli a0, a0, 32),
        "010:
          v0 = x10
        014:
          v1 = ZextW v0
          x10 = v1",
    );
    // An index of four bytes, extended: (a1 << 32) >> 30.
    check(
        assemble!(; slli a0, a1, 32 ; srli a0, a0, 30),
        "010:
        014:
          v0 = x11
          v1 = ZextW v0
          v2 = 2
          v3 = Sll v1 v2
          x10 = v3",
    );
    check(
        assemble!(; slli a0, a0, 48 ; srai a0, a0, 48),
        "010:
          v0 = x10
        014:
          v1 = SextH v0
          x10 = v1",
    );
    // Of what is short enough already.
    check(
        assemble!(; lbu a0, [a1] ; slli a0, a0, 33 ; srli a0, a0, 33),
        "010:
          v0 = x11
          v1 = Load Byte [v0]
          x10 = v1
        014:
          v3 = x10
        018:
          x10 = v3",
    );
    // What the first shift read is gone.
    check(
        assemble!(; slli a0, a0, 48 ; srai a1, a0, 48),
        "010:
          v0 = x10
          v1 = 48
          v2 = Sll v0 v1
          x10 = v2
        014:
          v4 = x10
          v5 = 48
          v6 = Sra v4 v5
          x11 = v6",
    );
}

#[test]
fn extensions_of_what_is_extended_vanish() {
    check(
        assemble!(; addw a0, a0, a1 ; addiw a2, a0, 0),
        "010:
          v0 = x10
          v1 = x11
          v2 = Add v0 v1
          v3 = SextW v2
          x10 = v3
        014:
          v5 = x10
          x12 = v5",
    );
    check(
        assemble!(; lbu a0, [a1] ; andi a0, a0, 0xff),
        "010:
          v0 = x11
          v1 = Load Byte [v0]
          x10 = v1
        014:",
    );
}

#[test]
fn conditions_are_plain() {
    check(
        assemble!(; bne a0, zero, >out ; out:),
        "010:
          v0 = x10
          if v0 goto 014",
    );
    check(
        assemble!(; out: ; bgeu a0, a1, <out),
        "010:
          v0 = x10
          v1 = x11
          v2 = Sltu v0 v1
          v3 = 0
          v4 = Eq v2 v3
          if v4 goto 010",
    );
    check(assemble!(; out: ; bne zero, zero, <out), "010:");
    check(
        assemble!(; sltiu a0, a0, 1),
        "010:
          v0 = x10
          v1 = 0
          v2 = Eq v0 v1
          x10 = v2",
    );
}

#[test]
fn x0_is_zero_and_takes_nothing() {
    check(assemble!(; add zero, a0, a1), "010:");
    check(
        assemble!(; ld zero, [a0]),
        "010:
          v0 = x10
          v1 = Load Double [v0]",
    );
    check(
        assemble!(; sw zero, [a0, 4]),
        "010:
          v0 = x10
          v1 = 4
          v2 = 0
          v3 = Add v0 v1
          Store Word [v3] v2",
    );
}

#[test]
fn singles_are_unboxed_once() {
    check(
        assemble!(; fadd.s fa0, fa1, fa2 ; fmul.s fa0, fa0, fa1),
        "010:
          v0 = f11
          v1 = Unbox v0
          v2 = f12
          v3 = Unbox v2
          v4 = FAdd.S v1 v3
          v5 = Box v4
          fp dirty
          f10 = v5
        014:
          v8 = f10
          v9 = f11
          v10 = Unbox v9
          v11 = FMul.S v8 v10
          v12 = Box v11
          f10 = v12",
    );
    // FMV.S, FNEG.S, FABS.S of a single that was loaded.
    check(
        assemble!(; flw fa1, [a0, 4] ; fsgnj.s fa0, fa1, fa1 ; fsgnjn.s fa2, fa1, fa1 ; fsgnjx.s fa3, fa1, fa1),
        "010:
          v0 = x10
          v1 = 4
          v2 = Add v0 v1
          v3 = Load Word [v2]
          v4 = Box v3
          fp dirty
          f11 = v4
        014:
          v7 = f11
          f10 = v7
        018:
          v9 = f11
          v10 = 0xffffffff80000000
          v11 = Xor v9 v10
          v12 = Box v11
          f12 = v12
        01c:
          v14 = f11
          v15 = 0x7fffffff
          v16 = And v14 v15
          v17 = Box v16
          f13 = v17",
    );
}

#[test]
fn doubles_change_sign_by_one_operation() {
    check(
        assemble!(; fsgnjn.d fa0, fa1, fa1 ; fsgnjx.d fa2, fa1, fa1),
        "010:
          v0 = f11
          v1 = 0x8000000000000000
          v2 = Xor v0 v1
          fp dirty
          f10 = v2
        014:
          v5 = f11
          v6 = 0x7fffffffffffffff
          v7 = And v5 v6
          f12 = v7",
    );
}

#[test]
fn conversions_to_integers_may_truncate() {
    check(
        assemble!(; fcvt.w.d a0, fa0, rtz ; fcvt.l.d a1, fa0),
        "010:
          v0 = f10
          v1 = FToI32.D.Zero v0
          x10 = v1
        014:
          v3 = f10
          v4 = FToI64.D.Nearest v3
          x11 = v4",
    );
    // No other rounding mode but the one that translated code runs in.
    check(
        assemble!(; fcvt.w.d a0, fa0, rmm ; fadd.d fa0, fa0, fa0, rtz),
        "010:
          perform
        014:
          perform",
    );
}

#[test]
fn atomic_instructions() {
    let check = |code: Vec<u8>, expected| {
        assert_eq!(lift(&code, START, FP, |_| true), Some(lines(expected)));
    };
    check(
        assemble!(; lr.w a0, [a2] ; sc.d a1, a0, [a2]),
        "010:
          v0 = x12
          v1 = LoadReserved Word [v0]
          x10 = v1
        014:
          v3 = x12
          v4 = x10
          v5 = StoreConditional Double [v3] v4
          x11 = v5
          goto 018",
    );
    // Only a load that is both acquired and released comes after all stores before it. Nobody takes the sum.
    check(
        assemble!(; lr.w.aqrl a0, [a2] ; amoadd.w zero, a0, [a2]),
        "010:
          v0 = x12
          fence
          v2 = LoadReserved Word [v0]
          x10 = v2
        014:
          v4 = x12
          v5 = x10
          v6 = AmoAdd Word [v4] v5
          goto 018",
    );
}

#[test]
fn control_registers() {
    let check = |code: Vec<u8>, mode: ModeKey, expected| {
        assert_eq!(lift(&code, START, mode, |_| true), Some(lines(expected)));
    };
    let plain = ModeKey { fp: false, mode: Mode::S };
    // The block goes on; addresses of instructions are even.
    check(
        assemble!(; csrrw tp, sscratch, tp ; csrw sepc, a0 ; ecall),
        FP,
        "010:
          v0 = x4
          v1 = Sscratch
          Sscratch = v0
          x4 = v1
        014:
          v4 = x10
          v5 = -2
          v6 = And v4 v5
          Sepc = v6
        018:
          perform
          goto 01c",
    );
    // Not with too little privilege; not those that only M-mode has.
    let performed = "010:
          perform
          goto 014";
    check(assemble!(; csrr a0, scause), ModeKey { fp: true, mode: Mode::U }, performed);
    check(assemble!(; csrr a0, mscratch), FP, performed);
    check(assemble!(; csrr a0, satp), plain, performed);
    // With floating point, sstatus shows what that has done.
    check(assemble!(; csrsi sstatus, 2), FP, performed);
    check(
        assemble!(; csrci sstatus, 2),
        plain,
        "010:
          v0 = Mstatus
          v1 = -3
          v2 = And v0 v1
          Mstatus = v2
          goto 014",
    );
    // Only one bit is left that may be set; an interrupt may be pending then.
    check(
        assemble!(; andi a0, a0, 2 ; csrs sstatus, a0),
        plain,
        "010:
          v0 = x10
          v1 = 2
          v2 = And v0 v1
          x10 = v2
        014:
          v4 = x10
          v5 = Mstatus
          v6 = 2
          v7 = And v4 v6
          v8 = Or v5 v7
          Mstatus = v8
          if interrupt goto 018
          goto 018",
    );
    // The flags of floating point; the rounding mode is to nearest, and if it becomes another the block is left.
    check(
        assemble!(; csrrwi a1, fcsr, 0 ; csrr a2, frm ; csrw fflags, a1 ; ecall),
        FP,
        "010:
          v0 = 0
          v1 = Fflags
          fp dirty
          Fflags = v0
          x11 = v1
        014:
          v5 = 0
          x12 = v5
        018:
          v7 = x11
          Fflags = v7
        01c:
          perform
          goto 020",
    );
    check(
        assemble!(; csrrs a0, fcsr, a0 ; ecall),
        FP,
        "010:
          v0 = x10
          v1 = Fflags
          v2 = Or v1 v0
          v3 = 224
          v4 = And v2 v3
          if v4 perform
          fp dirty
          v7 = 31
          v8 = And v2 v7
          Fflags = v8
          x10 = v1
        014:
          perform
          goto 018",
    );
    check(assemble!(; csrr a0, fflags), plain, performed);
    // FS, SUM and MXR are the interpreter's.
    check(
        assemble!(; csrc sstatus, a0),
        plain,
        "010:
          v0 = x10
          v1 = Mstatus
          v2 = 0xc6000
          v3 = And v0 v2
          v4 = And v3 v1
          if v4 perform
          v6 = 290
          v7 = And v0 v6
          v8 = -1
          v9 = Xor v7 v8
          v10 = And v1 v9
          Mstatus = v10
          goto 014",
    );
}

#[test]
fn fences_and_zeroed_blocks() {
    let check = |code: Vec<u8>, mode: ModeKey, expected| {
        assert_eq!(lift(&code, START, mode, |_| true), Some(lines(expected)));
    };
    // fence w, r; fence rw, w; fence r, rw; fence o, i: whatever stores before and loads after.
    let words = [0x0120_000fu32, 0x0310_000f, 0x0230_000f, 0x0480_000f, 0];
    check(
        words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        FP,
        "010:
          fence
        014:
        018:
        01c:
          fence
        020:
          perform
          goto 022",
    );
    // cbo.zero (a0), as menvcfg and senvcfg allow it.
    let code = [0x0045_200fu32, 0].map(u32::to_le_bytes).concat();
    check(
        code.clone(),
        ModeKey { fp: false, mode: Mode::U },
        "010:
          v0 = x10
          v1 = Menvcfg
          v2 = Senvcfg
          v3 = And v1 v2
          v4 = 128
          v5 = And v3 v4
          v6 = ZeroBlock [v0] v5
        014:
          perform
          goto 016",
    );
    check(
        code,
        ModeKey { fp: false, mode: Mode::M },
        "010:
          v0 = x10
          v1 = 1
          v2 = ZeroBlock [v0] v1
        014:
          perform
          goto 016",
    );
}

#[test]
fn the_interpreter_performs_the_rest() {
    let code = assemble!(; fsgnj.d fa0, fa1, fa1 ; fadd.d fa0, fa0, fa1 ; ecall);
    let expected = "010:
          perform
        014:
          perform
        018:
          perform
          goto 01c";
    assert_eq!(
        lift(&code, START, ModeKey { fp: false, mode: Mode::S }, |_| true),
        Some(lines(expected))
    );
    // After it nothing is known: the register may hold another constant, the state be clean.
    let code = assemble!(; fsgnj.d fa0, fa1, fa1 ; addi a0, zero, 1 ; fcvt.w.d a1, fa0, rmm ; addi a0, a0, 1 ; fsgnj.d fa0, fa1, fa1);
    check(
        code,
        "010:
          v0 = f11
          fp dirty
          f10 = v0
        014:
          v3 = 1
          x10 = v3
        018:
          perform
        01c:
          v6 = x10
          v7 = 1
          v8 = Add v6 v7
          x10 = v8
        020:
          v10 = f11
          fp dirty
          f10 = v10",
    );
    // What the emitter does not know.
    let no_division = |op: &Op| !matches!(op, Op::Bin(mimic_cpu::riscv::sem::Bin::Div, ..));
    let code = assemble!(; div a0, a0, a1 ; ebreak);
    let expected = "010:
          perform
        014:
          perform
          goto 018";
    assert_eq!(lift(&code, START, FP, no_division), Some(lines(expected)));
}

#[test]
fn fences_are_fences_but_pause_is_not() {
    // PAUSE is FENCE with predecessor W alone.
    check(
        assemble!(; fence rw, rw ; .u32 0x0100_000f),
        "010:
          fence
        014:
          perform",
    );
    let code = assemble!(; fence.i);
    assert_eq!(lift(&code, START, FP, |_| true), Some(lines("010:\nperform\ngoto 014")),);
}

#[test]
fn blocks_end_where_the_interpreters_do() {
    // An undefined instruction.
    assert_eq!(lift(&[0, 0], START, FP, |_| true), Some(lines("010:\nperform\ngoto 012")));
    // The end of the page, with an instruction across it and without.
    let code = assemble!(; .u16 0x0505 ; .u16 0x0533);
    let expected = "ffc:
          v0 = x10
          v1 = 1
          v2 = Add v0 v1
          x10 = v2
          goto ffe";
    assert_eq!(lift(&code, 0xffc, FP, |_| true), Some(lines(expected)));
    assert_eq!(lift(&code[2..], 0xffe, FP, |_| true), None);
    assert_eq!(
        lift(&code[..2], 0xffe, FP, |_| true),
        Some(lines(&expected.replace("ffe", "1000").replace("ffc", "ffe"))),
    );
    // 64 instructions.
    let code: Vec<u8> = [0x05, 0x05].repeat(100);
    let text = lift(&code, 0, FP, |_| true).expect("a block");
    assert_eq!(text.matches(':').count(), 64);
    assert!(text.ends_with("\ngoto 080"), "{text}");
}
