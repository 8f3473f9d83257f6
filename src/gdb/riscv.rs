//! The registers of an RV64 hart as gdb knows them: numbers, sizes and the target description.
//!
//! Names and numbers are gdb's (gdb manual, "RISC-V Features"; `riscv-tdep.h`): x registers from 0, pc 32, f
//! registers from 33, CSRs at 65 plus their number, the privilege mode behind them.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use gdbstub::arch::{Arch, RegId, Registers};
use mimic_cpu::riscv::hart::{Hart, Mode};

use super::guest::Guest;
use crate::machine::MachineHandle;

const PC: usize = 32;
const F0: usize = 33;
const CSR0: usize = 65;
const PRIV: usize = CSR0 + 4096;

/// RV64, as described here.
pub(super) enum Rv64 {}

impl Arch for Rv64 {
    type Usize = u64;
    type Registers = Core;
    type BreakpointKind = usize;
    type RegId = Register;

    fn target_description_xml() -> Option<&'static str> {
        Some(&DESCRIPTION)
    }
}

/// The registers of a `g` packet; gdb asks for the others one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Core {
    x: [u64; 32],
    pc: u64,
}

impl Registers for Core {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.pc
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        for value in self.x.iter().chain([&self.pc]) {
            value.to_le_bytes().into_iter().for_each(|byte| write_byte(Some(byte)));
        }
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let (values, _) = bytes.as_chunks::<8>();
        let [x @ .., pc] = values.get(..33).ok_or(())? else { return Err(()) };
        for (register, bytes) in self.x.iter_mut().zip(x) {
            *register = u64::from_le_bytes(*bytes);
        }
        self.pc = u64::from_le_bytes(*pc);
        Ok(())
    }
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    X(usize),
    Pc,
    F(usize),
    Csr(u16),
    Priv,
}

impl Register {
    /// Bytes.
    fn size(self) -> usize {
        match self {
            Register::Csr(number) if FP_CSRS.iter().any(|&(_, fp)| fp == number) => 4,
            _ => 8,
        }
    }
}

impl RegId for Register {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        let register = match id {
            0..PC => Register::X(id),
            PC => Register::Pc,
            F0..CSR0 => Register::F(id - F0),
            CSR0..PRIV => {
                let number = u16::try_from(id - CSR0).ok()?;
                CSRS.iter().chain(&FP_CSRS).find(|&&(_, known)| known == number)?;
                Register::Csr(number)
            }
            PRIV => Register::Priv,
            _ => return None,
        };
        Some((register, NonZeroUsize::new(register.size())))
    }
}

/// A hart that is sent elsewhere no longer waits where it was.
fn set_pc(hart: &mut Hart, pc: u64) {
    if hart.pc != pc {
        hart.pc = pc & !1;
        hart.waiting = false;
    }
}

impl Guest for Rv64 {
    const TRIPLE: &'static str = "riscv64-unknown-elf";

    fn core(machine: &MachineHandle, hart: usize) -> Option<Core> {
        machine.hart(hart).map(|state| Core { x: state.x, pc: state.pc })
    }

    fn set_core(machine: &MachineHandle, hart: usize, core: Core) -> Option<()> {
        let Core { mut x, pc } = core;
        x[0] = 0;
        machine.change_hart(hart, move |state| {
            state.x = x;
            set_pc(state, pc);
        })
    }

    fn read(machine: &MachineHandle, hart: usize, register: Register) -> Option<Vec<u8>> {
        let value = match register {
            Register::Csr(number) => machine.read_csr(hart, number)?,
            _ => {
                let state = machine.hart(hart)?;
                match register {
                    Register::X(number) => state.x[number],
                    Register::F(number) => state.f[number],
                    Register::Pc | Register::Csr(_) => state.pc,
                    Register::Priv => state.mode as u64,
                }
            }
        };
        Some(value.to_le_bytes()[..register.size()].to_vec())
    }

