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
    pub(super) fn deliver<S: Read + Write>(
        &mut self,
        connection: &mut Connection<S>,
        withheld: Range<usize>,
    ) -> Result<(), Trouble> {
        if !connection.hears() {
            return Ok(());
        }
        match &mut connection.queue {
            None => self.write(connection, withheld),
            Some(queue) => self.queue(queue, withheld),
        }
    }

    /// Writes to a member that has kept up; from now on it has a queue if that is not enough.
    ///
    /// However much was said in this turn, it is not too far behind yet: it has had no time to take
    /// it.
    fn write<S: Read + Write>(
        &mut self,
        connection: &mut Connection<S>,
        withheld: Range<usize>,
    ) -> Result<(), Trouble> {
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
        if sent < before.len() + after.len() {
            self.store();
            let own = self.span(withheld);
            let queue = SendQueue::new(self.start, own, sent, self.backlog);
            connection.queue = Some(Box::new(queue));
        }
        Ok(())
    }

    /// Leaves what was said to a queue that is already there: it must not overtake what is in it.
    fn queue(&self, queue: &mut SendQueue, withheld: Range<usize>) -> Result<(), Trouble> {
        if let Some(own) = self.span(withheld) {
            queue.skip(own);
        }
        let behind = queue.behind(self.backlog);
        if behind > self.queue_limit {
            return Err(Trouble::TooSlow { behind });
        }
        Ok(())
    }

    /// A part of what was said, as positions in the room's stream.
    fn span(&self, part: Range<usize>) -> Option<Range<u64>> {
        (!part.is_empty()).then(|| self.start + part.start as u64..self.start + part.end as u64)
    }
}
