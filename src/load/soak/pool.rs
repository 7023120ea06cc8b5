//! The pool of a soak's clients and the loop around them. Each client follows its steps, and every
//! connection that ends has an expected cause or is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::mem;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll};

use super::super::connect::{Cause, Causes, Site, is_made};
use super::super::plan::{Fault, Leave};
use super::checker::Checker;
use super::client::{READ_SIZE, Reading, SoakClient, State};
use super::plan::{FaultSequence, Step};

/// How many events one poll fetches.
const MAX_EVENTS: usize = 1024;

/// The maximum number of reads of one socket before others have their turn.
const MAX_READS: usize = 8;

/// How long a connection may take to be made, and after how long it is tried again.
const CONNECT_TIMEOUT: u64 = 10_000_000_000;
const RETRY_INTERVAL_NS: u64 = 500_000_000;

/// The maximum number of connections that are being made at a time. It is less than the listen
/// backlog of servers such as the tutorials'.
const MAX_CONNECTING: usize = 64;

/// The receive buffer of a client that does not read, in bytes. The server must queue the rest.
const SMALL_RECEIVE_BUFFER: usize = 16 * 1024;

/// A member that received nothing for this long is deaf. It is longer than a relay pauses its
/// senders for one slow reader.
const DEAF_AFTER_NS: u64 = 30_000_000_000;

/// The events of a soak, by kind.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Members that left as planned.
    pub(super) leaves: BTreeMap<Leave, u64>,
    /// Clients that misbehaved.
    pub(super) faults: BTreeMap<Fault, u64>,
    /// Misbehaving clients that the server closed.
    pub(super) closed: BTreeMap<Fault, u64>,
    /// Connections that ended unexpectedly.
    pub(super) cuts: Causes,
    /// Connections that were not made.
    pub(super) refusals: Causes,
    /// Members that never received anything, though they were connected for long enough.
    pub(super) deaf: u64,
}

/// A `SoakPool` holds the clients of a soak.
#[derive(Debug)]
pub(super) struct SoakPool {
    site: Site,
    poll: Poll,
    events: Events,
    start: Instant,
    /// The members first, and then the misbehaving clients.
    pub(super) clients: Vec<SoakClient>,
    members: usize,
    fault_sequences: Vec<FaultSequence>,
    /// Whether no more misbehaving clients are started.
    is_peaceful: bool,
    /// Whether no more clients are started.
    is_over: bool,
    pub(super) checker: Checker,
    /// The clients with something to do at a time.
    agenda: BTreeSet<(u64, usize)>,
    /// Clients that have more to read than one turn reads, and whether the end of input was
    /// signalled.
    pub(super) again: Vec<(usize, bool)>,
    scratch: Vec<u8>,
    connecting: usize,
    connected: usize,
    pub(super) counts: Counts,
}

impl SoakPool {
    /// Makes a pool with empty places for this many members and misbehaving clients.
    pub(super) fn new(
        site: Site,
        members: usize,
        faults: usize,
        seed: u64,
        checker: Checker,
    ) -> io::Result<Self> {
        Ok(Self {
            site,
            poll: Poll::new()?,
            events: Events::with_capacity(MAX_EVENTS),
            start: Instant::now(),
            clients: (0..members + faults).map(|_| SoakClient::new()).collect(),
            members,
            fault_sequences: (0..faults)
                .map(|place| FaultSequence::new(seed, place))
                .collect(),
            is_peaceful: false,
            is_over: false,
            checker,
            agenda: BTreeSet::new(),
            again: Vec::new(),
            scratch: Vec::new(),
            connecting: 0,
            connected: 0,
            counts: Counts::default(),
        })
    }

    /// Nanoseconds since the pool was made: the unit of all its times.
    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The number of connections.
    pub(super) const fn connected(&self) -> usize {
        self.connected
    }

    /// The number of members that are connected and stay.
    pub(super) fn staying(&self) -> usize {
        let members = self.clients[..self.members].iter();
        members.filter(|client| client.is_staying()).count()
    }

    /// Whether all members are connected and stay, and no other client is.
    pub(super) fn is_complete(&self) -> bool {
        self.staying() == self.members && self.connected + self.connecting == self.members
    }

    /// Whether no connection was made so far, and none is being made.
    pub(super) fn is_refused(&self) -> bool {
        self.connected + self.connecting == 0 && !self.counts.refusals.is_empty()
    }

    /// The number of members that have not received anything.
    pub(super) fn deaf(&self) -> u64 {
        let members = self.clients[..self.members].iter();
        let known = members.filter_map(|client| client.member);
        known.filter(|&one| !self.checker.is_present(one)).count() as u64
    }

    /// Connects members, not all at once: some, and more when those are connected.
    pub(super) fn ramp_up(&mut self) {
        for index in 0..self.members {
            if self.connecting >= MAX_CONNECTING {
                return;
            }
            let client = &self.clients[index];
            if client.state == State::Away && client.due.is_none() {
                self.prepare(index);
            }
        }
    }

