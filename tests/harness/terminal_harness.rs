//! The harness for the terminal client, with programs whose behaviour is known.

#![cfg(feature = "cli")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::common::chat_server::{Refusal, ScriptedServer};
use crate::common::python::PythonServer;
use crate::common::terminal::{Ended, Terminal, bash};
use crate::common::{PATIENCE, assert_bytes, delivery, frame};

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn program_finds_an_empty_terminal_of_the_requested_size() {
    let script = "stty size; echo $TERM $WORD; tty -s && echo $$; exit 3";
    let mut command = sh(script);
    command.env("WORD", "two  words");
    let mut terminal = Terminal::run(&command, 7, 33);
    assert_eq!(terminal.wait(), Ended::Code(3));
    let pid = terminal.pid().to_string();
    assert_eq!(terminal.rows(), ["7 33", "xterm-256color two words", &pid]);
    let printed = format!("7 33\r\nxterm-256color two words\r\n{pid}\r\n");
    assert_bytes(terminal.output(), printed.as_bytes());
}

#[test]
fn typed_text_is_echoed_and_reaches_the_program() {
    let mut terminal = Terminal::run(&Command::new("cat"), 10, 40);
    // The kernel's line editing knows that "ö" is two bytes and one column.
    terminal.send("hällö\x7fo\n");
    terminal.wait_for("the line twice", |screen| {
        screen.contents() == "hällo\nhällo"
    });
    assert_eq!(terminal.cursor(), (2, 0));
    terminal.send("\x04");
    assert_eq!(terminal.wait(), Ended::Code(0));
}

#[test]
fn typed_interrupt_and_sent_signal_end_the_program() {
    let mut typed = Terminal::run(&sh("echo up; exec cat"), 10, 40);
    typed.wait_for_text("up");
    typed.send("\x03");
    assert_eq!(typed.wait(), Ended::Signal("INT"));
    let mut sent = Terminal::run(&Command::new("cat"), 10, 40);
    sent.signal("TERM");
    assert_eq!(sent.wait(), Ended::Signal("TERM"));
}

#[test]
fn resize_reaches_the_program_and_the_emulator() {
    let script = "trap 'stty size; exit' WINCH; echo up; while :; do read line; done";
    let mut terminal = Terminal::run(&sh(script), 10, 40);
    terminal.wait_for_text("up");
    terminal.resize(12, 60);
    terminal.wait_for_text("12 60");
    let (rows, cols) = terminal.screen().size();
    assert_eq!((rows.get(), cols.get()), (12, 60));
}

#[test]
fn modes_that_a_program_leaves_switched_are_detected() {
    for (leaves, same) in [
        ("found=$(stty -g); stty raw -echo; stty $found", true),
        ("stty -echo", false),
        ("stty intr ^G", false),
        (r"printf '\033[?2004h\033[31m\033[?2004l\033[m'", true),
        (r"printf '\033[?2004h'", false),
        (r"printf '\033[?25l'", false),
        (r"printf '\033[31m'", false),
    ] {
        let script = format!("echo up; read line; {leaves}");
        let mut terminal = Terminal::run(&sh(&script), 10, 40);
        terminal.wait_for_text("up");
        let found = terminal.modes();
        terminal.send("\n");
        assert_eq!(terminal.wait(), Ended::Code(0));
        let left = terminal.modes();
        assert_eq!(left == found, same, "{leaves}: {found:#?} {left:#?}");
    }
}

#[test]
fn rows_that_scroll_away_are_in_the_history() {
    let script = "i=1; while [ $i -le 30 ]; do echo row $i; i=$((i+1)); done";
    let mut terminal = Terminal::run(&sh(script), 5, 40);
    terminal.wait();
    let all: Vec<_> = (1..=30).map(|i| format!("row {i}")).collect();
    assert_eq!(terminal.history(), all);
    assert_eq!(terminal.rows(), all[26..]);
}

#[test]
fn paste_is_bracketed() {
    let script = r"stty raw -echo; printf '\033[?2004hup '; exec cat -v";
    let mut terminal = Terminal::run(&sh(script), 10, 40);
    terminal.wait_for_text("up");
    terminal.paste("a\nb");
    terminal.wait_for_text("up ^[[200~a^Mb^[[201~");
}

#[test]
#[should_panic(
    expected = "waited in vain for: \"hello\"; the program has ended: Code(0); \
                           the cursor is in row 1, column 0 of\n  |bye\n  |\n"
)]
fn wait_for_text_fails_at_once_when_the_program_has_ended() {
    let mut terminal = Terminal::run(&sh("echo bye"), 2, 40);
    terminal.wait();
    terminal.wait_for_text("hello");
}

#[test]
fn shell_on_the_terminal_has_job_control() {
    let Some(mut bash) = bash() else {
        return;
    };
    bash.env("PROGRAM", "echo up; exec cat");
    let mut terminal = Terminal::run(&bash, 20, 60);
    terminal.wait_for_text("$ ");
    // Each answer is awaited before more is typed: between its programs a shell echoes nothing.
    terminal.send("sh -c \"$PROGRAM\"\n");
    terminal.wait_for_text("\nup");
    terminal.send("one\n");
    terminal.wait_for_text("one\none");
    terminal.send("\x1a");
    terminal.wait_for("the prompt of the shell", |screen| {
        let shown = screen.contents();
        shown.contains("Stopped") && shown.ends_with("\n$ ")
    });
    terminal.send("fg\n");
    terminal.wait_for_text("fg\nsh -c \"$PROGRAM\"");
    terminal.send("two\n");
    terminal.wait_for_text("two\ntwo");
    terminal.send("\x04");
    terminal.wait_for("the prompt of the shell", |screen| {
        screen.contents().ends_with("\n$ ")
    });
    terminal.send("exit 7\n");
    assert_eq!(terminal.wait(), Ended::Code(7));
}

#[test]
fn scripted_server_sends_and_receives_frames() {
    let server = ScriptedServer::new();
    let mut client = TcpStream::connect(server.addr()).unwrap();
    let mut peer = server.accept();
    client
        .write_all(&[frame("alice"), frame("hello"), frame("")].concat())
        .unwrap();
    peer.expect_frame("alice");
    peer.expect_frames(&["hello", ""]);
    peer.say("bob", "hi");
    peer.send_raw("no frame");
    client.write_all(b"rest").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_bytes(&peer.read_to_end(), b"rest");
    peer.close();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_bytes(
        &got,
        &[delivery("bob", "hi"), b"no frame".to_vec()].concat(),
    );

    let mut client = TcpStream::connect(server.addr()).unwrap();
    server.accept().reset();
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let error = TcpStream::connect(Refusal::new().addr()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn python_relay_relays_to_all_others() {
    let Some(relay) = PythonServer::start() else {
        return;
    };
    let join = |name: &str| {
        let mut stream = TcpStream::connect(relay.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&frame(name)).unwrap();
        stream
    };
    let receives = |stream: &mut TcpStream, expected: Vec<u8>| {
        let mut got = vec![0; expected.len()];
        stream.read_exact(&mut got).unwrap();
        assert_bytes(&got, &expected);
    };
    // It accepts members in the order of their connections, and reads the name of each before the next.
    let (mut alice, mut bob, carol) = (join("alice"), join("bob"), join("carol"));
    drop(carol);
    bob.write_all(&frame("hällo")).unwrap();
    receives(&mut alice, delivery("bob", "hällo"));
    alice.write_all(&frame("hello")).unwrap();
    receives(&mut bob, delivery("alice", "hello"));
}
