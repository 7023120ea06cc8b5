//! The program itself: what it prints, how it ends, what it does on signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::common::process::{Relay, chatloop, listening_on, run};
use crate::common::terminal::{Ended, Terminal};
use crate::common::{self, PATIENCE, assert_bytes, delivery, frame, wide_frame};

#[test]
fn first_line_has_the_address_and_the_number_of_clients() {
    let mut relay = Relay::start(&["--max-clients", "50"]);
    let line = relay.lines[0].clone();
    let version = env!("CARGO_PKG_VERSION");
    let start = format!("chatloop {version} listens on chat10://{};", relay.addr);
    assert!(line.starts_with(&start), "{line}");
    assert!(
        line.contains("room for 50 clients (open-file limit "),
        "{line}"
    );
    relay.signal("TERM");
    relay.wait();
}

#[test]
fn wildcard_is_reported_with_an_address_for_other_machines() {
    let mut command = chatloop(&["serve", "-l", "0.0.0.0:0", "-l", "hello://0.0.0.0:0"]);
    command.args(["-l", "127.0.0.1:0"]).stderr(Stdio::piped());
    let mut relay = Relay::spawn(command);
    let mut own: Vec<_> = if_addrs::get_if_addrs()
        .unwrap()
        .into_iter()
        .filter(|interface| !interface.is_loopback() && interface.ip().is_ipv4())
        .filter(|interface| !interface.is_link_local())
        .map(|interface| interface.ip())
        .collect();
    own.sort_unstable();
    for dialect in ["chat10", "hello"] {
        let port = relay.addr_of(dialect).port();
        let line = relay.log_line(dialect);
        match (own.first(), dialect) {
            (None, _) => assert!(line.contains("is on no network"), "{line}"),
            (Some(ip), "chat10") => {
                let command = format!("chat10 from other machines: chatloop join {ip}:{port}");
                assert!(line.starts_with(&command), "{line}");
            }
            (Some(ip), _) => {
                let where_to = format!("hello from other machines: connect to {ip}, port {port}");
                assert!(line.starts_with(&where_to), "{line}");
            }
        }
    }
    relay.signal("TERM");
    let (_, log) = relay.wait();
    assert!(
        !log.contains("other machines"),
        "nobody else reaches 127.0.0.1: {log}"
    );
}

#[test]
fn log_counts_the_members_by_dialect() {
    let mut relay = Relay::serving(&["chat10", "chat64", "greet10"], &[]);
    let mut alice = TcpStream::connect(relay.addr_of("chat10")).unwrap();
    alice.write_all(&frame("alice")).unwrap();
    let line = relay.log_line("joined:");
    assert!(line.starts_with("joined: \"alice\" 127.0.0.1:"), "{line}");
    assert!(line.ends_with(", 1 member (1 chat10)"), "{line}");
    let chat64 = TcpStream::connect(relay.addr_of("chat64")).unwrap();
    let line = relay.log_line("joined:");
    let who = format!("joined: chat64 {}, ", chat64.local_addr().unwrap());
    assert_eq!(line, who + "2 members (1 chat10, 1 chat64)");
    let _audience = TcpStream::connect(relay.addr_of("greet10")).unwrap();
    let line = relay.log_line("joined: greet10 ");
    assert!(
        line.ends_with("3 members (1 chat10, 1 chat64, 1 greet10)"),
        "{line}"
    );

    relay.signal("USR1");
    let line = relay.log_line("SIGUSR1: ");
    assert_eq!(
        line,
        "SIGUSR1: 3 members (1 chat10, 1 chat64, 1 greet10), 0 without a name; 0 lagging, 0 bytes held"
    );
    let head = relay.log_line("address ");
    let cells: Vec<_> = head.split_whitespace().collect();
    let expected = [
        "address", "dialect", "age", "sent", "received", "pending", "name",
    ];
    assert_eq!(cells, expected);
    let row = relay.log_line("alice");
    assert!(row.contains("  chat10 "), "{row}");
    relay.log_line("  greet10 ");
    drop(alice);
    let left = relay.log_line("left: \"alice\"");
    assert!(
        left.ends_with(": closed the connection, 2 members (1 chat64, 1 greet10)"),
        "{left}"
    );
}

