//! A small PC for tests: memory from address 0 on, ports that are recorded, and processors in each mode.
#![allow(unsafe_code)] // Memory becomes `HostPage`s here.
#![allow(dead_code)] // Each test uses its part.

pub(crate) mod pc;

use std::cell::UnsafeCell;
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mimic_cpu::bus::{BusFault, CpuBus, PAGE_MASK, PAGE_SIZE, PageAccess, RamPage, Request, Width};
use mimic_cpu::ram::HostPage;
use mimic_cpu::run::{Budget, Exit};
use mimic_cpu::signals::Signals;
use mimic_cpu::x86::interp::Interp;
use mimic_cpu::x86::model::Model;
use mimic_cpu::x86::state::{Cpu, Segment, cr0, cr4, efer, rights, sreg};

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE_SIZE as usize]>);

// SAFETY: the bytes are only reached through `HostPage`, which uses atomics.
unsafe impl Sync for Page {}

/// Memory, recorded ports, and one interrupt at a time.
pub(crate) struct PcBus {
    pages: Box<[Page]>,
    watched: Mutex<BTreeSet<u64>>,
    log: Mutex<Vec<u64>>,
    /// What was written to ports.
    pub(crate) out: Mutex<Vec<(u16, u64)>>,
    /// The vector that is pending.
    pub(crate) vector: Mutex<Option<u8>>,
    clock: AtomicU64,
}

impl PcBus {
    /// A bus with `pages` pages of memory, all zero.
    pub(crate) fn new(pages: usize) -> Arc<Self> {
        Arc::new(PcBus {
            pages: (0..pages).map(|_| Page(UnsafeCell::new([0; PAGE_SIZE as usize]))).collect(),
            watched: Mutex::default(),
            log: Mutex::default(),
            out: Mutex::default(),
            vector: Mutex::default(),
            clock: AtomicU64::new(0),
        })
    }

    fn host_page(&self, gpa: u64) -> Option<HostPage> {
        let page = self.pages.get((gpa / PAGE_SIZE) as usize)?;
        let ptr = NonNull::new(page.0.get())?.cast();
        // SAFETY: a page is aligned and as long as PAGE_SIZE, lives as long as the bus, which every interpreter owns,
        // and is touched through this type alone.
        Some(unsafe { HostPage::new(ptr) })
    }

    /// Memory at `gpa`.
    pub(crate) fn load(&self, gpa: u64, width: Width) -> u64 {
        self.host_page(gpa).expect("memory").load(gpa, width)
    }

    /// Changes memory at `gpa` behind the processor's back.
    pub(crate) fn store(&self, gpa: u64, width: Width, value: u64) {
        self.host_page(gpa).expect("memory").store(gpa, width, value);
    }

    /// Puts bytes at `gpa`.
    pub(crate) fn put(&self, gpa: u64, bytes: &[u8]) {
        for (at, byte) in (gpa..).zip(bytes) {
            self.store(at, Width::Byte, u64::from(*byte));
        }
    }

    /// The bytes at `gpa`.
    pub(crate) fn get(&self, gpa: u64, bytes: &mut [u8]) {
        for (at, byte) in (gpa..).zip(bytes) {
            *byte = self.load(at, Width::Byte) as u8;
        }
    }
}

impl CpuBus for PcBus {
    fn ram_page(&self, gpa: u64) -> Option<RamPage> {
        let host = self.host_page(gpa)?;
        let watched = self.watched.lock().unwrap().contains(&(gpa & !PAGE_MASK));
        let access = if watched { PageAccess::Watched } else { PageAccess::ReadWrite };
        Some(RamPage { host, access })
    }

    fn read(&self, _: u64, _: Width) -> Result<u64, BusFault> {
        Err(BusFault)
    }

    fn write(&self, _: u64, _: Width, _: u64) -> Result<(), BusFault> {
        Err(BusFault)
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
        Some(self.log.lock().unwrap()[from as usize..].to_vec())
    }

    fn take_requests(&self, _: usize) -> Vec<Request> {
        Vec::new()
    }

    fn requests_done(&self, _: usize) {}

    fn relax(&self) {}

    fn now(&self) -> u64 {
        self.clock.fetch_add(100, Ordering::SeqCst)
    }

    fn set_deadline(&self, _: usize, _: u64) {}

    fn port_out(&self, _: usize, port: u16, _: Width, value: u64) {
        self.out.lock().unwrap().push((port, value));
    }

    fn acknowledge_interrupt(&self, _: usize) -> Option<u8> {
        self.vector.lock().unwrap().take()
    }
}

/// Mode of a prepared processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Real mode.
    Real,
    /// Protected mode with flat 32-bit segments, without paging.
    Protected32,
    /// 64-bit mode; the first 4 GiB are mapped by tables at [`TABLES`].
    Long,
}

/// Where the page tables of [`Start::Long`] are: two pages.
pub(crate) const TABLES: u64 = 0x1000;

/// A processor at `rip`, with interrupts disabled and privilege level 0.
pub(crate) fn cpu(bus: &PcBus, start: Start, rip: u64, model: Model) -> Cpu {
    let mut cpu = Cpu::new(0, model);
    cpu.rip = rip;
    cpu.seg[usize::from(sreg::CS)] = Segment::real(0, true);
    if start == Start::Real {
        return cpu;
    }
    let common = rights::ACCESSED | rights::WRITABLE | rights::S | rights::P | rights::G;
    let flat = |selector, rights| Segment { selector, base: 0, limit: u32::MAX, rights };
    let long = start == Start::Long;
    let size = if long { rights::L } else { rights::DB };
    cpu.seg = [flat(16, common | rights::DB); 6];
    cpu.seg[usize::from(sreg::CS)] = flat(8, common | rights::CODE | size);
    cpu.cr0 = cr0::PE | cr0::ET | cr0::NE | cr0::WP;
    if long {
        // A present, writable, user entry; large pages of 1 GiB.
        bus.store(TABLES, Width::Double, (TABLES + PAGE_SIZE) | 7);
        for i in 0..4 {
            bus.store(TABLES + PAGE_SIZE + 8 * i, Width::Double, i << 30 | 0x87);
        }
        cpu.cr0 |= cr0::PG;
        cpu.cr3 = TABLES;
        cpu.cr4 = cr4::PAE | cr4::OSFXSR;
        cpu.efer = efer::LME | efer::LMA | efer::SCE | efer::NXE;
    }
    cpu
}

/// An interpreter of its own for `cpu`.
pub(crate) fn interp(cpu: Cpu, bus: &Arc<PcBus>) -> (Interp, Arc<Signals>) {
    let signals = Arc::new(Signals::default());
    (Interp::new(cpu, Arc::clone(bus) as _, Arc::clone(&signals)), signals)
}

/// Runs for at most `insns` instructions.
pub(crate) fn run(interp: &mut Interp, insns: u64) -> Exit {
    interp.run(Budget { insns: Some(insns) })
}
