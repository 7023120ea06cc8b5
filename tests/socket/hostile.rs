//! Peers that send bad headers, reset, or are too many: the other members must not notice.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use chatloop::relay::Limits;
use chatloop::wire::Dialect;
use socket2::{Domain, Socket, Type};

use crate::common::socket::{End, TestPeer, TestRelay};
use crate::common::{self, PATIENCE, delivery, frame};

/// Checks that two members still receive each other's messages.
#[track_caller]
fn assert_room_works(relay: &mut TestRelay, alice: &mut TestPeer, bob: &mut TestPeer) {
    alice.send(frame("still here?"));
    relay.expect(bob, delivery("alice", "still here?"));
    bob.send(frame("still here"));
    relay.expect(alice, delivery("bob", "still here"));
}

#[test]
fn bad_header_closes_its_sender_only() {
    let mut relay = TestRelay::start();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let nonsense: [&[u8]; 10] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"+5        hello",
        b"-1        ",
        b"1_0       0123456789",
        b"          ",
        b"\0\0\0\0\0\0\0\0\0\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03",
        b"9999999999",
        b"257       too long for a name",
        "٥         ".as_bytes(),
    ];
    for bytes in nonsense {
        let mut peer = relay.connect();
        peer.send(bytes);
        relay.expect_close(&mut peer);
    }
    for bytes in [&b"1048577   "[..], b"hello     ", b"5\t        hello"] {
        let mut member = relay.join("mallory");
        member.send(bytes);
        relay.expect_close(&mut member);
    }
    assert_eq!(relay.counters().closed.of("protocol"), 13);
    assert_eq!(relay.members(), 2);
    assert_room_works(&mut relay, &mut alice, &mut bob);
}

#[test]
fn peer_that_waits_after_an_impossible_header_prefix_is_closed() {
    let dialects = [Dialect::Chat10, Dialect::Chat64, Dialect::Ack64];
    let mut relay = TestRelay::serving(&dialects, Limits::default());
    for dialect in dialects {
        for bytes in [&b"hi\r\n"[..], b"\x16\x03\x01", b"5 5", b"  -", b"G"] {
            let mut peer = relay.connect_to(dialect);
            peer.send(bytes);
            relay.expect_close(&mut peer);
        }
    }
    assert_eq!(relay.counters().closed.of("protocol"), 15);
}

#[test]
fn member_closed_for_a_bad_header_receives_what_was_sent_before() {
    let mut relay = TestRelay::start();
    let (mut alice, mut mallory) = (relay.join("alice"), relay.join("mallory"));
    alice.send(frame("hello"));
    relay.until("the message to be relayed", |relay| {
        relay.counters().messages == 1
    });
    // More than one header, so that some of it is unread when the first is refused.
    mallory.send(b"nonsense and more of it, all in one segment".repeat(10));
    relay.expect(&mut mallory, delivery("alice", "hello"));
    assert_eq!(relay.expect_close(&mut mallory), End::Fin);
}

#[test]
fn resets_do_not_disturb_other_members() {
    let mut relay = TestRelay::start();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    for round in 0..20 {
        let mut others: Vec<_> = (0..20)
            .map(|i| relay.join(format!("{round} {i}")))
            .collect();
        for other in &mut others {
            other.send(frame("before the reset"));
        }
        alice.send(frame(format!("in storm {round}")));
        // Half of them are reset with input unread and output unsent.
        for other in others.drain(10..) {
            other.reset().unwrap();
        }
        relay.turn();
        for other in others {
            other.reset().unwrap();
        }
        let words = delivery("alice", format!("in storm {round}"));
        relay.until("the storm to pass", |relay| {
            relay.members() == 2
                && bob
                    .pump()
                    .windows(words.len())
                    .any(|window| window == words)
        });
        bob.received.clear();
        alice.pump().clear();
    }
    assert_eq!(relay.server.relay().len(), 2);
    assert_room_works(&mut relay, &mut alice, &mut bob);
}

#[test]
fn connection_over_the_limit_is_refused_by_a_close() {
    let mut relay = TestRelay::with_limits(Limits {
        max_clients: 3,
        ..Limits::default()
    });
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let carol = relay.join("carol");
    for refused in 1..=3 {
        let mut extra = relay.connect();
        relay.expect_close(&mut extra);
        assert_eq!(relay.counters().refused, refused);
    }
    assert_room_works(&mut relay, &mut alice, &mut bob);
    carol.reset().unwrap();
    relay.until("carol to be gone", |relay| relay.members() == 2);
    let _dave = relay.join("dave");
    assert_eq!(relay.counters().refused, 3);
}

