//! Fan-out, as one member sees it: one write of the turn, and what the socket did not accept.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::iter;
use std::ops::Range;
use std::time::Instant;

use super::channel::{Backlog, Channel, Cursor, MAX_SLICES, Reply, ReplyBytes, Splice};
use super::conn_id::ConnId;
use super::connection::{Connection, Outcome, PendingOutput};
use super::flow::{LagLimits, LagTracker};
use super::ready::Marks;
use super::table::Connections;
use crate::wire::Dialect;

/// How a member's delivery differs from that of the members that were silent in this turn.
#[derive(Clone, Debug)]
pub(super) struct Adjustment {
    /// The member's own span of the turn buffer, which is not for it. If its output ends there, the span
    /// has no end.
    pub(super) skip: Range<usize>,
    /// The reply that it receives in the place of that span.
    pub(super) reply: Reply,
    /// Where in the stream the history begins that a new member receives before everything else, if
    /// there is any.
    pub(super) history: Option<u64>,
}

impl Adjustment {
    /// No difference.
    pub(super) const NONE: Self = Self {
        skip: 0..0,
        reply: Reply::Nothing,
        history: None,
    };
}

/// A static, since a constant with a destructor would be made anew for each member.
static UNADJUSTED: Adjustment = Adjustment::NONE;

/// What a delivery came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The socket accepted everything.
    Complete,
    /// Output is pending. The next edge reports that the socket has room.
    Pending {
        /// Whether the member's lag exceeds the threshold of its tracker.
        is_over_threshold: bool,
        /// The socket accepted everything that it was offered, so that no edge will come: the member
        /// must be flushed in the next turn.
        has_room: bool,
    },
    /// The write failed.
    Failed(ErrorKind),
}

impl Delivery {
    /// Whether anything must be done about it.
    pub(super) const fn needs_handling(self) -> bool {
        !matches!(
            self,
            Self::Complete
                | Self::Pending {
                    is_over_threshold: false,
                    has_room: false
                }
        )
    }

    /// The same to a member that has left: its lag is nothing to decide about, since its output ends
    /// here.
    const fn regardless_of_lag(self) -> Self {
        match self {
            Self::Pending { has_room, .. } => Self::Pending {
                is_over_threshold: false,
                has_room,
            },
            other => other,
        }
    }
}

/// One channel's turn on its way to the members. It borrows the channel, and counts the writes.
pub(super) struct FanOut<'a> {
    turn: &'a [u8],
    backlog: &'a mut Backlog,
    replies: &'a ReplyBytes,
    /// The stream's position at which the turn begins.
    start: u64,
    limits: LagLimits,
    now: Instant,
    /// Whether there is something to deliver, and a member to deliver it to.
    pub(super) is_due: bool,
    /// How many members were silent in the turn and accepted all of it.
    complete: u64,
    /// The other writes, and their bytes.
    other: (u64, u64),
}

impl<'a> FanOut<'a> {
    pub(super) fn new(channel: &'a mut Channel, limits: LagLimits, now: Instant) -> Self {
        let must_store = channel.must_store();
        let is_due = channel.is_due();
        let start = channel.backlog.end();
        let mut fan_out = Self {
            turn: &channel.turn,
            backlog: &mut channel.backlog,
            replies: &channel.replies,
            start,
            limits,
            now,
            is_due,
            complete: 0,
            other: (0, 0),
        };
        if must_store {
            fan_out.store();
        }
        fan_out
    }

    /// Copies the turn into the backlog, once, because a member lags.
    fn store(&mut self) {
        if self.backlog.end() == self.start {
            self.backlog.append(self.turn);
        }
    }

    /// Delivers the turn to the members of this dialect that sent nothing in it. One that lags already gets no
    /// write: the turn is in the backlog behind its cursor. A short write starts a cursor.
    pub(super) fn deliver_to_silent<S: Read + Write>(
        &mut self,
        connections: &mut Connections<S>,
        dialect: Dialect,
        incomplete: &mut Vec<(ConnId, Delivery)>,
    ) {
        // As a rule every member goes this way and no other, so the loop has what it needs at hand.
        let (turn, mut complete) = (self.turn, 0);
        for connection in connections.iter_mut() {
            if connection.dialect() != dialect
                || !connection.life.is_open()
                || connection.readiness.marks.any(Marks::HAS_ADJUSTMENT)
            {
                continue;
            }
            let delivery = if connection.output.is_some() {
                self.defer(connection, &UNADJUSTED)
            } else {
                let outcome = connection.write(turn);
                if outcome == Outcome::Done(turn.len()) {
                    complete += 1;
                    continue;
                }
                self.fall_behind(connection, &UNADJUSTED, outcome, turn.len())
            };
            if delivery.needs_handling() {
                incomplete.push((connection.id(), delivery));
            }
        }
        self.complete += complete;
    }

