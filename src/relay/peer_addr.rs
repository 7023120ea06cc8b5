//! A peer's address, kept small.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A peer's address in 18 bytes instead of the 32 of a [`SocketAddr`].
///
/// IPv4 is kept the way a dual-stack socket shows it, as an IPv4-mapped IPv6 address (RFC 4291,
/// 2.5.5.2), and converted back to IPv4. The scope of a link-local address is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddr {
    ip: Ipv6Addr,
    port: u16,
}

impl From<SocketAddr> for PeerAddr {
    fn from(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self {
            ip,
            port: addr.port(),
        }
    }
}

impl From<PeerAddr> for SocketAddr {
    fn from(addr: PeerAddr) -> Self {
        Self::new(addr.ip.to_canonical(), addr.port)
    }
}

impl PeerAddr {
    /// The address without the port.
    pub(crate) const fn ip(self) -> Ipv6Addr {
        self.ip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_address_converts_back_to_the_address_that_connected() {
        for (addr, shown) in [
            ("127.0.0.1:1234", "127.0.0.1:1234"),
            ("[::ffff:10.0.0.7]:80", "10.0.0.7:80"),
            ("[2001:db8::1]:65535", "[2001:db8::1]:65535"),
        ] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(SocketAddr::from(PeerAddr::from(addr)).to_string(), shown);
        }
    }
}
