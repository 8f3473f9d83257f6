//! The host code of a few guest blocks, so that a change of it is seen.
#![allow(clippy::useless_conversion)] // In what `dynasm!` expands to.

use dynasmrt::riscv::RiscvRelocation;
use dynasmrt::{VecAssembler, dynasm};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, OpKind, Register};

use mimic_cpu::riscv::hart::Mode;

use crate::ir::Block;
use crate::ir::opt::Passes;
use crate::ir::region::Region;
use crate::riscv::lift::{Lifter, ModeKey};
use crate::x64::asm::{Code, Mem, RSP, Size};
use crate::x64::fp::CONSTANTS;
use crate::x64::{Calls, Emitted, Emitter, HostFeatures, Place, Thunks};

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
        (thunks.atomic, "atomic"),
        (thunks.perform, "perform"),
    ];
    let name = thunk.iter().find(|(at, _)| *at as u64 == to);
    Some(name.map_or(format!("{to:x}"), |(_, name)| (*name).to_string()))
}

/// The code emitted for a block at address 0; `whole` includes what is out of line.
fn listing(block: &Block, whole: bool) -> String {
    let calls = Calls { load: 0, store: 0, atomic: 0, perform: 0 };
    let (thunks, _) = Thunks::emit(THUNKS, &calls, true);
    let place = Place { at: 0, first_link: 1, first_perform: 2 };
    let mut emitter = Emitter { features: FEATURES, ..Emitter::new() };
    let emitted = emitter.emit(block, place, &thunks).unwrap();
    show(&emitted, &thunks, whole)
}

/// The same for a region, all of it.
pub(super) fn region_listing(region: &Region) -> Vec<String> {
    let calls = Calls { load: 0, store: 0, atomic: 0, perform: 0 };
    let (thunks, _) = Thunks::emit(THUNKS, &calls, true);
    let place = Place { at: 0, first_link: 1, first_perform: 2 };
    let mut emitter = Emitter { features: FEATURES, ..Emitter::new() };
    let emitted = emitter.emit_region(region, place, &thunks).unwrap();
    show(&emitted, &thunks, true).lines().map(str::to_owned).collect()
}

fn show(emitted: &Emitted<'_>, thunks: &Thunks, whole: bool) -> String {
    let end = if whole { u64::MAX } else { emitted.out_of_line.into() };
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_hex_prefix("0x");
    formatter.options_mut().set_hex_suffix("");
    formatter.options_mut().set_uppercase_hex(false);
    let mut text = String::new();
    for insn in Decoder::with_ip(64, emitted.code, 0, DecoderOptions::NONE) {
        if insn.ip() >= end {
            continue;
        }
        text += &format!("{:3x} ", insn.ip());
        match target(&insn, thunks) {
            Some(to) => text += &format!("{:?} {to}", insn.mnemonic()).to_lowercase(),
            None => formatter.format(&insn, &mut text),
        }
        text.push('\n');
    }
    for (k, bits) in CONSTANTS.iter().enumerate() {
        let at = thunks.constants + 16 * k;
        text = text.replace(&format!("[{at:#x}]"), &format!("[={bits:x}]"));
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
    listing(lifter.lift_block(read, 0x100, ModeKey { fp: true, mode: Mode::S }).unwrap(), whole)
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
                    dynasm!(ops; .arch riscv64; .feature i,m,a,f,d,zfa; $($code)*);
                },
                $whole,
            );
            let lines: Vec<_> = code.lines().collect();
            assert_eq!(lines, [$($line),*], "\n{code}");
        }
    };
}

pinned! { addi: { addi a0, a0, 1; addi a1, a0, -5; addi t0, t0, 8; addi t1, t0, 8; j 0x20 }
    "  0 add rdi,1"
    "  4 lea rsi,[rdi-5]"
    "  8 add qword ptr [rbp+0x28],8"
    "  d mov rax,[rbp+0x28]"
    " 11 add rax,8"
    " 15 mov [rbp+0x30],rax"
    " 19 sub qword ptr [rbp-0x70],5"
    " 1e js 29"
    " 24 jmp 29"
}

