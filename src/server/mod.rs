//! The event loop: mio's [`Poll`] around a [`Relay`].
//!
//! [`Server::run`] is a loop over [`Server::turn`]. A turn is one pass of the loop:
//!
//! ```text
//! poll          wait for events, or for the next deadline, or not at all if somebody is still ready
//! dispatch      note what each event says
//! serve_ready   write what was queued, read what there is, collect what is said
//! expire        act on the deadlines that have passed
//! fan_out       one write of all that was said in this turn to each member
//! close_marked  remove whom the turn has marked
//! take_signals  stop, or log who is here, if that was asked
//! accept        newcomers, into slots that are free by now
//! finish_drain  if stopping: is everything delivered?
//! ```
//!
//! **Why edge-triggered.** Each socket is registered once, for reading and writing, and never again.
//! With level triggering a loop that watches for writability would be woken for every idle socket
//! all the time, since an idle socket is always writable; so it has to add and take back that
//! interest, a system call each, whenever a queue begins and ends. An edge says "something changed"
//! once. The price is the duty to remember: what an edge has told and was not used up is told by
//! nobody again. Here that memory is a [`Ready`] in each connection and the relay's ready lists, and
//! every place that stops before "would block" says why it may.
//!
//! **Why accept last.** Slots are used again. A newcomer that is accepted after the turn's closing
//! cannot meet an event that was meant for its slot's previous owner, and one that outlives the
//! batch carries a generation that is nobody's ([`ConnId`]).

mod listener;
mod signals;
mod timers;

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use log::{debug, info, warn};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::relay::{ConnId, Limits, LimitsError, Ready, Relay, Wording};
use listener::{Accepted, Acceptor, Newcomer};
use signals::{Request, Signals};
use timers::{Timer, Timers};

pub use listener::Endpoint;

/// The token of the signals. Connections count up from 0, so the last tokens are never theirs.
const SIGNALS: Token = Token(usize::MAX);
/// The token of the first listener; the others count down from it.
const FIRST_LISTENER: Token = Token(usize::MAX - 1);

/// How many events one poll fetches. More than that wait for the next turn, and nobody starves: epoll
/// hands them out in the order in which they became ready.
const EVENTS: usize = 1024;

/// A newcomer that is late, but has sent something that waits for its turn, gets this much more.
const PUT_OFF: Duration = Duration::from_millis(100);

/// How long after one warning about refusals the next one is worth another.
const WARN_AGAIN: Duration = Duration::from_secs(10);

/// What a connection's events are about. Urgent data is among it where the system tells, because a
/// read stops early at it.
#[cfg(any(target_os = "linux", target_os = "android"))]
const INTEREST: Interest = Interest::READABLE
    .add(Interest::WRITABLE)
    .add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// What a server is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen, and for which protocol. At least one.
    pub listen: Vec<Endpoint>,
    /// The limits of the room and its connections.
    pub limits: Limits,
    /// The relay's own words, where they are to be others than the tutorials'.
    pub wording: Wording,
    /// How often to tell the time to those who hear it, if ever.
    pub every: Option<Duration>,
    /// How long a connection may be silent before the kernel probes whether its peer is alive.
    pub keepalive: Option<Duration>,
    /// How long a server that was asked to stop goes on delivering what is queued.
    pub drain: Duration,
}

impl Config {
    /// The defaults, listening on these endpoints.
    #[must_use]
    pub fn new(listen: Vec<Endpoint>) -> Self {
        Self {
            listen,
            limits: Limits::default(),
            wording: Wording::default(),
            every: Some(Duration::from_secs(3)),
            keepalive: Some(Duration::from_secs(60)),
            drain: Duration::from_secs(5),
        }
    }
}

