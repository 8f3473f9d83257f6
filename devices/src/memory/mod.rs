//! Guest memory: RAM and ROM.
//!
//! Each region is one `MAP_SHARED` memfd with inaccessible guards on both sides. The same bytes are
//! touched by vCPU threads, by translated code and by devices at any time, so there is never a
//! `&mut [u8]` into them: everything here goes through atomics, and a CPU that holds a
//! [`HostPage`] must do the same. An aligned access of up to 8 bytes is single-copy atomic; any
//! other is a row of smaller relaxed accesses.
//!
//! Each 4 KiB page has one byte of [`WatchBits`]. A CPU caches a page as writable only while that
//! byte is 0, so stores to ordinary pages cost nothing; a store to a watched page takes the slow
//! path and is reported with [`GuestMemory::written`]. Writes through this module (DMA) report
//! themselves.
//!
//! A region can be hidden from CPUs ([`GuestMemory::set_visible`]), so that flash memory in a
//! command mode is read as the device that it then is. Its bytes stay where they are, and all else
//! (DMA, loaders, hashes) sees them as before.

mod mapping;

use std::hash::Hasher;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use std::sync::{Arc, PoisonError, RwLock, Weak};

pub use mapping::GuestInt;
use mapping::Mapping;

/// Bytes in a page: the unit of watching and of [`HostPage`].
pub const PAGE_SIZE: u64 = 4096;

bitflags::bitflags! {
    /// Who wants to hear of writes to a page.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct WatchBits: u8 {
        /// Decoded or translated code was read from the page.
        const CODE = 1;
        /// The page holds `tohost`/`fromhost`.
        const HTIF = 2;
        /// Dirty logging is armed. The first write takes the bit away, so a page without it has
        /// been written since [`GuestMemory::begin_dirty_log`].
        const DIRTY = 4;
        /// Translations were read from the page, which holds page tables.
        const TABLE = 8;
    }
}

/// Hears of writes to watched pages.
pub trait WriteObserver: Send + Sync {
    /// `len` bytes at `gpa`, all in one page, were written; `bits` are the page's. Called after
    /// the bytes changed, on the thread that wrote them, possibly with a device's lock held: it may
    /// not wait for vCPUs, one of which may be waiting for that device.
    fn written(&self, gpa: u64, len: u64, bits: WatchBits);
}

/// Hears of regions that CPUs may no longer touch directly.
pub trait VisibilityObserver: Send + Sync {
    /// The region `[gpa, gpa + len)` was hidden: every CPU drops what it cached of the region's
    /// pages. The CPU whose store caused this must do so before its next access, the others at
    /// their next safepoint. Called on the thread that hid the region, possibly with a device's
    /// lock held: it may not wait for vCPUs, one of which may be waiting for that device.
    fn hidden(&self, gpa: u64, len: u64);
}

/// Whether the guest may write a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Readable and writable.
    Ram,
    /// The guest reads it; only [`GuestMemory::fill`] writes it.
    Rom,
}

/// A region to be made.
#[derive(Clone, Copy, Debug)]
pub struct RegionSpec {
    /// For messages and `/proc/*/maps`.
    pub name: &'static str,
    /// First guest physical address, a multiple of [`PAGE_SIZE`].
    pub base: u64,
    /// Size in bytes, a multiple of [`PAGE_SIZE`], not 0.
    pub size: u64,
    /// RAM or ROM.
    pub kind: RegionKind,
}

impl RegionSpec {
    /// RAM named `ram`.
    pub fn ram(base: u64, size: u64) -> Self {
        Self { name: "ram", base, size, kind: RegionKind::Ram }
    }

    /// ROM named `rom`.
    pub fn rom(base: u64, size: u64) -> Self {
        Self { name: "rom", base, size, kind: RegionKind::Rom }
    }
}

/// Why guest memory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Base or size is not a multiple of 4 KiB, the size is 0, or the end wraps around.
    #[error("memory region {name} at {base:#x}+{size:#x} is not a range of whole 4 KiB pages")]
    Range {
        /// The region.
        name: &'static str,
        /// Its base.
        base: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// Two regions overlap.
    #[error("memory regions {0} and {1} overlap")]
    Overlap(&'static str, &'static str),
    /// The host refused.
    #[error("cannot get {size:#x} bytes for memory region {name}: {source}")]
    Host {
        /// The region.
        name: &'static str,
        /// Its size in bytes.
        size: u64,
        /// What the host said.
        source: std::io::Error,
    },
}

