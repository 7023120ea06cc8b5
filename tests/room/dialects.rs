//! Every tutorial's protocol, byte for byte, and all of them in one room: without sockets.

use std::time::Duration;

use chatloop::relay::{CloseReason, Limits, ReplyTexts, RoomEvent, Slow};
use chatloop::wire::Dialect::{self, Ack64, Chat10, Chat64, Greet10, Hello};
use chatloop::wire::FrameError;

use crate::common::script::{Peer, Room, TUTORIALS};
use crate::common::{assert_bytes, delivery, frame, wide_frame};

const SENT: &[u8] = b"Message was Sent!";
const RECEIVED: &[u8] = b"Msg received";

/// The default of the farewell timeout.
const FAREWELL: Duration = Duration::from_secs(60);

fn room() -> Room {
    Room::serving(&TUTORIALS, Limits::default(), &ReplyTexts::default())
}

fn room_with_history(messages: usize) -> Room {
    let limits = Limits {
        history: messages,
        ..Limits::default()
    };
    Room::serving(&TUTORIALS, limits, &ReplyTexts::default())
}

/// The reasons of a connection's end, in the order of their events.
fn ends(room: &mut Room, peer: &Peer) -> Vec<CloseReason> {
    let events = room.take_events().into_iter();
    let reasons = events.filter_map(|event| match event {
        RoomEvent::Left {
            peer: other,
            reason,
            ..
        }
        | RoomEvent::Closed {
            peer: other,
            reason,
            ..
        } if other.id == peer.id => Some(reason),
        _ => None,
    });
    reasons.collect()
}

/// A peer says these bytes in a turn of its own.
fn say_bytes(room: &mut Room, peer: &Peer, bytes: impl AsRef<[u8]>) {
    peer.stream.sends(bytes);
    room.readable(peer);
    room.turns();
}

#[test]
fn chat64_message_is_relayed_alone_and_its_sender_is_answered() {
    let mut room = room();
    let (one, two) = (room.connect_to(Chat64), room.connect_to(Chat64));
    say_bytes(
        &mut room,
        &one,
        b"5                                                               hello",
    );
    assert_bytes(&one.stream.received(), b"Message was Sent!");
    assert_bytes(&two.stream.received(), b"hello");
    say_bytes(&mut room, &two, wide_frame("Client Disconnected"));
    assert_bytes(&one.stream.received(), b"Client Disconnected");
    assert_bytes(&two.stream.received(), b"Message was Sent!");
    assert!(two.stream.is_closed() && !one.stream.is_closed());
    assert_eq!(room.relay.counters().closed.of("farewell"), 1);
    assert_eq!(room.relay.members().of(Chat64), 1);
}

#[test]
fn ack64_member_is_answered_and_receives_nothing_of_the_room() {
    let mut room = room();
    let (one, two) = (room.connect_to(Ack64), room.connect_to(Ack64));
    let listener = room.join("listener");
    say_bytes(
        &mut room,
        &one,
        b"12                                                              Hello World!",
    );
    assert_bytes(&one.stream.received(), b"Msg received");
    assert_bytes(&two.stream.received(), b"");
    say_bytes(&mut room, &one, wide_frame("!DISCONNECT"));
    assert_bytes(&one.stream.received(), b"Msg received");
    assert!(one.stream.is_closed());
    // The other members receive its message, and not its farewell.
    assert_bytes(
        &listener.stream.received(),
        &delivery("192.0.2.1:4001", "Hello World!"),
    );
    assert_eq!(room.relay.counters().messages, 1);
    assert_eq!(room.relay.counters().closed.of("farewell"), 1);
}

#[test]
fn greet10_member_receives_a_greeting_and_then_ticks() {
    let mut room = room();
    let one = room.connect_to(Greet10);
    room.turns();
    assert_bytes(&one.stream.received(), b"22        Welcome to the server!");
    room.relay.publish_tick(b"The time is 1593590400.123");
    room.turn();
    assert_bytes(
        &one.stream.received(),
        b"26        The time is 1593590400.123",
    );

    let two = room.connect_to(Greet10);
    let other = room.join("other");
    room.turns();
    room.relay.publish_tick(b"The time is 1593590403.0");
    room.turn();
    let tick = b"24        The time is 1593590403.0";
    assert_bytes(&one.stream.received(), tick);
    let greeted = [&b"22        Welcome to the server!"[..], tick].concat();
    assert_bytes(&two.stream.received(), &greeted);
    assert_bytes(&other.stream.received(), b"");
    assert_eq!(one.stream.write_calls(), 3, "each in one write");
}

