//! Browsers and other WebSocket clients. The client's side is written out here, frame by frame, so that the
//! bytes on the wire are compared and not what a library makes of them.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use crate::common::script::{Peer, Room, Script};
use crate::common::socket::{End, TestPeer, TestRelay};
use crate::common::web_socket::{BINARY, CLOSE, PING, PONG, TEXT, masked, server_frame};
use crate::common::{assert_bytes, delivery, frame, wide_frame};
use chatloop::relay::{Limits, Ready, ReplyTexts, Slow};
use chatloop::server::{Config, Endpoint, Event, Request, Server, Source, System};
use chatloop::wire::Dialect;
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

/// The handshake of a browser whose page is at the host `localhost:1235`. The key and its answer are those
/// of RFC 6455, 1.3.
const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: localhost:1235\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost:1235\r\n\r\n";

/// What stands for the time in expected messages.
const TIME: &[u8; 24] = b"0000-00-00T00:00:00.000Z";

/// A head with a part exchanged.
#[track_caller]
fn changed(head: &str, from: &str, to: &str) -> String {
    assert!(head.contains(from), "{from}");
    head.replacen(from, to, 1)
}

/// A response with no body, or with this one.
fn response(status: &str, fields: &str, body: &str) -> String {
    let len = body.len();
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {len}\r\nConnection: close\r\n\r\n{body}")
}

fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    server_frame(CLOSE, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

/// A message as browsers receive it, with [`TIME`] as its time. Name and text need no escapes.
fn json(name: &str, text: &str) -> Vec<u8> {
    let time = str::from_utf8(TIME).unwrap();
    let object = format!(r#"{{"time":"{time}","name":"{name}","message":"{text}"}}"#);
    server_frame(TEXT, object)
}

fn ack() -> Vec<u8> {
    server_frame(TEXT, r#"{"ack":1}"#)
}

fn hello(limits: &Limits) -> Vec<u8> {
    let (version, name, message) = (
        env!("CARGO_PKG_VERSION"),
        limits.max_name,
        limits.max_message,
    );
    let object =
        format!(r#"{{"hello":{{"version":"{version}","maxName":{name},"maxMessage":{message}}}}}"#);
    server_frame(TEXT, object)
}

/// The bytes with [`TIME`] in the place of each time, which must look like one.
#[track_caller]
fn without_times(bytes: &[u8]) -> Vec<u8> {
    const KEY: &[u8] = br#"{"time":""#;
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(KEY.len()).position(|part| part == KEY) {
        at += found + KEY.len();
        let end = bytes.len().min(at + TIME.len());
        for (byte, &pattern) in bytes[at..end].iter_mut().zip(TIME) {
            match pattern {
                b'0' => {
                    assert!(byte.is_ascii_digit(), "a digit of a time: {byte}");
                    *byte = b'0';
                }
                _ => assert_eq!(*byte, pattern),
            }
        }
    }
    bytes
}

/// Takes a stream of server frames apart: the first byte and the payload of each.
#[track_caller]
fn parse(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (header, len) = match bytes[1] {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 => {
                let len: [u8; 8] = bytes[2..10].try_into().unwrap();
                (10, usize::try_from(u64::from_be_bytes(len)).unwrap())
            }
            len => (2, usize::from(len)),
        };
        assert!(bytes[1] < 128, "no frame of the relay is masked");
        frames.push((bytes[0], &bytes[header..header + len]));
        bytes = &bytes[header + len..];
    }
    frames
}

/// A relay for browsers alone.
fn browsers_config() -> Config {
    Config::new(vec![Endpoint {
        dialect: Dialect::Ws,
        addr: "127.0.0.1:0".parse().unwrap(),
    }])
}

/// The same, with these limits.
fn browsers(limits: &Limits) -> TestRelay {
    TestRelay::serving(&[Dialect::Ws], limits.clone())
}

/// A connection that has sent this.
#[track_caller]
fn request(relay: &TestRelay, dialect: Dialect, bytes: impl AsRef<[u8]>) -> TestPeer {
    let mut peer = TestPeer::from(TcpStream::connect(relay.addr_of(dialect)).unwrap());
    peer.send(bytes);
    peer
}

/// A WebSocket connection that has sent nothing in its frames.
#[track_caller]
fn upgraded(relay: &mut TestRelay, dialect: Dialect) -> TestPeer {
    let mut peer = request(relay, dialect, HANDSHAKE);
    relay.expect(&mut peer, ACCEPTED);
    peer
}

/// A browser member, in a relay with these limits.
#[track_caller]
fn enter(relay: &mut TestRelay, name: &str, limits: &Limits) -> TestPeer {
    let mut peer = upgraded(relay, Dialect::Ws);
    peer.send(masked(TEXT, name));
    relay.expect(&mut peer, hello(limits));
    peer
}

/// A `chat10` member through a WebSocket.
#[track_caller]
fn enter_tunnel(relay: &mut TestRelay, name: &str) -> TestPeer {
    let protocol = "Sec-WebSocket-Protocol: chat10\r\n\r\n";
    let offered = "Sec-WebSocket-Protocol: v9.other, chat10\r\n\r\n";
    let mut peer = request(
        relay,
        Dialect::Ws,
        changed(HANDSHAKE, "\r\n\r\n", &format!("\r\n{offered}")),
    );
    relay.expect(
        &mut peer,
        changed(ACCEPTED, "\r\n\r\n", &format!("\r\n{protocol}")),
    );
    let joined = relay.counters().joined;
    peer.send(masked(BINARY, frame(name)));
    relay.until("a member to join", |relay| relay.counters().joined > joined);
    peer
}

/// A member of a dialect without WebSocket.
#[track_caller]
fn join(relay: &mut TestRelay, dialect: Dialect, name: &str) -> TestPeer {
    let joined = relay.counters().joined;
    let mut peer = relay.connect_to(dialect);
    if dialect == Dialect::Chat10 {
        peer.send(frame(name));
    }
    relay.until("a member to join", |relay| relay.counters().joined > joined);
    peer
}

/// The peer receives exactly this next, but for the times.
#[track_caller]
fn expect_timed(relay: &mut TestRelay, peer: &mut TestPeer, expected: &[u8]) {
    relay.until("as many bytes", |_| {
        peer.pump().len() >= expected.len() || peer.end.is_some()
    });
    let len = peer.received.len().min(expected.len());
    let received: Vec<u8> = peer.received.drain(..len).collect();
    assert_bytes(&without_times(&received), expected);
}

/// The relay answers a request with exactly this, and closes.
#[track_caller]
fn expect_response(relay: &mut TestRelay, mut peer: TestPeer, expected: &str) {
    relay.expect(&mut peer, expected);
    assert_eq!(relay.expect_close(&mut peer), End::Fin);
}

// The handshake and the page.

#[test]
fn handshake_is_accepted_however_it_is_cut() {
    let limits = Limits::default();
    let mut relay = browsers(&limits);
    for cut in 1..HANDSHAKE.len() {
        let mut peer = request(&relay, Dialect::Ws, &HANDSHAKE[..cut]);
        relay.turn();
        relay.turn();
        assert_eq!(peer.pump(), b"", "cut at {cut}");
        peer.send(&HANDSHAKE[cut..]);
        relay.expect(&mut peer, ACCEPTED);
    }
    let mut peer = request(&relay, Dialect::Ws, "");
    for byte in HANDSHAKE.as_bytes() {
        peer.send([*byte]);
        relay.turn();
    }
    relay.expect(&mut peer, ACCEPTED);
    peer.send(masked(TEXT, "alice"));
    relay.expect(&mut peer, hello(&limits));
}

#[test]
fn request_that_is_no_handshake_is_answered_with_the_reason_and_closed() {
    let mut relay = browsers(&Limits::default());
    let bad = response("400 Bad Request", "", "");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let post = changed(HANDSHAKE, "GET", "POST");
    let too_long = |len| format!("{}X: {}", &REQUEST[..REQUEST.len() - 2], "x".repeat(len));
    let large = response("431 Request Header Fields Too Large", "", "");
    for (head, answer) in [
        (changed(HANDSHAKE, key, ""), bad.clone()),
        (changed(HANDSHAKE, "ZQ==", "ZQ"), bad.clone()),
        (changed(HANDSHAKE, key, &key.repeat(2)), bad.clone()),
        (changed(HANDSHAKE, "HTTP/1.1", "HTTP/1.0"), bad.clone()),
        (changed(HANDSHAKE, "Host", "Host: a\r\nHost"), bad.clone()),
        (changed(HANDSHAKE, "Host: ", "Host : "), bad.clone()),
        (
            changed(HANDSHAKE, "\r\n\r\n", "\r\nContent-Length: 4\r\n\r\nbody"),
            bad.clone(),
        ),
        (
            changed(
                REQUEST,
                "\r\n\r\n",
                "\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            bad.clone(),
        ),
        (format!("{HANDSHAKE}{}", "\u{1}early frame"), bad.clone()),
        ("\x16\x03\x01 TLS\r\n\r\n".to_owned(), bad.clone()),
        (
            changed(HANDSHAKE, "Version: 13", "Version: 8"),
            response("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n", ""),
        ),
        (
            post,
            response("405 Method Not Allowed", "Allow: GET\r\n", ""),
        ),
        (
            changed(REQUEST, "GET / ", "GET /chat?x=/ "),
            response("404 Not Found", "", "there is nothing here\n"),
        ),
        (too_long(9000), large.clone()),
        (too_long(1_000_000), large.clone()),
        // A head that is too long is refused when it is complete, too.
        (format!("{}\r\n\r\n", too_long(9000)), large),
    ] {
        let mut peer = request(&relay, Dialect::Ws, "");
        let mut rest = head.as_bytes();
        // A long head may not fit the socket's buffer.
        relay.until("the request to be sent or answered", |_| {
            if peer.pump().is_empty() && peer.end.is_none() {
                let sent = peer.send_some(rest);
                rest = &rest[sent..];
            }
            rest.is_empty() || !peer.received.is_empty()
        });
        relay.expect(&mut peer, &answer);
        let shown = &head[..head.len().min(300)];
        let end = relay.expect_close(&mut peer);
        // What is sent behind the answer is never read, so its sender may find the connection reset.
        assert!(end == End::Fin || head.len() > 100_000, "{shown}: {end:?}");
    }
    assert_eq!(relay.counters().accepted, 0);
}

#[test]
fn request_for_a_foreign_host_is_refused_unless_the_host_is_configured() {
    let endpoint = |hosts: &[&str]| {
        let mut config = browsers_config();
        config.web.hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        TestRelay::with_config(&config)
    };
    let forbidden = response("403 Forbidden", "", "");
    let with_host = |host: &str| changed(HANDSHAKE, "localhost:1235", host);
    let mut relay = endpoint(&[]);
    for host in [
        "chat.example",
        "chat.example:1235",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        // It would be a part of the page's policy.
        "127.0.0.1:80; script-src *",
        "[::1]; script-src *",
    ] {
        for head in [with_host(host), changed(REQUEST, "localhost:1235", host)] {
            let peer = request(&relay, Dialect::Ws, head);
            expect_response(&mut relay, peer, &forbidden);
        }
    }
    let peer = request(&relay, Dialect::Ws, "GET / HTTP/1.1\r\n\r\n");
    expect_response(&mut relay, peer, &forbidden);
    for host in ["LOCALHOST", "192.0.2.7:80", "[2001:db8::1]:1235", "[::1]"] {
        let mut peer = request(&relay, Dialect::Ws, with_host(host));
        relay.expect(&mut peer, ACCEPTED);
    }
    let mut relay = endpoint(&["other.example", "chat.example"]);
    for host in ["chat.example", "Chat.Example:443", "localhost"] {
        let mut peer = request(&relay, Dialect::Ws, with_host(host));
        relay.expect(&mut peer, ACCEPTED);
    }
    let peer = request(&relay, Dialect::Ws, with_host("evil.example"));
    expect_response(&mut relay, peer, &forbidden);
}

#[test]
fn page_of_a_foreign_origin_is_refused_unless_the_origin_is_configured() {
    let with_origins = |origins: &[&str]| {
        let mut config = browsers_config();
        config.web.origins = origins.iter().map(|&origin| origin.to_owned()).collect();
        TestRelay::with_config(&config)
    };
    let from = |origin: &str| {
        changed(
            HANDSHAKE,
            "\r\n\r\n",
            &format!("\r\nOrigin: {origin}\r\n\r\n"),
        )
    };
    let foreign = [
        "http://evil.example",
        "http://localhost:1236",
        "http://localhost",
        "http://localhost:1235.evil.example",
        "null",
        "",
    ];
    let forbidden = response("403 Forbidden", "", "");
    for (origins, own, foreign) in [
        (
            &[][..],
            &["http://localhost:1235", "HTTP://LOCALHOST:1235"][..],
            &foreign[..],
        ),
        (
            &["https://a.example", "https://b.example"],
            &["https://b.example", "http://localhost:1235"],
            &["http://b.example", "https://c.example"],
        ),
        (&["any"], &foreign, &[]),
    ] {
        let mut relay = with_origins(origins);
        for origin in own {
            let mut peer = request(&relay, Dialect::Ws, from(origin));
            relay.expect(&mut peer, ACCEPTED);
        }
        for origin in foreign {
            let peer = request(&relay, Dialect::Ws, from(origin));
            expect_response(&mut relay, peer, &forbidden);
        }
    }
}

#[test]
fn page_comes_with_its_policy_and_once() {
    const PAGE: &str = include_str!("../../src/server/web/page.html");
    let hash = |name: &str| {
        let (_, rest) = PAGE.split_once(&format!("<{name}")).unwrap();
        let (element, _) = rest.split_once(&format!("</{name}>")).unwrap();
        let (_, text) = element.split_once('>').unwrap();
        format!("sha256-{}", BASE64.encode(&Sha256::digest(text)))
    };
    let etag = format!("\"{}-{}\"", env!("CARGO_PKG_VERSION"), hash("script"));
    let fields = format!(
        "Content-Type: text/html; charset=utf-8\r\n\
         Content-Security-Policy: default-src 'none'; script-src '{}'; style-src '{}'; connect-src \
         'self' ws://localhost:1235 wss://localhost:1235; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
         Cache-Control: no-cache\r\nETag: {etag}\r\n",
        hash("script"),
        hash("style"),
    );
    let dialects = [Dialect::Ws, Dialect::WsChat10, Dialect::WsEcho];
    let mut relay = TestRelay::serving(&dialects, Limits::default());
    let peer = request(&relay, Dialect::Ws, REQUEST);
    expect_response(&mut relay, peer, &response("200 OK", &fields, PAGE));
    let conditional = |etag: &str| {
        changed(
            REQUEST,
            "\r\n\r\n",
            &format!("\r\nIf-None-Match: {etag}\r\n\r\n"),
        )
    };
    // Neither has a body, nor its length (RFC 9110, 8.6).
    let not_modified =
        format!("HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\nConnection: close\r\n\r\n");
    let peer = request(&relay, Dialect::Ws, conditional(&etag));
    expect_response(&mut relay, peer, &not_modified);
    let peer = request(&relay, Dialect::Ws, conditional("\"another\""));
    expect_response(&mut relay, peer, &response("200 OK", &fields, PAGE));
    let peer = request(&relay, Dialect::Ws, changed(REQUEST, "/ ", "/favicon.ico "));
    let no_content = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    expect_response(&mut relay, peer, no_content);
    for dialect in [Dialect::WsChat10, Dialect::WsEcho] {
        let peer = request(&relay, dialect, REQUEST);
        let answer = response("404 Not Found", "", "there is nothing here\n");
        expect_response(&mut relay, peer, &answer);
    }
}

#[test]
fn connection_without_a_request_is_closed_at_the_handshake_timeout() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let mut relay = browsers(&limits);
    // A browser connects in advance, and may never use the connection.
    for sent in ["", "GET / HTTP/1.1\r\nHost: local"] {
        let mut peer = request(&relay, Dialect::Ws, sent);
        assert_eq!(relay.expect_close(&mut peer), End::Fin);
    }
    assert_eq!(relay.counters().accepted, 0);
}

// Messages.

#[test]
fn members_of_every_dialect_receive_each_message_once_in_one_order() {
    let limits = Limits::default();
    let dialects = [
        Dialect::Ws,
        Dialect::WsChat10,
        Dialect::Chat10,
        Dialect::Chat64,
    ];
    let mut relay = TestRelay::serving(&dialects, limits.clone());
    let mut reader = enter(&mut relay, "reader", &limits);
    let mut alice = enter(&mut relay, "alice", &limits);
    let mut bob = enter(&mut relay, "bob", &limits);
    let mut carol = enter_tunnel(&mut relay, "carol");
    let mut dora = upgraded(&mut relay, Dialect::WsChat10);
    let joined = relay.counters().joined;
    dora.send(masked(BINARY, frame("dora")));
    relay.until("dora to join", |relay| relay.counters().joined > joined);
    let mut erin = join(&mut relay, Dialect::Chat10, "erin");
    let mut frank = join(&mut relay, Dialect::Chat64, "");
    let frank_name = frank.stream.local_addr().unwrap().to_string();

    let mut sent = Vec::new();
    let names = ["alice", "bob", "carol", "dora", "erin", &frank_name];
    for round in 0..40 {
        for step in 0..names.len() {
            let index = (round + step) % names.len();
            let text = format!("{round} of {index}{}", "!".repeat(round * 7));
            let (peer, bytes) = match index {
                0 => (&mut alice, masked(TEXT, &text)),
                1 => (&mut bob, masked(BINARY, &text)),
                2 => (&mut carol, masked(BINARY, frame(&text))),
                3 => {
                    // The frames of the tunnel are cut elsewhere than those of the WebSocket.
                    let frame = frame(&text);
                    let (first, second) = frame.split_at(round % 13);
                    (
                        &mut dora,
                        [masked(BINARY, first), masked(TEXT, second)].concat(),
                    )
                }
                4 => (&mut erin, frame(&text)),
                _ => (&mut frank, wide_frame(&text)),
            };
            peer.send(bytes);
            sent.push((names[index].to_owned(), text));
        }
        if round % 3 == 0 {
            relay.turn();
        }
    }
    let total: usize = sent.iter().map(|(name, text)| json(name, text).len()).sum();
    relay.until("all messages", |_| reader.pump().len() >= total);
    let order: Vec<(String, String)> = parse(&without_times(&reader.received))
        .into_iter()
        .map(|(first, object)| {
            assert_eq!(first, TEXT);
            let object: serde_json::Value = serde_json::from_slice(object).unwrap();
            let field = |key: &str| object[key].as_str().unwrap().to_owned();
            (field("name"), field("message"))
        })
        .collect();
    // Each sender's messages are all there, once, in their order.
    for name in names {
        let of = |all: &[(String, String)]| -> Vec<_> {
            all.iter()
                .filter(|(from, _)| from == name)
                .cloned()
                .collect()
        };
        assert_eq!(of(&order), of(&sent), "{name}");
    }
    // All members receive the same order, each with its own messages replaced.
    let stream = |own: &str, encode: &dyn Fn(&str, &str) -> Vec<u8>, ack: &[u8]| -> Vec<u8> {
        let parts = order.iter().map(|(name, text)| {
            if name == own {
                ack.to_vec()
            } else {
                encode(name, text)
            }
        });
        parts.collect::<Vec<_>>().concat()
    };
    let tunneled = |name: &str, text: &str| server_frame(BINARY, delivery(name, text));
    let framed = |name: &str, text: &str| delivery(name, text);
    let plain = |_: &str, text: &str| text.as_bytes().to_vec();
    expect_timed(&mut relay, &mut reader, &stream("", &json, b""));
    expect_timed(&mut relay, &mut alice, &stream("alice", &json, &ack()));
    expect_timed(&mut relay, &mut bob, &stream("bob", &json, &ack()));
    relay.expect(&mut carol, stream("carol", &tunneled, b""));
    relay.expect(&mut dora, stream("dora", &tunneled, b""));
    relay.expect(&mut erin, stream("erin", &framed, b""));
    relay.expect(
        &mut frank,
        stream(&frank_name, &plain, b"Message was Sent!"),
    );
    // There is nothing more.
    for peer in [&mut reader, &mut alice, &mut bob, &mut carol, &mut dora] {
        peer.send(masked(CLOSE, ""));
        relay.expect(peer, server_frame(CLOSE, ""));
        assert_eq!(relay.expect_close(peer), End::Fin);
    }
}

#[test]
fn text_that_needs_escapes_is_an_object_that_names_all_its_bytes() {
    let limits = Limits::default();
    let mut relay = TestRelay::serving(&[Dialect::Ws, Dialect::Chat10], limits.clone());
    let mut alice = enter(&mut relay, "alice", &limits);
    let joined = relay.counters().joined;
    let mut bob = relay.connect_to(Dialect::Chat10);
    bob.send(frame(b"b\"\xff"));
    relay.until("bob to join", |relay| relay.counters().joined > joined);
    bob.send([frame("é\\\n\u{1}\u{7f}"), frame(b"\xc3("), frame("")].concat());
    let object = |rest: &str| {
        let time = str::from_utf8(TIME).unwrap();
        let name = r#""b\"�","name_hex":"6222ff""#;
        server_frame(
            TEXT,
            format!(r#"{{"time":"{time}","name":{name},"message":{rest}}}"#),
        )
    };
    let expected = [
        object("\"é\\\\\\n\\u0001\u{7f}\""),
        object("\"�(\",\"message_hex\":\"c328\""),
        object("\"\""),
    ];
    expect_timed(&mut relay, &mut alice, &expected.concat());
    // A browser member may send bytes that are no text, and an empty message.
    alice.send([masked(BINARY, b"\xff\0"), masked(TEXT, "")].concat());
    relay.expect(
        &mut bob,
        [delivery("alice", b"\xff\0"), delivery("alice", "")].concat(),
    );
    relay.expect(&mut alice, ack().repeat(2));
}

#[test]
fn history_with_its_times_comes_before_the_hello() {
    let limits = Limits {
        timed_history: 3,
        ..Limits::default()
    };
    let mut relay = TestRelay::serving(&[Dialect::Ws, Dialect::Chat10], limits.clone());
    let mut reader = enter(&mut relay, "reader", &limits);
    let mut alice = join(&mut relay, Dialect::Chat10, "alice");
    let mut live = Vec::new();
    for text in ["1", "2", "3", "4", "5"] {
        alice.send(frame(text));
        relay.until("the message", |_| {
            reader.pump().len() >= json("alice", text).len()
        });
        live.push(std::mem::take(&mut reader.received));
    }
    let mut bob = upgraded(&mut relay, Dialect::Ws);
    // What bob sends with its name is published behind the hello.
    bob.send([masked(TEXT, "bob"), masked(TEXT, "hi")].concat());
    relay.expect(&mut bob, live[2..].concat());
    relay.expect(&mut bob, [hello(&limits), ack()].concat());
    relay.expect(&mut alice, delivery("bob", "hi"));
    alice.send(frame("6"));
    expect_timed(&mut relay, &mut bob, &json("alice", "6"));
    expect_timed(
        &mut relay,
        &mut reader,
        &[json("bob", "hi"), json("alice", "6")].concat(),
    );
    // A tunnel has no times, so its history is that of `chat10`: none.
    let mut carol = enter_tunnel(&mut relay, "carol");
    alice.send(frame("7"));
    relay.expect(&mut carol, server_frame(BINARY, delivery("alice", "7")));
}

#[test]
fn message_in_fragments_with_a_ping_between_is_one_message() {
    let limits = Limits::default();
    let mut relay = TestRelay::serving(&[Dialect::Ws, Dialect::Chat10], limits.clone());
    let mut alice = enter(&mut relay, "alice", &limits);
    let mut bob = join(&mut relay, Dialect::Chat10, "bob");
    let fragments = [
        masked(0x01, "H\u{e9}".as_bytes().split_at(2).0),
        masked(PING, "there?"),
        masked(0x00, "H\u{e9}".as_bytes().split_at(2).1),
        masked(PONG, "unasked"),
        masked(0x80, "llo"),
    ]
    .concat();
    for byte in &fragments {
        alice.send([*byte]);
        relay.turn();
    }
    relay.expect(&mut alice, [server_frame(PONG, "there?"), ack()].concat());
    relay.expect(&mut bob, delivery("alice", "H\u{e9}llo"));
    for cut in 0..=fragments.len() {
        alice.send(&fragments[..cut]);
        relay.turn();
        alice.send(&fragments[cut..]);
        relay.expect(&mut bob, delivery("alice", "H\u{e9}llo"));
        let len = ack().len() + server_frame(PONG, "there?").len();
        relay.until("both answers", |_| alice.pump().len() >= len);
        // In one turn acknowledgements may come before the pong.
        let answers = std::mem::take(&mut alice.received);
        let mut answers = parse(&answers);
        answers.sort_unstable();
        assert_eq!(answers, [(TEXT, &b"{\"ack\":1}"[..]), (PONG, b"there?")]);
    }
}

#[test]
fn echo_listener_returns_messages_as_they_came() {
    let limits = Limits {
        max_message: 70_000,
        ..Limits::default()
    };
    let mut relay = TestRelay::serving(&[Dialect::WsEcho], limits);
    let mut peer = upgraded(&mut relay, Dialect::WsEcho);
    for len in [0, 1, 125, 126, 65_535, 65_536, 70_000] {
        let payload = "x".repeat(len);
        peer.send(masked(TEXT, &payload));
        relay.expect(&mut peer, server_frame(TEXT, &payload));
        let half = len / 2;
        peer.send(
            [
                masked(0x02, &payload[..half]),
                masked(0x80, &payload[half..]),
            ]
            .concat(),
        );
        relay.expect(&mut peer, server_frame(BINARY, &payload));
    }
    peer.send([masked(PING, "a"), masked(CLOSE, b"\x0f\xa0bye")].concat());
    relay.expect(
        &mut peer,
        [server_frame(PONG, "a"), server_frame(CLOSE, b"\x0f\xa0")].concat(),
    );
    assert_eq!(relay.expect_close(&mut peer), End::Fin);
}

// Ends.

/// A member of a relay with these limits sends this, and receives this frame as the last bytes.
#[track_caller]
fn assert_closes(limits: &Limits, sent: impl AsRef<[u8]>, expected: &[u8]) {
    let mut relay = browsers(limits);
    let mut peer = enter(&mut relay, "alice", limits);
    peer.send(sent);
    relay.expect(&mut peer, expected);
    assert_eq!(relay.expect_close(&mut peer), End::Fin);
    assert_eq!(relay.members(), 0);
}

#[test]
fn close_frame_is_answered_with_its_code() {
    let limits = Limits::default();
    for (sent, answered) in [
        (&b""[..], &b""[..]),
        (b"\x03\xe8", b"\x03\xe8"),
        (b"\x03\xe8good bye", b"\x03\xe8"),
        (b"\x03\xf3", b"\x03\xf3"),
        (b"\x13\x87", b"\x13\x87"),
    ] {
        assert_closes(&limits, masked(CLOSE, sent), &server_frame(CLOSE, answered));
    }
    // What comes behind it has no meaning.
    let sent = [
        masked(CLOSE, b"\x03\xe8"),
        masked(TEXT, "more"),
        masked(PING, "x"),
    ]
    .concat();
    assert_closes(&limits, sent, &server_frame(CLOSE, b"\x03\xe8"));
}

#[test]
fn frame_that_rfc_6455_forbids_closes_with_1002() {
    let limits = Limits::default();
    let with_key = |start: &[u8]| [start, b"key!"].concat();
    for sent in [
        // Unmasked.
        server_frame(TEXT, "hello"),
        server_frame(CLOSE, ""),
        // Reserved bits and opcodes.
        masked(0xc1, "x"),
        masked(0xa1, "x"),
        masked(0x91, "x"),
        masked(0x83, "x"),
        masked(0x8b, "x"),
        // Fragments out of place.
        masked(0x80, "x"),
        masked(0x00, "x"),
        [masked(0x01, "x"), masked(TEXT, "y")].concat(),
        // Control frames in fragments, or too long.
        masked(0x09, "x"),
        masked(PING, "x".repeat(126)),
        // A length of 2^63, and two that are not in their shortest form.
        with_key(&[BINARY, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        with_key(&[BINARY, 0xfe, 0, 125]),
        with_key(&[BINARY, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
        // Status codes that must not be sent.
        masked(CLOSE, b"\x03"),
        masked(CLOSE, b"\x03\xed"),
        masked(CLOSE, b"\x03\xe7"),
        masked(CLOSE, b"\x07\xd0"),
    ] {
        assert_closes(&limits, sent, &close_frame(1002, "protocol error"));
    }
}

#[test]
fn text_that_is_not_utf8_closes_with_1007() {
    let limits = Limits::default();
    for sent in [
        masked(TEXT, b"\xff"),
        masked(TEXT, b"\xed\xa0\x80"),
        masked(TEXT, b"\xc3"),
        [masked(0x01, b"\xc3"), masked(0x80, b"x")].concat(),
        masked(CLOSE, b"\x03\xe8\xff"),
    ] {
        assert_closes(&limits, sent, &close_frame(1007, "protocol error"));
    }
}

#[test]
fn message_over_the_limit_closes_with_1009_before_it_is_kept() {
    let limits = Limits {
        max_message: 4000,
        max_name: 20,
        ..Limits::default()
    };
    let large = [&[BINARY, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0][..], b"key!"].concat();
    for sent in [
        large,
        // The header is refused: of the payload nothing has come.
        masked(TEXT, "x".repeat(4001))[..8].to_vec(),
        [
            masked(0x02, "x".repeat(2000)),
            masked(0x80, "x".repeat(2001))[..8].to_vec(),
        ]
        .concat(),
    ] {
        assert_closes(&limits, sent, &close_frame(1009, "protocol error"));
    }
    let mut relay = browsers(&limits);
    let mut peer = upgraded(&mut relay, Dialect::Ws);
    peer.send(masked(TEXT, "n".repeat(21)));
    relay.expect(&mut peer, close_frame(1009, "protocol error"));
    relay.expect_close(&mut peer);
    // Fragments without an end, faster than any of them is refused.
    let mut peer = enter(&mut relay, "alice", &limits);
    let fragments = [
        masked(0x01, "x".repeat(300)),
        masked(0x00, "x".repeat(300)).repeat(2000),
    ];
    let fragments = fragments.concat();
    let mut rest = &fragments[..];
    let mut most = 0;
    relay.until("the connection to be closed", |relay| {
        if peer.end.is_none() && peer.received.is_empty() {
            let sent = peer.send_some(rest);
            rest = &rest[sent..];
        }
        most = most.max(relay.server.relay().held_bytes());
        peer.pump();
        peer.end.is_some()
    });
    assert!(most < 20_000, "{most}");
    assert_eq!(relay.counters().closed.of("protocol"), 2);
}

#[test]
fn connection_that_is_late_or_refused_closes_with_1008() {
    let soon = Duration::from_millis(100);
    let limits = Limits {
        handshake_timeout: soon,
        ..Limits::default()
    };
    let mut relay = browsers(&limits);
    let mut peer = upgraded(&mut relay, Dialect::Ws);
    relay.expect(&mut peer, close_frame(1008, "no name in time"));
    assert_eq!(relay.expect_close(&mut peer), End::Fin);
    let limits = Limits {
        message_timeout: soon,
        ..Limits::default()
    };
    for part in [&masked(TEXT, "hello")[..8], &masked(0x01, "hello"), &[TEXT]] {
        assert_closes(&limits, part, &close_frame(1008, "unfinished message"));
    }
    let limits = Limits {
        idle_timeout: Some(soon),
        ..Limits::default()
    };
    assert_closes(&limits, "", &close_frame(1008, "idle"));
    let mut relay = browsers(&Limits::default());
    relay.server.set_name_filter(|name| name != b"admin");
    let mut peer = upgraded(&mut relay, Dialect::Ws);
    peer.send(masked(TEXT, "admin"));
    relay.expect(&mut peer, close_frame(1008, "name refused"));
    assert_eq!(relay.expect_close(&mut peer), End::Fin);
}

#[test]
fn connection_without_a_place_closes_with_1013() {
    let limits = Limits {
        max_clients: 1,
        ..Limits::default()
    };
    let mut relay = browsers(&limits);
    let _alice = enter(&mut relay, "alice", &limits);
    let mut bob = upgraded(&mut relay, Dialect::Ws);
    relay.expect(&mut bob, close_frame(1013, "no place is free"));
    assert_eq!(relay.expect_close(&mut bob), End::Fin);
    assert_eq!(relay.counters().refused, 1);
    // A page is served all the same.
    let mut peer = request(&relay, Dialect::Ws, REQUEST);
    relay.expect(&mut peer, "HTTP/1.1 200 OK\r\n");
}

#[test]
fn connection_that_is_evicted_or_removed_closes_with_the_reason() {
    let limits = Limits {
        max_clients: 1,
        ..Limits::default()
    };
    let mut room = Room::serving(&[Dialect::Ws], limits, &ReplyTexts::default());
    let pending = room.connect_to(Dialect::Ws);
    room.pass(Duration::from_secs(3));
    assert!(room.relay.make_room(None, &mut room.scratch, room.now));
    room.turn();
    assert_bytes(&pending.stream.received(), &close_frame(1013, "evicted"));
    assert!(pending.stream.is_closed());
    let mut room = browsers_room();
    let alice = scripted(&mut room, "alice");
    assert!(room.relay.close(alice.id));
    room.turn();
    assert_bytes(&alice.stream.received(), &close_frame(1008, "removed"));
    assert!(alice.stream.is_closed());
}

#[test]
fn member_that_holds_too_much_memory_closes_with_1013() {
    let limits = Limits {
        max_message: 100_000,
        queue_limit: 200_000,
        soft_limit: 100_000,
        history_bytes: 10_000,
        max_memory: 900_000,
        ..Limits::default()
    };
    let mut relay = browsers(&limits);
    let part = &masked(BINARY, "x".repeat(100_000))[..90_000];
    let mut members: Vec<_> = (0..12)
        .map(|number| enter(&mut relay, &number.to_string(), &limits))
        .collect();
    for member in &mut members {
        member.send(part);
    }
    relay.until("a member to be closed", |relay| {
        relay.counters().closed.of("out_of_memory") > 0
    });
    let closed = relay.counters().closed.of("out_of_memory") as usize;
    relay.until("the members to be closed", |_| {
        members
            .iter_mut()
            .filter_map(|member| {
                member.pump();
                member.end
            })
            .count()
            >= closed
    });
    for member in members.iter().filter(|member| member.end.is_some()) {
        assert_bytes(&member.received, &close_frame(1013, "memory limit"));
    }
}

#[test]
fn slow_consumer_receives_no_close_frame_inside_a_message() {
    let limits = Limits {
        max_message: 100_000,
        queue_limit: 300_000,
        soft_limit: 100_000,
        history_bytes: 10_000,
        slow: Slow::Cut,
        ..Limits::default()
    };
    let mut relay = TestRelay::serving(&[Dialect::Ws, Dialect::Chat10], limits.clone());
    let mut alice = join(&mut relay, Dialect::Chat10, "alice");
    let mut bob = TestPeer::with_small_buffer(relay.addr_of(Dialect::Ws));
    bob.send(HANDSHAKE);
    relay.expect(&mut bob, ACCEPTED);
    bob.send(masked(TEXT, "bob"));
    relay.expect(&mut bob, hello(&limits));
    let mut expected = Vec::new();
    let mut number = 0;
    while relay.counters().closed.of("slow_consumer") == 0 {
        let text = format!("{number}{}", "x".repeat(50_000));
        alice.send(frame(&text));
        expected.extend(json("alice", &text));
        let messages = relay.counters().messages;
        relay.until("a message", |relay| relay.counters().messages > messages);
        number += 1;
    }
    relay.until("the end", |_| {
        bob.pump();
        bob.end.is_some()
    });
    assert!(bob.received.len() < expected.len());
    let received = without_times(&bob.received);
    assert_bytes(&received, &expected[..received.len()]);
}

#[test]
fn member_closed_for_memory_receives_no_close_frame_inside_a_message() {
    let limits = Limits {
        max_memory: 1000,
        ..Limits::default()
    };
    let dialects = [Dialect::Ws, Dialect::Chat10];
    let mut room = Room::serving(&dialects, limits, &ReplyTexts::default());
    let bob = scripted(&mut room, "bob");
    let alice = room.join("alice");
    bob.stream.takes(10);
    alice.stream.sends(frame("x".repeat(5000)));
    room.readable(&alice);
    room.relay.serve_ready(&mut room.scratch, room.now);
    room.relay.fan_out(room.now);
    // Its socket has room again before it is removed.
    bob.stream.takes(1000);
    room.relay.remove_closed(&mut room.scratch, room.now);
    assert!(bob.stream.is_closed());
    assert_eq!(room.relay.counters().closed.of("out_of_memory"), 1);
    assert_eq!(bob.stream.received().len(), 10);
}

#[test]
fn members_of_a_relay_that_stops_close_with_1001_behind_their_output() {
    let limits = Limits::default();
    let dialects = [Dialect::Ws, Dialect::WsEcho, Dialect::Chat10];
    let mut relay = TestRelay::serving(&dialects, limits.clone());
    let mut alice = enter(&mut relay, "alice", &limits);
    let mut carol = enter_tunnel(&mut relay, "carol");
    let mut pending = upgraded(&mut relay, Dialect::Ws);
    let mut visitor = request(&relay, Dialect::Ws, "GET / HT");
    let mut bob = join(&mut relay, Dialect::Chat10, "bob");
    bob.send(frame("last"));
    relay.turn_at_once();
    relay.server.stop("a test");
    expect_timed(&mut relay, &mut alice, &json("bob", "last"));
    relay.expect(&mut alice, close_frame(1001, "at shutdown"));
    assert_eq!(relay.expect_close(&mut alice), End::Fin);
    relay.expect(&mut carol, server_frame(BINARY, delivery("bob", "last")));
    relay.expect(&mut carol, close_frame(1001, "at shutdown"));
    assert_eq!(relay.expect_close(&mut carol), End::Fin);
    relay.expect(&mut pending, close_frame(1001, "at shutdown"));
    assert_eq!(relay.expect_close(&mut pending), End::Fin);
    relay.expect_close(&mut visitor);
}

/// A WebSocket member of a scripted room.
fn scripted(room: &mut Room, name: &str) -> Peer {
    let peer = room.connect_to(Dialect::Ws);
    peer.stream.sends(masked(TEXT, name));
    room.readable(&peer);
    room.turn();
    assert_bytes(&peer.stream.received(), &hello(&Limits::default()));
    peer
}

fn browsers_room() -> Room {
    let dialects = [Dialect::Ws, Dialect::Chat10];
    Room::serving(&dialects, Limits::default(), &ReplyTexts::default())
}

#[test]
fn nothing_is_sent_behind_a_close_frame_whatever_others_send_in_the_same_turn() {
    // Alice sends before and after bob's Close frame is read, in one turn.
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut room = browsers_room();
        let bob = scripted(&mut room, "bob");
        let alice = scripted(&mut room, "alice");
        let carol = scripted(&mut room, "carol");
        bob.stream.sends(
            [
                masked(TEXT, "bye"),
                masked(PING, "p"),
                masked(CLOSE, b"\x03\xe8"),
            ]
            .concat(),
        );
        alice.stream.sends(masked(TEXT, "from alice"));
        carol
            .stream
            .sends([masked(TEXT, "from carol"), masked(TEXT, "more")].concat());
        let peers = [&bob, &alice, &carol];
        for index in order {
            room.readable(peers[index]);
        }
        room.turn();
        room.turns();
        let before: Vec<_> = order
            .iter()
            .take_while(|&&index| index != 0)
            .map(|index| match index {
                1 => json("alice", "from alice"),
                _ => [json("carol", "from carol"), json("carol", "more")].concat(),
            })
            .collect();
        let own = [
            ack(),
            server_frame(PONG, "p"),
            server_frame(CLOSE, b"\x03\xe8"),
        ];
        let expected = [before.concat(), own.concat()].concat();
        assert_bytes(&without_times(&bob.stream.received()), &expected);
        assert!(bob.stream.is_closed());
        // In a turn after that there is nothing either.
        alice.stream.sends(masked(TEXT, "later"));
        room.readable(&alice);
        room.turn();
        assert_bytes(&bob.stream.received(), b"");
    }
}

#[test]
fn ping_of_a_lagging_member_is_answered_between_two_messages() {
    let mut room = browsers_room();
    let bob = scripted(&mut room, "bob");
    let alice = scripted(&mut room, "alice");
    bob.stream.takes(10);
    let mut expected = Vec::new();
    for (text, ping) in [("one", ""), ("two", "a"), ("three", "b"), ("four", "")] {
        alice.stream.sends(masked(TEXT, text));
        room.readable(&alice);
        room.turn();
        expected.extend(json("alice", text));
        if !ping.is_empty() {
            bob.stream.sends(masked(PING, ping));
            room.readable(&bob);
            room.turn();
            expected.extend(server_frame(PONG, ping));
        }
    }
    let mut received = bob.stream.received();
    while received.len() < expected.len() {
        assert!(bob.stream.takes(7), "there is more to write");
        room.writable(&bob);
        room.turn();
        room.turns();
        received.extend(bob.stream.received());
    }
    assert_bytes(&without_times(&received), &expected);
}

#[test]
fn close_frame_of_a_lagging_member_is_answered_behind_its_output_and_is_the_last() {
    let mut room = browsers_room();
    let bob = scripted(&mut room, "bob");
    let alice = scripted(&mut room, "alice");
    bob.stream.takes(10);
    let mut expected = Vec::new();
    let mut publish = |room: &mut Room, text: &str, is_received: bool| {
        alice.stream.sends(masked(TEXT, text));
        room.readable(&alice);
        room.turn();
        if is_received {
            expected.extend(json("alice", text));
        }
    };
    publish(&mut room, "one", true);
    publish(&mut room, "two", true);
    bob.stream.sends(masked(CLOSE, b"\x03\xe8"));
    room.readable(&bob);
    room.turn();
    publish(&mut room, "three", false);
    let mut received = bob.stream.received();
    while !bob.stream.is_closed() {
        assert!(bob.stream.takes(7), "there is more to write");
        room.writable(&bob);
        room.turn();
        room.turns();
        received.extend(bob.stream.received());
    }
    expected.extend(server_frame(CLOSE, b"\x03\xe8"));
    assert_bytes(&without_times(&received), &expected);
}

#[test]
fn member_receives_a_heartbeat_if_nothing_was_published_since_the_last_time() {
    let mut room = browsers_room();
    let alice = scripted(&mut room, "alice");
    let bob = scripted(&mut room, "bob");
    let beat = |room: &mut Room| {
        room.relay.serve_ready(&mut room.scratch, room.now);
        room.relay.publish_heartbeat();
        room.finish_turn();
    };
    let heartbeat = server_frame(PONG, "");
    beat(&mut room);
    beat(&mut room);
    assert!(bob.stream.received().ends_with(&heartbeat));
    alice
        .stream
        .sends([masked(PONG, ""), masked(TEXT, "hi")].concat());
    room.readable(&alice);
    room.turn();
    assert_bytes(&without_times(&bob.stream.received()), &json("alice", "hi"));
    beat(&mut room);
    assert_bytes(&bob.stream.received(), b"");
    for _ in 0..3 {
        beat(&mut room);
        assert_eq!(bob.stream.received(), heartbeat);
        // A heartbeat is a sign of life too.
        beat(&mut room);
        assert_bytes(&bob.stream.received(), b"");
    }
}

/// A machine whose clock a test sets, with connections that do what a script says.
struct Machine {
    clock: Rc<Cell<Instant>>,
    arrivals: Vec<Script>,
    sources: Vec<Source>,
}

impl System for Machine {
    type Stream = Script;

    fn now(&self) -> Instant {
        self.clock.get()
    }

    fn time_of_day(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn random(&mut self) -> u64 {
        0
    }

    fn poll(&mut self, _timeout: Option<Duration>) -> io::Result<()> {
        Ok(())
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        let incoming = std::iter::once(Event::Incoming(0));
        // A system may report what is not so.
        incoming.chain(self.sources.iter().map(|&source| match source {
            Source::Connection(id) => Event::Connection(id, Ready::READABLE),
            Source::Visitor(index) => Event::Visitor(index, Ready::READABLE),
            Source::Bus(index) => Event::Bus(index, Ready::READABLE),
        }))
    }

    fn has_more(&self) -> bool {
        false
    }

    fn requests(&mut self) -> Vec<Request> {
        Vec::new()
    }

    fn accept(&mut self, _listener: usize) -> io::Result<(Script, SocketAddr)> {
        let stream = self.arrivals.pop().ok_or(ErrorKind::WouldBlock)?;
        Ok((stream, SocketAddr::from(([192, 0, 2, 1], 4000))))
    }

    fn watch(&mut self, _stream: &mut Script, source: Source) -> io::Result<()> {
        self.sources.push(source);
        Ok(())
    }

    fn clear_notsent_lowat(&mut self, _stream: &Script) {}

    fn shutdown_write(&mut self, _stream: &Script) {}

    fn close_listener(&mut self, _listener: usize) {}

    fn open_reserve(&mut self) -> bool {
        true
    }

    fn close_reserve(&mut self) {}
}

#[test]
fn silence_is_never_longer_than_the_heartbeat_interval() {
    const INTERVAL: Duration = Duration::from_secs(60);
    let second = Duration::from_secs(1);
    // When in the interval the last message comes must not matter.
    for after in [1, 15, 29, 31, 45, 59, 61, 89, 119] {
        let start = Instant::now();
        let clock = Rc::new(Cell::new(start));
        let streams = [Script::default(), Script::default()];
        let machine = Machine {
            clock: Rc::clone(&clock),
            arrivals: streams.to_vec(),
            sources: Vec::new(),
        };
        let mut config = browsers_config();
        config.heartbeat = Some(INTERVAL);
        let mut server = Server::on(machine, &config).unwrap();
        let [alice, bob] = &streams;
        alice.sends(HANDSHAKE);
        bob.sends(HANDSHAKE);
        for _ in 0..3 {
            server.turn(None).unwrap();
        }
        alice.sends(masked(TEXT, "alice"));
        bob.sends(masked(TEXT, "bob"));
        server.turn(None).unwrap();
        assert_eq!(server.relay().members().total(), 2);
        bob.received();
        let mut silent_since = start;
        for number in 1..=600 {
            clock.set(start + number * second);
            if number == after {
                alice.sends(masked(TEXT, "hi"));
            }
            server.turn(None).unwrap();
            if !bob.received().is_empty() {
                silent_since = clock.get();
            }
            let silence = clock.get() - silent_since;
            assert!(
                silence <= INTERVAL,
                "{silence:?} at {number}, message at {after}"
            );
        }
    }
}

#[test]
fn silent_member_receives_heartbeats() {
    let mut config = browsers_config();
    config.heartbeat = Some(Duration::from_millis(50));
    let mut relay = TestRelay::with_config(&config);
    let mut alice = enter(&mut relay, "alice", &config.limits);
    relay.expect(&mut alice, server_frame(PONG, "").repeat(3));
    config.heartbeat = None;
    let mut relay = TestRelay::with_config(&config);
    let mut alice = enter(&mut relay, "alice", &config.limits);
    alice.send([masked(PONG, ""), masked(TEXT, "hi")].concat());
    relay.expect(&mut alice, ack());
}

#[test]
fn member_that_pings_without_reading_is_bounded_and_the_room_goes_on() {
    let limits = Limits {
        max_message: 10_000,
        queue_limit: 300_000,
        soft_limit: 100_000,
        history_bytes: 10_000,
        slow_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let mut relay = TestRelay::serving(&[Dialect::Ws, Dialect::Chat10], limits.clone());
    let mut bob = join(&mut relay, Dialect::Chat10, "bob");
    let mut alice = join(&mut relay, Dialect::Chat10, "alice");
    let mut flood = TestPeer::with_small_buffer(relay.addr_of(Dialect::Ws));
    flood.send(HANDSHAKE);
    relay.expect(&mut flood, ACCEPTED);
    flood.send(masked(TEXT, "flood"));
    relay.expect(&mut flood, hello(&limits));
    let pings = masked(PING, "p".repeat(125)).repeat(1000);
    let (mut at, mut number, mut most) = (0, 0, 0);
    relay.until("the member to be closed", |relay| {
        // An error says that it was closed.
        at += std::io::Write::write(&mut &flood.stream, &pings[at..]).unwrap_or(0);
        at %= pings.len();
        if bob.pump().len() == delivery("alice", "1234567890").len() * number {
            number += 1;
            alice.send(frame("1234567890"));
        }
        most = most.max(relay.server.relay().held_bytes());
        relay.members() == 2
    });
    assert!(most < 600_000, "{most}");
    relay.expect(&mut bob, delivery("alice", "1234567890").repeat(number));
    alice.send(frame("after it"));
    relay.expect(&mut bob, delivery("alice", "after it"));
}

/// What needs the program: its flags, its log and its memory.
mod program {
    use super::*;
    use crate::common::process::{Relay, wait_for};
    use std::io::{Read, Write};

    /// A connection that blocks, and has sent this.
    fn request(relay: &Relay, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(relay.addr_of("ws")).unwrap();
        stream
            .set_read_timeout(Some(crate::common::PATIENCE))
            .unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    #[track_caller]
    fn expect(stream: &mut TcpStream, expected: impl AsRef<[u8]>) {
        let mut received = vec![0; expected.as_ref().len()];
        stream.read_exact(&mut received).unwrap();
        assert_bytes(&received, expected.as_ref());
    }

    #[track_caller]
    fn expect_end(stream: &mut TcpStream) {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_bytes(&rest, b"");
    }

    #[test]
    fn refused_host_and_origin_are_logged_with_the_flag_that_allows_them() {
        let foreign = changed(HANDSHAKE, "localhost:1235", "chat.example");
        let foreign_page = changed(
            &foreign,
            "\r\n\r\n",
            "\r\nOrigin: https://other.example\r\n\r\n",
        );
        let mut relay = Relay::serving(&["ws"], &[]);
        let mut peer = request(&relay, &foreign);
        expect(&mut peer, response("403 Forbidden", "", ""));
        expect_end(&mut peer);
        let line = relay.log_line("refused: 127.0.0.1:");
        assert!(
            line.contains("chat.example") && line.ends_with("(allow it: --ws-host)"),
            "{line}"
        );
        let mut relay = Relay::serving(&["ws"], &["--ws-host", "chat.example"]);
        let mut peer = request(&relay, &foreign);
        expect(&mut peer, ACCEPTED);
        let mut peer = request(&relay, &foreign_page);
        expect(&mut peer, response("403 Forbidden", "", ""));
        expect_end(&mut peer);
        let line = relay.log_line("refused: 127.0.0.1:");
        assert!(line.contains("https://other.example"), "{line}");
        assert!(line.ends_with("(allow it: --ws-origin)"), "{line}");
        let relay = Relay::serving(
            &["ws"],
            &[
                "--ws-host",
                "chat.example",
                "--ws-origin",
                "https://other.example",
            ],
        );
        let mut peer = request(&relay, &foreign_page);
        expect(&mut peer, ACCEPTED);
    }

    #[test]
    fn connection_that_a_browser_never_uses_leaves_no_line_in_the_log() {
        let mut relay = Relay::serving(&["ws"], &["--handshake-timeout", "200ms"]);
        let lines = relay.lines.len();
        let mut unused = request(&relay, "");
        expect_end(&mut unused);
        relay.signal("TERM");
        let (code, log) = relay.wait();
        assert_eq!((code, relay.lines.len()), (0, lines));
        let mut rest = log.lines().filter(|line| !line.contains("open http://"));
        assert!(rest.next().unwrap().contains("stopping"), "{log}");
    }

    #[test]
    fn members_of_a_stopped_program_close_with_1001() {
        let mut relay = Relay::serving(&["ws"], &[]);
        let mut peer = request(&relay, HANDSHAKE);
        expect(&mut peer, ACCEPTED);
        peer.write_all(&masked(TEXT, "alice")).unwrap();
        expect(&mut peer, hello(&Limits::default()));
        relay.signal("TERM");
        expect(&mut peer, close_frame(1001, "at shutdown"));
        expect_end(&mut peer);
        assert_eq!(relay.wait().0, 0);
    }

    /// How much memory a process has, in bytes.
    #[cfg(target_os = "linux")]
    fn resident(pid: u32) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kilobytes = line.split_whitespace().nth(1).unwrap();
        kilobytes.parse::<usize>().unwrap() * 1024
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn thousand_half_requests_keep_no_member_out_and_take_little_memory() {
        const MOST: usize = 256;
        rlimit::increase_nofile_limit(4096).unwrap();
        let relay = Relay::serving(&["ws"], &["--handshake-timeout", "10min"]);
        let half = format!("{}X: {}", &REQUEST[..REQUEST.len() - 2], "x".repeat(8000));
        let before = resident(relay.pid());
        let mut halves = Vec::new();
        for number in 0..1000 {
            halves.push(request(&relay, &half));
            if number % 100 == 50 {
                let mut honest = request(&relay, HANDSHAKE);
                expect(&mut honest, ACCEPTED);
                honest.write_all(&masked(TEXT, "honest")).unwrap();
                expect(&mut honest, hello(&Limits::default()));
            }
        }
        // The last of them are still waited for, all others were closed.
        let mut closed = Vec::new();
        for half in &halves {
            half.set_nonblocking(true).unwrap();
        }
        wait_for("all but the last to be closed", || {
            closed = halves
                .iter_mut()
                .map(|half| match half.read(&mut [0; 16]) {
                    Ok(read) => {
                        assert_eq!(read, 0, "nothing is answered");
                        true
                    }
                    Err(error) => error.kind() != ErrorKind::WouldBlock,
                })
                .collect();
            closed.iter().filter(|&&is_closed| is_closed).count() >= 1000 - MOST
        });
        assert!(closed[..1000 - MOST].iter().all(|&is_closed| is_closed));
        assert!(closed[1000 - MOST..].iter().all(|&is_closed| !is_closed));
        let grown = resident(relay.pid()).saturating_sub(before);
        assert!(grown < 2 * MOST * 16 * 1024, "{grown}");
        let last = halves.last_mut().unwrap();
        last.set_nonblocking(false).unwrap();
        last.write_all(b"\r\n\r\n").unwrap();
        expect(last, "HTTP/1.1 200 OK\r\n");
    }
}

#[test]
fn history_for_browsers_begins_with_the_first_of_them_unless_it_was_asked_for() {
    for (history, backlog) in [(0, 0), (50, 1)] {
        let limits = Limits {
            history,
            ..Limits::default()
        };
        let dialects = [Dialect::Ws, Dialect::Chat10];
        let mut room = Room::serving(&dialects, limits, &ReplyTexts::default());
        let (alice, _bob) = (room.join("alice"), room.join("bob"));
        room.say(&alice, "before");
        room.turn();
        assert_eq!(room.relay.backlog_bytes().min(1), backlog, "{history}");
        let carol = room.connect_to(Dialect::Ws);
        carol.stream.sends(masked(TEXT, "carol"));
        room.readable(&carol);
        room.turns();
        let first = without_times(&carol.stream.received());
        assert_eq!(first.starts_with(&hello(&Limits::default())), history == 0);
        room.say(&alice, "after");
        room.turns();
        assert!(room.relay.backlog_bytes() > 0, "{history}");
    }
}
