//! The room without sockets: every order of reads, writes, refusals and ends that sockets cannot be
//! made to produce on request.

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use chatloop::relay::{CloseReason, ConnId, Counters, Deadline, Limits, Ready, Slow};
use common::script::{Peer, Room, Script};
use common::{assert_bytes, frame, heard, parse_frames};
use proptest::prelude::*;

fn room() -> Room {
    Room::new(Limits::default())
}

#[test]
fn a_message_reaches_everybody_but_its_sender_with_its_name() {
    let mut room = room();
    let (alice, bob, carol) = (room.join("alice"), room.join("bob"), room.join("carol"));
    room.say(&alice, "hello");
    assert_bytes(&bob.stream.heard(), b"5         alice5         hello");
    assert_bytes(&carol.stream.heard(), b"5         alice5         hello");
    assert_bytes(&alice.stream.heard(), b"");
}

#[test]
fn names_and_messages_may_be_empty_and_any_bytes() {
    let mut room = room();
    let (nobody, listener) = (room.join(""), room.join("listener"));
    room.say(&nobody, "");
    room.say(&nobody, b"\x1b[2J\n\0\xff");
    let expected = [heard("", ""), heard("", b"\x1b[2J\n\0\xff")].concat();
    assert_bytes(&listener.stream.heard(), &expected);
}

#[test]
fn the_relay_writes_headers_of_its_own() {
    let mut room = room();
    let listener = room.join("listener");
    let alice = room.connect();
    alice.stream.says(*b"       005alice");
    alice.stream.says(*b" 5        hello0000000002hi");
    room.readable(&alice);
    room.turns();
    room.readable(&alice);
    room.turns();
    let expected = [heard("alice", "hello"), heard("alice", "hi")].concat();
    assert_bytes(&listener.stream.heard(), &expected);
}

#[test]
fn who_has_not_given_a_name_hears_nothing_and_says_nothing() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let newcomer = room.connect();
    newcomer.stream.says(&frame("newcomer")[..12]);
    room.readable(&newcomer);
    room.say(&alice, "before");
    assert_bytes(&newcomer.stream.heard(), b"");
    assert_eq!(room.relay.members(), 2);

    newcomer
        .stream
        .says([&frame("newcomer")[12..], &frame("hi")].concat());
    room.readable(&newcomer);
    room.turn();
    room.say(&alice, "after");
    assert_bytes(&newcomer.stream.heard(), &heard("alice", "after"));
    let expected = [
        heard("alice", "before"),
        heard("newcomer", "hi"),
        heard("alice", "after"),
    ];
    assert_bytes(&bob.stream.heard(), &expected.concat());
}

#[test]
fn who_joins_in_a_turn_hears_what_is_said_after_it_joined_only() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let newcomer = room.connect();
    alice.stream.says(frame("too early"));
    newcomer
        .stream
        .says([frame("newcomer"), frame("mine")].concat());
    bob.stream.says(frame("just right"));
    for peer in [&alice, &newcomer, &bob] {
        room.readable(peer);
    }
    room.turn();
    assert_bytes(&newcomer.stream.heard(), &heard("bob", "just right"));
    let expected = [heard("newcomer", "mine"), heard("bob", "just right")].concat();
    assert_bytes(&alice.stream.heard(), &expected);
    let expected = [heard("alice", "too early"), heard("newcomer", "mine")].concat();
    assert_bytes(&bob.stream.heard(), &expected);
}

#[test]
fn a_turn_costs_each_member_one_write_however_much_was_said() {
    let mut room = room();
    let members: Vec<_> = (0..20).map(|i| room.join(format!("member {i}"))).collect();
    for member in &members {
        member.stream.write_calls();
        member
            .stream
            .says([frame("one"), frame("two"), frame("three")].concat());
        room.readable(member);
    }
    room.turn();
    for member in &members {
        assert_eq!(member.stream.write_calls(), 1);
        assert_eq!(parse_frames(&member.stream.heard()).len(), 2 * 3 * 19);
    }
    room.say(&members[0], "alone");
    assert_eq!(
        members[0].stream.write_calls(),
        0,
        "nothing but its own words"
    );
    assert_eq!(members[1].stream.write_calls(), 1);
}

