//! Linear -> physical addresses: no paging, 32-bit, PAE, 4-level and 5-level paging (SDM vol. 3, chapter 5).

use crate::bus::{PAGE_MASK, PAGE_SIZE, PageAccess, Width};

use super::core::Core;
use super::fault::Fault;
use super::flags::bit;
use super::model::feature;
use super::state::{cr0, cr4, efer};

/// What is done to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Load.
    Read,
    /// Store.
    Write,
    /// Instruction fetch.
    Fetch,
}

/// With whose rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Of CPL 3.
    User,
    /// Of CPL 0 to 2.
    Supervisor,
    /// Of the processor itself: descriptor tables, TSS (SDM vol. 3, 5.6).
    Implicit,
}

/// The result of a successful translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Guest physical address of the byte.
    pub gpa: u64,
    /// Bytes the mapping covers: a power of two, at least a page.
    pub span: u64,
    /// Stores with the same rights would be allowed too, without changing the entry.
    pub writable: bool,
}

mod entry {
    pub(super) const P: u64 = 1;
    pub(super) const W: u64 = 1 << 1;
    pub(super) const U: u64 = 1 << 2;
    pub(super) const A: u64 = 1 << 5;
    pub(super) const D: u64 = 1 << 6;
    pub(super) const PS: u64 = 1 << 7;
    pub(super) const XD: u64 = 1 << 63;
    /// The physical address in an entry of 64 bits.
    pub(super) const ADDRESS: u64 = (1 << 52) - 1 & !0xfff;
}

/// Bits of a page fault's error code (SDM vol. 3, 5.7).
pub mod error {
    /// The page was present.
    pub const P: u32 = 1;
    /// A store.
    pub const W: u32 = 1 << 1;
    /// From CPL 3.
    pub const U: u32 = 1 << 2;
    /// A reserved bit was set.
    pub const RSVD: u32 = 1 << 3;
    /// An instruction fetch.
    pub const I: u32 = 1 << 4;
    /// A protection key.
    pub const PK: u32 = 1 << 5;
}

/// What the entries on the way to a page have said together, and those of upper levels: where each is and what it was.
struct Path {
    writable: bool,
    user: bool,
    executable: bool,
    upper: [(u64, u64); 4],
    depth: usize,
}

impl Path {
    fn new() -> Self {
        Path { writable: true, user: true, executable: true, upper: [(0, 0); 4], depth: 0 }
    }

    /// Adds what an entry says.
    fn restrict(&mut self, pte: u64) {
        self.writable &= pte & entry::W != 0;
        self.user &= pte & entry::U != 0;
        self.executable &= pte & entry::XD == 0;
    }

    /// Goes below an entry: it is marked as accessed once the whole translation has succeeded. The 80386 left A alone
    /// when a page fault came of it, and software that checks this still exists; SDM vol. 3, 5.8 leaves it open.
    fn descend(&mut self, at: u64, pte: u64) {
        self.upper[self.depth] = (at, pte);
        self.depth += 1;
    }
}

/// Accesses to data that a protection key denies.
#[derive(Clone, Copy, Default)]
struct Denied {
    read: bool,
    write: bool,
}

/// Somebody changed the entry during the walk.
struct Changed;

impl Core {
    /// Whether `lin` is canonical.
    #[inline]
    #[must_use]
    pub fn is_canonical(&self, lin: u64) -> bool {
        let bits = if self.cpu.cr4 & cr4::LA57 != 0 { 57 } else { 48 };
        let shift = 64 - bits;
        ((lin << shift) as i64 >> shift) as u64 == lin
    }

    /// Whether `lin` may become the base of a segment or a table, or the value of a register that holds an address: what
    /// counts is what the processor could translate, whether CR4.LA57 is set or not (SDM vol. 1, 3.3.7.1).
    #[must_use]
    pub fn is_canonical_base(&self, lin: u64) -> bool {
        let bits = if self.cpu.model.has(feature::LA57) { 57 } else { 48 };
        let shift = 64 - bits;
        ((lin << shift) as i64 >> shift) as u64 == lin
    }

    /// The rights of instructions' own accesses.
    #[inline]
    #[must_use]
    pub fn own_rights(&self) -> Rights {
        if self.cpu.cpl == 3 { Rights::User } else { Rights::Supervisor }
    }

    /// Translates `lin` (canonical), setting A and D.
    ///
    /// # Errors
    /// The page fault.
    pub fn translate(
        &mut self,
        lin: u64,
        access: Access,
        who: Rights,
    ) -> Result<Translation, Fault> {
        if self.cpu.cr0 & cr0::PG == 0 {
            return Ok(Translation { gpa: lin & self.lin_mask, span: PAGE_SIZE, writable: true });
        }
        let found = loop {
            let walk = if self.cpu.cr4 & cr4::PAE == 0 {
                self.walk32(lin, access, who)
            } else {
                self.walk64(lin, access, who)
            };
            match walk {
                Ok(Ok(to)) => break Ok(to),
                Ok(Err(Changed)) => {}
                Err(error) => break Err(self.page_fault(lin, access, who, error)),
            }
        };
        if self.coherent && self.signals.needs_attention() {
            // Page tables that are watched from now on are not written unnoticed any more.
            self.apply_requests();
        }
        found
    }

