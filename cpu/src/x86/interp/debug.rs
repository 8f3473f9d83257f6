//! Running under a debugger: stops at breakpoints, watchpoints and after steps.
//!
//! Nothing here costs a run without points anything: [`Interp::run`] is left for [`Interp::run_debug`] as a whole.
//! Pages with watched data never enter the TLB, so that every access to them comes by [`Core::observe`].

use crate::bus::{PAGE_MASK, PAGE_SIZE};
use crate::debug::{DebugEvent, DebugPoints};
use crate::run::Exit;

use super::super::core::Core;
use super::super::paging::Access;
use super::Interp;

impl Core {
    /// Notes a successful translation for an access of `len` bytes at `lin`. Whether the page may enter the TLB.
    pub(in crate::x86) fn observe(&mut self, lin: u64, len: u64, access: Access) -> bool {
        let page = lin & !PAGE_MASK;
        let mut free = true;
        for point in &self.points.watchpoints {
            if self.watched.is_none()
                && point.counts(access == Access::Write)
                && point.touches(lin, len)
            {
                self.watched = Some(DebugEvent::Watch { addr: lin, point: *point });
            }
            free &= !point.touches(page, PAGE_SIZE);
        }
        free
    }
}

impl Interp {
    /// Sets where to stop, by linear addresses. What was written to memory from outside is executed from now on.
    pub fn set_debug(&mut self, points: DebugPoints) {
        if self.core.points.watchpoints != points.watchpoints {
            self.core.flush_tlb();
        }
        self.core.points = points;
        self.core.stale_code = true;
    }

    /// [`Interp::run`], with points.
    pub(super) fn run_debug(&mut self, limit: u64) -> Exit {
        loop {
            if let Some(exit) = self.attend_if_called() {
                return exit;
            }
            let retired = self.core.cpu.retired;
            if retired >= limit {
                return Exit::Budget;
            }
            let at = self.core.code_linear(self.core.next_rip);
            let points = &self.core.points;
            let near = points.breakpoints.iter().any(|addr| (addr ^ at) & !PAGE_MASK == 0);
            // A step leaves the place where the processor stands, breakpoint or not.
            if near && !points.step && points.breakpoints.contains(&at) {
                return Exit::Debug(DebugEvent::Breakpoint);
            }
            let step = points.step;
            let alone = near || step || !points.watchpoints.is_empty();
            let before = (retired, self.traps);
            self.run_some(if alone { retired + 1 } else { limit });
            let watched = self.core.watched.take();
            if self.core.cpu.retired != retired
                && let Some(event) = watched
            {
                return Exit::Debug(event);
            }
            if step && (self.core.cpu.retired, self.traps) != before {
                return Exit::Debug(DebugEvent::Step);
            }
        }
    }
}
