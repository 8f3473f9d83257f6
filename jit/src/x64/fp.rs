//! Floating-point operations.

use super::{Emitter, HostFeatures};
use crate::ir::Op;

/// Whether [`compute`] emits the operation.
pub(super) fn supports(_op: &Op, _features: HostFeatures) -> bool {
    false
}

/// Emits a floating-point operation; the block is given up if there is no code for it.
pub(super) fn compute(e: &mut Emitter, _i: u32, _op: Op) {
    e.alloc.failed = true;
}