pinned! { ld: { ld a0, [sp, 8]; ld t0, [a0]; lw a0, [t1, 8]; j 0x20 }
    "  0 lea rcx,[rbx+8]"
    "  4 shr rcx,7"
    "  8 lea rdx,[rbx+0xf]"
    "  c and ecx,[rbp-0x60]"
    "  f add rcx,[rbp-0x68]"
    " 13 and rdx,0xfffffffffffff000"
    " 1a cmp rdx,[rcx]"
    " 1d jne 99"
    " 23 mov rcx,[rcx+0x10]"
    " 27 mov rdi,[rbx+rcx+8]"
    " 2c rorx rcx,rdi,7"
    " 32 lea rdx,[rdi+7]"
    " 36 and ecx,[rbp-0x60]"
    " 39 add rcx,[rbp-0x68]"
    " 3d and rdx,0xfffffffffffff000"
    " 44 cmp rdx,[rcx]"
    " 47 jne af"
    " 4d mov rcx,[rcx+0x10]"
    " 51 mov rax,[rdi+rcx]"
    " 55 mov [rbp+0x28],rax"
    " 59 mov rax,[rbp+0x30]"
    " 5d lea rcx,[rax+8]"
    " 61 shr rcx,7"
    " 65 lea rdx,[rax+0xb]"
    " 69 and ecx,[rbp-0x60]"
    " 6c add rcx,[rbp-0x68]"
    " 70 and rdx,0xfffffffffffff000"
    " 77 cmp rdx,[rcx]"
    " 7a jne c1"
    " 80 mov rcx,[rcx+0x10]"
    " 84 movsxd rdi,[rax+rcx+8]"
    " 89 sub qword ptr [rbp-0x70],4"
    " 8e js d7"
    " 94 jmp d7"
}

pinned! { sd: { sd a0, [sp, 8]; sd t0, [t1, -8]; sw zero, [a0]; j 0x20 }
    "  0 lea rcx,[rbx+8]"
    "  4 shr rcx,7"
    "  8 lea rdx,[rbx+0xf]"
    "  c and ecx,[rbp-0x60]"
    "  f add rcx,[rbp-0x68]"
    " 13 and rdx,0xfffffffffffff000"
    " 1a cmp rdx,[rcx+8]"
    " 1e jne 9f"
    " 24 mov rcx,[rcx+0x10]"
    " 28 mov [rbx+rcx+8],rdi"
    " 2d mov rax,[rbp+0x30]"
    " 31 lea rcx,[rax-8]"
    " 35 shr rcx,7"
    " 39 lea rdx,[rax-1]"
    " 3d and ecx,[rbp-0x60]"
    " 40 add rcx,[rbp-0x68]"
    " 44 and rdx,0xfffffffffffff000"
    " 4b cmp rdx,[rcx+8]"
    " 4f jne b5"
    " 55 mov rcx,[rcx+0x10]"
    " 59 mov rdx,[rbp+0x28]"
    " 5d mov [rax+rcx-8],rdx"
    " 62 rorx rcx,rdi,7"
    " 68 lea rdx,[rdi+3]"
    " 6c and ecx,[rbp-0x60]"
    " 6f add rcx,[rbp-0x68]"
    " 73 and rdx,0xfffffffffffff000"
    " 7a cmp rdx,[rcx+8]"
    " 7e jne cc"
    " 84 mov rcx,[rcx+0x10]"
    " 88 mov dword ptr [rdi+rcx],0"
    " 8f sub qword ptr [rbp-0x70],4"
    " 94 js e0"
    " 9a jmp e0"
}

