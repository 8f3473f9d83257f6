//! One guarded memfd mapping and the atomic accesses to it: the only place that turns guest memory
//! into host pointers.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Inaccessible bytes before and after each region: a wild access near its edge stops the host
/// instead of corrupting it.
const GUARD: usize = 64 << 10;

/// A shared mapping of a memfd between two guards.
#[derive(Debug)]
pub(super) struct Mapping {
    fd: OwnedFd,
    ptr: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping is owned by this value until it drops, and every access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared accesses are atomic.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `size` is a multiple of the page size.
    pub(super) fn new(name: &str, size: u64) -> io::Result<Self> {
        let too_big = || io::Error::from_raw_os_error(libc::ENOMEM);
        let size = usize::try_from(size).map_err(|_| too_big())?;
        let reserved = size.checked_add(2 * GUARD).ok_or_else(too_big)?;
        let length = libc::off_t::try_from(size).map_err(|_| too_big())?;
        let name = CString::new(format!("mimic-{name}"))?;
        // SAFETY: `name` is a C string that outlives the call.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: plain system call on an open descriptor.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping where the kernel likes; it replaces nothing.
        let reserve =
            unsafe { libc::mmap(std::ptr::null_mut(), reserved, libc::PROT_NONE, flags, -1, 0) };
        if reserve == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: GUARD is inside the reservation.
        let inside = unsafe { reserve.cast::<u8>().add(GUARD) };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: replaces pages of the reservation alone, which is ours and holds nothing.
        let mapped =
            unsafe { libc::mmap(inside.cast(), size, protection, flags, fd.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            // SAFETY: the reservation made above, not used by anything.
            unsafe { libc::munmap(reserve, reserved) };
            return Err(error);
        }
        // A core dump of the host need not hold gigabytes of guest. Failure changes nothing else.
        // SAFETY: advice about our own mapping.
        unsafe { libc::madvise(mapped, size, libc::MADV_DONTDUMP) };
        let ptr = NonNull::new(mapped.cast()).ok_or_else(too_big)?;
        Ok(Self { fd, ptr, size })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// The page at `offset`, which is inside.
    pub(super) fn page(&self, offset: u64) -> NonNull<u8> {
        self.at(offset, super::PAGE_SIZE as usize)
    }

    /// Makes every byte 0 by giving the pages back.
    pub(super) fn zero(&self) -> io::Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // The size fitted `off_t` when the file was made.
        // SAFETY: plain system call on our own descriptor.
        let result =
            unsafe { libc::fallocate(self.fd.as_raw_fd(), mode, 0, self.size as libc::off_t) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Copies out. The range is inside.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) {
        let start = self.at(offset, bytes.len());
        let (head, words) = split(start, bytes.len());
        let (head, rest) = bytes.split_at_mut(head);
        let (words, tail) = rest.split_at_mut(words);
        let mut ptr = start.as_ptr();
        // SAFETY: `at` checked the whole range; `split` made the word part 8-byte aligned; each
        // step stays within the lengths that sum up to the range.
        unsafe {
            for byte in head {
                *byte = AtomicU8::from_ptr(ptr).load(Ordering::Relaxed);
                ptr = ptr.add(1);
            }
            for word in words.chunks_exact_mut(8) {
                let value = AtomicU64::from_ptr(ptr.cast()).load(Ordering::Relaxed);
                word.copy_from_slice(&value.to_ne_bytes());
                ptr = ptr.add(8);
            }
            for byte in tail {
                *byte = AtomicU8::from_ptr(ptr).load(Ordering::Relaxed);
                ptr = ptr.add(1);
            }
        }
        std::sync::atomic::fence(Ordering::Acquire);
    }

    /// Copies in. The range is inside.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) {
        let start = self.at(offset, bytes.len());
        let (head, words) = split(start, bytes.len());
        let (head, rest) = bytes.split_at(head);
        let (words, tail) = rest.split_at(words);
        let mut ptr = start.as_ptr();
        std::sync::atomic::fence(Ordering::Release);
        // SAFETY: as in `read`.
        unsafe {
            for &byte in head {
                AtomicU8::from_ptr(ptr).store(byte, Ordering::Relaxed);
                ptr = ptr.add(1);
            }
            for word in words.as_chunks::<8>().0 {
                AtomicU64::from_ptr(ptr.cast()).store(u64::from_ne_bytes(*word), Ordering::Relaxed);
                ptr = ptr.add(8);
            }
            for &byte in tail {
                AtomicU8::from_ptr(ptr).store(byte, Ordering::Relaxed);
                ptr = ptr.add(1);
            }
        }
    }

    /// One integer. The range is inside.
    pub(super) fn load<T: GuestInt>(&self, offset: u64) -> T {
        let ptr = self.at(offset, size_of::<T>());
        if ptr.cast::<T>().is_aligned() {
            // SAFETY: inside by `at`, aligned, and only accessed atomically.
            unsafe { T::load_aligned(ptr.as_ptr()) }
        } else {
            let mut bytes = [0; 8];
            self.read(offset, &mut bytes[..size_of::<T>()]);
            T::from_le_bytes8(bytes)
        }
    }

    /// One integer. The range is inside.
    pub(super) fn store<T: GuestInt>(&self, offset: u64, value: T) {
        let ptr = self.at(offset, size_of::<T>());
        if ptr.cast::<T>().is_aligned() {
            // SAFETY: inside by `at`, aligned, and only accessed atomically.
            unsafe { value.store_aligned(ptr.as_ptr()) };
        } else {
            self.write(offset, &value.to_le_bytes8()[..size_of::<T>()]);
        }
    }

    /// The callers found the range inside the region; a mistake there must not become a wild
    /// access, so it is checked here once more.
    fn at(&self, offset: u64, len: usize) -> NonNull<u8> {
        let offset = offset as usize;
        assert!(offset <= self.size && len <= self.size - offset, "range outside its region");
        // SAFETY: inside the mapping by the line above.
        unsafe { self.ptr.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the reservation made in `new`, guards included; nothing refers to it any more.
        unsafe {
            let reserve = self.ptr.as_ptr().sub(GUARD);
            libc::munmap(reserve.cast(), self.size + 2 * GUARD);
        }
    }
}

/// Lengths of the bytes before the first 8-byte boundary and of the whole words from there.
fn split(start: NonNull<u8>, len: usize) -> (usize, usize) {
    let head = start.align_offset(8).min(len);
    (head, (len - head) & !7)
}

/// An unsigned integer as guests store it: little-endian, 1 to 8 bytes.
pub trait GuestInt: Copy + sealed::Sealed {
    /// From the first bytes of `bytes`, little-endian.
    fn from_le_bytes8(bytes: [u8; 8]) -> Self;
    /// Little-endian, padded with zeros.
    fn to_le_bytes8(self) -> [u8; 8];
    /// Loads with acquire ordering.
    /// # Safety
    /// `ptr` is valid, aligned to the type, and accessed only atomically by anybody.
    unsafe fn load_aligned(ptr: *mut u8) -> Self;
    /// Stores with release ordering.
    /// # Safety
    /// As for [`GuestInt::load_aligned`].
    unsafe fn store_aligned(self, ptr: *mut u8);
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! guest_int {
    ($($int:ty, $atomic:ty;)*) => {$(
        impl sealed::Sealed for $int {}
        impl GuestInt for $int {
            fn from_le_bytes8(bytes: [u8; 8]) -> Self {
                u64::from_le_bytes(bytes) as $int
            }
            fn to_le_bytes8(self) -> [u8; 8] {
                u64::from(self).to_le_bytes()
            }
            unsafe fn load_aligned(ptr: *mut u8) -> Self {
                // SAFETY: the caller's promise.
                <$int>::from_le(unsafe { <$atomic>::from_ptr(ptr.cast()) }.load(Ordering::Acquire))
            }
            unsafe fn store_aligned(self, ptr: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe { <$atomic>::from_ptr(ptr.cast()) }.store(self.to_le(), Ordering::Release);
            }
        }
    )*};
}

guest_int! {
    u8, AtomicU8;
    u16, AtomicU16;
    u32, AtomicU32;
    u64, AtomicU64;
}
