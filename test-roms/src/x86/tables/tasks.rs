//! Task switches: by JMP, CALL, INT n, an exception and IRET, to a TSS and through a task gate; what a new task's TSS names.

use iced_x86::code_asm::*;

use super::segments::{present, segment};
use super::{Cell, Mode, STUB, Stub, Table, Word, at, descriptor, end, poke, selector};

/// The TSS of the new task, and its fields (SDM vol. 3, figure 9-2).
pub(super) const NEW: u32 = at::TSS + 0x80;
const LINK: u32 = 0;
const ESP0: u32 = 4;
const EIP: u32 = 32;
const EFLAGS: u32 = 36;
const ESP: u32 = 56;
const SELECTORS: u32 = 72;
const LDT: u32 = 96;
/// ES, CS, SS, DS, FS, GS in that order.
const NAMES: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];
const VECTOR: u32 = 0x60;
const UD: u32 = 6;
/// The least limit of a TSS.
const LIMIT: u64 = 0x67;

const WORDS: &[Word] = &[
    Word::Vector,
    Word::Error,
    Word::Ip,
    Word::Cs,
    Word::Flags,
    Word::Ss,
    Word::Data,
    Word::Extra,
    Word::Ldtr,
    Word::Tr,
    Word::Cr0,
    Word::Watch0,
    Word::Watch1,
    Word::Watch2,
    Word::Watch3,
];

pub(super) fn tss(kind: u64, p: bool, dpl: u8, limit: u64) -> u64 {
    let access = kind | u64::from(dpl) << 5 | u64::from(p) << 7;
    limit | u64::from(NEW) << 16 | access << 40
}

fn task_gate(p: bool, dpl: u8, target: u16) -> u64 {
    (5 | u64::from(dpl) << 5 | u64::from(p) << 7) << 40 | u64::from(target) << 16
}

/// A task of level 3 that begins at the landing.
pub(super) fn task() -> Vec<(u32, u32)> {
    let level = 3;
    let mut words = vec![
        (NEW + ESP0, at::inner_stack(0)),
        (NEW + ESP0 + 4, selector::of(selector::DATA, 0).into()),
        (NEW + EIP, at::LANDING),
        (NEW + EFLAGS, 2),
        (NEW + ESP, at::stack(level)),
    ];
    for (index, name) in (0..).zip(NAMES) {
        let segment = match name {
            "CS" => selector::of(selector::CODE32, level),
            "SS" => selector::of(selector::DATA, level),
            _ => selector::of(selector::DATA, 3),
        };
        words.push((NEW + SELECTORS + 4 * index, segment.into()));
    }
    words
}

/// What makes it one of another level.
fn at_level(level: u8) -> Vec<(u32, u32)> {
    vec![
        (NEW + ESP, at::stack(level)),
        (NEW + SELECTORS + 4, selector::of(selector::CODE32, level).into()),
        (NEW + SELECTORS + 8, selector::of(selector::DATA, level).into()),
    ]
}

macro_rules! stub {
    (|$a:ident| $code:expr) => {
        Stub {
            bits: 32,
            code: |$a| {
                $code?;
                end($a)
            },
        }
    };
}

/// How a switch is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By a far pointer to A.
    Pointer,
    /// By a far pointer to a task gate in B that names A.
    Gate,
    /// By a task gate of the IDT that names A.
    Event(u32),
    /// By NT and the link of the old TSS.
    Return,
}

pub(super) fn ways() -> Vec<(&'static str, Way, Stub)> {
    let jump = || stub!(|a| a.jmp(fword_ptr(at::POINTER)));
    let call = || stub!(|a| a.call(fword_ptr(at::POINTER)));
    let back = Stub {
        bits: 32,
        code: |a| {
            a.push(0x4002)?;
            a.popfd()?;
            a.iretd()?;
            end(a)
        },
    };
    vec![
        ("jmp", Way::Pointer, jump()),
        ("call", Way::Pointer, call()),
        ("jmp to a gate", Way::Gate, jump()),
        ("call of a gate", Way::Gate, call()),
        ("int 0x60", Way::Event(VECTOR), stub!(|a| a.int(VECTOR as i32))),
        ("#UD", Way::Event(UD), stub!(|a| a.ud2())),
        ("iret", Way::Return, back),
    ]
}

impl Way {
    /// Pokes that make `selector` the one that is used, with the gate there may be.
    pub(super) fn pokes(self, rpl: u8, (gate_p, gate_dpl): (bool, u8)) -> Vec<(u32, u32)> {
        let a = selector::A | u16::from(rpl);
        let b = selector::B | u16::from(rpl);
        let gate = task_gate(gate_p, gate_dpl, selector::A);
        match self {
            Way::Pointer => vec![(at::POINTER + 4, a.into())],
            Way::Gate => {
                let mut pokes = poke(descriptor(b), gate).to_vec();
                pokes.push((at::POINTER + 4, b.into()));
                pokes
            }
            Way::Event(vector) => poke(at::IDT + 8 * vector, gate).to_vec(),
            Way::Return => vec![(at::TSS + LINK, a.into())],
        }
    }
}

