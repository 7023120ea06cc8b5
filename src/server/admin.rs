//! What an operator can do at the admin socket: a request for each act.
//!
//! ```text
//! POST /kick?id=1f          close this connection
//! POST /kick?name=bob       close all members of this name
//! POST /ban?address=10.0.0.0/8&for=3600
//! POST /ban?id=1f           ban the address of this connection, without an end
//! POST /ban?certificate=bob ban the clients whose certificate has this name
//! POST /unban?address=10.0.0.0/8
//! POST /say?text=hello      publish a message, under the name `server` or under another: &name=
//! GET  /bans                who is banned, and for how long
//! GET  /stats               the figures of the relay in words
//! ```
//!
//! Values are percent-encoded (RFC 3986, 2.1), so that they can be any bytes.

use std::net::IpAddr;
use std::time::Duration;

use super::banned::Banned;
use super::network::Network;
use crate::relay::ConnId;
use crate::text::percent_decoded;

/// The name under which the operator's messages are published, if no other is asked for.
const NAME: &str = "server";

/// Whom an act is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    Connection(ConnId),
    /// All members of this name.
    Name(Vec<u8>),
    /// All connections that a ban would close.
    Banned(Banned),
}

/// Something that changes the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Closes connections. They may come back.
    Kick(Whom),
    /// Closes connections, and refuses others from their addresses, or with their certificate, for so long.
    Ban(Whom, Option<Duration>),
    /// Lifts a ban.
    Unban(Banned),
    /// Publishes a message.
    Say { name: Vec<u8>, text: Vec<u8> },
}

/// Why a request is no act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadAct {
    /// There is no such act.
    Unknown,
    /// It lacks something, or a value is wrong.
    Value(&'static str),
}

/// The act that a request asks for with this path and this query.
pub(super) fn parse(path: &str, query: &str) -> Result<Act, BadAct> {
    let fields: Option<Vec<_>> = query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(field)
        .collect();
    let fields = fields.ok_or(BadAct::Value(
        "the query is not name=value with percent-encoding",
    ))?;
    let get = |name: &str| {
        let found = fields.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.as_slice())
    };
    match path {
        "/kick" => Ok(Act::Kick(whom(get)?)),
        "/ban" => {
            let length = get("for").map(|seconds| number(seconds, 10).map(Duration::from_secs));
            let length =
                length.map(|length| length.ok_or(BadAct::Value("for is no number of seconds")));
            Ok(Act::Ban(whom(get)?, length.transpose()?))
        }
        "/unban" => match whom(get)? {
            Whom::Banned(banned) => Ok(Act::Unban(banned)),
            _ => Err(BadAct::Value("an address or a certificate is needed")),
        },
        "/say" => Ok(Act::Say {
            name: get("name").unwrap_or(NAME.as_bytes()).to_vec(),
            text: get("text")
                .ok_or(BadAct::Value("a text is needed"))?
                .to_vec(),
        }),
        _ => Err(BadAct::Unknown),
    }
}

/// The network that is banned for the sake of one connection. Of IPv6, a /64 is one client's.
pub(super) fn network_of(ip: IpAddr) -> Network {
    match ip.to_canonical() {
        IpAddr::V6(ip) => format!("{ip}/64")
            .parse()
            .unwrap_or_else(|_| IpAddr::from(ip).into()),
        ip @ IpAddr::V4(_) => ip.into(),
    }
}

fn whom<'a>(get: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Whom, BadAct> {
    match (get("id"), get("name"), get("address"), get("certificate")) {
        (Some(id), None, None, None) => number(id, 16)
            .and_then(|id| usize::try_from(id).ok())
            .map(|id| Whom::Connection(ConnId::from(id)))
            .ok_or(BadAct::Value("id is no number of a connection")),
        (None, Some(name), None, None) => Ok(Whom::Name(name.to_vec())),
        (None, None, Some(address), None) => str::from_utf8(address)
            .ok()
            .and_then(|address| address.parse().ok())
            .map(|network| Whom::Banned(Banned::Network(network)))
            .ok_or(BadAct::Value("address is no IP address or network")),
        (None, None, None, Some(name)) => Banned::certificate(name)
            .map(Whom::Banned)
            .ok_or(BadAct::Value("certificate is no name of 1 to 255 bytes")),
        _ => Err(BadAct::Value(
            "one of id, name, address and certificate is needed",
        )),
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let digits = str::from_utf8(digits).ok()?;
    // A sign is no digit.
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_plain.then(|| u64::from_str_radix(digits, radix).ok())?
}

