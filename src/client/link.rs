//! The connection to the server, which is made again when it is lost.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

use super::acknowledged::unacknowledged;
use super::backoff::Backoff;
use super::incoming::{Incoming, Received};
use super::json_session::{JsonSession, NO_STATUS};
use super::outbox::Outbox;
use super::session::{Disconnect, Progress, Session};
use crate::client_tls::{Connector, Refusal, Stream};
use crate::handshake::{HandshakeError, Opening, Target};

/// A server that does not answer within this time is tried at its next address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The silence after which the kernel probes the server. After three probes without an answer the
/// connection is lost.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// The status code of a client that leaves (RFC 6455, 7.4.1).
const NORMAL_CLOSURE: u16 = 1000;

/// How long to wait until the server has closed a WebSocket that the client has closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that ends within this time, without a message, was refused.
const REFUSAL_WINDOW: Duration = Duration::from_secs(2);

/// A `Link` makes connections to one server, one after the other.
#[derive(Debug)]
pub(super) struct Link {
    token: Token,
    /// The addresses of the server; never empty.
    addrs: Vec<SocketAddr>,
    /// The WebSocket to open there; without one the server speaks `chat10`.
    target: Option<Target>,
    /// TLS around either of them, if there is any.
    tls: Option<Connector>,
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
    /// There is a connection to the address of this index, and TLS or the WebSocket is being opened.
    Opening {
        handshake: Box<Handshake>,
        index: usize,
        deadline: Instant,
    },
    /// The connection is established.
    Up(Box<Connected>),
}

/// A `Handshake` opens TLS over a connection, and then a WebSocket, or one of them.
#[derive(Debug)]
struct Handshake {
    stream: Stream,
    local: SocketAddr,
    peer: SocketAddr,
    opening: Option<Opening>,
    /// The part of the request for a WebSocket that the socket has not accepted.
    request: Vec<u8>,
}

/// A `Protocol` decodes what arrives over an established connection.
#[derive(Debug)]
enum Protocol {
    Chat10(Session),
    WebSocket(JsonSession),
}

#[derive(Debug)]
struct Connected {
    stream: Stream,
    protocol: Protocol,
    since: Instant,
    local: SocketAddr,
    peer: SocketAddr,
    readable: bool,
    /// The error of a write. It is reported after the last message that can be read.
    write_error: Option<io::Error>,
    /// Whether the system has reported acknowledgements of this connection.
    reports_acks: bool,
    /// The time at which the client no longer waits for the server to close its WebSocket, once the
    /// client has closed it.
    close_deadline: Option<Instant>,
}

/// An `AckUnknown` means that the system does not report acknowledgements.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckUnknown;

