//! Sets of harts, and the checks of what a caller passes.

use super::layout::{HART_AREA_SHIFT, MAIL};
use super::{DynasmApi, DynasmLabelApi, SbiConfig};
use crate::riscv::{Asm, rv};

/// `->check_mask` and `->check_memory`.
pub(super) fn emit(asm: &mut Asm, config: &SbiConfig) {
    rv!(asm
        // a0 = hart_mask, a1 = hart_mask_base: leaves them in s2 and s3 if all harts exist, else
        // fails the call (SBI 2.0, "Hart list parameter").
        ; ->check_mask:
        ; mv s2, a0
        ; mv s3, a1
        ; li.12 t0, -1
        ; beq s3, t0, >valid
        ; beqz s2, >valid
        ; li.32 t0, config.harts as i32
        ; bgeu s3, t0, ->fail_invalid_param
        ; sub t0, t0, s3
        ; li.12 t1, 64
        ; bgeu t0, t1, >valid
        ; srl t0, s2, t0
        ; bnez t0, ->fail_invalid_param
        ; valid:
        ; ret

        // t0 = start, t1 = size: t0 = 1 if it wraps round or touches the firmware, else 0.
        ; ->check_memory:
        ; add t1, t0, t1
        ; bltu t1, t0, >bad
        ; ld t2, ->own_end
        ; bgeu t0, t2, >good
        ; ld t2, ->own_start
        ; bltu t2, t1, >bad
        ; good:
        ; li.12 t0, 0
        ; ret
        ; bad:
        ; li.12 t0, 1
        ; ret
    );
}

/// Emits `body` in a loop over the harts of the mask in `s2` from base `s3` on (-1: all harts);
/// the body finds the hart's id in `s4` and its area in `s5`, and may change `t0`-`t6`.
pub(super) fn for_each(asm: &mut Asm, config: &SbiConfig, body: impl FnOnce(&mut Asm)) {
    let (head, selected, next, done) = (
        asm.new_dynamic_label(),
        asm.new_dynamic_label(),
        asm.new_dynamic_label(),
        asm.new_dynamic_label(),
    );
    rv!(asm
        ; li.12 s4, 0
        ; =>head
        ; li.32 t0, config.harts as i32
        ; bgeu s4, t0, =>done
        ; li.12 t0, -1
        ; beq s3, t0, =>selected
        ; bltu s4, s3, =>next
        ; sub t0, s4, s3
        ; li.12 t1, 64
        ; bgeu t0, t1, =>next
        ; srl t0, s2, t0
        ; andi t0, t0, 1
        ; beqz t0, =>next
        ; =>selected
        ; la s5, ->hart_areas
        ; slli t0, s4, HART_AREA_SHIFT
        ; add s5, s5, t0
    );
    body(asm);
    rv!(asm
        ; =>next
        ; addi s4, s4, 1
        ; j =>head
        ; =>done
    );
}

/// Raises `mail` in the mailbox of the hart with id in `s4` and area in `s5`.
pub(super) fn send(asm: &mut Asm, mail: i32) {
    rv!(asm
        ; li.12 t0, mail
        ; addi t1, s5, MAIL
        ; amoor.w.aqrl zero, t0, [t1]
        ; fence
        ; ld t0, ->clint
        ; slli t1, s4, 2
        ; add t0, t0, t1
        ; li.12 t1, 1
        ; sw t1, [t0]
    );
}
