//! Accesses to linear addresses: through the soft TLB, or slowly through paging to RAM or a device.

mod wide;

use std::sync::Arc;

use crate::bus::{CpuBus, PAGE_MASK, PAGE_SIZE, PageAccess, RamPage, Width};
use crate::ram::{Cell, HostPage};
use crate::tlb::Fill;

use crate::x86::core::Core;
use crate::x86::fault::{Fault, Stop, vector};
use crate::x86::paging::{Access, Rights};

/// Where an address leads.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Ram(RamPage, u64),
    Device(u64),
    /// A store into memory that is only read: a device may take it, as flash does.
    Rom(RamPage, u64),
}

/// The bytes of one access, in one page or two.
#[derive(Clone, Copy)]
struct Places {
    first: Place,
    /// Bytes in the first page.
    split: u64,
    second: Option<Place>,
}

impl Core {
    /// Loads from `lin`.
    ///
    /// # Errors
    /// [`Stop`] for a page fault or an address that is not canonical.
    #[inline(always)]
    pub fn load<T: Cell>(&mut self, lin: u64) -> Result<T, Stop> {
        match self.tlb.load_any(lin) {
            Some(value) => Ok(value),
            None => self.load_slow(lin, T::WIDTH).map(T::narrow),
        }
    }

    /// Stores to `lin`. The instruction may be the last one before the run loop looks at what it caused:
    /// [`Core::leave`].
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[inline(always)]
    pub fn store<T: Cell>(&mut self, lin: u64, value: T) -> Result<(), Stop> {
        if self.tlb.store_any(lin, value) {
            return Ok(());
        }
        self.store_slow(lin, T::WIDTH, value.widen())
    }

    /// Replaces the value at `lin` by `f(old)`. Returns the old one.
    ///
    /// # Errors
    /// As [`load`](Self::load), for a store.
    #[inline(always)]
    pub fn update<T: Cell>(&mut self, lin: u64, f: impl Fn(T) -> T) -> Result<T, Stop> {
        if let Some(old) = self.tlb.update_any(lin, &f) {
            return Ok(old);
        }
        self.update_off_path(lin, f)
    }

    /// [`update`](Self::update) off the fast path, where a function may lie on the stack.
    #[cold]
    #[inline(never)]
    fn update_off_path<T: Cell>(&mut self, lin: u64, f: impl Fn(T) -> T) -> Result<T, Stop> {
        self.update_slow(lin, T::WIDTH, &|old| f(T::narrow(old)).widen()).map(T::narrow)
    }

    /// Replaces the value at `lin` by `f(old)` in one atomic step: LOCK. `f` may be called several times.
    ///
    /// # Errors
    /// As [`load`](Self::load), for a store.
    pub fn update_locked<T: Cell>(&mut self, lin: u64, f: impl Fn(T) -> T) -> Result<T, Stop> {
        self.update_locked_slow(lin, T::WIDTH, &|old| f(T::narrow(old)).widen()).map(T::narrow)
    }

    /// [`update_locked`](Self::update_locked) as the processor does it for itself: descriptors.
    ///
    /// # Errors
    /// As [`load`](Self::load), for a store.
    pub fn update_system<T: Cell>(&mut self, lin: u64, f: impl Fn(T) -> T) -> Result<T, Stop> {
        let lin = lin & self.system_mask();
        let places = self.places(lin, T::WIDTH.bytes(), Access::Write, Rights::Implicit)?;
        let f = |old| f(T::narrow(old)).widen();
        Ok(T::narrow(self.update_places_locked(places, T::WIDTH, &f)))
    }

    /// Checks that `lin` can be stored to.
    ///
    /// # Errors
    /// As [`load`](Self::load), for a store.
    pub fn probe_write(&mut self, lin: u64, len: u64) -> Result<(), Stop> {
        self.places(lin, len, Access::Write, self.own_rights()).map(drop)
    }

    /// Checks that the processor itself can store to `lin`.
    ///
    /// # Errors
    /// As [`load`](Self::load), for a store.
    pub fn probe_system(&mut self, lin: u64, len: u64) -> Result<(), Stop> {
        self.places(lin & self.system_mask(), len, Access::Write, Rights::Implicit).map(drop)
    }

