//! How members come: not faster than a server can take them in, and until it is known that it has.

use std::io;
use std::ops::Range;

use super::crowd::ClientPool;
use super::run::{PROGRESS_TIMEOUT_NS, Run};
use super::schedule::Schedule;

/// How many connections are being made at a time, and how many at most wait to be accepted, where that
/// is not the point. Many servers have room for a hundred or so; whoever comes when it is full is
/// not answered, and tries again after a second.
const MAX_CONNECTING: usize = 64;

/// How many connections are begun before those there are have their turn.
const MAX_CONNECT_BURST: usize = 32;

/// A room in which nothing was heard for so long has heard all that was said: while others are still
/// to come, and after that.
const QUIET_RAMP_UP_NS: u64 = 5_000_000;
const QUIET_CONNECTED_NS: u64 = 500_000;

/// How long a server takes for a few things, at least.
const ACCEPT_INTERVAL_NS: u64 = 1_000_000;

/// How members come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// As fast as the server takes them in, but no faster than so many a second.
    Measured(Option<f64>),
    /// All at once.
    Storm,
}

/// Members on their way in.
#[derive(Debug)]
struct RampUp {
    /// Those that have not begun to connect.
    left: Range<usize>,
    pace: Pace,
    schedule: Option<Schedule>,
    /// How many are known to wait to be accepted.
    queued: u64,
    /// How far it has come, and since when.
    state: (usize, u64, usize),
    since: u64,
    /// How much was heard, and since when nothing was said or heard.
    heard: u64,
    quiet: u64,
    /// Whether somebody spoke since all are connected, and since only one was not heard of.
    asked: (bool, bool),
}

impl Run<'_> {
    /// Connects these. With `probe` it goes on until all who are there have heard something: the
    /// protocol has no other sign that a member was taken in. So somebody says something whenever
    /// the room is quiet.
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
            // A storm is measured, and nobody sleeps meanwhile.
            now = self.turn(until, pace != Pace::Storm)?;
            self.done = Some(self.pool.connected() as f64 / self.pool.len() as f64);
        }
        Ok(())
    }

    /// Somebody says something, so that those show who hear it.
    fn probe(&mut self, now: u64, connected: bool) {
        // Who speaks does not hear it, so another one has to speak for the first. That comes last:
        // while others join, the order in which two speak is not known to them.
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

    /// Whether there is no use in waiting any longer. Those who have not tried yet do not, then: they
    /// would fare no better than the others.
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

    /// Whether somebody is to say something now.
    fn is_time_to_ask(&mut self, pool: &ClientPool, connected: bool, now: u64) -> bool {
        let heard = pool.checker.tally().deliveries;
        if heard != self.heard {
            (self.quiet, self.heard) = (now, heard);
        }
        // Once all are connected, and once all but one were heard of, there is no need to wait.
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
