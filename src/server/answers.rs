//! What is answered at the listeners for metrics and at the admin socket.

use std::fmt::Write;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::access::{Access, Ban};
use super::admin::{self, Act, BadAct, Whom};
use super::banned::Banned;
use super::bus::BusFigures;
use super::listener::Via;
use super::lobby::{Question, Then};
use super::log::ServerLog;
use super::members::{self, Cursor};
use super::stream::Stream;
use super::tls::Session;
use super::{http, metrics};
use crate::relay::{ConnId, Relay};
use crate::text::Quoted;

/// How many networks one act bans at most: a file and a walk for each would take long.
const MAX_NETWORKS: usize = 100;

/// A status of HTTP, with a text for the user.
type Answer = (&'static str, String);

const OK: &str = "200 OK";
const BAD_REQUEST: &str = "400 Bad Request";
const NOT_ALLOWED: &str = "405 Method Not Allowed";
const NOT_FOUND: &str = "404 Not Found";
const FAILED: &str = "500 Internal Server Error";

/// What can be asked about, and acted on.
pub(super) struct Desk<'a, S: Read + io::Write> {
    pub(super) relay: &'a mut Relay<Stream<S>>,
    pub(super) access: &'a mut Access,
    pub(super) log: &'a ServerLog,
    /// The metrics as text, if they are [asked for](wants_metrics).
    pub(super) metrics: String,
    /// The bus, if there is one.
    pub(super) bus: Option<BusFigures>,
    pub(super) is_stopping: bool,
    /// How long the server has been running.
    pub(super) uptime: Duration,
    pub(super) now: Instant,
    /// The time since 1970.
    pub(super) time: Duration,
}

/// Whether the answer to this is the metrics.
pub(super) fn wants_metrics(question: &Question) -> bool {
    matches!(question, Question::Path { path, .. } if path == "/metrics")
}

