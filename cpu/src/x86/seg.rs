//! Segment registers and descriptors, and transfers that load CS (SDM vol. 3, chapters 3, 6; vol. 2, "JMP", "CALL",
//! "RET").

use super::core::Core;
use super::fault::{Fault, Stop, vector};
use super::insn::Int;
use super::paging::Rights;
use super::state::{Segment, gpr, rights, sreg};

/// A descriptor of eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub u64);

/// Types of system descriptors (SDM vol. 3, table 3-2).
pub mod system {
    /// 16-bit TSS, available.
    pub const TSS16: u32 = 1;
    /// LDT.
    pub const LDT: u32 = 2;
    /// 16-bit TSS, busy.
    pub const TSS16_BUSY: u32 = 3;
    /// 16-bit call gate.
    pub const CALL16: u32 = 4;
    /// Task gate.
    pub const TASK: u32 = 5;
    /// 16-bit interrupt gate.
    pub const INT16: u32 = 6;
    /// 16-bit trap gate.
    pub const TRAP16: u32 = 7;
    /// TSS, available: 32-bit, or 64-bit in IA-32e mode.
    pub const TSS: u32 = 9;
    /// The same, busy.
    pub const TSS_BUSY: u32 = 11;
    /// Call gate: 32-bit, or 64-bit in IA-32e mode.
    pub const CALL: u32 = 12;
    /// Interrupt gate.
    pub const INT: u32 = 14;
    /// Trap gate.
    pub const TRAP: u32 = 15;
}

impl Descriptor {
    /// Access rights as [`rights`] names them.
    #[must_use]
    pub fn rights(self) -> u32 {
        (self.0 >> 40) as u32 & 0xf0ff
    }

    /// The base address, 32 bits.
    #[must_use]
    pub fn base(self) -> u64 {
        self.0 >> 16 & 0xff_ffff | self.0 >> 56 << 24
    }

    /// The limit in bytes.
    #[must_use]
    pub fn limit(self) -> u32 {
        let limit = (self.0 as u32 & 0xffff) | (self.0 >> 32) as u32 & 0xf_0000;
        if self.has(rights::G) { limit << 12 | 0xfff } else { limit }
    }

    /// Whether all of `bits` of [`rights`] are set.
    #[must_use]
    pub fn has(self, bits: u32) -> bool {
        self.rights() & bits == bits
    }

    /// Descriptor privilege level.
    #[must_use]
    pub fn dpl(self) -> u8 {
        (self.rights() >> rights::DPL_SHIFT & 3) as u8
    }

    /// The type, for system descriptors; `None` for code and data.
    #[must_use]
    pub fn system(self) -> Option<u32> {
        (!self.has(rights::S)).then_some(self.rights() & rights::TYPE)
    }

    /// Code.
    #[must_use]
    pub fn is_code(self) -> bool {
        self.has(rights::S | rights::CODE)
    }

    /// Code that keeps its caller's privilege.
    #[must_use]
    pub fn is_conforming(self) -> bool {
        self.is_code() && self.has(rights::EXPAND_DOWN)
    }

    /// The segment register that `selector` makes of it.
    #[must_use]
    pub fn segment(self, selector: u16) -> Segment {
        Segment { selector, base: self.base(), limit: self.limit(), rights: self.rights() }
    }

    /// A gate's selector.
    #[must_use]
    pub fn gate_selector(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// A gate's offset, without the upper half that 64-bit gates have.
    #[must_use]
    pub fn gate_offset(self) -> u64 {
        let offset = self.0 & 0xffff | self.0 >> 32 & 0xffff_0000;
        if matches!(self.system(), Some(system::CALL16 | system::INT16 | system::TRAP16)) {
            offset & 0xffff
        } else {
            offset
        }
    }
}

/// Whether a selector is null.
#[must_use]
pub fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

impl Core {
    /// Linear address of the descriptor that `selector` names, of `len` bytes; `None` beyond the table's limit.
    #[must_use]
    pub fn descriptor_address(&self, selector: u16, len: u64) -> Option<u64> {
        let (base, limit) = if selector & 4 != 0 {
            if self.cpu.ldtr.has(rights::UNUSABLE) {
                return None;
            }
            (self.cpu.ldtr.base, u64::from(self.cpu.ldtr.limit))
        } else {
            (self.cpu.gdtr.base, u64::from(self.cpu.gdtr.limit))
        };
        let offset = u64::from(selector & !7);
        (offset + len - 1 <= limit).then(|| base.wrapping_add(offset))
    }

