//! Access to guest RAM from CPUs.
//!
//! Guest RAM is shared with other harts, device threads and the guest's own idea of memory ordering,
//! so it is touched only here, by atomics: naturally aligned accesses up to eight bytes are
//! single-copy atomic, everything else goes byte by byte.
#![allow(unsafe_code)] // Raw host addresses of guest RAM become loads and stores here.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::bus::{PAGE_MASK, PAGE_SIZE, Width};

/// The host memory behind one page of guest RAM.
#[derive(Clone, Copy, Debug)]
pub struct HostPage(NonNull<u8>);

// SAFETY: a HostPage is an address of memory that lives as long as the machine (see `new`) and is
// only accessed by atomics.
unsafe impl Send for HostPage {}
// SAFETY: as above.
unsafe impl Sync for HostPage {}

macro_rules! atomic {
    ($ty:ty, $ptr:expr) => {{
        let ptr: *mut u8 = $ptr;
        // SAFETY: the callers guarantee that `ptr` lies in a live page and is aligned; all accesses
        // of guest RAM are atomic.
        unsafe { <$ty>::from_ptr(ptr.cast()) }
    }};
}

impl HostPage {
    /// Wraps the host address of a page.
    ///
    /// # Safety
    /// `ptr` must be page-aligned and point to [`PAGE_SIZE`] readable bytes (writable too, unless the
    /// page is handed out as read-only) which stay mapped for as long as any CPU of the machine
    /// exists and are never accessed through Rust references.
    #[must_use]
    pub unsafe fn new(ptr: NonNull<u8>) -> Self {
        debug_assert_eq!(ptr.as_ptr() as u64 & PAGE_MASK, 0);
        HostPage(ptr)
    }

    /// The host address, for translated code and TLB entries.
    #[inline]
    #[must_use]
    pub fn addr(self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Pointer to byte `offset` (masked to the page), which must be aligned to `width`.
    #[inline]
    fn at(self, offset: u64, width: Width) -> *mut u8 {
        assert!(offset & (width.bytes() - 1) == 0, "unaligned access to a host page");
        self.0.as_ptr().wrapping_add((offset & PAGE_MASK) as usize)
    }

    /// Loads `width` bytes at `offset`, zero-extended. Any alignment, but inside the page.
    #[inline]
    #[must_use]
    pub fn load(self, offset: u64, width: Width) -> u64 {
        let offset = offset & PAGE_MASK;
        if offset & (width.bytes() - 1) != 0 {
            debug_assert!(offset + width.bytes() <= PAGE_SIZE);
            return (0..width.bytes())
                .fold(0, |value, i| value | self.load(offset + i, Width::Byte) << (8 * i));
        }
        let ptr = self.at(offset, width);
        match width {
            Width::Byte => u64::from(atomic!(AtomicU8, ptr).load(Ordering::Relaxed)),
            Width::Half => u64::from(atomic!(AtomicU16, ptr).load(Ordering::Relaxed)),
            Width::Word => u64::from(atomic!(AtomicU32, ptr).load(Ordering::Relaxed)),
            Width::Double => atomic!(AtomicU64, ptr).load(Ordering::Relaxed),
        }
    }

    /// Stores the low `width` bytes of `value` at `offset`. Any alignment, but inside the page.
    #[inline]
    pub fn store(self, offset: u64, width: Width, value: u64) {
        let offset = offset & PAGE_MASK;
        if offset & (width.bytes() - 1) != 0 {
            debug_assert!(offset + width.bytes() <= PAGE_SIZE);
            for i in 0..width.bytes() {
                self.store(offset + i, Width::Byte, value >> (8 * i));
            }
            return;
        }
        let ptr = self.at(offset, width);
        match width {
            Width::Byte => atomic!(AtomicU8, ptr).store(value as u8, Ordering::Relaxed),
            Width::Half => atomic!(AtomicU16, ptr).store(value as u16, Ordering::Relaxed),
            Width::Word => atomic!(AtomicU32, ptr).store(value as u32, Ordering::Relaxed),
            Width::Double => atomic!(AtomicU64, ptr).store(value, Ordering::Relaxed),
        }
    }

    /// Compare-and-exchange of an aligned word or double word: `Ok` if `expected` was there.
    ///
    /// # Errors
    /// The value found instead, zero-extended.
    ///
    /// # Panics
    /// If `offset` is unaligned or `width` is below [`Width::Word`]: callers check first.
    pub fn compare_exchange(
        self,
        offset: u64,
        width: Width,
        expected: u64,
        new: u64,
    ) -> Result<(), u64> {
        let ptr = self.at(offset, width);
        match width {
            Width::Double => atomic!(AtomicU64, ptr)
                .compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst)
                .map(drop),
            Width::Word => atomic!(AtomicU32, ptr)
                .compare_exchange(expected as u32, new as u32, Ordering::SeqCst, Ordering::SeqCst)
                .map(drop)
                .map_err(u64::from),
            Width::Byte | Width::Half => panic!("no sub-word compare-and-exchange"),
        }
    }

    /// Atomically replaces an aligned word or double word; returns the old value, zero-extended.
    ///
    /// # Panics
    /// As [`compare_exchange`](Self::compare_exchange).
    pub fn swap(self, offset: u64, width: Width, new: u64) -> u64 {
        let ptr = self.at(offset, width);
        match width {
            Width::Double => atomic!(AtomicU64, ptr).swap(new, Ordering::SeqCst),
            Width::Word => u64::from(atomic!(AtomicU32, ptr).swap(new as u32, Ordering::SeqCst)),
            Width::Byte | Width::Half => panic!("no sub-word swap"),
        }
    }

    /// Atomically replaces an aligned word or double word by `f(old)`; returns the old value,
    /// zero-extended.
    ///
    /// # Panics
    /// As [`compare_exchange`](Self::compare_exchange).
    pub fn update(self, offset: u64, width: Width, f: impl Fn(u64) -> u64) -> u64 {
        let mut old = self.load(offset, width);
        while let Err(found) = self.compare_exchange(offset, width, old, f(old)) {
            old = found;
        }
        old
    }
}

/// The unsigned integers of the four access widths, loaded and stored through TLB entries.
pub trait Cell: Copy {
    /// The width of the type.
    const WIDTH: Width;
    /// Loads from a host address.
    ///
    /// # Safety
    /// `host` must be aligned to the width and lie in a live [`HostPage`].
    unsafe fn load(host: usize) -> Self;
    /// Stores to a host address.
    ///
    /// # Safety
    /// As [`load`](Self::load), and the page must be writable.
    unsafe fn store(self, host: usize);
    /// Zero-extends to 64 bits.
    fn widen(self) -> u64;
    /// The low bits of `value`.
    fn narrow(value: u64) -> Self;
}

macro_rules! cell {
    ($ty:ty, $atomic:ty, $width:expr) => {
        impl Cell for $ty {
            const WIDTH: Width = $width;
            #[inline(always)]
            unsafe fn load(host: usize) -> Self {
                atomic!($atomic, std::ptr::with_exposed_provenance_mut(host))
                    .load(Ordering::Relaxed)
            }
            #[inline(always)]
            unsafe fn store(self, host: usize) {
                atomic!($atomic, std::ptr::with_exposed_provenance_mut(host))
                    .store(self, Ordering::Relaxed);
            }
            #[inline(always)]
            fn widen(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            fn narrow(value: u64) -> Self {
                value as $ty
            }
        }
    };
}
cell!(u8, AtomicU8, Width::Byte);
cell!(u16, AtomicU16, Width::Half);
cell!(u32, AtomicU32, Width::Word);
cell!(u64, AtomicU64, Width::Double);
