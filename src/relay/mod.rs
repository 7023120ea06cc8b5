//! The room: who is here, what was said in this turn, and who has not got it all yet.
//!
//! [`Relay`] is the whole chat without a single system call of its own. It reads and writes the
//! streams that it is given, whatever they are: sockets in the server, scripts in a test, a million
//! sinks in a benchmark. It knows no event loop; whoever has one tells it what became ready and then
//! lets it do a turn:
//!
//! ```text
//! note(id, ready)     an event said so: nothing is done yet
//! serve_ready         write what was queued, read what there is, decode, collect what was said
//! fan_out             one write of all that was said to each member, less its own words
//! close_marked        remove whom the turn has marked
//! ```
//!
//! **Why one write a turn.** A member's copy of a message costs a system call, and the call costs far
//! more than the bytes in it. So nothing is written while messages are read; at the end of the turn
//! each member gets all of them at once. The busier the room, the more there is in a turn and the
//! less a delivery costs; in a quiet room a turn has one message and it leaves in the turn in which
//! it came. Nothing waits for a batch to fill.
//!
//! **Why nobody waits for anybody.** What a socket does not take stays in the [backlog](#the-backlog),
//! and its member is written to again when its socket has room. To speak is to append to a buffer:
//! nothing a receiver does, not reading, resetting, filling its limit, can fail in the sender's hands.
//!
//! **Why close late.** A connection that has to go is *marked* and removed after the turn's
//! deliveries. So the walk over the members never has one vanish under it, and its last words reach
//! the others before it is gone.
//!
//! # The backlog
//!
//! Every byte ever said has a position in a stream, counted from the relay's start. A member
//! that could not take all of a turn is a *reader* of that stream: a position, and the spans ahead of
//! it that it said itself and is not to be sent. A hundred members that stopped reading are a hundred
//! positions in one copy of what was said, and to say something more costs one append.
//!
//! ```text
//!            base                                                     end
//!             │        ┌─ reader          reader ─┐                    │
//!             ▼        ▼                          ▼                    ▼
//!   said and ░▓▓▓▓▓▓▓▓▓▓▓▓▓▓│▓▓▓▓▓▓▓▓▓▓▓▓▓▓│▓▓▓▓▓▓▓▓▓▓▓▓▓▓│▓▓▓▓▓▓▓▓▓▓▓▓
//!   gone          chunk           chunk          chunk        last chunk
//!               1 reader        0 readers       1 reader
//! ```
//!
//! When the last reader has passed a chunk, the chunk is freed. In a room that keeps up nothing is
//! ever stored here.
//!
//! # Channels
//!
//! Each [dialect](crate::wire::Dialect) writes the same message in its own way, so each has a
//! *channel*: a stream of its own, with its own backlog. To say something is to append it to each
//! channel that has members, so it is encoded once for each dialect and not for each member. What is
//! for one member alone goes into its stream without being in it: where a `chat10` member's own words
//! are left out, a `chat64` member is sent an acknowledgement in their place. So an acknowledgement
//! always stands between what was said before the message and what was said after it, and never
//! inside another, however little the socket takes.
//!
//! # History
//!
//! What newcomers are told of the past is the end of the backlog, which is then kept though everybody
//! has read it. A newcomer begins as a member that is behind. So the seam between what it is told and
//! what it hears is no seam: it is one stream, read from an earlier position.

mod backlog;
mod channel;
mod close_reason;
mod connection;
mod delivery;
mod history;
mod limits;
mod lines;
mod ready;
mod roster;
mod send_queue;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::mem;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use log::{Level, debug, info, log};
use slab::Slab;

use crate::wire::{Dialect, FrameError, header, time_message};
use channel::{Channels, Moment};
use close_reason::likely_sender;
use connection::{InputEnd, Outcome, PeerAddr, State, Who};
use delivery::{Delivered, Delivery, Part, Trouble};
use lines::Line;
use ready::ReadyLists;
use send_queue::{Aside, SendQueue};

pub use close_reason::{CloseReason, ClosedCounters, Counters};
pub use connection::Connection;
pub use limits::{Limits, LimitsError};
pub use lines::Wording;
pub use ready::Ready;
pub use roster::{Here, Roster};

