//! Addresses on the command line: `ADDR:PORT`, and what is short for it.
//!
//! ```text
//! 127.0.0.1:1234  [::1]:1234  chat.example.org:1234
//! 1234                    a port of this machine: 127.0.0.1:1234
//! 127.0.0.1  [::1]  ::1   an address without a port: it has the default one
//! ```
//!
//! The system's resolver takes any number for an IPv4 address, so that `1234` would be 0.0.4.210. No
//! such number gets that far.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};

/// The port of the tutorials, and of `chatloop serve`.
pub(crate) const DEFAULT_PORT: u16 = 1234;
/// The port of a listener for browsers if none is given.
pub(crate) const DEFAULT_PAGE_PORT: u16 = 1235;

/// The port of a listener for metrics if none is given.
pub(crate) const DEFAULT_METRICS_PORT: u16 = 9150;

/// An address that was asked for. A name is not looked up before [`lookup`](Self::lookup).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// An IP address.
    Ip(SocketAddr),
    /// A host's name, and a port.
    Name(String, u16),
}

impl Address {
    /// The address that `text` is. If it is none, the error has the reason, and what to `write`.
    pub(crate) fn parse(text: &str, default_port: u16, write: &str) -> Result<Self, String> {
        if is_number(text) {
            let addr = (Ipv4Addr::LOCALHOST, parse_port(text)?);
            return Ok(Self::Ip(addr.into()));
        }
        if text.contains('[') != text.contains(']') {
            return Err("a bracket is missing; write [::1]:1234".to_owned());
        }
        if let Some(addr) = parse_ipv6(text, default_port)? {
            return Ok(Self::Ip(addr.into()));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, parse_port(port)?),
            None => (text, default_port),
        };
        if host.is_empty() || host.contains(|c: char| c == '/' || c.is_whitespace()) {
            return Err(format!("not ADDR:PORT; {write}"));
        }
        if is_number(host) {
            return Err(format!(
                "{host} is not an address; write 127.0.0.1:{port} for this machine"
            ));
        }
        Ok(match host.parse::<Ipv4Addr>() {
            Ok(ip) => Self::Ip((ip, port).into()),
            Err(_) => Self::Name(host.to_owned(), port),
        })
    }

    /// The address as an HTTP request has it.
    pub(crate) fn authority(&self) -> String {
        match self {
            // A scope means something on this machine only.
            Self::Ip(SocketAddr::V6(addr)) => format!("[{}]:{}", addr.ip(), addr.port()),
            Self::Ip(addr) => addr.to_string(),
            Self::Name(host, port) => format!("{host}:{port}"),
        }
    }

    /// The address as a certificate has it: without a port.
    #[cfg(feature = "tls-client")]
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Ip(addr) => addr.ip().to_string(),
            Self::Name(host, _) => host.clone(),
        }
    }

    pub(crate) const fn port(&self) -> u16 {
        match self {
            Self::Ip(addr) => addr.port(),
            Self::Name(_, port) => *port,
        }
    }

    /// The addresses that this is, or that its name has; at least one.
    pub(crate) fn lookup(&self) -> Result<Vec<SocketAddr>, LookupError> {
        let (host, port) = match self {
            Self::Ip(addr) => return Ok(vec![*addr]),
            Self::Name(host, port) => (host, *port),
        };
        let failed = |reason: String| LookupError {
            host: host.clone(),
            reason: reason.replace("failed to lookup address information: ", ""),
        };
        let addrs: Vec<_> = (host.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| failed(error.to_string()))?
            .collect();
        if addrs.is_empty() {
            return Err(failed("it has none".to_owned()));
        }
        Ok(addrs)
    }

    /// The first of these addresses, IPv4 before IPv6.
    pub(crate) fn lookup_first(&self) -> Result<SocketAddr, LookupError> {
        let addrs = self.lookup()?;
        let ipv4 = addrs.iter().find(|addr| addr.is_ipv4());
        Ok(*ipv4.unwrap_or(&addrs[0]))
    }
}

/// A name that has no address, or none that can be found now.
#[derive(Debug)]
pub(crate) struct LookupError {
    host: String,
    reason: String,
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, reason } = self;
        write!(f, "cannot find the address of {host}: {reason}")
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_port(text: &str) -> Result<u16, String> {
    // `u16` takes a plus sign as well.
    Some(text)
        .filter(|text| is_number(text))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("a port is a number up to {}", u16::MAX))
}

