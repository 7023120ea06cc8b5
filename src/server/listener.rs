//! Listening sockets and their options.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
#[cfg(any(target_os = "linux", target_os = "android"))]
use socket2::SockRef;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::wire::Dialect;

/// The listen backlog: how many connections the kernel holds until they are accepted. mio's own `bind`
/// asks for 128, too few when a thousand members come back at once. The kernel lowers it to its
/// `somaxconn`.
pub(super) const LISTEN_BACKLOG: i32 = 4096;

/// `TCP_NOTSENT_LOWAT`, in bytes: a socket reports that it is writable only while less than half of this
/// is queued unsent in the kernel. Without it the kernel buffers megabytes for each peer that does not
/// read, and reports room only after a third of them were sent. Here the lag of a peer shows at once, it is
/// held once for all peers, and each step in which the peer reads is seen: flow control depends on
/// that. Bytes in flight do not count, so a long fast line is as fast as without it.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NOTSENT_LOWAT: u32 = 64 * 1024;

/// How often a dead peer is probed before it is given up, if there is a second for each probe, and how often
/// at least. Probes can be lost although the peer is alive: the kernel probes members that joined together
/// in one burst, and over the loopback network (or a container's) it drops all but the first thousand
/// packets of a burst. Each round of probes leaves a thousand fewer members for the next one.
const KEEPALIVE_PROBES: u64 = 20;
const MIN_KEEPALIVE_PROBES: u64 = 4;

/// A `Preamble` is what each connection of a listener begins with, before its dialect: nothing, a header of the
/// PROXY protocol, a TLS handshake, or both of them in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Preamble {
    /// The connections are from proxies, which state their clients' addresses.
    pub proxy_header: bool,
    /// The dialect is spoken through TLS.
    pub tls: bool,
}

impl Preamble {
    /// Connections begin with their dialect.
    pub const NONE: Self = Self {
        proxy_header: false,
        tls: false,
    };

    /// The preamble that stands before a dialect's name, as in `proxy+tls+chat10`, and the rest of the name.
    #[must_use]
    pub fn split_from(name: &str) -> (Self, &str) {
        let (proxy_header, name) = without(PROXY, name);
        let (tls, name) = without(TLS, name);
        let has_secure_name = !tls && name.eq_ignore_ascii_case(SECURE_WS);
        let preamble = Self {
            proxy_header,
            tls: tls || has_secure_name,
        };
        (preamble, if has_secure_name { "ws" } else { name })
    }

    /// The name of a dialect with this preamble.
    #[must_use]
    pub fn with(self, dialect: Dialect) -> String {
        let proxy = if self.proxy_header { PROXY } else { "" };
        match dialect {
            Dialect::Ws if self.tls => format!("{proxy}{SECURE_WS}"),
            _ => format!("{proxy}{}{dialect}", if self.tls { TLS } else { "" }),
        }
    }
}

const PROXY: &str = "proxy+";
const TLS: &str = "tls+";
/// What URLs call WebSocket through TLS.
const SECURE_WS: &str = "wss";

/// Whether a name begins with this, and what follows it.
fn without<'a>(start: &str, name: &'a str) -> (bool, &'a str) {
    match name.split_at_checked(start.len()) {
        Some((head, rest)) if head.eq_ignore_ascii_case(start) => (true, rest),
        _ => (false, name),
    }
}

/// How connections come to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// Over the network, with this before the dialect.
    Network(Preamble),
    /// From the owner of the admin socket.
    AdminSocket,
}

impl Via {
    /// What connections begin with.
    pub(super) const fn preamble(self) -> Preamble {
        match self {
            Self::Network(preamble) => preamble,
            Self::AdminSocket => Preamble::NONE,
        }
    }
}

/// The dialect of a listener and its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The protocol of the connections that come in here.
    pub dialect: Dialect,
    /// The address to listen on. Port 0 lets the system choose one.
    pub addr: SocketAddr,
}

impl Endpoint {
    /// Whether connections over IPv4 can come in here, when these are all the endpoints.
    ///
    /// The IPv6 wildcard takes IPv4 too, unless another endpoint asks for IPv4 on the same port: the two
    /// would collide.
    #[must_use]
    pub fn takes_ipv4(&self, all: &[Self]) -> bool {
        let (addr, port) = (self.addr, self.addr.port());
        let beside = |other: &Self| other.addr.is_ipv4() && other.addr.port() == port && port != 0;
        addr.is_ipv4() || (addr.ip().is_unspecified() && !all.iter().any(beside))
    }
}

