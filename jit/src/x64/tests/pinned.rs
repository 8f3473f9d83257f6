//! The host code of a few guest blocks, so that a change of it is seen.
#![allow(clippy::useless_conversion)] // In what `dynasm!` expands to.

use dynasmrt::riscv::RiscvRelocation;
use dynasmrt::{VecAssembler, dynasm};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, OpKind, Register};

use crate::ir::Block;
use crate::ir::opt::Passes;
use crate::riscv::lift::{Lifter, ModeKey};
use crate::x64::asm::{Code, Mem, RSP, Size};
use crate::x64::{Calls, Emitter, HostFeatures, Place, Thunks};

/// A host that has everything, so that the code is the same everywhere.
const FEATURES: HostFeatures = HostFeatures {
    bmi1: true,
    bmi2: true,
    lzcnt: true,
    popcnt: true,
    pclmulqdq: true,
    sse41: true,
    avx: true,
    fma: true,
};
/// Bytes of the counter's check at the beginning.
const PROLOGUE: u64 = 11;
const THUNKS: usize = 0x1_0000;

/// Shows where a jump or call leads.
fn target(insn: &Instruction, thunks: &Thunks) -> Option<String> {
    if insn.op_count() != 1 || insn.op0_kind() != OpKind::NearBranch64 {
        return None;
    }
    let to = insn.near_branch_target();
    let thunk = [
        (thunks.link, "link"),
        (thunks.lookup, "lookup"),
        (thunks.budget, "budget"),
        (thunks.load, "load"),
        (thunks.store, "store"),
        (thunks.lead_load, "lead_load"),
        (thunks.lead_load_for_write, "lead_load_for_write"),
        (thunks.lead_store, "lead_store"),
        (thunks.perform, "perform"),
    ];
    let name = thunk.iter().find(|(at, _)| *at as u64 == to);
    Some(name.map_or(format!("{to:x}"), |(_, name)| (*name).to_string()))
}

/// The code emitted for a block at address 0, without the counter's check; `whole` includes what is out of line.
fn listing(block: &Block, whole: bool) -> String {
    let calls = Calls { load: 0, store: 0, perform: 0 };
    let (thunks, _) = Thunks::emit(THUNKS, &calls);
    let place = Place { at: 0, first_link: 1, first_perform: 2 };
    let mut emitter = Emitter { features: FEATURES, ..Emitter::new() };
    let emitted = emitter.emit(block, place, &thunks).unwrap();
    let end = if whole { u64::MAX } else { emitted.out_of_line.into() };
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_hex_prefix("0x");
    formatter.options_mut().set_hex_suffix("");
    formatter.options_mut().set_uppercase_hex(false);
    let mut text = String::new();
    for insn in Decoder::with_ip(64, emitted.code, 0, DecoderOptions::NONE) {
        if !(PROLOGUE..end).contains(&insn.ip()) {
            continue;
        }
        text += &format!("{:3x} ", insn.ip());
        match target(&insn, &thunks) {
            Some(to) => text += &format!("{:?} {to}", insn.mnemonic()).to_lowercase(),
            None => formatter.format(&insn, &mut text),
        }
        text.push('\n');
    }
    text
}

type Guest = VecAssembler<RiscvRelocation>;

/// The host code for guest code at offset 0x100 of a page.
fn translated(guest: impl FnOnce(&mut Guest), whole: bool) -> String {
    let mut assembler = Guest::new(0);
    guest(&mut assembler);
    let mut code = assembler.finalize().unwrap();
    // What is not defined ends a block.
    code.extend([0; 4]);
    let read = |at: u64| {
        let at = at as usize - 0x100;
        u16::from_le_bytes([code[at], code[at + 1]])
    };
    let mut lifter = Lifter::new(Passes::all(), |op| FEATURES.supports(op));
    listing(lifter.lift_block(read, 0x100, ModeKey { fp: false }).unwrap(), whole)
}

/// Compares the host code of guest code with lines of text.
macro_rules! pinned {
    ($name:ident: $($code:tt)*) => { pinned! { @ $name false $($code)* } };
    (whole $name:ident: $($code:tt)*) => { pinned! { @ $name true $($code)* } };
    (@ $name:ident $whole:ident { $($code:tt)* } $($line:literal)*) => {
        #[test]
        fn $name() {
            let code = translated(
                |ops| {
                    dynasm!(ops; .arch riscv64; .feature i,m; $($code)*);
                },
                $whole,
            );
            let lines: Vec<_> = code.lines().collect();
            assert_eq!(lines, [$($line),*], "\n{code}");
        }
    };
}

