//! The interpreter's implementation of [`Sem`]: values are `u64`, and everything happens at once.

use std::sync::Arc;

use crate::bus::{CpuBus, PAGE_MASK, PAGE_SIZE, PageAccess, RamPage, Request, Width};
use crate::debug::{DebugEvent, DebugPoints};
use crate::frame::{F, Frame, NO_PAGE, reservation_tag};
use crate::ram::{Cell, HostPage};
use crate::riscv::csr::fields::{envcfg, irq, mstatus};
use crate::riscv::csr::{CsrOp, Effects, Outside};
use crate::riscv::hart::{Hart, Mode, Reservation};
use crate::riscv::insn::{At, Flow, Instruction};
use crate::riscv::mmu::Access;
use crate::riscv::pmp::Region;
use crate::riscv::sem::{Amo, Bin, Cbo, Fmt, Fp1, Fp2, PAUSE, Sem, Un};
use crate::riscv::trap::{Cause, Trap};
use crate::riscv::walks::WalkCache;
use crate::riscv::{CACHE_BLOCK, NS_PER_TICK, alu, fpu};
use crate::signals::Signals;
use crate::softfloat::{Flags, Rounding};
use crate::tlb::{Fill, TableKey, Tlb};

use super::code::{Handler, Op};

/// The instruction ended early; [`Core::trap`] says why.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop;

/// What instructions leave for the run loop to do at the next block boundary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests {
    /// FENCE.I: decoded pages that were written to are stale.
    pub(super) fence_i: bool,
    /// Fetch translations that are stale.
    pub(super) fetch_flush: Dropped,
}

/// Fetch translations that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dropped {
    /// None.
    #[default]
    Nothing,
    /// Of this page or of all; in the address spaces of this ASID (but not the global ones), or in all.
    These {
        /// The page.
        va: Option<u64>,
        /// The ASID.
        asid: Option<u16>,
    },
}

impl Dropped {
    /// All.
    pub const ALL: Dropped = Dropped::These { va: None, asid: None };

    /// These, too; or simply all.
    pub(super) fn and(self, other: Dropped) -> Dropped {
        match (self, other) {
            (Dropped::Nothing, other) => other,
            (this, Dropped::Nothing) => this,
            (this, other) if this == other => this,
            _ => Dropped::ALL,
        }
    }
}

/// State of the interpreter while it runs.
pub(super) struct Core {
    /// Registers, and where the hart is.
    pub(super) frame: Frame,
    /// Everything else; its x, f, pc and reservation are stale meanwhile.
    pub(super) hart: Hart,
    pub(super) tlb: Tlb,
    pub(super) walks: WalkCache,
    /// The answer of [`Core::region`] last time.
    region: Region,
    /// The last branch was taken.
    jumped: bool,
    /// An instruction ended by [`Stop`].
    pub(super) stopped: bool,
    /// The instruction that ended by [`Stop`] is complete; there is no trap, only something to look at before
    /// the next one.
    pub(super) completed: bool,
    /// What a device answered to the load that ended by [`Stop`]: nothing else is the matter, and the load is
    /// performed again, alone, with this.
    pub(super) answer: Option<u64>,
    /// Why the last [`Stop`] happened.
    pub(super) trap: Trap,
    pub(super) requests: Requests,
    /// Something happened that the run loop must look at before the next block.
    pub(super) poll: bool,
    /// Translations, or rights to write, have been taken back.
    pub(super) revoked: bool,
    /// `mip.STIP` of the supervisor timer, as of the last look at the clock: that bit or 0.
    pub(super) timer: u64,
    pub(super) rounding: Rounding,
    pub(super) bus: Arc<dyn CpuBus>,
    /// [`CpuBus::coherent`].
    pub(super) coherent: bool,
    pub(super) signals: Arc<Signals>,
    pub(super) tlb_misses: u64,
    pub(super) device_accesses: u64,
    /// Where the debugger wants the hart to stop.
    pub(super) points: DebugPoints,
    /// The watchpoint that the current instruction has met.
    pub(super) watched: Option<DebugEvent>,
}

