//! System Reset extension (SBI 2.0, chapter "System Reset Extension"), through the test finisher.

use super::{DynasmApi, DynasmLabelApi, SbiConfig};
use crate::riscv::privileged::WFI;
use crate::riscv::{Asm, rv};

/// Extension id, "SRST".
pub(super) const EID: i32 = 0x5352_5354;

/// Finisher command: power off, success.
pub const FINISHER_PASS: u32 = 0x5555;
/// Finisher command: power off, failure; the code in the upper half.
pub const FINISHER_FAIL: u32 = 0x3333;
/// Finisher command: reset.
pub const FINISHER_RESET: u32 = 0x7777;

/// Highest reset type: shutdown, cold reboot, warm reboot.
const LAST_TYPE: i32 = 2;
/// Highest reset reason: none, system failure.
const LAST_REASON: i32 = 1;

/// The finisher's word for a failure with `code`.
pub(super) const fn fail_word(code: u16) -> u32 {
    (code as u32) << 16 | FINISHER_FAIL
}

/// `->srst`, `->shutdown`.
pub(super) fn emit(asm: &mut Asm, config: &SbiConfig) {
    rv!(asm
        ; ->srst:
        ; bnez a6, ->fail_not_supported
        ; sext.w a0, a0 // both parameters are 32 bits wide
        ; sext.w a1, a1
        ; li.12 t0, LAST_TYPE
        ; bltu t0, a0, ->fail_invalid_param
        ; li.12 t0, LAST_REASON
        ; bltu t0, a1, ->fail_invalid_param
        ; li.32 t1, FINISHER_RESET as i32
        ; bnez a0, >finish
        ; beqz a1, ->shutdown
        ; li.32 t1, fail_word(config.failure_code) as i32
        ; j >finish
        ; ->shutdown:
        ; li.32 t1, FINISHER_PASS as i32
        ; finish:
        ; ld t0, ->finisher
        ; fence
        ; sw t1, [t0]
        ; off:
        ; .u32 WFI
        ; j <off
    );
}
