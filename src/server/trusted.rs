//! Proxies that are trusted to state their clients' addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// A `Network` is an IP address, or all addresses with the same prefix: `192.0.2.1`, `10.0.0.0/8`,
/// `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is no [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkError;

impl Network {
    /// Whether the address is in the network. An IPv4 address may be one that a socket for IPv6 shows
    /// (`::ffff:192.0.2.1`).
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| NetworkError)?;
        let Some(prefix) = prefix else {
            return Ok(Self(ip.to_canonical().into()));
        };
        // `u8` takes a plus sign as well.
        if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NetworkError);
        }
        let prefix: u8 = prefix.parse().map_err(|_| NetworkError)?;
        // The network of IPv4 addresses as a socket for IPv6 shows them is ::ffff:0:0/96.
        let net = match (ip.to_canonical(), prefix.checked_sub(96)) {
            (mapped @ IpAddr::V4(_), Some(prefix)) if ip.is_ipv6() => IpNet::new(mapped, prefix),
            _ => IpNet::new(ip, prefix),
        };
        net.map(|net| Self(net.trunc())).map_err(|_| NetworkError)
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an IP address or network; write 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32")
    }
}

impl std::error::Error for NetworkError {}

/// `Proxies` are the proxies that are trusted.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies(Vec<Network>);

impl Proxies {
    pub(super) const fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Whether this peer is one of them.
    pub(super) fn trusts(&self, peer: SocketAddr) -> bool {
        self.0.iter().any(|network| network.contains(peer.ip()))
    }

    /// The address of the client whose request `peer` has sent, with this list of `X-Forwarded-For`.
    ///
    /// Each proxy appends the address from which it received the request. So the last entry is the peer's
    /// statement, and the one before it that of the address in the last entry. The walk goes from the right
    /// for as long as the address that made the statement is a trusted proxy's. What stands to the left of
    /// that was sent by the client, which can write there what it likes.
    pub(super) fn client_of<'a>(
        &self,
        peer: SocketAddr,
        forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
    ) -> SocketAddr {
        let mut client = peer;
        for entry in forwarded_for.rev() {
            if !self.trusts(client) {
                break;
            }
            // A proxy may write `unknown`. Then its own address is the best that is known.
            let Some(stated) = parse_entry(entry) else {
                break;
            };
            client = stated;
        }
        client
    }
}

/// The address of an entry, most of which have no port. It is 0 then.
fn parse_entry(entry: &str) -> Option<SocketAddr> {
    let entry = entry.trim();
    let in_brackets = || entry.strip_prefix('[')?.strip_suffix(']');
    let ip = in_brackets().unwrap_or(entry).parse::<IpAddr>();
    ip.map(|ip| SocketAddr::new(ip, 0))
        .or_else(|_| entry.parse())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_contains_the_addresses_with_its_prefix() {
        for (network, inside, outside) in [
            (
                "192.0.2.1",
                &["192.0.2.1", "::ffff:192.0.2.1"][..],
                "192.0.2.2",
            ),
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.1.1"],
                "11.0.0.0",
            ),
            ("10.9.9.9/8", &["10.0.0.1"], "::10.9.9.9"),
            ("::ffff:10.0.0.0/104", &["10.1.1.1"], "11.0.0.0"),
            ("::ffff:10.0.0.1", &["10.0.0.1"], "::1"),
            ("0.0.0.0/0", &["255.255.255.255"], "::"),
            ("::/0", &["::1", "2001:db8::1"], "127.0.0.1"),
            ("2001:db8::/32", &["2001:db8:ffff::1"], "2001:db9::"),
            ("::1", &["::1"], "::2"),
        ] {
            let parsed: Network = network.parse().unwrap();
            for ip in inside {
                assert!(parsed.contains(ip.parse().unwrap()), "{ip} in {network}");
            }
            assert!(
                !parsed.contains(outside.parse().unwrap()),
                "{outside} in {network}"
            );
        }
    }

    #[test]
    fn text_that_is_no_network_is_refused() {
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0",
            "[::1]",
            "localhost",
            "192.0.2.1:80",
            "10.0.0.0/ 8",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text}");
        }
    }

    #[test]
    fn walk_ends_at_the_first_address_that_is_not_trusted() {
        let trusted = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"];
        let proxies = Proxies::new(trusted.map(|network| network.parse().unwrap()).to_vec());
        for (peer, forwarded_for, client) in [
            // A stranger's list is ignored.
            ("192.0.2.9:5", &["203.0.113.7"][..], "192.0.2.9:5"),
            ("127.0.0.1:5", &[], "127.0.0.1:5"),
            ("127.0.0.1:5", &["203.0.113.7"], "203.0.113.7:0"),
            ("[::ffff:127.0.0.1]:5", &["203.0.113.7"], "203.0.113.7:0"),
            // What the client sent stands to the left.
            (
                "127.0.0.1:5",
                &["127.0.0.1", "203.0.113.7"],
                "203.0.113.7:0",
            ),
            (
                "127.0.0.1:5",
                &["1.1.1.1", "203.0.113.7", "10.0.0.1"],
                "203.0.113.7:0",
            ),
            // All are trusted: the client is one of them.
            ("127.0.0.1:5", &["10.0.0.2", "10.0.0.1"], "10.0.0.2:0"),
            // A proxy that does not state an address.
            ("127.0.0.1:5", &["203.0.113.7", "unknown"], "127.0.0.1:5"),
            (
                "127.0.0.1:5",
                &["203.0.113.7", "", "10.0.0.1"],
                "10.0.0.1:0",
            ),
            // With ports, in all spellings.
            ("127.0.0.1:5", &[" 203.0.113.7:99 "], "203.0.113.7:99"),
            ("127.0.0.1:5", &["2001:db9::1"], "[2001:db9::1]:0"),
            ("127.0.0.1:5", &["[2001:db9::1]"], "[2001:db9::1]:0"),
            (
                "127.0.0.1:5",
                &["203.0.113.7", "[2001:db8::1]:99"],
                "203.0.113.7:0",
            ),
        ] {
            let peer = peer.parse().unwrap();
            let found = proxies.client_of(peer, forwarded_for.iter().copied());
            assert_eq!(found.to_string(), client, "{peer} {forwarded_for:?}");
        }
    }

    #[test]
    fn no_peer_is_trusted_by_default() {
        let local = "127.0.0.1:5".parse().unwrap();
        assert!(!Proxies::default().trusts(local));
    }
}
