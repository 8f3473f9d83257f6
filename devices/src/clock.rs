//! Guest time and the one queue of deadlines.
//!
//! Guest time is a `u64` of nanoseconds since the machine was made. It either follows the host's
//! monotonic clock or is set by the owner from retired instructions (`--deterministic`). Every
//! deadline of every device and hart lives in one [`TimerQueue`]; whoever owns the machine's event
//! loop sleeps until [`TimerQueue::next_deadline`] and then calls [`TimerQueue::fire_due`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Guest time in nanoseconds. Clones share the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    time: Arc<Time>,
}

#[derive(Debug)]
enum Time {
    Real {
        origin: Instant,
        /// Guest time minus host time since `origin`: negative once the guest was paused.
        offset: AtomicI64,
        stopped: AtomicBool,
        /// The guest's time while stopped.
        frozen: AtomicU64,
    },
    Virtual(AtomicU64),
}

impl Clock {
    /// A clock that follows the host's monotonic clock, running, at 0.
    pub fn real() -> Self {
        Self {
            time: Arc::new(Time::Real {
                origin: Instant::now(),
                offset: AtomicI64::new(0),
                stopped: AtomicBool::new(false),
                frozen: AtomicU64::new(0),
            }),
        }
    }

    /// A clock that moves only through [`Clock::advance_to`], at 0.
    pub fn deterministic() -> Self {
        Self { time: Arc::new(Time::Virtual(AtomicU64::new(0))) }
    }

    /// Whether time is virtual.
    pub fn is_deterministic(&self) -> bool {
        matches!(*self.time, Time::Virtual(_))
    }

    /// Guest time in nanoseconds. Never goes back, except by [`Clock::set`].
    pub fn now(&self) -> u64 {
        match &*self.time {
            Time::Real { origin, offset, stopped, frozen } => {
                if stopped.load(Ordering::Acquire) {
                    frozen.load(Ordering::Acquire)
                } else {
                    host_ns(origin).wrapping_add_signed(offset.load(Ordering::Acquire))
                }
            }
            Time::Virtual(ns) => ns.load(Ordering::Acquire),
        }
    }

    /// Moves virtual time forward to `ns`; an earlier value changes nothing, nor does a call on a
    /// real clock.
    pub fn advance_to(&self, ns: u64) {
        if let Time::Virtual(now) = &*self.time {
            now.fetch_max(ns, Ordering::AcqRel);
        }
    }

    /// Freezes a real clock while the guest is paused. The vCPUs are parked around this call.
    /// Virtual time stands still by itself.
    pub fn stop(&self) {
        if let Time::Real { stopped, frozen, .. } = &*self.time
            && !stopped.load(Ordering::Acquire)
        {
            frozen.store(self.now(), Ordering::Release);
            stopped.store(true, Ordering::Release);
        }
    }

    /// Lets a stopped clock go on from the time at which it stopped.
    pub fn resume(&self) {
        if let Time::Real { origin, offset, stopped, frozen } = &*self.time
            && stopped.load(Ordering::Acquire)
        {
            let behind = frozen.load(Ordering::Acquire).wrapping_sub(host_ns(origin));
            offset.store(behind.cast_signed(), Ordering::Release);
            stopped.store(false, Ordering::Release);
        }
    }

    /// Sets the time, also backwards: for restoring a saved machine, with the vCPUs parked.
    pub fn set(&self, ns: u64) {
        match &*self.time {
            Time::Real { origin, offset, frozen, .. } => {
                frozen.store(ns, Ordering::Release);
                let behind = ns.wrapping_sub(host_ns(origin));
                offset.store(behind.cast_signed(), Ordering::Release);
            }
            Time::Virtual(now) => now.store(ns, Ordering::Release),
        }
    }
}

/// 584 years of nanoseconds fit.
fn host_ns(origin: &Instant) -> u64 {
    origin.elapsed().as_nanos() as u64
}

/// What runs when a deadline has passed; the argument is the guest time of the check.
pub type TimerCallback = Arc<dyn Fn(u64) + Send + Sync>;

