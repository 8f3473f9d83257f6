use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::bus::{Device, lock};
use crate::disk::{Access, DiskError, DiskImage};
use crate::virtio::entropy::{Entropy, EntropySource};
use crate::virtio::mmio::{Interface, VirtioMmio};
use crate::virtio::testing::{Driver, RAM, descriptors};

// VIRTIO 1.2, section 5.2.6.
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
/// What a status byte holds before the device writes it.
const UNTOUCHED: u8 = 0xee;

const INDIRECT: u64 = 1 << 28;
const SECTORS: u64 = 64;

/// A disk in memory that writes down what it is asked and can hold it up or fail it.
#[derive(Default)]
struct Mock {
    bytes: Mutex<Vec<u8>>,
    log: Mutex<Vec<(&'static str, u64)>>,
    /// Requests that touch this sector wait as long as it is set.
    held: Mutex<Option<u64>>,
    changed: Condvar,
    errno: Mutex<Option<i32>>,
}

impl Mock {
    fn new() -> Arc<Self> {
        let mock = Self::default();
        lock(&mock.bytes).resize((SECTORS * 512) as usize, 0);
        Arc::new(mock)
    }

    fn hold(&self, sector: Option<u64>) {
        *lock(&self.held) = sector;
        self.changed.notify_all();
    }

    fn log(&self) -> Vec<(&'static str, u64)> {
        std::mem::take(&mut lock(&self.log))
    }

    fn enter(&self, what: &'static str, offset: u64) -> Result<usize, DiskError> {
        assert!(offset.is_multiple_of(512) && offset <= SECTORS * 512);
        lock(&self.log).push((what, offset / 512));
        let held = lock(&self.held);
        drop(self.changed.wait_while(held, |held| *held == Some(offset / 512)));
        match *lock(&self.errno) {
            Some(errno) => Err(io::Error::from_raw_os_error(errno).into()),
            None => Ok(offset as usize),
        }
    }
}

impl Disk for Mock {
    fn name(&self) -> &str {
        "mock"
    }
    fn sectors(&self) -> u64 {
        SECTORS
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        let at = self.enter("read", offset)?;
        bytes.copy_from_slice(&lock(&self.bytes)[at..][..bytes.len()]);
        Ok(())
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let at = self.enter("write", offset)?;
        lock(&self.bytes)[at..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn flush(&self) -> Result<(), DiskError> {
        self.enter("flush", 0).map(drop)
    }
    fn discard(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.write_zeroes(offset, len, true)
    }
    fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), DiskError> {
        let at = self.enter(if may_unmap { "unmap" } else { "zero" }, offset)?;
        lock(&self.bytes)[at..][..len as usize].fill(0);
        Ok(())
    }
}

struct Rig {
    driver: Driver,
    handle: BlockHandle,
    next: u16,
}

impl Rig {
    fn new(disk: Arc<dyn Disk>, synchronous: bool, features: u64) -> Self {
        // The device needs the memory that the driver makes, so another one keeps its place.
        let entropy = Entropy::new(EntropySource::Seeded(0));
        let mut driver = Driver::bare(Interface::Modern, Box::new(entropy));
        let (memory, irq) = (driver.memory.clone(), driver.irq.clone());
        let options = BlockOptions { serial: "disk-0".into(), synchronous };
        let (block, handle) = Block::new(disk, memory.clone(), &options);
        driver.slot = VirtioMmio::new(Interface::Modern, Box::new(block), memory, irq);
        driver.initialise(Interface::Modern, features | INDIRECT);
        Self { driver, handle, next: 0 }
    }

    /// 8 KiB for each descriptor: header, status at 0x10, indirect table at 0x100, data at 0x400.
    fn area(head: u16) -> u64 {
        RAM + 0x8000 + 0x2000 * u64::from(head)
    }

