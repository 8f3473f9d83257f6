//! Runs emitted code: executable memory, a frame, a TLB, and an engine's calls.
#![allow(unsafe_code)] // Emitted code is run.

use mimic_cpu::bus::Width;
use mimic_cpu::frame::{Frame, reservation_tag};
use mimic_cpu::riscv::alu;
use mimic_cpu::riscv::interp::host::Word;
use mimic_cpu::riscv::sem::Atomic;
use mimic_cpu::softfloat::Flags;

use crate::ir::eval::{Evaluation, Left, Memory, State};
use crate::ir::region::{Part, Region};
use crate::ir::{Block, Op};
use crate::memory::{CodeMemory, CodePtr};
use crate::x64::{
    AtomicSite, CallSite, Calls, Emitter, Exit, HostFeatures, JUMPS_LEN, LinkSite, Place, Thunks,
};

/// Virtual addresses of the memory: four pages. The TLB may know the first for loads and stores and the second for
/// loads; the fourth faults.
pub(super) const MEMORY: u64 = 0x7fff_f000;
pub(super) const MEMORY_LEN: usize = 4 * 4096;
pub(super) const PAGE_VA: u64 = 0xffff_ffc0_1234_5000;
const ENTRIES: usize = 16;
const MAX_BLOCK_BYTES: usize = 48 << 10;
/// MXCSR without sticky flags.
const MXCSR: u32 = 0x1f80;
/// The sticky flag of denormal operands, which means nothing here.
const DENORMAL: u32 = 2;

/// The sticky flags of MXCSR (Intel SDM volume 1, 10.2.3) for those of RISC-V (unprivileged, 21.2).
fn sticky(flags: Flags) -> u32 {
    [
        (Flags::INVALID, 0),
        (Flags::DIV_BY_ZERO, 2),
        (Flags::OVERFLOW, 3),
        (Flags::UNDERFLOW, 4),
        (Flags::INEXACT, 5),
    ]
    .into_iter()
    .map(|(flag, bit)| u32::from(flags.contains(flag)) << bit)
    .sum()
}

/// What is raised of RISC-V's flags where MXCSR has these.
fn raised(mxcsr: u32) -> Flags {
    Flags::all().iter().filter(|&flag| mxcsr & sticky(flag) != 0).collect()
}

/// What calls out of translated code act on.
#[derive(Clone)]
pub(super) struct Engine {
    pub(super) memory: Vec<u8>,
    /// The instruction words behind the numbers that `perform` gets.
    words: Vec<u32>,
    /// Calls, for tests that look at them.
    pub(super) sites: Vec<CallSite>,
    /// The guest's sticky flags in MXCSR at the beginning.
    pub(super) sticky: u32,
    /// They may be cleared meanwhile.
    forgets_flags: bool,
    /// The reservation, as the frame holds it: tag and value.
    pub(super) reserved: [u64; 2],
    /// Words of the hart's state, by their numbers, and the levels of its interrupt lines.
    pub(super) state: [u64; WORDS.len()],
    pub(super) lines: u64,
    /// The thunk that leaves.
    left: usize,
    frame: *mut Frame,
    tlb: Vec<[u64; 4]>,
}

/// Guest physical address of a page.
fn physical(page: u64) -> u64 {
    page ^ 0x1_2345_6000
}

impl Engine {
    /// What a call out puts into the frame.
    fn left_if(&self, leaves: bool) -> usize {
        if leaves { self.left } else { 0 }
    }

    /// Enters into the TLB what it may know of a page.
    fn fill(&mut self, va: u64) {
        let page = va & !4095;
        let (read, write) = match page.wrapping_sub(MEMORY) {
            0 => (page, page),
            4096 => (page, 0xfff),
            _ => return,
        };
        let host = self.memory.as_ptr() as u64 + 2 * (page - MEMORY);
        self.tlb[(page >> 12) as usize % ENTRIES] =
            [read, write, host.wrapping_sub(page), physical(page)];
    }
}

/// Where a byte of the memory is kept. Pages lie apart, so that nothing of the next page is found behind one.
fn index(va: u64) -> Result<usize, ()> {
    let offset = va.wrapping_sub(MEMORY) as usize;
    if offset < MEMORY_LEN - 4096 { Ok(offset + (offset & !4095)) } else { Err(()) }
}

