//! The room without sockets: every order of reads, writes, refusals and ends that sockets cannot be
//! made to produce on request.

use std::io::ErrorKind;
use std::time::Duration;

use chatloop::relay::{CloseReason, ConnId, Counters, Limits, Ready, ReplyTexts, RoomEvent, Slow};
use chatloop::wire::Dialect::{Ack64, Chat64};
use proptest::prelude::*;

use crate::common::script::{Peer, Room, Script, TUTORIALS};
use crate::common::{assert_bytes, delivery, frame, parse_frames, wide_frame};

const SECOND: Duration = Duration::from_secs(1);

fn room() -> Room {
    Room::new(Limits::default())
}

fn closed(room: &Room, key: &str) -> u64 {
    room.relay.counters().closed.of(key)
}

/// What was reported of a member's end: that it left, with how many members there were then, and that it
/// was closed.
fn departures(events: &[RoomEvent], of: &Peer) -> Vec<(CloseReason, usize)> {
    let departure = |event: &RoomEvent| match event {
        RoomEvent::Left {
            peer,
            reason,
            members,
            ..
        }
        | RoomEvent::Closed {
            peer,
            reason,
            members,
        } if peer.id == of.id => Some((reason.clone(), members.total())),
        _ => None,
    };
    events.iter().filter_map(departure).collect()
}

#[test]
fn deliveries_are_counted_once_for_each_member_that_receives_the_message() {
    let mut room = Room::serving(&TUTORIALS, Limits::default(), &ReplyTexts::default());
    let alice = room.join("alice");
    room.say(&alice, "to no other member");
    let deliveries = |room: &Room| room.relay.counters().deliveries;
    assert_eq!(deliveries(&room), 0);
    let bob = room.join("bob");
    // One receives messages, the other answers only.
    let (chat64, _ack64) = (room.connect_to(Chat64), room.connect_to(Ack64));
    room.turns();
    room.say(&alice, "to two");
    assert_eq!(deliveries(&room), 2);
    chat64
        .stream
        .sends([wide_frame("to two"), wide_frame("to two")].concat());
    room.readable(&chat64);
    room.turns();
    assert_eq!(deliveries(&room), 2 + 2 * 2);
    // A member that leaves in the turn receives what is published in it.
    bob.stream.closes();
    room.read_closed(&bob);
    alice.stream.sends(frame("to the last two"));
    room.readable(&alice);
    room.turns();
    assert_eq!(deliveries(&room), 6 + 2);
    room.relay.publish(b"server", b"to two").unwrap();
    room.turns();
    assert_eq!(deliveries(&room), 8 + 2);
}

#[test]
fn gauges_show_the_slowest_member_and_the_pause_for_it() {
    let limits = Limits {
        soft_limit: 1000,
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    let slower = room.join("slower");
    let _pending = room.connect();
    let before = room.relay.gauges(room.now);
    assert_eq!((before.connections, before.pending), (4, 1));
    assert_eq!(before.members.total(), 3);
    assert_eq!((before.lagging, before.largest_lag), (0, 0));
    slower.stream.takes(0);
    room.say(&alice, "x".repeat(500));
    slow.stream.takes(0);
    room.say(&alice, "x".repeat(500));
    let one = delivery("alice", "x".repeat(500)).len() as u64;
    let gauges = room.relay.gauges(room.now);
    assert_eq!((gauges.lagging, gauges.largest_lag), (2, 2 * one));
    assert!(gauges.is_paused && gauges.backlog_bytes >= 2 * one);
    let later = room.now + 3 * SECOND;
    assert_eq!(room.relay.gauges(later).paused, 3 * SECOND);
    assert_eq!(room.relay.counters().paused, Duration::ZERO);
    room.now = later;
    for peer in [&slow, &slower] {
        peer.stream.takes(usize::MAX);
        room.writable(peer);
    }
    room.turns();
    let gauges = room.relay.gauges(room.now);
    assert_eq!((gauges.lagging, gauges.is_paused), (0, false));
    let counters = room.relay.counters();
    assert_eq!((counters.pauses, counters.paused), (1, 3 * SECOND));
    assert_eq!(gauges.paused, 3 * SECOND);
}

#[test]
fn message_reaches_every_member_but_its_sender_under_the_senders_name() {
    let mut room = room();
    let (alice, bob, carol) = (room.join("alice"), room.join("bob"), room.join("carol"));
    room.say(&alice, "hello");
    assert_bytes(&bob.stream.received(), b"5         alice5         hello");
    assert_bytes(&carol.stream.received(), b"5         alice5         hello");
    assert_bytes(&alice.stream.received(), b"");
}

#[test]
fn names_and_messages_may_be_empty_and_any_bytes() {
    let mut room = room();
    let (unnamed, listener) = (room.join(""), room.join("listener"));
    room.say(&unnamed, "");
    room.say(&unnamed, b"\x1b[2J\n\0\xff");
    let expected = [delivery("", ""), delivery("", b"\x1b[2J\n\0\xff")].concat();
    assert_bytes(&listener.stream.received(), &expected);
}

#[test]
fn relayed_headers_are_written_anew() {
    let mut room = room();
    let listener = room.join("listener");
    let alice = room.connect();
    alice.stream.sends(*b"       005alice");
    alice.stream.sends(*b" 5        hello0000000002hi");
    room.readable(&alice);
    room.turns();
    room.readable(&alice);
    room.turns();
    let expected = [delivery("alice", "hello"), delivery("alice", "hi")].concat();
    assert_bytes(&listener.stream.received(), &expected);
}

#[test]
fn pending_connection_receives_nothing_and_publishes_nothing() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let pending = room.connect();
    pending.stream.sends(&frame("new")[..12]);
    room.readable(&pending);
    room.say(&alice, "before");
    assert_bytes(&pending.stream.received(), b"");
    assert_eq!(room.relay.members().total(), 2);

    pending
        .stream
        .sends([&frame("new")[12..], &frame("hi")].concat());
    room.readable(&pending);
    room.turn();
    room.say(&alice, "after");
    assert_bytes(&pending.stream.received(), &delivery("alice", "after"));
    let expected = [
        delivery("alice", "before"),
        delivery("new", "hi"),
        delivery("alice", "after"),
    ];
    assert_bytes(&bob.stream.received(), &expected.concat());
}

