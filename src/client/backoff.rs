//! How long to wait before connecting again.

use std::time::{Duration, Instant};

/// The first wait.
const FIRST: Duration = Duration::from_millis(500);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that lived for so long was a good one, and the next wait is the first again.
const GOOD: Duration = Duration::from_secs(10);

/// Waits that double, each shortened by chance.
///
/// A relay that restarts loses all its members in the same moment. If they all came back after the
/// same time, they would come all at once, again and again. So each wait is somewhere between the
/// half and the whole of what doubling gives.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after another failure; `chance` is from 0 up to 1.
    pub(super) fn next(&mut self, chance: f64) -> Duration {
        let whole = (FIRST * 2_u32.pow(self.failures.min(10))).min(LONGEST);
        self.failures += 1;
        whole.mul_f64(0.5 + 0.5 * chance)
    }

    /// Notes that a connection was lost that was there since then.
    pub(super) fn lived(&mut self, since: Instant, now: Instant) {
        if now.duration_since(since) >= GOOD {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        for _ in 0..100 {
            assert_eq!(backoff.next(0.0), LONGEST / 2);
        }
    }

    #[test]
    fn chance_takes_up_to_half() {
        assert_eq!(Backoff::default().next(0.0), FIRST / 2);
        assert_eq!(Backoff::default().next(0.5), FIRST * 3 / 4);
    }

    #[test]
    fn only_a_connection_that_lasted_makes_the_next_wait_short_again() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        backoff.next(1.0);
        backoff.lived(start + Duration::from_millis(1), start + GOOD);
        assert_eq!(backoff.next(1.0), FIRST * 2);
        backoff.lived(start, start + GOOD);
        assert_eq!(backoff.next(1.0), FIRST);
    }
}
