//! The processor while it runs: its registers where handlers reach them fast, and what is derived from them.

use std::sync::Arc;

use crate::bus::{CpuBus, Request};
use crate::debug::{DebugEvent, DebugPoints};
use crate::frame::NO_PAGE;
use crate::signals::Signals;
use crate::tlb::{TableKey, Tlb};

use super::breakpoints::Breakpoints;
use super::decode::{CodeSize, Op};
use super::fault::{Fault, Stop, vector};
use super::flags::{Lazy, bit};
use super::interp::Block;
use super::simd::{self, SimdOp};
use super::state::{Cpu, Segment, cr0, cr4, efer, gpr, rights, sreg};

/// A register that is always zero: the base or index of an address that has none.
pub const ZERO: u8 = 16;
/// RIP at the beginning of the current page of code, for operands relative to it.
pub const IP_PAGE: u8 = 17;

/// What a segment register allows, prepared for checks of an offset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reach {
    /// Linear address of offset zero.
    pub base: u64,
    /// First valid offset.
    pub first: u64,
    /// Bytes from there on that may be read.
    pub read: u64,
    /// Bytes from there on that may be written.
    pub write: u64,
}

/// When an instruction is followed by a single-step trap (SDM vol. 3, 18.3.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepTrap {
    /// If the trap flag was set before it.
    Usual,
    /// If the trap flag is set after it: SYSCALL, whose mask may clear it, and SYSRET, so that a program sees its
    /// system calls as one instruction.
    ByNewFlags,
    /// Never: the handler of INT n, INT3, INTO and INT1 has been entered.
    Never,
}

/// Code that was fetched must be fetched anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchFlush {
    /// All translations of code.
    pub all: bool,
    /// The translation of this page of linear addresses.
    pub page: Option<u64>,
}

/// State of the interpreter while it runs.
#[expect(clippy::struct_excessive_bools, reason = "independent marks of handlers for the run loop")]
pub struct Core {
    /// The general-purpose registers, [`ZERO`] and [`IP_PAGE`]; as many as five bits can index.
    pub regs: [u64; 32],
    /// The arithmetic flags.
    pub flags: Lazy,
    /// Where execution goes on: an offset into CS.
    pub next_rip: u64,
    /// Linear address of the page that is being executed, or [`NO_PAGE`].
    pub page_lin: u64,
    /// The context in which it was entered, as the fetch TLB has it.
    pub(super) fetch_class: u8,
    /// Where its blocks begin in the [`CodeCache`](super::interp::CodeCache).
    pub(super) code_page: usize,
    /// The block that is being performed.
    pub(super) block: Block,
    /// Blocks follow one another as long as no more instructions than this have retired.
    pub(super) window: u64,
    /// What a load of more than eight bytes found, or is to be stored, off the fast path.
    pub(super) wide: [u64; 4],
    /// The last offset into CS that code may have.
    pub(super) code_limit: u64,
    /// By number of the segment register.
    pub reach: [Reach; 8],
    /// Bits of a linear address outside 64-bit mode: 32.
    pub lin_mask: u64,
    /// Misaligned accesses raise #AC.
    pub aligned: bool,
    /// Everything else. Its gpr, rip and the arithmetic bits of rflags are stale meanwhile.
    pub cpu: Cpu,
    pub(crate) tlb: Tlb,
    /// Why the last [`Stop`] happened.
    pub fault: Fault,
    /// Where that was, if not at the instruction itself: at the first one of a task that was switched to.
    pub(super) fault_rip: Option<u64>,
    /// An instruction ended by [`Stop`].
    pub stopped: bool,
    /// The instruction that ended by [`Stop`] has done a part and goes on when it is performed again.
    pub unfinished: bool,
    /// The current instruction is the last one before the run loop looks at what it caused.
    pub leave: bool,
    /// Whether the instruction that was just performed is followed by a single-step trap.
    pub(super) step_trap: StepTrap,
    /// A repeated string instruction has done an element, and more are left.
    pub(super) iterated: bool,
    /// Something happened that the run loop must look at before the next block.
    pub poll: bool,
    /// Which of x87, MMX, SSE and AVX may be used: bits that `insn::units` names.
    pub(super) units: u8,
    /// The fault is that of an address that is not canonical or beyond the segment: #SS if it was in SS.
    pub by_segment: bool,
    /// Code must be compared with memory again.
    pub stale_code: bool,
    pub(crate) fetch_flush: FetchFlush,
    /// The world.
    pub bus: Arc<dyn CpuBus>,
    /// [`CpuBus::coherent`].
    pub coherent: bool,
    /// [`super::simd::table`].
    pub(crate) vector_ops: &'static [SimdOp],
    /// What others can do to this processor.
    pub signals: Arc<Signals>,
    pub(crate) tlb_misses: u64,
    pub(crate) device_accesses: u64,
    /// Why the processor is in shutdown.
    pub(crate) epitaph: String,
    /// The guest's breakpoints, and those that the current instruction has met.
    pub(super) breakpoints: Breakpoints,
    pub(super) met: u8,
    /// Where the debugger wants the processor to stop.
    pub(crate) points: DebugPoints,
    /// The watchpoint that the current instruction has met.
    pub(crate) watched: Option<DebugEvent>,
}

