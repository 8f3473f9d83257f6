//! The local APICs of a PC's processors, and the messages between them.
//!
//! Source: Intel SDM vol. 3 (order number 325384), chapter 11; section numbers in this folder are its
//! own. One object holds all LAPICs of a machine:
//!
//! ```text
//! CPU's access   -> registers.rs (xAPIC page, x2APIC MSRs) -> local.rs (one LAPIC's state)
//! ICR, MSI, pins -> delivery.rs (destination, arbitration) -> local.rs of each destination -> attention
//! clock          -> timer.rs    -> LVT                     -> local.rs                     -> attention
//! ```
//!
//! A LAPIC's registers are atomics. Its own CPU alone writes most of them; others set bits in IRR and
//! in the word of requests, so that sending takes no lock, and a CPU asks with a few loads whether an
//! interrupt is pending. The timer's state alone has a mutex.
//!
//! What the board connects: [`CpuAttention`] (somebody wants something of this CPU), the PIC
//! ([`ExtIntSource`], its INTR at LINT0 of the first CPU), the IOAPIC ([`EoiSink`]), and [`Tsc`].
//! Pins LINT0 and LINT1 of CPU n are the inputs 2n and 2n + 1 of the [`IrqSink`]. After reset they are
//! masked, and the PIC reaches no CPU until firmware has changed that; a board that boots without
//! firmware calls [`Lapics::set_virtual_wire`].

mod delivery;
mod local;
pub mod registers;
mod timer;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

use serde::{Deserialize, Serialize};

pub use delivery::{DeliveryMode, Destination, Message};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check};
use crate::clock::{Clock, TimerQueue};
use crate::irq::IrqSink;
use crate::msi::{Msi, MsiSink};
use local::{Local, LocalState, reg};

/// Where the registers lie after reset, in each CPU's own view of memory.
pub const DEFAULT_BASE: u64 = 0xfee0_0000;
/// Bytes of the register page.
pub const PAGE_SIZE: u64 = 0x1000;
/// Ticks of the timer per second before division: what CPUID leaf 15H and firmware tables may name.
pub const TIMER_HZ: u64 = 1_000_000_000;

/// IA32_APIC_BASE (section 11.4.4): this is the bootstrap processor.
pub const BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: x2APIC mode.
pub const BASE_EXTD: u64 = 1 << 10;
/// IA32_APIC_BASE: global enable.
pub const BASE_EN: u64 = 1 << 11;

const VERSION: u32 = 1;

/// Hears that a CPU has something to look at: [`Lapics::interrupt_pending`] or
/// [`Lapics::take_requests`] may have changed.
pub trait CpuAttention: Send + Sync {
    /// Called from any thread, the CPU's own included, possibly with a device's lock held: note it,
    /// wake the CPU if it sleeps, and return.
    fn call(&self, cpu: usize);
}

/// Answers an interrupt acknowledge cycle in place of the LAPIC: the PIC.
pub trait ExtIntSource: Send + Sync {
    /// The vector of the interrupt that the CPU takes.
    fn acknowledge(&self) -> u8;
}

/// Hears of the end of level-triggered interrupts: the IOAPIC.
pub trait EoiSink: Send + Sync {
    /// A CPU has finished the interrupt of this vector.
    fn end_of_interrupt(&self, vector: u8);
}

/// The time stamp counters of the machine's CPUs.
pub trait Tsc: Send + Sync {
    /// The counter of `cpu` now.
    fn now(&self, cpu: usize) -> u64;
    /// Guest time in nanoseconds at which the counter of `cpu` reaches `tsc` or has passed it;
    /// [`crate::clock::NEVER`] if that is out of range.
    fn deadline(&self, cpu: usize, tsc: u64) -> u64;
}

/// The access of an MSR is refused with #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("general protection")]
pub struct MsrFault;

