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
//! expire(deadline)    a time has come: somebody may have to go, or may be read from again
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
//! **Why nobody fails for anybody.** What a socket does not take stays in the [backlog](#the-backlog),
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
//! # Pace, then cut
//!
//! Nobody waits for a member that does not read. But while a member that *does* read is far behind, the
//! relay reads next to nothing from those who speak, until it has caught up by half: so an endless talker
//! runs at the pace of the slowest reader, and loses nobody. `relay/pace.rs` has the states and the reasons.
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
mod deadline;
mod delivery;
mod departure;
mod history;
mod limits;
mod lines;
mod memory;
mod origins;
mod pace;
mod rate;
mod ready;
mod roster;
mod seldom;
mod send_queue;
mod spending;
mod turn;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use log::{debug, info};
use slab::Slab;

use crate::wire::{Dialect, time_message};
use channel::{Channels, Moment};
use connection::{Behind, PeerAddr, State};
use delivery::Part;
use departure::Departure;
use lines::Line;
use origins::Origins;
use pace::Pace;
use ready::ReadyLists;
use send_queue::{Aside, SendQueue};
use spending::Spending;
use waiting::Waiting;

pub use close_reason::{CloseReason, ClosedCounters, Counters};
pub use connection::Connection;
pub use deadline::Deadline;
pub(crate) use deadline::after;
pub use limits::{Limits, LimitsError, Slow};
pub use lines::Wording;
pub(crate) use rate::Rate;
pub use ready::Ready;
pub use roster::{Here, Roster};
pub(crate) use seldom::Seldom;

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
    /// Who has still to give its name; the longest connected first.
    nameless: BTreeSet<ConnId>,
    waiting: Waiting,
    /// When the deadline for those whom the room waits for comes, if one was handed out.
    awaited_due: Option<Instant>,
    /// Whether the log tells that the room waits.
    has_told_waiting: bool,
    /// The log's line that the room waits.
    waiting_line: Seldom,
    /// The log's line that somebody rests.
    resting_line: Seldom,
    spending: Spending,
    origins: Origins,
    /// When each member sent something last, if that is limited.
    heard_from: BTreeMap<ConnId, Instant>,
    /// How much memory is held for unfinished frames, in bytes.
    unfinished: usize,
    /// What falls due, and was not handed out yet.
    deadlines: Vec<(Instant, Deadline)>,
    /// The time of this turn.
    now: Instant,
    counters: Counters,
}

impl<S> Relay<S> {
    /// An empty room at this time, for connections of these dialects, with the tutorials' wording
    /// where there is no other.
    #[must_use]
    pub fn new(limits: Limits, served: &[Dialect], wording: &Wording, now: Instant) -> Self {
        Self {
            channels: Channels::new(&limits, served, wording),
            is_mixed: served.iter().any(|dialect| *dialect != served[0]),
            spending: Spending::new(limits.rate),
            origins: Origins::new(limits.max_per_ip),
            limits,
            started: now,
            connections: Slab::new(),
            generation: 0,
            members: 0,
            ready: ReadyLists::default(),
            parts: Vec::new(),
            departures: Vec::new(),
            leaving: BTreeSet::new(),
            nameless: BTreeSet::new(),
            waiting: Waiting::default(),
            awaited_due: None,
            has_told_waiting: false,
            waiting_line: Seldom::default(),
            resting_line: Seldom::default(),
            heard_from: BTreeMap::new(),
            unfinished: 0,
            deadlines: Vec::new(),
            now,
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
        let behind = connection.behind.as_deref();
        behind.map_or(0, |behind| behind.queue.pending_bytes(backlog))
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

    /// Whether somebody has sent something and is not read from because the room waits, or did before it
    /// was closed.
    #[must_use]
    pub fn has_parked(&self) -> bool {
        self.ready.has_parked()
    }

    /// Whether the next newcomer is one too many.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.connections.len() >= self.limits.max_clients
    }

    /// Whether there are as many connections from this address as there may be.
    #[must_use]
    pub fn is_crowded(&self, peer: SocketAddr) -> bool {
        self.origins.is_crowded(PeerAddr::from(peer).ip())
    }

    /// Whether this connection is still to give its name.
    fn awaits_name(&self, id: ConnId) -> bool {
        self.get(id)
            .is_some_and(|connection| matches!(connection.state, State::AwaitingName))
    }

    /// All connections.
    #[must_use]
    pub fn ids(&self) -> Vec<ConnId> {
        let connections = self.connections.iter();
        connections
            .map(|(key, connection)| ConnId::new(key, connection.generation))
            .collect()
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
        self.now = now;
        let age = self.age();
        let connection = Connection::new(stream, peer, dialect, id.generation(), age);
        let is_member = connection.is_member();
        self.origins.come(connection.peer().ip(), id);
        self.connections.insert(connection);
        self.generation = self.generation.wrapping_add(1);
        self.counters.accepted += 1;
        debug!("accepted: {}", PeerAddr::from(peer));
        if is_member {
            let part = self.first_part(id, self.channels[dialect].moment(), Line::Nothing);
            self.begin(id, part);
            self.count_joined(id);
        } else {
            self.nameless.insert(id);
            let due = after(now, self.limits.handshake_timeout);
            self.deadlines.push((due, Deadline::Name(id)));
        }
        id
    }

    /// How long the relay has run, in seconds.
    fn age(&self) -> u32 {
        self.now.saturating_duration_since(self.started).as_secs() as u32
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
        let is_leaving = connection.leaving().is_some();
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
            let behind = queue.cost(backlog);
            let pace = Pace::behind_from_the_start(behind, &channel.pace_limits, self.now);
            let behind = connection.behind.insert(Box::new(Behind { queue, pace }));
            backlog.remember(behind.held_bytes());
            self.ready.set(connection, id, Ready::WRITABLE);
        }
        if is_leaving {
            self.begin_leaving(id);
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
        if let Some(timeout) = self.limits.idle_timeout
            && connection.dialect.rules().header_width.is_some()
        {
            self.heard_from.insert(id, self.now);
            let due = after(self.now, timeout);
            self.deadlines.push((due, Deadline::Idle(id)));
        }
        info!("joined: {}, {}", connection.who(), self.here());
    }

    /// Counts newcomers that were turned away before they became connections.
    pub const fn count_refused(&mut self, newcomers: u64) {
        self.counters.refused += newcomers;
    }

    /// A connection's stream.
    #[must_use]
    pub fn stream(&self, id: ConnId) -> Option<&S> {
        self.get(id).map(|connection| &connection.stream)
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
        if connection.behind.is_none() {
            ready.remove(Ready::WRITABLE);
        }
        self.ready.set(connection, id, ready);
        if connection.is_gone() {
            self.ready.wake(connection, id);
        }
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

    fn get(&self, id: ConnId) -> Option<&Connection<S>> {
        self.connections
            .get(id.key())
            .filter(|connection| connection.generation == id.generation())
    }
}

fn get_mut<S>(connections: &mut Slab<Connection<S>>, id: ConnId) -> Option<&mut Connection<S>> {
    connections
        .get_mut(id.key())
        .filter(|connection| connection.generation == id.generation())
}
