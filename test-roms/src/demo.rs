//! A guest that shows the machine it runs on: console, checks, exceptions, address translation, timer
//! interrupts, speed, and keys that arrive as interrupts. It needs no firmware and no files.
//!
//! It runs in M-mode on hart 0 of the `virt` board (addresses as in QEMU's `virt`), talks through the
//! 16550A and ends through the test finisher. Verified on `qemu-system-riscv64 -M virt -bios none`.
//!
//! | address | contents |
//! | --- | --- |
//! | [`TEXT`] | code |
//! | [`STRINGS`] | texts, each ended by a zero |
//! | [`VARS`] | variables of the trap handler (see [`var`]), then the page table and the stack |
//!
//! Registers: `s0` UART, `s1` variables, `s2` failed checks, `s3` ACLINT's mtime. Routines take `a0`
//! and clobber `a0`, `a1`, `t0`, `t1`; the trap handler clobbers nothing.

use dynasmrt::{DynamicLabel, DynasmApi};

use crate::elf::{self, Segment};
use crate::raw;
use crate::suite::reg::{A0, A1, S0, S1, S2, S3, SP, T0, T1, T2};
use crate::suite::{Asm, rv};

const TEXT: u64 = 0x8000_0000;
const STRINGS: u64 = 0x8010_0000;
const VARS: u64 = 0x8011_0000;
const PAGE_TABLE: u64 = VARS + 0x1000;
const STACK_TOP: u64 = VARS + 0x1_0000;

/// Variables, by offset from [`VARS`].
mod var {
    /// Timer interrupts so far.
    pub(super) const TICKS: i32 = 0;
    /// Ticks of mtime between timer interrupts.
    pub(super) const INTERVAL: i32 = 8;
    /// `mcause` of the last exception.
    pub(super) const CAUSE: i32 = 16;
    /// A word for the checks.
    pub(super) const WORD: i32 = 24;
    /// Keys that arrived, and keys that were looked at.
    pub(super) const ARRIVED: i32 = 48;
    pub(super) const SEEN: i32 = 56;
    /// The keys: a ring of [`super::RING`] bytes.
    pub(super) const KEYS: i32 = 0x100;
}
/// Size of the ring, a power of two.
const RING: i32 = 256;

// SiFive test finisher.
const FINISHER: u64 = 0x10_0000;
const PASS: u64 = 0x5555;
const FAIL: u64 = 0x3333;
// ACLINT (RISC-V ACLINT specification 1.0): mtimecmp of hart 0, mtime at 10 MHz.
const MTIMECMP: u64 = 0x200_4000;
const MTIME: u64 = 0x200_bff8;
const MTIME_PER_MS: u64 = 10_000;
// 16550A (National Semiconductor PC16550D datasheet): registers, and bits of LSR.
const UART: u64 = 0x1000_0000;
const RBR_THR: i32 = 0;
const IER: i32 = 1;
const FCR: i32 = 2;
const LCR: i32 = 3;
const LSR: i32 = 5;
const LSR_DATA_READY: i32 = 0x01;
const LSR_THR_EMPTY: i32 = 0x20;
// PLIC (RISC-V PLIC specification 1.0): source 10 is the UART, context 0 is hart 0's M-mode.
const PLIC_PRIORITY_UART: u64 = 0xc00_0000 + 4 * 10;
const PLIC_ENABLE: u64 = 0xc00_2000;
const PLIC_THRESHOLD: u64 = 0xc20_0000;
const PLIC_CLAIM: u64 = 0xc20_0004;

/// Rounds of the loop whose speed is measured, and instructions in one.
const ROUNDS: u64 = 20_000_000;
const INSNS_PER_ROUND: u64 = 6;