#[test]
fn new_members_receive_the_history() {
    let mut relay = Relay::start(&["--history", "2"]);
    let mut alice = relay.join("alice");
    let mut bob = relay.join("bob");
    let mut got = Vec::new();
    for text in ["one", "two", "three"] {
        alice.write_all(&frame(text)).unwrap();
        let mut message = vec![0; delivery("alice", text).len()];
        bob.read_exact(&mut message).unwrap();
        got.extend(message);
    }
    let mut carol = relay.join("carol");
    let expected = [delivery("alice", "two"), delivery("alice", "three")].concat();
    let mut received = vec![0; expected.len()];
    carol.read_exact(&mut received).unwrap();
    assert_bytes(&received, &expected);
    assert!(got.ends_with(&expected));
}

#[test]
fn greeting_is_read_from_a_file() {
    let path = std::env::temp_dir().join(format!("chatloop-greeting-{}", std::process::id()));
    let pickled = b"\x80\x04}\x94\x8c\x01a\x94K\x01s.";
    std::fs::write(&path, pickled).unwrap();
    let file = path.to_str().unwrap();
    let relay = Relay::serving(&["greet10"], &["--greeting-file", file, "--every", "off"]);
    let mut client = TcpStream::connect(relay.addr_of("greet10")).unwrap();
    let mut received = vec![0; 10 + pickled.len()];
    client.read_exact(&mut received).unwrap();
    assert_bytes(&received, &frame(pickled));

    let flags = ["serve", "--greeting-file", file, "--queue-limit", "2MiB"];
    std::fs::write(&path, vec![b'!'; 1_048_577]).unwrap();
    let (code, _, err) = run(&mut chatloop(&flags));
    std::fs::remove_file(&path).unwrap();
    let says = "the greeting is over half of the --queue-limit of 2097152 bytes";
    assert_eq!(code, 2);
    assert!(err.contains(says), "{err}");
    // Which has no end.
    let endless = ["serve", "--greeting-file", "/dev/zero"];
    let (code, _, err) = run(&mut chatloop(&endless));
    assert_eq!(code, 2);
    assert!(err.contains("the greeting is over half of the"), "{err}");
    let (code, _, err) = run(&mut chatloop(&flags));
    assert_eq!(code, 2);
    let says = format!("cannot read --greeting-file {file}: No such file");
    assert!(err.contains(&says), "{err}");
}

#[test]
fn two_clients_chat_and_the_log_reports_their_joining_and_leaving() {
    let mut relay = Relay::start(&[]);
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob\n\x1b[2J\u{202e}"));
    alice.write_all(&frame("hello")).unwrap();
    let mut got = vec![0; delivery("alice", "hello").len()];
    bob.read_exact(&mut got).unwrap();
    assert_bytes(&got, &delivery("alice", "hello"));
    assert!(
        relay.lines[1].starts_with("joined: \"alice\" 127.0.0.1:"),
        "{:?}",
        relay.lines
    );
    assert!(relay.lines[1].ends_with(", 1 member"), "{:?}", relay.lines);
    let bob_joined = "joined: \"bob\\n\\u{1b}[2J\\u{202e}\" 127.0.0.1:";
    assert!(relay.lines[2].starts_with(bob_joined), "{:?}", relay.lines);

    drop(bob);
    let left = relay.log_line("left: \"bob");
    assert!(
        left.ends_with(": closed the connection, 1 member"),
        "{left}"
    );
    alice.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let left = relay.log_line("closed: \"alice\"");
    assert!(
        left.ends_with("not a header: \"GET / HTTP\" (an HTTP request?), 0 members"),
        "{left}"
    );

    relay.signal("INT");
    let (code, log) = relay.wait();
    assert_eq!(code, 0);
    assert!(
        log.contains("SIGINT: stopping, 0 members, no output pending"),
        "{log}"
    );
    assert!(
        log.contains("accepted 2, refused 0, joined 2, peak 2, messages 1, "),
        "{log}"
    );
}

#[test]
fn member_that_ends_its_input_receives_its_answers_and_is_closed() {
    let mut relay = Relay::serving(&["chat10", "chat64"], &[]);
    let _alice = relay.join("alice");
    let mut script = TcpStream::connect(relay.addr_of("chat64")).unwrap();
    script.set_read_timeout(Some(PATIENCE)).unwrap();
    for text in ["one", "two", "three"] {
        script.write_all(&wide_frame(text)).unwrap();
    }
    script.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    script.read_to_end(&mut received).unwrap();
    assert_bytes(&received, &b"Message was Sent!".repeat(3));
    let left = relay.log_line("left: chat64 ");
    assert!(
        left.ends_with(": closed the connection, 1 member (1 chat10)"),
        "{left}"
    );
}

/// A relay that is full and paused: `slow` does not read what `alice` sends. The third member, of
/// `ack64`, receives nothing and so cannot be slow.
fn full_and_paused_relay() -> (Relay, [TcpStream; 3]) {
    // No time limit ends the pause.
    let flags = [
        "--max-clients=3",
        "--soft-limit=100KiB",
        "--slow-timeout=1h",
    ];
    let mut relay = Relay::serving(&["chat10", "ack64"], &flags);
    let bob = TcpStream::connect(relay.addr_of("ack64")).unwrap();
    relay.log_line("joined: ack64");
    let (slow, mut alice) = (relay.join("slow"), relay.join("alice"));
    alice.set_nonblocking(true).unwrap();
    let message = frame(vec![b'x'; 10_000]);
    let mut sent = 0;
    common::process::wait_for("the relay to pause", || {
        for _ in 0..100 {
            let rest = &message[sent % message.len()..];
            sent += alice.write(rest).unwrap_or_default();
        }
        relay
            .try_log_line("senders paused: slow reader \"slow\"")
            .is_some()
    });
    (relay, [slow, alice, bob])
}

#[test]
fn slow_reader_pauses_the_senders_and_the_log_reports_it() {
    let (mut relay, [mut slow, _alice, _bob]) = full_and_paused_relay();
    let line = relay.lines.last().unwrap();
    assert!(line.ends_with(" bytes (limit: --soft-limit)"), "{line}");
    relay.signal("USR1");
    let line = relay.log_line("SIGUSR1: 3 members");
    assert!(line.ends_with("; senders are paused"), "{line}");
    slow.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 1 << 16];
    common::process::wait_for("the pause to end", || {
        while slow.read(&mut buffer).is_ok() {}
        relay.try_log_line("senders resumed after ").is_some()
    });
}

