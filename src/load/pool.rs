//! The pool of the connections to one server, and the loop around them.
//!
//! The loop is the relay's in small: every socket is registered once, for both directions and
//! edge-triggered. It is read until a read comes back short, and one buffer is enough for all of
//! them. What the clients do over their connections is their [`Behaviour`]: one for the members of
//! the [scenarios](super::members), and one for those of a [soak](super::soak).

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::mem;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll};
use socket2::SockRef;

use super::connect::{CONNECT_TIMEOUT, Cause, Causes, Site};
use super::delays::Delays;
use super::judge::Tally;
use super::link::Link;
use super::plan::Wait;
use super::process::accept_queue;
use super::protocol::Garbled;

/// How many events one poll fetches.
const MAX_EVENTS: usize = 1024;

/// The maximum size of one read: more than a socket usually has.
const READ_SIZE: usize = 256 * 1024;

/// An incomplete message of more than this is large.
const LARGE_PIECE: usize = 64 * 1024;

/// The maximum number of reads of one socket before others have their turn.
const MAX_READS: usize = 8;

/// How many bytes of the input were used.
pub(super) type Used = Result<usize, Garbled>;

/// What the clients of a pool do.
pub(super) trait Behaviour {
    /// The receive buffer of this client in bytes, if that is not left to the system.
    fn receive_buffer(&self, _index: usize) -> Option<usize> {
        None
    }

    /// A client's connection is made. The client is not connected before it is
    /// [welcome](ClientPool::welcome).
    fn open(&mut self, pool: &mut ClientPool, index: usize);

    /// Bytes have arrived. Those that are not used are kept, and come again before those that
    /// follow.
    ///
    /// # Errors
    ///
    /// If they are not in the protocol.
    fn receive(&mut self, pool: &mut ClientPool, index: usize, input: &[u8]) -> Used;

    /// A connection was not made, or has ended. `state` is what it was.
    fn end(&mut self, pool: &mut ClientPool, index: usize, state: State, cause: Cause);

    /// Output was accepted, or it is the time for which the client was scheduled.
    fn advance(&mut self, _pool: &mut ClientPool, _index: usize) {}

    /// All that had arrived is read.
    fn settle(&mut self, _now: Duration) {}

    /// What became of the messages so far.
    fn tally(&self) -> &Tally;

    /// The number of messages that were sent.
    fn messages(&self) -> u64;

    /// The number of members, which is shown as progress.
    fn members(&self, pool: &ClientPool) -> usize;

    /// The delays so far, if they are measured.
    fn delays(&self) -> Option<&Delays> {
        None
    }
}

/// The state of a client's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    #[default]
    Absent,
    /// It is being made.
    Connecting,
    /// It is made, and the server has not answered yet that it has taken the client in.
    Open,
    /// It is there.
    Connected,
}

#[derive(Debug, Default)]
struct Connection {
    state: State,
    link: Link,
    /// Whether input is left unread.
    is_held: bool,
    /// When it was begun, and from when on it is connected.
    since: Duration,
    /// When the client connects, gives up connecting, or advances.
    due: Option<Duration>,
    /// The beginning of something that was not all there.
    kept: Vec<u8>,
}

/// A `ClientPool` holds the connections to one server.
#[derive(Debug)]
pub(super) struct ClientPool {
    site: Site,
    poll: Poll,
    events: Events,
    start: Instant,
    connections: Vec<Connection>,
    /// The number of connections that are being made, and of those that are.
    pub(super) connecting: usize,
    pub(super) connected: usize,
    /// The clients with something to do at a time.
    agenda: BTreeSet<(Duration, usize)>,
    scratch: Vec<u8>,
    /// Clients that have more to read than one turn reads, and whether the end of input was
    /// signalled.
    again: Vec<(usize, bool)>,
    wait: Wait,
    /// How long this loop has waited, of the time that it ran.
    pub(super) waited: Duration,
    /// When it was last polled, and whether there was no event.
    polled: Duration,
    was_empty: bool,
    /// Connections that were not made.
    pub(super) refusals: Causes,
    /// Connections that ended unexpectedly.
    pub(super) cuts: Causes,
}