/// An access outside guest memory, across the end of a region, or a write to ROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest physical range {gpa:#x}+{len:#x} is not memory that can be accessed this way")]
pub struct OutOfRange {
    /// First address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A guest page in host memory, for a CPU's TLB.
#[derive(Clone, Copy, Debug)]
pub struct HostPage {
    /// First byte of the page. Valid while the [`GuestMemory`] lives; access it with atomics or
    /// assembly alone.
    pub ptr: NonNull<u8>,
    /// False for ROM.
    pub writable: bool,
    /// The page's bits at this moment. A write entry is cached only if this is empty; a later
    /// [`GuestMemory::watch`] is followed by a safepoint at which it is dropped.
    pub watched: WatchBits,
}

/// A region, for listing, KVM and snapshots.
#[derive(Debug)]
pub struct Region {
    spec: RegionSpec,
    mapping: Mapping,
    watch: Box<[AtomicU8]>,
    visible: AtomicBool,
}

impl Region {
    /// The name given by the board.
    pub fn name(&self) -> &'static str {
        self.spec.name
    }

    /// First guest physical address.
    pub fn base(&self) -> u64 {
        self.spec.base
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.spec.size
    }

    /// RAM or ROM.
    pub fn kind(&self) -> RegionKind {
        self.spec.kind
    }

    /// The memfd that holds the region from its offset 0 on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.mapping.fd()
    }

    /// Where the region is mapped in the host.
    pub fn host(&self) -> NonNull<u8> {
        self.mapping.ptr()
    }

    /// Whether CPUs may touch it directly; see [`GuestMemory::set_visible`].
    pub fn visible(&self) -> bool {
        self.visible.load(Ordering::SeqCst)
    }

    fn pages(&self) -> u64 {
        self.spec.size / PAGE_SIZE
    }
}

/// All memory of one machine.
#[derive(Default)]
pub struct GuestMemory {
    /// Sorted by base.
    regions: Vec<Region>,
    observers: RwLock<Vec<(WatchBits, Weak<dyn WriteObserver>)>>,
    visibility_observers: RwLock<Vec<Weak<dyn VisibilityObserver>>>,
}

impl GuestMemory {
    /// Makes the regions, zeroed. Host memory is taken only as pages are touched.
    pub fn new(specs: &[RegionSpec]) -> Result<Self, MemoryError> {
        let mut specs = specs.to_vec();
        specs.sort_by_key(|spec| spec.base);
        for &RegionSpec { name, base, size, .. } in &specs {
            let whole = base.is_multiple_of(PAGE_SIZE) && size.is_multiple_of(PAGE_SIZE);
            if !whole || size == 0 || base.checked_add(size).is_none() {
                return Err(MemoryError::Range { name, base, size });
            }
        }
        for pair in specs.windows(2) {
            if pair[0].base + pair[0].size > pair[1].base {
                return Err(MemoryError::Overlap(pair[0].name, pair[1].name));
            }
        }
        let regions = specs.into_iter().map(|spec| {
            let RegionSpec { name, size, .. } = spec;
            let mapping = Mapping::new(name, size).map_err(|source| MemoryError::Host {
                name,
                size,
                source,
            })?;
            let watch = (0..size / PAGE_SIZE).map(|_| AtomicU8::new(0)).collect();
            Ok(Region { spec, mapping, watch, visible: AtomicBool::new(true) })
        });
        let regions = regions.collect::<Result<_, _>>()?;
        Ok(Self { regions, ..Self::default() })
    }

    /// The regions in ascending order.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Reads bytes.
    pub fn read_into(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), OutOfRange> {
        let (region, offset) = self.locate(gpa, bytes.len() as u64)?;
        region.mapping.read(offset, bytes);
        Ok(())
    }

    /// Writes bytes as a device does (DMA): ROM is refused, observers hear of it.
    pub fn write_from(&self, gpa: u64, bytes: &[u8]) -> Result<(), OutOfRange> {
        let len = bytes.len() as u64;
        let (region, offset) = self.locate_writable(gpa, len)?;
        region.mapping.write(offset, bytes);
        self.report(region, gpa, len);
        Ok(())
    }

    /// Reads one little-endian integer; single-copy atomic if aligned, with acquire ordering.
    pub fn load<T: GuestInt>(&self, gpa: u64) -> Result<T, OutOfRange> {
        let (region, offset) = self.locate(gpa, size_of::<T>() as u64)?;
        Ok(region.mapping.load(offset))
    }

    /// Writes one little-endian integer as a device does; single-copy atomic if aligned, with
    /// release ordering.
    pub fn store<T: GuestInt>(&self, gpa: u64, value: T) -> Result<(), OutOfRange> {
        let len = size_of::<T>() as u64;
        let (region, offset) = self.locate_writable(gpa, len)?;
        region.mapping.store(offset, value);
        self.report(region, gpa, len);
        Ok(())
    }

