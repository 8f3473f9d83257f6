//! QEMU's command line for the machine that a guest has here.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The program, for RISC-V guests.
const PROGRAM: &str = "qemu-system-riscv64";

/// A guest's files and machine.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// A kernel in S-mode, with QEMU's own firmware below it; else a bare program in M-mode.
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

impl Qemu {
    /// Finds it.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn find() -> Result<Self, String> {
        let output = Command::new(PROGRAM).arg("--version").stdin(Stdio::null()).output();
        let output = output.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!(
                    "--qemu: `{PROGRAM}` is not installed (Debian's package `qemu-system-riscv`)"
                )
            }
            _ => format!("--qemu: `{PROGRAM}`: {error}"),
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
        let mut command = Command::new(PROGRAM);
        command
            .args(["-machine", "virt", "-cpu", "rv64", "-accel", &format!("tcg,thread={thread}")])
            .args(["-smp", &kernel.cpus.to_string(), "-m", &format!("{}K", kernel.memory >> 10)])
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"])
            .args(["-bios", if kernel.supervisor { "default" } else { "none" }])
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