/// The IPv6 address that `text` is, with its port or without. `None` if it is something else.
fn parse_ipv6(text: &str, default_port: u16) -> Result<Option<SocketAddrV6>, String> {
    if text.starts_with('[') {
        let with_port = match text.rsplit_once("]:") {
            Some((_, port)) => {
                parse_port(port)?;
                text.to_owned()
            }
            None => format!("{text}:{default_port}"),
        };
        return match with_port.parse() {
            Ok(addr) => Ok(Some(addr)),
            Err(_) => Err("not an IPv6 address in brackets; write [::1]:1234".to_owned()),
        };
    }
    let Some((head, tail)) = text.rsplit_once(':').filter(|(head, _)| head.contains(':')) else {
        return Ok(None);
    };
    if let Ok(ip) = head.parse::<Ipv6Addr>()
        && is_number(tail)
    {
        // Without brackets the port could be the last part of the address.
        return Err(format!(
            "an IPv6 address needs brackets before its port; write [{ip}]:{tail}"
        ));
    }
    match format!("[{text}]:{default_port}").parse() {
        Ok(addr) => Ok(Some(addr)),
        Err(_) => Err("an IPv6 address needs brackets, as in [::1]:1234".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, String> {
        Address::parse(text, DEFAULT_PORT, "write 127.0.0.1:1234")
    }

    #[test]
    fn address_may_lack_its_port_and_a_port_its_address() {
        for (text, addr) in [
            ("127.0.0.1:99", "127.0.0.1:99"),
            ("127.0.0.1", "127.0.0.1:1234"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("1234", "127.0.0.1:1234"),
            ("0", "127.0.0.1:0"),
            ("5050", "127.0.0.1:5050"),
            ("[::1]:99", "[::1]:99"),
            ("[::1]", "[::1]:1234"),
            ("::1", "[::1]:1234"),
            ("::", "[::]:1234"),
            ("2001:db8::a", "[2001:db8::a]:1234"),
            ("1:2:3:4:5:6:7:8", "[1:2:3:4:5:6:7:8]:1234"),
            ("::ffff:127.0.0.1", "[::ffff:127.0.0.1]:1234"),
            ("[::1:1234]", "[::1:1234]:1234"),
            ("[fe80::1%2]:99", "[fe80::1%2]:99"),
            ("[fe80::1%2]", "[fe80::1%2]:1234"),
            ("fe80::1%2", "[fe80::1%2]:1234"),
        ] {
            let addr = addr.parse().unwrap();
            assert_eq!(parse(text), Ok(Address::Ip(addr)), "{text}");
        }
        for (text, host, port) in [
            ("localhost", "localhost", 1234),
            ("chat.example.org:99", "chat.example.org", 99),
            ("1234.example.org", "1234.example.org", 1234),
        ] {
            let named = Address::Name(host.to_owned(), port);
            assert_eq!(parse(text), Ok(named), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_address_has_an_error_that_says_what_to_write() {
        for (text, error) in [
            ("", "not ADDR:PORT; write 127.0.0.1:1234"),
            (":1234", "not ADDR:PORT; write 127.0.0.1:1234"),
            ("example.org/chat", "not ADDR:PORT; write 127.0.0.1:1234"),
            ("two words", "not ADDR:PORT; write 127.0.0.1:1234"),
            (
                "1234:5050",
                "1234 is not an address; write 127.0.0.1:5050 for this machine",
            ),
            ("127.0.0.1:", "a port is a number up to 65535"),
            ("127.0.0.1:99999", "a port is a number up to 65535"),
            ("127.0.0.1:+5", "a port is a number up to 65535"),
            ("[::1]:http", "a port is a number up to 65535"),
            ("65536", "a port is a number up to 65535"),
            ("[::1", "a bracket is missing; write [::1]:1234"),
            ("::1]:1234", "a bracket is missing; write [::1]:1234"),
            (
                "[127.0.0.1]:99",
                "not an IPv6 address in brackets; write [::1]:1234",
            ),
            (
                "::1:1234",
                "an IPv6 address needs brackets before its port; write [::1]:1234",
            ),
            (
                "1:2:3:4:5:6:7:8:1234",
                "an IPv6 address needs brackets before its port; write [1:2:3:4:5:6:7:8]:1234",
            ),
            ("a:b:c", "an IPv6 address needs brackets, as in [::1]:1234"),
        ] {
            assert_eq!(parse(text), Err(error.to_owned()), "{text}");
        }
    }
}
