//! TSSs of 16 bits (SDM vol. 3, 9.6): switches to, from and between them, what they name, stacks of inner levels in them.

use super::gates::{code, gate};
use super::segments::{present, segment};
use super::tasks::{self, NEW, Way};
use super::{Cell, Mode, Table, Word, at, descriptor, poke, selector};

/// Fields (SDM vol. 3, figure 9-10).
const STACKS: u32 = 2;
const IP: u32 = 14;
const SP: u32 = 26;
const SELECTORS: u32 = 34;
const LDT: u32 = 42;
const NAMES: [&str; 4] = ["ES", "CS", "SS", "DS"];
/// The least limits of TSSs of 16 and 32 bits.
const LIMIT16: u64 = 0x2b;
const LIMIT32: u64 = 0x67;
/// Where stacks are, which 16 bits reach from here.
const BASE: u32 = 0x7_0000;
/// Selectors of such stacks: of level 0 (and what a table tests there), of level 3.
const STACK0: u16 = selector::C + 8;
const STACK3: u16 = selector::C | 3;
/// What is tested, and what gates lead to: the places behind.
const PLACE: u16 = selector::A + 8;
const TARGET: u16 = selector::B + 8;

const WORDS: &[Word] = &[
    Word::Vector,
    Word::Error,
    Word::Ip,
    Word::Cs,
    Word::Eflags,
    Word::Eax,
    Word::Ecx,
    Word::Ss,
    Word::Data,
    Word::Extra,
    Word::Ldtr,
    Word::Tr,
    Word::Watch0,
    Word::Watch1,
    Word::Watch2,
    Word::Watch3,
    Word::Watch4,
    Word::Watch5,
];

/// Words of 16 bits from an even PLACE of a TSS on, as pokes.
fn halves(tss: u32, fields: &[(u32, u16)]) -> Vec<(u32, u32)> {
    let mut words = std::collections::BTreeMap::new();
    for &(at, value) in fields {
        *words.entry(tss + at & !3).or_insert(0) |= u32::from(value) << (8 * (at & 2));
    }
    words.into_iter().collect()
}

/// A stack segment of 64 KiB.
fn stack_segment(level: u64) -> u64 {
    0x40_0000_0000_ffff | u64::from(BASE) << 16 | (0x93 | level << 5) << 40
}

/// The stacks that TSSs of 16 bits name, to be there in each cell.
fn stacks() -> Vec<(u32, u32)> {
    let mut pokes = poke(descriptor(STACK0), stack_segment(0)).to_vec();
    pokes.extend(poke(descriptor(STACK3), stack_segment(3)));
    pokes
}

fn sp(level: u8) -> u16 {
    (at::stack(level) - BASE) as u16
}

fn inner_sp() -> u16 {
    (at::inner_stack(0) - BASE) as u16
}

/// A task of level 3 in a TSS of 16 bits.
fn task(flags: u16) -> Vec<(u32, u16)> {
    let (cs, data) = (selector::of(selector::CODE32, 3), selector::of(selector::DATA, 3));
    vec![
        (STACKS, inner_sp()),
        (STACKS + 2, STACK0),
        (IP, at::LANDING as u16),
        (IP + 2, flags | 2),
        (IP + 4, 0x1234),
        (IP + 6, 0x5678),
        (SP, sp(3)),
        (SELECTORS, data),
        (SELECTORS + 2, cs),
        (SELECTORS + 4, STACK3),
        (SELECTORS + 6, data),
    ]
}

/// [`task`] as pokes, with a field changed.
fn new_task(flags: u16, change: Option<(u32, u16)>) -> Vec<(u32, u32)> {
    let fields = task(flags).into_iter().map(|(at, value)| match change {
        Some((changed, to)) if changed == at => (at, to),
        _ => (at, value),
    });
    let mut fields: Vec<(u32, u16)> = fields.collect();
    if let Some((LDT, to)) = change {
        fields.push((LDT, to));
    }
    halves(NEW, &fields)
}

/// A descriptor of a TSS.
fn tss(at: u32, kind: u64, p: bool, dpl: u8, limit: u64) -> u64 {
    let access = kind | u64::from(dpl) << 5 | u64::from(p) << 7;
    limit | u64::from(at) << 16 | access << 40
}

