//! The interpreter beside the host's processor: every harmless instruction form on the same operands, and
//! registers of every kind, defined flags and memory compared.
//!
//! `MIMIC_X86_CASES` sets the number of operand sets per form (the full comparison has 10000).
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)] // Executable memory.

#[path = "../x86_common/mod.rs"]
mod common;
mod forms;
mod native;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{PcBus, Start, interp};
use forms::{Form, Reason, forms};
use iced_x86::{Code, EncodingKind, Mnemonic, RflagsBits};
use mimic_cpu::bus::{PAGE_SIZE, Width};
use mimic_cpu::run::{Budget, Exit};
use mimic_cpu::x86::decode::{CodeSize, performs};
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::interp::Interp;
use mimic_cpu::x86::model::Model;
use mimic_cpu::x86::simd::{self, Mxcsr, Run, V256};
use mimic_cpu::x86::state::{cr4, xcr0};
use native::{Area, DATA_LEN, Memory, State, Trampoline};

/// Operand sets per form.
fn cases() -> usize {
    let default = if cfg!(debug_assertions) { 100 } else { 500 };
    std::env::var("MIMIC_X86_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Xorshift (Marsaglia 2003), and values at the edges.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A number of 80 bits: significand; sign and exponent. Most are of moderate size.
    fn extended(&mut self) -> (u64, u16) {
        let sign = (self.next() as u16) << 15;
        match self.below(8) {
            0 => (self.value(), self.next() as u16),
            1 => (0, sign),
            2 => (1 << 63, sign | 0x7fff),
            3 => (self.next() >> 1, sign),
            4 => (1 << 63 | self.next(), sign | (self.next() as u16 & 0x7fff)),
            _ => (1 << 63 | self.value(), sign | 0x3fff - 40 + self.below(80) as u16),
        }
    }

    /// Integers, or numbers of single or double precision.
    fn lane(&mut self) -> u64 {
        let single = |random: &mut Self| {
            let exponent = match random.below(6) {
                0 => 0,
                1 => 0xff,
                _ => 100 + random.below(60),
            };
            (random.next() & 0x807f_ffff) | exponent << 23
        };
        match self.below(3) {
            0 => self.value(),
            1 => single(self) | single(self) << 32,
            _ => {
                let exponent = match self.below(6) {
                    0 => 0,
                    1 => 0x7ff,
                    _ => 990 + self.below(80),
                };
                self.next() & 0x800f_ffff_ffff_ffff | exponent << 52
            }
        }
    }

    fn value(&mut self) -> u64 {
        const EDGES: [u64; 16] = [
            0,
            1,
            2,
            0x7f,
            0x80,
            0xff,
            0x7fff,
            0x8000,
            0xffff,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x7fff_ffff_ffff_ffff,
            0x8000_0000_0000_0000,
            u64::MAX,
            u64::MAX - 1,
        ];
        match self.below(4) {
            0 => EDGES[self.below(16) as usize],
            1 => self.next() >> self.below(64),
            2 => EDGES[self.below(16) as usize].wrapping_add(self.below(5)).wrapping_sub(2),
            _ => self.next(),
        }
    }
}

/// Physical addresses of the guest's pages.
const TABLES: u64 = 0x1_0000;
/// Handlers, 16 bytes each; their stack ends here, too.
const HANDLERS: u64 = 0x2_1000;
const IDT: u64 = 0x2_2000;
const GDT: u64 = 0x2_3000;
const TSS: u64 = 0x2_4000;
const CODE: u64 = 0x2_5000;
const DATA: u64 = 0x2_8000;

/// Maps the page at `lin` to `gpa` in four-level tables, which are taken from `free` on.
fn map(bus: &PcBus, free: &mut u64, lin: u64, gpa: u64) {
    let mut table = TABLES;
    for level in [3, 2, 1] {
        let at = table + (lin >> (12 + 9 * level) & 0x1ff) * 8;
        let entry = bus.load(at, Width::Double);
        table = if entry & 1 != 0 {
            entry & !0xfff
        } else {
            let new = *free;
            *free += PAGE_SIZE;
            bus.store(at, Width::Double, new | 7);
            new
        };
    }
    bus.store(table + (lin >> 12 & 0x1ff) * 8, Width::Double, gpa | 7);
}

/// How an instruction ended.
#[derive(Debug)]
enum End {
    /// It was performed.
    Done(Box<State>, u64),
    /// It raised this exception.
    Fault(u64),
}

/// A guest whose code and data are at the host's addresses.
struct Guest {
    bus: Arc<PcBus>,
    interp: Interp,
}

impl Guest {
    fn new(memory: &Memory, at: u64) -> Self {
        let bus = PcBus::new(64);
        let mut cpu = common::cpu(&bus, Start::Long, at, Model::v3());
        cpu.cr3 = TABLES;
        cpu.cr4 |= cr4::OSXSAVE | cr4::OSXMMEXCPT;
        cpu.xcr0 = xcr0::X87 | xcr0::SSE | xcr0::AVX;
        let mut free = TABLES + PAGE_SIZE;
        map(&bus, &mut free, at, CODE);
        for page in 0..DATA_LEN as u64 / PAGE_SIZE {
            map(&bus, &mut free, memory.address() + page * PAGE_SIZE, DATA + page * PAGE_SIZE);
        }
        for page in [HANDLERS, IDT, GDT, TSS] {
            map(&bus, &mut free, page, page);
        }
        assert!(free <= HANDLERS);
        // A flat 64-bit code segment; interrupt gates of level 0 with the first IST stack, to handlers of NOPs.
        bus.store(GDT + 8, Width::Double, 0x00af_9b00_0000_ffff);
        for vector in 0..32 {
            let handler = HANDLERS + 16 * vector;
            bus.store(
                IDT + 16 * vector,
                Width::Double,
                handler >> 16 << 48 | 0x8e01 << 32 | 8 << 16 | handler & 0xffff,
            );
        }
        bus.put(HANDLERS, &[0x90; 512]);
        bus.store(TSS + 36, Width::Double, HANDLERS + PAGE_SIZE);
        cpu.idtr.base = IDT;
        cpu.gdtr.base = GDT;
        cpu.tr.base = TSS;
        let (interp, _) = interp(cpu, &bus);
        Guest { bus, interp }
    }

    fn set(&mut self, at: u64, insn: &[u8], data: &[u8]) {
        self.bus.put(CODE + (at & 0xfff), insn);
        self.bus.put(DATA, data);
        let cpu = self.interp.cpu();
        self.interp.load(cpu);
    }

    fn run(&mut self, at: u64, state: &State) -> End {
        let core = self.interp.core_mut();
        core.regs[..16].copy_from_slice(&state.gpr);
        core.set_rflags(state.flags);
        core.next_rip = at;
        let mut image = [0; 160];
        image.copy_from_slice(&state.area.0[..160]);
        core.cpu.x87.fxrstor(true, &image);
        for (n, register) in core.cpu.ymm.iter_mut().enumerate() {
            *register = V256(state.area.ymm(n));
        }
        core.cpu.mxcsr = Mxcsr::from_bits(state.area.mxcsr()).unwrap();
        let before = self.interp.retired();
        let exit = self.interp.run(Budget { insns: Some(1) });
        assert_eq!(exit, Exit::Budget);
        assert_eq!(self.interp.retired(), before + 1);
        let core = self.interp.core();
        if core.next_rip & !0xfff == HANDLERS {
            return End::Fault((core.next_rip & 0xfff) / 16);
        }
        let mut after = State { flags: core.rflags(), ..*state };
        after.gpr.copy_from_slice(&core.regs[..16]);
        let mut image = [0; 160];
        core.cpu.x87.fxsave(true, &mut image);
        after.area.0[..160].copy_from_slice(&image);
        for (n, register) in core.cpu.ymm.iter().enumerate() {
            after.area.set_ymm(n, register.0);
        }
        after.area.set_mxcsr(core.cpu.mxcsr.bits());
        End::Done(Box::new(after), core.next_rip)
    }

    /// The offset of the first eight bytes that differ.
    fn differs(&self, data: &[u8]) -> Option<usize> {
        data.chunks_exact(8)
            .zip((DATA..).step_by(8))
            .position(|(bytes, at)| self.bus.load(at, Width::Double).to_le_bytes() != bytes)
            .map(|index| 8 * index)
    }
}

/// The bits of EFLAGS that `insn` leaves undefined.
fn undefined(insn: &iced_x86::Instruction) -> u64 {
    [
        (RflagsBits::CF, bit::CF),
        (RflagsBits::PF, bit::PF),
        (RflagsBits::AF, bit::AF),
        (RflagsBits::ZF, bit::ZF),
        (RflagsBits::SF, bit::SF),
        (RflagsBits::OF, bit::OF),
    ]
    .iter()
    .filter(|(iced, _)| insn.rflags_undefined() & iced != 0)
    .fold(0, |all, (_, flag)| all | flag)
}

const RCX: usize = 1;

/// Registers of x87, MMX, SSE and AVX, with every exception masked.
fn fill(area: &mut Area, random: &mut Random) {
    for n in 0..16 {
        area.set_ymm(n, std::array::from_fn(|_| random.lane()));
    }
    // Rounding, DAZ, FTZ and what was raised before.
    area.set_mxcsr(0x1f80 | random.next() as u32 & 0xe07f);
    let control = 0x37f & !0x300 | (random.next() as u16 & 0xf00);
    area.0[..2].copy_from_slice(&control.to_le_bytes());
    let status = random.next() as u16 & 0x7f7f;
    area.0[2..4].copy_from_slice(&status.to_le_bytes());
    area.0[4] = random.next() as u8 | random.next() as u8;
    for register in area.0[32..160].chunks_exact_mut(16) {
        let (significand, exponent) = random.extended();
        register[..8].copy_from_slice(&significand.to_le_bytes());
        register[8..10].copy_from_slice(&exponent.to_le_bytes());
    }
}

/// Registers for `form`: those that its memory operands use point into the data.
fn operands(form: &Form, random: &mut Random, data: u64) -> State {
    let mut state = State { flags: bit::FIXED | bit::IF, ..State::default() };
    for register in &mut state.gpr {
        *register = random.value();
    }
    let vector = simd::lookup(form.insn.code(), true);
    let aligned =
        form.insn.code() == Code::Cmpxchg16b_m128 || vector.is_some_and(|op| op.align > 1);
    for pointer in [3, 4, 5, 6, 7, 13] {
        let at = data + 0x1000 + random.below(0x1000);
        // Near the end of a page, too; the operand is 8 bytes further on.
        let at = if random.below(8) == 0 { (at & !0xfff) + 0xff0 + random.below(16) } else { at };
        // RBX is used with a displacement of 8.
        let offset = match pointer {
            3 => 24,
            5 => 16,
            _ => 0,
        };
        state.gpr[pointer] = if aligned { at & !31 | offset } else { at };
    }
    state.gpr[12] = if aligned { 8 * random.below(2) } else { random.below(16) };
    let bit_test = matches!(
        form.insn.mnemonic(),
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
    );
    if bit_test && form.insn.op_count() == 2 && form.insn.op0_kind() == iced_x86::OpKind::Memory {
        // The offset moves the address: not out of the data.
        let offset = random.next() as i16 >> 3;
        if form.insn.op1_kind() == iced_x86::OpKind::Register {
            let number = form.insn.op1_register().number();
            if ![3, 4, 5, 12, 13].contains(&number) {
                state.gpr[number] = offset as i64 as u64;
            }
        }
    }
    if form.repeated {
        state.gpr[RCX] = random.below(70);
    }
    if form.insn.encoding() != EncodingKind::Legacy
        || vector.is_some()
        || simd::lookup(form.insn.code(), false).is_some()
        || form.x87
    {
        fill(&mut state.area, random);
    }
    if let Some(Run::Gather { index, .. }) = vector.map(|op| op.run) {
        // Near the base.
        let near = |random: &mut Random| random.below(128).wrapping_sub(64);
        let words = std::array::from_fn(|_| match index {
            4 => near(random) & 0xffff_ffff | near(random) << 32,
            _ => near(random),
        });
        state.area.set_ymm(form.insn.memory_index().number(), words);
    }
    state.flags |= random.next() & bit::ARITH;
    if form.insn.is_string_instruction() {
        state.flags |= random.next() & bit::DF;
    }
    state
}

/// Whether the bit offset of a bit test is also its address: such a pair cannot be chosen freely.
fn is_wild(form: &Form) -> bool {
    let insn = &form.insn;
    matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && insn.op0_kind() == iced_x86::OpKind::Memory
        && insn.op1_kind() == iced_x86::OpKind::Register
        && [3, 4, 5, 12, 13].contains(&insn.op1_register().number())
}

/// What native division would do.
fn divides_badly(form: &Form, end: &End) -> bool {
    matches!(form.insn.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) && matches!(end, End::Fault(0))
}

/// SHLD and SHRD of 16 bits by more than 16 are undefined altogether; makers disagree.
fn shifts_too_far(form: &Form, state: &State) -> bool {
    let insn = &form.insn;
    let count = match insn.mnemonic() {
        Mnemonic::Shld | Mnemonic::Shrd if insn.op1_register().size() == 2 => match insn.op2_kind()
        {
            iced_x86::OpKind::Immediate8 => u64::from(insn.immediate8()),
            _ => state.gpr[RCX],
        },
        _ => 0,
    };
    count & 31 > 16
}

#[test]
fn instructions_do_what_the_hosts_processor_does() {
    let mut memory = Memory::new();
    let data = memory.address();
    let mut trampoline = Trampoline::new(&memory);
    let at = trampoline.at;
    let mut guest = Guest::new(&memory, at);
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut compared, mut codes, mut sets) = (0, 0, 0);
    let mut left_out: BTreeMap<Reason, Vec<Code>> = BTreeMap::new();
    let mut missing = Vec::new();
    let mut failures: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for code in Code::values() {
        let info = code.op_code();
        if !info.is_instruction() || !info.mode64() {
            continue;
        }
        let forms = match forms(code, at, data) {
            Ok(forms) => forms,
            Err(reason) => {
                left_out.entry(reason).or_default().push(code);
                continue;
            }
        };
        codes += 1;
        for form in forms.iter().filter(|form| !is_wild(form)) {
            let model = Model::v3();
            if !form.insn.cpuid_features().iter().all(|feature| model.offers(*feature)) {
                left_out.entry(Reason::Model).or_default().push(code);
                break;
            }
            if !performs(&form.insn, CodeSize::Bits64, &model) {
                missing.push(code);
                continue;
            }
            compared += 1;
            trampoline.set(&form.bytes);
            memory.data_mut().chunks_exact_mut(8).for_each(|word| {
                word.copy_from_slice(&random.lane().to_le_bytes());
            });
            guest.set(at, &form.bytes, memory.data());
            let defined = bit::ARITH & !undefined(&form.insn) | bit::DF;
            for _ in 0..cases() {
                let state = operands(form, &mut random, data);
                if shifts_too_far(form, &state) {
                    continue;
                }
                let end = guest.run(at, &state);
                if divides_badly(form, &end) {
                    continue;
                }
                sets += 1;
                let mut wrong = String::new();
                match &end {
                    // What faults is not tried on the host.
                    End::Fault(vector) => wrong = format!("raised exception {vector}"),
                    End::Done(after, rip) => {
                        let native = trampoline.run(&mut memory, &state);
                        if after.gpr != native.gpr {
                            let number = (0..16).find(|n| after.gpr[*n] != native.gpr[*n]).unwrap();
                            wrong = format!(
                                "register {number} is {:#x}, not {:#x}",
                                after.gpr[number], native.gpr[number]
                            );
                        } else if (after.flags ^ native.flags) & defined != 0 {
                            wrong = format!(
                                "flags are {:#x}, not {:#x} (defined {defined:#x})",
                                after.flags, native.flags
                            );
                        } else if after.area.compared() != native.area.compared() {
                            let (ours, theirs) = (after.area.compared(), native.area.compared());
                            let at = (0..832).find(|i| ours.0[*i] != theirs.0[*i]).unwrap();
                            wrong =
                                format!("byte {at} of the area differs: {ours:?} not {theirs:?}");
                        } else if *rip != at + form.bytes.len() as u64 {
                            wrong = format!("goes on at {rip:#x}");
                        }
                    }
                }
                if wrong.is_empty()
                    && let Some(offset) = guest.differs(memory.data())
                {
                    wrong = format!("memory differs at {offset:#x}");
                }
                if !wrong.is_empty() {
                    let what = format!("{:?} {:02x?}", form.insn.code(), form.bytes);
                    let entry = failures
                        .entry(what)
                        .or_insert_with(|| (0, format!("{wrong} from {state:x?}")));
                    entry.0 += 1;
                    guest.set(at, &form.bytes, memory.data());
                    if entry.0 > 20 {
                        break;
                    }
                }
            }
        }
    }
    println!("{codes} codes in {compared} forms compared on {sets} operand sets");
    for (reason, codes) in &left_out {
        println!("not compared ({reason:?}): {} codes", codes.len());
        if *reason != Reason::Host {
            println!("  {codes:?}");
        }
    }
    for (what, (count, first)) in &failures {
        println!("{what}: {count} times, first: {first}");
    }
    missing.dedup();
    assert!(missing.is_empty(), "not performed: {missing:?}");
    assert!(failures.is_empty(), "{} forms differ", failures.len());
    assert!(compared > 5000, "the forms are there");
}
