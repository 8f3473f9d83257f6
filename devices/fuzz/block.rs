//! A hostile guest against virtio-blk on virtio-mmio.
//!
//! The input is a program: the first byte chooses the interface, a read-only disk and threads; then
//! each step is an opcode byte and its operands, missing operands are 0. Steps write guest memory,
//! descriptors, rings and registers, make whole requests, let the disk fail, and save, restore and
//! reset the device. Whatever the program does, nothing panics or hangs, the disk is asked only for
//! sectors that it has, a read-only one for no change, and ROM keeps its bytes.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use mimic_devices::bus::{Device, Width, lock};
use mimic_devices::disk::{Disk, DiskError, in_range};
use mimic_devices::irq::IrqLine;
use mimic_devices::memory::{GuestMemory, RegionSpec};
use mimic_devices::virtio::block::{Block, BlockHandle, BlockOptions};
use mimic_devices::virtio::mmio::{Interface, VirtioMmio};

use super::program::{Program, RAM, RAM_SIZE, ROM};

/// Entries of the queue made by the initialisation step, and where it puts it.
const QUEUE_SIZE: u16 = 8;
const DESCRIPTORS: u64 = RAM;
const AVAILABLE: u64 = DESCRIPTORS + 16 * QUEUE_SIZE as u64;
const USED: u64 = DESCRIPTORS + 0x200;
/// Where whole requests lie: headers, then data.
const HEADERS: u64 = RAM + 0x1000;
const DATA: u64 = RAM + 0x2000;
const SECTORS: u64 = 16;
/// Programs are cut here.
const MAX_STEPS: usize = 128;

/// A disk in memory.
struct Memory {
    bytes: Mutex<Vec<u8>>,
    read_only: bool,
    fails: AtomicBool,
}

impl Memory {
    fn new(read_only: bool) -> Self {
        let bytes = Mutex::new(vec![0x5a; (SECTORS * 512) as usize]);
        Self { bytes, read_only, fails: AtomicBool::new(false) }
    }

    /// Performs `f` on the bytes of a range.
    fn on(&self, offset: u64, len: u64, f: impl FnOnce(&mut [u8])) -> Result<(), DiskError> {
        assert!(in_range(SECTORS, offset, len), "{offset:#x}+{len:#x} is not on the disk");
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        f(&mut lock(&self.bytes)[offset as usize..][..len as usize]);
        Ok(())
    }

    fn change(&self, offset: u64, len: u64, f: impl FnOnce(&mut [u8])) -> Result<(), DiskError> {
        assert!(!self.read_only, "a change of a read-only disk");
        self.on(offset, len, f)
    }
}

impl Disk for Memory {
    fn name(&self) -> &str {
        "memory"
    }
    fn sectors(&self) -> u64 {
        SECTORS
    }
    fn is_read_only(&self) -> bool {
        self.read_only
    }
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.on(offset, bytes.len() as u64, |disk| bytes.copy_from_slice(disk))
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.change(offset, bytes.len() as u64, |disk| disk.copy_from_slice(bytes))
    }
    fn flush(&self) -> Result<(), DiskError> {
        self.on(0, 0, |_| ())
    }
    fn discard(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.change(offset, len, |disk| disk.fill(0))
    }
    fn write_zeroes(&self, offset: u64, len: u64, _may_unmap: bool) -> Result<(), DiskError> {
        self.change(offset, len, |disk| disk.fill(0))
    }
}

impl Program<'_> {
    /// Mostly on the disk or just behind it.
    fn sector(&mut self) -> u64 {
        let sector = self.u8();
        if sector == 0xff {
            u64::from(self.u32()) << 32 | u64::from(self.u32())
        } else {
            u64::from(sector) % (SECTORS + 2)
        }
    }

    /// Mostly a known request type.
    fn request_type(&mut self) -> u32 {
        match self.u8() {
            kind @ 0..0x80 => [0, 1, 4, 8, 11, 13, 0, 1][usize::from(kind % 8)],
            kind => kind.into(),
        }
    }
}

