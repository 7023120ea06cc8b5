//! The soak: members come and go, some of them misbehave, and for as long as one likes every byte
//! is checked and the server is watched for what it does not give back.
//!
//! | step | where |
//! |---|---|
//! | What is done, and when: all from one seed | `soak/plan.rs` |
//! | What is said | `soak/words.rs` |
//! | A connection, and what is on its way | `soak/client.rs` |
//! | All of them, and the loop | `soak/pool.rs` |
//! | What each of them does there | `soak/steps.rs` |
//! | Whether all hear the same of everybody | `soak/checker.rs` |
//! | Whether memory and descriptors come back | `soak/leaks.rs` |
//! | What is told of it | `soak/account.rs` |

mod account;
mod checker;
mod client;
mod leaks;
mod messages;
mod plan;
mod pool;
mod steps;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::connect::Site;
use super::figures::Failures;
use super::own_relay::OwnRelay;
use super::plan::Plan;
use super::process::{Process, Usage, own_cpu};
use super::progress::{Reporter, Status};
use super::report::Outcome;
use account::{Rest, Soaked, Used};
use checker::Checker;
use leaks::Watch;
use messages::SoakMessages;
use plan::{Event, Timetable};
use pool::SoakPool;

/// The longest message that is said, in bytes.
pub(super) const MAX_MESSAGE_SIZE: usize = messages::MAX_MESSAGE_SIZE;

/// How often to look at the progress and at the relay's log, in nanoseconds.
const CHECK_INTERVAL_NS: u64 = 100_000_000;

/// A turn that takes so much longer than planned, in nanoseconds, and not for work, was a pause:
/// this program was stopped, or its machine was.
const MIN_PAUSE_NS: u64 = 250_000_000;

/// Timeouts, in nanoseconds: for connections at the start and for deliveries at the end, and for
/// the server to close its descriptors.
const PROGRESS_TIMEOUT_NS: u64 = 5_000_000_000;
const CLOSE_TIMEOUT_NS: u64 = 2_000_000_000;

/// How long there may be only one member, in nanoseconds. After that, no others are expected to
/// come back.
const ALONE_TIMEOUT_NS: u64 = 3_000_000_000;

/// How often all members send a message at the end, as long as some have not received any.
const ROLL_CALL_INTERVAL_NS: u64 = 500_000_000;

/// One soak of one server.
#[derive(Debug)]
struct Soak<'a> {
    pool: SoakPool,
    watch: Watch<'a>,
    server: Option<&'a Process>,
    relay: Option<&'a mut OwnRelay>,
    reporter: Reporter<'a>,
    stop: &'a AtomicBool,
    doing: &'static str,
    /// When this phase began and will be over, if it is time that it takes.
    span: (u64, u64),
    looked: u64,
    /// How long this program was on a CPU by then, and how long it did not run before.
    worked: Duration,
    paused: Duration,
}

/// Soaks a server as the plan says.
///
/// # Errors
///
/// If the event loop fails.
pub(super) fn measure(
    plan: &Plan,
    site: Site,
    server: Option<&Process>,
    relay: Option<&mut OwnRelay>,
    reporter: Reporter<'_>,
    stop: &AtomicBool,
) -> io::Result<Outcome> {
    let at_start = server.and_then(|server| server.resident().ok());
    let watch = Watch::new(server);
    let checker = Checker::new(&site.tag, SoakMessages::new(plan.seed));
    let mut soak = Soak {
        pool: SoakPool::new(site, plan.members, plan.faults, plan.seed, checker)?,
        watch,
        server,
        relay,
        reporter,
        stop,
        doing: "",
        span: (0, 0),
        looked: 0,
        worked: own_cpu(),
        paused: Duration::ZERO,
    };
    soak.ramp_up()?;
    soak.receive_all()?;
    let mut outcome = Outcome::default();
    let mut connected = soak.pool.connected();
    // If no member receives anything, there is nothing to wait for.
    if soak.pool.checker.tally().deliveries > 0 {
        let used = soak.soak(plan)?;
        let rest = soak.settle()?;
        connected = rest.members;
        let soaked = Soaked {
            pool: &soak.pool,
            watch: &soak.watch,
            used,
            rest,
            at_start,
            is_stopped: soak.is_stopped(),
            paused: soak.paused,
        };
        account::report(&soaked, plan, &mut outcome);
    } else {
        let counts = &soak.pool.counts;
        let tally = soak.pool.checker.tally();
        outcome.figures.failures = Failures::new(tally, &counts.cuts, &counts.refusals, 0);
    }
    outcome.interrupted = soak.is_stopped();
    outcome.deliveries = soak.pool.checker.tally().deliveries;
    outcome.connected = connected;
    Ok(outcome)
}