#[test]
fn new_member_receives_only_what_is_published_after_it_joined() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let pending = room.connect();
    alice.stream.sends(frame("too early"));
    pending.stream.sends([frame("new"), frame("mine")].concat());
    bob.stream.sends(frame("just right"));
    for peer in [&alice, &pending, &bob] {
        room.readable(peer);
    }
    room.turn();
    assert_bytes(&pending.stream.received(), &delivery("bob", "just right"));
    let expected = [delivery("new", "mine"), delivery("bob", "just right")].concat();
    assert_bytes(&alice.stream.received(), &expected);
    let expected = [delivery("alice", "too early"), delivery("new", "mine")].concat();
    assert_bytes(&bob.stream.received(), &expected);
}

#[test]
fn turn_costs_each_member_one_write_however_much_was_published() {
    let mut room = room();
    let members: Vec<_> = (0..20).map(|i| room.join(format!("member {i}"))).collect();
    for member in &members {
        member.stream.write_calls();
        member
            .stream
            .sends([frame("one"), frame("two"), frame("three")].concat());
        room.readable(member);
    }
    room.turn();
    for member in &members {
        assert_eq!(member.stream.write_calls(), 1);
        assert_eq!(parse_frames(&member.stream.received()).len(), 2 * 3 * 19);
    }
    room.say(&members[0], "alone");
    assert_eq!(
        members[0].stream.write_calls(),
        0,
        "it sent all that was published"
    );
    assert_eq!(members[1].stream.write_calls(), 1);
}

/// Each member sends in one turn; one member's socket accepts `first` bytes, later `step` at a time.
fn deliver_in_pieces(first: usize, step: usize) {
    let mut room = room();
    let members: Vec<_> = (0..3).map(|i| room.join(format!("member {i}"))).collect();
    let slow = &members[1];
    slow.stream.takes(first);
    for (i, member) in members.iter().enumerate() {
        member
            .stream
            .sends([frame(format!("a{i}")), frame(format!("b{i}"))].concat());
        room.readable(member);
    }
    room.turn();
    room.say(slow, "while it lags");
    room.say(&members[2], "last");
    let expected = [
        delivery("member 0", "a0"),
        delivery("member 0", "b0"),
        delivery("member 2", "a2"),
        delivery("member 2", "b2"),
        delivery("member 2", "last"),
    ]
    .concat();
    let mut got = slow.stream.received();
    assert_eq!(got.len(), first.min(expected.len()));
    assert_eq!(
        room.relay.pending_bytes(slow.id),
        (expected.len() - got.len()) as u64
    );
    while room.relay.pending_bytes(slow.id) > 0 {
        slow.stream.takes(step);
        room.writable(slow);
        room.turns();
        got.extend(slow.stream.received());
    }
    assert_bytes(&got, &expected);
    assert_eq!(room.relay.backlog_bytes(), 0, "no member lags");
    assert_eq!(room.relay.lagging(), 0);

    slow.stream.takes(usize::MAX);
    room.say(&members[0], "again at once");
    assert_bytes(
        &slow.stream.received(),
        &delivery("member 0", "again at once"),
    );
}

#[test]
fn socket_that_blocks_at_any_byte_receives_every_byte_in_order() {
    for first in 0..150 {
        deliver_in_pieces(first, 1);
        deliver_in_pieces(first, 13);
        deliver_in_pieces(first, usize::MAX);
    }
}

#[test]
fn backlog_holds_one_copy_for_a_hundred_members_that_stopped_reading() {
    let mut room = room();
    let alice = room.join("alice");
    let stopped: Vec<_> = (0..100)
        .map(|i| room.join(format!("stopped {i}")))
        .collect();
    for member in &stopped {
        member.stream.takes(0);
    }
    let mut sent = 0;
    for i in 0..1000 {
        let message = format!("message {i}");
        sent += delivery("alice", &message).len() as u64;
        room.say(&alice, message);
    }
    assert_eq!(room.relay.backlog_bytes(), sent);
    assert_eq!(room.relay.unread_bytes(), sent);
    assert_eq!(room.relay.lagging(), 100);
    for member in &stopped {
        assert_eq!(room.relay.pending_bytes(member.id), sent);
    }
    assert!(stopped.iter().all(|member| !member.stream.is_closed()));

    // When they read again, they receive all of it.
    for member in &stopped {
        member.stream.takes(usize::MAX);
        room.writable(member);
    }
    room.turns();
    for member in &stopped {
        assert_eq!(parse_frames(&member.stream.received()).len(), 2 * 1000);
    }
    assert_eq!(room.relay.counters().bytes_out, 100 * sent);
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn blocked_socket_is_not_written_to_before_it_is_writable() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    room.say(&alice, "one");
    assert_eq!(slow.stream.write_calls(), 1);
    room.say(&alice, "two");
    room.say(&alice, "three");
    assert_eq!(slow.stream.write_calls(), 0);
    assert!(!room.relay.has_ready(), "the next edge will come");
    room.writable(&alice);
    assert!(!room.relay.has_ready(), "no output is pending for alice");
}

