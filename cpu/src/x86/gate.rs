//! Delivery of exceptions and interrupts through the IDT, and the return from them (SDM vol. 3, chapters 7 and 21.1;
//! vol. 2, "INT n", "IRET").

use super::core::{Core, StepTrap};
use super::fault::{Fault, Stop, vector};
use super::flags::bit;
use super::insn::Int;
use super::seg::{Descriptor, is_null, system};
use super::state::{Segment, cr4, gpr, rights, sreg};
use super::task::Switch;
use super::transfer::Stack;

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The processor found an exception; INT1, too.
    Exception,
    /// INT n: gates check privilege.
    Int,
    /// INT3 and INTO: gates check privilege.
    Trap,
    /// A maskable interrupt, or NMI.
    External,
}

impl Source {
    /// The EXT bit of error codes.
    fn external(self) -> u32 {
        u32::from(matches!(self, Source::Exception | Source::External))
    }

    fn is_software(self) -> bool {
        matches!(self, Source::Int | Source::Trap)
    }
}

/// The bit of an error code that says that it names an entry of the IDT.
const IDT: u32 = 2;

/// Whether an exception during the delivery of `first` makes a double fault of both (SDM vol. 3, table 7-5).
#[must_use]
pub fn doubles(first: u8, second: u8) -> bool {
    let contributory =
        |v| matches!(v, vector::DE | vector::TS | vector::NP | vector::SS | vector::GP);
    match first {
        vector::PF => second == vector::PF || contributory(second),
        first => contributory(first) && contributory(second),
    }
}

impl Core {
    /// A software interrupt whose return address is `back`.
    ///
    /// # Errors
    /// Exceptions of its delivery.
    pub fn software_interrupt(
        &mut self,
        vector: u8,
        source: Source,
        back: u64,
    ) -> Result<(), Stop> {
        // "RF is pushed as 0, since it was cleared at the start of the software interrupt" (SDM vol. 3, 18.3.1.1).
        self.cpu.rflags &= !bit::RF;
        if self.v86() && source == Source::Int && self.is_redirected(vector)? {
            self.deliver_redirected(vector, back)?;
        } else {
            self.deliver(vector, source, None, back)?;
        }
        self.step_trap = StepTrap::Never;
        Ok(())
    }

    /// Whether INT n of virtual-8086 mode leads to the task's own handler, by the bitmap in front of that of I/O ports
    /// (SDM vol. 3, 22.3.3 and table 22-2).
    fn is_redirected(&mut self, vector: u8) -> Result<bool, Stop> {
        let extended = self.cpu.cr4 & cr4::VME != 0;
        if extended {
            let map = self.io_map()?.wrapping_sub(32).wrapping_add(u64::from(vector / 8));
            if map > u64::from(self.cpu.tr.limit) {
                return Err(self.gp(0));
            }
            let bits: u8 = self.load_system(self.cpu.tr.base.wrapping_add(map))?;
            if bits >> (vector % 8) & 1 == 0 {
                return Ok(true);
            }
        }
        if self.iopl() < 3 { Err(self.gp(0)) } else { Ok(false) }
    }

    /// Enters the task's own handler. Where IOPL keeps it from IF, VIF stands for that.
    fn deliver_redirected(&mut self, vector: u8, back: u64) -> Result<(), Stop> {
        let entry: u32 = self.load_system(4 * u64::from(vector))?;
        let flags = self.virtual_flags();
        let masked = if self.iopl() < 3 { bit::VIF } else { bit::IF };
        let cs = u64::from(self.segment(sreg::CS).selector);
        self.push_sized(2, &[flags, cs, back])?;
        self.set_rflags(self.rflags() & !(masked | bit::TF));
        self.set_paragraph(sreg::CS, (entry >> 16) as u16);
        self.next_rip = u64::from(entry & 0xffff);
        Ok(())
    }

