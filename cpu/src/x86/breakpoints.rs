//! The guest's breakpoints: DR0 to DR3, DR6 and DR7 (SDM vol. 3, 18.2 and 18.3).
//!
//! While one is enabled the run loop performs instructions one by one, and pages with watched data never enter the TLB,
//! so that every access to them comes by [`Core::meets_data`].

use crate::bus::{PAGE_MASK, PAGE_SIZE};

use super::core::Core;
use super::flags::bit;
use super::paging::Access;
use super::state::cr4;

/// Enabled breakpoints by kind, bit n for DRn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Breakpoints {
    pub(super) code: u8,
    write: u8,
    read_write: u8,
    port: u8,
    at: [u64; 4],
    len: [u64; 4],
}

impl Breakpoints {
    fn new(dr: &[u64; 8], ports: bool) -> Self {
        let mut all = Self::default();
        let dr7 = dr[7];
        for n in (0..4).filter(|n| dr7 >> (2 * n) & 3 != 0) {
            let len = match dr7 >> (18 + 4 * n) & 3 {
                0 => 1,
                1 => 2,
                2 => 8,
                _ => 4,
            };
            all.len[n] = len;
            all.at[n] = dr[n] & !(len - 1);
            let kind = match dr7 >> (16 + 4 * n) & 3 {
                0 => &mut all.code,
                1 => &mut all.write,
                2 if ports => &mut all.port,
                2 => continue,
                _ => &mut all.read_write,
            };
            *kind |= 1 << n;
        }
        all
    }

    pub(super) fn any(&self) -> bool {
        self.code | self.write | self.read_write | self.port != 0
    }

    /// Those of `among` that an access of `len` bytes touches.
    fn touched(&self, among: u8, at: u64, len: u64) -> u8 {
        (0..4)
            .filter(|n| among >> n & 1 != 0)
            .filter(|n| {
                let from = self.at[*n];
                from < at.saturating_add(len) && at < from.saturating_add(self.len[*n])
            })
            .fold(0, |all, n| all | 1 << n)
    }
}

impl Core {
    /// Follows a change of the debug registers, or of CR4.DE.
    pub(super) fn breakpoints_changed(&mut self) {
        let new = Breakpoints::new(&self.cpu.dr, self.cpu.cr4 & cr4::DE != 0);
        if new != self.breakpoints {
            self.breakpoints = new;
            self.flush_tlb();
        }
    }

    /// The enabled instruction breakpoints at `lin`.
    pub(super) fn meets_code(&self, lin: u64) -> u8 {
        self.breakpoints.touched(self.breakpoints.code, lin, 1)
    }

    /// Notes an access of the program to data. Whether the page may enter the TLB.
    pub(super) fn meets_data(&mut self, lin: u64, len: u64, access: Access) -> bool {
        let points = self.breakpoints;
        let data = points.write | points.read_write;
        let among = if access == Access::Write { data } else { points.read_write };
        self.met |= points.touched(among, lin, len);
        points.touched(data, lin & !PAGE_MASK, PAGE_SIZE) == 0
    }

    /// Whether each element of a repeated string instruction is followed by a look at traps (SDM vol. 3, 18.3.1.2 and
    /// 18.3.1.4).
    #[inline]
    pub(super) fn watches_elements(&self) -> bool {
        self.has_flag(bit::TF) || self.breakpoints.any()
    }

    /// Tells in DR6 what causes a debug exception. What it told of the four breakpoints is over; software clears the rest
    /// (SDM vol. 3, 18.2.3).
    pub(super) fn set_debug_status(&mut self, causes: u64) {
        let dr6 = &mut self.cpu.dr[6];
        *dr6 = *dr6 & !0xf | causes;
    }

    /// Notes an access to I/O ports.
    pub(super) fn meets_port(&mut self, port: u16, len: u64) {
        self.met |= self.breakpoints.touched(self.breakpoints.port, port.into(), len);
    }
}