/// A room of up to this many slots is not worth shrinking.
const MIN_SLOTS: usize = 1024;

/// A connection's place: its slot, and which of the slot's connections it is.
///
/// Slots are used again. An event that was under way when its connection ended must not be taken for
/// one of the connection that has the slot now, so the identity has a generation in its upper half,
/// and an identity of another generation is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(usize);

const KEY_BITS: u32 = usize::BITS / 2;

impl ConnId {
    const fn new(key: usize, generation: u32) -> Self {
        Self((generation as usize) << KEY_BITS | key)
    }

    const fn key(self) -> usize {
        self.0 & ((1 << KEY_BITS) - 1)
    }

    const fn generation(self) -> u32 {
        (self.0 >> KEY_BITS) as u32
    }
}

impl From<usize> for ConnId {
    fn from(id: usize) -> Self {
        Self(id)
    }
}

impl From<ConnId> for usize {
    fn from(id: ConnId) -> Self {
        id.0
    }
}

/// The room and its connections.
#[derive(Debug)]
pub struct Relay<S> {
    limits: Limits,
    /// What connections' ages are counted from.
    started: Instant,
    connections: Slab<Connection<S>>,
    /// The generation of the next connection.
    generation: u32,
    members: usize,
    ready: ReadyLists,
    channels: Channels,
    /// Whether there is more than one dialect to be told apart.
    is_mixed: bool,
    /// Who had a part in this turn.
    parts: Vec<(ConnId, Part)>,
    /// Whom this turn has marked.
    departures: Vec<Departure>,
    /// Who is still sent something and then goes.
    leaving: BTreeSet<ConnId>,
    /// Those of them that nobody was told of yet.
    newly_leaving: Vec<ConnId>,
    /// False once the relay stops: what is said from then on is read and dropped.
    hears: bool,
    counters: Counters,
}

/// A connection that was marked.
#[derive(Debug)]
struct Departure {
    key: usize,
    /// Its name's frame, if it was a member.
    name: Option<Box<[u8]>>,
    reason: CloseReason,
}

impl<S> Relay<S> {
    /// An empty room at this time, for connections of these dialects, with the tutorials' wording
    /// where there is no other.
    #[must_use]
    pub fn new(limits: Limits, served: &[Dialect], wording: &Wording, now: Instant) -> Self {
        Self {
            channels: Channels::new(&limits, served, wording),
            is_mixed: served.iter().any(|dialect| *dialect != served[0]),
            limits,
            started: now,
            connections: Slab::new(),
            generation: 0,
            members: 0,
            ready: ReadyLists::default(),
            parts: Vec::new(),
            departures: Vec::new(),
            leaving: BTreeSet::new(),
            newly_leaving: Vec::new(),
            hears: true,
            counters: Counters::default(),
        }
    }

    /// The limits it was given.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it has seen so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many connections there are, registered or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is no connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// How many members there are: connections that have given their name, if they have to.
    #[must_use]
    pub const fn members(&self) -> usize {
        self.members
    }

    /// How many of them speak this dialect.
    #[must_use]
    pub fn members_of(&self, dialect: Dialect) -> usize {
        self.channels[dialect].members
    }

    /// How many bytes are held for those who are behind, and as history: once, however many they are.
    #[must_use]
    pub fn backlog_bytes(&self) -> u64 {
        let backlogs = self.channels.iter().map(|channel| &channel.backlog);
        backlogs.map(backlog::Backlog::len).sum()
    }

    /// How many of these bytes somebody waits for. Counted in chunks of 64 KiB.
    #[must_use]
    pub fn awaited_bytes(&self) -> u64 {
        let backlogs = self.channels.iter().map(|channel| &channel.backlog);
        backlogs.map(backlog::Backlog::awaited).sum()
    }

    /// How many bytes this connection has still to be sent; 0 if there is no such connection.
    #[must_use]
    pub fn pending_bytes(&self, id: ConnId) -> u64 {
        self.get(id)
            .map_or(0, |connection| self.pending(connection))
    }

