//! What the room reports: events, once a turn, and counters.

use std::net::SocketAddr;
use std::time::Duration;

use super::close_reason::{CloseReason, ClosedCounters};
use super::conn_id::ConnId;
use crate::wire::Dialect;

/// What happened in the room. The relay appends events as they happen, and the loop drains them once
/// a turn. They have no wording: that is the log's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomEvent {
    /// A connection was accepted.
    Accepted(Identity),
    /// A connection became a member.
    Joined {
        /// The member.
        member: Identity,
        /// How many members there are now.
        members: MemberCounts,
    },
    /// A member left, or a connection that was no member ended. The member may still be draining: it
    /// then ends for this reason, unless [`Closed`](Self::Closed) follows with another one.
    Left {
        /// The connection.
        peer: Identity,
        /// Why it left.
        reason: CloseReason,
        /// How many members there are now.
        members: MemberCounts,
        /// How long it was connected.
        age: Duration,
        /// How much of its input was discarded unread, in bytes.
        unread: u64,
    },
    /// A member that had left was closed before its remaining output was delivered.
    Closed {
        /// The connection.
        peer: Identity,
        /// Why it was closed.
        reason: CloseReason,
        /// How many members there are.
        members: MemberCounts,
    },
    /// A message was published. Reported only if that was
    /// [asked for](super::Relay::record_messages).
    Published {
        /// The member that sent it; `None` if the program around the relay did.
        sender: Option<ConnId>,
        /// Its sender's name.
        name: Box<[u8]>,
        /// The message.
        message: Box<[u8]>,
    },
    /// The room was paused for a slow reader.
    PauseBegan {
        /// The slow reader.
        reader: Identity,
        /// Its lag, in bytes.
        lag: u64,
    },
    /// No slow reader holds the room up any more.
    PauseEnded {
        /// How long that took.
        lasted: Duration,
    },
    /// A member exceeded its send quota, and is not read from for a while.
    Throttled {
        /// The member.
        member: Identity,
        /// How long it is not read from.
        wait: Duration,
    },
}

/// A connection, as events name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its identity in the relay.
    pub id: ConnId,
    /// Its name, if it has one: the bytes that it sent, or its address where its dialect has no names.
    pub name: Option<Box<[u8]>>,
    /// Its dialect.
    pub dialect: Dialect,
    /// Where it comes from.
    pub peer: SocketAddr,
}

/// How many members there are of each dialect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCounts([usize; Dialect::COUNT]);

impl MemberCounts {
    /// The number of members of this dialect.
    #[must_use]
    pub const fn of(&self, dialect: Dialect) -> usize {
        self.0[dialect.index()]
    }

    /// How many members there are.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    pub(super) const fn add(&mut self, dialect: Dialect) {
        self.0[dialect.index()] += 1;
    }

    pub(super) const fn remove(&mut self, dialect: Dialect) {
        self.0[dialect.index()] -= 1;
    }
}

/// A member, as the members' table shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo<'a> {
    /// Its identity in the relay.
    pub id: ConnId,
    /// Its name: the bytes that it sent, or its address where its dialect has no names.
    pub name: &'a [u8],
    /// Its dialect.
    pub dialect: Dialect,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// How long it has been connected, in whole seconds.
    pub age: Duration,
    /// How many messages it has sent.
    pub sent: u32,
    /// How many messages it was sent, or will be.
    pub received: u32,
    /// How many bytes of its output are pending.
    pub pending: u64,
    /// Whether it keeps up, and what the relay does if not.
    pub state: MemberState,
}

/// Whether a member keeps up with the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It receives all output at once.
    KeepingUp,
    /// It has pending output, and is no slow reader.
    Lagging,
    /// It is a slow reader, for which senders are paused.
    Slow,
    /// It has pending output, and the room does not wait for it: its socket has accepted nothing for long, or
    /// it has started with a long history.
    Stalled,
    /// It exceeded its send quota, and is not read from for a while.
    Throttled,
    /// It has left, and receives its remaining output.
    Leaving,
}

impl MemberState {
    /// The word for it, in tables and in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::KeepingUp => "ok",
            Self::Lagging => "lagging",
            Self::Slow => "slow",
            Self::Stalled => "stalled",
            Self::Throttled => "throttled",
            Self::Leaving => "leaving",
        }
    }
}

/// What a relay has counted since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted, whether they became members or not.
    pub accepted: u64,
    /// Connections refused because the relay or their address was at its limit, or for lack of a
    /// descriptor.
    pub refused: u64,
    /// Connections that became members.
    pub joined: u64,
    /// The most members at one time.
    pub peak_members: usize,
    /// Messages relayed, counted once each however many members received them.
    pub messages: u64,
    /// Deliveries: each message counted once for each member that received it then, or will. Those of the
    /// history are not included.
    pub deliveries: u64,
    /// Reads that returned bytes.
    pub reads: u64,
    /// Bytes read from all connections.
    pub bytes_in: u64,
    /// Writes that a socket accepted at least in part.
    pub writes: u64,
    /// Bytes written to all connections.
    pub bytes_out: u64,
    /// Bytes that were received and discarded unread, because the relay closed their connection.
    pub bytes_discarded: u64,
    /// How often the room was paused for slow readers, and for how long until the last of these pauses ended.
    pub pauses: u64,
    /// See `pauses`.
    pub paused: Duration,
    /// How often a member was throttled.
    pub throttles: u64,
    /// How many connections ended for each [`CloseReason`].
    pub closed: ClosedCounters,
}

/// The state of a relay at one moment, as an operator looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Connections, members or not.
    pub connections: usize,
    /// Connections that have not sent their name yet.
    pub pending: usize,
    /// Members of each dialect.
    pub members: MemberCounts,
    /// Connections with pending output.
    pub lagging: usize,
    /// The largest pending output of one connection, in bytes.
    pub largest_lag: u64,
    /// The bytes in the backlogs, for lagging members and as history: once, however many members lag.
    pub backlog_bytes: u64,
    /// The memory that is held for the connections, in bytes, without the fixed size of each.
    pub held_bytes: usize,
    /// Whether the room is paused for a slow reader.
    pub is_paused: bool,
    /// For how long the room was paused in all, the present pause included.
    pub paused: Duration,
    /// Members that are not read from because they exceeded their send quota.
    pub throttled: usize,
}