#[test]
fn peer_that_is_gone_is_evicted_from_a_full_and_paused_relay() {
    let (mut relay, [_slow, _alice, mut bob]) = full_and_paused_relay();
    let mut refused = relay.connect();
    assert_eq!(refused.read(&mut [0; 1]).unwrap(), 0);
    relay.log_line("all 3 places are taken (limit: --max-clients)");
    bob.write_all(&wide_frame("last words")).unwrap();
    drop(bob);
    let connect = |relay: &Relay| {
        let mut dave = relay.connect();
        dave.write_all(&frame("dave")).unwrap();
        dave.set_nonblocking(true).unwrap();
        dave
    };
    let (mut dave, mut evicted) = (connect(&relay), None);
    common::process::wait_for("the eviction", || {
        evicted = relay.try_log_line("closed: ack64 ");
        // On a busy machine the kernel may deliver this connection before the end of the other one.
        let is_pending = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        if evicted.is_none() && !dave.peek(&mut [0; 1]).is_err_and(is_pending) {
            dave = connect(&relay);
        }
        evicted.is_some()
    });
    let evicted = evicted.unwrap();
    let says =
        ": evicted: relay full (limit: --max-clients), 74 bytes unread, 2 members (2 chat10)";
    assert!(evicted.ends_with(says), "{evicted}");
    relay.log_line("joined: \"dave\"");
    relay.signal("TERM");
    relay.log_line("SIGTERM: stopping");
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, 0);
    assert!(log.contains("evicted 1"), "{log}");
    assert!(!log.contains("bytes discarded 0"), "{log}");
}

#[test]
fn limit_that_is_met_is_logged_with_its_flag() {
    let mut relay = Relay::start(&["--max-clients=2", "--max-message=10", "--max-name=3"]);
    let mut stranger = relay.connect();
    stranger.write_all(&frame("long name")).unwrap();
    let line = relay.log_line("closed:");
    assert!(
        line.contains("announced 9 bytes where 3 are the limit (limit: --max-name)"),
        "{line}"
    );
    let mut ann = relay.join("ann");
    ann.write_all(b"11        ").unwrap();
    let line = relay.log_line("closed: \"ann\"");
    assert!(line.contains("(limit: --max-message), 0 members"), "{line}");
    let _members = (relay.join("bob"), relay.join("cat"));
    let mut refused = relay.connect();
    assert_eq!(refused.read(&mut [0; 1]).unwrap(), 0);
    relay.log_line("all 2 places are taken (limit: --max-clients)");
}

#[test]
fn connection_without_a_name_is_closed_after_the_handshake_timeout() {
    let mut relay = Relay::start(&["--handshake-timeout=50ms"]);
    let mut silent = relay.connect();
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    let line = relay.log_line("closed: 127.0.0.1:");
    assert!(
        line.contains("sent no name in time (limit: --handshake-timeout)"),
        "{line}"
    );
}

