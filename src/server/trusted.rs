//! Proxies that are trusted to state their clients' addresses.

use std::net::{IpAddr, SocketAddr};

use super::network::Network;

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
