//! The event loop: mio's [`Poll`](mio::Poll) around a [`Relay`].
//!
//! [`Server::run`] is a loop over [`Server::turn`]. A turn is one pass of the loop:
//!
//! ```text
//! poll          wait for events, or for the next deadline, or not at all if somebody is still ready
//! dispatch      note what each event says
//! serve_ready   write what was queued, read what there is, collect what is said
//! expire        act on the deadlines that have passed
//! let_go        if stopping: whose time has come
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
//! nobody again. Here that memory is a [`Ready`](crate::relay::Ready) in each connection and the relay's ready lists, and
//! every place that stops before "would block" says why it may.
//!
//! **Why accept last.** Slots are used again. A newcomer that is accepted after the turn's closing
//! cannot meet an event that was meant for its slot's previous owner, and one that outlives the
//! batch carries a generation that is nobody's ([`ConnId`](crate::relay::ConnId)).

mod acceptor;
mod drain;
mod inherited;
mod listener;
mod signals;
mod system;
mod timers;

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::relay::{Deadline, Limits, LimitsError, Rate, Relay, Seldom, Wording, after};
use acceptor::{Accepted, Acceptor, Newcomer};
use drain::Drain;
use timers::{Timer, Timers};

pub use inherited::Inherited;
pub use listener::Endpoint;
pub use system::{Event, Kernel, Request, System};

/// What a server is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen, and for which protocol. At least one, unless sockets are inherited.
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
    /// There is nothing to listen on, so no client could ever connect.
    NoEndpoint,
    /// It cannot listen there.
    Listen(SocketAddr, io::Error),
    /// The system has no event queue for it.
    Poll(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limits(error) => error.fmt(f),
            Self::NoEndpoint => f.write_str("there is no address to listen on"),
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
pub struct Server<S: System = Kernel> {
    system: S,
    acceptor: Acceptor<S::Stream>,
    relay: Relay<S::Stream>,
    /// The one buffer that every connection is read into.
    scratch: Box<[u8]>,
    timers: Timers,
    phase: Phase,
    /// How often to tell the time.
    every: Option<Duration>,
    /// When to tell it next, if there was somebody to tell it to.
    time_due: Option<Instant>,
    drain: Duration,
    started: Instant,
    /// The log's warning that somebody was refused.
    refusal_line: Seldom,
    /// Whether the last poll has brought nothing.
    is_quiet: bool,
    /// How many events were told since all was last known to be.
    told: usize,
}

/// Where a server is in its life.
#[derive(Debug)]
enum Phase {
    Running,
    /// It was asked to stop, and lets its members go.
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

    /// Listens as [`bind`](Self::bind) does, and serves what is `inherited` besides.
    ///
    /// # Errors
    ///
    /// As for [`bind`](Self::bind).
    pub fn bind_with(config: &Config, inherited: Vec<Inherited>) -> Result<Self, StartError> {
        config.limits.check().map_err(StartError::Limits)?;
        let mut kernel = Kernel::new(config.keepalive).map_err(StartError::Poll)?;
        let others = inherited.iter().map(Inherited::endpoint);
        let all: Vec<_> = config.listen.iter().copied().chain(others).collect();
        for endpoint in &config.listen {
            kernel
                .listen(endpoint, &all)
                .map_err(|error| StartError::Listen(endpoint.addr, error))?;
        }
        for socket in inherited {
            let addr = socket.endpoint().addr;
            kernel
                .take_over(socket)
                .map_err(|error| StartError::Listen(addr, error))?;
        }
        Self::serving(&all, kernel, config)
    }

    /// From now on takes SIGTERM and SIGINT as requests to [`stop`](Self::stop), a second one as a
    /// request to stop at once, and SIGUSR1 as a request to log who is here. SIGHUP means that the
    /// process's terminal was closed, if it `has_terminal`: a request to stop, but never at once.
    /// Otherwise it is logged and changes nothing. The handlers are the process's, so this is for a
    /// program whose only server this is.
    ///
    /// # Errors
    ///
    /// If the system refuses the handlers or the pipe they write to.
    pub fn handle_signals(&mut self, has_terminal: bool) -> io::Result<()> {
        self.system.handle_signals(has_terminal)
    }

    /// The addresses that are listened on, in the order in which they were asked for, those of
    /// inherited sockets last.
    ///
    /// # Errors
    ///
    /// What the system says when it cannot tell.
    pub fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.system.local_addrs()
    }
}

