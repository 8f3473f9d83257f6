//! Far transfers: what loads CS, and stacks of other levels with it (SDM vol. 3, 6.8; vol. 2, "JMP", "CALL", "RET").

use super::core::Core;
use super::fault::{Fault, Stop, vector};
use super::insn::Int;
use super::paging::Rights;
use super::seg::{Descriptor, is_null, system};
use super::state::{Segment, gpr, rights, sreg};
use super::task::Switch;

/// A stack that is about to be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    pub(super) segment: Segment,
    pub(super) sp: u64,
    pub(super) cpl: u8,
}

impl Core {
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
        // Virtual interrupts are looked at by level 3 alone.
        self.poll |= cpl != self.cpu.cpl;
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
        if matches!(kind, system::TSS16 | system::TSS | system::TASK) && !self.long_mode() {
            let switch = if call { Switch::Call } else { Switch::Jump };
            return self.jump_to_task(selector, gate, switch);
        }
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
        // JMP cannot change the level, and says so before it looks whether the code is there.
        if !call && !code.is_conforming() && code.dpl() != self.cpu.cpl {
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

    /// After a return to a less privileged level: segments that it must not see become null. Their bases stay, which
    /// 64-bit mode goes on using for FS and GS.
    fn drop_inner_segments(&mut self) {
        for number in [sreg::ES, sreg::DS, sreg::FS, sreg::GS] {
            let segment = *self.segment(number);
            let conforming = segment.has(rights::S | rights::CODE | rights::EXPAND_DOWN);
            let usable = !segment.has(rights::UNUSABLE);
            if usable && !conforming && segment.dpl() < self.cpu.cpl {
                let null = Segment { base: segment.base, ..Segment::null(0) };
                self.set_segment(number, null);
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
