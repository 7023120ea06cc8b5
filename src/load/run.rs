//! One measurement of one server, in the phases that scenarios are made of.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::judge::Tally;
use super::own_relay::OwnRelay;
use super::pool::{Behaviour, ClientPool};
use super::process::{self, Process, Usage};
use super::progress::{Reporter, Status};
use super::trouble::Warning;

/// How often the progress and the clocks are checked.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How long to wait without progress.
pub(super) const PROGRESS_TIMEOUT: Duration = Duration::from_secs(5);

/// A check that is so much later than planned was held up: this program was stopped, or its machine
/// was.
const MIN_PAUSE: Duration = Duration::from_millis(250);

/// Two clocks that are read within this time are read at the same time.
const MAX_CLOCK_READ_TIME: Duration = Duration::from_millis(10);

/// What the server and the kernel held before the first member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Base {
    pub(super) server: Option<Usage>,
    pub(super) kernel: Option<u64>,
}

/// The surroundings of a run.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) reporter: Reporter<'a>,
    /// Set from outside to end early.
    pub(super) stop: &'a AtomicBool,
    /// The server, if it can be watched.
    pub(super) server: Option<&'a Process>,
    /// The same, if it was started for this.
    pub(super) relay: Option<&'a mut OwnRelay>,
    /// What was in use before the first member.
    pub(super) base: Base,
}

/// One measurement of one server.
#[derive(Debug)]
pub(super) struct Run<'a, C> {
    pub(super) pool: ClientPool,
    pub(super) clients: C,
    pub(super) context: Context<'a>,
    doing: &'static str,
    /// When this phase began and will be over, if it is time that it takes.
    phase: (Duration, Duration),
    /// How much of it is done, from 0 to 1, where that is known.
    pub(super) done: Option<f64>,
    checked: Duration,
    clocks: (Instant, SystemTime),
    /// For how long this program did not run.
    pub(super) paused: Duration,
    /// How long it was on a CPU at the last check.
    worked: Duration,
    /// The packets that the kernel had dropped when the run began.
    dropped_before: Option<u64>,
    pub(super) warnings: Vec<Warning>,
}

/// The state at one end of what is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) at: Duration,
    pub(super) sent: u64,
    pub(super) tally: Tally,
    pub(super) waited: Duration,
    pub(super) server: Option<Usage>,
    /// The CPU time of this program.
    own_cpu: Duration,
}

/// What happened between two marks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) seconds: f64,
    /// The number of messages that were sent.
    pub(super) sent: u64,
    pub(super) deliveries: u64,
    /// What the server used, if it can be watched.
    pub(super) server: Option<Usage>,
    /// The part of the time in which this program did not wait.
    pub(super) busy: f64,
    /// How much of a core it used.
    pub(super) core: f64,
}

impl Mark {
    pub(super) fn until(&self, after: &Self) -> Span {
        let seconds = after.at.saturating_sub(self.at).as_secs_f64();
        let waited = after.waited.saturating_sub(self.waited).as_secs_f64();
        Span {
            seconds,
            sent: after.sent - self.sent,
            deliveries: after.tally.deliveries - self.tally.deliveries,
            server: self
                .server
                .zip(after.server)
                .map(|(before, after)| after.since(&before)),
            busy: (1.0 - waited / seconds).max(0.0),
            core: after.own_cpu.saturating_sub(self.own_cpu).as_secs_f64() / seconds,
        }
    }
}

/// A `Stall` notices that a state does not change.
#[derive(Debug)]
pub(super) struct Stall<T> {
    state: T,
    since: Duration,
}

impl<T: PartialEq> Stall<T> {
    pub(super) const fn new(state: T, since: Duration) -> Self {
        Self { state, since }
    }

    /// For how long the state has not changed.
    pub(super) fn lasts(&mut self, state: T, now: Duration) -> Duration {
        if state != self.state {
            *self = Self::new(state, now);
        }
        now.saturating_sub(self.since)
    }
}

