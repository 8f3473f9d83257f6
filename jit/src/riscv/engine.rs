//! The translating engine of a hart: cold code is interpreted, hot code translated.
//!
//! The interpreter below holds the state and does whatever is not translated; this file decides which of the two
//! goes on, and answers the calls out of translated code.
#![allow(unsafe_code)] // Enters translated code, and is called back from it by raw pointer.

mod hot;
mod worker;

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mimic_cpu::bus::{CpuBus, PAGE_MASK, PAGE_SIZE, Width};
use mimic_cpu::debug::DebugPoints;
use mimic_cpu::frame::Frame;
use mimic_cpu::riscv::decode::{MAX_BLOCK, insn_len};
use mimic_cpu::riscv::hart::{Hart, Mode};
use mimic_cpu::riscv::insn::At;
use mimic_cpu::riscv::interp::Interp;
use mimic_cpu::riscv::interp::host::{self, CodePage, Dropped, Leave, Site};
use mimic_cpu::run::{Budget, Exit};
use mimic_cpu::signals::Signals;

use self::hot::Hot;
use crate::cache::{CodeCache, Known, MAX_BLOCK_BYTES, Place};
use crate::ir::{Block, Insn, Op};
use crate::jumps::JumpCaches;
use crate::memory::CodePtr;
use crate::options::Tamper;
use crate::perf::PerfMap;
use crate::riscv::lift::{Lifter, ModeKey};
use crate::riscv::sampler::SLICE;
use crate::x64::{self, AtomicSite, CallSite, Calls, Emitted, Emitter, Exit as CodeExit, Thunks};

pub use crate::options::JitOptions;

/// Longer than any block takes to translate: what a clock shows beyond was spent by others, while the host had
/// taken the core away.
const LONGEST: Duration = Duration::from_micros(250);

/// Why there is no translator.
#[derive(Debug, thiserror::Error)]
pub enum JitError {
    /// The host refuses executable memory.
    #[error("the host refuses {kib} KiB of memory for translated code: {source}")]
    CodeMemory {
        /// KiB asked for.
        kib: usize,
        /// The answer.
        source: io::Error,
    },
    /// The map for `perf` cannot be made.
    #[error("the map for perf cannot be made: {0}")]
    PerfMap(io::Error),
}

/// What becomes of a block, for people to read.
#[derive(Clone, Debug)]
pub struct Translation {
    /// Guest physical address of the block's page.
    pub page: u64,
    /// Offset of the block in its page.
    pub offset: u64,
    /// Guest instructions: where they lie, and their words (the low half alone of compressed ones).
    pub insns: Vec<(At, u32)>,
    /// The block as text.
    pub ir: String,
    /// Host code, for address [`Translation::at`].
    pub code: Vec<u8>,
    /// Host address.
    pub at: usize,
    /// For each guest instruction, where its code begins.
    pub map: Vec<u32>,
    /// Where the code out of line begins.
    pub out_of_line: u32,
}

/// Counters of a translator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Blocks translated.
    pub blocks: u64,
    /// Bytes of host code made.
    pub bytes: u64,
    /// Bytes of host code held now.
    pub held: u64,
    /// Links patched.
    pub links: u64,
    /// Guest instructions translated.
    pub insns: u64,
    /// Regions translated.
    pub regions: u64,
    /// Guest instructions in regions.
    pub region_insns: u64,
    /// Times the clock found something executing.
    pub samples: u64,
    /// Time spent in lifting regions beside the guest; it is not part of [`Counters::time`].
    pub background: Duration,
    /// Time spent in translation.
    pub time: Duration,
    /// Segments of code memory emptied to make room.
    pub recycled: u64,
    /// Exits of translated code, by [`ExitCause`].
    pub exits: [u64; 4],
    /// Instructions performed by the interpreter's bodies out of translated code.
    pub performed: u64,
    /// Blocks interpreted.
    pub interpreted: u64,
}

/// Why translated code was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    /// A trap, or something to look at.
    Event = 0,
    /// A link that leads nowhere yet.
    Link = 1,
    /// The jump cache did not know an address.
    Lookup = 2,
    /// A slice was used up.
    Slice = 3,
}

