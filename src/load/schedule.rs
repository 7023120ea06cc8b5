//! A schedule: something is due so many times a second, whatever happens meanwhile.
//!
//! **Coordinated omission.** A load tool that waits for an answer before it sends again stops
//! measuring just when the server is slow: a stall of a second is one bad figure among thousands of
//! good ones. So the times of sending are fixed beforehand, and a delay counts from the time at
//! which a message *was to be* sent, which a tool that is late itself cannot hide either. (The term
//! is Gil Tene's.)

use std::time::Duration;

/// A `Schedule` holds the times at which something is due, on a clock that the caller has.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    start: Duration,
    per_second: f64,
    /// The number of times that were taken.
    taken: u64,
    end: Option<Duration>,
}

impl Schedule {
    /// From `start` on, until before `end` if that is given.
    pub(super) const fn new(start: Duration, per_second: f64, end: Option<Duration>) -> Self {
        Self {
            start,
            per_second,
            taken: 0,
            end,
        }
    }

    /// The next time; `None` if that was all.
    pub(super) fn next(&self) -> Option<Duration> {
        // From the start each time, so that rounding does not add up.
        let offset = self.taken as f64 / self.per_second * 1e9;
        let at = self
            .start
            .saturating_add(Duration::from_nanos(offset as u64));
        (self.end.is_none_or(|end| at < end)).then_some(at)
    }

    /// Takes the next time if it has come.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<Duration> {
        let at = self.next().filter(|&at| at <= now)?;
        self.taken += 1;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::delays::Delays;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    /// Delays of a server that answers at once, but for the second of three in which it does nothing.
    /// The tool waits with it: it sends nothing either before the server goes on.
    fn with_a_stall(intended: bool) -> Delays {
        let mut delays = Delays::default();
        let mut schedule = Schedule::new(Duration::ZERO, 100.0, Some(3 * SECOND));
        let mut now = Duration::ZERO;
        while let Some(at) = schedule.next() {
            now = now.max(at);
            // It waits while the stall lasts.
            let sent = now;
            if (SECOND..2 * SECOND).contains(&now) {
                now = 2 * SECOND;
            }
            while let Some(at) = schedule.take_due(sent) {
                let delay = now.saturating_sub(if intended { at } else { sent }) + MS;
                delays.record(delay.as_nanos() as u64, 1);
            }
        }
        delays
    }

    #[test]
    fn stall_of_one_second_in_three_shows_in_the_ninetieth_percentile() {
        let delays = with_a_stall(true).times().unwrap();
        assert_eq!(delays.samples, 300);
        // A third of all was delayed, by 0 to 1 s: a tenth by 0.7 s or more.
        assert!(delays.p90 > 690e3 && delays.p90 < 720e3, "{delays:?}");
        assert!(delays.max >= 1e6, "{delays:?}");
        // What a tool sees that counts from when it did send: one bad one, and no other.
        let omitted = with_a_stall(false).times().unwrap();
        assert_eq!(omitted.samples, 300);
        assert!(omitted.p90 < 2e3, "{omitted:?}");
    }

    #[test]
    fn schedule_keeps_its_rate_over_a_long_time() {
        let mut schedule = Schedule::new(MS, 3.0, Some(MS + 1000 * SECOND));
        let mut times = Vec::new();
        while let Some(at) = schedule.take_due(Duration::MAX) {
            times.push(at);
        }
        assert_eq!(times.len(), 3000);
        assert_eq!(times[0], MS);
        assert_eq!(times[3], MS + SECOND);
        assert_eq!(times[2997], MS + 999 * SECOND);
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut schedule = Schedule::new(SECOND, 1000.0, None);
        assert_eq!(schedule.take_due(MS * 999), None);
        assert_eq!(schedule.take_due(SECOND), Some(SECOND));
        assert_eq!(schedule.take_due(SECOND), None);
        assert_eq!(schedule.next(), Some(SECOND + MS));
    }
}
