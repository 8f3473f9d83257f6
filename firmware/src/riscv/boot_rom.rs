//! The reset vector of the `virt` board.
//!
//! Every hart starts here in M-mode and enters the firmware with the registers that OpenSBI,
//! U-Boot and Linux agree on: `a0` = hart id, `a1` = device tree, `a2` = `struct
//! fw_dynamic_info` (OpenSBI, docs/firmware/fw_dynamic.md), which lies behind the code.

use super::{Asm, rv};
use dynasmrt::{DynasmApi, DynasmLabelApi};

/// Where the `virt` board places this ROM and every hart's reset vector points.
pub const BOOT_ROM_BASE: u64 = 0x1000;

/// "OSBI", the magic of `struct fw_dynamic_info`.
pub const FW_DYNAMIC_MAGIC: u64 = 0x4942_534f;
/// The version of `struct fw_dynamic_info` that has all six fields.
pub const FW_DYNAMIC_VERSION: u64 = 2;

/// The mode in which `fw_dynamic` firmware enters the next stage; the privilege levels' numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextMode {
    /// User mode.
    User = 0,
    /// Supervisor mode.
    Supervisor = 1,
    /// Machine mode.
    Machine = 3,
}

/// What the boot ROM hands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootRomConfig {
    /// Physical address where all harts enter the firmware (or an M-mode ELF).
    pub entry: u64,
    /// Physical address of the device tree (`a1`).
    pub fdt: u64,
    /// Physical address of the stage after the firmware, for `fw_dynamic` firmware; 0 if none.
    pub next_addr: u64,
    /// The mode of that stage.
    pub next_mode: NextMode,
}

/// The bytes of the boot ROM. The code is independent of its position.
pub fn boot_rom(config: &BootRomConfig) -> Vec<u8> {
    let mut asm = Asm::new(0);
    let boot_hart = 0;
    rv!(asm
        ; csrr a0, mhartid
        ; ld a1, ->fdt
        ; la a2, ->fw_dynamic_info
        ; ld t0, ->entry
        ; jr t0
        ; .align 8
        ; ->entry:
        ; .u64 config.entry
        ; ->fdt:
        ; .u64 config.fdt
        ; ->fw_dynamic_info:
        ; .u64 FW_DYNAMIC_MAGIC
        ; .u64 FW_DYNAMIC_VERSION
        ; .u64 config.next_addr
        ; .u64 config.next_mode as u64
        ; .u64 0 // options
        ; .u64 boot_hart
    );
    asm.finalize().expect("every label of the boot ROM is defined above")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn double_word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// The code as GNU objdump 2.40 disassembles it; the layout of `struct fw_dynamic_info` by
    /// OpenSBI's docs/firmware/fw_dynamic.md.
    #[test]
    fn code_finds_the_data_behind_it() {
        let rom = boot_rom(&BootRomConfig {
            entry: 0x8000_0000,
            fdt: 0x8fe0_0000,
            next_addr: 0x8020_0000,
            next_mode: NextMode::Supervisor,
        });
        let code = [
            0xf140_2573, // csrr a0, mhartid
            0x0000_0597, // auipc a1, 0
            0x0245_b583, // ld a1, 36(a1)
            0x0000_0617, // auipc a2, 0
            0x0246_0613, // addi a2, a2, 36
            0x0000_0297, // auipc t0, 0
            0x00c2_b283, // ld t0, 12(t0)
            0x0002_8067, // jr t0
        ];
        for (i, expected) in code.into_iter().enumerate() {
            assert_eq!(word(&rom, 4 * i), expected, "instruction {i}");
        }
        assert_eq!(double_word(&rom, 0x14 + 12), 0x8000_0000, "entry");
        assert_eq!(double_word(&rom, 0x04 + 36), 0x8fe0_0000, "device tree");
        let info: Vec<u64> = (0..6).map(|i| double_word(&rom, 0x0c + 36 + 8 * i)).collect();
        assert_eq!(info, [0x4942_534f, 2, 0x8020_0000, 1, 0, 0]);
        assert_eq!(rom.len(), 0x60);
    }
}