impl Soak<'_> {
    fn begin(&mut self, doing: &'static str, until: Option<u64>) {
        let now = self.pool.now();
        self.doing = doing;
        self.span = (now, until.unwrap_or(now));
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One turn of the loop, until `until` at the latest. Returns the time.
    fn turn(&mut self, until: u64) -> io::Result<u64> {
        self.pool.turn(until.min(self.looked + CHECK_INTERVAL_NS))?;
        let now = self.pool.now();
        if now >= self.looked + CHECK_INTERVAL_NS {
            self.check_up(now);
        }
        Ok(now)
    }

    /// What is to be done now and then.
    fn check_up(&mut self, now: u64) {
        let late = now.saturating_sub(self.looked + CHECK_INTERVAL_NS);
        let worked = own_cpu();
        let work = worked.saturating_sub(self.worked).as_nanos() as u64;
        if late > MIN_PAUSE_NS && late > 2 * work {
            self.paused += Duration::from_nanos(late);
        }
        (self.looked, self.worked) = (now, worked);
        if let Some(relay) = &mut self.relay {
            relay.read_log();
        }
        let at = Instant::now();
        if self.reporter.is_due(at) {
            let (from, until) = self.span;
            let done = (now - from) as f64 / (until.max(from + 1) - from) as f64;
            let status = Status {
                doing: self.doing,
                done: (until > from).then_some(done.min(1.0)),
                members: self.pool.connected(),
                deliveries: self.pool.checker.tally().deliveries,
                p99: None,
            };
            self.reporter.report(at, &status);
        }
    }

    /// Has the members come, if there is a server.
    fn ramp_up(&mut self) -> io::Result<()> {
        self.begin("connecting", None);
        let mut now = self.pool.now();
        let until = now + PROGRESS_TIMEOUT_NS;
        while !self.pool.is_complete() && now < until && !self.is_stopped() {
            self.pool.ramp_up();
            if self.pool.is_refused() {
                break;
            }
            now = self.turn(until)?;
        }
        Ok(())
    }

    /// Follows the plan, until its time is over or no members are left.
    fn soak(&mut self, plan: &Plan) -> io::Result<Used> {
        let this = Process::this();
        let usage = |process: &Process| process.usage().ok();
        let before = (self.server.and_then(usage), usage(&this));
        let said = self.pool.checker.messages();
        let heard = self.pool.checker.tally().deliveries;
        let start = self.pool.now();
        let lasts = plan.lasts.as_nanos() as u64;
        let end = start + lasts;
        let rates = (plan.rate.unwrap_or_default(), plan.churn);
        let mut timetable = Timetable::new(plan.seed, plan.members, rates, (start, end));
        self.begin("soaking", Some(end));
        self.watch.begin(start, lasts);
        self.pool.start_faulty_clients();
        let (mut now, mut alive) = (start, start);
        // What was due before the end is done, even if this is late.
        while (now < end || timetable.next().is_some_and(|at| at < now))
            && now < alive + ALONE_TIMEOUT_NS
            && !self.is_stopped()
        {
            while let Some(event) = timetable.take_due(now) {
                match event {
                    Event::Say(place) => self.pool.queue(place),
                    Event::Leave(place, how) => self.pool.start_leaving(place, how),
                }
            }
            self.watch.check_up(now, self.pool.connected());
            let next = timetable.next().unwrap_or(end).min(self.watch.next());
            now = self.turn(next.min(end))?;
            if self.pool.staying() > 1 {
                alive = now;
            }
        }
        let after = (self.server.and_then(usage), usage(&this));
        let used = |before: Option<Usage>, after: Option<Usage>| Some(after?.since(&before?));
        let seconds = (now - start) as f64 / 1e9;
        let this = used(before.1, after.1).unwrap_or_default();
        Ok(Used {
            seconds,
            said: self.pool.checker.messages() - said,
            heard: self.pool.checker.tally().deliveries - heard,
            server: used(before.0, after.0),
            core: this.cpu.as_secs_f64() / seconds,
        })
    }

    /// Ends the misbehaving clients, sends a message from every member to all others, and has the
    /// members leave. Deliveries that have not arrived by then are lost.
    fn settle(&mut self) -> io::Result<Rest> {
        self.begin("settling", None);
        self.pool.stop_faulty_clients();
        let mut now = self.pool.now();
        let (mut alive, mut still, mut state) = (now, now, (0, 0));
        while !self.pool.is_complete()
            && now < still + PROGRESS_TIMEOUT_NS
            && now < alive + ALONE_TIMEOUT_NS
            && !self.is_stopped()
        {
            now = self.turn(now + CHECK_INTERVAL_NS)?;
            if self.pool.staying() > 1 {
                alive = now;
            }
            let heard = self.pool.checker.tally().deliveries;
            if state != (heard, self.pool.staying()) {
                still = now;
                state = (heard, self.pool.staying());
            }
        }
        self.receive_all()?;
        let mut rest = Rest {
            members: self.pool.staying(),
            ..Rest::default()
        };
        if !self.is_stopped() {
            self.pool.give_up();
            rest.excess = self.excess_at_rest()?;
        }
        self.pool.leave();
        rest.left_over = self.excess_at_rest()?;
        Ok(rest)
    }

    /// Sends a message from every member, and waits until all have received these and the earlier
    /// ones.
    fn receive_all(&mut self) -> io::Result<()> {
        let mut now = self.pool.now();
        let (mut still, mut called) = (now, 0);
        let mut deliveries = 0;
        while now < still + PROGRESS_TIMEOUT_NS && !self.is_stopped() && self.pool.staying() > 1 {
            let is_due = self.pool.deaf() > 0 && now > called + ROLL_CALL_INTERVAL_NS;
            if called == 0 || is_due {
                called = now;
                self.pool.queue_for_all();
            }
            if self.pool.deaf() == 0 && self.pool.checker.outstanding() == 0 {
                break;
            }
            now = self.turn(now + CHECK_INTERVAL_NS)?;
            let heard = self.pool.checker.tally().deliveries;
            // While a member receives nothing, deliveries to the others are no progress.
            if heard != deliveries && self.pool.deaf() == 0 {
                (still, deliveries) = (now, heard);
            }
        }
        Ok(())
    }

    /// The number of descriptors that the server has beyond one for each connection, when it has
    /// had time to notice which clients left.
    fn excess_at_rest(&mut self) -> io::Result<Option<u64>> {
        let mut now = self.pool.now();
        let until = now + CLOSE_TIMEOUT_NS;
        loop {
            let excess = self.watch.excess(self.pool.connected());
            if matches!(excess, None | Some(0)) || now >= until {
                return Ok(excess);
            }
            now = self.turn(now + CHECK_INTERVAL_NS / 10)?;
        }
    }
}
