//! What the relay remembers between the steps of a turn, for a program that shows it, such as a trace. All of it
//! is borrowed, and costs nothing where nothing asks.

use std::net::SocketAddr;

use super::conn_id::ConnId;
use super::connection::Connection;
use super::ready::{Marks, Ready};
use super::room::Room;
use crate::wire::Dialect;

/// `ConnectionState` is what the relay remembers of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionState<'a> {
    /// Its identity in the relay.
    pub id: ConnId,
    /// Its name, if it has one: the bytes that it sent, or its address where its dialect has no names.
    pub name: Option<&'a [u8]>,
    /// Its dialect.
    pub dialect: Dialect,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The readiness that was reported and not used up.
    pub ready: Ready,
    /// Whether it is readable and on no list: the end of its throttle or of its own pause lists it again.
    pub is_parked: bool,
    /// Its cursor, if it lags.
    pub cursor: Option<CursorState>,
}

/// `CursorState` is the position of one lagging member in its channel's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorState {
    /// The position, in bytes from the start of the stream.
    pub position: u64,
    /// How many bytes of its output are pending.
    pub pending: u64,
}

/// `ChannelState` is the state of one channel: the stream that all members of one dialect receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelState {
    /// The dialect.
    pub dialect: Dialect,
    /// How many members receive it.
    pub members: usize,
    /// The position of the first byte in the backlog.
    pub base: u64,
    /// The position after the last byte in the backlog.
    pub end: u64,
    /// How many bytes the turn buffer holds.
    pub turn_len: usize,
}

/// The state of one connection.
pub(super) fn state_of<'a, S>(connection: &'a Connection<S>, room: &Room) -> ConnectionState<'a> {
    let (life, dialect) = (&connection.life, connection.dialect());
    let backlog = &room.channels[dialect].backlog;
    let output = connection.output.as_deref();
    ConnectionState {
        id: life.id(),
        name: life.name(),
        dialect,
        peer: connection.peer.into(),
        ready: connection.readiness.kernel,
        is_parked: connection.readiness.marks.any(Marks::PARKED),
        cursor: output.map(|output| CursorState {
            position: output.cursor.position(),
            pending: output.cursor.pending_bytes(backlog),
        }),
    }
}

/// Whether the relay remembers more of a connection than that it is there: readiness that was not used up, or
/// pending output.
pub(super) fn is_busy<S>(connection: &Connection<S>) -> bool {
    connection.readiness.kernel != Ready::default() || connection.output.is_some()
}

/// The state of each channel that has members or holds bytes.
pub(super) fn channel_states(room: &Room) -> impl Iterator<Item = ChannelState> {
    let states = room.channels.iter().map(|channel| ChannelState {
        dialect: channel.dialect,
        members: channel.members,
        base: channel.backlog.end() - channel.backlog.len(),
        end: channel.backlog.end(),
        turn_len: channel.turn.len(),
    });
    states.filter(|one| one.members > 0 || one.turn_len > 0 || one.base < one.end)
}
