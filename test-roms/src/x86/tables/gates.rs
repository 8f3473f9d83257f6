//! Call, interrupt and trap gates: type, DPL, CPL, RPL, and the code that they lead to; the stacks of inner levels.

use iced_x86::code_asm::*;

use super::segments::present;
use super::{Cell, Mode, Stub, Table, Word, at, descriptor, poke, selector};
use super::{LANDING_STACK, end};

/// The vector of INT n.
const VECTOR: u32 = 0x60;
/// A code segment's type, with S: readable; and conforming.
const CODE: u64 = 0x1a;
const CONFORMING: u64 = 0x1e;
/// Parameters that call gates copy, and what is there to copy.
const PARAMETERS: u64 = 2;
const PARAMETER: u32 = 0x1111_2222;

const WORDS: &[Word] = &[
    Word::Vector,
    Word::Error,
    Word::Ip,
    Word::Cs,
    Word::Flags,
    Word::Eax,
    Word::Ss,
    Word::Watch0,
    Word::Watch1,
    Word::Stack0,
    Word::Stack1,
    Word::Stack2,
    Word::Stack3,
    Word::Stack4,
    Word::Stack5,
];

/// A gate (SDM vol. 3, figures 6-8 and 8-2); in IA-32e mode the lower half of one.
pub(super) fn gate(kind: u64, p: bool, dpl: u8, target: u16, extra: u64) -> u64 {
    let access = kind | u64::from(dpl) << 5 | u64::from(p) << 7;
    let offset = u64::from(LANDING_STACK);
    offset & 0xffff | u64::from(target) << 16 | extra << 32 | access << 40 | offset >> 16 << 48
}

/// A code segment of 4 GiB.
pub(super) fn code(mode: Mode, kind: u64, p: bool, dpl: u8) -> u64 {
    let access = kind | u64::from(dpl) << 5 | u64::from(p) << 7;
    let flags = if mode == Mode::Long { 0xa } else { 0xc };
    0x000f_0000_0000_ffff | access << 40 | flags << 52
}

/// Code that a gate may lead to: name, descriptor.
pub(super) fn targets(mode: Mode) -> Vec<(String, u64)> {
    let mut targets = Vec::new();
    for (name, kind, p) in [
        ("code", CODE, true),
        ("conforming code", CONFORMING, true),
        ("absent code", CODE, false),
        ("absent conforming code", CONFORMING, false),
    ] {
        for dpl in 0..4 {
            targets.push((format!("to {name} of level {dpl}"), code(mode, kind, p, dpl)));
        }
    }
    let mut other = |name: &str, descriptor| targets.push((format!("to {name}"), descriptor));
    other("data", code(mode, 0x12, true, 0));
    other("an LDT", code(mode, 2, true, 0));
    if mode == Mode::Long {
        other("compatible code", code(mode, CODE, true, 0) ^ 6 << 52);
        other("16-bit code", code(mode, CODE, true, 0) ^ 2 << 52);
        other("code with L and D", code(mode, CODE, true, 0) | 4 << 52);
    }
    targets
}

fn cs(mode: Mode, level: u8) -> u16 {
    selector::of(if mode == Mode::Long { selector::CODE64 } else { selector::CODE32 }, level)
}

fn table(mode: Mode, stubs: Vec<Stub>, cells: Vec<Cell>, expected: &'static str) -> Table {
    let (a, b) = (descriptor(selector::A) + 4, descriptor(selector::B) + 4);
    Table {
        mode,
        stubs,
        live: Vec::new(),
        frames: Vec::new(),
        user_stubs: at::STUBS,
        msrs: &[],
        watch: vec![a, b, b, b],
        words: WORDS,
        cells,
        expected,
    }
}

