//! Proxies that state their clients' addresses, and peers that pretend to be one.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use chatloop::relay::{Limits, RoomEvent};
use chatloop::server::{Config, Endpoint, Preamble};
use chatloop::wire::Dialect;
use proxy_header::{ProxiedAddress, ProxyHeader, Tlv};
use socket2::{Domain, Socket, Type};

use crate::common::socket::{End, TestPeer, TestRelay};
use crate::common::{delivery, frame, wide_frame};

/// The address of a proxy's client.
const CLIENT: &str = "203.0.113.7:4321";

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: localhost:1235\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// A relay with a plain `chat10` listener, and one for proxies for each of these dialects. It trusts these
/// peers.
struct Proxied {
    relay: TestRelay,
    dialects: Vec<Dialect>,
}

impl Proxied {
    fn serving(dialects: &[Dialect], trusted: &[&str], limits: Limits) -> Self {
        let endpoint = |&dialect: &Dialect| Endpoint {
            dialect,
            addr: "127.0.0.1:0".parse().unwrap(),
        };
        let mut config = Config::new(vec![endpoint(&Dialect::Chat10)]);
        let preamble = Preamble {
            proxy_header: true,
            ..Preamble::NONE
        };
        let proxied = dialects.iter().map(|one| (preamble, endpoint(one)));
        config.listen_with = proxied.collect();
        config.trusted_proxies = trusted.iter().map(|one| one.parse().unwrap()).collect();
        config.limits = limits;
        let mut relay = TestRelay::with_config(&config);
        relay.server.record_events();
        Self {
            relay,
            dialects: dialects.to_vec(),
        }
    }

    /// With a listener for `chat10`, trusting this machine.
    fn start() -> Self {
        Self::serving(&[Dialect::Chat10], &["127.0.0.1"], Limits::default())
    }

    /// A connection to the listener for proxies of this dialect.
    fn connect(&self, dialect: Dialect) -> TestPeer {
        let index = self.dialects.iter().position(|one| *one == dialect);
        let addr = self.relay.server.local_addrs().unwrap()[1 + index.unwrap()];
        TestPeer::from(TcpStream::connect(addr).unwrap())
    }

    /// A connection of this dialect whose proxy has sent this.
    fn forward(&self, dialect: Dialect, bytes: impl AsRef<[u8]>) -> TestPeer {
        let mut peer = self.connect(dialect);
        peer.send(bytes);
        peer
    }

    /// Waits until a member joins, and returns its address.
    #[track_caller]
    fn joined(&mut self) -> SocketAddr {
        let mut address = None;
        self.relay.until("a member to join", |relay| {
            address = relay
                .server
                .drain_events()
                .into_iter()
                .find_map(|event| match event {
                    RoomEvent::Joined { member, .. } => Some(member.peer),
                    _ => None,
                });
            address.is_some()
        });
        address.unwrap()
    }

    /// The room goes on without the refused.
    #[track_caller]
    fn assert_room_works(&mut self) {
        let (mut alice, mut bob) = (self.relay.join("alice"), self.relay.join("bob"));
        alice.send(frame("still here"));
        self.relay.expect(&mut bob, delivery("alice", "still here"));
    }
}

/// A header for the client of this address, of version 1 and of version 2.
fn headers(client: &str) -> [Vec<u8>; 2] {
    let client: SocketAddr = client.parse().unwrap();
    let server = SocketAddr::new(client.ip(), 1234);
    let header = ProxyHeader::with_address(ProxiedAddress::stream(client, server));
    let (mut line, mut binary) = (Vec::new(), Vec::new());
    header.encode_v1(&mut line).unwrap();
    header.encode_v2(&mut binary).unwrap();
    [line, binary]
}

/// A header of version 2 that announces this length.
fn lying_header(announced: u16) -> Vec<u8> {
    let [_, mut header] = headers(CLIENT);
    header[14..16].copy_from_slice(&announced.to_be_bytes());
    header
}

