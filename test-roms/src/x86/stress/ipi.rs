//! Interrupts between processors. Source: SDM vol. 3, 12.6 (interrupt command register, destinations, lowest priority),
//! 7.7 (NMI), 10.4.4 (INIT and start-up), vol. 2 "HLT", "STI".
//!
//! Every interrupt is acknowledged by who takes it before the next one of its kind is sent: so none may be lost, and none
//! may come twice.

use iced_x86::code_asm::*;

use super::{
    APIC_IDS, ASSERT, Assembled, INIT, LAPIC, OTHERS, RESTART, SHARED, STARTUP, Suite, TRAMPOLINE,
    lapic,
};

/// Each sender's own vector; the one that ends a HLT; the one of spurious interrupts is not used.
const VECTOR: u32 = 0x40;
const WAKE: u32 = 0x50;
/// A line for each processor: interrupts of its vector that were taken. Beyond: its next number to send.
const TAKEN: u64 = SHARED;
/// NMIs that each processor has taken.
const NMIS: u64 = SHARED + 0x400;
const NMI_LOCK: u64 = SHARED + 0x800;
/// Whose turn it is to sleep.
const TOKEN: u64 = SHARED + 0x840;
const AWAKE: u64 = SHARED + 0x880;
const RESTARTED: u64 = SHARED + 0x8c0;
const READY: u64 = SHARED + 0x900;
const WORK: u64 = 8;

/// Destination shorthands (SDM vol. 3, 12.6.1).
const SELF: u32 = 1 << 18 | ASSERT;
const ALL: u32 = 2 << 18 | ASSERT;
const LOGICAL: u32 = 1 << 11;
const LOWEST_PRIORITY: u32 = 1 << 8;
const NMI: u32 = 4 << 8;

/// Writes the command `command | vector` with the vector of this processor.
fn send_own(s: &mut Suite, command: u32) -> Assembled {
    s.a.mov(edx, LAPIC as u32)?;
    s.a.lea(ecx, qword_ptr(r15 + VECTOR as i32))?;
    s.a.or(ecx, command as i32)?;
    s.a.mov(dword_ptr(rdx + lapic::ICR), ecx)
}

/// Sets the destination of the next command to eax.
fn destination(s: &mut Suite) -> Assembled {
    s.a.mov(edx, LAPIC as u32)?;
    s.a.mov(dword_ptr(rdx + lapic::ICR_HIGH), eax)
}

/// eax = a random processor's number.
fn anybody(s: &mut Suite, harts: u64) -> Assembled {
    s.random()?;
    s.a.shr(rax, 17)?;
    s.a.and(eax, harts as i32 - 1)
}

/// rsi = the line of this processor.
fn own_line(s: &mut Suite) -> Assembled {
    s.a.mov(rsi, r15)?;
    s.a.shl(rsi, 6)
}

/// Waits until `n` more interrupts of this processor's vector were taken; more are too many.
fn await_taken(s: &mut Suite, n: u64) -> Assembled {
    let (mut wait, fail) = (s.label(), s.fail);
    own_line(s)?;
    s.a.add(rbx, n as i32)?;
    s.place(&mut wait)?;
    s.a.pause()?;
    s.a.cmp(qword_ptr(rsi + TAKEN), rbx)?;
    s.a.jb(wait)?;
    s.a.ja(fail)
}

fn storm(s: &mut Suite, harts: u64) -> Assembled {
    own_line(s)?;
    s.a.mov(rbx, qword_ptr(rsi + TAKEN))?;
    s.a.sti()?;
    s.repeat(r8, WORK, |s| {
        s.case("a fixed interrupt arrives at one")?;
        anybody(s, harts)?;
        s.a.mov(eax, dword_ptr(APIC_IDS + 4 * rax))?;
        destination(s)?;
        send_own(s, ASSERT)?;
        await_taken(s, 1)?;
        s.case("a fixed interrupt arrives at a set")?;
        s.a.mov(eax, 3 << 24)?;
        destination(s)?;
        send_own(s, ASSERT | LOGICAL)?;
        await_taken(s, 2)?;
        s.case("an interrupt of lowest priority arrives at one of a set")?;
        s.a.mov(eax, ((1u32 << harts) - 1) << 24)?;
        destination(s)?;
        send_own(s, ASSERT | LOGICAL | LOWEST_PRIORITY)?;
        await_taken(s, 1)?;
        s.case("an interrupt arrives at its sender")?;
        send_own(s, SELF)?;
        await_taken(s, 1)?;
        s.case("an interrupt arrives at all")?;
        send_own(s, ALL)?;
        await_taken(s, harts)?;
        s.case("an interrupt arrives at all others")?;
        send_own(s, OTHERS)?;
        await_taken(s, harts - 1)?;
        nmi(s, harts)
    })
}

/// Sends an NMI to all others, under a lock: two at the same time may be one.
fn nmi(s: &mut Suite, harts: u64) -> Assembled {
    let (mut again, mut taken) = (s.label(), s.label());
    s.case("an NMI arrives at all others")?;
    s.place(&mut again)?;
    s.a.mov(eax, 1)?;
    s.a.xchg(dword_ptr(NMI_LOCK), eax)?;
    s.a.test(eax, eax)?;
    s.a.je(taken)?;
    s.a.pause()?;
    s.a.jmp(again)?;
    s.place(&mut taken)?;
    s.a.mov(rdi, qword_ptr(NMIS))?;
    s.a.mov(edx, LAPIC as u32)?;
    s.a.mov(dword_ptr(rdx + lapic::ICR), OTHERS | NMI)?;
    let mut wait = s.label();
    s.a.add(rdi, harts as i32 - 1)?;
    s.place(&mut wait)?;
    s.a.pause()?;
    s.a.cmp(qword_ptr(NMIS), rdi)?;
    s.a.jb(wait)?;
    let fail = s.fail;
    s.a.ja(fail)?;
    s.a.mov(dword_ptr(NMI_LOCK), 0)
}

