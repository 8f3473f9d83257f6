//! Every LOCKable form and size. Source: SDM vol. 3, 9.1.2: locked operations are atomic wherever their operand lies, in
//! a cache line, across lines or pages; XCHG with memory is always locked.
//!
//! Each processor does the same to a variable, which must end as if they had done so one after the other.

use iced_x86::code_asm::*;

use super::{Assembled, FRAMES, PRESENT_WRITABLE, SHARED, Suite, WINDOW, WINDOW_TABLE};

/// Where the variables lie: 128 bytes for each.
const VAR: u64 = SHARED;
const VAR_SIZE: u64 = 128;
const PLACE_SIZE: u64 = 0x4000;
/// What each processor contributed: a line for each processor, 0x100 for each variable.
const PART: u64 = SHARED + 0x10_0000;
/// Memory behind a device: that of pc-testdev.
const DEVICE: u64 = 0xff00_0000;
/// A second window on the same frames.
const ALIAS: u64 = 0x10_0000;
/// Pages of a window.
const PAGES: u64 = 128;

/// Where an operand lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Aligned,
    InLine,
    AcrossLines,
    AcrossPages,
    Device,
}

const PLACES: [(At, &str, u64); 5] = [
    (At::Aligned, "aligned", 16),
    (At::InLine, "unaligned", 16),
    (At::AcrossLines, "across lines", 16),
    (At::AcrossPages, "across pages", 2),
    (At::Device, "of a device", 2),
];

impl At {
    /// Address of variable `index`, of so many bytes.
    fn address(self, index: u64, bytes: u64) -> u64 {
        let at = VAR + PLACE_SIZE * self as u64 + VAR_SIZE * index;
        match self {
            At::Aligned => at + 16,
            At::InLine => at + 19,
            At::AcrossLines => at + 64 - bytes / 2,
            At::AcrossPages => WINDOW + 0x1000 * (index + 1) - bytes / 2,
            At::Device => DEVICE + 0x40 * index + 16,
        }
    }
}

/// What the variable holds in the end.
enum Check {
    /// This, by the number of operations of all processors.
    Final(fn(u64) -> u64),
    /// The sum of the parts, which are in r11.
    Parts,
    /// The number of operations n, and the parts are the sum of what came before: 0 to n - 1.
    Tickets,
}

/// An operation on the variable at rdi. It may use rax, rbx, rcx, rdx, r8 and r9; r10 is the processor's own bit.
struct Op {
    name: &'static str,
    initial: u64,
    emit: fn(&mut Suite, u64) -> Assembled,
    check: Check,
}

/// An instruction with a memory operand at rdi and a register or immediate, for the operand size.
macro_rules! sized {
    ($s:ident, $bytes:ident, $insn:ident, $b:expr, $w:expr, $d:expr, $q:expr) => {
        match $bytes {
            1 => $s.a.lock().$insn(byte_ptr(rdi), $b),
            2 => $s.a.lock().$insn(word_ptr(rdi), $w),
            4 => $s.a.lock().$insn(dword_ptr(rdi), $d),
            _ => $s.a.lock().$insn(qword_ptr(rdi), $q),
        }
    };
    ($s:ident, $bytes:ident, $insn:ident) => {
        match $bytes {
            1 => $s.a.lock().$insn(byte_ptr(rdi)),
            2 => $s.a.lock().$insn(word_ptr(rdi)),
            4 => $s.a.lock().$insn(dword_ptr(rdi)),
            _ => $s.a.lock().$insn(qword_ptr(rdi)),
        }
    };
}

fn load(s: &mut Suite, bytes: u64) -> Assembled {
    match bytes {
        1 => s.a.movzx(eax, byte_ptr(rdi)),
        2 => s.a.movzx(eax, word_ptr(rdi)),
        4 => s.a.mov(eax, dword_ptr(rdi)),
        _ => s.a.mov(rax, qword_ptr(rdi)),
    }
}