    fn pending(&self, connection: &Connection<S>) -> u64 {
        let backlog = &self.channels[connection.dialect].backlog;
        let queue = connection.queue.as_deref();
        queue.map_or(0, |queue| queue.pending_bytes(backlog))
    }

    /// How many members are behind, and wait for their sockets to have room.
    #[must_use]
    pub fn behind(&self) -> usize {
        let backlogs = self.channels.iter().map(|channel| &channel.backlog);
        backlogs.map(backlog::Backlog::readers).sum()
    }

    /// Whether every member has got all that was said.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.behind() == 0
    }

    /// Whether somebody waits to be served, so that the next poll must not wait.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether the next newcomer is one too many.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.connections.len() >= self.limits.max_clients
    }

    /// Whether this connection is still to give its name.
    #[must_use]
    pub fn awaits_name(&self, id: ConnId) -> bool {
        self.get(id)
            .is_some_and(|connection| matches!(connection.state, State::AwaitingName))
    }

    /// The identity that the next [`insert`](Self::insert) will give out, so that a stream can be
    /// registered with an event loop before the relay has it.
    #[must_use]
    pub fn next_id(&self) -> ConnId {
        ConnId::new(self.connections.vacant_key(), self.generation)
    }

    /// Takes on a connection that came at this time. One that has to give its name hears nothing until
    /// it has.
    pub fn insert(
        &mut self,
        stream: S,
        peer: SocketAddr,
        dialect: Dialect,
        now: Instant,
    ) -> ConnId {
        let id = self.next_id();
        let age = now.saturating_duration_since(self.started).as_secs() as u32;
        let connection = Connection::new(stream, peer, dialect, id.generation(), age);
        let is_member = connection.is_member();
        self.connections.insert(connection);
        self.generation = self.generation.wrapping_add(1);
        self.counters.accepted += 1;
        debug!("accepted: {}", PeerAddr::from(peer));
        if is_member {
            let part = self.first_part(id, self.channels[dialect].moment(), Line::Nothing);
            self.begin(id, part);
            self.count_joined(id);
        }
        id
    }

    /// What is to become of the turn so far for a connection that joined at this moment of it, and is
    /// to be told this, if it is not to be greeted.
    fn first_part(&mut self, id: ConnId, moment: Moment, line: Line) -> Part {
        let connection = &mut self.connections[id.key()];
        connection.heard_before = moment.heard_before;
        let greeting = connection.dialect.rules().greeting;
        // What was said in this turn before it joined is not for it, unless it is history. What it has
        // said since is its own.
        let start = moment.history.map_or(0, |_| moment.said);
        Part {
            span: start..self.channels[connection.dialect].said.len(),
            line: greeting.map_or(line, |_| Line::Greeting),
            history: moment.history,
        }
    }

    /// Sees to it that a newcomer gets its part, at once if nothing was said in this turn yet.
    fn begin(&mut self, id: ConnId, part: Part) {
        let connection = &mut self.connections[id.key()];
        if connection.leaving().is_some() {
            self.leaving.insert(id);
            self.newly_leaving.push(id);
        }
        let channel = &mut self.channels[connection.dialect];
        if !channel.said.is_empty() {
            connection.ready.insert(Ready::WITHHELD);
            self.parts.push((id, part));
        } else if part.line != Line::Nothing || part.history.is_some() {
            let (backlog, lines) = (&mut channel.backlog, &channel.lines);
            let end = backlog.end();
            let aside = Aside {
                span: end..end,
                line: part.line,
            };
            let start = part.history.unwrap_or(end);
            let queue = SendQueue::new(start, [aside], 0, backlog, lines);
            connection.queue = Some(Box::new(queue));
            self.ready.set(connection, id, Ready::WRITABLE);
        }
    }

    /// Counts a new member; one that is only greeted is none.
    fn count_joined(&mut self, id: ConnId) {
        let connection = &self.connections[id.key()];
        if connection.dialect.only_greets() {
            return;
        }
        self.channels[connection.dialect].members += 1;
        self.members += 1;
        self.counters.joined += 1;
        self.counters.peak_members = self.counters.peak_members.max(self.members);
        info!("joined: {}, {}", connection.who(), self.here());
    }

    /// Counts newcomers that were turned away before they became connections.
    pub const fn count_refused(&mut self, newcomers: u64) {
        self.counters.refused += newcomers;
    }

    /// Notes what an event says of a connection. Nothing is done before the turn is.
    ///
    /// An event for a connection that is gone is ignored: one batch may hold an event for a
    /// connection that an earlier event of the batch has ended.
    pub fn note(&mut self, id: ConnId, mut ready: Ready) {
        let Some(connection) = get_mut(&mut self.connections, id) else {
            return;
        };
        // With edge triggering a socket that is not written to is always writable, so most events
        // say that it is. That is news only to a member which has something queued.
        if connection.queue.is_none() {
            ready.remove(Ready::WRITABLE);
        }
        self.ready.set(connection, id, ready);
    }

    /// Marks a connection that has still not given its name. Says whether that was put off: what it
    /// has sent waits for its turn, and its name may be in it.
    pub fn expire_handshake(&mut self, id: ConnId) -> bool {
        let Some(connection) = get_mut(&mut self.connections, id) else {
            return false;
        };
        if !matches!(connection.state, State::AwaitingName) {
            return false;
        }
        if connection.ready.any(Ready::READABLE) {
            return true;
        }
        let reason = CloseReason::HandshakeTimeout;
        mark(connection, id.key(), reason, &mut self.departures);
        false
    }

    /// Says how many bytes are still queued for a member that leaves; nothing if it is gone. If they
    /// are as many as they were, `pending`, it is marked, because it reads no more.
    pub fn expire_leaving(&mut self, id: ConnId, pending: u64) -> Option<u64> {
        self.get(id)?.leaving()?;
        let now_pending = self.pending_bytes(id);
        if now_pending < pending {
            return Some(now_pending);
        }
        let reason = CloseReason::FarewellTimeout { pending };
        let connection = get_mut(&mut self.connections, id)?;
        mark(connection, id.key(), reason, &mut self.departures);
        None
    }

    /// Whether this connection is one that leaves, and has still to be sent something.
    #[must_use]
    pub fn is_leaving(&self, id: ConnId) -> bool {
        self.leaving.contains(&id)
    }

    /// How many there are that leave.
    #[must_use]
    pub fn leaving(&self) -> usize {
        self.leaving.len()
    }

    /// Who has begun to leave since the last call, with something still to be sent to them.
    pub fn take_leaving(&mut self) -> Vec<ConnId> {
        mem::take(&mut self.newly_leaving)
    }

    /// Whether there is anybody to tell the time to.
    #[must_use]
    pub fn has_audience(&self) -> bool {
        self.channels.has_audience()
    }

    /// Tells the time, at the end of this turn, to the members that hear it.
    pub fn tell_time(&mut self, time: SystemTime) {
        self.channels.tell_time(&time_message(time));
    }

    /// From now on drops what is said, and only delivers what was said before.
    ///
    /// The input is still read: a socket that is closed with unread bytes sends a reset, and a reset
    /// makes the kernel forget what it has not delivered yet.
    pub fn stop_hearing(&mut self) {
        self.hears = false;
    }

    /// Whether what is said is still relayed.
    #[must_use]
    pub const fn hears(&self) -> bool {
        self.hears
    }

    fn get(&self, id: ConnId) -> Option<&Connection<S>> {
        self.connections
            .get(id.key())
            .filter(|connection| connection.generation == id.generation())
    }
}

