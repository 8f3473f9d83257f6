//! What a processor of a PC sees besides memory and devices: its local APIC and the I/O ports. There is one of these
//! for each processor, since each has a local APIC of its own at the same address.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use mimic_cpu::bus::{BusFault, PAGE_MASK, Width, line};
use mimic_cpu::signals::Signals;
use mimic_devices::bus::{AddressSpace, BusError};
use mimic_devices::clock::Clock;
use mimic_devices::lapic::{CpuAttention, Lapics, Tsc};
use mimic_devices::ports::PortSpace;
use mimic_devices::ticks::Rate;

use super::device_width;

/// A processor's own side of the bus.
pub(in crate::machine) struct PcSide {
    cpu: usize,
    lapics: Arc<Lapics>,
    ports: Arc<PortSpace>,
    clock: Clock,
    signals: Arc<Signals>,
    /// Where the last start-up message says that the processor starts.
    startup: AtomicU8,
}

impl PcSide {
    pub(in crate::machine) fn new(
        cpu: usize,
        lapics: Arc<Lapics>,
        ports: Arc<PortSpace>,
        clock: Clock,
        signals: Arc<Signals>,
    ) -> Self {
        PcSide { cpu, lapics, ports, clock, signals, startup: AtomicU8::new(0) }
    }

    /// The offset of `gpa` in the registers of the processor's local APIC, if they lie there.
    pub(super) fn lapic_offset(&self, gpa: u64) -> Option<u64> {
        let base = self.lapics.mmio_base(self.cpu)?;
        (gpa & !PAGE_MASK == base).then_some(gpa & PAGE_MASK)
    }

    /// Reads where there is no memory. Nothing answers with all ones; nobody hears of it.
    pub(super) fn read(&self, space: &AddressSpace, gpa: u64, width: Width) -> u64 {
        let answer = match self.lapic_offset(gpa) {
            Some(offset) => self.lapics.read(self.cpu, offset, device_width(width)),
            None => space.read(gpa, device_width(width)),
        };
        match answer {
            Ok(value) => value,
            Err(BusError::Width) if width == Width::Double => {
                let half = |at| self.read(space, gpa.wrapping_add(at), Width::Word);
                half(0) | half(4) << 32
            }
            Err(_) => width.zero_extend(u64::MAX),
        }
    }

    /// Writes where there is no memory.
    pub(super) fn write(&self, space: &AddressSpace, gpa: u64, width: Width, value: u64) {
        let answer = match self.lapic_offset(gpa) {
            Some(offset) => self.lapics.write(self.cpu, offset, device_width(width), value),
            None => space.write(gpa, device_width(width), value),
        };
        if answer == Err(BusError::Width) && width == Width::Double {
            self.write(space, gpa, Width::Word, value);
            self.write(space, gpa.wrapping_add(4), Width::Word, value >> 32);
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    pub(super) fn port_in(&self, port: u16, width: Width) -> u64 {
        self.ports.read(port, device_width(width))
    }

    pub(super) fn port_out(&self, port: u16, width: Width, value: u64) {
        self.ports.write(port, device_width(width), value);
    }

    /// Drives the processor's lines by what its local APIC holds for it. On the processor's own thread alone, which
    /// is called whenever that may have changed: so the line never lags behind for good.
    pub(super) fn look(&self) {
        let asked = self.lapics.take_requests(self.cpu);
        let mut edges = 0;
        if asked.init {
            edges |= line::INIT;
        }
        if let Some(page) = asked.startup {
            self.startup.store(page, Ordering::Relaxed);
            edges |= line::STARTUP;
        }
        if asked.nmi {
            edges |= line::NMI;
        }
        if edges != 0 {
            self.signals.set_lines(edges, true);
        }
        if self.lapics.has_requests(self.cpu) {
            // Once the first NMI is being served.
            self.signals.call_attention();
        }
        self.drive_intr();
    }

    fn drive_intr(&self) {
        self.signals.set_lines(line::INTR, self.lapics.interrupt_pending(self.cpu));
    }

    pub(super) fn acknowledge(&self) -> Option<u8> {
        let vector = self.lapics.acknowledge(self.cpu);
        self.drive_intr();
        vector
    }

    pub(super) fn task_priority(&self) -> u8 {
        self.lapics.cr8(self.cpu) as u8
    }

    pub(super) fn set_task_priority(&self, priority: u8) {
        self.lapics.set_cr8(self.cpu, priority.into());
    }

    pub(super) fn msr(&self, msr: u32) -> Result<u64, BusFault> {
        self.lapics.read_msr(self.cpu, msr).map_err(|_| BusFault)
    }

    pub(super) fn set_msr(&self, msr: u32, value: u64) -> Result<(), BusFault> {
        self.lapics.write_msr(self.cpu, msr, value).map_err(|_| BusFault)
    }

    pub(super) fn startup_vector(&self) -> u8 {
        self.startup.load(Ordering::Relaxed)
    }
}

/// Wakes processors for their local APICs.
pub(in crate::machine) struct Attention(pub(in crate::machine) Vec<Arc<Signals>>);

impl CpuAttention for Attention {
    fn call(&self, cpu: usize) {
        if let Some(signals) = self.0.get(cpu) {
            signals.call_attention();
        }
    }
}

/// The machine's time-stamp counter, as it counts before software moves a processor's own.
pub(in crate::machine) struct TimeStamps {
    clock: Clock,
    rate: Rate,
}

impl TimeStamps {
    /// A counter of `hz`.
    pub(in crate::machine) fn new(clock: Clock, hz: u64) -> Self {
        TimeStamps { clock, rate: Rate::new(hz, 1_000_000_000) }
    }
}

impl Tsc for TimeStamps {
    fn now(&self, _cpu: usize) -> u64 {
        self.rate.ticks(self.clock.now())
    }

    fn deadline(&self, _cpu: usize, tsc: u64) -> u64 {
        self.rate.time(tsc)
    }
}