impl Core {
    /// A core that continues from `cpu`.
    #[must_use]
    pub fn new(cpu: Cpu, bus: Arc<dyn CpuBus>, signals: Arc<Signals>) -> Self {
        let coherent = bus.coherent();
        let key = TableKey { space: 0, asid: 0, class: 0 };
        let mut core = Core {
            regs: [0; 32],
            flags: Lazy::default(),
            next_rip: 0,
            page_lin: NO_PAGE,
            fetch_class: 0,
            code_page: 0,
            block: Block::NONE,
            window: 0,
            wide: [0; 4],
            code_limit: 0,
            reach: [Reach::default(); 8],
            lin_mask: 0,
            aligned: false,
            cpu,
            tlb: Tlb::new(key),
            fault: Fault::new(vector::UD),
            fault_rip: None,
            stopped: false,
            unfinished: false,
            leave: false,
            step_trap: StepTrap::Usual,
            iterated: false,
            poll: true,
            units: 0,
            by_segment: false,
            stale_code: false,
            fetch_flush: FetchFlush::default(),
            bus,
            coherent,
            vector_ops: simd::table(),
            signals,
            tlb_misses: 0,
            device_accesses: 0,
            epitaph: String::new(),
            breakpoints: Breakpoints::default(),
            met: 0,
            points: DebugPoints::default(),
            watched: None,
        };
        core.load_registers();
        core
    }

    /// Takes over a state that was made outside; nothing cached is valid any more.
    pub fn import(&mut self, cpu: Cpu) {
        self.cpu = cpu;
        self.flush_tlb();
        self.load_registers();
    }

    /// Takes the registers from [`Core::cpu`].
    pub fn load_registers(&mut self) {
        self.regs[..16].copy_from_slice(&self.cpu.gpr);
        self.next_rip = self.cpu.rip;
        self.flags = Lazy::from_bits(self.cpu.rflags);
        self.mode_changed();
        self.breakpoints_changed();
    }

    /// The canonical state, complete.
    #[must_use]
    pub fn export(&self) -> Cpu {
        let mut cpu = self.cpu.clone();
        cpu.gpr.copy_from_slice(&self.regs[..16]);
        cpu.rip = self.next_rip;
        cpu.rflags = self.rflags();
        cpu
    }

    /// RFLAGS.
    #[must_use]
    pub fn rflags(&self) -> u64 {
        self.cpu.rflags & !bit::ARITH | self.flags.bits() | bit::FIXED
    }

    /// Sets RFLAGS as a whole and follows what changes with it.
    pub fn set_rflags(&mut self, flags: u64) {
        let changed = self.cpu.rflags ^ flags;
        self.cpu.rflags = flags & !bit::ARITH | bit::FIXED;
        self.flags = Lazy::from_bits(flags);
        if changed & (bit::VM | bit::AC) != 0 {
            self.mode_changed();
        }
        if changed & (bit::IF | bit::TF | bit::VM | bit::VIF | bit::VIP) != 0 {
            self.poll = true;
        }
    }

    /// A flag outside the arithmetic ones.
    #[inline(always)]
    #[must_use]
    pub fn has_flag(&self, flag: u64) -> bool {
        self.cpu.rflags & flag != 0
    }

    /// CR0.PE.
    #[inline]
    #[must_use]
    pub fn protected(&self) -> bool {
        self.cpu.cr0 & cr0::PE != 0
    }

    /// Virtual-8086 mode.
    #[inline]
    #[must_use]
    pub fn v86(&self) -> bool {
        self.cpu.rflags & bit::VM != 0
    }

    /// Real mode or virtual-8086 mode: selectors are paragraphs.
    #[inline]
    #[must_use]
    pub fn paragraphs(&self) -> bool {
        !self.protected() || self.v86()
    }