    /// The descriptor that `selector` names.
    ///
    /// # Errors
    /// #GP or `vector` with the selector beyond the table's limit; a page fault.
    pub fn read_descriptor(&mut self, selector: u16, vector: u8) -> Result<Descriptor, Stop> {
        match self.descriptor_address(selector, 8) {
            Some(lin) => Ok(Descriptor(self.load_system(lin)?)),
            None => Err(self.selector_fault(vector, selector)),
        }
    }

    /// The upper eight bytes of a system descriptor in IA-32e mode.
    ///
    /// # Errors
    /// As [`read_descriptor`](Self::read_descriptor).
    pub fn read_upper(&mut self, selector: u16, vector: u8) -> Result<u64, Stop> {
        match self.descriptor_address(selector, 16) {
            Some(lin) => self.load_system(lin.wrapping_add(8)),
            None => Err(self.selector_fault(vector, selector)),
        }
    }

    /// An exception whose error code is a selector.
    #[cold]
    pub fn selector_fault(&mut self, vector: u8, selector: u16) -> Stop {
        self.raise(Fault::with(vector, u32::from(selector & !3)))
    }

    /// Sets the accessed bit of a descriptor in memory.
    fn mark_accessed(&mut self, selector: u16, descriptor: Descriptor) -> Result<Descriptor, Stop> {
        const ACCESSED: u64 = 1 << 40;
        if descriptor.0 & ACCESSED == 0
            && let Some(lin) = self.descriptor_address(selector, 8)
        {
            self.store_system(lin.wrapping_add(5), (descriptor.0 >> 40) as u8 | 1)?;
        }
        Ok(Descriptor(descriptor.0 | ACCESSED))
    }

    /// Loads a segment register other than CS (SDM vol. 2, "MOV").
    ///
    /// # Errors
    /// #GP, #SS, #NP with the selector; a page fault.
    pub fn load_segment(&mut self, number: u8, selector: u16) -> Result<(), Stop> {
        if self.paragraphs() {
            self.set_paragraph(number, selector);
            return Ok(());
        }
        let stack = number == sreg::SS;
        if is_null(selector) {
            // 64-bit mode allows a null stack segment below level 3.
            let allowed =
                !stack || self.mode64() && self.cpu.cpl < 3 && selector as u8 & 3 == self.cpu.cpl;
            if !allowed {
                return Err(self.gp(0));
            }
            let mut segment = Segment::null(selector);
            if stack {
                segment.rights |= u32::from(self.cpu.cpl) << rights::DPL_SHIFT;
            }
            if self.long_mode() {
                // The base stays (as on Intel's processors it does not, but software cannot rely on either).
                segment.base = 0;
            }
            self.set_segment(number, segment);
            return Ok(());
        }
        let descriptor = self.read_descriptor(selector, vector::GP)?;
        let (dpl, rpl, cpl) = (descriptor.dpl(), selector as u8 & 3, self.cpu.cpl);
        let fits = if stack {
            descriptor.has(rights::S | rights::WRITABLE)
                && !descriptor.is_code()
                && rpl == cpl
                && dpl == cpl
        } else {
            let readable = !descriptor.is_code() || descriptor.has(rights::WRITABLE);
            let privileged = descriptor.is_conforming() || rpl.max(cpl) <= dpl;
            descriptor.has(rights::S) && readable && privileged
        };
        if !fits {
            return Err(self.selector_fault(vector::GP, selector));
        }
        if !descriptor.has(rights::P) {
            let vector = if stack { vector::SS } else { vector::NP };
            return Err(self.selector_fault(vector, selector));
        }
        let descriptor = self.mark_accessed(selector, descriptor)?;
        self.set_segment(number, descriptor.segment(selector));
        Ok(())
    }

    /// Loads a segment register of real mode, where limit and rights stay, or of virtual-8086 mode, where they are
    /// fixed.
    pub fn set_paragraph(&mut self, number: u8, selector: u16) {
        let mut segment = *self.segment(number);
        segment.selector = selector;
        segment.base = u64::from(selector) << 4;
        if self.v86() {
            segment.limit = 0xffff;
            segment.rights = rights::ACCESSED
                | rights::WRITABLE
                | rights::S
                | rights::P
                | 3 << rights::DPL_SHIFT;
        } else if number == sreg::CS {
            // Real mode's code can be written to, and its privilege is the highest.
            segment.rights =
                rights::ACCESSED | rights::WRITABLE | rights::CODE | rights::S | rights::P;
        }
        self.set_segment(number, segment);
    }

