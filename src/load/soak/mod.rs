//! The soak: members come and go, some of them misbehave, and for as long as one likes every byte
//! is checked and the server is watched for what it does not give back.
//!
//! | step | where |
//! |---|---|
//! | What is done, and when: all from one seed | `soak/plan.rs` |
//! | What is said | `soak/words.rs` |
//! | A connection, and what is on its way | `soak/guest.rs` |
//! | All of them, and the loop | `soak/party.rs` |
//! | What each of them does there | `soak/steps.rs` |
//! | Whether all hear the same of everybody | `soak/checker.rs` |
//! | Whether memory and descriptors come back | `soak/leaks.rs` |
//! | What is told of it | `soak/account.rs` |

mod account;
mod checker;
mod guest;
mod leaks;
mod party;
mod plan;
mod steps;
mod words;

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
use party::Party;
use plan::{Course, Event};
use words::Words;

pub(super) use plan::{Fault, Leave};

/// The longest message that is said, in bytes.
pub(super) const LONGEST: usize = words::LONGEST;

/// How often to look at the progress and at the relay's log, in nanoseconds.
const LOOK: u64 = 100_000_000;

/// A turn that takes so much longer than it was to, in nanoseconds, and not for work, was held up:
/// this program was stopped, or its machine was.
const HELD_UP: u64 = 250_000_000;

/// How long to wait for what does not come, in nanoseconds: connections in the beginning,
/// deliveries in the end, and that the server gives back its descriptors.
const PATIENCE: u64 = 5_000_000_000;
const NOTICED: u64 = 2_000_000_000;

/// How long there may be nobody but one who takes part as it should, in nanoseconds: after that, it
/// is not to be expected that anybody comes back.
const ALONE: u64 = 3_000_000_000;

/// How often all say something in the end, as long as not all were heard of.
const AGAIN: u64 = 500_000_000;

/// One soak of one server.
#[derive(Debug)]
struct Soak<'a> {
    party: Party,
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
    let checker = Checker::new(&site.tag, Words::new(plan.seed));
    let mut soak = Soak {
        party: Party::new(site, plan.members, plan.faults, plan.seed, checker)?,
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
    soak.gather()?;
    soak.hear_all()?;
    let mut outcome = Outcome::default();
    let mut connected = soak.party.connected();
    // Where nobody hears anybody, there is nothing to wait for.
    if soak.party.checker.tally().deliveries > 0 {
        let used = soak.soak(plan)?;
        let rest = soak.come_to_rest()?;
        connected = rest.members;
        let soaked = Soaked {
            party: &soak.party,
            watch: &soak.watch,
            used,
            rest,
            at_start,
            is_stopped: soak.is_stopped(),
            paused: soak.paused,
        };
        account::report(&soaked, plan, &mut outcome);
    } else {
        let counts = &soak.party.counts;
        let tally = soak.party.checker.tally();
        outcome.figures.failures = Failures::new(tally, &counts.cuts, &counts.refusals, 0);
    }
    outcome.interrupted = soak.is_stopped();
    outcome.deliveries = soak.party.checker.tally().deliveries;
    outcome.connected = connected;
    Ok(outcome)
}

