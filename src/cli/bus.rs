//! The flags of the bus, and where it is.

use clap::Args;

use super::values::{parse_count, parse_number, parse_size};
use crate::address::Address;

/// The port of an engine if none is given.
const ENGINE_PORT: u16 = 6379;

/// The port of a Sentinel if none is given.
const SENTINEL_PORT: u16 = 26379;

/// What to write.
const WRITE: &str = "write redis://127.0.0.1:6379 for an engine on this machine";

#[derive(Debug, Args)]
pub(crate) struct BusArgs {
    /// One room with other relays, through a Redis or Valkey that all of them share
    ///
    /// What members say here is delivered at every relay with the same engine and room, and the other way around,
    /// after an outage as well: see docs/scaling.md. The URL is
    /// `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE][?room=NAME]`, or
    /// `redis-sentinel://HOST[:PORT],HOST[:PORT]/MASTER[?room=NAME]` for what Sentinels watch. `:PASSWORD@` is for
    /// the default user. `%40` is an @ in a password. Others may see the command line, so a URL with a password
    /// is better in the environment. While the engine is away, members of this relay chat on.
    #[arg(
        long,
        env = "CHATLOOP_BUS",
        value_name = "URL",
        value_parser = parse_url,
        hide_env = true
    )]
    pub(crate) bus: Option<BusUrl>,

    /// The name of this relay, in logs and metrics [default: the host's name and the first port]
    #[arg(
        long,
        env = "CHATLOOP_BUS_NODE",
        value_name = "NAME",
        requires = "bus",
        hide_env = true
    )]
    pub(crate) bus_node: Option<String>,

    /// How much may wait for an engine that is away
    ///
    /// Beyond that the oldest messages are given up: other relays miss them, and count them. It adds to
    /// --max-memory.
    #[arg(
        long,
        env = "CHATLOOP_BUS_QUEUE",
        value_name = "BYTES",
        default_value = "64MiB",
        value_parser = parse_size,
        hide_env = true
    )]
    pub(crate) bus_queue: usize,

    /// How many entries the engine keeps, about
    ///
    /// An entry has what was said in one turn, up to 64 KiB. A relay that was away for longer than they last
    /// misses the oldest ones, and counts them.
    #[arg(
        long,
        env = "CHATLOOP_BUS_KEEP",
        value_name = "N",
        default_value = "100000",
        value_parser = parse_count,
        hide_env = true
    )]
    pub(crate) bus_keep: usize,

    /// How many replicas of the engine should have what was said
    ///
    /// Nothing waits for them, but what fewer have is counted, and kept to be sent again after a failover.
    #[arg(
        long,
        env = "CHATLOOP_BUS_REPLICAS",
        value_name = "N",
        default_value = "0",
        value_parser = parse_number,
        hide_env = true
    )]
    pub(crate) bus_replicas: usize,
}

/// A `BusUrl` says where the engine is, and which room of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BusUrl {
    /// The engine, or its Sentinels.
    pub(crate) hosts: Vec<Address>,
    pub(crate) master: Option<String>,
    /// The user, unless it is the default one, and the password.
    pub(crate) login: Option<(Option<String>, String)>,
    pub(crate) database: u32,
    pub(crate) room: String,
}

impl std::fmt::Debug for BusUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password.
        f.debug_struct("BusUrl")
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

fn parse_url(text: &str) -> Result<BusUrl, String> {
    let (scheme, rest) = text.trim().split_once("://").ok_or(WRITE)?;
    let is_sentinel = match scheme {
        "redis" => false,
        "redis-sentinel" => true,
        "rediss" => {
            return Err("there is no TLS to the engine; put stunnel or a VPN between".to_owned());
        }
        _ => return Err(WRITE.to_owned()),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let room = match query.split_once('=') {
        None if query.is_empty() => "room".to_owned(),
        Some(("room", room)) if !room.is_empty() => decode(room)?,
        _ => return Err("after the ? only room=NAME may follow".to_owned()),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(parse_login(login)?), hosts),
        None => (None, authority),
    };
    let port = if is_sentinel {
        SENTINEL_PORT
    } else {
        ENGINE_PORT
    };
    let hosts: Result<Vec<_>, _> = hosts
        .split(',')
        .map(|host| Address::parse(host, port, WRITE))
        .collect();
    let hosts = hosts?;
    if hosts.len() > 1 && !is_sentinel {
        return Err("several hosts are for redis-sentinel://".to_owned());
    }
    let mut url = BusUrl {
        hosts,
        master: None,
        login,
        database: 0,
        room,
    };
    match path {
        "" if is_sentinel => {
            return Err(
                "write redis-sentinel://HOST/MASTER with the name of the master".to_owned(),
            );
        }
        "" => {}
        master if is_sentinel => url.master = Some(decode(master)?),
        database => {
            let number = database.parse();
            url.database = number.map_err(|_| "a database is a number, as in /0".to_owned())?;
        }
    }
    Ok(url)
}

fn parse_login(text: &str) -> Result<(Option<String>, String), String> {
    let (user, password) = text
        .split_once(':')
        .ok_or("write USER:PASSWORD@ or :PASSWORD@")?;
    let user = decode(user)?;
    Ok((
        Some(user).filter(|user| !user.is_empty()),
        decode(password)?,
    ))
}

/// A text with its `%40` decoded.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let byte = part
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.ok_or("after a % two hexadecimal digits must follow; write %25 for a %")?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_the_engine_is_and_who_asks() {
        let url = parse_url("redis://alice:p%40ss%25@db.example.org:6380/3?room=tea").unwrap();
        assert_eq!(
            url.hosts,
            [Address::Name("db.example.org".to_owned(), 6380)]
        );
        assert_eq!(url.login, Some((Some("alice".into()), "p@ss%".into())));
        assert_eq!((url.database, &url.room[..], url.master), (3, "tea", None));
        let url = parse_url("redis://:secret@[::1]").unwrap();
        assert_eq!(url.hosts, [Address::Ip("[::1]:6379".parse().unwrap())]);
        assert_eq!(url.login, Some((None, "secret".into())));
        assert_eq!((url.database, &url.room[..]), (0, "room"));
        let url = parse_url("redis-sentinel://10.0.0.1,10.0.0.2:99/main").unwrap();
        let hosts =
            ["10.0.0.1:26379", "10.0.0.2:99"].map(|addr| Address::Ip(addr.parse().unwrap()));
        assert_eq!(
            (url.hosts, url.master),
            (hosts.to_vec(), Some("main".into()))
        );
    }

    #[test]
    fn urls_that_cannot_work_are_refused_with_what_to_write() {
        for (text, says) in [
            ("127.0.0.1:6379", "write redis://"),
            ("http://127.0.0.1", "write redis://"),
            ("rediss://127.0.0.1", "no TLS"),
            ("redis://", "not ADDR:PORT"),
            ("redis://a,b", "several hosts"),
            ("redis://127.0.0.1/x", "a database is a number"),
            ("redis://127.0.0.1?db=3", "room=NAME"),
            ("redis://alice@127.0.0.1", "USER:PASSWORD@"),
            ("redis://:%4@127.0.0.1", "two hexadecimal digits"),
            ("redis-sentinel://127.0.0.1", "name of the master"),
        ] {
            let error = parse_url(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
