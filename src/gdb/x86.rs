//! The registers of an x86 processor as gdb knows them: names, numbers, sizes and the target description.
//!
//! Names are gdb's (gdb manual, "i386 Features"); the numbers follow gdb's own for x86-64, those of system registers
//! behind them. gdb is always told of an x86-64 processor, whatever mode it is in. Its program counter is the linear
//! address of the next instruction, which breakpoints and memory commands use, too: that is RIP wherever CS has no base.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use gdbstub::arch::{Arch, RegId, Registers};
use mimic_cpu::x86::simd::Mxcsr;
use mimic_cpu::x86::state::{Activity, Cpu, sreg};
use mimic_cpu::x86::x87::image::Format;

use super::guest::Guest;
use crate::machine::MachineHandle;

/// An x86-64 processor, as described here.
pub(super) enum X86 {}

impl Arch for X86 {
    type Usize = u64;
    type Registers = Core;
    type BreakpointKind = usize;
    type RegId = Register;

    fn target_description_xml() -> Option<&'static str> {
        Some(&DESCRIPTION)
    }
}

/// The general-purpose registers in gdb's order, by the processor's numbers.
const GPRS: [usize; 16] = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
const SEGMENTS: [u8; 6] = [sreg::CS, sreg::SS, sreg::DS, sreg::ES, sreg::FS, sreg::GS];
/// RFLAGS' bits that can be set from outside: all but VM, which goes with a mode, and those that are fixed.
const FLAGS: u64 = 0x0025_7fd5;

/// The registers of a `g` packet; gdb asks for the others one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Core {
    gpr: [u64; 16],
    pc: u64,
    flags: u32,
    selectors: [u32; 6],
}

impl Registers for Core {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.pc
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        let longs = self.gpr.iter().chain([&self.pc]).flat_map(|value| value.to_le_bytes());
        let words = [&self.flags].into_iter().chain(&self.selectors);
        longs
            .chain(words.flat_map(|value| value.to_le_bytes()))
            .for_each(|byte| write_byte(Some(byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let (longs, words) = bytes.split_at_checked(17 * 8).ok_or(())?;
        let (longs, words) = (longs.as_chunks::<8>().0, words.as_chunks::<4>().0);
        let [flags, selectors @ ..] = words.get(..7).ok_or(())? else { return Err(()) };
        let [gpr @ .., pc] = longs else { return Err(()) };
        for (register, bytes) in self.gpr.iter_mut().zip(gpr) {
            *register = u64::from_le_bytes(*bytes);
        }
        self.pc = u64::from_le_bytes(*pc);
        self.flags = u32::from_le_bytes(*flags);
        for (register, bytes) in self.selectors.iter_mut().zip(selectors) {
            *register = u32::from_le_bytes(*bytes);
        }
        Ok(())
    }
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// By gdb's number.
    Gpr(usize),
    Pc,
    Flags,
    /// By gdb's number.
    Selector(usize),
    /// ST(i).
    X87(usize),
    /// The words of the x87 environment, in gdb's order.
    X87Word(usize),
    Xmm(usize),
    Mxcsr,
    YmmHigh(usize),
    System(System),
}

/// Registers that no feature of gdb's own has, but for the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    FsBase,
    GsBase,
    KernelGsBase,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Efer,
    CsBase,
    SsBase,
    GdtBase,
    IdtBase,
    Cpl,
}

const SYSTEM: [(&str, System); 13] = [
    ("fs_base", System::FsBase),
    ("gs_base", System::GsBase),
    ("k_gs_base", System::KernelGsBase),
    ("cr0", System::Cr0),
    ("cr2", System::Cr2),
    ("cr3", System::Cr3),
    ("cr4", System::Cr4),
    ("efer", System::Efer),
    ("cs_base", System::CsBase),
    ("ss_base", System::SsBase),
    ("gdt_base", System::GdtBase),
    ("idt_base", System::IdtBase),
    ("cpl", System::Cpl),
];
/// Those of the feature "segments".
const BASES: usize = 2;

/// Numbers.
const PC: usize = 16;
const EFLAGS: usize = 17;
const CS: usize = 18;
const ST0: usize = 24;
const FCTRL: usize = 32;
const XMM0: usize = 40;
const MXCSR: usize = 56;
const YMM0H: usize = 57;
const SYSTEM0: usize = 73;

impl Register {
    fn bytes(self) -> usize {
        match self {
            Register::Gpr(_) | Register::Pc | Register::System(_) => 8,
            Register::Flags | Register::Selector(_) | Register::X87Word(_) | Register::Mxcsr => 4,
            Register::X87(_) => 10,
            Register::Xmm(_) | Register::YmmHigh(_) => 16,
        }
    }
}

impl RegId for Register {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        let register = match id {
            0..PC => Register::Gpr(id),
            PC => Register::Pc,
            EFLAGS => Register::Flags,
            CS..ST0 => Register::Selector(id - CS),
            ST0..FCTRL => Register::X87(id - ST0),
            FCTRL..XMM0 => Register::X87Word(id - FCTRL),
            XMM0..MXCSR => Register::Xmm(id - XMM0),
            MXCSR => Register::Mxcsr,
            YMM0H..SYSTEM0 => Register::YmmHigh(id - YMM0H),
            _ => Register::System(SYSTEM.get(id - SYSTEM0)?.1),
        };
        Some((register, NonZeroUsize::new(register.bytes())))
    }
}

