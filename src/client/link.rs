//! The connection to the server, which is made again when it is lost.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

use super::acknowledged::unacknowledged;
use super::backoff::Backoff;
use super::outbox::Outbox;
use super::session::{Disconnect, Progress, Session};

/// A server that does not answer within this time is tried at its next address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The silence after which the kernel probes the server. After three probes without an answer the
/// connection is lost.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// A connection that ends within this time, without a message, was refused.
const REFUSAL_WINDOW: Duration = Duration::from_secs(2);

/// A `Link` makes connections to one server, one after the other.
#[derive(Debug)]
pub(super) struct Link {
    token: Token,
    /// The addresses of the server; never empty.
    addrs: Vec<SocketAddr>,
    /// How long sent bytes may be unacknowledged, if not as long as TCP allows.
    ack_timeout: Option<Duration>,
    backoff: Backoff,
    state: LinkState,
}

#[derive(Debug)]
enum LinkState {
    /// There is no connection before the next attempt.
    Waiting { until: Instant },
    /// A connection to the address of this index is being made.
    Connecting {
        stream: TcpStream,
        index: usize,
        deadline: Instant,
        /// Whether an event has reported a result.
        decided: bool,
    },
    /// The connection is established.
    Up(Box<Connected>),
}

#[derive(Debug)]
struct Connected {
    stream: TcpStream,
    session: Session,
    since: Instant,
    local: SocketAddr,
    peer: SocketAddr,
    readable: bool,
    /// The error of a write. It is reported after the last message that can be read.
    write_error: Option<io::Error>,
    /// Whether the system has reported acknowledgements of this connection.
    reports_acks: bool,
}

/// An `AckUnknown` means that the system does not report acknowledgements.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckUnknown;

/// An `Attempt` is the result of an attempt to connect to any of the addresses.
#[derive(Debug)]
pub(super) enum Attempt {
    /// There is a connection to this address.
    Connected(SocketAddr),
    /// No address could be connected to.
    Failed {
        /// The last of the addresses that were tried.
        addr: SocketAddr,
        /// The error of that address.
        error: io::Error,
        /// How long until the next attempt.
        again_in: Duration,
    },
}

impl Link {
    /// A link to the first of these addresses that answers; there has to be one at least. Nothing
    /// happens before [`progress`](Self::progress).
    pub(super) fn new(
        addrs: Vec<SocketAddr>,
        ack_timeout: Option<Duration>,
        token: Token,
        now: Instant,
    ) -> Self {
        Self {
            token,
            addrs,
            ack_timeout,
            backoff: Backoff::default(),
            state: LinkState::Waiting { until: now },
        }
    }

