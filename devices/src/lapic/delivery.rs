//! Messages: who receives them, and what they do there.

use super::local::{LVT_LEVEL, LVT_MASKED, LVT_REMOTE_IRR, Local, SVR_SUPPRESS_EOI, reg};
use super::{Lapics, MsrFault};
use crate::msi::Msi;
use std::sync::Weak;

/// ESR bit 5 (section 11.5.3): vector below 16 in a message to be sent.
pub(super) const ERROR_SEND_VECTOR: u32 = 1 << 5;
/// ESR bit 6: vector below 16 in a message received, or in the LVT.
pub(super) const ERROR_RECEIVE_VECTOR: u32 = 1 << 6;
/// ESR bit 7: access to a register that there is not.
pub(super) const ERROR_REGISTER: u32 = 1 << 7;

/// What a message does: the delivery modes of section 11.6.1 and, for messages from outside, 11.11.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// The interrupt of the vector, at every destination.
    Fixed,
    /// The interrupt of the vector, at the destination of the lowest priority.
    LowestPriority,
    /// System management interrupt; these CPUs have no such mode, so it is lost.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up; the vector names the page where the CPU starts.
    StartUp,
    /// Interrupt whose vector the PIC supplies.
    ExtInt,
    /// A reserved encoding.
    Reserved,
}

impl DeliveryMode {
    fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => Self::Reserved,
        }
    }

    fn has_vector(self) -> bool {
        matches!(self, Self::Fixed | Self::LowestPriority)
    }
}

/// Who shall receive a message, section 11.6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The LAPIC of this id; `u32::MAX` is all of them.
    Physical(u32),
    /// The LAPICs that this set of logical ids names; `u32::MAX` is all of them.
    Logical(u32),
    /// This CPU alone.
    Cpu(usize),
    /// All CPUs.
    All,
    /// All but this CPU.
    Others(usize),
}

impl Destination {
    /// A destination of 8 bits, as xAPIC mode, IOAPIC and MSI have it; 255 as a physical one is all.
    pub fn narrow(logical: bool, destination: u8) -> Self {
        match (logical, destination) {
            (true, set) => Self::Logical(set.into()),
            (false, 0xff) => Self::Physical(u32::MAX),
            (false, id) => Self::Physical(id.into()),
        }
    }
}

/// An interrupt message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it does.
    pub mode: DeliveryMode,
    /// Vector; not used by every mode.
    pub vector: u8,
    /// Level-triggered: its EOI is broadcast.
    pub level: bool,
    /// Who receives it.
    pub destination: Destination,
}

impl From<Msi> for Message {
    /// Sections 11.11.1 and 11.11.2.
    fn from(message: Msi) -> Self {
        let Msi { address, data } = message;
        Self {
            mode: DeliveryMode::from_bits(data >> 8),
            vector: data as u8,
            level: data >> 15 & 1 != 0,
            destination: Destination::narrow(address >> 2 & 1 != 0, (address >> 12) as u8),
        }
    }
}

fn matches(local: &Local, cpu: usize, destination: Destination) -> bool {
    if !local.enabled() {
        return false;
    }
    match destination {
        Destination::Physical(u32::MAX) | Destination::Logical(u32::MAX) | Destination::All => true,
        Destination::Cpu(only) => cpu == only,
        Destination::Others(but) => cpu != but,
        Destination::Physical(id) if local.x2apic() => local.get(reg::ID) == id,
        Destination::Physical(id) => local.get(reg::ID) >> 24 == id,
        Destination::Logical(set) => logical_match(local, set),
    }
}

/// Section 11.6.2.2; in x2APIC mode section 11.12.10.1.
fn logical_match(local: &Local, set: u32) -> bool {
    let ldr = local.get(reg::LDR);
    if local.x2apic() {
        return ldr >> 16 == set >> 16 && ldr & set & 0xffff != 0;
    }
    let own = ldr >> 24;
    match local.get(reg::DFR) >> 28 {
        _ if set > 0xff => false,
        0xf => own & set != 0,
        0 => (set >> 4 == own >> 4 || set >> 4 == 0xf) && own & set & 0xf != 0,
        _ => false,
    }
}