/// What decides where the jump caches lead, in two words: it is made and compared at every trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Context {
    /// `satp`, or 0 in M-mode, of which only the kind of page tables counts with [`Context::GLOBAL`].
    space: u64,
    /// Privilege, [`ModeKey`] and [`Context::GLOBAL`].
    key: u64,
}

impl Context {
    /// Stands for every address space with the same kind of page tables, as far as they agree: only global
    /// mappings lead anywhere here.
    const GLOBAL: u64 = 1 << 16;

    /// The context of the next fetch. Kernels have the same code in every address space, so S-mode has one
    /// context for all of them, unless it was found to execute `private` code.
    #[inline]
    fn of(interp: &Interp, mode: ModeKey, private: bool) -> Self {
        let fetch = interp.fetch_context();
        let key = fetch.mode as u64 | u64::from(mode.fp) << 8;
        if fetch.mode == Mode::S && !private {
            Context { space: fetch.space & SATP_MODE, key: key | Context::GLOBAL }
        } else {
            Context { space: fetch.space, key }
        }
    }

    fn is_global(self) -> bool {
        self.key & Context::GLOBAL != 0
    }

    /// Whether a fence for this ASID, or for all, is about it.
    fn is_of(self, asid: Option<u16>) -> bool {
        asid.is_none_or(|asid| !self.is_global() && (self.space >> 44) as u16 == asid)
    }
}

/// The field of `satp` that says what page tables look like (privileged, 10.1.11).
const SATP_MODE: u64 = 0xf << 60;

/// The translator of one hart.
pub struct Jit {
    interp: Interp,
    jumps: JumpCaches<Context>,
    /// With the instructions that are performed out of translated code; `None` stands for one that crosses into the next
    /// page.
    cache: CodeCache<Option<host::Op>>,
    /// For code without floating point, and with it.
    thunks: [Thunks; 2],
    /// What `Interp::retired` is when translated code must have been left.
    slice_end: u64,
    lifter: Lifter,
    emitter: Emitter,
    options: JitOptions,
    perf: Option<PerfMap>,
    /// The link by which translated code was left, and where it leads: if that is what is entered next.
    pending: Option<(u32, u64)>,
    /// S-mode executes code that is not in every address space.
    private: bool,
    hot: Hot,
    counters: Counters,
}

impl Jit {
    /// Makes a translator that continues from `hart`.
    ///
    /// # Errors
    /// [`JitError`]: the host's.
    pub fn new(
        hart: Hart,
        bus: Arc<dyn CpuBus>,
        signals: Arc<Signals>,
        options: JitOptions,
    ) -> Result<Self, JitError> {
        let interp = Interp::new(hart, bus, signals);
        let context = Context::of(&interp, mode_key(&interp, &options), false);
        let calls = Calls {
            load: call_load as *const () as usize,
            store: call_store as *const () as usize,
            atomic: call_atomic as *const () as usize,
            perform: call_perform as *const () as usize,
        };
        let perf =
            if options.perf_map { Some(PerfMap::open().map_err(JitError::PerfMap)?) } else { None };
        let mut thunks = None;
        let cache = CodeCache::new(options.cache_bytes, |base| {
            let (plain, mut code) = Thunks::emit(base.0, &calls, false);
            let (with_fp, more) = Thunks::emit(base.0 + code.len(), &calls, true);
            code.extend(more);
            if let Some(perf) = perf {
                perf.add(base, code.len(), "mimic thunks");
            }
            thunks = Some([plain, with_fp]);
            code
        })
        .map_err(|source| JitError::CodeMemory { kib: options.cache_bytes >> 10, source })?;
        let hot = Hot::new(options.samples);
        let mut emitter = Emitter::new();
        emitter.group_checks(options.groups);
        let mut jit = Jit {
            interp,
            jumps: JumpCaches::new(context),
            cache,
            thunks: thunks.unwrap_or_else(|| unreachable!("the cache calls for its fixed code")),
            slice_end: 0,
            lifter: Lifter::new(options.passes, x64::supports),
            emitter,
            options,
            perf,
            pending: None,
            private: false,
            hot,
            counters: Counters::default(),
        };
        jit.interp.frame().mxcsr = x64::MXCSR_PLAIN;
        Ok(jit)
    }