    fn write(machine: &MachineHandle, hart: usize, register: Register, bytes: &[u8]) -> bool {
        if bytes.len() != register.size() {
            return false;
        }
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        let value = u64::from_le_bytes(value);
        let changed = match register {
            Register::Csr(number) => return machine.write_csr(hart, number, value),
            Register::X(0) => return true,
            Register::Priv => match Mode::from_bits(value) {
                Some(mode) => machine.change_hart(hart, move |state| state.mode = mode),
                None => None,
            },
            Register::X(number) => machine.change_hart(hart, move |state| state.x[number] = value),
            Register::F(number) => machine.change_hart(hart, move |state| state.f[number] = value),
            Register::Pc => machine.change_hart(hart, move |state| set_pc(state, value)),
        };
        changed.is_some()
    }
}

const X_NAMES: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1", "a0", "a1", "a2", "a3", "a4",
    "a5", "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4",
    "t5", "t6",
];
const F_NAMES: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2",
    "fa3", "fa4", "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9",
    "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
];
const FP_CSRS: [(&str, u16); 3] = [("fflags", 0x001), ("frm", 0x002), ("fcsr", 0x003)];
/// The CSRs that say where a guest is and how it got there (privileged, 2.2).
const CSRS: [(&str, u16); 45] = [
    ("sstatus", 0x100),
    ("sie", 0x104),
    ("stvec", 0x105),
    ("scounteren", 0x106),
    ("senvcfg", 0x10a),
    ("sscratch", 0x140),
    ("sepc", 0x141),
    ("scause", 0x142),
    ("stval", 0x143),
    ("sip", 0x144),
    ("stimecmp", 0x14d),
    ("satp", 0x180),
    ("mstatus", 0x300),
    ("misa", 0x301),
    ("medeleg", 0x302),
    ("mideleg", 0x303),
    ("mie", 0x304),
    ("mtvec", 0x305),
    ("mcounteren", 0x306),
    ("menvcfg", 0x30a),
    ("mcountinhibit", 0x320),
    ("mscratch", 0x340),
    ("mepc", 0x341),
    ("mcause", 0x342),
    ("mtval", 0x343),
    ("mip", 0x344),
    ("pmpcfg0", 0x3a0),
    ("pmpcfg2", 0x3a2),
    ("pmpaddr0", 0x3b0),
    ("pmpaddr1", 0x3b1),
    ("pmpaddr2", 0x3b2),
    ("pmpaddr3", 0x3b3),
    ("pmpaddr4", 0x3b4),
    ("pmpaddr5", 0x3b5),
    ("pmpaddr6", 0x3b6),
    ("pmpaddr7", 0x3b7),
    ("mcycle", 0xb00),
    ("minstret", 0xb02),
    ("cycle", 0xc00),
    ("time", 0xc01),
    ("instret", 0xc02),
    ("mvendorid", 0xf11),
    ("marchid", 0xf12),
    ("mimpid", 0xf13),
    ("mhartid", 0xf14),
];

static DESCRIPTION: LazyLock<String> = LazyLock::new(describe);

fn describe() -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">\
         <architecture>riscv:rv64</architecture>",
    );
    let mut feature = |name: &str, registers: &mut dyn Iterator<Item = (&str, usize, &str)>| {
        // Writing to a string cannot fail.
        let _ = write!(xml, "<feature name=\"org.gnu.gdb.riscv.{name}\">");
        for (name, number, kind) in registers {
            let bits =
                Register::from_raw_id(number).map_or(64, |(register, _)| register.size() * 8);
            let _ = write!(
                xml,
                "<reg name=\"{name}\" bitsize=\"{bits}\" regnum=\"{number}\" type=\"{kind}\"/>"
            );
        }
        xml.push_str("</feature>");
    };
    let csr = |&(name, number): &(&'static str, u16)| (name, CSR0 + usize::from(number), "int");
    let kind = |number| match number {
        1 => "code_ptr",
        2..=4 => "data_ptr",
        _ => "int",
    };
    let x = X_NAMES.iter().enumerate().map(|(number, &name)| (name, number, kind(number)));
    feature("cpu", &mut x.chain([("pc", PC, "code_ptr")]));
    let f = F_NAMES.iter().enumerate().map(|(number, &name)| (name, F0 + number, "ieee_double"));
    feature("fpu", &mut f.chain(FP_CSRS.iter().map(csr)));
    feature("csr", &mut CSRS.iter().map(csr));
    feature("virtual", &mut [("priv", PRIV, "int")].into_iter());
    xml.push_str("</target>");
    xml
}
