//! What paging permits: entries' bits at each level, CR0.WP, SMEP, SMAP, AC, by whom and for what; error codes, CR2, A and
//! D.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::{Cell, Mode, Stub, Table, Word, at, end, poke, selector};

/// Paging structures of the guest itself, in the image: the lowest 4 MiB as they are, for level 0 alone but for a stack.
const FRAMES: u32 = at::TABLE;
const FRAME: u32 = 0x1000;
/// Where level 3 finds the stubs.
const USER_STUBS: u32 = 0x30_0000;
/// Frames of the tables that the tested address alone uses, and what it names.
const TESTED: u32 = 0x9_0000;
const DATA: u32 = TESTED + 4 * FRAME;
/// The tested address, in IA-32e mode (below entry 1 of the highest table, too, if there are five levels) and otherwise:
/// entry 1 of the table below entry 1 of the directory below others;
/// entry 1 of the table below entry 3 (6 where entries have 64 bits) of the directory.
const LONG_ADDRESS: u64 = 0x80_0020_1000;
const LONG5_ADDRESS: u64 = 1 << 48 | LONG_ADDRESS;
const ADDRESS: u32 = 0xc0_1000;
/// Where in the page data is read and written.
const OFFSET: u64 = 0x100;

/// Bits of entries.
const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const PS: u64 = 0x80;
const NX: u64 = 1 << 63;

const CR0: u32 = 0x8000_0031;
const WP: u32 = 1 << 16;
const PSE: u32 = 0x10;
const PAE: u32 = 0x20;
const LA57: u32 = 1 << 12;
const SMEP: u32 = 1 << 20;
const SMAP: u32 = 1 << 21;
const AC: u32 = 1 << 18;

const WORDS: &[Word] = &[
    Word::Vector,
    Word::Error,
    Word::Ip,
    Word::Cs,
    Word::Cr2,
    Word::Watch0,
    Word::Watch1,
    Word::Watch2,
    Word::Watch3,
];

/// With five levels.
const WORDS5: &[Word] = &[
    Word::Vector,
    Word::Error,
    Word::Ip,
    Word::Cs,
    Word::Cr2,
    Word::Watch0,
    Word::Watch1,
    Word::Watch2,
    Word::Watch3,
    Word::Watch4,
];

/// The kinds of paging.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paging {
    Bits32,
    Pae,
    FourLevels,
    FiveLevels,
}

const ACCESSES: [&str; 3] = ["read", "write", "fetch"];

/// A stub that does one of [`ACCESSES`], with AC set or not, where there are 0, 4 or 5 levels of IA-32e mode.
fn stub(levels: u8, access: usize, ac: bool) -> Stub {
    fn code<const LEVELS: u8, const ACCESS: usize, const AC_SET: bool>(
        a: &mut CodeAssembler,
    ) -> Result<(), IcedError> {
        a.push(if AC_SET { AC as i32 | 2 } else { 2 })?;
        if LEVELS != 0 {
            a.popfq()?;
            a.mov(rbx, if LEVELS == 5 { LONG5_ADDRESS } else { LONG_ADDRESS })?;
            match ACCESS {
                0 => a.mov(eax, dword_ptr(rbx + OFFSET))?,
                1 => a.mov(dword_ptr(rbx + OFFSET), eax)?,
                _ => a.jmp(rbx)?,
            }
        } else {
            a.popfd()?;
            a.mov(ebx, ADDRESS)?;
            match ACCESS {
                0 => a.mov(eax, dword_ptr(ebx + OFFSET))?,
                1 => a.mov(dword_ptr(ebx + OFFSET), eax)?,
                _ => a.jmp(ebx)?,
            }
        }
        end(a)
    }
    macro_rules! stubs {
        ($($access:literal)*) => {
            match (levels, access, ac) {
                $((5, $access, true) => code::<5, $access, true>,
                (5, $access, false) => code::<5, $access, false>,
                (4, $access, true) => code::<4, $access, true>,
                (4, $access, false) => code::<4, $access, false>,
                (0, $access, true) => code::<0, $access, true>,
                (0, $access, false) => code::<0, $access, false>,)*
                _ => unreachable!("there are three accesses"),
            }
        };
    }
    Stub { bits: if levels != 0 { 64 } else { 32 }, code: stubs!(0 1 2) }
}

impl Paging {
    fn long(self) -> bool {
        self.depth() != 0
    }

    /// Levels in IA-32e mode.
    fn depth(self) -> u8 {
        match self {
            Paging::Bits32 | Paging::Pae => 0,
            Paging::FourLevels => 4,
            Paging::FiveLevels => 5,
        }
    }

