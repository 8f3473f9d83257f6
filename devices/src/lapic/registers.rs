//! Access to the registers: the page of xAPIC mode (table 11-1), the MSRs of x2APIC mode (table
//! 11-6), IA32_APIC_BASE and CR8.

use std::sync::atomic::Ordering;

use super::delivery::{Destination, ERROR_REGISTER};
use super::local::{
    LVT_LEVEL, LVT_MASKED, LVT_REMOTE_IRR, Local, SVR_ENABLE, VERSION_REGISTER, reg,
};
use super::{BASE_BSP, BASE_EN, BASE_EXTD, Lapics, MsrFault};
use crate::bus::{BusError, Width};

/// IA32_APIC_BASE.
pub const MSR_APIC_BASE: u32 = 0x1b;
/// IA32_TSC_DEADLINE.
pub const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// First of the x2APIC's MSRs.
pub const MSR_X2APIC_FIRST: u32 = 0x800;
/// Last of the range that is reserved for the x2APIC's MSRs.
pub const MSR_X2APIC_LAST: u32 = 0x8ff;

/// Read in xAPIC mode. Writes to those that are read-only are ignored.
const EXISTING: &[usize] = &[
    reg::ID,
    reg::VERSION,
    reg::TPR,
    reg::PPR,
    reg::EOI,
    reg::LDR,
    reg::DFR,
    reg::SVR,
    reg::ESR,
    reg::ICR_LOW,
    reg::ICR_HIGH,
    reg::LVT_TIMER,
    reg::LVT_THERMAL,
    reg::LVT_PERFORMANCE,
    reg::LVT_LINT0,
    reg::LVT_LINT1,
    reg::LVT_ERROR,
    reg::INITIAL_COUNT,
    reg::CURRENT_COUNT,
    reg::DIVIDE,
];

fn exists(register: usize) -> bool {
    (reg::ISR..=reg::IRR_LAST).contains(&register) || EXISTING.contains(&register)
}

/// Bits of ICR's low half that are not reserved; bit 12, delivery status, is read-only.
const ICR_BITS: u32 = 0x000c_dfff;
/// Delivery status, in ICR and the LVT.
const DELIVERY_STATUS: u32 = 1 << 12;

impl Lapics {
    /// Bits of a register that are not reserved; read-only ones that the manual lets software write
    /// as they are read included.
    fn writable(&self, register: usize) -> u32 {
        const VECTOR: u32 = 0xff;
        const MODE: u32 = 7 << 8;
        const COMMON: u32 = VECTOR | DELIVERY_STATUS | LVT_MASKED;
        match register {
            reg::TPR => 0xff,
            reg::SVR => 0x13ff,
            reg::ICR_LOW => ICR_BITS,
            reg::LVT_TIMER if self.tsc.is_some() => COMMON | 3 << 17,
            reg::LVT_TIMER => COMMON | 1 << 17,
            reg::LVT_THERMAL | reg::LVT_PERFORMANCE => COMMON | MODE,
            reg::LVT_LINT0 | reg::LVT_LINT1 => COMMON | MODE | 1 << 13 | LVT_REMOTE_IRR | LVT_LEVEL,
            reg::LVT_ERROR => COMMON,
            reg::INITIAL_COUNT => u32::MAX,
            reg::DIVIDE => 0xb,
            _ => 0,
        }
    }

    fn read_register(&self, cpu: usize, local: &Local, register: usize) -> u32 {
        match register {
            reg::VERSION => VERSION_REGISTER,
            reg::PPR => local.ppr(),
            reg::CURRENT_COUNT => self.current_count(cpu),
            _ => local.get(register),
        }
    }

    /// Writes what both modes have in common; `value` has no reserved bit set.
    fn write_register(&self, cpu: usize, local: &Local, register: usize, value: u32) {
        match register {
            reg::TPR => {
                local.set(reg::TPR, value);
                self.priority_fell(cpu);
            }
            reg::EOI => self.end_of_interrupt(cpu),
            reg::SVR => {
                local.set(reg::SVR, value);
                if value & SVR_ENABLE == 0 {
                    // Section 11.4.7.2: the mask bits are set and stay so.
                    for entry in reg::LVT_TIMER..=reg::LVT_ERROR {
                        local.change(entry, 0, LVT_MASKED);
                    }
                }
            }
            reg::ESR => local.latch_errors(),
            reg::LVT_TIMER..=reg::LVT_ERROR => self.write_lvt(cpu, local, register, value),
            reg::INITIAL_COUNT => self.write_initial_count(cpu, value),
            reg::DIVIDE => self.write_divide(cpu, value),
            _ => {}
        }
    }