/// The guest as an ELF64 file.
pub fn image() -> Vec<u8> {
    let mut ops = Asm::new(TEXT as usize);
    let mut label = || ops.new_dynamic_label();
    let routines =
        Routines { putc: label(), puts: label(), dec: label(), trap: label(), result: label() };
    let mut demo = Demo { ops, strings: Vec::new(), checks: 0, routines };
    demo.start();
    demo.introduction();
    demo.checks();
    demo.timer();
    demo.speed();
    demo.keys();
    demo.end();
    demo.routines();
    demo.trap_handler();
    let text = demo.ops.finalize().expect("every label is defined and in reach");
    assert!(text.len() as u64 <= STRINGS - TEXT && demo.strings.len() as u64 <= VARS - STRINGS);
    let segment =
        |addr, bytes: Vec<u8>, mem_size: u64, flags| Segment { addr, bytes, mem_size, flags };
    let (text_size, strings_size) = (text.len() as u64, demo.strings.len() as u64);
    let segments = [
        segment(TEXT, text, text_size, 5),
        segment(STRINGS, demo.strings, strings_size, 4),
        segment(VARS, Vec::new(), STACK_TOP - VARS, 6),
    ];
    elf::write(TEXT, &segments, &[("_start", TEXT)])
}

#[derive(Clone, Copy)]
struct Routines {
    /// Prints the character in `a0`.
    putc: DynamicLabel,
    /// Prints the text at `a0`.
    puts: DynamicLabel,
    /// Prints `a0` in decimal.
    dec: DynamicLabel,
    /// Takes every trap.
    trap: DynamicLabel,
    /// Prints whether `a0` equals `a1`, and counts when it does not.
    result: DynamicLabel,
}

struct Demo {
    ops: Asm,
    strings: Vec<u8>,
    /// Checks so far.
    checks: u64,
    routines: Routines,
}

impl Demo {
    fn label(&mut self) -> DynamicLabel {
        self.ops.new_dynamic_label()
    }

    /// `li` for what the demo needs: any value below 2^31, and addresses of RAM without their sign.
    fn li(&mut self, rd: u8, value: u64) {
        let value = value as u32;
        let high = value.wrapping_add(0x800) >> 12;
        let low = ((value << 20) as i32) >> 20;
        // lui (opcode 0x37)
        self.ops.push_u32(high << 12 | u32::from(rd) << 7 | 0x37);
        rv!(self; addiw X(rd), X(rd), low);
        if value >> 31 != 0 {
            rv!(self; slli X(rd), X(rd), 32; srli X(rd), X(rd), 32);
        }
    }

    fn call(&mut self, routine: DynamicLabel) {
        rv!(self; jal ra, =>routine);
    }

    fn print(&mut self, text: &str) {
        let addr = STRINGS + self.strings.len() as u64;
        self.strings.extend(text.replace('\n', "\r\n").bytes());
        self.strings.push(0);
        self.li(A0, addr);
        self.call(self.routines.puts);
    }

    fn start(&mut self) {
        let (parked, hart_0) = (self.label(), self.label());
        rv!(self
            ; csrr t0, mhartid
            ; beqz t0, =>hart_0
            ; =>parked
            ; .u32 raw::WFI
            ; j =>parked
            ; =>hart_0
        );
        self.li(SP, STACK_TOP);
        self.li(S0, UART);
        self.li(S1, VARS);
        self.li(S2, 0);
        self.li(S3, MTIME);
        let trap = self.routines.trap;
        rv!(self
            ; la t0, =>trap
            ; csrw mtvec, t0
            // Line control: 8 bits, no parity; FIFOs on and empty; no interrupts yet.
            ; li.12 t0, 3
            ; sb t0, [s0, LCR]
            ; li.12 t0, 7
            ; sb t0, [s0, FCR]
            ; sb zero, [s0, IER]
            // The other modes may use all memory: one PMP entry, NAPOT, read, write, execute.
            ; li.12 t0, -1
            ; csrw pmpaddr0, t0
            ; li.12 t0, 0x1f
            ; csrw pmpcfg0, t0
        );
        // mstatus.FS = Initial.
        self.li(T0, 1 << 13);
        rv!(self; csrs mstatus, t0);
    }

