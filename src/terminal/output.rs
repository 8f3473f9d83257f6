//! The guest's console output on its way to stdout.
//!
//! The guest's thread puts bytes into a bounded queue, a writer thread takes them out in batches. A
//! reader that is slow slows the guest down once the queue is full; nothing is dropped. A reader that
//! is gone, or a disk that is full, ends the run, and the error is reported by [`Output::finish`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::tty;

/// Bytes that wait for the reader before the guest has to.
const CAPACITY: usize = 64 << 10;

/// What the guest's thread and the writer share.
struct Shared {
    state: Mutex<State>,
    /// The writer waits here for bytes.
    filled: Condvar,
    /// The guest waits here for room, and `finish` for the end.
    drained: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// The guest's bytes so far.
    total: u64,
    /// No more bytes will come.
    closed: bool,
    /// The guest no longer waits for room: its run is being ended.
    released: bool,
    /// The writer has ended.
    done: bool,
    /// Why the reader cannot be reached; later bytes go nowhere.
    error: Option<io::Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way from the guest to a file descriptor.
pub struct Output {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// The guest's end; clones serve one machine after the other.
#[derive(Clone)]
pub struct Sink(Arc<Shared>);

impl Output {
    /// Writes to `fd`, and calls `on_error` once when that fails.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub fn new(fd: OwnedFd, on_error: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
        });
        let writer = std::thread::Builder::new().name("console".into()).spawn({
            let shared = Arc::clone(&shared);
            move || write_all(&shared, &fd, on_error)
        })?;
        Ok(Output { shared, writer: Some(writer) })
    }

    /// A place to write to.
    pub fn sink(&self) -> Sink {
        Sink(Arc::clone(&self.shared))
    }

    /// Waits until every byte has been written.
    ///
    /// # Errors
    /// What the reader's end answered.
    pub fn finish(mut self) -> io::Result<()> {
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
        if let Some(writer) = self.writer.take() {
            // A panic of the writer was printed by its hook; the bytes it left are lost.
            if writer.join().is_err() {
                return Err(io::Error::other("the console's writer failed"));
            }
        }
        match self.shared.lock().error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Sink {
    /// Appends bytes, waiting for room.
    pub fn write(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        while state.waiting.len() >= CAPACITY && !state.done && !state.released {
            state = self.0.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.total += bytes.len() as u64;
        if state.done {
            return;
        }
        let idle = state.waiting.is_empty();
        state.waiting.extend_from_slice(bytes);
        drop(state);
        if idle {
            self.0.filled.notify_one();
        }
    }

    /// Lets the guest's thread go even if the reader does not read.
    pub fn release(&self) {
        self.0.lock().released = true;
        self.0.drained.notify_all();
    }

    /// Bytes written so far.
    pub fn total(&self) -> u64 {
        self.0.lock().total
    }

    /// Waits until the reader has everything, at most `patience`.
    pub fn settle(&self, patience: Duration) {
        let state = self.0.lock();
        // Whether it settled or the time is up makes no difference.
        drop(
            self.0
                .drained
                .wait_timeout_while(state, patience, |s| !s.waiting.is_empty() && !s.done),
        );
    }
}

impl mimic_devices::serial::SerialOutput for Sink {
    fn write(&mut self, bytes: &[u8]) {
        Sink::write(self, bytes);
    }
}

fn write_all(shared: &Shared, fd: &OwnedFd, on_error: impl FnOnce()) {
    let mut state = shared.lock();
    loop {
        while state.waiting.is_empty() {
            if state.closed {
                state.done = true;
                shared.drained.notify_all();
                return;
            }
            state = shared.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let batch = std::mem::take(&mut state.waiting);
        drop(state);
        tty::note_output(&batch);
        let result = write_batch(fd.as_fd(), &batch);
        state = shared.lock();
        if let Err(error) = result {
            state.error = Some(error);
            state.done = true;
            state.waiting.clear();
            shared.drained.notify_all();
            drop(state);
            on_error();
            return;
        }
        shared.drained.notify_all();
    }
}

fn write_batch(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            // Someone who shares the descriptor made it non-blocking.
            Err(rustix::io::Errno::AGAIN) => {
                let mut poll = [PollFd::new(&fd, PollFlags::OUT)];
                match rustix::event::poll(&mut poll, None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_slow_reader_gets_every_byte() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let output = Output::new(writer.into(), || {}).unwrap();
        let sink = output.sink();
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let feeder = std::thread::spawn({
            let sent = sent.clone();
            move || sent.chunks(777).for_each(|chunk| sink.write(chunk))
        });
        std::thread::sleep(Duration::from_millis(50));
        let reading = std::thread::spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            got
        });
        feeder.join().unwrap();
        output.finish().unwrap();
        assert!(reading.join().unwrap() == sent);
    }

    #[test]
    fn a_closed_reader_is_reported_once_and_does_not_block() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let told = Arc::new(AtomicBool::new(false));
        let output = Output::new(writer.into(), {
            let told = Arc::clone(&told);
            move || told.store(true, Ordering::SeqCst)
        })
        .unwrap();
        let sink = output.sink();
        for _ in 0..1000 {
            sink.write(&[b'x'; 1000]);
        }
        assert_eq!(output.finish().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(told.load(Ordering::SeqCst));
        assert_eq!(sink.total(), 1_000_000);
    }

    #[test]
    fn a_full_disk_is_reported() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = Output::new(full.into(), || {}).unwrap();
        output.sink().write(b"x");
        assert_eq!(output.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
