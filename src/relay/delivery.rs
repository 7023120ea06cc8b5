//! The end of a turn, as one member sees it: one write, and what the socket did not take.

use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::iter;
use std::ops::Range;
use std::time::Instant;

use super::ConnId;
use super::backlog::Backlog;
use super::channel::Channel;
use super::connection::{Behind, Connection, Outcome};
use super::lines::{Line, Lines};
use super::pace::{Pace, PaceLimits};
use super::send_queue::{Aside, MAX_SLICES, SendQueue};

/// What was said in one channel in a turn, on its way to the members.
pub(super) struct Delivery<'a> {
    said: &'a [u8],
    /// How many members hear it.
    members: usize,
    backlog: &'a mut Backlog,
    lines: &'a Lines,
    /// See [`Channel`].
    pub(super) silent_half_closed: &'a mut BTreeSet<ConnId>,
    /// Where the turn begins in the channel's stream.
    start: u64,
    limits: &'a PaceLimits,
    now: Instant,
    pub(super) bytes_out: u64,
}

/// The part that a connection had in a turn: what of it is its own, and what it is told besides.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Which of the bytes said are not for it.
    pub(super) span: Range<usize>,
    /// What it is told in their place.
    pub(super) line: Line,
    /// Where in the stream the history that it is told before all that begins, if there is any.
    pub(super) history: Option<u64>,
}

impl Part {
    /// No part.
    pub(super) const NONE: Self = Self {
        span: 0..0,
        line: Line::Nothing,
        history: None,
    };
}

/// What a delivery that did not fail has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// All that can be done now is done.
    ForNow,
    /// There is more for this member, and its socket has not said that it is full.
    InPart,
}

/// What stood in the way of a delivery.
pub(super) enum Trouble {
    /// The member is this many bytes behind the room, what it has to remember included: so far that
    /// something has to be decided about it.
    FarBehind { behind: u64 },
    /// It cannot be written to.
    Broken(ErrorKind),
}

impl<'a> Delivery<'a> {
    pub(super) fn new(channel: &'a mut Channel, now: Instant) -> Self {
        let must_store = channel.must_store();
        let mut delivery = Self {
            said: &channel.said,
            members: channel.members,
            start: channel.backlog.end(),
            backlog: &mut channel.backlog,
            lines: &channel.lines,
            silent_half_closed: &mut channel.silent_half_closed,
            limits: &channel.pace_limits,
            now,
            bytes_out: 0,
        };
        if must_store {
            delivery.store();
        }
        delivery
    }

    /// How much was said, in bytes.
    pub(super) const fn len(&self) -> usize {
        self.said.len()
    }

    /// Whether there is something to deliver, and anybody to deliver it to.
    pub(super) const fn is_due(&self) -> bool {
        !self.said.is_empty() && self.members > 0
    }

    /// Ends what is queued for a member with what was said in this turn. Says whether there is any.
    pub(super) fn end_queue<S>(&self, connection: &mut Connection<S>) -> bool {
        match &mut connection.behind {
            None => false,
            Some(behind) => {
                behind.queue.end_here(self.backlog);
                true
            }
        }
    }

    /// Copies the turn into the backlog, once, because somebody is behind.
    fn store(&mut self) {
        if self.backlog.end() == self.start {
            self.backlog.append(self.said);
        }
    }

    /// Delivers all that was said, to a member that can be written to.
    #[inline]
    pub(super) fn deliver<S: Read + Write>(
        &mut self,
        connection: &mut Connection<S>,
    ) -> Result<(), Trouble> {
        if let Some(behind) = &mut connection.behind {
            return self.queue(behind, &Part::NONE);
        }
        let outcome = connection.write(self.said, &[]);
        let sent = self.sent(outcome)?;
        if sent < self.said.len() {
            return self.fall_behind(connection, &Part::NONE, sent);
        }
        Ok(())
    }

    /// The same for a member that had a part in it, and is not sent that.
    pub(super) fn deliver_rest<S: Read + Write>(
        &mut self,
        connection: &mut Connection<S>,
        part: &Part,
    ) -> Result<Delivered, Trouble> {
        if let Some(behind) = &mut connection.behind {
            self.queue(behind, part)?;
            return Ok(Delivered::ForNow);
        }
        if part.history.is_some() {
            // It begins as a member that is behind.
            self.fall_behind(connection, part, 0)?;
            return Ok(Delivered::InPart);
        }
        let (before, after) = (&self.said[..part.span.start], &self.said[part.span.end..]);
        let told = self.lines.len(part.line) as usize;
        let total = before.len() + told + after.len();
        let (outcome, offered) = if total == 0 {
            return Ok(Delivered::ForNow);
        } else if told > 0 {
            self.write_around(connection, before, part.line, after)
        } else {
            (connection.write(before, after), total)
        };
        let sent = self.sent(outcome)?;
        if sent < total {
            self.fall_behind(connection, part, sent)?;
        }
        Ok(if sent == offered && offered < total {
            Delivered::InPart
        } else {
            Delivered::ForNow
        })
    }

