//! Every instruction body against figures from outside; data/vectors/README.md says how they were made.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{TestBus, interp, open_hart, run};
use mimic_cpu::bus::Width;
use mimic_cpu::riscv::hart::{Hart, Mode};

#[path = "common/names.rs"]
mod names;

/// Where the instructions of a vector lie.
const CODE: u64 = 0x8020_0000;
/// The memory cells `m0` to `m7`, double words.
const CELLS: u64 = 0x8002_0000;
/// The trap handler: a jump to itself.
const HANDLER: u64 = 0x8000_0000;

const FILES: [(&str, &str); 6] = [
    ("integer", include_str!("data/vectors/integer.txt")),
    ("memory", include_str!("data/vectors/memory.txt")),
    ("single", include_str!("data/vectors/single.txt")),
    ("double", include_str!("data/vectors/double.txt")),
    ("system", include_str!("data/vectors/system.txt")),
    ("compressed", include_str!("data/vectors/compressed.txt")),
];

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect("a hexadecimal figure")
}

/// What a vector may set and change, by the columns' names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    x: [u64; 32],
    f: [u64; 32],
    fcsr: u64,
    cells: [u64; 8],
    pc: u64,
    /// The cause, if a trap was taken; `pc` is that of the instruction then.
    trap: Option<u64>,
}

impl State {
    /// Before a vector: every register has a value of its own.
    fn start() -> Self {
        let mut state = State {
            x: std::array::from_fn(|r| 0x0101_0101_0101_0101 * r as u64),
            f: std::array::from_fn(|r| 0x0101_0101_0101_0101 * (r as u64 + 0x16)),
            fcsr: 0,
            cells: std::array::from_fn(|i| {
                0x8090_a0b0_c0d0_e0f0 + 0x0101_0101_0101_0101 * i as u64
            }),
            pc: CODE,
            trap: None,
        };
        for r in 10..14 {
            state.x[r] = 0x1010_1010_1010_1010 + 0x0101_0101_0101_0101 * (r as u64 - 10);
        }
        state.f[10] = 0xffff_ffff_2020_2020;
        state
    }

    fn column(&mut self, name: &str) -> &mut u64 {
        let index = || name[1..].parse::<usize>().expect("a number");
        match name.as_bytes()[0] {
            b'x' => &mut self.x[index()],
            b'm' => &mut self.cells[index()],
            _ if name == "fcsr" => &mut self.fcsr,
            b'f' => &mut self.f[index()],
            _ => panic!("no column {name}"),
        }
    }

    fn hart(&self) -> Hart {
        let mut hart = open_hart(self.pc);
        (hart.x, hart.f) = (self.x, self.f);
        (hart.fflags, hart.frm) = (self.fcsr as u8 & 0x1f, (self.fcsr >> 5) as u8);
        hart.mstatus |= 3 << 11;
        hart.mtvec = HANDLER;
        hart
    }

    fn of(hart: &Hart, bus: &TestBus) -> Self {
        let trapped = hart.pc == HANDLER && hart.mode == Mode::M;
        State {
            x: hart.x,
            f: hart.f,
            fcsr: u64::from(hart.frm) << 5 | u64::from(hart.fflags),
            cells: std::array::from_fn(|i| bus.load(CELLS + 8 * i as u64, Width::Double)),
            pc: if trapped { hart.mepc } else { hart.pc },
            trap: trapped.then_some(hart.mcause),
        }
    }
}

/// The instructions of a section and the names of its columns.
struct Section<'a> {
    header: &'a str,
    code: Vec<u64>,
    bytes: u64,
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
}

impl<'a> Section<'a> {
    fn parse(header: &'a str) -> Self {
        let mut parts = header.split('|');
        let (code, _) = parts.next().unwrap().split_once(' ').expect("code and text");
        let columns = |part: Option<&'a str>| part.expect("columns").split_whitespace().collect();
        Section {
            header,
            code: code.split(',').map(hex).collect(),
            bytes: code.split(',').map(|word| word.len() as u64 / 2).sum(),
            inputs: columns(parts.next()),
            outputs: columns(parts.next()),
        }
    }

    /// States before and after, as a line has them.
    fn states(&self, line: &str) -> (State, State) {
        let (inputs, outputs) = line.split_once(':').expect("inputs : outputs");
        let mut before = State::start();
        for (name, value) in zip(&self.inputs, inputs) {
            *before.column(name) = hex(value);
        }
        let mut after = before.clone();
        after.pc = CODE + self.bytes;
        for (name, value) in zip(&self.outputs, outputs) {
            match (name, value) {
                (_, "=" | "-") => {}
                ("pc", _) => {
                    let (sign, digits) = match value.strip_prefix('-') {
                        Some(digits) => (-1, digits),
                        None => (1, value),
                    };
                    after.pc = CODE.wrapping_add_signed(sign * hex(digits) as i64);
                }
                ("trap", _) => after.trap = Some(value.parse().expect("a cause")),
                _ => *after.column(name) = hex(value),
            }
        }
        (before, after)
    }