/// The frame of a browser that sends a short text.
fn masked_text(text: &str) -> Vec<u8> {
    let start = [0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    [&start, text.as_bytes()].concat()
}

#[test]
fn member_has_the_address_that_its_proxy_states() {
    let mut proxied = Proxied::start();
    let mut alice = proxied.relay.join("alice");
    assert!(proxied.joined().ip().is_loopback());
    for client in [CLIENT, "[2001:db8::1]:9"] {
        for header in headers(client) {
            let bytes = [header, frame("bob"), frame("hello")].concat();
            let mut bob = proxied.forward(Dialect::Chat10, bytes);
            assert_eq!(proxied.joined().to_string(), client);
            proxied.relay.expect(&mut alice, delivery("bob", "hello"));
            alice.send(frame("welcome"));
            proxied.relay.expect(&mut bob, delivery("alice", "welcome"));
        }
    }
}

#[test]
fn header_that_is_cut_at_any_byte_is_read_as_a_whole_one() {
    let mut proxied = Proxied::start();
    for header in headers(CLIENT) {
        let bytes = [header.clone(), frame("bob")].concat();
        for cut in 1..bytes.len() {
            let mut bob = proxied.forward(Dialect::Chat10, &bytes[..cut]);
            // It is in the lobby, or in the room, with what was sent.
            proxied.relay.turn_at_once();
            proxied.relay.turn_at_once();
            bob.send(&bytes[cut..]);
            assert_eq!(proxied.joined().to_string(), CLIENT, "cut at {cut}");
            bob.reset().unwrap();
        }
        let mut bob = proxied.connect(Dialect::Chat10);
        for byte in &bytes {
            bob.send([*byte]);
            proxied.relay.turn();
        }
        assert_eq!(proxied.joined().to_string(), CLIENT);
    }
}

#[test]
fn proxy_that_connects_for_itself_has_its_own_address() {
    let mut proxied = Proxied::start();
    let (mut line, mut binary, mut longer) = (Vec::new(), Vec::new(), Vec::new());
    ProxyHeader::with_local().encode_v1(&mut line).unwrap();
    ProxyHeader::with_local().encode_v2(&mut binary).unwrap();
    let fields = [Tlv::Noop(600)];
    let local = ProxyHeader::with_tlvs(None, fields);
    local.encode_v2(&mut longer).unwrap();
    for header in [line, binary, longer] {
        let bytes = [header, frame("bob")].concat();
        let bob = proxied.forward(Dialect::Chat10, bytes);
        assert_eq!(proxied.joined(), bob.stream.local_addr().unwrap());
    }
    // A health check closes after its header, or without one.
    drop(proxied.forward(Dialect::Chat10, b"PROXY UNKNOWN\r\n"));
    drop(proxied.connect(Dialect::Chat10));
    proxied.assert_room_works();
    assert_eq!(proxied.relay.counters().refused, 0);
}

#[test]
fn every_dialect_can_be_behind_a_proxy() {
    let mut proxied = Proxied::serving(&Dialect::ALL, &["127.0.0.1"], Limits::default());
    let mut alice = proxied.relay.join("alice");
    let [line, binary] = headers(CLIENT);
    let mut hello = proxied.forward(Dialect::Hello, &binary);
    proxied.relay.expect(&mut hello, b"welcome to the server!");
    assert_eq!(proxied.relay.expect_close(&mut hello), End::Fin);
    let mut greeted = proxied.forward(Dialect::Greet10, &line);
    let greeting = frame("Welcome to the server!");
    proxied.relay.expect(&mut greeted, greeting);
    // Where there are no names, the address is one.
    let bytes = [binary.clone(), wide_frame("hi")].concat();
    let mut wide = proxied.forward(Dialect::Chat64, bytes);
    proxied.relay.expect(&mut wide, b"Message was Sent!");
    proxied.relay.expect(&mut alice, delivery(CLIENT, "hi"));
    let bytes = [&line, HANDSHAKE.as_bytes()].concat();
    let mut browser = proxied.forward(Dialect::Ws, bytes);
    proxied
        .relay
        .until("the handshake", |_| browser.pump().ends_with(b"\r\n\r\n"));
    proxied.relay.server.drain_events();
    browser.send(masked_text("bob"));
    assert_eq!(proxied.joined().to_string(), CLIENT);
}

#[test]
fn peer_that_is_not_trusted_is_refused_by_a_listener_for_proxies() {
    let limits = Limits::default();
    let mut proxied = Proxied::serving(&[Dialect::Chat10, Dialect::Ws], &["127.0.0.2"], limits);
    for (refused, dialect) in [(1, Dialect::Chat10), (2, Dialect::Ws)] {
        let [line, _] = headers(CLIENT);
        let mut stranger = proxied.forward(dialect, [line, frame("bob")].concat());
        proxied.relay.expect_close(&mut stranger);
        assert_eq!(proxied.relay.counters().refused, refused);
    }
    assert_eq!(proxied.relay.counters().accepted, 0);
    proxied.assert_room_works();
}

#[test]
fn connection_without_a_proper_header_is_refused() {
    let mut proxied = Proxied::start();
    let [line, _] = headers(CLIENT);
    let first: &[&[u8]] = &[
        b"5         alice",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 203.0.113.7\r\n",
        b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\n",
        b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c",
        &b"PROXY UNKNOWN ".repeat(50),
        &lying_header(0),
        &lying_header(11),
        &lying_header(u16::MAX),
        &[b"\0".as_slice(), &line].concat(),
    ];
    for (number, bytes) in (1..).zip(first) {
        let mut peer = proxied.forward(Dialect::Chat10, bytes);
        proxied.relay.expect_close(&mut peer);
        assert_eq!(proxied.relay.counters().refused, number, "{bytes:?}");
    }
    assert_eq!(proxied.relay.counters().accepted, 0);
    proxied.assert_room_works();
}

#[test]
fn header_that_announces_more_than_it_has_takes_it_from_what_follows() {
    let mut proxied = Proxied::start();
    // The name is in the header then, and what follows it is not a name.
    let bytes = [lying_header(12 + 15), frame("alice"), frame("bob")].concat();
    let _bob = proxied.forward(Dialect::Chat10, bytes);
    assert_eq!(proxied.joined().to_string(), CLIENT);
    let infos = proxied.relay.server.relay();
    let names: Vec<_> = infos
        .member_infos(std::time::Instant::now())
        .map(|member| member.name.to_vec())
        .collect();
    assert_eq!(names, [b"bob"]);
}

#[test]
fn half_headers_by_the_hundred_hold_a_bounded_number_of_places() {
    let mut proxied = Proxied::start();
    let mut alice = proxied.relay.join("alice");
    let mut peers: Vec<_> = (0..400)
        .map(|number| {
            let [line, binary] = headers(CLIENT);
            let header = if number % 2 == 0 { line } else { binary };
            let half = &header[..number % header.len()];
            proxied.forward(Dialect::Chat10, half)
        })
        .collect();
    // The oldest make room for the newest.
    proxied.relay.until("the oldest to be closed", |_| {
        let open = |peer: &mut TestPeer| {
            peer.pump();
            peer.end.is_none()
        };
        peers
            .iter_mut()
            .filter_map(|peer| open(peer).then_some(()))
            .count()
            == 256
    });
    let bytes = [headers(CLIENT)[1].clone(), frame("bob"), frame("hello")].concat();
    let _bob = proxied.forward(Dialect::Chat10, bytes);
    proxied.relay.expect(&mut alice, delivery("bob", "hello"));
    assert_eq!(
        proxied.relay.counters().accepted,
        2,
        "the room has seen no other"
    );
}

#[test]
fn half_header_is_closed_at_the_handshake_timeout() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(20),
        ..Limits::default()
    };
    let mut proxied = Proxied::serving(&[Dialect::Chat10, Dialect::Ws], &["127.0.0.1"], limits);
    for (refused, dialect) in [(1, Dialect::Chat10), (2, Dialect::Ws)] {
        let mut peer = proxied.forward(dialect, b"PROXY TCP4");
        proxied.relay.expect_close(&mut peer);
        assert_eq!(proxied.relay.counters().refused, refused);
    }
    assert_eq!(proxied.relay.counters().accepted, 0);
}

