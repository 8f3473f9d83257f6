//! The interpreter as the ground that a translator stands on: it holds the state, fetches, takes traps and
//! performs what is not translated.
//!
//! Translated code works on the [`Frame`]. While it runs, [`Frame::counter`] counts down what it retires;
//! [`Interp::start_count`] and [`Interp::end_count`] frame such a stretch, and a call out of it says by
//! [`Site`] where it comes from.

use std::mem::offset_of;

use crate::bus::Width;
use crate::frame::{Frame, NO_PAGE};
use crate::riscv::csr::fields::mstatus;
use crate::riscv::hart::{Hart, Mode};
use crate::riscv::insn::At;
use crate::riscv::sem::{Atomic, Cbo, Sem};

use super::core::Core;
use super::{Interp, TRAP_LOOP};

pub use super::code::Op;
pub use super::core::Dropped;

/// The place of a guest instruction in the translated block that calls out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Where it lies in its page.
    pub at: At,
    /// Instructions of the block before this one: they are done, but have not been counted.
    pub done: u32,
}

/// A word of the hart's state that translated code reads and writes where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Named after the registers.
pub enum Word {
    Mstatus,
    /// One byte: the floating-point flags, without those that translated code has raised and that
    /// [`Interp::fold_fp`] has not added yet.
    Fflags,
    Menvcfg,
    Senvcfg,
    Mie,
    /// What software has set of `mip`.
    Mip,
    /// What the supervisor timer adds to `mip` where it counts.
    Timer,
    Mtvec,
    Mscratch,
    Mepc,
    Mcause,
    Mtval,
    Stvec,
    Sscratch,
    Sepc,
    Scause,
    Stval,
}

impl Word {
    /// Where the word lies, in bytes from [`Frame::regs`] of the interpreter's frame on.
    #[must_use]
    pub const fn offset(self) -> i32 {
        const fn hart(field: usize) -> usize {
            offset_of!(Core, hart) + field
        }
        let place = match self {
            Word::Timer => offset_of!(Core, timer),
            Word::Mstatus => hart(offset_of!(Hart, mstatus)),
            Word::Fflags => hart(offset_of!(Hart, fflags)),
            Word::Menvcfg => hart(offset_of!(Hart, menvcfg)),
            Word::Senvcfg => hart(offset_of!(Hart, senvcfg)),
            Word::Mie => hart(offset_of!(Hart, mie)),
            Word::Mip => hart(offset_of!(Hart, mip)),
            Word::Mtvec => hart(offset_of!(Hart, mtvec)),
            Word::Mscratch => hart(offset_of!(Hart, mscratch)),
            Word::Mepc => hart(offset_of!(Hart, mepc)),
            Word::Mcause => hart(offset_of!(Hart, mcause)),
            Word::Mtval => hart(offset_of!(Hart, mtval)),
            Word::Stvec => hart(offset_of!(Hart, stvec)),
            Word::Sscratch => hart(offset_of!(Hart, sscratch)),
            Word::Sepc => hart(offset_of!(Hart, sepc)),
            Word::Scause => hart(offset_of!(Hart, scause)),
            Word::Stval => hart(offset_of!(Hart, stval)),
        };
        place as i32 - (offset_of!(Core, frame) + Frame::WORDS_BYTES) as i32
    }
}

/// A page of guest code that can be translated.
#[derive(Clone, Copy, Debug)]
pub struct CodePage {
    /// Its number: small, and given to another page only after [`CodePage::version`] has changed.
    pub index: u32,
    /// How often the number has changed hands.
    pub version: u32,
    /// Guest physical address.
    pub gpa: u64,
    /// It is mapped there in every address space.
    pub global: bool,
}

/// What decides where a virtual address leads as an instruction fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchContext {
    /// `satp`, or 0 in M-mode.
    pub space: u64,
    /// Privilege.
    pub mode: Mode,
}

/// A call out of translated code ends it: the state is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leave;

impl Interp {
    /// The registers and words that translated code works on.
    pub fn frame(&mut self) -> &mut Frame {
        &mut self.core.frame
    }

    /// Whether a debugger has set points: only the interpreter stops at them.
    #[must_use]
    pub fn has_points(&self) -> bool {
        !self.core.points.is_empty()
    }

    /// Whether somebody calls for the hart's attention.
    #[must_use]
    pub fn is_called(&self) -> bool {
        self.core.signals.needs_attention()
    }

    /// Does what the hart's own instructions left to be done, and takes an interrupt if one is pending. Whether the hart
    /// goes on then: whatever else there is to look at is left to [`attend_if_called`](Self::attend_if_called).
    #[inline]
    pub fn goes_on(&mut self) -> bool {
        if self.core.signals.needs_attention() {
            return false;
        }
        if !self.core.poll {
            return true;
        }
        if self.core.hart.waiting || self.barren_traps.0 > TRAP_LOOP {
            return false;
        }
        self.core.poll = false;
        self.look().is_none() && !self.core.poll
    }

