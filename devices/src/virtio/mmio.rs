//! Virtio over MMIO: one register block per device.
//!
//! Source: VIRTIO 1.2, section 4.2.2 (version 2, modern) and 4.2.4 (version 1, legacy).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};

use super::queue::QueueError;
use super::{CoreState, VirtioCore, VirtioDevice, VirtioInterrupt, VirtioTransport, Waker};
use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check, word_only};
use crate::irq::IrqLine;
use crate::memory::GuestMemory;

/// Bytes that a slot takes on the bus; `virt` places slots 0x1000 apart.
pub const SIZE: u64 = 0x1000;

const MAGIC_VALUE: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const VENDOR_ID: u64 = 0x00c;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const GUEST_PAGE_SIZE: u64 = 0x028;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_NUM_MAX: u64 = 0x034;
const QUEUE_NUM: u64 = 0x038;
const QUEUE_ALIGN: u64 = 0x03c;
const QUEUE_PFN: u64 = 0x040;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC_LOW: u64 = 0x080;
const QUEUE_DESC_HIGH: u64 = 0x084;
const QUEUE_DRIVER_LOW: u64 = 0x090;
const QUEUE_DRIVER_HIGH: u64 = 0x094;
const QUEUE_DEVICE_LOW: u64 = 0x0a0;
const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
const SHM_LEN_LOW: u64 = 0x0b0;
const SHM_BASE_HIGH: u64 = 0x0bc;
const CONFIG_GENERATION: u64 = 0x0fc;
const CONFIG: u64 = 0x100;

/// "virt" in little-endian ASCII.
const MAGIC: u32 = 0x7472_6976;
/// "QEMU": meant to be informative, but xv6 finds its disk by it.
const VENDOR: u32 = 0x554d_4551;
const INTERRUPT_USED: u32 = 1;
const INTERRUPT_CONFIG: u32 = 2;

const STATE_VERSION: u32 = 1;

/// Which register layout a slot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interface {
    /// Version 1: queues by page frame number.
    Legacy,
    /// Version 2.
    Modern,
}

/// The device: a slot, with or without something in it.
pub struct VirtioMmio {
    // What the board attached.
    interface: Interface,
    interrupt: Arc<Interrupt>,

    // Sub-device.
    core: Option<VirtioCore>,

    // What the guest can tell.
    registers: Registers,
}

/// The selectors and the legacy geometry.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Registers {
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
    guest_page_size: u32,
    queue_align: u32,
}

#[derive(Serialize, Deserialize)]
struct MmioState {
    interface: Interface,
    registers: Registers,
    interrupt_status: u32,
    core: Option<CoreState>,
}

struct Interrupt {
    line: IrqLine,
    status: AtomicU32,
}

impl Interrupt {
    fn new(line: IrqLine) -> Arc<Self> {
        Arc::new(Self { line, status: AtomicU32::new(0) })
    }

    fn set(&self, status: u32) {
        self.status.store(status, Ordering::Release);
        self.line.set(status != 0);
    }

    fn get(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }
}

// Both run under the slot's lock, as do all changes of the status.
impl VirtioInterrupt for Interrupt {
    fn queue_used(&self, _queue: u16) {
        self.set(self.get() | INTERRUPT_USED);
    }

    fn config_changed(&self) {
        self.set(self.get() | INTERRUPT_CONFIG);
    }
}

impl VirtioMmio {
    /// A slot with a device in it.
    pub fn new(
        interface: Interface,
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        line: IrqLine,
    ) -> Arc<Mutex<Self>> {
        let interrupt = Interrupt::new(line);
        let legacy = interface == Interface::Legacy;
        Arc::new_cyclic(|slot: &Weak<Mutex<Self>>| {
            let mut core = VirtioCore::new(device, memory, interrupt.clone(), legacy);
            core.attach(Waker::new(slot.clone()));
            let registers = Registers::default();
            Mutex::new(Self { interface, interrupt, core: Some(core), registers })
        })
    }

    /// A slot with nothing in it: device ID 0, which drivers skip (section 4.2.2).
    pub fn empty(interface: Interface) -> Arc<Mutex<Self>> {
        let interrupt = Interrupt::new(IrqLine::unconnected());
        let registers = Registers::default();
        Arc::new(Mutex::new(Self { interface, interrupt, core: None, registers }))
    }

    fn version(&self) -> u32 {
        match self.interface {
            Interface::Legacy => 1,
            Interface::Modern => 2,
        }
    }

