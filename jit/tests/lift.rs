//! Lifted code, evaluated, against the interpreter: one instruction of every kind, and random blocks.

#[path = "../../cpu/tests/common/mod.rs"]
mod common;
#[path = "../../cpu/tests/common/random.rs"]
mod random;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{RAM, TestBus, interp, open_hart, run};
use mimic_cpu::bus::{PAGE_MASK, PAGE_SIZE, Width};
use mimic_cpu::riscv::alu;
use mimic_cpu::riscv::csr::fields::mstatus;
use mimic_cpu::riscv::csr::num;
use mimic_cpu::riscv::hart::{Hart, Reservation};
use mimic_cpu::riscv::insn::{self, Flow, Format, Row, c};
use mimic_cpu::riscv::interp::host::Word;
use mimic_cpu::riscv::sem::Atomic;
use mimic_cpu::run::Exit;
use mimic_jit::ir::eval::{Evaluation, Left, Memory, State};
use mimic_jit::ir::opt::Passes;
use mimic_jit::ir::{Block, Op, Val};
use mimic_jit::riscv::lift::{Lifter, ModeKey};
use random::Random;

const DATA_PAGES: u64 = 4;
/// Code lies in ROM, so that no store changes it.
const CODE: u64 = RAM + DATA_PAGES * PAGE_SIZE;
const HANDLER: u64 = CODE + PAGE_SIZE;
const END: u64 = HANDLER + PAGE_SIZE;
/// `j .+8`
const JUMP: u32 = 0x0080_006f;

impl Random {
    /// A value at one of the edges, or any.
    fn value(&mut self) -> u64 {
        let edge =
            self.pick(&[0, 1, 0x7f, 0x80, 0x7fff, 0xffff, 0x7fff_ffff, 1 << 31, 1 << 32, 1 << 63]);
        match self.below(6) {
            0 => edge,
            1 => edge.wrapping_neg(),
            2 => edge.wrapping_sub(self.below(3)),
            3 => RAM + self.below(DATA_PAGES * PAGE_SIZE),
            _ => self.next() >> self.below(64),
        }
    }

    /// A floating-point register.
    fn fp_value(&mut self) -> u64 {
        let single = [
            0,
            1,
            0x7f_ffff,
            0x80_0000,
            0x3f80_0000,
            0x4b00_0001,
            0x4f00_0000,
            0x5f00_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7f80_0001,
            0x7fc0_0000,
            0x7fc1_2345,
        ];
        let double = [
            0,
            1,
            0x3ff0 << 48,
            0x4030_8000_0000_0000,
            0x41df_ffff_ffe0_0000,
            0x43e0 << 48,
            0x7fef << 48,
            0x7ff0 << 48,
            0x7ff0_0000_0000_0001,
            0x7ff8 << 48,
            0x36a0 << 48,
            0x47ef_ffff_f000_0000,
        ];
        let boxed = 0xffff_ffff << 32;
        match self.below(8) {
            0 | 1 => self.pick(&single) | self.below(2) << 31 | boxed,
            2 => self.next() >> 32 | boxed,
            // Numbers that are near each other.
            3 => 0x3f80_0000 + self.below(0x0180_0000) | boxed,
            4 => self.pick(&double) | self.below(2) << 63,
            5 => 0x3ff0 << 48 | self.next() >> 12,
            6 => self.next(),
            _ => self.pick(&single),
        }
    }
}

/// The hart's memory, which lies at its physical addresses.
struct Flat<'a> {
    bus: &'a TestBus,
    hart: &'a mut Hart,
}

