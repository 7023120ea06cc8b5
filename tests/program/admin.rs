//! The admin socket: who may connect, what it shows, and what it withstands.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::Value;

use crate::common::http::{
    SocketPath, body, connect_admin, exchange, get, get_admin, request, sample,
};
use crate::common::process::{Relay, chatloop, chatloop_after, run, wait_for};
use crate::common::{PATIENCE, assert_bytes, delivery, frame, wide_frame};

/// A relay for `chat10` with an admin socket at this path.
fn relay_at(path: &SocketPath, args: &[&str]) -> Relay {
    Relay::start(&[&["--admin", path.as_str()], args].concat())
}

/// The members that the admin socket shows.
#[track_caller]
fn members(path: &Path) -> Vec<Value> {
    let table: Value = serde_json::from_str(&get_admin(path, "/members")).unwrap();
    table["members"].as_array().unwrap().clone()
}

/// The member of this name.
#[track_caller]
fn member(path: &Path, name: &str) -> Value {
    let members = members(path);
    let mut named = members.into_iter().filter(|member| member["name"] == name);
    named.next().unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn admin_socket_has_mode_0600_whatever_the_umask_is_and_is_removed_at_the_end() {
    for umask in ["000", "022", "077"] {
        let path = SocketPath::new();
        let args = ["serve", "-l", "127.0.0.1:0", "--admin", path.as_str()];
        let relay = chatloop_after(&format!("umask {umask};"), &args);
        let mut relay = Relay::spawn(relay);
        relay.log_line("the admin socket is");
        let file = fs::symlink_metadata(&*path).unwrap();
        assert!(file.file_type().is_socket());
        let mode = file.permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "umask {umask}: {mode:o}");
        assert_eq!(get_admin(&path, "/healthz"), "ok\n");
        relay.signal("TERM");
        assert_eq!(relay.wait().0, 0);
        assert!(fs::symlink_metadata(&*path).is_err());
    }
}

#[test]
fn socket_that_a_relay_has_left_behind_is_replaced_and_nothing_else_is() {
    let path = SocketPath::new();
    drop(UnixListener::bind(&*path).unwrap());
    let relay = relay_at(&path, &[]);
    assert_eq!(get_admin(&path, "/healthz"), "ok\n");
    let refused = |path: &SocketPath, says: &str| {
        let args = ["serve", "-l", "127.0.0.1:0", "--admin", path.as_str()];
        let (code, _, log) = run(&mut chatloop(&args));
        assert_eq!(code, 3, "{log}");
        let start = format!(
            "chatloop: cannot listen on --admin {}: {says}",
            path.as_str()
        );
        assert!(log.starts_with(&start) && log.lines().count() == 1, "{log}");
    };
    refused(&path, "another process listens there");
    assert_eq!(get_admin(&path, "/healthz"), "ok\n");
    drop(relay);
    // It was killed, and has not removed its socket.
    let again = relay_at(&path, &[]);
    assert_eq!(get_admin(&path, "/healthz"), "ok\n");
    drop(again);

    let file = SocketPath::new();
    fs::write(&*file, "precious").unwrap();
    refused(&file, "there is a file that is no socket");
    assert_eq!(fs::read_to_string(&*file).unwrap(), "precious");
    let link = SocketPath::new();
    symlink("nowhere", &*link).unwrap();
    refused(&link, "there is a file that is no socket");
    let missing = file.join("below");
    let args = ["serve", "-l", "0", "--admin", missing.to_str().unwrap()];
    assert_eq!(run(&mut chatloop(&args)).0, 3);
}

#[test]
fn file_of_another_relay_is_not_removed() {
    let path = SocketPath::new();
    let mut relay = relay_at(&path, &[]);
    assert_eq!(get_admin(&path, "/healthz"), "ok\n");
    fs::remove_file(&*path).unwrap();
    let other = relay_at(&path, &[]);
    assert_eq!(get_admin(&path, "/healthz"), "ok\n");
    relay.signal("TERM");
    assert_eq!(relay.wait().0, 0);
    assert_eq!(get_admin(&path, "/healthz"), "ok\n");
    drop(other);
}

