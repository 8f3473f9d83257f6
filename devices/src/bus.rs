//! The bus: which device answers at which address.
//!
//! An [`AddressSpace`] knows nothing of memory-mapped I/O in particular; a PC has a second one for
//! its I/O ports ([`crate::ports::PortSpace`]). It takes the device's mutex around each access and holds no lock of its own
//! meanwhile, so a device may re-map ranges (PCI BARs) from inside an access.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

/// The size of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Half,
    /// 4 bytes.
    Word,
    /// 8 bytes.
    Double,
}

impl Width {
    /// Every width, narrowest first.
    pub const ALL: [Width; 4] = [Width::Byte, Width::Half, Width::Word, Width::Double];

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Width::Byte => 1,
            Width::Half => 2,
            Width::Word => 4,
            Width::Double => 8,
        }
    }

    /// The width of `bytes` bytes, when there is one.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Width::Byte),
            2 => Some(Width::Half),
            4 => Some(Width::Word),
            8 => Some(Width::Double),
            _ => None,
        }
    }

    /// All bits that an access of this width carries.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }

    /// Whether `address` is a multiple of the width.
    pub const fn is_aligned(self, address: u64) -> bool {
        address.is_multiple_of(self.bytes())
    }
}

/// Why an access was not performed. The board decides what the guest sees: all-ones on a PC, an
/// access fault on RISC-V.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// No device is there.
    #[error("no device at this address")]
    Unmapped,
    /// The device has no access of this width at this alignment, or it would cross its end.
    #[error("width or alignment not supported by the device")]
    Width,
    /// The device is there and says no.
    #[error("refused by the device")]
    Refused,
}

/// A device's state, saved: which layout, and the layout's bytes (postcard).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDevice {
    /// Version of the device's state struct.
    pub version: u32,
    /// The state struct, encoded.
    pub bytes: Vec<u8>,
}

impl SavedDevice {
    /// Encodes a device's plain state struct.
    pub fn encode<T: Serialize>(version: u32, state: &T) -> Self {
        // Encoding into a growing vector fails only for sequences of unknown length, which no
        // state struct has.
        let bytes = postcard::to_allocvec(state).expect("state structs have a known length");
        Self { version, bytes }
    }

    /// Decodes the state struct if the version is the one the device writes and no byte is left.
    pub fn decode<T: for<'de> Deserialize<'de>>(&self, version: u32) -> Result<T, RestoreError> {
        if self.version != version {
            return Err(RestoreError::Version { found: self.version, expected: version });
        }
        match postcard::take_from_bytes(&self.bytes) {
            Ok((state, [])) => Ok(state),
            _ => Err(RestoreError::Malformed),
        }
    }
}

/// Why a saved state was refused. The device keeps the state that it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The state was written by another version of the device.
    #[error("saved state has version {found}, this device reads version {expected}")]
    Version {
        /// The version in the file.
        found: u32,
        /// The version that the device reads.
        expected: u32,
    },
    /// The bytes are not an encoded state.
    #[error("saved state is malformed")]
    Malformed,
    /// A field holds what no running device can hold; names the field.
    #[error("saved state has an impossible value: {0}")]
    Invalid(&'static str),
}

/// Fails with [`RestoreError::Invalid`] unless `valid`.
pub(crate) fn check(valid: bool, what: &'static str) -> Result<(), RestoreError> {
    if valid { Ok(()) } else { Err(RestoreError::Invalid(what)) }
}

/// Refuses whatever is not an aligned 4-byte access, for devices that have 32-bit registers alone.
pub(crate) fn word_only(offset: u64, width: Width) -> Result<(), BusError> {
    if width == Width::Word && width.is_aligned(offset) { Ok(()) } else { Err(BusError::Width) }
}

/// Refuses whatever is not a byte, for devices that have 8-bit registers alone.
pub(crate) fn byte_only(width: Width) -> Result<(), BusError> {
    if width == Width::Byte { Ok(()) } else { Err(BusError::Width) }
}

/// A device on a bus. It knows neither its address nor its interrupt number.
pub trait Device: Send {
    /// A short name for messages: `plic`, `uart16550`.
    fn name(&self) -> &'static str;

    /// Reads `width` bytes at `offset`, zero-extended. The bus has checked that they lie inside
    /// the mapped range, nothing else.
    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError>;

