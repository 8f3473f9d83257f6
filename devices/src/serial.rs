//! Bytes between a guest's serial device and the host.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::bus::lock;

/// Where a serial device's output goes. Called on a vCPU's thread with the device's lock held, so
/// it must not wait for a slow reader longer than the guest may stand still.
pub trait SerialOutput: Send {
    /// The guest sent these bytes.
    fn write(&mut self, bytes: &[u8]);
}

/// Bytes that the host may queue before the guest takes them.
pub const INPUT_CAPACITY: usize = 4096;

/// Input that waits for the guest. Bytes leave it only as the device has room for them, so a paste
/// of any length arrives whole.
#[derive(Clone)]
pub struct SerialInput {
    queue: Arc<Mutex<Queue>>,
    arrived: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    bytes: VecDeque<u8>,
    /// A push was cut short, so somebody waits for room.
    refused: bool,
    room: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The device's end of a [`SerialInput`].
#[derive(Clone, Default)]
pub(crate) struct InputQueue(Arc<Mutex<Queue>>);

impl SerialInput {
    /// The host's end of `queue`; `arrived` runs after each push, with no lock held.
    pub(crate) fn new(queue: &InputQueue, arrived: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { queue: Arc::clone(&queue.0), arrived }
    }

    /// Queues as many of `bytes` as there is room for and returns how many. From any thread that
    /// holds no device's lock.
    pub fn push(&self, bytes: &[u8]) -> usize {
        let taken = {
            let mut queue = lock(&self.queue);
            let taken = bytes.len().min(INPUT_CAPACITY.saturating_sub(queue.bytes.len()));
            queue.bytes.extend(&bytes[..taken]);
            queue.refused |= taken < bytes.len();
            taken
        };
        if taken > 0 {
            (self.arrived)();
        }
        taken
    }

    /// Sets what is called once half of the queue is free again after a push that was cut short.
    /// It runs on a vCPU's thread with the device's lock held: wake the pushing thread, no more.
    pub fn on_room(&self, room: Arc<dyn Fn() + Send + Sync>) {
        lock(&self.queue).room = Some(room);
    }

    /// Bytes that the guest has not taken yet.
    pub fn pending(&self) -> usize {
        lock(&self.queue).bytes.len()
    }
}

impl fmt::Debug for SerialInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerialInput").field("pending", &self.pending()).finish()
    }
}

impl InputQueue {
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0).bytes.is_empty()
    }

    /// Takes up to `bytes.len()` bytes and returns how many.
    pub(crate) fn take(&self, bytes: &mut [u8]) -> usize {
        let (taken, room) = {
            let mut queue = lock(&self.0);
            let taken = bytes.len().min(queue.bytes.len());
            for (to, from) in bytes.iter_mut().zip(queue.bytes.drain(..taken)) {
                *to = from;
            }
            let tell = queue.refused && queue.bytes.len() <= INPUT_CAPACITY / 2;
            queue.refused &= !tell;
            (taken, if tell { queue.room.clone() } else { None })
        };
        if let Some(room) = room {
            room();
        }
        taken
    }

    /// Puts bytes that the guest never saw back to the front.
    pub(crate) fn put_back(&self, bytes: impl DoubleEndedIterator<Item = u8>) {
        let mut queue = lock(&self.0);
        bytes.rev().for_each(|byte| queue.bytes.push_front(byte));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Output that a test can look at.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn take(&self) -> Vec<u8> {
            std::mem::take(&mut *lock(&self.0))
        }
    }

    impl SerialOutput for Captured {
        fn write(&mut self, bytes: &[u8]) {
            lock(&self.0).extend_from_slice(bytes);
        }
    }

    #[test]
    fn a_push_is_cut_at_the_capacity_and_room_is_announced_once() {
        let queue = InputQueue::default();
        let input = SerialInput::new(&queue, Arc::new(|| ()));
        let rooms = Arc::new(AtomicUsize::new(0));
        let seen = rooms.clone();
        input.on_room(Arc::new(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(input.push(&[1; INPUT_CAPACITY - 1]), INPUT_CAPACITY - 1);
        assert_eq!(input.push(&[2, 3]), 1);
        assert_eq!(input.push(&[3]), 0);
        let mut byte = [0];
        let mut taken = 0;
        while rooms.load(Ordering::Relaxed) == 0 {
            assert_eq!(queue.take(&mut byte), 1);
            taken += 1;
        }
        assert_eq!(taken, INPUT_CAPACITY / 2);
        while queue.take(&mut byte) == 1 {}
        assert_eq!((byte, rooms.load(Ordering::Relaxed)), ([2], 1));
    }

    #[test]
    fn bytes_put_back_come_first() {
        let queue = InputQueue::default();
        let input = SerialInput::new(&queue, Arc::new(|| ()));
        input.push(b"cd");
        queue.put_back(b"ab".iter().copied());
        let mut bytes = [0; 8];
        assert_eq!(queue.take(&mut bytes), 4);
        assert_eq!(&bytes[..4], b"abcd");
    }
}