    /// Makes a request of header, data and status available; returns its head.
    fn add(&mut self, kind: u32, sector: u64, out: &[u8], in_len: u32) -> u16 {
        let head = self.next;
        self.next = (head + 1) % 8;
        let area = Self::area(head);
        let memory = &self.driver.memory;
        memory.store(area, u64::from(kind)).unwrap();
        memory.store(area + 8, sector).unwrap();
        memory.store(area + 0x10, UNTOUCHED).unwrap();
        memory.write_from(area + 0x400, out).unwrap();
        let mut pieces = vec![(area, 16, 0)];
        if !out.is_empty() {
            pieces.push((area + 0x400, out.len() as u32, 0));
        }
        if in_len > 0 {
            pieces.push((area + 0x400, in_len, 2));
        }
        pieces.push((area + 0x10, 1, 2));
        self.add_table(head, &pieces);
        head
    }

    /// Makes an indirect chain of (address, length, flags) available.
    fn add_table(&self, head: u16, pieces: &[(u64, u32, u16)]) {
        let table = Self::area(head) + 0x100;
        for (i, &(gpa, len, flags)) in pieces.iter().enumerate() {
            let next = i as u16 + 1;
            let more = u16::from(usize::from(next) < pieces.len());
            self.driver.descriptor(table, i as u16, gpa, len, flags | more, next);
        }
        self.driver.descriptor(descriptors(0), head, table, 16 * pieces.len() as u32, 4, 0);
        self.driver.publish(0, head);
    }

    fn used(&self) -> usize {
        self.driver.used(0).len()
    }

    fn wait_used(&self, count: usize) {
        wait(|| self.used() == count);
    }

    fn status(&self, head: u16) -> u8 {
        self.driver.memory.load(Self::area(head) + 0x10).unwrap()
    }

    fn data(&self, head: u16, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.driver.memory.read_into(Self::area(head) + 0x400, &mut bytes).unwrap();
        bytes
    }

    /// One request from beginning to end: its status, its data and the length in the used ring.
    fn ask(&mut self, kind: u32, sector: u64, out: &[u8], in_len: u32) -> (u8, Vec<u8>, u32) {
        let before = self.used();
        let head = self.add(kind, sector, out, in_len);
        self.driver.notify(0);
        self.wait_used(before + 1);
        let (used, written) = self.driver.used(0)[before];
        assert_eq!(used, u32::from(head));
        assert!(self.driver.irq.level());
        self.driver.ack();
        (self.status(head), self.data(head, in_len as usize), written)
    }
}

/// Waits for another thread; for 10 seconds at most.
fn wait(done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "nothing happened");
        thread::sleep(Duration::from_micros(200));
    }
}

/// A file of [`SECTORS`] sectors, each filled with its number.
fn image() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    let bytes: Vec<u8> = (0..SECTORS).flat_map(|sector| [sector as u8; 512]).collect();
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn open(path: &std::path::Path, access: Access) -> Arc<dyn Disk> {
    Arc::new(DiskImage::open(path, access).unwrap())
}

