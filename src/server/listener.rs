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

/// How long a shortage of descriptors lasts before those who wait are turned away. Most end sooner,
/// when somebody leaves; and nobody is to hang for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long after one warning of a shortage the next one is worth another.
const WARN_AGAIN: Duration = Duration::from_secs(10);

/// How many calls of `accept` may come to nothing in a row before the others have their turn.
const ATTEMPTS: usize = 64;

/// A listening socket.
#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    /// The protocol of the connections that come in here.
    dialect: Dialect,
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
/// **Too many at once.** Accepting stops after a budget although the kernel's queue is not empty. So
/// a listener stays *ready* until its queue was seen empty, and the loop comes back to it.
///
/// **Out of descriptors.** `accept` fails with `EMFILE`, and the connection stays in the queue. A
/// level-triggered loop would spin on that; an edge-triggered one loses it, because the edge was
/// spent and the next comes only with the next newcomer. Nor does `EMFILE` say that anybody waits:
/// Linux looks for a descriptor before it looks at the queue. So one descriptor is kept in reserve,
/// and given up to see who waits. If nobody does, it is taken back, and all is well. If somebody
/// does, that newcomer is held *in hand* in the reserve's place, and a deadline brings us back. Once
/// there is a descriptor again, it becomes the reserve, and the newcomer in hand is let in. If that
/// takes too long, the one in hand is turned away, and so are those behind it.
#[derive(Debug)]
pub(super) struct Acceptor {
    listeners: Vec<Listener>,
    /// The listener to accept from next, so that a flood at one does not shut out the others.
    next: usize,
    reserve: Option<File>,
    shortage: Option<Shortage>,
    /// When the log was last told of a shortage.
    warned: Option<Instant>,
}

/// A time without descriptors: from the first newcomer for whom there is none until nobody waits.
#[derive(Debug)]
struct Shortage {
    since: Instant,
    in_hand: Option<Newcomer>,
    /// Nothing is tried before the deadline, unless a descriptor was closed.
    is_waiting: bool,
    turned_away: u64,
    /// The log was told of its beginning and is to be told of its end.
    told: bool,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) dialect: Dialect,
}

/// What one attempt to accept came to.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A newcomer.
    Connection(Newcomer),
    /// Nobody waits, or nobody can be accepted before something changes.
    Nobody,
    /// Somebody waits and there is no descriptor.
    Shortage {
        /// When to try again.
        retry_at: Instant,
        /// How many had waited too long and were turned away just now.
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
                    dialect: endpoint.dialect,
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
            warned: None,
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
    pub(super) fn note(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.ready = true;
        }
    }

    /// Whether accepting can go on without waiting for anything.
    pub(super) fn has_ready(&self) -> bool {
        !self.is_waiting() && self.listeners.iter().any(|listener| listener.ready)
    }

    /// Whether accepting waits for a descriptor.
    pub(super) fn is_waiting(&self) -> bool {
        self.shortage
            .as_ref()
            .is_some_and(|shortage| shortage.is_waiting)
    }

    /// Ends the waiting: it is time to try again, or a descriptor was closed.
    pub(super) const fn retry(&mut self) {
        if let Some(shortage) = &mut self.shortage {
            shortage.is_waiting = false;
        }
    }

    /// Stops listening: who comes now is refused by the kernel.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
        self.shortage = None;
    }

    /// Accepts the next newcomer.
    pub(super) fn accept(&mut self, now: Instant) -> Accepted {
        if let Some(shortage) = &mut self.shortage {
            if shortage.is_waiting {
                return Accepted::Nobody;
            }
            if self.reserve.is_none() {
                self.reserve = open_reserve();
            }
            if self.reserve.is_none() {
                return self.wait(now);
            }
            if let Some(newcomer) = shortage.in_hand.take() {
                return Accepted::Connection(newcomer);
            }
        }
        // An error about one newcomer is no reason to stop, but a row of them is none to stay either.
        for _ in 0..ATTEMPTS {
            let Some(index) = self.next_ready() else {
                self.end_shortage(now);
                return Accepted::Nobody;
            };
            match self.try_accept(index) {
                Attempt::Newcomer(newcomer) => return Accepted::Connection(newcomer),
                Attempt::Again => {}
                Attempt::Short(error) => {
                    // Is anybody there? If so, that newcomer takes the reserve's place.
                    let mut in_hand = None;
                    if self.reserve.take().is_some() {
                        match self.try_accept(index) {
                            Attempt::Newcomer(newcomer) => in_hand = Some(newcomer),
                            Attempt::Again => {
                                self.reserve = open_reserve();
                                continue;
                            }
                            Attempt::Short(_) => self.reserve = open_reserve(),
                        }
                    }
                    self.begin_shortage(now, &error, in_hand);
                    return self.wait(now);
                }
            }
        }
        Accepted::Nobody
    }

    /// The next listener at which somebody may wait, in turn.
    fn next_ready(&mut self) -> Option<usize> {
        let count = self.listeners.len();
        let index = (self.next..self.next + count)
            .map(|index| index % count)
            .find(|&index| self.listeners[index].ready)?;
        self.next = index + 1;
        Some(index)
    }

    fn try_accept(&mut self, index: usize) -> Attempt {
        let listener = &mut self.listeners[index];
        match listener.socket.accept() {
            Ok((stream, peer)) => Attempt::Newcomer(Newcomer {
                stream,
                peer,
                dialect: listener.dialect,
            }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                listener.ready = false;
                Attempt::Again
            }
            Err(error) if is_about_one(&error) => Attempt::Again,
            Err(error) => Attempt::Short(error),
        }
    }

    fn begin_shortage(&mut self, now: Instant, error: &io::Error, in_hand: Option<Newcomer>) {
        if let Some(shortage) = &mut self.shortage {
            shortage.in_hand = in_hand;
            return;
        }
        // When one newcomer after the other has to wait a moment, once in a while will do.
        let told = self
            .warned
            .is_none_or(|warned| now.duration_since(warned) >= WARN_AGAIN);
        if told {
            let hint = match error.raw_os_error() {
                Some(libc::EMFILE) => " (raise the open-file limit, or lower --max-clients)",
                _ => "",
            };
            warn!("cannot accept: {error}{hint}; newcomers wait");
            self.warned = Some(now);
        }
        self.shortage = Some(Shortage {
            since: now,
            in_hand,
            is_waiting: false,
            turned_away: 0,
            told,
        });
    }

    /// Waits for a descriptor; when that has taken too long, turns away who waits.
    fn wait(&mut self, now: Instant) -> Accepted {
        let Some(shortage) = &mut self.shortage else {
            return Accepted::Nobody;
        };
        shortage.is_waiting = true;
        let mut turned_away = 0;
        if now.duration_since(shortage.since) >= PATIENCE {
            turned_away = u64::from(shortage.in_hand.take().is_some()) + self.turn_away();
            if let Some(shortage) = &mut self.shortage {
                shortage.turned_away += turned_away;
            }
        }
        Accepted::Shortage {
            retry_at: now + RETRY,
            turned_away,
        }
    }

    /// Accepts those who wait in the reserve's place, one after the other, and closes them.
    fn turn_away(&mut self) -> u64 {
        let mut turned_away = 0;
        self.reserve = None;
        // As many as the kernel holds for us; a flood of newcomers must not keep us here.
        for _ in 0..LISTEN_BACKLOG {
            let Some(index) = self.next_ready() else {
                break;
            };
            match self.try_accept(index) {
                Attempt::Newcomer(..) => turned_away += 1,
                Attempt::Again => {}
                Attempt::Short(_) => break,
            }
        }
        self.reserve = open_reserve();
        turned_away
    }

    /// Nobody waits any more.
    fn end_shortage(&mut self, now: Instant) {
        if let Some(shortage) = self.shortage.take()
            && shortage.told
        {
            info!(
                "nobody waits to be accepted any more, after {:.1} s; turned away: {}",
                now.duration_since(shortage.since).as_secs_f64(),
                shortage.turned_away
            );
        }
    }
}