    /// Sets a segment register and what is prepared from it.
    pub fn set_segment(&mut self, number: u8, segment: Segment) {
        self.cpu.seg[usize::from(number % 6)] = segment;
        if number == sreg::CS {
            self.mode_changed();
        } else {
            self.prepare_segment(number);
        }
    }

    /// Loads CS at privilege `cpl` and goes on at `offset`. Nothing of the state has changed if it fails.
    ///
    /// # Errors
    /// #GP(0) if the offset is not inside the segment.
    pub fn enter_code(&mut self, mut segment: Segment, cpl: u8, offset: u64) -> Result<(), Stop> {
        let wide = self.long_mode() && segment.has(rights::L);
        let inside =
            if wide { self.is_canonical(offset) } else { offset <= u64::from(segment.limit) };
        if !inside {
            return Err(self.gp(0));
        }
        segment.selector = segment.selector & !3 | u16::from(cpl);
        self.cpu.cpl = cpl;
        self.set_segment(sreg::CS, segment);
        self.next_rip = offset;
        Ok(())
    }

    /// Far JMP and CALL. `size` is the operand size in bytes.
    ///
    /// # Errors
    /// Exceptions of the transfer.
    pub fn far_transfer(
        &mut self,
        selector: u16,
        offset: u64,
        size: u8,
        call: bool,
    ) -> Result<(), Stop> {
        let back = self.next_rip;
        if self.paragraphs() {
            if offset > u64::from(self.segment(sreg::CS).limit) {
                return Err(self.gp(0));
            }
            if call {
                let cs = u64::from(self.segment(sreg::CS).selector);
                self.push_sized(size, &[cs, back])?;
            }
            self.set_paragraph(sreg::CS, selector);
            self.next_rip = offset;
            return Ok(());
        }
        if is_null(selector) {
            return Err(self.gp(0));
        }
        let descriptor = self.read_descriptor(selector, vector::GP)?;
        match descriptor.system() {
            None => {
                let segment = self.same_level_code(selector, descriptor, selector as u8 & 3)?;
                let rsp = self.gpr(gpr::RSP);
                if call {
                    let cs = u64::from(self.segment(sreg::CS).selector);
                    self.push_sized(size, &[cs, back])?;
                }
                let entered = self.enter_code(segment, self.cpu.cpl, offset);
                if entered.is_err() {
                    self.set_gpr(gpr::RSP, rsp);
                }
                entered
            }
            Some(kind) => self.system_transfer(selector, descriptor, kind, call),
        }
    }

    /// Checks code that is entered without a change of privilege.
    fn same_level_code(
        &mut self,
        selector: u16,
        descriptor: Descriptor,
        rpl: u8,
    ) -> Result<Segment, Stop> {
        let cpl = self.cpu.cpl;
        let allowed = if descriptor.is_conforming() {
            descriptor.dpl() <= cpl
        } else {
            descriptor.dpl() == cpl && rpl <= cpl
        };
        // L and D together are reserved.
        let sound =
            descriptor.is_code() && !(self.long_mode() && descriptor.has(rights::L | rights::DB));
        if !sound || !allowed {
            return Err(self.selector_fault(vector::GP, selector));
        }
        if !descriptor.has(rights::P) {
            return Err(self.selector_fault(vector::NP, selector));
        }
        Ok(self.mark_accessed(selector, descriptor)?.segment(selector))
    }

    /// Pushes values of `size` bytes each: all of them or none.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub(super) fn push_sized(&mut self, size: u8, values: &[u64]) -> Result<(), Stop> {
        let rsp = self.gpr(gpr::RSP);
        for &value in values {
            let pushed = match size {
                2 => self.push(value as u16),
                4 => self.push(value as u32),
                _ => self.push(value),
            };
            if pushed.is_err() {
                self.set_gpr(gpr::RSP, rsp);
                return Err(Stop);
            }
        }
        Ok(())
    }

