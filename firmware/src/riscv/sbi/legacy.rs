//! Legacy extensions (SBI 2.0, chapter "Legacy Extensions"): ids 0 to 8, the answer in `a0` alone.

use super::layout::{FENCE_I, FENCE_VMA, FENCE_VMA_ASID, FRAME_MEPC, FRAME_MSTATUS, csr};
use super::{DynasmApi, DynasmLabelApi};
use crate::riscv::{Asm, rv};

/// `->legacy`.
pub(super) fn emit(asm: &mut Asm) {
    rv!(asm
        ; ->legacy:
        ; beqz a7, >set_timer
        ; li.12 t0, 2
        ; bltu a7, t0, >put
        ; beq a7, t0, >get
        ; li.12 t0, 4
        ; bltu a7, t0, >clear_ipi
        ; beq a7, t0, >send_ipi
        ; li.12 t0, 8
        ; beq a7, t0, ->shutdown
        ; bltu t0, a7, ->fail_not_supported

        // Remote fences: a0 = mask, a1 = start, a2 = size, a3 = ASID.
        ; jal ra, ->load_mask
        ; li.12 t0, 6
        ; mv a4, a3
        ; mv a3, a2
        ; mv a2, a1
        ; li.12 a6, FENCE_VMA
        ; beq a7, t0, >fence
        ; li.12 a6, FENCE_VMA_ASID
        ; bltu t0, a7, >fence
        ; li.12 a6, FENCE_I
        ; fence:
        ; jal ra, ->remote_fence
        ; j >zero

        ; set_timer:
        ; jal ra, ->set_timer
        ; j >zero
        ; put:
        ; jal ra, ->lock_console
        ; jal ra, ->uart_put
        ; jal ra, ->unlock_console
        ; j >zero
        ; get:
        ; jal ra, ->uart_get
        ; j ->legacy_return
        ; clear_ipi:
        ; li.12 t0, csr::SSI
        ; csrrc a0, mip, t0
        ; and a0, a0, t0 // positive if one was pending
        ; j ->legacy_return
        ; send_ipi:
        ; jal ra, ->load_mask
        ; jal ra, ->send_soft
        ; zero:
        ; li.12 a0, 0
        ; j ->legacy_return

        // s2, s3 = the harts of the mask at virtual address a0; all harts if that is 0. The mask's
        // first 64 bits alone: who has more harts has the newer extensions. The load
        // is made with the caller's rights and translation; its fault is the caller's.
        ; ->load_mask:
        ; li.12 s3, -1
        ; beqz a0, >all
        ; la t0, ->guard_caught
        ; csrw mtvec, t0
        ; la s11, >fault
        ; ld t0, [tp, FRAME_MSTATUS]
        ; li.32 t1, csr::MPRV
        ; or t0, t0, t1
        ; csrw mstatus, t0
        ; ld s2, [a0]
        ; csrc mstatus, t1
        ; li.12 s3, 0
        ; la t0, ->trap
        ; csrw mtvec, t0
        ; all:
        ; ret
        ; fault:
        ; li.32 t1, csr::MPRV
        ; csrc mstatus, t1
        ; la t0, ->trap
        ; csrw mtvec, t0
        ; ld t0, [tp, FRAME_MEPC]
        ; addi t0, t0, -4
        ; sd t0, [tp, FRAME_MEPC]
        ; j ->redirect
    );
}