    /// How many writes moved bytes, and how many bytes they moved.
    pub(super) const fn written(&self) -> (u64, u64) {
        let (writes, bytes) = self.other;
        let complete = self.complete * self.turn.len() as u64;
        (writes + self.complete, bytes + complete)
    }

    const fn count(&mut self, sent: usize) {
        self.other.0 += (sent > 0) as u64;
        self.other.1 += sent as u64;
    }

    /// Delivers the turn to a connection that took part in it: a member, one that has left, or one that is
    /// about to be closed.
    pub(super) fn deliver_to_participant<S: Read + Write>(
        &mut self,
        connection: &mut Connection<S>,
        adjustment: &Adjustment,
    ) -> Delivery {
        connection.readiness.marks.remove(Marks::HAS_ADJUSTMENT);
        if connection.life.is_closed() {
            self.reply_before_close(connection, &adjustment.reply);
            return Delivery::Complete;
        }
        if connection.life.is_pending() {
            return self.reply_before_name(connection, &adjustment.reply);
        }
        if !connection.life.is_writable() {
            return Delivery::Complete;
        }
        let delivery = self.deliver_adjusted(connection, adjustment);
        match connection.life.drain_cause() {
            Some(_) => delivery.regardless_of_lag(),
            None => delivery,
        }
    }

    /// Delivers the turn to a member that took part in it.
    fn deliver_adjusted<S: Read + Write>(
        &mut self,
        connection: &mut Connection<S>,
        adjustment: &Adjustment,
    ) -> Delivery {
        if connection.output.is_some() {
            return self.defer(connection, adjustment);
        }
        if adjustment.history.is_some() {
            // It starts as a lagging member.
            return self.fall_behind(connection, adjustment, Outcome::Done(0), 0);
        }
        let (before, after) = (
            &self.turn[..adjustment.skip.start],
            &self.turn[self.skip_end(adjustment)..],
        );
        let reply_len = self.replies.len(&adjustment.reply) as usize;
        let total = before.len() + reply_len + after.len();
        if total == 0 {
            return Delivery::Complete;
        }
        let (outcome, offered) = if reply_len > 0 {
            self.write_around(connection, before, &adjustment.reply, after)
        } else {
            (connection.write_both(before, after), total)
        };
        if outcome == Outcome::Done(total) {
            self.count(total);
            return Delivery::Complete;
        }
        self.fall_behind(connection, adjustment, outcome, offered)
    }

    /// Sends a connection that is no member the answers to its pings. It can have no pending output, so what its
    /// socket does not accept, because it reads nothing, ends the connection.
    fn reply_before_name<S: Read + Write>(
        &mut self,
        connection: &mut Connection<S>,
        reply: &Reply,
    ) -> Delivery {
        match self.write_around(connection, &[], reply, &[]) {
            (Outcome::Failed(kind), _) => Delivery::Failed(kind),
            (Outcome::Done(sent), offered) if sent == offered => {
                self.count(sent);
                Delivery::Complete
            }
            (Outcome::Done(_) | Outcome::Blocked, _) => Delivery::Failed(ErrorKind::WouldBlock),
        }
    }

    /// Sends a connection that is about to be closed the reply to what it sent before, as far as its
    /// socket accepts it.
    fn reply_before_close<S: Read + Write>(
        &mut self,
        connection: &mut Connection<S>,
        reply: &Reply,
    ) {
        let reply_len = self.replies.len(reply) as usize;
        let may_be_replied =
            connection.output.is_none() && !connection.readiness.marks.any(Marks::OUTPUT_LOST);
        if may_be_replied && reply_len > 0 {
            let (outcome, _) = self.write_around(connection, &[], reply, &[]);
            if let Outcome::Done(sent) = outcome {
                self.count(sent);
            }
            if outcome != Outcome::Done(reply_len) {
                connection.readiness.marks.insert(Marks::OUTPUT_LOST);
            }
        }
    }

    /// Whether the lag of a draining member exceeds its threshold: it receives nothing more, but what is
    /// published is kept in memory from its position on.
    pub(super) fn is_over_threshold<S>(&self, connection: &Connection<S>) -> bool {
        let output = connection.output.as_deref();
        output.is_some_and(|output| output.is_over_threshold(self.backlog))
    }

