//! The trace of a relay: its records, its end, and who may watch.

use std::env::temp_dir;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process;
use std::thread;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::common::http::{body, exchange};
use crate::common::process::{Relay, chatloop, run};
use crate::common::{PATIENCE, delivery, frame};

/// A file that is removed at the end.
struct TraceFile(PathBuf);

impl TraceFile {
    fn new(test: &str) -> Self {
        Self(temp_dir().join(format!("chatloop-trace-{test}-{}", process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Its records.
    #[track_caller]
    fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.0).unwrap();
        text.lines().map(record).collect()
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[track_caller]
fn record(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn kind(record: &Value) -> &str {
    record["kind"].as_str().unwrap()
}

/// The kinds of the records of each turn, without the turns in which a new socket was found to be writable and
/// nothing else happened: a name may come in the same turn or in the next one.
fn turns(records: &[Value]) -> Vec<Vec<&str>> {
    let mut turns: Vec<Vec<&str>> = Vec::new();
    for record in records {
        match kind(record) {
            "start" => {}
            "poll" => turns.push(vec!["poll"]),
            kind => turns.last_mut().unwrap().push(kind),
        }
    }
    turns.retain(|turn| *turn != ["poll", "edge", "end"]);
    turns
}

#[test]
fn trace_of_a_conversation_has_the_records_of_each_turn_in_order() {
    let file = TraceFile::new("conversation");
    let mut relay = Relay::start(&["--trace", file.path()]);
    let mut alice = relay.join("alice");
    let mut bob = relay.join("b\"o\u{1b}b");
    alice.write_all(&frame("a secret")).unwrap();
    let mut received = delivery("alice", "a secret");
    bob.read_exact(&mut received).unwrap();
    assert_eq!(received, delivery("alice", "a secret"));
    drop(alice);
    relay.log_line("left:");
    relay.signal("TERM");
    assert_eq!(relay.wait().0, 0);

    let accepted = [
        "poll",
        "incoming",
        "accept",
        "register",
        "would_block",
        "end",
    ];
    let joined = ["poll", "edge", "read", "joined", "end"];
    let records = file.records();
    let turns = turns(&records);
    assert_eq!(
        turns[..6],
        [
            &accepted[..],
            &joined,
            &accepted,
            &joined,
            &["poll", "edge", "read", "published", "write", "end"],
            &["poll", "edge", "read", "close", "left", "end"],
        ]
    );
    assert_eq!(turns.last().unwrap().last(), Some(&"end"), "whole turns");

    let named = |kind: &str| {
        let of_kind = records.iter().filter(|record| record["kind"] == kind);
        of_kind.cloned().collect::<Vec<_>>()
    };
    assert_eq!(named("joined")[1]["name"], "b\"o\u{1b}b");
    let (sent, received) = (18, 15 + 18);
    let reads = named("read");
    assert_eq!(reads[2]["bytes"], sent);
    assert_eq!(reads[2]["id"], "0.0");
    let published = &named("published")[0];
    assert_eq!(published["bytes"], received);
    assert_eq!(published["spans"][0]["id"], "0.0");
    assert_eq!(published["spans"][0]["to"], received);
    let write = &named("write")[0];
    assert_eq!(
        (&write["ids"][0], &write["of"]),
        (&"1.1".into(), &received.into())
    );
    assert_eq!(named("left")[0]["reason"], "eof");
    let text = fs::read_to_string(&file.0).unwrap();
    assert!(
        !text.contains("secret") && !text.contains('\u{1b}'),
        "{text}"
    );
}

#[test]
fn trace_file_is_its_owners_alone_and_one_that_cannot_be_written_is_an_error() {
    let file = TraceFile::new("mode");
    let mut relay = Relay::start(&["--trace", file.path()]);
    let mode = fs::metadata(&file.0).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    relay.signal("TERM");
    assert_eq!(relay.wait().0, 0);

    let args = [
        "serve",
        "-l",
        "127.0.0.1:0",
        "--trace",
        "/no/such/folder/file",
    ];
    let (code, _, log) = run(&mut chatloop(&args));
    assert_eq!(code, 2, "{log}");
    let says = "chatloop: cannot write --trace /no/such/folder/file: ";
    assert!(log.starts_with(says) && log.lines().count() == 1, "{log}");
}

#[test]
fn trace_that_is_full_or_cannot_be_written_ends_and_the_relay_goes_on() {
    let file = TraceFile::new("full");
    for args in [
        ["--trace", file.path(), "--trace-max", "1500"],
        ["--trace", "/dev/full", "--trace-max", "1GiB"],
    ] {
        let mut relay = Relay::start(&args);
        let mut alice = relay.join("alice");
        let mut bob = relay.join("bob");
        for _ in 0..20 {
            alice.write_all(&frame("hello")).unwrap();
            let mut received = delivery("alice", "hello");
            bob.read_exact(&mut received).unwrap();
        }
        relay.signal("TERM");
        let (code, log) = relay.wait();
        assert_eq!(code, 0);
        let log = relay.lines.join("\n") + &log;
        assert_eq!(log.matches("the trace ends here").count(), 1, "{log}");
    }
    let len = fs::metadata(&file.0).unwrap().len();
    assert!((500..=1500).contains(&len), "{len}");
    let records = file.records();
    assert_eq!(kind(records.last().unwrap()), "end", "whole turns");
}

// ---- Watching ----

/// A request for this path under this host.
fn request(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// The status of the response to a request.
#[track_caller]
fn status(addr: SocketAddr, request: &str) -> String {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let response = exchange(stream, request);
    response.lines().next().unwrap_or_default()[9..12].to_owned()
}

/// Somebody who watches, behind the head of the response.
#[track_caller]
fn watch(addr: SocketAddr) -> BufReader<TcpStream> {
    // Its buffer is small, so that it is full soon.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&addr.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = request("/loop/trace", "localhost");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    reader
}

/// The next record.
#[track_caller]
fn next(watcher: &mut BufReader<TcpStream>) -> Value {
    let mut line = String::new();
    watcher.read_line(&mut line).unwrap();
    record(&line)
}

/// Waits for a record of this kind.
#[track_caller]
fn await_kind(watcher: &mut BufReader<TcpStream>, wanted: &str) -> Value {
    loop {
        let record = next(watcher);
        if kind(&record) == wanted {
            return record;
        }
    }
}

#[test]
fn watcher_receives_who_is_there_and_then_each_turn() {
    let mut relay = Relay::serving(&["chat10", "ws"], &["--watch"]);
    let page = relay.addr_of("ws");
    relay.log_line(&format!("the loop is shown at http://{page}/loop"));
    let mut alice = relay.join("alice");
    let mut watcher = watch(page);
    let start = next(&mut watcher);
    assert_eq!(kind(&start), "start");
    assert_eq!(start["connections"][0]["name"], "alice");
    let _bob = relay.join("bob");
    assert_eq!(await_kind(&mut watcher, "joined")["name"], "bob");
    alice.write_all(&frame("hello")).unwrap();
    assert_eq!(await_kind(&mut watcher, "published")["bytes"], 30);
    // It is no member, and its own connection makes no turn that it would be shown.
    await_kind(&mut watcher, "end");
    drop(alice);
    assert_eq!(kind(&next(&mut watcher)), "poll");
    assert_eq!(next(&mut watcher)["id"], "0.0");
}

#[test]
fn watchers_are_at_most_four_and_one_that_leaves_makes_room() {
    let mut relay = Relay::serving(&["chat10", "ws"], &["--watch"]);
    let page = relay.addr_of("ws");
    let mut watchers: Vec<_> = (0..4).map(|_| watch(page)).collect();
    let path = request("/loop/trace", "localhost");
    assert_eq!(status(page, &path), "503");
    drop(watchers.pop());
    // Its end comes before the event of this member.
    let _alice = relay.join("alice");
    watchers.push(watch(page));
}

#[test]
fn watcher_that_does_not_read_loses_whole_turns_and_is_told_how_many() {
    let mut relay = Relay::serving(&["chat10", "ws"], &["--watch"]);
    let mut watcher = watch(relay.addr_of("ws"));
    let mut alice = relay.join("alice");
    let mut bob = relay.join("bob");
    let mut say = || {
        alice.write_all(&frame("x")).unwrap();
        bob.read_exact(&mut delivery("alice", "x")).unwrap();
    };
    // More than fits the sockets' buffers and the relay's own: a turn is longer than this.
    let turn_len = 300;
    for _ in 0..4 * 1024 * 1024 / turn_len {
        say();
    }
    // The records go on with the next turn that has room.
    let reader = thread::spawn(move || {
        let lost = await_kind(&mut watcher, "lost");
        (lost, next(&mut watcher), next(&mut watcher))
    });
    while !reader.is_finished() {
        say();
    }
    let (lost, start, poll) = reader.join().unwrap();
    assert!(lost["turns"].as_u64() > Some(0));
    assert_eq!(start["connections"][1]["name"], "bob");
    // A turn begins, or turns that were lost again meanwhile.
    let next = kind(&poll);
    assert!(["poll", "lost"].contains(&next), "whole turns: {next}");
}

#[test]
fn loop_is_shown_only_if_asked_for_and_not_to_other_sites() {
    let unwatched = Relay::serving(&["chat10", "ws"], &[]);
    for path in ["/loop", "/loop/trace"] {
        assert_eq!(
            status(unwatched.addr_of("ws"), &request(path, "localhost")),
            "404"
        );
    }
    let relay = Relay::serving(&["chat10", "ws"], &["--watch"]);
    let addr = relay.addr_of("ws");
    assert_eq!(status(addr, &request("/loop", "evil.example")), "403");
    let foreign = request("/loop/trace", "localhost")
        .replace("\r\n\r\n", "\r\nOrigin: http://evil.example\r\n\r\n");
    assert_eq!(status(addr, &foreign), "403");
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let response = exchange(stream, &request("/loop", "localhost"));
    assert_eq!(body(&response), include_str!("../../docs/loop.html"));
    let policy = "Content-Security-Policy: default-src 'none'; script-src 'sha256-";
    assert!(response.contains(policy) && response.contains("frame-ancestors 'none'"));
}

#[test]
fn loop_is_not_shown_to_other_machines_unless_its_host_is_named() {
    let proxied = [
        "--watch",
        "--trust-proxy",
        "127.0.0.1",
        "--ws-host",
        "chat.example.org",
    ];
    let relay = Relay::serving(&["chat10", "ws"], &proxied);
    let addr = relay.addr_of("ws");
    let from_elsewhere = |host: &str| {
        let request = request("/loop", host);
        let forwarded = "\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
        status(addr, &request.replace("\r\n\r\n", forwarded))
    };
    assert_eq!(from_elsewhere("192.0.2.7"), "403");
    assert_eq!(from_elsewhere("chat.example.org"), "200");
}
