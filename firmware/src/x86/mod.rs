//! What a PC's firmware leaves behind for kernels: tables in memory (ACPI, the MP table, SMBIOS, PCI interrupt routing),
//! and a PCI bus whose functions have their places.

pub mod acpi;
pub mod microvm;
pub mod mp;
pub mod pci;
pub mod smbios;

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
    /// Sleep type of S3.
    pub s3: u8,
    /// Sleep type of S5.
    pub s5: u8,
    /// The serial ports.
    pub serial: Vec<SerialPort>,
    /// First and last address where PCI functions may have memory below 4 GiB.
    pub pci_memory: (u32, u32),
    /// IRQs that the PCI bus's lines A to D lead to.
    pub pci_irqs: [u8; 4],
    /// Device number of the ISA bridge, which routes those lines.
    pub isa_bridge: u8,
    /// Device and function number of power management.
    pub pm_function: pci::Function,
}

impl PcConfig {
    /// The bus's line that interrupt pin `pin` (0 is INTA#) of the device `device` is at: pins take turns from slot to
    /// slot, and the device 1 has them in order.
    #[must_use]
    pub fn pci_line(device: u8, pin: u8) -> u8 {
        device.wrapping_add(pin).wrapping_sub(1) % 4
    }

    /// The IRQ of that pin.
    #[must_use]
    pub fn pci_irq(&self, device: u8, pin: u8) -> u8 {
        self.pci_irqs[usize::from(Self::pci_line(device, pin))]
    }
}

/// What makes the sum of all bytes 0: the checksum of a table whose field for it is still 0, and 0 for one that is right.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A PC of two processors.
    pub(crate) fn config() -> PcConfig {
        PcConfig {
            cpus: 2,
            lapic: 0xfee0_0000,
            ioapic: 0xfec0_0000,
            hpet: 0xfed0_0000,
            hpet_id: 0x8086_a201,
            pm: 0x600,
            sci: 9,
            s3: 1,
            s5: 5,
            serial: vec![SerialPort { port: 0x3f8, irq: 4 }, SerialPort { port: 0x2f8, irq: 3 }],
            pci_memory: (0xc000_0000, 0xfebf_ffff),
            pci_irqs: [10, 10, 11, 11],
            isa_bridge: 1,
            pm_function: (1, 3),
        }
    }
}
