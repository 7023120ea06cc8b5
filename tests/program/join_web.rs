//! `chatloop join ws://…`: the client over WebSocket.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use socket2::{Domain, Socket, Type};

use crate::common::chat_server::ScriptedServer;
use crate::common::process::{Relay, chatloop, exit_code, run};
use crate::common::terminal::{Ended, Terminal};
use crate::common::web_server::{ACK, HELLO, WebPeer, message, read_request, response};
use crate::common::{assert_bytes, delivery, frame};
use crate::join_pipe::{Piped, wait_until_asleep};

const TIME: &str = "2026-11-27T23:50:01.123Z";
const LATER: &str = "2026-11-28T00:10:00.000Z";

fn join(addr: SocketAddr, name: &str, more: &[&str]) -> Command {
    let server = format!("ws://{addr}");
    chatloop(&[&["join", &server, "--name", name], more].concat())
}

/// The exit code of a client that ends by itself, and its notices.
#[track_caller]
pub(crate) fn end_of(mut client: Piped) -> (i32, String) {
    let mut notices = String::new();
    let mut stderr = client.child.stderr.take().unwrap();
    stderr.read_to_string(&mut notices).unwrap();
    (exit_code(&mut client.child), notices)
}

/// A relay for both kinds of members.
fn relay(args: &[&str]) -> Relay {
    Relay::serving(&["chat10", "ws"], args)
}

/// Reads exactly this.
#[track_caller]
fn expect(stream: &mut impl Read, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).unwrap();
    assert_bytes(&received, expected);
}

/// All of Unicode in lines, and lines that are not text, empty, or as long as a message may be.
pub(crate) fn lines() -> Vec<Vec<u8>> {
    let all: Vec<char> = ('\0'..=char::MAX).filter(|&char| char != '\n').collect();
    let unicode = all.chunks(10_000).map(String::from_iter);
    let mut lines: Vec<_> = unicode.map(String::into_bytes).collect();
    let bytes = (0..=255).filter(|&byte| byte != b'\n');
    lines.extend([
        Vec::new(),
        bytes.collect(),
        vec![b'x'; 1 << 20],
        vec![0xff; 1 << 20],
        vec![b' '; 125],
        vec![b'"'; 126],
        vec![b'\\'; 65_535],
        vec![b'/'; 65_536],
    ]);
    lines
}

// Beside other members.

#[test]
fn members_over_web_socket_and_chat10_exchange_every_byte() {
    let mut relay = relay(&[]);
    let mut other = relay.join("other");
    let mut client = Piped::start(&mut join(relay.addr_of("ws"), "me", &["--raw", "--stay"]));
    relay.log_line("joined: \"me\"");
    for line in lines() {
        client.say([&line[..], b"\n"].concat());
        expect(&mut other, &delivery("me", &line));
        other.write_all(&frame(&line)).unwrap();
        expect(&mut client.output, &[b"other: ", &line[..], b"\n"].concat());
    }
    // A message may have line ends, where its sender's protocol lets it.
    other.write_all(&frame("two\nlines\r\n")).unwrap();
    expect(&mut client.output, b"other: two\nlines\r\n\n");
}

#[test]
fn names_of_any_bytes_reach_both_kinds_of_members() {
    let mut relay = relay(&[]);
    let mut other = relay.join("other");
    let name = "Zoë \"\\ 👋 ";
    let mut client = Piped::start(&mut join(relay.addr_of("ws"), name, &["--raw", "--stay"]));
    relay.log_line("joined: ");
    client.say("hi\n");
    expect(&mut other, &delivery(name, "hi"));
    let mut stranger = relay.connect();
    stranger.write_all(&frame(b"\xff\0\n")).unwrap();
    relay.log_line("joined: ");
    stranger.write_all(&frame(b"hi")).unwrap();
    expect(&mut client.output, b"\xff\0\n: hi\n");
}

#[test]
fn long_input_is_delivered_in_order_and_each_line_is_confirmed() {
    let mut relay = relay(&[]);
    let mut other = relay.join("other");
    let lines: Vec<_> = (0..50_000).map(|line| format!("line {line}\n")).collect();
    let mut client = Piped::start(&mut join(relay.addr_of("ws"), "me", &[]));
    let sender = std::thread::spawn(move || {
        client.say(lines.concat());
        client.finish()
    });
    for line in 0..50_000 {
        expect(&mut other, &delivery("me", format!("line {line}")));
    }
    let (code, notices) = sender.join().unwrap();
    assert_eq!(code, 0, "{notices}");
    let line = relay.log_line("left: \"me\"");
    assert!(line.contains("sent its farewell"), "{line}");
}