    /// Far JMP and CALL through a gate or to a TSS.
    fn system_transfer(
        &mut self,
        selector: u16,
        gate: Descriptor,
        kind: u32,
        call: bool,
    ) -> Result<(), Stop> {
        let is_call_gate = match kind {
            system::CALL16 => !self.long_mode(),
            system::CALL => true,
            _ => false,
        };
        let privileged = gate.dpl() >= self.cpu.cpl.max(selector as u8 & 3);
        if !is_call_gate || !privileged {
            return Err(self.selector_fault(vector::GP, selector));
        }
        if !gate.has(rights::P) {
            return Err(self.selector_fault(vector::NP, selector));
        }
        let long = self.long_mode();
        let mut offset = gate.gate_offset();
        if long {
            let upper = self.read_upper(selector, vector::GP)?;
            if upper >> 40 & 0x1f != 0 {
                return Err(self.selector_fault(vector::GP, selector));
            }
            offset |= upper << 32;
        }
        let target = gate.gate_selector();
        if is_null(target) {
            return Err(self.gp(0));
        }
        let code = self.read_descriptor(target, vector::GP)?;
        let sound = code.is_code()
            && code.dpl() <= self.cpu.cpl
            && (!long || code.has(rights::L) && !code.has(rights::DB));
        if !sound {
            return Err(self.selector_fault(vector::GP, target));
        }
        if !code.has(rights::P) {
            return Err(self.selector_fault(vector::NP, target));
        }
        let size = match kind {
            system::CALL16 => 2,
            _ if long => 8,
            _ => 4,
        };
        if call && !code.is_conforming() && code.dpl() < self.cpu.cpl {
            return self.inner_call(target, code, offset, size, (gate.0 >> 32) as u8 & 0x1f);
        }
        if !call && !code.is_conforming() && code.dpl() != self.cpu.cpl {
            return Err(self.selector_fault(vector::GP, target));
        }
        let segment = self.mark_accessed(target, code)?.segment(target);
        let (back, rsp) = (self.next_rip, self.gpr(gpr::RSP));
        if call {
            let cs = u64::from(self.segment(sreg::CS).selector);
            self.push_sized(size, &[cs, back])?;
        }
        let entered = self.enter_code(segment, self.cpu.cpl, offset);
        if entered.is_err() {
            self.set_gpr(gpr::RSP, rsp);
        }
        entered
    }

    /// A call through a gate to a more privileged level: to another stack, with `params` copied.
    fn inner_call(
        &mut self,
        target: u16,
        code: Descriptor,
        offset: u64,
        size: u8,
        params: u8,
    ) -> Result<(), Stop> {
        let cpl = code.dpl();
        let (old_ss, old_sp) = (self.segment(sreg::SS).selector, self.gpr(gpr::RSP));
        let (cs, back) = (self.segment(sreg::CS).selector, self.next_rip);
        let mut frame = vec![u64::from(old_ss), old_sp];
        let mut stack = if self.long_mode() {
            let sp = self.tss_rsp(cpl)?;
            self.long_stack(cpl, sp)
        } else {
            // Parameters keep their order: the last one pushed lies lowest.
            for i in (0..u64::from(params)).rev() {
                let value = match size {
                    2 => u64::from(self.peek::<u16>(2 * i)?),
                    _ => u64::from(self.peek::<u32>(4 * i)?),
                };
                frame.push(value);
            }
            self.tss_stack(cpl)?
        };
        frame.extend([u64::from(cs), back]);
        for value in frame {
            self.push_onto(&mut stack, size, value)?;
        }
        let segment = self.mark_accessed(target, code)?.segment(target);
        self.enter_code(segment, cpl, offset)?;
        self.use_stack(&stack);
        Ok(())
    }

    /// Far RET (SDM vol. 2, "RET"), releasing `release` bytes of parameters.
    ///
    /// # Errors
    /// Exceptions of the transfer.
    pub(super) fn far_return<T: Int>(&mut self, release: u64) -> Result<(), Stop> {
        let offset = self.peek::<T>(0)?.widen();
        let selector = self.peek::<T>(T::BYTES)?.widen() as u16;
        if self.paragraphs() {
            if offset > u64::from(self.segment(sreg::CS).limit) {
                return Err(self.gp(0));
            }
            self.release(2 * T::BYTES + release);
            self.set_paragraph(sreg::CS, selector);
            self.next_rip = offset;
            return Ok(());
        }
        self.return_to::<T>(selector, offset, 2 * T::BYTES + release, release, None)
    }

