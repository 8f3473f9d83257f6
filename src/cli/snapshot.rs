//! `mimic snapshot`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::engine::EngineArgs;
use super::options::{DiskArgs, PATIENCE, RunningArgs};
use super::run::{self, RunArgs};
use super::{Failure, print, values};
use crate::machine::Machine;
use crate::machine::snapshot::{Snapshot, SnapshotError};
use crate::machine::spec::Resumption;
use crate::report;

#[derive(Subcommand)]
pub(super) enum SnapshotCommand {
    /// Run a guest up to an instruction and save the machine there
    Save(Box<SaveArgs>),
    /// Go on with a saved machine
    Load(Box<LoadArgs>),
    /// Tell what a snapshot holds
    Info {
        /// The snapshot
        file: PathBuf,
    },
}

#[derive(Args)]
pub(super) struct SaveArgs {
    /// The file to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// When to save: after this many instructions of all harts, like insns=500M
    #[arg(long, value_name = "insns=N", value_parser = moment)]
    at: u64,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Args)]
pub(super) struct LoadArgs {
    /// The snapshot
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    engine: EngineArgs,
    /// Disks, as the saved machine had them
    #[command(flatten)]
    disks: DiskArgs,
    #[command(flatten)]
    running: RunningArgs,
}

/// `insns=N`.
fn moment(text: &str) -> Result<u64, String> {
    let count = text.strip_prefix("insns=");
    values::count(count.ok_or_else(|| format!("`{text}` is no moment; give one like insns=500M"))?)
}

pub(super) fn execute(command: &SnapshotCommand) -> Result<u8, Failure> {
    match command {
        SnapshotCommand::Save(args) => save(args),
        SnapshotCommand::Load(args) => load(args),
        SnapshotCommand::Info { file } => info(file),
    }
}

fn save(args: &SaveArgs) -> Result<u8, Failure> {
    let mut run = args.run.clone();
    run.running.max_insns = Some(args.at);
    run.running.save_at_limit = Some(args.file.clone());
    match run::execute(&run)? {
        report::STATUS_LIMIT => Ok(0),
        status => Err(Failure {
            message: format!("{}: not written, for the guest ended before", args.file.display()),
            status: if status == 0 { report::STATUS_LIMIT } else { status },
        }),
    }
}

fn failure(error: SnapshotError) -> Failure {
    if error.is_of_host() { Failure::host(error) } else { Failure::usage(error) }
}

fn load(args: &LoadArgs) -> Result<u8, Failure> {
    let config = Snapshot::open(&args.file).map_err(failure)?.state().config.clone();
    let (isa, counted) = (config.cpu.isa(), args.running.max_insns.is_some());
    args.engine.check(isa, config.deterministic, counted)?;
    let how = Resumption {
        engine: args.engine.spec(isa, counted || config.deterministic),
        limits: args.running.limits(),
        disks: args.disks.open()?,
    };
    let image = how.image(&config);
    let make =
        |io, _| Ok(args.running.prepare(Machine::resume(Snapshot::open(&args.file)?, &how, io)?));
    let mut options = args.running.session(&image, PATIENCE)?;
    // There is no image here that a reset could start again.
    options.reboot = false;
    let report = run::run_session(make, how.limits, &options)?;
    run::finish(&report, &args.running, &image)
}

fn info(file: &Path) -> Result<u8, Failure> {
    let snapshot = Snapshot::open(file).map_err(failure)?;
    let state = snapshot.state();
    let config = &state.config;
    let mut text = format!(
        "{}: board {}, {} of memory, {} hart{} ({}){}\n  guest time {:.6} s",
        file.display(),
        config.board,
        values::mebibytes(config.memory),
        config.cpus,
        if config.cpus == 1 { "" } else { "s" },
        config.cpu,
        if config.deterministic { ", deterministic" } else { "" },
        state.time as f64 / 1e9,
    );
    for (index, hart) in state.harts.iter().enumerate() {
        let view = hart.view();
        let waiting = if view.waiting { ", waiting for an interrupt" } else { "" };
        text.push_str(&format!(
            "\n  hart {index}: {}-mode at {:#x}{waiting}, {} instructions",
            view.mode,
            view.pc,
            report::grouped(hart.retired()),
        ));
    }
    let devices: Vec<_> = state.devices.iter().map(ToString::to_string).collect();
    text.push_str(&format!("\n  devices: {}", devices.join(" ")));
    let pages = snapshot.count_pages().map_err(failure)?;
    text.push_str(&format!("\n  memory in use: {}", values::mebibytes(pages * 4096)));
    print(&text)
}