    fn introduction(&mut self) {
        self.print(
            "\nMimic's demo: a RISC-V computer without an operating system.\n\n  ISA        RV64",
        );
        let (next, absent) = (self.label(), self.label());
        let putc = self.routines.putc;
        rv!(self
            // One letter for each bit of misa, A first.
            ; csrr s4, misa
            ; li.12 s5, 65
            ; =>next
            ; andi t0, s4, 1
            ; beqz t0, =>absent
            ; mv a0, s5
            ; jal ra, =>putc
            ; =>absent
            ; srli s4, s4, 1
            ; addi s5, s5, 1
            ; li.12 t0, 91
            ; bne s5, t0, =>next
        );
        self.print("\n  modes      machine mode, alone on hart ");
        rv!(self; csrr a0, mhartid);
        self.call(self.routines.dec);
        self.print("\n  console    16550A at 0x10000000\n");
    }

    /// Prints the name of a check, lets `body` leave a result in `a0`, and compares it.
    fn check(&mut self, name: &str, expected: u64, body: impl FnOnce(&mut Self)) {
        self.checks += 1;
        self.print(&format!("  {name:.<38}"));
        body(self);
        self.li(A1, expected);
        self.call(self.routines.result);
    }

    fn checks(&mut self) {
        self.print("\nChecks\n");
        self.check("multiply and divide ", 142_857, |s| {
            s.li(T0, 999_999);
            s.li(T1, 1_000_003);
            s.li(T2, 7_000_021);
            rv!(s; mul a0, t0, t1; divu a0, a0, t2);
        });
        // sqrt(2) rounded to nearest is 0x3ff6a09e667f3bcd.
        self.check("double precision ", 0x667f_3bcd, |s| {
            rv!(s
                ; li.12 t0, 2
                ; fcvt.d.l ft0, t0
                ; fsqrt.d ft0, ft0
                ; fmv.x.d a0, ft0
                ; slli a0, a0, 32
                ; srli a0, a0, 32
            );
        });
        self.check("atomics ", 42, |s| {
            rv!(s
                ; addi t0, s1, var::WORD
                ; li.12 t1, 40
                ; sd t1, [t0]
                ; li.12 t1, 1
                ; amoadd.d t2, t1, [t0]
                ; lr.d t1, [t0]
                ; addi t1, t1, 1
                ; sc.d t2, t1, [t0]
                ; ld a0, [t0]
            );
        });
        self.check("misaligned load ", 0x1234_0000, |s| {
            s.li(T0, 0x1234);
            rv!(s
                ; slli t0, t0, 32
                ; sd t0, [s1, var::WORD]
                // Bytes 4 and 5 hold 0x34 and 0x12: bits 16 to 31 from byte 2 on.
                ; ld a0, [s1, var::WORD + 2]
            );
        });
        // Causes: Privileged ISA 1.13, table of mcause values.
        self.check("environment call ", 11, |s| s.caught(|s| rv!(s; ecall)));
        self.check("illegal instruction ", 2, |s| s.caught(|s| s.ops.push_u32(0xffff_ffff)));
        self.address_translation();
    }

    /// Runs one instruction of 4 bytes that traps, and leaves the cause in `a0`.
    fn caught(&mut self, instruction: impl FnOnce(&mut Self)) {
        rv!(self; sd zero, [s1, var::CAUSE]);
        instruction(self);
        rv!(self; ld a0, [s1, var::CAUSE]);
    }