/// Everybody speaks in one turn; one member's socket takes `first` bytes, later `step` at a time.
fn deliver_in_pieces(first: usize, step: usize) {
    let mut room = room();
    let members: Vec<_> = (0..3).map(|i| room.join(format!("member {i}"))).collect();
    let slow = &members[1];
    slow.stream.takes(first);
    for (i, member) in members.iter().enumerate() {
        member
            .stream
            .says([frame(format!("a{i}")), frame(format!("b{i}"))].concat());
        room.readable(member);
    }
    room.turn();
    room.say(slow, "while behind");
    room.say(&members[2], "last");
    let expected = [
        heard("member 0", "a0"),
        heard("member 0", "b0"),
        heard("member 2", "a2"),
        heard("member 2", "b2"),
        heard("member 2", "last"),
    ]
    .concat();
    let mut got = slow.stream.heard();
    assert_eq!(got.len(), first.min(expected.len()));
    assert_eq!(
        room.relay.pending_bytes(slow.id),
        (expected.len() - got.len()) as u64
    );
    while room.relay.pending_bytes(slow.id) > 0 {
        slow.stream.takes(step);
        room.writable(slow);
        room.turns();
        got.extend(slow.stream.heard());
    }
    assert_bytes(&got, &expected);
    assert_eq!(room.relay.backlog_bytes(), 0, "nobody is behind any more");
    assert!(room.relay.is_flushed());

    slow.stream.takes(usize::MAX);
    room.say(&members[0], "again at once");
    assert_bytes(&slow.stream.heard(), &heard("member 0", "again at once"));
}

#[test]
fn a_socket_that_blocks_at_any_byte_still_gets_every_byte_in_order() {
    for first in 0..150 {
        deliver_in_pieces(first, 1);
        deliver_in_pieces(first, 13);
        deliver_in_pieces(first, usize::MAX);
    }
}

#[test]
fn a_hundred_members_that_stopped_reading_cost_one_copy() {
    let mut room = room();
    let alice = room.join("alice");
    let stopped: Vec<_> = (0..100)
        .map(|i| room.join(format!("stopped {i}")))
        .collect();
    for member in &stopped {
        member.stream.takes(0);
    }
    let mut said = 0;
    for i in 0..1000 {
        let message = format!("message {i}");
        said += heard("alice", &message).len() as u64;
        room.say(&alice, message);
    }
    assert_eq!(room.relay.backlog_bytes(), said);
    assert_eq!(room.relay.awaited_bytes(), said);
    assert_eq!(room.relay.behind(), 100);
    for member in &stopped {
        assert_eq!(room.relay.pending_bytes(member.id), said);
    }
    assert!(stopped.iter().all(|member| !member.stream.is_closed()));

    // Once they read again they get it all.
    for member in &stopped {
        member.stream.takes(usize::MAX);
        room.writable(member);
    }
    room.turns();
    for member in &stopped {
        assert_eq!(parse_frames(&member.stream.heard()).len(), 2 * 1000);
    }
    assert_eq!(room.relay.counters().bytes_out, 100 * said);
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn a_blocked_socket_is_not_tried_again_before_it_is_writable() {
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
    assert!(!room.relay.has_ready(), "there is nothing to write to her");
}

#[test]
fn a_long_queue_is_written_a_part_a_turn_and_nobody_has_to_ask() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    let message = vec![b'x'; 1024 * 1024];
    let mut expected = Vec::new();
    for _ in 0..3 {
        alice.stream.says(frame(&message));
        room.readable(&alice);
        room.turns();
        expected.extend(heard("alice", &message));
    }
    slow.stream.takes(usize::MAX);
    room.writable(&slow);
    room.turn();
    let first = slow.stream.heard();
    assert!(
        first.len() <= 1024 * 1024,
        "the others have their turns between"
    );
    assert!(
        room.relay.has_ready(),
        "no edge comes for a socket that never blocked"
    );
    room.turns();
    assert_bytes(&[first, slow.stream.heard()].concat(), &expected);
}