pinned! { addi: { addi a0, a0, 1; addi a1, a0, -5; addi t0, t0, 8; addi t1, t0, 8; j 0x20 }
    "  b add rdi,1"
    "  f lea rsi,[rdi-5]"
    " 13 add qword ptr [rbp+0x28],8"
    " 18 mov rax,[rbp+0x28]"
    " 1c add rax,8"
    " 20 mov [rbp+0x30],rax"
    " 24 jmp 38"
}

pinned! { ld: { ld a0, [sp, 8]; ld t0, [a0]; lw a0, [t1, 8]; j 0x20 }
    "  b lea rcx,[rbx+8]"
    "  f shr rcx,7"
    " 13 lea rdx,[rbx+0xf]"
    " 17 and ecx,[rbp-0x60]"
    " 1a add rcx,[rbp-0x68]"
    " 1e and rdx,0xfffffffffffff000"
    " 25 cmp rdx,[rcx]"
    " 28 jne a8"
    " 2e mov rcx,[rcx+0x10]"
    " 32 mov rdi,[rbx+rcx+8]"
    " 37 rorx rcx,rdi,7"
    " 3d lea rdx,[rdi+7]"
    " 41 and ecx,[rbp-0x60]"
    " 44 add rcx,[rbp-0x68]"
    " 48 and rdx,0xfffffffffffff000"
    " 4f cmp rdx,[rcx]"
    " 52 jne be"
    " 58 mov rcx,[rcx+0x10]"
    " 5c mov rax,[rdi+rcx]"
    " 60 mov [rbp+0x28],rax"
    " 64 mov rax,[rbp+0x30]"
    " 68 lea rcx,[rax+8]"
    " 6c shr rcx,7"
    " 70 lea rdx,[rax+0xb]"
    " 74 and ecx,[rbp-0x60]"
    " 77 add rcx,[rbp-0x68]"
    " 7b and rdx,0xfffffffffffff000"
    " 82 cmp rdx,[rcx]"
    " 85 jne d0"
    " 8b mov rcx,[rcx+0x10]"
    " 8f movsxd rdi,[rax+rcx+8]"
    " 94 jmp e6"
}

pinned! { sd: { sd a0, [sp, 8]; sd t0, [t1, -8]; sw zero, [a0]; j 0x20 }
    "  b lea rcx,[rbx+8]"
    "  f shr rcx,7"
    " 13 lea rdx,[rbx+0xf]"
    " 17 and ecx,[rbp-0x60]"
    " 1a add rcx,[rbp-0x68]"
    " 1e and rdx,0xfffffffffffff000"
    " 25 cmp rdx,[rcx+8]"
    " 29 jne ae"
    " 2f mov rcx,[rcx+0x10]"
    " 33 mov [rbx+rcx+8],rdi"
    " 38 mov rax,[rbp+0x30]"
    " 3c lea rcx,[rax-8]"
    " 40 shr rcx,7"
    " 44 lea rdx,[rax-1]"
    " 48 and ecx,[rbp-0x60]"
    " 4b add rcx,[rbp-0x68]"
    " 4f and rdx,0xfffffffffffff000"
    " 56 cmp rdx,[rcx+8]"
    " 5a jne c4"
    " 60 mov rcx,[rcx+0x10]"
    " 64 mov rdx,[rbp+0x28]"
    " 68 mov [rax+rcx-8],rdx"
    " 6d rorx rcx,rdi,7"
    " 73 lea rdx,[rdi+3]"
    " 77 and ecx,[rbp-0x60]"
    " 7a add rcx,[rbp-0x68]"
    " 7e and rdx,0xfffffffffffff000"
    " 85 cmp rdx,[rcx+8]"
    " 89 jne db"
    " 8f mov rcx,[rcx+0x10]"
    " 93 mov dword ptr [rdi+rcx],0"
    " 9a jmp ef"
}