/// The kernel's timer on the relay's side of a connection, as /proc/net/tcp has it: "02" is
/// keepalive.
#[cfg(target_os = "linux")]
#[test]
fn keepalive_flag_reaches_the_connections() {
    for (flag, timer) in [("--keepalive=30s", "02"), ("--keepalive=off", "00")] {
        let mut relay = Relay::start(&[flag]);
        let alice = relay.join("alice");
        let (ours, theirs) = (relay.addr.port(), alice.local_addr().unwrap().port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|line| {
                line[1].ends_with(&format!(":{ours:04X}"))
                    && line[2].ends_with(&format!(":{theirs:04X}"))
            });
        let active = line.expect("the connection is in the table")[5];
        assert_eq!(active.split(':').next(), Some(timer), "{flag}");
    }
}

#[test]
fn soft_open_file_limit_is_raised_and_too_low_a_hard_one_is_an_error() {
    let with_limits = |limits: &str| {
        let mut command = std::process::Command::new("sh");
        let program = env!("CARGO_BIN_EXE_chatloop");
        let script = format!("{limits}; exec {program} serve --listen 127.0.0.1:0");
        command.args(["-c", &script]);
        command
    };
    let relay = Relay::spawn(with_limits("ulimit -Sn 64; ulimit -Hn 200"));
    let start = "room for 183 clients (open-file limit 200)";
    assert!(relay.lines[0].ends_with(start), "{:?}", relay.lines);
    let (code, _, err) = run(&mut with_limits("ulimit -n 10"));
    assert_eq!(code, 1, "{err}");
    assert!(
        err.starts_with("chatloop: the open-file limit of 10 leaves no room"),
        "{err}"
    );
}

#[test]
fn sigterm_stops_the_relay_at_once_when_no_output_is_pending() {
    let mut relay = Relay::start(&["--drain=1h"]);
    let mut alice = relay.join("alice");
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, 0, "{log}");
    assert!(
        log.contains("SIGTERM: stopping, 1 member, no output pending"),
        "{log}"
    );
    assert_eq!(alice.read(&mut [0; 1]).unwrap(), 0, "a FIN, not a reset");
}

#[test]
fn sighup_changes_nothing() {
    let mut relay = Relay::start(&[]);
    relay.signal("HUP");
    relay.log_line("SIGHUP: there is no configuration to reload");
    relay.join("alice");
}

/// A relay on a terminal of its own, by way of a shell, and a member of it. The shell leads the
/// session: without it the kernel hangs the terminal up.
fn relay_on_a_terminal() -> (Terminal, SocketAddr) {
    let relay = chatloop(&["serve", "--listen", "127.0.0.1:0"]);
    let mut command = Command::new("sh");
    command.args(["-c", "\"$@\"; :", "sh"]);
    command.arg(relay.get_program()).args(relay.get_args());
    let mut terminal = Terminal::run(&command, 24, 200);
    terminal.wait_for_text("listens on");
    let output = String::from_utf8_lossy(terminal.output()).into_owned();
    (terminal, listening_on(&output))
}

/// Two members of a relay; `ear` has received a message of the other, so both are registered.
fn sender_and_ear(addr: SocketAddr) -> (TcpStream, TcpStream) {
    let connect = |name| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&frame(name)).unwrap();
        stream
    };
    let (mut alice, ear) = (connect("alice"), connect("ear"));
    let mut got = [0; 1];
    ear.set_nonblocking(true).unwrap();
    common::process::wait_for("the ear to hear alice", || {
        alice.write_all(&frame("hello")).unwrap();
        ear.peek(&mut got).is_ok()
    });
    ear.set_nonblocking(false).unwrap();
    (alice, ear)
}

#[test]
fn relay_stops_with_a_drain_when_its_terminal_is_closed() {
    let (mut terminal, addr) = relay_on_a_terminal();
    let (mut alice, mut ear) = sender_and_ear(addr);
    alice.write_all(&frame("last words")).unwrap();
    terminal.signal("KILL");
    let mut got = Vec::new();
    ear.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(&delivery("alice", "last words")));
    assert_eq!(alice.read(&mut [0; 1]).unwrap(), 0, "a FIN, not a reset");
    common::process::wait_for("the port to be free", || TcpListener::bind(addr).is_ok());
}

