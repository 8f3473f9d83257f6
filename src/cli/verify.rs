//! `mimic verify`.

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::boot;
use super::engine::Engine;
use super::options::{Guest, MachineArgs};
use super::run::ImageArgs;
use super::{Failure, values};
use crate::loader::Isa;
use crate::machine::snapshot::Snapshot;
use crate::machine::spec::{EngineKind, EngineSpec, Limits, MachineSpec, Resumption};
use crate::machine::{ConsoleIo, Machine};
use crate::report;
use crate::terminal::tty;
use crate::verify::{self, Listener, Options, Outcome, Summary, Typed, VerifyError};

/// Status when the engines differ.
const STATUS_DIFFERENT: u8 = 1;

// What the options shared with `run` decide is decided here.
#[derive(Args, Debug)]
#[command(mut_arg("engine", |arg| arg.hide(true)), mut_arg("deterministic", |arg| arg.hide(true)))]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    machine: MachineArgs,
    /// Begin at this snapshot (of a deterministic machine) instead of an image
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image", "kernel"])]
    snapshot: Option<PathBuf>,
    /// The two engines; the first one is taken for right
    #[arg(long, value_name = "A,B", value_parser = engines, default_value = "interp,jit")]
    engines: [EngineKind; 2],
    /// Translate every block at first sight, and come back to the engine after each
    #[arg(long)]
    isolate: bool,
    /// Stop after this many instructions of all harts, like 500M
    #[arg(long, value_name = "N", value_parser = values::count)]
    max_insns: Option<u64>,
    /// Stop after this many rounds, of 1000 instructions of each hart or fewer
    #[arg(long, value_name = "N", value_parser = values::count)]
    max_rounds: Option<u64>,
    /// Compare devices and all of memory every so many instructions; harts are compared every 1000
    #[arg(long, value_name = "N", value_parser = values::count, default_value = "50M")]
    every: u64,
    /// Type this line when the guest prints --prompt; the next one when it does again
    #[arg(long = "type", value_name = "TEXT", allow_hyphen_values = true)]
    lines: Vec<String>,
    /// Type the lines of this file, after those of --type
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// What the guest prints when it waits for a line
    #[arg(long, value_name = "TEXT", default_value = "# ")]
    prompt: String,
    /// Type TEXT (with \n and the like) after this round: what a reproducer's command line has
    #[arg(long, value_name = "ROUND=TEXT", value_parser = typed, allow_hyphen_values = true)]
    type_at: Vec<Typed>,
    /// Folder for the reproducer of a difference
    #[arg(long, value_name = "DIR", default_value = "mimic-mismatch")]
    reproducer: PathBuf,
    /// Do not show what the guest prints
    #[arg(long)]
    quiet: bool,
}

/// `A,B`.
fn engines(text: &str) -> Result<[EngineKind; 2], String> {
    let named: Vec<EngineKind> = text
        .split(',')
        .map(|name| Engine::from_str(name, false).map(Engine::kind))
        .collect::<Result<_, _>>()?;
    if named.contains(&EngineKind::Kvm) {
        return Err("KVM counts no instructions, after which states could be compared".into());
    }
    named.try_into().map_err(|_| format!("`{text}` are not two engines, like interp,jit"))
}

/// `ROUND=TEXT`, with backslash escapes.
fn typed(text: &str) -> Result<Typed, String> {
    let wrong = || format!("`{text}` is not ROUND=TEXT");
    let (round, text) = text.split_once('=').ok_or_else(wrong)?;
    let (mut bytes, mut rest) = (Vec::new(), text.chars());
    while let Some(c) = rest.next() {
        let c = match c {
            '\\' => match rest.next().ok_or_else(wrong)? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let code: String = rest.by_ref().skip(1).take_while(|&c| c != '}').collect();
                    let code = u32::from_str_radix(&code, 16).ok();
                    code.and_then(char::from_u32).ok_or_else(wrong)?
                }
                c => c,
            },
            c => c,
        };
        bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
    }
    Ok(Typed { round: round.parse().map_err(|_| wrong())?, bytes })
}

/// Tells the user what happens.
struct Shown {
    quiet: bool,
    progress: bool,
    next: Duration,
}

impl Listener for Shown {
    fn output(&mut self, bytes: &[u8]) {
        if !self.quiet && !bytes.is_empty() {
            let mut out = std::io::stdout();
            // Nobody reads: the verification goes on.
            let _ = out.write_all(bytes).and_then(|()| out.flush());
        }
    }

    fn progress(&mut self, insns: u64, time: Duration) {
        if self.progress && time >= self.next {
            self.next = time + Duration::from_secs(1);
            eprint!("\rmimic: {} M instructions, {:.0} s ", insns / 1_000_000, time.as_secs_f64());
        }
    }

