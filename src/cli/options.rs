//! Options that every way of starting a machine shares, and the specification made from them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use mimic_devices::disk::{Access, Disk, DiskImage, Overlay};

use super::engine::EngineArgs;
use super::{Failure, values};
use crate::board::virt::RAM_BASE;
use crate::gdb::Listener;
use crate::loader::{self, ImageKind, Isa, LoadError, LoadOptions, LoadedImage};
use crate::machine::Machine;
use crate::machine::spec::{
    BoardKind, ConsoleKind, CpuSpec, DiskSpec, Firmware, FlashSpec, Limits, MachineSpec, VirtioBus,
};
use crate::terminal::keys::EscapeKey;
use crate::terminal::session::{GdbOptions, SessionOptions};

/// A kernel is placed at multiples of this.
const KERNEL_ALIGNMENT: u64 = 2 << 20;
/// What a kernel needs beyond its image and what it unpacks; measured with Debian's.
const KERNEL_HEADROOM: u64 = 44 << 20;

/// How `--cpu` is written.
pub(super) const CPU_FORM: &str = "MODEL[,FEATURE=on|off]";

/// Boards, by their names on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Board {
    /// RISC-V, QEMU's memory map
    Virt,
    /// x86-64 with PCI
    Pc,
    /// x86-64 without PCI, virtio at fixed addresses
    Microvm,
}

impl Board {
    fn kind(self) -> BoardKind {
        match self {
            Board::Virt => BoardKind::Virt,
            Board::Pc => BoardKind::Pc,
            Board::Microvm => BoardKind::Microvm,
        }
    }
}

/// What `--firmware` names.
#[derive(Clone, Debug)]
pub(super) enum FirmwareOption {
    None,
    Builtin,
    File(PathBuf),
}

impl std::str::FromStr for FirmwareOption {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => FirmwareOption::None,
            "builtin" => FirmwareOption::Builtin,
            path => FirmwareOption::File(path.into()),
        })
    }
}

/// What `--disk` names: `FILE[,ro][,serial=TEXT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiskOption {
    path: PathBuf,
    read_only: bool,
    serial: String,
}

impl std::str::FromStr for DiskOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split(',');
        let path = words.next().unwrap_or_default();
        if path.is_empty() {
            return Err("name the image's file: FILE[,ro][,serial=TEXT]".into());
        }
        let mut disk = DiskOption { path: path.into(), read_only: false, serial: "mimic".into() };
        for word in words {
            match word.split_once('=') {
                None if word == "ro" => disk.read_only = true,
                Some(("serial", serial)) => disk.serial = serial.into(),
                _ => return Err(format!("`{word}` is unknown: FILE[,ro][,serial=TEXT]")),
            }
        }
        Ok(disk)
    }
}

/// The files that a machine's options name, opened.
pub(super) struct Attached {
    firmware: Firmware,
    disks: Vec<DiskSpec>,
    flash: Option<FlashSpec>,
}

/// Consoles, by their names on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ConsoleOption {
    /// The serial port, ttyS0
    Uart,
    /// The virtio console, hvc0
    Virtio,
}

/// Ways to virtio devices, by their names on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum VirtioOption {
    /// Registers at fixed addresses
    Mmio,
    /// Functions of a PCI bus
    Pci,
}

#[derive(Args, Clone, Debug)]
pub(super) struct MachineArgs {
    /// Memory, like 512M or 2G
    #[arg(short, long, value_name = "SIZE", value_parser = values::memory)]
    pub(super) mem: Option<u64>,
    /// Number of harts (processors), 1 to 8
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) cpus: usize,
    /// Model of the harts, and what to switch on or off in it; `mimic cpus` lists both [default: the best for the
    /// guest's instruction set]
    #[arg(long, value_name = CPU_FORM)]
    pub(super) cpu: Option<CpuSpec>,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
    /// Board [default: the one for the guest's instruction set]
    #[arg(long, value_enum)]
    pub(super) machine: Option<Board>,
    /// What an x86 guest writes to isa-debug-exit (port 0xf4) to say that it passed: exit status 0. Any other value V,
    /// and without this option every value, ends with the status that QEMU has, 2 * V + 1
    #[arg(long, value_name = "V", value_parser = values::word)]
    pub(super) pass_exit: Option<u32>,
    /// M-mode firmware: `none`, `builtin` or a file such as OpenSBI's fw_dynamic.bin; kernels get the
    /// built-in one, ELF and flat files none
    #[arg(long, value_name = "none|builtin|FILE")]
    pub(super) firmware: Option<FirmwareOption>,
    #[command(flatten)]
    pub(super) disks: DiskArgs,
    /// How the guest reaches disks, console and entropy [default: pci on pc and for Linux on virt, mmio elsewhere]
    #[arg(long, value_enum)]
    pub(super) virtio: Option<VirtioOption>,
    /// Flash memory with this firmware, such as EDK2's RISCV_VIRT_CODE.fd
    #[arg(long, value_name = "FILE")]
    pub(super) flash: Option<PathBuf>,
    /// File with the variables that the firmware in flash keeps, such as a copy of RISCV_VIRT_VARS.fd
    #[arg(long, value_name = "FILE", requires = "flash")]
    pub(super) flash_vars: Option<PathBuf>,
    /// Run the same way every time: one thread, time counted in retired instructions
    #[arg(long)]
    pub(super) deterministic: bool,
    /// Which device of the guest the keyboard types into; both print
    #[arg(long, value_enum, default_value = "uart")]
    pub(super) console: ConsoleOption,
}

