//! Conversations over real sockets: what the tutorials' clients do, and what TCP does to it.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use chatloop::relay::Limits;
use chatloop::server::{Config, Endpoint, Turn};
use chatloop::wire::Dialect;

use crate::common::socket::{End, TestPeer, TestRelay};
use crate::common::{self, PATIENCE, assert_bytes, delivery, frame};

#[test]
fn member_receives_the_messages_of_others_and_not_its_own() {
    let mut relay = TestRelay::start();
    let (mut alice, mut bob, mut carol) =
        (relay.join("alice"), relay.join("bob"), relay.join("carol"));
    alice.send(frame("hello"));
    relay.expect(&mut bob, b"5         alice5         hello");
    relay.expect(&mut carol, b"5         alice5         hello");
    bob.send(frame("hi alice"));
    // The first message that alice receives is bob's, so she did not receive her own.
    relay.expect(&mut alice, delivery("bob", "hi alice"));
    relay.expect(&mut carol, delivery("bob", "hi alice"));
}

#[test]
fn joins_and_departures_are_not_announced() {
    let mut relay = TestRelay::start();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let carol = relay.join("carol");
    carol.reset().unwrap();
    relay.until("carol to be gone", |relay| relay.members() == 2);
    bob.send(frame("the first bytes that alice hears"));
    relay.expect(
        &mut alice,
        delivery("bob", "the first bytes that alice hears"),
    );
}

#[test]
fn silent_pending_connection_delays_no_member() {
    let mut relay = TestRelay::start();
    let _silent = relay.connect();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    alice.send(frame("hello"));
    relay.expect(&mut bob, delivery("alice", "hello"));
}

#[test]
fn name_that_arrives_byte_by_byte_is_accepted() {
    let mut relay = TestRelay::start();
    let mut bob = relay.join("bob");
    let mut alice = relay.connect();
    for byte in [frame("alice"), frame("hello")].concat() {
        alice.send([byte]);
        relay.turn();
    }
    relay.expect(&mut bob, delivery("alice", "hello"));
}

/// A read stops early at urgent data, so its length says nothing about whether more is there.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn input_after_urgent_data_needs_no_other_event() {
    let mut relay = TestRelay::start();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    alice.send(frame("one"));
    socket2::SockRef::from(&alice.stream)
        .send_out_of_band(b"!")
        .unwrap();
    alice.send(frame("two"));
    let expected = [delivery("alice", "one"), delivery("alice", "two")].concat();
    relay.expect(&mut bob, expected);
}

#[test]
fn message_of_the_largest_size_is_delivered_whole() {
    let mut relay = TestRelay::start();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let message: Vec<u8> = (0..1_048_576_u32).map(|i| (i % 251) as u8).collect();
    let bytes = frame(&message);
    let mut sent = 0;
    relay.until("the message to be sent", |_| {
        sent += alice.send_some(&bytes[sent..]);
        bob.pump();
        sent == bytes.len()
    });
    relay.expect(&mut bob, delivery("alice", &message));
}

#[test]
fn last_message_before_a_close_is_relayed() {
    let mut relay = TestRelay::start();
    let mut bob = relay.join("bob");
    for i in 0..50 {
        let mut alice = relay.connect();
        alice.send([frame("alice"), frame(format!("bye {i}"))].concat());
        drop(alice);
        relay.expect(&mut bob, delivery("alice", format!("bye {i}")));
    }
}

#[test]
fn end_of_input_is_a_departure_and_the_last_turn_is_delivered() {
    let mut relay = TestRelay::start();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    for i in 0..20 {
        bob.send(frame(format!("before {i}")));
        relay.expect(&mut alice, delivery("bob", format!("before {i}")));
    }
    bob.send(frame("in time"));
    relay.until("the message to be relayed", |relay| {
        relay.counters().messages == 21
    });
    alice.send(frame("my last words"));
    alice.shutdown_write();
    relay.expect(&mut bob, delivery("alice", "my last words"));
    relay.until("alice to have left", |relay| relay.members() == 1);
    bob.send(frame("too late"));
    relay.expect(&mut alice, delivery("bob", "in time"));
    assert_eq!(relay.expect_close(&mut alice), End::Fin);
    assert_eq!(relay.counters().closed.of("eof"), 1);
    // Its place and its memory are free at once: nothing must be written to it for that.
    assert_eq!(relay.server.relay().len(), 1);
}

