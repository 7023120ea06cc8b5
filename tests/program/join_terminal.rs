//! `chatloop join` on a terminal, as its user sees it.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::common::chat_server::{Peer, Refusal, ScriptedServer};
use crate::common::process::{Relay, chatloop, wait_for};
use crate::common::python::PythonServer;
use crate::common::terminal::{Ended, Terminal, bash};
use crate::common::{assert_bytes, delivery, frame};

/// A client's command line, with its name and without time stamps.
fn join(server: SocketAddr, name: &str, more: &[&str]) -> Command {
    let server = server.to_string();
    let args = ["join", &server, "--name", name, "--no-time", "--no-history"];
    let mut command = chatloop(&[&args, more].concat());
    // The emulator cuts rows off when it becomes narrower, as this terminal does.
    command.env("XTERM_VERSION", "an emulator");
    command
}

/// A client on a terminal that has connected, and its server's side.
fn connected(rows: u16, cols: u16) -> (ScriptedServer, Peer, Terminal) {
    let server = ScriptedServer::new();
    let mut terminal = Terminal::run(&join(server.addr(), "me", &[]), rows, cols);
    let mut peer = server.accept();
    peer.expect_frame("me");
    terminal.wait_for_text("connected to");
    terminal.wait_for_text("me> ");
    (server, peer, terminal)
}

#[test]
fn message_appears_above_a_half_typed_line() {
    let (_server, mut peer, mut terminal) = connected(10, 80);
    terminal.send("half a lin\x1b[D\x1b[D\x1b[D");
    terminal.wait_for("the cursor in the line", |screen| {
        screen.cursor_position() == (1, 4 + 7)
    });
    peer.say("bob", "hello");
    peer.say("bob", "are you there?");
    terminal.wait_for_text("me> half a lin");
    terminal.wait_for_text("there?");
    let rows = terminal.rows();
    assert_eq!(
        rows[1..],
        ["bob: hello", "bob: are you there?", "me> half a lin"]
    );
    assert_eq!(terminal.cursor(), (3, 4 + 7));
    terminal.send("X\r");
    peer.expect_frame("half a Xlin");
    terminal.wait_for_text("me: half a Xlin");
    assert_eq!(terminal.rows()[3..], ["me: half a Xlin", "me>"]);
}

#[test]
fn long_typed_line_wraps_and_stays_below_messages() {
    let (_server, mut peer, mut terminal) = connected(12, 20);
    let typed = "Ünïcode! 你好世界 e\u{301} and more than a row of it 👋";
    terminal.send(typed);
    // A wide character does not fit at the end of the first row.
    let painted = [
        "me> Ünïcode! 你好世",
        "界 é and more than a",
        " row of it 👋",
    ];
    let is_painted = |screen: &vt100::Screen| {
        let rows: Vec<_> = screen.rows(0, 20).collect();
        let first = rows.iter().position(|row| row.starts_with("me>"));
        first.is_some_and(|first| {
            let rows = rows[first..]
                .iter()
                .map(|row| row.trim_end().replace("e\u{301}", "é"));
            rows.take(3).eq(painted)
        })
    };
    terminal.wait_for("three rows", is_painted);
    peer.say("bob", "this one is longer than a row, too");
    terminal.wait_for_text("too");
    terminal.wait_for("three rows again", is_painted);
    let row = terminal
        .rows()
        .iter()
        .position(|row| row.starts_with("bob: "));
    assert!(row.is_some());
    // To the start, a word on, and something typed there.
    terminal.send("\x01\x1bf!\r");
    peer.expect_frame(typed.replacen("Ünïcode!", "Ünïcode!!", 1));
}

#[test]
fn resized_terminal_shows_the_line_once_and_every_message() {
    let (_server, mut peer, mut terminal) = connected(12, 60);
    peer.say("bob", "before");
    terminal.wait_for_text("bob: before");
    terminal.send("0123456789 0123456789 0123456789");
    terminal.wait_for_text("0123456789 0123456789 0123456789");
    for (rows, cols) in [(12, 30), (12, 25), (6, 40), (12, 80)] {
        terminal.resize(rows, cols);
        peer.say("bob", format!("at {cols}"));
        terminal.wait_for_text(&format!("bob: at {cols}"));
        terminal.wait_for("the whole line", |screen| {
            let rows: Vec<_> = screen.rows(0, cols).collect();
            rows.concat()
                .contains("me> 0123456789 0123456789 0123456789")
        });
        let shown = terminal.history().join("\n");
        assert_eq!(shown.matches("me> ").count(), 1, "{shown}");
    }
    let shown = terminal.history();
    for sent in ["before", "at 30", "at 25", "at 40", "at 80"] {
        assert!(shown.contains(&format!("bob: {sent}")), "{sent}: {shown:?}");
    }
}

