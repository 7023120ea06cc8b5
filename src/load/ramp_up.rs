//! The ramp-up: members connect no faster than the server can take them in, until it is known that
//! it has.

use std::io;
use std::ops::Range;
use std::time::Duration;

use super::connect::Cause;
use super::members::Members;
use super::run::{PROGRESS_TIMEOUT, Run, Stall};
use super::schedule::Schedule;

/// The maximum number of connections that are being made at a time, and of those that wait to be
/// accepted, except in a storm. Many servers have a listen backlog of a hundred or so. A
/// connection that finds it full is not answered, and is tried again after a second.
pub(super) const MAX_CONNECTING: usize = 64;

/// The maximum number of connections that are opened before the existing ones have their turn.
const MAX_CONNECT_BURST: usize = 32;

/// After this long without a delivery, a message is sent to find out which members receive it:
/// while others are still connecting, and after that.
const PROBE_INTERVAL_CONNECTING: Duration = Duration::from_millis(5);
const PROBE_INTERVAL_CONNECTED: Duration = Duration::from_micros(500);

/// How often the listen backlog is checked.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(1);

/// How members connect.
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
    schedule: Schedule,
    /// The number of connections in the listen backlog.
    queued: u64,
    stall: Stall<(usize, u64, usize)>,
    /// The number of deliveries, and since when no message was sent or received.
    quiet: Stall<u64>,
    /// Whether a message was sent since all are connected, and since all but one have received
    /// something.
    probed: (bool, bool),
}

impl Run<'_, Members> {
    /// Connects these clients. With `probe` it goes on until all connected members have received
    /// something: the protocol has no other sign that a member was taken in. So a message is sent
    /// whenever no others are under way.
    pub(super) fn ramp_up(
        &mut self,
        clients: Range<usize>,
        pace: Pace,
        probe: bool,
    ) -> io::Result<()> {
        let mut now = self.pool.now();
        let mut ramp_up = RampUp::new(clients, pace, now, self);
        while !self.is_stopped() {
            ramp_up.connect(self, now);
            if pace != Pace::Storm && self.context.server.is_some() {
                ramp_up.queued = self.pool.queued().unwrap_or(0);
            }
            let connected = ramp_up.is_connected(self);
            if connected && (!probe || self.clients.all_present()) {
                break;
            }
            if ramp_up.is_stuck(self, now) {
                break;
            }
            if probe && ramp_up.is_time_to_probe(self, connected, now) {
                self.probe(now, connected);
            }
            let until = ramp_up.next_check(self, connected, now);
            // A storm is measured, so this loop does not sleep meanwhile.
            now = self.turn(until, pace != Pace::Storm)?;
            self.done = Some(self.pool.connected as f64 / self.pool.len() as f64);
        }
        Ok(())
    }

    /// Sends a message that shows which members receive it.
    fn probe(&mut self, now: Duration, connected: bool) {
        // A sender does not receive its own message, so another one must send for the first
        // member. That comes last: while others join, the order in which two messages are sent is
        // not known to them.
        let first = u32::from(connected && self.clients.is_deaf(0));
        let senders = self.clients.checker.senders();
        if let Some(sender) = self.able((first..senders).chain(0..first)) {
            self.queue(sender, now);
            self.send();
        }
    }
}

impl RampUp {
    fn new(left: Range<usize>, pace: Pace, now: Duration, run: &Run<'_, Members>) -> Self {
        let rate = match pace {
            Pace::Measured(Some(rate)) => rate,
            Pace::Measured(None) | Pace::Storm => f64::INFINITY,
        };
        Self {
            left,
            pace,
            schedule: Schedule::new(now, rate, None),
            queued: 0,
            stall: Stall::new((0, 0, 0), now),
            quiet: Stall::new(run.deliveries(), now),
            probed: (false, false),
        }
    }

    /// Whether more may begin to connect, as far as the server is concerned.
    fn has_room(&self, run: &Run<'_, Members>) -> bool {
        self.pace == Pace::Storm
            || (run.pool.connecting < MAX_CONNECTING && self.queued < MAX_CONNECTING as u64)
    }

    /// Has some more begin to connect, if it is time for them.
    fn connect(&mut self, run: &mut Run<'_, Members>, now: Duration) {
        for _ in 0..MAX_CONNECT_BURST {
            if !self.left.is_empty()
                && self.has_room(run)
                && self.schedule.take_due(now).is_some()
                && let Some(index) = self.left.next()
            {
                run.pool.connect(&mut run.clients, index);
            }
        }
    }

    /// Whether all of them are connected, or will not be.
    fn is_connected(&self, run: &Run<'_, Members>) -> bool {
        self.left.is_empty() && run.pool.connecting == 0 && self.queued == 0
    }

    /// Whether waiting is of no use any longer. Clients that have not tried to connect do not,
    /// then: they would fare no better than the others.
    fn is_stuck(&mut self, run: &mut Run<'_, Members>, now: Duration) -> bool {
        let pool = &mut run.pool;
        let joined = pool.connected + run.clients.checker.present;
        let stalled = self
            .stall
            .lasts((joined, self.queued, pool.connecting), now);
        let is_waiting = (self.left.is_empty() || self.queued > 0) && pool.connecting == 0;
        let is_stuck = is_waiting && (stalled > PROGRESS_TIMEOUT || pool.connected == 0);
        let timed_out = pool.refusals.get(&Cause::TimedOut).copied().unwrap_or(0);
        if is_stuck || timed_out >= MAX_CONNECTING as u64 {
            pool.give_up(self.left.len());
            self.left = 0..0;
        }
        is_stuck
    }

    /// Whether a message must be sent now.
    fn is_time_to_probe(&mut self, run: &Run<'_, Members>, connected: bool, now: Duration) -> bool {
        // A server with a history sends a message to those who join after it as a part of that. The others
        // would then seem to have lost it.
        let has_history = run.clients.checker.codec.protocol.has_history();
        if has_history && !connected && self.pace != Pace::Storm {
            return false;
        }
        let quiet = self.quiet.lasts(run.deliveries(), now);
        // Once all are connected, and once all but one have received something, there is no need
        // to wait.
        let last = connected && run.clients.deaf() == 1 && run.clients.is_deaf(0);
        let at_once = (connected && !self.probed.0) || (last && !self.probed.1);
        let is_time = at_once || quiet > probe_interval(connected);
        if is_time {
            self.quiet = Stall::new(run.deliveries(), now);
            self.probed = (connected, last);
        }
        is_time
    }

    /// When to check again at the latest.
    fn next_check(&self, run: &Run<'_, Members>, connected: bool, now: Duration) -> Duration {
        if self.queued > 0 {
            now + ACCEPT_INTERVAL
        } else if self.left.is_empty() || !self.has_room(run) {
            now + probe_interval(connected)
        } else {
            self.schedule.next().unwrap_or(now)
        }
    }
}

const fn probe_interval(connected: bool) -> Duration {
    if connected {
        PROBE_INTERVAL_CONNECTED
    } else {
        PROBE_INTERVAL_CONNECTING
    }
}
