//! Who may come in: `--allow`, `--deny`, and bans; and what `chatloop admin` does.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;

use crate::common::http::{SocketPath, connect_admin, exchange, get, get_admin, sample};
use crate::common::process::{Relay, chatloop, run, wait_for};
use crate::common::{PATIENCE, assert_bytes, delivery, frame};

/// Runs `chatloop admin` at this socket.
fn admin(socket: &SocketPath, args: &[&str]) -> (i32, String, String) {
    run(&mut chatloop(
        &[&["admin", "--socket", socket.as_str()], args].concat(),
    ))
}

/// What `chatloop admin` answers, which must be done.
#[track_caller]
fn done(socket: &SocketPath, args: &[&str]) -> String {
    let (code, out, err) = admin(socket, args);
    assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
    out
}

/// What `chatloop admin` says on standard error, and its exit code.
#[track_caller]
fn refused(socket: &SocketPath, args: &[&str]) -> (i32, String) {
    let (code, out, err) = admin(socket, args);
    assert_eq!(out, "", "{args:?}: {err}");
    (code, err)
}

/// All that comes until the relay closes the connection.
fn to_the_end(mut stream: &TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut received = Vec::new();
    // A reset ends a connection as well.
    let _ = stream.read_to_end(&mut received);
    received
}

fn is_refused(addr: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(addr).unwrap();
    let _ = stream.write_all(&frame("mallory"));
    let received = to_the_end(&stream);
    assert_bytes(&received, b"");
    true
}

