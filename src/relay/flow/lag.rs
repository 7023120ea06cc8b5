//! Slow readers: what a member's lag means for the room and for the member.
//!
//! A member that reads more slowly than the others send falls behind. A relay can drop messages then, or
//! close the slow member; or it can apply backpressure to the senders, which costs them nothing but
//! time: TCP carries it back to the sending program, whose `send` blocks. But a member that does
//! not read at all must not silence the room. So the room waits for a member as long as its socket
//! accepts bytes, and not for long after that.
//!
//! | a member | the room | the member |
//! |---|---|---|
//! | lags by no more than the soft limit | goes on | is *keeping up* |
//! | lags by more, and its socket accepts bytes | is *paused* until the lag is at the limit again | is a *slow reader* |
//! | … but fewer than the minimum read rate, over `slow_timeout` of pause | goes on | is closed |
//! | … but none for half of `slow_timeout` | goes on, and does not wait for it again before it has caught up | is *stalled* |
//! | lags by more than the queue limit and is not waited for | goes on | is closed |
//!
//! ```text
//!              lag over the soft limit          nothing accepted for slow_timeout / 2
//!   ┌─────────┐ ──────────────────► ┌────────┐ ──────────────────► ┌─────────┐
//!   │ Keeping │                     │  Slow  │                     │ Stalled │
//!   └─────────┘ ◄────────────────── └───┬────┘                     └──┬───┬──┘
//!        ▲   lag at half of the limit   │ below the minimum rate      │   │ lag over the
//!        │                              ▼                             │   ▼ queue limit
//!        │                            closed                          │ closed
//!        └────────────────────────────────────────────────────────────┘
//!                            lag at the soft limit
//! ```
//!
//! **Rounds.** While there is a slow reader, members are read in *rounds*: one message or some 512
//! published bytes each, so that an ordinary line goes out with every round beside any flood. Below the
//! limit one round follows the other. Over it, the room is paused: rounds come no faster than the
//! minimum read rate allows, which every reader that is waited for can follow. So a flood runs at the
//! speed of the slowest reader, and a conversation goes on. The rounds end at half of the limit, so
//! that a reader at its limit does not have the room start and stop in large steps.
//!
//! **Why `slow_timeout` is long.** A socket that accepts nothing for many seconds may belong to a reader.
//! Linux gives a receive buffer's memory back in pieces as large as the packets that it has merged, up to
//! the whole buffer (`tcp_try_coalesce`), and opens the window only then. With the default buffer of
//! 128 KiB a reader of 20 kB/s shows progress every 6.5 s, and one at the minimum rate every 20 s,
//! which is half of the default. A program that reads slowly behind a buffer of megabytes looks stalled.
//! For the same reason the rate is measured from one accepted piece to another, never at any moment.
//!
//! A member that comes back after it had stalled, and one that starts with a long history, is catching
//! up: it counts as stalled until its lag is at the limit.
//!
//! A member that has left and still reads is waited for like any other until its output is delivered.
//!
//! Members whose output only they cause (`ack64`) pause only themselves, for as long as they like.
//! With `--slow cut`, and in dialects that pause nothing, a member is closed over the queue limit.

use std::time::{Duration, Instant};

use crate::relay::close_reason::CloseReason;
use crate::relay::limits::{Limits, Slow};
use crate::relay::timers::after;
use crate::wire::{Dialect, Pauses};

/// The minimum read rate, in bytes a second: what a slow reader must accept while the room is paused for
/// it, and what the room may publish meanwhile.
pub(super) const MIN_READ_RATE: u64 = 64 * 1024 / 10;

/// The limits of lag in one dialect.
#[derive(Clone, Copy, Debug)]
pub(in crate::relay) struct LagLimits {
    soft: u64,
    queue: u64,
    timeout: Duration,
    pub(super) pauses: Pauses,
}

impl LagLimits {
    pub(super) fn new(limits: &Limits, dialect: Dialect) -> Self {
        Self {
            soft: limits.soft_limit as u64,
            queue: limits.queue_limit as u64,
            timeout: limits.slow_timeout,
            pauses: match limits.slow {
                Slow::Pace => dialect.rules().pauses,
                Slow::Cut => Pauses::Nothing,
            },
        }
    }

    /// Whether a member over the limit is waited for, rather than closed.
    pub(in crate::relay) fn waits(&self) -> bool {
        self.pauses != Pauses::Nothing
    }

    /// The lag up to which a member keeps up.
    const fn keeping(&self) -> u64 {
        match self.pauses {
            Pauses::Room | Pauses::Itself => self.soft,
            Pauses::Nothing => self.queue,
        }
    }

