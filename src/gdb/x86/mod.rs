//! The registers of an x86 processor as gdb knows them: names, numbers, sizes and the target description.
//!
//! Names are gdb's (gdb manual, "i386 Features"); the numbers follow gdb's own, those of system registers behind them.
//! gdb asks once, when it attaches, what the processor is, and disassembles and unwinds accordingly: so it is told of an
//! x86-64 one in IA-32e mode, otherwise of an i386 or, where code has 16 bits, an i8086 ([`Shape`]). The program counter is the linear address of the next instruction, which breakpoints and memory commands use, too:
//! that is RIP wherever CS has no base.

mod description;
mod shape;

use mimic_cpu::x86::simd::Mxcsr;
use mimic_cpu::x86::state::{Activity, Cpu, sreg};
use mimic_cpu::x86::x87::image::Format;

pub(super) use self::shape::{Shape, X86};

/// The general-purpose registers in gdb's order for x86-64, by the processor's numbers.
const GPRS: [usize; 16] = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
const SEGMENTS: [u8; 6] = [sreg::CS, sreg::SS, sreg::DS, sreg::ES, sreg::FS, sreg::GS];
/// RFLAGS' bits that can be set from outside: all but VM, which goes with a mode, and those that are fixed.
const FLAGS: u64 = 0x0025_7fd5;

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// By the processor's number.
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
        Register::Gpr(number) => cpu.gpr[number].to_le_bytes().into(),
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
        Register::Gpr(number) => {
            // The upper half stays if only the lower one is seen.
            let kept = if len == 8 { 0 } else { cpu.gpr[number] >> 32 << 32 };
            cpu.gpr[number] = kept | value;
        }
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
