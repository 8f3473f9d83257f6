//! How the processors of a guest start: the first in protected mode as the loader leaves it, the others in real mode,
//! all of them in 64-bit mode with interrupts that lead somewhere.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::{
    APIC_IDS, Assembled, CODE_SELECTOR, CR0, CR4, DATA_SELECTOR, EFER, GDT, GDTR, IDT, INIT, LAPIC,
    OTHERS, PRESENT_WRITABLE, RESTART, STACK, STACKS, STARTED, STARTUP, Suite, TABLES, TEXT,
    TRAMPOLINE, WINDOW, XSAVE_AVX, lapic,
};

impl Suite {
    /// Starts all processors; each goes on here with an environment of its own. `gates` are handlers of vectors.
    pub(super) fn start(&mut self, harts: u64, gates: &[(u32, CodeLabel)]) -> Assembled {
        let mut begin = self.begin;
        let (mut first_done, mut plain) = (self.label(), self.label());
        self.place(&mut begin)?;
        self.a.mov(ecx, DATA_SELECTOR)?;
        self.a.mov(ss, ecx)?;
        self.a.mov(ds, ecx)?;
        self.a.mov(es, ecx)?;
        self.a.mov(rax, qword_ptr(RESTART))?;
        self.a.test(rax, rax)?;
        let mut anew = self.label();
        self.a.je(anew)?;
        self.a.jmp(rax)?;
        self.place(&mut anew)?;
        self.a.mov(r15d, 1)?;
        self.a.lock().xadd(dword_ptr(STARTED), r15d)?;
        self.a.imul_3(rsp, r15, STACK as i32)?;
        self.a.add(rsp, (STACKS + STACK) as i32)?;
        self.a.xor(r14d, r14d)?;
        self.a.xor(r12d, r12d)?;
        self.case("the processors start")?;
        self.a.lea(rcx, qword_ptr(r15 + 1))?;
        self.a.mov(r13, 0x9e37_79b9_7f4a_7c15u64)?;
        self.a.imul_2(r13, rcx)?;
        self.a.test(r15d, r15d)?;
        self.a.jne(first_done)?;
        self.boot_processor(harts, gates)?;
        self.place(&mut first_done)?;
        self.load_idt()?;
        self.enable_lapic()?;
        // AVX, where there is any.
        self.a.mov(eax, 1)?;
        self.a.push(rbx)?;
        self.a.cpuid()?;
        self.a.pop(rbx)?;
        self.a.and(ecx, XSAVE_AVX)?;
        self.a.cmp(ecx, XSAVE_AVX)?;
        self.a.jne(plain)?;
        self.a.mov(rax, cr4)?;
        self.a.or(eax, 1 << 18)?;
        self.a.mov(cr4, rax)?;
        self.a.xor(ecx, ecx)?;
        self.a.xor(edx, edx)?;
        self.a.mov(eax, 7)?;
        self.a.xsetbv()?;
        self.place(&mut plain)?;
        self.barrier(harts)
    }

    pub(super) fn load_idt(&mut self) -> Assembled {
        self.a.sub(rsp, 16)?;
        self.a.mov(word_ptr(rsp), 0xfff)?;
        self.a.mov(rax, IDT)?;
        self.a.mov(qword_ptr(rsp + 2), rax)?;
        self.a.lidt(ptr(rsp))?;
        self.a.add(rsp, 16)
    }

    /// Software-enables the local APIC, with a logical ID by the number of the processor.
    pub(super) fn enable_lapic(&mut self) -> Assembled {
        self.a.mov(edx, LAPIC as u32)?;
        self.a.mov(dword_ptr(rdx + lapic::SPURIOUS), 0x1ff)?;
        self.a.mov(dword_ptr(rdx + lapic::DFR), -1)?;
        self.a.mov(ecx, r15d)?;
        self.a.mov(eax, 1 << 24)?;
        self.a.shl(eax, cl)?;
        self.a.mov(dword_ptr(rdx + lapic::LDR), eax)?;
        self.a.mov(eax, dword_ptr(rdx + lapic::ID))?;
        self.a.mov(dword_ptr(APIC_IDS + 4 * r15), eax)
    }

