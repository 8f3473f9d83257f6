//! A small machine for tests: memory that the bus owns, and nothing else.
#![allow(unsafe_code)] // Memory becomes `HostPage`s here.
#![allow(dead_code)] // Each test uses its part.

use std::cell::UnsafeCell;
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mimic_cpu::bus::{BusFault, CpuBus, PAGE_MASK, PAGE_SIZE, PageAccess, RamPage, Request, Width};
use mimic_cpu::ram::HostPage;
use mimic_cpu::riscv::hart::Hart;
use mimic_cpu::riscv::interp::Interp;
use mimic_cpu::run::{Budget, Exit};
use mimic_cpu::signals::Signals;

/// Where the tests' RAM begins.
pub(crate) const RAM: u64 = 0x8000_0000;
/// A device register: reads give [`TestBus::device`], writes set it.
pub(crate) const DEVICE: u64 = 0x1000_0000;

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE_SIZE as usize]>);

// SAFETY: the bytes are only reached through `HostPage`, which uses atomics.
unsafe impl Sync for Page {}

/// RAM at [`RAM`], one device register, and a clock that moves when the test says so.
pub(crate) struct TestBus {
    pages: Box<[Page]>,
    /// Pages from this index on are read-only.
    rom: usize,
    watched: Mutex<BTreeSet<u64>>,
    log: Mutex<Vec<u64>>,
    /// The log does not say which pages it has named.
    pub(crate) forgetful: AtomicBool,
    pub(crate) device: AtomicU64,
    /// Interrupt lines that the device register drives: what is written to it is what they are, and what is
    /// read from it they become.
    pub(crate) drives: Mutex<Option<Arc<Signals>>>,
    /// What others ask of the hart; its attention must be called too.
    pub(crate) requests: Mutex<Vec<Request>>,
    /// How often requests were acknowledged.
    pub(crate) acknowledged: AtomicU64,
    /// What the clock says, in nanoseconds.
    pub(crate) clock: AtomicU64,
    /// The last deadline asked for.
    pub(crate) deadline: AtomicU64,
}

impl TestBus {
    /// A bus with `pages` pages of RAM and after them `rom` pages of ROM, all zero.
    pub(crate) fn new(pages: usize, rom: usize) -> Arc<Self> {
        let page = || Page(UnsafeCell::new([0; PAGE_SIZE as usize]));
        Arc::new(TestBus {
            pages: (0..pages + rom).map(|_| page()).collect(),
            rom: pages,
            watched: Mutex::default(),
            log: Mutex::default(),
            forgetful: AtomicBool::new(false),
            device: AtomicU64::new(0),
            drives: Mutex::default(),
            requests: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            clock: AtomicU64::new(123_456_700),
            deadline: AtomicU64::new(u64::MAX),
        })
    }

    fn host_page(&self, gpa: u64) -> Option<(HostPage, bool)> {
        let index = (gpa.checked_sub(RAM)? / PAGE_SIZE) as usize;
        let page = self.pages.get(index)?;
        let ptr = NonNull::new(page.0.get())?.cast();
        // SAFETY: a page is aligned and as long as PAGE_SIZE, lives as long as the bus, which every
        // interpreter owns, and is touched through this type alone.
        Some((unsafe { HostPage::new(ptr) }, index < self.rom))
    }

    fn drive(&self, value: u64) {
        if let Some(signals) = &*self.drives.lock().unwrap() {
            signals.set_lines(value, true);
            signals.set_lines(!value, false);
        }
    }

    /// Memory at `gpa`, which must be RAM or ROM.
    pub(crate) fn load(&self, gpa: u64, width: Width) -> u64 {
        self.host_page(gpa).expect("memory").0.load(gpa, width)
    }

    /// Changes memory at `gpa` behind the CPU's back.
    pub(crate) fn store(&self, gpa: u64, width: Width, value: u64) {
        self.host_page(gpa).expect("memory").0.store(gpa, width, value);
    }

