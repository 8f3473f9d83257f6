//! Virtual-8086 mode: how it is entered, what its instructions may do at each IOPL with and without its extensions, and
//! where interrupts lead (SDM vol. 3, chapter 22 "8086 emulation").

use super::gates::{self, gate};
use super::segments::present;
use super::tasks::{self, NEW, Way};
use super::{Cell, LANDING_STACK, Mode, Table, Word, at, descriptor, enter, poke, selector};

/// Segments of the task; its code begins at [`START`], an 8086 handler at [`HANDLER`]; its stack is level 3's.
const CODE: u32 = 0x900;
const STACK: u32 = (at::stack(3) >> 4) - 0x400;
const OTHERS: [u32; 4] = [0x901, 0x900, 0x902, 0x903];
const START: u32 = 0x100;
const HANDLER: u32 = 0x40;
/// Its stack pointer, and where that is: room for what IRET pops.
const SP: u32 = 0x3ff0;
const POPPED: u32 = at::stack(3) - 0x10;
/// Ends everything: UD2.
const END: [u8; 2] = [0x0f, 0x0b];
/// The vector of INT n, and INT 3 by two bytes.
const VECTOR: u32 = 0x60;
const TSS_LIMIT: u32 = 0x2ff;
/// Where the I/O permission bitmap begins in the TSS; the redirection bitmap is before it.
const IO_MAP: u32 = 0x88;

/// Flags.
const CF: u32 = 1;
const TF: u32 = 1 << 8;
const IF: u32 = 1 << 9;
const DF: u32 = 1 << 10;
const OF: u32 = 1 << 11;
const NT: u32 = 1 << 14;
const RF: u32 = 1 << 16;
const VM: u32 = 1 << 17;
const AC: u32 = 1 << 18;
const VIF: u32 = 1 << 19;
const VIP: u32 = 1 << 20;
const ID: u32 = 1 << 21;
/// CR4.
const VME: u32 = 1;
const TSD: u32 = 4;
const UMIP: u32 = 1 << 11;

const WORDS: &[Word] = &[
    Word::Vector,
    Word::Error,
    Word::Ip,
    Word::Cs,
    Word::Tr,
    Word::Watch0,
    Word::Watch1,
    Word::Watch2,
    Word::Watch3,
    Word::Watch4,
    Word::Watch5,
    Word::Watch6,
    Word::Watch7,
];

/// What an event of the task pushes on level 0's stack: EFLAGS, ESP, SS, ES, DS, GS; and what its own stack gets.
fn watch() -> Vec<u32> {
    let pushed = [7, 6, 5, 4, 3, 1].map(|index| at::inner_stack(0) - 4 * index);
    pushed.into_iter().chain([POPPED - 4, POPPED - 8]).collect()
}

fn table(cells: Vec<Cell>, expected: &'static str) -> Table {
    Table {
        mode: Mode::Protected,
        stubs: vec![enter(32)],
        live: Vec::new(),
        frames: Vec::new(),
        user_stubs: at::STUBS,
        msrs: &[],
        watch: watch(),
        words: WORDS,
        cells,
        expected,
    }
}

/// Pokes of bytes at a multiple of four.
fn bytes(at: u32, code: &[u8]) -> Vec<(u32, u32)> {
    let words = code.chunks(4).map(|part| {
        let mut word = [0; 4];
        word[..part.len()].copy_from_slice(part);
        u32::from_le_bytes(word)
    });
    (at..).step_by(4).zip(words).collect()
}

/// What IRET at level 0 takes for the task.
struct Frame {
    eip: u32,
    cs: u32,
    eflags: u32,
    esp: u32,
}

impl Frame {
    fn with(eflags: u32) -> Self {
        Frame { eip: START, cs: CODE, eflags: eflags | VM | 2, esp: SP }
    }

    fn pokes(&self) -> Vec<(u32, u32)> {
        let words = [self.eip, self.cs, self.eflags, self.esp, STACK];
        (at::FRAME..).step_by(4).zip(words.into_iter().chain(OTHERS)).collect()
    }
}