/// Sets, tests, flips and clears the processor's own bit; nobody else changes it.
fn own_bit(
    s: &mut Suite,
    bytes: u64,
    set: fn(&mut Suite, u64) -> Assembled,
    clear: fn(&mut Suite, u64) -> Assembled,
) -> Assembled {
    let fail = s.fail;
    for (change, lost) in [(set, true), (clear, false)] {
        s.a.mov(rbx, r10)?;
        change(s, bytes)?;
        load(s, bytes)?;
        s.a.test(rax, r10)?;
        if lost {
            s.a.je(fail)?;
        } else {
            s.a.jne(fail)?;
        }
    }
    Ok(())
}

/// BTS, BTR and BTC by the number of the processor, in rcx; they tell what the bit was.
fn bit_test(s: &mut Suite, bytes: u64, immediate: bool) -> Assembled {
    let fail = s.fail;
    if immediate {
        // A bit that all flip, an even number of times.
        match bytes {
            2 => s.a.lock().btc(word_ptr(rdi), 9)?,
            4 => s.a.lock().btc(dword_ptr(rdi), 9)?,
            _ => s.a.lock().btc(qword_ptr(rdi), 9)?,
        }
        return Ok(());
    }
    s.a.mov(rcx, r15)?;
    macro_rules! bit {
        ($insn:ident) => {
            match bytes {
                2 => s.a.lock().$insn(word_ptr(rdi), cx)?,
                4 => s.a.lock().$insn(dword_ptr(rdi), ecx)?,
                _ => s.a.lock().$insn(qword_ptr(rdi), rcx)?,
            }
        };
    }
    bit!(bts);
    s.a.jc(fail)?;
    bit!(btr);
    s.a.jnc(fail)?;
    bit!(btc);
    s.a.jc(fail)?;
    bit!(btc);
    s.a.jnc(fail)
}

/// Adds 1 by compare-and-exchange.
fn cmpxchg(s: &mut Suite, bytes: u64) -> Assembled {
    let mut again = s.label();
    load(s, bytes)?;
    s.place(&mut again)?;
    s.a.lea(rcx, qword_ptr(rax + 1))?;
    sized!(s, bytes, cmpxchg, cl, cx, ecx, rcx)?;
    s.a.jne(again)
}

fn cmpxchg8b(s: &mut Suite, _: u64) -> Assembled {
    let mut again = s.label();
    s.a.mov(eax, dword_ptr(rdi))?;
    s.a.mov(edx, dword_ptr(rdi + 4))?;
    s.place(&mut again)?;
    s.a.mov(ebx, eax)?;
    s.a.mov(ecx, edx)?;
    s.a.add(ebx, 1)?;
    s.a.adc(ecx, 0)?;
    s.a.lock().cmpxchg8b(qword_ptr(rdi))?;
    s.a.jne(again)
}

/// Exchanges the variable with a random number: what went in and did not come out is there in the end.
fn xchg(s: &mut Suite, bytes: u64) -> Assembled {
    s.random()?;
    match bytes {
        1 => s.a.movzx(eax, al)?,
        2 => s.a.movzx(eax, ax)?,
        4 => s.a.mov(eax, eax)?,
        _ => {}
    }
    s.a.add(r11, rax)?;
    match bytes {
        1 => s.a.xchg(byte_ptr(rdi), al)?,
        2 => s.a.xchg(word_ptr(rdi), ax)?,
        4 => s.a.xchg(dword_ptr(rdi), eax)?,
        _ => s.a.xchg(qword_ptr(rdi), rax)?,
    }
    s.a.sub(r11, rax)
}

fn xadd(s: &mut Suite, bytes: u64) -> Assembled {
    s.a.mov(eax, 1)?;
    sized!(s, bytes, xadd, al, ax, eax, rax)?;
    s.a.add(r11, rax)
}