#[test]
fn paste_of_several_lines_is_one_message() {
    let (_server, mut peer, mut terminal) = connected(10, 40);
    terminal.send("see: ");
    terminal.paste("one\n\ttwo\nthree\n");
    terminal.wait_for_text("| three");
    terminal.send("\r");
    peer.expect_frame("see: one\n\ttwo\nthree");
    terminal.wait_for_text("me: see: one\n | \\ttwo\n | three\nme> ");
    // The same with Alt-Enter.
    terminal.send("four\x1b\rfive\r");
    peer.expect_frame("four\nfive");
}

#[test]
fn line_larger_than_the_screen_is_sent_whole() {
    let (_server, mut peer, mut terminal) = connected(5, 30);
    let text = "0123456789".repeat(20_000);
    terminal.paste(&text);
    terminal.wait_for("the end of the paste", |screen| {
        screen.contents().ends_with("0123456789") && screen.rows(0, 30).all(|row| !row.is_empty())
    });
    terminal.send("!\r");
    peer.expect_frame(text + "!");
}

#[test]
fn keys_edit_as_in_a_shell() {
    let (_server, mut peer, mut terminal) = connected(10, 60);
    for (typed, sent) in [
        ("hello wrld\x1b[D\x1b[D\x1b[Do\r", "hello world"),
        ("one two three\x17\x17\x19\x19\r", "one two threetwo three"),
        ("abc\x01\x0b\x19x\r", "abcx"),
        ("\x1b[A\x1b[A\x7f\r", "one two threetwo thre"),
        ("Zoe\u{301}\x7f\r", "Zo"),
        ("/me waves\r", "/me waves"),
        ("//quit\r", "/quit"),
        ("/etc/hosts\r", "/etc/hosts"),
    ] {
        terminal.send(typed);
        peer.expect_frame(sent);
    }
    terminal.wait_for_text("* me waves");
}

#[test]
fn escape_key_does_not_swallow_the_next_key() {
    let (_server, mut peer, mut terminal) = connected(10, 60);
    terminal.send("ab cd\x1b");
    terminal.wait_for_text("ab cd");
    // The client must see that nothing follows the Escape, for which there is no event.
    thread::sleep(Duration::from_millis(300));
    terminal.send("b\r");
    peer.expect_frame("ab cdb");
}

#[test]
fn discarded_line_and_refused_command_leave_an_empty_line_and_are_in_the_history() {
    let (_server, mut peer, mut terminal) = connected(10, 70);
    terminal.send("never mind\x03");
    terminal.wait_for_text("Up brings the line back");
    terminal.send("\x1b[A\r");
    peer.expect_frame("never mind");
    terminal.send("/topic tea\r");
    terminal.wait_for_text("no command /topic");
    terminal.send("next\r\x1b[A\x1b[A\x01/\r");
    peer.expect_frames(&["next", "/topic tea"]);
    terminal.send("/quit now\r");
    terminal.wait_for_text("/quit takes nothing after it");
    terminal.send("/help\r");
    terminal.wait_for_text("There are no private messages");
    let shown = terminal.history().join("\n");
    assert!(shown.contains("Enter        sends the line"), "{shown}");
}

#[test]
fn hostile_text_is_shown_escaped_and_has_no_effect() {
    let (_server, mut peer, mut terminal) = connected(12, 80);
    let before = terminal.modes();
    peer.say(
        "eve\x1b]0;owned\x07",
        "\x1b[2J\x1b[?25l\x1b[31mred\r\u{9b}5A\u{202e}evil\u{8}",
    );
    peer.send_raw(delivery("eve", b"\xff\xfe\0 \\o/"));
    peer.say("eve", "\nbob: forged");
    terminal.wait_for_text("forged");
    let rows = terminal.rows();
    assert_eq!(
        rows[1..],
        [
            "eve\\u{1b}]0;owned\\u{7}:",
            "   \\u{1b}[2J\\u{1b}[?25l\\u{1b}[31mred\\r\\u{9b}5A\\u{202e}evil\\u{8}",
            "eve: \\xff\\xfe\\0 \\o/",
            "eve:",
            " | bob: forged",
            "me>",
        ]
    );
    assert_eq!(terminal.modes(), before);
}

