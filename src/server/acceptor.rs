//! Accepting connections, whatever fails.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::listener::{LISTEN_BACKLOG, Via};
use super::log::ServerLog;
use super::system::System;
use crate::relay::Rate;
use crate::wire::Dialect;

/// How long until accepting is tried again while there is no descriptor.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How long a shortage of descriptors lasts before the connections that wait are refused. Most shortages
/// end sooner, when a member leaves; and no client must hang for ever.
const MAX_SHORTAGE: Duration = Duration::from_secs(1);

/// How many calls of `accept` may fail in a row before the turn goes on.
const MAX_ATTEMPTS: usize = 64;

/// A `Listener` is the acceptor's state for one listening socket.
#[derive(Debug)]
struct Listener {
    /// The protocol of the connections that come in here.
    dialect: Dialect,
    via: Via,
    /// An edge came, and we have not seen the queue empty since.
    ready: bool,
    is_closed: bool,
}

/// All listening sockets and the state of accepting from them.
///
/// Under edge triggering two things can go wrong here that never show in a test on a quiet machine.
///
/// **Too many at once.** Accepting stops after a budget although the kernel's queue is not empty. So
/// a listener stays *ready* until its queue was found empty, and the loop comes back to it.
///
/// **Out of descriptors.** `accept` fails with `EMFILE`, and the connection stays in the queue. A
/// level-triggered loop would spin on that; an edge-triggered one loses a wake-up, because the edge was
/// spent and the next comes only with the next connection. Nor does `EMFILE` mean that a connection
/// waits: Linux looks for a descriptor before it looks at the queue. So one descriptor is kept in
/// reserve, and closed to see if one waits. If none does, the reserve is opened again. If one does, it is
/// *held* in the reserve's place, and a timeout brings the loop back. Once there is a descriptor again,
/// it becomes the reserve, and the held connection is let in. If that takes too long, the held
/// connection is refused, and so are those behind it.
///
/// **Faster than allowed.** With an accept rate, connections that come too soon wait in the kernel's
/// queue, and a timeout brings the loop back as well.
#[derive(Debug)]
pub(super) struct Acceptor<S> {
    listeners: Vec<Listener>,
    /// The listener to accept from next, so that a flood at one does not shut out the others.
    next: usize,
    /// Whether there is a descriptor in reserve.
    has_reserve: bool,
    shortage: Option<Shortage<S>>,
    rate: Option<Rate>,
    /// When the rate allows to accept again.
    free_at: Option<Instant>,
    /// Nothing is tried before that.
    is_early: bool,
}

/// A time without descriptors: from the first connection for which there is none until none waits.
#[derive(Debug)]
struct Shortage<S> {
    since: Instant,
    held: Option<AcceptedConnection<S>>,
    /// Nothing is tried before the timeout, unless a descriptor was closed.
    is_waiting: bool,
    refused: u64,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct AcceptedConnection<S> {
    pub(super) stream: S,
    pub(super) peer: SocketAddr,
    pub(super) dialect: Dialect,
    pub(super) via: Via,
}

/// What an attempt to accept came to.
#[derive(Debug)]
pub(super) enum Accepted<S> {
    /// A connection.
    Connection(AcceptedConnection<S>),
    /// No connection waits, or none can be accepted before something changes.
    Nothing,
    /// Connections wait and there is no descriptor.
    Shortage {
        /// When to try again.
        retry_at: Instant,
        /// How many connections had waited too long and were refused just now.
        refused: u64,
    },
    /// The accept rate does not allow one more yet.
    TooEarly {
        /// When to try again.
        retry_at: Instant,
    },
}

impl<S> Acceptor<S> {
    /// Accepts from listeners of these dialects, at no more than this rate.
    pub(super) fn new(
        listeners: impl IntoIterator<Item = (Dialect, Via)>,
        rate: Option<Rate>,
        system: &mut impl System<Stream = S>,
    ) -> Self {
        let listener = |(dialect, via)| Listener {
            dialect,
            via,
            ready: false,
            is_closed: false,
        };
        Self {
            listeners: listeners.into_iter().map(listener).collect(),
            next: 0,
            has_reserve: system.open_reserve(),
            shortage: None,
            rate,
            free_at: None,
            is_early: false,
        }
    }

    /// Notes that connections wait at the listener of this index.
    pub(super) fn note(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.ready = !listener.is_closed;
        }
    }

    /// Whether accepting can go on without waiting for anything.
    pub(super) fn has_ready(&self) -> bool {
        !self.is_waiting() && self.listeners.iter().any(|listener| listener.ready)
    }

    /// Whether accepting waits for a descriptor, or for its time.
    pub(super) fn is_waiting(&self) -> bool {
        let is_short = |shortage: &Shortage<S>| shortage.is_waiting;
        self.is_early || self.shortage.as_ref().is_some_and(is_short)
    }

