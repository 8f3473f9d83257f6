//! Console device with a single port: VIRTIO 1.2, section 5.3.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::queue::QueueError;
use super::{Queues, VirtioDevice, Waker, config_read};
use crate::bus::{RestoreError, SavedDevice, Width};
use crate::serial::{InputQueue, SerialInput, SerialOutput};

const DEVICE_ID: u32 = 3;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const QUEUES: [u16; 2] = [64, 64];

/// Feature bits, section 5.3.3.
const F_SIZE: u64 = 1;
const F_EMERG_WRITE: u64 = 1 << 2;
/// Configuration field `emerg_wr`, section 5.3.4.
const EMERG_WRITE: u64 = 8;

const VERSION: u32 = 1;

/// The device.
pub struct Console {
    output: Box<dyn SerialOutput>,
    input: InputQueue,
    shared: Arc<Shared>,
}

/// What the device and its [`ConsoleHandle`] share.
struct Shared {
    has_size: bool,
    /// Columns, and rows in the high half.
    size: AtomicU32,
    resized: AtomicBool,
    waker: OnceLock<Waker>,
}

impl Shared {
    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }
}

/// The host's side of a [`Console`].
#[derive(Clone)]
pub struct ConsoleHandle {
    /// Bytes for the guest.
    pub input: SerialInput,
    shared: Arc<Shared>,
}

impl ConsoleHandle {
    /// Tells the guest a new terminal size, if the console was made with one. From any thread that
    /// holds no device's lock.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = u32::from(rows) << 16 | u32::from(columns);
        if self.shared.has_size && self.shared.size.swap(size, Ordering::AcqRel) != size {
            self.shared.resized.store(true, Ordering::Release);
            self.shared.wake();
        }
    }
}

impl Console {
    /// A console that sends to `output`, with a terminal of (columns, rows) if given.
    pub fn new(output: Box<dyn SerialOutput>, size: Option<(u16, u16)>) -> (Self, ConsoleHandle) {
        let (columns, rows) = size.unwrap_or((0, 0));
        let shared = Arc::new(Shared {
            has_size: size.is_some(),
            size: AtomicU32::new(u32::from(rows) << 16 | u32::from(columns)),
            resized: AtomicBool::new(false),
            waker: OnceLock::new(),
        });
        let input = InputQueue::default();
        let waking = Arc::clone(&shared);
        let handle = ConsoleHandle {
            input: SerialInput::new(&input, Arc::new(move || waking.wake())),
            shared: Arc::clone(&shared),
        };
        (Self { output, input, shared }, handle)
    }

    fn transmit(&mut self, queues: &mut Queues<'_>) -> Result<(), QueueError> {
        let mut bytes = [0; 4096];
        while let Some(chain) = queues.pop(TRANSMIT)? {
            let mut offset = 0;
            loop {
                let len = chain.read(queues.memory(), offset, &mut bytes)?;
                if len == 0 {
                    break;
                }
                self.output.write(&bytes[..len]);
                offset += len as u32;
            }
            queues.complete(TRANSMIT, chain, 0)?;
        }
        queues.signal(TRANSMIT)
    }

    fn receive(&mut self, queues: &mut Queues<'_>) -> Result<(), QueueError> {
        let mut bytes = [0; 4096];
        while queues.has_available(RECEIVE)? && !self.input.is_empty() {
            let Some(chain) = queues.pop(RECEIVE)? else { break };
            let room = bytes.len().min(chain.writable_len() as usize);
            let len = self.input.take(&mut bytes[..room]);
            let written = chain.write(queues.memory(), 0, &bytes[..len])?;
            queues.complete(RECEIVE, chain, written as u32)?;
        }
        queues.signal(RECEIVE)
    }
}

