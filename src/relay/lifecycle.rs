//! The lifecycle of a connection: every state, every transition, and the indexes that follow them.
//!
//! ```text
//!                        accept
//!         ┌────────────────┼──────────────────┐
//!         ▼                ▼                  ▼
//!  ┌──────────────┐    ┌────────┐       ┌──────────┐
//!  │ AwaitingName ├──► │  Open  ├─────► │ Draining │
//!  └──────┬───────┘    └─┬────┬─┘       └────┬─────┘
//!         │              │    ▼              │
//!         │              │  ┌─────────────┐  │
//!         │              │  │ WriteFailed │  │
//!         │              │  └──────┬──────┘  │
//!         ▼              ▼         ▼         ▼
//!       ┌──────────────────────────────────────┐
//!       │                Closed                │
//!       └──────────────────┬───────────────────┘
//!                          ▼
//!              removed at the end of the turn
//! ```
//!
//! | from | to | by | when |
//! |---|---|---|---|
//! | – | AwaitingName | `accept` | its first frame will be its name |
//! | – | Open | `accept` | its address is its name |
//! | – | Draining | `accept` | its dialect only greets |
//! | AwaitingName | Open | `join` | its name has arrived |
//! | Open | Draining | `drain` | its input ended, it sent its farewell, or the relay stops |
//! | Open | WriteFailed | `fail_write` | a write failed |
//! | Draining | Closed | `close`, `fail_write` | its output was delivered, or cannot be |
//! | WriteFailed | Closed | `close` | its input was read to the end |
//! | any | Closed | `close` | a limit, a timeout, a protocol error, a read error, an eviction |
//!
//! *Open* members send and receive. *WriteFailed* members are read to the end of their input, since
//! their last messages may have been received before the write failed; nothing is written to them.
//! *Draining* connections send nothing any more; they receive what was published until they left.
//! *Closed* connections wait for the end of the turn, so that no walk over the connections has one
//! removed under it.
//!
//! The state is private to this file. Other modules query it through [`Life`] and change it through
//! [`Lifecycle`], which keeps the indexes in step.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::mem;

use super::close_reason::CloseReason;
use super::conn_id::ConnId;
use super::events::MemberCounts;
use super::names::Names;
use super::peer_addr::PeerAddr;
use super::per_address::PerAddress;
use crate::wire::{Dialect, Naming, encode_frame, header};

/// Which connection this is, its state, and what comes with that: its name, and how much it has sent.
#[derive(Debug)]
pub(super) struct Life {
    id: ConnId,
    dialect: Dialect,
    state: State,
    /// How many messages the member has sent; where input is ignored, how many bytes.
    sent: u32,
    /// The name as the frame that precedes each of the member's messages, encoded once. A connection
    /// with a name is or was a member.
    name_frame: Option<Box<[u8]>>,
}

/// See the diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitingName,
    Open,
    WriteFailed(ErrorKind),
    Draining(DrainCause),
    Closed,
}

/// Why a connection drains. It becomes the reason of its end when all its output was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DrainCause {
    /// Its input ended between two frames.
    Eof,
    /// Its input ended inside a frame.
    TruncatedFrame,
    /// It sent the farewell of its dialect.
    Farewell,
    /// It is only greeted.
    Greeted,
    /// The relay stops.
    Shutdown,
}

impl From<DrainCause> for CloseReason {
    fn from(cause: DrainCause) -> Self {
        match cause {
            DrainCause::Eof => Self::Eof,
            DrainCause::TruncatedFrame => Self::TruncatedFrame,
            DrainCause::Farewell => Self::Farewell,
            DrainCause::Greeted => Self::Greeted,
            DrainCause::Shutdown => Self::Shutdown,
        }
    }
}

impl Life {
    /// The connection's identity.
    #[inline]
    pub(super) const fn id(&self) -> ConnId {
        self.id
    }

    /// The dialect of its peer.
    #[inline]
    pub(super) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the connection has not sent its name yet.
    pub(super) const fn is_pending(&self) -> bool {
        matches!(self.state, State::AwaitingName)
    }

    /// Whether the connection takes part in the room: it sends and receives.
    #[inline]
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether what the connection sends has an effect: it is open, or its last messages are being read.
    pub(super) const fn is_heard(&self) -> bool {
        matches!(self.state, State::Open | State::WriteFailed(_))
    }

    /// Why the connection drains, if it does.
    pub(super) const fn drain_cause(&self) -> Option<DrainCause> {
        match self.state {
            State::Draining(cause) => Some(cause),
            _ => None,
        }
    }

