//! Exceptions that firmware passes on, and interrupts it brings about, on hart 0.

use super::calls::{ALL, HSM, IPI, TIME};
use super::{Check, DynasmApi, DynasmLabelApi, rv, var};
use crate::riscv::Asm;

const INTERRUPT: u64 = 1 << 63;
const SSI: u64 = 1;
const STI: u64 = 5;

impl Check<'_> {
    /// Privileged Architecture, table "Supervisor cause register values", and what a trap leaves
    /// in `sepc`, `stval` and `sstatus`.
    pub(super) fn traps(&mut self) {
        let firmware = self.config.firmware;
        let nowhere = self.config.nowhere;
        let odd = self.address_of_var(var::BUFFER) + 1;

        self.trap("CSR of M-mode", 2, None, |asm| rv!(asm ; csrr t0, mhartid));
        self.trap("load from the firmware", 5, Some(firmware), |asm| {
            rv!(asm ; ld t0, [s0]);
        });
        self.trap("store to the firmware", 7, Some(firmware), |asm| {
            rv!(asm ; sd t0, [s0]);
        });
        self.trap("load from nowhere", 5, Some(nowhere), |asm| rv!(asm ; ld t0, [s0]));
        self.trap("store to nowhere", 7, Some(nowhere), |asm| rv!(asm ; sd t0, [s0]));
        // LR, since QEMU on one thread gives a misaligned AMO the cause of its load.
        self.trap("misaligned LR", 4, Some(odd), |asm| rv!(asm ; lr.w t0, [s0]));
        self.trap("breakpoint", 3, None, |asm| rv!(asm ; ebreak));
        self.fetch_from_firmware();
        // The mask of a legacy call lies at a virtual address; its fault is the caller's.
        self.trap("legacy send_ipi: mask nowhere", 5, Some(nowhere), |asm| {
            rv!(asm ; mv a0, s0 ; li.12 a7, 4 ; ecall);
        });
    }

    /// Runs `body`, whose last instruction must trap, with `s0` = `address`.
    fn trap(&mut self, name: &str, cause: u64, address: Option<u64>, body: impl FnOnce(&mut Asm)) {
        let after = self.asm.new_dynamic_label();
        let asm = &mut self.asm;
        rv!(asm
            ; sd zero, [s11, var::TRAPS]
            ; la t0, =>after
            ; sd t0, [s11, var::RESUME]
            ; li s0, address.unwrap_or(0) as i64
            ; csrsi sstatus, 2
            ; csrw sie, zero
        );
        body(asm);
        rv!(asm
            ; =>after
            ; csrci sstatus, 2
            ; ld s0, [s11, var::TRAPS]
        );
        self.expect_s0(&format!("{name}: traps"), 1);
        rv!(self.asm ; ld s0, [s11, var::SCAUSE]);
        self.expect_s0(&format!("{name}: scause"), cause);
        let asm = &mut self.asm;
        rv!(asm ; la s0, =>after ; ld t0, [s11, var::SEPC] ; sub s0, s0, t0);
        self.expect_s0(&format!("{name}: sepc, from the end"), 4);
        if let Some(address) = address {
            rv!(self.asm ; ld s0, [s11, var::STVAL]);
            self.expect_s0(&format!("{name}: stval"), address);
        }
        // SPP = 1, SPIE = 1 (SIE was), SIE = 0.
        rv!(self.asm ; ld s0, [s11, var::SSTATUS] ; andi s0, s0, 0x122);
        self.expect_s0(&format!("{name}: sstatus"), 0x120);
    }

    fn fetch_from_firmware(&mut self) {
        let firmware = self.config.firmware;
        let after = self.asm.new_dynamic_label();
        let asm = &mut self.asm;
        rv!(asm
            ; la t0, =>after
            ; sd t0, [s11, var::RESUME]
            ; li s0, firmware as i64
            ; jr s0
            ; =>after
            ; ld s0, [s11, var::SCAUSE]
        );
        self.expect_s0("fetch from the firmware: scause", 1);
        rv!(self.asm ; ld s0, [s11, var::SEPC]);
        self.expect_s0("fetch from the firmware: sepc", firmware);
    }

    /// Timer and software interrupts arrive and can be taken back.
    pub(super) fn timer(&mut self) {
        self.set_timer_in_a_millisecond();
        self.interrupt("timer", STI);
        rv!(self.asm ; csrr s0, sip ; andi s0, s0, 1 << STI);
        self.expect_s0("timer: stays pending", 1 << STI);
        self.expect_call("timer: take back", TIME, 0, &[u64::MAX], 0);
        self.expect_not_pending("timer: no longer pending", STI);

        for (name, mask, base) in [("ipi: this hart", 1, 0), ("ipi: all", 0, ALL)] {
            self.expect_call(name, IPI, 0, &[mask, base], 0);
            self.interrupt(name, SSI);
            rv!(self.asm ; csrci sip, 2);
            self.expect_not_pending(&format!("{name}: no longer pending"), SSI);
        }
        let mask = self.address_of_var(var::MASK);
        rv!(self.asm ; li.12 t0, 1 ; sd t0, [s11, var::MASK]);
        self.call(4, 0, &[mask]);
        rv!(self.asm ; mv s0, a0);
        self.expect_s0("legacy send_ipi", 0);
        self.interrupt("legacy send_ipi", SSI);
        self.call(3, 0, &[]);
        rv!(self.asm ; sgtz s0, a0);
        self.expect_s0("legacy clear_ipi: one was pending", 1);
        self.expect_not_pending("legacy clear_ipi", SSI);
    }

    fn expect_not_pending(&mut self, name: &str, interrupt: u64) {
        rv!(self.asm ; csrr s0, sip ; andi s0, s0, 1 << interrupt);
        self.expect_s0(name, 0);
    }

    fn set_timer_in_a_millisecond(&mut self) {
        let ticks = self.config.timebase / 1000;
        let asm = &mut self.asm;
        rv!(asm
            ; csrr a0, time
            ; li t0, ticks as i64
            ; add a0, a0, t0
            ; li.12 a6, 0
            ; li.32 a7, TIME
            ; ecall
        );
    }

    /// Enables one interrupt and waits a second at most for it to be taken.
    fn interrupt(&mut self, name: &str, interrupt: u64) {
        let (wait, over) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        let second = self.config.timebase;
        let asm = &mut self.asm;
        rv!(asm
            ; sd zero, [s11, var::SCAUSE]
            ; csrr s1, time
            ; li t0, second as i64
            ; add s1, s1, t0
            ; li.12 t0, 1 << interrupt
            ; csrw sie, t0
            ; csrsi sstatus, 2
            ; =>wait
            ; ld t0, [s11, var::SCAUSE]
            ; bnez t0, =>over
            ; csrr t0, time
            ; bltu t0, s1, =>wait
            ; =>over
            ; csrci sstatus, 2
            ; ld s0, [s11, var::SCAUSE]
        );
        self.expect_s0(&format!("{name}: interrupt"), INTERRUPT | interrupt);
    }

    /// Both default suspend types, ended by the timer.
    pub(super) fn suspend(&mut self) {
        rv!(self.asm ; li.12 t0, 1 << STI ; csrw sie, t0);
        self.set_timer_in_a_millisecond();
        self.expect_call("hart_suspend: retentive", HSM, 3, &[0, 0, 0], 0);
        rv!(self.asm ; csrr s0, sip ; andi s0, s0, 1 << STI);
        self.expect_s0("hart_suspend: retentive: ended by the timer", 1 << STI);

        self.set_timer_in_a_millisecond();
        let resumed = self.asm.new_dynamic_label();
        let asm = &mut self.asm;
        rv!(asm
            ; li a0, 0x8000_0000
            ; la a1, =>resumed
            ; li.32 a2, 0x1234_5678
            ; li.12 a6, 3
            ; li.32 a7, HSM
            ; ecall
            // Only failure returns here: make a0 differ from the hart id.
            ; addi a0, a0, 0x100
            ; =>resumed
            ; la s11, ->vars
            ; li.12 t0, var::STACK_END
            ; add sp, s11, t0
            ; la t0, ->trap
            ; csrw stvec, t0
            ; mv s1, a1
            ; mv s0, a0
        );
        self.expect_s0("hart_suspend: non-retentive: a0", 0);
        rv!(self.asm ; mv s0, s1);
        self.expect_s0("hart_suspend: non-retentive: a1", 0x1234_5678);
        rv!(self.asm ; csrr s0, satp);
        self.expect_s0("hart_suspend: non-retentive: satp", 0);
        rv!(self.asm ; csrr s0, sstatus ; andi s0, s0, 2);
        self.expect_s0("hart_suspend: non-retentive: sstatus.SIE", 0);
        self.expect_call("hart_suspend: started again", HSM, 2, &[0], 0);
        self.call(TIME, 0, &[u64::MAX]);
        rv!(self.asm ; csrw sie, zero);
    }
}