    #[cold]
    #[inline(never)]
    fn load_slow(&mut self, lin: u64, width: Width) -> Result<u64, Stop> {
        let places = self.places(lin, width.bytes(), Access::Read, self.own_rights())?;
        Ok(self.read_places(places, width.bytes()))
    }

    #[cold]
    #[inline(never)]
    fn store_slow(&mut self, lin: u64, width: Width, value: u64) -> Result<(), Stop> {
        let places = self.places(lin, width.bytes(), Access::Write, self.own_rights())?;
        self.write_places(places, width.bytes(), value);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn update_slow(&mut self, lin: u64, width: Width, f: &dyn Fn(u64) -> u64) -> Result<u64, Stop> {
        let places = self.places(lin, width.bytes(), Access::Write, self.own_rights())?;
        let old = self.read_places(places, width.bytes());
        self.write_places(places, width.bytes(), f(old));
        Ok(old)
    }

    #[inline(never)]
    fn update_locked_slow(
        &mut self,
        lin: u64,
        width: Width,
        f: &dyn Fn(u64) -> u64,
    ) -> Result<u64, Stop> {
        let len = width.bytes();
        if let Some((host, page)) = self.tlb.writable(lin)
            && (lin & PAGE_MASK) + len <= PAGE_SIZE
        {
            return Ok(exchange(host, page | lin & PAGE_MASK, width, f));
        }
        let places = self.places(lin, len, Access::Write, self.own_rights())?;
        Ok(self.update_places_locked(places, width, f))
    }

    fn update_places_locked(
        &mut self,
        places: Places,
        width: Width,
        f: &dyn Fn(u64) -> u64,
    ) -> u64 {
        let len = width.bytes();
        if let Places { first: Place::Ram(page, gpa), second: None, .. } = places {
            let old = exchange(page.host, gpa, width, f);
            if page.access == PageAccess::Watched {
                self.stored(gpa, len);
            }
            return old;
        }
        // Across pages, and to devices, LOCK means as much (SDM vol. 3, 9.1.2.2), but no instruction of the host does.
        self.alone(|core| {
            let places = places.anew(&*core.bus);
            let old = core.read_places(places, len);
            core.write_places(places, len, f(old));
            old
        })
    }

    /// Does `work` while all other processors stand still.
    fn alone<R>(&mut self, work: impl FnOnce(&mut Core) -> R) -> R {
        let bus = Arc::clone(&self.bus);
        let (mut work, mut done) = (Some(work), None);
        let processor = self.cpu.id as usize;
        bus.alone(processor, &mut || done = work.take().map(|work| work(self)));
        match done {
            Some(done) => done,
            None => unreachable!("the bus does the work, and once"),
        }
    }

    /// Compare-and-exchange of 16 bytes at `lin`, aligned: the value found.
    ///
    /// # Errors
    /// As [`load`](Self::load), for a store.
    pub fn compare_exchange_16(
        &mut self,
        lin: u64,
        expected: u128,
        new: u128,
    ) -> Result<u128, Stop> {
        if let Some((host, page)) = self.tlb.writable(lin) {
            let found = host.compare_exchange_16(page | lin & PAGE_MASK, expected, new);
            return Ok(found.err().unwrap_or(expected));
        }
        let place = self.locate(lin, 16, Access::Write, self.own_rights())?;
        let Place::Ram(page, gpa) = place else {
            return Ok(self.alone(|core| {
                let half = |core: &mut Core, at| u128::from(core.read_place(place.plus(at), 8));
                let found = half(core, 0) | half(core, 8) << 64;
                let value = if found == expected { new } else { found };
                core.write_place(place, 8, value as u64);
                core.write_place(place.plus(8), 8, (value >> 64) as u64);
                found
            }));
        };
        let found = page.host.compare_exchange_16(gpa, expected, new).err().unwrap_or(expected);
        if page.access == PageAccess::Watched {
            self.stored(gpa, 16);
        }
        Ok(found)
    }

    /// Loads with other rights than the running program's: descriptor tables, TSS, stacks of other levels.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_as<T: Cell>(&mut self, lin: u64, who: Rights) -> Result<T, Stop> {
        let lin = lin & self.system_mask();
        let places = self.places(lin, T::WIDTH.bytes(), Access::Read, who)?;
        Ok(T::narrow(self.read_places(places, T::WIDTH.bytes())))
    }