/// Where an address leads.
enum Place {
    Ram(RamPage, u64),
    Device(u64),
    /// A store into memory that is only read: a device may take it, as flash does.
    Rom(u64),
}

/// [`Outside`] of the CSRs, at one moment.
struct Moment<'a> {
    bus: &'a dyn CpuBus,
    signals: &'a Signals,
}

impl Outside for Moment<'_> {
    fn time(&self) -> u64 {
        self.bus.now() / NS_PER_TICK
    }
    fn lines(&self) -> u64 {
        self.signals.lines()
    }
}

impl Core {
    pub(super) fn new(hart: Hart, bus: Arc<dyn CpuBus>, signals: Arc<Signals>) -> Self {
        let key = data_key(&hart);
        let coherent = bus.coherent();
        let mut core = Core {
            frame: Frame::new(),
            hart,
            tlb: Tlb::new(key),
            walks: WalkCache::new(),
            region: Region::NONE,
            jumped: false,
            stopped: false,
            completed: false,
            answer: None,
            trap: Trap { cause: Cause::IllegalInstruction, tval: 0 },
            requests: Requests::default(),
            poll: true,
            revoked: false,
            timer: 0,
            rounding: Rounding::NearestEven,
            bus,
            coherent,
            signals,
            tlb_misses: 0,
            device_accesses: 0,
            points: DebugPoints::default(),
            watched: None,
        };
        core.frame.lines = core.signals.lines_address();
        core.load_registers();
        core
    }

    fn load_registers(&mut self) {
        self.frame.regs[..32].copy_from_slice(&self.hart.x);
        self.frame.regs[F..F + 32].copy_from_slice(&self.hart.f);
        self.frame.next_pc = self.hart.pc;
        self.frame.reserved = self.hart.reservation.map_or(0, |r| {
            reservation_tag(r.gpa, if r.bytes == 8 { Width::Double } else { Width::Word })
        });
        self.frame.reserved_value = self.hart.reservation.map_or(0, |r| r.value);
    }

    /// Takes over a state that was made outside; nothing cached is valid any more.
    pub(super) fn import(&mut self, hart: Hart) {
        self.hart = hart;
        self.load_registers();
        self.flush();
        self.translation_changed();
    }

    /// The canonical state, complete.
    pub(super) fn export(&self) -> Hart {
        let mut hart = self.hart.clone();
        hart.x.copy_from_slice(&self.frame.regs[..32]);
        hart.f.copy_from_slice(&self.frame.regs[F..F + 32]);
        hart.pc = self.frame.next_pc;
        let reserved = self.frame.reserved;
        hart.reservation = (reserved != 0).then_some(Reservation {
            gpa: reserved & !3,
            bytes: if reserved & 2 != 0 { 8 } else { 4 },
            value: self.frame.reserved_value,
        });
        hart
    }

