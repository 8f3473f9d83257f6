//! The shapes in which gdb sees a processor: with 16 registers of 64 bits, or 8 of 32.

use std::num::NonZeroUsize;

use gdbstub::arch::{Arch, RegId, Registers};
use mimic_cpu::x86::state::{efer, rights, sreg};

use super::{GPRS, Register, SEGMENTS, SYSTEM, description, read, set_flags, set_pc, write};
use crate::gdb::guest::Guest;
use crate::machine::MachineHandle;

/// What gdb is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gdb) enum Shape {
    /// Code of 16 bits.
    I8086,
    /// Code of 32 bits.
    I386,
    /// IA-32e mode.
    X86_64,
}

impl Shape {
    /// gdb's name of the architecture.
    pub(super) fn architecture(self) -> &'static str {
        match self {
            Shape::I8086 => "i8086",
            Shape::I386 => "i386",
            Shape::X86_64 => "i386:x86-64",
        }
    }

    /// Names of the general-purpose registers, by gdb's numbers, and of the program counter behind them.
    pub(super) fn names(self) -> (&'static [&'static str], &'static str) {
        const WIDE: &[&str] = &[
            "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11",
            "r12", "r13", "r14", "r15",
        ];
        const NARROW: &[&str] = &["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];
        if self == Shape::X86_64 { (WIDE, "rip") } else { (NARROW, "eip") }
    }

    /// General-purpose registers; vector registers, too.
    fn count(self) -> usize {
        self.names().0.len()
    }

    /// The processor's number of a general-purpose register.
    fn number(self, gdb: usize) -> usize {
        if self == Shape::X86_64 { GPRS[gdb] } else { gdb }
    }

    /// Bytes of a general-purpose register.
    fn word(self) -> usize {
        if self == Shape::X86_64 { 8 } else { 4 }
    }

    /// Bytes of a register.
    pub(super) fn bytes(self, register: Register) -> usize {
        match register {
            Register::Gpr(_) | Register::Pc => self.word(),
            Register::System(_) => 8,
            Register::Flags | Register::Selector(_) | Register::X87Word(_) | Register::Mxcsr => 4,
            Register::X87(_) => 10,
            Register::Xmm(_) | Register::YmmHigh(_) => 16,
        }
    }

    /// All registers in the order of gdb's numbers: those of a `g` packet first.
    pub(super) fn registers(self) -> impl Iterator<Item = Register> {
        let count = self.count();
        (0..count)
            .map(move |gdb| Register::Gpr(self.number(gdb)))
            .chain([Register::Pc, Register::Flags])
            .chain((0..SEGMENTS.len()).map(Register::Selector))
            .chain((0..8).map(Register::X87))
            .chain((0..8).map(Register::X87Word))
            .chain((0..count).map(Register::Xmm))
            .chain([Register::Mxcsr])
            .chain((0..count).map(Register::YmmHigh))
            .chain(SYSTEM.map(|(_, register)| Register::System(register)))
    }

    /// The one that a word means: `i8086`, `i386`, `x86-64`.
    pub(in crate::gdb) fn named(word: &str) -> Option<Self> {
        match word {
            "i8086" => Some(Shape::I8086),
            "i386" => Some(Shape::I386),
            "x86-64" => Some(Shape::X86_64),
            _ => None,
        }
    }

    /// What fits the mode of the first processor.
    pub(in crate::gdb) fn of(machine: &MachineHandle) -> Self {
        let Some(cpu) = machine.cpu(0) else { return Shape::X86_64 };
        if cpu.efer & efer::LMA != 0 {
            Shape::X86_64
        } else if cpu.seg[usize::from(sreg::CS)].has(rights::DB) {
            Shape::I386
        } else {
            Shape::I8086
        }
    }
}

/// An x86 processor whose code has `BITS` bits.
pub(in crate::gdb) enum X86<const BITS: u32> {}

impl<const BITS: u32> X86<BITS> {
    const SHAPE: Shape = match BITS {
        16 => Shape::I8086,
        32 => Shape::I386,
        _ => Shape::X86_64,
    };
}