pinned! { whole slow_paths: { ld t0, [a0]; lw a0, [t1, 8]; sd zero, [sp]; j 0x20 }
    "  0 rorx rcx,rdi,7"
    "  6 lea rdx,[rdi+7]"
    "  a and ecx,[rbp-0x60]"
    "  d add rcx,[rbp-0x68]"
    " 11 and rdx,0xfffffffffffff000"
    " 18 cmp rdx,[rcx]"
    " 1b jne 9b"
    " 21 mov rcx,[rcx+0x10]"
    " 25 mov rax,[rdi+rcx]"
    " 29 mov [rbp+0x28],rax"
    " 2d mov rax,[rbp+0x30]"
    " 31 lea rcx,[rax+8]"
    " 35 shr rcx,7"
    " 39 lea rdx,[rax+0xb]"
    " 3d and ecx,[rbp-0x60]"
    " 40 add rcx,[rbp-0x68]"
    " 44 and rdx,0xfffffffffffff000"
    " 4b cmp rdx,[rcx]"
    " 4e jne ad"
    " 54 mov rcx,[rcx+0x10]"
    " 58 movsxd rdi,[rax+rcx+8]"
    " 5d rorx rcx,rbx,7"
    " 63 lea rdx,[rbx+7]"
    " 67 and ecx,[rbp-0x60]"
    " 6a add rcx,[rbp-0x68]"
    " 6e and rdx,0xfffffffffffff000"
    " 75 cmp rdx,[rcx+8]"
    " 79 jne c3"
    " 7f mov rcx,[rcx+0x10]"
    " 83 mov qword ptr [rbx+rcx],0"
    " 8b sub qword ptr [rbp-0x70],4"
    " 90 js d7"
    " 96 jmp d7"
    " 9b mov rax,rdi"
    " 9e mov ecx,0x3101"
    " a3 call load"
    " a8 jmp 29"
    " ad lea rax,[rax+8]"
    " b1 mov ecx,0x12105"
    " b6 call load"
    " bb movsxd rdi,eax"
    " be jmp 5d"
    " c3 xor edx,edx"
    " c5 mov rax,rbx"
    " c8 mov ecx,0x23109"
    " cd call store"
    " d2 jmp 8b"
    " d7 mov eax,1"
    " dc jmp link"
}

pinned! { whole grouped: { addi sp, sp, -32; sd ra, [sp, 24]; sd s0, [sp, 16]; addi s0, sp, 32; lw t0, [s0, -20]; sd t0, [sp, 8]; j 0x20 }
    "  0 add rbx,0xffffffffffffffe0"
    "  4 lea rcx,[rbx+8]"
    "  8 shr rcx,7"
    "  c lea rdx,[rbx+0x1f]"
    " 10 and ecx,[rbp-0x60]"
    " 13 add rcx,[rbp-0x68]"
    " 17 and rdx,0xfffffffffffff000"
    " 1e cmp rdx,[rcx+8]"
    " 22 jne 5c"
    " 28 mov rcx,[rcx+0x10]"
    " 2c mov [rbx+rcx+0x18],r14"
    " 31 mov [rbx+rcx+0x10],r12"
    " 36 lea r12,[rbx+0x20]"
    " 3a movsxd rax,[r12+rcx-0x14]"
    " 3f mov [rbp+0x28],rax"
    " 43 mov rax,[rbp+0x28]"
    " 47 mov [rbx+rcx+8],rax"
    " 4c sub qword ptr [rbp-0x70],7"
    " 51 js 88"
    " 57 jmp 88"
    " 5c mov rdx,r14"
    " 5f lea rax,[rbx+0x18]"
    " 63 mov rcx,0x17001000013105"
    " 6d call lead_store"
    " 72 je 31"
    " 78 sub qword ptr [rbp-0x70],2"
    " 7d js 92"
    " 83 jmp 92"
    " 88 mov eax,1"
    " 8d jmp link"
    " 92 mov eax,2"
    " 97 jmp link"
}

