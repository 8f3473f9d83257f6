//! Conformance runs: many small guests, each on a machine of its own, in parallel.
//!
//! Reading order: `collect` (which files), [`run`] (each to its end, the console captured), `table`
//! (what the user sees), `export` (JUnit and JSON).

mod collect;
mod export;
mod table;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use collect::{Collected, builtin, collect};
pub use export::{json, junit};
pub use table::table;

use crate::loader::{self, Isa, LoadOptions};
use crate::machine::spec::{
    BoardKind, ConsoleKind, CpuSpec, End, EngineKind, EngineSpec, Firmware, Limits, MachineSpec,
    Stats, VirtioBus,
};
use crate::machine::{ConsoleIo, Machine};

/// Console bytes kept of each guest, the last ones.
const CONSOLE_KEPT: usize = 16 << 10;

/// What x86 test programs write to isa-debug-exit when they pass: as kvm-unit-tests do.
const PASS_EXIT: u32 = 0;

/// One guest to run.
pub struct Case {
    /// Name in tables: the path below the folder it was found in, or the ROM's name.
    pub name: String,
    /// What it consists of.
    pub source: Source,
}

/// Where a guest's bytes come from.
#[derive(Clone)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A ROM that is part of this program.
    Rom(&'static mimic_test_roms::Rom),
}

/// What all guests have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of RAM.
    pub memory: u64,
    /// What the harts offer; guests of another instruction set get the default of theirs.
    pub cpu: CpuSpec,
    /// Harts of machines for files; ROMs name their own number.
    pub cpus: usize,
    /// Deterministic runs.
    pub deterministic: bool,
    /// What runs the harts' instructions.
    pub engine: EngineSpec,
    /// Limits of each guest.
    pub limits: Limits,
    /// Where signatures are written (`NAME.signature`), and their granularity in bytes.
    pub signatures: Option<(PathBuf, usize)>,
    /// Guests that run at the same time.
    pub jobs: usize,
}

/// How a guest fared.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Name of the case.
    pub name: String,
    /// How it ended, or why it was not run.
    pub result: Result<End, String>,
    /// Name of the failed case, when the ROM knows it.
    pub failed_case: Option<String>,
    /// Counters.
    pub stats: Stats,
    /// How often it did the operation that it measures, if it is such a ROM.
    pub operations: Option<u64>,
    /// Time from reading the file to the end.
    pub elapsed: Duration,
    /// The last part of what it printed.
    pub console: Vec<u8>,
}

impl Outcome {
    /// It said that it passed, or powered off of its own will.
    pub fn passed(&self) -> bool {
        matches!(self.result, Ok(End::Pass | End::PowerOff))
    }

    /// CPU time of the harts for one operation, in nanoseconds, if it measures one.
    pub fn each(&self) -> Option<f64> {
        let seconds = self.stats.hart_time.as_secs_f64();
        self.operations.filter(|_| self.passed()).map(|count| seconds * 1e9 / count as f64)
    }

    /// Why it did not pass, in a few words.
    pub fn reason(&self) -> String {
        match (&self.result, &self.failed_case) {
            (Ok(end), Some(name)) => format!("case {}: {name}", code(end).unwrap_or_default()),
            (Ok(End::Fail(code)), None) => format!("case {code}"),
            (Ok(end), None) => crate::report::cause(end),
            (Err(why), _) => why.clone(),
        }
    }
}

/// Runs all cases and returns their outcomes in the same order. `each` is told of every outcome as it
/// comes.
pub fn run(cases: &[Case], settings: &Settings, each: &(dyn Fn(&Outcome) + Sync)) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes: Vec<Mutex<Option<Outcome>>> = cases.iter().map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        for _ in 0..settings.jobs.clamp(1, cases.len().max(1)) {
            scope.spawn(|| {
                while let Some((case, slot)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(index).zip(outcomes.get(index))
                } {
                    let outcome = run_one(case, settings);
                    each(&outcome);
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
                }
            });
        }
    });
    outcomes
        .into_iter()
        .filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect()
}

