//! Every tutorial's protocol, byte for byte, and all of them in one room: without sockets.

mod common;

use std::time::{Duration, SystemTime};

use chatloop::relay::{CloseReason, Deadline, Limits, Slow, Wording};
use chatloop::wire::Dialect::{self, Ack64, Chat10, Chat64, Greet10, Hello};
use chatloop::wire::FrameError;
use common::script::{Peer, Room};
use common::{assert_bytes, frame, heard, wide_frame};
use proptest::prelude::*;

const SENT: &[u8] = b"Message was Sent!";
const RECEIVED: &[u8] = b"Msg received";

/// How long a member that leaves may take nothing.
const FAREWELL: Duration = Duration::from_secs(60);

fn room() -> Room {
    Room::serving(&Dialect::ALL, Limits::default(), &Wording::default())
}

fn room_with_history(messages: usize) -> Room {
    let limits = Limits {
        history: messages,
        ..Limits::default()
    };
    Room::serving(&Dialect::ALL, limits, &Wording::default())
}

/// A peer says these bytes in a turn of its own.
fn say_bytes(room: &mut Room, peer: &Peer, bytes: impl AsRef<[u8]>) {
    peer.stream.says(bytes);
    room.readable(peer);
    room.turns();
}

#[test]
fn chat64_relays_the_message_alone_and_answers_its_sender() {
    let mut room = room();
    let (one, two) = (room.connect_to(Chat64), room.connect_to(Chat64));
    say_bytes(
        &mut room,
        &one,
        b"5                                                               hello",
    );
    assert_bytes(&one.stream.heard(), b"Message was Sent!");
    assert_bytes(&two.stream.heard(), b"hello");
    say_bytes(&mut room, &two, wide_frame("Client Disconnected"));
    assert_bytes(&one.stream.heard(), b"Client Disconnected");
    assert_bytes(&two.stream.heard(), b"Message was Sent!");
    assert!(two.stream.is_closed() && !one.stream.is_closed());
    assert_eq!(room.relay.counters().closed.farewell, 1);
    assert_eq!(room.relay.members_of(Chat64), 1);
}

#[test]
fn ack64_answers_and_hears_nothing_of_the_room() {
    let mut room = room();
    let (one, two) = (room.connect_to(Ack64), room.connect_to(Ack64));
    let listener = room.join("listener");
    say_bytes(
        &mut room,
        &one,
        b"12                                                              Hello World!",
    );
    assert_bytes(&one.stream.heard(), b"Msg received");
    assert_bytes(&two.stream.heard(), b"");
    say_bytes(&mut room, &one, wide_frame("!DISCONNECT"));
    assert_bytes(&one.stream.heard(), b"Msg received");
    assert!(one.stream.is_closed());
    // The others hear what it says, and not that it leaves.
    assert_bytes(
        &listener.stream.heard(),
        &heard("192.0.2.1:4001", "Hello World!"),
    );
    assert_eq!(room.relay.counters().messages, 1);
    assert_eq!(room.relay.counters().closed.farewell, 1);
}

#[test]
fn greet10_greets_and_then_tells_the_time_to_all() {
    let mut room = room();
    let one = room.connect_to(Greet10);
    room.turns();
    assert_bytes(&one.stream.heard(), b"22        Welcome to the server!");
    let time = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    room.relay.tell_time(time(1_593_590_400_123));
    room.turn();
    assert_bytes(&one.stream.heard(), b"26        The time is 1593590400.123");

    let two = room.connect_to(Greet10);
    let other = room.join("other");
    room.turns();
    room.relay.tell_time(time(1_593_590_403_000));
    room.turn();
    let told = b"24        The time is 1593590403.0";
    assert_bytes(&one.stream.heard(), told);
    let greeted = [&b"22        Welcome to the server!"[..], told].concat();
    assert_bytes(&two.stream.heard(), &greeted);
    assert_bytes(&other.stream.heard(), b"");
    assert_eq!(one.stream.write_calls(), 3, "each in one write");
}

#[test]
fn who_comes_in_the_middle_of_a_turn_hears_nothing_that_was_said_before() {
    let mut room = room();
    let alice = room.join("alice");
    let _others = (room.connect_to(Chat64), room.connect_to(Greet10));
    room.turns();
    alice.stream.says(frame("too early"));
    room.readable(&alice);
    room.relay.tell_time(SystemTime::UNIX_EPOCH);
    room.relay.serve_ready(&mut room.scratch, room.now);
    let (chat64, greet10) = (room.connect_to(Chat64), room.connect_to(Greet10));
    room.turns();
    room.say(&alice, "in time");
    assert_bytes(&chat64.stream.heard(), b"in time");
    assert_bytes(&greet10.stream.heard(), b"22        Welcome to the server!");
}