    /// Flags as PUSHF and INT n of virtual-8086 mode show them to a task: if it may not change IF, VIF in its place and
    /// IOPL 3 (SDM vol. 3, 22.3.2 and 22.3.3.6).
    pub(super) fn virtual_flags(&self) -> u64 {
        let flags = self.rflags() & !(bit::RF | bit::VM);
        if self.iopl() == 3 {
            return flags;
        }
        let enabled = if self.has_flag(bit::VIF) { bit::IF } else { 0 };
        flags & !bit::IF | bit::IOPL | enabled
    }

    /// Sets flags as POPF and IRET of 16 bits set them in virtual-8086 mode for a task that may not change IF.
    ///
    /// # Errors
    /// #GP(0) if the extensions are off, or an interrupt waits that the flags let in, or for TF.
    pub(super) fn set_virtual_flags(&mut self, flags: u64) -> Result<(), Stop> {
        let pending = flags & bit::IF != 0 && self.has_flag(bit::VIP);
        if self.cpu.cr4 & cr4::VME == 0 || flags & bit::TF != 0 || pending {
            return Err(self.gp(0));
        }
        let mask = bit::ARITH | bit::DF | bit::NT;
        let enabled = if flags & bit::IF != 0 { bit::VIF } else { 0 };
        self.set_rflags(self.rflags() & !(mask | bit::VIF) | flags & mask | enabled);
        Ok(())
    }

    /// Whether a virtual interrupt is due that software has waited for: #GP(0) tells (SDM vol. 3, 22.3.2, 22.4).
    pub(super) fn virtual_interrupt_is_due(&self) -> bool {
        let extension = if self.v86() { cr4::VME } else { cr4::PVI };
        self.cpu.rflags & (bit::VIF | bit::VIP) == bit::VIF | bit::VIP
            && self.cpu.cpl == 3
            && self.protected()
            && self.cpu.cr4 & extension != 0
    }

    /// Enters the handler of `vector` with return address `back`.
    ///
    /// # Errors
    /// Exceptions of the delivery; registers and segments are as before.
    pub fn deliver(
        &mut self,
        vector: u8,
        source: Source,
        error: Option<u32>,
        back: u64,
    ) -> Result<(), Stop> {
        let delivered = if !self.protected() {
            self.deliver_real(vector, back)
        } else if self.long_mode() {
            self.deliver_long(vector, source, error, back)
        } else {
            self.deliver_protected(vector, source, error, back)
        };
        // Whatever a delivery raises says whether its event came from outside of the program (SDM vol. 3, 7.13).
        if delivered.is_err()
            && matches!(self.fault.vector, vector::TS | vector::NP | vector::SS | vector::GP)
            && let Some(error) = &mut self.fault.error
        {
            *error |= source.external();
        }
        delivered
    }

    fn deliver_real(&mut self, vector: u8, back: u64) -> Result<(), Stop> {
        let at = 4 * u64::from(vector);
        if at + 3 > u64::from(self.cpu.idtr.limit) {
            return Err(self.gp(0));
        }
        let entry: u32 = self.load_system(self.cpu.idtr.base.wrapping_add(at))?;
        let cs = u64::from(self.segment(sreg::CS).selector);
        self.push_sized(2, &[self.rflags(), cs, back])?;
        self.set_rflags(self.rflags() & !(bit::IF | bit::TF | bit::AC | bit::RF));
        self.set_paragraph(sreg::CS, (entry >> 16) as u16);
        self.next_rip = u64::from(entry & 0xffff);
        Ok(())
    }

    /// #GP or #NP with an entry of the IDT as its error code.
    fn idt_fault(&mut self, fault: u8, vector: u8, source: Source) -> Stop {
        let error = u32::from(vector) << 3 | IDT | source.external();
        self.raise(Fault::with(fault, error))
    }

