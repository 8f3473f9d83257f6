//! Virtio: the device's side of OASIS "Virtual I/O Device (VIRTIO) Version 1.2".
//!
//! ```text
//! VirtioMmio (a bus device), VirtioPci (a function of a PCI bus)   registers, interrupts
//!   -> VirtioCore                                  status, features, queues, resets
//!     -> VirtioDevice (entropy, console, ...)      buffers and configuration
//! ```
//!
//! A device never sees its transport: it gets its [`Queues`] for the time of a call and, for what
//! happens outside the guest (a key, a finished disk read), a [`Waker`].

pub mod block;
pub mod console;
pub mod entropy;
pub mod mmio;
pub mod pci;
pub mod queue;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};

use crate::bus::{Device, RestoreError, SavedDevice, Width, check, lock};
use crate::memory::GuestMemory;
use queue::{Chain, Queue, QueueError, QueueState};

/// Feature bit 28: indirect descriptors.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// Feature bit 29: event indices in the rings.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// Feature bit 32: the device follows version 1, not the legacy interface.
pub const F_VERSION_1: u64 = 1 << 32;

/// Device status bits, section 2.1.
mod status {
    pub(super) const DRIVER_OK: u8 = 4;
    pub(super) const FEATURES_OK: u8 = 8;
    pub(super) const NEEDS_RESET: u8 = 64;
}

/// How a transport tells the driver. Called with the transport's lock held.
pub trait VirtioInterrupt: Send + Sync {
    /// Buffers of this queue were used.
    fn queue_used(&self, queue: u16);
    /// The configuration, or the device status, changed.
    fn config_changed(&self);
}

/// A kind of virtio device, independent of the transport.
pub trait VirtioDevice: Send {
    /// A short name for messages.
    fn name(&self) -> &'static str;

    /// The device type, section 5.
    fn device_id(&self) -> u32;

    /// The device's own feature bits; those of rings and version are added by [`VirtioCore`].
    fn features(&self) -> u64;

    /// The most entries of each queue: powers of two up to [`queue::MAX_QUEUE_SIZE`].
    fn queue_sizes(&self) -> &[u16];

    /// Reads the configuration space; 0 where there is none. See [`config_read`].
    fn read_config(&self, offset: u64, width: Width) -> u64;

    /// Writes the configuration space.
    fn write_config(&mut self, _offset: u64, _width: Width, _value: u64) {}

    /// Hands over the way to be called when something happened outside the guest.
    fn attach(&mut self, _waker: Waker) {}

    /// The driver is ready, with these features negotiated.
    fn activate(&mut self, _features: u64) {}

    /// The driver notified a queue, whose index is below the number of queues. An error makes the
    /// device need a reset.
    fn notified(&mut self, queue: u16, queues: &mut Queues<'_>) -> Result<(), QueueError>;

    /// [`Waker::wake`] was called. An error makes the device need a reset.
    fn woken(&mut self, _queues: &mut Queues<'_>) -> Result<(), QueueError> {
        Ok(())
    }

    /// Forgets what the driver set up.
    fn reset(&mut self);

    /// The state that a guest can tell, rings and status excepted.
    fn save(&self) -> SavedDevice;

    /// Takes over a saved state or refuses it and changes nothing.
    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError>;
}

/// Reads from a configuration space held as bytes; 0 beyond its end.
pub fn config_read(config: &[u8], offset: u64, width: Width) -> u64 {
    (0..width.bytes()).fold(0, |value, i| {
        let byte = offset.checked_add(i).and_then(|at| config.get(usize::try_from(at).ok()?));
        value | u64::from(byte.copied().unwrap_or(0)) << (8 * i)
    })
}

/// A device's queues, while it is being called.
pub struct Queues<'a> {
    queues: &'a mut [Queue],
    memory: &'a GuestMemory,
    interrupt: &'a dyn VirtioInterrupt,
    generation: &'a mut u32,
}

impl Queues<'_> {
    /// The memory that chains point into.
    pub fn memory(&self) -> &GuestMemory {
        self.memory
    }

    /// The next available buffer of a queue; `None` for a queue that does not exist.
    pub fn pop(&mut self, queue: u16) -> Result<Option<Chain>, QueueError> {
        match self.queues.get_mut(usize::from(queue)) {
            Some(queue) => queue.pop(self.memory),
            None => Ok(None),
        }
    }

    /// Whether [`Queues::pop`] would find a buffer.
    pub fn has_available(&mut self, queue: u16) -> Result<bool, QueueError> {
        match self.queues.get_mut(usize::from(queue)) {
            Some(queue) => queue.has_available(self.memory),
            None => Ok(false),
        }
    }

    /// Gives a buffer back with `written` bytes filled. Call [`Queues::signal`] after the last.
    pub fn complete(&mut self, queue: u16, chain: Chain, written: u32) -> Result<(), QueueError> {
        match self.queues.get_mut(usize::from(queue)) {
            Some(queue) => queue.complete(self.memory, chain, written),
            None => Ok(()),
        }
    }

    /// Interrupts the driver if it wants to hear of the buffers given back.
    pub fn signal(&mut self, index: u16) -> Result<(), QueueError> {
        if let Some(queue) = self.queues.get_mut(usize::from(index))
            && queue.wants_signal(self.memory)?
        {
            self.interrupt.queue_used(index);
        }
        Ok(())
    }

    /// Tells the driver that the configuration space changed.
    pub fn config_changed(&mut self) {
        *self.generation = self.generation.wrapping_add(1);
        self.interrupt.config_changed();
    }
}

