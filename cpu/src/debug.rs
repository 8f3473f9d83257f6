//! What a debugger asks of an engine: where to stop.

/// Which accesses a watchpoint means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    /// Loads.
    Read,
    /// Stores and AMOs.
    Write,
    /// Both.
    Access,
}

/// A range of guest virtual addresses that is watched, in whatever address space they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// First address.
    pub addr: u64,
    /// Bytes; ranges wrap round at 2^64.
    pub len: u64,
    /// What counts.
    pub kind: WatchKind,
}

impl Watchpoint {
    /// Whether an access of `len` bytes at `va` touches the range.
    #[must_use]
    pub fn touches(&self, va: u64, len: u64) -> bool {
        self.addr.wrapping_sub(va) < len || va.wrapping_sub(self.addr) < self.len
    }

    /// Whether a load (or else a store) counts.
    #[must_use]
    pub fn counts(&self, store: bool) -> bool {
        match self.kind {
            WatchKind::Read => !store,
            WatchKind::Write => store,
            WatchKind::Access => true,
        }
    }
}

/// Where a hart shall stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugPoints {
    /// Guest virtual addresses before whose instructions the hart stops, in whatever address space.
    pub breakpoints: Vec<u64>,
    /// Data whose use stops the hart, after the instruction.
    pub watchpoints: Vec<Watchpoint>,
    /// Stop after one instruction, or after the trap it takes. Interrupts wait meanwhile, and a WFI is
    /// over at once: who steps through a program wants to see that program.
    pub step: bool,
}

impl DebugPoints {
    /// Whether there is nothing to stop at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.breakpoints.is_empty() && self.watchpoints.is_empty() && !self.step
    }
}

/// Why a hart stopped for its debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugEvent {
    /// The next instruction has a breakpoint.
    Breakpoint,
    /// The last instruction used watched data.
    Watch {
        /// Guest virtual address of the first byte used.
        addr: u64,
        /// The watchpoint.
        point: Watchpoint,
    },
    /// The step is done.
    Step,
}
