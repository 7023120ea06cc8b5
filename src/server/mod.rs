//! The event loop: mio's [`Poll`](mio::Poll) around a [`Relay`].
//!
//! [`Server::run`] is a loop over [`Server::turn`]. A turn is one pass of the loop:
//!
//! ```text
//! poll            wait for events, or for the next timeout, or not at all if there is work left
//! dispatch        note what each event reports
//! serve_bus       publish what other relays' members said
//! serve_ready     flush pending output, read input, publish messages
//! handle_timeouts look at everything whose time has come
//! dismiss_due     if stopping: the members whose time has come leave
//! fan_out         one write of everything published in this turn to each member
//! send_to_bus     one entry of what this relay's members said
//! remove_closed   remove the connections that were closed
//! log_events      turn the room's events into log lines
//! take_requests   stop, or log the members' table, if a signal asked for it
//! serve_lobby     answer requests in HTTP, read the headers of proxies; from there connections go to
//!                 the relay
//! accept          accept connections, into slots that are free by now
//! finish_drain    if stopping: is everything delivered?
//! ```
//!
//! **Why edge-triggered.** Each socket is registered once, for reading and writing, and never again. (A
//! connection that goes from the lobby to the relay is registered anew, which also repeats its edge.)
//! With level triggering a loop that watches for writability is woken for every idle socket all the
//! time, since an idle socket is always writable. So it has to add and remove that interest, a system
//! call each, whenever output becomes pending and is delivered. An edge reports a change once. The price
//! is the duty to remember: readiness that was reported and not used up is not reported again. Here
//! that memory is a [`Ready`] in each connection and the relay's ready lists, and
//! each place that stops before "would block" has the reason why that is safe.
//!
//! **Why accept last.** Slots are used again. A connection that is accepted after the turn's closing
//! cannot meet an event that was meant for its slot's previous owner, and an event that outlives the
//! batch carries a generation that refers to nothing ([`ConnId`]).

mod acceptor;
mod access;
mod admin;
mod admin_socket;
mod answers;
mod banned;
mod bus;
mod certificates;
mod drain;
mod handle;
mod http;
mod inherited;
mod listener;
mod lobby;
mod log;
mod members;
mod metrics;
mod network;
mod page;
mod password;
mod process;
mod proxy_header;
#[cfg_attr(
    not(feature = "tls"),
    allow(dead_code, reason = "there are no records")
)]
mod records;
mod signals;
mod stats;
mod stream;
mod system;
mod tick;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod trace;
mod trace_fields;
mod traced;
mod trusted;

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::relay::{
    CloseReason, ConnId, Counters, Limits, LimitsError, Rate, Ready, Relay, ReplyTexts, RoomEvent,
};
use crate::wire::{Dialect, FrameError, websocket};
use acceptor::{Accepted, AcceptedConnection, Acceptor};
use access::{Access, Denied};
use admin_socket::AdminSocket;
use answers::Desk;
use bus::Bus;
use certificates::Certificates;
use drain::Drain;
use listener::Via;
use lobby::{Entrance, Lobby, Question, Refused, Then, Visit};
use log::{Refusal, ServerLog, TurnTrace};
use metrics::{Refusals, Snapshot};
use process::Process;
use stats::Stats;
use tick::Tick;
use tls::Session;
use trusted::Proxies;

pub use access::AccessRules;
pub use banned::{Banned, BannedError};
pub use bus::{BusConfig, Login};
pub use handle::Handle;
pub use inherited::Inherited;
pub use listener::{Endpoint, Preamble};
pub use lobby::WebConfig;
pub use log::MembersText;
pub use network::{Network, NetworkError};
pub use password::Password;
pub use stream::Stream;
pub use system::{Event, Kernel, Request, Source, System};
pub use tls::{TlsError, TlsFiles};
pub use trace::Trace;
pub use traced::Traced;

/// The WebSocket status code for a relay that has no place (RFC 6455, 7.4, and the registry that it began).
const TRY_AGAIN_LATER: u16 = 1013;

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen, and for which protocol. At least one, unless sockets are inherited.
    pub listen: Vec<Endpoint>,
    /// Where to listen for connections that begin with something else than their protocol. With a header of
    /// the PROXY protocol a connection's peer has the address that is in the header; connections of peers
    /// that are not in [`trusted_proxies`](Self::trusted_proxies) are refused. With TLS it needs
    /// [`tls`](Self::tls).
    pub listen_with: Vec<(Preamble, Endpoint)>,
    /// The proxies that state their clients' addresses: with the PROXY protocol, and in requests over HTTP
    /// with `X-Forwarded-For`, which is ignored in requests of others.
    pub trusted_proxies: Vec<Network>,
    /// The certificate of the listeners with TLS, and what is demanded of clients there.
    pub tls: Option<TlsFiles>,
    /// The path of the admin socket, a Unix socket with which the server's owner can look at its members. A
    /// system of [`Server::on`] has none.
    pub admin: Option<PathBuf>,
    /// The limits of the room and its connections.
    pub limits: Limits,
    /// The texts of the relay's replies, where they differ from the tutorials'.
    pub texts: ReplyTexts,
    /// The interval of the ticks, for the dialect whose members receive the time.
    pub every: Option<Duration>,
    /// How long a connection may be silent before the kernel probes whether its peer is alive.
    pub keepalive: Option<Duration>,
    /// How long a server that was asked to stop goes on delivering pending output.
    pub drain: Duration,
    /// Which addresses may connect.
    pub access: AccessRules,
    /// Where bans are kept, so that they outlive the relay. A system of [`Server::on`] has no file.
    pub bans: Option<PathBuf>,
    /// Which browsers may come in.
    pub web: WebConfig,
    /// How long at most nothing may be written to a WebSocket member before it receives a heartbeat.
    pub heartbeat: Option<Duration>,
    /// The bus to other relays, if this one is not alone.
    pub bus: Option<BusConfig>,
}

impl Config {
    /// The defaults, listening on these endpoints.
    #[must_use]
    pub fn new(listen: Vec<Endpoint>) -> Self {
        Self {
            listen,
            listen_with: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: None,
            admin: None,
            limits: Limits::default(),
            texts: ReplyTexts::default(),
            every: Some(Duration::from_secs(3)),
            keepalive: Some(Duration::from_secs(60)),
            drain: Duration::from_secs(5),
            access: AccessRules::default(),
            bans: None,
            web: WebConfig::default(),
            heartbeat: Some(Duration::from_secs(45)),
            bus: None,
        }
    }