#[test]
fn long_backlog_is_written_in_parts_without_further_edges() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    let message = vec![b'x'; 1024 * 1024];
    let mut expected = Vec::new();
    for _ in 0..3 {
        alice.stream.sends(frame(&message));
        room.readable(&alice);
        room.turns();
        expected.extend(delivery("alice", &message));
    }
    slow.stream.takes(usize::MAX);
    room.writable(&slow);
    room.turn();
    let first = slow.stream.received();
    assert!(
        first.len() <= 1024 * 1024,
        "the others have their turns between"
    );
    assert!(
        room.relay.has_ready(),
        "no edge comes for a socket that never blocked"
    );
    room.turns();
    assert_bytes(&[first, slow.stream.received()].concat(), &expected);
}

#[test]
fn slow_consumer_is_closed_over_the_queue_limit_and_not_at_it() {
    let limit = 1_048_576 + 256 + 20;
    let mut room = Room::new(Limits {
        queue_limit: limit,
        slow: Slow::Cut,
        ..Limits::default()
    });
    let (alice, slow, bob) = (room.join("alice"), room.join("slow"), room.join("bob"));
    slow.stream.takes(0);
    // Exactly the limit: 25 bytes are name and headers.
    let mut sent = 0;
    while sent < limit {
        let message = vec![b'x'; (limit - sent - 25).min(1_000)];
        sent += delivery("alice", &message).len();
        room.say(&alice, message);
    }
    assert_eq!(room.relay.pending_bytes(slow.id), limit as u64);
    assert!(!slow.stream.is_closed(), "the limit itself is allowed");

    room.say(&alice, "");
    assert!(slow.stream.is_closed());
    assert_eq!(room.relay.backlog_bytes(), 0, "its output is freed");
    assert_eq!(room.relay.held_bytes(), 0);
    assert_eq!(closed(&room, "slow_consumer"), 1);
    assert_eq!(room.relay.members().total(), 2);
    assert_eq!(bob.stream.received().len(), sent + 25);
    room.say(&alice, "still here");
    assert_bytes(&bob.stream.received(), &delivery("alice", "still here"));
}

#[test]
fn turn_larger_than_the_queue_limit_does_not_close_a_member_that_kept_up() {
    for slow in [Slow::Cut, Slow::Pace] {
        let mut room = Room::new(Limits {
            max_message: 1000,
            queue_limit: 2000,
            soft_limit: 1000,
            slow,
            ..Limits::default()
        });
        let (alice, bob) = (room.join("alice"), room.join("bob"));
        bob.stream.takes(100);
        room.say(&alice, "");
        bob.stream.takes(100);
        alice.stream.sends(frame(vec![b'x'; 1000]).repeat(10));
        room.readable(&alice);
        room.turn();
        assert!(!bob.stream.is_closed(), "it has had no time to read");
        bob.stream.takes(usize::MAX);
        room.writable(&bob);
        room.turns();
        let sent = [
            delivery("alice", ""),
            delivery("alice", vec![b'x'; 1000]).repeat(10),
        ];
        assert_bytes(&bob.stream.received(), &sent.concat());
    }
}

#[test]
fn member_that_sends_and_never_reads_is_closed_at_the_queue_limit() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    alice.stream.takes(0);
    room.say(&bob, "one message that alice never reads");
    let message = vec![b'x'; 60_000];
    let mut turns = 0;
    while !alice.stream.is_closed() {
        room.say(&alice, &message);
        room.pass(SECOND);
        turns += 1;
        assert!(room.relay.backlog_bytes() < 9 * 1024 * 1024);
        assert!(turns < 200, "it is never closed");
    }
    assert_eq!(closed(&room, "slow_consumer"), 1);
}

#[test]
fn dead_receiver_does_not_disconnect_the_sender_or_other_members() {
    for kind in [
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
        ErrorKind::TimedOut,
    ] {
        let mut room = room();
        let (alice, dead, bob) = (room.join("alice"), room.join("dead"), room.join("bob"));
        dead.stream.breaks(kind);
        room.say(&alice, "hello");
        room.turns();
        assert!(dead.stream.is_closed());
        assert_eq!(room.relay.members().total(), 2);
        room.say(&alice, "again");
        let expected = [delivery("alice", "hello"), delivery("alice", "again")].concat();
        assert_bytes(&bob.stream.received(), &expected);
    }
}

#[test]
fn last_messages_of_a_member_whose_writes_fail_are_relayed() {
    let mut room = room();
    let (alice, dying, bob) = (room.join("alice"), room.join("dying"), room.join("bob"));
    dying.stream.breaks(ErrorKind::ConnectionReset);
    dying
        .stream
        .sends(frame("my last words"))
        .fails(ErrorKind::ConnectionReset);
    room.say(&alice, "hello");
    room.turns();
    let expected = [
        delivery("alice", "hello"),
        delivery("dying", "my last words"),
    ]
    .concat();
    assert_bytes(&bob.stream.received(), &expected);
    assert!(dying.stream.is_closed());
    assert_eq!(closed(&room, "io"), 1);
}

#[test]
fn pending_output_is_dropped_when_a_write_fails_and_last_messages_are_relayed() {
    let mut room = room();
    let (alice, dying, bob) = (room.join("alice"), room.join("dying"), room.join("bob"));
    dying.stream.takes(3);
    room.say(&alice, "hello");
    dying.stream.breaks(ErrorKind::ConnectionReset);
    dying
        .stream
        .sends(frame("bye"))
        .fails(ErrorKind::ConnectionReset);
    room.writable(&dying);
    room.turns();
    assert!(dying.stream.is_closed());
    assert_eq!(room.relay.backlog_bytes(), 0);
    let expected = [delivery("alice", "hello"), delivery("dying", "bye")].concat();
    assert_bytes(&bob.stream.received(), &expected);
}

