//! Where connections come from: source addresses, and how many ports they have.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpAddrRange, Ipv4AddrRange, Ipv6AddrRange};
use serde::Serialize;

/// The maximum number of source addresses.
const MAX_SOURCES: usize = 65_536;

/// Source addresses, from the first to the last of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "usize")]
pub struct Sources(Vec<IpAddr>);

impl Sources {
    /// The address for the connection of this index: each in turn.
    pub(super) fn nth(&self, index: usize) -> IpAddr {
        self.0[index % self.0.len()]
    }

    /// How many addresses there are.
    pub(super) const fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_ipv4(&self) -> bool {
        self.0[0].is_ipv4()
    }
}

/// In the report, there is only how many.
impl From<Sources> for usize {
    fn from(sources: Sources) -> Self {
        sources.count()
    }
}

impl FromStr for Sources {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = match (first.trim().parse(), last.trim().parse()) {
            (Ok(IpAddr::V4(first)), Ok(IpAddr::V4(last))) => {
                IpAddrRange::V4(Ipv4AddrRange::new(first, last))
            }
            (Ok(IpAddr::V6(first)), Ok(IpAddr::V6(last))) => {
                IpAddrRange::V6(Ipv6AddrRange::new(first, last))
            }
            (Ok(_), Ok(_)) => return Err("one address is IPv4 and the other IPv6"),
            _ => return Err("not an address or a range; write 127.0.0.2 or 127.0.0.2-127.0.0.9"),
        };
        let addresses: Vec<_> = range.take(MAX_SOURCES + 1).collect();
        match addresses.len() {
            0 => Err("the last address is before the first"),
            1..=MAX_SOURCES => Ok(Self(addresses)),
            _ => Err("more than 65,536 addresses"),
        }
    }
}

/// The ports that the system gives to outgoing connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// What Linux has; elsewhere, the range that IANA sets aside for it, which most systems have.
    pub(super) fn of_this_system() -> Self {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        range
            .ok()
            .and_then(|range| Self::parse(&range))
            .unwrap_or(Self {
                first: 49_152,
                last: 65_535,
            })
    }

    fn parse(range: &str) -> Option<Self> {
        let mut numbers = range.split_whitespace().map(str::parse);
        let first = numbers.next()?.ok()?;
        let last = numbers.next()?.ok()?;
        (first <= last).then_some(Self { first, last })
    }

    /// How many connections to one server there can be from so many source addresses.
    pub(super) fn budget(self, sources: usize) -> usize {
        (usize::from(self.last - self.first) + 1) * sources
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_has_each_address_in_turn() {
        let sources: Sources = "127.0.0.254-127.0.1.1".parse().unwrap();
        assert_eq!(sources.count(), 4);
        let addresses: Vec<_> = (0..5).map(|index| sources.nth(index).to_string()).collect();
        let expected = [
            "127.0.0.254",
            "127.0.0.255",
            "127.0.1.0",
            "127.0.1.1",
            "127.0.0.254",
        ];
        assert_eq!(addresses, expected);
        let sources: Sources = "::1-::3".parse().unwrap();
        assert_eq!(sources.nth(2).to_string(), "::3");
        let one: Sources = "10.0.0.1".parse().unwrap();
        assert_eq!(
            (one.count(), one.nth(7).to_string()),
            (1, "10.0.0.1".into())
        );
    }

    #[test]
    fn text_that_is_no_range_is_refused_with_the_reason() {
        for (text, says) in [
            ("somewhere", "write 127.0.0.2"),
            ("127.0.0.1-", "write 127.0.0.2"),
            ("127.0.0.2-127.0.0.1", "before the first"),
            ("127.0.0.2-::1", "IPv6"),
            ("127.0.0.0-127.1.0.0", "65,536"),
            ("::-ffff::", "65,536"),
        ] {
            let error = text.parse::<Sources>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn each_source_address_has_all_the_ports() {
        let ports = Ports::parse("32768\t60999\n").unwrap();
        assert_eq!(ports.budget(1), 28_232);
        assert_eq!(ports.budget(4), 112_928);
        assert_eq!(ports.to_string(), "32768-60999");
        for none in ["", "1", "2 1", "a b", "1 70000"] {
            assert_eq!(Ports::parse(none), None, "{none}");
        }
    }
}