/// An `Attempt` is the result of an attempt to connect to any of the addresses.
#[derive(Debug)]
pub(super) enum Attempt {
    /// There is a connection to this address.
    Connected(SocketAddr),
    /// The server answered, and has no WebSocket for this client.
    Refused {
        /// What it answered.
        error: HandshakeError,
        /// How long until the next attempt.
        again_in: Duration,
    },
    /// The server is not trusted.
    Untrusted(Refusal),
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
        target: Option<Target>,
        tls: Option<Connector>,
        ack_timeout: Option<Duration>,
        token: Token,
        now: Instant,
    ) -> Self {
        Self {
            token,
            addrs,
            target,
            tls,
            ack_timeout,
            backoff: Backoff::default(),
            state: LinkState::Waiting { until: now },
        }
    }

    /// The time at which [`progress`](Self::progress) must be called, if there is one.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            LinkState::Waiting { until } => Some(*until),
            LinkState::Connecting { deadline, .. } | LinkState::Opening { deadline, .. } => {
                Some(*deadline)
            }
            LinkState::Up(_) => None,
        }
    }

    /// The time at which [`finish`](Self::finish) must be called again, while it is not done.
    pub(super) fn close_deadline(&self, now: Instant) -> Option<Instant> {
        match &self.state {
            LinkState::Up(connected) => {
                let deadline = connected.close_deadline?;
                Some(if connected.readable { now } else { deadline })
            }
            _ => None,
        }
    }

    /// The scheme of the server's address.
    pub(super) const fn scheme(&self) -> &'static str {
        match (&self.target, &self.tls) {
            (None, None) => "",
            (None, Some(_)) => "tls://",
            (Some(_), None) => "ws://",
            (Some(_), Some(_)) => "wss://",
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, LinkState::Up(_))
    }

    /// Whether a connection that ends now was refused: it is new, and no message has arrived.
    pub(super) fn is_refused(&self, now: Instant) -> bool {
        matches!(&self.state, LinkState::Up(connected)
            if now.duration_since(connected.since) < REFUSAL_WINDOW && !connected.protocol.is_chat())
    }

    /// Whether there may be something to read.
    pub(super) fn is_readable(&self) -> bool {
        matches!(&self.state, LinkState::Up(connected) if connected.readable)
    }

    /// Notes an event of the socket.
    pub(super) fn note(&mut self, event: &Event) {
        match &mut self.state {
            // An opening is tried in each turn.
            LinkState::Waiting { .. } | LinkState::Opening { .. } => {}
            LinkState::Connecting { decided, .. } => *decided = true,
            LinkState::Up(connected) => {
                connected.readable |=
                    event.is_readable() || event.is_read_closed() || event.is_error();
            }
        }
    }

    /// Begins an attempt to connect when it is time to, and returns its result.
    pub(super) fn progress(&mut self, registry: &Registry, now: Instant) -> Option<Attempt> {
        loop {
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
                        let index = *index;
                        match self.set_connected(local, peer, index, now) {
                            Ok(Some(attempt)) => return Some(attempt),
                            // The handshake can begin.
                            Ok(None) => continue,
                            Err(error) => {
                                failure = Some((self.addrs[index], error));
                                index + 1
                            }
                        }
                    }
                    Err(error) => {
                        failure = Some((self.addrs[*index], error));
                        *index + 1
                    }
                },
                LinkState::Opening {
                    handshake,
                    index,
                    deadline,
                } => match handshake.progress(*deadline <= now) {
                    Ok(None) => return None,
                    Ok(Some(early)) => {
                        let peer = handshake.peer;
                        self.set_open(early, now);
                        return Some(Attempt::Connected(peer));
                    }
                    Err(OpeningError::Untrusted(refusal)) => {
                        self.schedule_attempt(now);
                        return Some(Attempt::Untrusted(refusal));
                    }
                    Err(OpeningError::Refused(error)) => {
                        let again_in = self.schedule_attempt(now);
                        return Some(Attempt::Refused { error, again_in });
                    }
                    Err(OpeningError::Failed(error)) => {
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
            return Some(Attempt::Failed {
                addr,
                error,
                again_in,
            });
        }
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

    /// The connection to the address of this index is made. TLS or a WebSocket may have to be opened over it.
    fn set_connected(
        &mut self,
        local: SocketAddr,
        peer: SocketAddr,
        index: usize,
        now: Instant,
    ) -> io::Result<Option<Attempt>> {
        let state = std::mem::replace(&mut self.state, LinkState::Waiting { until: now });
        let LinkState::Connecting { stream, .. } = state else {
            return Ok(None);
        };
        let stream = Stream::new(stream, self.tls.as_ref())?;
        if self.target.is_none() && self.tls.is_none() {
            let protocol = Protocol::Chat10(Session::default());
            self.set_up(stream, protocol, [local, peer], now);
            return Ok(Some(Attempt::Connected(peer)));
        }
        let chance = fastrand::u128(..).to_ne_bytes();
        let opening = self.target.as_ref();
        let (opening, request) = opening
            .map(|target| Opening::begin(target, chance))
            .map_or((None, Vec::new()), |(opening, request)| {
                (Some(opening), request)
            });
        self.state = LinkState::Opening {
            handshake: Box::new(Handshake {
                stream,
                local,
                peer,
                opening,
                request,
            }),
            index,
            deadline: now + CONNECT_TIMEOUT,
        };
        Ok(None)
    }

    /// All is open, and a WebSocket's stream begins with these bytes.
    fn set_open(&mut self, early: Vec<u8>, now: Instant) {
        let state = std::mem::replace(&mut self.state, LinkState::Waiting { until: now });
        if let LinkState::Opening { handshake, .. } = state {
            let Handshake {
                stream,
                local,
                peer,
                opening,
                ..
            } = *handshake;
            let protocol = match opening {
                None => Protocol::Chat10(Session::default()),
                Some(_) => Protocol::WebSocket(JsonSession::new(early)),
            };
            self.set_up(stream, protocol, [local, peer], now);
        }
    }

    fn set_up(
        &mut self,
        stream: Stream,
        protocol: Protocol,
        [local, peer]: [SocketAddr; 2],
        now: Instant,
    ) {
        self.state = LinkState::Up(Box::new(Connected {
            stream,
            protocol,
            since: now,
            local,
            peer,
            readable: true,
            write_error: None,
            reports_acks: false,
            close_deadline: None,
        }));
    }

    /// Reads once, and passes each item to `on_item`.
    ///
    /// # Errors
    ///
    /// How the connection ended. The caller then calls [`disconnect`](Self::disconnect).
    pub(super) fn receive(
        &mut self,
        scratch: &mut [u8],
        mut on_item: impl FnMut(Incoming<'_>),
    ) -> Result<(), Disconnect> {
        let LinkState::Up(connected) = &mut self.state else {
            return Ok(());
        };
        let Connected {
            protocol, stream, ..
        } = &mut **connected;
        let progress = match protocol {
            Protocol::Chat10(session) => session.receive(stream, scratch, |name, text| {
                on_item(Incoming::Message(Received::new(name, text)));
            }),
            Protocol::WebSocket(session) => session.receive(stream, scratch, on_item),
        };
        if progress? == Progress::Drained {
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
            && let Err(error) = connected
                .stream
                .send_pending()
                .and_then(|()| outbox.write_to(&mut connected.stream, name_only, now))
        {
            connected.write_error = Some(error);
            connected.readable = true;
        }
    }

    /// Closes the sending side: everything is sent. Returns whether that is all there is to do; it is to
    /// be called again otherwise.
    ///
    /// A WebSocket is closed by both sides, and then the connection by the server (RFC 6455, 7.1.1). What
    /// arrives until then is discarded.
    pub(super) fn finish(&mut self, outbox: &mut Outbox, scratch: &mut [u8], now: Instant) -> bool {
        let LinkState::Up(connected) = &mut self.state else {
            return true;
        };
        let Connected {
            protocol,
            stream,
            close_deadline,
            readable,
            ..
        } = &mut **connected;
        let Protocol::WebSocket(session) = protocol else {
            // If it fails, there is no connection to be closed.
            let _ = stream.end();
            return true;
        };
        if outbox.partly_sent_len().is_some() {
            // There is no place for a Close frame.
            return true;
        }
        let deadline = *close_deadline.get_or_insert_with(|| {
            outbox.close(NORMAL_CLOSURE);
            now + CLOSE_TIMEOUT
        });
        if outbox.write_to(stream, true, now).is_err() || deadline <= now {
            return true;
        }
        // A server that sends without end is not waited for.
        let received = session.receive(stream, scratch, |_| {});
        *readable = matches!(received, Ok(Progress::More));
        received.is_err()
    }

    /// Answers the Close frame of the server, as far as the socket accepts the answer.
    pub(super) fn answer_close(&mut self, outbox: &mut Outbox, code: u16, now: Instant) {
        if let LinkState::Up(connected) = &mut self.state {
            let has_code = code != NO_STATUS;
            outbox.close(if has_code { code } else { NORMAL_CLOSURE });
            // If it fails, the connection is at its end anyway.
            let _ = outbox.write_to(&mut connected.stream, true, now);
        }
    }

    /// The number of bytes that the server's machine has not acknowledged. Those of TLS are more than those
    /// of the messages in them, so a message counts as acknowledged a little late.
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
                Ok(known.map(|known| known + connected.stream.pending() as u64))
            }
        }
    }

    /// Makes the next attempt now.
    pub(super) fn retry_now(&mut self, now: Instant) {
        if let LinkState::Waiting { until } = &mut self.state {
            *until = (*until).min(now);
        }
    }

    /// Closes the connection, and makes the next attempt now.
    pub(super) fn restart(&mut self, now: Instant) {
        self.backoff = Backoff::default();
        self.state = LinkState::Waiting { until: now };
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

impl Protocol {
    /// Whether something of the chat has arrived.
    fn is_chat(&self) -> bool {
        match self {
            Self::Chat10(session) => session.is_chat(),
            Self::WebSocket(session) => session.is_chat(),
        }
    }
}

/// An `OpeningError` is why TLS or a WebSocket could not be opened.
#[derive(Debug)]
enum OpeningError {
    /// The server is not trusted.
    Untrusted(Refusal),
    /// The server will answer the same the next time.
    Refused(HandshakeError),
    /// Another attempt may succeed.
    Failed(io::Error),
}

impl Handshake {
    /// Exchanges what has to be exchanged, as far as the socket has it. Returns the bytes that came behind
    /// the response to a WebSocket once everything is open.
    fn progress(&mut self, is_late: bool) -> Result<Option<Vec<u8>>, OpeningError> {
        let progress = match self.stream.shake_hands() {
            Ok(false) => None,
            Ok(true) => self.open_web_socket()?,
            Err(error) => return Err(OpeningError::of_tls(error)),
        };
        if progress.is_none() && is_late {
            return Err(OpeningError::Failed(ErrorKind::TimedOut.into()));
        }
        Ok(progress)
    }

    /// Writes the request and reads the response, if there is a WebSocket to be opened.
    fn open_web_socket(&mut self) -> Result<Option<Vec<u8>>, OpeningError> {
        let Some(opening) = &mut self.opening else {
            return Ok(Some(Vec::new()));
        };
        while !self.request.is_empty() {
            match self.stream.write(&self.request) {
                Ok(written) => drop(self.request.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The response may have the reason.
                Err(_) => self.request.clear(),
            }
        }
        let mut buf = [0; 4096];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => return Err(closed(opening)),
                Ok(read) => match opening.feed(&buf[..read]) {
                    Ok(None) => {}
                    Ok(Some(taken)) => return Ok(Some(buf[taken..read].to_vec())),
                    Err(error) if error.is_temporary() => {
                        return Err(OpeningError::Failed(io::Error::other(error)));
                    }
                    Err(error) => return Err(OpeningError::Refused(error)),
                },
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Err(closed(opening));
                }
                Err(error) => return Err(OpeningError::Failed(error)),
            }
        }
    }
}

impl OpeningError {
    /// The error of a handshake of TLS.
    fn of_tls(error: io::Error) -> Self {
        match error.downcast::<Refusal>() {
            Ok(refusal) => Self::Untrusted(refusal),
            Err(error) => Self::Failed(error),
        }
    }
}

/// The error of a server that has closed the connection before it has opened the WebSocket.
fn closed(opening: &Opening) -> OpeningError {
    let text = if opening.is_unanswered() {
        "the server closed the connection without an answer to the WebSocket request; is it a port \
         for browsers, and is there room?"
    } else {
        "the server closed the connection in the middle of its answer to the WebSocket request"
    };
    OpeningError::Failed(io::Error::other(text))
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
