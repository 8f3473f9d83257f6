//! Running under a debugger: stops at breakpoints, watchpoints and after steps.
//!
//! Nothing here costs a run without points anything: [`Interp::run`] is left for [`Interp::run_debug`] as
//! a whole. Pages with watched data never enter the TLB, so that every access to them comes by
//! [`Core::observe`].

use crate::bus::{PAGE_MASK, PAGE_SIZE};
use crate::debug::{DebugEvent, DebugPoints};
use crate::riscv::hart::Hart;
use crate::riscv::mmu::Access;
use crate::run::Exit;

use super::Interp;
use super::core::Core;

impl Core {
    /// Notes a successful translation for an access of `len` bytes at `va`. Whether the page may enter the
    /// TLB.
    pub(super) fn observe(&mut self, va: u64, len: u64, access: Access) -> bool {
        let page = va & !PAGE_MASK;
        let mut free = true;
        for point in &self.points.watchpoints {
            if self.watched.is_none()
                && point.counts(access == Access::Store)
                && point.touches(va, len)
            {
                self.watched = Some(DebugEvent::Watch { addr: va, point: *point });
            }
            free &= !point.touches(page, PAGE_SIZE);
        }
        free
    }
}

impl Interp {
    /// Continues from `hart`, which has been changed from outside.
    pub fn load(&mut self, hart: Hart) {
        self.core.import(hart);
        self.barren_traps = (0, 0);
        self.core.requests.fence_i = true;
        // The timer may have moved.
        self.core.signals.call_attention();
    }

    /// Sets where to stop. What was written to memory from outside is executed from now on.
    pub fn set_debug(&mut self, points: DebugPoints) {
        if self.core.points.watchpoints != points.watchpoints {
            self.core.flush();
        }
        self.core.points = points;
        self.core.requests.fence_i = true;
    }

    /// [`Interp::run`], with points.
    pub(super) fn run_debug(&mut self, limit: u64) -> Exit {
        loop {
            if let Some(exit) = self.attend_if_called() {
                return exit;
            }
            let retired = self.core.hart.retired;
            if retired >= limit {
                return Exit::Budget;
            }
            let pc = self.core.frame.next_pc;
            let points = &self.core.points;
            let same_page = |addr: u64| (addr ^ pc) & !PAGE_MASK == 0;
            let near = points.breakpoints.iter().any(|&addr| same_page(addr));
            // A step leaves the place where the hart stands, breakpoint or not.
            if near && !points.step && points.breakpoints.contains(&pc) {
                return Exit::Debug(DebugEvent::Breakpoint);
            }
            let step = points.step;
            let alone = near || step || !points.watchpoints.is_empty();
            let before = (retired, self.traps);
            self.run_block(if alone { retired + 1 } else { limit });
            let watched = self.core.watched.take();
            if self.core.hart.retired != retired
                && let Some(event) = watched
            {
                return Exit::Debug(event);
            }
            if step && (self.core.hart.retired, self.traps) != before {
                return Exit::Debug(DebugEvent::Step);
            }
        }
    }
}
