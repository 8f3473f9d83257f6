//! The timer, section 11.5.4.

use serde::{Deserialize, Serialize};

use super::local::{Local, reg};
use super::{Lapics, MsrFault};
use crate::bus::lock;
use crate::clock::NEVER;
use crate::ticks;

/// LVT bits 18 and 17: one-shot, periodic, TSC-deadline.
const MODE: u32 = 3 << 17;
const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 2 << 17;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TimerState {
    /// Guest time at which the count reaches 0, while it counts.
    expiry: Option<u64>,
    /// IA32_TSC_DEADLINE; 0 is disarmed.
    tsc_deadline: u64,
}

/// Nanoseconds for one step of the count: the tick is one nanosecond ([`super::TIMER_HZ`]).
fn divisor(local: &Local) -> u64 {
    let divide = local.get(reg::DIVIDE);
    // Figure 11-10: bits 3, 1 and 0; 7 is division by 1.
    match divide & 3 | divide >> 1 & 4 {
        7 => 1,
        shift => 2 << shift,
    }
}

impl Lapics {
    fn mode(local: &Local) -> u32 {
        local.get(reg::LVT_TIMER) & MODE
    }

    /// Nanoseconds from one interrupt to the next in periodic mode.
    fn period(local: &Local) -> Option<u64> {
        let period = u64::from(local.get(reg::INITIAL_COUNT)) * divisor(local);
        (Self::mode(local) == PERIODIC && period != 0).then_some(period)
    }

    /// Takes periods that have passed out of the account: the expiry lies after `now`, or the timer
    /// has stopped. Returns whether the count reached 0.
    fn expire(local: &Local, state: &mut TimerState, now: u64) -> bool {
        let Some(expiry) = state.expiry.filter(|&expiry| expiry <= now) else { return false };
        state.expiry = Self::period(local)
            .map(|period| (now - (now - expiry) % period).saturating_add(period));
        true
    }

    /// Whether IA32_TSC_DEADLINE has been reached; it then reads 0.
    fn reach(&self, cpu: usize, state: &mut TimerState) -> bool {
        let Some(tsc) = &self.tsc else { return false };
        let due = state.tsc_deadline != 0 && tsc.now(cpu) >= state.tsc_deadline;
        if due {
            state.tsc_deadline = 0;
        }
        due
    }

    /// Looks at the clock, causes the interrupt if it is due, and sets the alarm.
    fn update_timer(&self, cpu: usize, now: u64) {
        self.take_due(cpu, &mut lock(&self.locals[cpu].timer), now);
        self.arm_timer(cpu);
    }

    /// Causes the interrupt if it is due. While the state is locked, since alarms come from another thread: what is due
    /// is due by the entry that the processor has written by then, not by a later one.
    fn take_due(&self, cpu: usize, state: &mut TimerState, now: u64) {
        let expired = Self::expire(&self.locals[cpu], state, now);
        let reached = self.reach(cpu, state);
        if expired || reached {
            self.lvt(cpu, reg::LVT_TIMER);
        }
    }

    pub(super) fn timer_due(&self, cpu: usize, now: u64) {
        if cpu < self.locals.len() {
            self.update_timer(cpu, now);
        }
    }

    /// Sets the alarm from the state.
    pub(super) fn arm_timer(&self, cpu: usize) {
        let local = &self.locals[cpu];
        let state = lock(&local.timer);
        let next = match (&self.tsc, state.tsc_deadline, state.expiry) {
            (Some(tsc), deadline, _) if deadline != 0 => tsc.deadline(cpu, deadline),
            (_, _, Some(expiry)) => ticks::alarm(expiry, Self::period(local), self.clock.now()),
            _ => NEVER,
        };
        local.alarm.arm(next);
    }

    pub(super) fn current_count(&self, cpu: usize) -> u32 {
        let local = &self.locals[cpu];
        let now = self.clock.now();
        let mut state = lock(&local.timer).clone();
        // The alarm may be late; what it will find is computed here.
        Self::expire(local, &mut state, now);
        let left = state.expiry.map_or(0, |expiry| expiry - now);
        left.div_ceil(divisor(local)) as u32
    }

    pub(super) fn write_initial_count(&self, cpu: usize, value: u32) {
        let local = &self.locals[cpu];
        if Self::mode(local) & TSC_DEADLINE != 0 {
            return; // section 11.5.4.1: ignored in TSC-deadline mode
        }
        let now = self.clock.now();
        local.set(reg::INITIAL_COUNT, value);
        let length = u64::from(value) * divisor(local);
        lock(&local.timer).expiry = (value != 0).then(|| now.saturating_add(length));
        self.arm_timer(cpu);
    }

    /// A new divisor counts from the present count on.
    pub(super) fn write_divide(&self, cpu: usize, value: u32) {
        let local = &self.locals[cpu];
        let now = self.clock.now();
        self.update_timer(cpu, now);
        {
            let mut state = lock(&local.timer);
            let old = divisor(local);
            local.set(reg::DIVIDE, value);
            state.expiry = state.expiry.map(|expiry| {
                let left = expiry.saturating_sub(now).div_ceil(old);
                now.saturating_add(left.saturating_mul(divisor(local)))
            });
        }
        self.arm_timer(cpu);
    }

    pub(super) fn write_timer_entry(&self, cpu: usize, value: u32) {
        let local = &self.locals[cpu];
        let now = self.clock.now();
        let mut state = lock(&local.timer);
        // What is due is due by the old entry.
        self.take_due(cpu, &mut state, now);
        let changed = (local.get(reg::LVT_TIMER) ^ value) & TSC_DEADLINE != 0;
        local.set(reg::LVT_TIMER, value);
        if changed {
            // Section 11.5.4.1: to and from TSC-deadline mode the timer is disarmed.
            *state = TimerState::default();
            local.set(reg::INITIAL_COUNT, 0);
        }
        drop(state);
        self.arm_timer(cpu);
    }

    pub(super) fn read_tsc_deadline(&self, cpu: usize) -> Result<u64, MsrFault> {
        if self.tsc.is_none() {
            return Err(MsrFault);
        }
        self.update_timer(cpu, self.clock.now());
        Ok(lock(&self.locals[cpu].timer).tsc_deadline)
    }

    pub(super) fn write_tsc_deadline(&self, cpu: usize, value: u64) -> Result<(), MsrFault> {
        if self.tsc.is_none() {
            return Err(MsrFault);
        }
        let local = &self.locals[cpu];
        if local.enabled() && Self::mode(local) == TSC_DEADLINE {
            lock(&local.timer).tsc_deadline = value;
            self.update_timer(cpu, self.clock.now());
        }
        Ok(())
    }

    /// The time stamp counter of `cpu` was moved (IA32_TSC, IA32_TSC_ADJUST, restored): its deadline
    /// is at another time now.
    pub fn tsc_changed(&self, cpu: usize) {
        if cpu < self.locals.len() {
            self.update_timer(cpu, self.clock.now());
        }
    }
}