#[test]
fn header_that_was_received_is_read_before_its_connection_counts_as_late() {
    let limits = Limits {
        handshake_timeout: Duration::from_nanos(1),
        ..Limits::default()
    };
    let mut proxied = Proxied::serving(&[Dialect::Chat10], &["127.0.0.1"], limits);
    let [line, _] = headers(CLIENT);
    let _bob = proxied.forward(Dialect::Chat10, [line, frame("bob")].concat());
    assert_eq!(proxied.joined().to_string(), CLIENT);
}

#[test]
fn connections_of_one_stated_address_are_limited() {
    let limits = Limits {
        max_per_ip: Some(1),
        ..Limits::default()
    };
    let mut proxied = Proxied::serving(&[Dialect::Chat10], &["127.0.0.1"], limits);
    let forward = |proxied: &Proxied, client: &str| {
        let [_, binary] = headers(client);
        proxied.forward(Dialect::Chat10, [binary, frame("bob")].concat())
    };
    let _first = forward(&proxied, "203.0.113.7:1");
    proxied.joined();
    let _other = forward(&proxied, "203.0.113.8:1");
    proxied.joined();
    let mut second = forward(&proxied, "203.0.113.7:2");
    proxied.relay.expect_close(&mut second);
    assert_eq!(proxied.relay.counters().refused, 1);
}

