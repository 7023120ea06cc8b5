//! Deadlines, in one ordered set.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::relay::ConnId;

/// Something that falls due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A newcomer should have given its name by now.
    Handshake(ConnId),
    /// Accepting was held up for want of a descriptor and is worth another try.
    AcceptAgain,
    /// Whoever has not taken what is queued by now will not get it.
    DrainOver,
}

/// What falls due, and when.
///
/// The next deadline is the poll's timeout, and with none the poll waits for ever: an idle relay
/// does not wake up to look at a clock.
///
/// An entry is a promise to look, not an order to act: nothing is cancelled. Most newcomers give
/// their name at once, and looking for their entries then would cost more than letting those whose
/// reason is gone drop off the front, which happens before they could wake anybody.
#[derive(Debug, Default)]
pub(super) struct Timers {
    deadlines: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.deadlines.insert((at, timer));
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
    use std::time::Duration;

    fn handshake(id: usize) -> Timer {
        Timer::Handshake(ConnId::from(id))
    }

    #[test]
    fn timers_fall_due_in_the_order_of_their_deadlines() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        timers.set(at(3), Timer::DrainOver);
        timers.set(at(1), handshake(7));
        timers.set(at(2), Timer::AcceptAgain);
        timers.set(at(1), handshake(8));
        assert_eq!(timers.next(|_| true), Some(at(1)));
        assert_eq!(timers.pop_due(at(0)), None);
        assert_eq!(timers.pop_due(at(2)), Some(handshake(7)));
        assert_eq!(timers.pop_due(at(2)), Some(handshake(8)));
        assert_eq!(timers.pop_due(at(2)), Some(Timer::AcceptAgain));
        assert_eq!(timers.pop_due(at(2)), None);
        assert_eq!(timers.pop_due(at(3)), Some(Timer::DrainOver));
        assert_eq!(timers.next(|_| true), None);
    }

    #[test]
    fn a_timer_without_a_reason_wakes_nobody() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.set(start, handshake(1));
        timers.set(start + Duration::from_secs(1), handshake(2));
        timers.set(start + Duration::from_secs(2), handshake(3));
        let needed = |timer| timer == handshake(2);
        assert_eq!(timers.next(needed), Some(start + Duration::from_secs(1)));
        assert_eq!(
            timers.next(|timer| timer == handshake(3)),
            timers.next(|_| true)
        );
        assert_eq!(timers.next(|_| false), None);
        assert!(timers.deadlines.is_empty());
    }
}
