//! Hart State Management extension (SBI 2.0, chapter "Hart State Management Extension").

use super::layout::{HART_AREA_SHIFT, HSM_STATE, START_ADDR, START_ARG, csr, err, hsm};
use super::{DynasmApi, DynasmLabelApi, SbiConfig};
use crate::riscv::privileged::WFI;
use crate::riscv::{Asm, rv};

/// Extension id, "HSM".
pub(super) const EID: i32 = 0x0048_534d;

/// Suspend types: default retentive is 0.
const SUSPEND_NON_RETENTIVE: i32 = i32::MIN;

/// `->hsm`.
pub(super) fn emit(asm: &mut Asm, config: &SbiConfig) {
    rv!(asm
        ; ->hsm:
        ; li.12 t0, 3
        ; bltu t0, a6, ->fail_not_supported
        ; beq a6, t0, ->hart_suspend
        ; li.12 t0, 1
        ; beq a6, t0, ->hart_stop

        // Start and status name a hart.
        ; li.32 t0, config.harts as i32
        ; bgeu a0, t0, ->fail_invalid_param
        ; la s5, ->hart_areas
        ; slli t0, a0, HART_AREA_SHIFT
        ; add s5, s5, t0
        ; beqz a6, >start
        ; lw a1, [s5, HSM_STATE]
        ; li.12 a0, 0
        ; j ->sbi_return

        ; start:
        ; mv s4, a0
        ; mv a0, a1
        ; jal ra, ->check_entry
        ; addi t0, s5, HSM_STATE
        ; li.12 t1, hsm::STOPPED
        ; li.12 t2, hsm::START_PENDING
        ; claim:
        ; lr.w.aq t3, [t0]
        ; bne t3, t1, >available
        ; sc.w t3, t2, [t0]
        ; bnez t3, <claim
        ; sd a2, [s5, START_ARG]
        ; fence
        ; sd a1, [s5, START_ADDR]
        ; fence
        ; ld t0, ->clint
        ; slli t1, s4, 2
        ; add t0, t0, t1
        ; li.12 t1, 1
        ; sw t1, [t0]
        ; j ->succeed
        ; available:
        ; li.12 a0, err::ALREADY_AVAILABLE
        ; j ->fail

        // a0 = where a hart is to enter S-mode; fails the call if it cannot.
        ; ->check_entry:
        ; beqz a0, ->fail_invalid_address
        ; andi t0, a0, 1
        ; bnez t0, ->fail_invalid_address
        ; mv s0, ra
        ; mv t0, a0
        ; li.12 t1, 2
        ; jal ra, ->check_memory
        ; bnez t0, ->fail_invalid_address
        ; jr s0

        ; ->hart_stop:
        ; csrw mie, zero
        ; fence
        ; li.12 t0, hsm::STOPPED
        ; sw t0, [tp, HSM_STATE]
        ; j ->hart_wait
    );
    suspend(asm);
}

/// Both suspend types wait in M-mode until an interrupt that S-mode has enabled is pending.
/// The types are 32 bits wide.
fn suspend(asm: &mut Asm) {
    rv!(asm
        ; ->hart_suspend:
        ; sext.w s8, a0
        ; beqz s8, >valid
        ; li.32 t0, SUSPEND_NON_RETENTIVE
        ; bne s8, t0, ->fail_invalid_param
        ; mv a0, a1
        ; jal ra, ->check_entry
        ; valid:
        ; li.12 t0, hsm::SUSPENDED
        ; sw t0, [tp, HSM_STATE]
        ; sleep:
        ; .u32 WFI
        ; csrr t0, mip
        ; csrr t1, mie
        ; and s0, t0, t1
        ; andi t0, s0, csr::MSI
        ; beqz t0, >no_mail
        ; jal ra, ->serve_mailbox
        ; no_mail:
        ; andi t0, s0, csr::MTI
        ; beqz t0, >no_timer
        ; jal ra, ->timer_expired
        ; no_timer:
        ; csrr t0, mip
        ; csrr t1, mie
        ; and t0, t0, t1
        ; andi t0, t0, csr::MIDELEG
        ; beqz t0, <sleep
        ; bnez s8, >resume
        ; li.12 t0, hsm::STARTED
        ; sw t0, [tp, HSM_STATE]
        ; j ->succeed

        ; resume:
        ; li.12 t0, hsm::RESUME_PENDING
        ; sw t0, [tp, HSM_STATE]
        ; sd a2, [tp, START_ARG]
        ; sd a1, [tp, START_ADDR]
        ; j ->enter_supervisor
    );
}
