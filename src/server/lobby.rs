//! The lobby: connections that speak HTTP until they are WebSocket connections, or have the page, and
//! connections whose proxy has not stated their address yet.
//!
//! The room knows nothing of HTTP and of proxies. A connection of a listener for proxies waits here until the
//! header of the PROXY protocol has come, and one of a WebSocket listener until the head of its request has
//! come. Then it is given the page, refused, or becomes a connection of the relay, under its client's address.
//! The lobby is small and nothing waits long in it, so that it cannot be used to hold memory: when it is full,
//! the oldest goes.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use slab::Slab;

use super::access::{Access, Denied};
use super::http::{self, MAX_HEAD, Request};
use super::listener::Via;
use super::members::Cursor;
use super::page;
use super::proxy_header::{self, BadHeader, Progress};
use super::trusted::Proxies;
use crate::relay::{Ready, after};
use crate::wire::{Dialect, Sends};

/// How many connections are in the lobby at once, besides those that only ask the relay about itself.
const MAX_VISITORS: usize = 256;

/// How many connections ask the relay about itself at once: at its listeners for metrics, and again at its
/// admin socket. They have places of their own, so that no other connections keep them out; and few, so
/// that those that never read hold little.
const MAX_SCRAPERS: usize = 16;

/// How many reads of a head that is too long are discarded, so that its sender receives the answer.
const MAX_DISCARDED_READS: usize = 16;

/// What is served, and to whom.
#[derive(Clone, Debug, Default)]
pub struct WebConfig {
    /// The names under which browsers may ask for the relay, besides IP addresses and `localhost`. A page of
    /// another name could be of a site that resolves its name to this machine (DNS rebinding).
    pub hosts: Vec<String>,
    /// The origins whose pages may connect, besides the relay's own.
    pub origins: Vec<String>,
}

/// A connection that is not the relay's yet.
#[derive(Debug)]
struct Visitor<S> {
    stream: S,
    /// The other end; of a connection that a proxy forwards, its client as far as it was stated.
    peer: SocketAddr,
    dialect: Dialect,
    via: Via,
    /// A header of the PROXY protocol comes before anything else.
    awaits_header: bool,
    /// What has come of that header, and after it of the request.
    head: Vec<u8>,
    /// What is left of the response, once there is one, or of a part of it.
    response: Vec<u8>,
    /// What follows the response.
    then: Then,
    /// When it is closed if it is still here. Between two requests it has no deadline, and wakes no turn: it
    /// gives up its place when another one needs it.
    due: Option<Instant>,
    /// Its number in the order of arrival.
    number: u64,
}

/// What a visit came to.
#[derive(Debug)]
pub(super) enum Visit<S> {
    /// It is the relay's from now on, as a connection of this dialect.
    Admitted {
        stream: S,
        peer: SocketAddr,
        dialect: Dialect,
    },
    /// It was refused, for a reason that the log shows.
    Refused { peer: SocketAddr, reason: Refused },
    /// It asks the relay about itself, and waits for the response.
    Asked {
        /// Its index.
        index: usize,
        via: Via,
        question: Question,
    },
    /// It ended, with nothing to report.
    Ended,
}

/// What a connection asks the relay about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// The resource at this path.
    Path {
        path: String,
        /// Whether another request may follow.
        persists: bool,
    },
    /// The next part of the members' table, since all before it was accepted.
    MembersFrom(Cursor),
    /// To do something, at the admin socket.
    Act { path: String, query: String },
}

/// What follows a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The end of the connection.
    End,
    /// The next part of the response, which begins here.
    Part(Cursor),
    /// Another request.
    Request,
}

/// Why a connection was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The `Host` is a name that is not the relay's.
    Host(String),
    /// The `Origin` is another site's.
    Origin(String),
    /// It is no request, or none that is answered here.
    Request(&'static str),
    /// A header of the PROXY protocol is expected, and this is none.
    BadHeader(BadHeader),
    /// A header of the PROXY protocol is expected, and has not come in time.
    LateHeader,
    /// There is a header of the PROXY protocol, and none is expected.
    UnexpectedHeader,
    /// The client that a proxy stated may not connect.
    Denied(Denied),
}

