//! What IOPL decides, and what the TSS adds to it: CLI, STI, POPF and IRET with virtual interrupts of protected mode
//! (SDM vol. 3, 22.4); I/O ports and their bitmap (SDM vol. 1, 19.5).

use iced_x86::code_asm::*;

use super::v86;
use super::{Cell, Mode, STUB, Stub, Table, Word, at, descriptor, end, enter, poke, selector};

/// CR4.PVI.
const PVI: u32 = 2;
/// What POPF and IRET pop: name, flags.
const POPPED: &[(&str, u32)] = &[
    ("0", 0),
    ("IF", 0x200),
    ("IF TF", 0x300),
    ("IOPL 3 NT", 0x7000),
    ("AC ID RF", 0x25_0000),
    ("VIF", 0x8_0000),
    ("VIP", 0x10_0000),
    ("VM", 0x2_0000),
];
const VIF: u32 = 1 << 19;
const VIP: u32 = 1 << 20;

/// Where a port's bit is, by the address that the TSS says: ports in the midst of what no device answers to.
const MAP: u32 = 0x68;
const PORT: u32 = 0xa20;
const BITS: u32 = MAP + PORT / 8;
const _: () = assert!(BITS.is_multiple_of(4) && BITS < at::IDT - at::TSS);

const WORDS: &[Word] =
    &[Word::Vector, Word::Error, Word::Ip, Word::Cs, Word::Eflags, Word::Eax, Word::Ss];

/// What runs the operations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum World {
    Protected,
    V86,
    Bits64,
}

impl World {
    fn mode(self) -> Mode {
        if self == World::Bits64 { Mode::Long } else { Mode::Protected }
    }

    /// The pokes for what the first stub returns to: code at `ip`, at level `level`.
    fn frame(self, ip: u32, level: u8, eflags: u32) -> Vec<(u32, u32)> {
        let first = if self == World::Bits64 { selector::CODE64 } else { selector::CODE32 };
        let words = [
            ip,
            selector::of(first, level).into(),
            eflags | 2,
            at::stack(level),
            selector::of(selector::DATA, level).into(),
        ];
        let step = if self == World::Bits64 { 8 } else { 4 };
        (at::FRAME..).step_by(step).zip(words).collect()
    }

    fn cell(self, row: String, column: String, value: u32, pokes: Vec<(u32, u32)>) -> Cell {
        let first = if self == World::Bits64 { selector::CODE64 } else { selector::CODE32 };
        let code = selector::of(first, 0);
        Cell { row, column, stub: 0, cs: code, registers: [value, 0, 0, 0], pokes }
    }

    fn table(self, stubs: Vec<Stub>, mut cells: Vec<Cell>, expected: &'static str) -> Table {
        // Rows together.
        cells.sort_by_cached_key(|cell| cell.row.clone());
        let mode = self.mode();
        let mut all = vec![enter(mode.bits())];
        all.extend(stubs);
        Table {
            mode,
            stubs: all,
            live: Vec::new(),
            frames: Vec::new(),
            user_stubs: at::STUBS,
            msrs: &[],
            watch: Vec::new(),
            words: WORDS,
            cells,
            expected,
        }
    }
}

/// Where a stub behind the first one is.
fn stub_at(index: usize) -> u32 {
    at::STUBS + STUB * (index as u32 + 1)
}

macro_rules! stub {
    ($bits:expr, |$a:ident| $code:expr) => {
        Stub {
            bits: $bits,
            code: |$a| {
                $code?;
                $a.nop()?;
                end($a)
            },
        }
    };
}

/// Operations on flags: name, whether they take [`POPPED`], code.
fn operations(bits: u32) -> Vec<(&'static str, bool, Stub)> {
    vec![
        ("cli", false, stub!(bits, |a| a.cli())),
        ("sti", false, stub!(bits, |a| a.sti())),
        (
            "pushf",
            false,
            stub!(bits, |a| {
                a.pushf()?;
                if a.bitness() == 64 { a.pop(rax) } else { a.pop(eax) }
            }),
        ),
        (
            "popf",
            true,
            stub!(bits, |a| {
                if a.bitness() == 64 {
                    a.push(rax)?;
                    a.popfq()
                } else {
                    a.push(eax)?;
                    a.popfd()
                }
            }),
        ),
        (
            "popf of 16 bits",
            true,
            stub!(bits, |a| {
                a.push(ax)?;
                a.popf()
            }),
        ),
        (
            "iret",
            true,
            stub!(bits, |a| {
                a.mov(ecx, esp)?;
                a.mov(edx, ss)?;
                a.mov(ebx, cs)?;
                if a.bitness() == 64 {
                    a.push(rdx)?;
                    a.push(rcx)?;
                    a.push(rax)?;
                    a.push(rbx)?;
                    a.push(at::LANDING as i32)?;
                    a.iretq()
                } else {
                    a.push(eax)?;
                    a.push(ebx)?;
                    a.push(at::LANDING as i32)?;
                    a.iretd()
                }
            }),
        ),
    ]
}

