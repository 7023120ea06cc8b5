//! How one connection is made, and why one is not made or ends.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use serde::{Serialize, Serializer};
use socket2::{Domain, Socket, Type};
use strum::IntoStaticStr;
use thiserror::Error;

use super::protocol::{Garbled, Protocol};
use super::sources::Sources;
use crate::client_tls::{Connector, Refusal, Stream};

/// Why a connection was not made, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Cause {
    /// No server listens there.
    #[error("refused")]
    Refused,
    /// No answer came in time.
    #[error("timed out")]
    TimedOut,
    /// The server closed it.
    #[error("closed by the server")]
    Closed,
    /// The server reset it.
    #[error("reset by the server")]
    Reset,
    /// It sent what its protocol does not have.
    #[error("sent what is not in the protocol")]
    Garbled,
    /// It did not accept the WebSocket.
    #[error("the server does not accept the WebSocket")]
    NoWebSocket,
    /// Its key or its certificate is not trusted.
    #[error("the server is not trusted")]
    Untrusted,
    /// It does not speak TLS, or not with this client.
    #[error("the server does not agree on TLS")]
    NoTls,
    /// There is no descriptor left for it on this side.
    #[error("without a descriptor on this side")]
    NoDescriptor,
    /// There is no port left for it on this side.
    #[error("without a port on this side")]
    NoPort,
    /// The source address is not one of this machine's.
    #[error("from an address that this machine does not have")]
    NoSource,
    /// Something else; the number of the error, see errno(3).
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Other(i32),
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(cause) => return cause,
            Err(error) => error,
        };
        match (error.kind(), error.raw_os_error()) {
            // Those of TLS.
            (ErrorKind::InvalidData, None)
                if error
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<Refusal>())
                    .is_some() =>
            {
                Self::Untrusted
            }
            (ErrorKind::InvalidData | ErrorKind::PermissionDenied, None) => Self::NoTls,
            (ErrorKind::ConnectionRefused, _) => Self::Refused,
            (ErrorKind::UnexpectedEof, None) => Self::Closed,
            (ErrorKind::TimedOut, _) => Self::TimedOut,
            (ErrorKind::ConnectionReset | ErrorKind::BrokenPipe, _) => Self::Reset,
            (_, Some(libc::EMFILE | libc::ENFILE)) => Self::NoDescriptor,
            // The error of connect(2) without a free port, and of bind(2) with another machine's address.
            (ErrorKind::AddrNotAvailable, _) => Self::NoPort,
            (_, errno) => Self::Other(errno.unwrap_or(0)),
        }
    }
}

impl From<Garbled> for Cause {
    fn from(_: Garbled) -> Self {
        Self::Garbled
    }
}

impl From<Cause> for io::Error {
    fn from(cause: Cause) -> Self {
        Self::other(cause)
    }
}

/// As a key of the report.
impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Other(errno) => serializer.collect_str(&format_args!("errno_{errno}")),
            cause => serializer.serialize_str(cause.into()),
        }
    }
}

/// How often each happened.
pub(super) type Causes = BTreeMap<Cause, u64>;

/// How long a connection may take to be made.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where clients connect to, and from where.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) addr: SocketAddr,
    pub(super) protocol: Protocol,
    pub(super) tls: Option<Connector>,
    pub(super) tag: String,
    pub(super) sources: Option<Sources>,
}

impl Site {
    /// Begins to connect the client of this index, which decides its source address. The
    /// connection ends with a reset, if nothing else is set. `receive_buffer` is the size of its
    /// receive buffer in bytes, if that is not left to the system.
    pub(super) fn open(
        &self,
        index: usize,
        receive_buffer: Option<usize>,
        registry: &Registry,
    ) -> Result<Stream, Cause> {
        let socket = Socket::new(Domain::for_address(self.addr), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // Messages are sent when they are due. If an option is refused, it works without.
        let _ = socket.set_tcp_nodelay(true);
        // So that ports are free again at once, however often this is done: a port that was closed
        // in order is not for a minute.
        let _ = socket.set_linger(Some(Duration::ZERO));
        if let Some(size) = receive_buffer {
            // It must be set before the connection is made, which announces it to the server. If
            // it shrinks later, the kernel drops what does not fit, and the server sends that
            // again ever more rarely.
            let _ = socket.set_recv_buffer_size(size);
        }
        if let Some(sources) = &self.sources {
            let source = SocketAddr::from((sources.nth(index), 0));
            socket
                .bind(&source.into())
                .map_err(|error| match error.kind() {
                    ErrorKind::AddrNotAvailable => Cause::NoSource,
                    ErrorKind::AddrInUse => Cause::NoPort,
                    _ => error.into(),
                })?;
        }
        match socket.connect(&self.addr.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                return Err(error.into());
            }
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        // Once and for both directions: see the server for why.
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(index), interest)?;
        Ok(Stream::new(stream, self.tls.as_ref())?)
    }
}

/// Whether a connection that was begun is made by now.
///
/// # Errors
///
/// If it will never be.
pub(super) fn is_made(stream: &TcpStream) -> Result<bool, Cause> {
    if let Some(error) = stream.take_error()? {
        return Err(error.into());
    }
    match stream.peer_addr() {
        // If the server's port is one that the system gives to clients, and no server listens
        // there, an attempt may by chance be given that very port and connect to itself.
        Ok(peer) if stream.local_addr().is_ok_and(|local| local == peer) => Err(Cause::Refused),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error.into()),
    }
}
