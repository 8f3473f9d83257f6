//! Virtio over PCI: one function per device, with the modern interface alone.
//!
//! Source: VIRTIO 1.2, section 4.1. What the driver works lies in one BAR, a page for each structure; the MSI-X table
//! lies in a second one, if the machine has messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};

use super::{CoreState, VirtioCore, VirtioDevice, VirtioInterrupt, VirtioTransport, Waker};
use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check};
use crate::irq::IrqLine;
use crate::memory::GuestMemory;
use crate::msi::MsiSink;
use crate::pci::PciFunction;
use crate::pci::config::{BarKind, Config, ConfigState, Identity};
use crate::pci::msix::{self, Msix, MsixState};

/// Red Hat's, for virtio (section 4.1.2), and the device number of device type 0.
const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;
/// Revision of modern devices, and a subsystem that is none of the legacy ones.
const REVISION: u8 = 1;
const SUBSYSTEM: u16 = 0x1100;

/// The BARs, and the function's own offsets of what is in them.
const BAR: u8 = 0;
const MSIX_BAR: u8 = 1;
const BAR_SIZE: u64 = 0x4000;
const MSIX: u64 = 0x1_0000;

/// The structures in the BAR: a page each.
const PAGE: u64 = 0x1000;
const COMMON: u64 = 0;
const ISR: u64 = PAGE;
const DEVICE: u64 = 2 * PAGE;
const NOTIFY: u64 = 3 * PAGE;
/// Bytes between the places where queues are notified.
const NOTIFY_STRIDE: u32 = 4;

/// Capabilities: number of vendors' own; types of structures (section 4.1.4).
const VENDOR_CAPABILITY: u8 = 9;
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;
/// Where they lie in the configuration space.
const CAPABILITIES: u8 = 0x40;
const ACCESS: u8 = 0x84;
const MSIX_CAPABILITY: u8 = 0x98;
/// Fields of [`PCI_CFG`]'s capability, by which the BAR is reached without being mapped.
const ACCESS_BAR: u8 = ACCESS + 4;
const ACCESS_OFFSET: u8 = ACCESS + 8;
const ACCESS_LENGTH: u8 = ACCESS + 12;
const ACCESS_DATA: u8 = ACCESS + 16;

/// Fields of the common configuration (section 4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(super) const DEVICE_FEATURE: u64 = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(super) const DRIVER_FEATURE: u64 = 0x0c;
    pub(super) const CONFIG_VECTOR: u64 = 0x10;
    pub(super) const NUM_QUEUES: u64 = 0x12;
    pub(super) const STATUS: u64 = 0x14;
    pub(super) const CONFIG_GENERATION: u64 = 0x15;
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_VECTOR: u64 = 0x1a;
    pub(super) const QUEUE_ENABLE: u64 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub(super) const QUEUE_DESC: u64 = 0x20;
    pub(super) const QUEUE_DRIVER: u64 = 0x28;
    pub(super) const QUEUE_DEVICE: u64 = 0x30;
    /// End of the queue's addresses.
    pub(super) const ADDRESSES_END: u64 = 0x38;
    /// Bytes.
    pub(super) const SIZE: u32 = 0x38;
}

/// No message for this.
const NO_VECTOR: u16 = 0xffff;
/// Bits of the ISR status.
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

const VERSION: u32 = 1;

/// What the core has to tell the driver: a bit for each queue, and the highest for the configuration.
#[derive(Default)]
struct News(AtomicU64);

const NEWS_CONFIG: u64 = 1 << 63;

impl VirtioInterrupt for News {
    fn queue_used(&self, queue: u16) {
        self.0.fetch_or(1 << (queue % 63), Ordering::Relaxed);
    }

    fn config_changed(&self) {
        self.0.fetch_or(NEWS_CONFIG, Ordering::Relaxed);
    }
}

/// The function.
pub struct VirtioPci {
    // What the board attached.
    line: IrqLine,
    news: Arc<News>,

    // Sub-devices.
    config: Config,
    msix: Option<Msix>,
    core: VirtioCore,

