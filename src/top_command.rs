//! The `top` command: from flags to a live view of relays.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::process::ExitCode;

use chatloop::text::{Escaped, Quoted};
use chatloop::top::{Config, Ending, Output, SampleError, Target, Top, TopError};
use signal_hook::low_level::emulate_default_handler;

use crate::address::{Address, DEFAULT_METRICS_PORT, LookupError};
use crate::cli::TopArgs;
use crate::tty::Tty;

/// Why the command failed.
#[derive(Debug)]
pub(crate) enum TopCommandError {
    /// This is nowhere a relay could answer, and why.
    Relay(String, String),
    /// A relay's name has no address.
    Lookup(LookupError),
    /// The view could not go on.
    Top(TopError),
    /// The system failed us.
    Io(&'static str, io::Error),
}

impl TopCommandError {
    /// The exit code, as `--help` lists it.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Relay(..) => 2,
            Self::Top(TopError::NoAnswer(_, error)) if error.is_response() => 6,
            Self::Lookup(_) | Self::Top(TopError::NoAnswer(..)) => 4,
            Self::Top(_) | Self::Io(..) => 1,
        }
    }
}

impl fmt::Display for TopCommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(relay, why) => write!(f, "{}: {why}", Quoted(relay.as_bytes())),
            Self::Lookup(error) => error.fmt(f),
            Self::Top(error @ TopError::NoAnswer(name, cause)) => {
                error.fmt(f)?;
                match cause {
                    SampleError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        if name.contains('/') {
                            f.write_str("; no relay listens there any more")
                        } else {
                            write!(f, "; a relay answers there with --listen metrics://{name}")
                        }
                    }
                    SampleError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                        write!(f, "; a relay answers there with --admin {name}")
                    }
                    SampleError::NotHttp | SampleError::NoRelay | SampleError::CutShort => f
                        .write_str(
                            "; a relay's figures are at its metrics:// listener, or at --admin",
                        ),
                    _ => Ok(()),
                }
            }
            Self::Top(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

/// Shows relays until the user leaves.
pub(crate) fn top(args: &TopArgs) -> Result<ExitCode, TopCommandError> {
    let relays: Result<_, _> = args.relays.iter().map(|relay| resolve(relay)).collect();
    let is_screen = Tty::found().is_screen() && !args.json;
    let output = if is_screen {
        Output::Screen {
            has_colors: Tty::has_colors(),
        }
    } else {
        Output::Lines {
            output: io::stdout()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|error| TopCommandError::Io("cannot use standard output", error))?,
            is_json: args.json,
        }
    };
    let config = Config {
        relays: relays?,
        interval: args.interval,
        count: args.count.map(|count| count as u64),
        output,
    };
    let top = Top::new(config).map_err(TopCommandError::Top)?;
    match top.run().map_err(TopCommandError::Top)? {
        Ending::Done => Ok(ExitCode::SUCCESS),
        Ending::Signal(signal) => {
            // So that a shell sees what it was. It does not come back from that.
            emulate_default_handler(signal)
                .map_err(|error| TopCommandError::Io("cannot end by a signal", error))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What a relay is called on the screen, and where it answers.
fn resolve(relay: &str) -> Result<(String, Target), TopCommandError> {
    let text = relay.trim();
    let is_socket = || fs::metadata(text).is_ok_and(|file| file.file_type().is_socket());
    let path = match text.strip_prefix("unix:") {
        Some(path) => Some(path.strip_prefix("//").unwrap_or(path)),
        None if !text.contains("://") && (text.contains('/') || is_socket()) => Some(text),
        None => None,
    };
    if let Some(path) = path {
        let folder = if path.contains('/') { "" } else { "./" };
        let path = format!("{folder}{path}");
        return Ok((path.clone(), Target::Admin(path.into())));
    }
    let wrong = |why: String| Err(TopCommandError::Relay(relay.to_owned(), why));
    let addr = match text.split_once("://") {
        None => text,
        Some(("http" | "metrics", addr)) => match addr.split_once('/') {
            None | Some((_, "" | "metrics")) => addr.split('/').next().unwrap_or_default(),
            Some((_, path)) => {
                let path = Escaped(path.as_bytes());
                return wrong(format!(
                    "a relay has its figures at /metrics, not at /{path}"
                ));
            }
        },
        Some(("https", _)) => {
            return wrong(
                "there is no TLS; have stunnel connect, and write its address".to_owned(),
            );
        }
        Some((scheme, _)) => {
            let scheme = Escaped(scheme.as_bytes());
            return wrong(format!(
                "write HOST:PORT of its metrics, without {scheme}://"
            ));
        }
    };
    let write = "write 127.0.0.1:9150, or the path of an admin socket";
    let addr = match Address::parse(addr, DEFAULT_METRICS_PORT, write) {
        Ok(addr) if addr.port() == 0 => return wrong("port 0 cannot be connected to".to_owned()),
        Ok(addr) => addr,
        Err(why) => return wrong(why),
    };
    let host = addr.authority();
    let addrs = addr.lookup().map_err(TopCommandError::Lookup)?;
    Ok((host.clone(), Target::Tcp { addrs, host }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_is_an_address_or_the_path_of_a_socket() {
        for (relay, addr) in [
            ("127.0.0.1:99", "127.0.0.1:99"),
            ("127.0.0.1", "127.0.0.1:9150"),
            ("99", "127.0.0.1:99"),
            ("[::1]", "[::1]:9150"),
            ("http://127.0.0.1:99", "127.0.0.1:99"),
            ("http://127.0.0.1:99/", "127.0.0.1:99"),
            ("http://[::1]:99/metrics", "[::1]:99"),
            ("metrics://99", "127.0.0.1:99"),
        ] {
            let target = Target::Tcp {
                addrs: vec![addr.parse().unwrap()],
                host: addr.to_owned(),
            };
            assert_eq!(
                resolve(relay).unwrap(),
                (addr.to_owned(), target),
                "{relay}"
            );
        }
        for (relay, path) in [
            ("/run/a.sock", "/run/a.sock"),
            ("./a.sock", "./a.sock"),
            ("unix:a.sock", "./a.sock"),
            ("unix:/run/a.sock", "/run/a.sock"),
            ("unix:///run/a.sock", "/run/a.sock"),
        ] {
            let target = Target::Admin(path.into());
            assert_eq!(
                resolve(relay).unwrap(),
                (path.to_owned(), target),
                "{relay}"
            );
        }
    }
}
