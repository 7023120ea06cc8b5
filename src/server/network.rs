//! IP networks.

use std::fmt;
use std::net::IpAddr;
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

/// As it is parsed: a network of one address is that address.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

impl From<IpAddr> for Network {
    fn from(ip: IpAddr) -> Self {
        Self(ip.to_canonical().into())
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an IP address or network; write 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32")
    }
}

impl std::error::Error for NetworkError {}

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
    fn network_is_shown_as_it_is_parsed() {
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1/32", "192.0.2.1"),
            ("10.9.9.9/8", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1"),
        ] {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.to_string(), shown);
            assert_eq!(shown.parse(), Ok(network));
        }
    }
}