    /// Makes a member that kept up a lagging one: the socket did not accept everything of the `offered`
    /// bytes, or there is history.
    #[cold]
    #[inline(never)]
    fn fall_behind<S>(
        &mut self,
        connection: &mut Connection<S>,
        adjustment: &Adjustment,
        outcome: Outcome,
        offered: usize,
    ) -> Delivery {
        let sent = match outcome {
            Outcome::Done(sent) => sent,
            Outcome::Blocked => 0,
            Outcome::Failed(kind) => return Delivery::Failed(kind),
        };
        self.count(sent);
        self.store();
        let splice = self.splice(adjustment);
        let start = adjustment.history.unwrap_or(self.start);
        let cursor = Cursor::new(start, splice, sent, self.backlog, self.replies);
        let is_over_threshold = start_lagging(
            connection,
            cursor,
            adjustment.history.is_some(),
            self.backlog,
            self.limits,
            self.now,
        );
        Delivery::Pending {
            is_over_threshold,
            has_room: sent == offered,
        }
    }

    /// Leaves the turn to the pending output that is already there: it must not overtake that.
    ///
    /// Not inlined, since the walk over the many that keep up is faster without this code in it.
    #[inline(never)]
    pub(super) fn defer<S>(
        &mut self,
        connection: &mut Connection<S>,
        adjustment: &Adjustment,
    ) -> Delivery {
        let splice = self.splice(adjustment);
        let Some(output) = connection.output.as_deref_mut() else {
            return Delivery::Complete;
        };
        if let Some(splice) = splice {
            let held_before = output.held_bytes();
            output.cursor.push(splice, self.replies);
            self.backlog.charge(output.held_bytes() - held_before);
        }
        Delivery::Pending {
            is_over_threshold: output.is_over_threshold(self.backlog),
            has_room: false,
        }
    }

    /// Writes a reply between two slices, or as much of that as there are slices for. Returns how many
    /// bytes it offered.
    fn write_around<S: Read + Write>(
        &self,
        connection: &mut Connection<S>,
        before: &[u8],
        reply: &Reply,
        after: &[u8],
    ) -> (Outcome, usize) {
        let replies = self.replies;
        let mut inserted = 0;
        let reply = iter::from_fn(|| {
            let bytes = replies.bytes_at(reply, inserted);
            inserted += bytes.len() as u64;
            (!bytes.is_empty()).then_some(bytes)
        });
        let parts = iter::once(before).chain(reply).chain(iter::once(after));
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let (mut count, mut offered) = (0, 0);
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            count += 1;
            offered += part.len();
        }
        (connection.write_slices(&slices[..count]), offered)
    }

    /// An adjustment as a place in the channel's stream, if it differs at all.
    fn splice(&self, adjustment: &Adjustment) -> Option<Splice> {
        let differs = !adjustment.skip.is_empty() || !matches!(adjustment.reply, Reply::Nothing);
        differs.then(|| Splice {
            span: self.start + adjustment.skip.start as u64
                ..self.start + self.skip_end(adjustment) as u64,
            reply: adjustment.reply.clone(),
        })
    }

    /// Where the skipped span ends: at the end of the turn at the latest.
    fn skip_end(&self, adjustment: &Adjustment) -> usize {
        adjustment.skip.end.min(self.turn.len())
    }
}

/// Gives a new member its greeting and its history as pending output: it starts as a lagging member.
/// The turn buffer must be empty. Returns whether there is any output.
pub(super) fn greet<S>(
    connection: &mut Connection<S>,
    channel: &mut Channel,
    (greeting, history): (Reply, Option<u64>),
    limits: LagLimits,
    now: Instant,
) -> bool {
    debug_assert!(channel.turn.is_empty(), "members are greeted between turns");
    let (backlog, replies) = (&mut channel.backlog, &channel.replies);
    if replies.len(&greeting) == 0 && history.is_none() {
        return false;
    }
    let end = backlog.end();
    let splice = Splice {
        span: end..end,
        reply: greeting,
    };
    let cursor = Cursor::new(history.unwrap_or(end), [splice], 0, backlog, replies);
    start_lagging(connection, cursor, true, backlog, limits, now);
    true
}

/// Gives a connection pending output, and charges it. Returns whether the lag exceeds the threshold.
#[inline]
fn start_lagging<S>(
    connection: &mut Connection<S>,
    cursor: Cursor,
    is_catching_up: bool,
    backlog: &mut Backlog,
    limits: LagLimits,
    now: Instant,
) -> bool {
    debug_assert!(connection.output.is_none(), "a member has one cursor");
    let tracker = if is_catching_up {
        LagTracker::catching_up(cursor.lag(backlog), &limits, now)
    } else {
        LagTracker::new(&limits, now)
    };
    let output = PendingOutput { cursor, tracker };
    backlog.charge(output.held_bytes());
    let is_over_threshold = output.is_over_threshold(backlog);
    connection.output = Some(Box::new(output));
    // A member that is closed over its limit has had no time yet to accept what was published in
    // this very turn.
    is_over_threshold && limits.waits()
}
