//! Starting and stopping harts, interrupts between them, fences from all of them at once.

use super::calls::{ALL, ALREADY_AVAILABLE, HSM, INVALID_ADDRESS, IPI, RFENCE};
use super::{Check, DynasmApi, DynasmLabelApi, rv, var};

/// HSM states.
const STARTED: u64 = 0;
const STOPPED: u64 = 1;

/// Commands to the other harts.
const FENCE: i32 = 1;
const AWAIT_IPI: i32 = 2;
const STOP: i32 = 3;

/// Remote fences that every hart makes at once.
const FENCES: i32 = 200;
/// What a started hart finds in `a1`.
const OPAQUE: u64 = 0x0123_4567_89ab_cdef;

impl Check<'_> {
    pub(super) fn other_harts(&mut self) {
        let firmware = self.config.firmware;
        let others = u64::from(self.config.harts) - 1;
        self.expect_status("hart_status: before the start", STOPPED);
        self.expect_call(
            "hart_start: inside the firmware",
            HSM,
            0,
            &[1, firmware, 0],
            INVALID_ADDRESS,
        );

        // The second round shows that a stopped hart starts afresh.
        for round in ["first", "second"] {
            rv!(self.asm ; sd zero, [s11, var::ARRIVED] ; sd zero, [s11, var::COMMAND]);
            for hart in 1..=others {
                let asm = &mut self.asm;
                rv!(asm
                    ; li a0, hart as i64
                    ; la a1, ->other_hart
                    ; li a2, (OPAQUE + hart) as i64
                    ; li.12 a6, 0
                    ; li.32 a7, HSM
                    ; ecall
                    ; mv s0, a0
                );
                self.expect_s0(&format!("hart_start: hart {hart}, {round} time"), 0);
            }
            self.expect_arrived(&format!("harts start, {round} time"), others);
            for (offset, name, expected) in
                [(0, "a0", 1), (8, "a1", OPAQUE + 1), (16, "satp", 0), (24, "sstatus.SIE", 0)]
            {
                rv!(self.asm ; ld s0, [s11, var::FOUND + offset]);
                self.expect_s0(&format!("hart_start: {name}, {round} time"), expected);
            }
            self.expect_status("hart_status: running", STARTED);
            let entry = self.config.base;
            let args = [1, entry, 0];
            self.expect_call("hart_start: runs", HSM, 0, &args, ALREADY_AVAILABLE);

            self.command(FENCE);
            rv!(self.asm ; jal ra, ->fence_all);
            self.expect_arrived("fences from all harts at once", others);

            self.command(AWAIT_IPI);
            self.expect_arrived("harts are ready for an ipi", others);
            rv!(self.asm ; sd zero, [s11, var::ARRIVED]);
            self.expect_call("ipi: others", IPI, 0, &[u64::MAX >> (64 - others), 1], 0);
            self.expect_arrived("ipi: arrives", others);

            self.command(STOP);
            self.expect_stopped();
        }
    }

    fn command(&mut self, command: i32) {
        let asm = &mut self.asm;
        rv!(asm
            ; sd zero, [s11, var::ARRIVED]
            ; li.12 t0, command
            ; fence
            ; sd t0, [s11, var::COMMAND]
        );
    }

    fn expect_status(&mut self, name: &str, status: u64) {
        self.call(HSM, 2, &[1]);
        rv!(self.asm ; mv s0, a1);
        self.expect_s0(name, status);
    }

    /// Waits ten seconds at most for `ARRIVED` to reach `count`.
    fn expect_arrived(&mut self, name: &str, count: u64) {
        let (wait, over) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        let limit = 10 * self.config.timebase;
        let asm = &mut self.asm;
        rv!(asm
            ; csrr s1, time
            ; li t0, limit as i64
            ; add s1, s1, t0
            ; li t1, count as i64
            ; =>wait
            ; ld s0, [s11, var::ARRIVED]
            ; beq s0, t1, =>over
            ; csrr t0, time
            ; bltu t0, s1, =>wait
            ; =>over
            ; fence
        );
        self.expect_s0(name, count);
    }

    /// Waits ten seconds at most for every other hart to be STOPPED.
    fn expect_stopped(&mut self) {
        let (next, wait, over) = (
            self.asm.new_dynamic_label(),
            self.asm.new_dynamic_label(),
            self.asm.new_dynamic_label(),
        );
        let limit = 10 * self.config.timebase;
        let asm = &mut self.asm;
        rv!(asm
            ; csrr s1, time
            ; li t0, limit as i64
            ; add s1, s1, t0
            ; li.12 s2, 1
            ; =>next
            ; li.32 t0, self.config.harts as i32
            ; bgeu s2, t0, =>over
            ; =>wait
            ; mv a0, s2
            ; li.12 a6, 2
            ; li.32 a7, HSM
            ; ecall
            ; addi t0, s2, 1
            ; li.12 t1, STOPPED as i32
            ; bne a1, t1, >not_yet
            ; mv s2, t0
            ; j =>next
            ; not_yet:
            ; csrr t0, time
            ; bltu t0, s1, =>wait
            ; =>over
            ; mv s0, s2
        );
        self.expect_s0("hart_stop: harts stopped, this one included", u64::from(self.config.harts));
    }

    /// `->other_hart`: the life of the harts but 0. `->fence_all`.
    pub(super) fn emit_other_hart(&mut self) {
        let asm = &mut self.asm;
        rv!(asm
            ; ->other_hart:
            ; la s11, ->vars
            ; li.12 t0, 1
            ; bne a0, t0, >not_first
            ; sd a0, [s11, var::FOUND]
            ; sd a1, [s11, var::FOUND + 8]
            ; csrr t0, satp
            ; sd t0, [s11, var::FOUND + 16]
            ; csrr t0, sstatus
            ; andi t0, t0, 2
            ; sd t0, [s11, var::FOUND + 24]
            ; not_first:
            ; li.12 s0, 0 // the command done last
            ; jal s1, >arrive
            ; listen:
            ; ld t0, [s11, var::COMMAND]
            ; beq t0, s0, <listen
            ; fence
            ; mv s0, t0
            ; li.12 t1, FENCE
            ; beq t0, t1, >fences
            ; li.12 t1, AWAIT_IPI
            ; beq t0, t1, >await_ipi
            ; li.12 a6, 1
            ; li.32 a7, HSM
            ; ecall
            ; never: // hart_stop does not return
            ; j <never

            ; fences:
            ; jal ra, ->fence_all
            ; jal s1, >arrive
            ; j <listen

            ; await_ipi:
            ; jal s1, >arrive
            ; quiet:
            ; csrr t0, sip
            ; andi t0, t0, 2
            ; beqz t0, <quiet
            ; csrci sip, 2
            ; jal s1, >arrive
            ; j <listen

            ; arrive:
            ; fence
            ; li.12 t0, 1
            ; addi t1, s11, var::ARRIVED
            ; amoadd.d zero, t0, [t1]
            ; jr s1

            ; ->fence_all:
            ; li.32 s2, FENCES
            ; again:
            ; li.12 a0, 0
            ; li.12 a1, ALL as i32
            ; li.12 a2, 0
            ; li.12 a3, 0
            ; li.12 a4, 1
            ; li.12 t0, 3 // fence.i, sfence.vma, sfence.vma.asid by turns
            ; remu a6, s2, t0
            ; li.32 a7, RFENCE
            ; ecall
            ; bnez a0, >failed
            ; addi s2, s2, -1
            ; bnez s2, <again
            ; failed:
            ; ret
        );
    }
}
