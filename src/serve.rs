//! The `serve` command: from flags to a running relay.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use chatloop::relay::Limits;
use chatloop::server::{Config, Endpoint, Server, StartError, descriptors};
use log::{LevelFilter, info};

use crate::cli::ServeArgs;

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
    /// An address was given twice.
    Twice(SocketAddr),
    /// There are no descriptors even for one client.
    NoRoom { limit: u64 },
    /// The system failed us.
    Io(&'static str, io::Error),
}

impl ServeError {
    /// The exit code, as `--help` lists it.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Start(StartError::Limits(_)) | Self::TooManyClients { .. } | Self::Twice(_) => 2,
            Self::Start(StartError::Listen(..)) => 3,
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
            Self::Twice(addr) => write!(f, "--listen {addr} is given twice"),
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
pub(crate) fn serve(args: ServeArgs) -> Result<ExitCode, ServeError> {
    start_log(args.log_level);
    let addrs = args.listen.iter().map(|endpoint| endpoint.addr);
    if let Some(addr) = addrs
        .clone()
        .find(|one| one.port() != 0 && addrs.clone().filter(|other| other == one).count() > 1)
    {
        return Err(ServeError::Twice(addr));
    }
    let limit = descriptors::raise_limit()
        .map_err(|error| ServeError::Io("cannot read the open-file limit", error))?;
    let max_clients = max_clients(args.max_clients, limit, args.listen.len())?;
    let config = Config {
        limits: Limits {
            max_clients,
            max_name: args.max_name,
            max_message: args.max_message,
            queue_limit: args.queue_limit,
            handshake_timeout: args.handshake_timeout,
            ..Limits::default()
        },
        keepalive: args.keepalive.0,
        drain: args.drain,
        listen: args.listen,
    };
    let mut server = Server::bind(&config).map_err(ServeError::Start)?;
    server
        .handle_signals()
        .map_err(|error| ServeError::Io("cannot handle signals", error))?;
    let addrs = server
        .local_addrs()
        .map_err(|error| ServeError::Io("cannot tell the listening address", error))?;
    info!(
        "chatloop {} listens on {}; room for {max_clients} clients (open-file limit {limit})",
        env!("CARGO_PKG_VERSION"),
        Listening(&config.listen, &addrs),
    );
    server
        .run()
        .map_err(|error| ServeError::Io("the event loop failed", error))?;
    Ok(ExitCode::SUCCESS)
}

/// Logs to the standard error stream. The flag wins over `RUST_LOG`, which wins over `info`.
fn start_log(level: Option<LevelFilter>) {
    let mut log = env_logger::Builder::new();
    log.format_target(false).filter_level(LevelFilter::Info);
    match level {
        Some(level) => log.filter_level(level),
        None => log.parse_default_env(),
    };
    log.init();
}

fn max_clients(asked: Option<usize>, limit: u64, listeners: usize) -> Result<usize, ServeError> {
    let room = descriptors::room_for_clients(limit, listeners);
    match asked {
        _ if room == 0 => Err(ServeError::NoRoom { limit }),
        Some(asked) if asked > room => Err(ServeError::TooManyClients { asked, room, limit }),
        asked => Ok(asked.unwrap_or(room)),
    }
}

/// What is listened on, as a reader can use it: with the port that the system chose, and for a
/// wildcard with the addresses under which others reach this machine.
struct Listening<'a>(&'a [Endpoint], &'a [SocketAddr]);

impl fmt::Display for Listening<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (endpoint, addr)) in self.0.iter().zip(self.1).enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}://{addr}", endpoint.dialect)?;
            if addr.ip().is_unspecified() {
                let mut sep = " (reachable at ";
                for ip in own_addresses(endpoint.takes_ipv4(self.0), addr.is_ipv6()) {
                    write!(f, "{sep}{}", SocketAddr::new(ip, addr.port()))?;
                    sep = ", ";
                }
                if sep == ", " {
                    f.write_str(")")?;
                }
            }
        }
        Ok(())
    }
}

/// The addresses of this machine that other machines can use. None if the system does not tell,
/// since they are a help and no need.
fn own_addresses(with_ipv4: bool, with_ipv6: bool) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(|interface| interface.ip())
        .filter(|ip| if ip.is_ipv4() { with_ipv4 } else { with_ipv6 })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
