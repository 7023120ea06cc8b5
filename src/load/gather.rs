//! How members come: not faster than a server can take them in, and until it is known that it has.

use std::io;
use std::ops::Range;

use super::crowd::ClientPool;
use super::run::{PROGRESS_TIMEOUT_NS, Run};
use super::schedule::Schedule;

/// The maximum number of connections that are being made at a time, and of those that wait to be
/// accepted, except in a storm. Many servers have a listen backlog of a hundred or so. A
/// connection that finds it full is not answered, and is tried again after a second.
const MAX_CONNECTING: usize = 64;

/// The maximum number of connections that are opened before the existing ones have their turn.
const MAX_CONNECT_BURST: usize = 32;

/// After this long without a delivery, in nanoseconds, a message is sent to find out which members
/// receive it: while others are still connecting, and after that.
const QUIET_RAMP_UP_NS: u64 = 5_000_000;
const QUIET_CONNECTED_NS: u64 = 500_000;

/// How often the listen backlog is checked, in nanoseconds.
const ACCEPT_INTERVAL_NS: u64 = 1_000_000;

/// How members come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// As fast as the server accepts them, but no faster than so many a second.
    Measured(Option<f64>),
    /// All at once.
    Storm,
}

/// The state of a ramp-up.
#[derive(Debug)]
struct RampUp {
    /// The clients that have not begun to connect.
    left: Range<usize>,
    pace: Pace,
    schedule: Option<Schedule>,
    /// The number of connections in the listen backlog.
    queued: u64,
    /// How far it has come, and since when.
    state: (usize, u64, usize),
    since: u64,
    /// The number of deliveries, and since when no message was sent or received.
    heard: u64,
    quiet: u64,
    /// Whether a message was sent since all are connected, and since all but one have received
    /// something.
    asked: (bool, bool),
}

impl Run<'_> {
    /// Connects these clients. With `probe` it goes on until all connected members have received
    /// something: the protocol has no other sign that a member was taken in. So a message is sent
    /// whenever no others are under way.
    pub(super) fn ramp_up(
        &mut self,
        indices: Range<usize>,
        pace: Pace,
        probe: bool,
    ) -> io::Result<()> {
        let mut now = self.pool.now();
        let mut ramp_up = RampUp::new(indices, pace, now, &self.pool);
        while !self.is_stopped() {
            ramp_up.connect(&mut self.pool, now);
            if pace != Pace::Storm && self.server.is_some() {
                ramp_up.queued = self.pool.queued().unwrap_or(0);
            }
            let connected = ramp_up.is_connected(&self.pool);
            if connected && (!probe || self.pool.all_present()) {
                break;
            }
            if ramp_up.is_stuck(&mut self.pool, now) {
                break;
            }
            if probe && ramp_up.is_time_to_ask(&self.pool, connected, now) {
                self.probe(now, connected);
            }
            let until = ramp_up.next_look(&self.pool, connected, now);
            // A storm is measured, so this loop does not sleep meanwhile.
            now = self.turn(until, pace != Pace::Storm)?;
            self.done = Some(self.pool.connected() as f64 / self.pool.len() as f64);
        }
        Ok(())
    }

    /// Sends a message that shows which members receive it.
    fn probe(&mut self, now: u64, connected: bool) {
        // A sender does not receive its own message, so another one must send for the first
        // member. That comes last: while others join, the order in which two messages are sent is
        // not known to them.
        let first = u32::from(connected && self.pool.is_deaf(0));
        let senders = (first..self.pool.checker.senders()).chain(0..first);
        let mut able = senders.filter(|&sender| self.pool.can_send(sender));
        if let Some(sender) = able.next() {
            self.pool.queue(sender, now);
            self.pool.send();
        }
    }
}

impl RampUp {
    fn new(left: Range<usize>, pace: Pace, now: u64, pool: &ClientPool) -> Self {
        let schedule = match pace {
            Pace::Measured(Some(rate)) => Some(Schedule::new(now, rate, None)),
            Pace::Measured(None) | Pace::Storm => None,
        };
        Self {
            left,
            pace,
            schedule,
            queued: 0,
            state: (0, 0, 0),
            since: now,
            heard: pool.checker.tally().deliveries,
            quiet: now,
            asked: (false, false),
        }
    }

    /// Whether more may begin to connect, as far as the server is concerned.
    fn has_room(&self, pool: &ClientPool) -> bool {
        self.pace == Pace::Storm
            || (pool.connecting() < MAX_CONNECTING && self.queued < MAX_CONNECTING as u64)
    }

    /// Has some more begin to connect, if it is time for them.
    fn connect(&mut self, pool: &mut ClientPool, now: u64) {
        for _ in 0..MAX_CONNECT_BURST {
            let is_due = |schedule: &mut Schedule| schedule.take_due(now).is_some();
            if self.left.is_empty()
                || !self.has_room(pool)
                || !self.schedule.as_mut().is_none_or(is_due)
            {
                return;
            }
            pool.connect(self.left.start);
            self.left.start += 1;
        }
    }

    /// Whether all of them are connected, or will not be.
    fn is_connected(&self, pool: &ClientPool) -> bool {
        self.left.is_empty() && pool.connecting() == 0 && self.queued == 0
    }

    /// Whether waiting is of no use any longer. Clients that have not tried to connect do not,
    /// then: they would fare no better than the others.
    fn is_stuck(&mut self, pool: &mut ClientPool, now: u64) -> bool {
        let here = pool.connected() + pool.checker.present();
        let state = (here, self.queued, pool.connecting());
        if state != self.state {
            (self.since, self.state) = (now, state);
        }
        let is_waiting = (self.left.is_empty() || self.queued > 0) && pool.connecting() == 0;
        let is_stuck =
            is_waiting && (now > self.since + PROGRESS_TIMEOUT_NS || pool.connected() == 0);
        if is_stuck || pool.timed_out() >= MAX_CONNECTING as u64 {
            pool.give_up(self.left.len());
            self.left.start = self.left.end;
        }
        is_stuck
    }

    /// Whether a message must be sent now.
    fn is_time_to_ask(&mut self, pool: &ClientPool, connected: bool, now: u64) -> bool {
        let heard = pool.checker.tally().deliveries;
        if heard != self.heard {
            (self.quiet, self.heard) = (now, heard);
        }
        // Once all are connected, and once all but one have received something, there is no need
        // to wait.
        let last = connected && pool.deaf() == 1 && pool.is_deaf(0);
        let at_once = (connected && !self.asked.0) || (last && !self.asked.1);
        let ask = at_once || now > self.quiet + Self::patience(connected);
        if ask {
            self.quiet = now;
            self.asked = (connected, last);
        }
        ask
    }

    /// When to look again at the latest.
    fn next_look(&self, pool: &ClientPool, connected: bool, now: u64) -> u64 {
        if self.queued > 0 {
            return now + ACCEPT_INTERVAL_NS;
        }
        if self.left.is_empty() || !self.has_room(pool) {
            return now + Self::patience(connected);
        }
        self.schedule
            .as_ref()
            .and_then(Schedule::next)
            .unwrap_or(now)
    }

    const fn patience(connected: bool) -> u64 {
        if connected {
            QUIET_CONNECTED_NS
        } else {
            QUIET_RAMP_UP_NS
        }
    }
}