/// A message, a name and a notice, each as long as its sender needs it to put the rest where the
/// terminal's next row begins.
#[test]
fn text_of_one_member_never_looks_like_the_line_of_another() {
    let (_server, mut peer, mut terminal) = connected(16, 80);
    let forged = "17:50\u{a0}admin:\u{a0}the\u{a0}relay\u{a0}moves";
    peer.say("eve", format!("{}{forged}", "x".repeat(75)));
    peer.say("eve", format!("{}admin：搬家了", "字".repeat(37)));
    peer.say(format!("{}17:50\u{a0}admin", "y".repeat(79)), "moves");
    for name in ["-- the server closed the connection", "* bob waves", "| so"] {
        peer.say(name, "x");
    }
    peer.say("", "/me bob waves");
    terminal.wait_for_text("\"\" bob waves");
    let rows = terminal.rows();
    let xs = format!("eve: {}", "x".repeat(75));
    let words = format!("eve: {}a", "字".repeat(37));
    let ys = format!("\"{}", "y".repeat(79));
    assert_eq!(
        rows[1..],
        [
            &xs,
            &format!("   {forged}"),
            &words,
            "   dmin：搬家了",
            &ys,
            "   17:50\\u{a0}admin\": moves",
            "\"-- the server closed the connection\": x",
            "\"* bob waves\": x",
            "\"| so\": x",
            "* \"\" bob waves",
            "me>",
        ]
    );
}

#[test]
fn flood_of_messages_is_shown_whole_above_the_line() {
    let (_server, mut peer, mut terminal) = connected(24, 80);
    terminal.send("still here");
    terminal.wait_for_text("still here");
    let flood: Vec<_> = (0..5000)
        .flat_map(|number| delivery("bob", format!("message {number}")))
        .collect();
    peer.send_raw(flood);
    terminal.wait_for_text("message 4999");
    terminal.wait_for_text("me> still here");
    let shown = terminal.history();
    let messages: Vec<_> = shown
        .iter()
        .filter(|row| row.starts_with("bob: "))
        .collect();
    let expected: Vec<_> = (0..5000)
        .map(|number| format!("bob: message {number}"))
        .collect();
    assert!(messages.into_iter().eq(&expected));
    terminal.send("\r");
    peer.expect_frame("still here");
}

#[test]
fn message_typed_without_a_connection_is_sent_over_the_next_in_order() {
    let (server, mut peer, mut terminal) = connected(24, 80);
    terminal.send("one\r");
    peer.expect_frame("one");
    peer.close();
    terminal.wait_for_text("the server closed the connection; connecting again in 0.");
    terminal.send("two\rthree\rhalf");
    terminal.wait_for_text("me> half");
    let mut peer = server.accept();
    peer.expect_frames(&["me", "two", "three"]);
    terminal.wait_for_text("connected to ");
    terminal.wait_for_text(" again");
    terminal.wait_for_text("me> half");
    terminal.send(" four\r");
    peer.expect_frame("half four");
    let shown = terminal.history().join("\n");
    // The server may have closed because of the message that it had just read, and only of that.
    assert_eq!(
        shown.matches("may not have arrived: one").count(),
        1,
        "{shown}"
    );
    assert_eq!(shown.matches("may not have arrived").count(), 1, "{shown}");
}