impl<S: Read + Write> Relay<S> {
    /// Serves whoever is ready: writes what was queued, reads what there is, collects what is said.
    ///
    /// `scratch` is the loop's one read buffer; its length is each connection's read budget for the
    /// turn. Who has not been read when the turn's budget is used up, and who has more to read or
    /// write than a turn allows, stays on its ready list.
    pub fn serve_ready(&mut self, scratch: &mut [u8]) {
        for _ in 0..self.ready.to_flush() {
            if let Some(id) = self.ready.next_to_flush() {
                self.flush(id);
            }
        }
        let budget = self.limits.turn_budget;
        let read_before = self.counters.bytes_in;
        for _ in 0..self.ready.to_read() {
            let read = self.counters.bytes_in - read_before;
            if self.channels.said_len() >= budget || read >= budget as u64 {
                return;
            }
            if let Some(id) = self.ready.next_to_read() {
                self.receive(id, scratch);
            }
        }
    }

    /// Writes what is queued for one connection.
    fn flush(&mut self, id: ConnId) {
        let Some(connection) = get_mut(&mut self.connections, id) else {
            return;
        };
        if !connection.is_member() || !connection.ready.any(Ready::WRITABLE) {
            return;
        }
        let channel = &mut self.channels[connection.dialect];
        match connection.flush(channel) {
            Outcome::Done(sent) => {
                self.counters.bytes_out += sent as u64;
                if sent > 0 {
                    channel.silent_half_closed.remove(&id);
                }
            }
            Outcome::Blocked => {}
            Outcome::Failed(kind) => {
                connection.break_off(kind, &mut channel.backlog);
                let to_its_end = Ready::READABLE | Ready::READ_TO_END;
                return self.ready.set(connection, id, to_its_end);
            }
        }
        if connection.ready.any(Ready::WRITABLE) {
            self.ready.flush_again(id);
        }
        if let (Some(leave), None) = (connection.leaving(), &connection.queue) {
            mark(connection, id.key(), leave.into(), &mut self.departures);
        }
    }