/// The 16 bytes of a range to discard or to zero.
fn range(sector: u64, count: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn the_configuration_tells_size_limits_and_features() {
    let (_folder, path) = image();
    let rig = Rig::new(open(&path, Access::ReadWrite), true, 0);
    let config = |offset, width| rig.driver.config(offset, width);
    assert_eq!(rig.driver.read(8), 2);
    assert_eq!(config(0, Width::Double), SECTORS);
    assert_eq!(config(12, Width::Word), 254);
    assert_eq!(config(20, Width::Word), 512);
    assert_eq!(config(24, Width::Byte), 3);
    assert_eq!(config(26, Width::Half), 8);
    assert_eq!([36, 40, 44].map(|at| config(at, Width::Word)), [0xffff_ffff, 64, 8]);
    assert_eq!([48, 52, 56].map(|at| config(at, Width::Word)), [0xffff_ffff, 64, 1]);
    assert_eq!(config(60, Width::Double), 0);
    // SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE; then DISCARD and WRITE_ZEROES, or RO.
    let common = 1 << 2 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11;
    assert_eq!(rig.driver.read(0x10) & 0xff_ffff, common | 1 << 13 | 1 << 14);
    drop(rig);
    let rig = Rig::new(open(&path, Access::ReadOnly), true, 0);
    assert_eq!(rig.driver.read(0x10) & 0xff_ffff, common | 1 << 5);
}

#[test]
fn flushed_writes_are_in_the_file_and_read_back() {
    for synchronous in [true, false] {
        let (_folder, path) = image();
        let mut rig = Rig::new(open(&path, Access::ReadWrite), synchronous, F_FLUSH);
        let written: Vec<u8> = (0..1536).map(|i| (i % 251) as u8).collect();
        assert_eq!(rig.ask(OUT, 10, &written, 0), (OK, vec![], 1));
        assert_eq!(rig.ask(FLUSH, 0, &[], 0), (OK, vec![], 1));
        let mut expected: Vec<u8> = (0..SECTORS).flat_map(|sector| [sector as u8; 512]).collect();
        expected[5120..6656].copy_from_slice(&written);
        assert!(fs::read(&path).unwrap() == expected, "synchronous: {synchronous}");
        let around = expected[9 * 512..14 * 512].to_vec();
        assert_eq!(rig.ask(IN, 9, &[], 2560), (OK, around, 2561));
    }
}

#[test]
fn header_data_and_status_may_be_split_anywhere() {
    let (_folder, path) = image();
    let mut rig = Rig::new(open(&path, Access::ReadWrite), true, F_FLUSH);
    let (header, data, status) = (RAM + 0x8000, RAM + 0x9001, RAM + 0xa000);
    let memory = rig.driver.memory.clone();
    memory.store(header, u64::from(OUT)).unwrap();
    memory.store(header + 8, 5_u64).unwrap();
    let bytes: Vec<u8> = (0..512).map(|i| (i * 7 % 256) as u8).collect();
    // Header 5 + 11, its second part in one piece with the first byte of data.
    memory.write_from(header + 16, &bytes[..1]).unwrap();
    memory.write_from(data, &bytes[1..]).unwrap();
    let pieces = [
        (header, 5, false),
        (header + 5, 12, false),
        (data, 300, false),
        (data + 300, 0, false),
        (data + 300, 211, false),
        (status, 0, true),
        (status, 1, true),
    ];
    memory.store(status, UNTOUCHED).unwrap();
    rig.driver.add(0, &pieces);
    rig.driver.notify(0);
    assert_eq!((rig.driver.used(0), memory.load(status)), (vec![(0, 1)], Ok(OK)));
    assert_eq!(fs::read(&path).unwrap()[5 * 512..6 * 512], bytes);
    // Back, with the status in one piece with the last data.
    memory.store(header, IN).unwrap();
    memory.write_from(data, &[0; 600]).unwrap();
    rig.driver.add(0, &[(header, 16, false), (data, 13, true), (data + 13, 500, true)]);
    rig.driver.notify(0);
    assert_eq!(rig.driver.used(0)[1], (7, 513));
    let mut back = vec![0; 514];
    memory.read_into(data, &mut back).unwrap();
    assert_eq!(back, [&bytes[..], &[OK, 0]].concat());
    rig.next = 3;
    assert_eq!(rig.ask(IN, 5, &[], 512).1, bytes);
}

#[test]
fn a_request_larger_than_the_buffer_is_done_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::write(&path, vec![0; 2 << 20]).unwrap();
    let rig = Rig::new(open(&path, Access::ReadWrite), false, F_FLUSH);
    let memory = &rig.driver.memory;
    let (area, data) = (Rig::area(0), Rig::area(1));
    let pattern: Vec<u8> = (0..12_000).map(|i| (i % 241) as u8).collect();
    memory.write_from(data, &pattern).unwrap();
    memory.store(area, u64::from(OUT)).unwrap();
    memory.store(area + 8, 1_u64).unwrap();
    // 64 times the same 12000 bytes: 1500 sectors.
    let mut pieces = vec![(data, 12_000, 0); 66];
    (pieces[0], pieces[65]) = ((area, 16, 0), (area + 0x10, 1, 2));
    rig.add_large_table(&pieces);
    rig.driver.notify(0);
    rig.wait_used(1);
    let file = fs::read(&path).unwrap();
    assert!(file[512..][..768_000] == pattern.repeat(64), "wrong bytes in the file");
    assert!(file[..512].iter().chain(&file[768_512..]).all(|&byte| byte == 0));
    // And all back: every piece ends up with the last sectors' bytes.
    memory.store(area, u64::from(IN)).unwrap();
    memory.write_from(data, &vec![0; 12_000]).unwrap();
    pieces[1..65].fill((data, 12_000, 2));
    rig.add_large_table(&pieces);
    rig.driver.notify(0);
    rig.wait_used(2);
    assert_eq!(rig.driver.used(0)[1], (0, 768_001));
    let mut back = vec![0; 12_000];
    memory.read_into(data, &mut back).unwrap();
    assert!(back == pattern);
}

