//! The conventions between translated code, its thunks and the engine.
//!
//! Translated code runs with RBP = address of [`Frame::regs`], RSP = 0 mod 16 with [`SPILLS`] words above it
//! for values that do not fit into registers, RAX, RCX, RDX and XMM0-3 free, guest registers in their
//! [homes](super::homes), and the guest's MXCSR. Code without floating point leaves the f registers in the frame, and
//! MXCSR as it is: there are thunks for either kind.

use std::mem::offset_of;

use mimic_cpu::bus::Width;
use mimic_cpu::frame::Frame;
use mimic_cpu::riscv::insn::At;
use mimic_cpu::riscv::sem::{Amo, Atomic};

const fn word(offset: usize) -> i32 {
    offset as i32 - Frame::WORDS_BYTES as i32
}

/// Offsets of the frame's words from RBP.
pub(super) const PAGE_VA: i32 = word(offset_of!(Frame, page_va));
pub(super) const NEXT_PC: i32 = word(offset_of!(Frame, next_pc));
pub(super) const COUNTER: i32 = word(offset_of!(Frame, counter));
pub(super) const TLB: i32 = word(offset_of!(Frame, tlb));
pub(super) const TLB_MASK: i32 = word(offset_of!(Frame, tlb_mask));
pub(super) const JUMPS: i32 = word(offset_of!(Frame, jumps));
pub(super) const ENGINE: i32 = word(offset_of!(Frame, engine));
pub(super) const LEAVE: i32 = word(offset_of!(Frame, leave));
pub(super) const LINES: i32 = word(offset_of!(Frame, lines));
pub(super) const RESUME: i32 = word(offset_of!(Frame, resume));
pub(super) const MXCSR: i32 = word(offset_of!(Frame, mxcsr));
pub(super) const MXCSR_HOST: i32 = word(offset_of!(Frame, mxcsr_host));
pub(super) const FP_DIRTY: i32 = word(offset_of!(Frame, fp_dirty));

pub(super) const RESERVED: i32 = word(offset_of!(Frame, reserved));
pub(super) const RESERVED_VALUE: i32 = word(offset_of!(Frame, reserved_value));

/// Offsets in an entry of the TLB.
pub(super) const READ_TAG: i32 = 0;
pub(super) const WRITE_TAG: i32 = 8;
pub(super) const ADDEND: i32 = 16;
pub(super) const GPA: i32 = 24;

/// Entries of a jump cache: pairs of virtual address (odd if empty) and host code, at the index
/// `(va >> 1) & (JUMPS_LEN - 1)`.
pub const JUMPS_LEN: usize = 16384;

/// Words on the host stack for values of a block.
pub(super) const SPILLS: usize = 64;

/// Where calls out of translated code lead: addresses of `extern "sysv64"` functions. The engine pointer
/// they get is the frame's.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// `fn(engine, va: u64, site: u32) -> u64`: the value, zero-extended.
    pub load: usize,
    /// `fn(engine, va: u64, site: u32, value: u64)`: bits of the value above the width are arbitrary.
    pub store: usize,
    /// `fn(engine, va: u64, site: u64, value: u64) -> u64`: an [`AtomicSite`]'s operation; the result, sign-extended.
    pub atomic: usize,
    /// `fn(engine, index: u32, site: u32)`: performs the instruction that the engine numbered `index`.
    pub perform: usize,
}

/// Why translated code was left: what `enter` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A call out asked for it; the engine's state is complete.
    Left,
    /// At a link that is not patched yet: its number.
    Link(u32),
    /// The jump cache does not know the address in the frame's `next_pc`.
    Lookup,
    /// The counter ran out before the block at this offset in its page.
    Budget(u32),
    /// Before the instruction at this offset from the page: an interrupt may be pending.
    Attend(u32),
}

/// The upper halves of what `enter` returns; 0 is [`Exit::Left`].
pub(super) const EXIT_LINK: u32 = 1;
pub(super) const EXIT_LOOKUP: u32 = 2;
pub(super) const EXIT_BUDGET: u32 = 3;
pub(super) const EXIT_ATTEND: u32 = 4;

impl Exit {
    /// Reads what `enter` returned.
    #[must_use]
    pub const fn decode(raw: u64) -> Self {
        let payload = raw as u32;
        match (raw >> 32) as u32 {
            EXIT_LINK => Exit::Link(payload),
            EXIT_LOOKUP => Exit::Lookup,
            EXIT_BUDGET => Exit::Budget(payload),
            EXIT_ATTEND => Exit::Attend(payload),
            _ => Exit::Left,
        }
    }
}

/// What must be found in the TLB after a leader's call out ([`groups`](super::groups)): passed above the [`CallSite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupCheck {
    /// Bytes from the group's lowest to the leader's address.
    pub(super) below: u16,
    /// Bytes from the group's lowest to its highest.
    pub(super) last: u16,
}

impl GroupCheck {
    pub(super) const fn encode(self) -> u64 {
        (self.below as u64) << 32 | (self.last as u64) << 48
    }
}

/// What a call out passes to say where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSite {
    /// The guest instruction's place in its page.
    pub at: At,
    /// Width of the memory access (of no meaning to `perform`).
    pub width: Width,
    /// Instructions of the block before this one: they are done, but have not been counted.
    pub done: u32,
}

impl CallSite {
    /// Packs it into the word passed.
    #[must_use]
    pub const fn encode(self) -> u32 {
        let long = (self.at.bytes() == 4) as u32;
        self.at.offset() as u32 | long | (self.width as u32) << 12 | self.done << 16
    }

    /// Unpacks it.
    #[must_use]
    pub const fn decode(word: u32) -> Self {
        let width = match word >> 12 & 3 {
            0 => Width::Byte,
            1 => Width::Half,
            2 => Width::Word,
            _ => Width::Double,
        };
        let at = At::new((word & 0xffe) as u64, if word & 1 != 0 { 4 } else { 2 });
        CallSite { at, width, done: word >> 16 }
    }
}

/// What a call out for an atomic operation passes: the operation is in the upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomicSite {
    /// What shall be done.
    pub op: Atomic,
    /// Where.
    pub site: CallSite,
}

/// The operations, by what stands for them.
const ATOMICS: [Atomic; 12] = [
    Atomic::LoadReserved,
    Atomic::StoreConditional,
    Atomic::Amo(Amo::Swap),
    Atomic::Amo(Amo::Add),
    Atomic::Amo(Amo::Xor),
    Atomic::Amo(Amo::And),
    Atomic::Amo(Amo::Or),
    Atomic::Amo(Amo::Min),
    Atomic::Amo(Amo::Max),
    Atomic::Amo(Amo::Minu),
    Atomic::Amo(Amo::Maxu),
    Atomic::ZeroBlock,
];

impl AtomicSite {
    /// Packs it into the word passed.
    pub(super) fn encode(self) -> u64 {
        let op = ATOMICS.iter().position(|&op| op == self.op).unwrap_or_default();
        u64::from(self.site.encode()) | (op as u64) << 32
    }

    /// Unpacks it. `None` for what [`encode`](Self::encode) does not make.
    #[must_use]
    pub fn decode(word: u64) -> Option<Self> {
        let op = *ATOMICS.get((word >> 32) as usize)?;
        Some(AtomicSite { op, site: CallSite::decode(word as u32) })
    }
}
