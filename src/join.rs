//! The `join` command: from flags and the terminal to a running client.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use chatloop::client::display::{Clock, Format, Look, Palette};
use chatloop::client::{Client, ClientError, Config, Ending, Streams, User};
use jiff::tz::TimeZone;
use rustix::fs::fstat;
use signal_hook::low_level::emulate_default_handler;

use crate::cli::JoinArgs;

/// Why the command failed.
#[derive(Debug)]
pub(crate) enum JoinError {
    /// The server's address has no port, or is no address.
    Address(String),
    /// The server's name has no address.
    Resolve(String, String),
    /// The client could not go on.
    Client(ClientError),
    /// Not everything that was said has arrived.
    Incomplete { unsent: usize, uncertain: u64 },
    /// The system failed us.
    Io(&'static str, io::Error),
}

impl JoinError {
    /// The exit code, as `--help` lists it.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Address(_) => 2,
            Self::Resolve(..) | Self::Client(ClientError::Connect(..)) => 4,
            Self::Incomplete { .. } | Self::Client(ClientError::Lost { .. }) => 5,
            Self::Client(ClientError::NotChat(..)) => 6,
            Self::Client(_) | Self::Io(..) => 1,
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(server) => write!(
                f,
                "{server}: not ADDR:PORT; write 127.0.0.1:1234, or [::1]:1234 for IPv6"
            ),
            Self::Resolve(server, error) => {
                write!(f, "cannot find the address of {server}: {error}")
            }
            Self::Client(error @ ClientError::Connect(..)) => {
                write!(f, "{error}; `chatloop serve` runs a relay")
            }
            Self::Client(error) => error.fmt(f),
            Self::Incomplete { unsent, uncertain } => {
                let mut sep = "";
                if *unsent > 0 {
                    write!(f, "{} not sent", Messages(*unsent as u64))?;
                    sep = ", ";
                }
                if *uncertain > 0 {
                    write!(f, "{sep}{} may not have arrived", Messages(*uncertain))?;
                }
                Ok(())
            }
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

/// So many messages.
struct Messages(u64);

impl fmt::Display for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("one message"),
            more => write!(f, "{more} messages"),
        }
    }
}

