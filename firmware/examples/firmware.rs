//! Writes the firmware for the `virt` board into files, so that it can be tried elsewhere.
//!
//! `cargo run -p mimic-firmware --example firmware -- FOLDER HARTS MEMORY_MIB ISA`
//!
//! gives `boot_rom.bin`, `sbi.bin`, `virt.dtb`, and the SBI's check for ours (`sbi_check.bin`) and
//! for any implementation (`sbi_check_any.bin`). HARTS must be what the machine has; ISA is the
//! harts' ISA string, `rv64imafdc_zicsr_...`.
//!
//! `qemu-system-riscv64 -M virt -m MEMORY_MIB -smp HARTS -bios sbi.bin -dtb virt.dtb -kernel KERNEL`
//!
//! `-dtb` matters: QEMU's own tree does not reserve the firmware's memory.

use mimic_firmware::fdt::{Chosen, CpuNode, DeviceTree, Mmu, Node, PciHost, ReservedMemory};
use mimic_firmware::riscv::boot_rom::{BootRomConfig, NextMode, boot_rom};
use mimic_firmware::riscv::sbi::{
    FINISHER_PASS, FINISHER_RESET, IMPLEMENTATION_ID, SbiConfig, sbi,
};
use mimic_firmware::riscv::sbi_check::{SbiCheckConfig, sbi_check};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, harts, memory, isa] = args.as_slice() else {
        return Err("usage: firmware FOLDER HARTS MEMORY_MIB ISA".into());
    };
    let (folder, harts) = (PathBuf::from(folder), harts.parse()?);
    let memory = memory.parse::<u64>()? << 20;

    let config = SbiConfig { harts, ..SbiConfig::default() };
    let image = sbi(&config)?;
    let rom = boot_rom(&BootRomConfig {
        entry: image.entry,
        fdt: 0x8000_0000 + memory - 0x20_0000,
        next_addr: config.next_addr,
        next_mode: NextMode::Supervisor,
    });
    let check = |implementation| {
        sbi_check(&SbiCheckConfig {
            base: config.next_addr,
            harts,
            firmware: config.base,
            nowhere: 0x1800_0000,
            timebase: 10_000_000,
            implementation,
        })
    };
    std::fs::write(folder.join("sbi_check.bin"), check(Some(IMPLEMENTATION_ID)))?;
    std::fs::write(folder.join("sbi_check_any.bin"), check(None))?;
    std::fs::write(folder.join("boot_rom.bin"), rom)?;
    std::fs::write(folder.join("sbi.bin"), &image.bytes)?;
    std::fs::write(
        folder.join("virt.dtb"),
        virt(harts, memory, (config.base, image.reserved), isa).flatten()?,
    )?;
    Ok(())
}

/// The devices of QEMU's `virt`, where QEMU has them.
fn virt(harts: u32, memory: u64, firmware: (u64, u64), isa: &str) -> DeviceTree {
    let base_len = isa.find('_').unwrap_or(isa.len());
    let single = isa[..base_len].trim_start_matches("rv64").chars().map(String::from);
    let multi = isa[base_len..].split('_').filter(|s| !s.is_empty()).map(String::from);
    let cpu = CpuNode {
        hart_id: 0,
        isa: isa.into(),
        extensions: single.chain(multi).collect(),
        mmu: Mmu::Sv57,
        cbom_block_size: Some(64),
        cbop_block_size: Some(64),
        cboz_block_size: Some(64),
    };
    let mut soc = vec![
        Node::goldfish_rtc(0x10_1000, 0x1000, 11),
        Node::uart16550(0x1000_0000, 0x100, 10, 3_686_400),
        Node::test_finisher(0x10_0000, 0x1000),
        Node::plic(0xc00_0000, 0x60_0000, 95, harts),
        Node::clint(0x200_0000, 0x1_0000, harts),
        Node::pci_host(&PciHost {
            ecam: (0x3000_0000, 0x1000_0000),
            io: (0x300_0000, 0x1_0000),
            mmio32: (0x4000_0000, 0x4000_0000),
            mmio64: (0x4_0000_0000, 0x4_0000_0000),
            irqs: [32, 33, 34, 35],
        }),
    ];
    soc.extend(
        (0..8).map(|n| Node::virtio_mmio(0x1000_1000 + u64::from(n) * 0x1000, 0x1000, 1 + n)),
    );
    DeviceTree {
        model: "riscv-virtio,mimic".into(),
        compatible: vec!["riscv-virtio".into()],
        cpus: (0..harts).map(|hart_id| CpuNode { hart_id, ..cpu.clone() }).collect(),
        timebase_frequency: 10_000_000,
        memory: vec![(0x8000_0000, memory)],
        reserved: vec![ReservedMemory {
            name: "mmode_resv0".into(),
            base: firmware.0,
            size: firmware.1,
            no_map: true,
        }],
        chosen: Chosen { stdout_path: Some("/soc/serial@10000000".into()), ..Chosen::default() },
        aliases: vec![("serial0".into(), "/soc/serial@10000000".into())],
        nodes: vec![
            Node::syscon_poweroff(FINISHER_PASS),
            Node::syscon_reboot(FINISHER_RESET),
            Node::cfi_flash(&[(0x2000_0000, 0x200_0000), (0x2200_0000, 0x200_0000)], 4),
            Node::fw_cfg(0x1010_0000, 0x18),
        ],
        soc,
    }
}
