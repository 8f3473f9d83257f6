//! Split virtqueues, the device's side.
//!
//! Source: OASIS "Virtual I/O Device (VIRTIO) Version 1.2", section 2.7. The rings and tables lie in
//! memory that a hostile guest may change at any moment: each field is loaded once, each address
//! and length is checked, and the work per chain is bounded.

use std::sync::atomic::{Ordering, fence};

use serde::{Deserialize, Serialize};

use crate::bus::{RestoreError, check};
use crate::memory::{GuestMemory, OutOfRange};

/// Descriptor flags, section 2.7.5.
const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const DESC_INDIRECT: u16 = 4;
const DESC_SIZE: u64 = 16;
/// Available ring flag, section 2.7.6.
const AVAIL_NO_INTERRUPT: u16 = 1;

/// The longest indirect table that is followed; drivers stay below what devices advertise.
const MAX_INDIRECT: u64 = 1024;
/// The largest queue that a device may offer.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// What a driver did wrong; the device then needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Size not a power of two within the device's limit.
    #[error("queue size {0} is not a power of two within the limit")]
    Size(u16),
    /// A ring or table is misaligned.
    #[error("virtqueue part at {0:#x} is misaligned")]
    Misaligned(u64),
    /// A ring, table or buffer lies outside memory.
    #[error("virtqueue: {0}")]
    Memory(#[from] OutOfRange),
    /// More chains are available than the queue has entries.
    #[error("available index is more than the queue size ahead")]
    AvailableIndex,
    /// A descriptor index is outside its table.
    #[error("descriptor {0} is outside its table")]
    DescriptorIndex(u16),
    /// The chain has more descriptors than its table.
    #[error("descriptor chain is too long or loops")]
    Loop,
    /// A readable descriptor follows a writable one.
    #[error("readable descriptor after a writable one")]
    Order,
    /// An indirect descriptor where none may be, or of a bad length.
    #[error("bad indirect descriptor")]
    Indirect,
    /// The chain has more than 2^32 - 1 bytes.
    #[error("descriptor chain has 4 GiB or more")]
    TooLong,
    /// The device's own format is violated; says how.
    #[error("malformed request: {0}")]
    Request(&'static str),
}

/// One piece of a buffer in guest memory; it was memory when the chain was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u32,
}

/// A buffer that the driver made available.
#[derive(Debug, PartialEq, Eq)]
pub struct Chain {
    head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
}

impl Chain {
    /// The pieces that the driver filled, in order.
    pub fn readable(&self) -> &[Segment] {
        &self.readable
    }

    /// The pieces that the device fills, in order.
    pub fn writable(&self) -> &[Segment] {
        &self.writable
    }

    /// Bytes that the driver filled.
    pub fn readable_len(&self) -> u32 {
        // A chain's total fits, see `QueueError::TooLong`.
        self.readable.iter().map(|segment| segment.len).sum()
    }

    /// Bytes that the device may fill.
    pub fn writable_len(&self) -> u32 {
        self.writable.iter().map(|segment| segment.len).sum()
    }

    /// Copies from `offset` bytes into the readable part; returns how many there were.
    pub fn read(
        &self,
        memory: &GuestMemory,
        offset: u32,
        bytes: &mut [u8],
    ) -> Result<usize, QueueError> {
        let mut done = 0;
        for (gpa, len) in pieces(&self.readable, offset, bytes.len()) {
            memory.read_into(gpa, &mut bytes[done..done + len])?;
            done += len;
        }
        Ok(done)
    }

    /// Copies to `offset` bytes into the writable part; returns how many there was room for.
    pub fn write(
        &self,
        memory: &GuestMemory,
        offset: u32,
        bytes: &[u8],
    ) -> Result<usize, QueueError> {
        let mut done = 0;
        for (gpa, len) in pieces(&self.writable, offset, bytes.len()) {
            memory.write_from(gpa, &bytes[done..done + len])?;
            done += len;
        }
        Ok(done)
    }
}

/// The (address, length) pieces of `len` bytes from `offset` on, as far as there are any.
fn pieces(
    segments: &[Segment],
    offset: u32,
    len: usize,
) -> impl Iterator<Item = (u64, usize)> + '_ {
    let (mut skip, mut left) = (u64::from(offset), len);
    segments.iter().map_while(move |segment| {
        let size = u64::from(segment.len);
        let start = skip.min(size);
        skip -= start;
        let take = left.min((size - start) as usize);
        left -= take;
        (left + take > 0).then_some((segment.gpa + start, take))
    })
}

/// One virtqueue.
#[derive(Debug)]
pub struct Queue {
    max_size: u16,
    state: QueueState,
}