/// The processors wake each other in turn. STI takes effect behind HLT, so that no wake-up is missed.
fn wake(s: &mut Suite, harts: u64) -> Assembled {
    let (mut look, mut mine) = (s.label(), s.label());
    s.case("HLT ends when an interrupt arrives")?;
    s.a.cli()?;
    s.repeat(r8, WORK, |s| {
        s.place(&mut look)?;
        s.a.mov(rax, qword_ptr(TOKEN))?;
        s.a.and(eax, harts as i32 - 1)?;
        s.a.cmp(eax, r15d)?;
        s.a.je(mine)?;
        s.a.sti()?;
        s.a.hlt()?;
        s.a.cli()?;
        s.a.jmp(look)?;
        s.place(&mut mine)?;
        s.a.inc(qword_ptr(TOKEN))?;
        s.a.lea(eax, qword_ptr(r15 + 1))?;
        s.a.and(eax, harts as i32 - 1)?;
        s.a.mov(eax, dword_ptr(APIC_IDS + 4 * rax))?;
        destination(s)?;
        s.a.mov(dword_ptr(rdx + lapic::ICR), ASSERT | WAKE)
    })
}

/// The first processor starts the others anew, one after the other.
fn restart(s: &mut Suite, harts: u64) -> Assembled {
    let (mut others, mut over) = (s.label(), s.label());
    let mut anew = s.label();
    s.case("INIT and start-up begin anew")?;
    s.first(harts, |s| {
        s.a.lea(rax, qword_ptr(anew))?;
        s.a.mov(qword_ptr(RESTART), rax)?;
        s.a.mov(dword_ptr(READY), 0)?;
        s.a.mov(dword_ptr(RESTARTED), 0)
    })?;
    s.a.test(r15d, r15d)?;
    s.a.jne(others)?;
    let mut ready = s.label();
    s.place(&mut ready)?;
    s.a.pause()?;
    s.a.cmp(dword_ptr(READY), harts as i32 - 1)?;
    s.a.jne(ready)?;
    for hart in 1..harts {
        s.a.mov(eax, dword_ptr(APIC_IDS + 4 * hart))?;
        destination(s)?;
        s.send(ASSERT | INIT)?;
        s.send(ASSERT | STARTUP | (TRAMPOLINE >> 12) as u32)?;
        let mut wait = s.label();
        s.place(&mut wait)?;
        s.a.pause()?;
        s.a.cmp(dword_ptr(RESTARTED), hart as i32)?;
        s.a.jne(wait)?;
    }
    s.a.jmp(over)?;
    // What the others know, each keeps in a line of its own.
    s.place(&mut others)?;
    own_line(s)?;
    for (at, register) in [r12, r13, r14, rsp].into_iter().enumerate() {
        s.a.mov(qword_ptr(rsi + SAVED + 8 * at as u64), register)?;
    }
    s.a.lock().inc(dword_ptr(READY))?;
    let mut rest = s.label();
    s.place(&mut rest)?;
    s.a.pause()?;
    s.a.jmp(rest)?;
    // Who starts anew is the one whose turn it is.
    s.place(&mut anew)?;
    s.a.mov(r15d, dword_ptr(RESTARTED))?;
    s.a.inc(r15d)?;
    own_line(s)?;
    for (at, register) in [r12, r13, r14, rsp].into_iter().enumerate() {
        s.a.mov(register, qword_ptr(rsi + SAVED + 8 * at as u64))?;
    }
    let last = s.cases.len() as u32;
    s.a.mov(ebp, last)?;
    s.load_idt()?;
    // INIT has disabled the local APIC, but its ID is kept (SDM vol. 3, 12.4.7.1).
    s.enable_lapic()?;
    s.a.mov(dword_ptr(RESTARTED), r15d)?;
    s.place(&mut over)
}

/// Where the processors keep what a start takes from them.
const SAVED: u64 = SHARED + 0x1000;

pub(in crate::x86) fn define<const HARTS: u64>(s: &mut Suite) -> Assembled {
    let mut gates = Vec::new();
    for hart in 0..HARTS {
        let handler = s.handler(true, |s| s.a.lock().inc(qword_ptr(TAKEN + 64 * hart)))?;
        gates.push((VECTOR + hart as u32, handler));
    }
    gates.push((WAKE, s.handler(true, |s| s.a.lock().inc(qword_ptr(AWAKE)))?));
    gates.push((2, s.handler(false, |s| s.a.lock().inc(qword_ptr(NMIS)))?));
    s.start(HARTS, &gates)?;
    s.rounds(HARTS, |s| {
        storm(s, HARTS)?;
        // With interrupts on: others may still send.
        s.barrier(HARTS)?;
        wake(s, HARTS)?;
        s.barrier(HARTS)?;
        restart(s, HARTS)
    })?;
    s.end()
}