impl VirtioDevice for Console {
    fn name(&self) -> &'static str {
        "virtio-console"
    }

    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        F_EMERG_WRITE | if self.shared.has_size { F_SIZE } else { 0 }
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn read_config(&self, offset: u64, width: Width) -> u64 {
        // cols, rows, max_nr_ports (1), emerg_wr.
        let mut config = [0; 12];
        config[..4].copy_from_slice(&self.shared.size.load(Ordering::Acquire).to_le_bytes());
        config[4] = 1;
        config_read(&config, offset, width)
    }

    fn write_config(&mut self, offset: u64, _width: Width, value: u64) {
        if offset == EMERG_WRITE {
            self.output.write(&[value as u8]);
        }
    }

    fn attach(&mut self, waker: Waker) {
        if self.shared.waker.set(waker).is_err() {
            log::error!(target: "virtio", "a console belongs to one transport");
        }
    }

    fn notified(&mut self, queue: u16, queues: &mut Queues<'_>) -> Result<(), QueueError> {
        if queue == TRANSMIT { self.transmit(queues) } else { self.receive(queues) }
    }

    fn woken(&mut self, queues: &mut Queues<'_>) -> Result<(), QueueError> {
        if self.shared.resized.swap(false, Ordering::AcqRel) {
            queues.config_changed();
        }
        self.receive(queues)
    }

    fn reset(&mut self) {}

    fn save(&self) -> SavedDevice {
        // The terminal's size belongs to the host, as does input that the guest has not seen.
        let Self { output: _, input: _, shared: _ } = self;
        SavedDevice::encode(VERSION, &())
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        saved.decode(VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serial::tests::Captured;
    use crate::virtio::mmio::Interface;
    use crate::virtio::testing::{Driver, RAM};

    fn rig(features: u64) -> (Driver, ConsoleHandle, Captured) {
        let output = Captured::default();
        let (console, handle) = Console::new(Box::new(output.clone()), Some((80, 25)));
        (Driver::new(Interface::Modern, Box::new(console), features), handle, output)
    }

    #[test]
    fn transmitted_pieces_arrive_in_order() {
        let (mut driver, _, output) = rig(0);
        driver.memory.write_from(RAM + 0x8000, b"hello ").unwrap();
        driver.memory.write_from(RAM + 0x9000, &[b'x'; 5000]).unwrap();
        driver.add(1, &[(RAM + 0x8000, 6, false), (RAM + 0x9000, 5000, false)]);
        driver.add(1, &[(RAM + 0x8000, 5, false)]);
        driver.notify(1);
        let mut expected = b"hello ".to_vec();
        expected.extend([b'x'; 5000]);
        expected.extend(b"hello");
        assert_eq!(output.take(), expected);
        assert_eq!(driver.used(1), [(0, 0), (2, 0)]);
    }

    #[test]
    fn input_waits_for_buffers_and_fills_them() {
        let (mut driver, handle, _) = rig(0);
        assert_eq!(handle.input.push(b"abcdef"), 6);
        assert_eq!(driver.used(0), []);
        driver.add(0, &[(RAM + 0x8000, 4, true)]);
        driver.notify(0);
        assert_eq!(driver.used(0), [(0, 4)]);
        driver.add(0, &[(RAM + 0x8000, 4, true)]);
        driver.add(0, &[(RAM + 0x8010, 4, true)]);
        driver.notify(0);
        assert_eq!(driver.used(0)[1..], [(1, 2)]);
        assert_eq!(driver.memory.load::<u32>(RAM + 0x8000).unwrap().to_le_bytes(), *b"efcd");
        driver.ack();
        handle.input.push(b"!");
        assert!(driver.irq.level());
        assert_eq!(driver.used(0)[2..], [(2, 1)]);
        assert_eq!(driver.memory.load::<u8>(RAM + 0x8010), Ok(b'!'));
    }

    #[test]
    fn the_size_is_in_the_configuration_and_changes_are_signalled() {
        let (driver, handle, output) = rig(F_SIZE);
        assert_eq!(driver.config(0, Width::Half), 80);
        assert_eq!(driver.config(2, Width::Half), 25);
        assert_eq!(driver.config(4, Width::Word), 1);
        assert_eq!(driver.config(12, Width::Double), 0);
        let generation = driver.read(0xfc);
        handle.resize(132, 43);
        assert_eq!(driver.config(0, Width::Word), 43 << 16 | 132);
        assert_eq!((driver.read(0x60), driver.irq.level()), (2, true));
        assert_ne!(driver.read(0xfc), generation);
        driver.write(0x108, u32::from(b'E'));
        assert_eq!(output.take(), b"E");
    }
}