fn flags(world: World, expected: &'static str) -> Table {
    let mut cells = Vec::new();
    let operations = operations(world.mode().bits());
    for (index, (name, pops, _)) in operations.iter().enumerate() {
        for (flags, popped) in &POPPED[..if *pops { POPPED.len() } else { 1 }] {
            // A task of virtual-8086 mode has a table of its own.
            if *name == "iret" && *flags == "VM" {
                continue;
            }
            for (extension, pvi) in [("", 0), (" PVI", PVI)] {
                for level in 0..4u8 {
                    for iopl in 0..4 {
                        for (bits_name, bits) in
                            [("", 0), (" VIF", VIF), (" VIP", VIP), (" VIF VIP", VIF | VIP)]
                        {
                            let mut pokes = world.frame(stub_at(index), level, iopl << 12 | bits);
                            let base = if world == World::Bits64 { 0x20 } else { 0 };
                            pokes.push((at::CR4, base | pvi));
                            let of = if *pops { format!(" of {flags}") } else { String::new() };
                            let row = format!("{name}{of} CPL {level}{extension}");
                            let column = format!("IOPL {iopl}{bits_name}");
                            cells.push(world.cell(row, column, *popped, pokes));
                        }
                    }
                }
            }
        }
    }
    world.table(operations.into_iter().map(|(.., stub)| stub).collect(), cells, expected)
}

/// Accesses to ports: name, bytes, code, and that of virtual-8086 mode.
fn accesses(bits: u32) -> Vec<(&'static str, u32, Stub, &'static [u8])> {
    vec![
        ("in al", 1, stub!(bits, |a| a.in_(al, dx)), &[0xec]),
        ("in ax", 2, stub!(bits, |a| a.in_(ax, dx)), &[0xed]),
        ("in eax", 4, stub!(bits, |a| a.in_(eax, dx)), &[0x66, 0xed]),
        ("out al", 1, stub!(bits, |a| a.out(dx, al)), &[0xee]),
        ("out ax", 2, stub!(bits, |a| a.out(dx, ax)), &[0xef]),
        ("out eax", 4, stub!(bits, |a| a.out(dx, eax)), &[0x66, 0xef]),
        ("insb", 1, stub!(bits, |a| a.insb()), &[0x6c]),
        ("outsd", 4, stub!(bits, |a| a.outsd()), &[0x66, 0x6f]),
    ]
}

/// The TSS with a limit, a map, and bits in it.
fn bitmap(limit: u32, map: u32, bits: u32) -> Vec<(u32, u32)> {
    let of_it = u64::from(limit) | u64::from(at::TSS) << 16 | 0x89 << 40;
    let mut pokes = poke(descriptor(selector::TSS), of_it).to_vec();
    pokes.extend([(at::TSS + 100, map << 16), (at::TSS + BITS, bits)]);
    pokes
}

fn ports(world: World, expected: &'static str) -> Table {
    let accesses = accesses(world.mode().bits());
    let mut cells = Vec::new();
    let mut push = |index: usize, row: String, column: String, level, iopl: u32, port, tss| {
        let mut pokes = if world == World::V86 {
            v86::task_with(accesses[index].3, iopl << 12)
        } else {
            world.frame(stub_at(index), level, iopl << 12)
        };
        pokes.extend::<Vec<(u32, u32)>>(tss);
        let mut cell = world.cell(row, column, 0, pokes);
        cell.registers[3] = port;
        cells.push(cell);
    };
    for (index, &(name, bytes, ..)) in accesses.iter().enumerate() {
        // Each port of a byte of the map, with each bit that it may or may not need.
        for bit in 0..8 {
            for denied in 0..16 {
                let (row, column) = (format!("{name} bit {bit}"), format!("bit {denied} set"));
                push(index, row, column, 3, 0, PORT + bit, bitmap(0x2ff, MAP, 1 << denied));
            }
        }
        // The map's last byte at the limit: two bytes are always read.
        for (limit, map) in [
            (BITS - 1, MAP),
            (BITS, MAP),
            (BITS + 1, MAP),
            (BITS + 2, MAP),
            (0x67, MAP),
            (0x66, MAP),
            (0x2ff, 0x66),
            (0x2ff, 0),
            (0x2ff, 0xffff),
        ] {
            for bit in [0, 5, 7] {
                let (row, column) =
                    (format!("{name} limit {limit:x} map {map:x}"), format!("bit {bit}"));
                push(index, row, column, 3, 0, PORT + bit, bitmap(limit, map, 0));
            }
        }
        for (level, iopl) in (0..4u8).flat_map(|level| (0..4).map(move |iopl| (level, iopl))) {
            if world == World::V86 && level != 3 {
                continue;
            }
            for (what, bits) in [("free", 0), ("denied", u32::MAX)] {
                let (row, column) =
                    (format!("{name} {what} CPL {level}"), format!("IOPL {iopl} {bytes} bytes"));
                push(index, row, column, level, iopl, PORT, bitmap(0x2ff, MAP, bits));
            }
        }
    }
    let stubs = accesses.into_iter().map(|(_, _, stub, _)| stub).collect();
    world.table(stubs, cells, expected)
}

pub(super) fn flags_32() -> Table {
    flags(World::Protected, include_str!("expected/iopl-32.txt"))
}

pub(super) fn flags_64() -> Table {
    flags(World::Bits64, include_str!("expected/iopl-64.txt"))
}

pub(super) fn ports_32() -> Table {
    ports(World::Protected, include_str!("expected/ports-32.txt"))
}

pub(super) fn ports_v86() -> Table {
    ports(World::V86, include_str!("expected/ports-v86.txt"))
}

pub(super) fn ports_64() -> Table {
    ports(World::Bits64, include_str!("expected/ports-64.txt"))
}
