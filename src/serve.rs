//! The `serve` command: from flags to a running relay.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anstream::AutoStream;
use chatloop::clock;
use chatloop::descriptors;
use chatloop::relay::{Limits, LimitsError, ReplyTexts};
use chatloop::server::{
    AccessRules, BusConfig, Config, Endpoint, Inherited, Kernel, Login, Password, Preamble, Server,
    StartError, System, TlsFiles, Turn, WebConfig,
};
use chatloop::text::Quoted;
use chatloop::wire::Dialect;
use env_logger::fmt::Formatter;
use env_logger::fmt::style::AnsiColor;
use log::{LevelFilter, Record, info, warn};
#[cfg(target_os = "linux")]
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::address::{DEFAULT_PAGE_PORT, DEFAULT_PORT, LookupError};
use crate::cli::{BusArgs, Cli, Listen, Names, ServeArgs};
use crate::journal;
use crate::log_output;
use crate::password_file;
use crate::service::{self, Manager};

/// The default address to listen on.
const DEFAULT: Endpoint = Endpoint {
    dialect: Dialect::Chat10,
    addr: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
};

/// The default address for browsers.
const DEFAULT_PAGE: Endpoint = Endpoint {
    dialect: Dialect::Ws,
    addr: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, DEFAULT_PAGE_PORT)),
};

/// Why the command failed.
#[derive(Debug)]
pub(crate) enum ServeError {
    /// The server did not start.
    Start(StartError),
    /// More clients were asked for than there can be descriptors.
    TooManyClients {
        asked: usize,
        room: usize,
        limit: u64,
    },
    /// The name of an address to listen on has none.
    Lookup(LookupError),
    /// An address was given twice, or one that another takes in.
    Collision(SocketAddr, SocketAddr),
    /// An address was given that a socket that was passed takes in.
    Taken(SocketAddr, SocketAddr),
    /// What was passed is not what can be served.
    Passed(io::Error),
    /// The queue cannot hold a message because names may be so long.
    LongNames { queue_limit: usize, needed: usize },
    /// There is no greeting in that file.
    Greeting(PathBuf, io::Error),
    /// There is a certificate, and no listener with TLS.
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    UnusedCertificate(PathBuf),
    /// The greeting is too long for the queue, in which the time is to come after it.
    LongGreeting { queue_limit: usize },
    /// There are no descriptors even for one client.
    NoRoom { limit: u64 },
    /// The trace cannot be written to that file.
    Trace(PathBuf, io::Error),
    /// There is no password in that file.
    Password(PathBuf, io::Error),
    /// The system failed us.
    Io(&'static str, io::Error),
}

impl ServeError {
    /// The exit code, as `--help` lists it.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Start(
                StartError::Limits(_)
                | StartError::NoEndpoint
                | StartError::NoProxy(..)
                | StartError::NoCertificate(..)
                | StartError::Tls(_)
                | StartError::Bans(..),
            )
            | Self::TooManyClients { .. }
            | Self::Collision(..)
            | Self::Taken(..)
            | Self::LongNames { .. }
            | Self::UnusedCertificate(_)
            | Self::Greeting(..)
            | Self::Trace(..)
            | Self::Password(..)
            | Self::LongGreeting { .. } => 2,
            Self::Start(StartError::Listen(..) | StartError::Admin(..))
            | Self::Lookup(_)
            | Self::Passed(_) => 3,
            Self::Start(StartError::Poll(_)) | Self::NoRoom { .. } | Self::Io(..) => 1,
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::TooManyClients { asked, room, limit } => write!(
                f,
                "--max-clients {asked}: the open-file limit of {limit} leaves room for {room}; raise \
                 it (ulimit -Hn, or LimitNOFILE= in a systemd unit) or ask for fewer"
            ),
            Self::Lookup(error) => error.fmt(f),
            Self::Collision(one, other) if one == other => {
                write!(f, "--listen {one} is given twice")
            }
            Self::Collision(one, other) => write!(
                f,
                "--listen {one} and {other} collide; choose another port for one of them"
            ),
            Self::Taken(addr, passed) => write!(
                f,
                "--listen {addr} collides with {passed}, a socket that was passed; leave out one of \
                 them"
            ),
            Self::Passed(error) => write!(
                f,
                "cannot serve what was passed in LISTEN_FDS: {error}; a socket unit needs \
                 ListenStream=PORT or ADDRESS:PORT, and Accept=no"
            ),
            Self::LongNames {
                queue_limit,
                needed,
            } => write!(
                f,
                "--queue-limit of {queue_limit} bytes cannot hold a message with the longest name: \
                 make it at least {needed}, or lower --max-name"
            ),
            Self::Greeting(path, error) => {
                write!(f, "cannot read --greeting-file {}: {error}", path.display())
            }
            Self::Password(path, error) => {
                write!(f, "cannot use --password-file {}: {error}", path.display())
            }
            Self::Trace(path, error) => {
                write!(f, "cannot write --trace {}: {error}", path.display())
            }
            Self::UnusedCertificate(path) => write!(
                f,
                "--cert {} is for listeners with TLS, and there is none: write --listen tls+chat10://…",
                path.display()
            ),
            Self::LongGreeting { queue_limit } => write!(
                f,
                "the greeting is over half of the --queue-limit of {queue_limit} bytes: shorten it, or \
                 raise the limit"
            ),
            Self::NoRoom { limit } => write!(
                f,
                "the open-file limit of {limit} leaves no room for clients; raise it (ulimit -Hn, or \
                 LimitNOFILE= in a systemd unit)"
            ),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

/// Runs a relay until a signal stops it.
pub(crate) fn serve(args: &ServeArgs) -> Result<ExitCode, ServeError> {
    start_log(args.log_level);
    for warning in Cli::warnings() {
        warn!("{warning}");
    }
    #[cfg(target_os = "linux")]
    if args.end_with_parent {
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|error| ServeError::Io("cannot watch the parent", error.into()))?;
    }
    let passed = service::passed_sockets().map_err(ServeError::Passed)?;
    let limit = descriptors::raise_limit()
        .map_err(|error| ServeError::Io("cannot read the open-file limit", error))?;
    let mut config = config(args, limit, &passed)?;
    let others = passed
        .iter()
        .map(|one| (one.preamble(), one.endpoint()))
        .collect();
    let has_default_page = args.listen.is_empty() && passed.is_empty();
    if args.trace.is_none() && !args.watch {
        let server = bind(Server::bind_with, &mut config, passed, has_default_page)?;
        return serve_with(server, &config, others, limit);
    }
    let mut server = bind(Server::bind_traced, &mut config, passed, has_default_page)?;
    if let Some(path) = &args.trace {
        let file = create_private(path);
        let file = file.map_err(|error| ServeError::Trace(path.clone(), error))?;
        server.write_trace(file, args.trace_max as u64);
    }
    serve_with(server, &config, others, limit)
}

