//! Regions are lifted beside the running guest: by one thread of the process, from a copy of their page.
//!
//! What comes back is only taken if the instructions are still those of the page, so nothing needs to be known of when the
//! copy was made.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cache::Place;
use crate::ir::opt::Passes;
use crate::ir::region::Region;
use crate::riscv::lift::{Lifter, ModeKey};
use crate::riscv::region::{self, Shape, Trace};
use crate::x64;

/// Even offsets in a page.
pub(super) const HALVES: usize = 2048;

/// A region to be lifted.
pub(super) struct Job {
    pub(super) place: Place,
    pub(super) mode: ModeKey,
    pub(super) passes: Passes,
    pub(super) trace: Trace,
    /// The page's code.
    pub(super) page: Box<[u16; HALVES]>,
    /// Where the page is entered.
    pub(super) known: Box<[bool; HALVES]>,
    pub(super) results: Arc<Results>,
}

/// A region that was lifted.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) place: Place,
    pub(super) mode: ModeKey,
    pub(super) shape: Shape,
    pub(super) region: Region,
    /// How long it took.
    pub(super) time: Duration,
}

/// Regions that a hart has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Results {
    any: AtomicBool,
    done: Mutex<Vec<Done>>,
}

impl Results {
    fn put(&self, done: Done) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        self.any.store(true, Ordering::Release);
    }

    /// Takes the regions of a page; drops those of the page that had its number before.
    pub(super) fn take(&self, page: u32, version: u32) -> Vec<Done> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut list = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, others) = list.drain(..).partition(|done| done.place.page == page);
        *list = others;
        self.any.store(!list.is_empty(), Ordering::Release);
        let mut taken: Vec<Done> = taken;
        taken.retain(|done| done.place.version == version);
        taken
    }
}

impl Job {
    fn perform(self, lifter: &mut Option<(Passes, Lifter)>) {
        let started = Instant::now();
        if lifter.as_ref().is_none_or(|(passes, _)| *passes != self.passes) {
            *lifter = Some((self.passes, Lifter::new(self.passes, x64::supports)));
        }
        let Some((_, lifter)) = lifter else { return };
        let read = |at: u64| self.page.get(at as usize / 2).copied().unwrap_or(0);
        let known = |at: u64| self.known.get(at as usize / 2).copied().unwrap_or(false);
        let head = self.place.offset.into();
        let shape = region::choose(lifter, read, head, self.mode, &self.trace, known);
        if let Some(region) = shape.lift(lifter, read, self.mode) {
            let time = started.elapsed();
            self.results.put(Done { place: self.place, mode: self.mode, shape, region, time });
        }
    }
}

fn work(jobs: &Receiver<Job>) {
    let mut lifter = None;
    while let Ok(job) = jobs.recv() {
        job.perform(&mut lifter);
    }
}

/// Has a region lifted. Gives the job back if the host refuses a thread.
pub(super) fn submit(job: Job) -> Result<(), Box<Job>> {
    static WORKER: OnceLock<Option<Mutex<Sender<Job>>>> = OnceLock::new();
    let worker = WORKER.get_or_init(|| {
        let (sender, jobs) = channel();
        let started = thread::Builder::new().name("regions".into()).spawn(move || work(&jobs));
        started.ok().map(|_| Mutex::new(sender))
    });
    match worker {
        Some(sender) => {
            let sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
            sender.send(job).map_err(|refused| Box::new(refused.0))
        }
        None => Err(Box::new(job)),
    }
}