    fn write_lvt(&self, cpu: usize, local: &Local, register: usize, value: u32) {
        let mut value = value & !(DELIVERY_STATUS | LVT_REMOTE_IRR);
        if local.get(reg::SVR) & SVR_ENABLE == 0 {
            value |= LVT_MASKED;
        }
        match register {
            reg::LVT_TIMER => self.write_timer_entry(cpu, value),
            reg::LVT_LINT0 => {
                // Remote IRR is a level-triggered entry's alone.
                let keep = if value & LVT_LEVEL != 0 { LVT_REMOTE_IRR } else { 0 };
                local.change(register, !keep, value);
                self.look_at_pins(cpu);
            }
            _ => {
                local.set(register, value);
                if register == reg::LVT_LINT1 {
                    self.look_at_pins(cpu);
                }
            }
        }
    }

    // xAPIC mode.

    /// Reads from the CPU's register page (section 11.4.1: 32 bits at multiples of 16; narrower
    /// reads inside them are served, everything else is [`BusError::Refused`]).
    pub fn read(&self, cpu: usize, offset: u64, width: Width) -> Result<u64, BusError> {
        let local = self.locals.get(cpu).ok_or(BusError::Refused)?;
        let byte = offset & 0xf;
        if offset >= super::PAGE_SIZE || byte + width.bytes() > 4 {
            return Err(BusError::Refused);
        }
        let register = (offset >> 4) as usize;
        if !exists(register) {
            self.error(cpu, ERROR_REGISTER);
            return Ok(0);
        }
        let value = self.read_register(cpu, local, register);
        Ok(u64::from(value) >> (8 * byte) & width.mask())
    }

    /// Writes to the CPU's register page: 32 bits at multiples of 16; everything else is
    /// [`BusError::Refused`].
    pub fn write(&self, cpu: usize, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        let local = self.locals.get(cpu).ok_or(BusError::Refused)?;
        if offset >= super::PAGE_SIZE || offset & 0xf != 0 || width != Width::Word {
            return Err(BusError::Refused);
        }
        let (register, value) = ((offset >> 4) as usize, value as u32);
        match register {
            _ if !exists(register) => self.error(cpu, ERROR_REGISTER),
            reg::ID => local.set(reg::ID, value & 0xff00_0000),
            reg::LDR => local.set(reg::LDR, value & 0xff00_0000),
            reg::DFR => local.set(reg::DFR, value | 0x0fff_ffff),
            reg::ICR_HIGH => local.set(reg::ICR_HIGH, value & 0xff00_0000),
            reg::ICR_LOW => {
                let command = value & ICR_BITS & !DELIVERY_STATUS;
                local.set(reg::ICR_LOW, command);
                let destination = (local.get(reg::ICR_HIGH) >> 24) as u8;
                let logical = command >> 11 & 1 != 0;
                self.send_ipi(cpu, command, Destination::narrow(logical, destination));
            }
            _ => {
                let value = value & self.writable(register);
                self.write_register(cpu, local, register, value);
            }
        }
        Ok(())
    }

    // x2APIC mode.

    /// Whether the MSR is one of the LAPIC's.
    pub fn is_msr(msr: u32) -> bool {
        matches!(msr, MSR_APIC_BASE | MSR_TSC_DEADLINE | MSR_X2APIC_FIRST..=MSR_X2APIC_LAST)
    }

    /// RDMSR of one of the LAPIC's MSRs.
    pub fn read_msr(&self, cpu: usize, msr: u32) -> Result<u64, MsrFault> {
        let local = self.locals.get(cpu).ok_or(MsrFault)?;
        match msr {
            MSR_APIC_BASE => return Ok(local.base.load(Ordering::Relaxed)),
            MSR_TSC_DEADLINE => return self.read_tsc_deadline(cpu),
            _ => {}
        }
        let register = x2apic_register(local, msr)?;
        match register {
            reg::EOI | reg::SELF_IPI => Err(MsrFault), // write-only
            reg::ICR_LOW => {
                let high = u64::from(local.get(reg::ICR_HIGH));
                Ok(high << 32 | u64::from(local.get(reg::ICR_LOW)))
            }
            _ => Ok(self.read_register(cpu, local, register).into()),
        }
    }

