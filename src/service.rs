//! Life under a service manager such as systemd: the sockets that it passes, and what it is told.
//!
//! It makes itself known in the environment; without its variables there is nothing to do here.

use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::{Duration, Instant};

use chatloop::server::{Inherited, Preamble, Server, System};
use chatloop::wire::Dialect;
use listenfd::ListenFd;
use log::warn;

use crate::cli::parse_protocol;

/// The listening sockets that were passed: see sd_listen_fds(3). A socket's name is its dialect, with
/// `proxy+` or `tls+` in front as on the command line; a socket with any other name, or without one, is for `chat10`.
///
/// To be called before anything else opens descriptors, which could be mistaken for these.
///
/// # Errors
///
/// If one of them is no TCP socket that listens.
pub(crate) fn passed_sockets() -> io::Result<Vec<Inherited>> {
    let mut passed = ListenFd::from_env();
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    (0..passed.len())
        .filter_map(|index| passed.take_tcp_listener(index).transpose())
        .map(|socket| {
            let (preamble, dialect) = protocol(names.next().unwrap_or_default());
            Ok(Inherited::new(dialect, socket?)?.with(preamble))
        })
        .collect()
}

/// The dialect of a socket of this name, and what its connections begin with.
fn protocol(name: &str) -> (Preamble, Dialect) {
    parse_protocol(name).unwrap_or_else(|error| {
        // Without a name of its own a socket is called by its unit, or `unknown`.
        if !name.is_empty() && name != "unknown" && !name.ends_with(".socket") {
            warn!("socket {name:?} is served as chat10: {error}");
        }
        (Preamble::NONE, Dialect::Chat10)
    })
}

/// After how long to try again to notify the manager of a state. The loop has no event for when a
/// queue of another process has room again.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A `Manager` is the service manager, which is notified of the relay's state: see sd_notify(3).
///
/// A message is one datagram. It needs no connection, so that a manager that is started anew is
/// notified again; and no descriptor but this one, so that a relay which is short of them can still
/// report that it is alive.
#[derive(Debug)]
pub(crate) struct Manager {
    /// It is non-blocking: the manager's queue may be full.
    socket: UnixDatagram,
    addr: SocketAddr,
    /// The state that the manager was not notified of yet.
    pending: Option<State>,
    /// The last state that it was to be notified of.
    state: State,
    /// How often its watchdog must hear from the loop, if there is one.
    ping_every: Option<Duration>,
    ping_due: Option<Instant>,
    /// The last message did not get there, which was logged.
    is_deaf: bool,
}

/// A state of the relay that the manager acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Stopping,
}

impl State {
    const fn assignment(self) -> &'static str {
        match self {
            Self::Ready => "READY=1",
            Self::Stopping => "STOPPING=1",
        }
    }
}

impl Manager {
    /// The manager that asks for notifications, if there is one.
    pub(crate) fn from_env() -> Option<Self> {
        let name = env::var_os("NOTIFY_SOCKET")?;
        match Self::at(&name) {
            Ok(manager) => Some(manager),
            Err(error) => {
                warn!("cannot use NOTIFY_SOCKET {}: {error}", name.display());
                None
            }
        }
    }

    fn at(name: &OsStr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let ping_every = ping_every();
        Ok(Self {
            socket,
            addr: address(name)?,
            pending: Some(State::Ready),
            state: State::Ready,
            ping_every,
            ping_due: next_ping(ping_every),
            is_deaf: false,
        })
    }

    /// Sends what is due, without blocking: that the relay is ready, that it stops, or a ping. Returns
    /// after how long to call this again at the latest.
    ///
    /// Call this before the first turn and after each. So it is the loop itself that pings the
    /// watchdog, and a loop that hangs is noticed. A change of the room is not worth a wake-up, so the
    /// number of members is sent with the pings.
    pub(crate) fn notify<S: System>(
        &mut self,
        server: &Server<S>,
        listens_on: &str,
    ) -> Option<Duration> {
        if server.is_stopping() && self.state == State::Ready {
            self.state = State::Stopping;
            // That the relay was ready before is of no use any more.
            self.pending = Some(State::Stopping);
        }
        if let Some(state) = self.pending {
            let message = format!("{}\n{}", state.assignment(), status(server, listens_on));
            if self.send(&message) {
                self.pending = None;
            }
        }
        // A ping before the state could take the only room in the manager's queue.
        if self.pending.is_some() {
            return Some(RETRY_INTERVAL);
        }
        let now = Instant::now();
        if self.ping_due.is_some_and(|due| due <= now) {
            self.send(&format!("WATCHDOG=1\n{}", status(server, listens_on)));
            self.ping_due = next_ping(self.ping_every);
        }
        Some(self.ping_due?.saturating_duration_since(now))
    }

    /// Sends a message. One that does not get there is logged, but only the first in a row. Returns
    /// false if it is worth sending it again: the manager's queue is full now.
    fn send(&mut self, message: &str) -> bool {
        match self.socket.send_to_addr(message.as_bytes(), &self.addr) {
            Ok(_) => {
                self.is_deaf = false;
                true
            }
            Err(error) => {
                if !mem::replace(&mut self.is_deaf, true) {
                    warn!("cannot notify the service manager: {error}");
                }
                // Linux and the BSDs have different errors for it.
                let is_full = error.kind() == ErrorKind::WouldBlock
                    || error.raw_os_error() == Some(libc::ENOBUFS);
                !(is_full || error.kind() == ErrorKind::Interrupted)
            }
        }
    }
}

fn next_ping(every: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(every?)
}

/// Where `NOTIFY_SOCKET` is: a path, or a name without a file if it begins with `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    if !name.as_bytes().starts_with(b"/") {
        return Err(io::Error::other("neither a path nor an abstract name"));
    }
    SocketAddr::from_pathname(name)
}

/// How often to ping the watchdog, if there is one and it watches this process: see
/// sd_watchdog_enabled(3), which advises half of the time after which it acts.
fn ping_every() -> Option<Duration> {
    if env::var("WATCHDOG_PID").is_ok_and(|pid| pid != process::id().to_string()) {
        return None;
    }
    let usec = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (usec > 0).then(|| Duration::from_micros(usec) / 2)
}

/// The line for `systemctl status`.
fn status<S: System>(server: &Server<S>, listens_on: &str) -> String {
    let relay = server.relay();
    if server.is_stopping() {
        let lagging = relay.lagging();
        format!("STATUS=stopping, {}, {lagging} lagging", server.members())
    } else {
        format!("STATUS={}; listens on {listens_on}", server.members())
    }
}
