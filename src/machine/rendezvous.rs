//! What harts ask of each other, with acknowledgement: for instance to give up the right to write a page
//! from which one of them is about to read code, or to stand still while one of them does what must look like one
//! step.
//!
//! A hart is *running* while its engine executes guest code. Only running harts must be waited for:
//! what the others find in their mailbox they apply before they execute anything.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mimic_cpu::bus::Request;
use mimic_cpu::signals::Signals;

#[derive(Default)]
struct Mailbox {
    running: bool,
    requests: Vec<Request>,
    /// Requests that the hart has taken but not yet applied.
    taken: bool,
}

impl Mailbox {
    fn must_be_waited_for(&self) -> bool {
        self.running && (self.taken || !self.requests.is_empty())
    }
}

#[derive(Default)]
struct Mailboxes {
    of: Vec<Mailbox>,
    /// Threads that wait for a change.
    waiting: usize,
    /// The hart for which all others stand still.
    alone: Option<usize>,
}

pub(super) struct Rendezvous {
    mailboxes: Mutex<Mailboxes>,
    changed: Condvar,
    harts: Vec<Arc<Signals>>,
}

impl Rendezvous {
    pub(super) fn new(harts: Vec<Arc<Signals>>) -> Self {
        Rendezvous {
            mailboxes: Mutex::new(Mailboxes {
                of: harts.iter().map(|_| Mailbox::default()).collect(),
                waiting: 0,
                alone: None,
            }),
            changed: Condvar::new(),
            harts,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mailboxes> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change.
    fn wait<'a>(&self, mut mailboxes: MutexGuard<'a, Mailboxes>) -> MutexGuard<'a, Mailboxes> {
        mailboxes.waiting += 1;
        mailboxes = self.changed.wait(mailboxes).unwrap_or_else(PoisonError::into_inner);
        mailboxes.waiting -= 1;
        mailboxes
    }

