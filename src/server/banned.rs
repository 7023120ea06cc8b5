//! What a ban refuses: the addresses of a network, or the clients whose certificate has a name.

use std::fmt;
use std::str::FromStr;

use super::network::Network;
use crate::text::{PercentEncoded, percent_decoded};

/// The longest name of a certificate that can be banned, in bytes. Names of the domain name system and email
/// addresses are shorter (RFC 1035, 2.3.4; RFC 5321, 4.5.3).
const MAX_NAME: usize = 255;

/// What precedes the name of a certificate, where a network is written as it is.
const PREFIX: &str = "cert:";

/// A `Banned` is a network, or the name in the certificates of clients: `192.0.2.0/24`, `cert:bob@example.com`. In
/// the latter, bytes that could be mistaken are percent-encoded (RFC 3986, 2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Banned {
    /// Connections from these addresses are refused.
    Network(Network),
    /// Clients whose certificate has this name are refused.
    Certificate(Box<[u8]>),
}

/// Why a text is no [`Banned`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BannedError;

impl Banned {
    /// The name of a certificate, if it can be one.
    pub(super) fn certificate(name: &[u8]) -> Option<Self> {
        (1..=MAX_NAME)
            .contains(&name.len())
            .then(|| Self::Certificate(name.into()))
    }
}

impl FromStr for Banned {
    type Err = BannedError;

    fn from_str(text: &str) -> Result<Self, BannedError> {
        let Some(name) = text.strip_prefix(PREFIX) else {
            return text.parse().map(Self::Network).map_err(|_| BannedError);
        };
        let name = percent_decoded(name);
        name.and_then(|name| Self::certificate(&name))
            .ok_or(BannedError)
    }
}

/// As it is parsed.
impl fmt::Display for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Certificate(name) => write!(f, "{PREFIX}{}", PercentEncoded(name)),
        }
    }
}

impl fmt::Display for BannedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "write 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32, or {PREFIX}NAME with a percent-encoded name of at most \
             {MAX_NAME} bytes"
        )
    }
}

impl std::error::Error for BannedError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banned_network_or_name_is_parsed_as_it_is_shown() {
        for (text, shown, banned) in [
            (
                "10.9.9.9/8",
                "10.0.0.0/8",
                Some(Banned::Network("10.0.0.0/8".parse().unwrap())),
            ),
            (
                "cert:bob@example.com",
                "cert:bob@example.com",
                Banned::certificate(b"bob@example.com"),
            ),
            (
                "cert:Zoë a%0a%25",
                "cert:Zo%C3%AB%20a%0A%25",
                Banned::certificate("Zoë a\n%".as_bytes()),
            ),
            ("cert:%ff", "cert:%FF", Banned::certificate(b"\xff")),
        ] {
            let parsed = text.parse::<Banned>();
            assert_eq!(parsed.as_ref().ok(), banned.as_ref(), "{text}");
            assert_eq!(parsed.unwrap().to_string(), shown);
            assert_eq!(shown.parse().ok(), banned);
        }
    }

    #[test]
    fn text_that_is_neither_a_network_nor_a_name_is_refused() {
        let longest = format!("cert:{}", "x".repeat(MAX_NAME));
        assert!(longest.parse::<Banned>().is_ok());
        for text in ["", "bob", "cert:", "cert:%f", "cert:%+f", &(longest + "x")] {
            assert_eq!(text.parse::<Banned>(), Err(BannedError), "{text}");
        }
    }
}