    /// IA-32e mode: 64-bit or compatibility mode.
    #[inline]
    #[must_use]
    pub fn long_mode(&self) -> bool {
        self.cpu.efer & efer::LMA != 0
    }

    /// 64-bit mode.
    #[inline]
    #[must_use]
    pub fn mode64(&self) -> bool {
        self.long_mode() && self.segment(sreg::CS).has(rights::L)
    }

    /// A segment register.
    #[inline]
    #[must_use]
    pub fn segment(&self, number: u8) -> &Segment {
        &self.cpu.seg[usize::from(number) % 6]
    }

    /// Code size, by mode and CS.
    #[must_use]
    pub fn code_size(&self) -> CodeSize {
        match (self.mode64(), self.segment(sreg::CS).has(rights::DB)) {
            (true, _) => CodeSize::Bits64,
            (false, true) => CodeSize::Bits32,
            (false, false) => CodeSize::Bits16,
        }
    }

    /// Whether misaligned accesses raise #AC.
    #[must_use]
    pub fn checks_alignment(&self) -> bool {
        self.cpu.cpl == 3 && self.cpu.cr0 & cr0::AM != 0 && self.has_flag(bit::AC)
    }

    /// Bits of RSP that the stack uses.
    #[inline(always)]
    #[must_use]
    pub fn stack_mask(&self) -> u64 {
        if self.mode64() {
            u64::MAX
        } else if self.segment(sreg::SS).has(rights::DB) {
            0xffff_ffff
        } else {
            0xffff
        }
    }

    /// Follows a change of privilege, mode or segment registers: prepares their checks, selects the matching TLB
    /// table and leaves the current page.
    pub fn mode_changed(&mut self) {
        let long = self.mode64();
        self.lin_mask = if long { u64::MAX } else { 0xffff_ffff };
        for number in 0..6 {
            self.prepare_segment(number);
        }
        self.privilege_changed();
    }

    /// Follows a change of privilege or of what permissions depend on.
    pub fn privilege_changed(&mut self) {
        self.tlb.select(self.table_key());
        self.aligned = self.checks_alignment();
        self.units_changed();
        self.page_lin = NO_PAGE;
    }

    /// Prepares the checks of a segment register.
    pub fn prepare_segment(&mut self, number: u8) {
        let segment = *self.segment(number);
        self.reach[usize::from(number & 7)] = if self.mode64() {
            let based = matches!(number, sreg::FS | sreg::GS);
            let base = if based { segment.base } else { 0 };
            Reach { base, first: 0, read: u64::MAX, write: u64::MAX }
        } else {
            self.legacy_reach(&segment)
        };
    }

    fn legacy_reach(&self, segment: &Segment) -> Reach {
        let limit = u64::from(segment.limit);
        let code = segment.has(rights::CODE);
        let (first, bytes) = if !code && segment.has(rights::EXPAND_DOWN) {
            let top: u64 = if segment.has(rights::DB) { 1 << 32 } else { 1 << 16 };
            (limit + 1, top.saturating_sub(limit + 1))
        } else {
            (0, limit + 1)
        };
        let usable = !segment.has(rights::UNUSABLE) && segment.has(rights::P);
        let writable = segment.has(rights::WRITABLE);
        // Real mode checks limits alone.
        let real = !self.protected();
        let read = usable && (!code || writable) || real;
        let write = usable && !code && writable || real;
        Reach {
            base: segment.base,
            first,
            read: if read { bytes } else { 0 },
            write: if write { bytes } else { 0 },
        }
    }

    /// The TLB table that serves accesses in the present state.
    #[must_use]
    pub fn table_key(&self) -> TableKey {
        let user = self.cpu.cpl == 3;
        let mut class = u8::from(user);
        if !user {
            class |= u8::from(self.cpu.cr0 & cr0::WP != 0) << 1;
            class |= u8::from(self.cpu.cr4 & cr4::SMAP != 0 && !self.has_flag(bit::AC)) << 2;
        }
        TableKey { space: 0, asid: self.pcid(), class }
    }

    /// The current process-context identifier.
    #[must_use]
    pub fn pcid(&self) -> u16 {
        if self.cpu.cr4 & cr4::PCIDE != 0 { self.cpu.cr3 as u16 & 0xfff } else { 0 }
    }

    /// Drops every cached translation.
    pub fn flush_tlb(&mut self) {
        self.tlb.flush();
        self.fetch_flush.all = true;
        self.page_lin = NO_PAGE;
        self.leave = true;
        self.poll = true;
    }