    /// The time at which [`progress`](Self::progress) must be called, if there is one.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            LinkState::Waiting { until } => Some(*until),
            LinkState::Connecting { deadline, .. } => Some(*deadline),
            LinkState::Up(_) => None,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, LinkState::Up(_))
    }

    /// Whether a message has arrived over this connection.
    pub(super) fn has_received(&self) -> bool {
        matches!(&self.state, LinkState::Up(connected) if connected.session.is_chat())
    }

    /// Whether a connection that ends now was refused: it is new, and no message has arrived.
    pub(super) fn is_refused(&self, now: Instant) -> bool {
        matches!(&self.state, LinkState::Up(connected)
            if now.duration_since(connected.since) < REFUSAL_WINDOW && !connected.session.is_chat())
    }

    /// Whether there may be something to read.
    pub(super) fn is_readable(&self) -> bool {
        matches!(&self.state, LinkState::Up(connected) if connected.readable)
    }

    /// Notes an event of the socket.
    pub(super) fn note(&mut self, event: &Event) {
        match &mut self.state {
            LinkState::Waiting { .. } => {}
            LinkState::Connecting { decided, .. } => *decided = true,
            LinkState::Up(connected) => {
                connected.readable |=
                    event.is_readable() || event.is_read_closed() || event.is_error();
            }
        }
    }

    /// Begins an attempt to connect when it is time to, and returns its result.
    pub(super) fn progress(&mut self, registry: &Registry, now: Instant) -> Option<Attempt> {
        let mut failure = None;
        let next = match &mut self.state {
            LinkState::Waiting { until } if *until <= now => 0,
            LinkState::Waiting { .. } | LinkState::Up(_) => return None,
            LinkState::Connecting {
                stream,
                index,
                deadline,
                decided,
            } => match established(stream, *decided, *deadline <= now) {
                Ok(None) => return None,
                Ok(Some((local, peer))) => {
                    self.set_connected(local, peer, now);
                    return Some(Attempt::Connected(peer));
                }
                Err(error) => {
                    failure = Some((self.addrs[*index], error));
                    *index + 1
                }
            },
        };
        for (index, &addr) in self.addrs.iter().enumerate().skip(next) {
            match self.connect(registry, addr) {
                Ok(stream) => {
                    self.state = LinkState::Connecting {
                        stream,
                        index,
                        deadline: now + CONNECT_TIMEOUT,
                        decided: false,
                    };
                    return None;
                }
                Err(error) => failure = Some((addr, error)),
            }
        }
        let again_in = self.schedule_attempt(now);
        let (addr, error) = failure?;
        Some(Attempt::Failed {
            addr,
            error,
            again_in,
        })
    }

    fn connect(&self, registry: &Registry, addr: SocketAddr) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(addr)?;
        let socket = SockRef::from(&stream);
        // Each message is sent at once. If an option is refused, the chat works without it.
        let _ = socket.set_tcp_nodelay(true);
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_TIME)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        let _ = socket.set_tcp_keepalive(&keepalive);
        #[cfg(target_os = "linux")]
        let _ = socket.set_tcp_user_timeout(self.ack_timeout);
        #[cfg(not(target_os = "linux"))]
        let _ = self.ack_timeout;
        // Registered once for both: see `Server` for why.
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, self.token, interest)?;
        Ok(stream)
    }

    fn set_connected(&mut self, local: SocketAddr, peer: SocketAddr, now: Instant) {
        let state = std::mem::replace(&mut self.state, LinkState::Waiting { until: now });
        if let LinkState::Connecting { stream, .. } = state {
            self.state = LinkState::Up(Box::new(Connected {
                stream,
                session: Session::default(),
                since: now,
                local,
                peer,
                readable: true,
                write_error: None,
                reports_acks: false,
            }));
        }
    }

    /// Reads once, and passes each message to `on_message`, as name and payload.
    ///
    /// # Errors
    ///
    /// How the connection ended. The caller then calls [`disconnect`](Self::disconnect).
    pub(super) fn receive(
        &mut self,
        scratch: &mut [u8],
        on_message: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Disconnect> {
        let LinkState::Up(connected) = &mut self.state else {
            return Ok(());
        };
        let Connected {
            session, stream, ..
        } = &mut **connected;
        if session.receive(stream, scratch, on_message)? == Progress::Drained {
            connected.readable = false;
            if let Some(error) = connected.write_error.take() {
                return Err(Disconnect::Io(error));
            }
        }
        Ok(())
    }

    /// Sends what the socket accepts, or only the name if `name_only` is set.
    ///
    /// After an error there may be messages to read. So the error is returned by
    /// [`receive`](Self::receive), after the last message.
    pub(super) fn send(&mut self, outbox: &mut Outbox, name_only: bool, now: Instant) {
        if let LinkState::Up(connected) = &mut self.state
            && connected.write_error.is_none()
            && let Err(error) = outbox.write_to(&mut connected.stream, name_only, now)
        {
            connected.write_error = Some(error);
            connected.readable = true;
        }
    }

    /// Closes the sending side: everything is sent.
    pub(super) fn finish(&self) {
        if let LinkState::Up(connected) = &self.state {
            // If it fails, there is no connection to be closed.
            let _ = connected.stream.shutdown(Shutdown::Write);
        }
    }

    /// The number of bytes that the server's machine has not acknowledged.
    ///
    /// `None` if the system has reported it before, but does not this time.
    pub(super) fn unacknowledged(&mut self) -> Result<Option<u64>, AckUnknown> {
        let LinkState::Up(connected) = &mut self.state else {
            return Ok(None);
        };
        match unacknowledged(connected.local, connected.peer) {
            None if !connected.reports_acks => Err(AckUnknown),
            known => {
                connected.reports_acks = true;
                Ok(known)
            }
        }
    }

    /// Makes the next attempt now.
    pub(super) fn retry_now(&mut self, now: Instant) {
        if let LinkState::Waiting { until } = &mut self.state {
            *until = (*until).min(now);
        }
    }

    /// Closes the connection. Returns the wait before the next attempt.
    pub(super) fn disconnect(&mut self, now: Instant) -> Duration {
        if let LinkState::Up(connected) = &self.state {
            self.backoff.note_loss(connected.since, now);
        }
        self.schedule_attempt(now)
    }

    fn schedule_attempt(&mut self, now: Instant) -> Duration {
        let wait = self.backoff.next(fastrand::f64());
        self.state = LinkState::Waiting { until: now + wait };
        wait
    }
}

/// Both addresses of a connection that is established; `None` if it is not yet.
fn established(
    stream: &TcpStream,
    decided: bool,
    is_late: bool,
) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
    if decided {
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(peer) => {
                let local = stream.local_addr()?;
                // If the server's port is one that the system gives to clients, and nothing listens
                // there, an attempt may by chance be given that very port and connect to itself.
                if local == peer {
                    return Err(ErrorKind::ConnectionRefused.into());
                }
                return Ok(Some((local, peer)));
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(error) => return Err(error),
        }
    }
    if is_late {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(None)
}
