//! The interpreter: an engine that performs decoded blocks.
//!
//! A block is a run of decoded instructions inside one page, kept by guest physical address and mode ([`code`]). The
//! run loop finds the block at CS:RIP, counts its instructions as retired, and calls the first one's function, which
//! calls the next one's. Between blocks, and only there, it looks at interrupts and at what instructions left to be
//! done.

mod code;
mod debug;
mod events;

use std::sync::Arc;

use crate::bus::{CpuBus, PAGE_MASK, PAGE_SIZE, PageAccess};
use crate::frame::NO_PAGE;
use crate::run::{Budget, Exit};
use crate::signals::Signals;

use super::core::{Core, FetchFlush, IP_PAGE};
use super::decode::{self, Decoded, MAX_LEN, Mode, Op};
use super::fault::{Fault, Stop, vector};
use super::mem::Place;
use super::paging::Access;
use super::state::{Cpu, sreg};

pub(super) use self::code::Block;
pub use self::code::CodeCache;

/// Exceptions in a row without an instruction retiring after which the guest is beyond help.
const TRAP_LOOP: u32 = 100_000;
/// Instructions that blocks following one another may have before the run loop looks at things again.
const WINDOW: u64 = 1024;

/// Counters of an interpreter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Soft-TLB misses of loads and stores.
    pub tlb_misses: u64,
    /// Fetches that had to translate an address.
    pub fetch_misses: u64,
    /// Blocks decoded.
    pub blocks_decoded: u64,
    /// Loads, stores and port accesses served by devices.
    pub device_accesses: u64,
    /// Exceptions and interrupts taken.
    pub traps: u64,
}

/// The interpreter of one processor.
pub struct Interp {
    core: Core,
    code: CodeCache,
    /// Instructions must be looked at one by one: a shadow, the trap flag, debug registers.
    slow: bool,
    /// Entries of the bus's code log that have been followed.
    code_log: u64,
    /// Exceptions since an instruction retired last: how many, and what `retired` was.
    barren_traps: (u32, u64),
    fetch_misses: u64,
    traps: u64,
}

impl Interp {
    /// Makes an interpreter that continues from `cpu`.
    #[must_use]
    pub fn new(cpu: Cpu, bus: Arc<dyn CpuBus>, signals: Arc<Signals>) -> Self {
        let code_log = bus.code_log_len();
        signals.call_attention();
        let core = Core::new(cpu, bus, signals);
        Interp {
            core,
            code: CodeCache::new(),
            slow: false,
            code_log,
            barren_traps: (0, 0),
            fetch_misses: 0,
            traps: 0,
        }
    }

    /// The processor's canonical state.
    #[must_use]
    pub fn cpu(&self) -> Cpu {
        self.core.export()
    }

    /// Continues from `cpu`, a state made outside.
    pub fn load(&mut self, cpu: Cpu) {
        self.drop_all_code();
        self.core.import(cpu);
        self.core.poll = true;
    }

