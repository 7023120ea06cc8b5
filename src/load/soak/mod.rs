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

mod checker;
mod clients;
mod leaks;
mod plan;
mod steps;

use std::io;
use std::time::Duration;

use strum::VariantArray;

use super::account;
use super::connect::Site;
use super::figures::{Figures, Gauge, ServerFigures, with_all};
use super::message::Codec;
use super::plan::{Fault, Leave, Plan, Wait};
use super::pool::ClientPool;
use super::ramp_up::MAX_CONNECTING;
use super::report::Outcome;
use super::run::{CHECK_INTERVAL, Context, PROGRESS_TIMEOUT, Run, Span, Stall};
use super::trouble::Warning;
use checker::Checker;
use clients::SoakClients;
use leaks::{MIN_JUDGED_TIME, Watch};
use plan::{Event, Timetable};

/// How long the server may take to close its descriptors.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long there may be only one member. After that, no others are expected to come back.
const ALONE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often all members send a message at the end, as long as some have not received any.
const ROLL_CALL_INTERVAL: Duration = Duration::from_millis(500);

/// Soaks a server by the plan.
///
/// # Errors
///
/// If the event loop fails.
pub(super) fn measure(plan: &Plan, site: Site, context: Context<'_>) -> io::Result<Outcome> {
    let mut watch = Watch::new(context.server);
    let codec = Codec::of_soak(site.protocol, &site.tag, plan.seed);
    let checker = Checker::new(codec);
    let clients = SoakClients::new(plan.members, plan.faults, plan.seed, checker);
    let pool = ClientPool::new(site, plan.members + plan.faults, Wait::Sleep)?;
    let mut run = Run::new(pool, clients, context);
    run.ramp_up()?;
    run.receive_all()?;
    let mut outcome = Outcome {
        connected: run.pool.connected,
        ..Outcome::default()
    };
    // If no member receives anything, there is nothing to wait for.
    if run.deliveries() > 0 {
        let used = run.soak(plan, &mut watch)?;
        run.settle(&watch, &mut outcome)?;
        outcome.figures = run.figures(&used, &watch, outcome.connected);
        outcome.curve = watch.curve();
        if plan.lasts >= MIN_JUDGED_TIME && !run.is_stopped() {
            outcome.warnings.extend(watch.growth());
        }
    }
    let (deaf, joins) = (run.clients.counts.deaf, run.clients.checker.joins);
    account::conclude(&mut run, &mut outcome, deaf, joins as usize);
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
    fn settle(&mut self, watch: &Watch<'_>, outcome: &mut Outcome) -> io::Result<()> {
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
        outcome.connected = self.staying();
        if !self.is_stopped() {
            self.clients.give_up();
            let leak = self.descriptor_leak(watch, outcome.connected)?;
            outcome.warnings.extend(leak);
        }
        self.clients.leave(&mut self.pool);
        outcome.warnings.extend(self.descriptor_leak(watch, 0)?);
        Ok(())
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

    /// Returns a warning if the server keeps more descriptors than one for each connection, when it
    /// has had time to notice which clients left. `members` are silent meanwhile.
    fn descriptor_leak(
        &mut self,
        watch: &Watch<'_>,
        members: usize,
    ) -> io::Result<Option<Warning>> {
        let mut now = self.pool.now();
        let until = now + CLOSE_TIMEOUT;
        while let Some(more @ 1..) = watch.excess(self.pool.connected) {
            if now >= until {
                return Ok(Some(Warning::DescriptorLeak { more, members }));
            }
            now = self.turn(now + CHECK_INTERVAL / 10, true)?;
        }
        Ok(None)
    }

    /// The figures of the soak, and of its members at the end.
    fn figures(&self, used: &Span, watch: &Watch<'_>, members: usize) -> Figures {
        let (checker, counts) = (&self.clients.checker, &self.clients.counts);
        let figures = account::measured(self, used, members);
        let server = watch.add_to(&figures.server.clone().unwrap_or_default());
        Figures {
            lasted_seconds: Some(used.seconds),
            joins: Some(checker.joins.into()),
            left: Some(counts.leaves.values().sum()),
            leaves: Some(with_all(Leave::VARIANTS, &counts.leaves)),
            faults: Some(with_all(Fault::VARIANTS, &counts.faults)),
            closed: Some(with_all(Fault::VARIANTS, &counts.closed)),
            closed_for_it: Some(counts.closed.values().sum()),
            heard_bytes: Some(Gauge(checker.bytes)),
            server: Some(server).filter(|server| *server != ServerFigures::default()),
            ..figures
        }
    }
}
