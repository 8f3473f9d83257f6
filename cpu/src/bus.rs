//! The seam between a CPU and the rest of the machine.

use crate::ram::HostPage;

/// Size of the pages in which RAM is handed to CPUs, in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// Mask of the offset inside a page.
pub const PAGE_MASK: u64 = PAGE_SIZE - 1;

/// Width of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes.
    Half,
    /// Four bytes.
    Word,
    /// Eight bytes.
    Double,
}

impl Width {
    /// The width in bytes: 1, 2, 4 or 8.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self as u64
    }

    /// The width in bits: 8, 16, 32 or 64.
    #[must_use]
    pub const fn bits(self) -> u32 {
        8 << self as u32
    }

    /// `value` with all bits above the width cleared.
    #[must_use]
    pub const fn zero_extend(self, value: u64) -> u64 {
        value & (u64::MAX >> (64 - self.bits()))
    }

    /// The lowest bits of `value`, sign-extended to 64 bits.
    #[must_use]
    pub const fn sign_extend(self, value: u64) -> u64 {
        let shift = 64 - self.bits();
        (((value << shift) as i64) >> shift) as u64
    }
}

/// The bus refused an access; what the guest sees of it is the CPU's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusFault;

/// What a CPU may do directly to a page of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageAccess {
    /// Reads only (ROM): stores are refused.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
    /// Reads and writes, but every store must be reported by [`CpuBus::watched_write`], so a
    /// CPU must not cache the right to write.
    Watched,
}

/// A page of guest RAM or ROM.
#[derive(Clone, Copy, Debug)]
pub struct RamPage {
    /// Where the page lies in the host.
    pub host: HostPage,
    /// What may be done with it.
    pub access: PageAccess,
}

/// What is asked of a hart by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Give up the right to write the page at this guest physical address: somebody reads code from it,
    /// or watches it for another reason.
    WriteProtect(u64),
    /// Forget every translation: a page of memory has become something else.
    FlushTranslations,
}

/// All that a CPU knows of the world. Addresses are guest physical, times are nanoseconds of guest
/// time. Every method may be called from any hart's thread.
pub trait CpuBus: Send + Sync {
    /// The page of RAM or ROM that holds `gpa`, or `None` where there is a device or nothing.
    fn ram_page(&self, gpa: u64) -> Option<RamPage>;

    /// Reads from a device.
    ///
    /// # Errors
    /// [`BusFault`] where nothing answers.
    fn read(&self, gpa: u64, width: Width) -> Result<u64, BusFault>;

    /// Writes to a device.
    ///
    /// # Errors
    /// [`BusFault`] where nothing answers.
    fn write(&self, gpa: u64, width: Width, value: u64) -> Result<(), BusFault>;

    /// Reports a store of `len` bytes that was just made into a [`PageAccess::Watched`] page.
    fn watched_write(&self, gpa: u64, len: u64);

    /// Declares that `hart` holds decoded code of the page at `gpa`. On return no other hart holds a
    /// write permission for that page; the calling hart drops its own.
    fn watch_code(&self, hart: usize, gpa: u64);

    /// Number of entries in the log of code pages that were written to after
    /// [`watch_code`](Self::watch_code); grows only.
    fn code_log_len(&self) -> u64;

    /// Pages (guest physical addresses) in the log from entry `from` on; `None` if the log does not reach
    /// back so far any more: then any page may have been written to.
    fn code_log(&self, from: u64) -> Option<Vec<u64>>;

    /// Whether what harts keep of memory must never be older than memory: a translation or decoded code ends
    /// with the store that makes it stale, not only with the guest's fence. Then nothing that a guest sees
    /// depends on what an engine happens to keep. So it is in deterministic machines, where all harts run on
    /// one thread; elsewhere the fences of the manual are what counts.
    ///
    /// In such a machine a store that calls the storing hart's attention is the last instruction before the
    /// hart looks at its requests and at the code log.
    fn coherent(&self) -> bool {
        false
    }

    /// In a [`coherent`](Self::coherent) machine: a translation was read from the page-table entry at `gpa`
    /// and may be kept until [`Request::FlushTranslations`] says that the entry was written to. The requests
    /// that this call itself puts to the calling hart must be applied before the hart's next store.
    fn watch_entry(&self, gpa: u64) {
        let _ = gpa;
    }

    /// Reports that a page-table walk has set A or D in the entry at `gpa`, in a
    /// [`PageAccess::Watched`] page. What was read from the entry before stays right.
    fn entry_updated(&self, gpa: u64) {
        self.watched_write(gpa, 8);
    }

    /// Takes what was asked of `hart` since the last call. The hart looks here whenever its attention is
    /// called, applies the requests before it executes anything else, and then calls
    /// [`requests_done`](Self::requests_done).
    fn take_requests(&self, hart: usize) -> Vec<Request>;

    /// Acknowledges the requests that were taken.
    fn requests_done(&self, hart: usize);

    /// The guest spins: lets others run, now or after some more calls.
    fn relax(&self);

    /// Guest time now, in nanoseconds.
    fn now(&self) -> u64;

    /// Asks for `hart`'s attention once guest time reaches `ns`; replaces the earlier request. `u64::MAX` asks
    /// for nothing.
    fn set_deadline(&self, hart: usize, ns: u64);
}
