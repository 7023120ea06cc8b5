//! WebSocket connections: what messages take in their encoding, and what they are answered at the edges of
//! their lives, byte for byte.

use std::io::ErrorKind;
use std::time::Duration;

use chatloop::relay::{Limits, ReplyTexts, Slow};
use chatloop::wire::Dialect::{self, Chat10, Chat64, Echo, Ws, WsChat10, WsEcho};

use crate::common::script::{Peer, Room};
use crate::common::web_socket::{CLOSE, PING, PONG, TEXT, masked, server_frame};
use crate::common::{assert_bytes, frame, wide_frame};

fn room() -> Room {
    let served: [Dialect; 4] = [Ws, WsChat10, WsEcho, Chat10];
    Room::serving(&served, Limits::default(), &ReplyTexts::default())
}

fn join_browser(room: &mut Room, name: &str) -> Peer {
    let peer = room.connect_to(Ws);
    peer.stream.sends(masked(TEXT, name));
    room.readable(&peer);
    room.turns();
    peer.stream.received();
    peer
}

/// What a message of these bytes is published as, at the least.
fn escaped_len(message: &[u8]) -> usize {
    message.len() * r"\u0001".len()
}

#[test]
fn flood_of_bytes_that_are_escaped_stays_within_the_turn_budget() {
    let limits = Limits::default();
    let turn_budget = limits.turn_budget;
    let mut room = Room::serving(&[Chat64, Ws], limits, &ReplyTexts::default());
    let reader = join_browser(&mut room, "reader");
    let flooder = room.connect_to(Chat64);
    let message = [1; 1000];
    flooder.stream.sends(wide_frame(message).repeat(200));
    room.readable(&flooder);
    let mut received = 0;
    while received < 200 * escaped_len(&message) {
        room.turn();
        let published = reader.stream.received().len();
        let most = turn_budget + escaped_len(&message) + 200;
        assert!(published <= most, "{published} in one turn");
        received += published;
    }
}

#[test]
fn longest_message_is_no_reason_to_close_a_browser_member_however_long_its_escapes_are() {
    let mut limits = Limits {
        max_message: 100_000,
        slow: Slow::Cut,
        ..Limits::default()
    };
    limits.queue_limit = limits.largest_delivery();
    let mut room = Room::serving(&[Chat10, Ws], limits, &ReplyTexts::default());
    let (alice, reader) = (room.join("alice"), join_browser(&mut room, "reader"));
    reader.stream.takes(0);
    let mut message = vec![1; 100_000];
    // One byte that is no text, so that there are hexadecimal digits of all bytes besides.
    message[0] = 0xff;
    alice.stream.sends(frame(&message));
    room.readable(&alice);
    room.turns();
    assert!(!reader.stream.is_closed());
    reader.stream.takes(usize::MAX);
    room.writable(&reader);
    room.turns();
    let received = reader.stream.received();
    assert!(received.len() > 8 * 99_999, "{}", received.len());
    assert!(received.ends_with(b"0101\"}"));
}

#[test]
fn flood_of_pings_from_a_member_that_reads_nothing_pauses_no_sender() {
    let limits = Limits {
        soft_limit: 100_000,
        ..Limits::default()
    };
    let mut room = Room::serving(&[Chat10, Ws], limits, &ReplyTexts::default());
    let (alice, flooder) = (room.join("alice"), join_browser(&mut room, "flooder"));
    let reader = join_browser(&mut room, "reader");
    flooder.stream.takes(0);
    for number in 0..100 {
        let mut pings = masked(PING, "p".repeat(125)).repeat(100);
        pings.extend(masked(PING, number.to_string()));
        flooder.stream.sends(pings);
        room.readable(&flooder);
        room.turns();
        room.say(&alice, "still here");
        assert!(reader.stream.received().ends_with(b"\"still here\"}"));
    }
    assert!(!room.relay.is_paused());
    flooder.stream.takes(usize::MAX);
    room.writable(&flooder);
    room.turns();
    // The last ping is answered.
    let received = flooder.stream.received();
    let last_pong = b"\x8a\x0299";
    assert!(received.windows(4).any(|bytes| bytes == last_pong));
}

