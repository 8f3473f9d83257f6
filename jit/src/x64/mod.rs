//! Emission of x86-64 code for a block.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `homes` | which guest registers live in which host registers |
//! | `abi` | the frame's words, calls out, reasons to leave |
//! | `thunks` | the code that all blocks share |
//! | `asm` | the encoder |
//! | `plan` | uses of values, found before a block is emitted |
//! | `groups` | memory accesses that are checked together |
//! | `alloc` | where values are while a block is emitted |
//! | `operand` | values as operands and destinations |
//! | `int`, `muldiv`, `cond`, `fp`, `fp_bits`, `fp_compare`, `fp_convert` | operations on values |
//! | `mem` | loads and stores |
//! | `amo` | atomic operations on memory |
//! | `csr` | control and status registers |
//! | `exits` | entry, branches, jumps, links |
//! | `region` | several blocks as one |

mod abi;
mod alloc;
mod amo;
mod asm;
mod cond;
mod csr;
mod exits;
mod fp;
mod fp_bits;
mod fp_compare;
mod fp_convert;
mod groups;
mod homes;
mod int;
mod mem;
mod muldiv;
mod operand;
mod plan;
mod region;
#[cfg(test)]
mod tests;
mod thunks;

use std::sync::LazyLock;

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::sem::{Bin, Un};

use self::abi::FP_DIRTY;
use self::alloc::{Alloc, Loc};
use self::asm::{Code, Fix, Mem, RBP, Reg};
use self::homes::Homes;
use crate::ir::region::{self as ir_region, Region};
use crate::ir::{Block, Insn, Op, Slot};

pub use self::abi::{AtomicSite, CallSite, Calls, Exit, JUMPS_LEN};
pub(crate) use self::fp::{MXCSR_PLAIN, fflags};
pub use self::thunks::Thunks;

/// What the host's processor offers beyond x86-64's baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFeatures {
    /// ANDN, TZCNT.
    pub bmi1: bool,
    /// SHLX and its like, RORX, MULX.
    pub bmi2: bool,
    /// LZCNT.
    pub lzcnt: bool,
    /// POPCNT.
    pub popcnt: bool,
    /// PCLMULQDQ.
    pub pclmulqdq: bool,
    /// PEXTRQ.
    pub sse41: bool,
    /// Three-operand vector instructions.
    pub avx: bool,
    /// Fused multiplication and addition.
    pub fma: bool,
}

impl HostFeatures {
    /// Asks the processor.
    #[must_use]
    pub fn detect() -> Self {
        HostFeatures {
            bmi1: is_x86_feature_detected!("bmi1"),
            bmi2: is_x86_feature_detected!("bmi2"),
            lzcnt: is_x86_feature_detected!("lzcnt"),
            popcnt: is_x86_feature_detected!("popcnt"),
            pclmulqdq: is_x86_feature_detected!("pclmulqdq"),
            sse41: is_x86_feature_detected!("sse4.1"),
            avx: is_x86_feature_detected!("avx"),
            fma: is_x86_feature_detected!("fma"),
        }
    }

    /// By name, and whether they are there. Nothing is demanded: without one, other instructions do its work, or the
    /// interpreter does.
    #[must_use]
    pub fn by_name(self) -> [(&'static str, bool); 8] {
        let HostFeatures { bmi1, bmi2, lzcnt, popcnt, pclmulqdq, sse41, avx, fma } = self;
        [
            ("bmi1", bmi1),
            ("bmi2", bmi2),
            ("lzcnt", lzcnt),
            ("popcnt", popcnt),
            ("pclmulqdq", pclmulqdq),
            ("sse4.1", sse41),
            ("avx", avx),
            ("fma", fma),
        ]
    }

    fn supports(self, op: &Op) -> bool {
        match op {
            Op::Bin(op, ..) => match op {
                Bin::Mulhsu => self.bmi2,
                Bin::Clmul | Bin::Clmulh | Bin::Clmulr => self.pclmulqdq && self.sse41,
                _ => true,
            },
            Op::Un(op, ..) => match op {
                Un::Clz | Un::Clzw => self.lzcnt,
                Un::Ctz | Un::Ctzw => self.bmi1,
                Un::Cpop | Un::Cpopw => self.popcnt,
                _ => true,
            },
            Op::Unbox(_) | Op::Box(_) | Op::Fp1(..) | Op::Fp2(..) | Op::Fma(..) => {
                fp::supports(op, self)
            }
            _ => true,
        }
    }
}

/// Whether there is host code for an operation on this host. Blocks must have no other.
#[must_use]
pub fn supports(op: &Op) -> bool {
    static FEATURES: LazyLock<HostFeatures> = LazyLock::new(HostFeatures::detect);
    FEATURES.supports(op)
}

/// A jump to another block of the page: until it is patched it asks the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSite {
    /// Offset in the block's code of the jump's 32-bit displacement, which counts from its end.
    pub rel32_offset: u32,
    /// Offset of the target in the page.
    pub target: i64,
}

/// A place where code is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The offset in its page that it stands for.
    pub offset: u64,
    /// Its offset in the code.
    pub at: u32,
}

