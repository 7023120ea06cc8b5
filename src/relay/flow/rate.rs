//! A rate limit: the generic cell rate algorithm.

use std::time::{Duration, Instant};

use crate::relay::timers::after;

/// The burst: how much may be spent ahead of time, as the time in which the rate allows it.
const BURST: Duration = Duration::from_secs(1);

/// A `Rate` limits how many units are spent a second. More than that is a debt that passes with time.
///
/// This is the generic cell rate algorithm (ITU-T I.371), the token bucket that needs no refilling: the
/// whole state is the instant at which the debt has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    per_second: u64,
}

impl Rate {
    /// This many units a second. A rate of 0 would never clear a debt, so it counts as 1.
    pub(crate) const fn new(per_second: u64) -> Self {
        Self {
            per_second: if per_second == 0 { 1 } else { per_second },
        }
    }

    /// The instant at which the debt has passed, after `cost` units are spent now; `free_at` is that of
    /// the units before.
    pub(crate) fn spend(self, free_at: Option<Instant>, now: Instant, cost: u64) -> Instant {
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let from = free_at.map_or(earliest, |free_at| free_at.max(earliest));
        let nanos = u128::from(cost) * 1_000_000_000 / u128::from(self.per_second);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        after(from, takes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_second_of_the_rate_may_be_spent_at_once() {
        let rate = Rate::new(100);
        let start = Instant::now() + Duration::from_secs(10);
        let mut free_at = None;
        let mut spent = 0;
        for tick in 0..300 {
            let now = start + tick * Duration::from_millis(10);
            while free_at.is_none_or(|free_at| free_at <= now) {
                free_at = Some(rate.spend(free_at, now, 1));
                spent += 1;
                assert!(spent < 1000, "the rate is never reached");
            }
        }
        // A second's worth ahead, three seconds less a tick, and the one that is in hand.
        assert!((399..=401).contains(&spent), "{spent}");
    }

    #[test]
    fn large_cost_delays_the_next_one() {
        let rate = Rate::new(10);
        let now = Instant::now() + Duration::from_secs(10);
        let free_at = rate.spend(None, now, 1000);
        assert_eq!(free_at - now, Duration::from_secs(99));
        assert_eq!(rate.spend(Some(free_at), now, 10) - free_at, BURST);
    }

    #[test]
    fn rate_of_zero_is_one_a_second() {
        let now = Instant::now() + Duration::from_secs(10);
        assert_eq!(Rate::new(0).spend(None, now, 3) - now, 2 * BURST);
    }

    #[test]
    fn cost_beyond_any_duration_delays_for_a_century() {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        let now = Instant::now();
        for cost in [u64::MAX / 1_000_000_000, u64::MAX] {
            assert!(
                Rate::new(1).spend(None, now, cost) - now > 99 * YEAR,
                "{cost}"
            );
        }
    }
}
