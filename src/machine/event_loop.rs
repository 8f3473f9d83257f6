//! The event loop: one thread that owns the timers and the console's input.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use mimic_devices::clock::{Clock, TimerQueue};
use mimic_devices::serial::SerialInput;

use super::control::Control;
use super::spec::End;
use super::{InputSource, MachineHandle};

/// Bytes typed ahead that are kept for a guest which takes none.
const MAX_TYPED: usize = 1 << 20;

const WAKE: Token = Token(0);
const INPUT: Token = Token(1);

/// Console input on its way to the guest.
pub(super) struct ConsoleInput {
    serial: SerialInput,
    /// Bytes the serial port had no room for.
    backlog: Mutex<VecDeque<u8>>,
}

impl ConsoleInput {
    pub(super) fn new(serial: SerialInput) -> Self {
        ConsoleInput { serial, backlog: Mutex::default() }
    }

    /// Queues `bytes`; how many the serial port took at once.
    pub(super) fn push(&self, bytes: &[u8]) -> usize {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        let before = bytes.len();
        let left = self.drain();
        before.saturating_sub(left)
    }

    /// Moves the backlog into the serial port; how many bytes are left.
    pub(super) fn drain(&self) -> usize {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        while !backlog.is_empty() {
            let taken = self.serial.push(backlog.make_contiguous());
            if taken == 0 {
                break;
            }
            backlog.drain(..taken);
        }
        backlog.len()
    }
}

pub(super) struct EventLoop {
    poll: Poll,
    pub(super) control: Arc<Control>,
    pub(super) clock: Clock,
    pub(super) timers: TimerQueue,
    pub(super) console: Arc<ConsoleInput>,
    pub(super) input: Option<InputSource>,
    pub(super) deadline: Option<Instant>,
    pub(super) handle: MachineHandle,
}

/// What [`EventLoop::new`] needs.
pub(super) struct Parts {
    pub(super) control: Arc<Control>,
    pub(super) clock: Clock,
    pub(super) timers: TimerQueue,
    pub(super) console: Arc<ConsoleInput>,
    pub(super) input: Option<InputSource>,
    pub(super) limit: Option<Duration>,
    pub(super) handle: MachineHandle,
}

impl EventLoop {
    pub(super) fn new(parts: Parts) -> io::Result<Self> {
        let poll = Poll::new()?;
        let Parts { control, clock, timers, console, mut input, limit, handle } = parts;
        let waker = mio::Waker::new(poll.registry(), WAKE)?;
        // Set once, here; a second loop for the same machine does not exist.
        let _ = control.waker.set(waker);
        let woken = Arc::clone(&control);
        timers.set_waker(Arc::new(move || woken.wake_event_loop()));
        let woken = Arc::clone(&control);
        console.serial.on_room(Arc::new(move || woken.wake_event_loop()));
        if let Some(source) = &mut input {
            let raw = source.fd.as_raw_fd();
            match poll.registry().register(&mut SourceFd(&raw), INPUT, Interest::READABLE) {
                Ok(()) => {}
                // Regular files cannot be polled and need not be: they are always ready.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error),
            }
        }
        let deadline = limit.map(|limit| Instant::now() + limit);
        Ok(EventLoop { poll, control, clock, timers, console, input, deadline, handle })
    }

    /// Serves until the machine has ended.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(8);
        while !self.control.ended() {
            // In a deterministic run guest time is made by the harts, and so are its deadlines.
            if !self.clock.is_deterministic() {
                self.timers.fire_due(self.clock.now());
            }
            if self.control.is_woken()
                && !self.clock.is_deterministic()
                && !self.control.is_paused()
            {
                self.handle.wake();
                continue;
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.control.end(End::TimeLimit);
                break;
            }
            let stalled = self.serve_input();
            let timeout = self.sleep(stalled);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    self.control.end(End::Host(format!("waiting for events failed: {error}")));
                }
                _ => {}
            }
        }
    }

    /// How long nothing will happen.
    fn sleep(&self, stalled: bool) -> Option<Duration> {
        let now = self.clock.now();
        let timer = self
            .timers
            .next_deadline()
            .filter(|_| !self.control.is_paused() && !self.clock.is_deterministic())
            // Round up: waking early would only spin.
            .map(|deadline| Duration::from_nanos(deadline.saturating_sub(now)));
        let limit =
            self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // A guest that takes no input calls back once it does; look again now and then regardless.
        let retry = stalled.then_some(Duration::from_millis(100));
        [timer, limit, retry].into_iter().flatten().min()
    }

    /// Moves input along as far as the guest takes it. Whether it is stalled by the guest.
    fn serve_input(&mut self) -> bool {
        loop {
            let backlog = self.console.drain();
            let Some(source) = &mut self.input else { return backlog > 0 };
            // Somebody at a terminal must reach the escape key even when the guest takes nothing; a pipe
            // is left to wait.
            let limit = if source.interactive { MAX_TYPED } else { 0 };
            if backlog > limit {
                return true;
            }
            if !ready(source.fd.as_fd()) {
                return backlog > 0;
            }
            let mut bytes = [0; 1024];
            match rustix::io::read(&source.fd, &mut bytes) {
                Ok(0) => {
                    (source.on_eof)(&self.handle);
                    self.close_input();
                    return backlog > 0;
                }
                Ok(len) => (source.on_bytes)(&bytes[..len], &self.handle),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return false,
                Err(error) => {
                    log::warn!(target: "console", "reading the console's input failed: {error}");
                    (source.on_eof)(&self.handle);
                    self.close_input();
                    return backlog > 0;
                }
            }
        }
    }

    fn close_input(&mut self) {
        if let Some(source) = self.input.take() {
            let raw = source.fd.as_raw_fd();
            // Fails for regular files, which were never registered.
            let _ = self.poll.registry().deregister(&mut SourceFd(&raw));
        }
    }
}

/// Whether a read of `fd` would return at once.
fn ready(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&now)), Ok(count) if count > 0)
}