/// The code of a block or of a region.
#[derive(Clone, Copy, Debug)]
pub struct Emitted<'a> {
    /// The code, for the address it was made for.
    pub code: &'a [u8],
    /// Where it is entered. A block's only entry is its first byte.
    pub entries: &'a [Entry],
    /// Its links; their numbers count from `Place::first_link`.
    pub links: &'a [LinkSite],
    /// The instructions (of all parts, in order) that are performed by calls out, by index; the numbers that the
    /// calls pass count from `Place::first_perform`.
    pub performs: &'a [u32],
    /// For each guest instruction (of all parts, in order), where its code begins. Code out of line comes after the
    /// last one's.
    pub map: &'a [u32],
    /// Where the code out of line begins.
    pub out_of_line: u32,
    /// Guest registers have other homes than usual.
    pub has_own_homes: bool,
}

/// Where a block's code will be, and the numbers it may use.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Address at which the code will run.
    pub at: usize,
    /// Number of its first link.
    pub first_link: u32,
    /// Number of its first performed instruction.
    pub first_perform: u32,
}

/// The block cannot be emitted: it has an operation that is not [supported](supports), or needs more room for
/// values than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// A part of what is emitted as one: a block, or one of a region's.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Its offset in the page.
    start: u64,
    /// Where its code begins, if that is known yet.
    at: Option<u32>,
}

/// Code out of line, emitted after the last part.
#[derive(Clone, Copy, Debug)]
enum Stub {
    Budget { out: Fix, start: u64 },
    Load(mem::SlowLoad),
    Store(mem::SlowStore),
    Atomic(amo::Slow),
    Performed(csr::Performed),
    Attended(csr::Attended),
    Exit(exits::SideExit),
    Link { jumps: [Fix; 2], id: u32 },
    Division { special: Fix, back: u32, division: muldiv::Division },
    Fp(fp::Slow),
}

/// Emits blocks and regions, one after the other.
#[derive(Debug)]
pub struct Emitter {
    code: Code,
    alloc: Alloc,
    homes: Homes,
    features: HostFeatures,
    parts: Vec<Part>,
    /// The part that is being emitted.
    part: usize,
    /// Jumps to parts whose places were not known.
    to_parts: Vec<(Fix, usize)>,
    /// Calls of the code that moves guest registers to their usual homes, and of that which moves them back.
    to_usual: Vec<Fix>,
    to_own: Vec<Fix>,
    entries: Vec<Entry>,
    ops: Vec<Op>,
    insns: Vec<Insn>,
    stubs: Vec<Stub>,
    links: Vec<LinkSite>,
    performs: Vec<u32>,
    map: Vec<u32>,
    /// Instructions of the parts before the current one.
    before: u32,
    first_link: u32,
    first_perform: u32,
    /// Address of the constants of floating-point code.
    constants: usize,
    /// Guest instructions of the part.
    count: u32,
    /// Index of the current one.
    insn: u32,
    /// The operation after what has been emitted.
    next: u32,
    /// The guest register, and its home, that the value being computed is for.
    target: Option<(Slot, Reg)>,
}

impl Default for Emitter {
    fn default() -> Self {
        Self::new()
    }
}

impl Emitter {
    /// An emitter for this host.
    #[must_use]
    pub fn new() -> Self {
        Emitter {
            code: Code::default(),
            alloc: Alloc::default(),
            homes: Homes::default(),
            features: HostFeatures::detect(),
            parts: Vec::new(),
            part: 0,
            to_parts: Vec::new(),
            to_usual: Vec::new(),
            to_own: Vec::new(),
            entries: Vec::new(),
            ops: Vec::new(),
            insns: Vec::new(),
            stubs: Vec::new(),
            links: Vec::new(),
            performs: Vec::new(),
            map: Vec::new(),
            before: 0,
            first_link: 0,
            first_perform: 0,
            constants: 0,
            count: 0,
            insn: 0,
            next: 0,
            target: None,
        }
    }

    /// Whether accesses relative to the same address are checked together, which they are unless told otherwise.
    pub fn group_checks(&mut self, on: bool) {
        self.alloc.grouping.is_off = !on;
    }