/// A path that nothing has yet.
fn free_path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("chatloop-{name}-{}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

#[test]
fn client_of_a_denied_network_is_refused_and_others_are_not() {
    let rules: [(&[&str], &str); 3] = [
        (
            &["--deny", "10.0.0.0/8", "--deny", "127.0.0.1"],
            "127.0.0.1 may not connect (limit: --deny)",
        ),
        (
            &["--allow", "10.0.0.0/8,192.0.2.1"],
            "in no network that may connect (limit: --allow)",
        ),
        (
            &["--allow", "127.0.0.1", "--deny", "127.0.0.0/8"],
            "127.0.0.0/8 may not connect (limit: --deny)",
        ),
    ];
    for (flags, why) in rules {
        let socket = SocketPath::new();
        let mut relay = Relay::start(&[&["--admin", socket.as_str()], flags].concat());
        assert!(is_refused(relay.connect().peer_addr().unwrap()));
        relay.log_line(why);
        let metrics = get_admin(&socket, "/metrics");
        let refused = sample(
            &metrics,
            "chatloop_connections_refused_total{reason=\"denied\"}",
        );
        assert_eq!(refused, 2, "{flags:?}");
        assert_eq!(sample(&metrics, "chatloop_connections_accepted_total"), 0);
    }
    for flags in [&["--allow", "127.0.0.0/8"], &["--deny", "10.0.0.0/8"]] {
        let mut relay = Relay::start(flags);
        let (mut alice, bob) = (relay.join("alice"), relay.join("bob"));
        alice.write_all(&frame("hello")).unwrap();
        alice.shutdown(Shutdown::Write).unwrap();
        bob.shutdown(Shutdown::Write).unwrap();
        wait_for("both to leave", || {
            to_the_end(&bob) == delivery("alice", "hello")
        });
    }
}

#[test]
fn rules_apply_to_the_client_that_a_trusted_proxy_states() {
    let mut relay = Relay::serving(
        &["proxy+chat10", "ws", "chat10"],
        &[
            "--trust-proxy",
            "127.0.0.1",
            "--deny",
            "192.0.2.0/24",
            "--max-message",
            "1KiB",
        ],
    );
    let headed = |addr: SocketAddr, client: &str| {
        let mut stream = TcpStream::connect(addr).unwrap();
        let header = format!("PROXY TCP4 {client} 10.0.0.1 1000 1000\r\n");
        stream
            .write_all(&[header.as_bytes(), &frame("alice")].concat())
            .unwrap();
        stream
    };
    let proxied = relay.addr_of("proxy+chat10");
    assert_bytes(&to_the_end(&headed(proxied, "192.0.2.7")), b"");
    relay.log_line("refused: 192.0.2.7:1000: 192.0.2.0/24 may not connect (limit: --deny)");
    let _alice = headed(proxied, "198.51.100.7");
    relay.log_line("joined: \"alice\" 198.51.100.7:1000");
    let page = relay.addr_of("ws");
    let ask = |client: &str| {
        let request =
            format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: {client}\r\n\r\n");
        exchange(TcpStream::connect(page).unwrap(), &request)
    };
    assert!(ask("192.0.2.7").starts_with("HTTP/1.1 403 Forbidden\r\n"));
    assert!(ask("198.51.100.7").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn metrics_are_refused_to_denied_addresses_and_the_admin_socket_is_not() {
    let socket = SocketPath::new();
    let relay = Relay::serving(
        &["metrics", "chat10"],
        &["--admin", socket.as_str(), "--allow", "10.0.0.0/8"],
    );
    let mut stream = TcpStream::connect(relay.addr_of("metrics")).unwrap();
    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
    assert_bytes(&to_the_end(&stream), b"");
    assert_eq!(get_admin(&socket, "/healthz"), "ok\n");
}

#[test]
fn admin_lists_the_members_and_closes_one_by_name_or_by_number() {
    let socket = SocketPath::new();
    let mut relay = Relay::start(&["--admin", socket.as_str()]);
    let mut alice = relay.join("alice");
    let bob = relay.join("bob");
    let second_bob = relay.join("bob");
    let mallory = relay.join("\x1b[2Jmallory");
    let table = done(&socket, &["list"]);
    let rows: Vec<Vec<_>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..4], ["ID", "NAME", "ADDRESS", "DIALECT"]);
    let names: Vec<_> = rows[1..].iter().map(|row| row[1]).collect();
    assert_eq!(names, ["alice", "bob", "bob", r"\u{1b}[2Jmallory"]);
    assert_eq!(rows[1][2], alice.local_addr().unwrap().to_string());

    assert_eq!(
        done(&socket, &["kick", "--id", rows[4][0]]),
        format!("closed 1 connection: connection {}\n", rows[4][0])
    );
    relay.log_line("admin: closed 1 connection");
    relay.log_line("mallory\" ");
    assert_bytes(&to_the_end(&mallory), b"");
    assert_eq!(
        done(&socket, &["kick", "bob"]),
        "closed 2 connections: member \"bob\"\n"
    );
    for stream in [&bob, &second_bob] {
        assert_bytes(&to_the_end(stream), b"");
    }
    let nobody = (1, "chatloop: there is no member \"bob\"\n".to_owned());
    assert_eq!(refused(&socket, &["kick", "bob"]), nobody);
    let (code, text) = refused(&socket, &["kick", "--id", rows[4][0]]);
    assert_eq!(
        (code, text.contains("there is no connection")),
        (1, true),
        "{text}"
    );
    // Nobody else was closed, and a kicked member may come back.
    let carol = relay.join("bob");
    alice.write_all(&frame("still here")).unwrap();
    alice.shutdown(Shutdown::Write).unwrap();
    carol.shutdown(Shutdown::Write).unwrap();
    assert_bytes(&to_the_end(&carol), &delivery("alice", "still here"));
    let metrics = get_admin(&socket, "/metrics");
    let removed = sample(
        &metrics,
        "chatloop_connections_closed_total{reason=\"removed\"}",
    );
    assert_eq!(removed, 3);
}

#[test]
fn operator_s_message_reaches_all_members() {
    let socket = SocketPath::new();
    let mut relay = Relay::start(&["--admin", socket.as_str(), "--max-message", "1KiB"]);
    let alice = relay.join("alice");
    let text = "Restart at 12:00 & back at 13:00 – 100%\n+ more";
    assert_eq!(done(&socket, &["say", text]), "sent to 1 member\n");
    assert_eq!(
        done(&socket, &["say", "--as", "die Wärterin", ""]),
        "sent to 1 member\n"
    );
    relay.log_line("admin: sent to 1 member");
    let long = "x".repeat(1025);
    let (code, why) = refused(&socket, &["say", &long]);
    assert_eq!((code, why.contains("1025")), (1, true), "{why}");
    let longer = "x".repeat(9000);
    let too_long = (
        2,
        "chatloop: the message is too long; send it in parts\n".to_owned(),
    );
    assert_eq!(refused(&socket, &["say", &longer]), too_long);
    alice.shutdown(Shutdown::Write).unwrap();
    let expected = [delivery("server", text), delivery("die Wärterin", "")].concat();
    assert_bytes(&to_the_end(&alice), &expected);
}

#[test]
fn banned_address_is_closed_and_refused_until_the_ban_is_lifted_also_after_a_restart() {
    let (socket, file) = (SocketPath::new(), free_path("bans"));
    let flags = ["--admin", socket.as_str(), "--bans", file.to_str().unwrap()];
    let mut relay = Relay::start(&flags);
    let alice = relay.join("alice");
    let nameless = relay.connect();
    let table = done(&socket, &["list"]);
    let id = table
        .lines()
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    let answer = done(&socket, &["ban", "--id", &id, "--for", "1h"]);
    assert_eq!(answer, "banned 127.0.0.1 for 1h; closed 2 connections\n");
    relay.log_line("admin: banned 127.0.0.1 for 1h; closed 2 connections");
    assert_bytes(&to_the_end(&alice), b"");
    assert_bytes(&to_the_end(&nameless), b"");
    assert!(is_refused(relay.connect().peer_addr().unwrap()));
    relay.log_line("127.0.0.1 is banned");
    assert_eq!(
        done(&socket, &["ban", "2001:db8::/32"]),
        "banned 2001:db8::/32 without an end; closed 0 connections\n"
    );
    let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    relay.signal("TERM");
    assert_eq!(relay.wait().0, 0);

    let relay = Relay::start(&flags);
    assert!(is_refused(relay.connect().peer_addr().unwrap()));
    let bans = done(&socket, &["bans"]);
    let bans: Vec<_> = bans.lines().collect();
    assert!(
        bans[0].starts_with("127.0.0.1 for 59m") || bans[0] == "127.0.0.1 for 1h",
        "{bans:?}"
    );
    assert_eq!(bans[1..], ["2001:db8::/32 without an end"]);
    let other = (1, "chatloop: 127.0.0.0/8 is not banned\n".to_owned());
    assert_eq!(refused(&socket, &["unban", "127.0.0.0/8"]), other);
    assert_eq!(
        done(&socket, &["unban", "127.0.0.1"]),
        "127.0.0.1 is not banned any more\n"
    );
    let mut relay = relay;
    relay.join("alice");
    fs::remove_file(&file).unwrap();
}

#[test]
fn ban_that_cannot_be_kept_holds_and_is_reported() {
    let socket = SocketPath::new();
    let mut relay = Relay::start(&["--admin", socket.as_str()]);
    let alice = relay.join("alice");
    let answer = done(&socket, &["ban", "--name", "alice"]);
    assert_eq!(
        answer,
        "banned 127.0.0.1 without an end or until the relay stops; closed 1 connection\n"
    );
    assert_bytes(&to_the_end(&alice), b"");
    // The folder of the file is gone.
    let (socket, folder) = (SocketPath::new(), free_path("no-bans"));
    fs::create_dir(&folder).unwrap();
    let file = folder.join("bans");
    let mut relay = Relay::start(&["--admin", socket.as_str(), "--bans", file.to_str().unwrap()]);
    fs::remove_file(&file).unwrap();
    fs::remove_dir(&folder).unwrap();
    let bob = relay.join("bob");
    let answer = done(&socket, &["ban", "127.0.0.1"]);
    let says = "banned 127.0.0.1 without an end or until the relay stops, since the file failed: No such file";
    assert!(
        answer.starts_with(says) && answer.ends_with("; closed 1 connection\n"),
        "{answer}"
    );
    relay.log_line(says);
    assert_bytes(&to_the_end(&bob), b"");
    assert!(is_refused(relay.connect().peer_addr().unwrap()));
}

#[test]
fn file_of_bans_that_is_not_understood_stops_the_start_and_is_left_as_it_is() {
    let file = free_path("bad-bans");
    fs::write(&file, "127.0.0.1\n").unwrap();
    let path = file.to_str().unwrap();
    let (code, _, err) = run(&mut chatloop(&[
        "serve",
        "-l",
        "127.0.0.1:0",
        "--bans",
        path,
    ]));
    let says = format!(
        "chatloop: cannot use --bans {path}: line 1 is no ban; write SECONDS-SINCE-1970 or never after a network or cert:NAME\n"
    );
    assert_eq!((code, err), (2, says));
    assert_eq!(fs::read_to_string(&file).unwrap(), "127.0.0.1\n");
    fs::remove_file(&file).unwrap();
}

#[test]
fn admin_without_a_relay_says_what_to_do() {
    let socket = SocketPath::new();
    let (code, why) = refused(&socket, &["list"]);
    assert_eq!(code, 4);
    assert!(
        why.ends_with(&format!(
            "a relay listens there with --admin \"{}\"\n",
            socket.as_str()
        )),
        "{why}"
    );
    // Something else answers, or cuts its answer short.
    for answer in [
        "220 mail.example.com\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n{\"members\":[",
        "",
    ] {
        let socket = SocketPath::new();
        let listener = UnixListener::bind(&*socket).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 64];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let (code, why) = refused(&socket, &["list"]);
        server.join().unwrap();
        assert_eq!(code, 6, "{answer:?}: {why}");
    }
}

