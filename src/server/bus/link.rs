//! One connection to the engine: it is made, used until it fails, and made anew.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::config::BusConfig;
use crate::bus::{Failure, ReplyDecoder, Value, encode_command};
use crate::relay::{Ready, after};
use crate::server::system::{Source, System};

/// How long the engine may take for a reply, beside the time that it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(15);

/// The wait before the second try to connect. It doubles with each try that follows.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait before another try.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How often a connection is read in a turn, at the most.
const MAX_READS: usize = 16;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The system or the network says so.
    Io(io::Error),
    /// The engine has closed it.
    Closed,
    /// The engine has not answered in time.
    Silent,
    /// The engine has answered, and not as it should.
    Failure(Failure),
    /// The Sentinels know no engine of that name, or it is none that can be written to.
    NoMaster,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Silent => f.write_str("it does not answer"),
            Self::Failure(failure) => failure.fmt(f),
            Self::NoMaster => f.write_str("there is no master"),
        }
    }
}

/// A reply that is due before the connection can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    /// `OK`, or what stands for it.
    Status,
    /// The role of the engine, which must be a master's.
    Role,
    /// The address of the master, from a Sentinel.
    Master,
}

/// `Link` is one connection to the engine.
#[derive(Debug)]
pub(super) struct Link<T> {
    /// What its events are reported as.
    index: usize,
    stream: Option<T>,
    /// Where it is connected to, or would be.
    peer: SocketAddr,
    /// Which of the addresses is tried next.
    next_addr: usize,
    /// Where the Sentinel has said that the master is.
    master: Option<SocketAddr>,
    decoder: ReplyDecoder,
    max_bytes: usize,
    /// What is to be written, and how much of it was.
    out: Vec<u8>,
    written: usize,
    setup: VecDeque<Setup>,
    ready: Ready,
    /// When the engine must have sent something.
    deadline: Option<Instant>,
    /// How much longer than usual it may take.
    block: Duration,
    /// When the next try to connect is due.
    retry_at: Instant,
    wait: Duration,
}

/// What became of a link in a turn.
#[derive(Debug)]
pub(super) enum Change {
    /// There is a connection. Its first replies are the setup's.
    Connected,
    /// The connection is gone, or there is none.
    Lost(Trouble),
}

impl<T: Read + Write> Link<T> {
    /// A link whose byte strings may have this length. The engine may take longer by `block` to answer.
    pub(super) fn new(
        index: usize,
        config: &BusConfig,
        max_bytes: usize,
        block: Duration,
        now: Instant,
    ) -> Self {
        Self {
            index,
            stream: None,
            peer: config.addrs[0],
            next_addr: 0,
            master: None,
            decoder: ReplyDecoder::new(max_bytes),
            max_bytes,
            out: Vec::new(),
            written: 0,
            setup: VecDeque::new(),
            ready: Ready::default(),
            deadline: None,
            block,
            retry_at: now,
            wait: Duration::ZERO,
        }
    }

    /// Where it is connected to, or tries to be.
    pub(super) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the engine has accepted the connection, so that it can be used.
    pub(super) fn is_up(&self) -> bool {
        self.stream.is_some() && self.setup.is_empty()
    }

    /// Whether there is a connection, to a Sentinel or to the engine.
    pub(super) const fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether everything was written.
    pub(super) const fn is_flushed(&self) -> bool {
        self.written == self.out.len()
    }

    /// Records what an event reports.
    pub(super) fn note(&mut self, ready: Ready) {
        self.ready.insert(ready);
    }

    /// Whether there is something to do without another event.
    pub(super) fn has_ready(&self) -> bool {
        self.stream.is_some() && self.ready.any(Ready::READABLE)
    }