impl Memory for Flat<'_> {
    type Fault = ();

    fn load(&mut self, addr: u64, width: Width) -> Result<u64, ()> {
        let place = |i| addr.checked_add(i).filter(|at| (RAM..END).contains(at)).ok_or(());
        (0..width.bytes())
            .try_fold(0, |value, i| Ok(value | self.bus.load(place(i)?, Width::Byte) << (8 * i)))
    }

    fn store(&mut self, addr: u64, width: Width, value: u64) -> Result<(), ()> {
        if addr < RAM || addr > CODE - width.bytes() {
            return Err(());
        }
        for i in 0..width.bytes() {
            self.bus.store(addr + i, Width::Byte, value >> (8 * i));
        }
        Ok(())
    }

    fn atomic(&mut self, op: Atomic, addr: u64, width: Width, value: u64) -> Result<u64, ()> {
        if op == Atomic::ZeroBlock {
            let block = addr & !63;
            if value == 0 {
                return Err(());
            }
            return (0..64)
                .step_by(8)
                .try_for_each(|offset| self.store(block + offset, Width::Double, 0))
                .map(|()| 0);
        }
        let reserved = match op {
            Atomic::Amo(_) | Atomic::ZeroBlock => None,
            _ => self.hart.reservation.take(),
        };
        if addr & (width.bytes() - 1) != 0 {
            return Err(());
        }
        let now = Reservation { gpa: addr, bytes: width.bytes(), value: self.load(addr, width)? };
        match op {
            Atomic::LoadReserved => self.hart.reservation = Some(now),
            Atomic::StoreConditional => {
                // The right to store counts even where nothing is stored.
                self.store(addr, width, now.value)?;
                if reserved == Some(now) {
                    self.store(addr, width, value)?;
                }
                return Ok(u64::from(reserved != Some(now)));
            }
            Atomic::Amo(amo) => self.store(addr, width, alu::amo(amo, width, now.value, value))?,
            Atomic::ZeroBlock => {}
        }
        Ok(width.sign_extend(now.value))
    }
}

impl Flat<'_> {
    fn place(&mut self, word: Word) -> Option<&mut u64> {
        let hart = &mut *self.hart;
        Some(match word {
            Word::Fflags => return None,
            Word::Mstatus => &mut hart.mstatus,
            Word::Menvcfg => &mut hart.menvcfg,
            Word::Senvcfg => &mut hart.senvcfg,
            Word::Mie => &mut hart.mie,
            Word::Mip => &mut hart.mip,
            Word::Timer => return None,
            Word::Mtvec => &mut hart.mtvec,
            Word::Mscratch => &mut hart.mscratch,
            Word::Mepc => &mut hart.mepc,
            Word::Mcause => &mut hart.mcause,
            Word::Mtval => &mut hart.mtval,
            Word::Stvec => &mut hart.stvec,
            Word::Sscratch => &mut hart.sscratch,
            Word::Sepc => &mut hart.sepc,
            Word::Scause => &mut hart.scause,
            Word::Stval => &mut hart.stval,
        })
    }
}

impl State for Flat<'_> {
    fn word(&mut self, word: Word) -> u64 {
        match word {
            Word::Fflags => self.hart.fflags.into(),
            _ => self.place(word).map_or(0, |place| *place),
        }
    }

    fn set_word(&mut self, word: Word, value: u64) {
        if word == Word::Fflags {
            self.hart.fflags = value as u8;
        } else if let Some(place) = self.place(word) {
            *place = value;
        }
    }

    /// Nothing is enabled.
    fn may_be_interrupted(&mut self) -> bool {
        false
    }
}

/// A hart about to execute code at some offset of the code page.
struct Case {
    hart: Hart,
    bus: Arc<TestBus>,
}

impl Case {
    fn new(seed: u64, offset: u64, code: &[u16]) -> Self {
        let mut random = Random(seed);
        let bus = TestBus::new(DATA_PAGES as usize, 2);
        for at in (RAM..CODE).step_by(8) {
            bus.store(at, Width::Double, random.next());
        }
        for (at, half) in (CODE + offset..HANDLER).step_by(2).zip(code) {
            bus.store(at, Width::Half, u64::from(*half));
        }
        // addi x0, x0, 0
        bus.put_words(HANDLER, &[0x13; 4]);
        let mut hart = open_hart(CODE + offset);
        hart.mtvec = HANDLER;
        hart.mstatus =
            hart.mstatus & !mstatus::FS | random.pick(&[0, 0x2000, 0x2000, 0x4000, 0x4000, 0x6000]);
        hart.fflags = random.next() as u8 & 0x1f;
        hart.frm = random.pick(&[0, 0, 0, 0, 0, 0, 1, 3, 5]);
        hart.x = std::array::from_fn(|r| if r == 0 { 0 } else { random.value() });
        (hart.x[8], hart.x[9]) = (RAM + 0x1000, RAM + 0x2ff8);
        hart.f = std::array::from_fn(|_| random.fp_value());
        Case { hart, bus }
    }

    fn mode(&self) -> ModeKey {
        ModeKey {
            fp: self.hart.mstatus & mstatus::FS != 0 && self.hart.frm == 0,
            mode: self.hart.mode,
        }
    }

