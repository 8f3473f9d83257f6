//! A hostile guest against virtio-mmio with an entropy device and a console.
//!
//! The input is a program: each step is an opcode byte and its operands, missing operands are 0.
//! Steps write guest memory, descriptors, rings and registers, push console input, and save and
//! restore the devices. Whatever the program does, nothing panics, ROM keeps its bytes, and the
//! interrupt lines agree with InterruptStatus.

use std::sync::{Arc, Mutex};

use mimic_devices::bus::{Device, Width, lock};
use mimic_devices::irq::IrqLine;
use mimic_devices::memory::{GuestMemory, RegionSpec};
use mimic_devices::serial::SerialOutput;
use mimic_devices::virtio::console::{Console, ConsoleHandle};
use mimic_devices::virtio::entropy::{Entropy, EntropySource};
use mimic_devices::virtio::mmio::{Interface, VirtioMmio};

use super::program::{Program, RAM, RAM_SIZE, ROM};

/// Entries of queues made by the initialisation step.
const QUEUE_SIZE: u16 = 8;
/// Programs are cut here.
const MAX_STEPS: usize = 256;

struct Sink;

impl SerialOutput for Sink {
    fn write(&mut self, bytes: &[u8]) {
        assert!(!bytes.is_empty());
    }
}

impl Program<'_> {
    fn bytes(&mut self) -> Vec<u8> {
        let len = usize::from(self.u8());
        (0..len).map(|_| self.u8()).collect()
    }
}

struct Slot {
    device: Arc<Mutex<VirtioMmio>>,
    line: IrqLine,
    interface: Interface,
    queues: u16,
}

struct Guest {
    memory: Arc<GuestMemory>,
    slots: Vec<Slot>,
    console: ConsoleHandle,
}

impl Guest {
    fn new(interface: Interface) -> Self {
        let specs = [RegionSpec::ram(RAM, RAM_SIZE), RegionSpec::rom(ROM, 0x1000)];
        let memory = Arc::new(GuestMemory::new(&specs).expect("20 KiB of memory"));
        let entropy = Box::new(Entropy::new(EntropySource::Seeded(1)));
        let (console, handle) = Console::new(Box::new(Sink), Some((80, 25)));
        let slot = |device, queues| {
            let line = IrqLine::unconnected();
            let device = VirtioMmio::new(interface, device, memory.clone(), line.clone());
            Slot { device, line, interface, queues }
        };
        let slots = vec![slot(entropy, 1), slot(Box::new(console), 2)];
        Self { memory, slots, console: handle }
    }

    fn step(&mut self, program: &mut Program<'_>) {
        let opcode = program.u8();
        let slot = &self.slots[usize::from(opcode >> 7)];
        match opcode & 0x0f {
            0 => {
                let offset = u64::from(program.u8()) * 4;
                let _ = slot.write(offset, Width::Word, program.u32().into());
            }
            1 => {
                let (offset, width) =
                    (program.u16() & 0xfff, Width::ALL[usize::from(opcode >> 4 & 3)]);
                let offset = u64::from(offset).min(0x1000 - width.bytes());
                let _ = lock(&slot.device).read(offset, width);
                let _ = slot.write(offset, width, u64::from(program.u32()) & width.mask());
            }
            2 => slot.initialise(program.u8()),
            3 => {
                let _ = slot.write(0x50, Width::Word, u64::from(program.u8()) % 4);
            }
            4 => {
                let (queue, head) = (program.u8() % 2, program.u16());
                let available = available(slot.base(), queue.into());
                let index = self.memory.load::<u16>(available + 2).unwrap_or(0);
                let at = available + 4 + 2 * u64::from(index % QUEUE_SIZE);
                let _ = self.memory.store(at, head % (QUEUE_SIZE + 1));
                let _ = self.memory.store(available + 2, index.wrapping_add(1));
            }
            5 => {
                let (queue, index) = (program.u8() % 2, program.u8() % QUEUE_SIZE as u8);
                let at = descriptors(slot.base(), queue.into()) + 16 * u64::from(index);
                let address = program.address();
                let (len, flags, next) = (program.u16(), program.u8() & 7, program.u8() % 10);
                let _ = self.memory.store(at, address);
                let _ = self.memory.store(at + 8, u32::from(len));
                let _ = self.memory.store(at + 12, u16::from(flags));
                let _ = self.memory.store(at + 14, u16::from(next));
            }
            6 => {
                let at = program.address();
                let _ = self.memory.write_from(at, &program.bytes());
            }
            7 => {
                let at = program.address();
                let _ = self.memory.store(at, program.u32());
            }
            8 => {
                self.console.input.push(&program.bytes());
            }
            9 => self.console.resize(program.u8().into(), program.u8().into()),
            10 => {
                let mut device = lock(&slot.device);
                let saved = device.save();
                device.restore(&saved).expect("a saved state is good");
                assert!(device.save() == saved, "restoring changed the state");
            }
            11 => {
                let mut device = lock(&slot.device);
                let mut saved = device.save();
                let at = usize::from(program.u16()) % saved.bytes.len();
                saved.bytes[at] = program.u8();
                if device.restore(&saved).is_ok() {
                    let again = device.save();
                    device.restore(&again).expect("a saved state is good");
                }
            }
            12 => lock(&slot.device).reset(),
            _ => {}
        }
    }

