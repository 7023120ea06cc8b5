//! `chatloop top`: in a pipe and on a terminal, with relays and with servers that are none.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::common::chat_server::ScriptedServer;
use crate::common::http::SocketPath;
use crate::common::process::{Relay, chatloop, exit_code, lines_of, run, wait_for};
use crate::common::terminal::{Ended, Terminal, bash};
use crate::common::web_server::read_request;
use crate::common::{PATIENCE, frame};

/// A relay with an admin socket at this path and a listener for metrics.
fn relay_at(path: &SocketPath) -> Relay {
    Relay::serving(&["chat10", "metrics"], &["--admin", path.as_str()])
}

/// A view of this relay, with samples in quick succession.
fn top(relay: &str, args: &[&str]) -> Command {
    chatloop(&[&["top", relay, "--interval", "50ms"], args].concat())
}

/// Answers each request with these bytes, and then ends the connection, until the test ends.
fn server_of(response: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // All of the request, so that closing sends no reset.
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let _ = stream.write_all(&response);
        }
    });
    addr
}

#[test]
fn each_sample_is_a_line_in_a_pipe_and_the_program_ends_after_the_last() {
    let path = SocketPath::new();
    let mut relay = relay_at(&path);
    let _alice = relay.join("alice");
    let metrics = relay.addr_of("metrics").to_string();
    for name in [&metrics, path.as_str()] {
        let (code, out, err) = run(&mut top(name, &["--count", "3"]));
        assert_eq!((code, &*err), (0, ""), "{out}");
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 3, "{out}");
        for line in lines {
            let start = format!("{name}: 1 member, 0/s published, 0/s delivered, ");
            assert!(line.starts_with(&start), "{line}");
            assert!(line.ends_with(", delays p50 - p99 -"), "{line}");
        }
    }
    let url = format!("http://{metrics}/metrics");
    let unix = format!("unix:{}", path.as_str());
    let (code, out, _) = run(&mut top(&url, &[&unix, "-n", "1"]));
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
}

