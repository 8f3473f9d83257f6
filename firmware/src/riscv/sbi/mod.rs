//! The Supervisor Binary Interface, version 2.0, as M-mode guest code.
//!
//! # Design
//!
//! The image is loaded at `base` and owns the `reserved` bytes from there; the device tree must
//! reserve them. A PMP entry denies them to S- and U-mode, a second one allows everything else.
//!
//! **Boot** ([`boot`]). All harts enter at `base` with `a0` = hart id and `a1` = device tree,
//! whose address is passed on as received. Hart 0 clears the data (nothing is assumed about
//! memory behind the code, so a reset needs to reload the code alone) and releases the others by
//! their `msip`, which a reset has cleared. Every hart then sets up its CSRs and waits in the HSM
//! state STOPPED; hart 0 finds itself started at `next_addr`.
//!
//! **Traps** ([`trap`]). One entry saves all registers in the hart's area. Interrupts stay
//! disabled in M-mode, so nothing nests but the two guarded accesses to guest memory. What is
//! not the firmware's is redirected to S-mode as if it had been delegated. A trap of the firmware
//! itself is reported on the UART and ends the machine through the test finisher.
//!
//! **Calls**. One file per extension, each of which emits its handler: [`base`], [`time`],
//! [`ipi`], [`rfence`], [`hsm`], [`srst`], [`dbcn`], [`legacy`].
//!
//! **Between harts** ([`mailbox`], [`harts`]). A hart raises bits in the other's mailbox and its
//! `msip`. A remote fence also fills in the request slot of each target, then waits until each has
//! emptied its slot; while waiting a hart serves its own mailbox, so that two harts fencing each
//! other cannot lock up. Stopped harts serve their mailbox too.
//!
//! Sources: RISC-V SBI Specification 2.0; RISC-V Privileged Architecture 20240411; the choice of
//! delegated exceptions is OpenSBI's, since guests are tried against it.

mod base;
mod boot;
mod dbcn;
mod harts;
mod hsm;
mod ipi;
mod layout;
mod legacy;
mod mailbox;
mod rfence;
mod srst;
mod time;
mod trap;
mod uart;

pub use base::{IMPLEMENTATION_ID, IMPLEMENTATION_VERSION, SPEC_VERSION};
pub use srst::{FINISHER_FAIL, FINISHER_PASS, FINISHER_RESET};

use super::Asm;
use dynasmrt::{DynasmApi, DynasmLabelApi};
use layout::HART_AREA;

/// Room for code and constants in front of the harts' areas.
const CODE_SIZE: u64 = 16 * 1024;
/// As many harts as a CLINT has `msip` registers.
const MAX_HARTS: u32 = 4095;

/// What the firmware must know of the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SbiConfig {
    /// Load address; a multiple of the reserved size ([`reserved_size`]).
    pub base: u64,
    /// Number of harts; their ids are `0..harts`, and each of them must exist.
    pub harts: u32,
    /// Base of the CLINT (or ACLINT laid out like it): `msip` at 0, `mtimecmp` at 0x4000,
    /// `mtime` at 0xbff8.
    pub clint: u64,
    /// Base of the 16550 UART, registers one byte apart, set up by reset.
    pub uart: u64,
    /// Base of the test finisher (`sifive,test0`).
    pub finisher: u64,
    /// Physical address where hart 0 enters S-mode.
    pub next_addr: u64,
    /// Finisher code of a guest that reports a system failure through SRST.
    pub failure_code: u16,
    /// Finisher code of a trap inside the firmware.
    pub trap_code: u16,
}

/// Finisher code of a guest that reports a system failure, unless told otherwise.
pub const FAILURE_CODE: u16 = 122;
/// Finisher code of a trap inside the firmware, unless told otherwise.
pub const TRAP_CODE: u16 = 121;

impl Default for SbiConfig {
    /// One hart on the `virt` board; the finisher codes are Mimic's exit statuses for "the guest
    /// reported a panic" and "the guest died".
    fn default() -> Self {
        Self {
            base: 0x8000_0000,
            harts: 1,
            clint: 0x200_0000,
            uart: 0x1000_0000,
            finisher: 0x10_0000,
            next_addr: 0x8020_0000,
            failure_code: FAILURE_CODE,
            trap_code: TRAP_CODE,
        }
    }
}

/// The assembled firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SbiImage {
    /// What to load at `base`, at every reset.
    pub bytes: Vec<u8>,
    /// Where every hart enters, in M-mode; equal to `base`.
    pub entry: u64,
    /// Bytes from `base` that belong to the firmware and must be reserved in the device tree;
    /// a power of two.
    pub reserved: u64,
}

