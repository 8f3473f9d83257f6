//! Tables of what protection makes of each combination of descriptors, levels and pages: one cell, one outcome.
//!
//! A table lists its cells in Rust: what each pokes into the system structures, the code that it runs ([`Stub`]), at
//! which level, with which registers. The guest ([`driver`]) goes through them: it puts everything back to
//! the beginning, pokes, enters the code by IRET, and notes how that ended. Code that has done its work says so by INT 0x80;
//! everything else is an exception. Of what is noted, a table compares some words ([`Word`]) with those that are
//! expected ([`expected`]); the first cell that differs is the case number that is reported, all are printed.
//!
//! With `list` on its command line, the guest prints every cell's words instead. So the same file, run by QEMU and
//! Bochs, makes the expected outcomes: the example `tables` compares listings and writes them.
//!
//! Memory of a guest: [`at`]. The lowest memory is mapped as it is, by large pages in 64-bit mode.

mod canonical;
mod driver;
mod expected;
mod fast;
mod gates;
mod iopl;
mod paging;
mod report;
mod segments;
mod tasks;
mod tasks16;
mod v86;

use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, esp};

use super::image;
use crate::{Cases, Define, Kind, Rom};

/// Where things are.
mod at {
    /// Code for landings, where 16-bit gates reach it: INT 0x80 alone, and with the stack pointer in EAX.
    pub(super) const LANDING: u32 = 0x8000;
    /// Variables of the driver.
    pub(super) const VARIABLES: u32 = 0x1_f000;
    /// What is put back for each cell: control registers, an operand, tables.
    pub(super) const LIVE: u32 = 0x2_0000;
    pub(super) const CR0: u32 = LIVE;
    pub(super) const CR3: u32 = LIVE + 4;
    pub(super) const CR4: u32 = LIVE + 8;
    /// Operand of far JMP and CALL.
    pub(super) const POINTER: u32 = LIVE + 0x10;
    /// Values of the table's MSRs, eight bytes each.
    pub(super) const MSRS: u32 = LIVE + 0x20;
    /// What [`enter`](super::enter) returns to.
    pub(super) const FRAME: u32 = LIVE + 0x80;
    pub(super) const GDT: u32 = LIVE + 0x100;
    pub(super) const TSS: u32 = LIVE + 0x300;
    pub(super) const IDT: u32 = LIVE + 0x600;
    /// Stacks: of each level, for its code; of levels 0 to 2, for gates. Each ends at such an address.
    pub(super) const STACKS: u32 = 0x7_1000;
    pub(super) const INNER_STACKS: u32 = 0x7_8000;
    pub(super) const DRIVER_STACK: u32 = 0x7_f000;
    pub(super) const STACK: u32 = 0x1000;
    /// The image: header and entry, loop, entries of exceptions, what follows them, stubs, a copy of what is at
    /// [`LIVE`], and the table.
    pub(super) const IMAGE: u32 = 0x10_0000;
    pub(super) const LOOP: u32 = 0x10_1000;
    pub(super) const ENTRIES: u32 = 0x10_2000;
    pub(super) const TRAP: u32 = 0x10_3000;
    pub(super) const STUBS: u32 = 0x10_5000;
    pub(super) const PRISTINE: u32 = 0x10_8000;
    pub(super) const TABLE: u32 = 0x10_c000;
    /// Page tables of 64-bit mode.
    pub(super) const PAGES: u32 = 0x8_0000;

    /// Where a level's own stack begins.
    pub(super) const fn stack(level: u8) -> u32 {
        STACKS + STACK * level as u32
    }

    /// Where the stack for calls from outside to a level begins.
    pub(super) const fn inner_stack(level: u8) -> u32 {
        INNER_STACKS + STACK * level as u32
    }
}

/// The second landing.
const LANDING_STACK: u32 = at::LANDING + 0x10;

/// Bytes that a stub may take.
const STUB: u32 = 64;