    /// The highest table.
    fn root(self) -> u32 {
        if self == Paging::FiveLevels { FRAMES + 5 * FRAME } else { FRAMES }
    }

    fn wide(self) -> bool {
        self != Paging::Bits32
    }

    fn cr4(self) -> u32 {
        let la57 = if self == Paging::FiveLevels { LA57 } else { 0 };
        if self.wide() { PAE | PSE | la57 } else { PSE }
    }

    /// The guest's own structures.
    fn frames(self) -> Vec<u8> {
        let mut frames = vec![0; 6 * FRAME as usize];
        let size = if self.wide() { 8 } else { 4 };
        let mut put = |frame: u32, index: u32, entry: u32| {
            let from = (frame * FRAME + index * size) as usize;
            frames[from..from + 4].copy_from_slice(&entry.to_le_bytes());
        };
        let table = |frame: u32, bits: u64| (FRAMES + frame * FRAME) | bits as u32;
        // Frames: directory and what is above it, then two tables, then the highest of five levels.
        match self {
            Paging::Bits32 => put(0, 0, table(3, P | W | U)),
            Paging::Pae => {
                put(0, 0, table(2, P));
                put(2, 0, table(3, P | W | U));
                put(2, 1, table(4, P | W | U));
            }
            Paging::FourLevels | Paging::FiveLevels => {
                put(5, 0, table(0, P | W | U));
                put(0, 0, table(1, P | W | U));
                put(1, 0, table(2, P | W | U));
                put(2, 0, table(3, P | W | U));
                put(2, 1, table(4, P | W | U));
            }
        }
        let stack = at::stack(3) - at::STACK;
        for page in 0..0x400 {
            let linear = page * FRAME;
            let entry = match linear {
                USER_STUBS => at::STUBS | (P | U) as u32,
                _ if linear == stack => linear | (P | W | U) as u32,
                _ => linear | (P | W) as u32,
            };
            // One table of 32-bit entries is as long as two of 64-bit entries.
            put(3, page, entry);
        }
        frames
    }

    /// The entries of the tested address, from the highest level on: name, address, what it names without its bits.
    fn levels(self) -> Vec<(&'static str, u32, u64)> {
        let tested = |index: u32| TESTED + index * FRAME;
        match self {
            Paging::Bits32 => {
                vec![("PDE", FRAMES + 4 * 3, tested(0).into()), ("PTE", tested(0) + 4, DATA.into())]
            }
            Paging::Pae => vec![
                ("PDE", FRAMES + 2 * FRAME + 8 * 6, tested(0).into()),
                ("PTE", tested(0) + 8, DATA.into()),
            ],
            Paging::FourLevels => vec![
                ("PML4E", FRAMES + 8, tested(0).into()),
                ("PDPTE", tested(0), tested(1).into()),
                ("PDE", tested(1) + 8, tested(2).into()),
                ("PTE", tested(2) + 8, DATA.into()),
            ],
            Paging::FiveLevels => vec![
                ("PML5E", self.root() + 8, tested(3).into()),
                ("PML4E", tested(3) + 8, tested(0).into()),
                ("PDPTE", tested(0), tested(1).into()),
                ("PDE", tested(1) + 8, tested(2).into()),
                ("PTE", tested(2) + 8, DATA.into()),
            ],
        }
    }

    /// A cell with the entries' bits given.
    fn cell(self, how: How, row: String, column: String, entries: &[u64]) -> Cell {
        let mut pokes = Vec::new();
        for ((_, at, _), entry) in self.levels().into_iter().zip(entries) {
            let words = poke(at, *entry);
            pokes.extend(&words[..if self.wide() { 2 } else { 1 }]);
        }
        // INT 0x80, where a fetch arrives, also in the page that a large one makes of the address.
        pokes.extend([(DATA, 0x80cd), (0x1000, 0x80cd)]);
        pokes.push((at::CR0, CR0 | if how.wp { WP } else { 0 }));
        let smep = if how.smep { SMEP } else { 0 };
        pokes.push((at::CR4, self.cr4() | smep | if how.smap { SMAP } else { 0 }));
        let first = if self.long() { selector::CODE64 } else { selector::CODE32 };
        let stub = 2 * how.access + usize::from(how.ac);
        let code = selector::of(first, how.level);
        Cell { row, column, stub, cs: code, registers: [0; 4], pokes }
    }

