//! The pool of the connections to one server, and the loop around them.
//!
//! The loop is the relay's in small: every socket is registered once, for both directions and
//! edge-triggered. It is read until a read comes back short, and one buffer is enough for all of
//! them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::mem;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Poll};

use super::connect::{CONNECT_TIMEOUT, Cause, Causes, Site, flush, is_made};
use super::delays::Delays;
use super::ledger::DeliveryChecker;
use super::plan::Wait;
use super::process::accept_queue;
use super::protocol::{Incoming, Protocol, Role};

/// How many events one poll fetches.
const MAX_EVENTS: usize = 1024;

/// The maximum size of one read: more than a socket usually has.
const READ_SIZE: usize = 256 * 1024;

/// An incomplete message of more than this is large.
const LARGE_PIECE: usize = 64 * 1024;

/// The maximum number of reads of one socket before others have their turn.
const MAX_READS: usize = 8;

/// A loop that is not at its poll for so long was stopped, or its machine was.
const MIN_PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Peer {
    role: Role,
    state: State,
    stream: Option<TcpStream>,
    /// When it began to connect.
    began: u64,
    /// The beginning of something that was not all there.
    kept: Vec<u8>,
    /// What the socket has not taken.
    out: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no connection.
    Absent,
    /// It is being made.
    Connecting,
    /// It is there, and the server has not said welcome, as it will.
    Unwelcomed,
    /// It is there.
    Connected,
    /// It could not be made, or has ended.
    Ended,
}

/// The connections to one server.
#[derive(Debug)]
pub(super) struct ClientPool {
    site: Site,
    poll: Poll,
    events: Events,
    start: Instant,
    peers: Vec<Peer>,
    pub(super) checker: DeliveryChecker,
    /// How many are being made, and how many are there.
    connecting: usize,
    connected: usize,
    /// Clients in the order in which they began to connect, from the first that is being connected on.
    begun: VecDeque<usize>,
    /// The number of connected receivers.
    listening: usize,
    scratch: Vec<u8>,
    /// Clients that have more to read than one turn reads, and whether the end of input was
    /// signalled.
    again: Vec<(usize, bool)>,
    /// Clients with a message that is not sent.
    unsent: Vec<usize>,
    wait: Wait,
    /// How long this loop has waited, of the time that it ran.
    waited: Duration,
    /// When it was last polled, and whether nothing came of that.
    polled: Instant,
    was_empty: bool,
    pauses: Vec<Duration>,
    /// How long connections took to be made.
    pub(super) connects: Delays,
    /// Connections that were not made.
    pub(super) refusals: Causes,
    /// Connections that ended without being asked to.
    pub(super) cuts: Causes,
    /// When each member that was not known to be present received its first message.
    pub(super) arrivals: Vec<u64>,
}

