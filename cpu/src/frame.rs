//! What translated code sees of a hart: its registers, and the words it works with.

use crate::bus::Width;

/// Offset of the f registers in [`Frame::regs`].
pub const F: usize = 64;

/// [`Frame::page_va`] when no page is current: no page has this address.
pub const NO_PAGE: u64 = 1;

/// A hart's registers and the words that its engine keeps beside them. Translated code addresses all of it
/// relative to [`Frame::regs`], which lies [`Frame::WORDS_BYTES`] after the words' beginning.
#[derive(Debug)]
#[repr(C)]
pub struct Frame {
    /// Virtual address of the page that is being executed, or [`NO_PAGE`].
    pub page_va: u64,
    /// Where execution goes on.
    pub next_pc: u64,
    /// Translated code is left when this is below zero: instructions that it may do, counted down where blocks are left.
    pub counter: i64,
    /// Entries of the current TLB table.
    pub tlb: usize,
    /// Mask that cuts the byte offset of an entry out of an address shifted right by
    /// [`TLB_SHIFT`](crate::tlb::TLB_SHIFT).
    pub tlb_mask: u64,
    /// The jump cache of the current context.
    pub jumps: usize,
    /// The engine, for calls out of translated code.
    pub engine: usize,
    /// A call out of translated code says that this code does not go on: the address of the thunk that does.
    pub leave: usize,
    /// The guest's MXCSR while other code runs.
    pub mxcsr: u32,
    /// MXCSR as other code left it.
    pub mxcsr_host: u32,
    /// Translated code has written floating-point registers.
    pub fp_dirty: u64,
    /// The place of the reservation, as [`reservation_tag`] gives it, or 0.
    pub reserved: u64,
    /// The value that was there, zero-extended.
    pub reserved_value: u64,
    /// The translated code with which the thunk in [`leave`](Self::leave) goes on.
    pub resume: usize,
    /// Address of the levels of the interrupt lines.
    pub lines: usize,
    /// Free for the translator.
    pub spare: [u64; 2],
    /// x registers from 0 on, the sink, and f registers from [`F`] on; as many as a `u8` can index, so
    /// that no look-up needs a check.
    pub regs: [u64; 256],
}

impl Frame {
    /// Bytes of the words before the registers.
    pub const WORDS_BYTES: usize = std::mem::offset_of!(Frame, regs);

    /// A frame with cleared registers.
    #[must_use]
    pub fn new() -> Self {
        Frame {
            page_va: NO_PAGE,
            next_pc: 0,
            counter: 0,
            tlb: 0,
            tlb_mask: 0,
            jumps: 0,
            engine: 0,
            leave: 0,
            mxcsr: 0,
            mxcsr_host: 0,
            fp_dirty: 0,
            reserved: 0,
            reserved_value: 0,
            resume: 0,
            lines: 0,
            spare: [0; 2],
            regs: [0; 256],
        }
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

/// What stands for a reservation of a word or double word at guest physical address `gpa`, which is aligned: the
/// address, and the width in its lowest two bits. Never 0.
#[inline]
#[must_use]
pub const fn reservation_tag(gpa: u64, width: Width) -> u64 {
    gpa | if let Width::Double = width { 2 } else { 1 }
}

const _: () = assert!(Frame::WORDS_BYTES == 128);
