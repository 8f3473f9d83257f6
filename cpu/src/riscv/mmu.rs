//! Address translation: Sv39, Sv48 and Sv57 page-table walks with Svnapot, Svpbmt, Svade and Svadu
//! (privileged, 10.3 to 10.6, chapters 11 to 15).

use crate::bus::{CpuBus, PAGE_MASK, PAGE_SIZE, PageAccess, RamPage, Width};

use super::csr::fields::{envcfg, mstatus};
use super::hart::{Hart, Mode};
use super::pmp::Verdict;
use super::trap::{Cause, Trap};
use super::walks::{Walk, WalkCache};

/// What is done to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Instruction fetch.
    Fetch,
    /// Load.
    Load,
    /// Store or AMO.
    Store,
}

impl Access {
    /// The page fault of this kind of access at `va`.
    #[must_use]
    pub fn page_fault(self, va: u64) -> Trap {
        let cause = match self {
            Access::Fetch => Cause::InstructionPageFault,
            Access::Load => Cause::LoadPageFault,
            Access::Store => Cause::StorePageFault,
        };
        Trap { cause, tval: va }
    }

    /// The access fault of this kind of access at `va`.
    #[must_use]
    pub fn access_fault(self, va: u64) -> Trap {
        let cause = match self {
            Access::Fetch => Cause::InstructionAccess,
            Access::Load => Cause::LoadAccess,
            Access::Store => Cause::StoreAccess,
        };
        Trap { cause, tval: va }
    }
}

const PTE_V: u64 = 1;
const PTE_R: u64 = 1 << 1;
const PTE_W: u64 = 1 << 2;
const PTE_X: u64 = 1 << 3;
const PTE_U: u64 = 1 << 4;
const PTE_G: u64 = 1 << 5;
const PTE_A: u64 = 1 << 6;
const PTE_D: u64 = 1 << 7;
const PTE_PPN_SHIFT: u32 = 10;
const PTE_PPN: u64 = (1 << 44) - 1;
const PTE_RESERVED: u64 = 0x7f << 54;
const PTE_PBMT_SHIFT: u32 = 61;
const PTE_PBMT: u64 = 3 << PTE_PBMT_SHIFT;
const PTE_N: u64 = 1 << 63;

/// The result of a successful translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Guest physical address of the byte.
    pub gpa: u64,
    /// Bytes the mapping covers: a power of two, at least a page.
    pub span: u64,
    /// Loads of the same mode would be allowed too.
    pub readable: bool,
    /// Stores of the same mode would be allowed too, without changing the entry.
    pub writable: bool,
    /// The lowest eight bits of the leaf entry; 0 where addresses are not translated.
    pub(super) bits: u8,
}

impl Translation {
    /// Whether the mapping is in every address space.
    #[must_use]
    pub fn is_global(&self) -> bool {
        u64::from(self.bits) & PTE_G != 0
    }
}

impl Hart {
    /// Whether addresses are translated in `mode`, and by how many levels.
    fn levels(&self, mode: Mode) -> Option<u32> {
        match (mode, self.satp >> 60) {
            (Mode::M, _) => None,
            (_, 8) => Some(3),
            (_, 9) => Some(4),
            (_, 10) => Some(5),
            _ => None,
        }
    }

    /// Translates `va` for `access` made with the permissions of `mode`, updating A and D bits when
    /// Svadu is enabled.
    ///
    /// # Errors
    /// The page fault or access fault to take.
    pub fn translate(
        &self,
        bus: &dyn CpuBus,
        va: u64,
        access: Access,
        mode: Mode,
    ) -> Result<Translation, Trap> {
        let Some(levels) = self.levels(mode) else {
            // Wider than any physical address: nothing can be there.
            return if va >> 56 == 0 {
                Ok(Translation {
                    gpa: va,
                    span: PAGE_SIZE,
                    readable: true,
                    writable: true,
                    bits: 0,
                })
            } else {
                Err(access.access_fault(va))
            };
        };
        let unused = 64 - (12 + 9 * levels);
        if ((va << unused) as i64 >> unused) as u64 != va {
            return Err(access.page_fault(va));
        }
        loop {
            if let Some(translation) = self.walk(bus, va, access, mode, levels)? {
                return Ok(translation);
            }
            // Somebody else changed the entry between reading and updating it: walk again.
        }
    }