static OPS: &[Op] = &[
    Op {
        name: "add",
        initial: 0,
        emit: |s, bytes| {
            s.a.mov(eax, 3)?;
            sized!(s, bytes, add, al, ax, eax, rax)
        },
        check: Check::Final(|n| 3 * n),
    },
    Op {
        name: "add immediate",
        initial: 1,
        emit: |s, bytes| sized!(s, bytes, add, 5, 5, 5, 5),
        check: Check::Final(|n| 1 + 5 * n),
    },
    Op {
        name: "sub",
        initial: 0,
        emit: |s, bytes| {
            s.a.mov(eax, 7)?;
            sized!(s, bytes, sub, al, ax, eax, rax)
        },
        check: Check::Final(|n| (7 * n).wrapping_neg()),
    },
    Op {
        name: "inc",
        initial: 0,
        emit: |s, bytes| sized!(s, bytes, inc),
        check: Check::Final(|n| n),
    },
    Op {
        name: "dec",
        initial: 0,
        emit: |s, bytes| sized!(s, bytes, dec),
        check: Check::Final(u64::wrapping_neg),
    },
    Op {
        name: "adc",
        initial: 0,
        emit: |s, bytes| {
            s.a.mov(eax, 1)?;
            s.a.stc()?;
            sized!(s, bytes, adc, al, ax, eax, rax)
        },
        check: Check::Final(|n| 2 * n),
    },
    Op {
        name: "sbb",
        initial: 0,
        emit: |s, bytes| {
            s.a.mov(eax, 1)?;
            s.a.stc()?;
            sized!(s, bytes, sbb, al, ax, eax, rax)
        },
        check: Check::Final(|n| (2 * n).wrapping_neg()),
    },
    Op {
        name: "neg",
        initial: 5,
        emit: |s, bytes| sized!(s, bytes, neg),
        check: Check::Final(|_| 5),
    },
    Op {
        name: "not",
        initial: 5,
        emit: |s, bytes| sized!(s, bytes, not),
        check: Check::Final(|_| 5),
    },
    Op {
        name: "or, and",
        initial: 0,
        emit: |s, bytes| {
            own_bit(
                s,
                bytes,
                |s, bytes| sized!(s, bytes, or, bl, bx, ebx, rbx),
                |s, bytes| {
                    s.a.not(rbx)?;
                    sized!(s, bytes, and, bl, bx, ebx, rbx)
                },
            )
        },
        check: Check::Final(|_| 0),
    },
    Op {
        name: "xor",
        initial: 0,
        emit: |s, bytes| {
            own_bit(
                s,
                bytes,
                |s, bytes| sized!(s, bytes, xor, bl, bx, ebx, rbx),
                |s, bytes| sized!(s, bytes, xor, bl, bx, ebx, rbx),
            )
        },
        check: Check::Final(|_| 0),
    },
    Op { name: "xadd", initial: 0, emit: xadd, check: Check::Tickets },
    Op { name: "xchg", initial: 0, emit: xchg, check: Check::Parts },
    Op { name: "cmpxchg", initial: 0, emit: cmpxchg, check: Check::Final(|n| n) },
    Op {
        name: "bts, btr, btc",
        initial: 0,
        emit: |s, bytes| bit_test(s, bytes, false),
        check: Check::Final(|_| 0),
    },
    Op {
        name: "btc immediate",
        initial: 5,
        emit: |s, bytes| bit_test(s, bytes, true),
        check: Check::Final(|_| 5),
    },
    Op {
        name: "cmpxchg8b",
        initial: 0xffff_fff0,
        emit: cmpxchg8b,
        check: Check::Final(|n| 0xffff_fff0 + n),
    },
];

/// The operations in all their sizes.
fn variants() -> impl Iterator<Item = (u64, &'static Op, u64)> {
    let sizes = |op: &Op| -> &'static [u64] {
        match op.name {
            "cmpxchg8b" => &[8],
            name if name.starts_with("bt") => &[2, 4, 8],
            _ => &[1, 2, 4, 8],
        }
    };
    let all = OPS.iter().flat_map(move |op| sizes(op).iter().map(move |bytes| (op, *bytes)));
    all.enumerate().map(|(index, (op, bytes))| (index as u64, op, bytes))
}

/// rdi = the variable, as the processor sees it: those of odd number look at other addresses of the same pages.
fn point(s: &mut Suite, at: At, index: u64, bytes: u64) -> Assembled {
    s.a.mov(rdi, at.address(index, bytes))?;
    if at == At::AcrossPages {
        s.a.mov(eax, r15d)?;
        s.a.and(eax, 1)?;
        s.a.imul_3(eax, eax, ALIAS as i32)?;
        s.a.add(rdi, rax)?;
    }
    Ok(())
}