/// Who is let in from the lobby, and to what.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) web: WebConfig,
    pub(super) proxies: Proxies,
    pub(super) access: Access,
}

impl Entrance {
    /// Why this client may not connect, if it may not. The time is that since 1970.
    fn refusal_of(&self, client: SocketAddr, time: Duration) -> Option<Refused> {
        self.access.denial(client.ip(), time).map(Refused::Denied)
    }
}

/// Connections that are not the relay's yet.
#[derive(Debug)]
pub(super) struct Lobby<S> {
    visitors: Slab<Visitor<S>>,
    /// Those with news, by index and number. Each is served once a turn: one that asks for the metrics must not be
    /// read again before it has its response.
    ready: BTreeSet<(usize, u64)>,
    next_number: u64,
    pub(super) entrance: Entrance,
    /// How long a header and a request may take together.
    timeout: Duration,
}

impl<S> Lobby<S> {
    pub(super) const fn new(entrance: Entrance, timeout: Duration) -> Self {
        Self {
            visitors: Slab::new(),
            ready: BTreeSet::new(),
            next_number: 0,
            entrance,
            timeout,
        }
    }

    /// Whether this peer may state its client's address.
    pub(super) fn trusts(&self, peer: SocketAddr) -> bool {
        self.entrance.proxies.trusts(peer)
    }

    /// The index of the next visitor.
    pub(super) fn next_index(&self) -> usize {
        self.visitors.vacant_key()
    }

    /// Makes sure that there is a place for a visitor of this dialect that came this way: where there is none,
    /// the oldest one is closed.
    pub(super) fn make_room(&mut self, dialect: Dialect, via: Via) {
        let kind = |dialect, via| (dialect == Dialect::Metrics, via == Via::AdminSocket);
        let wanted = kind(dialect, via);
        let max = match wanted {
            (true, _) => MAX_SCRAPERS,
            (false, _) => MAX_VISITORS,
        };
        let visitors = self.visitors.iter();
        let alike = visitors.filter(|(_, one)| kind(one.dialect, one.via) == wanted);
        let (count, oldest) = alike.fold((0, None), |(count, oldest), (index, one)| {
            let this = (one.number, index);
            (
                count + 1,
                Some(oldest.map_or(this, |other: (u64, usize)| other.min(this))),
            )
        });
        if count >= max
            && let Some((_, index)) = oldest
        {
            self.visitors.remove(index);
        }
    }

    /// A connection has come, and is watched under the [`next_index`](Self::next_index).
    pub(super) fn enter(
        &mut self,
        stream: S,
        peer: SocketAddr,
        dialect: Dialect,
        via: Via,
        now: Instant,
    ) {
        let number = self.next_number;
        self.next_number += 1;
        let index = self.visitors.insert(Visitor {
            stream,
            peer,
            dialect,
            via,
            awaits_header: via == Via::Proxy,
            head: Vec::new(),
            response: Vec::new(),
            then: Then::End,
            due: Some(after(now, self.timeout)),
            number,
        });
        self.ready.insert((index, number));
    }

    /// Records the readiness that an event reports.
    pub(super) fn note(&mut self, index: usize, ready: Ready) {
        if ready.any(Ready::READABLE | Ready::WRITABLE | Ready::READ_CLOSED | Ready::HUNG_UP)
            && let Some(visitor) = self.visitors.get(index)
        {
            self.ready.insert((index, visitor.number));
        }
    }

