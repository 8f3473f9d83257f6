//! Timer extension (SBI 2.0, chapter "Timer Extension").
//!
//! With Sstc the guest's compare register is `stimecmp`. Without it M-mode's is used, and its
//! interrupt is passed on as `mip.STIP`.

use super::layout::{FEATURE_SSTC, FEATURES, HART_ID, csr};
use super::{DynasmApi, DynasmLabelApi};
use crate::riscv::{Asm, rv};

/// Extension id, "TIME".
pub(super) const EID: i32 = 0x5449_4d45;

/// `mtimecmp` of hart 0 in a CLINT.
pub(super) const MTIMECMP: u64 = 0x4000;
/// `mtime` in a CLINT.
pub(super) const MTIME: u64 = 0xbff8;

/// `->time`, `->set_timer` (a0 = time), `->timer_expired`.
pub(super) fn emit(asm: &mut Asm) {
    rv!(asm
        ; ->time:
        ; bnez a6, ->fail_not_supported
        ; jal ra, ->set_timer
        ; j ->succeed

        ; ->set_timer:
        ; ld t0, [tp, FEATURES]
        ; andi t0, t0, FEATURE_SSTC
        ; beqz t0, >no_sstc
        ; csrw stimecmp, a0
        ; ret
        ; no_sstc:
        ; ld t0, ->mtimecmp
        ; ld t1, [tp, HART_ID]
        ; slli t1, t1, 3
        ; add t0, t0, t1
        ; sd a0, [t0]
        ; li.12 t0, csr::STI
        ; csrc mip, t0
        ; li.12 t0, csr::MTI
        ; csrs mie, t0
        ; ret

        // The interrupt stays pending in M-mode until the next set_timer, so it is disabled.
        ; ->timer_expired:
        ; li.12 t0, csr::MTI
        ; csrc mie, t0
        ; li.12 t0, csr::STI
        ; csrs mip, t0
        ; ret
    );
}
