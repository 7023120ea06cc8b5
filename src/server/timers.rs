//! Deadlines, in one ordered set.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::relay::Deadline;

/// Something that falls due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The relay has something to look at.
    Relay(Deadline),
    /// The time is to be told to those who hear it.
    TellTime,
    /// Accepting was held up and is worth another try.
    AcceptAgain,
    /// Somebody is to be let go, or the drain is over.
    Drain,
}

/// What falls due, and when.
///
/// The next deadline is the poll's timeout, and with none the poll waits for ever: an idle relay
/// does not wake up to look at a clock.
///
/// An entry is a promise to look, not an order to act, so nothing has to be cancelled: an entry whose
/// reason is gone is dropped when it comes to the front, before it could wake anybody, and when such
/// entries have become the most of all ([`sweep`](Self::sweep)).
#[derive(Debug, Default)]
pub(super) struct Timers {
    deadlines: BTreeSet<(Instant, Timer)>,
    /// How many there were after the last sweep.
    kept: usize,
}

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.deadlines.insert((at, timer));
    }

    /// Drops the entries without a reason, if there are twice as many as after the last time. One
    /// newcomer that gives no name must not keep the entries of all who come after it and leave again.
    pub(super) fn sweep(&mut self, still_needed: impl Fn(Timer) -> bool) {
        if self.deadlines.len() > 2 * self.kept + 1000 {
            self.deadlines.retain(|&(_, timer)| still_needed(timer));
            self.kept = self.deadlines.len();
        }
    }

    /// When the next timer falls due for which there still is a reason; those before it go.
    pub(super) fn next(&mut self, still_needed: impl Fn(Timer) -> bool) -> Option<Instant> {
        while let Some(&(at, timer)) = self.deadlines.first() {
            if still_needed(timer) {
                return Some(at);
            }
            self.deadlines.pop_first();
        }
        None
    }

    /// Takes the next timer that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        if self.deadlines.first()?.0 > now {
            return None;
        }
        self.deadlines.pop_first().map(|(_, timer)| timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::ConnId;
    use std::time::Duration;

    fn name(id: usize) -> Timer {
        Timer::Relay(Deadline::Name(ConnId::from(id)))
    }

    #[test]
    fn timers_fall_due_in_the_order_of_their_deadlines() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        timers.set(at(3), Timer::Drain);
        timers.set(at(1), name(7));
        timers.set(at(2), Timer::AcceptAgain);
        timers.set(at(1), name(8));
        assert_eq!(timers.next(|_| true), Some(at(1)));
        assert_eq!(timers.pop_due(at(0)), None);
        assert_eq!(timers.pop_due(at(2)), Some(name(7)));
        assert_eq!(timers.pop_due(at(2)), Some(name(8)));
        assert_eq!(timers.pop_due(at(2)), Some(Timer::AcceptAgain));
        assert_eq!(timers.pop_due(at(2)), None);
        assert_eq!(timers.pop_due(at(3)), Some(Timer::Drain));
        assert_eq!(timers.next(|_| true), None);
    }

    #[test]
    fn a_timer_without_a_reason_wakes_nobody() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.set(start, name(1));
        timers.set(start + Duration::from_secs(1), name(2));
        timers.set(start + Duration::from_secs(2), name(3));
        let needed = |timer| timer == name(2);
        assert_eq!(timers.next(needed), Some(start + Duration::from_secs(1)));
        assert_eq!(timers.next(|timer| timer == name(3)), timers.next(|_| true));
        assert_eq!(timers.next(|_| false), None);
        assert!(timers.deadlines.is_empty());
    }

    #[test]
    fn timers_without_a_reason_do_not_pile_up_behind_one_that_has_one() {
        let start = Instant::now();
        let mut timers = Timers::default();
        for id in 0..100_000 {
            timers.set(start + Duration::from_micros(id as u64), name(id));
            timers.sweep(|timer| timer == name(0));
            assert!(timers.deadlines.len() < 1100);
        }
        assert_eq!(timers.next(|timer| timer == name(0)), Some(start));
    }
}
