//! String instructions with REP.

use iced_x86::code_asm::*;

use super::{ADDEND, BUFFER, FACTOR, TARGET};
use crate::x86::Assembled;

/// Steps of the longer ones.
const STEPS: u32 = 1000;
/// Where those begin that are not aligned.
const ODD: u64 = TARGET + 4097;

/// Copies of 4 KiB in words of four bytes, aligned, and of 1000 bytes that are not.
pub(in crate::x86) fn movs(a: &mut CodeAssembler) -> Assembled {
    let mut again = a.create_label();
    a.mov(ebp, ecx)?;
    a.set_label(&mut again)?;
    a.mov(esi, BUFFER as u32)?;
    a.mov(edi, TARGET as u32)?;
    a.mov(ecx, 1024)?;
    a.rep().movsd()?;
    a.mov(esi, (BUFFER + 3) as u32)?;
    a.mov(edi, ODD as u32)?;
    a.mov(ecx, STEPS)?;
    a.rep().movsb()?;
    a.dec(ebp)?;
    a.jne(again)?;
    a.mov(eax, dword_ptr(TARGET + 5000))?;
    a.mov(edx, dword_ptr(TARGET + 4092))
}

/// Fills as long.
pub(in crate::x86) fn stos(a: &mut CodeAssembler) -> Assembled {
    let mut again = a.create_label();
    a.mov(ebp, ecx)?;
    a.set_label(&mut again)?;
    a.mov(edi, TARGET as u32)?;
    a.mov(eax, ebp)?;
    a.mov(ecx, 1024)?;
    a.rep().stosd()?;
    a.mov(edi, ODD as u32)?;
    a.mov(ecx, STEPS)?;
    a.rep().stosb()?;
    a.dec(ebp)?;
    a.jne(again)?;
    a.mov(eax, dword_ptr(TARGET + 5000))?;
    a.mov(edx, dword_ptr(TARGET + 4092))
}

/// A scan for a byte that is not there, a comparison of what is equal, a scan over what is equal.
pub(in crate::x86) fn scas(a: &mut CodeAssembler) -> Assembled {
    let mut again = a.create_label();
    a.mov(ebp, ecx)?;
    a.xor(edx, edx)?;
    a.set_label(&mut again)?;
    a.mov(edi, (TARGET + 1) as u32)?;
    a.mov(al, 1)?;
    a.mov(ecx, STEPS)?;
    a.repne().scasb()?;
    a.add(edx, edi)?;
    a.mov(esi, TARGET as u32)?;
    a.mov(edi, (TARGET + 4096) as u32)?;
    a.mov(ecx, STEPS)?;
    a.repe().cmpsb()?;
    a.add(edx, ecx)?;
    a.mov(edi, TARGET as u32)?;
    a.xor(eax, eax)?;
    a.mov(ecx, STEPS)?;
    a.repe().scasd()?;
    a.add(edx, edi)?;
    a.dec(ebp)?;
    a.jne(again)
}

/// Copies of 1 to 16 bytes, as compilers and C libraries do.
pub(in crate::x86) fn short(a: &mut CodeAssembler) -> Assembled {
    let mut again = a.create_label();
    a.mov(ebp, ecx)?;
    a.set_label(&mut again)?;
    a.imul_3(eax, eax, FACTOR)?;
    a.add(eax, ADDEND)?;
    a.mov(ecx, eax)?;
    a.shr(ecx, 28)?;
    a.inc(ecx)?;
    a.mov(esi, eax)?;
    a.and(esi, 0xff)?;
    a.add(esi, BUFFER as u32)?;
    a.mov(edi, TARGET as u32)?;
    a.rep().movsb()?;
    a.add(edx, edi)?;
    a.dec(ebp)?;
    a.jne(again)
}