impl<S: System> Server<S> {
    /// A server on a system that listens already: for each endpoint, its listener of the same index.
    ///
    /// # Errors
    ///
    /// [`StartError::Limits`] and [`StartError::NoEndpoint`].
    pub fn on(system: S, config: &Config) -> Result<Self, StartError> {
        Self::serving(&config.listen, system, config)
    }

    fn serving(endpoints: &[Endpoint], mut system: S, config: &Config) -> Result<Self, StartError> {
        config.limits.check().map_err(StartError::Limits)?;
        if endpoints.is_empty() {
            return Err(StartError::NoEndpoint);
        }
        let now = system.now();
        let served: Vec<_> = endpoints.iter().map(|one| one.dialect).collect();
        Ok(Self {
            acceptor: Acceptor::new(
                served.iter().copied(),
                config.limits.accept_rate.map(Rate::new),
                &mut system,
            ),
            system,
            relay: Relay::new(config.limits.clone(), &served, &config.wording, now),
            scratch: vec![0; config.limits.read_budget].into(),
            timers: Timers::default(),
            phase: Phase::Running,
            every: config.every,
            time_due: None,
            drain: config.drain,
            started: now,
            refusal_line: Seldom::default(),
            is_quiet: false,
            told: 0,
        })
    }

    /// The room.
    #[must_use]
    pub const fn relay(&self) -> &Relay<S::Stream> {
        &self.relay
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
        let interrupted = self.poll(max_wait)?;
        let now = self.system.now();
        let signalled = self.dispatch() || interrupted;
        // A look that was cut short has not seen that there is nothing.
        self.is_quiet &= !interrupted;
        self.relay.serve_ready(&mut self.scratch, now);
        if self.has_heard_all() {
            self.expire(now);
        }
        self.let_go(now);
        self.relay.fan_out();
        if self.relay.close_marked(&mut self.scratch) > 0 {
            // Each has given back a descriptor.
            self.acceptor.retry();
        }
        if signalled {
            self.take_signals(now);
        }
        self.accept(now);
        let turn = self.finish_drain(now);
        self.set_deadlines();
        Ok(turn)
    }