#[test]
fn second_hang_up_does_not_cut_the_drain_short() {
    let mut relay = chatloop(&["serve", "--listen", "127.0.0.1:0"]);
    relay.args(["--drain", "1h", "--queue-limit", "1GiB"]);
    let mut terminal = Terminal::run(&relay, 24, 200);
    terminal.wait_for_text("listens on");
    let addr = listening_on(&String::from_utf8_lossy(terminal.output()));
    let (mut alice, mut ear) = sender_and_ear(addr);
    // More than the kernel's buffers take, so that the drain waits for the ear.
    let message = vec![b'x'; 1_000_000];
    for _ in 0..10 {
        alice.write_all(&frame(&message)).unwrap();
    }
    alice.shutdown(Shutdown::Write).unwrap();
    terminal.wait_for_text("left: \"alice\"");
    terminal.signal("HUP");
    terminal.wait_for_text("SIGHUP: stopping, 1 member, 1 of them with output pending");
    terminal.signal("HUP");
    let mut got = Vec::new();
    ear.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(&delivery("alice", &message)));
    assert_eq!(terminal.wait(), Ended::Code(0));
}

/// A relay with one member, `slow`, for which megabytes are pending. Returns them and what was published.
fn relay_with_pending_output(args: &[&str]) -> (Relay, TcpStream, Vec<u8>) {
    let mut relay = Relay::start(&[args, &["--queue-limit=1GiB"]].concat());
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    let slow = relay.join("slow");
    let mut published = Vec::new();
    for i in 0..150 {
        let message = format!("{i:>60000}");
        alice.write_all(&frame(&message)).unwrap();
        let expected = delivery("alice", &message);
        let mut got = vec![0; expected.len()];
        bob.read_exact(&mut got).unwrap();
        assert_bytes(&got, &expected);
        published.extend(expected);
    }
    drop((alice, bob));
    relay.log_line("left: ");
    relay.log_line("left: ");
    (relay, slow, published)
}

#[test]
fn pending_output_is_delivered_before_the_relay_stops() {
    let (mut relay, mut slow, sent) = relay_with_pending_output(&["--drain=1h"]);
    relay.signal("TERM");
    let line = relay.log_line("SIGTERM: stopping, 1 member, ");
    assert!(
        line.contains("1 of them with output pending, ") && !line.contains(", 0 bytes"),
        "the test must leave output pending: {line}"
    );
    let mut got = Vec::new();
    slow.read_to_end(&mut got).unwrap();
    assert_bytes(&got, &sent);
    let (code, log) = relay.wait();
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("did not read"), "{log}");
}

#[test]
fn output_that_is_not_read_ends_with_the_drain() {
    let (mut relay, _slow, _) = relay_with_pending_output(&["--drain=100ms"]);
    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, 0, "{log}");
    assert!(
        log.contains("1 member did not read pending output in time (limit: --drain)"),
        "{log}"
    );
}

#[test]
fn second_signal_stops_the_relay_at_once() {
    let (mut relay, _slow, _) = relay_with_pending_output(&["--drain=1h"]);
    relay.signal("TERM");
    relay.log_line("SIGTERM: stopping");
    relay.signal("INT");
    let (code, log) = relay.wait();
    assert_eq!(code, 0, "{log}");
    assert!(
        log.contains("SIGINT while stopping: stopping at once"),
        "{log}"
    );
}

#[test]
fn port_in_use_has_an_exit_code_and_a_line_of_its_own() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (code, out, err) = run(&mut chatloop(&["serve", "-l", &addr]));
    assert_eq!((code, &*out), (3, ""));
    let expected = format!(
        "chatloop: cannot listen on {addr}: the port is in use; stop the program that has it, or \
         choose another port\n"
    );
    assert_eq!(err, expected);
}

#[test]
fn address_of_another_machine_is_reported() {
    // A documentation address (RFC 5737) belongs to no machine.
    let (code, _, err) = run(&mut chatloop(&["serve", "-l", "198.51.100.1:1234"]));
    assert_eq!(code, 3);
    assert!(
        err.starts_with("chatloop: cannot listen on 198.51.100.1:1234: not an address of"),
        "{err}"
    );
    assert_eq!(err.lines().count(), 1);
}