/// A field of a query: its name, and its value as bytes.
fn field(part: &str) -> Option<(&str, Vec<u8>)> {
    let (name, value) = part.split_once('=')?;
    Some((name, percent_decoded(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banned(text: &str) -> Banned {
        text.parse().unwrap()
    }

    #[test]
    fn act_is_what_its_path_and_its_query_are() {
        let id = Whom::Connection(ConnId::from(0x1f));
        for (path, query, act) in [
            ("/kick", "id=1f", Act::Kick(id.clone())),
            (
                "/kick",
                "name=%00b+%C3%BC%25",
                Act::Kick(Whom::Name(b"\0b+\xc3\xbc%".to_vec())),
            ),
            ("/kick", "name=", Act::Kick(Whom::Name(Vec::new()))),
            (
                "/ban",
                "address=10.0.0.0/8",
                Act::Ban(Whom::Banned(banned("10.0.0.0/8")), None),
            ),
            (
                "/ban",
                "id=1f&for=60",
                Act::Ban(id, Some(Duration::from_secs(60))),
            ),
            (
                "/unban",
                "address=2001:db8::/32",
                Act::Unban(banned("2001:db8::/32")),
            ),
            (
                "/ban",
                "certificate=b%20b&for=1",
                Act::Ban(
                    Whom::Banned(banned("cert:b%20b")),
                    Some(Duration::from_secs(1)),
                ),
            ),
            (
                "/say",
                "text=a%20b",
                Act::Say {
                    name: b"server".to_vec(),
                    text: b"a b".to_vec(),
                },
            ),
            (
                "/say",
                "name=ops&text=",
                Act::Say {
                    name: b"ops".to_vec(),
                    text: Vec::new(),
                },
            ),
        ] {
            assert_eq!(parse(path, query), Ok(act), "{path}?{query}");
        }
    }

    #[test]
    fn request_that_is_no_act_is_refused_with_what_is_wrong() {
        let needed = "one of id, name, address and certificate is needed";
        let encoding = "the query is not name=value with percent-encoding";
        for (path, query, bad) in [
            ("/kick", "", needed),
            ("/kick", "id=1f&name=bob", needed),
            ("/kick", "id=+1", "id is no number of a connection"),
            (
                "/kick",
                "id=10000000000000000",
                "id is no number of a connection",
            ),
            ("/kick", "id", encoding),
            ("/kick", "name=%f", encoding),
            ("/kick", "name=%+f", encoding),
            ("/kick", "name=%c3%b", encoding),
            (
                "/ban",
                "address=10.0.0.0/33",
                "address is no IP address or network",
            ),
            (
                "/ban",
                "address=10.0.0.1&for=1h",
                "for is no number of seconds",
            ),
            (
                "/ban",
                "certificate=",
                "certificate is no name of 1 to 255 bytes",
            ),
            (
                "/unban",
                "name=bob",
                "an address or a certificate is needed",
            ),
            ("/say", "name=ops", "a text is needed"),
        ] {
            assert_eq!(
                parse(path, query),
                Err(BadAct::Value(bad)),
                "{path}?{query}"
            );
        }
        assert_eq!(parse("/kill", "id=1"), Err(BadAct::Unknown));
    }

    #[test]
    fn address_of_one_connection_is_one_address_or_its_64() {
        for (ip, banned) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ] {
            assert_eq!(network_of(ip.parse().unwrap()).to_string(), banned);
        }
    }
}