/// A listening socket with the options that its connections inherit.
pub(super) fn listen(
    addr: SocketAddr,
    with_ipv4: bool,
    keepalive: Option<Duration>,
) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(!with_ipv4)?;
    }
    set_options(&socket, keepalive)?;
    // Without this a restarted relay would have to wait until the connections of the old one have left
    // TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Sets the options that connections inherit.
///
/// On Linux and the BSDs an accepted socket inherits the listener's options, so they are set here
/// once instead of with a system call or five for each connection. `TCP_NODELAY`, because a turn's
/// bytes leave in one write and waiting for more (Nagle's algorithm) could only delay them.
/// Keepalive, because a peer whose machine was switched off sends no FIN, and an idle room sends no data
/// that would time out.
pub(super) fn set_options(socket: &Socket, keepalive: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // Should that fail, the kernel holds more, and that is all.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.set_tcp_notsent_lowat(NOTSENT_LOWAT);
    let Some(silence) = keepalive else {
        return socket.set_keepalive(false);
    };
    // The kernel counts in whole seconds. Probing takes as long as the silence before it, so that a
    // peer which died in silence is gone after twice that. One that died while bytes were on their
    // way to it is gone when TCP gives up sending them again. TCP_USER_TIMEOUT would shorten that,
    // but it would also close a live member that does not read for so long.
    let silence = silence.as_secs().max(1);
    let interval = (silence / KEEPALIVE_PROBES).max(1);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_secs(silence))
            .with_interval(Duration::from_secs(interval))
            .with_retries((silence / interval).max(MIN_KEEPALIVE_PROBES) as u32),
    )
}

/// Removes the `TCP_NOTSENT_LOWAT` cap of a connection.
pub(super) fn clear_notsent_lowat(stream: &TcpStream) {
    // If that fails, the cap stays.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(u32::MAX);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = stream;
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::TcpStream;

    #[test]
    fn an_accepted_socket_has_its_options_from_the_listener() {
        for (keepalive, least) in [(None, 0), (Some(5), 5), (Some(30), 20), (Some(40), 20)] {
            let keepalive = keepalive.map(Duration::from_secs);
            let any_port = "127.0.0.1:0".parse().unwrap();
            let listener = listen(any_port, false, keepalive).unwrap();
            assert!(SockRef::from(&listener).reuse_address().unwrap());
            let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let accepted = SockRef::from(&accepted);
            assert!(accepted.tcp_nodelay().unwrap());
            assert_eq!(accepted.keepalive().unwrap(), keepalive.is_some());
            if let Some(silence) = keepalive {
                assert_eq!(accepted.tcp_keepalive_time().unwrap(), silence);
                let probing = accepted.tcp_keepalive_interval().unwrap()
                    * accepted.tcp_keepalive_retries().unwrap();
                assert_eq!(probing, silence);
                assert!(
                    accepted.tcp_keepalive_retries().unwrap() >= least,
                    "{silence:?}"
                );
            }
        }
    }

    #[test]
    fn hundreds_can_connect_before_anybody_is_accepted() {
        // The kernel's own bound on a listen backlog, which is lower on some systems.
        let bound = std::fs::read_to_string("/proc/sys/net/core/somaxconn")
            .ok()
            .and_then(|bound| bound.trim().parse().ok())
            .unwrap_or(128);
        let listener = listen("127.0.0.1:0".parse().unwrap(), false, None).unwrap();
        let addr = listener.local_addr().unwrap();
        // Over a full backlog a connection attempt is dropped and repeated after a second.
        let timeout = Duration::from_millis(900);
        let peers: Result<Vec<_>, _> = (0..400.min(bound))
            .map(|_| TcpStream::connect_timeout(&addr, timeout))
            .collect();
        assert!(peers.is_ok(), "{peers:?}");
    }

    #[test]
    fn the_ipv6_wildcard_leaves_ipv4_to_whoever_asked_for_it() {
        let endpoints = |addrs: &[&str]| -> Vec<Endpoint> {
            addrs
                .iter()
                .map(|addr| Endpoint {
                    dialect: Dialect::Chat10,
                    addr: addr.parse().unwrap(),
                })
                .collect()
        };
        for (addrs, takes_ipv4) in [
            (&["[::]:1234"][..], &[true][..]),
            (&["[::1]:1234"], &[false]),
            (&["0.0.0.0:1234", "[::]:1234"], &[true, false]),
            (&["[::]:1234", "127.0.0.1:1234"], &[false, true]),
            (&["0.0.0.0:1234", "[::]:1235"], &[true, true]),
            (&["127.0.0.1:0", "[::]:0"], &[true, true]),
        ] {
            let all = endpoints(addrs);
            let takes: Vec<_> = all.iter().map(|one| one.takes_ipv4(&all)).collect();
            assert_eq!(takes, takes_ipv4, "{addrs:?}");
        }
    }
}
