//! x87: the floating-point unit (Intel SDM volume 1, chapter 8) and MMX's view of its registers (chapter 9).
//!
//! Pure operations on [`State`]: bytes in, bytes out, one method an instruction. Memory, decoding, CR0.EM/TS/MP/NE and the
//! delivery of #MF belong to the core, which does for each instruction:
//!
//! ```text
//! CR0.EM, CR0.TS -> #NM
//! a waiting instruction and State::pending -> #MF (or FERR# where CR0.NE is clear). All wait, MMX's too, but FNINIT, FNCLEX,
//!          FNSTCW, FNSTSW, FNSTENV, FNSAVE, FXSAVE, FXRSTOR, XSAVE, XRSTOR and their kin
//! a non-control instruction: State::pointers is set
//! load:    read memory -> x87.fld_m64(bits)
//! store:   let store = x87.fst_m64(); write store.value, if any -> x87.complete(&store, pops)
//! others:  x87.fmul... one call
//! ```
//!
//! A store is in two steps so that a page fault on its write leaves the state alone.
//!
//! An exception, once found, is a bit in the status word. A masked one has its default result; an unmasked one sets ES
//! ([`State::pending`]), and invalid, divide and denormal leave destination, stack and memory as they were
//! (Intel SDM volume 1, 8.4 and 8.5). Where manuals leave room, results are those of AMD's Zen 5, against which
//! `tests/x87_host.rs` compares every operation.
//!
//! XRSTOR's initial configuration is [`State::default`].
//!
//! Reading order: this file (registers, stack, exceptions), [`control`], `transfer`, [`arith`], `compare`,
//! [`transcendental`], [`image`] (FNSAVE, FXSAVE and the like), `mmx`; `usual`, the short way through all that.

pub mod arith;
mod compare;
pub mod control;
#[cfg(target_arch = "x86_64")]
mod host;
pub mod image;
mod mmx;
pub mod transcendental;
pub mod transfer;
mod usual;

use serde::{Deserialize, Serialize};

use crate::softfloat::extended::{F80, PRECOMPUTATION};
use crate::softfloat::{Env, Flags, Precision, Rounding};

pub use arith::Arith;
pub use image::Format;
pub use transfer::{Constant, Store};

/// Status word: stack fault.
pub const SF: u16 = 1 << 6;
/// Status word: exception summary, set while an unmasked exception is pending.
pub const ES: u16 = 1 << 7;
/// Status word: condition code 0.
pub const C0: u16 = 1 << 8;
/// Status word: condition code 1.
pub const C1: u16 = 1 << 9;
/// Status word: condition code 2.
pub const C2: u16 = 1 << 10;
/// Status word: condition code 3.
pub const C3: u16 = 1 << 14;
/// Status word: busy, which mirrors ES since the 387.
pub const B: u16 = 1 << 15;
/// Status and control word: the six exceptions, or their masks.
pub const EXCEPTIONS: u16 = 0x3f;
/// Status word: invalid operation.
const IE: u16 = 1;
/// Place of TOP in the status word.
const TOP_SHIFT: u32 = 11;
/// The status word's bits beside TOP and B.
const STATUS_KEPT: u16 = EXCEPTIONS | SF | ES | C0 | C1 | C2 | C3;

/// Where the last non-control instruction was and what memory it named (Intel SDM volume 1, 8.1.8 and 8.1.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointers {
    /// Its first byte's low three bits and its second byte.
    pub opcode: u16,
    /// Its code segment's selector.
    pub cs: u16,
    /// Its offset, prefixes included.
    pub ip: u64,
    /// The selector of its memory operand's segment.
    pub ds: u16,
    /// The offset of its memory operand.
    pub dp: u64,
}

/// The registers of the unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// R0 to R7; ST(i) is R(top + i).
    regs: [F80; 8],
    /// Bit n: Rn is not empty (FXSAVE's abridged tag word). As wide as what is read to test a bit: a read of more than was
    /// written last would have to wait.
    #[serde(with = "abridged")]
    full: u32,
    /// TOP, 0 to 7.
    top: u8,
    control: u16,
    /// The status word without TOP and B.
    status: u16,
    /// Last instruction and data pointers. The core sets them; FNINIT and loads of images do as well.
    pub pointers: Pointers,
}

/// The abridged tag word as the byte that it is.
mod abridged {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(full: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*full as u8)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
        u8::deserialize(from).map(u32::from)
    }
}

impl Default for State {
    /// The state after FNINIT, with registers of zero (Intel SDM volume 3, table 10-1).
    fn default() -> Self {
        Self {
            regs: [F80::ZERO; 8],
            full: 0,
            top: 0,
            control: control::INITIAL,
            status: 0,
            pointers: Pointers::default(),
        }
    }
}