#[test]
fn uncertain_message_is_reported_and_not_sent_again() {
    let server = ScriptedServer::with_buffer(8 * 1024);
    let mut terminal = Terminal::run(&join(server.addr(), "me", &[]), 24, 80);
    let mut peer = server.accept();
    peer.expect_frame("me");
    // More than the server's socket buffers, and less than the client's.
    terminal.wait_for_text("me> ");
    let long = "x".repeat(30_000);
    terminal.paste(&long);
    terminal.send("\r");
    peer.expect_something();
    terminal.wait_for("the line to be sent", |screen| {
        screen.contents().ends_with("x\nme> ")
    });
    terminal.send("short\r");
    terminal.wait_for_text("me: short");
    peer.reset();
    terminal.wait_for_text("the server reset the connection");
    terminal.wait_for_text("may not have arrived: short");
    // Its beginning, on a row of its own.
    let row = format!("   {}...", &long[..60]);
    assert!(terminal.history().contains(&row));
    let mut peer = server.accept();
    peer.expect_frame("me");
    terminal.send("next\r");
    peer.expect_frame("next");
}

#[test]
fn message_over_the_servers_limit_is_reported_and_not_sent_again() {
    let mut relay = Relay::start(&["--max-message=1KiB"]);
    let mut terminal = Terminal::run(&join(relay.addr, "me", &[]), 24, 80);
    relay.log_line("joined: \"me\"");
    let mut ear = relay.join("ear");
    ear.write_all(&frame("welcome")).unwrap();
    terminal.wait_for_text("ear: welcome");
    terminal.paste(&"x".repeat(1025));
    terminal.send("\r");
    let hint = "-- that was right after a message of 1025 bytes: is it over the server's limit?";
    terminal.wait_for_text(hint);
    relay.log_line("(limit: --max-message)");
    relay.log_line("joined: \"me\"");
    terminal.send("short\r");
    let mut got = vec![0; delivery("me", "short").len()];
    ear.read_exact(&mut got).unwrap();
    assert_bytes(&got, &delivery("me", "short"));
}

#[test]
fn client_of_a_missing_server_can_be_left_with_unsent_messages() {
    let (server, mut peer, mut terminal) = connected(24, 80);
    terminal.send("one\r");
    peer.expect_frame("one");
    drop(server);
    peer.close();
    terminal.wait_for_text("no connection: connection refused; trying again in ");
    terminal.send("two\r");
    terminal.wait_for_text("not sent yet");
    terminal.send("\x04");
    terminal.wait_for_text("Ctrl-D once more leaves at once");
    terminal.send("\x04");
    assert_eq!(terminal.wait(), Ended::Code(5));
    let shown = terminal.history().join("\n");
    assert!(
        shown.contains("-- not sent: two\nchatloop: one message not sent"),
        "{shown}"
    );
}

#[test]
fn name_prompt_offers_the_login_name() {
    let server = ScriptedServer::new();
    let addr = server.addr().to_string();
    let mut command = chatloop(&["join", &addr]);
    command.env("LOGNAME", "login");
    for (typed, name) in [("\n", "login"), ("  Zoë \n", "Zoë")] {
        let mut terminal = Terminal::run(&command, 10, 60);
        terminal.wait_for_text("Your name [login]: ");
        terminal.send(typed);
        server.accept().expect_frame(name);
    }
    // Type-ahead is not lost, and not taken as a part of the name.
    let mut terminal = Terminal::run(&command, 10, 60);
    terminal.wait_for_text("Your name");
    terminal.send("ann\nhello\n");
    server.accept().expect_frames(&["ann", "hello"]);
    // The end of the input ends the client.
    let mut terminal = Terminal::run(&command, 10, 60);
    terminal.wait_for_text("Your name");
    terminal.send("\x04");
    assert_eq!(terminal.wait(), Ended::Code(0));
    command.env("CHATLOOP_NAME", "from the environment");
    let _terminal = Terminal::run(&command, 10, 60);
    server.accept().expect_frame("from the environment");
}

