//! How the guest tells what came of its cells: it prints them, or those that differ, and reports the first.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::driver::Driver;
use super::driver::variable::*;

const DEBUG_CONSOLE: u32 = 0xe9;
const DEBUG_EXIT: i32 = 0xf4;
/// Bochs ends when it reads this word at this port.
const BOCHS_END: (u32, &str) = (0x8900, "Shutdown");

impl Driver<'_> {
    /// Reports the first case that failed, or 0.
    pub(super) fn end(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        a.mov(eax, dword_ptr(FAILED))?;
        a.out(DEBUG_EXIT, eax)?;
        let (port, word) = BOCHS_END;
        a.mov(edx, port)?;
        for byte in word.bytes() {
            a.mov(al, u32::from(byte))?;
            a.out(dx, al)?;
        }
        let mut halt = a.create_label();
        a.set_label(&mut halt)?;
        a.cli()?;
        a.hlt()?;
        a.jmp(halt)
    }

    /// Prints the outcome, or compares it and prints it if it is another one than the expected.
    pub(super) fn judge(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        let words = self.table.words.len() as u32;
        let [mut print, mut hex, mut compare, mut first, mut end] =
            [(); 5].map(|()| a.create_label());
        a.cmp(dword_ptr(LIST), 0)?;
        a.je(compare)?;
        a.mov(esi, COMPARED)?;
        a.call(print)?;
        Self::character(a, b'\n')?;
        a.jmp(end)?;

        a.set_label(&mut compare)?;
        a.mov(ecx, dword_ptr(CELL))?;
        a.movzx(eax, word_ptr(ecx * 2 + self.indices))?;
        a.imul_3(edi, eax, 4 * words as i32)?;
        a.add(edi, self.known as i32)?;
        a.mov(ebp, edi)?;
        a.mov(esi, COMPARED)?;
        a.mov(ecx, words)?;
        a.repe().cmpsd()?;
        a.je(end)?;
        a.mov(ebx, dword_ptr(CELL))?;
        a.inc(ebx)?;
        a.cmp(dword_ptr(FAILED), 0)?;
        a.jne(first)?;
        a.mov(dword_ptr(FAILED), ebx)?;
        a.set_label(&mut first)?;
        Self::text(a, "case 0x")?;
        a.call(hex)?;
        Self::text(a, ": ")?;
        a.mov(esi, COMPARED)?;
        a.call(print)?;
        Self::text(a, "instead of ")?;
        a.mov(esi, ebp)?;
        a.call(print)?;
        Self::character(a, b'\n')?;
        a.jmp(end)?;

        // The words at ESI, each with a space behind it.
        let mut next = a.create_label();
        a.set_label(&mut print)?;
        a.mov(ecx, words)?;
        a.set_label(&mut next)?;
        a.mov(ebx, dword_ptr(esi))?;
        a.add(esi, 4)?;
        a.call(hex)?;
        Self::character(a, b' ')?;
        a.dec(ecx)?;
        a.jne(next)?;
        a.ret()?;
        // EBX without leading zeros; EDI counts what is left to print.
        let [mut skip, mut digit, mut letter, mut out] = [(); 4].map(|()| a.create_label());
        a.set_label(&mut hex)?;
        a.mov(edi, 8)?;
        a.set_label(&mut skip)?;
        a.cmp(edi, 1)?;
        a.je(digit)?;
        a.test(ebx, 0xf000_0000u32 as i32)?;
        a.jne(digit)?;
        a.shl(ebx, 4)?;
        a.dec(edi)?;
        a.jmp(skip)?;
        a.set_label(&mut digit)?;
        a.rol(ebx, 4)?;
        a.mov(al, bl)?;
        a.and(al, 15)?;
        a.cmp(al, 10)?;
        a.jae(letter)?;
        a.add(al, i32::from(b'0'))?;
        a.jmp(out)?;
        a.set_label(&mut letter)?;
        a.add(al, i32::from(b'a' - 10))?;
        a.set_label(&mut out)?;
        a.mov(edx, DEBUG_CONSOLE)?;
        a.out(dx, al)?;
        a.dec(edi)?;
        a.jne(digit)?;
        a.ret()?;
        a.set_label(&mut end)?;
        a.zero_bytes()
    }

    fn text(a: &mut CodeAssembler, text: &str) -> Result<(), IcedError> {
        text.bytes().try_for_each(|byte| Self::character(a, byte))
    }

    fn character(a: &mut CodeAssembler, byte: u8) -> Result<(), IcedError> {
        a.mov(edx, DEBUG_CONSOLE)?;
        a.mov(al, u32::from(byte))?;
        a.out(dx, al)
    }
}