    fn moment(&self) -> Moment<'_> {
        Moment { bus: &*self.bus, signals: &self.signals }
    }

    /// Looks at the clock: refreshes what [`mip`](Self::mip) says of the supervisor timer and asks to be
    /// told when it expires.
    pub(super) fn look_at_clock(&mut self) {
        let compares = self.hart.menvcfg & envcfg::STCE != 0 && self.hart.stimecmp != u64::MAX;
        let expired = compares && self.moment().time() >= self.hart.stimecmp;
        self.timer = if expired { irq::STI } else { 0 };
        let ns = if compares && !expired {
            self.hart.stimecmp.saturating_mul(NS_PER_TICK)
        } else {
            // A request that means nothing any more would still cut a deterministic run's windows.
            u64::MAX
        };
        self.bus.set_deadline(self.hart.hartid as usize, ns);
    }

    /// `mip`, with the supervisor timer as it was when the clock was looked at last.
    pub(super) fn mip(&self) -> u64 {
        let mut mip = self.hart.mip | self.signals.lines();
        if self.hart.menvcfg & envcfg::STCE != 0 {
            mip = mip & !irq::STI | self.timer;
        }
        mip
    }

    fn follow(&mut self, effects: Effects) {
        if effects.contains(Effects::FLUSH) {
            self.flush();
        }
        if effects.contains(Effects::TRANSLATION) {
            self.tlb.select(data_key(&self.hart));
        }
        if effects.contains(Effects::ADDRESS_SPACE) {
            self.translation_changed();
        }
        if effects.contains(Effects::TIMER) {
            self.look_at_clock();
        }
        if effects.contains(Effects::INTERRUPTS) {
            self.poll |= self.hart.pending_interrupt(self.mip()).is_some();
        }
    }

    /// A trap return has changed privilege and `hart.pc`, and dropped the reservation.
    fn returned(&mut self) {
        self.frame.reserved = 0;
        self.frame.next_pc = self.hart.pc;
        self.translation_changed();
        self.poll |= self.hart.pending_interrupt(self.mip()).is_some();
    }

    /// Follows a change of privilege, `satp` or `mstatus`: selects the matching TLB table and leaves the
    /// current page.
    pub(super) fn translation_changed(&mut self) {
        self.tlb.select(data_key(&self.hart));
        self.frame.page_va = NO_PAGE;
    }

    /// Drops every cached translation.
    pub(super) fn flush(&mut self) {
        self.tlb.flush();
        self.revoked = true;
        self.walks.flush();
        self.region = Region::NONE;
        self.requests.fetch_flush = Dropped::ALL;
        self.poll = true;
    }

    /// Drops the right to write to a page that holds decoded code from now on.
    pub(super) fn write_protect(&mut self, gpa: u64) {
        self.tlb.write_protect(gpa);
        self.revoked = true;
    }

    /// Applies what others have asked of the hart.
    pub(super) fn apply_requests(&mut self) {
        let hart = self.hart.hartid as usize;
        let requests = self.bus.take_requests(hart);
        if requests.is_empty() {
            return;
        }
        for request in requests {
            match request {
                Request::WriteProtect(gpa) => self.write_protect(gpa),
                Request::FlushTranslations => self.flush(),
            }
        }
        self.bus.requests_done(hart);
    }

    /// After a page-table walk: page tables that are watched from now on are not written unnoticed any more.
    pub(super) fn walked(&mut self) {
        if self.coherent && self.signals.needs_attention() {
            self.apply_requests();
        }
    }

    #[cold]
    pub(super) fn stop(&mut self, trap: Trap) -> Stop {
        self.trap = trap;
        Stop
    }

    /// What PMP says about the surroundings of `gpa`.
    pub(super) fn region(&mut self, gpa: u64) -> Region {
        if !self.region.holds(gpa, 1) {
            self.region = self.hart.pmp.region(gpa);
        }
        self.region
    }

    /// Translates and checks an access of `len` bytes inside a page; enters RAM into the TLB.
    fn locate(&mut self, va: u64, len: u64, access: Access) -> Result<Place, Stop> {
        let mode = self.hart.data_mode();
        let found = self.hart.translate_again(&mut self.walks, &*self.bus, va, access, mode);
        self.walked();
        let to = match found {
            Ok(to) => to,
            Err(trap) => return Err(self.stop(trap)),
        };
        let region = self.region(to.gpa);
        let allowed = if region.holds(to.gpa, len) {
            region.allows(access, mode)
        } else {
            self.hart.protect(to.gpa, len, va, access, mode).is_ok()
        };
        if !allowed {
            return Err(self.stop(access.access_fault(va)));
        }
        let free = self.points.watchpoints.is_empty() || self.observe(va, len, access);
        let Some(page) = self.bus.ram_page(to.gpa) else { return Ok(Place::Device(to.gpa)) };
        if access == Access::Store && page.access == PageAccess::ReadOnly {
            return Ok(Place::Rom(to.gpa));
        }
        let base = to.gpa & !PAGE_MASK;
        if free && region.holds(base, PAGE_SIZE) {
            self.tlb_misses += 1;
            self.tlb.fill(Fill {
                va,
                gpa: base,
                host: page.host,
                read: to.readable && region.allows(Access::Load, mode),
                write: to.writable
                    && page.access == PageAccess::ReadWrite
                    && region.allows(Access::Store, mode),
                span: to.span,
            });
        }
        Ok(Place::Ram(page, to.gpa))
    }

    #[cold]
    #[inline(never)]
    fn load_slow(&mut self, va: u64, width: Width) -> Result<u64, Stop> {
        if let Some(answer) = self.answer.take() {
            return Ok(answer);
        }
        let len = width.bytes();
        let in_page = PAGE_SIZE - (va & PAGE_MASK);
        if in_page < len {
            let low = self.load_part(va, in_page)?;
            let high = self.load_part(va.wrapping_add(in_page), len - in_page)?;
            return Ok(low | high << (8 * in_page));
        }
        if va & (len - 1) != 0 {
            return self.load_part(va, len);
        }
        match self.locate(va, len, Access::Load)? {
            Place::Ram(page, gpa) => Ok(page.host.load(gpa, width)),
            Place::Device(gpa) | Place::Rom(gpa) => self.device_read(va, gpa, width),
        }
    }

    fn device_read(&mut self, va: u64, gpa: u64, width: Width) -> Result<u64, Stop> {
        self.device_accesses += 1;
        let Ok(answer) = self.bus.read(gpa, width) else {
            return Err(self.stop(Access::Load.access_fault(va)));
        };
        // As with stores, what the load caused is looked at before the next instruction. But the load is not
        // over: its value is still to be put into a register.
        if self.signals.needs_attention() {
            self.answer = Some(answer);
            return Err(Stop);
        }
        Ok(answer)
    }

    /// Loads `len` bytes, not aligned, inside a page.
    fn load_part(&mut self, va: u64, len: u64) -> Result<u64, Stop> {
        let (host, gpa) = match self.tlb.readable(va) {
            Some((host, page)) => (host, page | va & PAGE_MASK),
            None => match self.locate(va, len, Access::Load)? {
                Place::Ram(page, gpa) => (page.host, gpa),
                // Devices take only aligned accesses.
                Place::Device(_) | Place::Rom(_) => {
                    return Err(self.stop(Access::Load.access_fault(va)));
                }
            },
        };
        Ok((0..len).fold(0, |value, i| value | host.load(gpa + i, Width::Byte) << (8 * i)))
    }

    #[cold]
    #[inline(never)]
    fn store_slow(&mut self, va: u64, width: Width, value: u64) -> Result<(), Stop> {
        let len = width.bytes();
        let in_page = PAGE_SIZE - (va & PAGE_MASK);
        if in_page < len {
            // Both pages must take the store before either is changed.
            let second = va.wrapping_add(in_page);
            let low = self.store_place(va, in_page)?;
            let high = self.store_place(second, len - in_page)?;
            self.store_part(low, in_page, value);
            self.store_part(high, len - in_page, value >> (8 * in_page));
            return self.look_after_store();
        }
        if va & (len - 1) != 0 {
            let place = self.store_place(va, len)?;
            self.store_part(place, len, value);
            return self.look_after_store();
        }
        match self.locate(va, len, Access::Store)? {
            Place::Ram(page, gpa) => {
                page.host.store(gpa, width, value);
                self.stored(page, gpa, len);
                self.look_after_store()
            }
            Place::Device(gpa) => self.device_write(va, gpa, width, value),
            Place::Rom(gpa) => {
                // The next load must see what the device made of its memory.
                self.flush();
                self.device_write(va, gpa, width, value)
            }
        }
    }

    fn device_write(&mut self, va: u64, gpa: u64, width: Width, value: u64) -> Result<(), Stop> {
        self.device_accesses += 1;
        if self.bus.write(gpa, width, value).is_err() {
            return Err(self.stop(Access::Store.access_fault(va)));
        }
        self.look_after_store()
    }

    /// What a store caused is looked at before the next instruction, wherever the block ends: what the guest
    /// sees does not depend on how an engine cuts its code into blocks. The store is the last thing that its
    /// instruction does.
    fn look_after_store(&mut self) -> Result<(), Stop> {
        if self.signals.needs_attention() {
            self.completed = true;
            return Err(Stop);
        }
        Ok(())
    }

    fn stored(&self, page: RamPage, gpa: u64, len: u64) {
        if page.access == PageAccess::Watched {
            self.bus.watched_write(gpa, len);
        }
    }

    fn store_place(&mut self, va: u64, len: u64) -> Result<(RamPage, u64), Stop> {
        match self.locate(va, len, Access::Store)? {
            Place::Ram(page, gpa) => Ok((page, gpa)),
            Place::Device(_) | Place::Rom(_) => Err(self.stop(Access::Store.access_fault(va))),
        }
    }

    fn store_part(&self, (page, gpa): (RamPage, u64), len: u64, value: u64) {
        for i in 0..len {
            page.host.store(gpa + i, Width::Byte, value >> (8 * i));
        }
        self.stored(page, gpa, len);
    }

    /// The RAM under an atomic access, and whether stores to it are watched.
    fn atomic_place(
        &mut self,
        va: u64,
        width: Width,
        access: Access,
    ) -> Result<(HostPage, u64, bool), Stop> {
        if va & (width.bytes() - 1) != 0 {
            let cause = match access {
                Access::Load => Cause::LoadMisaligned,
                _ => Cause::StoreMisaligned,
            };
            return Err(self.stop(Trap { cause, tval: va }));
        }
        let hit = match access {
            Access::Load => self.tlb.readable(va),
            _ => self.tlb.writable(va),
        };
        if let Some((host, page)) = hit {
            return Ok((host, page | va & PAGE_MASK, false));
        }
        match self.locate(va, width.bytes(), access)? {
            Place::Ram(page, gpa) => Ok((page.host, gpa, page.access == PageAccess::Watched)),
            // Devices have no atomics (a physical memory attribute of the board).
            Place::Device(_) | Place::Rom(_) => Err(self.stop(access.access_fault(va))),
        }
    }

    #[inline(always)]
    fn mark_fp_dirty(&mut self) {
        self.hart.mstatus |= mstatus::FS;
    }

    #[inline(always)]
    fn accrue(&mut self, flags: Flags) {
        if !flags.is_empty() {
            self.hart.fflags |= flags.bits();
            self.mark_fp_dirty();
        }
    }

    /// Whether an envcfg field allows an instruction in the current mode: `menvcfg` speaks for S and U,
    /// `senvcfg` for U too.
    fn env_allows(&self, field: u64) -> bool {
        let by_m = self.hart.menvcfg & field != 0;
        let by_s = self.hart.senvcfg & field != 0;
        match self.hart.mode {
            Mode::M => true,
            Mode::S => by_m,
            Mode::U => by_m && by_s,
        }
    }

    /// Illegal unless S-mode or above, and not S-mode with `bit` of `mstatus` set.
    fn need_supervisor(&mut self, bit: u64) -> Result<(), Stop> {
        let hart = &self.hart;
        if hart.mode == Mode::U || hart.mode == Mode::S && hart.mstatus & bit != 0 {
            return Err(self.illegal());
        }
        Ok(())
    }
}