#[test]
fn a_slow_consumer_is_closed_past_the_limit_and_nobody_else_notices() {
    let limit = 1_048_576 + 256 + 20;
    let mut room = Room::new(Limits {
        queue_limit: limit,
        slow: Slow::Cut,
        ..Limits::default()
    });
    let (alice, slow, bob) = (room.join("alice"), room.join("slow"), room.join("bob"));
    slow.stream.takes(0);
    // Exactly the limit: 25 bytes are name and headers.
    let mut said = 0;
    while said < limit {
        let message = vec![b'x'; (limit - said - 25).min(1_000)];
        said += heard("alice", &message).len();
        room.say(&alice, message);
    }
    assert_eq!(room.relay.pending_bytes(slow.id), limit as u64);
    assert!(!slow.stream.is_closed(), "the limit itself is allowed");

    room.say(&alice, "");
    assert!(slow.stream.is_closed());
    assert_eq!(room.relay.backlog_bytes(), 0, "what it held on to is free");
    assert_eq!(room.relay.held_bytes(), 0);
    assert_eq!(room.relay.counters().closed.slow_consumer, 1);
    assert_eq!(room.relay.members(), 2);
    assert_eq!(bob.stream.heard().len(), said + 25);
    room.say(&alice, "still here");
    assert_bytes(&bob.stream.heard(), &heard("alice", "still here"));
}

#[test]
fn a_turn_larger_than_the_limit_does_not_close_who_had_kept_up() {
    let mut room = Room::new(Limits {
        max_message: 1000,
        queue_limit: 2000,
        ..Limits::default()
    });
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    bob.stream.takes(100);
    room.say(&alice, "");
    bob.stream.takes(100);
    alice.stream.says(frame(vec![b'x'; 1000]).repeat(10));
    room.readable(&alice);
    room.turn();
    assert!(!bob.stream.is_closed(), "it has had no time to take it");
    bob.stream.takes(usize::MAX);
    room.writable(&bob);
    room.turns();
    let said = [
        heard("alice", ""),
        heard("alice", vec![b'x'; 1000]).repeat(10),
    ];
    assert_bytes(&bob.stream.heard(), &said.concat());
}

#[test]
fn its_own_words_cannot_make_the_relay_hold_more_than_the_limit() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    alice.stream.takes(0);
    room.say(&bob, "one message that alice never takes");
    let message = vec![b'x'; 60_000];
    let mut turns = 0;
    while !alice.stream.is_closed() {
        room.say(&alice, &message);
        room.pass(Duration::from_secs(1));
        turns += 1;
        assert!(room.relay.backlog_bytes() < 9 * 1024 * 1024);
        assert!(
            turns < 200,
            "an endless talker that never reads must not be carried for ever"
        );
    }
    assert_eq!(room.relay.counters().closed.slow_consumer, 1);
}

#[test]
fn a_dead_receiver_does_not_disconnect_the_sender_or_anybody_else() {
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
        assert_eq!(room.relay.members(), 2);
        room.say(&alice, "again");
        let expected = [heard("alice", "hello"), heard("alice", "again")].concat();
        assert_bytes(&bob.stream.heard(), &expected);
    }
}

#[test]
fn the_last_words_of_a_member_that_cannot_be_written_to_are_relayed() {
    let mut room = room();
    let (alice, dying, bob) = (room.join("alice"), room.join("dying"), room.join("bob"));
    dying.stream.breaks(ErrorKind::ConnectionReset);
    dying
        .stream
        .says(frame("my last words"))
        .fails(ErrorKind::ConnectionReset);
    room.say(&alice, "hello");
    room.turns();
    let expected = [heard("alice", "hello"), heard("dying", "my last words")].concat();
    assert_bytes(&bob.stream.heard(), &expected);
    assert!(dying.stream.is_closed());
    assert_eq!(room.relay.counters().closed.io, 1);
}

