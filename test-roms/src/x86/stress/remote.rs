//! Translations and code that others change while they are in use. Sources: SDM vol. 3, 5.10.5 (propagation of changes
//! of paging structures) and 9.1.3 (code that is modified by others).
//!
//! In each phase one processor makes a change, tells all others by an interrupt, waits until they have acknowledged it,
//! and then announces the phase. Whoever reads the announcement before and after a look knows what may be seen.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::{
    Assembled, FRAMES, LAPIC, OTHERS, PCID, PRESENT_WRITABLE, SHARED, Suite, WINDOW, WINDOW_TABLE,
    lapic,
};

const VECTOR: u32 = 0x40;
/// Number of the phase that all have acknowledged; acknowledgements of the next one; what it asks for.
const PHASE: u64 = SHARED;
const ACKNOWLEDGED: u64 = SHARED + 0x40;
const KIND: u64 = SHARED + 0x80;
/// Operand of INVPCID: PCID 0, and the page.
const DESCRIPTOR: u64 = SHARED + 0xc0;
/// Phases of a round.
const PHASES: u64 = 16;
/// Frames that take turns, a power of two: an old one is told from the two that may be seen.
const FRAME_COUNT: u64 = 4;
/// Ways to drop a translation.
const KINDS: u64 = 6;
/// Offset of the number of a frame in it, and of what others store.
const NUMBER: u64 = 0x100;
const STORED: u64 = 0x200;

/// Acknowledges.
fn acknowledge(s: &mut Suite) -> Assembled {
    s.a.lock().inc(qword_ptr(ACKNOWLEDGED))
}

/// Drops the translation of the page at [`WINDOW`] in the way that [`KIND`] names. Clobbers rax, rcx and rdx.
fn drop_translation(s: &mut Suite) -> Assembled {
    let mut over = s.label();
    s.a.mov(eax, dword_ptr(KIND))?;
    for kind in 0..KINDS {
        let mut next = s.label();
        s.a.cmp(eax, kind as i32)?;
        s.a.jne(next)?;
        match kind {
            0 => {
                s.a.mov(rcx, WINDOW)?;
                s.a.invlpg(ptr(rcx))?;
            }
            1 => {
                s.a.mov(rax, cr3)?;
                s.a.mov(cr3, rax)?;
            }
            // All kinds of INVPCID: address, context, all, all but global.
            _ => {
                s.a.mov(ecx, kind as u32 - 2)?;
                s.a.invpcid(rcx, xmmword_ptr(DESCRIPTOR))?;
            }
        }
        s.a.jmp(over)?;
        s.place(&mut next)?;
    }
    s.place(&mut over)
}

fn handler(s: &mut Suite, body: fn(&mut Suite) -> Assembled) -> Result<CodeLabel, IcedError> {
    s.handler(true, |s| {
        body(s)?;
        acknowledge(s)
    })
}

/// Tells all others, and waits until they have acknowledged.
fn tell_others(s: &mut Suite, harts: u64) -> Assembled {
    let mut wait = s.label();
    s.a.mov(qword_ptr(ACKNOWLEDGED), 0)?;
    s.a.mov(edx, LAPIC as u32)?;
    s.a.mov(dword_ptr(rdx + lapic::ICR), OTHERS | VECTOR)?;
    s.place(&mut wait)?;
    s.a.pause()?;
    s.a.cmp(qword_ptr(ACKNOWLEDGED), harts as i32 - 1)?;
    s.a.jne(wait)
}

/// One processor, another one each round, goes through some phases: `change` makes the one in rbx, `settled` may rely on
/// it. The others `look` over and over, after which rsi holds the phase before the look, rax what they saw (a phase,
/// modulo `modulus`).
fn phases(
    s: &mut Suite,
    harts: u64,
    modulus: u64,
    change: impl FnOnce(&mut Suite) -> Assembled,
    settled: impl FnOnce(&mut Suite) -> Assembled,
    look: impl FnOnce(&mut Suite) -> Assembled,
) -> Assembled {
    let (mut others, mut over, mut again, mut good) = (s.label(), s.label(), s.label(), s.label());
    s.a.mov(rcx, r12)?;
    s.a.and(ecx, harts as i32 - 1)?;
    s.a.cmp(ecx, r15d)?;
    s.a.jne(others)?;
    s.repeat(r8, PHASES, |s| {
        s.a.mov(rbx, qword_ptr(PHASE))?;
        s.a.inc(rbx)?;
        change(s)?;
        s.a.mov(qword_ptr(PHASE), rbx)?;
        settled(s)
    })?;
    s.a.jmp(over)?;
    s.place(&mut others)?;
    // The last phase of this round.
    s.a.lea(r9, qword_ptr(r12 + 1))?;
    s.a.imul_3(r9, r9, PHASES as i32)?;
    s.a.sti()?;
    s.place(&mut again)?;
    s.a.pause()?;
    s.a.mov(rsi, qword_ptr(PHASE))?;
    look(s)?;
    // Not before the phase that was announced, and not beyond the one that may be in the making.
    s.a.mov(rdi, qword_ptr(PHASE))?;
    s.a.inc(rdi)?;
    s.a.sub(rdi, rsi)?;
    s.a.cmp(rdi, modulus as i32)?;
    s.a.jae(good)?;
    s.a.sub(rax, rsi)?;
    s.a.and(rax, modulus as i32 - 1)?;
    let fail = s.fail;
    s.a.cmp(rax, rdi)?;
    s.a.ja(fail)?;
    s.place(&mut good)?;
    s.a.cmp(qword_ptr(PHASE), r9)?;
    s.a.jb(again)?;
    s.a.cli()?;
    s.place(&mut over)
}

