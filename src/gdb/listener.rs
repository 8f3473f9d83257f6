//! Where gdb attaches.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::connection::Connection;

/// Why nobody could attach there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It is no address.
    #[error(
        "--gdb {0}: give HOST:PORT, :PORT for this computer alone, or the path of a Unix socket"
    )]
    Address(String),
    /// Others could attach.
    #[error(
        "--gdb {0}: other computers can reach this address, and whoever attaches owns the guest; use \
         :PORT with a tunnel (ssh -L), or add --gdb-remote"
    )]
    Public(String),
    /// Somebody else listens there.
    #[error("--gdb {0}: the address is in use; choose another port or path{1}")]
    InUse(String, &'static str),
    /// The host refuses.
    #[error("--gdb {address}: {source}")]
    Host {
        /// The address.
        address: String,
        /// The answer.
        source: io::Error,
    },
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A socket that waits for gdb.
#[derive(Debug)]
pub struct Listener(Socket);

impl Listener {
    /// Listens at `address`: `HOST:PORT`, `:PORT` or `PORT` (loopback), QEMU's `tcp:HOST:PORT`, or a path with a
    /// slash or after `unix:`. Addresses that other computers can reach are refused unless they are
    /// `public`ly wanted.
    ///
    /// # Errors
    /// [`ListenError`] says what to give instead.
    pub fn bind(address: &str, public: bool) -> Result<Self, ListenError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse(
                address.into(),
                if is_path(address) { ", or remove the file if nobody serves it" } else { "" },
            ),
            _ => ListenError::Host { address: address.into(), source },
        };
        if is_path(address) {
            let path = Path::new(address.strip_prefix("unix:").unwrap_or(address));
            let socket = UnixListener::bind(path).map_err(failed)?;
            socket.set_nonblocking(true).map_err(failed)?;
            return Ok(Listener(Socket::Unix(socket, path.to_owned())));
        }
        let places = resolve(address)?;
        if !public && places.iter().any(|place| !place.ip().is_loopback()) {
            return Err(ListenError::Public(address.into()));
        }
        let socket = TcpListener::bind(&places[..]).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Listener(Socket::Tcp(socket)))
    }

    /// What gdb's `target remote` takes.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.0 {
            Socket::Tcp(socket) => {
                socket.local_addr().map_or_else(|_| "?".into(), |place| place.to_string())
            }
            Socket::Unix(_, path) => path.display().to_string(),
        }
    }

    /// Takes the debugger that waits.
    pub(super) fn accept(&self) -> io::Result<Connection> {
        match &self.0 {
            Socket::Tcp(socket) => Connection::tcp(socket.accept()?.0),
            Socket::Unix(socket, _) => Connection::unix(socket.accept()?.0),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket, _) => socket.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.0 {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn is_path(address: &str) -> bool {
    address.starts_with("unix:") || address.contains('/')
}

/// The places that an address means, at least one.
fn resolve(address: &str) -> Result<Vec<SocketAddr>, ListenError> {
    let wrong = || ListenError::Address(address.into());
    let text = address.strip_prefix("tcp:").unwrap_or(address);
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() {
        return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))]);
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let places: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(|_| wrong())?.collect();
    if places.is_empty() { Err(wrong()) } else { Ok(places) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_loopback_unless_told_otherwise() {
        for local in [":0", "0", "127.0.0.1:0", "tcp::0", "[::1]:0"] {
            let listener = match Listener::bind(local, false) {
                // A host without IPv6.
                Err(ListenError::Host { .. }) if local.contains("::1") => continue,
                listener => listener.unwrap(),
            };
            let place: SocketAddr = listener.address().parse().unwrap();
            assert!(place.ip().is_loopback() && place.port() != 0, "{local}");
        }
        let refused = Listener::bind("0.0.0.0:0", false).unwrap_err().to_string();
        assert!(refused.contains("--gdb-remote"), "{refused}");
        Listener::bind("0.0.0.0:0", true).unwrap();
        for wrong in ["", ":", "localhost", ":x", ":70000", "no such host:1"] {
            let error = Listener::bind(wrong, false).unwrap_err();
            assert!(matches!(error, ListenError::Address(_)), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_address_in_use_is_named() {
        let first = Listener::bind(":0", false).unwrap();
        let error = Listener::bind(&first.address(), false).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gdb");
        let first = Listener::bind(path.to_str().unwrap(), false).unwrap();
        let error = Listener::bind(path.to_str().unwrap(), false).unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("remove"), "{error}");
        drop(first);
        assert!(!path.exists(), "the socket is removed");
    }
}
