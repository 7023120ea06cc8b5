//! The server's tick: the time of day, for the dialect whose members receive it.

use std::time::{Duration, Instant, SystemTime};

use crate::relay::after;

/// When the next tick is due.
#[derive(Debug)]
pub(super) struct Tick {
    /// How long it is from one tick to the next; without it there are none.
    every: Option<Duration>,
    /// When the next tick is due, while a member receives them.
    due: Option<Instant>,
}

impl Tick {
    pub(super) const fn new(every: Option<Duration>) -> Self {
        Self { every, due: None }
    }

    /// Follows whether any member receives ticks: the first one starts the clock, the last one stops it.
    pub(super) fn set_running(&mut self, has_members: bool, now: Instant) {
        if !has_members {
            self.due = None;
        } else if self.due.is_none() {
            self.due = self.every.map(|every| after(now, every));
        }
    }

    /// When the next tick is due, if one is.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether a tick is due now. The next one keeps step with it, unless that is over already.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let Some(due) = self.due.filter(|&due| due <= now) else {
            return false;
        };
        self.due = self.every.map(|every| {
            let in_step = Some(after(due, every)).filter(|&next| next > now);
            in_step.unwrap_or_else(|| after(now, every))
        });
        true
    }
}

/// The text of a tick, with as many decimals as Python prints of `time.time()`.
pub(super) fn text(time: SystemTime) -> String {
    // A clock that stands before 1970 has not been set.
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.unwrap_or_default().as_secs_f64();
    format!("The time is {seconds:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn ticks_run_while_a_member_receives_them() {
        let now = Instant::now();
        let mut tick = Tick::new(Some(3 * SECOND));
        assert_eq!(tick.due(), None);
        tick.set_running(true, now);
        tick.set_running(true, now + SECOND);
        assert_eq!(tick.due(), Some(now + 3 * SECOND));
        tick.set_running(false, now + 2 * SECOND);
        assert_eq!(tick.due(), None);
        assert!(!tick.take_due(now + 9 * SECOND));
    }

    #[test]
    fn ticks_keep_step_unless_a_whole_one_was_missed() {
        let now = Instant::now();
        let mut tick = Tick::new(Some(3 * SECOND));
        tick.set_running(true, now);
        assert!(!tick.take_due(now + 2 * SECOND));
        assert!(tick.take_due(now + 4 * SECOND));
        assert_eq!(tick.due(), Some(now + 6 * SECOND));
        assert!(tick.take_due(now + 20 * SECOND));
        assert_eq!(tick.due(), Some(now + 23 * SECOND));
    }

    #[test]
    fn without_an_interval_there_are_no_ticks() {
        let mut tick = Tick::new(None);
        tick.set_running(true, Instant::now());
        assert_eq!(tick.due(), None);
    }

    #[test]
    fn tick_has_the_time_as_python_prints_it() {
        for (micros, expected) in [
            (1_593_590_400_123_000, "The time is 1593590400.123"),
            (1_593_590_400_000_000, "The time is 1593590400.0"),
            (1_593_590_400_123_456, "The time is 1593590400.123456"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            assert_eq!(text(time), expected);
        }
        let unset = SystemTime::UNIX_EPOCH - SECOND;
        assert_eq!(text(unset), "The time is 0.0");
    }
}
