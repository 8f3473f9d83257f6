//! Block device: VIRTIO 1.2, section 5.2.
//!
//! ```text
//! notified -> Request -> Workers: Backend::perform (disk, guest memory) -> woken -> Finished
//! ```
//!
//! Several requests are in flight and complete in any order; a vCPU never waits for the disk. A
//! synchronous device performs each request inside the notification instead, so that a run can be
//! repeated exactly. A flush is one `Disk::flush` that begins after the driver queued it, so all
//! writes that had completed by then are covered by it.

mod request;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::queue::QueueError;
use super::{Queues, VirtioDevice, Waker, config_read};
use crate::bus::{RestoreError, SavedDevice, Width, check};
use crate::disk::{Disk, Drain, Failures, Workers};
use crate::memory::GuestMemory;
use request::{Backend, Finished, ID_SIZE, MAX_RANGES, Request};

const DEVICE_ID: u32 = 2;
const REQUESTS: u16 = 0;
const QUEUE_SIZE: u16 = 256;
const QUEUES: [u16; 1] = [QUEUE_SIZE];
/// Threads of one disk: enough to keep a solid-state disk busy with small requests.
const THREADS: usize = 4;

/// Feature bits, section 5.2.3.
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_TOPOLOGY: u64 = 1 << 10;
const F_CONFIG_WCE: u64 = 1 << 11;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

/// Configuration field `writeback`, section 5.2.4.
const WRITEBACK: u64 = 32;
const CONFIG_SIZE: usize = 60;
/// log2 of the sectors in 4 KiB, the unit in which hosts keep files: smaller or misaligned writes
/// make them read first, and only whole units can be given back.
const PHYSICAL_BLOCK_EXP: u8 = 3;

const VERSION: u32 = 1;

/// What a [`Block`] is made with beside its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockOptions {
    /// The serial number that the guest sees, cut at 20 bytes.
    pub serial: String,
    /// Requests complete inside the notification, for deterministic runs.
    pub synchronous: bool,
}

/// The device.
pub struct Block {
    // What the board attached.
    backend: Arc<Backend>,
    /// `None` for a synchronous device.
    workers: Option<Workers<Request, Finished>>,
    /// Requests taken and not given back yet. At most [`QUEUE_SIZE`]: a driver that makes buffers
    /// available twice gets no more memory out of the host.
    in_flight: u16,

    // What the guest can tell.
    features: u64,
    writeback: bool,
}

/// The host's side of a [`Block`].
pub struct BlockHandle {
    failures: Arc<Failures>,
    drain: Option<Drain<Request, Finished>>,
}

impl BlockHandle {
    /// Waits until all requests taken so far are given back. Before a save, and before the image is
    /// opened again by this program: with the vCPUs parked, on a thread that holds no device's
    /// lock.
    pub fn drain(&self) {
        if let Some(drain) = &self.drain {
            drain.wait();
        }
    }

    /// What failed on the host's side so far.
    pub fn failures(&self) -> &Failures {
        &self.failures
    }
}

/// The state as saved.
#[derive(Serialize, Deserialize)]
struct BlockState {
    /// The disk must be like the one of the saved machine.
    sectors: u64,
    read_only: bool,
    features: u64,
    writeback: bool,
}

impl Block {
    /// A device for `disk` that moves data from and to `memory`, the memory of its transport.
    pub fn new(
        disk: Arc<dyn Disk>,
        memory: Arc<GuestMemory>,
        options: &BlockOptions,
    ) -> (Self, BlockHandle) {
        let mut id = [0; ID_SIZE];
        id.iter_mut().zip(options.serial.bytes()).for_each(|(to, from)| *to = from);
        let failures = Arc::new(Failures::default());
        let backend = Arc::new(Backend { disk, memory, failures: Arc::clone(&failures), id });
        let workers = (!options.synchronous).then(|| {
            let backend = Arc::clone(&backend);
            Workers::new("disk", THREADS, move |request, cancelled: &_| {
                backend.perform(request, cancelled)
            })
        });
        let drain = workers.as_ref().map(Workers::drain);
        let block = Self { backend, workers, in_flight: 0, features: 0, writeback: true };
        (block, BlockHandle { failures, drain })
    }

    /// Section 5.2.6.2: whether a write is stable once it is completed, rather than after a flush.
    fn is_write_through(&self) -> bool {
        if self.features & F_CONFIG_WCE != 0 {
            !self.writeback
        } else {
            self.features & F_FLUSH == 0
        }
    }

