//! The command line: what is asked for, checked before a machine exists.
//!
//! Every way out ends with a line on stderr that names the cause, and a status of `report`.

mod boot;
mod compare;
mod cpus;
mod doctor;
mod engine;
mod machines;
mod options;
mod run;
mod snapshot;
mod test;
mod values;
mod verify;

use std::sync::Arc;

use clap::{Parser, Subcommand};
use signal_hook::consts::SIGXFSZ;

use crate::report;
use crate::terminal::tty;

/// Runs RISC-V computers in a terminal.
#[derive(Parser)]
#[command(name = "mimic", version, about, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Try first:
  mimic boot demo                  a guest that needs nothing
  mimic boot debian-riscv64        Debian's kernel and a shell
Exit status: the guest's own (0 = power-off or pass, else failure), 121 guest died,
122 guest reported a panic, 124 limit reached, 125 host error, 126 usage error.";

#[derive(Subcommand)]
enum Command {
    /// Run an image: ELF, Linux Image or flat binary
    Run(run::RunArgs),
    /// Start a ready guest, fetched when needed; without a name, list them
    Boot(boot::BootArgs),
    /// Run conformance ROMs and tell which pass; without a path, the built-in ones
    Test(test::TestArgs),
    /// Run a guest on several engines, and on QEMU, and compare their CPU times
    Compare(compare::CompareArgs),
    /// Run a guest on two engines in lockstep, and show the first block after which they differ
    Verify(Box<verify::VerifyArgs>),
    /// Save a machine to a file, go on from one, or tell what one holds
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// List boards and their memory maps
    Machines,
    /// List models of CPUs, and what can be switched in them
    Cpus,
    /// List what can run a guest's instructions, and what can be switched in it
    Engines,
    /// Show what this host offers
    Doctor,
}

/// Why a command ended early: what to tell the user, and the exit status.
#[derive(Debug)]
struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    /// The command line, or what it names, is wrong.
    fn usage(message: impl ToString) -> Self {
        Failure { message: message.to_string(), status: report::STATUS_USAGE }
    }

    /// The host failed.
    fn host(message: impl ToString) -> Self {
        Failure { message: message.to_string(), status: report::STATUS_HOST }
    }
}

/// Obeys the process's command line and returns the exit status.
pub fn main() -> u8 {
    env_logger::init();
    // A limit of the host on file sizes shall fail the write, not end the process.
    if let Err(error) = signal_hook::flag::register(SIGXFSZ, Arc::default()) {
        log::warn!("SIGXFSZ cannot be caught: {error}");
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stream leaves nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { report::STATUS_USAGE } else { 0 };
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::execute(&args),
        Command::Boot(args) => boot::execute(&args),
        Command::Test(args) => test::execute(&args),
        Command::Compare(args) => compare::execute(&args),
        Command::Snapshot(command) => snapshot::execute(&command),
        Command::Verify(args) => verify::execute(&args),
        Command::Machines => machines::execute(),
        Command::Cpus => cpus::execute(),
        Command::Engines => engine::execute(),
        Command::Doctor => doctor::execute(),
    };
    tty::restore();
    result.unwrap_or_else(|failure| {
        tty::say(&format!("mimic: {}", failure.message));
        failure.status
    })
}

/// Prints to stdout. A reader that went away (`mimic machines | head -1`) is no error.
fn print(text: &str) -> Result<u8, Failure> {
    use std::io::Write as _;
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::host(format!("stdout cannot be written: {error}")))
        }
        _ => Ok(0),
    }
}