/// Binds the listeners. The page for browsers was not asked for if it `has_default_page`, and then is no reason
/// not to start.
fn bind<S: System>(
    bind: impl Fn(&Config, Vec<Inherited>) -> Result<Server<S>, StartError>,
    config: &mut Config,
    passed: Vec<Inherited>,
    has_default_page: bool,
) -> Result<Server<S>, ServeError> {
    let server = match bind(config, passed) {
        Err(StartError::Listen(addr, error)) if has_default_page && addr == DEFAULT_PAGE.addr => {
            warn!("no page for browsers: cannot listen on {addr}: {error}");
            config.listen.retain(|one| *one != DEFAULT_PAGE);
            bind(config, Vec::new())
        }
        server => server,
    };
    server.map_err(ServeError::Start)
}

/// A file that only its owner may read and write.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

/// Runs a server that listens, also on the `others` that were passed.
fn serve_with<S: System + AsRef<Kernel> + AsMut<Kernel>>(
    mut server: Server<S>,
    config: &Config,
    others: Vec<(Preamble, Endpoint)>,
    limit: u64,
) -> Result<ExitCode, ServeError> {
    let listeners: Vec<_> = config.listeners().chain(others).collect();
    let endpoints: Vec<_> = listeners.iter().map(|(_, endpoint)| *endpoint).collect();
    server.set_dropped_log_lines(log_output::dropped_lines);
    // A terminal that the log or the keys come from is one that its user can close. Without one, SIGHUP
    // is from an operator or a service manager.
    let has_terminal = io::stdin().is_terminal() || io::stderr().is_terminal();
    server
        .handle_signals(has_terminal)
        .map_err(|error| ServeError::Io("cannot handle signals", error))?;
    let addrs = server
        .local_addrs()
        .map_err(|error| ServeError::Io("cannot read the listening address", error))?;
    let listening = Listening(&listeners, &addrs).to_string();
    info!(
        "chatloop {} listens on {listening}; room for {} clients (open-file limit {limit})",
        env!("CARGO_PKG_VERSION"),
        config.limits.max_clients,
    );
    // Those for proxies are reached through the proxies, at addresses that only these know.
    for ((preamble, endpoint), addr) in listeners.iter().zip(&addrs) {
        if endpoint.dialect == Dialect::Ws && !preamble.proxy_header {
            let scheme = if preamble.tls { "https" } else { "http" };
            let addr = reachable(*addr);
            info!("open {scheme}://{addr}/ in a browser");
            if config.web.watch {
                info!("the loop is shown at {scheme}://{addr}/loop");
            }
        }
    }
    if config.web.password.is_some() {
        warn_of_open_listeners(&listeners);
    }
    if let Some(path) = &config.admin {
        let path = Quoted(path.as_os_str().as_bytes());
        info!("the admin socket is {path}; chatloop top {path} shows the members");
    }
    // A socket that was passed may be in another network, whose addresses we cannot see.
    for (endpoint, addr) in config.listen.iter().zip(&addrs) {
        if addr.ip().is_unspecified()
            && let Some(ips) = own_addresses(endpoint.takes_ipv4(&endpoints), addr.is_ipv6())
        {
            info!("{}", from_outside(endpoint.dialect, ips, addr.port()));
        }
    }
    run(&mut server, Manager::from_env(), &listening)
        .map_err(|error| ServeError::Io("the event loop failed", error))?;
    Ok(ExitCode::SUCCESS)
}

