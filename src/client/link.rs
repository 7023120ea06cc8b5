//! The connection to the server: made, lost, and made again.

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
use super::session::{Loss, Progress, Session};

/// How long a server may take to answer before the next of its addresses is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the connection may be silent before the kernel asks whether the server is still there;
/// three more times, then it is taken as lost.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// How long a connection is new.
const NEW: Duration = Duration::from_secs(2);

/// The connection to the server, in whatever state it is.
#[derive(Debug)]
pub(super) struct Link {
    token: Token,
    /// Where the server is; never empty.
    addrs: Vec<SocketAddr>,
    /// How long what was sent may stay without acknowledgement, if not as long as TCP has it.
    patience: Option<Duration>,
    backoff: Backoff,
    state: State,
}

#[derive(Debug)]
enum State {
    /// There is none, and it is not time for the next attempt.
    Waiting { until: Instant },
    /// It is being made, to the address of this index.
    Connecting {
        stream: TcpStream,
        index: usize,
        deadline: Instant,
        /// Whether an event has said that there is a result.
        decided: bool,
    },
    /// It is there.
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
    /// What went wrong when something was sent.
    broken: Option<io::Error>,
    /// Whether the system tells what the server's machine has acknowledged.
    tells: bool,
}

/// The system does not tell what has been acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Untold;

/// What became of an attempt to connect.
#[derive(Debug)]
pub(super) enum Attempt {
    /// There is a connection to this address.
    Connected(SocketAddr),
    /// There is none.
    Failed {
        /// The last of the addresses that were tried.
        addr: SocketAddr,
        /// What was wrong with it.
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
        patience: Option<Duration>,
        token: Token,
        now: Instant,
    ) -> Self {
        Self {
            token,
            addrs,
            patience,
            backoff: Backoff::default(),
            state: State::Waiting { until: now },
        }
    }

    /// When something falls due, if it does.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Connecting { deadline, .. } => Some(*deadline),
            State::Up(_) => None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether anything was said over this connection by others.
    pub(super) fn has_heard(&self) -> bool {
        matches!(&self.state, State::Up(connected) if connected.session.is_chat())
    }

    /// Whether a connection that ends now was refused: it is new, and nothing came over it.
    pub(super) fn is_refused(&self, now: Instant) -> bool {
        matches!(&self.state, State::Up(connected)
            if now.duration_since(connected.since) < NEW && !connected.session.is_chat())
    }

    /// Whether there may be something to read.
    pub(super) fn is_readable(&self) -> bool {
        matches!(&self.state, State::Up(connected) if connected.readable)
    }

    /// Takes note of an event for the socket.
    pub(super) fn note(&mut self, event: &Event) {
        match &mut self.state {
            State::Waiting { .. } => {}
            State::Connecting { decided, .. } => *decided = true,
            State::Up(connected) => {
                connected.readable |=
                    event.is_readable() || event.is_read_closed() || event.is_error();
            }
        }
    }

    /// Begins to connect when it is time to, and finds out what became of it.
    pub(super) fn progress(&mut self, registry: &Registry, now: Instant) -> Option<Attempt> {
        let mut failure = None;
        let next = match &mut self.state {
            State::Waiting { until } if *until <= now => 0,
            State::Waiting { .. } | State::Up(_) => return None,
            State::Connecting {
                stream,
                index,
                deadline,
                decided,
            } => match ends_of(stream, *decided, *deadline <= now) {
                Ok(None) => return None,
                Ok(Some((local, peer))) => {
                    self.connected(local, peer, now);
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
                    self.state = State::Connecting {
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
        let again_in = self.wait(now);
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
        // Each line is sent as it is said. If an option is refused, the chat works without.
        let _ = socket.set_tcp_nodelay(true);
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        let _ = socket.set_tcp_keepalive(&keepalive);
        #[cfg(target_os = "linux")]
        let _ = socket.set_tcp_user_timeout(self.patience);
        #[cfg(not(target_os = "linux"))]
        let _ = self.patience;
        // Once and for both: see the server for why.
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, self.token, interest)?;
        Ok(stream)
    }

    fn connected(&mut self, local: SocketAddr, peer: SocketAddr, now: Instant) {
        let state = std::mem::replace(&mut self.state, State::Waiting { until: now });
        if let State::Connecting { stream, .. } = state {
            self.state = State::Up(Box::new(Connected {
                stream,
                session: Session::default(),
                since: now,
                local,
                peer,
                readable: true,
                broken: None,
                tells: false,
            }));
        }
    }

    /// Reads once, and hands each message that came to `on_message`, as name and payload.
    ///
    /// # Errors
    ///
    /// Why the connection is of no use any more. The caller then says [`lose`](Self::lose).
    pub(super) fn receive(
        &mut self,
        scratch: &mut [u8],
        on_message: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Loss> {
        let State::Up(connected) = &mut self.state else {
            return Ok(());
        };
        let Connected {
            session, stream, ..
        } = &mut **connected;
        if session.receive(stream, scratch, on_message)? == Progress::Drained {
            connected.readable = false;
            if let Some(error) = connected.broken.take() {
                return Err(Loss::Io(error));
            }
        }
        Ok(())
    }

    /// Sends what the socket takes; if that is asked for, of the name only.
    ///
    /// If that fails, there may still be something to read, and what has come is not to be lost: so
    /// the connection's end shows in [`receive`](Self::receive), after the last message.
    pub(super) fn send(&mut self, outbox: &mut Outbox, name_only: bool, now: Instant) {
        if let State::Up(connected) = &mut self.state
            && connected.broken.is_none()
            && let Err(error) = outbox.write_to(&mut connected.stream, name_only, now)
        {
            connected.broken = Some(error);
            connected.readable = true;
        }
    }

    /// Closes the sending side: all is said.
    pub(super) fn finish(&self) {
        if let State::Up(connected) = &self.state {
            // If it fails, there is no connection to be closed.
            let _ = connected.stream.shutdown(Shutdown::Write);
        }
    }

    /// How many bytes the server's machine has not acknowledged.
    ///
    /// `Err` if the system does not tell. That it usually does, but does not this time, can happen: it
    /// is `None`.
    pub(super) fn unacknowledged(&mut self) -> Result<Option<u64>, Untold> {
        let State::Up(connected) = &mut self.state else {
            return Ok(None);
        };
        match unacknowledged(connected.local, connected.peer) {
            None if !connected.tells => Err(Untold),
            known => {
                connected.tells = true;
                Ok(known)
            }
        }
    }

    /// Makes the next attempt now.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let State::Waiting { until } = &mut self.state {
            *until = (*until).min(now);
        }
    }

    /// Gives a connection up. Returns how long until the next attempt.
    pub(super) fn lose(&mut self, now: Instant) -> Duration {
        if let State::Up(connected) = &self.state {
            self.backoff.lived(connected.since, now);
        }
        self.wait(now)
    }

    fn wait(&mut self, now: Instant) -> Duration {
        let wait = self.backoff.next(fastrand::f64());
        self.state = State::Waiting { until: now + wait };
        wait
    }
}

/// Both addresses of a connection that was being made; `None` if it still is.
fn ends_of(
    stream: &TcpStream,
    decided: bool,
    late: bool,
) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
    if decided {
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(peer) => {
                let local = stream.local_addr()?;
                // If the server's port is one that the system gives to clients, and nobody listens
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
    if late {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(None)
}
