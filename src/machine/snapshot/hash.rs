//! The state hash: one number for all that the guest can tell.

use std::io;

use mimic_devices::memory::GuestMemory;
use twox_hash::XxHash3_128;

use super::{MachineState, pages};

/// The hash (XXH3, 128 bits) of the harts, guest time, the devices' states and the pages of memory that are
/// not zero. Equal states have equal hashes on every host and every engine.
pub(super) fn state_hash(state: &MachineState, memory: &GuestMemory) -> io::Result<u128> {
    let MachineState { config: _, harts, time, turn: _, devices, regions: _ } = state;
    let mut hasher = XxHash3_128::new();
    let bytes = postcard::to_allocvec(&(harts, time, devices)).map_err(io::Error::other)?;
    hasher.write(&bytes);
    pages::walk(memory, |gpa, page| {
        hasher.write(&gpa.to_le_bytes());
        hasher.write(page);
        Ok(())
    })?;
    Ok(hasher.finish_128())
}