pinned! { whole slow_paths: { ld t0, [a0]; lw a0, [t1, 8]; sd zero, [sp]; j 0x20 }
    "  b rorx rcx,rdi,7"
    " 11 lea rdx,[rdi+7]"
    " 15 and ecx,[rbp-0x60]"
    " 18 add rcx,[rbp-0x68]"
    " 1c and rdx,0xfffffffffffff000"
    " 23 cmp rdx,[rcx]"
    " 26 jne aa"
    " 2c mov rcx,[rcx+0x10]"
    " 30 mov rax,[rdi+rcx]"
    " 34 mov [rbp+0x28],rax"
    " 38 mov rax,[rbp+0x30]"
    " 3c lea rcx,[rax+8]"
    " 40 shr rcx,7"
    " 44 lea rdx,[rax+0xb]"
    " 48 and ecx,[rbp-0x60]"
    " 4b add rcx,[rbp-0x68]"
    " 4f and rdx,0xfffffffffffff000"
    " 56 cmp rdx,[rcx]"
    " 59 jne bc"
    " 5f mov rcx,[rcx+0x10]"
    " 63 movsxd rdi,[rax+rcx+8]"
    " 68 rorx rcx,rbx,7"
    " 6e lea rdx,[rbx+7]"
    " 72 and ecx,[rbp-0x60]"
    " 75 add rcx,[rbp-0x68]"
    " 79 and rdx,0xfffffffffffff000"
    " 80 cmp rdx,[rcx+8]"
    " 84 jne d2"
    " 8a mov rcx,[rcx+0x10]"
    " 8e mov qword ptr [rbx+rcx],0"
    " 96 jmp e6"
    " 9b add qword ptr [rbp-0x70],4"
    " a0 mov eax,0x100"
    " a5 jmp budget"
    " aa mov rax,rdi"
    " ad mov ecx,0x43101"
    " b2 call load"
    " b7 jmp 34"
    " bc lea rax,[rax+8]"
    " c0 mov ecx,0x32105"
    " c5 call load"
    " ca movsxd rdi,eax"
    " cd jmp 68"
    " d2 xor edx,edx"
    " d4 mov rax,rbx"
    " d7 mov ecx,0x23109"
    " dc call store"
    " e1 jmp 96"
    " e6 mov eax,1"
    " eb jmp link"
}

pinned! { whole grouped: { addi sp, sp, -32; sd ra, [sp, 24]; sd s0, [sp, 16]; addi s0, sp, 32; lw t0, [s0, -20]; sd t0, [sp, 8]; j 0x20 }
    "  b add rbx,0xffffffffffffffe0"
    "  f lea rcx,[rbx+8]"
    " 13 shr rcx,7"
    " 17 lea rdx,[rbx+0x1f]"
    " 1b and ecx,[rbp-0x60]"
    " 1e add rcx,[rbp-0x68]"
    " 22 and rdx,0xfffffffffffff000"
    " 29 cmp rdx,[rcx+8]"
    " 2d jne 6b"
    " 33 mov rcx,[rcx+0x10]"
    " 37 mov [rbx+rcx+0x18],r14"
    " 3c mov [rbx+rcx+0x10],r12"
    " 41 lea r12,[rbx+0x20]"
    " 45 movsxd rax,[r12+rcx-0x14]"
    " 4a mov [rbp+0x28],rax"
    " 4e mov rax,[rbp+0x28]"
    " 52 mov [rbx+rcx+8],rax"
    " 57 jmp 91"
    " 5c add qword ptr [rbp-0x70],7"
    " 61 mov eax,0x100"
    " 66 jmp budget"
    " 6b mov rdx,r14"
    " 6e lea rax,[rbx+0x18]"
    " 72 mov rcx,0x17001000063105"
    " 7c call lead_store"
    " 81 je 3c"
    " 87 add qword ptr [rbp-0x70],5"
    " 8c jmp 9b"
    " 91 mov eax,1"
    " 96 jmp link"
    " 9b mov eax,2"
    " a0 jmp link"
}

