//! What a PC's firmware leaves in memory for kernels: ACPI.

pub mod acpi;

/// A serial port, and its interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialPort {
    /// First of its 8 I/O ports.
    pub port: u16,
    /// IRQ of the ISA bus.
    pub irq: u8,
}

/// What the tables tell of a PC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcConfig {
    /// Processors; their local APICs have the numbers from 0 on.
    pub cpus: u8,
    /// Address of the local APICs.
    pub lapic: u32,
    /// Address of the I/O APIC.
    pub ioapic: u32,
    /// Address of the HPET.
    pub hpet: u32,
    /// The HPET's capabilities, low half.
    pub hpet_id: u32,
    /// First port of the power management registers.
    pub pm: u16,
    /// IRQ of power management.
    pub sci: u8,
    /// Sleep type of S5.
    pub s5: u8,
    /// The serial ports.
    pub serial: Vec<SerialPort>,
    /// First and last address where PCI functions may have memory below 4 GiB.
    pub pci_memory: (u32, u32),
    /// IRQs that the PCI bus's lines A to D lead to.
    pub pci_irqs: [u8; 4],
}

impl PcConfig {
    /// The IRQ of interrupt pin `pin` (0 is INTA#) of the device `device`: pins take turns from slot to slot, and the
    /// device 1 has them in order.
    #[must_use]
    pub fn pci_irq(&self, device: u8, pin: u8) -> u8 {
        self.pci_irqs[usize::from(device.wrapping_add(pin).wrapping_sub(1) % 4)]
    }
}