#[test]
fn message_has_the_local_time_and_a_coloured_name() {
    let server = ScriptedServer::new();
    let addr = server.addr().to_string();
    let mut command = chatloop(&["join", &addr, "-n", "me"]);
    // A zone with an offset of 45 minutes: that of Nepal, or where there are no named time zones, one
    // with the same offset.
    let named = fs::exists("/usr/share/zoneinfo/Asia/Kathmandu").unwrap();
    let zone = if named {
        "Asia/Kathmandu"
    } else {
        "<+0545>-05:45"
    };
    command.env("TZ", zone);
    let mut terminal = Terminal::run(&command, 10, 60);
    let mut peer = server.accept();
    peer.say("bob", "hi");
    terminal.wait_for_text("bob: hi");
    let row = terminal
        .rows()
        .into_iter()
        .find(|row| row.contains("bob"))
        .unwrap();
    let time: Vec<_> = row.split([':', ' ']).take(2).collect();
    let [hours, minutes] = time[..] else {
        panic!("{row}");
    };
    let there = hours.parse::<u64>().unwrap() * 60 + minutes.parse::<u64>().unwrap();
    let seconds = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let now = seconds / 60 + 5 * 60 + 45;
    assert!((now - there) % (24 * 60) <= 1, "{row}");
    assert!(
        terminal
            .output()
            .windows(5)
            .any(|bytes| bytes == b"\x1b[38;")
    );

    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::run(&command, 10, 60);
    let mut peer = server.accept();
    peer.say("bob", "hi");
    terminal.wait_for_text("bob: hi");
    terminal.wait_for_text("me> ");
    assert!(!terminal.output().windows(3).any(|bytes| bytes == b"\x1b[3"));
}

#[test]
fn dumb_terminal_sends_and_shows_plain_lines() {
    let server = ScriptedServer::new();
    let mut command = join(server.addr(), "me", &[]);
    command.env("TERM", "dumb");
    let mut terminal = Terminal::run(&command, 10, 60);
    let mut peer = server.accept();
    peer.expect_frame("me");
    peer.say("bob\x1b[2J", "hi");
    terminal.wait_for_text("bob\\u{1b}[2J: hi");
    terminal.send("hellp\x7fo\n");
    peer.expect_frame("hello");
    terminal.send("\x04");
    assert_eq!(terminal.wait(), Ended::Code(0));
    assert!(!terminal.output().contains(&0x1b));
}

/// Each way for a client to end, and its exit status.
#[test]
fn terminal_is_restored_however_the_client_ends() {
    type End = fn(&mut Terminal, &mut Option<Peer>);
    let ends: [(&str, End, Ended); 10] = [
        ("/quit", |t, _| t.send("/quit\r"), Ended::Code(0)),
        ("Ctrl-D", |t, _| t.send("\x04"), Ended::Code(0)),
        ("Ctrl-C", |t, _| t.send("\x03"), Ended::Code(0)),
        ("SIGTERM", |t, _| t.signal("TERM"), Ended::Signal("TERM")),
        ("SIGINT", |t, _| t.signal("INT"), Ended::Signal("INT")),
        ("SIGHUP", |t, _| t.signal("HUP"), Ended::Signal("HUP")),
        ("SIGQUIT", |t, _| t.signal("QUIT"), Ended::Signal("QUIT")),
        ("a panic", |t, _| t.send("/panic\r"), Ended::Code(1)),
        ("a lost connection", |_, peer| *peer = None, Ended::Code(5)),
        (
            "no chat server",
            |_, peer| {
                let banner = "220 mail.example.org ESMTP\r\n";
                peer.as_mut().unwrap().send_raw(banner);
            },
            Ended::Code(6),
        ),
    ];
    let server = ScriptedServer::new();
    for (what, end, ended) in ends {
        let client = join(server.addr(), "me", &["--no-reconnect"]);
        let mut command = Command::new("sh");
        let wait_and_start = "echo up; read line; ulimit -c 0; exec \"$@\"";
        command.args(["-c", wait_and_start, "sh"]);
        command.arg(client.get_program()).args(client.get_args());
        let mut terminal = Terminal::run(&command, 24, 80);
        terminal.wait_for_text("up");
        let found = terminal.modes();
        terminal.send("\n");
        let mut peer = Some(server.accept());
        peer.as_mut().unwrap().expect_frame("me");
        terminal.wait_for_text("me> ");
        terminal.send("draft");
        terminal.wait_for_text("me> draft");
        assert_ne!(terminal.modes(), found, "{what}");
        if matches!(what, "/quit" | "Ctrl-D" | "Ctrl-C" | "a panic") {
            terminal.send("\x15");
        }
        end(&mut terminal, &mut peer);
        assert_eq!(terminal.wait(), ended, "{what}");
        assert_eq!(terminal.modes(), found, "{what}");
        // The shell's prompt has a row of its own, and the half-typed line is not lost.
        let rows = terminal.rows();
        assert_eq!(terminal.cursor().1, 0, "{what}: {rows:?}");
        let typed = rows.iter().any(|row| row == "-- not sent: draft");
        let kept = !matches!(what, "/quit" | "Ctrl-D" | "Ctrl-C" | "a panic");
        assert_eq!(typed, kept, "{what}: {rows:?}");
        if what == "no chat server" {
            let says = "this port does not speak the chat protocol; it says";
            assert!(rows.concat().contains(says), "{rows:?}");
            assert!(
                rows.concat().contains("220 mail.example.org ESMTP\\r\\n"),
                "{rows:?}"
            );
        }
    }
}

