//! Sleep and reset registers of hardware-reduced ACPI: what remains of power management without PM1 blocks.
//!
//! Source: ACPI specification 6.5, section 4.8.3.6 (reset register) and 4.8.3.7 (sleep control and status registers).
//! The reset register's value is the board's choice; it is that of QEMU's generic event device.

use std::sync::Arc;

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, byte_only};
use crate::power::{PowerEvent, PowerSink};

/// Offset of the sleep control register.
pub const CONTROL: u64 = 0;
/// Offset of the sleep status register.
pub const STATUS: u64 = 1;
/// Offset of the reset register.
pub const RESET: u64 = 2;
/// Bytes of all.
pub const SIZE: u64 = 3;
/// What resets the machine when it is written to [`RESET`].
pub const RESET_VALUE: u8 = 0x42;
/// Sleep type of S5, soft off: that of QEMU's `microvm`.
pub const S5: u8 = 5;

/// Sleep control: sleep type, sleep enable, which reads as 0.
const TYPE_SHIFT: u32 = 2;
const TYPE_MASK: u8 = 7;
const ENABLE: u8 = 1 << 5;

const VERSION: u32 = 1;

/// The device. It keeps nothing: there is no sleep to wake from, so the status is always 0.
pub struct AcpiSleep {
    power: Arc<dyn PowerSink>,
}

impl AcpiSleep {
    /// Registers that power off and reset through `power`.
    pub fn new(power: Arc<dyn PowerSink>) -> Self {
        Self { power }
    }
}

impl Device for AcpiSleep {
    fn name(&self) -> &'static str {
        "acpi-sleep"
    }

    fn read(&mut self, _offset: u64, width: Width) -> Result<u64, BusError> {
        byte_only(width)?;
        Ok(0)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        byte_only(width)?;
        let value = value as u8;
        match offset {
            CONTROL if value & ENABLE != 0 && value >> TYPE_SHIFT & TYPE_MASK == S5 => {
                self.power.power(PowerEvent::PowerOff);
            }
            RESET if value == RESET_VALUE => self.power.power(PowerEvent::Reset),
            _ => log::debug!(target: "pm", "{value:#x} to {offset:#x} does nothing"),
        }
        Ok(())
    }

    fn reset(&mut self) {}

    fn save(&self) -> SavedDevice {
        let Self { power: _ } = self;
        SavedDevice::encode(VERSION, &())
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        saved.decode(VERSION)
    }
}

#[cfg(test)]
mod tests {
    //! Expected values: ACPI specification 6.5, figures of sections 4.8.3.6 and 4.8.3.7.
    use super::*;
    use crate::power::tests::Events;

    #[test]
    fn the_machine_is_switched_off_and_reset() {
        let events = Arc::new(Events::default());
        let mut registers = AcpiSleep::new(events.clone());
        let mut write = |offset, value| registers.write(offset, Width::Byte, value).unwrap();
        // Without its enable, and with another type, nothing happens.
        write(CONTROL, 5 << 2);
        write(CONTROL, 1 << 5 | 3 << 2);
        write(RESET, 6);
        assert_eq!(events.take(), []);
        write(CONTROL, 1 << 5 | 5 << 2);
        write(RESET, 0x42);
        assert_eq!(events.take(), [PowerEvent::PowerOff, PowerEvent::Reset]);
        assert_eq!(registers.read(STATUS, Width::Byte), Ok(0));
        assert_eq!(registers.read(CONTROL, Width::Half), Err(BusError::Width));
    }
}
