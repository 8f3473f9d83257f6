//! Counters that run at a rate of their own: ticks of guest time and back, without drift.

use crate::clock::NEVER;

/// The crystal of a PC: 14.31818 MHz, exactly 315/22 MHz. PIT and power management timer divide it.
const CRYSTAL: (u64, u64) = (315, 22_000);

/// A rate, as a fraction of ticks and nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    ticks: u64,
    ns: u64,
}

impl Rate {
    /// The crystal divided by 12: the PIT's 1.193182 MHz.
    pub const PIT: Rate = Rate::new(CRYSTAL.0, CRYSTAL.1 * 12);
    /// The crystal divided by 4: the power management timer's 3.579545 MHz.
    pub const PM_TIMER: Rate = Rate::new(CRYSTAL.0, CRYSTAL.1 * 4);

    /// `ticks` in `ns` nanoseconds; neither is 0.
    pub const fn new(ticks: u64, ns: u64) -> Self {
        Self { ticks, ns }
    }

    /// Whole ticks from guest time 0 to `ns`.
    pub fn ticks(self, ns: u64) -> u64 {
        let ticks = u128::from(ns) * u128::from(self.ticks) / u128::from(self.ns);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// The first guest time, in nanoseconds, at which there have been `ticks` ticks; [`NEVER`] out
    /// of range.
    pub fn time(self, ticks: u64) -> u64 {
        let ns = (u128::from(ticks) * u128::from(self.ns)).div_ceil(self.ticks.into());
        u64::try_from(ns).unwrap_or(NEVER)
    }
}

/// A timer that repeats interrupts the host at most once in so many nanoseconds: an interrupt
/// controller makes one of what comes sooner anyway.
pub const SHORTEST_PERIOD: u64 = 10_000;

/// When the host is to look at a timer whose deadline is `deadline` and which repeats every `period`
/// nanoseconds, if it does.
pub fn alarm(deadline: u64, period: Option<u64>, now: u64) -> u64 {
    match period {
        Some(..SHORTEST_PERIOD) => deadline.max(now.saturating_add(SHORTEST_PERIOD)),
        _ => deadline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rates_of_the_crystal() {
        // 14.31818 MHz / 12 and / 4, to the Hz.
        assert_eq!(Rate::PIT.ticks(1_000_000_000), 1_193_181);
        assert_eq!(Rate::PM_TIMER.ticks(1_000_000_000), 3_579_545);
        assert_eq!(Rate::PIT.ticks(88_000), 105);
    }

    #[test]
    fn short_periods_do_not_stop_the_host() {
        assert_eq!(alarm(5, None, 3), 5);
        assert_eq!(alarm(5, Some(10_000), 3), 5);
        assert_eq!(alarm(5, Some(9_999), 3), 10_003);
        assert_eq!(alarm(20_000, Some(1), 3), 20_000);
    }

    #[test]
    fn a_tick_is_reached_at_its_time_and_not_before() {
        for tick in [1, 2, 3, 1000, 65_536, 1 << 40] {
            let time = Rate::PIT.time(tick);
            assert_eq!(Rate::PIT.ticks(time), tick);
            assert_eq!(Rate::PIT.ticks(time - 1), tick - 1);
        }
        assert_eq!(Rate::PIT.time(u64::MAX), NEVER);
    }
}
