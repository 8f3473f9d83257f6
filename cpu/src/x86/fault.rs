//! What an instruction may raise (SDM vol. 3, chapter 7).

/// Vectors of exceptions (SDM vol. 3, table 7-1).
pub mod vector {
    /// #DE: divide error.
    pub const DE: u8 = 0;
    /// #DB: debug.
    pub const DB: u8 = 1;
    /// Non-maskable interrupt.
    pub const NMI: u8 = 2;
    /// #BP: INT3.
    pub const BP: u8 = 3;
    /// #OF: INTO.
    pub const OF: u8 = 4;
    /// #BR: BOUND.
    pub const BR: u8 = 5;
    /// #UD: undefined opcode.
    pub const UD: u8 = 6;
    /// #NM: x87, MMX, SSE or AVX is switched off.
    pub const NM: u8 = 7;
    /// #DF: double fault.
    pub const DF: u8 = 8;
    /// #TS: invalid TSS.
    pub const TS: u8 = 10;
    /// #NP: segment not present.
    pub const NP: u8 = 11;
    /// #SS: stack segment.
    pub const SS: u8 = 12;
    /// #GP: general protection.
    pub const GP: u8 = 13;
    /// #PF: page fault.
    pub const PF: u8 = 14;
    /// #MF: x87 error.
    pub const MF: u8 = 16;
    /// #AC: alignment check.
    pub const AC: u8 = 17;
    /// #XM: SIMD floating-point error.
    pub const XM: u8 = 19;
}

/// An exception that an instruction raised. A fault: the instruction has changed nothing that its restart would
/// notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// One of [`vector`].
    pub vector: u8,
    /// The error code, for those that have one.
    pub error: Option<u32>,
    /// What CR2 is set to, for #PF alone.
    pub cr2: u64,
}

impl Fault {
    /// An exception without an error code.
    #[must_use]
    pub const fn new(vector: u8) -> Self {
        Fault { vector, error: None, cr2: 0 }
    }

    /// An exception with an error code.
    #[must_use]
    pub const fn with(vector: u8, error: u32) -> Self {
        Fault { vector, error: Some(error), cr2: 0 }
    }

    /// A page fault at linear address `cr2`.
    #[must_use]
    pub const fn page(error: u32, cr2: u64) -> Self {
        Fault { vector: vector::PF, error: Some(error), cr2 }
    }
}

/// The instruction ended early: [`super::core::Core::fault`] says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop;