    fn table(self, cells: Vec<Cell>, expected: &'static str) -> Table {
        let levels = self.levels();
        let at = |index: usize| levels[index.min(levels.len() - 1)].1;
        Table {
            mode: match self.depth() {
                0 => Mode::Protected,
                4 => Mode::Long,
                _ => Mode::Long5,
            },
            stubs: (0..6).map(|i| stub(self.depth(), i / 2, i % 2 == 1)).collect(),
            live: vec![(at::CR0, CR0), (at::CR3, self.root()), (at::CR4, self.cr4())],
            frames: self.frames(),
            user_stubs: USER_STUBS,
            msrs: &[],
            watch: vec![at(0), at(1), at(2), at(3), at(4)],
            words: if self == Paging::FiveLevels { WORDS5 } else { WORDS },
            cells,
            expected,
        }
    }
}

/// Who does what, under which rules.
#[derive(Clone, Copy)]
struct How {
    access: usize,
    level: u8,
    wp: bool,
    smep: bool,
    smap: bool,
    ac: bool,
}

impl How {
    /// All, or without SMEP, SMAP and AC.
    fn all(rules: bool) -> Vec<How> {
        let mut all = Vec::new();
        for (access, level) in (0..3).flat_map(|access| [(access, 0), (access, 3)]) {
            for bits in 0..if rules { 16 } else { 2 } {
                let bit = |index: u8| bits >> index & 1 != 0;
                let [wp, smep, smap, ac] = [bit(0), bit(1), bit(2), bit(3)];
                all.push(How { access, level, wp, smep, smap, ac });
            }
        }
        all
    }

    fn name(self) -> String {
        let mut name = format!("{} by level {}", ACCESSES[self.access], self.level);
        for (set, what) in
            [(self.wp, " WP"), (self.smep, " SMEP"), (self.smap, " SMAP"), (self.ac, " AC")]
        {
            name += if set { what } else { "" };
        }
        name
    }
}

fn bits(entry: u64) -> String {
    let names = [(P, "P"), (W, "W"), (U, "U"), (NX, "NX")];
    let set: Vec<&str> =
        names.into_iter().filter(|(bit, _)| entry & bit != 0).map(|(_, name)| name).collect();
    if set.is_empty() { "-".into() } else { set.join("+") }
}

/// Rights by the last two levels, or by the first and the last of five, under all rules.
fn rights(paging: Paging, expected: &'static str) -> Table {
    let third = if paging.wide() { NX } else { 0 };
    let mut choices = Vec::new();
    for index in 0..if paging.wide() { 8u64 } else { 4 } {
        choices.push(P | (index & 1) * W | (index >> 1 & 1) * U | (index >> 2) * third);
    }
    choices.extend([W | U, 0]);
    let mut cells = Vec::new();
    for how in How::all(true) {
        for &upper in &choices {
            for &last in &choices {
                let levels = paging.levels();
                let mut entries: Vec<u64> =
                    levels.iter().map(|level| level.2 | P | W | U).collect();
                let count = entries.len();
                let first = if paging == Paging::FiveLevels { 0 } else { count - 2 };
                entries[first] = levels[first].2 | upper;
                entries[count - 1] = levels[count - 1].2 | last;
                let row = format!("{} {} {}", how.name(), levels[first].0, bits(upper));
                cells.push(paging.cell(how, row, format!("PTE {}", bits(last)), &entries));
            }
        }
    }
    paging.table(cells, expected)
}

/// Each level alone with another bit; large pages.
fn levels(paging: Paging, expected: &'static str) -> Table {
    let mut cells = Vec::new();
    let mut changes = vec![("P", P), ("W", W), ("U", U), ("A", 0x20), ("D", 0x40), ("G", 0x100)];
    if paging.wide() {
        // With entries of 32 bits, PS would make a page of what is no memory.
        changes.extend([("PS", PS), ("NX", NX), ("bit 62", 1 << 62)]);
    }
    for how in How::all(true) {
        let names = paging.levels();
        let whole: Vec<u64> = names.iter().map(|level| level.2 | P | W | U).collect();
        for (index, (level, _, _)) in names.iter().enumerate() {
            for (name, bit) in &changes {
                let mut entries = whole.clone();
                entries[index] ^= bit;
                let row = format!("{} {level}", how.name());
                cells.push(paging.cell(how, row, format!("{name} changed"), &entries));
            }
        }
        // Large pages from address 0; reserved bits of theirs.
        let large = if paging.wide() {
            [0, NX, 1 << 12, 1 << 13, 1 << 20]
        } else {
            [0, 1 << 12, 1 << 21, 0x100, 0x20]
        };
        for extra in large {
            for rights in [0, W, U, W | U] {
                let mut entries = whole.clone();
                let last = entries.len() - 2;
                entries[last] = P | PS | rights | extra;
                let row = format!("{} large page with {extra:x}", how.name());
                cells.push(paging.cell(how, row, bits(rights), &entries));
            }
        }
    }
    paging.table(cells, expected)
}

