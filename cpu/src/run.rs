//! What a run of an engine is given and how it ends: the same for every engine.

use crate::debug::DebugEvent;

/// How long an engine may run before it gives control back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// Retire at most this many instructions, exactly. `None`: run until kicked.
    pub insns: Option<u64>,
}

/// Why an engine gave control back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The budget is used up, or somebody kicked the hart.
    Budget,
    /// The hart waits for an interrupt.
    Halted,
    /// The hart stopped for its debugger.
    Debug(DebugEvent),
    /// The guest can not go on; the text says why (trap loop, ...).
    Dead(String),
}
