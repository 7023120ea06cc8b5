//! The real program as a child process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::{PATIENCE, frame};

/// The program with these arguments, and nothing of the caller's environment that it would heed.
pub fn chatloop(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatloop"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CHATLOOP_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
    command
}

/// Runs the program to its end; returns its exit code, standard output and standard error.
#[track_caller]
pub fn run(command: &mut Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let code = status.code().expect("it exits and is not killed");
    (
        code,
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// A running `chatloop serve`.
pub struct Relay {
    child: Child,
    log: Option<BufReader<ChildStderr>>,
    pub addr: SocketAddr,
    /// The log's lines so far, without their time stamps.
    pub lines: Vec<String>,
}

impl Relay {
    /// On a free port of 127.0.0.1, with these further arguments.
    pub fn start(args: &[&str]) -> Self {
        let mut command = chatloop(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(args);
        Self::spawn(command)
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut relay = Self {
            child,
            log: Some(log),
            addr: "127.0.0.1:0".parse().unwrap(),
            lines: Vec::new(),
        };
        let line = relay.log_line("listens on");
        let addr = line.split("chat10://").nth(1).unwrap();
        let addr = addr.split([';', ',', ' ']).next().unwrap();
        relay.addr = addr.parse().unwrap();
        relay
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a log line that holds `text`, and returns it.
    #[track_caller]
    pub fn log_line(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.log.as_mut().unwrap().read_line(&mut line).unwrap();
            assert!(
                read > 0,
                "no line with {text:?} in the log:\n{}",
                self.lines.join("\n")
            );
            let line = match line.trim_end().split_once("] ") {
                Some((_, message)) => message.to_owned(),
                None => line.trim_end().to_owned(),
            };
            self.lines.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Closes the reading end of the log.
    pub fn close_log(&mut self) {
        self.log = None;
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([format!("-{signal}"), self.pid().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for the program's end; returns its exit code and the rest of its log.
    #[track_caller]
    pub fn wait(&mut self) -> (i32, String) {
        let mut rest = String::new();
        self.log
            .as_mut()
            .unwrap()
            .read_to_string(&mut rest)
            .unwrap();
        let status = self.child.wait().unwrap();
        (status.code().expect("it exits and is not killed"), rest)
    }

    /// A client that blocks.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A member: returns when the log says that it has joined.
    #[track_caller]
    pub fn join(&mut self, name: &str) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(&frame(name)).unwrap();
        self.log_line("joined:");
        stream
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls for something that no event tells, such as another process's state.
#[track_caller]
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