impl Memory for Engine {
    type Fault = ();

    fn load(&mut self, va: u64, width: Width) -> Result<u64, ()> {
        (0..width.bytes()).try_fold(0, |value, i| {
            Ok(value | u64::from(self.memory[index(va.wrapping_add(i))?]) << (8 * i))
        })
    }

    fn store(&mut self, va: u64, width: Width, value: u64) -> Result<(), ()> {
        index(va.wrapping_add(width.bytes() - 1))?;
        for i in 0..width.bytes() {
            let at = index(va.wrapping_add(i))?;
            self.memory[at] = (value >> (8 * i)) as u8;
        }
        Ok(())
    }

    fn atomic(&mut self, op: Atomic, va: u64, width: Width, value: u64) -> Result<u64, ()> {
        self.do_atomic(op, va, width, value)
    }
}

pub(super) const WORDS: [Word; 17] = [
    Word::Mstatus,
    Word::Fflags,
    Word::Menvcfg,
    Word::Senvcfg,
    Word::Mie,
    Word::Mip,
    Word::Timer,
    Word::Mtvec,
    Word::Mscratch,
    Word::Mepc,
    Word::Mcause,
    Word::Mtval,
    Word::Stvec,
    Word::Sscratch,
    Word::Sepc,
    Word::Scause,
    Word::Stval,
];

impl State for Engine {
    fn word(&mut self, word: Word) -> u64 {
        self.state[word as usize]
    }

    fn set_word(&mut self, word: Word, value: u64) {
        self.state[word as usize] = value;
    }

    fn may_be_interrupted(&mut self) -> bool {
        let pending = self.lines | self.word(Word::Mip) | self.word(Word::Timer);
        self.word(Word::Mstatus) & 2 != 0 && pending & self.word(Word::Mie) != 0
    }
}

/// A frame in the midst of memory where words of a hart's state may lie.
#[repr(C)]
pub(super) struct Surroundings {
    before: [u64; ROOM],
    frame: Frame,
    after: [u64; ROOM],
}

const ROOM: usize = 4096;

impl std::ops::Deref for Surroundings {
    type Target = Frame;

    fn deref(&self) -> &Frame {
        &self.frame
    }
}

impl std::ops::DerefMut for Surroundings {
    fn deref_mut(&mut self) -> &mut Frame {
        &mut self.frame
    }
}

impl Surroundings {
    /// Where a word lies: among the words of memory, and its first bit and its mask there.
    fn place(&mut self, word: Word) -> (&mut u64, i32, u64) {
        let offset = word.offset() + Frame::WORDS_BYTES as i32;
        let place = match offset.div_euclid(8) - (size_of::<Frame>() / 8) as i32 {
            after @ 0.. => &mut self.after[after as usize],
            _ => &mut self.before[(ROOM as i32 + offset.div_euclid(8)) as usize],
        };
        let mask = if word == Word::Fflags { 0xff } else { u64::MAX };
        let bit = 8 * offset.rem_euclid(8);
        assert!(bit == 0 || mask == 0xff);
        (place, bit, mask)
    }

    fn word(&mut self, word: Word) -> u64 {
        let (place, bit, mask) = self.place(word);
        *place >> bit & mask
    }

    fn set_word(&mut self, word: Word, value: u64) {
        let (place, bit, mask) = self.place(word);
        *place = *place & !(mask << bit) | (value & mask) << bit;
    }
}

/// What an atomic operation may reach: all but the last page, and the second not by stores.
fn atomic_index(va: u64, width: Width, stores: bool) -> Result<usize, ()> {
    let page = va.wrapping_sub(MEMORY) / 4096;
    if va & (width.bytes() - 1) != 0 || page == 1 && stores { Err(()) } else { index(va) }
}

