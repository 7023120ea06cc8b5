//! The `load` command: from flags to a measurement, and its results to files and standard output.

use std::env;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::available_parallelism;
use std::time::Duration;

use chatloop::descriptors;
use chatloop::load::{
    self, LoadError, MIN_SIZE, Plan, Progress, Protocol, Report, SOAK_SIZE, Scenario, Server, Wait,
};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::address::LookupError;
use crate::cli::{CommonArgs, LoadCommand, ServerArg, SpeedArgs, TimeArgs, TrustArgs, WaitArg};
use crate::error_line;
use crate::secure::{SecureError, connector};

/// The number of members of an idle room, as far as descriptors suffice.
const IDLE_MEMBERS: usize = 10_000;

/// The number of steps in which members connect for a chart of memory.
const CHART_STEPS: usize = 10;

/// Why the command failed.
#[derive(Debug)]
pub(crate) enum MeasureError {
    /// There are more senders than members.
    Senders { senders: usize, members: usize },
    /// A soak does not support this protocol.
    Protocol(Protocol),
    /// The report and the chart have the same file.
    OneFile(PathBuf),
    /// A file cannot be written.
    Output(PathBuf, io::Error),
    /// A server's name has no address.
    Lookup(LookupError),
    /// The flags for TLS cannot be used, or the keys that are known.
    Secure(SecureError),
    /// There is nothing to report.
    Load(LoadError),
    /// A system call failed.
    Io(&'static str, io::Error),
}

impl MeasureError {
    /// The exit code, as `--help` lists it.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Senders { .. }
            | Self::Protocol(_)
            | Self::OneFile(_)
            | Self::Output(..)
            | Self::Load(
                LoadError::Descriptors(..)
                | LoadError::Ports { .. }
                | LoadError::Company(..)
                | LoadError::Family(_)
                | LoadError::Pid(..),
            ) => 2,
            Self::Secure(error) => error.exit_code(),
            Self::Lookup(_) | Self::Load(LoadError::Connect(..)) => 4,
            Self::Load(LoadError::Ended(..)) => 5,
            Self::Load(LoadError::NotChat(..)) => 6,
            Self::Load(LoadError::Untrusted(..)) => 7,
            Self::Load(_) | Self::Io(..) => 1,
        }
    }
}

impl fmt::Display for MeasureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Senders { senders, members } => write!(
                f,
                "--senders {senders}: there are {members} members; ask for as many at most"
            ),
            Self::Protocol(protocol) => write!(
                f,
                "a soak is for servers that speak chat10 or ws-chat10, and not {}",
                <&str>::from(protocol)
            ),
            Self::OneFile(path) => write!(
                f,
                "--json and --chart are both to be written to {}; give each a file of its own",
                path.display()
            ),
            Self::Output(path, error) => write!(f, "cannot write {}: {error}", path.display()),
            Self::Lookup(error) => error.fmt(f),
            Self::Secure(error) => error.fmt(f),
            Self::Load(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

/// Measures, and writes the results.
pub(crate) fn measure(command: &LoadCommand) -> Result<ExitCode, MeasureError> {
    let common = common(command);
    let plan = plan(command)?;
    if let (Some(json), Some(chart)) = (&common.json, &common.chart)
        && json == chart
    {
        return Err(MeasureError::OneFile(json.clone()));
    }
    // A misspelt name must be reported before the measurement, which may take minutes.
    let outputs = [&common.json, &common.chart].into_iter().flatten();
    let outputs: Vec<_> = outputs.filter(|path| !is_stdout(path)).collect();
    let new: Vec<_> = outputs.iter().filter(|path| !path.exists()).collect();
    outputs.iter().try_for_each(|path| writable(path))?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The first signal ends the measurement early, and a second one the process.
        flag::register_conditional_default(signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| MeasureError::Io("cannot handle signals", error))?;
    }
    let report = load::run(&plan, &Progress::on_stderr(), &stop).map_err(|error| {
        for path in new {
            let _ = fs::remove_file(path);
        }
        MeasureError::Load(error)
    })?;
    write_results(&report, common)?;
    Ok(if report.is_failure() {
        ExitCode::from(5)
    } else {
        ExitCode::SUCCESS
    })
}

fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn writable(path: &Path) -> Result<(), MeasureError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map(drop)
        .map_err(|error| MeasureError::Output(path.to_owned(), error))
}

/// Writes the results to their files, and the table to standard output.
fn write_results(report: &Report, common: &CommonArgs) -> Result<(), MeasureError> {
    let mut table = report.to_string();
    if let Some(path) = &common.json {
        let json = format!("{:#}\n", report.to_json());
        if is_stdout(path) {
            table = json;
        } else {
            fs::write(path, json).map_err(|error| MeasureError::Output(path.clone(), error))?;
        }
    }
    if let Some(path) = &common.chart {
        fs::write(path, report.to_svg())
            .map_err(|error| MeasureError::Output(path.clone(), error))?;
    }
    io::stdout()
        .write_all(table.as_bytes())
        .map_err(|error| MeasureError::Io("cannot write the results", error))
}

const fn common(command: &LoadCommand) -> &CommonArgs {
    match command {
        LoadCommand::Idle(args) => &args.common,
        LoadCommand::Fanout(args) => &args.talk.common,
        LoadCommand::Chat(args) => &args.talk.common,
        LoadCommand::Latency(args) => &args.common,
        LoadCommand::Storm(args) => &args.common,
        LoadCommand::Soak(args) => &args.common,
    }
}

