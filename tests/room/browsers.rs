//! Browser members as the room sees them: what their encoding of a message may take.

use chatloop::relay::{Limits, ReplyTexts, Slow};
use chatloop::wire::Dialect::{Chat10, Chat64, Ws};

use crate::common::script::{Peer, Room};
use crate::common::web_socket::{PING, TEXT, masked};
use crate::common::{frame, wide_frame};

fn join_browser(room: &mut Room, name: &str) -> Peer {
    let peer = room.connect_to(Ws);
    peer.stream.says(masked(TEXT, name));
    room.readable(&peer);
    room.turns();
    peer.stream.heard();
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
    flooder.stream.says(wide_frame(message).repeat(200));
    room.readable(&flooder);
    let mut received = 0;
    while received < 200 * escaped_len(&message) {
        room.turn();
        let published = reader.stream.heard().len();
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
    alice.stream.says(frame(&message));
    room.readable(&alice);
    room.turns();
    assert!(!reader.stream.is_closed());
    reader.stream.takes(usize::MAX);
    room.writable(&reader);
    room.turns();
    let received = reader.stream.heard();
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
        flooder.stream.says(pings);
        room.readable(&flooder);
        room.turns();
        room.say(&alice, "still here");
        assert!(reader.stream.heard().ends_with(b"\"still here\"}"));
    }
    assert!(!room.relay.is_paused());
    flooder.stream.takes(usize::MAX);
    room.writable(&flooder);
    room.turns();
    // The last ping is answered.
    let received = flooder.stream.heard();
    let last_pong = b"\x8a\x0299";
    assert!(received.windows(4).any(|bytes| bytes == last_pong));
}