#[test]
fn who_is_only_greeted_and_does_not_take_it_is_closed() {
    let mut room = room();
    let peer = room.connect_to(Hello);
    peer.stream.takes(0);
    room.turns();
    room.pass(FAREWELL / 2);
    assert!(!peer.stream.is_closed());
    room.pass(FAREWELL / 2);
    assert!(peer.stream.is_closed());
    assert_eq!(room.relay.counters().closed.farewell_timeout, 1);
}

#[test]
fn who_speaks_and_cannot_be_written_to_goes() {
    let mut room = room();
    let (listener, speaker) = (room.join("listener"), room.connect_to(Chat64));
    speaker.stream.breaks(std::io::ErrorKind::ConnectionReset);
    speaker.stream.says(wide_frame("my last words")).closes();
    room.readable(&speaker);
    room.turns();
    assert!(speaker.stream.is_closed());
    assert_bytes(
        &listener.stream.heard(),
        &heard("192.0.2.1:4002", "my last words"),
    );
    assert_eq!(room.relay.counters().closed.io, 1);
}

#[test]
fn the_time_has_an_audience_only_while_somebody_is_there_to_hear_it() {
    let mut room = room();
    let _others = (
        room.join("alice"),
        room.connect_to(Chat64),
        room.connect_to(Hello),
    );
    assert!(!room.relay.has_audience());
    let told = room.connect_to(Greet10);
    assert!(room.relay.has_audience());
    room.turns();
    assert!(room.relay.has_audience());
    told.stream.fails(std::io::ErrorKind::ConnectionReset);
    room.readable(&told);
    room.turns();
    assert!(!room.relay.has_audience());
}

#[test]
fn hello_greets_and_hangs_up() {
    let mut room = room();
    let peer = room.connect_to(Hello);
    peer.stream.says("is anybody there?");
    room.readable(&peer);
    room.turns();
    assert_bytes(&peer.stream.heard(), b"welcome to the server!");
    assert!(peer.stream.is_closed());
    assert_eq!(room.relay.counters().closed.greeted, 1);
    let counters = room.relay.counters();
    assert_eq!((counters.joined, counters.peak_members), (0, 0));
}

#[test]
fn all_who_chat_share_one_room() {
    let mut room = room();
    let alice = room.join("alice"); // port 4001
    let (chat64, ack64) = (room.connect_to(Chat64), room.connect_to(Ack64));
    let (greet10, bob) = (room.connect_to(Greet10), room.join("bob"));
    room.turns();
    greet10.stream.heard();

    room.say(&alice, "from alice");
    say_bytes(&mut room, &chat64, wide_frame("from chat64"));
    say_bytes(&mut room, &ack64, wide_frame("from ack64"));
    let from = |ports: &[u16]| -> Vec<u8> {
        let heard_from = |port: &u16| match port {
            4001 => heard("alice", "from alice"),
            4002 => heard("192.0.2.1:4002", "from chat64"),
            _ => heard("192.0.2.1:4003", "from ack64"),
        };
        ports.iter().flat_map(heard_from).collect()
    };
    assert_bytes(&alice.stream.heard(), &from(&[4002, 4003]));
    assert_bytes(&bob.stream.heard(), &from(&[4001, 4002, 4003]));
    assert_bytes(
        &chat64.stream.heard(),
        b"from aliceMessage was Sent!from ack64",
    );
    assert_bytes(&ack64.stream.heard(), RECEIVED);
    assert_bytes(&greet10.stream.heard(), b"");
    assert_eq!(room.relay.members(), 5);
    let of = Dialect::ALL.map(|dialect| room.relay.members_of(dialect));
    assert_eq!(of, [2, 1, 1, 1, 0]);
}