    fn lift<'a>(&self, lifter: &'a mut Lifter) -> Option<&'a Block> {
        let read = |offset| self.bus.load(CODE + offset, Width::Half) as u16;
        lifter.lift_block(read, self.hart.pc & PAGE_MASK, self.mode())
    }

    /// Evaluates `block`, leaving to an interpreter what is to be performed and what faults.
    fn evaluate(&mut self, block: &Block) {
        let mut regs = [0; 256];
        let mut evaluation = Evaluation::default();
        let mut done = 0;
        loop {
            regs[..32].copy_from_slice(&self.hart.x);
            regs[64..96].copy_from_slice(&self.hart.f);
            let hart = &mut self.hart;
            let mut memory = Flat { bus: &self.bus, hart };
            let left = evaluation.run(block, &mut regs, CODE, &mut memory);
            hart.x.copy_from_slice(&regs[..32]);
            hart.f.copy_from_slice(&regs[64..96]);
            let flags = std::mem::take(&mut evaluation.flags);
            hart.fflags |= flags.bits();
            if !flags.is_empty() || std::mem::take(&mut evaluation.fp_dirty) {
                hart.mstatus |= mstatus::FS;
            }
            let at = block.insns[evaluation.insn].at;
            hart.pc = CODE + at.offset();
            if let Left::To(pc) = left {
                hart.pc = pc;
                hart.retired += (evaluation.insn + 1 - done) as u64;
                return;
            }
            hart.retired += (evaluation.insn - done) as u64;
            let (mut interp, _) = interp(hart.clone(), &self.bus);
            assert_eq!(run(&mut interp, 1), Exit::Budget);
            *hart = interp.hart();
            let trapped = interp.counters().traps != 0;
            assert!(
                trapped || matches!(left, Left::Perform | Left::Instead),
                "evaluation faulted, the interpreter did not"
            );
            let instead = matches!(left, Left::Instead);
            if trapped || instead || hart.pc != CODE + at.offset() + at.bytes() {
                return;
            }
            done = evaluation.insn + 1;
            if block.insns.len() == done {
                return;
            }
        }
    }
}

fn data(bus: &TestBus) -> impl Iterator<Item = u64> {
    (RAM..CODE).step_by(8).map(|at| bus.load(at, Width::Double))
}

/// Runs the case on the interpreter and by evaluation under each of `passes`; whether there was a block.
fn compare(
    lifters: &mut [(Passes, Lifter)],
    what: &str,
    make: impl Fn() -> Case,
    mut look: impl FnMut(&Block),
) -> bool {
    for (passes, lifter) in lifters {
        let mut evaluated = make();
        let Some(block) = evaluated.lift(lifter) else { return false };
        look(block);
        evaluated.evaluate(block);
        let expected = make();
        let (mut interp, _) = interp(expected.hart.clone(), &expected.bus);
        assert_eq!(run(&mut interp, evaluated.hart.retired), Exit::Budget);
        let (wanted, found) = (interp.hart(), &evaluated.hart);
        if wanted != *found || data(&expected.bus).ne(data(&evaluated.bus)) {
            for (r, (before, (wanted, found))) in
                expected.hart.x.iter().zip(wanted.x.iter().zip(found.x)).enumerate()
            {
                println!("x{r}: {before:#x} -> {wanted:#x} {found:#x}");
            }
            for (r, (before, (wanted, found))) in
                expected.hart.f.iter().zip(wanted.f.iter().zip(found.f)).enumerate()
            {
                println!("f{r}: {before:#x} -> {wanted:#x} {found:#x}");
            }
            println!("{passes:?}\n{block}");
            assert_eq!(wanted, *found, "{what}");
            panic!("{what}: memory differs");
        }
    }
    true
}

/// Checks what a block promises to those who read it.
fn check_form(block: &Block) {
    let end = block.ops.len() - 1;
    let firsts: Vec<_> = block.insns.iter().map(|insn| insn.first as usize).collect();
    assert!(firsts.is_sorted() && firsts[0] == 0 && firsts.iter().all(|&first| first <= end));
    let insn = |at: usize| firsts.partition_point(|&first| first <= at) - 1;
    let mut written = [0; 256];
    for (at, op) in block.ops.iter().enumerate() {
        assert_eq!(at == end, matches!(op, Op::Jump(_) | Op::Goto(_)), "{block}");
        for Val(operand) in op.operands() {
            let operand = operand as usize;
            let made = block.ops[operand];
            assert!(operand < at && made.makes_value(), "{block}");
            let Op::Get(slot) = made else {
                assert_eq!(insn(operand), insn(at), "v{operand} outlives its instruction\n{block}");
                continue;
            };
            assert!(written[usize::from(slot)] <= operand, "v{operand} is overwritten\n{block}");
            assert!(insn(at) - insn(operand) <= 1, "v{operand} outlives its instruction\n{block}");
        }
        if let Op::Set(slot, _) = *op {
            written[usize::from(slot)] = at;
        }
    }
}

