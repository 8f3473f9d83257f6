//! Access to guest RAM from CPUs.
//!
//! Guest RAM is shared with other harts, device threads and the guest's own idea of memory ordering,
//! so it is touched only here, by atomics and assembly: naturally aligned accesses up to eight bytes are
//! single-copy atomic. On x86-64 hosts others, up to eight bytes, are what the host makes of such ones: atomic
//! inside a cache line; elsewhere they go byte by byte.
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
            assert!(offset + width.bytes() <= PAGE_SIZE);
            let host = self.addr() + offset as usize;
            // SAFETY: all bytes lie in a live page (the assertion above).
            return unsafe {
                match width {
                    Width::Byte => u8::load_any(host).widen(),
                    Width::Half => u16::load_any(host).widen(),
                    Width::Word => u32::load_any(host).widen(),
                    Width::Double => u64::load_any(host),
                }
            };
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
            assert!(offset + width.bytes() <= PAGE_SIZE);
            let host = self.addr() + offset as usize;
            // SAFETY: all bytes lie in a live page (the assertion above), which the callers may write.
            unsafe {
                match width {
                    Width::Byte => u8::narrow(value).store_any(host),
                    Width::Half => u16::narrow(value).store_any(host),
                    Width::Word => u32::narrow(value).store_any(host),
                    Width::Double => value.store_any(host),
                }
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

    /// Compare-and-exchange at an aligned offset: `Ok` if `expected` was there.
    ///
    /// # Errors
    /// The value found instead, zero-extended.
    ///
    /// # Panics
    /// If `offset` is unaligned: callers check first.
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
            Width::Half => atomic!(AtomicU16, ptr)
                .compare_exchange(expected as u16, new as u16, Ordering::SeqCst, Ordering::SeqCst)
                .map(drop)
                .map_err(u64::from),
            Width::Byte => atomic!(AtomicU8, ptr)
                .compare_exchange(expected as u8, new as u8, Ordering::SeqCst, Ordering::SeqCst)
                .map(drop)
                .map_err(u64::from),
        }
    }

    /// Loads eight bytes at `offset`, of any alignment; the last ones of the page if they would reach beyond it.
    #[inline(always)]
    #[must_use]
    pub fn load_any(self, offset: u64) -> u64 {
        let offset = (offset & PAGE_MASK).min(PAGE_SIZE - 8);
        // SAFETY: eight bytes inside the live page.
        unsafe { u64::load_any(self.addr() + offset as usize) }
    }

    /// Of the `len` bytes from `offset` on, inside the page, how many come before the first element of `width` that is
    /// equal to its counterpart (`until_equal`), or different. `other` gives the eight bytes that are compared with those
    /// at a distance from `offset`. What is less than eight bytes at the end does not count.
    #[must_use]
    pub fn passed(
        self,
        offset: u64,
        other: impl Fn(u64) -> u64,
        len: u64,
        width: Width,
        until_equal: bool,
    ) -> u64 {
        let bits = width.bits();
        // The lowest and the highest bit of each element.
        let low = u64::MAX / (u64::MAX >> (64 - bits));
        let high = low << (bits - 1);
        let mut at = 0;
        while at + 8 <= len {
            let difference = self.load_any(offset + at) ^ other(at);
            // The lowest bit that this marks is right: borrows come from marked elements alone.
            let found = if until_equal {
                difference.wrapping_sub(low) & !difference & high
            } else {
                difference
            };
            if found != 0 {
                return at + u64::from(found.trailing_zeros() / bits) * width.bytes();
            }
            at += 8;
        }
        at
    }

    /// Copies `len` bytes at `offset` to `to_offset` of another page or the same one, upwards, in steps of at least
    /// `step`: a string that begins inside its own source repeats what lies between. Both lie inside their pages.
    pub fn copy_to(self, offset: u64, to: HostPage, to_offset: u64, len: u64, step: Width) {
        let (offset, to_offset) = (offset & PAGE_MASK, to_offset & PAGE_MASK);
        assert!(offset + len <= PAGE_SIZE && to_offset + len <= PAGE_SIZE);
        let from = self.addr() + offset as usize;
        let to = to.addr() + to_offset as usize;
        let distance = to.wrapping_sub(from) as u64;
        if len >= 128 && distance >= 64 {
            // SAFETY: the bytes lie inside both live pages (the assertion above); the callers write to writable pages
            // only. Upwards, nothing is read that was to be written before: it lies 64 bytes ahead at least.
            unsafe { copy_up(from, to, len as usize) };
            return;
        }
        // Larger steps would read what smaller ones have not written yet.
        let largest = if distance < 8 { step.bytes() } else { 8 };
        let mut at = 0;
        while at < len {
            let at_host = at as usize;
            match largest.min(len - at) {
                // SAFETY: the bytes at `at` lie inside both live pages (the assertion above); the callers write to
                // writable pages only.
                8 => unsafe { u64::load_any(from + at_host).store_any(to + at_host) },
                // SAFETY: as above.
                4..8 => unsafe { u32::load_any(from + at_host).store_any(to + at_host) },
                // SAFETY: as above.
                2..4 => unsafe { u16::load_any(from + at_host).store_any(to + at_host) },
                // SAFETY: as above.
                _ => unsafe { Cell::store(u8::load(from + at_host), to + at_host) },
            }
            at += match largest.min(len - at) {
                8 => 8,
                4..8 => 4,
                2..4 => 2,
                _ => 1,
            };
        }
    }

    /// Fills `len` bytes at `offset`, inside the page, with the bytes of `pattern` over and over.
    pub fn fill(self, offset: u64, len: u64, pattern: u64) {
        let offset = offset & PAGE_MASK;
        assert!(offset + len <= PAGE_SIZE);
        let to = self.addr() + offset as usize;
        let mut at = 0;
        while at + 8 <= len {
            // SAFETY: the bytes lie inside the live page (the assertion above), which the callers may write.
            unsafe { pattern.store_any(to + at as usize) };
            at += 8;
        }
        for (i, byte) in (at..len).zip(pattern.to_le_bytes()) {
            self.store(offset + i, Width::Byte, u64::from(byte));
        }
    }

    /// Atomically replaces an aligned word or double word; returns the old value, zero-extended.
    ///
    /// # Panics
    /// If `offset` is unaligned or `width` is below [`Width::Word`]: callers check first.
    pub fn swap(self, offset: u64, width: Width, new: u64) -> u64 {
        let ptr = self.at(offset, width);
        match width {
            Width::Double => atomic!(AtomicU64, ptr).swap(new, Ordering::SeqCst),
            Width::Word => u64::from(atomic!(AtomicU32, ptr).swap(new as u32, Ordering::SeqCst)),
            Width::Byte | Width::Half => panic!("no sub-word swap"),
        }
    }

    /// Compare-and-exchange at any offset inside the page, for x86's LOCK. Off its alignment it is atomic on x86-64
    /// hosts alone.
    ///
    /// # Errors
    /// The value found instead, zero-extended.
    pub fn compare_exchange_any(
        self,
        offset: u64,
        width: Width,
        expected: u64,
        new: u64,
    ) -> Result<(), u64> {
        if offset & (width.bytes() - 1) == 0 {
            return self.compare_exchange(offset, width, expected, new);
        }
        let expected = width.zero_extend(expected);
        let found = self.exchange_misaligned(offset & PAGE_MASK, width, expected, new);
        if found == expected { Ok(()) } else { Err(found) }
    }

    #[cfg(target_arch = "x86_64")]
    fn exchange_misaligned(self, offset: u64, width: Width, expected: u64, new: u64) -> u64 {
        assert!(offset + width.bytes() <= PAGE_SIZE);
        let ptr = self.0.as_ptr().wrapping_add(offset as usize);
        let found: u64;
        macro_rules! exchange {
            ($insn:literal) => {
                // SAFETY: the bytes lie in a live page (the assertion above); one locked instruction accesses them.
                unsafe {
                    std::arch::asm!($insn, ptr = in(reg) ptr, new = in(reg) new,
                        inout("rax") expected => found, options(nostack));
                }
            };
        }
        match width {
            // A byte is always aligned.
            Width::Byte | Width::Half => exchange!("lock cmpxchg [{ptr}], {new:x}"),
            Width::Word => exchange!("lock cmpxchg [{ptr}], {new:e}"),
            Width::Double => exchange!("lock cmpxchg [{ptr}], {new:r}"),
        }
        width.zero_extend(found)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn exchange_misaligned(self, offset: u64, width: Width, expected: u64, new: u64) -> u64 {
        let found = self.load(offset, width);
        if found == expected {
            self.store(offset, width, new);
        }
        found
    }

    /// Compare-and-exchange of 16 aligned bytes, for CMPXCHG16B; on hosts other than x86-64 in two halves.
    ///
    /// # Errors
    /// The value found instead.
    ///
    /// # Panics
    /// If `offset` is unaligned: callers check first.
    pub fn compare_exchange_16(self, offset: u64, expected: u128, new: u128) -> Result<(), u128> {
        assert!(offset & 15 == 0, "unaligned access to a host page");
        let found = self.exchange_16(offset & PAGE_MASK, expected, new);
        if found == expected { Ok(()) } else { Err(found) }
    }

    #[cfg(target_arch = "x86_64")]
    fn exchange_16(self, offset: u64, expected: u128, new: u128) -> u128 {
        let ptr = self.0.as_ptr().wrapping_add(offset as usize);
        let (low, high): (u64, u64);
        // SAFETY: the bytes are aligned and lie in a live page; one locked instruction accesses them. RBX, which
        // the compiler keeps for itself, is put back.
        unsafe {
            std::arch::asm!(
                "xchg rbx, {new_low}",
                "lock cmpxchg16b [{ptr}]",
                "mov rbx, {new_low}",
                ptr = in(reg) ptr,
                new_low = inout(reg) new as u64 => _,
                in("rcx") (new >> 64) as u64,
                inout("rax") expected as u64 => low,
                inout("rdx") (expected >> 64) as u64 => high,
                options(nostack),
            );
        }
        u128::from(low) | u128::from(high) << 64
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn exchange_16(self, offset: u64, expected: u128, new: u128) -> u128 {
        let half = |at| u128::from(self.load(at, Width::Double));
        let found = half(offset) | half(offset + 8) << 64;
        if found == expected {
            self.store(offset, Width::Double, new as u64);
            self.store(offset + 8, Width::Double, (new >> 64) as u64);
        }
        found
    }

    /// Loads 16 bytes at an aligned offset: in one step on x86-64 hosts with AVX, elsewhere in two.
    ///
    /// # Panics
    /// If `offset` is unaligned: callers check first.
    #[must_use]
    pub fn load_16(self, offset: u64) -> [u64; 2] {
        assert!(offset & 15 == 0, "unaligned access to a host page");
        // SAFETY: the bytes are aligned, so they lie in this live page.
        unsafe { load_16(self.addr() + (offset & PAGE_MASK) as usize) }
    }

    /// Stores 16 bytes at an aligned offset, as [`load_16`](Self::load_16) loads them.
    ///
    /// # Panics
    /// As [`load_16`](Self::load_16).
    pub fn store_16(self, offset: u64, value: [u64; 2]) {
        assert!(offset & 15 == 0, "unaligned access to a host page");
        // SAFETY: as in `load_16`; the callers write to writable pages only.
        unsafe { store_16(self.addr() + (offset & PAGE_MASK) as usize, value) }
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
    /// Loads from a host address of any alignment.
    ///
    /// # Safety
    /// All bytes must lie in a live [`HostPage`].
    unsafe fn load_any(host: usize) -> Self;
    /// Stores to a host address of any alignment.
    ///
    /// # Safety
    /// As [`load_any`](Self::load_any), and the page must be writable.
    unsafe fn store_any(self, host: usize);
    /// Zero-extends to 64 bits.
    fn widen(self) -> u64;
    /// The low bits of `value`.
    fn narrow(value: u64) -> Self;
}

macro_rules! cell {
    ($ty:ty, $atomic:ty, $width:expr, $class:ident, $load:literal, $store:literal) => {
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
            #[cfg(target_arch = "x86_64")]
            #[inline(always)]
            unsafe fn load_any(host: usize) -> Self {
                let value: $ty;
                // SAFETY: the caller's promise; an assembler's load, because the memory is shared.
                unsafe {
                    std::arch::asm!($load, host = in(reg) host, value = out($class) value,
                        options(nostack, preserves_flags, readonly));
                }
                value
            }
            #[cfg(target_arch = "x86_64")]
            #[inline(always)]
            unsafe fn store_any(self, host: usize) {
                // SAFETY: the caller's promise; an assembler's store, because the memory is shared.
                unsafe {
                    std::arch::asm!($store, host = in(reg) host, value = in($class) self,
                        options(nostack, preserves_flags));
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            unsafe fn load_any(host: usize) -> Self {
                (0..size_of::<Self>()).fold(0, |value, i| {
                    // SAFETY: the caller's promise, for each byte.
                    let byte = unsafe { <u8 as Cell>::load(host.wrapping_add(i)) };
                    value | <$ty>::from(byte) << (8 * i)
                })
            }
            #[cfg(not(target_arch = "x86_64"))]
            unsafe fn store_any(self, host: usize) {
                for (i, byte) in self.to_le_bytes().into_iter().enumerate() {
                    // SAFETY: the caller's promise, for each byte.
                    unsafe { Cell::store(byte, host.wrapping_add(i)) };
                }
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
cell!(u8, AtomicU8, Width::Byte, reg_byte, "mov {value}, [{host}]", "mov [{host}], {value}");
cell!(u16, AtomicU16, Width::Half, reg, "mov {value:x}, [{host}]", "mov [{host}], {value:x}");
cell!(u32, AtomicU32, Width::Word, reg, "mov {value:e}, [{host}]", "mov [{host}], {value:e}");
cell!(u64, AtomicU64, Width::Double, reg, "mov {value:r}, [{host}]", "mov [{host}], {value:r}");

/// Loads 16 bytes from a host address of any alignment.
///
/// # Safety
/// All bytes must lie in a live [`HostPage`].
#[inline(always)]
pub(crate) unsafe fn load_pair(host: usize) -> [u64; 2] {
    #[cfg(target_arch = "x86_64")]
    {
        let pair: std::arch::x86_64::__m128i;
        // SAFETY: the caller's promise; an assembler's load, because the memory is shared.
        unsafe {
            std::arch::asm!("movdqu {pair}, [{host}]", host = in(reg) host, pair = out(xmm_reg) pair,
                options(nostack, preserves_flags, readonly));
        }
        bytemuck::cast(pair)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // SAFETY: the caller's promise, for each half.
        [0, 8].map(|at| unsafe { u64::load_any(host.wrapping_add(at)) })
    }
}

/// Stores 16 bytes to a host address of any alignment.
///
/// # Safety
/// As [`load_pair`], and the page must be writable.
#[inline(always)]
pub(crate) unsafe fn store_pair(host: usize, pair: [u64; 2]) {
    #[cfg(target_arch = "x86_64")]
    {
        let pair: std::arch::x86_64::__m128i = bytemuck::cast(pair);
        // SAFETY: the caller's promise; an assembler's store, because the memory is shared.
        unsafe {
            std::arch::asm!("movdqu [{host}], {pair}", host = in(reg) host, pair = in(xmm_reg) pair,
                options(nostack, preserves_flags));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (at, half) in [0, 8].into_iter().zip(pair) {
        // SAFETY: the caller's promise, for each half.
        unsafe { half.store_any(host.wrapping_add(at)) };
    }
}

/// Copies bytes upwards.
///
/// # Safety
/// All bytes must lie in live [`HostPage`]s, `to` in a writable one, and not within 64 bytes above `from`.
#[inline(always)]
unsafe fn copy_up(from: usize, to: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise; an assembler's copy, because the memory is shared.
    unsafe {
        std::arch::asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") len => _,
            options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    for at in 0..len {
        // SAFETY: the caller's promise, for each byte.
        unsafe { Cell::store(<u8 as Cell>::load(from.wrapping_add(at)), to.wrapping_add(at)) };
    }
}

/// Loads 16 bytes: in one step on hosts with AVX (SDM vol. 3, 9.1.1; AMD's manual vol. 2, 7.3.2, says the same).
///
/// # Safety
/// `host` must be aligned to 16 bytes and lie in a live [`HostPage`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn load_16(host: usize) -> [u64; 2] {
    let value: std::arch::x86_64::__m128i;
    // SAFETY: the caller's promise; an assembler's load, because the memory is shared.
    unsafe {
        std::arch::asm!("movdqa {value}, [{host}]", host = in(reg) host, value = out(xmm_reg) value,
            options(nostack, preserves_flags, readonly));
    }
    // SAFETY: both are 16 bytes in which every pattern is a value.
    unsafe { std::mem::transmute(value) }
}

/// Stores 16 bytes, as [`load_16`] loads them.
///
/// # Safety
/// As [`load_16`], and the page must be writable.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn store_16(host: usize, value: [u64; 2]) {
    // SAFETY: both are 16 bytes in which every pattern is a value.
    let value: std::arch::x86_64::__m128i = unsafe { std::mem::transmute(value) };
    // SAFETY: the caller's promise; an assembler's store, because the memory is shared.
    unsafe {
        std::arch::asm!("movdqa [{host}], {value}", host = in(reg) host, value = in(xmm_reg) value,
            options(nostack, preserves_flags));
    }
}

/// Loads 16 bytes, in two steps.
///
/// # Safety
/// `host` must be aligned to 16 bytes and lie in a live [`HostPage`].
#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn load_16(host: usize) -> [u64; 2] {
    // SAFETY: the caller's promise.
    unsafe { [<u64 as Cell>::load(host), <u64 as Cell>::load(host + 8)] }
}

/// Stores 16 bytes, in two steps.
///
/// # Safety
/// As [`load_16`], and the page must be writable.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn store_16(host: usize, value: [u64; 2]) {
    for (at, word) in [host, host + 8].into_iter().zip(value) {
        // SAFETY: the caller's promise.
        unsafe { Cell::store(word, at) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[repr(align(4096))]
    #[expect(dead_code, reason = "reached through the host address alone")]
    struct Page([u8; 4096]);

    fn host_page() -> HostPage {
        let page = Box::leak(Box::new(Page([0; 4096])));
        // SAFETY: leaked, page-aligned by its type, not referenced otherwise.
        unsafe { HostPage::new(NonNull::from(page).cast()) }
    }

    /// What one thread stores, the other one sees as a whole: up to eight bytes inside a cache line, aligned or not, and
    /// sixteen aligned ones where the host promises that.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn accesses_are_whole() {
        const ROUNDS: u64 = 200_000;
        let page = host_page();
        let stop = AtomicBool::new(false);
        let avx = std::arch::is_x86_feature_detected!("avx");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    page.store(0x40, Width::Double, round * 0x1_0000_0001);
                    page.store(0x83, Width::Double, round * 0x1_0000_0001);
                    page.store(0xc5, Width::Word, (round & 0xffff) * 0x1_0001);
                    page.store_16(0x100, [round, round]);
                }
                stop.store(true, Ordering::SeqCst);
            });
            while !stop.load(Ordering::SeqCst) {
                for offset in [0x40, 0x83] {
                    let value = page.load(offset, Width::Double);
                    assert_eq!(value >> 32, value & 0xffff_ffff, "{offset:#x}");
                }
                let value = page.load(0xc5, Width::Word);
                assert_eq!(value >> 16, value & 0xffff);
                let [low, high] = page.load_16(0x100);
                assert!(low == high || !avx, "{low:#x} {high:#x}");
            }
        });
    }

    /// Misaligned exchanges of two threads, inside a line and across two, lose nothing.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn misaligned_exchanges_lose_nothing() {
        const ROUNDS: u64 = 2_000;
        let page = host_page();
        let count = || {
            for offset in [0x41, 0xbd] {
                for _ in 0..ROUNDS {
                    let mut old = page.load(offset, Width::Double);
                    while let Err(found) =
                        page.compare_exchange_any(offset, Width::Double, old, old + 1)
                    {
                        old = found;
                    }
                }
            }
        };
        std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(count))));
        assert_eq!([0x41, 0xbd].map(|at| page.load(at, Width::Double)), [2 * ROUNDS; 2]);
    }
}
