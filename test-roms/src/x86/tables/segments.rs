//! Every type of descriptor, present or not, at each DPL, used by each CPL with each RPL.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::{Cell, Mode, Stub, Table, Word, at, descriptor, poke, selector};

/// Bits of a type, with S (SDM vol. 3, table 3-1).
const S: u64 = 0x10;
const CODE: u64 = 8;
const EXPAND_DOWN: u64 = 4;

/// How a cell's operation gets its selector.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// By EAX.
    Register,
    /// By a far pointer.
    Pointer,
    /// From the stack, as the return's CS.
    Return,
}

struct Operation {
    name: &'static str,
    used: Use,
    code: fn(&mut CodeAssembler) -> Result<(), IcedError>,
}

macro_rules! operation {
    ($name:literal, $used:ident, |$a:ident| $code:expr) => {
        Operation {
            name: $name,
            used: Use::$used,
            code: |$a| {
                $code?;
                $a.int(0x80)
            },
        }
    };
}

fn pushes(a: &mut CodeAssembler, flags: bool) -> Result<(), IcedError> {
    let wide = a.bitness() == 64;
    let mut push =
        |r32, r64| if wide { a.push::<AsmRegister64>(r64) } else { a.push::<AsmRegister32>(r32) };
    push(ebx, rbx)?;
    push(ecx, rcx)?;
    if flags {
        push(esi, rsi)?;
    }
    push(eax, rax)?;
    push(edx, rdx)
}

/// Loads of segment registers.
fn loads() -> Vec<Operation> {
    vec![
        operation!("mov ds", Register, |a| a.mov(ds, eax)),
        operation!("mov es", Register, |a| a.mov(es, eax)),
        operation!("mov fs", Register, |a| a.mov(fs, eax)),
        operation!("mov gs", Register, |a| a.mov(gs, eax)),
        operation!("mov ss", Register, |a| a.mov(ss, eax)),
    ]
}

/// What only looks at descriptors, and loads of LDTR and TR.
fn looks() -> Vec<Operation> {
    vec![
        operation!("lar", Register, |a| a.lar(ecx, eax)),
        operation!("lsl", Register, |a| a.lsl(ecx, eax)),
        operation!("verr", Register, |a| a.verr(ax)),
        operation!("verw", Register, |a| a.verw(ax)),
        operation!("lldt", Register, |a| a.lldt(ax)),
        operation!("ltr", Register, |a| a.ltr(ax)),
    ]
}

/// What loads CS.
fn transfers() -> Vec<Operation> {
    vec![
        operation!("jmp", Pointer, |a| a.jmp(fword_ptr(at::POINTER))),
        operation!("call", Pointer, |a| a.call(fword_ptr(at::POINTER))),
        operation!("retf", Return, |a| {
            pushes(a, false)?;
            if a.bitness() == 64 { a.db(&[0x48, 0xcb]) } else { a.retf() }
        }),
        operation!("iret", Return, |a| {
            pushes(a, true)?;
            if a.bitness() == 64 { a.iretq() } else { a.iretd() }
        }),
    ]
}

/// A descriptor of a type (with S) whose segment can be used from its beginning to its end, and as a gate or TSS leads
/// nowhere.
pub(super) fn segment(kind: u64, present: bool, dpl: u8, flags: u64) -> u64 {
    let access = kind | u64::from(dpl) << 5 | u64::from(present) << 7;
    let all = kind & S != 0 && (kind & CODE != 0 || kind & EXPAND_DOWN == 0);
    let limit = if all { 0x000f_0000_0000_ffff } else { 0 };
    let flags = if kind & S == 0 { 0 } else { flags };
    limit | access << 40 | flags << 52
}

/// Limit bits that LAR leaves undefined (SDM vol. 2, "LAR").
const UNDEFINED: u64 = 0xf << 48;

const WORDS: &[Word] = &[
    Word::Vector,
    Word::Error,
    Word::Ip,
    Word::Cs,
    Word::Flags,
    Word::Ecx,
    Word::Ss,
    Word::Data,
    Word::Extra,
    Word::Ldtr,
    Word::Tr,
    Word::Watch0,
];

/// ECX where it is the destination of LAR and LSL.
const UNTOUCHED: u32 = 0x1111_1111;

/// What runs the operations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum World {
    Protected,
    Compatibility,
    Bits64,
}

