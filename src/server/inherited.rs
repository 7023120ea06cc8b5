//! Sockets that listen before the server is there.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use socket2::SockRef;

use super::listener::{Endpoint, Preamble, set_options};
use crate::wire::Dialect;

/// A socket that listens already, such as one that a service manager has opened and passed on.
///
/// The process that opened it has chosen its backlog and its address. If another process holds it too, as
/// a service manager does, new connections wait in its queue while no server runs.
#[derive(Debug)]
pub struct Inherited {
    endpoint: Endpoint,
    takes_ipv4: bool,
    preamble: Preamble,
    socket: TcpListener,
}

impl Inherited {
    /// This socket, for connections of this protocol.
    ///
    /// # Errors
    ///
    /// If it does not listen, or if its address cannot be queried.
    pub fn new(dialect: Dialect, socket: TcpListener) -> io::Result<Self> {
        let options = SockRef::from(&socket);
        // Where the system cannot report this, `accept` fails.
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        if !options.is_listener()? {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
            let error = format!("fd {fd} does not listen");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let addr = socket.local_addr()?;
        let takes_ipv4 = addr.is_ipv4() || (addr.ip().is_unspecified() && !options.only_v6()?);
        Ok(Self {
            endpoint: Endpoint { dialect, addr },
            takes_ipv4,
            preamble: Preamble::NONE,
            socket,
        })
    }

    /// The same, for connections that begin with this, as those of
    /// [`Config::listen_with`](super::Config::listen_with) do.
    #[must_use]
    pub const fn with(mut self, preamble: Preamble) -> Self {
        self.preamble = preamble;
        self
    }

    /// Its dialect and its address.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Whether connections over IPv4 can come in here.
    #[must_use]
    pub const fn takes_ipv4(&self) -> bool {
        self.takes_ipv4
    }

    /// What each connection begins with.
    #[must_use]
    pub const fn preamble(&self) -> Preamble {
        self.preamble
    }

    /// The socket with the options that one of our own has.
    pub(super) fn into_listener(
        self,
        keepalive: Option<Duration>,
    ) -> io::Result<mio::net::TcpListener> {
        self.socket.set_nonblocking(true)?;
        set_options(&SockRef::from(&self.socket), keepalive)?;
        Ok(mio::net::TcpListener::from_std(self.socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::system::Kernel;
    use crate::server::{Config, Event, Server, System, Turn};
    use socket2::{Domain, Socket, Type};
    use std::net::TcpStream;

    fn chat10(socket: TcpListener) -> Inherited {
        Inherited::new(Dialect::Chat10, socket).unwrap()
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let error = Inherited::new(Dialect::Chat10, socket.into()).unwrap_err();
        assert!(error.to_string().ends_with(" does not listen"), "{error}");
    }

    #[test]
    fn its_connections_have_the_options_that_those_of_our_own_have() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        for keepalive in [Some(Duration::from_secs(40)), None] {
            let kept = socket.try_clone().unwrap();
            let listener = chat10(kept).into_listener(keepalive).unwrap();
            let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let accepted = SockRef::from(&accepted);
            assert!(accepted.tcp_nodelay().unwrap());
            assert_eq!(accepted.keepalive().unwrap(), keepalive.is_some());
            let nobody = listener.accept().unwrap_err();
            assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn who_came_before_the_start_has_those_options_too() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let keepalive = Some(Duration::from_secs(40));
        let early = [(); 2].map(|()| TcpStream::connect(addr).unwrap());
        let mut kernel = Kernel::new(keepalive).unwrap();
        kernel.take_over(chat10(socket)).unwrap();
        for _ in &early {
            let (stream, _) = kernel.accept(0).unwrap();
            let accepted = SockRef::from(&stream);
            assert!(accepted.tcp_nodelay().unwrap());
            assert!(accepted.keepalive().unwrap());
        }
    }

    /// The trap is that closing a descriptor takes nothing back from epoll while there is another.
    #[test]
    fn who_comes_after_a_stop_waits_for_its_opener_and_wakes_nobody() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let inherited = chat10(socket.try_clone().unwrap());
        let mut server = Server::bind_with(&Config::new(Vec::new()), vec![inherited]).unwrap();
        let addr = server.local_addrs().unwrap()[0];
        let _alice = TcpStream::connect(addr).unwrap();
        while server.relay().is_empty() {
            server.turn(None).unwrap();
        }
        assert!(!server.is_stopping());
        server.stop("the test");
        assert!(server.is_stopping());
        let newcomer = TcpStream::connect(addr).unwrap();
        while server.turn(Some(Duration::ZERO)).unwrap() == Turn::Running {}
        let mut events = server.system.events();
        assert!(events.all(|event| event != Event::Incoming(0)));
        drop(events);
        let (_, waited) = socket.accept().unwrap();
        assert_eq!(waited, newcomer.local_addr().unwrap());
    }
}
