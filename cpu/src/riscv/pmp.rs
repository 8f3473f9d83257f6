//! Physical memory protection (privileged, 3.7): 16 entries, granularity 4 bytes.

use serde::{Deserialize, Serialize};

use super::hart::Mode;
use super::mmu::Access;

/// Number of entries.
pub const ENTRIES: usize = 16;
const LOCK: u8 = 0x80;
const MODE: u8 = 0x18;
const TOR: u8 = 0x08;
const NA4: u8 = 0x10;
const NAPOT: u8 = 0x18;
/// `pmpaddr` holds bits 55:2 of an address.
const ADDR_MASK: u64 = (1 << 54) - 1;

/// What the entries say about a range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every byte may be accessed.
    Allowed,
    /// The access fails.
    Denied,
}

/// A range of memory about which the entries say the same everywhere, and nothing else of accesses that
/// lie in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    first: u64,
    last: u64,
    /// R, W and X as in `pmpcfg`, for M-mode and for the others.
    machine: u8,
    other: u8,
}

impl Region {
    /// No range at all.
    pub const NONE: Region = Region { first: 1, last: 0, machine: 0, other: 0 };

    /// Whether all of `len` bytes (at least one) at `gpa` lie in the range.
    #[inline]
    #[must_use]
    pub fn holds(&self, gpa: u64, len: u64) -> bool {
        gpa >= self.first && gpa.saturating_add(len - 1) <= self.last
    }

    /// Whether `mode` may make `access` in the range.
    #[inline]
    #[must_use]
    pub fn allows(&self, access: Access, mode: Mode) -> bool {
        let rights = if mode == Mode::M { self.machine } else { self.other };
        rights & needed(access) != 0
    }
}

/// The permission bit of `pmpcfg` for an access.
fn needed(access: Access) -> u8 {
    match access {
        Access::Load => 1,
        Access::Store => 2,
        Access::Fetch => 4,
    }
}

/// The PMP registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pmp {
    cfg: [u8; ENTRIES],
    addr: [u64; ENTRIES],
    /// Entries that match something; nothing is checked when there are none.
    active: usize,
}

impl Pmp {
    /// The `pmpcfg` register number `index` (even numbers only exist on RV64).
    #[must_use]
    pub fn read_cfg(&self, index: usize) -> u64 {
        let mut bytes = [0; 8];
        if let Some(cfg) = self.cfg.get(index * 4..index * 4 + 8) {
            bytes.copy_from_slice(cfg);
        }
        u64::from_le_bytes(bytes)
    }

    /// Writes `pmpcfg` register number `index`; locked entries and the reserved combination R=0 W=1
    /// keep their old value.
    pub fn write_cfg(&mut self, index: usize, value: u64) {
        let Some(cfg) = self.cfg.get_mut(index * 4..index * 4 + 8) else { return };
        for (old, new) in cfg.iter_mut().zip(value.to_le_bytes()) {
            if *old & LOCK == 0 && new & 3 != 2 {
                *old = new & 0x9f;
            }
        }
        self.active = self.cfg.iter().filter(|cfg| *cfg & MODE != 0).count();
    }

    /// The `pmpaddr` register number `index`.
    #[must_use]
    pub fn read_addr(&self, index: usize) -> u64 {
        self.addr.get(index).copied().unwrap_or(0)
    }

    /// Writes `pmpaddr` register number `index`, unless it or the TOR range above it is locked.
    pub fn write_addr(&mut self, index: usize, value: u64) {
        let above = self.cfg.get(index + 1).copied().unwrap_or(0);
        let locked = |cfg: u8| cfg & LOCK != 0;
        if self.cfg.get(index).is_some_and(|&cfg| !locked(cfg))
            && !(locked(above) && above & MODE == TOR)
        {
            self.addr[index] = value & ADDR_MASK;
        }
    }

    /// Whether every field holds what writes could have put there: for entries that come from a file.
    pub(super) fn is_legal(&self) -> bool {
        let Pmp { cfg, addr, active } = self;
        cfg.iter().all(|cfg| cfg & !0x9f == 0 && cfg & 3 != 2)
            && addr.iter().all(|addr| addr & !ADDR_MASK == 0)
            && *active == cfg.iter().filter(|cfg| *cfg & MODE != 0).count()
    }

    /// First and last byte an entry matches, if it matches any.
    fn range(&self, index: usize) -> Option<(u64, u64)> {
        let addr = self.addr[index];
        match self.cfg[index] & MODE {
            TOR => {
                let base = if index == 0 { 0 } else { self.addr[index - 1] };
                (base < addr).then(|| (base << 2, (addr << 2) - 1))
            }
            NA4 => Some((addr << 2, (addr << 2) + 3)),
            NAPOT => {
                let ones = addr.trailing_ones();
                let size = 8u64 << ones.min(54);
                let base = (addr << 2) & !(size - 1);
                Some((base, base.saturating_add(size - 1)))
            }
            _ => None,
        }
    }