    /// After how long without accepting a byte a slow reader is stalled.
    fn stall_after(&self) -> Duration {
        self.timeout / 2
    }
}

/// What a member's lag makes of it. See the diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LagState {
    /// The member keeps up, or lags by no more than the soft limit.
    Keeping,
    /// The member is a slow reader, at or below the soft limit at the moment.
    Slow,
    /// The member is a slow reader over the soft limit.
    OverLimit {
        /// Since when, or since when its socket accepted bytes last.
        since: Instant,
    },
    /// The room is not paused for the member: its socket accepts nothing, or it is catching up with its
    /// history, or it was measured below the minimum rate and is being closed.
    Stalled,
}

impl LagState {
    /// Whether the room is paused for the member.
    pub(super) const fn is_slow(self) -> bool {
        matches!(self, Self::Slow | Self::OverLimit { .. })
    }

    pub(super) const fn is_over_limit(self) -> bool {
        matches!(self, Self::OverLimit { .. })
    }
}

/// What can change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum LagEvent {
    /// The lag exceeds the [`threshold`](LagTracker::threshold).
    OverThreshold,
    /// The socket accepted this many bytes.
    Accepted(u64),
    /// The time of [`next_check`](LagTracker::next_check) has come.
    Timer,
    /// The member has left, and drains.
    Left,
}

/// A `LagTracker` follows one lagging member. It exists as long as the member's cursor.
#[derive(Debug)]
pub(in crate::relay) struct LagTracker {
    state: LagState,
    /// The lag above which something must be decided.
    threshold: u64,
    /// When the socket accepted bytes last.
    accepted_at: Instant,
    /// How long the room was paused for this member, since its rate was measured last.
    paused: Duration,
    /// How many bytes the socket accepted in that time.
    accepted: u64,
}

impl LagTracker {
    /// The tracker of a member that falls behind now, because more was published than its socket
    /// accepted.
    pub(in crate::relay) const fn new(limits: &LagLimits, now: Instant) -> Self {
        Self {
            state: LagState::Keeping,
            threshold: limits.keeping(),
            accepted_at: now,
            paused: Duration::ZERO,
            accepted: 0,
        }
    }

    /// The tracker of a member that starts with this lag, of history.
    pub(in crate::relay) fn catching_up(lag: u64, limits: &LagLimits, now: Instant) -> Self {
        let mut tracker = Self::new(limits, now);
        if lag > tracker.threshold {
            tracker.set(LagState::Stalled, limits);
        }
        tracker
    }

    /// The lag above which [`OverThreshold`](LagEvent::OverThreshold) must be reported.
    pub(in crate::relay) const fn threshold(&self) -> u64 {
        self.threshold
    }

    pub(super) const fn state(&self) -> LagState {
        self.state
    }

    /// Whether the room does not wait for the member, because it does not read.
    pub(in crate::relay) fn is_stalled(&self) -> bool {
        self.state == LagState::Stalled
    }

    /// Whether the room is paused for the member.
    pub(in crate::relay) const fn is_slow(&self) -> bool {
        self.state.is_slow()
    }

    fn set(&mut self, state: LagState, limits: &LagLimits) {
        self.state = state;
        self.threshold = match state {
            LagState::Keeping | LagState::Slow => limits.keeping(),
            // While the room is paused for the member, its lag is no reason to close it.
            LagState::OverLimit { .. } => u64::MAX,
            LagState::Stalled => limits.queue,
        };
    }

    /// Something happened, and this is the lag now. Returns a reason to close the member, if there is
    /// one.
    pub(super) fn on_event(
        &mut self,
        event: LagEvent,
        lag: u64,
        limits: &LagLimits,
        now: Instant,
    ) -> Option<CloseReason> {
        match event {
            LagEvent::OverThreshold => self.on_over_threshold(lag, limits, now),
            LagEvent::Accepted(sent) => self.on_accepted(sent, lag, limits, now),
            LagEvent::Timer => self.stall_if_silent(lag, limits, now),
            LagEvent::Left => {
                self.on_left(lag, limits, now);
                None
            }
        }
    }

    fn on_over_threshold(
        &mut self,
        lag: u64,
        limits: &LagLimits,
        now: Instant,
    ) -> Option<CloseReason> {
        debug_assert!(lag > self.threshold, "there is something to decide");
        if limits.pauses == Pauses::Nothing || self.state == LagState::Stalled {
            return Some(CloseReason::SlowConsumer { lag });
        }
        self.set(LagState::OverLimit { since: now }, limits);
        self.stall_if_silent(lag, limits, now)
    }