    /// Writes `width` bytes at `offset`; bits of `value` above the width are 0.
    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError>;

    /// Returns to the state after power-on, lines included. What the board attached stays.
    fn reset(&mut self);

    /// The state that a guest can tell, without what the board attached.
    fn save(&self) -> SavedDevice;

    /// Takes over a saved state, lines and timers included, or refuses it and changes nothing. The
    /// bytes may come from a hostile file.
    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError>;
}

/// A device as the board shares it. Take the lock with [`lock`].
pub type SharedDevice = Arc<Mutex<dyn Device>>;

/// Locks a device. One whose thread panicked is still as consistent as its last access left it.
pub fn lock<T: ?Sized>(device: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a device could not be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The range is taken, at least in part.
    #[error("{new} at {new_base:#x}+{new_size:#x} overlaps {old} at {old_base:#x}+{old_size:#x}")]
    Overlap {
        /// The device to be placed.
        new: &'static str,
        /// Its base.
        new_base: u64,
        /// Its size in bytes.
        new_size: u64,
        /// The device already there.
        old: &'static str,
        /// Its base.
        old_base: u64,
        /// Its size in bytes.
        old_size: u64,
    },
    /// The range is empty or wraps around.
    #[error("{name} cannot be placed at {base:#x}+{size:#x}: empty or past the end of addresses")]
    Range {
        /// The device to be placed.
        name: &'static str,
        /// Its base.
        base: u64,
        /// Its size in bytes.
        size: u64,
    },
}

/// Accesses that met no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmappedAccesses {
    /// Address of the first.
    pub first: u64,
    /// Whether the first was a write.
    pub first_was_write: bool,
    /// How many there were.
    pub count: u64,
}

/// One space of addresses with devices in it.
pub struct AddressSpace {
    /// Sorted by base, never overlapping.
    ranges: RwLock<Vec<Range>>,
    first_unmapped: OnceLock<(u64, bool)>,
    unmapped: AtomicU64,
}

struct Range {
    base: u64,
    /// Last address, inclusive, so that a range may end at the very top.
    last: u64,
    /// The device's offset at `base`.
    first: u64,
    name: &'static str,
    device: SharedDevice,
    /// Opened and closed by the bus that the device is on, which knows the device.
    window: bool,
}

impl Default for AddressSpace {
    fn default() -> Self {
        Self::new()
    }
}

impl AddressSpace {
    /// An empty space.
    pub fn new() -> Self {
        Self {
            ranges: RwLock::new(Vec::new()),
            first_unmapped: OnceLock::new(),
            unmapped: AtomicU64::new(0),
        }
    }

    /// Lets `device` answer at `[base, base + size)`. Must not be called with its lock held by
    /// this thread (use [`AddressSpace::map_named`] there).
    pub fn map(&self, base: u64, size: u64, device: SharedDevice) -> Result<(), MapError> {
        let name = lock(&device).name();
        self.map_named(name, base, size, device)
    }

    /// [`AddressSpace::map`] for a device whose name the caller knows; it takes no device's lock.
    pub fn map_named(
        &self,
        name: &'static str,
        base: u64,
        size: u64,
        device: SharedDevice,
    ) -> Result<(), MapError> {
        self.map_part(name, base, size, device, 0)
    }

    /// [`AddressSpace::map_named`] for a device that answers at several ranges: here are its offsets
    /// from `first` on.
    pub fn map_part(
        &self,
        name: &'static str,
        base: u64,
        size: u64,
        device: SharedDevice,
        first: u64,
    ) -> Result<(), MapError> {
        self.insert(name, (base, size), device, first, false)
    }

    /// [`AddressSpace::map_part`] for a device behind another bus, which moves it about:
    /// [`AddressSpace::devices`] leaves it out.
    pub fn map_window(
        &self,
        name: &'static str,
        base: u64,
        size: u64,
        device: SharedDevice,
        first: u64,
    ) -> Result<(), MapError> {
        self.insert(name, (base, size), device, first, true)
    }