impl Engine {
    fn do_atomic(&mut self, op: Atomic, va: u64, width: Width, value: u64) -> Result<u64, ()> {
        if op == Atomic::ZeroBlock {
            let block = va & !63;
            if value == 0 || (block.wrapping_sub(MEMORY)) / 4096 == 1 {
                return Err(());
            }
            index(block)?;
            for offset in (0..64).step_by(8) {
                Memory::store(self, block + offset, Width::Double, 0)?;
            }
            return Ok(0);
        }
        let reserved = match op {
            Atomic::LoadReserved | Atomic::StoreConditional => {
                std::mem::take(&mut self.reserved[0])
            }
            Atomic::Amo(_) | Atomic::ZeroBlock => 0,
        };
        atomic_index(va, width, op != Atomic::LoadReserved)?;
        let old = Memory::load(self, va, width)?;
        let tag = reservation_tag(physical(va & !4095) | va & 4095, width);
        match op {
            Atomic::LoadReserved => {
                self.reserved = [tag, old];
                Ok(width.sign_extend(old))
            }
            Atomic::StoreConditional => {
                let holds = reserved == tag && self.reserved[1] == old;
                if holds {
                    Memory::store(self, va, width, value)?;
                }
                Ok(u64::from(!holds))
            }
            Atomic::Amo(amo) => {
                Memory::store(self, va, width, alu::amo(amo, width, old, value))?;
                Ok(width.sign_extend(old))
            }
            Atomic::ZeroBlock => Ok(0),
        }
    }
}

/// Performs an instruction that has no operations: changes registers, some with homes and some without. Whether
/// the block goes on: after every fourth instruction word it does not.
fn perform_word(word: u32, regs: &mut [u64; 256]) -> bool {
    for (k, slot) in [1usize, 5, 10, 16, 31, 64, 70, 74, 80].into_iter().enumerate() {
        regs[slot] = regs[slot].rotate_left(word % 64) ^ regs[10 + k] ^ u64::from(word);
    }
    word >> 7 & 3 != 3
}

/// Fills every register that a called function may change.
fn clobber() {
    // SAFETY: every register that is written is declared.
    unsafe {
        std::arch::asm!(
            "mov rdi, -1", "mov rsi, -2", "mov r8, -3", "mov r9, -4", "mov r10, -5", "mov r11, -6",
            "mov rax, -7", "mov rcx, -8", "mov rdx, -9",
            "pcmpeqd xmm0, xmm0", "pcmpeqd xmm1, xmm1", "pcmpeqd xmm2, xmm2", "pcmpeqd xmm3, xmm3",
            "pcmpeqd xmm4, xmm4", "pcmpeqd xmm5, xmm5", "pcmpeqd xmm6, xmm6", "pcmpeqd xmm7, xmm7",
            "pcmpeqd xmm8, xmm8", "pcmpeqd xmm9, xmm9", "pcmpeqd xmm10, xmm10",
            "pcmpeqd xmm11, xmm11", "pcmpeqd xmm12, xmm12", "pcmpeqd xmm13, xmm13",
            "pcmpeqd xmm14, xmm14", "pcmpeqd xmm15, xmm15",
            out("rdi") _, out("rsi") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("rax") _, out("rcx") _, out("rdx") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
            out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
            out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
            out("xmm15") _,
        );
    }
}

fn mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores 4 bytes into `value`.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value) };
    value
}

fn forgets_flags(block: &Block) -> bool {
    block.ops.iter().any(|op| matches!(op, Op::SetWord(Word::Fflags, _)))
}

/// What every call out finds and leaves.
fn called(engine: &mut Engine, site: u32) {
    assert_eq!(mxcsr() & !0x3f, MXCSR, "calls run with the host's MXCSR");
    // SAFETY: the frame outlives the run; nobody else uses it during a call.
    let guest = unsafe { (*engine.frame).mxcsr };
    assert_eq!(guest & !0x3f, MXCSR);
    assert!(guest & engine.sticky == engine.sticky || engine.forgets_flags);
    // SAFETY: stores nothing, and leaves sticky flags that nobody looks at here.
    unsafe { std::arch::asm!("divss {0}, {0}", in(xmm_reg) 0.0f32) };
    engine.sites.push(CallSite::decode(site));
}