#[test]
fn json_of_a_sample_has_the_figures_and_rates_and_members() {
    let path = SocketPath::new();
    let mut relay = relay_at(&path);
    let mut alice = relay.join("alice");
    let _bob = relay.join("b\x1b[2Job");
    let mut child = top(path.as_str(), &["--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let mut published = 0;
    let sample: Value = loop {
        alice.write_all(&frame("hello")).unwrap();
        published += 1;
        let line = lines.recv_timeout(PATIENCE).unwrap();
        assert!(line.bytes().all(|byte| byte >= b' '), "{line}");
        let sample: Value = serde_json::from_str(&line).unwrap();
        // The members are read a moment after the metrics, so that a message may be in one of them only.
        let rates = [
            "/messages_per_second",
            "/deliveries_per_second",
            "/busy",
            "/members_table/0/sent_per_second",
        ];
        let is_positive = |path: &&str| {
            let rate = sample.pointer(path).and_then(Value::as_f64);
            rate.is_some_and(|rate| rate > 0.0)
        };
        if rates.iter().all(is_positive) {
            break sample;
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(sample["relay"], path.as_str());
    assert_eq!(sample["health"], "healthy");
    assert_eq!(sample["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&sample["members"], &sample["paused"]),
        (&2.into(), &false.into())
    );
    let messages = sample["messages_total"].as_u64().unwrap();
    assert!((1..=published).contains(&messages), "{sample}");
    assert_eq!(
        sample["messages_per_second"],
        sample["deliveries_per_second"]
    );
    assert!(sample["delivery_delay_seconds_p99"].is_f64(), "{sample}");
    assert!(sample["time"].as_str().unwrap().ends_with('Z'));
    let members = sample["members_table"].as_array().unwrap();
    let of = |key: &str| -> Vec<_> { members.iter().map(|one| one[key].clone()).collect() };
    assert_eq!(of("name"), ["alice", "b\\u{1b}[2Job"]);
    assert_eq!(of("state"), ["ok", "ok"]);
    assert_eq!(
        of("sent")[0].as_u64().unwrap(),
        of("received")[1].as_u64().unwrap()
    );
}

#[test]
fn relay_that_cannot_be_reached_is_an_error_that_says_what_to_do() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let stale = SocketPath::new();
    drop(UnixListener::bind(&*stale).unwrap());
    let missing = SocketPath::new();
    for (relay, says) in [
        (
            closed.to_string(),
            format!("connection refused; a relay answers there with --listen metrics://{closed}"),
        ),
        (
            stale.as_str().to_owned(),
            "connection refused; no relay listens there any more".to_owned(),
        ),
        (
            missing.as_str().to_owned(),
            format!(
                "there is no such socket; a relay answers there with --admin {}",
                missing.as_str()
            ),
        ),
    ] {
        let (code, out, err) = run(&mut top(&relay, &[]));
        assert_eq!((code, &*out), (4, ""), "{err}");
        assert_eq!(err, format!("chatloop: {relay}: {says}\n"));
    }
    for (relay, says) in [
        ("https://127.0.0.1", "there is no TLS"),
        ("ftp://127.0.0.1", "without ftp://"),
        (
            "http://127.0.0.1/status",
            "a relay has its figures at /metrics",
        ),
        ("127.0.0.1:0", "port 0 cannot be connected to"),
        ("", "or the path of an admin socket"),
    ] {
        let (code, _, err) = run(&mut top(relay, &[]));
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(says) && err.lines().count() == 1, "{err}");
    }
}

#[test]
fn server_that_is_no_relay_is_an_error_whatever_it_answers() {
    let ok = |body: &str| format!("HTTP/1.1 200 OK\r\n\r\n{body}").into_bytes();
    let huge = "chatloop_members 1\n".repeat(100_000);
    for (response, code, says) in [
        (
            ok("<html></html>"),
            6,
            "not the metrics of a chatloop relay",
        ),
        (ok("up 1\n"), 6, "not the metrics of a chatloop relay"),
        (
            ok("\x1b[2J\0\u{202e}"),
            6,
            "not the metrics of a chatloop relay",
        ),
        (ok(&huge), 6, "the response has more than 1048576 bytes"),
        (b"HTTP/1.1 503 No\r\n\r\n".to_vec(), 6, "the status 503"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n".to_vec(), 6, "no valid HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nchat".to_vec(),
            4,
            "ends before its end",
        ),
        (
            b"HTTP/1.1 200 OK\r\nConte".to_vec(),
            4,
            "ends before its end",
        ),
        (Vec::new(), 4, "ends before its end"),
    ] {
        let addr = server_of(response.clone()).to_string();
        let (exit, out, err) = run(&mut top(&addr, &[]));
        let response = String::from_utf8_lossy(&response[..response.len().min(60)]).into_owned();
        assert_eq!((exit, &*out), (code, ""), "{response}: {err}");
        let start = format!("chatloop: {addr}: ");
        assert!(
            err.starts_with(&start) && err.contains(says),
            "{response}: {err}"
        );
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn relay_that_goes_away_is_unreachable_until_it_is_back() {
    let path = SocketPath::new();
    let mut relay = relay_at(&path);
    let mut child = top(path.as_str(), &[])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let wait_for_line = |text: &str| {
        while !lines.recv_timeout(PATIENCE).unwrap().contains(text) {}
    };
    wait_for_line(": 0 members, ");
    relay.signal("TERM");
    relay.wait();
    wait_for_line(": unreachable: there is no such socket");
    let mut relay = relay_at(&path);
    let _alice = relay.join("alice");
    wait_for_line(": 1 member, ");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn program_ends_when_the_reader_of_its_output_is_gone() {
    let path = SocketPath::new();
    let _relay = relay_at(&path);
    let mut child = top(path.as_str(), &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    drop(out);
    assert_eq!(exit_code(&mut child), 0);
    let mut err = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(err, "");
}

/// A view on a terminal of this size, which shows a relay with these members.
fn on_terminal(path: &SocketPath, names: &[&str], rows: u16, cols: u16) -> (Relay, Terminal) {
    let mut relay = relay_at(path);
    for name in names {
        // Members that stay without a connection's owner would be closed.
        let stream = relay.join(name);
        thread::spawn(move || drop((thread::park_timeout(PATIENCE * 4), stream)));
    }
    let mut terminal = Terminal::run(&top(path.as_str(), &[]), rows, cols);
    terminal.wait_for_text(" healthy");
    (relay, terminal)
}

#[test]
fn screen_shows_the_relay_and_leaves_the_terminal_as_it_was() {
    for (quit, ended) in [
        ("q", Ended::Code(0)),
        ("\x03", Ended::Code(0)),
        ("\x1b", Ended::Code(0)),
        ("TERM", Ended::Signal("TERM")),
        ("HUP", Ended::Signal("HUP")),
    ] {
        let path = SocketPath::new();
        let mut relay = relay_at(&path);
        let _alice = relay.join("alice");
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo before; read _; exec \"$@\"", "sh"]);
        let view = top(path.as_str(), &[]);
        shell.arg(view.get_program()).args(view.get_args());
        let mut terminal = Terminal::run(&shell, 24, 80);
        terminal.wait_for_text("before");
        let modes = terminal.modes();
        terminal.send("\n");
        terminal.wait_for_text("members   1 member (1 chat10)");
        terminal.wait_for_text("alice ");
        let screen = terminal.screen();
        assert!(screen.alternate_screen() && screen.hide_cursor());
        assert!(!screen.contents().contains("before"));
        if quit.len() > 1 {
            terminal.signal(quit);
        } else {
            terminal.send(quit);
        }
        assert_eq!(terminal.wait(), ended, "{quit:?}");
        assert_eq!(terminal.modes(), modes, "{quit:?}");
        assert_eq!(terminal.rows(), ["before"], "{quit:?}");
    }
}

#[test]
fn keys_sort_filter_and_scroll_the_members() {
    let path = SocketPath::new();
    let names: Vec<_> = (0..30).map(|number| format!("member{number:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (_relay, mut terminal) = on_terminal(&path, &names, 24, 80);
    terminal.wait_for_text("\nmember00 ");
    terminal.wait_for_text("1-10 of 30");
    terminal.send("\x1b[B");
    terminal.wait_for_text("2-11 of 30");
    terminal.send("\x1b[F");
    terminal.wait_for_text("21-30 of 30");
    terminal.wait_for_text("\nmember29 ");
    terminal.send("<<>r");
    terminal.wait_for_text("sorted by received, reversed");
    terminal.send(">>>r");
    terminal.wait_for_text("sorted by name, reversed");
    terminal.send("\x1b[H");
    terminal.wait_for("the last name first", |screen| {
        let contents = screen.contents();
        contents
            .find("member29")
            .is_some_and(|at| contents.find("member28") > Some(at))
    });
    terminal.send("/R07");
    terminal.wait_for_text("filter: R07_");
    terminal.wait_for("one member", |screen| {
        screen.contents().contains("member07") && !screen.contents().contains("member08")
    });
    terminal.send("\r");
    terminal.wait_for_text("1-1 of 1");
    terminal.send("\x1b");
    terminal.wait_for_text("of 30");
    terminal.send("q");
    assert_eq!(terminal.wait(), Ended::Code(0));
}

#[test]
fn names_of_members_have_no_effect_on_the_terminal() {
    let path = SocketPath::new();
    let names = [
        "\x1b[2J\x1b]0;title\x07\x1b[31mred",
        "\u{9b}5;5Hc1",
        "\u{202e}right to left",
        "日本語日本語日本語日本語日本語",
        "e\u{301}\u{301}\u{301}",
        "a\nb\rc\td",
        "\u{7f}\u{200b}\u{feff}",
    ];
    let (_relay, mut terminal) = on_terminal(&path, &names, 24, 80);
    terminal.wait_for_text("1-7 of 7");
    for text in [
        "\\u{1b}[2J\\u{1b}",
        "\\u{9b}5;5Hc1",
        "\\u{202e}right",
        "日本語日本語日…",
        "a\\nb\\rc\\td",
    ] {
        terminal.wait_for_text(text);
    }
    for row in terminal
        .rows()
        .iter()
        .filter(|row| row.contains("127.0.0.1:"))
    {
        assert!(row.ends_with(" ok"), "{row}");
    }
    for code in [b"\x1b]", b"\xc2\x9b"] {
        assert!(!terminal.output().windows(2).any(|bytes| bytes == code));
    }
    terminal.send("q");
    terminal.wait();
}

#[test]
fn resized_terminal_is_painted_for_its_new_size() {
    let path = SocketPath::new();
    let (_relay, mut terminal) = on_terminal(&path, &["alice"], 24, 80);
    for (rows, cols) in [(50, 200), (10, 40), (24, 80)] {
        terminal.resize(rows, cols);
        terminal.wait_for("the last row", |screen| {
            let all: Vec<_> = screen.rows(0, cols).collect();
            let last = all.last().unwrap();
            last.starts_with("q quit")
                && (cols < 80 || last.trim_end().ends_with("1-1 of 1"))
                && all[0].trim_end().ends_with("healthy") == (cols >= 80)
        });
    }
    terminal.send("q");
    assert_eq!(terminal.wait(), Ended::Code(0));
}

#[test]
fn stopped_view_restores_the_terminal_and_is_painted_again() {
    let Some(mut shell) = bash() else {
        return;
    };
    let path = SocketPath::new();
    let mut relay = relay_at(&path);
    let _alice = relay.join("alice");
    let view = top(path.as_str(), &[]);
    shell.env("VIEW", view.get_program());
    let args: Vec<_> = view.get_args().map(|arg| arg.to_str().unwrap()).collect();
    let mut terminal = Terminal::run(&shell, 24, 80);
    terminal.wait_for_text("$ ");
    terminal.send(format!("\"$VIEW\" {}\r", args.join(" ")));
    terminal.wait_for_text("1-1 of 1");
    terminal.send("\x1a");
    terminal.wait_for_text("Stopped");
    assert!(!terminal.screen().alternate_screen() && !terminal.screen().hide_cursor());
    terminal.send("fg\r");
    terminal.wait_for("the view", |screen| {
        screen.alternate_screen() && screen.contents().contains("1-1 of 1")
    });
    terminal.send("q");
    terminal.wait_for("the shell", |screen| !screen.alternate_screen());
    terminal.send("exit\r");
    assert_eq!(terminal.wait(), Ended::Code(0));
}

/// The trap: a terminal is reported as writable whenever it has shown something, and a view that is painted
/// because its loop was woken wakes itself.
#[test]
#[cfg(target_os = "linux")]
fn view_writes_no_more_often_than_it_has_something_new_to_show() {
    let server = ScriptedServer::new();
    let mut view = chatloop(&["top", &server.addr().to_string(), "--interval", "10ms"]);
    view.env("NO_COLOR", "1");
    let mut terminal = Terminal::run(&view, 24, 80);
    // The interval is over at once, so that it is this server that says when there is a sample.
    let answer = |messages: u32| {
        let mut peer = server.accept();
        let request = read_request(&mut peer);
        assert!(
            request.starts_with("GET /metrics HTTP/1.1\r\n"),
            "{request}"
        );
        let body = format!(
            "chatloop_build_info{{version=\"9\"}} 1\nchatloop_members{{dialect=\"x\"}} {messages}\n"
        );
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        peer.stream.write_all((head + &body).as_bytes()).unwrap();
    };
    answer(1);
    terminal.wait_for_text("members   1 member (1 x)");
    let io = format!("/proc/{}/io", terminal.pid());
    let writes = || -> u64 {
        let io = fs::read_to_string(&io).unwrap();
        let count = io.lines().find_map(|line| line.strip_prefix("syscw: "));
        count.unwrap().parse().unwrap()
    };
    let before = writes();
    for messages in 2..=50 {
        answer(messages);
        terminal.wait_for_text(&format!("members   {messages} members ({messages} x)"));
    }
    let written = writes() - before;
    assert!(written <= 49 + 1, "{written} writes for 49 samples");
    assert!(!terminal.output().windows(3).any(|bytes| bytes == b";31"));
    terminal.send("q");
    wait_for("its end", || matches!(terminal.wait(), Ended::Code(0)));
}
