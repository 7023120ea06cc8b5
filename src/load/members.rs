//! The clients of the scenarios: they join, receive, and perhaps send.

use std::mem;
use std::time::Duration;

use super::checker::DeliveryChecker;
use super::connect::Cause;
use super::delays::Delays;
use super::judge::Tally;
use super::pool::{Behaviour, ClientPool, State};
use super::protocol::{Garbled, Incoming, Protocol, Role};

/// The `Members` are the clients of a scenario: the checker's receivers, in its order. A broker's
/// senders come after them, with connections of their own.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) checker: DeliveryChecker,
    protocol: Protocol,
    /// The number of connected receivers.
    receiving: usize,
    /// Clients with a message that is not sent.
    unsent: Vec<usize>,
    /// How long connections took to be made.
    pub(super) connects: Delays,
    /// When each member that was not known to be present received its first message.
    pub(super) arrivals: Vec<Duration>,
}

impl Members {
    pub(super) fn new(checker: DeliveryChecker, protocol: Protocol) -> Self {
        Self {
            checker,
            protocol,
            receiving: 0,
            unsent: Vec::new(),
            connects: Delays::new(),
            arrivals: Vec::new(),
        }
    }

    /// Whether all connected receivers have received something.
    pub(super) const fn all_present(&self) -> bool {
        self.deaf() == 0
    }

    /// The number of connected receivers that have not received anything.
    pub(super) const fn deaf(&self) -> usize {
        self.receiving - self.checker.present()
    }

    /// Whether others have received something, and this receiver has not.
    pub(super) fn is_deaf(&self, receiver: usize) -> bool {
        self.checker.present() > 0 && !self.checker.is_present(receiver)
    }

    /// The number of members: the receivers of a message, and its sender.
    pub(super) fn count(&self) -> usize {
        self.receiving + usize::from(self.protocol.is_broker())
    }

    /// The number of receivers of a message.
    pub(super) fn receivers(&self) -> usize {
        // In a chat all but its sender.
        let own = usize::from(!self.protocol.is_broker());
        self.checker.present().saturating_sub(own)
    }

    fn is_receiver(&self, index: usize) -> bool {
        index < self.checker.receivers()
    }

    /// The client that is this sender.
    fn client_of(&self, sender: u32) -> usize {
        let before = if self.protocol.is_broker() {
            self.checker.receivers()
        } else {
            0
        };
        before + sender as usize
    }

    /// Whether a sender is connected.
    pub(super) fn can_send(&self, pool: &ClientPool, sender: u32) -> bool {
        pool.is_connected(self.client_of(sender))
    }

    /// Queues a sender's next message, which was scheduled for `at`, if the sender is connected.
    /// [`send`](Self::send) sends it.
    pub(super) fn queue(&mut self, pool: &mut ClientPool, sender: u32, at: Duration) {
        let index = self.client_of(sender);
        if pool.is_connected(index) {
            let output = pool.output(index);
            if output.is_empty() {
                self.unsent.push(index);
            }
            self.checker.queue(sender, at, output);
        }
    }

    /// Sends the queued messages.
    pub(super) fn send(&mut self, pool: &mut ClientPool) {
        for index in self.unsent.drain(..) {
            pool.send(index);
        }
    }

    /// Requires all connected receivers to get every message that is sent from now on.
    pub(super) fn expect_all(&mut self, pool: &ClientPool) {
        for index in 0..self.checker.receivers() {
            if pool.is_connected(index) {
                self.checker.expect(index);
            }
        }
    }

    /// Has all members leave.
    pub(super) fn leave(&mut self, pool: &mut ClientPool) {
        pool.close_all();
        for index in 0..self.checker.receivers() {
            self.checker.leave(index, false);
        }
        self.receiving = 0;
        self.unsent.clear();
    }

    fn welcome(&mut self, pool: &mut ClientPool, index: usize) {
        if pool.state(index) == State::Open {
            pool.welcome(index);
            self.receiving += usize::from(self.is_receiver(index));
        }
    }
}

impl Members {
    /// Skips what comes before the welcome, and that itself. Returns the number of bytes, and whether it
    /// was there.
    fn skip_history(
        &self,
        pool: &mut ClientPool,
        index: usize,
        input: &[u8],
    ) -> Result<(usize, bool), Garbled> {
        let mut used = 0;
        while let Some((incoming, len)) = self.protocol.next(&input[used..])? {
            used += len;
            match incoming {
                Incoming::Welcome => return Ok((used, true)),
                Incoming::Ping => self.answer_ping(pool, index),
                Incoming::Message { .. } | Incoming::Aside => {}
            }
        }
        Ok((used, false))
    }

    fn answer_ping(&self, pool: &mut ClientPool, index: usize) {
        self.protocol.pong(pool.output(index));
        pool.send(index);
    }
}

impl Behaviour for Members {
    fn open(&mut self, pool: &mut ClientPool, index: usize) {
        let took = pool.now().saturating_sub(pool.since(index));
        self.connects.record(took.as_nanos() as u64, 1);
        let role = match index.checked_sub(self.checker.receivers()) {
            None => Role::Member(index as u32),
            Some(sender) => Role::Sender(sender as u32),
        };
        self.checker.join(role, pool.output(index));
        if !self.protocol.welcomes() {
            self.welcome(pool, index);
        }
        pool.send(index);
    }

    fn receive(
        &mut self,
        pool: &mut ClientPool,
        index: usize,
        mut input: &[u8],
    ) -> Result<usize, Garbled> {
        let mut history = 0;
        if self.protocol.has_history() && pool.state(index) == State::Open {
            let is_welcome;
            (history, is_welcome) = self.skip_history(pool, index, input)?;
            if !is_welcome {
                return Ok(history);
            }
            self.welcome(pool, index);
            input = &input[history..];
        }
        let (used, is_welcome) = if self.is_receiver(index) {
            let now = pool.now();
            let was_present = self.checker.is_present(index);
            let checked = self.checker.check(index, input, now)?;
            if !was_present && self.checker.is_present(index) {
                self.arrivals.push(now);
            }
            if mem::take(&mut self.checker.is_pinged) {
                self.answer_ping(pool, index);
            }
            checked
        } else {
            answers(self.protocol, input)?
        };
        if is_welcome {
            self.welcome(pool, index);
        }
        Ok(history + used)
    }

    fn end(&mut self, pool: &mut ClientPool, index: usize, state: State, cause: Cause) {
        let is_connected = state == State::Connected;
        if is_connected {
            *pool.cuts.entry(cause).or_default() += 1;
        }
        if self.is_receiver(index) {
            self.receiving -= usize::from(is_connected);
            self.checker.leave(index, true);
        }
    }

    fn tally(&self) -> &Tally {
        self.checker.tally()
    }

    fn messages(&self) -> u64 {
        self.checker.messages()
    }

    fn members(&self, _pool: &ClientPool) -> usize {
        self.count()
    }

    fn p99(&self) -> Option<Duration> {
        self.checker.delays().quantile(0.99)
    }
}

/// Reads a broker's answers to a sender. Returns the number of bytes, and whether there was a
/// welcome.
fn answers(protocol: Protocol, input: &[u8]) -> Result<(usize, bool), Garbled> {
    let (mut used, mut is_welcome) = (0, false);
    while let Some((incoming, len)) = protocol.next(&input[used..])? {
        is_welcome |= incoming == Incoming::Welcome;
        used += len;
    }
    Ok((used, is_welcome))
}