/// The TLB table that serves loads and stores in the hart's present state.
fn data_key(hart: &Hart) -> TableKey {
    let mode = hart.data_mode();
    if mode == Mode::M || hart.satp >> 60 == 0 {
        return TableKey { space: 0, asid: 0, class: mode as u8 };
    }
    let modifiers = (hart.mstatus & (mstatus::SUM | mstatus::MXR)) >> 16;
    TableKey {
        space: hart.satp,
        asid: (hart.satp >> 44) as u16,
        class: mode as u8 | modifiers as u8,
    }
}

/// Performs the first of `ops` and, by a tail call, those after it. Returns how many of `ops` have not been
/// completed: zero at the end of the block; after a taken branch, those behind it; after a [`Stop`]
/// (which sets [`Core::stopped`]), the instruction itself and those behind it.
fn perform<I: Instruction<Core>>(core: &mut Core, ops: &[Op]) -> usize {
    let [op, rest @ ..] = ops else { return 0 };
    if I::FLOW == Flow::Branch {
        core.jumped = false;
    }
    if I::perform(core, op.args).is_err() {
        core.stopped = true;
        return ops.len();
    }
    match (I::FLOW, rest) {
        (Flow::End, _) => rest.len(),
        (Flow::Branch, _) if core.jumped => rest.len(),
        (_, [next, ..]) => (next.handler)(core, rest),
        (_, []) => 0,
    }
}