struct Guest {
    memory: Arc<GuestMemory>,
    disk: Arc<Memory>,
    device: Arc<Mutex<VirtioMmio>>,
    handle: BlockHandle,
    line: IrqLine,
    interface: Interface,
}

impl Guest {
    fn new(interface: Interface, read_only: bool, synchronous: bool) -> Self {
        let specs = [RegionSpec::ram(RAM, RAM_SIZE), RegionSpec::rom(ROM, 0x1000)];
        let memory = Arc::new(GuestMemory::new(&specs).expect("20 KiB of memory"));
        let disk = Arc::new(Memory::new(read_only));
        let options = BlockOptions { serial: "fuzz".into(), synchronous };
        let (block, handle) = Block::new(disk.clone(), memory.clone(), &options);
        let line = IrqLine::unconnected();
        let device = VirtioMmio::new(interface, Box::new(block), memory.clone(), line.clone());
        Self { memory, disk, device, handle, line, interface }
    }

    fn step(&self, program: &mut Program<'_>) {
        match program.u8() & 0x0f {
            0 => {
                let offset = u64::from(program.u8()) * 4;
                self.write(offset, Width::Word, program.u32().into());
            }
            1 => {
                let (offset, width) =
                    (u64::from(program.u16() & 0xfff), Width::ALL[usize::from(program.u8() & 3)]);
                let offset = offset.min(0x1000 - width.bytes());
                let _ = lock(&self.device).read(offset, width);
                self.write(offset, width, u64::from(program.u32()) & width.mask());
            }
            2 => self.initialise(program.u16()),
            3 => self.write(0x50, Width::Word, u64::from(program.u8()) % 2),
            4 => {
                let head = program.u16() % (QUEUE_SIZE + 1);
                self.publish(head);
            }
            5 => {
                let index = u16::from(program.u8()) % QUEUE_SIZE;
                let address = program.address();
                let (len, flags) = (program.u16(), u16::from(program.u8() & 7));
                self.descriptor(index, address, len.into(), flags, program.u8().into());
            }
            6 => {
                let at = program.address();
                let _ = self.memory.store(at, program.u32());
            }
            7 => {
                // A header or a range to discard or to zero, anywhere.
                let at = program.address();
                let _ = self.memory.store(at, program.request_type());
                let _ = self.memory.store(at.wrapping_add(8), program.sector());
            }
            8..=10 => self.request(program),
            11 => {
                let fails = program.u8() & 1 != 0;
                self.disk.fails.store(fails, Ordering::Relaxed);
            }
            12 => {
                self.handle.drain();
                let mut device = lock(&self.device);
                let saved = device.save();
                device.restore(&saved).expect("a saved state is good");
                assert!(device.save() == saved, "restoring changed the state");
            }
            13 => {
                self.handle.drain();
                let mut device = lock(&self.device);
                let mut saved = device.save();
                let at = usize::from(program.u16()) % saved.bytes.len();
                saved.bytes[at] = program.u8();
                if device.restore(&saved).is_ok() {
                    let again = device.save();
                    device.restore(&again).expect("a saved state is good");
                }
            }
            14 => lock(&self.device).reset(),
            _ => self.write(0x120, Width::Byte, u64::from(program.u8()) & 1),
        }
    }

