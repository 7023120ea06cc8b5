//! What has to happen in time.

use std::mem;
use std::time::{Duration, Instant};

use super::departure::mark;
use super::{CloseReason, ConnId, Ready, Relay, get_mut};

/// Something that the relay is to look at when its time has come. The relay knows no clock: it says
/// what falls due and when ([`Relay::take_deadlines`](super::Relay::take_deadlines)), and whoever has a
/// clock comes back with it ([`Relay::expire`](super::Relay::expire)).
///
/// It is a reason to look, not an order to act: by then what was due may have happened, or the
/// connection be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// A newcomer should have given its name.
    Name(ConnId),
    /// A member should have finished the message that it began after so many others.
    Message {
        /// Who.
        id: ConnId,
        /// After how many messages of its own.
        said: u32,
        /// For how long it had been kept waiting by us until then, in all.
        held_up: Duration,
    },
    /// A member that sends nothing should have sent something.
    Idle(ConnId),
    /// A member that leaves should have taken something of what is queued for it.
    Farewell {
        /// Who.
        id: ConnId,
        /// How much was queued, in bytes.
        pending: u64,
    },
    /// Those whom the room waits for should have taken something.
    Awaited,
    /// The room has waited since then, and each may say a little more.
    Share(Instant),
    /// A member that caused too much has worked it off.
    Rested(ConnId),
}

/// The time that is so much later; if there is no such time, one that is later than anybody waits.
pub(crate) fn after(now: Instant, duration: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    now.checked_add(duration).unwrap_or_else(|| now + CENTURY)
}

/// A newcomer or member that is late, but has sent something that waits for its turn, gets this much
/// more.
const PUT_OFF: Duration = Duration::from_millis(100);

impl<S> Relay<S> {
    /// What falls due, and when, that was not handed out before.
    pub fn take_deadlines(&mut self) -> Vec<(Instant, Deadline)> {
        mem::take(&mut self.deadlines)
    }

    /// Whether there still is a reason for this deadline.
    #[must_use]
    pub fn is_pending(&self, deadline: Deadline) -> bool {
        match deadline {
            Deadline::Name(id) => self.awaits_name(id),
            Deadline::Message { id, said, .. } => self.is_inside_message(id, said),
            Deadline::Idle(id) => self.heard_from.contains_key(&id),
            Deadline::Farewell { id, .. } => self.leaving.contains(&id),
            Deadline::Awaited => !self.waiting.is_empty(),
            Deadline::Share(since) => self.waiting.since() == Some(since),
            Deadline::Rested(id) => self
                .get(id)
                .is_some_and(|connection| connection.ready.any(Ready::RESTING)),
        }
    }

    /// The time of a deadline has come.
    pub fn expire(&mut self, deadline: Deadline, now: Instant) {
        self.now = now;
        if !self.is_pending(deadline) {
            return;
        }
        match deadline {
            Deadline::Name(id) => self.expire_name(id),
            Deadline::Message { id, said, held_up } => self.expire_message(id, said, held_up),
            Deadline::Idle(id) => self.expire_idle(id),
            Deadline::Farewell { id, pending } => self.expire_farewell(id, pending),
            Deadline::Rested(id) => {
                self.spending.rested(id, now);
                if let Some(connection) = get_mut(&mut self.connections, id) {
                    self.ready.wake(connection, id);
                }
            }
            Deadline::Share(_) => self.share_again(),
            Deadline::Awaited => self.expire_awaited(),
        }
    }

    /// A newcomer has still not given its name. It goes, unless what it has sent waits for its turn: its
    /// name may be in that.
    fn expire_name(&mut self, id: ConnId) {
        self.put_off_or(id, Deadline::Name(id), CloseReason::HandshakeTimeout);
    }

    /// A member has not finished its message, and time was not short on our account.
    fn expire_message(&mut self, id: ConnId, said: u32, held_up: Duration) {
        let held_up_by_now = self.held_up(id);
        let kept_waiting = held_up_by_now.saturating_sub(held_up);
        let deadline = Deadline::Message {
            id,
            said,
            held_up: held_up_by_now,
        };
        if kept_waiting > Duration::ZERO {
            self.look_again(id, kept_waiting.max(PUT_OFF), deadline);
        } else {
            self.put_off_or(id, deadline, CloseReason::MessageTimeout);
        }
    }

    /// A member has sent nothing for long, or long before it did.
    fn expire_idle(&mut self, id: ConnId) {
        let (Some(timeout), Some(&heard)) = (self.limits.idle_timeout, self.heard_from.get(&id))
        else {
            return;
        };
        let due = after(heard, timeout);
        if due > self.now {
            self.deadlines.push((due, Deadline::Idle(id)));
        } else {
            self.put_off_or(id, Deadline::Idle(id), CloseReason::IdleTimeout);
        }
    }

    /// A member that leaves should have taken something. If it has, it has as much time again.
    fn expire_farewell(&mut self, id: ConnId, pending: u64) {
        let now_pending = self.pending_bytes(id);
        if now_pending < pending {
            let due = after(self.now, self.limits.farewell_timeout);
            let pending = now_pending;
            self.deadlines
                .push((due, Deadline::Farewell { id, pending }));
        } else {
            self.mark(id, CloseReason::FarewellTimeout { pending });
        }
    }

    /// Closes a connection that is late, unless it has sent something that waits for its turn.
    fn put_off_or(&mut self, id: ConnId, deadline: Deadline, reason: CloseReason) {
        let Some(connection) = get_mut(&mut self.connections, id) else {
            return;
        };
        if connection.ready.any(Ready::READABLE) {
            self.look_again(id, PUT_OFF, deadline);
        } else {
            mark(connection, id.key(), reason, &mut self.departures);
        }
    }

    /// Looks at a connection again after so long; if it rests, not before it has rested.
    fn look_again(&mut self, id: ConnId, wait: Duration, deadline: Deadline) {
        let due = after(self.now, wait);
        let rests_until = self.spending.rests_until(id).unwrap_or(due);
        self.deadlines.push((due.max(rests_until), deadline));
    }

    /// Whether this member is in the middle of the message after so many.
    fn is_inside_message(&self, id: ConnId, said: u32) -> bool {
        self.get(id).is_some_and(|connection| {
            connection.is_member()
                && connection.leaving().is_none()
                && connection.said() == said
                && connection.decoder.is_inside_frame()
        })
    }

    /// For how long we have kept a member waiting, in all.
    pub(super) fn held_up(&self, id: ConnId) -> Duration {
        let for_itself = self.waiting.alone(id, self.now);
        self.waiting.total(self.now) + for_itself + self.spending.rested_in_all(id, self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_later_than_any_time_that_has_a_name_is_due_in_a_century() {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        let now = Instant::now();
        assert_eq!(after(now, HOUR), now + HOUR);
        assert_eq!(after(now, Duration::MAX) - now, 876_000 * HOUR);
    }
}
