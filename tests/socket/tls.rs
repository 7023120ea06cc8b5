//! Listeners with TLS, through real sockets.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use chatloop::relay::Limits;
use chatloop::server::{Config, Endpoint, Preamble};
use chatloop::wire::Dialect;
use rcgen::SanType;
use socket2::{Domain, Socket, Type};

use crate::common::socket::{TestPeer, TestRelay};
use crate::common::tls::{Authority, TlsEnd, TlsPeer};
use crate::common::{delivery, frame, wide_frame};

const TLS: Preamble = Preamble {
    proxy_header: false,
    tls: true,
};

/// A relay with a plain `chat10` listener, and listeners with TLS.
struct Secure {
    relay: TestRelay,
    authority: Authority,
    preambles: Vec<(Preamble, Dialect)>,
}

impl Secure {
    fn start() -> Self {
        Self::serving(&[(TLS, Dialect::Chat10)], |_, _| {})
    }

    fn serving(
        preambles: &[(Preamble, Dialect)],
        change: impl FnOnce(&mut Config, &Authority),
    ) -> Self {
        let authority = Authority::new();
        let endpoint = |dialect| Endpoint {
            dialect,
            addr: "127.0.0.1:0".parse().unwrap(),
        };
        let mut config = Config::new(vec![endpoint(Dialect::Chat10)]);
        let with_endpoints = preambles
            .iter()
            .map(|&(one, dialect)| (one, endpoint(dialect)));
        config.listen_with = with_endpoints.collect();
        config.tls = Some(authority.files());
        change(&mut config, &authority);
        Self {
            relay: TestRelay::with_config(&config),
            authority,
            preambles: preambles.to_vec(),
        }
    }

    fn addr_of(&self, preamble: Preamble, dialect: Dialect) -> SocketAddr {
        let wanted = (preamble, dialect);
        let index = self.preambles.iter().position(|one| *one == wanted);
        self.relay.server.local_addrs().unwrap()[1 + index.unwrap()]
    }

    /// A connection to the first listener with TLS, whose handshake is complete.
    #[track_caller]
    fn connect(&mut self) -> TlsPeer {
        let (preamble, dialect) = self.preambles[0];
        let addr = self.addr_of(preamble, dialect);
        let client = self.authority.client();
        TlsPeer::connect(&mut self.relay, addr, client)
    }

    /// A member of it.
    #[track_caller]
    fn join(&mut self, name: &str) -> TlsPeer {
        let mut peer = self.connect();
        let joined = self.relay.counters().joined;
        peer.send(frame(name));
        self.relay
            .until("a member to join", |relay| relay.counters().joined > joined);
        peer
    }
}

#[test]
fn members_with_and_without_tls_are_in_one_room() {
    let mut secure = Secure::start();
    let mut alice = secure.join("alice");
    let mut bob = secure.relay.join("bob");
    let mut carol = secure.join("carol");
    alice.send([frame("hello"), frame("again")].concat());
    let both = [delivery("alice", "hello"), delivery("alice", "again")].concat();
    secure.relay.expect(&mut bob, &both);
    carol.expect(&mut secure.relay, &both);
    bob.send(frame("hi"));
    alice.expect(&mut secure.relay, delivery("bob", "hi"));
    carol.expect(&mut secure.relay, delivery("bob", "hi"));
}

#[test]
fn member_that_sends_its_name_with_the_end_of_its_handshake_joins() {
    let mut secure = Secure::start();
    let addr = secure.addr_of(TLS, Dialect::Chat10);
    let mut peer = TlsPeer::new(addr, secure.authority.client());
    // It is encrypted as soon as that can be done, and sent with what ends the handshake.
    peer.connection.writer().write_all(&frame("alice")).unwrap();
    peer.connection.writer().write_all(&frame("hello")).unwrap();
    let mut bob = secure.relay.join("bob");
    secure.relay.until("a member to join", |relay| {
        peer.pump();
        relay.members() == 2
    });
    secure.relay.expect(&mut bob, delivery("alice", "hello"));
}

