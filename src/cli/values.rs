//! Parses the values of flags. Each error has what to write instead.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use chatloop::relay::Slow;
use chatloop::server::{Banned, Network, Preamble};
use chatloop::wire::{Dialect, Sends};
use log::LevelFilter;

use crate::address::{Address, DEFAULT_METRICS_PORT, DEFAULT_PAGE_PORT, DEFAULT_PORT};

/// An `OrOff` is a limit, or none for `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrOff<T = Duration>(pub(crate) Option<T>);

impl<T> OrOff<T> {
    fn parse(text: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self(None));
        }
        parse(text).map(|limit| Self(Some(limit)))
    }
}

/// A `Listen` is an address to listen on, and its dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) dialect: Dialect,
    pub(crate) addr: Address,
    pub(crate) preamble: Preamble,
}

/// The dialect of this name, and what the name says to come before it.
pub(crate) fn parse_protocol(name: &str) -> Result<(Preamble, Dialect), String> {
    let (preamble, dialect) = Preamble::split_from(name);
    let dialect = dialect.parse::<Dialect>();
    dialect
        .map(|dialect| (preamble, dialect))
        .map_err(|error| error.to_string())
}

pub(super) fn parse_listen(text: &str) -> Result<Listen, String> {
    let text = text.trim();
    let ((preamble, dialect), addr) = match text.split_once("://") {
        Some((name, addr)) => (parse_protocol(name)?, addr),
        None => ((Preamble::NONE, Dialect::Chat10), text),
    };
    if let Some((name, rest)) = addr.split_once(':')
        && parse_protocol(name).is_ok()
    {
        let rest = rest.trim_start_matches('/');
        return Err(format!("write {name}://{rest}"));
    }
    if let (misplaced, rest) = Preamble::split_from(addr)
        && misplaced != Preamble::NONE
    {
        return Err(format!("write {}://{rest}", misplaced.with(dialect)));
    }
    let addr = Address::parse(
        addr,
        match dialect.rules().sends {
            Sends::Requests => DEFAULT_METRICS_PORT,
            sends if sends.is_web_socket() => DEFAULT_PAGE_PORT,
            _ => DEFAULT_PORT,
        },
        "write 127.0.0.1:1234 for this machine only, or 0.0.0.0:1234 for all that can reach it",
    )?;
    if let Address::Ip(SocketAddr::V6(v6)) = &addr
        && v6.ip().is_unicast_link_local()
        && v6.scope_id() == 0
    {
        return Err(format!(
            "a link-local address needs the number of its interface, as in [{}%2]:{} (`ip link` \
             has it)",
            v6.ip(),
            v6.port()
        ));
    }
    Ok(Listen {
        dialect,
        addr,
        preamble,
    })
}

pub(super) fn parse_network(text: &str) -> Result<Network, String> {
    text.trim()
        .parse::<Network>()
        .map_err(|error| error.to_string())
}

pub(super) fn parse_banned(text: &str) -> Result<Banned, String> {
    text.trim()
        .parse::<Banned>()
        .map_err(|error| error.to_string())
}

pub(super) fn parse_number(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| format!("not a number from 0 to {}", usize::MAX))
}

pub(super) fn parse_count(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|&count| count > 0)
        .ok_or_else(|| "not a count; write a number from 1 up".to_owned())
}

pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    text.parse::<ByteSize>()
        .ok()
        .and_then(|size| usize::try_from(size.as_u64()).ok())
        .ok_or_else(|| "not a size; write bytes or a unit, as in 512, 64KiB or 1MiB".to_owned())
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "not a time; write a number and a unit, as in 500ms, 10s or 2min".to_owned())
}

pub(super) fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() {
        return Err("must be more than zero".to_owned());
    }
    Ok(duration)
}

pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(10);
    match parse_duration(text)? {
        interval if interval < LEAST => Err("must be at least 10ms".to_owned()),
        interval => Ok(interval),
    }
}

pub(super) fn parse_or_off(text: &str) -> Result<OrOff, String> {
    OrOff::parse(text, parse_positive_duration)
}

pub(super) fn parse_idle_timeout(text: &str) -> Result<OrOff, String> {
    parse_or_off(text).map_err(|error| format!("{error}; write `off` for no limit"))
}

pub(super) fn parse_rate(text: &str) -> Result<OrOff<u64>, String> {
    let positive = |text: &str| match parse_size(text)? {
        0 => Err("must be more than zero".to_owned()),
        bytes => Ok(bytes as u64),
    };
    OrOff::parse(text, positive).map_err(|error| format!("{error}; write `off` for no limit"))
}

pub(super) fn parse_max_per_ip(text: &str) -> Result<OrOff<usize>, String> {
    OrOff::parse(text, parse_count).map_err(|error| format!("{error}, or `off` for no limit"))
}

pub(super) fn parse_accept_rate(text: &str) -> Result<OrOff<u64>, String> {
    OrOff::parse(text, |text| parse_count(text).map(|count| count as u64))
        .map_err(|error| format!("{error}, or `off` for no limit"))
}

/// Which names members may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    Any,
    Unique,
}

pub(super) fn parse_names(text: &str) -> Result<Names, String> {
    match text {
        "any" => Ok(Names::Any),
        "unique" => Ok(Names::Unique),
        _ => Err("not a policy; write `any` or `unique`".to_owned()),
    }
}

pub(super) fn parse_slow(text: &str) -> Result<Slow, String> {
    match text {
        "pace" => Ok(Slow::Pace),
        "cut" => Ok(Slow::Cut),
        _ => Err("not a policy; write `pace` or `cut`".to_owned()),
    }
}

pub(super) fn parse_every(text: &str) -> Result<OrOff, String> {
    parse_or_off(text).map_err(|error| format!("{error}; write `off` for never"))
}

