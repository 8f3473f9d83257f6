//! A hostile guest: any state of the hart, any code, any page tables.
//!
//! The input is a program: each step is an opcode byte and its operands, missing operands are 0. Steps
//! set registers and CSRs, write code, data and page-table entries into a few pages of memory, and run
//! the interpreter for some instructions with interrupt lines up or down. Whatever the program does,
//! nothing panics or hangs, budgets are kept, and the hart's state stays one that the manual allows.

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;

use common::{DEVICE, RAM, TestBus, open_hart};
use mimic_cpu::bus::{CpuBus as _, PAGE_SIZE, Request, Width};
use mimic_cpu::riscv::csr::fields::{MEDELEG, envcfg, irq, mstatus};
use mimic_cpu::riscv::hart::{Hart, Mode};
use mimic_cpu::riscv::interp::Interp;
use mimic_cpu::run::{Budget, Exit};
use mimic_cpu::signals::Signals;

use super::reader::Program;

const RAM_PAGES: u64 = 8;
/// Page tables of five levels lie in the last pages of RAM.
const TABLES: u64 = RAM + 3 * PAGE_SIZE;
const ROM: u64 = RAM + RAM_PAGES * PAGE_SIZE;
/// Instructions that one input may perform.
const MAX_INSNS: u64 = 4000;
/// Programs are cut here.
const MAX_STEPS: usize = 256;

/// What operands mean here.
trait Operands {
    /// An offset into memory.
    fn offset(&mut self) -> u64;
    /// Mostly in memory or beside its ends, sometimes anywhere.
    fn value(&mut self) -> u64;
}

impl Operands for Program<'_> {
    fn offset(&mut self) -> u64 {
        u64::from(self.u16()) % ((RAM_PAGES + 1) * PAGE_SIZE)
    }

    fn value(&mut self) -> u64 {
        match self.u8() % 8 {
            0..=3 => RAM + self.offset(),
            4 => (RAM + u64::from(self.u8()) * PAGE_SIZE).wrapping_sub(u64::from(self.u8())),
            5 => DEVICE,
            6 => self.u8() as i8 as u64,
            _ => self.u64(),
        }
    }
}

/// The machine while a program is carried out.
struct Machine {
    bus: Arc<TestBus>,
    /// The hart while it stands, or the interpreter that runs it.
    hart: Result<Box<Hart>, Interp>,
    signals: Arc<Signals>,
    insns: u64,
}

impl Machine {
    fn new() -> Self {
        let bus = TestBus::new(RAM_PAGES as usize, 1);
        // A handler that goes on behind the instruction that trapped: csrr t6, mepc; addi t6, t6, 4;
        // csrw mepc, t6; mret. The same for S-mode.
        bus.put_words(ROM, &[0x3410_2ff3, 0x004f_8f93, 0x341f_9073, 0x3020_0073]);
        bus.put_words(ROM + 0x100, &[0x1410_2ff3, 0x004f_8f93, 0x141f_9073, 0x1020_0073]);
        let mut hart = open_hart(RAM);
        (hart.mtvec, hart.stvec) = (ROM, ROM + 0x100);
        // Registers point everywhere.
        hart.x = std::array::from_fn(|r| match r {
            0 => 0,
            1..=7 => RAM + r as u64 * PAGE_SIZE - 4,
            8 => ROM,
            9 => DEVICE,
            _ => RAM + PAGE_SIZE + 8 * r as u64,
        });
        let signals = Arc::new(Signals::default());
        *bus.drives.lock().expect("no panic before") = Some(Arc::clone(&signals));
        Machine { bus, hart: Ok(Box::new(hart)), signals, insns: 0 }
    }

    /// Changes the hart between two runs, as a debugger or a snapshot may.
    fn change(&mut self, change: impl FnOnce(&mut Hart)) {
        let mut hart = match &self.hart {
            Ok(hart) => hart.clone(),
            Err(interp) => Box::new(interp.hart()),
        };
        change(&mut hart);
        self.hart = Ok(hart);
    }

    fn interp(&mut self) -> &mut Interp {
        if let Ok(hart) = &self.hart {
            let interp = Interp::new(
                (**hart).clone(),
                Arc::clone(&self.bus) as _,
                Arc::clone(&self.signals),
            );
            assert_eq!(interp.hart(), **hart, "the state comes back as it went in");
            self.hart = Err(interp);
        }
        match &mut self.hart {
            Err(interp) => interp,
            Ok(_) => unreachable!("just replaced"),
        }
    }

    fn run(&mut self, insns: u64) {
        let insns = insns.min(MAX_INSNS - self.insns);
        let interp = self.interp();
        let before = interp.retired();
        let exit = interp.run(Budget { insns: Some(insns) });
        let hart = interp.hart();
        let done = hart.retired - before;
        self.insns += done;
        match exit {
            Exit::Budget => assert_eq!(done, insns),
            Exit::Halted => assert!(hart.waiting && done <= insns),
            Exit::Debug(event) => panic!("nobody debugs the hart: {event:?}"),
            Exit::Dead(text) => {
                assert!(!text.is_empty() && done <= insns);
                self.insns = MAX_INSNS;
            }
        }
        assert!(self.bus.requests.lock().expect("no panic before").is_empty());
        legal(&hart);
    }

    fn kick(&mut self) {
        self.signals.kick();
        let interp = self.interp();
        let before = interp.hart();
        interp.run(Budget { insns: None });
        assert_eq!(interp.hart(), before, "a kicked hart returns at once");
    }