pinned! { grouped_with_another_between: { lw a0, [s0]; lbu a1, [a2]; ld t1, [s0, 8]; lbu a3, [a2, 1]; ld a0, [s0, 16]; j 0x20 }
    "  0 rorx rcx,r12,7"
    "  6 lea rdx,[r12+0x17]"
    "  b and ecx,[rbp-0x60]"
    "  e add rcx,[rbp-0x68]"
    " 12 and rdx,0xfffffffffffff000"
    " 19 cmp rdx,[rcx]"
    " 1c jne 80"
    " 22 mov rcx,[rcx+0x10]"
    " 26 movsxd rdi,[r12+rcx]"
    " 2a mov [rsp],rcx"
    " 2e rorx rcx,r8,7"
    " 34 lea rdx,[r8+1]"
    " 38 and ecx,[rbp-0x60]"
    " 3b add rcx,[rbp-0x68]"
    " 3f and rdx,0xfffffffffffff000"
    " 46 cmp rdx,[rcx]"
    " 49 jne ab"
    " 4f mov rcx,[rcx+0x10]"
    " 53 movzx esi,byte ptr [r8+rcx]"
    " 58 mov rax,[rsp]"
    " 5c mov rdx,[r12+rax+8]"
    " 61 mov [rbp+0x30],rdx"
    " 65 movzx r9d,byte ptr [r8+rcx+1]"
    " 6b mov rdi,[r12+rax+0x10]"
    " 70 sub qword ptr [rbp-0x70],6"
    " 75 js d6"
    " 7b jmp d6"
}

pinned! { whole branches: { beq a0, a1, 0x40; bnez a0, -4; bltu a0, t0, -0xc; beq t0, t1, -0x10c }
    "  0 cmp rdi,rsi"
    "  3 je 59"
    "  9 test rdi,rdi"
    "  c je 22"
    " 12 sub qword ptr [rbp-0x70],2"
    " 17 jns 0"
    " 1d jmp 69"
    " 22 cmp rdi,[rbp+0x28]"
    " 26 jb 73"
    " 2c mov rax,[rbp+0x28]"
    " 30 cmp rax,[rbp+0x30]"
    " 34 je 83"
    " 3a mov eax,2"
    " 3f mov ecx,0x40110"
    " 44 call perform"
    " 49 sub qword ptr [rbp-0x70],5"
    " 4e js 93"
    " 54 jmp 93"
    " 59 sub qword ptr [rbp-0x70],1"
    " 5e js 9d"
    " 64 jmp 9d"
    " 69 mov eax,0x100"
    " 6e jmp budget"
    " 73 sub qword ptr [rbp-0x70],3"
    " 78 js a7"
    " 7e jmp a7"
    " 83 sub qword ptr [rbp-0x70],4"
    " 88 js b1"
    " 8e jmp b1"
    " 93 mov eax,1"
    " 98 jmp link"
    " 9d mov eax,2"
    " a2 jmp link"
    " a7 mov eax,3"
    " ac jmp link"
    " b1 mov eax,4"
    " b6 jmp link"
}

pinned! { jalr: { jalr ra, ra, 8 }
    "  0 lea rax,[r14+8]"
    "  4 and rax,0xfffffffffffffffe"
    "  8 mov r14,[rbp-0x80]"
    "  c add r14,0x104"
    " 13 sub qword ptr [rbp-0x70],1"
    " 18 js lookup"
    " 1e mov rcx,[rbp-0x58]"
    " 22 mov edx,eax"
    " 24 and edx,0x7ffe"
    " 2a cmp rax,[rcx+rdx*8]"
    " 2e jne lookup"
    " 34 and rax,0xfffffffffffff000"
    " 3b mov [rbp-0x80],rax"
    " 3f jmp qword ptr [rcx+rdx*8+8]"
}

