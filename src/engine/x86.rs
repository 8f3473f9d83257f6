//! The x86 interpreter as an engine.

use mimic_cpu::debug::DebugPoints;
use mimic_cpu::run::{Budget, Exit};
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::interp::Interp;
use mimic_cpu::x86::state::{Activity, sreg};

use super::{CpuState, Engine};
use crate::machine::spec::{HartView, Stats};

impl Engine for Interp {
    fn run(&mut self, budget: Budget) -> Exit {
        Interp::run(self, budget)
    }

    fn store(&self) -> CpuState {
        self.cpu().into()
    }

    fn load(&mut self, state: CpuState) {
        match state {
            CpuState::X86(cpu) => Interp::load(self, *cpu),
            CpuState::Riscv(_) => unreachable!("a machine's harts are of one instruction set"),
        }
    }

    fn set_debug(&mut self, points: DebugPoints) {
        Interp::set_debug(self, points);
    }

    fn retired(&self) -> u64 {
        Interp::retired(self)
    }

    fn view(&self) -> HartView {
        let core = self.core();
        HartView {
            pc: core.reach[usize::from(sreg::CS)].base.wrapping_add(core.next_rip) & core.lin_mask,
            ..super::state::view_x86(&core.cpu)
        }
    }

    fn is_deaf(&self) -> bool {
        let core = self.core();
        match core.cpu.activity {
            Activity::WaitForStartup => true,
            Activity::Halted => !core.has_flag(bit::IF),
            Activity::Running | Activity::Shutdown => false,
        }
    }

    fn count(&self, stats: &mut Stats) {
        let counters = self.counters();
        stats.tlb_misses += counters.tlb_misses + counters.fetch_misses;
        stats.blocks_decoded += counters.blocks_decoded;
        stats.device_accesses += counters.device_accesses;
    }
}
