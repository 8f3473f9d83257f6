//! Where the image, the firmware, the initial RAM disk and the device tree go in RAM.

use mimic_firmware::riscv::boot_rom::{BootRomConfig, NextMode, boot_rom};
use mimic_firmware::riscv::sbi::{SbiConfig, reserved_size, sbi};

use crate::board::virt::{self, RAM_BASE, TreeOptions};
use crate::loader::{ImageKind, LoadedImage};
use crate::machine::MachineError;
use crate::machine::spec::{CpuSpec, Firmware, MachineSpec, VirtioBus};

use super::{Layout, MIB, Piece, Start};

/// Kernels are placed at a multiple of this (Documentation/arch/riscv/boot.rst).
const KERNEL_ALIGN: u64 = 2 * MIB;
/// Room behind the device tree: firmware adds what it reserves for itself.
const TREE_ROOM: u64 = 64 << 10;
/// The device tree and the RAM disk stay below 4 GiB, where every kernel can map them early.
const LOW_LIMIT: u64 = 1 << 32;

fn too_little(what: &str, end: u64, memory: u64) -> MachineError {
    MachineError::TooLittleMemory {
        what: what.into(),
        needed: (end - RAM_BASE).div_ceil(MIB).next_power_of_two(),
        given: memory / MIB,
    }
}

/// Lays out RAM for `spec`; `rng_seed` is the guest's entropy.
pub(super) fn lay_out(spec: &MachineSpec, rng_seed: [u8; 32]) -> Result<Layout, MachineError> {
    let image = &spec.image;
    let CpuSpec::Riscv(cpu) = spec.cpu else {
        return Err(MachineError::Placement(format!(
            "the board virt has no {} processors",
            spec.cpu
        )));
    };
    let memory = spec.memory;
    let ram_end = RAM_BASE + memory;
    let firmware = match (&spec.firmware, image.kind) {
        (Firmware::Auto, ImageKind::LinuxImage) | (Firmware::Builtin, _) => true,
        // What lies in flash expects an SBI below it.
        (Firmware::Auto, _) => image.segments.is_empty(),
        (Firmware::None | Firmware::File(_), _) => false,
    };
    let harts = spec.cpus as u32;
    let reserved = if firmware { reserved_size(harts) } else { 0 };
    let mut pieces = Vec::new();

    // The image.
    let (entry, image_end) = match image.kind {
        ImageKind::LinuxImage => place_kernel(image, &mut pieces, memory)?,
        _ if image.segments.is_empty() => (image.entry, RAM_BASE),
        _ => place_segments(image, &mut pieces, memory)?,
    };
    let image_end = match &spec.firmware {
        Firmware::File(file) => {
            let (low, high) = file.span().unwrap_or((RAM_BASE, RAM_BASE));
            if pieces
                .iter()
                .any(|piece| piece.addr < high && piece.addr + piece.bytes.len() as u64 > low)
            {
                return Err(MachineError::Placement(format!(
                    "the image overlaps the firmware ({low:#x} to {high:#x}): give a flat image another \
                     place by --load-addr, or link it elsewhere",
                )));
            }
            place_segments(file, &mut pieces, memory)?.1.max(image_end)
        }
        _ => image_end,
    };
    if firmware && pieces.iter().any(|piece| piece.addr < RAM_BASE + reserved) {
        return Err(MachineError::Placement(format!(
            "the image lies in the firmware's memory ({RAM_BASE:#x} to {:#x}): run it without firmware \
             (--firmware none) or link it at {:#x}",
            RAM_BASE + reserved,
            RAM_BASE + KERNEL_ALIGN,
        )));
    }

    // From the top down: device tree, then RAM disk.
    let top = ram_end.min(LOW_LIMIT);
    let mut tree = TreeOptions {
        cpu,
        harts,
        memory,
        flash: spec.flash.is_some(),
        pci: spec.virtio == VirtioBus::Pci,
        firmware: firmware.then_some((RAM_BASE, reserved)),
        cmdline: spec.cmdline.clone(),
        initrd: None,
        rng_seed: Some(rng_seed),
    };
    let flatten = |tree: &TreeOptions| {
        virt::device_tree(tree)
            .map_err(|error| MachineError::Placement(format!("the command line: {error}")))
    };
    // The size does not depend on where the RAM disk lies.
    tree.initrd = spec.initrd.is_some().then_some((0, 0));
    let tree_size = flatten(&tree)?.len() as u64 + TREE_ROOM;
    let fdt = top.saturating_sub(tree_size) & !0xfff;
    if fdt < image_end {
        return Err(too_little("this image", image_end + tree_size, memory));
    }
    if let Some(initrd) = &spec.initrd {
        let len = initrd.len() as u64;
        let base = fdt.saturating_sub(len) & !0xfff;
        if base < image_end {
            return Err(too_little(
                "this image with its initrd",
                image_end + len + tree_size,
                memory,
            ));
        }
        tree.initrd = Some((base, base + len));
        pieces.push(Piece { addr: base, bytes: initrd.clone() });
    }
    pieces.push(Piece { addr: fdt, bytes: flatten(&tree)? });

    // What runs first.
    let (first, next_mode) = if firmware {
        let config = SbiConfig {
            base: RAM_BASE,
            harts,
            clint: virt::ACLINT.base,
            uart: virt::UART.base,
            finisher: virt::FINISHER.base,
            next_addr: entry,
            ..SbiConfig::default()
        };
        let image = sbi(&config).map_err(|error| MachineError::Placement(error.to_string()))?;
        pieces.push(Piece { addr: RAM_BASE, bytes: image.bytes });
        (image.entry, NextMode::Supervisor)
    } else if let Firmware::File(file) = &spec.firmware {
        (file.entry, NextMode::Supervisor)
    } else {
        (entry, NextMode::Machine)
    };
    let rom = boot_rom(&BootRomConfig { entry: first, fdt, next_addr: entry, next_mode });
    pieces.push(Piece { addr: virt::BOOT_ROM.base, bytes: rom });
    Ok(Layout { pieces, own_firmware: firmware, rom: 0, start: Start::Reset })
}