    /// The hart's canonical state.
    #[must_use]
    pub fn hart(&self) -> Hart {
        self.interp.hart()
    }

    /// The interpreter underneath.
    #[must_use]
    pub fn interp(&self) -> &Interp {
        &self.interp
    }

    /// Continues from `hart`, which has been changed from outside.
    pub fn load(&mut self, hart: Hart) {
        self.pending = None;
        self.interp.load(hart);
    }

    /// Sets where to stop: with points, everything is interpreted.
    pub fn set_debug(&mut self, points: DebugPoints) {
        self.interp.set_debug(points);
    }

    /// Counters since the translator was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let cache = self.cache.counters();
        Counters {
            blocks: cache.blocks - self.counters.regions,
            bytes: cache.bytes,
            links: cache.links,
            held: self.cache.bytes_used() as u64,
            recycled: cache.recycled,
            ..self.counters
        }
    }

    /// Runs until the budget is used up, the hart waits, somebody kicks it, or a point is reached.
    pub fn run(&mut self, budget: Budget) -> Exit {
        if self.interp.has_points() {
            self.pending = None;
            return self.interp.run(budget);
        }
        let limit =
            budget.insns.map_or(u64::MAX, |insns| self.interp.retired().saturating_add(insns));
        self.interp.call();
        loop {
            if let Some(exit) = self.interp.attend_if_called() {
                return exit;
            }
            let retired = self.interp.retired();
            if retired >= limit {
                return Exit::Budget;
            }
            self.follow();
            let slice = if self.options.regions { self.hot.sampler.slice(retired) } else { SLICE };
            self.go_on(limit, (limit - retired).min(slice));
        }
    }

    /// Follows what has changed about fetching.
    #[inline]
    fn follow(&mut self) {
        if let Dropped::These { va, asid } = self.interp.take_dropped() {
            self.pending = None;
            match (va, asid) {
                (None, None) => self.jumps.drop_all(),
                (va, asid) => self.jumps.drop_matching(va, |context| context.is_of(asid)),
            }
        }
        for page in self.interp.take_removed() {
            self.pending = None;
            self.hot.forget(page);
            for va in self.cache.forget(page) {
                self.jumps.drop_matching(Some(va), |_| true);
            }
        }
        if self.jumps.select(self.context()) {
            self.pending = None;
        }
    }

    fn context(&self) -> Context {
        Context::of(&self.interp, self.mode_key(), self.private)
    }

    /// Runs translated code for at most `insns` instructions, or interprets a block.
    fn go_on(&mut self, limit: u64, insns: u64) {
        // A block is entered only if the longest would fit: the interpreter does the rest, to the instruction.
        if insns < MAX_BLOCK as u64 {
            self.pending = None;
            self.interpret(limit);
            return;
        }
        let pc = self.interp.frame().next_pc;
        if self.observe(limit) {
            self.pending = None;
            return;
        }
        let code = match self.jumps.lookup(pc) {
            Some(code) => code,
            None => {
                let Some(page) = self.interp.code_page() else {
                    self.pending = None;
                    return;
                };
                // Nothing is global where addresses are not translated, and everything is.
                let context = self.context();
                if context.is_global() && !page.global && context.space != 0 {
                    self.private = true;
                    self.jumps.select(self.context());
                }
                let Some(code) = self.code_at(page, (pc & PAGE_MASK) as u16) else {
                    self.pending = None;
                    self.interpret(limit);
                    return;
                };
                if self.options.jumps {
                    self.jumps.insert(pc, code);
                    self.cache.note_address(page.index, page.version, pc);
                }
                code
            }
        };
        if self.interp.is_called() {
            // While this hart waited for others to translate, they may have asked for something.
            return;
        }
        if let Some((link, target)) = self.pending.take()
            && target == pc
            && self.options.links
        {
            self.cache.patch(link, code);
        }
        self.interp.frame().page_va = pc & !PAGE_MASK;
        // Where blocks are to come back, one that leads to itself must, too.
        let alone = !self.options.links && !self.options.jumps;
        let insns = if alone { MAX_BLOCK as u64 } else { insns };
        self.enter(code, insns);
    }

    fn mode_key(&self) -> ModeKey {
        mode_key(&self.interp, &self.options)
    }

    fn interpret(&mut self, limit: u64) {
        self.counters.interpreted += 1;
        self.interp.interpret(limit);
    }

    /// The translation of the code at `offset` of `page`, made now if it is worth it.
    fn code_at(&mut self, page: CodePage, offset: u16) -> Option<CodePtr> {
        let mode = self.mode_key();
        let place = Place { page: page.index, version: page.version, mode: mode.index(), offset };
        match self.cache.find(place) {
            Known::Code(code) => Some(code),
            Known::Never => None,
            Known::Cold(times) if times <= self.options.threshold => None,
            Known::Cold(_) => self.translate(page, place, mode),
        }
    }

    #[cold]
    fn translate(&mut self, page: CodePage, place: Place, mode: ModeKey) -> Option<CodePtr> {
        let started = Instant::now();
        self.interp.watch_code();
        let thunks = &self.thunks[usize::from(mode.fp)];
        let tools = (&mut self.lifter, &mut self.emitter, thunks);
        let room_now = room(&self.cache);
        let emitted = lower(tools, &self.interp, place.offset, mode, room_now, self.options.tamper)
            .filter(|(_, emitted)| emitted.code.len() <= MAX_BLOCK_BYTES);
        let Some((block, mut emitted)) = emitted else {
            self.cache.give_up(place);
            return None;
        };
        if self.cache.make_room(emitted.code.len()) {
            self.pending = None;
            self.jumps.drop_all();
            // Once more, for its new place.
            emitted = self.emitter.emit(&block, room(&self.cache), thunks).ok()?;
        }
        let links =
            emitted.links.iter().map(|link| (link.rel32_offset as usize, link.target as u16));
        let interp = &self.interp;
        let payloads = emitted.performs.iter().map(|&index| {
            let Insn { at, word, .. } = block.insns[index as usize];
            (!crosses(at)).then(|| interp.prepare(word, at.offset()))
        });
        let entries = [(place.offset, 0)].into_iter();
        let code = self.cache.insert(place, emitted.code, entries, links, payloads);
        if let Some(perf) = self.perf {
            let (pc, offset) = (self.interp.position().0, u64::from(place.offset));
            let name = format!("guest pc {pc:#x} physical {:#x}", page.gpa + offset);
            perf.add(code, emitted.code.len(), &name);
        }
        self.counters.insns += block.insns.len() as u64;
        self.counters.time += started.elapsed().min(LONGEST);
        Some(code)
    }

    /// What the code at the program counter becomes now. The engine may have stepped on where that cannot be said.
    pub fn translation(&mut self) -> Option<Translation> {
        let offset = (self.interp.frame().next_pc & PAGE_MASK) as u16;
        let page = self.interp.code_page()?;
        self.interp.watch_code();
        let at = self.cache.next().0;
        let room = x64::Place {
            at,
            first_link: self.cache.next_link(),
            first_perform: self.cache.next_payload(),
        };
        let mode = self.mode_key();
        let place = Place { page: page.index, version: page.version, mode: mode.index(), offset };
        if let Some(region) = self.region_at(place, mode) {
            return self.region_translation(page, mode, &region, room);
        }
        let tools = (&mut self.lifter, &mut self.emitter, &self.thunks[usize::from(mode.fp)]);
        let (block, emitted) = lower(tools, &self.interp, offset, mode, room, self.options.tamper)?;
        Some(Translation {
            page: page.gpa,
            offset: offset.into(),
            insns: block.insns.iter().map(|insn| (insn.at, insn.word)).collect(),
            ir: block.to_string(),
            code: emitted.code.to_vec(),
            at,
            map: emitted.map.to_vec(),
            out_of_line: emitted.out_of_line,
        })
    }

    /// Enters translated code for `insns` instructions and settles how it was left.
    fn enter(&mut self, code: CodePtr, insns: u64) {
        self.slice_end = self.interp.retired() + insns;
        self.interp.publish_tlb();
        self.interp.start_count(insns - MAX_BLOCK as u64);
        let jumps = self.jumps.address();
        let thunk = self.thunks[usize::from(self.mode_key().fp)].enter;
        let engine: *mut Jit = self;
        // SAFETY: `engine` is valid and this function uses nothing else until translated code is left. `enter` is the
        // entry made by `Thunks`, `code` was made by the emitter for this frame's layout and lies in this engine's
        // code memory; calls out of it get `engine` and nobody else uses the engine meanwhile.
        let exit = unsafe {
            let frame: *mut Frame = (*engine).interp.frame();
            (*frame).engine = engine.expose_provenance();
            (*frame).jumps = jumps;
            (*frame).leave = 0;
            let regs = frame.cast::<u8>().add(Frame::WORDS_BYTES);
            let enter: extern "sysv64" fn(*mut u8, usize) -> u64 =
                std::mem::transmute(std::ptr::with_exposed_provenance::<u8>(thunk));
            CodeExit::decode(enter(regs, code.0))
        };
        let frame = self.interp.frame();
        let page_va = frame.page_va;
        self.hot.sampler.ran_out = frame.counter < 0 && exit != CodeExit::Left;
        match exit {
            CodeExit::Left => self.counters.exits[ExitCause::Event as usize] += 1,
            CodeExit::Link(link) => {
                let target = page_va.wrapping_add(u64::from(self.cache.link_target(link)));
                self.interp.frame().next_pc = target;
                self.pending = Some((link, target));
                self.counters.exits[ExitCause::Link as usize] += 1;
            }
            CodeExit::Lookup => self.counters.exits[ExitCause::Lookup as usize] += 1,
            CodeExit::Attend(offset) => {
                frame.next_pc = page_va.wrapping_add(u64::from(offset));
                self.interp.call();
                self.counters.exits[ExitCause::Event as usize] += 1;
            }
            CodeExit::Budget(offset) => {
                frame.next_pc = page_va.wrapping_add(u64::from(offset));
                self.counters.exits[ExitCause::Slice as usize] += 1;
            }
        }
        self.fold_fp();
        self.interp.end_count();
    }

    /// A call out has ended the code that it comes from: there was a trap, or something to look at. Says where to go
    /// on: at the next block, if its code is known, or outside.
    fn leave(&mut self) {
        let left = self.thunks[0].left;
        let to = self.resume().map(|code| {
            self.interp.frame().resume = code.0;
            self.thunks[usize::from(self.mode_key().fp)].resume
        });
        self.interp.frame().leave = to.unwrap_or(left);
    }

    /// The translated code that goes on in the same slice, if nothing else is to be done.
    fn resume(&mut self) -> Option<CodePtr> {
        self.fold_fp();
        if !self.interp.goes_on() {
            return None;
        }
        let left = self.slice_end.checked_sub(self.interp.retired() + MAX_BLOCK as u64)?;
        self.follow();
        let pc = self.interp.frame().next_pc;
        let code = self.jumps.lookup(pc)?;
        let jumps = self.jumps.address();
        self.interp.publish_tlb();
        self.interp.start_count(left);
        let frame = self.interp.frame();
        frame.page_va = pc & !PAGE_MASK;
        frame.jumps = jumps;
        Some(code)
    }

    /// Brings what translated code knows of floating point into the canonical state.
    fn fold_fp(&mut self) {
        let frame = self.interp.frame();
        let raised = std::mem::replace(&mut frame.mxcsr, x64::MXCSR_PLAIN);
        let dirty = std::mem::take(&mut frame.fp_dirty) != 0;
        self.interp.fold_fp(x64::fflags(raised), dirty);
    }
}

