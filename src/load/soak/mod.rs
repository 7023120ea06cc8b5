//! The soak: members come and go, some of them misbehave, and for as long as one likes every byte
//! is checked and the server is watched for what it does not give back.
//!
//! | step | where |
//! |---|---|
//! | What is done, and when: all from one seed | `soak/plan.rs` |
//! | The clients, and what becomes of them | `soak/clients.rs` |
//! | What each of them does | `soak/steps.rs` |
//! | Whether all receive the same of every sender | `soak/checker.rs` |
//! | Whether memory and descriptors come back | `soak/leaks.rs` |
//! | What is reported of it | `soak/account.rs` |

mod account;
mod checker;
mod clients;
mod leaks;
mod plan;
mod steps;

use std::io;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::connect::Site;
use super::figures::Failures;
use super::message::Codec;
use super::own_relay::OwnRelay;
use super::plan::{Plan, Wait};
use super::pool::ClientPool;
use super::process::Process;
use super::progress::Reporter;
use super::ramp_up::MAX_CONNECTING;
use super::report::Outcome;
use super::run::{CHECK_INTERVAL, PROGRESS_TIMEOUT, Run, Span, Stall};
use account::{End, Soaked};
use checker::Checker;
use clients::SoakClients;
use leaks::Watch;
use plan::{Event, Timetable};

/// How long the server may take to close its descriptors.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long there may be only one member. After that, no others are expected to come back.
const ALONE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often all members send a message at the end, as long as some have not received any.
const ROLL_CALL_INTERVAL: Duration = Duration::from_millis(500);

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
    let mut watch = Watch::new(server);
    let codec = Codec::of_soak(site.protocol, &site.tag, plan.seed);
    let checker = Checker::new(codec);
    let clients = SoakClients::new(plan.members, plan.faults, plan.seed, checker);
    let pool = ClientPool::new(site, plan.members + plan.faults, Wait::Sleep)?;
    let mut run = Run::new(pool, clients, reporter, server, relay, stop);
    run.ramp_up()?;
    run.receive_all()?;
    let mut outcome = Outcome::default();
    let mut connected = run.pool.connected;
    // If no member receives anything, there is nothing to wait for.
    if run.deliveries() > 0 {
        let used = run.soak(plan, &mut watch)?;
        let end = run.settle(&watch)?;
        connected = end.members;
        let soaked = Soaked {
            run: &run,
            watch: &watch,
            used,
            end,
        };
        account::report(&soaked, plan, &mut outcome);
    } else {
        let tally = &run.clients.checker.tally;
        outcome.figures.failures = Failures::new(tally, &run.pool.cuts, &run.pool.refusals, 0);
    }
    outcome.interrupted = run.is_stopped();
    outcome.deliveries = run.deliveries();
    outcome.connected = connected;
    Ok(outcome)
}

impl Run<'_, SoakClients> {
    fn staying(&self) -> usize {
        self.clients.staying(&self.pool)
    }

    /// Whether there has been only one member for so long that no others are expected.
    fn is_deserted(&mut self, now: Duration) -> bool {
        if self.staying() > 1 {
            self.clients.accompanied = now;
        }
        now >= self.clients.accompanied + ALONE_TIMEOUT
    }

    /// Connects the members, if there is a server.
    fn ramp_up(&mut self) -> io::Result<()> {
        self.begin("connecting", None);
        let mut now = self.pool.now();
        let until = now + PROGRESS_TIMEOUT;
        while !self.clients.is_complete(&self.pool) && now < until && !self.is_stopped() {
            self.clients.connect(&mut self.pool, MAX_CONNECTING);
            let pool = &self.pool;
            if pool.connected + pool.connecting == 0 && !pool.refusals.is_empty() {
                break;
            }
            now = self.turn(until, true)?;
        }
        Ok(())
    }

    /// Follows the plan, until its time is over or no members are left.
    fn soak(&mut self, plan: &Plan, watch: &mut Watch<'_>) -> io::Result<Span> {
        let before = self.mark();
        let start = self.pool.now();
        let end = start + plan.lasts;
        let rates = (plan.rate.unwrap_or_default(), plan.churn);
        let mut timetable = Timetable::new(plan.seed, plan.members, rates, (start, end));
        self.begin("soaking", Some(end));
        watch.begin(start, plan.lasts);
        self.clients.start_faulty_clients(&mut self.pool);
        let mut now = start;
        // What was due before the end is done, even if this is late.
        while (now < end || timetable.next().is_some_and(|at| at < now))
            && !self.is_deserted(now)
            && !self.is_stopped()
        {
            let (clients, pool) = (&mut self.clients, &mut self.pool);
            while let Some(event) = timetable.take_due(now) {
                match event {
                    Event::Send(member) => clients.send(pool, member),
                    Event::Leave(member, how) => clients.start_leaving(pool, member, how),
                }
            }
            watch.check_up(now, pool.connected);
            let next = timetable.next().unwrap_or(end).min(watch.next());
            now = self.turn(next.min(end), true)?;
        }
        Ok(before.until(&self.mark()))
    }

    /// Ends the misbehaving clients, sends a message from every member to all others, and has the
    /// members leave. Deliveries that have not arrived by then are lost.
    fn settle(&mut self, watch: &Watch<'_>) -> io::Result<End> {
        self.begin("settling", None);
        self.clients.stop_faulty_clients(&mut self.pool);
        let mut now = self.pool.now();
        let mut stall = Stall::new((0, 0), now);
        while !self.clients.is_complete(&self.pool)
            && stall.lasts((self.deliveries(), self.staying()), now) < PROGRESS_TIMEOUT
            && !self.is_deserted(now)
            && !self.is_stopped()
        {
            now = self.turn(now + CHECK_INTERVAL, true)?;
        }
        self.receive_all()?;
        let mut end = End {
            members: self.staying(),
            ..End::default()
        };
        if !self.is_stopped() {
            self.clients.give_up();
            end.excess = self.excess(watch)?;
        }
        self.clients.leave(&mut self.pool);
        end.left_over = self.excess(watch)?;
        Ok(end)
    }

    /// Sends a message from every member, and waits until all have received these and the earlier
    /// ones.
    fn receive_all(&mut self) -> io::Result<()> {
        let mut now = self.pool.now();
        let mut stall = Stall::new(0, now);
        let mut called = None;
        loop {
            let deaf = self.clients.deaf();
            // While a member receives nothing, deliveries to the others are no progress.
            let deliveries = if deaf == 0 { self.deliveries() } else { 0 };
            if stall.lasts(deliveries, now) >= PROGRESS_TIMEOUT
                || self.is_stopped()
                || self.staying() <= 1
            {
                return Ok(());
            }
            if called.is_none_or(|at| deaf > 0 && now > at + ROLL_CALL_INTERVAL) {
                called = Some(now);
                self.clients.send_from_all(&mut self.pool);
            } else if deaf == 0 && self.clients.checker.outstanding() == 0 {
                return Ok(());
            }
            now = self.turn(now + CHECK_INTERVAL, true)?;
        }
    }

    /// The number of descriptors that the server has beyond one for each connection, when it has
    /// had time to notice which clients left.
    fn excess(&mut self, watch: &Watch<'_>) -> io::Result<Option<u64>> {
        let mut now = self.pool.now();
        let until = now + CLOSE_TIMEOUT;
        loop {
            let excess = watch.excess(self.pool.connected);
            if matches!(excess, None | Some(0)) || now >= until {
                return Ok(excess);
            }
            now = self.turn(now + CHECK_INTERVAL / 10, true)?;
        }
    }
}