/// Chats until the user leaves.
pub(crate) fn join(args: &JoinArgs) -> Result<ExitCode, JoinError> {
    let addrs = resolve(&args.server)?;
    let terminal = Terminal::found();
    let on_screen = terminal.is_screen() && !args.json && !args.raw;
    let name = match &args.name {
        Some(name) => name.clone(),
        None if on_screen => match ask_name(&login_name())? {
            Some(name) => name,
            // The end of the input: no name, no chat.
            None => return Ok(ExitCode::SUCCESS),
        },
        None => login_name(),
    };
    let config = Config {
        server: args.server.clone(),
        addrs,
        name: name.into_vec(),
        reconnect: !args.no_reconnect,
        user: if on_screen {
            terminal.person(args)
        } else {
            User::Streams(terminal.streams(args)?)
        },
    };
    let client = Client::new(config).map_err(JoinError::Client)?;
    match client.run().map_err(JoinError::Client)? {
        Ending::Left {
            unsent: 0,
            uncertain: 0,
        } => Ok(ExitCode::SUCCESS),
        Ending::Left { unsent, uncertain } => Err(JoinError::Incomplete { unsent, uncertain }),
        Ending::Signal(signal) => {
            // So that a shell sees what it was. It does not come back from that.
            emulate_default_handler(signal)
                .map_err(|error| JoinError::Io("cannot end by a signal", error))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn resolve(server: &str) -> Result<Vec<SocketAddr>, JoinError> {
    let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
    let bare_ipv6 = host.contains(':') && !host.starts_with('[');
    if host.is_empty() || bare_ipv6 || port.parse::<u16>().is_err() {
        return Err(JoinError::Address(server.to_owned()));
    }
    let failed = |error: String| JoinError::Resolve(host.to_owned(), error);
    let addrs: Vec<_> = server
        .to_socket_addrs()
        .map_err(|error| failed(error.to_string()))?
        .collect();
    if addrs.is_empty() {
        return Err(failed("it has none".to_owned()));
    }
    Ok(addrs)
}

/// What the environment says of the terminal.
struct Terminal {
    stdin: bool,
    stdout: bool,
    /// Whether they are one and the same.
    one: bool,
    /// The terminal's kind; empty if it is not known.
    term: String,
    palette: Palette,
}

impl Terminal {
    fn found() -> Self {
        let term = env::var("TERM").unwrap_or_default();
        Self {
            stdin: io::stdin().is_terminal(),
            stdout: io::stdout().is_terminal(),
            one: is_same_device(&io::stdin(), &io::stdout()),
            palette: palette(&term),
            term,
        }
    }

    /// Whether lines can be typed and painted.
    fn is_screen(&self) -> bool {
        self.stdin && self.stdout && self.one && !matches!(self.term.as_str(), "" | "dumb")
    }

    /// Whether it wraps lines anew when it becomes narrower. Most do. Xterm says who it is, but not
    /// when tmux is in between, which does.
    fn reflows(&self) -> bool {
        let cuts = ["linux", "st", "st-", "rxvt", "screen", "vt"];
        env::var_os("TMUX").is_some()
            || env::var_os("XTERM_VERSION").is_none()
                && !cuts
                    .iter()
                    .any(|kind| self.term == *kind || kind.len() > 2 && self.term.starts_with(kind))
    }

    fn person(&self, args: &JoinArgs) -> User {
        let clock = (!args.no_time).then(|| Clock::new(TimeZone::system()));
        User::Person {
            look: Look::new(self.palette, clock),
            reflows: self.reflows(),
        }
    }

    fn streams(&self, args: &JoinArgs) -> Result<Streams, JoinError> {
        let own = |stream: &dyn AsFd| {
            stream
                .as_fd()
                .try_clone_to_owned()
                .map_err(|error| JoinError::Io("cannot use the standard streams", error))
        };
        let format = match (args.json, args.raw) {
            (true, _) => Format::Json,
            (_, true) => Format::Raw,
            _ => Format::Plain,
        };
        // A terminal that cannot paint still tells the time; a pipe has names and messages only.
        let by_hand = self.stdin && self.stdout;
        let timed = format == Format::Json || format == Format::Plain && by_hand;
        // A terminal at the input of something that writes to a file is for the shell.
        let reads = !self.stdin || self.stdout;
        Ok(Streams {
            input: if reads {
                Some(own(&io::stdin())?)
            } else {
                None
            },
            output: own(&io::stdout())?,
            notices: own(&io::stderr())?,
            format,
            clock: (timed && !args.no_time).then(|| Clock::new(TimeZone::system())),
            stay: args.stay,
        })
    }
}

/// The colours that a kind of terminal has, if any are wanted: see no-color.org.
fn palette(term: &str) -> Palette {
    if env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        Palette::None
    } else if term.contains("256color") || term.contains("direct") {
        Palette::Indexed
    } else {
        Palette::Basic
    }
}

fn is_same_device(one: &dyn AsFd, other: &dyn AsFd) -> bool {
    let device = |stream: &dyn AsFd| fstat(stream.as_fd()).map(|stat| stat.st_rdev);
    matches!((device(one), device(other)), (Ok(one), Ok(other)) if one == other)
}

/// The name that whoever started us logged in with.
fn login_name() -> OsString {
    ["LOGNAME", "USER"]
        .into_iter()
        .filter_map(env::var_os)
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "guest".into())
}

/// Asks for a name on the terminal, which is not in raw mode yet. `None` if there is no answer.
fn ask_name(offer: &OsString) -> Result<Option<OsString>, JoinError> {
    let failed = |error| JoinError::Io("cannot ask for a name", error);
    let mut stdout = io::stdout().lock();
    write!(stdout, "Your name [{}]: ", offer.display()).map_err(failed)?;
    stdout.flush().map_err(failed)?;
    // Bytes, since a terminal may have another idea of letters than UTF-8.
    let mut answer = Vec::new();
    let read = io::stdin().lock().read_until(b'\n', &mut answer);
    if read.map_err(failed)? == 0 {
        writeln!(stdout).map_err(failed)?;
        return Ok(None);
    }
    Ok(Some(match answer.trim_ascii() {
        [] => offer.clone(),
        name => OsString::from_vec(name.to_vec()),
    }))
}
