//! The host code of a few guest blocks, so that a change of it is seen.
#![allow(clippy::useless_conversion)] // In what `dynasm!` expands to.

use dynasmrt::riscv::RiscvRelocation;
use dynasmrt::{VecAssembler, dynasm};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, OpKind, Register};

use crate::ir::Block;
use crate::ir::opt::Passes;
use crate::riscv::lift::{Lifter, ModeKey};
use crate::x64::asm::{Code, Mem, RSP, Size};
use crate::x64::fp::CONSTANTS;
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
    listing(lifter.lift_block(read, 0x100, ModeKey { fp: true }).unwrap(), whole)
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
                    dynasm!(ops; .arch riscv64; .feature i,m,f,d,zfa; $($code)*);
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
    "  b lea rax,[rbx+8]"
    "  f lea rdx,[rbx+0xf]"
    " 13 rorx rcx,rax,7"
    " 19 and ecx,[rbp-0x60]"
    " 1c add rcx,[rbp-0x68]"
    " 20 and rdx,0xfffffffffffff000"
    " 27 cmp rdx,[rcx]"
    " 2a jne aa"
    " 30 mov rcx,[rcx+0x10]"
    " 34 mov rdi,[rax+rcx]"
    " 38 lea rdx,[rdi+7]"
    " 3c rorx rcx,rdi,7"
    " 42 and ecx,[rbp-0x60]"
    " 45 add rcx,[rbp-0x68]"
    " 49 and rdx,0xfffffffffffff000"
    " 50 cmp rdx,[rcx]"
    " 53 jne bc"
    " 59 mov rcx,[rcx+0x10]"
    " 5d mov rax,[rdi+rcx]"
    " 61 mov [rbp+0x28],rax"
    " 65 mov rax,[rbp+0x30]"
    " 69 lea rax,[rax+8]"
    " 6d lea rdx,[rax+3]"
    " 71 rorx rcx,rax,7"
    " 77 and ecx,[rbp-0x60]"
    " 7a add rcx,[rbp-0x68]"
    " 7e and rdx,0xfffffffffffff000"
    " 85 cmp rdx,[rcx]"
    " 88 jne ce"
    " 8e mov rcx,[rcx+0x10]"
    " 92 movsxd rdi,[rax+rcx]"
    " 96 jmp e0"
}

pinned! { sd: { sd a0, [sp, 8]; sd t0, [t1, -8]; sw zero, [a0]; j 0x20 }
    "  b lea rax,[rbx+8]"
    "  f lea rdx,[rbx+0xf]"
    " 13 rorx rcx,rax,7"
    " 19 and ecx,[rbp-0x60]"
    " 1c add rcx,[rbp-0x68]"
    " 20 and rdx,0xfffffffffffff000"
    " 27 cmp rdx,[rcx+8]"
    " 2b jne b0"
    " 31 mov rcx,[rcx+0x10]"
    " 35 mov [rax+rcx],rdi"
    " 39 mov rax,[rbp+0x30]"
    " 3d lea rax,[rax-8]"
    " 41 lea rdx,[rax+7]"
    " 45 rorx rcx,rax,7"
    " 4b and ecx,[rbp-0x60]"
    " 4e add rcx,[rbp-0x68]"
    " 52 and rdx,0xfffffffffffff000"
    " 59 cmp rdx,[rcx+8]"
    " 5d jne c2"
    " 63 mov rcx,[rcx+0x10]"
    " 67 mov rdx,[rbp+0x28]"
    " 6b mov [rax+rcx],rdx"
    " 6f lea rdx,[rdi+3]"
    " 73 rorx rcx,rdi,7"
    " 79 and ecx,[rbp-0x60]"
    " 7c add rcx,[rbp-0x68]"
    " 80 and rdx,0xfffffffffffff000"
    " 87 cmp rdx,[rcx+8]"
    " 8b jne d5"
    " 91 mov rcx,[rcx+0x10]"
    " 95 mov dword ptr [rdi+rcx],0"
    " 9c jmp e9"
}

