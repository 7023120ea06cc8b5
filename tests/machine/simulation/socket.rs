//! One connection, as Linux's TCP treats the end of it that a server has.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::mem;
use std::time::Duration;

use chatloop::relay::Ready;
use chatloop::server::Source;

/// A connection: what is on the way to the server, what has arrived, and what the server has written.
///
/// What the server writes was compared with what it should be when it was written, so of that only
/// the length is kept.
#[derive(Debug, Default)]
pub struct Socket {
    /// Sent by the peer, and not arrived.
    wire: VecDeque<u8>,
    /// After that the peer's end comes.
    fin_is_sent: bool,
    /// Where in all that is sent, urgent bytes stand that have not arrived.
    urgent_sent: VecDeque<u64>,
    /// Arrived, and not read.
    inbox: VecDeque<u8>,
    /// How much can have arrived without having been read.
    window: usize,
    /// How much was sent, and how much was read.
    sent: u64,
    read: u64,
    /// Where the last urgent byte that has arrived stands: a read that comes to it stops.
    urgent: Option<u64>,
    fin_has_arrived: bool,
    /// How much fits the buffer between the server and the peer, and how much is in it.
    buffer: usize,
    queued: usize,
    /// How much the peer has taken of what the server has written.
    taken: u64,
    /// A write was short or came to nothing, or a poll has seen no room: room is worth an edge. It is
    /// what Linux calls `SOCK_NOSPACE`.
    is_short_of_room: bool,
    /// What the next call will say.
    error: Option<i32>,
    /// The connection is over in both directions.
    is_dead: bool,
    pub is_peer_reading: bool,
    /// When it does again, if it pauses.
    pub reads_again_at: Option<Duration>,
    /// Since when there has been something to take, or to be told of, all the time.
    pub given_at: Duration,
    /// For how long the server has slept with something unread, because the room waits.
    pub held_up: Duration,
    /// The peer has closed its socket: what reaches it is answered with a reset.
    pub has_peer_closed: bool,
    /// That reset is on its way.
    pub is_reset_due: bool,
    /// The server has it.
    pub is_open: bool,
    /// As whose its events are told.
    pub watched: Option<Source>,
    /// It is on the list of what has had an edge.
    pub is_listed: bool,
    /// A read has said that this is the end, or has failed.
    pub is_end_known: bool,
    /// The last read left nothing behind.
    pub is_read_dry: bool,
}

impl Socket {
    /// A new connection, with so much room in each direction.
    pub fn new(window: usize, buffer: usize) -> Self {
        Self {
            window,
            buffer,
            is_peer_reading: true,
            is_read_dry: true,
            ..Self::default()
        }
    }

    /// The peer sends this.
    pub fn send(&mut self, bytes: &[u8]) {
        self.wire.extend(bytes);
        self.sent += bytes.len() as u64;
    }

    /// The peer sends an urgent byte, which is none of the stream's.
    pub fn send_urgent(&mut self) {
        self.urgent_sent.push_back(self.sent);
    }

    /// The peer sends nothing after this.
    pub fn send_fin(&mut self) {
        self.fin_is_sent = true;
    }

    /// How much of what was sent is still on its way.
    pub fn on_the_way(&self) -> usize {
        self.wire.len()
    }

    /// Whether something can arrive.
    pub fn can_arrive(&self) -> bool {
        let has_room = self.inbox.len() < self.window;
        let is_fin_next = self.wire.is_empty() && self.fin_is_sent && !self.fin_has_arrived;
        !self.is_dead && ((has_room && !self.wire.is_empty()) || is_fin_next)
    }

    /// Up to so many bytes arrive, and if they are the last, perhaps the end with them. Says how many
    /// they were, and whether the end was among them.
    pub fn arrive(&mut self, most: usize, with_fin: bool) -> (usize, bool) {
        let room = self.window - self.inbox.len().min(self.window);
        let count = most.min(room).min(self.wire.len());
        self.inbox.extend(self.wire.drain(..count));
        let arrived = self.sent - self.wire.len() as u64;
        while self.urgent_sent.front().is_some_and(|&at| at <= arrived) {
            self.urgent = self.urgent_sent.pop_front();
        }
        let is_last = self.wire.is_empty() && self.fin_is_sent && !self.fin_has_arrived;
        let ends = is_last && (with_fin || count == 0);
        self.fin_has_arrived |= ends;
        (count, ends)
    }

    /// Whether the peer can take something, or has made room that nobody was told of.
    pub fn can_drain(&self) -> bool {
        !self.is_dead
            && ((self.is_peer_reading && self.queued > 0)
                || (self.is_short_of_room && self.has_room()))
    }