impl<const BITS: u32> Arch for X86<BITS> {
    type Usize = u64;
    type Registers = Core<BITS>;
    type BreakpointKind = usize;
    type RegId = Id<BITS>;

    fn target_description_xml() -> Option<&'static str> {
        Some(description::of(Self::SHAPE))
    }
}

/// The registers of a `g` packet, as many as there are of each; gdb asks for the others one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::gdb) struct Core<const BITS: u32> {
    gpr: [u64; 16],
    pc: u64,
    flags: u32,
    selectors: [u32; 6],
}

impl<const BITS: u32> Registers for Core<BITS> {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.pc
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        let shape = X86::<BITS>::SHAPE;
        let longs = self.gpr[..shape.count()].iter().chain([&self.pc]);
        let longs = longs.flat_map(|value| value.to_le_bytes().into_iter().take(shape.word()));
        let words = [&self.flags].into_iter().chain(&self.selectors);
        longs
            .chain(words.flat_map(|value| value.to_le_bytes()))
            .for_each(|byte| write_byte(Some(byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let shape = X86::<BITS>::SHAPE;
        let (longs, words) = bytes.split_at_checked((shape.count() + 1) * shape.word()).ok_or(())?;
        let mut longs = longs.chunks_exact(shape.word()).map(little_endian);
        for (register, value) in self.gpr[..shape.count()].iter_mut().zip(&mut longs) {
            *register = value;
        }
        self.pc = longs.next().ok_or(())?;
        let words = words.as_chunks::<4>().0;
        let [flags, selectors @ ..] = words.get(..7).ok_or(())? else { return Err(()) };
        self.flags = u32::from_le_bytes(*flags);
        for (register, bytes) in self.selectors.iter_mut().zip(selectors) {
            *register = u32::from_le_bytes(*bytes);
        }
        Ok(())
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A register by gdb's number in this shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gdb) struct Id<const BITS: u32>(Register);

impl<const BITS: u32> RegId for Id<BITS> {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        let shape = X86::<BITS>::SHAPE;
        let register = shape.registers().nth(id)?;
        Some((Id(register), NonZeroUsize::new(shape.bytes(register))))
    }
}

impl<const BITS: u32> Guest for X86<BITS> {
    const TRIPLE: &'static str = if BITS == 64 { "x86_64-unknown-elf" } else { "i386-unknown-elf" };

    fn core(machine: &MachineHandle, hart: usize) -> Option<Core<BITS>> {
        let cpu = machine.cpu(hart)?;
        let mut gpr = [0; 16];
        for (gdb, value) in gpr[..Self::SHAPE.count()].iter_mut().enumerate() {
            *value = cpu.gpr[Self::SHAPE.number(gdb)];
        }
        Some(Core {
            gpr,
            pc: cpu.linear_rip(),
            flags: cpu.rflags as u32,
            selectors: SEGMENTS.map(|number| cpu.seg[usize::from(number)].selector.into()),
        })
    }

    /// Selectors stay as they are.
    fn set_core(machine: &MachineHandle, hart: usize, core: Core<BITS>) -> Option<()> {
        machine.change_cpu(hart, move |cpu| {
            for (gdb, value) in core.gpr[..Self::SHAPE.count()].iter().enumerate() {
                cpu.gpr[Self::SHAPE.number(gdb)] = *value;
            }
            set_pc(cpu, core.pc);
            set_flags(cpu, core.flags);
        })
    }

    fn read(machine: &MachineHandle, hart: usize, Id(register): Id<BITS>) -> Option<Vec<u8>> {
        let mut bytes = read(&machine.cpu(hart)?, register);
        bytes.truncate(Self::SHAPE.bytes(register));
        Some(bytes)
    }

    fn write(machine: &MachineHandle, hart: usize, id: Id<BITS>, bytes: &[u8]) -> bool {
        let Id(register) = id;
        if bytes.len() != Self::SHAPE.bytes(register) {
            return false;
        }
        let bytes = bytes.to_vec();
        machine.change_cpu(hart, move |cpu| write(cpu, register, &bytes)) == Some(true)
    }
}
