//! The log of the real program where the standard error stream accepts no more: the relay must go
//! on, stop when it is asked to, and report what it had to drop.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Child;

use crate::common::process::{chatloop, exit_code, listening_on, send_signal};
use crate::common::{PATIENCE, assert_bytes, delivery, frame};

/// As many connections as log more than the log's queue and the kernel's buffers hold.
const FLOOD: usize = 1000;

/// Each connection of a flood logs a line when it joins and another when it is closed.
const LINES_PER_CONNECTION: usize = 2;

/// A relay whose log is read only when a test does it.
struct Unread {
    child: Child,
    log: BufReader<Box<dyn Read>>,
    addr: SocketAddr,
}

impl Unread {
    fn start((log, stderr): (Box<dyn Read>, OwnedFd)) -> Self {
        let child = chatloop(&["serve", "-l", "127.0.0.1:0"])
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut relay = Self {
            child,
            log: BufReader::new(log),
            addr: "127.0.0.1:0".parse().unwrap(),
        };
        relay.addr = listening_on(&relay.line());
        relay
    }

    /// The log's next line. Fails if it is not whole, or not one line.
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.log.read_line(&mut line).unwrap();
        assert_whole(&line);
        line
    }

    /// A member, registered when this returns.
    #[track_caller]
    fn join(&mut self, name: &str) -> TcpStream {
        let stream = connect(self.addr, name);
        assert!(self.line().contains(&format!("joined: \"{name}\"")));
        stream
    }

    fn signal(&self, name: &str) {
        send_signal(self.child.id(), name);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line begins with its time, has no other line's time in it, and ends with a line feed.
#[track_caller]
fn assert_whole(line: &str) {
    assert!(line.starts_with("[20"), "{line:?}");
    assert_eq!(
        line.matches("Z INFO ] ").count() + line.matches("Z WARN ] ").count(),
        1,
        "{line:?}"
    );
    assert!(line.ends_with('\n'), "{line:?}");
}

fn pipe() -> (Box<dyn Read>, OwnedFd) {
    let (reader, writer) = io::pipe().unwrap();
    (Box::new(reader), writer.into())
}

/// Such as the journal's.
fn socket() -> (Box<dyn Read>, OwnedFd) {
    let (reader, writer) = UnixStream::pair().unwrap();
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    (Box::new(reader), writer.into())
}

fn connect(addr: SocketAddr, name: impl AsRef<[u8]>) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&frame(name)).unwrap();
    stream
}

/// Connections that join with a name which is long in the log, and then send what is no header. So
/// the relay closes them; when this returns it has, and has logged it.
#[track_caller]
fn flood(addr: SocketAddr, connections: usize) {
    for _ in 0..connections {
        let mut stream = connect(addr, [0xff; 200]);
        stream.write_all(b"no header!").unwrap();
        match stream.read_to_end(&mut Vec::new()) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                panic!("not closed: {error}")
            }
            _ => {}
        }
    }
}

#[track_caller]
fn assert_relays(sender: &mut TcpStream, receiver: &mut TcpStream) {
    sender.write_all(&frame("hello")).unwrap();
    let expected = delivery("alice", "hello");
    let mut got = vec![0; expected.len()];
    receiver.read_exact(&mut got).unwrap();
    assert_bytes(&got, &expected);
}

