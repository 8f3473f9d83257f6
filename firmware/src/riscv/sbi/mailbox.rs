//! What a hart does when another one asks: supervisor software interrupts and fences.

use super::layout::{
    FENCE_ASID, FENCE_FROM, FENCE_I, FENCE_KIND, FENCE_SIZE, FENCE_START, FENCE_VMA, HART_ID, MAIL,
    MAIL_FENCE, MAIL_SOFT, csr,
};
use super::{DynasmApi, DynasmLabelApi};
use crate::riscv::privileged::{SFENCE_VMA_ALL, sfence_vma};
use crate::riscv::{Asm, rv};

/// Beyond this many bytes one whole flush is cheaper than one per page.
const WHOLE_FLUSH: i32 = 64 * 4096;

const T2: u32 = 7;
const T4: u32 = 29;

/// `->serve_mailbox`, `->fence`.
pub(super) fn emit(asm: &mut Asm) {
    rv!(asm
        ; ->serve_mailbox:
        ; addi sp, sp, -16
        ; sd ra, [sp]
        // msip goes down before the mail is taken, so that mail arriving between raises it again.
        ; ld t0, ->clint
        ; ld t1, [tp, HART_ID]
        ; slli t1, t1, 2
        ; add t0, t0, t1
        ; sw zero, [t0]
        ; fence
        ; addi t0, tp, MAIL
        ; amoswap.w.aqrl t0, zero, [t0]
        ; andi t1, t0, MAIL_SOFT
        ; beqz t1, >no_soft
        ; li.12 t1, csr::SSI
        ; csrs mip, t1
        ; no_soft:
        ; andi t1, t0, MAIL_FENCE
        ; beqz t1, >no_fence
        ; ld t1, [tp, FENCE_KIND]
        ; ld t2, [tp, FENCE_START]
        ; ld t3, [tp, FENCE_SIZE]
        ; ld t4, [tp, FENCE_ASID]
        ; jal ra, ->fence
        ; fence
        ; sw zero, [tp, FENCE_FROM]
        ; no_fence:
        ; ld ra, [sp]
        ; addi sp, sp, 16
        ; ret

        // Fences this hart: t1 = kind, t2 = start, t3 = size, t4 = ASID. Start and size both 0, or
        // size = -1, mean everything (SBI 2.0, "RFENCE Extension").
        ; ->fence:
        ; li.12 t5, FENCE_I
        ; bne t1, t5, >vma
        ; fence.i
        ; ret
        ; vma:
        ; or t5, t2, t3
        ; beqz t5, >whole
        ; li.32 t5, WHOLE_FLUSH
        ; bltu t5, t3, >whole
        ; add t3, t2, t3 // the end
        ; bltu t3, t2, >whole // wraps round
        ; srli t2, t2, 12
        ; slli t2, t2, 12
        ; li.12 t5, FENCE_VMA
        ; li.32 t6, 4096
        ; bne t1, t5, >asid_page
        ; page:
        ; bgeu t2, t3, >done
        ; .u32 sfence_vma(T2, 0)
        ; add t2, t2, t6
        ; j <page
        ; asid_page:
        ; bgeu t2, t3, >done
        ; .u32 sfence_vma(T2, T4)
        ; add t2, t2, t6
        ; j <asid_page
        ; whole:
        ; li.12 t5, FENCE_VMA
        ; bne t1, t5, >whole_asid
        ; .u32 SFENCE_VMA_ALL
        ; ret
        ; whole_asid:
        ; .u32 sfence_vma(0, T4)
        ; done:
        ; ret
    );
}
