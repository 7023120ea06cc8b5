//! A relay under `torture_shim.c`: which system calls it makes, and what they are about.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus, Stdio};
use std::str;
use std::time::Duration;

use rlimit::Resource;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

use crate::common::process::chatloop_after;

/// The descriptor of the standard error stream, which is the log.
const LOG: i32 = 2;

/// How much the kernel holds for a client that does not read, whatever the system's default is.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Calls that are to fail: of this function, counted for itself, from the first on, so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    pub function: &'static str,
    pub first: usize,
    pub error: Errno,
    pub times: usize,
}

/// An error's name and number.
pub type Errno = (&'static str, i32);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (error, _) = self.error;
        write!(f, "{} {} {error} {}", self.function, self.first, self.times)
    }
}

/// A system call that was made, or that was made to fail.
#[derive(Clone, Debug)]
pub struct Call {
    pub function: String,
    pub fd: i32,
    pub result: i64,
    pub errno: i32,
    port: u16,
    pub has_failed: bool,
}

/// A connection: the port of the listener that it came in at, and the port that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub listener: u16,
    pub from: u16,
}

impl Route {
    pub fn of(stream: &TcpStream) -> Self {
        Self {
            listener: stream.peer_addr().unwrap().port(),
            from: stream.local_addr().unwrap().port(),
        }
    }
}

/// One connection as the relay's system calls show it.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// It is watched, and not only held in hand until there is a descriptor for it.
    pub is_let_in: bool,
    pub read: usize,
    pub written: usize,
    pub is_closed: bool,
    /// A call about it failed in a way that may cost it the connection.
    pub is_hit: bool,
}

/// What has failed, if not a call about one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hit {
    Accept,
    Poll,
    Log,
}

/// Of what the relay was notified that it is not ready, though it is. It takes another event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    Listener(u16),
    Connection(Route),
}

/// A relay whose system calls are reported, and which waits only when that is permitted.
pub struct Traced {
    child: Child,
    trace: ChildStdout,
    /// The end of the trace, which is no whole line yet.
    line: Vec<u8>,
    gate: ChildStdin,
    stderr: ChildStderr,
    log: Vec<u8>,
    pub calls: Vec<Call>,
    state: State,
    /// The ports of the listeners, in the order of the flags.
    pub ports: Vec<u16>,
    listeners: BTreeMap<i32, u16>,
    /// What a signal's handler writes to.
    waker: Option<i32>,
    routes: BTreeMap<i32, Route>,
    traffic: BTreeMap<Route, Traffic>,
    pub stalls: Vec<Stall>,
    /// How often it has looked for signals.
    pub signals_seen: usize,
    /// How often it was notified, since it last waited, that there is nothing to accept with.
    pub shortages: usize,
    /// How often a call has failed that was about no connection.
    hits: BTreeMap<Hit, usize>,
}

/// What a relay is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Busy,
    /// It has nothing to do, and would wait for so many milliseconds, or for ever if they are
    /// negative.
    Asleep {
        timeout: i32,
    },
    /// It was let, or woken by a signal, and has not done anything since.
    Let,
    Ended,
}

impl Traced {
    pub fn start(shim: &Path, args: &[&str], failure: Option<&Failure>) -> Self {
        // So that there is a limit to be raised, which is a call too. The shell's own calls do not
        // count.
        let (_, hard) = Resource::NOFILE.get().unwrap();
        let script = format!("ulimit -Sn {}; export LD_PRELOAD=\"$SHIM\";", hard - 1);
        let mut command = chatloop_after(&script, &[&["serve"], args].concat());
        command.env("SHIM", shim);
        if let Some(failure) = failure {
            let (_, errno) = failure.error;
            let plan = format!(
                "{} {} {} {errno}",
                failure.function, failure.first, failure.times
            );
            command.env("SHIM_FAIL", plan);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (trace, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        fcntl_setfl(&trace, OFlags::NONBLOCK).unwrap();
        fcntl_setfl(&stderr, OFlags::NONBLOCK).unwrap();
        Self {
            trace,
            line: Vec::new(),
            gate: child.stdin.take().unwrap(),
            stderr,
            child,
            log: Vec::new(),
            calls: Vec::new(),
            state: State::Busy,
            ports: Vec::new(),
            listeners: BTreeMap::new(),
            waker: None,
            routes: BTreeMap::new(),
            traffic: BTreeMap::new(),
            stalls: Vec::new(),
            signals_seen: 0,
            shortages: 0,
            hits: BTreeMap::new(),
        }
    }

    /// Notes what it has done; if it may be about to do something, waits a moment for that.
    pub fn watch(&mut self) {
        if matches!(self.state, State::Busy | State::Let) {
            let moment = Timespec::try_from(Duration::from_millis(10)).unwrap();
            let trace = self.trace.as_fd();
            poll(&mut [PollFd::new(&trace, PollFlags::IN)], Some(&moment)).unwrap();
        }
        let mut bytes = Vec::new();
        let has_ended = read_all(&mut self.trace, &mut bytes);
        for byte in bytes {
            if byte == b'\n' {
                let line = mem::take(&mut self.line);
                self.note(str::from_utf8(&line).unwrap());
            } else {
                self.line.push(byte);
            }
        }
        if has_ended {
            self.state = State::Ended;
        }
        read_all(&mut self.stderr, &mut self.log);
    }

    /// Whether it has done all that there was to do.
    pub fn is_still(&self) -> bool {
        self.state != State::Busy
    }

    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Lets it wait. The short waits, which are those for descriptors, are passed over, or all.
    pub fn go_on(&mut self, pass_over: bool) {
        if let State::Asleep { timeout } = self.state {
            let is_short = (1..=1000).contains(&timeout);
            let how = if is_short || pass_over { b"j" } else { b"g" };
            // If it has just ended, its trace will show it.
            let _ = self.gate.write_all(how);
            self.state = State::Let;
        }
    }

    /// Sends a signal, which ends its waiting.
    pub fn signal(&mut self, signal: Signal) {
        let pid = self.child.id().try_into().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        self.state = State::Let;
    }

    /// Whether calls of this kind have failed in a way that may do harm.
    pub fn is_hit(&self, hit: Hit) -> bool {
        let harmless = match hit {
            // There is a descriptor in reserve.
            Hit::Accept => 1,
            Hit::Poll | Hit::Log => 0,
        };
        self.hits.get(&hit).is_some_and(|&times| times > harmless)
    }

    /// A connection to a listener. Nothing that was notified before is about it.
    pub fn connect(&mut self, listener: u16) -> (TcpStream, Route) {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, listener));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        socket.connect(&addr.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let stream = TcpStream::from(socket);
        let route = Route::of(&stream);
        self.traffic.remove(&route);
        (stream, route)
    }

    /// What it has done with a connection; nothing before it has accepted it.
    pub fn traffic(&self, route: Route) -> Option<&Traffic> {
        self.traffic.get(&route)
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log).into_owned()
    }