#[test]
fn new_member_receives_nothing_that_was_published_before_it_joined() {
    let mut room = room();
    let alice = room.join("alice");
    let _others = (room.connect_to(Chat64), room.connect_to(Greet10));
    room.turns();
    let chat10 = room.connect();
    alice.stream.sends(frame("too early"));
    chat10.stream.sends(frame("late"));
    room.readable(&alice);
    room.readable(&chat10);
    room.relay.publish_tick(b"The time is 0.0");
    room.turns();
    let (chat64, greet10) = (room.connect_to(Chat64), room.connect_to(Greet10));
    room.turns();
    room.say(&alice, "in time");
    assert_bytes(&chat10.stream.received(), &delivery("alice", "in time"));
    assert_bytes(&chat64.stream.received(), b"in time");
    assert_bytes(
        &greet10.stream.received(),
        b"22        Welcome to the server!",
    );
}

#[test]
fn greeting_that_is_not_read_times_out() {
    let mut room = room();
    let peer = room.connect_to(Hello);
    peer.stream.takes(0);
    room.turns();
    room.pass(FAREWELL / 2);
    assert!(!peer.stream.is_closed());
    room.pass(FAREWELL / 2);
    assert!(peer.stream.is_closed());
    assert_eq!(room.relay.counters().closed.of("drain_timeout"), 1);
}

#[test]
fn member_whose_reply_cannot_be_written_is_read_to_its_end_and_removed() {
    for (ends, is_reported, reason) in [
        (false, false, "io"),
        (true, false, "io"),
        (true, true, "eof"),
    ] {
        let mut room = room();
        let (listener, sender) = (room.join("listener"), room.connect_to(Chat64));
        sender.stream.breaks(std::io::ErrorKind::ConnectionReset);
        sender.stream.sends(wide_frame("my last words"));
        if ends {
            sender.stream.closes();
        }
        if is_reported {
            room.read_closed(&sender);
        } else {
            room.readable(&sender);
        }
        room.turns();
        assert!(sender.stream.is_closed());
        let relayed = delivery("192.0.2.1:4002", "my last words");
        assert_bytes(&listener.stream.received(), &relayed);
        assert_eq!(room.relay.counters().closed.of(reason), 1);
    }
}

#[test]
fn room_has_tick_members_only_while_a_greet10_member_is_there() {
    let mut room = room();
    let _others = (
        room.join("alice"),
        room.connect_to(Chat64),
        room.connect_to(Hello),
    );
    assert!(!room.relay.has_tick_members());
    let greeted = room.connect_to(Greet10);
    assert!(room.relay.has_tick_members());
    room.turns();
    assert!(room.relay.has_tick_members());
    greeted.stream.fails(std::io::ErrorKind::ConnectionReset);
    room.readable(&greeted);
    room.turns();
    assert!(!room.relay.has_tick_members());
}

#[test]
fn hello_connection_is_greeted_and_closed() {
    let mut room = room();
    let peer = room.connect_to(Hello);
    peer.stream.sends("is this a chat?");
    room.readable(&peer);
    room.turns();
    assert_bytes(&peer.stream.received(), b"welcome to the server!");
    assert!(peer.stream.is_closed());
    assert_eq!(room.relay.counters().closed.of("greeted"), 1);
    let counters = room.relay.counters();
    assert_eq!((counters.joined, counters.peak_members), (0, 0));
}

