//! IPI extension (SBI 2.0, chapter "IPI Extension").

use super::layout::MAIL_SOFT;
use super::{DynasmLabelApi, SbiConfig, harts};
use crate::riscv::{Asm, rv};

/// Extension id, "sPI".
pub(super) const EID: i32 = 0x0073_5049;

/// `->ipi`, `->send_soft` (to the harts of `s2` and `s3`).
pub(super) fn emit(asm: &mut Asm, config: &SbiConfig) {
    rv!(asm
        ; ->ipi:
        ; bnez a6, ->fail_not_supported
        ; jal ra, ->check_mask
        ; jal ra, ->send_soft
        ; j ->succeed

        ; ->send_soft:
    );
    harts::for_each(asm, config, |asm| harts::send(asm, MAIL_SOFT));
    rv!(asm ; ret);
}
