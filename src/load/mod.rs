//! The load generator: what a server does under load, measured from outside.
//!
//! One thread and one poll, like the relay. It measures any server that speaks the tutorials' protocol,
//! and two well-known brokers beside it, and is strict with itself as well: when it was the load tool
//! that was slow, it says so.
//!
//! # Follow a measurement
//!
//! | step | where |
//! |---|---|
//! | What is to be measured | `load/plan.rs` |
//! | Whether this machine can | this module |
//! | A relay is started, if no server is named | `load/own_relay.rs` |
//! | One loop has all connections | `load/pool.rs`, `load/connect.rs`, `load/sources.rs` |
//! | ... which are made no faster than the server accepts them | `load/ramp_up.rs` |
//! | The clients join, receive and send | `load/members.rs`, `load/protocol.rs`, `load/message.rs` |
//! | ... by a schedule that does not wait for the server | `load/schedule.rs` |
//! | Every byte that comes back is checked | `load/checker.rs`, `load/judge.rs` |
//! | Delays are counted | `load/delays.rs` |
//! | The server's memory and CPU are read from outside | `load/process.rs` |
//! | Phases and scenarios | `load/run.rs`, `load/scenario.rs` |
//! | ... and the one that is about something else: that nothing is lost or leaks | `load/soak` |
//! | What came of it, for people and for programs | `load/account.rs`, `load/figures.rs`, `load/report.rs`, `load/chart.rs` |
//! | What casts doubt on it | `load/warning.rs` |
//!
//! **Why it spins.** While it waits for what it said to come back, it polls without sleeping. A
//! server that sends to a process that is asleep pays for waking it: a microsecond or more each time,
//! which would be most of what is measured. [`Wait::Sleep`] is for machines that have but one core.

mod account;
mod chart;
mod checker;
mod connect;
mod delays;
mod figures;
mod judge;
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
mod units;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::descriptors;
use account::Base;
use checker::DeliveryChecker;
use connect::{CONNECT_TIMEOUT, Cause, Site};
use judge::Codec;
use members::Members;
use message::MessageFormat;
use own_relay::OwnRelay;
use pool::ClientPool;
use process::{Process, kernel_memory};
use progress::Reporter;
use report::{Identity, Outcome};
use run::Run;
use sources::Ports;
use trouble::Warning;
use units::Count;

pub use plan::{Plan, Scenario, Server, Wait};
pub use progress::Progress;
pub use protocol::Protocol;
pub use report::Report;
pub use sources::Sources;

/// The length of the shortest messages, in bytes: each contains its sender's number and its own.
pub const MIN_SIZE: usize = message::head_len(0);

/// The same with this many senders, whose numbers may have more digits.
#[must_use]
pub const fn min_size(senders: usize) -> usize {
    message::head_len(senders)
}

/// How long messages are at most in a soak, in bytes.
pub const SOAK_SIZE: usize = message::MAX_SOAK_SIZE;

/// Why there is no result.
#[derive(Debug)]
pub enum LoadError {
    /// There are not enough descriptors on this side.
    Descriptors {
        /// How many connections there are to be.
        wanted: usize,
        /// How many there is room for.
        room: usize,
    },
    /// There are not enough ports on this side.
    Ports {
        /// How many connections there are to be.
        wanted: usize,
        /// From how many source addresses.
        sources: usize,
        /// How many there can be from those.
        budget: usize,
        /// The ports of each.
        range: String,
    },
    /// The source addresses are of another kind than the server's.
    Family(SocketAddr),
    /// There is no relay to measure.
    OwnRelay(io::Error),
    /// There is no such process, or it cannot be watched.
    Pid(u32, io::Error),
    /// No connection was made.
    Connect {
        /// To where.
        addr: SocketAddr,
        /// Why not.
        why: String,
    },
    /// There are connections in the room already.
    Company {
        /// Which server.
        addr: SocketAddr,
        /// How many.
        count: usize,
    },
    /// The server ended all connections.
    Ended {
        /// Which server.
        addr: SocketAddr,
        /// How many there were.
        count: u64,
        /// How.
        how: String,
    },
    /// No member receives messages; and what else went wrong, if anything did.
    NotChat(SocketAddr, String),
    /// It was ended before there was anything to report.
    Interrupted,
    /// The event loop failed.
    Io(io::Error),
}

