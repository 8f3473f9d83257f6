//! Signals sent to Mimic: the terminal is given back before anything else happens.
//!
//! In raw mode Ctrl-C, Ctrl-Z and Ctrl-\ are bytes for the guest; these signals come from outside, or
//! from a terminal that is not ours.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;

use super::output::Sink;
use super::session::Current;
use super::tty;
use crate::machine::MachineHandle;

/// How long the machine may take to stop before the process ends without it.
const GRACE: Duration = Duration::from_secs(3);

/// Serves signals during a session, resets of the machine included.
pub(super) struct SignalWatch {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    received: Arc<AtomicI32>,
    ended: Arc<AtomicBool>,
}

impl SignalWatch {
    pub(super) fn start(current: Arc<Current>, sink: Sink) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT])?;
        let handle = signals.handle();
        let received = Arc::new(AtomicI32::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("signals".into()).spawn({
            let (received, ended) = (Arc::clone(&received), Arc::clone(&ended));
            move || {
                let mut paused_here = false;
                for signal in signals.forever() {
                    match signal {
                        SIGTSTP => {
                            tty::restore();
                            let machine = current.machine().filter(|machine| !machine.is_paused());
                            paused_here = machine.is_some();
                            machine.inspect(MachineHandle::pause);
                            // SIGSTOP cannot fail; what follows runs after SIGCONT.
                            let _ = emulate_default_handler(SIGTSTP);
                        }
                        SIGCONT => {
                            // A stop by SIGSTOP leaves its mark too: the shell took the terminal back.
                            let _ = tty::resume();
                            if std::mem::take(&mut paused_here) {
                                current.machine().inspect(MachineHandle::resume);
                            }
                        }
                        signal => {
                            tty::restore();
                            if received.swap(signal, Ordering::SeqCst) != 0 {
                                end_by(signal);
                            }
                            sink.release();
                            current.machine().inspect(MachineHandle::quit);
                            end_later(signal, Arc::clone(&ended));
                        }
                    }
                }
            }
        })?;
        Ok(SignalWatch { handle, thread: Some(thread), received, ended })
    }

    /// The signal that ended the run, if one did.
    pub(super) fn received(&self) -> Option<i32> {
        Some(self.received.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // Its panic was printed by the hook.
            let _ = thread.join();
        }
    }
}

/// Ends the process as the signal would have, so that its parent sees why.
pub(super) fn end_by(signal: i32) {
    tty::restore();
    // Only an invalid number fails.
    let _ = emulate_default_handler(signal);
}

/// A guest whose reader does not read may hold its thread for ever.
fn end_later(signal: i32, ended: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        std::thread::sleep(GRACE);
        if !ended.load(Ordering::SeqCst) {
            end_by(signal);
        }
    });
}
