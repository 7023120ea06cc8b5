//! Peers that send nonsense, reset, or come too many, and what the others notice of it: nothing.

mod common;

use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use chatloop::relay::Limits;
use chatloop::wire::Dialect;
use common::socket::{End, TestPeer, TestRelay};
use common::{PATIENCE, frame, heard};
use socket2::{Domain, Socket, Type};

/// Whatever happened before: the room still works.
#[track_caller]
fn assert_room_works(relay: &mut TestRelay, alice: &mut TestPeer, bob: &mut TestPeer) {
    alice.send(frame("still here?"));
    relay.expect(bob, heard("alice", "still here?"));
    bob.send(frame("still here"));
    relay.expect(alice, heard("bob", "still here"));
}

#[test]
fn what_is_no_frame_closes_its_sender_only() {
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
        let mut stranger = relay.connect();
        stranger.send(bytes);
        relay.expect_close(&mut stranger);
    }
    for bytes in [&b"1048577   "[..], b"hello     ", b"5\t        hello"] {
        let mut member = relay.join("mallory");
        member.send(bytes);
        relay.expect_close(&mut member);
    }
    assert_eq!(relay.counters().closed.protocol, 13);
    assert_eq!(relay.members(), 2);
    assert_room_works(&mut relay, &mut alice, &mut bob);
}

#[test]
fn peer_that_waits_for_an_answer_to_an_unfinished_header_is_closed() {
    let dialects = [Dialect::Chat10, Dialect::Chat64, Dialect::Ack64];
    let mut relay = TestRelay::serving(&dialects, Limits::default());
    for dialect in dialects {
        for bytes in [&b"hi\r\n"[..], b"\x16\x03\x01", b"5 5", b"  -", b"G"] {
            let mut peer = relay.connect_to(dialect);
            peer.send(bytes);
            relay.expect_close(&mut peer);
        }
    }
    assert_eq!(relay.counters().closed.protocol, 15);
}

#[test]
fn who_is_closed_for_nonsense_still_gets_what_it_was_sent_before() {
    let mut relay = TestRelay::start();
    let (mut alice, mut mallory) = (relay.join("alice"), relay.join("mallory"));
    alice.send(frame("hello"));
    relay.until("the message to be relayed", |relay| {
        relay.counters().messages == 1
    });
    // More than one header, so that some of it is unread when the first is refused.
    mallory.send(b"nonsense and more of it, all in one segment".repeat(10));
    relay.expect(&mut mallory, heard("alice", "hello"));
    assert_eq!(relay.expect_close(&mut mallory), End::Fin);
}

#[test]
fn a_storm_of_resets_disturbs_nobody() {
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
        // Half of them are reset with words of theirs unread and words for them unsent.
        for other in others.drain(10..) {
            other.reset().unwrap();
        }
        relay.turn();
        for other in others {
            other.reset().unwrap();
        }
        let words = heard("alice", format!("in storm {round}"));
        relay.until("the storm to pass", |relay| {
            relay.members() == 2
                && bob
                    .pump()
                    .windows(words.len())
                    .any(|window| window == words)
        });
        bob.heard.clear();
        alice.pump().clear();
    }
    assert_eq!(relay.server.relay().len(), 2);
    assert_room_works(&mut relay, &mut alice, &mut bob);
}

#[test]
fn whoever_is_one_too_many_is_refused_by_closing_it() {
    let mut relay = TestRelay::with_limits(Limits {
        max_clients: 3,
        ..Limits::default()
    });
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let carol = relay.join("carol");
    for refused in 1..=3 {
        let mut newcomer = relay.connect();
        relay.expect_close(&mut newcomer);
        assert_eq!(relay.counters().refused, refused);
    }
    assert_room_works(&mut relay, &mut alice, &mut bob);
    carol.reset().unwrap();
    relay.until("carol to be gone", |relay| relay.members() == 2);
    let _dave = relay.join("dave");
    assert_eq!(relay.counters().refused, 3);
}

#[test]
fn a_crowd_that_is_one_too_many_each_is_refused_without_another_event() {
    let mut relay = TestRelay::with_limits(Limits {
        max_clients: 1,
        ..Limits::default()
    });
    let _alice = relay.join("alice");
    let crowd: Vec<_> = (0..200).map(|_| relay.connect()).collect();
    let start = Instant::now();
    while relay.counters().refused < crowd.len() as u64 {
        // All were told of by one edge, and more wait than one turn deals with. A server that forgot
        // about the others would now wait for as long as it may.
        relay.server.turn(Some(PATIENCE)).unwrap();
    }
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn who_is_refused_after_it_has_given_its_name_gets_a_fin_and_no_reset() {
    let mut relay = TestRelay::with_limits(Limits {
        max_clients: 1,
        ..Limits::default()
    });
    let _alice = relay.join("alice");
    let mut newcomer = relay.connect();
    newcomer.send(frame("newcomer"));
    assert_eq!(relay.expect_close(&mut newcomer), End::Fin);
}

#[test]
fn a_full_room_gives_the_places_of_those_who_left_silently_to_newcomers() {
    let mut relay = TestRelay::with_limits(Limits {
        max_clients: 10,
        ..Limits::default()
    });
    // Nobody speaks, so nothing is written that would show that they are gone.
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
fn a_talker_that_never_pauses_starves_nobody() {
    let mut relay = TestRelay::start();
    let (mut talker, mut alice, mut bob) =
        (relay.join("talker"), relay.join("alice"), relay.join("bob"));
    let flood = frame(vec![b'x'; 10_000]).repeat(20);
    let mut offset = 0;
    let question = heard("alice", "a word in between");
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
        let heard = bob.pump();
        let found = heard
            .windows(question.len())
            .any(|window| window == question);
        heard.drain(..heard.len().saturating_sub(question.len()));
        found
    });
    assert!(talker.end.is_none() && alice.end.is_none());
}

#[test]
fn one_address_may_have_so_many_connections_and_no_more() {
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