/// All deadlines of one machine. Clones are the same queue.
#[derive(Clone, Default)]
pub struct TimerQueue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Copy of the earliest deadline, [`NEVER`] when there is none, for reading without the lock.
    earliest: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self { state: Mutex::default(), earliest: AtomicU64::new(NEVER) }
    }
}

/// A deadline that is never reached.
pub const NEVER: u64 = u64::MAX;

#[derive(Default)]
struct State {
    slots: Vec<Option<Slot>>,
    /// (deadline, slot): equal deadlines fire in the order of registration, so runs repeat exactly.
    armed: BTreeSet<(u64, usize)>,
    waker: Option<Arc<dyn Fn() + Send + Sync>>,
}

struct Slot {
    callback: TimerCallback,
    deadline: Option<u64>,
}

impl TimerQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new timer, not armed. The callback runs on the thread that calls
    /// [`TimerQueue::fire_due`], without any lock of the queue held; it may arm and cancel timers.
    /// A callback can run once after a racing [`Timer::cancel`] or re-arm from another thread, so
    /// it looks at its device's state rather than trusting the call.
    pub fn register(&self, callback: TimerCallback) -> Timer {
        let mut state = self.shared.lock();
        let slot = Some(Slot { callback, deadline: None });
        let index = match state.slots.iter().position(Option::is_none) {
            Some(free) => {
                state.slots[free] = slot;
                free
            }
            None => {
                state.slots.push(slot);
                state.slots.len() - 1
            }
        };
        Timer { shared: Arc::clone(&self.shared), index }
    }

    /// Sets what is called, from any thread, when the earliest deadline became earlier: the event
    /// loop then shortens its sleep. It must not call back into the queue's timers.
    pub fn set_waker(&self, waker: Arc<dyn Fn() + Send + Sync>) {
        self.shared.lock().waker = Some(waker);
    }

    /// The earliest deadline in nanoseconds of guest time. Costs one load.
    pub fn next_deadline(&self) -> Option<u64> {
        match self.shared.earliest.load(Ordering::Acquire) {
            NEVER => None,
            ns => Some(ns),
        }
    }

    /// Runs the callback of every timer whose deadline is at or before `now` and disarms it, in
    /// order of deadline; a timer armed again by a callback waits for the next call. Returns how
    /// many ran.
    pub fn fire_due(&self, now: u64) -> usize {
        if self.shared.earliest.load(Ordering::Acquire) > now {
            return 0;
        }
        let due: Vec<(u64, usize)> =
            self.shared.lock().armed.range(..=(now, usize::MAX)).copied().collect();
        let mut fired = 0;
        for entry in due {
            let callback = {
                let mut state = self.shared.lock();
                // An earlier callback of this round may have cancelled or moved it.
                if !state.armed.remove(&entry) {
                    continue;
                }
                self.shared.note_earliest(&state);
                let Some(slot) = state.slots[entry.1].as_mut() else { continue };
                slot.deadline = None;
                Arc::clone(&slot.callback)
            };
            callback(now);
            fired += 1;
        }
        fired
    }
}

impl fmt::Debug for TimerQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerQueue").field("next_deadline", &self.next_deadline()).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_earliest(&self, state: &State) -> u64 {
        let earliest = state.armed.first().map_or(NEVER, |&(deadline, _)| deadline);
        self.earliest.swap(earliest, Ordering::AcqRel)
    }

    fn set(&self, index: usize, deadline: Option<u64>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(slot) = state.slots[index].as_mut() else { return };
        if slot.deadline == deadline {
            return;
        }
        if let Some(old) = slot.deadline {
            state.armed.remove(&(old, index));
        }
        slot.deadline = deadline;
        if let Some(new) = deadline {
            state.armed.insert((new, index));
        }
        let before = self.note_earliest(state);
        let sooner = deadline.is_some_and(|new| new < before);
        let waker = if sooner { state.waker.clone() } else { None };
        drop(guard);
        if let Some(waker) = waker {
            waker();
        }
    }
}

/// One deadline in a [`TimerQueue`]; dropping it removes it.
pub struct Timer {
    shared: Arc<Shared>,
    index: usize,
}

