//! One run of a machine with the user's terminal around it.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::keys::{Command, EscapeKey, Event, Keys, help};
use super::output::{Output, Sink};
use super::signals::{SignalWatch, end_by};
use super::silence::SilenceWatch;
use super::tty::{self, RawMode};
use crate::gdb::{Listener, Server};
use crate::machine::spec::{End, HartView, Limits, Report};
use crate::machine::{ConsoleIo, InputSource, Machine, MachineError, MachineHandle};

/// How the user wants the terminal to be.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The escape key.
    pub escape: EscapeKey,
    /// How long a guest may print nothing before the user is told; `None`: for ever.
    pub silence: Option<Duration>,
    /// What to try when a guest prints nothing.
    pub advice: &'static str,
    /// Start again when the guest asks for a reset.
    pub reboot: bool,
    /// The file that snapshots are saved to; without one they get numbered names in the current folder.
    pub snapshot: Option<PathBuf>,
    /// Where a debugger may attach.
    pub gdb: Option<GdbOptions>,
}

/// How a debugger may attach.
#[derive(Clone, Debug)]
pub struct GdbOptions {
    /// Where.
    pub listener: Arc<Listener>,
    /// The machine does nothing before the debugger lets it.
    pub wait: bool,
}

/// Why a run could not be started or watched to its end.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The machine cannot be built.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The host failed.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The answer.
        source: io::Error,
    },
}

/// The machine that runs now, for those who outlive a reset.
#[derive(Default)]
pub(super) struct Current(Mutex<Option<MachineHandle>>);

impl Current {
    /// Its handle; `None` before the first one.
    pub(super) fn machine(&self) -> Option<MachineHandle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, machine: MachineHandle) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(machine);
    }
}

/// Runs machines made by `make` on stdin and stdout until one ends for good. `make` is asked again after a
/// reset, with what the resets have left of `limits`.
///
/// # Errors
/// [`SessionError`]; the terminal is restored in any case.
pub fn run(
    make: impl Fn(ConsoleIo, Limits) -> Result<Machine, MachineError>,
    mut limits: Limits,
    options: &SessionOptions,
) -> Result<Report, SessionError> {
    let host = |what| move |source| SessionError::Host { what, source };
    let current = Arc::new(Current::default());
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(host("stdout"))?;
    let output = Output::new(stdout, {
        let current = Arc::clone(&current);
        move || _ = current.machine().inspect(MachineHandle::quit)
    })
    .map_err(host("the console"))?;
    let typed = io::stdin().is_terminal();
    let mut raw = None;
    let mut resets = 0u32;
    // Before the terminal is changed: who ends this gets it back.
    let signals =
        SignalWatch::start(Arc::clone(&current), output.sink()).map_err(host("signals"))?;
    let report = loop {
        let keys = Keys::new(if typed { options.escape } else { no_escape() });
        let input = input(keys, options.clone(), typed, output.sink());
        let machine = make(ConsoleIo { output: Box::new(output.sink()), input }, limits)?;
        let handle = machine.handle();
        current.set(handle.clone());
        if signals.received().is_some() {
            // It came when there was no machine that it could have ended.
            handle.quit();
        }
        if typed && raw.is_none() {
            banner(options.escape);
            raw = Some(RawMode::enter().map_err(host("the terminal"))?);
        }
        let _silence = options
            .silence
            .map(|patience| SilenceWatch::start(handle, output.sink(), patience, options.advice))
            .transpose()
            .map_err(host("a thread"))?;
        let _gdb = options
            .gdb
            .as_ref()
            .map(|gdb| {
                if resets == 0 {
                    tty::say(&format!("mimic: {}", gdb_hint(gdb)));
                }
                Server::start(machine.handle(), Arc::clone(&gdb.listener), gdb.wait && resets == 0)
            })
            .transpose()
            .map_err(host("the debugger's connection"))?;
        let report = machine.run();
        let again = report.end == End::Reset && options.reboot && signals.received().is_none();
        if !again {
            break report;
        }
        resets += 1;
        limits = limits.after(&report.stats);
        output.sink().settle(Duration::from_secs(1));
        tty::say(&format!(
            "mimic: the guest asked for a reset; starting it again (reset {resets})"
        ));
    };
    // Signals are served as long as the reader may make us wait.
    let written = output.finish();
    drop(raw);
    if let Some(signal) = signals.received() {
        end_by(signal);
    }
    match written {
        Ok(()) => Ok(report),
        Err(error) => Ok(Report { end: End::Host(lost_reader(&error)), ..report }),
    }
}

