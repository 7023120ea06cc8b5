//! The clients of the scenarios: they join, receive, and perhaps send.

use std::io;
use std::mem;
use std::time::Duration;

use super::checker::DeliveryChecker;
use super::connect::Cause;
use super::delays::Delays;
use super::judge::Tally;
use super::message::Codec;
use super::pool::{Behaviour, ClientPool, State, Used};
use super::protocol::Role;
use super::run::{CHECK_INTERVAL, PROGRESS_TIMEOUT, Run, Stall};

/// How often it is checked whether the server is idle, for how long at most, and for how long to
/// wait where that cannot be seen.
const IDLE_INTERVAL: Duration = Duration::from_millis(200);
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const UNSEEN_IDLE_TIME: Duration = Duration::from_secs(1);

/// The CPU use of an idle server, as a share of a core.
const IDLE_CPU_SHARE: f64 = 0.02;

/// The `Members` are the clients of a scenario: the checker's receivers, in its order. A broker's
/// senders come after them, with connections of their own.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) checker: DeliveryChecker,
    /// The number of receivers, and of those that are connected.
    receivers: usize,
    receiving: usize,
    /// Clients with a message that is not sent.
    unsent: Vec<usize>,
    /// How long connections took to be made.
    pub(super) connects: Delays,
    /// When each member that was not known to be present received its first message.
    pub(super) arrivals: Vec<Duration>,
}

impl Members {
    pub(super) fn new(codec: Codec, receivers: usize, senders: usize) -> Self {
        // No messages are sent to a broker's senders, but answers are.
        let answered = if codec.protocol.is_broker() {
            senders
        } else {
            0
        };
        Self {
            checker: DeliveryChecker::new(codec, receivers + answered, senders),
            receivers,
            ..Self::default()
        }
    }

    const fn is_broker(&self) -> bool {
        self.checker.codec.protocol.is_broker()
    }

    /// Whether all connected receivers have received something.
    pub(super) const fn all_present(&self) -> bool {
        self.deaf() == 0
    }

    /// The number of connected receivers that have not received anything.
    pub(super) const fn deaf(&self) -> usize {
        self.receiving - self.checker.present
    }

    /// Whether others have received something, and this receiver has not.
    pub(super) fn is_deaf(&self, receiver: usize) -> bool {
        self.checker.present > 0 && !self.checker.is_present(receiver)
    }

    /// The number of members: the receivers of a message, and its sender.
    pub(super) fn count(&self) -> usize {
        self.receiving + usize::from(self.is_broker())
    }

    /// The number of receivers of a message.
    pub(super) fn receivers(&self) -> usize {
        // In a chat all but its sender.
        let own = usize::from(!self.is_broker());
        self.checker.present.saturating_sub(own)
    }

    /// The client that is this sender.
    fn client_of(&self, sender: u32) -> usize {
        let is_apart = self.is_broker();
        sender as usize + if is_apart { self.receivers } else { 0 }
    }

    fn welcome(&mut self, pool: &mut ClientPool, index: usize) {
        let counts = pool.welcome(index) && index < self.receivers;
        self.receiving += usize::from(counts);
    }

    fn answer_ping(&self, pool: &mut ClientPool, index: usize) {
        self.checker.codec.protocol.pong(pool.output(index));
        pool.send(index);
    }
}

impl Behaviour for Members {
    fn open(&mut self, pool: &mut ClientPool, index: usize) {
        let took = pool.now().saturating_sub(pool.since(index));
        self.connects.record(took.as_nanos() as u64, 1);
        let role = match index.checked_sub(self.receivers) {
            None => Role::Member(index as u32),
            Some(sender) => Role::Sender(sender as u32),
        };
        let Codec { protocol, tag, .. } = &self.checker.codec;
        protocol.join(role, tag, pool.output(index));
        let has_history = protocol.has_history();
        self.checker.join(index);
        if !self.is_broker() && !has_history {
            self.welcome(pool, index);
        }
        pool.send(index);
    }

