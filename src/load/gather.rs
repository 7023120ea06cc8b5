//! How members come: not faster than a server can take them in, and until it is known that it has.

use std::io;
use std::ops::Range;

use super::crowd::Crowd;
use super::run::{PATIENCE, Run};
use super::schedule::Schedule;

/// How many connections are being made at a time, and how many at most wait to be accepted, where that
/// is not the point. Many servers have room for a hundred or so; whoever comes when it is full is
/// not answered, and tries again after a second.
const CONNECTING: usize = 64;

/// How many connections are begun before those there are have their turn.
const BURST: usize = 32;

/// A room in which nothing was heard for so long has heard all that was said: while others are still
/// to come, and after that.
const QUIET: u64 = 5_000_000;
const STILL: u64 = 500_000;

/// How long a server takes for a few things, at least.
const MOMENT: u64 = 1_000_000;

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
struct Gathering {
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
    pub(super) fn gather(
        &mut self,
        indices: Range<usize>,
        pace: Pace,
        probe: bool,
    ) -> io::Result<()> {
        let mut now = self.crowd.now();
        let mut gathering = Gathering::new(indices, pace, now, &self.crowd);
        while !self.is_stopped() {
            gathering.connect(&mut self.crowd, now);
            if pace != Pace::Storm && self.server.is_some() {
                gathering.queued = self.crowd.queued().unwrap_or(0);
            }
            let connected = gathering.is_connected(&self.crowd);
            if connected && (!probe || self.crowd.all_here()) {
                break;
            }
            if gathering.is_stuck(&mut self.crowd, now) {
                break;
            }
            if probe && gathering.is_time_to_ask(&self.crowd, connected, now) {
                self.probe(now, connected);
            }
            let until = gathering.next_look(&self.crowd, connected, now);
            // A storm is measured, and nobody sleeps meanwhile.
            now = self.turn(until, pace != Pace::Storm)?;
            self.done = Some(self.crowd.connected() as f64 / self.crowd.len() as f64);
        }
        Ok(())
    }

    /// Somebody says something, so that those show who hear it.
    fn probe(&mut self, now: u64, connected: bool) {
        // Who speaks does not hear it, so another one has to speak for the first. That comes last:
        // while others join, the order in which two speak is not known to them.
        let first = u32::from(connected && self.crowd.misses(0));
        let speakers = (first..self.crowd.ledger.speakers()).chain(0..first);
        let mut able = speakers.filter(|&speaker| self.crowd.can_say(speaker));
        if let Some(speaker) = able.next() {
            self.crowd.say(speaker, now);
            self.crowd.send();
        }
    }
}

impl Gathering {
    fn new(left: Range<usize>, pace: Pace, now: u64, crowd: &Crowd) -> Self {
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
            heard: crowd.ledger.tally().deliveries,
            quiet: now,
            asked: (false, false),
        }
    }

    /// Whether more may begin to connect, as far as the server is concerned.
    fn has_room(&self, crowd: &Crowd) -> bool {
        self.pace == Pace::Storm
            || (crowd.connecting() < CONNECTING && self.queued < CONNECTING as u64)
    }

    /// Has some more begin to connect, if it is time for them.
    fn connect(&mut self, crowd: &mut Crowd, now: u64) {
        for _ in 0..BURST {
            let is_due = |schedule: &mut Schedule| schedule.take_due(now).is_some();
            if self.left.is_empty()
                || !self.has_room(crowd)
                || !self.schedule.as_mut().is_none_or(is_due)
            {
                return;
            }
            crowd.connect(self.left.start);
            self.left.start += 1;
        }
    }

    /// Whether all of them are connected, or will not be.
    fn is_connected(&self, crowd: &Crowd) -> bool {
        self.left.is_empty() && crowd.connecting() == 0 && self.queued == 0
    }

    /// Whether there is no use in waiting any longer. Those who have not tried yet do not, then: they
    /// would fare no better than the others.
    fn is_stuck(&mut self, crowd: &mut Crowd, now: u64) -> bool {
        let here = crowd.connected() + crowd.ledger.here();
        let state = (here, self.queued, crowd.connecting());
        if state != self.state {
            (self.since, self.state) = (now, state);
        }
        let is_waiting = (self.left.is_empty() || self.queued > 0) && crowd.connecting() == 0;
        let is_stuck = is_waiting && (now > self.since + PATIENCE || crowd.connected() == 0);
        if is_stuck || crowd.timed_out() >= CONNECTING as u64 {
            crowd.give_up(self.left.len());
            self.left.start = self.left.end;
        }
        is_stuck
    }

    /// Whether somebody is to say something now.
    fn is_time_to_ask(&mut self, crowd: &Crowd, connected: bool, now: u64) -> bool {
        let heard = crowd.ledger.tally().deliveries;
        if heard != self.heard {
            (self.quiet, self.heard) = (now, heard);
        }
        // Once all are connected, and once all but one were heard of, there is no need to wait.
        let last = connected && crowd.deaf() == 1 && crowd.misses(0);
        let at_once = (connected && !self.asked.0) || (last && !self.asked.1);
        let ask = at_once || now > self.quiet + Self::patience(connected);
        if ask {
            self.quiet = now;
            self.asked = (connected, last);
        }
        ask
    }

    /// When to look again at the latest.
    fn next_look(&self, crowd: &Crowd, connected: bool, now: u64) -> u64 {
        if self.queued > 0 {
            return now + MOMENT;
        }
        if self.left.is_empty() || !self.has_room(crowd) {
            return now + Self::patience(connected);
        }
        self.schedule
            .as_ref()
            .and_then(Schedule::next)
            .unwrap_or(now)
    }

    const fn patience(connected: bool) -> u64 {
        if connected { STILL } else { QUIET }
    }
}