impl World {
    fn mode(self) -> Mode {
        if self == World::Protected { Mode::Protected } else { Mode::Long }
    }

    fn bits(self) -> u32 {
        if self == World::Bits64 { 64 } else { 32 }
    }

    fn code(self, cpl: u8) -> u16 {
        let row = if self == World::Bits64 { selector::CODE64 } else { selector::CODE32 };
        selector::of(row, cpl)
    }
}

impl Operation {
    /// A cell in which level `cpl` uses `tested`.
    fn cell(
        &self,
        world: World,
        stub: usize,
        (row, column): (String, String),
        cpl: u8,
        tested: u16,
    ) -> Cell {
        let rpl = tested as u8 & 3;
        let (stack, value, place) = match self.used {
            Use::Return => {
                (u32::from(selector::of(selector::DATA, rpl)), at::stack(rpl), at::LANDING)
            }
            _ => (0, UNTOUCHED, 0),
        };
        let mut pokes = Vec::new();
        if self.used == Use::Pointer {
            pokes.extend([(at::POINTER, at::LANDING), (at::POINTER + 4, tested.into())]);
        }
        let registers = [tested.into(), stack, value, place];
        Cell { row, column, stub, cs: world.code(cpl), registers, pokes }
    }
}

pub(super) fn present(p: bool) -> &'static str {
    if p { "P" } else { "not P" }
}

/// The names of what a code segment's L and D say.
const SIZES: [(&str, u64); 4] = [("", 0xc), (" L", 0xa), (" L D", 0xe), (" 16-bit", 8)];

/// A table of operations with each type of descriptor, at each DPL, used by each CPL with each RPL.
fn kinds(world: World, operations: &[Operation], expected: &'static str) -> Table {
    let mut cells = Vec::new();
    for (stub, operation) in operations.iter().enumerate() {
        for (kind, p) in (0..32).flat_map(|kind| [(kind, true), (kind, false)]) {
            let code = kind & S != 0 && kind & CODE != 0;
            let sized = code && operation.used != Use::Register && world != World::Protected;
            for (size, flags) in SIZES.into_iter().take(if sized { 4 } else { 1 }) {
                for index in 0..64u8 {
                    let (dpl, cpl, rpl) = (index >> 4, index >> 2 & 3, index & 3);
                    let names = (
                        format!("{} type {kind:02x}{size} {}", operation.name, present(p)),
                        format!("DPL {dpl} CPL {cpl} RPL {rpl}"),
                    );
                    let tested = selector::A | u16::from(rpl);
                    let mut cell = operation.cell(world, stub, names, cpl, tested);
                    let mut what = segment(kind, p, dpl, flags);
                    if operation.name == "lar" {
                        what &= !UNDEFINED;
                    }
                    cell.pokes.extend(poke(descriptor(tested), what));
                    cells.push(cell);
                }
            }
        }
    }
    table(world, operations, cells, expected)
}

fn table(
    world: World,
    operations: &[Operation],
    cells: Vec<Cell>,
    expected: &'static str,
) -> Table {
    let stubs = operations.iter().map(|o| Stub { bits: world.bits(), code: o.code }).collect();
    let watched = descriptor(selector::A) + 4;
    Table {
        mode: world.mode(),
        stubs,
        live: Vec::new(),
        frames: Vec::new(),
        user_stubs: at::STUBS,
        msrs: &[],
        watch: vec![watched; 4],
        words: WORDS,
        cells,
        expected,
    }
}

/// Operations with selectors that are null, or reach beyond a table, or into an LDT that is not there.
fn selectors(world: World, expected: &'static str) -> Table {
    let operations: Vec<Operation> =
        loads().into_iter().chain(looks()).chain(transfers()).collect();
    let mut cells = Vec::new();
    for (stub, operation) in operations.iter().enumerate() {
        for kind in [0x02, 0x09, 0x0c, 0x12, 0x1a] {
            for (name, base) in [
                ("null", 0),
                ("last", selector::LIMIT & !7),
                ("beyond", selector::LIMIT + 1),
                ("far beyond", 0xfff8),
                ("in no LDT", selector::A | 4),
            ] {
                for (cpl, rpl) in (0..4u8).flat_map(|cpl| (0..4u16).map(move |rpl| (cpl, rpl))) {
                    let names = (
                        format!("{} type {kind:02x} {name}", operation.name),
                        format!("CPL {cpl} RPL {rpl}"),
                    );
                    let mut cell = operation.cell(world, stub, names, cpl, base | rpl);
                    let mut what = segment(
                        kind,
                        true,
                        3,
                        if world == World::Bits64 && kind == 0x1a { 0xa } else { 0xc },
                    );
                    if operation.name == "lar" {
                        what &= !UNDEFINED;
                    }
                    if base <= selector::LIMIT && base != 0 {
                        cell.pokes.extend(poke(descriptor(base), what));
                    }
                    cells.push(cell);
                }
            }
        }
    }
    table(world, &operations, cells, expected)
}