    fn receive(&mut self, pool: &mut ClientPool, index: usize, input: &[u8]) -> Used {
        let now = pool.now();
        let was_present = self.checker.is_present(index);
        let (used, is_welcome) = self.checker.check(index, input, now)?;
        if mem::take(&mut self.checker.is_pinged) {
            self.answer_ping(pool, index);
        }
        if !was_present && self.checker.is_present(index) {
            self.arrivals.push(now);
        }
        if is_welcome {
            self.welcome(pool, index);
        }
        Ok(used)
    }

    fn end(&mut self, pool: &mut ClientPool, index: usize, state: State, cause: Cause) {
        if state == State::Connected {
            *pool.cuts.entry(cause).or_default() += 1;
            self.receiving -= usize::from(index < self.receivers);
        }
        self.checker.leave(index, true);
    }

    fn tally(&self) -> &Tally {
        &self.checker.tally
    }

    fn messages(&self) -> u64 {
        self.checker.sent
    }

    fn members(&self, _pool: &ClientPool) -> usize {
        self.count()
    }

    fn delays(&self) -> Option<&Delays> {
        Some(&self.checker.delays)
    }
}

impl Run<'_, Members> {
    /// The first of these senders that is connected.
    pub(super) fn able(&self, mut senders: impl Iterator<Item = u32>) -> Option<u32> {
        senders.find(|&sender| self.pool.is_connected(self.clients.client_of(sender)))
    }

    /// Queues a sender's next message, which was scheduled for `at`, if the sender is connected.
    /// [`send`](Self::send) sends it.
    pub(super) fn queue(&mut self, sender: u32, at: Duration) {
        let index = self.clients.client_of(sender);
        if self.pool.is_connected(index) {
            let output = self.pool.output(index);
            if output.is_empty() {
                self.clients.unsent.push(index);
            }
            self.clients.checker.queue(sender, at, output);
        }
    }

    /// Sends the queued messages.
    pub(super) fn send(&mut self) {
        for index in self.clients.unsent.drain(..) {
            self.pool.send(index);
        }
    }

    /// Requires all connected receivers to get every message that is sent from now on.
    pub(super) fn expect_all(&mut self) {
        for index in 0..self.clients.receivers {
            if self.pool.is_connected(index) {
                self.clients.checker.expect(index);
            }
        }
    }

    /// Has all members leave.
    pub(super) fn leave(&mut self) {
        self.pool.close_all();
        for index in 0..self.pool.len() {
            self.clients.checker.leave(index, false);
        }
        self.clients.receiving = 0;
        self.clients.unsent.clear();
    }

    /// Waits until the server is idle, if it can be watched, and for some time if it cannot.
    /// Without any connection there is nothing to wait for.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let began = self.pool.now();
        let mut before = self.usage();
        while !self.is_stopped() && self.pool.connected > 0 {
            self.sleep_until(self.pool.now() + IDLE_INTERVAL)?;
            let waited = self.pool.now().saturating_sub(began);
            let now = self.usage();
            let is_idle = match (before, now) {
                (Some(before), Some(now)) => {
                    let used = now.since(&before).cpu;
                    used <= IDLE_INTERVAL.mul_f64(IDLE_CPU_SHARE) || waited > IDLE_TIMEOUT
                }
                _ => waited > UNSEEN_IDLE_TIME,
            };
            if is_idle {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Waits for outstanding deliveries. Those that do not arrive are lost.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let mut now = self.pool.now();
        let mut stall = Stall::new(self.deliveries(), now);
        while self.clients.checker.outstanding > 0
            && stall.lasts(self.deliveries(), now) < PROGRESS_TIMEOUT
            && !self.is_stopped()
        {
            now = self.turn(now + CHECK_INTERVAL, false)?;
        }
        if !self.is_stopped() {
            self.clients.checker.give_up();
        }
        Ok(())
    }
}