/// A bus device that carries a virtio device.
pub trait VirtioTransport: Device {
    /// The part that all transports share; `None` for an empty slot.
    fn core(&mut self) -> Option<&mut VirtioCore>;

    /// Passes on to the driver what the core had to tell since it was last called, if the transport does not do so at
    /// once.
    fn tell(&mut self) {}
}

/// Calls a virtio device from outside the guest, on any thread that holds no device's lock.
#[derive(Clone)]
pub struct Waker(Weak<Mutex<dyn VirtioTransport>>);

impl Waker {
    /// A waker for the device that `transport` carries.
    pub fn new(transport: Weak<Mutex<dyn VirtioTransport>>) -> Self {
        Self(transport)
    }

    /// Calls [`VirtioDevice::woken`], if the driver is ready.
    pub fn wake(&self) {
        if let Some(transport) = self.0.upgrade() {
            let mut transport = lock(&transport);
            if let Some(core) = transport.core() {
                core.wake();
            }
            transport.tell();
        }
    }
}

/// What every transport does alike: device status, feature negotiation, queues.
pub struct VirtioCore {
    // What the board attached.
    device: Box<dyn VirtioDevice>,
    memory: Arc<GuestMemory>,
    interrupt: Arc<dyn VirtioInterrupt>,
    legacy: bool,

    // What the guest can tell.
    queues: Vec<Queue>,
    status: u8,
    features: u64,
    generation: u32,
    /// The driver broke a rule; nothing is served until it resets the device.
    broken: bool,
}

/// The state of a [`VirtioCore`] as saved.
#[derive(Clone, Serialize, Deserialize)]
pub struct CoreState {
    queues: Vec<QueueState>,
    status: u8,
    features: u64,
    generation: u32,
    broken: bool,
    device: SavedDevice,
}

