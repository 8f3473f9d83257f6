//! What a bank's chips are doing.

use serde::{Deserialize, Serialize};

use super::{BUFFER, READY, SECTOR};
use crate::bus::{RestoreError, check};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FlashState {
    pub(super) mode: Mode,
    pub(super) status: u8,
}

impl FlashState {
    pub(super) const RESET: Self = Self { mode: Mode::Array, status: READY };
}

/// What loads read, and what the next store means. In the modes from `Program` on, loads read the
/// status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Mode {
    Array,
    Identifier,
    Query,
    Status,
    /// The next store is data.
    Program,
    /// The next store confirms the erasure of the block at this offset.
    Erase(u64),
    /// The next store says what to do with the block's lock.
    Lock,
    /// The next store is the number of words to come, less one.
    BufferCount,
    /// This many stores of data are to come.
    BufferData(u32, Option<Block>),
    /// The next store confirms.
    BufferConfirm(Block),
}

impl Mode {
    /// Refuses what no running bank of `size` bytes holds.
    pub(super) fn check(&self, size: u64) -> Result<(), RestoreError> {
        let block = match self {
            Mode::BufferData(_, block) => block.as_ref(),
            Mode::BufferConfirm(block) => Some(block),
            _ => None,
        };
        if let Some(Block { start, bytes, missed: _ }) = block {
            check(start.is_multiple_of(BUFFER) && *start < size, "flash buffer place")?;
            check(bytes.len() as u64 == BUFFER, "flash buffer")?;
        }
        match self {
            Mode::BufferData(left, _) => check((1..=0x1_0000).contains(left), "flash word count"),
            Mode::Erase(at) => check(at.is_multiple_of(SECTOR) && *at < size, "flash block"),
            _ => Ok(()),
        }
    }
}

/// The write buffer in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Block {
    /// Offset of its first byte in the bank, a multiple of [`BUFFER`].
    pub(super) start: u64,
    /// [`BUFFER`] bytes; 0xff where nothing is to be programmed.
    pub(super) bytes: Vec<u8>,
    /// A store missed the buffer: nothing will be programmed.
    pub(super) missed: bool,
}

impl Block {
    pub(super) fn new(start: u64) -> Self {
        Self { start, bytes: vec![0xff; BUFFER as usize], missed: false }
    }

    pub(super) fn put(&mut self, offset: u64, bytes: &[u8]) {
        let at = offset.wrapping_sub(self.start);
        let range = at as usize..(at as usize).saturating_add(bytes.len());
        match self.bytes.get_mut(range) {
            Some(place) => place.copy_from_slice(bytes),
            None => self.missed = true,
        }
    }
}