#[test]
fn pending_output_is_dropped_before_the_last_messages_are_read() {
    let mut room = room();
    let (alice, dying, bob) = (room.join("alice"), room.join("dying"), room.join("bob"));
    dying.stream.takes(3);
    room.say(&alice, "hello");
    bob.stream.received();
    dying.stream.breaks(ErrorKind::ConnectionReset);
    dying
        .stream
        .sends_byte_by_byte(frame("more than is read in a turn"))
        .fails(ErrorKind::ConnectionReset);
    room.writable(&dying);
    room.turn();
    assert!(!dying.stream.is_closed());
    assert_eq!(room.relay.backlog_bytes(), 0);
    room.turns();
    assert!(dying.stream.is_closed());
    let last = delivery("dying", "more than is read in a turn");
    assert_bytes(&bob.stream.received(), &last);
}

// ---- The end of input is a departure.

#[test]
fn member_whose_input_ends_leaves_after_its_last_messages() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    room.take_events();
    alice.stream.sends(frame("bye")).closes();
    room.read_closed(&alice);
    room.turn();
    assert_bytes(&bob.stream.received(), &delivery("alice", "bye"));
    assert!(alice.stream.is_closed());
    assert_eq!(room.relay.members().total(), 1);
    let events = room.take_events();
    assert_eq!(departures(&events, &alice), [(CloseReason::Eof, 1)]);
    assert_eq!(closed(&room, "eof"), 1);
    room.say(&bob, "alone");
    assert_bytes(&alice.stream.received(), b"");
}

#[test]
fn member_that_leaves_receives_the_turn_of_its_end_and_nothing_after_it() {
    let mut room = room();
    let (alice, bob, leaver) = (room.join("alice"), room.join("bob"), room.join("leaver"));
    alice.stream.sends(frame("before it"));
    leaver.stream.sends(frame("bye")).closes();
    bob.stream.sends(frame("after it, in the same turn"));
    room.readable(&alice);
    room.read_closed(&leaver);
    room.readable(&bob);
    room.turn();
    room.say(&alice, "in the next turn");
    let expected = [
        delivery("alice", "before it"),
        delivery("bob", "after it, in the same turn"),
    ];
    assert_bytes(&leaver.stream.received(), &expected.concat());
    assert!(leaver.stream.is_closed());
}

