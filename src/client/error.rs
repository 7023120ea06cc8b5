//! The errors that end a client.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::session::{Disconnect, MAX_PAYLOAD};
use crate::client_tls::Refusal;

/// A `ClientError` ends the client.
#[derive(Debug)]
pub enum ClientError {
    /// The first connection failed: the server, the address tried last, and the error.
    Connect(String, SocketAddr, io::Error),
    /// The server is not trusted.
    Untrusted {
        /// The server.
        server: String,
        /// Why it is not trusted.
        refusal: Box<Refusal>,
        /// Whether there was a connection before.
        was_connected: bool,
    },
    /// The connection was lost. The messages that may be missing are reported already.
    Disconnected {
        /// How the connection ended.
        disconnect: Disconnect,
        /// A likely cause.
        hint: Option<String>,
    },
    /// The server speaks another protocol.
    NotChat(String, Disconnect),
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
            Self::Untrusted {
                server, refusal, ..
            } => write!(f, "{server} is not trusted: {refusal}"),
            Self::Disconnected { disconnect, hint } => {
                disconnect.fmt(f)?;
                hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
            }
            Self::NotChat(server, disconnect) => write!(f, "{server}: {disconnect}"),
            Self::Input(error) => write!(f, "cannot read the input: {error}"),
            Self::Output(error) => write!(f, "cannot write the output: {error}"),
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

/// The cause of a failed connection, without the number of the error.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        _ => error.to_string(),
    }
}
