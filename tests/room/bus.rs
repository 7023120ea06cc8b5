//! The bus: a member that is no connection.

use std::time::Duration;

use chatloop::relay::{Limits, ReplyTexts, Slow};
use chatloop::wire::Dialect::{Chat10, Chat64, Ws};

use crate::common::script::Room;
use crate::common::web_socket::{TEXT, masked, server_frame};
use crate::common::{assert_bytes, delivery};

/// What the bus receives.
fn taken(room: &mut Room) -> (u64, Vec<u8>) {
    let mut out = Vec::new();
    let count = room.relay.take_for_bus(usize::MAX, &mut out);
    (count, out)
}

fn publish(room: &mut Room, text: &str) {
    let published = room
        .relay
        .publish_from_bus(b"eve", text.as_bytes(), Duration::from_secs(1));
    published.unwrap();
}

#[test]
fn bus_receives_what_members_say_and_not_what_it_published() {
    let mut room = Room::serving(&[Chat10, Chat64], Limits::default(), &ReplyTexts::default());
    room.relay.join_bus(10_000);
    let alice = room.join("alice");
    room.say(&alice, "one");
    publish(&mut room, "from afar");
    room.turns();
    publish(&mut room, "and again");
    room.say(&alice, "two");
    let expected = [delivery("alice", "one"), delivery("alice", "two")].concat();
    let (count, bytes) = taken(&mut room);
    assert_eq!(count, 2);
    assert_bytes(&bytes, &expected);
    let heard = [delivery("eve", "from afar"), delivery("eve", "and again")].concat();
    assert_bytes(&alice.stream.received(), &heard);
    assert_eq!(room.relay.backlog_bytes(), 0);
}

#[test]
fn message_of_the_bus_has_the_time_at_which_it_was_said() {
    let mut room = Room::serving(&[Ws], Limits::default(), &ReplyTexts::default());
    room.relay.join_bus(10_000);
    let bob = room.connect_to(Ws);
    bob.stream.sends(masked(TEXT, "bob"));
    room.readable(&bob);
    room.turns();
    bob.stream.received();
    publish(&mut room, "late");
    room.turns();
    let object = r#"{"time":"1970-01-01T00:00:01.000Z","name":"eve","message":"late"}"#;
    assert_bytes(&bob.stream.received(), &server_frame(TEXT, object));
}

#[test]
fn bus_that_takes_nothing_neither_pauses_senders_nor_is_closed_nor_counts_as_a_member() {
    let limits = Limits {
        max_message: 1000,
        max_name: 10,
        queue_limit: 4000,
        soft_limit: 1000,
        slow: Slow::Pace,
        ..Limits::default()
    };
    let mut room = Room::serving(&[Chat10], limits, &ReplyTexts::default());
    room.relay.join_bus(100_000);
    let (alice, bob) = (room.join("alice"), room.join("bob"));
    let text = "x".repeat(1000);
    for _ in 0..50 {
        room.say(&alice, &text);
        assert!(!room.relay.is_paused());
    }
    assert_eq!((room.relay.lagging(), room.relay.members().total()), (0, 2));
    assert_eq!(bob.stream.received().len(), 50 * 1025);
    assert_eq!(room.relay.bus_lag(), 50 * 1025);
    assert_eq!(room.relay.give_up_for_bus(), 0);
    for _ in 0..50 {
        room.say(&alice, &text);
    }
    assert_eq!(room.relay.give_up_for_bus(), 3, "97 of 1025 bytes fit");
    assert_eq!(taken(&mut room).0, 97);
}