pub(super) fn parse_keepalive(text: &str) -> Result<OrOff, String> {
    // The most that Linux takes, in seconds: see tcp(7) and MAX_TCP_KEEPIDLE.
    const MOST: Duration = Duration::from_secs(32_767);
    match parse_or_off(text) {
        Ok(OrOff(Some(duration))) if duration > MOST => {
            Err("at most 32767s, about nine hours; write `off` for no keepalive".to_owned())
        }
        Ok(keepalive) => Ok(keepalive),
        Err(error) => Err(format!("{error}; write `off` for no keepalive")),
    }
}

pub(super) fn parse_level(text: &str) -> Result<LevelFilter, String> {
    text.parse()
        .map_err(|_| "not a level; write off, error, warn, info, debug or trace".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_address_has_an_optional_dialect() {
        for (text, dialect, addr) in [
            ("127.0.0.1:1234", Dialect::Chat10, "127.0.0.1:1234"),
            ("5050", Dialect::Chat10, "127.0.0.1:5050"),
            ("chat10://0.0.0.0:0", Dialect::Chat10, "0.0.0.0:0"),
            ("chat64://5050", Dialect::Chat64, "127.0.0.1:5050"),
            ("ack64://::1", Dialect::Ack64, "[::1]:1234"),
            ("[fe80::1%2]:99", Dialect::Chat10, "[fe80::1%2]:99"),
            (" CHAT10://[::1] ", Dialect::Chat10, "[::1]:1234"),
        ] {
            let addr = Address::Ip(addr.parse().unwrap());
            for (start, proxy_header, tls) in [
                ("", false, false),
                ("proxy+", true, false),
                ("tls+", false, true),
                ("PROXY+TLS+", true, true),
            ] {
                if !start.is_empty() && !text.contains("://") {
                    continue;
                }
                let text = format!("{start}{}", text.trim());
                let listen = Listen {
                    dialect,
                    addr: addr.clone(),
                    preamble: Preamble { proxy_header, tls },
                };
                assert_eq!(parse_listen(&text), Ok(listen), "{text}");
            }
        }
    }

    #[test]
    fn secure_web_socket_has_the_name_that_urls_have_for_it() {
        for (text, is_proxied) in [
            ("wss://1", false),
            ("proxy+WSS://1", true),
            ("tls+ws://1", false),
        ] {
            let listen = parse_listen(text).unwrap();
            assert!(
                listen.preamble.tls && listen.dialect == Dialect::Ws,
                "{text}"
            );
            assert_eq!(listen.preamble.proxy_header, is_proxied);
            let name = if is_proxied { "proxy+wss" } else { "wss" };
            assert_eq!(listen.preamble.with(listen.dialect), name);
        }
    }

    #[test]
    fn listen_address_that_is_none_has_an_error_that_says_what_to_write() {
        for (text, says) in [
            ("1234:1234", "1234 is not an address; write 127.0.0.1:1234"),
            ("127.0.0.1:99999", "a port is a number up to 65535"),
            ("chat64:127.0.0.1:5050", "write chat64://127.0.0.1:5050"),
            ("chat64:/127.0.0.1:5050", "write chat64://127.0.0.1:5050"),
            ("chat64:5050", "write chat64://5050"),
            (":1234", "0.0.0.0:1234"),
            (
                "proxy+127.0.0.1:1234",
                "write proxy+chat10://127.0.0.1:1234",
            ),
            ("ws://proxy+127.0.0.1", "write proxy+ws://127.0.0.1"),
            ("tls+127.0.0.1:1234", "write tls+chat10://127.0.0.1:1234"),
            (
                "tls+proxy+chat10://1234",
                "unknown dialect; the known ones: chat10",
            ),
            ("proxy://1234", "unknown dialect; the known ones: chat10"),
            (
                "proxy+tcp://1234",
                "unknown dialect; the known ones: chat10",
            ),
            ("proxy+chat64:5050", "write proxy+chat64://5050"),
            ("chat10://", "127.0.0.1:1234"),
            ("", "127.0.0.1:1234"),
            ("::1:1234", "write [::1]:1234"),
            ("[fe80::1]:99", "as in [fe80::1%2]:99"),
            ("fe80::1", "as in [fe80::1%2]:1234"),
            (
                "irc://127.0.0.1:6667",
                "unknown dialect; the known ones: chat10",
            ),
        ] {
            let error = parse_listen(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn network_is_an_address_or_a_prefix() {
        for text in ["192.0.2.1", " 10.0.0.0/8", "::1", "2001:db8::/32"] {
            assert!(parse_network(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "localhost",
            "10.0.0.0/33",
            "10.0.0/8",
            "unix:",
            "10.0.0.1:80",
        ] {
            let error = parse_network(text).unwrap_err();
            assert!(
                error.contains("write 192.0.2.1, 10.0.0.0/8"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn size_may_have_a_unit() {
        for (text, bytes) in [
            ("512", 512),
            ("64KiB", 65_536),
            ("64KB", 64_000),
            ("1.5 MiB", 1_572_864),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "-1", "many", "12 parsecs"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keepalive_can_be_off() {
        assert_eq!(parse_keepalive("off"), Ok(OrOff(None)));
        assert_eq!(parse_keepalive("OFF"), Ok(OrOff(None)));
        let minute = Duration::from_secs(60);
        assert_eq!(parse_keepalive("1min"), Ok(OrOff(Some(minute))));
        let longest = Duration::from_secs(32_767);
        assert_eq!(parse_keepalive("32767s"), Ok(OrOff(Some(longest))));
        for text in ["0s", "60", "10h", ""] {
            let error = parse_keepalive(text).unwrap_err();
            assert!(error.contains("`off`"), "{text}: {error}");
        }
    }
}