/// Why a server could not start.
#[derive(Debug)]
pub enum StartError {
    /// The limits contradict each other.
    Limits(LimitsError),
    /// It cannot listen there.
    Listen(SocketAddr, io::Error),
    /// The system has no event queue for it.
    Poll(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limits(error) => error.fmt(f),
            Self::Listen(addr, error) => {
                write!(f, "cannot listen on {addr}: {}", listen_trouble(error))
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
pub struct Server {
    poll: Poll,
    acceptor: Acceptor,
    relay: Relay<TcpStream>,
    /// The one buffer that every connection is read into.
    scratch: Box<[u8]>,
    events: Events,
    timers: Timers,
    signals: Option<Signals>,
    phase: Phase,
    /// How often to tell the time.
    every: Option<Duration>,
    /// When to tell it next, if there was somebody to tell it to.
    time_due: Option<Instant>,
    drain: Duration,
    started: Instant,
    /// When the log was last told that the relay is full.
    warned_full: Option<Instant>,
}

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// It was asked to stop, and delivers what is queued.
    Draining {
        /// What has come by then is still relayed, if reading it takes so long.
        hear_until: Instant,
        /// What is not delivered by then will not be.
        until: Instant,
    },
    Stopped,
}

impl Server {
    /// Listens. Connections wait in the kernel's queue until the first turn.
    ///
    /// # Errors
    ///
    /// [`StartError`]: limits that contradict each other, an endpoint that cannot be listened on, or
    /// a system without descriptors.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        config.limits.check().map_err(StartError::Limits)?;
        let poll = Poll::new().map_err(StartError::Poll)?;
        let acceptor = Acceptor::bind(
            &config.listen,
            config.keepalive,
            poll.registry(),
            FIRST_LISTENER,
        )
        .map_err(|(endpoint, error)| StartError::Listen(endpoint.addr, error))?;
        let now = Instant::now();
        let served: Vec<_> = config.listen.iter().map(|one| one.dialect).collect();
        Ok(Self {
            poll,
            acceptor,
            relay: Relay::new(config.limits.clone(), &served, &config.wording, now),
            scratch: vec![0; config.limits.read_budget].into(),
            events: Events::with_capacity(EVENTS),
            timers: Timers::default(),
            signals: None,
            phase: Phase::Running,
            every: config.every,
            time_due: None,
            drain: config.drain,
            started: now,
            warned_full: None,
        })
    }

    /// From now on takes SIGTERM and SIGINT as requests to [`stop`](Self::stop), a second one as a
    /// request to stop at once, SIGUSR1 as a request to log who is here, and SIGHUP as nothing. The
    /// handlers are the process's, so this is for a program whose only server this is.
    ///
    /// # Errors
    ///
    /// If the system refuses the handlers or the pipe they write to.
    pub fn handle_signals(&mut self) -> io::Result<()> {
        self.signals = Some(Signals::install(self.poll.registry(), SIGNALS)?);
        Ok(())
    }

    /// The addresses that are listened on, in the order in which they were asked for.
    ///
    /// # Errors
    ///
    /// What the system says when it cannot tell.
    pub fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.acceptor.local_addrs()
    }

    /// The room.
    #[must_use]
    pub const fn relay(&self) -> &Relay<TcpStream> {
        &self.relay
    }