    fn insert(
        &self,
        name: &'static str,
        (base, size): (u64, u64),
        device: SharedDevice,
        first: u64,
        window: bool,
    ) -> Result<(), MapError> {
        let last = size
            .checked_sub(1)
            .and_then(|extent| base.checked_add(extent))
            .ok_or(MapError::Range { name, base, size })?;
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        let index = ranges.partition_point(|range| range.last < base);
        if let Some(old) = ranges.get(index)
            && old.base <= last
        {
            return Err(MapError::Overlap {
                new: name,
                new_base: base,
                new_size: size,
                old: old.name,
                old_base: old.base,
                old_size: (old.last - old.base).wrapping_add(1),
            });
        }
        ranges.insert(index, Range { base, last, first, name, device, window });
        Ok(())
    }

    /// Takes away the range that begins at `base`; false when there is none.
    pub fn unmap(&self, base: u64) -> bool {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        let found = ranges.binary_search_by_key(&base, |range| range.base);
        found.map(|index| ranges.remove(index)).is_ok()
    }

    /// Reads `width` bytes, zero-extended.
    pub fn read(&self, address: u64, width: Width) -> Result<u64, BusError> {
        let (device, offset) = self.find(address, width, false)?;
        let value = lock(&device).read(offset, width)?;
        Ok(value & width.mask())
    }

    /// Writes the low `width` bytes of `value`.
    pub fn write(&self, address: u64, width: Width, value: u64) -> Result<(), BusError> {
        let (device, offset) = self.find(address, width, true)?;
        lock(&device).write(offset, width, value & width.mask())
    }

    /// The accesses so far that met no device, for one summary line at the end of a run.
    pub fn unmapped(&self) -> Option<UnmappedAccesses> {
        let &(first, first_was_write) = self.first_unmapped.get()?;
        let count = self.unmapped.load(Ordering::Relaxed);
        Some(UnmappedAccesses { first, first_was_write, count })
    }

    /// Takes all ranges away.
    pub fn clear(&self) {
        let ranges =
            std::mem::take(&mut *self.ranges.write().unwrap_or_else(PoisonError::into_inner));
        // What a device does when it goes may need the space.
        drop(ranges);
    }

    /// Every range but windows as (base, size, device), in ascending order. A device may appear twice.
    pub fn devices(&self) -> Vec<(u64, u64, SharedDevice)> {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        ranges
            .iter()
            .filter(|range| !range.window)
            .map(|r| (r.base, (r.last - r.base).wrapping_add(1), Arc::clone(&r.device)))
            .collect()
    }

    fn find(
        &self,
        address: u64,
        width: Width,
        write: bool,
    ) -> Result<(SharedDevice, u64), BusError> {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let index = ranges.partition_point(|range| range.last < address);
        match ranges.get(index) {
            Some(range) if range.base <= address => {
                if range.last - address < width.bytes() - 1 {
                    return Err(BusError::Width);
                }
                Ok((Arc::clone(&range.device), (address - range.base).wrapping_add(range.first)))
            }
            _ => {
                drop(ranges);
                self.count_unmapped(address, width, write);
                Err(BusError::Unmapped)
            }
        }
    }

    #[cold]
    fn count_unmapped(&self, address: u64, width: Width, write: bool) {
        self.unmapped.fetch_add(1, Ordering::Relaxed);
        if self.first_unmapped.set((address, write)).is_ok() {
            let what = if write { "write" } else { "read" };
            log::debug!(target: "bus", "{what} of {width:?} at {address:#x}: nothing is there");
        }
    }
}