#[test]
fn lines_that_were_typed_while_the_relay_was_away_are_sent_to_the_next_one() {
    // It keeps the port from being given to another program while no relay listens there.
    let holder = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    holder.set_reuse_address(true).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    holder.bind(&any.into()).unwrap();
    let addr = holder.local_addr().unwrap().as_socket().unwrap();
    let listen = format!("ws://{addr}");
    let start = || {
        let more = format!("--listen={listen}");
        Relay::start(&[&more])
    };
    let mut relay = start();
    let mut command = join(addr, "me", &["--no-time"]);
    command.env("XTERM_VERSION", "an emulator");
    let mut terminal = Terminal::run(&command, 24, 100);
    relay.log_line("joined: \"me\"");
    let mut other = relay.join("other");
    terminal.wait_for_text("me> ");
    terminal.send("before\r");
    expect(&mut other, &delivery("me", "before"));
    // It comes after the confirmation.
    other.write_all(&frame("hi")).unwrap();
    terminal.wait_for_text("other: hi");
    relay.signal("KILL");
    terminal.wait_for_text("connecting again in");
    terminal.send("one\rtwo\rhalf");
    terminal.wait_for_text("me> half");
    drop(relay);
    let mut relay = start();
    let mut other = relay.join("other");
    expect(
        &mut other,
        &[delivery("me", "one"), delivery("me", "two")].concat(),
    );
    terminal.send(" and half\r");
    expect(&mut other, &delivery("me", "half and half"));
    other.write_all(&frame("welcome back")).unwrap();
    terminal.wait_for_text("other: welcome back");
    let shown = terminal.history().join("\n");
    assert!(!shown.contains("may not have arrived"), "{shown}");
    assert_eq!(shown.matches("me: one").count(), 1, "{shown}");
}

#[test]
fn member_of_a_stopped_relay_is_notified() {
    let mut relay = relay(&[]);
    let addr = relay.addr_of("ws");
    let client = Piped::start(&mut join(addr, "me", &["--no-reconnect"]));
    relay.log_line("joined: \"me\"");
    relay.signal("TERM");
    let (code, notices) = end_of(client);
    let end = "chatloop: the server closed the connection (1001: at shutdown)\n";
    assert!(notices.ends_with(end), "{notices}");
    assert_eq!(code, 5);
}

#[test]
fn refusal_is_reported_with_the_reason_of_the_relay() {
    let mut relay = relay(&["--max-name=3", "--max-clients=1"]);
    let client = Piped::start(&mut join(relay.addr_of("ws"), "alice", &[]));
    let (code, notices) = end_of(client);
    let end = "chatloop: the server closed the connection (1009: protocol error); the name is longer than \
               it accepts\n";
    assert!(notices.ends_with(end), "{notices}");
    assert_eq!(code, 5);
    let _first = Piped::start(&mut join(relay.addr_of("ws"), "me", &["--stay"]));
    relay.log_line("joined: \"me\"");
    let mut second = join(relay.addr_of("ws"), "bob", &["--no-reconnect"]);
    let (code, notices) = end_of(Piped::start(&mut second));
    assert_eq!(code, 5, "{notices}");
    assert!(notices.contains("(1013: no place is free)"), "{notices}");
}

#[test]
fn message_over_the_relays_limit_is_not_sent_and_the_next_one_is() {
    let mut relay = relay(&["--max-message=1KiB"]);
    let mut other = relay.join("other");
    let long = |len| "x".repeat(len) + "\n";
    let mut client = Piped::start(&mut join(relay.addr_of("ws"), "me", &[]));
    client.say(long(1025) + &long(1024) + "after it\n" + &long(100_000));
    let (code, notices) = client.finish();
    expect(&mut other, &delivery("me", "x".repeat(1024)));
    expect(&mut other, &delivery("me", "after it"));
    assert_eq!(code, 5, "{notices}");
    for line in [1, 4] {
        let not_sent = format!(
            "chatloop: line {line} not sent, since the server accepts 1024 bytes at most\n"
        );
        assert_eq!(notices.matches(&not_sent).count(), 1, "{notices}");
    }
    assert!(
        notices.ends_with("chatloop: 2 messages not sent\n"),
        "{notices}"
    );
}

