//! The command line: what each flag is called, takes and means.

mod admin;
mod bus;
mod judge;
mod load;
#[cfg(feature = "tls")]
mod tls;
mod top;
mod trust;
mod values;
mod variables;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use chatloop::relay::Slow;
use chatloop::server::Network;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use log::LevelFilter;

use values::{
    parse_accept_rate, parse_count, parse_duration, parse_every, parse_idle_timeout,
    parse_keepalive, parse_level, parse_listen, parse_max_per_ip, parse_names, parse_network,
    parse_number, parse_or_off, parse_positive_duration, parse_rate, parse_size, parse_slow,
};

pub(crate) use admin::{AdminArgs, AdminCommand, BannedArgs};
pub(crate) use bus::BusArgs;
pub(crate) use judge::JudgeArgs;
pub(crate) use load::{CommonArgs, LoadCommand, ServerArg, SpeedArgs, TimeArgs, WaitArg};
#[cfg(feature = "cert")]
pub(crate) use tls::CertArgs;
pub(crate) use top::TopArgs;
pub(crate) use trust::TrustArgs;
pub(crate) use values::{Listen, Names, OrOff, parse_protocol};

/// A chat relay on one event loop: one thread, and no buffers for idle clients.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Parses the command line and the environment. After an error, the program reports it and ends.
    pub(crate) fn read() -> Self {
        let mut command = variables::ignore_empty(Self::command());
        command
            .try_get_matches_from_mut(env::args_os())
            .and_then(|matches| Self::from_arg_matches(&matches))
            .unwrap_or_else(|error| {
                let mut error = error.format(&mut command);
                name_variable(&mut error);
                error.exit()
            })
    }

    /// A warning for each environment variable that has the prefix of chatloop and is unknown.
    pub(crate) fn warnings() -> Vec<String> {
        variables::warnings(&Self::command())
    }
}

/// Adds the name of the environment variable to an error of its value, because the flag is not on the
/// command line then. The value is from the environment if parsing without the environment succeeds, or
/// fails with another error.
fn name_variable(error: &mut clap::Error) {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return;
    };
    if error.kind() != ErrorKind::ValueValidation {
        return;
    }
    let without = Cli::command()
        .mut_subcommands(|command| command.mut_args(|arg| arg.env(None)))
        .try_get_matches();
    if without.is_err_and(|without| without.to_string() == error.to_string()) {
        return;
    }
    let mut cli = Cli::command();
    cli.build();
    let variable = cli
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .find(|arg| arg.to_string() == *flag)
        .and_then(Arg::get_env)
        .map(|variable| format!("{flag} (from {})", variable.display()));
    if let Some(named) = variable {
        error.insert(ContextKind::InvalidArg, ContextValue::String(named));
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a relay
    #[command(
        after_help = "Stop it with Ctrl-C or SIGTERM. `--help` has units, examples and exit codes.",
        after_long_help = SERVE_EPILOGUE
    )]
    Serve(Box<ServeArgs>),

    /// Join the chat of a relay, from a terminal or in a pipe
    #[command(
        after_help = "/quit or Ctrl-D leaves. `--help` has the keys, pipes, examples and exit codes.",
        after_long_help = JOIN_EPILOGUE
    )]
    Join(JoinArgs),

    /// Measure a relay, or another server, under load
    #[command(
        subcommand,
        subcommand_value_name = "SCENARIO",
        subcommand_help_heading = "Scenarios",
        after_help = "`chatloop load idle` is a first try. `--help` has examples and exit codes.",
        after_long_help = load::EPILOGUE
    )]
    Load(Box<LoadCommand>),

    /// Make a certificate for this machine, for listeners with TLS
    #[cfg(feature = "cert")]
    #[command(
        after_help = "`--help` says what the files are for, and has examples and exit codes.",
        after_long_help = tls::CERT_EPILOGUE
    )]
    Cert(CertArgs),

    /// Look at running relays: which members are slow, and how busy the loop is
    #[command(
        after_help = "q leaves. `--help` has the keys, what can be looked at, examples and exit codes.",
        after_long_help = top::EPILOGUE
    )]
    Top(TopArgs),

    /// Act on a running relay: close or ban members, send a message to all
    #[command(
        after_help = "`chatloop admin --help` has examples and exit codes.",
        after_long_help = admin::EPILOGUE
    )]
    Admin(AdminArgs),

    /// Judge a chat server of yours, in any language, in nine stages
    #[command(
        after_help = "`--help` has the stages, examples and exit codes.",
        after_long_help = judge::EPILOGUE
    )]
    Judge(JudgeArgs),
}

