//! Why a client cannot go on.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::session::{Loss, MAX_PAYLOAD};

/// Why a client cannot go on.
#[derive(Debug)]
pub enum ClientError {
    /// There was no connection from the start: where to, the address tried last, and why.
    Connect(String, SocketAddr, io::Error),
    /// The connection was lost. What messages that concerns has been told.
    Lost {
        /// Why.
        loss: Loss,
        /// What may have been the reason.
        hint: Option<String>,
    },
    /// The server speaks something else.
    NotChat(String, Loss),
    /// The input cannot be read.
    Input(io::Error),
    /// The output cannot be written.
    Output(io::Error),
    /// The line with this number is longer than a message can be.
    LineTooLong(u64),
    /// The terminal cannot be used.
    Terminal(io::Error),
    /// The poll failed.
    Poll(io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(server, addr, error) => {
                write!(f, "cannot connect to {server}")?;
                let addr = addr.to_string();
                if *server != addr {
                    write!(f, " ({addr})")?;
                }
                write!(f, ": {}", reason(error))
            }
            Self::Lost { loss, hint } => {
                loss.fmt(f)?;
                hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
            }
            Self::NotChat(server, loss) => write!(f, "{server}: {loss}"),
            Self::Input(error) => write!(f, "cannot read the input: {error}"),
            Self::Output(error) => write!(f, "cannot write what was heard: {error}"),
            Self::LineTooLong(number) => write!(
                f,
                "line {number} of the input has more than {MAX_PAYLOAD} bytes, which is too long for a \
                 message"
            ),
            Self::Terminal(error) => write!(f, "cannot use the terminal: {error}"),
            Self::Poll(error) => write!(f, "cannot wait for events: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Why there is no connection, without the number of the error.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        _ => error.to_string(),
    }
}