#[test]
fn departure_is_reported_at_once_and_pending_output_is_delivered_after_it() {
    let mut room = room();
    let (alice, bob, leaver) = (room.join("alice"), room.join("bob"), room.join("leaver"));
    leaver.stream.takes(10);
    room.say(&alice, "pending");
    room.take_events();
    leaver.stream.sends(frame("bye")).closes();
    alice.stream.sends(frame("in its last turn"));
    room.read_closed(&leaver);
    room.readable(&alice);
    room.turn();
    let events = room.take_events();
    assert_eq!(departures(&events, &leaver), [(CloseReason::Eof, 2)]);
    assert_eq!(room.relay.members().total(), 2);
    assert!(!leaver.stream.is_closed());
    room.say(&alice, "too late");
    // Later events repeat that its sending side is closed.
    room.read_closed(&leaver);
    room.turns();
    leaver.stream.takes(usize::MAX);
    room.writable(&leaver);
    room.turns();
    assert!(leaver.stream.is_closed());
    let expected = [
        delivery("alice", "pending"),
        delivery("alice", "in its last turn"),
    ];
    assert_bytes(&leaver.stream.received(), &expected.concat());
    let expected = [
        delivery("alice", "pending"),
        delivery("leaver", "bye"),
        delivery("alice", "in its last turn"),
        delivery("alice", "too late"),
    ];
    assert_bytes(&bob.stream.received(), &expected.concat());
    assert_eq!(
        departures(&room.take_events(), &leaver),
        [],
        "it was reported"
    );
    assert_eq!(closed(&room, "eof"), 1);
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn member_that_leaves_receives_the_acknowledgements_of_its_last_messages() {
    for accepts in [usize::MAX, 20, 0] {
        let mut room = Room::serving(&TUTORIALS, Limits::default(), &ReplyTexts::default());
        let (alice, leaver) = (room.join("alice"), room.connect_to(Chat64));
        room.turns();
        leaver.stream.takes(accepts);
        leaver
            .stream
            .sends([wide_frame("one"), wide_frame("two")].concat())
            .closes();
        alice.stream.sends(frame("in the same turn"));
        room.read_closed(&leaver);
        room.readable(&alice);
        room.turns();
        assert_eq!(leaver.stream.is_closed(), accepts == usize::MAX);
        leaver.stream.takes(usize::MAX);
        room.writable(&leaver);
        room.turns();
        assert!(leaver.stream.is_closed());
        let expected = b"Message was Sent!Message was Sent!in the same turn";
        assert_bytes(&leaver.stream.received(), expected);
        assert_eq!(parse_frames(&alice.stream.received()).len(), 2 * 2);
    }
}

#[test]
fn draining_member_that_accepts_nothing_for_the_farewell_timeout_is_closed() {
    let mut room = room();
    let (alice, leaver) = (room.join("alice"), room.join("leaver"));
    leaver.stream.takes(0);
    room.say(&alice, "pending");
    leaver.stream.closes();
    room.read_closed(&leaver);
    room.turns();
    room.take_events();
    room.pass(59 * SECOND);
    leaver.stream.takes(5);
    room.writable(&leaver);
    room.turns();
    // It has accepted something, so it has as much time again.
    room.pass(60 * SECOND);
    assert!(!leaver.stream.is_closed());
    room.pass(SECOND);
    assert!(leaver.stream.is_closed());
    let pending = delivery("alice", "pending").len() as u64 - 5;
    let reason = CloseReason::DrainTimeout { pending };
    let events = room.take_events();
    assert_eq!(departures(&events, &leaver), [(reason, 1)]);
    assert_eq!(closed(&room, "drain_timeout"), 1);
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn draining_member_whose_peer_is_gone_ends_for_the_reason_for_which_it_left() {
    for is_reported in [true, false] {
        let mut room = room();
        let (alice, leaver) = (room.join("alice"), room.join("leaver"));
        leaver.stream.takes(0);
        room.say(&alice, "pending");
        leaver.stream.closes();
        room.read_closed(&leaver);
        room.turns();
        room.take_events();
        if is_reported {
            room.relay.note(leaver.id, Ready::READABLE | Ready::HUNG_UP);
        } else {
            leaver.stream.breaks(ErrorKind::ConnectionReset);
            room.writable(&leaver);
        }
        room.turns();
        assert!(leaver.stream.is_closed());
        assert_eq!(departures(&room.take_events(), &leaver), []);
        assert_eq!((closed(&room, "eof"), closed(&room, "io")), (1, 0));
        assert_eq!(room.relay.backlog_bytes(), 0);
    }
}

#[test]
fn hung_up_connection_is_closed_though_its_end_cannot_be_read() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    alice.stream.sends(frame("bye"));
    room.relay.note(alice.id, Ready::READABLE | Ready::HUNG_UP);
    room.turns();
    assert_bytes(&bob.stream.received(), &delivery("alice", "bye"));
    assert!(alice.stream.is_closed());
    assert_eq!(closed(&room, "eof"), 1);
}

#[test]
fn end_of_input_that_was_reported_before_it_was_reached_is_not_forgotten() {
    let mut room = Room::new(Limits {
        read_budget: 8,
        ..Limits::default()
    });
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    // 41 bytes in budgets of eight, reported by one edge; the last read is a short one.
    alice
        .stream
        .sends(frame("a message of thirty-one bytes.."))
        .closes();
    room.read_closed(&alice);
    room.turns();
    assert_bytes(
        &bob.stream.received(),
        &delivery("alice", "a message of thirty-one bytes.."),
    );
    assert!(alice.stream.is_closed());
    assert_eq!(closed(&room, "eof"), 1);
}

#[test]
fn reads_of_one_connection_are_bounded_in_each_turn() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let stream = frame("x").repeat(100);
    alice.stream.read_calls();
    alice.stream.sends_byte_by_byte(&stream);
    room.read_closed(&alice);
    room.turn();
    assert!(alice.stream.read_calls() < 100);
    assert!(room.relay.has_ready(), "and goes on in the next");
    room.turns();
    assert_bytes(&bob.stream.received(), &delivery("alice", "x").repeat(100));
}

#[test]
fn short_read_ends_the_reading_without_a_second_call() {
    let mut room = room();
    let alice = room.join("alice");
    alice.stream.read_calls();
    room.say(&alice, "hello");
    assert_eq!(alice.stream.read_calls(), 1);
    let bob = room.connect();
    bob.stream
        .sends([frame("bob"), frame("x".repeat(1000))].concat());
    room.readable(&bob);
    room.turns();
    assert_eq!(bob.stream.read_calls(), 1, "its name and its first message");
}

#[test]
fn end_of_input_inside_a_frame_is_a_departure_of_its_own_kind() {
    let mut room = room();
    let (whole, cut, pending) = (room.join("whole"), room.join("cut"), room.connect());
    let bob = room.join("bob");
    cut.stream.takes(0);
    whole.stream.sends(frame("all of it")).closes();
    cut.stream
        .sends(frame("first"))
        .sends(&frame("second")[..13])
        .closes();
    pending.stream.closes();
    room.take_events();
    for peer in [&whole, &cut, &pending] {
        room.read_closed(peer);
    }
    room.turns();
    let expected = [delivery("whole", "all of it"), delivery("cut", "first")].concat();
    assert_bytes(&bob.stream.received(), &expected);
    assert!(whole.stream.is_closed() && pending.stream.is_closed());
    let events = room.take_events();
    assert_eq!(
        departures(&events, &cut),
        [(CloseReason::TruncatedFrame, 1)]
    );
    // It receives its remaining output, like any member that has left.
    cut.stream.takes(usize::MAX);
    room.writable(&cut);
    room.turns();
    assert_bytes(&cut.stream.received(), &delivery("whole", "all of it"));
    assert!(cut.stream.is_closed());
    let counts = (closed(&room, "truncated_frame"), closed(&room, "eof"));
    assert_eq!(counts, (1, 2));
}

#[test]
fn protocol_error_closes_its_sender_after_the_messages_before_it() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    alice
        .stream
        .sends([&frame("fine")[..], b"+5        hello"].concat());
    room.readable(&alice);
    room.turns();
    assert!(alice.stream.is_closed());
    assert_eq!(alice.stream.write_calls(), 0, "there is no answer to that");
    assert_bytes(&bob.stream.received(), &delivery("alice", "fine"));
    assert_eq!(closed(&room, "protocol"), 1);
}

