//! The console: a 16550, polled.

use super::{DynasmApi, DynasmLabelApi};
use crate::riscv::{Asm, rv};

/// Line status register.
const LSR: i32 = 5;
/// LSR: a byte has been received.
const DATA_READY: i32 = 1;
/// LSR: the transmitter takes another byte.
const THR_EMPTY: i32 = 1 << 5;

/// `->uart_put` (a0 = byte), `->uart_get` (a0 = byte or -1); neither touches the stack.
pub(super) fn emit(asm: &mut Asm) {
    rv!(asm
        ; ->uart_put:
        ; ld t0, ->uart
        ; full:
        ; lbu t1, [t0, LSR]
        ; andi t1, t1, THR_EMPTY
        ; beqz t1, <full
        ; sb a0, [t0]
        ; ret

        ; ->uart_get:
        ; ld t0, ->uart
        ; lbu t1, [t0, LSR]
        ; andi t1, t1, DATA_READY
        ; li.12 a0, -1
        ; beqz t1, >empty
        ; lbu a0, [t0]
        ; empty:
        ; ret
    );
}