    /// Makes the next [`attend_if_called`](Self::attend_if_called) look at everything.
    pub fn call(&mut self) {
        self.core.poll = true;
    }

    /// Performs a block by interpretation, at most up to `limit` retired instructions.
    pub fn interpret(&mut self, limit: u64) {
        self.run_block(limit);
    }

    /// The page at the program counter. `None` if something else happened instead: an exception was taken, or
    /// one instruction performed.
    pub fn code_page(&mut self) -> Option<CodePage> {
        let pc = self.core.frame.next_pc;
        if pc & !crate::bus::PAGE_MASK != self.core.frame.page_va && !self.enter_page(pc) {
            return None;
        }
        Some(CodePage {
            index: self.page,
            version: self.code.version(self.page),
            gpa: self.code.gpa(self.page),
            global: self.page_is_global(pc),
        })
    }

    /// Whether the page at `pc`, which is current, is in every address space.
    fn page_is_global(&self, pc: u64) -> bool {
        let hart = &self.core.hart;
        self.fetch.lookup(pc, hart.mode, hart.satp).is_some() && self.fetch.is_global(pc)
    }

    /// Makes sure that stores to the page of the last [`code_page`](Self::code_page) are noticed; before its
    /// bytes are read.
    pub fn watch_code(&mut self) {
        self.watch_current();
    }

    /// The halfword at `offset` of the page of the last [`watch_code`](Self::watch_code), from which code is made:
    /// once it has changed, the page's number changes hands.
    #[must_use]
    pub fn code_half(&self, offset: u64) -> u16 {
        self.code.half(self.page, offset)
    }

    /// The same, from which nothing is made.
    #[must_use]
    pub fn peek_code_half(&self, offset: u64) -> u16 {
        self.code.peek_half(self.page, offset)
    }

    /// Fetch translations that were dropped since the last call.
    pub fn take_dropped(&mut self) -> Dropped {
        std::mem::take(&mut self.fetch_dropped)
    }

    /// Hands out the numbers of the pages whose code was dropped since the last call. They may have been given to
    /// other pages already.
    pub fn take_removed(&mut self) -> impl Iterator<Item = u32> {
        self.removed.drain(..)
    }

    /// What the next fetch depends on.
    #[must_use]
    pub fn fetch_context(&self) -> FetchContext {
        let hart = &self.core.hart;
        let space = if hart.mode == Mode::M { 0 } else { hart.satp };
        FetchContext { space, mode: hart.mode }
    }