impl Sem for Core {
    type V = u64;
    type Stop = Stop;
    type Handler = Handler;

    fn handler<I: Instruction<Self>>() -> Handler {
        perform::<I>
    }

    #[inline(always)]
    fn imm(&mut self, value: i64) -> u64 {
        value as u64
    }
    #[inline(always)]
    fn x(&mut self, r: u8) -> u64 {
        self.frame.regs[usize::from(r)]
    }
    #[inline(always)]
    fn set_x(&mut self, r: u8, v: u64) {
        self.frame.regs[usize::from(r)] = v;
    }
    #[inline(always)]
    fn pc(&mut self, at: At, offset: i64) -> u64 {
        self.frame.page_va.wrapping_add(at.offset()).wrapping_add(offset as u64)
    }
    #[inline(always)]
    fn bin(&mut self, op: Bin, a: u64, b: u64) -> u64 {
        alu::bin(op, a, b)
    }
    #[inline(always)]
    fn un(&mut self, op: Un, a: u64) -> u64 {
        alu::un(op, a)
    }
    #[inline(always)]
    fn select(&mut self, cond: u64, a: u64, b: u64) -> u64 {
        if cond != 0 { a } else { b }
    }

    #[inline(always)]
    fn jump(&mut self, target: u64) {
        self.frame.next_pc = target & !1;
    }
    #[inline(always)]
    fn jump_by(&mut self, at: At, offset: i64) {
        self.frame.next_pc = self.pc(at, offset);
    }
    #[inline(always)]
    fn branch(&mut self, cond: u64, at: At, offset: i64) {
        if cond != 0 {
            self.frame.next_pc = self.pc(at, offset);
            self.jumped = true;
        }
    }