    /// How it ended, when it has.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    fn note(&mut self, line: &str) {
        if let Some(timeout) = line.strip_prefix("asleep ") {
            let timeout = timeout.parse().unwrap();
            self.state = State::Asleep { timeout };
            self.shortages = 0;
            return;
        }
        let call = Call::parse(line);
        // A signal's handler runs while it is asleep.
        if Some(call.fd) != self.waker {
            self.state = State::Busy;
        }
        if call.has_failed {
            self.note_failure(&call);
        } else if let Ok(result) = usize::try_from(call.result) {
            self.note_success(&call, result);
        }
        let is_of_member = self.routes.contains_key(&call.fd);
        if call.function == "recv" && !is_of_member {
            self.signals_seen += 1;
        }
        if call.function == "close" {
            self.listeners.remove(&call.fd);
            if let Some(route) = self.routes.remove(&call.fd) {
                self.traffic.get_mut(&route).unwrap().is_closed = true;
            }
        }
        self.calls.push(call);
    }

    fn note_success(&mut self, call: &Call, result: usize) {
        match &call.function[..] {
            "listen" => {
                self.ports.push(call.port);
                self.listeners.insert(call.fd, call.port);
            }
            "socketpair" => self.waker = Some(call.fd),
            "accept4" => {
                let route = Route {
                    listener: self.listeners[&call.fd],
                    from: call.port,
                };
                self.routes.insert(result.try_into().unwrap(), route);
                self.traffic.insert(route, Traffic::default());
            }
            _ => {}
        }
        let Some(route) = self.routes.get(&call.fd) else {
            return;
        };
        let traffic = self.traffic.get_mut(route).unwrap();
        match &call.function[..] {
            "epoll_ctl" => traffic.is_let_in = true,
            "recv" => traffic.read += result,
            "send" | "writev" => traffic.written += result,
            _ => {}
        }
    }

    fn note_failure(&mut self, call: &Call) {
        // The one has happened all the same, and the other is made again.
        if call.function == "close" || call.errno == libc::EINTR {
            return;
        }
        let is_reported_later = call.errno == libc::EAGAIN;
        if let Some(&route) = self.routes.get(&call.fd) {
            if is_reported_later {
                self.stalls.push(Stall::Connection(route));
            } else {
                self.traffic.get_mut(&route).unwrap().is_hit = true;
            }
            return;
        }
        let hit = match (&call.function[..], self.listeners.get(&call.fd)) {
            ("accept4", Some(&port)) if is_reported_later => {
                return self.stalls.push(Stall::Listener(port));
            }
            ("accept4", _) => Hit::Accept,
            ("epoll_wait", _) => Hit::Poll,
            ("write", _) if call.fd == LOG => Hit::Log,
            _ => return,
        };
        let shortage = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        if hit == Hit::Accept && shortage.contains(&call.errno) {
            self.shortages += 1;
        }
        *self.hits.entry(hit).or_default() += 1;
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Call {
    fn parse(line: &str) -> Self {
        let has_failed = line.starts_with('!');
        let words: Vec<_> = line.trim_start_matches('!').split(' ').collect();
        let [function, fd, result, errno, port] = words[..] else {
            panic!("not a line of the shim: {line}");
        };
        Self {
            function: function.to_owned(),
            fd: fd.parse().unwrap(),
            result: result.parse().unwrap(),
            errno: errno.parse().unwrap(),
            port: port.parse().unwrap(),
            has_failed,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.has_failed { "!" } else { "" };
        let (function, fd, result) = (&self.function, self.fd, self.result);
        write!(f, "{mark}{function}({fd}) = {result}")?;
        if self.result < 0 {
            write!(f, " (error {})", self.errno)?;
        }
        Ok(())
    }
}

/// Reads all that there is. Says whether there will never be more.
pub fn read_all(stream: &mut impl Read, bytes: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return false,
                ErrorKind::Interrupted => {}
                _ => return true,
            },
        }
    }
}