    fn page_fault(&self, lin: u64, access: Access, who: Rights, mut error: u32) -> Fault {
        let tells_fetch = self.cpu.cr4 & cr4::SMEP != 0 || self.nx();
        match access {
            Access::Write => error |= error::W,
            Access::Fetch if tells_fetch => error |= error::I,
            _ => {}
        }
        if who == Rights::User {
            error |= error::U;
        }
        Fault::page(error, lin)
    }

    fn nx(&self) -> bool {
        self.cpu.efer & efer::NXE != 0 && self.cpu.cr4 & cr4::PAE != 0
    }

    /// PAE, 4-level and 5-level paging: entries of 64 bits, 9 bits of the address each.
    fn walk64(
        &mut self,
        lin: u64,
        access: Access,
        who: Rights,
    ) -> Result<Result<Translation, Changed>, u32> {
        let long = self.cpu.efer & efer::LMA != 0;
        let mut path = Path::new();
        let (mut level, mut table) = match (long, self.cpu.cr4 & cr4::LA57 != 0) {
            (true, true) => (4, self.cpu.cr3),
            (true, false) => (3, self.cpu.cr3),
            (false, _) => {
                // The four entries were loaded with CR3.
                let entry = self.cpu.pdpte[(lin >> 30 & 3) as usize];
                if entry & entry::P == 0 {
                    return Err(0);
                }
                (1, entry)
            }
        };
        loop {
            let shift = 12 + 9 * level;
            let at = (table & entry::ADDRESS) + (lin >> shift & 0x1ff) * 8;
            let pte = self.entry(at, Width::Double);
            if pte & entry::P == 0 {
                return Err(0);
            }
            // Bits 52 to 62 are ignored in IA-32e mode and reserved in PAE paging.
            let mut reserved = self.cpu.model.beyond() | if long { 0 } else { 0x7ff << 52 };
            if !self.nx() {
                reserved |= entry::XD;
            }
            let large = level > 0 && pte & entry::PS != 0;
            if large {
                let allowed =
                    level == 1 || level == 2 && long && self.cpu.model.has(feature::PDPE1GB);
                // Bit 12 of a large page is its PAT bit.
                reserved |= if allowed { (1 << shift) - (1 << 13) } else { entry::PS };
            }
            if pte & reserved != 0 {
                return Err(error::P | error::RSVD);
            }
            path.restrict(pte);
            if level == 0 || large {
                let span = 1u64 << shift;
                let page = pte & entry::ADDRESS & !(span - 1);
                return self.leaf(
                    lin,
                    access,
                    who,
                    &path,
                    Leaf { at, pte, width: Width::Double, page, span },
                );
            }
            path.descend(at, pte);
            level -= 1;
            table = pte;
        }
    }

    /// 32-bit paging: entries of 32 bits, 10 bits of the address each; 4 MiB pages with PSE.
    fn walk32(
        &mut self,
        lin: u64,
        access: Access,
        who: Rights,
    ) -> Result<Result<Translation, Changed>, u32> {
        let at = (self.cpu.cr3 & 0xffff_f000) + (lin >> 22 & 0x3ff) * 4;
        let pde = self.entry(at, Width::Word);
        if pde & entry::P == 0 {
            return Err(0);
        }
        let mut path = Path::new();
        path.restrict(pde);
        if pde & entry::PS != 0 && self.cpu.cr4 & cr4::PSE != 0 {
            // PSE-36: bits 13 to 20 are bits 32 to 39 of the address, as far as it goes; the others up to 21 are
            // reserved (SDM vol. 3, table 5-4).
            let high = self.cpu.model.phys_bits().min(40) - 32;
            if pde >> 13 & 0x1ff & !((1 << high) - 1) != 0 {
                return Err(error::P | error::RSVD);
            }
            let page = pde & 0xffc0_0000 | (pde >> 13 & 0xff) << 32;
            let leaf = Leaf { at, pte: pde, width: Width::Word, page, span: 1 << 22 };
            return self.leaf(lin, access, who, &path, leaf);
        }
        path.descend(at, pde);
        let at = (pde & 0xffff_f000) + (lin >> 12 & 0x3ff) * 4;
        let pte = self.entry(at, Width::Word);
        if pte & entry::P == 0 {
            return Err(0);
        }
        path.restrict(pte);
        let leaf = Leaf { at, pte, width: Width::Word, page: pte & 0xffff_f000, span: PAGE_SIZE };
        self.leaf(lin, access, who, &path, leaf)
    }