    // What the guest can tell.
    registers: Registers,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Registers {
    device_feature_select: u32,
    driver_feature_select: u32,
    queue_select: u16,
    config_vector: u16,
    queue_vectors: Vec<u16>,
    isr: u8,
}

#[derive(Serialize, Deserialize)]
struct PciState {
    config: ConfigState,
    msix: Option<MsixState>,
    core: CoreState,
    registers: Registers,
}

impl Registers {
    fn new(queues: usize) -> Self {
        Registers {
            device_feature_select: 0,
            driver_feature_select: 0,
            queue_select: 0,
            config_vector: NO_VECTOR,
            queue_vectors: vec![NO_VECTOR; queues],
            isr: 0,
        }
    }
}

/// Class of a device of this type.
fn class(device_id: u32) -> u32 {
    match device_id {
        // Network, block (mass storage), console (communication).
        1 => 0x02_0000,
        2 => 0x01_0000,
        3 => 0x07_8000,
        _ => 0x00_ff00,
    }
}

/// A capability that says where a structure lies in the BAR: what follows its number and link.
fn structure(kind: u8, offset: u64, len: u32, more: &[u8]) -> Vec<u8> {
    let mut contents = vec![16 + more.len() as u8, kind, BAR, 0, 0, 0];
    contents.extend((offset as u32).to_le_bytes());
    contents.extend(len.to_le_bytes());
    contents.extend(more);
    contents
}

/// The configuration space of a device of this type.
fn config(device_id: u32) -> Config {
    let mut config = Config::new(Identity {
        vendor: VENDOR,
        device: FIRST_DEVICE + device_id as u16,
        revision: REVISION,
        class: class(device_id),
        subsystem: (VENDOR, SUBSYSTEM),
        multifunction: false,
        pin: 1,
    });
    config.add_bar(BAR.into(), BarKind::Memory32, BAR_SIZE, 0);
    let page = PAGE as u32;
    let structures = [
        structure(COMMON_CFG, COMMON, common::SIZE, &[]),
        structure(ISR_CFG, ISR, 1, &[]),
        structure(DEVICE_CFG, DEVICE, page, &[]),
        structure(NOTIFY_CFG, NOTIFY, page, &NOTIFY_STRIDE.to_le_bytes()),
    ];
    let mut at = CAPABILITIES;
    for contents in structures {
        config.add_capability(at, VENDOR_CAPABILITY, &contents, &[]);
        at += 2 + contents.len() as u8;
    }
    // BAR, offset, length and data are the driver's to write.
    let contents = structure(PCI_CFG, 0, 0, &[0; 4]);
    let mut writable = [0xff; 18];
    writable[..2].fill(0);
    writable[3..6].fill(0);
    config.add_capability(ACCESS, VENDOR_CAPABILITY, &contents, &writable);
    config
}

impl VirtioPci {
    /// A function that carries `device`. Its interrupts go by messages to `messages`, if there is such a thing and the
    /// driver wants it, otherwise by `line`.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        line: IrqLine,
        messages: Option<Arc<dyn MsiSink>>,
    ) -> Arc<Mutex<Self>> {
        let news = Arc::<News>::default();
        let mut config = config(device.device_id());
        let queues = device.queue_sizes().len();
        let msix = messages.map(|messages| {
            config.add_bar(MSIX_BAR.into(), BarKind::Memory32, msix::SIZE, MSIX);
            // One for each queue, and one for the configuration.
            let entries = queues as u16 + 1;
            Msix::new(&mut config, MSIX_CAPABILITY, (MSIX_BAR, 0), entries, messages)
        });
        Arc::new_cyclic(|function: &Weak<Mutex<Self>>| {
            let mut core = VirtioCore::new(device, memory, news.clone(), false);
            core.attach(Waker::new(function.clone()));
            let registers = Registers::new(queues);
            Mutex::new(Self { line, news, config, msix, core, registers })
        })
    }

    fn uses_messages(&self) -> bool {
        self.msix.as_ref().is_some_and(|msix| msix.is_on(&self.config))
    }

    /// Drives the interrupt pin.
    fn drive(&mut self) {
        let asserted = self.registers.isr != 0 && !self.uses_messages();
        let level = self.config.show_interrupt(asserted);
        self.line.set(level);
    }

    /// Keeps a message's number if there is such a message.
    fn vector(&self, value: u16) -> u16 {
        let last = self.registers.queue_vectors.len();
        if self.msix.is_some() && usize::from(value) <= last { value } else { NO_VECTOR }
    }

