//! The memory limit: which connections are closed when too much is held.

use std::cmp::Reverse;
use std::time::Instant;

use super::close_reason::CloseReason;
use super::connection::Connection;
use super::room::Room;
use super::table::Connections;

/// The two kinds of memory. To close a connection that holds none of the kind that is short would free
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// What connections hold of their own: incomplete messages, splices, and what their streams hold.
    Own,
    /// Published bytes, in one copy for all lagging members.
    Shared,
}

/// Closes connections until no more memory is held than the limit allows.
///
/// Of the kind that there is more of, the connection that holds most is closed first: the largest
/// incomplete message, or the longest lag. Among those that lag, members that are stalled go before
/// slow readers: a reader pays last for what others publish.
#[cold]
pub(super) fn free_memory<S>(
    connections: &mut Connections<S>,
    room: &mut Room,
    bytes_of_stream: fn(&S) -> usize,
    now: Instant,
) {
    // What is held by connections that are closed already is free.
    for id in room.lifecycle.departing() {
        if let Some(connection) = connections.get_mut(id) {
            free(connection, room, bytes_of_stream, now);
        }
    }
    let shared = room.channels.shared_bytes();
    let kinds = if room.held_bytes() - shared > shared {
        [Kind::Own, Kind::Shared]
    } else {
        [Kind::Shared, Kind::Own]
    };
    for kind in kinds {
        let mut holders: Vec<_> = connections
            .iter()
            .filter(|connection| !connection.life.is_closed())
            .map(|connection| {
                (
                    holding(room, connection, kind, bytes_of_stream),
                    connection.id(),
                )
            })
            .filter(|&((_, held), _)| held > 0)
            .collect();
        holders.sort_unstable_by_key(|&(holding, _)| Reverse(holding));
        for ((_, held), id) in holders {
            if room.held_bytes() <= room.limits.max_memory {
                return;
            }
            if let Some(connection) = connections.get_mut(id) {
                room.close(connection, CloseReason::OutOfMemory { held });
                free(connection, room, bytes_of_stream, now);
            }
        }
    }
}

/// Frees what a closed connection holds. Its stream will be dropped in this turn.
fn free<S>(
    connection: &mut Connection<S>,
    room: &mut Room,
    bytes_of_stream: fn(&S) -> usize,
    now: Instant,
) {
    let held = bytes_of_stream(&connection.stream);
    room.stream_bytes = room.stream_bytes.saturating_sub(held);
    room.free(connection, now);
}

/// The sort key: stalled members first (those that read their history are among them), then by the bytes
/// held of this kind.
fn holding<S>(
    room: &Room,
    connection: &Connection<S>,
    kind: Kind,
    bytes_of_stream: fn(&S) -> usize,
) -> (bool, u64) {
    match (kind, connection.output.as_deref()) {
        (Kind::Own, _) => {
            let held = room.own_bytes(connection) + bytes_of_stream(&connection.stream);
            (false, held as u64)
        }
        (Kind::Shared, None) => (false, 0),
        (Kind::Shared, Some(output)) => {
            let backlog = &room.channels[connection.dialect()].backlog;
            (output.tracker.is_stalled(), output.cursor.lag(backlog))
        }
    }
}