    /// Serves until it was asked to stop and has stopped.
    ///
    /// # Errors
    ///
    /// Only what polling itself says: no trouble with a connection gets here.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn(None)? == Turn::Running {}
        Ok(())
    }

    /// One turn of the loop. Waits for something to do, but not longer than `max_wait`.
    ///
    /// # Errors
    ///
    /// Only what polling itself says: no trouble with a connection gets here.
    pub fn turn(&mut self, max_wait: Option<Duration>) -> io::Result<Turn> {
        self.poll(max_wait)?;
        let now = Instant::now();
        let signalled = self.dispatch();
        self.relay.serve_ready(&mut self.scratch);
        self.expire(now);
        self.relay.fan_out();
        self.watch_leaving(now);
        if self.relay.close_marked(&mut self.scratch) > 0 {
            // Each has given back a descriptor.
            self.acceptor.retry();
        }
        if signalled {
            self.take_signals(now);
        }
        self.accept(now);
        Ok(self.finish_drain(now))
    }

    /// Asks the server to stop: it accepts nobody any more, reads and relays what has come already,
    /// delivers what is queued for as long as the configuration allows, and then stops. Asked a
    /// second time, it stops at once.
    pub fn stop(&mut self, asked_by: &str) {
        if self.phase != Phase::Running {
            info!("{asked_by} while stopping: stopping at once");
            self.phase = Phase::Stopped;
            return;
        }
        let now = Instant::now();
        let until = after(now, self.drain);
        self.phase = Phase::Draining {
            hear_until: after(now, self.drain / 2),
            until,
        };
        self.timers.set(until, Timer::DrainOver);
        self.acceptor.close();
        let here = self.relay.here();
        match self.relay.behind() {
            0 => info!("{asked_by}: stopping, {here}, nothing queued"),
            behind => info!(
                "{asked_by}: stopping, {here}, {behind} of them behind, {} bytes queued; \
                 they have {} to take them",
                self.relay.awaited_bytes(),
                humantime::format_duration(self.drain)
            ),
        }
    }

    fn poll(&mut self, max_wait: Option<Duration>) -> io::Result<()> {
        let timeout = match (self.timeout(), max_wait) {
            (Some(timeout), Some(max_wait)) => Some(timeout.min(max_wait)),
            (timeout, max_wait) => timeout.or(max_wait),
        };
        match self.poll.poll(&mut self.events, timeout) {
            // A signal came that is nobody's request. The turn just has no events.
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            polled => polled,
        }
    }

    /// How long the poll may wait: not at all while somebody is ready, else until the next deadline,
    /// and for ever if there is none.
    fn timeout(&mut self) -> Option<Duration> {
        let is_over = match self.phase {
            Phase::Running => false,
            Phase::Draining { .. } => self.relay.is_flushed(),
            Phase::Stopped => true,
        };
        if is_over || self.relay.has_ready() || self.acceptor.has_ready() {
            return Some(Duration::ZERO);
        }
        let (relay, acceptor) = (&self.relay, &self.acceptor);
        let is_running = self.phase == Phase::Running;
        let next = self.timers.next(|timer| match timer {
            Timer::Handshake(id) => is_running && relay.awaits_name(id),
            Timer::Leaving(id, _) => relay.is_leaving(id),
            Timer::TellTime => is_running && relay.has_audience(),
            Timer::AcceptAgain => acceptor.is_waiting(),
            Timer::DrainOver => !is_running,
        })?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Notes what each event says; what is to be done about it is done when the whole batch is known.
    /// Says whether a signal came, which is dealt with at the end of the turn.
    fn dispatch(&mut self) -> bool {
        let mut signalled = false;
        for event in &self.events {
            match event.token() {
                SIGNALS => signalled = true,
                // With n listeners, theirs are the n tokens that end with the first one's.
                Token(token) if token > FIRST_LISTENER.0 - self.acceptor.len() => {
                    self.acceptor.note(FIRST_LISTENER.0 - token);
                }
                Token(id) => self.relay.note(ConnId::from(id), readiness(event)),
            }
        }
        signalled
    }

    fn take_signals(&mut self, now: Instant) {
        let requests: Vec<_> = match &mut self.signals {
            Some(signals) => signals.pending().collect(),
            None => return,
        };
        for request in requests {
            match request {
                Request::Stop(signal) => self.stop(signal),
                Request::Roster => self.log_roster(now),
                Request::Reload => info!("SIGHUP: there is no configuration to reload"),
            }
        }
    }

    /// Logs who is here.
    fn log_roster(&self, now: Instant) {
        let relay = &self.relay;
        info!(
            "SIGUSR1: {}, {} without a name; {} behind, {} bytes held",
            relay.here(),
            relay.unnamed(),
            relay.behind(),
            relay.backlog_bytes(),
        );
        for line in relay.roster(now).lines() {
            info!("{line}");
        }
    }

    /// Acts on the timers that are due.
    fn expire(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Handshake(id) => {
                    if self.phase == Phase::Running && self.relay.expire_handshake(id) {
                        self.timers.set(after(now, PUT_OFF), timer);
                    }
                }
                Timer::Leaving(id, pending) => {
                    if let Some(pending) = self.relay.expire_leaving(id, pending) {
                        self.watch(id, pending, now);
                    }
                }
                Timer::TellTime => self.tell_time(now),
                Timer::AcceptAgain => self.acceptor.retry(),
                // The end of the turn looks at the clock itself.
                Timer::DrainOver => {}
            }
        }
    }

    /// Tells the time if it is due, and sets the next time for it.
    fn tell_time(&mut self, now: Instant) {
        let (Some(every), Some(due)) = (self.every, self.time_due) else {
            return;
        };
        // A timer of an audience that has left since may come early.
        if due > now {
            return;
        }
        self.time_due = None;
        if self.phase == Phase::Running && self.relay.has_audience() {
            self.relay.tell_time(SystemTime::now());
            // In step, unless we are late by more than that.
            let in_step = Some(after(due, every)).filter(|&next| next > now);
            self.expect_time(in_step.unwrap_or_else(|| after(now, every)));
        }
    }

    fn expect_time(&mut self, due: Instant) {
        self.time_due = Some(due);
        self.timers.set(due, Timer::TellTime);
    }

    /// Sees to it that those who leave do not take for ever to be sent what is queued for them.
    fn watch_leaving(&mut self, now: Instant) {
        for id in self.relay.take_leaving() {
            self.watch(id, self.relay.pending_bytes(id), now);
        }
    }

    fn watch(&mut self, id: ConnId, pending: u64, now: Instant) {
        let deadline = after(now, self.relay.limits().farewell_timeout);
        self.timers.set(deadline, Timer::Leaving(id, pending));
    }

    /// Takes in newcomers, up to the turn's budget.
    fn accept(&mut self, now: Instant) {
        let mut may_evict = true;
        for _ in 0..self.relay.limits().accept_budget {
            match self.acceptor.accept(now) {
                Accepted::Connection(newcomer) => self.admit(newcomer, now),
                Accepted::Nobody => return,
                Accepted::Shortage {
                    retry_at,
                    turned_away,
                } => {
                    self.relay.count_refused(turned_away);
                    self.timers.set(retry_at, Timer::AcceptAgain);
                    // One at a time: under a limit that was lowered, it may not help.
                    if !mem::take(&mut may_evict)
                        || !self.relay.evict_half_closed(&mut self.scratch)
                    {
                        return;
                    }
                    self.acceptor.retry();
                }
            }
        }
    }

    /// Gives a newcomer a place, or closes it if there is none.
    fn admit(&mut self, newcomer: Newcomer, now: Instant) {
        let Newcomer {
            mut stream,
            peer,
            dialect,
        } = newcomer;
        if self.relay.is_full() && !self.relay.evict_half_closed(&mut self.scratch) {
            return self.refuse(stream, peer, now);
        }
        let id = self.relay.next_id();
        // Once, for everything, and never again: see the module's "why edge-triggered". Where epoll
        // or kqueue is the selector, closing the socket takes the registration back.
        let token = Token(id.into());
        if let Err(error) = self.poll.registry().register(&mut stream, token, INTEREST) {
            warn!("refused: {peer}: the system cannot watch one more connection: {error}");
            return self.relay.count_refused(1);
        }
        let had_audience = self.relay.has_audience();
        self.relay.insert(stream, peer, dialect, now);
        if let Some(every) = self.every
            && !had_audience
            && self.relay.has_audience()
        {
            self.expect_time(after(now, every));
        }
        if self.relay.awaits_name(id) {
            let deadline = after(now, self.relay.limits().handshake_timeout);
            self.timers.set(deadline, Timer::Handshake(id));
        }
        self.watch_leaving(now);
        let relay = &self.relay;
        let watched = relay.len() - relay.members() + relay.leaving();
        self.timers.sweep(watched, |timer| match timer {
            Timer::Handshake(id) => relay.awaits_name(id),
            Timer::Leaving(id, _) => relay.is_leaving(id),
            Timer::TellTime | Timer::AcceptAgain | Timer::DrainOver => true,
        });
    }

    /// Turns a newcomer away because the relay is full. Only once in a while is that worth a warning,
    /// or the log would tell of nothing else.
    fn refuse(&mut self, mut stream: TcpStream, peer: SocketAddr, now: Instant) {
        // If its name has come already, it is read, for the reason that `close_marked` has.
        let _ = stream.read(&mut self.scratch);
        self.relay.count_refused(1);
        let places = self.relay.limits().max_clients;
        let warned = self.warned_full;
        if warned.is_none_or(|warned| now.duration_since(warned) >= WARN_AGAIN) {
            self.warned_full = Some(now);
            warn!("refused: {peer}: all {places} places are taken (limit: --max-clients)");
        } else {
            debug!("refused: {peer}: all {places} places are taken (limit: --max-clients)");
        }
    }

    /// Ends a drain that has delivered everything or has no more time for it.
    fn finish_drain(&mut self, now: Instant) -> Turn {
        if let Phase::Draining { hear_until, .. } = self.phase
            && (!self.relay.has_ready() || now >= hear_until)
        {
            self.relay.stop_hearing();
        }
        match self.phase {
            Phase::Running => return Turn::Running,
            Phase::Draining { until, .. } if self.relay.hears() || !self.relay.is_flushed() => {
                if now < until {
                    return Turn::Running;
                }
                warn!(
                    "{} did not take what was queued for them in time (limit: --drain)",
                    self.relay.behind()
                );
            }
            Phase::Draining { .. } | Phase::Stopped => {}
        }
        self.phase = Phase::Stopped;
        self.relay.close_all(&mut self.scratch);
        let uptime = Duration::from_secs(self.started.elapsed().as_secs());
        info!(
            "stopped after {}: {}",
            humantime::format_duration(uptime),
            self.relay.counters()
        );
        Turn::Stopped
    }
}