#[test]
fn received_input_is_discarded_and_counted_before_the_relay_closes_a_connection() {
    let mut room = Room::new(Limits {
        read_budget: 1000,
        ..Limits::default()
    });
    let alice = room.join("alice");
    alice.stream.sends(b"nonsense!!".repeat(1000));
    room.readable(&alice);
    room.turn();
    assert!(alice.stream.is_closed());
    assert_eq!(alice.stream.unread(), 0);
    let input = (frame("alice").len() + 10_000) as u64;
    let counters = room.relay.counters();
    assert_eq!(counters.bytes_in + counters.bytes_discarded, input);

    // That is bounded.
    let bob = room.join("bob");
    bob.stream.sends(b"nonsense!!".repeat(10_000));
    room.readable(&bob);
    room.turn();
    assert!(bob.stream.is_closed());
    assert!(bob.stream.unread() > 0);
}

#[test]
fn incomplete_messages_use_up_the_turn_too() {
    let mut room = Room::new(Limits {
        read_budget: 1000,
        turn_budget: 5000,
        ..Limits::default()
    });
    let members: Vec<_> = (0..20).map(|i| room.join(format!("{i}"))).collect();
    for member in &members {
        member.stream.read_calls();
        member.stream.sends(&frame(vec![b'x'; 10_000])[..1000]);
        room.readable(member);
    }
    room.turn();
    let read = members.iter().map(|member| member.stream.read_calls());
    assert_eq!(read.sum::<usize>(), 5);
    room.turns();
    assert!(members.iter().all(|member| member.stream.unread() == 0));
}

#[test]
fn names_and_messages_over_their_limits_are_refused_at_the_header() {
    let limits = Limits {
        max_name: 10,
        max_message: 20,
        ..Limits::default()
    };
    for (name, message, fits) in [(10, 20, true), (11, 0, false), (10, 21, false)] {
        let mut room = Room::new(limits.clone());
        let peer = room.connect();
        peer.stream.sends(frame(vec![b'n'; name]));
        peer.stream.sends(&frame(vec![b'm'; message])[..10]);
        room.readable(&peer);
        room.turns();
        room.readable(&peer);
        room.turns();
        assert_eq!(
            !peer.stream.is_closed(),
            fits,
            "name {name}, message {message}"
        );
        assert_eq!(closed(&room, "protocol"), u64::from(!fits));
    }
}

#[test]
fn endless_talker_is_read_up_to_its_budget_and_others_have_their_turn() {
    let mut room = Room::new(Limits {
        read_budget: 1000,
        ..Limits::default()
    });
    let (talker, quiet, listener) = (
        room.join("talker"),
        room.join("quiet"),
        room.join("listener"),
    );
    talker.stream.sends(frame("x".repeat(30)).repeat(1000));
    quiet.stream.sends(frame("me too"));
    room.readable(&talker);
    room.readable(&quiet);
    room.turn();
    let received_now = listener.stream.received();
    assert!(received_now.ends_with(&delivery("quiet", "me too")));
    assert!(received_now.len() < 2500);
    assert!(
        room.relay.has_ready(),
        "there is more to read and no edge will say so"
    );
    room.turns();
    let frames =
        parse_frames(&listener.stream.received()).len() + parse_frames(&received_now).len();
    assert_eq!(frames, 2 * 1001);
}

#[test]
fn members_that_a_full_turn_did_not_read_come_first_in_the_next() {
    let mut room = Room::new(Limits {
        turn_budget: 10_000,
        ..Limits::default()
    });
    let members: Vec<_> = (10..70).map(|i| room.join(format!("{i}"))).collect();
    let listener = room.join("listener");
    for member in &members {
        member.stream.sends(frame("x".repeat(200)));
        room.readable(member);
    }
    let senders = |messages: &[u8]| -> Vec<u64> {
        let names = parse_frames(messages).into_iter().step_by(2);
        let number = |name| std::str::from_utf8(name).unwrap().parse().unwrap();
        names.map(number).collect()
    };
    room.turn();
    let first = senders(&listener.stream.received());
    let next = 10 + first.len() as u64;
    assert!(first.iter().copied().eq(10..next) && (40..60).contains(&next));
    // A member that has sent is ready again, but behind those that have waited.
    members[0].stream.sends(frame("again"));
    room.readable(&members[0]);
    room.turns();
    let later = senders(&listener.stream.received());
    assert!(
        later.iter().copied().eq((next..70).chain([10])),
        "{later:?}"
    );
}

#[test]
fn event_for_a_connection_that_is_gone_is_not_taken_for_its_successor() {
    let mut room = room();
    let first = room.connect();
    room.pass(5 * SECOND);
    first.stream.fails(ErrorKind::ConnectionReset);
    room.readable(&first);
    room.turn();
    let second = room.connect();
    assert_ne!(first.id, second.id);
    second.stream.read_calls();
    room.relay.note(first.id, Ready::READABLE | Ready::HUNG_UP);
    room.turns();
    assert_eq!(second.stream.read_calls(), 0);
    // Nor are its timers.
    room.pass(9 * SECOND);
    assert!(!second.stream.is_closed());
    assert_eq!(room.relay.len(), 1);
}

#[test]
fn event_for_a_connection_closed_in_the_same_batch_is_ignored() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    alice.stream.read_calls();
    alice.stream.fails(ErrorKind::ConnectionReset);
    room.readable(&alice);
    room.readable(&alice);
    room.writable(&alice);
    room.turn();
    room.readable(&alice);
    room.turns();
    assert_eq!(alice.stream.read_calls(), 1);
    room.say(&bob, "alone");
    assert_eq!(room.relay.members().total(), 1);
}

