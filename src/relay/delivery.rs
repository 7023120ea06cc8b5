//! The end of a turn, as one member sees it: one write, and what the socket did not take.

use std::io::{ErrorKind, Read, Write};
use std::ops::Range;

use super::backlog::Backlog;
use super::connection::{Connection, Outcome};
use super::send_queue::SendQueue;

/// The turn's one walk over the members.
pub(super) struct Delivery<'a> {
    said: &'a [u8],
    backlog: &'a mut Backlog,
    /// Where the turn begins in the room's stream.
    start: u64,
    queue_limit: u64,
    pub(super) bytes_out: u64,
}

/// Why a member did not get its delivery and has to go.
pub(super) enum Trouble {
    /// It is this many bytes behind the room, more than it may be.
    TooSlow { behind: u64 },
    /// It cannot be written to.
    Broken(ErrorKind),
}

impl<'a> Delivery<'a> {
    pub(super) fn new(said: &'a [u8], backlog: &'a mut Backlog, queue_limit: usize) -> Self {
        let mut delivery = Self {
            said,
            start: backlog.end(),
            backlog,
            queue_limit: queue_limit as u64,
            bytes_out: 0,
        };
        if delivery.backlog.readers() > 0 {
            delivery.store();
        }
        delivery
    }

    /// Copies the turn into the backlog, once, because somebody is behind.
    fn store(&mut self) {
        if self.backlog.end() == self.start {
            self.backlog.append(self.said);
        }
    }

    /// Delivers all that was said but the part `withheld`, if the connection is one that hears.
    ///
    /// A member that is behind gets nothing now: its turn comes when its socket has room, and what
    /// was said meanwhile must not overtake what it has not got yet.
    pub(super) fn deliver<S: Read + Write>(
        &mut self,
        connection: &mut Connection<S>,
        withheld: Range<usize>,
    ) -> Result<(), Trouble> {
        if !connection.hears() {
            return Ok(());
        }
        if connection.queue.is_none() {
            let (before, after) = (&self.said[..withheld.start], &self.said[withheld.end..]);
            if before.is_empty() && after.is_empty() {
                return Ok(());
            }
            let sent = match connection.write(before, after) {
                Outcome::Done(sent) => sent,
                Outcome::Blocked => 0,
                Outcome::Failed(kind) => return Err(Trouble::Broken(kind)),
            };
            self.bytes_out += sent as u64;
            if sent == before.len() + after.len() {
                return Ok(());
            }
            self.store();
            let span = self.span(withheld);
            let queue = SendQueue::new(self.start, span, sent, self.backlog);
            connection.queue = Some(Box::new(queue));
            return Ok(());
        }
        let span = self.span(withheld);
        let Some(queue) = &mut connection.queue else {
            return Ok(());
        };
        if let Some(span) = span {
            queue.skip(span);
        }
        // Only who was behind before this turn can be too far behind: however much was said in it,
        // who had kept up until now has had no time to take it.
        match queue.behind(self.backlog) {
            behind if behind > self.queue_limit => Err(Trouble::TooSlow { behind }),
            _ => Ok(()),
        }
    }

    /// A part of what was said, as positions in the room's stream.
    fn span(&self, part: Range<usize>) -> Option<Range<u64>> {
        (!part.is_empty()).then(|| self.start + part.start as u64..self.start + part.end as u64)
    }
}