/// What others ask of a CPU besides interrupts. To be looked at in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// INIT: the CPU goes to the state after INIT and, unless it is the bootstrap processor, waits
    /// for a start-up message. Its LAPIC has been reset already.
    pub init: bool,
    /// A start-up message with this vector: the CPU starts at vector * 0x1000 if it waits for one,
    /// otherwise the message is lost.
    pub startup: Option<u8>,
    /// An NMI. If another one came while nobody looked, [`Lapics::has_requests`] goes on saying so: the CPU keeps it
    /// while it serves the first.
    pub nmi: bool,
}

/// What differs between boards.
pub struct Config {
    /// APIC id of each CPU; the first CPU is the bootstrap processor.
    pub ids: Vec<u32>,
    /// MAXPHYADDR of the CPUs, in bits.
    pub physical_bits: u32,
    /// Whether the CPUs have x2APIC mode.
    pub x2apic: bool,
    /// The time stamp counters, if the timers have TSC-deadline mode.
    pub tsc: Option<Arc<dyn Tsc>>,
}

/// All LAPICs of a machine. CPUs are named by their index in [`Config::ids`]; calls for a CPU that
/// there is not do nothing.
pub struct Lapics {
    // What the board attached.
    clock: Clock,
    tsc: Option<Arc<dyn Tsc>>,
    attention: Arc<dyn CpuAttention>,
    pic: OnceLock<Weak<dyn ExtIntSource>>,
    ioapic: OnceLock<Weak<dyn EoiSink>>,
    physical_bits: u32,
    x2apic: bool,

    // What the guest can tell.
    locals: Vec<Local>,
}

#[derive(Serialize, Deserialize)]
struct LapicsState {
    locals: Vec<LocalState>,
}

impl Lapics {
    /// The LAPICs of `config`'s CPUs after power-on.
    pub fn new(
        config: Config,
        clock: Clock,
        timers: &TimerQueue,
        attention: Arc<dyn CpuAttention>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|lapics: &Weak<Self>| {
            let locals = config.ids.iter().enumerate().map(|(cpu, &id)| {
                let lapics = lapics.clone();
                let timer = timers.register(Arc::new(move |now| {
                    if let Some(lapics) = lapics.upgrade() {
                        lapics.timer_due(cpu, now);
                    }
                }));
                Local::new(id, cpu == 0, timer)
            });
            Self {
                clock,
                tsc: config.tsc,
                attention,
                pic: OnceLock::new(),
                ioapic: OnceLock::new(),
                physical_bits: config.physical_bits.min(52),
                x2apic: config.x2apic,
                locals: locals.collect(),
            }
        })
    }

    /// Connects the PIC, once.
    pub fn connect_pic(&self, pic: Weak<dyn ExtIntSource>) {
        if self.pic.set(pic).is_err() {
            log::warn!(target: "lapic", "there is a PIC already");
        }
    }

    /// Connects the IOAPIC, once.
    pub fn connect_ioapic(&self, ioapic: Weak<dyn EoiSink>) {
        if self.ioapic.set(ioapic).is_err() {
            log::warn!(target: "lapic", "there is an IOAPIC already");
        }
    }

    /// Number of CPUs.
    pub fn cpus(&self) -> usize {
        self.locals.len()
    }

    /// Whether the CPU's LAPIC is enabled by IA32_APIC_BASE: CPUID.01H:EDX\[9\].
    pub fn is_enabled(&self, cpu: usize) -> bool {
        self.locals.get(cpu).is_some_and(Local::enabled)
    }

    /// Where the CPU sees its register page; `None` in x2APIC mode and while disabled.
    pub fn mmio_base(&self, cpu: usize) -> Option<u64> {
        let base = self.locals.get(cpu)?.base.load(Ordering::Relaxed);
        (base & (BASE_EN | BASE_EXTD) == BASE_EN).then_some(base & !0xfff)
    }

    /// Whether [`Lapics::acknowledge`] has a vector for the CPU: an interrupt above its processor
    /// priority, or one from the PIC. Takes no lock.
    pub fn interrupt_pending(&self, cpu: usize) -> bool {
        let Some(local) = self.locals.get(cpu) else { return false };
        local.external_pending() || local.deliverable().is_some()
    }

    /// Acknowledges the interrupt that the CPU takes now and returns its vector; `None` when there is
    /// none (any more). Called on the CPU's thread.
    pub fn acknowledge(&self, cpu: usize) -> Option<u8> {
        let local = self.locals.get(cpu)?;
        if local.external_pending() {
            local.take_external();
            if let Some(pic) = self.pic.get().and_then(Weak::upgrade) {
                return Some(pic.acknowledge());
            }
        }
        local.take_highest()
    }

    /// Takes what others asked of the CPU. Takes no lock unless there is something. Called on the
    /// CPU's thread.
    pub fn take_requests(&self, cpu: usize) -> Requests {
        let Some(local) = self.locals.get(cpu) else { return Requests::default() };
        let requests = local.take_requests();
        if requests.init {
            // Section 11.4.7.3: as after power-on, but for the id and IA32_APIC_BASE.
            local.reset_registers();
        }
        requests
    }

    /// Whether [`Lapics::take_requests`] would return anything.
    pub fn has_requests(&self, cpu: usize) -> bool {
        self.locals.get(cpu).is_some_and(Local::has_requests)
    }

    /// Sets up what firmware leaves to an operating system: the PIC's interrupts pass through LINT0 of
    /// the first CPU, LINT1 is NMI (MultiProcessor Specification 1.4, section 3.6.2.2, "Virtual wire
    /// mode"). After power-on, before any CPU runs.
    pub fn set_virtual_wire(&self) {
        let Some(first) = self.locals.first() else { return };
        first.set(reg::SVR, local::SVR_ENABLE | 0xff);
        first.set(reg::LVT_LINT0, 0x700);
        first.set(reg::LVT_LINT1, 0x400);
    }

    fn calls(&self, cpu: usize) {
        self.attention.call(cpu);
    }

    /// All LAPICs as after power-on.
    fn reset_all(&self) {
        for (cpu, local) in self.locals.iter().enumerate() {
            local.power_on(cpu == 0);
        }
    }
}