    /// Sv39 (Privileged ISA 1.13, section "Sv39"), tried from M-mode: with mstatus.MPRV set, loads
    /// translate as in the mode of MPP.
    fn address_translation(&mut self) {
        const MPRV: u64 = 1 << 17;
        const MPP: u64 = 3 << 11;
        const MPP_S: u64 = 1 << 11;
        // A leaf with V, R, W, X, A, D for the gigapage at 0x80000000, seen at 0x40000000.
        const LEAF: u64 = (0x8000_0000u64 >> 12) << 10 | 0xcf;
        const SEEN_AT: u64 = VARS - 0x4000_0000;
        self.li(T0, PAGE_TABLE);
        self.li(T1, LEAF);
        rv!(self; sd t1, [t0, 8]; srli t0, t0, 12; li.12 t1, 8; slli t1, t1, 60; or t0, t0, t1; csrw satp, t0; .u32 raw::sfence_vma(0, 0));
        let translated = |s: &mut Self, load: &mut dyn FnMut(&mut Self)| {
            s.li(T0, MPP);
            rv!(s; csrc mstatus, t0);
            s.li(T0, MPRV | MPP_S);
            rv!(s; csrs mstatus, t0);
            load(s);
            s.li(T0, MPRV);
            rv!(s; csrc mstatus, t0);
        };
        self.check("address translation ", 0x600d, |s| {
            s.li(T0, 0x600d);
            rv!(s; sd t0, [s1, var::WORD]);
            s.li(T1, SEEN_AT);
            translated(s, &mut |s| rv!(s; ld a0, [t1, var::WORD]));
        });
        self.check("load page fault ", 13, |s| {
            rv!(s; sd zero, [s1, var::CAUSE]);
            s.li(T1, 0x1000);
            translated(s, &mut |s| rv!(s; ld a0, [t1]));
            rv!(s; ld a0, [s1, var::CAUSE]);
        });
    }

    /// Arms the timer `ms` from now, then every `ms`.
    fn arm(&mut self, ms: u64) {
        self.li(T0, ms * MTIME_PER_MS);
        rv!(self; sd t0, [s1, var::INTERVAL]; sd zero, [s1, var::TICKS]; ld t1, [s3]; add t1, t1, t0);
        self.li(T0, MTIMECMP);
        rv!(self; sd t1, [t0]);
    }

    fn interrupts(&mut self, on: bool) {
        // mie.MTIE and mie.MEIE, then mstatus.MIE.
        self.li(T0, 1 << 7 | 1 << 11);
        if on {
            rv!(self; csrw mie, t0; csrsi mstatus, 8);
        } else {
            rv!(self; csrci mstatus, 8; csrw mie, zero);
        }
    }

    fn timer(&mut self) {
        const TICKS: i32 = 5;
        self.print("\nTimer: five interrupts, 100 ms apart; the hart sleeps in between\n ");
        rv!(self; ld s6, [s3]; li.12 s5, 0);
        self.arm(100);
        self.interrupts(true);
        let (wait, tick) = (self.label(), self.label());
        rv!(self
            ; =>wait
            ; csrci mstatus, 8
            ; ld t0, [s1, var::TICKS]
            ; bne t0, s5, =>tick
            // With interrupts off none is lost between the look and the sleep; a pending one wakes.
            ; .u32 raw::WFI
            ; csrsi mstatus, 8
            ; j =>wait
            ; =>tick
            ; csrsi mstatus, 8
            ; mv s5, t0
        );
        self.print(" ");
        rv!(self; ld a0, [s3]; sub a0, a0, s6);
        self.li(T0, MTIME_PER_MS);
        rv!(self; divu a0, a0, t0);
        self.call(self.routines.dec);
        self.print(" ms");
        rv!(self; li.12 t0, TICKS; blt s5, t0, =>wait);
        self.interrupts(false);
        self.print("\n");
        self.checks += 1;
        self.print(&format!("  {:.<38}", "not earlier than asked for "));
        // 1 when at least 500 ms have passed.
        rv!(self; ld a0, [s3]; sub a0, a0, s6);
        self.li(T0, 500 * MTIME_PER_MS);
        rv!(self; sltu a0, a0, t0; xori a0, a0, 1; li.12 a1, 1);
        self.call(self.routines.result);
    }