    /// Whether a visitor has news.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the next visitor is late.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.visitors
            .iter()
            .filter_map(|(_, visitor)| visitor.due)
            .min()
    }

    /// Closes the visitors that are late and have no news. Returns the proxies that have not sent a header.
    /// Others are nothing to report: a browser opens connections that it may never use.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<SocketAddr> {
        let mut proxies = Vec::new();
        let ready = &self.ready;
        self.visitors.retain(|index, visitor| {
            // What has come is read first: it may be this turn that is late.
            let is_late = visitor.due.is_some_and(|due| due <= now)
                && !ready.contains(&(index, visitor.number));
            if is_late && visitor.awaits_header {
                proxies.push(visitor.peer);
            }
            !is_late
        });
        proxies
    }

    /// Closes all visitors but those that ask the relay about itself.
    pub(super) fn close(&mut self) {
        self.visitors
            .retain(|_, visitor| visitor.dialect == Dialect::Metrics);
    }
}

impl<S: Read + Write> Lobby<S> {
    /// Serves the visitors with news. `time` is that since 1970.
    pub(super) fn serve(
        &mut self,
        scratch: &mut [u8],
        now: Instant,
        time: Duration,
    ) -> Vec<Visit<S>> {
        let ready = std::mem::take(&mut self.ready);
        let ready = ready.into_iter().filter_map(|(index, number)| {
            let visitor = self.visitors.get_mut(index)?;
            if visitor.number != number {
                return None;
            }
            let step = visitor.serve(&self.entrance, scratch, time);
            self.finish(index, step, now)
        });
        ready.collect()
    }

    /// Sends the visitor of this index the response that it [asked](Visit::Asked) for, or a part of it. It asks
    /// for the next part, if there is one, when all of this was accepted, and not in this turn.
    pub(super) fn respond(&mut self, index: usize, response: Vec<u8>, then: Then, now: Instant) {
        if let Some(visitor) = self.visitors.get_mut(index) {
            visitor.then = then;
            let step = visitor.respond(response);
            self.finish(index, step, now);
        }
    }

    /// Acts on what a visitor came to.
    fn finish(&mut self, index: usize, step: Step, now: Instant) -> Option<Visit<S>> {
        match step {
            Step::Wait => {
                let visitor = self.visitors.get_mut(index)?;
                if visitor.due.is_none() && !visitor.is_at_rest() {
                    visitor.due = Some(after(now, self.timeout));
                }
                return None;
            }
            Step::WaitForTurn => {
                let number = self.visitors.get(index)?.number;
                self.ready.insert((index, number));
                return None;
            }
            Step::WaitForRequest => {
                let visitor = self.visitors.get_mut(index)?;
                visitor.due = None;
                // It is the last one now to be closed for its place.
                visitor.number = self.next_number;
                self.next_number += 1;
                // The edge that reported the request may have reported the end of the input as well.
                self.ready.insert((index, visitor.number));
                return None;
            }
            Step::Ask(question) => {
                let via = self.visitors.get(index)?.via;
                return Some(Visit::Asked {
                    index,
                    via,
                    question,
                });
            }
            Step::End | Step::Refuse(_) | Step::Admit(_) => {}
        }
        let visitor = self.visitors.remove(index);
        Some(match step {
            Step::Refuse(reason) => Visit::Refused {
                peer: visitor.peer,
                reason,
            },
            Step::Admit(dialect) => Visit::Admitted {
                stream: visitor.stream,
                peer: visitor.peer,
                dialect,
            },
            _ => Visit::Ended,
        })
    }
}

/// How a visit goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// More must come, or more be accepted.
    Wait,
    /// It goes on in the next turn.
    WaitForTurn,
    /// The response is accepted, and another request may come.
    WaitForRequest,
    /// It is over.
    End,
    Refuse(Refused),
    /// It waits for the response to this.
    Ask(Question),
    /// It becomes the relay's.
    Admit(Dialect),
}

impl<S: Read + Write> Visitor<S> {
    fn serve(&mut self, entrance: &Entrance, scratch: &mut [u8], time: Duration) -> Step {
        if !self.response.is_empty() {
            return self.write_response();
        }
        if let Then::Part(cursor) = self.then {
            return Step::Ask(Question::MembersFrom(cursor));
        }
        if self.awaits_header
            && let Err(step) = self.read_header(scratch)
        {
            return step;
        }
        // Of a connection without such a header, this was known when it was accepted.
        if self.via == Via::Proxy
            && let Some(refused) = entrance.refusal_of(self.peer, time)
        {
            return Step::Refuse(refused);
        }
        if self.dialect.rules().sends.begins_with_http() {
            self.read_request(entrance, scratch, time)
        } else {
            Step::Admit(self.dialect)
        }
    }