/// The password that WebSocket clients need.
fn password(args: &ServeArgs) -> Result<Option<Password>, ServeError> {
    let Some(path) = &args.password_file else {
        return Ok(None);
    };
    let read = password_file::read(path);
    let bytes = read.map_err(|error| ServeError::Password(path.clone(), error))?;
    Ok(Password::new(&bytes))
}

/// Warns of the listeners that a password does not protect, and that other machines may reach.
fn warn_of_open_listeners(listeners: &[(Preamble, Endpoint)]) {
    for (_, endpoint) in listeners {
        let dialect = endpoint.dialect;
        let is_protected = dialect.rules().sends.begins_with_http();
        if !is_protected && !endpoint.addr.ip().is_loopback() {
            warn!(
                "--password-file does not protect {dialect}://{}: its protocol has no place for a password",
                endpoint.addr
            );
        }
    }
}

/// An address at which this machine reaches a listener.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// Runs the loop as [`Server::run`] does. Between the turns it notifies the service manager and
/// writes the log lines that wait; neither can block. It wakes up for them only if there is something
/// that could not be sent or written yet, or a watchdog.
fn run<S: System>(
    server: &mut Server<S>,
    mut manager: Option<Manager>,
    listens_on: &str,
) -> io::Result<()> {
    let mut turn = Turn::Running;
    loop {
        let manager_wait = manager
            .as_mut()
            .and_then(|manager| manager.notify(server, listens_on));
        // After the manager, since a failure to notify it is logged.
        let log_wait = log_output::flush();
        if turn == Turn::Stopped {
            return Ok(());
        }
        let max_wait = manager_wait.into_iter().chain(log_wait).min();
        turn = server.turn(max_wait)?;
    }
}

