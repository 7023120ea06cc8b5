//! One measurement of one server, in the phases that scenarios are made of.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::crowd::ClientPool;
use super::ledger::Tally;
use super::own_relay::OwnRelay;
use super::process::{self, Process, Usage};
use super::progress::{Reporter, Status};
use super::trouble::Warning;

/// How often the progress, the clocks and the timeouts are checked, in nanoseconds.
const CHECK_INTERVAL_NS: u64 = 100_000_000;

/// How long to wait without progress, in nanoseconds.
pub(super) const PROGRESS_TIMEOUT_NS: u64 = 5_000_000_000;

/// The CPU use of an idle server, as a share of a core.
const IDLE_CPU_SHARE: f64 = 0.02;

/// Two clocks that are read within this time are read at the same time.
const MAX_CLOCK_READ_TIME: Duration = Duration::from_millis(10);

/// One measurement of one server.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) pool: ClientPool,
    pub(super) reporter: Reporter<'a>,
    /// Set from outside to end early.
    stop: &'a AtomicBool,
    /// The server, if it can be watched.
    pub(super) server: Option<&'a Process>,
    /// The same, if it was started for this.
    relay: Option<&'a mut OwnRelay>,
    this: Process,
    doing: &'static str,
    /// When this phase began and will be over, if it is time that it takes.
    span: (u64, u64),
    /// How much of it is done, from 0 to 1, where that is known.
    pub(super) done: Option<f64>,
    looked: u64,
    clocks: (Instant, SystemTime),
    /// For how long it did not run.
    pub(super) paused: Duration,
    /// How long it was on a CPU, when that was looked at last.
    worked: Duration,
    /// The packets that the kernel had dropped when the run began.
    dropped_before: Option<u64>,
    pub(super) warnings: Vec<Warning>,
}

/// The state at one end of what is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) at: u64,
    pub(super) said: u64,
    pub(super) tally: Tally,
    pub(super) waited: Duration,
    pub(super) server: Option<Usage>,
    pub(super) this: Usage,
}

/// What happened between two marks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) seconds: f64,
    pub(super) said: u64,
    pub(super) heard: u64,
    /// What the server used, if it can be watched.
    pub(super) server: Option<Usage>,
    /// The part of the time in which this program did not wait.
    pub(super) busy: f64,
    /// How much of a core it used.
    pub(super) core: f64,
}