    #[inline(always)]
    fn load(&mut self, addr: u64, width: Width) -> Result<u64, Stop> {
        let hit = match width {
            Width::Byte => self.tlb.load::<u8>(addr).map(Cell::widen),
            Width::Half => self.tlb.load::<u16>(addr).map(Cell::widen),
            Width::Word => self.tlb.load::<u32>(addr).map(Cell::widen),
            Width::Double => self.tlb.load::<u64>(addr),
        };
        match hit {
            Some(value) => Ok(value),
            None => self.load_slow(addr, width),
        }
    }
    #[inline(always)]
    fn store(&mut self, addr: u64, width: Width, value: u64) -> Result<(), Stop> {
        let hit = match width {
            Width::Byte => self.tlb.store(addr, value as u8),
            Width::Half => self.tlb.store(addr, value as u16),
            Width::Word => self.tlb.store(addr, value as u32),
            Width::Double => self.tlb.store(addr, value),
        };
        if hit { Ok(()) } else { self.store_slow(addr, width, value) }
    }

    fn load_reserved(&mut self, addr: u64, width: Width) -> Result<u64, Stop> {
        self.frame.reserved = 0;
        let (host, gpa, _) = self.atomic_place(addr, width, Access::Load)?;
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let value = host.load(gpa, width);
        self.frame.reserved = reservation_tag(gpa, width);
        self.frame.reserved_value = value;
        Ok(width.sign_extend(value))
    }

