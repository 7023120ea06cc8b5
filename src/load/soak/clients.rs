//! The clients of a soak. Each follows its steps, and every connection that ends has an expected
//! cause or is counted.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::super::connect::Cause;
use super::super::judge::Tally;
use super::super::message::MAX_SOAK_SIZE;
use super::super::plan::{Fault, Leave};
use super::super::pool::{Behaviour, ClientPool, State, Used};
use super::super::protocol::Garbled;
use super::checker::Checker;
use super::plan::{FaultSequence, Manner, Step};

/// After how long a connection that was not made is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The receive buffer of a client that does not read, in bytes. The server must queue the rest.
const SMALL_RECEIVE_BUFFER: usize = 16 * 1024;

/// The longest incomplete message that is kept, in bytes: a message with two headers and a name.
const MAX_INCOMPLETE: usize = MAX_SOAK_SIZE + 100;

/// A member that received nothing for this long is deaf. It is longer than a relay pauses its
/// senders for one slow reader.
const DEAF_AFTER: Duration = Duration::from_secs(30);

/// The events of a soak, by kind.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Members that left as planned.
    pub(super) leaves: BTreeMap<Leave, u64>,
    /// Clients that misbehaved.
    pub(super) faults: BTreeMap<Fault, u64>,
    /// Misbehaving clients that the server closed.
    pub(super) closed: BTreeMap<Fault, u64>,
    /// Members that never received anything, though they were connected for long enough.
    pub(super) deaf: u64,
}

/// The `SoakClients` are the members, and after them the misbehaving clients.
#[derive(Debug, Default)]
pub(super) struct SoakClients {
    pub(super) clients: Vec<Client>,
    members: usize,
    fault_sequences: Vec<FaultSequence>,
    /// Whether no more misbehaving clients are started.
    is_peaceful: bool,
    /// Whether no more clients are started.
    is_over: bool,
    pub(super) checker: Checker,
    pub(super) counts: Counts,
    /// When more than one member was last there.
    pub(super) accompanied: Duration,
}

/// A `Client` is what one client does over its connection.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// How it misbehaves, if it does.
    fault: Option<Fault>,
    /// Its key in the checker, once it has sent its name.
    pub(super) member: Option<usize>,
    /// Its current step, and the steps after it.
    pub(super) steps: VecDeque<Step>,
    /// When it began the current step, if it has.
    pub(super) began: Option<Duration>,
    /// Whether the server may close it.
    pub(super) may_be_closed: bool,
    /// Whether it has sent something that is not a whole message.
    pub(super) is_broken: bool,
    /// Whether all of its messages must be delivered, even if it leaves now.
    pub(super) in_order: bool,
    /// Bytes that are sent one by one.
    pub(super) slow: VecDeque<u8>,
}

impl Client {
    fn replace_steps(&mut self, steps: Vec<Step>) {
        self.steps = steps.into();
        self.began = None;
    }
}

impl SoakClients {
    /// So many members and misbehaving clients, none of them connected.
    pub(super) fn new(members: usize, faults: usize, seed: u64, checker: Checker) -> Self {
        Self {
            clients: (0..members + faults).map(|_| Client::default()).collect(),
            members,
            fault_sequences: (0..faults)
                .map(|position| FaultSequence::new(seed, position))
                .collect(),
            checker,
            ..Self::default()
        }
    }

    /// Whether this client is a connected member that stays.
    fn is_staying(&self, pool: &ClientPool, index: usize) -> bool {
        pool.is_connected(index) && self.clients[index].steps.front() == Some(&Step::Stay)
    }

    /// The number of members that are connected and stay.
    pub(super) fn staying(&self, pool: &ClientPool) -> usize {
        let members = 0..self.members;
        members
            .filter(|&index| self.is_staying(pool, index))
            .count()
    }

    /// Whether all members are connected and stay, and no other client is.
    pub(super) fn is_complete(&self, pool: &ClientPool) -> bool {
        self.staying(pool) == self.members && pool.connected + pool.connecting == self.members
    }

    /// The number of members that have not received anything.
    pub(super) fn deaf(&self) -> u64 {
        let members = self.clients[..self.members].iter();
        let known = members.filter_map(|client| client.member);
        known.filter(|&one| !self.checker.is_present(one)).count() as u64
    }

    /// Connects members, so many at a time: some, and more when those are connected.
    pub(super) fn connect(&mut self, pool: &mut ClientPool, at_a_time: usize) {
        for index in 0..self.members {
            if pool.connecting >= at_a_time {
                return;
            }
            if self.clients[index].steps.is_empty() {
                self.prepare(pool, index);
                pool.connect(self, index);
            }
        }
    }

    /// Starts the misbehaving clients.
    pub(super) fn start_faulty_clients(&mut self, pool: &mut ClientPool) {
        for index in self.members..self.clients.len() {
            self.prepare(pool, index);
        }
    }

    /// Sends a message from this member, if it is there.
    pub(super) fn send(&mut self, pool: &mut ClientPool, index: usize) {
        if self.is_staying(pool, index)
            && let Some(member) = self.clients[index].member
        {
            self.checker.queue(member, pool.output(index));
            pool.send(index);
        }
    }

