//! What is done about every reason to leave the guest.

use mimic_cpu::bus::Width;
use mimic_cpu::run::{Budget, Exit};

use super::vcpu::Left;
use super::{Kvm, KvmError};

/// Instructions that the interpreter performs where KVM cannot go on: often more than one in a row are of such a kind,
/// and moving the state costs as much as interpreting thousands.
const FALLBACK: u64 = 16;
/// IA32_TSC_DEADLINE.
const TSC_DEADLINE: u32 = 0x6e0;

impl Kvm {
    /// Does what the guest was left for.
    pub(super) fn serve(&mut self, left: Left) -> Result<Option<Exit>, KvmError> {
        match left {
            Left::Called | Left::Look => {}
            Left::Port { out, port, size, count } => {
                self.device_accesses += 1;
                let width = match size {
                    1 => Width::Byte,
                    2 => Width::Half,
                    _ => Width::Word,
                };
                for index in 0..count {
                    if out {
                        let value = self.vcpu.port_value(index);
                        self.bus.port_out(self.hart, port, width, value.into());
                    } else {
                        let value = self.bus.port_in(self.hart, port, width);
                        self.vcpu.set_port_value(index, value as u32);
                    }
                }
            }
            Left::Mmio { gpa, len, write } => {
                self.device_accesses += 1;
                self.memory_access(gpa, len, write);
            }
            Left::Msr { index, write } => self.msr_access(index, write)?,
            Left::Halt => self.halted = true,
            Left::Shutdown => {
                let (rip, base) = self.vcpu.place();
                return Ok(Some(Exit::Dead(format!(
                    "processor {}: triple fault on KVM, which does not say of what; rip was {rip:#x}, CS's base \
                     {base:#x}; --engine interp tells more",
                    self.hart
                ))));
            }
            Left::Emulation => return self.fall_back().map(Some),
            Left::Refused(why) => {
                let (rip, base) = self.vcpu.place();
                return Ok(Some(Exit::Dead(format!(
                    "processor {}: KVM gives up at {:#x}: {why}",
                    self.hart,
                    base.wrapping_add(rip)
                ))));
            }
        }
        Ok(None)
    }

    fn memory_access(&mut self, gpa: u64, len: u32, write: Option<[u8; 8]>) {
        if write.is_some() && self.bus.ram_page(gpa).is_some() {
            // ROM.
            return;
        }
        let whole = match len {
            1 => Some(Width::Byte),
            2 => Some(Width::Half),
            4 => Some(Width::Word),
            8 => Some(Width::Double),
            _ => None,
        };
        // Parts of what crosses a page come as they are.
        let (width, step) = whole.map_or((Width::Byte, 1), |width| (width, len));
        let mut bytes = write.unwrap_or_default();
        for at in (0..len).step_by(step as usize) {
            let shift = 8 * at;
            let (here, mask) = (gpa + u64::from(at), width.zero_extend(u64::MAX));
            let value = u64::from_le_bytes(bytes);
            // What nothing answers reads as ones.
            if write.is_some() {
                let _ = self.bus.write(here, width, value >> shift & mask);
            } else {
                let read = self.bus.read(here, width).unwrap_or(mask);
                bytes = (value & !(mask << shift) | (read & mask) << shift).to_le_bytes();
            }
        }
        if write.is_none() {
            self.vcpu.set_mmio(bytes);
        }
    }

    /// RDMSR and WRMSR of what KVM does not know, or need not: they are the interpreter's.
    fn msr_access(&mut self, index: u32, write: Option<u64>) -> Result<(), KvmError> {
        // The guest reads another counter than the one that the canonical state tells of: they drift.
        let ahead = match index {
            TSC_DEADLINE => self.vcpu.tsc()?.wrapping_sub(self.interp.core().tsc()),
            _ => 0,
        };
        let shift = |value: u64, by: u64| if value == 0 { 0 } else { value.wrapping_add(by) };
        let core = self.interp.core_mut();
        let offset = core.cpu.msr.tsc_offset;
        let answer = match write {
            Some(value) => {
                core.write_msr(index, shift(value, ahead.wrapping_neg())).map(|()| value)
            }
            None => core.read_msr(index).map(|value| shift(value, ahead)),
        };
        self.vcpu.set_msr_answer(answer.ok());
        if self.interp.core().cpu.msr.tsc_offset != offset {
            self.vcpu.set_tsc(self.interp.core().tsc())?;
        }
        if write.is_some() {
            // The guest may have moved or disabled its local APIC, or have something to take now.
            let base = self.apic_base();
            self.vcpu.set_apic_base(base);
            self.signals.call_attention();
        }
        Ok(())
    }

    /// Has the interpreter perform some instructions.
    fn fall_back(&mut self) -> Result<Exit, KvmError> {
        self.settle()?;
        self.move_to_interp()?;
        let before = self.interp.retired();
        let offset = self.interp.core().cpu.msr.tsc_offset;
        let exit = self.interp.run(Budget { insns: Some(FALLBACK) });
        let retired = self.interp.retired() - before;
        self.counters.fallbacks += 1;
        self.counters.interpreted += retired;
        self.tsc_unknown |= self.interp.core().cpu.msr.tsc_offset != offset;
        // It may have taken a kick, so this is for whoever runs the hart.
        Ok(exit)
    }
}