    /// The code segment that a gate names, checked; errors tell whether the event was external.
    fn gate_code(&mut self, gate: Descriptor, source: Source) -> Result<Descriptor, Stop> {
        let ext = source.external();
        let selector = gate.gate_selector();
        if is_null(selector) {
            return Err(self.raise(Fault::with(vector::GP, ext)));
        }
        let error = u32::from(selector & !3) | ext;
        let Some(lin) = self.descriptor_address(selector, 8) else {
            return Err(self.raise(Fault::with(vector::GP, error)));
        };
        let code = Descriptor(self.load_system(lin)?);
        let sound = code.is_code()
            && code.dpl() <= self.cpu.cpl
            && (!self.long_mode() || code.has(rights::L) && !code.has(rights::DB));
        if !sound {
            return Err(self.raise(Fault::with(vector::GP, error)));
        }
        if !code.has(rights::P) {
            return Err(self.raise(Fault::with(vector::NP, error)));
        }
        Ok(code)
    }

    /// What delivery makes of RFLAGS.
    fn masked_flags(&self, interrupt_gate: bool) -> u64 {
        let mut cleared = bit::TF | bit::NT | bit::RF | bit::VM;
        if interrupt_gate {
            cleared |= bit::IF;
        }
        self.rflags() & !cleared
    }

    fn deliver_long(
        &mut self,
        vector: u8,
        source: Source,
        error: Option<u32>,
        back: u64,
    ) -> Result<(), Stop> {
        let at = 16 * u64::from(vector);
        if at + 15 > u64::from(self.cpu.idtr.limit) {
            return Err(self.idt_fault(vector::GP, vector, source));
        }
        let lin = self.cpu.idtr.base.wrapping_add(at);
        let gate = Descriptor(self.load_system(lin)?);
        let upper: u64 = self.load_system(lin.wrapping_add(8))?;
        let kind = gate.system();
        if !matches!(kind, Some(system::INT | system::TRAP))
            || source.is_software() && gate.dpl() < self.cpu.cpl
        {
            return Err(self.idt_fault(vector::GP, vector, source));
        }
        if !gate.has(rights::P) {
            return Err(self.idt_fault(vector::NP, vector, source));
        }
        let code = self.gate_code(gate, source)?;
        let cpl = if code.is_conforming() { self.cpu.cpl } else { code.dpl() };
        let ist = gate.0 >> 32 & 7;
        let sp = if ist != 0 {
            self.tss_word(36 + 8 * (ist - 1))?
        } else if cpl < self.cpu.cpl {
            self.tss_rsp(cpl)?
        } else {
            self.gpr(gpr::RSP)
        };
        let (old_ss, old_sp) = (*self.segment(sreg::SS), self.gpr(gpr::RSP));
        // Level changes load a null stack segment, others keep the one there is.
        let mut stack = if cpl < self.cpu.cpl {
            self.long_stack(cpl, sp & !15)
        } else {
            Stack { segment: old_ss, sp: sp & !15, cpl }
        };
        let cs = self.segment(sreg::CS).selector;
        let frame = [u64::from(old_ss.selector), old_sp, self.rflags(), u64::from(cs), back];
        for value in frame.into_iter().chain(error.map(u64::from)) {
            if self.push_onto(&mut stack, 8, value).is_err() {
                if std::mem::take(&mut self.by_segment) {
                    self.fault = Fault::with(vector::SS, 0);
                }
                return Err(Stop);
            }
        }
        let flags = self.masked_flags(kind == Some(system::INT));
        let offset = gate.gate_offset() | upper << 32;
        if !self.is_canonical(offset) {
            return Err(self.gp(0));
        }
        let code = self.mark_accessed(gate.gate_selector(), code)?;
        self.enter_code(code.segment(gate.gate_selector()), cpl, offset)?;
        self.use_stack(&stack);
        self.set_rflags(flags);
        Ok(())
    }