/// The x87 environment's words in memory (SDM vol. 1, figure 8-9), and where the registers follow.
type X87Image = [u8; 108];
const X87_REGISTERS: usize = 28;

fn x87_word(image: &X87Image, index: usize) -> u32 {
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| image[at + i]));
    match index {
        0 => word(0) & 0xffff,
        1 => word(4) & 0xffff,
        2 => word(8) & 0xffff,
        // fiseg, fioff, foseg, fooff, fop.
        3 => word(16) & 0xffff,
        4 => word(12),
        5 => word(24) & 0xffff,
        6 => word(20),
        _ => word(16) >> 16 & 0x7ff,
    }
}

fn low(cpu: &Cpu, number: usize) -> Vec<u8> {
    cpu.ymm[number].0[..2].iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn high(cpu: &Cpu, number: usize) -> Vec<u8> {
    cpu.ymm[number].0[2..].iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn system(cpu: &Cpu, register: System) -> u64 {
    let base = |number: u8| cpu.seg[usize::from(number)].base;
    match register {
        System::FsBase => base(sreg::FS),
        System::GsBase => base(sreg::GS),
        System::KernelGsBase => cpu.msr.kernel_gs_base,
        System::Cr0 => cpu.cr0,
        System::Cr2 => cpu.cr2,
        System::Cr3 => cpu.cr3,
        System::Cr4 => cpu.cr4,
        System::Efer => cpu.efer,
        System::CsBase => cpu.code_base(),
        System::SsBase => base(sreg::SS),
        System::GdtBase => cpu.gdtr.base,
        System::IdtBase => cpu.idtr.base,
        System::Cpl => cpu.cpl.into(),
    }
}

/// A processor that is sent elsewhere no longer waits where it was.
fn set_pc(cpu: &mut Cpu, pc: u64) {
    if cpu.linear_rip() == pc {
        return;
    }
    let rip = pc.wrapping_sub(cpu.code_base());
    cpu.rip = if cpu.runs_64_bit_code() { rip } else { rip & 0xffff_ffff };
    if cpu.activity == Activity::Halted {
        cpu.activity = Activity::Running;
    }
}

fn set_flags(cpu: &mut Cpu, flags: u32) {
    cpu.rflags = cpu.rflags & !FLAGS | u64::from(flags) & FLAGS;
}

fn read(cpu: &Cpu, register: Register) -> Vec<u8> {
    let image = || cpu.x87.save_image(Format::Protected32);
    match register {
        Register::Gpr(number) => cpu.gpr[GPRS[number]].to_le_bytes().into(),
        Register::Pc => cpu.linear_rip().to_le_bytes().into(),
        Register::Flags => (cpu.rflags as u32).to_le_bytes().into(),
        Register::Selector(number) => {
            let segment = &cpu.seg[usize::from(SEGMENTS[number])];
            u32::from(segment.selector).to_le_bytes().into()
        }
        Register::X87(i) => image()[X87_REGISTERS + 10 * i..][..10].into(),
        Register::X87Word(index) => x87_word(&image(), index).to_le_bytes().into(),
        Register::Xmm(number) => low(cpu, number),
        Register::Mxcsr => cpu.mxcsr.bits().to_le_bytes().into(),
        Register::YmmHigh(number) => high(cpu, number),
        Register::System(register) => system(cpu, register).to_le_bytes().into(),
    }
}

/// Sets a register to as many bytes as it has. What goes with a mode or a descriptor cannot be set.
fn write(cpu: &mut Cpu, register: Register, bytes: &[u8]) -> bool {
    let mut long = [0; 8];
    let len = bytes.len().min(8);
    long[..len].copy_from_slice(&bytes[..len]);
    let value = u64::from_le_bytes(long);
    let words = |half: usize| {
        bytes.get(8 * half..8 * half + 8).and_then(|bytes| bytes.first_chunk()).copied()
    };
    match register {
        Register::Gpr(number) => cpu.gpr[GPRS[number]] = value,
        Register::Pc => set_pc(cpu, value),
        Register::Flags => set_flags(cpu, value as u32),
        Register::X87(i) => {
            let mut image = cpu.x87.save_image(Format::Protected32);
            image[X87_REGISTERS + 10 * i..][..10].copy_from_slice(bytes);
            cpu.x87.frstor(Format::Protected32, &image);
        }
        Register::Xmm(number) | Register::YmmHigh(number) => {
            let first = if matches!(register, Register::Xmm(_)) { 0 } else { 2 };
            for half in 0..2 {
                let Some(word) = words(half) else { return false };
                cpu.ymm[number].0[first + half] = u64::from_le_bytes(word);
            }
        }
        Register::Mxcsr => match Mxcsr::from_bits(value as u32) {
            Some(mxcsr) => cpu.mxcsr = mxcsr,
            None => return false,
        },
        Register::System(System::FsBase) => cpu.seg[usize::from(sreg::FS)].base = value,
        Register::System(System::GsBase) => cpu.seg[usize::from(sreg::GS)].base = value,
        Register::Selector(_) | Register::X87Word(_) | Register::System(_) => return false,
    }
    true
}

impl Guest for X86 {
    const TRIPLE: &'static str = "x86_64-unknown-elf";

    fn core(machine: &MachineHandle, hart: usize) -> Option<Core> {
        let cpu = machine.cpu(hart)?;
        Some(Core {
            gpr: GPRS.map(|number| cpu.gpr[number]),
            pc: cpu.linear_rip(),
            flags: cpu.rflags as u32,
            selectors: SEGMENTS.map(|number| cpu.seg[usize::from(number)].selector.into()),
        })
    }

    /// Selectors stay as they are.
    fn set_core(machine: &MachineHandle, hart: usize, core: Core) -> Option<()> {
        machine.change_cpu(hart, move |cpu| {
            for (number, value) in GPRS.into_iter().zip(core.gpr) {
                cpu.gpr[number] = value;
            }
            set_pc(cpu, core.pc);
            set_flags(cpu, core.flags);
        })
    }

    fn read(machine: &MachineHandle, hart: usize, register: Register) -> Option<Vec<u8>> {
        Some(read(&machine.cpu(hart)?, register))
    }

    fn write(machine: &MachineHandle, hart: usize, register: Register, bytes: &[u8]) -> bool {
        if bytes.len() != register.bytes() {
            return false;
        }
        let bytes = bytes.to_vec();
        machine.change_cpu(hart, move |cpu| write(cpu, register, &bytes)) == Some(true)
    }
}

static DESCRIPTION: LazyLock<String> = LazyLock::new(describe);

const GPR_NAMES: [&str; 16] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const SELECTOR_NAMES: [&str; 6] = ["cs", "ss", "ds", "es", "fs", "gs"];
const X87_NAMES: [&str; 8] = ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"];
const FLAG_NAMES: [(&str, u32); 17] = [
    ("CF", 0),
    ("PF", 2),
    ("AF", 4),
    ("ZF", 6),
    ("SF", 7),
    ("TF", 8),
    ("IF", 9),
    ("DF", 10),
    ("OF", 11),
    ("NT", 14),
    ("RF", 16),
    ("VM", 17),
    ("AC", 18),
    ("VIF", 19),
    ("VIP", 20),
    ("ID", 21),
    ("", 1),
];
/// How gdb may show 16 bytes: name, type of an element, number of elements.
const VECTORS: [(&str, &str, u32); 6] = [
    ("v4_float", "ieee_single", 4),
    ("v2_double", "ieee_double", 2),
    ("v16_int8", "int8", 16),
    ("v8_int16", "int16", 8),
    ("v4_int32", "int32", 4),
    ("v2_int64", "int64", 2),
];

fn describe() -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">\
         <architecture>i386:x86-64</architecture><feature name=\"org.gnu.gdb.i386.core\">\
         <flags id=\"i386_eflags\" size=\"4\">",
    );
    // Writing to a string cannot fail, here and below.
    for (name, bit) in FLAG_NAMES {
        let _ = write!(xml, "<field name=\"{name}\" start=\"{bit}\" end=\"{bit}\"/>");
    }
    xml.push_str("</flags>");
    let register = |xml: &mut String, name: &str, number: usize, kind: &str| {
        let bits = Register::from_raw_id(number).map_or(64, |(register, _)| register.bytes() * 8);
        let _ = write!(
            xml,
            "<reg name=\"{name}\" bitsize=\"{bits}\" regnum=\"{number}\" type=\"{kind}\"/>"
        );
    };
    for (number, name) in GPR_NAMES.into_iter().enumerate() {
        let kind = if matches!(name, "rbp" | "rsp") { "data_ptr" } else { "int64" };
        register(&mut xml, name, number, kind);
    }
    register(&mut xml, "rip", PC, "code_ptr");
    register(&mut xml, "eflags", EFLAGS, "i386_eflags");
    for (index, name) in SELECTOR_NAMES.into_iter().enumerate() {
        register(&mut xml, name, CS + index, "int32");
    }
    for index in 0..8 {
        register(&mut xml, &format!("st{index}"), ST0 + index, "i387_ext");
    }
    for (index, name) in X87_NAMES.into_iter().enumerate() {
        register(&mut xml, name, FCTRL + index, "int");
    }
    xml.push_str("</feature><feature name=\"org.gnu.gdb.i386.sse\">");
    for (name, kind, count) in VECTORS {
        let _ = write!(xml, "<vector id=\"{name}\" type=\"{kind}\" count=\"{count}\"/>");
    }
    xml.push_str("<union id=\"vec128\">");
    for (name, _, _) in VECTORS {
        let _ = write!(xml, "<field name=\"{name}\" type=\"{name}\"/>");
    }
    xml.push_str("<field name=\"uint128\" type=\"uint128\"/></union>");
    for index in 0..16 {
        register(&mut xml, &format!("xmm{index}"), XMM0 + index, "vec128");
    }
    register(&mut xml, "mxcsr", MXCSR, "int");
    xml.push_str("</feature><feature name=\"org.gnu.gdb.i386.avx\">");
    for index in 0..16 {
        register(&mut xml, &format!("ymm{index}h"), YMM0H + index, "uint128");
    }
    let (bases, others) = SYSTEM.split_at(BASES);
    for (feature, registers, from) in [
        ("org.gnu.gdb.i386.segments", bases, SYSTEM0),
        ("mimic.i386.system", others, SYSTEM0 + BASES),
    ] {
        let _ = write!(xml, "</feature><feature name=\"{feature}\">");
        for (index, (name, _)) in registers.iter().enumerate() {
            register(&mut xml, name, from + index, "int64");
        }
    }
    xml.push_str("</feature></target>");
    xml
}