/// The current task's TSS as one of 16 bits.
fn old_task(limit: u64) -> Vec<(u32, u32)> {
    let mut pokes = poke(descriptor(selector::TSS), tss(at::TSS, 1, true, 0, limit)).to_vec();
    pokes.extend(halves(at::TSS, &[(STACKS, inner_sp()), (STACKS + 2, STACK0)]));
    pokes
}

fn table(cells: Vec<Cell>, expected: &'static str) -> Table {
    Table {
        mode: Mode::Protected,
        stubs: tasks::ways().into_iter().map(|(_, _, stub)| stub).collect(),
        live: Vec::new(),
        frames: Vec::new(),
        user_stubs: at::STUBS,
        msrs: &[],
        watch: vec![
            descriptor(selector::A) + 4,
            descriptor(selector::TSS) + 4,
            NEW,
            at::TSS + 12,
            at::TSS + 16,
            at::TSS + 36,
        ],
        words: WORDS,
        cells,
        expected,
    }
}

/// A cell of level `level`; EAX and ECX are noticed where a task saves them.
fn cell(stub: usize, row: String, column: String, level: u8, pokes: Vec<(u32, u32)>) -> Cell {
    let cs = selector::of(selector::CODE32, level);
    Cell { row, column, stub, cs, registers: [0x1111_aaaa, 0, 0x2222_cccc, 0x3333_dddd], pokes }
}

/// Each way between TSSs of both kinds: type of the new one, limits of both, DPL, CPL, flags.
pub(super) fn switches() -> Table {
    let mut cells = Vec::new();
    for (stub, (name, way, _)) in tasks::ways().into_iter().enumerate() {
        for (from, to) in [(32, 16), (16, 16), (16, 32)] {
            let least = if to == 16 { LIMIT16 } else { LIMIT32 };
            let available = if to == 16 { 1 } else { 9 };
            let (old, saved) = if from == 16 { (LIMIT16, 0x29) } else { (LIMIT32, 0x5f) };
            for (p, limit, old_limit, busy) in [
                (true, least, old, false),
                (true, least - 1, old, false),
                (true, least, old - 1, false),
                (true, least, saved, false),
                (true, least, saved - 1, false),
                (true, least, old, true),
                (false, least, old, false),
            ] {
                for flags in [0, 0x4000, 0x3000, 0x400] {
                    for (dpl, level) in [(3, 3), (0, 0), (3, 0), (0, 3)] {
                        let mut pokes = stacks();
                        pokes.extend(way.pokes(0, (true, dpl)));
                        if from == 16 {
                            pokes.extend(old_task(old_limit));
                            if way == Way::Return {
                                let link = halves(
                                    at::TSS,
                                    &[(0, selector::A), (STACKS, inner_sp()), (4, STACK0)],
                                );
                                pokes.extend(link);
                            }
                        } else {
                            let of_it = tss(at::TSS, 9, true, 0, old_limit);
                            pokes.extend(poke(descriptor(selector::TSS), of_it));
                        }
                        if to == 16 {
                            pokes.extend(new_task(flags, None));
                        } else {
                            pokes.extend(tasks::task());
                            pokes.push((NEW + 36, u32::from(flags) | 2));
                        }
                        let kind = available | if busy != (way == Way::Return) { 2 } else { 0 };
                        let what = tss(NEW, kind, p, dpl, limit);
                        pokes.extend(poke(descriptor(selector::A), what));
                        let row = format!(
                            "{name} from {from} limit {old_limit:x} to {to} type {kind} {} limit {limit:x}",
                            present(p)
                        );
                        let column = format!("flags {flags:x} DPL {dpl} CPL {level}");
                        cells.push(cell(stub, row, column, level, pokes));
                    }
                }
            }
        }
    }
    table(cells, include_str!("expected/switches-16.txt"))
}