/// Makes host code of the block at `offset` of the page that `interp` watches.
fn lower<'l, 'e>(
    (lifter, emitter, thunks): (&'l mut Lifter, &'e mut Emitter, &Thunks),
    interp: &Interp,
    offset: u16,
    mode: ModeKey,
    room: x64::Place,
    tamper: Option<Tamper>,
) -> Option<(Cow<'l, Block>, Emitted<'e>)> {
    let fetch = |at: u64| interp.code_half(at);
    let start = u64::from(offset);
    let mut block = match lifter.lift_block(fetch, start, mode) {
        Some(block) => Cow::Borrowed(block),
        None => Cow::Owned(crossing(start, fetch(start))),
    };
    if let Some(Tamper(tamper)) = tamper {
        tamper(block.to_mut());
    }
    let emitted = emitter.emit(&block, room, thunks).ok()?;
    Some((block, emitted))
}

/// Whether an instruction crosses into the next page.
fn crosses(at: At) -> bool {
    at.offset() + at.bytes() > PAGE_SIZE
}

/// The block of an instruction that crosses into the next page: what it is, is seen each time.
fn crossing(start: u64, low: u16) -> Block {
    let at = At::new(start, insn_len(low.into()));
    let insn = Insn { at, word: low.into(), first: 0 };
    Block {
        start,
        insns: vec![insn],
        ops: vec![Op::Perform, Op::Goto((start + at.bytes()) as i64)],
    }
}

