//! Litmus tests of the memory model. Source: SDM vol. 3, 9.2.2 and the examples of 9.2.3; names of the tests as in the
//! literature (MP, SB, LB, CoRR, IRIW, 2+2W).
//!
//! Each processor walks through arrays of variables, so that a round is many tests without anything in between. An
//! outcome that the model forbids fails; one that it allows is only counted.

use iced_x86::code_asm::*;

use super::{Assembled, SHARED, Suite};

/// Tests in a round.
const SLOTS: u64 = 64;
/// Variables x of a group of processors, a line each; y behind them; then the registers of each processor.
const X: u64 = SHARED;
const Y: u64 = X + 64 * SLOTS;
const RESULTS: u64 = Y + 64 * SLOTS;
const GROUP: u64 = 0x8000;

/// One processor's part: rsi = x, rdi = y, ecx = 1, results in rax and rbx.
type Part = fn(&mut Suite) -> Assembled;

/// Registers of the checker that hold rax and rbx of each processor, then x and y.
const SEEN: [[AsmRegister64; 2]; 5] = [[rax, rbx], [rcx, rdx], [r8, r9], [r10, r11], [rsi, rdi]];
/// The variables among the results of an outcome.
const MEMORY: usize = 4;

struct Litmus {
    name: &'static str,
    parts: &'static [Part],
    /// Results (processor, 0 for rax and 1 for rbx, value) of the outcome in question.
    outcome: &'static [(usize, usize, i32)],
    /// Where the outcome is counted; forbidden without.
    counted: Option<u64>,
}

const MP: &[(usize, usize, i32)] = &[(1, 0, 1), (1, 1, 0)];
const SB: &[(usize, usize, i32)] = &[(0, 0, 0), (1, 0, 0)];
const LB: &[(usize, usize, i32)] = &[(0, 0, 1), (1, 0, 1)];
const IRIW: &[(usize, usize, i32)] = &[(2, 0, 1), (2, 1, 0), (3, 0, 1), (3, 1, 0)];

fn put_x(s: &mut Suite) -> Assembled {
    s.a.mov(qword_ptr(rsi), rcx)
}

fn put_y(s: &mut Suite) -> Assembled {
    s.a.mov(qword_ptr(rdi), rcx)
}

fn get_x(s: &mut Suite) -> Assembled {
    s.a.mov(rax, qword_ptr(rsi))
}

fn get_y(s: &mut Suite) -> Assembled {
    s.a.mov(rax, qword_ptr(rdi))
}

/// A locked instruction elsewhere: on the stack.
fn locked(s: &mut Suite) -> Assembled {
    s.a.lock().or(dword_ptr(rsp - 64), 0)
}

/// A serialising instruction that changes none of the registers in use.
fn serialise(s: &mut Suite) -> Assembled {
    s.a.mov(rdx, rcx)?;
    s.a.push(rdx)?;
    s.a.xor(eax, eax)?;
    s.a.cpuid()?;
    s.a.pop(rcx)
}