    /// A request in three or four descriptors from `first` on, with ranges as its data.
    fn request(&self, program: &mut Program<'_>) {
        let (kind, sector) = (program.request_type(), program.sector());
        let (first, len, bits) = (u16::from(program.u8()), program.u16() % 0x1800, program.u8());
        let header = HEADERS + 0x20 * u64::from(first % QUEUE_SIZE);
        let _ = self.memory.store(header, u64::from(kind));
        let _ = self.memory.store(header + 8, sector);
        let _ = self.memory.store(DATA, program.sector());
        let _ = self.memory.store(DATA + 8, u32::from(bits >> 4));
        let _ = self.memory.store(DATA + 12, u32::from(bits & 1));
        // Mostly whole sectors or one range.
        let len = match bits >> 1 & 3 {
            0 => len,
            1 => 16,
            _ => len & !0x1ff,
        };
        let data = if matches!(kind, 0 | 8) { 2 } else { 0 };
        let cut = len / 3;
        let pieces = [
            (header, 16, 0),
            (DATA, cut, data),
            (DATA + u64::from(cut), len - cut, data),
            (header + 0x10, 1, 2),
        ];
        for (i, (address, len, flags)) in (0..).zip(pieces) {
            let next = (first + i + 1) % QUEUE_SIZE;
            let flags = flags | u16::from(i < 3);
            self.descriptor((first + i) % QUEUE_SIZE, address, len.into(), flags, next);
        }
        self.publish(first % QUEUE_SIZE);
        if bits & 8 == 0 {
            self.write(0x50, Width::Word, 0);
        }
    }

    fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = DESCRIPTORS + 16 * u64::from(index);
        let _ = self.memory.store(at, address);
        let _ = self.memory.store(at + 8, len);
        let _ = self.memory.store(at + 12, flags);
        let _ = self.memory.store(at + 14, next);
    }

    fn publish(&self, head: u16) {
        let index = self.memory.load::<u16>(AVAILABLE + 2).unwrap_or(0);
        let _ = self.memory.store(AVAILABLE + 4 + 2 * u64::from(index % QUEUE_SIZE), head);
        let _ = self.memory.store(AVAILABLE + 2, index.wrapping_add(1));
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let _ = lock(&self.device).write(offset, width, value);
    }

    /// What a driver does before it uses the device; `features` are bits of those on offer.
    fn initialise(&self, features: u16) {
        let _ = self.memory.write_from(RAM, &[0; 0x400]);
        let write = |offset, value| self.write(offset, Width::Word, value);
        write(0x70, 0);
        write(0x70, 3);
        write(0x24, 0);
        let offered = lock(&self.device).read(0x10, Width::Word).unwrap_or(0);
        let wanted = u64::from(features) & 0x7fff | u64::from(features >> 1 & 3) << 28;
        write(0x20, wanted & offered);
        write(0x24, 1);
        write(0x20, 1);
        write(0x70, 11);
        write(0x28, 0x200);
        write(0x30, 0);
        write(0x38, QUEUE_SIZE.into());
        if self.interface == Interface::Legacy {
            write(0x3c, 0x200);
            write(0x40, DESCRIPTORS / 0x200);
        } else {
            write(0x80, DESCRIPTORS);
            write(0x90, AVAILABLE);
            write(0xa0, USED);
            write(0x44, 1);
        }
        write(0x70, 15);
    }

    fn check(&self) {
        let status = lock(&self.device).read(0x60, Width::Word);
        assert_eq!(status.map(|status| status != 0), Ok(self.line.level()));
    }
}

/// Runs one program.
pub(crate) fn run(data: &[u8]) {
    let mut program = Program(data);
    let bits = program.u8();
    let interface = if bits & 1 != 0 { Interface::Legacy } else { Interface::Modern };
    let (read_only, synchronous) = (bits & 2 != 0, bits & 0x1c != 0);
    let guest = Guest::new(interface, read_only, synchronous);
    for _ in 0..MAX_STEPS {
        if program.0.is_empty() {
            break;
        }
        guest.step(&mut program);
        if synchronous {
            guest.check();
        }
    }
    guest.handle.drain();
    guest.check();
    let mut rom = [0; 0x1000];
    guest.memory.read_into(ROM, &mut rom).expect("ROM is there");
    assert!(rom.iter().all(|&byte| byte == 0), "ROM was written");
    let changed = lock(&guest.disk.bytes).iter().any(|&byte| byte != 0x5a);
    assert!(!(read_only && changed), "a read-only disk changed");
}