#[test]
fn connection_that_is_closed_twice_in_a_turn_ends_once_for_the_first_reason() {
    let mut room = room();
    let (silent, alice) = (room.connect(), room.join("alice"));
    room.now += 10 * SECOND;
    room.relay.handle_timeout(room.now);
    room.relay.close_all(&mut room.scratch, room.now);
    assert!(silent.stream.is_closed() && alice.stream.is_closed());
    let counts = (
        closed(&room, "handshake_timeout"),
        closed(&room, "shutdown"),
    );
    assert_eq!(counts, (1, 1));
    assert!(room.relay.is_empty());
}

#[test]
fn turn_ends_when_its_budget_is_published_however_little_was_read_for_it() {
    let mut room = Room::new(Limits {
        turn_budget: 1000,
        ..Limits::default()
    });
    let listener = room.join("listener");
    let talkers: Vec<_> = (0..10).map(|_| room.join("n".repeat(200))).collect();
    for talker in &talkers {
        // Ten bytes are published as 220.
        talker.stream.sends(frame("").repeat(3));
        room.readable(talker);
    }
    let mut published = 0;
    while room.relay.has_ready() {
        room.turn();
        let in_turn = listener.stream.received().len();
        published += in_turn;
        assert!(in_turn <= 1000 + 220, "{in_turn}");
        assert!(in_turn >= 880 || published == 10 * 3 * 220, "{in_turn}");
    }
    assert_eq!(published, 10 * 3 * 220);
}

#[test]
fn handshake_timeout_closes_only_pending_connections_without_unread_input() {
    let mut room = room();
    let (named, silent, trickling) = (room.join("named"), room.connect(), room.connect());
    trickling.stream.sends(&frame("trickling")[..18]);
    room.readable(&trickling);
    room.turn();
    let in_time = room.connect();
    in_time.stream.sends(frame("in time"));
    room.readable(&in_time);
    // Of one, the name was received and waits for its turn.
    room.now += 10 * SECOND;
    room.relay.handle_timeout(room.now);
    room.turn();
    assert!(!in_time.stream.is_closed());
    assert!(!named.stream.is_closed());
    assert!(silent.stream.is_closed() && trickling.stream.is_closed());
    assert_eq!(closed(&room, "handshake_timeout"), 2);
}

#[test]
fn connections_that_have_left_are_not_evicted() {
    let mut room = room();
    let (left, hung_up) = (room.join("left"), room.join("hung-up"));
    let (reset, pending) = (room.connect(), room.connect());
    left.stream.closes();
    room.read_closed(&left);
    room.relay
        .note(hung_up.id, Ready::READABLE | Ready::HUNG_UP);
    reset.stream.fails(ErrorKind::ConnectionReset);
    room.readable(&reset);
    room.turns();
    for peer in [&left, &hung_up, &reset] {
        assert!(peer.stream.is_closed());
    }
    room.pass(3 * SECOND);
    assert!(room.relay.make_room(None, &mut room.scratch, room.now));
    assert!(pending.stream.is_closed());
    assert!(!room.relay.make_room(None, &mut room.scratch, room.now));
}

#[test]
fn dismissed_member_is_read_and_receives_what_was_published_until_then() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    let pending = room.connect();
    slow.stream.takes(4);
    room.say(&alice, "in time");
    slow.stream.sends(frame("goodbye"));
    room.readable(&slow);
    room.relay.dismiss(slow.id, &mut room.scratch, room.now);
    room.relay.dismiss(pending.id, &mut room.scratch, room.now);
    room.finish_turn();
    assert!(pending.stream.is_closed());
    room.say(&alice, "too late");
    slow.stream.sends(frame("too late as well"));
    room.readable(&slow);
    room.turns();
    assert!(!slow.stream.is_closed());
    slow.stream.takes(usize::MAX);
    room.writable(&slow);
    room.turns();
    assert!(slow.stream.is_closed());
    assert_bytes(&slow.stream.received(), &delivery("alice", "in time"));
    assert_bytes(&alice.stream.received(), &delivery("slow", "goodbye"));
    room.relay.dismiss(alice.id, &mut room.scratch, room.now);
    room.finish_turn();
    assert!(alice.stream.is_closed() && room.relay.is_empty());
    assert_eq!(closed(&room, "shutdown"), 3);
}

#[test]
fn connection_is_found_by_its_identity_and_its_successor_is_not() {
    let mut room = room();
    assert!(room.relay.is_empty());
    let next = room.relay.next_id();
    let (first, second) = (room.connect(), room.connect());
    assert_eq!(first.id, next);
    assert_eq!(room.relay.ids(), [first.id, second.id]);
    assert_eq!((room.relay.len(), room.relay.is_empty()), (2, false));
    // An event loop keeps the identity as a number.
    assert_eq!(ConnId::from(usize::from(second.id)), second.id);
    first.stream.sends("1");
    let unread = |room: &Room, id| room.relay.stream(id).map(Script::unread);
    assert_eq!(unread(&room, first.id), Some(1));
    assert_eq!(unread(&room, second.id), Some(0));

    second.stream.fails(ErrorKind::ConnectionReset);
    room.readable(&second);
    room.turns();
    assert_eq!((room.relay.len(), room.relay.ids()), (1, vec![first.id]));
    let third = room.connect();
    assert_eq!(unread(&room, second.id), None);
    assert_eq!(unread(&room, third.id), Some(0));
}

#[test]
fn interrupted_read_is_made_again() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    alice.stream.fails(ErrorKind::Interrupted);
    room.say(&alice, "hello");
    assert_bytes(&bob.stream.received(), &delivery("alice", "hello"));
}