    /// Follows a change of PKRU or IA32_PKRS: translations of data have the rights by them.
    pub fn keys_changed(&mut self) {
        if self.cpu.cr4 & (cr4::PKE | cr4::PKS) != 0 {
            self.tlb.flush();
        }
    }

    /// Sets PKRU.
    pub fn set_pkru(&mut self, value: u32) {
        if value != self.cpu.pkru {
            self.cpu.pkru = value;
            self.keys_changed();
        }
    }

    /// Drops the translations of one process-context identifier.
    pub fn flush_pcid(&mut self, pcid: u16) {
        self.tlb.flush_matching(Some(pcid), None);
        self.fetch_flush.all = true;
        self.page_lin = NO_PAGE;
        self.poll = true;
    }

    /// Drops the translations of the page at `lin`, in all address spaces.
    pub fn flush_page(&mut self, lin: u64) {
        self.tlb.flush_matching(None, Some(lin));
        match self.fetch_flush.page {
            Some(page) if page != lin => self.fetch_flush.all = true,
            _ => self.fetch_flush.page = Some(lin),
        }
        self.page_lin = NO_PAGE;
        self.poll = true;
    }

    /// Drops the right to write to the page at `gpa`.
    pub fn write_protect(&mut self, gpa: u64) {
        self.tlb.write_protect(gpa);
    }

    /// Applies what others have asked of the processor.
    pub fn apply_requests(&mut self) {
        let hart = self.cpu.id as usize;
        let requests = self.bus.take_requests(hart);
        if requests.is_empty() {
            return;
        }
        for request in requests {
            match request {
                Request::WriteProtect(gpa) => self.write_protect(gpa),
                Request::FlushTranslations => self.flush_tlb(),
            }
        }
        self.bus.requests_done(hart);
    }

    /// All stores so far are visible to others, and code that others have written counts from the next instruction
    /// on.
    pub(super) fn serialize(&mut self) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.stale_code = true;
        self.poll = true;
    }

    /// The instruction's own RIP.
    #[inline(always)]
    #[must_use]
    pub fn rip(&self, op: &Op) -> u64 {
        self.regs[usize::from(IP_PAGE)].wrapping_add(u64::from(op.off)) & self.ip_mask()
    }

    /// RIP of the instruction that follows.
    #[inline(always)]
    #[must_use]
    pub fn rip_after(&self, op: &Op) -> u64 {
        let offset = u64::from(op.off) + u64::from(op.len);
        self.regs[usize::from(IP_PAGE)].wrapping_add(offset) & self.ip_mask()
    }

    /// Bits of an instruction pointer.
    #[inline(always)]
    #[must_use]
    pub fn ip_mask(&self) -> u64 {
        self.lin_mask
    }

    /// Ends an instruction by `fault`.
    #[cold]
    pub fn raise(&mut self, fault: Fault) -> Stop {
        self.fault = fault;
        self.by_segment = false;
        Stop
    }

    /// #UD.
    #[cold]
    pub fn ud(&mut self) -> Stop {
        self.raise(Fault::new(vector::UD))
    }

    /// #GP with an error code.
    #[cold]
    pub fn gp(&mut self, error: u16) -> Stop {
        self.raise(Fault::with(vector::GP, u32::from(error)))
    }

    /// #GP(0), or #SS(0) if the address was in the stack segment.
    #[cold]
    pub fn out_of_segment(&mut self) -> Stop {
        self.raise(Fault::with(vector::GP, 0));
        self.by_segment = true;
        Stop
    }

    /// #GP(0) unless privileged.
    ///
    /// # Errors
    /// [`Stop`] if CPL is not 0.
    #[inline]
    pub fn need_cpl0(&mut self) -> Result<(), Stop> {
        if self.cpu.cpl == 0 { Ok(()) } else { Err(self.gp(0)) }
    }

    /// A general-purpose register, all 64 bits.
    #[inline(always)]
    #[must_use]
    pub fn gpr(&self, number: u8) -> u64 {
        self.regs[usize::from(number & 31)]
    }

    /// Sets a general-purpose register, all 64 bits.
    #[inline(always)]
    pub fn set_gpr(&mut self, number: u8, value: u64) {
        self.regs[usize::from(number & 31)] = value;
    }

    /// Replaces the bits of RSP that the stack uses.
    #[inline(always)]
    pub fn set_sp(&mut self, value: u64) {
        let mask = self.stack_mask();
        let rsp = &mut self.regs[usize::from(gpr::RSP)];
        // A 32-bit stack pointer is written as a 32-bit register.
        *rsp = if mask == 0xffff { *rsp & !mask | value & mask } else { value & mask };
    }
}