pinned! { whole slow_paths: { ld t0, [a0]; lw a0, [t1, 8]; sd zero, [sp]; j 0x20 }
    "  b lea rdx,[rdi+7]"
    "  f rorx rcx,rdi,7"
    " 15 and ecx,[rbp-0x60]"
    " 18 add rcx,[rbp-0x68]"
    " 1c and rdx,0xfffffffffffff000"
    " 23 cmp rdx,[rcx]"
    " 26 jne ab"
    " 2c mov rcx,[rcx+0x10]"
    " 30 mov rax,[rdi+rcx]"
    " 34 mov [rbp+0x28],rax"
    " 38 mov rax,[rbp+0x30]"
    " 3c lea rax,[rax+8]"
    " 40 lea rdx,[rax+3]"
    " 44 rorx rcx,rax,7"
    " 4a and ecx,[rbp-0x60]"
    " 4d add rcx,[rbp-0x68]"
    " 51 and rdx,0xfffffffffffff000"
    " 58 cmp rdx,[rcx]"
    " 5b jne bd"
    " 61 mov rcx,[rcx+0x10]"
    " 65 movsxd rdi,[rax+rcx]"
    " 69 lea rdx,[rbx+7]"
    " 6d rorx rcx,rbx,7"
    " 73 and ecx,[rbp-0x60]"
    " 76 add rcx,[rbp-0x68]"
    " 7a and rdx,0xfffffffffffff000"
    " 81 cmp rdx,[rcx+8]"
    " 85 jne cf"
    " 8b mov rcx,[rcx+0x10]"
    " 8f mov qword ptr [rbx+rcx],0"
    " 97 jmp e3"
    " 9c add qword ptr [rbp-0x70],4"
    " a1 mov eax,0x100"
    " a6 jmp budget"
    " ab mov rax,rdi"
    " ae mov ecx,0x43101"
    " b3 call load"
    " b8 jmp 34"
    " bd mov ecx,0x32105"
    " c2 call load"
    " c7 movsxd rdi,eax"
    " ca jmp 69"
    " cf xor edx,edx"
    " d1 mov rax,rbx"
    " d4 mov ecx,0x23109"
    " d9 call store"
    " de jmp 97"
    " e3 mov eax,1"
    " e8 jmp link"
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
    " 24 and edx,0x7ffe"
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
    " 18 and edx,0x7ffe"
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
    " 27 and edx,0x7ffe"
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

pinned! { doubles: { fld fa0, [a0]; fmadd.d fa1, fa0, fa2, fa1; fnmsub.d fa0, fa0, fa1, ft6; fadd.d ft6, fa0, fa1; fsgnjn.d fa0, fa0, fa0; flt.d a1, fa0, fa1; j 0x20 }
    "  b lea rdx,[rdi+7]"
    "  f rorx rcx,rdi,7"
    " 15 and ecx,[rbp-0x60]"
    " 18 add rcx,[rbp-0x68]"
    " 1c and rdx,0xfffffffffffff000"
    " 23 cmp rdx,[rcx]"
    " 26 jne 9e"
    " 2c mov rcx,[rcx+0x10]"
    " 30 movq xmm4,[rdi+rcx]"
    " 35 mov byte ptr [rbp-0x38],1"
    " 39 vfmadd231sd xmm5,xmm4,xmm6"
    " 3e vucomisd xmm5,xmm5"
    " 42 jp b5"
    " 48 movq xmm0,[rbp+0x230]"
    " 50 vfnmadd231sd xmm0,xmm4,xmm5"
    " 55 vucomisd xmm0,xmm0"
    " 59 jp ea"
    " 5f movaps xmm4,xmm0"
    " 62 vaddsd xmm0,xmm4,xmm5"
    " 66 vucomisd xmm0,xmm0"
    " 6a jp 11f"
    " 70 movq [rbp+0x230],xmm0"
    " 78 vxorps xmm4,xmm4,[=8000000000000000]"
    " 80 xor esi,esi"
    " 82 vcomisd xmm5,xmm4"
    " 86 seta sil"
    " 8a jmp 12c"
}

// What is not known to be boxed is checked; results are boxed as they are.
pinned! { whole singles: { fmul.s fa0, fa1, ft6; fsub.s fa1, fa0, fa0; fmv.w.x fa2, a0; fcvt.w.s a0, fa2, rtz; j 0x20 }
    "  b movaps xmm0,xmm5"
    "  e vptest xmm0,[=ffffffff00000000]"
    " 17 jae 82"
    " 1d movq xmm1,[rbp+0x230]"
    " 25 cmp dword ptr [rbp+0x234],0xffffffff"
    " 2c jne 8f"
    " 32 vmulss xmm4,xmm0,xmm1"
    " 36 vucomiss xmm4,xmm4"
    " 3a jp 9c"
    " 40 mov byte ptr [rbp-0x38],1"
    " 44 vsubss xmm5,xmm4,xmm4"
    " 48 vucomiss xmm5,xmm5"
    " 4c jp a9"
    " 52 movd xmm6,edi"
    " 56 vorps xmm6,xmm6,[=ffffffff00000000]"
    " 5e vcvttss2si edi,xmm6"
    " 62 cmp edi,1"
    " 65 jo b6"
    " 6b movsxd rdi,edi"
    " 6e jmp d6"
    " 73 add qword ptr [rbp-0x70],5"
    " 78 mov eax,0x100"
    " 7d jmp budget"
    " 82 movq xmm0,[=ffffffff7fc00000]"
    " 8a jmp 1d"
    " 8f movq xmm1,[=ffffffff7fc00000]"
    " 97 jmp 32"
    " 9c movq xmm4,[=ffffffff7fc00000]"
    " a4 jmp 40"
    " a9 movq xmm5,[=ffffffff7fc00000]"
    " b1 jmp 52"
    " b6 vucomiss xmm6,[=0]"
    " be jp cf"
    " c4 ja cf"
    " ca jmp 6b"
    " cf not edi"
    " d1 jmp 6b"
    " d6 mov eax,1"
    " db jmp link"
}

pinned! { single_loads: { flw fa0, [a0]; flw ft6, [a0, 4]; fsw ft6, [a0, 8]; j 0x20 }
    "  b lea rdx,[rdi+3]"
    "  f rorx rcx,rdi,7"
    " 15 and ecx,[rbp-0x60]"
    " 18 add rcx,[rbp-0x68]"
    " 1c and rdx,0xfffffffffffff000"
    " 23 cmp rdx,[rcx]"
    " 26 jne c7"
    " 2c mov rcx,[rcx+0x10]"
    " 30 movd xmm4,[rdi+rcx]"
    " 35 vorps xmm4,xmm4,[=ffffffff00000000]"
    " 3d mov byte ptr [rbp-0x38],1"
    " 41 lea rax,[rdi+4]"
    " 45 lea rdx,[rdi+7]"
    " 49 rorx rcx,rax,7"
    " 4f and ecx,[rbp-0x60]"
    " 52 add rcx,[rbp-0x68]"
    " 56 and rdx,0xfffffffffffff000"
    " 5d cmp rdx,[rcx]"
    " 60 jne de"
    " 66 mov rcx,[rcx+0x10]"
    " 6a movd xmm0,[rax+rcx]"
    " 6f vorps xmm0,xmm0,[=ffffffff00000000]"
    " 77 movq [rbp+0x230],xmm0"
    " 7f lea rax,[rdi+8]"
    " 83 lea rdx,[rdi+0xb]"
    " 87 rorx rcx,rax,7"
    " 8d and ecx,[rbp-0x60]"
    " 90 add rcx,[rbp-0x68]"
    " 94 and rdx,0xfffffffffffff000"
    " 9b cmp rdx,[rcx+8]"
    " 9f jne f2"
    " a5 mov rcx,[rcx+0x10]"
    " a9 mov rdx,[rbp+0x230]"
    " b0 mov [rax+rcx],edx"
    " b3 jmp 108"
}

pinned! { conversions: { fcvt.d.w fa0, a0; fcvt.s.l fa1, a1; fcvt.d.s fa2, fa1; fcvt.s.d fa3, fa2; fcvt.lu.d a2, fa2, rtz; fmin.d fa4, fa4, fa5; feq.d a3, fa4, fa5; j 0x20 }
    "  b vxorps xmm4,xmm4,xmm4"
    "  f vcvtsi2sd xmm4,xmm4,edi"
    " 13 mov byte ptr [rbp-0x38],1"
    " 17 vpcmpeqd xmm5,xmm5,xmm5"
    " 1b vcvtsi2ss xmm5,xmm5,rsi"
    " 20 vcvtss2sd xmm6,xmm5,xmm5"
    " 24 vucomisd xmm6,xmm6"
    " 28 jp 93"
    " 2e vpcmpeqd xmm7,xmm7,xmm7"
    " 32 vcvtsd2ss xmm7,xmm7,xmm6"
    " 36 vucomiss xmm7,xmm7"
    " 3a jp a0"
    " 40 movq r8,xmm6"
    " 45 cmp r8,[=43e0000000000000]"
    " 4c jae ad"
    " 52 vcvttsd2si r8,xmm6"
    " 57 vucomisd xmm8,xmm9"
    " 5c jp 11e"
    " 62 vminsd xmm0,xmm8,xmm9"
    " 67 vminsd xmm8,xmm9,xmm8"
    " 6c vorps xmm8,xmm8,xmm0"
    " 70 vcmpeqsd xmm0,xmm8,xmm9"
    " 76 movd r9d,xmm0"
    " 7b and r9d,1"
    " 7f jmp 14b"
}