const fn speed(command: &LoadCommand) -> Option<&SpeedArgs> {
    match command {
        LoadCommand::Idle(args) => Some(&args.speed),
        LoadCommand::Fanout(args) => Some(&args.talk.speed),
        LoadCommand::Chat(args) => Some(&args.talk.speed),
        LoadCommand::Latency(args) => Some(&args.speed),
        LoadCommand::Storm(args) => Some(&args.speed),
        LoadCommand::Soak(_) => None,
    }
}

/// Builds the plan from the flags.
fn plan(command: &LoadCommand) -> Result<Plan, MeasureError> {
    let common = common(command);
    let mut plan = Plan {
        scenario: Scenario::Idle,
        target: server(common.target.as_ref(), &common.trust)?,
        against: None,
        allow_company: common.yes,
        rounds: 1,
        program: env::current_exe()
            .map_err(|error| MeasureError::Io("cannot find this program", error))?,
        pid: common.pid,
        members: IDLE_MEMBERS,
        senders: 1,
        size: MIN_SIZE,
        in_flight: 1,
        rate: None,
        churn: 0.0,
        faults: 0,
        lasts: Duration::ZERO,
        warmup: Duration::ZERO,
        steps: 1,
        sources: common.bind.clone(),
        seed: common.seed.unwrap_or_else(|| fastrand::u64(..1 << 32)),
        wait: Wait::Sleep,
        command: words(),
    };
    if let Some(speed) = speed(command) {
        plan.against = server(speed.against.as_ref(), &common.trust)?;
        plan.rounds = plan.against.as_ref().map_or(1, |_| speed.rounds);
        plan.size = speed.size;
        plan.wait = wait(speed.wait);
    }
    let timed = |plan: &mut Plan, time: &TimeArgs| {
        plan.lasts = time.lasts;
        plan.warmup = time.warmup;
    };
    match command {
        LoadCommand::Idle(args) => {
            plan.members = match args.members {
                Some(members) => members,
                None => idle_members()?,
            };
            plan.rate = args.rate;
            plan.lasts = args.lasts;
            if common.chart.is_some() {
                plan.steps = CHART_STEPS;
            }
        }
        LoadCommand::Fanout(args) => {
            plan.scenario = Scenario::Fanout;
            plan.members = args.members;
            plan.senders = args.senders;
            plan.in_flight = args.talk.in_flight;
            timed(&mut plan, &args.talk.time);
        }
        LoadCommand::Chat(args) => {
            plan.scenario = Scenario::Chat;
            plan.members = args.members;
            plan.senders = args.senders.unwrap_or(args.members);
            plan.in_flight = args.talk.in_flight;
            timed(&mut plan, &args.talk.time);
        }
        LoadCommand::Latency(args) => {
            plan.scenario = Scenario::Latency;
            plan.members = args.members;
            plan.senders = args.senders.unwrap_or(args.members);
            plan.rate = Some(args.rate);
            timed(&mut plan, &args.time);
        }
        LoadCommand::Storm(args) => {
            plan.scenario = Scenario::Storm;
            plan.members = args.members;
            plan.lasts = args.lasts;
        }
        LoadCommand::Soak(args) => {
            plan.scenario = Scenario::Soak;
            plan.members = args.members;
            plan.senders = args.members;
            plan.size = SOAK_SIZE;
            plan.rate = Some(args.rate);
            plan.churn = args.churn;
            plan.faults = args.faults;
            plan.lasts = args.lasts;
            if let Some(&Server { protocol, .. }) = plan.target.as_ref()
                && !matches!(protocol, Protocol::Chat10 | Protocol::WsChat10)
            {
                return Err(MeasureError::Protocol(protocol));
            }
        }
    }
    if plan.senders > plan.members {
        return Err(MeasureError::Senders {
            senders: plan.senders,
            members: plan.members,
        });
    }
    plan.size = plan.size.max(load::min_size(plan.senders));
    Ok(plan)
}

/// Looks up the address of a server, and what secure connections to it need.
fn server(named: Option<&ServerArg>, trust: &TrustArgs) -> Result<Option<Server>, MeasureError> {
    let Some(named) = named else {
        return Ok(None);
    };
    let addr = named.addr.lookup_first().map_err(MeasureError::Lookup)?;
    let tls = named
        .is_secure
        .then(|| connector(trust, &named.addr, named.protocol.is_web_socket()))
        .transpose()
        .map_err(MeasureError::Secure)?;
    Ok(Some(Server {
        protocol: named.protocol,
        tls,
        addr,
    }))
}

fn idle_members() -> Result<usize, MeasureError> {
    let limit = descriptors::raise_limit()
        .map_err(|error| MeasureError::Io("cannot read the open-file limit", error))?;
    // A relay that is started for the measurement has the same limit, and a listener.
    let room = descriptors::room_for_clients(limit, 1);
    if room < IDLE_MEMBERS {
        error_line::print(&format!(
            "{room} members and not {IDLE_MEMBERS}: the open-file limit has no room for more \
             (ulimit -Hn)"
        ));
    }
    Ok(room.min(IDLE_MEMBERS))
}

fn wait(asked: Option<WaitArg>) -> Wait {
    let cores = available_parallelism().map_or(1, usize::from);
    match asked {
        Some(WaitArg::Spin) => Wait::Spin,
        None if cores > 1 => Wait::Spin,
        Some(WaitArg::Sleep) | None => Wait::Sleep,
    }
}

/// The command line.
fn words() -> String {
    let args = env::args_os().skip(1);
    let words = args.map(|word| word.to_string_lossy().into_owned());
    let mut text = "chatloop".to_owned();
    for word in words {
        text.push(' ');
        text.push_str(&word);
    }
    text
}