    /// Stores with other rights than the running program's.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn store_as<T: Cell>(&mut self, lin: u64, value: T, who: Rights) -> Result<(), Stop> {
        let lin = lin & self.system_mask();
        let places = self.places(lin, T::WIDTH.bytes(), Access::Write, who)?;
        self.write_places(places, T::WIDTH.bytes(), value.widen());
        Ok(())
    }

    /// Loads as the processor does for itself: descriptor tables, TSS.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_system<T: Cell>(&mut self, lin: u64) -> Result<T, Stop> {
        self.load_as(lin, Rights::Implicit)
    }

    /// Stores as the processor does for itself: descriptor tables, TSS.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn store_system<T: Cell>(&mut self, lin: u64, value: T) -> Result<(), Stop> {
        self.store_as(lin, value, Rights::Implicit)
    }

    fn system_mask(&self) -> u64 {
        if self.long_mode() { u64::MAX } else { 0xffff_ffff }
    }

    /// Translates both ends of an access of `len` bytes; at most a page.
    fn places(&mut self, lin: u64, len: u64, access: Access, who: Rights) -> Result<Places, Stop> {
        let split = PAGE_SIZE - (lin & PAGE_MASK);
        let first = self.locate(lin, len.min(split), access, who)?;
        if split >= len {
            return Ok(Places { first, split: len, second: None });
        }
        let mask = if who == self.own_rights() { self.lin_mask } else { self.system_mask() };
        let second = self.locate(lin.wrapping_add(split) & mask, len - split, access, who)?;
        Ok(Places { first, split, second: Some(second) })
    }

    /// Translates an access of `len` bytes at `lin`, inside a page; enters RAM into the TLB.
    pub(crate) fn locate(
        &mut self,
        lin: u64,
        len: u64,
        access: Access,
        who: Rights,
    ) -> Result<Place, Stop> {
        if !self.is_canonical(lin) {
            return Err(self.out_of_segment());
        }
        let to = match self.translate(lin, access, who) {
            Ok(to) => to,
            Err(fault) => return Err(self.raise(fault)),
        };
        let mut free = self.points.watchpoints.is_empty() || self.observe(lin, len, access);
        if self.breakpoints.any() && who == self.own_rights() {
            free &= self.meets_data(lin, len, access);
        }
        let Some(page) = self.bus.ram_page(to.gpa) else { return Ok(Place::Device(to.gpa)) };
        if access == Access::Write && page.access == PageAccess::ReadOnly {
            return Ok(Place::Rom(page, to.gpa));
        }
        // The current table is that of the running program's rights.
        if free && who == self.own_rights() {
            self.tlb_misses += 1;
            self.tlb.fill(Fill {
                va: lin,
                gpa: to.gpa & !PAGE_MASK,
                host: page.host,
                read: true,
                write: to.writable && page.access == PageAccess::ReadWrite,
                span: to.span,
            });
        }
        Ok(Place::Ram(page, to.gpa))
    }

    fn read_places(&mut self, places: Places, len: u64) -> u64 {
        let low = self.read_place(places.first, places.split);
        match places.second {
            None => low,
            Some(second) => low | self.read_place(second, len - places.split) << (8 * places.split),
        }
    }

    fn write_places(&mut self, places: Places, len: u64, value: u64) {
        self.write_place(places.first, places.split, value);
        if let Some(second) = places.second {
            self.write_place(second, len - places.split, value >> (8 * places.split));
        }
    }

    fn read_place(&mut self, place: Place, len: u64) -> u64 {
        let width = whole_width(len);
        match (place, width) {
            (Place::Ram(page, gpa) | Place::Rom(page, gpa), Some(width)) => {
                page.host.load(gpa, width)
            }
            (Place::Ram(page, gpa) | Place::Rom(page, gpa), None) => {
                (0..len).fold(0, |value, i| value | page.host.load(gpa + i, Width::Byte) << (8 * i))
            }
            (Place::Device(gpa), _) => self.read_device(gpa, len),
        }
    }

    /// The byte at an offset from a place, inside its page.
    pub(crate) fn read_byte(&mut self, place: Place, offset: u64) -> u8 {
        self.read_place(place.plus(offset), 1) as u8
    }

    fn write_place(&mut self, place: Place, len: u64, value: u64) {
        match place {
            Place::Ram(page, gpa) => {
                match whole_width(len) {
                    Some(width) => page.host.store(gpa, width, value),
                    None => {
                        for i in 0..len {
                            page.host.store(gpa + i, Width::Byte, value >> (8 * i));
                        }
                    }
                }
                if page.access == PageAccess::Watched {
                    self.stored(gpa, len);
                }
            }
            Place::Device(gpa) => self.write_device(gpa, len, value),
            Place::Rom(_, gpa) => {
                // The next load must see what the device made of its memory.
                self.flush_tlb();
                self.write_device(gpa, len, value);
            }
        }
    }

    /// After a store into a watched page: code may have changed, and does so at the next instruction.
    fn stored(&mut self, gpa: u64, len: u64) {
        self.bus.watched_write(gpa, len);
        self.leave = true;
        self.poll = true;
        self.stale_code = true;
    }

    /// What a device access caused is looked at before the next instruction, wherever the block ends.
    fn after_device(&mut self) {
        self.device_accesses += 1;
        if self.signals.needs_attention() {
            self.leave = true;
        }
    }

    /// Devices take naturally aligned accesses. Where nothing answers, all ones are read.
    fn read_device(&mut self, gpa: u64, len: u64) -> u64 {
        let mut value = 0;
        let mut at = 0;
        while at < len {
            let width = aligned_width(gpa + at, len - at);
            let part = self.bus.read(gpa + at, width).unwrap_or(u64::MAX);
            value |= width.zero_extend(part) << (8 * at);
            at += width.bytes();
        }
        self.after_device();
        value
    }

    fn write_device(&mut self, gpa: u64, len: u64, value: u64) {
        let mut at = 0;
        while at < len {
            let width = aligned_width(gpa + at, len - at);
            let part = width.zero_extend(value >> (8 * at));
            // Where nothing answers, a store goes nowhere.
            let _nobody = self.bus.write(gpa + at, width, part);
            at += width.bytes();
        }
        self.after_device();
    }

    /// Checks the alignment of an access of `len` bytes, where alignment is checked.
    ///
    /// # Errors
    /// #AC.
    pub fn check_alignment(&mut self, lin: u64, len: u64) -> Result<(), Stop> {
        if lin & (len - 1) != 0 && self.checks_alignment() {
            return Err(self.raise(Fault::with(vector::AC, 0)));
        }
        Ok(())
    }
}