    /// Reads one connection's share of the turn and deals with what is in it.
    fn receive(&mut self, id: ConnId, scratch: &mut [u8]) {
        let Some(connection) = get_mut(&mut self.connections, id) else {
            return;
        };
        if matches!(connection.state, State::Closing) {
            return;
        }
        let dialect = connection.dialect;
        let moment = self.channels[dialect].moment();
        let (was_member, was_leaving) = (connection.is_member(), connection.leaving().is_some());
        let channels = self.hears.then_some(&mut self.channels);
        let input = connection.receive(scratch, &self.limits, channels);
        self.counters.bytes_in += input.bytes;
        self.counters.messages += input.messages;
        if connection.ready.any(Ready::READABLE) {
            self.ready.read_again(id);
        }

        let is_leaving = connection.leaving().is_some();
        let has_joined = connection.is_member() && !was_member;
        let line = Line::acks(input.acks);
        let said = moment.said..self.channels[dialect].said.len();
        if has_joined || !said.is_empty() || line != Line::Nothing || is_leaving != was_leaving {
            connection.ready.insert(Ready::WITHHELD);
            let part = if has_joined {
                self.first_part(id, moment, line)
            } else {
                Part {
                    span: said,
                    line,
                    history: None,
                }
            };
            self.parts.push((id, part));
        }
        if has_joined {
            self.count_joined(id);
        }
        let connection = &mut self.connections[id.key()];
        match input.end {
            InputEnd::Open => {}
            InputEnd::HalfClosed => {
                self.channels[dialect].silent_half_closed.insert(id);
                info!("half-closed: {}: gone, or only listening", connection.who());
            }
            InputEnd::Over(reason) => {
                let reason = match (connection.leaving(), reason) {
                    // It was about to go, and has not waited for what was queued.
                    (Some(leave), CloseReason::Eof | CloseReason::Io(_)) => leave.into(),
                    (_, reason) => reason,
                };
                mark(connection, id.key(), reason, &mut self.departures);
            }
        }
    }