    fn deliver_protected(
        &mut self,
        vector: u8,
        source: Source,
        error: Option<u32>,
        back: u64,
    ) -> Result<(), Stop> {
        let at = 8 * u64::from(vector);
        if at + 7 > u64::from(self.cpu.idtr.limit) {
            return Err(self.idt_fault(vector::GP, vector, source));
        }
        let gate = Descriptor(self.load_system(self.cpu.idtr.base.wrapping_add(at))?);
        let kind = gate.system();
        let known = matches!(
            kind,
            Some(system::INT16 | system::TRAP16 | system::INT | system::TRAP | system::TASK)
        );
        if !known || source.is_software() && gate.dpl() < self.cpu.cpl {
            return Err(self.idt_fault(vector::GP, vector, source));
        }
        if !gate.has(rights::P) {
            return Err(self.idt_fault(vector::NP, vector, source));
        }
        if kind == Some(system::TASK) {
            self.next_rip = back;
            return self.switch_task(gate.gate_selector(), Switch::Event(error, source.external()));
        }
        let code = self.gate_code(gate, source)?;
        let size = if matches!(kind, Some(system::INT | system::TRAP)) { 4 } else { 2 };
        let v86 = self.v86();
        let cpl = if code.is_conforming() { self.cpu.cpl } else { code.dpl() };
        if v86 && cpl != 0 {
            let error = u32::from(gate.gate_selector() & !3) | source.external();
            return Err(self.raise(Fault::with(vector::GP, error)));
        }
        let inner = cpl < self.cpu.cpl;
        let (old_ss, old_sp) = (*self.segment(sreg::SS), self.gpr(gpr::RSP));
        let mut stack =
            if inner { self.tss_stack(cpl)? } else { Stack { segment: old_ss, sp: old_sp, cpl } };
        let mut frame = Vec::with_capacity(10);
        if v86 {
            for number in [sreg::GS, sreg::FS, sreg::DS, sreg::ES] {
                frame.push(u64::from(self.segment(number).selector));
            }
        }
        if inner {
            frame.extend([u64::from(old_ss.selector), old_sp]);
        }
        let cs = self.segment(sreg::CS).selector;
        frame.extend([self.rflags(), u64::from(cs), back]);
        frame.extend(error.map(u64::from));
        for value in frame {
            if self.push_onto(&mut stack, size, value).is_err() {
                if !inner && self.fault.vector == vector::SS {
                    // Only a new stack is named.
                    self.fault.error = Some(0);
                }
                return Err(Stop);
            }
        }
        if gate.gate_offset() > u64::from(code.limit()) {
            return Err(self.gp(0));
        }
        let code = self.mark_accessed(gate.gate_selector(), code)?;
        let flags = self.masked_flags(matches!(kind, Some(system::INT | system::INT16)));
        let old_flags = self.rflags();
        if v86 {
            // CS is loaded as protected mode loads it.
            self.set_rflags(old_flags & !bit::VM);
        }
        if self.enter_code(code.segment(gate.gate_selector()), cpl, gate.gate_offset()).is_err() {
            self.set_rflags(old_flags);
            return Err(Stop);
        }
        if v86 {
            for number in [sreg::GS, sreg::FS, sreg::DS, sreg::ES] {
                self.set_segment(number, Segment::null(0));
            }
        }
        self.use_stack(&stack);
        self.set_rflags(flags);
        Ok(())
    }

