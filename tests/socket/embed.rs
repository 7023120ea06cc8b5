//! A program around the server, over real sockets: it publishes, receives what is published and which
//! members come and go, refuses names, closes members, and stops a server that waits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use chatloop::relay::{CloseReason, ConnId, Limits, RoomEvent};
use chatloop::server::{Config, Endpoint, Server, Turn};
use chatloop::wire::{Dialect, FrameError, encode_frame};

/// A server with its events recorded.
fn server() -> Server {
    let endpoint = Endpoint {
        dialect: Dialect::Chat10,
        addr: "127.0.0.1:0".parse().unwrap(),
    };
    let mut config = Config::new(vec![endpoint]);
    config.limits = Limits {
        max_name: 10,
        max_message: 100,
        ..Limits::default()
    };
    let mut server = Server::bind(&config).unwrap();
    server.record_events();
    server
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_frame(payload, &mut bytes);
    bytes
}

/// A peer that has sent these frames.
fn connect(server: &Server, frames: &[&[u8]]) -> TcpStream {
    let mut peer = TcpStream::connect(server.local_addrs().unwrap()[0]).unwrap();
    // So that a failure ends.
    peer.set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    for payload in frames {
        peer.write_all(&frame(payload)).unwrap();
    }
    peer
}

/// Makes turns until an event is the one that is looked for. Returns all events up to that turn.
fn until(server: &mut Server, is_found: impl Fn(&RoomEvent) -> bool) -> Vec<RoomEvent> {
    let mut events = Vec::new();
    while !events.iter().any(&is_found) {
        assert_eq!(server.turn(None).unwrap(), Turn::Running);
        events.extend(server.drain_events());
    }
    events
}

/// A member of this name.
fn join(server: &mut Server, name: &[u8]) -> (TcpStream, ConnId) {
    let peer = connect(server, &[name]);
    let events = until(server, |event| matches!(event, RoomEvent::Joined { .. }));
    let id = events.iter().find_map(|event| match event {
        RoomEvent::Joined { member, .. } => Some(member.id),
        _ => None,
    });
    (peer, id.unwrap())
}

fn assert_receives(peer: &mut TcpStream, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    peer.read_exact(&mut received).unwrap();
    assert_eq!(
        received.escape_ascii().to_string(),
        expected.escape_ascii().to_string()
    );
}

fn is_left(event: &RoomEvent) -> bool {
    matches!(event, RoomEvent::Left { .. })
}

#[test]
fn message_of_the_program_reaches_every_member_in_the_next_turn() {
    let mut server = server();
    let (mut alice, _) = join(&mut server, b"alice");
    let (mut bob, _) = join(&mut server, b"bob");
    server.publish(b"host", b"good evening").unwrap();
    // It does not wait, though nothing happens.
    server.turn(None).unwrap();
    let expected = [frame(b"host"), frame(b"good evening")].concat();
    assert_receives(&mut alice, &expected);
    assert_receives(&mut bob, &expected);
    assert_eq!(server.relay().counters().messages, 1);
}

#[test]
fn message_of_the_program_over_a_limit_is_an_error_and_not_published() {
    let mut server = server();
    let (mut alice, _) = join(&mut server, b"alice");
    let error = server.publish(&[b'n'; 11], b"").unwrap_err();
    assert_eq!(error, FrameError::TooLong { len: 11, max: 10 });
    let error = server.publish(b"host", &[b'm'; 101]).unwrap_err();
    assert_eq!(error, FrameError::TooLong { len: 101, max: 100 });
    server.publish(&[b'n'; 10], &[b'm'; 100]).unwrap();
    server.turn(None).unwrap();
    assert_receives(
        &mut alice,
        &[frame(&[b'n'; 10]), frame(&[b'm'; 100])].concat(),
    );
}

#[test]
fn events_are_what_happened_in_order_with_each_message() {
    let mut server = server();
    let alice = connect(&server, &[b"alice", b"one", b"", b"three"]);
    drop(alice);
    let mut events = until(&mut server, is_left);
    server.publish(b"host", b"bye").unwrap();
    events.extend(server.drain_events());
    assert_eq!(server.drain_events(), [], "they are taken once");
    let story: Vec<_> = events
        .iter()
        .map(|event| match event {
            RoomEvent::Accepted(_) => "accepted".to_owned(),
            RoomEvent::Joined { member, members } => {
                let name = member.name.as_deref().unwrap_or_default();
                format!("joined {} {}", name.escape_ascii(), members.total())
            }
            RoomEvent::Published {
                sender,
                name,
                message,
            } => {
                let by = if sender.is_some() {
                    "member"
                } else {
                    "program"
                };
                format!("{by} {} {}", name.escape_ascii(), message.escape_ascii())
            }
            RoomEvent::Left { reason, .. } => format!("left {reason}"),
            other => format!("{other:?}"),
        })
        .collect();
    let expected = [
        "accepted",
        "joined alice 1",
        "member alice one",
        "member alice ",
        "member alice three",
        "left closed the connection",
        "program host bye",
    ];
    assert_eq!(story, expected);
}

#[test]
fn without_a_program_that_asks_no_event_is_kept() {
    let endpoint = Endpoint {
        dialect: Dialect::Chat10,
        addr: "127.0.0.1:0".parse().unwrap(),
    };
    let mut server = Server::bind(&Config::new(vec![endpoint])).unwrap();
    let _alice = connect(&server, &[b"alice", b"hello"]);
    while server.relay().counters().messages == 0 {
        server.turn(None).unwrap();
    }
    assert_eq!(server.drain_events(), []);
}

#[test]
fn closed_member_is_gone_after_a_turn_and_the_others_are_not() {
    let mut server = server();
    let (mut alice, id) = join(&mut server, b"alice");
    let (mut bob, _) = join(&mut server, b"bob");
    assert!(server.close(id));
    let events = until(&mut server, is_left);
    let reasons: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            RoomEvent::Left { peer, reason, .. } => Some((peer.id, reason)),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [(id, &CloseReason::Removed)]);
    assert_eq!(alice.read(&mut [0; 1]).unwrap(), 0);
    assert!(!server.close(id), "it is gone");
    server.publish(b"host", b"still here").unwrap();
    server.turn(None).unwrap();
    assert_receives(&mut bob, &[frame(b"host"), frame(b"still here")].concat());
}

#[test]
fn connection_with_a_refused_name_is_closed_and_its_message_is_not_relayed() {
    let mut server = server();
    server.set_name_filter(|name| name != b"host");
    let (mut alice, _) = join(&mut server, b"alice");
    let mut impostor = connect(&server, &[b"host", b"send me money"]);
    let events = until(&mut server, is_left);
    assert!(events.iter().any(|event| matches!(
        event,
        RoomEvent::Left {
            reason: CloseReason::NameRefused,
            ..
        }
    )));
    assert_eq!(impostor.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(server.relay().members().total(), 1);
    server.publish(b"host", b"hello").unwrap();
    server.turn(None).unwrap();
    assert_receives(&mut alice, &[frame(b"host"), frame(b"hello")].concat());
}

#[test]
fn handle_wakes_and_stops_a_server_that_waits_in_another_thread() {
    let mut server = server();
    let handle = server.handle().unwrap();
    let (turns, each_turn) = std::sync::mpsc::channel();
    let running = thread::spawn(move || {
        server
            .run_with(|_| {
                // The receiver may be gone after the last turn.
                let _ = turns.send(());
            })
            .unwrap();
        server.is_stopping()
    });
    handle.wake().unwrap();
    each_turn.recv().unwrap();
    handle.clone().stop().unwrap();
    assert!(running.join().unwrap());
}
