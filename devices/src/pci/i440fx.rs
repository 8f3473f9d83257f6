//! The host bridge of Intel's 440FX: firmware knows the machine by it.
//!
//! Source: Intel, "440FX PCIset: 82441FX PMC and 82442FX DBX", order number 290549-001, chapter 3. The registers that
//! say where memory below 1 MiB comes from (PAM) are kept; memory is there whatever they say.

use super::PciFunction;
use super::config::{BUS_MASTER, Config, DECODE_MEMORY, Identity, register};
use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width};

/// PAM0 to PAM6.
const PAM: u8 = 0x59;
const PAM_BITS: [u8; 7] = [0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33];
/// System management RAM control, and what it is after reset.
const SMRAM: u8 = 0x72;

const VERSION: u32 = 1;

/// The function 0 of device 0.
pub struct HostBridge {
    config: Config,
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl HostBridge {
    /// The bridge after reset.
    #[must_use]
    pub fn new() -> Self {
        let mut config = Config::new(Identity {
            vendor: 0x8086,
            device: 0x1237,
            revision: 2,
            class: 0x06_0000,
            subsystem: (0, 0),
            multifunction: false,
            pin: 0,
        });
        // It always answers, and is bus master.
        config.fix(register::COMMAND, &(DECODE_MEMORY | BUS_MASTER).to_le_bytes());
        config.allow(register::COMMAND, &[0, 0]);
        config.allow(PAM, &PAM_BITS);
        config.fix(SMRAM, &[0x02]);
        config.allow(SMRAM, &[0x78]);
        HostBridge { config }
    }
}

impl PciFunction for HostBridge {
    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }
}

impl Device for HostBridge {
    fn name(&self) -> &'static str {
        "i440fx"
    }

    fn read(&mut self, _offset: u64, _width: Width) -> Result<u64, BusError> {
        Err(BusError::Refused)
    }

    fn write(&mut self, _offset: u64, _width: Width, _value: u64) -> Result<(), BusError> {
        Err(BusError::Refused)
    }

    fn reset(&mut self) {
        self.config.reset();
    }

    fn save(&self) -> SavedDevice {
        let Self { config } = self;
        SavedDevice::encode(VERSION, &config.save())
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        self.config.restore_whole(saved, VERSION)
    }
}