/// Selectors, without RPL.
mod selector {
    pub(super) const CODE32: u16 = 0x18;
    pub(super) const DATA: u16 = 0x38;
    pub(super) const CODE64: u16 = 0x58;
    pub(super) const TSS: u16 = 0x78;
    /// Places for what is tested, each with room for 16 bytes.
    pub(super) const A: u16 = 0x88;
    pub(super) const B: u16 = 0x98;
    pub(super) const C: u16 = 0xa8;
    /// The last place of the table.
    pub(super) const LIMIT: u16 = 0xff;

    /// The selector of a row of four, one for each level.
    pub(super) const fn of(first: u16, level: u8) -> u16 {
        first + 8 * level as u16 | level as u16
    }
}

/// The address of a selector's descriptor.
const fn descriptor(selector: u16) -> u32 {
    at::GDT + (selector & !7) as u32
}

/// The mode of driver and stubs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Protected mode, 32 bits, no paging unless a cell switches it on.
    Protected,
    /// IA-32e mode; a cell's code segment says whether its code is 64-bit code.
    Long,
    /// The same with five levels of paging.
    Long5,
}

impl Mode {
    fn bits(self) -> u32 {
        if self.long() { 64 } else { 32 }
    }

    fn long(self) -> bool {
        self != Mode::Protected
    }
}

/// What is noted of how a cell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Word {
    /// Vector of the exception, 0x80 if there was none.
    Vector,
    /// Its error code.
    Error,
    /// Where: in the stub, as an offset; else the address.
    Ip,
    /// CS there.
    Cs,
    /// ZF, IF and NT.
    Flags,
    /// All flags.
    Eflags,
    Eax,
    Ecx,
    /// SS there.
    Ss,
    /// ES << 16 | DS.
    Data,
    /// GS << 16 | FS.
    Extra,
    Ldtr,
    Tr,
    /// What has changed in the words that the table watches.
    Watch0,
    Watch1,
    Watch2,
    Watch3,
    Watch4,
    Watch5,
    Watch6,
    Watch7,
    Cr2,
    Cr0,
    /// What lies on the stack where the second landing was reached.
    Stack0,
    Stack1,
    Stack2,
    Stack3,
    Stack4,
    Stack5,
}

impl Word {
    const COUNT: u32 = Word::Stack5 as u32 + 1;
}

/// Code that a cell runs, at most [`STUB`] bytes; it ends with INT 0x80.
struct Stub {
    bits: u32,
    code: fn(&mut CodeAssembler) -> Result<(), IcedError>,
}

/// The stub that enters the code of a cell with flags, or a mode, that the driver does not give: it returns to what is at
/// [`at::FRAME`].
fn enter(bits: u32) -> Stub {
    Stub {
        bits,
        code: |a| {
            a.mov(esp, at::FRAME)?;
            if a.bitness() == 64 { a.iretq() } else { a.iretd() }
        },
    }
}

/// Ends a stub.
fn end(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.int(driver::DONE)
}

/// One combination.
struct Cell {
    /// What the row has in common, and what distinguishes the cell.
    row: String,
    column: String,
    /// Index of the stub.
    stub: usize,
    cs: u16,
    /// EAX, EBX, ECX, EDX when the stub begins.
    registers: [u32; 4],
    /// Words that are written before: address, value.
    pokes: Vec<(u32, u32)>,
}

impl Cell {
    fn level(&self) -> u8 {
        self.cs as u8 & 3
    }
}

/// The pokes for eight bytes.
fn poke(at: u32, value: u64) -> [(u32, u32); 2] {
    [(at, value as u32), (at + 4, (value >> 32) as u32)]
}

/// A ROM's table.
pub(crate) struct Table {
    mode: Mode,
    stubs: Vec<Stub>,
    /// Words that are there when each cell begins, besides what the driver needs.
    live: Vec<(u32, u32)>,
    /// Pages that the image has for the table, from [`at::TABLE`] on: paging structures.
    frames: Vec<u8>,
    /// Where the code of level 3 is seen.
    user_stubs: u32,
    /// MSRs that each cell begins with, at [`at::MSRS`].
    msrs: &'static [u32],
    /// Addresses of words whose changes are noted, at most 8.
    watch: Vec<u32>,
    /// What is compared.
    words: &'static [Word],
    cells: Vec<Cell>,
    /// The expected outcomes, as [`expected`] writes them.
    expected: &'static str,
}