#[test]
fn every_dialect_is_spoken_through_tls() {
    let all = Dialect::ALL.map(|dialect| (TLS, dialect));
    let mut secure = Secure::serving(&all, |_, _| {});
    let client = secure.authority.client();
    let connect = |secure: &mut Secure, dialect| {
        let addr = secure.addr_of(TLS, dialect);
        TlsPeer::connect(&mut secure.relay, addr, client.clone())
    };
    let mut alice = connect(&mut secure, Dialect::Chat10);
    alice.send(frame("alice"));
    let mut hello = connect(&mut secure, Dialect::Hello);
    hello.expect(&mut secure.relay, b"welcome to the server!");
    assert_eq!(hello.expect_end(&mut secure.relay), TlsEnd::Closed);
    let mut wide = connect(&mut secure, Dialect::Chat64);
    let name = wide.stream.local_addr().unwrap().to_string();
    wide.send(wide_frame("hi"));
    wide.expect(&mut secure.relay, b"Message was Sent!");
    alice.expect(&mut secure.relay, delivery(name, "hi"));
    let mut echo = connect(&mut secure, Dialect::Echo);
    echo.send(b"echo");
    echo.expect(&mut secure.relay, b"echo");
    let mut scraper = connect(&mut secure, Dialect::Metrics);
    scraper.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    secure.relay.until("the metrics", |_| {
        scraper.pump();
        scraper.end == Some(TlsEnd::Closed)
    });
    let text = String::from_utf8(scraper.received.clone()).unwrap();
    assert!(
        text.contains("\nchatloop_tls_handshakes_total 5\n"),
        "{text}"
    );
    let mut page = connect(&mut secure, Dialect::Ws);
    page.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    secure.relay.until("the page", |_| {
        page.pump();
        page.end == Some(TlsEnd::Closed)
    });
    assert!(page.received.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let text = String::from_utf8(page.received.clone()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
}

#[test]
fn web_socket_member_has_the_place_of_its_handshake() {
    let mut secure = Secure::serving(&[(TLS, Dialect::Ws)], |config, _| {
        config.limits.max_clients = 2;
    });
    let mut alice = secure.connect();
    alice.send(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    secure
        .relay
        .until("the handshake", |_| alice.pump().ends_with(b"\r\n\r\n"));
    assert!(alice.received.starts_with(b"HTTP/1.1 101 "));
    alice.received.clear();
    alice.send(b"\x81\x85\0\0\0\0alice");
    let mut bob = secure.relay.join("bob");
    secure
        .relay
        .until("both to join", |relay| relay.members() == 2);
    alice.pump().clear();
    bob.send(frame("hello"));
    secure.relay.until("a message", |_| {
        let received = String::from_utf8_lossy(alice.pump());
        received.contains("\"message\":\"hello\"")
    });
}

#[test]
fn header_of_a_proxy_comes_before_the_handshake() {
    let preamble = Preamble {
        proxy_header: true,
        tls: true,
    };
    let mut secure = Secure::serving(&[(preamble, Dialect::Chat64)], |config, _| {
        config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    });
    let mut alice = secure.relay.join("alice");
    let addr = secure.addr_of(preamble, Dialect::Chat64);
    let mut peer = TlsPeer::new(addr, secure.authority.client());
    let header = b"PROXY TCP4 203.0.113.7 10.0.0.1 4321 1\r\n";
    let bytes = [header.to_vec(), peer.take_records()].concat();
    peer.stream.write_all(&bytes).unwrap();
    peer.connection
        .writer()
        .write_all(&wide_frame("hi"))
        .unwrap();
    secure.relay.until("the handshake", |_| {
        peer.pump();
        !peer.connection.is_handshaking()
    });
    peer.expect(&mut secure.relay, b"Message was Sent!");
    secure
        .relay
        .expect(&mut alice, delivery("203.0.113.7:4321", "hi"));
}

#[test]
fn records_that_are_cut_at_any_byte_are_read_as_whole_ones() {
    let mut secure = Secure::start();
    let mut alice = secure.relay.join("alice");
    let addr = secure.addr_of(TLS, Dialect::Chat10);
    let mut hello = TlsPeer::new(addr, secure.authority.client()).take_records();
    for cut in 1..hello.len() {
        let mut peer = TlsPeer::new(addr, secure.authority.client());
        hello = peer.take_records();
        peer.stream.write_all(&hello[..cut]).unwrap();
        secure.relay.turn_at_once();
        secure.relay.turn_at_once();
        peer.stream.write_all(&hello[cut..]).unwrap();
        secure.relay.until("the handshake", |_| {
            peer.pump();
            !peer.connection.is_handshaking()
        });
    }
    let mut bob = secure.join("bob");
    bob.connection.writer().write_all(&frame("hello")).unwrap();
    bob.connection.writer().write_all(&frame("world")).unwrap();
    let len = bob.take_records().len();
    let both = [delivery("bob", "hello"), delivery("bob", "world")].concat();
    alice.pump().clear();
    for cut in 1..len {
        bob.connection.writer().write_all(&frame("hello")).unwrap();
        bob.connection.writer().write_all(&frame("world")).unwrap();
        let records = bob.take_records();
        // Those of the measurement above were not sent.
        if cut == 1 {
            bob = secure.join("bob");
            continue;
        }
        bob.stream.write_all(&records[..cut]).unwrap();
        secure.relay.turn_at_once();
        secure.relay.turn_at_once();
        bob.stream.write_all(&records[cut..]).unwrap();
        secure.relay.expect(&mut alice, &both);
    }
}

#[test]
fn member_that_ends_its_side_receives_what_is_pending_and_an_end() {
    let mut secure = Secure::start();
    let mut alice = secure.join("alice");
    let mut bob = secure.relay.join("bob");
    alice.send(frame("last words"));
    alice.close();
    secure
        .relay
        .expect(&mut bob, delivery("alice", "last words"));
    assert_eq!(alice.expect_end(&mut secure.relay), TlsEnd::Closed);
    assert_eq!(secure.relay.members(), 1);
}

#[test]
fn member_whose_connection_is_cut_leaves_as_one_without_tls() {
    let mut secure = Secure::start();
    let mut bob = secure.relay.join("bob");
    let mut alice = secure.join("alice");
    alice.send(frame("hello"));
    alice.stream.shutdown(std::net::Shutdown::Write).unwrap();
    secure.relay.expect(&mut bob, delivery("alice", "hello"));
    assert_eq!(alice.expect_end(&mut secure.relay), TlsEnd::Closed);
    assert_eq!(secure.relay.counters().closed.of("eof"), 1);
}

#[test]
fn slow_member_holds_no_more_than_a_record_and_receives_everything() {
    let limits = Limits {
        queue_limit: 4 * 1024 * 1024,
        ..Limits::default()
    };
    let mut secure = Secure::serving(&[(TLS, Dialect::Chat10)], |config, _| {
        config.limits = limits;
    });
    let mut slow = secure.join("slow");
    let mut alice = secure.relay.join("alice");
    let message = |number: u32| {
        let mut message = number.to_string().into_bytes();
        message.resize(10_000 + number as usize, b'.');
        message
    };
    let mut expected = Vec::new();
    let mut number = 0;
    // Until the kernel holds no more and the relay does.
    while secure.relay.server.relay().lagging() == 0 {
        alice.send(frame(message(number)));
        expected.extend(delivery("alice", message(number)));
        let messages = secure.relay.counters().messages;
        secure
            .relay
            .until("a message", |relay| relay.counters().messages > messages);
        number += 1;
    }
    for _ in 0..50 {
        alice.send(frame(message(number)));
        expected.extend(delivery("alice", message(number)));
        let messages = secure.relay.counters().messages;
        secure
            .relay
            .until("a message", |relay| relay.counters().messages > messages);
        number += 1;
    }
    assert_eq!(secure.relay.server.relay().lagging(), 1);
    slow.expect(&mut secure.relay, &expected);
    assert_eq!(secure.relay.server.relay().lagging(), 0);
    alice.send(frame("after"));
    slow.expect(&mut secure.relay, delivery("alice", "after"));
}

#[test]
fn incomplete_records_count_towards_the_memory_limit() {
    const MESSAGE: usize = 16_000;
    let mut limits = Limits {
        max_message: 2 * MESSAGE,
        queue_limit: 4 * MESSAGE,
        soft_limit: MESSAGE,
        history_bytes: 0,
        turn_budget: MESSAGE,
        ..Limits::default()
    };
    limits.max_memory = limits.least_memory();
    let most = limits.max_memory;
    let mut secure = Secure::serving(&[(TLS, Dialect::Chat10)], |config, _| {
        config.limits = limits;
    });
    let mut bob = secure.relay.join("bob");
    assert_eq!(secure.relay.server.relay().held_bytes(), 0);
    // Each has all but the last byte of its record arrive. The first one's is the longest.
    let mut members = Vec::new();
    for index in 0..=most / MESSAGE {
        let mut member = secure.join("alice");
        let len = MESSAGE - index;
        member
            .connection
            .writer()
            .write_all(&frame("x".repeat(len)))
            .unwrap();
        let mut records = member.take_records();
        let last = records.pop().unwrap();
        let before = secure.relay.server.relay().held_bytes();
        member.stream.write_all(&records).unwrap();
        secure
            .relay
            .until("a record to be held or a member to be closed", |relay| {
                relay.server.relay().held_bytes() >= before + len
                    || relay.counters().closed.total() > 0
            });
        members.push((member, last, len));
    }
    let closed = &secure.relay.counters().closed;
    assert_eq!((closed.total(), closed.of("out_of_memory")), (1, 1));
    assert!(secure.relay.server.relay().held_bytes() <= most);
    let (mut first, ..) = members.remove(0);
    first.expect_end(&mut secure.relay);
    // Connections that are gone hold nothing, so there is room for messages.
    let gone = members.split_off(2).len() as u64;
    secure.relay.until("members to leave", |relay| {
        relay.counters().closed.total() == 1 + gone
    });
    assert!(secure.relay.server.relay().held_bytes() < 3 * MESSAGE);
    for (member, last, len) in &mut members {
        member.stream.write_all(&[*last]).unwrap();
        secure
            .relay
            .expect(&mut bob, delivery("alice", "x".repeat(*len)));
    }
    secure.relay.turn_at_once();
    assert_eq!(secure.relay.server.relay().held_bytes(), 0);
}

#[test]
fn keys_can_be_changed_at_any_time() {
    let mut secure = Secure::start();
    let mut alice = secure.join("alice");
    let mut bob = secure.relay.join("bob");
    for round in ["one", "two", "three"] {
        alice.connection.refresh_traffic_keys().unwrap();
        alice.send(frame(round));
        secure.relay.expect(&mut bob, delivery("alice", round));
        // The relay was asked to change its keys as well.
        bob.send(frame(round));
        alice.expect(&mut secure.relay, delivery("bob", round));
    }
}

#[test]
fn peer_that_speaks_no_tls_is_refused_and_so_is_an_old_version() {
    let mut secure = Secure::start();
    let addr = secure.addr_of(TLS, Dialect::Chat10);
    for (refused, bytes) in [(1, frame("alice")), (2, b"GET / HTTP/1.1\r\n\r\n".to_vec())] {
        let mut peer = TestPeer::from(TcpStream::connect(addr).unwrap());
        peer.send(bytes);
        secure.relay.until("a refusal", |_| {
            peer.pump();
            peer.end.is_some()
        });
        assert_eq!(secure.relay.counters().refused, refused);
    }
    let old = secure.authority.client_of(&[&rustls::version::TLS12], None);
    let mut peer = TlsPeer::new(addr, old.clone());
    assert_eq!(peer.expect_end(&mut secure.relay), TlsEnd::Alert);
    assert_eq!(secure.relay.counters().refused, 3);
    assert_eq!(secure.relay.counters().accepted, 0);
    let mut secure = Secure::serving(&[(TLS, Dialect::Chat10)], |config, authority| {
        let mut files = authority.files();
        files.allows_tls12 = true;
        config.tls = Some(files);
    });
    let mut bob = secure.relay.join("bob");
    let old = secure.authority.client_of(&[&rustls::version::TLS12], None);
    let addr = secure.addr_of(TLS, Dialect::Chat10);
    let mut alice = TlsPeer::connect(&mut secure.relay, addr, old);
    alice.send([frame("alice"), frame("hello")].concat());
    secure.relay.expect(&mut bob, delivery("alice", "hello"));
    bob.send(frame("hi"));
    alice.expect(&mut secure.relay, delivery("bob", "hi"));
    alice.close();
    assert_eq!(alice.expect_end(&mut secure.relay), TlsEnd::Closed);
}

#[test]
fn record_that_was_changed_ends_its_connection_and_no_other() {
    let mut secure = Secure::start();
    let mut alice = secure.join("alice");
    let mut bob = secure.join("bob");
    let mut carol = secure.relay.join("carol");
    alice
        .connection
        .writer()
        .write_all(&frame("hello"))
        .unwrap();
    let mut records = alice.take_records();
    *records.last_mut().unwrap() ^= 1;
    alice.stream.write_all(&records).unwrap();
    assert_eq!(alice.expect_end(&mut secure.relay), TlsEnd::Alert);
    bob.send(frame("still here"));
    secure
        .relay
        .expect(&mut carol, delivery("bob", "still here"));
}

#[test]
fn connection_that_ends_inside_its_handshake_costs_no_other_anything() {
    let mut secure = Secure::start();
    let addr = secure.addr_of(TLS, Dialect::Chat10);
    for cut in [0, 1, 5, 50, usize::MAX] {
        for resets in [false, true] {
            let mut peer = TlsPeer::new(addr, secure.authority.client());
            let records = peer.take_records();
            let cut = cut.min(records.len());
            peer.stream.write_all(&records[..cut]).unwrap();
            secure.relay.turn_at_once();
            secure.relay.turn_at_once();
            let socket = socket2::Socket::from(peer.stream);
            if resets {
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(socket);
        }
    }
    let mut bob = secure.relay.join("bob");
    let mut alice = secure.join("alice");
    alice.send(frame("hello"));
    secure.relay.expect(&mut bob, delivery("alice", "hello"));
    assert_eq!(secure.relay.server.relay().pending_connections(), 0);
}

#[test]
fn connection_without_a_handshake_is_closed_in_time() {
    let mut secure = Secure::serving(&[(TLS, Dialect::Chat10)], |config, _| {
        config.limits.handshake_timeout = Duration::from_millis(50);
    });
    let addr = secure.addr_of(TLS, Dialect::Chat10);
    let mut silent = TestPeer::from(TcpStream::connect(addr).unwrap());
    secure.relay.expect_close(&mut silent);
    assert_eq!(secure.relay.counters().refused, 1);
}

#[test]
fn connection_without_a_place_is_refused_before_its_handshake() {
    let mut secure = Secure::serving(&[(TLS, Dialect::Chat10)], |config, _| {
        config.limits.max_clients = 3;
    });
    let _alice = secure.relay.join("alice");
    let addr = secure.addr_of(TLS, Dialect::Chat10);
    let _bob = secure.join("bob");
    // Its place is taken as long as its handshake may come.
    let _silent = TestPeer::from(TcpStream::connect(addr).unwrap());
    secure.relay.turn();
    let mut late = TlsPeer::new(addr, secure.authority.client());
    late.expect_end(&mut secure.relay);
    assert_eq!(secure.relay.counters().refused, 1);
    let metrics = secure.relay.server.metrics();
    assert!(
        metrics.contains("\nchatloop_tls_handshakes_total 1\n"),
        "{metrics}"
    );
}

#[test]
fn handshakes_count_towards_the_limit_of_their_address() {
    let mut secure = Secure::serving(&[(TLS, Dialect::Chat10)], |config, _| {
        config.limits.max_per_ip = Some(3);
    });
    let addr = secure.addr_of(TLS, Dialect::Chat10);
    let alice = secure.join("alice");
    let plain = secure.relay.addr;
    let from_elsewhere = move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let address: SocketAddr = "127.0.0.2:0".parse().unwrap();
        socket.bind(&address.into()).unwrap();
        socket.connect(&plain.into()).unwrap();
        TestPeer::from(TcpStream::from(socket))
    };
    // A stranger begins two handshakes, and ends none of them.
    let silent = TestPeer::from(TcpStream::connect(addr).unwrap());
    let mut half = TlsPeer::new(addr, secure.authority.client());
    let hello = half.take_records();
    half.stream.write_all(&hello[..hello.len() / 2]).unwrap();
    let handshakes = |relay: &TestRelay| {
        let metrics = relay.server.metrics();
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("chatloop_tls_handshaking "));
        count.unwrap().parse::<usize>().unwrap()
    };
    secure
        .relay
        .until("two handshakes", |relay| handshakes(relay) == 2);
    let mut third = TlsPeer::new(addr, secure.authority.client());
    third.expect_end(&mut secure.relay);
    let mut fourth = secure.relay.connect();
    secure.relay.expect_close(&mut fourth);
    assert_eq!(secure.relay.counters().refused, 2);
    let mut bob = from_elsewhere();
    bob.send([frame("bob"), frame("hello")].concat());
    let mut alice = alice;
    alice.expect(&mut secure.relay, delivery("bob", "hello"));
    // A place whose handshake has ended is free again.
    drop((silent, half));
    secure
        .relay
        .until("the handshakes to end", |relay| handshakes(relay) == 0);
    let _carol = secure.join("carol");
    let _dave = secure.join("dave");
    let mut fifth = TlsPeer::new(addr, secure.authority.client());
    fifth.expect_end(&mut secure.relay);
    assert_eq!(secure.relay.counters().refused, 3);
}

/// With clients that need certificates, and a list of those that were revoked.
fn demanding(config: &mut Config, authority: &Authority) {
    authority.revoke("revoked.crl", &[]);
    let mut files = authority.files();
    files.client_ca = Some(authority.path("ca.crt"));
    files.client_crl = Some(authority.path("revoked.crl"));
    config.tls = Some(files);
}

#[test]
fn name_in_the_certificate_is_the_name_of_its_member() {
    let listeners = [(TLS, Dialect::Chat10), (TLS, Dialect::Chat64)];
    let mut secure = Secure::serving(&listeners, demanding);
    let mut bob = secure.relay.join("bob");
    let email = |name: &str| SanType::Rfc822Name(name.try_into().unwrap());
    let domain = |name: &str| SanType::DnsName(name.try_into().unwrap());
    for (serial, names, expected) in [
        (1, vec![], "common"),
        (2, vec![domain("alice.example.org")], "alice.example.org"),
        (
            3,
            vec![domain("alice.example.org"), email("alice@example.org")],
            "alice@example.org",
        ),
    ] {
        let identity = secure.authority.identity(serial, "common", &names);
        let client = secure
            .authority
            .client_of(rustls::DEFAULT_VERSIONS, Some(&identity));
        let addr = secure.addr_of(TLS, Dialect::Chat10);
        let mut peer = TlsPeer::connect(&mut secure.relay, addr, client.clone());
        peer.send([frame("somebody else"), frame("hello")].concat());
        secure.relay.expect(&mut bob, delivery(expected, "hello"));
        // Where the address would be the name.
        let addr = secure.addr_of(TLS, Dialect::Chat64);
        let mut peer = TlsPeer::connect(&mut secure.relay, addr, client);
        peer.send(wide_frame("hello"));
        secure.relay.expect(&mut bob, delivery(expected, "hello"));
    }
}

#[test]
fn client_without_a_certificate_of_the_authority_does_not_get_in() {
    let mut secure = Secure::serving(&[(TLS, Dialect::Chat10)], demanding);
    let addr = secure.addr_of(TLS, Dialect::Chat10);
    let other = Authority::new();
    let stranger = other.identity(1, "alice", &[]);
    let long = secure.authority.identity(
        2,
        &"x".repeat(64),
        &[SanType::DnsName(
            "x".repeat(300).as_str().try_into().unwrap(),
        )],
    );
    let authority = &secure.authority;
    let clients = [
        authority.client(),
        authority.client_of(rustls::DEFAULT_VERSIONS, Some(&stranger)),
        authority.client_of(rustls::DEFAULT_VERSIONS, Some(&long)),
    ];
    for (client, end) in clients
        .into_iter()
        .zip([TlsEnd::Alert, TlsEnd::Alert, TlsEnd::Closed])
    {
        let mut peer = TlsPeer::new(addr, client);
        assert_eq!(peer.expect_end(&mut secure.relay), end);
    }
    assert_eq!(secure.relay.counters().refused, 3);
    assert_eq!(secure.relay.counters().accepted, 0);
}

#[test]
fn handshakes_beyond_those_of_a_turn_wait_and_are_completed_in_order() {
    let mut secure = Secure::start();
    let addr = secure.addr_of(TLS, Dialect::Chat10);
    let mut peers: Vec<_> = (0..150)
        .map(|_| TlsPeer::new(addr, secure.authority.client()))
        .collect();
    for peer in &mut peers {
        peer.flush();
    }
    let answered = |peers: &mut [TlsPeer]| {
        let is_answered = |peer: &mut TlsPeer| {
            peer.pump();
            !peer.connection.is_handshaking()
        };
        peers.iter_mut().map(is_answered).filter(|one| *one).count()
    };
    // Until all are accepted, which none is answered before.
    let mut counts = vec![0];
    let mut turns = 0;
    while counts.last() != Some(&150) {
        secure.relay.turn();
        counts.push(answered(&mut peers));
        turns += 1;
        assert!(turns < 10_000, "handshakes hang: {counts:?}");
    }
    let most = counts.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(most <= Some(64), "{counts:?}");
    assert!(turns > 3, "{counts:?}");
}