pinned! { ret: { ret }
    "  0 mov rax,r14"
    "  3 and rax,0xfffffffffffffffe"
    "  7 sub qword ptr [rbp-0x70],1"
    "  c js lookup"
    " 12 mov rcx,[rbp-0x58]"
    " 16 mov edx,eax"
    " 18 and edx,0x7ffe"
    " 1e cmp rax,[rcx+rdx*8]"
    " 22 jne lookup"
    " 28 and rax,0xfffffffffffff000"
    " 2f mov [rbp-0x80],rax"
    " 33 jmp qword ptr [rcx+rdx*8+8]"
}

pinned! { jal: { jal ra, 0x1234 }
    "  0 mov r14,[rbp-0x80]"
    "  4 add r14,0x104"
    "  b mov rax,[rbp-0x80]"
    "  f add rax,0x1334"
    " 16 sub qword ptr [rbp-0x70],1"
    " 1b js lookup"
    " 21 mov rcx,[rbp-0x58]"
    " 25 mov edx,eax"
    " 27 and edx,0x7ffe"
    " 2d cmp rax,[rcx+rdx*8]"
    " 31 jne lookup"
    " 37 and rax,0xfffffffffffff000"
    " 3e mov [rbp-0x80],rax"
    " 42 jmp qword ptr [rcx+rdx*8+8]"
}

pinned! { words: { addw a0, a0, a1; addw t0, t0, t1; addiw a0, a0, 1; mulw a0, a0, a2; j 0x20 }
    "  0 lea eax,[rdi+rsi]"
    "  3 movsxd rdi,eax"
    "  6 mov rax,[rbp+0x28]"
    "  a add eax,[rbp+0x30]"
    "  d movsxd rax,eax"
    " 10 mov [rbp+0x28],rax"
    " 14 lea eax,[rdi+1]"
    " 17 movsxd rdi,eax"
    " 1a mov rax,rdi"
    " 1d imul eax,r8d"
    " 21 movsxd rdi,eax"
    " 24 sub qword ptr [rbp-0x70],5"
    " 29 js 34"
    " 2f jmp 34"
}

pinned! { shifts: { slli a0, a0, 32; srli a0, a0, 32; slli a1, a0, 3; slli t0, t0, 3; sllw a0, a0, a1; srlw a1, t0, a1; sraw t0, t0, t1; srliw a1, a1, 4; slliw a2, a2, 3; j 0x20 }
    "  0 mov edi,edi"
    "  2 mov rsi,rdi"
    "  5 shl rsi,3"
    "  9 mov rax,[rbp+0x28]"
    "  d shl rax,3"
    " 11 mov [rbp+0x28],rax"
    " 15 shlx edi,edi,esi"
    " 1a movsxd rdi,edi"
    " 1d shrx esi,[rbp+0x28],esi"
    " 23 movsxd rsi,esi"
    " 26 mov rax,[rbp+0x30]"
    " 2a sarx eax,[rbp+0x28],eax"
    " 30 movsxd rax,eax"
    " 33 mov [rbp+0x28],rax"
    " 37 mov esi,esi"
    " 39 shr rsi,4"
    " 3d shl r8d,3"
    " 41 movsxd r8,r8d"
    " 44 sub qword ptr [rbp-0x70],0xa"
    " 49 js 54"
    " 4f jmp 54"
}

pinned! { constants: { lui a0, 0x12345000; lui t0, 0x12345000; mv a1, a2; mv t1, t2; auipc a3, 4096; j 0x20 }
    "  0 mov edi,0x12345000"
    "  5 mov qword ptr [rbp+0x28],0x12345000"
    "  d mov rsi,r8"
    " 10 mov rax,[rbp+0x38]"
    " 14 mov [rbp+0x30],rax"
    " 18 mov r9,[rbp-0x80]"
    " 1c add r9,0x1110"
    " 23 sub qword ptr [rbp-0x70],6"
    " 28 js 33"
    " 2e jmp 33"
}

