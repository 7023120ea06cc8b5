//! Leaving: who has to go is marked, and removed after the turn's deliveries.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::mem;
use std::net::SocketAddr;

use log::{Level, debug, info, log};

use super::close_reason::likely_sender;
use super::connection::{Connection, Leave, State, Who};
use super::delivery::Part;
use super::{CloseReason, ConnId, Deadline, PeerAddr, Ready, Relay, after, get_mut};
use crate::wire::{FrameError, header};

/// A newcomer is given this long for its name, in seconds, though its place be needed: longer than any
/// network takes.
const SAFE_WITHOUT_NAME: u32 = 2;

/// A room of up to this many slots is not worth shrinking.
const MIN_SLOTS: usize = 1024;

/// A connection that was marked.
#[derive(Debug)]
pub(super) struct Departure {
    /// The slot.
    pub(super) key: usize,
    /// Its name's frame, if it was a member.
    name: Option<Box<[u8]>>,
    reason: CloseReason,
}

impl<S> Relay<S> {
    /// A member says nothing more, and goes when it has been sent what is queued for it.
    pub(super) fn begin_leaving(&mut self, id: ConnId) {
        if self.leaving.insert(id) {
            // It cannot say anything more.
            self.heard_from.remove(&id);
            let pending = self.pending_bytes(id);
            let due = after(self.now, self.limits.farewell_timeout);
            self.deadlines
                .push((due, Deadline::Farewell { id, pending }));
        }
    }

    /// Marks this connection, if it is still there.
    pub(super) fn mark(&mut self, id: ConnId, reason: CloseReason) {
        if let Some(connection) = get_mut(&mut self.connections, id) {
            mark(connection, id.key(), reason, &mut self.departures);
        }
    }
}

impl<S: Read + Write> Relay<S> {
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
            self.nameless.remove(&id);
            self.heard_from.remove(&id);
            self.spending.forget(id);
            self.origins.go(connection.peer().ip(), id);
            self.unfinished -= connection.decoder.held_bytes();
            self.counters.closed.count(reason);
            if name.is_some() {
                channel.members -= 1;
                self.members -= 1;
            }
            if reason.is_ours() {
                connection.discard_input(scratch);
            }
            self.stop_waiting(id);
            self.waiting.forget(id);
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

    /// Closes a connection because its place is needed. Says whether there was one that could go.
    ///
    /// First those who have still not given a name go, the longest connected before the others; who came
    /// just now is safe. Then those who have closed their sending side and have not been written to
    /// since. Such a member may be a listener, or it may be gone: TCP does not tell a peer that closed
    /// its sending side from one that closed everything until something is written to it. In a silent
    /// room those who left that way would keep their places for minutes. A listener that was written to
    /// is safe.
    pub fn make_room(&mut self, scratch: &mut [u8]) -> bool {
        let nameless = self.nameless.first().copied();
        let late = nameless.filter(|&id| self.is_late_nameless(id));
        let Some(id) = late.or_else(|| self.silent_half_closed()) else {
            return false;
        };
        self.mark(id, CloseReason::Evicted);
        self.close_marked(scratch) > 0
    }

    /// The same if only an address has no place left: of its connections one goes, so that who comes
    /// back to say one thing more is not refused because of where it was a moment ago.
    pub fn make_room_from(&mut self, peer: SocketAddr, scratch: &mut [u8]) -> bool {
        let theirs = || self.origins.of(PeerAddr::from(peer).ip());
        let late = theirs().find(|&id| self.is_late_nameless(id));
        let is_silent = |id: &ConnId| {
            let mut channels = self.channels.iter();
            channels.any(|channel| channel.silent_half_closed.contains(id))
        };
        let Some(id) = late.or_else(|| theirs().find(is_silent)) else {
            return false;
        };
        self.mark(id, CloseReason::Replaced);
        self.close_marked(scratch) > 0
    }

    /// Whether this one has been without a name for long.
    fn is_late_nameless(&self, id: ConnId) -> bool {
        self.get(id).is_some_and(|connection| {
            let seconds = self.age().saturating_sub(connection.accepted_at);
            // What it has sent may be its name, and wait for its turn.
            let is_late = seconds > SAFE_WITHOUT_NAME && !connection.ready.any(Ready::READABLE);
            is_late && self.nameless.contains(&id)
        })
    }

    /// The longest connected of those who may be gone.
    fn silent_half_closed(&self) -> Option<ConnId> {
        let silent = self
            .channels
            .iter()
            .map(|channel| &channel.silent_half_closed);
        silent.filter_map(BTreeSet::first).min().copied()
    }

    /// From now on nobody rests for what it has said: what has come is to be heard before the relay
    /// stops.
    pub fn end_rests(&mut self) {
        self.spending.stop();
        for (key, connection) in &mut self.connections {
            let id = ConnId::new(key, connection.generation);
            if !self.waiting.is_for_itself(id) {
                self.ready.wake(connection, id);
            }
        }
    }

    /// Has a connection leave in this turn: it says nothing more after what has come from it already,
    /// and goes when it was sent what was said until then. One that is no member goes at once.
    pub fn dismiss(&mut self, id: ConnId, scratch: &mut [u8]) {
        // Its messages of one turn are one span, so it is read once a turn.
        if let Some(connection) = self.get(id)
            && connection.ready.any(Ready::READABLE)
            && !connection.ready.any(Ready::WITHHELD)
        {
            self.receive(id, scratch);
        }
        let Some(connection) = get_mut(&mut self.connections, id) else {
            return;
        };
        if !connection.is_member() {
            return self.mark(id, CloseReason::Shutdown);
        }
        if connection.leaving().is_some() {
            return;
        }
        connection.leave(Leave::Shutdown);
        if !connection.ready.any(Ready::WITHHELD) {
            connection.ready.insert(Ready::WITHHELD);
            self.parts.push((id, Part::NONE));
        }
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
    /// message, or what it had not heard yet, or a stranger its name.
    fn log_departure(&self, who: &Who<'_>, reason: &CloseReason) {
        let here = self.here();
        let (level, flag) = match reason {
            CloseReason::SlowConsumer { .. } => (Level::Warn, "--queue-limit"),
            CloseReason::Dripping { .. } => (Level::Warn, "--slow-timeout"),
            CloseReason::MessageTimeout => (Level::Warn, "--message-timeout"),
            CloseReason::IdleTimeout => (Level::Info, "--idle-timeout"),
            CloseReason::OutOfMemory { .. } => (Level::Warn, "--max-memory"),
            CloseReason::Protocol(FrameError::TooLong { .. }) if who.name.is_some() => {
                (Level::Warn, "--max-message")
            }
            CloseReason::Protocol(FrameError::TooLong { .. }) => (Level::Warn, "--max-name"),
            CloseReason::HandshakeTimeout => (Level::Info, "--handshake-timeout"),
            CloseReason::FarewellTimeout { .. } => (Level::Info, "--farewell-timeout"),
            CloseReason::Unheard { .. } => (Level::Info, "--max-message"),
            CloseReason::Evicted => (Level::Info, "--max-clients"),
            CloseReason::Replaced => (Level::Info, "--max-per-ip"),
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

/// Marks a connection: from now on it neither speaks nor hears, at the end of the turn it goes. The
/// first reason stands.
pub(super) fn mark<S>(
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
