//! RISC-V firmware: RV64IMA with Zicsr and Zifencei, assembled by dynasmrt.
//!
//! Only 4-byte instructions are emitted (no C extension): a trap handler that steps over an
//! instruction adds 4, and every label can serve as a trap vector.

// What `dynasm!` expands to converts every operand, also where it has the right type already.
#![allow(clippy::unnecessary_cast, clippy::useless_conversion)]

pub mod boot_rom;
pub mod sbi;
pub mod sbi_check;

use dynasmrt::VecAssembler;
use dynasmrt::riscv::RiscvRelocation;

/// The assembler all firmware is written with.
pub(crate) type Asm = VecAssembler<RiscvRelocation>;

/// `dynasm!` set to what firmware may use.
macro_rules! rv {
    ($ops:expr ; $($code:tt)*) => {
        ::dynasmrt::dynasm!($ops ; .arch riscv64 ; .feature imazicsr, zifencei ; $($code)*)
    };
}
pub(crate) use rv;

/// Privileged instructions, which dynasmrt does not name (Privileged Architecture, "RISC-V
/// Privileged Instruction Set Listings"). Emitted by `.u32`.
pub(crate) mod privileged {
    /// Return from a trap taken to M-mode.
    pub(crate) const MRET: u32 = 0x3020_0073;
    /// Return from a trap taken to S-mode.
    pub(crate) const SRET: u32 = 0x1020_0073;
    /// Wait for an interrupt that is enabled in `mie`.
    pub(crate) const WFI: u32 = 0x1050_0073;
    /// `sfence.vma x0, x0`: every address, every address space.
    pub(crate) const SFENCE_VMA_ALL: u32 = sfence_vma(0, 0);

    /// `sfence.vma` with the address in `x[rs1]` and the ASID in `x[rs2]`.
    pub(crate) const fn sfence_vma(rs1: u32, rs2: u32) -> u32 {
        0x1200_0073 | rs2 << 20 | rs1 << 15
    }
}