    /// Emits a block.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn emit(
        &mut self,
        block: &Block,
        place: Place,
        thunks: &Thunks,
    ) -> Result<Emitted<'_>, Refused> {
        self.homes.reset();
        self.begin(place, thunks);
        self.parts.push(Part { start: block.start, at: None });
        self.entries.push(Entry { offset: block.start, at: 0 });
        self.part(block, thunks)?;
        Ok(self.finish(thunks))
    }

    /// Emits a region.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn emit_region(
        &mut self,
        region: &Region,
        place: Place,
        thunks: &Thunks,
    ) -> Result<Emitted<'_>, Refused> {
        self.begin(place, thunks);
        region::choose_homes(&mut self.homes, region);
        let start = |part: &ir_region::Part| Part { start: part.block.start, at: None };
        self.parts.extend(region.parts.iter().map(start));
        for part in &region.parts {
            self.part(&part.block, thunks)?;
        }
        region::enter(self, region);
        Ok(self.finish(thunks))
    }

    /// Emits the next part's code in line.
    fn part(&mut self, block: &Block, thunks: &Thunks) -> Result<(), Refused> {
        self.begin_part(block);
        while (self.next as usize) < self.ops.len() {
            let i = self.next;
            while let Some(insn) = self.insns.get(self.map.len() - self.before as usize)
                && insn.first <= i
            {
                self.insn = self.map.len() as u32 - self.before;
                self.map.push(self.code.here());
            }
            self.next = i + 1;
            self.op(i, thunks);
            if self.alloc.failed {
                return Err(Refused);
            }
            for v in self.ops[i as usize].operands() {
                self.alloc.release_spill(v, i);
            }
            if let Some((_, addend)) = self.group(i) {
                self.alloc.release_spill(addend, i);
            }
            self.alloc.end_op(i);
            #[cfg(debug_assertions)]
            self.alloc.check(i);
        }
        self.before += self.count;
        self.map.resize(self.before as usize, self.code.here());
        self.part += 1;
        Ok(())
    }

    /// Emits the code out of line.
    fn finish(&mut self, thunks: &Thunks) -> Emitted<'_> {
        let out_of_line = self.code.here();
        let mut k = 0;
        while let Some(&stub) = self.stubs.get(k) {
            self.stub(stub, thunks);
            k += 1;
        }
        region::finish(self);
        Emitted {
            code: self.code.bytes(),
            entries: &self.entries,
            links: &self.links,
            performs: &self.performs,
            map: &self.map,
            out_of_line,
            has_own_homes: !self.homes.swaps().is_empty(),
        }
    }

    fn begin(&mut self, place: Place, thunks: &Thunks) {
        self.code.start(place.at);
        self.parts.clear();
        self.part = 0;
        self.to_parts.clear();
        self.to_usual.clear();
        self.to_own.clear();
        self.entries.clear();
        self.stubs.clear();
        self.links.clear();
        self.performs.clear();
        self.map.clear();
        self.before = 0;
        self.first_link = place.first_link;
        self.first_perform = place.first_perform;
        self.constants = thunks.constants;
    }

    fn begin_part(&mut self, block: &Block) {
        self.parts[self.part].at = Some(self.code.here());
        self.alloc.start(block);
        self.ops.clone_from(&block.ops);
        self.insns.clone_from(&block.insns);
        self.count = block.insns.len() as u32;
        self.insn = 0;
        self.next = 0;
        self.target = None;
    }

    fn op(&mut self, i: u32, thunks: &Thunks) {
        let op = self.ops[i as usize];
        let value = self.alloc.values[i as usize];
        if op.is_pure() && value.uses == 0 {
            return;
        }
        match op {
            Op::Const(c) => self.set_loc(i, Loc::Const(c)),
            Op::Get(slot) => self.set_alias(i, slot),
            Op::Load { addr, width } => mem::load(self, i, addr, width),
            Op::Store { addr, width, value } => mem::store(self, i, addr, width, value),
            Op::Atomic { op, addr, width, value } => amo::atomic(self, i, op, addr, width, value),
            Op::SetWord(word, v) => csr::write(self, word, v),
            Op::PerformIf(cond) => csr::perform_if(self, cond),
            Op::Attend(next) => csr::attend(self, i, next),
            Op::Set(slot, v) => self.set(i, slot, v),
            Op::Fence => exits::fence(self),
            Op::FpDirty => self.code.store_imm(Width::Byte, Mem::new(RBP, FP_DIRTY), 1),
            Op::Perform => exits::perform(self, i, thunks),
            Op::Branch(cond, target) => exits::branch(self, cond, target, thunks),
            Op::Jump(target) => exits::jump(self, target, thunks),
            Op::Goto(target) => exits::goto(self, target, thunks),
            _ if value.is_deferred() => self.set_loc(i, Loc::Deferred),
            _ => {
                self.aim(i, i);
                self.compute(i);
            }
        }
    }

    fn stub(&mut self, stub: Stub, thunks: &Thunks) {
        match stub {
            Stub::Budget { out, start } => exits::budget(self, out, start, thunks),
            Stub::Load(slow) => slow.emit(self, thunks),
            Stub::Store(slow) => slow.emit(self, thunks),
            Stub::Atomic(slow) => slow.emit(self, thunks),
            Stub::Performed(performed) => performed.emit(self, thunks),
            Stub::Attended(attended) => attended.emit(self, thunks),
            Stub::Exit(exit) => exit.emit(self, thunks),
            Stub::Link { jumps, id } => exits::link(self, jumps, id, thunks),
            Stub::Fp(slow) => slow.emit(self),
            Stub::Division { special, back, division } => {
                self.code.bind(special);
                division.special(&mut self.code);
                let jump = self.code.jmp();
                self.code.bind_to(jump, back);
            }
        }
    }

    /// What a call out from the current instruction passes.
    fn site(&self, width: Width) -> u32 {
        let at = self.insns[self.insn as usize].at;
        CallSite { at, width, done: self.insn }.encode()
    }
}