    /// Puts 32-bit words at `gpa`.
    pub(crate) fn put_words(&self, gpa: u64, words: &[u32]) {
        for (at, word) in (gpa..).step_by(4).zip(words) {
            self.store(at, Width::Half, u64::from(*word));
            self.store(at + 2, Width::Half, u64::from(*word >> 16));
        }
    }

    /// Puts bytes at `gpa`.
    pub(crate) fn put_bytes(&self, gpa: u64, bytes: &[u8]) {
        for (at, byte) in (gpa..).zip(bytes) {
            self.store(at, Width::Byte, u64::from(*byte));
        }
    }

    /// Pages whose watched stores were reported, in order.
    pub(crate) fn reported(&self) -> Vec<u64> {
        self.log.lock().unwrap().clone()
    }

    /// All memory, as double words.
    pub(crate) fn dump(&self) -> Vec<u64> {
        let end = RAM + self.pages.len() as u64 * PAGE_SIZE;
        (RAM..end).step_by(8).map(|gpa| self.load(gpa, Width::Double)).collect()
    }
}

impl CpuBus for TestBus {
    fn ram_page(&self, gpa: u64) -> Option<RamPage> {
        let (host, writable) = self.host_page(gpa)?;
        let watched = self.watched.lock().unwrap().contains(&(gpa & !PAGE_MASK));
        let access = match (writable, watched) {
            (false, _) => PageAccess::ReadOnly,
            (true, true) => PageAccess::Watched,
            (true, false) => PageAccess::ReadWrite,
        };
        Some(RamPage { host, access })
    }

    fn read(&self, gpa: u64, width: Width) -> Result<u64, BusFault> {
        if gpa != DEVICE {
            return Err(BusFault);
        }
        let value = width.zero_extend(self.device.load(Ordering::SeqCst));
        self.drive(value);
        Ok(value)
    }

    fn write(&self, gpa: u64, width: Width, value: u64) -> Result<(), BusFault> {
        if gpa != DEVICE {
            return Err(BusFault);
        }
        let value = width.zero_extend(value);
        self.device.store(value, Ordering::SeqCst);
        self.drive(value);
        Ok(())
    }

    fn watched_write(&self, gpa: u64, len: u64) {
        assert!(len > 0 && (gpa & PAGE_MASK) + len <= PAGE_SIZE, "a report for one page");
        let page = gpa & !PAGE_MASK;
        self.watched.lock().unwrap().remove(&page);
        self.log.lock().unwrap().push(page);
    }

    fn watch_code(&self, _: usize, gpa: u64) {
        self.watched.lock().unwrap().insert(gpa & !PAGE_MASK);
    }

    fn code_log_len(&self) -> u64 {
        self.log.lock().unwrap().len() as u64
    }

    fn code_log(&self, from: u64) -> Option<Vec<u64>> {
        let forgetful = self.forgetful.load(Ordering::SeqCst);
        (!forgetful).then(|| self.log.lock().unwrap()[from as usize..].to_vec())
    }

    fn take_requests(&self, _: usize) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    fn requests_done(&self, _: usize) {
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    fn relax(&self) {}

    fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    fn set_deadline(&self, _: usize, ns: u64) {
        self.deadline.store(ns, Ordering::SeqCst);
    }
}

/// A hart in M-mode at `pc`: floating point on, all memory open to every mode.
pub(crate) fn open_hart(pc: u64) -> Hart {
    let mut hart = Hart::new(0, pc);
    hart.mstatus |= 0x6000;
    hart.pmp.write_addr(0, u64::MAX);
    hart.pmp.write_cfg(0, 0x1f);
    hart
}

/// An interpreter of its own for `hart`.
pub(crate) fn interp(hart: Hart, bus: &Arc<TestBus>) -> (Interp, Arc<Signals>) {
    let signals = Arc::new(Signals::default());
    (Interp::new(hart, Arc::clone(bus) as _, Arc::clone(&signals)), signals)
}

/// Runs for at most `insns` instructions.
pub(crate) fn run(interp: &mut Interp, insns: u64) -> Exit {
    interp.run(Budget { insns: Some(insns) })
}