fn check(
    s: &mut Suite,
    harts: u64,
    work: u64,
    at: At,
    index: u64,
    op: &Op,
    bytes: u64,
) -> Assembled {
    let n = harts * work;
    let mask = u64::MAX >> (64 - 8 * bytes);
    let fail = s.fail;
    point(s, at, index, bytes)?;
    load(s, bytes)?;
    if !matches!(op.check, Check::Final(_)) {
        s.a.xor(r11d, r11d)?;
        for hart in 0..harts {
            s.a.add(r11, qword_ptr(PART + 0x100 * index + 0x40 * hart))?;
        }
        s.a.mov(rcx, mask)?;
        s.a.and(r11, rcx)?;
    }
    match op.check {
        Check::Final(value) => s.check(rax, value(n) & mask)?,
        Check::Parts => s.check_eq(rax, r11)?,
        Check::Tickets => {
            s.check(rax, n & mask)?;
            s.check(r11, n * (n - 1) / 2 & mask)?;
        }
    }
    // What lies beside it has not changed.
    if at != At::Device {
        s.a.cmp(qword_ptr(rdi - 8), 0)?;
        s.a.jne(fail)?;
        s.a.cmp(qword_ptr(rdi + bytes as i32), 0)?;
        s.a.jne(fail)?;
    }
    Ok(())
}

fn initialise(s: &mut Suite) -> Assembled {
    for (at, _, _) in PLACES {
        for (index, op, bytes) in variants().filter(|(_, _, bytes)| *bytes > 1 || at == At::Aligned)
        {
            point(s, at, index, bytes)?;
            s.a.mov(rax, op.initial & u64::MAX >> (64 - 8 * bytes))?;
            match bytes {
                1 => s.a.mov(byte_ptr(rdi), al)?,
                2 => s.a.mov(word_ptr(rdi), ax)?,
                4 => s.a.mov(dword_ptr(rdi), eax)?,
                _ => s.a.mov(qword_ptr(rdi), rax)?,
            }
        }
    }
    Ok(())
}

/// Maps both windows to frames in disorder.
fn map_window(s: &mut Suite) -> Assembled {
    for page in 0..PAGES {
        let frame = FRAMES + 0x1000 * ((page * 37 + 11) % PAGES);
        for entry in [page, page + ALIAS / 0x1000] {
            s.a.mov(rax, frame | PRESENT_WRITABLE)?;
            s.a.mov(qword_ptr(WINDOW_TABLE + 8 * entry), rax)?;
        }
    }
    Ok(())
}

pub(in crate::x86) fn define<const HARTS: u64>(s: &mut Suite) -> Assembled {
    s.start(HARTS, &[])?;
    s.first(HARTS, map_window)?;
    s.rounds(HARTS, |s| {
        s.first(HARTS, initialise)?;
        s.a.mov(ecx, r15d)?;
        s.a.mov(r10d, 1)?;
        s.a.shl(r10, cl)?;
        for (at, place, work) in PLACES {
            for (index, op, bytes) in
                variants().filter(|(_, _, bytes)| *bytes > 1 || at == At::Aligned)
            {
                s.case(&format!("lock {} of {bytes} bytes {place}", op.name))?;
                point(s, at, index, bytes)?;
                s.a.xor(r11d, r11d)?;
                s.repeat(rsi, work, |s| (op.emit)(s, bytes))?;
                s.a.mov(rcx, r15)?;
                s.a.shl(rcx, 6)?;
                s.a.mov(qword_ptr(rcx + PART + 0x100 * index), r11)?;
            }
            s.barrier(HARTS)?;
            for (index, op, bytes) in
                variants().filter(|(_, _, bytes)| *bytes > 1 || at == At::Aligned)
            {
                s.case(&format!("lock {} of {bytes} bytes {place} loses nothing", op.name))?;
                check(s, HARTS, work, at, index, op, bytes)?;
            }
            s.barrier(HARTS)?;
        }
        Ok(())
    })?;
    s.end()
}
