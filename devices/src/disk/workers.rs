//! Threads that do a disk's requests, so that no vCPU waits for the host.
//!
//! ```text
//! device: submit(job) -> queue -> a thread: run(job) -> done -> the device is woken -> take_done()
//! ```
//!
//! Threads are made when there is work for them. No lock is held while a job runs or while the
//! device is being woken.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use crate::bus::lock;

/// Performs a job. Long ones look at the flag from time to time and stop when it is set: nobody
/// will ask for the result.
type Run<J, D> = dyn Fn(J, &AtomicBool) -> D + Send + Sync;

/// The threads of one disk, with jobs `J` and results `D`.
pub struct Workers<J, D>(Arc<Shared<J, D>>);

/// Waits for all jobs of a [`Workers`], from outside the device.
pub struct Drain<J, D>(Arc<Shared<J, D>>);

struct Shared<J, D> {
    name: String,
    limit: usize,
    state: Mutex<State<J, D>>,
    /// Jobs came, or the end.
    work: Condvar,
    /// A job or a wake ended.
    quiet: Condvar,
    /// Running jobs are to stop.
    cancelled: AtomicBool,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct State<J, D> {
    /// `None` at the end. Idle threads hold no copy, so what it owns (the image and its lock) goes
    /// with the [`Workers`].
    run: Option<Arc<Run<J, D>>>,
    queue: VecDeque<J>,
    done: Vec<D>,
    threads: usize,
    idle: usize,
    running: usize,
    waking: usize,
}

impl<J, D> State<J, D> {
    fn has_jobs(&self) -> bool {
        !self.queue.is_empty() || self.running > 0
    }
}

impl<J: Send + 'static, D: Send + 'static> Workers<J, D> {
    /// Up to `limit` threads called `name` that `run` jobs.
    pub fn new(
        name: &str,
        limit: usize,
        run: impl Fn(J, &AtomicBool) -> D + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            run: Some(Arc::new(run) as Arc<Run<J, D>>),
            queue: VecDeque::new(),
            done: Vec::new(),
            threads: 0,
            idle: 0,
            running: 0,
            waking: 0,
        };
        Self(Arc::new(Shared {
            name: name.into(),
            limit,
            state: Mutex::new(state),
            work: Condvar::new(),
            quiet: Condvar::new(),
            cancelled: AtomicBool::new(false),
            wake: OnceLock::new(),
        }))
    }

    /// Calls `wake` after each job, on its thread. It may wait for the device's lock. False if
    /// there is one already.
    pub fn set_wake(&self, wake: impl Fn() + Send + Sync + 'static) -> bool {
        self.0.wake.set(Box::new(wake)).is_ok()
    }

    /// Queues a job, or gives it back if the host has no thread for it at all.
    pub fn submit(&self, job: J) -> Result<(), J> {
        let mut state = lock(&self.0.state);
        state.queue.push_back(job);
        if state.queue.len() > state.idle && state.threads < self.0.limit {
            let shared = Arc::clone(&self.0);
            match thread::Builder::new().name(self.0.name.clone()).spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    log::debug!(target: "disk", "no thread for {}: {error}", self.0.name);
                    return state.queue.pop_back().map_or(Ok(()), Err);
                }
                Err(_) => {}
            }
        }
        self.0.work.notify_one();
        Ok(())
    }

    /// The results so far, each once.
    pub fn take_done(&self) -> Vec<D> {
        std::mem::take(&mut lock(&self.0.state).done)
    }

    /// Forgets all jobs and results: returns once none is running any more. The caller may hold the
    /// device's lock: threads that wait for it to wake the device do not count as running.
    pub fn cancel(&self) {
        lock(&self.0.state).queue.clear();
        self.0.cancelled.store(true, Ordering::SeqCst);
        let mut state = self.0.wait_while(State::has_jobs);
        self.0.cancelled.store(false, Ordering::SeqCst);
        state.done.clear();
    }

    /// A handle to wait with.
    pub fn drain(&self) -> Drain<J, D> {
        Drain(Arc::clone(&self.0))
    }
}

impl<J, D> Drain<J, D> {
    /// Waits until there is no job and the device has been woken for each. The caller holds no
    /// device's lock and makes sure that nobody submits jobs meanwhile.
    pub fn wait(&self) {
        drop(self.0.wait_while(|state| state.has_jobs() || state.waking > 0));
    }
}

impl<J, D> Drop for Workers<J, D> {
    fn drop(&mut self) {
        // The last owner may be one of the threads, waking the device, so they are not joined.
        lock(&self.0.state).queue.clear();
        self.0.cancelled.store(true, Ordering::SeqCst);
        self.0.wait_while(State::has_jobs).run = None;
        self.0.work.notify_all();
    }
}

impl<J, D> Shared<J, D> {
    fn wait_while(&self, busy: impl Fn(&State<J, D>) -> bool) -> MutexGuard<'_, State<J, D>> {
        let state = lock(&self.state);
        self.quiet.wait_while(state, |state| busy(state)).unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread.
    fn work(&self) {
        while let Some((run, job)) = self.next() {
            let mut ended = Ended { shared: self, done: None };
            ended.done = Some(run(job, &self.cancelled));
            // Before the job counts as ended: what `run` owns goes with the `Workers`.
            drop(run);
            drop(ended);
            if let Some(wake) = self.wake.get() {
                wake();
            }
            lock(&self.state).waking -= 1;
            self.quiet.notify_all();
        }
    }

    /// Waits for a job and counts it as running; `None` at the end.
    fn next(&self) -> Option<(Arc<Run<J, D>>, J)> {
        let mut state = lock(&self.state);
        loop {
            let run = state.run.clone()?;
            if let Some(job) = state.queue.pop_front() {
                state.running += 1;
                return Some((run, job));
            }
            drop(run);
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

/// Counts a job as ended when it goes, with its result unless the job panicked.
struct Ended<'a, J, D> {
    shared: &'a Shared<J, D>,
    done: Option<D>,
}

impl<J, D> Drop for Ended<'_, J, D> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.running -= 1;
        match self.done.take() {
            Some(done) => {
                state.done.push(done);
                state.waking += 1;
            }
            None => state.threads -= 1,
        }
        self.shared.quiet.notify_all();
    }
}
