//! How many connections each address has.

use std::collections::HashMap;
use std::net::Ipv6Addr;

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

/// Counts connections by where they come from, if there is a limit to that.
#[derive(Debug)]
pub(super) struct Origins {
    limit: Option<usize>,
    counts: HashMap<Origin, usize>,
}

impl Origins {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self {
            limit,
            counts: HashMap::new(),
        }
    }

    /// Whether there are as many from this address as there may be. IPv4 is given as mapped.
    pub(super) fn is_crowded(&self, ip: Ipv6Addr) -> bool {
        self.limit.is_some_and(|limit| {
            let count = self.counts.get(&ip.into());
            count.is_some_and(|&count| count >= limit)
        })
    }

    /// One more comes from there.
    pub(super) fn come(&mut self, ip: Ipv6Addr) {
        if self.limit.is_some() {
            *self.counts.entry(ip.into()).or_default() += 1;
        }
    }

    /// One that came from there goes.
    pub(super) fn go(&mut self, ip: Ipv6Addr) {
        if self.limit.is_none() {
            return;
        }
        let origin = ip.into();
        if let Some(count) = self.counts.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&origin);
            }
        }
        if self.counts.capacity() > 1024 && self.counts.len() < self.counts.capacity() / 8 {
            self.counts.shrink_to_fit();
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
        for from in ["192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::ffff:1"] {
            assert!(!origins.is_crowded(ip(from)));
            origins.come(ip(from));
        }
        assert!(origins.is_crowded(ip("192.0.2.1")));
        assert!(!origins.is_crowded(ip("192.0.2.2")));
        assert!(origins.is_crowded(ip("2001:db8::2:3:4:5")));
        assert!(!origins.is_crowded(ip("2001:db8:0:1::1")));
        origins.go(ip("2001:db8::1"));
        assert!(!origins.is_crowded(ip("2001:db8::1")));
    }

    #[test]
    fn an_address_from_which_all_have_gone_takes_no_memory() {
        let mut origins = Origins::new(Some(1));
        for bits in 0..10_000 {
            origins.come(Ipv6Addr::from_bits(bits << 64));
        }
        for bits in 0..10_000 {
            match origins.counts.len() {
                2500 => assert!(
                    origins.counts.capacity() > 5000,
                    "it is not moved each time"
                ),
                100 => assert!(origins.counts.capacity() <= 1024, "it has shrunk"),
                _ => {}
            }
            origins.go(Ipv6Addr::from_bits(bits << 64));
        }
        assert_eq!(origins.counts.len(), 0);
        assert!(origins.counts.capacity() <= 1024);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let mut origins = Origins::new(None);
        origins.come(ip("192.0.2.1"));
        assert!(!origins.is_crowded(ip("192.0.2.1")));
        assert!(origins.counts.is_empty());
        origins.go(ip("192.0.2.1"));
    }
}