impl ClientPool {
    /// For these connections, of which the first are the checker's receivers, in its order.
    pub(super) fn new(
        site: Site,
        roles: &[Role],
        checker: DeliveryChecker,
        wait: Wait,
    ) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            site,
            poll: Poll::new()?,
            events: Events::with_capacity(MAX_EVENTS),
            start: now,
            peers: roles
                .iter()
                .map(|&role| Peer {
                    role,
                    state: State::Absent,
                    stream: None,
                    began: 0,
                    kept: Vec::new(),
                    out: Vec::new(),
                })
                .collect(),
            checker,
            connecting: 0,
            connected: 0,
            begun: VecDeque::new(),
            listening: 0,
            scratch: vec![0; LARGE_PIECE + READ_SIZE],
            again: Vec::new(),
            unsent: Vec::new(),
            wait,
            waited: Duration::ZERO,
            polled: now,
            was_empty: false,
            pauses: Vec::new(),
            connects: Delays::new(),
            refusals: Causes::new(),
            cuts: Causes::new(),
            arrivals: Vec::new(),
        })
    }

    /// Nanoseconds since this pool was made: what all its times are in.
    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// How many connections there are to be, all told.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// How many there are.
    pub(super) const fn connected(&self) -> usize {
        self.connected
    }

    /// How many wait to be taken in by the server, if that can be seen.
    pub(super) fn queued(&self) -> Option<u64> {
        accept_queue(self.site.addr)
    }

    /// How many could not be made because there was no answer.
    pub(super) fn timed_out(&self) -> u64 {
        self.refusals.get(&Cause::TimedOut).copied().unwrap_or(0)
    }

    /// How many are being made.
    pub(super) const fn connecting(&self) -> usize {
        self.connecting
    }

    /// Whether all connected receivers have received something.
    pub(super) const fn all_present(&self) -> bool {
        self.checker.present() == self.listening
    }

    /// Whether this one is there.
    pub(super) fn is_connected(&self, index: usize) -> bool {
        self.peers[index].state == State::Connected
    }

    /// The number of connected receivers that have not received anything.
    pub(super) const fn deaf(&self) -> usize {
        self.listening - self.checker.present()
    }

    /// The number of members: the receivers of a message, and its sender.
    pub(super) fn members(&self) -> usize {
        self.listening + usize::from(self.site.protocol.is_broker())
    }

    /// The number of receivers of a message.
    pub(super) const fn receivers(&self) -> usize {
        // In a chat all but its sender.
        let own = if self.site.protocol.is_broker() { 0 } else { 1 };
        self.checker.present().saturating_sub(own)
    }

    /// Whether others have received something, and this receiver has not.
    pub(super) fn is_deaf(&self, receiver: usize) -> bool {
        self.checker.present() > 0 && !self.checker.is_present(receiver)
    }

    /// How long this loop has waited so far.
    pub(super) const fn waited(&self) -> Duration {
        self.waited
    }

    /// The times for which it was stopped, since they were asked for last.
    pub(super) fn take_pauses(&mut self) -> Vec<Duration> {
        self.note_pause(Instant::now());
        mem::take(&mut self.pauses)
    }

    /// It is `now`, and it was stopped if it was not polled for that long.
    fn note_pause(&mut self, now: Instant) {
        let since = now.duration_since(self.polled);
        if since > MIN_PAUSE {
            self.pauses.push(since);
            self.polled = now;
        }
    }

    /// Begins to connect one that is not connected.
    pub(super) fn connect(&mut self, index: usize) {
        self.peers[index].began = self.now();
        self.peers[index].kept.clear();
        self.peers[index].out.clear();
        match self.site.open(index, None, self.poll.registry()) {
            Ok(stream) => {
                self.peers[index].stream = Some(stream);
                self.enter(index, State::Connecting);
                self.begun.push_back(index);
                self.join(index);
            }
            Err(cause) => {
                self.enter(index, State::Ended);
                *self.refusals.entry(cause).or_default() += 1;
            }
        }
    }

    /// Sends the first bytes of a client as soon as its connection is made.
    fn join(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let Some(stream) = &peer.stream else {
            return;
        };
        match is_made(stream) {
            Ok(true) => {}
            Ok(false) => return,
            Err(cause) => return self.end(index, cause),
        }
        let took = self.now() - self.peers[index].began;
        self.connects.record(took, 1);
        let peer = &mut self.peers[index];
        self.site
            .protocol
            .join(peer.role, &self.site.tag, &mut peer.out);
        let welcomes = self.site.protocol.welcomes();
        self.enter(
            index,
            if welcomes {
                State::Unwelcomed
            } else {
                State::Connected
            },
        );
        self.flush(index);
    }

    /// Queues a sender's next message, which was scheduled for `sent`. [`send`](Self::send) sends
    /// it.
    pub(super) fn queue(&mut self, sender: u32, sent: u64) {
        let index = self.peer_of(sender);
        let peer = &mut self.peers[index];
        if peer.out.is_empty() {
            self.unsent.push(index);
        }
        self.checker.queue(sender, sent, &mut peer.out);
    }

    /// Whether a sender is connected.
    pub(super) fn can_send(&self, sender: u32) -> bool {
        self.is_connected(self.peer_of(sender))
    }

    /// Requires all connected receivers to get every message that is sent from now on.
    pub(super) fn expect_all(&mut self) {
        for index in 0..self.checker.receivers() {
            if self.is_connected(index) {
                self.checker.expect(index);
            }
        }
    }

    fn peer_of(&self, sender: u32) -> usize {
        let before = if self.site.protocol.is_broker() {
            self.checker.receivers()
        } else {
            0
        };
        before + sender as usize
    }

    /// Sends the queued messages, as far as the sockets accept them; the rest goes when they
    /// accept more.
    pub(super) fn send(&mut self) {
        let mut unsent = mem::take(&mut self.unsent);
        for index in unsent.drain(..) {
            self.flush(index);
        }
        self.unsent = unsent;
    }

    fn flush(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        flush(peer.stream.as_mut(), &mut peer.out);
    }

    /// One turn of the loop: waits for events, at most until `until` if that is given, and acts on
    /// them. If this pool is to spin, it only waits in sleep where `sleep` is set.
    ///
    /// # Errors
    ///
    /// If the poll fails.
    pub(super) fn turn(&mut self, until: Option<u64>, sleep: bool) -> io::Result<()> {
        let began = Instant::now();
        self.note_pause(began);
        let timeout = if self.again.is_empty() && (sleep || self.wait == Wait::Sleep) {
            let now = began.duration_since(self.start).as_nanos() as u64;
            let left = until.map(|until| Duration::from_nanos(until.saturating_sub(now)));
            // A poll sleeps by whole milliseconds, and rather too long than too short. Where it is not
            // all the same, the last part is not slept.
            left.map(|left| {
                if sleep {
                    left
                } else {
                    Duration::from_millis(left.as_millis() as u64)
                }
            })
        } else {
            Some(Duration::ZERO)
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            polled => polled?,
        }
        let polled = Instant::now();
        let slept = polled - began;
        // A poll that had nothing to say was waiting, even if it was told not to; and after another one
        // of that kind, so was the rest of this turn.
        if self.events.is_empty() && self.was_empty {
            self.waited += polled - self.polled;
        } else if self.events.is_empty() || timeout != Some(Duration::ZERO) {
            self.waited += slept;
        }
        self.was_empty = self.events.is_empty();
        self.polled = polled;
        let overslept = slept.saturating_sub(timeout.unwrap_or(slept));
        if overslept > MIN_PAUSE {
            self.pauses.push(overslept);
        }
        for (index, ends) in mem::take(&mut self.again) {
            self.receive(index, ends);
        }
        let events = mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            self.ready(event);
        }
        self.events = events;
        Ok(())
    }

    fn ready(&mut self, event: &Event) {
        let index = event.token().0;
        if self.peers[index].state == State::Connecting {
            self.join(index);
        }
        if matches!(
            self.peers[index].state,
            State::Absent | State::Connecting | State::Ended
        ) {
            return;
        }
        if event.is_writable() && !self.peers[index].out.is_empty() {
            self.flush(index);
        }
        let ends = event.is_read_closed() || event.is_error();
        if event.is_readable() || ends {
            self.receive(index, ends);
        }
    }

    /// Reads until the socket is empty. A short read ends that, unless the event had signalled the
    /// end of input, which no other event will signal.
    fn receive(&mut self, index: usize, ends: bool) {
        for _ in 0..MAX_READS {
            match self.read(index) {
                Ok(0) => return self.end(index, Cause::Closed),
                Ok(READ_SIZE) => {}
                Ok(_) if ends => {}
                Ok(_) => return,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What `hear` says of what cannot be read.
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    return self.end(index, Cause::Garbled);
                }
                Err(error) => return self.end(index, Cause::of(&error)),
            }
        }
        self.again.push((index, ends));
    }

    /// Reads once, up to [`READ_SIZE`] bytes, and checks them. Returns how many there were.
    fn read(&mut self, index: usize) -> io::Result<usize> {
        let peer = &mut self.peers[index];
        let Some(stream) = &mut peer.stream else {
            return Err(ErrorKind::WouldBlock.into());
        };
        // The kept bytes go before the new ones, so that they are one piece again. A large piece
        // stays where it is, and the new bytes go behind it: else it would be copied with every
        // read.
        let is_large = peer.kept.len() > LARGE_PIECE;
        let kept = peer.kept.len();
        let mut buffer = mem::take(if is_large {
            &mut peer.kept
        } else {
            &mut self.scratch
        });
        if is_large {
            buffer.resize(kept + READ_SIZE, 0);
        } else {
            buffer[..kept].copy_from_slice(&peer.kept);
        }
        let read = stream.read(&mut buffer[kept..kept + READ_SIZE]);
        let end = kept + *read.as_ref().unwrap_or(&0);
        let taken = if end > kept {
            self.check(index, &buffer[..end])
        } else {
            Some(0)
        };
        let peer = &mut self.peers[index];
        if is_large {
            buffer.truncate(end);
            buffer.drain(..taken.unwrap_or(0));
            peer.kept = buffer;
        } else {
            peer.kept.clear();
            peer.kept
                .extend_from_slice(&buffer[taken.unwrap_or(0)..end]);
            self.scratch = buffer;
        }
        if taken.is_none() {
            return Err(ErrorKind::InvalidData.into());
        }
        read
    }

    /// Checks the bytes that have arrived. Returns how many of them were used, or `None` if they
    /// are not in the protocol.
    fn check(&mut self, index: usize, input: &[u8]) -> Option<usize> {
        let now = self.now();
        let (taken, welcomed) = if index < self.checker.receivers() {
            let was_here = self.checker.is_present(index);
            let heard = self.checker.check(index, input, now).ok()?;
            if !was_here && self.checker.is_present(index) {
                self.arrivals.push(now);
            }
            heard
        } else {
            answers(self.site.protocol, input)?
        };
        if welcomed && self.peers[index].state == State::Unwelcomed {
            self.enter(index, State::Connected);
        }
        Some(taken)
    }

    /// A connection was not made, or has ended.
    fn end(&mut self, index: usize, cause: Cause) {
        self.peers[index].stream = None;
        match self.enter(index, State::Ended) {
            State::Connecting | State::Unwelcomed => {
                *self.refusals.entry(cause).or_default() += 1;
            }
            State::Connected => *self.cuts.entry(cause).or_default() += 1,
            State::Absent | State::Ended => {}
        }
        if index < self.checker.receivers() {
            self.checker.leave(index, true);
        }
    }

    /// Takes note of what has become of a connection. Returns what it was before.
    fn enter(&mut self, index: usize, state: State) -> State {
        let before = mem::replace(&mut self.peers[index].state, state);
        let hears = usize::from(index < self.checker.receivers());
        match before {
            State::Connecting | State::Unwelcomed => self.connecting -= 1,
            State::Connected => {
                self.connected -= 1;
                self.listening -= hears;
            }
            State::Absent | State::Ended => {}
        }
        match state {
            State::Connecting | State::Unwelcomed => self.connecting += 1,
            State::Connected => {
                self.connected += 1;
                self.listening += hears;
            }
            State::Absent | State::Ended => {}
        }
        before
    }

    /// Counts so many connections as timed out that were not tried.
    pub(super) fn give_up(&mut self, count: usize) {
        if count > 0 {
            *self.refusals.entry(Cause::TimedOut).or_default() += count as u64;
        }
    }

    /// Gives up connections that have taken too long to be made.
    pub(super) fn expire(&mut self) {
        let now = self.now();
        // The earliest first, so that a million clients that are connected cost nothing.
        while let Some(&index) = self.begun.front() {
            let peer = &self.peers[index];
            if matches!(peer.state, State::Connecting | State::Unwelcomed) {
                if now.saturating_sub(peer.began) <= CONNECT_TIMEOUT.as_nanos() as u64 {
                    break;
                }
                self.end(index, Cause::TimedOut);
            }
            self.begun.pop_front();
        }
    }

    /// Ends all connections from this side, by a reset: a port that was closed in order is not free
    /// again for a minute, and there are not enough of them for that.
    pub(super) fn leave(&mut self) {
        for index in 0..self.peers.len() {
            self.peers[index].stream = None;
            self.enter(index, State::Absent);
            if index < self.checker.receivers() {
                self.checker.leave(index, false);
            }
        }
        self.begun.clear();
        self.again.clear();
        self.unsent.clear();
    }
}

/// Reads a broker's answers to a sender. Returns the number of bytes, and whether there was a
/// welcome.
fn answers(protocol: Protocol, input: &[u8]) -> Option<(usize, bool)> {
    let (mut taken, mut welcomed) = (0, false);
    while let Some((incoming, used)) = protocol.next(&input[taken..]).ok()? {
        welcomed |= incoming == Incoming::Welcome;
        taken += used;
    }
    Some((taken, welcomed))
}