/// Pokes of the task's code, with the end behind it, and of the handler of interrupts that are the task's own.
fn program(code: &[u8]) -> Vec<(u32, u32)> {
    let mut pokes = bytes(16 * CODE + START, &[code, &END].concat());
    pokes.extend(bytes(16 * CODE + HANDLER, &END));
    for vector in [3, 4, VECTOR] {
        pokes.push((4 * vector, CODE << 16 | HANDLER));
    }
    pokes
}

/// A TSS with bitmaps: of redirection, with `own` for the vectors that the task handles itself, and of ports, all free.
fn bitmaps(own: bool) -> Vec<(u32, u32)> {
    let tss = at::TSS;
    let descriptor_of_it = u64::from(TSS_LIMIT)
        | u64::from(tss & 0xff_ffff) << 16
        | 0x89 << 40
        | u64::from(tss >> 24) << 56;
    let mut pokes = poke(descriptor(selector::TSS), descriptor_of_it).to_vec();
    pokes.push((tss + 100, IO_MAP << 16));
    let word = if own { 0 } else { u32::MAX };
    pokes.extend((0..8).map(|index| (tss + IO_MAP - 32 + 4 * index, word)));
    pokes
}

fn cell(row: String, column: String, pokes: Vec<(u32, u32)>) -> Cell {
    let cs = selector::of(selector::CODE32, 0);
    Cell { row, column, stub: 0, cs, registers: [0x5a5a, 0, 0, 0x80], pokes }
}

/// The flags that a task is entered with: IOPL, VIF, VIP.
fn flags() -> Vec<(String, u32)> {
    let mut all = Vec::new();
    for iopl in 0..4 {
        for (name, bits) in [("", 0), (" VIF", VIF), (" VIP", VIP), (" VIF VIP", VIF | VIP)] {
            all.push((format!("IOPL {iopl}{name}"), iopl << 12 | bits));
        }
    }
    all
}

/// Instructions whose right depends on IOPL and the extensions, and those that the mode does not have.
#[rustfmt::skip] // a table
const INSTRUCTIONS: &[(&str, &[u8])] = &[
    ("cli", &[0xfa]), ("sti", &[0xfb]), ("sti, cli", &[0xfb, 0xfa]),
    ("pushf", &[0x9c]), ("pushfd", &[0x66, 0x9c]),
    ("int 0x60", &[0xcd, 0x60]), ("int 3", &[0xcd, 3]), ("int3", &[0xcc]), ("int1", &[0xf1]),
    ("into", &[0xce]), ("hlt", &[0xf4]),
    ("in al, dx", &[0xec]), ("in al, 0x80", &[0xe4, 0x80]), ("out dx, al", &[0xee]), ("insb", &[0x6c]), ("outsb", &[0x6e]),
    ("retf", &[0xcb]), ("jmp 0x900:0x40", &[0xea, 0x40, 0, 0, 9]), ("call 0x900:0x40", &[0x9a, 0x40, 0, 0, 9]),
    ("mov ds, ax", &[0x8e, 0xd8]), ("mov ss, ax", &[0x8e, 0xd0]), ("pop es", &[7]), ("lds ax, [0x200]", &[0xc5, 6, 0, 2]),
    ("mov eax, cr0", &[0x0f, 0x20, 0xc0]), ("mov cr0, eax", &[0x0f, 0x22, 0xc0]), ("mov eax, dr7", &[0x0f, 0x21, 0xf8]),
    ("mov dr7, eax", &[0x0f, 0x23, 0xf8]), ("clts", &[0x0f, 6]), ("lmsw ax", &[0x0f, 1, 0xf0]), ("smsw ax", &[0x0f, 1, 0xe0]),
    ("sgdt [0x200]", &[0x0f, 1, 6, 0, 2]), ("sidt [0x200]", &[0x0f, 1, 0x0e, 0, 2]),
    ("lgdt [0x200]", &[0x0f, 1, 0x16, 0, 2]), ("lidt [0x200]", &[0x0f, 1, 0x1e, 0, 2]), ("invlpg [0]", &[0x0f, 1, 0x3e, 0, 0]),
    ("sldt ax", &[0x0f, 0, 0xc0]), ("str ax", &[0x0f, 0, 0xc8]), ("lldt ax", &[0x0f, 0, 0xd0]), ("ltr ax", &[0x0f, 0, 0xd8]),
    ("verr ax", &[0x0f, 0, 0xe0]), ("verw ax", &[0x0f, 0, 0xe8]), ("lar ax, ax", &[0x0f, 2, 0xc0]), ("lsl ax, ax", &[0x0f, 3, 0xc0]),
    ("arpl ax, ax", &[0x63, 0xc0]), ("invd", &[0x0f, 8]), ("wbinvd", &[0x0f, 9]), ("rdmsr", &[0x0f, 0x32]), ("wrmsr", &[0x0f, 0x30]),
    ("syscall", &[0x0f, 5]), ("sysret", &[0x0f, 7]), ("sysenter", &[0x0f, 0x34]), ("sysexit", &[0x0f, 0x35]), ("swapgs", &[0x0f, 1, 0xf8]),
    ("xsetbv", &[0x0f, 1, 0xd1]), ("lock cli", &[0xf0, 0xfa]), ("mov ax, [0xffff]", &[0xa1, 0xff, 0xff]),
    ("push ax at sp 1", &[0xbc, 1, 0, 0x50]),
];