/// Where the next block's code will lie, unless room must be made for it.
fn room(cache: &CodeCache<Option<host::Op>>) -> x64::Place {
    x64::Place {
        at: cache.next().0,
        first_link: cache.next_link(),
        first_perform: cache.next_payload(),
    }
}

fn mode_key(interp: &Interp, options: &JitOptions) -> ModeKey {
    ModeKey { fp: options.fp && interp.fp_is_plain(), mode: interp.mode() }
}

fn site(packed: u32) -> (Site, Width) {
    let CallSite { at, width, done } = CallSite::decode(packed);
    (Site { at, done }, width)
}

/// # Safety
/// `engine` is what `Jit::enter` put into the frame, and translated code is running.
unsafe extern "sysv64" fn call_load(engine: *mut Jit, va: u64, packed: u32) -> u64 {
    // SAFETY: see above; nothing else borrows the engine meanwhile.
    let jit = unsafe { &mut *engine };
    let (site, width) = site(packed);
    match jit.interp.load_for(site, va, width) {
        Ok(value) => value,
        Err(Leave) => {
            jit.leave();
            0
        }
    }
}

/// # Safety
/// As [`call_load`].
unsafe extern "sysv64" fn call_store(engine: *mut Jit, va: u64, packed: u32, value: u64) {
    // SAFETY: see above; nothing else borrows the engine meanwhile.
    let jit = unsafe { &mut *engine };
    let (site, width) = site(packed);
    if jit.interp.store_for(site, va, width, value) == Err(Leave) {
        jit.leave();
    }
}

/// # Safety
/// As [`call_load`].
unsafe extern "sysv64" fn call_atomic(engine: *mut Jit, va: u64, packed: u64, value: u64) -> u64 {
    // SAFETY: see above; nothing else borrows the engine meanwhile.
    let jit = unsafe { &mut *engine };
    let Some(AtomicSite { op, .. }) = AtomicSite::decode(packed) else {
        unreachable!("translated code passes what the emitter has made")
    };
    let (site, width) = site(packed as u32);
    match jit.interp.atomic_for(site, op, va, width, value) {
        Ok(value) => value,
        Err(Leave) => {
            jit.leave();
            0
        }
    }
}

/// # Safety
/// As [`call_load`].
unsafe extern "sysv64" fn call_perform(engine: *mut Jit, name: u32, packed: u32) {
    // SAFETY: see above; nothing else borrows the engine meanwhile.
    let jit = unsafe { &mut *engine };
    jit.fold_fp();
    jit.counters.performed += 1;
    let (site, _) = site(packed);
    let done = match *jit.cache.payload(name) {
        Some(op) => jit.interp.perform_for(site, &op),
        None => Err(jit.interp.cross_for(site)),
    };
    if done == Err(Leave) {
        jit.leave();
    }
}
