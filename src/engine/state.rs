//! The state of a hart of either instruction set: what engines exchange and snapshots hold.

use mimic_cpu::bus::CpuBus;
use mimic_cpu::riscv::hart::Hart;
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::state::{Activity, Cpu, cr0};
use serde::{Deserialize, Serialize};

use crate::loader::Isa;
use crate::machine::spec::HartView;

/// The canonical state of one hart (x86: processor).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CpuState {
    /// RV64.
    Riscv(Box<Hart>),
    /// x86-64.
    X86(Box<Cpu>),
}

impl From<Hart> for CpuState {
    fn from(hart: Hart) -> Self {
        CpuState::Riscv(Box::new(hart))
    }
}

impl From<Cpu> for CpuState {
    fn from(cpu: Cpu) -> Self {
        CpuState::X86(Box::new(cpu))
    }
}

impl CpuState {
    /// The instruction set.
    #[must_use]
    pub fn isa(&self) -> Isa {
        match self {
            CpuState::Riscv(_) => Isa::Riscv64,
            CpuState::X86(_) => Isa::X86_64,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn view(&self) -> HartView {
        match self {
            CpuState::Riscv(hart) => {
                HartView { pc: hart.pc, mode: hart.mode.name(), waiting: hart.waiting }
            }
            CpuState::X86(cpu) => view_x86(cpu),
        }
    }

    /// Instructions it has retired.
    #[must_use]
    pub fn retired(&self) -> u64 {
        match self {
            CpuState::Riscv(hart) => hart.retired,
            CpuState::X86(cpu) => cpu.retired,
        }
    }

    /// Where `va` leads as the page tables are now, without a trace.
    #[must_use]
    pub fn peek(&self, bus: &dyn CpuBus, va: u64) -> Option<u64> {
        match self {
            CpuState::Riscv(hart) => hart.peek(bus, va),
            CpuState::X86(cpu) => cpu.peek(bus, va),
        }
    }

    /// The x86 processor, if it is one.
    #[must_use]
    pub fn x86(self) -> Option<Cpu> {
        match self {
            CpuState::Riscv(_) => None,
            CpuState::X86(cpu) => Some(*cpu),
        }
    }

    /// The RISC-V hart, if it is one.
    #[must_use]
    pub fn riscv(self) -> Option<Hart> {
        match self {
            CpuState::Riscv(hart) => Some(*hart),
            CpuState::X86(_) => None,
        }
    }
}

/// The name of a processor's mode.
pub(super) fn mode_x86(control: u64, rflags: u64, cpl: u8) -> &'static str {
    match (control & cr0::PE != 0, rflags & bit::VM != 0) {
        (false, _) => "real",
        (true, true) => "virtual-8086",
        (true, false) if cpl == 3 => "user",
        (true, false) => "supervisor",
    }
}

/// Where a processor is: the linear address of its next instruction.
pub(super) fn view_x86(cpu: &Cpu) -> HartView {
    let mode = mode_x86(cpu.cr0, cpu.rflags, cpu.cpl);
    HartView { pc: cpu.linear_rip(), mode, waiting: cpu.activity != Activity::Running }
}
