//! The load tool measures a server under load, from outside.
//!
//! It is one thread with one poll, like the relay. It measures any server of the tutorials' protocol, and
//! two well-known brokers beside it. It checks itself as well: if the load tool was the limit, the report
//! has a warning.
//!
//! # Follow a measurement
//!
//! | step | where |
//! |---|---|
//! | The plan: what to measure, and how | `load/plan.rs` |
//! | Checks that this machine has the descriptors and ports | this module |
//! | A relay is started, if no server is named | `load/own_relay.rs` |
//! | One loop has all connections | `load/pool.rs`, `load/link.rs`, `load/connect.rs`, `load/sources.rs` |
//! | ... which are made no faster than the server accepts them | `load/ramp_up.rs` |
//! | The clients join, receive and send | `load/members.rs`, `load/protocol.rs`, `load/message.rs` |
//! | ... by a schedule that does not wait for the server | `load/schedule.rs` |
//! | Every received byte is checked | `load/checker.rs`, `load/judge.rs` |
//! | Delays are counted | `load/delays.rs` |
//! | The server's memory and CPU are read from outside | `load/process.rs` |
//! | Phases and scenarios | `load/run.rs`, `load/scenario.rs` |
//! | ... and the scenario about leaks and losses | `load/soak` |
//! | The report, for people and for programs | `load/account.rs`, `load/figures.rs`, `load/report.rs`, `load/chart.rs` |
//! | Errors, and warnings of what casts doubt on it | `load/trouble.rs` |
//!
//! **Why it spins.** While it waits for the deliveries of its messages, it polls without sleeping. A
//! server that sends to a process that is asleep spends CPU time on waking it: a microsecond or more each
//! time, which would be most of what is measured. [`Wait::Sleep`] is for machines that have one core.

mod account;
mod chart;
mod checker;
mod connect;
mod delays;
mod figures;
mod judge;
mod link;
mod members;
mod message;
mod own_relay;
mod plan;
mod pool;
mod process;
mod progress;
mod protocol;
mod ramp_up;
mod report;
mod run;
mod scenario;
mod schedule;
mod soak;
mod sources;
mod trouble;

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::client_tls::Connector;
use crate::descriptors;
use crate::units::{Count, several};
use connect::{CONNECT_TIMEOUT, Cause, Site};
use own_relay::OwnRelay;
use process::{Process, kernel_memory};
use progress::Reporter;
use report::{Identity, Outcome};
use run::{Base, Context};
use sources::Ports;
use trouble::Warning;

pub use plan::{Plan, Scenario, Server, Wait};
pub use progress::Progress;
pub use protocol::Protocol;
pub use report::Report;
pub use sources::Sources;
pub use trouble::LoadError;

/// The length of the shortest messages, in bytes: each contains its sender's number and its own.
pub const MIN_SIZE: usize = message::head_len(0);

/// The same with this many senders, whose numbers may have more digits.
#[must_use]
pub const fn min_size(senders: usize) -> usize {
    message::head_len(senders)
}

/// The length of the longest messages in a soak, in bytes.
pub const SOAK_SIZE: usize = message::MAX_SOAK_SIZE;

/// A server, and what can be observed of it.
#[derive(Debug)]
struct Target {
    server: Server,
    identity: Identity,
    process: Option<Process>,
    base: Base,
    own: Option<OwnRelay>,
    outcomes: Vec<Outcome>,
}

/// Measures the servers of the plan. Ends early, with the figures so far, when `stop` is set.
///
/// # Errors
///
/// [`LoadError`], if there is nothing to report.
pub fn run(plan: &Plan, progress: &Progress, stop: &AtomicBool) -> Result<Report, LoadError> {
    if let Some(budget) = check(plan)? {
        progress.insert(&format!("chatloop: {budget}"));
    }
    let started = SystemTime::now();
    let mut targets = vec![Target::find(plan.target.clone(), plan.pid, plan)?];
    if plan.against.is_some() {
        let other = Target::find(plan.against.clone(), None, plan)?;
        other.try_to_connect()?;
        targets.push(other);
    }
    for warning in targets.iter().filter_map(|target| target.shortage(plan)) {
        progress.insert(&format!("chatloop: {warning}"));
    }
    let measured = measure_rounds(plan, &mut targets, progress, stop);
    progress.clear();
    let interrupted = stop.load(Ordering::Relaxed);
    measured?;
    let servers = targets.into_iter();
    let servers = servers.map(|target| (target.identity, target.outcomes));
    Report::new(plan, started, servers, interrupted).ok_or(LoadError::Interrupted)
}

