//! Fields and masks of the control and status registers (privileged, chapters 3 and 10).

/// `mstatus` and its view `sstatus`.
#[allow(missing_docs)] // The names are the manual's.
pub mod mstatus {
    pub const SIE: u64 = 1 << 1;
    pub const MIE: u64 = 1 << 3;
    pub const SPIE: u64 = 1 << 5;
    pub const MPIE: u64 = 1 << 7;
    pub const SPP: u64 = 1 << 8;
    pub const MPP_SHIFT: u32 = 11;
    pub const MPP: u64 = 3 << MPP_SHIFT;
    pub const FS: u64 = 3 << 13;
    pub const MPRV: u64 = 1 << 17;
    pub const SUM: u64 = 1 << 18;
    pub const MXR: u64 = 1 << 19;
    pub const TVM: u64 = 1 << 20;
    pub const TW: u64 = 1 << 21;
    pub const TSR: u64 = 1 << 22;
    /// UXL = SXL = 2: both are read-only 64 bits.
    pub const XLEN_64: u64 = 2 << 32 | 2 << 34;
    pub const SD: u64 = 1 << 63;
    /// What software may change.
    pub const WRITABLE: u64 =
        SIE | MIE | SPIE | MPIE | SPP | MPP | FS | MPRV | SUM | MXR | TVM | TW | TSR;
    /// What `sstatus` shows, without SD.
    pub const SSTATUS: u64 = SIE | SPIE | SPP | FS | SUM | MXR | 3 << 32;
    /// What `sstatus` changes.
    pub const SSTATUS_WRITABLE: u64 = SIE | SPIE | SPP | FS | SUM | MXR;
}

/// Interrupt codes and bits of `mip`, `mie` and `mideleg`.
#[allow(missing_docs)]
pub mod irq {
    pub const SSI: u64 = 1 << 1;
    pub const MSI: u64 = 1 << 3;
    pub const STI: u64 = 1 << 5;
    pub const MTI: u64 = 1 << 7;
    pub const SEI: u64 = 1 << 9;
    pub const MEI: u64 = 1 << 11;
    pub const SUPERVISOR: u64 = SSI | STI | SEI;
    pub const ALL: u64 = SUPERVISOR | MSI | MTI | MEI;
    /// Codes from the highest priority down (privileged, 3.1.9).
    pub const BY_PRIORITY: [u64; 6] = [11, 3, 7, 9, 1, 5];
}

/// `menvcfg` and `senvcfg`.
#[allow(missing_docs)]
pub mod envcfg {
    pub const FIOM: u64 = 1;
    pub const CBIE: u64 = 3 << 4;
    pub const CBIE_SHIFT: u32 = 4;
    pub const CBCFE: u64 = 1 << 6;
    pub const CBZE: u64 = 1 << 7;
    pub const ADUE: u64 = 1 << 61;
    pub const PBMTE: u64 = 1 << 62;
    pub const STCE: u64 = 1 << 63;
    pub const SENVCFG: u64 = FIOM | CBIE | CBCFE | CBZE;
    pub const MENVCFG: u64 = SENVCFG | ADUE | PBMTE | STCE;
}

/// Exceptions that may be delegated: all but environment calls from M-mode.
pub const MEDELEG: u64 = 0xb3ff;
/// Counters that can be inhibited: CY and IR.
pub const MCOUNTINHIBIT: u64 = 0b101;
/// `misa`: RV64 with A, B, C, D, F, I, M, S, U; read-only.
pub const MISA: u64 = 2 << 62
    | 1 // A
    | 1 << 1 // B
    | 1 << 2 // C
    | 1 << 3 // D
    | 1 << 5 // F
    | 1 << 8 // I
    | 1 << 12 // M
    | 1 << 18 // S
    | 1 << 20; // U