/// JMP and CALL by a far pointer, with parameters on the stack.
fn transfers(mode: Mode) -> [(&'static str, Stub); 2] {
    let bits = mode.bits();
    let jump = Stub {
        bits,
        code: |a| {
            a.jmp(fword_ptr(at::POINTER))?;
            end(a)
        },
    };
    let call = Stub {
        bits,
        code: |a| {
            a.push(PARAMETER as i32)?;
            a.push(PARAMETER as i32 + 1)?;
            a.call(fword_ptr(at::POINTER))?;
            end(a)
        },
    };
    [("jmp", jump), ("call", call)]
}

fn calls(mode: Mode, expected: &'static str) -> Table {
    let (names, stubs): (Vec<_>, Vec<_>) = transfers(mode).into_iter().unzip();
    let mut cells = Vec::new();
    for (stub, name) in names.into_iter().enumerate() {
        for (kind, p) in [(4, true), (0xc, true), (0xc, false)] {
            for (to, target) in targets(mode) {
                for index in 0..64u8 {
                    let (dpl, cpl, rpl) = (index >> 4, index >> 2 & 3, index & 3);
                    let tested = selector::A | u16::from(rpl);
                    let mut pokes = vec![(at::POINTER, 0), (at::POINTER + 4, tested.into())];
                    let what = gate(kind, p, dpl, selector::B, PARAMETERS);
                    pokes.extend(poke(descriptor(selector::A), what));
                    pokes.extend(poke(descriptor(selector::B), target));
                    cells.push(Cell {
                        row: format!("{name} gate {kind:x} {} {to}", present(p)),
                        column: format!("DPL {dpl} CPL {cpl} RPL {rpl}"),
                        stub,
                        cs: cs(mode, cpl),
                        registers: [0; 4],
                        pokes,
                    });
                }
            }
        }
    }
    table(mode, stubs, cells, expected)
}

/// What is delivered through the IDT: name, vector, how.
fn events(mode: Mode) -> Vec<(&'static str, u32, Stub)> {
    macro_rules! event {
        ($name:literal, $vector:expr, |$a:ident| $code:expr) => {
            (
                $name,
                $vector,
                Stub {
                    bits: mode.bits(),
                    code: |$a| {
                        $code?;
                        end($a)
                    },
                },
            )
        };
    }
    vec![
        event!("int 0x60", VECTOR, |a| a.int(0x60)),
        event!("int3", 3, |a| a.int3()),
        event!("int1", 1, |a| a.int1()),
        event!("#UD", 6, |a| a.ud2()),
        event!("#GP", 13, |a| a.mov(ds, ebx)),
    ]
}

/// Beyond the limit of the descriptor table.
const NOWHERE: u32 = 0x1230;

/// The pokes for an entry of the IDT.
fn entry(mode: Mode, vector: u32, gate: u64, upper: u32) -> Vec<(u32, u32)> {
    if mode == Mode::Long {
        let at = at::IDT + 16 * vector;
        let mut pokes = poke(at, gate).to_vec();
        pokes.extend([(at + 8, upper), (at + 12, 0)]);
        pokes
    } else {
        poke(at::IDT + 8 * vector, gate).to_vec()
    }
}

fn interrupts(mode: Mode, expected: &'static str) -> Table {
    let mut cells = Vec::new();
    let (events, stubs): (Vec<_>, Vec<_>) =
        events(mode).into_iter().map(|(name, vector, stub)| ((name, vector), stub)).unzip();
    for (stub, &(name, vector)) in events.iter().enumerate() {
        // S is no part of a gate's type that may be set.
        for kind in 0..32u64 {
            let usable = matches!(kind, 6 | 7 | 0xe | 0xf);
            let targets = targets(mode);
            for (to, target) in &targets[..if usable { targets.len() } else { 1 }] {
                for p in [true, false] {
                    for (dpl, cpl) in (0..4u8).flat_map(|dpl| (0..4u8).map(move |cpl| (dpl, cpl))) {
                        let mut pokes = entry(mode, vector, gate(kind, p, dpl, selector::B, 0), 0);
                        pokes.extend(poke(descriptor(selector::B), *target));
                        cells.push(Cell {
                            row: format!("{name} gate {kind:02x} {} {to}", present(p)),
                            column: format!("DPL {dpl} CPL {cpl}"),
                            stub,
                            cs: cs(mode, cpl),
                            registers: [0, NOWHERE, 0, 0],
                            pokes,
                        });
                    }
                }
            }
        }
        if mode == Mode::Long {
            // A handler of #GP that is not canonical leads to a double fault of its own.
            let halves = [(1, 0), (7, 0), (0, 0x7fff), (0, 0x8000), (0, 0xffff_7fff), (1, 0x8000)];
            for &(ist, upper) in &halves[..if vector == 13 { 3 } else { 6 }] {
                for cpl in 0..4 {
                    let mut pokes =
                        entry(mode, vector, gate(0xe, true, 3, selector::B, ist), upper);
                    pokes.extend(poke(descriptor(selector::B), code(mode, CODE, true, 0)));
                    // Stacks 1 and 7: one that can be used, and one that is not canonical (SDM vol. 3, figure 8-11).
                    pokes.extend(poke(at::TSS + 36, at::inner_stack(3).into()));
                    pokes.extend(poke(at::TSS + 84, 1 << 63));
                    cells.push(Cell {
                        row: format!("{name} upper half {upper:x} IST {ist}"),
                        column: format!("CPL {cpl}"),
                        stub,
                        cs: cs(mode, cpl),
                        registers: [0, NOWHERE, 0, 0],
                        pokes,
                    });
                }
            }
        }
    }
    table(mode, stubs, cells, expected)
}

/// Stacks of the TSS that do not fit: from level 3 to levels 1 and 2, by a call gate and an interrupt gate.
fn stacks(expected: &'static str) -> Table {
    let mode = Mode::Protected;
    let [_, (_, call)] = transfers(mode);
    let (_, _, int) = events(mode).swap_remove(0);
    let mut cells = Vec::new();
    for (stub, name) in ["call", "int 0x60"].into_iter().enumerate() {
        for level in [1, 2u8] {
            for (kind, p) in (0..32u64).flat_map(|kind| [(kind, true), (kind, false)]) {
                for (dpl, rpl) in (0..4u8).flat_map(|dpl| (0..4u16).map(move |rpl| (dpl, rpl))) {
                    let mut pokes = vec![(at::POINTER, 0), (at::POINTER + 4, selector::A.into())];
                    pokes.extend(poke(descriptor(selector::A), gate(0xc, true, 3, selector::B, 0)));
                    pokes.extend(entry(mode, VECTOR, gate(0xe, true, 3, selector::B, 0), 0));
                    pokes.extend(poke(descriptor(selector::B), code(mode, CODE, true, level)));
                    let segment = super::segments::segment(kind, p, dpl, 0xc);
                    pokes.extend(poke(descriptor(selector::C), segment));
                    pokes.push((at::TSS + 8 + 8 * u32::from(level), (selector::C | rpl).into()));
                    cells.push(Cell {
                        row: format!(
                            "{name} to level {level} with stack type {kind:02x} {}",
                            present(p)
                        ),
                        column: format!("DPL {dpl} RPL {rpl}"),
                        stub,
                        cs: cs(mode, 3),
                        registers: [0; 4],
                        pokes,
                    });
                }
            }
        }
    }
    let c = descriptor(selector::C) + 4;
    Table { watch: vec![c; 4], ..table(mode, vec![call, int], cells, expected) }
}

pub(super) fn calls_32() -> Table {
    calls(Mode::Protected, include_str!("expected/calls-32.txt"))
}

pub(super) fn calls_64() -> Table {
    calls(Mode::Long, include_str!("expected/calls-64.txt"))
}

pub(super) fn interrupts_32() -> Table {
    interrupts(Mode::Protected, include_str!("expected/interrupts-32.txt"))
}

pub(super) fn interrupts_64() -> Table {
    interrupts(Mode::Long, include_str!("expected/interrupts-64.txt"))
}

pub(super) fn stacks_32() -> Table {
    stacks(include_str!("expected/stacks-32.txt"))
}