extern "sysv64" fn load(engine: &mut Engine, va: u64, site: u32) -> u64 {
    called(engine, site);
    let value = Memory::load(engine, va, CallSite::decode(site).width);
    engine.fill(va);
    // SAFETY: as in `called`.
    unsafe { (*engine.frame).leave = engine.left_if(value.is_err()) };
    clobber();
    value.unwrap_or(0xdead)
}

extern "sysv64" fn store(engine: &mut Engine, va: u64, site: u32, value: u64) {
    called(engine, site);
    let done = Memory::store(engine, va, CallSite::decode(site).width, value);
    engine.fill(va);
    // SAFETY: as in `called`.
    unsafe { (*engine.frame).leave = engine.left_if(done.is_err()) };
    clobber();
}

extern "sysv64" fn atomic(engine: &mut Engine, va: u64, site: u64, value: u64) -> u64 {
    called(engine, site as u32);
    let AtomicSite { op, site } = AtomicSite::decode(site).expect("an operation");
    // SAFETY: as in `called`.
    let frame = unsafe { &mut *engine.frame };
    engine.reserved = [frame.reserved, frame.reserved_value];
    let result = engine.do_atomic(op, va, site.width, value);
    [frame.reserved, frame.reserved_value] = engine.reserved;
    engine.fill(va);
    frame.leave = engine.left_if(result.is_err());
    clobber();
    result.unwrap_or(0xdead)
}

extern "sysv64" fn perform(engine: &mut Engine, index: u32, site: u32) {
    called(engine, site);
    let word = engine.words[index as usize];
    // SAFETY: as in `called`.
    let frame = unsafe { &mut *engine.frame };
    frame.leave = engine.left_if(!perform_word(word, &mut frame.regs));
    clobber();
}

/// Everything to run blocks.
pub(super) struct Machine {
    memory: CodeMemory,
    /// The last block's code, and its links.
    code: CodePtr,
    links: Vec<LinkSite>,
    pub(super) thunks: Thunks,
    pub(super) emitter: Emitter,
    pub(super) frame: Box<Surroundings>,
    /// The TLB knows nothing at the beginning of a run.
    pub(super) cold: bool,
    jumps: Vec<[u64; 2]>,
    pub(super) engine: Box<Engine>,
}

impl Machine {
    pub(super) fn new() -> Self {
        let mut memory = CodeMemory::new(0).unwrap();
        let calls = Calls {
            load: load as *const () as usize,
            store: store as *const () as usize,
            atomic: atomic as *const () as usize,
            perform: perform as *const () as usize,
        };
        let (thunks, code) = Thunks::emit(memory.fixed_base().0, &calls, true);
        memory.set_fixed(&code);
        Machine {
            code: memory.fixed_base(),
            links: Vec::new(),
            memory,
            thunks,
            emitter: Emitter::new(),
            frame: Box::new(Surroundings {
                before: [0; ROOM],
                frame: Frame::new(),
                after: [0; ROOM],
            }),
            cold: false,
            jumps: vec![[1, 0]; JUMPS_LEN],
            engine: Box::new(Engine {
                memory: vec![0xaa; 2 * MEMORY_LEN],
                words: Vec::new(),
                sites: Vec::new(),
                sticky: 0x20,
                forgets_flags: false,
                reserved: [0, 0],
                state: [0; WORDS.len()],
                lines: 0,
                left: thunks.left,
                frame: std::ptr::null_mut(),
                tlb: vec![[0xfff; 4]; ENTRIES],
            }),
        }
    }

    /// A machine whose emitter does without what not every host has.
    pub(super) fn plain() -> Self {
        let mut machine = Self::new();
        machine.emitter.features =
            HostFeatures { bmi1: false, bmi2: false, ..HostFeatures::detect() };
        machine
    }

    /// Runs a block from its beginning, with the frame's registers.
    pub(super) fn run(&mut self, block: &Block) -> Exit {
        self.memory.reserve(MAX_BLOCK_BYTES);
        let place = Place { at: self.memory.next().0, first_link: 100, first_perform: 7 };
        let emitted = self
            .emitter
            .emit(block, place, &self.thunks)
            .unwrap_or_else(|_| panic!("refused {block:?}"));
        self.code = self.memory.push(emitted.code);
        self.links = emitted.links.to_vec();
        self.engine.words = vec![0; 7];
        for &insn in emitted.performs {
            self.engine.words.push(block.insns[insn as usize].word);
        }
        self.again()
    }