impl fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_map()
            .entries(ranges.iter().map(|r| (format!("{:#x}..={:#x}", r.base, r.last), r.name)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers reads with what was written last, or with the offset.
    struct Echo(Option<u64>);

    impl Device for Echo {
        fn name(&self) -> &'static str {
            "echo"
        }
        fn read(&mut self, offset: u64, _: Width) -> Result<u64, BusError> {
            Ok(self.0.unwrap_or(offset))
        }
        fn write(&mut self, _: u64, _: Width, value: u64) -> Result<(), BusError> {
            self.0 = Some(value);
            Ok(())
        }
        fn reset(&mut self) {
            self.0 = None;
        }
        fn save(&self) -> SavedDevice {
            SavedDevice::encode(3, &self.0)
        }
        fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
            self.0 = saved.decode(3)?;
            Ok(())
        }
    }

    fn echo() -> SharedDevice {
        Arc::new(Mutex::new(Echo(None)))
    }

    #[test]
    fn accesses_reach_the_device_at_its_offset() {
        let bus = AddressSpace::new();
        bus.map(0x2000, 0x100, echo()).unwrap();
        bus.map(0x1000, 0x100, echo()).unwrap();
        bus.map(u64::MAX - 0xf, 0x10, echo()).unwrap();
        assert_eq!(bus.read(0x1000, Width::Byte), Ok(0));
        assert_eq!(bus.read(0x20f8, Width::Double), Ok(0xf8));
        assert_eq!(bus.read(u64::MAX, Width::Byte), Ok(0xf));
        assert_eq!(bus.write(0x2000, Width::Half, 0x1234_5678), Ok(()));
        assert_eq!(bus.read(0x2000, Width::Double), Ok(0x5678));
        assert_eq!(bus.read(0x2000, Width::Byte), Ok(0x78));
        assert!(bus.unmapped().is_none());
    }

    #[test]
    fn holes_and_crossings_are_refused_and_holes_counted() {
        let bus = AddressSpace::new();
        bus.map(0x1000, 0x100, echo()).unwrap();
        bus.map(0x1100, 0x100, echo()).unwrap();
        assert_eq!(bus.read(0x10fe, Width::Word), Err(BusError::Width));
        assert_eq!(bus.write(0xfff, Width::Word, 0), Err(BusError::Unmapped));
        assert_eq!(bus.read(0x1200, Width::Byte), Err(BusError::Unmapped));
        assert_eq!(bus.read(u64::MAX, Width::Double), Err(BusError::Unmapped));
        let expected = UnmappedAccesses { first: 0xfff, first_was_write: true, count: 3 };
        assert_eq!(bus.unmapped(), Some(expected));
    }

    #[test]
    fn overlaps_name_both_devices() {
        let bus = AddressSpace::new();
        bus.map(0x1000, 0x100, echo()).unwrap();
        for (base, size) in [(0x1000, 0x100), (0xfff, 2), (0x10ff, 1), (0, 0x2000), (0x1010, 4)] {
            let error = bus.map_named("late", base, size, echo()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("late") && text.contains("echo at 0x1000+0x100"), "{text}");
        }
        assert!(matches!(bus.map(5, 0, echo()), Err(MapError::Range { .. })));
        assert!(matches!(bus.map(u64::MAX, 2, echo()), Err(MapError::Range { .. })));
        bus.map(0x1100, 1, echo()).unwrap();
        bus.map(0xfff, 1, echo()).unwrap();
        assert_eq!(bus.devices().iter().map(|d| d.0).collect::<Vec<_>>(), [0xfff, 0x1000, 0x1100]);
    }

    #[test]
    fn an_unmapped_range_is_free_again() {
        let bus = AddressSpace::new();
        bus.map(0x1000, 0x100, echo()).unwrap();
        assert!(!bus.unmap(0x1001));
        assert!(bus.unmap(0x1000));
        assert_eq!(bus.read(0x1000, Width::Byte), Err(BusError::Unmapped));
        bus.map(0x1080, 0x100, echo()).unwrap();
    }

    #[test]
    fn a_device_in_parts_sees_one_run_of_offsets() {
        let bus = AddressSpace::new();
        let device = echo();
        bus.map_part("echo", 0x20, 2, device.clone(), 0).unwrap();
        bus.map_part("echo", 0xa0, 2, device, 2).unwrap();
        assert_eq!(bus.read(0x21, Width::Byte), Ok(1));
        assert_eq!(bus.read(0xa1, Width::Byte), Ok(3));
    }

    #[test]
    fn saved_states_check_version_and_length() {
        let saved = SavedDevice::encode(3, &Some(9_u64));
        assert_eq!(saved.decode(3), Ok(Some(9_u64)));
        let other = RestoreError::Version { found: 3, expected: 4 };
        assert_eq!(saved.decode::<Option<u64>>(4), Err(other));
        let mut long = saved.clone();
        long.bytes.push(0);
        assert_eq!(long.decode::<Option<u64>>(3), Err(RestoreError::Malformed));
        let short = SavedDevice { version: 3, bytes: saved.bytes[..1].to_vec() };
        assert_eq!(short.decode::<Option<u64>>(3), Err(RestoreError::Malformed));
    }
}