    /// Starts the misbehaving clients.
    pub(super) fn start_faulty_clients(&mut self) {
        for index in self.members..self.clients.len() {
            self.prepare(index);
        }
    }

    /// Sends a message from the member at this place, if there is one.
    pub(super) fn queue(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if let Some(member) = client.member.filter(|_| client.is_staying()) {
            self.checker.queue(member, &mut client.out);
            client.flush();
        }
    }

    /// Sends a message from every member that stays.
    pub(super) fn queue_for_all(&mut self) {
        (0..self.members).for_each(|index| self.queue(index));
    }

    /// Has the member at this place leave, if there is one.
    pub(super) fn start_leaving(&mut self, index: usize, how: Leave) {
        if self.clients[index].is_staying() {
            *self.counts.leaves.entry(how).or_default() += 1;
            self.clients[index].replace_steps(how.steps());
            self.advance(index);
        }
    }

    /// Ends the misbehaving clients: at once, if they only wait.
    pub(super) fn stop_faulty_clients(&mut self) {
        self.is_peaceful = true;
        for index in self.members..self.clients.len() {
            let client = &mut self.clients[index];
            match (client.state, client.steps.front()) {
                (State::Here, Some(Step::Pause(_))) => {
                    client.steps[0] = Step::Pause(Duration::ZERO);
                    self.advance(index);
                }
                // A client that has sent what is no frame is closed soon, but one that has sent
                // nothing is not.
                (State::Here, Some(Step::AwaitClose(_))) if client.is_broken => {}
                (
                    State::Here,
                    Some(Step::Stop(_) | Step::Drip(_) | Step::Listen(_) | Step::AwaitClose(_)),
                ) => {
                    client.replace_steps(vec![Step::Reset]);
                    self.advance(index);
                }
                (State::Here, _) => {}
                (State::Away | State::Connecting, _) => self.release(index),
            }
        }
    }

    /// Counts the deliveries that have not arrived as lost.
    pub(super) fn give_up(&mut self) {
        self.checker.give_up();
        self.counts.deaf += self.deaf();
    }

    /// Ends all connections.
    pub(super) fn leave(&mut self) {
        self.is_peaceful = true;
        self.is_over = true;
        for index in 0..self.clients.len() {
            self.close(index);
        }
        self.again.clear();
    }