    /// Delivers what was said in this turn: one write to each member.
    pub fn fan_out(&mut self) {
        let limit = self.limits.queue_limit;
        let channels = self.channels.each_mut().each_mut();
        let mut deliveries = channels.map(|channel| Delivery::new(channel, limit));
        let mut troubled = Vec::new();
        // First all who hear everything: as a rule nearly everybody. That is one walk for each dialect
        // in which something was said.
        for (dialect, delivery) in Dialect::ALL.into_iter().zip(&mut deliveries) {
            if !delivery.is_due() {
                continue;
            }
            for (key, connection) in &mut self.connections {
                if connection.dialect == dialect
                    && connection.hears()
                    && !connection.ready.any(Ready::WITHHELD)
                    && let Err(trouble) = delivery.deliver(connection)
                {
                    troubled.push((key, trouble));
                }
            }
            // All of them were written to now: who is gone will answer with a reset.
            delivery.silent_half_closed.clear();
        }
        // Who leaves hears nothing more, but holds on to what is said until it has taken its last.
        for &id in &self.leaving {
            if let Some(connection) = get_mut(&mut self.connections, id)
                && let delivery = &deliveries[connection.dialect.index()]
                && delivery.is_due()
                && let Err(trouble) = delivery.check(connection)
            {
                troubled.push((id.key(), trouble));
            }
        }
        // Then those who spoke or joined in this turn, each less its part.
        for (id, part) in self.parts.drain(..) {
            let Some(connection) = get_mut(&mut self.connections, id) else {
                continue;
            };
            connection.ready.remove(Ready::WITHHELD);
            let delivery = &mut deliveries[connection.dialect.index()];
            if connection.broken.is_some() {
                continue;
            }
            if !connection.is_member() {
                delivery.answer(connection, part.line);
                continue;
            }
            if connection.is_half_closed()
                && part.line == Line::Nothing
                && part.span.len() == delivery.len()
            {
                // It was the only one to speak, so nothing is written to it.
                delivery.silent_half_closed.insert(id);
            }
            let leave = connection.leaving();
            match delivery.deliver_rest(connection, &part) {
                Ok(Delivered::ForNow) => {}
                Ok(Delivered::InPart) => self.ready.set(connection, id, Ready::WRITABLE),
                // It goes in any case, and is sent what is queued.
                Err(Trouble::TooSlow { .. }) if leave.is_some() => {}
                Err(trouble) => {
                    troubled.push((id.key(), trouble));
                    continue;
                }
            }
            let Some(leave) = leave else {
                continue;
            };
            if !delivery.end_queue(connection) {
                mark(connection, id.key(), leave.into(), &mut self.departures);
            } else if self.leaving.insert(id) {
                self.newly_leaving.push(id);
            }
        }
        self.counters.bytes_out += deliveries.iter().map(|one| one.bytes_out).sum::<u64>();
        for (key, trouble) in troubled {
            let connection = &mut self.connections[key];
            match trouble {
                Trouble::TooSlow { behind } => {
                    let reason = CloseReason::SlowConsumer { behind };
                    mark(connection, key, reason, &mut self.departures);
                }
                Trouble::Broken(kind) => {
                    let channel = &mut self.channels[connection.dialect];
                    connection.break_off(kind, &mut channel.backlog);
                    let id = ConnId::new(key, connection.generation);
                    let to_its_end = Ready::READABLE | Ready::READ_TO_END;
                    self.ready.set(connection, id, to_its_end);
                }
            }
        }
        for channel in self.channels.each_mut() {
            channel.end_turn();
        }
    }

    /// Removes the connections that were marked, and says how many they were.
    ///
    /// The streams are dropped, which closes them. When the relay ends a connection that may have
    /// bytes unread, up to a mebibyte of them is read first, into `scratch`: a socket that is closed
    /// with unread bytes sends a reset, and the kernel drops what it has not delivered yet. A peer
    /// that had sent more than that, or goes on sending, gets the reset all the same.
    pub fn close_marked(&mut self, scratch: &mut [u8]) -> usize {
        let departures = mem::take(&mut self.departures);
        for Departure { key, name, reason } in &departures {
            let mut connection = self.connections.remove(*key);
            let channel = &mut self.channels[connection.dialect];
            connection.abandon_queue(&mut channel.backlog);
            let id = ConnId::new(*key, connection.generation);
            channel.silent_half_closed.remove(&id);
            self.leaving.remove(&id);
            self.counters.closed.count(reason);
            if name.is_some() {
                channel.members -= 1;
                self.members -= 1;
            }
            if reason.is_ours() {
                connection.discard_input(scratch);
            }
            let who = Who {
                name: name.as_deref(),
                dialect: connection.dialect,
                peer: connection.peer(),
            };
            self.log_departure(&who, reason);
        }
        // After a storm of connections the memory goes back, and the walk over the members no longer
        // passes empty slots, as far as none of those who stayed has one of the last.
        if self.connections.capacity() > MIN_SLOTS
            && self.connections.len() < self.connections.capacity() / 4
        {
            self.connections.shrink_to_fit();
        }
        departures.len()
    }