#[test]
fn counters_and_close_reasons_are_written_as_the_log_has_them() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    room.say(&alice, "hello");
    bob.stream.sends(*b"nonsense!!");
    room.readable(&bob);
    room.turns();
    room.relay.count_refused(3);
    let counters: &Counters = room.relay.counters();
    assert_eq!(
        counters.to_string(),
        "accepted 2, refused 3, joined 2, peak 2, messages 1, deliveries 1, bytes in 53, bytes out 30, bytes \
         discarded 0; closed: \
         protocol error 1"
    );
    for (reason, text) in [
        (
            CloseReason::SlowConsumer { lag: 7 },
            "slow consumer, lagged by 7 bytes",
        ),
        (
            CloseReason::BelowMinimumRate { accepted: 9000 },
            "below the minimum read rate: read 9000 bytes while senders were paused",
        ),
        (
            CloseReason::MessageTimeout,
            "did not complete a message in time",
        ),
    ] {
        assert_eq!(reason.to_string(), text);
    }
}

// ---- The promise.

/// What a random script does next. A member is chosen by a number, modulo how many there are.
#[derive(Clone, Debug)]
enum Step {
    /// A member sends a message, in which this many bytes are padding.
    Send { member: usize, padding: usize },
    /// A member's socket accepts this many bytes more.
    Accept { member: usize, bytes: usize },
    /// A member joins.
    Join,
    /// A member's input ends, right after what it has sent.
    Leave { member: usize },
    /// The loop does a turn.
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..1000_usize, 0..300_usize)
            .prop_map(|(member, padding)| Step::Send { member, padding }),
        6 => (0..1000_usize, 0..2000_usize)
            .prop_map(|(member, bytes)| Step::Accept { member, bytes }),
        2 => Just(Step::Join),
        1 => (0..1000_usize).prop_map(|member| Step::Leave { member }),
        6 => Just(Step::Turn),
    ]
}

/// A member of a random script.
struct Scripted {
    peer: Peer,
    /// How many messages it has sent.
    sent: usize,
    /// Whether its input has ended.
    has_left: bool,
    /// How many messages of each member were published before it joined.
    published_before: Vec<usize>,
}

/// Counts the messages of each member in `received`. Panics unless each arrived whole, once, and in
/// order: a message begins with its number.
fn count(received: &[u8], counts: &mut Vec<usize>) {
    for pair in parse_frames(received).chunks(2) {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        let sender: usize = text(pair[0]).parse().unwrap();
        let number = text(pair[1]).split(':').next().unwrap();
        if counts.len() <= sender {
            counts.resize(sender + 1, 0);
        }
        assert_eq!(number.parse(), Ok(counts[sender]), "of member {sender}");
        counts[sender] += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Members join, send, read as fast as they like, and leave; the soft limit is so low that the room
    /// is often paused. In the end all members read everything. Each has received every message of the
    /// others that was published since it joined: whole, once, in order, and none of its own. One that
    /// has left has received the first of them, and its own messages have reached the others.
    #[test]
    fn whatever_happens_each_message_arrives_once_whole_and_in_order(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut room = Room::new(Limits {
            read_budget: 100,
            turn_budget: 500,
            soft_limit: 1000,
            ..Limits::default()
        });
        // It reads everything at once, and shows what was published so far.
        let observer = room.join("observer");
        let mut published = Vec::new();
        let mut members: Vec<Scripted> = Vec::new();
        for step in [Step::Join, Step::Join, Step::Join].into_iter().chain(steps) {
            let len = members.len();
            match step {
                Step::Send { member, padding } => {
                    let member = &mut members[member % len];
                    if !member.has_left {
                        let message = format!("{}:{}", member.sent, "x".repeat(padding));
                        member.peer.stream.sends(frame(message));
                        member.sent += 1;
                        room.readable(&member.peer);
                    }
                }
                Step::Accept { member, bytes } => {
                    let member = &members[member % len];
                    member.peer.stream.takes(bytes);
                    room.writable(&member.peer);
                }
                Step::Join => {
                    room.turns();
                    count(&observer.stream.received(), &mut published);
                    let peer = room.join(format!("{len}"));
                    room.turns();
                    members.push(Scripted {
                        peer,
                        sent: 0,
                        has_left: false,
                        published_before: published.clone(),
                    });
                }
                Step::Leave { member } => {
                    let member = &mut members[member % len];
                    member.has_left = true;
                    member.peer.stream.closes();
                    room.read_closed(&member.peer);
                }
                Step::Turn => room.turn(),
            }
        }
        for member in &members {
            member.peer.stream.takes(usize::MAX);
            room.writable(&member.peer);
        }
        room.turns();
        prop_assert_eq!((room.relay.lagging(), room.relay.backlog_bytes()), (0, 0));
        count(&observer.stream.received(), &mut published);
        published.resize(members.len(), 0);
        let sent: Vec<_> = members.iter().map(|member| member.sent).collect();
        prop_assert_eq!(&published, &sent, "each message was published");
        for (me, member) in members.iter().enumerate() {
            prop_assert_eq!(member.peer.stream.is_closed(), member.has_left);
            let before = &member.published_before;
            let mut received = before.clone();
            received.resize(members.len(), 0);
            count(&member.peer.stream.received(), &mut received);
            let own = before.get(me).copied().unwrap_or_default();
            prop_assert_eq!(received[me], own, "member {} received its own messages", me);
            for (sender, &count) in sent.iter().enumerate().filter(|&(sender, _)| sender != me) {
                let is_complete = received[sender] == count || member.has_left;
                prop_assert!(is_complete, "member {} missed messages of {}", me, sender);
            }
        }
    }
}