const SERVE_EPILOGUE: &str = "\
Every flag is an environment variable as well: --max-clients is CHATLOOP_MAX_CLIENTS.
A flag on the command line wins over its environment variable; an empty variable counts as unset.
Sizes are bytes or have a unit: 512, 64KiB, 1.5MiB (powers of 1024), 64KB, 1MB (powers of 1000).
Times have a unit: 500ms, 10s, 2min, 1h 30min.

Dialects, by what the client of your tutorial has:
  chat10    HEADER_LENGTH = 10; it sends a username first
  chat64    HEADER = 64; it is answered `Message was Sent!`
  ack64     HEADER = 64; it is answered `Msg received`, and receives nothing else
  greet10   HEADERSIZE = 10; it receives a greeting, and then the time
  hello     no header; it receives a greeting, and is closed
And for others:
  ws        browsers: the page is at http://ADDR:PORT/, and WebSocket clients are welcome
  ws-chat10 chat10 through WebSocket, as a tunnel; ws has it as the subprotocol chat10
  echo      it receives what it sends; ws-echo is the same with WebSocket messages
  metrics   Prometheus: /metrics, and /healthz for what watches the relay
With tls+ in front, as in tls+chat10, a dialect is spoken through TLS; tls+ws is wss as well. With proxy+ in
front, as in proxy+chat10 and proxy+wss, each connection must begin with a header of the PROXY protocol, version
1 or 2, from a proxy that --trust-proxy names.

Examples:
  chatloop serve                              for this machine only: port 1234, and a page on 1235
  chatloop serve -l ws://0.0.0.0:80           browsers only, on all of this machine's addresses
  chatloop serve -l chat64://5050             the same, port 5050, for clients with HEADER = 64
  chatloop serve -l 0.0.0.0:1234              for all that can reach this machine over IPv4
  chatloop serve -l '[::]:1234'               the same over IPv4 and IPv6
  chatloop serve -l 127.0.0.1:0               on a free port, which the first log line names
  chatloop serve -l chat10://0.0.0.0:1234 -l chat64://0.0.0.0:5050
                                              one room for two tutorials' clients
  chatloop serve -l proxy+chat10://0.0.0.0:1234 --trust-proxy 10.0.0.5
                                              behind HAProxy, with its clients' addresses
  chatloop serve -l wss://0.0.0.0:443 --cert chat.crt --key chat.key
                                              browsers through TLS
  chatloop serve --bus redis://10.0.0.7       one room with all relays that share this engine
  CHATLOOP_MAX_MESSAGE=64KiB chatloop serve   a flag from the environment

Signals:
  SIGTERM, SIGINT   accept no connection, deliver pending output, stop; a second one stops at once
  SIGUSR1           log a table of the members
  SIGHUP            if standard input or standard error was a terminal at the start: as SIGTERM,
                    since the terminal was closed; otherwise the certificate, its key and what
                    is demanded of clients are read again