impl Rig {
    /// A chain of head 0 whose table has room for many pieces.
    fn add_large_table(&self, pieces: &[(u64, u32, u16)]) {
        let table = Self::area(5);
        for (i, &(gpa, len, flags)) in pieces.iter().enumerate() {
            let more = u16::from(i + 1 < pieces.len());
            self.driver.descriptor(table, i as u16, gpa, len, flags | more, i as u16 + 1);
        }
        self.driver.descriptor(descriptors(0), 0, table, 16 * pieces.len() as u32, 4, 0);
        self.driver.publish(0, 0);
    }
}

#[test]
fn the_serial_number_is_padded_and_cut() {
    let (_folder, path) = image();
    let mut rig = Rig::new(open(&path, Access::ReadWrite), true, 0);
    let padded = b"disk-0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    assert_eq!(rig.ask(GET_ID, 0, &[], 20), (OK, padded.clone(), 21));
    assert_eq!(rig.ask(GET_ID, 0, &[], 4), (OK, padded[..4].to_vec(), 5));
    let (status, data, written) = rig.ask(GET_ID, 0, &[], 32);
    assert_eq!((status, &data[..20], written), (OK, &padded[..], 20));
    let options = BlockOptions { serial: "a serial of 22 letters".into(), synchronous: true };
    let (block, _) = Block::new(Mock::new(), rig.driver.memory.clone(), &options);
    assert_eq!(block.backend.id, *b"a serial of 22 lette");
}

