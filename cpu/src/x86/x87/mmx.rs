//! MMX's view of the registers: MMn is the significand of Rn, whatever TOP (Intel SDM volume 1, 9.2; volume 3, 12.2).

use super::State;
use crate::softfloat::extended::F80;

impl State {
    /// What every MMX instruction but EMMS does to the unit: TOP becomes 0, no register is empty.
    #[inline]
    pub fn mmx_enter(&mut self) {
        self.top = 0;
        self.full = 0xff;
    }

    /// The contents of MMn; `n` counts modulo 8.
    #[inline]
    pub const fn mm(&self, n: u8) -> u64 {
        self.regs[(n & 7) as usize].sig
    }

    /// Writes MMn: the register's exponent and sign become ones.
    #[inline]
    pub fn set_mm(&mut self, n: u8, value: u64) {
        self.regs[usize::from(n & 7)] = F80 { sig: value, sign_exp: 0xffff };
    }

    /// EMMS: every register is empty.
    #[inline]
    pub fn emms(&mut self) {
        self.top = 0;
        self.full = 0;
    }
}
