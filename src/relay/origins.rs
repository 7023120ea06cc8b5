//! Which connections each address has.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv6Addr;

use super::ConnId;

/// What counts as one address: an IPv4 address, or a /64 of IPv6, which is what one customer gets and
/// can number as it likes (RFC 6177).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Origin(u128);

impl From<Ipv6Addr> for Origin {
    fn from(ip: Ipv6Addr) -> Self {
        let bits = ip.to_bits();
        match ip.to_ipv4_mapped() {
            Some(_) => Self(bits),
            None => Self(bits >> 64 << 64),
        }
    }
}

/// Connections by where they come from, the longest connected first, if there is a limit to how many
/// there may be.
#[derive(Debug)]
pub(super) struct Origins {
    limit: Option<usize>,
    connections: HashMap<Origin, BTreeSet<ConnId>>,
}

impl Origins {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self {
            limit,
            connections: HashMap::new(),
        }
    }

    /// Whether there are as many from this address as there may be. IPv4 is given as mapped.
    pub(super) fn is_crowded(&self, ip: Ipv6Addr) -> bool {
        self.limit.is_some_and(|limit| {
            let from_there = self.connections.get(&ip.into());
            from_there.is_some_and(|from_there| from_there.len() >= limit)
        })
    }

    /// Those from this address, if there is a limit.
    pub(super) fn of(&self, ip: Ipv6Addr) -> impl Iterator<Item = ConnId> {
        self.connections
            .get(&ip.into())
            .into_iter()
            .flatten()
            .copied()
    }

    /// One more comes from there.
    pub(super) fn come(&mut self, ip: Ipv6Addr, id: ConnId) {
        if self.limit.is_some() {
            self.connections.entry(ip.into()).or_default().insert(id);
        }
    }

    /// One that came from there goes.
    pub(super) fn go(&mut self, ip: Ipv6Addr, id: ConnId) {
        if self.limit.is_none() {
            return;
        }
        let origin = ip.into();
        if let Some(from_there) = self.connections.get_mut(&origin) {
            from_there.remove(&id);
            if from_there.is_empty() {
                self.connections.remove(&origin);
            }
        }
        if self.connections.capacity() > 1024
            && self.connections.len() < self.connections.capacity() / 8
        {
            self.connections.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv6Addr {
        match text.parse().unwrap() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        }
    }

    #[test]
    fn an_ipv4_address_and_a_64_of_ipv6_are_one_address_each() {
        let mut origins = Origins::new(Some(2));
        let all = ["192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::ffff:1"];
        for (key, from) in all.into_iter().enumerate() {
            assert!(!origins.is_crowded(ip(from)));
            origins.come(ip(from), ConnId::new(key, 0));
        }
        assert!(origins.is_crowded(ip("192.0.2.1")));
        assert!(!origins.is_crowded(ip("192.0.2.2")));
        assert!(origins.is_crowded(ip("2001:db8::2:3:4:5")));
        assert!(!origins.is_crowded(ip("2001:db8:0:1::1")));
        let [third, fourth] = [ConnId::new(2, 0), ConnId::new(3, 0)];
        assert!(origins.of(ip("2001:db8::abc")).eq([third, fourth]));
        origins.go(ip("2001:db8::1"), third);
        assert!(!origins.is_crowded(ip("2001:db8::1")));
        assert!(origins.of(ip("2001:db8::abc")).eq([fourth]));
    }

    #[test]
    fn an_address_from_which_all_have_gone_takes_no_memory() {
        let mut origins = Origins::new(Some(1));
        for bits in 0..10_000 {
            origins.come(Ipv6Addr::from_bits(bits << 64), ConnId::new(7, 0));
        }
        for bits in 0..10_000 {
            match origins.connections.len() {
                2500 => assert!(
                    origins.connections.capacity() > 5000,
                    "it is not moved each time"
                ),
                100 => assert!(origins.connections.capacity() <= 1024, "it has shrunk"),
                _ => {}
            }
            origins.go(Ipv6Addr::from_bits(bits << 64), ConnId::new(7, 0));
        }
        assert_eq!(origins.connections.len(), 0);
        assert!(origins.connections.capacity() <= 1024);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let mut origins = Origins::new(None);
        let id = ConnId::new(7, 0);
        origins.come(ip("192.0.2.1"), id);
        assert!(!origins.is_crowded(ip("192.0.2.1")));
        assert!(origins.connections.is_empty());
        origins.go(ip("192.0.2.1"), id);
    }
}
