//! Segment registers and descriptors (SDM vol. 3, chapters 3 and 6).

use super::core::Core;
use super::fault::{Fault, Stop, vector};
use super::state::{Segment, rights, sreg};

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

    /// Sets the accessed bit of a descriptor in memory, in one step (SDM vol. 3, 9.1.2.1).
    pub(super) fn mark_accessed(
        &mut self,
        selector: u16,
        descriptor: Descriptor,
    ) -> Result<Descriptor, Stop> {
        const ACCESSED: u64 = 1 << 40;
        if descriptor.0 & ACCESSED == 0
            && let Some(lin) = self.descriptor_address(selector, 8)
        {
            self.update_system::<u8>(lin.wrapping_add(5), |rights| rights | 1)?;
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
}