/// A configuration that cannot be assembled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SbiError {
    /// `harts` is out of range.
    #[error("the firmware serves 1 to {MAX_HARTS} harts, not {0}")]
    Harts(u32),
    /// One PMP entry must cover the region, so it must be naturally aligned.
    #[error("firmware base {base:#x} is not a multiple of its size {reserved:#x}")]
    Alignment {
        /// The load address asked for.
        base: u64,
        /// The size it must be a multiple of.
        reserved: u64,
    },
    /// Nothing can be entered at 0, at an odd address, or inside the firmware.
    #[error("the firmware cannot hand over to {0:#x}: 0, odd, or inside the firmware")]
    NextAddress(u64),
}

/// Bytes that the firmware for `harts` harts reserves: a power of two, 64 KiB at least.
pub fn reserved_size(harts: u32) -> u64 {
    (CODE_SIZE + u64::from(harts) * HART_AREA as u64).next_power_of_two().max(64 * 1024)
}

/// Assembles the firmware.
pub fn sbi(config: &SbiConfig) -> Result<SbiImage, SbiError> {
    if config.harts == 0 || config.harts > MAX_HARTS {
        return Err(SbiError::Harts(config.harts));
    }
    let reserved = reserved_size(config.harts);
    if !config.base.is_multiple_of(reserved) {
        return Err(SbiError::Alignment { base: config.base, reserved });
    }
    let own = config.base..config.base + reserved;
    if config.next_addr == 0
        || !config.next_addr.is_multiple_of(2)
        || own.contains(&config.next_addr)
    {
        return Err(SbiError::NextAddress(config.next_addr));
    }

    let mut asm = Asm::new(config.base as usize);
    boot::emit(&mut asm, config);
    trap::emit(&mut asm, config);
    mailbox::emit(&mut asm);
    harts::emit(&mut asm, config);
    base::emit(&mut asm);
    time::emit(&mut asm);
    ipi::emit(&mut asm, config);
    trap::emit_answers(&mut asm);
    rfence::emit(&mut asm, config);
    hsm::emit(&mut asm, config);
    srst::emit(&mut asm, config);
    dbcn::emit(&mut asm);
    legacy::emit(&mut asm);
    uart::emit(&mut asm);
    boot::emit_data(&mut asm, config, reserved);

    let bytes = asm.finalize().expect("the labels are the same for every configuration");
    assert!(bytes.len() as u64 <= CODE_SIZE, "CODE_SIZE is too small for the code");
    Ok(SbiImage { bytes, entry: config.base, reserved })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every branch reaches and the code fits, whatever the number of harts.
    #[test]
    fn assembles_for_every_size() {
        for harts in [1, 2, 47, 48, 49, 64, 65, MAX_HARTS] {
            let config = SbiConfig { harts, next_addr: 0x9000_0000, ..SbiConfig::default() };
            let image = sbi(&config).unwrap();
            assert_eq!(image.entry, config.base);
            assert_eq!(image.bytes.len() as u64, CODE_SIZE);
            assert!(image.reserved.is_power_of_two());
            assert!(image.reserved >= CODE_SIZE + u64::from(harts) * HART_AREA as u64);
        }
    }

    #[test]
    fn reserves_no_more_than_a_power_of_two() {
        assert_eq!(reserved_size(1), 0x1_0000);
        assert_eq!(reserved_size(48), 0x1_0000, "16 KiB of code, 48 areas of 1 KiB");
        assert_eq!(reserved_size(49), 0x2_0000);
    }

    #[test]
    fn refuses_what_it_cannot_serve() {
        let with = |harts, base| sbi(&SbiConfig { harts, base, ..SbiConfig::default() });
        assert_eq!(with(0, 0x8000_0000), Err(SbiError::Harts(0)));
        assert_eq!(with(4096, 0x8000_0000), Err(SbiError::Harts(4096)));
        let alignment = SbiError::Alignment { base: 0x8000_8000, reserved: 0x1_0000 };
        assert_eq!(with(1, 0x8000_8000), Err(alignment));
        for next_addr in [0, 0x8000_0000, 0x8000_fffe, 0x8020_0001] {
            let config = SbiConfig { next_addr, ..SbiConfig::default() };
            assert_eq!(sbi(&config), Err(SbiError::NextAddress(next_addr)));
        }
        assert!(with(1, 0x9fff_0000).is_ok(), "any aligned place will do");
    }

    /// NAPOT by hand (Privileged Architecture, table "NAPOT range encoding"): 64 KiB at
    /// 0x8000_0000 is 0x2000_0000 with 13 ones below a zero.
    #[test]
    fn pmp_covers_the_reserved_region() {
        let bytes = sbi(&SbiConfig::default()).unwrap().bytes;
        let napot = 0x2000_1fff_u64.to_le_bytes();
        assert!(bytes.chunks_exact(8).any(|word| word == napot));
    }
}