    /// Asks the server to stop: it accepts nobody any more, reads and relays what has come already,
    /// lets its members go one after the other, each with all that was said until then, for as long as
    /// the configuration allows, and then stops. Asked a second time, it stops at once.
    pub fn stop(&mut self, asked_by: &str) {
        if !matches!(self.phase, Phase::Running) {
            info!("{asked_by} while stopping: stopping at once");
            self.phase = Phase::Stopped;
            return;
        }
        let drain = Drain::new(self.system.now(), self.drain);
        self.timers.set(drain.hear_until(), Timer::Drain);
        self.timers.set(drain.until(), Timer::Drain);
        self.phase = Phase::Draining(drain);
        self.relay.end_rests();
        self.acceptor.close();
        self.system.close_listeners();
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

    /// Waits for events. Says whether a signal cut that short: the turn then just has no events.
    ///
    /// A signal that is a request has its event as well. But without memory for that byte the system
    /// would drop it, and this may be all that tells of the request before somebody speaks again.
    fn poll(&mut self, max_wait: Option<Duration>) -> io::Result<bool> {
        let timeout = match (self.timeout(), max_wait) {
            (Some(timeout), Some(max_wait)) => Some(timeout.min(max_wait)),
            (timeout, max_wait) => timeout.or(max_wait),
        };
        match self.system.poll(timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            polled => polled.map(|()| false),
        }
    }

    /// How long the poll may wait: not at all while somebody is ready, else until the next deadline,
    /// and for ever if there is none.
    fn timeout(&mut self) -> Option<Duration> {
        let must_look = match &self.phase {
            Phase::Running => false,
            // One look that finds nothing tells that all was heard.
            Phase::Draining(drain) => drain.is_hearing() && !self.relay.has_parked(),
            Phase::Stopped => true,
        };
        if must_look || self.relay.has_ready() || self.acceptor.has_ready() {
            return Some(Duration::ZERO);
        }
        let next = self.timers.next(is_needed(
            &self.relay,
            &self.acceptor,
            matches!(self.phase, Phase::Running),
        ))?;
        Some(next.saturating_duration_since(self.system.now()))
    }

    /// Notes what each event says; what is to be done about it is done when the whole batch is known.
    /// Says whether a signal came, which is dealt with at the end of the turn.
    fn dispatch(&mut self) -> bool {
        let mut signalled = false;
        self.is_quiet = true;
        for event in self.system.events() {
            self.is_quiet = false;
            self.told += 1;
            match event {
                Event::Signal => signalled = true,
                Event::Newcomers(listener) => self.acceptor.note(listener),
                Event::Connection(id, ready) => self.relay.note(id, ready),
            }
        }
        signalled
    }

    /// Whether all was told that had happened: who is late by the clock may have been in time, and the
    /// next poll tells. That can be so after as many polls as it takes to tell of all.
    fn has_heard_all(&mut self) -> bool {
        let has_heard_all = !self.system.has_more() || self.told > self.relay.len();
        if has_heard_all {
            self.told = 0;
        }
        has_heard_all
    }

    fn take_signals(&mut self, now: Instant) {
        for request in self.system.requests() {
            match request {
                Request::Stop(signal) => self.stop(signal),
                Request::HangUp if self.is_stopping() => {}
                Request::HangUp => self.stop("SIGHUP"),
                Request::Roster => self.log_roster(now),
                Request::Reload => info!("SIGHUP: there is no configuration to reload"),
            }
        }
    }

    /// Logs who is here.
    fn log_roster(&self, now: Instant) {
        let relay = &self.relay;
        info!(
            "SIGUSR1: {}, {} without a name; {} behind, {} bytes held{}",
            relay.here(),
            relay.unnamed(),
            relay.behind(),
            relay.held_bytes(),
            if relay.is_waiting() {
                "; the room waits"
            } else {
                ""
            },
        );
        for line in relay.roster(now).lines() {
            info!("{line}");
        }
    }

    /// Acts on the timers that are due.
    fn expire(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Relay(deadline) => self.relay.expire(deadline, now),
                Timer::TellTime => self.tell_time(now),
                Timer::AcceptAgain => self.acceptor.retry(),
                // The turn looks at the clock itself.
                Timer::Drain => {}
            }
        }
    }

    /// Sets the timers for what the relay has to look at.
    fn set_deadlines(&mut self) {
        for (at, deadline) in self.relay.take_deadlines() {
            self.timers.set(at, Timer::Relay(deadline));
        }
        let is_running = matches!(self.phase, Phase::Running);
        self.timers
            .sweep(is_needed(&self.relay, &self.acceptor, is_running));
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
        if matches!(self.phase, Phase::Running) && self.relay.has_audience() {
            self.relay.tell_time(self.system.time_of_day());
            // In step, unless we are late by more than that.
            let in_step = Some(after(due, every)).filter(|&next| next > now);
            self.expect_time(in_step.unwrap_or_else(|| after(now, every)));
        }
    }

    fn expect_time(&mut self, due: Instant) {
        self.time_due = Some(due);
        self.timers.set(due, Timer::TellTime);
    }

    /// Takes in newcomers, up to the turn's budget.
    fn accept(&mut self, now: Instant) {
        let mut may_evict = true;
        for _ in 0..self.relay.limits().accept_budget {
            match self.acceptor.accept(&mut self.system, now) {
                Accepted::Connection(newcomer) => self.admit(newcomer, now),
                Accepted::Nobody => return,
                Accepted::Shortage {
                    retry_at,
                    turned_away,
                } => {
                    self.relay.count_refused(turned_away);
                    self.timers.set(retry_at, Timer::AcceptAgain);
                    // One at a time: under a limit that was lowered, it may not help.
                    if !mem::take(&mut may_evict) || !self.relay.make_room(&mut self.scratch) {
                        return;
                    }
                    self.acceptor.retry();
                }
                Accepted::Early { retry_at } => {
                    self.timers.set(retry_at, Timer::AcceptAgain);
                    return;
                }
            }
        }
    }

    /// Gives a newcomer a place, or closes it if there is none.
    fn admit(&mut self, newcomer: Newcomer<S::Stream>, now: Instant) {
        let Newcomer {
            mut stream,
            peer,
            dialect,
        } = newcomer;
        if self.relay.is_crowded(peer) && !self.relay.make_room_from(peer, &mut self.scratch) {
            let limit = self.relay.limits().max_per_ip.unwrap_or_default();
            let why = format_args!("{limit} come from there already (limit: --max-per-ip)");
            return self.refuse(stream, peer, now, why);
        }
        if self.relay.is_full() && !self.relay.make_room(&mut self.scratch) {
            let places = self.relay.limits().max_clients;
            let why = format_args!("all {places} places are taken (limit: --max-clients)");
            return self.refuse(stream, peer, now, why);
        }
        let id = self.relay.next_id();
        if let Err(error) = self.system.watch(&mut stream, id) {
            let why = format_args!("the system cannot watch one more connection: {error}");
            return self.refuse(stream, peer, now, why);
        }
        let had_audience = self.relay.has_audience();
        self.relay.insert(stream, peer, dialect, now);
        if let Some(every) = self.every
            && !had_audience
            && self.relay.has_audience()
        {
            self.expect_time(after(now, every));
        }
    }

    /// Turns a newcomer away. Only once in a while is that worth a warning, or the log would tell of
    /// nothing else.
    fn refuse(
        &mut self,
        mut stream: S::Stream,
        peer: SocketAddr,
        now: Instant,
        why: fmt::Arguments<'_>,
    ) {
        // If its name has come already, it is read, for the reason that `close_marked` has.
        let _ = stream.read(&mut self.scratch);
        self.relay.count_refused(1);
        if self.refusal_line.is_due(now) {
            warn!("refused: {peer}: {why}");
        } else {
            debug!("refused: {peer}: {why}");
        }
    }

    /// If the server stops: lets those go whose time has come, once all was heard that had come before.
    fn let_go(&mut self, now: Instant) {
        let Phase::Draining(drain) = &mut self.phase else {
            return;
        };
        if drain.is_hearing() {
            let is_heard = self.is_quiet && !self.relay.has_ready() && !self.relay.has_parked();
            if !is_heard && now < drain.hear_until() {
                return;
            }
            drain.begin(self.relay.ids(), now, || self.system.random());
        }
        while !self.relay.has_said_enough()
            && let Some(id) = drain.next(now)
        {
            if let Some(stream) = self.relay.stream(id) {
                self.system.lift_send_limit(stream);
            }
            self.relay.dismiss(id, &mut self.scratch);
        }
        if let Some(at) = drain.next_at() {
            self.timers.set(at, Timer::Drain);
        }
    }

    /// Ends a drain that has let everybody go, or has no more time for it.
    fn finish_drain(&mut self, now: Instant) -> Turn {
        match &self.phase {
            Phase::Running => return Turn::Running,
            Phase::Draining(_) if self.relay.is_empty() => {}
            Phase::Draining(drain) if now < drain.until() => return Turn::Running,
            Phase::Draining(_) => warn!(
                "{} did not take what was queued for them in time (limit: --drain)",
                self.relay.behind()
            ),
            Phase::Stopped => {}
        }
        self.phase = Phase::Stopped;
        self.relay.close_all(&mut self.scratch);
        let uptime = now.saturating_duration_since(self.started).as_secs();
        info!(
            "stopped after {}: {}",
            humantime::format_duration(Duration::from_secs(uptime)),
            self.relay.counters()
        );
        Turn::Stopped
    }
}

/// Says whether there still is a reason for a timer.
fn is_needed<S>(
    relay: &Relay<S>,
    acceptor: &Acceptor<S>,
    is_running: bool,
) -> impl Fn(Timer) -> bool {
    move |timer| match timer {
        // Who has no name by now will not need one.
        Timer::Relay(Deadline::Name(_)) if !is_running => false,
        Timer::Relay(deadline) => relay.is_pending(deadline),
        Timer::TellTime => is_running && relay.has_audience(),
        Timer::AcceptAgain => acceptor.is_waiting(),
        Timer::Drain => !is_running,
    }
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
    fn server_without_an_endpoint_does_not_start() {
        let error = Server::bind(&Config::new(Vec::new())).unwrap_err();
        assert!(matches!(error, StartError::NoEndpoint), "{error}");
        assert_eq!(error.to_string(), "there is no address to listen on");
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
