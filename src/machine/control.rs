//! Who may run, and how a run ends: the end of the machine, the safepoint and the pause.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use mimic_cpu::signals::Signals;
use mimic_devices::power::{PowerEvent, PowerSink};

use super::spec::{End, HartView, Stats};

/// What a hart leaves for others to read when it arrives at a safepoint or ends.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) view: HartView,
    pub(super) stats: Stats,
}

#[derive(Default)]
struct State {
    end: Option<End>,
    /// Reasons to stand still: requests of [`Control::stop_world`] and the user's pause.
    stops: usize,
    paused: bool,
    /// Harts that stand still.
    arrived: usize,
    /// Harts whose threads run.
    live: usize,
    samples: Vec<Option<Sample>>,
}

/// Shared between the hart threads, the event loop, the devices and the user.
pub(super) struct Control {
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
    harts: Vec<Arc<Signals>>,
    /// Wakes the event loop.
    pub(super) waker: OnceLock<mio::Waker>,
    /// What a finisher's failure code means when it comes from the built-in firmware.
    firmware_codes: bool,
}

impl Control {
    pub(super) fn new(harts: Vec<Arc<Signals>>, firmware_codes: bool) -> Self {
        let state =
            State { live: harts.len(), samples: vec![None; harts.len()], ..State::default() };
        Control {
            state: Mutex::new(state),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
            harts,
            waker: OnceLock::new(),
            firmware_codes,
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
        self.lock().end.get_or_insert(end);
        self.ended.store(true, Ordering::SeqCst);
        self.changed.notify_all();
        self.kick_all();
        self.wake_event_loop();
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    pub(super) fn take_end(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// The samples of all harts: the latest if they have ended.
    pub(super) fn samples(&self) -> Vec<Option<Sample>> {
        self.lock().samples.clone()
    }

    /// A safepoint of the harts that the calling thread runs: leaves their samples and stands still while
    /// anybody asks for it.
    pub(super) fn safepoint(&self, samples: impl FnOnce() -> Vec<(usize, Sample)>) {
        let mut state = self.lock();
        if state.stops == 0 || state.end.is_some() {
            return;
        }
        let samples = samples();
        let count = samples.len();
        for (hart, sample) in samples {
            state.samples[hart] = Some(sample);
        }
        state.arrived += count;
        self.changed.notify_all();
        while state.stops > 0 && state.end.is_none() {
            state = self.wait(state);
        }
        state.arrived -= count;
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

    /// Runs `f` while every hart stands at an instruction boundary. Not from a hart's thread.
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
}

impl PowerSink for Control {
    fn power(&self, event: PowerEvent) {
        self.end(match event {
            PowerEvent::Pass if self.firmware_codes => End::PowerOff,
            PowerEvent::Pass => End::Pass,
            PowerEvent::Fail(122) if self.firmware_codes => End::Panicked,
            PowerEvent::Fail(121) if self.firmware_codes => {
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
        }
    }

    #[test]
    fn the_world_stops_at_safepoints_and_goes_on() {
        let control = Arc::new(Control::new(vec![Arc::new(Signals::default())], false));
        let hart = Arc::clone(&control);
        let thread = std::thread::spawn(move || {
            while !hart.ended() {
                hart.safepoint(|| vec![(0, sample())]);
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
