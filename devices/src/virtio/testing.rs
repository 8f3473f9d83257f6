//! A guest's driver for tests: it lays out queues in guest memory and works the registers of a
//! virtio-mmio slot.

use std::sync::{Arc, Mutex};

use super::mmio::{Interface, VirtioMmio};
use super::{F_EVENT_IDX, VirtioDevice};
use crate::bus::{Device, Width, lock};
use crate::irq::IrqLine;
use crate::memory::{GuestMemory, RegionSpec};

pub(crate) const RAM: u64 = 0x8000_0000;
pub(crate) const RAM_SIZE: u64 = 0x2_0000;
/// Entries of every queue.
pub(crate) const SIZE: u16 = 8;

/// Where queue `n` lies; the legacy layout with 4 KiB alignment.
pub(crate) fn descriptors(queue: u16) -> u64 {
    RAM + 0x2000 * u64::from(queue)
}
pub(crate) fn available(queue: u16) -> u64 {
    descriptors(queue) + 16 * u64::from(SIZE)
}
pub(crate) fn used(queue: u16) -> u64 {
    descriptors(queue) + 0x1000
}

pub(crate) struct Driver {
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) irq: IrqLine,
    pub(crate) slot: Arc<Mutex<VirtioMmio>>,
    next_descriptor: Vec<u16>,
}

impl Driver {
    /// A slot whose device went through initialisation with `features` beside the version.
    pub(crate) fn new(interface: Interface, device: Box<dyn VirtioDevice>, features: u64) -> Self {
        let mut driver = Self::bare(interface, device);
        driver.initialise(interface, features);
        driver
    }

    /// A slot that no driver has touched.
    pub(crate) fn bare(interface: Interface, device: Box<dyn VirtioDevice>) -> Self {
        let specs = [RegionSpec::ram(RAM, RAM_SIZE), RegionSpec::rom(0x1000, 0x1000)];
        let memory = Arc::new(GuestMemory::new(&specs).unwrap());
        let irq = IrqLine::unconnected();
        let queues = device.queue_sizes().len();
        let slot = VirtioMmio::new(interface, device, memory.clone(), irq.clone());
        Self { memory, irq, slot, next_descriptor: vec![0; queues] }
    }

    /// VIRTIO 1.2, section 3.1.1, with the queues of section 4.2.3.2 or 4.2.4.
    pub(crate) fn initialise(&mut self, interface: Interface, features: u64) {
        self.write(0x70, 0);
        self.write(0x70, 1);
        self.write(0x70, 3);
        self.write(0x24, 0);
        self.write(0x20, features as u32);
        if interface == Interface::Modern {
            self.write(0x24, 1);
            self.write(0x20, (features >> 32) as u32 | 1);
            self.write(0x70, 0xb);
            assert_eq!(self.read(0x70), 0xb, "features refused");
        } else {
            self.write(0x28, 0x1000);
        }
        for queue in 0..self.next_descriptor.len() as u16 {
            self.write(0x30, queue.into());
            assert!(self.read(0x34) >= SIZE.into());
            self.write(0x38, SIZE.into());
            if interface == Interface::Modern {
                let parts =
                    [(0x80, descriptors(queue)), (0x90, available(queue)), (0xa0, used(queue))];
                for (register, address) in parts {
                    self.write(register, address as u32);
                    self.write(register + 4, (address >> 32) as u32);
                }
                self.write(0x44, 1);
                assert_eq!(self.read(0x44), 1);
            } else {
                self.write(0x3c, 0x1000);
                self.write(0x40, (descriptors(queue) / 0x1000) as u32);
            }
        }
        self.write(0x70, self.read(0x70) | 4);
    }

    pub(crate) fn read(&self, offset: u64) -> u32 {
        lock(&self.slot).read(offset, Width::Word).unwrap() as u32
    }

    pub(crate) fn write(&self, offset: u64, value: u32) {
        lock(&self.slot).write(offset, Width::Word, value.into()).unwrap();
    }

    pub(crate) fn config(&self, offset: u64, width: Width) -> u64 {
        lock(&self.slot).read(0x100 + offset, width).unwrap()
    }

    /// Writes one descriptor.
    pub(crate) fn descriptor(
        &self,
        table: u64,
        index: u16,
        gpa: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let at = table + 16 * u64::from(index);
        self.memory.store(at, gpa).unwrap();
        self.memory.store(at + 8, len).unwrap();
        self.memory.store(at + 12, flags).unwrap();
        self.memory.store(at + 14, next).unwrap();
    }

    /// Makes a chain of (address, length, writable) available.
    pub(crate) fn add(&mut self, queue: u16, buffers: &[(u64, u32, bool)]) {
        let head = self.next_descriptor[usize::from(queue)];
        for (i, &(gpa, len, writable)) in buffers.iter().enumerate() {
            let index = (head + i as u16) % SIZE;
            let more = i + 1 < buffers.len();
            let flags = u16::from(more) | u16::from(writable) << 1;
            self.descriptor(descriptors(queue), index, gpa, len, flags, (index + 1) % SIZE);
        }
        self.next_descriptor[usize::from(queue)] = (head + buffers.len() as u16) % SIZE;
        self.publish(queue, head);
    }

    /// Puts a head into the available ring.
    pub(crate) fn publish(&self, queue: u16, head: u16) {
        let index = self.memory.load::<u16>(available(queue) + 2).unwrap();
        self.memory.store(available(queue) + 4 + 2 * u64::from(index % SIZE), head).unwrap();
        self.memory.store(available(queue) + 2, index.wrapping_add(1)).unwrap();
    }

    pub(crate) fn notify(&self, queue: u16) {
        self.write(0x50, queue.into());
    }

    /// Acknowledges all interrupts.
    pub(crate) fn ack(&self) {
        self.write(0x64, self.read(0x60));
    }

    /// The used ring so far, as (head, written).
    pub(crate) fn used(&self, queue: u16) -> Vec<(u32, u32)> {
        let index = self.memory.load::<u16>(used(queue) + 2).unwrap();
        (0..u64::from(index))
            .map(|i| {
                let at = used(queue) + 4 + 8 * (i % u64::from(SIZE));
                (self.memory.load(at).unwrap(), self.memory.load(at + 4).unwrap())
            })
            .collect()
    }

    /// `used_event`: the driver wants a signal once this many buffers were used.
    pub(crate) fn set_used_event(&self, queue: u16, index: u16) {
        self.memory.store(available(queue) + 4 + 2 * u64::from(SIZE), index).unwrap();
    }

    /// `avail_event` as the device wrote it.
    pub(crate) fn avail_event(&self, queue: u16) -> u16 {
        self.memory.load(used(queue) + 4 + 8 * u64::from(SIZE)).unwrap()
    }

    pub(crate) const EVENT_IDX: u64 = F_EVENT_IDX;
}
