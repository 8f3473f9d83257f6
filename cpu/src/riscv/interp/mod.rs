//! The interpreter: an engine that performs decoded blocks.
//!
//! A block is a run of decoded instructions inside one page, kept by guest physical address
//! ([`code`]). The run loop finds the block at the program counter, counts its instructions as
//! retired, and calls one body after the other on the [`core::Core`]. Between blocks, and only there,
//! it looks at interrupts and at what instructions left to be done.

mod code;
mod core;
mod debug;
pub mod host;

use std::sync::Arc;

use crate::bus::{CpuBus, PAGE_MASK, PAGE_SIZE, PageAccess, Width};
use crate::run::{Budget, Exit};
use crate::signals::Signals;

use self::code::{Block, CodeCache, FetchTlb, Op};
use self::core::{Core, Dropped, Requests};
use super::decode::insn_len;
use super::hart::{Hart, Mode};
use super::mmu::Access;
use super::trap::{Cause, Trap};
use crate::frame::NO_PAGE;

/// Exceptions in a row without an instruction retiring after which the guest is beyond help: nothing but
/// an interrupt to a higher mode could stop it, and firmware does not repair such loops.
const TRAP_LOOP: u32 = 100_000;

/// Pages with dropped code that are remembered one by one.
const MAX_REMOVED: usize = 64;

/// Counters of an interpreter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Soft-TLB misses of loads and stores.
    pub tlb_misses: u64,
    /// Fetches that had to translate an address.
    pub fetch_misses: u64,
    /// Blocks decoded.
    pub blocks_decoded: u64,
    /// Loads and stores served by devices.
    pub device_accesses: u64,
    /// Exceptions and interrupts taken.
    pub traps: u64,
}

/// The interpreter of one hart.
pub struct Interp {
    core: Core,
    code: CodeCache,
    fetch: FetchTlb,
    /// Index of the decoded page at `core.frame.page_va`.
    page: u32,
    /// Entries of the bus's code log that have been followed.
    code_log: u64,
    /// Exceptions since an instruction retired last: how many, and what `retired` was.
    barren_traps: (u32, u64),
    /// Fetch translations that were dropped since somebody asked.
    fetch_dropped: Dropped,
    /// Numbers of pages whose code was dropped since somebody asked.
    removed: Vec<u32>,
    fetch_misses: u64,
    traps: u64,
}

impl Interp {
    /// Makes an interpreter that continues from `hart`.
    #[must_use]
    pub fn new(hart: Hart, bus: Arc<dyn CpuBus>, signals: Arc<Signals>) -> Self {
        let code_log = bus.code_log_len();
        signals.call_attention();
        Interp {
            core: Core::new(hart, bus, signals),
            code: CodeCache::new(),
            fetch: FetchTlb::new(),
            page: 0,
            code_log,
            barren_traps: (0, 0),
            fetch_dropped: Dropped::ALL,
            removed: Vec::new(),
            fetch_misses: 0,
            traps: 0,
        }
    }

    /// The hart's canonical state.
    #[must_use]
    pub fn hart(&self) -> Hart {
        self.core.export()
    }

    /// Program counter, mode, and whether the hart waits for an interrupt.
    #[must_use]
    pub fn position(&self) -> (u64, Mode, bool) {
        (self.core.frame.next_pc, self.core.hart.mode, self.core.hart.waiting)
    }

    /// Instructions retired since the hart was made.
    #[must_use]
    pub fn retired(&self) -> u64 {
        self.core.hart.retired
    }

