//! Control instructions (Intel SDM volume 2: FINIT, FCLEX, FLDCW, FFREE, FINCSTP, FDECSTP) and the tag word.

use super::{B, C1, ES, EXCEPTIONS, SF, STATUS_KEPT, State, TOP_SHIFT};
use crate::softfloat::extended::Class;

/// The control word after FNINIT: everything masked, 64 bits, to nearest.
pub const INITIAL: u16 = 0x037f;
/// Bits of the control word that can be set: masks, precision, rounding, and the infinity control of the 287.
const CONTROL: u16 = 0x1f3f;
/// A bit of the control word that always reads as 1.
const CONTROL_SET: u16 = 0x0040;

impl State {
    /// FNINIT: registers keep their contents and become empty.
    pub fn fninit(&mut self) {
        *self = Self { regs: self.regs, ..Self::default() };
    }

    /// FNCLEX: no exception is pending; condition codes and TOP stay.
    pub fn fnclex(&mut self) {
        self.status &= !(EXCEPTIONS | SF | ES);
    }

    /// FLDCW. An exception already noted becomes pending if it is no longer masked, and the other way round.
    pub fn fldcw(&mut self, control: u16) {
        self.control = control & CONTROL | CONTROL_SET;
        self.summarise();
    }

    /// Masks all exceptions, as FNSTENV does after it has stored.
    pub fn mask_all(&mut self) {
        self.fldcw(self.control | EXCEPTIONS);
    }

    /// FFREE ST(i).
    #[inline]
    pub fn ffree(&mut self, i: u8) {
        self.status &= !C1;
        self.full &= !(1 << self.index(i));
    }

    /// FFREEP ST(i): FFREE and a pop (AMD APM volume 5 lists it as an undocumented alias of old).
    #[inline]
    pub fn ffreep(&mut self, i: u8) {
        self.ffree(i);
        self.pop();
    }

    /// FINCSTP.
    #[inline]
    pub fn fincstp(&mut self) {
        self.status &= !C1;
        self.top = (self.top + 1) & 7;
    }

    /// FDECSTP.
    #[inline]
    pub fn fdecstp(&mut self) {
        self.status &= !C1;
        self.top = self.top.wrapping_sub(1) & 7;
    }

    /// The full tag word: two bits a register from R0 up, valid 0, zero 1, special 2, empty 3 (Intel SDM volume 1, 8.1.7).
    pub fn tag_word(&self) -> u16 {
        self.regs.iter().enumerate().rev().fold(0, |word, (n, value)| {
            let tag = match value.class() {
                _ if self.full >> n & 1 == 0 => 3,
                Class::Normal => 0,
                Class::Zero => 1,
                _ => 2,
            };
            word << 2 | tag
        })
    }

    /// Loads the full tag word: processors look only at whether a register is empty.
    pub(super) fn load_tag_word(&mut self, word: u16) {
        self.full = (0..8).fold(0, |full, n| full | u32::from(word >> (2 * n) & 3 != 3) << n);
    }

    /// Loads control and status word; ES and B follow from what is noted and not masked.
    pub(super) fn load_words(&mut self, control: u16, status: u16) {
        self.top = (status >> TOP_SHIFT & 7) as u8;
        self.status = status & STATUS_KEPT;
        self.fldcw(control);
    }

    fn summarise(&mut self) {
        let pending = self.status & !self.control & EXCEPTIONS != 0;
        self.status = self.status & !(ES | B) | if pending { ES } else { 0 };
    }
}
