//! Guest memory, the bus, IRQ lines, the clock and every device.
//!
//! ```text
//! CPU or DMA -> GuestMemory (RAM, ROM)       one watch byte per page, observers hear of writes
//! CPU        -> AddressSpace -> Device       one mutex per device, taken by the bus
//! CPU        -> PortSpace -> Device          a PC's 64 KiB of I/O ports
//! Device     -> IrqLine -> interrupt controller -> IrqLine -> hart
//! Device     -> Timer (TimerQueue, Clock) -> callback -> Device
//! ```
//!
//! A device knows neither its address nor its interrupt number; the board supplies both. What a
//! guest does wrong is a [`bus::BusError`] or a bit in a status register, never a panic.
//!
//! A PC's interrupts pass PIC or IOAPIC, which have a mutex each, and end in the LAPICs, which take
//! none to accept one: `device -> [hpet::LegacyRoute] -> irq::Splitter -> pic, ioapic -> lapic`. What
//! is message-signalled goes to the LAPICs at once ([`msi::MsiSink`]).
//!
//! Lock order: device, then interrupt controller, then nothing. The bus table's and the timer
//! queue's own locks are never held while a device or a callback runs.

pub mod aclint;
pub mod acpi_sleep;
pub mod bus;
pub mod clock;
pub mod debug_ports;
pub mod disk;
pub mod finisher;
pub mod fw_cfg;
pub mod goldfish_rtc;
pub mod hpet;
pub mod i8042;
pub mod ioapic;
pub mod irq;
pub mod lapic;
pub mod memory;
pub mod msi;
pub mod pc_testdev;
pub mod pci;
pub mod pflash;
pub mod pic;
pub mod pit;
pub mod plic;
pub mod pm;
pub mod ports;
pub mod power;
pub mod rtc;
pub mod serial;
pub mod ticks;
pub mod uart16550;
pub mod virtio;

#[cfg(test)]
mod pc_tests;