    /// WRMSR of one of the LAPIC's MSRs.
    pub fn write_msr(&self, cpu: usize, msr: u32, value: u64) -> Result<(), MsrFault> {
        let local = self.locals.get(cpu).ok_or(MsrFault)?;
        match msr {
            MSR_APIC_BASE => return self.write_base(local, value),
            MSR_TSC_DEADLINE => return self.write_tsc_deadline(cpu, value),
            _ => {}
        }
        let register = x2apic_register(local, msr)?;
        match register {
            reg::SELF_IPI => return self.send_self(cpu, value),
            reg::ICR_LOW => {
                let (command, destination) = (value as u32, (value >> 32) as u32);
                if command & !ICR_BITS != 0 {
                    return Err(MsrFault);
                }
                let command = command & !DELIVERY_STATUS;
                local.set(reg::ICR_LOW, command);
                local.set(reg::ICR_HIGH, destination);
                let destination = match command >> 11 & 1 {
                    0 => Destination::Physical(destination),
                    _ => Destination::Logical(destination),
                };
                self.send_ipi(cpu, command, destination);
                return Ok(());
            }
            reg::ID | reg::VERSION | reg::PPR | reg::LDR | reg::CURRENT_COUNT => {
                return Err(MsrFault); // read-only
            }
            reg::ISR..=reg::IRR_LAST => return Err(MsrFault), // read-only
            _ => {}
        }
        // EOI and ESR take 0 alone (sections 11.12.1.2 and 11.5.3).
        let value = u32::try_from(value).map_err(|_| MsrFault)?;
        if value & !self.writable(register) != 0 {
            return Err(MsrFault);
        }
        self.write_register(cpu, local, register, value);
        Ok(())
    }

    // IA32_APIC_BASE and CR8.

    /// Whether no reserved bit of IA32_APIC_BASE is set.
    pub(super) fn is_base_valid(&self, value: u64) -> bool {
        let address = ((1 << self.physical_bits) - 1) & !0xfff;
        let extended = if self.x2apic { BASE_EXTD } else { 0 };
        value & !(address | BASE_BSP | BASE_EN | extended) == 0
    }

    /// Section 11.12.5, figure 11-27: x2APIC mode is entered from xAPIC mode and left to disabled.
    fn write_base(&self, local: &Local, value: u64) -> Result<(), MsrFault> {
        const MODE: u64 = BASE_EN | BASE_EXTD;
        let old = local.base.load(Ordering::Relaxed);
        let change = (old & MODE, value & MODE);
        let refused = matches!(change, (_, BASE_EXTD) | (0, MODE) | (MODE, BASE_EN));
        if refused || !self.is_base_valid(value) {
            return Err(MsrFault);
        }
        local.base.store(value, Ordering::SeqCst);
        match change {
            (old, 0) if old != 0 => local.disable(),
            (BASE_EN, MODE) => local.enter_x2apic(),
            _ => {}
        }
        Ok(())
    }

    /// CR8: bits 7 to 4 of the task priority.
    pub fn cr8(&self, cpu: usize) -> u64 {
        self.locals.get(cpu).map_or(0, |local| (local.get(reg::TPR) >> 4).into())
    }

    /// MOV to CR8 of a value of 4 bits; bits 3 to 0 of the task priority become 0 (section 11.8.6).
    pub fn set_cr8(&self, cpu: usize, value: u64) {
        if let Some(local) = self.locals.get(cpu) {
            local.set(reg::TPR, (value as u32 & 0xf) << 4);
            self.priority_fell(cpu);
        }
    }
}

/// The register of an x2APIC MSR (table 11-6); none outside x2APIC mode.
fn x2apic_register(local: &Local, msr: u32) -> Result<usize, MsrFault> {
    let register = msr.checked_sub(MSR_X2APIC_FIRST).ok_or(MsrFault)? as usize;
    let there = match register {
        reg::DFR | reg::ICR_HIGH => false,
        reg::SELF_IPI => true,
        _ => exists(register),
    };
    if there && local.enabled() && local.x2apic() { Ok(register) } else { Err(MsrFault) }
}