#[test]
fn what_the_disk_cannot_do_is_answered_and_changes_nothing() {
    let (_folder, path) = image();
    let before = fs::read(&path).unwrap();
    let mut rig = Rig::new(open(&path, Access::ReadWrite), true, F_FLUSH);
    let both = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    let cases: &[(u32, u64, Vec<u8>, u32, u8)] = &[
        (OUT, SECTORS, vec![1; 512], 0, IOERR),
        (OUT, SECTORS - 1, vec![1; 1024], 0, IOERR),
        (OUT, u64::MAX, vec![1; 512], 0, IOERR),
        (OUT, 1 << 55, vec![1; 512], 0, IOERR),
        (OUT, (1 << 55) + 1, vec![1; 512], 0, IOERR),
        (OUT, 0, vec![1; 513], 0, IOERR),
        (IN, SECTORS, vec![], 512, IOERR),
        (IN, u64::MAX, vec![], 512, IOERR),
        (IN, 0, vec![], 100, IOERR),
        (2, 0, vec![], 512, UNSUPP),
        (14, 0, range(0, 1, 0), 0, UNSUPP),
        (u32::MAX, 0, vec![], 0, UNSUPP),
        (DISCARD, 0, range(SECTORS, 1, 0), 0, IOERR),
        (DISCARD, 0, range(u64::MAX, u32::MAX, 0), 0, IOERR),
        (DISCARD, 0, range(0, 1, 1), 0, UNSUPP),
        (WRITE_ZEROES, 0, range(0, 1, 2), 0, UNSUPP),
        (WRITE_ZEROES, 0, range(0, SECTORS as u32 + 1, 0), 0, IOERR),
        (WRITE_ZEROES, 0, vec![0; 15], 0, IOERR),
        (WRITE_ZEROES, 0, vec![], 0, IOERR),
        (WRITE_ZEROES, 0, range(0, 1, 0).repeat(65), 0, IOERR),
        (WRITE_ZEROES, 0, both(range(0, 1, 0), range(SECTORS, 1, 0)), 0, IOERR),
    ];
    for (kind, sector, out, in_len, expected) in cases {
        let (status, _, _) = rig.ask(*kind, *sector, out, *in_len);
        assert_eq!(status, *expected, "type {kind}, sector {sector:#x}, {out:?}");
    }
    assert!(fs::read(&path).unwrap() == before, "the image changed");
    // These are the guest's mistakes, not the host's.
    assert_eq!((rig.handle.failures().count(), rig.driver.read(0x70)), (0, 0xf));
    assert_eq!(rig.ask(OUT, SECTORS - 1, &[1; 512], 0).0, OK);
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let (_folder, path) = image();
    let mut rig = Rig::new(open(&path, Access::ReadOnly), true, F_RO | F_FLUSH);
    let before = fs::read(&path).unwrap();
    for kind in [OUT, DISCARD, WRITE_ZEROES] {
        let out = if kind == OUT { vec![1; 512] } else { range(0, 1, 0) };
        assert_eq!(rig.ask(kind, 0, &out, 0).0, IOERR, "type {kind}");
    }
    assert_eq!(rig.ask(FLUSH, 0, &[], 0).0, OK);
    assert_eq!(rig.ask(IN, 7, &[], 512), (OK, vec![7; 512], 513));
    assert!(fs::read(&path).unwrap() == before, "the image changed");
}

#[test]
fn ranges_are_zeroed_and_discarded() {
    let mock = Mock::new();
    lock(&mock.bytes).fill(0xff);
    let mut rig = Rig::new(mock.clone(), true, F_FLUSH);
    let ranges = [range(2, 3, 0), range(10, 0, 0), range(20, 1, 1)].concat();
    assert_eq!(rig.ask(WRITE_ZEROES, 0, &ranges, 0).0, OK);
    assert_eq!(rig.ask(DISCARD, 0, &range(30, 2, 0), 0).0, OK);
    assert_eq!(mock.log(), [("zero", 2), ("unmap", 20), ("unmap", 30)]);
    let bytes = lock(&mock.bytes);
    let zero: Vec<u64> =
        (0..SECTORS).filter(|&sector| bytes[sector as usize * 512..][..512] == [0; 512]).collect();
    assert_eq!(zero, [2, 3, 4, 20, 30, 31]);
}

#[test]
fn writes_are_stable_at_once_unless_the_driver_can_flush() {
    // Section 5.2.6.2: the features and the writeback field decide.
    let write_and_zero = |rig: &mut Rig| {
        assert_eq!(rig.ask(OUT, 1, &[1; 512], 0).0, OK);
        assert_eq!(rig.ask(WRITE_ZEROES, 0, &range(3, 1, 0), 0).0, OK);
    };
    let through = [("write", 1), ("flush", 0), ("zero", 3), ("flush", 0)];
    let back = [("write", 1), ("zero", 3)];
    for (features, writeback, expected) in [
        (0, 0, &through[..]),
        (F_FLUSH, 1, &back),
        (F_CONFIG_WCE, 0, &through),
        (F_FLUSH | F_CONFIG_WCE, 1, &back),
    ] {
        let mock = Mock::new();
        let mut rig = Rig::new(mock.clone(), true, features);
        assert_eq!(rig.driver.config(32, Width::Byte), writeback, "features {features:#x}");
        write_and_zero(&mut rig);
        assert_eq!(mock.log(), expected, "features {features:#x}");
        // Only a driver that negotiated the field may change it.
        lock(&rig.driver.slot).write(0x120, Width::Byte, writeback ^ 1).unwrap();
        write_and_zero(&mut rig);
        let negotiated = features & F_CONFIG_WCE != 0;
        let now_through = (expected == through) != negotiated;
        assert_eq!(mock.log(), if now_through { &through[..] } else { &back }, "{features:#x}");
    }
}