    /// Returns to `selector:offset`, releasing `bytes` of the stack; to a less privileged level with its stack, which is
    /// found behind them, and then `outer_release` bytes of that one. `flags` are loaded as IRET loads them.
    pub(super) fn return_to<T: Int>(
        &mut self,
        selector: u16,
        offset: u64,
        bytes: u64,
        outer_release: u64,
        flags: Option<u64>,
    ) -> Result<(), Stop> {
        if is_null(selector) {
            return Err(self.gp(0));
        }
        let descriptor = self.read_descriptor(selector, vector::GP)?;
        let (rpl, cpl) = (selector as u8 & 3, self.cpu.cpl);
        let privileged = if descriptor.is_conforming() {
            descriptor.dpl() <= rpl
        } else {
            descriptor.dpl() == rpl
        };
        let reserved = self.long_mode() && descriptor.has(rights::L | rights::DB);
        if !descriptor.is_code() || rpl < cpl || !privileged || reserved {
            return Err(self.selector_fault(vector::GP, selector));
        }
        if !descriptor.has(rights::P) {
            return Err(self.selector_fault(vector::NP, selector));
        }
        // IRET of 64-bit mode always takes the stack along.
        let with_stack = rpl > cpl || flags.is_some() && self.mode64();
        if !with_stack {
            let segment = self.mark_accessed(selector, descriptor)?.segment(selector);
            let mode64 = self.wide();
            let sp = self.gpr(gpr::RSP).wrapping_add(bytes);
            let mask = self.stack_mask();
            self.enter_code(segment, cpl, offset)?;
            if let Some(flags) = flags {
                self.load_flags::<T>(flags, cpl);
            }
            let old = self.gpr(gpr::RSP);
            let sp = if mask == 0xffff { old & !mask | sp & mask } else { sp & mask };
            self.set_gpr(gpr::RSP, if mode64 { sp } else { sp & 0xffff_ffff | old & !0xffff_ffff });
            return Ok(());
        }
        let sp = self.peek::<T>(bytes)?.widen();
        let ss = self.peek::<T>(bytes + T::BYTES)?.widen() as u16;
        let stack = self.outer_stack(ss, rpl, descriptor)?;
        let segment = self.mark_accessed(selector, descriptor)?.segment(selector);
        self.enter_code(segment, rpl, offset)?;
        self.set_segment(sreg::SS, stack);
        if let Some(flags) = flags {
            self.load_flags::<T>(flags, cpl);
        }
        if T::BITS == 64 || self.wide() {
            self.set_gpr(gpr::RSP, sp);
        } else {
            self.set_sp(sp);
        }
        self.release(outer_release);
        if rpl > cpl {
            self.drop_inner_segments();
        }
        Ok(())
    }

    /// The stack segment that a return to level `rpl` loads.
    fn outer_stack(&mut self, ss: u16, rpl: u8, code: Descriptor) -> Result<Segment, Stop> {
        if is_null(ss) {
            if self.long_mode() && code.has(rights::L) && rpl < 3 && ss as u8 & 3 == rpl {
                let mut segment = Segment::null(ss);
                segment.rights |= u32::from(rpl) << rights::DPL_SHIFT;
                return Ok(segment);
            }
            return Err(self.gp(0));
        }
        let descriptor = self.read_descriptor(ss, vector::GP)?;
        let fits = descriptor.has(rights::S | rights::WRITABLE)
            && !descriptor.is_code()
            && ss as u8 & 3 == rpl
            && descriptor.dpl() == rpl;
        if !fits {
            return Err(self.selector_fault(vector::GP, ss));
        }
        if !descriptor.has(rights::P) {
            return Err(self.selector_fault(vector::SS, ss));
        }
        Ok(self.mark_accessed(ss, descriptor)?.segment(ss))
    }

    /// After a return to a less privileged level: segments that it must not see become null.
    fn drop_inner_segments(&mut self) {
        for number in [sreg::ES, sreg::DS, sreg::FS, sreg::GS] {
            let segment = *self.segment(number);
            let conforming = segment.has(rights::S | rights::CODE | rights::EXPAND_DOWN);
            let usable = !segment.has(rights::UNUSABLE);
            if usable && !conforming && segment.dpl() < self.cpu.cpl {
                self.set_segment(number, Segment::null(0));
            }
        }
    }