    fn store_conditional(&mut self, addr: u64, width: Width, value: u64) -> Result<u64, Stop> {
        let reserved = std::mem::take(&mut self.frame.reserved);
        let (host, gpa, watched) = self.atomic_place(addr, width, Access::Store)?;
        let expected = self.frame.reserved_value;
        if reserved != reservation_tag(gpa, width)
            || host.compare_exchange(gpa, width, expected, value).is_err()
        {
            return Ok(1);
        }
        if watched {
            self.bus.watched_write(gpa, width.bytes());
        }
        Ok(0)
    }

    fn amo(&mut self, op: Amo, addr: u64, width: Width, value: u64) -> Result<u64, Stop> {
        let (host, gpa, watched) = self.atomic_place(addr, width, Access::Store)?;
        let old = if op == Amo::Swap {
            // What locks are taken with: under contention a compare-exchange fetches the line twice.
            host.swap(gpa, width, value)
        } else {
            host.update(gpa, width, |old| alu::amo(op, width, old, value))
        };
        if watched {
            self.bus.watched_write(gpa, width.bytes());
        }
        Ok(width.sign_extend(old))
    }

    fn cbo(&mut self, op: Cbo, addr: u64) -> Result<(), Stop> {
        let field = match op {
            Cbo::Clean | Cbo::Flush => envcfg::CBCFE,
            Cbo::Inval => envcfg::CBIE,
            Cbo::Zero => envcfg::CBZE,
        };
        if !self.env_allows(field) {
            return Err(self.illegal());
        }
        let block = addr & !(CACHE_BLOCK - 1);
        if op == Cbo::Zero {
            if let Some((host, _)) = self.tlb.writable(block) {
                for at in (block..block + CACHE_BLOCK).step_by(8) {
                    host.store(at, Width::Double, 0);
                }
                return Ok(());
            }
            let (page, gpa) = self.store_place(block, CACHE_BLOCK).inspect_err(|_stop| {
                self.trap.tval = addr;
            })?;
            for i in (0..CACHE_BLOCK).step_by(8) {
                page.host.store(gpa + i, Width::Double, 0);
            }
            self.stored(page, gpa, CACHE_BLOCK);
            return self.look_after_store();
        }
        // Memory is coherent, so only the right to reach it matters: either kind of access will do.
        if self.locate(block, CACHE_BLOCK, Access::Load).is_err() {
            self.locate(block, CACHE_BLOCK, Access::Store).inspect_err(|_stop| {
                self.trap.tval = addr;
            })?;
        }
        Ok(())
    }