#[test]
fn crowd_over_the_limit_is_refused_without_another_event() {
    let mut relay = TestRelay::with_limits(Limits {
        max_clients: 1,
        ..Limits::default()
    });
    let _alice = relay.join("alice");
    let crowd: Vec<_> = (0..200).map(|_| relay.connect()).collect();
    let start = Instant::now();
    while relay.counters().refused < crowd.len() as u64 {
        // One edge reported all of them, and more wait than one turn accepts. A server that forgot the
        // others would wait now for as long as it may.
        relay.server.turn(Some(PATIENCE)).unwrap();
    }
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn refused_connection_that_sent_its_name_receives_a_fin() {
    let mut relay = TestRelay::with_limits(Limits {
        max_clients: 1,
        ..Limits::default()
    });
    let _alice = relay.join("alice");
    let mut extra = relay.connect();
    extra.send(frame("extra"));
    assert_eq!(relay.expect_close(&mut extra), End::Fin);
}

#[test]
fn members_that_close_in_a_silent_room_free_their_places() {
    let mut relay = TestRelay::with_limits(Limits {
        max_clients: 10,
        ..Limits::default()
    });
    // No member sends, so nothing is written that would fail.
    for generation in 0..5 {
        let members: Vec<_> = (0..10)
            .map(|i| relay.join(format!("{generation} {i}")))
            .collect();
        drop(members);
    }
    assert_eq!(relay.counters().joined, 50);
    assert_eq!(relay.counters().refused, 0);
}

#[test]
fn members_that_close_in_a_paused_room_are_evicted_for_new_ones() {
    const PLACES: usize = 10;
    let mut relay = TestRelay::with_limits(Limits {
        max_clients: PLACES,
        max_message: 16_000,
        soft_limit: 100_000,
        // The pause lasts as long as the test.
        slow_timeout: Duration::from_secs(24 * 3600),
        ..Limits::default()
    });
    let mut alice = relay.join("alice");
    let mut slow = TestPeer::with_small_buffer(relay.addr);
    slow.send(frame("slow"));
    relay.until("it to join", |relay| relay.members() == 2);
    let message = |i: usize| format!("{i:>10000}");
    let mut sent = 0;
    while !relay.server.relay().has_held() {
        alice.send(frame(message(sent)));
        sent += 1;
        let messages = relay.counters().messages;
        relay.until("the message to be relayed or held", |relay| {
            relay.counters().messages > messages || relay.server.relay().has_held()
        });
    }
    // All places are taken by members that send something that is not read, and close.
    for generation in 0..5 {
        let members: Vec<_> = (2..PLACES)
            .map(|i| {
                let mut member = relay.join(format!("{generation} {i}"));
                member.send(frame("unread"));
                member
            })
            .collect();
        drop(members);
    }
    // A new member that stays is read from when the pause ends.
    let mut last = relay.join("last");
    last.send(frame("hello"));
    let counters = relay.counters();
    assert_eq!((counters.refused, counters.joined), (0, 2 + 5 * 8 + 1));
    assert_eq!(counters.closed.of("evicted"), 4 * 8 + 1);
    assert_eq!(counters.bytes_discarded, (4 * 8 + 1) * 16);

    // The members that were not evicted have their last messages relayed.
    let (mut alices, mut others) = (0, Vec::new());
    let mut expected: Vec<_> = (3..PLACES)
        .map(|i| (format!("4 {i}"), "unread".to_owned()))
        .collect();
    expected.push(("last".to_owned(), "hello".to_owned()));
    let len = sent * delivery("alice", message(0)).len()
        + expected
            .iter()
            .map(|(name, text)| delivery(name, text).len())
            .sum::<usize>();
    relay.until("the slow reader to catch up", |_| slow.pump().len() >= len);
    for pair in common::parse_frames(&slow.received).chunks(2) {
        if pair[0] == b"alice" {
            assert_eq!(pair[1], message(alices).as_bytes());
            alices += 1;
        } else {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            others.push((text(pair[0]), text(pair[1])));
        }
    }
    others.sort();
    assert_eq!((alices, others), (sent, expected));
}

#[test]
fn endless_sender_does_not_starve_other_members() {
    let mut relay = TestRelay::start();
    let (mut talker, mut alice, mut bob) =
        (relay.join("talker"), relay.join("alice"), relay.join("bob"));
    let flood = frame(vec![b'x'; 10_000]).repeat(20);
    let mut offset = 0;
    let question = delivery("alice", "a word in between");
    let mut asked = false;
    relay.until("bob to hear alice through the flood", |relay| {
        while let sent @ 1.. = talker.send_some(&flood[offset..]) {
            offset = (offset + sent) % flood.len();
        }
        if !asked && relay.counters().messages > 50 {
            alice.send(frame("a word in between"));
            asked = true;
        }
        alice.pump().clear();
        let received = bob.pump();
        let found = received
            .windows(question.len())
            .any(|window| window == question);
        received.drain(..received.len().saturating_sub(question.len()));
        found
    });
    assert!(talker.end.is_none() && alice.end.is_none());
}

#[test]
fn connections_of_one_address_are_limited() {
    let limits = Limits {
        max_per_ip: Some(2),
        ..Limits::default()
    };
    for dialect in [Dialect::Chat10, Dialect::Chat64, Dialect::Ack64] {
        let mut relay = TestRelay::serving(&[dialect], limits.clone());
        let connect = |relay: &mut TestRelay, from: [u8; 4]| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
            socket.connect(&relay.addr.into()).unwrap();
            let before = relay.counters().accepted + relay.counters().refused;
            relay.until("it to be accepted or refused", |relay| {
                relay.counters().accepted + relay.counters().refused > before
            });
            TestPeer::from(TcpStream::from(socket))
        };
        let first = connect(&mut relay, [127, 0, 0, 1]);
        let _second = connect(&mut relay, [127, 0, 0, 1]);
        let mut third = connect(&mut relay, [127, 0, 0, 1]);
        relay.expect_close(&mut third);
        assert_eq!(relay.counters().refused, 1);
        let _other = connect(&mut relay, [127, 0, 0, 2]);
        assert_eq!(relay.counters().refused, 1, "another address");
        let here = relay.server.relay().len();
        first.reset().unwrap();
        relay.until("the first to be gone", |relay| {
            relay.server.relay().len() < here
        });
        let _again = connect(&mut relay, [127, 0, 0, 1]);
        assert_eq!(relay.counters().refused, 1, "there is a place again");
    }
}
