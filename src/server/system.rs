//! The operating system, as the loop sees it: one trait, and its implementation with mio.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::Endpoint;
use super::admin_socket::AdminSocket;
use super::handle::Handle;
use super::inherited::Inherited;
use super::listener::{clear_notsent_lowat, listen, set_options};
use super::signals::Signals;
use super::trace::Trace;
use crate::relay::{ConnId, Ready};

pub use super::signals::Request;

/// Everything that the loop asks of the operating system.
///
/// There is one implementation in production, [`Kernel`]. It is a trait for the tests: with a system of
/// their own they drive the very same loop through what a real one does once a year, as often as they
/// like and the same way each time.
pub trait System {
    /// A connection's socket. It is non-blocking.
    type Stream: Read + Write;

    /// The time of a monotonic clock.
    fn now(&self) -> Instant;

    /// The wall-clock time.
    fn time_of_day(&self) -> SystemTime;

    /// A random number.
    fn random(&mut self) -> u64;

    /// Waits for events, but no longer than `timeout`, and for ever if there is none. Events are edges:
    /// each is reported once.
    ///
    /// # Errors
    ///
    /// `Interrupted` if a signal came; anything else is the end of the loop.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// The events that the last [`poll`](Self::poll) has returned; none if it failed.
    fn events(&self) -> impl Iterator<Item = Event>;

    /// Whether there may be more events than those: they were as many as one poll returns.
    fn has_more(&self) -> bool;

    /// The requests that signals and handles have made since the last call.
    fn requests(&mut self) -> Vec<Request>;

    /// Accepts from the listener of this index, without waiting.
    ///
    /// # Errors
    ///
    /// Those of accept(2).
    fn accept(&mut self, listener: usize) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Begins to connect to this address, without waiting. Whether that has succeeded shows when the connection
    /// becomes writable.
    ///
    /// # Errors
    ///
    /// Those of socket(2) and connect(2). A system without a network may have no connections to others.
    fn connect(&mut self, addr: SocketAddr) -> io::Result<Self::Stream> {
        let _ = addr;
        Err(ErrorKind::Unsupported.into())
    }

    /// Registers a connection, so that its events are reported as this source's until it is dropped.
    ///
    /// # Errors
    ///
    /// If the system cannot watch one more.
    fn watch(&mut self, stream: &mut Self::Stream, source: Source) -> io::Result<()>;

    /// Has the events of a registered connection reported as another source's, what it is ready for now
    /// included.
    ///
    /// # Errors
    ///
    /// If the system does not know the connection.
    fn watch_as(&mut self, stream: &mut Self::Stream, source: Source) -> io::Result<()> {
        self.watch(stream, source)
    }

    /// Removes the `TCP_NOTSENT_LOWAT` cap of this connection, so that the kernel can take its remaining
    /// output before the process exits.
    fn clear_notsent_lowat(&mut self, stream: &Self::Stream);

    /// Ends the relay's side of this connection: the peer receives a FIN after what was written.
    fn shutdown_write(&mut self, stream: &Self::Stream);

    /// Closes the listener of this index. A connection that comes later is refused by the kernel, or waits for
    /// another process that has the socket.
    fn close_listener(&mut self, listener: usize);

    /// Opens the reserve descriptor, which has no use but to be closed. Returns whether there was one.
    fn open_reserve(&mut self) -> bool;

    /// Closes the reserve descriptor.
    fn close_reserve(&mut self);

    /// The trace of the calls, if they are traced.
    fn trace(&self) -> Option<&Trace> {
        None
    }
}

/// What the events of a socket are reported as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A connection of the relay.
    Connection(ConnId),
    /// The connection of this index in the lobby.
    Visitor(usize),
    /// The connection of this index to the engine of the bus.
    Bus(usize),
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// There may be requests: a signal came, or another thread used a [`Handle`].
    Signal,
    /// Connections wait to be accepted at the listener of this index.
    Incoming(usize),
    /// A connection became ready.
    Connection(ConnId, Ready),
    /// The connection of this index in the lobby became ready.
    Visitor(usize, Ready),
    /// The connection of this index to the engine of the bus became ready.
    Bus(usize, Ready),
}