impl<'a, C: Behaviour> Run<'a, C> {
    pub(super) fn new(pool: ClientPool, clients: C, context: Context<'a>) -> Self {
        Self {
            pool,
            clients,
            context,
            doing: "",
            phase: (Duration::ZERO, Duration::ZERO),
            done: None,
            checked: Duration::ZERO,
            clocks: (Instant::now(), SystemTime::now()),
            paused: Duration::ZERO,
            worked: process::own_cpu(),
            dropped_before: process::dropped_packets(),
            warnings: Vec::new(),
        }
    }

    /// The number of packets that the kernel has dropped since the run began, if that can be seen.
    pub(super) fn dropped_packets(&self) -> u64 {
        let dropped = process::dropped_packets().zip(self.dropped_before);
        dropped.map_or(0, |(now, before)| now.saturating_sub(before))
    }

    /// Begins a phase, which is over at `until` if it is time that it takes.
    pub(super) fn begin(&mut self, doing: &'static str, until: Option<Duration>) {
        let now = self.pool.now();
        self.doing = doing;
        self.phase = (now, until.unwrap_or(now));
        self.done = None;
    }

    /// Whether the run was asked to end early.
    pub(super) fn is_stopped(&self) -> bool {
        self.context.stop.load(Ordering::Relaxed)
    }

    /// The number of deliveries so far.
    pub(super) fn deliveries(&self) -> u64 {
        self.clients.tally().deliveries
    }

    /// The state now.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            at: self.pool.now(),
            sent: self.clients.messages(),
            tally: *self.clients.tally(),
            waited: self.pool.waited,
            server: self.usage(),
            own_cpu: process::own_cpu(),
        }
    }

    /// What the server has used, if it can be watched.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.context.server.and_then(|server| server.usage().ok())
    }

    /// One turn of the loop, until `until` at the latest. With `sleep` it may sleep meanwhile, even
    /// where this run is to spin. Returns the time.
    pub(super) fn turn(&mut self, until: Duration, sleep: bool) -> io::Result<Duration> {
        let until = until.min(self.checked + CHECK_INTERVAL);
        self.pool.turn(&mut self.clients, until, sleep)?;
        let now = self.pool.now();
        if now >= self.checked + CHECK_INTERVAL {
            self.check_up(now);
        }
        Ok(now)
    }

    /// Checks the progress and the clocks.
    fn check_up(&mut self, now: Duration) {
        let late = now.saturating_sub(self.checked + CHECK_INTERVAL);
        // It may have been busy instead, with one long turn.
        let worked = process::own_cpu();
        if late > MIN_PAUSE && late > 2 * worked.saturating_sub(self.worked) {
            self.paused += late;
        }
        (self.checked, self.worked) = (now, worked);
        let clocks = (Instant::now(), SystemTime::now());
        let steady = clocks.0.duration_since(self.clocks.0);
        // If this was held up between the two clocks, they show nothing of each other.
        if clocks.0.elapsed() < MAX_CLOCK_READ_TIME {
            self.warnings
                .extend(Warning::of_clocks(steady, self.clocks.1, clocks.1));
            self.clocks = clocks;
        }
        if let Some(relay) = &mut self.context.relay {
            relay.read_log();
        }
        if self.context.reporter.is_due(clocks.0) {
            let (from, until) = self.phase;
            if until > from {
                let done = now
                    .saturating_sub(from)
                    .div_duration_f64(until.saturating_sub(from));
                self.done = Some(done.min(1.0));
            }
            let status = Status {
                doing: self.doing,
                done: self.done,
                members: self.clients.members(&self.pool),
                deliveries: self.deliveries(),
                p99: self.clients.delays().and_then(|it| it.quantile(0.99)),
            };
            self.context.reporter.report(clocks.0, &status);
        }
    }

    /// Sleeps while there are connections.
    pub(super) fn sleep_until(&mut self, until: Duration) -> io::Result<()> {
        let mut now = self.pool.now();
        while now < until && !self.is_stopped() && self.pool.connected > 0 {
            now = self.turn(until, true)?;
        }
        Ok(())
    }
}