#[test]
fn client_ends_when_its_terminal_is_gone() {
    let server = ScriptedServer::new();
    let client = join(server.addr(), "me", &[]);
    let mut command = Command::new("sh");
    command.args(["-c", "\"$@\"; :", "sh"]);
    command.arg(client.get_program()).args(client.get_args());
    let mut terminal = Terminal::run(&command, 24, 80);
    let mut peer = server.accept();
    terminal.wait_for_text("me> ");
    terminal.send("last words\r");
    peer.expect_frames(&["me", "last words"]);
    // The shell leads the session: without it the kernel hangs the terminal up.
    terminal.signal("KILL");
    assert_eq!(peer.read_to_end(), b"");
}

#[test]
fn stopped_client_restores_the_terminal_and_continues() {
    let Some(mut shell) = bash() else {
        return;
    };
    let server = ScriptedServer::new();
    let client = join(server.addr(), "me", &[]);
    shell.env("CLIENT", client.get_program());
    let args: Vec<_> = client.get_args().map(|arg| arg.to_str().unwrap()).collect();
    let mut terminal = Terminal::run(&shell, 24, 80);
    terminal.wait_for_text("$ ");
    terminal.send(format!("\"$CLIENT\" {}\r", args.join(" ")));
    let mut peer = server.accept();
    peer.expect_frame("me");
    terminal.wait_for_text("me> ");
    terminal.send("half a line\x1a");
    terminal.wait_for_text("Stopped");
    peer.say("bob", "while you were away");
    terminal.send("stty -a | grep -o -w -e '-*icanon' -e '-*echo'\r");
    terminal.wait_for_text("\nicanon\necho\n");
    terminal.send("fg\r");
    terminal.wait_for_text("bob: while you were away");
    terminal.wait_for_text("me> half a line");
    let raw = terminal.modes();
    terminal.send("!\r");
    peer.expect_frame("half a line!");
    // The same if it is stopped by SIGSTOP, which it cannot catch.
    let children = format!("/proc/{0}/task/{0}/children", terminal.pid());
    let id = fs::read_to_string(children).unwrap();
    let stopped = Command::new("kill").args(["-STOP", id.trim()]).status();
    assert!(stopped.unwrap().success());
    terminal.wait_for("the shell's prompt", |screen| {
        screen.contents().ends_with("$ ")
    });
    terminal.send("stty sane; fg\r");
    wait_for("the client's modes", || terminal.modes() == raw);
    terminal.send("back\r");
    peer.expect_frame("back");
    // The screen may lag behind the modes and still end with the prompt of before.
    terminal.wait_for_text("me: back");
    terminal.send("\x04");
    terminal.wait_for("the shell's prompt", |screen| {
        screen.contents().ends_with("$ ")
    });
    terminal.send("exit\r");
    assert_eq!(terminal.wait(), Ended::Code(0));
}

/// Without job control there is no shell that could continue the client.
#[test]
fn client_without_a_shell_does_not_stop() {
    let server = ScriptedServer::new();
    let client = join(server.addr(), "me", &[]);
    let mut under_sh = Command::new("sh");
    under_sh.args(["-c", "\"$@\"; :", "sh"]);
    under_sh.arg(client.get_program()).args(client.get_args());
    for command in [client, under_sh] {
        let mut terminal = Terminal::run(&command, 10, 70);
        let mut peer = server.accept();
        peer.expect_frame("me");
        terminal.wait_for_text("me> ");
        terminal.send("\x1a");
        terminal.wait_for_text("no shell");
        terminal.send("still here\r");
        peer.expect_frame("still here");
    }
}