impl Lapics {
    /// Delivers a message to all its destinations. From any thread; takes no lock.
    pub fn deliver(&self, message: Message) {
        let destinations = self
            .locals
            .iter()
            .enumerate()
            .filter(|&(cpu, local)| matches(local, cpu, message.destination));
        if message.mode == DeliveryMode::LowestPriority {
            // Section 11.6.2.4: the lowest processor priority of those that accept interrupts.
            let lowest = destinations
                .filter(|(_, local)| local.software_enabled())
                .min_by_key(|(_, local)| local.ppr() >> 4);
            if let Some((cpu, _)) = lowest {
                self.accept(cpu, message);
            }
        } else {
            destinations.for_each(|(cpu, _)| self.accept(cpu, message));
        }
    }

    /// A message has reached a CPU that it was meant for.
    fn accept(&self, cpu: usize, message: Message) {
        let local = &self.locals[cpu];
        match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                // Section 11.4.7.2: a LAPIC disabled by SVR answers to the other modes alone.
                if local.software_enabled() {
                    self.interrupt(cpu, message.vector, message.level);
                }
                return;
            }
            DeliveryMode::Nmi => local.ask_nmi(),
            DeliveryMode::Init => local.ask_init(),
            DeliveryMode::StartUp => local.ask_startup(message.vector),
            DeliveryMode::ExtInt => local.ask_external(),
            DeliveryMode::Smi | DeliveryMode::Reserved => {
                log::debug!(target: "lapic", "cpu {cpu}: {message:?} does nothing");
                return;
            }
        }
        self.calls(cpu);
    }

    fn interrupt(&self, cpu: usize, vector: u8, level: bool) {
        if vector < 16 {
            self.error(cpu, ERROR_RECEIVE_VECTOR);
        } else if self.locals[cpu].request(vector, level) {
            self.calls(cpu);
        }
    }

    /// Notes an error, and causes its interrupt.
    pub(super) fn error(&self, cpu: usize, error: u32) {
        let local = &self.locals[cpu];
        if local.note_error(error) {
            // An illegal vector there finds an error noted already, which ends the matter.
            self.lvt(cpu, reg::LVT_ERROR);
        }
    }

    /// Causes the interrupt of an LVT entry whose mode is always fixed.
    pub(super) fn lvt(&self, cpu: usize, register: usize) {
        let local = &self.locals[cpu];
        let entry = local.get(register);
        if local.enabled() && entry & LVT_MASKED == 0 {
            self.interrupt(cpu, entry as u8, false);
        }
    }

    // The pins, section 11.5.1.

    /// Pin LINT`pin` went high.
    pub(super) fn pin_rose(&self, cpu: usize, pin: u32) {
        let local = &self.locals[cpu];
        if !local.enabled() {
            // Section 11.4.3: the pins are INTR and NMI.
            if pin == 1 {
                local.ask_nmi();
            }
            self.calls(cpu);
            return;
        }
        let entry = local.get(reg::LVT_LINT0 + pin as usize);
        if entry & LVT_MASKED != 0 {
            return;
        }
        let mode = DeliveryMode::from_bits(entry >> 8);
        match mode {
            DeliveryMode::Fixed => self.pin_interrupt(cpu, pin, entry),
            // While the pin is high the PIC is asked; nothing is latched.
            DeliveryMode::ExtInt => self.calls(cpu),
            DeliveryMode::Nmi | DeliveryMode::Init => {
                let destination = Destination::Cpu(cpu);
                self.accept(cpu, Message { mode, vector: entry as u8, level: false, destination });
            }
            _ => log::debug!(target: "lapic", "cpu {cpu}: LINT{pin} as {mode:?} does nothing"),
        }
    }

    /// Whether what comes in at a LINT0 pin can become an NMI or INIT. (LINT1 leads nowhere, the pins that raise
    /// interrupts of the PIC are all there are.)
    #[must_use]
    pub fn has_unmaskable(&self) -> bool {
        self.locals.iter().any(|local| {
            let entry = local.get(reg::LVT_LINT0);
            let mode = DeliveryMode::from_bits(entry >> 8);
            entry & LVT_MASKED == 0 && matches!(mode, DeliveryMode::Nmi | DeliveryMode::Init)
        })
    }

    /// LINT1 is always edge-triggered.
    fn pin_interrupt(&self, cpu: usize, pin: u32, entry: u32) {
        let level = pin == 0 && entry & LVT_LEVEL != 0;
        if level && entry & LVT_REMOTE_IRR != 0 {
            return;
        }
        if level {
            self.locals[cpu].change(reg::LVT_LINT0, 0, LVT_REMOTE_IRR);
        }
        self.interrupt(cpu, entry as u8, level);
    }

    /// LINT0's entry was written or its interrupt has ended: what is level-triggered looks at the
    /// level.
    pub(super) fn look_at_pins(&self, cpu: usize) {
        let local = &self.locals[cpu];
        let entry = local.get(reg::LVT_LINT0);
        if local.pin(0)
            && entry & LVT_MASKED == 0
            && DeliveryMode::from_bits(entry >> 8) == DeliveryMode::Fixed
            && entry & LVT_LEVEL != 0
        {
            self.pin_interrupt(cpu, 0, entry);
        }
        if local.external_pending() {
            self.calls(cpu);
        }
    }

    // What the CPU sends.

    /// EOI, section 11.8.5.
    pub(super) fn end_of_interrupt(&self, cpu: usize) {
        let local = &self.locals[cpu];
        let Some((vector, level)) = local.end() else { return };
        if level {
            let entry = local.get(reg::LVT_LINT0);
            if entry & LVT_REMOTE_IRR != 0 && entry as u8 == vector {
                local.change(reg::LVT_LINT0, LVT_REMOTE_IRR, 0);
                self.look_at_pins(cpu);
            }
            if local.get(reg::SVR) & SVR_SUPPRESS_EOI == 0
                && let Some(ioapic) = self.ioapic.get().and_then(Weak::upgrade)
            {
                ioapic.end_of_interrupt(vector);
            }
        }
        self.priority_fell(cpu);
    }

    /// The processor priority may have fallen below a pending interrupt.
    pub(super) fn priority_fell(&self, cpu: usize) {
        if self.locals[cpu].deliverable().is_some() {
            self.calls(cpu);
        }
    }

    /// A write to ICR, section 11.6.1; `destination` is that of no shorthand.
    pub(super) fn send_ipi(&self, cpu: usize, command: u32, destination: Destination) {
        let mode = DeliveryMode::from_bits(command >> 8);
        let (level_deassert, vector) = (command >> 14 & 3 == 2, command as u8);
        if mode == DeliveryMode::Init && level_deassert {
            return; // INIT level de-assert: not since the Pentium 4
        }
        if mode.has_vector() && vector < 16 {
            self.error(cpu, ERROR_SEND_VECTOR);
            return;
        }
        if matches!(mode, DeliveryMode::ExtInt | DeliveryMode::Reserved) {
            return;
        }
        let destination = match command >> 18 & 3 {
            0 => destination,
            1 => Destination::Cpu(cpu),
            2 => Destination::All,
            _ => Destination::Others(cpu),
        };
        // An interprocessor interrupt is always edge-triggered (section 11.6.1, trigger mode).
        self.deliver(Message { mode, vector, level: false, destination });
    }

    /// SELF IPI, section 11.12.11.
    pub(super) fn send_self(&self, cpu: usize, vector: u64) -> Result<(), MsrFault> {
        let vector = u32::try_from(vector).ok().filter(|&v| v <= 0xff).ok_or(MsrFault)?;
        self.send_ipi(cpu, vector, Destination::Cpu(cpu));
        Ok(())
    }
}
