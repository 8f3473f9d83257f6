//! SiFive test finisher, which the device tree also offers as `syscon` for power-off and reboot.
//!
//! One register at offset 0 (SiFive FU540 "TEST" block; the values are those of QEMU's
//! `sifive_test`): the low half says what, the high half carries the code of a failure.

use std::sync::Arc;

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width};
use crate::power::{PowerEvent, PowerSink};

/// Bytes that the device takes on the bus.
pub const SIZE: u64 = 0x1000;
/// Written to the register to report success and power off.
pub const PASS: u16 = 0x5555;
/// Written to the low half to report a failure whose code is in the high half.
pub const FAIL: u16 = 0x3333;
/// Written to the register to restart the machine.
pub const RESET: u16 = 0x7777;

const VERSION: u32 = 1;

/// The device.
pub struct Finisher {
    power: Arc<dyn PowerSink>,
}

impl Finisher {
    /// A finisher that reports to `power`.
    pub fn new(power: Arc<dyn PowerSink>) -> Self {
        Self { power }
    }
}

impl Device for Finisher {
    fn name(&self) -> &'static str {
        "finisher"
    }

    fn read(&mut self, _offset: u64, width: Width) -> Result<u64, BusError> {
        match width {
            Width::Half | Width::Word => Ok(0),
            Width::Byte | Width::Double => Err(BusError::Width),
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        if !matches!(width, Width::Half | Width::Word) {
            return Err(BusError::Width);
        }
        let code = (value >> 16) as u16;
        let event = match (offset, value as u16) {
            (0, PASS) => PowerEvent::Pass,
            (0, FAIL) => PowerEvent::Fail(code),
            (0, RESET) => PowerEvent::Reset,
            _ => {
                log::debug!(target: "finisher", "{value:#x} at {offset:#x} means nothing");
                return Ok(());
            }
        };
        self.power.power(event);
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
    use super::*;
    use crate::power::tests::Events;

    #[test]
    fn each_value_reports_its_event() {
        let events = Arc::new(Events::default());
        let mut device = Finisher::new(events.clone());
        device.write(0, Width::Word, 0x5555).unwrap();
        device.write(0, Width::Half, 0x5555).unwrap();
        device.write(0, Width::Word, 0x002a_3333).unwrap();
        device.write(0, Width::Half, 0x7777).unwrap();
        device.write(0, Width::Word, 0x1234).unwrap();
        device.write(4, Width::Word, 0x5555).unwrap();
        assert_eq!(device.write(0, Width::Byte, 0x55), Err(BusError::Width));
        assert_eq!(device.write(0, Width::Double, 0x5555), Err(BusError::Width));
        assert_eq!(device.read(0, Width::Word), Ok(0));
        let expected =
            [PowerEvent::Pass, PowerEvent::Pass, PowerEvent::Fail(42), PowerEvent::Reset];
        assert_eq!(events.take(), expected);
    }
}
