//! The real program as a child process.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, frame};

const PROGRAM: &str = env!("CARGO_BIN_EXE_chatloop");

/// The program with these arguments, and nothing of the caller's environment that it would heed.
pub fn chatloop(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).stdin(Stdio::null());
    forget_environment(&mut command);
    command
}

/// The same, started by a shell that does something else first.
pub fn chatloop_after(script: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{script} exec \"$@\""), "sh", PROGRAM]);
    command.args(args).stdin(Stdio::null());
    forget_environment(&mut command);
    command
}

/// Removes what the program would heed.
fn forget_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CHATLOOP_") {
            command.env_remove(name);
        }
    }
    for name in [
        // No test reads or writes what a client has kept for its user.
        "HOME",
        "XDG_STATE_HOME",
        "RUST_LOG",
        "JOURNAL_STREAM",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    ] {
        command.env_remove(name);
    }
}

/// What the environment of a test that runs alone has in it.
const ALONE: &str = "TEST_RUNS_ALONE";

/// Runs this test again, in a process in which there is no other test, and returns false. In that
/// process it returns true. It is for what is counted for a whole process, such as descriptors.
///
/// `module` is the caller's `module_path!()`.
#[track_caller]
pub fn is_alone(module: &str, test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let (_crate, module) = module.split_once("::").unwrap();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", &format!("{module}::{test}"), "--nocapture"]);
    let (code, out, err) = run(again.env(ALONE, "1"));
    let has_passed = code == 0 && out.contains("test result: ok. 1 passed");
    assert!(has_passed, "exit code {code}\n{out}{err}");
    false
}

/// Runs the program to its end; returns its exit code, standard output and standard error.
#[track_caller]
pub fn run(command: &mut Command) -> (i32, String, String) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = lines_of(child.stdout.take().unwrap());
    let err = lines_of(child.stderr.take().unwrap());
    let code = exit_code(&mut child);
    let text = |lines: Receiver<String>| lines.iter().map(|line| line + "\n").collect();
    (code, text(out), text(err))
}

/// Waits for a program's end, but not for ever.
#[track_caller]
pub fn exit_code(child: &mut Child) -> i32 {
    let mut ended: Option<ExitStatus> = None;
    let start = Instant::now();
    while ended.is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the program does not end");
        }
        thread::sleep(Duration::from_millis(1));
        ended = child.try_wait().unwrap();
    }
    ended.unwrap().code().expect("it exits and is not killed")
}

/// A stream's lines as they come, from a thread of their own, so that waiting for one can end.
pub fn lines_of(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Sends a signal, such as `TERM`.
#[track_caller]
pub fn send_signal(pid: u32, signal: &str) {
    let sent = Command::new("kill")
        .args([format!("-{signal}"), pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// A running `chatloop serve`.
pub struct Relay {
    child: Child,
    log: Receiver<String>,
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
        let mut relay = Self {
            log: lines_of(child.stderr.take().unwrap()),
            child,
            addr: "127.0.0.1:0".parse().unwrap(),
            lines: Vec::new(),
        };
        relay.addr = listening_on(&relay.log_line("listens on"));
        relay
    }

    /// With a listener for each of these dialects, on free ports of 127.0.0.1.
    pub fn serving(dialects: &[&str], args: &[&str]) -> Self {
        let mut command = chatloop(&["serve"]);
        for dialect in dialects {
            command.args(["--listen", &format!("{dialect}://127.0.0.1:0")]);
        }
        command.args(args);
        Self::spawn(command)
    }

    /// Where it listens for clients of this dialect.
    pub fn addr_of(&self, dialect: &str) -> SocketAddr {
        let listener = format!("{dialect}://");
        address_of(self.lines[0].split(&listener).nth(1).unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a log line that holds `text`, and returns it.
    #[track_caller]
    pub fn log_line(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.log.recv_timeout(PATIENCE) else {
                panic!(
                    "no line with {text:?} in the log:\n{}",
                    self.lines.join("\n")
                );
            };
            let line = self.note_line(line);
            if line.contains(text) {
                return line;
            }
        }
    }

    /// A log line that holds `text`, if it has come by now.
    pub fn try_log_line(&mut self, text: &str) -> Option<String> {
        while let Ok(line) = self.log.try_recv() {
            let line = self.note_line(line);
            if line.contains(text) {
                return Some(line);
            }
        }
        None
    }

    /// Keeps a line of the log, without its time stamp, and returns it.
    fn note_line(&mut self, line: String) -> String {
        let line = match line.split_once("] ") {
            Some((_, message)) => message.to_owned(),
            None => line,
        };
        self.lines.push(line.clone());
        line
    }

    pub fn signal(&self, signal: &str) {
        send_signal(self.pid(), signal);
    }

    /// Waits for the program's end; returns its exit code and the rest of its log.
    #[track_caller]
    pub fn wait(&mut self) -> (i32, String) {
        let code = exit_code(&mut self.child);
        let rest: Vec<_> = self.log.iter().collect();
        (code, rest.join("\n"))
    }

    /// A client that blocks.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A member: returns when the log reports that it has joined.
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

/// The first address of a start line.
pub fn listening_on(line: &str) -> SocketAddr {
    address_of(line.split("://").nth(1).unwrap())
}

/// The address that a text begins with.
fn address_of(text: &str) -> SocketAddr {
    text.split([';', ',', ' ']).next().unwrap().parse().unwrap()
}

/// Polls for something that no event reports, such as another process's state.
#[track_caller]
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
