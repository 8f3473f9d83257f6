//! Random programs, run in one go, in random portions and one instruction at a time: how a run is cut must
//! not show in anything the guest or the snapshot sees.

#[path = "common/asm.rs"]
mod asm;
mod common;
#[path = "common/names.rs"]
mod names;
#[path = "common/random.rs"]
mod random;

use std::sync::Arc;

use asm::assemble;
use common::{RAM, TestBus, interp, open_hart, run};
use mimic_cpu::bus::Width::Double;
use mimic_cpu::bus::{PAGE_SIZE, Width};
use mimic_cpu::riscv::csr::fields::{MEDELEG, envcfg, irq, mstatus};
use mimic_cpu::riscv::csr::num;
use mimic_cpu::riscv::hart::{Hart, Mode};
use mimic_cpu::riscv::insn::{self, Format, Row, c};
use mimic_cpu::run::Exit;
use names::Names;
use random::Random;

/// Pages of RAM for data; behind them is ROM, so that no store changes code or page tables: how long
/// stale code lives without a fence would depend on where a run is cut.
const DATA_PAGES: u64 = 4;
const CODE: u64 = RAM + DATA_PAGES * PAGE_SIZE;
const CODE_PAGES: u64 = 2;
const HANDLER: u64 = CODE + CODE_PAGES * PAGE_SIZE;
const TABLES: u64 = HANDLER + PAGE_SIZE;
const ROM_PAGES: u64 = CODE_PAGES + 1 + 3;
/// Offset of S-mode's handler behind M-mode's.
const S_HANDLER: u64 = 0x400;
const MRET: u32 = 0x3020_0073;
const SRET: u32 = 0x1020_0073;

/// Registers that random CSR instructions use. Left out are those that lead away for good (`mtvec`,
/// `stvec`) and those that make interrupts depend on when the clock is looked at (`stimecmp`, `menvcfg`).
const CSRS: [u16; 24] = [
    num::FFLAGS,
    num::FRM,
    num::FCSR,
    num::CYCLE,
    num::TIME,
    num::INSTRET,
    num::SSTATUS,
    num::SIE,
    num::SIP,
    num::SSCRATCH,
    num::SATP,
    num::MSTATUS,
    num::MISA,
    num::MEDELEG,
    num::MIDELEG,
    num::MIE,
    num::MIP,
    num::MSCRATCH,
    num::MCOUNTEREN,
    num::SCOUNTEREN,
    num::MCOUNTINHIBIT,
    num::MCYCLE,
    num::MINSTRET,
    num::SEPC,
];

/// A random instruction of the table, with operands that keep it useful.
fn random_word(random: &mut Random, rows: &[Row<Names>]) -> u32 {
    let row = &rows[random.below(rows.len() as u64) as usize];
    let mut word = row.pattern.value | random.next() as u32 & !row.pattern.mask;
    let opcode = word & 0x7f;
    let set = |word: u32, low: u32, bits: u32, value: u32| {
        word & !(((1 << bits) - 1) << low) | value << low
    };
    // Mostly, x8 and x9 point to data and are kept.
    if !matches!(row.format, Format::S | Format::B) && word >> 8 & 0xf == 4 {
        word ^= 1 << 11;
    }
    match row.format {
        Format::Csr => word = set(word, 20, 12, u32::from(random.pick(&CSRS))),
        // At most 126 bytes ahead or 128 back.
        Format::B => {
            let back = word >> 31;
            word = set(set(word, 27, 5, 31 * back), 7, 1, back);
        }
        // 4, 8, 16 or 32 bytes ahead.
        Format::J => word = set(word, 12, 20, random.pick(&[0x400, 0x800, 0x1000, 0x2000])),
        _ => {}
    }
    let memory = matches!(opcode, 0x03 | 0x07 | 0x23 | 0x27 | 0x2f | 0x0f);
    if memory && random.below(8) != 0 {
        word = set(word, 15, 5, random.pick(&[8, 9]));
    }
    word
}

/// A machine in which everything but registers and data is random code.
fn machine(seed: u64) -> (Hart, Arc<TestBus>) {
    let mut random = Random(seed);
    let bus = TestBus::new(DATA_PAGES as usize, ROM_PAGES as usize);
    let rows: Vec<_> =
        insn::tables::<Names>().into_iter().filter(|row| row.name != "wfi").collect();
    let mut at = CODE;
    while at < HANDLER {
        let (word, len) = if random.below(4) == 0 {
            let row = &c::ROWS[random.below(c::ROWS.len() as u64) as usize];
            (row.pattern.value | random.next() as u32 & 0xffff & !row.pattern.mask, 2)
        } else {
            (random_word(&mut random, &rows), 4)
        };
        bus.store(at, Width::Half, u64::from(word));
        if len == 4 && at + 2 < HANDLER {
            bus.store(at + 2, Width::Half, u64::from(word >> 16));
        }
        at += len;
    }
    put_handlers(&bus);
    let mut hart = open_hart(CODE);
    // Nobody may execute data.
    hart.pmp.write_addr(0, RAM >> 2 | (DATA_PAGES * PAGE_SIZE / 8 - 1));
    hart.pmp.write_addr(1, u64::MAX);
    hart.pmp.write_cfg(0, 0x1f9b);
    put_tables(&bus);
    hart.x = std::array::from_fn(|r| if r == 0 { 0 } else { random.next() >> random.below(64) });
    hart.f = std::array::from_fn(|_| random.next() | random.pick(&[0, 0xffff_ffff << 32]));
    (hart.x[8], hart.x[9]) = (RAM + 0x1000, RAM + 0x2ff8);
    hart.mtvec = HANDLER;
    hart.stvec = HANDLER + S_HANDLER;
    hart.medeleg = random.next() & MEDELEG;
    hart.mideleg = random.next() & irq::SUPERVISOR;
    hart.mie = random.next() & irq::ALL;
    hart.mcounteren = random.next() & 7;
    hart.scounteren = random.next() & 7;
    hart.menvcfg = random.next() & envcfg::MENVCFG & !envcfg::STCE;
    hart.senvcfg = random.next() & envcfg::SENVCFG;
    hart.mstatus |= random.next() & mstatus::WRITABLE & !mstatus::MPP;
    hart.satp = random.pick(&[0, 8 << 60 | TABLES >> 12]);
    (hart, bus)
}

