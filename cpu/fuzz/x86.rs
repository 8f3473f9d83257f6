//! A hostile x86 guest: any code, any page tables, any descriptors, gates and tasks, in every mode.
//!
//! The input is a program: each step is an opcode byte and its operands, missing operands are 0. Steps write code, data,
//! page-table entries, descriptors and gates into a few pages of memory, set registers, or run the interpreter for some
//! instructions with interrupts. Modes and segment registers are changed by instructions alone. Whatever the program
//! does, nothing panics or hangs, budgets are kept, and the processor's state stays one that the manual allows.

#[path = "../tests/x86_common/mod.rs"]
mod common;

use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use common::{PcBus, Start, cpu, interp, run};
use mimic_cpu::bus::{Width, line};
use mimic_cpu::signals::Signals;
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::interp::Interp;
use mimic_cpu::x86::model::Model;
use mimic_cpu::x86::state::{Activity, Cpu, Segment, cr0, cr4, efer, gpr, rights, sreg};

use super::reader::Program;

const PAGES: u64 = 64;
/// Page tables, five levels and more.
const TABLES: u64 = 0x1000;
const TABLE_PAGES: u64 = 7;
const GDT: u64 = 0x8000;
const IDT: u64 = 0x9000;
/// Tasks, and a local descriptor table.
const TASKS: u64 = 0xa000;
const LDT: u64 = 0xc000;
const CODE: u64 = 0x1_0000;
const STACK: u64 = 0x2_0000;
const DATA: u64 = 0x3_0000;
/// Instructions that one input may perform.
const MAX_INSNS: u64 = 4000;
/// Programs are cut here.
const MAX_STEPS: usize = 256;

/// Repeated strings may take for ever, and only their end is counted: somebody kicks.
static RUNNING: Mutex<Option<Arc<Signals>>> = Mutex::new(None);

fn start_kicker() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_millis(5));
                if let Some(signals) = &*RUNNING.lock().expect("nobody panics with it") {
                    signals.kick();
                }
            }
        });
    });
}

/// What operands mean here.
trait Operands {
    /// An offset into memory of so many pages.
    fn offset(&mut self, pages: u64) -> u64;
    /// Mostly in memory or beside its ends, sometimes anywhere.
    fn value(&mut self) -> u64;
    /// A selector: mostly of a descriptor that there may be.
    fn selector(&mut self) -> u16;
    /// The two words of a descriptor: of any type, its base on some page and its limit small or large; or any.
    fn descriptor(&mut self) -> u64;
    /// A gate of any type, to code.
    fn gate(&mut self) -> u64;
    /// A page-table entry: a page of memory and any flags, seldom the high bits.
    fn entry(&mut self) -> u64;
}

impl Operands for Program<'_> {
    fn offset(&mut self, pages: u64) -> u64 {
        (u64::from(self.u8()) << 8 | u64::from(self.u8())) % (pages * 4096)
    }

    fn value(&mut self) -> u64 {
        match self.u8() % 8 {
            0..=2 => [CODE, STACK, DATA][usize::from(self.u8() % 3)] + u64::from(self.u8()),
            3 => (u64::from(self.u8()) * 4096).wrapping_sub(u64::from(self.u8() & 15)),
            4 => self.u8() as i8 as u64,
            5 => u64::from(self.u16()),
            6 => 1 << 47,
            _ => self.u64(),
        }
    }

    fn selector(&mut self) -> u16 {
        let byte = self.u8();
        if byte == 0xff { self.u16() } else { u16::from(byte) }
    }

    fn descriptor(&mut self) -> u64 {
        let (kind, size) = (u64::from(self.u8()), u64::from(self.u8()));
        if size == 0xff {
            return self.u64();
        }
        let base = u64::from(self.u8() & 0x3f) << 12;
        let limit = u64::from(self.u16());
        // Mostly present.
        let kind = if size & 1 == 0 { kind | 0x80 } else { kind };
        base << 16 & 0xff_ffff_0000 | limit | kind << 40 | (size >> 4) << 52
    }

    fn gate(&mut self) -> u64 {
        let (kind, offset) = (u64::from(self.u8()), CODE + u64::from(self.u8()));
        let selector = u64::from(self.selector());
        (offset >> 16) << 48 | kind << 40 | selector << 16 | offset & 0xffff
    }

    fn entry(&mut self) -> u64 {
        let (page, flags) = (u64::from(self.u8()) % (PAGES + 4), u64::from(self.u16()));
        let high = if flags >> 12 == 0xf { self.u64() & !0xf_ffff_ffff } else { 0 };
        page << 12 | flags & 0xfff | high
    }
}