    /// Runs a region from one of its entries on, with the frame's registers and counter.
    fn run_region(&mut self, region: &Region, entry: usize) -> Exit {
        self.memory.reserve(MAX_BLOCK_BYTES);
        let place = Place { at: self.memory.next().0, first_link: 100, first_perform: 7 };
        let emitted = self
            .emitter
            .emit_region(region, place, &self.thunks)
            .unwrap_or_else(|_| panic!("refused {region:?}"));
        let entries: Vec<_> = emitted.entries.iter().map(|entry| entry.offset).collect();
        let expected = region.parts.iter().filter(|part| part.entry).map(|part| part.block.start);
        assert!(expected.eq(entries));
        let entry = emitted.entries[entry].at as usize;
        let code = self.memory.push(emitted.code);
        self.code = CodePtr(code.0 + entry);
        self.links = emitted.links.to_vec();
        self.engine.words = vec![0; 7];
        let insns: Vec<_> = region.parts.iter().flat_map(|part| &part.block.insns).collect();
        assert_eq!(emitted.map.len(), insns.len());
        assert!(emitted.map.is_sorted() && emitted.map.last() <= Some(&emitted.out_of_line));
        for &insn in emitted.performs {
            self.engine.words.push(insns[insn as usize].word);
        }
        self.again()
    }

    /// Runs a region both ways from its entry of this number on, and compares everything that can be seen. How many
    /// instructions it has done.
    pub(super) fn compare_region(
        &mut self,
        region: &Region,
        entry: usize,
        regs: &[u64; 256],
        counter: i64,
    ) -> i64 {
        let mut engine = (*self.engine).clone();
        let mut expected = *regs;
        self.frame.regs = *regs;
        self.frame.counter = counter;
        self.engine.forgets_flags = region.parts.iter().any(|part| forgets_flags(&part.block));
        let exit = self.run_region(region, entry);
        let show = |what: &str| format!("{what}\n{region:#x?}");
        let part_at =
            |offset: i64| region.parts.iter().find(|part| part.block.start as i64 == offset);
        let mut part: &Part = region.parts.iter().filter(|part| part.entry).nth(entry).unwrap();
        let mut flags = raised(self.engine.sticky);
        let mut dirty = false;
        let mut done = 0;
        loop {
            // Where the group of a leader does not fit, a part is left for one of its own instructions.
            let mut block = part.block.clone();
            let left = counter - self.frame.counter - done;
            if let Exit::Link(id) = exit
                && let target = self.links[id as usize - 100].target
                && let Some(insn) = block.insns.get(left as usize)
                && left > 0
                && insn.at.offset() as i64 == target
            {
                block.ops.truncate(insn.first as usize);
                block.insns.truncate(left as usize);
                block.ops.push(Op::Goto(target));
            }
            let mut evaluation = Evaluation::default();
            evaluation.flags = flags;
            let left = loop {
                match evaluation.run(&block, &mut expected, PAGE_VA, &mut engine) {
                    Left::Perform => {
                        if !perform_word(block.insns[evaluation.insn].word, &mut expected) {
                            break Left::Fault(());
                        }
                    }
                    Left::Instead => {
                        if !perform_word(block.insns[evaluation.insn].word, &mut expected) {
                            break Left::Fault(());
                        }
                        let at = block.insns[evaluation.insn].at;
                        break Left::To(PAGE_VA + at.offset() + at.bytes());
                    }
                    left => break left,
                }
            };
            flags = evaluation.flags;
            dirty |= evaluation.fp_dirty;
            let Left::To(va) = left else {
                assert_eq!(exit, Exit::Left, "{}", show("exit"));
                let site = self.engine.sites.last().expect("a call");
                assert_eq!(site.done as usize, evaluation.insn);
                assert_eq!(site.at, block.insns[evaluation.insn].at);
                break;
            };
            done += evaluation.insn as i64 + 1;
            let offset = va.wrapping_sub(PAGE_VA) as i64;
            if exit == Exit::Attend(offset as u32) && self.frame.counter == counter - done {
                assert!(engine.may_be_interrupted());
                break;
            }
            // Jumps to an address are not followed inside.
            let jumps =
                matches!(block.ops.last(), Some(Op::Jump(_))) && evaluation.has_ended(&block);
            match part_at(offset).filter(|_| !jumps) {
                Some(next) if done <= counter => part = next,
                Some(_) => {
                    assert_eq!(exit, Exit::Budget(offset as u32), "{}", show("budget"));
                    break;
                }
                None => {
                    match exit {
                        Exit::Link(id) => {
                            let target = self.links[id as usize - 100].target;
                            assert_eq!(target, offset, "{}", show("link"));
                        }
                        Exit::Lookup => {
                            assert_eq!(self.frame.next_pc, va, "{}", show("target"));
                        }
                        exit => panic!("{}", show(&format!("{offset:#x} by {exit:?}"))),
                    }
                    break;
                }
            }
        }
        for (slot, (is, should)) in self.frame.regs.iter().zip(&expected).enumerate() {
            assert_eq!(is, should, "{}", show(&format!("slot {slot}: {is:#x}, not {should:#x}")));
        }
        assert!(self.engine.memory == engine.memory, "{}", show("memory"));
        assert_eq!(self.frame.fp_dirty != 0, dirty, "{}", show("dirty"));
        assert!(self.has_raised(flags), "{}", show("flags"));
        assert_eq!(self.frame.counter, counter - done, "{}", show("counter"));
        done
    }