/// The time that is so much later; if there is no such time, one that is later than anybody waits.
fn after(now: Instant, duration: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    now.checked_add(duration).unwrap_or_else(|| now + CENTURY)
}

/// What an event says of a connection.
fn readiness(event: &Event) -> Ready {
    let mut ready = Ready::default();
    if event.is_readable() || event.is_error() {
        ready.insert(Ready::READABLE);
    }
    if event.is_writable() {
        ready.insert(Ready::WRITABLE);
    }
    if event.is_read_closed() || event.is_priority() {
        ready.insert(Ready::READABLE | Ready::READ_TO_END);
    }
    if event.is_write_closed() {
        // Nothing is concluded from this before everything was read.
        ready.insert(Ready::READABLE | Ready::HUNG_UP);
    }
    ready
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_members_are_silent_waits_for_ever() {
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
        while server.relay().members() == 0 {
            server.turn(None).unwrap();
        }
        assert_eq!(server.timeout(), None, "nothing is due any more");
    }

    /// A server that greets and tells the time every hour.
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
        while server.relay().members() == 0 || server.relay().has_ready() {
            server.turn(None).unwrap();
        }
        // So that a failure ends.
        peer.set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let greeting = b"22        Welcome to the server!";
        let mut heard = vec![0; greeting.len()];
        peer.read_exact(&mut heard).unwrap();
        assert_eq!(heard, greeting);
        peer
    }

    #[test]
    fn a_server_without_anybody_to_tell_the_time_waits_for_ever() {
        let mut server = greeter();
        assert_eq!(server.timeout(), None);
        let peer = greeted(&mut server);
        assert!(server.timeout().is_some(), "the time is due");
        // With a reset, since a FIN alone leaves open whether it still listens.
        let peer = socket2::Socket::from(peer);
        peer.set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        while server.relay().members() > 0 || server.relay().has_ready() {
            server.turn(None).unwrap();
        }
        assert_eq!(server.timeout(), None, "nobody is there to be told");
    }

    #[test]
    fn the_time_is_told_in_the_turn_in_which_it_is_due() {
        let mut server = greeter();
        let mut peer = greeted(&mut server);
        server.expect_time(Instant::now());
        server.turn(None).unwrap();
        let mut heard = [0; 22];
        peer.read_exact(&mut heard).unwrap();
        assert_eq!(heard[10..], *b"The time is ");
        let next = server.timeout().expect("the time is due again");
        assert!(next > Duration::from_secs(3000), "in an hour");
    }

    #[test]
    fn a_timer_of_an_audience_that_has_left_tells_nobody_the_time() {
        let mut server = greeter();
        let _peer = greeted(&mut server);
        let due = server.time_due;
        server.timers.set(Instant::now(), Timer::TellTime);
        server.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(server.time_due, due);
        assert_eq!(server.relay().counters().bytes_out, 32, "the greeting");
    }

    #[test]
    fn a_listener_that_cannot_be_says_why_and_what_to_do() {
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
