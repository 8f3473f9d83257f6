//! QEMU's command line for the machine that a guest has here.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::loader::Isa;

/// The program for an instruction set, and its Debian package.
const fn program(isa: Isa) -> (&'static str, &'static str) {
    match isa {
        Isa::Riscv64 => ("qemu-system-riscv64", "qemu-system-riscv"),
        Isa::X86_64 => ("qemu-system-x86_64", "qemu-system-x86"),
    }
}

/// A guest's files and machine.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Instruction set.
    pub isa: Isa,
    /// A kernel in S-mode, with QEMU's own firmware below it, or an operating system of a PC; else a bare program: in
    /// M-mode, or one that ends by isa-debug-exit.
    pub supervisor: bool,
    /// The image.
    pub image: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: String,
    /// Bytes of RAM.
    pub memory: u64,
    /// Harts.
    pub cpus: usize,
}

/// An installed QEMU.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// What it says of its version.
    pub version: String,
}

impl Kernel {
    /// QEMU's exit status when the guest passes: isa-debug-exit makes 1 of the word 0.
    #[must_use]
    pub fn passed(&self) -> i32 {
        i32::from(self.isa == Isa::X86_64 && !self.supervisor)
    }
}

impl Qemu {
    /// Finds the one for an instruction set.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn find(isa: Isa) -> Result<Self, String> {
        let (program, package) = program(isa);
        let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        let output = output.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("--qemu: `{program}` is not installed (Debian's package `{package}`)")
            }
            _ => format!("--qemu: `{program}`: {error}"),
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().next().unwrap_or_default();
        let version = line.trim_start_matches("QEMU emulator version ").to_owned();
        Ok(Qemu { version })
    }

    /// The command that runs a guest. One hart runs on the thread that QEMU uses for one; several have a thread each.
    #[must_use]
    pub fn command(&self, kernel: &Kernel) -> Command {
        let thread = if kernel.cpus == 1 { "single" } else { "multi" };
        let mut command = Command::new(program(kernel.isa).0);
        match kernel.isa {
            Isa::Riscv64 => {
                let bios = if kernel.supervisor { "default" } else { "none" };
                command.args(["-machine", "virt", "-cpu", "rv64", "-bios", bios]);
            }
            Isa::X86_64 => {
                command.args(["-machine", "pc", "-cpu", "max"]);
                if !kernel.supervisor {
                    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
                }
            }
        }
        command
            .args(["-accel", &format!("tcg,thread={thread}")])
            .args(["-smp", &kernel.cpus.to_string(), "-m", &format!("{}K", kernel.memory >> 10)])
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"])
            .arg("-kernel")
            .arg(&kernel.image);
        if let Some(initrd) = &kernel.initrd {
            command.arg("-initrd").arg(initrd);
        }
        if !kernel.cmdline.is_empty() {
            command.args(["-append", &kernel.cmdline]);
        }
        command
    }
}