    /// Counters since the interpreter was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            tlb_misses: self.core.tlb_misses,
            fetch_misses: self.fetch_misses,
            blocks_decoded: self.code.blocks_decoded,
            device_accesses: self.core.device_accesses,
            traps: self.traps,
        }
    }

    /// Runs until the budget is used up, the hart waits, somebody kicks it, or a point of
    /// [`set_debug`](Self::set_debug) is reached.
    pub fn run(&mut self, budget: Budget) -> Exit {
        let limit =
            budget.insns.map_or(u64::MAX, |insns| self.core.hart.retired.saturating_add(insns));
        self.core.poll = true;
        if !self.core.points.is_empty() {
            return self.run_debug(limit);
        }
        loop {
            if let Some(exit) = self.attend_if_called() {
                return exit;
            }
            if self.core.hart.retired >= limit {
                return Exit::Budget;
            }
            self.run_block(limit);
        }
    }

    /// Looks at interrupts, requests and kicks, if there may be any, until there is nothing more to look at: while
    /// this hart waits for others at the end of a look, they may ask for something that must be done before the
    /// next instruction. Why to leave `run`, if so.
    #[inline(always)]
    pub fn attend_if_called(&mut self) -> Option<Exit> {
        while self.core.poll | self.core.signals.needs_attention() {
            if let Some(exit) = self.attend() {
                return Some(exit);
            }
        }
        None
    }

    /// Looks at everything that may have happened since the last block.
    #[cold]
    fn attend(&mut self) -> Option<Exit> {
        self.core.poll = false;
        if self.core.signals.needs_attention() {
            self.core.signals.take_attention();
            self.core.apply_requests();
            if self.core.coherent {
                self.drop_stale_code();
            }
            self.core.look_at_clock();
            if self.core.signals.take_kick() {
                self.core.poll = true;
                return Some(Exit::Budget);
            }
        }
        self.look()
    }

    /// Looks at what has happened but for what others have asked.
    fn look(&mut self) -> Option<Exit> {
        self.serve_requests();
        let stepping = self.core.points.step;
        let mip = self.core.mip();
        if self.core.hart.waiting {
            if mip & self.core.hart.mie == 0 && !stepping {
                self.core.poll = true;
                return Some(Exit::Halted);
            }
            self.core.hart.waiting = false;
        }
        if !stepping && let Some(code) = self.core.hart.pending_interrupt(mip) {
            self.core.hart.pc = self.core.frame.next_pc;
            self.core.hart.take_interrupt(code);
            self.traps += 1;
            self.trapped();
        }
        if self.barren_traps.0 > TRAP_LOOP {
            return Some(Exit::Dead(self.describe_trap_loop()));
        }
        None
    }

    /// What the hart's own instructions left to be done.
    fn serve_requests(&mut self) {
        let requests = std::mem::take(&mut self.core.requests);
        if requests == Requests::default() {
            return;
        }
        if let Dropped::These { va, asid } = requests.fetch_flush {
            self.fetch.flush_matching(asid, va);
            self.fetch_dropped = self.fetch_dropped.and(requests.fetch_flush);
            self.core.frame.page_va = NO_PAGE;
        }
        if requests.fence_i {
            self.drop_stale_code();
        }
    }

    /// FENCE.I: forgets decoded pages that were written to since the last one.
    fn drop_stale_code(&mut self) {
        let len = self.core.bus.code_log_len();
        if len == self.code_log {
            return;
        }
        match self.core.bus.code_log(self.code_log) {
            Some(pages) => {
                for gpa in pages {
                    self.drop_changed_page(gpa);
                }
            }
            None => self.drop_all_code(),
        }
        self.code_log = len;
        if self.removed.len() > MAX_REMOVED {
            // Nobody keeps account of them.
            self.removed.clear();
            self.fetch_dropped = Dropped::ALL;
        }
    }

    fn drop_all_code(&mut self) {
        self.code.clear();
        self.fetch.flush();
        self.fetch_dropped = Dropped::ALL;
        self.core.frame.page_va = NO_PAGE;
    }

    /// Forgets the page at `gpa`, which was written to, unless it is as it was where it was decoded.
    fn drop_changed_page(&mut self, gpa: u64) {
        let Some(page) = self.code.find(gpa) else { return };
        if self.code.may_keep(page) {
            self.watch(page);
            if self.code.is_as_used(page) {
                return;
            }
        }
        self.code.remove(gpa);
        self.removed.push(page);
        self.core.frame.page_va = NO_PAGE;
    }

    /// `hart.pc` and mode have changed by a trap, which has dropped the reservation.
    fn trapped(&mut self) {
        self.core.frame.reserved = 0;
        self.core.frame.next_pc = self.core.hart.pc;
        self.core.translation_changed();
    }

    /// Performs the block at the program counter, at most up to `limit` retired instructions.
    #[inline(always)]
    fn run_block(&mut self, limit: u64) {
        let pc = self.core.frame.next_pc;
        if pc & !PAGE_MASK != self.core.frame.page_va && !self.enter_page(pc) {
            return;
        }
        let offset = pc & PAGE_MASK;
        let Some(block) = self.code.block(self.page, offset) else {
            self.decode(offset);
            return;
        };
        if block == Block::CROSSING {
            self.step_uncached();
            return;
        }
        let mut ops = self.code.ops(block);
        self.core.frame.next_pc = pc.wrapping_add(block.bytes());
        let room = limit - self.core.hart.retired;
        if room < ops.len() as u64 {
            ops = &ops[..room as usize];
            if let Some(next) = self.code.ops(block).get(ops.len()) {
                self.core.frame.next_pc = self.core.frame.page_va + next.args.at().offset();
            }
        }
        self.core.hart.retired += ops.len() as u64;
        let Some(first) = ops.first() else { return };
        let undone = (first.handler)(&mut self.core, ops);
        self.core.hart.retired -= undone as u64;
        if self.core.stopped {
            let op = ops[ops.len() - undone];
            let at = op.args.at();
            let pc = self.core.frame.page_va + at.offset();
            self.end_stopped(op, pc, pc.wrapping_add(at.bytes()));
        }
    }

    /// `op`, the instruction at `pc`, has stopped. Puts what a device has answered where it belongs, if that is
    /// why.
    #[cold]
    fn end_stopped(&mut self, op: Op, pc: u64, next_pc: u64) {
        if self.core.answer.is_some() {
            self.core.completed = (op.handler)(&mut self.core, &[op]) == 0;
        }
        self.conclude(pc, next_pc);
    }

    /// Counts the instruction at `pc`, which has stopped, and goes on at `next_pc` if it is complete; takes its
    /// exception if not.
    #[cold]
    fn conclude(&mut self, pc: u64, next_pc: u64) {
        self.core.stopped = false;
        if std::mem::take(&mut self.core.completed) {
            self.core.hart.retired += 1;
            self.core.frame.next_pc = next_pc;
        } else {
            self.take_exception(pc);
        }
    }

    /// Takes the exception in `core.trap`, raised by the instruction at `pc`.
    #[cold]
    fn take_exception(&mut self, pc: u64) {
        self.core.stopped = false;
        let mut trap = self.core.trap;
        if trap.cause == Cause::IllegalInstruction {
            trap.tval = self.insn_bits(pc);
        }
        let retired = self.core.hart.retired;
        self.barren_traps = if self.barren_traps.1 == retired {
            (self.barren_traps.0 + 1, retired)
        } else {
            (0, retired)
        };
        if self.barren_traps.0 > TRAP_LOOP {
            self.core.poll = true;
        }
        self.traps += 1;
        self.core.hart.pc = pc;
        self.core.hart.take_exception(trap);
        self.trapped();
    }

    fn describe_trap_loop(&self) -> String {
        let hart = &self.core.hart;
        let (mode, cause, tval, epc, tvec) = match hart.mode {
            Mode::M => ("M", hart.mcause, hart.mtval, hart.mepc, hart.mtvec),
            _ => ("S", hart.scause, hart.stval, hart.sepc, hart.stvec),
        };
        format!(
            "hart {}: its {mode}-mode trap handler at {tvec:#x} faults itself and traps forever: {} at pc \
             {epc:#x}, value {tval:#x}",
            hart.hartid,
            Cause::describe(cause),
        )
    }

    /// Decodes the block at `offset` of the current page, making sure that stores to the page are
    /// noticed from now on.
    #[cold]
    fn decode(&mut self, offset: u64) {
        if self.code.is_full() {
            self.drop_all_code();
            return;
        }
        self.watch_current();
        self.code.decode(self.page, offset);
    }

    /// Makes sure that stores to the current page are noticed from now on, and that what is made of it is made
    /// of what is in memory.
    fn watch_current(&mut self) {
        self.watch(self.page);
        // What comes into the log from now on is looked at by the next FENCE.I.
        self.code.refresh(self.page, self.core.bus.code_log_len());
    }

    /// Makes sure that stores to page `page` are noticed from now on.
    fn watch(&mut self, page: u32) {
        let gpa = self.code.gpa(page);
        let page = self.core.bus.ram_page(gpa);
        // A page that is watched already may be so for another reason, or since a moment ago, so that
        // others still write it: the bus knows, and waits.
        self.core.bus.watch_code(self.core.hart.hartid as usize, gpa);
        if page.is_some_and(|page| page.access == PageAccess::ReadWrite) {
            self.core.write_protect(gpa);
        }
    }

    /// Makes the page at `pc` current. `false` if something else must happen first: an exception was
    /// taken, or an instruction was performed that cannot be kept.
    #[cold]
    #[inline(never)]
    fn enter_page(&mut self, pc: u64) -> bool {
        let (mode, satp) = (self.core.hart.mode, self.core.hart.satp);
        let page = match self.fetch.lookup(pc, mode, satp) {
            Some((page, version)) if version == self.code.version(page) => page,
            _ => match self.fetch_page(pc) {
                Some(page) => page,
                None => return false,
            },
        };
        self.page = page;
        self.core.frame.page_va = pc & !PAGE_MASK;
        true
    }

    fn fetch_page(&mut self, pc: u64) -> Option<u32> {
        self.fetch_misses += 1;
        let (mode, satp) = (self.core.hart.mode, self.core.hart.satp);
        let core = &mut self.core;
        let to = core.hart.translate_again(&mut core.walks, &*core.bus, pc, Access::Fetch, mode);
        self.core.walked();
        let to = match to {
            Ok(to) => to,
            Err(trap) => {
                self.core.trap = trap;
                self.take_exception(pc);
                return None;
            }
        };
        let base = to.gpa & !PAGE_MASK;
        let region = self.core.region(base);
        let whole = region.holds(base, PAGE_SIZE) && region.allows(Access::Fetch, mode);
        let Some(page) = self.core.bus.ram_page(base).filter(|_| whole) else {
            self.step_uncached();
            return None;
        };
        let index = self.code.find(base).unwrap_or_else(|| self.code.insert(base, page.host));
        self.fetch.fill(pc, mode, satp, &to, (index, self.code.version(index)));
        Some(index)
    }

    /// Reads the 16 bits at `pc` as an instruction fetch.
    fn fetch_half(&self, pc: u64) -> Result<u32, Trap> {
        let (hart, bus) = (&self.core.hart, &*self.core.bus);
        let to = hart.translate(bus, pc, Access::Fetch, hart.mode)?;
        hart.protect(to.gpa, 2, pc, Access::Fetch, hart.mode)?;
        // Instructions are fetched from memory only, not from devices.
        let page = bus.ram_page(to.gpa).ok_or(Access::Fetch.access_fault(pc))?;
        Ok(page.host.load(to.gpa, Width::Half) as u32)
    }

    /// The bits of the instruction at `pc`, for `mtval`; zero if they cannot be read any more.
    fn insn_bits(&self, pc: u64) -> u64 {
        let read = || -> Result<u32, Trap> {
            let low = self.fetch_half(pc)?;
            if insn_len(low) == 2 {
                return Ok(low);
            }
            Ok(low | self.fetch_half(pc.wrapping_add(2))? << 16)
        };
        read().map_or(0, u64::from)
    }

    /// The instruction at `pc`, if its pages are known.
    fn known_insn(&self, pc: u64) -> Option<u32> {
        let low = self.known_half(pc)?;
        match insn_len(low) {
            2 => Some(low),
            _ => Some(low | self.known_half(pc.wrapping_add(2))? << 16),
        }
    }

    /// The 16 bits at `pc` as they are in memory, if their page is known.
    fn known_half(&self, pc: u64) -> Option<u32> {
        let hart = &self.core.hart;
        let (page, version) = self.fetch.lookup(pc, hart.mode, hart.satp)?;
        (version == self.code.version(page)).then(|| self.code.half_now(page, pc & PAGE_MASK))
    }

    /// Fetches the instruction at `pc`. `None` if an exception was taken.
    fn fetch_insn(&mut self, pc: u64) -> Option<u32> {
        let fetched = self.fetch_half(pc).and_then(|low| match insn_len(low) {
            2 => Ok(low),
            _ => Ok(low | self.fetch_half(pc.wrapping_add(2))? << 16),
        });
        self.core.walked();
        match fetched {
            Ok(word) => Some(word),
            Err(trap) => {
                self.core.trap = trap;
                self.take_exception(pc);
                None
            }
        }
    }

    /// Fetches, decodes and performs the instruction at the program counter without keeping it: it
    /// crosses pages, or its page is only partly executable.
    fn step_uncached(&mut self) {
        let pc = self.core.frame.next_pc;
        let Some(word) = self.known_insn(pc).or_else(|| self.fetch_insn(pc)) else { return };
        let (op, _) = self.code.decode_op(word, pc & PAGE_MASK);
        self.core.frame.page_va = pc & !PAGE_MASK;
        self.core.frame.next_pc = pc.wrapping_add(insn_len(word));
        self.core.hart.retired += 1;
        let undone = (op.handler)(&mut self.core, &[op]);
        self.core.hart.retired -= undone as u64;
        if self.core.stopped {
            self.end_stopped(op, pc, pc.wrapping_add(insn_len(word)));
        }
        // `page` does not belong to `page_va`: the next block must look its page up.
        self.core.frame.page_va = NO_PAGE;
    }
}