    fn step(&mut self, text: &str) {
        tty::say(&format!("mimic: {text}"));
    }
}

impl VerifyArgs {
    fn options(&self) -> Result<Options, Failure> {
        let mut script: Vec<Vec<u8>> =
            self.lines.iter().map(|line| format!("{line}\n").into_bytes()).collect();
        if let Some(path) = &self.input {
            let text = std::fs::read(path)
                .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
            script.extend(text.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec));
        }
        let spec = self.machine.engine.spec(Isa::Riscv64, true);
        let mut typed = self.type_at.clone();
        typed.sort_by_key(|typed| typed.round);
        Ok(Options {
            engines: self.engines.map(|kind| EngineSpec { kind, ..spec.clone() }),
            max_insns: self.max_insns,
            max_rounds: self.max_rounds,
            every: self.every,
            script,
            prompt: self.prompt.clone().into_bytes(),
            typed,
            isolate: self.isolate,
            reproducer: Some(self.reproducer.clone()),
        })
    }

    /// The guest, and its memory unless told otherwise.
    fn guest(&self) -> Result<(Guest, u64), Failure> {
        let named = self.image.path().filter(|path| !path.exists());
        let name = named.and_then(|path| path.to_str());
        match name.filter(|name| boot::knows(name)) {
            Some(name) => boot::guest(name, self.image.append(), self.machine.needs_modules()),
            None => self.image.guest(&self.machine),
        }
    }
}

pub(super) fn execute(args: &VerifyArgs) -> Result<u8, Failure> {
    let options = args.options()?;
    let mut shown = Shown {
        quiet: args.quiet,
        progress: args.quiet && std::io::stderr().is_terminal(),
        next: Duration::from_secs(1),
    };
    let outcome = if let Some(path) = &args.snapshot {
        let disks = args.machine.disks.clone();
        let make = |io: ConsoleIo| {
            let disks = disks.open().map_err(other)?;
            let limits = Limits::default();
            let how = Resumption { engine: EngineSpec::default(), limits, disks };
            Machine::resume(Snapshot::open(path)?, &how, io)
        };
        verify::verify(&make, &options, &mut shown)
    } else {
        let (guest, memory) = args.guest()?;
        args.machine.check(&guest, memory)?;
        let machine = MachineArgs { deterministic: true, ..args.machine.clone() };
        let make = |io: ConsoleIo| {
            // Each machine has its own copy of what the guest writes.
            let attached = machine.attach().map_err(other)?;
            let spec = machine.spec(&guest, &attached, Limits::default(), memory);
            Machine::new(MachineSpec { engine: EngineSpec::default(), ..spec }, io)
        };
        verify::verify(&make, &options, &mut shown)
    };
    if shown.progress {
        eprint!("\r\x1b[K");
    }
    let outcome = outcome.map_err(|error| match error {
        VerifyError::Machine(error) => Failure::usage(error),
        error => Failure::host(error),
    })?;
    match outcome {
        Outcome::Equal(summary) => {
            tty::say(&format!("mimic: equal: {}; ended: {:?}", counts(&summary), summary.stop));
            Ok(0)
        }
        Outcome::Different(summary, mismatch) => {
            super::print(&mismatch.text)?;
            if let Some(snapshot) = &mismatch.snapshot {
                let mut line = format!(
                    "mimic verify --snapshot {} {}",
                    snapshot.display(),
                    mismatch.replay.join(" ")
                );
                line.push_str(&args.machine.engine.translator_words());
                let file = args.reproducer.join("command");
                std::fs::write(&file, format!("{line}\n"))
                    .map_err(|error| Failure::host(format!("{}: {error}", file.display())))?;
                tty::say(&format!("mimic: to see it again: {line}"));
            } else {
                tty::say(
                    "mimic: to see it again: the same command line; no snapshot before shows it",
                );
            }
            tty::say(&format!("mimic: the engines differ: {} before", counts(&summary)));
            Ok(STATUS_DIFFERENT)
        }
    }
}

fn other(failure: Failure) -> crate::machine::MachineError {
    crate::machine::MachineError::Placement(failure.message)
}

fn counts(summary: &Summary) -> String {
    let Summary { insns, rounds, full_checks, stop: _, time } = summary;
    let seconds = time.as_secs_f64();
    format!(
        "{} instructions and {} rounds verified, {full_checks} full comparisons, {seconds:.1} s, {:.0} MIPS",
        report::grouped(*insns),
        report::grouped(*rounds),
        *insns as f64 / 1e6 / seconds.max(1e-9)
    )
}