    fn read_common(&mut self, offset: u64, width: Width) -> u64 {
        use common::*;
        let registers = &self.registers;
        let select = usize::from(registers.queue_select);
        let vector = registers.queue_vectors.get(select).copied().unwrap_or(NO_VECTOR);
        let features = self.core.device_features();
        let (num, generation) = (self.core.queue_count() as u64, self.core.config_generation());
        let status = self.core.status();
        let queue = self.core.queue(select as u32);
        let of_address = |base: u64, address: u64| address >> (8 * (offset - base)) & width.mask();
        match (offset, width) {
            (DEVICE_FEATURE_SELECT, Width::Word) => registers.device_feature_select.into(),
            (DEVICE_FEATURE, Width::Word) => match registers.device_feature_select {
                0 => features & 0xffff_ffff,
                1 => features >> 32,
                _ => 0,
            },
            (DRIVER_FEATURE_SELECT, Width::Word) => registers.driver_feature_select.into(),
            (DRIVER_FEATURE, Width::Word) => match registers.driver_feature_select {
                0 => self.core.driver_features() & 0xffff_ffff,
                1 => self.core.driver_features() >> 32,
                _ => 0,
            },
            (CONFIG_VECTOR, Width::Half) => registers.config_vector.into(),
            (NUM_QUEUES, Width::Half) => num,
            (STATUS, Width::Byte) => status.into(),
            (CONFIG_GENERATION, Width::Byte) => u64::from(generation) & 0xff,
            (QUEUE_SELECT, Width::Half) => registers.queue_select.into(),
            (QUEUE_SIZE, Width::Half) => queue.map_or(0, |queue| queue.size().into()),
            (QUEUE_VECTOR, Width::Half) => vector.into(),
            (QUEUE_ENABLE, Width::Half) => queue.is_some_and(|queue| queue.is_ready()).into(),
            (QUEUE_NOTIFY_OFF, Width::Half) => select as u64,
            (QUEUE_DESC..ADDRESSES_END, Width::Word | Width::Double) => {
                let Some(queue) = queue else { return 0 };
                match offset {
                    QUEUE_DESC..QUEUE_DRIVER => of_address(QUEUE_DESC, queue.descriptors()),
                    QUEUE_DRIVER..QUEUE_DEVICE => of_address(QUEUE_DRIVER, queue.driver()),
                    _ => of_address(QUEUE_DEVICE, queue.device()),
                }
            }
            _ => 0,
        }
    }

    fn write_common(&mut self, offset: u64, width: Width, value: u64) {
        use common::*;
        let select = self.registers.queue_select;
        let half = value as u16;
        match (offset, width) {
            (DEVICE_FEATURE_SELECT, Width::Word) => {
                self.registers.device_feature_select = value as u32;
            }
            (DRIVER_FEATURE_SELECT, Width::Word) => {
                self.registers.driver_feature_select = value as u32;
            }
            (DRIVER_FEATURE, Width::Word) => {
                let high = self.registers.driver_feature_select;
                if high <= 1 {
                    self.core.set_driver_features(high == 1, value as u32);
                }
            }
            (CONFIG_VECTOR, Width::Half) => self.registers.config_vector = self.vector(half),
            (STATUS, Width::Byte) => {
                self.core.set_status(value as u8);
                if value == 0 {
                    self.clear();
                }
            }
            (QUEUE_SELECT, Width::Half) => self.registers.queue_select = half,
            (QUEUE_SIZE, Width::Half) => {
                if let Some(queue) = self.core.queue(select.into()) {
                    queue.set_size(half);
                }
            }
            (QUEUE_VECTOR, Width::Half) => {
                let vector = self.vector(half);
                if let Some(kept) = self.registers.queue_vectors.get_mut(usize::from(select)) {
                    *kept = vector;
                }
            }
            // A driver may not disable a queue so (section 4.1.4.3.2).
            (QUEUE_ENABLE, Width::Half) if value == 1 => self.core.enable_queue(select.into()),
            (QUEUE_DESC..ADDRESSES_END, Width::Word | Width::Double) => {
                self.write_address(offset, width, value);
            }
            _ => {}
        }
    }

    /// Writes one of the selected queue's addresses, or half of it.
    fn write_address(&mut self, offset: u64, width: Width, value: u64) {
        let Some(queue) = self.core.queue(self.registers.queue_select.into()) else { return };
        let mut addresses = [queue.descriptors(), queue.driver(), queue.device()];
        let offset = offset - common::QUEUE_DESC;
        let shift = 8 * (offset % 8);
        let address = &mut addresses[(offset / 8) as usize];
        *address = *address & !(width.mask() << shift) | value << shift;
        let [descriptors, driver, device] = addresses;
        queue.set_addresses(descriptors, driver, device);
    }

    /// Forgets what the driver set up beside the core.
    fn clear(&mut self) {
        self.registers = Registers::new(self.registers.queue_vectors.len());
        self.news.0.store(0, Ordering::Relaxed);
        self.drive();
    }

    /// Where the capability for access by the configuration space leads to.
    fn accessed(&self) -> Option<(u64, Width)> {
        let offset = self.config.read(ACCESS_OFFSET, Width::Word).into();
        let len = self.config.read(ACCESS_LENGTH, Width::Word);
        let width = Width::from_bytes(len as usize).filter(|width| *width != Width::Double)?;
        let inside = offset < BAR_SIZE && width.is_aligned(offset);
        let here = self.config.read(ACCESS_BAR, Width::Byte) == u32::from(BAR);
        (inside && here).then_some((offset, width))
    }
}