/// Address of the frame of the phase in rbx, in rdi.
fn frame(s: &mut Suite) -> Assembled {
    s.a.mov(rdi, rbx)?;
    s.a.and(edi, FRAME_COUNT as i32 - 1)?;
    s.a.shl(rdi, 12)?;
    s.a.add(rdi, FRAMES as i32)
}

/// Chooses among the ways that the processor has: without PCIDs and INVPCID, two.
fn choose_kind(s: &mut Suite) -> Assembled {
    s.a.mov(rax, rbx)?;
    s.a.xor(edx, edx)?;
    s.a.mov(rcx, qword_ptr(KIND + 8))?;
    s.a.div(rcx)?;
    s.a.mov(dword_ptr(KIND), edx)
}

fn prepare(s: &mut Suite) -> Assembled {
    for number in 0..FRAME_COUNT {
        s.a.mov(qword_ptr(FRAMES + 0x1000 * number + NUMBER), number as i32)?;
    }
    s.a.mov(rax, FRAMES | PRESENT_WRITABLE)?;
    s.a.mov(qword_ptr(WINDOW_TABLE), rax)?;
    s.a.mov(qword_ptr(DESCRIPTOR), 0)?;
    s.a.mov(rax, WINDOW)?;
    s.a.mov(qword_ptr(DESCRIPTOR + 8), rax)?;
    s.a.mov(qword_ptr(KIND + 8), 2)?;
    // CPUID.7:EBX bit 10: INVPCID.
    let mut over = s.label();
    s.a.mov(eax, 7)?;
    s.a.xor(ecx, ecx)?;
    s.a.cpuid()?;
    s.a.test(ebx, 1 << 10)?;
    s.a.je(over)?;
    s.a.mov(qword_ptr(KIND + 8), KINDS as i32)?;
    s.place(&mut over)
}

/// Sets CR4.PCIDE on processors of even number, where there are PCIDs: the others change CR3 without.
fn use_pcid(s: &mut Suite) -> Assembled {
    let mut over = s.label();
    s.a.test(r15d, 1)?;
    s.a.jne(over)?;
    s.a.mov(eax, 1)?;
    s.a.cpuid()?;
    s.a.test(ecx, PCID)?;
    s.a.je(over)?;
    s.a.mov(rax, cr4)?;
    s.a.or(eax, 1 << 17)?;
    s.a.mov(cr4, rax)?;
    s.place(&mut over)
}

pub(in crate::x86) fn shootdown<const HARTS: u64>(s: &mut Suite) -> Assembled {
    let handler = handler(s, drop_translation)?;
    s.start(HARTS, &[(VECTOR, handler)])?;
    use_pcid(s)?;
    s.first(HARTS, prepare)?;
    s.rounds(HARTS, |s| {
        s.case("a page that was remapped leads to its new frame, and only there")?;
        let fail = s.fail;
        phases(
            s,
            HARTS,
            FRAME_COUNT,
            |s| {
                choose_kind(s)?;
                frame(s)?;
                s.a.lea(rax, qword_ptr(rdi + PRESENT_WRITABLE as i32))?;
                s.a.mov(qword_ptr(WINDOW_TABLE), rax)?;
                drop_translation(s)?;
                tell_others(s, HARTS)
            },
            |s| {
                // Nobody stores to the former frame any more.
                s.a.dec(rbx)?;
                frame(s)?;
                for hart in 0..HARTS {
                    s.a.mov(rax, qword_ptr(rdi + (STORED + 8 * hart) as i32))?;
                    s.a.mov(qword_ptr(SHARED + 0x100 + 8 * hart), rax)?;
                }
                s.repeat(rcx, 64, |s| s.a.pause())?;
                for hart in 0..HARTS {
                    s.a.mov(rax, qword_ptr(rdi + (STORED + 8 * hart) as i32))?;
                    s.a.cmp(qword_ptr(SHARED + 0x100 + 8 * hart), rax)?;
                    s.a.jne(fail)?;
                }
                Ok(())
            },
            |s| {
                s.a.mov(rdx, WINDOW)?;
                s.a.lock().inc(qword_ptr(rdx + 8 * r15 + STORED as i32))?;
                s.a.mov(rax, qword_ptr(rdx + NUMBER as i32))
            },
        )
    })?;
    s.end()
}