#[test]
fn a_queue_whose_socket_breaks_is_given_up_and_last_words_still_count() {
    let mut room = room();
    let (alice, dying, bob) = (room.join("alice"), room.join("dying"), room.join("bob"));
    dying.stream.takes(3);
    room.say(&alice, "hello");
    dying.stream.breaks(ErrorKind::ConnectionReset);
    dying
        .stream
        .says(frame("bye"))
        .fails(ErrorKind::ConnectionReset);
    room.writable(&dying);
    room.turns();
    assert!(dying.stream.is_closed());
    assert_eq!(room.relay.backlog_bytes(), 0);
    let expected = [heard("alice", "hello"), heard("dying", "bye")].concat();
    assert_bytes(&bob.stream.heard(), &expected);
}

#[test]
fn a_queue_is_given_up_before_the_last_of_the_last_words_is_read() {
    let mut room = room();
    let (alice, dying, bob) = (room.join("alice"), room.join("dying"), room.join("bob"));
    dying.stream.takes(3);
    room.say(&alice, "hello");
    bob.stream.heard();
    dying.stream.breaks(ErrorKind::ConnectionReset);
    dying
        .stream
        .says_byte_by_byte(frame("more than is read in a turn"))
        .fails(ErrorKind::ConnectionReset);
    room.writable(&dying);
    room.turn();
    assert!(!dying.stream.is_closed());
    assert_eq!(room.relay.backlog_bytes(), 0);
    room.turns();
    assert!(dying.stream.is_closed());
    let last = heard("dying", "more than is read in a turn");
    assert_bytes(&bob.stream.heard(), &last);
}

#[test]
fn words_that_share_an_event_with_the_fin_are_relayed_and_the_member_hears_on() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    alice.stream.says(frame("bye")).closes();
    room.read_closed(&alice);
    room.turn();
    assert_bytes(&bob.stream.heard(), &heard("alice", "bye"));
    assert_eq!(room.relay.members(), 2);
    room.say(&bob, "still there?");
    assert_bytes(&alice.stream.heard(), &heard("bob", "still there?"));

    // Later events on it repeat that its sending side is closed; that is not news.
    room.read_closed(&alice);
    room.turns();
    assert_eq!(room.relay.members(), 2);
    room.relay.note(
        alice.id,
        Ready::READABLE | Ready::READ_TO_END | Ready::HUNG_UP,
    );
    room.turns();
    assert!(alice.stream.is_closed());
    assert_eq!(room.relay.counters().closed.eof, 1);
}

#[test]
fn who_is_gone_in_both_directions_goes_though_its_end_cannot_be_read() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    alice.stream.says(frame("bye"));
    room.relay.note(alice.id, Ready::READABLE | Ready::HUNG_UP);
    room.turns();
    assert_bytes(&bob.stream.heard(), &heard("alice", "bye"));
    assert!(alice.stream.is_closed());
    assert_eq!(room.relay.counters().closed.eof, 1);
}

#[test]
fn a_fin_that_was_told_while_there_was_more_to_read_is_not_forgotten() {
    let mut room = Room::new(Limits {
        read_budget: 8,
        ..Limits::default()
    });
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    // 41 bytes in budgets of eight, all told by one edge; the last read is a short one.
    alice
        .stream
        .says(frame("a message of thirty-one bytes.."))
        .closes();
    room.read_closed(&alice);
    room.turns();
    assert_bytes(
        &bob.stream.heard(),
        &heard("alice", "a message of thirty-one bytes.."),
    );
    room.relay.note(alice.id, Ready::HUNG_UP | Ready::READABLE);
    room.turns();
    assert!(alice.stream.is_closed());
}

#[test]
fn reading_to_the_end_has_an_end_in_each_turn() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let stream = frame("x").repeat(100);
    alice.stream.read_calls();
    alice.stream.says_byte_by_byte(&stream);
    room.read_closed(&alice);
    room.turn();
    assert!(alice.stream.read_calls() < 100);
    assert!(room.relay.has_ready(), "and goes on in the next");
    room.turns();
    assert_bytes(&bob.stream.heard(), &heard("alice", "x").repeat(100));
}

