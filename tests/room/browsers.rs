//! WebSocket connections: what they are answered at the edges of their lives, byte for byte.

use std::io::ErrorKind;
use std::time::Duration;

use chatloop::relay::{Limits, ReplyTexts};
use chatloop::wire::Dialect::{self, Chat10, Chat64, Echo, Ws, WsChat10, WsEcho};

use crate::common::script::Room;
use crate::common::{assert_bytes, wide_frame};

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

fn room() -> Room {
    let served: [Dialect; 4] = [Ws, WsChat10, WsEcho, Chat10];
    Room::serving(&served, Limits::default(), &ReplyTexts::default())
}

/// A frame of a client whose payload is short.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first, 0x80 | payload.len() as u8];
    frame.extend_from_slice(&KEY);
    let bytes = payload.iter().zip(KEY.iter().cycle());
    frame.extend(bytes.map(|(byte, key)| byte ^ key));
    frame
}

/// A short frame of the relay.
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8], payload].concat()
}

#[test]
fn close_frame_before_the_name_is_answered_and_ends_the_connection() {
    for dialect in [Ws, WsChat10] {
        let mut room = room();
        let peer = room.connect_to(dialect);
        peer.stream.says(masked(CLOSE, b"\x03\xe8"));
        room.readable(&peer);
        room.turns();
        assert_bytes(&peer.stream.heard(), &unmasked(CLOSE, b"\x03\xe8"));
        assert!(peer.stream.is_closed());
        assert_eq!(room.relay.counters().closed.of("farewell"), 1);
        assert_eq!(room.relay.members().total(), 0);
        // The room goes on.
        let (alice, bob) = (room.join("alice"), room.join("bob"));
        room.say(&alice, "hello");
        assert_bytes(&bob.stream.heard(), b"5         alice5         hello");
    }
}

#[test]
fn close_frame_is_not_sent_behind_a_part_of_a_reply() {
    let mut room = room();
    let peer = room.connect_to(WsEcho);
    peer.stream.takes(4);
    // It is answered, and then closed for a reserved bit.
    peer.stream
        .says([masked(PING, b"answer"), vec![0xc1]].concat());
    room.readable(&peer);
    room.relay.serve_ready(&mut room.scratch, room.now);
    room.relay.fan_out(room.now);
    // Its socket has room again before it is removed.
    peer.stream.takes(1000);
    room.relay.remove_closed(&mut room.scratch, room.now);
    assert!(peer.stream.is_closed());
    assert_eq!(room.relay.counters().closed.of("protocol"), 1);
    let answer = unmasked(PONG, b"answer");
    assert_bytes(&peer.stream.heard(), &answer[..4]);
}

#[test]
fn message_in_the_turn_in_which_the_first_browser_joins_has_the_time_of_that_turn() {
    let mut room = room();
    let first = room.connect_to(Ws);
    first
        .stream
        .says([masked(TEXT, b"first"), masked(TEXT, b"hi")].concat());
    room.readable(&first);
    // As the server does at the beginning of each turn.
    if room.relay.is_timed() {
        room.relay.set_time_of_day(Duration::from_secs(1));
    }
    room.turns();
    let second = room.connect_to(Ws);
    second.stream.says(masked(TEXT, b"second"));
    room.readable(&second);
    room.turns();
    let object = br#"{"time":"1970-01-01T00:00:01.000Z","name":"first","message":"hi"}"#;
    let message = unmasked(TEXT, object);
    let heard = second.stream.heard();
    assert_bytes(&heard[..message.len()], &message);
}

#[test]
fn echo_connection_that_leaves_is_returned_nothing_that_comes_later() {
    let mut room = Room::serving(&[Echo], Limits::default(), &ReplyTexts::default());
    let peer = room.connect_to(Echo);
    peer.stream.takes(2);
    peer.stream.says("before");
    room.readable(&peer);
    room.turns();
    // The relay stops, and its peer goes on.
    room.relay.serve_ready(&mut room.scratch, room.now);
    room.relay.dismiss(peer.id, &mut room.scratch, room.now);
    room.finish_turn();
    peer.stream.says("after");
    room.readable(&peer);
    room.turns();
    assert!(peer.stream.takes(100));
    room.writable(&peer);
    room.turns();
    assert_bytes(&peer.stream.heard(), b"before");
    assert!(peer.stream.is_closed());
}

#[test]
fn echo_of_messages_without_a_pause_between_them_is_not_ended_by_the_message_timeout() {
    let mut room = room();
    let peer = room.connect_to(WsEcho);
    let message = masked(TEXT, b"message");
    peer.stream.says(&message[..3]);
    room.readable(&peer);
    room.turns();
    // Each message takes ten seconds, and the read that completes it begins the next one.
    for _ in 0..10 {
        room.pass(Duration::from_secs(10));
        peer.stream.says([&message[3..], &message[..3]].concat());
        room.readable(&peer);
        room.turns();
    }
    assert!(!peer.stream.is_closed());
    assert_bytes(&peer.stream.heard(), &unmasked(TEXT, b"message").repeat(10));
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
        peer.stream.says(hello);
        room.readable(&peer);
        room.turns();
        peer.stream.heard();
        peer.stream.takes(4);
        room.say(&alice, "a message that is cut");
        // The kernel is out of memory for a moment, while the peer sends something that is answered.
        peer.stream.takes(1000);
        peer.stream.breaks(ErrorKind::OutOfMemory);
        room.writable(&peer);
        peer.stream.says(match dialect {
            Ws => masked(PING, b"answer"),
            _ => wide_frame("more"),
        });
        room.readable(&peer);
        room.relay.serve_ready(&mut room.scratch, room.now);
        peer.stream.recovers();
        room.finish_turn();
        room.turns();
        assert!(peer.stream.is_closed());
        assert_eq!(peer.stream.heard().len(), 4, "{dialect}");
    }
}