Exit codes:
  0  stopped by SIGTERM or SIGINT, or by SIGHUP when its terminal was closed
  1  anything not listed here
  2  usage: a flag that does not exist, or a value that cannot work
  3  cannot listen where it was asked to, or find that address, or on a socket that was passed";

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; may be given more than once [default: 127.0.0.1:1234 ws://127.0.0.1:1235]
    ///
    /// An address is `127.0.0.1:1234`, `[::1]:1234` or a name such as `localhost:1234`, of which
    /// the first address is taken, IPv4 before IPv6. Without a port it is 1234, and 1235 for browsers; a
    /// port alone is one of 127.0.0.1. `0.0.0.0` means every IPv4 address of this machine. `[::]` means every address, IPv6
    /// and IPv4; if another --listen names an IPv4 address with the same port, it is IPv6 only. Port 0
    /// lets the system choose one. In the environment, commas separate several.
    ///
    /// The dialect is the protocol that clients speak there, one of those listed below; `chat10` if
    /// none is given. All listeners share one room. `tls+` in front of it is for TLS: see --cert.
    /// `proxy+` in front of that is for proxies that state their clients' addresses with the PROXY
    /// protocol: see --trust-proxy.
    ///
    /// Sockets that a service manager passes (`LISTEN_FDS`) are served as well, each in the dialect
    /// that is its name. If there are any, nothing else is listened on unless it is asked for.
    #[arg(
        short,
        long,
        env = "CHATLOOP_LISTEN",
        value_name = "[DIALECT://]ADDR:PORT",
        value_delimiter = ',',
        value_parser = parse_listen,
        hide_env = true
    )]
    pub(crate) listen: Vec<Listen>,

    /// A Unix socket for looking at the relay and acting on its members
    ///
    /// Only the user that runs the relay, and root, may connect: its mode is 0600. `chatloop top PATH` shows what
    /// is there, `chatloop admin` closes and bans. It has /metrics and /healthz over HTTP, as a metrics:// listener has, and /members: each
    /// member's name, address, messages and pending output as JSON. A socket that a relay has left behind is
    /// replaced; it is removed at the end.
    #[arg(long, env = "CHATLOOP_ADMIN", value_name = "PATH", hide_env = true)]
    pub(crate) admin: Option<PathBuf>,

    /// Most connections at once [default: as many as the open-file limit allows]
    ///
    /// One more is refused by closing it, unless a place can be freed. A connection whose peer is gone
    /// is evicted first, then the oldest one that has not sent its name for more than two seconds. The
    /// open-file limit is raised as far as the system allows (`ulimit -Hn`), and the relay needs a few
    /// descriptors for itself; the first log line has the number of clients that leaves.
    #[arg(
        long,
        env = "CHATLOOP_MAX_CLIENTS",
        value_name = "N",
        value_parser = parse_count,
        hide_env = true
    )]
    pub(crate) max_clients: Option<usize>,

    /// Longest username
    ///
    /// A client that announces a longer one is disconnected before the name is read.
    #[arg(
        long,
        env = "CHATLOOP_MAX_NAME",
        value_name = "BYTES",
        default_value = "256B",
        value_parser = parse_size,
        hide_env = true
    )]
    pub(crate) max_name: usize,

    /// Whether two members may have the same name: `any` or `unique`
    ///
    /// `unique`: a name that a member has is refused where the client can be told so: browsers ask for another one.
    /// Clients of other protocols cannot be told; they get a number, and the second alice is alice-2. Names are
    /// compared byte by byte, so that `alice` and `Alice` are two.
    #[arg(
        long,
        env = "CHATLOOP_NAMES",
        value_name = "POLICY",
        default_value = "any",
        value_parser = parse_names,
        hide_env = true
    )]
    pub(crate) names: Names,

    /// Longest message
    ///
    /// A client that announces a longer one is disconnected before the message is read. Each client
    /// can make the relay hold an incomplete message of this size. --queue-limit must be able to hold
    /// one such message.
    #[arg(
        long,
        env = "CHATLOOP_MAX_MESSAGE",
        value_name = "BYTES",
        default_value = "1MiB",
        value_parser = parse_size,
        hide_env = true
    )]
    pub(crate) max_message: usize,

    /// How long a new connection may take to send its name
    ///
    /// The whole name must arrive in this time, or the connection is closed.
    #[arg(
        long,
        env = "CHATLOOP_HANDSHAKE_TIMEOUT",
        value_name = "DUR",
        default_value = "10s",
        value_parser = parse_positive_duration,
        hide_env = true
    )]
    pub(crate) handshake_timeout: Duration,

    /// How far a member may lag before it is closed
    ///
    /// In bytes that were published and that the member's socket has not accepted; the kernel's socket
    /// buffers come on top. All lagging members share one copy of them. With --slow pace the room waits
    /// for a member that reads, so that it does not get there. At least --max-message plus --max-name
    /// plus 20.
    #[arg(
        long,
        env = "CHATLOOP_QUEUE_LIMIT",
        value_name = "BYTES",
        default_value = "8MiB",
        value_parser = parse_size,
        hide_env = true
    )]
    pub(crate) queue_limit: usize,

    /// What to do while a member that reads lags: `pace` or `cut`
    ///
    /// `pace`: while its lag is over --soft-limit, no member is read, so the room runs at the speed of
    /// its slowest reader. The room does not wait for a member whose socket accepts nothing. `cut`: the
    /// room never waits, and a member over --queue-limit is closed.
    #[arg(
        long,
        env = "CHATLOOP_SLOW",
        value_name = "POLICY",
        default_value = "pace",
        value_parser = parse_slow,
        hide_env = true
    )]
    pub(crate) slow: Slow,

    /// How far a member that reads may lag before senders are paused [default: an eighth of
    /// --queue-limit]
    ///
    /// They are paused until the lag is at this limit again, and then go on in small steps until it is
    /// at half of it. Below --queue-limit.
    #[arg(
        long,
        env = "CHATLOOP_SOFT_LIMIT",
        value_name = "BYTES",
        value_parser = parse_size,
        hide_env = true
    )]
    pub(crate) soft_limit: Option<usize>,

    /// How long the room waits for a member that reads almost nothing
    ///
    /// While senders are paused for a slow reader, a member that accepts less than 6.5 kB a second over
    /// this time is closed. One that accepts nothing for half of this time is stalled: the room goes on at
    /// full speed, and does not wait for it before its lag is at --soft-limit; over --queue-limit it is
    /// closed. A program that reads slowly behind a receive buffer of megabytes can look stalled: for its
    /// sake raise this time, or --queue-limit.
    #[arg(
        long,
        env = "CHATLOOP_SLOW_TIMEOUT",
        value_name = "DUR",
        default_value = "40s",
        value_parser = parse_positive_duration,
        hide_env = true
    )]
    pub(crate) slow_timeout: Duration,

    /// How long a member may take to send a message
    ///
    /// From its first byte to its last, not counting the time in which the relay does not read from
    /// it because of --slow or --rate.
    #[arg(
        long,
        env = "CHATLOOP_MESSAGE_TIMEOUT",
        value_name = "DUR",
        default_value = "60s",
        value_parser = parse_positive_duration,
        hide_env = true
    )]
    pub(crate) message_timeout: Duration,

    /// How long a member may send nothing before it is closed; `off` for no limit
    ///
    /// The protocols have no sign of life, so this closes members that only listen.
    #[arg(
        long,
        env = "CHATLOOP_IDLE_TIMEOUT",
        value_name = "DUR",
        default_value = "off",
        value_parser = parse_idle_timeout,
        hide_env = true
    )]
    pub(crate) idle_timeout: OrOff,

    /// Most that a member may have the relay write in a second; `off` for no limit
    ///
    /// The bytes of its messages times the members that receive them. A second's worth may come at once,
    /// and what 4KiB of messages come to in any case. A member over it is throttled: it is not closed
    /// but read from later, and loses nothing.
    #[arg(
        long,
        env = "CHATLOOP_RATE",
        value_name = "BYTES",
        default_value = "off",
        value_parser = parse_rate,
        hide_env = true
    )]
    pub(crate) rate: OrOff<u64>,

    /// Most connections from one address; `off` for no limit
    ///
    /// One more is refused, unless one of these can be evicted, as with --max-clients. Of IPv6, a /64
    /// counts as one address.
    #[arg(
        long,
        env = "CHATLOOP_MAX_PER_IP",
        value_name = "N",
        default_value = "off",
        value_parser = parse_max_per_ip,
        hide_env = true
    )]
    pub(crate) max_per_ip: OrOff<usize>,

    /// Most connections that are accepted in a second; `off` for no limit
    ///
    /// A second's worth may come at once. The others wait in the kernel's queue.
    #[arg(
        long,
        env = "CHATLOOP_ACCEPT_RATE",
        value_name = "N",
        default_value = "off",
        value_parser = parse_accept_rate,
        hide_env = true
    )]
    pub(crate) accept_rate: OrOff<u64>,

    /// Most memory for unread output, incomplete messages and the history [default: 128MiB, or what one
    /// client may need if that is more]
    ///
    /// For all connections together. Over it, the connections that hold most are closed, stalled members
    /// before those that read. At least --queue-limit plus --max-message.
    #[arg(
        long,
        env = "CHATLOOP_MAX_MEMORY",
        value_name = "BYTES",
        value_parser = parse_size,
        hide_env = true
    )]
    pub(crate) max_memory: Option<usize>,

    /// How long a member that has left may go without reading
    ///
    /// A member leaves when it ends its input; in `chat64` and `ack64` also with a message: see
    /// --farewell. It receives what was published until then, and is closed; or it is closed when it has
    /// read nothing of that for so long. The same holds for clients that are only greeted.
    #[arg(
        long,
        env = "CHATLOOP_FAREWELL_TIMEOUT",
        value_name = "DUR",
        default_value = "60s",
        value_parser = parse_positive_duration,
        hide_env = true
    )]
    pub(crate) farewell_timeout: Duration,

    /// How many of the last messages a new member receives [default: 50 in browsers, elsewhere 0]
    ///
    /// Right after it has joined, before anything new. A browser shows when each was sent. Nothing in the
    /// other protocols distinguishes old messages from new ones, so none is the default there.
    #[arg(
        long,
        env = "CHATLOOP_HISTORY",
        value_name = "N",
        value_parser = parse_number,
        hide_env = true
    )]
    pub(crate) history: Option<usize>,

    /// A name under which browsers reach the relay; may be given more than once
    ///
    /// Browsers reach it by an IP address or as `localhost` without this. A request for another name is
    /// refused: it may be a page of another site, whose name was made to point to this machine.
    #[arg(
        long,
        env = "CHATLOOP_WS_HOST",
        value_name = "NAME",
        value_delimiter = ',',
        hide_env = true
    )]
    pub(crate) ws_host: Vec<String>,

    /// Another site whose pages may connect; `any` for all; may be given more than once
    ///
    /// As the browser sends it: https://example.org. The relay's own page may always connect.
    #[arg(
        long,
        env = "CHATLOOP_WS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        hide_env = true
    )]
    pub(crate) ws_origin: Vec<String>,

    /// A proxy that states its clients' addresses: an IP address or a network; may be given more than once
    ///
    /// As in `127.0.0.1`, `10.0.0.0/8` or `2001:db8::/32`. The log, the members' table and --max-per-ip have
    /// the addresses that it states. For browsers, that is in X-Forwarded-For: the right-most address there
    /// that is not a trusted proxy's. In other connections it is in a header of the PROXY protocol, on
    /// listeners with `proxy+`, where no other peer is let in. X-Forwarded-For of other peers is ignored.
    /// In the environment, commas separate several.
    #[arg(
        long,
        env = "CHATLOOP_TRUST_PROXY",
        value_name = "ADDR[/PREFIX]",
        value_delimiter = ',',
        value_parser = parse_network,
        hide_env = true
    )]
    pub(crate) trust_proxy: Vec<Network>,

    #[cfg(feature = "tls")]
    #[command(flatten)]
    pub(crate) tls: tls::TlsArgs,
    /// Only these clients may connect; may be given more than once
    ///
    /// Addresses or networks; all others are refused, at listeners for metrics as well. A client behind a proxy
    /// that --trust-proxy names has the address that the proxy states. In the environment, commas separate
    /// several.
    #[arg(
        long,
        env = "CHATLOOP_ALLOW",
        value_name = "ADDR[/PREFIX]",
        value_delimiter = ',',
        value_parser = parse_network,
        hide_env = true
    )]
    pub(crate) allow: Vec<Network>,

    /// These clients may not connect; may be given more than once
    ///
    /// As with --allow, which does not help a client that is in both.
    #[arg(
        long,
        env = "CHATLOOP_DENY",
        value_name = "ADDR[/PREFIX]",
        value_delimiter = ',',
        value_parser = parse_network,
        hide_env = true
    )]
    pub(crate) deny: Vec<Network>,

    /// A file with the password that browsers and other WebSocket clients must have
    ///
    /// Its first line. It is asked for over HTTP (Basic authentication), so use it with wss://, or only where nobody
    /// can listen on the way. The other protocols have no place for a password: a listener for them lets everybody
    /// in, and is warned of unless it is on the loopback. `chatloop join` has a flag of the same name.
    #[arg(
        long,
        env = "CHATLOOP_PASSWORD_FILE",
        value_name = "FILE",
        hide_env = true
    )]
    pub(crate) password_file: Option<PathBuf>,

    /// A file that keeps bans, so that they outlive the relay
    ///
    /// Bans are made with `chatloop admin ban`. The file is written anew for each, with mode 0600; its folder must be
    /// writable. It need not be there at the start.
    #[arg(long, env = "CHATLOOP_BANS", value_name = "FILE", hide_env = true)]
    pub(crate) bans: Option<PathBuf>,

    /// Show the loop at /loop of each listener for browsers
    ///
    /// The page there plays the turns as they happen: what the kernel reports, what the relay remembers of it,
    /// and who lags. It shows names, addresses and lengths, and no message. It is for this machine; under a
    /// name that --ws-host gives, for all that can reach the listener. Up to four can watch at once; /loop/trace
    /// has the records themselves.
    #[arg(long, env = "CHATLOOP_WATCH", hide_env = true)]
    pub(crate) watch: bool,

    /// Write what each turn does to this file, as lines of JSON
    ///
    /// docs/loop.html of the project plays it. Names, addresses and lengths are in it, and no message. The file
    /// is replaced; only the user that runs the relay may read it. The loop waits for the disk.
    #[arg(long, env = "CHATLOOP_TRACE", value_name = "FILE", hide_env = true)]
    pub(crate) trace: Option<PathBuf>,

    /// Longest trace; with the turn that does not fit, it ends
    #[arg(
        long,
        env = "CHATLOOP_TRACE_MAX",
        value_name = "BYTES",
        default_value = "1GiB",
        value_parser = parse_size,
        hide_env = true
    )]
    pub(crate) trace_max: usize,

    #[command(flatten)]
    pub(crate) bus: BusArgs,

    /// How long nothing may be sent to browsers before they are sent a heartbeat; `off` for never
    ///
    /// A proxy closes connections that are silent for long, often after a minute. The heartbeat is a Pong
    /// frame, which nobody answers.
    #[arg(
        long,
        env = "CHATLOOP_WS_HEARTBEAT",
        value_name = "DUR",
        default_value = "45s",
        value_parser = parse_or_off,
        hide_env = true
    )]
    pub(crate) ws_heartbeat: OrOff,

    /// Most memory for the history
    ///
    /// The oldest messages are dropped when there are more. `chat10` and `chat64` have half of it each if there
    /// are listeners for both. --queue-limit must have room for it and one message more.
    #[arg(
        long,
        env = "CHATLOOP_HISTORY_BYTES",
        value_name = "BYTES",
        default_value = "1MiB",
        value_parser = parse_size,
        hide_env = true
    )]
    pub(crate) history_bytes: usize,

    /// What `greet10` and `hello` send as a greeting [default: as in the tutorials]
    #[arg(
        long,
        env = "CHATLOOP_GREETING",
        value_name = "TEXT",
        conflicts_with = "greeting_file",
        hide_env = true
    )]
    pub(crate) greeting: Option<String>,

    /// A greeting from a file, byte for byte
    ///
    /// For the tutorials that send a pickled object: write it to a file, and set --every off.
    #[arg(
        long,
        env = "CHATLOOP_GREETING_FILE",
        value_name = "PATH",
        hide_env = true
    )]
    pub(crate) greeting_file: Option<PathBuf>,

    /// How often `greet10` sends the time; `off` for never
    #[arg(
        long,
        env = "CHATLOOP_EVERY",
        value_name = "DUR",
        default_value = "3s",
        value_parser = parse_every,
        hide_env = true
    )]
    pub(crate) every: OrOff,

    /// How `chat64` and `ack64` answer a message [default: as in the tutorials]
    ///
    /// `Message was Sent!` and `Msg received`. For clients that expect other words; an empty text for no
    /// answer. It goes for both dialects.
    #[arg(long, env = "CHATLOOP_ACK", value_name = "TEXT", hide_env = true)]
    pub(crate) ack: Option<String>,

    /// The message with which `chat64` and `ack64` clients leave [default: as in the tutorials]
    ///
    /// `Client Disconnected` in `chat64`, where others receive it; `!DISCONNECT` in `ack64`. For clients
    /// that have another word; an empty text for none. It goes for both dialects.
    #[arg(long, env = "CHATLOOP_FAREWELL", value_name = "TEXT", hide_env = true)]
    pub(crate) farewell: Option<String>,

    /// How long a silence before the kernel probes whether a peer is alive; `off` for never
    ///
    /// TCP keepalive: twenty probes or more, spread over the same time again, or one a second if that is
    /// fewer. With 60s, a peer that vanished from a silent room is closed after about two minutes. At
    /// most 32767s.
    #[arg(
        long,
        env = "CHATLOOP_KEEPALIVE",
        value_name = "DUR",
        default_value = "60s",
        value_parser = parse_keepalive,
        hide_env = true
    )]
    pub(crate) keepalive: OrOff,

    /// How long to go on delivering pending output when asked to stop
    ///
    /// Members leave one after the other in the first half of this time, in random order, so that
    /// thousands do not reconnect at the same time; a few members leave at once. What they send before
    /// that is still relayed.
    #[arg(
        long,
        env = "CHATLOOP_DRAIN",
        value_name = "DUR",
        default_value = "5s",
        value_parser = parse_duration,
        hide_env = true
    )]
    pub(crate) drain: Duration,

    /// What to log: off, error, warn, info, debug or trace [default: info]
    ///
    /// Without this flag, and without its environment variable, `RUST_LOG` decides, which can also
    /// set a level for each module. The log goes to the standard error stream.
    #[arg(
        long,
        env = "CHATLOOP_LOG_LEVEL",
        value_name = "LEVEL",
        value_parser = parse_level,
        hide_env = true
    )]
    pub(crate) log_level: Option<LevelFilter>,

    /// End when the program ends that started this one: for `chatloop load`
    #[arg(long, hide = true)]
    pub(crate) end_with_parent: bool,
}