    /// When there is something to do at the latest.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match self.stream {
            Some(_) => self.deadline,
            None => Some(self.retry_at),
        }
    }

    /// Where requests are appended that are to be sent.
    pub(super) fn requests(&mut self, now: Instant) -> &mut Vec<u8> {
        let deadline = after(now, PATIENCE + self.block);
        self.deadline.get_or_insert(deadline);
        &mut self.out
    }

    /// No reply is due, now that the setup is complete.
    pub(super) const fn expect_nothing(&mut self) {
        self.deadline = None;
    }

    /// Connects if it is time to.
    pub(super) fn connect_if_due<S: System<Stream = T>>(
        &mut self,
        system: &mut S,
        config: &BusConfig,
        now: Instant,
    ) -> Option<Change> {
        if self.stream.is_some() || now < self.retry_at {
            return None;
        }
        self.peer = self.master.unwrap_or_else(|| {
            let addr = config.addrs[self.next_addr % config.addrs.len()];
            self.next_addr += 1;
            addr
        });
        let connected = system.connect(self.peer).and_then(|mut stream| {
            system.watch(&mut stream, Source::Bus(self.index))?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => {
                self.stream = Some(stream);
                self.ready = Ready::default();
                self.begin(config, now);
                let is_engine = !self.setup.contains(&Setup::Master);
                is_engine.then_some(Change::Connected)
            }
            Err(error) => Some(self.lose(Trouble::Io(error), system, now)),
        }
    }

    /// What comes first on a new connection.
    fn begin(&mut self, config: &BusConfig, now: Instant) {
        self.decoder = ReplyDecoder::new(self.max_bytes);
        self.setup.clear();
        self.deadline = Some(after(now, PATIENCE));
        let is_sentinel = config.master.is_some() && self.master.take().is_none();
        if let Some(master) = config.master.as_ref().filter(|_| is_sentinel) {
            let command: [&[u8]; 3] = [b"SENTINEL", b"get-master-addr-by-name", master.as_bytes()];
            encode_command(&command, &mut self.out);
            return self.setup.push_back(Setup::Master);
        }
        if let Some(login) = &config.login {
            let user = login.user.as_deref().map(str::as_bytes);
            let words = [Some(&b"AUTH"[..]), user, Some(login.password.as_bytes())];
            let words: Vec<_> = words.into_iter().flatten().collect();
            encode_command(&words, &mut self.out);
            self.setup.push_back(Setup::Status);
        }
        if config.database > 0 {
            let database = config.database.to_string();
            encode_command(&[b"SELECT", database.as_bytes()], &mut self.out);
            self.setup.push_back(Setup::Status);
        }
        if config.master.is_some() {
            encode_command(&[b"ROLE"], &mut self.out);
            self.setup.push_back(Setup::Role);
        } else {
            // So that the first reply shows whether the connection can be used.
            encode_command(&[b"PING"], &mut self.out);
            self.setup.push_back(Setup::Status);
        }
    }

    /// Reads what has come, and gives each reply that is not the setup's to `on_reply`.
    pub(super) fn read<S: System<Stream = T>>(
        &mut self,
        system: &mut S,
        scratch: &mut [u8],
        now: Instant,
        mut on_reply: impl FnMut(Value) -> Result<(), Failure>,
    ) -> Option<Change> {
        if !self.has_ready() {
            return None;
        }
        let read = self.read_replies(scratch, now, &mut on_reply);
        match read {
            Ok(()) => None,
            Err(trouble) => Some(self.lose(trouble, system, now)),
        }
    }

    fn read_replies(
        &mut self,
        scratch: &mut [u8],
        now: Instant,
        on_reply: &mut impl FnMut(Value) -> Result<(), Failure>,
    ) -> Result<(), Trouble> {
        for _ in 0..MAX_READS {
            let Some(stream) = &mut self.stream else {
                return Ok(());
            };
            let len = match stream.read(scratch) {
                Ok(0) => return Err(Trouble::Closed),
                Ok(len) => len,
                Err(error) if is_not_yet(&error) => {
                    self.ready.remove(Ready::READABLE);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Trouble::Io(error)),
            };
            self.deadline = Some(after(now, PATIENCE + self.block));
            self.decoder.feed(&scratch[..len]);
            let no_reply = |error| Trouble::Failure(Failure::from(error));
            while let Some(value) = self.decoder.decode().map_err(no_reply)? {
                match self.setup.pop_front() {
                    Some(setup) => self.on_setup(setup, value)?,
                    None => on_reply(value).map_err(Trouble::Failure)?,
                }
            }
        }
        Ok(())
    }

    fn on_setup(&mut self, setup: Setup, value: Value) -> Result<(), Trouble> {
        match (setup, value) {
            (_, Value::Error(text)) => return Err(Trouble::Failure(Failure::Refused(text))),
            (Setup::Role, Value::Array(role)) => {
                if role.first().and_then(Value::bytes) != Some(b"master") {
                    return Err(Trouble::NoMaster);
                }
            }
            (Setup::Master, Value::Array(addr)) => {
                let words: Option<Vec<_>> = addr.iter().map(Value::bytes).collect();
                self.master = words.and_then(|words| address(&words));
                // The connection to the Sentinel has served its purpose.
                self.stream = None;
                if self.master.is_none() {
                    return Err(Trouble::NoMaster);
                }
            }
            (Setup::Master, _) => return Err(Trouble::NoMaster),
            (Setup::Role, _) => return Err(Trouble::Failure(Failure::Unexpected)),
            (Setup::Status, _) => {}
        }
        if self.is_up() {
            self.wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Writes what the socket accepts.
    pub(super) fn flush<S: System<Stream = T>>(
        &mut self,
        system: &mut S,
        now: Instant,
    ) -> Option<Change> {
        while let Some(stream) = &mut self.stream
            && self.written < self.out.len()
            && self.ready.any(Ready::WRITABLE)
        {
            match stream.write(&self.out[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if is_not_yet(&error) => self.ready.remove(Ready::WRITABLE),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Some(self.lose(Trouble::Io(error), system, now)),
            }
        }
        if self.is_flushed() {
            self.out.clear();
            self.out.shrink_to(64 * 1024);
            self.written = 0;
        }
        None
    }

    /// Closes a connection on which nothing came for too long.
    pub(super) fn check<S: System<Stream = T>>(
        &mut self,
        system: &mut S,
        now: Instant,
    ) -> Option<Change> {
        let is_late = self.stream.is_some() && self.deadline.is_some_and(|at| at <= now);
        is_late.then(|| self.lose(Trouble::Silent, system, now))
    }

    /// Closes the connection. The next try is later the more have failed.
    pub(super) fn lose<S: System<Stream = T>>(
        &mut self,
        trouble: Trouble,
        system: &mut S,
        now: Instant,
    ) -> Change {
        self.stream = None;
        self.master = None;
        self.out = Vec::new();
        self.written = 0;
        self.setup.clear();
        self.deadline = None;
        // Many relays lose the engine at the same moment, and should not all come back at the same moment.
        let jitter = 0.5 + (system.random() % 1000) as f64 / 1000.0;
        self.retry_at = after(now, self.wait.mul_f64(jitter));
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        Change::Lost(trouble)
    }
}

/// Whether the socket has nothing to read or takes nothing yet. One that is still connecting says so as well.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}

/// The address that a Sentinel replies: a numeric host, and a port.
fn address(words: &[&[u8]]) -> Option<SocketAddr> {
    let [host, port] = words else {
        return None;
    };
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let host = text(host)?.parse().ok()?;
    Some(SocketAddr::new(host, text(port)?.parse().ok()?))
}