    /// The peer takes up to so many bytes, if it reads at all. Says how many, and whether the server
    /// is owed an edge for the room.
    pub fn drain(&mut self, most: usize) -> (usize, bool) {
        let taken = if self.is_peer_reading {
            most.min(self.queued)
        } else {
            0
        };
        self.queued -= taken;
        self.taken += taken as u64;
        let is_edge = self.is_short_of_room && self.has_room();
        self.is_short_of_room &= !is_edge;
        (taken, is_edge)
    }

    /// The buffer has room for everything. Says whether the server is owed an edge for that.
    pub fn clear_notsent_lowat(&mut self) -> bool {
        self.buffer = usize::MAX / 4;
        mem::take(&mut self.is_short_of_room)
    }

    /// How much the peer has taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// How much the peer has still to take.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// The connection is over: calls will say so, once with this error.
    pub fn die(&mut self, errno: i32, keeps_input: bool) {
        self.is_dead = true;
        self.error = Some(errno);
        self.wire.clear();
        self.queued = 0;
        self.urgent_sent.clear();
        if !keeps_input {
            self.inbox.clear();
            self.urgent = None;
        }
    }

    /// What it died of was told.
    pub fn tell_error(&mut self) {
        self.error = None;
    }

    /// A call has found no room, whatever there is.
    pub fn find_full(&mut self) {
        self.is_short_of_room = true;
    }

    pub fn is_dead(&self) -> bool {
        self.is_dead
    }

    pub fn has_fin_arrived(&self) -> bool {
        self.fin_has_arrived
    }

    /// How much has arrived and was not read.
    pub fn unread(&self) -> usize {
        self.inbox.len()
    }

    pub fn has_input(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Whether a read would say something that no read has said yet.
    pub fn has_news(&self) -> bool {
        self.has_input() || (!self.is_end_known && (self.fin_has_arrived || self.is_dead))
    }

    /// Whether the server was told that there is no room, and will be told when there is.
    pub fn will_tell_of_room(&self) -> bool {
        self.is_short_of_room || self.is_dead
    }

    /// As Linux sees it: a third of the buffer is free.
    fn has_room(&self) -> bool {
        3 * self.queued <= 2 * self.buffer
    }

    /// What an event would say now; nothing if there is nothing to say.
    ///
    /// These are Linux's `tcp_poll` and, of what comes out of that, mio's reading and then the
    /// server's. To look is not without effect: who finds no room here is owed an edge for it.
    pub fn poll(&mut self) -> Ready {
        let mut ready = Ready::default();
        if self.has_input() || self.error.is_some() {
            ready.insert(Ready::READABLE);
        }
        if self.fin_has_arrived {
            ready.insert(Ready::READABLE | Ready::READ_CLOSED);
        }
        if self.urgent.is_some() {
            ready.insert(Ready::READABLE | Ready::URGENT);
        }
        if self.is_dead {
            ready.insert(Ready::READABLE | Ready::READ_CLOSED | Ready::HUNG_UP);
        }
        if self.is_dead || self.has_room() {
            ready.insert(Ready::WRITABLE);
        } else {
            self.is_short_of_room = true;
        }
        ready
    }

    /// What read(2) says.
    ///
    /// # Errors
    ///
    /// "Would block", or what the connection died of.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut most = buf.len().min(self.inbox.len());
        if let Some(at) = self.urgent {
            if at <= self.read {
                // The read before this one has stopped here.
                self.urgent = None;
            } else {
                most = most.min((at - self.read) as usize);
            }
        }
        self.is_read_dry = most == self.inbox.len();
        if most > 0 {
            self.inbox.read_exact(&mut buf[..most])?;
            self.read += most as u64;
            return Ok(most);
        }
        self.is_end_known |= self.fin_has_arrived || self.is_dead;
        if self.fin_has_arrived {
            return Ok(0);
        }
        match self.error.take() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None if self.is_dead => Ok(0),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// What writev(2) says, when the buffer takes no more than `most` of it.
    ///
    /// # Errors
    ///
    /// "Would block", or what the connection died of.
    pub fn write(&mut self, slices: &[IoSlice<'_>], most: usize) -> io::Result<usize> {
        if self.is_dead {
            let errno = self.error.take().unwrap_or(libc::EPIPE);
            return Err(io::Error::from_raw_os_error(errno));
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let room = self.buffer.saturating_sub(self.queued);
        let taken = offered.min(room).min(most);
        self.is_short_of_room |= taken < offered;
        if taken == 0 && offered > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.queued += taken;
        self.is_reset_due |= self.has_peer_closed;
        Ok(taken)
    }
}