    fn ask(&mut self, request: Request) {
        self.bus.requests.lock().expect("no panic before").push(request);
        self.signals.call_attention();
    }
}

/// What the manual promises of the registers at any time.
fn legal(hart: &Hart) {
    assert_eq!(hart.x[0], 0);
    assert_eq!(hart.pc & 1, 0);
    assert_eq!((hart.mepc | hart.sepc) & 1, 0);
    assert_eq!((hart.mtvec | hart.stvec) & 2, 0);
    assert!(hart.fflags < 32 && hart.frm < 8);
    assert!(Mode::from_bits(hart.mstatus >> mstatus::MPP_SHIFT & 3).is_some());
    assert_eq!(hart.mstatus & !mstatus::WRITABLE, mstatus::XLEN_64);
    assert_eq!(hart.medeleg & !MEDELEG, 0);
    assert_eq!(hart.mideleg & !irq::SUPERVISOR, 0);
    assert_eq!((hart.mie | hart.mip) & !irq::ALL, 0);
    assert_eq!(hart.menvcfg & !envcfg::MENVCFG, 0);
    assert_eq!(hart.senvcfg & !envcfg::SENVCFG, 0);
    assert!(matches!(hart.satp >> 60, 0 | 8 | 9 | 10));
}

/// Carries out the program in `data`.
pub(crate) fn run(data: &[u8]) {
    let mut program = Program(data);
    let mut machine = Machine::new();
    for _ in 0..MAX_STEPS {
        if program.0.is_empty() {
            break;
        }
        step(&mut machine, &mut program);
    }
    machine.run(1000);
}

fn step(machine: &mut Machine, program: &mut Program) {
    match program.u8() % 14 {
        // Code or data.
        0 | 1 => {
            let (offset, bytes) = (program.offset(), program.bytes());
            let room = ((RAM_PAGES + 1) * PAGE_SIZE - offset) as usize;
            machine.bus.put_bytes(RAM + offset, &bytes[..bytes.len().min(room)]);
        }
        // Tables of 3, 4 or 5 levels: each leads to the next, the last maps memory to itself with
        // rights and other bits that the program chooses.
        2 => {
            let levels = 3 + u64::from(program.u8()) % 3;
            for level in 1..levels {
                let table = TABLES + (level - 1) * PAGE_SIZE;
                let index = RAM >> (12 + 9 * (levels - level)) & 0x1ff;
                machine.bus.store(table + 8 * index, Width::Double, (table + PAGE_SIZE) >> 2 | 1);
            }
            let last = TABLES + (levels - 1) * PAGE_SIZE;
            for page in 0..=RAM_PAGES {
                let low = u64::from(program.u8());
                let entry = (RAM + page * PAGE_SIZE) >> 2 | low;
                machine.bus.store(last + 8 * page, Width::Double, entry);
            }
            machine.change(|hart| hart.satp = (5 + levels) << 60 | TABLES >> 12);
        }
        // Any entry, as a leaf of any level, with any high bits.
        3 => {
            let (table, index) = (u64::from(program.u8()) % 5, u64::from(program.u16()) % 512);
            let (page, low) = (program.value(), u64::from(program.u16()) & 0x3ff);
            let high = u64::from(program.u8()) << 56;
            let entry = TABLES + table * PAGE_SIZE + 8 * index;
            machine.bus.store(entry, Width::Double, page >> 12 << 10 | low | high);
        }
        4 => {
            let (r, value) = (usize::from(program.u8()), program.value());
            machine.change(|hart| match r % 64 {
                0 => hart.pc = value & !1,
                r @ 1..32 => hart.x[r] = value,
                r => hart.f[r - 32] = value,
            });
        }
        5 => {
            let mode = [Mode::U, Mode::S, Mode::M][usize::from(program.u8()) % 3];
            machine.change(|hart| hart.mode = mode);
        }
        // CSRs without WARL fields of their own; the guest's own writes test those.
        6 => {
            let (which, value) = (program.u8(), program.value());
            machine.change(|hart| match which % 10 {
                0 => hart.mtvec = value & !2,
                1 => hart.stvec = value & !2,
                2 => hart.mepc = value & !1,
                3 => hart.sepc = value & !1,
                4 => hart.medeleg = value & MEDELEG,
                5 => hart.mideleg = value & irq::SUPERVISOR,
                6 => hart.mie = value & irq::ALL,
                7 => hart.menvcfg = value & envcfg::MENVCFG & !envcfg::CBIE,
                8 => hart.stimecmp = value,
                _ => hart.mstatus |= value & mstatus::WRITABLE & !mstatus::MPP,
            });
        }
        7 => {
            let (index, cfg, addr) = (program.u8() % 16, program.u64(), program.value());
            machine.change(|hart| {
                hart.pmp.write_addr(usize::from(index), addr >> 2);
                hart.pmp.write_cfg(usize::from(index & 8) / 4, cfg);
            });
        }
        8 => machine.signals.set_lines(u64::from(program.u16()) & irq::ALL, true),
        9 => machine.signals.set_lines(u64::from(program.u16()) & irq::ALL, false),
        10 => machine.kick(),
        // What other harts ask for.
        11 => {
            let page = RAM + u64::from(program.u8()) % RAM_PAGES * PAGE_SIZE;
            machine.bus.watch_code(1, page);
            machine.ask(Request::WriteProtect(page));
        }
        12 => machine.ask(Request::FlushTranslations),
        _ => machine.run(u64::from(program.u8())),
    }
}