#[test]
fn a_short_read_ends_the_reading_without_a_second_call() {
    let mut room = room();
    let alice = room.join("alice");
    alice.stream.read_calls();
    room.say(&alice, "hello");
    assert_eq!(alice.stream.read_calls(), 1);
    let bob = room.connect();
    bob.stream
        .says([frame("bob"), frame("x".repeat(1000))].concat());
    room.readable(&bob);
    room.turns();
    assert_eq!(bob.stream.read_calls(), 1, "its name and its first message");
}

#[test]
fn an_end_inside_a_frame_is_told_from_one_between_frames() {
    let mut room = room();
    let (whole, cut, unnamed) = (room.join("whole"), room.join("cut"), room.connect());
    let listener = room.join("listener");
    whole.stream.says(frame("all of it")).closes();
    cut.stream
        .says(frame("first"))
        .says(&frame("second")[..13])
        .closes();
    unnamed.stream.closes();
    for peer in [&whole, &cut, &unnamed] {
        room.read_closed(peer);
    }
    room.turns();
    let expected = [heard("whole", "all of it"), heard("cut", "first")].concat();
    assert_bytes(&listener.stream.heard(), &expected);
    assert!(cut.stream.is_closed() && unnamed.stream.is_closed());
    let closed = &room.relay.counters().closed;
    assert_eq!((closed.truncated_frame, closed.eof), (1, 1));
}

#[test]
fn a_protocol_error_closes_its_sender_after_what_came_before_it() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    alice
        .stream
        .says([&frame("fine")[..], b"+5        hello"].concat());
    room.readable(&alice);
    room.turns();
    assert!(alice.stream.is_closed());
    assert_eq!(alice.stream.write_calls(), 0, "there is no answer to that");
    assert_bytes(&bob.stream.heard(), &heard("alice", "fine"));
    assert_eq!(room.relay.counters().closed.protocol, 1);
}

#[test]
fn who_is_closed_has_its_input_read_first_so_that_closing_does_not_reset() {
    let mut room = Room::new(Limits {
        read_budget: 1000,
        ..Limits::default()
    });
    let alice = room.join("alice");
    alice.stream.says(b"nonsense!!".repeat(1000));
    room.readable(&alice);
    room.turn();
    assert!(alice.stream.is_closed());
    assert_eq!(alice.stream.unread(), 0);

    // But not for ever.
    let bob = room.join("bob");
    bob.stream.says(b"nonsense!!".repeat(10_000));
    room.readable(&bob);
    room.turn();
    assert!(bob.stream.is_closed());
    assert!(bob.stream.unread() > 0);
}

#[test]
fn unfinished_messages_use_up_the_turn_too() {
    let mut room = Room::new(Limits {
        read_budget: 1000,
        turn_budget: 5000,
        ..Limits::default()
    });
    let members: Vec<_> = (0..20).map(|i| room.join(format!("{i}"))).collect();
    for member in &members {
        member.stream.read_calls();
        member.stream.says(&frame(vec![b'x'; 10_000])[..1000]);
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
        peer.stream.says(frame(vec![b'n'; name]));
        peer.stream.says(&frame(vec![b'm'; message])[..10]);
        room.readable(&peer);
        room.turns();
        room.readable(&peer);
        room.turns();
        assert_eq!(
            !peer.stream.is_closed(),
            fits,
            "name {name}, message {message}"
        );
        assert_eq!(room.relay.counters().closed.protocol, u64::from(!fits));
    }
}

#[test]
fn an_endless_talker_gets_its_budget_and_then_the_others_have_their_turn() {
    let mut room = Room::new(Limits {
        read_budget: 1000,
        ..Limits::default()
    });
    let (talker, quiet, listener) = (
        room.join("talker"),
        room.join("quiet"),
        room.join("listener"),
    );
    talker.stream.says(frame("x".repeat(30)).repeat(1000));
    quiet.stream.says(frame("me too"));
    room.readable(&talker);
    room.readable(&quiet);
    room.turn();
    let heard_now = listener.stream.heard();
    assert!(heard_now.ends_with(&heard("quiet", "me too")));
    assert!(heard_now.len() < 2500);
    assert!(
        room.relay.has_ready(),
        "there is more to read and no edge will say so"
    );
    room.turns();
    let frames = parse_frames(&listener.stream.heard()).len() + parse_frames(&heard_now).len();
    assert_eq!(frames, 2 * 1001);
}

