//! Accepting, whatever happens.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::listener::LISTEN_BACKLOG;
use super::system::System;
use crate::relay::{Rate, Seldom};
use crate::wire::Dialect;

/// While there are no descriptors, how long until the next attempt.
const RETRY: Duration = Duration::from_millis(100);

/// How long a shortage of descriptors lasts before those who wait are turned away. Most end sooner,
/// when somebody leaves; and nobody is to hang for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many calls of `accept` may come to nothing in a row before the others have their turn.
const ATTEMPTS: usize = 64;

/// What is known of a listening socket.
#[derive(Debug)]
struct Listener {
    /// The protocol of the connections that come in here.
    dialect: Dialect,
    /// An edge came, and we have not seen the queue empty since.
    ready: bool,
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
///
/// **Faster than allowed.** With `--accept-rate`, who comes too soon waits in the kernel's queue, and a
/// deadline brings us back as well.
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
    /// The log's line about that.
    early_line: Seldom,
    /// The log's warning of a shortage.
    shortage_line: Seldom,
}

/// A time without descriptors: from the first newcomer for whom there is none until nobody waits.
#[derive(Debug)]
struct Shortage<S> {
    since: Instant,
    in_hand: Option<Newcomer<S>>,
    /// Nothing is tried before the deadline, unless a descriptor was closed.
    is_waiting: bool,
    turned_away: u64,
    /// The log was told of its beginning and is to be told of its end.
    told: bool,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct Newcomer<S> {
    pub(super) stream: S,
    pub(super) peer: SocketAddr,
    pub(super) dialect: Dialect,
}

/// What one attempt to accept came to.
#[derive(Debug)]
pub(super) enum Accepted<S> {
    /// A newcomer.
    Connection(Newcomer<S>),
    /// Nobody waits, or nobody can be accepted before something changes.
    Nobody,
    /// Somebody waits and there is no descriptor.
    Shortage {
        /// When to try again.
        retry_at: Instant,
        /// How many had waited too long and were turned away just now.
        turned_away: u64,
    },
    /// It is too early for one more.
    Early {
        /// When to try again.
        retry_at: Instant,
    },
}

impl<S> Acceptor<S> {
    /// Accepts from listeners of these dialects, at no more than this rate.
    pub(super) fn new(
        dialects: impl IntoIterator<Item = Dialect>,
        rate: Option<Rate>,
        system: &mut impl System<Stream = S>,
    ) -> Self {
        let listener = |dialect| Listener {
            dialect,
            ready: false,
        };
        Self {
            listeners: dialects.into_iter().map(listener).collect(),
            next: 0,
            has_reserve: system.take_reserve(),
            shortage: None,
            rate,
            free_at: None,
            is_early: false,
            early_line: Seldom::default(),
            shortage_line: Seldom::default(),
        }
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

    /// Whether accepting waits for a descriptor, or for its time.
    pub(super) fn is_waiting(&self) -> bool {
        let is_short = |shortage: &Shortage<S>| shortage.is_waiting;
        self.is_early || self.shortage.as_ref().is_some_and(is_short)
    }

    /// Ends the waiting: it is time to try again, or a descriptor was closed.
    pub(super) const fn retry(&mut self) {
        self.is_early = false;
        if let Some(shortage) = &mut self.shortage {
            shortage.is_waiting = false;
        }
    }

    /// Forgets the listeners: they are closed.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
        self.shortage = None;
        self.is_early = false;
    }

    /// Accepts the next newcomer.
    pub(super) fn accept(
        &mut self,
        system: &mut impl System<Stream = S>,
        now: Instant,
    ) -> Accepted<S> {
        if self.is_waiting() {
            return Accepted::Nobody;
        }
        if let Some(retry_at) = self.free_at.filter(|&free_at| free_at > now)
            && self.has_ready()
        {
            self.is_early = true;
            if self.early_line.is_due(now) {
                info!("newcomers wait to be accepted (limit: --accept-rate)");
            }
            return Accepted::Early { retry_at };
        }
        let accepted = self.accept_in_time(system, now);
        if let (Some(rate), Accepted::Connection(_)) = (self.rate, &accepted) {
            self.free_at = Some(rate.spend(self.free_at, now, 1));
        }
        accepted
    }

