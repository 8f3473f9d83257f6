//! Notices a guest that never prints: wrong consoles and wrong firmware are what users lose hours to.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::output::Sink;
use super::tty;
use crate::machine::MachineHandle;

/// Watches one run; ends with it.
pub(super) struct SilenceWatch {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SilenceWatch {
    /// Speaks up once when nothing has been printed for `patience`.
    pub(super) fn start(
        handle: MachineHandle,
        sink: Sink,
        patience: Duration,
        advice: &'static str,
    ) -> std::io::Result<Self> {
        let (end, ended) = channel();
        let before = sink.total();
        let thread = std::thread::Builder::new().name("silence".into()).spawn(move || {
            let silent = ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
            if silent && sink.total() == before && !handle.is_paused() {
                tty::say(&message(&handle, patience, advice));
            }
        })?;
        Ok(SilenceWatch { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for SilenceWatch {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It holds nothing that others wait for.
            let _ = thread.join();
        }
    }
}

fn message(handle: &MachineHandle, patience: Duration, advice: &str) -> String {
    let mut text = format!("mimic: the guest has printed nothing for {} s.", patience.as_secs());
    for (number, hart) in handle.harts().into_iter().enumerate() {
        text.push_str(&format!("\n  hart {number}: {}", super::session::place(handle, &hart)));
    }
    text.push_str("\n  ");
    text.push_str(advice);
    text
}
