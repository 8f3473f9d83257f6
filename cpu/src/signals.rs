//! What other threads can do to a running hart: drive its interrupt lines and ask for its attention.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Calls a hart back that cannot poll, since the host's processor executes the guest's code as it is.
pub trait Interrupter: Debug + Send + Sync {
    /// Makes the hart's engine look at its [`Signals`] soon. Called from any thread.
    fn interrupt(&self);
}

/// The outside of one hart. Shared between the hart's engine, which polls it at block boundaries, and
/// everybody who may interrupt the hart. This is also the engines' `Kick` handle.
#[derive(Debug, Default)]
pub struct Signals {
    /// Something changed since the hart looked last. The only word that is polled.
    attention: AtomicBool,
    /// Levels of the interrupt lines that lead into the hart, as bits of the ISA's pending register.
    lines: AtomicU64,
    /// The engine shall leave `run`.
    leave: AtomicBool,
    /// A thread is parked.
    asleep: Mutex<bool>,
    wake: Condvar,
    /// The hart cannot poll now.
    away: AtomicBool,
    interrupter: Mutex<Option<Arc<dyn Interrupter>>>,
}

impl Signals {
    /// Drives the interrupt lines in `mask` to `level`.
    pub fn set_lines(&self, mask: u64, level: bool) {
        let old = if level {
            self.lines.fetch_or(mask, Ordering::SeqCst)
        } else {
            self.lines.fetch_and(!mask, Ordering::SeqCst)
        };
        if (old & mask != mask) == level {
            self.call_attention();
        }
    }

    /// The current levels of the interrupt lines.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::SeqCst)
    }

    /// Host address of the word with the [`lines`](Self::lines), for translated code, which only reads it.
    #[must_use]
    pub fn lines_address(&self) -> usize {
        self.lines.as_ptr().expose_provenance()
    }

    /// Makes the hart look at its interrupts and deadlines soon, waking it if it is parked.
    pub fn call_attention(&self) {
        self.attention.store(true, Ordering::SeqCst);
        // Taking the lock orders this wake-up after a parking hart's last look at `attention`.
        let asleep = *self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        // A running hart hears of it without a system call.
        if asleep {
            self.wake.notify_all();
        }
        if self.away.load(Ordering::SeqCst) {
            let interrupter = self.interrupter.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(interrupter) = &*interrupter {
                interrupter.interrupt();
            }
        }
    }

    /// Sets who calls the hart back while it is [away](Self::go_away).
    pub fn set_interrupter(&self, interrupter: Option<Arc<dyn Interrupter>>) {
        *self.interrupter.lock().unwrap_or_else(PoisonError::into_inner) = interrupter;
    }

    /// From now on until [`come_back`](Self::come_back) whoever calls for attention also interrupts the hart. False,
    /// and nothing changes, if somebody has called already.
    #[must_use]
    pub fn go_away(&self) -> bool {
        self.away.store(true, Ordering::SeqCst);
        // Either the caller finds the hart away, or the hart finds the call.
        fence(Ordering::SeqCst);
        let called = self.attention.load(Ordering::SeqCst);
        if called {
            self.come_back();
        }
        !called
    }

    /// The hart polls again.
    pub fn come_back(&self) {
        self.away.store(false, Ordering::SeqCst);
    }

    /// Makes the engine leave `run` at the next instruction boundary.
    pub fn kick(&self) {
        self.leave.store(true, Ordering::SeqCst);
        self.call_attention();
    }

    /// Whether something changed since [`take_attention`](Self::take_attention); the poll in the
    /// engines' hot path.
    #[inline]
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        self.attention.load(Ordering::Relaxed)
    }

    /// Acknowledges the request for attention; the caller then looks at everything.
    pub fn take_attention(&self) {
        self.attention.swap(false, Ordering::SeqCst);
    }

    /// Whether the engine shall leave `run`; the request is consumed.
    #[must_use]
    pub fn take_kick(&self) -> bool {
        self.leave.swap(false, Ordering::SeqCst)
    }

    /// Parks the calling thread until somebody calls for attention, at most for `limit`.
    pub fn park(&self, limit: Option<Duration>) {
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.attention.load(Ordering::SeqCst) {
            *asleep = true;
            match limit {
                None => asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner),
                Some(limit) => {
                    let waited = self.wake.wait_timeout(asleep, limit);
                    asleep = waited.unwrap_or_else(PoisonError::into_inner).0;
                    break;
                }
            }
        }
        *asleep = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_line_that_changes_calls_attention_once() {
        let signals = Signals::default();
        signals.set_lines(0x80, true);
        assert!(signals.needs_attention());
        signals.take_attention();
        signals.set_lines(0x80, true);
        assert!(!signals.needs_attention(), "the level did not change");
        signals.set_lines(0x80, false);
        assert!(signals.needs_attention());
        assert_eq!(signals.lines(), 0);
    }

    #[derive(Debug, Default)]
    struct Counter(AtomicU64);

    impl Interrupter for Counter {
        fn interrupt(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_hart_is_interrupted_while_it_is_away_alone() {
        let (signals, counter) = (Signals::default(), Arc::new(Counter::default()));
        signals.set_interrupter(Some(counter.clone()));
        signals.call_attention();
        assert!(!signals.go_away(), "somebody has called");
        signals.call_attention();
        assert_eq!(counter.0.load(Ordering::SeqCst), 0);
        signals.take_attention();
        assert!(signals.go_away());
        signals.kick();
        signals.come_back();
        signals.kick();
        assert_eq!(counter.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_parked_thread_wakes_on_a_kick() {
        let signals = Arc::new(Signals::default());
        let parked = Arc::clone(&signals);
        let thread = std::thread::spawn(move || parked.park(None));
        signals.kick();
        thread.join().unwrap();
        assert!(signals.take_kick());
        assert!(!signals.take_kick());
    }
}