// The opening handshake.

#[test]
fn answer_that_is_no_web_socket_is_one_line_and_an_exit_code() {
    let server = ScriptedServer::new();
    let addr = server.addr();
    for (answer, code, says) in [
        (
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            6,
            "the server answered 403 Forbidden: a relay accepts its IP addresses, localhost, and the names \
             that its --ws-host has",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            6,
            "the server answered 200 OK: it has a page at this address, and no WebSocket",
        ),
        (
            "HTTP/1.1 404 Not Found\r\n\r\n",
            6,
            "the server answered 404 Not Found: there is nothing at this path",
        ),
        (
            "SSH-2.0-OpenSSH_9.2p1\r\n",
            6,
            "this port does not speak WebSocket; it says \"SSH-2.0-OpenSSH_9.2p1\\r\\n\"",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            6,
            "the server does not accept the WebSocket: its response has not the hash of our key",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
            4,
            "the server answered 502 Bad Gateway",
        ),
        (
            "",
            4,
            "the server closed the connection without an answer to the WebSocket request; is it a port for \
             browsers, and is there room?",
        ),
        (
            "HTTP/1.1 10",
            4,
            "the server closed the connection in the middle of its answer to the WebSocket request",
        ),
    ] {
        let client = Piped::start(&mut join(addr, "me", &[]));
        let mut peer = server.accept();
        read_request(&mut peer);
        peer.send_raw(answer);
        peer.close();
        let line = if code == 4 {
            format!("chatloop: cannot connect to ws://{addr} ({addr}): {says}\n")
        } else {
            format!("chatloop: ws://{addr}: {says}\n")
        };
        assert_eq!(end_of(client), (code, line));
    }
    for (server, says) in [
        ("ws:///", "write ws://127.0.0.1:1235/"),
        ("http://127.0.0.1:1235/", "write ws://127.0.0.1:1235/\n"),
    ] {
        let (code, out, err) = run(&mut chatloop(&["join", server]));
        assert_eq!(
            (code, out.as_str(), err.lines().count()),
            (2, "", 1),
            "{err}"
        );
        assert!(err.contains(says), "{err}");
    }
}

#[test]
fn response_may_come_in_pieces_and_with_the_first_frames_behind_it() {
    let server = ScriptedServer::new();
    let mut client = Piped::start(&mut join(server.addr(), "me", &[]));
    let mut peer = server.accept();
    let request = read_request(&mut peer);
    let mut stream = response(&request, &server.addr().to_string()).into_bytes();
    stream.extend([0x89, 0]);
    for byte in stream {
        peer.send_raw([byte]);
    }
    // The pong may stand before the name or after it.
    let mut received = [0; 6 + 8];
    peer.stream.read_exact(&mut received).unwrap();
    assert!(received[..7].contains(&0x8a), "{received:?}");
    client.input = None;
    peer.close();
    assert_eq!(end_of(client).0, 5);
}

#[test]
fn proxy_without_its_server_is_retried_once_there_was_a_connection() {
    let server = ScriptedServer::new();
    let mut client = Piped::start(&mut join(server.addr(), "me", &[]));
    let mut peer = WebPeer::join(&server, "me");
    client.say("one\n");
    peer.expect("one");
    peer.send(ACK);
    peer.close(1012, "");
    client.say("two\n");
    client.input = None;
    for answer in ["404 Not Found", "502 Bad Gateway"] {
        let mut peer = server.accept();
        read_request(&mut peer);
        peer.send_raw(format!("HTTP/1.1 {answer}\r\n\r\n"));
        peer.close();
    }
    let mut peer = WebPeer::join(&server, "me");
    peer.expect("two");
    peer.send(ACK);
    peer.expect_close();
    let (code, notices) = end_of(client);
    assert_eq!(code, 0, "{notices}");
    for says in [
        "the server closed the connection (1012); connecting again in ",
        "still no connection: the server answered 404 Not Found: there is nothing at this path; trying again",
        "still no connection: the server answered 502 Bad Gateway; trying again in ",
        "again; sending the message that waited in ",
        "sending the messages that waited\n",
    ] {
        assert!(notices.contains(says), "{says}: {notices}");
    }
}

