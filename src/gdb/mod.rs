//! The debugger's door: a server for gdb's remote protocol.
//!
//! [`listener`] is where gdb attaches; [`Server`] owns the thread that talks to it; [`target`] is what the
//! protocol's crate asks of the machine, [`guest`] what an instruction set adds ([`riscv`] and [`x86`]), [`monitor`] is what gdb's
//! `monitor` command reaches. Everything goes through [`MachineHandle`]: no engine is known here.
//!
//! A connection stops the machine. When it ends, whichever way, breakpoints are forgotten and the guest
//! goes on, unless gdb killed it.

mod connection;
mod guest;
mod listener;
mod monitor;
mod riscv;
mod target;
mod x86;

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use gdbstub::common::Signal;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, GdbStubError, MultiThreadStopReason};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::loader::Isa;
use crate::machine::MachineHandle;
use connection::Connection;
use guest::Guest;
pub use listener::{ListenError, Listener};
use riscv::Rv64;
use target::Debuggee;
use x86::{Shape, X86};

/// Longest packet; registers and memory are read in such portions.
const PACKET_SIZE: usize = 16 << 10;

/// Serves gdb for one run of a machine; ends with it.
pub struct Server {
    wake: Arc<OwnedFd>,
    machine: MachineHandle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts serving `machine`, which has not been started yet. If it shall `wait`, it does nothing before a
    /// debugger has attached and continues.
    ///
    /// # Errors
    /// The host has no thread or no descriptor left.
    pub fn start(machine: MachineHandle, listener: Arc<Listener>, wait: bool) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let door = Door {
            machine: machine.clone(),
            listener,
            wake: Arc::clone(&wake),
            shape: Cell::new(None),
        };
        let rung = Arc::clone(&wake);
        machine.debug_waker(Some(Arc::new(move || ring(&rung))));
        if wait {
            machine.debug_hold_from_start();
        }
        let thread = std::thread::Builder::new().name("gdb".into()).spawn(move || door.serve())?;
        Ok(Server { wake, machine, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A machine that was never run has not ended either.
        self.machine.quit();
        ring(&self.wake);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(target: "gdb", "the debugger's thread panicked");
        }
        self.machine.debug_waker(None);
    }
}

fn ring(wake: &OwnedFd) {
    // Fails only when the counter is full, and then it has rung already.
    let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
}

/// What woke the thread.
enum Woken {
    /// There is something to read.
    Input,
    /// The machine has something to say.
    Machine,
}

/// The thread of a [`Server`].
struct Door {
    machine: MachineHandle,
    listener: Arc<Listener>,
    wake: Arc<OwnedFd>,
    /// What `monitor arch` has asked for.
    shape: Cell<Option<Shape>>,
}

type Problem = GdbStubError<std::convert::Infallible, io::Error>;

impl Door {
    fn serve(self) {
        while self.machine.end().is_none() {
            match self.wait(self.listener.as_fd()) {
                Ok(Woken::Machine) => {}
                Ok(Woken::Input) => match self.listener.accept() {
                    Ok(connection) => self.talk(connection),
                    // The caller has gone already.
                    Err(error) => log::debug!(target: "gdb", "nobody attached: {error}"),
                },
                Err(error) => {
                    log::error!(target: "gdb", "no debugger can attach any more: {error}");
                    self.machine.debug_go(Vec::new());
                    return;
                }
            }
        }
    }

    /// Sleeps until `fd` can be read or the machine rings.
    fn wait(&self, fd: BorrowedFd<'_>) -> io::Result<Woken> {
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(fd, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            if !fds[0].revents().is_empty() {
                // Emptied, or found empty.
                let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
                return Ok(Woken::Machine);
            }
            if !fds[1].revents().is_empty() {
                return Ok(Woken::Input);
            }
        }
    }

