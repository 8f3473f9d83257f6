//! From reset to S-mode: cold boot, CSR set-up, and the place where stopped harts wait.

use super::layout::{
    FEATURE_SSTC, FEATURES, HART_AREA, HART_AREA_SHIFT, HART_ID, HSM_STATE, MAIL, MAIL_SOFT,
    START_ADDR, START_ARG, csr, hsm,
};
use super::{CODE_SIZE, DynasmApi, DynasmLabelApi, SbiConfig, time};
use crate::riscv::privileged::{MRET, SFENCE_VMA_ALL, WFI};
use crate::riscv::{Asm, rv};

/// Entry (must come first), per-hart set-up, `->hart_wait`, `->enter_supervisor`.
pub(super) fn emit(asm: &mut Asm, config: &SbiConfig) {
    cold_boot(asm, config);
    hart_init(asm);
    hart_wait(asm);
    enter_supervisor(asm);
}

/// Constants and data behind the code, ending where the harts' areas begin.
pub(super) fn emit_data(asm: &mut Asm, config: &SbiConfig, reserved: u64) {
    // NAPOT: the ones below the zero give the size (Privileged Architecture, "Physical Memory
    // Protection").
    let own_region = (config.base | (reserved / 2 - 1)) >> 2;
    rv!(asm
        ; .align 8
        ; ->clint:
        ; .u64 config.clint
        ; ->mtimecmp:
        ; .u64 config.clint + time::MTIMECMP
        ; ->mtime:
        ; .u64 config.clint + time::MTIME
        ; ->uart:
        ; .u64 config.uart
        ; ->finisher:
        ; .u64 config.finisher
        ; ->next_addr:
        ; .u64 config.next_addr
        ; ->own_start:
        ; .u64 config.base
        ; ->own_end:
        ; .u64 config.base + reserved
        ; ->own_region:
        ; .u64 own_region
        ; ->menvcfg:
        ; .u64 csr::MENVCFG
        ; ->console_lock:
        ; .u64 0
        ; .align CODE_SIZE as usize
        ; ->hart_areas:
    );
}

fn cold_boot(asm: &mut Asm, config: &SbiConfig) {
    let harts = config.harts as i32;
    rv!(asm
        ; csrw mie, zero
        ; csrw mscratch, zero
        ; la t0, ->trap
        ; csrw mtvec, t0
        ; csrr s0, mhartid
        ; li.32 t0, harts
        ; bgeu s0, t0, ->park // not one of ours
        ; la tp, ->hart_areas
        ; slli t0, s0, HART_AREA_SHIFT
        ; add tp, tp, t0
        ; addi sp, tp, HART_AREA
        ; ld t1, ->clint
        ; slli t0, s0, 2
        ; add s3, t1, t0 // this hart's msip
        ; bnez s0, >secondary

        ; la t0, ->console_lock
        ; sd zero, [t0]
        ; la t0, ->hart_areas
        ; li.32 t1, harts * HART_AREA
        ; add t1, t0, t1
        ; clear:
        ; sd zero, [t0]
        ; addi t0, t0, 8
        ; bltu t0, t1, <clear

        ; li.12 t3, 0
        ; la t0, ->hart_areas
        ; li.12 t2, hsm::STOPPED
        ; describe:
        ; sd t3, [t0, HART_ID]
        ; sw t2, [t0, HSM_STATE]
        ; addi t0, t0, HART_AREA
        ; addi t3, t3, 1
        ; bltu t0, t1, <describe

        ; li.12 t0, hsm::START_PENDING
        ; sw t0, [tp, HSM_STATE]
        ; sd a1, [tp, START_ARG]
        ; ld t0, ->next_addr
        ; sd t0, [tp, START_ADDR]

        ; fence
        ; li.12 t0, 1
        ; li.32 t1, harts
        ; release:
        ; bgeu t0, t1, ->hart_init
        ; addi s3, s3, 4
        ; li.12 t2, 1
        ; sw t2, [s3]
        ; addi t0, t0, 1
        ; j <release

        ; secondary:
        ; csrwi mie, csr::MSI as u32
        ; wait:
        ; .u32 WFI
        ; csrr t0, mip
        ; andi t0, t0, csr::MSI
        ; beqz t0, <wait
        ; sw zero, [s3]
        ; fence
        ; j ->hart_init

        ; ->park:
        ; .u32 WFI
        ; j ->park
    );
}