    /// Answers a connection that is about to be closed for what it said before, as far as its socket
    /// takes it.
    pub(super) fn answer<S: Read + Write>(&mut self, connection: &mut Connection<S>, line: Line) {
        if connection.behind.is_none() && self.lines.len(line) > 0 {
            let (outcome, _) = self.write_around(connection, &[], line, &[]);
            if let Outcome::Done(sent) = outcome {
                self.bytes_out += sent as u64;
            }
        }
    }

    /// How many bytes a write to a member that had kept up has moved.
    #[inline]
    fn sent(&mut self, outcome: Outcome) -> Result<usize, Trouble> {
        let sent = match outcome {
            Outcome::Done(sent) => sent,
            Outcome::Blocked => 0,
            Outcome::Failed(kind) => return Err(Trouble::Broken(kind)),
        };
        self.bytes_out += sent as u64;
        Ok(sent)
    }

    /// Queues what is left of the turn after `sent` bytes.
    #[cold]
    #[inline(never)]
    fn fall_behind<S>(
        &mut self,
        connection: &mut Connection<S>,
        part: &Part,
        sent: usize,
    ) -> Result<(), Trouble> {
        self.store();
        let aside = self.aside(part);
        let start = part.history.unwrap_or(self.start);
        let queue = SendQueue::new(start, aside, sent, self.backlog, self.lines);
        let pace = if part.history.is_some() {
            Pace::behind_from_the_start(queue.cost(self.backlog), self.limits, self.now)
        } else {
            Pace::new(self.limits, self.now)
        };
        let behind = connection.behind.insert(Box::new(Behind { queue, pace }));
        self.backlog.remember(behind.held_bytes());
        if self.limits.is_off() {
            // However much was said in this turn, it is not too far behind yet: it has had no time to
            // take it.
            return Ok(());
        }
        self.limit(behind)
    }

    /// Writes a line between two slices, or as much of that as there are slices for. Says how many bytes
    /// it has offered.
    fn write_around<S: Read + Write>(
        &self,
        connection: &mut Connection<S>,
        before: &[u8],
        line: Line,
        after: &[u8],
    ) -> (Outcome, usize) {
        let lines = self.lines;
        let mut told = 0;
        let line = iter::from_fn(|| {
            let bytes = lines.bytes_at(line, told);
            told += bytes.len() as u64;
            (!bytes.is_empty()).then_some(bytes)
        });
        let parts = iter::once(before).chain(line).chain(iter::once(after));
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let (mut count, mut offered) = (0, 0);
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            count += 1;
            offered += part.len();
        }
        (connection.write_slices(&slices[..count]), offered)
    }

    /// Leaves what was said to a queue that is already there: it must not overtake what is in it.
    ///
    /// Not inlined, since the walk over the many who keep up is faster without this code in it.
    #[inline(never)]
    fn queue(&mut self, behind: &mut Behind, part: &Part) -> Result<(), Trouble> {
        if let Some(aside) = self.aside(part) {
            let held_before = behind.held_bytes();
            behind.queue.put(aside, self.lines);
            self.backlog.remember(behind.held_bytes() - held_before);
        }
        self.limit(behind)
    }

    /// Checks that a member does not hold on to too much.
    pub(super) fn check<S>(&self, connection: &Connection<S>) -> Result<(), Trouble> {
        match &connection.behind {
            None => Ok(()),
            Some(behind) => self.limit(behind),
        }
    }

    fn limit(&self, member: &Behind) -> Result<(), Trouble> {
        let behind = member.queue.cost(self.backlog);
        if behind > member.pace.limit() {
            return Err(Trouble::FarBehind { behind });
        }
        Ok(())
    }

    /// A connection's part, as a place in the channel's stream, if it had one.
    fn aside(&self, part: &Part) -> Option<Aside> {
        let span = self.start + part.span.start as u64..self.start + part.span.end as u64;
        let aside = Aside {
            span,
            line: part.line,
        };
        let is_one = !part.span.is_empty() || part.line != Line::Nothing;
        is_one.then_some(aside)
    }
}