impl ClientPool {
    pub(super) fn new(site: Site, clients: usize, wait: Wait) -> io::Result<Self> {
        Ok(Self {
            site,
            poll: Poll::new()?,
            events: Events::with_capacity(MAX_EVENTS),
            start: Instant::now(),
            connections: (0..clients).map(|_| Connection::default()).collect(),
            connecting: 0,
            connected: 0,
            agenda: BTreeSet::new(),
            scratch: vec![0; LARGE_PIECE + READ_SIZE],
            again: Vec::new(),
            wait,
            waited: Duration::ZERO,
            polled: Duration::ZERO,
            was_empty: false,
            refusals: Causes::new(),
            cuts: Causes::new(),
        })
    }

    /// The time since this pool was made, which all its times are.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The number of clients.
    pub(super) const fn len(&self) -> usize {
        self.connections.len()
    }

    /// The number of connections in the server's listen backlog, if that can be seen.
    pub(super) fn queued(&self) -> Option<u64> {
        accept_queue(self.site.addr)
    }

    pub(super) fn is_connected(&self, index: usize) -> bool {
        self.connections[index].state == State::Connected
    }

    /// When a connection was begun, and from when on it is connected.
    pub(super) fn since(&self, index: usize) -> Duration {
        self.connections[index].since
    }

    /// Begins to connect a client that has no connection.
    pub(super) fn connect(&mut self, clients: &mut impl Behaviour, index: usize) {
        let now = self.now();
        self.enter(index, State::Connecting);
        self.connections[index].since = now;
        let receive_buffer = clients.receive_buffer(index);
        match self.site.open(index, receive_buffer, self.poll.registry()) {
            Ok(stream) => {
                self.connections[index].link.stream = Some(stream);
                self.schedule(index, now + CONNECT_TIMEOUT);
                self.open(clients, index);
            }
            Err(cause) => self.end(clients, index, cause),
        }
    }

    /// Has a client begin as soon as its connection is made, with TLS, and its WebSocket opened.
    fn open(&mut self, clients: &mut impl Behaviour, index: usize) {
        let link = &mut self.connections[index].link;
        if link.is_opening() {
            return;
        }
        match link.is_made() {
            Ok(false) => {}
            Ok(true) => {
                let protocol = self.site.protocol;
                if let Some(target) = protocol.web_socket(self.site.addr.to_string()) {
                    link.open_web_socket(&target, protocol.is_tunnel());
                } else {
                    self.enter(index, State::Open);
                    clients.open(self, index);
                }
            }
            Err(cause) => self.end(clients, index, cause),
        }
    }

    /// The server has taken a client in, so that its connection counts. Returns whether it did
    /// not before.
    pub(super) fn welcome(&mut self, index: usize) -> bool {
        let is_new = self.connections[index].state == State::Open;
        if is_new {
            self.cancel(index);
            self.enter(index, State::Connected);
            self.connections[index].since = self.now();
        }
        is_new
    }

    /// A connection was not made, or has ended.
    fn end(&mut self, clients: &mut impl Behaviour, index: usize, cause: Cause) {
        let state = self.close(index);
        if matches!(state, State::Connecting | State::Open) {
            *self.refusals.entry(cause).or_default() += 1;
        }
        if state != State::Absent {
            clients.end(self, index, state, cause);
        }
    }

    /// Ends a connection from this side: by a reset, if nothing else was set. A port that was
    /// closed in order is not free again for a minute, and there are not enough of them for that.
    /// Returns what it was.
    pub(super) fn close(&mut self, index: usize) -> State {
        self.cancel(index);
        let state = self.enter(index, State::Absent);
        self.connections[index] = Connection {
            since: self.since(index),
            ..Connection::default()
        };
        state
    }

    /// Ends all connections from this side.
    pub(super) fn close_all(&mut self) {
        for index in 0..self.connections.len() {
            self.close(index);
        }
        self.again.clear();
    }

    /// Changes the state of a connection. Returns what it was.
    fn enter(&mut self, index: usize, state: State) -> State {
        let before = mem::replace(&mut self.connections[index].state, state);
        let count = |of: State| match of {
            State::Absent => [0, 0],
            State::Connecting | State::Open => [1, 0],
            State::Connected => [0, 1],
        };
        let (old, new) = (count(before), count(state));
        self.connecting = self.connecting + new[0] - old[0];
        self.connected = self.connected + new[1] - old[1];
        before
    }