fn table(cells: Vec<Cell>, expected: &'static str) -> Table {
    let watch =
        vec![descriptor(selector::A) + 4, descriptor(selector::TSS) + 4, NEW + LINK, at::TSS + EIP];
    let stubs = ways().into_iter().map(|(_, _, stub)| stub).collect();
    Table {
        mode: Mode::Protected,
        stubs,
        live: task(),
        frames: Vec::new(),
        user_stubs: at::STUBS,
        msrs: &[],
        watch,
        words: WORDS,
        cells,
        expected,
    }
}

fn cell(stub: usize, row: String, column: String, cpl: u8, pokes: Vec<(u32, u32)>) -> Cell {
    let code = selector::of(selector::CODE32, cpl);
    Cell { row, column, stub, cs: code, registers: [0; 4], pokes }
}

/// Each way to each type of TSS, at each DPL, by each CPL with each RPL, and gates at each DPL.
pub(super) fn switches() -> Table {
    let mut cells = Vec::new();
    for (stub, (name, way, _)) in ways().into_iter().enumerate() {
        let direct = way == Way::Pointer;
        for kind in (0..16u64).filter(|kind| direct || matches!(kind, 2 | 3 | 9 | 0xb | 0xf)) {
            // 16-bit tasks would find other fields: what they name then is null.
            for (p, limit) in [(true, LIMIT), (true, LIMIT - 1), (false, LIMIT)] {
                for index in 0..64u8 {
                    let (dpl, cpl, rpl) = (index >> 4, index >> 2 & 3, index & 3);
                    let gates: &[bool] = if matches!(way, Way::Gate | Way::Event(_)) {
                        &[true, false]
                    } else {
                        &[true]
                    };
                    if matches!(way, Way::Event(_)) && rpl != 0 || matches!(kind, 1 | 3) && p {
                        continue;
                    }
                    for &gate_p in gates {
                        let mut pokes = way.pokes(rpl, (gate_p, dpl));
                        let own = if gates.len() > 1 { 0 } else { dpl };
                        pokes.extend(poke(descriptor(selector::A), tss(kind, p, own, limit)));
                        let gate = if gates.len() > 1 {
                            format!(" gate {}", present(gate_p))
                        } else {
                            String::new()
                        };
                        let row =
                            format!("{name}{gate} type {kind:x} {} limit {limit:x}", present(p));
                        let column = format!("DPL {dpl} CPL {cpl} RPL {rpl}");
                        cells.push((gate_p, cell(stub, row, column, cpl, pokes)));
                    }
                }
            }
        }
    }
    // Rows together.
    cells.sort_by_cached_key(|(_, cell)| (cell.stub, cell.row.clone()));
    table(
        cells.into_iter().map(|(_, cell)| cell).collect(),
        include_str!("expected/switches-32.txt"),
    )
}

/// Each selector of a new task of level 3 with each type of descriptor.
pub(super) fn contents() -> Table {
    let mut cells = Vec::new();
    for (stub, (name, way, _)) in ways().into_iter().enumerate() {
        if !matches!(name, "jmp" | "call" | "#UD") {
            continue;
        }
        let fields = (0..).zip(NAMES).map(|(index, name)| (name, NEW + SELECTORS + 4 * index));
        for (field, at) in fields.chain([("LDT", NEW + LDT)]) {
            if matches!(field, "FS" | "GS") && name != "jmp" {
                continue;
            }
            for (kind, p) in (0..32u64).flat_map(|kind| [(kind, true), (kind, false)]) {
                for (dpl, rpl) in (0..4u8).flat_map(|dpl| (0..4u16).map(move |rpl| (dpl, rpl))) {
                    // At level 0 an exception would find no stack.
                    if field == "CS" && rpl == 0 {
                        continue;
                    }
                    let level = if field == "CS" { rpl as u8 } else { 3 };
                    let mut pokes = way.pokes(0, (true, 3));
                    if level != 3 {
                        pokes.extend(at_level(level));
                    }
                    pokes.extend(poke(descriptor(selector::A), tss(9, true, 3, LIMIT)));
                    pokes.extend(poke(descriptor(selector::C), segment(kind, p, dpl, 0xc)));
                    pokes.push((at, (selector::C | rpl).into()));
                    let row = format!("{name} {field} type {kind:02x} {}", present(p));
                    cells.push(cell(stub, row, format!("DPL {dpl} RPL {rpl}"), 3, pokes));
                }
            }
        }
    }
    table(cells, include_str!("expected/tasks-32.txt"))
}

const _: () = assert!(NEW + 0x68 <= at::IDT && STUB >= 16);