#[test]
fn members_have_their_names_and_messages_and_only_the_admin_socket_shows_them() {
    let path = SocketPath::new();
    let mut relay = Relay::serving(
        &["chat10", "chat64", "metrics"],
        &["--admin", path.as_str()],
    );
    assert_eq!(members(&path), [Value::Null; 0]);
    let mut alice = relay.join("alice");
    let mut odd = relay.connect();
    odd.write_all(&frame(b"\"\\\x1b[2J\n\xff\xe2\x80\xae"))
        .unwrap();
    relay.log_line("joined:");
    let mut nameless = TcpStream::connect(relay.addr_of("chat64")).unwrap();
    relay.log_line("joined: chat64");
    alice.write_all(&frame("hello")).unwrap();
    let mut received = vec![0; delivery("alice", "hello").len()];
    odd.read_exact(&mut received).unwrap();
    nameless.write_all(&wide_frame("hi")).unwrap();
    nameless.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut received = [0; b"helloMessage was Sent!".len()];
    nameless.read_exact(&mut received).unwrap();

    let text = get_admin(&path, "/members");
    let is_harmless = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
    assert!(text.chars().all(is_harmless), "{text}");
    assert_eq!(
        text.lines().count(),
        3 + 2,
        "a line for each member:\n{text}"
    );
    let members = members(&path);
    let of = |index: usize, keys: &[&str]| -> Vec<Value> {
        keys.iter()
            .map(|key| members[index][*key].clone())
            .collect()
    };
    let counts = ["name", "dialect", "sent", "received", "pending", "state"];
    let chat10 = |name: &str, sent: u32, received: u32| {
        let [name, dialect, state] = [name, "chat10", "ok"].map(Value::from);
        vec![name, dialect, sent.into(), received.into(), 0.into(), state]
    };
    assert_eq!(of(0, &counts), chat10("alice", 1, 1));
    assert_eq!(
        of(1, &counts),
        chat10("\"\\\x1b[2J\n\u{fffd}\u{202e}", 0, 2)
    );
    assert_eq!(members[1]["name_hex"], "225c1b5b324a0affe280ae");
    assert_eq!(of(2, &["name", "dialect"]), [Value::Null, "chat64".into()]);
    assert_eq!(
        members[0]["address"],
        alice.local_addr().unwrap().to_string()
    );

    let response = get(relay.addr_of("metrics"), "/members");
    assert!(
        response.starts_with("HTTP/1.1 404 Not Found\r\n"),
        "{response}"
    );
    assert!(get_admin(&path, "/metrics").contains("\nchatloop_members{dialect=\"chat64\"} 1\n"));
}

#[test]
fn pending_output_of_a_member_that_does_not_read_is_exact_to_the_byte() {
    const MESSAGES: u64 = 20;
    let path = SocketPath::new();
    let limits = "--soft-limit 64MiB --queue-limit 100MiB --max-memory 1GiB";
    let mut relay = relay_at(&path, &limits.split(' ').collect::<Vec<_>>());
    let mut bob = relay.join("bob");
    let mut alice = relay.join("alice");
    let message = vec![b'x'; 1 << 20];
    for _ in 0..MESSAGES {
        alice.write_all(&frame(&message)).unwrap();
    }
    wait_for("all to be published", || {
        sample(&get_admin(&path, "/metrics"), "chatloop_messages_total") == MESSAGES
    });
    let shown = member(&path, "bob");
    let metrics = get_admin(&path, "/metrics");
    let pending = shown["pending"].as_u64().unwrap();
    let accepted = sample(&metrics, "chatloop_sent_bytes_total");
    let stream = delivery("alice", &message).len() as u64 * MESSAGES;
    assert_eq!(accepted + pending, stream);
    assert_eq!(sample(&metrics, "chatloop_largest_lag_bytes"), pending);
    assert_eq!(
        (&shown["state"], &shown["received"]),
        (&"lagging".into(), &MESSAGES.into())
    );
    let mut all = vec![0; stream as usize];
    bob.read_exact(&mut all).unwrap();
    assert_bytes(&all, &delivery("alice", &message).repeat(MESSAGES as usize));
    wait_for("the backlog to be delivered", || {
        member(&path, "bob")["pending"] == 0 && member(&path, "bob")["state"] == "ok"
    });
}

#[test]
fn relay_that_stops_answers_at_its_admin_socket_until_its_end() {
    let path = SocketPath::new();
    let limits = "--soft-limit 64MiB --queue-limit 100MiB --max-memory 1GiB --drain 10min";
    let mut relay = relay_at(&path, &limits.split(' ').collect::<Vec<_>>());
    let _bob = relay.join("bob");
    let mut alice = relay.join("alice");
    for _ in 0..20 {
        alice.write_all(&frame(vec![b'x'; 1 << 20])).unwrap();
    }
    wait_for("all to be published", || {
        sample(&get_admin(&path, "/metrics"), "chatloop_messages_total") == 20
    });
    relay.signal("TERM");
    relay.log_line("stopping");
    let response = exchange(connect_admin(&path), &request("/healthz"));
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    wait_for("bob to leave", || {
        member(&path, "bob")["state"] == "leaving"
    });
    relay.signal("TERM");
    assert_eq!(relay.wait().0, 0);
    assert!(fs::symlink_metadata(&*path).is_err());
}