#[test]
fn a_turn_costs_each_member_one_write_whatever_it_speaks() {
    let mut room = room();
    let speakers: Vec<_> = (0..3).map(|i| room.join(format!("{i}"))).collect();
    let members = [Chat10, Chat64].map(|dialect| room.connect_to(dialect));
    say_bytes(&mut room, &members[0], frame("listener"));
    let talker = room.connect_to(Chat64);
    for peer in &speakers {
        peer.stream.write_calls();
        peer.stream.says(frame("a").repeat(5));
        room.readable(peer);
    }
    talker.stream.says(wide_frame("b").repeat(5));
    room.readable(&talker);
    room.turn();
    assert!(!room.relay.has_ready(), "nobody has more to take");
    for peer in speakers.iter().chain(&members).chain([&talker]) {
        assert_eq!(peer.stream.write_calls(), 1);
    }
    assert_bytes(&members[1].stream.heard(), b"aaaaaaaaaaaaaaabbbbb");
    let expected = [&b"a".repeat(15)[..], &SENT.repeat(5)].concat();
    assert_bytes(&talker.stream.heard(), &expected);
}

#[test]
fn an_acknowledgement_comes_between_what_was_said_before_and_after_however_it_is_cut() {
    for cut in 0..40 {
        let mut room = room();
        let (alice, bob) = (room.join("alice"), room.join("bob"));
        let member = room.connect_to(Chat64);
        member.stream.takes(cut);
        room.relay.note(alice.id, chatloop::relay::Ready::READABLE);
        alice.stream.says(frame("before"));
        member
            .stream
            .says([wide_frame("mine"), wide_frame("")].concat());
        bob.stream.says(frame("after"));
        for peer in [&alice, &member, &bob] {
            room.readable(peer);
        }
        room.turn();
        room.say(&alice, "later");
        say_bytes(&mut room, &member, wide_frame("mine too"));
        let mut heard = member.stream.heard();
        assert_eq!(heard.len(), cut);
        // From here on byte by byte.
        while !room.relay.is_flushed() {
            member.stream.takes(1);
            room.writable(&member);
            room.turn();
            heard.extend(member.stream.heard());
        }
        let expected = [&b"before"[..], SENT, SENT, b"after", b"later", SENT].concat();
        assert_bytes(&heard, &expected);
    }
}

#[test]
fn acknowledgements_that_nobody_reads_are_a_number_and_count_for_the_queue_limit() {
    let limits = Limits {
        max_name: 10,
        max_message: 100,
        queue_limit: 1250,
        ..Limits::default()
    };
    let mut room = Room::serving(&Dialect::ALL, limits, &Wording::default());
    let deaf = room.connect_to(Ack64);
    deaf.stream.takes(5);
    for _ in 0..100 {
        say_bytes(&mut room, &deaf, wide_frame(""));
    }
    assert_eq!(room.relay.pending_bytes(deaf.id), 1195);
    assert_eq!(room.relay.backlog_bytes(), 0);
    assert!(!deaf.stream.is_closed());
    for _ in 0..5 {
        say_bytes(&mut room, &deaf, wide_frame(""));
    }
    assert!(deaf.stream.is_closed());
    assert_eq!(room.relay.counters().closed.slow_consumer, 1);
}

#[test]
fn who_does_not_read_cannot_hold_more_memory_than_the_queue_limit_by_saying_nothing() {
    let wording = Wording {
        ack: Some(Vec::new()),
        ..Wording::default()
    };
    let limits = Limits {
        max_message: 100,
        queue_limit: 10_000,
        ..Limits::default()
    };
    let mut room = Room::serving(&Dialect::ALL, limits, &wording);
    let (talker, deaf) = (room.connect_to(Chat64), room.connect_to(Chat64));
    deaf.stream.takes(0);
    let mut turns = 0;
    while !deaf.stream.is_closed() {
        // A byte, and a place after it that has to be remembered.
        say_bytes(&mut room, &talker, wide_frame("."));
        say_bytes(&mut room, &deaf, wide_frame(""));
        turns += 1;
    }
    assert!(turns < 500, "closed after {turns}");
}