impl VirtioCore {
    /// A device on a transport that speaks the legacy or the modern interface.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        interrupt: Arc<dyn VirtioInterrupt>,
        legacy: bool,
    ) -> Self {
        let queues = device.queue_sizes().iter().map(|&size| Queue::new(size)).collect();
        Self {
            device,
            memory,
            interrupt,
            legacy,
            queues,
            status: 0,
            features: 0,
            generation: 0,
            broken: false,
        }
    }

    /// The device's name.
    pub fn name(&self) -> &'static str {
        self.device.name()
    }

    /// The device type.
    pub fn device_id(&self) -> u32 {
        self.device.device_id()
    }

    /// Gives the device its waker.
    pub fn attach(&mut self, waker: Waker) {
        self.device.attach(waker);
    }

    /// All features on offer.
    pub fn device_features(&self) -> u64 {
        let all = self.device.features() | F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1;
        if self.legacy { all & 0xffff_ffff } else { all }
    }

    /// Sets 32 bits of the driver's features, the high ones if `high`; ignored once they are agreed.
    pub fn set_driver_features(&mut self, high: bool, value: u32) {
        if self.status & (status::FEATURES_OK | status::DRIVER_OK) != 0 {
            return;
        }
        let value = u64::from(value);
        self.features = match high {
            true => self.features & 0xffff_ffff | value << 32,
            false => self.features & !0xffff_ffff | value,
        };
    }

    /// The driver's features.
    pub fn driver_features(&self) -> u64 {
        self.features
    }

    /// The device status.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// The driver writes the device status; 0 resets the device (the transport then clears its
    /// own registers).
    pub fn set_status(&mut self, value: u8) {
        if value == 0 {
            self.reset();
            return;
        }
        let mut next = value | self.status & status::NEEDS_RESET;
        let set = |bit: u8, next: u8| next & bit != 0;
        if !self.legacy {
            // Section 3.1.1: FEATURES_OK stays off unless the features are acceptable. A driver that does
            // not accept VERSION_1 may be refused (section 6.1), but xv6 does without and works.
            let agreed = self.status & status::FEATURES_OK != 0;
            let sound = self.features & !self.device_features() == 0;
            if !agreed && !sound {
                next &= !status::FEATURES_OK;
            }
            if !set(status::FEATURES_OK, next) {
                next &= !status::DRIVER_OK;
            }
        }
        let starts = set(status::DRIVER_OK, next) && !set(status::DRIVER_OK, self.status);
        self.status = next;
        if starts {
            self.start();
        }
    }

    fn start(&mut self) {
        if self.legacy {
            self.features &= self.device_features();
        }
        let has = |bit| self.features & bit != 0;
        let (indirect, event_idx) = (has(F_INDIRECT_DESC), has(F_EVENT_IDX));
        self.queues.iter_mut().for_each(|queue| queue.set_features(indirect, event_idx));
        self.device.activate(self.features);
        // Buffers that the driver added while it got ready came without a notification.
        for queue in 0..self.queues.len() as u16 {
            self.notify(queue.into());
        }
    }

    /// Counts changes of the configuration space.
    pub fn config_generation(&self) -> u32 {
        self.generation
    }

    /// Reads the configuration space.
    pub fn read_config(&self, offset: u64, width: Width) -> u64 {
        self.device.read_config(offset, width) & width.mask()
    }

    /// Writes the configuration space.
    pub fn write_config(&mut self, offset: u64, width: Width, value: u64) {
        self.device.write_config(offset, width, value);
    }

    /// Number of queues.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// A queue, when there is one of this index.
    pub fn queue(&mut self, index: u32) -> Option<&mut Queue> {
        self.queues.get_mut(index as usize)
    }

    /// Enables a queue; unsound parameters make the device need a reset.
    pub fn enable_queue(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(index as usize) else { return };
        if let Err(error) = queue.enable(&self.memory) {
            self.fail(error);
        }
    }

    /// The driver notified a queue; ignored before DRIVER_OK and for a queue that does not exist.
    pub fn notify(&mut self, index: u32) {
        if (index as usize) < self.queues.len() {
            self.call(|device, queues| device.notified(index as u16, queues));
        }
    }

    /// Something happened outside the guest.
    pub fn wake(&mut self) {
        self.call(|device, queues| device.woken(queues));
    }

    fn call(
        &mut self,
        f: impl FnOnce(&mut dyn VirtioDevice, &mut Queues<'_>) -> Result<(), QueueError>,
    ) {
        if self.broken || self.status & status::DRIVER_OK == 0 {
            return;
        }
        let mut queues = Queues {
            queues: &mut self.queues,
            memory: &self.memory,
            interrupt: &*self.interrupt,
            generation: &mut self.generation,
        };
        if let Err(error) = f(&mut *self.device, &mut queues) {
            self.fail(error);
        }
    }

    /// Section 2.1.2: the device needs a reset and says so, if the driver can hear it.
    pub fn fail(&mut self, error: QueueError) {
        log::warn!(target: "virtio", "{} stops until it is reset: {error}", self.name());
        self.broken = true;
        if !self.legacy {
            self.status |= status::NEEDS_RESET;
            if self.status & status::DRIVER_OK != 0 {
                self.interrupt.config_changed();
            }
        }
    }

    /// Back to the state before any driver.
    pub fn reset(&mut self) {
        self.queues.iter_mut().for_each(Queue::reset);
        self.status = 0;
        self.features = 0;
        self.generation = 0;
        self.broken = false;
        self.device.reset();
    }

    /// The state, for the transport's save.
    pub fn save(&self) -> CoreState {
        let Self {
            device,
            memory: _,
            interrupt: _,
            legacy: _,
            queues,
            status,
            features,
            generation,
            broken,
        } = self;
        CoreState {
            queues: queues.iter().map(Queue::save).collect(),
            status: *status,
            features: *features,
            generation: *generation,
            broken: *broken,
            device: device.save(),
        }
    }

    /// Takes over a saved state or refuses it and changes nothing.
    pub fn restore(&mut self, state: CoreState) -> Result<(), RestoreError> {
        let CoreState { queues, status, features, generation, broken, device } = state;
        check(queues.len() == self.queues.len(), "number of virtqueues")?;
        for (queue, saved) in self.queues.iter().zip(&queues) {
            queue.check_saved(saved, &self.memory)?;
        }
        let agreed = status & (status::FEATURES_OK | status::DRIVER_OK) != 0;
        let sound = features & !self.device_features() == 0;
        check(!agreed || self.legacy || sound, "virtio features")?;
        self.device.restore(&device)?;
        for (queue, saved) in self.queues.iter_mut().zip(queues) {
            queue.restore(saved);
        }
        self.status = status;
        self.features = features;
        self.generation = generation;
        self.broken = broken;
        Ok(())
    }
}
