//! The bytes that go to and from gdb.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A debugger that does not take an answer for this long is given up.
const PATIENCE: Duration = Duration::from_secs(10);

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream to gdb: what is written is sent by `flush`.
pub(super) struct Connection {
    stream: Stream,
    received: VecDeque<u8>,
    unsent: Vec<u8>,
}

impl Connection {
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::new(Stream::Tcp(stream)))
    }

    pub(super) fn unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::new(Stream::Unix(stream)))
    }

    fn new(stream: Stream) -> Self {
        Connection { stream, received: VecDeque::new(), unsent: Vec::new() }
    }

    /// A byte that has been received already.
    pub(super) fn buffered(&mut self) -> Option<u8> {
        self.received.pop_front()
    }

    /// Waits for bytes and returns the first; `None` at the end of the stream.
    pub(super) fn read(&mut self) -> io::Result<Option<u8>> {
        let mut bytes = [0; 4096];
        let len = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut bytes)?,
            Stream::Unix(stream) => stream.read(&mut bytes)?,
        };
        self.received.extend(&bytes[..len]);
        Ok(self.buffered())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl gdbstub::conn::Connection for Connection {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.unsent.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.unsent);
        match &mut self.stream {
            Stream::Tcp(stream) => Write::write_all(stream, &bytes),
            Stream::Unix(stream) => Write::write_all(stream, &bytes),
        }
    }
}
