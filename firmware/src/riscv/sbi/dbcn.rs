//! Debug Console extension (SBI 2.0, chapter "Debug Console Extension").

use super::DynasmLabelApi;
use crate::riscv::{Asm, rv};

/// Extension id, "DBCN".
pub(super) const EID: i32 = 0x4442_434e;

/// `->dbcn`. Memory is accessed at physical addresses with M-mode's rights, so the firmware's own
/// region is refused; an address where nothing is fails the call by way of the guard.
pub(super) fn emit(asm: &mut Asm) {
    rv!(asm
        ; ->dbcn:
        ; li.12 t0, 2
        ; bltu t0, a6, ->fail_not_supported
        ; beq a6, t0, >write_byte
        // a0 = bytes, a1 and a2 = address, of which XLEN bits are in a1.
        ; bnez a2, ->fail_invalid_param
        ; mv t0, a1
        ; mv t1, a0
        ; jal ra, ->check_memory
        ; bnez t0, ->fail_invalid_param
        ; mv s0, a1
        ; add s1, a1, a0
        ; jal ra, ->lock_console
        ; la t0, ->guard_caught
        ; csrw mtvec, t0
        ; la s11, >fault
        ; bnez a6, >read

        ; write:
        ; bgeu s0, s1, >done
        ; lbu a0, [s0]
        ; jal ra, ->uart_put
        ; addi s0, s0, 1
        ; j <write

        ; read:
        ; bgeu s0, s1, >done
        ; jal ra, ->uart_get
        ; bltz a0, >done
        ; sb a0, [s0]
        ; addi s0, s0, 1
        ; j <read

        ; done:
        ; jal ra, ->end_guard
        ; jal ra, ->unlock_console
        ; sub a1, s0, a1
        ; li.12 a0, 0
        ; j ->sbi_return

        ; fault:
        ; jal ra, ->end_guard
        ; jal ra, ->unlock_console
        ; j ->fail_invalid_param

        ; write_byte:
        ; jal ra, ->lock_console
        ; jal ra, ->uart_put
        ; jal ra, ->unlock_console
        ; j ->succeed

        ; ->end_guard:
        ; la t0, ->trap
        ; csrw mtvec, t0
        ; ret

        ; ->lock_console:
        ; la t0, ->console_lock
        ; li.12 t1, 1
        ; spin:
        ; amoswap.w.aq t2, t1, [t0]
        ; bnez t2, <spin
        ; ret
        ; ->unlock_console:
        ; la t0, ->console_lock
        ; amoswap.w.rl zero, zero, [t0]
        ; ret
    );
}
