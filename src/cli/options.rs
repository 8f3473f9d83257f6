//! Options that every way of starting a machine shares, and the specification made from them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Failure, values};
use crate::loader::{ImageKind, LoadedImage};
use crate::machine::spec::{BoardKind, ConsoleKind, EngineKind, Firmware, Limits, MachineSpec};
use crate::terminal::keys::EscapeKey;
use crate::terminal::session::SessionOptions;

/// A kernel is placed at multiples of this.
const KERNEL_ALIGNMENT: u64 = 2 << 20;
/// What a kernel needs beyond its image and what it unpacks; measured with Debian's.
const KERNEL_HEADROOM: u64 = 44 << 20;

/// Boards, by their names on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Board {
    /// RISC-V, QEMU's memory map
    Virt,
}

/// Engines, by their names on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Engine {
    /// The interpreter
    Interp,
}

/// Firmware, by its names on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FirmwareOption {
    /// The image is entered in M-mode
    None,
    /// Our own SBI, the image is entered in S-mode
    Builtin,
}

/// Consoles, by their names on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ConsoleOption {
    /// The serial port, ttyS0
    Uart,
    /// The virtio console, hvc0
    Virtio,
}

#[derive(Args, Debug)]
pub(super) struct MachineArgs {
    /// Memory, like 512M or 2G
    #[arg(short, long, value_name = "SIZE", value_parser = values::memory)]
    pub(super) mem: Option<u64>,
    /// Number of harts, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) cpus: usize,
    /// What runs the guest's instructions
    #[arg(long, value_enum, default_value = "interp")]
    pub(super) engine: Engine,
    /// Board
    #[arg(long, value_enum, default_value = "virt")]
    pub(super) machine: Board,
    /// M-mode firmware; kernels get the built-in one, ELF and flat files none
    #[arg(long, value_enum)]
    pub(super) firmware: Option<FirmwareOption>,
    /// Run the same way every time: one thread, time counted in retired instructions
    #[arg(long)]
    pub(super) deterministic: bool,
    /// Which device of the guest the keyboard types into; both print
    #[arg(long, value_enum, default_value = "uart")]
    pub(super) console: ConsoleOption,
}

#[derive(Args, Debug)]
pub(super) struct RunningArgs {
    /// Print counters at the end
    #[arg(long)]
    pub(super) stats: bool,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Stop after this time, like 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub(super) timeout: Option<Duration>,
    /// Stop after this many instructions, like 500M
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(super) max_insns: Option<u64>,
    /// Key that introduces a command on a terminal: ^A to ^Z, ^], ^_ or none
    #[arg(long, value_name = "KEY", default_value = "^A")]
    pub(super) escape: EscapeKey,
    /// Say so when the guest has printed nothing for this long
    #[arg(long, value_name = "TIME", value_parser = values::time, default_value = "10s")]
    pub(super) silence: Duration,
    /// End when the guest asks for a reset
    #[arg(long)]
    pub(super) no_reboot: bool,
}

impl RunningArgs {
    pub(super) fn session(&self, image: &LoadedImage) -> SessionOptions {
        let advice = match image.kind {
            ImageKind::LinuxImage => {
                "Does the kernel know its console? Try --append \"console=ttyS0 earlycon\"; the serial \
                 port is a 16550A at 0x10000000."
            }
            ImageKind::Elf | ImageKind::Flat => {
                "Does the program use the serial port (16550A at 0x10000000) or tohost? If it expects \
                 an SBI below it, try --firmware builtin; if it brings its own, --firmware none."
            }
        };
        SessionOptions {
            escape: self.escape,
            silence: Some(self.silence),
            advice,
            reboot: !self.no_reboot,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { insns: self.max_insns, time: self.timeout }
    }
}

/// What is given to a machine besides its options.
pub(super) struct Guest {
    pub(super) image: LoadedImage,
    pub(super) initrd: Option<Vec<u8>>,
    pub(super) cmdline: String,
    pub(super) signature: Option<(PathBuf, usize)>,
}

impl MachineArgs {
    /// Checks the options against the guest.
    pub(super) fn check(&self, guest: &Guest, default_memory: u64) -> Result<(), Failure> {
        let image = &guest.image;
        if image.kind == ImageKind::LinuxImage
            && matches!(self.firmware, Some(FirmwareOption::None))
        {
            return Err(Failure::usage(
                "a Linux Image runs in S-mode and needs an SBI below it; leave --firmware none away",
            ));
        }
        let memory = self.mem.unwrap_or(default_memory);
        let needed = needed_memory(guest);
        if memory < needed {
            return Err(Failure::usage(format!(
                "{} of memory are too little: this guest needs at least {}; try --mem {}",
                values::mebibytes(memory),
                values::mebibytes(needed),
                values::mebibytes(needed.next_power_of_two())
            )));
        }
        Ok(())
    }

    /// The specification of a machine for the guest.
    pub(super) fn spec(&self, guest: &Guest, limits: Limits, default_memory: u64) -> MachineSpec {
        MachineSpec {
            board: match self.machine {
                Board::Virt => BoardKind::Virt,
            },
            cpus: self.cpus,
            deterministic: self.deterministic,
            memory: self.mem.unwrap_or(default_memory),
            engine: match self.engine {
                Engine::Interp => EngineKind::Interp,
            },
            firmware: match self.firmware {
                None => Firmware::Auto,
                Some(FirmwareOption::None) => Firmware::None,
                Some(FirmwareOption::Builtin) => Firmware::Builtin,
            },
            image: guest.image.clone(),
            initrd: guest.initrd.clone(),
            cmdline: guest.cmdline.clone(),
            console: match self.console {
                ConsoleOption::Uart => ConsoleKind::Uart,
                ConsoleOption::Virtio => ConsoleKind::Virtio,
            },
            limits,
            signature: guest.signature.clone(),
        }
    }
}

/// The memory below which a kernel would die before it can say so, in bytes; 0 when the machine's own
/// check (does everything fit?) is enough.
fn needed_memory(guest: &Guest) -> u64 {
    let image = &guest.image;
    if image.kind != ImageKind::LinuxImage {
        return 0;
    }
    let initrd = guest.initrd.as_ref().map_or(0, |bytes| bytes.len() as u64);
    // The initrd lies in memory twice: as it is, and unpacked (to at least its size).
    image.text_offset.max(KERNEL_ALIGNMENT) + image.image_size + 2 * initrd + KERNEL_HEADROOM
}