    /// Ends the waiting: the timeout has come, or a descriptor was closed.
    pub(super) const fn retry(&mut self) {
        self.is_early = false;
        if let Some(shortage) = &mut self.shortage {
            shortage.is_waiting = false;
        }
    }

    /// Closes the listeners of the room. The relay's metrics can be asked for until the end.
    pub(super) fn close(&mut self, system: &mut impl System<Stream = S>) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if listener.dialect != Dialect::Metrics {
                listener.is_closed = true;
                listener.ready = false;
                system.close_listener(index);
            }
        }
        self.shortage = None;
        self.is_early = false;
    }

    /// Accepts the next connection.
    pub(super) fn accept(
        &mut self,
        system: &mut impl System<Stream = S>,
        log: &mut ServerLog,
        now: Instant,
    ) -> Accepted<S> {
        if self.is_waiting() {
            return Accepted::Nothing;
        }
        if let Some(retry_at) = self.free_at.filter(|&free_at| free_at > now)
            && self.has_ready()
        {
            self.is_early = true;
            log.accept_rate_reached(now);
            return Accepted::TooEarly { retry_at };
        }
        let accepted = self.accept_in_time(system, log, now);
        if let (Some(rate), Accepted::Connection(_)) = (self.rate, &accepted) {
            self.free_at = Some(rate.spend(self.free_at, now, 1));
        }
        accepted
    }

    fn accept_in_time(
        &mut self,
        system: &mut impl System<Stream = S>,
        log: &mut ServerLog,
        now: Instant,
    ) -> Accepted<S> {
        if !self.has_reserve && (self.shortage.is_some() || self.has_ready()) {
            self.has_reserve = system.open_reserve();
        }
        if let Some(shortage) = &mut self.shortage {
            if !self.has_reserve {
                return self.wait(system, now);
            }
            if let Some(held) = shortage.held.take() {
                return Accepted::Connection(held);
            }
        }
        // An error about one connection is no reason to stop, but a row of them is none to stay either.
        for _ in 0..MAX_ATTEMPTS {
            let Some(index) = self.next_ready() else {
                self.end_shortage(log, now);
                return Accepted::Nothing;
            };
            match self.try_accept(system, index) {
                Attempt::Accepted(accepted) => return Accepted::Connection(accepted),
                Attempt::Again => {}
                Attempt::Short(error) => {
                    // Does a connection wait? If so, it takes the reserve's place.
                    let mut held = None;
                    if self.has_reserve {
                        self.has_reserve = false;
                        system.close_reserve();
                        match self.try_accept(system, index) {
                            Attempt::Accepted(accepted) => held = Some(accepted),
                            Attempt::Again => {
                                self.has_reserve = system.open_reserve();
                                continue;
                            }
                            Attempt::Short(_) => self.has_reserve = system.open_reserve(),
                        }
                    }
                    self.begin_shortage(&error, held, log, now);
                    return self.wait(system, now);
                }
            }
        }
        Accepted::Nothing
    }

    /// The next listener at which a connection may wait, in turn.
    fn next_ready(&mut self) -> Option<usize> {
        let count = self.listeners.len();
        let index = (self.next..self.next + count)
            .map(|index| index % count)
            .find(|&index| self.listeners[index].ready)?;
        self.next = index + 1;
        Some(index)
    }

    fn try_accept(&mut self, system: &mut impl System<Stream = S>, index: usize) -> Attempt<S> {
        let listener = &mut self.listeners[index];
        match system.accept(index) {
            Ok((stream, peer)) => Attempt::Accepted(AcceptedConnection {
                stream,
                peer,
                dialect: listener.dialect,
                via: listener.via,
            }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                listener.ready = false;
                Attempt::Again
            }
            Err(error) if is_about_one(&error) => Attempt::Again,
            Err(error) => Attempt::Short(error),
        }
    }

    fn begin_shortage(
        &mut self,
        error: &io::Error,
        held: Option<AcceptedConnection<S>>,
        log: &mut ServerLog,
        now: Instant,
    ) {
        if let Some(shortage) = &mut self.shortage {
            shortage.held = held;
            return;
        }
        log.shortage_began(error, now);
        self.shortage = Some(Shortage {
            since: now,
            held,
            is_waiting: false,
            refused: 0,
        });
    }

    /// Waits for a descriptor. When that has taken too long, refuses the connections that wait.
    fn wait(&mut self, system: &mut impl System<Stream = S>, now: Instant) -> Accepted<S> {
        let Some(shortage) = &mut self.shortage else {
            return Accepted::Nothing;
        };
        shortage.is_waiting = true;
        let mut refused = 0;
        if now.duration_since(shortage.since) >= MAX_SHORTAGE {
            refused = u64::from(shortage.held.take().is_some()) + self.refuse_waiting(system);
            if let Some(shortage) = &mut self.shortage {
                shortage.refused += refused;
            }
        }
        Accepted::Shortage {
            retry_at: now + RETRY_INTERVAL,
            refused,
        }
    }

    /// Accepts the connections that wait in the reserve's place, one after the other, and closes them.
    fn refuse_waiting(&mut self, system: &mut impl System<Stream = S>) -> u64 {
        let mut refused = 0;
        self.has_reserve = false;
        system.close_reserve();
        // As many as the kernel holds; a flood of connections must not keep the loop here.
        for _ in 0..LISTEN_BACKLOG {
            let Some(index) = self.next_ready() else {
                break;
            };
            match self.try_accept(system, index) {
                Attempt::Accepted(..) => refused += 1,
                Attempt::Again => {}
                Attempt::Short(_) => break,
            }
        }
        self.has_reserve = system.open_reserve();
        refused
    }

    /// No connection waits any more.
    fn end_shortage(&mut self, log: &mut ServerLog, now: Instant) {
        if let Some(shortage) = self.shortage.take() {
            log.shortage_ended(now.duration_since(shortage.since), shortage.refused);
        }
    }
}

