//! `chatloop join` on a terminal: its commands, and what it does for a user who stays for long.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::common::chat_server::{Peer, Refusal, ScriptedServer};
use crate::common::process::{Relay, chatloop, run, wait_for};
use crate::common::terminal::{Ended, Terminal};
use crate::common::web_server::{HELLO, WebPeer, message};

/// A client's command line, with its name and without time stamps.
fn join(server: impl fmt::Display, name: &str, more: &[&str]) -> Command {
    let server = server.to_string();
    let args = ["join", &server, "--name", name, "--no-time"];
    let mut command = chatloop(&[&args, more].concat());
    // The emulator cuts rows off when it becomes narrower, as this terminal does.
    command.env("XTERM_VERSION", "an emulator");
    command
}

/// A client on a terminal that has connected as `me`, and its server's side.
fn connected(more: &[&str]) -> (ScriptedServer, Peer, Terminal) {
    let server = ScriptedServer::new();
    let mut terminal = Terminal::run(&join(server.addr(), "me", more), 24, 100);
    let mut peer = server.accept();
    peer.expect_frame("me");
    terminal.wait_for_text("connected to");
    terminal.wait_for_text("me> ");
    (server, peer, terminal)
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let name = format!("chatloop-test-{}-{test}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &PathBuf) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

// Commands.

#[test]
fn names_lists_members_that_were_heard_and_tab_completes_them() {
    let (_server, mut peer, mut terminal) = connected(&[]);
    terminal.send("/names\r");
    terminal.wait_for_text("no member was heard yet");
    peer.say("bob", "hi");
    peer.say("bill", "hi");
    terminal.wait_for_text("bill: hi");
    terminal.send("/nam\t\r");
    terminal.wait_for_text("heard, and how long ago: bill (now), bob (now);");
    terminal.send("B\t\tand bi\t!\r");
    peer.expect_frame("bob: and bill !");
}

#[test]
fn nick_joins_again_under_the_new_name() {
    let (server, mut peer, mut terminal) = connected(&[]);
    terminal.send("one\r");
    peer.expect_frame("one");
    terminal.send("/nick bob\r");
    assert_eq!(peer.read_to_end(), b"");
    let mut peer = server.accept();
    terminal.wait_for_text("bob> ");
    terminal.send("two\r");
    peer.expect_frames(&["bob", "two"]);
    terminal.wait_for_text("bob: two");
    terminal.wait_for_text("-- joining again as bob");
    let shown = terminal.history().join("\n");
    assert!(!shown.contains("may not have arrived"), "{shown}");
    // Away from the server, it is the name of the next connection.
    peer.close();
    terminal.wait_for_text("the server closed the connection");
    terminal.send("/nick eve\r");
    server.accept().expect_frame("eve");
}

#[test]
fn nick_that_is_refused_gives_the_earlier_name_back() {
    let server = ScriptedServer::new();
    let command = join(format!("ws://{}", server.addr()), "me", &[]);
    let mut terminal = Terminal::run(&command, 24, 100);
    let _peer = WebPeer::join(&server, "me");
    terminal.wait_for_text("me> ");
    terminal.send("/nick eve\r");
    let mut peer = WebPeer::accept(&server);
    peer.expect("eve");
    peer.close(1008, "name taken");
    terminal.wait_for_text("(1008: name taken); joining again as me");
    let mut peer = WebPeer::join(&server, "me");
    terminal.send("one\r");
    peer.expect("one");
}

#[test]
fn own_messages_under_an_earlier_name_are_not_shown_again_from_the_history() {
    let server = ScriptedServer::new();
    let command = join(format!("ws://{}", server.addr()), "me", &[]);
    let mut terminal = Terminal::run(&command, 24, 100);
    let mut peer = WebPeer::join(&server, "me");
    peer.send(&message("2026-11-27T10:00:00.000Z", "bob", "hi"));
    terminal.wait_for_text("bob: hi");
    terminal.send("one\r");
    peer.expect("one");
    peer.send(r#"{"ack":1}"#);
    terminal.send("/nick eve\r");
    let mut peer = WebPeer::accept(&server);
    peer.expect("eve");
    peer.send(&message("2026-11-27T10:00:00.000Z", "bob", "hi"));
    peer.send(&message("2026-11-27T10:00:01.000Z", "me", "one"));
    peer.send(&message("2026-11-27T10:00:02.000Z", "bob", "missed"));
    peer.send(HELLO);
    terminal.wait_for_text("bob: missed");
    let shown = terminal.history().join("\n");
    assert_eq!(shown.matches("me: one").count(), 1, "{shown}");
    assert_eq!(shown.matches("bob: hi").count(), 1, "{shown}");
}

#[test]
fn reconnect_makes_another_connection_at_once() {
    let (server, mut peer, mut terminal) = connected(&[]);
    terminal.send("/reconnect\r");
    assert_eq!(peer.read_to_end(), b"");
    let mut peer = server.accept();
    peer.expect_frame("me");
    terminal.wait_for_text("-- connecting again");
    terminal.wait_for_text(" again\n");
    peer.say("bob", "welcome back");
    terminal.wait_for_text("bob: welcome back");
}

#[test]
fn ignored_member_is_hidden_until_that_is_taken_back() {
    let (_server, mut peer, mut terminal) = connected(&[]);
    peer.say("eve", "one");
    terminal.wait_for_text("eve: one");
    terminal.send("/ignore e\t\r");
    terminal.wait_for_text("messages of eve are hidden");
    peer.say("eve", "two");
    peer.say("bob", "three");
    terminal.wait_for_text("bob: three");
    terminal.send("/ignore\r/names\r/ignore eve\r");
    terminal.wait_for_text("-- ignored: eve");
    terminal.wait_for_text("eve (now, ignored)");
    terminal.wait_for_text("messages of eve are shown again");
    peer.say("eve", "four");
    terminal.wait_for_text("eve: four");
    let shown = terminal.history().join("\n");
    assert!(!shown.contains("eve: two"), "{shown}");
}

#[test]
fn long_message_is_folded_and_more_shows_it_whole() {
    let (_server, mut peer, mut terminal) = connected(&[]);
    terminal.send("/more\r");
    terminal.wait_for_text("there is no long message");
    let lines: Vec<_> = (1..=12).map(|line| format!("line {line}")).collect();
    peer.say("bob", lines.join("\n"));
    terminal.wait_for_text(" | line 10\n | ... 2 more lines: /more shows the whole message\n");
    terminal.send("/more\r");
    terminal.wait_for_text(" | line 10\n | line 11\n | line 12\nme> ");
}

#[test]
fn clear_clears_the_screen() {
    let (_server, mut peer, mut terminal) = connected(&[]);
    peer.say("bob", "hi");
    terminal.wait_for_text("bob: hi");
    terminal.send("/clear\r");
    terminal.wait_for("an empty screen", |screen| {
        screen.contents().trim_end() == "me>"
    });
}

// The way to the server.

#[test]
fn messages_that_waited_are_held_back_until_a_member_is_heard() {
    let (server, peer, mut terminal) = connected(&[]);
    peer.close();
    terminal.wait_for_text("connecting again in");
    terminal.send("one\r");
    let mut peer = server.accept();
    peer.expect_frame("me");
    terminal.wait_for_text("again; sending the message that waited in ");
    // Before the notice is shown, it would have been sent.
    peer.stream.set_nonblocking(true).unwrap();
    let error = peer.stream.peek(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    peer.stream.set_nonblocking(false).unwrap();
    peer.say("bob", "back");
    peer.expect_frame("one");
    terminal.wait_for_text("bob: back\n-- sending the messages that waited\n");
}

#[test]
fn messages_that_waited_are_sent_without_others_after_a_while_or_at_once_for_an_empty_line() {
    let (server, mut peer, mut terminal) = connected(&[]);
    for enter in ["", "\r"] {
        peer.close();
        terminal.wait_for_text("connecting again in");
        terminal.send("one\r");
        peer = server.accept();
        peer.expect_frame("me");
        terminal.wait_for_text("when others may be");
        terminal.send(enter);
        peer.expect_frame("one");
        terminal.wait_for_text("sending the messages that waited");
        terminal.send("/clear\r");
        terminal.wait_for("an empty screen", |screen| {
            screen.contents().trim_end() == "me>"
        });
    }
}

#[test]
fn first_connection_is_waited_for_with_wait() {
    let refusal = Refusal::new();
    let mut terminal = Terminal::run(&join(refusal.addr(), "me", &["--wait"]), 24, 100);
    terminal.wait_for_text("-- no connection: connection refused; trying again in ");
    let server = refusal.listen();
    // An empty line has it connect now.
    terminal.send("\r");
    server.accept().expect_frame("me");
    terminal.wait_for_text(&format!("connected to {} as me", server.addr()));
}

#[test]
fn quit_leaves_on_a_dumb_terminal() {
    let server = ScriptedServer::new();
    let mut command = join(server.addr(), "me", &[]);
    command.env("TERM", "dumb");
    let mut terminal = Terminal::run(&command, 24, 100);
    let mut peer = server.accept();
    peer.expect_frame("me");
    terminal.wait_for_text("/quit or Ctrl-D leaves");
    terminal.send("/quitting\n/quit\n");
    peer.expect_frame("/quitting");
    assert_eq!(terminal.wait(), Ended::Code(0));
}

#[test]
fn name_without_a_login_name_is_that_of_the_user_database() {
    let (code, name, _) = run(Command::new("id").arg("-un"));
    assert_eq!(code, 0);
    let server = ScriptedServer::new();
    let mut command = chatloop(&["join", &server.addr().to_string()]);
    command.env_remove("USER").env_remove("LOGNAME");
    let mut terminal = Terminal::run(&command, 24, 100);
    terminal.wait_for_text(&format!("Your name [{}]: ", name.trim_end()));
    terminal.send("\n");
    server.accept().expect_frame(name.trim_end());
}

// While the user looks elsewhere.

const FOCUS: &str = "\x1b[I";
const BLUR: &str = "\x1b[O";

#[test]
fn mention_is_highlighted_and_announced_while_the_window_is_not_looked_at() {
    let (_server, mut peer, mut terminal) = connected(&["--bell"]);
    let announced = |terminal: &Terminal, what: &[u8]| {
        let output = terminal.output();
        output
            .windows(what.len())
            .filter(|bytes| *bytes == what)
            .count()
    };
    // What the client shows of a key, it shows after the report before it.
    terminal.send(format!("{FOCUS}x"));
    terminal.wait_for_text("me> x");
    peer.say("bob", "Me? seen");
    terminal.wait_for_text("seen");
    assert_eq!(announced(&terminal, b"\x07"), 0);
    terminal.send(format!("{BLUR}\x15/ignore eve\r"));
    terminal.wait_for_text("messages of eve are hidden");
    peer.say("bob", "me, too");
    peer.say("eve", "me, and hidden");
    peer.say("bob", "menu");
    terminal.wait_for_text("menu");
    assert_eq!(announced(&terminal, b"\x1b]2;(1) chatloop\x07\x07"), 1);
    assert_eq!(announced(&terminal, b"\x1b]2;(2) chatloop"), 0);
    let rows = terminal.rows();
    let bold = |terminal: &Terminal, text: &str| {
        let row = rows.iter().position(|row| row.ends_with(text)).unwrap();
        terminal.screen().cell(row as u16, 5).unwrap().bold()
    };
    assert!(bold(&terminal, "me, too") && !bold(&terminal, "menu"));
    terminal.send(format!("{FOCUS}y"));
    terminal.wait_for_text("me> y");
    assert_eq!(announced(&terminal, b"\x1b]2;chatloop\x07\x1b[23;2t"), 1);
}

#[test]
fn first_message_since_the_user_looked_away_is_marked() {
    let (_server, mut peer, mut terminal) = connected(&[]);
    peer.say("bob", "one");
    terminal.wait_for_text("bob: one");
    terminal.send("draft");
    terminal.wait_for_text("me> draft");
    terminal.send(BLUR);
    // There is no event for a report that was taken in.
    let mut said = 0;
    wait_for("the mark", || {
        said += 1;
        peer.say("bob", format!("two {said}"));
        terminal.wait_for_text(&format!("two {said}"));
        terminal.screen().contents().contains("looked away")
    });
    peer.say("bob", "three");
    terminal.wait_for_text("three");
    terminal.send(format!("{FOCUS}!"));
    terminal.wait_for_text("draft!");
    peer.say("bob", "four");
    terminal.wait_for_text("four");
    let shown = terminal.history().join("\n");
    let mark = format!("-- new since you looked away\nbob: two {said}\nbob: three\nbob: four");
    assert!(shown.contains(&mark), "{shown}");
    assert_eq!(shown.matches("looked away").count(), 1, "{shown}");
    assert!(!terminal.output().contains(&7));
}

#[test]
fn terminal_reports_its_focus_only_while_the_client_runs() {
    let (_server, _peer, mut terminal) = connected(&[]);
    terminal.send("/quit\r");
    assert_eq!(terminal.wait(), Ended::Code(0));
    let output = String::from_utf8(terminal.output().to_vec()).unwrap();
    let [on, off] = ["\x1b[?1004h", "\x1b[?1004l"].map(|code| output.rfind(code).unwrap());
    assert!(on < off);
}

#[test]
fn new_day_has_a_line_of_its_own() {
    let server = ScriptedServer::new();
    let url = format!("ws://{}", server.addr());
    let mut command = chatloop(&["join", &url, "--name", "me"]);
    command.env("TZ", "UTC");
    let mut terminal = Terminal::run(&command, 24, 100);
    let mut peer = WebPeer::join(&server, "me");
    for time in [
        "2098-12-31T23:59:00.000Z",
        "2099-01-01T00:00:00.000Z",
        "2098-12-31T23:59:59.000Z",
    ] {
        peer.send(&message(time, "bob", "hi"));
    }
    terminal.wait_for_text(
        "-- Wednesday, 31 December 2098\n23:59 bob: hi\n\
         -- Thursday, 1 January 2099\n00:00 bob: hi\n23:59 bob: hi\nme> ",
    );
}

// What is kept.

#[test]
fn chat_is_logged_while_it_goes_on() {
    let folder = Folder::new("log");
    let path = folder.0.join("chat.log");
    let (_server, mut peer, mut terminal) = connected(&["--log", path.to_str().unwrap()]);
    peer.say("bob", "hi\n\x1b[2Jthere");
    terminal.wait_for_text("there");
    terminal.send("hello\r");
    peer.expect_frame("hello");
    terminal.wait_for_text("me: hello");
    let logged = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = logged.lines().collect();
    let is_timed = |line: &str| {
        let form = line
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c });
        form.collect::<String>().starts_with("0000-00-00 00:00:00 ")
    };
    assert!(lines.iter().all(|line| is_timed(line)), "{logged}");
    let texts: Vec<_> = lines.iter().map(|line| &line[20..]).collect();
    assert_eq!(texts, ["bob: hi\\n\\u{1b}[2Jthere", "me: hello"]);
    assert_eq!(mode(&path), 0o600);
    let (code, _, err) = run(&mut join(
        peer.stream.local_addr().unwrap(),
        "me",
        &["--log", "x"],
    ));
    assert_eq!(code, 2);
    assert!(
        err.starts_with("chatloop: --log is for a terminal; in a pipe"),
        "{err}"
    );
}

#[test]
fn typed_lines_outlive_the_client_and_are_searched_with_ctrl_r() {
    let folder = Folder::new("typed");
    let server = ScriptedServer::new();
    let start = |more: &[&str]| {
        let mut command = join(server.addr(), "me", more);
        command.env("XDG_STATE_HOME", &folder.0);
        let mut terminal = Terminal::run(&command, 24, 100);
        let mut peer = server.accept();
        peer.expect_frame("me");
        terminal.wait_for_text("me> ");
        (peer, terminal)
    };
    let (mut peer, mut terminal) = start(&[]);
    for line in ["the first one", "two\x1b\rlines", "/names", "\\n three"] {
        terminal.send(format!("{line}\r"));
    }
    peer.expect_frames(&["the first one", "two\nlines", "\\n three"]);
    terminal.signal("KILL");
    terminal.wait();
    let file = folder.0.join("chatloop/history");
    assert_eq!(
        (mode(&file), mode(&folder.0.join("chatloop"))),
        (0o600, 0o700)
    );

    let (mut peer, mut terminal) = start(&["--no-history"]);
    terminal.send("not kept\r\x1b[A\x1b[A\r");
    peer.expect_frames(&["not kept", "not kept"]);
    drop(terminal);

    let (mut peer, mut terminal) = start(&[]);
    terminal.send("\x1b[A\x1b[A\x1b[A\r");
    peer.expect_frame("two\nlines");
    terminal.send("draft\x12FIRST");
    terminal.wait_for_text("search \"FIRST\": the first one");
    terminal.send("\x12");
    terminal.wait_for_text("search, no other with \"FIRST\": the first one");
    terminal.send("\x1b");
    terminal.wait_for_text("me> draft");
    terminal.send("\x15\x12first\x05!\r");
    peer.expect_frame("the first one!");
    let kept = fs::read_to_string(&file).unwrap();
    let expected = "the first one\ntwo\\nlines\n/names\n\\\\n three\ntwo\\nlines\nthe first one!\n";
    assert_eq!(kept, expected);
}

#[test]
fn file_of_typed_lines_does_not_grow_without_end() {
    let folder = Folder::new("bounded");
    fs::create_dir(folder.0.join("chatloop")).unwrap();
    let lines: Vec<_> = (0..40_000).map(|line| format!("line {line}\n")).collect();
    let old = lines.concat();
    let file = folder.file("chatloop/history", &old, 0o644);
    let server = ScriptedServer::new();
    let mut command = join(server.addr(), "me", &[]);
    command.env("XDG_STATE_HOME", &folder.0);
    let mut terminal = Terminal::run(&command, 24, 100);
    let mut peer = server.accept();
    peer.expect_frame("me");
    terminal.wait_for_text("me> ");
    terminal.send("\x1b[A\r");
    peer.expect_frame("line 39999");
    let kept = fs::read_to_string(&file).unwrap();
    assert!((100_000..140_000).contains(&kept.len()), "{}", kept.len());
    assert!(old.contains(&format!("\n{}", &kept[..1000])));
    assert!(kept.ends_with("line 39999\nline 39999\n"));
    assert_eq!(mode(&PathBuf::from(file)), 0o600);
}

// A password.

#[test]
fn relay_with_a_password_lets_in_the_client_that_has_it() {
    let folder = Folder::new("password");
    let password = folder.file("relay", "swordfish\n", 0o600);
    let mut relay = Relay::serving(&["ws", "chat10"], &["--password-file", &password]);
    let url = format!("ws://{}", relay.addr_of("ws"));
    let say = |args: &[&str]| {
        let mut command = chatloop(&[&["join", &url, "-n", "me", "-q"], args].concat());
        run(&mut command)
    };
    let refused = |why: &str| (8, String::new(), format!("chatloop: {url}: {why}\n"));
    let asks =
        "the server answered 401: it asks for a password; send one with --password-file FILE";
    assert_eq!(say(&[]), refused(asks));
    let wrong = folder.file("wrong", "sword:fish\n", 0o600);
    let why = "the server answered 401: the password is wrong";
    assert_eq!(say(&["--password-file", &wrong]), refused(why));
    for line in ["swordfish", "alice:swordfish\n", ":swordfish\r\n"] {
        let right = folder.file("right", line, 0o400);
        let ended = say(&["--password-file", &right]);
        assert_eq!(ended, (0, String::new(), String::new()), "{line}");
        relay.log_line("joined: \"me\"");
        fs::remove_file(right).unwrap();
    }
}

#[test]
fn password_that_others_may_read_or_that_has_no_place_is_refused() {
    let folder = Folder::new("open-password");
    let open = folder.file("open", "swordfish\n", 0o640);
    let private = folder.file("private", "swordfish\n", 0o600);
    let why = "others may read it (its mode is 0640); chmod 600 makes it private";
    for (url, path, says) in [
        (
            "ws://127.0.0.1:9",
            &open,
            format!("cannot use --password-file {open}: {why}"),
        ),
        (
            "127.0.0.1:9",
            &private,
            "--password-file is for ws:// and wss://: chat10 has no place for a password"
                .to_owned(),
        ),
    ] {
        let mut command = chatloop(&["join", url, "-n", "me", "--password-file", path]);
        let (code, _, err) = run(&mut command);
        assert_eq!((code, err), (2, format!("chatloop: {says}\n")));
    }
}
