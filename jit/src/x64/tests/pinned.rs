//! The host code of a few guest blocks, so that a change of it is seen.
#![allow(clippy::useless_conversion)] // In what `dynasm!` expands to.

use dynasmrt::riscv::RiscvRelocation;
use dynasmrt::{VecAssembler, dynasm};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, OpKind};

use crate::ir::Block;
use crate::ir::opt::Passes;
use crate::riscv::lift::{Lifter, ModeKey};
use crate::x64::{Calls, Emitter, Place, Thunks, supports};

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

/// The code emitted for a block at address 0.
fn listing(block: &Block) -> String {
    let calls = Calls { load: 0, store: 0, perform: 0 };
    let (thunks, _) = Thunks::emit(THUNKS, &calls);
    let place = Place { at: 0, first_link: 1, first_perform: 2 };
    let mut emitter = Emitter::new();
    let code = emitter.emit(block, place, &thunks).unwrap().code;
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_hex_prefix("0x");
    formatter.options_mut().set_hex_suffix("");
    formatter.options_mut().set_uppercase_hex(false);
    let mut text = String::new();
    for insn in Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
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

/// The code for guest code at offset 0x100 of a page.
fn translated(guest: impl FnOnce(&mut Guest)) -> String {
    let mut assembler = Guest::new(0);
    guest(&mut assembler);
    let mut code = assembler.finalize().unwrap();
    // What is not defined ends a block.
    code.extend([0; 4]);
    let read = |at: u64| {
        let at = at as usize - 0x100;
        u16::from_le_bytes([code[at], code[at + 1]])
    };
    let mut lifter = Lifter::new(Passes::all(), supports);
    listing(lifter.lift_block(read, 0x100, ModeKey { fp: false }).unwrap())
}

macro_rules! guest {
    ($($code:tt)*) => {
        translated(|ops| {
            dynasm!(ops; .arch riscv64i; $($code)*);
        })
    };
}

#[test]
fn show() {
    println!("{}", guest!(addi a0, a0, 1; addi a1, a0, -5; addi t0, t0, 8; j 0x20));
    println!("{}", guest!(ld a0, [sp, 8]; ld t0, [a0]; lw a0, [a0, 8]; j 0x20));
    println!("{}", guest!(sd a0, [sp, 8]; sd t0, [t1, -8]; sw zero, [a0]; j 0x20));
    println!("{}", guest!(beq a0, a1, 0x40; bnez a0, -4; j 0x20));
    println!("{}", guest!(jalr ra, ra, 8));
    println!("{}", guest!(ret));
    println!("{}", guest!(jal ra, 0x1234));
    println!(
        "{}",
        guest!(addw a0, a0, a1; addw t0, t0, t1; addiw a0, a0, 1; addiw t0, t0, 1; j 0x20)
    );
    println!(
        "{}",
        guest!(slli a0, a0, 32; srli a0, a0, 32; slli a1, a0, 3; slli t0, t0, 3; sllw a0, a0, a1; srlw a0, a0, a1; srliw a1, a1, 4; sraiw t0, t1, 5; j 0x20)
    );
    println!(
        "{}",
        guest!(mv a0, a1; mv t0, t1; lui a0, 0x12345000; lui t0, 0x12345000; sltu a0, a1, a2; sltiu a0, a0, 1; add t2, t0, t1; add a0, t0, t1; sub a0, a1, a0; andi a0, a0, 1; andi a0, a0, 255; j 0x20)
    );
}
