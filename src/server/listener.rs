//! Listening sockets, and accepting from them whatever happens.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{info, warn};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::wire::Dialect;

/// How many connections the kernel holds for us until we accept them. mio's own `bind` would ask for
/// 128, too few when a thousand members come back at once; the kernel lowers it to its `somaxconn`.
const LISTEN_BACKLOG: i32 = 4096;

/// How often a dead peer is probed before it is given up.
const KEEPALIVE_PROBES: u32 = 4;

/// While there are no descriptors, how long until the next attempt.
const RETRY: Duration = Duration::from_millis(100);

/// While there are no descriptors, how long newcomers wait in the kernel's queue before they are
/// turned away. Most shortages end sooner, when somebody leaves; and nobody is to hang for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// A listening socket.
#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    /// An edge came, and we have not seen the queue empty since.
    ready: bool,
}

/// What a listener speaks and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The protocol of the connections that come in here.
    pub dialect: Dialect,
    /// The address to listen on. Port 0 lets the system choose one.
    pub addr: SocketAddr,
}

impl Endpoint {
    /// Whether connections over IPv4 can come in here, when these are all the endpoints.
    ///
    /// The IPv6 wildcard takes IPv4 too, unless somebody asked for IPv4 on the same port: the two
    /// would collide.
    #[must_use]
    pub fn takes_ipv4(&self, all: &[Self]) -> bool {
        let (addr, port) = (self.addr, self.addr.port());
        let beside = |other: &Self| other.addr.is_ipv4() && other.addr.port() == port && port != 0;
        addr.is_ipv4() || (addr.ip().is_unspecified() && !all.iter().any(beside))
    }
}

/// All listening sockets and the state of accepting from them.
///
/// Under edge triggering two things can go wrong here that never show in a test on a quiet machine.
///
/// **Out of descriptors.** `accept` fails with `EMFILE` and the connection stays in the kernel's
/// queue. A level-triggered loop would spin on it; an edge-triggered one loses it, because the edge
/// was spent and the next comes only with the next newcomer. So the listener stays *ready* until
/// its queue was seen empty, and a deadline brings us back to it. If the shortage lasts, those who
/// wait are turned away with the help of a descriptor that is kept in reserve for this: it is given
/// up, one connection is accepted in its place and closed, and so on, and then it is taken back.
///
/// **Too many at once.** Accepting stops after a budget although the queue is not empty; the same
/// flag brings us back in the next turn.
#[derive(Debug)]
pub(super) struct Acceptor {
    listeners: Vec<Listener>,
    /// The listener to accept from next, so that a flood at one does not shut out the others.
    next: usize,
    reserve: Option<File>,
    shortage: Option<Shortage>,
}

/// A time without descriptors.
#[derive(Debug)]
struct Shortage {
    since: Instant,
    retry_at: Instant,
    turned_away: u64,
}

/// What one attempt to accept came to.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A newcomer.
    Connection(TcpStream, SocketAddr),
    /// Nobody waits, or nobody can be accepted now.
    Nobody,
    /// There are no descriptors: try again at this time. This many waited too long and were turned
    /// away.
    Shortage {
        /// When to come back.
        retry_at: Instant,
        /// How many were turned away just now.
        turned_away: u64,
    },
}