pinned! { whole atomics: { lr.w a0, [a1]; addi a0, a0, 1; sc.w a2, a0, [a1] }
    "  0 rorx rcx,rsi,7"
    "  6 mov rdx,rsi"
    "  9 and ecx,[rbp-0x60]"
    "  c add rcx,[rbp-0x68]"
    " 10 and rdx,0xfffffffffffff003"
    " 17 cmp rdx,[rcx]"
    " 1a jne b5"
    " 20 mov rdx,rsi"
    " 23 and edx,0xfff"
    " 29 or rdx,[rcx+0x18]"
    " 2d or rdx,1"
    " 31 mov rcx,[rcx+0x10]"
    " 35 mov [rbp-0x30],rdx"
    " 39 mov eax,[rsi+rcx]"
    " 3c mov [rbp-0x28],rax"
    " 40 movsxd rdi,eax"
    " 43 add rdi,1"
    " 47 rorx rcx,rsi,7"
    " 4d mov rdx,rsi"
    " 50 and ecx,[rbp-0x60]"
    " 53 add rcx,[rbp-0x68]"
    " 57 and rdx,0xfffffffffffff003"
    " 5e cmp rdx,[rcx+8]"
    " 62 jne cc"
    " 68 mov rdx,rsi"
    " 6b and edx,0xfff"
    " 71 or rdx,[rcx+0x18]"
    " 75 or rdx,1"
    " 79 mov rcx,[rcx+0x10]"
    " 7d cmp rdx,[rbp-0x30]"
    " 81 mov qword ptr [rbp-0x30],0"
    " 89 jne 9e"
    " 8f lea rcx,[rsi+rcx]"
    " 93 mov rdx,rdi"
    " 96 mov rax,[rbp-0x28]"
    " 9a lock cmpxchg [rcx],edx"
    " 9e setne al"
    " a1 movzx r8d,al"
    " a5 sub qword ptr [rbp-0x70],3"
    " aa js e9"
    " b0 jmp e9"
    " b5 xor edx,edx"
    " b7 mov rax,rsi"
    " ba mov ecx,0x2101"
    " bf call atomic"
    " c4 mov rdi,rax"
    " c7 jmp 43"
    " cc mov rdx,rdi"
    " cf mov rax,rsi"
    " d2 mov rcx,0x100022109"
    " dc call atomic"
    " e1 mov r8,rax"
    " e4 jmp a5"
    " e9 mov eax,1"
    " ee jmp link"
}

pinned! { amoadd: { amoadd.d a0, a0, [t0] }
    "  0 mov rax,[rbp+0x28]"
    "  4 rorx rcx,rax,7"
    "  a mov rdx,rax"
    "  d and ecx,[rbp-0x60]"
    " 10 add rcx,[rbp-0x68]"
    " 14 and rdx,0xfffffffffffff007"
    " 1b cmp rdx,[rcx+8]"
    " 1f jne 45"
    " 25 mov rcx,[rcx+0x10]"
    " 29 mov rdx,rdi"
    " 2c lock xadd [rax+rcx],rdx"
    " 32 mov rdi,rdx"
    " 35 sub qword ptr [rbp-0x70],1"
    " 3a js 5f"
    " 40 jmp 5f"
}

pinned! { amomax: { amomaxu.w t1, t2, [a0] }
    "  0 rorx rcx,rdi,7"
    "  6 mov rdx,rdi"
    "  9 and ecx,[rbp-0x60]"
    "  c add rcx,[rbp-0x68]"
    " 10 and rdx,0xfffffffffffff003"
    " 17 cmp rdx,[rcx+8]"
    " 1b jne 56"
    " 21 mov rcx,[rcx+0x10]"
    " 25 lea rcx,[rdi+rcx]"
    " 29 mov eax,[rcx]"
    " 2b mov rdx,[rbp+0x38]"
    " 2f cmp eax,edx"
    " 31 cmova rdx,rax"
    " 35 lock cmpxchg [rcx],edx"
    " 39 jne 2b"
    " 3f movsxd rax,eax"
    " 42 mov [rbp+0x30],rax"
    " 46 sub qword ptr [rbp-0x70],1"
    " 4b js 71"
    " 51 jmp 71"
}