impl Table {
    fn name(&self, cell: &Cell) -> String {
        format!("{}: {}", cell.row, cell.column)
    }

    /// The file, and the names of the cells.
    ///
    /// # Panics
    /// When the guest was assembled wrongly, or its expected outcomes do not fit it: a bug in its source.
    pub(crate) fn assemble(&self) -> (Vec<u8>, Vec<Cases>) {
        let outcomes = expected::parse(self.expected, &self.cells, self.words.len());
        let file = self.file(&outcomes);
        let file = file.unwrap_or_else(|error| panic!("the guest's source is wrong: {error}"));
        let names = (1..).zip(&self.cells).map(|(first, cell)| Cases {
            first,
            count: 1,
            name: self.name(cell),
        });
        (file, names.collect())
    }

    fn file(&self, outcomes: &expected::Outcomes) -> Result<Vec<u8>, IcedError> {
        // Frames, the index of each cell's outcome, the outcomes, the cells.
        let indices = at::TABLE + self.frames.len() as u32;
        let mut table: Vec<u8> =
            outcomes.cells.iter().flat_map(|&index| index.to_le_bytes()).collect();
        table.resize(table.len().next_multiple_of(4), 0);
        let known = indices + table.len() as u32;
        table.extend(outcomes.known.iter().flatten().flat_map(|word| word.to_le_bytes()));
        let cells = indices + table.len() as u32;
        for cell in &self.cells {
            table.extend(self.record(cell).into_iter().flat_map(u32::to_le_bytes));
        }
        let driver = driver::Driver { table: self, indices, known, cells };
        let mut bytes = image::multiboot_header();
        bytes.extend(driver.entry(at::IMAGE + image::HEADER as u32)?);
        let mut place = |at: u32, part: Vec<u8>| {
            let from = (at - at::IMAGE) as usize;
            assert!(bytes.len() <= from, "the part before {at:#x} is too long");
            bytes.resize(from, 0xf4);
            bytes.extend(part);
        };
        place(at::LOOP, driver.main_loop()?);
        place(at::ENTRIES, driver.entries()?);
        place(at::TRAP, driver.trap()?);
        for (at, stub) in (at::STUBS..).step_by(STUB as usize).zip(&self.stubs) {
            let mut a = CodeAssembler::new(stub.bits)?;
            (stub.code)(&mut a)?;
            let code = a.assemble(at.into())?;
            assert!(code.len() <= STUB as usize, "a stub is too long");
            place(at, code);
        }
        place(at::PRISTINE, driver.pristine());
        place(at::TABLE, [&self.frames[..], &table].concat());
        Ok(image::write(at::IMAGE + image::HEADER as u32, at::IMAGE, &bytes))
    }

    /// A cell as the driver reads it.
    fn record(&self, cell: &Cell) -> Vec<u32> {
        let level = cell.level();
        let stubs = if level == 3 { self.user_stubs } else { at::STUBS };
        let stub = stubs + STUB * cell.stub as u32;
        let mut words = vec![cell.pokes.len() as u32, stub, cell.cs.into()];
        words.extend([selector::of(selector::DATA, level).into(), at::stack(level)]);
        words.extend(cell.registers);
        words.extend(cell.pokes.iter().flat_map(|&(at, value)| [at, value]));
        words
    }
}

const fn table(name: &'static str, title: &'static str, insns: u64, define: fn() -> Table) -> Rom {
    Rom {
        name,
        title,
        kind: Kind::Conformance,
        harts: 1,
        cpu: None,
        expected: crate::Expected::Pass,
        operations: None,
        insns_estimate: insns,
        // What each cell is on QEMU, `tests/tables.rs` compares.
        verified: &[],
        define: Define::X86Table(define),
    }
}

/// A table of a processor that is not the usual one.
const fn table_of(
    cpu: &'static str,
    name: &'static str,
    title: &'static str,
    insns: u64,
    define: fn() -> Table,
) -> Rom {
    Rom { cpu: Some(cpu), ..table(name, title, insns, define) }
}