    /// One debugger, from its arrival until it leaves.
    fn talk(&self, connection: Connection) {
        log::info!(target: "gdb", "a debugger has attached");
        self.machine.debug_stop();
        match self.machine.isa() {
            Isa::Riscv64 => self.attach::<Rv64>(connection),
            Isa::X86_64 => match self.shape.get().unwrap_or_else(|| Shape::of(&self.machine)) {
                Shape::I8086 => self.attach::<X86<16>>(connection),
                Shape::I386 => self.attach::<X86<32>>(connection),
                Shape::X86_64 => self.attach::<X86<64>>(connection),
            },
        }
        log::info!(target: "gdb", "the debugger has left");
    }

    fn attach<G: Guest>(&self, connection: Connection) {
        let mut debuggee = Debuggee::<G>::new(self.machine.clone());
        debuggee.shape = self.shape.get();
        match self.converse(connection, &mut debuggee) {
            Ok(DisconnectReason::Kill) => self.machine.quit(),
            Ok(_) => {}
            Err(problem) => {
                log::warn!(target: "gdb", "the debugger's connection failed: {problem}");
            }
        }
        self.shape.set(debuggee.shape);
        debuggee.leave();
    }

    fn converse<G: Guest>(
        &self,
        connection: Connection,
        debuggee: &mut Debuggee<G>,
    ) -> Result<DisconnectReason, Problem> {
        let stub = GdbStub::builder(connection).packet_buffer_size(PACKET_SIZE).build();
        // Cannot fail: the buffer is the crate's own.
        let Ok(stub) = stub else { return Ok(DisconnectReason::Disconnect) };
        let mut state = stub.run_state_machine(debuggee)?;
        loop {
            state = match state {
                GdbStubStateMachine::Idle(mut gdb) => match self.next_byte(gdb.borrow_conn()) {
                    Some(Some(byte)) => gdb.incoming_data(debuggee, byte)?,
                    Some(None) if self.machine.end().is_none() => gdb.into(),
                    Some(None) | None => return Ok(DisconnectReason::Disconnect),
                },
                GdbStubStateMachine::Running(mut gdb) => {
                    if let Some(reason) = debuggee.stopped() {
                        state = gdb.report_stop(debuggee, reason)?;
                        continue;
                    }
                    match self.next_byte(gdb.borrow_conn()) {
                        Some(Some(byte)) => gdb.incoming_data(debuggee, byte)?,
                        Some(None) => gdb.into(),
                        None => return Ok(DisconnectReason::Disconnect),
                    }
                }
                GdbStubStateMachine::CtrlCInterrupt(gdb) => {
                    self.machine.debug_stop();
                    // A hart may have stopped by itself at the same time; that is the better reason.
                    let interrupt = MultiThreadStopReason::SignalWithThread {
                        tid: debuggee.current(),
                        signal: Signal::SIGINT,
                    };
                    let reason = debuggee.stopped().unwrap_or(interrupt);
                    gdb.interrupt_handled(debuggee, Some(reason))?
                }
                GdbStubStateMachine::Disconnected(gdb) => return Ok(gdb.get_reason()),
            }
        }
    }

    /// The next byte from gdb; `Some(None)` when the machine rang instead, `None` at the end.
    fn next_byte(&self, connection: &mut Connection) -> Option<Option<u8>> {
        if let Some(byte) = connection.buffered() {
            return Some(Some(byte));
        }
        // The acknowledgement of a packet that lets the guest go on has no answer behind it yet.
        if let Err(error) = gdbstub::conn::Connection::flush(connection) {
            log::debug!(target: "gdb", "the debugger's connection broke: {error}");
            return None;
        }
        match self.wait(connection.as_fd()) {
            Ok(Woken::Machine) => Some(None),
            Ok(Woken::Input) => match connection.read() {
                Ok(byte) => byte.map(Some),
                Err(error) => {
                    log::debug!(target: "gdb", "the debugger's connection broke: {error}");
                    None
                }
            },
            Err(error) => {
                log::error!(target: "gdb", "waiting for the debugger failed: {error}");
                None
            }
        }
    }
}