    /// The current privilege.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.core.hart.mode
    }

    /// Whether floating point is enabled and rounds to nearest even: what translated code assumes.
    #[must_use]
    pub fn fp_is_plain(&self) -> bool {
        self.core.hart.mstatus & mstatus::FS != 0 && self.core.hart.frm == 0
    }

    /// ORs floating-point flags that translated code has raised into `fflags`, and marks the state dirty if
    /// it has written registers.
    #[inline]
    pub fn fold_fp(&mut self, flags: u8, dirty: bool) {
        self.core.hart.fflags |= flags;
        if dirty || flags != 0 {
            self.core.hart.mstatus |= mstatus::FS;
        }
    }

    /// Prepares an instruction to be performed by [`perform_for`](Self::perform_for).
    #[must_use]
    pub fn prepare(&self, word: u32, offset: u64) -> Op {
        self.code.decode_op(word, offset).0
    }

    /// Puts the place of the current TLB table into the frame.
    pub fn publish_tlb(&mut self) {
        let (table, mask) = self.core.tlb.table();
        self.core.frame.tlb = table;
        self.core.frame.tlb_mask = mask;
    }

    /// Translated code shall be left when it has done more than `insns` instructions from here.
    pub fn start_count(&mut self, insns: u64) {
        self.core.frame.counter = insns as i64;
        self.core.hart.retired += insns;
    }

    /// Translated code has been left. It may have moved to another page without the interpreter's knowledge.
    pub fn end_count(&mut self) {
        self.core.frame.page_va = NO_PAGE;
        self.core.hart.retired =
            self.core.hart.retired.wrapping_sub(self.core.frame.counter as u64);
        self.core.frame.counter = 0;
    }

    /// Settles the count at a call out from behind the first `done` instructions of a block. Returns what must
    /// be put back for translated code to go on.
    fn settle(&mut self, done: u32) -> u64 {
        let counted = self.core.hart.retired;
        let left = self.core.frame.counter - i64::from(done);
        self.core.hart.retired = counted.wrapping_sub(left as u64);
        counted
    }

    /// After a call out that does not go on: nothing of the stretch is left to count.
    fn stay_settled(&mut self) -> Leave {
        self.core.frame.counter = 0;
        Leave
    }

    /// The instruction at `site` ended by a stop: takes its exception, or completes it. A load that a device has
    /// answered is performed by the interpreter, which finds the answer there.
    #[cold]
    fn stopped(&mut self, site: Site) -> Leave {
        self.settle(site.done);
        let pc = self.core.frame.page_va.wrapping_add(site.at.offset());
        if self.core.answer.is_some() {
            self.core.frame.next_pc = pc;
            self.step_uncached();
            self.core.answer = None;
        } else {
            self.conclude(pc, pc.wrapping_add(site.at.bytes()));
        }
        self.stay_settled()
    }

    /// Fetches and performs the instruction at `site`, which crosses into the next page. Translated code must be left.
    pub fn cross_for(&mut self, site: Site) -> Leave {
        self.settle(site.done);
        self.core.frame.next_pc = self.core.frame.page_va.wrapping_add(site.at.offset());
        self.step_uncached();
        self.stay_settled()
    }

    /// A load of translated code that missed the TLB. Zero-extended.
    ///
    /// # Errors
    /// [`Leave`] if it faulted, or was done and there is something to look at.
    pub fn load_for(&mut self, site: Site, va: u64, width: Width) -> Result<u64, Leave> {
        self.core.revoked = false;
        let value = self.core.load(va, width);
        self.publish_tlb();
        if let Ok(value) = value
            && self.core.revoked
        {
            // Translated code may still use what was taken back.
            self.core.answer = Some(value);
            return Err(self.stopped(site));
        }
        if self.core.poll {
            self.leave_after_block();
        }
        value.map_err(|_stop| self.stopped(site))
    }

    /// Makes translated code leave at the end of the block: the count runs out there.
    fn leave_after_block(&mut self) {
        let given_up = std::mem::take(&mut self.core.frame.counter);
        self.core.hart.retired = self.core.hart.retired.wrapping_sub(given_up as u64);
    }

    /// A store of translated code that missed the TLB.
    ///
    /// # Errors
    /// [`Leave`] if it faulted, or was done and there is something to look at.
    pub fn store_for(
        &mut self,
        site: Site,
        va: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Leave> {
        self.core.revoked = false;
        let done = self.core.store(va, width, value);
        self.publish_tlb();
        match done {
            // Translated code may still use what was taken back.
            Ok(()) if !self.core.poll && !self.core.revoked => Ok(()),
            Ok(()) => {
                self.core.completed = true;
                Err(self.stopped(site))
            }
            Err(_stop) => Err(self.stopped(site)),
        }
    }

    /// An atomic operation of translated code that missed the TLB. What the instruction yields, sign-extended. A store
    /// ends its block, so that what it caused is looked at there.
    ///
    /// # Errors
    /// [`Leave`] if it faulted.
    pub fn atomic_for(
        &mut self,
        site: Site,
        op: Atomic,
        va: u64,
        width: Width,
        value: u64,
    ) -> Result<u64, Leave> {
        let result = match op {
            Atomic::LoadReserved => self.core.load_reserved(va, width),
            Atomic::StoreConditional => self.core.store_conditional(va, width, value),
            Atomic::Amo(amo) => self.core.amo(amo, va, width, value),
            Atomic::ZeroBlock => self.core.cbo(Cbo::Zero, va).map(|()| 0),
        };
        self.publish_tlb();
        let stores = op != Atomic::LoadReserved;
        if self.core.poll || stores && self.core.signals.needs_attention() {
            self.leave_after_block();
        }
        result.map_err(|_stop| self.stopped(site))
    }

    /// Performs an instruction that was not translated.
    ///
    /// # Errors
    /// [`Leave`] unless translated code may go on at the next instruction as if nothing had happened.
    pub fn perform_for(&mut self, site: Site, op: &Op) -> Result<(), Leave> {
        let page_va = self.core.frame.page_va;
        let next_pc = page_va.wrapping_add(site.at.offset()).wrapping_add(site.at.bytes());
        let plain = self.fp_is_plain();
        let counted = self.settle(site.done);
        self.core.hart.retired += 1;
        self.core.frame.next_pc = next_pc;
        let undone = (op.handler)(&mut self.core, std::slice::from_ref(op));
        self.core.hart.retired -= undone as u64;
        self.publish_tlb();
        if self.core.stopped {
            self.end_stopped(*op, page_va.wrapping_add(site.at.offset()), next_pc);
            return Err(self.stay_settled());
        }
        let goes_on = !self.core.poll
            && self.core.frame.next_pc == next_pc
            && self.core.frame.page_va == page_va
            && self.fp_is_plain() == plain;
        if !goes_on {
            return Err(self.stay_settled());
        }
        self.core.hart.retired = counted;
        Ok(())
    }
}