/// A machine while a program is carried out.
struct Machine {
    bus: Arc<PcBus>,
    interp: Interp,
    signals: Arc<Signals>,
    insns: u64,
}

/// Tables that work: a flat GDT of both levels, gates of both, two tasks; page tables that map memory as it is.
fn furnish(bus: &PcBus, cpu: &mut Cpu, long: bool) {
    let code = if long { 0x00af_9b00_0000_ffffu64 } else { 0x00cf_9b00_0000_ffff };
    let data = 0x00cf_9300_0000_ffff;
    let user = 3 << 45;
    let tss = |base: u64| base << 16 | 0x67 | 0x8900 << 32;
    let ldt = LDT << 16 | 0xff | 0x8200 << 32;
    let sixteen = 0x0000_9b00_0000_ffff;
    let all = [0, code, data, data | user, code | user, tss(TASKS), 0, tss(TASKS + 0x100), 0];
    for (slot, descriptor) in (0..).zip(all.into_iter().chain([ldt, 0, sixteen, data & !(1 << 54)]))
    {
        bus.store(GDT + 8 * slot, Width::Double, descriptor);
        bus.store(LDT + 8 * slot, Width::Double, descriptor | user);
    }
    for vector in 0..32 {
        let gate = 0xee00 << 32 | 8 << 16 | (CODE & 0xffff) | (CODE >> 16) << 48 | 0x800;
        let size = if long { 16 } else { 8 };
        bus.store(IDT + size * vector, Width::Double, gate);
        // IRET, wherever one arrives.
        bus.put(CODE + 0x800, if long { &[0x48, 0xcf] } else { &[0xcf, 0xcf] });
    }
    for task in [TASKS, TASKS + 0x100] {
        for (offset, value) in
            [(4, STACK), (8, 16), (0x20, CODE + 0x100), (0x24, 2), (0x38, STACK), (0x48, 16)]
        {
            bus.store(task + offset, Width::Word, value);
        }
        for (offset, value) in [(0x4c, 8), (0x50, 16), (0x54, 16), (0x58, 16), (0x5c, 16)] {
            bus.store(task + offset, Width::Word, value);
        }
        bus.store(task + 0x1c, Width::Word, TABLES);
    }
    (cpu.gdtr.base, cpu.gdtr.limit) = (GDT, 0xff);
    (cpu.idtr.base, cpu.idtr.limit) = (IDT, 0x1ff);
    cpu.tr = Segment { selector: 40, base: TASKS, limit: 0x67, rights: 0x8b };
    bus.store(GDT + 40, Width::Double, tss(TASKS) | 2 << 40);
}

/// Page tables of a mode, which the first byte of a program chooses.
fn tables(bus: &PcBus, cpu: &mut Cpu, mode: u8) {
    match mode % 8 {
        // Without paging.
        0..=2 => {}
        // 32-bit paging.
        3 => {
            bus.store(TABLES, Width::Word, (TABLES + 0x1000) | 7);
            for page in 0..PAGES {
                bus.store(TABLES + 0x1000 + 4 * page, Width::Word, page << 12 | 7);
            }
            cpu.cr4 |= cr4::PSE;
            cpu.cr0 |= cr0::PG;
        }
        // PAE paging.
        4 => {
            bus.store(TABLES, Width::Double, (TABLES + 0x1000) | 1);
            bus.store(TABLES + 0x1000, Width::Double, (TABLES + 0x2000) | 7);
            for page in 0..PAGES {
                bus.store(TABLES + 0x2000 + 8 * page, Width::Double, page << 12 | 7);
            }
            cpu.pdpte[0] = (TABLES + 0x1000) | 1;
            cpu.cr4 |= cr4::PAE;
            cpu.cr0 |= cr0::PG;
        }
        // Four or five levels.
        levels => {
            let levels = if levels == 7 { 5 } else { 4 };
            for level in 0..levels - 1 {
                let at = TABLES + 0x1000 * level;
                bus.store(at, Width::Double, (at + 0x1000) | 7);
            }
            for page in 0..PAGES {
                let at = TABLES + 0x1000 * (levels - 1) + 8 * page;
                bus.store(at, Width::Double, page << 12 | 7);
            }
            if levels == 5 {
                cpu.cr4 |= cr4::LA57;
            }
        }
    }
    cpu.cr3 = TABLES;
}