    fn fence(&mut self, pred: u8, succ: u8) {
        // x86-like hosts reorder a later load before an earlier store, and nothing else; other hosts
        // need the full fence for every combination anyway.
        if (pred, succ) == PAUSE {
            self.bus.relax();
            return;
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }
    fn fence_i(&mut self) {
        self.requests.fence_i = true;
        self.poll = true;
    }

    #[cold]
    fn illegal(&mut self) -> Stop {
        // The instruction's bits are read when the trap is taken.
        self.stop(Trap { cause: Cause::IllegalInstruction, tval: 0 })
    }
    #[inline(always)]
    fn need_fp(&mut self) -> Result<(), Stop> {
        if self.hart.mstatus & mstatus::FS == 0 { Err(self.illegal()) } else { Ok(()) }
    }
    #[inline(always)]
    fn rounding(&mut self, rm: u8) -> Result<(), Stop> {
        let rm = if rm & 7 == 7 { self.hart.frm } else { rm & 7 };
        match Rounding::from_frm(rm) {
            Some(rounding) => {
                self.rounding = rounding;
                Ok(())
            }
            None => Err(self.illegal()),
        }
    }
    #[inline(always)]
    fn f(&mut self, r: u8) -> u64 {
        self.frame.regs[F + usize::from(r & 31)]
    }
    #[inline(always)]
    fn set_f(&mut self, r: u8, v: u64) {
        self.frame.regs[F + usize::from(r & 31)] = v;
        self.mark_fp_dirty();
    }
    fn fp2(&mut self, op: Fp2, fmt: Fmt, a: u64, b: u64) -> u64 {
        let (value, flags) = fpu::fp2(op, fmt, self.rounding, a, b);
        self.accrue(flags);
        value
    }
    fn fp1(&mut self, op: Fp1, fmt: Fmt, a: u64) -> u64 {
        let (value, flags) = fpu::fp1(op, fmt, self.rounding, a);
        self.accrue(flags);
        value
    }
    fn fma(&mut self, fmt: Fmt, a: u64, b: u64, c: u64) -> u64 {
        let (value, flags) = fpu::fma(fmt, self.rounding, a, b, c);
        self.accrue(flags);
        value
    }

    fn csr(&mut self, op: CsrOp, csr: u16, operand: Option<u64>) -> Result<u64, Stop> {
        let outside = Moment { bus: &*self.bus, signals: &self.signals };
        let Ok((old, effects)) = self.hart.csr(op, csr, operand, &outside) else {
            return Err(self.illegal());
        };
        self.follow(effects);
        Ok(old)
    }
    #[cold]
    fn ecall(&mut self) -> Stop {
        let cause = match self.hart.mode {
            Mode::U => Cause::EcallFromU,
            Mode::S => Cause::EcallFromS,
            Mode::M => Cause::EcallFromM,
        };
        self.stop(Trap { cause, tval: 0 })
    }
    #[cold]
    fn ebreak(&mut self, at: At) -> Stop {
        let pc = self.pc(at, 0);
        self.stop(Trap { cause: Cause::Breakpoint, tval: pc })
    }
    fn mret(&mut self) -> Result<(), Stop> {
        if self.hart.mode != Mode::M {
            return Err(self.illegal());
        }
        self.hart.mret();
        self.returned();
        Ok(())
    }
    fn sret(&mut self) -> Result<(), Stop> {
        self.need_supervisor(mstatus::TSR)?;
        self.hart.sret();
        self.returned();
        Ok(())
    }
    fn wfi(&mut self) -> Result<(), Stop> {
        self.need_supervisor(mstatus::TW)?;
        self.hart.waiting = true;
        self.poll = true;
        Ok(())
    }
    fn wrs(&mut self, _timeout: bool) -> Result<(), Stop> {
        // A stall may end at any time (Zawrs, 15.1): let others run and go on.
        if self.frame.reserved != 0 {
            self.bus.relax();
        }
        Ok(())
    }
    fn sfence_vma(&mut self, va: Option<u64>, asid: Option<u64>) -> Result<(), Stop> {
        self.need_supervisor(mstatus::TVM)?;
        let asid = asid.map(|asid| asid as u16);
        self.tlb.flush_matching(asid, va);
        self.walks.flush_matching(asid, va);
        self.requests.fetch_flush = self.requests.fetch_flush.and(Dropped::These { va, asid });
        // More than the manual asks for (Zifencei): xv6 and its like have no FENCE.I, but fence whole address spaces
        // whenever a process goes on, on memory that may have held other code.
        self.requests.fence_i |= va.is_none();
        self.poll = true;
        Ok(())
    }
    fn sfence_order(&mut self) -> Result<(), Stop> {
        self.need_supervisor(0)
    }
}