/// CSRs that outlive the stops and starts of a hart. A CSR that the hart lacks is stepped over,
/// and what it does not accept of a value is left to WARL.
fn hart_init(asm: &mut Asm) {
    let pmpcfg = csr::PMP_NAPOT | (csr::PMP_NAPOT | csr::PMP_RWX) << 8;
    rv!(asm
        ; ->hart_init:
        ; la t0, ->step_over
        ; csrw mtvec, t0
        ; ld t0, ->own_region
        ; csrw pmpaddr0, t0
        ; li.12 t0, -1
        ; csrw pmpaddr1, t0
        ; li.32 t0, pmpcfg
        ; csrw pmpcfg0, t0
        ; li.32 t0, csr::MEDELEG
        ; csrw medeleg, t0
        ; li.12 t0, csr::MIDELEG
        ; csrw mideleg, t0
        ; li.12 t0, -1
        ; csrw mcounteren, t0
        ; csrw scounteren, t0
        ; csrw mcountinhibit, zero
        ; ld t0, ->menvcfg
        ; csrw menvcfg, t0
        ; li.12 t0, 0
        ; csrr t0, menvcfg
        ; bgez t0, >no_sstc
        ; li.12 t0, FEATURE_SSTC
        ; sd t0, [tp, FEATURES]
        ; no_sstc:
        ; la t0, ->trap
        ; csrw mtvec, t0
        ; j ->hart_wait

        ; ->step_over:
        ; csrr t6, mepc
        ; addi t6, t6, 4
        ; csrw mepc, t6
        ; .u32 MRET
    );
}

/// A hart that is not started waits here and answers its mailbox. Entered with `mscratch` = 0.
fn hart_wait(asm: &mut Asm) {
    rv!(asm
        ; ->hart_wait:
        ; addi sp, tp, HART_AREA
        ; csrw mie, zero
        ; li.12 a0, -1
        ; jal ra, ->set_timer
        ; li.12 t0, csr::MSI
        ; csrw mie, t0
        ; serve:
        // The first time round this also takes mail whose msip was taken for the release at boot.
        ; jal ra, ->serve_mailbox
        ; sleep:
        ; lw t0, [tp, HSM_STATE]
        ; li.12 t1, hsm::START_PENDING
        ; bne t0, t1, >stopped
        ; ld t0, [tp, START_ADDR]
        ; bnez t0, ->enter_supervisor
        ; stopped:
        ; csrr t0, mip
        ; andi t0, t0, csr::MSI
        ; bnez t0, <serve
        ; .u32 WFI
        ; j <sleep
    );
}

/// Enters S-mode at `START_ADDR` with `a0` = hart id, `a1` = `START_ARG`, `satp` = 0 and
/// `sstatus.SIE` = 0 (SBI 2.0, tables "HSM Hart Start/Resume Register State").
fn enter_supervisor(asm: &mut Asm) {
    rv!(asm
        ; ->enter_supervisor:
        ; fence
        // Mail that was meant for the hart's former life.
        ; li.12 t0, !MAIL_SOFT
        ; addi t1, tp, MAIL
        ; amoand.w zero, t0, [t1]
        ; li.12 t0, csr::SSI
        ; csrc mip, t0
        ; ld t1, [tp, START_ADDR]
        ; ld a1, [tp, START_ARG]
        ; sd zero, [tp, START_ADDR]
        ; fence
        ; li.12 t0, hsm::STARTED
        ; sw t0, [tp, HSM_STATE]

        ; csrw sie, zero
        ; csrw stvec, t1
        ; csrw sscratch, zero
        ; csrw satp, zero
        ; .u32 SFENCE_VMA_ALL
        ; fence.i
        ; csrw mepc, t1
        ; csrr t0, mstatus
        ; li.32 t1, !csr::MSTATUS_CLEAR
        ; and t0, t0, t1
        ; li.32 t1, csr::FS_INITIAL | csr::MPP_S
        ; or t0, t0, t1
        ; csrw mstatus, t0
        ; csrw mscratch, tp
        ; ld a0, [tp, HART_ID]
    );
    for register in (1..32u8).filter(|x| !matches!(x, 10 | 11)) {
        rv!(asm ; mv X(register), zero);
    }
    rv!(asm ; .u32 MRET);
}