impl LoadError {
    fn connect(addr: SocketAddr, cause: Cause) -> Self {
        let why = trouble::words(cause) + trouble::remedy(cause);
        Self::Connect { addr, why }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptors { wanted, room } => write!(
                f,
                "{wanted} connections are more than the open-file limit has room for, which is \
                 {room}; ask for fewer, or raise it (ulimit -Hn)"
            ),
            Self::Ports {
                wanted,
                sources,
                budget,
                range,
            } => write!(
                f,
                "{wanted} connections need more ports than {sources} source address{} {} ({range}: \
                 {budget} in all); give more addresses, as in --bind 127.0.0.1-127.0.0.{}",
                if *sources == 1 { "" } else { "es" },
                if *sources == 1 { "has" } else { "have" },
                wanted.div_ceil((budget / sources).max(1))
            ),
            Self::Family(addr) => write!(f, "--bind: {addr} cannot be reached from there"),
            Self::OwnRelay(error) => write!(f, "cannot start a relay to measure: {error}"),
            Self::Pid(pid, error) => write!(f, "--pid {pid}: cannot watch it: {error}"),
            Self::Connect { addr, why } => write!(f, "cannot connect to {addr}: {why}"),
            Self::Company { addr, count } => write!(
                f,
                "{addr} has {count} connection{} already, which would receive all messages of this \
                 measurement; with --yes it is measured all the same",
                if *count == 1 { "" } else { "s" }
            ),
            Self::Ended { addr, count, how } => write!(
                f,
                "{addr} took {count} connections, and then all of them ended: {how}; did the server \
                 crash? One that uses select() cannot have more than about 1,000"
            ),
            Self::NotChat(addr, also) => write!(
                f,
                "{addr} accepts connections, but no member receives the messages of others{also}; is it a chat \
                 server of ten-byte headers? `redis://`, `mqtt://` and `ws://` go before other addresses"
            ),
            Self::Interrupted => f.write_str("ended before there was anything to report"),
            Self::Io(error) => write!(f, "the event loop failed: {error}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// A server with what is known of it.
#[derive(Debug)]
struct Target {
    server: Server,
    process: Option<Process>,
    base: Base,
    own: Option<OwnRelay>,
    name: String,
}

/// Measures what the plan says. It ends early when `stop` is set, with what it has by then.
///
/// # Errors
///
/// [`LoadError`], if there is nothing to tell. Warning that leaves something to tell is in the report.
pub fn run(plan: &Plan, progress: &mut Progress, stop: &AtomicBool) -> Result<Report, LoadError> {
    if let Some(budget) = check(plan)? {
        progress.insert(&format!("chatloop: {budget}"));
    }
    let started = SystemTime::now();
    let mut targets = vec![Target::find(plan.target, plan.pid, plan)?];
    if plan.against.is_some() {
        targets.push(Target::find(plan.against, None, plan)?);
    }
    if let Some(other) = targets.get(1) {
        other.try_to_connect()?;
    }
    for target in &targets {
        if let Some(warning) = target.shortage(plan) {
            progress.insert(&format!("chatloop: {warning}"));
        }
    }
    let rounds = if targets.len() > 1 { plan.rounds } else { 1 };
    let mut outcomes: Vec<Vec<Outcome>> = targets.iter().map(|_| Vec::new()).collect();
    'rounds: for round in 0..rounds {
        for turn in 0..targets.len() {
            // In turns, and the other first every other time, so that neither has the better place.
            let index = (turn + round) % targets.len();
            let target = &mut targets[index];
            let label = match rounds {
                1 => String::new(),
                _ => format!("round {} of {rounds}, {}", round + 1, target.name),
            };
            let reporter = Reporter::new(progress, label);
            let measured = target.measure(plan, reporter, stop);
            // What several rounds have told is not spoilt by one that did not come to its end.
            let is_enough = outcomes.iter().all(|rounds| !rounds.is_empty());
            let rounds = &mut outcomes[index];
            match (measured, rounds.last_mut().filter(|_| is_enough)) {
                (Ok(outcome), Some(last)) if outcome.interrupted => last.add_failures(outcome),
                (Ok(outcome), _) => rounds.push(outcome),
                (Err(LoadError::Interrupted), Some(_)) => {}
                (Err(error), Some(last)) => {
                    last.warnings.push(Warning::Round(error.to_string()));
                    break 'rounds;
                }
                (Err(error), None) => {
                    progress.clear();
                    return Err(error);
                }
            }
            if stop.load(Ordering::Relaxed) {
                break 'rounds;
            }
        }
    }
    progress.clear();
    let is_cut_short = stop.load(Ordering::Relaxed);
    if is_cut_short && outcomes.iter().any(Vec::is_empty) && targets.len() > 1 {
        return Err(LoadError::Interrupted);
    }
    let identities = targets.iter().map(|target| Identity {
        name: target.name.clone(),
        server: target.server,
        pid: target.process.as_ref().map(Process::pid),
    });
    let servers = identities.zip(outcomes).collect();
    Report::new(plan, started, servers, is_cut_short).ok_or(LoadError::Interrupted)
}

/// How many connections there are to one server.
fn connections(plan: &Plan, protocol: Protocol) -> usize {
    let (members, senders) = cast(plan, protocol);
    members + plan.faults + if protocol.is_broker() { senders } else { 0 }
}

/// The number of receivers and of senders. A message has as many receivers with every protocol:
/// one fewer than there are members.
fn cast(plan: &Plan, protocol: Protocol) -> (usize, usize) {
    if protocol.is_broker() {
        (plan.members - 1, plan.senders)
    } else {
        // Two at least, since a sender does not receive its own messages.
        (plan.members, plan.senders.max(2))
    }
}

/// Three characters of a run's own, so that two runs at the same time can tell their messages
/// apart.
fn tag_of(plan: &Plan) -> String {
    let mut chance = fastrand::Rng::with_seed(plan.seed);
    (0..3).map(|_| chance.alphanumeric()).collect()
}

/// Whether this machine can do it, and if source addresses were given, what ports they have.
fn check(plan: &Plan) -> Result<Option<String>, LoadError> {
    let servers = [plan.target, plan.against];
    let protocols = servers.map(|server| server.map_or(Protocol::Chat10, |server| server.protocol));
    let wanted = protocols.map(|protocol| connections(plan, protocol));
    // One server after the other.
    let wanted = wanted[0].max(wanted[1]);
    let limit = descriptors::raise_limit().map_err(LoadError::Io)?;
    // A relay of our own has the same limit, and listens.
    let listeners = usize::from(plan.target.is_none());
    let room = descriptors::room_for_clients(limit, listeners);
    if wanted > room {
        return Err(LoadError::Descriptors { wanted, room });
    }
    for server in servers.into_iter().flatten() {
        if plan
            .sources
            .is_some_and(|sources| sources.is_ipv4() != server.addr.is_ipv4())
        {
            return Err(LoadError::Family(server.addr));
        }
    }
    let ports = Ports::of_this_system();
    let sources = plan.sources.map_or(1, |sources| sources.count());
    let budget = ports.budget(sources);
    if wanted > budget {
        return Err(LoadError::Ports {
            wanted,
            sources,
            budget,
            range: ports.to_string(),
        });
    }
    Ok(plan.sources.map(|sources| {
        format!(
            "{} source address{} with the ports {ports}: enough for {} connections",
            Count(sources.count() as f64),
            if sources.count() == 1 { "" } else { "es" },
            Count(budget as f64)
        )
    }))
}

impl Target {
    fn find(server: Option<Server>, pid: Option<u32>, plan: &Plan) -> Result<Self, LoadError> {
        let watch = |pid| Process::watch(pid).map_err(|error| LoadError::Pid(pid, error));
        let (server, process, own) = if let Some(server) = server {
            Self::find_company(server, plan)?;
            let process = match pid {
                Some(pid) => Some(watch(pid)?),
                None => Process::listening_on(server.addr),
            };
            (server, process, None)
        } else {
            let relay = OwnRelay::start(&plan.program, plan.size).map_err(LoadError::OwnRelay)?;
            let server = Server {
                protocol: Protocol::Chat10,
                addr: relay.addr(),
            };
            (server, Process::watch(relay.pid()).ok(), Some(relay))
        };
        let command = process.as_ref().map(Process::command);
        let name = match (&own, command) {
            (Some(_), _) => format!("chatloop {}", env!("CARGO_PKG_VERSION")),
            (None, Some(command)) => format!("{command}, {}", server.addr),
            (None, None) => server.addr.to_string(),
        };
        Ok(Self {
            base: Base {
                server: process.as_ref().and_then(|process| process.usage().ok()),
                kernel: kernel_memory(),
            },
            server,
            process,
            own,
            name,
        })
    }

    /// Refuses a room that has members already, as far as that can be seen.
    fn find_company(server: Server, plan: &Plan) -> Result<(), LoadError> {
        let Server { protocol, addr } = server;
        // A broker's members are in a channel of this run's own.
        if plan.allow_company || protocol.is_broker() {
            return Ok(());
        }
        match process::connections_at(addr) {
            None | Some(0) => Ok(()),
            Some(count) => Err(LoadError::Company { addr, count }),
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

    /// Whether the server can be seen to have too few descriptors.
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

    fn measure(
        &mut self,
        plan: &Plan,
        reporter: Reporter<'_>,
        stop: &AtomicBool,
    ) -> Result<Outcome, LoadError> {
        let outcome = match plan.scenario {
            Scenario::Soak => self.soak(plan, reporter, stop)?,
            _ => self.load(plan, reporter, stop)?,
        };
        self.judge(&outcome, plan.scenario)?;
        // Memory that was freed when members left is not always returned to the system. So memory
        // is reported of the first round only.
        self.base = Base::default();
        Ok(outcome)
    }

    fn load(
        &mut self,
        plan: &Plan,
        reporter: Reporter<'_>,
        stop: &AtomicBool,
    ) -> Result<Outcome, LoadError> {
        let tag = tag_of(plan);
        let protocol = self.server.protocol;
        let (receivers, senders) = cast(plan, protocol);
        let format = MessageFormat::new(plan.size, plan.senders, plan.seed);
        let codec = Codec::new(protocol, &tag, format);
        let checker = DeliveryChecker::new(codec, receivers, senders);
        let members = Members::new(checker, protocol);
        let apart = if protocol.is_broker() { senders } else { 0 };
        let site = self.site(plan, tag);
        let pool = ClientPool::new(site, receivers + apart, plan.wait).map_err(LoadError::Io)?;
        let (server, relay) = (self.process.as_ref(), self.own.as_mut());
        let mut run = Run::new(pool, members, reporter, server, relay, stop);
        let measured = scenario::measure(&mut run, plan, self.base);
        let (deliveries, connected) = (run.deliveries(), run.pool.connected());
        let mut outcome = measured.map_err(LoadError::Io)?;
        outcome.warnings.extend(self.warnings());
        outcome.deliveries = deliveries;
        outcome.connected = connected;
        Ok(outcome)
    }

    fn soak(
        &mut self,
        plan: &Plan,
        reporter: Reporter<'_>,
        stop: &AtomicBool,
    ) -> Result<Outcome, LoadError> {
        let site = self.site(plan, tag_of(plan));
        let (server, relay) = (self.process.as_ref(), self.own.as_mut());
        let measured = soak::measure(plan, site, server, relay, reporter, stop);
        let mut outcome = measured.map_err(LoadError::Io)?;
        let warnings = self.warnings();
        // The relay must warn of misbehaving clients. Its warnings matter only if others were cut.
        if !outcome.figures.failures.cuts.is_empty() || plan.faults == 0 {
            outcome.warnings.extend(warnings);
        }
        Ok(outcome)
    }

    fn site(&self, plan: &Plan, tag: String) -> Site {
        Site {
            addr: self.server.addr,
            protocol: self.server.protocol,
            tag,
            sources: plan.sources,
        }
    }

    /// What our own relay has warned of.
    fn warnings(&mut self) -> Vec<Warning> {
        let Some(own) = &mut self.own else {
            return Vec::new();
        };
        let (mut told, count) = own.take_warnings();
        let more = count - told.len();
        if more > 0 {
            told.push(format!("and {more} warnings more"));
        }
        told.into_iter().map(Warning::Logged).collect()
    }

    /// Whether there is anything to report.
    fn judge(&self, outcome: &Outcome, scenario: Scenario) -> Result<(), LoadError> {
        let (addr, failures) = (self.server.addr, &outcome.figures.failures);
        if outcome.interrupted {
            let is_something = outcome.figures.members.is_some();
            return is_something.then_some(()).ok_or(LoadError::Interrupted);
        }
        if outcome.deliveries > 0 {
            return Ok(());
        }
        let spoke_otherwise = failures.cuts.contains_key(&Cause::Garbled);
        if outcome.connected == 0 && !failures.cuts.is_empty() && !spoke_otherwise {
            return Err(LoadError::Ended {
                addr,
                count: failures.cuts.values().sum(),
                how: trouble::listed(&failures.cuts),
            });
        }
        // An idle room has one message. Where connections failed, it may have failed with them: that does
        // not show what the others would receive.
        let is_explained = !(failures.cuts.is_empty() && failures.refusals.is_empty());
        if scenario == Scenario::Idle && outcome.connected > 0 && is_explained && !spoke_otherwise {
            return Ok(());
        }
        match failures.refusals.keys().next() {
            Some(&cause) if outcome.connected == 0 => Err(LoadError::connect(addr, cause)),
            _ => {
                let mut also = String::new();
                for causes in [&failures.refusals, &failures.cuts] {
                    if !causes.is_empty() {
                        also = format!("{also}, and {}", trouble::listed(causes));
                    }
                }
                Err(LoadError::NotChat(addr, also))
            }
        }
    }
}