/// What POPF and IRET pop.
const POPPED_FLAGS: &[(&str, u32)] = &[
    ("0", 0),
    ("CF", CF),
    ("IF", IF),
    ("TF", TF),
    ("TF IF", TF | IF),
    ("IOPL 3", 3 << 12),
    ("NT DF", NT | DF),
    ("AC ID RF", AC | ID | RF),
    ("VIF", VIF),
    ("VIP IF", VIP | IF),
    ("VM", VM),
];

/// POPF and IRET: name, code, size of an operand, whether there is an address below the flags.
const POPS: &[(&str, &[u8], u32, bool)] = &[
    ("popf", &[0x9d], 2, false),
    ("popfd", &[0x66, 0x9d], 4, false),
    ("iret", &[0xcf], 2, true),
    ("iretd", &[0x66, 0xcf], 4, true),
];

/// What [`POPS`] find on the stack.
fn popped(size: u32, address: bool, flags: u32) -> Vec<(u32, u32)> {
    let words = if address { vec![HANDLER, CODE, flags] } else { vec![flags] };
    let bytes_of = |word: &u32| word.to_le_bytes()[..size as usize].to_vec();
    bytes(POPPED, &words.iter().flat_map(bytes_of).collect::<Vec<u8>>())
}

pub(super) fn instructions() -> Table {
    let mut cells = Vec::new();
    for (extensions, cr4) in [("", 0), (" VME", VME)] {
        let mut rows: Vec<(String, Vec<(u32, u32)>, u32)> = Vec::new();
        for (name, code) in INSTRUCTIONS {
            let set = if *name == "into" { OF } else { 0 };
            let mut pokes = program(code);
            // Far RET finds the handler.
            pokes.extend(popped(2, true, 0));
            rows.push(((*name).into(), pokes, set));
        }
        for (name, code, size, address) in POPS {
            for (flags, bits) in POPPED_FLAGS {
                let mut pokes = program(code);
                pokes.extend(popped(*size, *address, *bits));
                rows.push((format!("{name} of {flags}"), pokes, 0));
            }
        }
        for (name, pokes, set) in rows {
            for own in [true, false] {
                if !own && !(cr4 != 0 && name.starts_with("int")) {
                    continue;
                }
                for (column, bits) in flags() {
                    let mut pokes = pokes.clone();
                    pokes.extend(Frame::with(bits | set).pokes());
                    pokes.extend(bitmaps(own));
                    pokes.push((at::CR4, cr4));
                    let map = if own { "" } else { " not redirected" };
                    cells.push(cell(format!("{name}{map}{extensions}"), column, pokes));
                }
            }
        }
    }
    // Prevented by CR4.
    #[rustfmt::skip]
    let prevented: [(&str, &[u8], u32); 6] = [
        ("rdtsc", &[0x0f, 0x31], TSD), ("sgdt [0x200]", &[0x0f, 1, 6, 0, 2], UMIP), ("sidt [0x200]", &[0x0f, 1, 0x0e, 0, 2], UMIP),
        ("smsw ax", &[0x0f, 1, 0xe0], UMIP), ("sldt ax", &[0x0f, 0, 0xc0], UMIP), ("str ax", &[0x0f, 0, 0xc8], UMIP),
    ];
    for (name, code, cr4) in prevented {
        for (column, bits) in flags() {
            let mut pokes = program(code);
            pokes.extend(Frame::with(bits).pokes());
            pokes.push((at::CR4, cr4));
            cells.push(cell(format!("{name} prevented"), column, pokes));
        }
    }
    table(cells, include_str!("expected/v86-instructions.txt"))
}