    /// The processor while it runs.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The processor while it runs, to be changed between runs: registers, flags, memory through the TLB.
    pub fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// Instructions retired since the processor was made.
    #[must_use]
    pub fn retired(&self) -> u64 {
        self.core.cpu.retired
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

    /// Runs until the budget is used up, the processor waits, somebody kicks it, or a point of
    /// [`set_debug`](Self::set_debug) is reached.
    pub fn run(&mut self, budget: Budget) -> Exit {
        let retired = self.core.cpu.retired;
        let limit = budget.insns.map_or(u64::MAX, |insns| retired.saturating_add(insns));
        self.core.poll = true;
        if !self.core.points.is_empty() {
            return self.run_debug(limit);
        }
        loop {
            if let Some(exit) = self.attend_if_called() {
                return exit;
            }
            if self.core.cpu.retired >= limit {
                return Exit::Budget;
            }
            self.run_some(limit);
        }
    }

    /// Looks at everything until there is nothing more to look at.
    #[inline(always)]
    fn attend_if_called(&mut self) -> Option<Exit> {
        while self.core.poll | self.core.signals.needs_attention() {
            if let Some(exit) = self.attend() {
                return Some(exit);
            }
        }
        None
    }

    /// Goes on, at most up to `limit` retired instructions.
    #[inline(always)]
    fn run_some(&mut self, limit: u64) {
        if self.slow {
            self.step_slowly(limit);
        } else {
            self.run_block(limit);
        }
    }

    /// Forgets decoded pages that were written to since the last look.
    fn drop_stale_code(&mut self) {
        self.core.stale_code = false;
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
    }

    fn drop_all_code(&mut self) {
        self.code.clear();
        self.code.fetch.flush();
        self.core.page_lin = NO_PAGE;
    }

    /// Forgets what was made of the page at `gpa`, which was written to, unless it is as it was where it was decoded.
    fn drop_changed_page(&mut self, gpa: u64) {
        let pages: Vec<u32> = self.code.pages_at(gpa).collect();
        for page in pages {
            if self.code.may_keep(page) {
                self.watch(page);
                if self.code.is_as_used(page) {
                    continue;
                }
            }
            self.code.remove(page);
            self.core.page_lin = NO_PAGE;
        }
    }

    fn follow_fetch_flush(&mut self) {
        let flush = std::mem::take(&mut self.core.fetch_flush);
        if flush == FetchFlush::default() {
            return;
        }
        match flush.page {
            Some(lin) if !flush.all => self.code.fetch.flush_page(lin),
            _ => self.code.fetch.flush(),
        }
        self.core.page_lin = NO_PAGE;
    }

    /// Performs the block at CS:RIP, at most up to `limit` retired instructions.
    #[inline(always)]
    fn run_block(&mut self, limit: u64) {
        let rip = self.core.next_rip;
        let lin = self.core.code_linear(rip);
        if lin & !PAGE_MASK != self.core.page_lin && !self.enter_page(lin) {
            return;
        }
        let offset = lin & PAGE_MASK;
        let block = self.code.at(self.core.code_page + offset as usize);
        let ops = self.code.ops(block);
        let Some(first) = ops.first() else {
            return if block == Block::CROSSING {
                self.step_uncached();
            } else {
                self.decode(offset);
            };
        };
        let behind = rip.wrapping_add(block.bytes());
        let limit_of_code =
            if self.core.wide() { u64::MAX } else { u64::from(self.core.segment(sreg::CS).limit) };
        let retired = self.core.cpu.retired + ops.len() as u64;
        if behind.wrapping_sub(1) > limit_of_code {
            return self.step_uncached();
        }
        if retired > limit {
            return self.step_alone(offset);
        }
        self.core.regs[usize::from(IP_PAGE)] = rip.wrapping_sub(offset);
        self.core.next_rip = behind & self.core.lin_mask;
        self.core.code_limit = limit_of_code;
        self.core.window = limit.min(self.core.cpu.retired + WINDOW);
        self.core.cpu.retired = retired;
        self.core.block = block;
        let undone = (first.handler)(&mut self.core, ops, &self.code);
        self.core.cpu.retired -= undone as u64;
        if self.core.stopped {
            let ops = self.code.ops(self.core.block);
            let op = ops[ops.len() - undone];
            self.end_stopped(&op);
        }
    }

    /// `op` has stopped: it goes on when it is performed again, or raises its exception.
    #[cold]
    fn end_stopped(&mut self, op: &Op) {
        self.core.stopped = false;
        self.core.leave = false;
        self.core.next_rip = self.core.fault_rip.take().unwrap_or_else(|| self.core.rip(op));
        if std::mem::take(&mut self.core.unfinished) {
            return;
        }
        let mut fault = self.core.fault;
        if std::mem::take(&mut self.core.by_segment) && op.seg == sreg::SS {
            fault.vector = vector::SS;
        }
        self.take_exception(fault);
    }

    /// Decodes the block at `offset` of the current page, making sure that stores to the page are noticed from now on.
    #[cold]
    fn decode(&mut self, offset: u64) {
        if let Some(page) = self.prepare_to_decode() {
            self.code.decode(page, offset, &self.core.cpu.model);
        }
    }

    /// The number of the current page, if something can be made of it now.
    fn prepare_to_decode(&mut self) -> Option<u32> {
        if self.code.is_full() {
            self.drop_all_code();
            return None;
        }
        let page = (self.core.code_page / PAGE_SIZE as usize) as u32;
        self.watch(page);
        // What comes into the log from now on is looked at before it is executed.
        self.code.refresh(page, self.core.bus.code_log_len());
        Some(page)
    }

    /// Performs the instruction at `offset` of the current page and none behind it: the ops of a block are made to be
    /// performed together, so a part of them will not do.
    #[cold]
    fn step_alone(&mut self, offset: u64) {
        let place = self.core.code_page + offset as usize;
        if let Some(op) = self.code.alone(place) {
            return self.perform_alone(&op);
        }
        let Some(page) = self.prepare_to_decode() else { return };
        match self.code.decode_alone(page, offset, &self.core.cpu.model) {
            Some(op) => self.perform_alone(&op),
            None => self.step_uncached(),
        }
    }

    /// Performs `op`, which is at CS:RIP.
    fn perform_alone(&mut self, op: &Op) {
        let rip = self.core.next_rip;
        self.core.set_gpr(IP_PAGE, rip.wrapping_sub(op.off.into()));
        self.core.next_rip = self.core.rip_after(op);
        self.core.window = 0;
        self.core.cpu.retired += 1;
        let undone = (op.handler)(&mut self.core, std::slice::from_ref(op), &self.code);
        self.core.cpu.retired -= undone as u64;
        if self.core.stopped {
            self.end_stopped(op);
        }
    }

    /// Makes sure that stores to page `page` are noticed from now on.
    fn watch(&mut self, page: u32) {
        let gpa = self.code.gpa(page);
        let page = self.core.bus.ram_page(gpa);
        // A page that is watched already may be so for another reason, or since a moment ago, so that others still
        // write it: the bus knows, and waits.
        self.core.bus.watch_code(self.core.cpu.id as usize, gpa);
        if page.is_some_and(|page| page.access == PageAccess::ReadWrite) {
            self.core.write_protect(gpa);
        }
    }

    /// Makes the page at `lin` current. `false` if something else must happen first: an exception was taken, or an
    /// instruction was performed that cannot be kept.
    #[cold]
    #[inline(never)]
    fn enter_page(&mut self, lin: u64) -> bool {
        let mode = Mode { size: self.core.code_size(), aligned: self.core.aligned };
        let class = mode.key() << 1 | u8::from(self.core.cpu.cpl == 3);
        let page = match self.code.known_page(lin, class) {
            Some(page) => page,
            None => match self.fetch_page(lin, class, mode) {
                Some(page) => page,
                None => return false,
            },
        };
        self.core.fetch_class = class;
        self.core.now_in_page(lin, page);
        true
    }

    fn fetch_page(&mut self, lin: u64, class: u8, mode: Mode) -> Option<u32> {
        self.fetch_misses += 1;
        if !self.core.is_canonical(lin) {
            self.take_exception(Fault::with(vector::GP, 0));
            return None;
        }
        let who = self.core.own_rights();
        let to = match self.core.translate(lin, Access::Fetch, who) {
            Ok(to) => to,
            Err(fault) => {
                self.take_exception(fault);
                return None;
            }
        };
        let Some(page) = self.core.bus.ram_page(to.gpa) else {
            self.step_uncached();
            return None;
        };
        let index = self.code.page(to.gpa, page.host, mode);
        self.code.fetch.fill(lin, class, to.span, (index, self.code.version(index)));
        Some(index)
    }

    /// Fetches, decodes and performs the instruction at CS:RIP without keeping it: it crosses pages, or its page is
    /// not memory, or it may end beyond the segment.
    #[cold]
    fn step_uncached(&mut self) {
        let rip = self.core.next_rip;
        let offset = self.core.code_linear(rip) & PAGE_MASK;
        let mode = Mode { size: self.core.code_size(), aligned: self.core.aligned };
        let mut bytes = [0; MAX_LEN];
        let mut fetched = 0;
        let op = loop {
            // As few bytes as possible: what is not needed must not fault.
            match self.fetch_some(rip, &mut bytes, fetched) {
                Ok(more) => fetched = more,
                Err(fault) => return self.take_exception(fault),
            }
            let model = &self.core.cpu.model;
            match decode::decode(&bytes[..fetched], offset as u16, mode, model) {
                Decoded::Op(op, ..) => break op,
                Decoded::Truncated => {}
            }
        };
        self.core.page_lin = NO_PAGE;
        self.perform_alone(&op);
    }

    /// Fetches bytes from index `from` on up to the end of a page or the segment. How many there are now.
    fn fetch_some(
        &mut self,
        rip: u64,
        bytes: &mut [u8; MAX_LEN],
        from: usize,
    ) -> Result<usize, Fault> {
        let start = rip.wrapping_add(from as u64);
        let limit = u64::from(self.core.segment(sreg::CS).limit);
        if !self.core.wide() && start > limit {
            return Err(Fault::with(vector::GP, 0));
        }
        let lin = self.core.code_linear(start);
        let who = self.core.own_rights();
        let place = match self.core.locate_code(lin, who) {
            Ok(place) => place,
            Err(Stop) => {
                self.core.by_segment = false;
                return Err(self.core.fault);
            }
        };
        let mut at = from;
        for offset in 0..PAGE_SIZE - (lin & PAGE_MASK) {
            if at == MAX_LEN || !self.core.wide() && start + offset > limit {
                break;
            }
            bytes[at] = self.core.read_byte(place, offset);
            at += 1;
        }
        Ok(at)
    }
}

impl Core {
    /// The page at `lin` is current from now on; `page` is its number in the [`CodeCache`].
    #[inline(always)]
    pub(super) fn now_in_page(&mut self, lin: u64, page: u32) {
        self.page_lin = lin & !PAGE_MASK;
        self.code_page = page as usize * PAGE_SIZE as usize;
    }

    /// The linear address of CS:`rip`.
    #[inline(always)]
    pub(super) fn code_linear(&self, rip: u64) -> u64 {
        rip.wrapping_add(self.reach[usize::from(sreg::CS)].base) & self.lin_mask
    }

    /// Where code at `lin` lies.
    fn locate_code(&mut self, lin: u64, who: super::paging::Rights) -> Result<Place, Stop> {
        if !self.is_canonical(lin) {
            return Err(self.gp(0));
        }
        match self.translate(lin, Access::Fetch, who) {
            Ok(to) => Ok(match self.bus.ram_page(to.gpa) {
                Some(page) => Place::Ram(page, to.gpa),
                None => Place::Device(to.gpa),
            }),
            Err(fault) => Err(self.raise(fault)),
        }
    }
}