    fn check(&self) {
        for slot in &self.slots {
            let status = lock(&slot.device).read(0x60, Width::Word);
            assert_eq!(status.map(|status| status != 0), Ok(slot.line.level()));
        }
    }
}

/// Where the initialisation step puts queue `n` of a slot; fits the legacy layout.
fn descriptors(base: u64, queue: u64) -> u64 {
    base + 0x400 * queue
}

fn available(base: u64, queue: u64) -> u64 {
    descriptors(base, queue) + 16 * u64::from(QUEUE_SIZE)
}

fn used(base: u64, queue: u64) -> u64 {
    descriptors(base, queue) + 0x200
}

impl Slot {
    fn base(&self) -> u64 {
        RAM + 0x1000 * u64::from(self.queues)
    }

    fn write(&self, offset: u64, width: Width, value: u64) -> bool {
        lock(&self.device).write(offset, width, value).is_ok()
    }

    /// What a driver does before it uses a device; `features` chooses the ring features.
    fn initialise(&self, features: u8) {
        let write = |offset, value| self.write(offset, Width::Word, value & 0xffff_ffff);
        write(0x70, 0);
        write(0x70, 3);
        write(0x24, 0);
        write(0x20, u64::from(features & 3) << 28 | u64::from(features >> 2 & 1));
        write(0x24, 1);
        write(0x20, 1);
        write(0x70, 11);
        write(0x28, 0x200);
        for queue in 0..u64::from(self.queues) {
            write(0x30, queue);
            write(0x38, QUEUE_SIZE.into());
            let base = self.base();
            if self.interface == Interface::Legacy {
                write(0x3c, 0x200);
                write(0x40, descriptors(base, queue) / 0x200);
            } else {
                write(0x80, descriptors(base, queue));
                write(0x90, available(base, queue));
                write(0xa0, used(base, queue));
                write(0x44, 1);
            }
        }
        write(0x70, 15);
    }
}

/// Runs one program.
pub(crate) fn run(data: &[u8]) {
    let mut program = Program(data);
    let legacy = program.u8() & 1 != 0;
    let interface = if legacy { Interface::Legacy } else { Interface::Modern };
    let mut guest = Guest::new(interface);
    for _ in 0..MAX_STEPS {
        if program.0.is_empty() {
            break;
        }
        guest.step(&mut program);
        guest.check();
    }
    let mut rom = [0; 0x1000];
    guest.memory.read_into(ROM, &mut rom).expect("ROM is there");
    assert!(rom.iter().all(|&byte| byte == 0), "ROM was written");
}