    fn place(&self, bus: &TestBus) {
        let mut at = CODE;
        for word in &self.code {
            let word = *word as u32;
            if word & 3 == 3 {
                bus.put_words(at, &[word]);
                at += 4;
            } else {
                bus.store(at, Width::Half, u64::from(word));
                at += 2;
            }
        }
        assert_eq!(at, CODE + self.bytes);
    }
}

fn zip<'a>(names: &[&'a str], values: &'a str) -> Vec<(&'a str, &'a str)> {
    let values: Vec<&str> = values.split_whitespace().collect();
    assert_eq!(names.len(), values.len(), "{names:?}: {values:?}");
    names.iter().copied().zip(values).collect()
}

fn perform(bus: &Arc<TestBus>, section: &Section, before: &State) -> State {
    for (i, value) in before.cells.iter().enumerate() {
        bus.store(CELLS + 8 * i as u64, Width::Double, *value);
    }
    let (mut interp, _) = interp(before.hart(), bus);
    run(&mut interp, section.code.len() as u64);
    let hart = interp.hart();
    assert_eq!(hart.retired, section.code.len() as u64, "{}", section.header);
    State::of(&hart, bus)
}

/// Performs the vectors of a file; returns how many there are.
fn check(data: &str) -> usize {
    let bus = TestBus::new(0x201, 0);
    bus.put_words(HANDLER, &[0x0000_006f]);
    let (mut count, mut wrong) = (0, Vec::new());
    let mut section = None;
    for line in data.lines().filter(|line| !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix("> ") {
            let parsed = Section::parse(header);
            parsed.place(&bus);
            section = Some(parsed);
            continue;
        }
        let section = section.as_ref().expect("a section");
        let (before, expected) = section.states(line);
        count += 1;
        let after = perform(&bus, section, &before);
        if after != expected {
            wrong.push(format!("{}\n{line}\n{after:x?}, expected\n{expected:x?}", section.header));
        }
    }
    let shown = &wrong[..wrong.len().min(10)];
    assert!(wrong.is_empty(), "{} of {count} wrong:\n{}", wrong.len(), shown.join("\n"));
    count
}

#[test]
fn integer_instructions() {
    assert!(check(FILES[0].1) > 4000);
}

#[test]
fn loads_stores_and_atomics() {
    assert!(check(FILES[1].1) > 900);
}

#[test]
fn single_and_half_precision() {
    assert!(check(FILES[2].1) > 4000);
}

#[test]
fn double_precision() {
    assert!(check(FILES[3].1) > 4000);
}

#[test]
fn csrs_fences_and_traps() {
    assert!(check(FILES[4].1) > 400);
}

#[test]
fn compressed_instructions() {
    assert!(check(FILES[5].1) > 100);
}

/// An instruction without vectors is an instruction that nobody checked.
#[test]
fn every_instruction_has_vectors() {
    // By mnemonic: how many lines, and how many operands the lines give.
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, data) in FILES {
        let mut mnemonics: Vec<String> = Vec::new();
        for line in data.lines().filter(|line| !line.starts_with('#')) {
            let Some(header) = line.strip_prefix("> ") else {
                for mnemonic in &mnemonics {
                    *counts.entry(mnemonic.clone()).or_default() += 1;
                }
                continue;
            };
            let text = header.split('|').next().unwrap().split_once(' ').unwrap().1;
            mnemonics = text
                .split("; ")
                .map(|insn| {
                    let name = insn.split_whitespace().next().unwrap();
                    let name = [".aqrl", ".aq", ".rl"]
                        .iter()
                        .find_map(|ordering| name.strip_suffix(ordering))
                        .unwrap_or(name);
                    name.replace('.', "_")
                })
                .collect();
        }
    }
    let few = |name: &str| match name {
        // The test bus has nothing to wake a hart with: see system.rs.
        "wfi" => 0,
        // Nothing to vary.
        "ecall" | "ebreak" | "wrs_nto" | "wrs_sto" | "fence" | "fence_i" | "sfence_vma"
        | "sinval_vma" | "sfence_w_inval" | "sfence_inval_ir" => 1,
        "mret" | "sret" => 3,
        "cbo_zero" | "cbo_inval" | "cbo_clean" | "cbo_flush" => 2,
        _ => 16,
    };
    let missing: Vec<_> = mimic_cpu::riscv::insn::tables::<names::Names>()
        .iter()
        .map(|row| row.name)
        .filter(|name| counts.get(*name).copied().unwrap_or(0) < few(name))
        .collect();
    assert!(missing.is_empty(), "too few vectors for {missing:?}");
}