    /// The guest physical address that `va` has in the hart's present address space, whatever the
    /// permissions: for debuggers. Changes nothing, no A bit either.
    #[must_use]
    pub fn peek(&self, bus: &dyn CpuBus, va: u64) -> Option<u64> {
        let Some(levels) = self.levels(self.mode) else { return Some(va) };
        let unused = 64 - (12 + 9 * levels);
        if ((va << unused) as i64 >> unused) as u64 != va {
            return None;
        }
        let mut table = (self.satp & PTE_PPN) * PAGE_SIZE;
        for level in (0..levels).rev() {
            let entry_gpa = table + (va >> (12 + 9 * level) & 0x1ff) * 8;
            let pte = bus.ram_page(entry_gpa)?.host.load(entry_gpa, Width::Double);
            if pte & PTE_V == 0 {
                return None;
            }
            let base = (pte >> PTE_PPN_SHIFT & PTE_PPN) * PAGE_SIZE;
            if pte & (PTE_R | PTE_X) != 0 {
                let span = if pte & PTE_N == 0 { PAGE_SIZE << (9 * level) } else { 16 * PAGE_SIZE };
                return Some(base & !(span - 1) | va & (span - 1));
            }
            table = base;
        }
        None
    }

    fn walk(
        &self,
        bus: &dyn CpuBus,
        va: u64,
        access: Access,
        mode: Mode,
        levels: u32,
    ) -> Result<Option<Translation>, Trap> {
        let page_fault = Err(access.page_fault(va));
        let mut table = (self.satp & PTE_PPN) * PAGE_SIZE;
        for level in (0..levels).rev() {
            let entry_gpa = table + (va >> (12 + 9 * level) & 0x1ff) * 8;
            if self.pmp.check(entry_gpa, 8, Access::Load, Mode::S) == Verdict::Denied {
                return Err(access.access_fault(va));
            }
            let Some(page) = bus.ram_page(entry_gpa) else { return Err(access.access_fault(va)) };
            let pte = page.host.load(entry_gpa, Width::Double);
            if pte & PTE_V == 0 || pte & (PTE_R | PTE_W) == PTE_W || pte & PTE_RESERVED != 0 {
                return page_fault;
            }
            let ppn = pte >> PTE_PPN_SHIFT & PTE_PPN;
            if pte & (PTE_R | PTE_X) == 0 {
                // A pointer to the next level: A, D, U, N and PBMT must be clear.
                if pte & (PTE_A | PTE_D | PTE_U | PTE_PBMT | PTE_N) != 0 {
                    return page_fault;
                }
                table = ppn * PAGE_SIZE;
                bus.watch_entry(entry_gpa);
                continue;
            }
            return self.leaf(bus, va, access, mode, level, Leaf { pte, ppn, entry_gpa, page });
        }
        page_fault
    }