/// What the flags ask for, under this limit of open descriptors, beside what was passed.
fn config(args: &ServeArgs, limit: u64, passed: &[Inherited]) -> Result<Config, ServeError> {
    let endpoint = |listen: &Listen| {
        let (dialect, addr) = (listen.dialect, listen.addr.lookup_first()?);
        Ok((listen.preamble, Endpoint { dialect, addr }))
    };
    let listen: Result<Vec<_>, _> = args.listen.iter().map(endpoint).collect();
    let mut listen = listen.map_err(ServeError::Lookup)?;
    if listen.is_empty() && passed.is_empty() {
        listen.extend([DEFAULT, DEFAULT_PAGE].map(|one| (Preamble::NONE, one)));
    }
    for (index, (_, one)) in listen.iter().enumerate() {
        for (_, other) in &listen[..index] {
            if collide(one.addr, other.addr) {
                return Err(ServeError::Collision(other.addr, one.addr));
            }
        }
        if let Some(socket) = passed.iter().find(|socket| takes_in(socket, one.addr)) {
            return Err(ServeError::Taken(one.addr, socket.endpoint().addr));
        }
    }
    let listeners = listen.len() + passed.len() + usize::from(args.admin.is_some());
    let defaults = Limits::default();
    let mut limits = Limits {
        max_clients: max_clients(args.max_clients, limit, listeners)?,
        max_name: args.max_name,
        unique_names: args.names == Names::Unique,
        max_message: args.max_message,
        queue_limit: args.queue_limit,
        slow: args.slow,
        soft_limit: args.soft_limit.unwrap_or(args.queue_limit / 8),
        slow_timeout: args.slow_timeout,
        handshake_timeout: args.handshake_timeout,
        message_timeout: args.message_timeout,
        idle_timeout: args.idle_timeout.0,
        farewell_timeout: args.farewell_timeout,
        rate: args.rate.0,
        max_per_ip: args.max_per_ip.0,
        accept_rate: args.accept_rate.0,
        history: args.history.unwrap_or(defaults.history),
        timed_history: args.history.unwrap_or(defaults.timed_history),
        history_bytes: args.history_bytes,
        ..defaults
    };
    limits.max_memory = match args.max_memory {
        Some(max_memory) => max_memory,
        None => limits.max_memory.max(limits.least_memory()),
    };
    if let Err(LimitsError::QueueTooShort {
        queue_limit,
        needed,
    }) = limits.check()
        && limits.max_name > limits.max_message
    {
        return Err(ServeError::LongNames {
            queue_limit,
            needed,
        });
    }
    let all: Vec<_> = listen.iter().map(|(preamble, _)| *preamble).collect();
    let mut endpoints = listen.iter().map(|(_, endpoint)| *endpoint);
    let first = endpoints
        .next()
        .or_else(|| passed.first().map(Inherited::endpoint));
    let first_port = first.map_or(0, |endpoint| endpoint.addr.port());
    let (plain, others): (Vec<_>, Vec<_>) = listen
        .into_iter()
        .partition(|&(preamble, _)| preamble == Preamble::NONE);
    Ok(Config {
        listen: plain.into_iter().map(|(_, endpoint)| endpoint).collect(),
        listen_with: others,
        trusted_proxies: args.trust_proxy.clone(),
        tls: tls_files(args, &all, passed)?,
        admin: args.admin.clone(),
        limits,
        texts: reply_texts(args)?,
        every: args.every.0,
        keepalive: args.keepalive.0,
        drain: args.drain,
        access: AccessRules {
            allow: args.allow.clone(),
            deny: args.deny.clone(),
        },
        bans: args.bans.clone(),
        web: WebConfig {
            hosts: args.ws_host.clone(),
            origins: args.ws_origin.clone(),
            password: password(args)?,
            watch: args.watch,
        },
        heartbeat: args.ws_heartbeat.0,
        bus: bus(&args.bus, first_port)?,
    })
}

/// The bus to other relays. Its engine is looked up once, here: the loop waits for no name server.
fn bus(args: &BusArgs, port: u16) -> Result<Option<BusConfig>, ServeError> {
    let Some(url) = &args.bus else {
        return Ok(None);
    };
    let mut addrs = Vec::new();
    for host in &url.hosts {
        addrs.extend(host.lookup().map_err(ServeError::Lookup)?);
    }
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let login = url.login.clone();
    Ok(Some(BusConfig {
        addrs,
        master: url.master.clone(),
        login: login.map(|(user, password)| Login { user, password }),
        database: url.database,
        room: url.room.clone(),
        node: match &args.bus_node {
            Some(node) => node.clone(),
            None => format!("{host}:{port}"),
        },
        queue: args.bus_queue,
        keep: args.bus_keep as u64,
        replicas: args.bus_replicas as u64,
    }))
}