#[test]
fn request_that_is_no_act_does_nothing_and_acts_are_only_for_the_admin_socket() {
    let socket = SocketPath::new();
    let mut relay = Relay::serving(&["metrics", "chat10"], &["--admin", socket.as_str()]);
    let addr = relay.addr_of("chat10");
    let mut alice = TcpStream::connect(addr).unwrap();
    alice.write_all(&frame("alice")).unwrap();
    relay.log_line("joined: \"alice\"");
    let post = |target: &str| format!("POST {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    for (target, status) in [
        ("/kick", "400 Bad Request"),
        ("/kick?name=%f", "400 Bad Request"),
        ("/kick?id=1&name=alice", "400 Bad Request"),
        ("/ban?address=127.0.0.1&for=-1", "400 Bad Request"),
        ("/members", "405 Method Not Allowed"),
        ("/", "405 Method Not Allowed"),
    ] {
        let response = exchange(connect_admin(&socket), &post(target));
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{target}: {response}"
        );
    }
    // To ask is not to act.
    let response = exchange(
        connect_admin(&socket),
        "GET /kick?name=alice HTTP/1.1\r\n\r\n",
    );
    assert!(
        response.starts_with("HTTP/1.1 404 Not Found\r\n"),
        "{response}"
    );
    let metrics = relay.addr_of("metrics");
    let response = exchange(
        TcpStream::connect(metrics).unwrap(),
        &post("/kick?name=alice"),
    );
    assert!(
        response.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"),
        "{response}"
    );
    assert!(get(metrics, "/healthz").contains("ok"));
    assert_eq!(
        sample(
            &get_admin(&socket, "/metrics"),
            "chatloop_members{dialect=\"chat10\"}"
        ),
        1
    );
    let stats = done(&socket, &["stats"]);
    let lines: Vec<_> = stats.lines().collect();
    assert!(
        lines[0].starts_with("chatloop 0.1.0, running for "),
        "{stats}"
    );
    assert!(
        lines[1].starts_with("1 member (1 chat10), 0 without a name; 0 lagging"),
        "{stats}"
    );
    assert!(
        lines[2].starts_with("accepted 1, refused 0, joined 1"),
        "{stats}"
    );
}