    /// Sends a message from every member that stays.
    pub(super) fn send_from_all(&mut self, pool: &mut ClientPool) {
        (0..self.members).for_each(|index| self.send(pool, index));
    }

    /// Has this member leave, if it is there.
    pub(super) fn start_leaving(&mut self, pool: &mut ClientPool, index: usize, how: Leave) {
        if self.is_staying(pool, index) {
            *self.counts.leaves.entry(how).or_default() += 1;
            self.clients[index].replace_steps(how.steps());
            self.advance(pool, index);
        }
    }

    /// Ends the misbehaving clients: at once, if they only wait.
    pub(super) fn stop_faulty_clients(&mut self, pool: &mut ClientPool) {
        self.is_peaceful = true;
        for index in self.members..self.clients.len() {
            if !pool.is_connected(index) {
                pool.close(index);
                continue;
            }
            let client = &mut self.clients[index];
            match client.steps.front() {
                Some(Step::Wait(Manner::Pause, _)) => {
                    client.steps[0] = Step::Wait(Manner::Pause, Duration::ZERO);
                }
                // A client that has sent what is no frame is closed soon, but one that has sent
                // nothing is not.
                Some(Step::Wait(Manner::AwaitClose, _)) if client.is_broken => continue,
                Some(Step::Wait(..)) => client.replace_steps(vec![Step::Reset]),
                _ => continue,
            }
            self.advance(pool, index);
        }
    }

    /// Counts the deliveries that have not arrived as lost.
    pub(super) fn give_up(&mut self) {
        self.checker.give_up();
        self.counts.deaf += self.deaf();
    }

    /// Ends all connections.
    pub(super) fn leave(&mut self, pool: &mut ClientPool) {
        self.is_peaceful = true;
        self.is_over = true;
        for index in 0..self.clients.len() {
            self.remove(pool, index);
        }
        pool.close_all();
    }

    /// Schedules the next client in the place of one that has gone.
    pub(super) fn prepare(&mut self, pool: &mut ClientPool, index: usize) {
        let (fault, vacancy, steps) = match index.checked_sub(self.members) {
            None if !self.is_over => (None, Duration::ZERO, vec![Step::Join, Step::Stay]),
            Some(faulty) if !self.is_peaceful => {
                let (vacancy, fault, steps) = self.fault_sequences[faulty].next();
                (Some(fault), vacancy, steps)
            }
            None | Some(_) => return,
        };
        self.clients[index] = Client {
            fault,
            steps: steps.into(),
            ..Client::default()
        };
        pool.schedule(index, pool.now() + vacancy);
    }

    /// Ends the connection of a client.
    pub(super) fn close(&mut self, pool: &mut ClientPool, index: usize) {
        self.remove(pool, index);
        pool.close(index);
    }

    /// Removes a client from the checker.
    fn remove(&mut self, pool: &ClientPool, index: usize) {
        let now = pool.now();
        let client = &mut self.clients[index];
        if let Some(member) = client.member.take() {
            let is_due = client.fault.is_none() && now > pool.since(index) + DEAF_AFTER;
            if is_due && !self.is_over && !self.checker.is_present(member) {
                self.counts.deaf += 1;
            }
            self.checker.leave(member, client.in_order, now);
        }
    }
}

impl Behaviour for SoakClients {
    fn receive_buffer(&self, index: usize) -> Option<usize> {
        let fault = self.clients[index].fault;
        let is_slow = matches!(fault, Some(Fault::Stop | Fault::Pause | Fault::Drip));
        is_slow.then_some(SMALL_RECEIVE_BUFFER)
    }

    fn open(&mut self, pool: &mut ClientPool, index: usize) {
        pool.welcome(index);
        if let Some(fault) = self.clients[index].fault {
            *self.counts.faults.entry(fault).or_default() += 1;
        }
        self.advance(pool, index);
    }

    fn receive(&mut self, _pool: &mut ClientPool, index: usize, input: &[u8]) -> Used {
        let Some(member) = self.clients[index].member else {
            self.checker.count_leak();
            return Ok(input.len());
        };
        let used = self.checker.check(member, input)?;
        if input.len() - used > MAX_INCOMPLETE {
            return Err(Garbled);
        }
        Ok(used)
    }

    fn end(&mut self, pool: &mut ClientPool, index: usize, state: State, cause: Cause) {
        if state != State::Connected {
            pool.schedule(index, pool.now() + RETRY_INTERVAL);
            return;
        }
        let client = &mut self.clients[index];
        // Whatever a client did, the server must not send what is not in the protocol.
        if !client.may_be_closed || cause == Cause::Garbled {
            client.in_order = false;
            *pool.cuts.entry(cause).or_default() += 1;
        } else if let Some(fault) = client.fault {
            *self.counts.closed.entry(fault).or_default() += 1;
        }
        self.remove(pool, index);
        self.prepare(pool, index);
    }

    fn advance(&mut self, pool: &mut ClientPool, index: usize) {
        self.follow_steps(pool, index);
    }

    fn settle(&mut self, now: Duration) {
        self.checker.settle(now);
    }

    fn tally(&self) -> &Tally {
        &self.checker.tally
    }

    fn messages(&self) -> u64 {
        self.checker.sent
    }

    fn members(&self, pool: &ClientPool) -> usize {
        pool.connected
    }
}