#[test]
fn unread_log_drops_lines_and_reports_their_number_when_it_is_read() {
    for stream in [pipe(), socket()] {
        let mut relay = Unread::start(stream);
        let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
        flood(relay.addr, FLOOD);
        assert_relays(&mut alice, &mut bob);

        let mut lines = 0;
        let report = loop {
            let line = relay.line();
            if line.contains(" dropped: ") {
                break line;
            }
            assert!(line.contains(r#"\xff" "#), "{line}");
            lines += 1;
        };
        let dropped = FLOOD * LINES_PER_CONNECTION - lines;
        let text =
            format!(" WARN ] {dropped} log lines dropped: standard error did not accept them\n");
        assert!(report.ends_with(&text), "{report}");

        relay.signal("HUP");
        assert!(relay.line().contains(" SIGHUP: "));
        relay.signal("TERM");
        assert!(relay.line().contains(" SIGTERM: stopping"));
        assert_eq!(exit_code(&mut relay.child), 0);
        while !relay.line().contains("stopped after") {}
    }
}

#[test]
fn unread_log_does_not_delay_sigterm() {
    for stream in [pipe(), socket()] {
        let mut relay = Unread::start(stream);
        let (mut alice, mut bob) = (relay.join("alice"), relay.join("bob"));
        flood(relay.addr, FLOOD);
        assert_relays(&mut alice, &mut bob);
        relay.signal("TERM");
        assert_eq!(exit_code(&mut relay.child), 0);
        let mut rest = String::new();
        relay.log.read_to_string(&mut rest).unwrap();
        assert!(!rest.is_empty());
        for line in rest.split_inclusive('\n') {
            assert_whole(line);
        }
    }
}

#[test]
fn full_pipe_does_not_delay_the_end_of_a_failed_start() {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    let (_log, mut stderr) = io::pipe().unwrap();
    let flags = fcntl_getfl(&stderr).unwrap();
    fcntl_setfl(&stderr, flags | OFlags::NONBLOCK).unwrap();
    while stderr.write(&[b'x'; 512]).is_ok() {}
    fcntl_setfl(&stderr, flags).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let mut command = chatloop(&["serve", "-l", &addr]);
    let mut child = command.stderr(stderr).spawn().unwrap();
    assert_eq!(exit_code(&mut child), 3);
}

#[cfg(target_os = "linux")]
#[test]
fn stopped_terminal_holds_up_its_log_and_not_the_relay() {
    use crate::common::terminal::{Ended, Terminal};
    use rustix::fs::{Mode, OFlags, open};
    use rustix::termios::{Action, tcflow};

    const CONNECTIONS: usize = 100;

    let mut command = chatloop(&["serve", "-l", "127.0.0.1:0"]);
    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::run(&command, 24, 200);
    terminal.wait_for_text("listens on");
    let addr = listening_on(&terminal.rows().concat());
    let mut alice = connect(addr, "alice");
    terminal.wait_for_text("joined: \"alice\"");
    let mut bob = connect(addr, "bob");
    terminal.wait_for_text("joined: \"bob\"");

    // As Ctrl-S does, but done when this returns.
    let path = format!("/proc/{}/fd/0", terminal.pid());
    let side = open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    tcflow(&side, Action::OOff).unwrap();
    flood(addr, CONNECTIONS);
    assert_relays(&mut alice, &mut bob);
    tcflow(&side, Action::OOn).unwrap();
    terminal.signal("USR1");
    terminal.wait_for_text("SIGUSR1: 2 members");
    let output = String::from_utf8(terminal.output().to_vec()).unwrap();
    // The last line may still be on its way.
    let lines = output.split_inclusive("\r\n");
    let lines: Vec<_> = lines.filter(|line| line.ends_with("\r\n")).collect();
    for line in &lines {
        assert_whole(line);
    }
    let lines = lines.iter().filter(|line| line.contains(r"\xff"));
    assert_eq!(lines.count(), CONNECTIONS * LINES_PER_CONNECTION);

    tcflow(&side, Action::OOff).unwrap();
    flood(addr, 1);
    terminal.signal("TERM");
    // The terminal ends with its last descriptor.
    drop(side);
    assert_eq!(terminal.wait(), Ended::Code(0));
}

#[cfg(target_os = "linux")]
#[test]
fn log_leaves_the_inherited_description_blocking() {
    use rustix::fs::{OFlags, fcntl_getfl};

    let (log, stderr) = pipe();
    let kept = stderr.try_clone().unwrap();
    let _relay = Unread::start((log, stderr));
    assert!(!fcntl_getfl(&kept).unwrap().contains(OFlags::NONBLOCK));
}