    /// Whether `mode` may make `access` to all of `len` bytes at `gpa`: the lowest-numbered entry that
    /// matches any of the bytes decides, and must match all of them.
    #[must_use]
    pub fn check(&self, gpa: u64, len: u64, access: Access, mode: Mode) -> Verdict {
        if self.active == 0 && mode == Mode::M {
            return Verdict::Allowed;
        }
        let last = gpa.saturating_add(len - 1);
        for index in 0..ENTRIES {
            let Some((first_match, last_match)) = self.range(index) else { continue };
            if last < first_match || gpa > last_match {
                continue;
            }
            if gpa < first_match || last > last_match {
                return Verdict::Denied;
            }
            let cfg = self.cfg[index];
            let free_for_m = mode == Mode::M && cfg & LOCK == 0;
            return if free_for_m || cfg & needed(access) != 0 {
                Verdict::Allowed
            } else {
                Verdict::Denied
            };
        }
        // No entry matches: M-mode may, others may not (16 entries are implemented).
        if mode == Mode::M { Verdict::Allowed } else { Verdict::Denied }
    }

    /// The range around `gpa` about which the entries say the same.
    #[must_use]
    pub fn region(&self, gpa: u64) -> Region {
        let mut region = Region { first: 0, last: u64::MAX, machine: 7, other: 0 };
        for index in 0..ENTRIES {
            let Some((first, last)) = self.range(index) else { continue };
            if gpa > last {
                region.first = region.first.max(last.saturating_add(1));
            } else if gpa < first {
                region.last = region.last.min(first - 1);
            } else {
                region.first = region.first.max(first);
                region.last = region.last.min(last);
                region.other = self.cfg[index] & 7;
                region.machine = if self.cfg[index] & LOCK == 0 { 7 } else { region.other };
                break;
            }
        }
        region
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Allowed, Denied};

    #[test]
    fn without_entries_only_m_mode_may() {
        let pmp = Pmp::default();
        assert_eq!(pmp.check(0x8000_0000, 8, Access::Load, Mode::M), Allowed);
        assert_eq!(pmp.check(0x8000_0000, 8, Access::Load, Mode::S), Denied);
    }

    #[test]
    fn napot_tor_and_na4_match_their_ranges() {
        let mut pmp = Pmp::default();
        pmp.write_addr(0, (0x8000_0000 >> 2) | 0x1ff); // 4 KiB
        pmp.write_addr(1, 0x9000_0000 >> 2);
        pmp.write_addr(2, 0xa000_0000 >> 2);
        pmp.write_addr(3, 0xb000_0000 >> 2);
        pmp.write_cfg(0, 0x13_0f_00_19);
        assert_eq!(pmp.check(0x8000_0ff8, 8, Access::Load, Mode::S), Allowed);
        assert_eq!(pmp.check(0x8000_0ff8, 8, Access::Store, Mode::S), Denied);
        assert_eq!(pmp.check(0x8000_0ffc, 8, Access::Load, Mode::S), Denied, "partly covered");
        assert_eq!(pmp.check(0x9000_0000, 8, Access::Fetch, Mode::U), Allowed);
        assert_eq!(pmp.check(0xa000_0000, 8, Access::Fetch, Mode::U), Denied);
        assert_eq!(pmp.check(0xb000_0000, 4, Access::Load, Mode::U), Allowed);
        assert_eq!(pmp.check(0xb000_0004, 4, Access::Load, Mode::U), Denied);
        assert!(pmp.region(0x8000_0000).holds(0x8000_0000, 4096));
        assert!(!pmp.region(0xb000_0000).holds(0xb000_0000, 4096));
    }

    #[test]
    fn locked_entries_bind_m_mode_and_do_not_change() {
        let mut pmp = Pmp::default();
        pmp.write_addr(0, 0x8000_0000 >> 2);
        pmp.write_addr(1, 0x9000_0000 >> 2);
        pmp.write_cfg(0, 0x8900); // entry 1: locked TOR, R
        assert_eq!(pmp.check(0x8000_0000, 8, Access::Store, Mode::M), Denied);
        assert_eq!(pmp.check(0x8000_0000, 8, Access::Load, Mode::M), Allowed);
        pmp.write_addr(0, 0);
        pmp.write_addr(1, 0);
        pmp.write_cfg(0, 0);
        assert_eq!(pmp.read_addr(0), 0x8000_0000 >> 2, "bottom of a locked TOR range");
        assert_eq!(pmp.read_addr(1), 0x9000_0000 >> 2);
        assert_eq!(pmp.read_cfg(0), 0x8900);
    }

    #[test]
    fn the_reserved_combination_is_refused() {
        let mut pmp = Pmp::default();
        pmp.write_cfg(0, 0x1a);
        assert_eq!(pmp.read_cfg(0), 0);
    }
}
