//! The state hash: one number for all that the guest can tell.

use std::io;

use mimic_devices::memory::GuestMemory;
use serde::{Serialize, Serializer};
use twox_hash::XxHash3_128;

use super::{MachineState, pages};
use crate::engine::CpuState;

/// A hart as its own instruction set writes it, without saying which that is.
struct Plain<'a>(&'a CpuState);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            CpuState::Riscv(hart) => hart.serialize(serializer),
            CpuState::X86(cpu) => cpu.serialize(serializer),
        }
    }
}

/// The hash (XXH3, 128 bits) of the harts, guest time, the devices' states and the pages of memory that are
/// not zero. Equal states have equal hashes on every host and every engine.
pub(super) fn state_hash(state: &MachineState, memory: &GuestMemory) -> io::Result<u128> {
    let MachineState { config: _, harts, time, turn: _, devices, regions: _ } = state;
    let mut hasher = XxHash3_128::new();
    let harts: Vec<_> = harts.iter().map(Plain).collect();
    let bytes = postcard::to_allocvec(&(harts, time, devices)).map_err(io::Error::other)?;
    hasher.write(&bytes);
    pages::walk(memory, |gpa, page| {
        hasher.write(&gpa.to_le_bytes());
        hasher.write(page);
        Ok(())
    })?;
    Ok(hasher.finish_128())
}
