//! RFENCE extension (SBI 2.0, chapter "RFENCE Extension").
//!
//! Returns when every hart has performed the fence. The `hfence` functions are not supported:
//! no hart here has the hypervisor extension enabled.

use super::layout::{
    FENCE_ASID, FENCE_FROM, FENCE_KIND, FENCE_SIZE, FENCE_START, FENCE_VMA_ASID, HART_ID,
    MAIL_FENCE, csr,
};
use super::{DynasmApi, DynasmLabelApi, SbiConfig, harts};
use crate::riscv::{Asm, rv};

/// Extension id, "RFNC".
pub(super) const EID: i32 = 0x5246_4e43;

/// `->rfence`, `->remote_fence` (the harts of `s2` and `s3`; `a2` = start, `a3` = size,
/// `a4` = ASID, `a6` = kind).
pub(super) fn emit(asm: &mut Asm, config: &SbiConfig) {
    rv!(asm
        ; ->rfence:
        ; li.12 t0, FENCE_VMA_ASID
        ; bltu t0, a6, ->fail_not_supported
        ; jal ra, ->check_mask
        ; jal ra, ->remote_fence
        ; j ->succeed

        ; ->remote_fence:
        ; addi sp, sp, -16
        ; sd ra, [sp]
        ; ld s6, [tp, HART_ID]
        ; addi s7, s6, 1
        ; fence // the caller's stores to page tables or code come before the request
    );
    harts::for_each(asm, config, ask);
    harts::for_each(asm, config, await_answer);
    rv!(asm
        ; ld ra, [sp]
        ; addi sp, sp, 16
        ; ret
    );
}

/// Occupies the request slot of one hart; fences at once if it is this one.
fn ask(asm: &mut Asm) {
    let (slot, busy, other, asked) = (
        asm.new_dynamic_label(),
        asm.new_dynamic_label(),
        asm.new_dynamic_label(),
        asm.new_dynamic_label(),
    );
    rv!(asm
        ; bne s4, s6, =>other
        ; mv t1, a6
        ; mv t2, a2
        ; mv t3, a3
        ; mv t4, a4
        ; jal ra, ->fence
        ; j =>asked

        ; =>busy
        ; jal ra, ->serve_mailbox
        ; =>other
        ; addi t0, s5, FENCE_FROM
        ; =>slot
        ; lr.w.aq t1, [t0]
        ; bnez t1, =>busy
        ; sc.w t1, s7, [t0]
        ; bnez t1, =>slot
        ; sd a6, [s5, FENCE_KIND]
        ; sd a2, [s5, FENCE_START]
        ; sd a3, [s5, FENCE_SIZE]
        ; sd a4, [s5, FENCE_ASID]
    );
    harts::send(asm, MAIL_FENCE);
    rv!(asm ; =>asked);
}

/// Waits until one hart has emptied its slot of this hart's request.
fn await_answer(asm: &mut Asm) {
    let (wait, answered) = (asm.new_dynamic_label(), asm.new_dynamic_label());
    rv!(asm
        ; =>wait
        ; lw t0, [s5, FENCE_FROM]
        ; bne t0, s7, =>answered
        ; csrr t0, mip
        ; andi t0, t0, csr::MSI
        ; beqz t0, =>wait
        ; jal ra, ->serve_mailbox
        ; j =>wait
        ; =>answered
    );
}
