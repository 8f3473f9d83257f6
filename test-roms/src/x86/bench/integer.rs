//! Loops on general-purpose registers and memory, each in 64 and in 32 bits.

use iced_x86::code_asm::*;

use super::{ADDEND, BUFFER, FACTOR, LARGE, SPACE};
use crate::x86::Assembled;

/// Words that [`mem`](wide::mem) walks over, and the bits of an offset into those that it stores to.
const LARGE_WORDS: u32 = 1 << 20;
const NEAR: i32 = 0x7_fffc;

/// The loops on registers of one width: A, B, D, S, T, P as eax, ebx, edx, esi, edi, ebp.
macro_rules! loops {
    ($module:ident: $a:ident $b:ident $d:ident $s:ident $t:ident $p:ident, $word:ident) => {
        pub(in crate::x86) mod $module {
            use super::*;

            /// Sums, rotations, a product, a load, a store and a branch by the data.
            pub(in crate::x86) fn int(a: &mut CodeAssembler) -> Assembled {
                let (mut again, mut even) = (a.create_label(), a.create_label());
                a.set_label(&mut again)?;
                a.add($a, $b)?;
                a.xor($d, $a)?;
                a.rol($a, 7)?;
                a.lea($s, ptr($a + $d * 4 + 0x123_4567))?;
                a.sub($d, $s)?;
                a.mov(edi, eax)?;
                a.and(edi, 0xff8)?;
                a.mov($p, ptr($t + BUFFER))?;
                a.add($p, $d)?;
                a.mov(ptr($t + BUFFER), $p)?;
                a.imul_3($b, $a, 0x1_0dcd)?;
                a.add($b, 0x3039)?;
                a.test(eax, 0x100)?;
                a.je(even)?;
                a.xor($d, $p)?;
                a.set_label(&mut even)?;
                a.dec(ecx)?;
                a.jne(again)
            }

            /// Calls through a table, branches that no predictor knows, SETcc, CMOVcc.
            pub(in crate::x86) fn branchy(a: &mut CodeAssembler) -> Assembled {
                let (mut begin, mut again) = (a.create_label(), a.create_label());
                let mut leaves = [(); 8].map(|()| a.create_label());
                a.jmp(begin)?;
                let [add, xor, nested, either, rotate, least, scaled, double] = &mut leaves;
                a.set_label(add)?;
                a.add(edx, eax)?;
                a.ret()?;
                a.set_label(xor)?;
                a.xor(edx, eax)?;
                a.ret()?;
                a.set_label(nested)?;
                a.push($a)?;
                a.call(*add)?;
                a.pop($a)?;
                a.ret()?;
                a.set_label(either)?;
                a.test(eax, 0x8000)?;
                a.je(*add)?;
                a.jmp(*xor)?;
                a.set_label(rotate)?;
                a.rol(ebx, 3)?;
                a.ret()?;
                let mut below = a.create_label();
                a.set_label(least)?;
                a.cmp(edx, eax)?;
                a.jb(below)?;
                a.neg(edx)?;
                a.set_label(&mut below)?;
                a.ret()?;
                a.set_label(scaled)?;
                a.push($b)?;
                a.mov(ebx, edx)?;
                a.shr(ebx, 3)?;
                a.add(edx, ebx)?;
                a.pop($b)?;
                a.ret()?;
                a.set_label(double)?;
                a.lea(edx, ptr($d + $a * 2))?;
                a.ret()?;
                a.set_label(&mut begin)?;
                // The table holds the addresses of jumps to the leaves: they are what calls leave on the stack.
                for (at, leaf) in (SPACE..).step_by(8).zip(leaves) {
                    let mut behind = a.create_label();
                    a.call(behind)?;
                    a.jmp(leaf)?;
                    a.set_label(&mut behind)?;
                    a.pop($s)?;
                    a.mov(ptr(at), $s)?;
                }
                a.xor(esi, esi)?;
                let (mut add, mut join, mut above, mut some) =
                    (a.create_label(), a.create_label(), a.create_label(), a.create_label());
                a.set_label(&mut again)?;
                a.imul_3(eax, eax, FACTOR)?;
                a.add(eax, ADDEND)?;
                a.mov(edi, eax)?;
                a.shr(edi, 29)?;
                a.call($word($t * 8 + SPACE))?;
                a.bt(eax, 20)?;
                a.jb(add)?;
                a.add(edx, esi)?;
                a.jmp(join)?;
                a.set_label(&mut add)?;
                a.sub(edx, edi)?;
                a.set_label(&mut join)?;
                a.cmp(eax, ebx)?;
                a.ja(above)?;
                a.inc(ebp)?;
                a.set_label(&mut above)?;
                a.cmovs(esi, eax)?;
                a.test(eax, 0x30_0000)?;
                a.sete(bl)?;
                a.jne(some)?;
                a.call(leaves[1])?;
                a.set_label(&mut some)?;
                a.dec(ecx)?;
                a.jne(again)?;
                a.add(edx, ebp)
            }

            /// Loads that depend on loads over 4 MiB, and stores over 512 KiB.
            pub(in crate::x86) fn mem(a: &mut CodeAssembler) -> Assembled {
                let (mut fill, mut again) = (a.create_label(), a.create_label());
                a.xor(edi, edi)?;
                a.set_label(&mut fill)?;
                a.imul_3(eax, eax, FACTOR)?;
                a.add(eax, ADDEND)?;
                a.mov(dword_ptr($t * 4 + LARGE), eax)?;
                a.inc(edi)?;
                a.cmp(edi, LARGE_WORDS)?;
                a.jne(fill)?;
                a.set_label(&mut again)?;
                a.mov(edi, eax)?;
                a.shr(edi, 13)?;
                a.mov(edx, dword_ptr($t + LARGE))?;
                a.lea(eax, ptr($a + $d * 4 + 1))?;
                a.mov(esi, eax)?;
                a.and(esi, NEAR)?;
                a.add(dword_ptr($s + LARGE), eax)?;
                a.movzx(ebx, word_ptr($s + (LARGE + 2)))?;
                a.xor(eax, ebx)?;
                a.mov(bl, byte_ptr($t + LARGE))?;
                a.add(al, bl)?;
                a.dec(ecx)?;
                a.jne(again)
            }
        }
    };
}
loops!(wide: rax rbx rdx rsi rdi rbp, qword_ptr);
loops!(narrow: eax ebx edx esi edi ebp, dword_ptr);