/// Measures the servers in alternating rounds, each of them at least once.
fn measure_rounds(
    plan: &Plan,
    targets: &mut [Target],
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<(), LoadError> {
    let count = targets.len();
    let rounds = plan.rounds;
    for turn in 0..rounds * count {
        // Every other round begins with the other server, so that neither has the better place.
        let round = turn / count;
        let index = (turn + round) % count;
        // A round that fails does not spoil the results of earlier rounds.
        let is_enough = targets.iter().all(|target| !target.outcomes.is_empty());
        let target = &mut targets[index];
        let label = match rounds {
            1 => String::new(),
            _ => format!("round {} of {rounds}, {}", round + 1, target.identity.name),
        };
        let measured = target.measure(plan, Reporter::new(progress, label), stop);
        match (measured, target.outcomes.last_mut().filter(|_| is_enough)) {
            (Ok(outcome), Some(last)) if outcome.interrupted => last.add_failures(outcome),
            (Ok(outcome), _) => target.outcomes.push(outcome),
            (Err(LoadError::Interrupted), Some(_)) => {}
            (Err(error), Some(last)) => {
                last.warnings.push(Warning::Round(error.to_string()));
                break;
            }
            (Err(error), None) => return Err(error),
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    let is_complete = targets.iter().all(|target| !target.outcomes.is_empty());
    is_complete.then_some(()).ok_or(LoadError::Interrupted)
}

/// The number of connections to one server.
fn connections(plan: &Plan, protocol: Protocol) -> usize {
    let (members, senders) = plan.cast(protocol);
    members + plan.faults + if protocol.is_broker() { senders } else { 0 }
}

/// Three characters that distinguish the messages of this run from those of another one.
fn tag_of(plan: &Plan) -> String {
    let mut chance = fastrand::Rng::with_seed(plan.seed);
    (0..3).map(|_| chance.alphanumeric()).collect()
}

/// Checks that this machine has enough descriptors and ports. Returns a line about the ports of the
/// source addresses, if the plan has any.
fn check(plan: &Plan) -> Result<Option<String>, LoadError> {
    let servers = [&plan.target, &plan.against].map(Option::as_ref);
    let protocols = servers.map(|server| server.map_or(Protocol::Chat10, |server| server.protocol));
    // The servers are measured one after the other.
    let wanted = protocols.map(|protocol| connections(plan, protocol));
    let wanted = wanted[0].max(wanted[1]);
    // A relay that this process starts has the same limit, and listens.
    let listeners = usize::from(plan.target.is_none());
    let room = descriptors::room_for_clients(descriptors::raise_limit()?, listeners);
    if wanted > room {
        return Err(LoadError::Descriptors(wanted, room));
    }
    let is_ipv4 = plan.sources.as_ref().map(Sources::is_ipv4);
    for server in servers.into_iter().flatten() {
        if is_ipv4.is_some_and(|is_ipv4| is_ipv4 != server.addr.is_ipv4()) {
            return Err(LoadError::Family(server.addr));
        }
    }
    let ports = Ports::of_this_system();
    let sources = plan.sources.as_ref().map_or(1, Sources::count);
    let (budget, range) = (ports.budget(sources), ports.to_string());
    if wanted > budget {
        return Err(LoadError::Ports {
            wanted,
            sources,
            budget,
            range,
        });
    }
    Ok(plan.sources.as_ref().map(|_| {
        let sources = several(sources as u64, "source address");
        let budget = Count(budget as f64);
        format!("{sources} with the ports {range}: enough for {budget} connections")
    }))
}

impl Target {
    /// Finds the server to watch, or starts a relay if none is named.
    fn find(server: Option<Server>, pid: Option<u32>, plan: &Plan) -> Result<Self, LoadError> {
        let (server, process, own) = if let Some(server) = server {
            Self::check_company(&server, plan)?;
            let watch = |pid| Process::watch(pid).map_err(|error| LoadError::Pid(pid, error));
            let process = match pid {
                Some(pid) => Some(watch(pid)?),
                None => Process::listening_on(server.addr),
            };
            (server, process, None)
        } else {
            let relay = OwnRelay::start(&plan.program, plan.size).map_err(LoadError::OwnRelay)?;
            let (protocol, addr) = (Protocol::Chat10, relay.addr());
            let process = Process::watch(relay.pid()).ok();
            let server = Server {
                protocol,
                tls: None,
                addr,
            };
            (server, process, Some(relay))
        };
        let pid = process.as_ref().map(Process::pid);
        let name = match &process {
            _ if own.is_some() => format!("chatloop {}", env!("CARGO_PKG_VERSION")),
            Some(process) => format!("{}, {}", process.command(), server.addr),
            None => server.addr.to_string(),
        };
        Ok(Self {
            base: Base {
                server: process.as_ref().and_then(|process| process.usage().ok()),
                kernel: kernel_memory(),
            },
            identity: Identity {
                name,
                protocol: server.scheme(),
                address: server.addr.to_string(),
                pid,
            },
            server,
            process,
            own,
            outcomes: Vec::new(),
        })
    }

    /// Refuses a room that already has members, if they can be seen.
    fn check_company(server: &Server, plan: &Plan) -> Result<(), LoadError> {
        // The members of a broker are in a channel of this run's own.
        if plan.allow_company || server.protocol.is_broker() {
            return Ok(());
        }
        match process::connections_at(server.addr) {
            None | Some(0) => Ok(()),
            Some(count) => Err(LoadError::Company(server.addr, count)),
        }
    }

    /// Makes a connection and closes it, so that a wrong address is reported before the first round.
    fn try_to_connect(&self) -> Result<(), LoadError> {
        let addr = self.server.addr;
        match TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT) {
            Ok(_) => Ok(()),
            Err(error) => Err(LoadError::connect(addr, error.into())),
        }
    }

    /// Returns a warning if the server's limit of descriptors is too low for the plan.
    fn shortage(&self, plan: &Plan) -> Option<Warning> {
        let process = self.process.as_ref()?;
        let limit = process.open_files_limit()?;
        let room = descriptors::room_for_clients(limit, 1);
        (room < connections(plan, self.server.protocol)).then(|| Warning::ServerDescriptors {
            pid: process.pid(),
            limit,
            members: plan.members,
        })
    }

    /// Measures one round.
    fn measure(
        &mut self,
        plan: &Plan,
        reporter: Reporter<'_>,
        stop: &AtomicBool,
    ) -> Result<Outcome, LoadError> {
        let tag = tag_of(plan);
        let site = Site {
            addr: self.server.addr,
            protocol: self.server.protocol,
            tls: self.server.tls.clone(),
            tag,
            sources: plan.sources.clone(),
        };
        let context = Context {
            reporter,
            stop,
            server: self.process.as_ref(),
            relay: self.own.as_mut(),
            base: self.base,
        };
        let mut outcome = match plan.scenario {
            Scenario::Soak => soak::measure(plan, site, context)?,
            _ => scenario::measure(plan, site, context)?,
        };
        let warnings = self.own.as_mut().map(OwnRelay::take_warnings);
        // The relay must warn of misbehaving clients. Its warnings matter only if others were cut.
        if plan.faults == 0 || !outcome.figures.failures.cuts.is_empty() {
            let warnings = warnings.into_iter().flatten();
            outcome.warnings.extend(warnings.map(Warning::Logged));
        }
        self.judge(&outcome, plan.scenario)?;
        // Memory that was freed when members left is not always returned to the system. So memory
        // is reported of the first round only.
        self.base = Base::default();
        Ok(outcome)
    }

    /// Checks that there is something to report.
    fn judge(&self, outcome: &Outcome, scenario: Scenario) -> Result<(), LoadError> {
        let (addr, failures) = (self.server.addr, &outcome.figures.failures);
        let (cuts, refusals) = (&failures.cuts, &failures.refusals);
        if outcome.interrupted {
            let has_figures = outcome.figures.members.is_some();
            return has_figures.then_some(()).ok_or(LoadError::Interrupted);
        }
        let is_garbled = cuts.contains_key(&Cause::Garbled);
        // An idle room has one message. Where connections failed, it may have failed with them: that
        // does not show what the others would receive.
        let is_explained = scenario == Scenario::Idle && !(cuts.is_empty() && refusals.is_empty());
        if outcome.deliveries > 0 || outcome.connected > 0 && is_explained && !is_garbled {
            return Ok(());
        }
        if outcome.connected == 0 && !cuts.is_empty() && !is_garbled {
            let (count, how) = (cuts.values().sum(), trouble::listed(cuts));
            return Err(LoadError::Ended(addr, count, how));
        }
        if outcome.connected == 0
            && let Some(&cause) = refusals.keys().next()
        {
            let refusal = self.server.tls.as_ref().and_then(Connector::refusal);
            if let (Cause::Untrusted, Some(refusal)) = (cause, refusal) {
                return Err(LoadError::Untrusted(addr, Box::new(refusal)));
            }
            return Err(LoadError::connect(addr, cause));
        }
        let causes = [refusals, cuts].into_iter();
        let causes = causes.filter(|causes| !causes.is_empty());
        let also = causes.map(|causes| format!(", and {}", trouble::listed(causes)));
        Err(LoadError::NotChat(addr, also.collect()))
    }
}