    /// The member has left with this lag, which is no reason to close it before its output is delivered,
    /// even if it is over the queue limit. A slow reader that is over the soft limit since this very turn is
    /// waited for like any other, and so it must have the time to stall.
    fn on_left(&mut self, lag: u64, limits: &LagLimits, now: Instant) {
        if self.state == LagState::Slow && lag > limits.soft {
            self.set(LagState::OverLimit { since: now }, limits);
        }
        self.threshold = self.threshold.max(lag);
    }

    fn on_accepted(
        &mut self,
        sent: u64,
        lag: u64,
        limits: &LagLimits,
        now: Instant,
    ) -> Option<CloseReason> {
        self.accepted_at = now;
        if let LagState::OverLimit { since } = self.state {
            self.accepted = self.accepted.saturating_add(sent);
            self.paused += now.saturating_duration_since(since);
        }
        match self.state {
            LagState::Stalled if lag <= limits.soft => self.keep_up(limits),
            state if state.is_slow() && lag <= limits.soft / 2 => self.keep_up(limits),
            LagState::OverLimit { .. } if lag > limits.soft => {
                self.set(LagState::OverLimit { since: now }, limits);
            }
            LagState::OverLimit { .. } => self.set(LagState::Slow, limits),
            LagState::Keeping | LagState::Slow | LagState::Stalled => {}
        }
        self.measure(limits)
    }

    /// Measures the read rate of a slow reader, when the room was paused for it for long enough.
    fn measure(&mut self, limits: &LagLimits) -> Option<CloseReason> {
        if self.paused < limits.timeout || limits.pauses != Pauses::Room {
            return None;
        }
        let accepted = self.accepted;
        let minimum = u128::from(MIN_READ_RATE) * self.paused.as_millis() / 1000;
        (self.paused, self.accepted) = (Duration::ZERO, 0);
        if u128::from(accepted) >= minimum {
            return None;
        }
        // The room does not wait for a member that is closed, and no timer is set for it.
        self.set(LagState::Stalled, limits);
        Some(CloseReason::BelowMinimumRate { accepted })
    }

    /// When the member is stalled if nothing happens. `None` if the room is not paused for it.
    pub(super) fn next_check(&self, limits: &LagLimits) -> Option<Instant> {
        let is_waited_for = self.state.is_over_limit() && limits.pauses == Pauses::Room;
        is_waited_for.then(|| after(self.accepted_at, limits.stall_after()))
    }

    fn keep_up(&mut self, limits: &LagLimits) {
        self.set(LagState::Keeping, limits);
        (self.paused, self.accepted) = (Duration::ZERO, 0);
    }