    /// Closes a member that has closed its sending side and has not been written to since, because
    /// its place is needed: the longest connected of them. Says whether there was one.
    ///
    /// Such a member may be a listener, or it may be gone: TCP does not tell a peer that closed its
    /// sending side from one that closed everything until something is written to it. In a silent
    /// room those who left that way would keep their places for minutes, so they are the ones to go
    /// when places are short. A listener that was written to is safe.
    pub fn evict_half_closed(&mut self, scratch: &mut [u8]) -> bool {
        let channels = self.channels.each_mut().iter_mut();
        let silent = channels.map(|channel| &mut channel.silent_half_closed);
        let longest = silent.min_by_key(|silent| (silent.is_empty(), silent.first().copied()));
        let Some(id) = longest.and_then(BTreeSet::pop_first) else {
            return false;
        };
        if let Some(connection) = get_mut(&mut self.connections, id) {
            mark(
                connection,
                id.key(),
                CloseReason::Evicted,
                &mut self.departures,
            );
        }
        self.close_marked(scratch) > 0
    }

    /// Closes every connection: the relay stops.
    pub fn close_all(&mut self, scratch: &mut [u8]) {
        for (key, connection) in &mut self.connections {
            mark(connection, key, CloseReason::Shutdown, &mut self.departures);
        }
        self.close_marked(scratch);
    }

    /// One line for one end: `left` if the peer went, `closed` if the relay closed it. Where a limit
    /// was met, it names the flag that sets the limit; that is a warning if it cost a member its
    /// place or its message, or a stranger its name.
    fn log_departure(&self, who: &Who<'_>, reason: &CloseReason) {
        let here = self.here();
        let (level, flag) = match reason {
            CloseReason::SlowConsumer { .. } => (Level::Warn, "--queue-limit"),
            CloseReason::Protocol(FrameError::TooLong { .. }) if who.name.is_some() => {
                (Level::Warn, "--max-message")
            }
            CloseReason::Protocol(FrameError::TooLong { .. }) => (Level::Warn, "--max-name"),
            CloseReason::HandshakeTimeout => (Level::Info, "--handshake-timeout"),
            CloseReason::FarewellTimeout { .. } => (Level::Info, "--farewell-timeout"),
            CloseReason::Unheard { .. } => (Level::Info, "--max-message"),
            CloseReason::Evicted => (Level::Info, "--max-clients"),
            CloseReason::Protocol(FrameError::BadHeader(header)) => {
                let name = who.name.map_or(&[][..], |frame| &frame[header::WIDTH..]);
                return match likely_sender(who.dialect, name, header) {
                    Some(sender) => info!("closed: {who}: {reason} ({sender}), {here}"),
                    None => info!("closed: {who}: {reason}, {here}"),
                };
            }
            CloseReason::Shutdown => return debug!("closed: {who}: {reason}"),
            CloseReason::Greeted => return info!("greeted: {who}"),
            CloseReason::Eof
            | CloseReason::TruncatedFrame
            | CloseReason::Farewell
            | CloseReason::Io(_) => {
                return match who.name {
                    Some(_) => info!("left: {who}: {reason}, {here}"),
                    // A port scan, or somebody's health check.
                    None => debug!("left without a name: {who}: {reason}"),
                };
            }
        };
        log!(level, "closed: {who}: {reason} (limit: {flag}), {here}");
    }
}

fn get_mut<S>(connections: &mut Slab<Connection<S>>, id: ConnId) -> Option<&mut Connection<S>> {
    connections
        .get_mut(id.key())
        .filter(|connection| connection.generation == id.generation())
}

/// Marks a connection: from now on it neither speaks nor hears, at the end of the turn it goes. The
/// first reason stands.
fn mark<S>(
    connection: &mut Connection<S>,
    key: usize,
    reason: CloseReason,
    departures: &mut Vec<Departure>,
) {
    let name = match mem::replace(&mut connection.state, State::Closing) {
        // Who is only greeted was never a member.
        State::Registered { .. } if connection.dialect.only_greets() => None,
        State::Registered { name, .. } => Some(name),
        State::AwaitingName => None,
        State::Closing => return,
    };
    departures.push(Departure { key, name, reason });
}