impl<S: Read + io::Write> Desk<'_, S> {
    /// The response to a question about the relay, or the next part of it, and what follows it.
    pub(super) fn answer(&mut self, question: Question, via: Via) -> (Vec<u8>, Then) {
        match question {
            Question::MembersFrom(cursor) => {
                let (text, next_part) = members::part(self.relay, cursor, self.now);
                (text.into_bytes(), next_part.map_or(Then::End, Then::Part))
            }
            Question::Path { path, persists } => {
                let is_admin = via == Via::AdminSocket;
                let answer = is_admin.then(|| self.admin_resource(&path)).flatten();
                answer.unwrap_or_else(|| self.resource(&path, persists, is_admin))
            }
            Question::Act { path, query } => {
                let (status, text) = match admin::parse(&path, &query) {
                    Ok(act) => self.act(act),
                    Err(BadAct::Value(why)) => (BAD_REQUEST, why.to_owned()),
                    Err(BadAct::Unknown) => (NOT_ALLOWED, "no such act".to_owned()),
                };
                (
                    http::response(status, &[], (text + "\n").as_bytes()),
                    Then::End,
                )
            }
        }
    }

    /// What all may ask for.
    fn resource(&self, path: &str, persists: bool, is_admin: bool) -> (Vec<u8>, Then) {
        let response = match path {
            "/metrics" => {
                let fields = [("Content-Type", metrics::CONTENT_TYPE)];
                let text = &self.metrics;
                if persists {
                    // A scraper comes back. That it need not connect again saves the relay a wake-up.
                    let response = http::persistent_response(OK, &fields, text.as_bytes());
                    return (response, Then::Request);
                }
                http::response(OK, &fields, text.as_bytes())
            }
            "/healthz" if self.is_stopping => {
                http::response("503 Service Unavailable", &[], b"stopping\n")
            }
            "/healthz" => http::response(OK, &[], format!("ok\n{}", self.bus_text()).as_bytes()),
            _ if is_admin => {
                let body = b"here are /metrics, /healthz, /members, /stats and /bans\n";
                http::response(NOT_FOUND, &[], body)
            }
            _ => http::response(NOT_FOUND, &[], b"here are /metrics and /healthz\n"),
        };
        (response, Then::End)
    }

    /// What only the admin socket has.
    fn admin_resource(&self, path: &str) -> Option<(Vec<u8>, Then)> {
        let text = match path {
            "/members" => {
                let (text, next_part) = members::part(self.relay, Cursor::default(), self.now);
                let head = http::head_of_parts(OK, &[("Content-Type", "application/json")]);
                let then = next_part.map_or(Then::End, Then::Part);
                return Some(((head + &text).into_bytes(), then));
            }
            "/stats" => self.stats_text(),
            "/bans" => self.bans_text(),
            _ => return None,
        };
        Some((http::response(OK, &[], text.as_bytes()), Then::End))
    }

    /// A line for the bus, if there is one. Without the engine the relay serves its members, so it is well.
    fn bus_text(&self) -> String {
        let bus = self.bus.as_ref();
        bus.map_or_else(String::new, |bus| format!("{bus}\n"))
    }

    /// The figures of the relay, as the log has them.
    fn stats_text(&self) -> String {
        let uptime = Duration::from_secs(self.uptime.as_secs());
        format!(
            "chatloop {}, running for {}{}\n{}, {} without a name; {} lagging, {} bytes held{}\n{}\n{}",
            env!("CARGO_PKG_VERSION"),
            humantime::format_duration(uptime),
            if self.is_stopping { ", stopping" } else { "" },
            self.log.members(self.relay.members()),
            self.relay.pending_connections(),
            self.relay.lagging(),
            self.relay.held_bytes(),
            if self.relay.is_paused() {
                "; senders are paused"
            } else {
                ""
            },
            self.relay.counters(),
            self.bus_text(),
        )
    }

    /// A line for each ban.
    fn bans_text(&self) -> String {
        let now = self.time;
        let mut text = String::new();
        for Ban { banned, until } in self.access.bans(now) {
            let left = until.map(|until| Duration::from_secs(until.saturating_sub(now.as_secs())));
            // Writing to a string does not fail.
            let _ = writeln!(text, "{banned} {}", length_text(left));
        }
        text
    }

    /// Does what the operator asks for, and reports what that was.
    fn act(&mut self, act: Act) -> Answer {
        let (status, text) = match act {
            Act::Kick(whom) => self.kick(&whom),
            Act::Ban(whom, length) => self.ban(&whom, length),
            Act::Unban(banned) => self.unban(&banned),
            Act::Say { name, text } => match self.relay.publish(&name, &text) {
                Ok(()) => (
                    OK,
                    format!("sent to {}", self.log.members(self.relay.members())),
                ),
                Err(error) => (BAD_REQUEST, error.to_string()),
            },
        };
        if status == OK {
            self.log.act(&text);
        }
        (status, text)
    }

    fn kick(&mut self, whom: &Whom) -> Answer {
        let connections = self.connections_of(whom);
        let closed = self.close_all(connections.into_iter().map(|(id, _)| id));
        let whom = whom_text(whom);
        match closed {
            0 => (NOT_FOUND, format!("there is no {whom}")),
            closed => (OK, format!("closed {}: {whom}", connections_text(closed))),
        }
    }

    /// Bans a network or the name of a certificate, or the networks from which a connection or the members of a name
    /// come.
    fn ban(&mut self, whom: &Whom, length: Option<Duration>) -> Answer {
        let mut all: Vec<_> = if let Whom::Banned(banned) = whom {
            vec![banned.clone()]
        } else {
            let connections = self.connections_of(whom).into_iter();
            connections
                .map(|(_, peer)| Banned::Network(admin::network_of(peer.ip())))
                .collect()
        };
        all.sort_by_cached_key(ToString::to_string);
        all.dedup();
        match all.len() {
            0 => return (NOT_FOUND, format!("there is no {}", whom_text(whom))),
            1..=MAX_NETWORKS => {}
            count => {
                let text = format!("they come from {count} addresses; ban their networks");
                return (BAD_REQUEST, text);
            }
        }
        let until = length.map(|length| self.time.saturating_add(length).as_secs());
        let bans = all.iter().cloned();
        let bans: Vec<_> = bans.map(|banned| Ban { banned, until }).collect();
        let kept = match self.access.ban(&bans, self.time) {
            Err(error) if error.kind() == ErrorKind::QuotaExceeded => {
                return (FAILED, error.to_string());
            }
            Err(error) => format!(" or until the relay stops, since the file failed: {error}"),
            Ok(()) if self.access.keeps_bans() => String::new(),
            Ok(()) => " or until the relay stops".to_owned(),
        };
        let connections = all
            .iter()
            .flat_map(|banned| self.connections_of(&Whom::Banned(banned.clone())));
        let connections: Vec<_> = connections.map(|(id, _)| id).collect();
        let closed = connections_text(self.close_all(connections.into_iter()));
        let names: Vec<_> = all.iter().map(ToString::to_string).collect();
        let (names, length) = (names.join(", "), length_text(length));
        (
            OK,
            format!("banned {names} {length}{kept}; closed {closed}"),
        )
    }

    fn unban(&mut self, banned: &Banned) -> Answer {
        let time = self.time;
        match self.access.unban(banned, time) {
            Ok(true) => (OK, format!("{banned} is not banned any more")),
            Ok(false) => (NOT_FOUND, format!("{banned} is not banned")),
            Err(error) => (
                FAILED,
                format!("{banned} will be banned again after a restart: {error}"),
            ),
        }
    }

    /// The connections that an act is about, with their addresses.
    fn connections_of(&self, whom: &Whom) -> Vec<(ConnId, SocketAddr)> {
        match whom {
            Whom::Connection(wanted) => self.relay.peers().filter(|(id, _)| id == wanted).collect(),
            Whom::Banned(Banned::Certificate(name)) => {
                let has_name = |&(id, _): &(ConnId, SocketAddr)| {
                    let session = self.relay.stream(id).and_then(Stream::session);
                    session.and_then(Session::client_name).as_deref() == Some(name)
                };
                self.relay.peers().filter(has_name).collect()
            }
            Whom::Banned(Banned::Network(network)) => {
                let is_there = |(_, peer): &(ConnId, SocketAddr)| network.contains(peer.ip());
                self.relay.peers().filter(is_there).collect()
            }
            Whom::Name(name) => {
                let members = self
                    .relay
                    .member_infos(self.now)
                    .filter(|member| member.name == name);
                members.map(|member| (member.id, member.peer)).collect()
            }
        }
    }

    /// Closes connections in the next turn. Returns how many there were.
    fn close_all(&mut self, ids: impl Iterator<Item = ConnId>) -> usize {
        ids.filter(|&id| self.relay.close(id)).count()
    }
}

fn whom_text(whom: &Whom) -> String {
    match whom {
        Whom::Connection(id) => format!("connection {:x}", usize::from(*id)),
        Whom::Name(name) => format!("member {}", Quoted(name)),
        Whom::Banned(Banned::Network(network)) => format!("connection from {network}"),
        Whom::Banned(Banned::Certificate(name)) => {
            format!("connection with a certificate of {}", Quoted(name))
        }
    }
}

fn connections_text(count: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} connection{plural}")
}

fn length_text(length: Option<Duration>) -> String {
    length.map_or_else(
        || "without an end".to_owned(),
        |length| format!("for {}", humantime::format_duration(length)),
    )
}