    /// Runs the same block again.
    pub(super) fn again(&mut self) -> Exit {
        self.engine.tlb.fill([0xfff, 0xfff, 0, 0]);
        if !self.cold {
            self.engine.fill(MEMORY);
            self.engine.fill(MEMORY + 4096);
        }
        for word in WORDS {
            self.frame.set_word(word, self.engine.word(word));
        }
        let lines = &raw const self.engine.lines as usize;
        let frame = &mut *self.frame;
        frame.lines = lines;
        frame.page_va = PAGE_VA;
        frame.next_pc = 0x5555;
        frame.tlb = self.engine.tlb.as_ptr() as usize;
        frame.tlb_mask = (ENTRIES as u64 - 1) * 32;
        frame.jumps = self.jumps.as_ptr() as usize;
        frame.engine = &raw mut *self.engine as usize;
        frame.leave = 0;
        [frame.reserved, frame.reserved_value] = self.engine.reserved;
        frame.fp_dirty = 0;
        frame.mxcsr = MXCSR | self.engine.sticky;
        let frame = (&raw mut *frame).cast::<u8>();
        // SAFETY: the frame lies there.
        let frame = unsafe { frame.add(std::mem::offset_of!(Surroundings, frame)) }.cast::<Frame>();
        self.engine.frame = frame;
        let code = std::ptr::with_exposed_provenance::<u8>(self.code.0);
        // SAFETY: `enter` is the thunk of that type in executable memory, the code was made for its place and for
        // these thunks; it touches the frame, the tables and the memory set up above, which all live.
        let raw = unsafe {
            let enter: extern "sysv64" fn(*mut u64, *const u8) -> u64 =
                std::mem::transmute(self.thunks.enter);
            enter((&raw mut (*frame).regs).cast(), code)
        };
        assert_eq!(mxcsr() & !0x3f, MXCSR);
        Exit::decode(raw)
    }

    /// Whether the block has raised these flags and no others.
    pub(super) fn raised(&self, flags: Flags) -> bool {
        self.has_raised(flags | raised(self.engine.sticky))
    }

    /// Whether these flags and no others are raised in the end.
    fn has_raised(&self, flags: Flags) -> bool {
        self.frame.mxcsr & !DENORMAL == MXCSR | sticky(flags)
    }

    /// Makes the last block's first link lead to the block.
    pub(super) fn patch_link(&mut self) {
        let at = CodePtr(self.code.0 + self.links[0].rel32_offset as usize);
        self.memory.patch_jump(at, self.code);
    }

    /// Makes the jump cache know an address by code that returns `value` from `enter` (as the thunk for links would).
    pub(super) fn know(&mut self, va: u64) {
        self.jumps[(va >> 1) as usize % JUMPS_LEN] = [va, self.thunks.budget as u64];
    }