// What is confirmed.

#[test]
fn client_leaves_when_the_server_has_confirmed_all_and_closes_the_web_socket() {
    let server = ScriptedServer::new();
    let mut client = Piped::start(&mut join(server.addr(), "me", &[]));
    let mut peer = WebPeer::accept(&server);
    peer.expect("me");
    client.say("one\ntwo\n");
    client.input = None;
    peer.ping();
    // Nothing is sent before the server has sent how long a message may be.
    peer.send(HELLO);
    peer.expect("one");
    peer.expect("two");
    peer.ping();
    peer.send(ACK);
    peer.send(ACK);
    peer.expect_close();
    let connected = format!("chatloop: connected to ws://{} as me\n", server.addr());
    assert_eq!(end_of(client), (0, connected));
}

#[test]
fn received_message_that_is_not_confirmed_is_reported() {
    let server = ScriptedServer::new();
    for (acks, status) in [(0, "lines 1 to 2"), (1, "line 2")] {
        let mut client = Piped::start(&mut join(server.addr(), "me", &[]));
        let mut peer = WebPeer::join(&server, "me");
        client.say("one\ntwo\n");
        client.input = None;
        peer.expect("one");
        peer.expect("two");
        for _ in 0..acks {
            peer.send(ACK);
        }
        peer.close(1011, "out of\u{1b} luck");
        let (code, notices) = end_of(client);
        assert_eq!(code, 5, "{notices}");
        let report = format!(
            "chatloop: {status} may not have arrived\nchatloop: the server closed the connection (1011: out \
             of\\u{{1b}} luck)\n"
        );
        assert!(notices.ends_with(&report), "{notices}");
    }
}

#[test]
fn connection_that_is_cut_at_any_byte_loses_nothing_silently() {
    let server = ScriptedServer::new();
    let host = server.addr().to_string();
    let text = |text: &str| [&[0x81, text.len() as u8][..], text.as_bytes()].concat();
    let stream = [
        text(HELLO),
        text(ACK),
        text(&message(TIME, "bob", "hi")),
        text(ACK),
    ];
    let acknowledged = [stream[..2].concat().len(), stream[..4].concat().len()];
    let stream = stream.concat();
    for cut in 0..=stream.len() {
        let mut client = Piped::start(&mut join(server.addr(), "me", &["--no-reconnect"]));
        client.say("one\ntwo\n");
        client.input = None;
        let mut peer = server.accept();
        let request = read_request(&mut peer);
        peer.send_raw(response(&request, &host));
        // The name, and as soon as the client has the hello, both lines.
        let hello_len = 2 + HELLO.len();
        let has_hello = cut >= hello_len;
        peer.send_raw(&stream[..cut.min(hello_len)]);
        let len = if has_hello { 8 + 9 + 9 } else { 8 };
        let mut sent = vec![0; len];
        peer.stream.read_exact(&mut sent).unwrap();
        peer.send_raw(&stream[cut.min(hello_len)..cut]);
        drop(peer);
        let confirmed = acknowledged.iter().filter(|&&at| cut >= at).count();
        let (code, notices) = end_of(client);
        let says = match (has_hello, confirmed) {
            (false, _) => "lines 1 to 2 not sent",
            (_, 0) => "lines 1 to 2 may not have arrived",
            (_, 1) => "line 2 may not have arrived",
            _ => "",
        };
        assert!(notices.contains(says), "cut at {cut}: {notices}");
        assert_eq!(
            code,
            if confirmed == 2 { 0 } else { 5 },
            "cut at {cut}: {notices}"
        );
    }
}

#[test]
fn handshake_that_is_cut_at_any_byte_ends_the_client_with_one_line() {
    let server = ScriptedServer::new();
    let host = server.addr().to_string();
    let mut cut = 0;
    loop {
        let client = Piped::start(&mut join(server.addr(), "me", &[]));
        let mut peer = server.accept();
        let request = read_request(&mut peer);
        let response = response(&request, &host);
        if cut == response.len() {
            break;
        }
        peer.send_raw(&response[..cut]);
        peer.close();
        let (code, notices) = end_of(client);
        assert_eq!((code, notices.lines().count()), (4, 1), "{notices}");
        assert!(notices.contains("closed the connection"), "{notices}");
        cut += 1;
    }
}

