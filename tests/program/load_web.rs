//! The load tool through WebSockets.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::common::at_once;
use crate::common::chat_server::ScriptedServer;
use crate::common::load::{assert_fits_schema, load, measure};
use crate::common::process::{Relay, run};
use crate::common::web_server::WebPeer;
use crate::load::{Broker, SCENARIOS, assert_sound};

#[test]
fn relay_is_measured_as_browsers_use_it_and_through_a_tunnel() {
    let relay = Relay::serving(&["chat10", "ws"], &[]);
    for protocol in ["ws", "ws-chat10"] {
        let target = format!("{protocol}://{}", relay.addr_of("ws"));
        for scenario in SCENARIOS {
            let flags = ["--members", "6", "--target", &target];
            let measured = measure(&[scenario, &flags].concat());
            assert_sound(&measured);
            assert_fits_schema(&measured.report);
            assert_eq!(measured.report["protocol"], protocol);
            // The history has messages of the measurements before.
            let warnings = measured.warnings_about_the_server();
            let strangers = warnings
                .iter()
                .filter(|text| text.contains("other clients"));
            assert_eq!(strangers.count(), 0, "{warnings:?}");
            if scenario[0] == "idle" {
                assert_eq!(measured.report["deliveries"], 5);
            }
        }
    }
}

#[test]
fn relay_is_soaked_through_a_tunnel() {
    let relay = Relay::serving(&["chat10", "ws"], &[]);
    let target = format!("ws-chat10://{}", relay.addr_of("ws"));
    let plan = [
        "soak",
        "--members",
        "10",
        "--faults",
        "10",
        "--rate",
        "200",
        "--churn",
        "20",
        "--for",
        "2s",
        "--seed",
        "7",
        "--target",
        &target,
    ];
    let measured = measure(&plan);
    assert_sound(&measured);
    assert_fits_schema(&measured.report);
    assert!(measured.number("/deliveries") > 0.0);
}

#[test]
fn mqtt_broker_is_measured_through_web_sockets() {
    let mut files = Vec::new();
    let flags = |port: &str| {
        let path = std::env::temp_dir().join(format!("chatloop-test-mosquitto-{port}"));
        // Some versions do not start with a listener for WebSocket alone.
        let socket = path.with_extension("sock");
        let config = format!(
            "listener 0 {}\nlistener {port}\nprotocol websockets\nsocket_domain ipv4\n\
             allow_anonymous true\n",
            socket.display()
        );
        fs::write(&path, config).unwrap();
        vec!["-c".to_owned(), path.to_str().unwrap().to_owned()]
    };
    if let Some(broker) = Broker::start("mosquitto", flags) {
        files.push(format!("chatloop-test-mosquitto-{}", broker.addr.port()));
        broker.is_measured_as("ws-mqtt");
    }
    for file in files {
        let path = std::env::temp_dir().join(file);
        let _ = fs::remove_file(path.with_extension("sock"));
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn nats_is_measured_through_web_sockets() {
    let path = |port: &str| std::env::temp_dir().join(format!("chatloop-test-nats-{port}"));
    let flags = |port: &str| {
        let config =
            format!("port: -1\nwebsocket {{ listen: \"127.0.0.1:{port}\", no_tls: true }}\n");
        fs::write(path(port), config).unwrap();
        vec!["-c".to_owned(), path(port).to_str().unwrap().to_owned()]
    };
    if let Some(broker) = Broker::start("nats-server", flags) {
        broker.is_measured_as("ws-nats");
        fs::remove_file(path(&broker.addr.port().to_string())).unwrap();
    }
}

#[test]
fn server_without_a_web_socket_is_one_line_and_an_exit_code() {
    let relay = Relay::start(&[]);
    let target = format!("ws://{}", relay.addr);
    let (code, out, err) = run(&mut load(&["idle", "--members", "2", "--target", &target]));
    assert_eq!((code, &out[..], err.lines().count()), (4, "", 1), "{err}");
    let web = Relay::serving(&["ws"], &[]);
    let target = format!("ws-mqtt://{}", web.addr_of("ws"));
    let (code, out, err) = run(&mut load(&["idle", "--members", "2", "--target", &target]));
    assert_eq!((code, &out[..]), (4, ""), "{err}");
    let says = ": the server does not accept the WebSocket; is it its port for browsers, and does it have \
                that subprotocol there?\n";
    assert!(err.ends_with(says), "{err}");
}

#[test]
fn ping_is_answered() {
    let server = ScriptedServer::new();
    let target = format!("ws://{}", server.addr());
    let mut command = load(&[
        "idle",
        "--members",
        "2",
        "--for",
        "30s",
        "--target",
        &target,
    ]);
    let mut child = command.spawn().unwrap();
    let mut peers: Vec<_> = (0..2).map(|_| WebPeer::accept(&server)).collect();
    for peer in &mut peers {
        peer.stream().write_all(b"\x89\x00").unwrap();
        // The name, and the answer.
        let mut received = [0; 16 + 6];
        peer.stream().read_exact(&mut received).unwrap();
        assert_eq!(received[..2], [0x81, 0x8a]);
        assert_eq!(received[16..18], [0x8a, 0x80]);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What becomes of a frame on its way to a member.
#[derive(Clone, Copy, Debug)]
enum Act {
    Keep,
    Drop,
    Repeat,
    /// A byte of it is changed, so far from its end.
    Change(usize),
}

/// The message that a proxy changes, counted from zero.
const CHANGED: usize = 5;

/// A proxy before a relay, which does this to one message of its third connection.
fn proxy(relay: SocketAddr, act: Act) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (connection, client) in listener.incoming().enumerate() {
            let client = client.unwrap();
            let server = TcpStream::connect(relay).unwrap();
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
            }
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || copy_request(from, to));
            let act = if connection == 2 { act } else { Act::Keep };
            thread::spawn(move || copy_frames(&server, &client, act));
        }
    });
    addr
}

