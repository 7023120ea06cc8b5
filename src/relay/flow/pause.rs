//! Pauses: which slow readers the room waits for, and for how long it has waited.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::lag::{LagState, MIN_READ_RATE};
use crate::relay::conn_id::ConnId;
use crate::relay::timers::after;
use crate::wire::Pauses;

/// How long it is from one round of a pause to the next at least. It is short enough for a conversation.
const MIN_ROUND_INTERVAL: Duration = Duration::from_millis(100);

/// A stopwatch: how long something has lasted in all, over several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PauseClock {
    since: Option<Instant>,
    before: Duration,
}

impl PauseClock {
    /// Starts, unless it runs.
    pub(super) fn start(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Stops, if it runs.
    pub(super) fn stop(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.before += now.saturating_duration_since(since);
        }
    }

    pub(super) const fn is_running(&self) -> bool {
        self.since.is_some()
    }

    /// How long it has run in all.
    pub(super) fn total(&self, now: Instant) -> Duration {
        let this_time = self.since.map(|since| now.saturating_duration_since(since));
        self.before + this_time.unwrap_or_default()
    }
}

/// How input is read at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum Mode {
    /// There is no slow reader: everything is read, up to the turn's budgets.
    Full,
    /// The room is paused for a slow reader, which is below its limit at the moment: members are read in
    /// rounds, one right after the other.
    Rounds,
    /// A slow reader is over its limit: the rounds come no faster than the minimum read rate allows.
    PacedRounds,
}

/// A change that is worth an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum PauseChange {
    /// The first slow reader appeared.
    Began,
    /// The last slow reader caught up, stalled or left.
    Ended {
        /// How long there was one.
        lasted: Duration,
    },
}

/// The slow readers.
#[derive(Debug, Default)]
pub(super) struct RoomPause {
    /// The slow readers for which the room is read in rounds.
    slow: BTreeSet<ConnId>,
    /// Those of them that are over the limit, so that the room is paused.
    over: BTreeSet<ConnId>,
    /// Since when there are slow readers.
    slow_since: Option<Instant>,
    /// How long the room was paused.
    paused: PauseClock,
    /// When the next round of the pause is due.
    next_round: Option<Instant>,
    /// How long each member whose output only it causes was paused itself.
    of_members: BTreeMap<ConnId, PauseClock>,
}

impl RoomPause {
    /// Files a member under the state of its lag.
    pub(super) fn file(
        &mut self,
        id: ConnId,
        state: LagState,
        pauses: Pauses,
        now: Instant,
    ) -> Option<PauseChange> {
        match pauses {
            Pauses::Nothing => None,
            Pauses::Itself => {
                if state.is_over_limit() {
                    self.of_members.entry(id).or_default().start(now);
                } else if let Some(clock) = self.of_members.get_mut(&id) {
                    clock.stop(now);
                }
                None
            }
            Pauses::Room => self.file_in_room(id, state, now),
        }
    }

    fn file_in_room(&mut self, id: ConnId, state: LagState, now: Instant) -> Option<PauseChange> {
        if state.is_over_limit() {
            self.over.insert(id);
            self.paused.start(now);
            self.next_round
                .get_or_insert_with(|| after(now, MIN_ROUND_INTERVAL));
        } else if self.over.remove(&id) && self.over.is_empty() {
            self.paused.stop(now);
            self.next_round = None;
        }
        if state.is_slow() {
            self.slow.insert(id);
            if self.slow_since.is_none() {
                self.slow_since = Some(now);
                return Some(PauseChange::Began);
            }
        } else if self.slow.remove(&id)
            && self.slow.is_empty()
            && let Some(since) = self.slow_since.take()
        {
            let lasted = now.saturating_duration_since(since);
            return Some(PauseChange::Ended { lasted });
        }
        None
    }

    /// Whether any member is, or was, held back because of a slow reader.
    #[inline]
    pub(super) fn is_any(&self) -> bool {
        !self.slow.is_empty() || !self.of_members.is_empty()
    }

    /// How input is read at the moment.
    pub(super) fn mode(&self) -> Mode {
        if self.slow.is_empty() {
            Mode::Full
        } else if self.over.is_empty() {
            Mode::Rounds
        } else {
            Mode::PacedRounds
        }
    }