#[test]
fn ping_before_the_name_is_answered_in_its_turn() {
    for dialect in [Ws, WsChat10] {
        let mut room = room();
        let alice = room.join("alice");
        let peer = room.connect_to(dialect);
        peer.stream.sends(masked(PING, b"here?"));
        room.readable(&peer);
        room.turns();
        assert_bytes(&peer.stream.received(), b"\x8a\x05here?");
        // It is no member by that: it receives nothing of the room.
        room.say(&alice, "hello");
        assert_bytes(&peer.stream.received(), b"");
        assert_eq!(room.relay.members().total(), 1);
    }
}

#[test]
fn connection_that_cannot_take_a_pong_before_the_name_is_closed() {
    for accepted in [0, 3] {
        let mut room = room();
        let peer = room.connect_to(Ws);
        peer.stream.takes(accepted);
        peer.stream.sends(masked(PING, b"here?"));
        room.readable(&peer);
        room.turns();
        assert!(peer.stream.is_closed());
        assert_bytes(&peer.stream.received(), &b"\x8a\x05here?"[..accepted]);
    }
}

#[test]
fn close_frame_before_the_name_is_answered_and_ends_the_connection() {
    for dialect in [Ws, WsChat10] {
        let mut room = room();
        let peer = room.connect_to(dialect);
        peer.stream.sends(masked(CLOSE, b"\x03\xe8"));
        room.readable(&peer);
        room.turns();
        assert_bytes(&peer.stream.received(), &server_frame(CLOSE, b"\x03\xe8"));
        assert!(peer.stream.is_closed());
        assert_eq!(room.relay.counters().closed.of("farewell"), 1);
        assert_eq!(room.relay.members().total(), 0);
        // The room goes on.
        let (alice, bob) = (room.join("alice"), room.join("bob"));
        room.say(&alice, "hello");
        assert_bytes(&bob.stream.received(), b"5         alice5         hello");
    }
}

#[test]
fn close_frame_is_not_sent_behind_a_part_of_a_reply() {
    let mut room = room();
    let peer = room.connect_to(WsEcho);
    peer.stream.takes(4);
    // It is answered, and then closed for a reserved bit.
    peer.stream
        .sends([masked(PING, b"answer"), vec![0xc1]].concat());
    room.readable(&peer);
    room.relay.serve_ready(&mut room.scratch, room.now);
    room.relay.fan_out(room.now);
    // Its socket has room again before it is removed.
    peer.stream.takes(1000);
    room.relay.remove_closed(&mut room.scratch, room.now);
    assert!(peer.stream.is_closed());
    assert_eq!(room.relay.counters().closed.of("protocol"), 1);
    let answer = server_frame(PONG, b"answer");
    assert_bytes(&peer.stream.received(), &answer[..4]);
}

#[test]
fn message_in_the_turn_in_which_the_first_browser_joins_has_the_time_of_that_turn() {
    let mut room = room();
    let first = room.connect_to(Ws);
    first
        .stream
        .sends([masked(TEXT, b"first"), masked(TEXT, b"hi")].concat());
    room.readable(&first);
    // As the server does at the beginning of each turn.
    if room.relay.is_timed() {
        room.relay.set_time_of_day(Duration::from_secs(1));
    }
    room.turns();
    let second = room.connect_to(Ws);
    second.stream.sends(masked(TEXT, b"second"));
    room.readable(&second);
    room.turns();
    let object = br#"{"time":"1970-01-01T00:00:01.000Z","name":"first","message":"hi"}"#;
    let message = server_frame(TEXT, object);
    let delivered = second.stream.received();
    assert_bytes(&delivered[..message.len()], &message);
}

