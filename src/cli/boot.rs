//! `mimic boot`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::options::{Guest, MachineArgs, PATIENCE_WITH_KNOWN, RunningArgs};
use super::{Failure, print, run};
use crate::boot::{self, BootError, Cache, FetchOptions, Progress};
use crate::loader::{self, LoadOptions};

#[derive(Args, Debug)]
pub(super) struct BootArgs {
    /// The guest; without a name, list them
    name: Option<String>,
    /// Debian mirror to fetch from, instead of the one this host's apt uses
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Folder with the packages or files, instead of fetching them
    #[arg(long, value_name = "DIR", conflicts_with = "mirror")]
    from: Option<PathBuf>,
    /// Fetch even what is there already
    #[arg(long)]
    refresh: bool,
    /// Fetch, but start nothing
    #[arg(long)]
    fetch_only: bool,
    /// More text for the kernel command line
    #[arg(long, visible_alias = "cmdline", value_name = "TEXT", allow_hyphen_values = true)]
    append: Option<String>,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    running: RunningArgs,
}

pub(super) fn execute(args: &BootArgs) -> Result<u8, Failure> {
    let Some(name) = &args.name else { return list() };
    let options = FetchOptions {
        mirror: args.mirror.clone(),
        from: args.from.clone(),
        refresh: args.refresh,
        modules: args.machine.needs_modules(),
    };
    let (catalog, files) = fetch(name, &options)?;
    if args.fetch_only {
        if files.is_some() {
            let cache = Cache::of_user().map_err(Failure::host)?;
            eprintln!("mimic: {name} is in {}", cache.guest(catalog.name).display());
        }
        return Ok(0);
    }
    let words = terminal_words();
    let guest = load(catalog, files, &words, args.append.as_deref())?;
    run::start(&args.machine, &args.running, &guest, catalog.memory)
}

/// Whether there is a ready guest of this name.
pub(super) fn knows(name: &str) -> bool {
    boot::find(name).is_ok()
}

/// A ready guest, fetched when needed, and its memory unless told otherwise. It is the same on every terminal.
pub(super) fn guest(
    name: &str,
    append: Option<&str>,
    modules: bool,
) -> Result<(Guest, u64), Failure> {
    let options = FetchOptions { mirror: None, from: None, refresh: false, modules };
    let (catalog, files) = fetch(name, &options)?;
    Ok((load(catalog, files, "", append)?, catalog.memory))
}

/// Finds a guest and fetches its files, if it has any.
fn fetch(
    name: &str,
    options: &FetchOptions,
) -> Result<(&'static boot::Guest, Option<boot::Files>), Failure> {
    let catalog = boot::find(name).map_err(Failure::usage)?;
    if catalog.embedded() {
        return Ok((catalog, None));
    }
    let cache = Cache::of_user().map_err(Failure::host)?;
    let shown = Shown::default();
    let files = catalog.fetch(&cache, options, &shown).map_err(fetch_failure)?;
    shown.finish();
    Ok((catalog, files))
}

fn load(
    catalog: &boot::Guest,
    files: Option<boot::Files>,
    words: &str,
    append: Option<&str>,
) -> Result<Guest, Failure> {
    let mut cmdline = catalog.cmdline.to_owned();
    let (image, initrd) = match files {
        None => {
            let image = loader::parse(&mimic_test_roms::demo::image(), &LoadOptions::default());
            (image.map_err(Failure::host)?, None)
        }
        Some(files) => {
            cmdline.push_str(words);
            let image = loader::load_file(&files.kernel, &LoadOptions::default());
            (image.map_err(Failure::host)?, files.initrd)
        }
    };
    if let Some(more) = append {
        cmdline.push(' ');
        cmdline.push_str(more);
    }
    Ok(Guest { image, initrd, cmdline, signature: None, patience: PATIENCE_WITH_KNOWN })
}

/// What the kernel passes on to its first process as environment: the kind and the size of the user's
/// terminal, which a serial line does not carry.
fn terminal_words() -> String {
    if !std::io::stdout().is_terminal() {
        return String::new();
    }
    let mut words = String::new();
    // Terminals of today understand xterm's sequences; those that do not say so by these names.
    let name = std::env::var("TERM").unwrap_or_default();
    if !(name.is_empty() || name == "dumb" || name == "linux" || name.starts_with("vt")) {
        words.push_str(" TERM=xterm");
    }
    if let Ok((columns, lines)) = crossterm::terminal::size()
        && columns > 0
        && lines > 0
    {
        words.push_str(&format!(" COLUMNS={columns} LINES={lines}"));
    }
    words
}

fn list() -> Result<u8, Failure> {
    let cache = Cache::of_user().ok();
    let mut text = String::from("Guests (mimic boot NAME):");
    for guest in boot::GUESTS {
        let state = if guest.embedded() {
            "built in".to_owned()
        } else if cache.as_ref().is_some_and(|cache| guest.ready(cache)) {
            "fetched".to_owned()
        } else {
            format!("{} MB to fetch", guest.download())
        };
        text.push_str(&format!("\n  {:<26}{} ({state})", guest.name, guest.about));
    }
    if let Some(cache) = cache {
        text.push_str(&format!("\nFetched files are kept in {}.", cache.root().display()));
    }
    print(&text)
}

pub(super) fn fetch_failure(error: BootError) -> Failure {
    match &error {
        BootError::Fetch { source, .. }
            if matches!(**source, BootError::Mirror(_) | BootError::From { .. }) =>
        {
            Failure::usage(error)
        }
        _ => Failure::host(error),
    }
}

/// Progress on stderr: a bar on a terminal, a line for each step elsewhere.
#[derive(Default)]
pub(super) struct Shown {
    bar: Mutex<Option<ProgressBar>>,
}

impl Shown {
    fn finish(&self) {
        if let Some(bar) = self.bar.lock().ok().and_then(|mut bar| bar.take()) {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Progress for Shown {
    fn step(&self, text: &str) {
        self.finish();
        if !std::io::stderr().is_terminal() {
            eprintln!("mimic: {text}");
            return;
        }
        let bar = ProgressBar::new(100).with_message(text.to_owned());
        let style =
            ProgressStyle::with_template("{spinner} {msg} {wide_bar} {percent:>3} % {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(150));
        if let Ok(mut shown) = self.bar.lock() {
            *shown = Some(bar);
        }
    }

    fn percent(&self, percent: f64) {
        if let Ok(shown) = self.bar.lock()
            && let Some(bar) = &*shown
        {
            bar.set_position(percent.clamp(0.0, 100.0) as u64);
        }
    }
}
