//! How one connection is made, and why one is not made or ends.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use serde::{Serialize, Serializer};
use socket2::{Domain, Socket, Type};

use super::protocol::Protocol;
use super::sources::Sources;

/// Why a connection was not made, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// No server listens there.
    Refused,
    /// No answer came in time.
    TimedOut,
    /// The server closed it.
    Closed,
    /// The server reset it.
    Reset,
    /// It sent what its protocol does not have.
    Garbled,
    /// There is no descriptor left for it on this side.
    NoDescriptor,
    /// There is no port left for it on this side.
    NoPort,
    /// The source address is not one of this machine's.
    NoSource,
    /// Something else; the number of the error, see errno(3).
    Other(i32),
}

impl Cause {
    pub(super) fn of(error: &io::Error) -> Self {
        match (error.kind(), error.raw_os_error()) {
            (ErrorKind::ConnectionRefused, _) => Self::Refused,
            (ErrorKind::TimedOut, _) => Self::TimedOut,
            (ErrorKind::ConnectionReset | ErrorKind::BrokenPipe, _) => Self::Reset,
            (_, Some(libc::EMFILE | libc::ENFILE)) => Self::NoDescriptor,
            // What connect(2) says when the ports are used up, and bind(2) of a strange address.
            (ErrorKind::AddrNotAvailable, _) => Self::NoPort,
            (_, errno) => Self::Other(errno.unwrap_or(0)),
        }
    }

    /// What a count of them is called.
    fn name(self) -> String {
        match self {
            Self::Refused => "refused".to_owned(),
            Self::TimedOut => "timed_out".to_owned(),
            Self::Closed => "closed".to_owned(),
            Self::Reset => "reset".to_owned(),
            Self::Garbled => "garbled".to_owned(),
            Self::NoDescriptor => "no_descriptor".to_owned(),
            Self::NoPort => "no_port".to_owned(),
            Self::NoSource => "no_source".to_owned(),
            Self::Other(errno) => format!("errno_{errno}"),
        }
    }
}

/// As a key of the report.
impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

/// How often each happened.
pub(super) type Causes = BTreeMap<Cause, u64>;

/// How long a connection may take to be made.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What there is to connect, and where.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) addr: SocketAddr,
    pub(super) protocol: Protocol,
    pub(super) tag: String,
    pub(super) sources: Option<Sources>,
}

impl Site {
    /// Begins to connect the one of this index, which says where it comes from. If nothing else is
    /// said, it leaves by a reset. The system keeps so many bytes of what is not read, or as many
    /// as it likes.
    pub(super) fn open(
        &self,
        index: usize,
        receive_buffer: Option<usize>,
        registry: &Registry,
    ) -> Result<TcpStream, Cause> {
        let socket = Socket::new(Domain::for_address(self.addr), Type::STREAM, None)
            .map_err(|error| Cause::of(&error))?;
        socket
            .set_nonblocking(true)
            .map_err(|error| Cause::of(&error))?;
        // Messages are said when they are due. If an option is refused, it works without.
        let _ = socket.set_tcp_nodelay(true);
        // So that ports are free again at once, however often this is done: a port that was closed
        // in order is not for a minute.
        let _ = socket.set_linger(Some(Duration::ZERO));
        if let Some(size) = receive_buffer {
            // The other side is told in the beginning how much it may send. It would not be
            // believed later: what is sent and finds no room is dropped, and sent again ever more
            // rarely.
            let _ = socket.set_recv_buffer_size(size);
        }
        if let Some(sources) = &self.sources {
            let source = SocketAddr::from((sources.nth(index), 0));
            socket
                .bind(&source.into())
                .map_err(|error| match error.kind() {
                    ErrorKind::AddrNotAvailable => Cause::NoSource,
                    ErrorKind::AddrInUse => Cause::NoPort,
                    _ => Cause::of(&error),
                })?;
        }
        match socket.connect(&self.addr.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(Cause::of(&error)),
        }
        let mut stream = TcpStream::from_std(socket.into());
        // Once and for both directions: see the server for why.
        let interest = Interest::READABLE | Interest::WRITABLE;
        match registry.register(&mut stream, Token(index), interest) {
            Ok(()) => Ok(stream),
            Err(error) => Err(Cause::of(&error)),
        }
    }
}

/// Writes queued bytes, as far as the socket accepts them.
pub(super) fn flush(stream: Option<&mut TcpStream>, out: &mut Vec<u8>) {
    let Some(stream) = stream else {
        return;
    };
    let mut sent = 0;
    while sent < out.len() {
        match stream.write(&out[sent..]) {
            Ok(written) => sent += written,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The error shows when the socket is read, after the input before it.
            Err(_) => break,
        }
    }
    out.drain(..sent);
}

/// Whether a connection that was begun is there by now.
///
/// # Errors
///
/// If it will never be.
pub(super) fn is_made(stream: &TcpStream) -> Result<bool, Cause> {
    match stream.take_error() {
        Ok(None) => {}
        Ok(Some(error)) | Err(error) => return Err(Cause::of(&error)),
    }
    match stream.peer_addr() {
        // If the server's port is one that the system gives to clients, and nobody listens there,
        // an attempt may by chance be given that very port and connect to itself.
        Ok(peer) if stream.local_addr().is_ok_and(|local| local == peer) => Err(Cause::Refused),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(Cause::of(&error)),
    }
}