fn lifters(passes: &[Passes]) -> Vec<(Passes, Lifter)> {
    passes.iter().map(|&passes| (passes, Lifter::new(passes, |_| true))).collect()
}

fn halves(words: &[u32]) -> Vec<u16> {
    words.iter().flat_map(|&word| [word as u16, (word >> 16) as u16]).collect()
}

/// Sets `bits` bits of `word` from bit `low` on.
fn set(word: u32, low: u32, bits: u32, value: u64) -> u32 {
    word & !(((1 << bits) - 1) << low) | (value as u32) << low
}

/// A random word of a row, with operands that keep it useful.
fn random_word(random: &mut Random, row: &Row<Lifter>) -> u32 {
    let free = !row.pattern.mask;
    let mut word = row.pattern.value | random.next() as u32 & free;
    let opcode = word & 0x7f;
    // Floating-point instructions that round: mostly as translated code can.
    if matches!(opcode, 0x43..=0x53) && free >> 12 & 7 == 7 && random.below(8) != 0 {
        word = set(word, 12, 3, random.pick(&[0, 1, 7, 7]));
    }
    // Control registers: mostly those that translated code reads and writes.
    if row.format == Format::Csr && random.below(8) != 0 {
        let common = [num::SSTATUS, num::SSTATUS, num::SEPC, num::STVEC, num::SSCRATCH, num::MEPC];
        let fp = [num::FFLAGS, num::FRM, num::FCSR];
        let csrs: &[u16] = if random.below(2) == 0 { &common } else { &fp };
        word = set(word, 20, 12, u64::from(random.pick(csrs)));
    }
    // Mostly, x8 and x9 point to data and are kept; x8 is aligned, as atomics need it.
    let memory = matches!(opcode, 0x03 | 0x07 | 0x23 | 0x27 | 0x2f);
    if memory && random.below(16) != 0 {
        word = set(word, 15, 5, if opcode == 0x2f { 8 } else { random.pick(&[8, 9]) });
    }
    if !matches!(row.format, Format::S | Format::B) && word >> 8 & 0xf == 4 && random.below(16) != 0
    {
        word ^= 1 << 11;
    }
    word
}

/// What the interpreter performs, today.
const PERFORMED: &str = "fence_i fcvt_s_h fcvt_h_s fcvt_d_h fcvt_h_d cbo_inval cbo_clean cbo_flush ecall \
    ebreak mret sret wfi wrs_nto wrs_sto sfence_vma sinval_vma sfence_w_inval sfence_inval_ir";

fn performed() -> BTreeSet<&'static str> {
    PERFORMED.split_whitespace().collect()
}

#[test]
fn every_instruction_does_what_the_interpreter_does() {
    let rows = insn::tables::<Lifter>();
    let mut lifters = lifters(&[Passes::all(), Passes::ATOMICS | Passes::CSRS]);
    let mut performed = BTreeSet::new();
    for (index, row) in rows.iter().enumerate() {
        if row.name == "wfi" {
            performed.insert(row.name);
            continue;
        }
        let (mut lifted, mut random) = (0, Random(index as u64));
        for round in 0..40 {
            let mut words: Vec<_> = (0..6).map(|_| random_word(&mut random, row)).collect();
            words.push(JUMP);
            let (code, seed) = (halves(&words), random.next());
            let what = format!("{}, round {round}", row.name);
            compare(
                &mut lifters,
                &what,
                || Case::new(seed, 0x800, &code),
                |block| {
                    let performs = block.ops.iter().filter(|&&op| op == Op::Perform).count();
                    let jumps = block.insns.iter().filter(|insn| insn.word == JUMP).count();
                    lifted += block.insns.len() - jumps - performs;
                },
            );
        }
        if lifted == 0 {
            performed.insert(row.name);
        }
    }
    assert_eq!(performed, self::performed());
}