impl MsiSink for Lapics {
    fn send(&self, message: Msi) {
        self.deliver(Message::from(message));
    }
}

impl IrqSink for Lapics {
    /// Input 2n is LINT0 of CPU n, input 2n + 1 its LINT1.
    fn set_level(&self, input: u32, level: bool) {
        let (cpu, pin) = ((input / 2) as usize, input % 2);
        if self.locals.get(cpu).is_some_and(|local| local.set_pin(pin, level)) {
            self.pin_rose(cpu, pin);
        }
    }
}

/// The LAPICs as a device: state for snapshots, and the range of memory at [`crate::msi::ADDRESS`]
/// ([`crate::msi::SIZE`] bytes) where the writes of devices are messages. A CPU's own register page
/// ([`Lapics::mmio_base`]) lies in front of it.
pub struct LapicDevice(pub Arc<Lapics>);

impl Device for LapicDevice {
    fn name(&self) -> &'static str {
        "lapic"
    }

    fn read(&mut self, _offset: u64, _width: Width) -> Result<u64, BusError> {
        Err(BusError::Refused)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        if width != Width::Word || !width.is_aligned(offset) {
            return Err(BusError::Refused);
        }
        self.0.send(Msi { address: DEFAULT_BASE + offset, data: value as u32 });
        Ok(())
    }

    fn reset(&mut self) {
        self.0.reset_all();
    }

    fn save(&self) -> SavedDevice {
        let locals = self.0.locals.iter().map(Local::save).collect();
        SavedDevice::encode(VERSION, &LapicsState { locals })
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: LapicsState = saved.decode(VERSION)?;
        let lapics = &self.0;
        check(state.locals.len() == lapics.locals.len(), "number of LAPICs")?;
        for (local, state) in lapics.locals.iter().zip(&state.locals) {
            local.check(state, lapics)?;
        }
        for (cpu, (local, state)) in lapics.locals.iter().zip(state.locals).enumerate() {
            local.restore(state);
            lapics.arm_timer(cpu);
            lapics.calls(cpu);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod timer_tests;