const JOIN_EPILOGUE: &str = "\
On a terminal, messages appear above the line that you type. Enter sends the line, Alt-Enter begins \
another line of the same message, and a paste with several lines is one message. Keys edit the line as \
in a shell; Up, Down and Ctrl-R bring back your earlier messages, and Tab completes names. /help lists the keys and \
the commands: the members that were heard, another name, and so on. A line that begins with /me is sent unchanged, and shown by \
this client as an action. A message that has your name in it is highlighted. Of one with more than ten lines the \
first ten are shown, and /more shows the rest.

Messages cannot pass for those of another member: each further row of a message is indented, and a name \
is between quotes if it is longer than 32 columns, begins like a notice, or has unusual spaces or a \
colon and a space in it.

In a pipe or from a file, each line of standard input is a message, without its LF or CR LF, and the \
program ends when all of them have reached the server. Each received message is a line `name: message` \
on standard output, with everything escaped that is not plainly printable. Everything else goes to \
standard error. If the input is a terminal and the output is not, the input is not read, and the \
program only receives: chatloop join > log

A lost connection is made again, after waits that grow to half a minute, for as long as it takes; with \
--no-reconnect the program ends instead. An empty line connects at once. Unsent messages are sent over the next \
connection, in order, after one to five seconds: other members have lost theirs too, and would miss them. \
Messages that may not have arrived are listed, and not sent again: those that the server's machine has \
not acknowledged, and those that were sent right before the server closed the connection; over ws:// \
those that the relay has not confirmed. A message is given up when two connections end inside it.

