//! `mimic test`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::engine::EngineArgs;
use super::options::CPU_FORM;
use super::run::granularity;
use super::{Failure, print, values};
use crate::harness::{self, Case, Settings};
use crate::loader::Isa;
use crate::machine::spec::{CpuSpec, EngineKind, Limits};

#[derive(Args, Debug)]
pub(super) struct TestArgs {
    /// ELF files, or folders with ELF files; without any, the built-in ROMs
    paths: Vec<PathBuf>,
    /// Run only those whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Guests that run at the same time (default: one for each core)
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Time limit of each guest
    #[arg(long, value_name = "TIME", value_parser = values::time, default_value = "60s")]
    timeout: Duration,
    /// Instruction limit of each guest
    #[arg(long, value_name = "N", value_parser = values::count)]
    max_insns: Option<u64>,
    /// Memory of each guest
    #[arg(short, long, value_name = "SIZE", value_parser = values::memory, default_value = "128M")]
    mem: u64,
    /// Harts of each machine, 1 to 8; the built-in ROMs name their own number
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: usize,
    /// Model of the harts, and what to switch on or off in it; `mimic cpus` lists both
    #[arg(long, value_name = CPU_FORM)]
    cpu: Option<CpuSpec>,
    /// Run the same way every time: one thread, time counted in retired instructions
    #[arg(long)]
    deterministic: bool,
    #[command(flatten)]
    engine: EngineArgs,
    /// Write the outcomes as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the outcomes as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write signature regions to this folder, as NAME.signature
    #[arg(long, value_name = "DIR")]
    signature_dir: Option<PathBuf>,
    /// Bytes on a line of a signature
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = granularity)]
    signature_granularity: usize,
}

pub(super) fn execute(args: &TestArgs) -> Result<u8, Failure> {
    let cases = cases(args)?;
    let engine = args.engine.spec(Isa::Riscv64, false);
    if engine.kind == EngineKind::Kvm {
        args.engine.check(Isa::X86_64, args.deterministic, args.max_insns.is_some())?;
    }
    let settings = Settings {
        memory: args.mem,
        cpu: args.cpu.clone().unwrap_or_default(),
        cpus: args.cpus,
        deterministic: args.deterministic,
        engine,
        limits: Limits { insns: args.max_insns, time: Some(args.timeout) },
        signatures: args.signature_dir.clone().map(|folder| (folder, args.signature_granularity)),
        jobs: args
            .jobs
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
    };
    let bar = bar(cases.len());
    let start = Instant::now();
    let outcomes = harness::run(&cases, &settings, &|outcome| {
        if !outcome.passed() {
            bar.println(format!("{}: {}", outcome.name, outcome.reason()));
        }
        bar.set_message(outcome.name.clone());
        bar.inc(1);
    });
    let elapsed = start.elapsed();
    bar.finish_and_clear();
    if let Some(path) = &args.junit {
        write(path, harness::junit(&outcomes, elapsed).map_err(Failure::host)?)?;
    }
    if let Some(path) = &args.json {
        write(path, harness::json(&outcomes, elapsed).map_err(Failure::host)?)?;
    }
    print(&format!("{} in {:.1} s", harness::table(&outcomes), elapsed.as_secs_f64()))?;
    let passed = outcomes.iter().all(harness::Outcome::passed);
    Ok(u8::from(!passed))
}

fn cases(args: &TestArgs) -> Result<Vec<Case>, Failure> {
    let mut cases = if args.paths.is_empty() {
        harness::builtin()
    } else {
        let collected = harness::collect(&args.paths);
        if !collected.problems.is_empty() {
            return Err(Failure::usage(collected.problems.join("\n")));
        }
        collected.cases
    };
    if let Some(filter) = &args.filter {
        cases.retain(|case| case.name.contains(filter));
    }
    if cases.is_empty() {
        return Err(Failure::usage(
            "there is nothing to run: no ELF file below these paths matches",
        ));
    }
    Ok(cases)
}

/// Progress on stderr, on a terminal only.
fn bar(length: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(length as u64), ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn write(path: &Path, text: String) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::host(format!("{}: {error}", path.display())))
}