#[test]
fn members_of_all_dialects_share_one_room() {
    let mut room = room();
    let alice = room.join("alice"); // port 4001
    let (chat64, ack64) = (room.connect_to(Chat64), room.connect_to(Ack64));
    let (greet10, bob) = (room.connect_to(Greet10), room.join("bob"));
    room.turns();
    greet10.stream.received();

    room.say(&alice, "from alice");
    say_bytes(&mut room, &chat64, wide_frame("from chat64"));
    say_bytes(&mut room, &ack64, wide_frame("from ack64"));
    let from = |ports: &[u16]| -> Vec<u8> {
        let received_from = |port: &u16| match port {
            4001 => delivery("alice", "from alice"),
            4002 => delivery("192.0.2.1:4002", "from chat64"),
            _ => delivery("192.0.2.1:4003", "from ack64"),
        };
        ports.iter().flat_map(received_from).collect()
    };
    assert_bytes(&alice.stream.received(), &from(&[4002, 4003]));
    assert_bytes(&bob.stream.received(), &from(&[4001, 4002, 4003]));
    assert_bytes(
        &chat64.stream.received(),
        b"from aliceMessage was Sent!from ack64",
    );
    assert_bytes(&ack64.stream.received(), RECEIVED);
    assert_bytes(&greet10.stream.received(), b"");
    assert_eq!(room.relay.members().total(), 5);
    let of = Dialect::ALL.map(|dialect| room.relay.members().of(dialect));
    assert_eq!(of, [2, 1, 1, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn turn_costs_each_member_one_write_in_each_dialect() {
    let mut room = room();
    let senders: Vec<_> = (0..3).map(|i| room.join(format!("{i}"))).collect();
    let members = [Chat10, Chat64].map(|dialect| room.connect_to(dialect));
    say_bytes(&mut room, &members[0], frame("listener"));
    let talker = room.connect_to(Chat64);
    for peer in &senders {
        peer.stream.write_calls();
        peer.stream.sends(frame("a").repeat(5));
        room.readable(peer);
    }
    talker.stream.sends(wide_frame("b").repeat(5));
    room.readable(&talker);
    room.turn();
    assert!(!room.relay.has_ready(), "all output was accepted");
    for peer in senders.iter().chain(&members).chain([&talker]) {
        assert_eq!(peer.stream.write_calls(), 1);
    }
    assert_bytes(&members[1].stream.received(), b"aaaaaaaaaaaaaaabbbbb");
    let expected = [&b"a".repeat(15)[..], &SENT.repeat(5)].concat();
    assert_bytes(&talker.stream.received(), &expected);
}

#[test]
fn acknowledgement_stands_between_what_was_published_before_and_after_at_each_cut() {
    for cut in 0..40 {
        let mut room = room();
        let (alice, bob) = (room.join("alice"), room.join("bob"));
        let member = room.connect_to(Chat64);
        member.stream.takes(cut);
        room.relay.note(alice.id, chatloop::relay::Ready::READABLE);
        alice.stream.sends(frame("before"));
        member
            .stream
            .sends([wide_frame("mine"), wide_frame("")].concat());
        bob.stream.sends(frame("after"));
        for peer in [&alice, &member, &bob] {
            room.readable(peer);
        }
        room.turn();
        room.say(&alice, "later");
        say_bytes(&mut room, &member, wide_frame("mine too"));
        let mut delivered = member.stream.received();
        assert_eq!(delivered.len(), cut);
        // From here on byte by byte.
        while room.relay.lagging() > 0 {
            member.stream.takes(1);
            room.writable(&member);
            room.turn();
            delivered.extend(member.stream.received());
        }
        let expected = [&b"before"[..], SENT, SENT, b"after", b"later", SENT].concat();
        assert_bytes(&delivered, &expected);
    }
}

#[test]
fn ack64_member_that_does_not_read_its_replies_is_not_read_from_and_keeps_its_place() {
    let limits = Limits {
        max_name: 10,
        max_message: 100,
        soft_limit: 600,
        queue_limit: 1250,
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let (unread, other) = (room.connect_to(Ack64), room.join("other"));
    unread.stream.takes(5);
    for _ in 0..100 {
        say_bytes(&mut room, &unread, wide_frame(""));
    }
    // It is paused with the reply that brings it over the soft limit. The replies are a count.
    let pending = room.relay.pending_bytes(unread.id);
    assert!((500..=612).contains(&pending), "{pending}");
    let answered = (pending as usize + 5) / RECEIVED.len();
    assert!(room.relay.held_bytes() < 500);
    assert_eq!(room.relay.backlog_bytes(), 0);
    assert_eq!(unread.stream.unread(), (100 - answered) * 64);
    assert!(!room.relay.is_paused(), "no other member waits");
    room.say(&other, "hello");
    // However long that takes.
    room.pass(Duration::from_secs(3600));
    assert!(!unread.stream.is_closed());
    assert_bytes(
        &other.stream.received(),
        &delivery("192.0.2.1:4001", "").repeat(answered),
    );
    unread.stream.takes(usize::MAX);
    room.writable(&unread);
    room.turns();
    assert_bytes(&unread.stream.received(), &RECEIVED.repeat(100));
    assert_bytes(
        &other.stream.received(),
        &delivery("192.0.2.1:4001", "").repeat(100 - answered),
    );
}

#[test]
fn splices_of_empty_replies_count_for_the_queue_limit() {
    let texts = ReplyTexts {
        ack: Some(Vec::new()),
        ..ReplyTexts::default()
    };
    let limits = Limits {
        max_message: 100,
        queue_limit: 10_000,
        slow: Slow::Cut,
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &texts);
    let (talker, deaf) = (room.connect_to(Chat64), room.connect_to(Chat64));
    deaf.stream.takes(0);
    let mut turns = 0;
    while !deaf.stream.is_closed() {
        // A byte, and a splice after it.
        say_bytes(&mut room, &talker, wide_frame("."));
        say_bytes(&mut room, &deaf, wide_frame(""));
        turns += 1;
    }
    assert!(turns < 500, "closed after {turns}");
}

#[test]
fn draining_member_receives_its_pending_output_and_nothing_later() {
    let mut room = room();
    let alice = room.join("alice");
    let leaver = room.connect_to(Chat64);
    leaver.stream.takes(3);
    room.say(&alice, "one");
    room.say(&alice, "two");
    // Input after the farewell is ignored, whatever it is.
    say_bytes(
        &mut room,
        &leaver,
        [wide_frame("Client Disconnected"), b"?".repeat(64)].concat(),
    );
    room.say(&alice, "too late");
    assert!(!leaver.stream.is_closed());
    let last = [&b"two"[..], SENT].concat();
    assert_eq!(room.relay.pending_bytes(leaver.id), last.len() as u64);

    leaver.stream.takes(5);
    room.writable(&leaver);
    room.turns();
    // It has accepted some output, so it has as much time again.
    room.pass(FAREWELL);
    assert!(!leaver.stream.is_closed());
    leaver.stream.takes(usize::MAX);
    room.writable(&leaver);
    room.turns();
    assert_bytes(&leaver.stream.received(), &[&b"one"[..], &last].concat());
    assert!(leaver.stream.is_closed());
    assert_bytes(
        &alice.stream.received(),
        &delivery("192.0.2.1:4002", "Client Disconnected"),
    );
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn draining_member_is_closed_when_the_backlog_kept_for_it_is_over_the_queue_limit() {
    let limits = Limits {
        queue_limit: 2_000_000,
        slow: Slow::Cut,
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let (talker, leaver) = (room.connect_to(Ack64), room.connect_to(Chat64));
    let _listener = room.connect_to(Chat64);
    leaver.stream.takes(0);
    say_bytes(&mut room, &talker, wide_frame("x".repeat(1000)));
    say_bytes(&mut room, &leaver, wide_frame("Client Disconnected"));
    let mut sent = 0;
    while !leaver.stream.is_closed() {
        // It goes on reading, a byte at a time, and the other member goes on sending.
        leaver.stream.takes(1);
        room.writable(&leaver);
        say_bytes(&mut room, &talker, wide_frame("x".repeat(100_000)));
        sent += 100_000;
        assert!(sent < 3_000_000);
    }
    assert!(sent > 1_800_000, "closed after {sent}");
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn farewell_that_brings_its_sender_over_the_queue_limit_is_answered() {
    let limits = Limits {
        max_name: 10,
        max_message: 100,
        queue_limit: 1100,
        slow: Slow::Cut,
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let (talker, leaver) = (room.join("talker"), room.connect_to(Chat64));
    leaver.stream.takes(0);
    for _ in 0..13 {
        room.say(&talker, "x".repeat(84));
    }
    say_bytes(&mut room, &leaver, wide_frame("Client Disconnected"));
    leaver.stream.takes(usize::MAX);
    room.writable(&leaver);
    room.turns();
    let expected = [&b"x".repeat(13 * 84)[..], SENT].concat();
    assert_bytes(&leaver.stream.received(), &expected);
    assert_eq!(room.relay.counters().closed.of("farewell"), 1);
}

#[test]
fn member_closed_for_a_bad_header_is_answered_for_the_messages_before() {
    let mut room = room();
    let (sender, listener) = (room.connect_to(Ack64), room.join("listener"));
    let before = room.relay.counters().bytes_out;
    say_bytes(
        &mut room,
        &sender,
        [wide_frame("one"), b"?".repeat(64)].concat(),
    );
    let relayed = delivery("192.0.2.1:4001", "one");
    assert_bytes(&listener.stream.received(), &relayed);
    assert_bytes(&sender.stream.received(), RECEIVED);
    assert!(sender.stream.is_closed());
    let written = room.relay.counters().bytes_out - before;
    assert_eq!(written, (relayed.len() + RECEIVED.len()) as u64);

    // The reply must not overtake pending output.
    let sender = room.connect_to(Chat64);
    sender.stream.takes(0);
    room.say(&listener, "queued");
    sender.stream.takes(usize::MAX);
    say_bytes(
        &mut room,
        &sender,
        [wide_frame("one"), b"?".repeat(64)].concat(),
    );
    assert_bytes(&sender.stream.received(), b"");
    assert!(sender.stream.is_closed());
}

#[test]
fn replies_too_many_for_one_write_are_sent_without_another_event() {
    let texts = ReplyTexts {
        ack: Some(vec![b'k'; 10_000]),
        ..ReplyTexts::default()
    };
    let limits = Limits {
        queue_limit: 3_000_000,
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &texts);
    let peer = room.connect_to(Ack64);
    say_bytes(&mut room, &peer, wide_frame("").repeat(200));
    assert_bytes(&peer.stream.received(), &b"k".repeat(2_000_000));
    say_bytes(
        &mut room,
        &peer,
        [wide_frame("").repeat(99), wide_frame("!DISCONNECT")].concat(),
    );
    assert_bytes(&peer.stream.received(), &b"k".repeat(1_000_000));
    assert!(peer.stream.is_closed());
}

#[test]
fn draining_member_that_does_not_read_is_closed_at_the_farewell_timeout() {
    let mut room = room();
    let leaver = room.connect_to(Ack64);
    leaver.stream.takes(0);
    say_bytes(&mut room, &leaver, wide_frame("!DISCONNECT"));
    room.pass(FAREWELL / 2);
    assert!(!leaver.stream.is_closed());
    assert_eq!(room.relay.next_timeout(), Some(room.now + FAREWELL / 2));
    room.pass(FAREWELL / 2);
    assert!(leaver.stream.is_closed());
    assert_eq!(room.relay.next_timeout(), None);
    assert_eq!(room.relay.counters().closed.of("drain_timeout"), 1);
    let reasons = ends(&mut room, &leaver);
    let timeout = CloseReason::DrainTimeout { pending: 12 };
    assert_eq!(reasons, [CloseReason::Farewell, timeout.clone()]);
    assert_eq!(
        timeout.to_string(),
        "had left with 12 bytes of output unread"
    );
}

#[test]
fn farewell_is_the_whole_message_in_its_own_dialect() {
    let mut room = room();
    let (chat64, ack64) = (room.connect_to(Chat64), room.connect_to(Ack64));
    for other in [
        "!DISCONNECT",
        "client disconnected",
        "Client Disconnected ",
        "",
    ] {
        say_bytes(&mut room, &chat64, wide_frame(other));
    }
    for other in ["Client Disconnected", "!disconnect", "!DISCONNECT\n"] {
        say_bytes(&mut room, &ack64, wide_frame(other));
    }
    assert!(!chat64.stream.is_closed() && !ack64.stream.is_closed());
    // In chat10 it is a message like any other.
    let alice = room.join("alice");
    room.say(&alice, "!DISCONNECT");
    assert!(!alice.stream.is_closed());
}

#[test]
fn end_of_input_is_a_departure_in_each_dialect() {
    for dialect in [Ack64, Chat64, Chat10, Greet10] {
        let mut room = room();
        let alice = room.join("alice");
        let (leaver, silent) = (room.connect_to(dialect), room.connect_to(dialect));
        room.turns();
        for (peer, name) in [(&leaver, "leaver"), (&silent, "silent")] {
            if dialect == Chat10 {
                say_bytes(&mut room, peer, frame(name));
            }
            peer.stream.received();
        }
        leaver.stream.takes(4);
        let words = match dialect {
            Chat10 => [frame("one"), frame("two")].concat(),
            Greet10 => Vec::new(),
            _ => [wide_frame("one"), wide_frame("two")].concat(),
        };
        leaver.stream.sends(words).closes();
        alice.stream.sends(frame("in its last turn"));
        room.relay.publish_tick(b"a tick");
        room.readable(&alice);
        room.read_closed(&leaver);
        silent.stream.closes();
        room.read_closed(&silent);
        room.turns();
        assert!(silent.stream.is_closed(), "{dialect}");
        assert_eq!(room.relay.members().total(), 1, "{dialect}");
        assert!(
            !leaver.stream.is_closed(),
            "{dialect}: its output is pending"
        );
        room.say(&alice, "too late");
        room.relay.publish_tick(b"too late");
        room.turn();
        leaver.stream.takes(usize::MAX);
        room.writable(&leaver);
        room.turns();
        let last = match dialect {
            Ack64 => RECEIVED.repeat(2),
            Chat64 => [b"in its last turn", SENT, SENT].concat(),
            Greet10 => frame("a tick"),
            _ => delivery("alice", "in its last turn"),
        };
        assert_bytes(&leaver.stream.received(), &last);
        assert!(leaver.stream.is_closed(), "{dialect}");
        assert_eq!(room.relay.counters().closed.of("eof"), 2);
        assert_eq!(ends(&mut room, &leaver), [CloseReason::Eof]);
        let name = match dialect {
            Chat10 => "leaver",
            _ => "192.0.2.1:4002",
        };
        let words = [delivery(name, "one"), delivery(name, "two")].concat();
        let expected = if dialect == Greet10 {
            Vec::new()
        } else {
            words
        };
        assert_bytes(&alice.stream.received(), &expected);
    }
}

#[test]
fn end_of_input_inside_a_frame_is_a_departure_and_the_frame_is_dropped() {
    let mut room = room();
    let (alice, leaver) = (room.join("alice"), room.connect_to(Chat64));
    let cut = [&wide_frame("whole")[..], &wide_frame("cut")[..66]].concat();
    leaver.stream.sends(cut).closes();
    room.read_closed(&leaver);
    room.turns();
    assert_bytes(&leaver.stream.received(), SENT);
    assert!(leaver.stream.is_closed());
    assert_bytes(
        &alice.stream.received(),
        &delivery("192.0.2.1:4002", "whole"),
    );
    assert_eq!(ends(&mut room, &leaver), [CloseReason::TruncatedFrame]);
}

#[test]
fn reply_texts_can_be_configured() {
    let texts = ReplyTexts {
        greeting: Some(b"\x80\x04}\x94.".to_vec()),
        ack: Some(b"ok\n".to_vec()),
        farewell: Some(b"exit".to_vec()),
    };
    let mut room = Room::serving(&TUTORIALS, Limits::default(), &texts);
    let (greet10, hello) = (room.connect_to(Greet10), room.connect_to(Hello));
    room.turns();
    assert_bytes(&greet10.stream.received(), b"5         \x80\x04}\x94.");
    assert_bytes(&hello.stream.received(), b"\x80\x04}\x94.");
    for dialect in [Chat64, Ack64] {
        let peer = room.connect_to(dialect);
        say_bytes(&mut room, &peer, wide_frame("!DISCONNECT"));
        say_bytes(&mut room, &peer, wide_frame("Client Disconnected"));
        assert!(!peer.stream.is_closed());
        say_bytes(&mut room, &peer, wide_frame("exit"));
        assert_bytes(&peer.stream.received(), b"ok\nok\nok\n");
        assert!(peer.stream.is_closed());
    }
}

#[test]
fn greeting_is_delivered_whole_before_anything_else_however_slowly_it_is_read() {
    let texts = ReplyTexts {
        greeting: Some(vec![b'!'; 300_000]),
        ..ReplyTexts::default()
    };
    let mut room = Room::serving(&TUTORIALS, Limits::default(), &texts);
    let (greet10, hello) = (room.connect_to(Greet10), room.connect_to(Hello));
    for peer in [&greet10, &hello] {
        peer.stream.takes(7);
    }
    room.turns();
    room.relay.publish_tick(b"The time is 0.0");
    room.turn();
    let mut received = [greet10.stream.received(), hello.stream.received()];
    while room.relay.lagging() > 0 {
        for (peer, received) in [&greet10, &hello].into_iter().zip(&mut received) {
            peer.stream.takes(100_000);
            room.writable(peer);
            room.turn();
            received.extend(peer.stream.received());
        }
    }
    let expected = [frame(vec![b'!'; 300_000]), frame("The time is 0.0")].concat();
    assert_bytes(&received[0], &expected);
    assert_bytes(&received[1], &vec![b'!'; 300_000]);
    assert!(hello.stream.is_closed() && !greet10.stream.is_closed());
}

#[test]
fn ignored_input_is_discarded_up_to_the_message_limit() {
    let limits = Limits {
        max_message: 1000,
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let (listener, peer) = (room.join("listener"), room.connect_to(Greet10));
    for _ in 0..100 {
        say_bytes(&mut room, &peer, frame(""));
    }
    assert!(!peer.stream.is_closed());
    assert_bytes(&listener.stream.received(), b"");
    say_bytes(&mut room, &peer, b"!");
    assert!(peer.stream.is_closed());
    assert_eq!(room.relay.counters().closed.of("input_ignored"), 1);
    let reason = CloseReason::InputIgnored { max: 1000 };
    assert_eq!(
        reason.to_string(),
        "sent more than 1000 bytes where input has no meaning"
    );
}

#[test]
fn header_of_64_bytes_may_be_cut_anywhere() {
    let stream = [wide_frame("hello"), wide_frame(""), wide_frame("bye")].concat();
    for cut in 1..stream.len() {
        let mut room = room();
        let (sender, listener) = (room.connect_to(Chat64), room.join("listener"));
        say_bytes(&mut room, &sender, &stream[..cut]);
        say_bytes(&mut room, &sender, &stream[cut..]);
        let delivered = ["hello", "", "bye"].map(|text| delivery("192.0.2.1:4001", text));
        assert_bytes(&listener.stream.received(), &delivered.concat());
        assert_bytes(&sender.stream.received(), &SENT.repeat(3));
    }
}

#[test]
fn bad_header_of_64_bytes_closes_its_sender() {
    let headers = [
        format!("{:<64}", "9".repeat(26)),
        "9".repeat(64),
        // Two to the power of 64, and five: no sum of digits must overflow to five.
        format!("{:<64}", "18446744073709551621"),
        format!("{:<64}", "1048577"),
        format!("{:<64}", "+5"),
        format!("{:<64}", "5 5"),
        " ".repeat(64),
        format!("{:\0<64}", "5"),
    ];
    for (index, header) in headers.iter().enumerate() {
        for dialect in [Chat64, Ack64] {
            let mut room = room();
            let (sender, listener) = (room.connect_to(dialect), room.join("listener"));
            say_bytes(
                &mut room,
                &sender,
                [&wide_frame("last")[..], header.as_bytes(), b"hello"].concat(),
            );
            assert!(sender.stream.is_closed(), "{header:?}");
            assert_bytes(
                &listener.stream.received(),
                &delivery("192.0.2.1:4001", "last"),
            );
            assert_eq!(room.relay.counters().closed.of("protocol"), 1);
        }
        // One digit fewer than the limit's, of a message that is not there, is no reason.
        let mut room = room();
        let sender = room.connect_to(Chat64);
        say_bytes(&mut room, &sender, format!("{:<64}", 1_048_576 - index));
        assert!(!sender.stream.is_closed());
    }
    let error = FrameError::TooLong {
        len: u64::MAX,
        max: 7,
    };
    assert!(error.to_string().contains("where 7 are the limit"));
}

#[test]
fn new_members_receive_the_history_in_their_own_dialect() {
    let mut room = room_with_history(3);
    let alice = room.join("alice");
    let chat64 = room.connect_to(Chat64);
    room.say(&alice, "one");
    room.say(&alice, "two");
    say_bytes(&mut room, &chat64, wide_frame("three"));
    room.say(&alice, "four");
    let (late10, late64) = (room.join("late"), room.connect_to(Chat64));
    room.turns();
    let received = [
        delivery("alice", "two"),
        delivery("192.0.2.1:4002", "three"),
        delivery("alice", "four"),
    ];
    assert_bytes(&late10.stream.received(), &received.concat());
    assert_bytes(&late64.stream.received(), b"twothreefour");
    for deaf in [Ack64, Greet10, Hello] {
        let peer = room.connect_to(deaf);
        room.turns();
        let received = peer.stream.received();
        assert!(
            !received.windows(5).any(|bytes| bytes == b"three"),
            "{deaf}"
        );
    }
    room.say(&alice, "five");
    assert_bytes(&late64.stream.received(), b"five");
    // The members that were there before receive nothing twice.
    let all = ["one", "two"].map(str::as_bytes).concat();
    let expected = [&all[..], SENT, b"fourfive"].concat();
    assert_bytes(&chat64.stream.received(), &expected);
}

#[test]
fn history_and_live_messages_join_without_gap_or_repetition() {
    let mut room = room_with_history(2);
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    room.say(&alice, "old");
    alice.stream.sends(frame("before"));
    let late = room.connect();
    late.stream.sends([frame("late"), frame("mine")].concat());
    bob.stream.sends(frame("after"));
    for peer in [&alice, &late, &bob] {
        room.readable(peer);
    }
    room.turns();
    room.say(&alice, "live");
    let received = [
        delivery("alice", "old"),
        delivery("alice", "before"),
        delivery("bob", "after"),
        delivery("alice", "live"),
    ];
    assert_bytes(&late.stream.received(), &received.concat());
}

#[test]
fn new_member_receives_the_history_though_senders_exceed_the_turn_budget() {
    let limits = Limits {
        history: 10,
        history_bytes: 4000,
        max_name: 50,
        max_message: 1000,
        soft_limit: 10_000,
        queue_limit: 20_000,
        read_budget: 1000,
        turn_budget: 2000,
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let talkers: Vec<_> = (0..100).map(|_| room.connect_to(Ack64)).collect();
    let talk = |room: &mut Room| {
        for talker in &talkers {
            talker.stream.sends(wide_frame("x".repeat(100)).repeat(5));
            room.readable(talker);
        }
    };
    talk(&mut room);
    room.turns();
    talk(&mut room);
    let late = room.connect_to(Chat64);
    room.turns();
    assert!(!late.stream.is_closed());
    assert_eq!(late.stream.received().len(), 10 * 100 + 500 * 100);
}

#[test]
fn member_that_leaves_as_it_joins_receives_the_history() {
    let mut room = room_with_history(5);
    let alice = room.join("alice");
    room.say(&alice, "hello");
    let leaver = room.connect();
    leaver.stream.sends(frame("leaver")).closes();
    room.read_closed(&leaver);
    room.turns();
    assert_bytes(&leaver.stream.received(), &delivery("alice", "hello"));
    assert!(leaver.stream.is_closed());
    assert_eq!(ends(&mut room, &leaver), [CloseReason::Eof]);
}

#[test]
fn gone_members_of_a_paused_room_are_evicted_oldest_first_in_every_dialect() {
    let limits = Limits {
        max_name: 50,
        max_message: 1000,
        soft_limit: 5000,
        queue_limit: 20_000,
        ..Limits::default()
    };
    let mut room = Room::serving(&TUTORIALS, limits, &ReplyTexts::default());
    let (alice, slow) = (room.join("alice"), room.join("slow"));
    let (first, second) = (room.connect_to(Chat64), room.join("second"));
    let present = room.connect_to(Ack64);
    slow.stream.takes(0);
    for _ in 0..6 {
        room.say(&alice, "x".repeat(1000));
    }
    assert!(room.relay.is_paused());
    second.stream.sends(frame("unread")).closes();
    first.stream.sends(wide_frame("unread")).closes();
    present.stream.sends(wide_frame("unread"));
    room.readable(&present);
    room.read_closed(&second);
    room.read_closed(&first);
    room.turns();
    assert!(!first.stream.is_closed() && !second.stream.is_closed());
    for (gone, unread) in [(&first, 64 + 6), (&second, 10 + 6)] {
        room.take_events();
        assert!(room.relay.make_room(None, &mut room.scratch, room.now));
        assert!(gone.stream.is_closed());
        room.turn();
        let events = room.take_events();
        let [
            RoomEvent::Left {
                peer,
                reason,
                unread: discarded,
                ..
            },
        ] = &events[..]
        else {
            panic!("{events:?}");
        };
        assert_eq!((peer.id, reason), (gone.id, &CloseReason::Evicted));
        assert_eq!(*discarded, unread);
    }
    assert_eq!(room.relay.counters().bytes_discarded, 70 + 16);
    assert!(!room.relay.make_room(None, &mut room.scratch, room.now));
    assert!(!present.stream.is_closed());
}

#[test]
fn last_message_that_is_empty_is_answered_before_the_close() {
    let mut room = room();
    let last = room.connect_to(Chat64);
    last.stream.sends(wide_frame("")).closes();
    room.read_closed(&last);
    room.turns();
    assert_bytes(&last.stream.received(), SENT);
    assert!(last.stream.is_closed());
    assert_eq!(ends(&mut room, &last), [CloseReason::Eof]);
}

#[test]
fn history_is_kept_in_an_empty_room_in_bounded_memory() {
    let limits = Limits {
        history: 1_000_000,
        history_bytes: 200_000,
        ..Limits::default()
    };
    let mut room = Room::serving(&[Chat10], limits, &ReplyTexts::default());
    let alone = room.join("alone");
    for number in 0..40_000 {
        room.say(&alone, format!("{number:050}"));
    }
    // To a chunk.
    assert!(room.relay.backlog_bytes() < 200_000 + 65_536);
    assert_eq!(room.relay.lagging(), 0);
    assert_eq!(room.relay.unread_bytes(), 0);
    alone.stream.closes();
    room.read_closed(&alone);
    room.turns();
    let late = room.join("late");
    room.turns();
    let received = late.stream.received();
    // Each takes 75 bytes on the wire, and 8 to be remembered.
    let count = 200_000 / 83;
    let first = 40_000 - count;
    let expected: Vec<u8> = (first..40_000)
        .flat_map(|number| delivery("alone", format!("{number:050}")))
        .collect();
    assert_bytes(&received, &expected);
}

#[test]
fn published_bytes_are_not_kept_without_history() {
    let mut room = room();
    let alice = room.join("alice");
    room.connect_to(Chat64);
    room.say(&alice, "hello");
    assert_eq!(room.relay.backlog_bytes(), 0);
    let late = room.connect_to(Chat64);
    room.turns();
    assert_bytes(&late.stream.received(), b"");
}

#[test]
fn member_infos_count_what_each_member_sent_and_received() {
    let mut room = room_with_history(10);
    assert_eq!(room.relay.pending_connections(), 0);
    let alice = room.join("al\tice");
    room.now += Duration::from_secs(3700);
    let (chat64, _) = (room.connect_to(Chat64), room.connect_to(Ack64));
    let _pending = room.connect();
    let _greeted = room.connect_to(Greet10);
    assert_eq!(room.relay.pending_connections(), 1);
    room.turns();
    chat64.stream.takes(2);
    room.say(&alice, "one");
    room.say(&alice, "two");
    say_bytes(&mut room, &chat64, wide_frame("three"));
    let late = room.join("zoë");
    room.turns();
    room.say(&late, "four");
    let infos = room.relay.member_infos(room.now + Duration::from_secs(5));
    let infos: Vec<_> = infos
        .map(|info| {
            let name = String::from_utf8_lossy(info.name).into_owned();
            let counts = (info.sent, info.received, info.pending);
            (
                name,
                info.peer.port(),
                info.dialect,
                info.age.as_secs(),
                counts,
            )
        })
        .collect();
    let ip = |port: u16| format!("192.0.2.1:{port}");
    assert_eq!(
        infos,
        [
            ("al\tice".to_owned(), 4001, Chat10, 3705, (2, 2, 0)),
            (ip(4002), 4002, Chat64, 5, (1, 3, 25)),
            (ip(4003), 4003, Ack64, 5, (0, 0, 0)),
            (ip(4005), 4005, Greet10, 5, (0, 0, 0)),
            ("zoë".to_owned(), 4006, Chat10, 5, (1, 3, 0)),
        ]
    );
    let members = room.relay.members();
    assert_eq!(
        Dialect::ALL.map(|dialect| members.of(dialect)),
        [2, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    );
}
