//! `mimic run`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::options::{Guest, MachineArgs, PATIENCE, RunningArgs};
use super::{Failure, values};
use crate::board::virt;
use crate::loader::{self, Bits, ImageKind, Isa, LoadError, LoadOptions, LoadedImage};
use crate::machine::spec::{End, Limits, Report};
use crate::machine::{ConsoleIo, Machine, MachineError};
use crate::report::{self, JsonReport};
use crate::terminal::session::{self, SessionError, SessionOptions};
use crate::terminal::tty;

/// Where firmware expects the stage after it: 2 MiB above the start of RAM.
const NEXT_STAGE: u64 = virt::RAM_BASE + (2 << 20);
/// Memory unless told otherwise.
const DEFAULT_MEMORY: u64 = 512 << 20;

/// What is run.
#[derive(Args, Clone, Debug)]
pub(super) struct ImageArgs {
    /// ELF file, Linux Image or bzImage, multiboot kernel, ROM of a PC or (with --load-addr) flat binary
    #[arg(value_name = "IMAGE")]
    image: Option<PathBuf>,
    /// Linux Image or bzImage (the same as IMAGE)
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line
    #[arg(long, visible_alias = "cmdline", value_name = "TEXT", allow_hyphen_values = true)]
    append: Option<String>,
    /// Take IMAGE as raw code for this address: RV64, or x86 with --bits
    #[arg(long, value_name = "ADDRESS", value_parser = values::address)]
    load_addr: Option<u64>,
    /// The raw code is for x86, and begins in real (16), protected (32) or 64-bit mode
    #[arg(long, value_name = "16|32|64", value_parser = bits, requires = "load_addr")]
    bits: Option<Bits>,
}

fn bits(text: &str) -> Result<Bits, String> {
    match text {
        "16" => Ok(Bits::B16),
        "32" => Ok(Bits::B32),
        "64" => Ok(Bits::B64),
        _ => Err(format!("`{text}` is none of 16, 32, 64")),
    }
}

#[derive(Args, Clone, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// Write the memory between begin_signature and end_signature, in hex
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Bytes on a line of the signature
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = granularity)]
    signature_granularity: usize,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    pub(super) running: RunningArgs,
}

/// A power of two up to 16.
pub(super) fn granularity(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes @ (1 | 2 | 4 | 8 | 16)) => Ok(bytes),
        _ => Err(format!("`{text}` is none of 1, 2, 4, 8, 16")),
    }
}

impl ImageArgs {
    /// The file that is named.
    pub(super) fn path(&self) -> Option<&Path> {
        self.kernel.as_deref().or(self.image.as_deref())
    }

    /// The command line's words for the kernel.
    pub(super) fn append(&self) -> Option<&str> {
        self.append.as_deref()
    }

    fn options(&self) -> LoadOptions {
        LoadOptions { load_addr: self.load_addr, bits: self.bits }
    }

    /// The guest, and its memory unless told otherwise.
    pub(super) fn guest(&self, machine: &MachineArgs) -> Result<(Guest, u64), Failure> {
        let image = match self.path() {
            Some(path) => {
                load(path, self.options(), machine.has_firmware_file()).map_err(load_failure)?
            }
            None if machine.flash.is_some() => LoadedImage::nothing(virt::FLASH[0].base),
            None if machine.firmware.is_some() => LoadedImage::nothing(NEXT_STAGE),
            None => {
                return Err(Failure::usage(
                    "name an IMAGE: an ELF file, a Linux Image or (with --load-addr) a flat binary",
                ));
            }
        };
        let linux = matches!(image.kind, ImageKind::LinuxImage | ImageKind::LinuxX86);
        if image.isa == Isa::Riscv64 && !linux && (self.initrd.is_some() || self.append.is_some()) {
            log::warn!(
                "an initrd and a command line are described in the device tree; bare programs rarely look there"
            );
        }
        let guest = Guest {
            image,
            initrd: self.initrd.as_deref().map(initrd).transpose()?,
            cmdline: self
                .append
                .clone()
                .unwrap_or_else(|| if linux { "console=ttyS0".into() } else { String::new() }),
            signature: None,
            patience: PATIENCE,
        };
        Ok((guest, DEFAULT_MEMORY))
    }
}