pinned! { grouped_with_another_between: { lw a0, [s0]; lbu a1, [a2]; ld t1, [s0, 8]; lbu a3, [a2, 1]; ld a0, [s0, 16]; j 0x20 }
    "  b rorx rcx,r12,7"
    " 11 lea rdx,[r12+0x17]"
    " 16 and ecx,[rbp-0x60]"
    " 19 add rcx,[rbp-0x68]"
    " 1d and rdx,0xfffffffffffff000"
    " 24 cmp rdx,[rcx]"
    " 27 jne 8f"
    " 2d mov rcx,[rcx+0x10]"
    " 31 movsxd rdi,[r12+rcx]"
    " 35 mov [rsp],rcx"
    " 39 rorx rcx,r8,7"
    " 3f lea rdx,[r8+1]"
    " 43 and ecx,[rbp-0x60]"
    " 46 add rcx,[rbp-0x68]"
    " 4a and rdx,0xfffffffffffff000"
    " 51 cmp rdx,[rcx]"
    " 54 jne b4"
    " 5a mov rcx,[rcx+0x10]"
    " 5e movzx esi,byte ptr [r8+rcx]"
    " 63 mov rax,[rsp]"
    " 67 mov rdx,[r12+rax+8]"
    " 6c mov [rbp+0x30],rdx"
    " 70 movzx r9d,byte ptr [r8+rcx+1]"
    " 76 mov rdi,[r12+rax+0x10]"
    " 7b jmp d9"
}

pinned! { whole branches: { beq a0, a1, 0x40; bnez a0, -4; bltu a0, t0, -0xc; beq t0, t1, -0x10c }
    "  b cmp rdi,rsi"
    "  e je 58"
    " 14 test rdi,rdi"
    " 17 jne 62"
    " 1d cmp rdi,[rbp+0x28]"
    " 21 jb 6c"
    " 27 mov rax,[rbp+0x28]"
    " 2b cmp rax,[rbp+0x30]"
    " 2f je 76"
    " 35 mov eax,2"
    " 3a mov ecx,0x10110"
    " 3f call perform"
    " 44 jmp 80"
    " 49 add qword ptr [rbp-0x70],5"
    " 4e mov eax,0x100"
    " 53 jmp budget"
    " 58 add qword ptr [rbp-0x70],4"
    " 5d jmp 8a"
    " 62 add qword ptr [rbp-0x70],3"
    " 67 jmp 0"
    " 6c add qword ptr [rbp-0x70],2"
    " 71 jmp 94"
    " 76 add qword ptr [rbp-0x70],1"
    " 7b jmp 9e"
    " 80 mov eax,1"
    " 85 jmp link"
    " 8a mov eax,2"
    " 8f jmp link"
    " 94 mov eax,3"
    " 99 jmp link"
    " 9e mov eax,4"
    " a3 jmp link"
}

pinned! { jalr: { jalr ra, ra, 8 }
    "  b lea rax,[r14+8]"
    "  f and rax,0xfffffffffffffffe"
    " 13 mov r14,[rbp-0x80]"
    " 17 add r14,0x104"
    " 1e mov rcx,[rbp-0x58]"
    " 22 mov edx,eax"
    " 24 and edx,0x1ffe"
    " 2a cmp rax,[rcx+rdx*8]"
    " 2e jne lookup"
    " 34 and rax,0xfffffffffffff000"
    " 3b mov [rbp-0x80],rax"
    " 3f jmp qword ptr [rcx+rdx*8+8]"
}

pinned! { ret: { ret }
    "  b mov rax,r14"
    "  e and rax,0xfffffffffffffffe"
    " 12 mov rcx,[rbp-0x58]"
    " 16 mov edx,eax"
    " 18 and edx,0x1ffe"
    " 1e cmp rax,[rcx+rdx*8]"
    " 22 jne lookup"
    " 28 and rax,0xfffffffffffff000"
    " 2f mov [rbp-0x80],rax"
    " 33 jmp qword ptr [rcx+rdx*8+8]"
}

pinned! { jal: { jal ra, 0x1234 }
    "  b mov r14,[rbp-0x80]"
    "  f add r14,0x104"
    " 16 mov rax,[rbp-0x80]"
    " 1a add rax,0x1334"
    " 21 mov rcx,[rbp-0x58]"
    " 25 mov edx,eax"
    " 27 and edx,0x1ffe"
    " 2d cmp rax,[rcx+rdx*8]"
    " 31 jne lookup"
    " 37 and rax,0xfffffffffffff000"
    " 3e mov [rbp-0x80],rax"
    " 42 jmp qword ptr [rcx+rdx*8+8]"
}