    fn leaf(
        &mut self,
        lin: u64,
        access: Access,
        who: Rights,
        path: &Path,
        leaf: Leaf,
    ) -> Result<Result<Translation, Changed>, u32> {
        let by_key = self.key_denies(who, path, leaf.pte);
        let key_fault = match access {
            Access::Read => by_key.read,
            Access::Write => by_key.write,
            // Code may be fetched whatever its key says.
            Access::Fetch => false,
        };
        let pk = if key_fault { error::PK } else { 0 };
        let permitted = self.permitted(access, who, path).filter(|_| !key_fault);
        let Some(writable) = permitted else { return Err(error::P | pk) };
        let writable = writable && !by_key.write;
        for &(at, pte) in &path.upper[..path.depth] {
            if self.mark(at, leaf.width, pte, entry::A).is_err() {
                return Ok(Err(Changed));
            }
        }
        let marks = entry::A | if access == Access::Write { entry::D } else { 0 };
        if self.mark(leaf.at, leaf.width, leaf.pte, marks).is_err() {
            return Ok(Err(Changed));
        }
        Ok(Ok(Translation {
            gpa: leaf.page | lin & (leaf.span - 1),
            span: leaf.span,
            writable: writable && (leaf.pte | marks) & entry::D != 0,
        }))
    }

    /// Whether an access is permitted; if so, whether stores would be, too (SDM vol. 3, 5.6.1).
    fn permitted(&self, access: Access, who: Rights, path: &Path) -> Option<bool> {
        let writable = path.writable || who != Rights::User && self.cpu.cr0 & cr0::WP == 0;
        let smap = self.cpu.cr4 & cr4::SMAP != 0;
        let data = match who {
            Rights::User => path.user,
            Rights::Supervisor => !path.user || !smap || self.has_flag(bit::AC),
            Rights::Implicit => !path.user || !smap,
        };
        let permitted = match access {
            Access::Read => data,
            Access::Write => data && writable,
            Access::Fetch => {
                let smep = self.cpu.cr4 & cr4::SMEP != 0;
                let whose = if who == Rights::User { path.user } else { !path.user || !smep };
                whose && (path.executable || !self.nx())
            }
        };
        permitted.then_some(writable)
    }

    /// What the protection key of a page denies (SDM vol. 3, 5.6.2).
    fn key_denies(&self, who: Rights, path: &Path, pte: u64) -> Denied {
        let (enabled, register) =
            if path.user { (cr4::PKE, self.cpu.pkru) } else { (cr4::PKS, self.cpu.msr.pkrs) };
        if self.cpu.cr4 & enabled == 0 || !self.long_mode() {
            return Denied::default();
        }
        let bits = register >> (2 * (pte >> 59 & 0xf));
        let read = bits & 1 != 0;
        let protected = who == Rights::User || self.cpu.cr0 & cr0::WP != 0;
        Denied { read, write: read || bits & 2 != 0 && protected }
    }

    /// Reads the paging-structure entry at `at`.
    fn entry(&self, at: u64, width: Width) -> u64 {
        match self.bus.ram_page(at) {
            Some(page) => page.host.load(at, width),
            None => self.bus.read(at, width).unwrap_or(width.zero_extend(u64::MAX)),
        }
    }

    /// Sets `marks` in the entry at `at`, which was `pte`.
    fn mark(&mut self, at: u64, width: Width, pte: u64, marks: u64) -> Result<(), Changed> {
        if pte & marks != marks
            && let Some(page) = self.bus.ram_page(at)
            && page.access != PageAccess::ReadOnly
        {
            if page.host.compare_exchange(at, width, pte, pte | marks).is_err() {
                return Err(Changed);
            }
            if page.access == PageAccess::Watched {
                self.bus.entry_updated(at & !7);
            }
        }
        self.bus.watch_entry(at & !7);
        Ok(())
    }

    /// Loads the four page-directory-pointer-table entries of PAE paging for a new CR3 (SDM vol. 3, 5.4.1).
    ///
    /// # Errors
    /// A reserved bit is set: #GP.
    pub fn load_pdptes(&mut self, cr3: u64) -> Result<(), super::fault::Stop> {
        let reserved = 0xfff0_0000_0000_01e6 | self.cpu.model.beyond();
        let table = cr3 & 0xffff_ffe0;
        let entries = [0, 1, 2, 3].map(|i| self.entry(table + 8 * i, Width::Double));
        if entries.iter().any(|entry| entry & entry::P != 0 && entry & reserved != 0) {
            return Err(self.gp(0));
        }
        self.cpu.pdpte = entries;
        Ok(())
    }
}

/// The entry that names the page.
struct Leaf {
    at: u64,
    pte: u64,
    width: Width,
    page: u64,
    span: u64,
}

const _: () = assert!(PAGE_MASK == 0xfff);
