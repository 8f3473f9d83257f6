//! The adapter between CPUs and devices: the only place where the two meet.
#![allow(unsafe_code)] // Host pages of guest RAM are handed from one crate to the other.

mod pc;

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mimic_cpu::bus::{BusFault, CpuBus, PAGE_MASK, PageAccess, RamPage, Request, Width};
use mimic_cpu::ram::HostPage;
use mimic_cpu::riscv::NS_PER_TICK;
use mimic_devices::aclint::Mtime;
use mimic_devices::bus::{AddressSpace, Width as DeviceWidth};
use mimic_devices::clock::Timer;
use mimic_devices::memory::{GuestMemory, WatchBits, WriteObserver};

pub(super) use pc::{Attention, PcSide, TimeStamps};

use super::rendezvous::Rendezvous;
use super::tables::PageTables;

/// What the harts of a machine see.
#[derive(Clone)]
pub(super) struct MachineBus {
    pub(super) memory: Arc<GuestMemory>,
    pub(super) space: Arc<AddressSpace>,
    pub(super) side: Side,
    pub(super) code: Arc<CodeLog>,
    /// In a deterministic machine.
    pub(super) tables: Option<Arc<PageTables>>,
    pub(super) rendezvous: Arc<Rendezvous>,
    /// How often a hart pauses before it gives way to others.
    pub(super) patience: u32,
}

/// What differs between the boards.
#[derive(Clone)]
pub(super) enum Side {
    /// RISC-V harts: all see the same.
    Riscv(Arc<RiscvSide>),
    /// One processor of a PC.
    Pc(Arc<PcSide>),
}

/// What RISC-V harts see besides memory and devices.
pub(super) struct RiscvSide {
    pub(super) mtime: Mtime,
    /// One per hart; they call the hart's attention.
    pub(super) hart_timers: Vec<Timer>,
}

/// Pauses after which a hart gives way although every hart has a host core: others may want the cores too,
/// and the hart that this one waits for may be without. They take about as long as giving way does.
pub(super) const PATIENCE: u32 = 200;

thread_local! {
    /// Pauses of this thread's hart since it gave way.
    static PAUSES: Cell<u32> = const { Cell::new(0) };
}

/// Code pages that were written to, in the order of the writes.
pub(super) struct CodeLog {
    pages: Mutex<VecDeque<u64>>,
    /// Entries that there have been, forgotten ones included.
    len: AtomicU64,
    /// Harts of whose writes it does not hear.
    unheard: AtomicU64,
    memory: std::sync::Weak<GuestMemory>,
    /// Harts that must look at the log soon after it has grown.
    readers: Option<Arc<Rendezvous>>,
}

/// Entries that the log keeps. A hart that has not looked for longer drops all of its code.
const LOG_ENTRIES: usize = 1024;