/// Upper halves of 16-byte descriptors in IA-32e mode: base or offset and what must be zero.
fn halves(world: World, expected: &'static str) -> Table {
    let operations: Vec<Operation> =
        looks().into_iter().chain(transfers().into_iter().take(2)).collect();
    let mut cells = Vec::new();
    for (stub, operation) in operations.iter().enumerate() {
        for kind in 0..16 {
            // Bases are checked by the width that the processor offers, 48 or 57 bits, offsets by the one in use.
            let based = matches!(operation.name, "lldt" | "ltr");
            let (above, below) =
                if based { (0x0100_0000, 0xfeff_ffff) } else { (0x8000, 0xffff_7fff) };
            for half in [
                0,
                0x7fff,
                above,
                below,
                0xffff_8000,
                1 << 40,
                1 << 44,
                0x1f << 40,
                1 << 45,
                1 << 32,
                1 << 63,
            ] {
                for (cpl, rpl, dpl) in
                    [(0, 0, 0), (0, 3, 0), (0, 3, 3), (3, 3, 3), (3, 0, 3), (3, 3, 0)]
                {
                    let names = (
                        format!("{} type {kind:02x} upper half {half:x}", operation.name),
                        format!("DPL {dpl} CPL {cpl} RPL {rpl}"),
                    );
                    let tested = selector::A | rpl;
                    let mut cell = operation.cell(world, stub, names, cpl, tested);
                    // A gate's target is 64-bit code of its caller's level.
                    let what = segment(kind, true, dpl, 0)
                        | u64::from(at::LANDING)
                        | if kind == 0xc {
                            u64::from(selector::of(selector::CODE64, cpl)) << 16
                        } else {
                            0
                        };
                    cell.pokes.extend(poke(descriptor(tested), what));
                    cell.pokes.extend(poke(descriptor(tested) + 8, half));
                    cells.push(cell);
                }
            }
        }
    }
    table(world, &operations, cells, expected)
}

pub(super) fn loads_32() -> Table {
    kinds(World::Protected, &loads(), include_str!("expected/loads-32.txt"))
}

pub(super) fn looks_32() -> Table {
    kinds(World::Protected, &looks(), include_str!("expected/looks-32.txt"))
}

pub(super) fn transfers_32() -> Table {
    kinds(World::Protected, &transfers(), include_str!("expected/transfers-32.txt"))
}

pub(super) fn selectors_32() -> Table {
    selectors(World::Protected, include_str!("expected/selectors-32.txt"))
}

pub(super) fn loads_64() -> Table {
    kinds(World::Bits64, &loads(), include_str!("expected/loads-64.txt"))
}

pub(super) fn looks_64() -> Table {
    kinds(World::Bits64, &looks(), include_str!("expected/looks-64.txt"))
}

pub(super) fn jumps_64() -> Table {
    kinds(World::Bits64, &transfers()[..2], include_str!("expected/jumps-64.txt"))
}

pub(super) fn returns_64() -> Table {
    kinds(World::Bits64, &transfers()[2..], include_str!("expected/returns-64.txt"))
}

pub(super) fn selectors_64() -> Table {
    selectors(World::Bits64, include_str!("expected/selectors-64.txt"))
}

pub(super) fn halves_64() -> Table {
    halves(World::Bits64, include_str!("expected/halves-64.txt"))
}

pub(super) fn transfers_compatibility() -> Table {
    kinds(World::Compatibility, &transfers(), include_str!("expected/transfers-compatibility.txt"))
}

pub(super) fn selectors_compatibility() -> Table {
    selectors(World::Compatibility, include_str!("expected/selectors-compatibility.txt"))
}
