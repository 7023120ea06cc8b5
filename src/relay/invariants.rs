//! What must hold between turns, checked in debug builds.

use super::channel::Backlog;
use super::connection::PendingOutput;
use super::ready::Marks;
use super::room::Room;
use super::table::Connections;
use super::timers::TimerKind;

/// In a room of more connections the invariants are not checked: each check walks all of them.
const MAX_CHECKED: usize = 500;

/// Checks everything that must hold between turns.
pub(super) fn check<S>(connections: &Connections<S>, room: &Room) {
    if connections.len() > MAX_CHECKED {
        return;
    }
    room.lifecycle.check_indexes(connections.len());
    let mut listed: Vec<_> = room.ready.listed().collect();
    listed.sort_unstable();
    for connection in connections.iter() {
        let (readiness, life) = (connection.readiness, &connection.life);
        room.lifecycle.check_connection(life);
        let id = connection.id();
        let has_timer = |kind| room.timers.at(id, kind).is_some();
        let is_parked = readiness.marks.any(Marks::PARKED);
        let lists = listed.partition_point(|&other| other <= id)
            - listed.partition_point(|&other| other < id);
        debug_assert_eq!(
            lists + usize::from(is_parked),
            usize::from(readiness.is_readable()),
            "a readable connection is in one place, and no other is in any"
        );
        debug_assert!(
            !is_parked || room.flow.is_self_paused(id) || has_timer(TimerKind::Throttle),
            "something will list a parked connection again"
        );
        let has_mark = readiness.marks.any(Marks::MESSAGE_TIMER);
        debug_assert_eq!(has_timer(TimerKind::Message), has_mark, "the mark");
        debug_assert_eq!(
            has_timer(TimerKind::Name),
            life.is_pending(),
            "its deadline"
        );
        let drains = life.drain_cause().is_some();
        debug_assert_eq!(has_timer(TimerKind::Drain), drains, "its deadline");
        let tracker = connection.output.as_deref().map(|output| &output.tracker);
        room.flow.check(life, tracker);
    }
    check_totals(connections, room);
}

fn check_totals<S>(connections: &Connections<S>, room: &Room) {
    let partial: usize = connections.iter().map(|one| room.partial_bytes(one)).sum();
    debug_assert_eq!(room.flow.partial_bytes(), partial, "incomplete frames");
    let outputs = || connections.iter().filter_map(|one| one.output.as_deref());
    let backlogs = || room.channels.iter().map(|channel| &channel.backlog);
    let cursor_bytes: usize = backlogs().map(Backlog::cursor_bytes).sum();
    let output_bytes: usize = outputs().map(PendingOutput::held_bytes).sum();
    debug_assert_eq!(cursor_bytes, output_bytes, "the memory of the cursors");
    let readers: usize = backlogs().map(Backlog::readers).sum();
    debug_assert_eq!(
        readers,
        outputs().count() + usize::from(room.bus.is_some()),
        "a reader of a backlog is a member with a cursor, or the bus"
    );
    for channel in room.channels.iter() {
        channel.backlog.check();
        let members = room.lifecycle.members().of(channel.dialect);
        debug_assert_eq!(channel.members, members, "the members of a channel");
    }
    let is_connection = |id| connections.get(id).is_some();
    debug_assert!(
        room.timers.connections().all(is_connection),
        "timers are cancelled"
    );
    let slow = room.flow.check_members(is_connection);
    debug_assert!(slow <= readers, "a slow reader has a cursor");
}
