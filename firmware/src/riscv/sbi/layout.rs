//! What the firmware's routines agree on: registers, the per-hart area, errors, CSR bits.
//!
//! # Registers inside the firmware
//!
//! * `tp`: this hart's area; `sp`: its stack, which grows down from the area's end.
//! * A handler of an SBI call finds the guest's `a0`-`a7` untouched, may use every register
//!   (the trap entry saved all of them) and leaves by `j ->sbi_return` with the error in `a0`
//!   and the value in `a1`, or by one of the `->fail_...` labels.
//! * A subroutine is called by `jal ra`, changes `t0`-`t6` and what it returns, nothing else.
//! * `s2`-`s5` belong to the walk over the harts of a mask ([`super::harts`]).
//! * `s11` is the way out of a guarded access to guest memory ([`super::trap`]).
//! * `mscratch` is this hart's area while S or U runs and 0 while the firmware runs, which is
//!   how the trap entry knows that the firmware itself has failed.

/// Bytes of one hart's area: trap frame, state, mailbox, stack. A power of two.
pub(super) const HART_AREA: i32 = 1 << HART_AREA_SHIFT;
/// log2 of [`HART_AREA`].
pub(super) const HART_AREA_SHIFT: u32 = 10;

/// The guest's register `x[n]` in the trap frame.
pub(super) const fn frame_x(n: i32) -> i32 {
    8 * n
}
/// `mepc` to return to. Lies in the slot of `x0`, which needs none.
pub(super) const FRAME_MEPC: i32 = 0;
/// `mstatus` to return with.
pub(super) const FRAME_MSTATUS: i32 = 256;
/// This hart's id.
pub(super) const HART_ID: i32 = 264;
/// [`FEATURE_SSTC`] and other facts found at boot.
pub(super) const FEATURES: i32 = 272;
/// HSM state, 32 bits, by the numbers of the SBI specification.
pub(super) const HSM_STATE: i32 = 280;
/// Where a started hart enters S-mode; 0 until the starter has written [`START_ARG`].
pub(super) const START_ADDR: i32 = 288;
/// What it finds in `a1`.
pub(super) const START_ARG: i32 = 296;
/// Mailbox: 32 bits of `MAIL_...`, set by any hart, taken by the owner.
pub(super) const MAIL: i32 = 304;
/// Mailbox: hart id + 1 of the hart whose fence request occupies the fields below; the owner
/// writes 0 when it has performed it, and that is the acknowledgement. 32 bits.
pub(super) const FENCE_FROM: i32 = 312;
/// Mailbox: one of `FENCE_...`.
pub(super) const FENCE_KIND: i32 = 320;
/// Mailbox: first address.
pub(super) const FENCE_START: i32 = 328;
/// Mailbox: number of bytes.
pub(super) const FENCE_SIZE: i32 = 336;
/// Mailbox: address space.
pub(super) const FENCE_ASID: i32 = 344;

/// The hart has `stimecmp`: the guest's timer needs no help.
pub(super) const FEATURE_SSTC: i32 = 1;

/// A supervisor software interrupt is wanted.
pub(super) const MAIL_SOFT: i32 = 1;
/// The fence fields hold a request.
pub(super) const MAIL_FENCE: i32 = 2;

/// `fence.i`. The numbers are RFENCE's function ids.
pub(super) const FENCE_I: i32 = 0;
/// `sfence.vma` over all address spaces.
pub(super) const FENCE_VMA: i32 = 1;
/// `sfence.vma` in one address space.
pub(super) const FENCE_VMA_ASID: i32 = 2;

/// HSM hart states (SBI 2.0, table "HSM Hart States").
pub(super) mod hsm {
    pub(in super::super) const STARTED: i32 = 0;
    pub(in super::super) const STOPPED: i32 = 1;
    pub(in super::super) const START_PENDING: i32 = 2;
    pub(in super::super) const SUSPENDED: i32 = 4;
    pub(in super::super) const RESUME_PENDING: i32 = 6;
}

/// Standard SBI errors (SBI 2.0, table "Standard SBI Errors").
pub(super) mod err {
    pub(in super::super) const NOT_SUPPORTED: i32 = -2;
    pub(in super::super) const INVALID_PARAM: i32 = -3;
    pub(in super::super) const INVALID_ADDRESS: i32 = -5;
    pub(in super::super) const ALREADY_AVAILABLE: i32 = -6;
}