impl State {
    /// The state after power-up and reset: control word 0040H, all registers +0.0 and not empty (Intel SDM volume 3,
    /// table 10-1).
    #[must_use]
    pub fn reset() -> Self {
        Self { full: 0xff, control: 0x40, ..Self::default() }
    }

    /// Whether an unmasked exception is pending: the next waiting instruction raises #MF instead of being performed.
    #[inline]
    pub const fn pending(&self) -> bool {
        self.status & ES != 0
    }

    /// The control word (FNSTCW).
    #[inline]
    pub const fn control_word(&self) -> u16 {
        self.control
    }

    /// The status word (FNSTSW).
    #[inline]
    pub const fn status_word(&self) -> u16 {
        let busy = if self.status & ES != 0 { B } else { 0 };
        self.status | busy | (self.top as u16) << TOP_SHIFT
    }

    /// Index of ST(i) among R0 to R7.
    #[inline(always)]
    const fn index(&self, i: u8) -> usize {
        (self.top.wrapping_add(i) & 7) as usize
    }

    /// Whether ST(i) is empty.
    #[inline]
    pub const fn is_empty(&self, i: u8) -> bool {
        self.full >> self.index(i) & 1 == 0
    }

    /// The contents of ST(i), empty or not.
    #[inline]
    pub const fn st(&self, i: u8) -> F80 {
        self.regs[self.index(i)]
    }

    /// Writes ST(i), which is no longer empty.
    #[inline(always)]
    fn put(&mut self, i: u8, value: F80) {
        let index = self.index(i);
        self.regs[index] = value;
        self.full |= 1 << index;
    }

    #[inline(always)]
    fn push(&mut self, value: F80) {
        self.top = self.top.wrapping_sub(1) & 7;
        self.put(0, value);
    }

    #[inline(always)]
    fn pop(&mut self) {
        self.full &= !(1 << self.top);
        self.top = (self.top + 1) & 7;
    }

    /// The environment of arithmetic that the control word asks for.
    #[inline(always)]
    fn env(&self) -> Env {
        let masked = self.control & EXCEPTIONS == EXCEPTIONS;
        Env {
            precision: match self.control >> 8 & 3 {
                0 => Precision::Single,
                2 => Precision::Double,
                // 1 is reserved.
                _ => Precision::Extended,
            },
            unmasked: if masked { Flags::empty() } else { Flags::from_x86(!self.control as u8) },
            ..Env::x86(Rounding::from_rc(u32::from(self.control >> 10)))
        }
    }

    /// The status word after an operation that found the given exceptions, and whether its result is stored.
    #[inline(always)]
    fn settled(&self, flags: Flags) -> (u16, bool) {
        let status = self.status & !C1;
        if flags.is_empty() {
            (status, true)
        } else if self.control & EXCEPTIONS == EXCEPTIONS {
            (status | noted(flags), true)
        } else {
            self.settled_unmasked(status, flags)
        }
    }

    /// As [`State::settled`], where some exception is not masked.
    #[cold]
    fn settled_unmasked(&self, status: u16, mut flags: Flags) -> (u16, bool) {
        let unmasked = Flags::from_x86(!self.control as u8);
        let stored = !flags.intersects(PRECOMPUTATION & unmasked);
        if !stored {
            // What only computing would have found.
            flags &= PRECOMPUTATION;
        }
        let pending = if flags.intersects(unmasked) { ES } else { 0 };
        (status | noted(flags) | pending, stored)
    }

    /// Notes the exceptions of an operation; whether its result is stored.
    #[inline(always)]
    fn settle(&mut self, flags: Flags) -> bool {
        let (status, stored) = self.settled(flags);
        self.status = status;
        stored
    }

    /// The status word after a stack fault, C1 telling over- from underflow, and whether the masked result is stored.
    #[cold]
    fn stack_faulted(&self, overflow: bool) -> (u16, bool) {
        let masked = self.control & IE != 0;
        let c1 = if overflow { C1 } else { 0 };
        let pending = if masked { 0 } else { ES };
        (self.status & !C1 | IE | SF | c1 | pending, masked)
    }

    /// Notes a read of an empty register; whether the masked result is stored.
    #[cold]
    fn underflow(&mut self) -> bool {
        let (status, stored) = self.stack_faulted(false);
        self.status = status;
        stored
    }

    /// Notes a push onto a full register; whether the masked result is stored.
    #[cold]
    fn overflow(&mut self) -> bool {
        let (status, stored) = self.stack_faulted(true);
        self.status = status;
        stored
    }
}

/// The status word's bits that tell of exceptions and of rounding upwards.
#[inline(always)]
fn noted(flags: Flags) -> u16 {
    let c1 = if flags.contains(Flags::ROUNDED_UP) { C1 } else { 0 };
    u16::from(flags.to_x86()) | c1
}