    /// Gives back what is done and takes what is available.
    fn serve(&mut self, queues: &mut Queues<'_>) -> Result<(), QueueError> {
        let done = self.workers.as_ref().map(Workers::take_done).unwrap_or_default();
        for finished in done {
            self.in_flight -= 1;
            finish(finished, queues)?;
        }
        while self.in_flight < QUEUE_SIZE
            && let Some(chain) = queues.pop(REQUESTS)?
        {
            let request = Request::new(chain, queues.memory(), self.is_write_through())?;
            let refused = match &self.workers {
                Some(workers) => workers.submit(request).err(),
                None => Some(request),
            };
            match refused {
                None => self.in_flight += 1,
                Some(request) => {
                    let finished = self.backend.perform(request, &AtomicBool::new(false));
                    finish(finished, queues)?;
                }
            }
        }
        queues.signal(REQUESTS)
    }

    /// Ends all requests without an answer; afterwards none touches guest memory or the disk.
    fn cancel(&mut self) {
        if let Some(workers) = &self.workers {
            workers.cancel();
        }
        self.in_flight = 0;
    }
}

/// Gives a request back.
fn finish(finished: Finished, queues: &mut Queues<'_>) -> Result<(), QueueError> {
    let (chain, written) = finished.answer(queues.memory())?;
    queues.complete(REQUESTS, chain, written)
}

impl VirtioDevice for Block {
    fn name(&self) -> &'static str {
        "virtio-blk"
    }

    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        let writes = match self.backend.disk.is_read_only() {
            true => F_RO,
            false => F_DISCARD | F_WRITE_ZEROES,
        };
        writes | F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_CONFIG_WCE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn read_config(&self, offset: u64, width: Width) -> u64 {
        let mut config = [0; CONFIG_SIZE];
        let mut put = |at: usize, bytes: &[u8]| config[at..][..bytes.len()].copy_from_slice(bytes);
        let block = 1_u32 << PHYSICAL_BLOCK_EXP;
        put(0, &self.backend.disk.sectors().to_le_bytes());
        // seg_max: what fits a queue beside header and status.
        put(12, &u32::from(QUEUE_SIZE - 2).to_le_bytes());
        put(20, &(crate::disk::SECTOR_SIZE as u32).to_le_bytes());
        // topology: physical_block_exp, alignment_offset, min_io_size, opt_io_size (none).
        put(24, &[PHYSICAL_BLOCK_EXP, 0]);
        put(26, &(block as u16).to_le_bytes());
        put(WRITEBACK as usize, &[self.writeback.into()]);
        // max_discard_sectors, max_discard_seg, discard_sector_alignment.
        put(36, &u32::MAX.to_le_bytes());
        put(40, &MAX_RANGES.to_le_bytes());
        put(44, &block.to_le_bytes());
        // max_write_zeroes_sectors, max_write_zeroes_seg, write_zeroes_may_unmap.
        put(48, &u32::MAX.to_le_bytes());
        put(52, &MAX_RANGES.to_le_bytes());
        put(56, &[1]);
        config_read(&config, offset, width)
    }

    fn write_config(&mut self, offset: u64, _width: Width, value: u64) {
        if offset == WRITEBACK && self.features & F_CONFIG_WCE != 0 {
            self.writeback = value & 1 != 0;
        }
    }

    fn attach(&mut self, waker: Waker) {
        if let Some(workers) = &self.workers
            && !workers.set_wake(move || waker.wake())
        {
            log::error!(target: "virtio", "a block device belongs to one transport");
        }
    }

    fn activate(&mut self, features: u64) {
        self.features = features & self.features();
        // Section 5.2.5.2: a driver that cannot flush starts with no volatile cache.
        self.writeback = features & F_FLUSH != 0;
    }

    fn notified(&mut self, _queue: u16, queues: &mut Queues<'_>) -> Result<(), QueueError> {
        self.serve(queues)
    }

    fn woken(&mut self, queues: &mut Queues<'_>) -> Result<(), QueueError> {
        self.serve(queues)
    }

    fn reset(&mut self) {
        self.cancel();
        self.features = 0;
        self.writeback = true;
    }

    fn save(&self) -> SavedDevice {
        let Self { backend, workers: _, in_flight, features, writeback } = self;
        // Requests belong to nobody's state: `BlockHandle::drain` comes before a save. Waiting here
        // cannot help, since they are given back under the lock that the caller holds.
        if *in_flight > 0 {
            log::error!(
                target: "disk",
                "{}: saved with {in_flight} requests not given back; they will be missing",
                backend.disk.name()
            );
        }
        let state = BlockState {
            sectors: backend.disk.sectors(),
            read_only: backend.disk.is_read_only(),
            features: *features,
            writeback: *writeback,
        };
        SavedDevice::encode(VERSION, &state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let BlockState { sectors, read_only, features, writeback } = saved.decode(VERSION)?;
        check(sectors == self.backend.disk.sectors(), "disk size")?;
        check(read_only == self.backend.disk.is_read_only(), "read-only disk")?;
        check(features & !self.features() == 0, "block features")?;
        self.cancel();
        self.features = features;
        self.writeback = writeback;
        Ok(())
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