    fn speed(&mut self) {
        self.print(&format!(
            "\nSpeed: {} million instructions in ",
            ROUNDS * INSNS_PER_ROUND / 1_000_000
        ));
        self.li(T2, ROUNDS);
        let round = self.label();
        rv!(self
            ; ld s6, [s3]
            ; li.12 t0, 1
            ; =>round
            ; slli t1, t0, 13
            ; xor t0, t0, t1
            ; srli t1, t0, 7
            ; xor t0, t0, t1
            ; addi t2, t2, -1
            ; bnez t2, =>round
            ; ld s7, [s3]
            ; sub s7, s7, s6
            // Never divide by zero below.
            ; addi s7, s7, 1
            ; mv a0, s7
        );
        self.li(T0, MTIME_PER_MS);
        rv!(self; divu a0, a0, t0);
        self.call(self.routines.dec);
        self.print(" ms, that is ");
        // Instructions for each microsecond, which has ten ticks of mtime.
        self.li(A0, ROUNDS * INSNS_PER_ROUND);
        rv!(self; li.12 t0, 10; mul a0, a0, t0; divu a0, a0, s7);
        self.call(self.routines.dec);
        self.print(" MIPS\n");
    }

    fn keys(&mut self) {
        const PATIENCE_MS: u64 = 5000;
        self.print("\nKeys: each arrives as an interrupt. Press some; q (or 5 s without one) ends the demo.\n");
        for (addr, value) in [(PLIC_PRIORITY_UART, 1), (PLIC_ENABLE, 1 << 10), (PLIC_THRESHOLD, 0)]
        {
            self.li(T0, addr);
            self.li(T1, value);
            rv!(self; sw t1, [t0]);
        }
        // IER: received data available.
        rv!(self; li.12 t0, 1; sb t0, [s0, IER]);
        let (again, wait, key, unprintable, done) =
            (self.label(), self.label(), self.label(), self.label(), self.label());
        rv!(self; =>again);
        self.arm(PATIENCE_MS);
        self.interrupts(true);
        rv!(self
            ; =>wait
            ; csrci mstatus, 8
            ; ld t0, [s1, var::SEEN]
            ; ld t1, [s1, var::ARRIVED]
            ; bne t0, t1, =>key
            ; ld t1, [s1, var::TICKS]
            ; bnez t1, =>done
            ; .u32 raw::WFI
            ; csrsi mstatus, 8
            ; j =>wait
            ; =>key
            ; addi t1, t0, 1
            ; sd t1, [s1, var::SEEN]
            ; andi t0, t0, RING - 1
            ; add t0, t0, s1
            ; lbu s5, [t0, var::KEYS]
        );
        self.interrupts(false);
        self.print("  key ");
        rv!(self; mv a0, s5);
        self.call(self.routines.dec);
        let putc = self.routines.putc;
        rv!(self
            ; li.12 t0, 0x21
            ; bltu s5, t0, =>unprintable
            ; li.12 t0, 0x7f
            ; bgeu s5, t0, =>unprintable
            ; li.12 a0, 0x20
            ; jal ra, =>putc
            ; mv a0, s5
            ; jal ra, =>putc
            ; =>unprintable
        );
        self.print("\n");
        rv!(self; li.12 t0, 'q' as i32; bne s5, t0, =>again; =>done);
        self.interrupts(false);
    }

    fn end(&mut self) {
        let (failed, stay) = (self.label(), self.label());
        rv!(self; bnez s2, =>failed);
        let passed = format!("\nAll {} checks passed. Powering off.\n", self.checks);
        self.print(&passed);
        self.finish_with(PASS);
        rv!(self; =>stay; .u32 raw::WFI; j =>stay; =>failed);
        self.print("\nChecks that failed: ");
        rv!(self; mv a0, s2);
        self.call(self.routines.dec);
        self.print("\n");
        self.li(T0, FINISHER);
        self.li(T1, FAIL);
        rv!(self; slli t2, s2, 16; or t1, t1, t2; sw t1, [t0]; j =>stay);
    }

    fn finish_with(&mut self, code: u64) {
        self.li(T0, FINISHER);
        self.li(T1, code);
        rv!(self; sw t1, [t0]);
    }

