//! The index of connections by address.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv6Addr;

/// What counts as one address: an IPv4 address, or a /64 of IPv6, which is what one customer gets and
/// can number freely (RFC 6177).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Network(u128);

impl From<Ipv6Addr> for Network {
    fn from(ip: Ipv6Addr) -> Self {
        let bits = ip.to_bits();
        match ip.to_ipv4_mapped() {
            Some(_) => Self(bits),
            None => Self(bits >> 64 << 64),
        }
    }
}

/// The connections of each address, in the order of their identities. Nothing is kept if there is no limit.
#[derive(Debug)]
pub(crate) struct PerAddress<I> {
    limit: Option<usize>,
    connections: HashMap<Network, BTreeSet<I>>,
}

impl<I: Copy + Ord> PerAddress<I> {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self {
            limit,
            connections: HashMap::new(),
        }
    }

    /// Whether this address, with so many `others`, has as many connections as the limit allows. IPv4 is given as
    /// mapped.
    pub(super) fn is_at_limit(&self, ip: Ipv6Addr, others: usize) -> bool {
        self.limit
            .is_some_and(|limit| self.of(ip).count() + others >= limit)
    }

    /// The connections of this address.
    pub(crate) fn of(&self, ip: Ipv6Addr) -> impl Iterator<Item = I> {
        self.connections
            .get(&ip.into())
            .into_iter()
            .flatten()
            .copied()
    }

    pub(crate) fn insert(&mut self, ip: Ipv6Addr, id: I) {
        if self.limit.is_some() {
            let is_new = self.connections.entry(ip.into()).or_default().insert(id);
            debug_assert!(is_new, "a connection is inserted once");
        }
    }

    pub(crate) fn remove(&mut self, ip: Ipv6Addr, id: I) {
        if self.limit.is_none() {
            return;
        }
        let network = ip.into();
        if let Some(connections) = self.connections.get_mut(&network) {
            let was_there = connections.remove(&id);
            debug_assert!(was_there, "a connection is removed once");
            if connections.is_empty() {
                self.connections.remove(&network);
            }
        }
        // After a storm from many addresses the memory is returned, but not with each removal.
        if self.connections.capacity() > 1024
            && self.connections.len() < self.connections.capacity() / 8
        {
            self.connections.shrink_to_fit();
        }
    }

    /// How many connections are indexed, if there is a limit.
    pub(super) fn len(&self) -> Option<usize> {
        let total = || self.connections.values().map(BTreeSet::len).sum();
        self.limit.map(|_| total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::ConnId;

    fn ip(text: &str) -> Ipv6Addr {
        match text.parse().unwrap() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        }
    }

    #[test]
    fn an_ipv4_address_and_a_64_of_ipv6_are_one_address_each() {
        let mut index = PerAddress::new(Some(2));
        let all = ["192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::ffff:1"];
        for (key, from) in all.into_iter().enumerate() {
            assert!(!index.is_at_limit(ip(from), 0));
            index.insert(ip(from), ConnId::new(key, 0));
        }
        assert_eq!(index.len(), Some(4));
        assert!(index.is_at_limit(ip("192.0.2.1"), 0));
        assert!(!index.is_at_limit(ip("192.0.2.2"), 1));
        assert!(index.is_at_limit(ip("2001:db8::2:3:4:5"), 0));
        assert!(!index.is_at_limit(ip("2001:db8:0:1::1"), 0));
        let [third, fourth] = [ConnId::new(2, 0), ConnId::new(3, 0)];
        assert!(index.of(ip("2001:db8::abc")).eq([third, fourth]));
        index.remove(ip("2001:db8::1"), third);
        assert!(!index.is_at_limit(ip("2001:db8::1"), 0));
        assert!(index.is_at_limit(ip("2001:db8::1"), 1));
        assert!(index.of(ip("2001:db8::abc")).eq([fourth]));
    }

    #[test]
    fn addresses_without_connections_take_no_memory() {
        let mut index = PerAddress::new(Some(1));
        let id = ConnId::new(7, 0);
        for bits in 0..10_000 {
            index.insert(Ipv6Addr::from_bits(bits << 64), id);
        }
        for bits in 0..10_000 {
            match index.connections.len() {
                2500 => assert!(
                    index.connections.capacity() > 5000,
                    "it is not moved each time"
                ),
                100 => assert!(index.connections.capacity() <= 1024, "it has shrunk"),
                _ => {}
            }
            index.remove(Ipv6Addr::from_bits(bits << 64), id);
        }
        assert_eq!(index.len(), Some(0));
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let mut index = PerAddress::new(None);
        index.insert(ip("192.0.2.1"), ConnId::new(1, 0));
        assert!(index.connections.is_empty() && !index.is_at_limit(ip("192.0.2.1"), 0));
    }
}