/// A file with this text that is removed at the end.
struct TextFile(PathBuf);

impl TextFile {
    fn new(name: &str, text: &str) -> Self {
        let path = free_path(name);
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TextFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn page_and_web_sockets_need_the_password_and_other_listeners_cannot_have_one() {
    let file = TextFile::new("password", "swordfish\nnot this line\n");
    let mut relay = Relay::serving(
        &["ws", "chat10", "metrics"],
        &["--password-file", file.path(), "--log-level", "debug"],
    );
    let page = relay.addr_of("ws");
    let ask = |fields: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: {page}\r\n{fields}\r\n");
        exchange(TcpStream::connect(page).unwrap(), &request)
    };
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    // `alice:swordfish`, and `:sword`.
    let right = "Authorization: Basic YWxpY2U6c3dvcmRmaXNo\r\n";
    let wrong = "Authorization: Basic OnN3b3Jk\r\n";
    for fields in ["", upgrade, wrong, &[upgrade, wrong].concat()] {
        let response = ask(fields);
        assert!(
            response.starts_with("HTTP/1.1 401 Unauthorized\r\n"),
            "{fields}: {response}"
        );
        let asks = "\r\nWWW-Authenticate: Basic realm=\"chatloop\", charset=\"UTF-8\"\r\n";
        assert!(response.contains(asks), "{response}");
    }
    relay.log_line("no password");
    relay.log_line("a wrong password (limit: --password-file)");
    assert!(ask(right).starts_with("HTTP/1.1 200 OK\r\n"));
    let mut member = TcpStream::connect(page).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {page}\r\n{upgrade}{right}\r\n");
    member.write_all(request.as_bytes()).unwrap();
    let mut status = [0; 12];
    member.read_exact(&mut status).unwrap();
    assert_bytes(&status, b"HTTP/1.1 101");
    // Prometheus, and a tutorial's client, cannot be asked.
    assert!(get(relay.addr_of("metrics"), "/healthz").contains("ok"));
    let mut alice = TcpStream::connect(relay.addr_of("chat10")).unwrap();
    alice.write_all(&frame("alice")).unwrap();
    relay.log_line("joined: \"alice\"");
}

#[test]
fn listener_that_a_password_does_not_protect_is_warned_of_if_others_reach_it() {
    let file = TextFile::new("password-warned", "swordfish");
    let args = [
        "serve",
        "-l",
        "ws://127.0.0.1:0",
        "-l",
        "127.0.0.1:0",
        "-l",
        "chat64://0.0.0.0:0",
    ];
    let mut relay = Relay::spawn(chatloop(
        &[&args[..], &["--password-file", file.path()]].concat(),
    ));
    let warning = relay.log_line("--password-file does not protect");
    assert!(
        warning.contains("does not protect chat64://0.0.0.0:0: its protocol"),
        "{warning}"
    );
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(
        (code, log.matches("does not protect").count()),
        (0, 0),
        "{log}"
    );
}

#[test]
fn file_without_a_password_stops_the_start() {
    for (text, why) in [
        ("", "its first line is empty; write the password there"),
        (
            "\nswordfish\n",
            "its first line is empty; write the password there",
        ),
        (&"x".repeat(1025), "the password is longer than 1,024 bytes"),
    ] {
        let file = TextFile::new("no-password", text);
        let path = file.path();
        let (code, _, err) = run(&mut chatloop(&[
            "serve",
            "-l",
            "ws://127.0.0.1:0",
            "--password-file",
            path,
        ]));
        assert_eq!(
            (code, err),
            (
                2,
                format!("chatloop: cannot use --password-file {path}: {why}\n")
            )
        );
    }
}