    fn leaf(
        &self,
        bus: &dyn CpuBus,
        va: u64,
        access: Access,
        mode: Mode,
        level: u32,
        leaf: Leaf,
    ) -> Result<Option<Translation>, Trap> {
        let page_fault = Err(access.page_fault(va));
        let Leaf { mut pte, mut ppn, entry_gpa, page } = leaf;
        let pbmt = pte >> PTE_PBMT_SHIFT & 3;
        if pbmt == 3 || pbmt != 0 && self.menvcfg & envcfg::PBMTE == 0 {
            return page_fault;
        }
        let Some(readable) = self.permitted(pte, access, mode) else { return page_fault };
        let mut span = PAGE_SIZE << (9 * level);
        let low_ppn = span / PAGE_SIZE - 1;
        if pte & PTE_N != 0 {
            // Svnapot: 64 KiB, encoded as 0b1000 in the low bits of the number; level 0 only.
            if level != 0 || ppn & 0xf != 8 {
                return page_fault;
            }
            span = 16 * PAGE_SIZE;
            ppn = ppn & !0xf | va >> 12 & 0xf;
        } else if ppn & low_ppn != 0 {
            return page_fault; // misaligned superpage
        } else {
            ppn |= va >> 12 & low_ppn;
        }
        let wanted = PTE_A | if access == Access::Store { PTE_D } else { 0 };
        if pte & wanted != wanted {
            if self.menvcfg & envcfg::ADUE == 0 {
                return page_fault; // Svade
            }
            if page.access == PageAccess::ReadOnly
                || self.pmp.check(entry_gpa, 8, Access::Store, Mode::S) == Verdict::Denied
            {
                return Err(access.access_fault(va));
            }
            let updated = pte | wanted;
            if page.host.compare_exchange(entry_gpa, Width::Double, pte, updated).is_err() {
                return Ok(None);
            }
            if page.access == PageAccess::Watched {
                bus.entry_updated(entry_gpa);
            }
            pte = updated;
        }
        bus.watch_entry(entry_gpa);
        Ok(Some(Translation {
            gpa: ppn * PAGE_SIZE | va & PAGE_MASK,
            span,
            readable,
            writable: pte & PTE_W != 0 && pte & PTE_D != 0,
            bits: pte as u8,
        }))
    }

    /// Whether a leaf entry permits an access with the permissions of `mode`; if so, whether loads would be
    /// permitted, too.
    fn permitted(&self, pte: u64, access: Access, mode: Mode) -> Option<bool> {
        let user_ok = match mode {
            Mode::U => pte & PTE_U != 0,
            _ => pte & PTE_U == 0 || access != Access::Fetch && self.mstatus & mstatus::SUM != 0,
        };
        let readable = pte & PTE_R != 0 || pte & PTE_X != 0 && self.mstatus & mstatus::MXR != 0;
        let permitted = match access {
            Access::Fetch => pte & PTE_X != 0,
            Access::Load => readable,
            Access::Store => pte & PTE_W != 0,
        };
        (user_ok && permitted).then_some(readable)
    }

    /// [`translate`](Self::translate), by a walk that was made before if there is one that tells all. A walk
    /// that would end in a fault is always made anew.
    ///
    /// # Errors
    /// As [`translate`](Self::translate).
    pub(super) fn translate_again(
        &self,
        walks: &mut WalkCache,
        bus: &dyn CpuBus,
        va: u64,
        access: Access,
        mode: Mode,
    ) -> Result<Translation, Trap> {
        if self.levels(mode).is_none() {
            return self.translate(bus, va, access, mode);
        }
        if let Some(walk) = walks.lookup(va, self.satp) {
            let pte = u64::from(walk.bits);
            if (access != Access::Store || pte & PTE_D != 0)
                && let Some(readable) = self.permitted(pte, access, mode)
            {
                return Ok(Translation {
                    gpa: walk.page | va & PAGE_MASK,
                    span: walk.span,
                    readable,
                    writable: pte & PTE_W != 0 && pte & PTE_D != 0,
                    bits: walk.bits,
                });
            }
        }
        let to = self.translate(bus, va, access, mode)?;
        walks.insert(
            va,
            self.satp,
            Walk { bits: to.bits, page: to.gpa & !PAGE_MASK, span: to.span },
        );
        Ok(to)
    }

    /// Checks PMP for an access of `len` bytes at `gpa`.
    ///
    /// # Errors
    /// The access fault to take, reported at `va`.
    pub fn protect(
        &self,
        gpa: u64,
        len: u64,
        va: u64,
        access: Access,
        mode: Mode,
    ) -> Result<(), Trap> {
        match self.pmp.check(gpa, len, access, mode) {
            Verdict::Allowed => Ok(()),
            Verdict::Denied => Err(access.access_fault(va)),
        }
    }
}

/// A leaf entry and where it was found.
struct Leaf {
    pte: u64,
    ppn: u64,
    entry_gpa: u64,
    page: RamPage,
}
