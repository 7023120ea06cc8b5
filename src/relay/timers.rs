//! The core's timers: when each connection must be looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::conn_id::ConnId;

/// What is checked when a timer fires. A connection has at most one timer of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// A pending connection must have sent its name.
    Name,
    /// A member must have completed the message that it began.
    Message {
        /// How long the relay had not read from the member when the message began, in all.
        paused_before: Duration,
    },
    /// A member must have sent something.
    Idle,
    /// A draining member must have accepted output.
    Drain {
        /// How much output was pending when the timer was set, in bytes.
        pending: u64,
    },
    /// A slow reader's socket must have accepted output, or it is stalled.
    Lag,
    /// A throttled member may be read from again.
    Throttle,
}

/// A [`Timer`] without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TimerKind {
    Name,
    Message,
    Idle,
    Drain,
    Lag,
    Throttle,
}

impl Timer {
    const fn kind(self) -> TimerKind {
        match self {
            Self::Name => TimerKind::Name,
            Self::Message { .. } => TimerKind::Message,
            Self::Idle => TimerKind::Idle,
            Self::Drain { .. } => TimerKind::Drain,
            Self::Lag => TimerKind::Lag,
            Self::Throttle => TimerKind::Throttle,
        }
    }
}

impl TimerKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Message => "message",
            Self::Idle => "idle",
            Self::Drain => "drain",
            Self::Lag => "lag",
            Self::Throttle => "throttle",
        }
    }
}

/// Every running timer, by connection and by time.
///
/// The earliest is the poll's timeout, and with none running the poll waits for ever: an idle relay
/// does not wake up to look at a clock. A timer is cancelled when its reason goes, so each one that
/// fires has a reason.
#[derive(Debug, Default)]
pub(super) struct Timers {
    running: BTreeMap<(ConnId, TimerKind), (Instant, Timer)>,
    queue: BTreeSet<(Instant, ConnId, TimerKind)>,
}

impl Timers {
    /// Starts a timer. One of the same kind that runs for this connection is replaced.
    pub(super) fn set(&mut self, id: ConnId, timer: Timer, at: Instant) {
        let kind = timer.kind();
        if let Some((before, _)) = self.running.insert((id, kind), (at, timer)) {
            self.queue.remove(&(before, id, kind));
        }
        self.queue.insert((at, id, kind));
        debug_assert_eq!(self.running.len(), self.queue.len(), "one entry a timer");
    }

    /// Stops a timer, if it runs.
    pub(super) fn cancel(&mut self, id: ConnId, kind: TimerKind) {
        if let Some((at, _)) = self.running.remove(&(id, kind)) {
            self.queue.remove(&(at, id, kind));
        }
    }

    /// Stops all timers of a connection.
    pub(super) fn cancel_all(&mut self, id: ConnId) {
        let all = (id, TimerKind::Name)..=(id, TimerKind::Throttle);
        while let Some((&(_, kind), _)) = self.running.range(all.clone()).next() {
            self.cancel(id, kind);
        }
    }

    /// When the next timer fires, if one runs.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|&(at, ..)| at)
    }

    /// When this timer fires, if it runs.
    pub(super) fn at(&self, id: ConnId, kind: TimerKind) -> Option<Instant> {
        self.running.get(&(id, kind)).map(|&(at, _)| at)
    }

    /// Takes the next timer that has fired by `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(ConnId, Timer)> {
        let &(at, id, kind) = self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        let fired = self.running.remove(&(id, kind));
        debug_assert!(fired.is_some(), "a queued timer runs");
        fired.map(|(_, timer)| (id, timer))
    }

    /// The timers that have fired by `now`, each with the word for its kind.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = (ConnId, &'static str)> {
        let due = self.queue.iter().take_while(move |(at, ..)| *at <= now);
        due.map(|&(_, id, kind)| (id, kind.word()))
    }

    /// The connections that have timers, one entry for each timer.
    pub(super) fn connections(&self) -> impl Iterator<Item = ConnId> {
        self.running.keys().map(|&(id, _)| id)
    }
}

/// The instant that is `duration` after `now`. Where that cannot be represented, one that is a century
/// away.
pub(crate) fn after(now: Instant, duration: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    now.checked_add(duration).unwrap_or_else(|| now + CENTURY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const A: ConnId = ConnId::new(1, 1);
    const B: ConnId = ConnId::new(2, 2);

    #[test]
    fn timers_fire_in_order_and_once() {
        let now = Instant::now();
        let mut timers = Timers::default();
        timers.set(A, Timer::Name, now + 2 * SECOND);
        timers.set(B, Timer::Drain { pending: 7 }, now + SECOND);
        assert_eq!(timers.next(), Some(now + SECOND));
        assert_eq!(timers.pop_due(now), None);
        let late = now + 9 * SECOND;
        assert_eq!(timers.pop_due(late), Some((B, Timer::Drain { pending: 7 })));
        assert_eq!(timers.pop_due(late), Some((A, Timer::Name)));
        assert_eq!(timers.pop_due(late), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_timer_that_is_set_again_replaces_the_one_before() {
        let now = Instant::now();
        let mut timers = Timers::default();
        timers.set(A, Timer::Drain { pending: 9 }, now + SECOND);
        timers.set(A, Timer::Drain { pending: 1 }, now + 3 * SECOND);
        assert_eq!(timers.at(A, TimerKind::Drain), Some(now + 3 * SECOND));
        assert_eq!(timers.pop_due(now + 2 * SECOND), None);
        let fired = timers.pop_due(now + 3 * SECOND);
        assert_eq!(fired, Some((A, Timer::Drain { pending: 1 })));
    }

    #[test]
    fn a_cancelled_timer_is_gone_and_the_others_run_on() {
        let now = Instant::now();
        let mut timers = Timers::default();
        for timer in [Timer::Idle, Timer::Lag, Timer::Throttle] {
            timers.set(A, timer, now);
            timers.set(B, timer, now);
        }
        timers.cancel(B, TimerKind::Lag);
        timers.cancel(B, TimerKind::Lag);
        timers.cancel_all(A);
        let left: Vec<_> = std::iter::from_fn(|| timers.pop_due(now)).collect();
        assert_eq!(left, [(B, Timer::Idle), (B, Timer::Throttle)]);
    }

    #[test]
    fn an_instant_that_cannot_be_represented_is_a_century_away() {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        let now = Instant::now();
        assert_eq!(after(now, HOUR), now + HOUR);
        assert_eq!(after(now, Duration::MAX) - now, 876_000 * HOUR);
    }
}