    /// The endpoints to listen on, each with what its connections begin with, in the order of
    /// [`Server::local_addrs`].
    pub fn listeners(&self) -> impl Iterator<Item = (Preamble, Endpoint)> {
        let plain = self.listen.iter().map(|&one| (Preamble::NONE, one));
        plain.chain(self.listen_with.iter().copied())
    }

    /// Whether a server with these listeners could ever serve a client.
    fn check(&self, listeners: &[(Preamble, Endpoint)]) -> Result<(), StartError> {
        self.limits.check().map_err(StartError::Limits)?;
        if listeners.is_empty() {
            return Err(StartError::NoEndpoint);
        }
        for &(preamble, endpoint) in listeners {
            if preamble.proxy_header && self.trusted_proxies.is_empty() {
                return Err(StartError::NoProxy(preamble, endpoint));
            }
            if preamble.tls && self.tls.is_none() {
                return Err(StartError::NoCertificate(preamble, endpoint));
            }
        }
        Ok(())
    }
}

/// Why a server could not start.
#[derive(Debug)]
pub enum StartError {
    /// The limits contradict each other.
    Limits(LimitsError),
    /// There is nothing to listen on, so no client could ever connect.
    NoEndpoint,
    /// It would listen there for proxies, and none is trusted, so none could ever connect.
    NoProxy(Preamble, Endpoint),
    /// It would listen there for connections through TLS, and has no certificate.
    NoCertificate(Preamble, Endpoint),
    /// The certificate, its key, or what is demanded of clients cannot be used.
    Tls(TlsError),
    /// It cannot listen there.
    Listen(SocketAddr, io::Error),
    /// It cannot listen at the path of the admin socket.
    Admin(PathBuf, io::Error),
    /// It cannot use that file of bans.
    Bans(PathBuf, io::Error),
    /// The system has no event queue for it.
    Poll(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limits(error) => error.fmt(f),
            Self::NoEndpoint => f.write_str("there is no address to listen on"),
            Self::NoProxy(preamble, Endpoint { dialect, addr }) => write!(
                f,
                "--listen {}://{addr} needs --trust-proxy with the address of the proxy, since no other \
                 peer may connect there",
                preamble.with(*dialect)
            ),
            Self::NoCertificate(preamble, Endpoint { dialect, addr }) => {
                let listener = preamble.with(*dialect);
                write!(f, "--listen {listener}://{addr} needs ")?;
                f.write_str(if cfg!(feature = "tls") {
                    "--cert and --key; `chatloop cert` makes both"
                } else {
                    "a chatloop that is built with the feature tls"
                })
            }
            Self::Tls(error) => error.fmt(f),
            Self::Listen(addr, error) => {
                write!(f, "cannot listen on {addr}: {}", listen_trouble(error))
            }
            Self::Admin(path, error) => {
                write!(f, "cannot listen on --admin {}: {error}", path.display())
            }
            Self::Bans(path, error) => {
                write!(f, "cannot use --bans {}: {error}", path.display())
            }
            Self::Poll(error) => write!(f, "cannot set up the event loop: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The likely cause of a failed `bind`, and what to do about it.
fn listen_trouble(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => {
            "the port is in use; stop the program that has it, or choose another port".to_owned()
        }
        ErrorKind::PermissionDenied => {
            "not permitted; ports below 1024 need privileges, so choose a higher one".to_owned()
        }
        ErrorKind::AddrNotAvailable => {
            "not an address of this machine; use 0.0.0.0 or [::] for all of its addresses"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// The dialect of a listener's connections, and how they come to it.
const fn with_via(&(preamble, endpoint): &(Preamble, Endpoint)) -> (Dialect, Via) {
    (endpoint.dialect, Via::Network(preamble))
}

/// Whether a server goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There will be another turn.
    Running,
    /// That was the last one.
    Stopped,
}

/// A relay behind listening sockets.
#[derive(Debug)]
pub struct Server<S: System = Kernel> {
    system: S,
    acceptor: Acceptor<S::Stream>,
    /// Connections that are not the relay's yet: those that speak HTTP, those of proxies, those with TLS.
    lobby: Lobby<S::Stream>,
    /// What the listeners with TLS need, if there are any.
    certificates: Option<Certificates>,
    relay: Relay<Stream<S::Stream>>,
    /// The one buffer that every connection is read into.
    scratch: Box<[u8]>,
    /// The bus to other relays, if there is one.
    bus: Option<Box<Bus<S::Stream>>>,
    phase: Phase,
    tick: Tick,
    /// The heartbeats of WebSocket members.
    heartbeat: Tick,
    /// When accepting is tried again that was held up.
    accept_retry: Option<Instant>,
    /// How long a drain may take.
    drain: Duration,
    started: Instant,
    log: ServerLog,
    /// The room's events for the program around the server, if it asked for them.
    recorded: Option<Vec<RoomEvent>>,
    events: EventCount,
    stats: Stats,
    refusals: Refusals,
    /// How many log lines were dropped, if that is known.
    dropped_log_lines: Option<fn() -> u64>,
}

/// A connection that would have a place.
struct Arrival<S: Read + Write> {
    stream: Stream<S>,
    peer: SocketAddr,
    dialect: Dialect,
}

/// How many events the polls have returned.
#[derive(Debug, Default)]
struct EventCount {
    /// In the last poll.
    last: usize,
    /// Since the event queue was known to be drained.
    since_drained: usize,
    /// The last poll was cut short by a signal, and so has not shown that there are none.
    was_interrupted: bool,
}

/// Where a server is in its life.
#[derive(Debug)]
enum Phase {
    Running,
    /// It was asked to stop, and its members leave one after the other.
    Draining(Drain),
    Stopped,
}

impl Server<Kernel> {
    /// Listens. Connections wait in the kernel's queue until the first turn.
    ///
    /// # Errors
    ///
    /// [`StartError`]: limits that contradict each other, no endpoint or one that cannot be listened
    /// on, or a system without descriptors.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        Self::bind_with(config, Vec::new())
    }

    /// Listens as [`bind`](Self::bind) does, and serves the `inherited` sockets besides.
    ///
    /// # Errors
    ///
    /// As for [`bind`](Self::bind).
    pub fn bind_with(config: &Config, inherited: Vec<Inherited>) -> Result<Self, StartError> {
        let (kernel, listeners) = listening(config, inherited)?;
        Self::starting(&listeners, kernel, config)
    }
}

impl Server<Traced<Kernel>> {
    /// Listens as [`bind_with`](Server::bind_with) does, with a system whose calls are [traced](Server::write_trace).
    ///
    /// # Errors
    ///
    /// As for [`bind`](Server::bind).
    pub fn bind_traced(config: &Config, inherited: Vec<Inherited>) -> Result<Self, StartError> {
        let (kernel, listeners) = listening(config, inherited)?;
        Self::starting(&listeners, Traced::new(kernel), config)
    }
}

/// A kernel that listens, and its listeners.
fn listening(
    config: &Config,
    inherited: Vec<Inherited>,
) -> Result<(Kernel, Vec<(Dialect, Via)>), StartError> {
    let others = inherited.iter().map(|one| (one.preamble(), one.endpoint()));
    let listeners: Vec<_> = config.listeners().chain(others).collect();
    config.check(&listeners)?;
    let mut kernel = Kernel::new(config.keepalive).map_err(StartError::Poll)?;
    let all: Vec<_> = listeners.iter().map(|(_, endpoint)| *endpoint).collect();
    for (_, endpoint) in config.listeners() {
        kernel
            .listen(&endpoint, &all)
            .map_err(|error| StartError::Listen(endpoint.addr, error))?;
    }
    for socket in inherited {
        let addr = socket.endpoint().addr;
        kernel
            .take_over(socket)
            .map_err(|error| StartError::Listen(addr, error))?;
    }
    let mut all: Vec<_> = listeners.iter().map(with_via).collect();
    if let Some(path) = &config.admin {
        AdminSocket::bind(path)
            .and_then(|socket| kernel.listen_admin(socket))
            .map_err(|error| StartError::Admin(path.clone(), error))?;
        all.push((Dialect::Metrics, Via::AdminSocket));
    }
    Ok((kernel, all))
}

/// What only the kernel has, traced or not.
impl<S: System + AsRef<Kernel> + AsMut<Kernel>> Server<S> {
    /// From now on takes SIGTERM and SIGINT as requests to [`stop`](Self::stop), a second one as a
    /// request to stop at once, and SIGUSR1 as a request to log the members' table. SIGHUP means that
    /// the process's terminal was closed, if it `has_terminal`: a request to stop, but never at once.
    /// Otherwise it is a request to reload. The handlers are the process's, so this is for a program
    /// whose only server this is.
    ///
    /// # Errors
    ///
    /// If the system refuses the handlers or the pipe they write to.
    pub fn handle_signals(&mut self, has_terminal: bool) -> io::Result<()> {
        self.system.as_mut().handle_signals(has_terminal)
    }

    /// A handle with which other threads stop or wake the server.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor for it.
    pub fn handle(&mut self) -> io::Result<Handle> {
        self.system.as_mut().handle()
    }

    /// The addresses of the listeners, in the order in which they were asked for: those of
    /// [`Config::listen`], those of [`Config::listen_with`], those of inherited sockets.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2).
    pub fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.system.as_ref().local_addrs()
    }
}

impl<S: System> Server<S> {
    /// A server on a system that listens already: for each endpoint, its listener of the same index.
    ///
    /// # Errors
    ///
    /// [`StartError`], except that it listens already.
    pub fn on(system: S, config: &Config) -> Result<Self, StartError> {
        let listeners: Vec<_> = config.listeners().collect();
        config.check(&listeners)?;
        let listeners: Vec<_> = listeners.iter().map(with_via).collect();
        Self::serving(&listeners, system, config)
    }

    /// A server with these listeners, and with the bans that were kept.
    fn starting(
        listeners: &[(Dialect, Via)],
        system: S,
        config: &Config,
    ) -> Result<Self, StartError> {
        let mut server = Self::serving(listeners, system, config)?;
        if let Some(path) = &config.bans {
            let now = server.since_1970();
            let access = &mut server.lobby.entrance.access;
            access
                .keep_bans_in(path, now)
                .map_err(|error| StartError::Bans(path.clone(), error))?;
        }
        Ok(server)
    }

    /// A server with these listeners.
    fn serving(
        listeners: &[(Dialect, Via)],
        mut system: S,
        config: &Config,
    ) -> Result<Self, StartError> {
        let now = system.now();
        let certificates = config.tls.clone();
        let certificates = certificates
            .map(|files| Certificates::load(files, (now, system.time_of_day())))
            .transpose()
            .map_err(StartError::Tls)?;
        let with_address = listeners.iter().filter(|(_, via)| *via != Via::AdminSocket);
        let dialects: Vec<_> = with_address.map(|&(dialect, _)| dialect).collect();
        let mut served = dialects.clone();
        if served.contains(&Dialect::Ws) {
            // It is offered there as a subprotocol.
            served.push(Dialect::WsChat10);
        }
        let mut relay = Relay::new(config.limits.clone(), &served, &config.texts, now);
        relay.set_bytes_of_stream(Stream::held_bytes);
        let bus = config.bus.clone();
        let bus = bus.map(|bus| Box::new(Bus::new(bus, &mut relay, &mut system, now)));
        Ok(Self {
            acceptor: Acceptor::new(
                listeners.iter().copied(),
                config.limits.accept_rate.map(Rate::new),
                &mut system,
            ),
            system,
            certificates,
            relay,
            lobby: Lobby::new(
                Entrance {
                    web: config.web.clone(),
                    proxies: Proxies::new(config.trusted_proxies.clone()),
                    access: Access::new(config.access.clone()),
                },
                &config.limits,
            ),
            scratch: vec![0; config.limits.read_budget].into(),
            bus,
            phase: Phase::Running,
            tick: Tick::new(config.every),
            // What is published right after a tick takes the place of the next heartbeat, so that two may pass.
            heartbeat: Tick::new(config.heartbeat.map(|longest| longest / 2)),
            accept_retry: None,
            drain: config.drain,
            started: now,
            log: ServerLog::new(&dialects),
            recorded: None,
            events: EventCount::default(),
            stats: Stats::new(),
            refusals: Refusals::default(),
            dropped_log_lines: None,
        })
    }

    /// From now on writes what each turn does here, as lines of JSON and up to this many bytes, if the system is
    /// [`Traced`]. The loop waits for each write.
    pub fn write_trace(&mut self, sink: impl Write + 'static, max: u64) {
        if let Some(trace) = self.system.trace() {
            trace.write_to(&self.relay, sink, max);
        }
    }

    /// The room.
    #[must_use]
    pub const fn relay(&self) -> &Relay<Stream<S::Stream>> {
        &self.relay
    }

    /// How many members there are, in words.
    #[must_use]
    pub const fn members(&self) -> MembersText {
        self.log.members(self.relay.members())
    }

    /// Whether it was asked to [`stop`](Self::stop).
    #[must_use]
    pub const fn is_stopping(&self) -> bool {
        !matches!(self.phase, Phase::Running)
    }

    /// Serves until it was asked to stop and has stopped.
    ///
    /// # Errors
    ///
    /// Those of the poll itself: no trouble with a connection gets here.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn(None)? == Turn::Running {}
        Ok(())
    }

    /// Serves like [`run`](Self::run), and calls `after_turn` after each turn: a program around the server
    /// takes part there.
    ///
    /// # Errors
    ///
    /// Those of the poll itself: no trouble with a connection gets here.
    pub fn run_with(&mut self, mut after_turn: impl FnMut(&mut Self)) -> io::Result<()> {
        while self.turn(None)? == Turn::Running {
            after_turn(self);
        }
        after_turn(self);
        Ok(())
    }

    /// From now on keeps the room's events, each published message among them, until they are taken with
    /// [`drain_events`](Self::drain_events).
    pub fn record_events(&mut self) {
        self.recorded.get_or_insert_default();
        self.relay.record_messages(true);
    }

    /// Takes the events since the last call, in the order in which they happened: none unless they are
    /// [recorded](Self::record_events).
    pub fn drain_events(&mut self) -> Vec<RoomEvent> {
        // What the program itself published since the turn is among them.
        let now = self.system.now();
        self.log_events(now);
        self.recorded.as_mut().map(mem::take).unwrap_or_default()
    }

    /// Publishes a message to all members, under a name that need not be a member's. The next turn delivers
    /// it, and does not wait.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] if the name or the message exceeds its limit.
    pub fn publish(&mut self, name: &[u8], message: &[u8]) -> Result<(), FrameError> {
        self.relay.publish(name, message)
    }

    /// Closes a connection in the next turn, whatever is pending. Returns whether there is such a
    /// connection.
    pub fn close(&mut self, id: ConnId) -> bool {
        self.relay.close(id)
    }

    /// Has this function say for each name that a peer sends whether it may join. A connection whose name is
    /// refused is closed. In dialects without names each connection joins.
    pub fn set_name_filter(&mut self, may_join: impl FnMut(&[u8]) -> bool + Send + 'static) {
        self.relay.set_name_filter(may_join);
    }

    /// One turn of the loop. Waits for something to do, but no longer than `max_wait`.
    ///
    /// # Errors
    ///
    /// Those of the poll itself: no trouble with a connection gets here.
    pub fn turn(&mut self, max_wait: Option<Duration>) -> io::Result<Turn> {
        let trace = self.begin_trace();
        self.poll(max_wait)?;
        let now = self.system.now();
        let is_signalled = self.dispatch();
        if self.relay.is_timed() {
            self.relay.set_time_of_day(self.since_1970());
        }
        let messages_before = self.relay.counters().messages;
        self.serve_bus(now);
        self.relay.serve_ready(&mut self.scratch, now);
        self.handle_timeouts(now);
        self.dismiss_due(now);
        self.fan_out(now);
        self.count_messages(messages_before, now);
        self.send_to_bus(now);
        if self.relay.remove_closed(&mut self.scratch, now) > 0 {
            // Each has given a descriptor back.
            self.acceptor.retry();
            self.charge_streams(now);
        }
        self.log_events(now);
        if is_signalled {
            self.take_requests(now);
        }
        self.check_certificates(now);
        self.serve_lobby(now);
        self.accept(now);
        let turn = self.finish_drain(now);
        self.log_events(now);
        self.stats.on_turn(self.time_since(now));
        self.end_trace(trace, now);
        self.show_turn(now);
        Ok(turn)
    }

    /// Asks the server to stop. It accepts no connection any more, reads and relays what was received
    /// already, has its members leave one after the other, each with everything that was published until
    /// then, for as long as the configuration allows, and then stops. Asked a second time, it stops at
    /// once.
    pub fn stop(&mut self, asked_by: &str) {
        if self.is_stopping() {
            self.log.stopping_at_once(asked_by);
            self.phase = Phase::Stopped;
            return;
        }
        self.phase = Phase::Draining(Drain::new(self.system.now(), self.drain));
        self.relay.lift_quota();
        self.acceptor.close(&mut self.system);
        self.lobby.close();
        self.log.stopping(asked_by, &self.relay, self.drain);
    }

    /// Waits for events.
    fn poll(&mut self, max_wait: Option<Duration>) -> io::Result<()> {
        let timeout = match (self.timeout(), max_wait) {
            (Some(timeout), Some(max_wait)) => Some(timeout.min(max_wait)),
            (timeout, max_wait) => timeout.or(max_wait),
        };
        self.stats.wakeups += u64::from(timeout != Some(Duration::ZERO));
        match self.system.poll(timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.events.was_interrupted = true;
                Ok(())
            }
            polled => {
                self.events.was_interrupted = false;
                polled
            }
        }
    }