    /// What the first processor does before the others: gates, the time, and starting them.
    fn boot_processor(&mut self, harts: u64, gates: &[(u32, CodeLabel)]) -> Assembled {
        let mut others = self.label();
        // The PIC's interrupts, which firmware may have left enabled, are nobody's.
        self.a.mov(al, 0xff)?;
        self.a.out(0x21, al)?;
        self.a.out(0xa1, al)?;
        // Whatever is not expected fails.
        self.a.mov(edi, IDT as u32)?;
        let fail = self.fail;
        for vector in 0..256 {
            let handler = gates.iter().find(|(of, _)| *of == vector).map_or(fail, |(_, to)| *to);
            if vector == 0 || handler != fail {
                self.a.lea(rax, qword_ptr(handler))?;
                self.a.mov(edx, eax)?;
                self.a.and(edx, 0xffff_0000u32 as i32)?;
                self.a.or(edx, 0x8e00)?;
                self.a.and(eax, 0xffff)?;
                self.a.or(eax, i32::from(CODE_SELECTOR) << 16)?;
            }
            if vector == 0 {
                let mut next = self.label();
                self.a.mov(ecx, 256)?;
                self.place(&mut next)?;
                self.a.mov(dword_ptr(rdi), eax)?;
                self.a.mov(dword_ptr(rdi + 4), edx)?;
                self.a.mov(qword_ptr(rdi + 8), 0)?;
                self.a.add(rdi, 16)?;
                self.a.dec(ecx)?;
                self.a.jne(next)?;
            } else if handler != fail {
                self.a.mov(dword_ptr(IDT + 16 * u64::from(vector)), eax)?;
                self.a.mov(dword_ptr(IDT + 16 * u64::from(vector) + 4), edx)?;
            }
        }
        self.load_idt()?;
        self.set_end()?;
        self.enable_lapic()?;
        // The code for real mode, in pieces of four bytes.
        let mut code = trampoline()?;
        code.resize(code.len().next_multiple_of(4), 0x90);
        for (at, word) in (TRAMPOLINE..).step_by(4).zip(code.chunks(4)) {
            let word = word.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
            self.a.mov(dword_ptr(at), word)?;
        }
        self.a.mov(edx, LAPIC as u32)?;
        self.send(OTHERS | INIT)?;
        self.send(OTHERS | STARTUP | (TRAMPOLINE >> 12) as u32)?;
        self.place(&mut others)?;
        self.a.pause()?;
        self.a.cmp(dword_ptr(STARTED), harts as i32)?;
        self.a.jne(others)
    }

    /// Writes the interrupt command, and waits until it is sent; rdx points to the local APIC.
    pub(super) fn send(&mut self, command: u32) -> Assembled {
        let mut wait = self.label();
        self.a.mov(dword_ptr(rdx + lapic::ICR), command)?;
        self.place(&mut wait)?;
        self.a.pause()?;
        self.a.test(dword_ptr(rdx + lapic::ICR), 1 << 12)?;
        self.a.jne(wait)
    }
}

/// The words of the table at [`GDT`] (nothing, code, data), and of the register that leads to it.
fn descriptors() -> [u32; 8] {
    [0, 0, 0xffff, 0x00af_9b00, 0xffff, 0x00cf_9300, (GDT as u32) << 16 | 23, (GDT >> 16) as u32]
}

/// The far jump to [`TEXT`], in 16-bit or 32-bit code (SDM vol. 2, "JMP").
fn jump_to_text(bits: u32) -> Vec<u8> {
    let mut bytes = if bits == 16 { vec![0x66, 0xea] } else { vec![0xea] };
    bytes.extend((TEXT as u32).to_le_bytes());
    bytes.extend(CODE_SELECTOR.to_le_bytes());
    bytes
}

/// Enters 64-bit mode at once (SDM vol. 3, 11.8.5).
fn enter_long_mode(a: &mut CodeAssembler, bits: u32) -> Assembled {
    a.mov(eax, CR4)?;
    a.mov(cr4, eax)?;
    a.mov(eax, TABLES as u32)?;
    a.mov(cr3, eax)?;
    a.mov(ecx, 0xc000_0080u32)?;
    a.mov(eax, EFER)?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    a.mov(eax, CR0)?;
    a.mov(cr0, eax)?;
    a.db(&jump_to_text(bits))
}

/// What the first processor does in protected mode: the page tables, and the table of descriptors.
pub(in crate::x86) fn entry(at: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let mut page = a.create_label();
    a.cli()?;
    a.mov(edi, TABLES as u32)?;
    a.xor(eax, eax)?;
    a.mov(ecx, 8 * 1024)?;
    a.rep().stosd()?;
    let entry = |table: u64, index: u64| dword_ptr(TABLES + table * 0x1000 + 8 * index);
    let to = |table: u64| (TABLES + table * 0x1000 + PRESENT_WRITABLE) as u32;
    a.mov(entry(0, 0), to(1))?;
    for directory in 0..4 {
        a.mov(entry(1, directory), to(2 + directory))?;
    }
    a.mov(entry(1, WINDOW >> 30), to(6))?;
    a.mov(entry(6, 0), to(7))?;
    // Pages of 2 MiB.
    a.mov(edi, (TABLES + 0x2000) as u32)?;
    a.mov(eax, 0x83)?;
    a.set_label(&mut page)?;
    a.mov(dword_ptr(edi), eax)?;
    a.add(edi, 8)?;
    a.add(eax, 0x20_0000)?;
    a.cmp(edi, (TABLES + 0x6000) as i32)?;
    a.jne(page)?;
    for (at, word) in (GDT..).step_by(4).zip(descriptors()) {
        a.mov(dword_ptr(at), word)?;
    }
    a.lgdt(ptr(GDTR))?;
    enter_long_mode(&mut a, 32)?;
    a.assemble(at)
}

/// What the other processors do in real mode, with CS at the beginning of [`TRAMPOLINE`].
fn trampoline() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    a.cli()?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    // LGDT with a 32-bit base, of the table that the first processor made.
    a.db(&[0x66, 0x0f, 0x01, 0x16])?;
    a.db(&(GDTR as u16).to_le_bytes())?;
    enter_long_mode(&mut a, 16)?;
    a.assemble(0)
}
