//! The other dialects over real sockets: how connections end, and slow readers.

use std::net::TcpStream;
use std::time::Duration;

use chatloop::relay::Limits;
use chatloop::wire::Dialect::{Ack64, Chat10, Chat64, Greet10, Hello, Metrics};

use crate::common::socket::{End, TestPeer, TestRelay};
use crate::common::{assert_bytes, delivery, frame, wide_frame};

#[test]
fn hello_connection_ends_with_a_fin_though_its_peer_has_sent_bytes() {
    let mut relay = TestRelay::serving(&[Hello], Limits::default());
    for says in [&b""[..], b"hello?", &b"hello?".repeat(9_000)] {
        let mut peer = TestPeer::from(TcpStream::connect(relay.addr).unwrap());
        peer.send(says);
        relay.expect(&mut peer, b"welcome to the server!");
        assert_eq!(relay.expect_close(&mut peer), End::Fin);
    }
    assert_eq!(relay.counters().closed.of("greeted"), 3);
}

#[test]
fn farewell_is_answered_and_the_connection_ends_with_a_fin() {
    let mut relay = TestRelay::serving(&[Chat64, Ack64], Limits::default());
    let mut listener = relay.connect_to(Chat64);
    for (dialect, word, answer) in [
        (Chat64, "Client Disconnected", "Message was Sent!"),
        (Ack64, "!DISCONNECT", "Msg received"),
    ] {
        let mut peer = relay.connect_to(dialect);
        peer.send([wide_frame("hi"), wide_frame(word)].concat());
        relay.expect(&mut peer, answer.repeat(2));
        assert_eq!(relay.expect_close(&mut peer), End::Fin);
    }
    relay.expect(&mut listener, b"hiClient Disconnectedhi");
    // One that sends its farewell and does not wait for the answer has left as well.
    let mut hasty = relay.connect_to(Ack64);
    hasty.send(wide_frame("!DISCONNECT"));
    drop(hasty);
    relay.until("it to be gone", |relay| relay.members() == 1);
    assert_eq!(relay.counters().closed.of("farewell"), 3);
}

#[test]
fn request_for_health_whose_sender_closes_its_sending_side_at_once_is_answered() {
    let mut relay = TestRelay::serving(&[Chat10, Metrics], Limits::default());
    let mut peer = TestPeer::from(TcpStream::connect(relay.addr_of(Metrics)).unwrap());
    // Both are there when the connection is accepted, and when its first event comes.
    peer.send("GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n");
    peer.shutdown_write();
    relay.expect(
        &mut peer,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n",
    );
    assert_eq!(relay.expect_close(&mut peer), End::Fin);
}

#[test]
fn ticks_are_sent_to_greet10_members_only() {
    let endpoint = |dialect| chatloop::server::Endpoint {
        dialect,
        addr: "127.0.0.1:0".parse().unwrap(),
    };
    let listen = [Chat10, Greet10].map(endpoint).to_vec();
    let mut config = chatloop::server::Config::new(listen);
    config.every = Some(Duration::from_millis(5));
    let mut relay = TestRelay::with_config(&config);
    let mut alice = relay.join("alice");
    for _ in 0..2 {
        // The second time the room has had no tick members for a while.
        let (mut one, mut two) = (relay.connect_to(Greet10), relay.connect_to(Greet10));
        for peer in [&mut one, &mut two] {
            relay.expect(peer, frame("Welcome to the server!"));
        }
        relay.until("both to receive three ticks", |_| {
            [&mut one, &mut two].iter_mut().all(|peer| {
                let received = peer.pump();
                received
                    .windows(12)
                    .filter(|bytes| bytes == b"The time is ")
                    .count()
                    >= 3
            })
        });
        let len = one.received.len().min(two.received.len());
        assert_bytes(&one.received[..len], &two.received[..len]);
        one.reset().unwrap();
        two.reset().unwrap();
        relay.until("both to be gone", |relay| relay.members() == 1);
    }
    assert_bytes(alice.pump(), b"");
}

#[test]
fn draining_member_that_does_not_read_is_closed_at_the_farewell_timeout() {
    let mut relay = TestRelay::serving(
        &[Chat10, Chat64],
        Limits {
            farewell_timeout: Duration::from_millis(20),
            ..Limits::default()
        },
    );
    let mut alice = relay.join("alice");
    let mut stopped = TestPeer::with_small_buffer(relay.addr_of(Chat64));
    relay.until("it to join", |relay| relay.members() == 2);
    let mut sent = Vec::new();
    while relay.server.relay().lagging() == 0 {
        let message = [b'x'; 10_000];
        alice.send(frame(message));
        sent.extend(message);
        let messages = relay.counters().messages;
        relay.until("it to be relayed", |relay| {
            relay.counters().messages > messages
        });
    }
    stopped.send(wide_frame("Client Disconnected"));
    relay.until("it to be closed", |relay| {
        relay.counters().closed.of("drain_timeout") == 1
    });
    relay.expect(
        &mut alice,
        delivery(
            stopped.stream.local_addr().unwrap().to_string(),
            "Client Disconnected",
        ),
    );
    relay.until("the end of its stream", |_| {
        stopped.pump();
        stopped.end.is_some()
    });
    assert_bytes(&stopped.received, &sent[..stopped.received.len()]);
}

#[test]
fn slow_new_member_receives_all_of_the_history_and_what_follows() {
    let mut relay = TestRelay::serving(
        &[Chat10, Chat64],
        Limits {
            history: 300,
            history_bytes: 7_000_000,
            ..Limits::default()
        },
    );
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let message = |i: u32| format!("{i:>10000}");
    let mut sent = (Vec::new(), Vec::new());
    let mut talk = |relay: &mut TestRelay, numbers: std::ops::Range<u32>| {
        for i in numbers {
            alice.send(frame(message(i)));
            relay.expect(&mut bob, delivery("alice", message(i)));
            sent.0.extend(delivery("alice", message(i)));
            sent.1.extend(message(i).into_bytes());
        }
    };
    talk(&mut relay, 0..400);
    let mut late10 = TestPeer::with_small_buffer(relay.addr_of(Chat10));
    late10.send(frame("late"));
    let mut late64 = TestPeer::with_small_buffer(relay.addr_of(Chat64));
    relay.until("both to join", |relay| relay.members() == 4);
    talk(&mut relay, 400..500);
    assert_eq!(relay.server.relay().lagging(), 2);
    let expected10 = &sent.0[sent.0.len() / 5..];
    let expected64 = &sent.1[sent.1.len() / 5..];
    relay.expect(&mut late64, expected64);
    relay.expect(&mut late10, expected10);
}