/// The function that is changed: MOV EAX, imm32; RET. Its operand is aligned.
const FUNCTION: u64 = FRAMES + 0x103;
const OPERAND: u64 = FUNCTION + 1;

fn write_function(s: &mut Suite) -> Assembled {
    s.a.mov(byte_ptr(FUNCTION), 0xb8)?;
    s.a.mov(dword_ptr(OPERAND), 0)?;
    s.a.mov(byte_ptr(OPERAND + 4), 0xc3)
}

/// Changes the operand to the phase in rbx, in one of several ways.
fn patch(s: &mut Suite) -> Assembled {
    const WAYS: u64 = 4;
    let mut over = s.label();
    s.a.mov(ecx, ebx)?;
    s.a.and(ecx, WAYS as i32 - 1)?;
    for way in 0..WAYS {
        let mut next = s.label();
        s.a.cmp(ecx, way as i32)?;
        s.a.jne(next)?;
        match way {
            0 => s.a.mov(dword_ptr(OPERAND), ebx)?,
            1 => {
                s.a.mov(eax, ebx)?;
                s.a.xchg(dword_ptr(OPERAND), eax)?;
            }
            2 => {
                s.a.mov(dword_ptr(SHARED + 0x100), ebx)?;
                s.a.mov(esi, (SHARED + 0x100) as u32)?;
                s.a.mov(edi, OPERAND as u32)?;
                s.a.mov(ecx, 1)?;
                s.a.rep().movsd()?;
            }
            _ => s.a.lock().add(dword_ptr(OPERAND), 1)?,
        }
        s.a.jmp(over)?;
        s.place(&mut next)?;
    }
    s.place(&mut over)
}

fn call(s: &mut Suite) -> Assembled {
    s.a.mov(eax, FUNCTION as u32)?;
    s.a.call(rax)
}

pub(in crate::x86) fn code<const HARTS: u64>(s: &mut Suite) -> Assembled {
    // There are never so many.
    const MODULUS: u64 = 1 << 30;
    // IRET serialises.
    let handler = handler(s, |_| Ok(()))?;
    s.start(HARTS, &[(VECTOR, handler)])?;
    s.first(HARTS, write_function)?;
    s.rounds(HARTS, |s| {
        let fail = s.fail;
        s.case(
            "code that was changed runs as changed, at once here and elsewhere after an interrupt",
        )?;
        phases(
            s,
            HARTS,
            MODULUS,
            |s| {
                patch(s)?;
                call(s)?;
                s.a.cmp(eax, ebx)?;
                s.a.jne(fail)?;
                tell_others(s, HARTS)
            },
            |_| Ok(()),
            call,
        )?;
        s.barrier(HARTS)?;
        s.case("code that was changed runs as changed after a serialising instruction")?;
        serialised(s, HARTS)
    })?;
    s.end()
}

/// Another function, which the first processor changes without telling anybody but by a word in memory.
const QUIET: u64 = FRAMES + 0x1103;
const QUIET_PHASE: u64 = SHARED + 0x180;

fn serialised(s: &mut Suite, harts: u64) -> Assembled {
    let (mut others, mut over, mut again) = (s.label(), s.label(), s.label());
    let fail = s.fail;
    s.first(harts, |s| {
        s.a.mov(byte_ptr(QUIET), 0xb8)?;
        s.a.mov(dword_ptr(QUIET + 1), 0)?;
        s.a.mov(byte_ptr(QUIET + 5), 0xc3)?;
        s.a.mov(qword_ptr(QUIET_PHASE), 0)
    })?;
    s.a.test(r15d, r15d)?;
    s.a.jne(others)?;
    s.a.xor(ebx, ebx)?;
    s.repeat(r8, PHASES, |s| {
        s.a.inc(ebx)?;
        s.a.mov(dword_ptr(QUIET + 1), ebx)?;
        s.a.mov(qword_ptr(QUIET_PHASE), rbx)?;
        s.repeat(rcx, 200, |s| s.a.pause())
    })?;
    s.a.jmp(over)?;
    s.place(&mut others)?;
    s.place(&mut again)?;
    s.a.pause()?;
    s.a.mov(rsi, qword_ptr(QUIET_PHASE))?;
    s.a.xor(eax, eax)?;
    s.a.cpuid()?;
    s.a.mov(eax, QUIET as u32)?;
    s.a.call(rax)?;
    s.a.cmp(eax, esi)?;
    s.a.jb(fail)?;
    s.a.cmp(esi, PHASES as i32)?;
    s.a.jb(again)?;
    s.place(&mut over)
}
