//! Canonical addresses (SDM vol. 1, 3.3.7.1): what happens at the ends of those that four and five levels of paging have.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::{Cell, Mode, Stub, Table, Word, at, end, selector};

const WORDS: &[Word] = &[Word::Vector, Word::Error, Word::Ip, Word::Cs, Word::Cr2, Word::Ss];

/// A use of the address that EDX:EAX is.
struct Use {
    name: &'static str,
    /// Who does it: what is privileged, or leaves no stack to level 0's exceptions, not everybody.
    levels: &'static [u8],
    stub: Stub,
}

const BOTH: &[u8] = &[0, 3];
const SUPERVISOR: &[u8] = &[0];
const USER: &[u8] = &[3];

macro_rules! uses {
    ($($name:literal $levels:ident |$a:ident| $code:expr;)*) => {
        vec![$(Use { name: $name, levels: $levels, stub: Stub { bits: 64, code: |$a| {
            address($a)?;
            $code?;
            end($a)
        } } }),*]
    };
}

/// RBX becomes the address.
fn address(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(ebx, eax)?;
    a.shl(rdx, 32)?;
    a.or(rbx, rdx)
}

/// An MSR takes EBX's halves.
fn write_msr(a: &mut CodeAssembler, msr: u32) -> Result<(), IcedError> {
    a.mov(rdx, rbx)?;
    a.shr(rdx, 32)?;
    a.mov(eax, ebx)?;
    a.mov(ecx, msr)?;
    a.wrmsr()
}

/// LGDT and LIDT take ten bytes below the stack; what was there comes back.
fn table_register(a: &mut CodeAssembler, global: bool) -> Result<(), IcedError> {
    a.mov(qword_ptr(rsp - 8), rbx)?;
    a.mov(word_ptr(rsp - 10), 0x0fff)?;
    if global {
        a.lgdt(tbyte_ptr(rsp - 10))?
    } else {
        a.lidt(tbyte_ptr(rsp - 10))?
    }
    a.mov(dword_ptr(rsp - 8), if global { at::GDT } else { at::IDT })?;
    a.mov(dword_ptr(rsp - 4), 0)?;
    if global { a.lgdt(tbyte_ptr(rsp - 10)) } else { a.lidt(tbyte_ptr(rsp - 10)) }
}

fn all() -> Vec<Use> {
    uses! {
        "read" BOTH |a| a.mov(rcx, qword_ptr(rbx));
        "read a byte" BOTH |a| a.mov(cl, byte_ptr(rbx));
        "write" BOTH |a| a.mov(qword_ptr(rbx), rcx);
        "read by rbp" BOTH |a| {
            a.mov(rbp, rbx)?;
            a.mov(rcx, qword_ptr(rbp))
        };
        "push" USER |a| {
            a.mov(rsp, rbx)?;
            a.push(rcx)
        };
        "pop" USER |a| {
            a.mov(rsp, rbx)?;
            a.pop(rcx)
        };
        "jmp" BOTH |a| a.jmp(rbx);
        "call" BOTH |a| a.call(rbx);
        "ret" BOTH |a| {
            a.push(rbx)?;
            a.ret()
        };
        "retf" BOTH |a| {
            a.mov(ecx, cs)?;
            a.push(rcx)?;
            a.push(rbx)?;
            a.db(&[0x48, 0xcb])
        };
        "iret" BOTH |a| {
            a.mov(ecx, ss)?;
            a.push(rcx)?;
            a.push(rsp)?;
            a.pushfq()?;
            a.mov(ecx, cs)?;
            a.push(rcx)?;
            a.push(rbx)?;
            a.iretq()
        };
        "prefetch" BOTH |a| a.prefetcht0(byte_ptr(rbx));
        "clflush" BOTH |a| a.clflush(byte_ptr(rbx));
        "fs prefix" BOTH |a| a.mov(rcx, qword_ptr(rbx).fs());
        "lea" BOTH |a| a.lea(rcx, qword_ptr(rbx));
        "movs" BOTH |a| {
            a.mov(rsi, rbx)?;
            a.mov(rdi, rsp)?;
            a.movsq()
        };
        "rep movs of none" BOTH |a| {
            a.mov(rsi, rbx)?;
            a.xor(ecx, ecx)?;
            a.rep().movsq()
        };
        "fxsave" BOTH |a| a.fxsave(ptr(rbx));
        "invlpg" SUPERVISOR |a| a.invlpg(byte_ptr(rbx));
        "mov dr0" SUPERVISOR |a| a.mov(dr0, rbx);
        "fs base" SUPERVISOR |a| write_msr(a, 0xc000_0100);
        "kernel gs base" SUPERVISOR |a| write_msr(a, 0xc000_0102);
        "lstar" SUPERVISOR |a| write_msr(a, 0xc000_0082);
        "sysenter eip" SUPERVISOR |a| write_msr(a, 0x176);
        "lgdt" SUPERVISOR |a| table_register(a, true);
        "lidt" SUPERVISOR |a| table_register(a, false);
    }
}

fn table(mode: Mode, expected: &'static str) -> Table {
    let mut cells = Vec::new();
    let edges: [u64; 7] =
        [1 << 47, (1 << 47) - 8, (1 << 47) - 4, 1 << 56, (1 << 56) - 8, (1 << 56) - 4, 1 << 62];
    let mut addresses: Vec<u64> =
        edges.iter().flat_map(|edge| [*edge, edge.wrapping_neg()]).collect();
    addresses.push(u64::MAX - 3);
    addresses.extend(edges[..6].iter().map(|edge| edge.wrapping_neg() - 4));
    for (stub, item) in all().into_iter().enumerate() {
        for &level in item.levels {
            for &address in &addresses {
                let row = format!("{} at level {level}", item.name);
                let column = format!("{address:x}");
                let registers = [address as u32, 0, 0, (address >> 32) as u32];
                let code = selector::of(selector::CODE64, level);
                cells.push(Cell { row, column, stub, cs: code, registers, pokes: Vec::new() });
            }
        }
    }
    Table {
        mode,
        stubs: all().into_iter().map(|item| item.stub).collect(),
        live: Vec::new(),
        frames: Vec::new(),
        user_stubs: at::STUBS,
        msrs: &[],
        watch: Vec::new(),
        words: WORDS,
        cells,
        expected,
    }
}

pub(super) fn with_48() -> Table {
    table(Mode::Long, include_str!("expected/canonical-48.txt"))
}

pub(super) fn with_57() -> Table {
    table(Mode::Long5, include_str!("expected/canonical-57.txt"))
}