#[test]
fn member_that_closes_in_a_silent_room_is_removed_at_once() {
    let mut relay = TestRelay::start();
    let (alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    drop(alice);
    relay.until("alice to be removed", |relay| {
        relay.members() == 1 && relay.server.relay().len() == 1
    });
    assert_bytes(bob.pump(), b"");
    assert_eq!(relay.counters().closed.of("eof"), 1);
}

#[test]
fn member_that_leaves_with_output_pending_receives_all_of_it() {
    let mut relay = TestRelay::start();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let mut leaver = TestPeer::with_small_buffer(relay.addr);
    leaver.send(frame("leaver"));
    relay.until("it to join", |relay| relay.members() == 3);
    let mut expected = Vec::new();
    while relay.server.relay().lagging() == 0 {
        let message = "x".repeat(10_000);
        alice.send(frame(&message));
        relay.expect(&mut bob, delivery("alice", &message));
        expected.extend(delivery("alice", &message));
    }
    leaver.send(frame("bye"));
    leaver.shutdown_write();
    relay.expect(&mut bob, delivery("leaver", "bye"));
    relay.until("it to have left", |relay| relay.members() == 2);
    alice.send(frame("too late"));
    relay.expect(&mut bob, delivery("alice", "too late"));
    relay.expect(&mut leaver, &expected);
    assert_eq!(relay.expect_close(&mut leaver), End::Fin);
    assert_eq!(relay.counters().closed.of("eof"), 1);
    assert_eq!(relay.server.relay().backlog_bytes(), 0);
}

#[test]
fn pending_connection_that_ends_is_removed() {
    let mut relay = TestRelay::start();
    drop(relay.connect());
    let half = relay.connect();
    half.shutdown_write();
    relay.until("both to be gone", |relay| {
        relay.counters().closed.of("eof") == 2
    });
    assert_eq!(relay.server.relay().len(), 0);
}

#[test]
fn stopped_server_delivers_what_was_published_and_ends_each_connection() {
    let mut relay = TestRelay::start();
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    alice.send(frame("just in time"));
    relay.until("the message to be relayed", |relay| {
        relay.counters().messages == 1
    });
    relay.server.stop("the test");
    while relay.turn() == Turn::Running {}
    bob.pump();
    assert_bytes(&bob.received, &delivery("alice", "just in time"));
    assert_eq!(bob.end, Some(End::Fin));
    assert!(
        TcpStream::connect(relay.addr).is_err(),
        "the listener is closed"
    );
}

#[test]
fn input_received_before_a_stop_is_relayed_and_delivered() {
    let mut relay = TestRelay::start();
    let mut members: Vec<_> = (0..8).map(|i| relay.join(format!("{i}"))).collect();
    let mut bob = relay.join("bob");
    // More than one turn can take.
    let message = "x".repeat(60_000);
    for member in &mut members {
        member.send(frame(&message));
    }
    relay.server.stop("the test");
    while relay.turn() == Turn::Running {
        bob.pump();
    }
    bob.pump();
    assert_eq!(bob.end, Some(End::Fin));
    let mut names: Vec<_> = common::parse_frames(&bob.received)
        .into_iter()
        .step_by(2)
        .collect();
    names.sort_unstable();
    assert_eq!(names, [b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7"]);
}

#[test]
fn stopped_server_without_pending_output_does_not_wait() {
    let endpoint = Endpoint {
        dialect: Dialect::Chat10,
        addr: "127.0.0.1:0".parse().unwrap(),
    };
    let mut config = Config::new(vec![endpoint]);
    config.drain = PATIENCE;
    let mut relay = TestRelay::with_config(&config);
    let _alice = relay.join("alice");
    let start = Instant::now();
    relay.server.stop("the test");
    while relay.server.turn(None).unwrap() == Turn::Running {}
    assert!(start.elapsed() < PATIENCE, "it sat out its drain");
}

#[test]
fn end_of_input_before_the_accept_is_noticed() {
    let mut relay = TestRelay::start();
    let mut bob = relay.join("bob");
    let (mut whole, mut cut, unnamed) = (relay.connect(), relay.connect(), relay.connect());
    whole.send([frame("alice"), frame("bye")].concat());
    cut.send(&frame("carol")[..12]);
    // The first event of each of these is the only one.
    for peer in [&whole, &cut, &unnamed] {
        peer.shutdown_write();
    }
    relay.expect(&mut bob, delivery("alice", "bye"));
    relay.expect_close(&mut whole);
    relay.expect_close(&mut cut);
    relay.until("the pending connection to be removed", |relay| {
        relay.server.relay().len() == 1
    });
    let closed = &relay.counters().closed;
    assert_eq!((closed.of("truncated_frame"), closed.of("eof")), (1, 2));
}

#[test]
fn several_listeners_share_one_room() {
    let endpoint = |addr: &str| Endpoint {
        dialect: Dialect::Chat10,
        addr: addr.parse().unwrap(),
    };
    let config = Config::new(vec![endpoint("127.0.0.1:0"), endpoint("127.0.0.2:0")]);
    let mut relay = TestRelay::with_config(&config);
    let other = relay.server.local_addrs().unwrap()[1];
    let mut alice = relay.join("alice");
    relay.addr = other;
    let mut bob = relay.join("bob");
    alice.send(frame("across listeners"));
    relay.expect(&mut bob, delivery("alice", "across listeners"));
}

#[test]
fn crowd_at_one_listener_does_not_delay_another_listener() {
    let endpoint = |addr: &str| Endpoint {
        dialect: Dialect::Chat10,
        addr: addr.parse().unwrap(),
    };
    let config = Config::new(vec![endpoint("127.0.0.1:0"), endpoint("127.0.0.2:0")]);
    let mut relay = TestRelay::with_config(&config);
    let crowd: Vec<_> = (0..200).map(|_| relay.connect()).collect();
    relay.addr = relay.server.local_addrs().unwrap()[1];
    let _bob = relay.join("bob");
    assert!(
        relay.counters().accepted < crowd.len() as u64,
        "others still wait"
    );
}

#[test]
fn ipv6_wildcard_listener_accepts_ipv4() {
    let endpoint = Endpoint {
        dialect: Dialect::Chat10,
        addr: "[::]:0".parse().unwrap(),
    };
    if TcpStream::connect("[::1]:1")
        .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrNotAvailable)
    {
        common::skip("this machine has no IPv6");
        return;
    }
    let mut relay = TestRelay::with_config(&Config::new(vec![endpoint]));
    let port = relay.addr.port();
    relay.addr = format!("127.0.0.1:{port}").parse().unwrap();
    let mut over_ipv4 = relay.join("over IPv4");
    relay.addr = format!("[::1]:{port}").parse().unwrap();
    let mut over_ipv6 = relay.join("over IPv6");
    over_ipv4.send(frame("hello"));
    relay.expect(&mut over_ipv6, delivery("over IPv4", "hello"));
}

#[test]
fn pending_connection_is_closed_at_the_handshake_timeout() {
    let mut relay = TestRelay::with_limits(Limits {
        handshake_timeout: Duration::from_millis(50),
        ..Limits::default()
    });
    let mut bob = relay.join("bob");
    let mut silent = relay.connect();
    let mut trickling = relay.connect();
    trickling.send(&frame("trickling")[..5]);
    // Turns that may wait for ever: that this ends at all shows that the deadline wakes the poll.
    while relay.counters().closed.of("handshake_timeout") < 2 {
        relay.server.turn(None).unwrap();
    }
    relay.expect_close(&mut silent);
    relay.expect_close(&mut trickling);
    assert_eq!(relay.members(), 1);
    let mut alice = relay.join("alice");
    alice.send(frame("hello"));
    relay.expect(&mut bob, delivery("alice", "hello"));
}