/// Copies what a client sends. Its request names the proxy, and so may any.
fn copy_request(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

/// Copies what a relay sends, and does this to one message.
fn copy_frames(mut from: &TcpStream, mut to: &TcpStream, change: Act) {
    let mut read = |bytes: &mut [u8]| match from.read_exact(bytes) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => false,
        Err(_) => false,
    };
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && read(&mut byte) {
        head.push(byte[0]);
    }
    let _ = to.write_all(&head);
    let mut nth = 0;
    let mut header = [0; 2];
    while read(&mut header) {
        let mut long = vec![0; if header[1] == 126 { 2 } else { 0 }];
        if !read(&mut long) {
            break;
        }
        let len = long
            .iter()
            .fold(0, |len, &byte| len << 8 | usize::from(byte));
        let len = if header[1] == 126 {
            len
        } else {
            header[1].into()
        };
        let mut payload = vec![0; len];
        if !read(&mut payload) {
            break;
        }
        let mut act = Act::Keep;
        if payload.starts_with(b"{\"time\"") {
            if nth == CHANGED {
                act = change;
            }
            nth += 1;
        }
        if let Act::Change(from_end) = act {
            let at = payload.len() - from_end;
            payload[at] ^= 1;
        }
        let frame = [&header[..], &long, &payload].concat();
        let sent = match act {
            Act::Drop => Ok(()),
            Act::Repeat => to.write_all(&frame.repeat(2)),
            Act::Keep | Act::Change(_) => to.write_all(&frame),
        };
        if sent.is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn message_that_a_proxy_drops_repeats_or_changes_is_reported() {
    let relay = Relay::serving(&["ws"], &["--history", "0"]);
    let acts: [(Act, &[&str]); 6] = [
        (Act::Keep, &[]),
        (Act::Drop, &["lost 1"]),
        (Act::Repeat, &["duplicated 1"]),
        (Act::Change(3), &["corrupt 1"]),
        // The quote before the text, which has 64 bytes.
        (Act::Change(64 + 3), &["lost 1", "corrupt 1"]),
        // The brace at the end.
        (Act::Change(1), &["cut 1", "cuts/garbled 1"]),
    ];
    let server = relay.addr_of("ws");
    at_once(acts, |(act, faults)| {
        let addr = proxy(server, act);
        let target = format!("ws://{addr}");
        let plan = [
            "fanout",
            "--members",
            "3",
            "--for",
            "800ms",
            "--warmup",
            "10ms",
            "--in-flight",
            "1",
            "--target",
            &target,
        ];
        let measured = measure(&plan);
        let found = measured.faults();
        let is_as_expected = faults
            .iter()
            .all(|fault| found.iter().any(|one| one == fault));
        let is_sound = found.is_empty() == faults.is_empty();
        assert!(
            is_as_expected && is_sound,
            "{found:?}, expected {faults:?}\n{:#}",
            measured.report
        );
    });
}