    /// Writes bytes as a loader does, ROM included; observers hear of it.
    pub fn fill(&self, gpa: u64, bytes: &[u8]) -> Result<(), OutOfRange> {
        let len = bytes.len() as u64;
        let (region, offset) = self.locate(gpa, len)?;
        region.mapping.write(offset, bytes);
        self.report(region, gpa, len);
        Ok(())
    }

    /// Whether `[gpa, gpa + len)` lies in one region.
    pub fn contains(&self, gpa: u64, len: u64) -> bool {
        self.locate(gpa, len).is_ok()
    }

    /// Whether `[gpa, gpa + len)` lies in one region of RAM.
    pub fn is_ram(&self, gpa: u64, len: u64) -> bool {
        self.locate_writable(gpa, len).is_ok()
    }

    /// The host's view of the 4 KiB page that holds `gpa`; `None` where no memory is and where it
    /// is hidden, so that the access goes to the bus.
    pub fn host_page(&self, gpa: u64) -> Option<HostPage> {
        let gpa = gpa & !(PAGE_SIZE - 1);
        let (region, offset) = self.locate(gpa, PAGE_SIZE).ok()?;
        if !region.visible() {
            return None;
        }
        let bits = region.watch[(offset / PAGE_SIZE) as usize].load(Ordering::SeqCst);
        Some(HostPage {
            ptr: region.mapping.page(offset),
            writable: region.spec.kind == RegionKind::Ram,
            watched: WatchBits::from_bits_retain(bits),
        })
    }

    /// Zeroes all RAM and gives its pages back to the host, as after power-on; with the vCPUs
    /// parked. Observers hear nothing: whoever resets a machine drops its code as a whole.
    pub fn clear_ram(&self) -> std::io::Result<()> {
        let mut ram = self.regions.iter().filter(|region| region.spec.kind == RegionKind::Ram);
        ram.try_for_each(|region| {
            region.mapping.zero()?;
            for page in &region.watch {
                page.fetch_and(!WatchBits::DIRTY.bits(), Ordering::SeqCst);
            }
            Ok(())
        })
    }

    /// Feeds the page that holds `gpa` to a hasher, as little-endian 8-byte words.
    pub fn hash_page<H: Hasher>(&self, gpa: u64, hasher: &mut H) -> Result<(), OutOfRange> {
        let (region, offset) = self.locate(gpa & !(PAGE_SIZE - 1), PAGE_SIZE)?;
        for word in (offset..offset + PAGE_SIZE).step_by(8) {
            hasher.write_u64(region.mapping.load::<u64>(word));
        }
        Ok(())
    }

    /// Adds an observer for pages that have any of `bits`. Held weakly, since observers usually
    /// hold this memory: the caller keeps the `Arc`.
    pub fn observe(&self, bits: WatchBits, observer: &Arc<dyn WriteObserver>) {
        let mut observers = self.observers.write().unwrap_or_else(PoisonError::into_inner);
        observers.retain(|(_, old)| old.strong_count() > 0);
        observers.push((bits, Arc::downgrade(observer)));
    }

    /// Adds an observer for regions that are hidden. Held weakly, as in [`GuestMemory::observe`].
    pub fn observe_visibility(&self, observer: &Arc<dyn VisibilityObserver>) {
        let observers = self.visibility_observers.write();
        let mut observers = observers.unwrap_or_else(PoisonError::into_inner);
        observers.retain(|old| old.strong_count() > 0);
        observers.push(Arc::downgrade(observer));
    }

    /// Shows to CPUs the region that holds `gpa`, or hides it and tells the observers. Visible is
    /// the state after [`GuestMemory::new`]. Outside memory nothing happens.
    pub fn set_visible(&self, gpa: u64, visible: bool) {
        let Ok((region, _)) = self.locate(gpa, 1) else { return };
        let was = region.visible.swap(visible, Ordering::SeqCst);
        if visible || !was {
            return; // CPUs cache nothing of a hidden region that they would have to drop.
        }
        let observers: Vec<_> = {
            let observers = self.visibility_observers.read();
            let observers = observers.unwrap_or_else(PoisonError::into_inner);
            observers.iter().filter_map(Weak::upgrade).collect()
        };
        for observer in observers {
            observer.hidden(region.spec.base, region.spec.size);
        }
    }

