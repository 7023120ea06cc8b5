//! The `join` command: from flags and the terminal to a running client.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use chatloop::client::display::{Clock, Format, Palette, Theme};
use chatloop::client::session::Disconnect;
use chatloop::client::{
    ChatLog, Client, ClientError, Config, Ending, Interface, Streams, TerminalOptions,
};
use chatloop::client_tls::Connector;
#[cfg(feature = "tls-client")]
use chatloop::client_tls::{Fingerprint, Refusal};
use chatloop::handshake::{Credentials, HandshakeError, Target};
use chatloop::text::{Escaped, Quoted};
use chatloop::wire::Dialect;
use jiff::tz::TimeZone;
use rustix::fs::{OFlags, fcntl_getfl};
use signal_hook::low_level::emulate_default_handler;

use crate::address::{Address, DEFAULT_PAGE_PORT, DEFAULT_PORT, LookupError};
use crate::cli::JoinArgs;
#[cfg(feature = "tls-client")]
use crate::known_hosts::{self, KnownHostsError};
use crate::password_file;
use crate::secure::{SecureError, connector};
#[cfg(feature = "tls-client")]
use crate::secure::{known_file, known_name};
use crate::state_folder::state_folder;
use crate::tty::Tty;
use crate::typed_history;

/// Why the command failed.
#[derive(Debug)]
pub(crate) enum JoinError {
    /// The server's address is none, and why.
    Address(String, String),
    /// A flag cannot be used here.
    Usage(&'static str),
    /// This file of this flag cannot be used.
    File(&'static str, PathBuf, io::Error),
    /// The flags for TLS cannot be used, or the keys that are known.
    Secure(SecureError),
    /// The user does not trust this server.
    #[cfg(feature = "tls-client")]
    Declined(String),
    /// The server's name has no address.
    Lookup(LookupError),
    /// The client could not go on.
    Client(ClientError),
    /// Not every message has arrived.
    Incomplete { unsent: usize, uncertain: u64 },
    /// The system failed us.
    Io(&'static str, io::Error),
}

impl JoinError {
    /// The exit code, as `--help` lists it.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Address(..) | Self::Usage(_) | Self::File(..) => 2,
            Self::Secure(error) => error.exit_code(),
            Self::Lookup(_) | Self::Client(ClientError::Connect(..)) => 4,
            Self::Incomplete { .. } | Self::Client(ClientError::Disconnected { .. }) => 5,
            Self::Client(error) if asks_for_password(error).is_some() => 8,
            Self::Client(ClientError::NotChat(..)) => 6,
            Self::Client(ClientError::Untrusted { .. }) => 7,
            #[cfg(feature = "tls-client")]
            Self::Declined(_) => 7,
            Self::Client(_) | Self::Io(..) => 1,
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(server, why) => write!(f, "{}: {why}", Quoted(server.as_bytes())),
            Self::Usage(error) => f.write_str(error),
            Self::File(flag, path, error) => {
                write!(f, "cannot use {flag} {}: {error}", path.display())
            }
            Self::Secure(error) => error.fmt(f),
            #[cfg(feature = "tls-client")]
            Self::Declined(server) => write!(f, "{server} is not trusted"),
            Self::Lookup(error) => error.fmt(f),
            // These errors are answers of a server.
            Self::Client(error @ ClientError::Connect(_, _, cause))
                if !matches!(
                    cause.kind(),
                    io::ErrorKind::Other
                        | io::ErrorKind::InvalidData
                        | io::ErrorKind::UnexpectedEof
                ) =>
            {
                write!(f, "{error}; `chatloop serve` runs a relay")
            }
            Self::Client(error) if asks_for_password(error) == Some(false) => {
                write!(f, "{error}; send one with --password-file FILE")
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

/// If the server asks for a password: whether it has got one, which is wrong.
const fn asks_for_password(error: &ClientError) -> Option<bool> {
    match error {
        ClientError::NotChat(
            _,
            Disconnect::Handshake(HandshakeError::Unauthorized { had_password }),
        ) => Some(*had_password),
        _ => None,
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
    let mut site = Site::parse(&args.server)?;
    site.take_password(args)?;
    let addrs = site.addr.lookup().map_err(JoinError::Lookup)?;
    let tty = Tty::found();
    let on_screen = tty.is_screen() && !args.json && !args.raw;
    if args.log.is_some() && !on_screen {
        return Err(JoinError::Usage(
            "--log is for a terminal; in a pipe, write the output to a file: chatloop join > FILE",
        ));
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None if on_screen => match ask_name(&login_name())? {
            Some(name) => name,
            // The end of the input: no name, no chat.
            None => return Ok(ExitCode::SUCCESS),
        },
        None => login_name(),
    };
    let name = name.into_vec();
    let mut ended;
    loop {
        let config = Config {
            server: args.server.clone(),
            addrs: addrs.clone(),
            web_socket: site.web_socket.clone(),
            tls: site.connector(args)?,
            name: name.clone(),
            reconnect: !args.no_reconnect,
            wait: args.wait,
            quiet: args.quiet,
            interface: if on_screen {
                Interface::Terminal(terminal_options(&tty, args)?)
            } else {
                Interface::Streams(streams(&tty, args)?)
            },
        };
        ended = Client::new(config).and_then(Client::run);
        // The client that met an unknown key has sent nothing. Another one begins if the key is accepted.
        if !(tty.stdin && tty.stdout && accept_key(&ended, &site, args)?) {
            break;
        }
    }
    match ended.map_err(JoinError::Client)? {
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

/// Whether the client has ended at an unknown key that the user accepts, which is kept then.
#[cfg(feature = "tls-client")]
fn accept_key(
    ended: &Result<Ending, ClientError>,
    site: &Site,
    args: &JoinArgs,
) -> Result<bool, JoinError> {
    let Err(ClientError::Untrusted {
        refusal,
        was_connected: false,
        ..
    }) = ended
    else {
        return Ok(false);
    };
    let Refusal::Unknown { key, why } = &**refusal else {
        return Ok(false);
    };
    if !ask_trust(&site.addr.authority(), *key, why)? {
        return Err(JoinError::Declined(args.server.clone()));
    }
    let failed = |error: KnownHostsError| JoinError::Secure(SecureError::KnownHosts(error));
    let file = known_file(&args.trust).map_err(failed)?;
    known_hosts::add(&known_name(&site.addr), *key, &file).map_err(failed)?;
    Ok(true)
}

#[cfg(not(feature = "tls-client"))]
#[expect(clippy::unnecessary_wraps, reason = "with TLS it can fail")]
fn accept_key(_: &Result<Ending, ClientError>, _: &Site, _: &JoinArgs) -> Result<bool, JoinError> {
    Ok(false)
}

/// Asks on the terminal whether a key is the server's.
#[cfg(feature = "tls-client")]
fn ask_trust(server: &str, key: Fingerprint, why: &str) -> Result<bool, JoinError> {
    let failed = |error| JoinError::Io("cannot ask about the server's key", error);
    let mut stdout = io::stdout().lock();
    write!(
        stdout,
        "The certificate of {server} {why}. The fingerprint of its key is\n  {key}\n\
         Trust this key from now on? (yes/no) [no]: "
    )
    .map_err(failed)?;
    loop {
        stdout.flush().map_err(failed)?;
        let mut answer = Vec::new();
        let read = io::stdin().lock().read_until(b'\n', &mut answer);
        if read.map_err(failed)? == 0 {
            writeln!(stdout).map_err(failed)?;
            return Ok(false);
        }
        match answer.trim_ascii().to_ascii_lowercase().as_slice() {
            b"yes" => return Ok(true),
            b"" | b"no" | b"n" => return Ok(false),
            _ => write!(stdout, "Type yes or no [no]: ").map_err(failed)?,
        }
    }
}

/// A `Site` is a server, as its address on the command line has it: with the dialect in front, as in the
/// relay's start line, or without.
#[derive(Debug, PartialEq, Eq)]
struct Site {
    addr: Address,
    /// The WebSocket to open there.
    web_socket: Option<Target>,
    /// Whether there is TLS around it.
    is_secure: bool,
}

impl Site {
    fn parse(server: &str) -> Result<Self, JoinError> {
        let wrong = |why| Err(JoinError::Address(server.to_owned(), why));
        let (scheme, addr) = match server.trim().split_once("://") {
            None => ("chat10", server.trim()),
            Some(("https", addr)) => {
                return wrong(format!("write wss://{}", Escaped(addr.as_bytes())));
            }
            Some(("http", addr)) => {
                return wrong(format!("write ws://{}", Escaped(addr.as_bytes())));
            }
            Some(parts) => parts,
        };
        let (is_secure, dialect) = match scheme {
            "tls" => (true, "chat10"),
            "wss" => (true, "ws"),
            scheme => match scheme.strip_prefix("tls+") {
                Some(dialect) => (true, dialect),
                None => (false, scheme),
            },
        };
        let (addr, path) = match dialect {
            "chat10" => (addr, None),
            "ws" => {
                let end = addr.find(['/', '?']).unwrap_or(addr.len());
                let (addr, path) = addr.split_at(end);
                (addr, Some(path))
            }
            dialect if dialect.parse::<Dialect>().is_ok() => {
                return wrong("this client speaks chat10 and ws only".to_owned());
            }
            _ => {
                let scheme = Escaped(scheme.as_bytes());
                return wrong(format!("write HOST:PORT, without {scheme}://"));
            }
        };
        if path.is_some_and(|path| !path.bytes().all(|byte| byte.is_ascii_graphic())) {
            return wrong("a path has neither spaces nor letters that are not ASCII".to_owned());
        }
        let (port, write) = match path {
            None => (DEFAULT_PORT, "write 127.0.0.1:1234, or [::1]:1234 for IPv6"),
            Some(_) => (
                DEFAULT_PAGE_PORT,
                "write ws://127.0.0.1:1235/, or ws://[::1]:1235/ for IPv6",
            ),
        };
        let addr = match Address::parse(addr, port, write) {
            Ok(addr) if addr.port() == 0 => {
                return wrong("port 0 cannot be connected to".to_owned());
            }
            Ok(addr) => addr,
            Err(why) => return wrong(why),
        };
        let web_socket = path.map(|path| Target {
            host: addr.authority(),
            path: match path.as_bytes() {
                [b'/', ..] => path.to_owned(),
                _ => format!("/{path}"),
            },
            protocol: Some("chatloop.json"),
            credentials: None,
        });
        Ok(Self {
            addr,
            web_socket,
            is_secure,
        })
    }

    /// Takes the name and the password from the file of the command line, if there is one.
    fn take_password(&mut self, args: &JoinArgs) -> Result<(), JoinError> {
        let Some(path) = &args.password_file else {
            return Ok(());
        };
        let Some(target) = &mut self.web_socket else {
            return Err(JoinError::Usage(
                "--password-file is for ws:// and wss://: chat10 has no place for a password",
            ));
        };
        let failed = |error| JoinError::File("--password-file", path.clone(), error);
        let mut line = password_file::read_private(path).map_err(failed)?;
        if !line.contains(&b':') {
            // A password alone, for a server that does not look at the name.
            line.insert(0, b':');
        }
        target.credentials = Some(Credentials::basic(&line));
        Ok(())
    }

    /// What makes secure connections, if they are to be secure.
    fn connector(&self, args: &JoinArgs) -> Result<Option<Connector>, JoinError> {
        self.is_secure
            .then(|| connector(&args.trust, &self.addr, self.web_socket.is_some()))
            .transpose()
            .map_err(JoinError::Secure)
    }
}

fn terminal_options(tty: &Tty, args: &JoinArgs) -> Result<TerminalOptions, JoinError> {
    let clock = || Clock::new(TimeZone::system());
    let log = args.log.as_ref().map(|path| {
        let failed = |error| JoinError::File("--log", path.clone(), error);
        ChatLog::open(path, clock()).map_err(failed)
    });
    // Without a place for it there is none, which is no reason not to chat.
    let history = state_folder()
        .filter(|_| !args.no_history)
        .and_then(|folder| typed_history::open(&folder.join("history")).ok());
    Ok(TerminalOptions {
        theme: Theme::new(palette(tty), (!args.no_time).then(clock)),
        reflows: tty.reflows(),
        bell: args.bell,
        log: log.transpose()?,
        history,
    })
}

fn streams(tty: &Tty, args: &JoinArgs) -> Result<Streams, JoinError> {
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
    let by_hand = tty.stdin && tty.stdout;
    let timed = format == Format::Json || format == Format::Plain && by_hand;
    // A terminal at the input of something that writes to a file is for the shell; and `nohup`
    // puts something there that cannot be read.
    let readable =
        fcntl_getfl(io::stdin()).is_ok_and(|flags| flags & OFlags::ACCMODE != OFlags::WRONLY);
    let reads = readable && (!tty.stdin || tty.stdout);
    if reads && by_hand && !args.quiet && !args.json && !args.raw {
        let notice =
            "chatloop: on this terminal each line is sent as it is; /quit or Ctrl-D leaves\n";
        let _ = io::stderr().write_all(notice.as_bytes());
    }
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
        by_hand: by_hand && format == Format::Plain,
    })
}

/// The colours that a terminal has, if any are wanted.
fn palette(tty: &Tty) -> Palette {
    if Tty::has_colors() && tty.has_256_colors() {
        Palette::Indexed
    } else {
        Palette::None
    }
}

/// The name that whoever started us logged in with.
fn login_name() -> OsString {
    ["LOGNAME", "USER"]
        .into_iter()
        .filter_map(env::var_os)
        .find(|name| !name.is_empty())
        .or_else(name_in_database)
        .unwrap_or_else(|| "guest".into())
}

/// The name that the user database has. `id` asks all of its sources, as only the C library can.
fn name_in_database() -> Option<OsString> {
    let output = Command::new("id").arg("-un").output().ok()?;
    let name = output.stdout.trim_ascii();
    (output.status.success() && !name.is_empty()).then(|| OsString::from_vec(name.to_vec()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn parse(server: &str) -> Site {
        Site::parse(server).unwrap()
    }

    #[test]
    fn an_address_may_do_without_its_port_and_have_its_dialect() {
        for (server, addr) in [
            ("127.0.0.1:99", "127.0.0.1:99"),
            ("127.0.0.1", "127.0.0.1:1234"),
            ("[::1]:99", "[::1]:99"),
            ("[::1]", "[::1]:1234"),
            ("1234", "127.0.0.1:1234"),
            ("::1", "[::1]:1234"),
            ("chat10://127.0.0.1:99", "127.0.0.1:99"),
            ("chat10://5050", "127.0.0.1:5050"),
            (" 127.0.0.1:99\n", "127.0.0.1:99"),
        ] {
            let addr: SocketAddr = addr.parse().unwrap();
            let site = Site {
                addr: Address::Ip(addr),
                web_socket: None,
                is_secure: false,
            };
            assert_eq!(parse(server), site, "{server}");
        }
    }

    #[test]
    fn web_socket_has_the_port_of_the_page_unless_another_is_given_and_a_path() {
        for (server, addr, host, path) in [
            ("ws://127.0.0.1:99", "127.0.0.1:99", "127.0.0.1:99", "/"),
            ("ws://127.0.0.1", "127.0.0.1:1235", "127.0.0.1:1235", "/"),
            ("ws://127.0.0.1/", "127.0.0.1:1235", "127.0.0.1:1235", "/"),
            ("ws://99", "127.0.0.1:99", "127.0.0.1:99", "/"),
            ("ws://99/chat/", "127.0.0.1:99", "127.0.0.1:99", "/chat/"),
            ("ws://[::1]:99/a?b=/c", "[::1]:99", "[::1]:99", "/a?b=/c"),
            ("ws://[::1]?b", "[::1]:1235", "[::1]:1235", "/?b"),
            ("ws://[fe80::1%2]:99", "[fe80::1%2]:99", "[fe80::1]:99", "/"),
        ] {
            let target = Target {
                host: host.to_owned(),
                path: path.to_owned(),
                protocol: Some("chatloop.json"),
                credentials: None,
            };
            let site = Site {
                addr: Address::Ip(addr.parse().unwrap()),
                web_socket: Some(target),
                is_secure: false,
            };
            assert_eq!(parse(server), site, "{server}");
        }
        let site = parse("ws://localhost:99");
        assert_eq!(site.web_socket.unwrap().host, "localhost:99");
    }

    #[test]
    fn tls_has_the_ports_of_the_same_without_it() {
        for (server, same) in [
            ("tls://chat.example.org", "chat.example.org"),
            ("tls+chat10://127.0.0.1:99", "127.0.0.1:99"),
            ("wss://chat.example.org/chat", "ws://chat.example.org/chat"),
            ("tls+ws://99", "ws://99"),
        ] {
            let site = Site {
                is_secure: true,
                ..parse(same)
            };
            assert_eq!(parse(server), site, "{server}");
        }
    }

    #[test]
    fn an_address_that_is_none_says_what_to_write() {
        for (server, says) in [
            (
                "",
                "\"\": not ADDR:PORT; write 127.0.0.1:1234, or [::1]:1234 for IPv6",
            ),
            (":1234", "\":1234\": not ADDR:PORT"),
            (
                "http://example.org/",
                "\"http://example.org/\": write ws://example.org/",
            ),
            ("[::1", "a bracket is missing"),
            ("[::1:1234", "a bracket is missing"),
            ("::1]:1234", "a bracket is missing"),
            ("127.0.0.1:0", "port 0 cannot be connected to"),
            ("example.org/chat", "not ADDR:PORT"),
            ("127.0.0.1:", "a port is a number up to 65535"),
            ("127.0.0.1:99999", "a port is a number up to 65535"),
            ("1234:1234", "1234 is not an address; write 127.0.0.1:1234"),
            ("0", "port 0 cannot be connected to"),
            ("::1:1234", "an IPv6 address needs brackets"),
            (
                "chat64://127.0.0.1:5050",
                "this client speaks chat10 and ws only",
            ),
            ("ftp://example.org", "write HOST:PORT, without ftp://"),
            ("https://example.org/", "write wss://example.org/"),
            ("tls+ack64://1", "this client speaks chat10 and ws only"),
            ("tls+tls://1", "write HOST:PORT, without tls+tls://"),
            ("tls://1:1:1", "an IPv6 address needs brackets"),
            ("ws:///chat", "not ADDR:PORT; write ws://127.0.0.1:1235/"),
            ("ws://127.0.0.1:0", "port 0 cannot be connected to"),
            ("ws://127.0.0.1/a b", "a path has neither spaces"),
            ("ws://127.0.0.1/\r\nX: y", "a path has neither spaces"),
        ] {
            let error = Site::parse(server).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(says), "{server}: {error}");
        }
    }
}
