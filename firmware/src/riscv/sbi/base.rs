//! Base extension (SBI 2.0, chapter "Base Extension").

use super::{DynasmApi, DynasmLabelApi, dbcn, hsm, ipi, rfence, srst, time};
use crate::riscv::{Asm, rv};

/// Extension id.
pub(super) const EID: i32 = 0x10;

/// SBI 2.0: the major number in bits 30:24.
pub const SPEC_VERSION: u32 = 2 << 24;
/// "MIMC". Not in the specification's table of implementation ids.
pub const IMPLEMENTATION_ID: u32 = 0x4d49_4d43;
/// Counts changes that a guest could notice.
pub const IMPLEMENTATION_VERSION: u32 = 1;

/// Highest legacy extension id: shutdown.
const LAST_LEGACY: i32 = 8;

/// `->base`.
pub(super) fn emit(asm: &mut Asm) {
    rv!(asm
        ; ->base:
        ; li.12 t0, 6
        ; bltu t0, a6, ->fail_not_supported
        ; mv t1, a0
        ; li.12 a0, 0
        ; beqz a6, >spec_version
        ; li.12 t0, 2
        ; bltu a6, t0, >implementation_id
        ; beq a6, t0, >implementation_version
        ; li.12 t0, 4
        ; bltu a6, t0, >probe
        ; beq a6, t0, >vendor
        ; li.12 t0, 5
        ; beq a6, t0, >architecture
        ; csrr a1, mimpid
        ; j ->sbi_return
        ; architecture:
        ; csrr a1, marchid
        ; j ->sbi_return
        ; vendor:
        ; csrr a1, mvendorid
        ; j ->sbi_return
        ; implementation_version:
        ; li.32 a1, IMPLEMENTATION_VERSION as i32
        ; j ->sbi_return
        ; implementation_id:
        ; li.32 a1, IMPLEMENTATION_ID as i32
        ; j ->sbi_return
        ; spec_version:
        ; li.32 a1, SPEC_VERSION as i32
        ; j ->sbi_return
        ; probe:
        ; li.12 a1, 1
        ; li.12 t0, LAST_LEGACY
        ; bgeu t0, t1, ->sbi_return
    );
    for eid in [EID, time::EID, ipi::EID, rfence::EID, hsm::EID, srst::EID, dbcn::EID] {
        rv!(asm ; li.32 t0, eid ; beq t1, t0, ->sbi_return);
    }
    rv!(asm ; li.12 a1, 0 ; j ->sbi_return);
}
