//! `mimic compare`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::boot::{Shown, fetch_failure};
use super::engine::Engine;
use super::{Failure, print, values};
use crate::boot::{self, Cache, FetchOptions};
use crate::compare::{self, Column, Comparison, Kernel, Qemu, Run, Watch};
use crate::engine::EngineError;
use crate::engine::kvm::probe::{self, KvmKind};
use crate::loader::{self, ImageKind, Isa, LoadOptions};

/// Memory unless told otherwise.
const DEFAULT_MEMORY: u64 = 512 << 20;
/// A guest that has `tohost` may end by it alone, which QEMU's `virt` does not notice: there it gets this many times
/// the time of the run before it, and at least that.
const QEMU_PATIENCE: (u32, Duration) = (10, Duration::from_secs(10));

const AFTER_HELP: &str = "\
Each run is a process of its own; its time is the CPU time, user and system, of the whole process.
A guest divides its work by lines on its console:
  START NAME   the phase NAME begins (the first one ends the phase `boot`)
  BENCH NAME   it has ended
  FAIL NAME WHY  it has failed
  BOOTED       ends the phase `boot` before the first START
What is before the first `-` of NAME is its group: the table gives the geometric mean of each.
A guest that idles for some milliseconds after each line gets the sharpest times.
Exit status: 0, or 1 when a run failed or lacks a phase.";

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CompareArgs {
    /// Linux Image, ELF file, built-in ROM (such as rv64/bench-int) or ready guest (such as bench-riscv64)
    #[arg(value_name = "IMAGE|NAME")]
    guest: String,
    /// Engines, the first of which the others are compared with; one may come twice, to show the noise
    /// (default: all but KVM)
    #[arg(long, value_enum, value_delimiter = ',')]
    engines: Vec<Engine>,
    /// Run it on an installed QEMU as well: same kernel, initrd, command line, memory and number of harts
    #[arg(long)]
    qemu: bool,
    /// How often each one runs, in turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Phases whose names contain PATTERN; several are separated by commas. The guest learns it as mimic.only=PATTERN
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
    /// Write runs and summary as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw a bar chart
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// End each run when the guest prints TEXT, and take what has passed as `boot`
    #[arg(long, value_name = "TEXT")]
    until: Option<String>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line; of a ready guest, more of it
    #[arg(long, visible_alias = "cmdline", value_name = "TEXT", allow_hyphen_values = true)]
    append: Option<String>,
    /// Memory, like 512M or 2G
    #[arg(short, long, value_name = "SIZE", value_parser = values::memory)]
    mem: Option<u64>,
    /// Number of harts, 1 to 8
    #[arg(long, value_name = "N")]
    cpus: Option<usize>,
    /// End a run after this time
    #[arg(long, value_name = "TIME", value_parser = values::time, default_value = "30m")]
    timeout: Duration,
    /// More options for every `mimic run`
    #[arg(last = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

/// The guest, as every column gets it.
struct Guest {
    kernel: Kernel,
    /// It may end by HTIF alone.
    htif: bool,
    /// More options for `mimic run`.
    options: Vec<String>,
}

/// What runs the guest.
enum Runner {
    Engine(Engine),
    Qemu(Qemu),
}

pub(super) fn execute(args: &CompareArgs) -> Result<u8, Failure> {
    if args.until.as_deref() == Some("") {
        return Err(Failure::usage("--until: give the text that ends a run"));
    }
    // Files that are not on the disk as the columns need them.
    let folder = tempfile::tempdir().map_err(Failure::host)?;
    let guest = guest(args, folder.path())?;
    let isa = guest.kernel.isa;
    let qemu = args.qemu.then(|| Qemu::find(isa)).transpose().map_err(Failure::host)?;
    let engines: &[Engine] = match isa {
        Isa::Riscv64 if args.engines.is_empty() => &[Engine::Interp, Engine::Jit],
        Isa::Riscv64 if args.engines.contains(&Engine::Kvm) => {
            return Err(Failure::usage(EngineError::KvmRiscv));
        }
        Isa::X86_64 if args.engines.is_empty() => &[Engine::Interp],
        Isa::X86_64 if args.engines.contains(&Engine::Jit) => {
            return Err(Failure::usage(EngineError::NoTranslator));
        }
        Isa::Riscv64 | Isa::X86_64 => &args.engines,
    };
    let on_kvm = engines.contains(&Engine::Kvm);
    let software = on_kvm && probe::kind().map_err(Failure::host)? == KvmKind::Software;
    let mut comparison = Comparison {
        guest: args.guest.clone(),
        setting: setting(&guest.kernel, args.rounds, qemu.as_ref()),
        columns: Vec::new(),
        notes: Vec::new(),
    };
    if software {
        comparison.notes.push(
            "this host's KVM is software: its figures tell of 64-bit user code alone, and nothing of other hosts"
                .into(),
        );
    }
    let mut runners: Vec<Runner> = engines.iter().copied().map(Runner::Engine).collect();
    runners.extend(qemu.map(Runner::Qemu));
    for runner in &runners {
        let name = runner.name();
        let earlier =
            comparison.columns.iter().filter(|c| c.name.split('#').next() == Some(&name)).count();
        let name = if earlier == 0 { name } else { format!("{name}#{}", earlier + 1) };
        comparison.columns.push(Column { name, runs: Vec::new() });
    }
    rounds(args, &guest, &mut runners, &mut comparison, folder.path())?;
    if let Some(only) = &args.only {
        comparison.keep_phases(|name| only.split(',').any(|part| name.contains(part)));
        if comparison.phases().iter().all(|phase| [compare::BOOT, compare::WHOLE].contains(phase)) {
            comparison.notes.push(format!("no phase has a name that contains `{only}`"));
        }
    }
    if let Some(path) = &args.json {
        write(path, &compare::json(&comparison).map_err(Failure::host)?)?;
    }
    if let Some(path) = &args.svg {
        write(path, &compare::svg(&comparison))?;
    }
    print(&compare::table(&comparison))?;
    Ok(u8::from(!comparison.problems().is_empty()))
}

/// Runs everything, round by round. A column that turns out to be impossible is taken out with a note.
fn rounds(
    args: &CompareArgs,
    guest: &Guest,
    runners: &mut Vec<Runner>,
    comparison: &mut Comparison,
    folder: &Path,
) -> Result<(), Failure> {
    let mut watch = Watch { timeout: args.timeout, until: args.until.clone(), passed: 0 };
    for round in 1..=args.rounds {
        let mut index = 0;
        let mut before = Duration::ZERO;
        while let (Some(runner), Some(column)) =
            (runners.get(index), comparison.columns.get_mut(index))
        {
            let doubtful = matches!(runner, Runner::Qemu(_)) && guest.htif;
            let patience = (before * QEMU_PATIENCE.0).max(QEMU_PATIENCE.1);
            watch.timeout = if doubtful { patience.min(args.timeout) } else { args.timeout };
            watch.passed = match runner {
                Runner::Engine(_) => 0,
                Runner::Qemu(_) => guest.kernel.passed(),
            };
            let run = runner.run(guest, &watch, folder)?;
            eprintln!("mimic: round {round} of {}: {}", args.rounds, told(&column.name, &run));
            before = Duration::from_secs_f64(run.elapsed);
            if doubtful && run.whole.is_none() && round == 1 {
                comparison.notes.push(format!(
                    "{} is left out: the guest has `tohost` and seems to end by it, which QEMU's `virt` machine \
                     does not know ({})",
                    column.name,
                    run.problems.join("; ")
                ));
                runners.remove(index);
                comparison.columns.remove(index);
                continue;
            }
            column.runs.push(run);
            index += 1;
        }
    }
    Ok(())
}

fn told(name: &str, run: &Run) -> String {
    let time = run.whole.map_or("failed".into(), |time| format!("{time:.2} s of CPU time"));
    let problems = match run.problems.len() {
        0 => String::new(),
        1 => format!(", {}", run.problems[0]),
        n => format!(", {n} problems"),
    };
    format!("{name}: {time}, {:.1} s elapsed{problems}", run.elapsed)
}

impl Runner {
    fn name(&self) -> String {
        match self {
            Runner::Engine(engine) => engine
                .to_possible_value()
                .map_or(String::new(), |value| value.get_name().to_owned()),
            Runner::Qemu(_) => "qemu".into(),
        }
    }

    fn run(&self, guest: &Guest, watch: &Watch, folder: &Path) -> Result<Run, Failure> {
        let report = folder.join("report.json");
        let command = match self {
            Runner::Engine(_) => self.mimic(guest, &report)?,
            Runner::Qemu(qemu) => qemu.command(&guest.kernel),
        };
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |error: &dyn std::fmt::Display| Failure::host(format!("{program}: {error}"));
        let mut run = compare::run(command, watch).map_err(|error| failed(&error))?;
        // A run that was ended leaves no report.
        if let Ok(text) = std::fs::read_to_string(&report) {
            run.report = Some(serde_json::from_str(&text).map_err(|error| failed(&error))?);
            std::fs::remove_file(&report).map_err(|error| failed(&error))?;
        }
        Ok(run)
    }

    /// This program, told to run the guest.
    fn mimic(&self, guest: &Guest, report: &Path) -> Result<Command, Failure> {
        let kernel = &guest.kernel;
        let mut command = Command::new(std::env::current_exe().map_err(Failure::host)?);
        command.arg("run").arg(&kernel.image).args(["--engine", &self.name(), "--no-reboot"]);
        command.args(["--mem", &kernel.memory.to_string(), "--cpus", &kernel.cpus.to_string()]);
        command.arg("--report").arg(report).args(&guest.options);
        if let Some(initrd) = &kernel.initrd {
            command.arg("--initrd").arg(initrd);
        }
        if !kernel.cmdline.is_empty() {
            command.args(["--append", &kernel.cmdline]);
        }
        if kernel.isa == Isa::X86_64 && !kernel.supervisor {
            command.args(["--pass-exit", "0"]);
        }
        Ok(command)
    }
}

/// Finds the guest: a ready one by its name, a ROM by its name, else a file.
fn guest(args: &CompareArgs, folder: &Path) -> Result<Guest, Failure> {
    let place = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(Failure::host)?;
        Ok::<_, Failure>(path)
    };
    let mut kernel = Kernel {
        isa: Isa::Riscv64,
        supervisor: false,
        image: PathBuf::from(&args.guest),
        initrd: args.initrd.clone(),
        cmdline: String::new(),
        memory: args.mem.unwrap_or(DEFAULT_MEMORY),
        cpus: args.cpus.unwrap_or(1),
    };
    let mut finisher = false;
    if kernel.image.is_file() {
        // A file wins over a name.
    } else if let Some(rom) = mimic_test_roms::find(&args.guest) {
        kernel.image = place("rom.elf", &rom.build())?;
        kernel.cpus = args.cpus.unwrap_or(rom.harts as usize);
        if rom.name.starts_with("x86/") {
            kernel.isa = Isa::X86_64;
        }
        finisher = true;
    } else if !args.guest.contains('/') {
        let catalog = boot::find(&args.guest).map_err(Failure::usage)?;
        kernel.isa = catalog.isa;
        kernel.memory = args.mem.unwrap_or(catalog.memory);
        catalog.cmdline.clone_into(&mut kernel.cmdline);
        let shown = Shown::default();
        let files = if catalog.embedded() {
            None
        } else {
            let cache = Cache::of_user().map_err(Failure::host)?;
            catalog.fetch(&cache, &FetchOptions::default(), &shown).map_err(fetch_failure)?
        };
        match files {
            None => kernel.image = place("guest.elf", &mimic_test_roms::demo::image())?,
            Some(files) => {
                kernel.image = files.kernel;
                kernel.initrd =
                    files.initrd.as_ref().map(|initrd| place("initrd", initrd)).transpose()?;
            }
        }
    }
    let mut htif = false;
    match kernel.isa {
        Isa::Riscv64 => {
            let image = loader::load_file(&kernel.image, &LoadOptions::default());
            let image = image.map_err(Failure::usage)?;
            kernel.supervisor = image.kind == ImageKind::LinuxImage;
            htif = image.tohost.is_some() && !finisher;
        }
        Isa::X86_64 => kernel.supervisor = !finisher,
    }
    if kernel.supervisor && kernel.cmdline.is_empty() && args.append.is_none() {
        kernel.cmdline.push_str("console=ttyS0");
    }
    let only = args.only.as_ref().map(|pattern| format!("mimic.only={pattern}"));
    for more in
        [args.append.as_ref(), only.as_ref().filter(|_| kernel.supervisor)].into_iter().flatten()
    {
        if !kernel.cmdline.is_empty() {
            kernel.cmdline.push(' ');
        }
        kernel.cmdline.push_str(more);
    }
    Ok(Guest { kernel, htif, options: args.options.clone() })
}

/// The machine, then the programs, then the host.
fn setting(kernel: &Kernel, rounds: u32, qemu: Option<&Qemu>) -> Vec<String> {
    let plural = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let mut programs = format!("mimic {}", env!("CARGO_PKG_VERSION"));
    if let Some(qemu) = qemu {
        programs.push_str(&format!(", QEMU {}", qemu.version));
    }
    vec![
        format!(
            "{}, {} of memory, {}",
            plural(kernel.cpus as u64, "hart"),
            values::mebibytes(kernel.memory),
            plural(rounds.into(), "round")
        ),
        programs,
        format!(
            "on {} of {}",
            plural(cores, "core"),
            model.map_or("an unknown CPU", |(_, name)| name)
        ),
    ]
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::host(format!("{}: {error}", path.display())))
}