#[test]
fn echo_connection_that_leaves_is_returned_nothing_that_comes_later() {
    let mut room = Room::serving(&[Echo], Limits::default(), &ReplyTexts::default());
    let peer = room.connect_to(Echo);
    peer.stream.takes(2);
    peer.stream.sends("before");
    room.readable(&peer);
    room.turns();
    // The relay stops, and its peer goes on.
    room.relay.serve_ready(&mut room.scratch, room.now);
    room.relay.dismiss(peer.id, &mut room.scratch, room.now);
    room.finish_turn();
    peer.stream.sends("after");
    room.readable(&peer);
    room.turns();
    assert!(peer.stream.takes(100));
    room.writable(&peer);
    room.turns();
    assert_bytes(&peer.stream.received(), b"before");
    assert!(peer.stream.is_closed());
}

#[test]
fn echo_of_messages_without_a_pause_between_them_is_not_ended_by_the_message_timeout() {
    let mut room = room();
    let peer = room.connect_to(WsEcho);
    let message = masked(TEXT, b"message");
    peer.stream.sends(&message[..3]);
    room.readable(&peer);
    room.turns();
    // Each message takes ten seconds, and the read that completes it begins the next one.
    for _ in 0..10 {
        room.pass(Duration::from_secs(10));
        peer.stream.sends([&message[3..], &message[..3]].concat());
        room.readable(&peer);
        room.turns();
    }
    assert!(!peer.stream.is_closed());
    assert_bytes(
        &peer.stream.received(),
        &server_frame(TEXT, b"message").repeat(10),
    );
}

#[test]
fn message_that_begins_behind_a_ping_has_the_whole_message_timeout() {
    let mut room = room();
    let timeout = room.relay.limits().message_timeout;
    let (peer, ping, message) = (
        join_browser(&mut room, "alice"),
        masked(PING, b"ping"),
        masked(TEXT, b"a message"),
    );
    // Each half of the ping comes by itself, the second one with the first half of the message.
    for bytes in [
        &ping[..3],
        &[&ping[3..], &message[..8]].concat(),
        &message[8..],
    ] {
        peer.stream.sends(bytes);
        room.readable(&peer);
        room.turns();
        room.pass(timeout * 2 / 3);
    }
    assert!(!peer.stream.is_closed());
    // A ping inside a message is no reason to wait longer for the message.
    let fragment = masked(TEXT & 0xf, b"a fragment");
    for bytes in [[fragment, ping.clone()].concat(), ping] {
        peer.stream.sends(bytes);
        room.readable(&peer);
        room.turns();
        room.pass(timeout * 2 / 3);
    }
    assert!(peer.stream.is_closed());
    assert_eq!(room.relay.counters().closed.of("message_timeout"), 1);
}

#[test]
fn member_that_a_write_has_failed_to_is_sent_no_reply_before_it_is_closed() {
    for dialect in [Ws, Chat64] {
        let mut room = Room::serving(
            &[Ws, Chat64, Chat10],
            Limits::default(),
            &ReplyTexts::default(),
        );
        let alice = room.join("alice");
        let peer = room.connect_to(dialect);
        let hello = match dialect {
            Ws => masked(TEXT, b"bob"),
            _ => wide_frame("hello"),
        };
        peer.stream.sends(hello);
        room.readable(&peer);
        room.turns();
        peer.stream.received();
        peer.stream.takes(4);
        room.say(&alice, "a message that is cut");
        // The kernel is out of memory for a moment, while the peer sends something that is answered.
        peer.stream.takes(1000);
        peer.stream.breaks(ErrorKind::OutOfMemory);
        room.writable(&peer);
        peer.stream.sends(match dialect {
            Ws => masked(PING, b"answer"),
            _ => wide_frame("more"),
        });
        room.readable(&peer);
        room.relay.serve_ready(&mut room.scratch, room.now);
        peer.stream.recovers();
        room.finish_turn();
        room.turns();
        assert!(peer.stream.is_closed());
        assert_eq!(peer.stream.received().len(), 4, "{dialect}");
    }
}
