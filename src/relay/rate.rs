//! A rate that nobody exceeds for long.

use std::time::{Duration, Instant};

use super::deadline::after;

/// How much may be spent ahead of time: what the rate allows in so long.
const BURST: Duration = Duration::from_secs(1);

/// So much a second. Who has spent more than that waits until it is worked off, and loses nothing.
///
/// This is the generic cell rate algorithm (ITU-T I.371): one point in time says it all, and no
/// ticks refill anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    per_second: u64,
}

impl Rate {
    /// So much a second; nothing a second would be for ever, so it is taken for one.
    pub(crate) const fn new(per_second: u64) -> Self {
        Self {
            per_second: if per_second == 0 { 1 } else { per_second },
        }
    }

    /// When somebody may go on that was free to at `free_at` and spends this much now.
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
    fn a_seconds_worth_may_be_spent_at_once_and_then_it_is_the_rate() {
        let rate = Rate::new(100);
        let start = Instant::now() + Duration::from_secs(10);
        let mut free_at = None;
        let mut spent = 0;
        for tick in 0..300 {
            let now = start + tick * Duration::from_millis(10);
            while free_at.is_none_or(|free_at| free_at <= now) {
                free_at = Some(rate.spend(free_at, now, 1));
                spent += 1;
                assert!(spent < 1000, "nobody ever waits");
            }
        }
        // A second's worth ahead, three seconds less a tick, and the one that is in hand.
        assert!((399..=401).contains(&spent), "{spent}");
    }

    #[test]
    fn a_large_expense_is_worked_off_before_the_next() {
        let rate = Rate::new(10);
        let now = Instant::now() + Duration::from_secs(10);
        let free_at = rate.spend(None, now, 1000);
        assert_eq!(free_at - now, Duration::from_secs(99));
        assert_eq!(rate.spend(Some(free_at), now, 10) - free_at, BURST);
    }

    #[test]
    fn a_rate_of_nothing_is_the_slowest_there_is() {
        let now = Instant::now() + Duration::from_secs(10);
        assert_eq!(Rate::new(0).spend(None, now, 3) - now, 2 * BURST);
    }

    #[test]
    fn what_nobody_can_pay_off_is_not_free() {
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