    fn accept_in_time(
        &mut self,
        system: &mut impl System<Stream = S>,
        now: Instant,
    ) -> Accepted<S> {
        if !self.has_reserve && (self.shortage.is_some() || self.has_ready()) {
            self.has_reserve = system.take_reserve();
        }
        if let Some(shortage) = &mut self.shortage {
            if !self.has_reserve {
                return self.wait(system, now);
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
            match self.try_accept(system, index) {
                Attempt::Newcomer(newcomer) => return Accepted::Connection(newcomer),
                Attempt::Again => {}
                Attempt::Short(error) => {
                    // Is anybody there? If so, that newcomer takes the reserve's place.
                    let mut in_hand = None;
                    if self.has_reserve {
                        self.has_reserve = false;
                        system.give_up_reserve();
                        match self.try_accept(system, index) {
                            Attempt::Newcomer(newcomer) => in_hand = Some(newcomer),
                            Attempt::Again => {
                                self.has_reserve = system.take_reserve();
                                continue;
                            }
                            Attempt::Short(_) => self.has_reserve = system.take_reserve(),
                        }
                    }
                    self.begin_shortage(now, &error, in_hand);
                    return self.wait(system, now);
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

    fn try_accept(&mut self, system: &mut impl System<Stream = S>, index: usize) -> Attempt<S> {
        let listener = &mut self.listeners[index];
        match system.accept(index) {
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

    fn begin_shortage(&mut self, now: Instant, error: &io::Error, in_hand: Option<Newcomer<S>>) {
        if let Some(shortage) = &mut self.shortage {
            shortage.in_hand = in_hand;
            return;
        }
        // When one newcomer after the other has to wait a moment, once in a while will do.
        let told = self.shortage_line.is_due(now);
        if told {
            let hint = match error.raw_os_error() {
                Some(libc::EMFILE) => " (raise the open-file limit, or lower --max-clients)",
                _ => "",
            };
            warn!("cannot accept: {error}{hint}; newcomers wait");
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
    fn wait(&mut self, system: &mut impl System<Stream = S>, now: Instant) -> Accepted<S> {
        let Some(shortage) = &mut self.shortage else {
            return Accepted::Nobody;
        };
        shortage.is_waiting = true;
        let mut turned_away = 0;
        if now.duration_since(shortage.since) >= PATIENCE {
            turned_away = u64::from(shortage.in_hand.take().is_some()) + self.turn_away(system);
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
    fn turn_away(&mut self, system: &mut impl System<Stream = S>) -> u64 {
        let mut turned_away = 0;
        self.has_reserve = false;
        system.give_up_reserve();
        // As many as the kernel holds for us; a flood of newcomers must not keep us here.
        for _ in 0..LISTEN_BACKLOG {
            let Some(index) = self.next_ready() else {
                break;
            };
            match self.try_accept(system, index) {
                Attempt::Newcomer(..) => turned_away += 1,
                Attempt::Again => {}
                Attempt::Short(_) => break,
            }
        }
        self.has_reserve = system.take_reserve();
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
enum Attempt<S> {
    Newcomer(Newcomer<S>),
    /// Nobody is there, which is noted, or only an error about one newcomer was.
    Again,
    /// The system has no descriptor, or no memory.
    Short(io::Error),
}

/// Whether an error of `accept` is about one newcomer only, or about nothing: the others are still
/// to be accepted. Linux also hands on what the network has reported about it, see accept(2).
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
    use super::*;
    use crate::relay::{ConnId, Ready};
    use crate::server::system::{Event, Request};
    use std::time::SystemTime;

    /// A system at whose only listener so many wait. Nothing else of it is used.
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

        fn watch(&mut self, _: &mut io::Empty, _: ConnId) -> io::Result<()> {
            Ok(())
        }

        fn lift_send_limit(&mut self, _: &io::Empty) {}

        fn close_listeners(&mut self) {}

        fn take_reserve(&mut self) -> bool {
            true
        }

        fn give_up_reserve(&mut self) {}
    }

    #[test]
    fn newcomers_that_come_faster_than_allowed_wait_and_nobody_is_forgotten() {
        let mut queue = Queue(100);
        let mut acceptor = Acceptor::new([Dialect::Chat10], Some(Rate::new(10)), &mut queue);
        acceptor.note(0);
        let start = Instant::now() + Duration::from_secs(100);
        let mut now = start;
        let mut accepted = Vec::new();
        loop {
            match acceptor.accept(&mut queue, now) {
                Accepted::Connection(_) => accepted.push((now - start).as_millis()),
                Accepted::Early { retry_at } => {
                    assert!(acceptor.is_waiting() && !acceptor.has_ready());
                    assert!(matches!(acceptor.accept(&mut queue, now), Accepted::Nobody));
                    // Half way there it is too early still.
                    acceptor.retry();
                    let early = now + (retry_at - now) / 2;
                    let again = acceptor.accept(&mut queue, early);
                    assert!(matches!(again, Accepted::Early { retry_at: at } if at == retry_at));
                    acceptor.retry();
                    now = retry_at;
                }
                Accepted::Nobody => break,
                Accepted::Shortage { .. } => panic!("there is none"),
            }
        }
        // Those of a second at once, then one in a tenth of a second.
        let expected: Vec<u128> = (0..100_u128).map(|i| i.saturating_sub(10) * 100).collect();
        assert_eq!(accepted, expected);
        assert!(!acceptor.has_ready() && !acceptor.is_waiting());
    }
}