impl Mark {
    pub(super) fn until(&self, after: &Self) -> Span {
        let seconds = (after.at - self.at) as f64 / 1e9;
        let waited = after.waited.saturating_sub(self.waited).as_secs_f64();
        Span {
            seconds,
            said: after.said - self.said,
            heard: after.tally.deliveries - self.tally.deliveries,
            server: self
                .server
                .zip(after.server)
                .map(|(before, after)| after.since(&before)),
            busy: (1.0 - waited / seconds).max(0.0),
            core: after.this.since(&self.this).cpu.as_secs_f64() / seconds,
        }
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(
        pool: ClientPool,
        reporter: Reporter<'a>,
        server: Option<&'a Process>,
        relay: Option<&'a mut OwnRelay>,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            pool,
            reporter,
            stop,
            server,
            relay,
            this: Process::this(),
            doing: "",
            span: (0, 0),
            done: None,
            looked: 0,
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
    pub(super) fn begin(&mut self, doing: &'static str, until: Option<u64>) {
        let now = self.pool.now();
        self.doing = doing;
        self.span = (now, until.unwrap_or(now));
        self.done = None;
    }

    /// Whether the run was asked to end early.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The state now.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            at: self.pool.now(),
            said: self.pool.checker.messages(),
            tally: *self.pool.checker.tally(),
            waited: self.pool.waited(),
            server: self.usage(),
            this: self.this.usage().unwrap_or_default(),
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.server.and_then(|server| server.usage().ok())
    }

    /// One turn of the loop, until `until` at the latest. With `sleep` it may sleep meanwhile, even
    /// where this run is to spin. Returns the time.
    pub(super) fn turn(&mut self, until: u64, sleep: bool) -> io::Result<u64> {
        let until = until.min(self.looked + CHECK_INTERVAL_NS);
        self.pool.turn(Some(until), sleep)?;
        let now = self.pool.now();
        if now >= self.looked + CHECK_INTERVAL_NS {
            self.check_up(now);
        }
        Ok(now)
    }

    /// Checks the progress, the clocks and the timeouts.
    fn check_up(&mut self, now: u64) {
        self.looked = now;
        self.pool.expire();
        // It may have been busy instead, with one long turn.
        let worked = process::own_cpu();
        let pauses: Duration = self.pool.take_pauses().into_iter().sum();
        if pauses > 2 * worked.saturating_sub(self.worked) {
            self.paused += pauses;
        }
        self.worked = worked;
        let clocks = (Instant::now(), SystemTime::now());
        let steady = clocks.0.duration_since(self.clocks.0);
        // If this was held up between the two clocks, they tell nothing of each other.
        if clocks.0.elapsed() < MAX_CLOCK_READ_TIME {
            self.warnings
                .extend(Warning::of_clocks(steady, self.clocks.1, clocks.1));
            self.clocks = clocks;
        }
        if let Some(relay) = &mut self.relay {
            relay.read_log();
        }
        if self.reporter.is_due(clocks.0) {
            let (from, until) = self.span;
            if until > from {
                let done = (now - from) as f64 / (until - from) as f64;
                self.done = Some(done.min(1.0));
            }
            let checker = &self.pool.checker;
            let status = Status {
                doing: self.doing,
                done: self.done,
                members: self.pool.members(),
                deliveries: checker.tally().deliveries,
                p99: checker.delays().quantile(0.99).map(Duration::from_nanos),
            };
            self.reporter.report(clocks.0, &status);
        }
    }

    /// Waits until the server is idle, if it can be watched, and for some time if it cannot.
    /// Without any connection there is nothing to wait for.
    pub(super) fn rest(&mut self) -> io::Result<()> {
        const IDLE_INTERVAL_NS: u64 = 200_000_000;
        let began = self.pool.now();
        let mut before = self.usage();
        while !self.is_stopped() && self.pool.connected() > 0 {
            let from = self.pool.now();
            self.sleep_until(from + IDLE_INTERVAL_NS)?;
            let (waited, now) = (self.pool.now() - began, self.usage());
            let at_rest = match (before, now) {
                (Some(before), Some(now)) => {
                    let used = now.cpu.saturating_sub(before.cpu).as_nanos() as f64;
                    used / IDLE_INTERVAL_NS as f64 <= IDLE_CPU_SHARE
                        || waited > 2 * PROGRESS_TIMEOUT_NS
                }
                _ => waited > PROGRESS_TIMEOUT_NS / 5,
            };
            if at_rest {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Sleeps while there are connections.
    pub(super) fn sleep_until(&mut self, until: u64) -> io::Result<()> {
        let mut now = self.pool.now();
        while now < until && !self.is_stopped() && self.pool.connected() > 0 {
            now = self.turn(until, true)?;
        }
        Ok(())
    }

    /// Waits for outstanding deliveries. Those that do not arrive are lost.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let mut now = self.pool.now();
        let (mut still, mut deliveries) = (now, self.pool.checker.tally().deliveries);
        while self.pool.checker.outstanding() > 0
            && now < still + PROGRESS_TIMEOUT_NS
            && !self.is_stopped()
        {
            now = self.turn(now + CHECK_INTERVAL_NS, false)?;
            let heard = self.pool.checker.tally().deliveries;
            if heard != deliveries {
                (still, deliveries) = (now, heard);
            }
        }
        if !self.is_stopped() {
            self.pool.checker.give_up();
        }
        Ok(())
    }
}