impl Soak<'_> {
    fn begin(&mut self, doing: &'static str, until: Option<u64>) {
        let now = self.party.now();
        self.doing = doing;
        self.span = (now, until.unwrap_or(now));
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One turn of the loop, until `until` at the latest. Returns the time.
    fn turn(&mut self, until: u64) -> io::Result<u64> {
        self.party.turn(until.min(self.looked + LOOK))?;
        let now = self.party.now();
        if now >= self.looked + LOOK {
            self.look(now);
        }
        Ok(now)
    }

    /// What is to be done now and then.
    fn look(&mut self, now: u64) {
        let late = now.saturating_sub(self.looked + LOOK);
        let worked = own_cpu();
        let work = worked.saturating_sub(self.worked).as_nanos() as u64;
        if late > HELD_UP && late > 2 * work {
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
                members: self.party.connected(),
                deliveries: self.party.checker.tally().deliveries,
                p99: None,
            };
            self.reporter.report(at, &status);
        }
    }

    /// Has the members come, if there is a server.
    fn gather(&mut self) -> io::Result<()> {
        self.begin("connecting", None);
        let mut now = self.party.now();
        let until = now + PATIENCE;
        while !self.party.is_at_peace() && now < until && !self.is_stopped() {
            self.party.gather();
            if self.party.is_refused() {
                break;
            }
            now = self.turn(until)?;
        }
        Ok(())
    }

    /// Does what the plan has done, until its time is over or nobody is left to do it.
    fn soak(&mut self, plan: &Plan) -> io::Result<Used> {
        let this = Process::this();
        let usage = |process: &Process| process.usage().ok();
        let before = (self.server.and_then(usage), usage(&this));
        let said = self.party.checker.said();
        let heard = self.party.checker.tally().deliveries;
        let start = self.party.now();
        let lasts = plan.lasts.as_nanos() as u64;
        let end = start + lasts;
        let rates = (plan.rate.unwrap_or_default(), plan.churn);
        let mut course = Course::new(plan.seed, plan.members, rates, (start, end));
        self.begin("soaking", Some(end));
        self.watch.begin(start, lasts);
        self.party.begin_mischief();
        let (mut now, mut alive) = (start, start);
        // What was due before the end is done, even if this is late.
        while (now < end || course.next().is_some_and(|at| at < now))
            && now < alive + ALONE
            && !self.is_stopped()
        {
            while let Some(event) = course.take_due(now) {
                match event {
                    Event::Say(place) => self.party.say(place),
                    Event::Leave(place, how) => self.party.have_leave(place, how),
                }
            }
            self.watch.look(now, self.party.connected());
            let next = course.next().unwrap_or(end).min(self.watch.next());
            now = self.turn(next.min(end))?;
            if self.party.staying() > 1 {
                alive = now;
            }
        }
        let after = (self.server.and_then(usage), usage(&this));
        let used = |before: Option<Usage>, after: Option<Usage>| Some(after?.since(&before?));
        let seconds = (now - start) as f64 / 1e9;
        let this = used(before.1, after.1).unwrap_or_default();
        Ok(Used {
            seconds,
            said: self.party.checker.said() - said,
            heard: self.party.checker.tally().deliveries - heard,
            server: used(before.0, after.0),
            core: this.cpu.as_secs_f64() / seconds,
        })
    }

    /// Ends the mischief, has all members hear each other once more, and has them leave. What has
    /// not come by then is lost.
    fn come_to_rest(&mut self) -> io::Result<Rest> {
        self.begin("settling", None);
        self.party.end_mischief();
        let mut now = self.party.now();
        let (mut alive, mut still, mut state) = (now, now, (0, 0));
        while !self.party.is_at_peace()
            && now < still + PATIENCE
            && now < alive + ALONE
            && !self.is_stopped()
        {
            now = self.turn(now + LOOK)?;
            if self.party.staying() > 1 {
                alive = now;
            }
            let heard = self.party.checker.tally().deliveries;
            if state != (heard, self.party.staying()) {
                still = now;
                state = (heard, self.party.staying());
            }
        }
        self.hear_all()?;
        let mut rest = Rest {
            members: self.party.staying(),
            ..Rest::default()
        };
        if !self.is_stopped() {
            self.party.give_up();
            rest.excess = self.excess_at_rest()?;
        }
        self.party.leave();
        rest.left_over = self.excess_at_rest()?;
        Ok(rest)
    }

    /// All members say something, and all hear it and what was said before.
    fn hear_all(&mut self) -> io::Result<()> {
        let mut now = self.party.now();
        let (mut still, mut called) = (now, 0);
        let mut deliveries = 0;
        while now < still + PATIENCE && !self.is_stopped() && self.party.staying() > 1 {
            let is_due = self.party.deaf() > 0 && now > called + AGAIN;
            if called == 0 || is_due {
                called = now;
                self.party.call_the_roll();
            }
            if self.party.deaf() == 0 && self.party.checker.outstanding() == 0 {
                break;
            }
            now = self.turn(now + LOOK)?;
            let heard = self.party.checker.tally().deliveries;
            // While somebody hears nothing, what the others hear of it is no progress.
            if heard != deliveries && self.party.deaf() == 0 {
                (still, deliveries) = (now, heard);
            }
        }
        Ok(())
    }

    /// By how many descriptors the server has too many for the connections there are, when it has
    /// had the time to notice who left.
    fn excess_at_rest(&mut self) -> io::Result<Option<u64>> {
        let mut now = self.party.now();
        let until = now + NOTICED;
        loop {
            let excess = self.watch.excess(self.party.connected());
            if matches!(excess, None | Some(0)) || now >= until {
                return Ok(excess);
            }
            now = self.turn(now + LOOK / 10)?;
        }
    }
}
