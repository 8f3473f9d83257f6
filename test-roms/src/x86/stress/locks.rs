//! Locks, and a stack without one. Source: SDM vol. 3, 9.1.2 and 9.2.3: locked instructions order everything else.

use iced_x86::code_asm::*;

use super::{Assembled, SHARED, Suite};

/// How often each processor takes each lock in a round.
const WORK: u64 = 32;
const LOCKS: u64 = SHARED;
/// What a lock protects: two counters, a line apart.
const PROTECTED: u64 = SHARED + 0x1000;
/// The top of the stack and the number of its changes; the nodes, a line each: next, owner.
const TOP: u64 = SHARED + 0x2000;
const NODES: u64 = SHARED + 0x3000;
const NODE_COUNT: u64 = 8;

/// A lock at rdi: how to take it, and how to let it go.
struct Lock {
    name: &'static str,
    take: fn(&mut Suite) -> Assembled,
    release: fn(&mut Suite) -> Assembled,
}

/// Spins by `try_once`, which jumps to the label when it has the lock.
fn spin(s: &mut Suite, try_once: fn(&mut Suite, CodeLabel) -> Assembled) -> Assembled {
    let (mut again, mut taken) = (s.label(), s.label());
    s.place(&mut again)?;
    try_once(s, taken)?;
    s.a.pause()?;
    s.a.jmp(again)?;
    s.place(&mut taken)
}

/// A plain store lets it go (SDM vol. 3, 9.2.2: stores are not reordered with earlier loads and stores).
fn store_zero(s: &mut Suite) -> Assembled {
    s.a.mov(dword_ptr(rdi), 0)
}

static KINDS: [Lock; 4] = [
    Lock {
        name: "ticket lock",
        take: |s| {
            let (mut wait, mut mine) = (s.label(), s.label());
            s.a.mov(eax, 1)?;
            s.a.lock().xadd(word_ptr(rdi), ax)?;
            s.place(&mut wait)?;
            s.a.cmp(word_ptr(rdi + 2), ax)?;
            s.a.je(mine)?;
            s.a.pause()?;
            s.a.jmp(wait)?;
            s.place(&mut mine)
        },
        release: |s| s.a.inc(word_ptr(rdi + 2)),
    },
    Lock {
        name: "XCHG lock",
        take: |s| {
            spin(s, |s, taken| {
                s.a.mov(eax, 1)?;
                s.a.xchg(dword_ptr(rdi), eax)?;
                s.a.test(eax, eax)?;
                s.a.je(taken)
            })
        },
        release: store_zero,
    },
    Lock {
        name: "BTS lock",
        take: |s| {
            spin(s, |s, taken| {
                s.a.lock().bts(dword_ptr(rdi), 7)?;
                s.a.jnc(taken)
            })
        },
        release: |s| s.a.lock().btr(dword_ptr(rdi), 7),
    },
    Lock {
        name: "CMPXCHG lock",
        take: |s| {
            spin(s, |s, taken| {
                s.a.xor(eax, eax)?;
                s.a.mov(ecx, 1)?;
                s.a.lock().cmpxchg(byte_ptr(rdi), cl)?;
                s.a.je(taken)
            })
        },
        release: store_zero,
    },
];

