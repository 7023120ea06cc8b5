//! Life under a service manager such as systemd: the sockets that it passes, and what it is told.
//!
//! It makes itself known in the environment; without its variables there is nothing to do here.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::{Duration, Instant};

use chatloop::server::{Inherited, Server, Turn};
use chatloop::wire::Dialect;
use listenfd::ListenFd;
use log::warn;

/// The listening sockets that were passed: see sd_listen_fds(3). A socket's name is its dialect; a
/// socket with any other name, or without one, is for `chat10`.
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
        .map(|socket| Inherited::new(dialect(names.next().unwrap_or_default()), socket?))
        .collect()
}

/// The dialect of a socket of this name.
fn dialect(name: &str) -> Dialect {
    name.parse().unwrap_or_else(|error| {
        // Without a name of its own a socket is called by its unit, or `unknown`.
        if !name.is_empty() && name != "unknown" && !name.ends_with(".socket") {
            warn!("socket {name:?} is served as chat10: {error}");
        }
        Dialect::Chat10
    })
}

/// The service manager, which is told how the relay is: see sd_notify(3).
///
/// A message is one datagram. It needs no connection, so that a manager that is started anew is
/// told again; and no descriptor but this one, so that a relay which is short of them can still say
/// that it is alive.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: UnixDatagram,
    addr: SocketAddr,
    /// How often its watchdog is to hear from the loop, if there is one.
    ping_every: Option<Duration>,
    /// The last message did not get there, of which the log was told.
    is_deaf: bool,
}

impl Manager {
    /// The manager that wants to be told, if there is one.
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
        Ok(Self {
            socket: UnixDatagram::unbound()?,
            addr: address(name)?,
            ping_every: ping_every(),
            is_deaf: false,
        })
    }

    /// Runs a server as [`Server::run`] does, and tells the manager when it is ready and when it
    /// stops. A watchdog is pinged from the loop itself, so that a loop which hangs is noticed.
    /// Nothing else is worth waking up for, so who is here is told with the pings.
    pub(crate) fn run(mut self, server: &mut Server, listens_on: &str) -> io::Result<()> {
        self.tell(&format!("READY=1\n{}", status(server, listens_on)));
        // That had to arrive. From here on the loop waits for nobody.
        self.socket.set_nonblocking(true)?;
        let mut told_of_stop = false;
        let mut ping_due = self.next_ping();
        loop {
            let now = Instant::now();
            let turn = server.turn(ping_due.map(|due| due.saturating_duration_since(now)))?;
            // The manager's queue may be full. Then the next turn tries again.
            if server.is_stopping() && !told_of_stop {
                told_of_stop = self.tell(&format!("STOPPING=1\n{}", status(server, listens_on)));
            }
            if ping_due.is_some_and(|due| due <= Instant::now()) {
                self.tell(&format!("WATCHDOG=1\n{}", status(server, listens_on)));
                ping_due = self.next_ping();
            }
            if turn == Turn::Stopped {
                return Ok(());
            }
        }
    }

    fn next_ping(&self) -> Option<Instant> {
        Instant::now().checked_add(self.ping_every?)
    }

    /// Sends a message. Returns whether it was sent. The first failure in a row is logged.
    fn tell(&mut self, message: &str) -> bool {
        match self.socket.send_to_addr(message.as_bytes(), &self.addr) {
            Ok(_) => self.is_deaf = false,
            Err(error) => {
                if !self.is_deaf {
                    warn!("cannot tell the service manager how it is: {error}");
                }
                self.is_deaf = true;
            }
        }
        !self.is_deaf
    }
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
fn status(server: &Server, listens_on: &str) -> String {
    let relay = server.relay();
    if server.is_stopping() {
        let behind = relay.behind();
        format!("STATUS=stopping, {}, {behind} behind", relay.here())
    } else {
        format!("STATUS={}; listens on {listens_on}", relay.here())
    }
}
