//! A server and its peers in one thread: the test lets the server take a turn whenever it waits for
//! something, so nothing needs a sleep or a second thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use chatloop::relay::{Counters, Limits};
use chatloop::server::{Config, Endpoint, Server, Turn};
use chatloop::wire::Dialect;
use socket2::{Domain, Socket, Type};

use super::{PATIENCE, assert_bytes, frame};

/// A server on a port of its own.
pub struct TestRelay {
    pub server: Server,
    /// Its first listener.
    pub addr: SocketAddr,
    dialects: Vec<Dialect>,
}

impl TestRelay {
    pub fn start() -> Self {
        Self::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Self {
        let endpoint = Endpoint {
            dialect: Dialect::Chat10,
            addr: "127.0.0.1:0".parse().unwrap(),
        };
        let mut config = Config::new(vec![endpoint]);
        config.limits = limits;
        Self::with_config(&config)
    }

    /// With a listener for each of these dialects.
    pub fn serving(dialects: &[Dialect], limits: Limits) -> Self {
        let endpoint = |&dialect: &Dialect| Endpoint {
            dialect,
            addr: "127.0.0.1:0".parse().unwrap(),
        };
        let mut config = Config::new(dialects.iter().map(endpoint).collect());
        config.limits = limits;
        Self::with_config(&config)
    }

    pub fn with_config(config: &Config) -> Self {
        let server = Server::bind(config).unwrap();
        let addr = server.local_addrs().unwrap()[0];
        let dialects = config.listen.iter().map(|one| one.dialect).collect();
        Self {
            server,
            addr,
            dialects,
        }
    }

    /// Where it listens for clients of this dialect.
    pub fn addr_of(&self, dialect: Dialect) -> SocketAddr {
        let index = self
            .dialects
            .iter()
            .position(|one| *one == dialect)
            .unwrap();
        self.server.local_addrs().unwrap()[index]
    }

    /// A connection of this dialect, which the server has accepted.
    #[track_caller]
    pub fn connect_to(&mut self, dialect: Dialect) -> TestPeer {
        let accepted = self.counters().accepted;
        let peer = TestPeer::from(TcpStream::connect(self.addr_of(dialect)).unwrap());
        self.until("a connection to be accepted", |relay| {
            relay.counters().accepted > accepted
        });
        peer
    }

    pub fn members(&self) -> usize {
        self.server.relay().members().total()
    }

    pub fn counters(&self) -> &Counters {
        self.server.relay().counters()
    }

    /// One turn, which waits a moment for events.
    pub fn turn(&mut self) -> Turn {
        self.server.turn(Some(Duration::from_millis(5))).unwrap()
    }

    /// One turn, which waits for nothing.
    pub fn turn_at_once(&mut self) -> Turn {
        self.server.turn(Some(Duration::ZERO)).unwrap()
    }

    /// Takes turns until `done`; `what` names in a failure what it waits for.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
            self.turn();
        }
    }

    /// A connection that has sent nothing.
    pub fn connect(&mut self) -> TestPeer {
        TestPeer::from(TcpStream::connect(self.addr).unwrap())
    }

    /// A member: returns when the server has registered it.
    #[track_caller]
    pub fn join(&mut self, name: impl AsRef<[u8]>) -> TestPeer {
        let mut peer = self.connect();
        let joined = self.counters().joined;
        peer.send(frame(name));
        self.until("a member to join", |relay| relay.counters().joined > joined);
        peer
    }

    /// The peer receives exactly this next.
    #[track_caller]
    pub fn expect(&mut self, peer: &mut TestPeer, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let start = Instant::now();
        while peer.pump().len() < expected.len() && peer.end.is_none() {
            if start.elapsed() > PATIENCE {
                break;
            }
            self.turn();
        }
        let len = peer.received.len().min(expected.len());
        let received: Vec<u8> = peer.received.drain(..len).collect();
        assert_bytes(&received, expected);
    }

    /// The server closes the peer's connection, and before that it receives nothing more.
    #[track_caller]
    pub fn expect_close(&mut self, peer: &mut TestPeer) -> End {
        self.until("the server to close the connection", |_| {
            peer.pump();
            peer.end.is_some()
        });
        assert_bytes(&peer.received, b"");
        peer.end.unwrap()
    }
}

/// How a connection ended, as its peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
}

/// A client's side of a connection. It never blocks, because the server runs in the same thread.
pub struct TestPeer {
    pub stream: TcpStream,
    pub received: Vec<u8>,
    pub end: Option<End>,
}

impl From<TcpStream> for TestPeer {
    fn from(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            received: Vec::new(),
            end: None,
        }
    }
}

impl TestPeer {
    /// A connection whose receive buffer is as small as the system makes one.
    pub fn with_small_buffer(addr: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        socket.connect(&addr.into()).unwrap();
        Self::from(TcpStream::from(socket))
    }

    /// Sends what is sure to fit the socket's buffer.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends as much as the socket takes, and returns how much that was.
    pub fn send_some(&mut self, bytes: &[u8]) -> usize {
        match self.stream.write(bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("sending failed: {error}"),
        }
    }

    /// Reads all there is, and returns all that was received and not yet taken.
    pub fn pump(&mut self) -> &mut Vec<u8> {
        let mut buf = [0; 16 * 1024];
        while self.end.is_none() {
            match self.stream.read(&mut buf) {
                Ok(0) => self.end = Some(End::Fin),
                Ok(read) => self.received.extend_from_slice(&buf[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.end = Some(End::Reset);
                }
                Err(error) => panic!("reading failed: {error}"),
            }
        }
        &mut self.received
    }

    /// Reads at most so much, and appends it.
    pub fn read_some(&mut self, most: usize, received: &mut Vec<u8>) {
        let mut buf = vec![0; most];
        match self.stream.read(&mut buf) {
            Ok(0) => self.end = Some(End::Fin),
            Ok(read) => received.extend_from_slice(&buf[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.end = Some(End::Reset),
        }
    }

    /// Closes the sending side.
    pub fn shutdown_write(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends the connection with a reset instead of a FIN.
    pub fn reset(self) -> io::Result<()> {
        let socket = Socket::from(self.stream);
        socket.set_linger(Some(Duration::ZERO))
    }
}