    /// How long the poll may wait: not at all while there is work, else until the next timeout, and for
    /// ever if there is none.
    fn timeout(&self) -> Option<Duration> {
        let must_look = match &self.phase {
            Phase::Running => false,
            // A poll that returns nothing shows that everything was received.
            Phase::Draining(drain) => drain.is_reading() && !self.relay.has_held(),
            Phase::Stopped => true,
        };
        let certificates = self.certificates.as_ref();
        let has_unchecked = certificates.is_some_and(Certificates::has_unchecked);
        let bus = self.bus.as_ref();
        let is_bus_ready = bus.is_some_and(|bus| bus.has_ready(&self.relay));
        let has_ready = self.relay.has_ready() || self.lobby.has_ready() || has_unchecked;
        let may_accept = self.acceptor.has_ready() && !bus.is_some_and(|bus| bus.holds_accept());
        if must_look || has_ready || is_bus_ready || may_accept {
            return Some(Duration::ZERO);
        }
        let drain = match &self.phase {
            Phase::Draining(drain) => Some(drain.next_timeout()),
            Phase::Running | Phase::Stopped => None,
        };
        let next = [
            self.relay.next_timeout(),
            self.tick.due(),
            self.heartbeat.due(),
            self.lobby.next_timeout(),
            bus.and_then(|bus| bus.next_timeout(&self.relay)),
            certificates.and_then(Certificates::warning_due),
            self.accept_retry,
            drain,
        ];
        let next = next.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(self.system.now()))
    }

    /// Notes what each event reports; it is acted on when the whole batch is known. Returns whether there
    /// may be requests of signals.
    fn dispatch(&mut self) -> bool {
        // A signal that is a request has its event as well. But without memory for that byte the system
        // drops it, and the interrupted poll may be all that shows the request before something else
        // happens.
        let mut is_signalled = self.events.was_interrupted;
        self.events.last = 0;
        for event in self.system.events() {
            self.events.last += 1;
            match event {
                Event::Signal => is_signalled = true,
                Event::Incoming(listener) => self.acceptor.note(listener),
                Event::Connection(id, ready) => self.relay.note(id, ready),
                Event::Visitor(index, ready) => self.lobby.note(index, ready),
                Event::Bus(index, ready) => {
                    if let Some(bus) = &mut self.bus {
                        bus.note(index, ready);
                    }
                }
            }
        }
        self.events.since_drained += self.events.last;
        is_signalled
    }

    /// Delivers what was published in this turn.
    fn fan_out(&mut self, now: Instant) {
        if let Some(trace) = self.system.trace() {
            trace.published(&self.relay);
        }
        self.relay.fan_out(now);
        self.charge_streams(now);
        if let Some(trace) = self.system.trace() {
            trace.delivered(&self.relay);
        }
    }

    /// Has what sessions hold count towards the memory limit.
    fn charge_streams(&mut self, now: Instant) {
        if let Some(certificates) = &self.certificates {
            let held = certificates.buffers().held_bytes();
            self.relay.charge_streams(held, now);
        }
    }

    /// Publishes what other relays' members said.
    fn serve_bus(&mut self, now: Instant) {
        if let Some(bus) = &mut self.bus {
            bus.serve(&mut self.system, &mut self.relay, &mut self.scratch, now);
        }
    }

    /// Sends what members said to other relays, now that it was delivered here.
    fn send_to_bus(&mut self, now: Instant) {
        if let Some(bus) = &mut self.bus {
            bus.send(&mut self.system, &mut self.relay, now);
        }
    }

    fn time_since(&self, earlier: Instant) -> Duration {
        self.system.now().saturating_duration_since(earlier)
    }

    /// The turn, whose poll returned at `now`, was written to all members. There were this many messages before
    /// it.
    fn count_messages(&mut self, before: u64, now: Instant) {
        let messages = self.relay.counters().messages - before;
        if messages > 0 {
            self.stats.on_fan_out(messages, self.time_since(now));
        }
    }

    /// Looks at everything whose time has come, unless there may be events that were not returned yet: a
    /// peer that looks late may have a readable event among them. To bound the delay, that is no reason
    /// any more after as many events as there are connections.
    fn handle_timeouts(&mut self, now: Instant) {
        if self.system.has_more() && self.events.since_drained <= self.relay.len() {
            return;
        }
        self.events.since_drained = 0;
        if let Some(trace) = self.system.trace() {
            trace.timers(&self.relay, now);
        }
        self.relay.handle_timeout(now);
        if self.accept_retry.is_some_and(|at| at <= now) {
            self.accept_retry = None;
            self.acceptor.retry();
        }
        let has_tick_members = self.relay.has_tick_members() && !self.is_stopping();
        self.tick.set_running(has_tick_members, now);
        if self.tick.take_due(now) {
            let text = tick::text(self.system.time_of_day());
            self.relay.publish_tick(text.as_bytes());
        }
        self.heartbeat
            .set_running(self.relay.has_web_socket_members(), now);
        if self.heartbeat.take_due(now) {
            self.relay.publish_heartbeat();
        }
        for (peer, reason) in self.lobby.handle_timeout(now) {
            self.refuse_visit(peer, &reason, now);
        }
        if let Some(certificates) = &mut self.certificates
            && certificates.is_warning_due(now)
            && let Some(left) = certificates.take_warning(now, self.system.time_of_day())
        {
            self.log.certificate_expires(left);
        }
    }

    /// The time of day. A clock that stands before 1970 has not been set.
    fn since_1970(&self) -> Duration {
        let since = self
            .system
            .time_of_day()
            .duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default()
    }

    /// The time since 1970, if there is a ban that it could have ended: only then is the clock read.
    fn time_of_bans(&self) -> Duration {
        if self.lobby.entrance.access.has_bans() {
            self.since_1970()
        } else {
            Duration::ZERO
        }
    }

    /// The room's events become log lines.
    fn log_events(&mut self, now: Instant) {
        for event in self.relay.drain_events() {
            if let Some(trace) = self.system.trace() {
                trace.event(&event);
            }
            self.log.event(&event, now);
            if let Some(recorded) = &mut self.recorded {
                recorded.push(event);
            }
        }
    }

    fn take_requests(&mut self, now: Instant) {
        for request in self.system.requests() {
            match request {
                Request::Stop(signal) => self.stop(signal),
                Request::HangUp if self.is_stopping() => {}
                Request::HangUp => self.stop("SIGHUP"),
                Request::Table => {
                    let bus = self.bus.as_ref();
                    let bus = bus.map(|bus| bus.figures(&self.relay, now));
                    self.log.table(&self.relay, bus, now);
                }
                Request::Reload => self.reload(now),
            }
        }
    }

    /// Reads the files of the listeners with TLS anew. New connections are given what they hold; if any of them
    /// cannot be used, nothing changes.
    fn reload(&mut self, now: Instant) {
        let Some(certificates) = &mut self.certificates else {
            return self.log.nothing_to_reload();
        };
        let time = self.system.time_of_day();
        match certificates.reload((now, time)) {
            Ok(()) => self.log.reloaded(certificates.expires()),
            Err(error) => return self.log.reload_failed(&error),
        }
        certificates.check_again(self.relay.ids());
    }

    /// Closes members whose certificate was accepted before the last reload and would not be now. A turn looks at a
    /// few members, since each is a signature to be verified.
    fn check_certificates(&mut self, now: Instant) {
        let Some(certificates) = &mut self.certificates else {
            return;
        };
        let ids = certificates.next_to_check();
        if ids.is_empty() {
            return;
        }
        let time = self.system.time_of_day();
        for id in ids {
            let session = self.relay.stream(id).and_then(Stream::session);
            if session.is_some_and(|session| certificates.refuses(session, time)) {
                self.relay.close_for(id, CloseReason::Revoked);
            }
        }
        self.relay.remove_closed(&mut self.scratch, now);
    }

    /// Accepts connections, up to the turn's budget.
    fn accept(&mut self, now: Instant) {
        if self.bus.as_ref().is_some_and(|bus| bus.holds_accept()) {
            return;
        }
        let mut may_evict = true;
        for _ in 0..self.relay.limits().accept_budget {
            match self.acceptor.accept(&mut self.system, &mut self.log, now) {
                Accepted::Connection(accepted) => self.admit(accepted, now),
                Accepted::Nothing => break,
                Accepted::Shortage { retry_at, refused } => {
                    self.relay.count_refused(refused);
                    self.refusals.shortage += refused;
                    self.accept_retry = Some(retry_at);
                    // One at a time: under a limit that was lowered, it may not help.
                    if !mem::take(&mut may_evict)
                        || !self.relay.make_room(None, &mut self.scratch, now)
                    {
                        break;
                    }
                    self.acceptor.retry();
                }
                Accepted::TooEarly { retry_at } => {
                    self.accept_retry = Some(retry_at);
                    break;
                }
            }
        }
        if !self.acceptor.is_waiting() {
            self.accept_retry = None;
        }
        let has_tick_members = self.relay.has_tick_members() && !self.is_stopping();
        self.tick.set_running(has_tick_members, now);
        self.heartbeat
            .set_running(self.relay.has_web_socket_members(), now);
    }

    /// Serves the connections that are not the relay's yet.
    fn serve_lobby(&mut self, now: Instant) {
        let certificates = self.certificates.as_ref();
        if let Some(certificates) = certificates {
            for id in certificates.buffers().take_ended() {
                self.relay.note(id, Ready::READABLE | Ready::READ_CLOSED);
            }
        }
        if !self.lobby.has_ready() {
            return;
        }
        let clocks = (now, self.time_of_bans());
        let (scratch, system) = (&mut self.scratch, &self.system);
        let visits = self
            .lobby
            .serve(certificates, scratch, clocks, || system.now());
        for visit in visits {
            match visit {
                Visit::Admitted {
                    stream,
                    peer,
                    dialect,
                } => {
                    let arrival = Arrival {
                        stream,
                        peer,
                        dialect,
                    };
                    self.give_place(arrival, S::watch_as, now);
                }
                Visit::Asked {
                    index,
                    via,
                    question,
                } => {
                    let (response, then) = self.answer(question, via, now);
                    self.lobby.respond(index, response, then, now);
                }
                Visit::Refused { peer, reason } => self.refuse_visit(peer, &reason, now),
                Visit::Ended => {}
            }
            // A descriptor was given back, or a place was taken.
            self.acceptor.retry();
        }
    }

    /// The response to a question about the relay, and what follows it.
    fn answer(&mut self, question: Question, via: Via, now: Instant) -> (Vec<u8>, Then) {
        // Bans are the admin socket's.
        let time = if via == Via::AdminSocket {
            self.since_1970()
        } else {
            Duration::ZERO
        };
        let metrics = answers::wants_metrics(&question).then(|| self.metrics_at(now));
        let mut desk = Desk {
            metrics: metrics.unwrap_or_default(),
            bus: self.bus.as_ref().map(|bus| bus.figures(&self.relay, now)),
            is_stopping: self.is_stopping(),
            uptime: now.saturating_duration_since(self.started),
            relay: &mut self.relay,
            access: &mut self.lobby.entrance.access,
            log: &self.log,
            now,
            time,
        };
        desk.answer(question, via)
    }

    /// The metrics, in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.metrics_at(self.system.now())
    }

    fn metrics_at(&self, now: Instant) -> String {
        let bus = self.bus.as_ref();
        metrics::text(&Snapshot {
            bus: bus.map(|bus| bus.figures(&self.relay, now)),
            counters: self.relay.counters(),
            gauges: self.relay.gauges(now),
            stats: &self.stats,
            refusals: &self.refusals,
            tls: self.tls_figures(),
            process: Process::now(),
            is_stopping: self.is_stopping(),
            dropped_log_lines: self.dropped_log_lines.map_or(0, |count| count()),
        })
    }

    fn tls_figures(&self) -> metrics::Tls {
        let expires = self.certificates.as_ref().map(Certificates::expires);
        metrics::Tls {
            handshaking: self.lobby.shaking(),
            handshakes: self.lobby.handshakes(),
            expires: expires.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()),
        }
    }

    /// Has this function say how many log lines were dropped, for the [metrics](Self::metrics).
    pub const fn set_dropped_log_lines(&mut self, count: fn() -> u64) {
        self.dropped_log_lines = Some(count);
    }

    /// Logs a connection that the lobby has refused, and counts it if it had asked for a place.
    fn refuse_visit(&mut self, peer: SocketAddr, reason: &Refused, now: Instant) {
        let refusals = &mut self.refusals;
        let (count, had_asked) = match reason {
            Refused::BadHeader(_) | Refused::LateHeader => (&mut refusals.proxy, true),
            Refused::Handshake(_) | Refused::LateHandshake => (&mut refusals.tls, true),
            Refused::Denied(_) => (&mut refusals.denied, true),
            Refused::Host(_)
            | Refused::Origin(_)
            | Refused::Request(_)
            | Refused::Password { .. }
            | Refused::UnexpectedHeader => (&mut refusals.request, false),
        };
        *count += 1;
        self.relay.count_refused(u64::from(had_asked));
        self.log.refused_visit(peer, reason, now);
    }

    /// Lets a connection in: into the lobby if its dialect is not the first that it speaks, or begins with HTTP.
    fn admit(&mut self, accepted: AcceptedConnection<S::Stream>, now: Instant) {
        if let Some(denied) = self.denial(&accepted) {
            let refusal = Refusal::Denied(denied);
            return self.count_refusal(accepted.peer, &refusal, now);
        }
        let AcceptedConnection {
            stream,
            peer,
            dialect,
            via,
        } = accepted;
        let preamble = via.preamble();
        let mut arrival = Arrival {
            stream: Stream::new(stream),
            peer,
            dialect,
        };
        if preamble == Preamble::NONE && !dialect.rules().sends.begins_with_http() {
            return self.give_place(arrival, S::watch, now);
        }
        if preamble.proxy_header && !self.lobby.trusts(peer) {
            return self.refuse(arrival, &Refusal::NoProxy, now);
        }
        if preamble.tls
            && dialect != Dialect::Metrics
            && let Err(refusal) = self.find_place(peer, now)
        {
            return self.refuse(arrival, &refusal, now);
        }
        self.lobby.make_room(dialect, via);
        let source = Source::Visitor(self.lobby.next_index());
        match self.system.watch(arrival.stream.socket_mut(), source) {
            Ok(()) => self.lobby.enter(arrival.stream, peer, dialect, via, now),
            Err(error) => self.refuse(arrival, &Refusal::Unwatchable(error), now),
        }
    }

    /// Makes sure that there is a place for a connection of this peer.
    fn find_place(&mut self, peer: SocketAddr, now: Instant) -> Result<(), Refusal> {
        let (relay, scratch) = (&mut self.relay, &mut self.scratch);
        if relay.is_address_full(peer, self.lobby.placed_from(peer))
            && !relay.make_room(Some(peer), scratch, now)
            && !self.lobby.give_up_handshake_from(peer, now)
        {
            let limit = relay.limits().max_per_ip.unwrap_or_default();
            return Err(Refusal::AddressFull(limit));
        }
        let limit = relay.limits().max_clients;
        if relay.len() + self.lobby.placed() >= limit
            && !relay.make_room(None, scratch, now)
            && !self.lobby.give_up_handshake(now)
        {
            return Err(Refusal::RelayFull(limit));
        }
        Ok(())
    }

    /// Why a connection may not come in, as far as its own address shows it. Where a proxy may state its
    /// client's, that is known in the lobby.
    fn denial(&self, accepted: &AcceptedConnection<S::Stream>) -> Option<Denied> {
        let may_state_client = match accepted.via {
            Via::AdminSocket => true,
            Via::Network(preamble) => {
                let is_http = accepted.dialect.rules().sends.begins_with_http();
                preamble.proxy_header || (is_http && self.lobby.trusts(accepted.peer))
            }
        };
        if may_state_client {
            return None;
        }
        let access = &self.lobby.entrance.access;
        access.denial(accepted.peer.ip(), self.time_of_bans())
    }

    /// Gives a connection a place, or refuses it if there is none.
    fn give_place(
        &mut self,
        mut arrival: Arrival<S::Stream>,
        watch: impl FnOnce(&mut S, &mut S::Stream, Source) -> io::Result<()>,
        now: Instant,
    ) {
        let peer = arrival.peer;
        if let Err(refusal) = self.find_place(peer, now) {
            return self.refuse_place(arrival, &refusal, now);
        }
        let relay = &mut self.relay;
        let session = arrival.stream.session();
        let name = session.and_then(Session::client_name);
        let is_outdated = session
            .zip(self.certificates.as_ref())
            .is_some_and(|(session, certificates)| certificates.is_older(session));
        if let Some(name) = &name
            && !(1..=relay.limits().max_name).contains(&name.len())
        {
            let refusal = Refusal::CertificateName(name.as_slice().into());
            return self.refuse_place(arrival, &refusal, now);
        }
        let id = relay.next_id();
        let source = Source::Connection(id);
        match watch(&mut self.system, arrival.stream.socket_mut(), source) {
            Ok(()) => {
                let has_input = arrival.stream.admit_as(id);
                let (stream, dialect) = (arrival.stream, arrival.dialect);
                relay.insert_as(stream, peer, dialect, name.as_deref(), now);
                if let Some(certificates) = &mut self.certificates
                    && is_outdated
                {
                    certificates.check_again([id]);
                }
                if has_input {
                    relay.note(id, Ready::READABLE);
                }
            }
            Err(error) => self.refuse_place(arrival, &Refusal::Unwatchable(error), now),
        }
    }

    /// Closes a connection that would have a place if there were one.
    fn refuse_place(&mut self, mut arrival: Arrival<S::Stream>, refusal: &Refusal, now: Instant) {
        if arrival.dialect.rules().sends.is_web_socket() {
            // Its handshake was accepted. A browser reports nothing but the Close frame.
            let mut frame = Vec::new();
            websocket::encode_close(TRY_AGAIN_LATER, "no place is free", &mut frame);
            let _ = lobby::write_once(&mut arrival.stream, &frame);
        }
        self.refuse(arrival, refusal, now);
    }

    /// Closes a connection for which there is no place.
    fn refuse(&mut self, arrival: Arrival<S::Stream>, refusal: &Refusal, now: Instant) {
        let Arrival {
            mut stream, peer, ..
        } = arrival;
        // A socket that is closed with unread bytes sends a reset. So its name is read, if it was
        // received already; for one that comes at this very moment the peer has its FIN before that.
        stream.close_session();
        self.system.shutdown_write(stream.socket());
        let _ = stream.read(&mut self.scratch);
        self.count_refusal(peer, refusal, now);
    }

    /// Counts and logs a connection that is refused.
    fn count_refusal(&mut self, peer: SocketAddr, refusal: &Refusal, now: Instant) {
        self.relay.count_refused(1);
        self.refusals.count(refusal);
        self.log.refused(peer, refusal, now);
    }

    /// If the server stops: the members whose time has come leave, once everything was read that had
    /// been received before.
    fn dismiss_due(&mut self, now: Instant) {
        let Phase::Draining(drain) = &mut self.phase else {
            return;
        };
        if drain.is_reading() {
            let is_quiet = self.events.last == 0 && !self.events.was_interrupted;
            let is_read = is_quiet && !self.relay.has_ready() && !self.relay.has_held();
            if !is_read && now < drain.read_until() {
                return;
            }
            drain.schedule(self.relay.ids(), now, || self.system.random());
        }
        while !self.relay.is_turn_full()
            && let Some(id) = drain.next(now)
        {
            if let Some(stream) = self.relay.stream(id) {
                self.system.clear_notsent_lowat(stream.socket());
            }
            self.relay.dismiss(id, &mut self.scratch, now);
        }
    }

    /// Whether last words are on their way to other relays.
    fn is_bus_busy(&self) -> bool {
        let bus = self.bus.as_ref();
        bus.is_some_and(|bus| bus.is_busy(self.relay.bus_lag()))
    }

    /// Ends a drain in which all members have left, or that has no more time for it.
    fn finish_drain(&mut self, now: Instant) -> Turn {
        match &self.phase {
            Phase::Running => return Turn::Running,
            Phase::Draining(_) if self.relay.is_empty() && !self.is_bus_busy() => {}
            Phase::Draining(drain) if now < drain.until() => return Turn::Running,
            Phase::Draining(_) => self.log.drain_timed_out(self.relay.lagging()),
            Phase::Stopped => {}
        }
        self.phase = Phase::Stopped;
        self.relay.close_all(&mut self.scratch, now);
        self.log_events(now);
        let uptime = now.saturating_duration_since(self.started);
        self.log.stopped(uptime, self.relay.counters());
        Turn::Stopped
    }

    /// Ends the trace of this turn, and shows it to the watchers.
    fn show_turn(&mut self, now: Instant) {
        let Some(trace) = self.system.trace() else {
            return;
        };
        trace.end_turn(&self.relay, self.timeout(), self.system.now());
        let (lobby, relay) = (&mut self.lobby, &self.relay);
        trace.take_turn(|records| lobby.show_turn(records, || Trace::start(relay), now));
        trace.set_watched(lobby.watchers() > 0);
    }

    /// Remembers what the trace of this turn needs, if turns are traced.
    fn begin_trace(&mut self) -> Option<(Instant, Counters)> {
        let is_traced = self.log.traces_turns();
        is_traced.then(|| (self.system.now(), self.relay.counters().clone()))
    }

    /// Traces the turn.
    fn end_trace(&self, trace: Option<(Instant, Counters)>, polled_at: Instant) {
        let Some((began, before)) = trace else {
            return;
        };
        let waited = polled_at.saturating_duration_since(began);
        let turn = TurnTrace {
            number: self.stats.turns,
            polled: (waited, polled_at),
            events: self.events.last,
            before,
        };
        let now = self.system.now();
        self.log.turn(&turn, &self.relay, self.timeout(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_whose_members_are_silent_waits_for_ever() {
        let endpoint = Endpoint {
            dialect: crate::wire::Dialect::Chat10,
            addr: "127.0.0.1:0".parse().unwrap(),
        };
        let mut server = Server::bind(&Config::new(vec![endpoint])).unwrap();
        assert_eq!(server.timeout(), None);
        let addr = server.local_addrs().unwrap()[0];
        let mut peer = std::net::TcpStream::connect(addr).unwrap();
        while server.relay().is_empty() {
            server.turn(None).unwrap();
        }
        assert!(server.timeout().is_some(), "its name is due");
        io::Write::write_all(&mut peer, b"5         alice").unwrap();
        while server.relay().members().total() == 0 {
            server.turn(None).unwrap();
        }
        assert_eq!(server.timeout(), None, "nothing is due any more");
    }

    /// A server that greets, and whose ticks are an hour apart.
    fn greeter() -> Server {
        let endpoint = Endpoint {
            dialect: crate::wire::Dialect::Greet10,
            addr: "127.0.0.1:0".parse().unwrap(),
        };
        let mut config = Config::new(vec![endpoint]);
        config.every = Some(Duration::from_secs(3600));
        Server::bind(&config).unwrap()
    }

    /// A peer that the server has greeted.
    fn greeted(server: &mut Server) -> std::net::TcpStream {
        let addr = server.local_addrs().unwrap()[0];
        let mut peer = std::net::TcpStream::connect(addr).unwrap();
        while server.relay().members().total() == 0 || server.relay().has_ready() {
            server.turn(None).unwrap();
        }
        // So that a failure ends.
        peer.set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let greeting = b"22        Welcome to the server!";
        let mut received = vec![0; greeting.len()];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(received, greeting);
        peer
    }

    #[test]
    fn server_without_tick_members_waits_for_ever() {
        let mut server = greeter();
        assert_eq!(server.timeout(), None);
        let peer = greeted(&mut server);
        assert!(server.timeout().is_some(), "a tick is due");
        drop(peer);
        while !server.relay().is_empty() || server.relay().has_ready() {
            server.turn(None).unwrap();
        }
        assert_eq!(server.timeout(), None, "no member receives ticks");
    }

    #[test]
    fn tick_is_published_in_the_turn_in_which_it_is_due() {
        let mut server = greeter();
        let mut peer = greeted(&mut server);
        server.tick = Tick::new(Some(Duration::from_millis(1)));
        server.tick.set_running(true, Instant::now());
        server.turn(None).unwrap();
        let mut received = [0; 22];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(received[10..], *b"The time is ");
    }

    #[test]
    fn server_without_an_endpoint_does_not_start() {
        let error = Server::bind(&Config::new(Vec::new())).unwrap_err();
        assert!(matches!(error, StartError::NoEndpoint), "{error}");
        assert_eq!(error.to_string(), "there is no address to listen on");
    }

    #[test]
    fn listener_that_cannot_be_bound_says_why_and_what_to_do() {
        for (kind, says) in [
            (ErrorKind::AddrInUse, "the port is in use; stop"),
            (
                ErrorKind::PermissionDenied,
                "not permitted; ports below 1024",
            ),
            (
                ErrorKind::AddrNotAvailable,
                "not an address of this machine; use",
            ),
        ] {
            let addr = "127.0.0.1:80".parse().unwrap();
            let error = StartError::Listen(addr, kind.into()).to_string();
            let start = format!("cannot listen on 127.0.0.1:80: {says}");
            assert!(error.starts_with(&start), "{error}");
        }
    }
}