fn gdb_hint(gdb: &GdbOptions) -> String {
    let waits = if gdb.wait { "; the guest waits for it" } else { "" };
    format!("gdb may attach by: target remote {}{waits}", gdb.listener.address())
}

/// A hart's mode, program counter and symbol, as text.
pub fn place(handle: &MachineHandle, hart: &HartView) -> String {
    let symbol = handle.symbolize(hart.pc).map(|name| format!(" ({name})")).unwrap_or_default();
    let waiting = if hart.waiting { ", waiting for an interrupt" } else { "" };
    format!("{}-mode at {:#x}{symbol}{waiting}", hart.mode, hart.pc)
}

fn lost_reader(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe => {
            "the reader of stdout has gone, so the guest was stopped".into()
        }
        io::ErrorKind::StorageFull => {
            "the disk that stdout is written to is full; some output is lost".into()
        }
        _ => format!("stdout cannot be written ({error}); some output is lost"),
    }
}

fn no_escape() -> EscapeKey {
    "none".parse().unwrap_or_default()
}

fn banner(escape: EscapeKey) {
    if escape.exists() {
        tty::say(&format!("mimic: {escape} x quits, {escape} h lists the other keys"));
    } else {
        tty::say("mimic: there is no escape key; end it with a signal from another terminal");
    }
}

/// Reads stdin for the guest. Bytes of a pipe are the guest's alone, and so is what follows its end:
/// the guest goes on without input.
fn input(mut keys: Keys, options: SessionOptions, typed: bool, sink: Sink) -> Option<InputSource> {
    // A closed stdin is like an empty one.
    let fd = io::stdin().as_fd().try_clone_to_owned().ok()?;
    Some(InputSource {
        fd,
        interactive: typed,
        on_bytes: Box::new(move |bytes, machine| {
            for event in keys.feed(bytes) {
                match event {
                    Event::Input(bytes) => {
                        machine.input(&bytes);
                    }
                    Event::Command(command) => obey(command, &options, &sink, machine),
                }
            }
        }),
        on_eof: Box::new(move |machine| {
            // The terminal is gone.
            if typed {
                machine.quit();
            }
        }),
    })
}

fn obey(command: Command, options: &SessionOptions, sink: &Sink, machine: &MachineHandle) {
    let escape = options.escape;
    match command {
        Command::Quit => {
            sink.release();
            machine.quit();
        }
        Command::Help => tty::say(&help(escape)),
        Command::Info => tty::say(&info(machine)),
        Command::Pause if machine.is_paused() => {
            machine.resume();
            tty::say("mimic: going on");
        }
        Command::Pause => {
            machine.pause();
            tty::say(&format!("mimic: paused; {escape} p goes on"));
        }
        Command::Engine => tty::say(&switch(machine)),
        Command::PowerButton if machine.press_power_button() => {}
        Command::PowerButton => tty::say("mimic: this board has no power button"),
        Command::Snapshot => tty::say(&save(options.snapshot.as_deref(), machine)),
        Command::Unknown(byte) => tty::say(&format!(
            "mimic: {escape} {} means nothing; {escape} h lists the keys",
            byte.escape_ascii()
        )),
    }
}

/// Changes the engine. What to tell the user.
fn switch(machine: &MachineHandle) -> String {
    match machine.switch_engine() {
        Ok(Some(engine)) => format!("mimic: {} ({}) runs now", engine.title(), engine.name()),
        Ok(None) => "mimic: the guest has ended".into(),
        Err(error) => format!("mimic: not changed: {error}"),
    }
}

/// Saves a snapshot to `file`, or to the first free name in the current folder. What to tell the user.
fn save(file: Option<&Path>, machine: &MachineHandle) -> String {
    let numbered = || (1..=9999).map(|n| PathBuf::from(format!("mimic-{n}.snapshot")));
    let path = match file {
        Some(file) => file.to_path_buf(),
        None => match numbered().find(|path| path.symlink_metadata().is_err()) {
            Some(free) => free,
            None => return "mimic: this folder is full of snapshots".into(),
        },
    };
    match machine.save(&path) {
        Ok(()) => format!("mimic: saved to {0}; mimic snapshot load {0}", path.display()),
        Err(error) => format!("mimic: not saved: {error}"),
    }
}

fn info(machine: &MachineHandle) -> String {
    let mut text = format!("mimic: {}", crate::report::summary(&machine.stats()));
    if machine.is_paused() {
        text.push_str(", paused");
    }
    for (number, hart) in machine.harts().into_iter().enumerate() {
        text.push_str(&format!("\n  hart {number}: {}", place(machine, &hart)));
    }
    text
}