    fn routines(&mut self) {
        let Routines { putc, puts, dec, result, .. } = self.routines;
        let (next, end, digit, print) = (self.label(), self.label(), self.label(), self.label());
        rv!(self
            ; =>putc
            ; lbu t0, [s0, LSR]
            ; andi t0, t0, LSR_THR_EMPTY
            ; beqz t0, =>putc
            ; sb a0, [s0, RBR_THR]
            ; ret

            ; =>puts
            ; addi sp, sp, -16
            ; sd ra, [sp]
            ; mv a1, a0
            ; =>next
            ; lbu a0, [a1]
            ; beqz a0, =>end
            ; jal ra, =>putc
            ; addi a1, a1, 1
            ; j =>next
            ; =>end
            ; ld ra, [sp]
            ; addi sp, sp, 16
            ; ret

            // Digits are put on the stack from the last one, and then printed as a text.
            ; =>dec
            ; addi sp, sp, -48
            ; sd ra, [sp]
            ; addi a1, sp, 47
            ; sb zero, [a1]
            ; li.12 t1, 10
            ; =>digit
            ; remu t0, a0, t1
            ; addi t0, t0, 48
            ; addi a1, a1, -1
            ; sb t0, [a1]
            ; divu a0, a0, t1
            ; bnez a0, =>digit
            ; mv a0, a1
            ; jal ra, =>puts
            ; ld ra, [sp]
            ; addi sp, sp, 48
            ; ret

            ; =>result
            ; addi sp, sp, -16
            ; sd ra, [sp]
            ; beq a0, a1, =>print
            ; addi s2, s2, 1
        );
        self.print(" FAILED\n");
        rv!(self; ld ra, [sp]; addi sp, sp, 16; ret; =>print);
        self.print(" ok\n");
        rv!(self; ld ra, [sp]; addi sp, sp, 16; ret);
    }

    fn trap_handler(&mut self) {
        let trap = self.routines.trap;
        let (interrupt, external, more, handled, done) =
            (self.label(), self.label(), self.label(), self.label(), self.label());
        rv!(self; .align 4; =>trap
            ; addi sp, sp, -32
            ; sd t0, [sp]
            ; sd t1, [sp, 8]
            ; sd t2, [sp, 16]
            ; csrr t0, mcause
            ; bltz t0, =>interrupt
            // An exception: note it and go on behind the instruction, which has 4 bytes here.
            ; sd t0, [s1, var::CAUSE]
            ; csrr t0, mepc
            ; addi t0, t0, 4
            ; csrw mepc, t0
            ; j =>done

            ; =>interrupt
            ; andi t0, t0, 0x3f
            ; li.12 t1, 11
            ; beq t0, t1, =>external
            // The timer: count, and ask for the next.
            ; ld t0, [s1, var::TICKS]
            ; addi t0, t0, 1
            ; sd t0, [s1, var::TICKS]
        );
        self.li(T1, MTIMECMP);
        rv!(self
            ; ld t0, [t1]
            ; ld t2, [s1, var::INTERVAL]
            ; add t0, t0, t2
            ; sd t0, [t1]
            ; j =>done
            ; =>external
        );
        self.li(T0, PLIC_CLAIM);
        rv!(self
            ; lw t1, [t0]
            ; =>more
            ; lbu t2, [s0, LSR]
            ; andi t2, t2, LSR_DATA_READY
            ; beqz t2, =>handled
            ; ld t2, [s1, var::ARRIVED]
            ; andi t0, t2, RING - 1
            ; addi t2, t2, 1
            ; sd t2, [s1, var::ARRIVED]
            ; lbu t2, [s0, RBR_THR]
            ; add t0, t0, s1
            ; sb t2, [t0, var::KEYS]
            ; j =>more
            ; =>handled
        );
        self.li(T0, PLIC_CLAIM);
        rv!(self
            ; sw t1, [t0]
            ; =>done
            ; ld t0, [sp]
            ; ld t1, [sp, 8]
            ; ld t2, [sp, 16]
            ; addi sp, sp, 32
            ; .u32 raw::MRET
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_demo_is_an_elf_file_at_the_start_of_ram() {
        let file = super::image();
        let elf = goblin::elf::Elf::parse(&file).unwrap();
        assert_eq!((elf.entry, elf.header.e_machine), (0x8000_0000, 243));
    }
}