    /// As much of a block as has been run: if it was left for one of its own instructions before it had done
    /// that, what is before it.
    fn done(&self, block: &Block, exit: Exit, counter: i64) -> Block {
        let mut done = block.clone();
        let Exit::Link(id) = exit else { return done };
        let target = self.links[id as usize - 100].target;
        let at = block.insns.iter().position(|insn| insn.at.offset() as i64 == target);
        if let Some(next) = at
            && next > 0
            && self.frame.counter == counter - next as i64
        {
            done.ops.truncate(block.insns[next].first as usize);
            done.insns.truncate(next);
            done.ops.push(Op::Goto(target));
        }
        done
    }

    /// Runs a block both ways and compares everything that can be seen.
    pub(super) fn compare(&mut self, block: &Block, regs: &[u64; 256]) {
        // What leads to the block itself leads out then.
        let counter = 0;
        let mut engine = (*self.engine).clone();
        let mut expected = *regs;
        self.frame.regs = *regs;
        self.frame.counter = counter;
        self.engine.forgets_flags = forgets_flags(block);
        let exit = self.run(block);
        let done = self.done(block, exit, counter);
        let flags = raised(self.engine.sticky);
        let mut evaluation = Evaluation::default();
        evaluation.flags = flags;
        let left = loop {
            match evaluation.run(&done, &mut expected, PAGE_VA, &mut engine) {
                Left::Perform => {
                    if !perform_word(block.insns[evaluation.insn].word, &mut expected) {
                        break Left::Fault(());
                    }
                }
                Left::Instead => {
                    if !perform_word(block.insns[evaluation.insn].word, &mut expected) {
                        break Left::Fault(());
                    }
                    let at = block.insns[evaluation.insn].at;
                    break Left::To(PAGE_VA + at.offset() + at.bytes());
                }
                left => break left,
            }
        };
        let show = |what: &str| format!("{what}\n{block:#x?}");
        for (slot, (is, should)) in self.frame.regs.iter().zip(&expected).enumerate() {
            assert_eq!(is, should, "{}", show(&format!("slot {slot}: {is:#x}, not {should:#x}")));
        }
        assert!(self.engine.memory == engine.memory, "{}", show("memory"));
        assert_eq!(self.frame.reserved, engine.reserved[0], "{}", show("reservation"));
        if self.frame.reserved != 0 {
            assert_eq!(self.frame.reserved_value, engine.reserved[1], "{}", show("reservation"));
        }
        assert_eq!(self.frame.fp_dirty != 0, evaluation.fp_dirty, "{}", show("dirty"));
        assert!(self.has_raised(evaluation.flags), "{}", show("flags"));
        for word in WORDS {
            let should = engine.word(word);
            assert_eq!(self.frame.word(word), should, "{}", show(&format!("{word:?}")));
        }
        let link = |id: u32| self.links[id as usize - 100].target as u64 + PAGE_VA;
        let insn = evaluation.insn;
        match (left, exit) {
            (Left::To(va), Exit::Link(id)) => assert_eq!(link(id), va, "{}", show("link")),
            (Left::To(va), Exit::Attend(offset)) => {
                assert!(engine.may_be_interrupted());
                assert_eq!(va, PAGE_VA + u64::from(offset), "{}", show("target"));
            }
            (Left::To(va), Exit::Lookup) => {
                assert_eq!(self.frame.next_pc, va, "{}", show("target"));
            }
            (Left::To(va), Exit::Budget(at)) => {
                assert_eq!((va, at), (PAGE_VA + block.start, block.start as u32));
            }
            (Left::Fault(()), Exit::Left) => {
                let site = self.engine.sites.last().expect("a call");
                assert_eq!(site.done as usize, insn);
                assert_eq!(site.at, block.insns[insn].at);
            }
            _ => panic!("{}", show(&format!("{left:?} by {exit:?}"))),
        }
        let counted = if exit == Exit::Left { 0 } else { insn + 1 };
        assert_eq!(self.frame.counter, counter - counted as i64, "{}", show("counter"));
        assert_eq!(self.frame.page_va, PAGE_VA);
    }
}