/// Takes a node from the stack (into rsi), owns it for a while, and puts it back. rdi points to the top.
fn borrow_node(s: &mut Suite) -> Assembled {
    let fail = s.fail;
    let (mut take, mut retry, mut put) = (s.label(), s.label(), s.label());
    s.place(&mut take)?;
    s.a.mov(rax, qword_ptr(rdi))?;
    s.a.mov(rdx, qword_ptr(rdi + 8))?;
    s.place(&mut retry)?;
    s.a.test(rax, rax)?;
    // There are more nodes than processors; but the two halves may have been read at different times.
    s.a.je(take)?;
    s.a.mov(rbx, qword_ptr(rax))?;
    s.a.lea(rcx, qword_ptr(rdx + 1))?;
    s.a.lock().cmpxchg16b(xmmword_ptr(rdi))?;
    s.a.jne(retry)?;
    s.a.mov(rsi, rax)?;
    // Nobody else has it.
    s.a.lea(rax, qword_ptr(r15 + 1))?;
    s.a.xchg(qword_ptr(rsi + 8), rax)?;
    s.a.test(rax, rax)?;
    s.a.jne(fail)?;
    s.a.lea(rax, qword_ptr(r15 + 1))?;
    s.a.cmp(qword_ptr(rsi + 8), rax)?;
    s.a.jne(fail)?;
    s.a.mov(qword_ptr(rsi + 8), 0)?;
    s.a.mov(rax, qword_ptr(rdi))?;
    s.a.mov(rdx, qword_ptr(rdi + 8))?;
    s.place(&mut put)?;
    s.a.mov(qword_ptr(rsi), rax)?;
    s.a.mov(rbx, rsi)?;
    s.a.lea(rcx, qword_ptr(rdx + 1))?;
    s.a.lock().cmpxchg16b(xmmword_ptr(rdi))?;
    s.a.jne(put)
}

fn build_stack(s: &mut Suite) -> Assembled {
    for node in 0..NODE_COUNT {
        let next = if node + 1 == NODE_COUNT { 0 } else { NODES + 64 * (node + 1) };
        s.a.mov(qword_ptr(NODES + 64 * node), next as i32)?;
        s.a.mov(qword_ptr(NODES + 64 * node + 8), 0)?;
    }
    s.a.mov(qword_ptr(TOP), NODES as i32)?;
    s.a.mov(qword_ptr(TOP + 8), 0)
}

pub(in crate::x86) fn define<const HARTS: u64>(s: &mut Suite) -> Assembled {
    s.start(HARTS, &[])?;
    s.first(HARTS, build_stack)?;
    s.rounds(HARTS, |s| {
        for (index, lock) in KINDS.iter().enumerate() {
            let counters = PROTECTED + 128 * index as u64;
            s.case(&format!("{} protects", lock.name))?;
            s.a.mov(edi, (LOCKS + 64 * index as u64) as u32)?;
            s.a.mov(ebx, counters as u32)?;
            s.repeat(rsi, WORK, |s| {
                (lock.take)(s)?;
                let fail = s.fail;
                s.a.mov(rax, qword_ptr(rbx))?;
                s.a.cmp(rax, qword_ptr(rbx + 64))?;
                s.a.jne(fail)?;
                s.a.inc(rax)?;
                s.a.mov(qword_ptr(rbx), rax)?;
                s.a.mov(qword_ptr(rbx + 64), rax)?;
                (lock.release)(s)
            })?;
        }
        s.case("nodes of a stack belong to one at a time")?;
        s.a.mov(edi, TOP as u32)?;
        s.repeat(r8, WORK, borrow_node)?;
        s.barrier(HARTS)?;
        for (index, lock) in KINDS.iter().enumerate() {
            s.case(&format!("{} loses nothing", lock.name))?;
            s.a.lea(rbx, qword_ptr(r12 + 1))?;
            s.a.imul_3(rbx, rbx, (HARTS * WORK) as i32)?;
            s.a.mov(rax, qword_ptr(PROTECTED + 128 * index as u64))?;
            s.check_eq(rax, rbx)?;
        }
        s.case("the stack loses nothing")?;
        s.a.lea(rbx, qword_ptr(r12 + 1))?;
        s.a.imul_3(rbx, rbx, (2 * HARTS * WORK) as i32)?;
        s.a.mov(rax, qword_ptr(TOP + 8))?;
        s.check_eq(rax, rbx)?;
        s.a.mov(rax, qword_ptr(TOP))?;
        s.a.xor(ebx, ebx)?;
        let (mut next, mut over) = (s.label(), s.label());
        s.place(&mut next)?;
        s.a.test(rax, rax)?;
        s.a.je(over)?;
        s.a.inc(rbx)?;
        s.a.mov(rax, qword_ptr(rax))?;
        s.a.jmp(next)?;
        s.place(&mut over)?;
        s.check(rbx, NODE_COUNT)
    })?;
    s.end()
}