#[test]
fn a_full_host_disk_is_an_io_error_and_one_message() {
    let mock = Mock::new();
    let mut rig = Rig::new(mock.clone(), false, F_FLUSH);
    *lock(&mock.errno) = Some(28); // ENOSPC
    assert_eq!(rig.ask(OUT, 1, &[1; 512], 0).0, IOERR);
    *lock(&mock.errno) = Some(5); // EIO
    assert_eq!(rig.ask(FLUSH, 0, &[], 0).0, IOERR);
    assert_eq!(rig.ask(IN, 1, &[], 512).0, IOERR);
    let failures = rig.handle.failures();
    assert_eq!(failures.count(), 3);
    let first = failures.first().unwrap();
    assert!(first.contains("mock") && first.contains("No space left"), "{first}");
    *lock(&mock.errno) = None;
    assert_eq!(rig.ask(OUT, 1, &[1; 512], 0).0, OK);
    assert_eq!(rig.driver.read(0x70), 0xf);
}

#[test]
fn requests_complete_in_any_order_while_the_vcpu_goes_on() {
    let mock = Mock::new();
    for sector in 0..8 {
        lock(&mock.bytes)[sector * 512..][..512].fill(sector as u8 + 1);
    }
    let mut rig = Rig::new(mock.clone(), false, F_FLUSH);
    mock.hold(Some(0));
    let heads: Vec<u16> = (0..8).map(|sector| rig.add(IN, sector, &[], 512)).collect();
    rig.driver.notify(0);
    // The others go past the one that is held up.
    rig.wait_used(7);
    assert_eq!(rig.status(heads[0]), UNTOUCHED);
    assert!(rig.driver.used(0).iter().all(|&(head, _)| head != 0));
    mock.hold(None);
    rig.wait_used(8);
    assert_eq!(rig.driver.used(0)[7], (0, 513));
    for &head in &heads {
        assert_eq!((rig.status(head), rig.data(head, 512)), (OK, vec![head as u8 + 1; 512]));
    }
    assert!(rig.driver.irq.level());
}

#[test]
fn no_more_is_in_flight_than_a_queue_holds() {
    let mock = Mock::new();
    let mut rig = Rig::new(mock.clone(), false, F_FLUSH);
    mock.hold(Some(0));
    let head = rig.add(IN, 0, &[], 512);
    rig.driver.notify(0);
    // The driver makes the same chain available again and again and waits for none.
    for _ in 0..100 {
        (0..8).for_each(|_| rig.driver.publish(0, head));
        rig.driver.notify(0);
    }
    assert_eq!((rig.used(), rig.driver.read(0x70)), (0, 0xf));
    mock.hold(None);
    rig.handle.drain();
    // 801 chains less the 256 taken are more than 8 entries can hold: the driver lied.
    assert_eq!(rig.driver.read(0x70), 0x4f);
}

#[test]
fn after_a_reset_nothing_is_written() {
    let mock = Mock::new();
    let mut rig = Rig::new(mock.clone(), false, F_FLUSH);
    lock(&mock.bytes).fill(0x77);
    mock.hold(Some(3));
    let mut heads: Vec<u16> = (0..7).map(|_| rig.add(IN, 3, &[], 512)).collect();
    heads.push(rig.add(FLUSH, 0, &[], 0));
    rig.driver.notify(0);
    // Four threads are stuck in the disk, four requests wait for them.
    wait(|| lock(&mock.log).len() == 4);
    let slot = rig.driver.slot.clone();
    let reset = thread::spawn(move || lock(&slot).write(0x70, Width::Word, 0).unwrap());
    thread::sleep(Duration::from_millis(50));
    let waits = !reset.is_finished();
    mock.hold(None);
    assert!(waits, "the reset did not wait for the disk");
    reset.join().unwrap();
    let before: Vec<_> = heads.iter().map(|&head| rig.data(head, 512)).collect();
    thread::sleep(Duration::from_millis(50));
    for (&head, before) in heads.iter().zip(before) {
        assert_eq!((rig.status(head), rig.data(head, 512)), (UNTOUCHED, before));
    }
    assert_eq!(mock.log(), [("read", 3); 4]);
    assert_eq!((rig.used(), rig.driver.irq.level()), (0, false));
    // A new driver is served as ever.
    rig.driver.memory.store(crate::virtio::testing::available(0) + 2, 0_u16).unwrap();
    rig.driver.initialise(Interface::Modern, F_FLUSH | INDIRECT);
    rig.next = 0;
    assert_eq!(rig.ask(IN, 1, &[], 512), (OK, vec![0x77; 512], 513));
}