    /// Has a client advance at this time, or connect if it has no connection.
    pub(super) fn schedule(&mut self, index: usize, at: Duration) {
        self.cancel(index);
        self.connections[index].due = Some(at);
        self.agenda.insert((at, index));
    }

    /// Cancels what is scheduled for a client.
    pub(super) fn cancel(&mut self, index: usize) {
        if let Some(due) = self.connections[index].due.take() {
            self.agenda.remove(&(due, index));
        }
    }

    /// Counts so many connections as timed out that were not tried.
    pub(super) fn give_up(&mut self, count: usize) {
        if count > 0 {
            *self.refusals.entry(Cause::TimedOut).or_default() += count as u64;
        }
    }

    /// The output of a client that its socket has not accepted. [`send`](Self::send) sends what is
    /// appended to it.
    pub(super) fn output(&mut self, index: usize) -> &mut Vec<u8> {
        self.connections[index].link.output()
    }

    /// Sends a client's output, as far as its socket accepts it; the rest goes when it accepts
    /// more.
    pub(super) fn send(&mut self, index: usize) {
        self.connections[index].link.send();
    }

    /// Closes the sending side of a connection.
    pub(super) fn half_close(&mut self, index: usize) {
        if let Some(stream) = &mut self.connections[index].link.stream {
            // An error shows when the socket is read.
            let _ = stream.end();
        }
    }

    /// Has a connection end by a FIN, and not by a reset.
    pub(super) fn end_in_order(&self, index: usize) {
        if let Some(stream) = &self.connections[index].link.stream {
            let _ = SockRef::from(stream.socket()).set_linger(None);
        }
    }

    /// Leaves a client's input unread, or goes on reading it.
    pub(super) fn hold(&mut self, index: usize, is_held: bool) {
        if mem::replace(&mut self.connections[index].is_held, is_held) && !is_held {
            // There was an event for the bytes that have arrived meanwhile, and will be no other.
            self.again.push((index, true));
        }
    }