    /// IRET with operands of type `T`.
    ///
    /// # Errors
    /// Exceptions of the return.
    pub(super) fn interrupt_return<T: Int>(&mut self) -> Result<(), Stop> {
        let virtual_flags = self.v86() && self.iopl() < 3;
        if virtual_flags && (T::BITS != 16 || self.cpu.cr4 & cr4::VME == 0) {
            return Err(self.gp(0));
        }
        if self.protected() && !self.v86() && self.has_flag(bit::NT) {
            return if self.long_mode() { Err(self.gp(0)) } else { self.return_to_task() };
        }
        let offset = self.peek::<T>(0)?.widen();
        let selector = self.peek::<T>(T::BYTES)?.widen() as u16;
        let flags = self.peek::<T>(2 * T::BYTES)?.widen();
        self.cpu.nmi_blocked = false;
        if self.paragraphs() {
            if offset > u64::from(self.segment(sreg::CS).limit) {
                return Err(self.gp(0));
            }
            if virtual_flags {
                self.set_virtual_flags(flags)?;
            } else {
                let cpl = self.cpu.cpl;
                self.load_flags::<T>(flags, cpl);
            }
            self.release(3 * T::BYTES);
            self.set_paragraph(sreg::CS, selector);
            self.next_rip = offset;
            return Ok(());
        }
        if flags & bit::VM != 0 && T::BITS == 32 && self.cpu.cpl == 0 && !self.long_mode() {
            return self.return_to_v86(offset, selector, flags);
        }
        self.return_to::<T>(selector, offset, 3 * T::BYTES, 0, Some(flags))
    }

    fn return_to_v86(&mut self, offset: u64, cs: u16, flags: u64) -> Result<(), Stop> {
        let sp = self.peek::<u32>(12)?;
        let mut selectors = [0u16; 5];
        for (selector, at) in selectors.iter_mut().zip((16..).step_by(4)) {
            *selector = self.peek::<u32>(at)? as u16;
        }
        self.cpu.cpl = 3;
        self.set_rflags(flags & 0x3f_7fd5 | bit::FIXED);
        for (number, selector) in
            [sreg::SS, sreg::ES, sreg::DS, sreg::FS, sreg::GS].into_iter().zip(selectors)
        {
            self.set_paragraph(number, selector);
        }
        self.set_paragraph(sreg::CS, cs);
        self.set_gpr(gpr::RSP, u64::from(sp));
        self.next_rip = offset & 0xffff;
        Ok(())
    }

    /// Loads flags as IRET does at level `cpl`, where it was performed.
    pub(super) fn load_flags<T: Int>(&mut self, flags: u64, cpl: u8) {
        let mut mask = bit::ARITH | bit::TF | bit::DF | bit::NT;
        if T::BITS > 16 {
            mask |= bit::RF | bit::AC | bit::ID;
        }
        if cpl <= self.iopl() || !self.protected() {
            mask |= bit::IF;
        }
        if cpl == 0 {
            mask |= bit::IOPL;
            if T::BITS > 16 {
                mask |= bit::VIF | bit::VIP;
            }
        }
        self.set_rflags(self.rflags() & !mask | flags & mask);
    }

    /// Whether software may use I/O ports `port` and the `bytes - 1` after it without asking the TSS.
    fn ports_are_free(&self) -> bool {
        !self.protected() || !self.v86() && self.cpu.cpl <= self.iopl()
    }

    /// Where the TSS says that its I/O permission bitmap is.
    fn io_map(&mut self) -> Result<u64, Stop> {
        let wide = self.cpu.tr.rights & rights::TYPE >= system::TSS;
        if !wide || self.cpu.tr.limit < 103 {
            return Err(self.gp(0));
        }
        Ok(self.load_system::<u16>(self.cpu.tr.base.wrapping_add(102))?.into())
    }

    /// Checks the right to access an I/O port (SDM vol. 1, 19.5).
    ///
    /// # Errors
    /// #GP(0).
    pub fn check_port(&mut self, port: u16, width: crate::bus::Width) -> Result<(), Stop> {
        self.meets_port(port, width.bytes());
        if self.ports_are_free() {
            return Ok(());
        }
        let at = self.io_map()? + u64::from(port / 8);
        // Two bytes are always read.
        if at + 1 > u64::from(self.cpu.tr.limit) {
            return Err(self.gp(0));
        }
        let bits: u16 = self.load_system(self.cpu.tr.base.wrapping_add(at))?;
        let asked = ((1u16 << width.bytes()) - 1) << (port % 8);
        if bits & asked != 0 { Err(self.gp(0)) } else { Ok(()) }
    }
}