#[derive(Args, Clone, Debug)]
pub(super) struct DiskArgs {
    /// Disk (virtio-blk) on a raw image; may be given several times
    #[arg(long = "disk", value_name = "FILE[,ro][,serial=TEXT]")]
    disks: Vec<DiskOption>,
    /// Keep what the guest writes to its disks apart, and forget it at the end
    #[arg(long)]
    ephemeral: bool,
}

impl DiskArgs {
    /// Whether there are any.
    pub(super) fn given(&self) -> bool {
        !self.disks.is_empty()
    }

    /// Opens the images.
    pub(super) fn open(&self) -> Result<Vec<DiskSpec>, Failure> {
        self.disks.iter().map(|disk| self.open_one(disk)).collect()
    }

    fn open_one(&self, option: &DiskOption) -> Result<DiskSpec, Failure> {
        let read_only = option.read_only || self.ephemeral;
        let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
        let image = Arc::new(DiskImage::open(&option.path, access).map_err(Failure::usage)?);
        let disk: Arc<dyn Disk> = if self.ephemeral && !option.read_only {
            Arc::new(Overlay::new(image).map_err(Failure::host)?)
        } else {
            image
        };
        Ok(DiskSpec { disk, serial: option.serial.clone() })
    }
}

#[derive(Args, Clone, Debug)]
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
    /// Say so when the guest has printed nothing for this long [default: 10s, 60s for ready guests]
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub(super) silence: Option<Duration>,
    /// Let gdb attach here: HOST:PORT, :PORT (this computer alone) or a path for a Unix socket
    #[arg(long, value_name = "ADDRESS")]
    pub(super) gdb: Option<String>,
    /// Do nothing before gdb has attached and continues
    #[arg(short = 'S', long, requires = "gdb")]
    pub(super) gdb_wait: bool,
    /// Let --gdb listen where other computers can reach it; whoever does owns the guest
    #[arg(long, requires = "gdb")]
    pub(super) gdb_remote: bool,
    /// End when the guest asks for a reset
    #[arg(long)]
    pub(super) no_reboot: bool,
    /// Print a hash of all that the guest can tell at the end: of harts, devices, time and memory
    #[arg(long)]
    pub(super) state_hash: bool,
    /// Where the escape key and s save the machine, instead of a numbered file in the current folder
    #[arg(long, value_name = "FILE")]
    pub(super) snapshot: Option<PathBuf>,
    /// Save the machine when the limit of --max-insns is reached
    #[arg(long, value_name = "FILE", requires = "max_insns")]
    pub(super) save_at_limit: Option<PathBuf>,
}

impl RunningArgs {
    /// The session of an image that may be silent for `patience` unless the user says otherwise.
    pub(super) fn session(
        &self,
        image: &LoadedImage,
        patience: Duration,
    ) -> Result<SessionOptions, Failure> {
        let advice = match image.kind {
            ImageKind::LinuxX86 | ImageKind::Pvh => {
                "Does the kernel know its console? Try --append \"console=ttyS0 earlyprintk=ttyS0,keep\"; the \
                 serial port is a 16550A at port 0x3f8."
            }
            _ if image.isa == Isa::X86_64 => {
                "Does the program use the serial port (16550A at port 0x3f8) or the debug console (port 0xe9)?"
            }
            ImageKind::LinuxImage => {
                "Does the kernel know its console? Try --append \"console=ttyS0 earlycon\"; the serial \
                 port is a 16550A at 0x10000000."
            }
            _ => {
                "Does the program use the serial port (16550A at 0x10000000) or tohost? If it expects \
                 an SBI below it, try --firmware builtin; if it brings its own, --firmware none."
            }
        };
        let gdb = match &self.gdb {
            Some(address) => Some(GdbOptions {
                listener: Arc::new(
                    Listener::bind(address, self.gdb_remote).map_err(Failure::usage)?,
                ),
                wait: self.gdb_wait,
            }),
            None => None,
        };
        Ok(SessionOptions {
            escape: self.escape,
            silence: Some(self.silence.unwrap_or(patience)),
            advice,
            reboot: !self.no_reboot,
            gdb,
            snapshot: self.snapshot.clone(),
        })
    }