pub(super) fn execute(args: &RunArgs) -> Result<u8, Failure> {
    let (mut guest, memory) = args.image.guest(&args.machine)?;
    if args.signature.is_some() && guest.image.signature.is_none() {
        return Err(Failure::usage(
            "--signature needs the symbols begin_signature and end_signature, which the image has not",
        ));
    }
    guest.signature = args.signature.clone().map(|path| (path, args.signature_granularity));
    start(&args.machine, &args.running, &guest, memory)
}

/// Loads an image. Raw code that firmware hands over to lies where QEMU puts it, unless told otherwise.
fn load(path: &Path, options: LoadOptions, after_firmware: bool) -> Result<LoadedImage, LoadError> {
    match loader::load_file(path, &options) {
        Err(LoadError::InFile { source, .. })
            if after_firmware && matches!(*source, LoadError::Unknown) =>
        {
            loader::load_file(path, &LoadOptions { load_addr: Some(NEXT_STAGE), ..options })
        }
        loaded => loaded,
    }
}

/// Runs a guest to its end and reports.
pub(super) fn start(
    machine: &MachineArgs,
    running: &RunningArgs,
    guest: &Guest,
    default_memory: u64,
) -> Result<u8, Failure> {
    machine.check(guest, default_memory)?;
    let counted = running.max_insns.is_some();
    machine.engine.check(guest.image.isa, machine.deterministic, counted)?;
    let attached = machine.attach()?;
    let make = |io, limits| {
        let spec = machine.spec(guest, &attached, limits, default_memory);
        Ok(running.prepare(Machine::new(spec, io)?))
    };
    let options = running.session(&guest.image, guest.patience)?;
    let report = run_session(make, running.limits(), &options)?;
    finish(&report, running, &guest.image)
}

/// Runs the machines that `make` makes, with the user's terminal around them.
pub(super) fn run_session(
    make: impl Fn(ConsoleIo, Limits) -> Result<Machine, MachineError>,
    limits: Limits,
    options: &SessionOptions,
) -> Result<Report, Failure> {
    let result = session::run(make, limits, options);
    tty::restore();
    result.map_err(|error| match error {
        SessionError::Machine(MachineError::Host { .. } | MachineError::Engine(_))
        | SessionError::Host { .. } => Failure::host(error),
        SessionError::Machine(MachineError::Snapshot(ref why)) if why.is_of_host() => {
            Failure::host(error)
        }
        SessionError::Machine(_) => Failure::usage(error),
    })
}

/// Says how a run ended, the cause last.
pub(super) fn finish(
    report: &Report,
    running: &RunningArgs,
    image: &LoadedImage,
) -> Result<u8, Failure> {
    if let Some(line) = report::unmapped(report) {
        tty::say(&format!("mimic: {line}"));
    }
    if running.stats {
        tty::say(&format!("mimic: counters\n{}", report::statistics(&report.stats)));
    }
    if let Some(code) = report.post {
        tty::say(&format!("mimic: last POST code {code:#04x}"));
    }
    if let Some(hash) = report.state_hash {
        tty::say(&format!("mimic: state hash {}", report::hash(hash)));
    }
    if let (End::InsnLimit, Some(path)) = (&report.end, &running.save_at_limit) {
        tty::say(&format!("mimic: saved to {}", path.display()));
    }
    let htif = image.tohost.is_some();
    let status = report::status(&report.end, htif);
    if let Some(path) = &running.report {
        write_report(path, &JsonReport::new(report, htif))?;
    }
    let mut cause = report::cause(&report.end);
    if let (End::Died(_), ImageKind::Elf, Isa::Riscv64) = (&report.end, image.kind, image.isa) {
        cause.push_str("; if it expects an SBI below it, try --firmware builtin");
    }
    tty::say(&format!("mimic: {cause}"));
    Ok(status)
}

fn write_report(path: &Path, report: &JsonReport) -> Result<(), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::host(format!("{}: {error}", path.display()));
    let mut text = serde_json::to_string_pretty(report).map_err(|e| failed(&e))?;
    text.push('\n');
    std::fs::write(path, text).map_err(|e| failed(&e))
}

fn initrd(path: &Path) -> Result<Vec<u8>, Failure> {
    loader::read_file(path).map_err(|source| {
        Failure::usage(LoadError::InFile { path: path.to_path_buf(), source: Box::new(source) })
    })
}

fn load_failure(error: LoadError) -> Failure {
    match &error {
        LoadError::InFile { source, .. } if matches!(**source, LoadError::Io(_)) => {
            Failure::host(error)
        }
        _ => Failure::usage(error),
    }
}