#[test]
fn frame_that_no_server_may_send_ends_the_connection() {
    let server = ScriptedServer::new();
    for (bytes, says) in [
        (
            &b"\x81\x85\0\0\0\0hello"[..],
            "a server's frame with a mask",
        ),
        (b"\xc1\x00", "a reserved bit is set"),
        (b"\x82\x00", "a message that is not text"),
        (b"\x81\x01\xff", "text that is not UTF-8"),
        (
            b"\x81\x02hi",
            "the server sent something that is no message: \"hi\"",
        ),
        (b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", "are the limit"),
    ] {
        let client = Piped::start(&mut join(server.addr(), "me", &["--no-reconnect"]));
        let mut peer = WebPeer::join(&server, "me");
        peer.send_raw(bytes);
        let (code, notices) = end_of(client);
        assert_eq!(code, 5, "{notices}");
        assert!(notices.contains(says), "{says}: {notices}");
    }
    // The same before anything of the chat.
    let client = Piped::start(&mut join(server.addr(), "me", &[]));
    let mut peer = WebPeer::accept(&server);
    peer.send("welcome to another service");
    let (code, notices) = end_of(client);
    let says =
        "this port does not speak the chat protocol; it says \"welcome to another service\"\n";
    assert!(code == 6 && notices.ends_with(says), "{notices}");
}

#[test]
fn server_that_confirms_nothing_pauses_the_input_and_memory_stays_small() {
    let server = ScriptedServer::new();
    let mut source = Command::new("yes")
        .arg("a line of some length that is said again and again")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut command = join(server.addr(), "me", &[]);
    let mut client = command
        .stdin(source.stdout.take().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut peer = WebPeer::join(&server, "me");
    let mut stream = peer.stream().try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut sum = 0;
        let mut buf = vec![0; 1 << 20];
        while let Ok(read @ 1..) = stream.read(&mut buf) {
            sum += read;
        }
        sum
    });
    wait_until_asleep("the client to be held up", &[source.id(), client.id()]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", client.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let most: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(most < 64 * 1024, "{line}");
    for child in [&mut source, &mut client] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(reader.join().unwrap() > 1_000_000);
}

// The history.

#[test]
fn history_is_left_out_of_plain_lines_and_marked_in_json() {
    let server = ScriptedServer::new();
    for (flags, expected) in [
        (&[][..], "bob: new\n".to_owned()),
        (&["--raw"], "bob: new\n".to_owned()),
        (
            &["--json"],
            format!(
                "{{\"time\":\"{TIME}\",\"name\":\"bob\",\"message\":\"old\",\"history\":true}}\n\
                 {{\"time\":\"{LATER}\",\"name\":\"bob\",\"message\":\"new\"}}\n"
            ),
        ),
    ] {
        let mut client = Piped::start(&mut join(server.addr(), "me", flags));
        let mut peer = WebPeer::accept(&server);
        peer.expect("me");
        peer.send(&message(TIME, "bob", "old"));
        peer.send(HELLO);
        peer.send(&message(LATER, "bob", "new"));
        expect(&mut client.output, expected.as_bytes());
    }
}

#[test]
fn reconnected_client_shows_what_it_missed_and_nothing_twice() {
    let server = ScriptedServer::new();
    let mut client = Piped::start(&mut join(server.addr(), "me", &["--stay"]));
    let mut peer = WebPeer::join(&server, "me");
    client.say("confirmed\nuncertain\n");
    peer.expect("confirmed");
    peer.expect("uncertain");
    peer.send(&message(TIME, "bob", "one"));
    peer.send(ACK);
    expect(&mut client.output, b"bob: one\n");
    peer.close(1001, "");
    let mut peer = WebPeer::accept(&server);
    peer.expect("me");
    for (name, text) in [
        ("bob", "zero"),
        ("bob", "one"),
        ("me", "confirmed"),
        ("bob", "two"),
        ("me", "uncertain"),
        ("eve", "confirmed"),
    ] {
        peer.send(&message(TIME, name, text));
    }
    peer.send(HELLO);
    peer.send(&message(LATER, "bob", "three"));
    expect(
        &mut client.output,
        b"bob: two\neve: confirmed\nbob: three\n",
    );
    peer.close(1001, "");
    // What is gone from the server's history cannot be known.
    let mut peer = WebPeer::accept(&server);
    peer.expect("me");
    peer.send(&message(LATER, "bob", "much later"));
    peer.send(HELLO);
    expect(&mut client.output, b"bob: much later\n");
    client.signal("TERM");
    let mut notices = String::new();
    let mut stderr = client.child.stderr.take().unwrap();
    stderr.read_to_string(&mut notices).unwrap();
    for says in [
        "chatloop: line 2 may not have arrived\n",
        "chatloop: has arrived: uncertain\n",
        "chatloop: messages that were sent meanwhile may be missing\n",
    ] {
        assert_eq!(notices.matches(says).count(), 1, "{says}: {notices}");
    }
}

// On a terminal.

fn on_terminal(server: &ScriptedServer) -> Terminal {
    let mut command = join(server.addr(), "me", &["--no-history"]);
    command.env("TZ", "UTC").env("XTERM_VERSION", "an emulator");
    Terminal::run(&command, 24, 100)
}

#[test]
fn history_on_a_terminal_has_its_times_and_days_and_an_end() {
    let server = ScriptedServer::new();
    let mut terminal = on_terminal(&server);
    let mut peer = WebPeer::accept(&server);
    peer.expect("me");
    peer.send(&message("2020-02-01T08:09:00.000Z", "bob", "old"));
    peer.send(&message("2020-02-01T23:59:00.000Z", "bob", "late"));
    peer.send(&message("2020-02-02T00:00:00.000Z", "eve", "early"));
    peer.send(HELLO);
    peer.send(&message(
        "2020-02-03T10:11:00.000Z",
        "bob",
        "\\u001b[2J new",
    ));
    terminal.wait_for_text("new");
    terminal.wait_for_text("me> ");
    let rows = terminal.rows();
    assert!(rows[0].starts_with("-- connected to ws://"), "{rows:?}");
    assert_eq!(
        rows[1..],
        [
            "-- Saturday, 1 February 2020",
            "08:09 bob: old",
            "23:59 bob: late",
            "-- Sunday, 2 February 2020",
            "00:00 eve: early",
            "-- these were earlier messages",
            "10:11 bob: \\u{1b}[2J new",
            "me>",
        ]
    );
}

#[test]
fn pause_that_lasts_is_shown_and_so_is_its_end() {
    let server = ScriptedServer::new();
    let mut terminal = on_terminal(&server);
    let mut peer = WebPeer::join(&server, "me");
    for _ in 0..100 {
        peer.send(r#"{"paused":true}"#);
        peer.send(r#"{"paused":false}"#);
    }
    peer.send(r#"{"paused":true}"#);
    terminal.wait_for_text("-- paused: senders wait for a slow reader");
    peer.send(r#"{"paused":false}"#);
    terminal.wait_for_text("-- no longer paused");
    let shown = terminal.history().join("\n");
    assert_eq!(shown.matches("-- paused").count(), 1, "{shown}");
}

#[test]
fn typed_message_that_is_too_long_is_not_shown_as_sent() {
    let server = ScriptedServer::new();
    let mut terminal = on_terminal(&server);
    let mut peer = WebPeer::accept(&server);
    peer.expect("me");
    peer.send(r#"{"hello":{"version":"0.1.0","maxName":256,"maxMessage":10}}"#);
    peer.ping();
    terminal.wait_for_text("me> ");
    terminal.send("12345678901\r1234567890\r");
    peer.expect("1234567890");
    peer.send(ACK);
    terminal.wait_for_text("-- not sent, since the server accepts 10 bytes at most: 12345678901");
    let shown = terminal.history().join("\n");
    assert!(!shown.contains("me: 12345678901"), "{shown}");
    terminal.send("\x04");
    peer.expect_close();
    assert_eq!(terminal.wait(), Ended::Code(5));
}

#[test]
fn client_leaves_a_server_that_does_not_close_its_side() {
    let server = ScriptedServer::new();
    let mut terminal = on_terminal(&server);
    let _peer = WebPeer::join(&server, "me");
    terminal.wait_for_text("me> ");
    terminal.send("\x04");
    assert_eq!(terminal.wait(), Ended::Code(0));
}