    /// The error of the write that failed, while the connection is read to its end.
    pub(super) const fn write_error(&self) -> Option<ErrorKind> {
        match self.state {
            State::WriteFailed(kind) => Some(kind),
            _ => None,
        }
    }

    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether output can be written to the connection.
    pub(super) const fn is_writable(&self) -> bool {
        matches!(self.state, State::Open | State::Draining(_))
    }

    /// The frame of the name, header included; nothing if there is no name.
    pub(super) fn name_frame(&self) -> &[u8] {
        self.name_frame.as_deref().unwrap_or_default()
    }

    /// The name, if there is one.
    pub(super) fn name(&self) -> Option<&[u8]> {
        self.name_frame
            .as_deref()
            .map(|frame| &frame[header::WIDTH..])
    }

    /// How many messages the member has sent; where input is ignored, how many bytes.
    pub(super) const fn sent(&self) -> u32 {
        self.sent
    }

    /// Counts what the member has sent.
    pub(super) const fn count_sent(&mut self, count: u32) {
        self.sent = self.sent.saturating_add(count);
    }
}

/// A connection that is closed and will be removed at the end of the turn.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) id: ConnId,
    pub(super) reason: CloseReason,
    /// The cause of its draining, if it drained. The event that it has left was sent when that began,
    /// except for [`Greeted`](DrainCause::Greeted).
    pub(super) drain_cause: Option<DrainCause>,
}

/// The indexes over the lives of all connections.
#[derive(Debug)]
pub(super) struct Lifecycle {
    /// Connections that have not sent their name.
    pending: BTreeSet<ConnId>,
    /// Connections that receive their remaining output and are closed then.
    draining: BTreeSet<ConnId>,
    /// Members whose peer is known to be gone, and whose last messages have not been read yet.
    gone: BTreeSet<ConnId>,
    per_address: PerAddress<ConnId>,
    /// Members, that is open ones and those whose last messages are being read.
    members: MemberCounts,
    /// The names that are taken, if no two members may have the same.
    names: Option<Names>,
    /// Connections that were closed in this turn.
    departures: Vec<Departure>,
}

impl Lifecycle {
    pub(super) fn new(max_per_ip: Option<usize>) -> Self {
        Self {
            pending: BTreeSet::new(),
            draining: BTreeSet::new(),
            gone: BTreeSet::new(),
            per_address: PerAddress::new(max_per_ip),
            members: MemberCounts::default(),
            names: None,
            departures: Vec::new(),
        }
    }

    /// From now on no two members have the same name.
    pub(super) fn require_unique_names(&mut self) {
        self.names = Some(Names::default());
    }

