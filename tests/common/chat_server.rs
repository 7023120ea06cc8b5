//! The other end of a client under test: servers that follow a test, or nothing at all.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{PATIENCE, assert_bytes, delivery, frame};

/// A server in the test's own thread. It blocks, because the client is a process of its own.
pub struct ScriptedServer {
    listener: TcpListener,
}

impl ScriptedServer {
    /// On a free port of 127.0.0.1.
    pub fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        Self::listen(listener)
    }

    /// One whose kernel takes about so many bytes that it has not read. With fewer than some
    /// thousands, a sender waits for its own timer before each segment.
    pub fn with_buffer(bytes: usize) -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.set_recv_buffer_size(bytes).unwrap();
        Self::listen(listener)
    }

    fn listen(listener: Socket) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.bind(&addr.into()).unwrap();
        Self::listening(listener)
    }

    fn listening(listener: Socket) -> Self {
        listener.listen(16).unwrap();
        // Linux ends a wait for a connection by this as well.
        listener.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            listener: listener.into(),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Waits for a client to connect.
    #[track_caller]
    pub fn accept(&self) -> Peer {
        let (stream, _) = match self.listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no client connects"),
            Err(error) => panic!("accepting failed: {error}"),
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream }
    }
}

impl Default for ScriptedServer {
    fn default() -> Self {
        Self::new()
    }
}

/// The server's side of a connection.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    /// The client's next bytes are this frame.
    #[track_caller]
    pub fn expect_frame(&mut self, payload: impl AsRef<[u8]>) {
        let expected = frame(payload);
        let mut got = Vec::with_capacity(expected.len());
        let read = (&mut self.stream)
            .take(expected.len() as u64)
            .read_to_end(&mut got);
        if let Err(error) = read {
            let (got, expected) = (got.escape_ascii(), expected.escape_ascii());
            panic!("reading failed: {error}; got {got}, expected {expected}");
        }
        assert_bytes(&got, &expected);
    }

    /// The client's next bytes are these frames, one after the other.
    #[track_caller]
    pub fn expect_frames(&mut self, payloads: &[&str]) {
        for payload in payloads {
            self.expect_frame(payload);
        }
    }

    /// Waits until something is there to be read, and leaves it there.
    #[track_caller]
    pub fn expect_something(&self) {
        assert_ne!(self.stream.peek(&mut [0]).unwrap(), 0);
    }

    /// The client receives a message.
    #[track_caller]
    pub fn say(&mut self, name: impl AsRef<[u8]>, message: impl AsRef<[u8]>) {
        self.send_raw(delivery(name, message));
    }

    /// The client receives these bytes, frames or not.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// All that the client sends until it closes the connection.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut got) {
            panic!("no end: {error}; got {}", got.escape_ascii());
        }
        got
    }

    /// Closes the connection: with a FIN, provided that all the client sent has been read.
    pub fn close(self) {
        drop(self);
    }

    /// Ends the connection with a reset instead of a FIN.
    pub fn reset(self) {
        let socket = Socket::from(self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// An address where connections are refused for as long as this is kept: it is taken, so that no
/// other test gets it, and no program listens there.
pub struct Refusal {
    socket: Socket,
}

impl Refusal {
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&addr.into()).unwrap();
        Self { socket }
    }

    pub fn addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }

    /// From now on a server listens there.
    pub fn listen(self) -> ScriptedServer {
        ScriptedServer::listening(self.socket)
    }
}

impl Default for Refusal {
    fn default() -> Self {
        Self::new()
    }
}