    /// One turn of the loop: waits for events, at most until `until`, and handles them and the
    /// clients with something to do.
    ///
    /// # Errors
    ///
    /// If the poll fails.
    pub(super) fn turn(&mut self, until: u64) -> io::Result<()> {
        let due = self.agenda.first().map_or(until, |&(at, _)| at.min(until));
        let timeout = if self.again.is_empty() {
            Duration::from_nanos(due.saturating_sub(self.now()))
        } else {
            Duration::ZERO
        };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for (index, ends) in mem::take(&mut self.again) {
            self.receive(index, ends);
        }
        let events = mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            self.ready(event);
        }
        self.events = events;
        let now = self.now();
        // Clients that are scheduled meanwhile are for the next turn.
        let later = self.agenda.split_off(&(now + 1, 0));
        for (_, index) in mem::replace(&mut self.agenda, later) {
            self.clients[index].due = None;
            match self.clients[index].state {
                State::Away => self.connect(index),
                State::Connecting => self.end(index, Cause::TimedOut),
                State::Here => self.advance(index),
            }
        }
        // A client with unread input may still receive messages of senders that have left.
        if self.again.is_empty() {
            self.checker.settle(now);
        }
        Ok(())
    }

    fn ready(&mut self, event: &Event) {
        let index = event.token().0;
        if self.clients[index].state == State::Connecting {
            self.begin_steps(index);
        }
        if event.is_writable() && !self.clients[index].out.is_empty() {
            self.clients[index].flush();
            self.advance(index);
        }
        let ends = event.is_read_closed() || event.is_error();
        // Nothing comes after the end of input, so the read mode does not matter any more.
        if ends {
            self.clients[index].reading = Reading::All;
        }
        if (event.is_readable() || ends) && self.clients[index].reading == Reading::All {
            self.receive(index, ends);
        }
    }

    /// Schedules a client for this time.
    pub(super) fn wake(&mut self, index: usize, at: u64) {
        self.rest(index);
        self.clients[index].due = Some(at);
        self.agenda.insert((at, index));
    }

    /// Cancels what is scheduled for a client.
    fn rest(&mut self, index: usize) {
        if let Some(due) = self.clients[index].due.take() {
            self.agenda.remove(&(due, index));
        }
    }

    /// Starts the next client at an empty place.
    pub(super) fn prepare(&mut self, index: usize) {
        let now = self.now();
        match index.checked_sub(self.members) {
            None if !self.is_over => {
                self.clients[index].begin(None, vec![Step::Join, Step::Stay]);
                self.connect(index);
            }
            Some(place) if !self.is_peaceful => {
                let (rest, fault, steps) = self.fault_sequences[place].next();
                self.clients[index].begin(Some(fault), steps);
                self.wake(index, now + rest.as_nanos() as u64);
            }
            None | Some(_) => {}
        }
    }

    fn connect(&mut self, index: usize) {
        let now = self.now();
        let client = &mut self.clients[index];
        client.since = now;
        let is_slow = matches!(client.fault, Some(Fault::Stop | Fault::Pause | Fault::Drip));
        let buffer = is_slow.then_some(SMALL_RECEIVE_BUFFER);
        match self.site.open(index, buffer, self.poll.registry()) {
            Ok(stream) => {
                self.clients[index].stream = Some(stream);
                self.clients[index].state = State::Connecting;
                self.connecting += 1;
                self.wake(index, now + CONNECT_TIMEOUT);
                self.begin_steps(index);
            }
            Err(cause) => self.refuse(index, cause),
        }
    }

    /// Begins the steps of a client as soon as its connection is made.
    fn begin_steps(&mut self, index: usize) {
        let Some(stream) = &self.clients[index].stream else {
            return;
        };
        match is_made(stream) {
            Ok(true) => {}
            Ok(false) => return,
            Err(cause) => return self.end(index, cause),
        }
        self.rest(index);
        self.connecting -= 1;
        self.connected += 1;
        let now = self.now();
        let client = &mut self.clients[index];
        client.state = State::Here;
        client.since = now;
        if let Some(fault) = client.fault {
            *self.counts.faults.entry(fault).or_default() += 1;
        }
        self.advance(index);
    }

    /// A connection was not made. It is tried again.
    fn refuse(&mut self, index: usize, cause: Cause) {
        *self.counts.refusals.entry(cause).or_default() += 1;
        self.wake(index, self.now() + RETRY_INTERVAL_NS);
    }

    /// The server has ended a connection, or it cannot go on.
    fn end(&mut self, index: usize, cause: Cause) {
        match self.clients[index].state {
            State::Away => {}
            State::Connecting => {
                self.release(index);
                self.refuse(index, cause);
            }
            State::Here => {
                let client = &mut self.clients[index];
                // Whatever a client did, the server must not send what is not in the protocol.
                if !client.may_be_closed || cause == Cause::Garbled {
                    client.in_order = false;
                    *self.counts.cuts.entry(cause).or_default() += 1;
                } else if let Some(fault) = client.fault {
                    *self.counts.closed.entry(fault).or_default() += 1;
                }
                self.close(index);
                self.prepare(index);
            }
        }
    }

    /// Ends the connection of a client.
    pub(super) fn close(&mut self, index: usize) {
        let now = self.now();
        let client = &mut self.clients[index];
        if let Some(member) = client.member.take() {
            let is_due = client.fault.is_none() && now > client.since + DEAF_AFTER_NS;
            if is_due && !self.is_over && !self.checker.is_present(member) {
                self.counts.deaf += 1;
            }
            self.checker.leave(member, client.in_order, now);
        }
        self.release(index);
    }

    /// Frees a place.
    fn release(&mut self, index: usize) {
        self.rest(index);
        let client = &mut self.clients[index];
        client.stream = None;
        match mem::replace(&mut client.state, State::Away) {
            State::Away => {}
            State::Connecting => self.connecting -= 1,
            State::Here => self.connected -= 1,
        }
    }

    /// Reads until the socket is empty. A short read ends that, unless the event had signalled the
    /// end of input, which no other event will signal.
    fn receive(&mut self, index: usize, ends: bool) {
        for _ in 0..MAX_READS {
            match self.read(index, READ_SIZE) {
                Some(READ_SIZE) => {}
                Some(1..) if ends => {}
                Some(_) | None => return,
            }
        }
        self.again.push((index, ends));
    }

    /// Reads once, at most `most` bytes, and checks them. Returns the number of bytes, if there
    /// may be more.
    pub(super) fn read(&mut self, index: usize, most: usize) -> Option<usize> {
        let client = &mut self.clients[index];
        let (read, end) = match client.read(&mut self.scratch, most) {
            Ok((0, _)) => {
                self.end(index, Cause::Closed);
                return None;
            }
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Some(most),
            Err(error) => {
                self.end(index, Cause::of(&error));
                return None;
            }
        };
        let input = &self.scratch[..end];
        let taken = if let Some(member) = client.member {
            self.checker.check(member, input).ok()
        } else {
            self.checker.count_leak();
            Some(end)
        };
        if taken.is_some_and(|taken| client.keep(&input[taken..])) {
            return Some(read);
        }
        self.end(index, Cause::Garbled);
        None
    }
}