impl CodeLog {
    /// A log that hears of the writes to `memory`'s code pages, and calls the attention of all `readers`: harts that
    /// drop code with the store that makes it stale, or without a fence.
    pub(super) fn new(memory: &Arc<GuestMemory>, readers: Option<Arc<Rendezvous>>) -> Arc<Self> {
        let log = Arc::new(CodeLog {
            pages: Mutex::default(),
            len: AtomicU64::new(0),
            unheard: AtomicU64::new(0),
            memory: Arc::downgrade(memory),
            readers,
        });
        let observer: Arc<dyn WriteObserver> = Arc::<CodeLog>::clone(&log);
        memory.observe(WatchBits::CODE, &observer);
        log
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries so far.
    fn len(&self) -> u64 {
        if self.unheard.load(Ordering::Acquire) > 0 {
            self.forget();
        }
        self.len.load(Ordering::Acquire)
    }

    /// Any page may have been written to.
    fn forget(&self) {
        let mut pages = self.lock();
        pages.clear();
        self.len.fetch_add(1, Ordering::AcqRel);
    }

    /// The pages from entry `from` on, if all of them are still there.
    fn since(&self, from: u64) -> Option<Vec<u64>> {
        let pages = self.lock();
        let forgotten = self.len.load(Ordering::Acquire) - pages.len() as u64;
        let from = usize::try_from(from.checked_sub(forgotten)?).ok()?;
        Some(pages.iter().skip(from).copied().collect())
    }
}

impl WriteObserver for CodeLog {
    fn written(&self, gpa: u64, _len: u64, _bits: WatchBits) {
        let page = gpa & !PAGE_MASK;
        let mut pages = self.lock();
        if pages.len() == LOG_ENTRIES {
            pages.pop_front();
        }
        pages.push_back(page);
        self.len.fetch_add(1, Ordering::AcqRel);
        // Only now may harts write unwatched: whoever hears of such a store finds the page in the log. And
        // whoever reads the log waits for this, so that it watches the page anew.
        if let Some(memory) = self.memory.upgrade() {
            memory.unwatch(page, WatchBits::CODE);
        }
        if let Some(rendezvous) = &self.readers {
            rendezvous.call_attention_of_all();
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
        if let Side::Pc(side) = &self.side
            && side.lapic_offset(gpa).is_some()
        {
            return None;
        }
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
        match &self.side {
            Side::Riscv(_) => self.space.read(gpa, device_width(width)).map_err(|_| BusFault),
            Side::Pc(side) => Ok(side.read(&self.space, gpa, width)),
        }
    }

    fn write(&self, gpa: u64, width: Width, value: u64) -> Result<(), BusFault> {
        match &self.side {
            Side::Riscv(_) => {
                self.space.write(gpa, device_width(width), value).map_err(|_| BusFault)
            }
            Side::Pc(side) => {
                side.write(&self.space, gpa, width, value);
                Ok(())
            }
        }
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
        self.code.len()
    }

    fn code_log(&self, from: u64) -> Option<Vec<u64>> {
        self.code.since(from)
    }

    fn stores_unheard(&self, more: bool) {
        if more {
            self.code.unheard.fetch_add(1, Ordering::AcqRel);
        } else {
            self.code.unheard.fetch_sub(1, Ordering::AcqRel);
            self.code.forget();
        }
    }

    fn coherent(&self) -> bool {
        self.tables.is_some()
    }

    fn watch_entry(&self, gpa: u64) {
        if let Some(tables) = &self.tables {
            tables.entry_read(gpa);
        }
    }

    fn entry_updated(&self, gpa: u64) {
        if let Some(tables) = &self.tables {
            tables.entry_updated(gpa);
        }
        self.memory.written(gpa, 8);
    }

    fn take_requests(&self, hart: usize) -> Vec<Request> {
        if let Side::Pc(side) = &self.side {
            side.look();
        }
        self.rendezvous.take(hart)
    }

    fn requests_done(&self, hart: usize) {
        self.rendezvous.done(hart);
    }

    fn alone(&self, hart: usize, work: &mut dyn FnMut()) {
        self.rendezvous.alone(hart, work);
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
        match &self.side {
            Side::Riscv(side) => side.mtime.ticks().saturating_mul(NS_PER_TICK),
            Side::Pc(side) => side.now(),
        }
    }

    fn set_deadline(&self, hart: usize, ns: u64) {
        // The processors of a PC have timers outside: in their local APICs.
        let Side::Riscv(side) = &self.side else { return };
        if let Some(timer) = side.hart_timers.get(hart) {
            if ns == u64::MAX {
                timer.cancel();
            } else {
                timer.arm(side.mtime.deadline(ns / NS_PER_TICK));
            }
        }
    }

    fn port_in(&self, _hart: usize, port: u16, width: Width) -> u64 {
        match &self.side {
            Side::Riscv(_) => width.zero_extend(u64::MAX),
            Side::Pc(side) => side.port_in(port, width),
        }
    }

    fn port_out(&self, _hart: usize, port: u16, width: Width, value: u64) {
        if let Side::Pc(side) = &self.side {
            side.port_out(port, width, value);
        }
    }

    fn acknowledge_interrupt(&self, _hart: usize) -> Option<u8> {
        self.pc()?.acknowledge()
    }

    fn task_priority(&self, _hart: usize) -> u8 {
        self.pc().map_or(0, PcSide::task_priority)
    }

    fn set_task_priority(&self, _hart: usize, priority: u8) {
        if let Some(side) = self.pc() {
            side.set_task_priority(priority);
        }
    }

    fn interrupt_msr(&self, _hart: usize, msr: u32) -> Result<u64, BusFault> {
        self.pc().ok_or(BusFault)?.msr(msr)
    }

    fn set_interrupt_msr(&self, _hart: usize, msr: u32, value: u64) -> Result<(), BusFault> {
        self.pc().ok_or(BusFault)?.set_msr(msr, value)
    }

    fn startup_vector(&self, _hart: usize) -> u8 {
        self.pc().map_or(0, PcSide::startup_vector)
    }
}

impl MachineBus {
    /// The side of a PC's processor.
    fn pc(&self) -> Option<&PcSide> {
        match &self.side {
            Side::Riscv(_) => None,
            Side::Pc(side) => Some(side),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mimic_devices::memory::RegionSpec;

    #[test]
    fn whoever_must_look_at_the_code_log_is_called() {
        let memory = Arc::new(GuestMemory::new(&[RegionSpec::ram(0x8000_0000, 0x1_0000)]).unwrap());
        let harts: Vec<_> = (0..3).map(|_| Arc::default()).collect();
        let log = CodeLog::new(&memory, Some(Arc::new(Rendezvous::new(harts.clone()))));
        memory.store(0x8000_0008, 1u8).unwrap();
        assert!(harts.iter().all(|hart| !hart.needs_attention()), "there was no code");
        memory.watch(0x8000_0000, WatchBits::CODE);
        memory.store(0x8000_0008, 2u8).unwrap();
        assert!(log.len() == 1 && harts.iter().all(|hart| hart.needs_attention()));
    }

    #[test]
    fn the_code_log_reaches_back_to_nothing_while_stores_are_unheard() {
        let memory = Arc::new(GuestMemory::new(&[RegionSpec::ram(0x8000_0000, 0x1_0000)]).unwrap());
        let log = CodeLog::new(&memory, None);
        memory.watch(0x8000_0000, WatchBits::CODE);
        memory.store(0x8000_0008, 1u8).unwrap();
        let before = log.len();
        assert!(log.since(before - 1).is_some() && log.len() == before);
        log.unheard.fetch_add(1, Ordering::AcqRel);
        let meanwhile = log.len();
        assert_eq!(log.since(before), None);
        assert!(log.len() > meanwhile && log.since(meanwhile).is_none());
    }

    #[test]
    fn the_code_log_forgets_what_is_old_and_says_so() {
        let memory = Arc::new(GuestMemory::new(&[RegionSpec::ram(0x8000_0000, 0x1_0000)]).unwrap());
        let log = CodeLog::new(&memory, None);
        let page = |index: u64| 0x8000_0000 + index % 16 * 0x1000;
        for index in 0..LOG_ENTRIES as u64 + 10 {
            memory.watch(page(index), WatchBits::CODE);
            memory.store(page(index) + 8, 1u8).unwrap();
            memory.store(page(index) + 9, 1u8).unwrap();
        }
        let len = log.len();
        assert_eq!(
            len,
            LOG_ENTRIES as u64 + 10,
            "a page is named once each time that it is watched"
        );
        assert_eq!(log.since(len), Some(Vec::new()));
        assert_eq!(log.since(len - 2).unwrap(), [page(len - 2), page(len - 1)]);
        assert_eq!(log.since(10).unwrap().len(), LOG_ENTRIES);
        assert_eq!(log.since(9), None);
        assert_eq!(log.since(0), None);
    }
}