#[test]
fn unsent_messages_are_reported_when_a_signal_ends_the_client() {
    let (server, peer, mut terminal) = connected(24, 80);
    drop(server);
    peer.close();
    terminal.wait_for_text("no connection");
    terminal.send("one\rtwo\rthree");
    terminal.wait_for_text("me> three");
    terminal.signal("TERM");
    assert_eq!(terminal.wait(), Ended::Signal("TERM"));
    let rows = terminal.rows();
    let last = &rows[rows.len() - 3..];
    let expected = ["-- not sent: one", "-- not sent: two", "-- not sent: three"];
    assert_eq!(last, expected);
}

#[test]
fn unreachable_server_is_reported_in_one_line() {
    let refusal = Refusal::new();
    let addr = refusal.addr();
    let mut terminal = Terminal::run(&join(addr, "me", &[]), 10, 100);
    assert_eq!(terminal.wait(), Ended::Code(4));
    let line = format!(
        "chatloop: cannot connect to {addr}: connection refused; `chatloop serve` runs a relay"
    );
    assert_eq!(terminal.rows(), [line]);
}

#[test]
fn client_with_output_to_a_file_does_not_read_the_keyboard() {
    let server = ScriptedServer::new();
    let client = join(server.addr(), "me", &[]);
    let log = std::env::temp_dir().join(format!("chatloop-test-{}.log", std::process::id()));
    let mut command = Command::new("sh");
    command.env("LOG", &log);
    // A shell gives a command in the background no keyboard, unless it is asked to.
    command.args([
        "-c",
        "exec 3<&0; \"$@\" <&3 > \"$LOG\" & read line; echo \"<$line>\"; kill $!",
        "sh",
    ]);
    command.arg(client.get_program()).args(client.get_args());
    let mut terminal = Terminal::run(&command, 10, 80);
    let mut peer = server.accept();
    peer.expect_frame("me");
    peer.say("bob", "hi");
    wait_for("the log", || {
        fs::read(&log).is_ok_and(|log| log == b"bob: hi\n")
    });
    terminal.send("for the shell\n");
    terminal.wait_for_text("<for the shell>");
    terminal.wait();
    fs::remove_file(log).unwrap();
}

#[test]
fn two_terminals_chat_over_the_relay_and_over_a_tutorial_server() {
    let relay = Relay::start(&[]);
    let python = PythonServer::start();
    let servers = [Some(relay.addr), python.as_ref().map(PythonServer::addr)];
    for addr in servers.into_iter().flatten() {
        let mut alice = Terminal::run(&join(addr, "alice", &[]), 24, 80);
        let mut bob = Terminal::run(&join(addr, "bob", &[]), 24, 80);
        for terminal in [&mut alice, &mut bob] {
            terminal.wait_for_text("connected to");
            terminal.wait_for_text("> ");
        }
        // A connected client is not yet accepted by the server.
        bob.send("half of my ");
        bob.wait_for_text("bob> half of my ");
        let mut sent = 0;
        wait_for("bob to hear alice", || {
            alice.send(format!("hello {sent}\r"));
            sent += 1;
            bob.rows().iter().any(|row| row.starts_with("alice: hello"))
        });
        bob.send("answer\r");
        alice.wait_for_text("bob: half of my answer");
        alice.send("the end\r");
        bob.wait_for_text("alice: the end");
        for terminal in [&mut alice, &mut bob] {
            terminal.send("\x04");
            assert_eq!(terminal.wait(), Ended::Code(0));
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn idle_client_is_one_sleeping_thread() {
    let (_server, mut peer, mut terminal) = connected(10, 60);
    let status = |what: &str| {
        let status = fs::read_to_string(format!("/proc/{}/status", terminal.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(status("Threads:"), "1");
    // The last thing that it does by itself is to ask whether its name is acknowledged. After that it
    // sleeps: its count of wake-ups is the same at fifty looks in a row.
    let mut woke = status("voluntary_ctxt_switches");
    let mut looks = 0;
    wait_for("a second of sleep", || {
        thread::sleep(Duration::from_millis(20));
        let now = status("voluntary_ctxt_switches");
        looks = if now == woke { looks + 1 } else { 0 };
        woke = now;
        looks == 50
    });
    terminal.send("awake\r");
    peer.expect_frame("awake");
}