Over tls:// and wss:// the server's certificate must be from an issuer that this machine trusts, and be valid \
for its name. If it is not, a terminal shows the fingerprint of its key, and asks once whether to trust it; that \
key is then kept, and no other is accepted in its place. In a pipe it is refused.

Over ws:// a relay sends the last messages to a new member. A terminal shows them with their times, and \
--json writes them with \"history\":true. Plain lines do not have them, since nothing would distinguish \
them. After a reconnect the messages that were sent meanwhile are shown, as far as the relay has them.

Examples:
  chatloop join                                 the relay on this machine
  chatloop join chat.example.org:1234 -n alice  another relay, as alice
  chatloop join ws://1235                       this machine's relay, by its port for browsers
  chatloop join tls://chat.example.org          through TLS
  echo 'build 17 is done' | chatloop join -n ci -q --no-reconnect
  chatloop join -n log > chat.log               write all messages to a file
  chatloop join -n bot --json | jq -r .message  a JSON object for each message

Environment: CHATLOOP_SERVER, CHATLOOP_NAME, which count as unset if they are empty; NO_COLOR and \
TERM=dumb are respected.

Exit codes:
  0  left, and all messages have reached the server
  1  anything not listed here
  2  usage: a flag that does not exist, or a value that cannot work
  4  cannot connect: no such host, connection refused, no answer
  5  the connection was lost, or a message may not have arrived
  6  the server does not speak the chat protocol
  7  the server is not trusted: its key is unknown, or has changed
  8  the server asks for a password, or for another one