/// What one `accept` came to.
enum Attempt<S> {
    Accepted(AcceptedConnection<S>),
    /// No connection waits, which is noted, or there was an error about one connection only.
    Again,
    /// The system has no descriptor, or no memory.
    Short(io::Error),
}

/// Whether an error of `accept` is about one connection only: the others can still be accepted. Linux
/// also passes on pending network errors of the new connection, see accept(2).
fn is_about_one(error: &io::Error) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if error.raw_os_error() == Some(libc::ENONET) {
        return true;
    }
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

#[cfg(test)]
mod tests {
    use super::super::listener::Preamble;
    use super::super::system::Source;
    use super::*;
    use crate::relay::{ConnId, Ready};
    use crate::server::system::{Event, Request};
    use std::time::SystemTime;

    /// A system at whose only listener this many connections wait. Nothing else of it is used.
    struct Queue(usize);

    impl System for Queue {
        type Stream = io::Empty;

        fn now(&self) -> Instant {
            Instant::now()
        }

        fn time_of_day(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }

        fn random(&mut self) -> u64 {
            0
        }

        fn poll(&mut self, _: Option<Duration>) -> io::Result<()> {
            Ok(())
        }

        fn events(&self) -> impl Iterator<Item = Event> {
            std::iter::once(Event::Connection(ConnId::from(0), Ready::READABLE))
        }

        fn has_more(&self) -> bool {
            false
        }

        fn requests(&mut self) -> Vec<Request> {
            Vec::new()
        }

        fn accept(&mut self, _: usize) -> io::Result<(io::Empty, SocketAddr)> {
            self.0 = self.0.checked_sub(1).ok_or(ErrorKind::WouldBlock)?;
            Ok((io::empty(), SocketAddr::from(([192, 0, 2, 1], 1))))
        }

        fn watch(&mut self, _: &mut io::Empty, _: Source) -> io::Result<()> {
            Ok(())
        }

        fn clear_notsent_lowat(&mut self, _: &io::Empty) {}

        fn shutdown_write(&mut self, _: &io::Empty) {}

        fn close_listener(&mut self, _: usize) {}

        fn open_reserve(&mut self) -> bool {
            true
        }

        fn close_reserve(&mut self) {}
    }

    #[test]
    fn connections_over_the_accept_rate_wait_and_none_is_forgotten() {
        let mut queue = Queue(100);
        let mut acceptor = Acceptor::new(
            [(Dialect::Chat10, Via::Network(Preamble::NONE))],
            Some(Rate::new(10)),
            &mut queue,
        );
        acceptor.note(0);
        let mut log = ServerLog::new(&[Dialect::Chat10]);
        let start = Instant::now() + Duration::from_secs(100);
        let mut now = start;
        let mut accepted = Vec::new();
        loop {
            match acceptor.accept(&mut queue, &mut log, now) {
                Accepted::Connection(_) => accepted.push((now - start).as_millis()),
                Accepted::TooEarly { retry_at } => {
                    assert!(acceptor.is_waiting() && !acceptor.has_ready());
                    assert!(matches!(
                        acceptor.accept(&mut queue, &mut log, now),
                        Accepted::Nothing
                    ));
                    // Half-way there it is too early still.
                    acceptor.retry();
                    let early = now + (retry_at - now) / 2;
                    let again = acceptor.accept(&mut queue, &mut log, early);
                    assert!(matches!(again, Accepted::TooEarly { retry_at: at } if at == retry_at));
                    acceptor.retry();
                    now = retry_at;
                }
                Accepted::Nothing => break,
                Accepted::Shortage { .. } => panic!("there is none"),
            }
        }
        // Those of a second at once, then one each tenth of a second.
        let expected: Vec<u128> = (0..100_u128).map(|i| i.saturating_sub(10) * 100).collect();
        assert_eq!(accepted, expected);
        assert!(!acceptor.has_ready() && !acceptor.is_waiting());
    }
}
