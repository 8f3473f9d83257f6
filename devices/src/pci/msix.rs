//! MSI-X: a table of messages in a function's memory, one for each thing that it has to tell.
//!
//! Source: PCI Local Bus Specification 3.0, section 6.8.2.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::{BUS_MASTER, Config};
use crate::bus::{BusError, RestoreError, Width, check};
use crate::msi::{Msi, MsiSink};

/// Number of the capability.
const CAPABILITY: u8 = 0x11;
/// Bytes of an entry of the table.
const ENTRY: u64 = 16;
/// Offset of the pending bits behind the table: a page of their own.
pub const PENDING: u64 = 0x800;
/// Bytes of table and pending bits.
pub const SIZE: u64 = 0x1000;
/// Entries that there is room for.
pub const MOST_ENTRIES: u16 = (PENDING / ENTRY) as u16;

/// Message control: MSI-X is on; all is masked.
const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;
/// Vector control of an entry: masked.
const MASKED: u32 = 1;

/// The table, and the register that its capability begins at.
pub struct Msix {
    sink: Arc<dyn MsiSink>,
    control: u8,
    state: MsixState,
}

/// What the guest can tell of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsixState {
    /// Address, its upper half, data, vector control.
    entries: Vec<[u32; 4]>,
    pending: Vec<bool>,
}

impl MsixState {
    fn new(entries: usize) -> Self {
        MsixState { entries: vec![[0, 0, 0, MASKED]; entries], pending: vec![false; entries] }
    }
}

impl Msix {
    /// A table of so many entries in the BAR `bar` from `offset` on, whose capability is at the register `at`.
    pub fn new(
        config: &mut Config,
        at: u8,
        (bar, offset): (u8, u32),
        entries: u16,
        sink: Arc<dyn MsiSink>,
    ) -> Self {
        debug_assert!((1..=MOST_ENTRIES).contains(&entries));
        let mut contents = (entries - 1).to_le_bytes().to_vec();
        contents.extend((offset | u32::from(bar)).to_le_bytes());
        contents.extend((offset + PENDING as u32 | u32::from(bar)).to_le_bytes());
        let at =
            config.add_capability(at, CAPABILITY, &contents, &(ENABLE | MASK_ALL).to_le_bytes());
        Msix { sink, control: at + 2, state: MsixState::new(entries.into()) }
    }

    fn control(&self, config: &Config) -> u16 {
        config.read(self.control, Width::Half) as u16
    }

    /// Whether messages take the place of the interrupt pin.
    #[must_use]
    pub fn is_on(&self, config: &Config) -> bool {
        self.control(config) & ENABLE != 0
    }

    /// Sends the message of an entry, or notes that it is to be sent when it is no longer masked.
    pub fn signal(&mut self, config: &Config, entry: u16) {
        let Some(pending) = self.state.pending.get_mut(usize::from(entry)) else { return };
        *pending = true;
        self.send_pending(config);
    }

    /// Sends what may be sent now. To be called after a change of the configuration space.
    pub fn send_pending(&mut self, config: &Config) {
        let control = self.control(config);
        if control & (ENABLE | MASK_ALL) != ENABLE || config.command() & BUS_MASTER == 0 {
            return;
        }
        for (entry, pending) in self.state.entries.iter().zip(&mut self.state.pending) {
            let [low, high, data, vector] = *entry;
            if *pending && vector & MASKED == 0 {
                *pending = false;
                let address = u64::from(low) | u64::from(high) << 32;
                self.sink.send(Msi { address, data });
            }
        }
    }

    fn word(&self, offset: u64) -> u32 {
        if let Some(pending) = offset.checked_sub(PENDING) {
            let first = 8 * pending as usize;
            let bits = self.state.pending.iter().skip(first).take(32).enumerate();
            return bits.fold(0, |word, (bit, pending)| word | u32::from(*pending) << bit);
        }
        let entry = self.state.entries.get((offset / ENTRY) as usize);
        entry.map_or(0, |entry| entry[(offset % ENTRY / 4) as usize])
    }

    /// Reads from table or pending bits.
    ///
    /// # Errors
    /// [`BusError::Width`] unless 4 or 8 bytes are read, aligned.
    pub fn read(&self, offset: u64, width: Width) -> Result<u64, BusError> {
        match width {
            _ if !width.is_aligned(offset) => Err(BusError::Width),
            Width::Word => Ok(self.word(offset).into()),
            Width::Double => {
                Ok(u64::from(self.word(offset)) | u64::from(self.word(offset + 4)) << 32)
            }
            _ => Err(BusError::Width),
        }
    }

    /// Writes to the table.
    ///
    /// # Errors
    /// As [`Msix::read`].
    pub fn write(
        &mut self,
        config: &Config,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), BusError> {
        if !matches!(width, Width::Word | Width::Double) || !width.is_aligned(offset) {
            return Err(BusError::Width);
        }
        for at in (0..width.bytes()).step_by(4) {
            let (offset, value) = (offset + at, (value >> (8 * at)) as u32);
            if let Some(entry) = self.state.entries.get_mut((offset / ENTRY) as usize) {
                let field = (offset % ENTRY / 4) as usize;
                entry[field] = match field {
                    0 => value & !3,
                    3 => value & MASKED,
                    _ => value,
                };
            }
        }
        self.send_pending(config);
        Ok(())
    }

    /// Back to the state after reset.
    pub fn reset(&mut self) {
        self.state = MsixState::new(self.state.entries.len());
    }

    /// The state.
    #[must_use]
    pub fn save(&self) -> MsixState {
        self.state.clone()
    }

    /// Checks a saved state.
    ///
    /// # Errors
    /// [`RestoreError::Invalid`].
    pub fn check_saved(&self, state: &MsixState) -> Result<(), RestoreError> {
        let entries = self.state.entries.len();
        check(state.entries.len() == entries && state.pending.len() == entries, "MSI-X table")?;
        let legal = |entry: &[u32; 4]| entry[0] & 3 == 0 && entry[3] & !MASKED == 0;
        check(state.entries.iter().all(legal), "MSI-X entry")
    }

    /// Takes over a state that has been checked.
    pub fn restore(&mut self, state: MsixState) {
        self.state = state;
    }
}