/// What one `accept` came to.
enum Attempt {
    Newcomer(Newcomer),
    /// Nobody is there, which is noted, or only an error about one newcomer was.
    Again,
    /// The system has no descriptor, or no memory.
    Short(io::Error),
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
/// On Linux and the BSDs an accepted socket inherits the listener's options, so they are set here
/// once instead of with a system call or four for each connection. `TCP_NODELAY`, because a turn's
/// bytes leave in one write and waiting for more (Nagle's algorithm) could only delay them.
/// Keepalive, because a peer whose machine was switched off says nothing, and neither do we in a
/// silent room.
fn listen(
    addr: SocketAddr,
    with_ipv4: bool,
    keepalive: Option<Duration>,
) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
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
    use socket2::SockRef;
    use std::net::TcpStream;

    #[test]
    fn an_accepted_socket_has_its_options_from_the_listener() {
        for keepalive in [None, Some(Duration::from_secs(40))] {
            let any_port = "127.0.0.1:0".parse().unwrap();
            let listener = listen(any_port, false, keepalive).unwrap();
            assert!(SockRef::from(&listener).reuse_address().unwrap());
            let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let accepted = SockRef::from(&accepted);
            assert!(accepted.tcp_nodelay().unwrap());
            assert_eq!(accepted.keepalive().unwrap(), keepalive.is_some());
            if let Some(silence) = keepalive {
                assert_eq!(accepted.tcp_keepalive_time().unwrap(), silence);
                let probing = accepted.tcp_keepalive_interval().unwrap()
                    * accepted.tcp_keepalive_retries().unwrap();
                assert_eq!(probing, silence);
            }
        }
    }

    #[test]
    fn hundreds_can_connect_before_anybody_is_accepted() {
        // The kernel's own bound on a listen backlog, which is lower on some systems.
        let bound = std::fs::read_to_string("/proc/sys/net/core/somaxconn")
            .ok()
            .and_then(|bound| bound.trim().parse().ok())
            .unwrap_or(128);
        let listener = listen("127.0.0.1:0".parse().unwrap(), false, None).unwrap();
        let addr = listener.local_addr().unwrap();
        // Over a full backlog a connection attempt is dropped and repeated after a second.
        let timeout = Duration::from_millis(900);
        let peers: Result<Vec<_>, _> = (0..400.min(bound))
            .map(|_| TcpStream::connect_timeout(&addr, timeout))
            .collect();
        assert!(peers.is_ok(), "{peers:?}");
    }

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