    /// The name under which a connection that has sent this one [joins](Self::join): another one if it is taken
    /// and its peer cannot be told so, and none if it is refused.
    pub(super) fn free_name<'a>(
        &mut self,
        life: &Life,
        name: &'a [u8],
        max_len: usize,
    ) -> Option<Cow<'a, [u8]>> {
        let Some(names) = &mut self.names else {
            return Some(name.into());
        };
        // The reason for which a WebSocket connection is closed reaches its peer.
        let may_number = !life.dialect.rules().sends.is_web_socket();
        names.take(name, may_number, max_len)
    }

    /// The name of a member that leaves is free again. Names that are addresses were not taken.
    fn give_name_back(&mut self, life: &Life) {
        if let Some(names) = &mut self.names
            && life.dialect.rules().naming == Naming::FirstFrame
            && let Some(name) = life.name()
        {
            names.give_back(name);
        }
    }

    /// A connection is accepted. Where the first frame is the name it is pending; elsewhere it is a
    /// member at once, or drains if its dialect only greets.
    pub(super) fn accept(
        &mut self,
        id: ConnId,
        peer: PeerAddr,
        dialect: Dialect,
        name: Option<&[u8]>,
    ) -> Life {
        self.per_address.insert(peer.ip(), id);
        let mut life = Life {
            id,
            dialect,
            state: State::AwaitingName,
            sent: 0,
            name_frame: None,
        };
        if dialect.closes_after_greeting() {
            life.state = State::Draining(DrainCause::Greeted);
            self.draining.insert(id);
            return life;
        }
        self.pending.insert(id);
        if dialect.rules().naming == Naming::Address {
            let address = std::net::SocketAddr::from(peer).to_string();
            self.join(&mut life, name.unwrap_or(address.as_bytes()));
        }
        life
    }

    /// A pending connection becomes a member under this name.
    pub(super) fn join(&mut self, life: &mut Life, name: &[u8]) {
        debug_assert!(life.is_pending(), "a connection joins once");
        let was_pending = self.pending.remove(&life.id);
        debug_assert!(was_pending, "each pending connection is indexed");
        let mut frame = Vec::with_capacity(header::WIDTH + name.len());
        encode_frame(name, &mut frame);
        life.name_frame = Some(frame.into());
        life.state = State::Open;
        self.members.add(life.dialect);
    }

    /// The peer is known to be gone, or to send nothing more, though not all of its input was read.
    pub(super) fn note_gone(&mut self, life: &Life) {
        if life.is_heard() {
            self.gone.insert(life.id);
        }
    }

    /// A member leaves: it sends nothing more, and is closed when its output is delivered.
    pub(super) fn drain(&mut self, life: &mut Life, cause: DrainCause) {
        debug_assert!(life.is_open(), "only an open member begins to drain");
        life.state = State::Draining(cause);
        self.draining.insert(life.id);
        self.gone.remove(&life.id);
        self.members.remove(life.dialect);
        self.give_name_back(life);
    }

    /// A write to the connection failed. An open member is read to the end of its input.
    pub(super) fn fail_write(&mut self, life: &mut Life, kind: ErrorKind) {
        match life.state {
            State::Open => {
                life.state = State::WriteFailed(kind);
                self.gone.insert(life.id);
            }
            State::Draining(_) => self.close(life, CloseReason::Io(kind)),
            State::AwaitingName | State::WriteFailed(_) | State::Closed => {}
        }
    }

    /// A connection ends. The first reason stands. A draining connection that ends by the end of its input
    /// or by an I/O error keeps the cause of its draining as close reason.
    pub(super) fn close(&mut self, life: &mut Life, reason: CloseReason) {
        let (id, drain_cause) = (life.id, life.drain_cause());
        let reason = match (drain_cause, reason) {
            (Some(cause), CloseReason::Eof | CloseReason::Io(_)) => cause.into(),
            (_, reason) => reason,
        };
        match mem::replace(&mut life.state, State::Closed) {
            State::Closed => return,
            State::AwaitingName => {
                let was_pending = self.pending.remove(&id);
                debug_assert!(was_pending, "each pending connection is indexed");
            }
            State::Open | State::WriteFailed(_) => self.give_name_back(life),
            State::Draining(_) => {
                let was_draining = self.draining.remove(&id);
                debug_assert!(was_draining, "each draining connection is indexed");
            }
        }
        self.gone.remove(&id);
        self.departures.push(Departure {
            id,
            reason,
            drain_cause,
        });
    }

    /// The connections that were closed since the last call.
    pub(super) fn take_departures(&mut self) -> Vec<Departure> {
        mem::take(&mut self.departures)
    }

    /// Whether there are closed connections that were not removed yet.
    pub(super) const fn has_departures(&self) -> bool {
        !self.departures.is_empty()
    }

    /// The identities of the connections that were closed in this turn.
    pub(super) fn departing(&self) -> Vec<ConnId> {
        self.departures
            .iter()
            .map(|departure| departure.id)
            .collect()
    }

    /// A closed connection is removed. Returns whether it was a member until now.
    pub(super) fn remove(&mut self, departure: &Departure, life: &Life, peer: PeerAddr) -> bool {
        debug_assert!(life.is_closed(), "closed before it is removed");
        self.per_address.remove(peer.ip(), life.id);
        let was_member = life.name_frame.is_some() && departure.drain_cause.is_none();
        if was_member {
            self.members.remove(life.dialect);
        }
        was_member
    }

    /// How many members there are.
    pub(super) const fn members(&self) -> MemberCounts {
        self.members
    }

    /// How many connections are pending.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The draining connections, oldest first.
    pub(super) fn draining_ids(&self) -> impl Iterator<Item = ConnId> {
        self.draining.iter().copied()
    }

    /// Whether this address has as many connections, with so many `others`, as it may have.
    pub(super) fn is_address_full(&self, peer: PeerAddr, others: usize) -> bool {
        self.per_address.is_at_limit(peer.ip(), others)
    }

    /// The connection to evict when a place is needed: the oldest whose peer is gone, if `is_held_back`
    /// says that its last messages are not about to be read; or else the oldest pending one, if `is_late`
    /// says that it has had enough time for its name.
    pub(super) fn eviction_candidate(
        &self,
        is_held_back: impl Fn(ConnId) -> bool,
        is_late: impl Fn(ConnId) -> bool,
    ) -> Option<ConnId> {
        let gone = self.gone.iter().copied().find(|&id| is_held_back(id));
        gone.or_else(|| self.pending.first().copied().filter(|&id| is_late(id)))
    }

    /// The same among the connections of one address.
    pub(super) fn eviction_candidate_of(
        &self,
        peer: PeerAddr,
        is_held_back: impl Fn(ConnId) -> bool,
        is_late: impl Fn(ConnId) -> bool,
    ) -> Option<ConnId> {
        let of_address = || self.per_address.of(peer.ip());
        let gone = of_address().find(|id| self.gone.contains(id) && is_held_back(*id));
        let late = |id: &ConnId| self.pending.contains(id) && is_late(*id);
        gone.or_else(|| of_address().find(late))
    }

    /// Checks that a connection's state and the indexes agree.
    pub(super) fn check_connection(&self, life: &Life) {
        let id = life.id;
        debug_assert_eq!(self.pending.contains(&id), life.is_pending(), "pending");
        debug_assert_eq!(
            self.draining.contains(&id),
            life.drain_cause().is_some(),
            "draining"
        );
        debug_assert!(
            !self.gone.contains(&id) || life.is_heard(),
            "gone, and to be read"
        );
        debug_assert!(!life.is_closed(), "closed connections are removed");
    }

    /// Checks that the indexes hold nothing but the `len` connections there are.
    pub(super) fn check_indexes(&self, len: usize) {
        debug_assert!(self.departures.is_empty(), "departures are removed");
        let indexed = self.pending.len() + self.draining.len() + self.members.total();
        debug_assert_eq!(
            indexed, len,
            "each connection is pending, draining or a member"
        );
        debug_assert!(
            self.gone.len() <= self.members.total(),
            "only members are gone"
        );
        if let Some(names) = &self.names {
            debug_assert!(
                names.len() <= self.members.total(),
                "members have the names"
            );
        }
        if let Some(of_addresses) = self.per_address.len() {
            debug_assert_eq!(of_addresses, len, "each connection has an address");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const ID: ConnId = ConnId::new(0, 7);
    const OTHER: ConnId = ConnId::new(1, 8);

    fn peer() -> PeerAddr {
        SocketAddr::from(([192, 0, 2, 1], 4001)).into()
    }

    fn member(lifecycle: &mut Lifecycle, id: ConnId) -> Life {
        let mut life = lifecycle.accept(id, peer(), Dialect::Chat10, None);
        lifecycle.join(&mut life, b"alice");
        life
    }

    /// Removes all that was closed, and returns the reasons.
    fn remove(lifecycle: &mut Lifecycle, life: &Life) -> Vec<CloseReason> {
        let departures = lifecycle.take_departures();
        for departure in &departures {
            lifecycle.remove(departure, life, peer());
        }
        departures
            .into_iter()
            .map(|departure| departure.reason)
            .collect()
    }

    #[test]
    fn a_connection_is_pending_until_its_name_comes_and_a_member_after_that() {
        let mut lifecycle = Lifecycle::new(None);
        let mut life = lifecycle.accept(ID, peer(), Dialect::Chat10, None);
        assert!(life.is_pending() && !life.is_open() && life.name().is_none());
        assert_eq!((lifecycle.pending(), lifecycle.members().total()), (1, 0));
        lifecycle.join(&mut life, b"alice");
        assert!(life.is_open() && life.is_heard() && life.is_writable());
        assert_eq!(life.name(), Some(&b"alice"[..]));
        assert_eq!(life.name_frame(), b"5         alice");
        assert_eq!((lifecycle.pending(), lifecycle.members().total()), (0, 1));
        lifecycle.check_connection(&life);
        lifecycle.check_indexes(1);
    }

    #[test]
    fn a_dialect_without_names_joins_at_once_and_one_that_only_greets_drains() {
        let mut lifecycle = Lifecycle::new(None);
        let life = lifecycle.accept(ID, peer(), Dialect::Chat64, None);
        assert_eq!(life.name(), Some(&b"192.0.2.1:4001"[..]));
        assert_eq!(lifecycle.members().of(Dialect::Chat64), 1);
        let life = lifecycle.accept(OTHER, peer(), Dialect::Hello, None);
        assert_eq!(life.drain_cause(), Some(DrainCause::Greeted));
        assert_eq!(lifecycle.members().total(), 1, "it is no member");
        lifecycle.check_indexes(2);
    }

    #[test]
    fn a_member_that_drains_is_no_member_any_more_and_ends_for_the_cause() {
        let mut lifecycle = Lifecycle::new(Some(1));
        let mut life = member(&mut lifecycle, ID);
        lifecycle.drain(&mut life, DrainCause::Farewell);
        assert!(!life.is_heard() && life.is_writable() && !life.is_open());
        assert_eq!(lifecycle.members().total(), 0);
        assert!(lifecycle.draining_ids().eq([ID]));
        lifecycle.check_connection(&life);
        lifecycle.close(&mut life, CloseReason::Io(ErrorKind::ConnectionReset));
        assert_eq!(remove(&mut lifecycle, &life), [CloseReason::Farewell]);
        assert_eq!(
            lifecycle.members().total(),
            0,
            "it is not counted down twice"
        );
        lifecycle.check_indexes(0);
    }

    #[test]
    fn a_failed_write_leaves_a_member_to_be_read_to_its_end() {
        let mut lifecycle = Lifecycle::new(None);
        let mut life = member(&mut lifecycle, ID);
        lifecycle.fail_write(&mut life, ErrorKind::BrokenPipe);
        assert!(life.is_heard() && !life.is_writable() && !life.is_open());
        assert_eq!(life.write_error(), Some(ErrorKind::BrokenPipe));
        assert_eq!(lifecycle.members().total(), 1);
        lifecycle.fail_write(&mut life, ErrorKind::ConnectionReset);
        assert_eq!(
            life.write_error(),
            Some(ErrorKind::BrokenPipe),
            "the first stands"
        );
        lifecycle.close(&mut life, CloseReason::Eof);
        assert_eq!(remove(&mut lifecycle, &life), [CloseReason::Eof]);
        lifecycle.check_indexes(0);
    }

    #[test]
    fn a_failed_write_closes_a_draining_connection_for_its_cause() {
        let mut lifecycle = Lifecycle::new(None);
        let mut life = member(&mut lifecycle, ID);
        lifecycle.drain(&mut life, DrainCause::Eof);
        lifecycle.fail_write(&mut life, ErrorKind::BrokenPipe);
        assert!(life.is_closed());
        assert_eq!(remove(&mut lifecycle, &life), [CloseReason::Eof]);
    }

    #[test]
    fn the_first_close_reason_stands() {
        let mut lifecycle = Lifecycle::new(None);
        let mut life = member(&mut lifecycle, ID);
        lifecycle.close(&mut life, CloseReason::IdleTimeout);
        lifecycle.close(&mut life, CloseReason::MessageTimeout);
        lifecycle.fail_write(&mut life, ErrorKind::BrokenPipe);
        assert_eq!(lifecycle.departing(), [ID]);
        assert_eq!(remove(&mut lifecycle, &life), [CloseReason::IdleTimeout]);
    }

    #[test]
    fn a_gone_peer_is_evicted_before_a_pending_one_and_a_young_pending_one_never() {
        let mut lifecycle = Lifecycle::new(Some(9));
        let mut pending = lifecycle.accept(ID, peer(), Dialect::Chat10, None);
        let mut gone = member(&mut lifecycle, OTHER);
        assert_eq!(lifecycle.eviction_candidate(|_| true, |_| false), None);
        assert_eq!(lifecycle.eviction_candidate(|_| true, |_| true), Some(ID));
        assert_eq!(
            lifecycle.eviction_candidate_of(peer(), |_| true, |_| true),
            Some(ID)
        );
        lifecycle.note_gone(&pending);
        assert_eq!(
            lifecycle.eviction_candidate(|_| true, |_| false),
            None,
            "no member yet"
        );
        lifecycle.note_gone(&gone);
        assert_eq!(
            lifecycle.eviction_candidate(|_| true, |_| true),
            Some(OTHER)
        );
        assert_eq!(
            lifecycle.eviction_candidate_of(peer(), |_| true, |_| true),
            Some(OTHER)
        );
        // What it has sent is about to be read.
        assert_eq!(lifecycle.eviction_candidate(|_| false, |_| false), None);
        let of_address = lifecycle.eviction_candidate_of(peer(), |_| false, |_| true);
        assert_eq!(of_address, Some(ID));
        let elsewhere = SocketAddr::from(([192, 0, 2, 2], 1)).into();
        assert_eq!(
            lifecycle.eviction_candidate_of(elsewhere, |_| true, |_| true),
            None
        );
        lifecycle.close(&mut gone, CloseReason::Evicted);
        lifecycle.close(&mut pending, CloseReason::Evicted);
        assert_eq!(lifecycle.eviction_candidate(|_| true, |_| true), None);
    }
}