#[test]
fn name_without_an_address_has_the_exit_code_of_one_that_cannot_be_listened_on() {
    let addr = "nosuch.invalid:1234";
    let by_flag = chatloop(&["serve", "--listen", addr]);
    let mut by_variable = chatloop(&["serve"]);
    by_variable.env("CHATLOOP_LISTEN", addr);
    for mut command in [by_flag, by_variable] {
        let (code, out, err) = run(&mut command);
        assert_eq!((code, &*out), (3, ""), "{err}");
        let says = "chatloop: cannot find the address of nosuch.invalid: ";
        assert!(err.starts_with(says), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn port_without_an_address_is_one_of_this_machine_for_serve_and_join() {
    let mut command = chatloop(&["serve", "-l", "0", "-l", "chat64://0"]);
    command.args(["-l", "hello://127.0.0.2:0"]);
    let mut relay = Relay::spawn(command);
    for dialect in ["chat10", "chat64"] {
        let ip = relay.addr_of(dialect).ip();
        assert!(ip.is_loopback() && ip.to_string() == "127.0.0.1", "{ip}");
    }
    let port = relay.addr_of("chat10").port().to_string();
    let (code, out, err) = run(&mut chatloop(&["join", &port, "-n", "me", "-q"]));
    assert_eq!((code, &*out, &*err), (0, "", ""));
    relay.log_line("joined: \"me\" 127.0.0.1:");
}

#[test]
fn wrong_usage_exits_with_2_and_names_a_remedy() {
    for (args, says) in [
        (
            &["serve", "-l", "irc://127.0.0.1:1"][..],
            "the known ones: chat10",
        ),
        (
            &["serve", "-l", ":1234"],
            "not ADDR:PORT; write 127.0.0.1:1234",
        ),
        (
            &["serve", "-l", "1234:1234"],
            "1234 is not an address; write 127.0.0.1:1234 for this machine",
        ),
        (&["join", "1234:1234"], "write 127.0.0.1:1234"),
        (&["serve", "--max-message", "lots"], "64KiB"),
        (&["serve", "--drain", "5"], "10s or 2min"),
        (&["serve", "--handshake-timeout", "0s"], "more than zero"),
        (
            &["serve", "--queue-limit", "1MiB"],
            "at least 1048852, or lower --max-message",
        ),
        (
            &["serve", "--max-name", "1GiB"],
            "at least 1074790420, or lower --max-name",
        ),
        (&["serve", "-l", "::1:1234"], "write [::1]:1234"),
        (&["serve", "-l", "[fe80::1]:1"], "as in [fe80::1%2]:1 "),
        (
            &["serve", "--max-message", "10GB", "--queue-limit", "20GB"],
            "at most 9999999999",
        ),
        (&["serve", "--max-clients", "0"], "from 1 up"),
        (
            &["serve", "-l", "127.0.0.1:1,127.0.0.1:1"],
            "127.0.0.1:1 is given twice",
        ),
        (&["serve", "--keepalive", "12h"], "at most 32767s"),
        (
            &["serve", "--max-clients", "18446744073709551615"],
            "the open-file limit of",
        ),
        (&["serve", "--no-such-flag"], "--no-such-flag"),
        (&["listen"], "unrecognized subcommand"),
        (&[], "Usage: chatloop"),
    ] {
        let (code, out, err) = run(&mut chatloop(args));
        assert_eq!((code, &*out), (2, ""), "{args:?}: {err}");
        assert!(err.contains(says), "{args:?}: {err}");
    }
}

#[test]
fn every_flag_is_an_environment_variable_too() {
    for (name, value, says) in [
        (
            "CHATLOOP_LISTEN",
            "irc://127.0.0.1:1",
            "the known ones: chat10",
        ),
        (
            "CHATLOOP_MAX_CLIENTS",
            "18446744073709551615",
            "the open-file limit of",
        ),
        (
            "CHATLOOP_MAX_CLIENTS",
            "x",
            "invalid value 'x' for '--max-clients <N> (from CHATLOOP_MAX_CLIENTS)': not a count",
        ),
        ("CHATLOOP_MAX_NAME", "10GB", "--max-name"),
        ("CHATLOOP_MAX_MESSAGE", "10GB", "--max-message"),
        ("CHATLOOP_HANDSHAKE_TIMEOUT", "0s", "more than zero"),
        ("CHATLOOP_QUEUE_LIMIT", "1", "--queue-limit of 1 bytes"),
        ("CHATLOOP_KEEPALIVE", "no", "`off`"),
        ("CHATLOOP_DRAIN", "soon", "--drain"),
        ("CHATLOOP_FAREWELL_TIMEOUT", "0s", "more than zero"),
        ("CHATLOOP_HISTORY", "all", "not a number from 0 to "),
        ("CHATLOOP_EVERY", "0s", "write `off` for never"),
        (
            "CHATLOOP_GREETING_FILE",
            "/",
            "cannot read --greeting-file /: ",
        ),
        ("CHATLOOP_LOG_LEVEL", "loud", "--log-level"),
    ] {
        let (code, _, err) = run(chatloop(&["serve"]).env(name, value));
        assert_eq!(code, 2, "{name}: {err}");
        assert!(err.contains(says), "{name}: {err}");
    }
    // It is not named for a message that it has not sent.
    let mut command = chatloop(&["serve", "--max-clients", "y"]);
    let (_, _, err) = run(command.env("CHATLOOP_MAX_CLIENTS", "x"));
    let says = "error: invalid value 'y' for '--max-clients <N>': not a count";
    assert!(err.starts_with(says), "{err}");
    let mut command = chatloop(&["serve"]);
    command.env("CHATLOOP_LISTEN", "127.0.0.1:0,127.0.0.2:0");
    let relay = Relay::spawn(command);
    assert!(
        relay.lines[0].contains(", chat10://127.0.0.2:"),
        "{:?}",
        relay.lines
    );
}

#[test]
fn variable_that_is_none_is_warned_of_with_the_one_that_is_near() {
    let mut command = chatloop(&["serve", "-l", "127.0.0.1:0"]);
    command.env("CHATLOOP_MAX_CLIENT", "5");
    command.env("CHATLOOP_COLOUR\n", "blue");
    // Of another command, and unset.
    command.env("CHATLOOP_NAME", "me").env("CHATLOOP_PORT", "");
    let relay = Relay::spawn(command);
    let warnings = [
        "CHATLOOP_COLOUR\\n is no variable of chatloop; `--help` lists the flags",
        "CHATLOOP_MAX_CLIENT is no variable of chatloop; did you mean CHATLOOP_MAX_CLIENTS?",
    ];
    assert_eq!(relay.lines[..2], warnings);
    assert!(relay.lines[2].contains("listens on"), "{:?}", relay.lines);

    for args in [
        &["join", &relay.addr.to_string(), "-n", "me", "-q"][..],
        &["load", "idle", "--members", "2", "--for", "1ms"],
    ] {
        let mut command = chatloop(args);
        let (code, _, err) = run(command.env("CHATLOOP_SERVR", "chat.example.org"));
        assert_eq!(code, 0, "{err}");
        let warning =
            "chatloop: CHATLOOP_SERVR is no variable of chatloop; did you mean CHATLOOP_SERVER?";
        assert_eq!(err.matches("CHATLOOP_SERVR").count(), 1, "{err}");
        assert_eq!(err.lines().next(), Some(warning));
    }
}

#[test]
fn empty_variable_counts_as_unset() {
    let mut command = chatloop(&["serve"]);
    for name in ["MAX_CLIENTS", "DRAIN", "GREETING_FILE", "LOG_LEVEL", "ACK"] {
        command.env(format!("CHATLOOP_{name}"), "");
    }
    command.env("CHATLOOP_LISTEN", "127.0.0.1:0,chat64://0");
    let mut relay = Relay::spawn(command);
    let mut client = TcpStream::connect(relay.addr_of("chat64")).unwrap();
    client.write_all(&wide_frame("hello")).unwrap();
    let mut answer = *b"Message was Sent!";
    client.read_exact(&mut answer).unwrap();
    assert_bytes(&answer, b"Message was Sent!");

    let addr = relay.addr.to_string();
    let mut command = chatloop(&["join", &addr, "-q"]);
    command.env("CHATLOOP_NAME", "").env("LOGNAME", "carol");
    let (code, out, err) = run(&mut command);
    assert_eq!((code, &*out, &*err), (0, "", ""));
    relay.log_line("joined: \"carol\" 127.0.0.1:");

    // A flag may be empty all the same.
    let (code, _, err) = run(&mut chatloop(&["serve", "--listen", ""]));
    assert_eq!(code, 2);
    assert!(err.contains("not ADDR:PORT"), "{err}");
}

#[test]
fn log_level_flag_wins_over_rust_log_which_wins_over_info() {
    let joined_at_info = |rust_log: Option<&str>, flag: Option<&str>| {
        let mut command = chatloop(&["serve", "-l", "127.0.0.1:0"]);
        if let Some(level) = rust_log {
            command.env("RUST_LOG", level);
        }
        if let Some(level) = flag {
            command.args(["--log-level", level]);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        // An end of the log without a line, or a line, whichever the level allows.
        let mut log = child.stderr.take().unwrap();
        let pid = child.id().to_string();
        common::process::wait_for("the signal handlers", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let caught = status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))
                .unwrap();
            u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
        });
        std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap();
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        text.contains("listens on")
    };
    if !std::path::Path::new("/proc/self/status").exists() {
        common::skip("no /proc to see the signal handlers in");
        return;
    }
    assert!(joined_at_info(None, None));
    assert!(!joined_at_info(Some("warn"), None));
    assert!(joined_at_info(Some("warn"), Some("info")));
    assert!(!joined_at_info(Some("info"), Some("off")));
}

#[test]
fn log_without_a_reader_does_not_stop_the_relay() {
    let (log, stderr) = std::io::pipe().unwrap();
    let mut child = chatloop(&["serve", "-l", "127.0.0.1:0"])
        .stderr(stderr)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut log = BufReader::new(log);
    log.read_line(&mut line).unwrap();
    drop(log);
    let connect = |name| {
        let mut stream = TcpStream::connect(listening_on(&line)).unwrap();
        stream.write_all(&frame(name)).unwrap();
        stream
    };
    let (mut alice, bob) = (connect("alice"), connect("bob"));
    let expected = delivery("alice", "hello");
    let mut got = vec![0; expected.len()];
    // Bob may not be registered yet when alice sends for the first time.
    bob.set_nonblocking(true).unwrap();
    common::process::wait_for("bob to hear alice", || {
        alice.write_all(&frame("hello")).unwrap();
        bob.peek(&mut got)
            .is_ok_and(|peeked| peeked == expected.len())
    });
    assert_bytes(&got, &expected);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn standard_streams_that_are_closed_are_not_mistaken_for_clients() {
    let mut command = std::process::Command::new("sh");
    let script = format!(
        "exec {} serve --listen 127.0.0.1:0 <&- >&-",
        env!("CARGO_BIN_EXE_chatloop")
    );
    command.args(["-c", &script]);
    let mut relay = Relay::spawn(command);
    let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
    alice.write_all(&frame("hello")).unwrap();
    let mut got = vec![0; delivery("alice", "hello").len()];
    bob.read_exact(&mut got).unwrap();
    assert_bytes(&got, &delivery("alice", "hello"));
}

#[test]
fn longest_time_is_accepted() {
    let forever = "500000000000years";
    let mut relay = Relay::start(&["--handshake-timeout", forever, "--drain", forever]);
    relay.join("alice");
    relay.signal("TERM");
    assert_eq!(relay.wait().0, 0);
}

/// Timestamps have years of four digits.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn clock_after_the_year_9999_ends_neither_relay_nor_client() {
    let Some(shim) = common::shim::compiled("clock_shim") else {
        return;
    };
    let year_10000 = "253402300800";
    let with_clock = |args: &[&str]| {
        let mut command = chatloop(args);
        command
            .env("LD_PRELOAD", &shim)
            .env("SHIM_CLOCK", year_10000);
        command
    };
    let serve = ["serve", "-l", "127.0.0.1:0", "-l", "greet10://127.0.0.1:0"];
    let mut relay = Relay::spawn(with_clock(&[&serve[..], &["--every", "1ms"]].concat()));
    let mut audience = TcpStream::connect(relay.addr_of("greet10")).unwrap();
    relay.log_line("joined: greet10");
    let mut received = vec![0; 32 + 10 + b"The time is 253402300800".len()];
    audience.read_exact(&mut received).unwrap();
    assert!(
        received.ends_with(b"The time is 253402300800"),
        "{received:?}"
    );

    let addr = relay.addr.to_string();
    let mut client = with_clock(&["join", &addr, "-n", "me", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    relay.log_line("joined: \"me\"");
    let mut alice = relay.join("alice");
    alice.write_all(&frame("hello")).unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(client.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert!(
        line.starts_with(r#"{"time":"9999-12-30T22:00:00.999Z","#),
        "{line}"
    );
    drop(client.stdin.take());
    assert_eq!(client.wait().unwrap().code(), Some(0));

    relay.signal("TERM");
    let (code, log) = relay.wait();
    assert_eq!(code, 0, "{log}");
    let start = "[9999-12-30T22:00:00Z INFO ] ";
    assert!(log.lines().all(|line| line.starts_with(start)), "{log}");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let (code, out, err) = run(&mut chatloop(&["--version"]));
    assert_eq!((code, &*err), (0, ""));
    assert_eq!(out, format!("chatloop {}\n", env!("CARGO_PKG_VERSION")));
    for args in [&["--help"][..], &["serve", "-h"], &["serve", "--help"]] {
        let (code, out, err) = run(&mut chatloop(args));
        assert_eq!((code, &*err), (0, ""));
        assert!(out.contains("Usage: chatloop"), "{out}");
    }
    let (_, long, _) = run(&mut chatloop(&["serve", "--help"]));
    for flag in [
        "listen",
        "max-clients",
        "max-name",
        "max-message",
        "handshake-timeout",
        "queue-limit",
        "keepalive",
        "drain",
        "log-level",
    ] {
        assert!(long.contains(&format!("--{flag}")), "{flag}");
    }
}