/// INT n, INT3, an exception: each type of gate to each code; the redirection bitmap at the limit of the TSS.
pub(super) fn interrupts() -> Table {
    let mut cells = Vec::new();
    let events: [(&str, &[u8], u32); 4] = [
        ("int 0x60", &[0xcd, 0x60], VECTOR),
        ("int3", &[0xcc], 3),
        ("#BR", &[0x62, 6, 0, 2], 5),
        ("#NM", &[0xd9, 0xd0], 7),
    ];
    for (name, code, vector) in events {
        for kind in 0..16u64 {
            let usable = matches!(kind, 6 | 7 | 0xe | 0xf);
            let targets = gates::targets(Mode::Protected);
            for (to, target) in &targets[..if usable { targets.len() } else { 1 }] {
                for p in [true, false] {
                    for (dpl, iopl) in (0..4u8).flat_map(|dpl| [(dpl, 0), (dpl, 2), (dpl, 3)]) {
                        let mut pokes = program(code);
                        pokes.extend(Frame::with(iopl << 12 | IF).pokes());
                        // BOUND finds AX outside; CR0.TS keeps from the x87.
                        pokes.push((16 * CODE + 0x200, 0x0001_0000));
                        pokes.push((at::CR0, 0x39));
                        let what = gate(kind, p, dpl, selector::B, 0);
                        pokes.extend(poke(at::IDT + 8 * vector, what));
                        pokes.extend(poke(descriptor(selector::B), *target));
                        let row = format!("{name} gate {kind:x} {} {to}", present(p));
                        cells.push(cell(row, format!("DPL {dpl} IOPL {iopl}"), pokes));
                    }
                }
            }
        }
    }
    // A task gate, and bitmaps that the TSS does not have.
    for (limit, map) in [
        (0x67, IO_MAP),
        (0x66, IO_MAP),
        (IO_MAP - 0x14, IO_MAP),
        (IO_MAP - 0x15, IO_MAP),
        (IO_MAP - 0x13, IO_MAP),
        (TSS_LIMIT, 0x20),
        (TSS_LIMIT, 0x1f),
        (TSS_LIMIT, 0),
        (TSS_LIMIT, 0xffff),
    ] {
        for (column, bits) in flags() {
            let mut pokes = program(&[0xcd, 0x60]);
            pokes.extend(Frame::with(bits).pokes());
            pokes.extend(bitmaps(true));
            let of_it = u64::from(limit) | u64::from(at::TSS) << 16 | 0x89 << 40;
            pokes.extend(poke(descriptor(selector::TSS), of_it));
            pokes.extend([(at::TSS + 100, map << 16), (at::CR4, VME)]);
            cells.push(cell(format!("int 0x60 limit {limit:x} map {map:x} VME"), column, pokes));
        }
    }
    table(cells, include_str!("expected/v86-interrupts.txt"))
}

