//! The modes of the terminal, and their restoration on every way out.
//!
//! Raw mode is a property of the process, so it is kept in statics: whoever ends the process (normal
//! return, error, panic hook, signal thread) calls [`restore`], and the first call does it.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use super::modes::Modes;

/// The terminal is in raw mode.
static RAW: AtomicBool = AtomicBool::new(false);
/// What the guest did to a terminal on stdout.
static MODES: Mutex<Modes> = Mutex::new(Modes::new());

fn modes() -> MutexGuard<'static, Modes> {
    MODES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Raw mode for as long as this lives. Without a terminal on stdin it does nothing.
pub struct RawMode(());

impl RawMode {
    /// Enters raw mode when stdin is a terminal, and has it left even by a panic.
    ///
    /// # Errors
    /// What the terminal answers.
    pub fn enter() -> std::io::Result<Self> {
        if std::io::stdin().is_terminal() {
            restore_on_panic();
            crossterm::terminal::enable_raw_mode()?;
            RAW.store(true, Ordering::SeqCst);
        }
        Ok(RawMode(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was found. Any number of calls from any thread.
pub fn restore() {
    let undo = modes().undo();
    if !undo.is_empty() && std::io::stdout().is_terminal() {
        // Nothing can be done about a terminal that is gone.
        let _ = rustix::io::write(rustix::stdio::stdout(), undo.as_bytes());
    }
    if RAW.swap(false, Ordering::SeqCst) {
        let _ = crossterm::terminal::disable_raw_mode();
    }
}

/// Enters raw mode again after the process was stopped. The modes to return to are those found at the
/// first time.
pub(super) fn resume() -> std::io::Result<()> {
    if std::io::stdin().is_terminal() {
        crossterm::terminal::enable_raw_mode()?;
        RAW.store(true, Ordering::SeqCst);
    }
    Ok(())
}

/// True while the terminal is in raw mode.
pub fn is_raw() -> bool {
    RAW.load(Ordering::SeqCst)
}

/// Takes note of what the guest sends to the terminal.
pub(super) fn note_output(bytes: &[u8]) {
    modes().feed(bytes);
}

/// Says something to the user on stderr, on lines of its own, whatever mode the terminal is in.
pub fn say(text: &str) {
    let mid_line = modes().take_mid_line() && std::io::stdout().is_terminal();
    let text = format!("{}{text}\n", if mid_line { "\n" } else { "" });
    let line = if is_raw() { text.replace('\n', "\r\n") } else { text };
    // Nobody is left to be told that stderr is closed.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            default(info);
        }));
    });
}
