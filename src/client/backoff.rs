//! The wait before the next attempt to connect.

use std::time::{Duration, Instant};

const MIN_WAIT: Duration = Duration::from_millis(500);
const MAX_WAIT: Duration = Duration::from_secs(30);
/// After a connection that lasted this long, the next wait is the shortest again: the server had accepted it.
const STABLE_AFTER: Duration = Duration::from_secs(2);

/// A `Backoff` computes waits that double, with jitter.
///
/// A relay that restarts loses all its members at the same time. If they all waited equally long, they
/// would connect at the same time again and again. So each wait is a random value between the half and
/// the whole of the doubled one.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after another failure. `jitter` is from 0 to 1.
    pub(super) fn next(&mut self, jitter: f64) -> Duration {
        let whole = (MIN_WAIT * 2_u32.pow(self.failures.min(10))).min(MAX_WAIT);
        self.failures += 1;
        whole.mul_f64(0.5 + 0.5 * jitter)
    }

    /// Notes that a connection was lost that was established at `since`.
    pub(super) fn note_loss(&mut self, since: Instant, now: Instant) {
        if now.duration_since(since) >= STABLE_AFTER {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        for _ in 0..100 {
            assert_eq!(backoff.next(0.0), MAX_WAIT / 2);
        }
    }

    #[test]
    fn jitter_shortens_a_wait_by_up_to_half() {
        assert_eq!(Backoff::default().next(0.0), MIN_WAIT / 2);
        assert_eq!(Backoff::default().next(0.5), MIN_WAIT * 3 / 4);
    }

    #[test]
    fn wait_after_a_stable_connection_is_the_shortest_again() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        backoff.next(1.0);
        backoff.note_loss(start + Duration::from_millis(1), start + STABLE_AFTER);
        assert_eq!(backoff.next(1.0), MIN_WAIT * 2);
        backoff.note_loss(start, start + STABLE_AFTER);
        assert_eq!(backoff.next(1.0), MIN_WAIT);
    }
}
