//! A PC with descriptor tables, and handlers of exceptions that halt.

use std::sync::Arc;

use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use mimic_cpu::bus::Width;
use mimic_cpu::run::Exit;
use mimic_cpu::x86::model::Model;
use mimic_cpu::x86::state::{Cpu, Segment, gpr};

use super::{PcBus, Start, cpu, interp, run};

pub(crate) const CODE: u64 = 0x1_0000;
pub(crate) const DATA: u64 = 0x2_0000;
pub(crate) const STACK: u64 = 0x3_0000;
pub(crate) const GDT: u64 = 0x4000;
pub(crate) const IDT: u64 = 0x5000;
pub(crate) const TSS: u64 = 0x6000;
/// Handlers of exceptions, 16 bytes each, which halt.
pub(crate) const HANDLERS: u64 = 0x7000;

pub(crate) type Program<'a> = dyn Fn(&mut CodeAssembler) -> Result<(), IcedError> + 'a;

pub(crate) fn assemble(bits: u32, at: u64, program: &Program<'_>) -> Vec<u8> {
    let mut a = CodeAssembler::new(bits).unwrap();
    program(&mut a).unwrap();
    a.assemble(at).unwrap()
}

pub(crate) fn register(cpu: &Cpu, number: u8) -> u64 {
    cpu.gpr[usize::from(number)]
}

/// A machine with tables for protected or long mode: code and data of levels 0 and 3, a TSS, and handlers that halt.
pub(crate) struct Pc {
    pub(crate) bus: Arc<PcBus>,
    pub(crate) cpu: Cpu,
}

pub(crate) const CODE0: u16 = 8;
pub(crate) const DATA0: u16 = 16;
pub(crate) const DATA3: u16 = 24 + 3;
pub(crate) const CODE3: u16 = 32 + 3;

impl Pc {
    pub(crate) fn new(start: Start) -> Pc {
        let bus = PcBus::new(64);
        let mut cpu = cpu(&bus, start, CODE, Model::v3());
        cpu.gpr[usize::from(gpr::RSP)] = STACK;
        let long = start == Start::Long;
        let code: u64 = if long { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
        let data = 0x00cf_9300_0000_ffff;
        let user = 3 << 45;
        for (slot, descriptor) in [(1, code), (2, data), (3, data | user), (4, code | user)] {
            bus.store(GDT + 8 * slot, Width::Double, descriptor);
        }
        for vector in 0..64 {
            let handler = HANDLERS + 16 * vector;
            let gate = 0x8e00 << 32 | u64::from(CODE0) << 16 | handler;
            if long {
                bus.store(IDT + 16 * vector, Width::Double, gate);
            } else {
                bus.store(IDT + 8 * vector, Width::Double, gate);
            }
            bus.put(handler, &[0xf4]);
        }
        cpu.gdtr.base = GDT;
        cpu.idtr.base = IDT;
        cpu.tr = Segment { selector: 40, base: TSS, limit: 103, rights: 0x8b };
        if long {
            bus.store(TSS + 4, Width::Double, STACK + 0x1000);
        } else {
            bus.store(TSS + 4, Width::Word, STACK + 0x1000);
            bus.store(TSS + 8, Width::Word, u64::from(DATA0));
        }
        Pc { bus, cpu }
    }

    pub(crate) fn put(&self, bits: u32, program: &Program<'_>) {
        self.bus.put(CODE, &assemble(bits, CODE, program));
    }

    /// Runs until HLT. The vector of the exception whose handler halted, if any, and the processor.
    pub(crate) fn run(&self) -> (Option<u64>, Cpu) {
        let (mut interp, _) = interp(self.cpu.clone(), &self.bus);
        assert_eq!(run(&mut interp, 100_000), Exit::Halted);
        let cpu = interp.cpu();
        let handler = cpu.rip.wrapping_sub(HANDLERS);
        ((handler < 64 * 16).then_some(handler / 16), cpu)
    }

    /// The value at `index` words of `width` above the stack pointer.
    pub(crate) fn stack(&self, cpu: &Cpu, index: u64, width: Width) -> u64 {
        self.bus.load(register(cpu, gpr::RSP) + index * width.bytes(), width)
    }
}
