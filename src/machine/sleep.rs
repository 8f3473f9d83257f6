//! Suspend to RAM: what a machine's firmware does when it wakes from ACPI's S3.
//!
//! Asleep, the processors stand, and time goes on for the devices that may wake the machine. Then all is reset but
//! memory, and the first processor goes where the system said that it wants to be woken: the FACS holds the address.
//!
//! Source: ACPI specification 6.5, section 5.2.10 (waking vectors), 16.1.3 (S3), 16.3.2 (waking).

use std::sync::Arc;

use mimic_devices::bus::{AddressSpace, lock};
use mimic_devices::memory::GuestMemory;
use mimic_devices::ports::PortSpace;
use mimic_devices::virtio::block::BlockHandle;

use super::control::Control;
use super::payload::Start;
use crate::engine::{CpuState, HartEngine};

/// Fields of the FACS.
const WAKING_VECTOR: u64 = 12;
const FLAGS: u64 = 20;
const X_WAKING_VECTOR: u64 = 24;
const OSPM_FLAGS: u64 = 36;
/// Flags: firmware can wake in 64-bit mode; the system wants it.
const WAKE_64_SUPPORTED: u32 = 2;
const WAKE_64: u32 = 1;

/// What firmware knows of its board.
pub(super) struct Firmware {
    /// Address of the FACS; none if the guest brings the firmware.
    pub(super) facs: Option<u64>,
    /// Where it puts page tables for 64-bit mode.
    pub(super) tables: u64,
    /// Puts the devices into the state that a system finds.
    pub(super) set_up: Box<dyn Fn() + Send + Sync>,
    /// Presses the board's power button.
    pub(super) power_button: Box<dyn Fn() + Send + Sync>,
    /// The processors, the first of them starting so, their time-stamp counters there.
    pub(super) processors: Box<dyn Fn(Start, u64) -> Vec<CpuState> + Send + Sync>,
}

/// All that is reset when a machine wakes.
pub(super) struct Wake {
    pub(super) firmware: Firmware,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) space: Arc<AddressSpace>,
    pub(super) ports: Arc<PortSpace>,
    pub(super) disks: Arc<[BlockHandle]>,
    /// Where the processors' time-stamp counters started.
    pub(super) tsc: u64,
}

impl Wake {
    /// Resets the devices of a machine that stands; its processors as they go on. `None`: the system wants to be woken
    /// nowhere, so that the machine is started anew.
    pub(super) fn reset(&self, control: &Control) -> Option<Vec<CpuState>> {
        self.disks.iter().for_each(BlockHandle::drain);
        for (_, device) in super::snapshot::devices(&self.space, Some(&self.ports)) {
            lock(&device).reset();
        }
        let start = match self.firmware.facs {
            None => Start::Reset,
            Some(facs) => {
                (self.firmware.set_up)();
                self.waking(facs)?
            }
        };
        for hart in 0..control.harts() {
            // Messages of local APICs that the processors have not taken.
            control.signals(hart).set_lines(u64::MAX, false);
        }
        Some((self.firmware.processors)(start, self.tsc))
    }

    /// Where the system whose FACS lies at `facs` wants to be woken.
    fn waking(&self, facs: u64) -> Option<Start> {
        let word = |at| self.memory.load::<u32>(facs + at).unwrap_or(0);
        let wide = self.memory.load::<u64>(facs + X_WAKING_VECTOR).unwrap_or(0);
        if wide == 0 {
            let vector = word(WAKING_VECTOR);
            // 0x12345 is 0x1234:0x0005.
            let (segment, offset) = ((vector >> 4) as u16, vector as u16 & 0xf);
            return (vector != 0).then_some(Start::Real { segment, offset });
        }
        if word(FLAGS) & WAKE_64_SUPPORTED != 0 && word(OSPM_FLAGS) & WAKE_64 != 0 {
            let tables = self.firmware.tables;
            // The board has RAM there.
            let placed = self.memory.write_from(tables, &super::payload::identity(tables));
            return placed.ok().map(|()| Start::Long { entry: wide, tables });
        }
        u32::try_from(wide).ok().map(|entry| Start::Protected { entry, eax: 0, ebx: 0 })
    }
}

/// Puts a processor as it is after the reset into its engine; what it has retired still counts.
pub(super) fn load(engine: &mut HartEngine, state: CpuState) {
    let retired = engine.retired();
    engine.load(match state {
        CpuState::X86(mut cpu) => {
            cpu.retired = retired;
            CpuState::X86(cpu)
        }
        other => other,
    });
}
