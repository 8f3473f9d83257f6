//! Random regions, and the host code of one.

use mimic_cpu::riscv::insn::At;
use mimic_cpu::riscv::sem::Bin;

use super::Random;
use super::blocks::{block_at, regs};
use super::machine::Machine;
use super::pinned::region_listing;
use crate::ir::region::{Part, Region};
use crate::ir::{Block, Insn, Op, Val};

/// Bytes between the starts of parts.
const APART: u64 = 0x80;

fn region(random: &mut Random) -> Region {
    let count = 1 + random.below(6) as u64;
    let starts: Vec<i64> = (0..count).map(|k| (0x400 + APART * k) as i64).collect();
    let mut targets = starts.clone();
    targets.extend([0x200, 0x1000]);
    let mut ends = starts.clone();
    ends.extend(&starts);
    ends.push(0x1000);
    let most = random.pick(&[3, 10, 30]);
    let mut parts: Vec<Part> = (0..count)
        .map(|k| Part {
            block: block_at(random, 0x400 + APART * k, most, &targets, &ends),
            times: random.below(400) as u32,
            entry: random.below(3) == 0,
        })
        .collect();
    parts[0].entry = true;
    Region { parts, crossings: random.below(20) as u32 }
}

#[test]
fn of_random_blocks() {
    let (mut machine, mut plain) = (Machine::new(), Machine::plain());
    let mut random = Random(0x2468_1357);
    let mut done = 0;
    for k in 0..20_000 {
        let region = region(&mut random);
        let entries = region.parts.iter().filter(|part| part.entry).count();
        for machine in [&mut machine, &mut plain] {
            machine.cold = k % 3 == 0;
            machine.engine.sticky = random.pick(&[0, 0x20, 0x3f]);
            let mut regs = regs(&mut random);
            regs[3] = u64::from(random.below(3) != 0);
            let entry = random.below(entries);
            let counter = random.below(200) as i64;
            done += machine.compare_region(&region, entry, &regs, counter);
        }
    }
    assert!(done > 500_000, "they hardly loop: {done}");
}

/// A loop of two parts that works on registers which have no home outside: inside they have.
#[test]
fn the_code_of_a_loop_has_its_registers_in_host_registers() {
    let part = |start: u64, ops: Vec<Op>| Part {
        block: Block { start, insns: vec![Insn { at: At::new(start, 4), word: 0, first: 0 }], ops },
        times: 300,
        entry: start == 0x100,
    };
    // add t0, t0, t1; and beqz t0, 0x100; j 0x100.
    let (t0, t1) = (5, 6);
    let sum = vec![
        Op::Get(t0),
        Op::Get(t1),
        Op::Bin(Bin::Add, Val(0), Val(1)),
        Op::Set(t0, Val(2)),
        Op::Goto(0x104),
    ];
    let back = vec![
        Op::Get(t0),
        Op::Const(0),
        Op::Bin(Bin::Eq, Val(0), Val(1)),
        Op::Branch(Val(2), 0x100),
        Op::Goto(0x200),
    ];
    let region = Region { parts: vec![part(0x100, sum), part(0x104, back)], crossings: 4 };
    let code = region_listing(&region);
    let expected = [
        // The first part; the second follows.
        "  0 add rdi,rsi",
        "  3 sub qword ptr [rbp-0x70],1",
        "  8 js 46",
        // The second.
        "  e test rdi,rdi",
        " 11 jne 27",
        " 17 sub qword ptr [rbp-0x70],1",
        " 1c jns 0",
        " 22 jmp 55",
        // Out for 0x200.
        " 27 sub qword ptr [rbp-0x70],1",
        " 2c call 6e",
        " 31 js 64",
        " 37 jmp 64",
        // The entry.
        " 3c call 7b",
        " 41 jmp 0",
        // The counter has run out before one of the parts.
        " 46 call 6e",
        " 4b mov eax,0x104",
        " 50 jmp budget",
        " 55 call 6e",
        " 5a mov eax,0x100",
        " 5f jmp budget",
        // The link.
        " 64 mov eax,1",
        " 69 jmp link",
        // The usual homes: t1 was not written.
        " 6e mov [rbp+0x28],rdi",
        " 72 mov rdi,[rbp+0x50]",
        " 76 mov rsi,[rbp+0x58]",
        " 7a ret",
        // Those of the region.
        " 7b mov [rbp+0x50],rdi",
        " 7f mov rdi,[rbp+0x28]",
        " 83 mov [rbp+0x58],rsi",
        " 87 mov rsi,[rbp+0x30]",
        " 8b ret",
    ];
    assert_eq!(code, expected, "\n{}", code.join("\n"));
}