#[test]
fn who_takes_its_leave_is_sent_what_is_queued_and_nothing_that_is_said_later() {
    let mut room = room();
    let alice = room.join("alice");
    let leaver = room.connect_to(Chat64);
    leaver.stream.takes(3);
    room.say(&alice, "one");
    room.say(&alice, "two");
    // What it sends after its farewell is not read as messages, not even as nonsense.
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
    // It has taken something, so it has as much time again.
    room.pass(FAREWELL);
    assert!(!leaver.stream.is_closed());
    leaver.stream.takes(usize::MAX);
    room.writable(&leaver);
    room.turns();
    assert_bytes(&leaver.stream.heard(), &[&b"one"[..], &last].concat());
    assert!(leaver.stream.is_closed());
    assert_bytes(
        &alice.stream.heard(),
        &heard("192.0.2.1:4002", "Client Disconnected"),
    );
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn who_takes_its_leave_holds_on_to_no_more_than_anybody_else() {
    let limits = Limits {
        queue_limit: 2_000_000,
        slow: Slow::Cut,
        ..Limits::default()
    };
    let mut room = Room::serving(&Dialect::ALL, limits, &Wording::default());
    let (talker, leaver) = (room.connect_to(Ack64), room.connect_to(Chat64));
    leaver.stream.takes(0);
    say_bytes(&mut room, &talker, wide_frame("x".repeat(1000)));
    say_bytes(&mut room, &leaver, wide_frame("Client Disconnected"));
    let mut said = 0;
    while !leaver.stream.is_closed() {
        // It goes on reading, a byte at a time, and others go on talking.
        leaver.stream.takes(1);
        room.writable(&leaver);
        say_bytes(&mut room, &talker, wide_frame("x".repeat(100_000)));
        said += 100_000;
        assert!(said < 3_000_000);
    }
    assert!(said > 1_800_000, "closed after {said}");
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn a_farewell_is_answered_though_the_queue_is_full() {
    let limits = Limits {
        max_name: 10,
        max_message: 100,
        queue_limit: 1100,
        ..Limits::default()
    };
    let mut room = Room::serving(&Dialect::ALL, limits, &Wording::default());
    let (talker, leaver) = (room.join("talker"), room.connect_to(Chat64));
    leaver.stream.takes(0);
    for _ in 0..13 {
        room.say(&talker, "x".repeat(80));
    }
    say_bytes(&mut room, &leaver, wide_frame("Client Disconnected"));
    leaver.stream.takes(usize::MAX);
    room.writable(&leaver);
    room.turns();
    let expected = [&b"x".repeat(13 * 80)[..], SENT].concat();
    assert_bytes(&leaver.stream.heard(), &expected);
    assert_eq!(room.relay.counters().closed.farewell, 1);
}

#[test]
fn who_is_closed_for_nonsense_is_answered_for_what_came_before() {
    let mut room = room();
    let (sender, listener) = (room.connect_to(Ack64), room.join("listener"));
    let before = room.relay.counters().bytes_out;
    say_bytes(
        &mut room,
        &sender,
        [wide_frame("one"), b"?".repeat(64)].concat(),
    );
    let relayed = heard("192.0.2.1:4001", "one");
    assert_bytes(&listener.stream.heard(), &relayed);
    assert_bytes(&sender.stream.heard(), RECEIVED);
    assert!(sender.stream.is_closed());
    let written = room.relay.counters().bytes_out - before;
    assert_eq!(written, (relayed.len() + RECEIVED.len()) as u64);

    // But not before what is queued for it.
    let sender = room.connect_to(Chat64);
    sender.stream.takes(0);
    room.say(&listener, "queued");
    sender.stream.takes(usize::MAX);
    say_bytes(
        &mut room,
        &sender,
        [wide_frame("one"), b"?".repeat(64)].concat(),
    );
    assert_bytes(&sender.stream.heard(), b"");
    assert!(sender.stream.is_closed());
}

#[test]
fn answers_that_are_too_many_for_one_write_all_go_out_without_another_event() {
    let wording = Wording {
        ack: Some(vec![b'k'; 10_000]),
        ..Wording::default()
    };
    let limits = Limits {
        queue_limit: 3_000_000,
        ..Limits::default()
    };
    let mut room = Room::serving(&Dialect::ALL, limits, &wording);
    let peer = room.connect_to(Ack64);
    say_bytes(&mut room, &peer, wide_frame("").repeat(200));
    assert_bytes(&peer.stream.heard(), &b"k".repeat(2_000_000));
    say_bytes(
        &mut room,
        &peer,
        [wide_frame("").repeat(99), wide_frame("!DISCONNECT")].concat(),
    );
    assert_bytes(&peer.stream.heard(), &b"k".repeat(1_000_000));
    assert!(peer.stream.is_closed());
}

#[test]
fn who_takes_its_leave_and_reads_no_more_is_closed() {
    let mut room = room();
    let leaver = room.connect_to(Ack64);
    leaver.stream.takes(0);
    say_bytes(&mut room, &leaver, wide_frame("!DISCONNECT"));
    room.pass(FAREWELL / 2);
    assert!(!leaver.stream.is_closed());
    let (id, pending) = (leaver.id, 12);
    assert!(room.relay.is_pending(Deadline::Farewell { id, pending }));
    room.pass(FAREWELL / 2);
    assert!(leaver.stream.is_closed());
    assert!(!room.relay.is_pending(Deadline::Farewell { id, pending }));
    assert_eq!(room.relay.counters().closed.farewell_timeout, 1);
    let reason = CloseReason::FarewellTimeout { pending: 12 };
    assert_eq!(
        reason.to_string(),
        "did not read the last 12 bytes before it left"
    );
}

#[test]
fn a_farewell_is_the_whole_message_and_nothing_else() {
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
    // A chat10 member may say it as it likes.
    let alice = room.join("alice");
    room.say(&alice, "!DISCONNECT");
    assert!(!alice.stream.is_closed());
}

#[test]
fn who_only_speaks_and_closes_its_sending_side_gets_its_answers_and_goes() {
    let mut room = room();
    let peer = room.connect_to(Ack64);
    peer.stream.takes(4);
    peer.stream
        .says([wide_frame("one"), wide_frame("two")].concat())
        .closes();
    room.read_closed(&peer);
    room.turns();
    assert!(!peer.stream.is_closed());
    peer.stream.takes(usize::MAX);
    room.writable(&peer);
    room.turns();
    assert_bytes(&peer.stream.heard(), &RECEIVED.repeat(2));
    assert!(peer.stream.is_closed());
    assert_eq!(room.relay.counters().closed.eof, 1);

    let silent = room.connect_to(Ack64);
    silent.stream.closes();
    room.read_closed(&silent);
    room.turns();
    assert!(silent.stream.is_closed());
    // Somebody who hears may go on to listen.
    let listener = room.connect_to(Chat64);
    listener.stream.closes();
    room.read_closed(&listener);
    room.turns();
    assert!(!listener.stream.is_closed());
}

#[test]
fn the_words_can_be_others() {
    let wording = Wording {
        greeting: Some(b"\x80\x04}\x94.".to_vec()),
        ack: Some(b"ok\n".to_vec()),
        farewell: Some(b"exit".to_vec()),
    };
    let mut room = Room::serving(&Dialect::ALL, Limits::default(), &wording);
    let (greet10, hello) = (room.connect_to(Greet10), room.connect_to(Hello));
    room.turns();
    assert_bytes(&greet10.stream.heard(), b"5         \x80\x04}\x94.");
    assert_bytes(&hello.stream.heard(), b"\x80\x04}\x94.");
    for dialect in [Chat64, Ack64] {
        let peer = room.connect_to(dialect);
        say_bytes(&mut room, &peer, wide_frame("!DISCONNECT"));
        say_bytes(&mut room, &peer, wide_frame("Client Disconnected"));
        assert!(!peer.stream.is_closed());
        say_bytes(&mut room, &peer, wide_frame("exit"));
        assert_bytes(&peer.stream.heard(), b"ok\nok\nok\n");
        assert!(peer.stream.is_closed());
    }
}

#[test]
fn a_greeting_goes_out_whole_before_anything_else_however_slowly() {
    let wording = Wording {
        greeting: Some(vec![b'!'; 300_000]),
        ..Wording::default()
    };
    let mut room = Room::serving(&Dialect::ALL, Limits::default(), &wording);
    let (greet10, hello) = (room.connect_to(Greet10), room.connect_to(Hello));
    for peer in [&greet10, &hello] {
        peer.stream.takes(7);
    }
    room.turns();
    room.relay.tell_time(SystemTime::UNIX_EPOCH);
    room.turn();
    let mut told = [greet10.stream.heard(), hello.stream.heard()];
    while !room.relay.is_flushed() {
        for (peer, told) in [&greet10, &hello].into_iter().zip(&mut told) {
            peer.stream.takes(100_000);
            room.writable(peer);
            room.turn();
            told.extend(peer.stream.heard());
        }
    }
    let expected = [frame(vec![b'!'; 300_000]), frame("The time is 0.0")].concat();
    assert_bytes(&told[0], &expected);
    assert_bytes(&told[1], &vec![b'!'; 300_000]);
    assert!(hello.stream.is_closed() && !greet10.stream.is_closed());
}

#[test]
fn what_is_sent_to_a_greeter_is_dropped_up_to_a_limit() {
    let limits = Limits {
        max_message: 1000,
        ..Limits::default()
    };
    let mut room = Room::serving(&Dialect::ALL, limits, &Wording::default());
    let (listener, peer) = (room.join("listener"), room.connect_to(Greet10));
    for _ in 0..100 {
        say_bytes(&mut room, &peer, frame(""));
    }
    assert!(!peer.stream.is_closed());
    assert_bytes(&listener.stream.heard(), b"");
    say_bytes(&mut room, &peer, b"!");
    assert!(peer.stream.is_closed());
    assert_eq!(room.relay.counters().closed.unheard, 1);
    let reason = CloseReason::Unheard { max: 1000 };
    assert_eq!(
        reason.to_string(),
        "sent more than 1000 bytes where nobody listens"
    );
}

#[test]
fn a_header_of_64_bytes_may_be_cut_anywhere() {
    let stream = [wide_frame("hello"), wide_frame(""), wide_frame("bye")].concat();
    for cut in 1..stream.len() {
        let mut room = room();
        let (sender, listener) = (room.connect_to(Chat64), room.join("listener"));
        say_bytes(&mut room, &sender, &stream[..cut]);
        say_bytes(&mut room, &sender, &stream[cut..]);
        let heard = ["hello", "", "bye"].map(|text| heard("192.0.2.1:4001", text));
        assert_bytes(&listener.stream.heard(), &heard.concat());
        assert_bytes(&sender.stream.heard(), &SENT.repeat(3));
    }
}

#[test]
fn a_header_of_64_bytes_that_is_none_or_too_much_closes_its_sender() {
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
            assert_bytes(&listener.stream.heard(), &heard("192.0.2.1:4001", "last"));
            assert_eq!(room.relay.counters().closed.protocol, 1);
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
fn newcomers_are_told_the_last_messages_each_in_its_own_dialect() {
    let mut room = room_with_history(3);
    let alice = room.join("alice");
    let chat64 = room.connect_to(Chat64);
    room.say(&alice, "one");
    room.say(&alice, "two");
    say_bytes(&mut room, &chat64, wide_frame("three"));
    room.say(&alice, "four");
    let (late10, late64) = (room.join("late"), room.connect_to(Chat64));
    room.turns();
    let told = [
        heard("alice", "two"),
        heard("192.0.2.1:4002", "three"),
        heard("alice", "four"),
    ];
    assert_bytes(&late10.stream.heard(), &told.concat());
    assert_bytes(&late64.stream.heard(), b"twothreefour");
    for deaf in [Ack64, Greet10, Hello] {
        let peer = room.connect_to(deaf);
        room.turns();
        let told = peer.stream.heard();
        assert!(!told.windows(5).any(|bytes| bytes == b"three"), "{deaf}");
    }
    room.say(&alice, "five");
    assert_bytes(&late64.stream.heard(), b"five");
    // Those who were here before are told nothing twice.
    let all = ["one", "two"].map(str::as_bytes).concat();
    let expected = [&all[..], SENT, b"fourfive"].concat();
    assert_bytes(&chat64.stream.heard(), &expected);
}

#[test]
fn at_the_seam_nothing_is_missing_and_nothing_comes_twice() {
    let mut room = room_with_history(2);
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    room.say(&alice, "old");
    alice.stream.says(frame("before"));
    let newcomer = room.connect();
    newcomer
        .stream
        .says([frame("newcomer"), frame("mine")].concat());
    bob.stream.says(frame("after"));
    for peer in [&alice, &newcomer, &bob] {
        room.readable(peer);
    }
    room.turns();
    room.say(&alice, "live");
    let told = [
        heard("alice", "old"),
        heard("alice", "before"),
        heard("bob", "after"),
        heard("alice", "live"),
    ];
    assert_bytes(&newcomer.stream.heard(), &told.concat());
}

#[test]
fn a_newcomer_gets_the_history_though_others_have_more_to_say_than_a_turn_allows() {
    let limits = Limits {
        history: 10,
        history_bytes: 4000,
        max_name: 50,
        max_message: 1000,
        queue_limit: 20_000,
        read_budget: 1000,
        turn_budget: 2000,
        ..Limits::default()
    };
    let mut room = Room::serving(&Dialect::ALL, limits, &Wording::default());
    let talkers: Vec<_> = (0..100).map(|_| room.connect_to(Ack64)).collect();
    let talk = |room: &mut Room| {
        for talker in &talkers {
            talker.stream.says(wide_frame("x".repeat(100)).repeat(5));
            room.readable(talker);
        }
    };
    talk(&mut room);
    room.turns();
    talk(&mut room);
    let newcomer = room.connect_to(Chat64);
    room.turns();
    assert!(!newcomer.stream.is_closed());
    assert_eq!(newcomer.stream.heard().len(), 10 * 100 + 500 * 100);
}

#[test]
fn a_half_closed_newcomer_that_was_told_the_history_is_not_the_one_to_evict() {
    let mut room = room_with_history(5);
    let alice = room.join("alice");
    room.say(&alice, "hello");
    let newcomer = room.connect();
    newcomer.stream.says(frame("newcomer")).closes();
    room.read_closed(&newcomer);
    room.turns();
    assert_bytes(&newcomer.stream.heard(), &heard("alice", "hello"));
    assert!(!room.relay.make_room(&mut room.scratch));

    // Of those who were not, it is the one that is longest here, whatever it speaks.
    let (first, second) = (room.connect_to(Greet10), room.connect_to(Chat64));
    room.turns();
    for peer in [&second, &first] {
        peer.stream.closes();
        room.read_closed(peer);
        room.turns();
    }
    assert!(room.relay.make_room(&mut room.scratch));
    assert!(first.stream.is_closed() && !second.stream.is_closed());
}

#[test]
fn a_member_whose_last_word_was_empty_and_was_answered_is_not_the_one_to_evict() {
    let mut room = room_with_history(0);
    let last = room.connect_to(Chat64);
    last.stream.says(wide_frame("")).closes();
    room.read_closed(&last);
    room.turns();
    assert_bytes(&last.stream.heard(), b"Message was Sent!");
    assert!(!room.relay.make_room(&mut room.scratch));
}

#[test]
fn history_is_kept_though_nobody_is_here_and_its_memory_is_bounded() {
    let limits = Limits {
        history: 1_000_000,
        history_bytes: 200_000,
        ..Limits::default()
    };
    let mut room = Room::serving(&[Chat10], limits, &Wording::default());
    let alone = room.join("alone");
    for number in 0..40_000 {
        room.say(&alone, format!("{number:050}"));
    }
    // To a chunk.
    assert!(room.relay.backlog_bytes() < 200_000 + 65_536);
    assert!(room.relay.is_flushed());
    assert_eq!(room.relay.awaited_bytes(), 0);
    alone.stream.closes();
    room.read_closed(&alone);
    room.turns();
    let late = room.join("late");
    room.turns();
    let told = late.stream.heard();
    // Each takes 75 bytes on the wire, and 8 to be remembered.
    let count = 200_000 / 83;
    let first = 40_000 - count;
    let expected: Vec<u8> = (first..40_000)
        .flat_map(|number| heard("alone", format!("{number:050}")))
        .collect();
    assert_bytes(&told, &expected);
}

#[test]
fn without_history_nothing_is_kept() {
    let mut room = room();
    let alice = room.join("alice");
    room.connect_to(Chat64);
    room.say(&alice, "hello");
    assert_eq!(room.relay.backlog_bytes(), 0);
    let late = room.connect_to(Chat64);
    room.turns();
    assert_bytes(&late.stream.heard(), b"");
}

#[test]
fn the_roster_tells_who_is_here() {
    let mut room = room_with_history(10);
    assert_eq!(room.relay.here().to_string(), "0 here");
    assert_eq!(room.relay.unnamed(), 0);
    let alice = room.join("al\tice");
    room.now += Duration::from_secs(3700);
    let (chat64, _) = (room.connect_to(Chat64), room.connect_to(Ack64));
    let _unnamed = room.connect();
    let _audience = room.connect_to(Greet10);
    assert_eq!(room.relay.unnamed(), 1);
    room.turns();
    chat64.stream.takes(2);
    room.say(&alice, "one");
    room.say(&alice, "two");
    say_bytes(&mut room, &chat64, wide_frame("three"));
    let late = room.join("zoë");
    room.turns();
    room.say(&late, "four");
    let lines: Vec<String> = room
        .relay
        .roster(room.now + Duration::from_secs(5))
        .lines()
        .collect();
    assert_eq!(
        lines,
        [
            "name       address         dialect   here for  sent  heard  queued",
            r#""al\tice"  192.0.2.1:4001  chat10   1h 1m 45s     2      2       0"#,
            "-          192.0.2.1:4002  chat64          5s     1      3      25",
            "-          192.0.2.1:4003  ack64           5s     0      0       0",
            "-          192.0.2.1:4005  greet10         5s     -      0       0",
            r#""zoë"      192.0.2.1:4006  chat10          5s     1      3       0"#,
        ]
    );
    assert_eq!(
        room.relay.here().to_string(),
        "5 here (2 chat10, 1 chat64, 1 ack64, 1 greet10)"
    );
}

/// What a random script does next.
#[derive(Clone, Debug)]
enum Step {
    Say { who: usize, len: usize },
    Takes { who: usize, bytes: usize },
    Join(Dialect),
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (any::<usize>(), 0..200_usize).prop_map(|(who, len)| Step::Say { who, len }),
        4 => (any::<usize>(), 0..500_usize).prop_map(|(who, bytes)| Step::Takes { who, bytes }),
        1 => prop::sample::select(&[Chat10, Chat64, Ack64][..]).prop_map(Step::Join),
        3 => Just(Step::Turn),
    ]
}

/// Somebody in a random script.
struct Member {
    peer: Peer,
    dialect: Dialect,
    name: String,
    /// How many messages had been heard when it joined; of a `chat10` member, whose name waits for its
    /// turn, that is where its first message comes.
    joined_after: Option<usize>,
    said: usize,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Members of every dialect come, speak and read as they like, and their bytes are cut anywhere.
    /// Sockets tell once, as under edge triggering, that they have room again after they had not.
    /// One member, who only listens and always reads, hears in which order everything was said; from
    /// that follows, to the byte, what everybody else has to hear: the history, then each message that
    /// was said since it joined, and its acknowledgements in the place of its own.
    #[test]
    fn whatever_happens_everybody_hears_the_same_in_its_own_dialect(
        steps in prop::collection::vec(step(), 1..150),
        // So that a newcomer's name and its first message are read together.
        read_budget in 60..2000_usize,
        history in 0..6_usize,
        ack_len in prop::sample::select(&[0, 17, 90_000][..]),
    ) {
        let limits = Limits {
            read_budget,
            turn_budget: 1000,
            history,
            // When the room waits, a name and what follows it are read apart.
            slow: Slow::Cut,
            queue_limit: usize::MAX,
            ..Limits::default()
        };
        let ack = vec![b'k'; ack_len];
        let wording = Wording { ack: Some(ack.clone()), ..Wording::default() };
        let mut room = Room::serving(&Dialect::ALL, limits, &wording);
        let witness = room.join("witness");
        room.turns();
        let mut witnessed = Vec::new();
        let mut members: Vec<Member> = Vec::new();
        let mut port = 4001;
        for step in [Step::Join(Chat10), Step::Join(Chat64), Step::Join(Ack64)].into_iter().chain(steps) {
            match step {
                Step::Say { who, len } => {
                    let who = who % members.len();
                    let member = &mut members[who];
                    let message = format!("<{}:{}{}>", member.name, member.said, "x".repeat(len));
                    member.said += 1;
                    member.peer.stream.says(match member.dialect {
                        Chat10 => frame(message),
                        _ => wide_frame(message),
                    });
                    room.readable(&member.peer);
                }
                Step::Takes { who, bytes } => {
                    let member = &members[who % members.len()];
                    if member.peer.stream.takes(bytes) {
                        room.writable(&member.peer);
                    }
                }
                Step::Join(dialect) => {
                    port += 1;
                    witnessed.extend(witness.stream.heard());
                    let messages = common::parse_frames(&witnessed).len() / 2;
                    let peer = room.connect_to(dialect);
                    let name = format!("192.0.2.1:{port}");
                    let mut joined_after = Some(messages);
                    if dialect == Chat10 {
                        // It says something at once, which shows when that was.
                        peer.stream.says([frame(&name), frame(format!("<{name} joins>"))].concat());
                        room.readable(&peer);
                        joined_after = None;
                    }
                    members.push(Member { peer, dialect, name, joined_after, said: 0 });
                }
                Step::Turn => room.turn(),
            }
        }
        for member in &members {
            if member.peer.stream.takes(usize::MAX) {
                room.writable(&member.peer);
            }
        }
        room.turns();
        prop_assert!(room.relay.is_flushed());
        witnessed.extend(witness.stream.heard());
        let frames = common::parse_frames(&witnessed);
        let messages: Vec<(&[u8], &[u8])> = frames.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        for member in &members {
            let name = member.name.as_bytes();
            let joined = member.joined_after.unwrap_or_else(|| {
                messages.iter().position(|&(from, _)| from == name).unwrap()
            });
            let mut expected = Vec::new();
            for &(from, message) in &messages[joined.saturating_sub(history)..] {
                expected.extend(match (member.dialect, from == name) {
                    (Chat10, false) => heard(from, message),
                    (Chat64 | Ack64, true) => ack.clone(),
                    (Chat64, false) => message.to_vec(),
                    _ => Vec::new(),
                });
            }
            let got = member.peer.stream.heard();
            assert_bytes(&got, &expected);
        }
    }
}
