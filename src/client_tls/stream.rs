//! The stream of a connection: its socket, and TLS around it if there is any.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;

use super::session::{Connector, Session};

/// A `Stream` carries the bytes of a protocol. Like its socket it does not block.
///
/// What a write has accepted and the socket has not is kept here, a write's bytes at most. So
/// [`send_pending`](Self::send_pending) must be called when the socket is writable, even if there is nothing
/// else to write. And a read may return less than there is room for although there is more: only
/// `WouldBlock` means that there is not.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    session: Option<Box<Session>>,
}

impl Stream {
    /// A stream over a connection that is made, with TLS if there is a connector.
    ///
    /// # Errors
    ///
    /// If no session can begin.
    pub fn new(socket: TcpStream, connector: Option<&Connector>) -> io::Result<Self> {
        let session = connector.map(Connector::begin).transpose()?;
        Ok(Self {
            socket,
            session: session.map(Box::new),
        })
    }

    /// The socket.
    #[must_use]
    pub const fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether there is TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.session.is_some()
    }

    /// Whether there is TLS, and its handshake is not complete.
    #[must_use]
    pub fn is_shaking_hands(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.is_shaking_hands())
    }

    /// Goes on with the handshake of TLS. Returns whether it is complete.
    ///
    /// # Errors
    ///
    /// If it has failed. The error of a server that is not trusted holds a [`Refusal`](super::Refusal).
    pub fn shake_hands(&mut self) -> io::Result<bool> {
        match &mut self.session {
            None => Ok(true),
            Some(session) => session.shake_hands(&mut self.socket),
        }
    }

    /// The number of bytes that are accepted, and not by the socket.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.pending())
    }

    /// Writes pending bytes, as far as the socket accepts them.
    ///
    /// # Errors
    ///
    /// That of the socket.
    pub fn send_pending(&mut self) -> io::Result<()> {
        match &mut self.session {
            None => Ok(()),
            Some(session) => session.send_pending(&mut self.socket),
        }
    }

    /// Ends the sending side, of TLS and of the connection.
    ///
    /// # Errors
    ///
    /// That of the socket.
    pub fn end(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            session.close();
            session.send_pending(&mut self.socket)?;
        }
        self.socket.shutdown(Shutdown::Write)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.socket.read(buffer),
            Some(session) => session.read(&mut self.socket, buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.socket.write(bytes),
            Some(session) => session.write(&mut self.socket, &[IoSlice::new(bytes)]),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.session {
            None => self.socket.write_vectored(slices),
            Some(session) => session.write(&mut self.socket, slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_pending()
    }
}