/// IRET and task switches to virtual-8086 mode.
pub(super) fn entries() -> Table {
    let mut cells = Vec::new();
    let flags = [
        ("none", 0),
        ("IF", IF),
        ("TF", TF),
        ("NT", NT),
        ("RF", RF),
        ("AC ID", AC | ID),
        ("VIF VIP", VIF | VIP),
        ("reserved", 0xffc0_8028),
    ];
    let fields = |name: &str, frame: &mut Frame| match name {
        "EIP 10000" => frame.eip = 0x1_0000 + START,
        "EIP ffff" => frame.eip = 0xffff,
        "CS 19003" => frame.cs = 0x1_0900,
        "ESP 13ff0" => frame.esp = 0x1_0000 + SP,
        "ESP 0" => frame.esp = 0,
        "ESP 1" => frame.esp = 1,
        _ => {}
    };
    let names = ["", "EIP 10000", "EIP ffff", "CS 19003", "ESP 13ff0", "ESP 0", "ESP 1"];
    for name in names {
        for (column, bits) in flags {
            for iopl in [0, 3] {
                let mut frame = Frame::with(bits | iopl << 12);
                fields(name, &mut frame);
                let mut pokes = program(&[0x50]);
                pokes.extend(frame.pokes());
                cells.push(cell(
                    format!("iret at level 0 {name}"),
                    format!("{column} IOPL {iopl}"),
                    pokes,
                ));
            }
        }
    }
    // Other levels do not enter it.
    for level in 1..4 {
        for (column, bits) in flags {
            let mut frame = Frame::with(bits);
            frame.eip = at::LANDING;
            frame.cs = selector::of(selector::CODE32, level).into();
            let mut pokes = frame.pokes();
            pokes.push((at::FRAME + 16, selector::of(selector::DATA, level).into()));
            let mut cell = cell(format!("iret from level {level}"), column.into(), pokes);
            cell.cs = selector::of(selector::CODE32, level);
            cells.push(cell);
        }
    }
    let ways = tasks::ways();
    for (stub, (way_name, way, _)) in (1..).zip(&ways) {
        for name in names {
            for (column, bits) in flags {
                for iopl in [0, 3] {
                    let mut frame = Frame::with(bits | iopl << 12);
                    fields(name, &mut frame);
                    let mut pokes = program(&[0x50]);
                    pokes.extend(task(&frame));
                    pokes.extend(way.pokes(0, (true, 3)));
                    let kind = if *way == Way::Return { 0xb } else { 9 };
                    let tss = tasks::tss(kind, true, 3, 0x67);
                    pokes.extend(poke(descriptor(selector::A), tss));
                    let row = format!("{way_name} {name}");
                    let mut cell = cell(row, format!("{column} IOPL {iopl}"), pokes);
                    cell.stub = stub;
                    cells.push(cell);
                }
            }
        }
    }
    // From the mode to another task and back.
    for (name, code, vector) in
        [("int 0x60", [0xcd, 0x60].as_slice(), VECTOR), ("#NM", &[0xd9, 0xd0], 7)]
    {
        for (column, bits) in flags {
            for iopl in [0, 3] {
                let mut pokes = program(code);
                pokes.extend(Frame::with(bits & !TF | iopl << 12).pokes());
                pokes.push((at::CR0, 0x39));
                pokes.extend(tasks::task());
                pokes.push((NEW + 32, LANDING_STACK));
                pokes.extend(poke(descriptor(selector::A), tasks::tss(9, true, 3, 0x67)));
                pokes.extend(Way::Event(vector).pokes(0, (true, 3)));
                let row = format!("{name} from the mode to a task");
                cells.push(cell(row, format!("{column} IOPL {iopl}"), pokes));
            }
        }
    }
    let mut table = table(cells, include_str!("expected/v86-entries.txt"));
    table.stubs.extend(ways.into_iter().map(|(_, _, stub)| stub));
    // What a switch from the mode saves of it: EFLAGS, ESP.
    table.watch[6] = at::TSS + 36;
    table.watch[7] = at::TSS + 56;
    table
}

/// A task that IRET enters, with flags and code, in a TSS that is still to be made.
pub(super) fn task_with(code: &[u8], eflags: u32) -> Vec<(u32, u32)> {
    let mut pokes = program(code);
    pokes.extend(Frame::with(eflags).pokes());
    pokes
}

/// A TSS that holds the task.
fn task(frame: &Frame) -> Vec<(u32, u32)> {
    let mut words = tasks::task();
    words.extend([(NEW + 32, frame.eip), (NEW + 36, frame.eflags), (NEW + 56, frame.esp)]);
    let [es, ds, fs, gs] = OTHERS;
    words.extend((NEW + 72..).step_by(4).zip([es, frame.cs, STACK, ds, fs, gs]));
    words
}