pinned! { arithmetic: { sltu a0, a1, a2; seqz a0, a0; slt t0, t1, a0; and a0, a0, a1; andi a2, a2, 15; sub a0, a1, a0; add a3, a4, t3; j 0x20 }
    "  0 xor edi,edi"
    "  2 cmp rsi,r8"
    "  5 setb dil"
    "  9 test rdi,rdi"
    "  c sete dil"
    " 10 movzx edi,dil"
    " 14 xor eax,eax"
    " 16 cmp [rbp+0x30],rdi"
    " 1a setl al"
    " 1d mov [rbp+0x28],rax"
    " 21 and rdi,rsi"
    " 24 and r8d,0xf"
    " 28 neg rdi"
    " 2b add rdi,rsi"
    " 2e mov r9,r10"
    " 31 add r9,[rbp+0xe0]"
    " 38 sub qword ptr [rbp-0x70],8"
    " 3d js 48"
    " 43 jmp 48"
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

pinned! { doubles: { fld fa0, [a0]; fmadd.d fa1, fa0, fa2, fa1; fnmsub.d fa0, fa0, fa1, ft6; fadd.d ft6, fa0, fa1; fsgnjn.d fa0, fa0, fa0; flt.d a1, fa0, fa1; j 0x20 }
    "  0 rorx rcx,rdi,7"
    "  6 lea rdx,[rdi+7]"
    "  a and ecx,[rbp-0x60]"
    "  d add rcx,[rbp-0x68]"
    " 11 and rdx,0xfffffffffffff000"
    " 18 cmp rdx,[rcx]"
    " 1b jne 8f"
    " 21 mov rcx,[rcx+0x10]"
    " 25 movq xmm4,[rdi+rcx]"
    " 2a mov byte ptr [rbp-0x38],1"
    " 2e vfmadd231sd xmm5,xmm4,xmm6"
    " 33 vucomisd xmm5,xmm5"
    " 37 jp a6"
    " 3d movq xmm0,[rbp+0x230]"
    " 45 vfnmadd231sd xmm0,xmm4,xmm5"
    " 4a vucomisd xmm0,xmm0"
    " 4e jp db"
    " 54 movaps xmm4,xmm0"
    " 57 vaddsd xmm0,xmm4,xmm5"
    " 5b vucomisd xmm0,xmm0"
    " 5f jp 110"
    " 65 movq [rbp+0x230],xmm0"
    " 6d vxorps xmm4,xmm4,[=8000000000000000]"
    " 75 xor esi,esi"
    " 77 vcomisd xmm5,xmm4"
    " 7b seta sil"
    " 7f sub qword ptr [rbp-0x70],7"
    " 84 js 11d"
    " 8a jmp 11d"
}

// What is not known to be boxed is checked; results are boxed as they are.
pinned! { whole singles: { fmul.s fa0, fa1, ft6; fsub.s fa1, fa0, fa0; fmv.w.x fa2, a0; fcvt.w.s a0, fa2, rtz; j 0x20 }
    "  0 movaps xmm0,xmm5"
    "  3 vptest xmm0,[=ffffffff00000000]"
    "  c jae 73"
    " 12 movq xmm1,[rbp+0x230]"
    " 1a cmp dword ptr [rbp+0x234],0xffffffff"
    " 21 jne 80"
    " 27 vmulss xmm4,xmm0,xmm1"
    " 2b vucomiss xmm4,xmm4"
    " 2f jp 8d"
    " 35 mov byte ptr [rbp-0x38],1"
    " 39 vsubss xmm5,xmm4,xmm4"
    " 3d vucomiss xmm5,xmm5"
    " 41 jp 9a"
    " 47 movd xmm6,edi"
    " 4b vorps xmm6,xmm6,[=ffffffff00000000]"
    " 53 vcvttss2si edi,xmm6"
    " 57 cmp edi,1"
    " 5a jo a7"
    " 60 movsxd rdi,edi"
    " 63 sub qword ptr [rbp-0x70],5"
    " 68 js c7"
    " 6e jmp c7"
    " 73 movq xmm0,[=ffffffff7fc00000]"
    " 7b jmp 12"
    " 80 movq xmm1,[=ffffffff7fc00000]"
    " 88 jmp 27"
    " 8d movq xmm4,[=ffffffff7fc00000]"
    " 95 jmp 35"
    " 9a movq xmm5,[=ffffffff7fc00000]"
    " a2 jmp 47"
    " a7 vucomiss xmm6,[=0]"
    " af jp c0"
    " b5 ja c0"
    " bb jmp 60"
    " c0 not edi"
    " c2 jmp 60"
    " c7 mov eax,1"
    " cc jmp link"
}

pinned! { single_loads: { flw fa0, [a0]; flw ft6, [a0, 4]; fsw ft6, [a0, 8]; j 0x20 }
    "  0 rorx rcx,rdi,7"
    "  6 lea rdx,[rdi+0xb]"
    "  a and ecx,[rbp-0x60]"
    "  d add rcx,[rbp-0x68]"
    " 11 and rdx,0xfffffffffffff000"
    " 18 cmp rdx,[rcx+8]"
    " 1c jne 68"
    " 22 mov rcx,[rcx+0x10]"
    " 26 movd xmm4,[rdi+rcx]"
    " 2b vorps xmm4,xmm4,[=ffffffff00000000]"
    " 33 mov byte ptr [rbp-0x38],1"
    " 37 movd xmm0,[rdi+rcx+4]"
    " 3d vorps xmm0,xmm0,[=ffffffff00000000]"
    " 45 movq [rbp+0x230],xmm0"
    " 4d mov rax,[rbp+0x230]"
    " 54 mov [rdi+rcx+8],eax"
    " 58 sub qword ptr [rbp-0x70],4"
    " 5d js a1"
    " 63 jmp a1"
}

pinned! { conversions: { fcvt.d.w fa0, a0; fcvt.s.l fa1, a1; fcvt.d.s fa2, fa1; fcvt.s.d fa3, fa2; fcvt.lu.d a2, fa2, rtz; fmin.d fa4, fa4, fa5; feq.d a3, fa4, fa5; j 0x20 }
    "  0 vxorps xmm4,xmm4,xmm4"
    "  4 vcvtsi2sd xmm4,xmm4,edi"
    "  8 mov byte ptr [rbp-0x38],1"
    "  c vpcmpeqd xmm5,xmm5,xmm5"
    " 10 vcvtsi2ss xmm5,xmm5,rsi"
    " 15 vcvtss2sd xmm6,xmm5,xmm5"
    " 19 vucomisd xmm6,xmm6"
    " 1d jp 84"
    " 23 vpcmpeqd xmm7,xmm7,xmm7"
    " 27 vcvtsd2ss xmm7,xmm7,xmm6"
    " 2b vucomiss xmm7,xmm7"
    " 2f jp 91"
    " 35 movq r8,xmm6"
    " 3a cmp r8,[=43e0000000000000]"
    " 41 jae 9e"
    " 47 vcvttsd2si r8,xmm6"
    " 4c vucomisd xmm8,xmm9"
    " 51 jp 10f"
    " 57 vminsd xmm0,xmm8,xmm9"
    " 5c vminsd xmm8,xmm9,xmm8"
    " 61 vorps xmm8,xmm8,xmm0"
    " 65 vcmpeqsd xmm0,xmm8,xmm9"
    " 6b movd r9d,xmm0"
    " 70 and r9d,1"
    " 74 sub qword ptr [rbp-0x70],8"
    " 79 js 13c"
    " 7f jmp 13c"
}