    fn read_register(&mut self, offset: u64) -> u32 {
        let version = self.version();
        let registers = &self.registers;
        let Some(core) = &mut self.core else {
            return match offset {
                MAGIC_VALUE => MAGIC,
                VERSION => version,
                VENDOR_ID => VENDOR,
                _ => 0,
            };
        };
        let modern = self.interface == Interface::Modern;
        let queue = core.queue(registers.queue_sel);
        match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => version,
            DEVICE_ID => core.device_id(),
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => match registers.device_features_sel {
                0 => core.device_features() as u32,
                1 => (core.device_features() >> 32) as u32,
                _ => 0,
            },
            QUEUE_NUM_MAX => queue.map_or(0, |queue| queue.max_size().into()),
            QUEUE_READY if modern => queue.is_some_and(|queue| queue.is_ready()).into(),
            QUEUE_PFN if !modern => match queue {
                Some(queue) if queue.is_ready() => {
                    (queue.descriptors() / u64::from(registers.guest_page_size.max(1))) as u32
                }
                _ => 0,
            },
            INTERRUPT_STATUS => self.interrupt.get(),
            STATUS => core.status().into(),
            // No shared memory regions: length and base of all ones.
            SHM_LEN_LOW..=SHM_BASE_HIGH if modern => u32::MAX,
            CONFIG_GENERATION if modern => core.config_generation(),
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        let Some(core) = &mut self.core else { return };
        let registers = &mut self.registers;
        let modern = self.interface == Interface::Modern;
        let queue_sel = registers.queue_sel;
        match offset {
            DEVICE_FEATURES_SEL => registers.device_features_sel = value,
            DRIVER_FEATURES_SEL => registers.driver_features_sel = value,
            DRIVER_FEATURES => {
                let sel = registers.driver_features_sel;
                if sel <= 1 {
                    core.set_driver_features(sel == 1, value);
                }
            }
            QUEUE_SEL => registers.queue_sel = value,
            QUEUE_NUM => {
                if let Some(queue) = core.queue(queue_sel) {
                    // A size beyond 16 bits is as wrong as 0.
                    queue.set_size(u16::try_from(value).unwrap_or(0));
                }
            }
            QUEUE_READY if modern => match value {
                0 => {
                    if let Some(queue) = core.queue(queue_sel) {
                        queue.disable();
                    }
                }
                _ => core.enable_queue(queue_sel),
            },
            QUEUE_DESC_LOW..=QUEUE_DEVICE_HIGH if modern => {
                Self::write_address(core, queue_sel, offset, value);
            }
            GUEST_PAGE_SIZE if !modern => registers.guest_page_size = value,
            QUEUE_ALIGN if !modern => registers.queue_align = value,
            QUEUE_PFN if !modern => {
                Self::write_pfn(core, registers, value);
            }
            QUEUE_NOTIFY => core.notify(value),
            INTERRUPT_ACK => self.interrupt.set(self.interrupt.get() & !value),
            STATUS => {
                core.set_status(value as u8);
                if value as u8 == 0 {
                    self.clear();
                }
            }
            _ => {}
        }
    }

    fn write_address(core: &mut VirtioCore, index: u32, offset: u64, value: u32) {
        let Some(queue) = core.queue(index) else { return };
        let value = u64::from(value);
        let low = |old: u64| old & !0xffff_ffff | value;
        let high = |old: u64| old & 0xffff_ffff | value << 32;
        let (mut desc, mut driver, mut device) =
            (queue.descriptors(), queue.driver(), queue.device());
        match offset {
            QUEUE_DESC_LOW => desc = low(desc),
            QUEUE_DESC_HIGH => desc = high(desc),
            QUEUE_DRIVER_LOW => driver = low(driver),
            QUEUE_DRIVER_HIGH => driver = high(driver),
            QUEUE_DEVICE_LOW => device = low(device),
            QUEUE_DEVICE_HIGH => device = high(device),
            _ => return,
        }
        queue.set_addresses(desc, driver, device);
    }

    /// Section 2.7.2, the legacy layout: descriptors, available ring, padding, used ring.
    fn write_pfn(core: &mut VirtioCore, registers: &Registers, pfn: u32) {
        let Some(queue) = core.queue(registers.queue_sel) else { return };
        if pfn == 0 {
            queue.disable();
            return;
        }
        if queue.is_ready() {
            return;
        }
        let align = u64::from(registers.queue_align);
        if !align.is_power_of_two() || !registers.guest_page_size.is_power_of_two() {
            core.fail(QueueError::Misaligned(align));
            return;
        }
        let size = u64::from(queue.size());
        // A page frame number and a page size of 32 bits each cannot overflow together; the sums
        // below wrap at worst, to addresses that `enable` checks.
        let descriptors = u64::from(pfn) * u64::from(registers.guest_page_size);
        let driver = descriptors.wrapping_add(16 * size);
        let end = driver.wrapping_add(6 + 2 * size);
        let device = end.wrapping_add(align - 1) & !(align - 1);
        queue.set_addresses(descriptors, driver, device);
        core.enable_queue(registers.queue_sel);
    }

    fn clear(&mut self) {
        self.registers = Registers::default();
        self.interrupt.set(0);
    }
}

impl VirtioTransport for VirtioMmio {
    fn core(&mut self) -> Option<&mut VirtioCore> {
        self.core.as_mut()
    }
}

impl Device for VirtioMmio {
    fn name(&self) -> &'static str {
        self.core.as_ref().map_or("virtio-mmio", VirtioCore::name)
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return Ok(self.core.as_ref().map_or(0, |core| core.read_config(offset, width)));
        }
        word_only(offset, width)?;
        Ok(self.read_register(offset).into())
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            if let Some(core) = &mut self.core {
                core.write_config(offset, width, value);
            }
            return Ok(());
        }
        word_only(offset, width)?;
        self.write_register(offset, value as u32);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(core) = &mut self.core {
            core.reset();
        }
        self.clear();
    }

    fn save(&self) -> SavedDevice {
        let Self { interface, interrupt, core, registers } = self;
        let state = MmioState {
            interface: *interface,
            registers: registers.clone(),
            interrupt_status: interrupt.get(),
            core: core.as_ref().map(VirtioCore::save),
        };
        SavedDevice::encode(STATE_VERSION, &state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let MmioState { interface, registers, interrupt_status, core } =
            saved.decode(STATE_VERSION)?;
        check(interface == self.interface, "virtio-mmio version")?;
        check(interrupt_status & !(INTERRUPT_USED | INTERRUPT_CONFIG) == 0, "InterruptStatus")?;
        match (&mut self.core, core) {
            (Some(core), Some(state)) => core.restore(state)?,
            (None, None) => {}
            _ => return Err(RestoreError::Invalid("virtio-mmio slot")),
        }
        self.registers = registers;
        self.interrupt.set(interrupt_status);
        Ok(())
    }
}

#[cfg(test)]
#[path = "mmio_tests.rs"]
mod tests;