impl Machine {
    fn new(mode: u8) -> Self {
        let bus = PcBus::new(PAGES as usize);
        let start = match mode % 8 {
            0 | 1 => Start::Real,
            2..=4 => Start::Protected32,
            _ => Start::Long,
        };
        let mut cpu = cpu(&bus, start, CODE, Model::v3());
        if start == Start::Real {
            (cpu.rip, cpu.seg[usize::from(sreg::CS)]) =
                (0, Segment::real((CODE >> 4) as u16, true));
            // Handlers: IRET.
            (0..32).for_each(|vector| bus.store(4 * vector, Width::Word, CODE << 12 | 0x800));
        }
        furnish(&bus, &mut cpu, start == Start::Long);
        if start == Start::Real {
            (cpu.idtr.base, cpu.idtr.limit) = (0, 0x3ff);
        }
        tables(&bus, &mut cpu, mode);
        cpu.gpr = [DATA; 16];
        cpu.gpr[usize::from(gpr::RSP)] = STACK;
        cpu.cr4 |= cr4::OSFXSR | cr4::OSXSAVE;
        cpu.xcr0 = 7;
        let (interp, signals) = interp(cpu, &bus);
        Machine { bus, interp, signals, insns: 0 }
    }

    fn change(&mut self, change: impl FnOnce(&mut Cpu)) {
        let mut cpu = self.interp.cpu();
        change(&mut cpu);
        self.interp.load(cpu);
    }

    /// Puts code where the processor is, as far as that is in memory.
    fn put_code(&mut self, bytes: &[u8]) {
        let cpu = self.interp.cpu();
        let Some(gpa) = cpu.peek(&*self.bus, cpu.linear_rip()) else { return };
        if gpa + (bytes.len() as u64) < PAGES * 4096 {
            self.bus.put(gpa, bytes);
            self.interp.load(cpu);
        }
    }

    /// An instruction that loads descriptors, transfers control, or changes a mode, with its operand in EAX or behind
    /// it.
    fn system_instruction(&mut self, program: &mut Program<'_>) {
        let (what, selector, value) = (program.u8(), program.selector(), program.value());
        self.change(|cpu| cpu.gpr[0] = if what & 0x80 == 0 { selector.into() } else { value });
        let [low, high] = selector.to_le_bytes();
        let far = |opcode| [opcode, value as u8, 0, 1, 0, low, high];
        let code: &[u8] = match what % 32 {
            n @ 0..=5 => &[0x8e, 0xc0 | n << 3],
            6 => &[0x0f, 0x00, 0xd8],
            7 => &[0x0f, 0x00, 0xd0],
            8 => &far(0x9a),
            9 => &far(0xea),
            10 => &[0xcd, low],
            11 => &[0xcf],
            12 => &[0x48, 0xcf],
            13 => &[0xcb],
            14 => &[0x66, 0xcf],
            15 => &[0x0f, 0x22, 0xc0],
            16 => &[0x0f, 0x22, 0xd8],
            17 => &[0x0f, 0x22, 0xe0],
            18 => &[0x0f, 0x05],
            19 => &[0x48, 0x0f, 0x07],
            20 => &[0x0f, 0x34],
            21 => &[0x0f, 0x35],
            22 => &[0x0f, 0x00, 0xe0],
            23 => &[0x0f, 0x02, 0xd0],
            24 => &[0x0f, 0x03, 0xd0],
            25 => &[0x9d],
            26 => &[0x0f, 0xb2, 0x20],
            27 => &[0xff, 0x28],
            28 => &[0xff, 0x18],
            29 => &[0x0f, 0x01, 0x10],
            30 => &[0x0f, 0x01, 0x18],
            _ => &[0x0f, 0x30],
        };
        self.put_code(code);
        self.run(4);
    }

    fn run(&mut self, insns: u64) {
        let insns = insns.min(MAX_INSNS - self.insns);
        let before = self.interp.retired();
        *RUNNING.lock().expect("nobody panics with it") = Some(Arc::clone(&self.signals));
        let _exit = run(&mut self.interp, insns);
        *RUNNING.lock().expect("nobody panics with it") = None;
        let retired = self.interp.retired() - before;
        assert!(retired <= insns, "{retired} instructions of {insns}");
        // A look counts, too: so every program ends.
        self.insns += retired.max(1);
        check(&self.interp.cpu());
        if matches!(self.interp.cpu().activity, Activity::Shutdown | Activity::WaitForStartup) {
            self.change(|cpu| cpu.activity = Activity::Running);
        }
    }
}