#[test]
fn a_drained_device_is_saved_and_restored() {
    let mock = Mock::new();
    let features = F_FLUSH | F_CONFIG_WCE;
    let mut rig = Rig::new(mock.clone(), false, features);
    lock(&rig.driver.slot).write(0x120, Width::Byte, 0).unwrap();
    mock.hold(Some(2));
    let head = rig.add(IN, 2, &[], 512);
    rig.driver.notify(0);
    let waiting = thread::spawn({
        let mock = mock.clone();
        move || {
            thread::sleep(Duration::from_millis(50));
            mock.hold(None);
        }
    });
    rig.handle.drain();
    assert_eq!((rig.used(), rig.status(head)), (1, OK));
    waiting.join().unwrap();
    let saved = lock(&rig.driver.slot).save();

    let mut other = Rig::new(mock.clone(), true, F_FLUSH);
    lock(&other.driver.slot).restore(&saved).unwrap();
    assert_eq!(other.driver.config(32, Width::Byte), 0);
    assert!(lock(&other.driver.slot).save() == saved);
    mock.log();
    // The rings are in the memory that the test does not carry over: only their positions were.
    other.driver.memory.store(crate::virtio::testing::available(0) + 2, 1_u16).unwrap();
    other.driver.memory.store(crate::virtio::testing::used(0) + 2, 1_u16).unwrap();
    assert_eq!(other.ask(OUT, 1, &[1; 512], 0).0, OK);
    assert_eq!(mock.log(), [("write", 1), ("flush", 0)]);

    let (_folder, path) = image();
    let wrong = Rig::new(open(&path, Access::ReadOnly), true, 0);
    let error = lock(&wrong.driver.slot).restore(&saved).unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[test]
fn a_chain_that_cannot_be_answered_stops_the_device() {
    let (header, status) = (RAM + 0x8000, RAM + 0x9000);
    let cases: [&[(u64, u32, bool)]; 3] = [
        &[(header, 15, false), (status, 1, true)],
        &[(header, 16, false)],
        &[(header, 16, false), (status, 0, true)],
    ];
    for pieces in cases {
        let mock = Mock::new();
        let mut rig = Rig::new(mock.clone(), false, F_FLUSH);
        rig.driver.add(0, pieces);
        rig.driver.notify(0);
        // DEVICE_NEEDS_RESET, section 2.1.
        assert_eq!(rig.driver.read(0x70), 0x4f, "{pieces:?}");
        assert_eq!((rig.used(), mock.log()), (0, vec![]));
        rig.driver.write(0x70, 0);
        assert_eq!(rig.driver.read(0x70), 0);
    }
}

#[test]
fn the_image_is_free_once_the_device_is_gone() {
    let (_folder, path) = image();
    for round in 0..20 {
        let mut rig = Rig::new(open(&path, Access::ReadWrite), false, F_FLUSH);
        for sector in 0..8 {
            rig.add(OUT, sector, &[1; 2048], 0);
        }
        rig.driver.notify(0);
        if round % 2 == 0 {
            rig.handle.drain();
            drop(rig);
        } else {
            // A thread that is waking the device keeps it for a moment.
            drop(rig);
            wait(|| DiskImage::open(&path, Access::ReadWrite).is_ok());
        }
    }
}