    /// Waits until no other hart wants to be alone.
    fn stand_aside<'a>(
        &self,
        hart: usize,
        mut mailboxes: MutexGuard<'a, Mailboxes>,
    ) -> MutexGuard<'a, Mailboxes> {
        while mailboxes.alone.is_some_and(|alone| alone != hart) {
            // The other one may wait for just that.
            self.tell_waiting(&mailboxes);
            mailboxes = self.wait(mailboxes);
        }
        mailboxes
    }

    /// Tells those who wait, if anybody does: a hart's turns cost no system call.
    fn tell_waiting(&self, mailboxes: &Mailboxes) {
        if mailboxes.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// The hart's engine starts or stops executing guest code.
    pub(super) fn set_running(&self, hart: usize, running: bool) {
        let mut mailboxes = self.lock();
        if running {
            mailboxes = self.stand_aside(hart, mailboxes);
        }
        mailboxes.of[hart].running = running;
        self.tell_waiting(&mailboxes);
    }

    /// Does `work` while no other hart executes anything. The calling hart counts as standing still meanwhile, and
    /// before: it looks at its own mailbox before it goes on, and what it knew of memory may have changed when `work`
    /// begins.
    pub(super) fn alone(&self, hart: usize, work: impl FnOnce()) {
        if self.harts.len() == 1 {
            work();
            return;
        }
        let mut mailboxes = self.lock();
        let was_running = std::mem::replace(&mut mailboxes.of[hart].running, false);
        // Those that wait for this hart need not any more.
        self.tell_waiting(&mailboxes);
        mailboxes = self.stand_aside(hart, mailboxes);
        mailboxes.alone = Some(hart);
        for (other, _) in mailboxes.of.iter().enumerate().filter(|(_, mailbox)| mailbox.running) {
            self.harts[other].call_attention();
        }
        while mailboxes.of.iter().any(|mailbox| mailbox.running) {
            mailboxes = self.wait(mailboxes);
        }
        drop(mailboxes);
        work();
        let mut mailboxes = self.lock();
        mailboxes.alone = None;
        mailboxes.of[hart].running = was_running;
        self.tell_waiting(&mailboxes);
        if !mailboxes.of[hart].requests.is_empty() {
            self.harts[hart].call_attention();
        }
    }

    /// Puts `request` to every other hart if it is `needed`, and waits until those that run have applied
    /// whatever was asked of them: what makes it unnecessary may be the same request by somebody who still
    /// waits. The calling hart counts as standing still meanwhile, so that harts may wait for each other;
    /// it looks at its own mailbox before it goes on.
    pub(super) fn ask_others(&self, hart: usize, request: Request, needed: impl FnOnce() -> bool) {
        if self.harts.len() == 1 {
            needed();
            return;
        }
        let mut mailboxes = self.lock();
        let was_running = std::mem::replace(&mut mailboxes.of[hart].running, false);
        if needed() {
            for (other, mailbox) in mailboxes.of.iter_mut().enumerate() {
                if other != hart {
                    mailbox.requests.push(request);
                    self.harts[other].call_attention();
                }
            }
        }
        let others_busy = |mailboxes: &Mailboxes| {
            mailboxes
                .of
                .iter()
                .enumerate()
                .any(|(other, mailbox)| other != hart && mailbox.must_be_waited_for())
        };
        if others_busy(&mailboxes) {
            // Those that wait for this hart need not any more.
            self.tell_waiting(&mailboxes);
        }
        while others_busy(&mailboxes) {
            mailboxes = self.wait(mailboxes);
        }
        mailboxes = self.stand_aside(hart, mailboxes);
        mailboxes.of[hart].running = was_running;
        if !mailboxes.of[hart].requests.is_empty() {
            self.harts[hart].call_attention();
        }
    }

    /// Puts `request` to every hart without waiting. From a hart's thread, too: it finds the request before it
    /// executes its next block.
    pub(super) fn tell_all(&self, request: Request) {
        for mailbox in &mut self.lock().of {
            if mailbox.requests.last() != Some(&request) {
                mailbox.requests.push(request);
            }
        }
        self.call_attention_of_all();
    }

    /// Makes every hart look around before it executes its next block.
    pub(super) fn call_attention_of_all(&self) {
        self.harts.iter().for_each(|hart| hart.call_attention());
    }

    /// Takes what was asked of `hart`; [`Self::done`] acknowledges it. Waits while another hart wants to be alone.
    pub(super) fn take(&self, hart: usize) -> Vec<Request> {
        let mut mailboxes = self.lock();
        if mailboxes.alone.is_some() {
            let was_running = std::mem::replace(&mut mailboxes.of[hart].running, false);
            mailboxes = self.stand_aside(hart, mailboxes);
            mailboxes.of[hart].running = was_running;
        }
        let requests = std::mem::take(&mut mailboxes.of[hart].requests);
        mailboxes.of[hart].taken = !requests.is_empty();
        requests
    }

    /// What was taken has been applied.
    pub(super) fn done(&self, hart: usize) {
        let mut mailboxes = self.lock();
        mailboxes.of[hart].taken = false;
        self.tell_waiting(&mailboxes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    fn rendezvous(harts: usize) -> Arc<Rendezvous> {
        Arc::new(Rendezvous::new((0..harts).map(|_| Arc::default()).collect()))
    }

    #[test]
    fn harts_that_stand_still_are_not_waited_for() {
        let rendezvous = rendezvous(3);
        rendezvous.set_running(0, true);
        rendezvous.ask_others(0, Request::WriteProtect(0x8000_0000), || true);
        assert_eq!(rendezvous.take(1), [Request::WriteProtect(0x8000_0000)]);
        assert_eq!(rendezvous.take(0), []);
    }

    /// Hart 2 finds done what hart 0 is still waiting for, so it must wait as well.
    #[test]
    fn what_another_hart_asked_for_is_waited_for() {
        let rendezvous = rendezvous(3);
        rendezvous.set_running(1, true);
        let first = Arc::clone(&rendezvous);
        let first =
            std::thread::spawn(move || first.ask_others(0, Request::FlushTranslations, || true));
        while !rendezvous.harts[1].needs_attention() {
            std::thread::yield_now();
        }
        let second = Arc::clone(&rendezvous);
        let second =
            std::thread::spawn(move || second.ask_others(2, Request::FlushTranslations, || false));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!first.is_finished() && !second.is_finished());
        assert_eq!(rendezvous.take(1), [Request::FlushTranslations], "asked for once");
        rendezvous.done(1);
        first.join().unwrap();
        second.join().unwrap();
    }

    /// Harts add to two halves of a sum, alone and by requests between: nobody sees one half without the other, and
    /// nobody waits forever.
    #[test]
    fn a_hart_that_is_alone_meets_nobody() {
        const ROUNDS: u64 = 300;
        let rendezvous = rendezvous(4);
        let halves = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let threads: Vec<_> = (0..4)
            .map(|hart| {
                let (rendezvous, halves) = (Arc::clone(&rendezvous), Arc::clone(&halves));
                std::thread::spawn(move || {
                    rendezvous.set_running(hart, true);
                    for round in 0..ROUNDS {
                        rendezvous.alone(hart, || {
                            for half in &*halves {
                                let sum = half.load(Ordering::Relaxed);
                                std::thread::yield_now();
                                half.store(sum + 1, Ordering::Relaxed);
                            }
                        });
                        if round % 16 == 0 {
                            rendezvous.ask_others(hart, Request::WriteProtect(round), || true);
                        }
                        if rendezvous.harts[hart].needs_attention() {
                            rendezvous.harts[hart].take_attention();
                            rendezvous.take(hart);
                            rendezvous.done(hart);
                        }
                        let now = halves.each_ref().map(|half| half.load(Ordering::Relaxed));
                        assert_eq!(now[0], now[1]);
                    }
                    rendezvous.set_running(hart, false);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(halves[1].load(Ordering::SeqCst), ROUNDS * 4);
    }

    /// Every hart asks all the others at the same time, over and over: nobody waits forever, and no
    /// request is left behind.
    #[test]
    fn harts_may_ask_each_other_at_once() {
        const ROUNDS: u64 = 300;
        let rendezvous = rendezvous(4);
        let applied = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let asking = Arc::new(AtomicU64::new(4));
        let threads: Vec<_> = (0..4)
            .map(|hart| {
                let (rendezvous, applied) = (Arc::clone(&rendezvous), Arc::clone(&applied));
                let (stop, asking) = (Arc::clone(&stop), Arc::clone(&asking));
                std::thread::spawn(move || {
                    let mut round = 0;
                    rendezvous.set_running(hart, true);
                    while !stop.load(Ordering::SeqCst) {
                        applied.fetch_add(rendezvous.take(hart).len() as u64, Ordering::SeqCst);
                        rendezvous.done(hart);
                        if round < ROUNDS {
                            rendezvous.ask_others(hart, Request::WriteProtect(round), || true);
                            round += 1;
                            if round == ROUNDS && asking.fetch_sub(1, Ordering::SeqCst) == 1 {
                                stop.store(true, Ordering::SeqCst);
                            }
                        }
                        std::thread::yield_now();
                    }
                    rendezvous.set_running(hart, false);
                    applied.fetch_add(rendezvous.take(hart).len() as u64, Ordering::SeqCst);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(applied.load(Ordering::SeqCst), ROUNDS * 4 * 3);
    }
}