/// The files of the listeners with TLS. They are of no use without such a listener.
#[cfg(feature = "tls")]
fn tls_files(
    args: &ServeArgs,
    listen: &[Preamble],
    passed: &[Inherited],
) -> Result<Option<TlsFiles>, ServeError> {
    let passed = passed.iter().map(Inherited::preamble);
    let has_tls = listen.iter().copied().chain(passed).any(|one| one.tls);
    match args.tls.files() {
        Some(files) if !has_tls => Err(ServeError::UnusedCertificate(files.certificate)),
        files => Ok(files),
    }
}

#[cfg(not(feature = "tls"))]
#[allow(clippy::unnecessary_wraps, reason = "it is as above")]
const fn tls_files(
    _: &ServeArgs,
    _: &[Preamble],
    _: &[Inherited],
) -> Result<Option<TlsFiles>, ServeError> {
    Ok(None)
}

/// Whether two addresses cannot both be listened on. The wildcards of IPv4 and IPv6 can: see
/// [`Endpoint::takes_ipv4`].
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    one.port() == other.port()
        && one.port() != 0
        && a.is_ipv4() == b.is_ipv4()
        && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// Whether an address cannot be listened on because of a socket that was passed.
fn takes_in(socket: &Inherited, addr: SocketAddr) -> bool {
    let taken = socket.endpoint().addr;
    // An IPv6 wildcard that accepts IPv4 was opened by another program, and that option cannot be changed.
    let takes_ipv4 = taken.is_ipv6() && socket.takes_ipv4();
    collide(taken, addr) || (takes_ipv4 && addr.is_ipv4() && taken.port() == addr.port())
}

/// The relay's own words, where the flags have others than the tutorials.
fn reply_texts(args: &ServeArgs) -> Result<ReplyTexts, ServeError> {
    let bytes = |text: &String| text.clone().into_bytes();
    let most = args.queue_limit / 2;
    let greeting = match &args.greeting_file {
        Some(path) => {
            let read = read_beyond(path, most);
            Some(read.map_err(|error| ServeError::Greeting(path.clone(), error))?)
        }
        None => args.greeting.as_ref().map(bytes),
    };
    if greeting
        .as_ref()
        .is_some_and(|greeting| greeting.len() > most)
    {
        return Err(ServeError::LongGreeting {
            queue_limit: args.queue_limit,
        });
    }
    Ok(ReplyTexts {
        greeting,
        ack: args.ack.as_ref().map(bytes),
        farewell: args.farewell.as_ref().map(bytes),
    })
}

/// Reads a file of up to `most` bytes; of a longer one a byte more, which shows that it is longer.
/// A device may have no end.
fn read_beyond(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Logs to the standard error stream. The flag wins over `RUST_LOG`, which wins over `info`. The
/// journal has times and levels of its own.
fn start_log(level: Option<LevelFilter>) {
    let mut log = env_logger::Builder::new();
    log.filter_level(LevelFilter::Info);
    match level {
        Some(level) => log.filter_level(level),
        None => log.parse_default_env(),
    };
    // `never` and `always` are settled.
    let style = env::var("RUST_LOG_STYLE").unwrap_or_default();
    if level.is_some() || !matches!(&*style, "never" | "always") {
        log.write_style(AutoStream::choice(&io::stderr()).into());
    }
    if journal::is_stderr() {
        log.format(|log, record| {
            let line = journal::line(record.level(), &record.args().to_string());
            log.write_all(line.as_bytes())
        });
    } else {
        log.format(write_line);
    }
    log_output::install(&mut log);
}

/// Writes a line of the log with its time and its level. A further line of the message is indented, so
/// that it does not pass for one of the log's.
fn write_line(log: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let frame = AnsiColor::BrightBlack.on_default();
    let time = clock::timestamp(SystemTime::now());
    let level = record.level();
    let color = log.default_level_style(level);
    let message = record.args().to_string().replace('\n', "\n    ");
    writeln!(
        log,
        "{frame}[{frame:#}{time:.0} {color}{level:<5}{color:#}{frame}]{frame:#} {message}"
    )
}

fn max_clients(asked: Option<usize>, limit: u64, listeners: usize) -> Result<usize, ServeError> {
    let room = descriptors::room_for_clients(limit, listeners);
    match asked {
        _ if room == 0 => Err(ServeError::NoRoom { limit }),
        Some(asked) if asked > room => Err(ServeError::TooManyClients { asked, room, limit }),
        asked => Ok(asked.unwrap_or(room)),
    }
}

/// What is listened on, with the port that the system chose.
struct Listening<'a>(&'a [(Preamble, Endpoint)], &'a [SocketAddr]);

impl fmt::Display for Listening<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ((preamble, endpoint), addr)) in self.0.iter().zip(self.1).enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}://{addr}", preamble.with(endpoint.dialect))?;
        }
        Ok(())
    }
}