/// A queue's state as saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    size: u16,
    ready: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
    /// Chains taken and chains given back so far, modulo 2^16.
    next_available: u16,
    next_used: u16,
    /// `next_used` when the driver's wish for a signal was looked at last.
    signalled: u16,
    /// Negotiated ring features.
    indirect: bool,
    event_idx: bool,
}

impl Queue {
    /// A queue of at most `max_size` entries, disabled.
    pub fn new(max_size: u16) -> Self {
        let max_size = max_size.min(MAX_QUEUE_SIZE);
        let state = QueueState {
            size: max_size,
            ready: false,
            descriptors: 0,
            driver: 0,
            device: 0,
            next_available: 0,
            next_used: 0,
            signalled: 0,
            indirect: false,
            event_idx: false,
        };
        Self { max_size, state }
    }

    /// Back to the state after [`Queue::new`].
    pub fn reset(&mut self) {
        *self = Self::new(self.max_size);
    }

    /// The most entries.
    pub fn max_size(&self) -> u16 {
        self.max_size
    }

    /// Entries as set by the driver.
    pub fn size(&self) -> u16 {
        self.state.size
    }

    /// Whether the driver enabled the queue.
    pub fn is_ready(&self) -> bool {
        self.state.ready
    }

    /// Guest physical address of the descriptor table.
    pub fn descriptors(&self) -> u64 {
        self.state.descriptors
    }

    /// Guest physical address of the driver area (available ring).
    pub fn driver(&self) -> u64 {
        self.state.driver
    }

    /// Guest physical address of the device area (used ring).
    pub fn device(&self) -> u64 {
        self.state.device
    }

    /// Sets the number of entries; a queue in use keeps its own.
    pub fn set_size(&mut self, size: u16) {
        if !self.state.ready {
            self.state.size = size;
        }
    }

    /// Sets the addresses of descriptor table, driver area and device area; a queue in use keeps
    /// its own.
    pub fn set_addresses(&mut self, descriptors: u64, driver: u64, device: u64) {
        if !self.state.ready {
            self.state.descriptors = descriptors;
            self.state.driver = driver;
            self.state.device = device;
        }
    }

    /// Says which ring features were negotiated.
    pub fn set_features(&mut self, indirect: bool, event_idx: bool) {
        self.state.indirect = indirect;
        self.state.event_idx = event_idx;
    }

    /// Enables the queue if size and addresses are sound.
    pub fn enable(&mut self, memory: &GuestMemory) -> Result<(), QueueError> {
        self.state.validate(self.max_size, memory)?;
        self.state.ready = true;
        Ok(())
    }

    /// Takes the queue out of use; its positions start anew when it is enabled again.
    pub fn disable(&mut self) {
        self.state.ready = false;
        self.state.next_available = 0;
        self.state.next_used = 0;
        self.state.signalled = 0;
    }

    /// The next available buffer. `None` when there is none or the queue is disabled; the driver
    /// then notifies of the next one.
    pub fn pop(&mut self, memory: &GuestMemory) -> Result<Option<Chain>, QueueError> {
        if !self.state.ready {
            return Ok(None);
        }
        let ahead = self.available(memory)?;
        if ahead == 0 {
            return Ok(None);
        }
        let state = &mut self.state;
        if ahead > state.size {
            return Err(QueueError::AvailableIndex);
        }
        let slot = u64::from(state.next_available % state.size);
        let head = memory.load::<u16>(state.driver + 4 + 2 * slot)?;
        let chain = state.chain(memory, head)?;
        state.next_available = state.next_available.wrapping_add(1);
        Ok(Some(chain))
    }

    /// Whether [`Queue::pop`] has something to take, without taking it.
    pub fn has_available(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        Ok(self.state.ready && self.available(memory)? != 0)
    }

    /// Chains not taken yet. When there is none, asks for a notification and looks again, since
    /// the driver may have added one before it saw the wish.
    fn available(&mut self, memory: &GuestMemory) -> Result<u16, QueueError> {
        let state = &self.state;
        let ahead = |index: u16| index.wrapping_sub(state.next_available);
        let first = ahead(memory.load(state.driver + 2)?);
        if first != 0 || !state.event_idx {
            return Ok(first);
        }
        let event = state.device + 4 + 8 * u64::from(state.size);
        memory.store(event, state.next_available)?;
        fence(Ordering::SeqCst);
        Ok(ahead(memory.load(state.driver + 2)?))
    }

    /// Gives a buffer back with `written` bytes of its writable part filled from the start.
    pub fn complete(
        &mut self,
        memory: &GuestMemory,
        chain: Chain,
        written: u32,
    ) -> Result<(), QueueError> {
        let state = &mut self.state;
        if !state.ready {
            return Ok(());
        }
        let slot = u64::from(state.next_used % state.size);
        let element = state.device + 4 + 8 * slot;
        memory.store(element, u32::from(chain.head))?;
        memory.store(element + 4, written)?;
        state.next_used = state.next_used.wrapping_add(1);
        memory.store(state.device + 2, state.next_used)?;
        Ok(())
    }