/// Each selector of a new task of level 3 with each type of descriptor.
pub(super) fn contents() -> Table {
    let mut cells = Vec::new();
    let fields = (0..).zip(NAMES).map(|(index, name)| (name, SELECTORS + 2 * index));
    for (field, at) in fields.chain([("LDT", LDT)]) {
        for (kind, p) in (0..32u64).flat_map(|kind| [(kind, true), (kind, false)]) {
            for (dpl, rpl) in (0..4u8).flat_map(|dpl| (0..4u16).map(move |rpl| (dpl, rpl))) {
                // At another level the stack would not fit.
                if field == "CS" && rpl != 3 {
                    continue;
                }
                let mut pokes = stacks();
                pokes.push((at::POINTER + 4, selector::A.into()));
                pokes.extend(new_task(0, Some((at, PLACE | rpl))));
                pokes.extend(poke(descriptor(selector::A), tss(NEW, 1, true, 3, LIMIT16)));
                pokes.extend(poke(descriptor(PLACE), segment(kind, p, dpl, 0xc)));
                let row = format!("jmp {field} type {kind:02x} {}", present(p));
                cells.push(cell(0, row, format!("DPL {dpl} RPL {rpl}"), 3, pokes));
            }
        }
    }
    table(cells, include_str!("expected/tasks-16.txt"))
}

/// Stacks of a TSS of 16 bits, by gates of both sizes: where they lie at its limit, and what they name.
pub(super) fn inner_stacks() -> Table {
    let ways = tasks::ways();
    let mut cells = Vec::new();
    for (stub, (name, way, _)) in ways.iter().enumerate() {
        if !matches!(*name, "call" | "int 0x60" | "#UD") {
            continue;
        }
        for wide in [false, true] {
            for level in 0..3u8 {
                let field = STACKS + 4 * u32::from(level);
                let mut cases = vec![("", 0x2b, None)];
                for limit in [field, field + 1, field + 2, field + 3, field + 4] {
                    cases.push(("", u64::from(limit), None));
                }
                cases.push(("null", 0x2b, Some(0)));
                cases.push(("other level", 0x2b, Some(selector::of(selector::DATA, 3))));
                cases.push(("code", 0x2b, Some(selector::of(selector::CODE32, level))));
                cases.push(("beyond", 0x2b, Some(selector::LIMIT + 1)));
                cases.push(("SP 0", 0x2b, Some(selector::of(selector::DATA, level))));
                for (what, limit, ss) in cases {
                    // The stack of level 0 that exceptions use must stay, so only other levels have none.
                    if level == 0 && (limit < 5 || ss.is_some()) {
                        continue;
                    }
                    let mut pokes = stacks();
                    pokes.extend(poke(descriptor(selector::TSS), tss(at::TSS, 1, true, 0, limit)));
                    let own = (at::inner_stack(level) - BASE) as u16;
                    let mut fields = vec![(STACKS, inner_sp()), (STACKS + 2, STACK0)];
                    if level != 0 {
                        let there = PLACE | u16::from(level);
                        pokes.extend(poke(descriptor(PLACE), stack_segment(level.into())));
                        let sp = if what == "SP 0" { 0 } else { own };
                        fields.extend([(field, sp), (field + 2, ss.unwrap_or(there))]);
                    }
                    pokes.extend(halves(at::TSS, &fields));
                    pokes.extend(way.pokes(0, (true, 3)));
                    let (call, interrupt) = if wide { (0xc, 0xe) } else { (4, 6) };
                    let kind = if *name == "call" { call } else { interrupt };
                    let what_gate = gate(kind, true, 3, TARGET, 0);
                    match way {
                        Way::Event(vector) => {
                            pokes.extend(poke(at::IDT + 8 * vector, what_gate));
                        }
                        _ => pokes.extend(poke(descriptor(selector::A), what_gate)),
                    }
                    let there = code(Mode::Protected, 0x1a, true, level);
                    pokes.extend(poke(descriptor(TARGET), there));
                    let row = format!("{name} by gate {kind:x} to level {level}");
                    let column = format!("limit {limit:x} {what}");
                    cells.push(cell(stub, row, column, 3, pokes));
                }
            }
        }
    }
    let mut table = table(cells, include_str!("expected/stacks-16.txt"));
    // What is pushed.
    table.watch = [0, 1, 2]
        .into_iter()
        .flat_map(|level| [at::inner_stack(level) - 4, at::inner_stack(level) - 8])
        .collect();
    table
}