#[test]
fn a_turn_ends_when_enough_was_said_and_the_rest_comes_first_in_the_next() {
    let mut room = Room::new(Limits {
        turn_budget: 100,
        ..Limits::default()
    });
    let members: Vec<_> = (0..5).map(|i| room.join(format!("{i}"))).collect();
    let listener = room.join("listener");
    for member in &members {
        member.stream.says(frame("x".repeat(60)));
        room.readable(member);
    }
    room.turn();
    assert_eq!(parse_frames(&listener.stream.heard()).len(), 2 * 2);
    // Who spoke already is ready again, but behind those who have waited.
    members[0].stream.says(frame("again"));
    room.readable(&members[0]);
    room.turns();
    let said = listener.stream.heard();
    let names: Vec<_> = parse_frames(&said).into_iter().step_by(2).collect();
    assert_eq!(names, [b"2", b"3", b"4", b"0"]);
}

#[test]
fn an_event_for_a_connection_that_is_gone_is_not_taken_for_its_successor() {
    let mut room = room();
    let first = room.join("first");
    first.stream.fails(ErrorKind::ConnectionReset);
    room.readable(&first);
    room.turn();
    let second = room.join("second");
    assert_ne!(first.id, second.id);
    second.stream.read_calls();
    room.relay.note(first.id, Ready::READABLE | Ready::HUNG_UP);
    room.turns();
    room.relay.expire(Deadline::Name(first.id), room.now);
    room.turns();
    assert_eq!(second.stream.read_calls(), 0);
    assert_eq!(room.relay.members(), 1);
}

#[test]
fn an_event_for_a_connection_closed_in_the_same_batch_is_ignored() {
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
    assert_eq!(room.relay.members(), 1);
}

#[test]
fn who_is_marked_twice_in_a_turn_is_closed_once_for_the_first_reason() {
    let mut room = room();
    let (silent, alice) = (room.connect(), room.join("alice"));
    room.relay.expire(Deadline::Name(silent.id), room.now);
    room.relay.expire(Deadline::Name(silent.id), room.now);
    room.relay.close_all(&mut room.scratch);
    assert!(silent.stream.is_closed() && alice.stream.is_closed());
    let closed = &room.relay.counters().closed;
    assert_eq!((closed.handshake_timeout, closed.shutdown), (1, 1));
    assert!(room.relay.is_empty());
}

#[test]
fn a_turn_ends_when_enough_was_said_however_little_was_read_for_it() {
    let mut room = Room::new(Limits {
        turn_budget: 1000,
        ..Limits::default()
    });
    let listener = room.join("listener");
    let talkers: Vec<_> = (0..10).map(|_| room.join("n".repeat(200))).collect();
    for talker in &talkers {
        // Ten bytes that become 220.
        talker.stream.says(frame("").repeat(3));
        room.readable(talker);
    }
    listener.stream.write_calls();
    room.turns();
    let heard = listener.stream.heard();
    assert_eq!(heard.len(), 10 * 3 * 220);
    // Two of them say 1320 bytes.
    assert_eq!(listener.stream.write_calls(), 5);
}

#[test]
fn only_who_has_given_no_name_can_run_out_of_time() {
    let mut room = room();
    let (named, silent, trickling) = (room.join("named"), room.connect(), room.connect());
    trickling.stream.says(&frame("trickling")[..18]);
    room.readable(&trickling);
    room.turn();
    let in_time = room.connect();
    in_time.stream.says(frame("in time"));
    room.readable(&in_time);
    // Of one, the name waits for its turn.
    for peer in [&named, &silent, &trickling, &in_time] {
        room.relay.expire(Deadline::Name(peer.id), room.now);
    }
    room.turn();
    assert!(!in_time.stream.is_closed());
    assert!(!named.stream.is_closed());
    assert!(silent.stream.is_closed() && trickling.stream.is_closed());
    assert_eq!(room.relay.counters().closed.handshake_timeout, 2);
}

