//! How a vCPU is called back from the guest: a signal to its thread, whose handler also sets `immediate_exit`, so that
//! a signal just before KVM_RUN is not lost (Linux, Documentation/virt/kvm/api.rst, "immediate_exit"). The signal comes
//! from other threads, or from a timer when the vCPU's time is over.
#![allow(unsafe_code)] // Signals, timers of the host, and a byte that the kernel reads.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::time::Duration;

use mimic_cpu::signals::Interrupter;

/// `immediate_exit` of the vCPU that a thread runs.
pub(super) type ImmediateExit = NonNull<AtomicU8>;

thread_local! {
    static RUNNING: Cell<Option<ImmediateExit>> = const { Cell::new(None) };
}

/// The signal.
fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

extern "C" fn handler(_: libc::c_int) {
    if let Some(flag) = RUNNING.get() {
        // SAFETY: `Running` keeps the flag's vCPU borrowed while this thread's cell holds it.
        unsafe { flag.as_ref() }.store(1, Ordering::SeqCst);
    }
}

/// Installs the handler, once for the process.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let install = || {
        // SAFETY: all bits zero are a valid sigaction, without SA_RESTART: KVM_RUN shall return.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = handler as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler does what a signal handler may: it touches one atomic byte.
        let result = unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error().raw_os_error().unwrap_or(0))
        }
    };
    INSTALLED.get_or_init(install).map_err(io::Error::from_raw_os_error)
}

fn this_thread() -> libc::pid_t {
    // SAFETY: no arguments, no effect.
    unsafe { libc::gettid() }
}

/// Sends the signal to the thread of a vCPU.
#[derive(Debug, Default)]
pub(super) struct Caller(AtomicI32);

impl Interrupter for Caller {
    fn interrupt(&self) {
        let thread = self.0.load(Ordering::SeqCst);
        if thread != 0 {
            // SAFETY: plain system call; of a thread that is gone it says so, and to any other thread of this process
            // the signal means nothing.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
    }
}

/// This thread runs a vCPU, until this is dropped.
pub(super) struct Running;

impl Running {
    /// `flag` must stay valid until the value is dropped on the same thread.
    ///
    /// # Errors
    /// The host has no such signal.
    pub(super) fn enter(flag: ImmediateExit, caller: &Caller) -> io::Result<Self> {
        install()?;
        caller.0.store(this_thread(), Ordering::SeqCst);
        RUNNING.set(Some(flag));
        Ok(Running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(None);
    }
}

/// A timer that sends the signal to one thread.
#[derive(Debug)]
pub(super) struct Alarm {
    id: libc::timer_t,
    thread: libc::pid_t,
}

// SAFETY: the id of a timer means the same in all threads of the process.
unsafe impl Send for Alarm {}

impl Alarm {
    /// A timer for the calling thread.
    pub(super) fn new() -> io::Result<Self> {
        let thread = this_thread();
        // SAFETY: all bits zero are a valid sigevent.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal();
        event.sigev_notify_thread_id = thread;
        let mut id: libc::timer_t = std::ptr::null_mut();
        // SAFETY: both pointers are to locals.
        let result =
            unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut id) };
        if result == 0 { Ok(Alarm { id, thread }) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether it calls the calling thread.
    pub(super) fn is_of_this_thread(&self) -> bool {
        self.thread == this_thread()
    }

    /// Sends the signal once after `time`; `None`: not any more.
    pub(super) fn set(&self, time: Option<Duration>) {
        let time = time.map_or(Duration::ZERO, |time| time.max(Duration::from_nanos(1)));
        let value = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: time.as_secs().min(i64::MAX as u64) as libc::time_t,
                tv_nsec: time.subsec_nanos().into(),
            },
        };
        // SAFETY: the timer is ours, the value a local. The time is valid, so the call cannot fail.
        unsafe { libc::timer_settime(self.id, 0, &raw const value, std::ptr::null_mut()) };
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer is ours and not used afterwards.
        unsafe { libc::timer_delete(self.id) };
    }
}