#[test]
fn state_of_a_member_is_what_the_relay_does_about_it() {
    let path = SocketPath::new();
    let args =
        "--soft-limit 64KiB --slow-timeout 2s --max-message 64KiB --queue-limit 64MiB --rate 1MiB";
    let mut relay = relay_at(&path, &args.split(' ').collect::<Vec<_>>());
    let _reader_that_stops = relay.join("bob");
    let mut alice = relay.join("alice");
    alice.set_nonblocking(true).unwrap();
    let message = frame(vec![b'x'; 64 * 1024]);
    let mut rest = &message[..];
    let mut seen = Vec::new();
    wait_for("each state", || {
        if rest.is_empty() {
            rest = &message;
        }
        if let Ok(sent) = alice.write(rest) {
            rest = &rest[sent..];
        }
        for name in ["alice", "bob"] {
            let state = member(&path, name)["state"].as_str().unwrap().to_owned();
            let is_paused = sample(&get_admin(&path, "/metrics"), "chatloop_paused") > 0;
            assert!(
                name == "bob" || !matches!(&*state, "slow" | "stalled"),
                "{state}"
            );
            if state == "slow" && is_paused && seen.iter().all(|one| one != "paused") {
                seen.push("paused".to_owned());
            }
            if !seen.contains(&state) {
                seen.push(state);
            }
        }
        ["ok", "throttled", "slow", "paused", "stalled"]
            .iter()
            .all(|state| seen.iter().any(|one| one == state))
    });
}

#[test]
fn request_at_the_admin_socket_is_answered_however_it_is_cut_and_garbage_is_refused() {
    let path = SocketPath::new();
    let mut relay = relay_at(&path, &[]);
    let _alice = relay.join("alice");
    let expected = exchange(connect_admin(&path), &request("/healthz"));
    assert_eq!(body(&expected), "ok\n");
    let whole = request("/healthz");
    for at in 1..whole.len() {
        let mut stream = connect_admin(&path);
        stream.write_all(&whole.as_bytes()[..at]).unwrap();
        std::thread::yield_now();
        assert_eq!(exchange(stream, &whole[at..]), expected, "cut at {at}");
        // And one that goes away there.
        let mut gone = connect_admin(&path);
        gone.write_all(&whole.as_bytes()[..at]).unwrap();
    }
    for (request, status) in [
        (
            "POST /members HTTP/1.1\r\nHost: x\r\n\r\n",
            "405 Method Not Allowed",
        ),
        ("GET /members/ HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found"),
        ("GET /members HTTP/1.0\r\n\r\n", "400 Bad Request"),
        (
            "GET /members HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
            "400 Bad Request",
        ),
        (
            "GET /members HTTP/1.1\r\nHost: x\r\n\r\nGET /",
            "400 Bad Request",
        ),
        ("\0\r\n\r\n", "400 Bad Request"),
        ("5         alice", ""),
    ] {
        let mut stream = connect_admin(&path);
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let expected = if status.is_empty() {
            response.is_empty()
        } else {
            response.starts_with(&format!("HTTP/1.1 {status}\r\n"))
        };
        assert!(expected, "{request}: {response}");
    }
    let endless = exchange(connect_admin(&path), &"x".repeat(9000));
    assert!(endless.starts_with("HTTP/1.1 431 "), "{endless}");
    assert_eq!(members(&path).len(), 1);
}

#[test]
fn clients_that_never_read_the_members_hold_little_and_keep_nothing_waiting() {
    const MEMBERS: usize = 300;
    let path = SocketPath::new();
    let mut relay = Relay::serving(
        &["chat10", "metrics"],
        &[
            "--admin",
            path.as_str(),
            "--handshake-timeout",
            "10min",
            "--max-name",
            "64KiB",
        ],
    );
    let mut alice = relay.join("alice");
    let mut bob = relay.join("bob");
    // Their table has 18 MB.
    let long = "\x01".repeat(10_000);
    let _others: Vec<_> = (0..MEMBERS - 2).map(|_| relay.join(&long)).collect();
    let resident = || {
        sample(
            &get_admin(&path, "/metrics"),
            "process_resident_memory_bytes",
        )
    };
    let before = resident();
    let (mut silent, mut scrapers) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let mut stream = connect_admin(&path);
        stream.write_all(request("/members").as_bytes()).unwrap();
        silent.push(stream);
        // Those that ask for the metrics have other places.
        let mut scraper = TcpStream::connect(relay.addr_of("metrics")).unwrap();
        scraper.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
        scrapers.push(scraper);
    }
    alice.write_all(&frame("hello")).unwrap();
    let mut received = vec![0; delivery("alice", "hello").len()];
    bob.read_exact(&mut received).unwrap();
    assert_bytes(&received, &delivery("alice", "hello"));
    let grown = resident().saturating_sub(before);
    assert!(grown < 6 << 20, "{grown}");
    let text = get_admin(&path, "/members");
    assert!(text.len() > 17_000_000, "{}", text.len());
    let table: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(table["members"].as_array().unwrap().len(), MEMBERS);
}