#[test]
fn a_half_closed_member_that_was_not_written_to_since_is_the_one_to_evict() {
    let mut room = Room::new(Limits {
        max_clients: 3,
        ..Limits::default()
    });
    let (alice, listener) = (room.join("alice"), room.join("listener"));
    listener.stream.says(frame("my last word")).closes();
    room.read_closed(&listener);
    room.turns();
    room.say(&alice, "are you there?");
    let gone = room.join("gone");
    assert!(room.relay.is_full());
    let evicted = room.relay.make_room(&mut room.scratch);
    assert!(
        !evicted,
        "the listener was written to, and is no doubt there"
    );

    gone.stream.says(frame("my last word")).closes();
    room.read_closed(&gone);
    room.turns();
    assert!(room.relay.make_room(&mut room.scratch));
    assert!(gone.stream.is_closed());
    assert!(!listener.stream.is_closed() && !alice.stream.is_closed());
    assert!(!room.relay.is_full());
    assert_eq!(room.relay.counters().closed.evicted, 1);
}

#[test]
fn a_half_closed_member_that_takes_what_was_queued_for_it_is_not_the_one_to_evict() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    slow.stream.takes(0);
    room.say(&alice, "hello");
    slow.stream.closes();
    room.read_closed(&slow);
    room.turns();
    slow.stream.takes(usize::MAX);
    room.writable(&slow);
    room.turns();
    assert_bytes(&slow.stream.heard(), &heard("alice", "hello"));
    assert!(!room.relay.make_room(&mut room.scratch));
}

#[test]
fn who_has_gone_of_its_own_accord_is_not_the_one_to_evict() {
    let mut room = room();
    let (gone, half_closed) = (room.join("gone"), room.join("half-closed"));
    let (gone_nameless, nameless) = (room.connect(), room.connect());
    for peer in [&gone, &half_closed] {
        peer.stream.closes();
        room.read_closed(peer);
        room.turns();
    }
    room.relay.note(gone.id, Ready::READABLE | Ready::HUNG_UP);
    gone_nameless.stream.fails(ErrorKind::ConnectionReset);
    room.readable(&gone_nameless);
    room.turns();
    assert!(gone.stream.is_closed() && gone_nameless.stream.is_closed());
    room.pass(Duration::from_secs(3));
    assert!(room.relay.make_room(&mut room.scratch));
    assert!(nameless.stream.is_closed() && !half_closed.stream.is_closed());
    assert!(room.relay.make_room(&mut room.scratch));
    assert!(half_closed.stream.is_closed());
    assert!(!room.relay.make_room(&mut room.scratch), "nobody is left");
}

#[test]
fn who_is_dismissed_is_heard_to_its_last_word_and_sent_all_that_was_said_until_then() {
    let mut room = room();
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    let newcomer = room.connect();
    slow.stream.takes(4);
    room.say(&alice, "in time");
    slow.stream.says(frame("goodbye"));
    room.readable(&slow);
    room.relay.dismiss(slow.id, &mut room.scratch);
    room.relay.dismiss(newcomer.id, &mut room.scratch);
    room.turn();
    assert!(newcomer.stream.is_closed());
    room.say(&alice, "too late");
    slow.stream.says(frame("too late as well"));
    room.readable(&slow);
    room.turns();
    assert!(!slow.stream.is_closed());
    slow.stream.takes(usize::MAX);
    room.writable(&slow);
    room.turns();
    assert!(slow.stream.is_closed());
    assert_bytes(&slow.stream.heard(), &heard("alice", "in time"));
    assert_bytes(&alice.stream.heard(), &heard("slow", "goodbye"));
    room.relay.dismiss(alice.id, &mut room.scratch);
    room.turn();
    assert!(alice.stream.is_closed() && room.relay.is_empty());
    assert_eq!(room.relay.counters().closed.shutdown, 3);
}