/// The token of the signals. Connections count up from 0, so the last tokens are never theirs.
const SIGNALS: Token = Token(usize::MAX);
/// The token of the handles' waker.
const WAKER: Token = Token(usize::MAX - 1);
/// The token of the first listener; the others count down from it.
const FIRST_LISTENER: Token = Token(usize::MAX - 2);
/// The token of the first visitor; the others count down from it. Listeners are fewer than lie between.
const FIRST_VISITOR: Token = Token(usize::MAX - (1 << 16));
/// Visitors are fewer than this.
const MAX_VISITORS: usize = 1 << 16;
/// The token of the first connection to the engine of the bus; the other one is the next one down.
const FIRST_BUS: Token = Token(FIRST_VISITOR.0 - MAX_VISITORS);

/// How many events one poll returns. More than that wait for the next turn, and so do timeouts then. No
/// connection starves: epoll returns them in the order in which they became ready.
const MAX_EVENTS: usize = 1024;

/// What a connection is registered for. Urgent data is part of it where the system reports that, because
/// a read stops short at it.
#[cfg(any(target_os = "linux", target_os = "android"))]
const INTEREST: Interest = Interest::READABLE
    .add(Interest::WRITABLE)
    .add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// The kernel: sockets, mio's poll, signals.
pub struct Kernel {
    poll: Poll,
    events: Events,
    /// Each until it is closed.
    listeners: Vec<Option<Listening>>,
    /// How long a connection may be silent before the kernel probes it.
    keepalive: Option<Duration>,
    reserve: Option<File>,
    signals: Option<Signals>,
    handle: Option<Handle>,
}

/// A listening socket.
#[derive(Debug)]
enum Listening {
    Tcp {
        socket: TcpListener,
        /// Connections in the queue may be older than the options, and not have inherited them.
        has_early: bool,
    },
    Admin(AdminSocket),
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// An event queue without listeners.
    pub(super) fn new(keepalive: Option<Duration>) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(MAX_EVENTS),
            listeners: Vec::new(),
            keepalive,
            reserve: None,
            signals: None,
            handle: None,
        })
    }

    /// Listens at one more endpoint of `all`.
    pub(super) fn listen(&mut self, endpoint: &Endpoint, all: &[Endpoint]) -> io::Result<()> {
        let socket = listen(endpoint.addr, endpoint.takes_ipv4(all), self.keepalive)?;
        self.watch_listener(Listening::Tcp {
            socket,
            has_early: false,
        })
    }

    /// Listens with a socket that was opened elsewhere.
    pub(super) fn take_over(&mut self, inherited: Inherited) -> io::Result<()> {
        let socket = inherited.into_listener(self.keepalive)?;
        self.watch_listener(Listening::Tcp {
            socket,
            has_early: true,
        })
    }

    /// Listens with the admin socket. It must be the last listener.
    pub(super) fn listen_admin(&mut self, socket: AdminSocket) -> io::Result<()> {
        self.watch_listener(Listening::Admin(socket))
    }

    fn watch_listener(&mut self, mut listening: Listening) -> io::Result<()> {
        let token = Token(FIRST_LISTENER.0 - self.listeners.len());
        let registry = self.poll.registry();
        registry.register(listening.source(), token, Interest::READABLE)?;
        self.listeners.push(Some(listening));
        Ok(())
    }

    /// The addresses that are listened on.
    pub(super) fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        let addr = |listening: &Listening| match listening {
            Listening::Tcp { socket, .. } => Some(socket.local_addr()),
            Listening::Admin(_) => None,
        };
        self.listeners.iter().flatten().filter_map(addr).collect()
    }

    /// A handle to the loop that waits in this kernel's poll.
    pub(super) fn handle(&mut self) -> io::Result<Handle> {
        if let Some(handle) = &self.handle {
            return Ok(handle.clone());
        }
        let handle = Handle::new(self.poll.registry(), WAKER)?;
        Ok(self.handle.insert(handle).clone())
    }

    /// Installs the signal handlers, for the whole process.
    pub(super) fn handle_signals(&mut self, has_terminal: bool) -> io::Result<()> {
        let signals = Signals::install(self.poll.registry(), SIGNALS, has_terminal)?;
        self.signals = Some(signals);
        Ok(())
    }
}

impl AsRef<Self> for Kernel {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl AsMut<Self> for Kernel {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

impl System for Kernel {
    type Stream = TcpStream;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn time_of_day(&self) -> SystemTime {
        SystemTime::now()
    }