    /// The stack for level `cpl` in the TSS of 16 or 32 bits.
    ///
    /// # Errors
    /// #TS.
    pub(super) fn tss_stack(&mut self, cpl: u8) -> Result<Stack, Stop> {
        let wide = self.cpu.tr.rights & rights::TYPE >= system::TSS;
        let (base, limit) = (self.cpu.tr.base, u64::from(self.cpu.tr.limit));
        let at = if wide { 4 + 8 * u64::from(cpl) } else { 2 + 4 * u64::from(cpl) };
        if at + if wide { 5 } else { 3 } > limit {
            let selector = self.cpu.tr.selector;
            return Err(self.selector_fault(vector::TS, selector));
        }
        let (sp, ss) = if wide {
            let sp: u32 = self.load_system(base.wrapping_add(at))?;
            (u64::from(sp), self.load_system::<u16>(base.wrapping_add(at + 4))?)
        } else {
            let sp: u16 = self.load_system(base.wrapping_add(at))?;
            (u64::from(sp), self.load_system::<u16>(base.wrapping_add(at + 2))?)
        };
        if is_null(ss) {
            return Err(self.raise(Fault::with(vector::TS, 0)));
        }
        let descriptor = self.read_descriptor(ss, vector::TS)?;
        let fits = descriptor.has(rights::S | rights::WRITABLE)
            && !descriptor.is_code()
            && ss as u8 & 3 == cpl
            && descriptor.dpl() == cpl;
        if !fits {
            return Err(self.selector_fault(vector::TS, ss));
        }
        if !descriptor.has(rights::P) {
            return Err(self.selector_fault(vector::SS, ss));
        }
        let segment = self.mark_accessed(ss, descriptor)?.segment(ss);
        Ok(Stack { segment, sp, cpl })
    }

    /// The stack pointer for level `cpl` in the TSS of 64 bits.
    ///
    /// # Errors
    /// #TS; #SS(0) if it is not canonical.
    pub(super) fn tss_rsp(&mut self, cpl: u8) -> Result<u64, Stop> {
        self.tss_word(4 + 8 * u64::from(cpl))
    }

    /// A stack pointer at an offset of the TSS of 64 bits.
    pub(super) fn tss_word(&mut self, at: u64) -> Result<u64, Stop> {
        if at + 7 > u64::from(self.cpu.tr.limit) {
            let selector = self.cpu.tr.selector;
            return Err(self.selector_fault(vector::TS, selector));
        }
        let sp = self.load_system(self.cpu.tr.base.wrapping_add(at))?;
        if !self.is_canonical(sp) {
            return Err(self.raise(Fault::with(vector::SS, 0)));
        }
        Ok(sp)
    }

    /// A stack of 64-bit mode at level `cpl`: its segment is null.
    pub(super) fn long_stack(&self, cpl: u8, sp: u64) -> Stack {
        let mut segment = Segment::null(u16::from(cpl));
        segment.rights |= u32::from(cpl) << rights::DPL_SHIFT;
        Stack { segment, sp, cpl }
    }

    /// Pushes a value of `size` bytes onto a stack that is not in use yet.
    ///
    /// # Errors
    /// #SS(selector), a page fault.
    pub(super) fn push_onto(
        &mut self,
        stack: &mut Stack,
        size: u8,
        value: u64,
    ) -> Result<(), Stop> {
        let bytes = u64::from(size);
        let who = if stack.cpl == 3 { Rights::User } else { Rights::Supervisor };
        let (lin, sp) = if self.long_mode() {
            let sp = stack.sp.wrapping_sub(bytes);
            (sp, sp)
        } else {
            let segment = &stack.segment;
            let mask = if segment.has(rights::DB) { 0xffff_ffff } else { 0xffff };
            let sp = stack.sp.wrapping_sub(bytes) & mask;
            let limit = u64::from(segment.limit);
            let last = sp + bytes - 1;
            let inside = if segment.has(rights::EXPAND_DOWN) {
                sp > limit && last <= mask
            } else {
                last <= limit
            };
            if !inside {
                let selector = segment.selector;
                return Err(self.selector_fault(vector::SS, selector));
            }
            (segment.base.wrapping_add(sp), stack.sp & !mask | sp)
        };
        match size {
            2 => self.store_as(lin, value as u16, who)?,
            4 => self.store_as(lin, value as u32, who)?,
            _ => self.store_as(lin, value, who)?,
        }
        stack.sp = sp;
        Ok(())
    }

    /// Makes a stack the current one.
    pub(super) fn use_stack(&mut self, stack: &Stack) {
        self.set_segment(sreg::SS, stack.segment);
        if self.wide() {
            self.set_gpr(gpr::RSP, stack.sp);
        } else {
            self.set_sp(stack.sp);
        }
    }
}

/// A stack that is about to be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    pub(super) segment: Segment,
    pub(super) sp: u64,
    pub(super) cpl: u8,
}