/// What always holds (SDM vol. 3, 3 and 5.1; vol. 1, 3.4.3).
fn check(cpu: &Cpu) {
    let (pe, pg) = (cpu.cr0 & cr0::PE != 0, cpu.cr0 & cr0::PG != 0);
    let (lme, lma) = (cpu.efer & efer::LME != 0, cpu.efer & efer::LMA != 0);
    assert!(pe || !pg, "paging without protection");
    assert_eq!(lma, lme && pg, "IA-32e mode");
    assert!(!lma || cpu.cr4 & cr4::PAE != 0, "IA-32e mode without PAE");
    assert!(cpu.cpl <= 3 && (pe || cpu.cpl == 0), "level {}", cpu.cpl);
    assert_eq!(cpu.rflags & (bit::FIXED | 1 << 3 | 1 << 5 | 1 << 15 | !0x3f_ffff), bit::FIXED);
    let vm = cpu.rflags & bit::VM != 0;
    assert!(!vm || pe && !lma && cpu.cpl == 3, "virtual-8086 mode");
    let cs = &cpu.seg[usize::from(sreg::CS)];
    if pe && !vm && lma {
        assert!(!(cs.has(rights::L) && cs.has(rights::DB)), "code of 64 and 32 bits");
    }
    if !lma {
        assert!(cpu.rip >> 32 == 0, "rip {:#x} outside IA-32e mode", cpu.rip);
    }
}

/// Carries out the program that the input is.
pub(crate) fn run_input(data: &[u8]) {
    start_kicker();
    let mut program = Program(data);
    let mut machine = Machine::new(program.u8());
    for _ in 0..MAX_STEPS {
        if program.0.is_empty() || machine.insns >= MAX_INSNS {
            break;
        }
        step(&mut machine, &mut program);
    }
}

fn step(machine: &mut Machine, program: &mut Program<'_>) {
    let bus = Arc::clone(&machine.bus);
    match program.u8() % 16 {
        0 => {
            let at = TABLES + (program.offset(TABLE_PAGES) & !7);
            bus.store(at, Width::Double, program.entry());
        }
        1 => {
            // Of the first entries, which code, stack and data need.
            let (table, index) = (u64::from(program.u8()) % TABLE_PAGES, u64::from(program.u8()));
            bus.store(TABLES + 0x1000 * table + 8 * (index % 80), Width::Double, program.entry());
        }
        2 => {
            let slot = u64::from(program.u8() & 31);
            bus.store(GDT + 8 * slot, Width::Double, program.descriptor());
        }
        3 => {
            let slot = u64::from(program.u8() & 31);
            bus.store(LDT + 8 * slot, Width::Double, program.descriptor());
        }
        4 => {
            let slot = u64::from(program.u8() & 63);
            bus.store(IDT + 8 * slot, Width::Double, program.gate());
        }
        5 => {
            // Gates are in the GDT, too.
            let slot = u64::from(program.u8() & 31);
            bus.store(GDT + 8 * slot, Width::Double, program.gate());
        }
        6 => {
            let at = TASKS + (u64::from(program.u16()) & 0x1fc);
            let value = program.value();
            bus.store(at, Width::Word, value);
        }
        7 => {
            let bytes = program.bytes();
            machine.put_code(&bytes);
            let insns = u64::from(program.u8() & 63);
            machine.run(insns + 1);
        }
        8 => {
            let (at, bytes) = (program.offset(PAGES - 1), program.bytes());
            bus.put(at, &bytes);
            // What is written behind the processor's back counts from now on.
            machine.change(|_| {});
        }
        9 => {
            let (number, value) = (program.u8() & 15, program.value());
            machine.change(|cpu| cpu.gpr[usize::from(number)] = value);
        }
        10 => {
            let set = u64::from(program.u32());
            let allowed =
                bit::ARITH | bit::TF | bit::IF | bit::DF | bit::IOPL | bit::NT | bit::RF | bit::AC;
            machine.change(|cpu| cpu.rflags = cpu.rflags & !allowed | set & allowed);
        }
        11 => {
            let at = CODE + u64::from(program.u16() & 0xfff);
            machine.change(|cpu| cpu.rip = at.wrapping_sub(cpu.code_base()) & 0xffff_ffff);
        }
        12 => {
            *bus.vector.lock().expect("no panic before") = Some(program.u8());
            machine.signals.set_lines(line::INTR, true);
            machine.run(3);
            machine.signals.set_lines(line::INTR, false);
        }
        13 => {
            machine.signals.set_lines(line::NMI, true);
            machine.run(2);
        }
        _ => machine.system_instruction(program),
    }
}