/// The captured console, shared with the machine's threads.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl mimic_devices::serial::SerialOutput for Capture {
    fn write(&mut self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        if kept.len() > 2 * CONSOLE_KEPT {
            let surplus = kept.len() - CONSOLE_KEPT;
            kept.drain(..surplus);
        }
    }
}

/// The number by which a guest said what failed.
fn code(end: &End) -> Option<u32> {
    match end {
        End::Fail(code) => u32::try_from(*code).ok(),
        End::Exit(code) => Some(*code),
        _ => None,
    }
}

fn run_one(case: &Case, settings: &Settings) -> Outcome {
    let start = Instant::now();
    let console = Capture::default();
    // A panic is a fault of ours: it costs this case, not the others.
    let result = catch_unwind(AssertUnwindSafe(|| execute(case, settings, &console)))
        .unwrap_or_else(|_| Err("the emulator panicked".into()));
    let (result, stats) = match result {
        Ok((end, stats)) => (Ok(end), stats),
        Err(why) => (Err(why), Stats::default()),
    };
    let failed_case = match (&result, &case.source) {
        (Ok(end), Source::Rom(rom)) => code(end).and_then(|n| rom.case_name(n)),
        _ => None,
    };
    let console = std::mem::take(&mut *console.0.lock().unwrap_or_else(PoisonError::into_inner));
    Outcome {
        name: case.name.clone(),
        result,
        failed_case,
        stats,
        operations: match &case.source {
            Source::File(_) => None,
            Source::Rom(rom) => rom.operations,
        },
        elapsed: start.elapsed(),
        console,
    }
}

fn execute(case: &Case, settings: &Settings, console: &Capture) -> Result<(End, Stats), String> {
    let options = LoadOptions::default();
    let image = match &case.source {
        Source::File(path) => loader::load_file(path, &options),
        Source::Rom(rom) => loader::parse(&rom.build(), &options),
    }
    .map_err(|error| error.to_string())?;
    let signature = match &settings.signatures {
        Some((folder, granularity)) if image.signature.is_some() => {
            Some((signature_path(folder, &case.name).map_err(|e| e.to_string())?, *granularity))
        }
        _ => None,
    };
    let board = BoardKind::for_isa(image.isa);
    let spec = MachineSpec {
        board,
        cpu: match &case.source {
            Source::Rom(mimic_test_roms::Rom { cpu: Some(cpu), .. }) => cpu.parse()?,
            _ => settings.cpu.or_default_for(image.isa),
        },
        cpus: match &case.source {
            Source::File(_) => settings.cpus,
            Source::Rom(rom) => rom.harts as usize,
        },
        deterministic: settings.deterministic,
        memory: settings.memory,
        engine: match (image.isa, settings.engine.kind) {
            (Isa::Riscv64, EngineKind::Interp | EngineKind::Jit)
            | (Isa::X86_64, EngineKind::Kvm) => settings.engine.clone(),
            _ => EngineKind::default_for(image.isa).into(),
        },
        firmware: Firmware::Auto,
        virtio: VirtioBus::default_for(board, image.kind),
        image,
        initrd: None,
        cmdline: String::new(),
        console: ConsoleKind::Uart,
        limits: settings.limits,
        disks: Vec::new(),
        flash: None,
        signature,
        pass_exit: Some(PASS_EXIT),
    };
    let io = ConsoleIo { output: Box::new(console.clone()), input: None };
    let report = Machine::new(spec, io).map_err(|error| error.to_string())?.run();
    Ok((report.end, report.stats))
}

/// `FOLDER/NAME.signature`, with NAME's own folders made.
fn signature_path(folder: &Path, name: &str) -> std::io::Result<PathBuf> {
    let relative: PathBuf = Path::new(name)
        .components()
        .filter(|c| matches!(c, std::path::Component::Normal(_)))
        .collect();
    let mut path = folder.join(relative).into_os_string();
    path.push(".signature");
    let path = PathBuf::from(path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests;