    /// One turn of the loop: waits for events, at most until `until`, and acts on them. If this
    /// pool is to spin, it only waits in sleep where `sleep` is set.
    ///
    /// # Errors
    ///
    /// If the poll fails.
    pub(super) fn turn(
        &mut self,
        clients: &mut impl Behaviour,
        until: Duration,
        sleep: bool,
    ) -> io::Result<()> {
        let began = self.now();
        let until = self
            .agenda
            .first()
            .map_or(until, |&(due, _)| due.min(until));
        let left = until.saturating_sub(began);
        let timeout = if !self.again.is_empty() || !sleep && self.wait == Wait::Spin {
            Duration::ZERO
        } else if sleep {
            left
        } else {
            // A poll sleeps by whole milliseconds, and rather too long than too short. Where it is
            // not all the same, the last part is not slept.
            Duration::from_millis(left.as_millis() as u64)
        };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            polled => polled?,
        }
        let polled = self.now();
        // A poll that has no event was waiting, even without a timeout; and after another one
        // of that kind, so was the rest of this turn.
        if self.events.is_empty() && self.was_empty {
            self.waited += polled.saturating_sub(self.polled);
        } else if self.events.is_empty() || timeout != Duration::ZERO {
            self.waited += polled.saturating_sub(began);
        }
        self.was_empty = self.events.is_empty();
        self.polled = polled;
        for (index, ends) in mem::take(&mut self.again) {
            self.receive(clients, index, ends);
        }
        let events = mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            self.ready(clients, event);
        }
        self.events = events;
        if !self.agenda.is_empty() {
            self.act_on_agenda(clients);
        }
        if self.again.is_empty() {
            clients.settle(polled);
        }
        Ok(())
    }

    fn ready(&mut self, clients: &mut impl Behaviour, event: &Event) {
        let index = event.token().0;
        if self.connections[index].state == State::Connecting {
            self.open(clients, index);
            // What has arrived is the handshake's.
            if self.connections[index].link.is_shaking_hands() {
                return;
            }
        }
        if event.is_writable() && self.connections[index].link.has_output() {
            self.send(index);
            clients.advance(self, index);
        }
        let ends = event.is_read_closed() || event.is_error();
        let connection = &mut self.connections[index];
        // Nothing comes after the end of input, so there is no reason to leave it unread.
        connection.is_held &= !ends;
        if (event.is_readable() || ends) && !connection.is_held {
            self.receive(clients, index, ends);
        }
    }

    fn act_on_agenda(&mut self, clients: &mut impl Behaviour) {
        let now = self.now();
        while let Some(&(due, index)) = self.agenda.first()
            && due <= now
        {
            self.cancel(index);
            match self.connections[index].state {
                State::Absent => self.connect(clients, index),
                State::Connecting | State::Open => self.end(clients, index, Cause::TimedOut),
                State::Connected => clients.advance(self, index),
            }
        }
    }

    /// Reads until the socket is empty. A short read ends that, unless the event had signalled the
    /// end of input, which no other event will signal.
    fn receive(&mut self, clients: &mut impl Behaviour, index: usize, ends: bool) {
        for _ in 0..MAX_READS {
            match self.read(clients, index, READ_SIZE) {
                Some(READ_SIZE) => {}
                Some(_) if ends || self.connections[index].link.reads_in_parts() => {}
                Some(_) | None => return,
            }
        }
        self.again.push((index, ends));
    }

    /// Reads once, at most `most` bytes, and has the client receive them. Returns how many there
    /// were, if there may be more.
    pub(super) fn read(
        &mut self,
        clients: &mut impl Behaviour,
        index: usize,
        most: usize,
    ) -> Option<usize> {
        let read = if self.connections[index].link.is_bare() {
            self.read_bare(clients, index, most)
        } else {
            self.read_web_socket(clients, index, most)
        };
        let cause = match read {
            Ok(0) => Cause::Closed,
            Ok(read) => return Some(read),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Some(most),
            Err(error) => error.into(),
        };
        self.end(clients, index, cause);
        None
    }

    fn read_bare(
        &mut self,
        clients: &mut impl Behaviour,
        index: usize,
        most: usize,
    ) -> io::Result<usize> {
        let Connection { link, kept, .. } = &mut self.connections[index];
        // The kept bytes go before the new ones, so that they are one piece again. A large piece
        // stays where it is, and the new bytes go behind it: else it would be copied with every
        // read.
        let from = kept.len();
        let is_large = from > LARGE_PIECE;
        let mut buffer = mem::take(if is_large { kept } else { &mut self.scratch });
        if is_large {
            buffer.resize(from + most, 0);
        } else {
            buffer[..from].copy_from_slice(kept);
        }
        let read = link.read(&mut buffer[from..from + most]);
        let end = from + *read.as_ref().unwrap_or(&0);
        let used = if end > from {
            clients.receive(self, index, &buffer[..end])
        } else {
            Ok(0)
        };
        let kept = &mut self.connections[index].kept;
        let unused = *used.as_ref().unwrap_or(&0)..end;
        if is_large {
            buffer.truncate(end);
            buffer.drain(..unused.start);
            *kept = buffer;
        } else {
            kept.clear();
            kept.extend_from_slice(&buffer[unused]);
            self.scratch = buffer;
        }
        used.map_err(Cause::from)?;
        read
    }

    /// The same through a WebSocket. Once that is open, the client begins.
    fn read_web_socket(
        &mut self,
        clients: &mut impl Behaviour,
        index: usize,
        most: usize,
    ) -> io::Result<usize> {
        let Connection { link, kept, .. } = &mut self.connections[index];
        let was_opening = link.is_opening();
        let read = link.read_web_socket(&mut self.scratch[..most], kept)?;
        if was_opening && !link.is_opening() {
            self.enter(index, State::Open);
            clients.open(self, index);
        }
        let mut input = mem::take(&mut self.connections[index].kept);
        // A control frame has nothing for the client.
        if !input.is_empty() {
            let used = clients.receive(self, index, &input);
            input.drain(..used.map_err(Cause::from)?);
        }
        // An idle connection has no buffer.
        if !input.is_empty() {
            self.connections[index].kept = input;
        }
        Ok(read)
    }
}