static TESTS: &[Litmus] = &[
    Litmus {
        name: "MP",
        parts: &[
            |s| put_x(s).and_then(|()| put_y(s)),
            |s| get_y(s).and_then(|()| s.a.mov(rbx, qword_ptr(rsi))),
        ],
        outcome: MP,
        counted: None,
    },
    Litmus {
        name: "MP by bytes and words",
        parts: &[
            |s| {
                s.a.mov(byte_ptr(rsi), cl)?;
                s.a.mov(word_ptr(rdi), cx)
            },
            |s| {
                s.a.movzx(eax, byte_ptr(rdi))?;
                s.a.movzx(ebx, word_ptr(rsi))
            },
        ],
        outcome: MP,
        counted: None,
    },
    Litmus {
        name: "SB",
        parts: &[|s| put_x(s).and_then(|()| get_y(s)), |s| put_y(s).and_then(|()| get_x(s))],
        outcome: SB,
        counted: Some(1),
    },
    Litmus {
        name: "SB with MFENCE",
        parts: &[
            |s| {
                put_x(s)?;
                s.a.mfence()?;
                get_y(s)
            },
            |s| {
                put_y(s)?;
                s.a.mfence()?;
                get_x(s)
            },
        ],
        outcome: SB,
        counted: None,
    },
    Litmus {
        name: "SB with locked instructions",
        parts: &[
            |s| {
                put_x(s)?;
                locked(s)?;
                get_y(s)
            },
            |s| {
                put_y(s)?;
                locked(s)?;
                get_x(s)
            },
        ],
        outcome: SB,
        counted: None,
    },
    Litmus {
        name: "SB with XCHG",
        parts: &[
            |s| {
                s.a.xchg(qword_ptr(rsi), rcx)?;
                s.a.mov(ecx, 1)?;
                get_y(s)
            },
            |s| {
                s.a.xchg(qword_ptr(rdi), rcx)?;
                s.a.mov(ecx, 1)?;
                get_x(s)
            },
        ],
        outcome: SB,
        counted: None,
    },
    Litmus {
        name: "SB with CPUID",
        parts: &[
            |s| {
                put_x(s)?;
                serialise(s)?;
                get_y(s)
            },
            |s| {
                put_y(s)?;
                serialise(s)?;
                get_x(s)
            },
        ],
        outcome: SB,
        counted: None,
    },
    Litmus {
        name: "LB",
        parts: &[|s| get_x(s).and_then(|()| put_y(s)), |s| get_y(s).and_then(|()| put_x(s))],
        outcome: LB,
        counted: None,
    },
    Litmus {
        name: "2+2W",
        parts: &[
            |s| {
                s.a.mov(dword_ptr(rsi), 2)?;
                s.a.mov(dword_ptr(rdi), 1)
            },
            |s| {
                s.a.mov(dword_ptr(rdi), 2)?;
                s.a.mov(dword_ptr(rsi), 1)
            },
        ],
        outcome: &[(MEMORY, 0, 2), (MEMORY, 1, 2)],
        counted: None,
    },
    Litmus {
        name: "CoRR",
        parts: &[put_x, |s| get_x(s).and_then(|()| s.a.mov(rbx, qword_ptr(rsi)))],
        outcome: MP,
        counted: None,
    },
    // SDM vol. 3, 9.2.3.5: a processor may see its own store before others do.
    Litmus {
        name: "SB with forwarding",
        parts: &[
            |s| {
                put_x(s)?;
                s.a.mov(rbx, qword_ptr(rsi))?;
                get_y(s)
            },
            |s| {
                put_y(s)?;
                s.a.mov(rbx, qword_ptr(rdi))?;
                get_x(s)
            },
        ],
        outcome: &[(0, 0, 0), (0, 1, 1), (1, 0, 0), (1, 1, 1)],
        counted: Some(2),
    },
    Litmus {
        name: "IRIW",
        parts: &[
            put_x,
            put_y,
            |s| get_x(s).and_then(|()| s.a.mov(rbx, qword_ptr(rdi))),
            |s| get_y(s).and_then(|()| s.a.mov(rbx, qword_ptr(rsi))),
        ],
        outcome: IRIW,
        counted: None,
    },
];

/// `base` of the processor's group; clobbers rax.
fn group(s: &mut Suite, to: AsmRegister64, base: u64, size: usize) -> Assembled {
    s.a.mov(rax, r15)?;
    s.a.shr(rax, size.trailing_zeros())?;
    s.a.imul_3(rax, rax, GROUP as i32)?;
    s.a.lea(to, qword_ptr(rax + base as i32))
}

/// The processor's number in its group, in rdx.
fn role(s: &mut Suite, size: usize) -> Assembled {
    s.a.mov(edx, r15d)?;
    s.a.and(edx, size as i32 - 1)
}