impl Acceptor {
    /// Listens on all `endpoints`; the tokens count down from `first_token`.
    ///
    /// # Errors
    ///
    /// The first endpoint that cannot be listened on, with the system's error.
    pub(super) fn bind(
        endpoints: &[Endpoint],
        keepalive: Option<Duration>,
        registry: &Registry,
        first_token: Token,
    ) -> Result<Self, (Endpoint, io::Error)> {
        let mut listeners = Vec::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let with_ipv4 = endpoint.takes_ipv4(endpoints);
            let listener = listen(endpoint.addr, with_ipv4, keepalive).and_then(|mut socket| {
                let token = Token(first_token.0 - index);
                registry.register(&mut socket, token, Interest::READABLE)?;
                Ok(Listener {
                    socket,
                    ready: false,
                })
            });
            listeners.push(listener.map_err(|error| (*endpoint, error))?);
        }
        Ok(Self {
            listeners,
            next: 0,
            reserve: open_reserve(),
            shortage: None,
        })
    }

    /// The addresses that are listened on, in the order of the endpoints.
    ///
    /// # Errors
    ///
    /// What `getsockname` says.
    pub(super) fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners
            .iter()
            .map(|listener| listener.socket.local_addr())
            .collect()
    }

    /// How many listeners there are.
    pub(super) fn len(&self) -> usize {
        self.listeners.len()
    }

    /// Notes that newcomers wait at the listener of this index.
    pub(super) fn note(&mut self, index: usize, now: Instant) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.ready = true;
            self.retry(now);
        }
    }

    /// Whether anybody may be waiting to be accepted.
    pub(super) fn has_ready(&self) -> bool {
        self.listeners.iter().any(|listener| listener.ready)
    }

    /// Whether accepting is held up for want of a descriptor.
    pub(super) const fn is_short(&self) -> bool {
        self.shortage.is_some()
    }

    /// During a shortage, allows another attempt at once: a descriptor may have become free.
    pub(super) const fn retry(&mut self, now: Instant) {
        if let Some(shortage) = &mut self.shortage {
            shortage.retry_at = now;
        }
    }

    /// Stops listening: who comes now is refused by the kernel.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
        self.shortage = None;
    }

    /// Accepts the next newcomer.
    pub(super) fn accept(&mut self, now: Instant) -> Accepted {
        if let Some(shortage) = &self.shortage
            && now < shortage.retry_at
        {
            return Accepted::Nobody;
        }
        loop {
            let count = self.listeners.len();
            let Some(index) = (self.next..self.next + count)
                .map(|index| index % count)
                .find(|&index| self.listeners[index].ready)
            else {
                return Accepted::Nobody;
            };
            self.next = index + 1;
            let listener = &mut self.listeners[index];
            match listener.socket.accept() {
                Ok((stream, peer)) => {
                    self.end_shortage(now);
                    return Accepted::Connection(stream, peer);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => listener.ready = false,
                    _ if is_about_one(&error) => {}
                    _ => return self.hold_up(now, &error),
                },
            }
        }
    }

    /// Deals with an `accept` for which the system has no descriptor or no memory.
    fn hold_up(&mut self, now: Instant, error: &io::Error) -> Accepted {
        let retry_at = now + RETRY;
        let shortage = self.shortage.get_or_insert_with(|| {
            let hint = match error.raw_os_error() {
                Some(libc::EMFILE) => " (raise the open-file limit, or lower --max-clients)",
                _ => "",
            };
            warn!("cannot accept: {error}{hint}; newcomers wait");
            Shortage {
                since: now,
                retry_at,
                turned_away: 0,
            }
        });
        shortage.retry_at = retry_at;
        let lasting = now.duration_since(shortage.since) >= PATIENCE;
        let turned_away = if lasting { self.turn_away() } else { 0 };
        if let Some(shortage) = &mut self.shortage {
            shortage.turned_away += turned_away;
        }
        Accepted::Shortage {
            retry_at,
            turned_away,
        }
    }

    /// Gives up the reserve to accept and close those who wait, and says how many they were.
    fn turn_away(&mut self) -> u64 {
        if self.reserve.take().is_none() {
            return 0;
        }
        let mut turned_away = 0;
        for listener in &mut self.listeners {
            // As many as the kernel holds for us; a flood of newcomers must not keep us here.
            for _ in 0..LISTEN_BACKLOG {
                match listener.socket.accept() {
                    Ok(_closed_at_once) => turned_away += 1,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        listener.ready = false;
                        break;
                    }
                    Err(error) if is_about_one(&error) => {}
                    Err(_) => break,
                }
            }
        }
        self.reserve = open_reserve();
        turned_away
    }

    /// An `accept` has succeeded: whatever was short is there again.
    fn end_shortage(&mut self, now: Instant) {
        if let Some(shortage) = self.shortage.take() {
            info!(
                "accepting again after {:.1} s, {} newcomers were turned away",
                now.duration_since(shortage.since).as_secs_f64(),
                shortage.turned_away
            );
        }
        if self.reserve.is_none() {
            self.reserve = open_reserve();
        }
    }
}

/// A spare descriptor, to be closed when there is no other to accept with.
fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Whether an error of `accept` is about one newcomer only, or about nothing: the others are still
/// to be accepted. Linux also hands on what the network has reported about it, see accept(2).
fn is_about_one(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
        )
    )
}

/// A listening socket with all that its connections are to inherit.
///
/// On Linux an accepted socket inherits the listener's options, so they are set here once instead
/// of with a system call or four for each connection. `TCP_NODELAY`, because a turn's bytes leave in
/// one write and waiting for more (Nagle's algorithm) could only delay them. Keepalive, because a
/// peer whose machine was switched off says nothing, and neither do we in a silent room.
fn listen(
    addr: SocketAddr,
    with_ipv4: bool,
    keepalive: Option<Duration>,
) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(addr),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if addr.is_ipv6() {
        socket.set_only_v6(!with_ipv4)?;
    }
    socket.set_tcp_nodelay(true)?;
    if let Some(silence) = keepalive {
        // The kernel counts in whole seconds. Probing takes as long as the silence before it, so
        // that a peer which died in silence is gone after twice that. One that died while bytes were
        // on their way to it is gone when TCP gives up sending them again. TCP_USER_TIMEOUT would
        // shorten that, but it would also close a live member that does not read for so long.
        let second = Duration::from_secs(1);
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(silence.max(second))
                .with_interval((silence / KEEPALIVE_PROBES).max(second))
                .with_retries(KEEPALIVE_PROBES),
        )?;
    }
    // Without this a restarted relay would have to wait until the old one's connections have left
    // TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ipv6_wildcard_leaves_ipv4_to_whoever_asked_for_it() {
        let endpoints = |addrs: &[&str]| -> Vec<Endpoint> {
            addrs
                .iter()
                .map(|addr| Endpoint {
                    dialect: Dialect::Chat10,
                    addr: addr.parse().unwrap(),
                })
                .collect()
        };
        for (addrs, takes_ipv4) in [
            (&["[::]:1234"][..], &[true][..]),
            (&["[::1]:1234"], &[false]),
            (&["0.0.0.0:1234", "[::]:1234"], &[true, false]),
            (&["[::]:1234", "127.0.0.1:1234"], &[false, true]),
            (&["0.0.0.0:1234", "[::]:1235"], &[true, true]),
            (&["127.0.0.1:0", "[::]:0"], &[true, true]),
        ] {
            let all = endpoints(addrs);
            let takes: Vec<_> = all.iter().map(|one| one.takes_ipv4(&all)).collect();
            assert_eq!(takes, takes_ipv4, "{addrs:?}");
        }
    }
}