    /// Whether the driver wants a signal for the buffers given back since the last call.
    pub fn wants_signal(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        let state = &mut self.state;
        if !state.ready || state.next_used == state.signalled {
            return Ok(false);
        }
        // Our used index before the driver's wish, section 2.7.10.
        fence(Ordering::SeqCst);
        let (new, old) = (state.next_used, state.signalled);
        state.signalled = new;
        if !state.event_idx {
            let flags = memory.load::<u16>(state.driver)?;
            return Ok(flags & AVAIL_NO_INTERRUPT == 0);
        }
        let event = memory.load::<u16>(state.driver + 4 + 2 * u64::from(state.size))?;
        Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
    }

    /// The state, for saving.
    pub fn save(&self) -> QueueState {
        self.state.clone()
    }

    /// Checks a saved state against this queue's limits.
    pub fn check_saved(
        &self,
        state: &QueueState,
        memory: &GuestMemory,
    ) -> Result<(), RestoreError> {
        let sound = !state.ready || state.validate(self.max_size, memory).is_ok();
        check(sound, "virtqueue")
    }

    /// Takes over a state that [`Queue::check_saved`] accepted.
    pub fn restore(&mut self, state: QueueState) {
        self.state = state;
    }
}

impl QueueState {
    fn validate(&self, max_size: u16, memory: &GuestMemory) -> Result<(), QueueError> {
        if !self.size.is_power_of_two() || self.size > max_size {
            return Err(QueueError::Size(self.size));
        }
        let size = u64::from(self.size);
        // Section 2.7: sizes and alignments of the parts, event fields included.
        let parts = [
            (self.descriptors, 16, DESC_SIZE * size),
            (self.driver, 2, 6 + 2 * size),
            (self.device, 4, 6 + 8 * size),
        ];
        for (gpa, align, len) in parts {
            if !gpa.is_multiple_of(align) {
                return Err(QueueError::Misaligned(gpa));
            }
            if !memory.is_ram(gpa, len) {
                return Err(OutOfRange { gpa, len }.into());
            }
        }
        Ok(())
    }

    /// Follows the chain that begins at `head`.
    fn chain(&self, memory: &GuestMemory, head: u16) -> Result<Chain, QueueError> {
        let mut chain = Chain { head, readable: Vec::new(), writable: Vec::new() };
        let (mut table, mut entries) = (self.descriptors, u64::from(self.size));
        let mut inside_indirect = false;
        let mut left = entries;
        let mut total = 0_u32;
        let mut index = head;
        loop {
            if u64::from(index) >= entries {
                return Err(QueueError::DescriptorIndex(index));
            }
            left = left.checked_sub(1).ok_or(QueueError::Loop)?;
            let descriptor = table + DESC_SIZE * u64::from(index);
            let gpa = memory.load::<u64>(descriptor)?;
            let rest = memory.load::<u64>(descriptor + 8)?;
            let (len, flags, next) = (rest as u32, (rest >> 32) as u16, (rest >> 48) as u16);
            if flags & DESC_INDIRECT != 0 {
                // Section 2.7.5.3: not nested, last of its chain, whole descriptors; its own
                // write flag means nothing.
                let table_len = u64::from(len);
                let count = table_len / DESC_SIZE;
                let sound = self.indirect
                    && !inside_indirect
                    && flags & DESC_NEXT == 0
                    && table_len.is_multiple_of(DESC_SIZE)
                    && (1..=MAX_INDIRECT).contains(&count);
                if !sound {
                    return Err(QueueError::Indirect);
                }
                if !memory.contains(gpa, table_len) {
                    return Err(OutOfRange { gpa, len: table_len }.into());
                }
                inside_indirect = true;
                (table, entries, left, index) = (gpa, count, count, 0);
                continue;
            }
            total = total.checked_add(len).ok_or(QueueError::TooLong)?;
            let segment = Segment { gpa, len };
            let outside = OutOfRange { gpa, len: len.into() };
            if flags & DESC_WRITE != 0 {
                if !memory.is_ram(gpa, len.into()) {
                    return Err(outside.into());
                }
                chain.writable.push(segment);
            } else {
                if !chain.writable.is_empty() {
                    return Err(QueueError::Order);
                }
                if !memory.contains(gpa, len.into()) {
                    return Err(outside.into());
                }
                chain.readable.push(segment);
            }
            if flags & DESC_NEXT == 0 {
                return Ok(chain);
            }
            index = next;
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
