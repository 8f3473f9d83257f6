//! Who may run, and how a run ends: the end of the machine, the safepoint and the pause.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};

use mimic_cpu::debug::DebugEvent;
use mimic_cpu::signals::Signals;
use mimic_devices::power::{PowerEvent, PowerSink};
use mimic_firmware::riscv::sbi;

use super::spec::{End, HartView, Stats};
use crate::engine::{CpuState, HartEngine};

/// What a hart leaves for others to read when it arrives at a safepoint or ends.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) view: HartView,
    pub(super) stats: Stats,
    pub(super) hart: CpuState,
}

/// The harts of a thread, as they stand at a safepoint.
pub(super) trait Standing {
    /// Their numbers.
    fn harts(&self) -> Range<usize>;
    /// What they leave for others.
    fn samples(&self) -> Vec<(usize, Sample)>;
    /// The engine of one of them.
    fn engine(&mut self, hart: usize) -> &mut HartEngine;
    /// Whether their thread makes guest time itself, so that it does not stand while the guest sleeps.
    fn makes_time(&self) -> bool {
        false
    }
}

/// What is to be done with a hart's engine by its own thread.
type Job = Box<dyn FnOnce(&mut HartEngine) + Send>;
/// Told that there is something for the debugger to look at.
pub(super) type DebuggerWaker = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct State {
    end: Option<End>,
    /// Reasons to stand still: requests of [`Control::stop_world`] and the user's pause.
    stops: usize,
    paused: bool,
    sleep: Sleep,
    /// Harts that stand still.
    arrived: usize,
    /// Harts whose threads run.
    live: usize,
    samples: Vec<Option<Sample>>,
    jobs: Vec<(usize, Job)>,
    /// Where harts stopped for the debugger; as long as it has not looked, the harts stand.
    debug_events: Vec<(usize, DebugEvent)>,
    debugger: Option<DebuggerWaker>,
}

/// Whether the guest has suspended the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sleep {
    #[default]
    Awake,
    Asleep,
    /// It shall be woken.
    Woken,
}

/// Shared between the hart threads, the event loop, the devices and the user.
pub(super) struct Control {
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
    asleep: AtomicBool,
    /// Harts that stand although the others run, as bits.
    frozen: AtomicU64,
    harts: Vec<Arc<Signals>>,
    /// Wakes the event loop.
    pub(super) waker: OnceLock<mio::Waker>,
    /// What a finisher's failure code means when it comes from the built-in firmware.
    firmware_codes: bool,
    /// Harts that wait where only what cannot be masked reaches them, as bits.
    deaf: AtomicU64,
    /// Whether a device could send such a thing.
    unmaskable: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
    /// The last POST code, and [`NO_POST`] before the first.
    post: AtomicU16,
}

/// There has been no POST code.
const NO_POST: u16 = u16::MAX;