/// Bits of physical addresses that the processor does not have, and others that are reserved: at each level, in large
/// pages. Where it has them they name no memory, so that only the last level is used with them.
fn addresses(paging: Paging, phys_bits: u32, expected: &'static str) -> Table {
    let mut cells = Vec::new();
    let names = paging.levels();
    let whole: Vec<u64> = names.iter().map(|level| level.2 | P | W | U).collect();
    let last = names.len() - 1;
    for level in [0, 3] {
        let how = How { access: 0, level, wp: false, smep: false, smap: false, ac: false };
        let mut push = |row: String, column: String, entries: &[u64]| {
            cells.push(paging.cell(how, format!("{} {row}", how.name()), column, entries));
        };
        if paging.wide() {
            for (index, (name, ..)) in names.iter().enumerate() {
                for bit in if index == last { 36..=51 } else { phys_bits..=51 } {
                    let mut entries = whole.clone();
                    entries[index] |= 1 << bit;
                    push((*name).into(), format!("bit {bit}"), &entries);
                }
            }
        }
        // Large pages: of 2 or 4 MiB, of 1 GiB.
        let sizes = if paging.long() { &[(1, 21), (2, 30)][..] } else { &[(1, 21)] };
        for &(above, zero) in sizes {
            let index = last - above;
            let bits =
                if paging.wide() { (12..=zero - 1).chain(36..=51) } else { (12..=21).chain(0..=0) };
            for bit in bits.filter(|bit| *bit != 0) {
                let mut entries = whole.clone();
                entries[index] = P | PS | W | U | 1 << bit;
                push(format!("{} large", names[index].0), format!("bit {bit}"), &entries);
            }
        }
    }
    let mut table = paging.table(cells, expected);
    if paging == Paging::Pae {
        // Those of CR3's table are looked at when it is loaded, absent ones are not.
        table.stubs.push(Stub {
            bits: 32,
            code: |a| {
                a.mov(eax, TESTED)?;
                a.mov(cr3, eax)?;
                end(a)
            },
        });
        let stub = table.stubs.len() - 1;
        for present in [P, 0] {
            for bit in 1..64 {
                let mut pokes = poke(TESTED, u64::from(FRAMES + 2 * FRAME) | P).to_vec();
                pokes.extend(poke(TESTED + 8, present | 1 << bit));
                pokes.extend(poke(TESTED + 16, 0));
                pokes.extend(poke(TESTED + 24, 0));
                table.cells.push(Cell {
                    row: format!("mov cr3 PDPTE {}", bits(present)),
                    column: format!("bit {bit}"),
                    stub,
                    cs: selector::of(selector::CODE32, 0),
                    registers: [0; 4],
                    pokes,
                });
            }
        }
    }
    table
}

macro_rules! addresses {
    ($($name:ident $paging:ident $bits:literal $file:literal;)*) => {
        $(pub(super) fn $name() -> Table {
            addresses(Paging::$paging, $bits, include_str!(concat!("expected/", $file, ".txt")))
        })*
    };
}
addresses! {
    addresses_32 Bits32 40 "addresses-32";
    addresses_32_36 Bits32 36 "addresses-32-36";
    addresses_pae Pae 40 "addresses-pae";
    addresses_pae_36 Pae 36 "addresses-pae-36";
    addresses_64 FourLevels 40 "addresses-64";
    addresses_64_36 FourLevels 36 "addresses-64-36";
    addresses_64_52 FourLevels 52 "addresses-64-52";
    addresses_57 FiveLevels 40 "addresses-57";
}

pub(super) fn rights_57() -> Table {
    rights(Paging::FiveLevels, include_str!("expected/rights-57.txt"))
}

pub(super) fn levels_57() -> Table {
    levels(Paging::FiveLevels, include_str!("expected/levels-57.txt"))
}

pub(super) fn rights_32() -> Table {
    rights(Paging::Bits32, include_str!("expected/rights-32.txt"))
}

pub(super) fn rights_pae() -> Table {
    rights(Paging::Pae, include_str!("expected/rights-pae.txt"))
}

pub(super) fn rights_64() -> Table {
    rights(Paging::FourLevels, include_str!("expected/rights-64.txt"))
}

pub(super) fn levels_32() -> Table {
    levels(Paging::Bits32, include_str!("expected/levels-32.txt"))
}

pub(super) fn levels_pae() -> Table {
    levels(Paging::Pae, include_str!("expected/levels-pae.txt"))
}

pub(super) fn levels_64() -> Table {
    levels(Paging::FourLevels, include_str!("expected/levels-64.txt"))
}