/// The addresses of a browser member as the relay has it, when its connection comes from `from` with this
/// list in `X-Forwarded-For`.
#[track_caller]
fn browser_address(from: [u8; 4], forwarded_for: &str, trusted: &[&str]) -> String {
    let mut config = Config::new(vec![Endpoint {
        dialect: Dialect::Ws,
        addr: "127.0.0.1:0".parse().unwrap(),
    }]);
    config.trusted_proxies = trusted.iter().map(|one| one.parse().unwrap()).collect();
    let mut relay = TestRelay::with_config(&config);
    relay.server.record_events();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&relay.addr.into()).unwrap();
    let mut peer = TestPeer::from(TcpStream::from(socket));
    let own = peer.stream.local_addr().unwrap();
    let field = format!("Upgrade: websocket\r\n{forwarded_for}");
    peer.send(HANDSHAKE.replacen("Upgrade: websocket\r\n", &field, 1));
    relay.until("the handshake", |_| peer.pump().ends_with(b"\r\n\r\n"));
    peer.send(masked_text("bob"));
    let mut proxied = Proxied {
        relay,
        dialects: Vec::new(),
    };
    let address = proxied.joined();
    if address == own {
        "its own".to_owned()
    } else {
        address.to_string()
    }
}

#[test]
fn browser_has_the_address_that_its_trusted_proxies_state() {
    let (local, stranger) = ([127, 0, 0, 1], [127, 0, 0, 9]);
    let trusted = &["127.0.0.1", "10.0.0.0/8"];
    for (from, forwarded_for, expected) in [
        (local, "", "its own"),
        (local, "X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7:0"),
        (
            local,
            "X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.0.0.1\r\n",
            "203.0.113.7:0",
        ),
        (
            local,
            "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 203.0.113.7\r\n",
            "203.0.113.7:0",
        ),
        (
            local,
            "X-Forwarded-For: 203.0.113.7, nonsense\r\n",
            "its own",
        ),
        (stranger, "X-Forwarded-For: 203.0.113.7\r\n", "its own"),
        (
            stranger,
            "X-Forwarded-For: 10.0.0.1, 127.0.0.1\r\n",
            "its own",
        ),
        (
            stranger,
            "X-Forwarded-For: \u{fffd}\r\nX-Forwarded-For:\r\n",
            "its own",
        ),
    ] {
        let found = browser_address(from, forwarded_for, trusted);
        assert_eq!(found, expected, "{forwarded_for:?} from {from:?}");
    }
    let found = browser_address(local, "X-Forwarded-For: 203.0.113.7\r\n", &[]);
    assert_eq!(found, "its own", "no proxy is trusted");
}

#[test]
fn header_for_a_listener_that_expects_none_is_refused() {
    let mut relay = TestRelay::serving(&[Dialect::Chat10, Dialect::Ws], Limits::default());
    for header in headers(CLIENT) {
        let mut peer = relay.connect();
        peer.send([header.clone(), frame("bob")].concat());
        relay.expect_close(&mut peer);
        let stream = TcpStream::connect(relay.addr_of(Dialect::Ws)).unwrap();
        let mut peer = TestPeer::from(stream);
        peer.send([&header, HANDSHAKE.as_bytes()].concat());
        relay.expect(&mut peer, b"HTTP/1.1 400 Bad Request\r\n");
    }
    assert_eq!(relay.counters().closed.of("protocol"), 2);
    assert_eq!(relay.counters().joined, 0);
}