A client that is ended by a signal restores the terminal and ends by that signal.";

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct JoinArgs {
    /// The relay's address, with ws:// in front if it is for browsers, and tls:// or wss:// with TLS
    ///
    /// `127.0.0.1:1234`, `[::1]:1234` or `chat.example.org:1234`. Without a port it is 1234; a port alone
    /// is one of 127.0.0.1. If a name has several addresses, the first that answers is used.
    ///
    /// `ws://127.0.0.1:1235/` is a port for browsers, or a proxy for HTTP before one. Without a port it is
    /// 1235, and a path may follow. There the relay itself confirms each message, and sends those from
    /// before.
    ///
    /// `tls://` and `wss://` are the same through TLS, with the same ports. The server must prove to have a key
    /// that is trusted: see the flags for TLS.
    #[arg(
        env = "CHATLOOP_SERVER",
        value_name = "[SCHEME://]ADDR:PORT",
        default_value = "127.0.0.1:1234",
        hide_env = true
    )]
    pub(crate) server: String,

    /// The name to join with [default: asked for, or the login name]
    ///
    /// On a terminal it is asked for, with the login name as the default. In a pipe it is the login name:
    /// the value of LOGNAME or USER, or else the name in the user database.
    #[arg(
        short,
        long,
        env = "CHATLOOP_NAME",
        hide_env = true,
        allow_hyphen_values = true
    )]
    pub(crate) name: Option<OsString>,

    /// Report problems only, and not that the client has connected
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Do not show the time of messages
    #[arg(long)]
    pub(crate) no_time: bool,

    /// Try again if the first connection fails
    ///
    /// As it is done when a connection is lost. A host that has no address is not waited for.
    #[arg(long)]
    pub(crate) wait: bool,

    /// Ring the bell when your name is mentioned, and count that in the window's title
    ///
    /// On a terminal, while its window is not looked at. Terminals that do not report that ring each time.
    #[arg(long)]
    pub(crate) bell: bool,

    /// Append each message to this file, with its date and time
    ///
    /// On a terminal. A new file has the mode 0600. Earlier messages that a relay sends to a new member are not
    /// in it, nor are those of members that are ignored.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// Do not keep what is typed for the next time
    ///
    /// On a terminal, Up and Ctrl-R find earlier messages, and those of earlier runs. They are in
    /// chatloop/history in the folder for state, which is $XDG_STATE_HOME or ~/.local/state: a file of mode 0600
    /// with the last 128KiB at least.
    #[arg(long)]
    pub(crate) no_history: bool,

    /// A file with the password for a relay that asks for one; with ws:// and wss://
    ///
    /// Its first line is `NAME:PASSWORD`, or a password without a colon. It is sent over HTTP (Basic
    /// authentication), so without TLS whoever is on the way can read it. A file that others may read is refused.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// End when the connection is lost, instead of connecting again
    #[arg(long)]
    pub(crate) no_reconnect: bool,

    /// In a pipe: stay connected after the end of the input
    ///
    /// Also for a client that only receives and has no terminal: when it is started by systemd, by cron
    /// or with `&` in a script, its input ends at once.
    #[arg(long)]
    pub(crate) stay: bool,

    /// Write each message as a JSON object on a line of its own
    ///
    /// It has `time` (UTC), `name` and `message`. If bytes are not UTF-8, `name_hex` or `message_hex` has
    /// all of them in hexadecimal. Over ws:// the time is the relay's.
    #[arg(long, conflicts_with = "raw")]
    pub(crate) json: bool,

    /// Write names and messages in exactly the bytes that were received
    ///
    /// They can contain any bytes, including line feeds and control codes of terminals.
    #[arg(long)]
    pub(crate) raw: bool,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_passes_the_checks_of_clap() {
        Cli::command().debug_assert();
    }
}
