//! The guest in real mode.

use iced_x86::code_asm::*;

use super::{DEBUG_CONSOLE, DEBUG_EXIT, Done, TICKS};

pub(super) fn real(a: &mut CodeAssembler) -> Done {
    let (mut fail, mut behind_text, mut behind_tick) =
        (a.create_label(), a.create_label(), a.create_label());
    let message = b"real\n";
    a.cli()?;
    a.cld()?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, 0x7000)?;
    // A string to a port.
    a.call(behind_text)?;
    a.db(message)?;
    a.set_label(&mut behind_text)?;
    a.pop(si)?;
    a.mov(cx, message.len() as i32)?;
    a.mov(dx, DEBUG_CONSOLE)?;
    a.rep().outsb()?;
    // A port that reads back what was written: pc-testdev's, in words and double words.
    a.mov(dx, 0xe0)?;
    a.mov(eax, 0x1234_5678)?;
    a.out(dx, eax)?;
    a.xor(eax, eax)?;
    a.in_(eax, dx)?;
    check16(a, 1, |a| a.cmp(eax, 0x1234_5678), fail)?;
    a.mov(ax, 0x7abc)?;
    a.out(dx, ax)?;
    a.xor(ax, ax)?;
    a.in_(ax, dx)?;
    check16(a, 2, |a| a.cmp(ax, 0x7abc), fail)?;
    // Segments are paragraphs.
    a.mov(ax, 0x60)?;
    a.mov(es, ax)?;
    a.mov(word_ptr(0x10).es(), 0x5a5a)?;
    check16(a, 3, |a| a.cmp(word_ptr(0x610), 0x5a5a), fail)?;
    // IRQ 0: count, end of interrupt (8259A, OCW2).
    a.call(behind_tick)?;
    a.push(ax)?;
    a.inc(word_ptr(0x500))?;
    a.mov(al, 0x20)?;
    a.out(0x20, al)?;
    a.pop(ax)?;
    a.iret()?;
    a.set_label(&mut behind_tick)?;
    a.pop(word_ptr(4 * 0x20))?;
    a.mov(word_ptr(4 * 0x20 + 2), 0)?;
    a.mov(word_ptr(0x500), 0)?;
    // The PIC's vectors from 0x20 on, IRQ 0 alone; the PIT counts 1193 for each interrupt (1 ms).
    let commands: [(i32, u32); 8] = [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xfe),
        (0x43, 0x34),
        (0x40, 0xa9),
        (0x40, 4),
    ];
    for (port, value) in commands {
        a.mov(al, value)?;
        a.out(port, al)?;
    }
    let mut wait = a.create_label();
    a.set_label(&mut wait)?;
    a.sti()?;
    a.hlt()?;
    a.cli()?;
    a.cmp(word_ptr(0x500), TICKS as i32)?;
    a.jb(wait)?;
    a.mov(al, 0xff)?;
    a.out(0x21, al)?;
    a.xor(eax, eax)?;
    a.set_label(&mut fail)?;
    a.out(DEBUG_EXIT as i32, eax)?;
    a.cli()?;
    a.hlt()
}

/// Ends with `number` in EAX at `fail` unless `compare` finds equality.
fn check16(
    a: &mut CodeAssembler,
    number: u32,
    compare: impl FnOnce(&mut CodeAssembler) -> Done,
    fail: CodeLabel,
) -> Done {
    compare(a)?;
    a.mov(eax, number)?;
    a.jne(fail)
}