impl Place {
    fn plus(self, offset: u64) -> Place {
        match self {
            Place::Ram(page, gpa) => Place::Ram(page, gpa + offset),
            Place::Device(gpa) => Place::Device(gpa + offset),
            Place::Rom(page, gpa) => Place::Rom(page, gpa + offset),
        }
    }

    /// The same place, which may have become something else.
    fn anew(self, bus: &dyn CpuBus) -> Place {
        let (Place::Ram(_, gpa) | Place::Rom(_, gpa) | Place::Device(gpa)) = self;
        match bus.ram_page(gpa) {
            Some(page) if page.access == PageAccess::ReadOnly => Place::Rom(page, gpa),
            Some(page) => Place::Ram(page, gpa),
            None => Place::Device(gpa),
        }
    }
}

impl Places {
    fn anew(self, bus: &dyn CpuBus) -> Places {
        let Places { first, split, second } = self;
        Places { first: first.anew(bus), split, second: second.map(|place| place.anew(bus)) }
    }
}

/// Replaces the value at `gpa`, in the page `host`, by `f(old)` in one atomic step; the old one.
fn exchange(host: HostPage, gpa: u64, width: Width, f: &dyn Fn(u64) -> u64) -> u64 {
    let mut old = host.load(gpa, width);
    while let Err(found) = host.compare_exchange_any(gpa, width, old, f(old)) {
        old = found;
    }
    old
}

fn whole_width(len: u64) -> Option<Width> {
    match len {
        1 => Some(Width::Byte),
        2 => Some(Width::Half),
        4 => Some(Width::Word),
        8 => Some(Width::Double),
        _ => None,
    }
}

fn aligned_width(gpa: u64, len: u64) -> Width {
    if gpa & 7 == 0 && len >= 8 {
        Width::Double
    } else if gpa & 3 == 0 && len >= 4 {
        Width::Word
    } else if gpa & 1 == 0 && len >= 2 {
        Width::Half
    } else {
        Width::Byte
    }
}
