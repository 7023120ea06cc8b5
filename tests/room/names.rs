//! Names that only one member has at a time.

use chatloop::relay::{Limits, ReplyTexts};
use chatloop::wire::Dialect::{self, Chat10, Chat64, Ws, WsChat10};

use crate::common::script::{Peer, Room};
use crate::common::web_socket::{BINARY, CLOSE, TEXT, masked, server_frame};
use crate::common::{assert_bytes, delivery, frame};

fn room() -> Room {
    let served: [Dialect; 4] = [Ws, WsChat10, Chat10, Chat64];
    let limits = Limits {
        unique_names: true,
        max_name: 8,
        ..Limits::default()
    };
    Room::serving(&served, limits, &ReplyTexts::default())
}

/// A connection that has sent this.
fn sent(room: &mut Room, dialect: Dialect, bytes: Vec<u8>) -> Peer {
    let peer = room.connect_to(dialect);
    peer.stream.sends(bytes);
    room.readable(&peer);
    room.turns();
    peer
}

/// Under which name this member is heard.
fn heard_as(room: &mut Room, member: &Peer, by: &Peer) -> String {
    by.stream.received();
    room.say(member, "x");
    let received = by.stream.received();
    let len: usize = str::from_utf8(&received[..10])
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let name = str::from_utf8(&received[10..10 + len]).unwrap().to_owned();
    assert_bytes(&received, &delivery(&name, "x"));
    name
}

#[test]
fn name_that_is_taken_gets_a_number_until_its_member_leaves() {
    let mut room = room();
    let listener = room.join("ear");
    let alice = room.join("alice");
    let second = room.join("alice");
    assert_eq!(heard_as(&mut room, &alice, &listener), "alice");
    assert_eq!(heard_as(&mut room, &second, &listener), "alice-2");
    // It leaves with output pending: it is no member any more.
    alice.stream.takes(0);
    room.say(&second, "for alice");
    alice.stream.closes();
    room.read_closed(&alice);
    room.turns();
    assert!(!alice.stream.is_closed());
    let third = room.join("alice");
    assert_eq!(heard_as(&mut room, &third, &listener), "alice");
    // The end of the first one gives nothing back that is another's by now.
    alice.stream.takes(usize::MAX);
    room.writable(&alice);
    room.turns();
    assert!(alice.stream.is_closed());
    let fourth = room.join("alice");
    assert_eq!(heard_as(&mut room, &fourth, &listener), "alice-3");
    room.relay.close(second.id);
    room.turns();
    let fifth = room.join("alice");
    assert_eq!(heard_as(&mut room, &fifth, &listener), "alice-2");
    // No number fits into the longest name.
    let long = room.join("long-nam");
    assert_eq!(heard_as(&mut room, &long, &listener), "long-nam");
    let refused = sent(&mut room, Chat10, frame("long-nam"));
    assert!(refused.stream.is_closed());
    assert_eq!(room.relay.counters().closed.of("name_taken"), 1);
}

#[test]
fn web_socket_client_whose_name_is_taken_is_told_so() {
    let mut room = room();
    let alice = room.join("alice");
    let close = server_frame(CLOSE, b"\x03\xf0name taken");
    let refused = sent(&mut room, Ws, masked(TEXT, "alice"));
    assert_bytes(&refused.stream.received(), &close);
    assert!(refused.stream.is_closed());
    let refused = sent(&mut room, WsChat10, masked(BINARY, frame("alice")));
    assert_bytes(&refused.stream.received(), &close);
    assert_eq!(room.relay.counters().closed.of("name_taken"), 2);
    let bob = sent(&mut room, Ws, masked(TEXT, "bob"));
    bob.stream.sends(masked(TEXT, "x"));
    room.readable(&bob);
    room.turns();
    assert_bytes(&alice.stream.received(), &delivery("bob", "x"));
    // A tutorial's client that comes after a browser gets the number.
    let second = room.join("bob");
    assert_eq!(heard_as(&mut room, &second, &alice), "bob-2");
}

#[test]
fn address_of_a_member_without_a_name_is_not_taken() {
    let mut room = room();
    let listener = room.join("ear");
    let nameless = room.connect_to(Chat64);
    room.turns();
    assert_eq!(room.relay.members().total(), 2);
    nameless.stream.closes();
    room.readable(&nameless);
    room.turns();
    assert!(nameless.stream.is_closed());
    let alice = room.join("alice");
    assert_eq!(heard_as(&mut room, &alice, &listener), "alice");
}

#[test]
fn names_are_not_unique_unless_they_are_to_be() {
    let mut room = Room::new(Limits::default());
    let listener = room.join("ear");
    let (first, second) = (room.join("alice"), room.join("alice"));
    for alice in [&first, &second] {
        assert_eq!(heard_as(&mut room, alice, &listener), "alice");
    }
}