const INTEL: &str = "x86-64-v3,vendor=intel";
const BITS36: &str = "x86-64-v3,phys-bits=36";
const BITS52: &str = "x86-64-v3,phys-bits=52";
const AMD: &str = "x86-64-v3,vendor=amd";

/// The tables.
#[rustfmt::skip] // one row per ROM
pub(crate) static ROMS: &[Rom] = &[
    table("x86/loads-32", "each type of descriptor x P x DPL x CPL x RPL: loads of DS, ES, FS, GS, SS", 20_000_000, segments::loads_32),
    table("x86/looks-32", "each type of descriptor x P x DPL x CPL x RPL: LAR, LSL, VERR, VERW, LLDT, LTR", 25_000_000, segments::looks_32),
    table("x86/transfers-32", "each type of descriptor x P x DPL x CPL x RPL: far JMP, CALL, RET, IRET", 17_000_000, segments::transfers_32),
    table("x86/selectors-32", "selectors that are null, beyond a table, in no LDT", 6_000_000, segments::selectors_32),
    table("x86/loads-64", "as x86/loads-32, in 64-bit mode", 20_000_000, segments::loads_64),
    table("x86/looks-64", "as x86/looks-32, in 64-bit mode", 25_000_000, segments::looks_64),
    table("x86/jumps-64", "far JMP and CALL in 64-bit mode: types x L x D x P x DPL x CPL x RPL", 15_000_000, segments::jumps_64),
    table("x86/returns-64", "far RET and IRET in 64-bit mode: types x L x D x P x DPL x CPL x RPL", 15_000_000, segments::returns_64),
    table("x86/selectors-64", "as x86/selectors-32, in 64-bit mode", 6_000_000, segments::selectors_64),
    table("x86/halves-64", "16-byte descriptors: what their upper halves must be", 8_000_000, segments::halves_64),
    table("x86/transfers-compatibility", "far JMP, CALL, RET, IRET in compatibility mode: types x L x D x P x DPL x CPL x RPL", 30_000_000, segments::transfers_compatibility),
    table("x86/selectors-compatibility", "as x86/selectors-32, in compatibility mode", 6_000_000, segments::selectors_compatibility),
    table("x86/calls-32", "call gates: type x P x DPL x CPL x RPL x code of each level; what is pushed", 15_000_000, gates::calls_32),
    table("x86/calls-64", "as x86/calls-32, in 64-bit mode", 15_000_000, gates::calls_64),
    table("x86/interrupts-32", "INT n, INT3, INT1, exceptions: gates of each type x P x DPL x CPL x code of each level", 20_000_000, gates::interrupts_32),
    table("x86/interrupts-64", "as x86/interrupts-32, in 64-bit mode; IST", 20_000_000, gates::interrupts_64),
    table("x86/stacks-32", "stacks of inner levels: each type x P x DPL x RPL, by call and interrupt gates", 8_000_000, gates::stacks_32),
    table("x86/switches-32", "task switches by JMP, CALL, INT, exceptions, IRET, gates: type of the TSS x P x limit x DPL x CPL x RPL", 20_000_000, tasks::switches),
    table("x86/tasks-32", "what a new task's TSS names: each selector x type x P x DPL x RPL", 20_000_000, tasks::contents),
    table("x86/rights-32", "rights in 32-bit paging: PDE x PTE x read, write, fetch x level x WP, SMEP, SMAP, AC", 5_000_000, paging::rights_32),
    table("x86/rights-pae", "as x86/rights-32, PAE paging, with NX", 5_000_000, paging::rights_pae),
    table("x86/rights-64", "as x86/rights-32, four levels, with NX", 5_000_000, paging::rights_64),
    table("x86/levels-32", "each bit of each level, large pages: 32-bit paging", 5_000_000, paging::levels_32),
    table("x86/levels-pae", "as x86/levels-32, PAE paging", 5_000_000, paging::levels_pae),
    table("x86/levels-64", "as x86/levels-32, four levels", 5_000_000, paging::levels_64),
    table("x86/v86-instructions", "virtual-8086 mode: instructions x IOPL x VIF x VIP x VME; what POPF and IRET pop", 10_000_000, v86::instructions),
    table("x86/v86-interrupts", "virtual-8086 mode: gates of each type x P x DPL x IOPL x code of each level; the bitmap of redirection", 10_000_000, v86::interrupts),
    table("x86/iopl-32", "CLI, STI, PUSHF, POPF, IRET: CPL x IOPL x VIF x VIP x PVI x flags popped", 10_000_000, iopl::flags_32),
    table("x86/iopl-64", "as x86/iopl-32, in 64-bit mode", 10_000_000, iopl::flags_64),
    table("x86/ports-32", "I/O ports: each width x bits of the map x its end at the limit of the TSS x CPL x IOPL", 10_000_000, iopl::ports_32),
    table("x86/ports-v86", "as x86/ports-32, in virtual-8086 mode", 10_000_000, iopl::ports_v86),
    table("x86/ports-64", "as x86/ports-32, in 64-bit mode", 10_000_000, iopl::ports_64),
    table("x86/switches-16", "task switches to, from and between TSSs of 16 bits: P x busy x limits x flags x DPL x CPL", 10_000_000, tasks16::switches),
    table("x86/tasks-16", "what a new task's TSS of 16 bits names: each selector x type x P x DPL x RPL", 10_000_000, tasks16::contents),
    table("x86/stacks-16", "stacks of inner levels in a TSS of 16 bits: its limit, what they name, by gates of 16 and 32 bits", 5_000_000, tasks16::inner_stacks),
    table_of(INTEL, "x86/fast-32", "SYSCALL, SYSRET, SYSENTER, SYSEXIT: CPL x SCE x selectors x masks x flags; Intel's processors", 5_000_000, fast::intel_32),
    table_of(INTEL, "x86/fast-compatibility", "as x86/fast-32, in compatibility mode", 5_000_000, fast::intel_compatibility),
    table_of(INTEL, "x86/fast-64", "as x86/fast-32, in 64-bit mode; addresses that are not canonical", 5_000_000, fast::intel_64),
    table_of(AMD, "x86/fast-32-amd", "as x86/fast-32, AMD's processors", 5_000_000, fast::amd_32),
    table_of(AMD, "x86/fast-compatibility-amd", "as x86/fast-compatibility, AMD's processors", 5_000_000, fast::amd_compatibility),
    table_of(AMD, "x86/fast-64-amd", "as x86/fast-64, AMD's processors", 5_000_000, fast::amd_64),
    table("x86/rights-57", "as x86/rights-64, five levels: PML5E x PTE", 5_000_000, paging::rights_57),
    table("x86/levels-57", "as x86/levels-64, five levels", 5_000_000, paging::levels_57),
    table("x86/addresses-32", "reserved bits of large pages in 32-bit paging: 40 bits of physical address", 1_000_000, paging::addresses_32),
    table("x86/addresses-pae", "bits of physical address beyond 40 at each level, PAE paging", 1_000_000, paging::addresses_pae),
    table("x86/addresses-64", "as x86/addresses-pae, four levels", 1_000_000, paging::addresses_64),
    table("x86/addresses-57", "as x86/addresses-pae, five levels", 1_000_000, paging::addresses_57),
    table_of(BITS36, "x86/addresses-32-36", "as x86/addresses-32, 36 bits", 1_000_000, paging::addresses_32_36),
    table_of(BITS36, "x86/addresses-pae-36", "as x86/addresses-pae, 36 bits", 1_000_000, paging::addresses_pae_36),
    table_of(BITS36, "x86/addresses-64-36", "as x86/addresses-64, 36 bits", 1_000_000, paging::addresses_64_36),
    table_of(BITS52, "x86/addresses-64-52", "as x86/addresses-64, 52 bits", 1_000_000, paging::addresses_64_52),
    table("x86/canonical-48", "addresses at the ends of the canonical ones: each use of them", 1_000_000, canonical::with_48),
    table("x86/canonical-57", "as x86/canonical-48, five levels", 1_000_000, canonical::with_57),
    table("x86/v86-entries", "virtual-8086 mode: entered by IRET and task switches, left by task gates", 5_000_000, v86::entries),
];