/// Places a Linux `Image`; its entry and the end of the memory it claims.
fn place_kernel(
    image: &LoadedImage,
    pieces: &mut Vec<Piece>,
    memory: u64,
) -> Result<(u64, u64), MachineError> {
    let offset = image.text_offset.max(KERNEL_ALIGN).next_multiple_of(KERNEL_ALIGN);
    let base = RAM_BASE.saturating_add(offset);
    let len: u64 = image.segments.iter().map(|segment| segment.size).sum();
    let end = base.saturating_add(image.image_size.max(len));
    if end > RAM_BASE + memory {
        return Err(too_little("this kernel", end.min(RAM_BASE + (1 << 40)) + 16 * MIB, memory));
    }
    for segment in &image.segments {
        pieces.push(Piece { addr: base + segment.addr, bytes: segment.bytes.clone() });
    }
    Ok((base + image.entry, end))
}

/// Places segments where they say; the image's entry and end.
fn place_segments(
    image: &LoadedImage,
    pieces: &mut Vec<Piece>,
    memory: u64,
) -> Result<(u64, u64), MachineError> {
    let Some((low, high)) = image.span() else {
        return Err(MachineError::Placement("this image has nothing to load".into()));
    };
    if low < RAM_BASE {
        return Err(MachineError::Placement(format!(
            "this image wants to lie at {low:#x}, where there is no RAM: link it at {RAM_BASE:#x} or above"
        )));
    }
    if high > RAM_BASE + memory {
        if high > RAM_BASE + (1 << 40) {
            return Err(MachineError::Placement(format!(
                "this image reaches up to {high:#x}, far above RAM at {RAM_BASE:#x}: link it lower"
            )));
        }
        return Err(too_little("this image", high + MIB, memory));
    }
    for segment in &image.segments {
        pieces.push(Piece { addr: segment.addr, bytes: segment.bytes.clone() });
    }
    Ok((image.entry, high))
}