/// Trap handlers of M-mode and, at [`S_HANDLER`], S-mode. Both point x8 and x9 to data again and return
/// into the middle of the code, to a place and (in M-mode) a mode that follow from what was executed.
fn put_handlers(bus: &TestBus) {
    let (target, data0, data1) = (CODE + 0xc00, RAM + 0x1000, RAM + 0x2ff8);
    let machine = assemble!(
        ; lui t6, 0x20000
        ; csrc 0x300, t6 // MPRV
        ; csrr t5, 0xb02
        ; andi t4, t5, 0x7fe
        ; la t6, >constants
        ; ld t3, [t6]
        ; ld s0, [t6, 8]
        ; ld s1, [t6, 16]
        ; add t4, t4, t3
        ; csrw 0x341, t4
        ; lui t3, 0x2000
        ; addi t3, t3, -2048
        ; csrc 0x300, t3 // MPP
        ; slli t5, t5, 8
        ; and t5, t5, t3
        ; csrs 0x300, t5
        ; csrw 0x344, x0
        ; .u32 MRET
        ; .align 8
        ; constants:
        ; .u64 target
        ; .u64 data0
        ; .u64 data1
    );
    let supervisor = assemble!(
        ; addi t5, t5, 54
        ; andi t4, t5, 0x7fe
        ; la t6, >constants
        ; ld t3, [t6]
        ; ld s0, [t6, 8]
        ; ld s1, [t6, 16]
        ; add t4, t4, t3
        ; csrw 0x141, t4
        ; csrw 0x144, x0
        ; .u32 SRET
        ; .align 8
        ; constants:
        ; .u64 target
        ; .u64 data0
        ; .u64 data1
    );
    assert!(machine.len() as u64 <= S_HANDLER);
    bus.put_bytes(HANDLER, &machine);
    bus.put_bytes(HANDLER + S_HANDLER, &supervisor);
}

/// Sv39 tables that map everything to itself: the data pages with different rights, one page of code for
/// S-mode, one for U-mode.
fn put_tables(bus: &TestBus) {
    let tables = [TABLES, TABLES + PAGE_SIZE, TABLES + 2 * PAGE_SIZE];
    bus.store(tables[0] + 8 * (RAM >> 30), Double, tables[1] >> 12 << 10 | 1);
    bus.store(tables[1], Double, tables[2] >> 12 << 10 | 1);
    let rights = [0xcf, 0xd7, 0x47, 0x06, 0x4b, 0x5b, 0x4b];
    for (index, rights) in rights.into_iter().enumerate() {
        let page = RAM + index as u64 * PAGE_SIZE;
        bus.store(tables[2] + 8 * index as u64, Double, page >> 12 << 10 | rights);
    }
}

/// How a run came out: the reason it ended, the hart, and memory.
type Outcome = (Exit, Hart, Vec<u64>);

/// Runs `insns` instructions of the machine, cut as `portion` says.
fn outcome(seed: u64, insns: u64, mut portion: impl FnMut() -> u64) -> Outcome {
    let (hart, bus) = machine(seed);
    let (mut interp, _) = interp(hart, &bus);
    let mut exit = Exit::Budget;
    while interp.retired() < insns && exit == Exit::Budget {
        let now = portion().min(insns - interp.retired());
        exit = run(&mut interp, now);
    }
    let hart = interp.hart();
    assert!(hart.retired <= insns);
    assert_eq!(hart.x[0], 0);
    (exit, hart, bus.dump())
}

#[test]
fn a_run_may_be_cut_anywhere() {
    const INSNS: u64 = 2000;
    let (mut complete, mut modes, mut traps) = (0, [0; 4], [0; 32]);
    for seed in 0..200 {
        let whole = outcome(seed, INSNS, || INSNS);
        let mut random = Random(!seed);
        let portions = outcome(seed, INSNS, || 1 + random.below(40));
        let steps = outcome(seed, INSNS, || 1);
        for (cut, how) in [(portions, "in portions"), (steps, "in single steps")] {
            assert_eq!((&whole.0, &whole.1), (&cut.0, &cut.1), "machine {seed}, whole and {how}");
            assert!(whole.2 == cut.2, "machine {seed}, memory, whole and {how}");
        }
        let (exit, hart, _) = whole;
        complete += u64::from(exit == Exit::Budget);
        modes[hart.mode as usize] += 1;
        traps[hart.mcause as usize & 31] += 1;
    }
    // The comparison means something only if the programs get somewhere.
    println!("{complete} complete, last modes {modes:?}, last causes {traps:?}");
    assert!(complete > 150, "only {complete} of 200 did not end early");
    assert!(modes[Mode::U as usize] > 10 && modes[Mode::S as usize] > 10, "{modes:?}");
}