    fn random(&mut self) -> u64 {
        fastrand::u64(..)
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.poll.poll(&mut self.events, timeout)
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        let listeners = self.listeners.len();
        self.events.iter().map(move |event| match event.token() {
            SIGNALS | WAKER => Event::Signal,
            // With n listeners, theirs are the n tokens that end with the first one's.
            Token(token) if token > FIRST_LISTENER.0 - listeners => {
                Event::Incoming(FIRST_LISTENER.0 - token)
            }
            Token(token) if token > FIRST_VISITOR.0 - MAX_VISITORS => {
                Event::Visitor(FIRST_VISITOR.0 - token, readiness(event))
            }
            Token(token) if token > FIRST_BUS.0 - 2 => {
                Event::Bus(FIRST_BUS.0 - token, readiness(event))
            }
            Token(id) => Event::Connection(ConnId::from(id), readiness(event)),
        })
    }

    fn has_more(&self) -> bool {
        self.events.iter().nth(MAX_EVENTS - 1).is_some()
    }

    fn requests(&mut self) -> Vec<Request> {
        let signals = self.signals.as_mut().map(Signals::pending);
        let handle = self.handle.as_ref().and_then(Handle::pending);
        signals.into_iter().flatten().chain(handle).collect()
    }

    fn accept(&mut self, listener: usize) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, has_early) = match self.listeners.get_mut(listener) {
            Some(Some(Listening::Tcp { socket, has_early })) => (socket, has_early),
            Some(Some(Listening::Admin(socket))) => return socket.accept(),
            Some(None) | None => return Err(ErrorKind::WouldBlock.into()),
        };
        let accepted = socket.accept();
        match &accepted {
            Ok((stream, _)) if *has_early => {
                // If that fails, the connection is served all the same.
                let _ = set_options(&SockRef::from(stream), self.keepalive);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => *has_early = false,
            _ => {}
        }
        accepted
    }

    fn connect(&mut self, addr: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(addr)?;
        // If that fails, small requests may wait for the replies to earlier ones.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn watch(&mut self, stream: &mut TcpStream, source: Source) -> io::Result<()> {
        // Once, for everything, and never again: see the server's "why edge-triggered". Where epoll
        // or kqueue is the selector, closing the socket takes the registration back.
        let registry = self.poll.registry();
        registry.register(stream, source.token(), INTEREST)
    }

    fn watch_as(&mut self, stream: &mut TcpStream, source: Source) -> io::Result<()> {
        let registry = self.poll.registry();
        registry.reregister(stream, source.token(), INTEREST)
    }

    fn clear_notsent_lowat(&mut self, stream: &TcpStream) {
        clear_notsent_lowat(stream);
    }

    fn shutdown_write(&mut self, stream: &TcpStream) {
        // If it fails, there is no connection any more.
        let _ = stream.shutdown(Shutdown::Write);
    }

    fn close_listener(&mut self, listener: usize) {
        if let Some(mut listener) = self.listeners.get_mut(listener).and_then(Option::take) {
            // Closing is enough for a socket of our own. But epoll watches a socket until its last
            // descriptor is closed, in whatever process, and connections would go on waking the loop.
            let _ = self.poll.registry().deregister(listener.source());
        }
    }

    fn open_reserve(&mut self) -> bool {
        self.reserve = File::open("/dev/null").ok();
        self.reserve.is_some()
    }

    fn close_reserve(&mut self) {
        self.reserve = None;
    }
}

impl Listening {
    fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Self::Tcp { socket, .. } => socket,
            Self::Admin(socket) => socket.source(),
        }
    }
}

impl Source {
    fn token(self) -> Token {
        match self {
            Self::Connection(id) => Token(id.into()),
            Self::Visitor(index) => Token(FIRST_VISITOR.0 - index),
            Self::Bus(index) => Token(FIRST_BUS.0 - index),
        }
    }
}

/// The readiness that an event reports.
fn readiness(event: &mio::event::Event) -> Ready {
    let mut ready = Ready::default();
    if event.is_readable() || event.is_error() {
        ready.insert(Ready::READABLE);
    }
    if event.is_writable() {
        ready.insert(Ready::WRITABLE);
    }
    if event.is_read_closed() {
        ready.insert(Ready::READABLE | Ready::READ_CLOSED);
    }
    if event.is_priority() {
        ready.insert(Ready::READABLE | Ready::URGENT);
    }
    if event.is_write_closed() {
        // Nothing follows from this before everything was read.
        ready.insert(Ready::READABLE | Ready::HUNG_UP);
    }
    ready
}