pinned! { words: { addw a0, a0, a1; addw t0, t0, t1; addiw a0, a0, 1; mulw a0, a0, a2; j 0x20 }
    "  b lea eax,[rdi+rsi]"
    "  e movsxd rdi,eax"
    " 11 mov rax,[rbp+0x28]"
    " 15 add eax,[rbp+0x30]"
    " 18 movsxd rax,eax"
    " 1b mov [rbp+0x28],rax"
    " 1f lea eax,[rdi+1]"
    " 22 movsxd rdi,eax"
    " 25 mov rax,rdi"
    " 28 imul eax,r8d"
    " 2c movsxd rdi,eax"
    " 2f jmp 43"
}

pinned! { shifts: { slli a0, a0, 32; srli a0, a0, 32; slli a1, a0, 3; slli t0, t0, 3; sllw a0, a0, a1; srlw a1, t0, a1; sraw t0, t0, t1; srliw a1, a1, 4; slliw a2, a2, 3; j 0x20 }
    "  b mov edi,edi"
    "  d mov rsi,rdi"
    " 10 shl rsi,3"
    " 14 mov rax,[rbp+0x28]"
    " 18 shl rax,3"
    " 1c mov [rbp+0x28],rax"
    " 20 shlx edi,edi,esi"
    " 25 movsxd rdi,edi"
    " 28 shrx esi,[rbp+0x28],esi"
    " 2e movsxd rsi,esi"
    " 31 mov rax,[rbp+0x30]"
    " 35 sarx eax,[rbp+0x28],eax"
    " 3b movsxd rax,eax"
    " 3e mov [rbp+0x28],rax"
    " 42 mov esi,esi"
    " 44 shr rsi,4"
    " 48 shl r8d,3"
    " 4c movsxd r8,r8d"
    " 4f jmp 63"
}

pinned! { constants: { lui a0, 0x12345000; lui t0, 0x12345000; mv a1, a2; mv t1, t2; auipc a3, 4096; j 0x20 }
    "  b mov edi,0x12345000"
    " 10 mov qword ptr [rbp+0x28],0x12345000"
    " 18 mov rsi,r8"
    " 1b mov rax,[rbp+0x38]"
    " 1f mov [rbp+0x30],rax"
    " 23 mov r9,[rbp-0x80]"
    " 27 add r9,0x1110"
    " 2e jmp 42"
}

pinned! { arithmetic: { sltu a0, a1, a2; seqz a0, a0; slt t0, t1, a0; and a0, a0, a1; andi a2, a2, 15; sub a0, a1, a0; add a3, a4, t3; j 0x20 }
    "  b xor edi,edi"
    "  d cmp rsi,r8"
    " 10 setb dil"
    " 14 test rdi,rdi"
    " 17 sete dil"
    " 1b movzx edi,dil"
    " 1f xor eax,eax"
    " 21 cmp [rbp+0x30],rdi"
    " 25 setl al"
    " 28 mov [rbp+0x28],rax"
    " 2c and rdi,rsi"
    " 2f and r8d,0xf"
    " 33 neg rdi"
    " 36 add rdi,rsi"
    " 39 mov r9,r10"
    " 3c add r9,[rbp+0xe0]"
    " 43 jmp 57"
}

/// Memory operands, decoded by somebody else.
#[test]
fn memory_operands() {
    let mut code = Code::default();
    let mut check = |mem: Mem, base: u8, index: Option<(u8, u8)>, disp: i32| {
        code.start(0);
        code.lea(Size::Q, 9, mem);
        let insn = Decoder::with_ip(64, code.bytes(), 0, DecoderOptions::NONE).decode();
        assert_eq!((insn.code(), insn.len()), (iced_x86::Code::Lea_r64_m, code.bytes().len()));
        assert_eq!(insn.op0_register(), Register::R9);
        assert_eq!(insn.memory_base(), Register::RAX + u32::from(base));
        assert_eq!(insn.memory_displacement64(), disp as u64);
        match index {
            None => assert_eq!(insn.memory_index(), Register::None),
            Some((index, scale)) => {
                assert_eq!(insn.memory_index(), Register::RAX + u32::from(index));
                assert_eq!(insn.memory_index_scale(), 1 << scale);
            }
        }
    };
    for base in 0..16 {
        for disp in [0, 1, -1, 127, 128, -128, -129, i32::MAX, i32::MIN] {
            check(Mem::new(base, disp), base, None, disp);
            for index in (0..16).filter(|index| *index != RSP) {
                for scale in 0..4 {
                    let mem = Mem::indexed(base, index, scale, disp);
                    check(mem, base, Some((index, scale)), disp);
                }
            }
        }
    }
}