    /// Sets bits of the page that holds `gpa`; returns those that it had. Bytes of the page that
    /// this thread reads afterwards are either newer than any unreported DMA write, or that write
    /// will be reported. Stores of CPUs need a safepoint in between (they cache write entries).
    /// Outside memory nothing happens and no bits are returned.
    pub fn watch(&self, gpa: u64, bits: WatchBits) -> WatchBits {
        let Some(page) = self.page_bits(gpa) else { return WatchBits::empty() };
        let old = page.fetch_or(bits.bits(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
        WatchBits::from_bits_retain(old)
    }

    /// Clears bits of the page that holds `gpa`; returns those that it had.
    pub fn unwatch(&self, gpa: u64, bits: WatchBits) -> WatchBits {
        let Some(page) = self.page_bits(gpa) else { return WatchBits::empty() };
        WatchBits::from_bits_retain(page.fetch_and(!bits.bits(), Ordering::SeqCst))
    }

    /// The bits of the page that holds `gpa`.
    pub fn watched(&self, gpa: u64) -> WatchBits {
        let bits = self.page_bits(gpa).map_or(0, |page| page.load(Ordering::SeqCst));
        WatchBits::from_bits_retain(bits)
    }

    /// Tells the observers that a CPU wrote `len` bytes at `gpa`. Call it after the bytes changed.
    /// A range that is not memory is ignored.
    pub fn written(&self, gpa: u64, len: u64) {
        if let Ok((region, _)) = self.locate(gpa, len) {
            self.report(region, gpa, len);
        }
    }

    /// Arms dirty logging for every page of RAM. The vCPUs drop their write entries afterwards.
    pub fn begin_dirty_log(&self) {
        for region in self.ram() {
            for page in &region.watch {
                page.fetch_or(WatchBits::DIRTY.bits(), Ordering::SeqCst);
            }
        }
    }

    /// Ends dirty logging.
    pub fn end_dirty_log(&self) {
        for region in self.ram() {
            for page in &region.watch {
                page.fetch_and(!WatchBits::DIRTY.bits(), Ordering::SeqCst);
            }
        }
    }

    /// Pages of RAM (first addresses, ascending) written since [`GuestMemory::begin_dirty_log`].
    pub fn dirty_pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.ram().flat_map(|region| {
            (0..region.pages()).filter_map(|page| {
                let bits = region.watch[page as usize].load(Ordering::SeqCst);
                let clean = bits & WatchBits::DIRTY.bits() != 0;
                (!clean).then_some(region.spec.base + page * PAGE_SIZE)
            })
        })
    }

    fn ram(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter().filter(|region| region.spec.kind == RegionKind::Ram)
    }

    /// The region that holds all of `[gpa, gpa + len)`, and the offset of `gpa` in it.
    fn locate(&self, gpa: u64, len: u64) -> Result<(&Region, u64), OutOfRange> {
        let index = self.regions.partition_point(|region| region.spec.base <= gpa);
        if let Some(region) = index.checked_sub(1).map(|index| &self.regions[index]) {
            let offset = gpa - region.spec.base;
            if offset <= region.spec.size && len <= region.spec.size - offset {
                return Ok((region, offset));
            }
        }
        Err(OutOfRange { gpa, len })
    }

    fn locate_writable(&self, gpa: u64, len: u64) -> Result<(&Region, u64), OutOfRange> {
        let found = self.locate(gpa, len)?;
        if found.0.spec.kind == RegionKind::Rom {
            return Err(OutOfRange { gpa, len });
        }
        Ok(found)
    }

    fn page_bits(&self, gpa: u64) -> Option<&AtomicU8> {
        let (region, offset) = self.locate(gpa, 1).ok()?;
        region.watch.get((offset / PAGE_SIZE) as usize)
    }

    /// Looks at the bits of every page in the range, which lies in `region`.
    fn report(&self, region: &Region, gpa: u64, len: u64) {
        if len == 0 {
            return;
        }
        // Pairs with the one in `watch`: either we see the new bit, or the watcher our bytes.
        fence(Ordering::SeqCst);
        let pages: Range<u64> = (gpa - region.spec.base) / PAGE_SIZE
            ..(gpa - region.spec.base + len).div_ceil(PAGE_SIZE);
        for page in pages {
            let watch = &region.watch[page as usize];
            if watch.load(Ordering::Relaxed) != 0 {
                let bits = watch.fetch_and(!WatchBits::DIRTY.bits(), Ordering::SeqCst);
                let start = region.spec.base + page * PAGE_SIZE;
                let first = gpa.max(start);
                let end = (gpa + len).min(start + PAGE_SIZE);
                self.tell(first, end - first, WatchBits::from_bits_retain(bits));
            }
        }
    }

    #[cold]
    fn tell(&self, gpa: u64, len: u64, bits: WatchBits) {
        let observers: Vec<_> = {
            let observers = self.observers.read().unwrap_or_else(PoisonError::into_inner);
            observers
                .iter()
                .filter(|(wanted, _)| wanted.intersects(bits))
                .filter_map(|(_, observer)| observer.upgrade())
                .collect()
        };
        for observer in observers {
            observer.written(gpa, len, bits);
        }
    }
}

impl std::fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.regions.iter().map(|region| region.spec)).finish()
    }
}

#[cfg(test)]
mod tests;
