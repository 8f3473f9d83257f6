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
    /// [`watch_code`](Self::watch_code); grows only. The bus of x86 processors calls the attention of all of them
    /// when it has grown.
    fn code_log_len(&self) -> u64;

    /// Pages (guest physical addresses) in the log from entry `from` on; `None` if the log does not reach
    /// back so far any more: then any page may have been written to.
    fn code_log(&self, from: u64) -> Option<Vec<u64>>;

    /// From now on there is one hart more (`true`) or one less whose stores nobody reports, since the host's processor
    /// executes them as they are. While there is one, the log never reaches back: any page may have been written to.
    fn stores_unheard(&self, _more: bool) {}

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

    /// Does `work` while no other hart executes an instruction: what cannot be one step of the host is one for the
    /// guest. The other harts may have done something before `work` begins, but no translation of an address that
    /// `hart` may rely on has changed. `work` does not ask anything of other harts.
    fn alone(&self, hart: usize, work: &mut dyn FnMut()) {
        let _ = hart;
        work();
    }

    /// The guest spins: lets others run, now or after some more calls.
    fn relax(&self);

    /// Guest time now, in nanoseconds.
    fn now(&self) -> u64;

    /// Asks for `hart`'s attention once guest time reaches `ns`; replaces the earlier request. `u64::MAX` asks
    /// for nothing.
    fn set_deadline(&self, hart: usize, ns: u64);

    /// Reads from an I/O port (x86; SDM vol. 1, chapter 19). All ones where nothing answers.
    fn port_in(&self, hart: usize, port: u16, width: Width) -> u64 {
        let _ = (hart, port);
        width.zero_extend(u64::MAX)
    }

    /// Writes to an I/O port (x86).
    fn port_out(&self, hart: usize, port: u16, width: Width, value: u64) {
        let _ = (hart, port, width, value);
    }

    /// Acknowledges the interrupt that [`line::INTR`] announces: the vector of the one with the highest
    /// priority, which is in service from now on. `None` if the announcement was withdrawn meanwhile.
    fn acknowledge_interrupt(&self, hart: usize) -> Option<u8> {
        let _ = hart;
        None
    }

    /// The task priority (CR8) of the local interrupt controller of `hart`: 0 to 15.
    fn task_priority(&self, hart: usize) -> u8 {
        let _ = hart;
        0
    }

    /// Sets the task priority (CR8) of the local interrupt controller of `hart`.
    fn set_task_priority(&self, hart: usize, priority: u8) {
        let _ = (hart, priority);
    }

    /// Reads a model-specific register of the local interrupt controller of `hart` (`IA32_APIC_BASE`,
    /// `IA32_TSC_DEADLINE`, x2APIC registers 0x800 to 0x8ff).
    ///
    /// # Errors
    /// [`BusFault`] if there is no such register: #GP.
    fn interrupt_msr(&self, hart: usize, msr: u32) -> Result<u64, BusFault> {
        let _ = (hart, msr);
        Err(BusFault)
    }

    /// Writes a model-specific register of the local interrupt controller of `hart`.
    ///
    /// # Errors
    /// [`BusFault`] if there is no such register, or not that value: #GP.
    fn set_interrupt_msr(&self, hart: usize, msr: u32, value: u64) -> Result<(), BusFault> {
        let _ = (hart, msr, value);
        Err(BusFault)
    }

    /// The vector of the start-up message that [`line::STARTUP`] announces: `hart` starts at this page.
    fn startup_vector(&self, hart: usize) -> u8 {
        let _ = hart;
        0
    }
}

/// What the lines of [`Signals`](crate::signals::Signals) mean to an x86 processor.
pub mod line {
    /// A maskable interrupt is pending: a level.
    pub const INTR: u64 = 1;
    /// A non-maskable interrupt: an edge, the processor clears the line when it notices.
    pub const NMI: u64 = 1 << 1;
    /// INIT: an edge.
    pub const INIT: u64 = 1 << 2;
    /// Start-up (SIPI): an edge.
    pub const STARTUP: u64 = 1 << 3;
}