    /// Appends at most as many bytes as `scratch` has room for to the head.
    fn read(&mut self, scratch: &mut [u8]) -> Result<(), Step> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(Step::End),
                Ok(read) => {
                    self.head.extend_from_slice(&scratch[..read]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(Step::Wait),
                Err(_) => return Err(Step::End),
            }
        }
    }

    /// Reads a header of the PROXY protocol to its end, and no byte that follows it.
    fn read_header(&mut self, scratch: &mut [u8]) -> Result<(), Step> {
        loop {
            match proxy_header::next(&self.head) {
                Ok(Progress::Missing(missing)) => {
                    let len = missing.min(scratch.len());
                    self.read(&mut scratch[..len])?;
                }
                Ok(Progress::Complete(source)) => {
                    self.peer = source.unwrap_or(self.peer);
                    self.awaits_header = false;
                    self.head.clear();
                    return Ok(());
                }
                Err(bad) => return Err(Step::Refuse(Refused::BadHeader(bad))),
            }
        }
    }

    /// Reads the head of a request, and answers the request.
    fn read_request(&mut self, entrance: &Entrance, scratch: &mut [u8], time: Duration) -> Step {
        loop {
            let seen = self.head.len();
            if let Err(step) = self.read(scratch) {
                return step;
            }
            if proxy_header::is_at_start_of(&self.head) {
                return self.refuse("400 Bad Request", Refused::UnexpectedHeader);
            }
            match http::head_len(&self.head, seen) {
                Some(len) if len > MAX_HEAD => return self.refuse_large(scratch),
                // A client waits for the answer before it sends a frame (RFC 6455, 4.1).
                Some(len) if len < self.head.len() => {
                    return self.refuse("400 Bad Request", Refused::Request("bytes behind it"));
                }
                Some(_) => return self.answer(entrance, time),
                None if self.head.len() > MAX_HEAD => return self.refuse_large(scratch),
                None => {}
            }
        }
    }

    /// Answers the request, whose head is complete.
    fn answer(&mut self, entrance: &Entrance, time: Duration) -> Step {
        let Ok(request) = http::parse(&self.head) else {
            return self.refuse(
                "400 Bad Request",
                Refused::Request("no request in HTTP/1.1"),
            );
        };
        let forwarded_for = request.forwarded_for.iter().map(String::as_str);
        self.peer = entrance.proxies.client_of(self.peer, forwarded_for);
        if self.via != Via::AdminSocket
            && let Some(refused) = entrance.refusal_of(self.peer, time)
        {
            return self.refuse("403 Forbidden", refused);
        }
        let is_scraper = self.dialect == Dialect::Metrics;
        // The metrics are asked for under any name, and a page of another site cannot read the response.
        if !is_scraper && let Some(refused) = entrance.web.refusal(&request) {
            return self.refuse("403 Forbidden", refused);
        }
        if request.method == "POST" && self.via == Via::AdminSocket {
            let (path, query) = (request.path, request.query);
            return Step::Ask(Question::Act { path, query });
        }
        if request.method != "GET" {
            let allow = ("Allow", "GET");
            return self.respond(http::response("405 Method Not Allowed", &[allow], b""));
        }
        if is_scraper {
            return Step::Ask(Question::Path {
                path: request.path,
                persists: request.persists,
            });
        }
        if request.upgrade.is_some() {
            return self.upgrade(&request);
        }
        let has_page = self.dialect.rules().sends == Sends::Messages;
        let response = match request.path.as_str() {
            "/" if has_page => page::response(&request),
            "/favicon.ico" => http::response("204 No Content", &[], b""),
            _ => http::response("404 Not Found", &[], b"there is nothing here\n"),
        };
        self.respond(response)
    }

    /// Answers a WebSocket handshake (RFC 6455, 4.2.2).
    fn upgrade(&mut self, request: &Request) -> Step {
        let Some(upgrade) = &request.upgrade else {
            return Step::End;
        };
        if !upgrade.is_version_13 {
            let version = ("Sec-WebSocket-Version", "13");
            return self.respond(http::response("426 Upgrade Required", &[version], b""));
        }
        let Some(key) = &upgrade.key else {
            let reason = Refused::Request("a handshake without a key");
            return self.refuse("400 Bad Request", reason);
        };
        let chosen = upgrade.protocols.iter().find_map(|offered| {
            let dialect = match (offered.as_str(), self.dialect) {
                ("chatloop.json", Dialect::Ws) => Dialect::Ws,
                ("chat10", Dialect::Ws | Dialect::WsChat10) => Dialect::WsChat10,
                _ => return None,
            };
            Some((offered.as_str(), dialect))
        });
        let response = http::switching_protocols(key, chosen.map(|(name, _)| name));
        match write_once(&mut self.stream, &response) {
            // The socket is new, and so is its buffer: it accepts a few hundred bytes.
            Ok(sent) if sent == response.len() => {
                Step::Admit(chosen.map_or(self.dialect, |(_, dialect)| dialect))
            }
            _ => Step::End,
        }
    }

    fn refuse_large(&mut self, scratch: &mut [u8]) -> Step {
        // A socket that is closed with unread bytes sends a reset, and its peer may not see the answer.
        for _ in 0..MAX_DISCARDED_READS {
            match self.stream.read(scratch) {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
        let reason = Refused::Request("a head of more than 8 KiB");
        self.refuse("431 Request Header Fields Too Large", reason)
    }

    fn refuse(&mut self, status: &str, reason: Refused) -> Step {
        let response = http::response(status, &[], b"");
        // If it is not accepted at once, the peer has to do without.
        let _ = write_once(&mut self.stream, &response);
        Step::Refuse(reason)
    }

    /// Whether nothing of a request has come, and nothing of a response is left.
    const fn is_at_rest(&self) -> bool {
        self.head.is_empty() && self.response.is_empty()
    }

    fn respond(&mut self, response: Vec<u8>) -> Step {
        self.response = response;
        self.write_response()
    }

    fn write_response(&mut self) -> Step {
        loop {
            match write_once(&mut self.stream, &self.response) {
                Ok(sent) => {
                    self.response.drain(..sent);
                    if self.response.is_empty() {
                        return match self.then {
                            Then::End => Step::End,
                            Then::Part(_) => Step::WaitForTurn,
                            Then::Request => {
                                self.then = Then::End;
                                self.head = Vec::new();
                                Step::WaitForRequest
                            }
                        };
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Wait,
                Err(_) => return Step::End,
            }
        }
    }
}

/// Writes what the socket accepts at once. An interrupted call is made again.
pub(super) fn write_once(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            written => return written,
        }
    }
}

impl WebConfig {
    /// Why a request is refused for where it comes from, if it is.
    fn refusal(&self, request: &Request) -> Option<Refused> {
        let host = request.host.as_deref().unwrap_or_default();
        if !self.is_own(host) {
            return Some(Refused::Host(host.to_owned()));
        }
        let origin = request.origin.as_deref()?;
        let is_same = origin
            .split_once("://")
            .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
        let is_allowed =
            |allowed: &String| allowed == "any" || allowed.eq_ignore_ascii_case(origin);
        if is_same || self.origins.iter().any(is_allowed) {
            None
        } else {
            Some(Refused::Origin(origin.to_owned()))
        }
    }

    /// Whether this `Host` can only be the relay: an IP address, `localhost`, or a name that was given.
    fn is_own(&self, host: &str) -> bool {
        let name = http::host_without_port(host);
        let ip = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost")
            || ip.parse::<std::net::IpAddr>().is_ok()
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}
