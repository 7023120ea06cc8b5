//! Why a sample, or the whole command, failed.

use std::fmt;
use std::io::{self, ErrorKind};

/// A `SampleError` is why a relay could not be sampled.
#[derive(Debug)]
pub enum SampleError {
    /// There is no connection, or it broke.
    Io(io::Error),
    /// The response ends before its end.
    CutShort,
    /// The response is no valid HTTP.
    NotHttp,
    /// The response has this status.
    Status(u16),
    /// The response has more than this many bytes.
    TooLong(usize),
    /// The metrics are not those of a relay.
    NoRelay,
    /// The members' table is none, or ends before its end.
    BadTable,
}

impl SampleError {
    /// Whether there was a response, which was not that of a relay.
    #[must_use]
    pub const fn is_response(&self) -> bool {
        !matches!(self, Self::Io(_) | Self::CutShort)
    }
}

impl From<io::Error> for SampleError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for SampleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => match error.kind() {
                ErrorKind::ConnectionRefused => f.write_str("connection refused"),
                ErrorKind::TimedOut => f.write_str("no answer"),
                ErrorKind::NotFound => f.write_str("there is no such socket"),
                ErrorKind::PermissionDenied => {
                    f.write_str("not permitted; the socket is for the user that runs the relay")
                }
                _ => error.fmt(f),
            },
            Self::CutShort => f.write_str("the response ends before its end"),
            Self::NotHttp => f.write_str("the response is no valid HTTP"),
            Self::Status(code) => write!(f, "the response has the status {code}"),
            Self::TooLong(max) => write!(f, "the response has more than {max} bytes"),
            Self::NoRelay => f.write_str("the response is not the metrics of a chatloop relay"),
            Self::BadTable => f.write_str("the response is no table of members"),
        }
    }
}

/// A `TopError` ends the command.
#[derive(Debug)]
pub enum TopError {
    /// No relay could be sampled: the first of them, and why.
    NoAnswer(String, SampleError),
    /// The terminal cannot be used.
    Terminal(io::Error),
    /// The output cannot be written.
    Output(io::Error),
    /// The poll failed.
    Poll(io::Error),
}

impl fmt::Display for TopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(name, error) => write!(f, "{name}: {error}"),
            Self::Terminal(error) => write!(f, "cannot use the terminal: {error}"),
            Self::Output(error) => write!(f, "cannot write the output: {error}"),
            Self::Poll(error) => write!(f, "cannot wait for events: {error}"),
        }
    }
}

impl std::error::Error for TopError {}
