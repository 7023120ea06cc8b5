//! What happens over and over, and is told once in a while.

use std::time::{Duration, Instant};

/// How long after one line of a kind the next one is worth another.
const AGAIN: Duration = Duration::from_secs(10);

/// When something was told last, so that the log does not tell of nothing else.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether it is to be told now; if so, it counts as told.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self
            .0
            .is_none_or(|told| now.saturating_duration_since(told) >= AGAIN);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_told_again_after_a_while_and_not_before() {
        let start = Instant::now();
        let mut seldom = Seldom::default();
        let times = [0, 0, 9, 10, 11, 19, 20, 100, 109];
        let told = times.map(|second| seldom.is_due(start + Duration::from_secs(second)));
        let due = [true, false, false, true, false, false, true, true, false];
        assert_eq!(told, due);
    }
}
