//! Running one instruction on the interpreter: as [`crate::host`], the processor being ours.

use std::sync::Arc;

use iced_x86::Encoder;
use mimic_cpu::run::Exit;
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::interp::Interp;
use mimic_cpu::x86::model::Model;
use mimic_cpu::x86::simd::Mxcsr;
use mimic_cpu::x86::state::{cr4, gpr, xcr0};

use crate::common::{PcBus, Start, cpu, interp, run};
use crate::forms::Form;
use crate::host::{FLAGS, MEMORY, State, VECTORS};

/// Where the instruction is, once for each immediate.
const CODE: u64 = 0x1_0000;
/// Bytes for each.
const ROOM: u64 = 16;
/// Where [`State::memory`] is.
const DATA: u64 = 0x2_0000;

/// A form on a processor of its own.
pub(crate) struct Guest {
    bus: Arc<PcBus>,
    interp: Interp,
    immediate: bool,
}

impl Guest {
    pub(crate) fn new(form: &Form) -> Self {
        let bus = PcBus::new(64);
        let immediate = form.op.immediate;
        for imm in 0..if immediate { 256 } else { 1 } {
            let mut encoder = Encoder::new(64);
            encoder.encode(&form.instruction(imm as u8), 0).expect("an instruction");
            bus.put(CODE + imm * ROOM, &encoder.take_buffer());
        }
        let mut start = cpu(&bus, Start::Long, CODE, Model::v3());
        start.cr4 |= cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
        start.xcr0 = xcr0::X87 | xcr0::SSE | xcr0::AVX;
        let (interp, _) = interp(start, &bus);
        Guest { bus, interp, immediate }
    }

    /// Performs the instruction on `state`, on which it raises no exception.
    pub(crate) fn run(&mut self, imm: u8, state: &mut State) {
        self.bus.put(DATA, &state.memory);
        let core = self.interp.core_mut();
        core.next_rip = CODE + if self.immediate { u64::from(imm) * ROOM } else { 0 };
        core.regs[..4].copy_from_slice(&state.gpr);
        for register in [gpr::RSI, gpr::RDI] {
            core.set_gpr(register, DATA + MEMORY as u64 / 2);
        }
        core.cpu.ymm[..VECTORS].copy_from_slice(&state.ymm);
        for (number, value) in (0..).zip(state.mm) {
            core.cpu.x87.set_mm(number, value);
        }
        core.cpu.mxcsr = Mxcsr::from_bits(state.mxcsr).expect("no reserved bits");
        core.set_rflags(state.flags & FLAGS | bit::FIXED);
        assert_eq!(run(&mut self.interp, 1), Exit::Budget);
        let core = self.interp.core();
        state.gpr.copy_from_slice(&core.regs[..4]);
        state.ymm.copy_from_slice(&core.cpu.ymm[..VECTORS]);
        for (number, value) in (0..).zip(&mut state.mm) {
            *value = core.cpu.x87.mm(number);
        }
        state.mxcsr = core.cpu.mxcsr.bits();
        state.flags = core.rflags();
        self.bus.get(DATA, &mut state.memory);
    }
}