impl Control {
    pub(super) fn new(harts: Vec<Arc<Signals>>, firmware_codes: bool) -> Self {
        let state =
            State { live: harts.len(), samples: vec![None; harts.len()], ..State::default() };
        Control {
            state: Mutex::new(state),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            frozen: AtomicU64::new(0),
            harts,
            waker: OnceLock::new(),
            firmware_codes,
            deaf: AtomicU64::new(0),
            unmaskable: OnceLock::new(),
            post: AtomicU16::new(NO_POST),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn kick_all(&self) {
        self.harts.iter().for_each(|hart| hart.kick());
    }

    pub(super) fn wake_event_loop(&self) {
        if let Some(waker) = self.waker.get()
            && let Err(error) = waker.wake()
        {
            log::error!(target: "machine", "the event loop cannot be woken: {error}");
        }
    }

    /// Ends the run; the first reason counts. Harmless from any thread, device locks held or not.
    pub(super) fn end(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        // Nobody will do them: those who wait for them hear of it.
        let jobs = std::mem::take(&mut state.jobs);
        let debugger = state.debugger.clone();
        self.ended.store(true, Ordering::SeqCst);
        drop(state);
        drop(jobs);
        self.changed.notify_all();
        self.kick_all();
        self.wake_event_loop();
        if let Some(wake) = debugger {
            wake();
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    pub(super) fn take_end(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// A guest shows a POST code.
    pub(super) fn post(&self, code: u8) {
        self.post.store(code.into(), Ordering::Relaxed);
    }

    /// The last one.
    pub(super) fn last_post(&self) -> Option<u8> {
        u8::try_from(self.post.load(Ordering::Relaxed)).ok()
    }

    /// Says how to find out whether a device can wake a hart that takes no interrupts: by NMI or INIT. Boards that do
    /// not say so have no such harts.
    pub(super) fn set_unmaskable(&self, ask: impl Fn() -> bool + Send + Sync + 'static) {
        // A machine is wired once.
        let _ = self.unmaskable.set(Box::new(ask));
    }

    /// A hart is about to run. To be called before it takes what its signals hold.
    pub(super) fn hears(&self, hart: usize) {
        self.deaf.fetch_and(!(1 << hart), Ordering::SeqCst);
    }

    /// A hart waits where no maskable interrupt reaches it. Ends the machine if all do and nothing will wake them.
    pub(super) fn is_deaf(&self, hart: usize) {
        self.deaf.fetch_or(1 << hart, Ordering::SeqCst);
        // A hart that has taken a call for attention has said before that it hears: calls first, then who is deaf.
        let called = self.harts.iter().any(|signals| signals.needs_attention());
        fence(Ordering::Acquire);
        let all = u64::MAX >> (64 - self.harts.len());
        if !called && self.deaf.load(Ordering::SeqCst) == all {
            self.end_if_nothing_wakes();
        }
    }

    /// All harts wait where no maskable interrupt reaches them: the end, unless a device can wake them, or somebody
    /// with a debugger.
    pub(super) fn end_if_nothing_wakes(&self) {
        let wakes = self.unmaskable.get().is_none_or(|ask| ask());
        if !wakes && self.lock().debugger.is_none() {
            self.end(End::Halted);
        }
    }

    /// The samples of all harts: the latest if they have ended.
    pub(super) fn samples(&self) -> Vec<Option<Sample>> {
        self.lock().samples.clone()
    }

    /// A safepoint of the harts that the calling thread runs: leaves their samples and stands still while
    /// anybody asks for it, doing what is asked of its engines.
    pub(super) fn safepoint(&self, standing: &mut dyn Standing) {
        let (harts, makes_time) = (standing.harts(), standing.makes_time());
        let stand = |state: &State| {
            let stopped = state.stops > 0
                || state.sleep != Sleep::Awake && !makes_time
                || harts.clone().all(|hart| self.is_frozen(hart));
            stopped && state.end.is_none()
        };
        let leave_samples = |state: &mut State, samples| {
            for (hart, sample) in samples {
                state.samples[hart] = Some(sample);
            }
        };
        let mut state = self.lock();
        if !stand(&state) {
            return;
        }
        leave_samples(&mut state, standing.samples());
        state.arrived += harts.len();
        self.changed.notify_all();
        while stand(&state) {
            let Some(at) = state.jobs.iter().position(|(hart, _)| harts.contains(hart)) else {
                state = self.wait(state);
                continue;
            };
            let (hart, job) = state.jobs.remove(at);
            drop(state);
            job(standing.engine(hart));
            state = self.lock();
            leave_samples(&mut state, standing.samples());
        }
        state.arrived -= harts.len();
    }

    /// Has the thread of `hart` do `f` with its engine while it stands at an instruction boundary. Not
    /// from a hart's thread. `None` when the run has ended.
    pub(super) fn on_hart<R: Send + 'static>(
        &self,
        hart: usize,
        f: impl FnOnce(&mut HartEngine) -> R + Send + 'static,
    ) -> Option<R> {
        let (result, done) = mpsc::sync_channel(1);
        let mut state = self.lock();
        if state.end.is_some() {
            return None;
        }
        let job = move |engine: &mut HartEngine| {
            // The other end waits until it has this, or the job is dropped.
            let _ = result.send(f(engine));
        };
        state.jobs.push((hart, Box::new(job)));
        state.stops += 1;
        drop(state);
        self.changed.notify_all();
        self.kick_all();
        let result = done.recv().ok();
        self.lock().stops -= 1;
        self.changed.notify_all();
        result
    }

    /// A hart has stopped for the debugger: all stand until it has looked.
    pub(super) fn debug_event(&self, hart: usize, event: DebugEvent) {
        let mut state = self.lock();
        if state.debug_events.is_empty() {
            state.stops += 1;
        }
        state.debug_events.push((hart, event));
        let debugger = state.debugger.clone();
        drop(state);
        self.kick_all();
        if let Some(wake) = debugger {
            wake();
        }
    }

    /// Whether harts have stopped since [`take_debug_events`](Self::take_debug_events).
    pub(super) fn has_debug_events(&self) -> bool {
        !self.lock().debug_events.is_empty()
    }

    /// Where harts have stopped since the last call. The debugger has stopped the machine by now.
    pub(super) fn take_debug_events(&self) -> Vec<(usize, DebugEvent)> {
        let mut state = self.lock();
        let events = std::mem::take(&mut state.debug_events);
        if !events.is_empty() {
            state.stops -= 1;
        }
        drop(state);
        self.changed.notify_all();
        events
    }

    /// Whom to tell of stops and of the end.
    pub(super) fn set_debugger(&self, debugger: Option<DebuggerWaker>) {
        self.lock().debugger = debugger;
    }

    /// Sets which harts (as bits) stand although the others run. All stand meanwhile.
    pub(super) fn freeze(&self, harts: u64) {
        // Under the lock, or a hart's last look before it waits could miss it.
        let state = self.lock();
        self.frozen.store(harts, Ordering::SeqCst);
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn is_frozen(&self, hart: usize) -> bool {
        self.frozen.load(Ordering::Relaxed) >> hart & 1 != 0
    }

    /// Number of harts.
    pub(super) fn harts(&self) -> usize {
        self.harts.len()
    }

    /// The outside of a hart.
    pub(super) fn signals(&self, hart: usize) -> &Signals {
        &self.harts[hart]
    }

    /// A hart's thread ends.
    pub(super) fn leave(&self, hart: usize, sample: Sample) {
        let mut state = self.lock();
        state.samples[hart] = Some(sample);
        state.live -= 1;
        self.changed.notify_all();
    }

    /// A hart's thread ends without being able to say where the hart is.
    pub(super) fn leave_without_sample(&self) {
        self.lock().live -= 1;
        self.changed.notify_all();
    }

    /// Runs `f` while every hart stands at an instruction boundary, or has ended with the machine: then the
    /// samples may be old ones. Not from a hart's thread.
    pub(super) fn stop_world<R>(&self, f: impl FnOnce(&[Option<Sample>]) -> R) -> R {
        let mut state = self.lock();
        state.stops += 1;
        drop(state);
        self.kick_all();
        state = self.lock();
        while state.arrived < state.live && state.end.is_none() {
            state = self.wait(state);
        }
        let result = f(&state.samples);
        state.stops -= 1;
        self.changed.notify_all();
        result
    }

    /// Stops or resumes all harts for the user. Whether that changed anything.
    pub(super) fn set_paused(&self, paused: bool) -> bool {
        let mut state = self.lock();
        if state.paused == paused {
            return false;
        }
        state.paused = paused;
        if paused {
            state.stops += 1;
        } else {
            state.stops -= 1;
        }
        drop(state);
        self.changed.notify_all();
        self.kick_all();
        true
    }

    pub(super) fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// The machine falls asleep, or shall be woken.
    fn set_sleep(&self, sleep: Sleep) {
        self.lock().sleep = sleep;
        self.asleep.store(sleep != Sleep::Awake, Ordering::SeqCst);
        self.changed.notify_all();
        self.kick_all();
        self.wake_event_loop();
    }

    /// Whether the machine sleeps.
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    /// Whether the machine sleeps and shall be woken.
    pub(super) fn is_woken(&self) -> bool {
        self.is_asleep() && self.lock().sleep == Sleep::Woken
    }

    /// Lets a machine go on that has been made ready for it.
    pub(super) fn end_sleep(&self) {
        self.set_sleep(Sleep::Awake);
    }
}

impl PowerSink for Control {
    fn power(&self, event: PowerEvent) {
        self.end(match event {
            PowerEvent::Suspend => return self.set_sleep(Sleep::Asleep),
            PowerEvent::Wake => return self.set_sleep(Sleep::Woken),
            PowerEvent::Pass if self.firmware_codes => End::PowerOff,
            PowerEvent::Pass => End::Pass,
            PowerEvent::Fail(sbi::FAILURE_CODE) if self.firmware_codes => End::Panicked,
            PowerEvent::Fail(sbi::TRAP_CODE) if self.firmware_codes => {
                End::Died("the firmware trapped in M-mode; its last line names the cause".into())
            }
            PowerEvent::Fail(code) => End::Fail(u64::from(code)),
            PowerEvent::Reset => End::Reset,
            PowerEvent::PowerOff => End::PowerOff,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        Sample {
            view: HartView { pc: 0x1234, mode: "M", waiting: false },
            stats: Stats { insns: 7, ..Stats::default() },
            hart: mimic_cpu::riscv::hart::Hart::new(0, 0x1234).into(),
        }
    }

    struct One;

    impl Standing for One {
        fn harts(&self) -> Range<usize> {
            0..1
        }
        fn samples(&self) -> Vec<(usize, Sample)> {
            vec![(0, sample())]
        }
        fn engine(&mut self, _hart: usize) -> &mut HartEngine {
            unreachable!("nothing is asked of it")
        }
    }

    #[test]
    fn the_world_stops_at_safepoints_and_goes_on() {
        let control = Arc::new(Control::new(vec![Arc::new(Signals::default())], false));
        let hart = Arc::clone(&control);
        let thread = std::thread::spawn(move || {
            while !hart.ended() {
                hart.safepoint(&mut One);
                std::thread::yield_now();
            }
            hart.leave(0, sample());
        });
        for _ in 0..100 {
            let pc = control.stop_world(|samples| samples[0].as_ref().map(|sample| sample.view.pc));
            assert_eq!(pc, Some(0x1234));
        }
        assert!(control.set_paused(true) && !control.set_paused(true));
        assert_eq!(control.stop_world(<[_]>::len), 1, "the world can be looked at while paused");
        control.end(End::Quit);
        control.end(End::Reset);
        thread.join().unwrap();
        assert_eq!(control.take_end(), Some(End::Quit), "the first reason counts");
    }
}