/// What to write on another machine to reach a listener of this dialect at these addresses.
fn from_outside(dialect: Dialect, mut ips: Vec<IpAddr>, port: u16) -> String {
    if dialect != Dialect::Chat10 && ips.iter().any(IpAddr::is_ipv4) {
        // The tutorials' clients know no other.
        ips.retain(IpAddr::is_ipv4);
    }
    let Some((first, others)) = ips.split_first() else {
        return format!("{dialect}: this machine is on no network, so no other one can reach it");
    };
    let others: Vec<_> = others
        .iter()
        .map(|&ip| match dialect {
            Dialect::Chat10 => SocketAddr::new(ip, port).to_string(),
            _ => ip.to_string(),
        })
        .collect();
    let others = match &*others {
        [] => String::new(),
        others => format!(" (or {})", others.join(", ")),
    };
    let first = match dialect {
        Dialect::Ws => format!(
            "open http://{}/ in a browser",
            SocketAddr::new(*first, port)
        ),
        Dialect::Chat10 => format!("chatloop join {}", SocketAddr::new(*first, port)),
        _ => format!("connect to {first}, port {port}"),
    };
    format!("{dialect} from other machines: {first}{others}")
}

/// The addresses of this machine that other machines can use; none if the system does not list them.
pub(crate) fn own_addresses(with_ipv4: bool, with_ipv6: bool) -> Option<Vec<IpAddr>> {
    let mut addresses: Vec<_> = if_addrs::get_if_addrs()
        .ok()?
        .into_iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(|interface| interface.ip())
        .filter(|ip| if ip.is_ipv4() { with_ipv4 } else { with_ipv6 })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Some(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use chatloop::relay::Slow;
    use clap::{CommandFactory, Parser};
    use std::time::Duration;

    fn config_of(flags: &[&str], limit: u64) -> Result<Config, ServeError> {
        let cli = Cli::parse_from([&["chatloop", "serve"], flags].concat());
        let Command::Serve(args) = cli.command else {
            panic!("it is `serve`");
        };
        config(&args, limit, &[])
    }

    #[test]
    fn every_flag_arrives_where_it_belongs() {
        let flags = "--listen 127.0.0.1:1 --listen 127.0.0.1:2 --max-clients 3 --max-name 4 \
                     --max-message 5 --queue-limit 666 --handshake-timeout 7s --keepalive 8s \
                     --drain 9s --farewell-timeout 10s --history 11 --history-bytes 12 --greeting 13 \
                     --every 14s --ack 15 --farewell 16 --slow cut --soft-limit 17 \
                     --slow-timeout 18s --message-timeout 19s --idle-timeout 20s --rate 21 \
                     --max-per-ip 22 --accept-rate 23 --max-memory 2424 \
                     --listen proxy+ws://127.0.0.1:25 --trust-proxy 26.0.0.1,::27/128 --admin 28";
        let flags: Vec<_> = flags.split_whitespace().collect();
        let config = config_of(&flags, 1000).unwrap();
        let ports: Vec<_> = config.listen.iter().map(|one| one.addr.port()).collect();
        assert_eq!(ports, [1, 2]);
        let proxied = Endpoint {
            dialect: Dialect::Ws,
            addr: "127.0.0.1:25".parse().unwrap(),
        };
        let preamble = Preamble {
            proxy_header: true,
            ..Preamble::NONE
        };
        assert_eq!(config.listen_with, [(preamble, proxied)]);
        let trusted = ["26.0.0.1", "::27"].map(|ip| ip.parse().unwrap());
        assert_eq!(config.trusted_proxies, trusted);
        let expected = Limits {
            max_clients: 3,
            max_name: 4,
            max_message: 5,
            queue_limit: 666,
            handshake_timeout: Duration::from_secs(7),
            farewell_timeout: Duration::from_secs(10),
            history: 11,
            timed_history: 11,
            history_bytes: 12,
            slow: Slow::Cut,
            soft_limit: 17,
            slow_timeout: Duration::from_secs(18),
            message_timeout: Duration::from_secs(19),
            idle_timeout: Some(Duration::from_secs(20)),
            rate: Some(21),
            max_per_ip: Some(22),
            accept_rate: Some(23),
            max_memory: 2424,
            ..Limits::default()
        };
        assert_eq!(config.limits, expected);
        let texts = ReplyTexts {
            greeting: Some(b"13".to_vec()),
            ack: Some(b"15".to_vec()),
            farewell: Some(b"16".to_vec()),
        };
        assert_eq!(config.texts, texts);
        assert_eq!(config.every, Some(Duration::from_secs(14)));
        assert_eq!(config.keepalive, Some(Duration::from_secs(8)));
        assert_eq!(config.drain, Duration::from_secs(9));
        assert_eq!(config.admin, Some("28".into()));
    }

    #[test]
    fn without_flags_the_defaults_are_the_librarys() {
        let config = config_of(&[], 1000).unwrap();
        let default = Config::new(config.listen.clone());
        let expected = Limits {
            max_clients: descriptors::room_for_clients(1000, 2),
            ..default.limits
        };
        assert_eq!(config.limits, expected);
        assert_eq!(config.texts, default.texts);
        assert_eq!(config.every, default.every);
        assert_eq!(config.keepalive, default.keepalive);
        assert_eq!(config.drain, default.drain);
        assert_eq!(config.listen, [DEFAULT, DEFAULT_PAGE]);
        assert_eq!(config.heartbeat, default.heartbeat);
        assert_eq!(config.listen_with, default.listen_with);
        assert_eq!(config.trusted_proxies, default.trusted_proxies);
        assert_eq!(config.admin, default.admin);
    }

    #[test]
    fn the_help_shows_where_it_listens_by_default() {
        let mut cli = Cli::command();
        let serve = cli.find_subcommand_mut("serve").unwrap();
        let help = serve.render_long_help().to_string();
        let default = format!(
            "more than once [default: {} ws://{}]",
            DEFAULT.addr, DEFAULT_PAGE.addr
        );
        assert!(help.contains(&default), "{help}");
    }

    #[test]
    fn what_to_write_elsewhere_fits_the_client() {
        let text = |dialect, ips: &[&str]| {
            let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            from_outside(dialect, ips, 99)
        };
        for (dialect, ips, expected) in [
            (
                Dialect::Chat10,
                &["192.0.2.1", "198.51.100.1", "2001:db8::1"][..],
                "chat10 from other machines: chatloop join 192.0.2.1:99 (or 198.51.100.1:99, \
                 [2001:db8::1]:99)",
            ),
            (
                Dialect::Chat64,
                &["192.0.2.1", "198.51.100.1", "2001:db8::1"],
                "chat64 from other machines: connect to 192.0.2.1, port 99 (or 198.51.100.1)",
            ),
            (
                Dialect::Ws,
                &["192.0.2.1"],
                "ws from other machines: open http://192.0.2.1:99/ in a browser",
            ),
            (
                Dialect::Hello,
                &["2001:db8::1"],
                "hello from other machines: connect to 2001:db8::1, port 99",
            ),
            (
                Dialect::Ack64,
                &[],
                "ack64: this machine is on no network, so no other one can reach it",
            ),
        ] {
            assert_eq!(text(dialect, ips), expected);
        }
    }

    #[test]
    fn addresses_that_collide_are_refused() {
        for (one, other, collides) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("[::]:1", "[::1]:1", true),
            ("[::]:1", "0.0.0.0:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:1", "proxy+chat10://127.0.0.1:1", true),
        ] {
            let config = config_of(&["-l", one, "-l", other], 1000);
            assert_eq!(config.is_err(), collides, "{one} {other}");
        }
    }

    #[test]
    fn more_clients_than_descriptors_are_refused_with_the_number_there_is_room_for() {
        let room = descriptors::room_for_clients(1000, 2);
        assert!(config_of(&["--max-clients", &room.to_string()], 1000).is_ok());
        let error = config_of(&["--max-clients", &(room + 1).to_string()], 1000).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("leaves room for {room};")),
            "{error}"
        );
        assert_eq!(error.exit_code(), 2);
    }
}