/// Random code for the whole of a page: single instructions and the pairs that compilers make.
fn random_code(random: &mut Random, rows: &[Row<Lifter>]) -> Vec<u16> {
    let (mut code, performed) = (Vec::new(), performed());
    // Few registers, so that instructions depend on each other.
    let few = |random: &mut Random| random.pick(&[0, 5, 6, 7, 10, 11]);
    while code.len() < PAGE_SIZE as usize / 2 {
        let (a, b) = (few(random), few(random));
        let shift = |op: u32, rd: u64, rs: u64, amount: u64| {
            op | (rd as u32) << 7 | (rs as u32) << 15 | (amount as u32) << 20
        };
        match random.below(16) {
            0 | 1 => {
                let row = &c::ROWS[random.below(c::ROWS.len() as u64) as usize];
                let word = row.pattern.value | random.next() as u32 & 0xffff & !row.pattern.mask;
                // Seldom memory at any address, and jumps.
                let seldom = matches!(word >> 13 & 7, 1..=3 | 5..=7) && word & 3 != 1
                    || matches!(row.name, "c_j" | "c_jr" | "c_jalr" | "c_ebreak");
                if !seldom || random.below(8) == 0 {
                    code.push(word as u16);
                }
            }
            3 => {
                let amounts = [32, 32, 48, 56, 29, 33, random.below(64)];
                let (left, right) = (random.pick(&amounts), random.pick(&amounts));
                let right = if random.below(2) == 0 { left } else { right };
                let op = random.pick(&[0x5013, 0x4000_5013]);
                code.extend(halves(&[shift(0x1013, a, b, left), shift(op, few(random), a, right)]));
            }
            4 => {
                // lui or auipc, then something with an immediate: addi, addiw, ld, jalr, xori, slli.
                let upper = random.pick(&[0x37, 0x17]) | (a as u32) << 7;
                // Often a page of data.
                let page = random.next() as u32;
                let page = random.pick(&[u32::MAX, u32::MAX - 1, page]);
                let lower = random.pick(&[0x13, 0x1b, 0x3003, 0x67, 0x4013, 0x1013]);
                code.extend(halves(&[upper | page << 12, shift(lower, b, a, random.below(64))]));
            }
            _ => {
                let row = &rows[random.below(rows.len() as u64) as usize];
                let seldom = row.format == Format::B || performed.contains(row.name);
                if seldom && random.below(4) != 0 {
                    continue;
                }
                let mut word = random_word(random, row);
                if row.format == Format::B {
                    // Some conditions hold seldom.
                    word = set(word, 15, 5, few(random));
                    word = set(word, 20, 5, few(random));
                } else if random.below(2) == 0 {
                    let free = !row.pattern.mask;
                    for low in [7, 15, 20] {
                        let memory = matches!(word & 0x7f, 0x03 | 0x07 | 0x23 | 0x27 | 0x2f);
                        if free >> low & 31 == 31 && !memory {
                            word = set(word, low, 5, few(random));
                        }
                    }
                }
                code.extend(halves(&[word]));
            }
        }
    }
    code
}

#[test]
fn random_blocks_do_what_the_interpreter_does() {
    // Few instructions that end blocks.
    let rows: Vec<_> = insn::tables::<Lifter>()
        .into_iter()
        .filter(|row| row.flow != Flow::End && !row.name.starts_with("fence"))
        .collect();
    let integer: Vec<_> = insn::tables::<Lifter>()
        .into_iter()
        .filter(|row| matches!(row.pattern.value & 0x7f, 0x13 | 0x1b | 0x33 | 0x3b | 0x37))
        .collect();
    let mut passes = vec![Passes::all(), Passes::empty()];
    passes.extend(Passes::all().iter().map(|without| Passes::all() - without));
    let mut lifters = lifters(&passes);
    let (mut insns, mut blocks) = (0, 0);
    for seed in 0..1500 {
        let mut random = Random(seed);
        // Half of them of integer operations that all depend on each other.
        let code = random_code(&mut random, if seed % 2 == 0 { &rows } else { &integer });
        // Blocks at the end of the page are cut there.
        let offset =
            random.pick(&[0, 0x400, 0xf00, 0xfe0, 0xffc, 0xffe]) + 2 * random.below(2) & 0xffe;
        let what = format!("block {seed} at {offset:#x}");
        let code = &code[..(PAGE_SIZE - offset) as usize / 2];
        let seed = random.next();
        compare(
            &mut lifters,
            &what,
            || Case::new(seed, offset, code),
            |block| {
                check_form(block);
                blocks += 1;
                insns += block.insns.len();
            },
        );
    }
    println!("{blocks} blocks of {insns} instructions");
    assert!(insns > 8 * blocks && blocks > 5000, "{blocks} blocks of {insns} instructions");
}