/// CSR fields (Privileged Architecture, chapters "Machine-Level ISA" and "Supervisor-Level ISA").
pub(super) mod csr {
    /// `mip`/`mie`: supervisor software interrupt.
    pub(in super::super) const SSI: i32 = 1 << 1;
    /// `mip`/`mie`: machine software interrupt.
    pub(in super::super) const MSI: i32 = 1 << 3;
    /// `mip`/`mie`: supervisor timer interrupt.
    pub(in super::super) const STI: i32 = 1 << 5;
    /// `mip`/`mie`: machine timer interrupt.
    pub(in super::super) const MTI: i32 = 1 << 7;
    /// `mip`/`mie`: supervisor external interrupt.
    pub(in super::super) const SEI: i32 = 1 << 9;
    /// `mstatus.SIE`.
    pub(in super::super) const SIE: i32 = 1 << 1;
    /// `mstatus.SPIE`.
    pub(in super::super) const SPIE: i32 = 1 << 5;
    /// `mstatus.SPP`.
    pub(in super::super) const SPP: i32 = 1 << 8;
    /// `mstatus.MPP` = S.
    pub(in super::super) const MPP_S: i32 = 1 << 11;
    /// `mstatus.MPP`, both bits.
    pub(in super::super) const MPP: i32 = 3 << 11;
    /// `mstatus.FS` = Initial.
    pub(in super::super) const FS_INITIAL: i32 = 1 << 13;
    /// `mstatus.MPRV`: loads and stores as at the privilege of MPP.
    pub(in super::super) const MPRV: i32 = 1 << 17;
    /// `mstatus` fields cleared when a hart enters S-mode afresh: SIE, MIE, SPIE, MPIE, SPP, MPP,
    /// FS, MPRV, SUM, MXR, TVM, TW, TSR.
    pub(in super::super) const MSTATUS_CLEAR: i32 =
        0xf << 17 | 3 << 21 | MPP | 3 << 13 | SPP | SPIE | SIE | 1 << 3 | 1 << 7;
    /// Exceptions delegated to S-mode: misaligned fetch, breakpoint, ecall from U, page faults.
    /// The others come to the firmware first, as with OpenSBI, and are redirected.
    pub(in super::super) const MEDELEG: i32 =
        1 << 0 | 1 << 3 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 15;
    /// Interrupts delegated to S-mode.
    pub(in super::super) const MIDELEG: i32 = SSI | STI | SEI;
    /// `menvcfg`: STCE, PBMTE, ADUE, CBZE, CBCFE, CBIE = invalidate.
    pub(in super::super) const MENVCFG: u64 = 7 << 61 | 0xf << 4;
    /// `pmpcfg`: naturally aligned power of two.
    pub(in super::super) const PMP_NAPOT: i32 = 3 << 3;
    /// `pmpcfg`: read, write, execute.
    pub(in super::super) const PMP_RWX: i32 = 7;
    /// `mcause` of a machine software interrupt, without the interrupt bit.
    pub(in super::super) const CAUSE_MSI: i32 = 3;
    /// `mcause` of a machine timer interrupt, without the interrupt bit.
    pub(in super::super) const CAUSE_MTI: i32 = 7;
    /// `mcause` of an illegal instruction.
    pub(in super::super) const CAUSE_ILLEGAL: i32 = 2;
    /// `mcause` of an environment call from S-mode.
    pub(in super::super) const CAUSE_ECALL_S: i32 = 9;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_hart_area_do_not_overlap() {
        let fields = [
            (FRAME_MEPC, 8),
            (frame_x(1), 8 * 31),
            (FRAME_MSTATUS, 8),
            (HART_ID, 8),
            (FEATURES, 8),
            (HSM_STATE, 4),
            (START_ADDR, 8),
            (START_ARG, 8),
            (MAIL, 4),
            (FENCE_FROM, 4),
            (FENCE_KIND, 8),
            (FENCE_START, 8),
            (FENCE_SIZE, 8),
            (FENCE_ASID, 8),
        ];
        for pair in fields.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
        }
        let (last, size) = fields[fields.len() - 1];
        assert!(last + size + 256 <= HART_AREA, "room for the stack");
    }
}