fn test(s: &mut Suite, harts: u64, litmus: &Litmus) -> Assembled {
    let size = litmus.parts.len();
    s.case(litmus.name)?;
    // Clear what the last test left: the first processor of a group.
    let (mut clear, mut clean) = (s.label(), s.label());
    role(s, size)?;
    s.a.test(edx, edx)?;
    s.a.jne(clean)?;
    group(s, rsi, X, size)?;
    s.a.mov(ecx, 2 * SLOTS as u32)?;
    s.place(&mut clear)?;
    s.a.mov(qword_ptr(rsi), 0)?;
    s.a.add(rsi, 64)?;
    s.a.dec(ecx)?;
    s.a.jne(clear)?;
    s.place(&mut clean)?;
    s.barrier(harts)?;
    // Nobody starts at quite the same time.
    let (mut late, mut done) = (s.label(), s.label());
    s.random()?;
    s.a.and(eax, 63)?;
    s.place(&mut late)?;
    s.a.dec(eax)?;
    s.a.jns(late)?;
    group(s, rsi, X, size)?;
    group(s, rdi, Y, size)?;
    group(s, r8, RESULTS, size)?;
    role(s, size)?;
    s.a.mov(r9d, edx)?;
    s.a.shl(rdx, 11)?;
    s.a.add(r8, rdx)?;
    for (role, part) in litmus.parts.iter().enumerate() {
        let (mut next, mut slot) = (s.label(), s.label());
        s.a.cmp(r9d, role as i32)?;
        s.a.jne(next)?;
        s.a.mov(r10d, SLOTS as u32)?;
        s.a.mov(ecx, 1)?;
        s.place(&mut slot)?;
        s.a.xor(eax, eax)?;
        s.a.xor(ebx, ebx)?;
        part(s)?;
        s.a.mov(qword_ptr(r8), rax)?;
        s.a.mov(qword_ptr(r8 + 8), rbx)?;
        s.a.add(rsi, 64)?;
        s.a.add(rdi, 64)?;
        s.a.add(r8, 16)?;
        s.a.dec(r10d)?;
        s.a.jne(slot)?;
        s.a.jmp(done)?;
        s.place(&mut next)?;
    }
    s.place(&mut done)?;
    s.barrier(harts)?;
    check(s, litmus)?;
    s.barrier(harts)
}

/// The first processor of a group looks at all slots.
fn check(s: &mut Suite, litmus: &Litmus) -> Assembled {
    let size = litmus.parts.len();
    let (mut slot, mut next, mut over) = (s.label(), s.label(), s.label());
    role(s, size)?;
    s.a.test(edx, edx)?;
    s.a.jne(over)?;
    s.a.push(r15)?;
    // r15: offset of the slot's results. The stack holds the bases.
    group(s, rbx, RESULTS, size)?;
    group(s, rcx, X, size)?;
    s.a.push(rcx)?;
    s.a.push(rbx)?;
    s.a.xor(r15d, r15d)?;
    s.place(&mut slot)?;
    s.a.mov(rdi, qword_ptr(rsp))?;
    for (part, [first, second]) in SEEN.iter().take(size).enumerate() {
        s.a.mov(*first, qword_ptr(rdi + r15 + 2048 * part as i32))?;
        s.a.mov(*second, qword_ptr(rdi + r15 + 2048 * part as i32 + 8))?;
    }
    s.a.mov(rdi, r15)?;
    s.a.shl(rdi, 2)?;
    s.a.add(rdi, qword_ptr(rsp + 8))?;
    s.a.mov(rsi, qword_ptr(rdi))?;
    s.a.mov(rdi, qword_ptr(rdi + (Y - X) as i32))?;
    for &(part, which, value) in litmus.outcome {
        s.a.cmp(SEEN[part][which], value)?;
        s.a.jne(next)?;
    }
    match litmus.counted {
        Some(index) => s.count(index)?,
        None => {
            let fail = s.fail;
            s.a.jmp(fail)?;
        }
    }
    s.place(&mut next)?;
    s.a.add(r15, 16)?;
    s.a.cmp(r15, (16 * SLOTS) as i32)?;
    s.a.jne(slot)?;
    s.a.add(rsp, 16)?;
    s.a.pop(r15)?;
    s.place(&mut over)
}

pub(in crate::x86) fn define<const HARTS: u64>(s: &mut Suite) -> Assembled {
    s.start(HARTS, &[])?;
    s.rounds(HARTS, |s| {
        for litmus in TESTS.iter().filter(|litmus| litmus.parts.len() as u64 <= HARTS) {
            test(s, HARTS, litmus)?;
        }
        Ok(())
    })?;
    s.end()
}