impl VirtioTransport for VirtioPci {
    fn core(&mut self) -> Option<&mut VirtioCore> {
        Some(&mut self.core)
    }

    fn tell(&mut self) {
        let news = self.news.0.swap(0, Ordering::Relaxed);
        if news == 0 {
            return;
        }
        match &mut self.msix {
            Some(msix) if msix.is_on(&self.config) => {
                let mut signal = |vector| {
                    if vector != NO_VECTOR {
                        msix.signal(&self.config, vector);
                    }
                };
                if news & NEWS_CONFIG != 0 {
                    signal(self.registers.config_vector);
                }
                let queues = self.registers.queue_vectors.iter().enumerate();
                queues
                    .filter(|(queue, _)| news >> queue & 1 != 0)
                    .for_each(|(_, vector)| signal(*vector));
            }
            _ => {
                let config = if news & NEWS_CONFIG != 0 { ISR_CONFIG } else { 0 };
                let queue = if news & !NEWS_CONFIG != 0 { ISR_QUEUE } else { 0 };
                self.registers.isr |= config | queue;
                self.drive();
            }
        }
    }
}

impl PciFunction for VirtioPci {
    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn read_config(&mut self, register: u8, width: Width) -> u32 {
        if register & !3 == ACCESS_DATA
            && let Some((offset, width)) = self.accessed()
            && let Ok(value) = self.read(offset, width)
        {
            self.config.write(ACCESS_DATA, Width::Word, value as u32);
        }
        self.config.read(register, width)
    }

    fn write_config(&mut self, register: u8, width: Width, value: u32) {
        self.config.write(register, width, value);
        if register & !3 == ACCESS_DATA
            && let Some((offset, width)) = self.accessed()
        {
            let value = u64::from(self.config.read(ACCESS_DATA, width));
            // What the structure does not take does nothing, as through the BAR.
            let _ = self.write(offset, width, value);
        }
        if let Some(msix) = &mut self.msix {
            msix.send_pending(&self.config);
        }
        self.drive();
    }
}

impl Device for VirtioPci {
    fn name(&self) -> &'static str {
        self.core.name()
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        match offset {
            COMMON..ISR => Ok(self.read_common(offset - COMMON, width)),
            ISR if width == Width::Byte => {
                let isr = std::mem::take(&mut self.registers.isr);
                self.drive();
                Ok(isr.into())
            }
            DEVICE..NOTIFY => Ok(self.core.read_config(offset - DEVICE, width)),
            MSIX.. => match &self.msix {
                Some(msix) => msix.read(offset - MSIX, width),
                None => Err(BusError::Refused),
            },
            _ => Ok(0),
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        match offset {
            COMMON..ISR => self.write_common(offset - COMMON, width, value),
            DEVICE..NOTIFY => self.core.write_config(offset - DEVICE, width, value),
            NOTIFY..BAR_SIZE => {
                self.core.notify(((offset - NOTIFY) / u64::from(NOTIFY_STRIDE)) as u32);
            }
            MSIX.. => {
                if let Some(msix) = &mut self.msix {
                    msix.write(&self.config, offset - MSIX, width, value)?;
                }
            }
            _ => {}
        }
        self.tell();
        Ok(())
    }

    fn reset(&mut self) {
        self.core.reset();
        self.config.reset();
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
        self.clear();
    }

    fn save(&self) -> SavedDevice {
        let Self { line: _, news: _, config, msix, core, registers } = self;
        let state = PciState {
            config: config.save(),
            msix: msix.as_ref().map(Msix::save),
            core: core.save(),
            registers: registers.clone(),
        };
        SavedDevice::encode(VERSION, &state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let PciState { config, msix, core, registers } = saved.decode(VERSION)?;
        self.config.check_saved(&config)?;
        let queues = self.registers.queue_vectors.len();
        let vectors = || registers.queue_vectors.iter().chain([&registers.config_vector]);
        let legal = |vector: &u16| *vector == NO_VECTOR || usize::from(*vector) <= queues;
        check(registers.queue_vectors.len() == queues, "number of virtqueues")?;
        check(vectors().all(legal), "virtio vectors")?;
        check(registers.isr & !(ISR_QUEUE | ISR_CONFIG) == 0, "ISR status")?;
        match (&self.msix, &msix) {
            (Some(msix), Some(state)) => msix.check_saved(state)?,
            (None, None) => {}
            _ => return Err(RestoreError::Invalid("MSI-X")),
        }
        self.core.restore(core)?;
        self.config.restore(&config);
        if let (Some(msix), Some(state)) = (&mut self.msix, msix) {
            msix.restore(state);
        }
        self.registers = registers;
        self.drive();
        Ok(())
    }
}

#[cfg(test)]
#[path = "pci_tests.rs"]
mod tests;