    /// A slow reader over the limit whose socket accepted nothing for long is stalled. It is closed if
    /// its lag is over the queue limit already.
    fn stall_if_silent(
        &mut self,
        lag: u64,
        limits: &LagLimits,
        now: Instant,
    ) -> Option<CloseReason> {
        let silent = now.saturating_duration_since(self.accepted_at);
        let is_waited_for = self.state.is_over_limit() && limits.pauses == Pauses::Room;
        if !is_waited_for || silent < limits.stall_after() {
            return None;
        }
        self.set(LagState::Stalled, limits);
        (lag > limits.queue).then_some(CloseReason::SlowConsumer { lag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A soft limit of 1000 bytes, a queue limit of 100,000, and a slow timeout of ten seconds.
    fn limits_of(dialect: Dialect, slow: Slow) -> LagLimits {
        let limits = Limits {
            soft_limit: 1000,
            queue_limit: 100_000,
            slow_timeout: 10 * SECOND,
            slow,
            ..Limits::default()
        };
        LagLimits::new(&limits, dialect)
    }

    fn limits() -> LagLimits {
        limits_of(Dialect::Chat10, Slow::Pace)
    }

    const fn over(since: Instant) -> LagState {
        LagState::OverLimit { since }
    }

    #[test]
    fn slow_reader_pauses_the_room_until_its_lag_is_at_the_limit() {
        let (limits, now) = (limits(), Instant::now());
        let mut tracker = LagTracker::new(&limits, now);
        assert_eq!(tracker.threshold(), 1000);
        assert_eq!(tracker.on_over_threshold(1001, &limits, now), None);
        assert_eq!(
            (tracker.state(), tracker.threshold()),
            (over(now), u64::MAX)
        );
        assert_eq!(tracker.on_accepted(10, 1001, &limits, now), None);
        assert_eq!(tracker.state(), over(now), "a byte is missing");
        assert_eq!(tracker.on_accepted(1, 1000, &limits, now), None);
        assert_eq!(
            (tracker.state(), tracker.threshold()),
            (LagState::Slow, 1000)
        );
        assert_eq!(tracker.on_accepted(499, 501, &limits, now), None);
        assert_eq!(
            tracker.state(),
            LagState::Slow,
            "rounds go on until half of the limit"
        );
        assert_eq!(tracker.on_accepted(1, 500, &limits, now), None);
        assert_eq!(tracker.state(), LagState::Keeping);
    }

    #[test]
    fn slow_reader_is_stalled_after_half_of_the_timeout_without_accepting() {
        let (limits, now) = (limits(), Instant::now());
        let mut tracker = LagTracker::new(&limits, now);
        assert_eq!(tracker.on_over_threshold(1001, &limits, now + SECOND), None);
        assert_eq!(tracker.next_check(&limits), Some(now + 5 * SECOND));
        let just_before = now + Duration::from_nanos(4_999_999_999);
        assert_eq!(tracker.stall_if_silent(1001, &limits, just_before), None);
        assert_eq!(tracker.state(), over(now + SECOND));
        assert_eq!(
            tracker.stall_if_silent(1001, &limits, now + 5 * SECOND),
            None
        );
        assert_eq!(
            (tracker.state(), tracker.threshold()),
            (LagState::Stalled, 100_000)
        );
        assert_eq!(tracker.next_check(&limits), None);
    }

    #[test]
    fn member_that_accepted_nothing_for_long_stalls_without_a_pause() {
        let (limits, now) = (limits(), Instant::now());
        let mut tracker = LagTracker::new(&limits, now);
        assert_eq!(
            tracker.on_over_threshold(1001, &limits, now + 5 * SECOND),
            None
        );
        assert_eq!(tracker.state(), LagState::Stalled);
    }

    #[test]
    fn stalled_member_is_waited_for_again_only_after_it_has_caught_up() {
        let (limits, now) = (limits(), Instant::now());
        let mut tracker = LagTracker::catching_up(50_000, &limits, now);
        assert_eq!(tracker.on_accepted(1, 49_999, &limits, now), None);
        assert_eq!(tracker.state(), LagState::Stalled);
        assert_eq!(tracker.on_accepted(1, 1001, &limits, now), None);
        assert_eq!(tracker.state(), LagState::Stalled);
        assert_eq!(tracker.on_accepted(1, 1000, &limits, now), None);
        assert_eq!(
            (tracker.state(), tracker.threshold()),
            (LagState::Keeping, 1000)
        );
    }

    #[test]
    fn short_history_keeps_up_and_a_long_one_is_catching_up() {
        let (limits, now) = (limits(), Instant::now());
        for (lag, state) in [(1000, LagState::Keeping), (1001, LagState::Stalled)] {
            assert_eq!(
                LagTracker::catching_up(lag, &limits, now).state(),
                state,
                "{lag}"
            );
        }
    }

    #[test]
    fn stalled_member_is_closed_over_the_queue_limit() {
        let (limits, now) = (limits(), Instant::now());
        let mut tracker = LagTracker::catching_up(2000, &limits, now);
        assert_eq!(tracker.threshold(), 100_000);
        let reason = CloseReason::SlowConsumer { lag: 100_001 };
        assert_eq!(
            tracker.on_over_threshold(100_001, &limits, now),
            Some(reason)
        );
    }

    #[test]
    fn slow_reader_over_the_queue_limit_is_waited_for_and_closed_when_it_stalls() {
        let (limits, now) = (limits(), Instant::now());
        let mut tracker = LagTracker::new(&limits, now);
        assert_eq!(tracker.on_over_threshold(1_000_000, &limits, now), None);
        assert_eq!(tracker.state(), over(now));
        let reason = CloseReason::SlowConsumer { lag: 1_000_000 };
        let stalled = tracker.stall_if_silent(1_000_000, &limits, now + 5 * SECOND);
        assert_eq!(stalled, Some(reason));
    }

    #[test]
    fn slow_reader_below_the_minimum_rate_is_closed() {
        let (limits, now) = (limits(), Instant::now());
        for (each, closes) in [(2 * MIN_READ_RATE - 1, true), (2 * MIN_READ_RATE, false)] {
            let mut tracker = LagTracker::new(&limits, now);
            assert_eq!(tracker.on_over_threshold(1_000_000, &limits, now), None);
            for second in [2, 4, 6, 8] {
                let at = now + second * SECOND;
                assert_eq!(tracker.on_accepted(each, 900_000, &limits, at), None);
            }
            let accepted = 5 * each;
            let reason = closes.then_some(CloseReason::BelowMinimumRate { accepted });
            let end = now + 10 * SECOND;
            assert_eq!(tracker.on_accepted(each, 900_000, &limits, end), reason);
            // It is measured anew: the next ten seconds need as much again.
            assert_eq!((tracker.paused, tracker.accepted), (Duration::ZERO, 0));
            assert_eq!(tracker.next_check(&limits).is_none(), closes);
        }
    }

    #[test]
    fn read_rate_is_measured_from_one_accepted_piece_to_another() {
        let (limits, now) = (limits(), Instant::now());
        let mut tracker = LagTracker::new(&limits, now);
        assert_eq!(tracker.on_over_threshold(1_000_000, &limits, now), None);
        // Pieces of four seconds: after ten seconds only two have come, which is no reason.
        for second in [4, 8] {
            let (at, piece) = (now + second * SECOND, 4 * MIN_READ_RATE);
            assert_eq!(tracker.on_accepted(piece, 900_000, &limits, at), None);
        }
        assert_eq!(
            tracker.stall_if_silent(900_000, &limits, now + 10 * SECOND),
            None
        );
        let at = now + 12 * SECOND;
        let third = tracker.on_accepted(4 * MIN_READ_RATE, 900_000, &limits, at);
        assert_eq!(third, None);
    }

    #[test]
    fn minimum_rate_counts_only_the_time_in_which_the_room_is_paused() {
        let (limits, now) = (limits(), Instant::now());
        let mut tracker = LagTracker::new(&limits, now);
        for hour in 0..9 {
            let start = now + 3600 * SECOND * hour;
            tracker.accepted_at = start;
            assert_eq!(tracker.on_over_threshold(1001, &limits, start), None);
            assert_eq!(tracker.stall_if_silent(1001, &limits, start + SECOND), None);
            let at = start + SECOND;
            assert_eq!(tracker.on_accepted(1, 1000, &limits, at), None);
            assert_eq!(tracker.next_check(&limits), None);
        }
        let start = now + 3600 * SECOND * 9;
        tracker.accepted_at = start;
        assert_eq!(tracker.on_over_threshold(1001, &limits, start), None);
        let reason = CloseReason::BelowMinimumRate { accepted: 10 };
        let tenth = tracker.on_accepted(1, 1000, &limits, start + SECOND);
        assert_eq!(tenth, Some(reason));
    }

    #[test]
    fn member_that_catches_up_is_measured_anew() {
        let (limits, now) = (limits(), Instant::now());
        let mut tracker = LagTracker::new(&limits, now);
        assert_eq!(tracker.on_over_threshold(1001, &limits, now), None);
        assert_eq!(
            tracker.on_accepted(1001, 0, &limits, now + 4 * SECOND),
            None
        );
        assert_eq!(
            (tracker.state(), tracker.paused),
            (LagState::Keeping, Duration::ZERO)
        );
    }

    #[test]
    fn member_that_pauses_itself_is_never_closed_for_its_lag() {
        let limits = limits_of(Dialect::Ack64, Slow::Pace);
        let now = Instant::now();
        let mut tracker = LagTracker::new(&limits, now);
        let late = now + 3600 * SECOND;
        assert_eq!(tracker.on_over_threshold(1_000_000, &limits, late), None);
        assert_eq!(tracker.state(), over(late));
        assert_eq!(tracker.next_check(&limits), None);
        assert_eq!(
            tracker.stall_if_silent(1_000_000, &limits, late + 3600 * SECOND),
            None
        );
        assert_eq!(tracker.on_accepted(1, 1000, &limits, late), None);
        assert_eq!(tracker.state(), LagState::Slow);
    }

    #[test]
    fn member_that_pauses_nothing_is_closed_over_the_queue_limit_at_once() {
        for limits in [
            limits_of(Dialect::Greet10, Slow::Pace),
            limits_of(Dialect::Chat10, Slow::Cut),
        ] {
            let now = Instant::now();
            let mut tracker = LagTracker::new(&limits, now);
            assert_eq!(tracker.threshold(), 100_000);
            assert_eq!(tracker.on_accepted(1, 90_000, &limits, now), None);
            let reason = CloseReason::SlowConsumer { lag: 100_001 };
            assert_eq!(
                tracker.on_over_threshold(100_001, &limits, now),
                Some(reason)
            );
        }
    }
}
