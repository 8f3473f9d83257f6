//! Benchmarks of the PC: fixed work in a loop, in 64-bit mode on pages of 2 MiB or in 32-bit protected mode without
//! paging, without interrupts or devices.
//!
//! A guest compares the checksum of its loop with what QEMU and Bochs make of it, prints it on the debug console in
//! 16 digits, and ends by isa-debug-exit, and by Bochs' shutdown port. Registers of a loop: `esp` a stack, `ecx` its
//! rounds, `eax` and `edx` the checksum's halves in the end; at its beginning the others are fixed.
//!
//! Manual: *Intel 64 and IA-32 Architectures Software Developer's Manual* (SDM).

pub(super) mod float;
pub(super) mod integer;
pub(super) mod strings;

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::stress::start::entry;
use super::stress::{IMAGE, TEXT};
use super::{Assembled, image};
use crate::Cases;

/// Numbers that loops load, each in a line of its own.
const CONSTANTS: u64 = 0x28_0000;
const STACK: u64 = 0x2f_0000;
/// 64 KiB of pseudo-random bytes, and as much for results.
const BUFFER: u64 = 0x30_0000;
const TARGET: u64 = 0x32_0000;
const BUFFER_BYTES: u64 = 0x1_0000;
/// Memory for tables and results of loops.
const SPACE: u64 = 0x34_0000;
/// Memory from here on: 4 MiB, and room behind.
const LARGE: u64 = 0x40_0000;
/// Factor and addend of the pseudo-random numbers (Numerical Recipes, 7.1).
const FACTOR: i32 = 1_664_525;
const ADDEND: i32 = 1_013_904_223;

/// CR0 without EM, with MP and NE.
const CR0: u32 = 0x33;
/// CR4: OSFXSR, OSXMMEXCPT; OSXSAVE.
const CR4_SSE: u32 = 0x600;
const CR4_OSXSAVE: i32 = 1 << 18;

/// How a loop is run.
#[derive(Clone, Copy)]
pub(crate) struct Loop {
    /// 64 or 32.
    pub(crate) bits: u32,
    /// How often.
    pub(crate) rounds: u32,
    /// What comes out, by QEMU and Bochs.
    pub(crate) checksum: u64,
    /// Writes it.
    pub(crate) body: fn(&mut CodeAssembler) -> Assembled,
}

impl Loop {
    /// The file, and the name of its case.
    ///
    /// # Panics
    /// When the guest was assembled wrongly: a bug in its source, which every build of it shows.
    pub(crate) fn assemble(&self) -> (Vec<u8>, Vec<Cases>) {
        let file = self.write();
        let file = file.unwrap_or_else(|error| panic!("the guest's source is wrong: {error}"));
        (file, vec![Cases { first: 1, count: 1, name: "checksum".to_owned() }])
    }

    fn write(&self) -> Result<Vec<u8>, IcedError> {
        let begin = IMAGE + image::HEADER;
        let mut bytes = image::multiboot_header();
        if self.bits == 64 {
            bytes.extend(entry(begin)?);
        }
        bytes.resize((TEXT - IMAGE) as usize, 0x90);
        let mut a = CodeAssembler::new(self.bits)?;
        prepare(&mut a, self.bits)?;
        a.mov(ecx, self.rounds)?;
        (self.body)(&mut a)?;
        self.end(&mut a)?;
        bytes.extend(a.assemble(TEXT)?);
        Ok(image::write(begin as u32, IMAGE as u32, &bytes))
    }

    /// Reports what is in eax and edx.
    fn end(&self, a: &mut CodeAssembler) -> Assembled {
        let (mut byte, mut figure, mut other, mut rest) =
            (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        let (mut digit, mut decimal) = (a.create_label(), a.create_label());
        a.mov(dword_ptr(SPACE), eax)?;
        a.mov(dword_ptr(SPACE + 4), edx)?;
        a.mov(esi, 8)?;
        a.set_label(&mut byte)?;
        a.mov(ebx, 2)?;
        a.set_label(&mut digit)?;
        a.mov(al, byte_ptr(esi + (SPACE - 1)))?;
        a.cmp(ebx, 1)?;
        a.je(figure)?;
        a.shr(al, 4)?;
        a.set_label(&mut figure)?;
        a.and(al, 15)?;
        a.cmp(al, 10)?;
        a.jb(decimal)?;
        a.add(al, i32::from(b'A' - b'0') - 10)?;
        a.set_label(&mut decimal)?;
        a.add(al, i32::from(b'0'))?;
        a.out(0xe9, al)?;
        a.dec(ebx)?;
        a.jne(digit)?;
        a.dec(esi)?;
        a.jne(byte)?;
        a.mov(al, i32::from(b'\n'))?;
        a.out(0xe9, al)?;
        a.mov(eax, 1)?;
        a.cmp(dword_ptr(SPACE), self.checksum as i32)?;
        a.jne(other)?;
        a.cmp(dword_ptr(SPACE + 4), (self.checksum >> 32) as i32)?;
        a.jne(other)?;
        a.xor(eax, eax)?;
        a.set_label(&mut other)?;
        a.out(0xf4, eax)?;
        a.mov(edx, 0x8900)?;
        for letter in b"Shutdown" {
            a.mov(al, i32::from(*letter))?;
            a.out(dx, al)?;
        }
        a.set_label(&mut rest)?;
        a.hlt()?;
        a.jmp(rest)
    }
}

/// Enables the units, and gives memory and registers their first contents.
fn prepare(a: &mut CodeAssembler, bits: u32) -> Assembled {
    if bits == 64 {
        a.mov(ecx, 16)?;
        a.mov(ss, ecx)?;
        a.mov(ds, ecx)?;
        a.mov(es, ecx)?;
    } else {
        a.cli()?;
        a.mov(eax, CR0)?;
        a.mov(cr0, eax)?;
        a.mov(eax, CR4_SSE)?;
        a.mov(cr4, eax)?;
    }
    a.cld()?;
    a.fninit()?;
    a.mov(esp, STACK as u32)?;
    for (at, words) in (CONSTANTS..).step_by(64).zip(float::CONSTANTS) {
        for (at, word) in (at..).step_by(4).zip(*words) {
            a.mov(dword_ptr(at), *word)?;
        }
    }
    let mut fill = a.create_label();
    a.mov(eax, 12_345)?;
    a.mov(edi, BUFFER as u32)?;
    a.set_label(&mut fill)?;
    a.imul_3(eax, eax, FACTOR)?;
    a.add(eax, ADDEND)?;
    a.mov(dword_ptr(edi), eax)?;
    a.add(edi, 4)?;
    a.cmp(edi, (BUFFER + BUFFER_BYTES) as i32)?;
    a.jne(fill)?;
    a.xor(eax, eax)?;
    a.mov(ebx, 0x9e37_79b9u32)?;
    a.mov(edx, 0x7f4a_7c15u32)?;
    a.xor(esi, esi)?;
    a.xor(edi, edi)?;
    a.xor(ebp, ebp)
}

/// Enables AVX.
fn enable_avx(a: &mut CodeAssembler) -> Assembled {
    a.mov(rax, cr4)?;
    a.or(eax, CR4_OSXSAVE)?;
    a.mov(cr4, rax)?;
    a.push(rcx)?;
    a.xor(ecx, ecx)?;
    a.xor(edx, edx)?;
    a.mov(eax, 7)?;
    a.xsetbv()?;
    a.pop(rcx)
}
