//! The adapter between CPUs and devices: the only place where the two meet.
#![allow(unsafe_code)] // Host pages of guest RAM are handed from one crate to the other.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mimic_cpu::bus::{BusFault, CpuBus, PAGE_MASK, PageAccess, RamPage, Request, Width};
use mimic_cpu::ram::HostPage;
use mimic_cpu::riscv::NS_PER_TICK;
use mimic_devices::aclint::Mtime;
use mimic_devices::bus::{AddressSpace, Width as DeviceWidth};
use mimic_devices::clock::Timer;
use mimic_devices::memory::{GuestMemory, WatchBits, WriteObserver};

use super::rendezvous::Rendezvous;

/// What the harts of a machine see.
pub(super) struct MachineBus {
    pub(super) memory: Arc<GuestMemory>,
    pub(super) space: Arc<AddressSpace>,
    pub(super) mtime: Mtime,
    /// One per hart; they call the hart's attention.
    pub(super) hart_timers: Vec<Timer>,
    pub(super) code: Arc<CodeLog>,
    pub(super) rendezvous: Arc<Rendezvous>,
    /// How often a hart pauses before it gives way to others.
    pub(super) patience: u32,
}

/// Pauses after which a hart gives way although every hart has a host core: others may want the cores too,
/// and the hart that this one waits for may be without. They take about as long as giving way does.
pub(super) const PATIENCE: u32 = 200;

thread_local! {
    /// Pauses of this thread's hart since it gave way.
    static PAUSES: Cell<u32> = const { Cell::new(0) };
}

/// Code pages that were written to, in the order of the writes.
#[derive(Default)]
pub(super) struct CodeLog {
    pages: Mutex<Vec<u64>>,
    len: AtomicU64,
    memory: std::sync::Weak<GuestMemory>,
}

impl CodeLog {
    /// A log that hears of the writes to `memory`'s code pages.
    pub(super) fn new(memory: &Arc<GuestMemory>) -> Arc<Self> {
        let log = Arc::new(CodeLog { memory: Arc::downgrade(memory), ..CodeLog::default() });
        let observer: Arc<dyn WriteObserver> = Arc::<CodeLog>::clone(&log);
        memory.observe(WatchBits::CODE, &observer);
        log
    }
}

impl WriteObserver for CodeLog {
    fn written(&self, gpa: u64, _len: u64, _bits: WatchBits) {
        let page = gpa & !PAGE_MASK;
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.push(page);
        self.len.store(pages.len() as u64, Ordering::Release);
        // Only now may harts write unwatched: whoever hears of such a store finds the page in the log. And
        // whoever reads the log waits for this, so that it watches the page anew.
        if let Some(memory) = self.memory.upgrade() {
            memory.unwatch(page, WatchBits::CODE);
        }
    }
}

fn device_width(width: Width) -> DeviceWidth {
    match width {
        Width::Byte => DeviceWidth::Byte,
        Width::Half => DeviceWidth::Half,
        Width::Word => DeviceWidth::Word,
        Width::Double => DeviceWidth::Double,
    }
}

impl CpuBus for MachineBus {
    fn ram_page(&self, gpa: u64) -> Option<RamPage> {
        let page = self.memory.host_page(gpa)?;
        let access = match (page.writable, page.watched.is_empty()) {
            (false, _) => PageAccess::ReadOnly,
            (true, true) => PageAccess::ReadWrite,
            (true, false) => PageAccess::Watched,
        };
        // SAFETY: GuestMemory hands out page-aligned pages that stay mapped while it lives; the bus
        // owns it, and every engine owns the bus. GuestMemory itself uses atomics alone.
        let host = unsafe { HostPage::new(page.ptr) };
        Some(RamPage { host, access })
    }

    fn read(&self, gpa: u64, width: Width) -> Result<u64, BusFault> {
        self.space.read(gpa, device_width(width)).map_err(|_| BusFault)
    }

    fn write(&self, gpa: u64, width: Width, value: u64) -> Result<(), BusFault> {
        self.space.write(gpa, device_width(width), value).map_err(|_| BusFault)
    }

    fn watched_write(&self, gpa: u64, len: u64) {
        self.memory.written(gpa, len);
    }

    fn watch_code(&self, hart: usize, gpa: u64) {
        self.rendezvous.ask_others(hart, Request::WriteProtect(gpa), || {
            !self.memory.watch(gpa, WatchBits::CODE).contains(WatchBits::CODE)
        });
    }

    fn code_log_len(&self) -> u64 {
        self.code.len.load(Ordering::Acquire)
    }

    fn code_log(&self, from: u64) -> Vec<u64> {
        let pages = self.code.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.get(from as usize..).unwrap_or(&[]).to_vec()
    }

    fn take_requests(&self, hart: usize) -> Vec<Request> {
        self.rendezvous.take(hart)
    }

    fn requests_done(&self, hart: usize) {
        self.rendezvous.done(hart);
    }

    fn relax(&self) {
        let pauses = PAUSES.get() + 1;
        if pauses >= self.patience {
            PAUSES.set(0);
            std::thread::yield_now();
        } else {
            PAUSES.set(pauses);
            std::hint::spin_loop();
        }
    }

    fn now(&self) -> u64 {
        self.mtime.ticks().saturating_mul(NS_PER_TICK)
    }

    fn set_deadline(&self, hart: usize, ns: u64) {
        if let Some(timer) = self.hart_timers.get(hart) {
            if ns == u64::MAX {
                timer.cancel();
            } else {
                timer.arm(self.mtime.deadline(ns / NS_PER_TICK));
            }
        }
    }
}