    /// How long there have been slow readers since the last time without one.
    pub(super) fn so_far(&self, now: Instant) -> Duration {
        let since = self.slow_since;
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// When the next round of the pause is due; `None` if the room is not paused.
    pub(super) const fn next_round(&self) -> Option<Instant> {
        self.next_round
    }

    /// A round of the pause has published this many bytes. The next one is due when a reader at the
    /// minimum rate has read them.
    pub(super) fn end_round(&mut self, published: usize, now: Instant) {
        if let Some(next_round) = &mut self.next_round {
            let nanos = published as u64 * 1_000_000_000 / MIN_READ_RATE;
            let interval = Duration::from_nanos(nanos).max(MIN_ROUND_INTERVAL);
            *next_round = after(now, interval);
        }
    }

    /// Whether this member is paused itself.
    pub(super) fn is_self_paused(&self, id: ConnId) -> bool {
        self.of_members.get(&id).is_some_and(PauseClock::is_running)
    }

    /// How long this member was not read from because of slow readers, in all.
    pub(super) fn paused_time(&self, id: ConnId, now: Instant) -> Duration {
        let of_itself = self.of_members.get(&id);
        let of_itself = of_itself.map_or(Duration::ZERO, |clock| clock.total(now));
        self.paused.total(now) + of_itself
    }

    /// Forgets a connection that ended.
    pub(super) fn remove(&mut self, id: ConnId) {
        self.of_members.remove(&id);
    }

    /// Checks what must hold between turns, of the member with this lag state.
    pub(super) fn check(&self, id: ConnId, state: Option<LagState>, pauses: Pauses) {
        let in_room = state.filter(|_| pauses == Pauses::Room);
        let is_slow = in_room.is_some_and(LagState::is_slow);
        let is_over = in_room.is_some_and(LagState::is_over_limit);
        debug_assert_eq!(self.slow.contains(&id), is_slow, "slow readers are filed");
        debug_assert_eq!(
            self.over.contains(&id),
            is_over,
            "those over the limit are filed"
        );
    }

    /// How many slow readers there are.
    pub(super) fn slow_readers(&self) -> usize {
        debug_assert!(self.over.is_subset(&self.slow), "over the limit is slow");
        debug_assert_eq!(
            self.paused.is_running(),
            !self.over.is_empty(),
            "the clock runs in a pause"
        );
        debug_assert_eq!(self.slow_since.is_some(), !self.slow.is_empty());
        self.slow.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId::new(1, 1);
    const B: ConnId = ConnId::new(2, 2);

    fn over(since: Instant) -> LagState {
        LagState::OverLimit { since }
    }

    #[test]
    fn room_is_paused_while_any_slow_reader_is_over_the_limit_and_that_time_counts_once() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut pause = RoomPause::default();
        assert_eq!(pause.mode(), Mode::Full);
        let change = pause.file(A, over(at(1)), Pauses::Room, at(1));
        assert_eq!(
            (change, pause.mode()),
            (Some(PauseChange::Began), Mode::PacedRounds)
        );
        assert_eq!(pause.file(B, over(at(3)), Pauses::Room, at(3)), None);
        assert_eq!(pause.file(A, LagState::Slow, Pauses::Room, at(5)), None);
        assert_eq!((pause.mode(), pause.slow_readers()), (Mode::PacedRounds, 2));
        assert_eq!(pause.file(B, LagState::Slow, Pauses::Room, at(7)), None);
        assert_eq!(pause.mode(), Mode::Rounds);
        assert_eq!(pause.paused_time(A, at(9)), Duration::from_secs(6));
        assert_eq!(pause.file(A, LagState::Stalled, Pauses::Room, at(9)), None);
        let change = pause.file(B, LagState::Keeping, Pauses::Room, at(10));
        let lasted = Duration::from_secs(9);
        assert_eq!(
            (change, pause.mode()),
            (Some(PauseChange::Ended { lasted }), Mode::Full)
        );
    }

    #[test]
    fn rounds_of_a_pause_come_no_faster_than_the_minimum_read_rate() {
        let now = Instant::now();
        let mut pause = RoomPause::default();
        assert_eq!(pause.next_round(), None);
        pause.file(A, over(now), Pauses::Room, now);
        assert_eq!(pause.next_round(), Some(now + MIN_ROUND_INTERVAL));
        pause.file(B, over(now), Pauses::Room, now + MIN_ROUND_INTERVAL);
        assert_eq!(pause.next_round(), Some(now + MIN_ROUND_INTERVAL));
        pause.end_round(2 * MIN_READ_RATE as usize, now);
        assert_eq!(pause.next_round(), Some(now + Duration::from_secs(2)));
        pause.end_round(1, now);
        assert_eq!(pause.next_round(), Some(now + MIN_ROUND_INTERVAL));
        pause.file(A, LagState::Slow, Pauses::Room, now);
        pause.file(B, LagState::Slow, Pauses::Room, now);
        assert_eq!(pause.next_round(), None);
    }

    #[test]
    fn self_pause_holds_up_no_other_member() {
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        let mut pause = RoomPause::default();
        assert_eq!(pause.file(A, over(now), Pauses::Itself, now), None);
        assert!(pause.is_self_paused(A) && !pause.is_self_paused(B));
        assert_eq!(pause.mode(), Mode::Full);
        assert_eq!(pause.paused_time(A, later), Duration::from_secs(2));
        assert_eq!(pause.paused_time(B, later), Duration::ZERO);
        pause.file(A, LagState::Keeping, Pauses::Itself, later);
        assert!(!pause.is_self_paused(A));
        assert_eq!(
            pause.paused_time(A, later + Duration::from_secs(9)),
            Duration::from_secs(2)
        );
        pause.remove(A);
        assert_eq!(pause.paused_time(A, later), Duration::ZERO);
    }
}