#[test]
fn a_connection_is_found_by_its_identity_and_its_successor_is_not() {
    let mut room = room();
    assert!(room.relay.is_empty());
    let next = room.relay.next_id();
    let (first, second) = (room.connect(), room.connect());
    assert_eq!(first.id, next);
    assert_eq!(room.relay.ids(), [first.id, second.id]);
    assert_eq!((room.relay.len(), room.relay.is_empty()), (2, false));
    // An event loop keeps the identity as a number.
    assert_eq!(ConnId::from(usize::from(second.id)), second.id);
    first.stream.says("1");
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
fn interrupted_calls_are_made_again() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    alice.stream.fails(ErrorKind::Interrupted);
    room.say(&alice, "hello");
    assert_bytes(&bob.stream.heard(), &heard("alice", "hello"));
}

#[test]
fn counters_tell_what_happened_on_one_line() {
    let mut room = room();
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    room.say(&alice, "hello");
    bob.stream.says(*b"nonsense!!");
    room.readable(&bob);
    room.turns();
    room.relay.count_refused(3);
    let counters: &Counters = room.relay.counters();
    assert_eq!(
        counters.to_string(),
        "accepted 2, refused 3, joined 2, peak 2, messages 1, bytes in 53, bytes out 30; closed: \
         protocol error 1"
    );
    let reason = CloseReason::SlowConsumer { behind: 7 };
    assert_eq!(reason.to_string(), "slow consumer, 7 bytes behind");
}

/// What a random script does next.
#[derive(Clone, Debug)]
enum Step {
    Say { who: usize, len: usize },
    Room { who: usize, bytes: usize },
    Join,
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 0..300_usize)
            .prop_map(|(who, len)| Step::Say { who: who.index(1000), len }),
        3 => (any::<prop::sample::Index>(), 0..2000_usize)
            .prop_map(|(who, bytes)| Step::Room { who: who.index(1000), bytes }),
        1 => Just(Step::Join),
        3 => Just(Step::Turn),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Members join, speak and read as they like; then everybody reads everything. Each has heard
    /// every other's messages from the first it heard on, whole, once, in order, none of its own,
    /// and none that was said in a turn before it joined.
    #[test]
    fn whatever_happens_each_message_arrives_once_whole_and_in_order(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut room = Room::new(Limits { read_budget: 100, turn_budget: 500, ..Limits::default() });
        let mut members: Vec<Peer> = (0..3).map(|i| room.join(format!("{i}"))).collect();
        let mut said = vec![0; members.len()];
        let mut said_before_joining: Vec<Vec<usize>> = vec![vec![0; 3]; 3];
        for step in steps {
            match step {
                Step::Say { who, len } => {
                    let who = who % members.len();
                    let message = format!("{}:{}", said[who], "x".repeat(len));
                    members[who].stream.says(frame(message));
                    said[who] += 1;
                    room.readable(&members[who]);
                }
                Step::Room { who, bytes } => {
                    let member = &members[who % members.len()];
                    member.stream.takes(bytes);
                    room.writable(member);
                }
                Step::Join => {
                    room.turns();
                    said_before_joining.push(said.clone());
                    members.push(room.join(format!("{}", members.len())));
                    said.push(0);
                }
                Step::Turn => room.turn(),
            }
        }
        for member in &members {
            member.stream.takes(usize::MAX);
            room.writable(member);
        }
        room.turns();
        prop_assert!(room.relay.is_flushed());
        prop_assert_eq!(room.relay.backlog_bytes(), 0);
        for (me, member) in members.iter().enumerate() {
            let bytes = member.stream.heard();
            let mut next = said_before_joining[me].clone();
            next.resize(members.len(), 0);
            for pair in parse_frames(&bytes).chunks(2) {
                let from: usize = std::str::from_utf8(pair[0]).unwrap().parse().unwrap();
                let number = pair[1].split(|&byte| byte == b':').next().unwrap();
                let number: usize = std::str::from_utf8(number).unwrap().parse().unwrap();
                prop_assert!(from != me, "{} heard itself", me);
                prop_assert_eq!(number, next[from], "{} heard {} out of order", me, from);
                next[from] += 1;
            }
            for (from, &count) in said.iter().enumerate().filter(|&(from, _)| from != me) {
                prop_assert_eq!(next[from], count, "{} missed words of {}", me, from);
            }
        }
    }
}