    /// Asks the machine for what shall be done at its end.
    pub(super) fn prepare(&self, mut machine: Machine) -> Machine {
        if self.state_hash {
            machine.hash_at_end();
        }
        if let Some(path) = &self.save_at_limit {
            machine.save_at_limit(path.clone());
        }
        machine
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
    /// How long it may print nothing before that looks wrong.
    pub(super) patience: Duration,
}

/// For images that may be meant for another machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// For guests that are known to print in the end, on a busy host, too.
pub(super) const PATIENCE_WITH_KNOWN: Duration = Duration::from_secs(60);

impl MachineArgs {
    /// Whether a ready guest must bring kernel modules: for disks, and on boards whose virtio devices not every kernel
    /// finds.
    pub(super) fn needs_modules(&self) -> bool {
        self.disks.given() || matches!(self.machine, Some(Board::Microvm))
    }

    /// Checks the options against the guest.
    pub(super) fn check(&self, guest: &Guest, default_memory: u64) -> Result<(), Failure> {
        let image = &guest.image;
        if let Some(cpu) = &self.cpu
            && cpu.isa() != image.isa
        {
            return Err(Failure::usage(format!(
                "--cpu {cpu} is a model of {} processors, this guest is for {}; `mimic cpus` lists what there is",
                cpu.isa().name(),
                image.isa.name()
            )));
        }
        if image.isa == Isa::X86_64 && (self.firmware.is_some() || self.flash.is_some()) {
            return Err(Failure::usage(
                "--firmware and --flash are for RISC-V; a ROM of a PC is given as the IMAGE itself",
            ));
        }
        if image.isa != Isa::X86_64 && self.pass_exit.is_some() {
            return Err(Failure::usage(
                "--pass-exit is for x86 guests: only a PC has isa-debug-exit",
            ));
        }
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

    /// Whether the firmware comes from a file.
    pub(super) fn has_firmware_file(&self) -> bool {
        matches!(self.firmware, Some(FirmwareOption::File(_)))
    }

    /// Opens the files that the options name.
    pub(super) fn attach(&self) -> Result<Attached, Failure> {
        let in_file = |path: &PathBuf| {
            let path = path.clone();
            move |source| Failure::usage(LoadError::InFile { path, source: Box::new(source) })
        };
        let firmware = match &self.firmware {
            None => Firmware::Auto,
            Some(FirmwareOption::None) => Firmware::None,
            Some(FirmwareOption::Builtin) => Firmware::Builtin,
            Some(FirmwareOption::File(path)) => {
                let bytes = loader::read_file(path).map_err(in_file(path))?;
                let load_addr = (!loader::is_elf(&bytes)).then_some(RAM_BASE);
                let options = LoadOptions { load_addr, bits: None };
                let mut image = loader::parse(&bytes, &options).map_err(in_file(path))?;
                if image.span().is_some_and(|(low, _)| low == 0) {
                    // Linked to be moved, as OpenSBI is.
                    image.move_by(RAM_BASE);
                }
                Firmware::File(Box::new(image))
            }
        };
        let disks = self.disks.open()?;
        let flash = match &self.flash {
            None => None,
            Some(path) => Some(FlashSpec {
                code: loader::read_file(path).map_err(in_file(path))?,
                variables: self.flash_vars.clone(),
            }),
        };
        Ok(Attached { firmware, disks, flash })
    }

    /// The specification of a machine for the guest.
    pub(super) fn spec(
        &self,
        guest: &Guest,
        attached: &Attached,
        limits: Limits,
        default_memory: u64,
    ) -> MachineSpec {
        let board = self.machine.map_or(BoardKind::for_isa(guest.image.isa), Board::kind);
        MachineSpec {
            board,
            cpu: self.cpu.clone().unwrap_or_else(|| CpuSpec::default_for(guest.image.isa)),
            cpus: self.cpus,
            deterministic: self.deterministic,
            memory: self.mem.unwrap_or(default_memory),
            engine: self.engine.spec(guest.image.isa, self.deterministic || limits.insns.is_some()),
            firmware: attached.firmware.clone(),
            disks: attached.disks.clone(),
            flash: attached.flash.clone(),
            image: guest.image.clone(),
            initrd: guest.initrd.clone(),
            cmdline: guest.cmdline.clone(),
            console: match self.console {
                ConsoleOption::Uart => ConsoleKind::Uart,
                ConsoleOption::Virtio => ConsoleKind::Virtio,
            },
            virtio: match self.virtio {
                None => VirtioBus::default_for(board, guest.image.kind),
                Some(VirtioOption::Mmio) => VirtioBus::Mmio,
                Some(VirtioOption::Pci) => VirtioBus::Pci,
            },
            limits,
            signature: guest.signature.clone(),
            pass_exit: self.pass_exit,
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