impl Timer {
    /// Sets the deadline to `ns` of guest time, replacing the one before; [`NEVER`] disarms.
    pub fn arm(&self, ns: u64) {
        self.shared.set(self.index, (ns != NEVER).then_some(ns));
    }

    /// Disarms the timer.
    pub fn cancel(&self) {
        self.shared.set(self.index, None);
    }

    /// The deadline, when armed.
    pub fn deadline(&self) -> Option<u64> {
        self.shared.lock().slots[self.index].as_ref().and_then(|slot| slot.deadline)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
        let slot = self.shared.lock().slots[self.index].take();
        // The callback may own the last handle of something that locks; it goes without our lock.
        drop(slot);
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("deadline", &self.deadline()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    #[test]
    fn virtual_time_moves_only_forward_and_only_when_told() {
        let clock = Clock::deterministic();
        assert_eq!(clock.now(), 0);
        clock.advance_to(50);
        clock.advance_to(20);
        assert_eq!(clock.clone().now(), 50);
        clock.set(10);
        assert_eq!(clock.now(), 10);
    }

    #[test]
    fn a_stopped_real_clock_goes_on_where_it_stopped() {
        let clock = Clock::real();
        clock.stop();
        let stopped = clock.now();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(clock.now(), stopped);
        clock.resume();
        let resumed = clock.now();
        assert!(resumed >= stopped && resumed - stopped < 15_000_000, "the pause was counted");
        clock.set(1 << 60);
        assert!(clock.now() >= 1 << 60);
    }

    #[test]
    fn timers_fire_in_order_of_deadline_then_registration() {
        let queue = TimerQueue::new();
        let log = Arc::new(Mutex::new(Vec::new()));
        let timers: Vec<Timer> = (0..3)
            .map(|i| {
                let log = log.clone();
                queue.register(Arc::new(move |now| log.lock().unwrap().push((i, now))))
            })
            .collect();
        timers[0].arm(30);
        timers[2].arm(10);
        timers[1].arm(30);
        assert_eq!(queue.next_deadline(), Some(10));
        assert_eq!(queue.fire_due(9), 0);
        assert_eq!(queue.fire_due(10), 1);
        assert_eq!(queue.next_deadline(), Some(30));
        assert_eq!(queue.fire_due(31), 2);
        assert_eq!(*log.lock().unwrap(), [(2, 10), (0, 31), (1, 31)]);
        assert_eq!(queue.next_deadline(), None);
    }

    #[test]
    fn never_cancel_and_drop_disarm() {
        let queue = TimerQueue::new();
        let timer = queue.register(Arc::new(|_| panic!("fired")));
        timer.arm(5);
        timer.arm(NEVER);
        assert_eq!(queue.next_deadline(), None);
        timer.arm(5);
        timer.cancel();
        assert_eq!(queue.next_deadline(), None);
        timer.arm(5);
        drop(timer);
        assert_eq!(queue.next_deadline(), None);
        assert_eq!(queue.fire_due(100), 0);
    }

    #[test]
    fn a_callback_that_rearms_in_the_past_fires_once_a_round() {
        let queue = TimerQueue::new();
        let cell: Arc<OnceLock<Timer>> = Arc::default();
        let inner = cell.clone();
        let timer = queue.register(Arc::new(move |_| inner.get().unwrap().arm(1)));
        timer.arm(1);
        cell.set(timer).unwrap();
        assert_eq!(queue.fire_due(10), 1);
        assert_eq!(queue.fire_due(10), 1);
        cell.get().unwrap().cancel();
    }

    #[test]
    fn the_waker_hears_of_earlier_deadlines_alone() {
        let queue = TimerQueue::new();
        let wakes = Arc::new(AtomicUsize::new(0));
        let seen = wakes.clone();
        queue.set_waker(Arc::new(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        }));
        let (a, b) = (queue.register(Arc::new(|_| ())), queue.register(Arc::new(|_| ())));
        a.arm(100);
        b.arm(200);
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        b.arm(50);
        b.cancel();
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }
}
